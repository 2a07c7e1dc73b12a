//! Reads a stream in chunks, and passes them to parallel jobs.
//!
//! In memory are one chunk that is being read, and one with each job. A buffer is made when it is first
//! needed, and none is copied. The first error stops the reading; running jobs finish their chunk.

use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use super::buffers::Buffers;
use super::concurrency::Concurrency;
use crate::error::{Error, Result};
use crate::os::mutex::{into_inner, lock};
use crate::os::thread::start_in;

struct Chunk {
    index: u64,
    buffer: Vec<u8>,
    length: usize,
}

/// Receives the chunks.
pub trait ChunkSink: Sync {
    /// Called for each chunk in order, before a job gets it. `is_last`: it is shorter than the others, so the
    /// stream has ended.
    fn begin(&self, index: u64, is_last: bool) -> Result<()>;
    /// Called for each chunk, for several at a time. To send it, begins a request.
    fn store(&self, index: u64, chunk: &[u8], buffers: &Buffers) -> Result<()>;
    /// Called after an error: some chunks may never come.
    fn stop(&self) {}
    /// Called when all chunks are stored.
    fn end(&self, _: &Buffers) -> Result<()> {
        Ok(())
    }
}

/// Runs until the end of the stream, and returns its size. An empty stream has no chunk. A chunk that is
/// incomplete because of a read error is dropped.
pub fn run(
    mut stream: impl Read,
    chunk_size: usize,
    concurrency: Concurrency,
    sink: &impl ChunkSink,
) -> Result<u64> {
    let jobs = concurrency.most();
    let buffers = Buffers::new(chunk_size, concurrency);
    let stop = AtomicBool::new(false);
    let first_error = Mutex::new(None);
    let fail = |error: Error| {
        stop.store(true, Ordering::SeqCst);
        lock(&first_error).get_or_insert(error);
        sink.stop();
    };
    // the channel has no capacity: a chunk that is passed is with a job
    let (to_jobs, for_jobs) = sync_channel::<Chunk>(0);
    let for_jobs = Mutex::new(for_jobs);

    let total = std::thread::scope(|scope| {
        let job = || {
            while let Some(Chunk { index, buffer, length }) = next(&for_jobs) {
                if !stop.load(Ordering::SeqCst)
                    && let Err(error) = sink.store(index, &buffer[..length], &buffers)
                {
                    fail(error);
                }
                buffers.give(buffer);
            }
        };
        if let Err(error) = (0..jobs).try_for_each(|_| start_in(scope, job).map(|_| ())) {
            fail(error);
        }
        let mut total = 0;
        for index in 0.. {
            let Some(mut buffer) = buffers.take() else {
                fail(Error::failed("the sending threads have ended"));
                break;
            };
            let length = match fill(&mut stream, &mut buffer) {
                Ok(length) => length,
                Err(e) => {
                    fail(
                        e.downcast()
                            .unwrap_or_else(|e| Error::try_again(format!("cannot read the stream: {e}"))),
                    );
                    break;
                }
            };
            if length == 0 || stop.load(Ordering::SeqCst) {
                break;
            }
            let last = length < chunk_size;
            if let Err(error) = sink.begin(index, last) {
                fail(error);
                break;
            }
            total += length as u64;
            if to_jobs.send(Chunk { index, buffer, length }).is_err() {
                fail(Error::failed("the sending threads have ended"));
                break;
            }
            if last {
                break;
            }
        }
        drop(to_jobs);
        total
    });
    match into_inner(first_error) {
        Some(error) => Err(error),
        None => sink.end(&buffers).map(|()| total),
    }
}

fn next(for_jobs: &Mutex<Receiver<Chunk>>) -> Option<Chunk> {
    lock(for_jobs).recv().ok()
}

/// Reads until the buffer is full or the stream ends.
pub fn fill(stream: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    #[derive(Default)]
    struct Collect {
        begun: Mutex<Vec<u64>>,
        stored: Mutex<BTreeMap<u64, Vec<u8>>>,
        at_once: AtomicUsize,
        most_at_once: AtomicUsize,
        fail_at: Option<u64>,
        refuse_at: Option<u64>,
    }

    impl ChunkSink for Collect {
        fn begin(&self, index: u64, _: bool) -> Result<()> {
            self.begun.lock().unwrap().push(index);
            if self.refuse_at == Some(index) { Err(Error::refused("refused")) } else { Ok(()) }
        }
        fn store(&self, index: u64, chunk: &[u8], _: &Buffers) -> Result<()> {
            let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_at_once.fetch_max(now, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(3));
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            if self.fail_at == Some(index) {
                return Err(Error::failed("failed"));
            }
            self.stored.lock().unwrap().insert(index, chunk.to_vec());
            Ok(())
        }
    }

    /// A pipe gives what it has.
    struct Dribble<'a>(&'a [u8]);
    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = buffer.len().min(7);
            self.0.read(&mut buffer[..count])
        }
    }

    #[test]
    fn every_byte_is_sent_once_at_the_edges_of_a_chunk() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for jobs in [1, 2, 5] {
            for length in [0, 1, 99, 100, 101, 200, 1000] {
                let sink = Collect::default();
                let total = run(Dribble(&bytes[..length]), 100, Concurrency::fixed(jobs), &sink).unwrap();
                assert_eq!(total, length as u64);
                let stored = sink.stored.into_inner().unwrap();
                assert_eq!(stored.values().flatten().copied().collect::<Vec<u8>>(), &bytes[..length]);
                assert_eq!(stored.len(), length.div_ceil(100));
                let begun = sink.begun.into_inner().unwrap();
                assert!(begun.iter().copied().eq(0..stored.len() as u64), "in order");
            }
        }
    }

    /// Gives 250 bytes, then fails.
    struct Breaks(usize);
    impl Read for Breaks {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = buffer.len().min(250 - self.0);
            self.0 += count;
            if count == 0 { Err(std::io::Error::other(Error::refused("broke off"))) } else { Ok(count) }
        }
    }

    #[test]
    fn an_incomplete_chunk_is_dropped() {
        let sink = Collect::default();
        assert_eq!(run(Breaks(0), 100, Concurrency::fixed(2), &sink).unwrap_err().message, "broke off");
        assert!(sink.stored.into_inner().unwrap().values().all(|chunk| chunk.len() == 100));
    }

    #[test]
    fn chunks_are_sent_in_as_many_threads_as_there_are_jobs() {
        let sink = Collect::default();
        run(&[0; 5000][..], 100, Concurrency::fixed(4), &sink).unwrap();
        assert_eq!(sink.most_at_once.into_inner(), 4);
    }

    #[test]
    fn the_first_error_stops_the_reading() {
        let sink = Collect { fail_at: Some(3), ..Collect::default() };
        assert_eq!(run(&[0; 100_000][..], 100, Concurrency::fixed(2), &sink).unwrap_err().message, "failed");
        assert!(sink.begun.into_inner().unwrap().len() < 20);
        let sink = Collect { refuse_at: Some(0), ..Collect::default() };
        assert_eq!(run(&[0; 100_000][..], 100, Concurrency::fixed(2), &sink).unwrap_err().message, "refused");
        assert!(sink.stored.into_inner().unwrap().is_empty(), "nothing is stored of what is refused");
    }
}
