//! Storage classes: which names are possible, which S3 documents, which are archives. Pure.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-class-intro.html>

use std::fmt;

use serde::{Deserialize, Serialize};

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

/// Objects in these cannot be read until S3 has restored them.
const ARCHIVES: &[&str] = &["GLACIER", "DEEP_ARCHIVE"];

impl StorageClass {
    #[cfg(test)]
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

    /// By its name, which may mean something else on other servers than AWS.
    pub fn is_archive(&self) -> bool {
        ARCHIVES.contains(&self.as_str())
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
    fn archives() {
        assert!(class("GLACIER").is_archive() && class("DEEP_ARCHIVE").is_archive());
        assert!(!class("GLACIER_IR").is_archive() && !class("STANDARD").is_archive());
    }
}
