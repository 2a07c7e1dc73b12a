//! Runs `zfs`: queries properties, holds and releases, sends and receives. Nothing here destroys or rolls
//! back a dataset.

pub mod inspect;
mod send_flags;

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::error::{Error, Result};
use crate::model::backup::{Backup, Point};
use crate::model::names::Guid;
use crate::model::shell::quoted;
use crate::model::utc::Utc;
use crate::os::process::{self, Collected, Output};
use crate::os::step;
use crate::os::trace;

pub use inspect::PointInfo;
pub use send_flags::Flags;
use send_flags::flags;

/// How many bytes at the end of the stderr of zfs are kept.
const STDERR_KEPT: usize = 4096;
/// The hint for an interrupted receive.
pub const RESUME_HINT: &str = "the same command resumes where this one has ended";
/// Messages of a failed receive, and the hint for each.
const HINTS: [(&str, &str); 2] = [
    ("has been modified", "'zfs rollback' to its latest snapshot discards the later changes"),
    ("Partially received snapshot is saved", RESUME_HINT),
];

pub struct Zfs {
    words: Vec<String>,
}

/// The identity of a snapshot or bookmark.
pub struct SnapshotInfo {
    pub point: Point,
    /// The transaction group that created it: older ones have smaller numbers.
    pub createtxg: u64,
}

impl Zfs {
    pub fn new(words: Vec<String>) -> Self {
        Zfs { words }
    }

    /// The flags of `zfs send` for this snapshot.
    pub fn send_flags(&self, snapshot: &str) -> Result<Flags> {
        match self.run(&["get", "-Hp", "-o", "value", "encryption", snapshot]) {
            Ok(encryption) => Ok(flags(encryption.trim())),
            // OpenZFS before 0.8 has no encryption
            Err(e) if e.message.contains("invalid property") => Ok(Flags::WithoutEmbedded),
            Err(e) => Err(e),
        }
    }

