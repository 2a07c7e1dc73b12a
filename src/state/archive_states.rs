//! ~/.local/share/zfs2s3/archive_states.yml: whether archived backups could be read when S3 was last asked.
//! Only `list` shows it, and nothing is decided by it.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::durable;
use super::store::format::Contents;
use super::store::{Folder, io_error, read_text};
use crate::error::{Error, Result};
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

pub fn read(folder: &Folder) -> Result<ArchiveStates> {
    let path = folder.archive_states();
    let Some(text) = read_text(&path)? else { return Ok(ArchiveStates::new()) };
    match yaml::from_str::<File>(&text) {
        Ok(File { version: VERSION, backups }) => Ok(backups),
        Ok(File { version, .. }) => Err(unusable(folder, &format!("it has version {version}"))),
        Err(why) => Err(unusable(folder, &why)),
    }
}

fn unusable(folder: &Folder, why: &str) -> Error {
    Error::failed(format!("{} cannot be used: {why}", folder.archive_states().display()))
        .hint("delete it: 'zfs2s3 thaw' writes a new one")
}

/// Adds what was seen, and drops what is no longer in the store.
pub fn update(folder: &Folder, contents: &Contents, news: Vec<(String, Seen)>) -> Result<ArchiveStates> {
    let mut backups = read(folder)?;
    for (key, mut seen) in news {
        if let Some(before) = backups.get(&key).filter(|before| before.state == SeenState::Thawing)
            && seen.state == SeenState::Thawing
        {
            seen.since = before.since.or(seen.since);
        }
        backups.insert(key, seen);
    }
    let stored: HashSet<String> =
        contents.entries.iter().filter_map(|entry| entry.keys(&contents.prefix).into_iter().next()).collect();
    backups.retain(|key, _| stored.contains(key));
    let file = File { version: VERSION, backups };
    let text = yaml::to_string(&file).map_err(Error::failed)?;
    let path = folder.archive_states();
    folder.make()?;
    durable::replace(&path, text.as_bytes()).map_err(|e| io_error("cannot write", &path, &e))?;
    Ok(file.backups)
}
