//! `upload`: stores a snapshot, in full or as the changes since a base.

use super::Context;
use crate::cli;
use crate::config;
use crate::error::{Error, Result};
use crate::model::keys;
use crate::model::names::{BaseName, SnapshotName};
use crate::model::units::{count, human_size};
use crate::state::journal::record::Intent;

pub fn run(context: &Context, args: &cli::UploadArgs) -> Result<()> {
    let snapshot: SnapshotName = args.snapshot.parse().map_err(Error::usage)?;
    let base = args.base.as_ref().map(|base| BaseName::parse(base, &snapshot));
    let base = base.transpose().map_err(Error::usage)?;
    let settings = config::UploadSettings::new(&context.env)?;
    settings.warnings.iter().for_each(|warning| context.ui.warning(warning));
    let _lock = context.lock_unless(args.dry_run, &format!("upload {snapshot}"))?;
    context.refuse_while_pending()?;
    let upload = context.upload()?;
    let intent = upload.plan(&snapshot, base.as_ref(), settings, args.dry_run)?;
    if args.dry_run { context.ui.data(&dry_run_text(&intent)) } else { upload.begin(intent) }
}

fn dry_run_text(intent: &Intent) -> String {
    let size = match intent.estimate {
        Some(bytes) => format!(
            "about {bytes} bytes ({}, {} of {})",
            human_size(bytes),
            count(intent.chunking.chunks_of(bytes), "part"),
            human_size(intent.chunking.chunk_size)
        ),
        None => "unknown until it is sent".to_string(),
    };
    format!(
        "would upload {}\n  guid   {}\n  to     s3://{}/{}\n  class  {}\n  size   {size}\n",
        intent.backup().describe(),
        intent.snapshot.guid,
        intent.bucket,
        keys::segment(&intent.prefix, &intent.copy(), 1),
        intent.storage_class
    )
}
