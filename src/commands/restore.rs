//! `restore`: the cheapest chain that the target does not have yet, each backup piped into `zfs receive`; first of all the one
//! whose receiving was interrupted, from there on. Nothing in the target is destroyed or rolled back.

use std::collections::HashMap;

use super::wanted::Which;
use super::{Context, Reader};
use crate::backup::Point;
use crate::cli;
use crate::error::{Error, Result, Status};
use crate::keys;
use crate::names::{Guid, check_dataset_name};
use crate::restore::partial::Partial;
use crate::restore::plan::{HOW_TO_DROP, Target, begun, plan};
use crate::restore::receive::Receiving;
use crate::restore::stored::Stored;
use crate::store::format::{Contents, Entry, State};
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
    let found = look_at(&zfs, target)?;
    let has = found.without_the_part();
    if let Some(there) = has.name_of(wanted.guid) {
        context.ui.note(&match has.latest() {
            Some(latest) if latest != there => {
                format!("{there} is there already; {latest} is the latest there")
            }
            _ => format!("{there} is there already"),
        });
        return match found.token.is_some() && args.discard {
            true => drop_the_part(&zfs, context, target, args.dry_run),
            false => Ok(()),
        };
    }
    let (first, steps) = match &found.token {
        Some(token) if !args.discard => {
            context
                .ui
                .note(&format!("looking for the place where the receive into {target} was interrupted"));
            let (first, then) = go_on(&zfs, &reader, token, target, &has)?;
            let part = first.entry.backup().in_words();
            let hint = format!("{target} holds a part of {part}; {HOW_TO_DROP}");
            let steps = plan_what_can_be_read(&reader, &wanted, target, &then)
                .map_err(|error| if_refused(error, &hint))?;
            (Some(first), steps)
        }
        _ => (None, plan_what_can_be_read(&reader, &wanted, target, &has)?),
    };
    let drops = found.token.is_some() && first.is_none();
    if drops {
        // only now that the rest is known to be possible
        drop_the_part(&zfs, context, target, args.dry_run)?;
    }
    if args.dry_run {
        return context.ui.data(&say(contents, first.as_ref(), &steps, &has, target));
    }
    if drops && look_at(&zfs, target)?.without_the_part() != has {
        return Err(Error::refused(format!(
            "{target} is not what it was taken for: look at it, and restore again"
        )));
    }
    let receive = |it: Receiving| it.receive(&zfs, target, reader.jobs, &context.ui);
    if let Some(first) = first {
        context.ui.note(&format!(
            "going on with {}, of which {target} has the first {}",
            first.entry.backup().in_words(),
            human_size(first.from())
        ));
        receive(first)?;
    }
    for (n, _) in &steps {
        let entry = &contents.entries[*n];
        let stored = Stored::open(&reader.client, &contents.prefix, entry)?;
        receive(Receiving { entry, stored, start: None })?;
    }
    Ok(())
}

fn drop_the_part(zfs: &Zfs, context: &Context, target: &str, dry_run: bool) -> Result<()> {
    if dry_run {
        context.ui.note(&format!("would drop the part of a stream in {target}"));
        return Ok(());
    }
    context.ui.note(&format!("dropping the part of a stream in {target}"));
    zfs.discard_partial_receive(target)
}

/// The target as it is found.
struct Found {
    /// None: there is no such dataset.
    snapshots: Option<Vec<(String, Guid)>>,
    /// Where it holds a part of a stream.
    token: Option<String>,
    /// It is nothing but that part.
    only_a_part: bool,
}

impl Found {
    /// As it will be when the part is dropped: a dataset that only the part has made goes with it.
    fn without_the_part(&self) -> Target {
        match &self.snapshots {
            Some(snapshots) if !self.only_a_part => Target::Has(snapshots.clone()),
            _ => Target::New,
        }
    }
}

fn look_at(zfs: &Zfs, target: &str) -> Result<Found> {
    let Some(points) = zfs.snapshots(target)? else {
        return Ok(Found { snapshots: None, token: None, only_a_part: false });
    };
    let snapshots: Vec<(String, Guid)> = points.into_iter().map(|point| (point.name, point.guid)).collect();
    let token = zfs.resume_token(target)?;
    // 'zfs receive -F' keeps its part beside what is there
    let only_a_part = token.is_some() && snapshots.is_empty() && zfs.is_only_a_part(target)?;
    Ok(Found { snapshots: Some(snapshots), token, only_a_part })
}

