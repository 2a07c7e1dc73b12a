//! Parallel input and output of chunks. At most jobs + 1 chunks are in memory.

pub mod each;
pub mod fetch;
pub mod send;
