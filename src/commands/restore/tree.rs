//! `restore -r`: each dataset below one, parents first. One that fails does not keep the others from being
//! restored, unless the network is the reason.

use std::collections::HashSet;

use super::super::Context;
use super::attempt::{Attempt, check_parent};
use crate::cli;
use crate::error::{Error, Result, Status};
use crate::model::backup::Point;
use crate::model::names::{Guid, dataset_of, is_below, is_within, short_name};
use crate::model::units::{count, human_size};
use crate::restore::newest;
use crate::restore::thaw::ThawOptions;
use crate::restore::tree::{Branch, Tree, tree};
use crate::restore::wait::{self, Outcome};
use crate::state::store::newest::Restorable;
use crate::state::store::selector::{SnapshotSelector, what_is_stored};
use crate::zfs::Zfs;

pub fn run(
    context: &Context,
    args: &cli::RestoreArgs,
    selector: &SnapshotSelector,
    options: ThawOptions,
) -> Result<()> {
    let (top, name) = match selector {
        SnapshotSelector::Name(snapshot) => (dataset_of(snapshot), Some(short_name(snapshot))),
        SnapshotSelector::Newest(dataset) => (dataset.as_str(), None),
        SnapshotSelector::Guid(_) => {
            return Err(Error::usage("-r needs a dataset, or dataset@snapshot, and not a guid"));
        }
    };
    let (store, client) = context.store_and_client()?;
    let contents = store.contents;
    let created = newest::created(&client, &contents, |dataset| is_within(dataset, top))?;
    drop(client);
    let restorable = Restorable::of(&contents, &created);
    let tree = tree(&contents, &restorable, top, name, &args.target);
    if name.is_none() {
        for branch in &tree.branches {
            newest::warn_if_unsure(&restorable, &created, dataset_of(&branch.wanted.name), &context.ui);
        }
    }
    tree.left_out.iter().for_each(|why| context.ui.note(&format!("not restored: {why}")));
    if tree.branches.is_empty() {
        let at = name.map(|name| format!(" with a snapshot @{name}")).unwrap_or_default();
        return Err(Error::failed(format!(
            "no backups of {top} or of a dataset below it{at} can be restored"
        ))
        .hint(what_is_stored(&contents)));
    }
    let mut restores = Restores::new(context, args, &tree)?;
    if args.wait && !args.dry_run {
        wait::until_done(&context.ui, || restores.round(options))?;
    } else {
        restores.once()?;
    }
    if !args.dry_run {
        restores.set_properties()?;
    }
    restores.result()
}

/// The restores of a tree, in order.
struct Restores<'a> {
    context: &'a Context,
    args: &'a cli::RestoreArgs,
    zfs: Zfs,
    tree: &'a Tree,
    attempts: Vec<Attempt<'a>>,
    done: HashSet<usize>,
    failed: Vec<(String, Status)>,
    /// Where something was restored, but not all properties could be set.
    without_properties: Vec<String>,
    /// A wait is not ended by what may pass.
    is_patient: bool,
}

/// Whether an attempt can be made.
enum Place {
    There,
    /// A dataset above it failed.
    Lost,
    /// A dataset above it is yet to come.
    Later,
}

impl<'a> Restores<'a> {
    fn new(context: &'a Context, args: &'a cli::RestoreArgs, tree: &'a Tree) -> Result<Self> {
        let zfs = context.zfs();
        if args.target.contains('/') {
            check_parent(&zfs, &args.target)?;
        }
        let attempt = |wanted: &Point, target: &str, is_on_the_way| -> Result<Attempt> {
            // a name may mean several snapshots
            let selector = SnapshotSelector::Guid(wanted.guid);
            let mut attempt = Attempt::new(context, args, wanted.name.clone(), selector, target.to_string())?;
            attempt.is_on_the_way = is_on_the_way;
            // as 'zfs receive -o' does with the stream of a tree; those below inherit
            if target != args.target {
                attempt.properties = &[];
            }
            Ok(attempt)
        };
        let attempts = tree.branches.iter().flat_map(|Branch { wanted, target, origins }| {
            let first = origins.iter().map(|origin| attempt(origin, target, true)).collect::<Vec<_>>();
            first.into_iter().chain([attempt(wanted, target, false)])
        });
        Ok(Restores {
            context,
            args,
            zfs,
            tree,
            attempts: attempts.collect::<Result<_>>()?,
            done: HashSet::new(),
            failed: Vec::new(),
            without_properties: Vec::new(),
            is_patient: false,
        })
    }

