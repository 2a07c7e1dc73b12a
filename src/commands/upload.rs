//! `upload`: checks all that can be checked before anything is done, then begins.

use super::Context;
use crate::cli;
use crate::config;
use crate::error::{Error, Result};
use crate::inventory::{Inventory, Listing, Uploads};
use crate::model::backup::Backup;
use crate::model::chunks::Cut;
use crate::model::copy::{CopyName, Id};
use crate::model::keys;
use crate::model::names::{BaseName, SnapshotName};
use crate::model::readme;
use crate::model::units::{count, human_size};
use crate::os::clock;
use crate::os::host;
use crate::os::random;
use crate::removal::TOOL;
use crate::state::journal::record::{Intent, VERSION};
use crate::upload::Upload;
use crate::zfs::Zfs;

pub fn run(context: &Context, args: &cli::Upload) -> Result<()> {
    let snapshot: SnapshotName = args.snapshot.parse().map_err(Error::usage)?;
    let base = args.base.as_ref().map(|base| BaseName::parse(base, &snapshot));
    let base = base.transpose().map_err(Error::usage)?;
    let how = config::Upload::new(&context.env)?;
    how.warnings.iter().for_each(|warning| context.ui.warning(warning));

    let _lock = context.lock_unless(args.dry_run, &format!("upload {snapshot}"))?;
    context.refuse_while_pending()?;
    let upload = context.upload()?;
    let backup = find(&upload.zfs, &snapshot, base.as_ref())?;
    let id = random::id();
    {
        let inventory =
            Inventory::read(&upload.client, &upload.store.contents, &context.ui, Uploads::NotAsked)?;
        inventory.check_upload(&backup)?;
        if let Some(listing) = inventory.listing() {
            check_may_read(context, &upload, listing, &copy_of(&backup, id), args.dry_run)?;
        }
        inventory.notes(&backup).iter().for_each(|note| context.ui.note(note));
        for name in inventory.unrecoverable() {
            context.ui.warning(&format!(
                "'{name}' cannot be restored: its data, or those it depends on, are not in the bucket"
            ));
        }
    }
    let cut = how.chunking.cut(&upload.endpoint);
    let send_args = upload.zfs.send_flags(&backup.snapshot.name)?.words();
    let estimate = match upload.zfs.estimate(&backup, &send_args) {
        Ok(size) => Some(size),
        // some versions cannot guess from a bookmark
        Err(_) if base.is_some_and(|base| base.is_bookmark()) => None,
        Err(error) => return Err(error),
    };
    if args.dry_run {
        return context.ui.data(&dry_run_text(context, &backup, id, &how.storage_class, cut, estimate));
    }
    let endpoint = upload.endpoint.clone();
    upload.begin(Intent {
        version: VERSION,
        tool: TOOL.to_string(),
        endpoint,
        bucket: context.local.bucket.clone(),
        prefix: context.local.prefix.clone(),
        snapshot: backup.snapshot,
        base: backup.base,
        id: Some(id),
        host: Some(host::name()),
        cut,
        storage_class: how.storage_class,
        send_args,
        estimate,
        begun: clock::now(),
    })
}

fn find(zfs: &Zfs, snapshot: &SnapshotName, base: Option<&BaseName>) -> Result<Backup> {
    let found = zfs.find(snapshot.as_str())?;
    let Some(base) = base else {
        return Ok(Backup { snapshot: found.point, base: None });
    };
    let older = zfs.find(base.as_str())?;
    if older.createtxg >= found.createtxg {
        return Err(Error::refused(format!("the base {base} is not older than {snapshot}")));
    }
    Ok(Backup { snapshot: found.point, base: Some(older.point) })
}

/// S3 would say so only when all is sent, and could not be asked what was.
fn check_may_read(
    context: &Context,
    upload: &Upload,
    listing: &Listing,
    copy: &CopyName,
    dry_run: bool,
) -> Result<()> {
    let prefix = &context.local.prefix;
    let readme = readme::key(prefix);
    let there = match listing.has_readme {
        true => Some(readme.as_str()),
        false => listing.objects.first().map(|object| object.key.as_str()),
    };
    if let Some(key) = there {
        return upload.client.may_read(key)?.map_err(Error::from);
    }
    let Err(failure) = upload.client.may_read(&keys::manifest(prefix, copy))? else { return Ok(()) };
    // a policy that allows listing below a prefix only has S3 answer so of what is not there, too
    if dry_run {
        context.ui.warning(&failure.describe());
        return Ok(());
    }
    upload.put_readme(&context.local.bucket, prefix)?;
    upload.client.may_read(&readme)?.map_err(Error::from)
}

fn copy_of(backup: &Backup, id: Id) -> CopyName {
    CopyName { name: backup.snapshot.name.clone(), link: backup.link(), id: Some(id) }
}

fn dry_run_text(
    context: &Context,
    backup: &Backup,
    id: Id,
    storage_class: &str,
    cut: Cut,
    estimate: Option<u64>,
) -> String {
    let local = &context.local;
    let copy = copy_of(backup, id);
    let size = match estimate {
        Some(bytes) => format!(
            "about {bytes} bytes ({}, {} of {})",
            human_size(bytes),
            count(cut.chunks_of(bytes), "part"),
            human_size(cut.chunk_size)
        ),
        None => "unknown until it is sent".to_string(),
    };
    format!(
        "would upload {}\n  guid   {}\n  to     s3://{}/{}\n  class  {}\n  size   {size}\n",
        backup.in_words(),
        backup.snapshot.guid,
        local.bucket,
        keys::segment(&local.prefix, &copy, 1),
        storage_class
    )
}
