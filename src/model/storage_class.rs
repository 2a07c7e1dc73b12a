//! Storage classes: which names are possible, which S3 documents, and how long
//! each is billed at least. Pure.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-class-intro.html>

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::utc::Utc;

/// The name of one, as S3 writes it. Other servers have names of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StorageClass(String);

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateMultipartUpload.html>, `x-amz-storage-class`.
const DOCUMENTED: &[&str] = &[
    "STANDARD",
    "REDUCED_REDUNDANCY",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER",
    "DEEP_ARCHIVE",
    "OUTPOSTS",
    "GLACIER_IR",
    "SNOW",
    "EXPRESS_ONEZONE",
    "FSX_OPENZFS",
];

impl StorageClass {
    pub fn standard() -> Self {
        StorageClass("STANDARD".to_string())
    }

    /// As a user writes it, who may know DEEP_ARCHIVE by the name that the older Python tool had for it.
    pub fn from_setting(text: &str) -> Result<Self, String> {
        let class = StorageClass::of(if text == "DEEP_GLACIER" { "DEEP_ARCHIVE" } else { text });
        class.check()?;
        Ok(class)
    }

    /// As a server or a file has it, unchecked.
    pub fn of(text: &str) -> Self {
        StorageClass(text.to_string())
    }

    /// Can it be sent in a header?
    pub fn check(&self) -> Result<(), String> {
        let is_name = self.0.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if is_name { Ok(()) } else { Err(format!("'{self}' cannot be a storage class")) }
    }

    pub fn is_standard(&self) -> bool {
        self.0 == "STANDARD"
    }

    pub fn is_documented(&self) -> bool {
        DOCUMENTED.contains(&self.as_str())
    }

    /// The number of days for which AWS bills an object even if it is deleted earlier. None: no minimum.
    /// <https://aws.amazon.com/s3/storage-classes/>
    pub fn minimum_days(&self) -> Option<u32> {
        match self.as_str() {
            "STANDARD_IA" | "ONEZONE_IA" => Some(30),
            "GLACIER" | "GLACIER_IR" => Some(90),
            "DEEP_ARCHIVE" => Some(180),
            _ => None,
        }
    }

    /// The days that would still be billed after a deletion. None: no more.
    pub fn days_still_billed(&self, stored: Utc, now: Utc) -> Option<u32> {
        let minimum = self.minimum_days()?;
        let age = now.unix_seconds().saturating_sub(stored.unix_seconds()).max(0);
        let whole_days = u32::try_from(age / 86_400).unwrap_or(u32::MAX);
        Some(minimum.saturating_sub(whole_days)).filter(|days| *days > 0)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StorageClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str) -> StorageClass {
        StorageClass::from_setting(name).unwrap()
    }

    #[test]
    fn names() {
        assert_eq!(class("DEEP_GLACIER").as_str(), "DEEP_ARCHIVE");
        assert!(class("GLACIER_IR").is_documented() && !class("COLD9").is_documented());
        assert!(StorageClass::from_setting("A\r\nx-evil: 1").is_err());
        assert_eq!(StorageClass::standard(), class("STANDARD"));
    }

    #[test]
    fn the_minimum_time_ends_after_its_last_day() {
        let time = |text: &str| Utc::try_from(text.to_string()).unwrap();
        let stored = time("2026-01-01T12:00:00Z");
        for (name, last, after) in [
            ("STANDARD_IA", "2026-01-31T11:59:59Z", "2026-01-31T12:00:00Z"),
            ("ONEZONE_IA", "2026-01-31T11:59:59Z", "2026-01-31T12:00:00Z"),
            ("GLACIER", "2026-04-01T11:59:59Z", "2026-04-01T12:00:00Z"),
            ("GLACIER_IR", "2026-04-01T11:59:59Z", "2026-04-01T12:00:00Z"),
            ("DEEP_ARCHIVE", "2026-06-30T11:59:59Z", "2026-06-30T12:00:00Z"),
        ] {
            assert_eq!(class(name).days_still_billed(stored, time(last)), Some(1), "{name}");
            assert_eq!(class(name).days_still_billed(stored, time(after)), None, "{name}");
            let minimum = class(name).minimum_days();
            assert_eq!(class(name).days_still_billed(stored, stored), minimum, "{name}");
            assert_eq!(
                class(name).days_still_billed(stored, time("2025-01-01T00:00:00Z")),
                minimum,
                "{name}"
            );
        }
        for name in ["STANDARD", "INTELLIGENT_TIERING", "COLD9"] {
            assert_eq!(class(name).days_still_billed(stored, stored), None, "{name}");
        }
    }
}
