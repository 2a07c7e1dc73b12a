//! What is stored, by the store and by the bucket's listing together: what the chain rule is asked about.
//!
//! - A copy that the store knows is whole if the listing has all its objects, with their sizes.
//! - A copy that only the listing knows (another host's, or of a store that was lost) counts as one that depends on its base, in
//!   whatever state: stored, announced for removal, data only, an upload that is still open. It counts as a route only
//!   after its manifest was read, and never as the base of a new upload: this host could not restore it.
//! - Without the permission to list, the store alone decides.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::announcement::{self, Announcement};
use crate::backup::{Backup, Link};
use crate::chain::{self, Member, Settled, UploadConflict, recoverable};
use crate::copy::{CopyName, Id};
use crate::error::{Error, Result};
use crate::keys::{self, Kind, Parsed};
use crate::names::{Guid, dataset_of};
use crate::readme;
use crate::recover::{Why, entry_of};
use crate::s3::client::Client;
use crate::s3::reply::{Object, Upload};
use crate::store::format::{Contents, Entry, State};
use crate::ui::Ui;

const RECOVER: &str = "'zfs2s3 recover -m' adds to the store what is in the bucket";

/// What the bucket holds under the store's prefix.
#[derive(Default)]
pub struct Listing {
    pub objects: Vec<Object>,
    pub uploads: Vec<Upload>,
    pub has_readme: bool,
}

/// Does what is decided depend on uploads that are still open?
#[derive(Clone, Copy, PartialEq)]
pub enum Uploads {
    Listed,
    NotAsked,
}

impl Listing {
    /// None where listing is forbidden. Open uploads are listed first: one that is completed in between is seen among the
    /// objects then.
    pub fn read(client: &Client, contents: &Contents, ui: &Ui, uploads: Uploads) -> Result<Option<Self>> {
        let prefix = contents.prefix.as_str();
        let uploads = match uploads {
            Uploads::NotAsked => Vec::new(),
            Uploads::Listed => match client.list_uploads(prefix) {
                Ok(uploads) => uploads,
                Err(failure) if failure.says_forbidden() || failure.is_not_supported() => Vec::new(),
                Err(failure) => return Err(failure.into()),
            },
        };
        let python: HashSet<String> = contents
            .entries
            .iter()
            .filter(|entry| entry.stream.is_none())
            .flat_map(|entry| entry.keys(prefix))
            .collect();
        let readme = readme::key(prefix);
        let ours = |object: &Object| {
            keys::parse(prefix, &object.key).is_some() || python.contains(&object.key) || object.key == readme
        };
        match client.list_objects(prefix, ours) {
            Ok(objects) => {
                let has_readme = objects.iter().any(|object| object.key == readme);
                Ok(Some(Listing { objects, uploads, has_readme }))
            }
            Err(failure) if failure.says_forbidden() => {
                ui.warning_once(&format!(
                    "may not list the bucket ({}): the store alone decides what is stored",
                    failure.describe()
                ));
                Ok(None)
            }
            Err(failure) => Err(failure.into()),
        }
    }
}

/// One copy of a backup, as the store and the listing show it.
struct Held {
    name: CopyName,
    /// As a `remove` command takes it.
    shown: String,
    in_store: Option<State>,
    /// Why it is not whole.
    lost: Option<String>,
    /// The listing shows its manifest and its data.
    listed: bool,
    /// An upload is open, and nothing else of it is there.
    only_open: bool,
    /// Its manifest was read, or the store has it.
    confirmed: bool,
    /// It is right under another prefix, whose hosts can restore it; this one cannot.
    elsewhere: bool,
    /// Its removal has begun, and nothing of it was seen.
    gone: bool,
    announcements: Vec<Id>,
}

#[derive(Default)]
struct Seen {
    manifest: bool,
    /// Sizes of its segments, by number.
    segments: BTreeMap<u32, u64>,
    announcements: Vec<Id>,
}

pub struct Inventory<'a> {
    client: &'a Client,
    prefix: &'a str,
    listing: Option<Listing>,
    held: Vec<Held>,
}

