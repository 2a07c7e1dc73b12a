//! Finds what `zfs receive` would lose of a stream as it passes by. Pure.
//!
//! OpenZFS since 2.2.7 writes a spill block (the attributes of a file that do not fit in its dnode: extended
//! attributes, ACLs, a long symbolic link) as WRITE_EMBEDDED if it can be compressed to 112 bytes and
//! embedded data are sent (`-e`, `--raw`). `zfs receive` takes it for data at the offset DMU_SPILL_BLKID x
//! block size, reports nothing, and the attributes are lost:
//! <https://github.com/openzfs/zfs/issues/18239>, <https://github.com/openzfs/zfs/pull/19091>.

use super::MAGIC;
use super::record::{RECORD, Record, RecordKind};
use super::split::{RecordSplitter, StreamSlice};

/// The number by which a dnode's spill block is known (OpenZFS include/sys/dmu.h): -2.
const DMU_SPILL_BLKID: u64 = u64::MAX - 1;

#[derive(Default)]
pub struct SpillCheck {
    state: State,
    split: RecordSplitter,
    /// The first object that would lose something.
    lost: Option<u64>,
}

#[derive(Default)]
enum State {
    #[default]
    Begin,
    Records,
    /// A kind of stream that this version does not know, and does not judge.
    Unknown,
}

impl SpillCheck {
    /// For the rest of a stream, from a record on.
    pub fn between_records() -> Self {
        SpillCheck { state: State::Records, ..SpillCheck::default() }
    }

    pub fn push(&mut self, mut bytes: &[u8]) {
        while !matches!(self.state, State::Unknown)
            && let Some(piece) = self.split.take(&mut bytes)
        {
            if let StreamSlice::Record(record) = piece {
                self.state = self.check_record(&record);
            }
        }
    }

    /// The first object that would lose something in `zfs receive`.
    pub fn lost_object(&self) -> Option<u64> {
        self.lost
    }

    fn check_record(&mut self, bytes: &[u8; RECORD]) -> State {
        let record = Record { bytes, swapped: false };
        if matches!(self.state, State::Begin) {
            let begins = record.u32(0) == 0 && record.u64(8) == MAGIC;
            self.split.payload_follows(record.u32(4) as usize);
            return if begins { State::Records } else { State::Unknown };
        }
        let Some(facts) = record.facts() else { return State::Unknown };
        let (object, offset, length) = (record.u64(8), record.u64(16), record.u64(24));
        let is_spill = offset > i64::MAX as u64 && offset == DMU_SPILL_BLKID.wrapping_mul(length);
        if facts.kind == RecordKind::WriteEmbedded && is_spill {
            self.lost.get_or_insert(object);
        }
        self.split.payload_follows(facts.payload);
        State::Records
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(stream: &[u8], pieces: usize) -> Option<u64> {
        let mut check = SpillCheck::default();
        stream.chunks(pieces).for_each(|piece| check.push(piece));
        check.lost_object()
    }

    #[test]
    fn an_embedded_spill_block_is_found() {
        // by `zfs send -w` of OpenZFS 2.3.2, of links of 150 and 1,000 bytes that are one character each
        let bad = include_bytes!("../../tests/streams/embedded-spill.zfs");
        for pieces in [1, 311, 4096, bad.len()] {
            assert_eq!(lost(bad, pieces), Some(3));
        }
    }

    #[test]
    fn it_is_found_in_the_rest_of_a_stream_too() {
        let bad = include_bytes!("../../tests/streams/embedded-spill.zfs");
        let begin = RECORD + Record { bytes: bad.first_chunk().unwrap(), swapped: false }.u32(4) as usize;
        let mut check = SpillCheck::between_records();
        check.push(&bad[begin..]);
        assert_eq!(check.lost_object(), Some(3));
    }

    #[test]
    fn other_streams_are_fine() {
        let streams: [&[u8]; 5] = [
            include_bytes!("../../tests/streams/full.zfs"),
            include_bytes!("../../tests/streams/incr.zfs"),
            include_bytes!("../../tests/streams/full-raw-unencrypted.zfs"),
            include_bytes!("../../tests/streams/raw-encrypted-full.zfs"),
            include_bytes!("../../tests/streams/raw-encrypted-incr.zfs"),
        ];
        for stream in streams {
            assert_eq!(lost(stream, 1000), None);
            // to the end
            let mut check = SpillCheck::default();
            check.push(stream);
            assert!(matches!(check.state, State::Records) && check.split.payload_is_over());
        }
        assert_eq!(lost(&[7; 5000], 1000), None, "not a stream at all");
    }
}
