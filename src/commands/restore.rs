//! `restore`: the cheapest chain of backups that the target does not have yet, each piped into `zfs receive`.
//! An interrupted receive is resumed first.

use super::Context;
use crate::cli;
use crate::error::{Error, Result};
use crate::model::names::check_dataset_name;
use crate::model::units::{count, human_size};
use crate::restore::target::Target;
use crate::restore::{Plan, Receives, Restore};
use crate::state::store::format::{Contents, Entry};
use crate::state::store::selector::SnapshotSelector;

pub fn run(context: &Context, args: &cli::RestoreArgs) -> Result<()> {
    let selector = SnapshotSelector::parse(&args.snapshot)?;
    let target = &args.target;
    check_dataset_name(target).map_err(|why| Error::usage(format!("'{target}' is not a dataset: {why}")))?;
    let _lock = context.lock_unless(args.dry_run, &format!("restore {} {target}", args.snapshot))?;
    let (store, client) = context.store_and_client()?;
    let contents = &store.contents;
    let restore = Restore {
        zfs: &context.zfs(),
        client: &client,
        contents,
        ui: &context.ui,
        wanted: selector.find(contents, "restore")?,
        target,
        properties: &args.properties,
        discard: args.discard,
    };
    let would_discard = || context.ui.note(&format!("would discard the part of a stream in {target}"));
    match restore.plan()? {
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
            Ok(())
        }
        Plan::Receive(plan) if args.dry_run => {
            if plan.discard {
                would_discard();
            }
            context.ui.data(&dry_run_text(contents, &plan, target))
        }
        Plan::Receive(plan) => restore.run(*plan),
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
    for (n, bytes) in steps {
        total += bytes;
        lines += &line("receive", &contents.entries[*n], *bytes);
    }
    let backups = count(steps.len() as u64 + u64::from(resumed.is_some()), "backup");
    format!(
        "would restore into {target}, {describe_target}\n{lines}  total    {total} bytes ({}), {backups}\n",
        human_size(total)
    )
}
