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
    Copied {
        etag: String,
    },
    /// Its ETag is another one, and there is no SHA-256 that could be compared: only reading it tells.
    Unclear {
        etag: String,
    },
    NoBase,
    /// Of the manifest, in words.
    Manifest(String),
    /// What was read, in words that name the object.
    Read(String),
    /// `zfs receive` would lose something, in words.
    Loses(String),
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
            Problem::Copied { .. } => Severity::Note,
            Problem::Unclear { .. } | Problem::Unchecked(_) => Severity::Unchecked,
            _ => Severity::Damage,
        }
    }

    pub fn is_unclear(&self) -> bool {
        matches!(self, Problem::Unclear { .. })
    }

    /// After all of the object was read, and was right.
    pub fn clear(&mut self) {
        if let Problem::Unclear { etag } = self {
            *self = Problem::Copied { etag: std::mem::take(etag) };
        }
    }

    /// Is there no use in reading the backup?
    pub fn prevents_reading(&self) -> bool {
        matches!(self, Problem::Missing | Problem::Size { .. } | Problem::Manifest(_) | Problem::Read(_))
    }

    /// Can the backup not be restored because of it?
    pub fn prevents_restore(&self) -> bool {
        self.severity() == Severity::Damage && !matches!(self, Problem::Unknown | Problem::Loses(_))
    }

    /// In words, about the object with this key.
    pub fn describe(&self, key: &str) -> String {
        match self {
            Problem::Read(why) | Problem::Loses(why) | Problem::Unchecked(why) => why.clone(),
            Problem::NoBase => self.to_string(),
            _ => format!("the object '{key}': {self}"),
        }
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
                    "it is not the object that was stored: its ETag is {etag}, and its SHA-256 is another one, too"
                )
            }
            Problem::Unknown => f.write_str("the manifest does not name it"),
            Problem::Copied { .. } => {
                f.write_str("it was copied, since its ETag has changed, but its SHA-256 is the same")
            }
            Problem::Unclear { etag } => write!(
                f,
                "its ETag is {etag}, and S3 has no SHA-256 of it that could be compared: 'zfs2s3 verify -D' reads it"
            ),
            Problem::NoBase => f.write_str("its base cannot be restored"),
            Problem::Manifest(why) | Problem::Read(why) | Problem::Loses(why) | Problem::Unchecked(why) => {
                f.write_str(why)
            }
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

/// For an object that is unclear by its listing. `proven`: the ETag with which it was read, and was right.
/// `stored`: when the backup was.
pub fn judge(expected: &Segment, head: Option<&Head>, proven: Option<&str>, stored: Utc) -> Option<Problem> {
    let Some(head) = head else { return Some(Problem::Missing) };
    if head.size != expected.size {
        return Some(Problem::Size { found: head.size, expected: expected.size });
    }
    let etag = head.etag.clone();
    match (&expected.checksum, &head.checksum) {
        _ if is_same(&head.etag, &expected.etag) => None,
        (Some(wanted), Some(found)) if wanted == found => Some(Problem::Copied { etag }),
        (Some(wanted), Some(found)) if parts_of(wanted) == parts_of(found) => {
            Some(Problem::Replaced { etag })
        }
        _ if proven.is_some_and(|proven| is_same(proven, &etag)) => Some(Problem::Copied { etag }),
        // the ETags of some servers are not those that they gave at first
        (None, _) if head.modified.is_some_and(|modified| !is_later(modified, stored)) => None,
        _ => Some(Problem::Unclear { etag }),
    }
}

fn is_later(modified: Utc, stored: Utc) -> bool {
    modified.unix_seconds() > stored.unix_seconds() + CLOCK_SKEW
}

/// Of a composite SHA-256: those of other numbers of parts cannot be compared.
fn parts_of(checksum: &str) -> Option<&str> {
    checksum.rsplit_once('-').map(|(_, parts)| parts)
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
        let judged = |ours: Option<&str>, etag: &str, theirs: Option<&str>, modified: Option<&str>| {
            let head = Head {
                size: 700,
                etag: etag.to_string(),
                checksum: theirs.map(str::to_string),
                modified: modified.map(|text| Utc::try_from(text.to_string()).unwrap()),
                storage_class: None,
                restore: None,
                archive_status: None,
                lock: ObjectLock::default(),
            };
            judge(&expected(ours), Some(&head), Some("\"proven\""), stored)
        };
        let (then, later) = (Some("2026-01-01T00:30:00Z"), Some("2026-03-01T00:00:00Z"));
        let etag = "\"cd\"".to_string();
        assert_eq!(judged(Some("S-2"), "\"ab-2\"", Some("S-2"), later), None);
        assert_eq!(
            judged(Some("S-2"), "\"cd\"", Some("S-2"), later),
            Some(Problem::Copied { etag: etag.clone() })
        );
        assert_eq!(
            judged(Some("S-2"), "\"cd\"", Some("T-2"), then),
            Some(Problem::Replaced { etag: etag.clone() })
        );
        let unclear = Some(Problem::Unclear { etag });
        assert_eq!(judged(Some("S-2"), "\"cd\"", Some("T"), then), unclear, "of the whole object");
        assert_eq!(judged(Some("S-2"), "\"cd\"", Some("T-3"), then), unclear, "of other parts");
        assert_eq!(judged(Some("S-2"), "\"cd\"", None, then), unclear);
        assert_eq!(judged(None, "\"cd\"", None, then), None, "ETags of this server do not last");
        assert_eq!(judged(None, "\"cd\"", None, None), unclear);
        assert_eq!(judged(None, "\"cd\"", None, later), unclear);
        let proven = Some(Problem::Copied { etag: "\"proven\"".to_string() });
        assert_eq!(judged(Some("S-2"), "\"proven\"", None, later), proven);
        assert_eq!(judge(&expected(None), None, None, stored), Some(Problem::Missing));
    }
}
