//! What is stored, by the store and by the bucket's listing together: what the chain rule is asked about.
//!
//! - A backup that the store knows is intact if the listing has all its objects, with their sizes.
//! - A backup that only the listing knows (another host's, or a store that was lost) counts as one that must stay
//!   recoverable, too; also where its manifest is not there (yet).
//! - Without a right to list, the store alone decides.

use std::collections::{BTreeMap, HashMap};

use crate::backup::{Backup, Link};
use crate::chain::{Member, RemoveConflict, UploadConflict, check_remove, check_upload, recoverable};
use crate::error::{Error, Result};
use crate::keys::{self, Kind};
use crate::s3::client::Client;
use crate::s3::reply::Object;
use crate::store::format::{Contents, Entry, State};
use crate::ui::Ui;

pub struct Inventory {
    members: Vec<Member>,
    known: HashMap<Link, Known>,
}

/// How to speak of a backup.
struct Known {
    /// As a `remove` command takes it.
    name: String,
    /// Why it is not intact.
    lost: Option<String>,
    in_store: bool,
}

/// The bucket's objects under the store's prefix; none where listing is forbidden.
pub fn list_bucket(client: &Client, contents: &Contents, ui: &Ui) -> Result<Option<Vec<Object>>> {
    match client.list_objects(&contents.prefix) {
        Ok(objects) => Ok(Some(objects)),
        Err(failure) if failure.is_forbidden() => {
            ui.warning(&format!(
                "may not list the bucket ({}): the store alone decides what is stored",
                failure.describe()
            ));
            Ok(None)
        }
        Err(failure) => Err(failure.into()),
    }
}

impl Inventory {
    pub fn new(contents: &Contents, listing: Option<&[Object]>) -> Self {
        let sizes: Option<HashMap<&str, u64>> =
            listing.map(|objects| objects.iter().map(|o| (o.key.as_str(), o.size)).collect());
        let mut inventory = Inventory { members: Vec::new(), known: HashMap::new() };
        let mut names: HashMap<_, String> = HashMap::new();
        for entry in &contents.entries {
            names.insert(entry.snapshot.guid, entry.snapshot.name.clone());
            let lost = sizes.as_ref().and_then(|sizes| what_is_lost(entry, &contents.prefix, sizes));
            let known = Known { name: entry.backup().to_string(), lost, in_store: true };
            if entry.state == State::Stored {
                inventory.members.push(Member { link: entry.link(), intact: known.lost.is_none() });
            }
            inventory.known.insert(entry.link(), known);
        }
        let strangers = strangers(contents, listing.unwrap_or_default());
        for (link, stranger) in &strangers {
            names.entry(link.snapshot).or_insert_with(|| stranger.snapshot_name.clone());
        }
        for (link, stranger) in strangers {
            if inventory.known.contains_key(&link) {
                continue;
            }
            let base = link.base.map(|guid| names.get(&guid).cloned().unwrap_or_else(|| guid.to_string()));
            let prefix = base.map(|base| format!("-i {base} ")).unwrap_or_default();
            let name = prefix + &stranger.snapshot_name;
            let lost = stranger.what_is_lost();
            inventory.members.push(Member { link, intact: lost.is_none() });
            inventory.known.insert(link, Known { name, lost, in_store: false });
        }
        inventory
    }

    /// May this backup be stored?
    pub fn check_upload(&self, backup: &Backup) -> Result<()> {
        match check_upload(&self.members, backup.link()) {
            Ok(()) => self.refuse_while_removing(backup),
            Err(UploadConflict::AlreadyStored) => Err(self.already_stored(backup)),
            Err(UploadConflict::BaseNotRecoverable(_)) => Err(self.base_not_recoverable(backup)),
        }
    }

    fn already_stored(&self, backup: &Backup) -> Error {
        let name = self.name(backup.link());
        match self.known.get(&backup.link()) {
            Some(Known { in_store: true, lost: Some(lost), .. }) => {
                Error::refused(format!("the store has '{name}' already, but {lost}"))
                    .hint(format!("'zfs2s3 remove {name}' takes it out of the store, if nothing hangs on it"))
            }
            Some(Known { in_store: false, lost: Some(lost), .. }) => {
                Error::refused(format!("objects of '{name}' are in the bucket already, but {lost}"))
                    .hint("if no host is, delete them with 'aws s3 rm'")
            }
            Some(Known { in_store: false, lost: None, .. }) => Error::refused(format!(
                "'{name}' is in the bucket already, though not in the store: another host may have stored it"
            )),
            _ => Error::refused(format!("'{name}' is stored already")),
        }
    }

