//! `remove`: removes one backup, if the chain rule allows it. Marked in the store first, then announced in the bucket, then decided
//! by a listing; then the manifest goes, then the data, then the entry. After a crash anywhere the same command continues.

use super::Context;
use super::wanted::Wanted;
use crate::cli;
use crate::error::{Error, Result, Status};
use crate::inventory::{Inventory, Uploads};
use crate::model::copy::{CopyName, Id};
use crate::model::keys;
use crate::model::manifest::is_newer;
use crate::model::units::{count, human_size};
use crate::os::host;
use crate::os::random;
use crate::removal::{Interrupted, Removal};
use crate::s3::client::Client;
use crate::s3::failure::Kind;
use crate::state::store::Store;
use crate::state::store::format::{Contents, Entry, State};

pub fn run(context: &Context, args: &cli::Remove) -> Result<()> {
    let wanted = Wanted::parse("remove", &args.snapshot, args.base.as_deref())?;
    let id = args.copy.as_deref().map(parse_id).transpose().map_err(Error::usage)?;
    let _lock = match args.dry_run {
        true => None,
        false => Some(context.lock(&format!("remove {}", args.snapshot))?),
    };
    context.refuse_while_pending()?;
    let (store, client) = context.store_and_client()?;
    let copy = match id {
        Some(id) => match wanted.find_copy(&store.contents, id) {
            Some(at) => at,
            None => return remove_unknown_copy(context, args, &store, &client, &wanted, id),
        },
        None => wanted.find_to_remove(&store.contents)?,
    };
    remove_stored(context, args, store, &client, copy, id.is_some())
}

/// `none`: the copy whose keys have no ID.
fn parse_id(text: &str) -> std::result::Result<Option<Id>, String> {
    if text == NO_ID { Ok(None) } else { text.parse().map(Some) }
}

/// How a copy without an ID is named.
pub const NO_ID: &str = "none";

/// One that the store knows.
fn remove_stored(
    context: &Context,
    args: &cli::Remove,
    mut store: Store,
    client: &Client,
    at: usize,
    only_if_spare: bool,
) -> Result<()> {
    let entry = store.contents.entries[at].clone();
    let copy = entry.copy();
    let keys = entry.keys(&store.contents.prefix);
    check_not_shared(&store.contents, at, &keys)?;
    {
        // a refusal that costs little; open uploads are looked for when the removal is announced
        let mut inventory = Inventory::read(client, &store.contents, &context.ui, Uploads::NotAsked)?;
        let own = entry.removal;
        if let Err(error) = inventory.check_remove(&copy, own) {
            let is_whole = inventory.is_whole(&copy);
            drop(inventory);
            return give_way(context, args, &mut store, client, at, is_whole, error);
        }
    }
    check_is_the_stored_one(client, &store.contents.prefix, &entry)?;
    if args.dry_run {
        return context.ui.data(&dry_run_text(&store.contents.bucket, &entry, &keys));
    }
    let nonce = entry.removal.unwrap_or_else(random::id);
    if entry.removal.is_none() {
        (store.contents.entries[at].state, store.contents.entries[at].removal) =
            (State::Removing, Some(nonce));
        store.save()?;
    }
    let continues = |error: Error| {
        error.hint(format!("the removal has begun: the same 'zfs2s3 remove {}' continues it", entry.backup()))
    };
    let host = host::name();
    let removal =
        Removal { client, contents: &store.contents, ui: &context.ui, copy: &copy, nonce, host: &host };
    if client.lacks("announcing first") {
        // only in a test build, to show that the tests would notice
        removal.look()?.check_remove(&copy, Some(nonce))?;
    }
    if let Err(error) = removal.announce() {
        // refused, a full quota, say: nothing is gone
        return match error.status != Status::TryAgain && removal.are_there(&keys)? {
            true => give_way(context, args, &mut store, client, at, true, error),
            false => Err(continues(error)),
        };
    }
    let mut inventory = removal.look().map_err(continues)?;
    let is_whole = inventory.is_whole(&copy);
    if let Err(error) = inventory.check_remove(&copy, Some(nonce))
        && !client.lacks("announcing first")
    {
        if error.status != Status::Refused {
            return Err(continues(error));
        }
        drop(inventory);
        return give_way(context, args, &mut store, client, at, is_whole, error);
    }
    if only_if_spare && is_whole && !inventory.has_another_copy(&copy).map_err(continues)? {
        drop(inventory);
        let error = last_copy(&entry.backup().to_string()).hint("without -c, the backup is removed");
        return give_way(context, args, &mut store, client, at, true, error);
    }
    let (seen, announcements) = inventory.objects_of(&copy);
    let mut objects = keys.clone();
    objects.extend(seen.into_iter().filter(|key| !keys.contains(key)));
    match removal.delete(&objects, &announcements) {
        Ok(()) => {}
        Err(Interrupted { error, refused_at_once: true }) if removal.are_there(&keys)? => {
            drop(inventory);
            let error = error.hint(format!("nothing was removed: '{}' stays stored", entry.backup()));
            return give_way(context, args, &mut store, client, at, true, error);
        }
        Err(Interrupted { error, .. }) => return Err(continues(error)),
    }
    drop(inventory);
    store.contents.entries.remove(at);
    store.save()?;
    context.ui.note(&format!("removed '{}'", entry.backup()));
    if store.contents.entries.iter().any(|other| other.link() == entry.link()) {
        context.ui.note(&format!("another copy of '{}' stays stored", entry.backup()));
    }
    Ok(())
}

