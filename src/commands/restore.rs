//! `restore`: the cheapest chain that the target does not have yet, each backup piped into `zfs receive`. Nothing in the
//! target is destroyed or rolled back.

use std::collections::HashMap;
use std::io::Write;

use super::wanted::Which;
use super::{Context, Reader};
use crate::cli;
use crate::error::{Error, Result};
use crate::keys;
use crate::names::check_dataset_name;
use crate::restore::plan::{Plan, Target, plan};
use crate::restore::stored::Stored;
use crate::store::format::{Contents, Entry};
use crate::units::{count, human_size};
use crate::upload::describe;
use crate::zfs::Zfs;

pub fn run(context: &Context, args: &cli::Restore) -> Result<()> {
    let which = Which::snapshot(&args.snapshot)?;
    let target = &args.target;
    check_dataset_name(target).map_err(|why| Error::usage(format!("'{target}' is not a dataset: {why}")))?;
    let _lock = match args.dry_run {
        true => None,
        false => Some(context.lock(&format!("restore {} {target}", args.snapshot))?),
    };
    let reader = context.reader()?;
    let contents = &reader.store.contents;
    let wanted = which.find(contents, "restore")?;
    let zfs = context.zfs();
    let has = look_at(context, &zfs, args)?;
    let sizes = python_sizes(&reader)?;
    let bytes = |entry: &Entry| {
        entry.size().or_else(|| sizes.get(&keys::python(&entry.backup())).copied()).unwrap_or_default()
    };
    let plan = plan(contents, bytes, wanted.guid, &wanted.name, target, &has)?;
    if let Some(there) = &plan.there {
        context.ui.note(&format!("{there} is there already"));
        return Ok(());
    }
    // all of them can be read, before the first one is received
    let entries: Vec<&Entry> = plan.steps.iter().map(|n| &contents.entries[*n]).collect();
    let stored: Vec<Stored> = entries
        .iter()
        .map(|entry| Stored::open(&reader.client, &contents.prefix, entry))
        .collect::<Result<_>>()?;
    if args.dry_run {
        return context.ui.data(&say(contents, &plan, &has, target, bytes));
    }
    for (entry, stored) in entries.iter().zip(&stored) {
        receive(context, &zfs, &reader, entry, stored, target)?;
    }
    Ok(())
}

fn look_at(context: &Context, zfs: &Zfs, args: &cli::Restore) -> Result<Target> {
    let target = &args.target;
    let Some(points) = zfs.snapshots(target)? else { return Ok(Target::New) };
    let as_it_is = |points: Vec<crate::backup::Point>| {
        Target::Has(points.into_iter().map(|point| (point.name, point.guid)).collect())
    };
    if !zfs.has_partial_receive(target)? {
        return Ok(as_it_is(points));
    }
    if !args.discard {
        return Err(Error::refused(format!(
            "{target} holds a part of a stream, whose receiving was interrupted"
        ))
        .hint("-A drops that part, and receives that one stream again; whole snapshots stay"));
    }
    if args.dry_run {
        // a dataset that only such a part has made goes with it
        return Ok(if points.is_empty() { Target::New } else { as_it_is(points) });
    }
    context.ui.note(&format!("dropping the part of a stream in {target}"));
    zfs.discard_partial_receive(target)?;
    Ok(zfs.snapshots(target)?.map_or(Target::New, as_it_is))
}

/// The Python tool's list has no sizes.
fn python_sizes(reader: &Reader) -> Result<HashMap<String, u64>> {
    let python = reader.store.contents.entries.iter().filter(|entry| entry.stream.is_none());
    let mut sizes = HashMap::new();
    for entry in python {
        let key = keys::python(&entry.backup());
        if let Some(head) = reader.client.head(&key)? {
            sizes.insert(key, head.size);
        }
    }
    Ok(sizes)
}

fn receive(
    context: &Context,
    zfs: &Zfs,
    reader: &Reader,
    entry: &Entry,
    stored: &Stored,
    target: &str,
) -> Result<()> {
    context.ui.transfer(&entry.snapshot.name, Some(stored.size()));
    let mut receive = zfs.receive(target)?;
    let mut refused = false;
    let read = stored.read(reader.jobs, &context.ui, |chunk| {
        receive.write_all(chunk).map_err(|e| {
            refused = true;
            Error::failed(format!("cannot write to 'zfs receive': {e}"))
        })
    });
    context.ui.transfer_done();
    match read {
        Ok(()) => receive.finish()?,
        // it has ended before its input: its own words tell why
        Err(error) if refused => return Err(receive.finish().err().unwrap_or(error)),
        // 'zfs receive' keeps what it has
        Err(error) => return Err(error),
    }
    context.ui.note(&format!(
        "received {} into {target}: {}",
        describe(&entry.backup()),
        human_size(stored.size())
    ));
    Ok(())
}

/// What `-n` prints.
fn say(
    contents: &Contents,
    plan: &Plan,
    has: &Target,
    target: &str,
    bytes: impl Fn(&Entry) -> u64,
) -> String {
    let onto = match has {
        Target::New => "a new dataset".to_string(),
        Target::Has(snapshots) => {
            snapshots.last().map(|(name, _)| format!("onto {name}")).unwrap_or_default()
        }
    };
    let entries: Vec<&Entry> = plan.steps.iter().map(|n| &contents.entries[*n]).collect();
    let total: u64 = entries.iter().map(|entry| bytes(entry)).sum();
    let lines: String = entries
        .iter()
        .map(|entry| {
            let class = entry.stream.as_ref().map_or("-", |stream| stream.storage_class.as_str());
            format!("  receive  {}  {} bytes  {class}\n", describe(&entry.backup()), bytes(entry))
        })
        .collect();
    let backups = count(entries.len() as u64, "backup");
    format!(
        "would restore into {target}, {onto}\n{lines}  in all   {total} bytes ({}), {backups}\n",
        human_size(total)
    )
}
