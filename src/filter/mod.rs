//! The user's own programs between the stream and what is stored: ZFS2S3_FILTER, which compresses or encrypts
//! each chunk, and ZFS2S3_UNFILTER, its inverse. Which key they take is theirs to know.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::model::chunks::max_filtered;
use crate::model::units::human_size;
use crate::os::pipe::{self, Fault, FaultKind, Limits};
use crate::os::{process, random, trace};

pub const FILTER: &str = "ZFS2S3_FILTER";
pub const UNFILTER: &str = "ZFS2S3_UNFILTER";

/// How much memory a chunk takes while it is sent or read.
pub fn bytes_of_chunk(chunk_size: u64, is_filtered: bool) -> u64 {
    if is_filtered { chunk_size.saturating_add(max_filtered(chunk_size)) } else { chunk_size }
}

/// How long a filter may do nothing.
pub const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// Bytes. More than a pipe holds, so that a filter must read.
const SAMPLE: usize = 256 << 10;

/// A shell command from standard input to standard output.
#[derive(Clone)]
pub struct Filter {
    /// The variable it comes from.
    variable: &'static str,
    command: String,
    shell: Shell,
    patience: Duration,
}

#[derive(Clone, Copy)]
struct Shell {
    program: &'static str,
    args: &'static [&'static str],
}

/// A pipe fails if any of its programs does. POSIX has this since 2024, and dash, the sh of Debian, does not.
const WITH_PIPEFAIL: &[&str] = &["-o", "pipefail", "-c"];

impl Filter {
    pub fn new(variable: &'static str, command: &str, patience: Duration) -> Result<Self> {
        let has_pipefail = |program: &&&'static str| {
            let mut command = Command::new(**program);
            command.env("PATH", process::search_path()).args(WITH_PIPEFAIL).arg(":");
            let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
            status.is_ok_and(|status| status.success())
        };
        let shell = match ["sh", "bash"].iter().find(has_pipefail) {
            Some(program) => Shell { program, args: WITH_PIPEFAIL },
            None if command.contains('|') => {
                return Err(Error::setting(
                    variable,
                    "it has a pipe, and no shell of this host would report that its first program failed",
                )
                .hint("install bash"));
            }
            None => Shell { program: "sh", args: &["-c"] },
        };
        Ok(Filter { variable, command: command.to_string(), shell, patience })
    }

    /// Does it read its input, and keep it? No program makes random bytes shorter without losing some of them.
    /// Returns such bytes, and what it makes of them.
    pub fn check(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        let sample = random::bytes(SAMPLE);
        let filtered = self.filter(&sample, Vec::new())?;
        if filtered.len() < sample.len() {
            return Err(self.error(format!(
                "loses data: it makes {} bytes of {} that are random",
                filtered.len(),
                sample.len()
            )));
        }
        Ok((sample, filtered))
    }

    /// The filtered chunk, in `buffer`.
    pub fn filter(&self, chunk: &[u8], buffer: Vec<u8>) -> Result<Vec<u8>> {
        let most = max_filtered(chunk.len() as u64);
        let output = usize::try_from(most).unwrap_or(usize::MAX - 1);
        let filtered = self.pass(chunk, output, buffer).map_err(|fault| match fault.kind {
            FaultKind::TooMuch => self.error(format!(
                "makes a chunk of {} larger than {}",
                human_size(chunk.len() as u64),
                human_size(most)
            )),
            _ => self.failed(&fault),
        })?;
        if filtered.is_empty() { Err(self.error("gives nothing".to_string())) } else { Ok(filtered) }
    }

    /// What was filtered, in `buffer`. It has `length` bytes.
    pub fn unfilter(&self, filtered: &[u8], length: usize, buffer: Vec<u8>) -> Result<Vec<u8>> {
        let chunk = self.pass(filtered, length, buffer).map_err(|fault| match fault.kind {
            FaultKind::TooMuch => {
                self.error(format!("gives more than the {length} bytes that were filtered"))
            }
            _ => self.failed(&fault),
        })?;
        if chunk.len() != length {
            let why = format!("gives {} bytes, not the {length} that were filtered", chunk.len());
            return Err(self.error(why));
        }
        Ok(chunk)
    }

    fn pass(&self, input: &[u8], output: usize, buffer: Vec<u8>) -> Result<Vec<u8>, Fault> {
        trace::event(|| format!("{} of {} bytes", self.variable, input.len()));
        let mut command = Command::new(self.shell.program);
        command.env("PATH", process::search_path()).args(self.shell.args).arg(&self.command);
        pipe::pass(&mut command, input, Limits { output, silence: self.patience }, buffer)
    }

    fn failed(&self, fault: &Fault) -> Error {
        let said = match fault.said.as_str() {
            "" => String::new(),
            said => format!(": {said}"),
        };
        match &fault.kind {
            FaultKind::CannotRun(e) => self.error(format!("cannot be run: {e}{said}")),
            // as the shell reports it of a program in a pipe
            FaultKind::Failed(status) if status.code().is_none_or(|code| code > 128) => {
                self.error(format!("was killed ({status}){said}")).for_now()
            }
            FaultKind::Failed(status) => self.error(format!("failed ({status}){said}")),
            FaultKind::Silent => {
                let seconds = self.patience.as_secs_f64();
                self.error(format!("has done nothing for {seconds:.0} s, and was killed{said}")).for_now()
            }
            FaultKind::LeftInput => self.error(format!("does not read all of its input{said}")),
            FaultKind::TooMuch => self.error(format!("gives too much{said}")),
        }
    }

    fn error(&self, why: String) -> Error {
        Error::failed(format!("{} '{}' {why}", self.variable, self.command))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(command: &str) -> Filter {
        Filter::new(FILTER, command, Duration::from_millis(500)).unwrap()
    }

    #[test]
    fn there_and_back() {
        let chunk: Vec<u8> = (0..200_000u32).map(|n| (n / 3) as u8).collect();
        let filtered =
            of("gzip -1 | od -An -v -tx1 | tr -d ' \\n' | tr 0-9a-f a-p").filter(&chunk, Vec::new());
        let filtered = filtered.unwrap();
        assert!(filtered.len() < chunk.len());
        let back = of("gzip -d").unfilter(&of("gzip -1").filter(&chunk, vec![]).unwrap(), 200_000, vec![]);
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
            ("sleep 30", "has done nothing for 0 s, and was killed", true),
            ("no-such-program-here", "not found", false),
        ] {
            let error = of(command).filter(&chunk, Vec::new()).unwrap_err();
            assert!(error.message.contains(why), "{command}: {error}");
            assert!(error.message.starts_with(&format!("ZFS2S3_FILTER '{command}' ")), "{error}");
            assert_eq!(error.status == crate::error::Status::TryAgain, for_now, "{command}");
        }
        for (command, why) in [
            ("head -c 100000; cat >/dev/null", "gives 100000 bytes, not the 200000"),
            ("cat; echo", "gives more than the 200000 bytes"),
        ] {
            let error = of(command).unfilter(&chunk, 200_000, Vec::new()).unwrap_err();
            assert!(error.message.contains(why), "{command}: {error}");
        }
    }

    #[test]
    fn a_filter_that_loses_data_is_found() {
        assert!(of("gzip").check().is_ok());
        for command in ["cat >/dev/null; date", "gzip | head -c 1000; cat >/dev/null"] {
            let error = of(command).check().unwrap_err();
            assert!(error.message.contains("loses data"), "{command}: {error}");
        }
    }
}
