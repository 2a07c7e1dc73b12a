//! How long a failing request is retried, and the pauses in between.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::failure::{Failure, FailureKind};
use crate::os::random;
use crate::ui::Ui;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often a pause checks whether the request is still needed.
const LOOK_UP: Duration = Duration::from_millis(100);

/// The patience with one request: pauses that double, with jitter, or are as long as S3 asks for.
pub struct Patience<'a> {
    ui: &'a Ui,
    limit: Duration,
    /// Set by the first failure. The duration of an attempt does not count: a large part may take an hour.
    until: Option<Instant>,
    next: Duration,
    /// Set when the request is no longer needed.
    stop: &'a AtomicBool,
}

impl<'a> Patience<'a> {
    pub fn new(ui: &'a Ui, limit: Duration, stop: &'a AtomicBool) -> Self {
        Patience { ui, limit, until: None, next: FIRST_PAUSE, stop }
    }

    /// Returns after a pause, or returns the failure if another attempt would not help.
    pub fn pause_after(&mut self, failure: Failure) -> std::result::Result<(), Failure> {
        if failure.kind != FailureKind::Transient {
            return Err(failure);
        }
        // 50 to 100 %, so that threads do not retry all at once
        let jitter = 0.5 + random::fraction() / 2.0;
        let pause = match failure.retry_after {
            Some(asked) => asked + self.next.mul_f64(jitter),
            None => self.next.mul_f64(jitter),
        };
        let until = *self.until.get_or_insert_with(|| Instant::now() + self.limit);
        if Instant::now() + pause > until {
            return Err(failure);
        }
        self.ui.retry(&failure.describe(), pause);
        let end = Instant::now() + pause;
        while Instant::now() < end {
            if self.stop.load(Ordering::SeqCst) {
                return Err(failure);
            }
            std::thread::sleep(end.saturating_duration_since(Instant::now()).min(LOOK_UP));
        }
        self.next = (self.next * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}
