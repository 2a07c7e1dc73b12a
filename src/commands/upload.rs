//! `upload`: checks all that can be checked before anything is done, then begins.

use super::Context;
use crate::backup::Backup;
use crate::cli;
use crate::config;
use crate::error::{Error, Result};
use crate::inventory::Inventory;
use crate::keys;
use crate::names::{BaseName, SnapshotName};
use crate::progress::record::{Intent, VERSION};
use crate::units::{count, human_size};
use crate::utc::Utc;
use crate::zfs::Zfs;

pub fn run(context: &Context, args: &cli::Upload) -> Result<()> {
    let snapshot: SnapshotName = args.snapshot.parse().map_err(Error::usage)?;
    let base = args.base.as_ref().map(|base| BaseName::parse(base, &snapshot));
    let base = base.transpose().map_err(Error::usage)?;
    let how = config::Upload::new(&context.env)?;
    how.warnings.iter().for_each(|warning| context.ui.warning(warning));

    let _lock = match args.dry_run {
        true => None,
        false => Some(context.lock(&format!("upload {snapshot}"))?),
    };
    context.refuse_while_pending()?;
    let upload = context.upload()?;
    let backup = find(&upload.zfs, &snapshot, base.as_ref())?;
    let inventory = Inventory::read(&upload.client, &upload.store.contents, &context.ui)?;
    inventory.check_upload(&backup)?;
    if let Some(name) = inventory.other_name(&backup) {
        context.ui.note(&format!("the bucket has it already, as '{name}', which this store does not know"));
    }
    for name in inventory.unrecoverable() {
        context.ui.warning(&format!(
            "'{name}' cannot be restored: its data, or those it hangs on, are not in the bucket"
        ));
    }
    drop(inventory); // it may be large
    let send_args = upload.zfs.send_flags(&backup.snapshot.name)?.words();
    let estimate = match upload.zfs.estimate(&backup, &send_args) {
        Ok(size) => Some(size),
        // some versions cannot guess from a bookmark
        Err(_) if base.is_some_and(|base| base.is_bookmark()) => None,
        Err(error) => return Err(error),
    };
    if args.dry_run {
        return context.ui.data(&plan(context, &backup, &how, estimate));
    }
    let endpoint = upload.endpoint.clone();
    upload.begin(Intent {
        version: VERSION,
        tool: concat!("zfs2s3 ", env!("CARGO_PKG_VERSION")).to_string(),
        endpoint,
        bucket: context.local.bucket.clone(),
        prefix: context.local.prefix.clone(),
        snapshot: backup.snapshot,
        base: backup.base,
        cut: how.cut,
        storage_class: how.storage_class,
        send_args,
        estimate,
        begun: Utc::now(),
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

/// What `-n` prints.
fn plan(context: &Context, backup: &Backup, how: &config::Upload, estimate: Option<u64>) -> String {
    let local = &context.local;
    let size = match estimate {
        Some(bytes) => format!(
            "about {bytes} bytes ({}, {} of {})",
            human_size(bytes),
            count(how.cut.chunks_of(bytes), "part"),
            human_size(how.cut.chunk_size)
        ),
        None => "unknown until it is sent".to_string(),
    };
    format!(
        "would upload {}\n  guid   {}\n  to     s3://{}/{}\n  class  {}\n  size   {size}\n",
        backup.in_words(),
        backup.snapshot.guid,
        local.bucket,
        keys::segment(&local.prefix, backup, 1),
        how.storage_class
    )
}