fn if_refused(error: Error, hint: &str) -> Error {
    if error.status == Status::Refused { error.hint(hint) } else { error }
}

/// The backup of which the target holds a part, ready to be gone on with, and the target as it will be after that.
fn go_on<'a>(
    zfs: &Zfs,
    reader: &'a Reader,
    token: &str,
    target: &str,
    has: &Target,
) -> Result<(Receiving<'a>, Target)> {
    let contents = &reader.store.contents;
    let (said, failed) = zfs.explain_token(token)?;
    let not_understood = |why: &str| {
        Error::refused(format!("{target} holds a part of an interrupted stream: {why}")).hint(HOW_TO_DROP)
    };
    let partial = Partial::parse(&said).map_err(|why| not_understood(&why))?.ok_or_else(|| {
        let nothing = || not_understood("'zfs send -nvP -t' does not say of which");
        failed.map_or_else(nothing, |error| error.hint(HOW_TO_DROP))
    })?;
    let (n, then) = begun(contents, &partial, target, has)?;
    let entry = &contents.entries[n];
    let stored = Stored::open(&reader.client, &contents.prefix, entry)?;
    let start = stored.start(&partial, reader.jobs).map_err(|error| if_refused(error, HOW_TO_DROP))?;
    Ok((Receiving { entry, stored, start: Some(start) }, then))
}

/// The cheapest route of which every backup can be read now: their places in the store, and their bytes. One that cannot is left out,
/// and another route looked for.
fn plan_what_can_be_read(
    reader: &Reader,
    wanted: &Point,
    target: &str,
    has: &Target,
) -> Result<Vec<(usize, u64)>> {
    let contents = &reader.store.contents;
    let sizes = python_sizes(reader)?;
    let mut unreadable: HashMap<usize, Error> = HashMap::new();
    // what is being removed may still be whole: it serves where nothing else does
    let mut removing_too = false;
    loop {
        let bytes = |n: usize, entry: &Entry| match &entry.stream {
            _ if unreadable.contains_key(&n) => None,
            _ if entry.state == State::Removing && !removing_too => None,
            Some(stream) => Some(stream.size),
            None => sizes.get(&keys::python(&entry.backup())).copied(),
        };
        let steps = match plan(contents, bytes, wanted, target, has) {
            Ok(steps) => steps,
            Err(_) if !removing_too => {
                removing_too = true;
                continue;
            }
            // why it cannot be read tells more
            Err(error) => return Err(unreadable.into_values().next().unwrap_or(error)),
        };
        let open =
            |n: &usize| Stored::open(&reader.client, &contents.prefix, &contents.entries[*n]).map(|_| ());
        match steps.iter().find_map(|n| open(n).err().map(|error| (*n, error))) {
            None => {
                let size = |n: &usize| bytes(*n, &contents.entries[*n]).unwrap_or_default();
                return Ok(steps.iter().map(|n| (*n, size(n))).collect());
            }
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

/// What `-n` prints.
fn say(
    contents: &Contents,
    first: Option<&Receiving>,
    steps: &[(usize, u64)],
    has: &Target,
    target: &str,
) -> String {
    let onto = match has {
        Target::New => "a new dataset".to_string(),
        Target::Has(snapshots) => {
            let latest = has.latest().unwrap_or("no snapshot");
            match snapshots.len().saturating_sub(1) as u64 {
                0 => format!("which has {latest}"),
                older => format!("which has {latest} and {}", count(older, "older snapshot")),
            }
        }
    };
    let line = |verb: &str, entry: &Entry, bytes: u64| {
        let class = entry.stream.as_ref().map_or("-", |stream| stream.storage_class.as_str());
        format!("  {verb}  {}  {bytes} bytes  {class}\n", entry.backup().in_words())
    };
    let mut total = 0;
    let mut lines = String::new();
    if let Some(first) = first {
        total += first.stored.size() - first.from();
        lines += &line("go on  ", first.entry, total);
    }
    for (n, bytes) in steps {
        total += bytes;
        lines += &line("receive", &contents.entries[*n], *bytes);
    }
    let backups = count(steps.len() as u64 + u64::from(first.is_some()), "backup");
    format!(
        "would restore into {target}, {onto}\n{lines}  in all   {total} bytes ({}), {backups}\n",
        human_size(total)
    )
}
