//! What is stored, according to the store and the listing of the bucket together: the input of the chain
//! rule.
//!
//! - A copy that the store knows is whole if the listing has all its objects, with their sizes.
//! - A copy that only the listing knows (of another host, or of a lost store) depends on its base, whatever
//!   its state: stored, announced for removal, data only, or an open upload. It counts as a route only after
//!   its manifest was read, and never as the base of a new upload, since this host could not restore it.
//! - Without the permission to list, the store alone decides.

mod confirm;
mod copies;
mod listing;
mod messages;
pub mod read_manifest;
mod scope;
mod summary;

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::chain::{self, Member, Settled, UploadConflict, recoverable};
use crate::error::{Error, Result};
use crate::model::backup::{Backup, Link};
use crate::model::copy::{CopyName, Id};
use crate::model::keys::{self, ObjectKind};
use crate::model::names::{Guid, dataset_of};
use crate::s3::client::Client;
use crate::s3::reply::Object;
use crate::state::store::format::{Contents, State};
use crate::ui::Ui;
use copies::{CopyState, copy_states};
use scope::Scope;

pub use listing::{Listing, OpenUploads};
pub use messages::{IF_IT_DIED, WHEN_IT_HAS_ENDED};
pub use summary::Summary;

pub struct Inventory<'a> {
    client: &'a Client,
    prefix: &'a str,
    look: Look,
    copies: Vec<CopyState>,
}

/// What a listing has shown.
pub struct Look {
    /// None: everything was listed.
    scope: Option<Scope>,
    /// None: listing is forbidden.
    listing: Option<Listing>,
}

/// What a bypass could let go.
pub struct Bypasses<'a> {
    copies: &'a [CopyState],
    members: Vec<Member>,
    /// The places of the copies that lead to a snapshot, or start from it.
    of_snapshot: HashMap<Guid, Vec<usize>>,
    /// Of each copy; none: it must stay.
    bytes: Vec<Option<u64>>,
}

impl Bypasses<'_> {
    /// The bypass that lets the most bytes go: its snapshot and base, what could be removed then, in order, and
    /// how many bytes that is. `bases` and `snapshots` are on this host.
    pub fn best(&self, bases: &HashSet<Guid>, snapshots: &[Guid]) -> Option<(Link, Vec<CopyName>, u64)> {
        let places = self.connected(snapshots);
        let members: Vec<Member> = places.iter().map(|n| self.members[*n]).collect();
        let bytes = |n: usize| places.get(n).and_then(|n| self.bytes[*n]);
        let best = chain::best_bypass(&members, bytes, bases, snapshots)?;
        let names = best.freed.iter().map(|n| self.copies[places[*n]].name.clone()).collect();
        Some((Link { snapshot: best.to, base: Some(best.from) }, names, best.bytes))
    }

    /// The places of all copies that have to do with these snapshots, directly or not.
    fn connected(&self, snapshots: &[Guid]) -> Vec<usize> {
        let mut seen: HashSet<Guid> = snapshots.iter().copied().collect();
        let mut frontier = snapshots.to_vec();
        let mut places = BTreeSet::new();
        while let Some(guid) = frontier.pop() {
            for n in self.of_snapshot.get(&guid).into_iter().flatten() {
                places.insert(*n);
                let link = self.members[*n].link;
                frontier.extend(
                    std::iter::once(link.snapshot).chain(link.base).filter(|guid| seen.insert(*guid)),
                );
            }
        }
        places.into_iter().collect()
    }
}

impl<'a> Inventory<'a> {
    pub fn read(client: &'a Client, contents: &'a Contents, ui: &Ui, uploads: OpenUploads) -> Result<Self> {
        let listing = Listing::read(client, contents, ui, uploads)?;
        Ok(Self::of(client, contents, Look { scope: None, listing }))
    }

    /// Of the part on which backups of this dataset depend that start from one of these snapshots, or store
    /// one of them.
    pub fn read_for(
        client: &'a Client,
        contents: &'a Contents,
        ui: &Ui,
        dataset: &str,
        snapshots: impl IntoIterator<Item = Guid>,
    ) -> Result<Self> {
        if let Some(scope) = Scope::of(contents, dataset, snapshots)
            && let Some(listing) = Listing::read_part(client, contents, &scope)?
        {
            return Ok(Self::of(client, contents, Look { scope: Some(scope), listing: Some(listing) }));
        }
        // a policy may allow to list the prefix, and nothing else
        Self::read(client, contents, ui, OpenUploads::Skip)
    }

    pub fn of(client: &'a Client, contents: &'a Contents, look: Look) -> Self {
        let copies = copy_states(contents, look.scope.as_ref(), look.listing.as_ref());
        Inventory { client, prefix: &contents.prefix, look, copies }
    }

