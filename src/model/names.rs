//! Names and guids of datasets, snapshots and bookmarks. Pure.
//!
//! The rules for names are OpenZFS's own (module/zcommon/zfs_namecheck.c): components of letters, digits,
//! `-`, `_`, `.`, `:` and space, none of them empty, `.` or `..`; the pool begins with a letter; fewer than
//! 256 bytes in total. So a name can never be mistaken for an option, and is never normalized as the path of
//! a URL.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// ZFS_MAX_DATASET_NAME_LEN, with its terminating NUL.
const NAME_LIMIT: usize = 256;

/// The number by which ZFS itself identifies a snapshot. It stays the same when the snapshot is renamed,
/// sent, received or turned into a bookmark; a new snapshot with an old name has another one. Written as a
/// decimal string, since YAML and JSON readers lose the low bits of large numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Guid(u64);

impl Guid {
    /// No snapshot has the guid zero: in streams it means "none".
    pub fn new(number: u64) -> Option<Self> {
        (number != 0).then_some(Guid(number))
    }
    pub fn number(self) -> u64 {
        self.0
    }
    /// As in object keys: 16 lower-case hex digits.
    pub fn hex(self) -> String {
        format!("{:016x}", self.0)
    }
    pub fn from_hex(digits: &str) -> Option<Self> {
        let plain = digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !plain {
            return None;
        }
        Guid::new(u64::from_str_radix(digits, 16).ok()?)
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for Guid {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number = if digits { text.parse().ok() } else { None };
        number.and_then(Guid::new).ok_or_else(|| format!("'{text}' is not a guid (a decimal number)"))
    }
}

serialize_as_text!(Guid);

/// `dataset@snap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotName(String);

impl SnapshotName {
    pub fn dataset(&self) -> &str {
        dataset_of(&self.0)
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SnapshotName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('@') {
            return Err(format!(
                "'{text}' is not a snapshot name: its dataset is missing (dataset@snapshot)"
            ));
        }
        check_point_name(text, "@")
            .map_err(|why| format!("'{text}' is not a snapshot name (dataset@snapshot): {why}"))?;
        Ok(SnapshotName(text.to_string()))
    }
}

/// The argument of `-i`, completed: `dataset@snap` or `dataset#bookmark`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseName(String);

impl BaseName {
    /// As in `zfs send -i`, `@snap` and `#bookmark` belong to the dataset of `snapshot`.
    pub fn parse(text: &str, snapshot: &SnapshotName) -> Result<Self, String> {
        let is_short = text.starts_with(['@', '#']);
        let full = if is_short { format!("{}{text}", snapshot.dataset()) } else { text.to_string() };
        check_point_name(&full, "@#")
            .map_err(|why| format!("'{text}' is not a base (a snapshot or a bookmark): {why}"))?;
        Ok(BaseName(full))
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `2` of `tank/a@2`.
pub fn short_name(name: &str) -> &str {
    name.rsplit('@').next().unwrap_or_default()
}

/// The part before `@` or `#`.
pub fn dataset_of(name: &str) -> &str {
    name.split(['@', '#']).next().unwrap_or(name)
}

/// Is it below this dataset, at any depth?
pub fn is_below(dataset: &str, above: &str) -> bool {
    dataset.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
}

/// Is it this dataset, or below it?
pub fn is_within(dataset: &str, top: &str) -> bool {
    dataset == top || is_below(dataset, top)
}

pub fn check_dataset_name(name: &str) -> Result<(), String> {
    if name.len() >= NAME_LIMIT {
        return Err(format!("longer than {} bytes", NAME_LIMIT - 1));
    }
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err("a pool's name begins with a letter".to_string());
    }
    name.split('/').try_for_each(check_component)
}

/// `dataset`, one of `separators`, and a last component.
pub fn check_point_name(name: &str, separators: &str) -> Result<(), String> {
    if name.len() >= NAME_LIMIT {
        return Err(format!("longer than {} bytes", NAME_LIMIT - 1));
    }
    let Some(at) = name.find(['@', '#']) else {
        return Err(format!("it has no '{}'", separators.chars().next().unwrap_or('@')));
    };
    if !separators.contains(&name[at..=at]) {
        return Err("a bookmark cannot be sent".to_string());
    }
    check_dataset_name(&name[..at])?;
    check_component(&name[at + 1..])
}

fn check_component(component: &str) -> Result<(), String> {
    match component {
        "" => Err("an empty component".to_string()),
        "." | ".." => Err(format!("'{component}' is not allowed as a component")),
        _ => match component.chars().find(|c| !is_name_char(*c)) {
            Some(bad) => Err(format!("it has {bad:?}, which is not allowed")),
            None => Ok(()),
        },
    }
}

fn is_name_char(c: char) -> bool {
    // '%' occurs only in temporary names that ZFS makes, but those can be sent
    c.is_ascii_alphanumeric() || "-_.: %".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshot_names() {
        for good in ["tank@a", "tank/home@jan-02", "tank/a b/c:d@x.y_z", "t/a@2026-11-23T10:00"] {
            assert_eq!(good.parse::<SnapshotName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "tank",
            "tank#a",
            "tank@",
            "@a",
            "/tank@a",
            "tank/@a",
            "tank//b@a",
            "tank@a@b",
            "tank@a/b",
            "-n@a",
            "1tank@a",
            "tank/..@a",
            "tank/.@x",
            "tank@..",
            "tank@a\n",
            "tank@ä",
            "tank@$(x)",
            "tank@a;b",
        ] {
            assert!(bad.parse::<SnapshotName>().is_err(), "{bad:?}");
        }
        assert!(format!("tank@{}", "x".repeat(250)).parse::<SnapshotName>().is_ok());
        assert!(format!("tank@{}", "x".repeat(251)).parse::<SnapshotName>().is_err());
    }

    #[test]
    fn bases_are_completed_as_zfs_send_does() {
        let snapshot: SnapshotName = "tank/a@2".parse().unwrap();
        for (given, full) in
            [("@1", "tank/a@1"), ("#1", "tank/a#1"), ("tank/b@1", "tank/b@1"), ("tank/a#b", "tank/a#b")]
        {
            assert_eq!(BaseName::parse(given, &snapshot).unwrap().as_str(), full);
        }
        for bad in ["1", "", "@", "#", "tank/a", "@1@2", "#1#2"] {
            assert!(BaseName::parse(bad, &snapshot).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn guids() {
        let guid: Guid = "13707626622376489106".parse().unwrap();
        assert_eq!(guid.hex(), "be3b45c974703092");
        assert_eq!(Guid::from_hex("be3b45c974703092"), Some(guid));
        assert_eq!("5".parse::<Guid>().unwrap().hex(), "0000000000000005");
        for bad in ["", "0", "-1", "+1", " 1", "1 ", "0x1", "18446744073709551616", "be3b45c974703092"] {
            assert!(bad.parse::<Guid>().is_err(), "{bad:?}");
        }
        for bad in ["", "be3b45c97470309", "BE3B45C974703092", "+000000000000001", "0000000000000000"] {
            assert_eq!(Guid::from_hex(bad), None, "{bad:?}");
        }
    }
}
