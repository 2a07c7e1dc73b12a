//! With which flags `zfs send` is run. Pure.
//!
//! Raw, so that an encrypted dataset stays so and needs no key. Of one without encryption, raw means large blocks, compressed
//! and embedded data (`-Lec`), and the last of these loses data on OpenZFS since 2.2.7 (see [`crate::stream::watch`]): there
//! large blocks and compressed data are asked for alone.

/// The versions whose embedded data are known to be right.
const GOOD: [(u32, u32); 3] = [(0, 8), (2, 0), (2, 1)];

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

/// Is raw right for every dataset? `version`: what `zfs version` says.
pub fn embeds_well(version: &str) -> bool {
    // the module's, which makes the stream
    let line = version.lines().find_map(|line| line.strip_prefix("zfs-kmod-"));
    let mut numbers = line.unwrap_or_default().split(['.', '-']).map(|word| word.parse::<u32>());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => GOOD.contains(&(major, minor)),
        _ => false,
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
    fn versions_as_zfs_says_them() {
        let says = |module: &str| embeds_well(&format!("zfs-2.3.2-1\nzfs-kmod-{module}\n"));
        for good in ["0.8.3-1ubuntu12", "2.0.7-1", "2.1.11-1+deb12u1", "2.1.5-FreeBSD_gfb2f8d0"] {
            assert!(says(good), "{good}");
        }
        for unsure in ["2.2.7-1", "2.3.2-2~bpo12+2", "2.10.0", "zfs-macOS-2.2.3-0-g5cb4ab4a5", "v0.6", ""] {
            assert!(!says(unsure), "{unsure}");
        }
        assert!(!embeds_well(""));
    }

    #[test]
    fn only_what_is_surely_not_encrypted_is_sent_otherwise_than_raw() {
        for encryption in ["aes-256-gcm", "on", "-", ""] {
            assert_eq!(flags(encryption), Flags::Raw);
        }
        assert_eq!(flags("off"), Flags::WithoutEmbedded);
    }
}
