//! The contents of stored_snapshots.yml, and the checks that they must pass before anything is decided by
//! them. Pure.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::chain::Member;
use crate::model::backup::{Backup, Link, Point};
use crate::model::copy::{CopyName, Id};
use crate::model::keys;
use crate::model::manifest::text::newer_version;
use crate::model::manifest::{Stream, check_version};
use crate::model::yaml;

/// The file as it was read: nothing in it is trusted yet.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Unchecked {
    pub version: u32,
    pub endpoint: String,
    pub bucket: String,
    pub prefix: String,
    pub backups: Vec<Entry>,
    /// The number of backups, at the end of the file: a truncated file is recognized.
    pub count: usize,
}

/// A checked list of the backups in one bucket of one server, under one prefix.
#[derive(Clone, Debug, PartialEq)]
pub struct Contents {
    /// The URL of the server: a bucket of the same name elsewhere is another one.
    pub endpoint: String,
    pub bucket: String,
    pub prefix: String,
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub snapshot: Point,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Point>,
    /// Which copy of the backup in the bucket; none: one whose keys have no ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
    #[serde(default, skip_serializing_if = "State::is_stored")]
    pub state: State,
    /// During a removal: the nonce of this host's announcement in the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removal: Option<Id>,
    /// `keep` has marked it, as far as this host knows: what counts is the mark in the bucket.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
    /// None for a backup of the older Python tool, whose list has only names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<Stream>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    #[default]
    Stored,
    /// Its removal has begun; `remove` continues it.
    Removing,
}

impl State {
    fn is_stored(&self) -> bool {
        *self == State::Stored
    }
}

impl Entry {
    pub fn backup(&self) -> Backup {
        Backup { snapshot: self.snapshot.clone(), base: self.base.clone() }
    }
    pub fn link(&self) -> Link {
        Link { snapshot: self.snapshot.guid, base: self.base.as_ref().map(|base| base.guid) }
    }
    pub fn copy(&self) -> CopyName {
        CopyName { name: self.snapshot.name.clone(), link: self.link(), id: self.id }
    }
    /// The key of its manifest, or of its only object if the Python tool stored it.
    pub fn first_key(&self, prefix: &str) -> String {
        match &self.stream {
            None => keys::python(&self.backup()),
            Some(_) => keys::manifest(prefix, &self.copy()),
        }
    }
    /// All objects of this backup: the manifest first, as a removal deletes them.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let segments = self.stream.iter().flat_map(|stream| &stream.segments);
        std::iter::once(self.first_key(prefix)).chain(segments.map(|s| s.key.clone())).collect()
    }
    /// Bytes in the bucket, without the manifest.
    pub fn size(&self) -> Option<u64> {
        self.stream.as_ref().map(Stream::stored_size)
    }
    pub fn is_filtered(&self) -> bool {
        self.stream.as_ref().is_some_and(Stream::is_filtered)
    }
    /// The command that has filtered it.
    pub fn filter(&self) -> Option<&str> {
        self.stream.as_ref().and_then(|stream| stream.filter.as_deref())
    }
}

impl Contents {
    /// For the chain rule, by the store alone: as if all that are stored were whole.
    pub fn members(&self) -> Vec<Member> {
        let member = |entry: &Entry| Member {
            link: entry.link(),
            whole: entry.state == State::Stored,
            announced: false,
        };
        self.entries.iter().map(member).collect()
    }

    pub fn empty(endpoint: &str, bucket: &str, prefix: &str) -> Self {
        Contents {
            endpoint: endpoint.to_string(),
            bucket: bucket.to_string(),
            prefix: prefix.to_string(),
            entries: Vec::new(),
        }
    }

    /// Any form of the file, such as one that was edited.
    pub fn parse(text: &str) -> Result<Self, String> {
        let read: Result<Unchecked, String> = yaml::from_str(text);
        read.map_err(|why| newer_version(text).unwrap_or(why)).and_then(Self::checked)
    }

    pub(super) fn checked(read: Unchecked) -> Result<Self, String> {
        check_version(read.version)?;
        if read.count != read.backups.len() {
            return Err(format!("it has {} backups, but a count of {}", read.backups.len(), read.count));
        }
        let contents = Contents {
            endpoint: read.endpoint,
            bucket: read.bucket,
            prefix: read.prefix,
            entries: read.backups,
        };
        contents.check()?;
        Ok(contents)
    }

    /// Each backup may have one stored copy, whose keys must follow from its names and guids: an edited file
    /// must never lead a removal to another object.
    pub fn check(&self) -> Result<(), String> {
        let mut copies = HashSet::new();
        let mut stored = HashSet::new();
        for entry in &self.entries {
            let backup = entry.backup();
            let is_new = copies.insert((entry.link(), entry.id));
            if !is_new || (entry.state == State::Stored && !stored.insert(entry.link())) {
                return Err(format!("it has the backup '{backup}' twice"));
            }
            check_points(&backup)?;
            let Some(stream) = &entry.stream else { continue };
            stream.check_stages().map_err(|why| format!("the backup '{backup}': {why}"))?;
            let copy = entry.copy();
            let keys = (1..).map(|n| keys::segment(&self.prefix, &copy, n));
            if stream.segments.is_empty()
                || !stream
                    .segments
                    .iter()
                    .map(|s| &s.key)
                    .eq(keys.take(stream.segments.len()).collect::<Vec<_>>().iter())
            {
                return Err(format!(
                    "the backup '{backup}': the keys of its segments belong to another backup"
                ));
            }
        }
        Ok(())
    }
}