impl<'a> Inventory<'a> {
    pub fn read(client: &'a Client, contents: &'a Contents, ui: &Ui, uploads: Uploads) -> Result<Self> {
        let listing = Listing::read(client, contents, ui, uploads)?;
        let sizes: Option<HashMap<&str, u64>> =
            listing.as_ref().map(|l| l.objects.iter().map(|o| (o.key.as_str(), o.size)).collect());
        let python = contents.entries.iter().filter(|e| e.stream.is_none()).map(Entry::copy).collect();
        let mut seen = seen(&contents.prefix, listing.as_ref().unwrap_or(&Listing::default()), &python);
        let mut held = Vec::new();
        for entry in &contents.entries {
            let name = entry.copy();
            let seen = seen.remove(&name);
            let lost = match &sizes {
                Some(sizes) => what_is_lost(entry, &contents.prefix, sizes),
                // what a removal has left of it is not known
                None => (entry.state == State::Removing).then(|| "it is being removed".to_string()),
            };
            held.push(Held {
                gone: entry.state == State::Removing && seen.is_none(),
                listed: lost.is_none(),
                only_open: false,
                shown: entry.backup().to_string(),
                in_store: Some(entry.state),
                lost,
                confirmed: true,
                elsewhere: false,
                announcements: seen.unwrap_or_default().announcements,
                name,
            });
        }
        let mut names: HashMap<Guid, String> =
            contents.entries.iter().map(|e| (e.snapshot.guid, e.snapshot.name.clone())).collect();
        for name in seen.keys() {
            names.entry(name.link.snapshot).or_insert_with(|| name.name.clone());
        }
        for (name, seen) in seen {
            let base = name.link.base;
            let base = base.map(|guid| names.get(&guid).cloned().unwrap_or_else(|| guid.to_string()));
            let option = base.map(|base| format!("-i {base} ")).unwrap_or_default();
            held.push(Held {
                shown: option + &name.name,
                in_store: None,
                listed: seen.what_is_lost().is_none(),
                only_open: !seen.manifest && seen.segments.is_empty(),
                lost: seen.what_is_lost(),
                confirmed: false,
                elsewhere: false,
                gone: false,
                announcements: seen.announcements,
                name,
            });
        }
        drop(sizes);
        Ok(Inventory { client, prefix: &contents.prefix, listing, held })
    }

    /// None where listing is forbidden.
    pub fn listing(&self) -> Option<&Listing> {
        self.listing.as_ref()
    }

    /// Are the objects of this copy there: any at all?
    pub fn place_of(&self, name: &CopyName) -> Option<usize> {
        self.held.iter().position(|held| held.name == *name)
    }

    /// Is this copy whole, as far as the listing tells?
    pub fn is_whole(&self, name: &CopyName) -> bool {
        self.place_of(name).is_some_and(|n| self.held[n].lost.is_none())
    }

    /// All objects of a copy but its announcements, the manifest first, and the announcements.
    pub fn objects_of(&self, name: &CopyName) -> (Vec<String>, Vec<String>) {
        let stem = keys::stem(self.prefix, name);
        let objects = self.listing.iter().flat_map(|listing| &listing.objects);
        let mut keys: Vec<(Option<Kind>, String)> = objects
            .filter(|object| object.key.starts_with(&stem))
            .filter_map(|object| {
                Some((Some(keys::parse(self.prefix, &object.key)?.kind), object.key.clone()))
            })
            .collect();
        keys.sort_by_key(|(kind, _)| *kind != Some(Kind::Manifest));
        let is_announcement = |(kind, _): &(Option<Kind>, String)| matches!(kind, Some(Kind::Removing(_)));
        let (announcements, data): (Vec<_>, Vec<_>) = keys.into_iter().partition(is_announcement);
        let bare = |keys: Vec<(Option<Kind>, String)>| keys.into_iter().map(|(_, key)| key).collect();
        (bare(data), bare(announcements))
    }

