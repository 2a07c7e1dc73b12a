//! Which base `upload --auto` takes: of the snapshots and bookmarks of the dataset that are older than the
//! snapshot and whose backup can be restored, the newest. Pure.
//!
//! The newest has the fewest changes since. With a limit for the length of chains, those whose chain has that
//! length already do not count.

use std::collections::HashMap;

use crate::model::names::Guid;
use crate::zfs::PointInfo;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice<'a> {
    /// `length`: how many backups its chain has with the new one.
    Base {
        point: &'a PointInfo,
        length: usize,
    },
    Full(WhyFull),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyFull {
    /// No backup of the dataset is stored.
    NothingStored,
    /// Some are, but no older snapshot or bookmark of theirs is on this host.
    NoneHere,
    /// The chain of each that is on this host has the maximum length.
    TooLong,
}

/// `points`: those of the dataset on this host. `createtxg`: that of the snapshot. `lengths`: the chains of
/// the snapshots that can be restored. `has_backups`: some are of this dataset.
pub fn choose<'a>(
    points: &'a [PointInfo],
    createtxg: u64,
    lengths: &HashMap<Guid, usize>,
    has_backups: bool,
    max_chain: Option<usize>,
) -> Choice<'a> {
    let older = points.iter().filter(|point| point.createtxg < createtxg);
    let stored: Vec<(&PointInfo, usize)> =
        older.filter_map(|point| Some((point, lengths.get(&point.guid)? + 1))).collect();
    let fits = |length: usize| max_chain.is_none_or(|max| length <= max);
    // a snapshot, if there is also a bookmark of it
    let rank = |point: &PointInfo| (point.createtxg, point.name.contains('@'));
    match stored.iter().filter(|(_, length)| fits(*length)).max_by_key(|(point, _)| rank(point)) {
        Some((point, length)) => Choice::Base { point, length: *length },
        None if !stored.is_empty() => Choice::Full(WhyFull::TooLong),
        None if has_backups => Choice::Full(WhyFull::NoneHere),
        None => Choice::Full(WhyFull::NothingStored),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(name: &str, guid: u64, createtxg: u64) -> PointInfo {
        PointInfo { name: format!("tank/a{name}"), guid: Guid::new(guid).unwrap(), createtxg, holds: 0 }
    }

    #[test]
    fn the_newest_older_point_whose_backup_can_be_restored() {
        let points = [
            point("@1", 1, 10),
            point("#1", 1, 10),
            point("#2", 2, 20),
            point("@3", 3, 30),
            point("@4", 4, 40),
            point("@5", 5, 50),
        ];
        let chosen = |stored: &[(u64, usize)], has_backups, max_chain| {
            let lengths = stored.iter().map(|(guid, length)| (Guid::new(*guid).unwrap(), *length)).collect();
            match choose(&points, points[4].createtxg, &lengths, has_backups, max_chain) {
                Choice::Base { point, length } => format!("{} {length}", &point.name[6..]),
                Choice::Full(why) => format!("{why:?}"),
            }
        };
        assert_eq!(chosen(&[], false, None), "NothingStored");
        assert_eq!(chosen(&[(9, 1)], true, None), "NoneHere");
        assert_eq!(chosen(&[(5, 1)], true, None), "NoneHere", "it is newer");
        assert_eq!(chosen(&[(4, 1)], true, None), "NoneHere", "it is the snapshot itself");
        assert_eq!(chosen(&[(1, 1)], true, None), "@1 2", "not its bookmark");
        assert_eq!(chosen(&[(1, 1), (2, 2)], true, None), "#2 3");
        assert_eq!(chosen(&[(1, 1), (2, 2), (3, 3)], true, None), "@3 4");
        assert_eq!(chosen(&[(1, 1), (2, 2), (3, 3)], true, Some(4)), "@3 4");
        assert_eq!(chosen(&[(1, 1), (2, 2), (3, 3)], true, Some(3)), "#2 3");
        assert_eq!(chosen(&[(1, 1), (2, 2), (3, 3)], true, Some(1)), "TooLong");
        assert_eq!(chosen(&[(1, 3), (3, 1)], true, Some(2)), "@3 2", "a bypass shortens the chain");
    }
}
