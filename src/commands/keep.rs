//! `keep` and `unkeep`: the mark of a backup that no host removes.

use super::Context;
use crate::cli;
use crate::error::Result;
use crate::removal;
use crate::state::store::selector::BackupSelector;

pub fn keep(context: &Context, args: &cli::KeepArgs) -> Result<()> {
    let selector = BackupSelector::parse("keep", &args.snapshot, args.base.as_deref())?;
    let _lock = context.lock(&format!("keep {}", args.snapshot))?;
    let (mut store, client) = context.store_and_client()?;
    let at = selector.find(&store.contents)?;
    let backup = store.contents.entries[at].backup();
    removal::keep::keep(&client, &mut store, at, &context.ui)?;
    context.ui.note(&format!("'{backup}' is kept"));
    Ok(())
}

pub fn unkeep(context: &Context, args: &cli::UnkeepArgs) -> Result<()> {
    let selector = BackupSelector::parse("unkeep", &args.snapshot, args.base.as_deref())?;
    let _lock = context.lock(&format!("unkeep {}", args.snapshot))?;
    let (mut store, client) = context.store_and_client()?;
    let at = selector.find(&store.contents)?;
    let backup = store.contents.entries[at].backup();
    removal::keep::unkeep(&client, &mut store, at, &context.ui)?;
    context.ui.note(&format!("'{backup}' is no longer kept"));
    Ok(())
}
