//! The newest snapshot of each dataset that the store can restore. Pure.
//!
//! The store has no times of snapshots. A snapshot is older than one that was sent as the changes since it;
//! among those of which that says nothing, the one that was stored first is the older one.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::format::{Contents, Entry, State};
use crate::chain::{self, Member};
use crate::model::backup::Point;
use crate::model::names::{Guid, dataset_of, short_name};
use crate::model::utc::Utc;

/// What can be restored, by dataset.
pub struct Restorable<'a> {
    contents: &'a Contents,
    recoverable: HashSet<Guid>,
    /// Of each snapshot: when it was stored first.
    datasets: BTreeMap<&'a str, HashMap<Guid, Found<'a>>>,
}

#[derive(Clone, Copy)]
struct Found<'a> {
    order: (Option<Utc>, usize),
    point: &'a Point,
}

impl<'a> Restorable<'a> {
    pub fn of(contents: &'a Contents) -> Self {
        let member = |entry: &Entry| Member { link: entry.link(), whole: is_stored(entry), announced: false };
        let members: Vec<Member> = contents.entries.iter().map(member).collect();
        let recoverable = chain::recoverable(&members);
        let mut datasets: BTreeMap<&str, HashMap<Guid, Found>> = BTreeMap::new();
        let found = |(n, entry): (usize, &'a Entry)| {
            let order = (entry.stream.as_ref().map(|stream| stream.stored), n);
            Found { order, point: &entry.snapshot }
        };
        let stored = contents.entries.iter().enumerate().filter(|(_, entry)| is_stored(entry)).map(found);
        for found in stored.filter(|found| recoverable.contains(&found.point.guid)) {
            let dataset = datasets.entry(dataset_of(&found.point.name)).or_default();
            let first = dataset.entry(found.point.guid).or_insert(found);
            if found.order < first.order {
                *first = found;
            }
        }
        Restorable { contents, recoverable, datasets }
    }

    pub fn datasets(&self) -> impl Iterator<Item = &'a str> {
        self.datasets.keys().copied()
    }

    /// The newest snapshot of this dataset.
    pub fn newest(&self, dataset: &str) -> Option<&'a Point> {
        let snapshots = self.datasets.get(dataset)?;
        let is_of_dataset = |entry: &&Entry| dataset_of(&entry.snapshot.name) == dataset;
        let bases = self.incrementals().filter(is_of_dataset).filter_map(|entry| entry.link().base);
        let older: HashSet<Guid> = bases.collect();
        let newest = snapshots.values().filter(|found| !older.contains(&found.point.guid));
        // in a damaged store, all may be bases of each other
        let newest = newest.max_by_key(|found| found.order);
        newest.or_else(|| snapshots.values().max_by_key(|found| found.order)).map(|found| found.point)
    }

    /// The snapshot of this dataset with this name; if there are several, the newest.
    pub fn named(&self, dataset: &str, name: &str) -> Option<&'a Point> {
        let named = |found: &&Found| short_name(&found.point.name) == name;
        let found = self.datasets.get(dataset)?.values().filter(named).max_by_key(|found| found.order);
        found.map(|found| found.point)
    }

    /// The name that a dataset had later, if it was renamed after its newest snapshot was stored: that is the
    /// base of a backup whose base has the new name.
    pub fn later_name(&self, dataset: &str) -> Option<&'a str> {
        let newest = self.newest(dataset)?.guid;
        let continues = |entry: &&Entry| entry.link().base == Some(newest) && !entry.backup().is_clone();
        let names = self.incrementals().filter(continues).map(|entry| dataset_of(&entry.snapshot.name));
        names.filter(|name| *name != dataset).max()
    }

    /// The datasets with the origins of which this dataset may be a clone.
    pub fn origins(&self, dataset: &str) -> Vec<&'a str> {
        let is_clone =
            |entry: &&Entry| dataset_of(&entry.snapshot.name) == dataset && entry.backup().is_clone();
        let bases: HashSet<Guid> =
            self.incrementals().filter(is_clone).filter_map(|entry| entry.link().base).collect();
        let has_one = |snapshots: &HashMap<Guid, Found>| snapshots.keys().any(|guid| bases.contains(guid));
        self.datasets.iter().filter(|(_, snapshots)| has_one(snapshots)).map(|(name, _)| *name).collect()
    }

    fn incrementals(&self) -> impl Iterator<Item = &'a Entry> + '_ {
        let entries = self.contents.entries.iter();
        entries.filter(|entry| is_stored(entry) && self.recoverable.contains(&entry.snapshot.guid))
    }
}

fn is_stored(entry: &Entry) -> bool {
    entry.state == State::Stored
}

#[cfg(test)]
mod tests {
    use super::super::history::store;
    use super::*;

    fn newest(history: &str, dataset: &str) -> String {
        let contents = store(history);
        Restorable::of(&contents).newest(dataset).map_or("none".to_string(), |point| point.name.clone())
    }

    #[test]
    fn the_newest_is_no_base_and_was_stored_last() {
        assert_eq!(newest("A, B<A, C<B", "tank/a"), "tank/a@C");
        assert_eq!(newest("A, B<A, C<B, B<A'", "tank/a"), "tank/a@C", "stored again");
        assert_eq!(newest("A, C<A, B<A", "tank/a"), "tank/a@C", "their times, not their places");
        assert_eq!(newest("A, D, E<D!", "tank/a"), "tank/a@D", "being removed");
        assert_eq!(newest("A, C<B", "tank/a"), "tank/a@A", "not recoverable");
        assert_eq!(newest("C<B", "tank/a"), "none");
        assert_eq!(newest("A", "tank/b"), "none");
        // a bypass is stored later than what it leads to, and the first backup of that is gone
        assert_eq!(newest("A, Z<Y, Y<A", "tank/a"), "tank/a@Z");
    }

    #[test]
    fn a_renamed_dataset_has_a_later_name() {
        let mut contents = store("A, B<A, n/C<n/B");
        assert_eq!(Restorable::of(&contents).later_name("tank/a"), Some("tank/n"));
        assert_eq!(Restorable::of(&contents).later_name("tank/n"), None);
        // a clone is another dataset
        contents = store("A, B<A, n/C<B");
        assert_eq!(Restorable::of(&contents).later_name("tank/a"), None);
        assert_eq!(Restorable::of(&contents).origins("tank/n"), ["tank/a"]);
        // it went on under its old name, too: what was renamed is a copy
        contents = store("A, B<A, n/C<n/A");
        assert_eq!(Restorable::of(&contents).later_name("tank/a"), None);
    }
}
