//! Waits for S3 to thaw what a restore needs. Nothing is locked meanwhile, and whatever ends the program, the
//! same command continues.

use std::time::Duration;

use crate::error::{Error, Result, Status};
use crate::ui::Ui;

/// The pauses double, so that a fast server is not waited for, and a slow one not asked too often.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// About a day.
const MAX_FAILURES: u32 = 24 + 12;

/// What one attempt has achieved.
pub enum Outcome {
    Done,
    /// Something was received, or has changed: plan anew at once.
    Again,
    /// Nothing more can be received now, for this reason.
    Waiting(String),
    /// In days of waiting, the network may fail, other commands run, and credentials expire.
    Failed(Error),
}

pub fn until_done(ui: &Ui, mut round: impl FnMut() -> Result<Outcome>) -> Result<()> {
    let mut pause = FIRST_PAUSE;
    let mut failures = 0;
    loop {
        match round()? {
            Outcome::Done => return Ok(()),
            Outcome::Again => {
                failures = 0;
                continue;
            }
            Outcome::Waiting(why) => {
                failures = 0;
                ui.note_once(&why);
            }
            Outcome::Failed(error) => {
                failures += 1;
                if failures > MAX_FAILURES {
                    return Err(error);
                }
                ui.warning_once(&format!("{error}; trying again"));
                error.hints.iter().for_each(|hint| ui.note_once(&format!("hint: {hint}")));
                // a copy has expired before it was read: it is thawed again
                if error.status == Status::Archived && failures == 1 {
                    pause = FIRST_PAUSE;
                }
            }
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
