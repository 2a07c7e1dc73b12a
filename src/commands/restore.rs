//! `restore`: the cheapest chain that the target does not have yet, each backup piped into `zfs receive`; first of all the one
//! whose receiving was interrupted, from there on. Nothing in the target is destroyed or rolled back.

use std::collections::{HashMap, HashSet};

use super::wanted::Which;
use super::{Context, Reader};
use crate::cli;
use crate::error::{Error, Result, Status};
use crate::model::backup::Point;
use crate::model::keys;
use crate::model::names::{Guid, check_dataset_name};
use crate::model::units::{count, human_size};
use crate::restore::partial::Partial;
use crate::restore::plan::{HOW_TO_DROP, Target, begun, is_clone, plan};
use crate::restore::receive::Receiving;
use crate::restore::stored::{Stored, all_of};
use crate::state::store::format::{Contents, Entry, State};
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
    let found = look_at(&zfs, target, contents)?;
    let mut has = found.without_the_part();
    if let Some(there) = has.name_of(wanted.guid) {
        context.ui.note(&match has.snapshots().last().map(|(name, _)| name.as_str()) {
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
    // one that only an interrupted receive has made has them already
    if !args.properties.is_empty() && has != Target::New {
        return Err(Error::usage(format!("-o is for a dataset that is made, and {target} is there already"))
            .hint("'zfs set' changes its properties"));
    }
    let planner =
        Planner { zfs: &zfs, reader: &reader, wanted: &wanted, target, sizes: python_sizes(&reader)? };
    let (first, steps) = match &found.token {
        Some(token) if !args.discard => {
            context
                .ui
                .note(&format!("looking for the place where the receive into {target} was interrupted"));
            let (first, then) = go_on(&zfs, &reader, token, target, &has)?;
            let part = first.entry.backup().in_words();
            let hint = format!("{target} holds a part of {part}; {HOW_TO_DROP}");
            let steps = planner.plan(&then).map_err(|error| if_refused(error, &hint))?;
            (Some(first), steps)
        }
        _ => {
            let (steps, from) = planner.plan_from_any_base(has)?;
            has = from;
            (None, steps)
        }
    };
    if let Some((latest, base)) = has.snapshots().last().map(|(name, _)| name.as_str()).zip(has.base_name())
        && latest != base
        && first.is_none()
    {
        context
            .ui
            .note(&format!("nothing was written to {target} since {base}: what is received follows on that"));
    }
    let drops = found.token.is_some() && first.is_none();
    if drops {
        // only now that the rest is known to be possible
        drop_the_part(&zfs, context, target, args.dry_run)?;
    }
    if args.dry_run {
        return context.ui.data(&say(contents, first.as_ref(), &steps, &has, target));
    }
    if drops && look_at(&zfs, target, contents)?.without_the_part().snapshots() != has.snapshots() {
        return Err(Error::refused(format!(
            "{target} has changed since it was checked: look at it, and restore again"
        )));
    }
    let receive =
        |it: Receiving, properties: &[String]| it.receive(&zfs, target, properties, reader.jobs, &context.ui);
    let goes_on = first.is_some();
    if let Some(first) = first {
        context.ui.note(&format!(
            "going on with {}, of which {target} has the first {}",
            first.entry.backup().in_words(),
            human_size(first.from())
        ));
        receive(first, &[])?;
    }
    let mut properties = if goes_on { &[] } else { args.properties.as_slice() };
    for (n, _) in &steps {
        let entry = &contents.entries[*n];
        let stored = Stored::open(&reader.client, &contents.prefix, entry).map_err(all_of)?;
        // only the first one makes the dataset
        receive(Receiving { entry, stored, start: None }, std::mem::take(&mut properties))?;
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
    has: Target,
    /// Where it holds a part of a stream.
    token: Option<String>,
    /// It is nothing but that part.
    only_a_part: bool,
}

impl Found {
    /// As it will be when the part is dropped: a dataset that only the part has made goes with it.
    fn without_the_part(&self) -> Target {
        if self.only_a_part { Target::New } else { self.has.clone() }
    }
}

fn look_at(zfs: &Zfs, target: &str, contents: &Contents) -> Result<Found> {
    let Some(points) = zfs.snapshots(target)? else {
        return Ok(Found { has: Target::New, token: None, only_a_part: false });
    };
    let base = base_of(zfs, &points, contents);
    let snapshots: Vec<(String, Guid)> = points.into_iter().map(|point| (point.name, point.guid)).collect();
    let token = zfs.resume_token(target)?;
    // 'zfs receive -F' keeps its part beside what is there
    let only_a_part = token.is_some() && snapshots.is_empty() && zfs.is_only_a_part(target)?;
    Ok(Found { has: Target::Has { snapshots, base }, token, only_a_part })
}

/// The snapshot of the target that `zfs receive` builds on. Later ones, as snapshot tools make them, are in nobody's way if
/// nothing was written since.
fn base_of(zfs: &Zfs, snapshots: &[Point], contents: &Contents) -> Option<Guid> {
    let latest = snapshots.last()?;
    let is_stored = |point: &&Point| {
        contents.entries.iter().any(|entry| {
            entry.snapshot.guid == point.guid
                || entry.base.as_ref().is_some_and(|base| base.guid == point.guid)
        })
    };
    match snapshots.iter().rfind(is_stored) {
        // an old version cannot tell
        Some(stored) if stored == latest || zfs.is_unchanged_since(&stored.name).unwrap_or(false) => {
            Some(stored.guid)
        }
        _ => Some(latest.guid),
    }
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
    let stored = Stored::open(&reader.client, &contents.prefix, entry).map_err(all_of)?;
    let start = stored.start(&partial, reader.jobs).map_err(|error| if_refused(error, HOW_TO_DROP))?;
    Ok((Receiving { entry, stored, start: Some(start) }, then))
}

/// What a restore would do is planned with these.
struct Planner<'a> {
    zfs: &'a Zfs,
    reader: &'a Reader,
    wanted: &'a Point,
    target: &'a str,
    /// Of the Python tool's objects, by key.
    sizes: HashMap<String, u64>,
}

impl Planner<'_> {
    /// The plan from the latest stored snapshot of the target, or where none leads on from there, from an earlier one since which
    /// nothing was written.
    fn plan_from_any_base(&self, has: Target) -> Result<(Vec<(usize, u64)>, Target)> {
        let refused = match self.plan(&has) {
            Err(error) if error.status == Status::Refused => error,
            planned => return planned.map(|steps| (steps, has)),
        };
        let Target::Has { snapshots, base: Some(base) } = &has else { return Err(refused) };
        let before = snapshots.iter().rev().skip_while(|(_, guid)| guid != base).skip(1);
        for (name, guid) in before {
            if !self.zfs.is_unchanged_since(name).unwrap_or(false) {
                break;
            }
            let from = Target::Has { snapshots: snapshots.clone(), base: Some(*guid) };
            if let Ok(steps) = self.plan(&from) {
                return Ok((steps, from));
            }
        }
        Err(refused)
    }

    /// The cheapest route of which every backup can be read now: their places in the store, and their bytes. One that cannot is left out,
    /// and another route looked for. Where there is none, all that cannot be read on the first one is named.
    fn plan(&self, has: &Target) -> Result<Vec<(usize, u64)>> {
        let Planner { zfs, reader, wanted, target, sizes } = self;
        let contents = &reader.store.contents;
        let origins = match *has == Target::New && contents.entries.iter().any(is_clone) {
            true => zfs.snapshots_of_pool(target)?,
            false => HashSet::new(),
        };
        let mut unreadable: HashSet<usize> = HashSet::new();
        let mut of_the_first: Vec<Error> = Vec::new();
        // what is being removed may still be whole: it serves where nothing else does
        let mut removing_too = false;
        loop {
            let bytes = |n: usize, entry: &Entry| match &entry.stream {
                _ if unreadable.contains(&n) => None,
                _ if entry.state == State::Removing && !removing_too => None,
                Some(stream) => Some(stream.size),
                None => sizes.get(&keys::python(&entry.backup())).copied(),
            };
            let steps = match plan(contents, bytes, wanted, target, has, &origins) {
                Ok(steps) => steps,
                Err(_) if !removing_too => {
                    removing_too = true;
                    continue;
                }
                Err(error) if of_the_first.is_empty() => return Err(error),
                // why it cannot be read tells more
                Err(_) => return Err(all_of(of_the_first)),
            };
            let mut wrong = Vec::new();
            for n in &steps {
                if let Err(errors) = Stored::open(&reader.client, &contents.prefix, &contents.entries[*n]) {
                    wrong.push(*n);
                    if unreadable.is_empty() {
                        of_the_first.extend(errors);
                    } else if let Some(error) =
                        errors.into_iter().find(|error| error.status == Status::TryAgain)
                    {
                        return Err(error);
                    }
                }
            }
            if of_the_first.iter().any(|error| error.status == Status::TryAgain) {
                return Err(all_of(of_the_first));
            }
            if wrong.is_empty() {
                let size = |n: &usize| bytes(*n, &contents.entries[*n]).unwrap_or_default();
                return Ok(steps.iter().map(|n| (*n, size(n))).collect());
            }
            unreadable.extend(wrong);
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
        Target::Has { snapshots, .. } => {
            let base = has.base_name().unwrap_or("no snapshot");
            match snapshots.len().saturating_sub(1) as u64 {
                0 => format!("which has {base}"),
                others => format!("which has {base} and {}", count(others, "other snapshot")),
            }
        }
    };
    let line = |verb: &str, entry: &Entry, bytes: u64| {
        let class = entry.stream.as_ref().map_or("-", |stream| stream.storage_class.as_str());
        let clone = if *has == Target::New && is_clone(entry) { "  as a clone" } else { "" };
        format!("  {verb}  {}  {bytes} bytes  {class}{clone}\n", entry.backup().in_words())
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
