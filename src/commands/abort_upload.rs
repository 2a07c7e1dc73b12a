//! `abort_upload`: gives the pending upload up, and leaves nothing of it in the bucket.

use super::Context;
use crate::error::Result;

pub fn run(context: &Context) -> Result<()> {
    let _lock = context.lock("abort_upload")?;
    let (overview, upload) = context.pending()?;
    upload.abort(&overview.intent)?;
    context.ui.note(&format!("no upload is pending any more ({})", overview.intent.backup().in_words()));
    Ok(())
}
