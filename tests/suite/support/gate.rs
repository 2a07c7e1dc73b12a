//! Holds each request of two hosts until a schedule lets it pass, so that every order of their steps can be
//! tried. The last letter of its access key identifies a host.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::s3::Request;

pub const ACCESS_KEYS: [&str; 2] = ["AKIATESTTESTTESTTESTA", "AKIATESTTESTTESTTESTB"];

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Verdict {
    Pass,
    /// It never arrived.
    Discard,
}

#[derive(Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    closed: bool,
    waiting: [usize; 2],
    /// How many have continued, so that the next one is not mistaken for the last.
    gone: [usize; 2],
    verdicts: [Vec<Verdict>; 2],
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// From now on requests wait, or from now on they do not.
    pub fn set_closed(&self, closed: bool) {
        let mut state = self.state();
        state.closed = closed;
        state.verdicts = Default::default();
        self.changed.notify_all();
    }

    /// Called by the server for each request.
    pub fn pass(&self, request: &Request) -> Verdict {
        let signed = request.header("authorization").unwrap_or_default();
        let Some(host) = ACCESS_KEYS.iter().position(|key| signed.contains(&format!("{key}/"))) else {
            return Verdict::Pass;
        };
        let mut state = self.state();
        if !state.closed {
            return Verdict::Pass;
        }
        state.waiting[host] += 1;
        self.changed.notify_all();
        while state.closed && state.verdicts[host].is_empty() {
            state = self.changed.wait(state).unwrap();
        }
        let verdict = state.verdicts[host].pop().unwrap_or(Verdict::Pass);
        state.waiting[host] -= 1;
        state.gone[host] += 1;
        self.changed.notify_all();
        verdict
    }

    /// Waits until the host has a request waiting (true), or has ended (false).
    pub fn await_request(&self, host: usize, mut ended: impl FnMut() -> bool) -> bool {
        let mut state = self.state();
        loop {
            if state.waiting[host] > 0 {
                return true;
            }
            if ended() {
                return false;
            }
            state = self.changed.wait_timeout(state, Duration::from_millis(1)).unwrap().0;
        }
    }

    /// Lets the waiting request of the host go.
    pub fn release(&self, host: usize, verdict: Verdict) {
        let mut state = self.state();
        state.verdicts[host].push(verdict);
        let before = state.gone[host];
        self.changed.notify_all();
        while state.gone[host] == before {
            state = self.changed.wait(state).unwrap();
        }
    }
}
