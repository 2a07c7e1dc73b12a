//! Messages and data. Only this module prints. `progress` makes the progress line.
//!
//! - stdout carries data only (`list`, `-n`), stderr all messages.
//! - A message: `zfs2s3: `, lower case, no period. An error: `zfs2s3: error: …`, then `zfs2s3: hint: …` with
//!   what to try next.
//! - A line of a message that is a command is only indented, so that it can be copied.
//! - The progress line appears only if stderr is a terminal, and is always erased. Elsewhere, a long transfer
//!   is reported now and then.

mod progress;
pub mod table;

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::error::{Error, Result, Status, one_line, without_os_error};
use crate::model::traffic::Traffic;
use crate::os::mutex::lock;
use crate::os::trace;
use progress::Progress;

/// During an outage, a line about it appears after one minute, after two more, and so on.
const QUIET_AFTER_RETRY: Duration = Duration::from_secs(60);
/// After so long without a failure, the next is a new outage.
const OUTAGE_ENDS: Duration = Duration::from_secs(5 * 60);

/// The beginning of a line of a message that is a command, to be copied or piped to a shell as it is.
const COMMAND: &str = "    zfs2s3 ";

pub struct Ui {
    terminal: bool,
    /// Only warnings and errors are shown, for cron.
    quiet: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    progress: Option<Progress>,
    /// A progress line is on the screen.
    shown: bool,
    outage: Option<Outage>,
    /// Warnings and notes that are shown only once.
    given: Vec<String>,
}

/// Requests that fail, and are retried.
struct Outage {
    /// How many lines were shown about it, and when the last of them was.
    lines: u32,
    shown: Instant,
    failed: Instant,
}

impl Outage {
    /// One more failure. Returns whether it shall be shown: if `quiet`, not before it has lasted a minute.
    fn note(outage: &mut Option<Outage>, now: Instant, quiet: bool) -> bool {
        let lines = match outage {
            Some(known) if now - known.failed < OUTAGE_ENDS => {
                known.failed = now;
                if now - known.shown < QUIET_AFTER_RETRY * known.lines {
                    return false;
                }
                known.lines
            }
            _ => 0,
        };
        *outage = Some(Outage { lines: lines + 1, shown: now, failed: now });
        lines > 0 || !quiet
    }
}

impl Ui {
    pub fn new() -> Self {
        let knows_sequences = std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        Ui {
            terminal: io::stderr().is_terminal() && knows_sequences,
            quiet: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    pub fn set_quiet(&self, quiet: bool) {
        self.quiet.store(quiet, Ordering::SeqCst);
    }

    /// Shows each command and each request, too, and each retry.
    pub fn set_verbose(self: &Arc<Self>) {
        let ui = Arc::clone(self);
        trace::show(move |event| ui.line(event));
    }

    /// Is a person watching?
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    pub fn error(&self, error: &Error) {
        match error.status {
            Status::UnderWay => self.line(&error.message),
            _ => self.line(&format!("error: {error}")),
        }
        error.hints.iter().for_each(|hint| self.line(&format!("hint: {hint}")));
    }
    pub fn warning(&self, text: &str) {
        self.line(&format!("warning: {text}"));
    }
    /// Only once, even if the cause occurs several times.
    pub fn warning_once(&self, text: &str) {
        if self.is_new(text) {
            self.warning(text);
        }
    }
    pub fn note_once(&self, text: &str) {
        if self.is_new(text) {
            self.note(text);
        }
    }
    fn is_new(&self, text: &str) -> bool {
        let given = &mut self.state().given;
        let is_new = !given.iter().any(|given| given == text);
        if is_new {
            given.push(text.to_string());
        }
        is_new
    }
    pub fn note(&self, text: &str) {
        if !self.is_quiet() {
            self.line(text);
        }
    }
    fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::SeqCst)
    }
    /// For a person who watches, once.
    pub fn remark(&self, text: &str) {
        if self.terminal {
            self.note_once(text);
        }
    }

    /// Reports that a request is retried, but not for each of many.
    pub fn retry(&self, why: &str, pause: Duration) {
        let mut state = self.state();
        let is_new = Outage::note(&mut state.outage, Instant::now(), self.is_quiet());
        if let Some(progress) = &mut state.progress {
            progress.retry();
        }
        drop(state);
        if is_new || trace::is_shown() {
            self.line(&format!("warning: {why}; retrying in {:.1} s", pause.as_secs_f64()));
        }
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

    /// Begins the progress line, or reports.
    pub fn transfer(&self, name: &str, estimate: Option<u64>) {
        let mut state = self.state();
        state.progress = Some(Progress::new(name, estimate));
        self.draw(&mut state);
    }

    /// What happens on the connections of an upload.
    pub fn traffic(&self, traffic: Traffic) {
        let Traffic::Moved(bytes) = traffic else { return };
        let mut state = self.state();
        if let Some(progress) = &mut state.progress {
            progress.sending(bytes);
        }
        self.draw(&mut state);
    }

    /// See [`Progress::advance`].
    pub fn advance(&self, bytes: u64, moved: bool) {
        let mut state = self.state();
        if let Some(progress) = &mut state.progress {
            progress.advance(bytes, moved);
        }
        self.draw(&mut state);
    }

    /// A request for a part begins; it ends when the returned value is dropped.
    pub fn connection(&self) -> Connection<'_> {
        if let Some(progress) = &mut self.state().progress {
            progress.connect();
        }
        Connection(self)
    }

    fn draw(&self, state: &mut State) {
        let Some(progress) = &mut state.progress else { return };
        if self.is_quiet() {
            return;
        }
        if !self.terminal {
            progress.report().into_iter().for_each(|report| write_lines(&report));
        } else if let Some(line) = progress.redraw() {
            // if the terminal is gone, nobody can see it
            let _ = write!(io::stderr(), "{line}");
            state.shown = true;
        }
    }

    /// Erases the progress line.
    pub fn transfer_done(&self) {
        let mut state = self.state();
        state.progress = None;
        wipe(&mut state);
    }

    fn line(&self, text: &str) {
        let mut state = self.state();
        wipe(&mut state);
        write_lines(text);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// See [`Ui::connection`].
pub struct Connection<'a>(&'a Ui);

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        if let Some(progress) = &mut self.0.state().progress {
            progress.disconnect();
        }
    }
}

fn write_lines(text: &str) {
    for line in text.lines() {
        let prefix = if line.starts_with(COMMAND) { "" } else { "zfs2s3: " };
        // there is nowhere to report that stderr is gone
        let _ = writeln!(io::stderr(), "{prefix}{}", one_line(&without_os_error(line)));
    }
}

fn wipe(state: &mut State) {
    if std::mem::take(&mut state.shown) {
        let _ = write!(io::stderr(), "{}", progress::ERASE_LINE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_ever_more_rarely() {
        let begun = Instant::now();
        let mut outage = None;
        let mut told = |second: u64| Outage::note(&mut outage, begun + Duration::from_secs(second), false);
        let minutes: Vec<u64> =
            (0..=15 * 60).step_by(10).filter(|second| told(*second)).map(|s| s / 60).collect();
        assert_eq!(minutes, [0, 1, 3, 6, 10, 15]);
        assert!(!told(15 * 60 + 10));
        assert!(told(21 * 60), "another one");
        assert!(!told(21 * 60 + 30) && told(22 * 60));
        let mut outage = None;
        let mut told = |second: u64| Outage::note(&mut outage, begun + Duration::from_secs(second), true);
        assert!(!told(0) && !told(30) && told(60), "a short one is no reason for a mail");
    }
}
