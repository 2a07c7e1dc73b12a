//! Puts filtered chunks together into parts. A part is one or more whole chunks in a row, and has at least as
//! many bytes as S3 asks for, unless it is the last of its segment. Which chunks a segment has follows from
//! their number, as without a filter, so no more than its number of parts is ever needed. Pure.

use std::collections::BTreeMap;

use crate::model::chunks::{Chunking, enough_for_a_part, least_of_a_part, max_filtered};
use crate::state::journal::record::FilteredChunk;

/// A part that S3 has from an earlier run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StoredPart {
    /// The indexes of its chunks.
    pub first: u64,
    pub end: u64,
    pub segment: u32,
    pub number: u16,
}

/// A part that is to be sent.
#[derive(Debug, PartialEq)]
pub struct Part {
    pub segment: u32,
    pub number: u16,
    /// The index of its first chunk.
    pub first: u64,
    pub chunks: Vec<FilteredChunk>,
    pub bytes: Vec<u8>,
}

pub struct Packer {
    chunking: Chunking,
    stored: BTreeMap<u64, StoredPart>,
    /// The index of the chunk that comes next.
    next: u64,
    /// The number of the last part of this segment.
    number: u16,
    open: Option<Part>,
}

impl Packer {
    /// `stored`: what need not be sent again.
    pub fn new(chunking: Chunking, stored: impl IntoIterator<Item = StoredPart>) -> Self {
        let stored = stored.into_iter().map(|part| (part.first, part)).collect();
        let mut packer = Packer { chunking, stored, next: 0, number: 0, open: None };
        packer.skip_stored();
        packer
    }

    /// The index of the chunk that must be added next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Adds the next chunk. Returns the part that it completes, if it does, and the buffer if it is free again.
    pub fn add(
        &mut self,
        index: u64,
        chunk: FilteredChunk,
        bytes: Vec<u8>,
    ) -> Result<(Option<Part>, Option<Vec<u8>>), String> {
        if index != self.next {
            return Err(format!("chunk {index} is in another part"));
        }
        let segment = self.chunking.position(self.next).segment;
        let (part, free) = match self.open.take() {
            Some(mut part) => {
                part.bytes.extend_from_slice(&bytes);
                part.chunks.push(chunk);
                (part, Some(bytes))
            }
            None => {
                self.number += 1;
                (Part { segment, number: self.number, first: self.next, chunks: vec![chunk], bytes }, None)
            }
        };
        self.next += 1;
        if self.ends(&part)? {
            self.skip_stored();
            return Ok((Some(part), free));
        }
        self.open = Some(part);
        Ok((None, free))
    }

    /// What is left at the end of the stream.
    pub fn finish(&mut self) -> Option<Part> {
        self.open.take()
    }

    /// Is this part, which has all chunks before the next one, to be sent?
    fn ends(&self, part: &Part) -> Result<bool, String> {
        let size = part.bytes.len() as u64;
        let (least, enough) =
            (least_of_a_part(self.chunking.chunk_size), enough_for_a_part(self.chunking.chunk_size));
        let following = self.stored.range(self.next..).next().map(|(_, following)| following);
        let Some(following) = following.filter(|following| following.segment == part.segment) else {
            let ends_segment = self.chunking.position(self.next).segment != part.segment;
            return Ok(ends_segment || size >= enough);
        };
        // the chunks and the numbers that are left before a part that has its number already: no number may be
        // left unused
        let numbers = following.number.checked_sub(part.number + 1).map(u64::from);
        // as before, or somewhat more
        let most = 2 * enough + max_filtered(self.chunking.chunk_size);
        match (following.first - self.next, numbers) {
            (0, Some(0)) if size >= least => Ok(true),
            (1.., Some(0)) if size <= most => Ok(false),
            (chunks @ 1.., Some(numbers @ 1..)) => Ok(size >= enough || (chunks == numbers && size >= least)),
            _ => Err(format!(
                "part {} of segment {} has {size} bytes: the filter gives other sizes than before",
                part.number, part.segment
            )),
        }
    }