    pub fn into_look(self) -> Look {
        self.look
    }

    /// Was only a part listed? Then what it does not allow is to be decided by everything.
    pub fn is_part(&self) -> bool {
        self.look.scope.is_some()
    }

    /// Of everything, unless a policy allows to list only this part: then its answer stands.
    pub fn widened(self, contents: &'a Contents) -> Result<Self> {
        Ok(match Listing::try_read(self.client, contents, OpenUploads::Skip)? {
            Ok(listing) => Self::of(self.client, contents, Look { scope: None, listing: Some(listing) }),
            Err(_) => self,
        })
    }

    /// None: listing is forbidden.
    pub fn listing(&self) -> Option<&Listing> {
        self.look.listing.as_ref()
    }

    /// Those that were listed.
    fn objects(&self) -> impl Iterator<Item = &Object> {
        self.look.listing.iter().flat_map(|listing| &listing.objects)
    }

    /// The place of this copy, if the store or the listing has it.
    pub fn place_of(&self, name: &CopyName) -> Option<usize> {
        self.copies.iter().position(|copy| copy.name == *name)
    }

    /// Is this copy whole, according to the listing?
    pub fn is_whole(&self, name: &CopyName) -> bool {
        self.place_of(name).is_some_and(|n| self.copies[n].lost.is_none())
    }

    /// Is this object listed? Without a listing it may be there.
    pub fn may_have(&self, key: &str) -> bool {
        self.listing().is_none() || self.objects().any(|object| object.key == key)
    }

    /// All objects of a copy, the manifest first; and separately its announcements.
    pub fn objects_of(&self, name: &CopyName) -> (Vec<String>, Vec<String>) {
        let stem = keys::stem(self.prefix, name);
        let objects = self.objects();
        let mut keys: Vec<(ObjectKind, String)> = objects
            .filter(|object| object.key.starts_with(&stem))
            .filter_map(|object| Some((keys::parse(self.prefix, &object.key)?.kind, object.key.clone())))
            .collect();
        keys.sort_by_key(|(kind, _)| *kind != ObjectKind::Manifest);
        let (announcements, data): (Vec<_>, Vec<_>) =
            keys.into_iter().partition(|(kind, _)| matches!(kind, ObjectKind::Removing(_)));
        let bare = |keys: Vec<(ObjectKind, String)>| keys.into_iter().map(|(_, key)| key).collect();
        (bare(data), bare(announcements))
    }

    /// `own`: this host's announcement, which does not count, and its copy.
    fn members(&self, hopeful: bool, own: Option<(&CopyName, Id)>) -> Vec<Member> {
        self.copies.iter().map(|copy| copy.member(hopeful, own)).collect()
    }

    /// How many backups the shortest chain to each snapshot has that can be restored from the store.
    pub fn chain_lengths(&self) -> HashMap<Guid, usize> {
        chain::lengths(&self.members(false, None))
    }

