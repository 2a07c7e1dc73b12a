//! The body of a request as it is sent: counted for the progress line, and limited by ZFS2S3_BWLIMIT for all
//! threads together.

use std::io::{self, Read};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::model::traffic::{Meter, Traffic};
use crate::os::mutex::lock;

/// Bytes that are sent at a time.
const STEP: usize = 16 << 10;

/// Bytes a second, for all threads that share it.
pub struct Limiter {
    rate: u64,
    /// When the bytes sent so far will be within the limit.
    paid_until: Mutex<Instant>,
}

impl Limiter {
    pub fn new(rate: u64) -> Self {
        Limiter { rate, paid_until: Mutex::new(Instant::now()) }
    }

    fn take(&self, bytes: usize) {
        let cost = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        let wait = {
            let mut paid = lock(&self.paid_until);
            let now = Instant::now();
            // idle time is not saved up
            let start = (*paid).max(now);
            *paid = start + cost;
            start - now
        };
        std::thread::sleep(wait);
    }
}

/// A body that is read no faster than the limiter allows, and counted.
pub struct RequestBody<'a> {
    rest: &'a [u8],
    limiter: Option<&'a Limiter>,
    meter: Option<Meter<'a>>,
    /// Bytes read so far.
    pub sent: u64,
}

impl<'a> RequestBody<'a> {
    pub fn new(body: &'a [u8], limiter: Option<&'a Limiter>, meter: Option<Meter<'a>>) -> Self {
        RequestBody { rest: body, limiter, meter, sent: 0 }
    }
    /// The bytes that were sent have not arrived.
    pub fn undo(&self) {
        if let Some(meter) = self.meter {
            meter(Traffic::Moved(-(self.sent as i64)));
        }
    }
}

impl Read for RequestBody<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let step = if self.limiter.is_some() { buffer.len().min(STEP) } else { buffer.len() };
        let count = self.rest.read(&mut buffer[..step])?;
        if let Some(limiter) = self.limiter {
            limiter.take(count);
        }
        if let Some(meter) = self.meter {
            meter(Traffic::Moved(count as i64));
        }
        self.sent += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_share_the_rate() {
        let limiter = Limiter::new(1 << 20);
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut body = Vec::new();
                    RequestBody::new(&[7; 64 << 10], Some(&limiter), None).read_to_end(&mut body).unwrap();
                    assert_eq!(body, [7; 64 << 10]);
                });
            }
        });
        // 256 KiB at 1 MiB/s, without the last step, which is not waited for
        assert!(begun.elapsed() >= Duration::from_millis(230), "{:?}", begun.elapsed());
    }
}
