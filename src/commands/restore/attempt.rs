//! One restore: the cheapest chain of backups that the target does not have yet, each piped into
//! `zfs receive`. An interrupted receive is resumed first. With -w, archived backups are thawed.

use std::collections::HashSet;

use super::super::Context;
use super::super::thaw::{hint_thaw, thaw_and_remember};
use super::dry_run;
use crate::cli;
use crate::error::{Error, Result, Status};
use crate::filter::Filter;
use crate::model::backup::Point;
use crate::model::names::{Guid, short_name};
use crate::model::shell::quoted;
use crate::model::units::human_size;
use crate::restore::newest;
use crate::restore::properties::{self, ToSet};
use crate::restore::target::Target;
use crate::restore::thaw::{ThawOptions, under_way};
use crate::restore::wait::Outcome;
use crate::restore::{Plan, Receives, Restore};
use crate::s3::client::Client;
use crate::state::lock::Lock;
use crate::state::store::Store;
use crate::state::store::format::Contents;
use crate::state::store::selector::SnapshotSelector;
use crate::zfs::Zfs;

/// The restore of one snapshot into one dataset. It may need several rounds.
pub struct Attempt<'a> {
    context: &'a Context,
    args: &'a cli::RestoreArgs,
    /// As in a command that the user may run.
    pub snapshot: String,
    pub target: String,
    selector: SnapshotSelector,
    unfilter: Option<&'a Filter>,
    /// The snapshot that was selected in the first round: later, its name may mean another one.
    wanted: Option<Point>,
    /// Of the dataset that it creates.
    pub properties: &'a [String],
    /// What an interrupted receive had left before the first round is still to be discarded.
    discard: bool,
    /// The target exists, with its properties.
    has_received: bool,
    /// A wait is not ended by what may pass.
    pub is_patient: bool,
    /// Only the origin of a clone, on the way to a later snapshot.
    pub is_on_the_way: bool,
    /// In a dry run of several restores: the datasets and snapshots that will be there by then.
    pub datasets: HashSet<String>,
    pub snapshots: HashSet<Guid>,
}

impl<'a> Attempt<'a> {
    pub fn new(
        context: &'a Context,
        args: &'a cli::RestoreArgs,
        snapshot: String,
        selector: SnapshotSelector,
        target: String,
    ) -> Result<Self> {
        Ok(Attempt {
            unfilter: context.unfilter()?,
            context,
            args,
            snapshot,
            target,
            selector,
            wanted: None,
            properties: &args.properties,
            discard: args.discard,
            has_received: false,
            is_patient: false,
            is_on_the_way: false,
            datasets: HashSet::new(),
            snapshots: HashSet::new(),
        })
    }

    fn wanted(&mut self, client: &Client, contents: &Contents) -> Result<Point> {
        if self.wanted.is_none() {
            let ui = &self.context.ui;
            self.wanted = Some(newest::selected(&self.selector, client, contents, "restore", ui)?);
        }
        self.wanted.clone().ok_or_else(|| Error::failed("no snapshot is selected"))
    }

    /// If it is selected by that.
    pub fn guid(&self) -> Option<Guid> {
        match self.selector {
            SnapshotSelector::Guid(guid) => Some(guid),
            _ => None,
        }
    }

