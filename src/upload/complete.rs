//! Completes the objects of an upload, and checks them. What an earlier run has completed is found.

use std::collections::BTreeMap;

use super::Upload;
use super::expected::ExpectedObject;
use super::reconcile::agree;
use crate::error::{Error, Result};
use crate::model::digest::{Composite, Sha256};
use crate::model::keys;
use crate::model::manifest::Segment;
use crate::s3::calls::{CompletedPart, Head, MultipartUpload, Parts};
use crate::s3::reply::{Completion, ListedPart};
use crate::state::journal::record::{Begun, Completed, End, Intent, PartStored, Record, SegmentState};
use crate::state::journal::{self, Journal, RecordedParts};

const EQUAL_PARTS: &str =
    "compressed parts have different sizes, which not every server accepts: 'zfs2s3 doctor' checks that";

impl Upload {
    /// The segments, and the composite SHA-256 of all chunks as they are stored.
    pub(super) fn complete_all(
        &self,
        journal: &Journal,
        recorded: &RecordedParts,
        intent: &Intent,
        end: &End,
    ) -> Result<(Vec<Segment>, Sha256)> {
        let overview = journal::overview(&self.folder)?.ok_or_else(|| incomplete("it is gone"))?;
        let copy = intent.copy();
        let mut chunks_left = intent.chunking.chunks_of(end.size);
        let mut composite = Composite::default();
        let mut segments = Vec::new();
        for (number, (segment, state)) in (1..).zip(&overview.segments) {
            let parts = recorded.of(*segment)?;
            let wanted = chunks_left.min(u64::from(intent.chunking.parts_per_segment));
            let first = intent.chunking.first_of(*segment);
            let mut next = first;
            for part in parts.values().map(|part| part.chunks(&intent.chunking)) {
                next = if part.start == next { part.end } else { u64::MAX };
            }
            if *segment != number || next != first + wanted {
                return Err(incomplete(&format!("it lacks parts of segment {number}")));
            }
            if let Some(part) = parts.values().find(|part| !part.is_consistent(&intent.chunking, end.size)) {
                return Err(incomplete(&format!("part {} of segment {number} has another size", part.part)));
            }
            let expected = ExpectedObject::of(state, &parts)
                .ok_or_else(|| incomplete(&format!("it lacks the parts of segment {number}")))?;
            chunks_left -= wanted;
            let key = keys::segment(&intent.prefix, &copy, *segment);
            let completed = match &state.completed {
                Some(completed) => completed.clone(),
                None => {
                    let completed = self.complete(intent, *segment, &key, state, &parts, &expected)?;
                    if overview.rechunked || intent.filter.is_some() {
                        self.check_size(&key, &expected)?;
                    }
                    journal.add(&Record::Completed(completed.clone()))?;
                    completed
                }
            };
            let sums = parts.values().flat_map(PartStored::stored_sums);
            sums.for_each(|(sum, _)| composite.push(&sum));
            segments.push(Segment {
                key,
                size: expected.size,
                etag: completed.etag,
                checksum: completed.checksum,
            });
        }
        if chunks_left > 0 {
            return Err(incomplete("it lacks parts of the stream"));
        }
        Ok((segments, composite.sha256()))
    }

