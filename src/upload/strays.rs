//! Multipart uploads of the pending upload that the journal does not know, such as one of a
//! CreateMultipartUpload whose reply was lost.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Upload;
use crate::error::{Error, Result};
use crate::model::keys;
use crate::s3::calls::{MultipartUpload, Parts};
use crate::s3::failure::Failure;
use crate::s3::reply::ListedUpload;
use crate::state::journal::record::Intent;

/// An upload that is aborted once may still be there: S3's page of AbortMultipartUpload says so of parts that
/// are being sent. And a reply may be wrong.
const ROUNDS: u32 = 3;
/// Longer after each.
const PAUSE: Duration = Duration::from_millis(300);

impl Upload {
    /// Aborts multipart uploads of this copy that are not in `keep`, until S3 lists none. With keys of version
    /// 1, one that has parts may belong to another host. A refusal of the server is a warning; after any other
    /// failure the upload must stay pending, so that they are looked for again.
    pub(super) fn abort_strays(&self, intent: &Intent, keep: &[&str]) -> Result<()> {
        let stem = keys::stem(&intent.prefix, &intent.copy());
        let mut left: Vec<String> = keep.iter().map(|id| id.to_string()).collect();
        let mut last = None;
        for round in 0..ROUNDS {
            if round > 0 {
                std::thread::sleep(PAUSE * round);
            }
            let mut found = match self.client.list_uploads(&stem) {
                Ok(Some(found)) => found,
                Ok(None) => return self.unlisted(&stem, "this server does not list them"),
                Err(failure) if failure.says_forbidden() || failure.is_not_supported() => {
                    return self.unlisted(&stem, "they cannot be listed");
                }
                Err(failure) if failure.may_pass() => return Err(Error::from(failure).for_now()),
                Err(failure) => {
                    self.ui.warning(&format!("cannot look for unfinished uploads: {}", failure.describe()));
                    return Ok(());
                }
            };
            found.retain(|upload| !left.contains(&upload.upload_id));
            if found.is_empty() {
                return Ok(());
            }
            for upload in found {
                match self.abort_stray(intent, &upload) {
                    Ok(true) => last = Some(upload),
                    Ok(false) => left.push(upload.upload_id),
                    Err(failure) if failure.may_pass() => return Err(Error::from(failure).for_now()),
                    Err(failure) => {
                        self.left_in_bucket(&failure.describe());
                        left.push(upload.upload_id);
                    }
                }
            }
        }
        if let Some(ListedUpload { key, upload_id, .. }) = &last {
            let open = MultipartUpload { key, upload_id, checksums: false };
            // or is only the listing late?
            if !matches!(self.client.list_parts(open), Ok(Parts::NoSuchUpload)) {
                self.left_in_bucket(&format!("S3 still has that of '{key}' after it was aborted"));
            }
        }
        Ok(())
    }

    /// It is not known whether one is left, but if there is reason to think so, that is said.
    fn unlisted(&self, stem: &str, why: &str) -> Result<()> {
        if self.strays.load(Ordering::SeqCst) {
            self.ui.warning(&format!("an unfinished upload of '{stem}' may be left in the bucket: {why}"));
        }
        Ok(())
    }

    /// Whether it was aborted: it is left if it may be another host's.
    fn abort_stray(&self, intent: &Intent, upload: &ListedUpload) -> std::result::Result<bool, Failure> {
        if intent.id.is_none() {
            let open = MultipartUpload { key: &upload.key, upload_id: &upload.upload_id, checksums: false };
            let parts = self.client.list_parts(open)?;
            if !matches!(parts, Parts::Listed(parts) if parts.is_empty()) {
                return Ok(false);
            }
        }
        self.client.abort_multipart_upload(&upload.key, &upload.upload_id).map(|_| true)
    }

    pub(super) fn left_in_bucket(&self, why: &str) {
        self.ui.warning(&format!("an unfinished upload is left in the bucket: {why}"));
    }
}
