//! ~/.local/share/zfs2s3/archive_states.yml: whether archived backups could be read when S3 was last asked.
//! Only `list` shows it, and nothing is decided by it.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::durable;
use super::store::format::Contents;
use super::store::{Folder, io_error, read_text};
use crate::error::{Error, Result};
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

#[derive(Deserialize)]
struct OnlyVersion {
    version: u32,
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

/// The file, and a warning if it cannot be used. A damaged one counts as empty.
pub fn read(folder: &Folder) -> (ArchiveStates, Option<String>) {
    match read_file(folder) {
        Ok(Some(file)) => (file.backups, None),
        Ok(None) => (ArchiveStates::new(), None),
        Err(error) => (ArchiveStates::new(), Some(error.message)),
    }
}

fn read_file(folder: &Folder) -> Result<Option<File>> {
    let path = folder.archive_states();
    let unusable = |why: String| Error::failed(format!("{} cannot be used: {why}", path.display()));
    let Some(text) = read_text(&path)? else { return Ok(None) };
    if is_newer(&text) {
        return Err(unusable("a newer version of zfs2s3 wrote it".to_string()));
    }
    yaml::from_str::<File>(&text).map(Some).map_err(unusable)
}

fn is_newer(text: &str) -> bool {
    yaml::from_str::<OnlyVersion>(text).is_ok_and(|file| file.version > VERSION)
}

/// Adds what was seen, and drops what is no longer in the store. What can be read is kept only if its class
/// says otherwise, or an earlier entry did.
pub fn update(folder: &Folder, contents: &Contents, news: &[(String, Seen)]) -> Result<()> {
    let path = folder.archive_states();
    if read_text(&path)?.is_some_and(|text| is_newer(&text)) {
        return Ok(());
    }
    let (mut backups, _) = read(folder);
    let mut archives: HashMap<String, bool> = HashMap::new();
    for entry in &contents.entries {
        let class = entry.stream.as_ref().map(|stream| &stream.storage_class);
        if let Some(key) = entry.keys(&contents.prefix).into_iter().next() {
            archives.insert(key, Archive::of(class, None).is_some_and(Archive::is_of_aws));
        }
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
    if read_text(&path)?.as_ref() == Some(&text) {
        return Ok(());
    }
    folder.make()?;
    durable::replace_shared(&path, text.as_bytes()).map_err(|e| io_error("cannot write", &path, &e))
}
