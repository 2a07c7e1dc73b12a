//! Gives a pending upload up: ends its unfinished uploads in S3, and deletes the objects that it has made, but nothing
//! that is, or may be, part of a stored backup.

use super::finish::Expected;
use super::{Upload, describe};
use crate::error::{Error, Result};
use crate::keys;
use crate::progress::record::Intent;
use crate::progress::{self, Progress};

impl Upload {
    pub(super) fn abandon(&mut self, intent: &Intent) -> Result<()> {
        let backup = intent.backup();
        let progress = Progress::open(&self.folder)?;
        if self.store.contents.entries.iter().any(|entry| entry.link() == backup.link()) {
            // the run before ended between the store and the progress file
            self.end_strays(intent, &[]);
            self.forget(progress, intent)?;
            self.ui.note(&format!("{} was stored already, and stays so", describe(&backup)));
            return Ok(());
        }
        let complete = self.client.head(&keys::manifest(&intent.prefix, &backup));
        match complete {
            Ok(Some(_)) => {
                return Err(Error::refused(format!(
                    "'{backup}' is complete in the bucket, so it is no longer just an upload"
                ))
                .hint("'zfs2s3 resume_upload' puts it into the store; 'zfs2s3 remove' can remove it then"));
            }
            Ok(None) => {}
            Err(failure) if failure.is_forbidden() => {}
            Err(failure) => return Err(failure.into()),
        }
        let Some(overview) = progress::overview(&self.folder)? else { return Ok(()) };
        for (segment, state) in &overview.segments {
            let key = keys::segment(&intent.prefix, &backup, *segment);
            self.client.abort_multipart_upload(&key, &state.upload_id)?;
            self.delete_own(&key, *segment)?;
        }
        self.end_strays(intent, &[]);
        self.forget(progress, intent)
    }

    /// Deletes a segment's object, if it is just what this upload made of it.
    fn delete_own(&self, key: &str, segment: u32) -> Result<()> {
        let parts = progress::parts_of(&self.folder, segment)?;
        match self.client.head(key) {
            Ok(Some(head)) if !parts.is_empty() && Expected::of(&parts).is(&head) => {
                Ok(self.client.delete(key)?)
            }
            Ok(Some(_)) => {
                self.ui.warning(&format!("the object '{key}' is not what this upload made, and stays"));
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(failure) if failure.is_forbidden() => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }
}
