//! `remove`: removes one backup, if the chain rule allows it.

use super::Context;
use crate::cli;
use crate::error::{Error, Result};
use crate::model::copy::parse_id;
use crate::model::units::{count, human_size};
use crate::removal::Outcome;
use crate::removal::spare::SpareCopy;
use crate::removal::stored::StoredCopy;
use crate::state::store::Store;
use crate::state::store::format::Entry;
use crate::state::store::selector::BackupSelector;

pub fn run(context: &Context, args: &cli::RemoveArgs) -> Result<()> {
    let selector = BackupSelector::parse("remove", &args.snapshot, args.base.as_deref())?;
    let id = args.copy.as_deref().map(parse_id).transpose().map_err(Error::usage)?;
    let _lock = context.lock_unless(args.dry_run, &format!("remove {}", args.snapshot))?;
    context.refuse_while_pending()?;
    let (store, client) = context.store_and_client()?;
    let ui = &context.ui;
    let at = match id {
        Some(id) => match selector.find_copy(&store.contents, id) {
            Some(at) => at,
            None => {
                let contents = &store.contents;
                let copy = SpareCopy { client: &client, ui, contents, selector: &selector, id };
                let (name, outcome) = copy.remove(args.dry_run)?;
                return report_spare(context, &contents.bucket, &name, outcome);
            }
        },
        None => selector.find_to_remove(&store.contents)?,
    };
    remove_stored(context, args, StoredCopy { client: &client, ui, store, at, only_if_spare: id.is_some() })
}

fn remove_stored(context: &Context, args: &cli::RemoveArgs, copy: StoredCopy) -> Result<()> {
    let Store { contents, .. } = &copy.store;
    let (entry, bucket) = (contents.entries[copy.at].clone(), contents.bucket.clone());
    let backup = entry.backup();
    match copy.remove(args.dry_run)? {
        Outcome::WouldDelete(keys) => context.ui.data(&dry_run_text(&bucket, &entry, &keys)),
        Outcome::Removed { another_copy_stays } => {
            context.ui.note(&format!("removed '{backup}'"));
            if another_copy_stays {
                context.ui.note(&format!("another copy of '{backup}' is still stored"));
            }
            Ok(())
        }
    }
}

fn report_spare(context: &Context, bucket: &str, name: &str, outcome: Outcome) -> Result<()> {
    match outcome {
        Outcome::WouldDelete(keys) => {
            context.ui.data(&format!("would remove {name}\n{}", deletions(bucket, &keys)))
        }
        Outcome::Removed { .. } => {
            context.ui.note(&format!("removed {name}"));
            Ok(())
        }
    }
}

fn dry_run_text(bucket: &str, entry: &Entry, keys: &[String]) -> String {
    let size = match entry.size() {
        Some(bytes) => format!("{bytes} bytes ({})", human_size(bytes)),
        None => "not known".to_string(),
    };
    format!(
        "would remove '{}'\n{}  size    {size}, {}\n",
        entry.backup(),
        deletions(bucket, keys),
        count(keys.len() as u64, "object")
    )
}

fn deletions(bucket: &str, keys: &[String]) -> String {
    keys.iter().map(|key| format!("  delete  s3://{bucket}/{key}\n")).collect()
}
