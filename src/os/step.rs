//! The changes that the program makes outside of itself, one after the other: to files, in S3, by `zfs`. A
//! test build can be killed before any of them, or be told that one of a file fails.
//!
//! ZFS2S3_TEST_STEP is `kill N FILE` or `ERRNO N FILE`: at the Nth step, or the Nth of a file. What it was is
//! written to FILE.

use std::io;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

static STEPS: AtomicU64 = AtomicU64::new(0);

struct Plan {
    /// None: the program is killed.
    errno: Option<i32>,
    at: u64,
    note: String,
}

/// Called before each change of a file. An error: it fails, and is not to be made.
pub fn of_file(what: &str) -> io::Result<()> {
    let Some(plan) = plan() else { return Ok(()) };
    if !is_reached(plan, what) {
        return Ok(());
    }
    Err(plan.errno.map_or_else(|| kill(), io::Error::from_raw_os_error))
}

/// Called before each other change, and before each request, since that may be one.
pub fn elsewhere(what: &str) {
    if let Some(plan) = plan().filter(|plan| plan.errno.is_none())
        && is_reached(plan, what)
    {
        kill();
    }
}

fn is_reached(plan: &Plan, what: &str) -> bool {
    let is_reached = STEPS.fetch_add(1, Ordering::SeqCst) + 1 == plan.at;
    if is_reached {
        let _ = std::fs::write(&plan.note, what);
    }
    is_reached
}

fn plan() -> Option<&'static Plan> {
    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
    let read = || {
        let text = std::env::var("ZFS2S3_TEST_STEP").ok().filter(|_| cfg!(debug_assertions))?;
        let mut words = text.splitn(3, ' ');
        let errno = words.next()?.parse().ok();
        Some(Plan { errno, at: words.next()?.parse().ok()?, note: words.next()?.to_string() })
    };
    PLAN.get_or_init(read).as_ref()
}

/// As a crash does: nothing is cleaned up.
fn kill() -> ! {
    let _ = Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
    std::process::abort()
}
