//! ~/.local/share/zfs2s3/archive_states.yml: whether archived backups could be read when S3 was last asked.
//! Only `list` shows it, and nothing is decided by it.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::store::format::Contents;
use super::store::{Folder, io_error, read_text};
use super::{durable, informative};
use crate::error::{Error, Result, Status};
use crate::model::archive::{Archive, Tier};
use crate::model::utc::Utc;
use crate::model::yaml;

const VERSION: u32 = 1;

/// By the key of the manifest.
pub type ArchiveStates = BTreeMap<String, Seen>;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    backups: ArchiveStates,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    pub state: SeenState,
    /// Since when it is being thawed, if this host has asked for that.
    pub since: Option<Utc>,
    /// What was asked for then.
    pub tier: Option<Tier>,
    pub days: Option<u32>,
    /// When the first of its copies expires.
    pub until: Option<Utc>,
    /// When S3 was asked.
    pub seen: Utc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeenState {
    Readable,
    Thawing,
    Archived,
}

/// The file, and a warning if it cannot be used.
pub fn read(folder: &Folder) -> (ArchiveStates, Option<String>) {
    match informative::read::<File>(&folder.archive_states(), VERSION) {
        Ok(found) => (found.map(|file| file.backups).unwrap_or_default(), None),
        Err(error) => (ArchiveStates::new(), Some(error.message)),
    }
}

/// Adds what was seen, and drops what is no longer in the store. What can be read is kept only if its class
/// says otherwise, or an earlier entry did.
pub fn update(folder: &Folder, contents: &Contents, news: &[(String, Seen)]) -> Result<()> {
    let path = folder.archive_states();
    let before = read_text(&path)?;
    let parsed = before.as_ref().map(|text| informative::parse::<File>(&path, text, VERSION));
    let mut backups = match parsed {
        Some(Err(error)) if error.status == Status::Refused => return Ok(()),
        Some(Ok(file)) => file.backups,
        Some(Err(_)) | None => ArchiveStates::new(),
    };
    let mut archives: HashMap<String, bool> = HashMap::new();
    for entry in &contents.entries {
        let class = entry.stream.as_ref().map(|stream| &stream.storage_class);
        let is_archive = Archive::of(class, None).is_some_and(Archive::is_of_aws);
        archives.insert(entry.first_key(&contents.prefix), is_archive);
    }
    for (key, seen) in news {
        let is_plain = seen.state == SeenState::Readable && seen.until.is_none();
        if !is_plain || archives.get(key) == Some(&true) {
            backups.insert(key.clone(), seen.clone());
        } else {
            backups.remove(key);
        }
    }
    backups.retain(|key, _| archives.contains_key(key));
    let text = yaml::to_string(&File { version: VERSION, backups }).map_err(Error::failed)?;
    if before.as_ref() == Some(&text) {
        return Ok(());
    }
    folder.make()?;
    durable::replace_shared(&path, text.as_bytes()).map_err(|e| io_error("cannot write", &path, &e))
}
