//! What a restore would do: which stored backups, in which order, onto what the target has. Pure.

use crate::backup::Link;
use crate::error::{Error, Result};
use crate::names::Guid;
use crate::route::{Step, cheapest};
use crate::store::format::{Contents, Entry, State};

/// The target as it is.
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

/// `bytes` says what fetching an entry costs.
pub fn plan(
    contents: &Contents,
    bytes: impl Fn(&Entry) -> u64,
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
        .filter(|(_, entry)| entry.state == State::Stored)
        .map(|(n, entry)| (n, Step { link: entry.link(), bytes: bytes(entry) }))
        .collect();
    let steps: Vec<Step> = usable.iter().map(|(_, step)| *step).collect();
    match cheapest(&steps, start, wanted) {
        Some(route) => Ok(Plan { steps: route.iter().map(|n| usable[*n].0).collect(), there: None }),
        None => Err(no_route(&steps, wanted, name, target_name, target)),
    }
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
