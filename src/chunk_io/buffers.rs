//! The buffers and connections of a transfer. A chunk is in a buffer from when it is read or fetched until it
//! is stored or delivered, so their number limits the memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::concurrency::{Begun, Concurrency};
use crate::model::traffic::Traffic;
use crate::os::mutex::{lock, wait};

pub struct Buffers {
    chunk_size: usize,
    /// Chunks that S3 has already are only hashed.
    cores: usize,
    state: Mutex<State>,
    changed: Condvar,
    begun: Instant,
}

struct State {
    concurrency: Concurrency,
    /// The one that was used last is the last: it may still be in the cache of the CPU. None is freed before
    /// the end, since the allocator might keep it in addition to the next.
    spare: Vec<Vec<u8>>,
    in_use: usize,
    is_closed: bool,
}

/// A request that is under way, until it is dropped.
pub struct Request<'a> {
    buffers: &'a Buffers,
    begun: Begun,
    has_moved: AtomicBool,
}

impl Buffers {
    pub fn new(chunk_size: usize, concurrency: Concurrency) -> Self {
        Buffers {
            chunk_size,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            state: Mutex::new(State { concurrency, spare: Vec::new(), in_use: 0, is_closed: false }),
            changed: Condvar::new(),
            begun: Instant::now(),
        }
    }

    /// Waits until one may be used. None: they are closed.
    pub fn take(&self) -> Option<Vec<u8>> {
        let mut state = self.state();
        while !state.is_closed && state.in_use >= self.capacity(&state) {
            state = wait(&self.changed, state);
        }
        if state.is_closed {
            return None;
        }
        state.in_use += 1;
        let spare = state.spare.pop();
        drop(state);
        Some(spare.unwrap_or_else(|| vec![0; self.chunk_size]))
    }

    /// One more than connections: it is being filled or delivered.
    fn capacity(&self, state: &State) -> usize {
        state.concurrency.limit().max(self.cores).min(state.concurrency.most()) + 1
    }

    pub fn give(&self, buffer: Vec<u8>) {
        let mut state = self.state();
        state.in_use -= 1;
        state.spare.push(buffer);
        drop(state);
        self.changed.notify_all();
    }

    /// No more are needed.
    pub fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_all();
    }

    /// Waits until another connection may be used.
    pub fn begin_request(&self) -> Request<'_> {
        let mut state = self.state();
        while !state.is_closed && !state.concurrency.may_begin() {
            state = wait(&self.changed, state);
        }
        let begun = state.concurrency.begin(self.now());
        Request { buffers: self, begun, has_moved: AtomicBool::new(false) }
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Request<'_> {
    /// What happens on its connection.
    pub fn note(&self, traffic: Traffic) {
        let mut state = self.buffers.state();
        let (before, now) = (state.concurrency.limit(), self.buffers.now());
        match traffic {
            Traffic::Moved(bytes) => {
                if !self.has_moved.swap(true, Ordering::SeqCst) {
                    state.concurrency.first_bytes(self.begun, now);
                }
                state.concurrency.moved(bytes, now);
            }
            Traffic::SlowDown => state.concurrency.slow_down(now),
        }
        let grew = state.concurrency.limit() > before;
        drop(state);
        if grew {
            self.buffers.changed.notify_all();
        }
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        self.buffers.state().concurrency.end();
        self.buffers.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_buffers_as_connections_and_one() {
        let buffers = Buffers::new(10, Concurrency::fixed(2));
        let taken: Vec<Vec<u8>> = (0..3).map(|_| buffers.take().unwrap()).collect();
        std::thread::scope(|scope| {
            let fourth = scope.spawn(|| buffers.take().map(|buffer| buffer.as_ptr() as usize));
            std::thread::sleep(Duration::from_millis(20));
            assert!(!fourth.is_finished());
            let mut taken = taken.into_iter();
            let first = taken.next().unwrap();
            let address = first.as_ptr() as usize;
            buffers.give(first);
            assert_eq!(fourth.join().unwrap(), Some(address), "it is used again");
            let fifth = scope.spawn(|| buffers.take());
            std::thread::sleep(Duration::from_millis(20));
            assert!(!fifth.is_finished());
            buffers.close();
            assert_eq!(fifth.join().unwrap(), None);
        });
    }

    #[test]
    fn no_more_requests_than_connections() {
        let buffers = Buffers::new(10, Concurrency::fixed(2));
        let (first, second) = (buffers.begin_request(), buffers.begin_request());
        std::thread::scope(|scope| {
            let third = scope.spawn(|| buffers.begin_request());
            std::thread::sleep(Duration::from_millis(20));
            assert!(!third.is_finished());
            drop(first);
            let third = third.join().unwrap();
            let fourth = scope.spawn(|| buffers.begin_request());
            std::thread::sleep(Duration::from_millis(20));
            assert!(!fourth.is_finished());
            buffers.close();
            // nobody waits for ever
            drop(fourth.join().unwrap());
            drop((second, third));
        });
    }
}