    fn base_not_recoverable(&self, backup: &Backup) -> Error {
        let base = backup.base.as_ref().map(|base| base.name.as_str()).unwrap_or_default();
        let error = Error::refused(format!("no stored chain of backups leads to the base {base}"));
        let leading_there = |link: &Link| Some(link.snapshot) == backup.link().base;
        let mut lost = self.known.iter().filter(|(link, _)| leading_there(link));
        match lost.find_map(|(_, known)| known.lost.as_ref().map(|lost| (known, lost))) {
            Some((known, lost)) => error.hint(format!("'{}' is in the store, but {lost}", known.name)),
            None => error.hint(format!("upload {base} first, or leave out -i for a full backup")),
        }
    }

    /// The same backup's removal must have ended first: it would delete what is stored now.
    fn refuse_while_removing(&self, backup: &Backup) -> Result<()> {
        match self.known.get(&backup.link()) {
            None => Ok(()),
            Some(known) => Err(Error::refused(format!("'{}' is being removed", known.name))
                .hint(format!("'zfs2s3 remove {}' goes on with that", known.name))),
        }
    }

    /// May this backup, whose upload is pending, still be stored? Some of its objects may be there already.
    pub fn check_resume(&self, backup: &Backup) -> Result<()> {
        let others: Vec<Member> = self.members.iter().copied().filter(|m| m.link != backup.link()).collect();
        check_upload(&others, backup.link()).map_err(|_| self.base_not_recoverable(backup))
    }

    /// May this backup of the store be removed?
    pub fn check_remove(&self, backup: &Backup) -> Result<()> {
        match check_remove(&self.members, backup.link()) {
            Ok(()) => Ok(()),
            Err(RemoveConflict::NotStored) => Err(Error::failed(format!("'{backup}' is not stored"))),
            Err(RemoveConflict::Needed(order)) => {
                let mut message = format!(
                    "'{backup}' is needed to restore other backups, which would have to go first, in this order:"
                );
                for link in &order {
                    let stranger = self.known.get(link).is_some_and(|known| !known.in_store);
                    let note = if stranger { "  (in the bucket, not in the store)" } else { "" };
                    message.push_str(&format!("\n    {}{note}", self.name(*link)));
                }
                Err(Error::refused(message).hint("nothing was removed"))
            }
        }
    }

    /// Backups of the store that no chain reaches.
    pub fn unrecoverable(&self) -> Vec<String> {
        let reached = recoverable(&self.members);
        let lost = |m: &&Member| !m.intact || m.link.base.is_some_and(|base| !reached.contains(&base));
        self.members.iter().filter(lost).map(|m| self.name(m.link)).collect()
    }

    fn name(&self, link: Link) -> String {
        self.known.get(&link).map(|known| known.name.clone()).unwrap_or_default()
    }
}

/// Which of a backup's objects the bucket lacks, or has in another size.
fn what_is_lost(entry: &Entry, prefix: &str, sizes: &HashMap<&str, u64>) -> Option<String> {
    let expected = entry.stream.iter().flat_map(|stream| &stream.segments);
    let expected: HashMap<&str, u64> = expected.map(|s| (s.key.as_str(), s.size)).collect();
    entry.keys(prefix).into_iter().find_map(|key| {
        match (sizes.get(key.as_str()), expected.get(key.as_str())) {
            (None, _) => Some(format!("the bucket has no object '{key}'")),
            (Some(there), Some(size)) if there != size => {
                Some(format!("the object '{key}' has {there} bytes, not {size}"))
            }
            _ => None,
        }
    })
}

/// A backup that the listing's keys tell of.
struct Stranger {
    snapshot_name: String,
    manifest: bool,
    data: bool,
}

impl Stranger {
    fn what_is_lost(&self) -> Option<String> {
        match (self.manifest, self.data) {
            (true, true) => None,
            (false, _) => Some(
                "its manifest is not in the bucket: another host may be storing or removing it".to_string(),
            ),
            (true, false) => Some("its data are not in the bucket".to_string()),
        }
    }
}

fn strangers(contents: &Contents, listing: &[Object]) -> BTreeMap<Link, Stranger> {
    let mut found = BTreeMap::new();
    for parsed in listing.iter().filter_map(|object| keys::parse(&contents.prefix, &object.key)) {
        let name = parsed.snapshot_name;
        let stranger = found.entry(parsed.link).or_insert(Stranger {
            snapshot_name: name,
            manifest: false,
            data: false,
        });
        match parsed.kind {
            Kind::Manifest => stranger.manifest = true,
            Kind::Segment(1) => stranger.data = true,
            Kind::Segment(_) => {}
        }
    }
    found
}
