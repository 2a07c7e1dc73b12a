//! The progress line of one transfer. Pure, except for the clock.

use std::time::{Duration, Instant};

use crate::model::units::human_size;

const REDRAW: Duration = Duration::from_millis(250);

/// Control sequences of ECMA-48 terminals: DECAWM off and on, and EL. Without wrapping, the terminal
/// truncates a line that is too long, whatever its current width.
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";
const ERASE_REST: &str = "\x1b[K";
pub const ERASE_LINE: &str = "\r\x1b[K";

pub struct Progress {
    name: String,
    done: u64,
    /// Bytes of parts that S3 has not confirmed yet.
    sending: u64,
    /// Bytes that did not have to be transferred again, and do not count for the speed.
    skipped: u64,
    estimate: Option<u64>,
    begun: Instant,
    drawn: Option<Instant>,
}

impl Progress {
    pub fn new(name: &str, estimate: Option<u64>) -> Self {
        let name = name.to_string();
        Progress { name, done: 0, sending: 0, skipped: 0, estimate, begun: Instant::now(), drawn: None }
    }

    /// `bytes` more are being sent; a negative number after a failed attempt.
    pub fn sending(&mut self, bytes: i64) {
        self.sending = self.sending.saturating_add_signed(bytes);
    }

    /// `bytes` more are stored or delivered. `moved`: they had to be sent or fetched.
    pub fn advance(&mut self, bytes: u64, moved: bool) {
        self.done += bytes;
        if moved {
            self.sending = self.sending.saturating_sub(bytes);
        } else {
            self.skipped += bytes;
        }
    }

    /// The line with its control sequences, unless it was drawn a moment ago.
    pub fn redraw(&mut self) -> Option<String> {
        if self.drawn.is_some_and(|drawn| drawn.elapsed() < REDRAW) {
            return None;
        }
        self.drawn = Some(Instant::now());
        Some(format!("\r{NO_WRAP}{}{ERASE_REST}{WRAP}", text(self, self.begun.elapsed())))
    }
}

/// `35%  1.20G of about 3.4G  56.1M/s  0:40 left  tank/a@2`: the changing part first, for a narrow terminal.
fn text(progress: &Progress, elapsed: Duration) -> String {
    let Progress { name, skipped, estimate, .. } = progress;
    let done = &(progress.done + progress.sending);
    let rate = (done - skipped) as f64 / elapsed.as_secs_f64().max(0.001);
    let speed = format!("{}/s", human_size(rate as u64));
    match *estimate {
        // an estimate that is exceeded is useless
        Some(total) if total > *done => {
            let left = if rate >= 1.0 { clock((total - done) as f64 / rate) } else { "?".to_string() };
            let percent = done * 100 / total;
            format!(
                "{percent}%  {} of about {}  {speed}  {left} left  {name}",
                human_size(*done),
                human_size(total)
            )
        }
        _ => format!("{}  {speed}  {name}", human_size(*done)),
    }
}

/// `0:40`, `12:05`, `3:00:00`.
fn clock(seconds: f64) -> String {
    let s = seconds.min(3.6e8) as u64;
    match s / 3600 {
        0 => format!("{}:{:02}", s / 60, s % 60),
        hours => format!("{hours}:{:02}:{:02}", s / 60 % 60, s % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(done: u64, skipped: u64, estimate: Option<u64>, seconds: u64) -> String {
        let progress = Progress { done, skipped, ..Progress::new("tank/a@2", estimate) };
        text(&progress, Duration::from_secs(seconds))
    }

    #[test]
    fn progress_lines() {
        const M: u64 = 1 << 20;
        assert_eq!(
            line(100 * M, 0, Some(400 * M), 10),
            "25%  100M of about 400M  10.0M/s  0:30 left  tank/a@2"
        );
        assert_eq!(
            line(100 * M, 50 * M, Some(400 * M), 10),
            "25%  100M of about 400M  5.00M/s  1:00 left  tank/a@2"
        );
        assert_eq!(line(0, 0, Some(400 * M), 0), "0%  0B of about 400M  0B/s  ? left  tank/a@2");
        assert_eq!(line(500 * M, 0, Some(400 * M), 10), "500M  50.0M/s  tank/a@2");
        assert_eq!(line(500 * M, 0, None, 10), "500M  50.0M/s  tank/a@2");
        assert_eq!(clock(3.0 * 3600.0), "3:00:00");
    }
}
