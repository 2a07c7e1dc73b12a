//! Finds where an interrupted `zfs receive` continues in the stored stream. Pure.
//!
//! A token names an object and an offset, and how many bytes were read by then: at least as many as lie
//! before the end of the wanted record, and more for each time that the receive was resumed before.

use super::partial::{Features, PartialReceive};
use super::search::StreamChunks;
use crate::error::{Error, Result};
use crate::stream::record::{OBJECTS_PER_RANGE, ObjectPart, RECORD, Record, StreamPosition};
use crate::stream::rewriting::{Rewriting, begin_payload};
use crate::stream::{StreamError, check_begin};

/// How the receive is resumed.
pub struct ResumePoint {
    pub rewriting: Rewriting,
    /// The bytes that come first.
    pub head: Vec<u8>,
    /// The position in the whole stream of the bytes that follow, through `rewriting`.
    pub position: u64,
}

pub fn find_resume_point<F: FnMut(u64) -> Result<Vec<u8>>>(
    chunks: &mut StreamChunks<F>,
    partial: &PartialReceive,
) -> Result<ResumePoint> {
    let cannot = |why: &str| Error::refused(format!("cannot resume the receive of {}: {why}", partial.name));
    let wrong = |e: StreamError| match e {
        StreamError::BigEndian | StreamError::UnknownRecord => cannot(&format!("the stored stream: {e}")),
        e => Error::failed(format!("the stored stream of {}: {e}", partial.name)),
    };
    let begin = chunks.bytes(0, RECORD)?;
    check_begin(&begin, partial.link).map_err(wrong)?;
    let begin: &[u8; RECORD] = begin.first_chunk().ok_or_else(|| wrong(StreamError::NotAStream))?;
    let payload = chunks.bytes(RECORD as u64, begin_payload(begin).map_err(wrong)?)?;
    if Features::of(&Record { bytes: begin, swapped: false }) != partial.features {
        return Err(cannot("it was received from another kind of 'zfs send' than the stored one"));
    }
    let (mut rewriting, mut head) =
        Rewriting::resumed_at(begin, &payload, partial.object, partial.offset).map_err(wrong)?;
    // not even one record was received
    if partial.bytes == 0 {
        return Ok(ResumePoint { rewriting, head, position: (RECORD + payload.len()) as u64 });
    }
    let (before, position) = find_position(chunks, partial)?
        .ok_or_else(|| cannot("the stored stream does not contain the point where it was interrupted"))?;
    for (from, to) in before {
        let records = chunks.bytes(from, (to - from) as usize)?;
        rewriting.skip();
        let mut keep = |bytes: &[u8]| {
            head.extend_from_slice(bytes);
            Ok::<(), StreamError>(())
        };
        rewriting.push(&records, &mut keep).map_err(wrong)?;
    }
    rewriting.skip();
    Ok(ResumePoint { rewriting, head, position })
}

/// Which ranges are sent again although they were received (from and to), and where the missing bytes begin.
type Position = (Vec<(u64, u64)>, u64);

