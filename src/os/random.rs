//! Random numbers, for IDs and pauses. The standard library seeds each hasher from the operating system.

use std::hash::{BuildHasher, Hasher};

use crate::model::copy::Id;

fn number() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// From 0 to 1.
pub fn fraction() -> f64 {
    number() as f64 / u64::MAX as f64
}

/// No secret, but nothing can make them shorter.
pub fn bytes(count: usize) -> Vec<u8> {
    std::iter::repeat_with(|| number().to_le_bytes()).flatten().take(count).collect()
}

/// A new ID: one in 4 billion, among the copies of one backup.
pub fn id() -> Id {
    let number = number();
    Id((number >> 32) as u32 ^ number as u32)
}
