//! The user's own programs between the stream and what is stored: ZFS2S3_FILTER, which compresses or encrypts
//! each chunk, and ZFS2S3_UNFILTER, its inverse. Which key they take is theirs to know.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, OnceLock};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::model::chunks::{enough_for_a_part, max_filtered};
use crate::model::units::human_size;
use crate::os::mutex::{lock, wait};
use crate::os::pipe::{self, Fault, FaultKind, Limits};
use crate::os::thread::GO_ON;
use crate::os::{process, random, trace};

pub const FILTER: &str = "ZFS2S3_FILTER";
pub const UNFILTER: &str = "ZFS2S3_UNFILTER";

/// How much memory a chunk takes while it is sent or read: with a filter, also what that gives, which follows
/// a part that was not yet large enough.
pub fn bytes_of_chunk(chunk_size: u64, is_filtered: bool) -> u64 {
    if is_filtered {
        chunk_size.saturating_add(max_filtered(chunk_size)).saturating_add(enough_for_a_part(chunk_size))
    } else {
        chunk_size
    }
}

/// How long a filter may do nothing.
pub const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// Bytes. More than a pipe holds, so that a filter must read.
const SAMPLE: usize = 256 << 10;
const LARGEST_SAMPLE: usize = 64 << 20;
/// What a shell adds to the number of a signal that ended a program.
const SIGNALS: std::ops::RangeInclusive<i32> = 129..=192;

/// A shell command from standard input to standard output.
pub struct Filter {
    /// The variable it comes from.
    variable: &'static str,
    command: String,
    /// It is looked for when it is needed.
    shell: OnceLock<Shell>,
    patience: Duration,
    /// As many run at once as there are cores: more would only take more memory.
    slots: Slots,
    /// Buffers that were used before.
    spare: Mutex<Vec<Vec<u8>>>,
}

struct Slots {
    free: Mutex<usize>,
    changed: Condvar,
}

/// One of them, until it is dropped.
struct Slot<'a>(&'a Slots);

impl Slots {
    fn take(&self) -> Slot<'_> {
        let mut free = lock(&self.free);
        while *free == 0 {
            free = wait(&self.changed, free);
        }
        *free -= 1;
        Slot(self)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.changed.notify_one();
    }
}

/// Bytes, and what the filter has made of them.
pub struct Tried {
    plain: Vec<u8>,
    filtered: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Shell {
    program: &'static str,
    args: &'static [&'static str],
}

/// A pipe fails if any of its programs does. POSIX has this since 2024, and dash, the sh of Debian, does not.
const WITH_PIPEFAIL: &[&str] = &["-o", "pipefail", "-c"];

impl Filter {
    pub fn new(variable: &'static str, command: &str, patience: Duration) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let slots = Slots { free: Mutex::new(cores), changed: Condvar::new() };
        let command = command.to_string();
        let (shell, spare) = (OnceLock::new(), Mutex::default());
        Filter { variable, command, shell, patience, slots, spare }
    }