fn find_position<F: FnMut(u64) -> Result<Vec<u8>>>(
    chunks: &mut StreamChunks<F>,
    partial: &PartialReceive,
) -> Result<Option<Position>> {
    let toguid = partial.link.snapshot.number();
    let itself = StreamPosition { object: partial.object, part: ObjectPart::Object };
    let first = partial.object / OBJECTS_PER_RANGE * OBJECTS_PER_RANGE;
    let range = StreamPosition { object: first, part: ObjectPart::Range };
    // the first chunk was just read: for a volume, or a few large files, it has everything but the data
    let object_in_first = chunks.whole_in(toguid, itself, 0)?;
    let range_in_first = chunks.whole_in(toguid, range, 0)?;
    let read_by_then = partial.bytes.saturating_add(RECORD as u64).min(chunks.size.saturating_sub(1));
    // an object whose data was not begun is sent again itself
    let data = match partial.offset {
        0 => None,
        offset => {
            let place = StreamPosition { object: partial.object, part: ObjectPart::Data(offset) };
            let Some(data) = chunks.find(toguid, place, read_by_then)? else { return Ok(None) };
            Some(data)
        }
    };
    let object = match object_in_first {
        None => chunks.find(toguid, itself, data.unwrap_or(read_by_then))?,
        found => found,
    };
    let Some(object) = object else { return Ok(None) };
    let mut before = vec![];
    if partial.features.raw {
        let range = match range_in_first {
            None => chunks.find(toguid, range, object)?,
            found => found,
        };
        let Some(range) = range else { return Ok(None) };
        before.push((range, range + RECORD as u64));
    }
    if data.is_some() {
        before.push((object, chunks.end_of_object(object, partial.object)?));
    }
    Ok(Some((before, data.unwrap_or(object))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::backup::Link;
    use crate::model::names::Guid;
    use crate::stream::fletcher::{Span, Sums};
    use crate::stream::record::{CHECKSUM, Facts, Order, RecordKind};

    const STREAMS: [(&[u8], u64, Option<u64>); 5] = [
        (include_bytes!("../../../tests/streams/full.zfs"), 13707626622376489106, None),
        (include_bytes!("../../../tests/streams/incr.zfs"), 15839073234525558964, Some(13707626622376489106)),
        (include_bytes!("../../../tests/streams/full-raw-unencrypted.zfs"), 13707626622376489106, None),
        (include_bytes!("../../../tests/streams/raw-encrypted-full.zfs"), 16815271177297348258, None),
        (
            include_bytes!("../../../tests/streams/raw-encrypted-incr.zfs"),
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
            if facts.kind == RecordKind::End {
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
        let end = facts.is_some_and(|facts| facts.kind == RecordKind::End);
        (*facts, if end { &bytes[40..48] } else { &bytes[..CHECKSUM] }, &bytes[RECORD..])
    }

    /// The stream that resumes.
    fn resumed(whole: &[u8], chunk_size: usize, partial: &PartialReceive) -> Result<Vec<u8>> {
        let fetch = |index: u64| Ok(whole.chunks(chunk_size).nth(index as usize).unwrap().to_vec());
        let mut chunks = StreamChunks::new(fetch, chunk_size as u64, whole.len() as u64, 2);
        let ResumePoint { mut rewriting, mut head, position } = find_resume_point(&mut chunks, partial)?;
        for piece in whole[position as usize..].chunks(1000) {
            rewriting
                .push(piece, |bytes| {
                    head.extend_from_slice(bytes);
                    Ok::<(), StreamError>(())
                })
                .unwrap();
        }
        rewriting.check_ended().unwrap();
        Ok(head)
    }

    fn partial(stream: (&[u8], u64, Option<u64>), object: u64, offset: u64, bytes: usize) -> PartialReceive {
        let begin = Record { bytes: stream.0.first_chunk().unwrap(), swapped: false };
        PartialReceive {
            link: Link { snapshot: Guid::new(stream.1).unwrap(), base: stream.2.and_then(Guid::new) },
            name: "tank/a@1".to_string(),
            object,
            offset,
            bytes: bytes as u64,
            features: Features::of(&begin),
        }
    }

    /// What `zfs send -t` would send, by walking through all records of the stream: the encryption
    /// parameters, the object, and all from its data on; compared with what was found in chunks of these
    /// sizes, and by tokens that count so many more bytes than they need.
    fn check_from_every_write_record(
        stream: (&[u8], u64, Option<u64>),
        of: impl Fn(u64) -> bool,
        sizes: &[(usize, usize)],
    ) {
        let records = walk(stream.0);
        let mut checked = 0;
        for (write, (at, facts, bytes)) in records.iter().enumerate() {
            let Some(StreamPosition { object, part: ObjectPart::Data(offset) }) =
                facts.and_then(|facts| facts.place)
            else {
                continue;
            };
            if !of(object) {
                continue;
            }
            checked += 1;
            let first_with =
                |place| records.iter().position(|r| r.1.and_then(|f| f.place) == Some(place)).unwrap();
            let mut expected = vec![];
            if partial(stream, 0, 0, 0).features.raw {
                expected
                    .push(first_with(StreamPosition { object: object / 32 * 32, part: ObjectPart::Range }));
            }
            let itself = first_with(StreamPosition { object, part: ObjectPart::Object });
            // the object, and the FREE of what lies behind it
            expected.extend([itself, itself + 1]);
            expected.extend(if offset == 0 { itself + 2 } else { write }..records.len());
            let expected: Vec<_> = expected.iter().map(|n| content(&records[*n])).collect();
            for (chunk_size, more) in sizes {
                let counted = (at + bytes.len() - RECORD + more).min(stream.0.len() + 1000);
                let partial = partial(stream, object, offset, counted);
                let found = resumed(stream.0, *chunk_size, &partial).unwrap();
                let found = walk(&found);
                let found: Vec<_> = found.iter().skip(1).map(content).collect();
                assert!(found == expected, "object {object} offset {offset} chunks of {chunk_size}");
            }
        }
        assert!(checked > 1, "{checked}");
    }

    #[test]
    fn from_every_write_record_of_real_streams() {
        let sizes = [(313, 0), (1001, 5000), (4096, 312), (65536, 100_000), (2_000_000, 0)];
        STREAMS.iter().for_each(|stream| check_from_every_write_record(*stream, |_| true, &sizes));
    }

    /// A record's type, its numbers and where they stand, and the bytes of its payload.
    type Made = (u8, Vec<(usize, u64)>, usize);

    /// A raw stream of the objects 1 to `objects`, with so many WRITE records of 512 bytes each.
    fn made(order: Order, objects: u64, writes: impl Fn(u64) -> u64, toguid: u64) -> Vec<u8> {
        let object = |n: u64| -> [Made; 2] {
            [
                (1, vec![(8, n), (16, 19), (40, toguid)], 0),
                (4, vec![(8, n), (16, 512), (24, u64::MAX), (32, toguid)], 0),
            ]
        };
        let data = |n: u64| -> Vec<Made> {
            let write = |block| vec![(8, n), (16, 19), (24, block * 512), (32, 512), (40, toguid)];
            (0..writes(n)).map(|block| (3, write(block), 512)).collect()
        };
        let mut records: Vec<Made> = vec![];
        for first in (0..=objects).step_by(32) {
            records.push((9, vec![(8, first), (16, 32), (24, toguid)], 0));
            let block = first.max(1)..(first + 32).min(objects + 1);
            match order {
                Order::ByObject => records.extend(block.flat_map(|n| [&object(n)[..], &data(n)].concat())),
                Order::ByBlock => {
                    records.extend(block.clone().flat_map(object));
                    records.extend(block.flat_map(data));
                }
            }
        }
        records.push((5, vec![(40, toguid)], 0));
        encoded(&records, toguid)
    }

    fn encoded(records: &[Made], toguid: u64) -> Vec<u8> {
        let mut stream = vec![0; RECORD];
        let raw = 1 << 26;
        for (at, number) in [(8, crate::stream::MAGIC), (16, 1 | raw), (40, toguid)] {
            stream[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        let mut sums = Sums::default().then(&Span::of(&stream));
        for (kind, numbers, payload) in records {
            let mut record = [0; RECORD];
            record[0] = *kind;
            if *kind == 5 {
                record[8..40].copy_from_slice(&sums.bytes());
            }
            numbers.iter().for_each(|(at, n)| record[*at..at + 8].copy_from_slice(&n.to_le_bytes()));
            sums = sums.then(&Span::of(&record[..CHECKSUM]));
            record[CHECKSUM..].copy_from_slice(&sums.bytes());
            let from = stream.len() + CHECKSUM;
            stream.extend_from_slice(&record);
            stream.resize(stream.len() + payload, 7);
            sums = sums.then(&Span::of(&stream[from..]));
        }
        stream
    }

    /// Objects whose numbers are also types of records: their records, read 8 bytes late, look like others.
    #[test]
    fn what_only_looks_like_a_record_is_recognized() {
        for order in [Order::ByObject, Order::ByBlock] {
            let stream = made(order, 560, |object| if object == 9 { 40 } else { 3 }, 5);
            let of = |object| matches!(object, 1..=3 | 7..=10 | 19 | 31..=33 | 512..=514 | 543 | 544 | 560);
            check_from_every_write_record(
                (&stream, 5, None),
                of,
                &[(5001, 700), (100_000, 0), (2_000_000, 0)],
            );
        }
    }

    #[test]
    fn a_position_in_a_long_stream_is_found_with_few_reads() {
        for (order, more) in [(Order::ByObject, 0), (Order::ByBlock, 30)] {
            let bytes = made(order, 3000, |object| if object == 1500 { 30_000 } else { 8 }, 5);
            let stream = (&bytes[..], 5, None);
            assert!(stream.0.len() > 2800 * 16384);
            let records = walk(stream.0);
            for (object, offset, most) in [
                (1500, 29_999 * 512, 34),
                (1500, 15_000 * 512, 34),
                (1500, 512, 12),
                (3000, 7 * 512, 12),
                (1, 512, 3),
                (1, 0, 2),
            ] {
                let place = match offset {
                    0 => StreamPosition { object, part: ObjectPart::Object },
                    offset => StreamPosition { object, part: ObjectPart::Data(offset) },
                };
                let at = records.iter().find(|r| r.1.and_then(|f| f.place) == Some(place)).unwrap().0;
                let mut read = 0;
                let fetch = |index: u64| {
                    read += 1;
                    Ok(stream.0.chunks(16384).nth(index as usize).unwrap().to_vec())
                };
                let mut chunks = StreamChunks::new(fetch, 16384, stream.0.len() as u64, 2);
                let found =
                    find_resume_point(&mut chunks, &partial(stream, object, offset, at + 512)).unwrap();
                assert_eq!(found.position, at as u64);
                assert!(read <= most + more, "{read} chunks read for object {object} offset {offset}");
            }
        }
    }

    #[test]
    fn if_nothing_was_received_everything_is_sent() {
        for stream in STREAMS {
            let found = resumed(stream.0, 4096, &partial(stream, 1, 0, 0)).unwrap();
            let (found, whole) = (walk(&found), walk(stream.0));
            assert!(found.iter().skip(1).map(content).eq(whole.iter().skip(1).map(content)));
        }
    }

    #[test]
    fn a_position_that_is_not_in_the_stored_stream_is_refused() {
        let stream = STREAMS[0];
        let why = |partial| resumed(stream.0, 4096, &partial).unwrap_err().message;
        let good = partial(stream, 22, 0x20000, 297_808);
        assert!(resumed(stream.0, 4096, &good).is_ok());
        for (object, offset) in [(22, 0x20001), (1000, 0), (23, 0), (u64::MAX, u64::MAX), (0, 0)] {
            let said = why(PartialReceive { object, offset, ..good.clone() });
            assert!(
                said.contains("the stored stream does not contain the point where it was interrupted"),
                "{said}"
            );
        }
        let said = why(PartialReceive { bytes: 50_000, ..good.clone() });
        assert!(said.contains("the point where it was interrupted"), "{said}");
        let said =
            why(PartialReceive { features: Features { compressed: true, ..good.features }, ..good.clone() });
        assert!(said.contains("another kind of 'zfs send'"), "{said}");
        let link = Link { base: Guid::new(5), ..good.link };
        assert!(why(PartialReceive { link, ..good.clone() }).contains("fromguid"));
    }
}
