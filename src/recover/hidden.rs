//! Backups that delete markers hide, in a bucket that keeps versions: `remove` leaves that, and so does any
//! other program that deletes objects. Nothing is lost until a lifecycle rule removes the older versions.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/DeleteMarker.html>

use std::collections::BTreeMap;

use crate::error::one_line;
use crate::model::copy::CopyName;
use crate::model::keys::{self, ObjectKind};
use crate::model::shell::delete_version;
use crate::model::units::{count, human_size};
use crate::s3::client::Client;
use crate::s3::reply::Version;
use crate::state::store::format::{Contents, State};
use crate::ui::Ui;

/// A copy, some of whose objects are hidden.
#[derive(Debug, PartialEq)]
struct HiddenCopy {
    copy: CopyName,
    /// Of the hidden versions.
    bytes: u64,
    /// When it was hidden, as S3 writes it.
    since: String,
    /// The key and the version of each delete marker.
    markers: Vec<(String, String)>,
}

/// Reports them. `all`: with the commands that bring them back, also those that are not in the store.
pub fn report(client: &Client, contents: &Contents, all: bool, ui: &Ui) {
    let is_ours = |version: &Version| keys::parse(&contents.prefix, &version.key).is_some();
    let versions = match client.list_versions(&contents.prefix, is_ours) {
        Ok(versions) => versions,
        // a server without versions
        Err(failure) if failure.has_no_such_call() || failure.is_not_supported() => return,
        Err(failure) if failure.says_forbidden() => {
            if all {
                ui.note(
                    "these credentials may not list versions (s3:ListBucketVersions), so backups that were deleted from a \
                     bucket with versions are not shown",
                );
            }
            return;
        }
        Err(failure) => return ui.warning(&format!("versions could not be listed: {}", failure.describe())),
    };
    let (mut others, mut bytes) = (0u64, 0u64);
    for hidden in hidden_copies(&contents.prefix, versions) {
        let entry = contents.entries.iter().find(|entry| entry.copy() == hidden.copy);
        if entry.is_some_and(|entry| entry.state == State::Removing) {
            // its removal is under way
            continue;
        }
        if entry.is_none() && !all {
            others += 1;
            bytes = bytes.saturating_add(hidden.bytes);
            continue;
        }
        let (size, since) = (human_size(hidden.bytes), one_line(&hidden.since));
        let words = format!(
            "deleted from the bucket ({since}); older versions are kept there, and these commands bring it back:"
        );
        match entry {
            Some(entry) => {
                ui.warning(&format!("'{}' ({size}) is in the store, but was {words}", entry.backup()));
            }
            None => ui.note(&format!("a backup of {} ({size}) was {words}", hidden.copy.name)),
        }
        show_commands(contents, &hidden, ui);
    }
    if others > 0 {
        ui.note(&format!(
            "the bucket keeps older versions of {} ({}): 'zfs2s3 recover -n' shows them",
            count(others, "deleted backup"),
            human_size(bytes)
        ));
    }
}

/// Reports one copy, if delete markers hide an object of it.
pub fn report_copy(client: &Client, contents: &Contents, copy: &CopyName, ui: &Ui) {
    let is_its =
        |version: &Version| keys::parse(&contents.prefix, &version.key).is_some_and(|it| it.copy == *copy);
    // without versions there is nothing to report
    let Ok(versions) = client.list_versions(&keys::stem(&contents.prefix, copy), is_its) else { return };
    for hidden in hidden_copies(&contents.prefix, versions) {
        ui.note(&format!(
            "it was deleted from the bucket ({}); older versions are kept there, and these commands bring it back:",
            one_line(&hidden.since)
        ));
        show_commands(contents, &hidden, ui);
    }
}

fn show_commands(contents: &Contents, hidden: &HiddenCopy, ui: &Ui) {
    for (key, version) in &hidden.markers {
        match delete_version(&contents.bucket, key, version) {
            Some(command) => ui.note(&format!("  {command}")),
            None => ui.note(&format!("  (delete the delete marker of '{}' by other means)", one_line(key))),
        }
    }
}