fn last_copy(shown: &str) -> Error {
    Error::refused(format!("'{shown}' is the last copy of that backup, or the others are being removed"))
}

/// The removal is not to be: what is whole is called stored again, and its announcement is taken back. What is not whole any
/// more cannot be called so: its removal stays begun.
fn give_way(
    context: &Context,
    args: &cli::Remove,
    store: &mut Store,
    client: &Client,
    at: usize,
    is_whole: bool,
    error: Error,
) -> Result<()> {
    let entry = &store.contents.entries[at];
    let (copy, backup, removal) = (entry.copy(), entry.backup(), entry.removal);
    if entry.state == State::Stored || args.dry_run {
        return Err(error);
    }
    if !is_whole {
        return Err(error.hint(format!("the removal of '{backup}' had begun: it is not whole any more")));
    }
    if let Some(nonce) = removal {
        let key = keys::announcement(&store.contents.prefix, &copy, nonce);
        if let Err(second) = crate::removal::withdraw(client, &key) {
            return Err(error
                .hint(format!("and its announcement could not be taken back: {second}"))
                .hint(format!("'{backup}' stays marked 'removing': run the same command again")));
        }
    }
    let entry = &mut store.contents.entries[at];
    (entry.state, entry.removal) = (State::Stored, None);
    store.save()?;
    context.ui.note(&format!("'{backup}' is stored, as before"));
    Err(error)
}