    pub fn find(&self, name: &str) -> Result<SnapshotInfo> {
        let text = self.run(&["get", "-Hp", "-o", "property,value", "guid,createtxg", name])?;
        let value = |property: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once('\t'));
            lines.find(|(name, _)| *name == property).map(|(_, value)| value.trim())
        };
        let guid: Option<Guid> = value("guid").and_then(|text| text.parse().ok());
        let createtxg = value("createtxg").and_then(|text| text.parse().ok());
        match (guid, createtxg) {
            (Some(guid), Some(createtxg)) => {
                Ok(SnapshotInfo { point: Point { name: name.to_string(), guid }, createtxg })
            }
            _ => Err(Error::failed(format!("'zfs get' did not return the guid and createtxg of {name}"))),
        }
    }

    /// The properties that are set on a dataset itself: a line each, name and value separated by a tab.
    pub fn properties(&self, dataset: &str) -> Result<String> {
        self.run(&["get", "-Hp", "-s", "local,received", "-o", "property,value", "all", dataset])
    }

    /// When a snapshot was created.
    pub fn creation(&self, snapshot: &str) -> Result<Utc> {
        let text = self.run(&["get", "-Hp", "-o", "value", "creation", snapshot])?;
        let time = text.trim().parse().ok().and_then(Utc::from_unix_seconds);
        time.ok_or_else(|| Error::failed(format!("'zfs get' did not return the creation of {snapshot}")))
    }

    pub fn set(&self, property: &str, value: &str, dataset: &str) -> Result<()> {
        self.run(&["set", &format!("{property}={value}"), dataset]).map(|_| ())
    }

    /// An empty dataset to receive others below it. It is not mounted.
    pub fn create_parent(&self, dataset: &str, properties: &[String]) -> Result<()> {
        let mut args = vec!["create", "-o", "canmount=off"];
        properties.iter().for_each(|property| args.extend(["-o", property]));
        args.push(dataset);
        self.run(&args).map(|_| ())
    }

    /// Bytes; none: unknown.
    pub fn available(&self, dataset: &str) -> Option<u64> {
        self.run(&["get", "-Hp", "-o", "value", "available", dataset]).ok()?.trim().parse().ok()
    }

    pub fn exists(&self, dataset: &str) -> Result<bool> {
        match self.run(&["list", "-H", "-o", "name", dataset]) {
            Ok(_) => Ok(true),
            Err(e) if e.message.contains("does not exist") => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// All snapshots and bookmarks with this guid, in all pools: a snapshot keeps its guid when it is renamed
    /// or received elsewhere.
    pub fn names_of(&self, guid: Guid) -> Result<Vec<String>> {
        let text = self.run(&["list", "-Hp", "-t", "snapshot,bookmark", "-o", "name,guid"])?;
        let points = text.lines().filter_map(|line| line.split_once('\t'));
        let same = points.filter(|(_, found)| found.trim().parse() == Ok(guid));
        Ok(same.map(|(name, _)| name.to_string()).collect())
    }

    /// The guids of all snapshots of the pool that a dataset is in.
    pub fn snapshots_of_pool(&self, dataset: &str) -> Result<HashSet<Guid>> {
        let pool = dataset.split('/').next().unwrap_or(dataset);
        let text = self.run(&["list", "-Hp", "-r", "-t", "snapshot", "-o", "guid", pool])?;
        Ok(text.lines().filter_map(|line| line.trim().parse().ok()).collect())
    }

    /// Is the dataset unchanged since this snapshot of it?
    pub fn is_unchanged_since(&self, snapshot: &str) -> Result<bool> {
        let (dataset, short) = snapshot.split_once('@').unwrap_or((snapshot, ""));
        let property = format!("written@{short}");
        Ok(self.run(&["get", "-Hp", "-o", "value", &property, dataset])?.trim() == "0")
    }

    /// Does the snapshot have a hold with this tag?
    pub fn is_held(&self, tag: &str, snapshot: &str) -> Result<bool> {
        Ok(self.holds(&[snapshot])?.iter().any(|(found, _)| found == tag))
    }

    /// The size of a stream in bytes, as estimated by `zfs send -nP`.
    pub fn estimate(&self, backup: &Backup, flags: &[String]) -> Result<u64> {
        let mut args = send_command(backup, flags);
        args.insert(1, "-nP".to_string());
        let text = self.run(&args.iter().map(String::as_str).collect::<Vec<_>>())?;
        let size = text.lines().find_map(|line| line.strip_prefix("size")?.trim().parse().ok());
        size.ok_or_else(|| Error::failed("'zfs send -nP' did not return a size"))
    }

    /// The snapshots of a dataset, oldest first; none: there is no such dataset.
    pub fn snapshots(&self, dataset: &str) -> Result<Option<Vec<Point>>> {
        let args =
            ["list", "-Hp", "-d", "1", "-t", "snapshot", "-s", "createtxg", "-o", "name,guid", dataset];
        let text = match self.run(&args) {
            Err(e) if e.message.contains("does not exist") => return Ok(None),
            text => text?,
        };
        let point = |line: &str| {
            let (name, guid) = line.split_once('\t')?;
            Some(Point { name: name.to_string(), guid: guid.trim().parse().ok()? })
        };
        let points: Option<Vec<Point>> = text.lines().map(point).collect();
        points
            .map(Some)
            .ok_or_else(|| Error::failed(format!("the output of 'zfs list' for {dataset} is invalid")))
    }

    /// The resume token, if the dataset has a part of a stream from an interrupted receive.
    pub fn resume_token(&self, dataset: &str) -> Result<Option<String>> {
        let text = self.run(&["get", "-Hp", "-o", "value", "receive_resume_token", dataset])?;
        let token = text.trim();
        Ok((!matches!(token, "-" | "")).then(|| token.to_string()))
    }

    /// Does the dataset consist of a part of a stream, and nothing else?
    pub fn is_inconsistent(&self, dataset: &str) -> Result<bool> {
        Ok(self.run(&["get", "-Hp", "-o", "value", "inconsistent", dataset])?.trim() == "1")
    }

    /// The contents of a resume token, as printed by `zfs send`. It prints them even if it then fails,
    /// because the snapshot is missing; the second value is that failure.
    pub fn explain_token(&self, token: &str) -> Result<(String, Option<Error>)> {
        let args = ["send", "-nvP", "-t", token];
        let output = self.output(&args)?;
        let [stdout, stderr] =
            [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said).into_owned());
        let failed = (!output.status.success())
            .then(|| failure(&format!("zfs {}", args[..3].join(" ")), &output.status.to_string(), &stderr));
        Ok((stdout + &stderr, failed))
    }

    /// Discards the part of a stream that an interrupted receive has kept.
    pub fn discard_partial_receive(&self, dataset: &str) -> Result<()> {
        self.run(&["receive", "-A", dataset]).map(|_| ())
    }

    /// `zfs receive`, without mounting, and resumable. Without -F, so nothing is rolled back. `properties`:
    /// such as `encryption=off`.
    pub fn receive(&self, dataset: &str, properties: &[String]) -> Result<Receive> {
        let mut args = vec!["receive", "-s", "-u"];
        properties.iter().for_each(|property| args.extend(["-o", property]));
        args.push(dataset);
        let mut process = self.spawn(&args, Stdio::piped(), Stdio::null())?;
        let stdin = process.child.stdin.take();
        Ok(Receive { process, stdin })
    }

    /// An existing hold is not an error.
    pub fn hold(&self, tag: &str, snapshot: &str) -> Result<()> {
        match self.run(&["hold", tag, snapshot]) {
            Err(e) if e.message.contains("already exists") => Ok(()),
            result => result.map(|_| ()),
        }
    }

    /// Makes the bookmark with the name of this snapshot, unless there is one of this very snapshot already.
    pub fn bookmark(&self, snapshot: &Point) -> Result<()> {
        let name = snapshot.name.replace('@', "#");
        match self.find(&snapshot.name) {
            Ok(found) if found.point.guid != snapshot.guid => {
                return Err(Error::failed(format!(
                    "{} is stored, but not bookmarked: another snapshot has its name now",
                    snapshot.name
                )));
            }
            _ => {}
        }
        let made = self.run(&["bookmark", &snapshot.name, &name]);
        // what counts is what it is a bookmark of: the snapshot may have been renamed, and another have its name
        match (self.find(&name), made) {
            (Ok(found), _) if found.point.guid == snapshot.guid => Ok(()),
            (Ok(found), _) => Err(Error::failed(format!(
                "{} is stored, but {name} is a bookmark of another snapshot: its guid is {}, not {}",
                snapshot.name, found.point.guid, snapshot.guid
            ))
            .hint(format!(
                "keep the snapshot until it has a bookmark; if no other backup needs {name} as its base, 'zfs destroy {name}' frees the name"
            ))),
            (Err(_), Err(error)) => Err(Error::failed(format!(
                "{} is stored, but cannot be bookmarked: {}",
                snapshot.name, error.message
            ))
            .hint("without a bookmark, keep the snapshot: it is the next base")),
            (Err(error), Ok(_)) => Err(error),
        }
    }

    /// Returns whether there was such a hold. A missing hold or snapshot is not an error.
    pub fn release(&self, tag: &str, snapshot: &str) -> Result<bool> {
        match self.run(&["release", tag, snapshot]) {
            Err(e) if e.message.contains("no such tag") || e.message.contains("not exist") => Ok(false),
            result => result.map(|_| true),
        }
    }

    pub fn send(&self, backup: &Backup, flags: &[String]) -> Result<Send> {
        let args = send_command(backup, flags);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut process = self.spawn(&args, Stdio::null(), Stdio::piped())?;
        let stdout = process.child.stdout.take();
        Ok(Send { process, stdout })
    }

    fn spawn(&self, args: &[&str], stdin: Stdio, stdout: Stdio) -> Result<Process> {
        let mut command = self.command(args);
        let mut child = command
            .stdin(stdin)
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| self.cannot_run(&e))?;
        let stderr = child.stderr.take().map(|stderr| Collected::from(stderr, STDERR_KEPT)).transpose();
        let stderr =
            stderr.inspect_err(|_| process::kill_and_wait(&mut child)).map_err(|e| self.cannot_run(&e))?;
        Ok(Process { child, stderr, line: format!("zfs {}", args.join(" ")) })
    }

    fn run(&self, args: &[&str]) -> Result<String> {
        let output = self.output(args)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(failure(&format!("zfs {}", args.join(" ")), &output.status.to_string(), &said))
    }

    fn output(&self, args: &[&str]) -> Result<Output> {
        process::run(&mut self.command(args), None).map_err(|e| self.cannot_run(&e))
    }

    fn command(&self, args: &[&str]) -> Command {
        // not the words of ZFS2S3_ZFS, which may have a password
        trace::event(|| format!("zfs {}", args.join(" ")));
        step::elsewhere(args.first().unwrap_or(&"zfs"));
        let mut words = self.words.iter();
        let program = words.next().map_or("zfs", String::as_str);
        let mut command = Command::new(program);
        command.env("PATH", process::search_path()).env("LC_ALL", "C");
        command.args(words);
        let shells = shells_between(&self.words);
        command.args(args.iter().map(|arg| (0..shells).fold(arg.to_string(), |arg, _| quoted(&arg))));
        command
    }

    fn cannot_run(&self, e: &io::Error) -> Error {
        let error = Error::failed(format!("cannot run '{}': {e}", self.words.join(" ")));
        if process::may_pass(e) {
            return error.for_now();
        }
        error.hint("set ZFS2S3_ZFS to the command, such as /sbin/zfs or 'ssh nas zfs'")
    }
}

