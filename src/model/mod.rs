//! The pure types that everything speaks of: names and guids, backups and their copies, object keys, manifests, chunks, digests, units
//! and times. None of them knows of files, the network or the environment.

pub mod announcement;
pub mod backup;
pub mod chunks;
pub mod copy;
pub mod digest;
pub mod keys;
pub mod manifest;
pub mod names;
pub mod readme;
pub mod shell;
pub mod storage_class;
pub mod units;
pub mod utc;
pub mod yaml;
