//! The signals that end the program: what is to be done then is said first.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};

const ENDING: [(i32, &str); 3] = [(SIGHUP, "SIGHUP"), (SIGINT, "SIGINT"), (SIGTERM, "SIGTERM")];

/// How long a terminal that does not take a message may delay the end.
const LIMIT: Duration = Duration::from_secs(1);

fn is_ending() -> &'static Arc<AtomicBool> {
    static IS_ENDING: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    IS_ENDING.get_or_init(Arc::default)
}

/// At such a signal, calls `tell` with its name, and ends the program as the signal would have done at once.
pub fn tell_before_end(tell: impl FnOnce(&str) + Send + 'static) -> io::Result<()> {
    let ignored = ignored();
    let mut signals = Signals::new([] as [i32; 0])?;
    for (signal, _) in ENDING.iter().filter(|(signal, _)| !is_among(ignored, *signal)) {
        flag::register(*signal, Arc::clone(is_ending()))?;
        signals.add_signal(*signal)?;
    }
    std::thread::spawn(move || {
        let Some(signal) = signals.forever().next() else { return };
        let name = ENDING.iter().find(|(number, _)| *number == signal).map_or("a signal", |(_, name)| name);
        let (done, told) = channel::<()>();
        std::thread::spawn(move || {
            tell(name);
            drop(done);
        });
        let _ = told.recv_timeout(LIMIT);
        let _ = low_level::emulate_default_handler(signal);
    });
    Ok(())
}

/// If a signal is about to end the program, waits for that: what it causes, such as the end of a `zfs send`
/// that had the same signal, is not the reason.
pub fn await_end() {
    if is_ending().load(Ordering::SeqCst) {
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