/// How many shells interpret the arguments: each ssh passes its words to one on the other host. A word is the
/// program ssh if a host and a command can follow it, so `docker exec ssh zfs` has none.
fn shells_between(words: &[String]) -> usize {
    let is_ssh = |word: &String| word.rsplit('/').next() == Some("ssh");
    words.iter().enumerate().filter(|(n, word)| is_ssh(word) && n + 2 < words.len()).count()
}

fn send_command(backup: &Backup, flags: &[String]) -> Vec<String> {
    let mut args = vec!["send".to_string()];
    args.extend_from_slice(flags);
    if let Some(base) = &backup.base {
        args.extend(["-i".to_string(), base.name.clone()]);
    }
    args.push(backup.snapshot.name.clone());
    args
}

/// The message quotes zfs, and the command line.
fn failure(line: &str, status: &str, said: &str) -> Error {
    match said.trim() {
        "" => Error::failed(format!("'{line}' failed ({status})")),
        said => {
            let error = Error::failed(format!("'{line}' failed: {}", said.replace('\n', "; ")));
            let hints = HINTS.iter().filter(|(words, _)| said.contains(words));
            hints.fold(error, |error, (_, hint)| error.hint(*hint))
        }
    }
}

/// A running command; the end of its stderr is kept.
struct Process {
    child: Child,
    stderr: Option<Collected>,
    line: String,
}

