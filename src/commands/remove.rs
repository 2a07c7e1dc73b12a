//! `remove`: takes one backup away, if the chain rule allows it. Marked in the store first, then the manifest goes,
//! then the data, then the entry: after a crash anywhere the same command goes on.

use super::Context;
use super::wanted::Wanted;
use crate::cli;
use crate::error::{Error, Result};
use crate::inventory::Inventory;
use crate::keys;
use crate::manifest::{Manifest, largest};
use crate::s3::client::Client;
use crate::s3::failure::Kind;
use crate::store::format::{Contents, Entry, State};
use crate::units::{count, human_size};

pub fn run(context: &Context, args: &cli::Remove) -> Result<()> {
    let wanted = Wanted::parse("remove", &args.snapshot, args.base.as_deref())?;
    let _lock = match args.dry_run {
        true => None,
        false => Some(context.lock(&format!("remove {}", args.snapshot))?),
    };
    context.refuse_while_pending()?;
    let (mut store, client) = context.store_and_client()?;
    let at = wanted.find(&store.contents)?;
    let entry = store.contents.entries[at].clone();
    Inventory::read(&client, &store.contents, &context.ui)?.check_remove(&entry.backup())?;
    let keys = entry.keys(&store.contents.prefix);
    check_not_shared(&store.contents, at, &keys)?;
    check_is_the_stored_one(&client, &store.contents.prefix, &entry)?;
    if args.dry_run {
        return context.ui.data(&plan(&store.contents.bucket, &entry, &keys));
    }
    if entry.state == State::Stored {
        store.contents.entries[at].state = State::Removing;
        store.save()?;
    }
    for key in &keys {
        client.delete(key).map_err(|failure| {
            Error::from(failure)
                .hint(format!("the removal has begun: 'zfs2s3 remove {}' goes on with it", entry.backup()))
        })?;
    }
    store.contents.entries.remove(at);
    store.save()?;
    context.ui.note(&format!("removed '{}'", entry.backup()));
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

/// Another host may have removed the backup, and stored it again: then this store knows nothing of what is there now.
fn check_is_the_stored_one(client: &Client, prefix: &str, entry: &Entry) -> Result<()> {
    let Some(known) = entry.stream.as_ref().filter(|_| entry.state == State::Stored) else { return Ok(()) };
    let bytes = match client.get(&keys::manifest(prefix, &entry.backup()), largest(known.size)) {
        Ok(bytes) => bytes,
        // none is there, or none that may be read
        Err(failure) if failure.kind == Kind::Final => return Ok(()),
        Err(failure) => return Err(failure.into()),
    };
    match Manifest::read(&bytes).map(|manifest| manifest.stream.without_chunks()) {
        Ok(there) if there != *known => Err(Error::refused(format!(
            "the bucket has another '{}' than this store knows: another host has stored it again, at {}",
            entry.backup(),
            there.stored
        ))
        .hint("'zfs2s3 recover -m' takes it into the store; then it can be removed")),
        _ => Ok(()),
    }
}

/// What `-n` prints.
fn plan(bucket: &str, entry: &Entry, keys: &[String]) -> String {
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
