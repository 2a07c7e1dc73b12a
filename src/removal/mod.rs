//! The removal of one copy from the bucket: announced first, then decided by a listing, and only then done.
//! `remove` follows this protocol (`stored`, `spare`), and so does `abort_upload` if the manifest of the
//! upload is in the bucket already.
//!
//! S3 has no locks, but its objects and listings are strongly consistent. So of a removal and an upload whose
//! base it removes, or of two removals, at least one sees the other, and backs off. See `chain/rule.rs` for
//! the rule, `chain/protocol.rs` for the proof.

pub mod keep;
pub mod spare;
pub mod stored;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::chunk_io::each::for_each;
use crate::error::{Error, Result};
use crate::inventory::{Inventory, OpenUploads};
use crate::model::announcement::Announcement;
use crate::model::copy::{CopyName, Id};
use crate::model::keys;
use crate::os::clock;
use crate::s3::client::Client;
use crate::s3::failure::FailureKind;
use crate::state::store::format::Contents;
use crate::ui::Ui;

pub const TOOL: &str = concat!("zfs2s3 ", env!("CARGO_PKG_VERSION"));

pub struct Removal<'a> {
    pub client: &'a Client,
    pub contents: &'a Contents,
    pub ui: &'a Arc<Ui>,
    pub copy: &'a CopyName,
    /// Of this host's announcement.
    pub nonce: Id,
    /// The name of this host, for people.
    pub host: &'a str,
}

/// What a removal has done, or would do.
pub enum Outcome {
    /// In a dry run: the keys of the objects.
    WouldDelete(Vec<String>),
    Removed {
        another_copy_stays: bool,
    },
}

pub fn last_copy(name: &str) -> Error {
    Error::refused(format!("'{name}' is the last copy of that backup, or the others are being removed"))
}

/// A deletion that was not completed.
pub struct Interrupted {
    pub error: Error,
    /// S3 refused the first deletion.
    pub refused_at_once: bool,
}

impl Interrupted {
    fn later(error: Error) -> Self {
        Interrupted { error, refused_at_once: false }
    }
}

