//! How a stream is divided: into chunks of one size, each of which is one part, and the parts into segments.
//! Pure.
//!
//! S3's limits: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>. A part has 5 MiB to 5
//! GiB (only the last may be smaller), an upload at most 10,000 parts. Until 2025 an object had at most 5
//! TiB, and on many servers it still has, so a segment is never longer.

use serde::{Deserialize, Serialize};

use crate::model::units::human_size;

pub const MIN_CHUNK: u64 = 5 << 20;
pub const MAX_CHUNK: u64 = 5 << 30;
pub const MAX_PARTS: u64 = 10_000;
const MAX_OBJECT: u64 = 5 << 40;

/// How one stream is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chunking {
    /// Bytes.
    pub chunk_size: u64,
    pub parts_per_segment: u16,
}

/// The position of a chunk: segment and part, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartPosition {
    pub segment: u32,
    pub part: u16,
}

impl Chunking {
    pub fn check_size(chunk_size: u64) -> Result<(), String> {
        if !(MIN_CHUNK..=MAX_CHUNK).contains(&chunk_size) {
            let (min, max) = (human_size(MIN_CHUNK), human_size(MAX_CHUNK));
            return Err(format!(
                "a chunk of {chunk_size} bytes is outside S3's limits for a part, {min} to {max}"
            ));
        }
        Ok(())
    }
    /// Can it be one that was recorded?
    pub fn check(&self) -> Result<(), String> {
        let is_possible = (1..=MAX_CHUNK).contains(&self.chunk_size)
            && (1..=MAX_PARTS).contains(&u64::from(self.parts_per_segment));
        if is_possible { Ok(()) } else { Err(format!("a stream cannot be divided like this: {self:?}")) }
    }
    /// With as many parts a segment as S3 allows, or `parts`.
    pub fn of(chunk_size: u64, parts: Option<u16>) -> Self {
        let most = MAX_PARTS.min(MAX_OBJECT / chunk_size.max(1)).max(1) as u16;
        Chunking { chunk_size, parts_per_segment: parts.map_or(most, |parts| parts.min(most)) }
    }
    /// The position of the chunk with this index, from 0.
    pub fn position(&self, index: u64) -> PartPosition {
        let parts = u64::from(self.parts_per_segment);
        // a segment has at least 25 GiB: the number is large enough for a hundred million TiB
        PartPosition { segment: (index / parts) as u32 + 1, part: (index % parts) as u16 + 1 }
    }
    /// The inverse: the index of the chunk that is this part.
    pub fn index(&self, position: PartPosition) -> u64 {
        self.first_of(position.segment) + u64::from(position.part).saturating_sub(1)
    }
    /// The index of the first chunk of a segment.
    pub fn first_of(&self, segment: u32) -> u64 {
        u64::from(segment).saturating_sub(1) * u64::from(self.parts_per_segment)
    }
    pub fn chunks_of(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.chunk_size)
    }
}

/// How many bytes the chunk with this index, from 0, has in a stream of so many bytes.
pub fn length_of_chunk(index: u64, chunk_size: u64, stream: u64) -> u64 {
    stream.saturating_sub(index.saturating_mul(chunk_size)).min(chunk_size)
}

/// How large a filter may make a chunk. Encryption adds a header and some bytes a block; text, such as
/// `--armor`, would add a third.
pub fn max_filtered(chunk: u64) -> u64 {
    chunk.saturating_add(chunk / 8).saturating_add(64 << 10)
}

/// How many bytes of filtered chunks a part must have if others follow in its segment.
pub fn least_of_a_part(chunk_size: u64) -> u64 {
    MIN_CHUNK.min(chunk_size)
}

/// With so many it is sent: in a resumed upload the same chunks must fill the same parts, even if the filter
/// makes them somewhat smaller by then.
pub fn enough_for_a_part(chunk_size: u64) -> u64 {
    least_of_a_part(chunk_size) / 5 * 6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_at_the_edges_of_a_segment() {
        let chunking = Chunking::of(16 << 20, None);
        for (index, segment, part) in [(0, 1, 1), (9_999, 1, 10_000), (10_000, 2, 1), (20_000, 3, 1)] {
            assert_eq!(chunking.position(index), PartPosition { segment, part });
        }
    }

    #[test]
    fn sizes_within_s3s_limits() {
        assert!(Chunking::check_size(MIN_CHUNK - 1).is_err() && Chunking::check_size(MIN_CHUNK).is_ok());
        assert!(Chunking::check_size(MAX_CHUNK + 1).is_err() && Chunking::check_size(MAX_CHUNK).is_ok());
        assert_eq!(Chunking::of(MIN_CHUNK, None).parts_per_segment, 10_000);
        assert_eq!(Chunking::of(MAX_CHUNK, None).parts_per_segment, 1024, "5 TiB an object");
    }

    #[test]
    fn chunks_of_a_stream() {
        let chunking = Chunking { chunk_size: 10, parts_per_segment: 3 };
        for (bytes, chunks) in [(1, 1), (9, 1), (10, 1), (11, 2), (30, 3), (31, 4)] {
            assert_eq!(chunking.chunks_of(bytes), chunks);
            let lengths = (0..chunks).map(|index| length_of_chunk(index, 10, bytes));
            assert!(lengths.clone().all(|length| (1..=10).contains(&length)));
            assert_eq!((lengths.sum::<u64>(), length_of_chunk(chunks, 10, bytes)), (bytes, 0));
        }
    }
}
