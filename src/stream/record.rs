//! The records that a stream is made of. Pure.
//!
//! `dmu_replay_record` in OpenZFS include/sys/zfs_ioctl.h: 312 bytes in the byte order of the sender. The
//! first 4 are the type; in all records but BEGIN, the last 32 are the checksum of everything before them.
//! The payload follows the record; which field has its length depends on the type.

use super::fletcher::{SUMS, Sums};

/// Bytes of a record without its payload.
pub const RECORD: usize = 312;
/// The offset of the checksum of everything before it.
pub const CHECKSUM: usize = RECORD - SUMS;
/// The maximum payload, in bytes (SPA_MAXBLOCKSIZE).
const MAX_PAYLOAD: u64 = 16 << 20;
/// The maximum payload of BEGIN; encryption parameters have 1,028 bytes.
pub const MAX_BEGIN_PAYLOAD: u32 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    Object,
    FreeObjects,
    Write,
    Free,
    End,
    Spill,
    WriteEmbedded,
    ObjectRange,
    Redact,
}

/// So many objects share a block of metadata and, in a raw stream, its encryption parameters
/// (DNODES_PER_BLOCK).
pub const OBJECTS_PER_RANGE: u64 = 32;

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPosition {
    pub object: u64,
    pub part: ObjectPart,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectPart {
    /// The encryption parameters of the block of objects that begins with this one.
    Range,
    /// The object itself.
    Object,
    /// Its data at this offset.
    Data(u64),
}

/// What a record says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    pub kind: RecordKind,
    pub toguid: u64,
    /// Bytes.
    pub payload: usize,
    /// None for records that are not in this order.
    pub place: Option<StreamPosition>,
}

impl StreamPosition {
    /// A key to sort by in the order of a stream. OpenZFS 2.0 and later sends the data of each object right
    /// after it; before that, all objects of a block (see [`OBJECTS_PER_RANGE`]) came first, and then their
    /// data.
    pub fn order(self, order: Order) -> (u64, u8, u64, u64) {
        let (rank, offset) = match self.part {
            ObjectPart::Range => (0, 0),
            ObjectPart::Object => (1, 0),
            ObjectPart::Data(offset) => (2, offset),
        };
        match order {
            Order::ByObject => (self.object, rank, 0, offset),
            Order::ByBlock => (self.object / OBJECTS_PER_RANGE, rank, self.object, offset),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    ByObject,
    ByBlock,
}

/// Reads the numbers of a record in the byte order of the sender.
pub struct Record<'a> {
    pub bytes: &'a [u8; RECORD],
    /// From a big-endian host.
    pub swapped: bool,
}

impl Record<'_> {
    pub fn u32(&self, at: usize) -> u32 {
        let mut raw = [0; 4];
        raw.copy_from_slice(&self.bytes[at..at + 4]);
        if self.swapped { u32::from_be_bytes(raw) } else { u32::from_le_bytes(raw) }
    }
    pub fn u64(&self, at: usize) -> u64 {
        let mut raw = [0; 8];
        raw.copy_from_slice(&self.bytes[at..at + 8]);
        if self.swapped { u64::from_be_bytes(raw) } else { u64::from_le_bytes(raw) }
    }
    pub fn sums(&self, at: usize) -> Sums {
        let mut raw = [0; SUMS];
        raw.copy_from_slice(&self.bytes[at..at + SUMS]);
        if self.swapped {
            raw.chunks_exact_mut(8).for_each(<[u8]>::reverse);
        }
        Sums::from(raw)
    }

    /// Is this a type of record whose layout this version knows?
    pub fn is_known(&self) -> bool {
        matches!(self.u32(0), 1..=5 | 7..=10)
    }

