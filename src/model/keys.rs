//! Object keys. Pure. For the snapshot `tank/home@jan-02` with guid G and base guid P (16 hex digits), and ID
//! of the upload (8):
//!
//! ```text
//! <prefix>tank/home@jan-02/G-full-ID.zfs   or   <prefix>tank/home@jan-02/G-from-P-ID.zfs   first segment
//! … .zfs.2, .zfs.3 …                                                                       further segments
//! … .yml                                                                                   manifest
//! … .removing-NONCE                                                                        its removal is announced
//! <prefix>tank/home@jan-02/G-full.keep-NONCE                                               no copy of it is removed
//! ```
//!
//! So a key names one copy of one backup for ever, and a listing shows the whole graph. Keys of version 1
//! have no ID.

use crate::model::backup::{Backup, Link};
use crate::model::copy::{CopyName, Id};
use crate::model::names::{Guid, check_point_name};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKind {
    Manifest,
    Segment(u32),
    /// The announcement of the removal of the copy.
    Removing(Id),
    /// A mark that the backup is kept, whichever copy it has.
    Keep(Id),
}

/// What a key says about its object.
#[derive(Debug, PartialEq, Eq)]
pub struct Parsed {
    pub copy: CopyName,
    pub kind: ObjectKind,
}

/// The common beginning of all keys of a copy. In the keys of a copy without an ID a dot follows.
pub fn stem(prefix: &str, CopyName { name, link, id }: &CopyName) -> String {
    let snapshot = link.snapshot.hex();
    let from = link.base.map_or("full".to_string(), |base| format!("from-{}", base.hex()));
    let id = id.map(|id| format!("-{id}")).unwrap_or_default();
    format!("{prefix}{name}/{snapshot}-{from}{id}.")
}

pub fn manifest(prefix: &str, copy: &CopyName) -> String {
    stem(prefix, copy) + "yml"
}

/// `number`: from 1.
pub fn segment(prefix: &str, copy: &CopyName, number: u32) -> String {
    match number {
        1 => stem(prefix, copy) + "zfs",
        n => format!("{}zfs.{n}", stem(prefix, copy)),
    }
}

pub fn announcement(prefix: &str, copy: &CopyName, nonce: Id) -> String {
    format!("{}removing-{nonce}", stem(prefix, copy))
}

pub fn keep(prefix: &str, copy: &CopyName, nonce: Id) -> String {
    format!("{}keep-{nonce}", stem(prefix, &CopyName { id: None, ..copy.clone() }))
}

/// The key that the older Python tool gave a backup.
pub fn python(backup: &Backup) -> String {
    match &backup.base {
        None => backup.snapshot.name.clone(),
        Some(base) => format!("{} <- {}", backup.snapshot.name, base.name),
    }
}

/// None: it is not the key of a backup.
pub fn parse(prefix: &str, key: &str) -> Option<Parsed> {
    let (name, file) = key.strip_prefix(prefix)?.rsplit_once('/')?;
    check_point_name(name, "@").ok()?;
    let (stem, rest) = file.split_once('.')?;
    let kind = match rest {
        "yml" => ObjectKind::Manifest,
        "zfs" => ObjectKind::Segment(1),
        rest => match rest.split_once(['-', '.'])? {
            ("removing", nonce) => ObjectKind::Removing(nonce.parse().ok()?),
            ("keep", nonce) => ObjectKind::Keep(nonce.parse().ok()?),
            _ => ObjectKind::Segment(further_segment(rest.strip_prefix("zfs.")?)?),
        },
    };
    let mut words = stem.split('-');
    let snapshot = Guid::from_hex(words.next()?)?;
    let base = match words.next()? {
        "full" => None,
        "from" => Some(Guid::from_hex(words.next()?)?),
        _ => return None,
    };
    let id = words.next().map(str::parse).transpose().ok()?;
    let copy = CopyName { name: name.to_string(), link: Link { snapshot, base }, id };
    words.next().is_none().then_some(Parsed { copy, kind })
}

/// The backup that this object marks as kept, if it does. An empty mark is withdrawn.
pub fn kept_backup(prefix: &str, key: &str, size: u64) -> Option<Link> {
    let Parsed { copy, kind } = parse(prefix, key)?;
    (size > 0 && matches!(kind, ObjectKind::Keep(_))).then_some(copy.link)
}

fn further_segment(digits: &str) -> Option<u32> {
    let number: u32 = digits.parse().ok()?;
    (number >= 2 && number.to_string() == digits).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::backup::Point;

    #[test]
    fn keys_are_parsed_as_they_are_made() {
        let guid = |number| Guid::new(number).unwrap();
        let full = CopyName {
            name: "tank/home@jan-02".to_string(),
            link: Link { snapshot: guid(0xbe3b), base: None },
            id: Some(Id(0x1f)),
        };
        let from = CopyName { link: Link { base: Some(guid(1)), ..full.link }, ..full.clone() };
        let older = CopyName { id: None, ..from.clone() };
        assert_eq!(segment("", &full, 1), "tank/home@jan-02/000000000000be3b-full-0000001f.zfs");
        assert_eq!(
            segment("nas/", &from, 2),
            "nas/tank/home@jan-02/000000000000be3b-from-0000000000000001-0000001f.zfs.2"
        );
        assert_eq!(segment("", &older, 1), "tank/home@jan-02/000000000000be3b-from-0000000000000001.zfs");
        assert_eq!(manifest("nas/", &full), "nas/tank/home@jan-02/000000000000be3b-full-0000001f.yml");
        let announced = "tank/home@jan-02/000000000000be3b-full-0000001f.removing-000000ff";
        assert_eq!(announcement("", &full, Id(255)), announced);
        for prefix in ["", "nas/", "a b@c/"] {
            for copy in [&full, &from, &older] {
                let parsed = |kind| Some(Parsed { copy: copy.clone(), kind });
                assert_eq!(parse(prefix, &manifest(prefix, copy)), parsed(ObjectKind::Manifest));
                assert_eq!(
                    parse(prefix, &announcement(prefix, copy, Id(7))),
                    parsed(ObjectKind::Removing(Id(7)))
                );
                let kept = parse(prefix, &keep(prefix, copy, Id(7))).map(|mark| (mark.copy.link, mark.kind));
                assert_eq!(kept, Some((copy.link, ObjectKind::Keep(Id(7)))));
                for n in [1, 2, 11, u32::MAX] {
                    assert_eq!(parse(prefix, &segment(prefix, copy, n)), parsed(ObjectKind::Segment(n)));
                }
            }
        }
        let snapshot = Point { name: "tank/home@jan-02".to_string(), guid: guid(1) };
        assert_eq!(python(&Backup { snapshot, base: None }), "tank/home@jan-02");
    }

    #[test]
    fn other_keys_are_not_those_of_backups() {
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
            &format!("tank/home@a/{guid}-full-1f.zfs"),
            &format!("tank/home@a/{guid}-full-0000001F.zfs"),
            &format!("tank/home@a/{guid}-full-0000001f-0000001f.zfs"),
            &format!("tank/home@a/{guid}-full-0000001f.removing"),
            &format!("tank/home@a/{guid}-full-0000001f.removing-1"),
            &format!("tank/home@a/{guid}-full-from-{guid}.zfs"),
            &format!("tank/home/{guid}-full.zfs"),
            &format!("../x@a/{guid}-full.zfs"),
            &format!("{guid}-full.zfs"),
        ] {
            assert_eq!(parse("", key), None, "{key}");
        }
        assert_eq!(parse("nas/", &format!("tank@a/{guid}-full.zfs")), None, "another prefix");
    }
}
