//! Aborts a pending upload: aborts its multipart uploads, and deletes its objects. If its manifest is in the
//! bucket already, backups of other hosts may depend on it, so this is a removal like any other.

use std::sync::atomic::Ordering;

use super::Upload;
use super::expected::ExpectedObject;
use crate::error::{Error, Result, Status};
use crate::inventory::read_manifest::{Chunks, ManifestRead, read_manifest, unusable};
use crate::inventory::{Inventory, Listing};
use crate::model::copy::Id;
use crate::model::keys;
use crate::os::host;
use crate::os::random;
use crate::removal::{Interrupted, Removal, Seen, look_at, withdraw};
use crate::s3::calls::{Aborted, MultipartUpload, Parts};
use crate::s3::failure::FailureKind;
use crate::state::journal::record::{Begun, Intent, Overview, Record, Removal as Announced};
use crate::state::journal::{self, Journal, RecordedParts};

impl Upload {
    pub(super) fn roll_back(&mut self, intent: &Intent) -> Result<()> {
        let journal = Journal::open(&self.folder)?;
        let Some(overview) = journal::overview(&self.folder)? else { return Ok(()) };
        let copy = intent.copy();
        if self.is_stored(intent) {
            if self.is_whole_in_bucket(&copy)? {
                // the last run ended after the store was written
                self.ui
                    .note(&format!("{} was stored already, and is still stored", intent.backup().describe()));
                self.abort_strays(intent, &[])?;
                return self.close(journal, intent);
            }
            self.store.contents.entries.retain(|entry| entry.copy() != copy);
            self.store.save()?;
        }
        let deleted = match intent.id {
            Some(_) => self.delete_all(&journal, intent, &overview),
            None => self.delete_older(intent, &overview),
        };
        match deleted {
            // without the permission to delete nothing can be rolled back; but the upload must end
            Err(error) if error.status == Status::Failed && self.may_not_delete(intent)? => {
                self.abort_uploads(intent, &overview)?;
                self.close(journal, intent)?;
                let error = error
                    .hint("the upload is no longer pending, but objects of it may still be in the bucket");
                let manifest = keys::manifest(&intent.prefix, &copy);
                // backups of other hosts may depend on it from now on
                Err(match self.client.head_if_allowed(&manifest)? {
                    Some(_) => error.hint(
                        "it is a complete backup: 'zfs2s3 recover -m' adds it to the store; with credentials that may \
                         delete, 'zfs2s3 remove' then removes it",
                    ),
                    None => error.hint(format!(
                        "it is not complete, and may be deleted with other credentials: s3://{}/{}*",
                        intent.bucket,
                        keys::stem(&intent.prefix, &copy)
                    )),
                })
            }
            deleted => {
                deleted?;
                self.close(journal, intent)
            }
        }
    }

    /// Asks S3 to delete an object that never exists, with a key of this upload.
    fn may_not_delete(&self, intent: &Intent) -> Result<bool> {
        let key = keys::announcement(&intent.prefix, &intent.copy(), random::id());
        match self.client.delete(&key) {
            Err(failure) if failure.says_forbidden() => Ok(true),
            Err(failure) => Err(failure.into()),
            Ok(()) => Ok(false),
        }
    }