    /// `own`: this host's announcement, which does not count, and the copy that it is beside.
    fn members(&self, hopeful: bool, own: Option<(&CopyName, Id)>) -> Vec<Member> {
        let member = |held: &Held| {
            let is_own = |nonce: &Id| own == Some((&held.name, *nonce));
            let link = held.name.link;
            Member {
                link: if held.gone { Link { base: None, ..link } } else { link },
                whole: held.lost.is_none() && !held.elsewhere && (held.confirmed || hopeful),
                announced: !held.announcements.iter().all(is_own),
            }
        };
        self.held.iter().map(member).collect()
    }

    /// May this backup be stored? Only what the store knows can be its base. What is left of a copy that is not whole is in
    /// nobody's way: a new one has keys of its own.
    pub fn check_upload(&self, backup: &Backup) -> Result<()> {
        let link = backup.link();
        if let Some(held) =
            self.held.iter().find(|h| h.name.link == link && h.in_store == Some(State::Removing))
        {
            return Err(Error::refused(format!("'{}' is being removed", held.shown)).hint(format!(
                "'zfs2s3 remove {0}' continues the removal; 'zfs2s3 recover -m' takes it back, if it is still whole",
                held.shown
            )));
        }
        // of another name: a renamed dataset, or another prefix below this one
        let in_the_way = |held: &&Held| held.in_store.is_some() || held.name.name == backup.snapshot.name;
        let copies = || self.held.iter().filter(|held| held.name.link == link && held.lost.is_none());
        if let Some(held) = copies().find(in_the_way) {
            return Err(self.already_stored(backup, held));
        }
        match chain::check_upload(&self.members(false, None), link) {
            // checked above, by name
            Ok(()) | Err(UploadConflict::AlreadyStored) => Ok(()),
            Err(UploadConflict::BaseNotRecoverable(_)) => Err(self.base_not_recoverable(backup)),
            Err(UploadConflict::BaseAnnounced(guid)) => Err(self.base_announced(backup, guid)),
        }
    }

    fn already_stored(&self, backup: &Backup, held: &Held) -> Error {
        match held.in_store {
            Some(_) if held.shown != backup.to_string() => Error::refused(format!(
                "'{backup}' is stored already, as '{}': the guids are the same",
                held.shown
            )),
            Some(_) => Error::refused(format!("'{backup}' is stored already")),
            None => Error::refused(format!(
                "'{backup}' is in the bucket already, though not in the store: another host may have stored it"
            ))
            .hint(RECOVER),
        }
    }

    /// What to tell the user about other copies of this backup.
    pub fn notes(&self, backup: &Backup) -> Vec<String> {
        let copies = self.held.iter().filter(|held| held.name.link == backup.link());
        let note = |held: &Held| match (&held.in_store, &held.lost) {
            (Some(_), Some(lost)) => {
                Some(format!("the store has '{}', but {lost}: it is stored again", held.shown))
            }
            (None, None) => Some(format!(
                "the bucket has it already, as '{}', which this store does not know",
                held.name.name
            )),
            _ => None,
        };
        copies.filter_map(note).collect()
    }

    fn base_not_recoverable(&self, backup: &Backup) -> Error {
        let base = backup.base.as_ref().map(|base| base.name.as_str()).unwrap_or_default();
        let error = Error::refused(format!("no stored chain of backups leads to the base {base}"));
        let leads_there = |held: &&Held| Some(held.name.link.snapshot) == backup.link().base;
        let useless = |held: &&Held| held.lost.is_some() || held.in_store.is_none();
        match self.held.iter().filter(leads_there).find(useless) {
            Some(Held { in_store: None, shown, .. }) => {
                error.hint(format!("'{shown}' is in the bucket, but not in this host's store")).hint(RECOVER)
            }
            Some(Held { shown, lost, .. }) => {
                error.hint(format!("'{shown}' is in the store, but {}", lost.as_deref().unwrap_or_default()))
            }
            None => error.hint(format!("upload {base} first, or leave out -i for a full backup")),
        }
    }

    fn base_announced(&self, backup: &Backup, base: Guid) -> Error {
        let name = backup.base.as_ref().map(|base| base.name.as_str()).unwrap_or_default();
        let error = Error::refused(format!(
            "the base {name} is being removed, or a backup that it depends on is: {}",
            self.removers_of_chain(base)
        ));
        error.hint(WHEN_IT_HAS_ENDED).hint(IF_IT_DIED)
    }

