//! What a restore would do: which stored backups, in which order, onto what the target has. Pure.

use std::collections::HashSet;

use crate::backup::{Link, Point};
use crate::error::{Error, Result};
use crate::names::{Guid, dataset_of};
use crate::restore::partial::Partial;
use crate::route::{Step, cheapest};
use crate::store::format::{Contents, Entry};

/// The target as it is, or will be.
#[derive(Clone, PartialEq)]
pub enum Target {
    New,
    /// Its snapshots, oldest first: name and guid.
    Has(Vec<(String, Guid)>),
}

impl Target {
    pub fn snapshots(&self) -> &[(String, Guid)] {
        match self {
            Target::New => &[],
            Target::Has(snapshots) => snapshots,
        }
    }
    /// The name that this snapshot has there.
    pub fn name_of(&self, guid: Guid) -> Option<&str> {
        self.snapshots().iter().find(|(_, there)| *there == guid).map(|(name, _)| name.as_str())
    }
    pub fn latest(&self) -> Option<&str> {
        self.snapshots().last().map(|(name, _)| name.as_str())
    }
    /// As it will be when this backup has been received.
    fn and(&self, entry: &Entry, name: &str) -> Target {
        let received = (format!("{name}@{}", short(&entry.snapshot.name)), entry.snapshot.guid);
        Target::Has([self.snapshots(), &[received]].concat())
    }
}

/// The place in the store of the backup that the target holds a part of, and the target as it will be when that is whole.
pub fn begun(contents: &Contents, partial: &Partial, name: &str, target: &Target) -> Result<(usize, Target)> {
    let cannot = |why: &str| {
        Error::refused(format!("{name} holds a part of an interrupted stream, of {}, {why}", partial.name))
            .hint(HOW_TO_DROP)
    };
    let is_it = |entry: &Entry| entry.link() == partial.link;
    let place = contents.entries.iter().position(is_it).ok_or_else(|| cannot("that is not stored"))?;
    let follows = match (target, partial.link.base) {
        (Target::New, None) => true,
        (Target::Has(snapshots), Some(base)) => snapshots.last().is_some_and(|(_, latest)| *latest == base),
        _ => false,
    };
    if !follows {
        return Err(cannot("that does not follow on what is there"));
    }
    Ok((place, target.and(&contents.entries[place], name)))
}

/// What to do about a part that stands in the way.
pub const HOW_TO_DROP: &str = "-A drops that part; whole snapshots stay";

/// The stored backups that lead from what the target has to `wanted`: their places in the store, in order. `bytes` says what
/// fetching an entry costs; none: it cannot be had.
pub fn plan(
    contents: &Contents,
    bytes: impl Fn(usize, &Entry) -> Option<u64>,
    wanted: &Point,
    target_name: &str,
    target: &Target,
) -> Result<Vec<usize>> {
    let start = match target {
        Target::New => None,
        Target::Has(snapshots) => {
            let Some((_, guid)) = snapshots.last() else {
                return Err(Error::refused(format!(
                    "{target_name} is there already, and has no snapshot to build on"
                ))
                .hint("nothing is overwritten: name a dataset that does not exist yet"));
            };
            Some(*guid)
        }
    };
    let usable: Vec<(usize, Step)> = contents
        .entries
        .iter()
        .enumerate()
        .filter(|(_, entry)| is_of_one_dataset(entry))
        .filter_map(|(n, entry)| Some((n, Step { link: entry.link(), bytes: bytes(n, entry)? })))
        .collect();
    let steps: Vec<Step> = usable.iter().map(|(_, step)| *step).collect();
    match cheapest(&steps, start, wanted.guid) {
        Some(route) => {
            let steps: Vec<usize> = route.iter().map(|n| usable[*n].0).collect();
            check_names(contents, &steps, target_name, target)?;
            Ok(steps)
        }
        None => Err(no_route(&steps, wanted, target_name, target)),
    }
}

fn short(name: &str) -> &str {
    name.rsplit('@').next().unwrap_or_default()
}

/// The stream of a clone from its origin makes a new dataset: it cannot be received onto the origin's.
fn is_of_one_dataset(entry: &Entry) -> bool {
    entry.base.as_ref().is_none_or(|base| dataset_of(&base.name) == dataset_of(&entry.snapshot.name))
}

/// A dataset has each snapshot name once, so of a snapshot made again only one can be in it.
fn check_names(contents: &Contents, steps: &[usize], target_name: &str, target: &Target) -> Result<()> {
    let mut taken: HashSet<&str> = target.snapshots().iter().map(|(name, _)| short(name)).collect();
    for step in steps {
        let name = &contents.entries[*step].snapshot.name;
        if !taken.insert(short(name)) {
            return Err(Error::refused(format!(
                "on the way {target_name} would get two snapshots of the name {}, which cannot be",
                short(name)
            ))
            .hint("'zfs2s3 download' and 'zfs receive' can bring them back one by one, renamed in between"));
        }
    }
    Ok(())
}

fn no_route(steps: &[Step], wanted: &Point, target_name: &str, target: &Target) -> Error {
    let from_nothing = cheapest(steps, None, wanted.guid).is_some();
    let name = &wanted.name;
    match target {
        Target::Has(snapshots) if from_nothing => {
            let latest = target.latest().unwrap_or_default();
            let is_later = |(_, guid): &(String, Guid)| cheapest(steps, Some(wanted.guid), *guid).is_some();
            if snapshots.last().is_some_and(is_later) {
                return Error::refused(format!(
                    "{target_name} is at {latest} already, which is later than {name}"
                ))
                .hint("nothing is rolled back: name a dataset that does not exist yet");
            }
            let shared = |(_, guid): &&(String, Guid)| {
                steps.iter().any(|Step { link: Link { snapshot, .. }, .. }| snapshot == guid)
            };
            let error = Error::refused(format!(
                "{target_name} has diverged: no stored backups lead from its latest snapshot {latest} to {name}"
            ));
            match snapshots.iter().rfind(shared) {
                Some((common, _)) => error.hint(format!(
                    "nothing was rolled back or destroyed; the latest that is stored, too, is {common}; or name a new dataset"
                )),
                None => error.hint("nothing was rolled back or destroyed; name a dataset that does not exist yet"),
            }
        }
        _ => Error::failed(format!("no stored chain of backups leads to {name}")),
    }
}
