//! How much memory a transfer may take: the size of the chunks, and how many at most are sent or fetched at
//! once. Pure.

use crate::model::chunks::{MAX_CHUNK, MIN_CHUNK};
use crate::model::units::{count, human_size};

const DEFAULT: u64 = 288 << 20;
/// What the chunks do not take: buffers of the connections, the program itself.
const BESIDE_CHUNKS: u64 = 16 << 20;
/// Of requests that have no chunk in memory.
const JOBS: usize = 16;
/// Without a setting, and with memory for more.
const DEFAULT_MOST_JOBS: usize = 32;
const MOST_JOBS: usize = 64;
/// Bytes. With smaller ones there would be more requests, with larger ones fewer connections.
const CHUNK: u64 = 8 << 20;
/// For a stream that fits into one of these, or would have too many parts.
const LARGE_CHUNK: u64 = 16 << 20;

#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Bytes, if the user sets it.
    limit: Option<u64>,
    /// The same.
    jobs: Option<usize>,
    chunk_size: Option<u64>,
}

impl Memory {
    /// The error: why the limit is too low.
    pub fn new(limit: Option<u64>, jobs: Option<usize>, chunk_size: Option<u64>) -> Result<Self, String> {
        let needed = needed(jobs.unwrap_or(1), chunk_size.unwrap_or(MIN_CHUNK));
        match limit {
            Some(limit) if limit < needed => Err(format!(
                "{} is too little: {} with chunks of {} would take {}",
                human_size(limit),
                count(jobs.unwrap_or(1) as u64, "job"),
                human_size(chunk_size.unwrap_or(MIN_CHUNK)),
                human_size(needed)
            )),
            _ => Ok(Memory { limit, jobs, chunk_size }),
        }
    }

    /// Does it suffice for chunks that take so many bytes each?
    pub fn check(&self, chunk: u64) -> Result<(), String> {
        let needed = needed(1, chunk);
        match self.limit {
            Some(limit) if limit < needed => {
                Err(format!("{} is too little, and {} would do", human_size(limit), human_size(needed)))
            }
            _ => Ok(()),
        }
    }

    /// How many requests are made at once where no chunks are in memory.
    pub fn jobs(&self) -> usize {
        self.jobs.unwrap_or(JOBS)
    }

    /// If the user sets how many connections there are, their number does not adapt.
    pub fn fixed_jobs(&self) -> Option<usize> {
        self.jobs
    }

    /// How many connections there may be at most.
    pub fn most_jobs(&self) -> usize {
        self.jobs.unwrap_or(if self.limit.is_some() { MOST_JOBS } else { DEFAULT_MOST_JOBS })
    }

    /// How many chunks of this size are sent or fetched at once. One is always in memory beside them.
    pub fn jobs_for(&self, chunk_size: u64) -> usize {
        match (self.limit, self.jobs) {
            (None, Some(jobs)) => jobs,
            _ => {
                let chunks = self.for_chunks() / chunk_size.max(1);
                usize::try_from(chunks.saturating_sub(1)).unwrap_or(usize::MAX).clamp(1, self.most_jobs())
            }
        }
    }

    /// For a stream of about so many bytes. The chunks are larger if it then needs only one, or if it would
    /// have more than `parts`, as many as an upload may have, as far as the memory allows that; and if they are
    /// filtered, since each takes a process or more.
    pub fn chunk_size_for(&self, estimate: Option<u64>, parts: u64, is_filtered: bool) -> u64 {
        if let Some(chunk_size) = self.chunk_size {
            return chunk_size;
        }
        let largest = match (self.limit, self.jobs) {
            (None, _) => LARGE_CHUNK,
            (Some(_), jobs) => self.for_chunks() / (jobs.unwrap_or(JOBS) as u64 + 1),
        };
        let largest = (largest >> 20 << 20).clamp(MIN_CHUNK, MAX_CHUNK);
        let estimate = estimate.unwrap_or(0);
        let one = largest.min(LARGE_CHUNK);
        let usual = if is_filtered { LARGE_CHUNK } else { CHUNK };
        if estimate > usual && estimate <= one {
            return one;
        }
        // the stream may be somewhat larger
        let in_one_upload = (estimate + estimate / 20).div_ceil(parts.max(1)).next_multiple_of(1 << 20);
        in_one_upload.clamp(largest.min(usual), largest)
    }

    fn for_chunks(&self) -> u64 {
        self.limit.unwrap_or(DEFAULT).saturating_sub(BESIDE_CHUNKS)
    }
}

