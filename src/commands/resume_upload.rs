//! `resume_upload`: goes on with the pending upload where it ended.

use super::Context;
use crate::error::Result;
use crate::inventory::{Inventory, list_bucket};

pub fn run(context: &Context) -> Result<()> {
    let _lock = context.lock("resume_upload")?;
    let overview = context.pending()?;
    let backup = overview.intent.backup();
    let upload = context.upload(context.store()?)?;
    let stored = upload.store.contents.entries.iter().any(|entry| entry.link() == backup.link());
    if !stored {
        // another host may have removed the base meanwhile
        let listing = list_bucket(&upload.client, &upload.store.contents, &context.ui)?;
        Inventory::new(&upload.store.contents, listing.as_deref()).check_resume(&backup)?;
    }
    upload.resume(overview)
}