    /// Completes one segment. If the reply is lost after S3 has completed it, the object exists.
    fn complete(
        &self,
        intent: &Intent,
        segment: u32,
        key: &str,
        state: &SegmentState,
        parts: &BTreeMap<u16, PartStored>,
        expected: &ExpectedObject,
    ) -> Result<Completed> {
        let Begun::Multipart { upload_id, checksums } = &state.begun else {
            return Err(incomplete("its only chunk is not stored"));
        };
        let open = MultipartUpload { key, upload_id, checksums: *checksums };
        let pieces: Vec<CompletedPart> =
            parts.values().map(|p| (p.part, p.etag.as_str(), p.sha256)).collect();
        let by_head = |head: Head| Completed { segment, etag: head.etag, checksum: head.checksum };
        // another host may have the same key of version 1
        if intent.id.is_none()
            && let Some(head) = self.client.head_if_allowed(key)?
        {
            return if expected.matches(&head) { Ok(by_head(head)) } else { Err(another_object(key)) };
        }
        if intent.filter.is_some() && !*checksums {
            self.check_parts(open, parts)?;
        }
        let mut patience = self.client.patience();
        loop {
            let failure = match self.client.complete_multipart_upload_once(open, &pieces) {
                Ok(said) => return self.completed(segment, open, said, expected),
                Err(failure) => failure,
            };
            let ended = failure.is_missing();
            let words = failure.describe();
            if !ended {
                let is_about_sizes = ["length", "size"].iter().any(|word| failure.message.contains(word));
                let is_refused = failure.code == "InvalidPart" && is_about_sizes;
                patience.pause_after(failure).map_err(Error::from).map_err(|error| {
                    if is_refused && intent.filter.is_some() { error.hint(EQUAL_PARTS) } else { error }
                })?;
            }
            match self.client.head_if_allowed(key)? {
                Some(head) if expected.matches(&head) => return Ok(by_head(head)),
                _ if ended => {
                    return Err(Error::try_again(format!("S3 no longer knows the upload of {key}: {words}")));
                }
                _ => {}
            }
        }
    }

    /// Not every server compares the ETags of the parts, and a part of an earlier run that arrives late has
    /// other bytes.
    fn check_parts(&self, open: MultipartUpload, parts: &BTreeMap<u16, PartStored>) -> Result<()> {
        let listed = match self.client.list_parts(open) {
            Ok(Parts::Listed(listed)) => listed,
            Err(failure) if failure.may_pass() => return Err(failure.into()),
            // S3 refuses to complete what it does not know
            Ok(_) | Err(_) => return Ok(()),
        };
        let is_other = |there: &&ListedPart| {
            let part = parts.get(&there.part_number);
            !there.etag.is_empty() && part.is_some_and(|part| !agree(part, there))
        };
        match listed.iter().find(is_other).and_then(|there| parts.get(&there.part_number)) {
            None => Ok(()),
            Some(part) => Err(Error::try_again(format!(
                "part {} of '{}' has changed after it was sent",
                part.part, open.key
            ))),
        }
    }

    /// Does the object have no more than its parts?
    fn check_size(&self, key: &str, expected: &ExpectedObject) -> Result<()> {
        match self.client.head_if_allowed(key)? {
            Some(head) if head.size != expected.size => Err(Error::failed(format!(
                "the object '{key}' has {} bytes, not {}: the server has put more than the listed parts into it",
                head.size, expected.size
            ))),
            _ => Ok(()),
        }
    }

    /// The reply describes the object; if it is incomplete, HEAD does.
    fn completed(
        &self,
        segment: u32,
        open: MultipartUpload,
        said: Completion,
        expected: &ExpectedObject,
    ) -> Result<Completed> {
        let Completion { mut etag, mut checksum, .. } = said;
        if etag.is_empty() || (open.checksums && checksum.is_none()) {
            let head = self.client.head_if_allowed(open.key)?;
            (etag, checksum) = head.map_or((etag, checksum), |head| (head.etag, head.checksum));
        }
        if !expected.agrees(&etag, checksum.as_deref()) {
            return Err(Error::try_again(format!(
                "the object '{}' does not match its parts: its ETag is {etag}, its checksum {}, not {}",
                open.key,
                checksum.as_deref().unwrap_or("unknown"),
                expected.checksum()
            )));
        }
        Ok(Completed { segment, etag, checksum })
    }
}

pub(super) fn another_object(key: &str) -> Error {
    Error::refused(format!("another object has the key '{key}', and is left unchanged"))
}

pub(super) fn incomplete(why: &str) -> Error {
    Error::failed(format!("the journal of the pending upload is inconsistent: {why}"))
}
