//! The contents of an announced removal, and of the mark of a backup that is kept: for people; what is
//! decided depends only on their existence. Pure.
//!
//! Either is withdrawn by deleting it, or where nothing may be deleted, by replacing it with an empty object.

use serde::{Deserialize, Serialize};

use crate::error::one_line;
use crate::model::utc::Utc;
use crate::model::yaml;

/// The maximum length of an announcement, in bytes.
pub const MAX_LEN: u64 = 4 << 10;

/// Unknown fields are ignored: whatever a later version adds, the removal is announced.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Announcement {
    pub version: u32,
    pub tool: String,
    pub host: String,
    pub since: Utc,
}

impl Announcement {
    pub fn to_yaml(&self) -> Result<String, String> {
        yaml::to_string(self)
    }

    /// The name of the host, if the announcement is readable.
    pub fn host(text: &[u8]) -> Option<String> {
        Self::read(text).map(|announcement| announcement.host)
    }

    fn read(text: &[u8]) -> Option<Self> {
        yaml::from_str(std::str::from_utf8(text).ok()?).ok()
    }

    /// For messages: `host 'nas1' since 2026-01-02T03:04:05Z`.
    pub fn describe(text: &[u8]) -> String {
        match Self::read(text) {
            Some(Announcement { host, since, .. }) => format!("host '{}' since {since}", one_line(&host)),
            None => "an unknown host".to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_names_its_host_and_time() {
        let since = Utc::try_from("2026-01-02T03:04:05Z".to_string()).unwrap();
        let announcement =
            Announcement { version: 1, tool: "zfs2s3 0.1.0".into(), host: "nas1".into(), since };
        let text = announcement.to_yaml().unwrap();
        assert_eq!(Announcement::describe(text.as_bytes()), "host 'nas1' since 2026-01-02T03:04:05Z");
        assert_eq!(Announcement::describe(b"\xff"), "an unknown host");
        let later = text + "more: 1\n";
        assert!(Announcement::describe(later.as_bytes()).contains("nas1"));
    }
}