    fn delete_all(&self, journal: &Journal, intent: &Intent, overview: &Overview) -> Result<()> {
        let copy = intent.copy();
        let manifest = keys::manifest(&intent.prefix, &copy);
        let inventory = self.inventory()?;
        let may_list = inventory.listing().is_some();
        let (mut objects, announcements) = inventory.objects_of(&copy);
        // could 'resume_upload' still store it?
        let can_be_stored = inventory.is_whole(&copy) && inventory.check_resume(&intent.backup()).is_ok();
        if !may_list {
            let segments = overview.segments.keys().map(|n| keys::segment(&intent.prefix, &copy, *n));
            let there = self.client.head_if_allowed(&manifest)?.map(|_| manifest.clone());
            objects = there.into_iter().chain(segments).collect();
        }
        if objects.contains(&manifest) {
            let (seen, name) = (look_at(&self.client, &inventory, &objects)?, intent.backup().to_string());
            drop(inventory);
            if can_be_stored {
                seen.check_unlocked(&name).map_err(|error| {
                    error.hint("it is complete in the bucket: 'zfs2s3 resume_upload' stores it")
                })?;
            }
            seen.warn_if_locked(&name, &self.ui);
            self.remove(journal, intent, overview, &seen, |removal, mut inventory| {
                inventory.check_abort(&copy, Some(removal.nonce))?;
                let (listed, announcements) = inventory.objects_of(&copy);
                Ok((if may_list { listed } else { objects.clone() }, announcements))
            })?;
            self.abort_uploads(intent, overview)?;
            return Ok(());
        }
        look_at(&self.client, &inventory, &objects)?.warn_if_locked(&intent.backup().to_string(), &self.ui);
        drop(inventory);
        self.abort_uploads(intent, overview)?;
        for key in objects.iter().chain(&announcements) {
            self.client.delete(key)?;
        }
        Ok(())
    }

    /// Removes the manifest, because the base is lost. The data stay until the upload is resumed or aborted.
    pub(super) fn withdraw_manifest(&self, journal: &Journal, intent: &Intent) -> Result<()> {
        let copy = intent.copy();
        let overview = journal::overview(&self.folder)?.unwrap_or_else(|| Overview::new(intent.clone()));
        self.remove(journal, intent, &overview, &Seen::default(), |removal, mut inventory| {
            inventory.check_abort(&copy, Some(removal.nonce))?;
            Ok((vec![keys::manifest(&intent.prefix, &copy)], vec![]))
        })
    }

    /// Announces the removal, and deletes the objects that `decide` returns.
    fn remove(
        &self,
        journal: &Journal,
        intent: &Intent,
        overview: &Overview,
        seen: &Seen,
        decide: impl FnOnce(&Removal, Inventory) -> Result<(Vec<String>, Vec<String>)>,
    ) -> Result<()> {
        let nonce = overview.removal.unwrap_or_else(random::id);
        journal.add(&Record::Removal(Announced { nonce }))?;
        let (copy, host) = (intent.copy(), host::name());
        let removal = Removal {
            client: &self.client,
            contents: &self.store.contents,
            ui: &self.ui,
            copy: &copy,
            nonce,
            host: &host,
        };
        removal.announce()?;
        let inventory = removal.take_inventory()?;
        let (objects, announcements) = match decide(&removal, inventory) {
            Err(error) if error.status == Status::Refused => {
                return Err(removal
                    .back_off(error)
                    .hint("the upload is still pending: 'zfs2s3 resume_upload' checks again"));
            }
            decided => decided?,
        };
        match removal.delete(&objects, &announcements, seen) {
            Ok(()) => Ok(()),
            Err(Interrupted { error, refused_at_once: true }) if removal.all_exist(&objects)? => {
                Err(removal.back_off(error))
            }
            Err(Interrupted { error, .. }) => Err(error.hint("the upload is still pending")),
        }
    }

    pub(super) fn withdraw(&self, intent: &Intent, nonce: Id) -> Result<()> {
        withdraw(&self.client, &keys::announcement(&intent.prefix, &intent.copy(), nonce))
    }

    fn abort_uploads(&self, intent: &Intent, overview: &Overview) -> Result<()> {
        for (segment, state) in &overview.segments {
            let key = keys::segment(&intent.prefix, &intent.copy(), *segment);
            if let Some(upload_id) = state.upload_id() {
                self.abort_upload(&key, upload_id)?;
            }
        }
        self.abort_strays(intent, &[])
    }

