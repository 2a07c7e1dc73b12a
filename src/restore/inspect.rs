//! What the target of a restore has now.

use super::target::Target;
use crate::error::Result;
use crate::model::backup::Point;
use crate::model::names::Guid;
use crate::state::store::format::Contents;
use crate::zfs::Zfs;

pub struct TargetState {
    has: Target,
    /// The resume token, if it has a part of a stream.
    pub token: Option<String>,
    /// It has nothing but that part.
    is_only_partial: bool,
}

impl TargetState {
    /// As it will be when the part is discarded: a dataset that only the part has created goes with it.
    pub fn without_partial(&self) -> Target {
        if self.is_only_partial { Target::New } else { self.has.clone() }
    }
}

pub fn inspect_target(zfs: &Zfs, target: &str, contents: &Contents) -> Result<TargetState> {
    let Some(points) = zfs.snapshots(target)? else {
        return Ok(TargetState { has: Target::New, token: None, is_only_partial: false });
    };
    let base = base_of(zfs, &points, contents);
    let snapshots: Vec<(String, Guid)> = points.into_iter().map(|point| (point.name, point.guid)).collect();
    let token = zfs.resume_token(target)?;
    // 'zfs receive -F' keeps its part beside the existing contents
    let is_only_partial = token.is_some() && snapshots.is_empty() && zfs.is_inconsistent(target)?;
    Ok(TargetState { has: Target::Has { snapshots, base }, token, is_only_partial })
}

/// The snapshot of the target that `zfs receive` builds on. Later ones, such as those of snapshot tools, do
/// no harm if nothing was written since.
fn base_of(zfs: &Zfs, snapshots: &[Point], contents: &Contents) -> Option<Guid> {
    let latest = snapshots.last()?;
    let is_stored = |point: &&Point| {
        contents.entries.iter().any(|entry| {
            entry.snapshot.guid == point.guid
                || entry.base.as_ref().is_some_and(|base| base.guid == point.guid)
        })
    };
    match snapshots.iter().rfind(is_stored) {
        // an old version of ZFS cannot tell
        Some(stored) if stored == latest || zfs.is_unchanged_since(&stored.name).unwrap_or(false) => {
            Some(stored.guid)
        }
        _ => Some(latest.guid),
    }
}
