//! Runs helper commands with limits. A helper that hangs is killed. One that leaves a process behind that
//! keeps its pipes open is not waited for: until OpenSSH 8.5 the ControlPersist master of ssh did that.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::Builder;
use std::time::{Duration, Instant};

use crate::os::mutex::lock;

/// How long to wait for the output of a process that has ended.
const GRACE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(5);

/// Where the programs of administrators are. The PATH of cron has none of these.
const SBIN: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin";

/// What is to be killed if a signal ends the program: processes, and as negative numbers, process groups.
static RUNNING: Mutex<BTreeSet<i64>> = Mutex::new(BTreeSet::new());

/// A child that was not waited for yet, so no other process has its number.
pub struct Running(i64);

impl Running {
    pub fn process(child: &Child) -> Self {
        Self::new(i64::from(child.id()))
    }

    /// It leads a process group.
    pub fn group(child: &Child) -> Self {
        Self::new(-i64::from(child.id()))
    }

    fn new(target: i64) -> Self {
        lock(&RUNNING).insert(target);
        Running(target)
    }

    pub fn kill(&self) {
        kill(self.0);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        lock(&RUNNING).remove(&self.0);
    }
}

/// The standard library can kill no group.
fn kill(target: i64) {
    let line = format!("kill -s KILL -- {target}");
    let mut shell = Command::new("/bin/sh");
    let _ =
        shell.args(["-c", &line]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

/// Before the program ends.
pub fn kill_all() {
    lock(&RUNNING).iter().for_each(|target| kill(*target));
}

/// Is there a process with this number? If the system cannot tell, there may be.
pub fn may_be_running(pid: u32) -> bool {
    let processes = std::path::Path::new("/proc");
    !processes.join("self").exists() || processes.join(pid.to_string()).exists()
}

/// The PATH for helpers.
pub fn search_path() -> String {
    extended(&std::env::var("PATH").unwrap_or_default())
}

/// An empty element would be the current folder.
fn extended(path: &str) -> String {
    path.split(':').chain(SBIN.split(':')).filter(|folder| !folder.is_empty()).collect::<Vec<_>>().join(":")
}

/// The output that a thread has read from a pipe so far.
pub struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    ended: Receiver<()>,
}

impl Collected {
    /// Reads all, and keeps the last `keep` bytes.
    pub fn from(mut pipe: impl Read + Send + 'static, keep: usize) -> io::Result<Self> {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let (at_end, ended) = channel();
        let kept = Arc::clone(&bytes);
        Builder::new().spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                let mut kept = lock(&kept);
                kept.extend_from_slice(&buffer[..count]);
                let surplus = kept.len().saturating_sub(keep);
                kept.drain(..surplus);
            }
            let _ = at_end.send(());
        })?;
        Ok(Collected { bytes, ended })
    }

    /// After the process has ended: all of it, unless another process keeps the pipe open.
    pub fn take(self) -> Vec<u8> {
        let _ = self.ended.recv_timeout(GRACE);
        std::mem::take(&mut *lock(&self.bytes))
    }
}

pub struct Output {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// Runs a command to its end, with an empty standard input. `limit`: how long it may take.
pub fn run(command: &mut Command, limit: Option<Duration>) -> io::Result<Output> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (stdout, stderr) = collected(&mut child).inspect_err(|_| kill_and_wait(&mut child))?;
    let status = match limit {
        None => child.wait()?,
        Some(limit) => {
            let _running = Running::process(&child);
            wait(&mut child, limit)?
        }
    };
    Ok(Output { status, stdout: stdout.take(), stderr: stderr.take() })
}

/// What it writes to its standard output and standard error.
fn collected(child: &mut Child) -> io::Result<(Collected, Collected)> {
    let missing = || io::Error::other("no pipe");
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let stdout = Collected::from(stdout.ok_or_else(missing)?, usize::MAX)?;
    Ok((stdout, Collected::from(stderr.ok_or_else(missing)?, 64 << 10)?))
}

pub fn kill_and_wait(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Is there only too little of something now, such as memory, processes or open files?
pub fn may_pass(error: &io::Error) -> bool {
    // ENFILE, EMFILE
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::OutOfMemory)
        || matches!(error.raw_os_error(), Some(23 | 24))
}

fn wait(child: &mut Child, limit: Duration) -> io::Result<ExitStatus> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > end {
            kill_and_wait(child);
            let why = format!("it did not exit within {:.0} s", limit.as_secs_f64().max(1.0));
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(line: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", line]);
        command
    }

    #[test]
    fn an_empty_path_is_not_the_current_folder() {
        assert_eq!(extended(""), SBIN);
        assert_eq!(extended(":/opt/bin::/bin:"), format!("/opt/bin:/bin:{SBIN}"));
    }

    #[test]
    fn what_may_pass() {
        // EAGAIN, ENOMEM, EMFILE; ENOENT, EACCES
        for (number, passes) in [(11, true), (12, true), (24, true), (2, false), (13, false)] {
            assert_eq!(may_pass(&io::Error::from_raw_os_error(number)), passes, "{number}");
        }
    }

    #[test]
    fn output_and_status() {
        let output = run(&mut shell("echo out; echo err >&2; exit 3"), None).unwrap();
        assert_eq!((output.stdout, output.stderr), (b"out\n".to_vec(), b"err\n".to_vec()));
        assert_eq!(output.status.code(), Some(3));
    }

    #[test]
    fn the_end_of_a_long_stderr_is_kept() {
        let text = format!("{}last words", "x".repeat(100_000));
        let kept = Collected::from(io::Cursor::new(text.into_bytes()), 4096).unwrap().take();
        assert!(kept.len() == 4096 && kept.ends_with(b"last words"));
    }

    #[test]
    fn a_helper_that_hangs_is_killed() {
        let begun = Instant::now();
        let error = run(&mut shell("exec sleep 20"), Some(Duration::from_millis(100))).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_process_that_a_helper_leaves_behind_is_not_waited_for() {
        let begun = Instant::now();
        let output = run(&mut shell("echo out; sleep 20 & echo $!"), None).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(15));
        let text = String::from_utf8(output.stdout).unwrap();
        let (said, pid) = text.trim_end().split_once('\n').unwrap();
        assert_eq!(said, "out");
        run(Command::new("kill").arg(pid), None).unwrap();
    }
}
