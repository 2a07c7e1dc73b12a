//! Object keys. Pure. For the snapshot `tank/home@jan-02` with guid G and base guid P (16 hex digits):
//!
//!     <prefix>tank/home@jan-02/G-full.zfs   or   <prefix>tank/home@jan-02/G-from-P.zfs   first segment
//!     … .zfs.2, .zfs.3 …                                                                 further segments
//!     … .yml                                                                             manifest
//!
//! So a key names one backup for ever, and the whole graph can be read off a listing.

use crate::backup::{Backup, Link};
use crate::names::{Guid, check_point_name};

#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    Manifest,
    Segment(u32),
}

/// What a key says about its object.
#[derive(Debug, PartialEq, Eq)]
pub struct Parsed {
    pub snapshot_name: String,
    pub link: Link,
    pub kind: Kind,
}

fn stem(prefix: &str, backup: &Backup) -> String {
    let snapshot = &backup.snapshot;
    match &backup.base {
        None => format!("{prefix}{}/{}-full", snapshot.name, snapshot.guid.hex()),
        Some(base) => format!("{prefix}{}/{}-from-{}", snapshot.name, snapshot.guid.hex(), base.guid.hex()),
    }
}

pub fn manifest(prefix: &str, backup: &Backup) -> String {
    stem(prefix, backup) + ".yml"
}

/// `number` from 1 on.
pub fn segment(prefix: &str, backup: &Backup, number: u32) -> String {
    match number {
        1 => stem(prefix, backup) + ".zfs",
        n => format!("{}.zfs.{n}", stem(prefix, backup)),
    }
}

/// The key under which the older Python tool stored a backup.
pub fn python(backup: &Backup) -> String {
    match &backup.base {
        None => backup.snapshot.name.clone(),
        Some(base) => format!("{} <- {}", backup.snapshot.name, base.name),
    }
}

/// None: not one of ours.
pub fn parse(prefix: &str, key: &str) -> Option<Parsed> {
    let (snapshot_name, file) = key.strip_prefix(prefix)?.rsplit_once('/')?;
    check_point_name(snapshot_name, "@").ok()?;
    let (id, kind) = match file.split_once('.')? {
        (id, "yml") => (id, Kind::Manifest),
        (id, "zfs") => (id, Kind::Segment(1)),
        (id, rest) => (id, Kind::Segment(further_segment(rest.strip_prefix("zfs.")?)?)),
    };
    let (snapshot, from) = id.split_once('-')?;
    let base = match from {
        "full" => None,
        from => Some(Guid::from_hex(from.strip_prefix("from-")?)?),
    };
    let link = Link { snapshot: Guid::from_hex(snapshot)?, base };
    Some(Parsed { snapshot_name: snapshot_name.to_string(), link, kind })
}

fn further_segment(digits: &str) -> Option<u32> {
    let number: u32 = digits.parse().ok()?;
    (number >= 2 && number.to_string() == digits).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::Point;

    fn point(name: &str, guid: u64) -> Point {
        Point { name: name.to_string(), guid: Guid::new(guid).unwrap() }
    }

    #[test]
    fn keys_there_and_back() {
        let full = Backup { snapshot: point("tank/home@jan-02", 0xbe3b), base: None };
        let from = Backup { base: Some(point("tank/home#jan-01", 0x1)), ..full.clone() };
        assert_eq!(segment("", &full, 1), "tank/home@jan-02/000000000000be3b-full.zfs");
        assert_eq!(
            segment("nas/", &from, 2),
            "nas/tank/home@jan-02/000000000000be3b-from-0000000000000001.zfs.2"
        );
        assert_eq!(manifest("nas/", &full), "nas/tank/home@jan-02/000000000000be3b-full.yml");
        assert_eq!(python(&full), "tank/home@jan-02");
        for prefix in ["", "nas/", "a b@c/"] {
            for backup in [&full, &from] {
                let parsed = |kind| {
                    Some(Parsed { snapshot_name: backup.snapshot.name.clone(), link: backup.link(), kind })
                };
                assert_eq!(parse(prefix, &manifest(prefix, backup)), parsed(Kind::Manifest));
                for n in [1, 2, 11, u32::MAX] {
                    assert_eq!(parse(prefix, &segment(prefix, backup, n)), parsed(Kind::Segment(n)));
                }
            }
        }
    }

    #[test]
    fn other_objects_are_not_ours() {
        let guid = "000000000000be3b";
        for key in [
            "tank/home@a",
            "tank/home@b <- tank/home@a",
            "README.zfs2s3.txt",
            &format!("tank/home@a/{guid}-full"),
            &format!("tank/home@a/{guid}-full.zfs.1"),
            &format!("tank/home@a/{guid}-full.zfs.02"),
            &format!("tank/home@a/{guid}-full.zfs."),
            &format!("tank/home@a/{guid}-full.txt"),
            &format!("tank/home@a/{guid}-from-1.zfs"),
            &format!("tank/home@a/{guid}.zfs"),
            &format!("tank/home/{guid}-full.zfs"),
            &format!("../x@a/{guid}-full.zfs"),
            &format!("{guid}-full.zfs"),
        ] {
            assert_eq!(parse("", key), None, "{key}");
        }
        assert_eq!(parse("nas/", &format!("tank@a/{guid}-full.zfs")), None, "another prefix");
    }
}
