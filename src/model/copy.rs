//! One copy of a backup in the bucket, and the random ID that distinguishes its keys. Pure.
//!
//! Every upload makes a copy of its own. Two hosts that store the same backup at the same time make two
//! copies, and neither ever overwrites, adopts or deletes the other's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::backup::Link;

/// Eight hex digits: of an upload, or of an announced removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Id(pub u32);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl FromStr for Id {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let plain = text.len() == 8 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let number = if plain { u32::from_str_radix(text, 16).ok() } else { None };
        number.map(Id).ok_or_else(|| format!("'{text}' is not the ID of a copy (8 hex digits)"))
    }
}

serialize_as_text!(Id);

/// What a user writes for a copy whose keys have no ID.
pub const NO_ID: &str = "none";

/// The ID of a copy as a user writes it; none: `none`.
pub fn parse_id(text: &str) -> Result<Option<Id>, String> {
    if text == NO_ID { Ok(None) } else { text.parse().map(Some) }
}

/// The reverse of [`parse_id`].
pub fn shown(id: Option<Id>) -> String {
    id.map_or(NO_ID.to_string(), |id| id.to_string())
}

/// What the keys of a copy have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CopyName {
    /// The snapshot's name when it was stored.
    pub name: String,
    pub link: Link,
    /// None: stored by a version whose keys had no ID.
    pub id: Option<Id>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_eight_lower_case_hex_digits() {
        assert_eq!(Id(0xab).to_string(), "000000ab");
        assert_eq!("000000ab".parse(), Ok(Id(0xab)));
        for bad in ["", "ab", "000000AB", "000000abc", "+00000ab", "0x0000ab"] {
            assert!(bad.parse::<Id>().is_err(), "{bad:?}");
        }
    }
}
