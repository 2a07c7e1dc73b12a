//! `upload`: stores a snapshot, in full or as the changes since a base.

use super::Context;
use crate::cli;
use crate::config;
use crate::error::{Error, Result};
use crate::model::keys;
use crate::model::names::{BaseName, SnapshotName};
use crate::model::object_lock::Retention;
use crate::model::units::{count, human_size};
use crate::os::clock;
use crate::state::journal::record::Intent;

pub fn run(context: &Context, args: &cli::UploadArgs) -> Result<()> {
    let snapshot: SnapshotName = args.snapshot.parse().map_err(Error::usage)?;
    let base = args.base.as_ref().map(|base| BaseName::parse(base, &snapshot));
    let base = base.transpose().map_err(Error::usage)?;
    let settings = config::UploadSettings::new(&context.env)?;
    settings.warnings.iter().for_each(|warning| context.ui.warning(warning));
    let lock = settings.lock(args.lock_until.as_deref(), clock::now())?;
    let _lock = context.lock_unless(args.dry_run, &format!("upload {snapshot}"))?;
    context.refuse_while_pending()?;
    let upload = context.upload()?;
    let intent = upload.plan(&snapshot, base.as_ref(), settings, lock, args.dry_run)?;
    if args.dry_run { context.ui.data(&dry_run_text(&intent)) } else { upload.begin(intent) }
}

fn dry_run_text(intent: &Intent) -> String {
    let Intent { chunking, storage_class, .. } = intent;
    let size = match intent.estimate {
        Some(bytes) => format!("about {bytes} bytes ({})", human_size(bytes)),
        None => "unknown until it is sent".to_string(),
    };
    let mut text = format!(
        "would upload {}\n  guid      {}\n  to        s3://{}/{}\n  class     {storage_class}\n  size      {size}\n",
        intent.backup().describe(),
        intent.snapshot.guid,
        intent.bucket,
        keys::segment(&intent.prefix, &intent.copy(), 1),
    );
    if let Some(bytes) = intent.estimate {
        let parts = chunking.chunks_of(bytes).max(1);
        let segments = parts.div_ceil(u64::from(chunking.parts_per_segment));
        text += &format!(
            "  parts     {} of {}, in {}\n  requests  {} to begin and complete the upload, {} to send the parts, 1 for the manifest\n",
            parts,
            human_size(chunking.chunk_size),
            count(segments, "segment"),
            2 * segments,
            parts
        );
    }
    if let Some(Retention { mode, until }) = intent.lock {
        text += &format!("  lock      until {until} ({mode})\n");
    }
    if let Some(days) = storage_class.minimum_days() {
        text += &format!("  minimum   on AWS, {storage_class} is billed for at least {days} days\n");
    }
    text
}
