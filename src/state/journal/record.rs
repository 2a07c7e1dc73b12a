//! The records of upload_progress.yml: first the intent of the pending upload, then one record a step. Pure.
//!
//! Each record is one line, `- {"part":{…}}`: the file is a YAML list, and each line can be read on its own.
//! Later records override earlier ones: beginning a segment again drops its parts and the end of the stream.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::model::backup::{Backup, Point};
use crate::model::chunks::{Chunking, PartPosition, length_of_chunk};
use crate::model::copy::{CopyName, Id};
use crate::model::digest::Sha256;
use crate::model::object_lock::Retention;
use crate::model::storage_class::StorageClass;
use crate::model::utc::Utc;

/// The version that is written. Version 1 had no `id` and no `host`.
pub const VERSION: u32 = 2;
/// The version with a filter.
pub const FILTERED: u32 = 3;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    Intent(Box<Intent>),
    Segment(SegmentBegun),
    Single(SingleChunk),
    Part(PartStored),
    /// The server allows fewer parts an upload than assumed. Parts beyond that number, and later segments,
    /// are dropped.
    #[serde(rename = "cut")]
    Chunking(Chunking),
    End(End),
    Completed(Completed),
    Removal(Removal),
}

/// What is to be stored, where and how: everything that a resume needs. Written before anything else is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    pub version: u32,
    pub tool: String,
    pub endpoint: String,
    pub bucket: String,
    pub prefix: String,
    pub snapshot: Point,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Point>,
    /// The ID of this upload, which is in the keys and in the tag of the holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
    /// The name of the host, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(rename = "cut")]
    pub chunking: Chunking,
    pub storage_class: StorageClass,
    /// An Object Lock for each object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<Retention>,
    pub send_args: Vec<String>,
    /// The command that filters each chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Bytes, by `zfs send -nP`; only for the progress line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<u64>,
    pub begun: Utc,
}

/// S3 has given the segment an upload ID.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentBegun {
    pub segment: u32,
    pub upload_id: String,
    /// The server keeps the SHA-256 of each part.
    pub checksums: bool,
}

/// The stream has only this chunk, which is about to be stored as segment 1 by PutObject.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SingleChunk {
    /// Bytes.
    pub size: u64,
    pub sha256: Sha256,
}

/// S3 has confirmed a part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartStored {
    pub segment: u32,
    pub part: u16,
    /// Bytes.
    pub size: u64,
    pub etag: String,
    pub sha256: Sha256,
    /// Its chunks, if they are filtered. Any other part is one chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filtered: Option<FilteredChunks>,
}

/// Chunks in a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilteredChunks {
    /// The index of the first one.
    pub first: u64,
    pub chunks: Vec<FilteredChunk>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilteredChunk {
    /// Bytes, as it is stored.
    pub size: u64,
    pub sha256: Sha256,
    /// Of what was filtered: it proves that a resumed stream is the same.
    pub plain_sha256: Sha256,
}

impl FilteredChunks {
    pub fn indexes(&self) -> Range<u64> {
        self.first..self.first.saturating_add(self.chunks.len() as u64)
    }
}

impl PartStored {
    /// A single chunk, as a part without an ETag.
    pub fn single(SingleChunk { size, sha256 }: SingleChunk) -> Self {
        PartStored { segment: 1, part: 1, size, etag: String::new(), sha256, filtered: None }
    }

    /// Does it stay in the first segment with fewer parts?
    pub fn is_within(&self, chunking: &Chunking) -> bool {
        self.chunks(chunking).end <= u64::from(chunking.parts_per_segment)
    }

    /// Has it the size of its chunks? `stream`: bytes of the whole stream.
    pub fn is_consistent(&self, chunking: &Chunking, stream: u64) -> bool {
        let Some(FilteredChunks { chunks, .. }) = &self.filtered else {
            let index = self.chunks(chunking).start;
            return self.size == length_of_chunk(index, chunking.chunk_size, stream);
        };
        let size = chunks.iter().fold(0, |sum: u64, chunk| sum.saturating_add(chunk.size));
        size == self.size && !matches!(chunks[..], [only] if only.sha256 != self.sha256)
    }

