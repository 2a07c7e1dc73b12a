//! Chunks sent and fetched by several threads, with as many in memory as there are jobs, and one.

pub mod fetch;
pub mod pipeline;
