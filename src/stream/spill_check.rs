//! What `zfs receive` would lose of a stream. Pure.
//!
//! OpenZFS since 2.2.7 writes a spill block (the attributes of a file that do not fit in its dnode: extended
//! attributes, ACLs, a long symbolic link) as WRITE_EMBEDDED if it can be compressed to 112 bytes and
//! embedded data are sent (`-e`, `--raw`). `zfs receive` takes it for data at the offset DMU_SPILL_BLKID x
//! block size, reports nothing, and the attributes are lost:
//! <https://github.com/openzfs/zfs/issues/18239>, <https://github.com/openzfs/zfs/pull/19091>.

use super::record::{Facts, Record, RecordKind};

/// The number by which a dnode's spill block is known (OpenZFS include/sys/dmu.h): -2.
const DMU_SPILL_BLKID: u64 = u64::MAX - 1;

/// The object of this record, if it would lose something in `zfs receive`.
pub fn lost_object(record: &Record, facts: &Facts) -> Option<u64> {
    let (object, offset, length) = (record.u64(8), record.u64(16), record.u64(24));
    let is_spill = offset > i64::MAX as u64 && offset == DMU_SPILL_BLKID.wrapping_mul(length);
    (facts.kind == RecordKind::WriteEmbedded && is_spill).then_some(object)
}