    /// None: it is BEGIN, not a record, or one that this version does not know.
    pub fn facts(&self) -> Option<Facts> {
        let byte = |at: usize| self.bytes[at];
        let rounded = |length: u32| u64::from(length).next_multiple_of(8);
        let either = |first: u64, second: u64| if first != 0 { first } else { second };
        let at = |object: usize, part: ObjectPart| Some(StreamPosition { object: self.u64(object), part });
        let (kind, toguid, payload, place) = match self.u32(0) {
            1 => {
                let payload = either(u64::from(self.u32(36)), rounded(self.u32(28)));
                (RecordKind::Object, 40, payload, at(8, ObjectPart::Object))
            }
            2 => (RecordKind::FreeObjects, 24, 0, None),
            3 => {
                let compressed = byte(50) != 0;
                let payload = if compressed { self.u64(96) } else { self.u64(32) };
                (RecordKind::Write, 40, payload, at(8, ObjectPart::Data(self.u64(24))))
            }
            4 => (RecordKind::Free, 32, 0, None),
            5 => (RecordKind::End, 40, 0, None),
            7 => (RecordKind::Spill, 24, either(self.u64(40), self.u64(16)), None),
            8 => {
                (RecordKind::WriteEmbedded, 32, rounded(self.u32(52)), at(8, ObjectPart::Data(self.u64(16))))
            }
            9 => (RecordKind::ObjectRange, 24, 0, at(8, ObjectPart::Range)),
            10 => (RecordKind::Redact, 32, 0, None),
            _ => return None,
        };
        if payload > MAX_PAYLOAD || !payload.is_multiple_of(4) {
            return None;
        }
        Some(Facts { kind, toguid: self.u64(toguid), payload: payload as usize, place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RecordKind::*;

    /// The kind and position of each record.
    fn walk(stream: &[u8]) -> Vec<(RecordKind, Option<StreamPosition>)> {
        let begin = Record { bytes: stream.first_chunk().unwrap(), swapped: false };
        let mut at = RECORD + begin.u32(4) as usize;
        let mut found = vec![];
        while at < stream.len() {
            let record = Record { bytes: stream[at..].first_chunk().unwrap(), swapped: false };
            let facts = record.facts().unwrap_or_else(|| panic!("no record at {at}"));
            found.push((facts.kind, facts.place));
            at += RECORD + facts.payload;
        }
        assert_eq!(at, stream.len());
        found
    }

    #[test]
    fn real_streams_are_rows_of_records_in_order() {
        let full = walk(include_bytes!("../../tests/streams/full.zfs"));
        let raw = walk(include_bytes!("../../tests/streams/raw-encrypted-full.zfs"));
        let raw_incremental = walk(include_bytes!("../../tests/streams/raw-encrypted-incr.zfs"));
        let unencrypted_raw = walk(include_bytes!("../../tests/streams/full-raw-unencrypted.zfs"));
        for stream in [&full, &raw, &raw_incremental, &unencrypted_raw] {
            let places: Vec<StreamPosition> = stream.iter().filter_map(|(_, place)| *place).collect();
            assert!(places.is_sorted_by_key(|place| place.order(Order::ByObject)), "{places:?}");
            assert_eq!(stream.last(), Some(&(End, None)));
        }
        for (stream, kinds) in [
            (&full, vec![Object, Free, Write]),
            (&raw, vec![ObjectRange, Object, Free, Write, FreeObjects]),
            (&unencrypted_raw, vec![WriteEmbedded]),
        ] {
            kinds.iter().for_each(|kind| assert!(stream.iter().any(|(k, _)| k == kind), "{kind:?}"));
        }
    }

    #[test]
    fn what_is_not_a_record() {
        let facts = |bytes: &[u8; RECORD]| Record { bytes, swapped: false }.facts();
        let mut bytes = [0; RECORD];
        assert_eq!(facts(&bytes), None, "BEGIN");
        bytes[0] = 11;
        assert_eq!(facts(&bytes), None, "of a later version");
        bytes[0] = 3;
        bytes[32..40].copy_from_slice(&(MAX_PAYLOAD + 8).to_le_bytes());
        assert_eq!(facts(&bytes), None, "too long");
        bytes[32..40].copy_from_slice(&MAX_PAYLOAD.to_le_bytes());
        assert_eq!(facts(&bytes).map(|facts| facts.payload), Some(16 << 20));
    }
}