    fn skip_stored(&mut self) {
        loop {
            if self.next == self.chunking.first_of(self.chunking.position(self.next).segment) {
                self.number = 0;
            }
            let Some(part) = self.stored.get(&self.next) else { return };
            (self.next, self.number) = (part.end, part.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::digest::Sha256;
    use crate::os::random;

    const CHUNKING: Chunking = Chunking { chunk_size: 100, parts_per_segment: 7 };

    fn below(count: u64) -> u64 {
        (random::fraction() * count as f64) as u64
    }

    /// The parts of a stream whose chunks have these sizes. Each has its index in its bytes.
    fn packed(sizes: &[u64], stored: &[StoredPart]) -> Result<Vec<Part>, String> {
        let mut packer = Packer::new(CHUNKING, stored.iter().copied());
        let mut parts = Vec::new();
        while packer.next() < sizes.len() as u64 {
            let index = packer.next();
            let size = sizes[index as usize];
            let sum = Sha256::of(&index.to_le_bytes());
            let chunk = FilteredChunk { size, sha256: sum, plain_sha256: sum };
            parts.extend(packer.add(index, chunk, vec![index as u8; size as usize])?.0);
        }
        parts.extend(packer.finish());
        Ok(parts)
    }

    fn stored_of(part: &Part) -> StoredPart {
        let Part { segment, number, first, chunks, .. } = part;
        StoredPart { first: *first, end: first + chunks.len() as u64, segment: *segment, number: *number }
    }

    /// What S3 asks for, and what a manifest says.
    fn check(parts: &[Part], sizes: &[u64]) {
        let mut next = 0;
        for (n, part) in parts.iter().enumerate() {
            assert_eq!(part.first, next, "in a row");
            let end = next + part.chunks.len() as u64;
            let expected: Vec<u8> =
                (next..end).flat_map(|index| vec![index as u8; sizes[index as usize] as usize]).collect();
            assert!(part.bytes == expected);
            assert!((next..end).all(|index| CHUNKING.position(index).segment == part.segment));
            let after = parts.get(n + 1).filter(|after| after.segment == part.segment);
            assert!(after.is_none() || part.bytes.len() >= 100, "large enough for S3");
            match n
                .checked_sub(1)
                .map(|before| &parts[before])
                .filter(|before| before.segment == part.segment)
            {
                Some(before) => assert_eq!(before.number + 1, part.number),
                None => assert_eq!(part.number, 1),
            }
            assert!(part.number <= CHUNKING.parts_per_segment);
            next = end;
        }
        assert_eq!(next, sizes.len() as u64);
    }

    #[test]
    fn chunks_that_stay_large_are_a_part_each_and_small_ones_share_one() {
        let numbers = |sizes: &[u64]| -> Vec<(u32, u16, usize)> {
            let parts = packed(sizes, &[]).unwrap();
            parts.iter().map(|part| (part.segment, part.number, part.chunks.len())).collect()
        };
        assert_eq!(numbers(&[120, 120, 7]), [(1, 1, 1), (1, 2, 1), (1, 3, 1)]);
        assert_eq!(numbers(&[60, 60, 60, 59, 1, 5]), [(1, 1, 2), (1, 2, 3), (1, 3, 1)]);
        assert_eq!(numbers(&[1; 15]), [(1, 1, 7), (2, 1, 7), (3, 1, 1)]);
    }

    #[test]
    fn after_an_interruption_the_same_parts_are_made_whatever_s3_has_of_them() {
        for _ in 0..2000 {
            let sizes: Vec<u64> =
                (0..1 + below(30)).map(|_| 1 + below([112, 30][below(2) as usize])).collect();
            let whole = packed(&sizes, &[]).unwrap();
            check(&whole, &sizes);
            let (there, missing): (Vec<&Part>, Vec<&Part>) = whole.iter().partition(|_| below(2) == 0);
            let stored: Vec<StoredPart> = there.into_iter().map(stored_of).collect();
            let sent = packed(&sizes, &stored).unwrap();
            assert_eq!(sent.iter().collect::<Vec<_>>(), missing, "{sizes:?} {stored:?}");
        }
    }

    #[test]
    fn a_filter_that_gives_much_more_than_before_does_not_fill_the_memory() {
        let chunking = Chunking { chunk_size: 1 << 20, parts_per_segment: 1000 };
        let stored = StoredPart { first: 500, end: 501, segment: 1, number: 2 };
        let mut packer = Packer::new(chunking, [stored]);
        let sum = Sha256::of(b"");
        let chunk = FilteredChunk { size: 1 << 20, sha256: sum, plain_sha256: sum };
        let added = (0..500).take_while(|index| packer.add(*index, chunk, vec![0; 1 << 20]).is_ok());
        assert!((2..6).contains(&added.count()));
    }

    #[test]
    fn a_filter_that_gives_other_sizes_fills_the_gaps_or_is_refused() {
        let mut refused = 0;
        for _ in 0..2000 {
            let sizes: Vec<u64> = (0..1 + below(30)).map(|_| 1 + below(112)).collect();
            let whole = packed(&sizes, &[]).unwrap();
            let (there, _): (Vec<Part>, Vec<Part>) = whole.into_iter().partition(|_| below(2) == 0);
            let stored: Vec<StoredPart> = there.iter().map(stored_of).collect();
            let mut other: Vec<u64> =
                sizes.iter().map(|size| (size * (90 + below(25)) / 100).max(1)).collect();
            for part in &stored {
                let own = part.first as usize..part.end as usize;
                other[own.clone()].copy_from_slice(&sizes[own]);
            }
            match packed(&other, &stored) {
                Ok(sent) => {
                    let mut all: Vec<Part> = sent.into_iter().chain(there).collect();
                    all.sort_by_key(|part| part.first);
                    check(&all, &other);
                }
                Err(_) => refused += 1,
            }
        }
        assert!(refused < 200, "{refused}");
    }
}