impl Removal<'_> {
    fn key(&self) -> String {
        keys::announcement(&self.contents.prefix, self.copy, self.nonce)
    }

    /// From here on no upload whose base is this copy becomes stored.
    pub fn announce(&self) -> Result<()> {
        let announcement = Announcement {
            version: 1,
            tool: TOOL.to_string(),
            host: self.host.to_string(),
            since: clock::now(),
        };
        let text = announcement.to_yaml().map_err(Error::failed)?;
        Ok(self.client.put(&self.key(), text.as_bytes())?)
    }

    /// Withdraws the announcement, and deletes nothing more. If that fails, the error says so, too.
    pub fn back_off(&self, error: Error) -> Error {
        match self.withdraw() {
            Ok(()) => error,
            Err(second) => error.hint(format!("its announcement could not be withdrawn either: {second}")),
        }
    }

    /// Shows everything that was in the bucket before the announcement.
    pub fn take_inventory(&self) -> Result<Inventory<'_>> {
        Inventory::read(self.client, self.contents, self.ui, OpenUploads::List)
    }

    /// Do all of these objects exist? A refusal may follow an attempt that succeeded and whose reply was
    /// lost.
    pub fn all_exist(&self, objects: &[String]) -> Result<bool> {
        for key in objects {
            if self.client.head_if_allowed(key)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// See [`withdraw`].
    pub fn withdraw(&self) -> Result<()> {
        withdraw(self.client, &self.key())
    }

    /// Deletes the copy: the manifest first, the announcements last; and sees that it is gone. `objects` and
    /// `announcements` are from a listing. An object that has changed since it was `seen` is not deleted.
    pub fn delete(
        &self,
        objects: &[String],
        announcements: &[String],
        seen: &Seen,
    ) -> Result<(), Interrupted> {
        for (n, key) in objects.iter().enumerate() {
            if seen.missing.contains(key) {
                // a bucket with versions would get another delete marker
                continue;
            }
            let deleted = match seen.etag(key) {
                Some(etag) => self.client.delete_if_unchanged(key, etag),
                None => self.client.delete(key),
            };
            deleted.map_err(|failure| Interrupted {
                refused_at_once: n == 0 && failure.status.is_some() && failure.kind == FailureKind::Final,
                error: failure.into(),
            })?;
        }
        // once the copy is gone, announcements of other hosts are no longer needed either
        let own = self.key();
        let others = announcements.iter().filter(|key| **key != own);
        for key in others.chain([&own]) {
            self.client.delete(key).map_err(|failure| Interrupted::later(failure.into()))?;
        }
        self.check_gone(objects, announcements).map_err(Interrupted::later)
    }

    /// Replies may be wrong, so it is removed when S3 has it no longer. A listing may be late, and HEAD is not.
    fn check_gone(&self, objects: &[String], announcements: &[String]) -> Result<()> {
        let stem = keys::stem(&self.contents.prefix, self.copy);
        let own = self.key();
        let deleted = |key: &String| *key == own || objects.contains(key) || announcements.contains(key);
        let listed = match self.client.list_objects(&stem, |object| deleted(&object.key)) {
            Err(failure) if failure.says_forbidden() => Vec::new(),
            listed => listed?,
        };
        // those of the Python tool
        let others = objects.iter().filter(|key| !key.starts_with(&stem));
        for key in listed.iter().map(|object| &object.key).chain(others) {
            if self.client.head_if_allowed(key)?.is_some() {
                return Err(Error::failed(format!("S3 still has '{key}', although it was deleted")).for_now());
            }
        }
        Ok(())
    }
}

/// The objects of a copy, as they were before its removal was announced.
#[derive(Default)]
pub struct Seen {
    /// By key. Absent for an object that is not there, or that may not be read.
    etags: BTreeMap<String, String>,
    missing: BTreeSet<String>,
    /// What protects it, in words.
    protection: Option<String>,
}

impl Seen {
    fn etag(&self, key: &str) -> Option<&str> {
        self.etags.get(key).map(String::as_str)
    }

    /// Refuses what an Object Lock protects: in a bucket with versions, S3 would only hide it.
    pub fn check_unlocked(&self, name: &str) -> Result<()> {
        match &self.protection {
            None => Ok(()),
            Some(protection) => Err(Error::refused(format!("'{name}' is kept {protection}"))),
        }
    }

    /// What is deleted although an Object Lock protects it, because it is not a whole backup.
    pub fn warn_if_locked(&self, name: &str, ui: &Ui) {
        if let Some(protection) = &self.protection {
            ui.warning(&format!(
                "the objects of '{name}' are only hidden by delete markers: the bucket keeps, and bills, what is protected \
                 {protection}"
            ));
        }
    }
}

/// Looks at the objects of a copy. Those that the inventory does not list are not there.
pub fn look_at(client: &Client, inventory: &Inventory, keys: &[String]) -> Result<Seen> {
    let heads = for_each(keys, client.memory.jobs(), |key| {
        if !inventory.may_have(key) {
            return Ok(Some(None));
        }
        match client.head(key) {
            Ok(head) => Ok(Some(head)),
            // who may not read cannot know
            Err(failure) if failure.is_forbidden() => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    })?;
    let now = clock::now();
    let locks = heads.iter().flatten().flatten().map(|head| &head.lock);
    let strictest = locks.max_by_key(|lock| lock.end());
    let mut seen = Seen { protection: strictest.and_then(|lock| lock.protection(now)), ..Seen::default() };
    for (key, head) in keys.iter().zip(heads) {
        match head {
            Some(Some(head)) if !head.etag.is_empty() => {
                seen.etags.insert(key.clone(), head.etag);
            }
            Some(None) => {
                seen.missing.insert(key.clone());
            }
            Some(Some(_)) | None => {}
        }
    }
    Ok(seen)
}

/// Withdraws an announcement: deletes it, or where nothing may be deleted, replaces it by an empty object.
pub fn withdraw(client: &Client, key: &str) -> Result<()> {
    match client.delete(key) {
        Err(failure) if failure.kind == FailureKind::Final => match client.put(key, b"") {
            // nothing may be written either, so it was never announced
            Err(_) if matches!(client.head(key), Ok(None)) => Ok(()),
            put => Ok(put?),
        },
        deleted => Ok(deleted?),
    }
}
