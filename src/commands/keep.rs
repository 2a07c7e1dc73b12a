//! `keep` and `unkeep`: the mark of a backup that no host removes.

use super::Context;
use crate::cli::{KeepArgs, UnkeepArgs};
use crate::error::Result;
use crate::removal;
use crate::s3::client::Client;
use crate::state::store::Store;
use crate::state::store::selector::BackupSelector;
use crate::ui::Ui;

pub fn keep(context: &Context, args: &KeepArgs) -> Result<()> {
    let KeepArgs { base, wait_lock, snapshot, .. } = args;
    change(context, "keep", [base, wait_lock], snapshot, removal::keep::keep, "kept")
}

pub fn unkeep(context: &Context, args: &UnkeepArgs) -> Result<()> {
    let UnkeepArgs { base, wait_lock, snapshot, .. } = args;
    change(context, "unkeep", [base, wait_lock], snapshot, removal::keep::unkeep, "no longer kept")
}

/// `change`: of the backup at a place in the store. `done`: what it is then. Without a base, it is the full
/// backup, or else the only one of the snapshot.
fn change(
    context: &Context,
    command: &str,
    [base, wait_lock]: [&Option<String>; 2],
    snapshot: &str,
    change: impl Fn(&Client, &mut Store, usize, &Ui) -> Result<()>,
    done: &str,
) -> Result<()> {
    let selector = BackupSelector::parse(command, snapshot, base.as_deref())?;
    let _lock = context.lock_within(wait_lock.as_deref(), false, &format!("{command} {snapshot}"))?;
    let (mut store, client) = context.store_and_client()?;
    let at = selector.find_or_only(&store.contents)?;
    let backup = store.contents.entries[at].backup();
    change(&client, &mut store, at, &context.ui)?;
    context.ui.note(&format!("{}: {done}", backup.describe()));
    Ok(())
}
