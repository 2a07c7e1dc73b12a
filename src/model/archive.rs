//! Archived objects: where they are, and how long S3 takes to make them readable. Pure.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects-retrieval-options.html>

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::storage_class::StorageClass;
use crate::model::utc::Utc;

/// Where objects cannot be read until they are thawed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Archive {
    /// S3 Glacier Flexible Retrieval.
    Glacier,
    /// S3 Glacier Deep Archive.
    Deep,
    /// The archive access tier of Intelligent-Tiering, and its deep archive access tier.
    Tiered,
    TieredDeep,
    /// A class of another server than AWS.
    Other,
}

/// How fast S3 thaws; the slower, the cheaper. In files as the user writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    Bulk,
    Standard,
    Expedited,
}

impl Archive {
    /// Judging by names, which may mean something else on other servers than AWS: only a GET can tell.
    /// `status`: the header `x-amz-archive-status`.
    pub fn of(class: Option<&StorageClass>, status: Option<&str>) -> Option<Archive> {
        match (class.map(StorageClass::as_str), status) {
            (_, Some("DEEP_ARCHIVE_ACCESS")) => Some(Archive::TieredDeep),
            (_, Some(_)) => Some(Archive::Tiered),
            (Some("GLACIER"), None) => Some(Archive::Glacier),
            (Some("DEEP_ARCHIVE"), None) => Some(Archive::Deep),
            (Some(_), None) if class.is_some_and(|class| !class.is_documented()) => Some(Archive::Other),
            _ => None,
        }
    }

    pub fn is_of_aws(self) -> bool {
        self != Archive::Other
    }

    /// The storage class.
    pub fn class(self) -> &'static str {
        match self {
            Archive::Glacier => "GLACIER",
            Archive::Deep => "DEEP_ARCHIVE",
            Archive::Tiered | Archive::TieredDeep => "INTELLIGENT_TIERING",
            Archive::Other => "an archive of this server",
        }
    }

    /// What S3 promises. None: it does not have this tier.
    pub fn duration(self, tier: Tier) -> Option<&'static str> {
        if self == Archive::Other {
            return Some("hours");
        }
        let is_deep = matches!(self, Archive::Deep | Archive::TieredDeep);
        match (tier, is_deep) {
            (Tier::Expedited, false) => Some("1 to 5 minutes"),
            (Tier::Standard, false) => Some("3 to 5 hours"),
            (Tier::Bulk, false) => Some("5 to 12 hours"),
            (Tier::Expedited, true) => None,
            (Tier::Standard, true) => Some("up to 12 hours"),
            (Tier::Bulk, true) => Some("up to 48 hours"),
        }
    }

    /// Does thawing make a copy, which expires? Intelligent-Tiering moves the object itself.
    pub fn makes_copies(self) -> bool {
        !matches!(self, Archive::Tiered | Archive::TieredDeep)
    }
}

impl Tier {
    /// As S3 writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Tier::Bulk => "Bulk",
            Tier::Standard => "Standard",
            Tier::Expedited => "Expedited",
        }
    }
}

impl FromStr for Tier {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "bulk" => Ok(Tier::Bulk),
            "standard" => Ok(Tier::Standard),
            "expedited" => Ok(Tier::Expedited),
            _ => Err(format!("'{text}' is not a tier: it is bulk, standard or expedited")),
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.as_str().to_ascii_lowercase())
    }
}

/// Whether an object can be read now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It is not archived.
    Immediate,
    /// Through a copy, which S3 deletes at that time.
    Copy {
        archive: Archive,
        until: Option<Utc>,
    },
    /// S3 is making it readable.
    Thawing(Archive),
    Archived(Archive),
}

impl Access {
    pub fn is_readable(self) -> bool {
        matches!(self, Access::Immediate | Access::Copy { .. })
    }

    pub fn archive(self) -> Option<Archive> {
        match self {
            Access::Immediate => None,
            Access::Copy { archive, .. } | Access::Thawing(archive) | Access::Archived(archive) => {
                Some(archive)
            }
        }
    }
}

/// The header `x-amz-restore`: is S3 still making the copy, and when does it expire?
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html>
pub fn parse_restore(header: &str) -> (bool, Option<Utc>) {
    let value = |name: &str| header.split_once(name)?.1.trim_start().strip_prefix("=\"")?.split('"').next();
    let until = value("expiry-date").and_then(|text| Utc::from_http(text).ok());
    (value("ongoing-request") != Some("false"), until)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_an_object_is() {
        let of = |class: &str, status| Archive::of(Some(&StorageClass::of(class)), status);
        assert_eq!(of("GLACIER", None), Some(Archive::Glacier));
        assert_eq!(of("DEEP_ARCHIVE", None), Some(Archive::Deep));
        assert_eq!(of("INTELLIGENT_TIERING", Some("ARCHIVE_ACCESS")), Some(Archive::Tiered));
        assert_eq!(of("INTELLIGENT_TIERING", Some("DEEP_ARCHIVE_ACCESS")), Some(Archive::TieredDeep));
        for class in ["GLACIER_IR", "INTELLIGENT_TIERING", "STANDARD"] {
            assert_eq!(of(class, None), None, "{class}");
        }
        assert_eq!(of("ACCELERATED", None), Some(Archive::Other), "a GET decides");
        assert_eq!(Archive::of(None, None), None);
    }

    #[test]
    fn how_long_it_takes() {
        assert_eq!(Archive::Deep.duration(Tier::Expedited), None);
        assert_eq!(Archive::TieredDeep.duration(Tier::Expedited), None);
        assert_eq!(Archive::Deep.duration(Tier::Bulk), Some("up to 48 hours"));
        assert_eq!(Archive::Glacier.duration(Tier::Bulk), Some("5 to 12 hours"));
        assert_eq!("Bulk".parse(), Ok(Tier::Bulk));
        assert!("fast".parse::<Tier>().is_err());
    }

    #[test]
    fn the_state_of_a_copy() {
        assert_eq!(parse_restore("ongoing-request=\"true\""), (true, None));
        let (ongoing, until) =
            parse_restore("ongoing-request=\"false\", expiry-date=\"Fri, 21 Dec 2012 00:00:00 GMT\"");
        assert!(!ongoing);
        assert_eq!(until.unwrap().to_string(), "2012-12-21T00:00:00Z");
        assert_eq!(parse_restore("ongoing-request=\"false\", expiry-date=\"soon\""), (false, None));
        assert_eq!(parse_restore(""), (true, None), "not known to be readable");
    }
}
