//! What is stored, by the store and by the bucket's listing together: what the chain rule is asked about.
//!
//! - A backup that the store knows is intact if the listing has all its objects, with their sizes.
//! - A backup that only the listing knows (another host's, or of a store that was lost) counts as one that must stay
//!   recoverable, too; also while it is still being uploaded. But only its key is known, so it is never a base or a bypass.
//! - Without a right to list, the store alone decides.

use std::collections::{BTreeMap, HashMap, HashSet};

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
    strangers: BTreeMap<Link, Vec<Stranger>>,
}

/// How to speak of a backup.
struct Known {
    /// As a `remove` command takes it.
    name: String,
    /// Why it is not intact.
    lost: Option<String>,
    in_store: bool,
}

const RECOVER: &str = "'zfs2s3 recover -m' adds to the store what is in the bucket";

/// What the bucket holds of backups under the store's prefix.
#[derive(Default)]
struct Listing {
    objects: Vec<Object>,
    /// The keys of unfinished uploads.
    uploads: Vec<String>,
}

impl Listing {
    /// None where listing is forbidden.
    fn read(client: &Client, contents: &Contents, ui: &Ui) -> Result<Option<Self>> {
        let python: HashSet<String> = contents
            .entries
            .iter()
            .filter(|entry| entry.stream.is_none())
            .flat_map(|entry| entry.keys(&contents.prefix))
            .collect();
        let ours = |object: &Object| {
            keys::parse(&contents.prefix, &object.key).is_some() || python.contains(&object.key)
        };
        let objects = match client.list_objects(&contents.prefix, ours) {
            Ok(objects) => objects,
            Err(failure) if failure.is_forbidden() => {
                ui.warning(&format!(
                    "may not list the bucket ({}): the store alone decides what is stored",
                    failure.describe()
                ));
                return Ok(None);
            }
            Err(failure) => return Err(failure.into()),
        };
        let uploads = match client.list_uploads(&contents.prefix) {
            Ok(uploads) => uploads.into_iter().map(|upload| upload.key).collect(),
            Err(failure) if failure.is_forbidden() || failure.is_not_supported() => Vec::new(),
            Err(failure) => return Err(failure.into()),
        };
        Ok(Some(Listing { objects, uploads }))
    }
}

impl Inventory {
    pub fn read(client: &Client, contents: &Contents, ui: &Ui) -> Result<Self> {
        Ok(Self::new(contents, Listing::read(client, contents, ui)?))
    }

