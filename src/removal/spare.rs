//! Removes an additional copy of a backup, which only the bucket knows.

use std::sync::Arc;

use super::{Interrupted, Outcome, Removal, Seen, last_copy, look_at};
use crate::error::{Error, Result, Status};
use crate::inventory::{Inventory, OpenUploads};
use crate::model::copy::{CopyName, Id, shown};
use crate::model::keys;
use crate::os::host;
use crate::os::random;
use crate::s3::client::Client;
use crate::state::store::format::Contents;
use crate::state::store::selector::BackupSelector;
use crate::ui::Ui;

pub struct SpareCopy<'a> {
    pub client: &'a Client,
    pub ui: &'a Arc<Ui>,
    pub contents: &'a Contents,
    pub selector: &'a BackupSelector<'a>,
    pub id: Option<Id>,
}

impl SpareCopy<'_> {
    /// The copy's name for messages, and the outcome.
    pub fn remove(&self, dry_run: bool) -> Result<(String, Outcome)> {
        let mut inventory = Inventory::read(self.client, self.contents, self.ui, OpenUploads::Skip)?;
        let copy = self.find(&inventory)?;
        let id = shown(self.id);
        if inventory.is_elsewhere(&copy)? {
            return Err(Error::refused(format!("copy {id} belongs to a store with another prefix"))
                .hint("remove it with that ZFS2S3_PREFIX"));
        }
        inventory.check_remove_spare(&copy, None)?;
        let name = format!("copy {id} of {}", copy.name);
        let (objects, _) = inventory.objects_of(&copy);
        let seen = look_at(self.client, &inventory, &objects)?;
        if inventory.is_whole(&copy) {
            seen.check_unlocked(&name)?;
        }
        seen.warn_if_locked(&name, self.ui);
        if dry_run {
            return Ok((name, Outcome::WouldDelete(objects)));
        }
        drop(inventory);
        self.delete(&copy, &name, &seen)?;
        Ok((name, Outcome::Removed { another_copy_stays: false }))
    }

    fn find(&self, inventory: &Inventory) -> Result<CopyName> {
        let id = shown(self.id);
        let Some(listing) = inventory.listing() else {
            return Err(Error::failed(format!(
                "copy {id} is not in the store, and these credentials may not list the bucket"
            )));
        };
        let prefix = &self.contents.prefix;
        let mut copies = listing.objects.iter().filter_map(|o| Some(keys::parse(prefix, &o.key)?.copy));
        copies.find(|copy| copy.id == self.id && self.selector.is_copy(self.contents, copy)).ok_or_else(
            || {
                Error::failed(format!("the bucket has no copy {id} of that backup"))
                    .hint("'zfs2s3 recover -n' lists the copies")
            },
        )
    }

    fn delete(&self, copy: &CopyName, name: &str, seen: &Seen) -> Result<()> {
        let host = host::name();
        let nonce = random::id();
        let removal =
            Removal { client: self.client, contents: self.contents, ui: self.ui, copy, nonce, host: &host };
        removal.announce()?;
        let continues = |error: Error| error.hint("the same command continues the removal");
        let mut inventory = removal.take_inventory().map_err(continues)?;
        if let Err(error) = inventory.check_remove_spare(copy, Some(nonce)) {
            return Err(if error.status == Status::Refused { removal.back_off(error) } else { error });
        }
        // the rest of a copy that is not whole is not a backup
        if inventory.is_whole(copy) && !inventory.has_another_copy(copy)? {
            let error = last_copy(name)
                .hint("'zfs2s3 recover -m' adds it to the store; then 'zfs2s3 remove' removes the backup");
            return Err(removal.back_off(error));
        }
        let (objects, announcements) = inventory.objects_of(copy);
        match removal.delete(&objects, &announcements, seen) {
            Ok(()) => Ok(()),
            Err(Interrupted { error, refused_at_once: true }) if removal.all_exist(&objects)? => {
                Err(removal.back_off(error))
            }
            Err(Interrupted { error, .. }) => Err(continues(error)),
        }
    }
}
