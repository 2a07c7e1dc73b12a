//! The properties that were kept with a backup, set on the dataset that it was restored into.

use std::cmp::Reverse;
use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::inventory::read_manifest::{Chunks, ManifestRead, read_manifest, unusable};
use crate::model::backup::Point;
use crate::model::manifest::Stream;
use crate::model::properties::{self, Properties, is_harmless};
use crate::model::shell::quoted;
use crate::s3::client::Client;
use crate::state::store::format::{Contents, Entry, State};
use crate::zfs::Zfs;

/// The kept properties that the target does not have.
#[derive(Debug, PartialEq)]
pub struct ToSet {
    /// Name and value.
    pub harmless: Vec<(String, String)>,
    /// What would change where the files appear, or who can reach them: for the user to decide.
    pub others: Vec<(String, String)>,
}

/// Those that a backup of this snapshot has: the one that was stored last, of the dataset with this name, if
/// its manifest can be read.
pub fn kept(client: &Client, contents: &Contents, wanted: &Point) -> Result<Properties> {
    let is_it = |entry: &&Entry| entry.snapshot.guid == wanted.guid && entry.state == State::Stored;
    let mut backups: Vec<(&Entry, &Stream)> = contents
        .entries
        .iter()
        .filter(is_it)
        .filter_map(|entry| Some((entry, entry.stream.as_ref()?)))
        .collect();
    backups.sort_by_key(|(entry, stream)| Reverse((entry.snapshot.name == wanted.name, stream.stored)));
    let mut unreadable = None;
    for (entry, stream) in backups {
        let key = entry.first_key(&contents.prefix);
        let error = match read_manifest(client, &key, stream.size, Chunks::Checked)? {
            ManifestRead::Found(read) => return Ok(read.manifest.properties),
            ManifestRead::Missing => Error::failed(format!("the bucket has no object '{key}'")),
            ManifestRead::Unreadable { why, .. } => unusable(&key, why),
        };
        unreadable.get_or_insert(error);
    }
    unreadable.map_or(Ok(Properties::new()), Err)
}

/// `there`: what is set on the target, as `zfs get -Hp` prints it.
pub fn to_set(kept: Properties, there: &str) -> ToSet {
    // a raw receive sets this, whatever the original has
    let is_set = |(name, value): &(&str, &str)| (*name, *value) != ("keylocation", "prompt");
    let there: HashSet<&str> = properties::pairs(there).filter(is_set).map(|(name, _)| name).collect();
    let missing = kept.into_iter().filter(|(name, _)| !there.contains(name.as_str()));
    let is_prompt = |(name, value): &(String, String)| name == "keylocation" && value == "prompt";
    let (harmless, others) =
        missing.filter(|pair| !is_prompt(pair)).partition(|(name, value)| is_harmless(name, value));
    ToSet { harmless, others }
}

/// Returns the names of those that ZFS refused, and why.
pub fn set(zfs: &Zfs, to_set: &ToSet, target: &str) -> Vec<(String, Error)> {
    let refused = |(name, value): &(String, String)| {
        zfs.set(name, value, target).err().map(|error| (name.clone(), error))
    };
    to_set.harmless.iter().filter_map(refused).collect()
}

/// The command that sets one of them.
pub fn command((name, value): &(String, String), target: &str) -> String {
    format!("zfs set {} {}", quoted(&format!("{name}={value}")), quoted(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_on_the_target_stays() {
        let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
        let kept =
            [pair("quota", "1"), pair("atime", "off"), pair("mountpoint", "/home"), pair("it:x", "a b")];
        let planned = to_set(kept.into(), &format!("quota\t2\nit:long\t{}\n", "x".repeat(9999)));
        assert_eq!(planned.harmless, [pair("atime", "off"), pair("it:x", "a b")]);
        assert_eq!(planned.others, [pair("mountpoint", "/home")]);
        assert_eq!(command(&planned.harmless[1], "tank/a b"), "zfs set 'it:x=a b' 'tank/a b'");
        assert_eq!(command(&planned.others[0], "tank/back"), "zfs set mountpoint=/home tank/back");
    }

    #[test]
    fn the_place_of_a_key_is_shown_although_a_raw_receive_sets_prompt() {
        let kept = |value: &str| Properties::from([("keylocation".to_string(), value.to_string())]);
        assert_eq!(to_set(kept("file:///root/key"), "keylocation\tprompt\n").others.len(), 1);
        assert_eq!(to_set(kept("file:///root/key"), "keylocation\tfile:///x\n").others.len(), 0);
        assert_eq!(to_set(kept("prompt"), "keylocation\tprompt\n").others.len(), 0);
    }
}
