//! What a bucket says is stored, and how that differs from the store. Pure. Nothing in the bucket is trusted: a manifest counts
//! only if its key, names, guids, sizes and counts agree with each other and with the listing.

use std::collections::{HashMap, HashSet};

use crate::chain::{Member, recoverable};
use crate::model::backup::{Backup, Link};
use crate::model::copy::CopyName;
use crate::model::keys::{self, Kind, Parsed};
use crate::model::manifest::{Manifest, Stream};
use crate::state::store::format::{Contents, Entry, State};

/// Why a manifest is passed over.
#[derive(Debug, PartialEq, Eq)]
pub enum Why {
    Wrong(String),
    /// It would be right under this one.
    OtherPrefix(String),
}

impl From<String> for Why {
    fn from(why: String) -> Self {
        Why::Wrong(why)
    }
}

/// The store's entry that a manifest at `key` stands for. `sizes`: the listing.
pub fn entry_of(
    prefix: &str,
    key: &str,
    manifest: Manifest,
    sizes: &HashMap<&str, u64>,
) -> Result<Entry, Why> {
    let Some(Parsed { copy, kind: Kind::Manifest }) = keys::parse(prefix, key) else {
        return Err("its key is not a manifest's".to_string().into());
    };
    let backup = Backup { snapshot: manifest.snapshot, base: manifest.base };
    if backup.link() != copy.link || backup.snapshot.name != copy.name {
        let own = CopyName { name: backup.snapshot.name.clone(), link: backup.link(), id: copy.id };
        return Err(match key.strip_suffix(&keys::manifest("", &own)) {
            Some(other) if other != prefix => Why::OtherPrefix(other.to_string()),
            _ => "it is of another backup than its key says".to_string().into(),
        });
    }
    let entry = entry_of_own(prefix, &copy, backup, manifest.stream, sizes);
    entry.map_err(Why::Wrong)
}

fn entry_of_own(
    prefix: &str,
    copy: &CopyName,
    backup: Backup,
    stream: Stream,
    sizes: &HashMap<&str, u64>,
) -> Result<Entry, String> {
    if let Some(base) = &backup.base {
        crate::model::names::check_point_name(&base.name, "@#")
            .map_err(|why| format!("its base '{}': {why}", base.name))?;
    }
    if !stream.storage_class.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
        return Err("its storage class is none".to_string());
    }
    for (number, segment) in (1..).zip(&stream.segments) {
        if segment.key != keys::segment(prefix, copy, number) {
            return Err(format!("its segment {number} has a key that is not its own"));
        }
        match sizes.get(segment.key.as_str()) {
            None => return Err(format!("the bucket has no object '{}'", segment.key)),
            Some(there) if *there != segment.size => {
                return Err(format!("the object '{}' has {there} bytes, not {}", segment.key, segment.size));
            }
            Some(_) => {}
        }
    }
    Ok(Entry {
        snapshot: backup.snapshot,
        base: backup.base,
        id: copy.id,
        state: State::Stored,
        removal: None,
        stream: Some(stream),
    })
}

/// What was found in the bucket.
#[derive(Default)]
pub struct Found {
    /// The copies whose manifests and data are there.
    pub entries: Vec<Entry>,
    /// Those whose removal somebody has announced.
    pub announced: HashSet<CopyName>,
    /// Those whose manifests are there, and unusable.
    pub unread: HashSet<CopyName>,
    /// The keys of the Python tool's objects.
    pub python: HashSet<String>,
}

/// How the bucket and the store differ.
#[derive(Debug, Default, PartialEq)]
pub struct Difference {
    /// In the bucket, not in the store, and restorable: in the order in which they were stored.
    pub to_add: Vec<Entry>,
    /// In the store, and in the bucket differently, as another copy, or under another name: what the store says, and what the
    /// bucket does.
    pub to_replace: Vec<(CopyName, Entry)>,
    /// Marked `removing` in the store, and whole in the bucket.
    pub to_revive: Vec<Entry>,
    /// In the bucket, but no chain leads to their base.
    pub unsound: Vec<String>,
    /// In the store, and not in the bucket.
    pub lost: Vec<String>,
    /// Further copies of what is taken: each of them could go.
    pub spare: Vec<Entry>,
    /// In the bucket and not in the store, and somebody is removing them.
    pub announced: Vec<Entry>,
    pub same: usize,
}

pub fn compare(store: &Contents, found: Found) -> Difference {
    let mut difference = Difference::default();
    let known: HashMap<CopyName, &Entry> = store.entries.iter().map(|entry| (entry.copy(), entry)).collect();
    let links: HashMap<Link, &Entry> =
        store.entries.iter().filter(|e| e.state == State::Stored).map(|e| (e.link(), e)).collect();
    let Found { entries, announced, unread, python } = found;
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
    // what is announced is no route to anything that is added now
    let mut confirmed: HashSet<Link> = HashSet::new();
    let mut differing: HashMap<Link, CopyName> = HashMap::new();
    for entry in store.entries.iter().filter(|entry| entry.state == State::Stored) {
        let mut confirm = || {
            if !announced.contains(&entry.copy()) {
                confirmed.insert(entry.link());
            }
        };
        match by_link.get(&entry.link()) {
            Some(there) if there.stream == entry.stream && there.copy() == entry.copy() => {
                difference.same += 1;
                confirm();
            }
            _ if entry.stream.is_none() && python.contains(&keys::python(&entry.backup())) => confirm(),
            Some(_) => {
                differing.insert(entry.link(), entry.copy());
            }
            None if unread.contains(&entry.copy()) => {}
            None => difference.lost.push(entry.backup().to_string()),
        }
    }
    entries.retain(|entry| !links.contains_key(&entry.link()) || differing.contains_key(&entry.link()));
    // what the bucket does not confirm leads nowhere
    let usable = |entry: &&Entry| !announced.contains(&entry.copy());
    let new = entries.iter().chain(&difference.to_revive).filter(usable).map(Entry::link);
    let member = |link| Member { link, whole: true, announced: false };
    let reached = recoverable(&confirmed.into_iter().chain(new).map(member).collect::<Vec<_>>());
    let is_sound = |entry: &Entry| entry.link().base.is_none_or(|base| reached.contains(&base));
    difference.to_revive.retain(is_sound);
    let (sound, unsound): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(is_sound);
    difference.unsound = unsound.iter().map(|entry| entry.backup().to_string()).collect();
    for entry in in_order(sound) {
        match differing.remove(&entry.link()) {
            Some(copy) => difference.to_replace.push((copy, entry)),
            None => difference.to_add.push(entry),
        }
    }
    difference
}

/// The store's, else the one of the store's name, else the oldest; and the others.
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

/// As they were stored: by time, and where that is the same, a base before what depends on it.
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

/// Does this key look like an object of the older Python tool? Its backups cannot be taken up: the keys bear no guids.
pub fn is_python_key(key: &str) -> bool {
    let mut names = key.split(" <- ");
    let is_snapshot = |name: &str| crate::model::names::check_point_name(name, "@").is_ok();
    names.clone().count() <= 2 && names.all(is_snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;

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
