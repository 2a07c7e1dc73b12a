//! `remove`: takes one backup away, if the chain rule allows it. Marked in the store first, then the manifest goes,
//! then the data, then the entry: after a crash anywhere the same command goes on.

use super::Context;
use super::wanted::Wanted;
use crate::cli;
use crate::error::{Error, Result};
use crate::inventory::Inventory;
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
