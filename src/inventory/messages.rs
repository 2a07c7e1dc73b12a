//! The messages of refused uploads and removals, and which hosts are removing what.

use super::{CopyState, Inventory};
use crate::chain::{self, Member};
use crate::error::Error;
use crate::model::announcement::{self, Announcement};
use crate::model::backup::Backup;
use crate::model::copy::{CopyName, Id};
use crate::model::keys;
use crate::model::names::Guid;
use crate::state::store::format::State;

const RECOVER: &str = "'zfs2s3 recover -m' adds backups in the bucket to the store";

pub const WHEN_IT_HAS_ENDED: &str = "run the same command again when that removal has ended";
pub const IF_IT_DIED: &str = "if it was interrupted, the same command or 'resume_upload' on that host continues it; if that host is gone, \
                              'zfs2s3 recover -r HOST' cancels its removals";

impl Inventory<'_> {
    pub(super) fn already_stored(&self, backup: &Backup, copy: &CopyState) -> Error {
        match copy.in_store {
            Some(_) if copy.shown() != backup.to_string() => Error::refused(format!(
                "'{backup}' is stored already, as '{}': with the same guids",
                copy.shown()
            )),
            Some(_) => Error::refused(format!("'{backup}' is stored already")),
            None => Error::refused(format!(
                "'{backup}' is in the bucket already, but not in the store: another host may have stored it"
            ))
            .hint(RECOVER),
        }
    }

    pub(super) fn base_not_recoverable(&self, backup: &Backup) -> Error {
        let base = backup.base.as_ref().map(|base| base.name.as_str()).unwrap_or_default();
        let error = Error::refused(format!("no stored chain of backups leads to the base {base}"));
        let leads_there = |copy: &&CopyState| Some(copy.name.link.snapshot) == backup.link().base;
        let useless = |copy: &&CopyState| copy.lost.is_some() || copy.in_store.is_none();
        match self.copies.iter().filter(leads_there).find(useless) {
            Some(copy @ CopyState { in_store: None, .. }) => {
                let shown = copy.shown();
                error.hint(format!("'{shown}' is in the bucket, but not in this host's store")).hint(RECOVER)
            }
            Some(copy @ CopyState { lost, .. }) => {
                let shown = copy.shown();
                error.hint(format!("'{shown}' is in the store, but {}", lost.as_deref().unwrap_or_default()))
            }
            None => error.hint(format!("upload {base} first, or omit -i for a full backup")),
        }
    }

    pub(super) fn base_announced(&self, backup: &Backup, base: Guid) -> Error {
        let name = backup.base.as_ref().map(|base| base.name.as_str()).unwrap_or_default();
        let error = Error::refused(format!(
            "the base {name} is being removed, or a backup that it depends on is: {}",
            self.removers_of_chain(base)
        ));
        error.hint(WHEN_IT_HAS_ENDED).hint(IF_IT_DIED)
    }

    /// A host is removing this copy.
    pub(super) fn is_announced(&self, copy: &CopyState) -> Error {
        let error = Error::refused(format!("'{}' is being removed by {}", copy.shown(), self.removers(copy)));
        error.hint(WHEN_IT_HAS_ENDED).hint(IF_IT_DIED)
    }

    /// The backup of the copy at `place` is marked.
    pub(super) fn is_kept(&self, name: &CopyName, place: usize) -> Error {
        let shown = self.copies[place].shown();
        let mark = self.listing().and_then(|listing| listing.marks_of(self.prefix, name.link).next());
        let by = match mark.map(|key| self.client.get(key, announcement::MAX_LEN)) {
            Some(Ok(said)) => Announcement::describe(&said),
            Some(Err(failure)) if failure.is_missing() => {
                "a host that has meanwhile withdrawn its mark".to_string()
            }
            Some(Err(_)) => Announcement::describe(b""),
            None => "this host".to_string(),
        };
        Error::refused(format!("'{shown}' is kept, as {by} has asked"))
            .hint(format!("to end that: zfs2s3 unkeep {}", self.copies[place].arguments().unwrap_or(shown)))
    }

    /// The copy at `place` is needed by these, in an order in which they can be removed.
    pub(super) fn needed(
        &self,
        name: &CopyName,
        place: usize,
        needed: &[usize],
        members: Vec<Member>,
    ) -> Error {
        let mut message = format!(
            "'{}' is needed to restore other backups, which must be removed first, in this order:",
            self.copies[place].shown()
        );
        for copy in needed.iter().map(|n| &self.copies[*n]) {
            message += &match (copy.arguments(), self.note_on_needed(copy)) {
                (None, note) => format!("\n    {}: {}", copy.shown(), note.unwrap_or_default()),
                (Some(arguments), None) => format!("\n    zfs2s3 remove {arguments}"),
                (Some(arguments), Some(note)) => format!("\n    zfs2s3 remove {arguments}  # {note}"),
            };
        }
        let error = Error::refused(message).hint("nothing was removed");
        // the other chain to them is being removed
        let mut quiet = members;
        quiet.iter_mut().for_each(|member| member.announced = false);
        let others = chain::route_to(&quiet, name.link.snapshot, Some(place)).unwrap_or_default();
        match others.iter().map(|n| &self.copies[*n]).find(|copy| !copy.announcements.is_empty()) {
            Some(copy) => error.hint(format!(
                "another chain to them is being removed: '{}', by {}",
                copy.shown(),
                self.removers(copy)
            )),
            None => error,
        }
    }

    fn note_on_needed(&self, copy: &CopyState) -> Option<String> {
        match copy.in_store {
            _ if copy.only_open => Some(
                "an unfinished upload; if no host is working on it, 'zfs2s3 recover -n' shows the command that \
                 aborts it"
                    .to_string(),
            ),
            _ if !copy.announcements.is_empty() => Some(format!("being removed by {}", self.removers(copy))),
            Some(State::Removing) => Some("being removed".to_string()),
            Some(State::Stored) => None,
            None => Some(match copy.name.id {
                Some(id) => format!("in the bucket as copy {id}, not in the store"),
                None => "in the bucket, not in the store".to_string(),
            }),
        }
    }

    /// The hosts that are removing the chain to this snapshot, for messages.
    pub(super) fn removers_of_chain(&self, guid: Guid) -> String {
        let mut members = self.members(true, None);
        members.iter_mut().for_each(|member| member.announced = false);
        let chain = chain::route_to(&members, guid, None).unwrap_or_default();
        let announced = chain.iter().map(|n| &self.copies[*n]).find(|copy| !copy.announcements.is_empty());
        announced.map_or("by an unknown host".to_string(), |copy| {
            format!("'{}', by {}", copy.shown(), self.removers(copy))
        })
    }

    pub(super) fn removers(&self, copy: &CopyState) -> String {
        let who = |nonce: &Id| {
            let key = keys::announcement(self.prefix, &copy.name, *nonce);
            match self.client.get(&key, announcement::MAX_LEN) {
                Ok(said) => Announcement::describe(&said),
                Err(failure) if failure.is_missing() => "a host that has meanwhile completed it".to_string(),
                Err(_) => Announcement::describe(b""),
            }
        };
        copy.announcements.iter().map(who).collect::<Vec<_>>().join(", ")
    }

    /// The hosts that are removing the copy, or the chain to its base, for messages.
    pub fn removers_of(&self, name: &CopyName) -> String {
        match self.place_of(name).map(|n| &self.copies[n]) {
            Some(copy) if !copy.announcements.is_empty() => {
                format!("'{}', by {}", copy.shown(), self.removers(copy))
            }
            _ => name.link.base.map(|base| self.removers_of_chain(base)).unwrap_or_default(),
        }
    }
}
