//! The vocabulary of all other parts: names and guids, backups and their copies, object keys, manifests,
//! chunks, digests, units and times. Pure: no files, no network, no environment.

/// For `#[serde(into = "String", try_from = "String")]`: the text of `Display` and `FromStr`.
macro_rules! serialize_as_text {
    ($type:ty) => {
        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }

        impl TryFrom<String> for $type {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
    };
}

pub mod announcement;
pub mod archive;
pub mod backup;
pub mod chunks;
pub mod copy;
pub mod digest;
pub mod keys;
pub mod lifecycle;
pub mod manifest;
pub mod memory;
pub mod names;
pub mod object_lock;
pub mod properties;
pub mod readme;
pub mod shell;
pub mod storage_class;
pub mod traffic;
pub mod units;
pub mod utc;
pub mod yaml;
