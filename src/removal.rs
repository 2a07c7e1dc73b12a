//! The removal of one copy from the bucket: announced first, decided by a listing after that, and only then done. `remove` works
//! by it, and so does `abort_upload` of an upload whose manifest is there already.
//!
//! S3 has no locks, but its objects and listings are strongly consistent. So of a removal and an upload that builds on what it
//! removes, or of two removals, at least one sees the other, and gives way. See `chain/mod.rs` for the rule, `chain/protocol.rs` for
//! the proof.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::inventory::{Inventory, Uploads};
use crate::model::announcement::Announcement;
use crate::model::copy::{CopyName, Id};
use crate::model::keys;
use crate::os::clock;
use crate::s3::client::Client;
use crate::s3::failure::Kind;
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

/// How a deletion ended that was not completed.
pub struct Interrupted {
    pub error: Error,
    /// S3 refused the first deletion.
    pub refused_at_once: bool,
}

impl Removal<'_> {
    fn key(&self) -> String {
        keys::announcement(&self.contents.prefix, self.copy, self.nonce)
    }

    /// From here on no upload that builds on the copy is called stored.
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

    /// Takes back what was announced, and deletes nothing more. Where that fails, the error says so, too.
    pub fn give_way(&self, error: Error) -> Error {
        match self.withdraw() {
            Ok(()) => error,
            Err(second) => error.hint(format!("and its announcement could not be taken back: {second}")),
        }
    }

    /// Whoever was there before the announcement is seen by this.
    pub fn look(&self) -> Result<Inventory<'_>> {
        Inventory::read(self.client, self.contents, self.ui, Uploads::Listed)
    }

    /// Are all of these objects there? A refusal may come after a try that was carried out and whose reply was lost.
    pub fn are_there(&self, objects: &[String]) -> Result<bool> {
        for key in objects {
            if self.client.head_if_allowed(key)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes the announcement back. Where nothing may be deleted, an empty object in its place says so.
    pub fn withdraw(&self) -> Result<()> {
        withdraw(self.client, &self.key())
    }

    /// Deletes the copy: the manifest first, the announcements last. `objects` and `announcements` as a listing
    /// showed them.
    pub fn delete(
        &self,
        objects: &[String],
        announcements: &[String],
    ) -> std::result::Result<(), Interrupted> {
        for (n, key) in objects.iter().enumerate() {
            self.client.delete(key).map_err(|failure| Interrupted {
                refused_at_once: n == 0 && failure.status.is_some() && failure.kind == Kind::Final,
                error: failure.into(),
            })?;
        }
        // of what is gone nobody else's announcement is needed, either
        let own = self.key();
        let others = announcements.iter().filter(|key| **key != own);
        for key in others.chain([&own]) {
            self.client
                .delete(key)
                .map_err(|failure| Interrupted { refused_at_once: false, error: failure.into() })?;
        }
        Ok(())
    }
}

/// Takes an announcement back.
pub fn withdraw(client: &Client, key: &str) -> Result<()> {
    match client.delete(key) {
        Err(failure) if failure.kind == Kind::Final => match client.put(key, b"") {
            // nothing may be written either, so it was never there
            Err(_) if matches!(client.head(key), Ok(None)) => Ok(()),
            put => Ok(put?),
        },
        deleted => Ok(deleted?),
    }
}
