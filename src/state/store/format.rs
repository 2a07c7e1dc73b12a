//! The contents of stored_snapshots.yml, and the checks that they must pass before anything is decided by
//! them. Pure.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::chain::Member;
use crate::model::backup::{Backup, Link, Point};
use crate::model::copy::{CopyName, Id};
use crate::model::keys;
use crate::model::manifest::text::newer_version;
use crate::model::manifest::{NEWEST, Stream, VERSION, check_version};
use crate::model::yaml;

/// The file as it was read: nothing in it is trusted yet.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    version: u32,
    endpoint: String,
    bucket: String,
    prefix: String,
    backups: Vec<Entry>,
    /// The number of backups, at the end of the file: a truncated file is recognized.
    count: usize,
}

/// The file's first lines.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u32,
    endpoint: String,
    bucket: String,
    prefix: String,
}

const LIST: &str = "backups:\n";

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
    pub fn size(&self) -> Option<u64> {
        self.stream.as_ref().map(|stream| stream.size)
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

    pub fn parse(text: &str) -> Result<Self, String> {
        let read: Unchecked = match parse_lines(text).map_or_else(|| yaml::from_str(text), Ok) {
            Ok(read) => read,
            Err(why) => return Err(newer_version(text).unwrap_or(why)),
        };
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

    /// One line a backup, in the flow style of YAML, which is JSON: for grep, and fast to read.
    pub fn to_yaml(&self) -> Result<String, String> {
        // nothing is written that could not be read again
        self.check()?;
        let header = Header {
            // what an older program can read, it shall
            version: if self.entries.iter().any(|entry| entry.kept) { NEWEST } else { VERSION },
            endpoint: self.endpoint.clone(),
            bucket: self.bucket.clone(),
            prefix: self.prefix.clone(),
        };
        let mut text = yaml::to_string(&header)?;
        text.push_str(if self.entries.is_empty() { "backups: []\n" } else { LIST });
        for entry in &self.entries {
            let json = serde_json::to_string(entry).map_err(|e| e.to_string())?;
            text.push_str(&format!("- {json}\n"));
        }
        text.push_str(&format!("count: {}\n", self.entries.len()));
        Ok(text)
    }

    /// Each backup may have one stored copy, whose keys must follow from its names and guids: an edited file
    /// must never lead a removal to another object.
    fn check(&self) -> Result<(), String> {
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

/// Reads the file in the form in which it is written, ten times as fast as a YAML parser. None: it was
/// edited, or is damaged.
fn parse_lines(text: &str) -> Option<Unchecked> {
    let (header, list) = text.split_once(LIST)?;
    let header: Header = yaml::from_str(header).ok()?;
    let (backups, count) = list.strip_suffix('\n')?.rsplit_once("\ncount: ")?;
    let backups = backups.split('\n').map(|line| serde_json::from_str(line.strip_prefix("- ")?).ok());
    Some(Unchecked {
        version: header.version,
        endpoint: header.endpoint,
        bucket: header.bucket,
        prefix: header.prefix,
        backups: backups.collect::<Option<Vec<Entry>>>()?,
        count: count.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let contents = Contents::parse(STORE).unwrap();
        assert_eq!(contents.entries[1].state, State::Removing);
        assert_eq!(
            contents.entries[0].keys(""),
            [
                "tank@b/0000000000000002-from-0000000000000001.yml",
                "tank@b/0000000000000002-from-0000000000000001.zfs"
            ]
        );
        assert_eq!(contents.entries[1].keys(""), ["tank@a"], "the older tool's");
        let written = contents.to_yaml().unwrap();
        assert_eq!(
            parse_lines(&written),
            Some(yaml::from_str(&written).unwrap()),
            "it is YAML, read either way"
        );
        assert!(parse_lines(STORE).is_none(), "an edited one is read as YAML only");
        for end in 0..written.len() - 1 {
            assert!(Contents::parse(&written[..end]).is_err(), "cut at byte {end}");
        }
        assert_eq!(Contents::parse(&written), Ok(contents));
        assert!(written.starts_with("version: 2\n"), "one of the version before is written anew");
        let empty = Contents::empty("https://x", "b", "p: #/");
        assert_eq!(Contents::parse(&empty.to_yaml().unwrap()), Ok(empty));
    }

    #[test]
    fn a_damaged_or_newer_store_is_never_empty() {
        let with = |from: &str, to: &str| {
            assert!(STORE.contains(from), "{from}");
            Contents::parse(&STORE.replacen(from, to, 1)).unwrap_err()
        };
        for (text, why) in [
            (String::new(), "missing field"),
            ("\0\0\0\0".to_string(), "control characters"),
            (STORE[..STORE.len() / 2].to_string(), ""),
        ] {
            let error = Contents::parse(&text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        for end in 0..STORE.trim_end().len() {
            assert!(Contents::parse(&STORE[..end]).is_err(), "cut at byte {end}");
        }
        assert!(with("count: 2", "count: 3").contains("a count of 3"));
        assert!(with("version: 1", "version: 4").contains("version 4"));
        assert!(with("version: 1", "version: 4\nnew: x").contains("version 4"));
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
        assert!(Contents::parse(&twice).is_ok(), "one is stored, and another is being removed");
        let stored = twice.replace("  state: removing\n", "");
        assert!(Contents::parse(&stored).unwrap_err().contains("twice"));
    }

    #[test]
    fn older_programs_read_all_but_a_store_with_a_kept_backup() {
        let mut contents = Contents::parse(STORE).unwrap();
        contents.entries[0].kept = true;
        let written = contents.to_yaml().unwrap();
        assert!(written.starts_with("version: 3\n"), "{written}");
        assert_eq!(Contents::parse(&written), Ok(contents));
    }

    #[test]
    fn a_copy_has_keys_of_its_own() {
        let with_id = STORE
            .replace("  stream:", "  id: 0000001f\n  stream:")
            .replace("0000000000000001.zfs", "0000000000000001-0000001f.zfs");
        let contents = Contents::parse(&with_id).unwrap();
        let keys = contents.entries[0].keys("");
        assert_eq!(keys[0], "tank@b/0000000000000002-from-0000000000000001-0000001f.yml");
        assert_eq!(Contents::parse(&contents.to_yaml().unwrap()), Ok(contents));
        let other = with_id.replace("id: 0000001f", "id: 0000002f");
        assert!(
            Contents::parse(&other).unwrap_err().contains("keys of its segments belong to another backup")
        );
    }
}
