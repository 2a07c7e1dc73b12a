//! Selects a stored backup or snapshot by its name, or if that is ambiguous, by its guid. Pure.

use std::fmt;

use crate::error::{Error, Result};
use crate::model::backup::{Link, Point};
use crate::model::copy::{CopyName, Id};
use crate::model::names::{BaseName, Guid, SnapshotName, check_dataset_name, check_point_name};
use crate::state::store::format::{Contents, Entry, State};

pub struct BackupSelector<'a> {
    snapshot: SnapshotSelector,
    base: Option<SnapshotSelector>,
    /// The command that the user runs, for hints.
    command: &'a str,
}

#[derive(Debug)]
pub enum SnapshotSelector {
    Guid(Guid),
    Name(String),
    /// The newest one of a dataset: `restore/newest.rs` finds it.
    Newest(String),
}

impl fmt::Display for SnapshotSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotSelector::Guid(guid) => write!(f, "guid {guid}"),
            SnapshotSelector::Name(name) => f.write_str(name),
            SnapshotSelector::Newest(dataset) => write!(f, "a snapshot of {dataset} that can be restored"),
        }
    }
}

impl SnapshotSelector {
    pub fn parse(text: &str) -> Result<Self> {
        match text.parse::<Guid>() {
            Ok(guid) => Ok(SnapshotSelector::Guid(guid)),
            Err(_) if !text.contains('@') => Err(Error::usage(format!(
                "'{text}' is neither a snapshot (dataset@snapshot) nor a guid (decimal)"
            ))),
            Err(_) => Ok(SnapshotSelector::Name(
                text.parse::<SnapshotName>().map_err(Error::usage)?.as_str().to_string(),
            )),
        }
    }

    /// A dataset means its newest snapshot.
    pub fn parse_or_newest(text: &str) -> Result<Self> {
        if text.contains('@') || text.parse::<Guid>().is_ok() {
            return Self::parse(text);
        }
        check_dataset_name(text).map_err(|why| {
            Error::usage(format!(
                "'{text}' is neither a snapshot (dataset@snapshot), nor a guid (decimal), nor a dataset: {why}"
            ))
        })?;
        Ok(SnapshotSelector::Newest(text.to_string()))
    }

    fn parse_base(text: &str, snapshot: &SnapshotSelector) -> Result<Self, String> {
        if let Ok(guid) = text.parse() {
            return Ok(SnapshotSelector::Guid(guid));
        }
        match snapshot {
            SnapshotSelector::Name(name) => {
                Ok(SnapshotSelector::Name(BaseName::parse(text, &name.parse()?)?.as_str().to_string()))
            }
            SnapshotSelector::Guid(_) | SnapshotSelector::Newest(_) if text.starts_with(['@', '#']) => {
                Err(format!("'{text}' needs its dataset, because the snapshot is given by its guid"))
            }
            SnapshotSelector::Guid(_) | SnapshotSelector::Newest(_) => {
                check_point_name(text, "@#").map_err(|why| format!("'{text}' is not a base: {why}"))?;
                Ok(SnapshotSelector::Name(text.to_string()))
            }
        }
    }

    fn matches(&self, point: &Point) -> bool {
        match self {
            SnapshotSelector::Guid(guid) => point.guid == *guid,
            SnapshotSelector::Name(name) => point.name == *name,
            SnapshotSelector::Newest(_) => false,
        }
    }

    /// The one stored snapshot that is selected, whichever backups it has.
    pub fn find(&self, contents: &Contents, command: &str) -> Result<Point> {
        let mut named: Vec<&Point> =
            contents.entries.iter().map(|e| &e.snapshot).filter(|s| self.matches(s)).collect();
        named.sort_by_key(|point| point.guid);
        named.dedup_by_key(|point| point.guid);
        match named.as_slice() {
            [point] => Ok((*point).clone()),
            [] => Err(Error::failed(format!("{self} is not stored")).hint(what_is_stored(contents))),
            several => Err(several.iter().fold(
                Error::failed("several stored snapshots have this name; give the guid of one"),
                |error, point| error.hint(format!("zfs2s3 {command} {} …", point.guid)),
            )),
        }
    }
}

pub fn what_is_stored(contents: &Contents) -> &'static str {
    if contents.entries.is_empty() {
        "the store is empty: if it was lost, 'zfs2s3 recover' rebuilds it from the bucket"
    } else {
        "'zfs2s3 list' shows what is stored"
    }
}

impl<'a> BackupSelector<'a> {
    pub fn parse(command: &'a str, snapshot: &str, base: Option<&str>) -> Result<Self> {
        let snapshot = SnapshotSelector::parse(snapshot)?;
        let base = base
            .map(|text| SnapshotSelector::parse_base(text, &snapshot))
            .transpose()
            .map_err(Error::usage)?;
        Ok(BackupSelector { snapshot, base, command })
    }

