//! What a bucket says is stored, and how that differs from the store. Pure. Nothing in the bucket is trusted: a manifest counts
//! only if its key, names, guids, sizes and counts agree with each other and with the listing.

use std::collections::{HashMap, HashSet};

use crate::backup::{Backup, Link};
use crate::chain::{Member, recoverable};
use crate::keys::{self, Kind, Parsed};
use crate::manifest::{Manifest, Stream};
use crate::store::format::{Contents, Entry, State};

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
    let Some(Parsed { snapshot_name, link, kind: Kind::Manifest }) = keys::parse(prefix, key) else {
        return Err("its key is not a manifest's".to_string().into());
    };
    manifest.checked_chunks()?;
    let backup = Backup { snapshot: manifest.snapshot, base: manifest.base };
    if backup.link() != link || backup.snapshot.name != snapshot_name {
        return Err(match key.strip_suffix(&keys::manifest("", &backup)) {
            Some(other) if other != prefix => Why::OtherPrefix(other.to_string()),
            _ => "it is of another backup than its key says".to_string().into(),
        });
    }
    let entry = entry_of_own(prefix, backup, manifest.stream, sizes);
    entry.map_err(Why::Wrong)
}

fn entry_of_own(
    prefix: &str,
    backup: Backup,
    stream: Stream,
    sizes: &HashMap<&str, u64>,
) -> Result<Entry, String> {
    if let Some(base) = &backup.base {
        crate::names::check_point_name(&base.name, "@#")
            .map_err(|why| format!("its base '{}': {why}", base.name))?;
    }
    if !stream.storage_class.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
        return Err("its storage class is none".to_string());
    }
    for (number, segment) in (1..).zip(&stream.segments) {
        if segment.key != keys::segment(prefix, &backup, number) {
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
        state: State::Stored,
        stream: Some(stream.without_chunks()),
    })
}

/// What was found in the bucket.
#[derive(Default)]
pub struct Found {
    /// The backups whose manifests and data are there.
    pub entries: Vec<Entry>,
    /// Those whose manifests are there, and of no use: name and link.
    pub unread: HashSet<(String, Link)>,
    /// The keys of the Python tool's objects.
    pub python: HashSet<String>,
}

/// How the bucket and the store differ.
#[derive(Debug, Default, PartialEq)]
pub struct Difference {
    /// In the bucket, not in the store, and restorable: in the order in which they were stored.
    pub to_add: Vec<Entry>,
    /// In the store, and in the bucket otherwise, or under another name: what the store says, and what the bucket does.
    pub to_replace: Vec<(String, Entry)>,
    /// In the bucket, but no chain leads to their base.
    pub unsound: Vec<String>,
    /// In the store, and not in the bucket.
    pub lost: Vec<String>,
    /// In the bucket under two names (a snapshot that was renamed), of which the store's counts, else the first.
    pub twice: Vec<String>,
    pub same: usize,
}

pub fn compare(store: &Contents, found: Found) -> Difference {
    let mut difference = Difference::default();
    let known: HashMap<Link, &Entry> = store.entries.iter().map(|entry| (entry.link(), entry)).collect();
    let (mut entries, twice) = one_for_each_link(found.entries, &known);
    difference.twice = twice;
    let by_link: HashMap<Link, &Entry> = entries.iter().map(|entry| (entry.link(), entry)).collect();
    let mut borne_out: HashSet<Link> = HashSet::new();
    let mut otherwise: HashMap<Link, String> = HashMap::new();
    for entry in store.entries.iter().filter(|entry| entry.state == State::Stored) {
        let name = entry.backup().to_string();
        match by_link.get(&entry.link()) {
            Some(there) if there.stream == entry.stream => {
                difference.same += 1;
                borne_out.insert(entry.link());
            }
            _ if entry.stream.is_none() && found.python.contains(&keys::python(&entry.backup())) => {
                borne_out.insert(entry.link());
            }
            Some(_) => {
                otherwise.insert(entry.link(), name);
            }
            None if found.unread.contains(&(entry.snapshot.name.clone(), entry.link())) => {}
            None => difference.lost.push(name),
        }
    }
    entries.retain(|entry| !known.contains_key(&entry.link()) || otherwise.contains_key(&entry.link()));
    // what the bucket does not bear out leads nowhere
    let members = borne_out.into_iter().chain(entries.iter().map(Entry::link));
    let reached = recoverable(&members.map(|link| Member { link, intact: true }).collect::<Vec<_>>());
    let (sound, unsound): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|entry| entry.link().base.is_none_or(|base| reached.contains(&base)));
    difference.unsound = unsound.iter().map(|entry| entry.backup().to_string()).collect();
    for entry in in_order(sound) {
        match otherwise.remove(&entry.link()) {
            Some(name) => difference.to_replace.push((name, entry)),
            None => difference.to_add.push(entry),
        }
    }
    difference
}

/// The store's, else the one of the store's name, else the first; and the others' names.
fn one_for_each_link(mut entries: Vec<Entry>, known: &HashMap<Link, &Entry>) -> (Vec<Entry>, Vec<String>) {
    entries.sort_by_key(|entry| match known.get(&entry.link()) {
        Some(known) => (known.stream != entry.stream, known.snapshot.name != entry.snapshot.name),
        None => (false, false),
    });
    let mut seen = HashSet::new();
    let (first, others): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|entry| seen.insert(entry.link()));
    (first, others.iter().map(|entry| entry.backup().to_string()).collect())
}

/// As they were stored: by time, and where that is the same, a base before what hangs on it.
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
    let is_snapshot = |name: &str| crate::names::check_point_name(name, "@").is_ok();
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
