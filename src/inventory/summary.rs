//! How the store and the listing differ, for the doctor.

use super::Inventory;
use crate::model::copy::CopyName;
use crate::state::store::format::State;

/// The copies of backups, as arguments of `remove`.
#[derive(Debug, Default, PartialEq)]
pub struct Summary {
    /// How many are in the store, and whole in the bucket.
    pub whole: usize,
    /// In the store, and not whole in the bucket: with the reason.
    pub lost: Vec<String>,
    /// This host has begun to remove them.
    pub removing: Vec<String>,
    /// Another host has announced their removal.
    pub announced: Vec<String>,
    /// In the bucket only.
    pub only_in_bucket: Vec<String>,
    /// In the bucket only, and incomplete.
    pub incomplete: Vec<String>,
}

impl Inventory<'_> {
    /// Of the copies that `counts` selects, which gets the name of each, and its state in the store.
    pub fn summary(&self, counts: impl Fn(&CopyName, Option<State>) -> bool) -> Summary {
        let mut summary = Summary::default();
        for copy in self.copies.iter().filter(|copy| counts(&copy.name, copy.in_store)) {
            let shown = copy.shown();
            match (copy.in_store, &copy.lost) {
                (Some(State::Removing), _) => summary.removing.push(shown.clone()),
                (Some(State::Stored), Some(why)) => summary.lost.push(format!("'{shown}': {why}")),
                (Some(State::Stored), None) => summary.whole += 1,
                (None, None) => summary.only_in_bucket.push(shown.clone()),
                (None, Some(_)) if copy.only_open => {}
                (None, Some(_)) => summary.incomplete.push(shown.clone()),
            }
            if !copy.announcements.is_empty() && copy.in_store != Some(State::Removing) {
                summary.announced.push(shown);
            }
        }
        summary
    }

    /// The names of all copies.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.copies.iter().map(|copy| copy.name.name.as_str())
    }
}
