//! zfs on this host: its version, the rights of its user, holds that were left behind, and whether the next
//! incremental backup has a base.

use std::collections::{BTreeMap, HashSet};

use super::contents::Pending;
use super::report::Finding;
use super::rights;
use super::zfs_faults;
use crate::error::{Error, Result};
use crate::model::copy::Id;
use crate::model::names::{Guid, dataset_of};
use crate::model::shell::quoted;
use crate::model::units::first_of;
use crate::state::store::Folder;
use crate::state::store::format::{Contents, State};
use crate::zfs::Zfs;
use crate::zfs::inspect::{DatasetInfo, PointInfo, User};

/// How the tags of the holds of uploads begin.
const TAG: &str = "zfs2s3-";
/// The rights of so many datasets are looked at.
const LOOKED_AT: usize = 50;
/// How many of a kind are named.
const NAMED: usize = 5;

/// `datasets`: those of this host.
pub fn check(
    zfs: &Zfs,
    datasets: &[DatasetInfo],
    contents: Option<&Contents>,
    folder: &Folder,
    findings: &mut Vec<Finding>,
) {
    let encrypted = datasets.iter().filter(|dataset| dataset.is_encrypted).count();
    match zfs.version() {
        Ok(version) => findings.extend(zfs_faults::judge(version.as_deref(), encrypted)),
        // a wrapper may permit only what zfs2s3 needs
        Err(error) => findings.push(not_checked("zfs", &error)),
    }
    let here: HashSet<&str> = datasets.iter().map(|dataset| dataset.name.as_str()).collect();
    let entries = contents.map(|contents| contents.entries.as_slice()).unwrap_or_default();
    let mut backed_up: BTreeMap<&str, HashSet<Guid>> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.state == State::Stored) {
        let dataset = dataset_of(&entry.snapshot.name);
        if here.contains(dataset) {
            backed_up.entry(dataset).or_default().insert(entry.snapshot.guid);
        }
    }
    findings.push(rights_of_user(zfs, datasets, &backed_up));
    match zfs.all_points() {
        Ok(points) => {
            findings.push(holds_left(zfs, &points, folder));
            findings.extend(bases(&points, &backed_up));
        }
        Err(error) => findings.push(not_checked("holds", &error)),
    }
}

fn not_checked(check: &str, error: &Error) -> Finding {
    let finding = Finding::warning(check, format!("not checked: {}", error.message));
    let finding = error.hints.iter().cloned().fold(finding, Finding::hint);
    if finding.hints.is_empty() {
        finding.hint("check that the command in ZFS2S3_ZFS can do this")
    } else {
        finding
    }
}

fn rights_of_user(zfs: &Zfs, datasets: &[DatasetInfo], backed_up: &BTreeMap<&str, HashSet<Guid>>) -> Finding {
    const CHECK: &str = "zfs allow";
    let user = match zfs.user() {
        Ok(user) if user.is_root => {
            return Finding::ok(CHECK, "zfs runs as root, so everything is permitted");
        }
        Ok(user) => user,
        Err(error) => {
            let why = format!("not checked, because it is unknown which user zfs runs as: {error}");
            return Finding::warning(CHECK, why)
                .hint("run it as root, or grant the permissions that SECURITY in the man page lists");
        }
    };
    // before the first backup, any dataset may be the one
    let is_looked_at =
        |dataset: &&DatasetInfo| backed_up.is_empty() || backed_up.contains_key(dataset.name.as_str());
    let looked_at: Vec<&DatasetInfo> = datasets.iter().filter(is_looked_at).take(LOOKED_AT).collect();
    let names: Vec<&str> = looked_at.iter().map(|dataset| dataset.name.as_str()).collect();
    match missing_rights(zfs, &looked_at, &user) {
        Ok((lacking, restore)) if lacking.is_empty() => {
            let also = if restore { "upload and restore" } else { "upload" };
            Finding::ok(CHECK, format!("user {} is permitted to {also} {}", user.name, some(&names)))
        }
        Ok((lacking, _)) if backed_up.is_empty() && lacking.len() < names.len() => {
            let may: Vec<&str> = names.iter().copied().filter(|name| !lacking.contains(name)).collect();
            Finding::ok(CHECK, format!("user {} is permitted to upload {}", user.name, some(&may)))
        }
        Ok(_) if backed_up.is_empty() => Finding::warning(
            CHECK,
            format!("user {} is not permitted to upload any of {}", user.name, some(&names)),
        )
        .hint(format!("zfs allow -u {} send,hold,release DATASET", quoted(&user.name))),
        Ok((lacking, _)) => {
            let message = format!("user {} is not permitted to upload {}", user.name, some(&lacking));
            let finding = Finding::error(CHECK, message);
            lacking.iter().take(NAMED).fold(finding, |finding, dataset| {
                let (user, dataset) = (quoted(&user.name), quoted(dataset));
                finding.hint(format!("zfs allow -u {user} send,hold,release {dataset}"))
            })
        }
        Err(error) => not_checked(CHECK, &error),
    }
}

