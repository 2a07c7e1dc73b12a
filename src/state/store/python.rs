//! Reads the list of the older, Python zfs2s3, which had the same file name. Pure.
//!
//! Its YAML has type tags (`!S3BackupStructureDto`), and aliases (`*id001`) for a base that was named before.

use serde::Deserialize;

use super::format::{Entry, State};
use crate::model::backup::Point;
use crate::model::yaml;

pub const LIST_TAG: &str = "!S3BackupStructureDto";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Structure {
    backups: Vec<PythonBackup>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PythonBackup {
    snapshot: Point,
    base: Option<Point>,
}

pub fn is_python(text: &str) -> bool {
    text.trim_start().starts_with(LIST_TAG)
}

pub fn parse(text: &str) -> Result<Vec<Entry>, String> {
    let read: Structure = yaml::from_str(text)?;
    let entry = |b: PythonBackup| Entry {
        snapshot: b.snapshot,
        base: b.base,
        id: None,
        state: State::Stored,
        removal: None,
        kept: false,
        stream: None,
    };
    Ok(read.backups.into_iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_the_python_tool() {
        let text = include_str!("../../../tests/legacy/stored_snapshots.yml");
        assert!(is_python(text));
        let entries = parse(text).unwrap();
        let shown: Vec<String> = entries.iter().map(|e| e.backup().to_string()).collect();
        assert_eq!(shown, ["tank/src@s1", "-i tank/src@s1 tank/src@s2"]);
        assert_eq!(entries[1].base, Some(entries[0].snapshot.clone()), "the alias is followed");
        assert_eq!(entries[1].keys("ignored/"), ["tank/src@s2 <- tank/src@s1"]);
    }

    #[test]
    fn an_empty_or_damaged_list() {
        assert_eq!(parse("!S3BackupStructureDto\nbackups: []\n"), Ok(vec![]));
        assert!(parse("!S3BackupStructureDto\n").is_err());
        assert!(parse("!S3BackupStructureDto\nbackups:\n- 1\n").is_err());
        assert!(!is_python("version: 1\n"));
    }
}