    /// The place in the store of the one backup that is selected: a stored copy before one that is being
    /// removed.
    pub fn find(&self, contents: &Contents) -> Result<usize> {
        self.find_first(contents, State::Stored)
    }

    /// The same; but if no base is given, and no full backup is stored, the only backup of the snapshot.
    pub fn find_or_only(&self, contents: &Contents) -> Result<usize> {
        self.find(contents).or_else(|error| {
            let named =
                || contents.entries.iter().enumerate().filter(|(_, e)| self.snapshot.matches(&e.snapshot));
            let mut links: Vec<Link> = named().map(|(_, entry)| entry.link()).collect();
            links.dedup();
            let first = named().min_by_key(|(_, entry)| entry.state != State::Stored);
            match (links.as_slice(), first) {
                ([_], Some((at, _))) if self.base.is_none() => Ok(at),
                _ => Err(error),
            }
        })
    }

    /// The same for a removal: a removal that has begun is completed before another copy is removed.
    pub fn find_to_remove(&self, contents: &Contents) -> Result<usize> {
        self.find_first(contents, State::Removing)
    }

    fn find_first(&self, contents: &Contents, first: State) -> Result<usize> {
        let named: Vec<(usize, &Entry)> =
            contents.entries.iter().enumerate().filter(|(_, e)| self.snapshot.matches(&e.snapshot)).collect();
        let mut matching: Vec<(usize, &Entry)> =
            named.iter().copied().filter(|(_, entry)| self.base_is(contents, entry)).collect();
        matching.sort_by_key(|(_, entry)| entry.state != first);
        let link = matching.first().map(|(_, entry)| entry.link());
        let one_backup = matching.iter().all(|(_, entry)| Some(entry.link()) == link);
        match matching.as_slice() {
            [(index, _)] => Ok(*index),
            [(index, _), ..] if one_backup => Ok(*index),
            [] => Err(self.no_such(&named, contents)),
            several => {
                let mut error =
                    Error::failed("several stored backups have these names; give the guid of one");
                for (_, entry) in several {
                    let base =
                        entry.base.as_ref().map(|base| format!("-i {} ", base.guid)).unwrap_or_default();
                    error = error.hint(format!("zfs2s3 {} {base}{}", self.command, entry.snapshot.guid));
                }
                Err(error)
            }
        }
    }

    /// The place in the store of the copy with this ID, if the store has it.
    pub fn find_copy(&self, contents: &Contents, id: Option<Id>) -> Option<usize> {
        // only their names distinguish copies without an ID
        let by_name = matches!(self.snapshot, SnapshotSelector::Name(_));
        let is_it = |entry: &Entry| {
            entry.id == id
                && (id.is_some() || by_name)
                && self.snapshot.matches(&entry.snapshot)
                && self.base_is(contents, entry)
        };
        contents.entries.iter().position(is_it)
    }

    /// Is this a copy of the selected backup? Only its key is known.
    pub fn is_copy(&self, contents: &Contents, copy: &CopyName) -> bool {
        let snapshot = match &self.snapshot {
            SnapshotSelector::Guid(guid) => *guid == copy.link.snapshot && copy.id.is_some(),
            SnapshotSelector::Name(name) => *name == copy.name,
            SnapshotSelector::Newest(_) => false,
        };
        let base = match (&self.base, copy.link.base) {
            (None, None) => true,
            (Some(SnapshotSelector::Guid(guid)), Some(base)) => *guid == base,
            (Some(SnapshotSelector::Name(name)), Some(base)) => {
                let points =
                    contents.entries.iter().flat_map(|e| std::iter::once(&e.snapshot).chain(&e.base));
                points.filter(|point| point.name == *name).any(|point| point.guid == base)
            }
            _ => false,
        };
        snapshot && base
    }

