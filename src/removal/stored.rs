//! Removes a copy that the store knows. Marked in the store first, then announced in the bucket, then decided
//! by a listing; then the manifest goes, then the data, then the entry. After a crash at any point the same
//! command continues.

use std::sync::Arc;

use super::{Interrupted, Outcome, Removal, Seen, last_copy, look_at, withdraw};
use crate::error::{Error, Result, Status};
use crate::inventory::read_manifest::{Cause, Chunks, ManifestRead, read_manifest};
use crate::inventory::{Inventory, OpenUploads};
use crate::model::copy::Id;
use crate::model::keys;
use crate::os::host;
use crate::os::random;
use crate::s3::client::Client;
use crate::state::store::Store;
use crate::state::store::format::{Contents, Entry, State};
use crate::ui::Ui;

pub struct StoredCopy<'a> {
    pub client: &'a Client,
    pub ui: &'a Arc<Ui>,
    pub store: Store,
    /// The place of its entry in the store.
    pub at: usize,
    /// The user has named this copy by its ID: refuse to remove the last one of its backup.
    pub only_if_spare: bool,
}

/// Why a removal stops short.
enum Stop {
    /// Nothing is deleted, and nothing shall be.
    BackOff { error: Error, is_whole: bool },
    /// It has begun, and the same command continues it.
    Continues(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Continues(error)
    }
}

impl StoredCopy<'_> {
    pub fn remove(mut self, dry_run: bool) -> Result<Outcome> {
        let entry = self.store.contents.entries[self.at].clone();
        let keys = entry.keys(&self.store.contents.prefix);
        check_not_shared(&self.store.contents, self.at, &keys)?;
        let seen = match self.check_before(&entry)? {
            Ok(seen) => seen,
            Err((error, is_whole)) if error.status == Status::Refused && !dry_run => {
                return Err(self.back_off(error, is_whole));
            }
            Err((error, _)) => return Err(error),
        };
        check_unchanged_in_bucket(self.client, &self.store.contents.prefix, &entry)?;
        if dry_run {
            return Ok(Outcome::WouldDelete(keys));
        }
        let nonce = self.mark(&entry)?;
        match self.delete(&entry, nonce, keys, &seen) {
            Ok(()) => {}
            Err(Stop::BackOff { error, is_whole }) => return Err(self.back_off(error, is_whole)),
            Err(Stop::Continues(error)) => {
                return Err(error.hint(format!(
                    "the removal has begun: the same 'zfs2s3 remove {}' continues it",
                    entry.backup()
                )));
            }
        }
        let entries = &mut self.store.contents.entries;
        entries.remove(self.at);
        let another_copy_stays = entries.iter().any(|other| other.link() == entry.link());
        self.store.save()?;
        Ok(Outcome::Removed { another_copy_stays })
    }

    /// An early refusal, before anything is marked or announced. Open uploads are listed only after the
    /// announcement. The inner error comes with whether the copy is whole.
    fn check_before(&self, entry: &Entry) -> Result<Result<Seen, (Error, bool)>> {
        let copy = entry.copy();
        let mut inventory = Inventory::read(self.client, &self.store.contents, self.ui, OpenUploads::Skip)?;
        let is_whole = inventory.is_whole(&copy);
        let checked = inventory.check_remove(&copy, entry.removal).and_then(|()| {
            let keys = entry.keys(&self.store.contents.prefix);
            let (seen, name) = (look_at(self.client, &inventory, &keys)?, entry.backup().to_string());
            if is_whole || entry.removal.is_none() {
                seen.check_unlocked(&name)?;
            }
            // what is left of an interrupted removal is no backup
            seen.warn_if_locked(&name, self.ui);
            Ok(seen)
        });
        Ok(checked.map_err(|error| (error, is_whole)))
    }

    /// From here on the store calls it `removing`. Returns the nonce of its announcement.
    fn mark(&mut self, entry: &Entry) -> Result<Id> {
        if let Some(nonce) = entry.removal {
            return Ok(nonce);
        }
        let nonce = random::id();
        let marked = &mut self.store.contents.entries[self.at];
        (marked.state, marked.removal) = (State::Removing, Some(nonce));
        self.store.save()?;
        Ok(nonce)
    }

    /// Announces, decides, deletes.
    fn delete(&self, entry: &Entry, nonce: Id, keys: Vec<String>, seen: &Seen) -> Result<(), Stop> {
        let (copy, host) = (entry.copy(), host::name());
        let removal = Removal {
            client: self.client,
            contents: &self.store.contents,
            ui: self.ui,
            copy: &copy,
            nonce,
            host: &host,
        };
        let order_is_wrong = self.client.lacks("announcing first");
        if order_is_wrong {
            // only in a test build, to show that the tests would notice
            removal.take_inventory()?.check_remove(&copy, Some(nonce))?;
        }
        if let Err(error) = removal.announce() {
            // refused, as by a full quota: nothing is deleted
            let refused = error.status != Status::TryAgain && removal.all_exist(&keys)?;
            return Err(if refused { Stop::BackOff { error, is_whole: true } } else { error.into() });
        }
        let mut inventory = removal.take_inventory()?;
        let is_whole = inventory.is_whole(&copy);
        if let Err(error) = inventory.check_remove(&copy, Some(nonce))
            && !order_is_wrong
        {
            let refused = error.status == Status::Refused;
            return Err(if refused { Stop::BackOff { error, is_whole } } else { error.into() });
        }
        if self.only_if_spare && is_whole && !inventory.has_another_copy(&copy)? {
            let error =
                last_copy(&entry.backup().to_string()).hint("without -c, the backup itself would be removed");
            return Err(Stop::BackOff { error, is_whole: true });
        }
        let (listed, announcements) = inventory.objects_of(&copy);
        let unknown = listed.into_iter().filter(|key| !keys.contains(key));
        let objects: Vec<String> = keys.iter().cloned().chain(unknown).collect();
        match removal.delete(&objects, &announcements, seen) {
            Ok(()) => Ok(()),
            Err(Interrupted { error, refused_at_once: true }) if removal.all_exist(&keys)? => {
                let error = error.hint(format!("nothing was removed: '{}' is still stored", entry.backup()));
                Err(Stop::BackOff { error, is_whole: true })
            }
            Err(Interrupted { error, .. }) => Err(error.into()),
        }
    }

    /// What is whole is called `stored` again, and its announcement is withdrawn. What is no longer whole
    /// cannot be: its removal stays begun.
    fn back_off(&mut self, error: Error, is_whole: bool) -> Error {
        let entry = &self.store.contents.entries[self.at];
        let (copy, backup, removal) = (entry.copy(), entry.backup(), entry.removal);
        if entry.state == State::Stored {
            return error;
        }
        if !is_whole {
            return error
                .hint(format!("the removal of '{backup}' had begun, and the backup is no longer whole"));
        }
        if let Some(nonce) = removal {
            let key = keys::announcement(&self.store.contents.prefix, &copy, nonce);
            if let Err(second) = withdraw(self.client, &key) {
                return error
                    .hint(format!("its announcement could not be withdrawn either: {second}"))
                    .hint(format!("'{backup}' stays marked 'removing': run the same command again"));
            }
        }
        let entry = &mut self.store.contents.entries[self.at];
        (entry.state, entry.removal) = (State::Stored, None);
        if let Err(second) = self.store.save() {
            return second;
        }
        self.ui.note(&format!("'{backup}' is still stored"));
        error
    }
}