    /// For [`Bypasses::best`] of one dataset after the other. What is `locked` stays.
    pub fn bypasses(&self, contents: &Contents, locked: &HashSet<CopyName>) -> Bypasses<'_> {
        let sizes: HashMap<CopyName, u64> =
            contents.entries.iter().filter_map(|entry| Some((entry.copy(), entry.size()?))).collect();
        let members = self.members(false, None);
        let mut of_snapshot: HashMap<Guid, Vec<usize>> = HashMap::new();
        for (n, member) in members.iter().enumerate() {
            for guid in std::iter::once(member.link.snapshot).chain(member.link.base) {
                of_snapshot.entry(guid).or_default().push(n);
            }
        }
        let bytes = |(n, copy): (usize, &CopyState)| {
            let may_go = self.is_for_removal(n) && !locked.contains(&copy.name);
            sizes.get(&copy.name).copied().filter(|_| may_go)
        };
        let bytes = self.copies.iter().enumerate().map(bytes).collect();
        Bypasses { copies: &self.copies, members, of_snapshot, bytes }
    }

    /// Does the bucket have a backup of this dataset that is not in the store?
    pub fn has_others_of(&self, dataset: &str) -> bool {
        let is_other = |copy: &CopyState| copy.in_store.is_none() && copy.lost.is_none();
        self.copies.iter().any(|copy| is_other(copy) && dataset_of(&copy.name.name) == dataset)
    }

    /// May this backup be stored? Its base must be in the store. The rest of a copy that is not whole does
    /// not prevent it: a new copy has its own keys.
    pub fn check_upload(&self, backup: &Backup) -> Result<()> {
        let link = backup.link();
        if let Some(copy) =
            self.copies.iter().find(|h| h.name.link == link && h.in_store == Some(State::Removing))
        {
            return Err(Error::refused(format!("'{}' is being removed", copy.shown())).hint(format!(
                "'zfs2s3 remove {0}' continues the removal; 'zfs2s3 recover -m' cancels it, if the backup is still whole",
                copy.shown()
            )));
        }
        // a copy with another name: of a renamed dataset, or under a longer prefix
        let in_the_way =
            |copy: &&CopyState| copy.in_store.is_some() || copy.name.name == backup.snapshot.name;
        let copies = || self.copies.iter().filter(|copy| copy.name.link == link && copy.lost.is_none());
        if let Some(copy) = copies().find(in_the_way) {
            return Err(self.already_stored(backup, copy));
        }
        match chain::check_upload(&self.members(false, None), link) {
            // already checked above, with the name
            Ok(()) | Err(UploadConflict::AlreadyStored) => Ok(()),
            Err(UploadConflict::BaseNotRecoverable(_)) => Err(self.base_not_recoverable(backup)),
            Err(UploadConflict::BaseAnnounced(guid)) => Err(self.base_announced(backup, guid)),
        }
    }

    /// Notes for the user about other copies of this backup.
    pub fn notes(&self, backup: &Backup) -> Vec<String> {
        let copies = self.copies.iter().filter(|copy| copy.name.link == backup.link());
        let note = |copy: &CopyState| match (&copy.in_store, &copy.lost) {
            (Some(_), Some(lost)) => {
                Some(format!("the store has '{}', but {lost}: it is stored again", copy.shown()))
            }
            (None, None) => Some(format!(
                "the bucket has this backup already, as '{}', which is not in this host's store",
                copy.name.name
            )),
            _ => None,
        };
        copies.filter_map(note).collect()
    }

    /// May this backup, whose upload is pending, still be stored? To be checked before anything more is sent.
    pub fn check_resume(&self, backup: &Backup) -> Result<()> {
        let others: Vec<Member> =
            self.members(false, None).into_iter().filter(|member| member.link != backup.link()).collect();
        match chain::check_upload(&others, backup.link()) {
            Ok(()) | Err(UploadConflict::AlreadyStored) => Ok(()),
            Err(UploadConflict::BaseNotRecoverable(_)) => Err(self.base_not_recoverable(backup)),
            Err(UploadConflict::BaseAnnounced(guid)) => Err(self.base_announced(backup, guid).for_now()),
        }
    }

    /// May this uploaded copy be called stored? The listing must be later than its manifest.
    pub fn settle(&mut self, name: &CopyName, segments: &HashMap<String, u64>) -> Result<Settled> {
        let Some(own) = self.place_of(name) else { return Ok(Settled::NotWhole) };
        let sizes: HashMap<&str, u64> = self.objects().map(|o| (o.key.as_str(), o.size)).collect();
        let there = segments.iter().all(|(key, size)| sizes.get(key.as_str()) == Some(size));
        self.copies[own].confirmed = there;
        if let Some(base) = name.link.base {
            self.confirm_route(base, Some(own), None)?;
        }
        let mut members = self.members(false, None);
        members[own].whole &= there;
        Ok(chain::settle(&members, own))
    }

    /// Does this copy belong to a store with another prefix?
    pub fn is_elsewhere(&mut self, name: &CopyName) -> Result<bool> {
        let Some(n) = self.place_of(name) else { return Ok(false) };
        if !self.copies[n].confirmed && self.copies[n].lost.is_none() {
            self.confirm(n)?;
        }
        Ok(self.copies[n].elsewhere)
    }

    /// Is there another copy of the same backup that can be restored, and that no host is removing?
    pub fn has_another_copy(&mut self, name: &CopyName) -> Result<bool> {
        for n in 0..self.copies.len() {
            let copy = &self.copies[n];
            if copy.name == *name || copy.name.link != name.link || !copy.announcements.is_empty() {
                continue;
            }
            if !copy.confirmed && copy.lost.is_none() {
                self.confirm(n)?;
            }
            if self.copies[n].lost.is_none() && !self.copies[n].elsewhere {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Backups in the store that cannot be restored.
    pub fn unrecoverable(&self) -> Vec<String> {
        let mut members = self.members(false, None);
        members.iter_mut().for_each(|member| member.announced = false);
        let reached = recoverable(&members);
        let lost = |m: &Member| !m.whole || m.link.base.is_some_and(|base| !reached.contains(&base));
        let ours = |copy: &CopyState| copy.in_store == Some(State::Stored);
        let both = self.copies.iter().zip(&members);
        both.filter(|(copy, member)| ours(copy) && lost(member)).map(|(copy, _)| copy.shown()).collect()
    }
}
