//! What a backup is: one stored stream, full or incremental, of a snapshot. Pure.
//!
//! Backups are compared by guid ([`Link`]); the names are for people and for object keys.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::names::{Guid, dataset_of};
use crate::model::shell::quoted;

/// A snapshot or bookmark: its name when it was stored, and its guid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    pub name: String,
    pub guid: Guid,
}

impl Point {
    /// See [`Backup::is_clone`].
    pub fn is_clone_of(&self, base: &Point) -> bool {
        dataset_of(&base.name) != dataset_of(&self.name)
    }
}

/// A backup, by names and guids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    pub snapshot: Point,
    pub base: Option<Point>,
}

/// The identity of a backup: the snapshot that it restores, and the one that it starts from (none: a full
/// backup).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Link {
    pub snapshot: Guid,
    pub base: Option<Guid>,
}

impl Backup {
    pub fn link(&self) -> Link {
        Link { snapshot: self.snapshot.guid, base: self.base.as_ref().map(|base| base.guid) }
    }
    /// Does it start from a snapshot of another dataset, its origin? `zfs send` marks such a stream, judging
    /// by the names (OpenZFS module/zfs/dmu_send.c, dmu_send). It creates a new dataset, and cannot be
    /// received into an existing one.
    pub fn is_clone(&self) -> bool {
        self.base.as_ref().is_some_and(|base| self.snapshot.is_clone_of(base))
    }
    /// The arguments that name it to a command, for a shell: `-i tank/a@1 'tank/a@b c'`.
    pub fn arguments(&self) -> String {
        arguments(self.base_name(), &self.snapshot.name)
    }
    fn base_name(&self) -> Option<&str> {
        self.base.as_ref().map(|base| base.name.as_str())
    }
    /// For messages: `tank/a@2, incremental from tank/a@1`.
    pub fn describe(&self) -> String {
        match &self.base {
            None => format!("{}, full", self.snapshot.name),
            Some(base) => format!("{}, incremental from {}", self.snapshot.name, base.name),
        }
    }
}

/// As an argument of the commands: `-i tank/a@1 tank/a@2`, or `tank/a@1` for a full one.
impl fmt::Display for Backup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(self.base_name(), &self.snapshot.name))
    }
}

/// See the [`fmt::Display`] of [`Backup`].
pub fn shown(base: Option<&str>, snapshot: &str) -> String {
    base.map(|base| format!("-i {base} ")).unwrap_or_default() + snapshot
}

/// See [`Backup::arguments`].
pub fn arguments(base: Option<&str>, snapshot: &str) -> String {
    shown(base.map(quoted).as_deref(), &quoted(snapshot))
}
