//! The snapshots of an upload: held until it has ended, and found again where they were renamed meanwhile.

use super::{ABORT, Upload};
use crate::backup::{Backup, Point};
use crate::error::{Error, Result};
use crate::progress::record::Intent;

impl Upload {
    /// The snapshot and base of the pending upload as they are called now.
    pub(super) fn find_again(&self, intent: &Intent) -> Result<Backup> {
        let again = |point: &Point| -> Result<Point> {
            let name = self.name_now(point, &intent.hold_tag()).map_err(|e| e.hint(ABORT))?;
            if name != point.name {
                self.ui.note(&format!("{} is called {name} now", point.name));
            }
            Ok(Point { name, guid: point.guid })
        };
        let snapshot = again(&intent.snapshot)?;
        Ok(Backup { snapshot, base: intent.base.as_ref().map(again).transpose()? })
    }

    /// By its name; where that is gone, or another snapshot's, by its guid. Of several with one guid, as a received copy
    /// has it, the one that this upload holds.
    fn name_now(&self, point: &Point, tag: &str) -> Result<String> {
        let missing = match self.zfs.find(&point.name) {
            Ok(found) if found.point.guid == point.guid => return Ok(point.name.clone()),
            Ok(found) => Error::refused(format!(
                "{} is not the one whose upload is pending: its guid is {}, not {}",
                point.name, found.point.guid, point.guid
            )),
            Err(error) => error,
        };
        let is_bookmark = point.name.contains('#');
        let names = self.zfs.names_of(point.guid).unwrap_or_default();
        let same_kind: Vec<&String> = names.iter().filter(|name| name.contains('#') == is_bookmark).collect();
        match same_kind.as_slice() {
            [] => Err(missing),
            [name] => Ok(name.to_string()),
            several => {
                let held = several.iter().find(|name| self.zfs.is_held(tag, name).unwrap_or(false));
                held.map(|name| name.to_string()).ok_or(missing)
            }
        }
    }

    pub(super) fn hold(&self, intent: &Intent, backup: &Backup) {
        for point in held(backup) {
            let name = &point.name;
            if let Err(e) = self.zfs.hold(&intent.hold_tag(), name) {
                self.ui.warning(&format!("no hold on {name}, so take care not to destroy it meanwhile: {e}"));
            }
        }
    }

    /// Also under the name that a snapshot may have been given since.
    pub(super) fn release(&self, intent: &Intent) {
        let tag = intent.hold_tag();
        let failed = |name: &str, e: Error| self.ui.warning(&format!("the hold on {name} stays: {e}"));
        for point in held(&intent.backup()) {
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

/// Of a bookmark there is nothing to hold.
fn held(backup: &Backup) -> impl Iterator<Item = &Point> {
    std::iter::once(&backup.snapshot).chain(&backup.base).filter(|point| point.name.contains('@'))
}
