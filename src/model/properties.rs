//! The properties of a dataset that are kept with its backup, since `zfs send` does not send them. Pure.

use std::collections::BTreeMap;

use crate::error::is_invisible;

/// Name and value, as `zfs get -Hp` prints them.
pub type Properties = BTreeMap<String, String>;

/// Of the value of a property; some tools keep whole files there. Bytes.
const MAX_VALUE: usize = 1024;
/// Of a name: libyaml writes a longer key in a form that the reader of manifests refuses. Bytes.
const MAX_NAME: usize = 120;
/// Of all names and values: a manifest has limits (`model/manifest/text.rs`). Bytes.
const MAX_TOTAL: usize = 8 << 10;
/// Parts of the names of properties whose values may be secret.
const SECRET: [&str; 8] = ["pass", "pwd", "psk", "secret", "token", "cred", "auth", "key"];
/// Parts of the names of user properties with which other programs run commands or start a host.
const ACTIVE: [&str; 9] = [
    "cmd",
    "command",
    "script",
    "exec",
    "hook",
    "org.znapzend:",
    "org.zfsbootmenu:",
    "org.openzfs.systemd:",
    "zfs2s3:",
];
/// Part of each stream, or of the snapshot's time rather than now's.
const IN_THE_STREAM: [&str; 2] = ["volsize", "volblocksize"];
/// Properties of ZFS that change neither where the files appear nor who can reach them.
const HARMLESS: [&str; 26] = [
    "aclinherit",
    "aclmode",
    "atime",
    "compression",
    "copies",
    "direct",
    "dnodesize",
    "filesystem_limit",
    "logbias",
    "prefetch",
    "primarycache",
    "quota",
    "readonly",
    "recordsize",
    "redundant_metadata",
    "refquota",
    "refreservation",
    "relatime",
    "reservation",
    "secondarycache",
    "snapdev",
    "snapdir",
    "snapshot_limit",
    "special_small_blocks",
    "volthreading",
    "xattr",
];
/// Harmless only if they forbid something.
const HARMLESS_IF_OFF: [&str; 5] = ["canmount", "devices", "exec", "setuid", "volmode"];
/// Harmless unless they turn something off.
const HARMLESS_UNLESS_OFF: [&str; 3] = ["acltype", "checksum", "sync"];

/// Which properties are kept (`ZFS2S3_PROPERTIES`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Which {
    All,
    /// Those of ZFS, without user properties.
    Native,
    None,
}

impl std::str::FromStr for Which {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Which::All),
            "native" => Ok(Which::Native),
            "none" => Ok(Which::None),
            _ => Err(format!("'{text}' is not all, native or none")),
        }
    }
}

/// What is kept of the lines of `zfs get -Hp -o property,value`, and the names of what is left out because it
/// is too long.
pub fn kept(lines: &str, which: Which) -> (Properties, Vec<String>) {
    let mut total = 0;
    let mut properties = Properties::new();
    let mut too_long = Vec::new();
    let mut last: Option<&str> = None;
    for line in lines.lines() {
        let Some((name, value)) = pair(line) else {
            // the value of the last one has several lines
            last.take().map(|name| properties.remove(name));
            continue;
        };
        last = Some(name);
        let is_wanted = match which {
            Which::All => true,
            Which::Native => !name.contains(':'),
            Which::None => false,
        };
        if !is_wanted || !is_kept(name, value) {
            continue;
        }
        if name.len() > MAX_NAME || value.len() > MAX_VALUE || total + name.len() + value.len() > MAX_TOTAL {
            too_long.push(name.to_string());
            continue;
        }
        total += name.len() + value.len();
        properties.insert(name.to_string(), value.to_string());
    }
    (properties, too_long)
}

/// Name and value, of each of these lines.
pub fn pairs(lines: &str) -> impl Iterator<Item = (&str, &str)> {
    lines.lines().filter_map(pair)
}

fn pair(line: &str) -> Option<(&str, &str)> {
    line.split_once('\t').filter(|(name, _)| is_name(name))
}

/// Can it be set on a restored dataset unasked? User properties are for other programs, and harmless to ZFS.
pub fn is_harmless(name: &str, value: &str) -> bool {
    let is_off = matches!(value, "off" | "noauto" | "none" | "disabled");
    match name {
        _ if name.contains(':') => !ACTIVE.iter().any(|part| name.contains(part)),
        _ if HARMLESS_IF_OFF.contains(&name) => is_off,
        _ if HARMLESS_UNLESS_OFF.contains(&name) => !is_off,
        _ => HARMLESS.contains(&name),
    }
}

