//! `abort_upload`: aborts the pending upload, and deletes its objects.

use super::Context;
use crate::error::Result;

pub fn run(context: &Context) -> Result<()> {
    let _lock = context.lock("abort_upload")?;
    let (overview, upload) = context.pending()?;
    upload.abort(&overview.intent)?;
    context.ui.note(&format!("aborted the upload of {}", overview.intent.backup().describe()));
    Ok(())
}
