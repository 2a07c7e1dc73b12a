//! The output. Only this module prints.
//!
//! - stdout carries data only (`list`, `-n`), stderr all messages.
//! - A message: `zfs2s3: `, lower case, no period. An error: `zfs2s3: error: …`, then `zfs2s3: hint: …` with
//!   what to try next.
//! - The progress line appears only if stderr is a terminal, and is always erased.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::error::{Error, Result, one_line, without_os_error};
use crate::model::units::human_size;
use crate::os::mutex::lock;

const REDRAW: Duration = Duration::from_millis(250);
/// Several threads may have the same problem at the same time.
const QUIET_AFTER_RETRY: Duration = Duration::from_secs(10);

/// Control sequences of ECMA-48 terminals: DECAWM off and on, and EL. Without wrapping, the terminal
/// truncates a line that is too long, whatever its current width.
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";
const ERASE_REST: &str = "\x1b[K";

pub struct Ui {
    terminal: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    transfer: Option<Transfer>,
    /// A progress line is on the screen.
    shown: bool,
    last_retry: Option<Instant>,
    /// Warnings that are shown only once.
    given: Vec<String>,
}

struct Transfer {
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

impl Ui {
    pub fn new() -> Self {
        let knows_sequences = std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        Ui { terminal: io::stderr().is_terminal() && knows_sequences, state: Mutex::default() }
    }

    pub fn error(&self, error: &Error) {
        self.line(&format!("error: {error}"));
        error.hints.iter().for_each(|hint| self.line(&format!("hint: {hint}")));
    }
    pub fn warning(&self, text: &str) {
        self.line(&format!("warning: {text}"));
    }
    /// Only once, even if the cause occurs several times.
    pub fn warning_once(&self, text: &str) {
        let mut state = self.state();
        if !state.given.iter().any(|given| given == text) {
            state.given.push(text.to_string());
            drop(state);
            self.warning(text);
        }
    }
    pub fn note(&self, text: &str) {
        self.line(text);
    }

    /// Reports that a request is retried, but not for each of many.
    pub fn retry(&self, why: &str, pause: Duration) {
        let mut state = self.state();
        if state.last_retry.is_some_and(|last| last.elapsed() < QUIET_AFTER_RETRY) {
            return;
        }
        state.last_retry = Some(Instant::now());
        drop(state);
        self.line(&format!("warning: {why}; retrying in {:.1} s", pause.as_secs_f64()));
    }

    /// Data, to stdout. A closed pipe (`zfs2s3 list | head`) is not an error.
    pub fn data(&self, text: &str) -> Result<()> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
                Err(Error::failed(format!("cannot write to standard output: {e}")))
            }
            _ => Ok(()),
        }
    }

    /// Begins the progress line.
    pub fn transfer(&self, name: &str, estimate: Option<u64>) {
        let name = name.to_string();
        let transfer =
            Transfer { name, done: 0, sending: 0, skipped: 0, estimate, begun: Instant::now(), drawn: None };
        let mut state = self.state();
        state.transfer = Some(transfer);
        self.draw(&mut state);
    }
    /// `bytes` more are being sent; a negative number after a failed attempt.
    pub fn sending(&self, bytes: i64) {
        let mut state = self.state();
        if let Some(transfer) = &mut state.transfer {
            transfer.sending = transfer.sending.saturating_add_signed(bytes);
        }
        self.draw(&mut state);
    }
    /// `bytes` more are stored or delivered. `moved`: they had to be sent or fetched.
    pub fn advance(&self, bytes: u64, moved: bool) {
        let mut state = self.state();
        if let Some(transfer) = &mut state.transfer {
            transfer.done += bytes;
            if moved {
                transfer.sending = transfer.sending.saturating_sub(bytes);
            } else {
                transfer.skipped += bytes;
            }
        }
        self.draw(&mut state);
    }

    fn draw(&self, state: &mut State) {
        let Some(transfer) = &mut state.transfer else { return };
        if self.terminal && transfer.drawn.is_none_or(|drawn| drawn.elapsed() >= REDRAW) {
            transfer.drawn = Some(Instant::now());
            let line = progress_line(transfer, transfer.begun.elapsed());
            // if the terminal is gone, nobody can see it
            let _ = write!(io::stderr(), "\r{NO_WRAP}{line}{ERASE_REST}{WRAP}");
            state.shown = true;
        }
    }
    /// Ends the progress line.
    pub fn transfer_done(&self) {
        let mut state = self.state();
        state.transfer = None;
        wipe(&mut state);
    }

    fn line(&self, text: &str) {
        let mut state = self.state();
        wipe(&mut state);
        for line in text.lines() {
            // there is nowhere to report that stderr is gone
            let _ = writeln!(io::stderr(), "zfs2s3: {}", one_line(&without_os_error(line)));
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn wipe(state: &mut State) {
    if std::mem::take(&mut state.shown) {
        let _ = write!(io::stderr(), "\r{ERASE_REST}");
    }
}

/// `35%  1.20G of about 3.4G  56.1M/s  0:40 left  tank/a@2`: the changing part first, for a narrow terminal.
fn progress_line(transfer: &Transfer, elapsed: Duration) -> String {
    let Transfer { name, skipped, estimate, .. } = transfer;
    let done = &(transfer.done + transfer.sending);
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
        let name = "tank/a@2".to_string();
        let transfer =
            Transfer { name, done, sending: 0, skipped, estimate, begun: Instant::now(), drawn: None };
        progress_line(&transfer, Duration::from_secs(seconds))
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