    fn shell(&self) -> Result<Shell> {
        if let Some(shell) = self.shell.get() {
            return Ok(*shell);
        }
        let has_pipefail = |program: &&&'static str| {
            let mut command = Command::new(**program);
            command.env("PATH", process::search_path()).args(WITH_PIPEFAIL).arg(":");
            let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
            status.is_ok_and(|status| status.success())
        };
        let shell = match ["sh", "bash"].iter().find(has_pipefail) {
            Some(program) => Shell { program, args: WITH_PIPEFAIL },
            None if self.command.contains('|') => {
                return Err(Error::setting(
                    self.variable,
                    "it has a pipe, and no shell of this host would report that its first program failed",
                )
                .hint("install bash"));
            }
            None => Shell { program: "sh", args: &["-c"] },
        };
        Ok(*self.shell.get_or_init(|| shell))
    }

    /// Does it read its input, and keep it? No program makes random bytes shorter without losing some of them.
    /// `size`: as many bytes are tried, within reason.
    pub fn check(&self, size: u64) -> Result<Tried> {
        let size = usize::try_from(size).unwrap_or(LARGEST_SAMPLE).clamp(SAMPLE, LARGEST_SAMPLE);
        let plain = random::bytes(size);
        let filtered = self.filter(&plain, &GO_ON)?;
        if filtered.len() < size {
            let made = filtered.len();
            return Err(self.error(format!("loses data: it turns {size} random bytes into {made}")));
        }
        Ok(Tried { plain, filtered })
    }

    /// Does this unfilter undo what the filter has done?
    pub fn check_undoes(&self, tried: &Tried) -> Result<()> {
        if self.unfilter(&tried.filtered, tried.plain.len(), &GO_ON)? != tried.plain {
            return Err(self.error(format!("gives something other than what {FILTER} was given")));
        }
        Ok(())
    }

    /// The filtered chunk. Once `stop` is set, it is no longer needed.
    pub fn filter(&self, chunk: &[u8], stop: &AtomicBool) -> Result<Vec<u8>> {
        let (size, most) = (chunk.len() as u64, max_filtered(chunk.len() as u64));
        let output = usize::try_from(most).unwrap_or(usize::MAX - 1);
        let filtered = self.pass(chunk, output, stop, || {
            format!("makes a chunk of {} larger than {}", human_size(size), human_size(most))
        })?;
        if filtered.is_empty() { Err(self.error("gives nothing".to_string())) } else { Ok(filtered) }
    }

    /// What was filtered. It has `length` bytes. Once `stop` is set, it is no longer needed.
    pub fn unfilter(&self, filtered: &[u8], length: usize, stop: &AtomicBool) -> Result<Vec<u8>> {
        let chunk = self.pass(filtered, length, stop, || {
            format!("gives more than the {length} bytes that were filtered")
        })?;
        if chunk.len() != length {
            let why = format!("gives {} bytes, not the {length} that were filtered", chunk.len());
            return Err(self.error(why));
        }
        Ok(chunk)
    }

    /// A buffer that is no longer needed.
    pub fn give(&self, buffer: Vec<u8>) {
        lock(&self.spare).push(buffer);
    }

    /// `too_much`: what it means if it gives more than `output` bytes.
    fn pass(
        &self,
        input: &[u8],
        output: usize,
        stop: &AtomicBool,
        too_much: impl Fn() -> String,
    ) -> Result<Vec<u8>> {
        let shell = self.shell()?;
        let _slot = self.slots.take();
        let stopped = || self.error("is no longer needed".to_string()).for_now();
        // of those that had the slots, one may have failed
        if stop.load(Ordering::SeqCst) {
            return Err(stopped());
        }
        let buffer = lock(&self.spare).pop().unwrap_or_default();
        trace::event(|| format!("{} of {} bytes", self.variable, input.len()));
        let mut command = Command::new(shell.program);
        command.env("PATH", process::search_path()).args(shell.args).arg(&self.command);
        let limits = Limits { output, silence: self.patience };
        pipe::pass(&mut command, input, limits, stop, buffer).map_err(|Fault { kind, said }| {
            let said = if said.is_empty() { said } else { format!(": {said}") };
            match kind {
                FaultKind::TooMuch => self.error(too_much()),
                FaultKind::CannotRun(e) => {
                    let error = self.error(format!("cannot be run: {e}{said}"));
                    if process::may_pass(&e) { error.for_now() } else { error }
                }
                FaultKind::Failed(status) if status.code().is_none_or(|code| SIGNALS.contains(&code)) => {
                    self.error(format!("was killed ({status}){said}")).for_now()
                }
                FaultKind::Failed(status) => self.error(format!("failed ({status}){said}")),
                FaultKind::Silent => {
                    let seconds = self.patience.as_secs_f64();
                    self.error(format!("has done nothing for {seconds:.0} s, and was killed{said}"))
                        .for_now()
                        .hint("it cannot ask for a passphrase")
                }
                FaultKind::Lingers => {
                    self.error(format!("has left a process behind that keeps its output open{said}"))
                }
                FaultKind::LeftInput => self.error(format!("does not read all of its input{said}")),
                FaultKind::Stopped => stopped(),
            }
        })
    }

    fn error(&self, why: String) -> Error {
        Error::failed(format!("{} '{}' {why}", self.variable, self.command))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(command: &str) -> Filter {
        Filter::new(FILTER, command, Duration::from_millis(500))
    }

    #[test]
    fn there_and_back() {
        let chunk: Vec<u8> = (0..200_000u32).map(|n| (n / 3) as u8).collect();
        let filtered = of("gzip -1 | od -An -v -tx1 | tr -d ' \\n' | tr 0-9a-f a-p").filter(&chunk, &GO_ON);
        let filtered = filtered.unwrap();
        assert!(filtered.len() < chunk.len());
        let back = of("gzip -d").unfilter(&of("gzip -1").filter(&chunk, &GO_ON).unwrap(), 200_000, &GO_ON);
        assert!(back.unwrap() == chunk);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let chunk = vec![7; 200_000];
        for (command, why, for_now) in [
            ("cat; echo no key >&2; exit 3", "failed (exit status: 3): no key", false),
            ("false | cat", "failed (exit status: 1)", false),
            ("sh -c 'head -c 1000; kill -9 $$' | cat", "was killed", true),
            ("cat >/dev/null", "gives nothing", false),
            ("echo hi", "does not read all of its input", false),
            ("yes", "larger than", false),
            ("tee /dev/stderr 2>&1", "makes a chunk of 195K larger than 284K", false),
            ("exit 255", "failed (exit status: 255)", false),
            ("sleep 30", "has done nothing for 0 s, and was killed", true),
            ("no-such-program-here", "not found", false),
        ] {
            let error = of(command).filter(&chunk, &GO_ON).unwrap_err();
            assert!(error.message.contains(why), "{command}: {error}");
            assert!(error.message.starts_with(&format!("ZFS2S3_FILTER '{command}' ")), "{error}");
            assert_eq!(error.status == crate::error::Status::TryAgain, for_now, "{command}");
        }
        for (command, why) in [
            ("head -c 100000; cat >/dev/null", "gives 100000 bytes, not the 200000"),
            ("cat; echo", "gives more than the 200000 bytes"),
        ] {
            let error = of(command).unfilter(&chunk, 200_000, &GO_ON).unwrap_err();
            assert!(error.message.contains(why), "{command}: {error}");
        }
    }

    #[test]
    fn what_is_no_longer_needed_is_not_begun() {
        let error = of("sleep 1000").filter(&[7; 1000], &AtomicBool::new(true)).unwrap_err();
        assert!(error.message.contains("is no longer needed"), "{error}");
    }

    #[test]
    fn a_filter_that_loses_data_is_found() {
        let filtered = of("gzip").check(1 << 20).unwrap();
        assert!(of("gzip -d").check_undoes(&filtered).is_ok());
        for (command, why) in [("cat", "gives more than"), ("gzip -d | tr a b", "gives something other than")]
        {
            let error = of(command).check_undoes(&filtered).unwrap_err();
            assert!(error.message.contains(why), "{command}: {error}");
        }
        for command in ["cat >/dev/null; date", "gzip | head -c 1000000; cat >/dev/null"] {
            let error = of(command).check(8 << 20).err().unwrap();
            assert!(error.message.contains("loses data"), "{command}: {error}");
        }
    }
}