    /// Who is removing the chain to this snapshot, for messages.
    fn removers_of_chain(&self, guid: Guid) -> String {
        let mut members = self.members(true, None);
        members.iter_mut().for_each(|member| member.announced = false);
        let chain = chain::route_to(&members, guid, None).unwrap_or_default();
        let announced = chain.iter().map(|n| &self.held[*n]).find(|held| !held.announcements.is_empty());
        announced.map_or("by an unknown host".to_string(), |held| {
            format!("'{}', by {}", held.shown, self.removers(held))
        })
    }

    fn removers(&self, held: &Held) -> String {
        let who = |nonce: &Id| {
            let key = keys::announcement(self.prefix, &held.name, *nonce);
            match self.client.get(&key, announcement::MAX_LEN) {
                Ok(said) => Announcement::describe(&said),
                Err(failure) if failure.is_missing() => "a host that has ended it since".to_string(),
                Err(_) => Announcement::describe(b""),
            }
        };
        held.announcements.iter().map(who).collect::<Vec<_>>().join(", ")
    }

    /// May this backup, whose upload is pending, still be stored? It is asked before anything more is sent.
    pub fn check_resume(&self, backup: &Backup) -> Result<()> {
        let others: Vec<Member> =
            self.members(false, None).into_iter().filter(|member| member.link != backup.link()).collect();
        match chain::check_upload(&others, backup.link()) {
            Ok(()) | Err(UploadConflict::AlreadyStored) => Ok(()),
            Err(UploadConflict::BaseNotRecoverable(_)) => Err(self.base_not_recoverable(backup)),
            Err(UploadConflict::BaseAnnounced(guid)) => Err(self.base_announced(backup, guid).for_now()),
        }
    }

    /// May the upload of this copy be called stored? The listing must be one after its manifest was written.
    pub fn settle(&mut self, name: &CopyName, segments: &HashMap<String, u64>) -> Result<Settled> {
        let Some(own) = self.place_of(name) else { return Ok(Settled::NotWhole) };
        let sizes: HashMap<&str, u64> =
            self.listing.iter().flat_map(|l| &l.objects).map(|o| (o.key.as_str(), o.size)).collect();
        let there = segments.iter().all(|(key, size)| sizes.get(key.as_str()) == Some(size));
        self.held[own].confirmed = there;
        if let Some(base) = name.link.base {
            self.confirm_route(base, Some(own), None)?;
        }
        let mut members = self.members(false, None);
        members[own].whole &= there;
        Ok(chain::settle(&members, own))
    }

    /// Who removes the copy, or the chain to its base, for messages.
    pub fn removers_of(&self, name: &CopyName) -> String {
        match self.place_of(name).map(|n| &self.held[n]) {
            Some(held) if !held.announcements.is_empty() => {
                format!("'{}', by {}", held.shown, self.removers(held))
            }
            _ => name.link.base.map(|base| self.removers_of_chain(base)).unwrap_or_default(),
        }
    }

    /// May this copy be removed? `own`: this host's announcement of that.
    pub fn check_remove(&mut self, name: &CopyName, own: Option<Id>) -> Result<()> {
        self.check_removal(name, own, chain::check_remove)
    }

    /// May this upload, whose manifest is in the bucket, be aborted? Its base counts as lost only if the listing says so: a
    /// manifest that could not be read may be whole for another host.
    pub fn check_abort(&mut self, name: &CopyName, own: Option<Id>) -> Result<()> {
        let listed = |held: &Held| Member { link: held.name.link, whole: held.listed, announced: false };
        let as_listed: Vec<Member> = self.held.iter().map(listed).collect();
        self.check_removal(name, own, |members, old| chain::check_abort(members, &as_listed, old))
    }