    /// The indexes of its chunks.
    pub fn chunks(&self, chunking: &Chunking) -> Range<u64> {
        match &self.filtered {
            Some(filtered) => filtered.indexes(),
            None => {
                let index = chunking.index(PartPosition { segment: self.segment, part: self.part });
                index..index + 1
            }
        }
    }

    /// The SHA-256 of each chunk before it was filtered.
    pub fn plain_sums(&self) -> impl Iterator<Item = Sha256> {
        let only = self.filtered.is_none().then_some(self.sha256);
        only.into_iter().chain(self.filtered_chunks().map(|chunk| chunk.plain_sha256))
    }

    /// The SHA-256 of each chunk as it is stored, and its size if it is filtered.
    pub fn stored_sums(&self) -> impl Iterator<Item = (Sha256, Option<u64>)> {
        let only = self.filtered.is_none().then_some((self.sha256, None));
        only.into_iter().chain(self.filtered_chunks().map(|chunk| (chunk.sha256, Some(chunk.size))))
    }

    fn filtered_chunks(&self) -> impl Iterator<Item = &FilteredChunk> {
        self.filtered.iter().flat_map(|filtered| &filtered.chunks)
    }
}

/// The stream is complete (`zfs send` exited successfully, its last record was END), and all its parts are
/// stored. After [`SingleChunk`]: they are about to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// Bytes.
    pub size: u64,
    /// The time in the manifest, recorded so that writing the manifest again results in the same bytes.
    pub stored: Utc,
}

/// The object of the segment exists, and was checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Completed {
    pub segment: u32,
    pub etag: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
}

/// The removal of this upload is about to be announced. The announcement is withdrawn before the upload is
/// resumed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removal {
    pub nonce: Id,
}

impl Intent {
    /// S3 refuses a time that is past: an upload may be resumed after that.
    pub fn lock_at(&self, now: Utc) -> Option<Retention> {
        self.lock.filter(|lock| lock.until > now)
    }
    pub fn backup(&self) -> Backup {
        Backup { snapshot: self.snapshot.clone(), base: self.base.clone() }
    }
    pub fn copy(&self) -> CopyName {
        CopyName { name: self.snapshot.name.clone(), link: self.backup().link(), id: self.id }
    }
    /// Each upload has its own tag, so none releases the holds of another. Version 1 had one tag for all.
    pub fn hold_tag(&self) -> String {
        self.id.map_or("zfs2s3".to_string(), |id| format!("zfs2s3-{id}"))
    }
}

impl Record {
    pub fn to_line(&self) -> Result<String, String> {
        Ok(format!("- {}\n", serde_json::to_string(self).map_err(|e| e.to_string())?))
    }
    /// `line`: without its line feed.
    pub fn parse(line: &str) -> Result<Record, String> {
        let json = line.strip_prefix("- ").ok_or("not a list item")?;
        serde_json::from_str(json).map_err(|e| e.to_string())
    }
}

/// The sum of the records, without the parts, of which there may be many.
#[derive(Debug, PartialEq)]
pub struct Overview {
    pub intent: Intent,
    pub segments: BTreeMap<u32, SegmentState>,
    pub end: Option<End>,
    /// The nonce of this host's announcement, if one may be in the bucket.
    pub removal: Option<Id>,
    /// The multipart uploads may have parts that no longer belong to their segments.
    pub rechunked: bool,
}

#[derive(Debug, PartialEq)]
pub struct SegmentState {
    pub begun: Begun,
    pub completed: Option<Completed>,
}

