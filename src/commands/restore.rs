//! `restore`: the cheapest chain of backups that the target does not have yet, each piped into `zfs receive`.
//! An interrupted receive is resumed first. With -w, archived backups are thawed and waited for.

use super::Context;
use super::thaw::{hint_thaw, thaw_and_remember};
use crate::cli;
use crate::error::{Error, Result, Status};
use crate::model::archive::{Access, Archive};
use crate::model::backup::Point;
use crate::model::names::{check_dataset_name, short_name};
use crate::model::shell::quoted;
use crate::model::units::{count, human_size};
use crate::restore::target::Target;
use crate::restore::thaw::{ThawOptions, under_way};
use crate::restore::wait::{self, Outcome};
use crate::restore::{Plan, Receives, Restore};
use crate::s3::client::Client;
use crate::state::lock::Lock;
use crate::state::store::Store;
use crate::state::store::format::{Contents, Entry};
use crate::state::store::selector::SnapshotSelector;
use crate::zfs::Zfs;

pub fn run(context: &Context, args: &cli::RestoreArgs) -> Result<()> {
    let selector = SnapshotSelector::parse(&args.snapshot)?;
    let target = &args.target;
    check_dataset_name(target).map_err(|why| Error::usage(format!("'{target}' is not a dataset: {why}")))?;
    if !args.wait && (args.days.is_some() || args.tier.is_some()) {
        return Err(Error::usage("-d and -t are for -w"));
    }
    let options = ThawOptions::parse(args.tier.as_deref(), args.days)?;
    let mut attempt = Attempt {
        context,
        args,
        selector,
        wanted: None,
        discard: args.discard,
        has_received: false,
        is_patient: false,
    };
    if args.wait && !args.dry_run {
        return wait::until_done(&context.ui, || attempt.round(options));
    }
    attempt.once().map_err(|error| attempt.hint(error))
}

/// The restore that the user has asked for. It may need several rounds.
struct Attempt<'a> {
    context: &'a Context,
    args: &'a cli::RestoreArgs,
    selector: SnapshotSelector,
    /// The snapshot that was selected in the first round: later, its name may mean another one.
    wanted: Option<Point>,
    /// What an interrupted receive had left before the first round is still to be discarded.
    discard: bool,
    /// The target exists, with its properties.
    has_received: bool,
    /// A wait is not ended by what may pass.
    is_patient: bool,
}

impl Attempt<'_> {
    fn wanted(&mut self, contents: &Contents) -> Result<Point> {
        if self.wanted.is_none() {
            self.wanted = Some(self.selector.find(contents, "restore")?);
        }
        self.wanted.clone().ok_or_else(|| Error::failed("no snapshot is selected"))
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
            target: &self.args.target,
            properties: if self.has_received { &[] } else { &self.args.properties },
            discard: self.discard,
            waits: self.args.wait,
        }
    }

    fn lock(&self) -> Result<Option<Lock>> {
        let command = format!("restore {} {}", self.args.snapshot, self.args.target);
        self.context.lock_unless(self.args.dry_run, &command)
    }

    /// All of it, or nothing.
    fn once(&mut self) -> Result<()> {
        let _lock = self.lock()?;
        let (store, client) = self.context.store_and_client()?;
        let wanted = self.wanted(&store.contents)?;
        let zfs = self.context.zfs();
        let restore = self.restore(wanted, &zfs, &store, &client);
        let Some(mut plan) = self.plan(&restore)? else { return Ok(()) };
        if self.args.dry_run {
            if plan.discard {
                self.would_discard();
            }
            self.context.ui.data(&dry_run_text(&store.contents, &plan, &self.args.target))?;
            return plan.check_readable();
        }
        restore.run(*plan)
    }

    /// Thaws what is archived, without a lock, and receives what can be read.
    fn round(&mut self, options: ThawOptions) -> Result<Outcome> {
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

    /// None: all of it can be read.
    fn thaw(&mut self, options: ThawOptions) -> Result<Option<Thawing>> {
        let (store, client) = self.context.store_and_client()?;
        let wanted = self.wanted(&store.contents)?;
        let zfs = self.context.zfs();
        let Some(mut steps) = self.restore(wanted, &zfs, &store, &client).needed()? else { return Ok(None) };
        if self.discard {
            let _lock = self.lock()?;
            let wanted = self.wanted(&store.contents)?;
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
        let wanted = self.wanted(&store.contents)?;
        let zfs = self.context.zfs();
        let restore = self.restore(wanted, &zfs, &store, &client);
        let Some(mut plan) = self.plan(&restore)? else { return Ok(Outcome::Done) };
        let all = plan.steps.len();
        if plan.keep_readable() {
            let outcome = if plan.steps.len() == all { Outcome::Done } else { Outcome::Again };
            restore.run(*plan)?;
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
            Plan::Receive(plan) => Ok(Some(plan)),
        }
    }

    fn would_discard(&self) {
        self.context.ui.note(&format!("would discard the part of a stream in {}", self.args.target));
    }

    fn hint(&self, error: Error) -> Error {
        let discard = if self.args.discard { "-A " } else { "" };
        let arguments = format!("{discard}{} {}", quoted(&self.args.snapshot), quoted(&self.args.target));
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

fn dry_run_text(contents: &Contents, plan: &Receives, target: &str) -> String {
    let Receives { onto, resumed, steps, .. } = plan;
    let describe_target = match onto {
        Target::New => "a new dataset".to_string(),
        Target::Has { snapshots, .. } => {
            let base = onto.base_name().unwrap_or("no snapshot");
            match snapshots.len().saturating_sub(1) as u64 {
                0 => format!("which has {base}"),
                others => format!("which has {base} and {}", count(others, "other snapshot")),
            }
        }
    };
    let line = |verb: &str, entry: &Entry, bytes: u64| {
        let class = entry.stream.as_ref().map_or("-", |stream| stream.storage_class.as_str());
        let clone = if *onto == Target::New && entry.backup().is_clone() { "  as a clone" } else { "" };
        format!("  {verb}  {}  {bytes} bytes  {class}{clone}\n", entry.backup().describe())
    };
    let mut total = 0;
    let mut lines = String::new();
    if let Some(resumed) = resumed {
        total += resumed.remaining();
        lines += &line("resume ", resumed.entry, total);
    }
    for step in steps {
        total += step.bytes;
        lines += &line("receive", &contents.entries[step.place], step.bytes);
        for object in step.survey.archived() {
            let state = if matches!(object.access, Access::Thawing(_)) { "thawing" } else { "archived" };
            let class = object.access.archive().map_or("-", Archive::class);
            lines += &format!("    {state}  {class}  {} bytes  {}\n", object.bytes, object.key);
        }
    }
    let backups = count(steps.len() as u64 + u64::from(resumed.is_some()), "backup");
    format!(
        "would restore into {target}, {describe_target}\n{lines}  total    {total} bytes ({}), {backups}\n",
        human_size(total)
    )
}
