//! ~/.local/share/zfs2s3/verified.yml: what `verify` has proven of each backup, how and when; and how far a
//! deep one has come. Only `list` shows it, and nothing is decided by it.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::store::format::Contents;
use super::store::{Folder, io_error};
use super::{durable, informative};
use crate::error::{Error, Result, Status};
use crate::model::copy::Id;
use crate::model::digest::Sha256;
use crate::model::utc::Utc;
use crate::model::yaml;
use crate::stream::check::StreamCheck;

const VERSION: u32 = 1;

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verified {
    version: u32,
    /// By the key of the manifest.
    pub backups: BTreeMap<String, Proof>,
    /// Deep verifications that are not done yet, one for each selection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deep: Vec<DeepRun>,
}

/// How thoroughly a backup was verified, the least thorough first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// By what S3 says of its objects.
    Objects,
    /// By reading some of its chunks.
    Sample,
    /// By reading all of it.
    Deep,
}

impl Method {
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Objects => "objects",
            Method::Sample => "sample",
            Method::Deep => "deep",
        }
    }
}

/// What is known of one backup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// When it was last found whole, by each method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deep: Option<Utc>,
    /// In which deep verification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deep_run: Option<Id>,
    /// The ETags of objects that are not the recorded ones, but whose data were right.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub etags: BTreeMap<String, String>,
    /// It was found damaged, and by nothing as thorough whole since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<Damage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Damage {
    pub method: Method,
    pub found: Utc,
}

impl Proof {
    pub fn add(&mut self, method: Method, is_whole: bool, now: Utc) {
        if !is_whole {
            self.damaged = Some(Damage { method, found: now });
            return;
        }
        if self.damaged.is_some_and(|damage| damage.method <= method) {
            self.damaged = None;
        }
        let time = match method {
            Method::Objects => &mut self.objects,
            Method::Sample => &mut self.sample,
            Method::Deep => &mut self.deep,
        };
        *time = Some(now);
        if method > Method::Objects {
            self.objects = Some(now);
        }
    }

    /// The most thorough proof that there is.
    pub fn best(&self) -> Option<(Method, Utc)> {
        let all = [(Method::Deep, self.deep), (Method::Sample, self.sample), (Method::Objects, self.objects)];
        all.into_iter().find_map(|(method, time)| Some((method, time?)))
    }
}

/// A deep verification: the same command continues it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeepRun {
    pub id: Id,
    pub since: Utc,
    /// The snapshots that were asked for; none: all.
    pub snapshots: Vec<String>,
    /// In the middle of a backup.
    pub at: Option<DeepPosition>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeepPosition {
    /// The key of the manifest.
    pub manifest: String,
    /// Of the chunks that were read so far, as part of this whole.
    pub composite_sha256: Sha256,
    /// Bytes.
    pub position: u64,
    pub check: StreamCheck,
}

/// The file, and a warning if it cannot be used.
pub fn read(folder: &Folder) -> (Verified, Option<String>) {
    match informative::read(&folder.verified(), VERSION) {
        Ok(found) => (found.unwrap_or_default(), None),
        Err(error) => (Verified::default(), Some(error.message)),
    }
}

/// Changes the file, and drops what is no longer in the store.
pub fn update(folder: &Folder, contents: &Contents, change: impl FnOnce(&mut Verified)) -> Result<()> {
    let path = folder.verified();
    let mut verified: Verified = match informative::read(&path, VERSION) {
        Err(error) if error.status == Status::Refused => return Ok(()),
        read => read.ok().flatten().unwrap_or_default(),
    };
    change(&mut verified);
    verified.version = VERSION;
    let keys: HashSet<String> =
        contents.entries.iter().map(|entry| entry.first_key(&contents.prefix)).collect();
    verified.backups.retain(|key, _| keys.contains(key));
    let text = yaml::to_string(&verified).map_err(Error::failed)?;
    folder.make()?;
    durable::replace_shared(&path, text.as_bytes()).map_err(|e| io_error("cannot write", &path, &e))
}

/// For a store that is made anew: what was proven of another one does not count.
pub fn forget(folder: &Folder) {
    let _ = durable::remove(&folder.verified());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(day: u32) -> Utc {
        Utc::try_from(format!("2026-01-{day:02}T00:00:00Z")).unwrap()
    }

    #[test]
    fn damage_stays_known_until_something_as_thorough_finds_none() {
        let mut proof = Proof::default();
        proof.add(Method::Deep, true, time(1));
        proof.add(Method::Sample, false, time(2));
        proof.add(Method::Objects, true, time(3));
        let damage = Damage { method: Method::Sample, found: time(2) };
        assert_eq!((proof.damaged, proof.best()), (Some(damage), Some((Method::Deep, time(1)))));
        assert_eq!(proof.objects, Some(time(3)));
        proof.add(Method::Deep, true, time(4));
        assert_eq!((proof.damaged, proof.objects), (None, Some(time(4))));
    }
}
