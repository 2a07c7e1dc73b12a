//! Finds what S3 really has of an interrupted upload. S3 is authoritative about parts, the journal about the
//! stream.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering;

use super::Upload;
use super::complete::incomplete;
use super::expected::ExpectedObject;
use super::finish::removed_meanwhile;
use super::packing::StoredPart;
use super::transfer::{RecordedChunk, RecordedChunks};
use crate::error::Result;
use crate::model::keys;
use crate::s3::calls::{MultipartUpload, Parts};
use crate::s3::failure::FailureKind;
use crate::s3::reply::ListedPart;
use crate::state::journal::record::{Begun, Completed, Intent, Overview, PartStored, Record, SegmentState};
use crate::state::journal::{Journal, RecordedParts};

impl Upload {
    /// Drops the segments that must begin again from the overview.
    pub(super) fn reconcile(
        &self,
        journal: &Journal,
        mut overview: Overview,
    ) -> Result<(Overview, RecordedChunks)> {
        let intent = overview.intent.clone();
        let ids: Vec<&str> = overview.segments.values().filter_map(SegmentState::upload_id).collect();
        if let Err(error) = self.abort_strays(&intent, &ids) {
            // the upload can go on; at its end they are looked for again
            self.strays.store(true, Ordering::SeqCst);
            self.ui.warning(&error.message);
        }
        let recorded = RecordedParts::find(&self.folder)?;
        let mut known = RecordedChunks::default();
        let mut lost = Vec::new();
        for (segment, state) in &overview.segments {
            let parts = recorded.of(*segment)?;
            check_chunks(&intent, *segment, &parts)?;
            match self.parts_in_s3(journal, &intent, *segment, state, &parts)? {
                // the object existed: it is not made again, since another host may be removing it at this
                // moment
                None if state.completed.is_some() => return Err(removed_meanwhile(&intent)),
                None => lost.push(*segment),
                Some(stored) => add(&mut known, &intent, *segment, &parts, &stored),
            }
        }
        for segment in lost {
            overview.segments.remove(&segment);
            overview.end = None;
        }
        Ok((overview, known))
    }

    /// The numbers of the recorded parts that S3 has; none: the segment must begin again.
    fn parts_in_s3(
        &self,
        journal: &Journal,
        intent: &Intent,
        segment: u32,
        state: &SegmentState,
        parts: &BTreeMap<u16, PartStored>,
    ) -> Result<Option<HashSet<u16>>> {
        let key = keys::segment(&intent.prefix, &intent.copy(), segment);
        let mut not_supported = None;
        let mut unknown = None;
        if let (Begun::Multipart { upload_id, checksums }, None) = (&state.begun, &state.completed) {
            let open = MultipartUpload { key: &key, upload_id, checksums: *checksums };
            match self.client.list_parts(open) {
                Ok(Parts::Listed(listed)) => {
                    let same = listed
                        .iter()
                        .filter(|part| parts.get(&part.part_number).is_some_and(|p| agree(p, part)));
                    return Ok(Some(same.map(|part| part.part_number).collect()));
                }
                Ok(Parts::NoSuchUpload) => {}
                Ok(Parts::NotSupported(failure)) => not_supported = Some(failure),
                Err(failure) if failure.kind == FailureKind::Final => unknown = Some(failure),
                Err(failure) => return Err(failure.into()),
            }
        }
        // completed, perhaps by a run that was killed before recording it
        let expected = ExpectedObject::of(state, parts);
        match self.client.head_if_allowed(&key)? {
            Some(head) if expected.is_some_and(|expected| expected.matches(&head)) => {
                if state.completed.is_none() {
                    let completed = Completed { segment, etag: head.etag, checksum: head.checksum };
                    journal.add(&Record::Completed(completed))?;
                }
                Ok(Some(parts.keys().copied().collect()))
            }
            // the recorded hash still proves that the stream is the same
            _ if state.upload_id().is_none() && state.completed.is_none() => Ok(Some(HashSet::new())),
            _ => {
                match (unknown, not_supported) {
                    (Some(failure), _) => return Err(failure.into()),
                    (None, Some(failure)) => {
                        self.ui.warning(&format!(
                            "segment {segment} begins again, because its parts cannot be listed: {}",
                            failure.describe()
                        ));
                        if let Some(upload_id) = state.upload_id() {
                            self.abort_upload(&key, upload_id)?;
                        }
                    }
                    (None, None) if state.completed.is_none() => {
                        // S3 may be wrong, so it is looked for again at the end
                        self.strays.store(true, Ordering::SeqCst);
                        self.ui.warning(&format!(
                            "S3 no longer knows the upload of segment {segment}: it begins again"
                        ));
                    }
                    (None, None) => {}
                }
                Ok(None)
            }
        }
    }
}

/// Chunks that could not be in this segment would be waited for.
fn check_chunks(intent: &Intent, segment: u32, parts: &BTreeMap<u16, PartStored>) -> Result<()> {
    let first = intent.chunking.first_of(segment);
    let end = first + u64::from(intent.chunking.parts_per_segment);
    let is_odd = |part: &&PartStored| {
        let chunks = part.chunks(&intent.chunking);
        let is_within = first <= chunks.start && chunks.start < chunks.end && chunks.end <= end;
        !is_within || part.filtered.is_some() != intent.filter.is_some()
    };
    match parts.values().find(is_odd) {
        None => Ok(()),
        Some(part) => Err(incomplete(&format!("part {} of segment {segment} has other chunks", part.part))),
    }
}

pub(super) fn agree(recorded: &PartStored, listed: &ListedPart) -> bool {
    let sums_agree = listed.checksum_sha256.as_ref().is_none_or(|sum| *sum == recorded.sha256.base64());
    let etag = |text: &str| text.trim_matches('"').to_string();
    recorded.size == listed.size && etag(&recorded.etag) == etag(&listed.etag) && sums_agree
}

fn add(
    known: &mut RecordedChunks,
    intent: &Intent,
    segment: u32,
    parts: &BTreeMap<u16, PartStored>,
    stored: &HashSet<u16>,
) {
    known.expect(parts.len());
    for (number, part) in parts {
        let chunks = part.chunks(&intent.chunking);
        let is_stored = stored.contains(number);
        if is_stored && part.filtered.is_some() {
            let (first, end) = (chunks.start, chunks.end);
            known.parts.push(StoredPart { first, end, segment, number: *number });
        }
        for (index, sha256) in chunks.zip(part.plain_sums()) {
            known.add(index, RecordedChunk { sha256, stored: is_stored });
        }
    }
}
