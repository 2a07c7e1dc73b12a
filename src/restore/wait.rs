//! Waits for S3 to thaw what a restore needs. Nothing is locked meanwhile, and whatever ends the program, the
//! same command continues.

use std::time::Duration;

use crate::error::{Result, Status};
use crate::ui::Ui;

/// The pauses double, so that a fast server is not waited for, and a slow one not asked too often.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// What one attempt has achieved.
pub enum Outcome {
    Done,
    /// Something was received, and the rest is not readable yet.
    Received,
    /// Nothing more can be received now, for this reason.
    Waiting(String),
}

pub fn until_done(ui: &Ui, mut round: impl FnMut() -> Result<Outcome>) -> Result<()> {
    let mut pause = FIRST_PAUSE;
    let mut has_waited = false;
    loop {
        match round() {
            Ok(Outcome::Done) => return Ok(()),
            Ok(Outcome::Received) => {
                pause = FIRST_PAUSE;
                continue;
            }
            Ok(Outcome::Waiting(why)) => ui.note_once(&why),
            // a copy has expired before it was read: the next round thaws it again
            Err(error) if error.status == Status::Archived => ui.warning_once(&error.message),
            // in days of waiting, the network may fail, and other commands run
            Err(error) if has_waited && matches!(error.status, Status::TryAgain | Status::Pending) => {
                ui.warning_once(&error.message);
            }
            Err(error) => return Err(error),
        }
        has_waited = true;
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
