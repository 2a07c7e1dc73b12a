//! Rebuilding the store from the bucket. `scan` reads the bucket, `compare` decides what may be taken into
//! the store, `leftovers` and `hidden` report what else is there, and `cancel` withdraws removals that will
//! never be completed.

pub mod cancel;
pub mod compare;
pub mod hidden;
mod leftovers;
pub mod scan;

use crate::state::store::format::{Contents, State};
use compare::Difference;

/// Takes into the store what the bucket has.
pub fn merge(contents: &mut Contents, difference: Difference) {
    let Difference { to_add, to_replace, to_revive, .. } = difference;
    let entries = &mut contents.entries;
    for (copy, there) in to_replace {
        entries.iter_mut().filter(|entry| entry.copy() == copy).for_each(|entry| *entry = there.clone());
    }
    for there in to_revive {
        // unless another copy is stored
        let is_stored = entries.iter().any(|e| e.link() == there.link() && e.state == State::Stored);
        entries.retain(|entry| entry.copy() != there.copy());
        if !is_stored {
            entries.push(there);
        }
    }
    for entry in to_add {
        if entries.iter().all(|e| e.link() != entry.link() || e.state == State::Removing) {
            entries.push(entry);
        }
    }
    // in the order in which they were stored; those of the Python tool, whose times are unknown, stay first
    entries.sort_by_key(|entry| entry.stream.as_ref().map(|stream| stream.stored));
}
