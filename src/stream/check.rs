//! Checks every record of a stream as it passes by: what `zfs receive` would refuse, or lose, is found while
//! it is sent, or without a pool. Pure.
//!
//! Each record but BEGIN ends with the checksum of everything before that checksum, and END also contains
//! that of everything before END (OpenZFS module/zfs/dmu_send.c: dump_record; module/zfs/dmu_recv.c:
//! receive_read_record). So if memory, a pipe or a program between `zfs send` and here has changed anything,
//! the checksum of the next record is wrong. A checksum of zero is not checked, as in `zfs receive`, until a
//! record has one.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::fletcher::{Span, Sums};
use super::record::{CHECKSUM, MAX_BEGIN_PAYLOAD, RECORD, Record, RecordKind};
use super::split::{RecordSplitter, StreamSlice};
use super::{StreamError, Tail, begin_of, spill_check};
use crate::model::backup::Link;

/// It can be saved, and continue later.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamCheck {
    state: State,
    /// From a big-endian host.
    swapped: bool,
    /// Over everything before the next record or its payload. None: unknown, until a record says it.
    sums: Option<Sums>,
    /// A record had a checksum.
    summed: bool,
    split: RecordSplitter,
    payload: Span,
    /// How many records there were, and where the last one begins.
    records: u64,
    last_at: u64,
    begins_at: u64,
    /// Bytes so far.
    position: u64,
    /// The first object that would lose something in `zfs receive`.
    lost: Option<u64>,
    unchecked: Option<Unchecked>,
    tail: Tail,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    Begin,
    Records,
    Ended,
    /// From here on this version does not know the format.
    Unknown,
}

/// From where on a stream is not checked, because this version does not know its format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unchecked {
    pub record: u64,
    pub at: u64,
}

impl fmt::Display for Unchecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unchecked { record, at } = self;
        write!(
            f,
            "is not checked after record {record}, at byte {at}: it has a format that this version does not know"
        )
    }
}

impl StreamCheck {
    /// For a whole stream.
    pub fn new() -> Self {
        Self::from_state(State::Begin, 0)
    }

    /// For the rest of a stream, from a record on.
    pub fn from_record_at(position: u64) -> Self {
        Self::from_state(State::Records, position)
    }

    fn from_state(state: State, position: u64) -> Self {
        StreamCheck {
            state,
            swapped: false,
            sums: (position == 0).then(Sums::default),
            summed: false,
            split: RecordSplitter::default(),
            payload: Span::default(),
            records: 0,
            last_at: position,
            begins_at: position,
            position,
            lost: None,
            unchecked: None,
            tail: Tail::new(),
        }
    }

