//! The newest snapshot of each dataset that the store can restore. Pure.
//!
//! A snapshot is older than one that was sent as the changes since it. Among those of which that says
//! nothing, the time decides at which they were created; their manifests have it, but not the store, and not
//! those of older versions. Without it, the one that was stored first counts as the older one.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::format::{Contents, Entry, State};
use crate::chain;
use crate::model::backup::Point;
use crate::model::names::{Guid, dataset_of, short_name};
use crate::model::utc::Utc;

/// What can be restored, by dataset.
pub struct Restorable<'a> {
    contents: &'a Contents,
    recoverable: HashSet<Guid>,
    datasets: BTreeMap<&'a str, HashMap<Guid, Found<'a>>>,
}

/// When snapshots were created, as far as that is known.
pub type Created = HashMap<Guid, Utc>;

#[derive(Clone, Copy)]
struct Found<'a> {
    /// When it was created, or else stored first.
    order: (Option<Utc>, usize),
    point: &'a Point,
}

impl<'a> Restorable<'a> {
    pub fn of(contents: &'a Contents, created: &Created) -> Self {
        let recoverable = chain::recoverable(&contents.members());
        let mut datasets: BTreeMap<&str, HashMap<Guid, Found>> = BTreeMap::new();
        let found = |(n, entry): (usize, &'a Entry)| {
            let stored = entry.stream.as_ref().map(|stream| stream.stored);
            let order = (created.get(&entry.snapshot.guid).copied().or(stored), n);
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
        self.may_be_newest(dataset).into_iter().next()
    }

    /// Those that no other was sent as the changes since: the newest is among them. By time, the latest first.
    pub fn may_be_newest(&self, dataset: &str) -> Vec<&'a Point> {
        let Some(snapshots) = self.datasets.get(dataset) else { return Vec::new() };
        let is_of_dataset = |entry: &&Entry| dataset_of(&entry.snapshot.name) == dataset;
        let bases = self.incrementals().filter(is_of_dataset).filter_map(|entry| entry.link().base);
        let older: HashSet<Guid> = bases.collect();
        let mut found: Vec<&Found> = snapshots.values().collect();
        // in a damaged store, all may be bases of each other
        if found.iter().any(|found| !older.contains(&found.point.guid)) {
            found.retain(|found| !older.contains(&found.point.guid));
        }
        found.sort_by_key(|found| std::cmp::Reverse(found.order));
        found.into_iter().map(|found| found.point).collect()
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

    /// The snapshots of other datasets that this dataset is a clone of.
    pub fn origins(&self, dataset: &str) -> Vec<Guid> {
        let is_clone =
            |entry: &&Entry| dataset_of(&entry.snapshot.name) == dataset && entry.backup().is_clone();
        self.incrementals().filter(is_clone).filter_map(|entry| entry.link().base).collect()
    }

    /// A snapshot by its guid.
    pub fn point(&self, dataset: &str, guid: Guid) -> Option<&'a Point> {
        self.datasets.get(dataset)?.get(&guid).map(|found| found.point)
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
        Restorable::of(&contents, &Created::new())
            .newest(dataset)
            .map_or("none".to_string(), |point| point.name.clone())
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
    fn a_bypass_that_was_stored_later_is_not_newer() {
        // A to C are bypassed by C<A after Z was stored, and the rest is removed
        let mut contents = store("A, C<A, Y, Z<Y");
        let stored = |n: usize| contents.entries[n].stream.as_ref().unwrap().stored;
        let (before, after) = (stored(0), stored(3));
        contents.entries[1].stream.as_mut().unwrap().stored = after.plus_days(1).unwrap();
        let guid = super::super::history::guid;
        let newest =
            |created: &Created| Restorable::of(&contents, created).newest("tank/a").unwrap().name.clone();
        assert_eq!(newest(&Created::new()), "tank/a@C", "by the times of storing alone");
        assert_eq!(newest(&Created::from([(guid("C"), before), (guid("Z"), after)])), "tank/a@Z");
        let restorable = Restorable::of(&contents, &Created::new());
        assert_eq!(restorable.may_be_newest("tank/a").len(), 2);
    }

    #[test]
    fn a_renamed_dataset_has_a_later_name() {
        let mut contents = store("A, B<A, n/C<n/B");
        assert_eq!(Restorable::of(&contents, &Created::new()).later_name("tank/a"), Some("tank/n"));
        assert_eq!(Restorable::of(&contents, &Created::new()).later_name("tank/n"), None);
        // a clone is another dataset
        contents = store("A, B<A, n/C<B");
        assert_eq!(Restorable::of(&contents, &Created::new()).later_name("tank/a"), None);
        assert_eq!(
            Restorable::of(&contents, &Created::new()).origins("tank/n"),
            [super::super::history::guid("B")]
        );
        // it went on under its old name, too: what was renamed is a copy
        contents = store("A, B<A, n/C<n/A");
        assert_eq!(Restorable::of(&contents, &Created::new()).later_name("tank/a"), None);
    }
}