    /// A server that cannot abort multipart uploads keeps the parts, but that must not block this upload.
    pub(super) fn abort_upload(&self, key: &str, upload_id: &str) -> Result<()> {
        match self.client.abort_multipart_upload(key, upload_id) {
            Err(failure) if failure.is_no_call_of_the_server() => {
                self.left_in_bucket(&failure.describe());
                Ok(())
            }
            // or the reply is wrong: a listing decides
            Ok(Aborted::Unknown) => {
                self.strays.store(true, Ordering::SeqCst);
                Ok(())
            }
            ended => Ok(ended.map(|_| ())?),
        }
    }

    /// With keys of version 1, the objects may belong to another host. So an object is deleted only if it is
    /// exactly the one that this upload made, and only if there is no manifest.
    fn delete_older(&self, intent: &Intent, overview: &Overview) -> Result<()> {
        let copy = intent.copy();
        let manifest = keys::manifest(&intent.prefix, &copy);
        let inventory = self.inventory()?;
        let exists = match inventory.listing() {
            Some(listing) => listing.objects.iter().any(|object| object.key == manifest),
            None => self.client.head_if_allowed(&manifest)?.is_some(),
        };
        if exists {
            let data = self.data_size(intent, overview, inventory.listing())?;
            drop(inventory);
            self.check_manifest(&manifest, data)?;
            self.ui.note(&format!(
                "{} is in the bucket, and is not deleted: 'zfs2s3 recover -m' adds it to the store",
                intent.backup().describe()
            ));
        }
        let recorded = RecordedParts::find(&self.folder)?;
        for (segment, state) in &overview.segments {
            let key = keys::segment(&intent.prefix, &copy, *segment);
            // version 1 knows no other uploads
            let Begun::Multipart { upload_id, checksums } = &state.begun else { continue };
            let open = MultipartUpload { key: &key, upload_id, checksums: *checksums };
            let was_open = match self.client.list_parts(open) {
                Ok(Parts::NoSuchUpload) => false,
                Err(failure) if failure.kind == FailureKind::Transient => return Err(failure.into()),
                // or unknown: the object stays
                _ => true,
            };
            self.abort_upload(&key, upload_id)?;
            let head = if exists { None } else { self.client.head_if_allowed(&key)? };
            let Some(head) = head else { continue };
            let parts = recorded.of(*segment)?;
            let expected = ExpectedObject::of(state, &parts);
            if !was_open && expected.is_some_and(|expected| expected.matches(&head)) {
                self.client.delete(&key)?;
            } else {
                self.ui
                    .warning(&format!("the object '{key}' may belong to another upload, and is not deleted"));
            }
        }
        self.abort_strays(intent, &[])
    }

    /// A manifest that exists must be readable: whose data are under the same keys is unknown otherwise.
    fn check_manifest(&self, manifest: &str, data: u64) -> Result<()> {
        let why = match read_manifest(&self.client, manifest, data, Chunks::Checked)? {
            ManifestRead::Found(_) => return Ok(()),
            ManifestRead::Missing => Error::failed("the bucket has it, but S3 does not return it"),
            ManifestRead::Unreadable { why, .. } => why,
        };
        Err(unusable(manifest, why).hint("the upload is still pending; 'zfs2s3 recover -n' shows more"))
    }

    /// The bytes of all objects with the keys of this upload, or if listing is forbidden, of its segments.
    fn data_size(&self, intent: &Intent, overview: &Overview, listing: Option<&Listing>) -> Result<u64> {
        let copy = intent.copy();
        if let Some(listing) = listing {
            let stem = keys::stem(&intent.prefix, &copy);
            let own = listing.objects.iter().filter(|object| object.key.starts_with(&stem));
            return Ok(own.fold(0, |sum, object| sum.saturating_add(object.size)));
        }
        let mut sum = 0u64;
        for segment in overview.segments.keys() {
            let head = self.client.head_if_allowed(&keys::segment(&intent.prefix, &copy, *segment))?;
            sum = sum.saturating_add(head.map_or(0, |head| head.size));
        }
        Ok(sum)
    }
}
