//! Passes bytes through a command: in at its standard input, out at its standard output, within limits.
//!
//! The command leads a process group of its own, so that all of a pipe of several programs can be killed.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

use super::process::{self, Collected, Running};

/// How many bytes of its standard error are kept.
const STDERR_KEPT: usize = 4096;
/// How many bytes it is given at once.
const PIECE: usize = 64 << 10;
/// How often its progress is looked at.
const TICK: Duration = Duration::from_millis(100);
/// How long its output may stay open after it has exited: a process that it left behind may have it.
const GRACE: Duration = Duration::from_secs(2);
const FIRST_POLL: Duration = Duration::from_micros(100);
const LONGEST_POLL: Duration = Duration::from_millis(5);

#[derive(Clone, Copy)]
pub struct Limits {
    /// How many bytes it may give.
    pub output: usize,
    /// How long it may do nothing: neither read, nor write, nor exit.
    pub silence: Duration,
}

#[derive(Debug)]
pub struct Fault {
    pub kind: FaultKind,
    /// What it wrote to its standard error.
    pub said: String,
}

#[derive(Debug)]
pub enum FaultKind {
    CannotRun(io::Error),
    Failed(ExitStatus),
    TooMuch,
    Silent,
    /// It has exited, but a process that it has left behind keeps its output open.
    Lingers,
    /// It exited successfully, but did not read all of its input.
    LeftInput,
    /// It is no longer needed.
    Stopped,
}

/// What became of the output.
enum Output {
    Whole(Vec<u8>),
    TooMuch,
    Failed(io::Error),
}

/// The output of the command. `buffer` is used for it. Once `stop` is set, the command is killed.
pub fn pass(
    command: &mut Command,
    input: &[u8],
    limits: Limits,
    stop: &AtomicBool,
    buffer: Vec<u8>,
) -> Result<Vec<u8>, Fault> {
    let cannot = |e| Fault { kind: FaultKind::CannotRun(e), said: String::new() };
    let (mut unread, feed) = io::pipe().map_err(cannot)?;
    command.stdin(unread.try_clone().map_err(cannot)?).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.process_group(0).spawn().map_err(cannot)?;
    let running = Running::group(&child);
    let moved = Arc::new(AtomicU64::new(0));
    let collected = collect(&mut child, limits.output, buffer, &moved);
    let (output, said) = collected.map_err(cannot).inspect_err(|_| kill(&running, &mut child))?;
    let (output, left) = std::thread::scope(|scope| {
        let output = Builder::new()
            .spawn_scoped(scope, || give(input, feed, &moved))
            .map_err(FaultKind::CannotRun)
            .and_then(|_| attend(&mut child, &output, limits.silence, stop, &moved));
        if output.is_err() {
            kill(&running, &mut child);
        }
        drop(running);
        (output, drain(&mut unread))
    });
    let fault = |kind| Fault { kind, said: String::from_utf8_lossy(&said.take()).trim().to_string() };
    match output {
        Ok((status, _)) if !status.success() => Err(fault(FaultKind::Failed(status))),
        Ok(_) if left > 0 => Err(fault(FaultKind::LeftInput)),
        Ok((_, output)) => Ok(output),
        Err(kind) => Err(fault(kind)),
    }
}

fn kill(running: &Running, child: &mut Child) {
    running.kill();
    process::kill_and_wait(child);
}

/// It cannot fail, since the other end stays open.
fn give(input: &[u8], mut feed: PipeWriter, moved: &AtomicU64) {
    for piece in input.chunks(PIECE) {
        if feed.write_all(piece).is_err() {
            break;
        }
        moved.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }
}

/// Reads what it writes in threads, which are left behind if another process keeps a pipe open.
fn collect(
    child: &mut Child,
    limit: usize,
    mut buffer: Vec<u8>,
    moved: &Arc<AtomicU64>,
) -> io::Result<(Receiver<Output>, Collected)> {
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::Error::other("no pipe"));
    };
    let moved = Arc::clone(moved);
    let (sender, receiver) = channel();
    Builder::new().spawn(move || {
        buffer.clear();
        // pages that are not written take no memory
        buffer.reserve_exact(limit + 1);
        let read = Counting { inner: stdout, moved: &moved }.take(limit as u64 + 1).read_to_end(&mut buffer);
        let _ = sender.send(match read {
            Err(e) => Output::Failed(e),
            Ok(_) if buffer.len() > limit => Output::TooMuch,
            Ok(_) => Output::Whole(buffer),
        });
    })?;
    Ok((receiver, Collected::from(stderr, STDERR_KEPT)?))
}

