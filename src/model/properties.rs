//! The properties of a dataset that are kept with its backup, since `zfs send` does not send them. Pure.

use std::collections::BTreeMap;

/// Name and value, as `zfs get -Hp` prints them.
pub type Properties = BTreeMap<String, String>;

/// Of the value of a property; some tools keep whole files there. Bytes.
const MAX_VALUE: usize = 1024;
/// Of all names and values: a manifest has limits (`model/manifest/text.rs`). Bytes.
const MAX_TOTAL: usize = 8 << 10;
/// Parts of the names of properties whose values may be secret.
const SECRET: [&str; 6] = ["passw", "passphrase", "secret", "token", "credential", "key"];
/// Part of each stream, or of the snapshot's time rather than now's.
const IN_THE_STREAM: [&str; 2] = ["volsize", "volblocksize"];
/// Properties of ZFS that change neither where the files appear nor who can reach them.
const HARMLESS: [&str; 28] = [
    "aclinherit",
    "aclmode",
    "acltype",
    "atime",
    "checksum",
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
    "sync",
    "xattr",
];
/// Harmless only if they forbid something.
const HARMLESS_IF_OFF: [&str; 5] = ["canmount", "devices", "exec", "setuid", "volmode"];

/// What is kept of the lines of `zfs get -Hp -o property,value`, and the names of what is left out because it
/// is too long.
pub fn kept(lines: &str) -> (Properties, Vec<String>) {
    let mut total = 0;
    let mut properties = Properties::new();
    let mut too_long = Vec::new();
    let mut last: Option<&str> = None;
    for line in lines.lines() {
        let Some((name, value)) = line.split_once('\t').filter(|(name, _)| is_name(name)) else {
            // the value of the last one has several lines
            last.take().map(|name| properties.remove(name));
            continue;
        };
        last = Some(name);
        if !is_kept(name, value) {
            continue;
        }
        if value.len() > MAX_VALUE || total + name.len() + value.len() > MAX_TOTAL {
            too_long.push(name.to_string());
            continue;
        }
        total += name.len() + value.len();
        properties.insert(name.to_string(), value.to_string());
    }
    (properties, too_long)
}

/// Can it be set on a restored dataset unasked? User properties are for other programs, and harmless to ZFS.
pub fn is_harmless(name: &str, value: &str) -> bool {
    name.contains(':')
        || HARMLESS.contains(&name)
        || (HARMLESS_IF_OFF.contains(&name) && matches!(value, "off" | "noauto" | "none"))
}

/// Does it mean the same to this program as to the one that kept it? What the bucket says is not trusted.
pub fn check(properties: &Properties) -> Result<(), String> {
    match properties.iter().find(|(name, value)| !is_name(name) || value.contains(char::is_control)) {
        Some((name, _)) => Err(format!("its property {name:?} is invalid")),
        None => Ok(()),
    }
}

/// Lower-case letters, digits, and in user properties more (zfsprops(7)); never an option of a command.
fn is_name(name: &str) -> bool {
    let is_plain =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b':' | b'-' | b'.' | b'_');
    name.len() <= 256 && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.bytes().all(is_plain)
}

fn is_kept(name: &str, value: &str) -> bool {
    let may_be_secret = match name {
        // a file or a prompt tells nothing; a URL may have a password
        "keylocation" => !(value == "prompt" || value.starts_with("file://")),
        "keyformat" => false,
        _ => SECRET.iter().any(|part| name.contains(part)),
    };
    let is_text = !value.contains(char::is_control) && !value.contains(char::REPLACEMENT_CHARACTER);
    !may_be_secret && is_text && !IN_THE_STREAM.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(lines: &str) -> String {
        kept(lines).0.keys().cloned().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_kept() {
        let lines = "quota\t1073741824\nmountpoint\t/home\ncom.sun:auto-snapshot\ttrue\nvolsize\t7\n\
                     keylocation\tfile:///root/key\nlatchset.clevis:password\tx\nit:api-token\tx\n";
        assert_eq!(names(lines), "com.sun:auto-snapshot keylocation mountpoint quota");
        assert_eq!(names("keylocation\thttps://user:pass@host/key\n"), "");
        assert_eq!(names("it:a\tvalue of\ntwo lines\nit:b\t1\n"), "it:b", "of several lines");
        assert_eq!(names("-x\t1\nIT\t1\nit:a\tb\u{fffd}\nit:b\t\x1b[2J\nit:c\t\n"), "it:c");
        let (properties, too_long) = kept(&format!("it:a\t{}\nit:b\t1\n", "x".repeat(2000)));
        assert_eq!((properties.len(), too_long), (1, vec!["it:a".to_string()]));
        let many: String = (0..100).map(|n| format!("it:{n}\t{}\n", ",".repeat(1000))).collect();
        let total: usize = kept(&many).0.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!((7000..=MAX_TOTAL).contains(&total));
    }

    #[test]
    fn what_is_set_unasked() {
        for (name, value) in [("quota", "1"), ("it:x", "on"), ("canmount", "noauto"), ("setuid", "off")] {
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
        ] {
            assert!(!is_harmless(name, value), "{name}={value}");
        }
    }

    #[test]
    fn what_the_bucket_says_is_checked() {
        let of = |name: &str, value: &str| check(&[(name.to_string(), value.to_string())].into());
        assert_eq!(of("it:x", "a b 'c'"), Ok(()));
        for (name, value) in [("-o", "x"), ("it=x", "x"), ("it x", "x"), ("", "x"), ("it:x", "a\nb")] {
            assert!(of(name, value).is_err(), "{name:?}");
        }
    }
}
