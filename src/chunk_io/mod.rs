//! Chunks sent and fetched by several threads, with as many in memory as there are jobs, and one.

pub mod each;
pub mod fetch;
pub mod pipeline;
