//! The credentials of a run: fetched once, and renewed before they expire. Used by all threads.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use super::failure::{Failure, Kind};
use crate::aws::credentials::{Keys, Source};
use crate::error::Error;
use crate::os::clock;
use crate::os::mutex::lock;

/// New credentials are fetched when the old ones have this many seconds left.
const RENEW_BEFORE: i64 = 300;

pub struct Keyring {
    source: Source,
    /// How long a helper may take.
    helper_limit: Duration,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    keys: Option<Keys>,
    /// When new ones are asked for, in seconds since 1970.
    renew_at: Option<i64>,
    /// How often the source has given some.
    fetched: u32,
}

impl Keyring {
    pub fn new(source: Source, helper_limit: Duration) -> Self {
        Keyring { source, helper_limit, slot: Mutex::default() }
    }

    pub fn can_renew(&self) -> bool {
        self.source.can_be_asked_again()
    }

    /// S3 says that these have expired. Another thread may have renewed them meanwhile.
    pub fn forget(&self, expired: &Keys) {
        let mut slot = self.slot();
        if slot.keys.as_ref() == Some(expired) {
            slot.keys = None;
        }
    }

    /// How often credentials were fetched.
    pub fn fetched(&self) -> u32 {
        self.slot().fetched
    }

    /// Credentials that are still good for a while. Where new ones cannot be had now, the old ones serve as long as
    /// they are good; then it is tried again, as everything that worked before.
    pub fn keys(&self) -> std::result::Result<Keys, Failure> {
        let mut slot = self.slot();
        let now = clock::now().unix_seconds();
        if let Some(keys) = slot.keys.as_ref().filter(|_| slot.renew_at.is_none_or(|at| now < at)) {
            return Ok(keys.clone());
        }
        let is_good = |keys: &Keys| keys.expires.is_none_or(|end| end.unix_seconds() > now);
        let fetched = self.source.fetch(self.helper_limit).and_then(|keys| match keys.expires {
            Some(end) if !is_good(&keys) => Err(Error::failed(format!(
                "no credentials: those that were given expired at {end}, and it is {} by the clock of this host",
                clock::now()
            ))),
            _ => Ok(keys),
        });
        match (fetched, &slot.keys) {
            (Ok(keys), _) => {
                let renew_at = keys.expires.map(|end| renew_at(now, end.unix_seconds()));
                *slot = Slot { keys: Some(keys.clone()), renew_at, fetched: slot.fetched + 1 };
                Ok(keys)
            }
            (Err(_), Some(keys)) if is_good(keys) => {
                let keys = keys.clone();
                // not for each request
                slot.renew_at =
                    keys.expires.map(|end| renew_at(now, end.unix_seconds().min(now + RENEW_BEFORE)));
                Ok(keys)
            }
            (Err(e), _) => {
                let kind = if slot.fetched > 0 { Kind::Transient } else { Kind::Final };
                Err(Failure { hints: e.hints, ..Failure::transport("signing".to_string(), e.message, kind) })
            }
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        lock(&self.slot)
    }
}

/// When credentials that are good until `end` are renewed: five minutes before, or where they are not good for that long, when
/// half of their time is over. In seconds since 1970.
fn renew_at(now: i64, end: i64) -> i64 {
    match end - now > RENEW_BEFORE {
        true => end - RENEW_BEFORE,
        false => now + (end - now + 1) / 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewed_in_time_and_not_for_each_request() {
        for (left, after) in [(3600, 3300), (301, 1), (300, 150), (240, 120), (2, 1), (1, 1)] {
            assert_eq!(renew_at(1_000_000, 1_000_000 + left) - 1_000_000, after, "{left} seconds left");
        }
    }
}
