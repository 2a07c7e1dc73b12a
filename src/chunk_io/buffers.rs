//! The buffers of a transfer. A chunk is in one from when it is read or fetched until it is stored or
//! delivered, so their number limits the connections that are in use, and the memory.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Instant;

use super::concurrency::Concurrency;
use crate::model::traffic::Traffic;
use crate::os::mutex::{lock, wait};

pub struct Buffers {
    chunk_size: usize,
    state: Mutex<State>,
    changed: Condvar,
    begun: Instant,
}

struct State {
    concurrency: Concurrency,
    /// The one that was used last is the last: it may still be in the cache of the CPU.
    spare: Vec<Vec<u8>>,
    in_use: usize,
    is_closed: bool,
}

impl State {
    /// One more than connections: it is being filled or delivered.
    fn capacity(&self) -> usize {
        self.concurrency.limit() + 1
    }
}

impl Buffers {
    pub fn new(chunk_size: usize, concurrency: Concurrency) -> Self {
        Buffers {
            chunk_size,
            state: Mutex::new(State { concurrency, spare: Vec::new(), in_use: 0, is_closed: false }),
            changed: Condvar::new(),
            begun: Instant::now(),
        }
    }

    /// Waits until one may be used. None: they are closed.
    pub fn take(&self) -> Option<Vec<u8>> {
        let mut state = self.state();
        while !state.is_closed && state.in_use >= state.capacity() {
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

    pub fn give(&self, buffer: Vec<u8>) {
        let mut state = self.state();
        state.in_use -= 1;
        if state.in_use + state.spare.len() < state.capacity() {
            state.spare.push(buffer);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// No more are needed.
    pub fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_all();
    }

    /// What happens on the connections.
    pub fn note(&self, traffic: Traffic) {
        let mut state = self.state();
        let before = state.concurrency.limit();
        let (in_use, now) = (state.in_use.saturating_sub(1), self.begun.elapsed());
        match traffic {
            Traffic::Moved(bytes) => state.concurrency.moved(bytes, in_use, now),
            Traffic::SlowDown => state.concurrency.slow_down(in_use, now),
        }
        let grew = state.concurrency.limit() > before;
        while state.in_use + state.spare.len() > state.capacity() && state.spare.pop().is_some() {}
        drop(state);
        if grew {
            self.changed.notify_all();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn as_many_as_connections_and_one() {
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
    fn memory_that_is_no_longer_needed_is_returned() {
        let buffers = Buffers::new(10, Concurrency::adaptive(32));
        let taken: Vec<Vec<u8>> = (0..5).map(|_| buffers.take().unwrap()).collect();
        buffers.note(Traffic::SlowDown);
        taken.into_iter().for_each(|buffer| buffers.give(buffer));
        assert_eq!(buffers.state().spare.len(), 3, "two connections and one");
    }
}
