//! `resume_upload`: resumes the pending upload.

use super::Context;
use crate::config;
use crate::error::Result;

pub fn run(context: &Context) -> Result<()> {
    let parts = config::parts(&context.env)?;
    let _lock = context.lock("resume_upload")?;
    let (overview, upload) = context.pending()?;
    upload.resume(overview, parts)
}
