//! What a `zfs send` stream must begin and end with. Pure.
//!
//! A stream is a sequence of records (see [`record`]), some followed by data, in the byte order of the
//! sender. The first is BEGIN and identifies the snapshot; the last is END, and is missing if the sender was
//! interrupted.
//!
//! ```text
//! BEGIN  0 type=0 u32   8 magic u64   16 versioninfo u64 (low 2 bits: 1 = one snapshot)   36 flags u32   40 toguid   48 fromguid
//! END    0 type=5 u32   8 checksum 32 bytes                                               40 toguid
//! ```

pub mod check;
pub mod fletcher;
pub mod record;
pub mod rewriting;
mod spill_check;
pub mod split;

use std::fmt;

use serde::{Deserialize, Serialize};

use self::record::{RECORD, Record};
use crate::model::backup::Link;
use crate::model::names::Guid;

pub const MAGIC: u64 = 0x2_F5BA_CBAC;
const DRR_BEGIN: u32 = 0;
const DRR_END: u32 = 5;
const DMU_SUBSTREAM: u64 = 1;

#[derive(Debug, PartialEq, Eq)]
pub enum StreamError {
    TooShort(usize),
    NotAStream,
    /// A package of several streams (`zfs send -I` or `-R`).
    Compound,
    Other {
        field: &'static str,
        expected: u64,
        found: u64,
    },
    NoEnd,
    /// There are bytes after END, from this one on.
    AfterEnd(u64),
    /// The checksum of this record (0: its number is unknown), which begins at byte `at`, is wrong; the last
    /// right one ends at `from`.
    Damaged {
        record: u64,
        at: u64,
        from: u64,
    },
    /// The length in this record, which begins at byte `at`, is invalid.
    WrongLength {
        record: u64,
        at: u64,
    },
    BigEndian,
    UnknownRecord,
    Checksum,
    /// `zfs receive` would lose attributes of this object.
    Loses(u64),
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StreamError::TooShort(length) => write!(f, "it has only {length} bytes, too few for a stream"),
            StreamError::NotAStream => f.write_str("it does not begin as a ZFS stream"),
            StreamError::Compound => f.write_str("it is a package of several streams"),
            StreamError::Other { field, expected, found } => {
                write!(f, "its {field} is {found}, not {expected}: it is the stream of another snapshot")
            }
            StreamError::NoEnd => f.write_str("it is incomplete: it has no END record"),
            StreamError::AfterEnd(at) => write!(f, "it continues after its END record, at byte {at}"),
            StreamError::Damaged { record, at, from } => {
                let name = if *record == 0 { "a record".to_string() } else { format!("record {record}") };
                write!(
                    f,
                    "it is damaged: {name}, at byte {at}, has the wrong checksum, so it or the data before it, from byte \
                     {from}, were changed after ZFS had written them"
                )
            }
            StreamError::WrongLength { record, at } => {
                write!(f, "record {record}, at byte {at}, has an invalid length")
            }
            StreamError::BigEndian => f.write_str("it is from a big-endian host"),
            StreamError::UnknownRecord => f.write_str("it has a record that this version does not know"),
            StreamError::Loses(object) => write!(
                f,
                "'zfs receive' would lose extended attributes, or the target of a long symbolic link, of the object {object}"
            ),
            StreamError::Checksum => f.write_str("it has a wrong checksum"),
        }
    }
}

fn require(record: &Record, field: &'static str, at: usize, expected: u64) -> Result<(), StreamError> {
    match record.u64(at) {
        found if found == expected => Ok(()),
        found => Err(StreamError::Other { field, expected, found }),
    }
}

/// The BEGIN record at the start of `bytes`, in the byte order of the sender.
pub fn begin_of(bytes: &[u8]) -> Result<Record<'_>, StreamError> {
    let record: &[u8; RECORD] = bytes.first_chunk().ok_or(StreamError::TooShort(bytes.len()))?;
    let orders = [false, true].map(|swapped| Record { bytes: record, swapped });
    let record = orders.into_iter().find(|record| record.u64(8) == MAGIC);
    record.filter(|record| record.u32(0) == DRR_BEGIN).ok_or(StreamError::NotAStream)
}

/// Checks the BEGIN record at the start of `bytes`: the stream must be of one snapshot, the one of `link`.
pub fn check_begin(bytes: &[u8], link: Link) -> Result<(), StreamError> {
    let record = begin_of(bytes)?;
    if record.u64(16) & 3 != DMU_SUBSTREAM {
        return Err(StreamError::Compound);
    }
    require(&record, "toguid", 40, link.snapshot.number())?;
    require(&record, "fromguid", 48, link.base.map_or(0, Guid::number))
}