    fn new(contents: &Contents, listing: Option<Listing>) -> Self {
        let sizes: Option<HashMap<&str, u64>> =
            listing.as_ref().map(|l| l.objects.iter().map(|o| (o.key.as_str(), o.size)).collect());
        let strangers = strangers(&contents.prefix, listing.as_ref().unwrap_or(&Listing::default()));
        let mut inventory = Inventory { members: Vec::new(), known: HashMap::new(), strangers };
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
        // of one that is there under several names the first serves
        let first = |(link, all): (&Link, &Vec<Stranger>)| Some((*link, all.first()?.clone()));
        let strangers: Vec<(Link, Stranger)> = inventory.strangers.iter().filter_map(first).collect();
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
            // its key is all that is known of it: it counts as one that hangs on its base, never as a route
            inventory.members.push(Member { link, intact: false });
            inventory.known.insert(link, Known { name, lost, in_store: false });
        }
        inventory
    }

    /// May this backup be stored? An unfinished upload of the same is no obstacle: it may be a left-over, and where it
    /// is not, the first to be completed stays. Nor is one that only the listing knows, under another name: its objects have
    /// other keys.
    pub fn check_upload(&self, backup: &Backup) -> Result<()> {
        let is_there = self.is_in_store(backup) || self.stranger_in_the_way(backup).is_some();
        let counts = |member: &Member| is_there || member.link != backup.link();
        let members: Vec<Member> = self.members.iter().copied().filter(counts).collect();
        match check_upload(&members, backup.link()) {
            Ok(()) => self.refuse_while_removing(backup),
            Err(UploadConflict::AlreadyStored) => Err(self.already_stored(backup)),
            Err(UploadConflict::BaseNotRecoverable(_)) => Err(self.base_not_recoverable(backup)),
        }
    }

    /// What the listing tells of objects with this backup's own keys.
    fn stranger_in_the_way(&self, backup: &Backup) -> Option<&Stranger> {
        let strangers = self.strangers.get(&backup.link())?;
        strangers.iter().find(|s| s.snapshot_name == backup.snapshot.name && (s.manifest || s.data))
    }

    fn already_stored(&self, backup: &Backup) -> Error {
        match self.known.get(&backup.link()) {
            Some(Known { in_store: true, lost: Some(lost), name }) => {
                return Error::refused(format!("the store has '{name}' already, but {lost}")).hint(format!(
                    "'zfs2s3 remove {name}' removes what is left of it, if nothing hangs on it; else move the store away, \
                     store it again, and 'zfs2s3 recover -m' brings back the rest"
                ));
            }
            Some(Known { in_store: true, lost: None, name }) if *name != backup.to_string() => {
                return Error::refused(format!(
                    "'{backup}' is stored already, as '{name}': the guids are the same"
                ));
            }
            _ => {}
        }
        match self.stranger_in_the_way(backup).map(Stranger::what_is_lost) {
            Some(Some(lost)) if !self.is_in_store(backup) => {
                Error::refused(format!("objects of '{backup}' are in the bucket already, but {lost}"))
                    .hint("'zfs2s3 recover -n' tells more of them, and what to do about them")
            }
            Some(None) if !self.is_in_store(backup) => Error::refused(format!(
                "'{backup}' is in the bucket already, though not in the store: another host may have stored it"
            ))
            .hint(RECOVER),
            _ => Error::refused(format!("'{backup}' is stored already")),
        }
    }

    /// A name under which the bucket has this backup, too, and the store does not know it.
    pub fn other_name(&self, backup: &Backup) -> Option<&str> {
        let strangers = self.strangers.get(&backup.link()).filter(|_| !self.is_in_store(backup))?;
        let whole =
            strangers.iter().find(|s| s.manifest && s.data && s.snapshot_name != backup.snapshot.name);
        whole.map(|stranger| stranger.snapshot_name.as_str())
    }

    fn is_in_store(&self, backup: &Backup) -> bool {
        self.known.get(&backup.link()).is_some_and(|known| known.in_store)
    }

    fn base_not_recoverable(&self, backup: &Backup) -> Error {
        let base = backup.base.as_ref().map(|base| base.name.as_str()).unwrap_or_default();
        let error = Error::refused(format!("no stored chain of backups leads to the base {base}"));
        let leading_there = |link: &Link| Some(link.snapshot) == backup.link().base;
        let mut lost = self.known.iter().filter(|(link, _)| leading_there(link));
        match lost.find(|(_, known)| known.lost.is_some() || !known.in_store) {
            Some((_, Known { in_store: false, name, .. })) => {
                error.hint(format!("'{name}' is in the bucket, but not in this host's store")).hint(RECOVER)
            }
            Some((_, Known { name, lost, .. })) => {
                error.hint(format!("'{name}' is in the store, but {}", lost.as_deref().unwrap_or_default()))
            }
            None => error.hint(format!("upload {base} first, or leave out -i for a full backup")),
        }
    }

    /// The same backup's removal must have ended first: it would delete what is stored now.
    fn refuse_while_removing(&self, backup: &Backup) -> Result<()> {
        match self.known.get(&backup.link()) {
            None | Some(Known { in_store: false, .. }) => Ok(()),
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
        let link = backup.link();
        let mut members = self.members.clone();
        // a removal that was interrupted is asked about again: another host may have built on it meanwhile
        if members.iter().all(|member| member.link != link) {
            members.push(Member { link, intact: false });
        }
        match check_remove(&members, link) {
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
        let ours = |m: &&Member| self.known.get(&m.link).is_some_and(|known| known.in_store);
        self.members.iter().filter(ours).filter(lost).map(|m| self.name(m.link)).collect()
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

/// A backup that the listing's keys tell of, under one name.
#[derive(Clone)]
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

fn strangers(prefix: &str, listing: &Listing) -> BTreeMap<Link, Vec<Stranger>> {
    let mut found: BTreeMap<Link, Vec<Stranger>> = BTreeMap::new();
    let objects = listing.objects.iter().map(|object| (object.key.as_str(), true));
    let uploads = listing.uploads.iter().map(|key| (key.as_str(), false));
    for (key, there) in objects.chain(uploads) {
        let Some(parsed) = keys::parse(prefix, key) else { continue };
        let (manifest, data) =
            (there && parsed.kind == Kind::Manifest, there && parsed.kind != Kind::Manifest);
        let strangers = found.entry(parsed.link).or_default();
        match strangers.iter_mut().find(|stranger| stranger.snapshot_name == parsed.snapshot_name) {
            Some(stranger) => {
                stranger.manifest |= manifest;
                stranger.data |= data;
            }
            None => strangers.push(Stranger { snapshot_name: parsed.snapshot_name, manifest, data }),
        }
    }
    found
}
