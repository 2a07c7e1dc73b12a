//! The credentials of one run: fetched once, and renewed before they expire. All threads share them.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::aws::credentials::{CredentialSource, Credentials};
use crate::error::{Error, Result};
use crate::model::utc::Utc;
use crate::os::clock;
use crate::os::mutex::lock;

/// New credentials are fetched when the old ones are valid for this many more seconds.
const RENEW_BEFORE: i64 = 300;

pub struct RenewingCredentials {
    source: CredentialSource,
    /// How long a helper may take.
    helper_limit: Duration,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    current: Option<Credentials>,
    /// When new ones are fetched, in seconds since 1970.
    renew_at: Option<i64>,
    /// How often the source has returned some.
    fetched: u32,
}

impl RenewingCredentials {
    pub fn new(source: CredentialSource, helper_limit: Duration) -> Self {
        RenewingCredentials { source, helper_limit, slot: Mutex::default() }
    }

    pub fn can_renew(&self) -> bool {
        self.source.can_be_asked_again()
    }

    /// Called when S3 says that these have expired. Another thread may have renewed them meanwhile.
    pub fn forget(&self, expired: &Credentials) {
        let mut slot = self.slot();
        if slot.current.as_ref() == Some(expired) {
            slot.current = None;
        }
    }

    pub fn source(&self) -> &CredentialSource {
        &self.source
    }

    /// When the current ones expire, if that is known.
    pub fn expire(&self) -> Option<Utc> {
        self.slot().current.as_ref()?.expires
    }

    /// How often credentials were fetched.
    pub fn fetched(&self) -> u32 {
        self.slot().fetched
    }

    /// Credentials that are valid for a while. If new ones cannot be fetched now, the old ones are used while
    /// they are valid; after that the error is transient, because fetching has worked before.
    pub fn get(&self) -> Result<Credentials> {
        let mut slot = self.slot();
        let now = clock::now().unix_seconds();
        if let Some(current) = slot.current.as_ref().filter(|_| slot.renew_at.is_none_or(|at| now < at)) {
            return Ok(current.clone());
        }
        let is_valid = |it: &Credentials| it.expires.is_none_or(|end| end.unix_seconds() > now);
        let fetched = self.source.fetch(self.helper_limit).and_then(|new| match new.expires {
            Some(end) if !is_valid(&new) => Err(Error::failed(format!(
                "no credentials: the new ones expired at {end}, and the clock of this host says {}",
                clock::now()
            ))),
            _ => Ok(new),
        });
        match (fetched, &slot.current) {
            (Ok(new), _) => {
                let renew_at = new.expires.map(|end| renew_at(now, end.unix_seconds()));
                *slot = Slot { current: Some(new.clone()), renew_at, fetched: slot.fetched + 1 };
                Ok(new)
            }
            (Err(_), Some(current)) if is_valid(current) => {
                let current = current.clone();
                // not before each request
                slot.renew_at =
                    current.expires.map(|end| renew_at(now, end.unix_seconds().min(now + RENEW_BEFORE)));
                Ok(current)
            }
            (Err(error), _) if slot.fetched > 0 => Err(error.for_now()),
            (Err(error), _) => Err(error),
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        lock(&self.slot)
    }
}

/// When credentials that are valid until `end` are renewed: five minutes before, or if they are not valid for
/// that long, after half of their time. In seconds since 1970.
fn renew_at(now: i64, end: i64) -> i64 {
    if end - now > RENEW_BEFORE { end - RENEW_BEFORE } else { now + (end - now + 1) / 2 }
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
