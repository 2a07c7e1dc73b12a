//! The plan of a restore: which stored backups, in which order, onto what the target has. Pure.

use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::model::backup::{Link, Point};
use crate::model::names::{Guid, dataset_of, short_name};
use crate::model::shell::quoted;
use crate::restore::resume::partial::PartialReceive;
use crate::restore::route::{Step, cheapest};
use crate::restore::target::Target;
use crate::state::store::format::{Contents, Entry};

/// The place in the store of the backup that the target has a part of, and the target as it will be when that
/// is whole.
pub fn find_begun(
    contents: &Contents,
    partial: &PartialReceive,
    name: &str,
    target: &Target,
) -> Result<(usize, Target)> {
    let cannot = |why: &str| {
        Error::refused(format!("{name} has a part of an interrupted stream of {}, {why}", partial.name))
            .hint(DISCARD_HINT)
    };
    let is_it = |entry: &Entry| entry.link() == partial.link;
    let place = contents.entries.iter().position(is_it).ok_or_else(|| cannot("which is not stored"))?;
    let follows = match (target, partial.link.base) {
        (Target::New, None) => true,
        (Target::New, Some(_)) => is_clone(&contents.entries[place]),
        (Target::Has { base: there, .. }, Some(base)) => *there == Some(base),
        _ => false,
    };
    if !follows {
        return Err(cannot("which does not follow the snapshots there"));
    }
    Ok((place, target.with(&contents.entries[place], name)))
}

/// What to do about a part that is in the way.
pub const DISCARD_HINT: &str = "-A discards that part; whole snapshots stay";

/// The stored backups that restore `wanted` onto what the target has: their places in the store, in order.
/// `bytes` is what fetching an entry costs; none: it cannot be fetched. `origins`: the snapshots of the
/// target's pool, of which a new target may be a clone.
pub fn plan(
    contents: &Contents,
    bytes: impl Fn(usize, &Entry) -> Option<u64>,
    wanted: &Point,
    target_name: &str,
    target: &Target,
    origins: &HashSet<Guid>,
) -> Result<Vec<usize>> {
    let start = match target {
        Target::New => None,
        Target::Has { base: None, .. } => {
            return Err(Error::refused(format!(
                "{target_name} exists, and has no snapshot that a backup could be received onto"
            ))
            .hint("nothing is overwritten: name a dataset that does not exist"));
        }
        Target::Has { base, .. } => *base,
    };
    let is_new = *target == Target::New;
    // the first stream of a clone creates a dataset, as a full one does
    let link = |entry: &Entry| match (is_clone(entry), entry.base.as_ref()) {
        (false, _) => Some(entry.link()),
        (true, Some(base)) if is_new && origins.contains(&base.guid) => {
            Some(Link { snapshot: entry.snapshot.guid, base: None })
        }
        _ => None,
    };
    let (places, steps) = steps_of(contents, &bytes, link);
    match cheapest(&steps, start, wanted.guid) {
        Some(route) => {
            let steps: Vec<usize> = route.iter().map(|n| places[*n]).collect();
            check_names(contents, &steps, target_name, target)?;
            Ok(steps)
        }
        None => {
            let from_nothing = cheapest(&steps, None, wanted.guid).is_some();
            let clone = if from_nothing { None } else { missing_origin(contents, &bytes, wanted) };
            Err(match clone {
                Some(entry) if is_new => no_origin(contents, entry, target_name),
                Some(entry) => Error::refused(format!(
                    "{} is stored as a clone, which creates a new dataset, and {target_name} exists",
                    entry.snapshot.name
                ))
                .hint("name a dataset that does not exist"),
                None => no_route(&steps, from_nothing, wanted, target_name, target),
            })
        }
    }
}

/// The last clone of a route that only lacks the origin of that clone.
fn missing_origin<'a>(
    contents: &'a Contents,
    bytes: &impl Fn(usize, &Entry) -> Option<u64>,
    wanted: &Point,
) -> Option<&'a Entry> {
    let (places, steps) = steps_of(contents, bytes, |entry| Some(entry.link()));
    let route = cheapest(&steps, None, wanted.guid)?;
    route.iter().rev().map(|n| &contents.entries[places[*n]]).find(|entry| is_clone(entry))
}

