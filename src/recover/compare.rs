//! How the bucket and the store differ, and which of the differences `recover` may take into the store. Pure.

use std::collections::{HashMap, HashSet};

use crate::chain::{Member, recoverable};
use crate::model::backup::Link;
use crate::model::copy::CopyName;
use crate::model::keys;
use crate::state::store::format::{Contents, Entry, State};

/// What a scan of the bucket has found.
#[derive(Default)]
pub struct BucketScan {
    /// The copies whose manifests and data are there.
    pub entries: Vec<Entry>,
    /// Those whose removal a host has announced, other than this one.
    pub announced: HashSet<CopyName>,
    /// Those whose manifests are there, and cannot be used.
    pub unreadable: HashSet<CopyName>,
    /// The keys of the Python tool's objects.
    pub python: HashSet<String>,
}

/// How the bucket and the store differ.
#[derive(Debug, Default, PartialEq)]
pub struct Difference {
    /// In the bucket, not in the store, and can be restored: in the order in which they were stored.
    pub to_add: Vec<Entry>,
    /// In the store, but the bucket's copy differs, is another one, or has another name: the store's copy,
    /// and the bucket's entry.
    pub to_replace: Vec<(CopyName, Entry)>,
    /// Marked `removing` in the store, and whole in the bucket.
    pub to_revive: Vec<Entry>,
    /// In the bucket, but their base cannot be restored, or is being removed.
    pub unrestorable: Vec<String>,
    /// In the store, and not in the bucket.
    pub lost: Vec<String>,
    /// Additional copies of a backup, any of which could be removed.
    pub spare: Vec<Entry>,
    /// In the bucket and not in the store, and a host is removing them.
    pub announced: Vec<Entry>,
    /// How many are the same in both.
    pub same: usize,
}

impl Difference {
    /// Can everything in the bucket and in the store be restored?
    pub fn is_sound(&self) -> bool {
        self.unrestorable.is_empty() && self.lost.is_empty() && self.announced.is_empty()
    }

    pub fn additions(&self) -> usize {
        self.to_add.len() + self.to_replace.len() + self.to_revive.len()
    }
}

pub fn compare(store: &Contents, scan: BucketScan) -> Difference {
    let mut difference = Difference::default();
    let known: HashMap<CopyName, &Entry> = store.entries.iter().map(|entry| (entry.copy(), entry)).collect();
    let links: HashMap<Link, &Entry> =
        store.entries.iter().filter(|e| e.state == State::Stored).map(|e| (e.link(), e)).collect();
    let BucketScan { entries, announced, unreadable, python } = scan;
    let (removing, entries): (Vec<Entry>, Vec<Entry>) = entries
        .into_iter()
        .partition(|entry| known.get(&entry.copy()).is_some_and(|known| known.state == State::Removing));
    let python_ones = store.entries.iter().filter(|entry| {
        let key = keys::python(&entry.backup());
        entry.state == State::Removing && entry.stream.is_none() && python.contains(&key)
    });
    let revived = python_ones.map(|e| Entry { state: State::Stored, removal: None, ..e.clone() });
    difference.to_revive =
        removing.into_iter().chain(revived).filter(|entry| !announced.contains(&entry.copy())).collect();
    let (being_removed, entries): (Vec<Entry>, Vec<Entry>) = entries
        .into_iter()
        .partition(|entry| announced.contains(&entry.copy()) && !known.contains_key(&entry.copy()));
    difference.announced = being_removed;
    let (mut entries, spare) = one_for_each_link(entries, &links);
    difference.spare = spare;
    let by_link: HashMap<Link, &Entry> = entries.iter().map(|entry| (entry.link(), entry)).collect();
    // a copy announced for removal cannot be the base of one that is added now
    let mut confirmed: HashSet<Link> = HashSet::new();
    let mut differing: HashMap<Link, CopyName> = HashMap::new();
    for entry in store.entries.iter().filter(|entry| entry.state == State::Stored) {
        let mut confirm = || {
            if !announced.contains(&entry.copy()) {
                confirmed.insert(entry.link());
            }
        };
        match by_link.get(&entry.link()) {
            Some(there)
                if there.stream == entry.stream
                    && there.copy() == entry.copy()
                    && there.kept == entry.kept =>
            {
                difference.same += 1;
                confirm();
            }
            _ if entry.stream.is_none() && python.contains(&keys::python(&entry.backup())) => confirm(),
            Some(_) => {
                differing.insert(entry.link(), entry.copy());
            }
            None if unreadable.contains(&entry.copy()) => {}
            None => difference.lost.push(entry.backup().to_string()),
        }
    }
    entries.retain(|entry| !links.contains_key(&entry.link()) || differing.contains_key(&entry.link()));
    // and neither can an entry that the bucket does not confirm
    let usable = |entry: &&Entry| !announced.contains(&entry.copy());
    let new = entries.iter().chain(&difference.to_revive).filter(usable).map(Entry::link);
    let member = |link| Member { link, whole: true, announced: false };
    let reached = recoverable(&confirmed.into_iter().chain(new).map(member).collect::<Vec<_>>());
    let is_sound = |entry: &Entry| entry.link().base.is_none_or(|base| reached.contains(&base));
    difference.to_revive.retain(is_sound);
    let (sound, unrestorable): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(is_sound);
    difference.unrestorable = unrestorable.iter().map(|entry| entry.backup().to_string()).collect();
    for entry in in_order(sound) {
        match differing.remove(&entry.link()) {
            Some(copy) => difference.to_replace.push((copy, entry)),
            None => difference.to_add.push(entry),
        }
    }
    difference
}