fn needed(jobs: usize, chunk_size: u64) -> u64 {
    BESIDE_CHUNKS.saturating_add((jobs as u64 + 1).saturating_mul(chunk_size))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const TIB: u64 = 1 << 40;

    fn memory(limit: Option<u64>, jobs: Option<usize>, chunk_size: Option<u64>) -> Memory {
        Memory::new(limit, jobs, chunk_size).unwrap()
    }

    #[test]
    fn without_a_setting_it_is_as_documented() {
        let memory = memory(None, None, None);
        assert_eq!(memory.chunk_size_for(None, 10_000, false), 8 * MIB);
        for estimate in [None, Some(1), Some(9 * MIB), Some(17 * MIB), Some(100 << 30)] {
            assert_eq!(memory.chunk_size_for(estimate, 10_000, true), 16 * MIB, "filtered: {estimate:?}");
        }
        // one request; 10,000 parts of 8 MiB are 78 GiB, and the stream may be somewhat larger
        for (estimate, chunk) in [
            (1, 8),
            (8 * MIB, 8),
            (8 * MIB + 1, 16),
            (16 * MIB, 16),
            (16 * MIB + 1, 8),
            (74 << 30, 8),
            (75 << 30, 9),
            (TIB / 8, 14),
            (TIB, 16),
            (100 * TIB, 16),
        ] {
            assert_eq!(memory.chunk_size_for(Some(estimate), 10_000, false), chunk * MIB, "{estimate}");
        }
        assert_eq!((memory.jobs_for(8 * MIB), memory.jobs(), memory.most_jobs()), (32, 16, 32));
        assert_eq!(memory.chunk_size_for(Some(10 << 30), 1000, false), 11 * MIB, "fewer parts");
        // of a backup that was stored with other chunks
        assert_eq!([5, 16, 64, 200, 5000].map(|chunk| memory.jobs_for(chunk * MIB)), [32, 16, 3, 1, 1]);
    }

    #[test]
    fn jobs_that_the_user_sets_are_those() {
        let memory = memory(None, Some(40), None);
        assert_eq!((memory.chunk_size_for(None, 10_000, false), memory.jobs_for(8 * MIB)), (8 * MIB, 40));
        assert_eq!(memory.jobs_for(1000 * MIB), 40);
    }

    #[test]
    fn chunks_and_jobs_follow_from_the_memory() {
        let of = |mib, estimate| {
            let memory = memory(Some(mib * MIB), None, None);
            let chunk = memory.chunk_size_for(estimate, 10_000, false);
            (chunk / MIB, memory.jobs_for(chunk))
        };
        assert_eq!(of(26, None), (5, 1));
        assert_eq!(of(64, None), (5, 8));
        assert_eq!(of(288, None), (8, 33));
        assert_eq!(of(1024, None), (8, 64));
        // 10,000 parts of 16 MiB are 156 GiB
        assert_eq!(of(1024, Some(148 << 30)), (16, 62));
        assert_eq!(of(1024, Some(TIB / 4)), (28, 35));
        assert_eq!(of(1024, Some(100 * TIB)), (59, 16));
        assert_eq!(of(8192, Some(TIB)), (111, 64));
        let with_jobs = memory(Some(64 * MIB), Some(3), None);
        assert_eq!(
            (with_jobs.chunk_size_for(Some(TIB), 10_000, false), with_jobs.jobs_for(12 * MIB)),
            (12 * MIB, 3)
        );
        assert_eq!(with_jobs.jobs_for(20 * MIB), 1);
    }

    #[test]
    fn the_limit_holds() {
        for mib in 26..2000 {
            for jobs in [None, Some(1), Some(3), Some(16)] {
                let Ok(memory) = Memory::new(Some(mib * MIB), jobs, None) else { continue };
                for estimate in [None, Some(1), Some(TIB / 4), Some(20 * TIB)] {
                    let chunk = memory.chunk_size_for(estimate, 10_000, false);
                    assert!(
                        needed(memory.jobs_for(chunk), chunk) <= mib * MIB,
                        "{mib} {jobs:?} {estimate:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_limit_that_is_too_low_is_an_error() {
        let error = |limit, jobs, chunk| Memory::new(Some(limit * MIB), jobs, chunk).unwrap_err();
        assert_eq!(error(25, None, None), "25.0M is too little: 1 job with chunks of 5.00M would take 26.0M");
        assert!(error(64, Some(20), None).contains("20 jobs with chunks of 5.00M would take 121M"));
        assert!(error(288, Some(16), Some(17 * MIB)).ends_with("would take 305M"));
        assert!(Memory::new(Some(288 * MIB), Some(16), Some(16 * MIB)).is_ok());
    }
}
