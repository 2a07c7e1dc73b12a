//! `restore`: the cheapest chain that the target does not have yet, each backup piped into `zfs receive`. Nothing in the
//! target is destroyed or rolled back.

use std::collections::HashMap;
use std::io::Write;

use super::wanted::Which;
use super::{Context, Reader};
use crate::backup::Point;
use crate::cli;
use crate::error::{Error, Result, Status};
use crate::keys;
use crate::names::{Guid, check_dataset_name};
use crate::restore::plan::{Plan, Target, plan};
use crate::restore::stored::Stored;
use crate::store::format::{Contents, Entry};
use crate::units::{count, human_size};
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
    let has = look_at(&zfs, target)?;
    if has.partial && !args.discard {
        return Err(Error::refused(format!(
            "{target} holds a part of a stream, whose receiving was interrupted"
        ))
        .hint("-A drops that part, and receives that one stream again; whole snapshots stay"));
    }
    let has_without = has.without_the_part();
    let plan = plan_what_can_be_read(&reader, &wanted, target, &has_without)?;
    if let Some(there) = &plan.there {
        context.ui.note(&format!("{there} is there already"));
        return Ok(());
    }
    if args.dry_run {
        return context.ui.data(&say(contents, &plan, &has_without, target));
    }
    if has.partial {
        // only now that the rest is known to be possible
        context.ui.note(&format!("dropping the part of a stream in {target}"));
        zfs.discard_partial_receive(target)?;
        if look_at(&zfs, target)?.without_the_part() != has_without {
            return Err(Error::refused(format!(
                "{target} is not what it was taken for: look at it, and restore again"
            )));
        }
    }
    for n in &plan.steps {
        receive(context, &zfs, &reader, &contents.entries[*n], target)?;
    }
    Ok(())
}

/// The target as it is found.
struct Found {
    /// None: there is no such dataset.
    snapshots: Option<Vec<(String, Guid)>>,
    /// It holds a part of a stream.
    partial: bool,
}

impl Found {
    /// As it will be when the part is dropped: a dataset that only the part has made goes with it.
    fn without_the_part(&self) -> Target {
        match &self.snapshots {
            None => Target::New,
            Some(snapshots) if self.partial && snapshots.is_empty() => Target::New,
            Some(snapshots) => Target::Has(snapshots.clone()),
        }
    }
}

fn look_at(zfs: &Zfs, target: &str) -> Result<Found> {
    let Some(points) = zfs.snapshots(target)? else { return Ok(Found { snapshots: None, partial: false }) };
    let snapshots = points.into_iter().map(|point| (point.name, point.guid)).collect();
    Ok(Found { snapshots: Some(snapshots), partial: zfs.has_partial_receive(target)? })
}

/// The cheapest route of which every backup can be read now. One that cannot is left out, and another route looked for.
fn plan_what_can_be_read(reader: &Reader, wanted: &Point, target: &str, has: &Target) -> Result<Plan> {
    let contents = &reader.store.contents;
    let sizes = python_sizes(reader)?;
    let mut unreadable: HashMap<usize, Error> = HashMap::new();
    loop {
        let bytes = |n: usize, entry: &Entry| match &entry.stream {
            _ if unreadable.contains_key(&n) => None,
            Some(stream) => Some(stream.size),
            None => sizes.get(&keys::python(&entry.backup())).copied(),
        };
        let plan = match plan(contents, bytes, wanted.guid, &wanted.name, target, has) {
            Ok(plan) => plan,
            // why it cannot be read tells more
            Err(error) => return Err(unreadable.into_values().next().unwrap_or(error)),
        };
        let open =
            |n: &usize| Stored::open(&reader.client, &contents.prefix, &contents.entries[*n]).map(|_| ());
        match plan.steps.iter().find_map(|n| open(n).err().map(|error| (*n, error))) {
            None => return Ok(plan),
            Some((_, error)) if error.status == Status::TryAgain => return Err(error),
            Some((n, error)) => {
                unreadable.insert(n, error);
            }
        }
    }
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

fn receive(context: &Context, zfs: &Zfs, reader: &Reader, entry: &Entry, target: &str) -> Result<()> {
    let stored = Stored::open(&reader.client, &reader.store.contents.prefix, entry)?;
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
        entry.backup().in_words(),
        human_size(stored.size())
    ));
    Ok(())
}

/// What `-n` prints.
fn say(contents: &Contents, plan: &Plan, has: &Target, target: &str) -> String {
    let onto = match has {
        Target::New => "a new dataset".to_string(),
        Target::Has(snapshots) => {
            snapshots.last().map(|(name, _)| format!("onto {name}")).unwrap_or_default()
        }
    };
    let entries: Vec<&Entry> = plan.steps.iter().map(|n| &contents.entries[*n]).collect();
    let bytes = |entry: &Entry| entry.size().unwrap_or_default();
    let total: u64 = entries.iter().map(|entry| bytes(entry)).sum();
    let lines: String = entries
        .iter()
        .map(|entry| {
            let class = entry.stream.as_ref().map_or("-", |stream| stream.storage_class.as_str());
            format!("  receive  {}  {} bytes  {class}\n", entry.backup().in_words(), bytes(entry))
        })
        .collect();
    let backups = count(entries.len() as u64, "backup");
    format!(
        "would restore into {target}, {onto}\n{lines}  in all   {total} bytes ({}), {backups}\n",
        human_size(total)
    )
}