    /// A base may have the name that it had when it was stored, or that of the stored snapshot with its guid.
    fn base_is(&self, contents: &Contents, entry: &Entry) -> bool {
        match (&self.base, &entry.base) {
            (None, None) => true,
            (Some(wanted), Some(base)) => {
                let mut same = contents.entries.iter().map(|e| &e.snapshot).filter(|s| s.guid == base.guid);
                wanted.matches(base) || same.any(|snapshot| wanted.matches(snapshot))
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
                let kind =
                    if entry.base.is_some() { "stored as an incremental backup" } else { "stored in full" };
                error.hint(format!("{kind}: zfs2s3 {} {}", self.command, entry.backup().arguments()))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::store::history::{guid, store};

    /// The place of the selected backup, or the words of the error. `line`: `-i BASE SNAPSHOT`, where `@A` is
    /// tank/a@A.
    fn selected(history: &str, line: &str) -> String {
        let find = |contents: &Contents| selector(line)?.find(contents);
        outcome(find(&store(history)))
    }

    fn selector(line: &str) -> Result<BackupSelector<'static>> {
        let full =
            |word: &str| if word.starts_with('@') { format!("tank/a{word}") } else { word.to_string() };
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["-i", base, snapshot] => BackupSelector::parse("remove", &full(snapshot), Some(&full(base))),
            words => BackupSelector::parse("remove", &full(words[0]), None),
        }
    }

    #[test]
    fn the_only_backup_needs_no_base() {
        let find = |history: &str, line| outcome(selector(line).unwrap().find_or_only(&store(history)));
        assert_eq!(find("A, B<A", "@B"), "1");
        assert_eq!(find("A, B<A, B", "@B"), "2", "the full one");
        assert_eq!(find("A, B<A, C<A, C<B", "@C"), "no full backup of tank/a@C is stored", "there are two");
        assert_eq!(find("A, B<A", "-i @B @B"), "no such incremental backup of tank/a@B is stored");
    }

    fn outcome(found: Result<usize>) -> String {
        found.map_or_else(|error| error.message, |n| n.to_string())
    }

    #[test]
    fn a_full_backup_by_its_snapshot_and_an_incremental_one_by_both() {
        let history = "A, B<A, C<B, C<A, C";
        assert_eq!(selected(history, "@A"), "0");
        assert_eq!(selected(history, "-i @A @B"), "1");
        assert_eq!(selected(history, "-i @B @C"), "2");
        assert_eq!(selected(history, "-i @A @C"), "3");
        assert_eq!(selected(history, "@C"), "4");
        assert_eq!(selected(history, "@B"), "no full backup of tank/a@B is stored");
        assert_eq!(selected(history, "-i @C @B"), "no such incremental backup of tank/a@B is stored");
    }

    #[test]
    fn a_guid_may_be_given_instead_of_a_name() {
        assert_eq!(selected("A, B<A", "65"), "0");
        assert_eq!(selected("A, B<A", "-i 65 66"), "1");
        assert_eq!(selected("A, B<A", "-i tank/a@A 66"), "1");
        assert_eq!(selected("A, B<A", "-i @A 66"), "1");
        assert!(BackupSelector::parse("remove", "66", Some("@A")).is_err(), "which dataset?");
    }

    #[test]
    fn a_name_that_two_snapshots_have_is_ambiguous() {
        let mut contents = store("A, B");
        contents.entries[1].snapshot.name = "tank/a@A".to_string();
        let by = |line: &str| outcome(selector(line).and_then(|selector| selector.find(&contents)));
        assert!(by("@A").starts_with("several stored backups have these names"));
        assert_eq!(by("66"), "1");
    }

    #[test]
    fn a_base_has_its_original_name_or_that_of_the_stored_snapshot() {
        let mut contents = store("A, B<A");
        contents.entries[1].base.as_mut().unwrap().name = "tank/a#mark".to_string();
        let by = |base: &str| {
            let selector = BackupSelector::parse("remove", "tank/a@B", Some(base));
            outcome(selector.and_then(|selector| selector.find(&contents)))
        };
        assert_eq!(by("tank/a#mark"), "1");
        assert_eq!(by("@A"), "1");
        assert!(by("#other").contains("no such incremental backup"));
    }

    #[test]
    fn a_removal_completes_the_copy_that_it_began() {
        let contents = store("A, A'!");
        assert_eq!(selector("@A").unwrap().find(&contents).unwrap(), 0);
        assert_eq!(selector("@A").unwrap().find_to_remove(&contents).unwrap(), 1);
    }

    #[test]
    fn a_copy_is_selected_by_its_id() {
        let contents = store("A, A', B<A");
        let by_id = |line: &str, id| selector(line).unwrap().find_copy(&contents, id);
        assert_eq!(by_id("@A", Some(Id(2))), Some(1));
        assert_eq!(by_id("@A", Some(Id(3))), None);
        assert_eq!(by_id("-i @A @B", Some(Id(1))), Some(2));
        let copies: Vec<CopyName> = contents.entries.iter().map(Entry::copy).collect();
        let is_copy = |line: &str, n: usize| selector(line).unwrap().is_copy(&contents, &copies[n]);
        assert!(is_copy("@A", 0) && is_copy("@A", 1) && !is_copy("@A", 2));
        assert!(is_copy("-i @A @B", 2) && is_copy("-i 65 66", 2) && !is_copy("-i @B @B", 2));
    }

    #[test]
    fn a_snapshot_is_selected_whichever_backups_it_has() {
        let contents = store("A, C<A, C");
        let find = |text: &str| SnapshotSelector::parse(text).unwrap().find(&contents, "restore");
        assert_eq!(find("tank/a@C").unwrap().guid, guid("C"));
        assert_eq!(find("67").unwrap().name, "tank/a@C");
        assert_eq!(find("tank/a@X").unwrap_err().message, "tank/a@X is not stored");
    }
}
