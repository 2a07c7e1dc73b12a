//! The manifest: the description of a stored stream. Pure.
//!
//! It is stored beside the data in the bucket; a backup exists when its manifest does. The store
//! (`state/store`) has the same without the list of chunks. `text` writes and reads it.

pub mod text;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::one_line;
use crate::model::backup::{Backup, Point};
use crate::model::digest::Sha256;
use crate::model::properties::Properties;
use crate::model::storage_class::StorageClass;
use crate::model::utc::Utc;

/// The version of a manifest and of a store: what an older program can read, it shall. Version 1 had no
/// `host`, and keys without the ID of an upload.
pub const VERSION: u32 = 2;
/// Of a manifest with `created` or `properties`, and of a store with a kept backup.
pub const DESCRIBED: u32 = 3;
/// Of a manifest of a filtered backup, and of a store with one.
pub const FILTERED: u32 = 4;
const NEWEST: u32 = FILTERED;
/// Bytes of a command.
const MAX_FILTER: usize = 1000;
/// The stage of a filtered backup.
const FILTER: &str = "filter";

/// Can this program read it?
pub fn check_version(version: u32) -> Result<(), String> {
    match version {
        1..=NEWEST => Ok(()),
        _ => Err(format!("it has version {version}, and this program knows versions 1 to {NEWEST}")),
    }
}

/// Why a manifest cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestError {
    /// A newer program wrote it.
    Newer(String),
    Invalid(String),
}

impl From<String> for ManifestError {
    fn from(why: String) -> Self {
        ManifestError::Invalid(why)
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ManifestError::Newer(why) | ManifestError::Invalid(why)) = self;
        f.write_str(why)
    }
}

/// The maximum length, in bytes, of a manifest for `data` bytes, even with chunks far smaller than S3 allows.
pub fn max_len(data: u64) -> u64 {
    // a filter may make chunks smaller than their lines
    (1u64 << 20).saturating_add(data)
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub version: u32,
    /// The program that wrote it: `zfs2s3 0.1.0`.
    pub tool: String,
    /// The name of the host that wrote it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    pub snapshot: Point,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Point>,
    /// When the snapshot was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Utc>,
    /// Those that were set on the dataset itself when the backup was stored.
    #[serde(default, skip_serializing_if = "Properties::is_empty")]
    pub properties: Properties,
    pub stream: Stream,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Bytes of what `zfs send` gave.
    pub size: u64,
    /// SHA-256 of the SHA-256s of all chunks in order, as they are stored.
    pub composite_sha256: Sha256,
    /// The arguments of `zfs send` without the names.
    pub send_args: Vec<String>,
    /// Transformations between `zfs send` and what is stored, in order: none, or `filter`. A reader refuses a
    /// stage that it does not know.
    pub stages: Vec<String>,
    /// The command that has filtered each chunk, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Bytes. All chunks but the last of the stream have exactly this size, before they are filtered. Each is
    /// one part of an upload; if they are filtered, one or more of them are.
    pub chunk_size: u64,
    pub storage_class: StorageClass,
    pub stored: Utc,
    pub segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    pub key: String,
    /// Bytes of the object.
    pub size: u64,
    pub etag: String,
    /// S3's composite SHA-256 of the parts (base64, `-`, their number), if the server keeps one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
}

impl Manifest {
    pub fn new(tool: &str, host: Option<&str>, backup: &Backup, stream: Stream) -> Self {
        Manifest {
            version: stream.version(),
            tool: tool.to_string(),
            host: host.map(str::to_string),
            snapshot: backup.snapshot.clone(),
            base: backup.base.clone(),
            created: None,
            properties: Properties::new(),
            stream,
        }
    }

    pub fn describe_snapshot(&mut self, created: Option<Utc>, properties: Properties) {
        let described = if created.is_none() && properties.is_empty() { VERSION } else { DESCRIBED };
        self.version = described.max(self.stream.version());
        (self.created, self.properties) = (created, properties);
    }

    /// Do both describe the same snapshot and base, and the same bytes in the same objects?
    pub fn is_of_the_same_data(&self, other: &Manifest) -> bool {
        let objects =
            |m: &Manifest| m.stream.segments.iter().map(|s| (s.key.clone(), s.size)).collect::<Vec<_>>();
        let data = |m: &Manifest| (m.stream.size, m.stream.composite_sha256, m.stream.chunk_size);
        let guids = |m: &Manifest| (m.snapshot.guid, m.base.as_ref().map(|base| base.guid));
        guids(self) == guids(other) && data(self) == data(other) && objects(self) == objects(other)
    }
}

impl Stream {
    /// Refuses a stream that this version cannot turn back into the output of `zfs send`.
    pub fn check_stages(&self) -> Result<(), String> {
        if let Some((_, stage)) = self.stages.iter().enumerate().find(|(n, stage)| *n > 0 || *stage != FILTER)
        {
            return Err(format!("it has a stage '{stage}', which this version does not know"));
        }
        match &self.filter {
            Some(_) if !self.is_filtered() => Err("it has a filter, but no such stage".to_string()),
            Some(filter) => check_filter(filter),
            None if self.is_filtered() => Err("it does not name its filter".to_string()),
            None => Ok(()),
        }
    }

    pub fn is_filtered(&self) -> bool {
        !self.stages.is_empty()
    }

    /// The least version that knows it.
    pub fn version(&self) -> u32 {
        if self.is_filtered() { FILTERED } else { VERSION }
    }

    /// Bytes of all segments together.
    pub fn stored_size(&self) -> u64 {
        self.segments.iter().fold(0, |sum, segment| sum.saturating_add(segment.size))
    }
}

/// The command of a filter is shown to people.
pub fn check_filter(command: &str) -> Result<(), String> {
    if command.len() > MAX_FILTER || one_line(command) != command {
        return Err(format!(
            "a filter must be one line of at most {MAX_FILTER} bytes; a script may have more"
        ));
    }
    Ok(())
}

/// The stages of a backup whose chunks this command has filtered.
pub fn stages(filter: Option<&str>) -> Vec<String> {
    filter.iter().map(|_| FILTER.to_string()).collect()
}
