//! Backups that delete markers hide, in a bucket that keeps versions: `remove` leaves that, and so does any
//! other program that deletes objects. Nothing is lost until a lifecycle rule removes the older versions.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/DeleteMarker.html>

use std::collections::BTreeMap;

use crate::model::copy::CopyName;
use crate::model::keys::{self, ObjectKind};
use crate::model::shell::delete_version;
use crate::model::units::{count, human_size};
use crate::s3::client::Client;
use crate::s3::failure::FailureKind;
use crate::s3::reply::Version;
use crate::state::store::format::Contents;
use crate::ui::Ui;

/// A copy whose manifest is hidden.
#[derive(Debug, PartialEq)]
struct HiddenCopy {
    copy: CopyName,
    /// Of the hidden versions.
    bytes: u64,
    /// When its manifest was hidden, as S3 writes it.
    since: String,
    /// The key and the version of each delete marker.
    markers: Vec<(String, String)>,
}

/// Reports them. `all`: with the commands that bring them back, also those that are not in the store.
pub fn report(client: &Client, contents: &Contents, all: bool, ui: &Ui) {
    let versions = match client.list_versions(&contents.prefix) {
        Ok(versions) => versions,
        // a server without versions, or credentials that may not list them
        Err(failure) if failure.kind == FailureKind::Final => return,
        Err(failure) => return ui.warning(&format!("versions could not be listed: {}", failure.describe())),
    };
    let (mut others, mut bytes) = (0u64, 0u64);
    for hidden in hidden_copies(&contents.prefix, versions) {
        let HiddenCopy { copy, since, markers, .. } = &hidden;
        let size = human_size(hidden.bytes);
        let entry = contents.entries.iter().find(|entry| entry.copy() == *copy);
        let commands = || {
            for (key, version) in markers {
                ui.note(&format!("  {}", delete_version(&contents.bucket, key, version)));
            }
        };
        match entry {
            Some(entry) => {
                ui.warning(&format!(
                    "'{}' ({size}) is in the store, but was deleted from the bucket ({since}); older versions are kept there, \
                     and these commands bring it back:",
                    entry.backup()
                ));
                commands();
            }
            None if all => {
                ui.note(&format!(
                    "a backup of {} ({size}) was deleted from the bucket ({since}); older versions are kept there, and these \
                     commands bring it back:",
                    copy.name
                ));
                commands();
            }
            None => {
                others += 1;
                bytes = bytes.saturating_add(hidden.bytes);
            }
        }
    }
    if others > 0 {
        ui.note(&format!(
            "the bucket keeps older versions of {} ({}): 'zfs2s3 recover -n' shows them",
            count(others, "deleted backup"),
            human_size(bytes)
        ));
    }
}

/// The copies whose manifest's latest version is a delete marker, and that have an older one.
fn hidden_copies(prefix: &str, versions: Vec<Version>) -> Vec<HiddenCopy> {
    let mut by_key: BTreeMap<String, Vec<Version>> = BTreeMap::new();
    for version in versions {
        by_key.entry(version.key.clone()).or_default().push(version);
    }
    let mut copies: BTreeMap<CopyName, HiddenCopy> = BTreeMap::new();
    let mut with_manifest: Vec<CopyName> = Vec::new();
    for (key, versions) in by_key {
        let Some(parsed) = keys::parse(prefix, &key) else { continue };
        let marker = versions.iter().find(|version| version.is_latest && version.is_marker);
        // versions come from the latest to the oldest
        let hidden = versions.iter().find(|version| !version.is_marker);
        let (Some(marker), Some(hidden)) = (marker, hidden) else { continue };
        if matches!(parsed.kind, ObjectKind::Removing(_)) {
            continue;
        }
        let copy = copies.entry(parsed.copy.clone()).or_insert_with(|| HiddenCopy {
            copy: parsed.copy.clone(),
            bytes: 0,
            since: String::new(),
            markers: vec![],
        });
        copy.bytes = copy.bytes.saturating_add(hidden.size);
        copy.markers.push((key, marker.version_id.clone()));
        if parsed.kind == ObjectKind::Manifest {
            copy.since = marker.modified.clone();
            with_manifest.push(parsed.copy);
        }
    }
    with_manifest.into_iter().filter_map(|copy| copies.remove(&copy)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `K key size`: a version; `D key`: a delete marker; the first of each key is the latest.
    fn versions(text: &str) -> Vec<Version> {
        let mut seen = Vec::new();
        let version = |(n, line): (usize, &str)| {
            let words: Vec<&str> = line.split(' ').collect();
            let key = format!("p/tank/a@{}", words[1]);
            let is_latest = !seen.contains(&key);
            seen.push(key.clone());
            Version {
                key,
                version_id: format!("v{n}"),
                is_latest,
                is_marker: words[0] == "D",
                size: words.get(2).map_or(0, |size| size.parse().unwrap()),
                modified: format!("t{n}"),
            }
        };
        text.split(", ").enumerate().map(version).collect()
    }

    fn hidden(text: &str) -> Vec<(String, u64, String, usize)> {
        let copies = hidden_copies("p/", versions(text));
        copies.into_iter().map(|c| (c.copy.name, c.bytes, c.since, c.markers.len())).collect()
    }

    const ONE: &str = "1/0000000000000001-full-0000000a";

    #[test]
    fn a_copy_is_hidden_if_its_manifest_is() {
        let gone =
            format!("D {ONE}.yml, K {ONE}.yml 10, D {ONE}.zfs, K {ONE}.zfs 700, D {ONE}.removing-00000001");
        assert_eq!(hidden(&gone), [("tank/a@1".to_string(), 710, "t0".to_string(), 2)]);
        let only_data = format!("K {ONE}.yml 10, D {ONE}.zfs, K {ONE}.zfs 700");
        assert_eq!(hidden(&only_data), []);
        let there_again = format!("K {ONE}.yml 10, D {ONE}.yml, K {ONE}.yml 9, K {ONE}.zfs 700");
        assert_eq!(hidden(&there_again), []);
        let expired = format!("D {ONE}.yml, D {ONE}.zfs, K {ONE}.zfs 700");
        assert_eq!(hidden(&expired), [], "its manifest has no older version");
        let data_there = format!("D {ONE}.yml, K {ONE}.yml 10, K {ONE}.zfs 700");
        assert_eq!(hidden(&data_there), [("tank/a@1".to_string(), 10, "t0".to_string(), 1)]);
    }
}
