//! Keeps all upload threads together below ZFS2S3_BWLIMIT.

use std::io::{self, Read};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Bytes handed out at a time.
const STEP: usize = 16 << 10;

/// Bytes a second, for all threads that share it.
pub struct Limiter {
    rate: u64,
    /// When what was handed out so far will have been used up.
    paid_until: Mutex<Instant>,
}

impl Limiter {
    pub fn new(rate: u64) -> Self {
        Limiter { rate, paid_until: Mutex::new(Instant::now()) }
    }

    fn take(&self, bytes: usize) {
        let cost = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        let wait = {
            let mut paid = self.paid_until.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let now = Instant::now();
            // what was not used while nothing was sent is not saved up
            let start = (*paid).max(now);
            *paid = start + cost;
            start - now
        };
        std::thread::sleep(wait);
    }
}

/// A body that is read no faster than the limiter allows.
pub struct Paced<'a> {
    rest: &'a [u8],
    limiter: &'a Limiter,
}

impl<'a> Paced<'a> {
    pub fn new(body: &'a [u8], limiter: &'a Limiter) -> Self {
        Paced { rest: body, limiter }
    }
}

impl Read for Paced<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let step = buffer.len().min(STEP);
        let count = self.rest.read(&mut buffer[..step])?;
        self.limiter.take(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_by_threads_the_rate_holds() {
        let limiter = Limiter::new(1 << 20);
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut body = Vec::new();
                    Paced::new(&[7; 64 << 10], &limiter).read_to_end(&mut body).unwrap();
                    assert_eq!(body, [7; 64 << 10]);
                });
            }
        });
        // 256 KiB at 1 MiB/s, less the last step, which is not waited for
        assert!(begun.elapsed() >= Duration::from_millis(230), "{:?}", begun.elapsed());
    }
}
