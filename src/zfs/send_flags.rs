//! With which flags `zfs send` is run. Pure.
//!
//! An encrypted dataset is sent raw, so that it stays encrypted and needs no key. Of one without encryption, raw would mean large
//! blocks, compressed and embedded data (`-Lec`), and embedded data are not asked for:
//!
//! - since OpenZFS 2.2.7 they lose data (see [`crate::stream::watch`]);
//! - before 2.1.8 two sends of the same snapshot may differ in them: <https://github.com/openzfs/zfs/issues/13778>;
//! - a stream with embedded data cannot be received below an encrypted dataset.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flags {
    Raw,
    /// Not for an encrypted dataset, of which it would send the plain text.
    WithoutEmbedded,
}

impl Flags {
    pub fn words(self) -> Vec<String> {
        let words: &[&str] = match self {
            Flags::Raw => &["--raw"],
            Flags::WithoutEmbedded => &["--large-block", "--compressed"],
        };
        words.iter().map(|word| word.to_string()).collect()
    }
}

/// By the property `encryption`; what cannot be told is sent raw.
pub fn flags(encryption: &str) -> Flags {
    match encryption {
        "off" => Flags::WithoutEmbedded,
        _ => Flags::Raw,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_surely_not_encrypted_is_sent_otherwise_than_raw() {
        for encryption in ["aes-256-gcm", "on", "-", ""] {
            assert_eq!(flags(encryption), Flags::Raw);
        }
        assert_eq!(flags("off"), Flags::WithoutEmbedded);
    }
}
