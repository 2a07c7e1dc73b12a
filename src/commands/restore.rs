//! `restore`: the cheapest chain of backups that the target does not have yet, each piped into `zfs receive`.
//! An interrupted receive is resumed first. With -w, archived backups are thawed and waited for.

use super::Context;
use super::thaw::{hint_thaw, remember, under_way};
use crate::cli;
use crate::error::{Error, Result, Status};
use crate::model::archive::{Access, Archive};
use crate::model::names::check_dataset_name;
use crate::model::shell::quoted;
use crate::model::units::{count, human_size};
use crate::restore::target::Target;
use crate::restore::thaw::{ThawOptions, thaw, to_ask_for};
use crate::restore::wait::{self, Outcome};
use crate::restore::{Plan, Receives, Restore};
use crate::state::store::format::{Contents, Entry};
use crate::state::store::selector::SnapshotSelector;

pub fn run(context: &Context, args: &cli::RestoreArgs) -> Result<()> {
    let selector = SnapshotSelector::parse(&args.snapshot)?;
    let target = &args.target;
    check_dataset_name(target).map_err(|why| Error::usage(format!("'{target}' is not a dataset: {why}")))?;
    if !args.wait && (args.days.is_some() || args.tier.is_some()) {
        return Err(Error::usage("-d and -t are for -w"));
    }
    let options = ThawOptions::parse(args.tier.as_deref(), args.days)?;
    let mut round = Round { context, args, selector, has_begun: false };
    if args.wait && !args.dry_run {
        let mut options = options;
        return wait::until_done(&context.ui, || {
            let outcome = round.run(Some(&options));
            options = options.for_new_only();
            outcome
        });
    }
    round.run(None).map(|_| ()).map_err(|error| round.hint(error))
}

/// One attempt, which receives all that it can.
struct Round<'a> {
    context: &'a Context,
    args: &'a cli::RestoreArgs,
    selector: SnapshotSelector,
    /// An earlier round has begun to receive: what was to be discarded is gone.
    has_begun: bool,
}

impl Round<'_> {
    /// `options`: thaw what is archived, and receive only what can be read already.
    fn run(&mut self, options: Option<&ThawOptions>) -> Result<Outcome> {
        let Round { context, args, .. } = self;
        let target = &args.target;
        let _lock = context.lock_unless(args.dry_run, &format!("restore {} {target}", args.snapshot))?;
        let (store, client) = context.store_and_client()?;
        let contents = &store.contents;
        let restore = Restore {
            zfs: &context.zfs(),
            client: &client,
            contents,
            ui: &context.ui,
            wanted: self.selector.find(contents, "restore")?,
            target,
            properties: &args.properties,
            discard: args.discard && !self.has_begun,
            continues: self.has_begun,
        };
        let would_discard = || context.ui.note(&format!("would discard the part of a stream in {target}"));
        let mut plan = match restore.plan()? {
            Plan::AlreadyThere { name, latest, discard } => {
                context.ui.note(&if latest == name {
                    format!("{name} exists already")
                } else {
                    format!("{name} exists already; the latest snapshot there is {latest}")
                });
                if discard && args.dry_run {
                    would_discard();
                } else if discard {
                    restore.discard_partial()?;
                }
                return Ok(Outcome::Done);
            }
            Plan::Receive(plan) => plan,
        };
        if args.dry_run {
            if plan.discard {
                would_discard();
            }
            context.ui.data(&dry_run_text(contents, &plan, target))?;
            return plan.check_readable().map(|()| Outcome::Done);
        }
        let mut waiting = None;
        if let Some(options) = options {
            let surveys = plan.steps.iter_mut().map(|step| &mut step.survey);
            let begun = thaw(&client, to_ask_for(surveys, options)?, options)?;
            remember(context, contents, &plan.steps, &begun);
            waiting = under_way(&plan.steps, options);
            if !plan.keep_readable() {
                return Ok(Outcome::Waiting(waiting.unwrap_or_default()));
            }
        }
        plan.check_readable()?;
        self.has_begun = true;
        restore.run(*plan)?;
        Ok(if waiting.is_some() { Outcome::Received } else { Outcome::Done })
    }

    fn hint(&self, error: Error) -> Error {
        let arguments = format!("{} {}", quoted(&self.args.snapshot), quoted(&self.args.target));
        let is_archived = error.status == Status::Archived;
        let error = hint_thaw(error, &arguments);
        match (is_archived, self.args.dry_run) {
            (true, false) => error.hint("'restore -n' lists the objects; 'restore -w' thaws them, and waits"),
            _ => error,
        }
    }
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
