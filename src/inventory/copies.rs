//! What the store and a listing say about each copy of each backup. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::listing::Listing;
use super::scope::Scope;
use crate::chain::Member;
use crate::model::backup::{self, Link};
use crate::model::copy::{CopyName, Id};
use crate::model::keys::{self, ObjectKind, Parsed};
use crate::model::names::Guid;
use crate::state::store::format::{Contents, Entry, State};

/// One copy of a backup, according to the store and the listing.
pub struct CopyState {
    pub name: CopyName,
    /// The name of its base, or its guid.
    base: Option<String>,
    pub in_store: Option<State>,
    /// Why it is not whole.
    pub lost: Option<String>,
    /// The listing shows its manifest and its data.
    pub listed: bool,
    /// There is only an open upload.
    pub only_open: bool,
    /// Its manifest was read, or the store has it.
    pub confirmed: bool,
    /// It is valid under another prefix, and only hosts with that prefix can restore it.
    pub elsewhere: bool,
    /// Its removal has begun, and nothing of it was seen.
    pub gone: bool,
    pub announcements: Vec<Id>,
    /// The backup is marked, and must not be removed.
    pub kept: bool,
}

impl CopyState {
    /// As an argument of `remove`.
    pub fn shown(&self) -> String {
        backup::shown(self.base.as_deref(), &self.name.name)
    }

    /// Those that name it to a command. None if it is not in the store: then it is not removed by its names.
    pub fn arguments(&self) -> Option<String> {
        self.in_store?;
        Some(backup::arguments(self.base.as_deref(), &self.name.name))
    }

    /// For the chain rule. `hopeful`: if it is only listed, it counts as whole. `own`: this host's announcement,
    /// which does not count, and its copy.
    pub fn member(&self, hopeful: bool, own: Option<(&CopyName, Id)>) -> Member {
        let is_own = |nonce: &Id| own == Some((&self.name, *nonce));
        let link = self.name.link;
        Member {
            link: if self.gone { Link { base: None, ..link } } else { link },
            whole: self.lost.is_none() && !self.elsewhere && (self.confirmed || hopeful),
            announced: !self.announcements.iter().all(is_own),
        }
    }
}

/// `scope`: what was listed; none: everything. `listing`: none if listing is forbidden; then the store alone
/// decides.
pub fn copy_states(contents: &Contents, scope: Option<&Scope>, listing: Option<&Listing>) -> Vec<CopyState> {
    let sizes: Option<HashMap<&str, u64>> =
        listing.map(|l| l.objects.iter().map(|o| (o.key.as_str(), o.size)).collect());
    let python = contents.entries.iter().filter(|e| e.stream.is_none()).map(Entry::copy).collect();
    let mut seen = listed_copies(&contents.prefix, listing.unwrap_or(&Listing::default()), &python);
    let objects = listing.iter().flat_map(|listing| &listing.objects);
    let kept: HashSet<Link> =
        objects.filter_map(|o| keys::kept_backup(&contents.prefix, &o.key, o.size)).collect();
    let mut copies = Vec::new();
    for entry in contents.entries.iter().filter(|entry| scope.is_none_or(|scope| scope.has(entry))) {
        let name = entry.copy();
        let seen = seen.remove(&name);
        let lost = match &sizes {
            Some(sizes) => what_is_lost(entry, &contents.prefix, sizes),
            // it is unknown what the removal has left
            None => (entry.state == State::Removing).then(|| "it is being removed".to_string()),
        };
        copies.push(CopyState {
            gone: entry.state == State::Removing && seen.is_none() && lost.is_some(),
            listed: lost.is_none(),
            only_open: false,
            base: entry.base.as_ref().map(|base| base.name.clone()),
            in_store: Some(entry.state),
            lost,
            confirmed: true,
            elsewhere: false,
            // without a listing, what this host knows
            kept: if listing.is_some() { kept.contains(&name.link) } else { entry.kept },
            announcements: seen.unwrap_or_default().announcements,
            name,
        });
    }
    let bases: HashSet<Guid> = seen.keys().filter_map(|name| name.link.base).collect();
    let mut names: HashMap<Guid, String> = HashMap::new();
    let points = contents.entries.iter().map(|entry| &entry.snapshot);
    for point in points.filter(|point| bases.contains(&point.guid)) {
        names.insert(point.guid, point.name.clone());
    }
    for name in seen.keys().filter(|name| bases.contains(&name.link.snapshot)) {
        names.entry(name.link.snapshot).or_insert_with(|| name.name.clone());
    }
    for (name, seen) in seen {
        let base = name.link.base;
        copies.push(CopyState {
            base: base.map(|guid| names.get(&guid).cloned().unwrap_or_else(|| guid.to_string())),
            in_store: None,
            listed: seen.what_is_lost().is_none(),
            only_open: !seen.manifest && seen.segments.is_empty(),
            lost: seen.what_is_lost(),
            confirmed: false,
            elsewhere: false,
            gone: false,
            announcements: seen.announcements,
            kept: kept.contains(&name.link),
            name,
        });
    }
    copies
}

