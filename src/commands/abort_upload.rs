//! `abort_upload`: gives the pending upload up, and leaves nothing of it in the bucket.

use super::Context;
use crate::error::Result;
use crate::upload::describe;

pub fn run(context: &Context) -> Result<()> {
    let _lock = context.lock("abort_upload")?;
    let intent = context.pending()?.intent;
    context.upload(context.store()?)?.abort(&intent)?;
    context.ui.note(&format!("no upload is pending any more ({})", describe(&intent.backup())));
    Ok(())
}