    fn restore<'r>(
        &'r self,
        wanted: Point,
        zfs: &'r Zfs,
        store: &'r Store,
        client: &'r Client,
    ) -> Restore<'r> {
        Restore {
            zfs,
            client,
            contents: &store.contents,
            ui: &self.context.ui,
            wanted,
            target: &self.target,
            properties: if self.has_received { &[] } else { self.properties },
            discard: self.discard,
            waits: self.args.wait,
            may_exist: self.args.wait || self.args.recursive,
            planned: &self.snapshots,
            unfilter: self.unfilter,
        }
    }

    fn lock(&self) -> Result<Option<Lock>> {
        let command = format!("restore {} {}", self.snapshot, self.target);
        self.context.lock_unless(self.args.dry_run, &command)
    }

    /// All of it, or nothing. Returns the snapshots that are received, and the bytes of each.
    pub fn once(&mut self) -> Result<Vec<(Guid, u64)>> {
        let _lock = self.lock()?;
        let (store, client) = self.context.store_and_client()?;
        let wanted = self.wanted(&client, &store.contents)?;
        let zfs = self.context.zfs();
        let restore = self.restore(wanted, &zfs, &store, &client);
        let mut received = Vec::new();
        if let Some(mut plan) = self.plan(&restore)? {
            received = plan.received(&store.contents);
            if self.args.dry_run {
                if plan.discard {
                    self.would_discard();
                }
                self.context.ui.data(&dry_run::text(&store.contents, &plan, &self.target))?;
                plan.check_readable()?;
            } else {
                restore.run(*plan)?;
            }
        }
        self.set_properties_of_one(&restore)?;
        Ok(received)
    }

    /// Of a tree, they are set when all of it is there: a quota may be too small for what is yet to come.
    fn set_properties_of_one(&self, restore: &Restore) -> Result<()> {
        if self.args.recursive && !self.args.dry_run { Ok(()) } else { self.set_properties(restore) }
    }

    /// With -P, after the restore.
    pub fn only_set_properties(&mut self) -> Result<()> {
        let (store, client) = self.context.store_and_client()?;
        let wanted = self.wanted(&client, &store.contents)?;
        let zfs = self.context.zfs();
        self.set_properties(&self.restore(wanted, &zfs, &store, &client))
    }

    fn set_properties(&self, restore: &Restore) -> Result<()> {
        if !self.args.preserve {
            return Ok(());
        }
        let Restore { zfs, target, .. } = restore;
        let kept = properties::kept(restore.client, restore.contents, &restore.wanted)?;
        let is_there = !self.args.dry_run || zfs.exists(target)?;
        let there = if is_there { zfs.properties(target)? } else { String::new() };
        let to_set = properties::to_set(kept, &there);
        let lines = |pairs: &[(String, String)], indent: &str| -> String {
            pairs.iter().map(|pair| format!("{indent}{}\n", properties::command(pair, target))).collect()
        };
        let ToSet { harmless, others } = &to_set;
        if self.args.dry_run {
            let text = lines(harmless, "  would run    ") + &lines(others, "  would print  ");
            return self.context.ui.data(&text);
        }
        let refused = properties::set(zfs, &to_set, target);
        if !others.is_empty() {
            self.context.ui.note(&format!("{target}: for you to decide, and to run:"));
            self.context.ui.data(&lines(others, ""))?;
        }
        let names: Vec<&str> = refused.iter().map(|(name, _)| name.as_str()).collect();
        match refused.first() {
            None => Ok(()),
            Some((_, error)) => Err(Error::failed(format!(
                "{target} is restored, but these properties could not be set: {} ({})",
                names.join(", "),
                error.message
            ))),
        }
    }

    /// What ZFS would refuse, or find out only after hours.
    fn check_place(&self, zfs: &Zfs, plan: &Receives, contents: &Contents) -> Result<()> {
        let place = match (plan.onto == Target::New && plan.resumed.is_none(), self.target.rsplit_once('/')) {
            (false, _) => self.target.as_str(),
            (true, Some((parent, _))) if self.datasets.contains(parent) => return Ok(()),
            (true, Some((parent, _))) if zfs.exists(parent)? => parent,
            (true, _) => return Err(no_place_for(&self.target)),
        };
        let needed = plan.received(contents).iter().fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
        match zfs.available(place) {
            Some(available) if available < needed => self.context.ui.warning_once(&format!(
                "{place} has {} available, and {} will be received: that may not fit",
                human_size(available),
                human_size(needed)
            )),
            _ => {}
        }
        Ok(())
    }

    /// Thaws what is archived, without a lock, and receives what can be read.
    pub fn round(&mut self, options: ThawOptions) -> Result<Outcome> {
        let waiting = match self.thaw(options) {
            Ok(waiting) => waiting,
            Err(error) if self.is_patient && !matches!(error.status, Status::Usage | Status::Refused) => {
                return Ok(Outcome::Failed(error));
            }
            Err(error) => return Err(error),
        };
        if let Some(Thawing { why, nothing_is_readable: true }) = waiting {
            self.is_patient = true;
            return Ok(Outcome::Waiting(why));
        }
        match self.receive_readable() {
            Ok(outcome) => Ok(outcome),
            Err(error) if error.status == Status::Archived => Ok(Outcome::Failed(error)),
            Err(error) if self.is_patient && matches!(error.status, Status::TryAgain | Status::Pending) => {
                Ok(Outcome::Failed(error))
            }
            Err(error) => Err(error),
        }
    }

    /// While there is no place for it.
    pub fn only_thaw(&mut self, options: ThawOptions) -> Result<Outcome> {
        let why = format!("{} waits for the dataset above it", self.target);
        match self.thaw(options) {
            Ok(thawing) => Ok(Outcome::Waiting(thawing.map_or(why, |thawing| thawing.why))),
            Err(error) if matches!(error.status, Status::Usage | Status::Refused) => Err(error),
            Err(error) => Ok(Outcome::Failed(error)),
        }
    }

    /// None: all of it can be read.
    fn thaw(&mut self, options: ThawOptions) -> Result<Option<Thawing>> {
        let (store, client) = self.context.store_and_client()?;
        let wanted = self.wanted(&client, &store.contents)?;
        let zfs = self.context.zfs();
        if !self.args.recursive && !self.has_received {
            check_parent(&zfs, &self.target)?;
        }
        let Some(mut steps) = self.restore(wanted, &zfs, &store, &client).needed()? else { return Ok(None) };
        if self.discard {
            let _lock = self.lock()?;
            let wanted = self.wanted(&client, &store.contents)?;
            self.restore(wanted, &zfs, &store, &client).discard_partial_if_any()?;
            self.discard = false;
        }
        let news = thaw_and_remember(self.context, &client, &store.contents, &mut steps, options)?;
        Ok(under_way(&store.contents, &steps, &news).map(|why| Thawing {
            why,
            nothing_is_readable: steps.first().is_some_and(|step| !step.survey.is_readable()),
        }))
    }

    fn receive_readable(&mut self) -> Result<Outcome> {
        let _lock = self.lock()?;
        let (store, client) = self.context.store_and_client()?;
        let wanted = self.wanted(&client, &store.contents)?;
        let zfs = self.context.zfs();
        let restore = self.restore(wanted, &zfs, &store, &client);
        let Some(mut plan) = self.plan(&restore)? else {
            return self.set_properties_of_one(&restore).map(|()| Outcome::Done);
        };
        let all = plan.steps.len();
        if plan.keep_readable() {
            let outcome = if plan.steps.len() == all { Outcome::Done } else { Outcome::Again };
            restore.run(*plan)?;
            if matches!(outcome, Outcome::Done) {
                self.set_properties_of_one(&restore)?;
            }
            (self.has_received, self.is_patient) = (true, true);
            Ok(outcome)
        } else {
            // it has changed since it was thawed
            plan.check_readable().map(|()| Outcome::Again)
        }
    }

    /// None: the target has the snapshot, which is reported.
    fn plan<'r>(&self, restore: &Restore<'r>) -> Result<Option<Box<Receives<'r>>>> {
        match restore.plan()? {
            Plan::AlreadyThere { name, latest, discard } => {
                let later = if latest == name {
                    String::new()
                } else {
                    format!("; the latest snapshot there is {latest}")
                };
                if self.is_on_the_way {
                    return Ok(None);
                }
                let unchanged = if discard { "" } else { "; nothing was changed" };
                self.context.ui.note(&format!("{name} exists already{later}{unchanged}"));
                self.context.ui.note(&format!(
                    "its files are in .zfs/snapshot/{} where the dataset is mounted; a new dataset as target gets all of them",
                    short_name(&name)
                ));
                if discard && self.args.dry_run {
                    self.would_discard();
                } else if discard {
                    restore.discard_partial()?;
                }
                Ok(None)
            }
            Plan::Receive(plan) => {
                self.check_place(restore.zfs, &plan, restore.contents)?;
                Ok(Some(plan))
            }
        }
    }

    fn would_discard(&self) {
        self.context.ui.note(&format!("would discard the part of a stream in {}", self.target));
    }

    pub fn hint(&self, error: Error) -> Error {
        let discard = if self.args.discard { "-A " } else { "" };
        let arguments = format!("{discard}{} {}", quoted(&self.snapshot), quoted(&self.target));
        let is_archived = error.status == Status::Archived;
        let error = hint_thaw(error, &arguments);
        match (is_archived, self.args.dry_run) {
            (true, false) => error.hint("'restore -n' lists the objects; 'restore -w' thaws them, and waits"),
            _ => error,
        }
    }
}

/// What a round has found.
struct Thawing {
    why: String,
    /// Not even the first backup.
    nothing_is_readable: bool,
}

/// Refuses a target whose parent is missing.
pub fn check_parent(zfs: &Zfs, target: &str) -> Result<()> {
    let place = target.rsplit_once('/').map_or(target, |(parent, _)| parent);
    if zfs.exists(place)? { Ok(()) } else { Err(no_place_for(target)) }
}

fn no_place_for(target: &str) -> Error {
    match target.rsplit_once('/') {
        Some((parent, _)) if parent.contains('/') => {
            Error::failed(format!("there is no dataset {parent}, in which {target} would be"))
                .hint(format!("create it: zfs create -p {}", quoted(parent)))
        }
        Some((pool, _)) => Error::failed(format!("there is no pool {pool}")),
        None => Error::failed(format!("there is no pool {target}"))
            .hint("a backup is restored into a dataset of a pool, such as POOL/restored"),
    }
}
