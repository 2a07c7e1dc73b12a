//! Parts into objects, then the manifest, then the store. Each step may be repeated: after a crash the next run finds
//! what is there already.

use std::collections::BTreeMap;

use super::Upload;
use crate::digest::{Composite, Sha256};
use crate::error::{Error, Result};
use crate::keys;
use crate::manifest::{Manifest, Segment, Stream, VERSION, chunk_lines};
use crate::progress::record::{Completed, End, Intent, PartStored, Record, SegmentState};
use crate::progress::{self, Progress};
use crate::readme;
use crate::s3::calls::{Head, Open, Piece};
use crate::s3::failure::{Failure, Kind};
use crate::store::format::{Entry, State};
use crate::units::{count, human_size};
use crate::yaml;

/// What a segment's object must be, by the recorded parts.
pub struct Expected {
    pub size: u64,
    parts: usize,
    composite: Composite,
}

impl Expected {
    pub fn of(parts: &BTreeMap<u16, PartStored>) -> Self {
        Expected {
            size: parts.values().map(|part| part.size).sum(),
            parts: parts.len(),
            composite: parts.values().map(|part| &part.sha256).collect(),
        }
    }

    /// By its composite SHA-256; where the server keeps none, by size and the number of parts in its ETag.
    pub fn is(&self, head: &Head) -> bool {
        let sums_agree = match &head.checksum {
            Some(sum) => *sum == self.composite.s3() || *sum == self.composite.sha256().base64(),
            None => match head.etag.trim_matches('"').rsplit_once('-') {
                Some((_, parts)) if parts.bytes().all(|b| b.is_ascii_digit()) => {
                    parts == self.parts.to_string()
                }
                _ => true,
            },
        };
        head.size == self.size && sums_agree
    }
}

impl Upload {
    pub(super) fn finish(&mut self, progress: Progress, intent: &Intent, end: &End) -> Result<()> {
        let backup = intent.backup();
        let (segments, composite_sha256) = self.complete_all(&progress, intent, end)?;
        let parts: usize = segments.iter().filter_map(|s| s.chunks.as_ref()).map(|c| c.lines().count()).sum();
        let stream = Stream {
            size: end.size,
            composite_sha256,
            send_args: intent.send_args.clone(),
            stages: vec![],
            chunk_size: intent.cut.chunk_size,
            storage_class: intent.storage_class.clone(),
            stored: end.stored,
            segments,
        };
        let manifest = Manifest::new(&intent.tool, &backup, stream);
        self.check_base(intent)?;
        let manifest = self.put_manifest(intent, manifest)?;
        if self.store.contents.entries.iter().all(|entry| entry.stream.is_none()) {
            self.put_readme(intent);
        }
        if !self.is_stored(intent) {
            self.store.contents.entries.push(Entry {
                snapshot: backup.snapshot.clone(),
                base: backup.base.clone(),
                state: State::Stored,
                stream: Some(manifest.stream.without_chunks()),
            });
            self.store.save()?;
        }
        self.end_strays(intent, &[]);
        self.forget(progress, intent)?;
        let size = human_size(end.size);
        self.ui.note(&format!("stored {}: {size}, {}", backup.in_words(), count(parts as u64, "part")));
        Ok(())
    }

    fn complete_all(
        &self,
        progress: &Progress,
        intent: &Intent,
        end: &End,
    ) -> Result<(Vec<Segment>, Sha256)> {
        let overview = progress::overview(&self.folder)?.ok_or_else(|| incomplete("it is gone"))?;
        let mut chunks_left = intent.cut.chunks_of(end.size);
        let mut bytes_left = end.size;
        let mut composite = Composite::default();
        let mut segments = Vec::new();
        for (number, (segment, state)) in (1..).zip(&overview.segments) {
            let parts = progress::parts_of(&self.folder, *segment)?;
            let wanted = chunks_left.min(u64::from(intent.cut.parts_per_segment));
            let in_a_row = parts.keys().copied().eq((1..=intent.cut.parts_per_segment).take(wanted as usize));
            if *segment != number || !in_a_row {
                return Err(incomplete(&format!("not all parts of segment {number} are in it")));
            }
            let expected = Expected::of(&parts);
            chunks_left -= wanted;
            bytes_left = bytes_left
                .checked_sub(expected.size)
                .ok_or_else(|| incomplete("its parts are more than the stream"))?;
            let key = keys::segment(&intent.prefix, &intent.backup(), *segment);
            let completed = match &state.completed {
                Some(completed) => completed.clone(),
                None => self.complete(progress, *segment, &key, state, &parts, &expected)?,
            };
            let sums: Vec<Sha256> = parts.values().map(|part| part.sha256).collect();
            sums.iter().for_each(|sum| composite.push(sum));
            segments.push(Segment {
                key,
                size: expected.size,
                etag: completed.etag,
                checksum: completed.checksum,
                chunks: Some(chunk_lines(&sums)),
            });
        }
        if chunks_left > 0 || bytes_left > 0 {
            return Err(incomplete("it lacks parts of the stream"));
        }
        Ok((segments, composite.sha256()))
    }