impl Process {
    /// Waits for its exit. If it fails, its own message is the error.
    fn finish(&mut self) -> Result<()> {
        let status = self.child.wait().map_err(|e| Error::failed(format!("'{}': {e}", self.line)))?;
        if status.success() {
            return Ok(());
        }
        let said = self.stderr.take().map(Collected::take).unwrap_or_default();
        Err(failure(&self.line, &status.to_string(), &String::from_utf8_lossy(&said)))
    }
}

/// A running `zfs send`. Dropping it kills the process.
pub struct Send {
    process: Process,
    stdout: Option<ChildStdout>,
}

impl Send {
    /// Waits for its exit, which must be successful.
    pub fn finish(mut self) -> Result<()> {
        drop(self.stdout.take());
        self.process.finish()
    }
}

impl Read for Send {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.stdout {
            Some(stdout) => stdout.read(buffer),
            None => Ok(0),
        }
    }
}

impl Drop for Send {
    fn drop(&mut self) {
        drop(self.stdout.take());
        // it may have exited already; one that hangs in the kernel is not waited for
        let _ = self.process.child.kill();
        let _ = self.process.child.try_wait();
    }
}

/// A running `zfs receive`. Dropping it closes its input, which it treats as an interruption.
pub struct Receive {
    process: Process,
    stdin: Option<ChildStdin>,
}

impl Receive {
    /// Waits for its exit, which must be successful.
    pub fn finish(mut self) -> Result<()> {
        drop(self.stdin.take());
        self.process.finish()
    }
}

impl Write for Receive {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.stdin {
            Some(stdin) => stdin.write(bytes),
            None => Ok(0),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Receive {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // it saves what it has received
        let _ = self.process.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ssh_adds_a_shell() {
        for (words, shells) in [
            ("zfs", 0),
            ("sudo zfs", 0),
            ("ssh nas zfs", 1),
            ("/usr/bin/ssh -p 2222 nas sudo zfs", 1),
            ("sudo ssh nas zfs", 1),
            ("ssh jump ssh nas zfs", 2),
            ("docker exec ssh zfs", 0),
            ("sudo -u ssh zfs", 0),
        ] {
            let words: Vec<String> = words.split(' ').map(str::to_string).collect();
            assert_eq!(shells_between(&words), shells, "{words:?}");
        }
    }
}