/// A further copy, of which only the bucket knows.
fn remove_unknown_copy(
    context: &Context,
    args: &cli::Remove,
    store: &Store,
    client: &Client,
    wanted: &Wanted,
    id: Option<Id>,
) -> Result<()> {
    let shown = id.map_or(NO_ID.to_string(), |id| id.to_string());
    let first = Inventory::read(client, &store.contents, &context.ui, Uploads::NotAsked)?;
    let Some(listing) = first.listing() else {
        return Err(Error::failed(format!(
            "copy {shown} is not in the store, and the bucket may not be listed"
        )));
    };
    let copies =
        listing.objects.iter().filter_map(|o| Some(keys::parse(&store.contents.prefix, &o.key)?.copy));
    let found: Vec<CopyName> = copies.filter(|copy| copy.id == id).collect();
    let Some(copy) = found.into_iter().find(|copy| wanted.is_copy(&store.contents, copy)) else {
        return Err(Error::failed(format!("the bucket has no copy {shown} of that backup"))
            .hint("'zfs2s3 recover -n' names the copies"));
    };
    let mut first = first;
    if first.is_elsewhere(&copy)? {
        return Err(Error::refused(format!("copy {shown} belongs to a store of another prefix"))
            .hint("remove it with that ZFS2S3_PREFIX"));
    }
    first.check_remove(&copy, None)?;
    let shown = format!("copy {shown} of {}", copy.name);
    if args.dry_run {
        let (objects, _) = first.objects_of(&copy);
        let lines: String =
            objects.iter().map(|key| format!("  delete  s3://{}/{key}\n", store.contents.bucket)).collect();
        return context.ui.data(&format!("would remove {shown}\n{lines}"));
    }
    drop(first);
    let host = host::name();
    let nonce = random::id();
    let removal =
        Removal { client, contents: &store.contents, ui: &context.ui, copy: &copy, nonce, host: &host };
    removal.announce()?;
    let again = || "the same command continues the removal".to_string();
    let mut inventory = removal.look().map_err(|e| e.hint(again()))?;
    if let Err(error) = inventory.check_remove(&copy, Some(nonce)) {
        return Err(if error.status == Status::Refused { removal.give_way(error) } else { error });
    }
    // what is left of a copy that is not whole is no backup
    if inventory.is_whole(&copy) && !inventory.has_another_copy(&copy)? {
        let error = last_copy(&shown)
            .hint("'zfs2s3 recover -m' takes it into the store; then 'zfs2s3 remove' removes the backup");
        return Err(removal.give_way(error));
    }
    let (objects, announcements) = inventory.objects_of(&copy);
    if let Err(Interrupted { error, refused_at_once }) = removal.delete(&objects, &announcements) {
        if refused_at_once && removal.are_there(&objects)? {
            return Err(removal.give_way(error));
        }
        return Err(error.hint(again()));
    }
    context.ui.note(&format!("removed {shown}"));
    Ok(())
}

/// The Python tool's keys bear no guid: what it stored of a snapshot made again lies where the older one lay.
fn check_not_shared(contents: &Contents, at: usize, keys: &[String]) -> Result<()> {
    let others = contents.entries.iter().enumerate().filter(|(n, _)| *n != at);
    let shared = others.map(|(_, entry)| entry).find(|entry| {
        let theirs = entry.keys(&contents.prefix);
        keys.iter().any(|key| theirs.contains(key))
    });
    match shared {
        None => Ok(()),
        Some(other) => Err(Error::refused(format!(
            "the backup of guid {} has the same object '{}'",
            other.snapshot.guid,
            keys.first().map(String::as_str).unwrap_or_default()
        ))
        .hint("nothing was removed")),
    }
}

/// Keys of the version before had no ID, so another host may have removed such a backup and stored it again under the same ones: then
/// this store knows nothing of what is there now.
fn check_is_the_stored_one(client: &Client, prefix: &str, entry: &Entry) -> Result<()> {
    let Some(known) = entry.stream.as_ref().filter(|_| entry.id.is_none()) else { return Ok(()) };
    let there = match client.get_manifest(&keys::manifest(prefix, &entry.copy()), known.size, false) {
        Ok(Ok(checked)) => checked.manifest.stream,
        Ok(Err(why)) if is_newer(&why) => {
            return Err(Error::refused(format!(
                "the manifest of '{}' was written by a newer version of zfs2s3, so another host has stored it again: {why}",
                entry.backup()
            ))
            .hint("remove it with that version"));
        }
        // none is there, or none that may be read, or a damaged one
        Ok(Err(_)) => return Ok(()),
        Err(failure) if failure.kind == Kind::Final => return Ok(()),
        Err(failure) => return Err(failure.into()),
    };
    match there == *known {
        true => Ok(()),
        false => Err(Error::refused(format!(
            "the bucket has another '{}' than this store knows: another host has stored it again, at {}",
            entry.backup(),
            there.stored
        ))
        .hint("'zfs2s3 recover -m' takes it into the store; then it can be removed")),
    }
}

fn dry_run_text(bucket: &str, entry: &Entry, keys: &[String]) -> String {
    let size = match entry.size() {
        Some(bytes) => format!("{bytes} bytes ({})", human_size(bytes)),
        None => "not known".to_string(),
    };
    let objects: String = keys.iter().map(|key| format!("  delete  s3://{bucket}/{key}\n")).collect();
    format!(
        "would remove '{}'\n{objects}  size    {size}, {}\n",
        entry.backup(),
        count(keys.len() as u64, "object")
    )
}