    /// Is there another copy of the same backup that can be restored, and that nobody removes?
    pub fn has_another_copy(&mut self, name: &CopyName) -> Result<bool> {
        for n in 0..self.held.len() {
            let held = &self.held[n];
            if held.name == *name || held.name.link != name.link || !held.announcements.is_empty() {
                continue;
            }
            if !held.confirmed && held.lost.is_none() {
                self.confirm(n)?;
            }
            if self.held[n].lost.is_none() && !self.held[n].elsewhere {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn check_removal(
        &mut self,
        name: &CopyName,
        own: Option<Id>,
        rule: impl Fn(&[Member], usize) -> std::result::Result<(), Vec<usize>>,
    ) -> Result<()> {
        let Some(place) = self.place_of(name) else { return Ok(()) };
        let own = own.map(|nonce| (name, nonce));
        self.confirm_route(name.link.snapshot, Some(place), own)?;
        let members = self.members(false, own);
        let needed = match rule(&members, place) {
            Ok(()) => return Ok(()),
            Err(order) => order,
        };
        let mut in_the_way = Vec::new();
        for n in needed {
            if !self.stands_alone(&members, n, place)? {
                in_the_way.push(n);
            }
        }
        let needed = in_the_way;
        if needed.is_empty() {
            return Ok(());
        }
        let mut message = format!(
            "'{}' is needed to restore other backups, which would have to go first, in this order:",
            self.held[place].shown
        );
        for held in needed.iter().map(|n| &self.held[*n]) {
            let note = match held.in_store {
                _ if held.only_open => {
                    "  (an upload that is not finished; if no host is working on it, 'zfs2s3 recover -n' shows the \
                     command that ends it)"
                        .to_string()
                }
                _ if !held.announcements.is_empty() => {
                    format!("  (being removed by {})", self.removers(held))
                }
                Some(State::Removing) => "  (being removed)".to_string(),
                Some(State::Stored) => String::new(),
                None => match held.name.id {
                    Some(id) => format!("  (in the bucket as copy {id}, not in the store)"),
                    None => "  (in the bucket, not in the store)".to_string(),
                },
            };
            message.push_str(&format!("\n    {}{note}", held.shown));
        }
        let error = Error::refused(message).hint("nothing was removed");
        // the other way to them is being removed
        let mut quiet = members;
        quiet.iter_mut().for_each(|member| member.announced = false);
        let others = chain::route_to(&quiet, name.link.snapshot, Some(place)).unwrap_or_default();
        match others.iter().map(|n| &self.held[*n]).find(|held| !held.announcements.is_empty()) {
            Some(held) => Err(error.hint(format!(
                "another chain to them is being removed: '{}', by {}",
                held.shown,
                self.removers(held)
            ))),
            None => Err(error),
        }
    }

    /// Does this copy, of another dataset or below another prefix, have a chain of its own under its own name? Then it
    /// does not depend on `place`.
    fn stands_alone(&mut self, members: &[Member], n: usize, place: usize) -> Result<bool> {
        let (held, old) = (&self.held[n], &self.held[place]);
        let dataset = dataset_of(&held.name.name).to_string();
        let Some(base) = held.name.link.base else { return Ok(false) };
        if held.in_store.is_some() || dataset == dataset_of(&old.name.name) {
            return Ok(false);
        }
        loop {
            let mut own = members.to_vec();
            for (member, other) in own.iter_mut().zip(&self.held) {
                member.whole = other.lost.is_none() && dataset_of(&other.name.name) == dataset;
            }
            let Some(chain) = chain::route_to(&own, base, Some(place)) else { return Ok(false) };
            let unread: Vec<usize> = chain.into_iter().filter(|n| !self.held[*n].confirmed).collect();
            if unread.is_empty() {
                return Ok(true);
            }
            for n in unread {
                self.confirm(n)?;
            }
        }
    }

    /// Does a chain lead to this snapshot, without the copy at `without`? The manifests of those that only the listing knows
    /// are read for that, as far as they matter.
    fn confirm_route(
        &mut self,
        wanted: Guid,
        without: Option<usize>,
        own: Option<(&CopyName, Id)>,
    ) -> Result<bool> {
        loop {
            if chain::route_to(&self.members(false, own), wanted, without).is_some() {
                return Ok(true);
            }
            let Some(chain) = chain::route_to(&self.members(true, own), wanted, without) else {
                return Ok(false);
            };
            for n in chain.into_iter().filter(|n| Some(*n) != without) {
                if !self.held[n].confirmed {
                    self.confirm(n)?;
                }
            }
        }
    }

    fn confirm(&mut self, n: usize) -> Result<()> {
        let objects = self.listing.iter().flat_map(|listing| &listing.objects);
        let stem = keys::stem(self.prefix, &self.held[n].name);
        let sizes: HashMap<&str, u64> =
            objects.filter(|o| o.key.starts_with(&stem)).map(|o| (o.key.as_str(), o.size)).collect();
        let key = keys::manifest(self.prefix, &self.held[n].name);
        let data = sizes
            .iter()
            .filter(|(name, _)| **name != key)
            .fold(0u64, |sum, (_, size)| sum.saturating_add(*size));
        let read = match self.client.get_manifest(&key, data, false) {
            Ok(Ok(checked)) => entry_of(self.prefix, &key, checked.manifest, &sizes).map(|_| ()),
            Ok(Err(why)) => Err(Why::Wrong(why)),
            Err(failure) if failure.kind == crate::s3::failure::Kind::Final => {
                Err(Why::Wrong(failure.describe()))
            }
            Err(failure) => return Err(failure.into()),
        };
        let held = &mut self.held[n];
        held.confirmed = true;
        match read {
            Ok(()) => {}
            Err(Why::OtherPrefix(_)) => held.elsewhere = true,
            Err(Why::Wrong(why)) => held.lost = Some(format!("its manifest '{key}' cannot be used: {why}")),
        }
        Ok(())
    }

    /// Backups of the store that no chain reaches.
    pub fn unrecoverable(&self) -> Vec<String> {
        let mut members = self.members(false, None);
        members.iter_mut().for_each(|member| member.announced = false);
        let reached = recoverable(&members);
        let lost = |m: &Member| !m.whole || m.link.base.is_some_and(|base| !reached.contains(&base));
        let ours = |held: &Held| held.in_store == Some(State::Stored);
        let both = self.held.iter().zip(&members);
        both.filter(|(held, member)| ours(held) && lost(member)).map(|(held, _)| held.shown.clone()).collect()
    }
}

pub const WHEN_IT_HAS_ENDED: &str = "run the same command again when that removal has ended";
pub const IF_IT_DIED: &str = "if it was interrupted, the same 'zfs2s3 remove' on that host continues it; if that host is gone, \
                              'zfs2s3 recover -r HOST' takes its removals back";

/// Which of a backup's objects the bucket lacks, or has in another size.
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

impl Seen {
    fn what_is_lost(&self) -> Option<String> {
        match (self.manifest, self.segments.contains_key(&1)) {
            (true, true) => None,
            (false, _) => Some(
                "its manifest is not in the bucket: another host may be storing or removing it".to_string(),
            ),
            (true, false) => Some("its data are not in the bucket".to_string()),
        }
    }
}

fn seen(prefix: &str, listing: &Listing, python: &HashSet<CopyName>) -> BTreeMap<CopyName, Seen> {
    let mut found: BTreeMap<CopyName, Seen> = BTreeMap::new();
    for object in &listing.objects {
        let Some(Parsed { copy, kind }) = keys::parse(prefix, &object.key) else { continue };
        let seen = found.entry(copy).or_default();
        match kind {
            Kind::Manifest => seen.manifest = true,
            Kind::Segment(number) => {
                seen.segments.insert(number, object.size);
            }
            // an empty one is withdrawn
            Kind::Removing(_) if object.size == 0 => {}
            Kind::Removing(nonce) => seen.announcements.push(nonce),
        }
    }
    for upload in &listing.uploads {
        if let Some(parsed) = keys::parse(prefix, &upload.key) {
            found.entry(parsed.copy).or_default();
        }
    }
    // an announcement of what is gone, or never was, says nothing
    let open: HashSet<CopyName> =
        listing.uploads.iter().filter_map(|u| Some(keys::parse(prefix, &u.key)?.copy)).collect();
    let is_there = |copy: &CopyName, seen: &Seen| {
        seen.manifest || !seen.segments.is_empty() || open.contains(copy) || python.contains(copy)
    };
    found.retain(|copy, seen| is_there(copy, seen));
    found
}
