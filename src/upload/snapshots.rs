//! The snapshots of an upload: held until it ends, and found again if they are renamed meanwhile.

use super::{ABORT, Upload};
use crate::error::{Error, Result};
use crate::model::backup::{Backup, Point};
use crate::model::names::dataset_of;
use crate::state::journal::record::Intent;
use crate::zfs::Flags;

impl Upload {
    /// The snapshot and base of the pending upload, with their current names. `begun`: is the beginning of
    /// the stream recorded?
    pub(super) fn find_source(&self, intent: &Intent, begun: bool) -> Result<Backup> {
        let snapshot = self.current_name(&intent.snapshot, intent, None).map_err(|e| e.hint(ABORT))?;
        let base = intent.base.as_ref().map(|base| self.current_name(base, intent, Some(&snapshot)));
        let base = base.transpose().map_err(|e| e.hint(ABORT))?;
        self.check_flags(&snapshot, intent, begun)?;
        Ok(Backup { snapshot, base })
    }

    /// By its name; if that is gone, or another snapshot has it, by its guid. A received copy has the same
    /// guid, but other properties: so it must be the snapshot that this upload holds, or a bookmark of the
    /// same dataset.
    pub(super) fn current_name(
        &self,
        point: &Point,
        intent: &Intent,
        snapshot: Option<&Point>,
    ) -> Result<Point> {
        let missing = match self.zfs.find(&point.name) {
            Ok(found) if found.point.guid == point.guid => return Ok(point.clone()),
            Ok(found) => Error::refused(format!(
                "{} is not the snapshot whose upload is pending: its guid is {}, not {}",
                point.name, found.point.guid, point.guid
            )),
            Err(error) if error.message.contains("does not exist") => Error::failed(format!(
                "the upload of {} cannot be resumed: {} is no longer on this host",
                intent.snapshot.name, point.name
            )),
            Err(error) => error,
        };
        let is_bookmark = point.name.contains('#');
        let is_it = |name: &String| {
            let beside = snapshot.is_some_and(|snapshot| dataset_of(&snapshot.name) == dataset_of(name));
            if is_bookmark {
                name.contains('#') && beside
            } else {
                name.contains('@') && self.zfs.is_held(&intent.hold_tag(), name).unwrap_or(false)
            }
        };
        let names = self.zfs.names_of(point.guid).unwrap_or_default();
        let name = names.into_iter().find(is_it).ok_or(missing)?;
        if name != point.name {
            self.ui.note_once(&format!("{} is called {name} now", point.name));
        }
        Ok(Point { name, guid: point.guid })
    }

    /// Another dataset with the old name, such as an unencrypted copy, would be sent with other flags than
    /// recorded. Refused, unless a recorded chunk can prove that the stream is the same; an encrypted dataset
    /// is never sent as plain text.
    fn check_flags(&self, snapshot: &Point, intent: &Intent, begun: bool) -> Result<()> {
        let now = self.zfs.send_flags(&snapshot.name)?;
        if now.words() == intent.send_args || (begun && now == Flags::WithoutEmbedded) {
            return Ok(());
        }
        Err(Error::refused(format!(
            "{} would have to be sent with '{}', but its upload began with '{}'",
            snapshot.name,
            now.words().join(" "),
            intent.send_args.join(" ")
        ))
        .hint(ABORT))
    }

    pub(super) fn hold(&self, intent: &Intent, backup: &Backup) {
        for point in points_to_hold(backup) {
            let name = &point.name;
            if let Err(e) = self.zfs.hold(&intent.hold_tag(), name) {
                self.ui.warning(&format!("cannot hold {name}, so do not destroy it during the upload: {e}"));
            }
        }
    }

    /// Also if a snapshot was renamed meanwhile.
    pub(super) fn release(&self, intent: &Intent) {
        let tag = intent.hold_tag();
        let failed =
            |name: &str, e: Error| self.ui.warning(&format!("cannot release the hold on {name}: {e}"));
        for point in points_to_hold(&intent.backup()) {
            match self.zfs.release(&tag, &point.name) {
                Ok(true) => continue,
                Ok(false) => {}
                Err(e) => {
                    failed(&point.name, e);
                    continue;
                }
            }
            if self.zfs.find(&point.name).is_ok_and(|found| found.point.guid == point.guid) {
                continue;
            }
            let names = self.zfs.names_of(point.guid).unwrap_or_default();
            for name in names.iter().filter(|name| name.contains('@')) {
                if let Err(e) = self.zfs.release(&tag, name) {
                    failed(name, e);
                }
            }
        }
    }
}

/// Bookmarks need no hold.
fn points_to_hold(backup: &Backup) -> impl Iterator<Item = &Point> {
    std::iter::once(&backup.snapshot).chain(&backup.base).filter(|point| point.name.contains('@'))
}
