//! Compares the objects of a backup in the bucket with what its manifest says. Pure.

use std::fmt;

use crate::model::manifest::Segment;
use crate::model::utc::Utc;
use crate::s3::calls::Head;
use crate::s3::reply::Object;

/// Seconds by which the clocks of this host and the server may differ.
const CLOCK_SKEW: i64 = 3600;

/// What is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    Missing,
    Size {
        found: u64,
        expected: u64,
    },
    /// Another object has its key.
    Replaced {
        etag: String,
    },
    /// The manifest does not name it.
    Unknown,
    /// Its ETag is another one, but its SHA-256 is the same.
    Copied,
    /// It is newer than the backup, and the server keeps no SHA-256: only reading it tells.
    Newer {
        modified: String,
    },
    /// In words.
    Manifest(String),
    Read(String),
    /// It could not be looked at, or read.
    Unchecked(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Note,
    Unchecked,
    Damage,
}

impl Problem {
    pub fn severity(&self) -> Severity {
        match self {
            Problem::Copied => Severity::Note,
            Problem::Newer { .. } | Problem::Unchecked(_) => Severity::Unchecked,
            _ => Severity::Damage,
        }
    }

    /// Is it nothing, if all of the object has the right hashes?
    pub fn is_decided_by_reading(&self) -> bool {
        matches!(self, Problem::Copied | Problem::Replaced { .. } | Problem::Newer { .. })
    }

    /// Does the backup lose anything by it?
    pub fn prevents_restore(&self) -> bool {
        self.severity() == Severity::Damage && *self != Problem::Unknown
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Missing => f.write_str("it is missing"),
            Problem::Size { found, expected } => write!(f, "it has {found} bytes, not {expected}"),
            Problem::Replaced { etag } => {
                write!(
                    f,
                    "it is not the object that was stored: its ETag is {etag}, and its SHA-256 is not the same"
                )
            }
            Problem::Unknown => f.write_str("the manifest does not name it"),
            Problem::Copied => {
                f.write_str("it was copied, since its ETag has changed, but its SHA-256 is the same")
            }
            Problem::Newer { modified } => write!(
                f,
                "it was changed after it was stored, at {modified}, and the server keeps no SHA-256: 'zfs2s3 verify --deep' reads it"
            ),
            Problem::Manifest(why) | Problem::Read(why) | Problem::Unchecked(why) => f.write_str(why),
        }
    }
}

/// What a listing shows of an object.
#[derive(Debug, PartialEq, Eq)]
pub enum Listed {
    Same,
    Wrong(Problem),
    /// Its ETag is another one, or not listed: HEAD shows more.
    Unclear,
}

pub fn compare(expected: &Segment, listed: Option<&Object>) -> Listed {
    match listed {
        None => Listed::Wrong(Problem::Missing),
        Some(object) if object.size != expected.size => {
            Listed::Wrong(Problem::Size { found: object.size, expected: expected.size })
        }
        Some(object) if is_same(&object.etag, &expected.etag) => Listed::Same,
        Some(_) => Listed::Unclear,
    }
}

/// With or without quotes.
fn is_same(one: &str, other: &str) -> bool {
    let bare = |etag: &str| etag.trim_matches('"').to_ascii_lowercase();
    !bare(one).is_empty() && bare(one) == bare(other)
}

/// For an object that is unclear by its listing. `stored`: when the backup was.
pub fn judge(expected: &Segment, head: Option<&Head>, modified: &str, stored: Utc) -> Option<Problem> {
    let Some(head) = head else { return Some(Problem::Missing) };
    if head.size != expected.size {
        return Some(Problem::Size { found: head.size, expected: expected.size });
    }
    match (&expected.checksum, &head.checksum) {
        _ if is_same(&head.etag, &expected.etag) => None,
        (Some(wanted), Some(found)) if wanted == found => Some(Problem::Copied),
        (Some(_), _) => Some(Problem::Replaced { etag: head.etag.clone() }),
        // the ETags of some servers are not those that they gave at first
        (None, _) => {
            let is_newer = match Utc::lenient(modified) {
                Ok(modified) => modified.unix_seconds() > stored.unix_seconds() + CLOCK_SKEW,
                Err(_) => false,
            };
            is_newer.then(|| Problem::Newer { modified: modified.to_string() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::object_lock::ObjectLock;

    fn expected(checksum: Option<&str>) -> Segment {
        let checksum = checksum.map(str::to_string);
        Segment { key: "k".to_string(), size: 700, etag: "\"ab-2\"".to_string(), checksum }
    }

    fn listed(size: u64, etag: &str) -> Listed {
        let object = Object { key: "k".to_string(), size, modified: String::new(), etag: etag.to_string() };
        compare(&expected(None), Some(&object))
    }

    #[test]
    fn what_a_listing_shows() {
        assert_eq!(compare(&expected(None), None), Listed::Wrong(Problem::Missing));
        assert_eq!(listed(700, "\"ab-2\""), Listed::Same);
        assert_eq!(listed(700, "AB-2"), Listed::Same);
        assert_eq!(listed(699, "\"ab-2\""), Listed::Wrong(Problem::Size { found: 699, expected: 700 }));
        assert_eq!(listed(700, ""), Listed::Unclear);
        assert_eq!(listed(700, "\"cd-2\""), Listed::Unclear);
    }

    #[test]
    fn what_head_shows() {
        let stored = Utc::try_from("2026-01-01T00:00:00Z".to_string()).unwrap();
        let judged = |ours: Option<&str>, etag: &str, theirs: Option<&str>, modified: &str| {
            let head = Head {
                size: 700,
                etag: etag.to_string(),
                checksum: theirs.map(str::to_string),
                storage_class: None,
                restore: None,
                archive_status: None,
                lock: ObjectLock::default(),
            };
            judge(&expected(ours), Some(&head), modified, stored)
        };
        let (then, later) = ("2026-01-01T00:30:00Z", "2026-03-01T00:00:00Z");
        assert_eq!(judged(Some("S"), "\"ab-2\"", Some("S"), later), None);
        assert_eq!(judged(Some("S"), "\"cd\"", Some("S"), later), Some(Problem::Copied));
        let replaced = Some(Problem::Replaced { etag: "\"cd\"".to_string() });
        assert_eq!(judged(Some("S"), "\"cd\"", Some("T"), then), replaced);
        assert_eq!(judged(Some("S"), "\"cd\"", None, then), replaced);
        assert_eq!(judged(None, "\"cd\"", None, then), None, "ETags of this server do not last");
        assert_eq!(judged(None, "\"cd\"", None, ""), None);
        let newer = Some(Problem::Newer { modified: later.to_string() });
        assert_eq!(judged(None, "\"cd\"", None, later), newer);
        assert_eq!(judge(&expected(None), None, "", stored), Some(Problem::Missing));
    }
}