struct Counting<'a, R> {
    inner: R,
    moved: &'a AtomicU64,
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.moved.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Waits for the output and the end of the command, as long as it does something.
fn attend(
    child: &mut Child,
    output: &Receiver<Output>,
    silence: Duration,
    stop: &AtomicBool,
    moved: &AtomicU64,
) -> Result<(ExitStatus, Vec<u8>), FaultKind> {
    let (mut before, mut last, mut quiet) = (0, Instant::now(), Duration::ZERO);
    let mut is_silent = || {
        let now = moved.load(Ordering::Relaxed);
        // if all of this was stopped for a while, that does not count
        quiet += last.elapsed().min(2 * TICK);
        last = Instant::now();
        if now != before {
            (before, quiet) = (now, Duration::ZERO);
        }
        quiet > silence
    };
    let mut exited = None;
    let output = loop {
        match output.recv_timeout(TICK) {
            Ok(Output::Whole(output)) => break output,
            Ok(Output::TooMuch) => return Err(FaultKind::TooMuch),
            Ok(Output::Failed(e)) => return Err(FaultKind::CannotRun(e)),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(FaultKind::CannotRun(io::Error::other("its output cannot be read")));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if exited.is_none() {
            exited = child.try_wait().map_err(FaultKind::CannotRun)?.map(|status| (status, Instant::now()));
        }
        match exited {
            // what it left behind is not waited for
            Some((status, _)) if !status.success() => return Ok((status, Vec::new())),
            Some((_, since)) if since.elapsed() > GRACE => return Err(FaultKind::Lingers),
            _ if stop.load(Ordering::SeqCst) => return Err(FaultKind::Stopped),
            _ if is_silent() => return Err(FaultKind::Silent),
            _ => {}
        }
    };
    let mut pause = FIRST_POLL;
    loop {
        if let Some(status) = child.try_wait().map_err(FaultKind::CannotRun)? {
            return Ok((status, output));
        }
        if stop.load(Ordering::SeqCst) {
            return Err(FaultKind::Stopped);
        }
        if is_silent() {
            return Err(FaultKind::Silent);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_POLL);
    }
}

/// Lets the feeding thread end. How many bytes the command has not read.
fn drain(unread: &mut PipeReader) -> u64 {
    io::copy(unread, &mut io::sink()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { output: 1 << 20, silence: Duration::from_secs(20) };

    fn through(line: &str, input: &[u8], limits: Limits) -> Result<Vec<u8>, Fault> {
        let stop = AtomicBool::new(false);
        pass(Command::new("/bin/sh").args(["-c", line]), input, limits, &stop, vec![1, 2, 3])
    }

    #[test]
    fn bytes_of_any_number() {
        for length in [0, 1, PIECE - 1, PIECE, 3 * PIECE + 1, 1 << 20] {
            let input: Vec<u8> = (0..length).map(|n| (n / 7) as u8).collect();
            assert_eq!(through("cat", &input, LIMITS).unwrap(), input, "{length}");
        }
        assert_eq!(through("cat; printf x", b"", LIMITS).unwrap(), b"x");
    }

    #[test]
    fn what_it_says_and_its_status() {
        let fault = through("cat; echo no key >&2; exit 3", b"abc", LIMITS).unwrap_err();
        assert!(matches!(fault.kind, FaultKind::Failed(status) if status.code() == Some(3)), "{fault:?}");
        assert_eq!(fault.said, "no key");
        let fault = through("kill -9 $$", b"abc", LIMITS).unwrap_err();
        assert!(matches!(fault.kind, FaultKind::Failed(status) if status.code().is_none()), "{fault:?}");
    }

    #[test]
    fn more_than_is_allowed() {
        let limits = Limits { output: 100, ..LIMITS };
        assert_eq!(through("cat", &[7; 100], limits).unwrap(), [7; 100]);
        for line in ["cat; echo", "yes", "while :; do printf x; done"] {
            assert!(matches!(through(line, &[7; 100], limits).unwrap_err().kind, FaultKind::TooMuch));
        }
    }

    #[test]
    fn input_that_is_not_read() {
        for (line, input) in [("echo hi", 1), ("echo hi", 1 << 20), ("head -c 10", 1 << 20)] {
            let fault = through(line, &vec![0; input], LIMITS).unwrap_err();
            assert!(matches!(fault.kind, FaultKind::LeftInput), "{line}: {fault:?}");
        }
    }

    #[test]
    fn one_that_hangs_is_killed_with_all_its_processes() {
        let limits = Limits { silence: Duration::from_millis(300), ..LIMITS };
        let mark = 1_000_000 + std::process::id();
        for line in
            [format!("sleep {mark}"), format!("sleep {mark} | cat"), format!("cat; exec >&-; sleep {mark}")]
        {
            let begun = Instant::now();
            let fault = through(&line, &vec![0; 1 << 20], limits).unwrap_err();
            assert!(matches!(fault.kind, FaultKind::Silent), "{line}: {fault:?}");
            assert!(begun.elapsed() < Duration::from_secs(15));
        }
        let is_left = |entry: io::Result<std::fs::DirEntry>| {
            let words = std::fs::read(entry.unwrap().path().join("cmdline")).unwrap_or_default();
            words == format!("sleep\0{mark}\0").into_bytes()
        };
        std::thread::sleep(Duration::from_millis(100));
        assert!(!std::fs::read_dir("/proc").unwrap().any(is_left));
    }

    #[test]
    fn one_that_is_no_longer_needed_is_not_waited_for() {
        let limits = Limits { silence: Duration::from_secs(1000), ..LIMITS };
        for line in ["sleep 1000", "cat; exec >&-; sleep 1000"] {
            let stop = AtomicBool::new(false);
            let fault = std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_millis(300));
                    stop.store(true, Ordering::SeqCst);
                });
                pass(Command::new("/bin/sh").args(["-c", line]), &[0; 1 << 20], limits, &stop, vec![])
            });
            assert!(matches!(fault.unwrap_err().kind, FaultKind::Stopped), "{line}");
        }
    }

    #[test]
    fn one_that_works_slowly_does_not_hang() {
        let limits = Limits { silence: Duration::from_millis(700), ..LIMITS };
        let line = "for n in 1 2 3 4 5 6 7 8 9 10; do sleep 0.15; echo $n; done; cat";
        assert!(through(line, b"", limits).unwrap().starts_with(b"1\n2\n"));
    }

    #[test]
    fn what_it_leaves_behind_is_not_waited_for() {
        let begun = Instant::now();
        let fault = through("cat; setsid sleep 20 & exit 0", b"x", LIMITS).unwrap_err();
        assert!(matches!(fault.kind, FaultKind::Lingers), "{fault:?}");
        assert!(begun.elapsed() < Duration::from_secs(15));
    }
}
