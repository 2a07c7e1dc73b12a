//! The chain rule (`rule`), what follows from it for retention (`retention`), and two models that test them:
//! `model` compares them with brute force, `protocol` tries all orders in which several hosts may follow the
//! rule. Pure.

#[cfg(test)]
mod model;
#[cfg(test)]
mod protocol;
mod retention;
mod rule;

pub use retention::{best_bypass, in_order, removable};
pub use rule::{
    Member, Settled, UploadConflict, check_abort, check_remove, check_upload, lengths, recoverable, route_to,
    settle,
};
