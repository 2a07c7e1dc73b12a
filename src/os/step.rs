//! The changes that the program makes outside of itself, one after the other: to files, in S3, by `zfs`. A
//! test build can be killed before any of them, or be told that one of a file fails.
//!
//! ZFS2S3_TEST_STEP is `kill N FILE` or `ERRNO N FILE`: at the Nth step, or the Nth of a file. Each step up
//! to that one is added to FILE before it is made, so that the tests know what a power cut could still undo.

use std::fmt::{self, Display, Formatter};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// A change of a file, or what makes one last.
pub enum Change<'a> {
    /// Creates it, or makes it empty.
    Create(&'a Path),
    /// At its end.
    Write(&'a Path, &'a [u8]),
    Truncate(&'a Path, u64),
    Sync(&'a Path),
    Rename(&'a Path, &'a Path),
    /// The second is another name of the first.
    Link(&'a Path, &'a Path),
    Unlink(&'a Path),
    MakeFolder(&'a Path),
    SyncFolder(&'a Path),
}

/// Words that are separated by tabs.
impl Display for Change<'_> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Change::Create(path) => write!(f, "create\t{}", path.display()),
            Change::Write(path, bytes) => {
                write!(f, "write\t{}\t", path.display())?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Change::Truncate(path, length) => write!(f, "truncate\t{}\t{length}", path.display()),
            Change::Sync(path) => write!(f, "fsync\t{}", path.display()),
            Change::Rename(from, to) => write!(f, "rename\t{}\t{}", from.display(), to.display()),
            Change::Link(from, to) => write!(f, "link\t{}\t{}", from.display(), to.display()),
            Change::Unlink(path) => write!(f, "unlink\t{}", path.display()),
            Change::MakeFolder(path) => write!(f, "mkdir\t{}", path.display()),
            Change::SyncFolder(path) => write!(f, "fsync of the folder\t{}", path.display()),
        }
    }
}

static STEPS: AtomicU64 = AtomicU64::new(0);

struct Plan {
    /// None: the program is killed.
    errno: Option<i32>,
    at: u64,
    log: File,
}

/// Called before each change of a file. An error: it fails, and is not to be made.
pub fn of_file(change: &Change) -> io::Result<()> {
    let Some(plan) = plan() else { return Ok(()) };
    if !is_reached(plan, change) {
        return Ok(());
    }
    Err(plan.errno.map_or_else(|| kill(), io::Error::from_raw_os_error))
}

/// Writes at the end of a file. If that is to fail, it does so in the middle.
pub fn write(file: &mut File, path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Err(e) = of_file(&Change::Write(path, bytes)) {
        file.write_all(&bytes[..bytes.len() / 2])?;
        return Err(e);
    }
    file.write_all(bytes)
}

/// Called before each other change, and before each request, since that may be one.
pub fn elsewhere(what: &str) {
    if let Some(plan) = plan().filter(|plan| plan.errno.is_none())
        && is_reached(plan, &what)
    {
        kill();
    }
}

fn is_reached(plan: &Plan, step: &dyn Display) -> bool {
    let n = STEPS.fetch_add(1, Ordering::SeqCst) + 1;
    while n > plan.at && plan.errno.is_none() {
        // another thread is killing the program
        std::thread::park();
    }
    let _ = (&plan.log).write_all(format!("{step}\n").as_bytes());
    n == plan.at
}

fn plan() -> Option<&'static Plan> {
    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
    let read = || {
        let text = std::env::var("ZFS2S3_TEST_STEP").ok().filter(|_| cfg!(debug_assertions))?;
        let mut words = text.splitn(3, ' ');
        let errno = words.next()?.parse().ok();
        let at = words.next()?.parse().ok()?;
        let log = OpenOptions::new().append(true).create(true).open(words.next()?).ok()?;
        Some(Plan { errno, at, log })
    };
    PLAN.get_or_init(read).as_ref()
}

/// As a crash does: nothing is cleaned up.
fn kill() -> ! {
    let _ = Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
    std::process::abort()
}
