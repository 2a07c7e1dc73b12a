//! The files of this host, in the data folder: the store, the journal of the pending upload, the lock; and
//! how they are written durably.

pub mod archive_states;
pub mod durable;
mod informative;
pub mod journal;
pub mod lock;
pub mod store;
pub mod verified;