#[derive(Default)]
struct ListedCopy {
    manifest: bool,
    /// The numbers of its segments.
    segments: Vec<u32>,
    announcements: Vec<Id>,
}

/// The first object of a backup that is missing, or has another size.
fn what_is_lost(entry: &Entry, prefix: &str, sizes: &HashMap<&str, u64>) -> Option<String> {
    let expected = entry.stream.iter().flat_map(|stream| &stream.segments);
    let expected: HashMap<&str, u64> = expected.map(|s| (s.key.as_str(), s.size)).collect();
    entry.keys(prefix).into_iter().find_map(|key| {
        match (sizes.get(key.as_str()), expected.get(key.as_str())) {
            (None, _) => Some(format!("the bucket has no object '{key}'")),
            (Some(there), Some(size)) if there != size => {
                Some(format!("the object '{key}' has {there} bytes, not {size}"))
            }
            _ => None,
        }
    })
}

impl ListedCopy {
    fn what_is_lost(&self) -> Option<String> {
        match (self.manifest, self.segments.contains(&1)) {
            (true, true) => None,
            (false, _) => Some(
                "its manifest is not in the bucket: another host may be storing or removing it".to_string(),
            ),
            (true, false) => Some("its data are not in the bucket".to_string()),
        }
    }
}

fn listed_copies(
    prefix: &str,
    listing: &Listing,
    python: &HashSet<CopyName>,
) -> BTreeMap<CopyName, ListedCopy> {
    let mut found: BTreeMap<CopyName, ListedCopy> = BTreeMap::new();
    for object in &listing.objects {
        let Some(Parsed { copy, kind }) = keys::parse(prefix, &object.key) else { continue };
        if matches!(kind, ObjectKind::Keep(_)) {
            // not of one copy
            continue;
        }
        let seen = found.entry(copy).or_default();
        match kind {
            ObjectKind::Manifest => seen.manifest = true,
            ObjectKind::Segment(number) => seen.segments.push(number),
            // an empty announcement is withdrawn
            ObjectKind::Removing(_) if object.size == 0 => {}
            ObjectKind::Removing(nonce) => seen.announcements.push(nonce),
            ObjectKind::Keep(_) => {}
        }
    }
    for upload in &listing.uploads {
        if let Some(parsed) = keys::parse(prefix, &upload.key) {
            found.entry(parsed.copy).or_default();
        }
    }
    // an announcement without any other object means nothing
    let open: HashSet<CopyName> =
        listing.uploads.iter().filter_map(|u| Some(keys::parse(prefix, &u.key)?.copy)).collect();
    let is_there = |copy: &CopyName, seen: &ListedCopy| {
        seen.manifest || !seen.segments.is_empty() || open.contains(copy) || python.contains(copy)
    };
    found.retain(|copy, seen| is_there(copy, seen));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::reply::{ListedUpload, Object};
    use crate::state::store::history::store;

    /// All objects of these backups, in another host's listing.
    fn listing(history: &str) -> Listing {
        let contents = store(history);
        let objects = contents.entries.iter().flat_map(|entry| {
            let size = |key: &str| if key.ends_with(".yml") { 99 } else { entry.size().unwrap_or_default() };
            entry.keys("").into_iter().map(move |key| object(&key, size(&key)))
        });
        Listing { objects: objects.collect(), ..Listing::default() }
    }

    fn object(key: &str, size: u64) -> Object {
        Object { key: key.to_string(), size, modified: String::new(), etag: String::new() }
    }

    fn stem(history: &str) -> String {
        keys::stem("", &store(history).entries[0].copy())
    }

    /// `A stored whole`, `-i A B listed lost announced`, one for each copy.
    fn states(contents: &str, listing: Option<&Listing>) -> Vec<String> {
        let copies = copy_states(&store(contents), None, listing);
        let text = |copy: &CopyState| {
            let mut words = vec![copy.shown().replace("tank/a@", "")];
            words.push(match copy.in_store {
                Some(State::Stored) => "stored".to_string(),
                Some(State::Removing) => "removing".to_string(),
                None => "listed".to_string(),
            });
            words.push(if copy.lost.is_none() { "whole" } else { "lost" }.to_string());
            for (is_so, word) in
                [(copy.only_open, "open"), (copy.gone, "gone"), (!copy.announcements.is_empty(), "announced")]
            {
                words.extend(is_so.then(|| word.to_string()));
            }
            words.join(" ")
        };
        copies.iter().map(text).collect()
    }

    #[test]
    fn a_stored_copy_is_whole_if_all_its_objects_are_listed_with_their_sizes() {
        let all = listing("A, B<A");
        assert_eq!(states("A, B<A", Some(&all)), ["A stored whole", "-i A B stored whole"]);
        let mut fewer = listing("A, B<A");
        fewer.objects.retain(|object| object.key != format!("{}.yml", stem("A").trim_end_matches('.')));
        assert_eq!(states("A, B<A", Some(&fewer)), ["A stored lost", "-i A B stored whole"]);
        let larger = listing("A:11, B<A");
        assert_eq!(states("A, B<A", Some(&larger)), ["A stored lost", "-i A B stored whole"]);
        assert_eq!(states("A", Some(&listing("A'"))), ["A stored lost", "A listed whole"], "another copy");
    }

    #[test]
    fn without_a_listing_the_store_decides() {
        assert_eq!(states("A, B<A!", None), ["A stored whole", "-i A B removing lost gone"]);
    }

    #[test]
    fn a_copy_that_only_the_listing_knows_needs_its_manifest_and_its_data() {
        assert_eq!(states("A", Some(&listing("A, B<A"))), ["A stored whole", "-i A B listed whole"]);
        for suffix in [".yml", ".zfs"] {
            let mut half = listing("B<A");
            half.objects.retain(|object| object.key.ends_with(suffix));
            assert_eq!(states("", Some(&half)), ["-i 65 B listed lost"], "only {suffix}");
        }
    }

    #[test]
    fn an_open_upload_is_a_copy() {
        let key = format!("{}zfs", stem("B<A") + if stem("B<A").ends_with('.') { "" } else { "." });
        let upload = ListedUpload { key, upload_id: "id".to_string(), initiated: None };
        let open = Listing { uploads: vec![upload], ..listing("A") };
        assert_eq!(states("A", Some(&open)), ["A stored whole", "-i A B listed lost open"]);
    }

    #[test]
    fn an_announcement_counts_only_beside_other_objects_and_until_it_is_withdrawn() {
        let announced = |size| {
            let key = keys::announcement("", &store("A").entries[0].copy(), Id(7));
            let mut listing = listing("A");
            listing.objects.push(object(&key, size));
            listing
        };
        assert_eq!(states("A", Some(&announced(50))), ["A stored whole announced"]);
        assert_eq!(states("A", Some(&announced(0))), ["A stored whole"], "withdrawn");
        let mut alone = announced(50);
        alone.objects.retain(|object| object.key.contains("removing"));
        assert_eq!(states("", Some(&alone)), Vec::<String>::new());
    }

    #[test]
    fn a_removal_that_has_deleted_everything_is_recognized() {
        assert_eq!(states("A!", Some(&Listing::default())), ["A removing lost gone"]);
        let mut data = listing("A");
        data.objects.retain(|object| object.key.ends_with(".zfs"));
        assert_eq!(states("A!", Some(&data)), ["A removing lost"]);
        assert_eq!(states("A!", Some(&listing("A"))), ["A removing whole"]);
    }
}
