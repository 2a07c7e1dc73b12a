//! Finds where an interrupted `zfs receive` goes on in the stored stream, with few chunks read. Pure.
//!
//! A token names an object and an offset, and how many bytes were read by then: as many as the wanted record's end at the least,
//! and more for each time that the receive was resumed before. The records of a stream are in order (see [`Place`]), so
//! the search goes back from there in strides that double, and then halves what is left. Records are recognised by the
//! snapshot's guid, which nothing in a snapshot can contain: it was drawn when the snapshot was made.

use std::collections::VecDeque;
use std::rc::Rc;

use super::partial::{Features, Partial};
use crate::error::{Error, Result};
use crate::stream::record::{Facts, Part, Place, RECORD, Record};
use crate::stream::resuming::{Resuming, begin_payload};
use crate::stream::{StreamError, check_begin};

/// Objects share a block of metadata, and in a raw stream its encryption parameters (DNODES_PER_BLOCK).
const OBJECTS_PER_RANGE: u64 = 32;
/// Records begin at multiples of this.
const ALIGNMENT: u64 = 4;

/// How to go on.
pub struct Start {
    pub resuming: Resuming,
    /// What comes first.
    pub head: Vec<u8>,
    /// Where in the whole stream that begins which follows, through `resuming`.
    pub position: u64,
}

/// A whole stream, read chunk by chunk. The last two are kept.
pub struct Chunks<F> {
    pub read: F,
    pub chunk_size: u64,
    /// Bytes.
    pub size: u64,
    kept: VecDeque<(u64, Rc<Vec<u8>>)>,
}

pub fn start<F: FnMut(u64) -> Result<Vec<u8>>>(chunks: &mut Chunks<F>, partial: &Partial) -> Result<Start> {
    let cannot = |why: &str| Error::refused(format!("cannot go on with the part of {}: {why}", partial.name));
    let wrong = |e: StreamError| cannot(&format!("of what is stored, {e}"));
    let begin = chunks.bytes(0, RECORD)?;
    check_begin(&begin, partial.link).map_err(wrong)?;
    let begin: &[u8; RECORD] = begin.first_chunk().ok_or_else(|| wrong(StreamError::NotAStream))?;
    let payload = chunks.bytes(RECORD as u64, begin_payload(begin).map_err(wrong)?)?;
    if Features::of(&Record { bytes: begin, swapped: false }) != partial.features {
        return Err(cannot("it was received from another kind of 'zfs send' than the stored one"));
    }
    let (mut resuming, mut head) =
        Resuming::new(begin, &payload, partial.object, partial.offset).map_err(wrong)?;
    // so much as a record was not received yet
    if partial.bytes == 0 {
        return Ok(Start { resuming, head, position: (RECORD + payload.len()) as u64 });
    }
    let read_by_then = partial.bytes.saturating_add(RECORD as u64).min(chunks.size.saturating_sub(1));
    let mut find = |place: Place, before: u64| {
        let found = chunks.find(partial.link.snapshot.number(), place, before / chunks.chunk_size)?;
        found.ok_or_else(|| cannot("the place where it was interrupted is not in what is stored"))
    };
    let at = |part| Place { object: partial.object, part };
    // an object without data at its beginning goes on with itself
    let data = match partial.offset {
        0 => None,
        offset => Some(find(at(Part::Data(offset)), read_by_then)?),
    };
    let object = find(at(Part::Object), data.unwrap_or(read_by_then))?;
    let mut before = vec![];
    if partial.features.raw {
        let first = partial.object / OBJECTS_PER_RANGE * OBJECTS_PER_RANGE;
        let range = find(Place { object: first, part: Part::Range }, object)?;
        before.push((range, range + RECORD as u64));
    }
    let position = match data {
        None => object,
        Some(data) => {
            before.push((object, chunks.end_of_object(object, partial)?));
            data
        }
    };
    for (from, to) in before {
        let records = chunks.bytes(from, (to - from) as usize)?;
        resuming.leave_out();
        resuming
            .push(&records, |bytes| {
                head.extend_from_slice(bytes);
                Ok::<(), StreamError>(())
            })
            .map_err(wrong)?;
    }
    resuming.leave_out();
    Ok(Start { resuming, head, position })
}

impl<F: FnMut(u64) -> Result<Vec<u8>>> Chunks<F> {
    pub fn new(read: F, chunk_size: u64, size: u64) -> Self {
        Chunks { read, chunk_size, size, kept: VecDeque::new() }
    }