/// The datasets that the user may not upload, and whether all of them may be restored.
fn missing_rights<'a>(
    zfs: &Zfs,
    datasets: &[&'a DatasetInfo],
    user: &User,
) -> Result<(Vec<&'a str>, bool), Error> {
    let (mut lacking, mut restore) = (Vec::new(), true);
    for dataset in datasets {
        let (uploads, restores) = rights::missing(&zfs.allowed(&dataset.name)?, dataset, user);
        if !uploads.is_empty() {
            lacking.push(dataset.name.as_str());
        }
        restore &= restores.is_empty();
    }
    Ok((lacking, restore))
}

/// Holds of uploads that are no longer pending.
fn holds_left(zfs: &Zfs, points: &[PointInfo], folder: &Folder) -> Finding {
    const CHECK: &str = "holds";
    let held: Vec<&str> =
        points.iter().filter(|point| point.holds > 0).map(|point| point.name.as_str()).collect();
    let is_id = |tag: &str| tag.strip_prefix(TAG).is_some_and(|id| id.parse::<Id>().is_ok());
    // an upload may begin or end meanwhile
    let before = Pending::read(folder);
    let mut left = match zfs.holds(&held) {
        Ok(holds) => holds,
        Err(error) => return not_checked(CHECK, &error),
    };
    left.retain(|(tag, _)| is_id(tag));
    for pending in [before, Pending::read(folder)] {
        match pending {
            Pending::None => {}
            Pending::Upload(intent) => left.retain(|(tag, _)| *tag != intent.hold_tag()),
            Pending::Unknown if left.is_empty() => {}
            Pending::Unknown => {
                let why = "not checked, because the pending upload, which may hold snapshots, cannot be read";
                return Finding::warning(CHECK, why).hint("see 'pending upload' above");
            }
        }
    }
    if left.is_empty() {
        return Finding::ok(CHECK, "no upload has left a hold behind");
    }
    let names: Vec<&str> = left.iter().map(|(_, snapshot)| snapshot.as_str()).collect();
    let finding = Finding::warning(
        CHECK,
        format!(
            "{} cannot be destroyed: held by an upload other than the pending one of this store",
            some(&names)
        ),
    )
    .hint("only if no other host or user is uploading it or will resume it, release it with:");
    left.iter().take(NAMED).fold(finding, |finding, (tag, snapshot)| {
        finding.hint(format!("zfs release {tag} {}", quoted(snapshot)))
    })
}

/// For each dataset that was backed up: is a snapshot or bookmark of it left that is stored?
fn bases(points: &[PointInfo], backed_up: &BTreeMap<&str, HashSet<Guid>>) -> Vec<Finding> {
    let has_base: HashSet<&str> = points
        .iter()
        .map(|point| (dataset_of(&point.name), point.guid))
        .filter(|(dataset, guid)| backed_up.get(dataset).is_some_and(|stored| stored.contains(guid)))
        .map(|(dataset, _)| dataset)
        .collect();
    let without: Vec<&str> =
        backed_up.keys().copied().filter(|dataset| !has_base.contains(dataset)).collect();
    if backed_up.is_empty() {
        return Vec::new();
    }
    vec![if without.is_empty() {
        Finding::ok("bases", "each dataset that is backed up has a stored snapshot, or a bookmark of one")
    } else {
        Finding::warning(
            "bases",
            format!(
                "{}: no stored snapshot, nor a bookmark of one, is on this host, so the next backup must be a full one",
                some(&without)
            ),
        )
        .hint("keep the last stored snapshot of each dataset, or a bookmark of it")
    }]
}

/// The first of them.
fn some(names: &[&str]) -> String {
    first_of(names, NAMED)
}
