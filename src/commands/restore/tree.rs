//! `restore -r`: each dataset below one, parents first. One that fails does not keep the others from being
//! restored, unless the network is the reason.

use std::collections::HashSet;

use super::super::Context;
use super::attempt::{Attempt, no_place_for};
use crate::cli;
use crate::error::{Error, Result, Status};
use crate::model::names::{Guid, dataset_of, short_name};
use crate::model::units::{count, human_size};
use crate::restore::thaw::ThawOptions;
use crate::restore::tree::{Branch, Tree, tree};
use crate::restore::wait::{self, Outcome};
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
    let contents = context.store()?.contents;
    let tree = tree(&contents, top, name, &args.target);
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
}

impl<'a> Restores<'a> {
    fn new(context: &'a Context, args: &'a cli::RestoreArgs, tree: &'a Tree) -> Result<Self> {
        let attempt = |branch: &Branch| {
            let Branch { wanted, target } = branch;
            // a name may mean several snapshots
            let selector = SnapshotSelector::Guid(wanted.guid);
            let mut attempt = Attempt::new(context, args, wanted.name.clone(), selector, target.clone());
            // as 'zfs receive -o' does with the stream of a tree; those below inherit
            if target != &tree.branches[0].target {
                attempt.properties = &[];
            }
            attempt
        };
        let attempts = tree.branches.iter().map(attempt).collect();
        let zfs = context.zfs();
        if let Some((above, _)) = args.target.rsplit_once('/')
            && !zfs.exists(above)?
        {
            return Err(no_place_for(&args.target));
        }
        Ok(Restores { context, args, zfs, tree, attempts, done: HashSet::new(), failed: Vec::new() })
    }

    fn once(&mut self) -> Result<()> {
        let mut datasets: HashSet<String> = HashSet::new();
        let mut snapshots: HashSet<Guid> = HashSet::new();
        let mut bytes = 0u64;
        for n in 0..self.attempts.len() {
            if self.is_orphan(n)? {
                continue;
            }
            if self.args.dry_run {
                let made = self.parents_of(n).into_iter().map(str::to_string);
                datasets.extend(made);
                self.attempts[n].datasets = datasets.clone();
                self.attempts[n].snapshots = snapshots.clone();
            } else {
                self.make_parents(n)?;
            }
            match self.attempts[n].once() {
                Ok(received) => {
                    bytes += received.iter().map(|(_, bytes)| bytes).sum::<u64>();
                    snapshots.extend(received.iter().map(|(guid, _)| *guid));
                    datasets.insert(self.attempts[n].target.clone());
                }
                Err(error) => self.note_failure(n, error)?,
            }
        }
        if self.args.dry_run {
            let datasets = count((self.attempts.len() - self.failed.len()) as u64, "dataset");
            self.context.ui.data(&format!("all: {bytes} bytes ({}), {datasets}\n", human_size(bytes)))?;
        }
        Ok(())
    }

    /// One round of `-w`, in which each is thawed, and received as far as it can be read.
    fn round(&mut self, options: ThawOptions) -> Result<Outcome> {
        let mut waiting = None;
        for n in 0..self.attempts.len() {
            if self.done.contains(&n) || self.is_orphan(n)? {
                continue;
            }
            let outcome = if self.has_place(n)? {
                self.make_parents(n)?;
                self.attempts[n].round(options)
            } else {
                self.attempts[n].only_thaw(options)
            };
            match outcome {
                Ok(Outcome::Done) => {
                    self.done.insert(n);
                }
                Ok(Outcome::Again) => return Ok(Outcome::Again),
                Ok(outcome) => waiting = waiting.or(Some(outcome)),
                // a clone waits for its origin
                Err(error) if error.status == Status::Refused && waiting.is_some() => {}
                Err(error) => {
                    self.note_failure(n, error)?;
                    self.done.insert(n);
                }
            }
        }
        Ok(waiting.unwrap_or(Outcome::Done))
    }

    fn result(&self) -> Result<()> {
        let Some((_, status)) = self.failed.first() else { return Ok(()) };
        let names: Vec<&str> = self.failed.iter().map(|(target, _)| target.as_str()).collect();
        let all = count(self.attempts.len() as u64, "dataset");
        Err(Error::new(*status, format!("of {all}, these are not restored: {}", names.join(", ")))
            .hint("the reasons are above; the same command restores what is missing"))
    }

    fn note_failure(&mut self, n: usize, error: Error) -> Result<()> {
        if matches!(error.status, Status::TryAgain | Status::Pending | Status::Usage) {
            return Err(error);
        }
        let error = self.attempts[n].hint(error);
        self.failed.push((self.attempts[n].target.clone(), error.status));
        self.context.ui.error(&error);
        Ok(())
    }

    /// Is a dataset above it not restored, so that there is no place for it? It is then noted as failed, too.
    fn is_orphan(&mut self, n: usize) -> Result<bool> {
        let target = self.attempts[n].target.clone();
        let above = self.failed.iter().find(|(failed, _)| is_above(failed, &target)).cloned();
        let Some((failed, status)) = above else { return Ok(false) };
        if self.zfs.exists(&failed)? {
            return Ok(false);
        }
        self.failed.push((target, status));
        self.done.insert(n);
        Ok(true)
    }

    /// Is each dataset above it there, but for those that are only made as its parents?
    fn has_place(&self, n: usize) -> Result<bool> {
        let target = &self.attempts[n].target;
        let above = self.attempts.iter().filter(|attempt| is_above(&attempt.target, target));
        above.map(|attempt| self.zfs.exists(&attempt.target)).try_fold(true, |all, one| Ok(all && one?))
    }

    fn parents_of(&self, n: usize) -> Vec<&'a str> {
        let target = &self.attempts[n].target;
        let parents = self.tree.parents.iter().map(String::as_str);
        parents.filter(|parent| is_above(parent, target)).collect()
    }

    fn make_parents(&self, n: usize) -> Result<()> {
        for parent in self.parents_of(n) {
            if !self.zfs.exists(parent)? {
                self.zfs.create_parent(parent)?;
                self.context.ui.note(&format!("created {parent}, of which there is no backup"));
            }
        }
        Ok(())
    }
}

fn is_above(dataset: &str, below: &str) -> bool {
    below.strip_prefix(dataset).is_some_and(|rest| rest.starts_with('/'))
}
