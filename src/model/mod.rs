//! The vocabulary of all other parts: names and guids, backups and their copies, object keys, manifests,
//! chunks, digests, units and times. Pure: no files, no network, no environment.

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