    fn once(&mut self) -> Result<()> {
        let mut planned = Planned::default();
        let mut left: Vec<usize> = (0..self.attempts.len()).collect();
        loop {
            let before = left.len();
            let mut refused = Vec::new();
            for n in left {
                match self.place_of(n)? {
                    Place::Lost => self.give_up(n),
                    Place::Later if !self.args.dry_run => {
                        let target = &self.attempts[n].target;
                        refused
                            .push((n, Error::refused(format!("no dataset is there for {target} to be in"))));
                    }
                    // the origin of a clone may come later
                    _ => match self.attempt(n, &mut planned) {
                        Err(error) if error.status == Status::Refused => refused.push((n, error)),
                        Err(error) => self.note_failure(n, error)?,
                        Ok(()) => {}
                    },
                }
            }
            if refused.len() == before {
                for (n, error) in refused {
                    self.note_failure(n, error)?;
                }
                break;
            }
            left = refused.into_iter().map(|(n, _)| n).collect();
        }
        if self.args.dry_run {
            let (bytes, datasets) = (planned.bytes, count(planned.restored, "dataset"));
            self.context.ui.data(&format!("all: {bytes} bytes ({}), {datasets}\n", human_size(bytes)))?;
        }
        Ok(())
    }

    fn attempt(&mut self, n: usize, planned: &mut Planned) -> Result<()> {
        if self.args.dry_run {
            planned.datasets.extend(self.parents_of(n).into_iter().map(str::to_string));
            let attempt = &mut self.attempts[n];
            if attempt.is_on_the_way {
                planned.snapshots.extend(attempt.guid());
                return Ok(());
            }
            attempt.datasets = planned.datasets.clone();
            attempt.snapshots = planned.snapshots.clone();
        } else {
            self.make_parents(n)?;
        }
        let received = self.attempts[n].once()?;
        planned.bytes += received.iter().map(|(_, bytes)| bytes).sum::<u64>();
        planned.restored += 1;
        planned.snapshots.extend(received.iter().map(|(guid, _)| *guid));
        planned.datasets.insert(self.attempts[n].target.clone());
        Ok(())
    }

    /// One round of `-w`: each is thawed, and received as far as it can be read.
    fn round(&mut self, options: ThawOptions) -> Result<Outcome> {
        let mut waiting: Option<Outcome> = None;
        let mut refused = Vec::new();
        let done_before = self.done.len();
        for n in 0..self.attempts.len() {
            if self.done.contains(&n) {
                continue;
            }
            self.attempts[n].is_patient |= self.is_patient;
            let outcome = match self.place_of(n)? {
                Place::Lost => {
                    self.give_up(n);
                    continue;
                }
                Place::Later => self.attempts[n].only_thaw(options),
                Place::There => self.make_parents(n).and_then(|()| self.attempts[n].round(options)),
            };
            self.is_patient |= self.attempts[n].is_patient;
            match outcome {
                Ok(Outcome::Done) => {
                    self.is_patient = true;
                    self.done.insert(n);
                }
                Ok(Outcome::Again) => return Ok(Outcome::Again),
                Ok(Outcome::Waiting(why)) => {
                    self.is_patient = true;
                    // the failure of another one is no reason to end the wait
                    if let Some(Outcome::Failed(error)) = waiting.replace(Outcome::Waiting(why)) {
                        self.context.ui.warning_once(&error.message);
                    }
                }
                Ok(Outcome::Failed(error)) => match waiting {
                    None => waiting = Some(Outcome::Failed(error)),
                    Some(_) => self.context.ui.warning_once(&error.message),
                },
                // a clone waits for its origin
                Err(error) if error.status == Status::Refused => refused.push((n, error)),
                Err(error) => {
                    self.note_failure(n, error)?;
                    self.done.insert(n);
                }
            }
        }
        match waiting {
            Some(waiting) => Ok(waiting),
            None if refused.is_empty() => Ok(Outcome::Done),
            None if self.done.len() > done_before => Ok(Outcome::Again),
            None => {
                for (n, error) in refused {
                    self.note_failure(n, error)?;
                    self.done.insert(n);
                }
                Ok(Outcome::Done)
            }
        }
    }

