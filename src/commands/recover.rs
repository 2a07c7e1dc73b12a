//! `recover`: rebuilds the store from the bucket. It deletes nothing, neither in the bucket nor in the store.

use super::Context;
use crate::cli;
use crate::error::{Error, Result};
use crate::model::copy::NO_ID;
use crate::model::shell::quoted;
use crate::model::units::{count, human_size};
use crate::recover::compare::{Difference, compare};
use crate::recover::scan::scan_bucket;
use crate::recover::{cancel, hidden, merge};
use crate::state::journal;
use crate::state::store::Store;
use crate::state::store::format::Contents;
use crate::state::verified;
use crate::ui::Ui;

pub fn run(context: &Context, args: &cli::RecoverArgs) -> Result<()> {
    let _lock = context.lock_unless(args.dry_run, "recover")?;
    journal::refuse_python_upload(&context.folder, &context.local.bucket)?;
    let (mut store, client) = context.store_and_client()?;
    let pending = journal::overview(&context.folder)?.map(|overview| overview.intent);
    if let Some(intent) = &pending {
        // with a store of another server it could not be resumed
        context.check_place(intent, Some(&store.contents.endpoint))?;
        let backup = intent.backup().describe();
        context.ui.note(&format!("the upload of {backup} is pending, and is left unchanged"));
    }
    // the backup of a pending upload that is in the store already is stored, and only the end of its upload
    // is pending
    let copy = pending.as_ref().map(|intent| intent.copy());
    let left_alone = copy.filter(|copy| store.contents.entries.iter().all(|e| e.copy() != *copy));
    if !args.dry_run && args.merge {
        cancel::own_removals(&client, &store.contents)?;
    }
    if let Some(host) = args.revive.as_deref().filter(|_| !args.dry_run) {
        cancel::removals_of(host, &client, &store.contents.prefix, &context.ui)?;
    }
    let scan = scan_bucket(&client, &store.contents, left_alone.as_ref(), &context.ui)?;
    let all_was_read = scan.unreadable.is_empty();
    let difference = compare(&store.contents, scan);
    report(&difference, &context.ui);
    let is_sound = all_was_read && difference.is_sound();
    let was_empty = store.contents.entries.is_empty();
    if was_empty && !args.dry_run {
        verified::forget(&context.folder);
    }
    let added = add(args, &mut store, difference, &context.ui);
    // only now, because it may take long: the store is saved
    hidden::report(&client, &store.contents, args.dry_run || was_empty, &context.ui);
    match added {
        Ok(()) if !is_sound => {
            Err(Error::failed("some backups in the bucket or in the store cannot be restored")
                .hint("the warnings name them, and the reasons"))
        }
        Err(error) if pending.is_some() => {
            Err(error.hint("resume or abort the pending upload, then run this command again"))
        }
        added => added,
    }
}

fn add(args: &cli::RecoverArgs, store: &mut Store, difference: Difference, ui: &Ui) -> Result<()> {
    let is_empty = store.contents.entries.is_empty();
    let additions = difference.additions();
    if additions == 0 {
        if is_empty {
            return Err(nothing_found(&store.contents));
        }
        ui.note(&format!("nothing to add: {} in the store and in the bucket", difference.same));
        return Ok(());
    }
    let new = count(additions as u64, "backup");
    let needs_merge = !is_empty && !args.merge;
    if args.dry_run {
        let option = if needs_merge { "with -m " } else { "" };
        ui.note(&format!("{option}would add {new} to the store"));
        let Difference { to_add, to_replace, to_revive, .. } = &difference;
        let all = to_add.iter().chain(to_replace.iter().map(|(_, there)| there)).chain(to_revive);
        return ui.data(&all.map(|entry| format!("{}\n", entry.backup())).collect::<String>());
    }
    if needs_merge {
        for entry in &difference.to_add {
            ui.note(&format!("'{}' is in the bucket, but not in the store", entry.backup()));
        }
        for entry in &difference.to_revive {
            ui.note(&format!("the removal of '{}' has begun, but the backup is still whole", entry.backup()));
        }
        return Err(Error::failed(format!("the bucket has {new} missing from the store, or changed there"))
            .hint("'zfs2s3 recover -m' adds them to the store"));
    }
    merge(&mut store.contents, difference);
    store.save()?;
    ui.note(&format!("added {new} to the store"));
    Ok(())
}

fn nothing_found(Contents { bucket, prefix, .. }: &Contents) -> Error {
    let place = if prefix.is_empty() { String::new() } else { format!(" under the prefix '{prefix}'") };
    Error::failed(format!("the bucket '{bucket}' has no backup that can be restored{place}")).hint(format!(
        "ZFS2S3_PREFIX must be everything before DATASET@SNAPSHOT in the keys, and before README.zfs2s3.txt: \
         'aws s3 ls --recursive s3://{bucket}' lists them"
    ))
}

fn report(difference: &Difference, ui: &Ui) {
    for name in &difference.unrestorable {
        ui.warning(&format!(
            "'{name}' is in the bucket, but its base cannot be restored, or is being removed: it is not added"
        ));
    }
    for entry in &difference.announced {
        ui.warning(&format!(
            "'{}' is in the bucket, but is being removed: it is not added to the store",
            entry.backup()
        ));
    }
    for entry in &difference.spare {
        let size = entry.size().map(human_size).unwrap_or_default();
        let base = entry.base.as_ref().map(|base| format!("-i {} ", base.guid)).unwrap_or_default();
        let copy = match entry.id {
            Some(id) => format!("{id} {base}{}", entry.snapshot.guid),
            // only their names distinguish these
            None => format!("{NO_ID} {base}{}", quoted(&entry.snapshot.name)),
        };
        ui.note(&format!(
            "the bucket has another copy of '{}' ({size}); 'zfs2s3 remove -c {copy}' removes it",
            entry.backup()
        ));
    }
    for name in &difference.lost {
        ui.warning(&format!("'{name}' is in the store, but not in the bucket"));
    }
    for (copy, there) in &difference.to_replace {
        let name = &copy.name;
        let backup = there.backup();
        ui.warning(&if *name != there.snapshot.name {
            format!("'{name}' is in the store, but the bucket has it only under another name: '{backup}'")
        } else if copy.id != there.id {
            format!("'{backup}' is in the store, but the bucket has only another copy of it")
        } else {
            format!("'{backup}' differs between the store and the bucket")
        });
    }
}
