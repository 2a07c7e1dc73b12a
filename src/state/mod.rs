//! What is kept on this host, in the data folder: the store, the journal of the pending upload, the lock; and durable writing.

pub mod durable;
pub mod journal;
pub mod lock;
pub mod store;