/// Does the stream with this BEGIN record create a clone of its base (`DRR_FLAG_CLONE`)?
pub fn begins_clone(bytes: &[u8]) -> bool {
    begin_of(bytes).is_ok_and(|begin| begin.u32(36) & 1 != 0)
}

/// Keeps the last bytes, as many as a record has, of a stream that arrives in slices.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tail {
    last: Vec<u8>,
}

impl Tail {
    fn new() -> Self {
        Tail { last: Vec::with_capacity(2 * RECORD) }
    }
    fn push(&mut self, bytes: &[u8]) {
        self.last.extend_from_slice(&bytes[bytes.len().saturating_sub(RECORD)..]);
        let surplus = self.last.len().saturating_sub(RECORD);
        self.last.drain(..surplus);
    }
    /// Are the last bytes the END record of the stream of `link`?
    fn check_end(&self, link: Link) -> Result<(), StreamError> {
        let record: &[u8; RECORD] = self.last.first_chunk().ok_or(StreamError::TooShort(self.last.len()))?;
        let matches = |swapped| {
            let record = Record { bytes: record, swapped };
            record.u32(0) == DRR_END && record.u64(40) == link.snapshot.number()
        };
        if matches(false) || matches(true) { Ok(()) } else { Err(StreamError::NoEnd) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &[u8] = include_bytes!("../../tests/streams/full.zfs");
    const INCREMENTAL: &[u8] = include_bytes!("../../tests/streams/incr.zfs");
    const PACKAGE: &[u8] = include_bytes!("../../tests/streams/incr-I.zfs");
    const S1: u64 = 13707626622376489106;
    const S2: u64 = 15839073234525558964;

    fn link(snapshot: u64, base: u64) -> Link {
        Link { snapshot: Guid::new(snapshot).unwrap(), base: Guid::new(base) }
    }
    fn end_of(bytes: &[u8], pieces: usize) -> Tail {
        let mut tail = Tail::new();
        bytes.chunks(pieces).for_each(|piece| tail.push(piece));
        tail
    }

    #[test]
    fn real_streams_begin_and_end_as_they_should() {
        for (bytes, link) in [(FULL, link(S1, 0)), (INCREMENTAL, link(S2, S1))] {
            assert_eq!(check_begin(bytes, link), Ok(()));
            for pieces in [1, 100, RECORD - 1, RECORD, RECORD + 1, bytes.len()] {
                assert_eq!(end_of(bytes, pieces).check_end(link), Ok(()));
                let cut = &bytes[..bytes.len() - 1];
                assert_eq!(end_of(cut, pieces).check_end(link), Err(StreamError::NoEnd));
            }
        }
    }

    #[test]
    fn the_stream_of_another_snapshot_is_recognized() {
        let other = |field, expected, found| Err(StreamError::Other { field, expected, found });
        assert_eq!(check_begin(FULL, link(S2, 0)), other("toguid", S2, S1));
        assert_eq!(check_begin(FULL, link(S1, S2)), other("fromguid", S2, 0));
        assert_eq!(check_begin(INCREMENTAL, link(S2, 0)), other("fromguid", 0, S1));
        assert_eq!(end_of(FULL, 512).check_end(link(S2, 0)), Err(StreamError::NoEnd));
    }

    #[test]
    fn what_is_not_a_single_stream() {
        assert_eq!(check_begin(PACKAGE, link(S2, S1)), Err(StreamError::Compound));
        assert_eq!(check_begin(&FULL[1..], link(S1, 0)), Err(StreamError::NotAStream));
        assert_eq!(check_begin(&FULL[..311], link(S1, 0)), Err(StreamError::TooShort(311)));
        assert_eq!(check_begin(&[0; 400], link(S1, 0)), Err(StreamError::NotAStream));
        assert_eq!(end_of(b"", 1).check_end(link(S1, 0)), Err(StreamError::TooShort(0)));
    }

    #[test]
    fn a_stream_from_a_big_endian_host() {
        let mut begin = [0; RECORD];
        begin[8..16].copy_from_slice(&MAGIC.to_be_bytes());
        begin[16..24].copy_from_slice(&1u64.to_be_bytes());
        begin[40..48].copy_from_slice(&S1.to_be_bytes());
        assert_eq!(check_begin(&begin, link(S1, 0)), Ok(()));
        let mut end = [0; RECORD];
        end[..4].copy_from_slice(&5u32.to_be_bytes());
        end[40..48].copy_from_slice(&S1.to_be_bytes());
        assert_eq!(end_of(&end, 100).check_end(link(S1, 0)), Ok(()));
    }
}
