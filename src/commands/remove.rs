//! `remove`: removes one backup, if the chain rule allows it.

use super::Context;
use crate::cli;
use crate::error::{Error, Result};
use crate::model::copy::parse_id;
use crate::model::units::{count, human_size};
use crate::model::utc::Utc;
use crate::os::clock;
use crate::removal::Outcome;
use crate::removal::spare::SpareCopy;
use crate::removal::stored::StoredCopy;
use crate::state::store::Store;
use crate::state::store::format::Entry;
use crate::state::store::selector::BackupSelector;

pub fn run(context: &Context, args: &cli::RemoveArgs) -> Result<()> {
    let selector = BackupSelector::parse("remove", &args.snapshot, args.base.as_deref())?;
    let id = args.copy.as_deref().map(parse_id).transpose().map_err(Error::usage)?;
    let command = format!("remove {}", args.snapshot);
    let _lock = context.lock_within(args.wait_lock.as_deref(), args.dry_run, &command)?;
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
    let fee = early_deletion(&entry, clock::now());
    match copy.remove(args.dry_run)? {
        Outcome::WouldDelete(keys) => {
            let fee = fee.map(|fee| format!("  fee     {fee}\n")).unwrap_or_default();
            context.ui.data(&format!("{}{fee}", dry_run_text(&bucket, &entry, &keys)))
        }
        Outcome::Removed { another_copy_stays } => {
            context.ui.note(&format!("removed {}", backup.describe()));
            if let Some(fee) = fee {
                context.ui.note(&fee);
            }
            if another_copy_stays {
                context.ui.note(&format!("another copy of {} is still stored", backup.snapshot.name));
            }
            Ok(())
        }
    }
}

/// What AWS charges for deleting this before the minimum time of its storage class.
fn early_deletion(entry: &Entry, now: Utc) -> Option<String> {
    let stream = entry.stream.as_ref()?;
    let days = stream.storage_class.days_still_billed(stream.stored, now)?;
    Some(format!(
        "on AWS, {} is billed for at least {} days: the {} of {} for {}",
        stream.storage_class,
        stream.storage_class.minimum_days()?,
        human_size(stream.size),
        entry.snapshot.name,
        count(u64::from(days), "more day")
    ))
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
        "would remove {}\n{}  size    {size}, {}\n",
        entry.backup().describe(),
        deletions(bucket, keys),
        count(keys.len() as u64, "object")
    )
}

fn deletions(bucket: &str, keys: &[String]) -> String {
    keys.iter().map(|key| format!("  delete  s3://{bucket}/{key}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::storage_class::StorageClass;
    use crate::state::store::history::store;

    #[test]
    fn an_early_deletion_names_the_days_that_are_still_billed() {
        let mut entry = store("A:2048").entries.remove(0);
        let time = |text: &str| Utc::try_from(text.to_string()).unwrap();
        let stream = entry.stream.as_mut().unwrap();
        stream.stored = time("2026-01-01T00:00:00Z");
        stream.storage_class = StorageClass::of("DEEP_ARCHIVE");
        let fee = |now| early_deletion(&entry, time(now));
        let said = "on AWS, DEEP_ARCHIVE is billed for at least 180 days: the 2.00K of tank/a@A for";
        assert_eq!(fee("2026-01-11T06:00:00Z"), Some(format!("{said} 170 more days")));
        assert_eq!(fee("2026-06-29T06:00:00Z"), Some(format!("{said} 1 more day")));
        assert_eq!(fee("2026-06-30T00:00:00Z"), None);
        entry.stream.as_mut().unwrap().storage_class = StorageClass::standard();
        assert_eq!(early_deletion(&entry, time("2026-01-01T00:00:00Z")), None);
    }
}
