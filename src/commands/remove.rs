//! `remove`: takes one backup away, if the chain rule allows it. Marked in the store first, then the manifest goes,
//! then the data, then the entry: after a crash anywhere the same command goes on.

use super::Context;
use crate::backup::Point;
use crate::cli;
use crate::error::{Error, Result};
use crate::inventory::Inventory;
use crate::names::{BaseName, Guid, SnapshotName};
use crate::store::format::{Contents, Entry, State};
use crate::units::{count, human_size};

pub fn run(context: &Context, args: &cli::Remove) -> Result<()> {
    let wanted = Wanted::parse(args).map_err(Error::usage)?;
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

/// What the arguments name.
struct Wanted {
    snapshot: Which,
    base: Option<Which>,
}

/// By name, or where that is not enough by guid.
#[derive(Debug)]
enum Which {
    Guid(Guid),
    Name(String),
}

impl Which {
    fn is(&self, point: &Point) -> bool {
        match self {
            Which::Guid(guid) => point.guid == *guid,
            Which::Name(name) => point.name == *name,
        }
    }
}

impl Wanted {
    fn parse(args: &cli::Remove) -> std::result::Result<Self, String> {
        let snapshot = match args.snapshot.parse::<Guid>() {
            Ok(guid) => Which::Guid(guid),
            Err(_) => Which::Name(args.snapshot.parse::<SnapshotName>()?.as_str().to_string()),
        };
        let base = match (&args.base, &snapshot) {
            (None, _) => None,
            (Some(text), _) if text.parse::<Guid>().is_ok() => text.parse().ok().map(Which::Guid),
            (Some(text), Which::Name(name)) => {
                Some(Which::Name(BaseName::parse(text, &name.parse()?)?.as_str().to_string()))
            }
            (Some(text), Which::Guid(_)) if text.starts_with(['@', '#']) => {
                return Err(format!("'{text}' needs its dataset where the snapshot is named by its guid"));
            }
            (Some(text), Which::Guid(_)) => {
                crate::names::check_point_name(text, "@#")
                    .map_err(|why| format!("'{text}' is not a base: {why}"))?;
                Some(Which::Name(text.clone()))
            }
        };
        Ok(Wanted { snapshot, base })
    }

    /// The one backup that is meant, by its index.
    fn find(&self, contents: &Contents) -> Result<usize> {
        let named: Vec<(usize, &Entry)> =
            contents.entries.iter().enumerate().filter(|(_, e)| self.snapshot.is(&e.snapshot)).collect();
        let meant: Vec<(usize, &Entry)> =
            named.iter().copied().filter(|(_, entry)| self.base_is(contents, entry)).collect();
        match meant.as_slice() {
            [(index, _)] => Ok(*index),
            [] => Err(no_such(&named)),
            several => {
                let mut error =
                    Error::failed("several stored backups have these names; name one by its guid");
                for (_, entry) in several {
                    let base =
                        entry.base.as_ref().map(|base| format!("-i {} ", base.guid)).unwrap_or_default();
                    error = error.hint(format!("zfs2s3 remove {base}{}", entry.snapshot.guid));
                }
                Err(error)
            }
        }
    }

    /// A base may be named as it was when it was stored, or as the stored snapshot of its guid.
    fn base_is(&self, contents: &Contents, entry: &Entry) -> bool {
        match (&self.base, &entry.base) {
            (None, None) => true,
            (Some(wanted), Some(base)) => {
                let same = contents.entries.iter().map(|e| &e.snapshot).filter(|s| s.guid == base.guid);
                wanted.is(base) || same.into_iter().any(|snapshot| wanted.is(snapshot))
            }
            _ => false,
        }
    }
}

fn no_such(named: &[(usize, &Entry)]) -> Error {
    let error = Error::failed("no such backup is stored");
    match named {
        [] => error.hint("'zfs2s3 list' says what is"),
        named => named.iter().fold(error, |error, (_, entry)| {
            error.hint(format!("there is: zfs2s3 remove {}", entry.backup()))
        }),
    }
}