/// Keys of the Python tool contain no guid: a backup of a snapshot made again has the keys of the older one.
fn check_not_shared(contents: &Contents, at: usize, keys: &[String]) -> Result<()> {
    let others = contents.entries.iter().enumerate().filter(|(n, _)| *n != at);
    let shared = others.map(|(_, entry)| entry).find(|entry| {
        let theirs = entry.keys(&contents.prefix);
        keys.iter().any(|key| theirs.contains(key))
    });
    match shared {
        None => Ok(()),
        Some(other) => Err(Error::refused(format!(
            "the backup with guid {} has the same object '{}'",
            other.snapshot.guid,
            keys.first().map(String::as_str).unwrap_or_default()
        ))
        .hint("nothing was removed")),
    }
}

/// Keys of version 1 have no ID, so another host may have removed such a backup and stored it again under the
/// same keys. Then this store knows nothing of what is there now.
fn check_unchanged_in_bucket(client: &Client, prefix: &str, entry: &Entry) -> Result<()> {
    let Some(known) = entry.stream.as_ref().filter(|_| entry.id.is_none()) else { return Ok(()) };
    let backup = entry.backup();
    match read_manifest(client, &keys::manifest(prefix, &entry.copy()), known.size, Chunks::Checked)? {
        ManifestRead::Unreadable { why, cause: Cause::Newer } => Err(Error::refused(format!(
            "the manifest of '{backup}' was written by a newer version of zfs2s3, so another host has stored it again: {why}"
        ))
        .hint("remove it with that version")),
        ManifestRead::Found(checked) if checked.manifest.stream != *known => Err(Error::refused(format!(
            "'{backup}' differs between the store and the bucket: another host has stored it again, at {}",
            checked.manifest.stream.stored
        ))
        .hint("'zfs2s3 recover -m' adds that one to the store; then it can be removed")),
        ManifestRead::Found(_) | ManifestRead::Missing | ManifestRead::Unreadable { .. } => Ok(()),
    }
}
