//! The chain rule (`rule`), and two models that test it: `model` compares it with brute force, `protocol`
//! tries all orders in which several hosts may follow it. Pure.

#[cfg(test)]
mod model;
#[cfg(test)]
mod protocol;
mod rule;

pub use rule::{
    Member, Settled, UploadConflict, check_abort, check_remove, check_upload, lengths, recoverable, route_to,
    settle,
};
