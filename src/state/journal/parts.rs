//! The parts of one segment, as the records of the journal add them. Pure.

use std::collections::BTreeMap;

use super::record::PartStored;
use crate::model::chunks::Chunking;

/// No two have the same number, or a filtered chunk in common: the later one counts.
#[derive(Default)]
pub struct SegmentParts {
    by_number: BTreeMap<u16, PartStored>,
    /// The number of the filtered part that begins with this chunk. There may be thousands.
    by_chunk: BTreeMap<u64, u16>,
}

impl SegmentParts {
    /// Only this one.
    pub fn single(part: PartStored) -> Self {
        SegmentParts { by_number: BTreeMap::from([(part.part, part)]), by_chunk: BTreeMap::new() }
    }

    pub fn add(&mut self, part: PartStored) {
        self.remove(part.part);
        if let Some(filtered) = &part.filtered {
            let own = filtered.indexes();
            while let Some(before) = self.last_before(own.end)
                && before.filtered.as_ref().is_some_and(|before| own.start < before.indexes().end)
            {
                self.remove(before.part);
            }
            self.by_chunk.insert(own.start, part.part);
        }
        self.by_number.insert(part.part, part);
    }

    /// Those that stay in the first segment with fewer parts.
    pub fn retain_within(&mut self, chunking: &Chunking) {
        self.by_number.retain(|_, part| part.is_within(chunking));
        self.by_chunk.retain(|_, number| self.by_number.contains_key(number));
    }

    pub fn into_parts(self) -> BTreeMap<u16, PartStored> {
        self.by_number
    }

    /// The last filtered part that begins before this chunk.
    fn last_before(&self, chunk: u64) -> Option<&PartStored> {
        let (_, number) = self.by_chunk.range(..chunk).next_back()?;
        self.by_number.get(number)
    }

    fn remove(&mut self, number: u16) {
        let filtered = self.by_number.remove(&number).and_then(|part| part.filtered);
        filtered.and_then(|filtered| self.by_chunk.remove(&filtered.first));
    }
}
