//! The flags of `zfs send`. Pure.
//!
//! An encrypted dataset is sent raw, so that it stays encrypted and needs no key. For an unencrypted one, raw
//! would mean large blocks, compressed and embedded data (`-Lec`), but embedded data are not requested:
//!
//! - since OpenZFS 2.2.7 they lose data (see [`crate::stream::check`]);
//! - before 2.1.8 they may differ between two sends of the same snapshot:
//!   <https://github.com/openzfs/zfs/issues/13778>;
//! - a stream with embedded data cannot be received below an encrypted dataset.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flags {
    Raw,
    /// Raw, since it may be encrypted.
    RawIfUnknown,
    /// Not for an encrypted dataset: this would send its plain text.
    WithoutEmbedded,
}

impl Flags {
    pub fn words(self) -> Vec<String> {
        let words: &[&str] = match self {
            Flags::Raw | Flags::RawIfUnknown => &["--raw"],
            Flags::WithoutEmbedded => &["--large-block", "--compressed"],
        };
        words.iter().map(|word| word.to_string()).collect()
    }
}

/// By the property `encryption`; if it is unknown, raw.
pub fn flags(encryption: &str) -> Flags {
    match encryption {
        "off" => Flags::WithoutEmbedded,
        "-" | "" => Flags::RawIfUnknown,
        _ => Flags::Raw,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_may_be_encrypted_is_sent_raw() {
        for encryption in ["aes-256-gcm", "on", "-", ""] {
            assert_eq!(flags(encryption).words(), ["--raw"]);
        }
        assert_eq!(flags("off"), Flags::WithoutEmbedded);
    }
}
