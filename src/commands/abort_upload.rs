//! `abort_upload`: gives the pending upload up, and leaves nothing of it in the bucket.

use super::Context;
use crate::error::Result;
use crate::upload::describe;

pub fn run(context: &Context) -> Result<()> {
    let _lock = context.lock("abort_upload")?;
    let (overview, upload) = context.pending()?;
    upload.abort(&overview.intent)?;
    context.ui.note(&format!("no upload is pending any more ({})", describe(&overview.intent.backup())));
    Ok(())
}
