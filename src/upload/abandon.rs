//! Gives a pending upload up: ends its unfinished uploads in S3, and deletes what it has made, but nothing that is, or may
//! be, part of a stored backup.

use super::Upload;
use super::finish::Expected;
use crate::error::Result;
use crate::inventory::Inventory;
use crate::keys;
use crate::manifest::Manifest;
use crate::progress::record::{Intent, Overview, SegmentState};
use crate::progress::{self, Progress};
use crate::s3::calls::Open;

impl Upload {
    pub(super) fn abandon(&mut self, intent: &Intent) -> Result<()> {
        let progress = Progress::open(&self.folder)?;
        let Some(overview) = progress::overview(&self.folder)? else { return Ok(()) };
        if self.is_stored(intent) {
            // the run before ended between the store and the progress file
            self.ui.note(&format!("{} was stored already, and stays so", intent.backup().in_words()));
        } else {
            self.take_back(intent, &overview)?;
        }
        self.end_strays(intent, &[]);
        self.forget(progress, intent)
    }

    fn take_back(&self, intent: &Intent, overview: &Overview) -> Result<()> {
        let backup = intent.backup();
        let manifest_key = keys::manifest(&intent.prefix, &backup);
        let there = match self.client.head_if_allowed(&manifest_key)? {
            Some(_) => Some(self.read_manifest(&manifest_key)?),
            None => None,
        };
        let others = match &there {
            None => false,
            Some(manifest) if manifest.as_ref().is_some_and(|manifest| is_own(manifest, overview)) => {
                // complete but for the store: another host may have built on it already
                Inventory::read(&self.client, &self.store.contents, &self.ui)?.check_remove(&backup)?;
                self.client.delete(&manifest_key)?;
                false
            }
            Some(_) => {
                self.ui.note(&format!("another store has stored {}: its objects stay", backup.in_words()));
                true
            }
        };
        for (segment, state) in &overview.segments {
            let key = keys::segment(&intent.prefix, &backup, *segment);
            let open = Open { key: &key, upload_id: &state.upload_id, checksums: state.checksums };
            let still_open = self.client.list_parts(open)?.is_some();
            self.client.abort_multipart_upload(&key, &state.upload_id)?;
            if !others {
                self.delete_own(&key, *segment, state, still_open)?;
            }
        }
        Ok(())
    }

    /// Deletes the object of a segment, if it is just what this upload made: so not if that was still open.
    fn delete_own(&self, key: &str, segment: u32, state: &SegmentState, was_open: bool) -> Result<()> {
        let parts = progress::parts_of(&self.folder, segment)?;
        let Some(head) = self.client.head_if_allowed(key)? else { return Ok(()) };
        let same_etag = state.completed.as_ref().is_none_or(|completed| completed.etag == head.etag);
        if !was_open && !parts.is_empty() && same_etag && Expected::of(&parts).is(&head) {
            return Ok(self.client.delete(key)?);
        }
        self.ui.warning(&format!("the object '{key}' is not what this upload made, and stays"));
        Ok(())
    }
}

/// Was the manifest written by this upload? It bears the time of its end, and the ETags that it found.
fn is_own(manifest: &Manifest, overview: &Overview) -> bool {
    let etags = manifest.stream.segments.iter().map(|segment| Some(segment.etag.as_str()));
    let found = overview.segments.values().map(|state| state.completed.as_ref().map(|c| c.etag.as_str()));
    let ended = overview.end.as_ref().is_some_and(|end| end.stored == manifest.stream.stored);
    ended && manifest.tool == overview.intent.tool && etags.eq(found)
}
