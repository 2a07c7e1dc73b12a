//! `resume_upload`: resumes the pending upload.

use super::Context;
use crate::cli;
use crate::config;
use crate::error::Result;

pub fn run(context: &Context, args: &cli::ResumeUploadArgs) -> Result<()> {
    let parts = config::parts(&context.env)?;
    let filter = config::filter(&context.env)?;
    let _lock = context.lock_within(args.wait_lock.as_deref(), false, "resume_upload")?;
    let (overview, upload) = context.pending()?;
    upload.resume(overview, parts, filter.as_deref())
}
