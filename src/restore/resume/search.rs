//! Finds a record in a stream by reading few of its chunks. Pure.
//!
//! The records of a stream are in order (see [`StreamPosition`]), so a search goes back from where it must be
//! in strides that double, and then halves what is left. A record is recognised by the snapshot's guid, which
//! nothing in a snapshot can contain (it was drawn when the snapshot was made), and by its checksum, from
//! which that of the next record must follow.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::error::Result;
use crate::stream::fletcher::{Span, Sums};
use crate::stream::record::{CHECKSUM, Facts, Order, RECORD, Record, RecordKind, StreamPosition};

/// Records begin at multiples of this.
const ALIGNMENT: u64 = 4;

/// A whole stream, read chunk by chunk. The chunks that were used last are kept.
pub struct StreamChunks<F> {
    read: F,
    chunk_size: u64,
    /// Bytes.
    pub size: u64,
    /// The one that was used last is the first.
    kept: VecDeque<(u64, Rc<Vec<u8>>)>,
    max_kept: usize,
}

impl<F: FnMut(u64) -> Result<Vec<u8>>> StreamChunks<F> {
    /// For a stream of `size` bytes. At most `max_kept` chunks are in memory, but at least two.
    pub fn new(read: F, chunk_size: u64, size: u64, max_kept: usize) -> Self {
        StreamChunks { read, chunk_size, size, kept: VecDeque::new(), max_kept: max_kept.max(2) }
    }

    fn chunk(&mut self, index: u64) -> Result<Rc<Vec<u8>>> {
        let kept = self.kept.iter().position(|(kept, _)| *kept == index);
        let chunk = match kept.and_then(|at| self.kept.remove(at)) {
            Some((_, chunk)) => chunk,
            None => {
                // before the next takes memory
                self.kept.truncate(self.max_kept - 1);
                Rc::new((self.read)(index)?)
            }
        };
        self.kept.push_front((index, Rc::clone(&chunk)));
        Ok(chunk)
    }

    /// Passes some bytes of the stream to `take`, slice by slice; fewer at its end.
    fn each_slice(&mut self, position: u64, length: usize, mut take: impl FnMut(&[u8])) -> Result<()> {
        let end = position.saturating_add(length as u64).min(self.size);
        let mut at = position;
        while at < end {
            let chunk = self.chunk(at / self.chunk_size)?;
            let rest = chunk.get((at % self.chunk_size) as usize..).unwrap_or_default();
            let slice = &rest[..rest.len().min((end - at) as usize)];
            if slice.is_empty() {
                break;
            }
            take(slice);
            at += slice.len() as u64;
        }
        Ok(())
    }

