//! Which stored backup, or snapshot, the arguments name: by name, or where that is not enough by guid.

use std::fmt;

use crate::error::{Error, Result};
use crate::model::backup::Point;
use crate::model::copy::{CopyName, Id};
use crate::model::names::{BaseName, Guid, SnapshotName, check_point_name};
use crate::state::store::format::{Contents, Entry, State};

/// A backup.
pub struct Wanted<'a> {
    snapshot: Which,
    base: Option<Which>,
    /// The command, for hints.
    command: &'a str,
}

#[derive(Debug)]
pub enum Which {
    Guid(Guid),
    Name(String),
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Which::Guid(guid) => write!(f, "guid {guid}"),
            Which::Name(name) => f.write_str(name),
        }
    }
}

impl Which {
    pub fn snapshot(text: &str) -> Result<Self> {
        match text.parse::<Guid>() {
            Ok(guid) => Ok(Which::Guid(guid)),
            Err(_) if !text.contains('@') => Err(Error::usage(format!(
                "'{text}' is neither a snapshot (dataset@snapshot) nor a guid (decimal)"
            ))),
            Err(_) => {
                Ok(Which::Name(text.parse::<SnapshotName>().map_err(Error::usage)?.as_str().to_string()))
            }
        }
    }

    fn base(text: &str, snapshot: &Which) -> std::result::Result<Self, String> {
        if let Ok(guid) = text.parse() {
            return Ok(Which::Guid(guid));
        }
        match snapshot {
            Which::Name(name) => Ok(Which::Name(BaseName::parse(text, &name.parse()?)?.as_str().to_string())),
            Which::Guid(_) if text.starts_with(['@', '#']) => {
                Err(format!("'{text}' needs its dataset where the snapshot is named by its guid"))
            }
            Which::Guid(_) => {
                check_point_name(text, "@#").map_err(|why| format!("'{text}' is not a base: {why}"))?;
                Ok(Which::Name(text.to_string()))
            }
        }
    }

    fn is(&self, point: &Point) -> bool {
        match self {
            Which::Guid(guid) => point.guid == *guid,
            Which::Name(name) => point.name == *name,
        }
    }

    /// The one stored snapshot that is meant, whichever backups lead to it.
    pub fn find(&self, contents: &Contents, command: &str) -> Result<Point> {
        let mut named: Vec<&Point> =
            contents.entries.iter().map(|e| &e.snapshot).filter(|s| self.is(s)).collect();
        named.sort_by_key(|point| point.guid);
        named.dedup_by_key(|point| point.guid);
        match named.as_slice() {
            [point] => Ok((*point).clone()),
            [] => Err(Error::failed(format!("{self} is not stored")).hint(what_is_stored(contents))),
            several => Err(several.iter().fold(
                Error::failed("several stored snapshots have this name; name one by its guid"),
                |error, point| error.hint(format!("zfs2s3 {command} {} …", point.guid)),
            )),
        }
    }
}

fn what_is_stored(contents: &Contents) -> &'static str {
    match contents.entries.is_empty() {
        true => "the store is empty: if it was lost, 'zfs2s3 recover' rebuilds it from the bucket",
        false => "'zfs2s3 list' shows what is",
    }
}

impl<'a> Wanted<'a> {
    pub fn parse(command: &'a str, snapshot: &str, base: Option<&str>) -> Result<Self> {
        let snapshot = Which::snapshot(snapshot)?;
        let base = base.map(|text| Which::base(text, &snapshot)).transpose().map_err(Error::usage)?;
        Ok(Wanted { snapshot, base, command })
    }

    /// The one backup that is meant, by its place in the store: a stored copy before one that is being removed.
    pub fn find(&self, contents: &Contents) -> Result<usize> {
        self.find_first(contents, State::Stored)
    }

    /// The same for a removal: one that has begun is completed before another copy goes.
    pub fn find_to_remove(&self, contents: &Contents) -> Result<usize> {
        self.find_first(contents, State::Removing)
    }

    fn find_first(&self, contents: &Contents, first: State) -> Result<usize> {
        let named: Vec<(usize, &Entry)> =
            contents.entries.iter().enumerate().filter(|(_, e)| self.snapshot.is(&e.snapshot)).collect();
        let mut meant: Vec<(usize, &Entry)> =
            named.iter().copied().filter(|(_, entry)| self.base_is(contents, entry)).collect();
        meant.sort_by_key(|(_, entry)| entry.state != first);
        let link = meant.first().map(|(_, entry)| entry.link());
        let one_backup = meant.iter().all(|(_, entry)| Some(entry.link()) == link);
        match meant.as_slice() {
            [(index, _)] => Ok(*index),
            [(index, _), ..] if one_backup => Ok(*index),
            [] => Err(self.no_such(&named, contents)),
            several => {
                let mut error =
                    Error::failed("several stored backups have these names; name one by its guid");
                for (_, entry) in several {
                    let base =
                        entry.base.as_ref().map(|base| format!("-i {} ", base.guid)).unwrap_or_default();
                    error = error.hint(format!("zfs2s3 {} {base}{}", self.command, entry.snapshot.guid));
                }
                Err(error)
            }
        }
    }

    /// The copy with this ID, by its place in the store, if the store has it.
    pub fn find_copy(&self, contents: &Contents, id: Option<Id>) -> Option<usize> {
        // without an ID only the name tells copies apart
        let by_name = matches!(self.snapshot, Which::Name(_));
        let is_it = |entry: &Entry| {
            entry.id == id
                && (id.is_some() || by_name)
                && self.snapshot.is(&entry.snapshot)
                && self.base_is(contents, entry)
        };
        contents.entries.iter().position(is_it)
    }

    /// Is this copy, of which only its key is known, one of the backup that is meant?
    pub fn is_copy(&self, contents: &Contents, copy: &CopyName) -> bool {
        let snapshot = match &self.snapshot {
            Which::Guid(guid) => *guid == copy.link.snapshot && copy.id.is_some(),
            Which::Name(name) => *name == copy.name,
        };
        let base = match (&self.base, copy.link.base) {
            (None, None) => true,
            (Some(Which::Guid(guid)), Some(base)) => *guid == base,
            (Some(Which::Name(name)), Some(base)) => {
                let points =
                    contents.entries.iter().flat_map(|e| std::iter::once(&e.snapshot).chain(&e.base));
                points.filter(|point| point.name == *name).any(|point| point.guid == base)
            }
            _ => false,
        };
        snapshot && base
    }

    /// A base may be named as it was when it was stored, or as the stored snapshot of its guid.
    fn base_is(&self, contents: &Contents, entry: &Entry) -> bool {
        match (&self.base, &entry.base) {
            (None, None) => true,
            (Some(wanted), Some(base)) => {
                let mut same = contents.entries.iter().map(|e| &e.snapshot).filter(|s| s.guid == base.guid);
                wanted.is(base) || same.any(|snapshot| wanted.is(snapshot))
            }
            _ => false,
        }
    }

    fn no_such(&self, named: &[(usize, &Entry)], contents: &Contents) -> Error {
        let kind = if self.base.is_some() { "no such incremental backup" } else { "no full backup" };
        let error = Error::failed(format!("{kind} of {} is stored", self.snapshot));
        match named {
            [] => error.hint(what_is_stored(contents)),
            named => named.iter().fold(error, |error, (_, entry)| {
                error.hint(format!("there is: zfs2s3 {} {}", self.command, entry.backup()))
            }),
        }
    }
}
