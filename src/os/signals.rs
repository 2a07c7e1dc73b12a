//! The signals that end the program: before that, it says how to go on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::Builder;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};

use super::process;

/// How long a terminal that takes no message may delay the end.
const LIMIT: Duration = Duration::from_secs(1);

static IS_ENDING: AtomicBool = AtomicBool::new(false);

/// At such a signal, calls `tell` with its name, and ends the program as the signal would have done at once.
/// Where that cannot be arranged, the signal ends it without a word.
pub fn tell_before_end(tell: impl FnOnce(&str) + Send + 'static) {
    let ignored = ignored();
    let wanted = [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|signal| !is_among(ignored, *signal));
    let (begin, begun) = channel::<Signals>();
    let wait = move || {
        let Ok(mut signals) = begun.recv() else { return };
        let Some(signal) = signals.forever().next() else { return };
        let (done, told) = channel::<()>();
        let say = move || {
            tell(low_level::signal_name(signal).unwrap_or("a signal"));
            drop(done);
        };
        if Builder::new().spawn(say).is_ok() {
            let _ = told.recv_timeout(LIMIT);
        }
        process::kill_all();
        // the first process of a container has no default for signals
        if std::process::id() != 1 {
            let _ = low_level::emulate_default_handler(signal);
        }
        low_level::exit(128 + signal);
    };
    // without that thread nobody would end the program
    if Builder::new().spawn(wait).is_ok()
        && let Ok(signals) = Signals::new(wanted.clone())
    {
        for signal in wanted {
            let _ = flag::register(signal, &IS_ENDING);
        }
        let _ = begin.send(signals);
    }
}

/// If a signal is about to end the program, waits for that: what it causes, such as the end of a `zfs send`
/// that had the same signal, is not the reason.
pub fn await_end() {
    if IS_ENDING.load(Ordering::SeqCst) {
        std::thread::sleep(2 * LIMIT);
    }
}

/// The signals that are ignored, as by `nohup`, and stay so.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn is_among(mask: u64, signal: i32) -> bool {
    u32::try_from(signal - 1).is_ok_and(|bit| mask.checked_shr(bit).unwrap_or(0) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_as_the_kernel_writes_it() {
        // SIGHUP is 1, SIGPIPE 13
        assert!(is_among(0x1001, SIGHUP) && is_among(0x1001, 13) && !is_among(0x1001, SIGTERM));
        // Rust ignores it
        assert!(is_among(ignored(), 13));
    }
}
