//! The progress of one transfer: a line at a terminal, reports elsewhere. Pure, except for the clock.

use std::time::{Duration, Instant};

use crate::model::units::{count, human_size};

const REDRAW: Duration = Duration::from_millis(250);
/// Where there is no terminal: a short transfer has no report, and a day has 145.
const FIRST_REPORT: Duration = Duration::from_secs(60);
const NEXT_REPORT: Duration = Duration::from_secs(10 * 60);

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
    /// Requests for parts that are under way, and attempts that failed.
    connections: u32,
    retries: u64,
    begun: Instant,
    drawn: Option<Instant>,
    reported: Option<Instant>,
}

impl Progress {
    pub fn new(name: &str, estimate: Option<u64>) -> Self {
        Progress {
            name: name.to_string(),
            done: 0,
            sending: 0,
            skipped: 0,
            estimate,
            connections: 0,
            retries: 0,
            begun: Instant::now(),
            drawn: None,
            reported: None,
        }
    }

    pub fn connect(&mut self) {
        self.connections += 1;
    }
    pub fn disconnect(&mut self) {
        self.connections = self.connections.saturating_sub(1);
    }
    pub fn retry(&mut self) {
        self.retries += 1;
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

    /// A line for a log, if it is time for one.
    pub fn report(&mut self) -> Option<String> {
        let is_due = match self.reported {
            None => self.begun.elapsed() >= FIRST_REPORT,
            Some(reported) => reported.elapsed() >= NEXT_REPORT,
        };
        if !is_due {
            return None;
        }
        self.reported = Some(Instant::now());
        Some(format!("{}: {}", self.name, facts(self, self.begun.elapsed()).join(", ")))
    }
}

/// `35%  1.20G of about 3.4G  56.1M/s  0:40 left  16 connections  tank/a@2`: the changing part first, for a
/// narrow terminal.
fn text(progress: &Progress, elapsed: Duration) -> String {
    let mut facts = facts(progress, elapsed);
    facts.push(progress.name.clone());
    facts.join("  ")
}

fn facts(progress: &Progress, elapsed: Duration) -> Vec<String> {
    let Progress { skipped, estimate, connections, retries, .. } = progress;
    let done = progress.done + progress.sending;
    let rate = (done - skipped) as f64 / elapsed.as_secs_f64().max(0.001);
    let speed = format!("{}/s", human_size(rate as u64));
    let mut facts = match *estimate {
        // an estimate that is exceeded is useless
        Some(total) if total > done => {
            let left = if rate >= 1.0 { clock((total - done) as f64 / rate) } else { "?".to_string() };
            let size = format!("{} of about {}", human_size(done), human_size(total));
            vec![format!("{}%", done * 100 / total), size, speed, format!("{left} left")]
        }
        _ => vec![human_size(done), speed],
    };
    facts.extend((*connections > 0).then(|| count(u64::from(*connections), "connection")));
    facts.extend(
        (*retries > 0).then(|| if *retries == 1 { "1 retry".into() } else { format!("{retries} retries") }),
    );
    facts
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
    fn what_is_under_way_and_what_was_retried() {
        let mut progress = Progress::new("tank/a@2", None);
        progress.connect();
        assert_eq!(text(&progress, Duration::from_secs(1)), "0B  0B/s  1 connection  tank/a@2");
        (0..7).for_each(|_| progress.connect());
        progress.disconnect();
        progress.retry();
        assert_eq!(text(&progress, Duration::from_secs(1)), "0B  0B/s  7 connections  1 retry  tank/a@2");
    }

    #[test]
    fn reports_for_a_log_are_rare() {
        let mut progress = Progress::new("tank/a@2", Some(400 << 20));
        let minutes_ago =
            |minutes: u64| Instant::now().checked_sub(Duration::from_secs(minutes * 60)).unwrap();
        assert_eq!(progress.report(), None, "it has just begun");
        progress.begun = minutes_ago(1);
        progress.advance(300 << 20, true);
        assert_eq!(progress.report().unwrap(), "tank/a@2: 75%, 300M of about 400M, 5.00M/s, 0:20 left");
        assert_eq!(progress.report(), None, "that was a moment ago");
        progress.reported = Some(minutes_ago(10));
        assert!(progress.report().is_some());
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