/// Of the copies of each backup, the one in the store, else the one with the store's name, else the oldest;
/// and all others.
fn one_for_each_link(mut entries: Vec<Entry>, known: &HashMap<Link, &Entry>) -> (Vec<Entry>, Vec<Entry>) {
    entries.sort_by_key(|entry| {
        let stored = entry.stream.as_ref().map(|stream| stream.stored);
        match known.get(&entry.link()) {
            Some(known) => (
                known.copy() != entry.copy() || known.stream != entry.stream,
                known.snapshot.name != entry.snapshot.name,
                stored,
            ),
            None => (false, false, stored),
        }
    });
    let mut seen = HashSet::new();
    entries.into_iter().partition(|entry| seen.insert(entry.link()))
}

/// In the order in which they were stored: by time, and at the same time a base before what depends on it.
fn in_order(mut entries: Vec<Entry>) -> Vec<Entry> {
    let mut depths: HashMap<Link, usize> = HashMap::new();
    let mut frontier: Vec<Link> =
        entries.iter().map(Entry::link).filter(|link| link.base.is_none()).collect();
    let mut by_base: HashMap<_, Vec<Link>> = HashMap::new();
    for link in entries.iter().map(Entry::link) {
        by_base.entry(link.base).or_default().push(link);
    }
    let mut depth = 0;
    while !frontier.is_empty() {
        let new: Vec<Link> =
            frontier.drain(..).filter(|link| depths.insert(*link, depth).is_none()).collect();
        frontier =
            new.iter().flat_map(|link| by_base.remove(&Some(link.snapshot)).unwrap_or_default()).collect();
        depth += 1;
    }
    entries.sort_by_key(|entry| {
        let time = entry.stream.as_ref().map(|stream| stream.stored);
        (time, depths.get(&entry.link()).copied(), entry.link())
    });
    entries
}

