//! The properties that were kept with a backup, set on the dataset that it was restored into.

use crate::error::{Error, Result};
use crate::inventory::read_manifest::{Chunks, ManifestRead, read_manifest, unusable};
use crate::model::backup::Point;
use crate::model::properties::{self, Properties, is_harmless};
use crate::model::shell::quoted;
use crate::s3::client::Client;
use crate::state::store::format::{Contents, Entry};
use crate::zfs::Zfs;

/// The kept properties that the target does not have.
#[derive(Debug, PartialEq)]
pub struct ToSet {
    /// Name and value.
    pub harmless: Vec<(String, String)>,
    /// What would change where the files appear, or who can reach them: for the user to decide.
    pub others: Vec<(String, String)>,
}

/// Those that the newest backup of this snapshot has. One that is set on the target itself stays.
pub fn kept(client: &Client, contents: &Contents, wanted: &Point) -> Result<Properties> {
    let of_wanted = contents.entries.iter().filter(|entry| entry.snapshot.guid == wanted.guid);
    let with_manifest = of_wanted.filter_map(|entry| Some((entry, entry.stream.as_ref()?)));
    let Some((entry, stream)) = with_manifest.max_by_key(|(_, stream)| stream.stored) else {
        return Ok(Properties::new());
    };
    let key = Entry::first_key(entry, &contents.prefix);
    match read_manifest(client, &key, stream.size, Chunks::Checked)? {
        ManifestRead::Found(read) => Ok(read.manifest.properties),
        ManifestRead::Missing => Err(Error::failed(format!("the bucket has no object '{key}'"))),
        ManifestRead::Unreadable { why, .. } => Err(unusable(&key, why)),
    }
}

/// `there`: what is set on the target, as `zfs get -Hp` prints it.
pub fn to_set(kept: Properties, there: &str) -> ToSet {
    let there = properties::kept(there).0;
    let missing = kept.into_iter().filter(|(name, _)| !there.contains_key(name));
    let (harmless, others) = missing.partition(|(name, value)| is_harmless(name, value));
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
        let planned = to_set(kept.into(), "quota\t2\n");
        assert_eq!(planned.harmless, [pair("atime", "off"), pair("it:x", "a b")]);
        assert_eq!(planned.others, [pair("mountpoint", "/home")]);
        assert_eq!(command(&planned.harmless[1], "tank/a b"), "zfs set 'it:x=a b' 'tank/a b'");
        assert_eq!(command(&planned.others[0], "tank/back"), "zfs set mountpoint=/home tank/back");
    }
}
