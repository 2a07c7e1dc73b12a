//! What a restore would do: which stored backups, in which order, onto what the target has. Pure.

use std::collections::HashSet;

use crate::backup::Link;
use crate::error::{Error, Result};
use crate::names::{Guid, dataset_of};
use crate::route::{Step, cheapest};
use crate::store::format::{Contents, Entry, State};

/// The target as it is.
#[derive(PartialEq)]
pub enum Target {
    New,
    /// Its snapshots, oldest first: name and guid.
    Has(Vec<(String, Guid)>),
}

pub struct Plan {
    /// Places in the store, in order.
    pub steps: Vec<usize>,
    /// The name of the wanted snapshot in the target, if it has it already.
    pub there: Option<String>,
}

/// `bytes` says what fetching an entry costs; none: it cannot be had.
pub fn plan(
    contents: &Contents,
    bytes: impl Fn(usize, &Entry) -> Option<u64>,
    wanted: Guid,
    name: &str,
    target_name: &str,
    target: &Target,
) -> Result<Plan> {
    let start = match target {
        Target::New => None,
        Target::Has(snapshots) => {
            if let Some((there, _)) = snapshots.iter().find(|(_, guid)| *guid == wanted) {
                return Ok(Plan { steps: vec![], there: Some(there.clone()) });
            }
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
        .filter(|(_, entry)| entry.state == State::Stored && is_of_one_dataset(entry))
        .filter_map(|(n, entry)| Some((n, Step { link: entry.link(), bytes: bytes(n, entry)? })))
        .collect();
    let steps: Vec<Step> = usable.iter().map(|(_, step)| *step).collect();
    match cheapest(&steps, start, wanted) {
        Some(route) => {
            let steps: Vec<usize> = route.iter().map(|n| usable[*n].0).collect();
            check_names(contents, &steps, target_name, target)?;
            Ok(Plan { steps, there: None })
        }
        None => Err(no_route(&steps, wanted, name, target_name, target)),
    }
}

/// The stream of a clone from its origin makes a new dataset: it cannot be received onto the origin's.
fn is_of_one_dataset(entry: &Entry) -> bool {
    entry.base.as_ref().is_none_or(|base| dataset_of(&base.name) == dataset_of(&entry.snapshot.name))
}

/// A dataset has each snapshot name once, so of a snapshot made again only one can be in it.
fn check_names(contents: &Contents, steps: &[usize], target_name: &str, target: &Target) -> Result<()> {
    let short = |name: &str| name.rsplit('@').next().unwrap_or_default().to_string();
    let mut taken: HashSet<String> = match target {
        Target::New => HashSet::new(),
        Target::Has(snapshots) => snapshots.iter().map(|(name, _)| short(name)).collect(),
    };
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

fn no_route(steps: &[Step], wanted: Guid, name: &str, target_name: &str, target: &Target) -> Error {
    let from_nothing = cheapest(steps, None, wanted).is_some();
    match target {
        Target::Has(snapshots) if from_nothing => {
            let latest = snapshots.last().map(|(name, _)| name.as_str()).unwrap_or_default();
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
