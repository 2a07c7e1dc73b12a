//! `keep` and `unkeep`: the mark of a backup that no host removes.

use super::Context;
use crate::cli;
use crate::error::Result;
use crate::removal;
use crate::state::store::selector::BackupSelector;

pub fn keep(context: &Context, args: &cli::KeepArgs) -> Result<()> {
    let selector = BackupSelector::parse("keep", &args.snapshot, args.base.as_deref())?;
    context.ui.set_quiet(args.quiet);
    let command = format!("keep {}", args.snapshot);
    let _lock = context.lock_within(args.wait_lock.as_deref(), false, &command)?;
    let (mut store, client) = context.store_and_client()?;
    let at = selector.find(&store.contents)?;
    let backup = store.contents.entries[at].backup();
    removal::keep::keep(&client, &mut store, at, &context.ui)?;
    context.ui.note(&format!("'{backup}' is kept"));
    Ok(())
}

pub fn unkeep(context: &Context, args: &cli::UnkeepArgs) -> Result<()> {
    let selector = BackupSelector::parse("unkeep", &args.snapshot, args.base.as_deref())?;
    context.ui.set_quiet(args.quiet);
    let command = format!("unkeep {}", args.snapshot);
    let _lock = context.lock_within(args.wait_lock.as_deref(), false, &command)?;
    let (mut store, client) = context.store_and_client()?;
    let at = selector.find(&store.contents)?;
    let backup = store.contents.entries[at].backup();
    removal::keep::unkeep(&client, &mut store, at, &context.ui)?;
    context.ui.note(&format!("'{backup}' is no longer kept"));
    Ok(())
}