    /// Checks more bytes.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), StreamError> {
        self.tail.push(bytes);
        let end = self.position + bytes.len() as u64;
        while self.state != State::Unknown {
            if self.state == State::Ended && !bytes.is_empty() {
                return Err(StreamError::AfterEnd(end - bytes.len() as u64));
            }
            let Some(slice) = self.split.take(&mut bytes) else { break };
            self.position = end - bytes.len() as u64;
            match slice {
                StreamSlice::Record(record) => self.check_record(&record)?,
                StreamSlice::Payload(payload) => {
                    self.payload.push(payload);
                    if self.split.payload_is_over() {
                        let payload = std::mem::replace(&mut self.payload, Span::of_host(self.swapped));
                        self.sums = self.sums.map(|sums| sums.then(&payload));
                    }
                }
            }
        }
        self.position = end;
        Ok(())
    }

    /// The stream is over: its last record must be END, of the stream of `link`.
    pub fn check_end(&self, link: Link) -> Result<(), StreamError> {
        match self.state {
            State::Ended | State::Unknown => self.tail.check_end(link),
            State::Begin => Err(StreamError::TooShort(self.position as usize)),
            State::Records => Err(StreamError::NoEnd),
        }
    }

    /// The first object that would lose something in `zfs receive`.
    pub fn lost_object(&self) -> Option<u64> {
        self.lost
    }

    /// From where on it is not checked.
    pub fn unchecked(&self) -> Option<Unchecked> {
        self.unchecked
    }

    fn check_record(&mut self, bytes: &[u8; RECORD]) -> Result<(), StreamError> {
        let at = self.position - RECORD as u64;
        if self.state == State::Begin {
            return self.check_begin(bytes);
        }
        let record = Record { bytes, swapped: self.swapped };
        let given = record.sums(CHECKSUM);
        let before = self.sums;
        let is_end = record.u32(0) == super::DRR_END;
        let in_end = is_end.then(|| record.sums(8)).filter(|sums| self.summed || *sums != Sums::default());
        if before.is_some() && in_end.is_some_and(|sums| Some(sums) != before) {
            return Err(self.damaged(at));
        }
        if given == Sums::default() && !self.summed {
            // a stream without checksums
            self.sums = before.map(|sums| sums.then(&self.span(bytes)));
        } else {
            let until_sums = before.map(|sums| sums.then(&self.span(&bytes[..CHECKSUM])));
            if until_sums.is_some_and(|sums| sums != given) {
                return Err(self.damaged(at));
            }
            self.summed = true;
            self.sums = Some(given.then(&self.span(&bytes[CHECKSUM..])));
        }
        self.records += 1;
        self.last_at = at;
        let Some(facts) = record.facts() else {
            if record.is_known() {
                return Err(StreamError::WrongLength { record: self.records, at });
            }
            return self.stop_checking(at);
        };
        self.lost = self.lost.or_else(|| spill_check::lost_object(&record, &facts));
        self.split.payload_follows(facts.payload);
        if facts.kind == RecordKind::End {
            self.state = State::Ended;
        }
        Ok(())
    }

    fn check_begin(&mut self, bytes: &[u8; RECORD]) -> Result<(), StreamError> {
        let begin = begin_of(bytes)?;
        self.swapped = begin.swapped;
        if begin.u32(4) > MAX_BEGIN_PAYLOAD {
            return Err(StreamError::NotAStream);
        }
        self.split.payload_follows(begin.u32(4) as usize);
        self.payload = Span::of_host(self.swapped);
        self.sums = Some(Sums::default().then(&self.span(bytes)));
        self.records = 1;
        self.state = State::Records;
        Ok(())
    }

    fn damaged(&self, at: u64) -> StreamError {
        // in the rest of a stream the records before it were not counted
        let record = if self.begins_at == 0 { self.records + 1 } else { 0 };
        StreamError::Damaged { record, at, from: self.checked_until() }
    }

    /// The end of the last checksum that was right. That of BEGIN is only in the next record.
    fn checked_until(&self) -> u64 {
        if self.records <= 1 { self.begins_at } else { self.last_at + RECORD as u64 }
    }

    fn span(&self, bytes: &[u8]) -> Span {
        let mut span = Span::of_host(self.swapped);
        span.push(bytes);
        span
    }

    fn stop_checking(&mut self, at: u64) -> Result<(), StreamError> {
        self.unchecked = Some(Unchecked { record: self.records, at });
        self.state = State::Unknown;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fletcher::SUMS;
    use super::*;
    use crate::model::names::Guid;

    const FULL: &[u8] = include_bytes!("../../tests/streams/full.zfs");
    const SPILL: &[u8] = include_bytes!("../../tests/streams/embedded-spill.zfs");
    const STREAMS: [&[u8]; 6] = [
        FULL,
        include_bytes!("../../tests/streams/incr.zfs"),
        include_bytes!("../../tests/streams/full-raw-unencrypted.zfs"),
        include_bytes!("../../tests/streams/raw-encrypted-full.zfs"),
        include_bytes!("../../tests/streams/raw-encrypted-incr.zfs"),
        SPILL,
    ];

    fn link_of(stream: &[u8]) -> Link {
        let begin = begin_of(stream).unwrap();
        Link { snapshot: Guid::new(begin.u64(40)).unwrap(), base: Guid::new(begin.u64(48)) }
    }

    fn checked(stream: &[u8], pieces: usize) -> Result<StreamCheck, StreamError> {
        let mut check = StreamCheck::new();
        stream.chunks(pieces).try_for_each(|piece| check.push(piece))?;
        check.check_end(link_of(stream))?;
        Ok(check)
    }

    fn error_of(stream: &[u8]) -> Option<StreamError> {
        let errors: Vec<_> = [100, 4096, stream.len()].map(|pieces| checked(stream, pieces).err()).into();
        assert!(errors.windows(2).all(|pair| pair[0] == pair[1]), "{errors:?}");
        errors.into_iter().next().unwrap()
    }

    /// Where each record begins, BEGIN first.
    fn records(stream: &[u8]) -> Vec<usize> {
        let mut at = RECORD + begin_of(stream).unwrap().u32(4) as usize;
        let mut found = vec![0];
        while at < stream.len() {
            found.push(at);
            let record = Record { bytes: stream[at..].first_chunk().unwrap(), swapped: false };
            at += RECORD + record.facts().unwrap().payload;
        }
        found
    }

    /// The same with each number and word in the other byte order, as a big-endian host would send it.
    fn swapped(stream: &[u8]) -> Vec<u8> {
        let mut sums = Sums::default();
        let mut swapped = Vec::new();
        let places = records(stream);
        let ends = places.iter().skip(1).copied().chain([stream.len()]);
        for (at, end) in places.iter().copied().zip(ends) {
            let mut record: [u8; RECORD] = *stream[at..].first_chunk().unwrap();
            let fields: &[(usize, usize)] = match record[0] {
                0 => &[(0, 4), (4, 4), (8, 8), (16, 8), (24, 8), (32, 4), (36, 4), (40, 8), (48, 8)],
                1 => &[(0, 4), (8, 8), (28, 4), (36, 4), (40, 8)],
                3 => &[(0, 4), (8, 8), (24, 8), (32, 8), (40, 8), (96, 8)],
                5 => &[(0, 4), (40, 8)],
                _ => &[(0, 4)],
            };
            fields.iter().for_each(|(at, length)| record[*at..*at + *length].reverse());
            let big = |bytes: &[u8]| {
                let mut span = Span::of_host(true);
                span.push(bytes);
                span
            };
            let written = |sums: Sums| {
                let mut bytes = sums.bytes();
                bytes.chunks_exact_mut(8).for_each(<[u8]>::reverse);
                bytes
            };
            if at > 0 {
                if end == stream.len() {
                    record[8..8 + SUMS].copy_from_slice(&written(sums));
                }
                let sum = sums.then(&big(&record[..CHECKSUM]));
                record[CHECKSUM..].copy_from_slice(&written(sum));
            }
            sums = sums.then(&big(&record)).then(&big(&stream[at + RECORD..end]));
            swapped.extend_from_slice(&record);
            swapped.extend_from_slice(&stream[at + RECORD..end]);
        }
        swapped
    }

    #[test]
    fn real_streams_pass() {
        for stream in STREAMS {
            for pieces in [1, 311, 4096, stream.len()] {
                let check = checked(stream, pieces).unwrap();
                assert_eq!((check.records, check.unchecked()), (records(stream).len() as u64, None));
                assert_eq!(check.lost_object(), (stream == SPILL).then_some(3));
            }
        }
        assert_eq!(error_of(&swapped(FULL)), None, "of a big-endian host");
    }

    #[test]
    fn each_flipped_bit_is_found_and_named() {
        for stream in STREAMS {
            let places = records(stream);
            for n in (0..places.len()).step_by(1 + places.len() / 40) {
                let end = places.get(n + 1).copied().unwrap_or(stream.len());
                let middle = (places[n] + RECORD + end) / 2;
                // in its payload, its header, its checksum
                for at in [middle, places[n] + 60, places[n] + RECORD - 8] {
                    let mut bad = stream.to_vec();
                    let Some(byte) = bad.get_mut(at) else { continue };
                    *byte ^= 4;
                    // the header and the checksum are covered by this record, the rest by the next one
                    let by = if at < places[n] + RECORD && n > 0 { n } else { n + 1 };
                    let from = if by <= 1 { 0 } else { places[by - 1] + RECORD };
                    let expected = StreamError::Damaged {
                        record: by as u64 + 1,
                        at: places[by] as u64,
                        from: from as u64,
                    };
                    assert_eq!(error_of(&bad), Some(expected), "record {n}, byte {at}");
                }
            }
        }
    }

    #[test]
    fn swapped_blocks_are_found() {
        let blocks: Vec<(usize, usize)> = records(FULL)
            .windows(2)
            .map(|pair| (pair[0] + RECORD, pair[1] - pair[0] - RECORD))
            .filter(|(at, length)| *at > RECORD && *length == 128 << 10)
            .collect();
        let ((one, length), (two, _)) = (blocks[0], blocks[1]);
        let mut bad = FULL.to_vec();
        bad[one..one + length].copy_from_slice(&FULL[two..two + length]);
        bad[two..two + length].copy_from_slice(&FULL[one..one + length]);
        let expected = Some(one as u64);
        let found = match error_of(&bad) {
            Some(StreamError::Damaged { from, .. }) => Some(from),
            _ => None,
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_incomplete_or_too_long() {
        let places = records(FULL);
        let end = places[places.len() - 1];
        assert_eq!(error_of(&FULL[..end]), Some(StreamError::NoEnd), "cut at a record");
        assert_eq!(error_of(&FULL[..end - 1000]), Some(StreamError::NoEnd));
        assert_eq!(error_of(&FULL[..FULL.len() - 1]), Some(StreamError::NoEnd));
        let after = Some(StreamError::AfterEnd(FULL.len() as u64));
        assert_eq!(error_of(&[FULL, &[0]].concat()), after);
        assert_eq!(error_of(&[FULL, &FULL[end..]].concat()), after);
        let without_one = [&FULL[..places[7]], &FULL[places[8]..]].concat();
        assert!(matches!(error_of(&without_one), Some(StreamError::Damaged { record: 8, .. })));
    }

    /// The stream with this record in place of its last one, with the right checksum.
    fn with_record(fields: &[(usize, u64)]) -> Vec<u8> {
        let places = records(FULL);
        let end = places[places.len() - 1];
        let mut record = [0; RECORD];
        fields.iter().for_each(|(at, value)| record[*at..*at + 8].copy_from_slice(&value.to_le_bytes()));
        let sums = Sums::default().then(&Span::of(&FULL[..end])).then(&Span::of(&record[..CHECKSUM]));
        record[CHECKSUM..].copy_from_slice(&sums.bytes());
        [&FULL[..end], &record, &[7; 1000], &FULL[end..]].concat()
    }

    #[test]
    fn records_of_a_later_version_are_not_judged_and_known_ones_are() {
        let places = records(FULL);
        let at = places[places.len() - 1] as u64;
        let later = with_record(&[(0, 77)]);
        let check = checked(&later, 4096).unwrap();
        assert_eq!(check.unchecked(), Some(Unchecked { record: places.len() as u64, at }));
        let mut damaged = later.clone();
        damaged[at as usize + 20] ^= 1;
        assert!(matches!(error_of(&damaged), Some(StreamError::Damaged { .. })));
        // a WRITE of 32 MiB
        let long = with_record(&[(0, 3), (32, 32 << 20)]);
        assert_eq!(error_of(&long), Some(StreamError::WrongLength { record: places.len() as u64, at }));
        // a damaged BEGIN may seem to have features of a later version
        for bit in [18 + 2, 44] {
            let mut feature = FULL.to_vec();
            feature[16 + bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(error_of(&feature), Some(StreamError::Damaged { record: 2, .. })));
        }
    }

    #[test]
    fn a_stream_without_checksums_passes() {
        let places = records(FULL);
        let end = places[places.len() - 1];
        let mut bare = FULL.to_vec();
        places[1..].iter().for_each(|at| bare[at + CHECKSUM..at + RECORD].fill(0));
        let in_end = end + 8..end + 8 + SUMS;
        bare[in_end.clone()].fill(0);
        assert_eq!(error_of(&bare), None);
        // only END has one
        let sums = Sums::default().then(&Span::of(&bare[..end]));
        bare[in_end].copy_from_slice(&sums.bytes());
        assert_eq!(error_of(&bare), None);
        bare[400_000] ^= 1;
        assert!(matches!(error_of(&bare), Some(StreamError::Damaged { .. })));
        // but not one that has lost one of them
        let mut lost = FULL.to_vec();
        lost[places[5] + CHECKSUM..places[5] + RECORD].fill(0);
        assert!(matches!(error_of(&lost), Some(StreamError::Damaged { record: 6, .. })));
    }

    #[test]
    fn the_rest_of_a_stream_is_checked_from_its_second_record() {
        for stream in STREAMS {
            let at = records(stream)[4];
            let mut check = StreamCheck::from_record_at(at as u64);
            check.push(&stream[at..]).unwrap();
            check.check_end(link_of(stream)).unwrap();
            assert_eq!(check.lost_object(), (stream == SPILL).then_some(3));
            let mut bad = stream[at..].to_vec();
            let last = bad.len() - RECORD;
            bad[last + 60] ^= 1;
            assert!(StreamCheck::from_record_at(at as u64).push(&bad).is_err());
        }
    }

    #[test]
    fn saved_anywhere_it_continues() {
        for at in (0..FULL.len()).step_by(40_009) {
            let mut check = StreamCheck::new();
            check.push(&FULL[..at]).unwrap();
            let saved = serde_json::to_string(&check).unwrap();
            assert!(saved.len() < 3000, "{}", saved.len());
            let mut check: StreamCheck = serde_json::from_str(&saved).unwrap();
            check.push(&FULL[at..]).unwrap();
            check.check_end(link_of(FULL)).unwrap();
        }
    }
}