/// Drops what this program would not have kept. What the bucket says is not trusted; and a backup is of use
/// without its properties.
pub fn sanitize(properties: &mut Properties) {
    let mut total = 0;
    properties.retain(|name, value| {
        total += name.len() + value.len();
        is_name(name) && is_text(value) && value.len() <= MAX_VALUE && total <= MAX_TOTAL
    });
}

/// Lower-case letters, digits, and in user properties more (zfsprops(7)); never an option of a command.
fn is_name(name: &str) -> bool {
    let is_plain =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b':' | b'-' | b'.' | b'_');
    name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()) && name.bytes().all(is_plain)
}

/// Of what can be shown.
fn is_text(value: &str) -> bool {
    !value.contains(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER || is_invisible(c))
}

fn is_kept(name: &str, value: &str) -> bool {
    let may_be_secret = match name {
        // a file or a prompt tells nothing; a URL may have a password
        "keylocation" => !(value == "prompt" || value.starts_with("file://")),
        "keyformat" => false,
        _ => SECRET.iter().any(|part| name.contains(part)),
    };
    // a URL with a user and a password
    let has_password = value.split_once("://").is_some_and(|(_, rest)| rest.contains('@'));
    !may_be_secret && !has_password && is_text(value) && !IN_THE_STREAM.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(lines: &str) -> String {
        kept(lines, Which::All).0.keys().cloned().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_kept() {
        let lines = "quota\t1073741824\nmountpoint\t/home\ncom.sun:auto-snapshot\ttrue\nvolsize\t7\n\
                     keylocation\tfile:///root/key\nlatchset.clevis:password\tx\nit:api-token\tx\n";
        assert_eq!(names(lines), "com.sun:auto-snapshot keylocation mountpoint quota");
        assert_eq!(names("keylocation\thttps://user:pass@host/key\n"), "");
        assert_eq!(
            names("it:notify\thttps://u:p@host/x\nit:mail\ta@b\nit:smtp_pass\tx\n1:x\ty\n"),
            "1:x it:mail"
        );
        assert_eq!(kept("it:a\t1\nquota\t1\n", Which::Native).0.len(), 1);
        assert_eq!(kept("it:a\t1\nquota\t1\n", Which::None).0.len(), 0);
        assert_eq!(names("it:a\tvalue of\ntwo lines\nit:b\t1\n"), "it:b", "of several lines");
        assert_eq!(names("-x\t1\nIT\t1\nit:a\tb\u{fffd}\nit:b\t\x1b[2J\nit:c\t\n"), "it:c");
        let (properties, too_long) = kept(&format!("it:a\t{}\nit:b\t1\n", "x".repeat(2000)), Which::All);
        assert_eq!((properties.len(), too_long), (1, vec!["it:a".to_string()]));
        let many: String = (0..100).map(|n| format!("it:{n}\t{}\n", ",".repeat(1000))).collect();
        let total: usize =
            kept(&many, Which::All).0.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!((7000..=MAX_TOTAL).contains(&total));
    }

    #[test]
    fn what_is_set_unasked() {
        for (name, value) in [
            ("quota", "1"),
            ("it:x", "on"),
            ("canmount", "noauto"),
            ("setuid", "off"),
            ("checksum", "sha256"),
            ("acltype", "posix"),
        ] {
            assert!(is_harmless(name, value), "{name}={value}");
        }
        for (name, value) in [
            ("mountpoint", "/"),
            ("canmount", "on"),
            ("sharenfs", "on"),
            ("sharesmb", "off"),
            ("keylocation", "prompt"),
            ("setuid", "on"),
            ("dedup", "on"),
            ("overlay", "on"),
            ("zoned", "on"),
            ("a_future_property", "on"),
            ("checksum", "off"),
            ("sync", "disabled"),
            ("acltype", "off"),
            ("org.znapzend:enabled", "on"),
            ("it:pre_cmd", "x"),
            ("zfs2s3:upload", "off"),
        ] {
            assert!(!is_harmless(name, value), "{name}={value}");
        }
    }

    #[test]
    fn what_the_bucket_says_is_not_trusted() {
        let left = |name: &str, value: &str| {
            let mut properties = Properties::from([(name.to_string(), value.to_string())]);
            sanitize(&mut properties);
            properties.len()
        };
        assert_eq!(left("it:x", "a b 'c'"), 1);
        for (name, value) in
            [("-o", "x"), ("it=x", "x"), ("it x", "x"), ("", "x"), ("it:x", "a\nb"), ("it:x", "a\u{202e}b")]
        {
            assert_eq!(left(name, value), 0, "{name:?}");
        }
        let mut many: Properties = (0..1000).map(|n| (format!("it:{n:04}"), "x".repeat(100))).collect();
        sanitize(&mut many);
        assert!(many.len() < 100);
    }
}
