//! What is written down about a stored stream. Pure.
//!
//! The manifest lies beside the data in the bucket and says all about them; a backup exists when its
//! manifest does. The store (src/store) keeps the same without the list of chunks.

use serde::{Deserialize, Serialize};

use crate::backup::{Backup, Point};
use crate::chunks::MAX_CHUNK;
use crate::digest::{Composite, Sha256};
use crate::utc::Utc;
use crate::yaml;

/// A reader refuses any other.
pub const VERSION: u32 = 1;

/// No manifest of so many bytes of data is larger, even with chunks far smaller than S3 allows. Bytes.
pub fn largest(data: u64) -> u64 {
    (1 << 20) + data / 32
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub version: u32,
    /// Which program wrote it: `zfs2s3 0.1.0`.
    pub tool: String,
    pub snapshot: Point,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Point>,
    pub stream: Stream,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Bytes, of all segments together.
    pub size: u64,
    /// SHA-256 of the SHA-256s of all chunks in order.
    pub composite_sha256: Sha256,
    /// The arguments of `zfs send` but for the names.
    pub send_args: Vec<String>,
    /// What was done to the stream between `zfs send` and the chunks, in order. Empty as yet: for later
    /// versions (compression, encryption). A reader that finds one it does not know refuses.
    pub stages: Vec<String>,
    /// Bytes; each chunk is one part, and each but the stream's last has just this size.
    pub chunk_size: u64,
    pub storage_class: String,
    pub stored: Utc,
    pub segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    pub key: String,
    pub size: u64,
    pub etag: String,
    /// S3's composite SHA-256 of the parts (base64, `-`, their number), where the server keeps one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// In the manifest only: each chunk's SHA-256 in hex, one a line, in order. One YAML scalar, since a list would
    /// take twenty times the memory to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunks: Option<String>,
}

impl Manifest {
    pub fn new(tool: &str, backup: &Backup, stream: Stream) -> Self {
        Manifest {
            version: VERSION,
            tool: tool.to_string(),
            snapshot: backup.snapshot.clone(),
            base: backup.base.clone(),
            stream,
        }
    }

    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        yaml::from_str(std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?)
    }

    /// Checks what a manifest says against itself: that this version can read the stream, and that the chunks are as many as each
    /// segment has, and the ones that its composite SHA-256 is of. Gives each segment's chunks, in order.
    pub fn checked_chunks(&self) -> Result<Vec<Vec<Sha256>>, String> {
        if self.version != VERSION {
            return Err(format!(
                "it is of version {}, and this program knows version {VERSION}",
                self.version
            ));
        }
        let stream = &self.stream;
        stream.check_stages()?;
        if !(1..=MAX_CHUNK).contains(&stream.chunk_size) {
            return Err(format!("its chunks are of {} bytes", stream.chunk_size));
        }
        let mut composite = Composite::default();
        let mut all = Vec::with_capacity(stream.segments.len());
        let mut size: u64 = 0;
        for segment in &stream.segments {
            let lines = segment.chunks.as_deref().unwrap_or_default().lines();
            let chunks = lines.map(str::parse).collect::<Result<Vec<Sha256>, String>>()?;
            if chunks.len() as u64 != segment.size.div_ceil(stream.chunk_size) {
                return Err(format!("its chunks of {} are not as many as the object has", segment.key));
            }
            chunks.iter().for_each(|sum| composite.push(sum));
            size = size.checked_add(segment.size).ok_or("its sizes are too large")?;
            all.push(chunks);
        }
        if all.is_empty() || size != stream.size {
            return Err("its segments do not add up to the stream".to_string());
        }
        if composite.sha256() != stream.composite_sha256 {
            return Err("its list of chunks is not the one that its composite SHA-256 is of".to_string());
        }
        Ok(all)
    }

    /// Of the same snapshot and base, and the same bytes in the same objects.
    pub fn is_of_the_same_data(&self, other: &Manifest) -> bool {
        let objects =
            |m: &Manifest| m.stream.segments.iter().map(|s| (s.key.clone(), s.size)).collect::<Vec<_>>();
        let data = |m: &Manifest| (m.stream.size, m.stream.composite_sha256, m.stream.chunk_size);
        let guids = |m: &Manifest| (m.snapshot.guid, m.base.as_ref().map(|base| base.guid));
        guids(self) == guids(other) && data(self) == data(other) && objects(self) == objects(other)
    }
}

impl Stream {
    /// As the store keeps it.
    pub fn without_chunks(mut self) -> Self {
        self.segments.iter_mut().for_each(|segment| segment.chunks = None);
        self
    }
    /// Refuses what this version cannot turn back into what `zfs send` gave.
    pub fn check_stages(&self) -> Result<(), String> {
        match self.stages.first() {
            None => Ok(()),
            Some(stage) => Err(format!("it has a stage '{stage}', which this version does not know")),
        }
    }
}

/// The lines of [`Segment::chunks`].
pub fn chunk_lines(chunks: &[Sha256]) -> String {
    chunks.iter().fold(String::with_capacity(chunks.len() * 65), |mut text, sum| {
        use std::fmt::Write;
        let _ = writeln!(text, "{sum}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Guid;
    use crate::yaml;

    fn example() -> Manifest {
        let point = |name: &str, guid| Point { name: name.to_string(), guid: Guid::new(guid).unwrap() };
        let chunks = [Sha256::of(b"one"), Sha256::of(b"two")];
        let backup = Backup {
            snapshot: point("tank/home@jan-02", u64::MAX),
            base: Some(point("tank/home#jan-01", 10)),
        };
        let stream = Stream {
            size: 6,
            composite_sha256: Sha256::of(b"x"),
            send_args: vec!["--raw".to_string()],
            stages: vec![],
            chunk_size: 5 << 20,
            storage_class: "STANDARD".to_string(),
            stored: "2026-01-02T03:04:05Z".to_string().try_into().unwrap(),
            segments: vec![Segment {
                key: "k".to_string(),
                size: 6,
                etag: "\"abc-2\"".to_string(),
                checksum: None,
                chunks: Some(chunk_lines(&chunks)),
            }],
        };
        Manifest::new("zfs2s3 0.1.0", &backup, stream)
    }

    #[test]
    fn written_so_that_a_person_and_a_later_version_can_read_it() {
        let text = yaml::to_string(&example()).unwrap();
        let expected = "\
version: 1
tool: zfs2s3 0.1.0
snapshot:
  name: tank/home@jan-02
  guid: '18446744073709551615'
base:
  name: tank/home#jan-01
  guid: '10'
stream:
  size: 6
  composite_sha256: 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881
  send_args:
  - --raw
  stages: []
  chunk_size: 5242880
  storage_class: STANDARD
  stored: 2026-01-02T03:04:05Z
  segments:
  - key: k
    size: 6
    etag: '\"abc-2\"'
    chunks: |
      7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed
      3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3
";
        assert_eq!(text, expected);
        assert_eq!(yaml::from_str::<Manifest>(&text), Ok(example()));
    }

    #[test]
    fn a_stage_or_a_field_of_a_later_version_is_refused() {
        let mut manifest = example();
        manifest.stream.stages.push("zstd".to_string());
        assert!(manifest.stream.check_stages().unwrap_err().contains("zstd"));
        let text = yaml::to_string(&example()).unwrap() + "later: 1\n";
        assert!(yaml::from_str::<Manifest>(&text).unwrap_err().contains("later"));
    }
}
