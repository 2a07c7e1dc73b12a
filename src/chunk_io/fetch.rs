//! Fetches chunks in parallel jobs, and delivers them in order.
//!
//! At most jobs + 1 chunks are in memory: those being fetched or waiting for their turn, and one being
//! delivered. A job takes a buffer first, then the next chunk, so the chunk whose turn it is always has a
//! buffer.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};

use crate::error::{Error, Result};
use crate::os::mutex::lock;

type Fetched = (u64, Vec<u8>, Result<usize>);

/// Fetches the chunks 0 to `count` - 1, and calls `deliver` for each in order. `fetch` gets the index and a
/// buffer of `chunk_size` bytes, and returns the length of the chunk; its last argument is set when the chunk
/// is no longer needed. The first error, in the order of the chunks, ends everything.
pub fn run(
    count: u64,
    chunk_size: usize,
    jobs: usize,
    fetch: &(impl Fn(u64, &mut [u8], &AtomicBool) -> Result<usize> + Sync),
    mut deliver: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let stop = AtomicBool::new(false);
    let next = AtomicU64::new(0);
    let (to_main, fetched) = channel::<Fetched>();
    let (spare, for_jobs) = channel::<Vec<u8>>();
    let for_jobs = Mutex::new(for_jobs);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (to_main, for_jobs, next, stop) = (to_main.clone(), &for_jobs, &next, &stop);
            scope.spawn(move || {
                while let Some(mut buffer) = take(for_jobs) {
                    let index = next.fetch_add(1, Ordering::SeqCst);
                    if index >= count || stop.load(Ordering::SeqCst) {
                        break;
                    }
                    if buffer.is_empty() {
                        buffer = vec![0; chunk_size];
                    }
                    let length = fetch(index, &mut buffer, stop);
                    if to_main.send((index, buffer, length)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(to_main);
        // empty: each gets its memory when it is first used
        for _ in 0..=jobs {
            let _ = spare.send(Vec::new());
        }
        let mut waiting: BTreeMap<u64, (Vec<u8>, Result<usize>)> = BTreeMap::new();
        let mut run_turns = || {
            for turn in 0..count {
                let (buffer, length) = loop {
                    if let Some(chunk) = waiting.remove(&turn) {
                        break chunk;
                    }
                    let (index, buffer, length) =
                        fetched.recv().map_err(|_| Error::failed("the fetching threads have ended"))?;
                    waiting.insert(index, (buffer, length));
                };
                deliver(turn, &buffer[..length?])?;
                let _ = spare.send(buffer);
            }
            Ok(())
        };
        let result = run_turns();
        stop.store(true, Ordering::SeqCst);
        drop(spare);
        result
    })
}

fn take(for_jobs: &Mutex<Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    lock(for_jobs).recv().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Chunks of 10 bytes, the last of 3, with varying delays.
    fn fetch(index: u64, buffer: &mut [u8], _: &AtomicBool) -> Result<usize> {
        std::thread::sleep(Duration::from_millis((index * 7) % 5));
        let length = if index == 99 { 3 } else { 10 };
        buffer[..length].fill(index as u8);
        Ok(length)
    }

    #[test]
    fn chunks_are_delivered_in_order() {
        for jobs in [1, 2, 7, 200] {
            let mut got = Vec::new();
            run(100, 10, jobs, &fetch, |index, chunk| {
                assert!(chunk.iter().all(|byte| *byte == index as u8));
                got.push((index, chunk.len()));
                Ok(())
            })
            .unwrap();
            let expected: Vec<(u64, usize)> = (0..100).map(|n| (n, if n == 99 { 3 } else { 10 })).collect();
            assert_eq!(got, expected);
        }
        run(0, 10, 3, &fetch, |_, _| panic!("there is none")).unwrap();
    }

    #[test]
    fn at_most_jobs_and_one_chunks_are_fetched_ahead() {
        let begun = AtomicU64::new(0);
        let count = |index: u64, buffer: &mut [u8], stop: &AtomicBool| {
            begun.fetch_add(1, Ordering::SeqCst);
            fetch(index, buffer, stop)
        };
        run(100, 10, 3, &count, |index, _| {
            std::thread::sleep(Duration::from_millis(2));
            assert!(begun.load(Ordering::SeqCst) <= index + 4, "jobs + 1");
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn nothing_after_the_first_damaged_chunk_is_delivered() {
        let broken = |index: u64, buffer: &mut [u8], stop: &AtomicBool| match index {
            5 => Err(Error::failed("damaged")),
            _ => fetch(index, buffer, stop),
        };
        let mut last = None;
        let error = run(100, 10, 4, &broken, |index, _| {
            last = Some(index);
            Ok(())
        });
        assert_eq!((error.unwrap_err().message.as_str(), last), ("damaged", Some(4)));
        let error = run(100, 10, 4, &fetch, |index, _| match index {
            2 => Err(Error::failed("broken pipe")),
            _ => Ok(()),
        });
        assert_eq!(error.unwrap_err().message, "broken pipe");
    }

    #[test]
    fn a_fetch_that_is_no_longer_needed_is_not_waited_for() {
        let slow = |index: u64, buffer: &mut [u8], stop: &AtomicBool| {
            while index > 0 && !stop.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            fetch(index, buffer, stop)
        };
        let error = run(100, 10, 4, &slow, |_, _| Err(Error::failed("broken pipe")));
        assert_eq!(error.unwrap_err().message, "broken pipe");
    }
}