/// One key, over all its versions.
#[derive(Default)]
struct KeyVersions {
    is_hidden: bool,
    /// The delete markers. Those that are not the latest hide nothing, and can be deleted as well.
    markers: Vec<Version>,
    /// The newest version that is no marker.
    newest: Option<Version>,
}

/// The copies of which an object is hidden, and that would be whole without the delete markers, as far as is
/// known.
fn hidden_copies(prefix: &str, versions: Vec<Version>) -> Vec<HiddenCopy> {
    let mut copies: BTreeMap<CopyName, BTreeMap<ObjectKind, KeyVersions>> = BTreeMap::new();
    for version in versions {
        let Some(parsed) = keys::parse(prefix, &version.key) else { continue };
        if matches!(parsed.kind, ObjectKind::Removing(_) | ObjectKind::Keep(_)) {
            continue;
        }
        let key = copies.entry(parsed.copy).or_default().entry(parsed.kind).or_default();
        key.is_hidden |= version.is_marker && version.is_latest;
        if version.is_marker {
            key.markers.push(version);
        } else {
            // versions come from the latest to the oldest
            key.newest.get_or_insert(version);
        }
    }
    let hidden = |(copy, keys): (CopyName, BTreeMap<ObjectKind, KeyVersions>)| {
        let is_kept = |kind| keys.get(&kind).is_some_and(|key| key.newest.is_some());
        if !is_kept(ObjectKind::Manifest) || !is_kept(ObjectKind::Segment(1)) {
            return None;
        }
        let mut found = HiddenCopy { copy, bytes: 0, since: String::new(), markers: vec![] };
        for key in keys.into_values().filter(|key| key.is_hidden) {
            let Some(newest) = key.newest else { continue };
            found.bytes = found.bytes.saturating_add(newest.size);
            if let Some(latest) = key.markers.iter().find(|marker| marker.is_latest) {
                found.since = found.since.max(latest.modified.clone());
            }
            found.markers.extend(key.markers.into_iter().map(|marker| (marker.key, marker.version_id)));
        }
        (!found.markers.is_empty()).then_some(found)
    };
    copies.into_iter().filter_map(hidden).collect()
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
    fn a_copy_is_hidden_if_one_of_its_objects_is() {
        let gone =
            format!("D {ONE}.yml, K {ONE}.yml 10, D {ONE}.zfs, K {ONE}.zfs 700, D {ONE}.removing-00000001");
        assert_eq!(hidden(&gone), [("tank/a@1".to_string(), 710, "t2".to_string(), 2)]);
        let only_data = format!("K {ONE}.yml 10, D {ONE}.zfs, K {ONE}.zfs 700");
        assert_eq!(hidden(&only_data), [("tank/a@1".to_string(), 700, "t1".to_string(), 1)]);
        let purged = format!("D {ONE}.yml, K {ONE}.yml 10, D {ONE}.zfs");
        assert_eq!(hidden(&purged), [], "its data have no older version");
        let twice = format!("D {ONE}.yml, D {ONE}.yml, K {ONE}.yml 10, K {ONE}.zfs 700");
        assert_eq!(hidden(&twice), [("tank/a@1".to_string(), 10, "t0".to_string(), 2)]);
        let there_again = format!("K {ONE}.yml 10, D {ONE}.yml, K {ONE}.yml 9, K {ONE}.zfs 700");
        assert_eq!(hidden(&there_again), []);
        let expired = format!("D {ONE}.yml, D {ONE}.zfs, K {ONE}.zfs 700");
        assert_eq!(hidden(&expired), [], "its manifest has no older version");
        let data_there = format!("D {ONE}.yml, K {ONE}.yml 10, K {ONE}.zfs 700");
        assert_eq!(hidden(&data_there), [("tank/a@1".to_string(), 10, "t0".to_string(), 1)]);
    }
}