    /// Those of all that was restored.
    fn set_properties(&mut self) -> Result<()> {
        for n in 0..self.attempts.len() {
            let attempt = &mut self.attempts[n];
            let has_failed = self.failed.iter().any(|(target, _)| *target == attempt.target);
            if has_failed || attempt.is_on_the_way {
                continue;
            }
            match attempt.only_set_properties() {
                Err(error) if error.status == Status::TryAgain => return Err(error),
                Err(error) => {
                    self.without_properties.push(attempt.target.clone());
                    self.context.report(&error);
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn result(&self) -> Result<()> {
        let again = "the reasons are above; the same command restores what is missing";
        let names: Vec<&str> = self.failed.iter().map(|(target, _)| target.as_str()).collect();
        let lost = &self.tree.lost;
        let status = self.failed.first().map_or(Status::Failed, |(_, status)| *status);
        if !names.is_empty() {
            let all = count(self.tree.branches.len() as u64, "dataset");
            let error = Error::new(status, format!("of {all}, these are not restored: {}", names.join(", ")));
            return Err(error.hint(again));
        }
        if !lost.is_empty() {
            return Err(Error::failed(format!("no snapshot of these can be restored: {}", lost.join(", ")))
                .hint("'zfs2s3 verify' shows what is missing"));
        }
        if !self.without_properties.is_empty() {
            return Err(Error::failed(format!(
                "all is restored, but not all properties: {}",
                self.without_properties.join(", ")
            )));
        }
        Ok(())
    }

    fn note_failure(&mut self, n: usize, error: Error) -> Result<()> {
        if matches!(error.status, Status::TryAgain | Status::Pending | Status::Usage) {
            return Err(error);
        }
        let attempt = &self.attempts[n];
        // whoever needs it will say so
        if attempt.is_on_the_way && error.status == Status::Refused {
            return Ok(());
        }
        let error = attempt.hint(error);
        self.failed.push((attempt.target.clone(), error.status));
        self.context.report(&error);
        Ok(())
    }

    /// It has no place, for a reason that was shown.
    fn give_up(&mut self, n: usize) {
        let target = self.attempts[n].target.clone();
        let above = self.failed.iter().find(|(failed, _)| is_below(&target, failed));
        let status = above.map_or(Status::Failed, |(_, status)| *status);
        if !self.attempts[n].is_on_the_way {
            self.failed.push((target, status));
        }
        self.done.insert(n);
    }

    /// Is each dataset above it there, whole, but for those that are only made as its parents?
    fn place_of(&self, n: usize) -> Result<Place> {
        let target = &self.attempts[n].target;
        for attempt in self.attempts.iter().filter(|attempt| is_below(target, &attempt.target)) {
            let above = &attempt.target;
            if self.zfs.exists(above)? && !self.zfs.is_inconsistent(above)? {
                continue;
            }
            let has_failed = self.failed.iter().any(|(failed, _)| failed == above);
            return Ok(if has_failed { Place::Lost } else { Place::Later });
        }
        Ok(Place::There)
    }

    fn parents_of(&self, n: usize) -> Vec<&'a str> {
        let target = &self.attempts[n].target;
        let parents = self.tree.parents.iter().map(String::as_str);
        parents.filter(|parent| is_below(target, parent)).collect()
    }

    fn make_parents(&self, n: usize) -> Result<()> {
        for parent in self.parents_of(n) {
            if !self.zfs.exists(parent)? {
                let properties: &[String] =
                    if *parent == self.args.target { &self.args.properties } else { &[] };
                self.zfs.create_parent(parent, properties)?;
                self.context.ui.note(&format!("created {parent}, of which no backup is restored"));
            }
        }
        Ok(())
    }
}

/// What a dry run has planned so far.
#[derive(Default)]
struct Planned {
    datasets: HashSet<String>,
    snapshots: HashSet<Guid>,
    bytes: u64,
    restored: u64,
}
