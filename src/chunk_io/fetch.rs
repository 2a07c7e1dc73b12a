//! Fetches chunks in parallel jobs, and delivers them in order.
//!
//! In memory are the chunks that are being fetched or wait for their turn, and one that is being delivered. A
//! job takes a buffer first, then the next chunk, so the chunk whose turn it is always has a buffer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;

use super::buffers::Buffers;
use super::concurrency::Concurrency;
use crate::error::{Error, Result};
use crate::model::traffic::Meter;
use crate::os::thread::start_in;

type Fetched = (u64, Vec<u8>, Result<usize>);

/// Fetches the chunks 0 to `count` - 1, and calls `deliver` for each in order. `fetch` gets the index and a
/// buffer of `chunk_size` bytes, and returns the length of the chunk; it also gets a flag, which is set when
/// the chunk is no longer needed, and a meter to call as bytes arrive. The first error, in the order of the
/// chunks, ends everything.
pub fn run(
    count: u64,
    chunk_size: usize,
    concurrency: Concurrency,
    fetch: &(impl Fn(u64, &mut [u8], &AtomicBool, Meter) -> Result<usize> + Sync),
    mut deliver: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let jobs = concurrency.most().min(usize::try_from(count).unwrap_or(usize::MAX));
    let buffers = Buffers::new(chunk_size, concurrency);
    let stop = AtomicBool::new(false);
    let next = AtomicU64::new(0);
    let (to_main, fetched) = channel::<Fetched>();
    std::thread::scope(|scope| {
        let started = (0..jobs).try_for_each(|_| {
            let (to_main, buffers, next, stop) = (to_main.clone(), &buffers, &next, &stop);
            let job = move || {
                while let Some(mut buffer) = buffers.take() {
                    let index = next.fetch_add(1, Ordering::SeqCst);
                    if index >= count {
                        buffers.give(buffer);
                        break;
                    }
                    let request = buffers.begin_request();
                    let length = fetch(index, &mut buffer, stop, &|traffic| request.note(traffic));
                    drop(request);
                    if to_main.send((index, buffer, length)).is_err() {
                        break;
                    }
                }
            };
            start_in(scope, job).map(|_| ())
        });
        drop(to_main);
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
                buffers.give(buffer);
            }
            Ok(())
        };
        let result = started.and_then(|()| run_turns());
        stop.store(true, Ordering::SeqCst);
        buffers.close();
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Chunks of 10 bytes, the last of 3, with varying delays.
    fn fetch(index: u64, buffer: &mut [u8], _: &AtomicBool, _: Meter) -> Result<usize> {
        std::thread::sleep(Duration::from_millis((index * 7) % 5));
        let length = if index == 99 { 3 } else { 10 };
        buffer[..length].fill(index as u8);
        Ok(length)
    }

    #[test]
    fn chunks_are_delivered_in_order() {
        for jobs in [1, 2, 7, 200] {
            let mut got = Vec::new();
            run(100, 10, Concurrency::fixed(jobs), &fetch, |index, chunk| {
                assert!(chunk.iter().all(|byte| *byte == index as u8));
                got.push((index, chunk.len()));
                Ok(())
            })
            .unwrap();
            let expected: Vec<(u64, usize)> = (0..100).map(|n| (n, if n == 99 { 3 } else { 10 })).collect();
            assert_eq!(got, expected);
        }
        run(0, 10, Concurrency::fixed(3), &fetch, |_, _| panic!("there is none")).unwrap();
    }

    #[test]
    fn at_most_jobs_and_one_chunks_are_fetched_ahead() {
        let begun = AtomicU64::new(0);
        let count = |index: u64, buffer: &mut [u8], stop: &AtomicBool, meter: Meter| {
            begun.fetch_add(1, Ordering::SeqCst);
            fetch(index, buffer, stop, meter)
        };
        run(100, 10, Concurrency::fixed(3), &count, |index, _| {
            std::thread::sleep(Duration::from_millis(2));
            assert!(begun.load(Ordering::SeqCst) <= index + 4, "jobs + 1");
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn nothing_after_the_first_damaged_chunk_is_delivered() {
        let broken = |index: u64, buffer: &mut [u8], stop: &AtomicBool, meter: Meter| match index {
            5 => Err(Error::failed("damaged")),
            _ => fetch(index, buffer, stop, meter),
        };
        let mut last = None;
        let error = run(100, 10, Concurrency::fixed(4), &broken, |index, _| {
            last = Some(index);
            Ok(())
        });
        assert_eq!((error.unwrap_err().message.as_str(), last), ("damaged", Some(4)));
        let error = run(100, 10, Concurrency::fixed(4), &fetch, |index, _| match index {
            2 => Err(Error::failed("broken pipe")),
            _ => Ok(()),
        });
        assert_eq!(error.unwrap_err().message, "broken pipe");
    }

    #[test]
    fn a_fetch_that_is_no_longer_needed_is_not_waited_for() {
        let slow = |index: u64, buffer: &mut [u8], stop: &AtomicBool, meter: Meter| {
            while index > 0 && !stop.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            fetch(index, buffer, stop, meter)
        };
        let error = run(100, 10, Concurrency::fixed(4), &slow, |_, _| Err(Error::failed("broken pipe")));
        assert_eq!(error.unwrap_err().message, "broken pipe");
    }
}