    /// Completes one segment. The reply may be lost after S3 has done it, so it is looked at before each try and after.
    fn complete(
        &self,
        progress: &Progress,
        segment: u32,
        key: &str,
        state: &SegmentState,
        parts: &BTreeMap<u16, PartStored>,
        expected: &Expected,
    ) -> Result<Completed> {
        let open = Open { key, upload_id: &state.upload_id, checksums: state.checksums };
        let pieces: Vec<Piece> = parts.values().map(|p| (p.part, p.etag.as_str(), p.sha256)).collect();
        let mut patience = self.client.patience();
        let mut done = false;
        let head = loop {
            match self.client.head_if_allowed(key)? {
                Some(head) if expected.is(&head) => break head,
                Some(_) => return Err(another_object(key)),
                None if done => {
                    patience.pause_after(not_there(key))?;
                    continue;
                }
                None => {}
            }
            match self.client.complete_multipart_upload_once(open, &pieces) {
                Ok(()) => done = true,
                // by the try before, whose reply was lost: HEAD will tell
                Err(failure) if failure.is_missing() || failure.is_precondition_failed() => {
                    done = true;
                    if self.client.head_if_allowed(key)?.is_none() {
                        return Err(Error::try_again(format!(
                            "S3 no longer knows the upload of {key}: {}",
                            failure.describe()
                        )));
                    }
                }
                Err(failure) => patience.pause_after(failure)?,
            }
        };
        if !done {
            // by another store, so this one's upload is still open
            self.client.abort_multipart_upload(key, &state.upload_id)?;
        }
        let completed = Completed { segment, etag: head.etag, checksum: head.checksum };
        progress.add(&Record::Completed(completed.clone()))?;
        Ok(completed)
    }

    /// Gives back the manifest that is there: this one, or an equal one of a try before or of another store.
    fn put_manifest(&self, intent: &Intent, manifest: Manifest) -> Result<Manifest> {
        let key = keys::manifest(&intent.prefix, &intent.backup());
        let text = yaml::to_string(&manifest).map_err(|why| Error::failed(format!("the manifest: {why}")))?;
        if self.client.put_new(&key, text.as_bytes())? {
            return Ok(manifest);
        }
        match self.read_manifest(&key)? {
            Some(there) if there.is_of_the_same_data(&manifest) => Ok(there),
            _ => Err(another_object(&key)),
        }
    }

    /// With the first backup, the words for whoever finds the bucket without this host. No backup fails for want of them.
    fn put_readme(&self, intent: &Intent) {
        let text = readme::text(&intent.endpoint, &intent.bucket, &intent.prefix);
        if let Err(failure) = self.client.put_new(&readme::key(&intent.prefix), text.as_bytes()) {
            self.ui.warning(&format!("no README in the bucket: {}", failure.describe()));
        }
    }

    /// None where it is damaged, or not one that this version knows.
    pub(super) fn read_manifest(&self, key: &str) -> Result<Option<Manifest>> {
        let bytes = self.client.get(key, u64::MAX)?;
        Ok(Manifest::read(&bytes).ok().filter(|manifest| manifest.version == VERSION))
    }

    /// Ends uploads of this backup's keys that are not in `keep` and have no parts: a Create whose reply was lost
    /// leaves one. One that has parts is another host's.
    pub(super) fn end_strays(&self, intent: &Intent, keep: &[&str]) {
        let key = keys::segment(&intent.prefix, &intent.backup(), 1);
        let found = match self.client.list_uploads(&key) {
            Ok(found) => found,
            Err(failure) if failure.is_forbidden() || failure.is_not_supported() => return,
            Err(failure) => return self.ui.warning(&failure.describe()),
        };
        for upload in found.iter().filter(|upload| !keep.contains(&upload.upload_id.as_str())) {
            let open = Open { key: &upload.key, upload_id: &upload.upload_id, checksums: false };
            let ended = match self.client.list_parts(open) {
                Ok(Some(parts)) if parts.is_empty() => {
                    self.client.abort_multipart_upload(&upload.key, &upload.upload_id)
                }
                listed => listed.map(|_| ()),
            };
            if let Err(failure) = ended {
                self.ui.warning(&format!("an unfinished upload stays: {}", failure.describe()));
            }
        }
    }
}

fn not_there(key: &str) -> Failure {
    Failure::transport(format!("HEAD {key}"), "S3 does not show the object yet".to_string(), Kind::Transient)
}

fn another_object(key: &str) -> Error {
    Error::refused(format!("another object is at '{key}' already, and is left as it is"))
}

fn incomplete(why: &str) -> Error {
    Error::failed(format!("the record of the pending upload cannot be right: {why}"))
}