/// The backups that can be fetched and have a link: their places in the store, and what each costs.
fn steps_of(
    contents: &Contents,
    bytes: &impl Fn(usize, &Entry) -> Option<u64>,
    link: impl Fn(&Entry) -> Option<Link>,
) -> (Vec<usize>, Vec<Step>) {
    let step = |(n, entry): (usize, &Entry)| Some((n, Step { link: link(entry)?, bytes: bytes(n, entry)? }));
    contents.entries.iter().enumerate().filter_map(step).unzip()
}

fn no_origin(contents: &Contents, clone: &Entry, target_name: &str) -> Error {
    let Some(base) = &clone.base else { return Error::failed("a clone without an origin") };
    let pool = target_name.split('/').next().unwrap_or_default();
    let mut named =
        contents.entries.iter().map(|entry| &entry.snapshot).filter(|s| s.name == base.name).peekable();
    let is_clear = named.peek().is_some() && named.all(|snapshot| snapshot.guid == base.guid);
    let origin = if is_clear { quoted(&base.name) } else { base.guid.to_string() };
    let mut place = format!("{pool}/{}", dataset_of(&base.name).rsplit('/').next().unwrap_or_default());
    if place == target_name {
        place.push_str("-origin");
    }
    Error::refused(format!(
        "{} is stored as a clone of {}, which is not in the pool {pool}",
        clone.snapshot.name, base.name
    ))
    .hint(format!("first restore that into a dataset of its own: zfs2s3 restore {origin} {}", quoted(&place)))
    .hint("then run this command again: the new dataset will be a clone of it")
}

/// See [`Backup::is_clone`](crate::model::backup::Backup::is_clone).
pub fn is_clone(entry: &Entry) -> bool {
    entry.base.as_ref().is_some_and(|base| entry.snapshot.is_clone_of(base))
}

/// A dataset has each snapshot name only once.
fn check_names(contents: &Contents, steps: &[usize], target_name: &str, target: &Target) -> Result<()> {
    let mut taken: HashSet<&str> = target.snapshots().iter().map(|(name, _)| short_name(name)).collect();
    for step in steps {
        let name = &contents.entries[*step].snapshot.name;
        if !taken.insert(short_name(name)) {
            return Err(Error::refused(format!(
                "{target_name} would have two snapshots with the name {} during the restore, which is impossible",
                short_name(name)
            ))
            .hint("'zfs2s3 download' and 'zfs receive' can restore them one by one, renamed in between"));
        }
    }
    Ok(())
}

/// `from_nothing`: is there a route to a new dataset?
fn no_route(steps: &[Step], from_nothing: bool, wanted: &Point, target_name: &str, target: &Target) -> Error {
    let name = &wanted.name;
    match target {
        Target::Has { snapshots, base: Some(base) } if from_nothing => {
            let latest = target.base_name().unwrap_or_default();
            if cheapest(steps, Some(wanted.guid), *base).is_some() {
                return Error::refused(format!("the latest snapshot there, {latest}, is later than {name}"))
                    .hint("nothing is rolled back: name a dataset that does not exist");
            }
            let shared = |(_, guid): &&(String, Guid)| {
                steps.iter().any(|Step { link: Link { snapshot, .. }, .. }| snapshot == guid)
            };
            let error = Error::refused(format!(
                "{target_name} has diverged: no chain of stored backups leads from its latest snapshot {latest} to {name}"
            ));
            match snapshots.iter().rfind(shared) {
                Some((common, _)) => error.hint(format!(
                    "nothing was rolled back or destroyed; the latest snapshot that is also stored is {common}; or name a new dataset"
                )),
                None => error.hint("nothing was rolled back or destroyed; name a dataset that does not exist"),
            }
        }
        _ => Error::failed(format!("no stored chain of backups leads to {name}")),
    }
}
