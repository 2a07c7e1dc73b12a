//! The mark of a backup that `remove` refuses to remove, on this host and on others: an object beside its
//! manifests. Each `keep` writes one of its own, and withdraws no other; `unkeep` withdraws all.
//!
//! A removal announces itself before it looks for marks, and a mark is written before announcements are
//! looked for: so of both at least one sees the other, and backs off.

use super::{TOOL, withdraw};
use crate::error::{Error, Result};
use crate::inventory::{Inventory, Listing, OpenUploads};
use crate::model::announcement::Announcement;
use crate::model::keys;
use crate::os::{clock, host, random};
use crate::s3::client::Client;
use crate::state::store::Store;
use crate::state::store::format::State;
use crate::ui::Ui;

/// Marks the copy at this place in the store.
pub fn keep(client: &Client, store: &mut Store, at: usize, ui: &Ui) -> Result<()> {
    let (copy, backup) = (store.contents.entries[at].copy(), store.contents.entries[at].backup());
    if store.contents.entries[at].state == State::Removing {
        return Err(Error::refused(format!("the removal of '{backup}' has begun"))
            .hint("if it is still whole, 'zfs2s3 recover -m' cancels that"));
    }
    let key = keys::keep(&store.contents.prefix, &copy, random::id());
    let mark = Announcement { version: 1, tool: TOOL.to_string(), host: host::name(), since: clock::now() };
    client.put(&key, mark.to_yaml().map_err(Error::failed)?.as_bytes())?;
    let inventory = Inventory::read(client, &store.contents, ui, OpenUploads::Skip)?;
    if let Err(error) = inventory.check_keep(&copy) {
        drop(inventory);
        return Err(match withdraw(client, &key) {
            Ok(()) => error,
            Err(second) => error.hint(format!("its mark could not be withdrawn either: {second}")),
        });
    }
    drop(inventory);
    store.contents.entries[at].kept = true;
    store.save()
}

/// Its marks are found by a listing.
pub fn unkeep(client: &Client, store: &mut Store, at: usize, _: &Ui) -> Result<()> {
    let list = || -> Result<Listing> {
        Listing::try_read(client, &store.contents, OpenUploads::Skip)?
            .map_err(|failure| Error::from(failure).hint("unkeep needs s3:ListBucket"))
    };
    let link = store.contents.entries[at].link();
    for key in list()?.marks_of(&store.contents.prefix, link) {
        withdraw(client, key)?;
    }
    // replies may be wrong, and a listing may be late
    for key in list()?.marks_of(&store.contents.prefix, link) {
        if client.head_if_allowed(key)?.is_some_and(|head| head.size > 0) {
            return Err(Error::failed(format!("S3 still has the mark '{key}'")).for_now());
        }
    }
    store.contents.entries[at].kept = false;
    store.save()
}