    pub fn bytes(&mut self, position: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length);
        self.each_slice(position, length, |slice| bytes.extend_from_slice(slice))?;
        Ok(bytes)
    }

    /// The record at this position, and what it says.
    fn record(&mut self, position: u64) -> Result<Option<([u8; RECORD], Facts)>> {
        let bytes = self.bytes(position, RECORD)?;
        let bytes: Option<[u8; RECORD]> = bytes.first_chunk().copied();
        Ok(bytes.and_then(|bytes| Some((bytes, Record { bytes: &bytes, swapped: false }.facts()?))))
    }

    /// Is there a record here? Then the checksum of the next one follows from its own.
    fn is_record(&mut self, position: u64, toguid: u64) -> Result<bool> {
        let Some((bytes, facts)) = self.record(position)? else { return Ok(false) };
        let next = position + (RECORD + facts.payload) as u64;
        if facts.toguid != toguid || facts.kind == RecordKind::End {
            return Ok(facts.toguid == toguid && next == self.size);
        }
        let Some((after, _)) = self.record(next)? else { return Ok(false) };
        let mut between = Span::of(&bytes[CHECKSUM..]);
        self.each_slice(position + RECORD as u64, facts.payload, |slice| between.push(slice))?;
        between.push(&after[..CHECKSUM]);
        let sums = |bytes: &[u8; RECORD]| -> Sums { Record { bytes, swapped: false }.sums(CHECKSUM) };
        Ok(sums(&bytes).then(&between) == sums(&after))
    }

    /// The end of the records that describe an object without its data: the object itself, the range beyond
    /// its end (FREE), and its spill block.
    pub fn end_of_object(&mut self, position: u64, object: u64) -> Result<u64> {
        let mut end = position;
        for kind in [RecordKind::Object, RecordKind::Free, RecordKind::Spill] {
            let Some((bytes, facts)) = self.record(end)? else { break };
            let record = Record { bytes: &bytes, swapped: false };
            let is_beyond = kind != RecordKind::Free || record.u64(24) == u64::MAX;
            if facts.kind == kind && record.u64(8) == object && is_beyond {
                end += (RECORD + facts.payload) as u64;
            }
        }
        Ok(end)
    }

    /// The position of the record of this place, which is at most `before`.
    pub fn find(&mut self, toguid: u64, place: StreamPosition, before: u64) -> Result<Option<u64>> {
        for order in [Order::ByObject, Order::ByBlock] {
            if let Some(found) = self.find_by(order, toguid, place, before / self.chunk_size)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn find_by(
        &mut self,
        order: Order,
        toguid: u64,
        place: StreamPosition,
        last: u64,
    ) -> Result<Option<u64>> {
        let (mut low, mut high, mut stride) = (last, last + 1, 1);
        while low > 0 && !self.begins_before(order, toguid, place, low)? {
            high = low;
            low = low.saturating_sub(stride);
            stride *= 2;
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.begins_before(order, toguid, place, middle)? {
                low = middle;
            } else {
                high = middle;
            }
        }
        // a chunk in which no record begins says nothing by itself
        loop {
            let found = self.position_in(toguid, place, low)?;
            if found.is_some() || low == 0 || self.first_in(toguid, low)?.is_some() {
                return Ok(found);
            }
            low -= 1;
        }
    }

    /// Is the first place in this chunk (or in the nearest chunk before it that has one) at or before this
    /// place?
    fn begins_before(
        &mut self,
        order: Order,
        toguid: u64,
        place: StreamPosition,
        mut index: u64,
    ) -> Result<bool> {
        loop {
            match self.first_in(toguid, index)? {
                Some(first) => return Ok(first.order(order) <= place.order(order)),
                None if index == 0 => return Ok(true),
                None => index -= 1,
            }
        }
    }

    /// The first place whose record, without its payload, lies in this chunk.
    fn first_in(&mut self, toguid: u64, index: u64) -> Result<Option<StreamPosition>> {
        Ok(self.next_in(toguid, index, |_| true)?.map(|(_, place)| place))
    }

    /// The first record in this chunk whose place is wanted: its position, and the place.
    fn next_in(
        &mut self,
        toguid: u64,
        index: u64,
        wanted: impl Fn(StreamPosition) -> bool,
    ) -> Result<Option<(u64, StreamPosition)>> {
        let start = index * self.chunk_size;
        let mut from = 0;
        loop {
            // released before other chunks are read, to bound memory
            let chunk = self.chunk(index)?;
            let Some((at, place)) = next_record(&chunk, start, from, toguid) else { return Ok(None) };
            drop(chunk);
            let position = start + at as u64;
            match place.filter(|place| wanted(*place)) {
                Some(place) if self.is_record(position, toguid)? => return Ok(Some((position, place))),
                _ => from = at + ALIGNMENT as usize,
            }
        }
    }

    /// The position of this place's record, if it begins in this chunk.
    fn position_in(&mut self, toguid: u64, place: StreamPosition, index: u64) -> Result<Option<u64>> {
        if let Some(found) = self.whole_in(toguid, place, index)? {
            return Ok(Some(found));
        }
        // it may end in the next chunk
        let length = self.chunk(index)?.len();
        let seam = index * self.chunk_size + (length + 1).saturating_sub(RECORD) as u64;
        let around = self.bytes(seam, 2 * (RECORD - 1))?;
        let mut from = 0;
        while let Some((at, found)) = next_record(&around, seam, from, toguid) {
            if found == Some(place) && self.is_record(seam + at as u64, toguid)? {
                return Ok(Some(seam + at as u64));
            }
            from = at + ALIGNMENT as usize;
        }
        Ok(None)
    }

    /// The same, if it also ends there, not counting its payload.
    pub fn whole_in(&mut self, toguid: u64, place: StreamPosition, index: u64) -> Result<Option<u64>> {
        Ok(self.next_in(toguid, index, |found| found == place)?.map(|(position, _)| position))
    }
}

/// The next position at or after `from` that looks like a record of this snapshot. `bytes` begin at `start`
/// of the stream.
fn next_record(
    bytes: &[u8],
    start: u64,
    from: usize,
    toguid: u64,
) -> Option<(usize, Option<StreamPosition>)> {
    let aligned = (start + from as u64).next_multiple_of(ALIGNMENT) - start;
    (aligned as usize..bytes.len()).step_by(ALIGNMENT as usize).find_map(|at| {
        // the type rules out most positions
        if !matches!(bytes[at..], [1..=10, 0, 0, 0, ..]) {
            return None;
        }
        let record = Record { bytes: bytes[at..].first_chunk()?, swapped: false };
        let facts = record.facts().filter(|facts| facts.toguid == toguid)?;
        Some((at, facts.place))
    })
}