/// How the object of a segment is made.
#[derive(Clone, Debug, PartialEq)]
pub enum Begun {
    Multipart {
        upload_id: String,
        /// The server keeps the SHA-256 of each part.
        checksums: bool,
    },
    /// By one PutObject: the stream has only one chunk.
    Single,
}

impl SegmentState {
    pub fn new(begun: Begun) -> Self {
        SegmentState { begun, completed: None }
    }
    /// None: it has no multipart upload.
    pub fn upload_id(&self) -> Option<&str> {
        match &self.begun {
            Begun::Multipart { upload_id, .. } => Some(upload_id),
            Begun::Single => None,
        }
    }
}

impl Overview {
    pub fn new(intent: Intent) -> Self {
        Overview { intent, segments: BTreeMap::new(), end: None, removal: None, rechunked: false }
    }

    /// Does the object of each segment exist?
    pub fn is_complete(&self) -> bool {
        self.segments.values().all(|state| state.completed.is_some())
    }

    pub fn add(&mut self, record: Record) -> Result<(), String> {
        match record {
            Record::Intent(_) => return Err("a second intent".to_string()),
            Record::Segment(begun) => {
                let SegmentBegun { segment, upload_id, checksums } = begun;
                let next = self.segments.last_key_value().map_or(1, |(last, _)| last.saturating_add(1));
                if !(1..=next).contains(&segment) {
                    return Err(format!("segment {segment} begins, and the next one is {next}"));
                }
                let state = SegmentState::new(Begun::Multipart { upload_id, checksums });
                self.segments.insert(segment, state);
                self.end = None;
            }
            Record::Single(_) => {
                self.segments = BTreeMap::from([(1, SegmentState::new(Begun::Single))]);
                self.end = None;
            }
            Record::Part(part) if !self.segments.contains_key(&part.segment) => {
                return Err(format!("it has a part of segment {}, which has not begun", part.segment));
            }
            Record::Part(part) => {
                let is_possible = (1..=self.intent.chunking.parts_per_segment).contains(&part.part)
                    && part.filtered.is_none_or(|filtered| !filtered.chunks.is_empty());
                if !is_possible {
                    return Err(format!(
                        "it has an impossible part {} of segment {}",
                        part.part, part.segment
                    ));
                }
            }
            Record::Chunking(chunking) => {
                chunking.check()?;
                if chunking.chunk_size != self.intent.chunking.chunk_size {
                    return Err("the size of its chunks changes".to_string());
                }
                self.intent.chunking = chunking;
                self.rechunked = true;
                self.segments.retain(|segment, _| *segment == 1);
                self.end = None;
            }
            Record::End(end) => self.end = Some(end),
            Record::Removal(removal) => self.removal = Some(removal.nonce),
            Record::Completed(completed) => match self.segments.get_mut(&completed.segment) {
                Some(state) => state.completed = Some(completed),
                None => return Err(format!("segment {} is complete, but was not begun", completed.segment)),
            },
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_record_is_one_line_of_yaml() {
        let part = PartStored {
            part: 7,
            etag: "\"e\"".into(),
            ..PartStored::single(SingleChunk { size: 5, sha256: Sha256::of(b"x") })
        };
        let line = Record::Part(part.clone()).to_line().unwrap();
        assert_eq!(
            line,
            "- {\"part\":{\"segment\":1,\"part\":7,\"size\":5,\"etag\":\"\\\"e\\\"\",\"sha256\":\
             \"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881\"}}\n"
        );
        assert_eq!(Record::parse(line.trim_end()), Ok(Record::Part(part)));
        let as_yaml: Vec<std::collections::BTreeMap<String, PartStored>> =
            crate::model::yaml::from_str(&line).unwrap();
        assert_eq!(as_yaml[0]["part"].part, 7);
        for bad in ["", "- ", "- {}", "- {\"part\":{}}", "{\"part\":1}", "- {\"later\":{}}", "\0\0\0"] {
            assert!(Record::parse(bad).is_err(), "{bad:?}");
        }
    }
}