    fn chunk(&mut self, index: u64) -> Result<Rc<Vec<u8>>> {
        if let Some((_, chunk)) = self.kept.iter().find(|(kept, _)| *kept == index) {
            return Ok(Rc::clone(chunk));
        }
        // before the next takes memory
        if self.kept.len() == 2 {
            self.kept.pop_front();
        }
        let chunk = Rc::new((self.read)(index)?);
        self.kept.push_back((index, Rc::clone(&chunk)));
        Ok(chunk)
    }

    /// Some bytes of the stream; fewer at its end.
    fn bytes(&mut self, position: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length && position + (bytes.len() as u64) < self.size {
            let at = position + bytes.len() as u64;
            let chunk = self.chunk(at / self.chunk_size)?;
            let rest = chunk.get((at % self.chunk_size) as usize..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            bytes.extend_from_slice(&rest[..rest.len().min(length - bytes.len())]);
        }
        Ok(bytes)
    }

    /// What the record at this position says.
    fn facts(&mut self, position: u64) -> Result<Option<(Vec<u8>, Facts)>> {
        let bytes = self.bytes(position, RECORD)?;
        let facts = bytes.first_chunk().and_then(|bytes| Record { bytes, swapped: false }.facts());
        Ok(facts.map(|facts| (bytes, facts)))
    }

    /// Where the records end that tell all about an object but its data.
    fn end_of_object(&mut self, object: u64, partial: &Partial) -> Result<u64> {
        let mut end = object;
        while let Some((bytes, facts)) = self.facts(end)? {
            let completes = bytes
                .first_chunk()
                .is_some_and(|bytes| facts.completes(&Record { bytes, swapped: false }, partial.object));
            if end != object && !completes {
                break;
            }
            end += (RECORD + facts.payload) as u64;
        }
        Ok(end)
    }

    /// The position of the record of this place. It is in the chunk `last` or before it.
    fn find(&mut self, toguid: u64, place: Place, last: u64) -> Result<Option<u64>> {
        let (mut low, mut high, mut stride) = (last, last + 1, 1);
        while low > 0 && !self.begins_before(toguid, place, low)? {
            high = low;
            low = low.saturating_sub(stride);
            stride *= 2;
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match self.begins_before(toguid, place, middle)? {
                true => low = middle,
                false => high = middle,
            }
        }
        // a chunk in which none begins says nothing of its own
        loop {
            let found = self.position_in(toguid, place, low)?;
            if found.is_some() || low == 0 || self.first_in(toguid, low)?.is_some() {
                return Ok(found);
            }
            low -= 1;
        }
    }

    /// Is the first place in this chunk, or in the nearest before it that has one, this one or before it?
    fn begins_before(&mut self, toguid: u64, place: Place, mut index: u64) -> Result<bool> {
        loop {
            match self.first_in(toguid, index)? {
                Some(first) => return Ok(first <= place),
                None if index == 0 => return Ok(true),
                None => index -= 1,
            }
        }
    }

    /// The first place of which the record lies in this chunk, whole.
    fn first_in(&mut self, toguid: u64, index: u64) -> Result<Option<Place>> {
        let chunk = self.chunk(index)?;
        Ok(records(&chunk, index * self.chunk_size, toguid).next().map(|(_, place)| place))
    }

    /// The position of this place's record, if it begins in this chunk.
    fn position_in(&mut self, toguid: u64, place: Place, index: u64) -> Result<Option<u64>> {
        let chunk = self.chunk(index)?;
        let start = index * self.chunk_size;
        let position = |bytes: &[u8], start| {
            records(bytes, start, toguid).find(|(_, found)| *found == place).map(|(position, _)| position)
        };
        if let Some(found) = position(&chunk, start) {
            return Ok(Some(found));
        }
        let seam = start + (chunk.len() + 1).saturating_sub(RECORD) as u64;
        let around = self.bytes(seam, 2 * (RECORD - 1))?;
        Ok(position(&around, seam))
    }
}

/// The records with a place that lie in `bytes` whole, which begin at `start` of the stream.
fn records(bytes: &[u8], start: u64, toguid: u64) -> impl Iterator<Item = (u64, Place)> {
    let aligned = (start.next_multiple_of(ALIGNMENT) - start) as usize;
    (aligned..bytes.len()).step_by(ALIGNMENT as usize).filter_map(move |at| {
        // most are told by their type
        if !matches!(bytes[at..], [1..=10, 0, 0, 0, ..]) {
            return None;
        }
        let record = Record { bytes: bytes[at..].first_chunk()?, swapped: false };
        let facts = record.facts().filter(|facts| facts.toguid == toguid)?;
        Some((start + at as u64, facts.place?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::Link;
    use crate::names::Guid;
    use crate::stream::fletcher::{Span, Sums};
    use crate::stream::record::{CHECKSUM, Kind};

    const STREAMS: [(&[u8], u64, Option<u64>); 5] = [
        (include_bytes!("../../tests/streams/full.zfs"), 13707626622376489106, None),
        (include_bytes!("../../tests/streams/incr.zfs"), 15839073234525558964, Some(13707626622376489106)),
        (include_bytes!("../../tests/streams/full-raw-unencrypted.zfs"), 13707626622376489106, None),
        (include_bytes!("../../tests/streams/raw-encrypted-full.zfs"), 16815271177297348258, None),
        (
            include_bytes!("../../tests/streams/raw-encrypted-incr.zfs"),
            1682075445999525057,
            Some(16815271177297348258),
        ),
    ];

    /// A stream as a row of records with their payloads; the first is BEGIN. Each checksum is right.
    fn walk(stream: &[u8]) -> Vec<(usize, Option<Facts>, &[u8])> {
        let begin = stream.first_chunk().unwrap();
        let mut at = RECORD + begin_payload(begin).unwrap();
        let mut found = vec![(0, None, &stream[..at])];
        let mut sums = Sums::default().then(&Span::of(&stream[..at]));
        while at < stream.len() {
            let record = Record { bytes: stream[at..].first_chunk().unwrap(), swapped: false };
            let facts = record.facts().unwrap();
            if facts.kind == Kind::End {
                assert_eq!(record.sums(8), sums, "END");
            }
            sums = sums.then(&Span::of(&record.bytes[..CHECKSUM]));
            assert_eq!(record.sums(CHECKSUM), sums, "record at {at}");
            let end = at + RECORD + facts.payload;
            sums = sums.then(&Span::of(&stream[at + CHECKSUM..end]));
            found.push((at, Some(facts), &stream[at..end]));
            at = end;
        }
        found
    }

    /// Type, body and payload: all but the checksums.
    fn content<'a>(
        (_, facts, bytes): &(usize, Option<Facts>, &'a [u8]),
    ) -> (Option<Facts>, &'a [u8], &'a [u8]) {
        let end = facts.is_some_and(|facts| facts.kind == Kind::End);
        (*facts, if end { &bytes[40..48] } else { &bytes[..CHECKSUM] }, &bytes[RECORD..])
    }

    /// The stream that goes on.
    fn resumed(whole: &[u8], chunk_size: usize, partial: &Partial) -> Result<Vec<u8>> {
        let fetch = |index: u64| Ok(whole.chunks(chunk_size).nth(index as usize).unwrap().to_vec());
        let mut chunks = Chunks::new(fetch, chunk_size as u64, whole.len() as u64);
        let Start { mut resuming, mut head, position } = start(&mut chunks, partial)?;
        for piece in whole[position as usize..].chunks(1000) {
            resuming
                .push(piece, |bytes| {
                    head.extend_from_slice(bytes);
                    Ok::<(), StreamError>(())
                })
                .unwrap();
        }
        resuming.check_ended().unwrap();
        Ok(head)
    }

    fn partial(stream: (&[u8], u64, Option<u64>), object: u64, offset: u64, bytes: usize) -> Partial {
        let begin = Record { bytes: stream.0.first_chunk().unwrap(), swapped: false };
        Partial {
            link: Link { snapshot: Guid::new(stream.1).unwrap(), base: stream.2.and_then(Guid::new) },
            name: "tank/a@1".to_string(),
            object,
            offset,
            bytes: bytes as u64,
            features: Features::of(&begin),
        }
    }

    /// What `zfs send -t` would send, by walking through all records of the stream: the encryption parameters, the
    /// object, and all from its data on; compared with what was found in chunks of many sizes, and by tokens that
    /// count some more bytes than they need.
    #[test]
    fn from_every_write_record_of_real_streams() {
        for stream in STREAMS {
            let records = walk(stream.0);
            let writes = (0..records.len()).filter_map(|n| match records[n].1?.place? {
                Place { object, part: Part::Data(offset) } => Some((n, object, offset)),
                _ => None,
            });
            for (write, object, offset) in writes {
                let first_with =
                    |place| records.iter().position(|r| r.1.and_then(|f| f.place) == Some(place)).unwrap();
                let mut expected = vec![];
                if partial(stream, 0, 0, 0).features.raw {
                    expected.push(first_with(Place { object: object / 32 * 32, part: Part::Range }));
                }
                let itself = first_with(Place { object, part: Part::Object });
                // the object, and the FREE of what lies behind it
                expected.extend([itself, itself + 1]);
                expected.extend(if offset == 0 { itself + 2 } else { write }..records.len());
                let (at, _, bytes) = records[write];
                for (chunk_size, more) in
                    [(313, 0), (1001, 5000), (4096, 312), (65536, 100_000), (2_000_000, 0)]
                {
                    let counted = (at + bytes.len() - RECORD + more).min(stream.0.len() + 1000);
                    let partial = partial(stream, object, offset, counted);
                    let found = resumed(stream.0, chunk_size, &partial).unwrap();
                    let found = walk(&found);
                    let found: Vec<_> = found.iter().skip(1).map(content).collect();
                    let expected: Vec<_> = expected.iter().map(|n| content(&records[*n])).collect();
                    assert!(found == expected, "object {object} offset {offset} chunks of {chunk_size}");
                }
            }
        }
    }

    /// 3,000 objects; each has 8 WRITE records of 512 bytes, but the one in the middle has 30,000.
    fn long_stream(toguid: u64) -> Vec<u8> {
        let mut stream = vec![0; RECORD];
        stream[8..16].copy_from_slice(&crate::stream::MAGIC.to_le_bytes());
        stream[16] = 1;
        stream[40..48].copy_from_slice(&toguid.to_le_bytes());
        let mut sums = Sums::default().then(&Span::of(&stream));
        let mut add = |kind: u8, numbers: &[(usize, u64)], payload: usize| {
            let mut record = [0; RECORD];
            record[0] = kind;
            numbers.iter().for_each(|(at, n)| record[*at..at + 8].copy_from_slice(&n.to_le_bytes()));
            sums = sums.then(&Span::of(&record[..CHECKSUM]));
            record[CHECKSUM..].copy_from_slice(&sums.bytes());
            stream.extend_from_slice(&record);
            stream.resize(stream.len() + payload, 7);
            sums = sums.then(&Span::of(&stream[stream.len() - payload - (RECORD - CHECKSUM)..]));
        };
        for object in 1..=3000 {
            add(1, &[(8, object), (40, toguid)], 0);
            add(4, &[(8, object), (16, 1 << 30), (24, u64::MAX), (32, toguid)], 0);
            for block in 0..if object == 1500 { 30_000 } else { 8 } {
                add(3, &[(8, object), (24, block * 512), (32, 512), (40, toguid)], 512);
            }
        }
        stream
    }

    #[test]
    fn a_long_stream_is_not_read_to_find_a_place_in_it() {
        let stream = (&long_stream(5)[..], 5, None);
        assert_eq!(stream.0.len().div_ceil(16384), 2830);
        for (object, offset, most) in [
            (1500, 29_999 * 512, 24),
            (1500, 15_000 * 512, 24),
            (1500, 512, 4),
            (3000, 7 * 512, 4),
            (1, 512, 4),
            (1, 0, 4),
        ] {
            let place = match offset {
                0 => Place { object, part: Part::Object },
                offset => Place { object, part: Part::Data(offset) },
            };
            let (at, _) = records(stream.0, 0, 5).find(|(_, found)| *found == place).unwrap();
            let mut read = 0;
            let fetch = |index: u64| {
                read += 1;
                Ok(stream.0.chunks(16384).nth(index as usize).unwrap().to_vec())
            };
            let mut chunks = Chunks::new(fetch, 16384, stream.0.len() as u64);
            let found = start(&mut chunks, &partial(stream, object, offset, at as usize + 512)).unwrap();
            assert_eq!(found.position, at);
            assert!(read <= most, "{read} chunks read for object {object} offset {offset}");
        }
    }

    #[test]
    fn where_nothing_was_received_yet_all_follows_on_begin() {
        for stream in STREAMS {
            let found = resumed(stream.0, 4096, &partial(stream, 1, 0, 0)).unwrap();
            let (found, whole) = (walk(&found), walk(stream.0));
            assert!(found.iter().skip(1).map(content).eq(whole.iter().skip(1).map(content)));
        }
    }

    #[test]
    fn what_is_not_in_the_stored_stream_is_refused() {
        let stream = STREAMS[0];
        let why = |partial| resumed(stream.0, 4096, &partial).unwrap_err().message;
        let good = partial(stream, 22, 0x20000, 297_808);
        assert!(resumed(stream.0, 4096, &good).is_ok());
        for (object, offset) in [(22, 0x20001), (1000, 0), (23, 0), (u64::MAX, u64::MAX), (0, 0)] {
            let said = why(Partial { object, offset, ..good.clone() });
            assert!(said.contains("the place where it was interrupted is not in what is stored"), "{said}");
        }
        let said = why(Partial { bytes: 50_000, ..good.clone() });
        assert!(said.contains("the place where it was interrupted"), "{said}");
        let said = why(Partial { features: Features { compressed: true, ..good.features }, ..good.clone() });
        assert!(said.contains("another kind of 'zfs send'"), "{said}");
        let link = Link { base: Guid::new(5), ..good.link };
        assert!(why(Partial { link, ..good.clone() }).contains("fromguid"));
    }
}