fn check_points(backup: &Backup) -> Result<(), String> {
    let check = |point: &Point, separators| {
        crate::model::names::check_point_name(&point.name, separators)
            .map_err(|why| format!("'{}' is not a name: {why}", point.name))
    };
    check(&backup.snapshot, "@")?;
    backup.base.as_ref().map_or(Ok(()), |base| check(base, "@#"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::store::file;
    use crate::state::store::file::tests::{parse, written};

    const STORE: &str = "\
version: 1
endpoint: https://s3.example.org
bucket: b
prefix: ''
backups:
- snapshot: {name: tank@b, guid: '2'}
  base: {name: tank@a, guid: '1'}
  stream:
    size: 7
    composite_sha256: 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881
    send_args: [--raw]
    stages: []
    chunk_size: 5242880
    storage_class: STANDARD
    stored: 2026-01-02T03:04:05Z
    segments:
    - {key: tank@b/0000000000000002-from-0000000000000001.zfs, size: 7, etag: e}
- snapshot: {name: tank@a, guid: '1'}
  state: removing
count: 2
";

    #[test]
    fn a_store_is_parsed_as_it_is_written() {
        let contents = parse(STORE).unwrap();
        assert_eq!(contents.entries[1].state, State::Removing);
        assert_eq!(
            contents.entries[0].keys(""),
            [
                "tank@b/0000000000000002-from-0000000000000001.yml",
                "tank@b/0000000000000002-from-0000000000000001.zfs"
            ]
        );
        assert_eq!(contents.entries[1].keys(""), ["tank@a"], "the older tool's");
        let text = written(&contents);
        assert_eq!(
            file::read(text.as_bytes()).unwrap(),
            Some(Contents::parse(&text)),
            "it is YAML, read either way"
        );
        assert!(file::read(STORE.as_bytes()).unwrap().is_none(), "an edited one is read as YAML only");
        for end in 0..text.len() - 1 {
            assert!(parse(&text[..end]).is_err(), "cut at byte {end}");
        }
        assert_eq!(parse(&text), Ok(contents));
        assert!(text.starts_with("version: 2\n"), "one of the version before is written anew");
        let empty = Contents::empty("https://x", "b", "p: #/");
        assert_eq!(parse(&written(&empty)), Ok(empty));
    }

    #[test]
    fn the_first_store_with_a_filtered_backup_is_read_and_written_as_it_was() {
        let text = include_str!("../../../tests/legacy/filtered/stored_snapshots.yml");
        let contents = parse(text).unwrap();
        assert_eq!(contents.entries[0].filter(), Some("gzip -1"));
        assert_eq!(written(&contents), text);
    }

    #[test]
    fn a_damaged_or_newer_store_is_never_empty() {
        let with = |from: &str, to: &str| {
            assert!(STORE.contains(from), "{from}");
            parse(&STORE.replacen(from, to, 1)).unwrap_err()
        };
        for (text, why) in [
            (String::new(), "missing field"),
            ("\0\0\0\0".to_string(), "control characters"),
            (STORE[..STORE.len() / 2].to_string(), ""),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        for end in 0..STORE.trim_end().len() {
            assert!(parse(&STORE[..end]).is_err(), "cut at byte {end}");
        }
        assert!(with("count: 2", "count: 3").contains("a count of 3"));
        assert!(with("version: 1", "version: 5").contains("version 5"));
        assert!(with("version: 1", "version: 5\nnew: x").contains("version 5"));
        assert!(with("bucket", "buckets").contains("buckets"));
        assert!(with("guid: '2'", "guid: 2.5e9").contains("guid"));
        assert!(with("guid: '2'", "guid: '0'").contains("guid"));
        assert!(
            with("tank@b/0000000000000002", "tank@x/0000000000000002")
                .contains("keys of its segments belong to another backup")
        );
        assert!(with("stages: []", "stages: [zstd]").contains("zstd"));
        assert!(with("name: tank@a", "name: ../x@a").contains("not a name"));
        let twice = STORE
            .replace("backups:", "backups:\n- snapshot: {name: tank@a, guid: '1'}\n  id: 0000001f")
            .replace("count: 2", "count: 3");
        assert!(parse(&twice).is_ok(), "one is stored, and another is being removed");
        let stored = twice.replace("  state: removing\n", "");
        assert!(parse(&stored).unwrap_err().contains("twice"));
    }

    #[test]
    fn older_programs_read_all_but_a_store_with_a_kept_backup() {
        let mut contents = parse(STORE).unwrap();
        contents.entries[0].kept = true;
        let text = written(&contents);
        assert!(text.starts_with("version: 3\n"), "{text}");
        assert_eq!(parse(&text), Ok(contents));
    }

    #[test]
    fn a_copy_has_keys_of_its_own() {
        let with_id = STORE
            .replace("  stream:", "  id: 0000001f\n  stream:")
            .replace("0000000000000001.zfs", "0000000000000001-0000001f.zfs");
        let contents = parse(&with_id).unwrap();
        let keys = contents.entries[0].keys("");
        assert_eq!(keys[0], "tank@b/0000000000000002-from-0000000000000001-0000001f.yml");
        assert_eq!(parse(&written(&contents)), Ok(contents));
        let other = with_id.replace("id: 0000001f", "id: 0000002f");
        assert!(parse(&other).unwrap_err().contains("keys of its segments belong to another backup"));
    }
}
