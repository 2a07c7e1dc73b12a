//! Parallel input and output of chunks, in bounded memory: one chunk for each connection in use, and one
//! more.

pub mod buffers;
pub mod concurrency;
pub mod each;
pub mod fetch;
pub mod send;
