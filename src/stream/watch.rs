//! Finds in a stream that passes by what `zfs receive` would not give back. Pure.
//!
//! OpenZFS since 2.2.7 writes a spill block (what of a file's attributes has no room in its dnode: extended attributes, ACLs, a
//! long symbolic link) as WRITE_EMBEDDED where it is compressible to 112 bytes and embedded data are sent (`-e`, `--raw`).
//! `zfs receive` takes it for data at the offset DMU_SPILL_BLKID x block size, says nothing, and the attributes are gone:
//! <https://github.com/openzfs/zfs/issues/18239>, <https://github.com/openzfs/zfs/pull/19091>.

use super::MAGIC;
use super::record::{Kind, RECORD, Record};
use super::split::{Piece, Split};

/// The number by which a dnode's spill block is known (OpenZFS include/sys/dmu.h): -2.
const DMU_SPILL_BLKID: u64 = u64::MAX - 1;

#[derive(Default)]
pub struct Watch {
    state: State,
    split: Split,
    /// The first object of which something would be lost.
    lost: Option<u64>,
}

#[derive(Default)]
enum State {
    #[default]
    Begin,
    Records,
    /// A stream that this version does not know: what cannot be read is not judged.
    Unknown,
}

impl Watch {
    /// For a stream that goes on at a record.
    pub fn between_records() -> Self {
        Watch { state: State::Records, ..Watch::default() }
    }

    pub fn push(&mut self, mut bytes: &[u8]) {
        while !matches!(self.state, State::Unknown)
            && let Some(piece) = self.split.take(&mut bytes)
        {
            if let Piece::Record(record) = piece {
                self.state = self.look_at(&record);
            }
        }
    }

    /// The first object of which `zfs receive` would lose something.
    pub fn lost(&self) -> Option<u64> {
        self.lost
    }

    fn look_at(&mut self, bytes: &[u8; RECORD]) -> State {
        let record = Record { bytes, swapped: false };
        if matches!(self.state, State::Begin) {
            let begins = record.u32(0) == 0 && record.u64(8) == MAGIC;
            self.split.payload_follows(record.u32(4) as usize);
            return if begins { State::Records } else { State::Unknown };
        }
        let Some(facts) = record.facts() else { return State::Unknown };
        let (object, offset, length) = (record.u64(8), record.u64(16), record.u64(24));
        let is_spill = offset > i64::MAX as u64 && offset == DMU_SPILL_BLKID.wrapping_mul(length);
        if facts.kind == Kind::WriteEmbedded && is_spill {
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
        let mut watch = Watch::default();
        stream.chunks(pieces).for_each(|piece| watch.push(piece));
        watch.lost()
    }

    #[test]
    fn a_spill_block_that_was_embedded_is_found() {
        // by `zfs send -w` of OpenZFS 2.3.2, of links of 150 and 1,000 bytes that are one character each
        let bad = include_bytes!("../../tests/streams/embedded-spill.zfs");
        for pieces in [1, 311, 4096, bad.len()] {
            assert_eq!(lost(bad, pieces), Some(3));
        }
    }

    #[test]
    fn it_is_found_in_what_goes_on_too() {
        let bad = include_bytes!("../../tests/streams/embedded-spill.zfs");
        let begin = RECORD + Record { bytes: bad.first_chunk().unwrap(), swapped: false }.u32(4) as usize;
        let mut watch = Watch::between_records();
        watch.push(&bad[begin..]);
        assert_eq!(watch.lost(), Some(3));
    }

    #[test]
    fn all_other_streams_are_fine() {
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
            let mut watch = Watch::default();
            watch.push(stream);
            assert!(matches!(watch.state, State::Records) && watch.split.payload_is_over());
        }
        assert_eq!(lost(&[7; 5000], 1000), None, "not a stream at all");
    }
}
