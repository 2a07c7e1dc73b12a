//! May a copy be removed? The rule is in `chain`. This file confirms the copies on which its answer depends,
//! by reading their manifests.

use std::collections::{HashMap, HashSet};

use super::read_manifest::{Chunks, ManifestRead, Rejection, entry_for, read_manifest};
use super::{CopyState, Inventory};
use crate::chain::{self, Member};
use crate::error::{Error, Result};
use crate::model::copy::{CopyName, Id};
use crate::model::keys;
use crate::model::names::{Guid, dataset_of};
use crate::state::store::format::State;

impl Inventory<'_> {
    /// May this copy be removed? `own`: this host's announcement of that.
    pub fn check_remove(&mut self, name: &CopyName, own: Option<Id>) -> Result<()> {
        self.check_removal(name, own, chain::check_remove)
    }

    /// May this upload, whose manifest is in the bucket, be aborted? Its base counts as lost only if the
    /// listing shows it: a manifest that this host cannot read may be readable for another one.
    pub fn check_abort(&mut self, name: &CopyName, own: Option<Id>) -> Result<()> {
        let listed = |copy: &CopyState| Member { link: copy.name.link, whole: copy.listed, announced: false };
        let as_listed: Vec<Member> = self.copies.iter().map(listed).collect();
        self.check_removal(name, own, |members, old| chain::check_abort(members, &as_listed, old))
    }

    /// May this copy be called kept? The listing must be later than its mark.
    pub fn check_keep(&self, name: &CopyName) -> Result<()> {
        if self.listing().is_none() {
            return Err(Error::failed("without the permission to list the bucket, it is not known whether another host is removing it")
                .hint("keep needs s3:ListBucket"));
        }
        let Some(copy) = self.place_of(name).map(|n| &self.copies[n]) else { return Ok(()) };
        match &copy.lost {
            _ if !copy.announcements.is_empty() => Err(self.is_announced(copy)),
            Some(lost) => Err(Error::failed(format!("'{}' cannot be kept: {lost}", copy.shown()))),
            None => Ok(()),
        }
    }

    /// The copies in the store that could each be removed now.
    pub fn removable(&mut self) -> Result<Vec<CopyName>> {
        let definite: HashSet<usize> = chain::removable(&self.members(false, None)).into_iter().collect();
        // another host's copies may count, once their manifests are read
        let hopeful = chain::removable(&self.members(true, None));
        let unsure: HashSet<usize> = hopeful.into_iter().chain(self.needed_only_elsewhere()).collect();
        let mut allowed = Vec::new();
        for n in (0..self.copies.len()).filter(|n| self.is_for_removal(*n)).collect::<Vec<_>>() {
            let name = self.copies[n].name.clone();
            if definite.contains(&n) || (unsure.contains(&n) && self.check_remove(&name, None).is_ok()) {
                allowed.push(name);
            }
        }
        Ok(allowed)
    }

    /// An order in which as many of these as possible can be removed one after the other; and those that could
    /// only be removed instead of others.
    pub fn in_order(&self, removable: &HashSet<CopyName>) -> (Vec<CopyName>, Vec<CopyName>) {
        let places: Vec<usize> =
            (0..self.copies.len()).filter(|n| removable.contains(&self.copies[*n].name)).collect();
        let (order, instead) = chain::in_order(&self.members(false, None), &places);
        let names = |places: Vec<usize>| places.iter().map(|n| self.copies[*n].name.clone()).collect();
        (names(order), names(instead))
    }

    /// Would `remove` consider it at all?
    pub(super) fn is_for_removal(&self, n: usize) -> bool {
        let copy = &self.copies[n];
        copy.in_store == Some(State::Stored) && !copy.kept && copy.announcements.is_empty()
    }

    /// The places of copies on which only backups depend that the store does not know: these may have chains
    /// of their own.
    fn needed_only_elsewhere(&self) -> Vec<usize> {
        let known = self.copies.iter().filter(|copy| copy.in_store.is_some());
        let needed: HashSet<Guid> = known.filter_map(|copy| copy.name.link.base).collect();
        (0..self.copies.len()).filter(|n| !needed.contains(&self.copies[*n].name.link.snapshot)).collect()
    }

    /// May this copy be removed because another one stays? Then it does not matter whether the backup is kept.
    pub fn check_remove_spare(&mut self, name: &CopyName, own: Option<Id>) -> Result<()> {
        if self.has_another_copy(name)? {
            self.check_removal_by(name, own, chain::check_remove)
        } else {
            self.check_remove(name, own)
        }
    }

    fn check_removal(
        &mut self,
        name: &CopyName,
        own: Option<Id>,
        rule: impl Fn(&[Member], usize) -> Result<(), Vec<usize>>,
    ) -> Result<()> {
        match self.place_of(name) {
            Some(place) if self.copies[place].kept => Err(self.is_kept(name, place)),
            _ => self.check_removal_by(name, own, rule),
        }
    }

    fn check_removal_by(
        &mut self,
        name: &CopyName,
        own: Option<Id>,
        rule: impl Fn(&[Member], usize) -> Result<(), Vec<usize>>,
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
        Err(self.needed(name, place, &needed, members))
    }

    /// Does this copy, of another dataset or under another prefix, have a chain of its own with its own name?
    /// Then it does not depend on `place`.
    fn stands_alone(&mut self, members: &[Member], n: usize, place: usize) -> Result<bool> {
        let (copy, old) = (&self.copies[n], &self.copies[place]);
        let dataset = dataset_of(&copy.name.name).to_string();
        let Some(base) = copy.name.link.base else { return Ok(false) };
        if copy.in_store.is_some() || dataset == dataset_of(&old.name.name) {
            return Ok(false);
        }
        loop {
            let mut own = members.to_vec();
            for (member, other) in own.iter_mut().zip(&self.copies) {
                member.whole = other.lost.is_none() && dataset_of(&other.name.name) == dataset;
            }
            let Some(chain) = chain::route_to(&own, base, Some(place)) else { return Ok(false) };
            let unread: Vec<usize> = chain.into_iter().filter(|n| !self.copies[*n].confirmed).collect();
            if unread.is_empty() {
                return Ok(true);
            }
            for n in unread {
                self.confirm(n)?;
            }
        }
    }

    /// Does a chain lead to this snapshot without the copy at `without`? Reads the manifests of the copies
    /// that only the listing knows, as far as the answer depends on them.
    pub(super) fn confirm_route(
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
                if !self.copies[n].confirmed {
                    self.confirm(n)?;
                }
            }
        }
    }

    pub(super) fn confirm(&mut self, n: usize) -> Result<()> {
        let objects = self.objects();
        let stem = keys::stem(self.prefix, &self.copies[n].name);
        let sizes: HashMap<&str, u64> =
            objects.filter(|o| o.key.starts_with(&stem)).map(|o| (o.key.as_str(), o.size)).collect();
        let key = keys::manifest(self.prefix, &self.copies[n].name);
        let data = sizes
            .iter()
            .filter(|(name, _)| **name != key)
            .fold(0u64, |sum, (_, size)| sum.saturating_add(*size));
        let read = match read_manifest(self.client, &key, data, Chunks::Checked)? {
            ManifestRead::Found(checked) => entry_for(self.prefix, &key, checked.manifest, &sizes),
            ManifestRead::Missing => Err(Rejection::Invalid("the bucket does not have it".to_string())),
            ManifestRead::Unreadable { why, .. } => Err(Rejection::Invalid(why.message)),
        };
        let copy = &mut self.copies[n];
        copy.confirmed = true;
        match read {
            Ok(_) => {}
            Err(Rejection::OtherPrefix(_)) => copy.elsewhere = true,
            Err(Rejection::Invalid(why)) => {
                copy.lost = Some(format!("its manifest '{key}' cannot be used: {why}"));
            }
        }
        Ok(())
    }
}