/// Does this key look like an object of the older Python tool? Its backups cannot be recovered: its keys
/// contain no guids.
pub fn is_python_key(key: &str) -> bool {
    let mut names = key.split(" <- ");
    let is_snapshot = |name: &str| crate::model::names::check_point_name(name, "@").is_ok();
    names.clone().count() <= 2 && names.all(is_snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::store::history::{store, written};

    /// The bucket's backups, and how the store differs: only what is not empty.
    fn difference(in_store: &str, in_bucket: &str) -> String {
        compared(in_store, BucketScan { entries: store(in_bucket).entries, ..BucketScan::default() })
    }

    fn compared(in_store: &str, scan: BucketScan) -> String {
        let found = compare(&store(in_store), scan);
        let names = |names: &[String]| names.join(", ").replace("tank/a@", "");
        let replaced = found.to_replace.iter().map(|(_, there)| there);
        let parts = [
            ("add", written(&found.to_add)),
            ("replace", written(replaced)),
            ("revive", written(&found.to_revive)),
            ("unrestorable", names(&found.unrestorable)),
            ("lost", names(&found.lost)),
            ("spare", written(&found.spare)),
            ("announced", written(&found.announced)),
        ];
        let mut words: Vec<String> = parts
            .iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(what, text)| format!("{what} {text}"))
            .collect();
        words.extend((found.same > 0).then(|| format!("same {}", found.same)));
        words.join("; ")
    }

    #[test]
    fn each_difference() {
        for (in_store, in_bucket, expected) in [
            // the same in both
            ("", "", ""),
            ("A, B<A", "A, B<A", "same 2"),
            // what the store lacks is added if it can be restored
            ("", "A, B<A, C<B", "add A, B<A, C<B"),
            ("A", "A, B<A, C<B", "add B<A, C<B; same 1"),
            ("", "B<A, C<B", "unrestorable -i A B, -i B C"),
            ("A", "A, C<B", "unrestorable -i B C; same 1"),
            ("", "B<A, A<B", "unrestorable -i B A, -i A B"),
            // what the bucket lacks is lost, and cannot be a base
            ("A, B<A", "A", "lost -i A B; same 1"),
            ("A, B<A", "A, C<B", "unrestorable -i B C; lost -i A B; same 1"),
            // what differs, or is only another copy, is replaced
            ("A:10", "A:11", "replace A"),
            ("A", "A'", "replace A'"),
            ("A, B<A", "A', B<A", "replace A'; same 1"),
            // all copies but one are spare: the store's stays, or else the older one
            ("A", "A, A'", "spare A'; same 1"),
            ("A'", "A, A'", "spare A; same 1"),
            ("", "A', A", "add A; spare A'"),
            // an interrupted removal can be cancelled while the backup is whole
            ("A, B<A!", "A, B<A", "revive B<A; same 1"),
            ("A, B<A!", "A", "same 1"),
            ("A!, A', B<A", "A', B<A", "same 2"),
        ] {
            assert_eq!(difference(in_store, in_bucket), expected, "'{in_store}' and '{in_bucket}'");
        }
    }

    #[test]
    fn what_another_host_is_removing_is_neither_added_nor_a_base() {
        let scan = |in_bucket: &str, removed: &str| BucketScan {
            entries: store(in_bucket).entries,
            announced: store(removed).entries.iter().map(Entry::copy).collect(),
            ..BucketScan::default()
        };
        assert_eq!(compared("", scan("A, B<A", "B<A")), "add A; announced B<A");
        assert_eq!(compared("A", scan("A, B<A", "A")), "unrestorable -i A B; same 1");
    }

    #[test]
    fn what_cannot_be_read_is_not_called_lost() {
        let unreadable = store("A").entries.iter().map(Entry::copy).collect();
        assert_eq!(compared("A", BucketScan { unreadable, ..BucketScan::default() }), "");
    }

    #[test]
    fn python_keys() {
        for key in ["tank/src@s1", "tank/src@s2 <- tank/src@s1"] {
            assert!(is_python_key(key), "{key}");
        }
        for key in ["tank/src", "README.zfs2s3.txt", "a@b <- c@d <- e@f", "tank@a/0000000000000001-full.zfs"]
        {
            assert!(!is_python_key(key), "{key}");
        }
    }
}
