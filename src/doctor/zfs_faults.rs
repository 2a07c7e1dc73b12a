//! Faults of versions of OpenZFS that affect what `zfs send` gives. Pure.

use super::report::Finding;

/// Major, minor and patch.
type Version = [u32; 3];

struct Fault {
    from: Version,
    /// The first version without it, if there is one.
    until: Option<Version>,
    /// What happens with a raw stream, which has embedded data; unencrypted datasets are sent without.
    effect: &'static str,
    url: &'static str,
}

const FAULTS: &[Fault] = &[
    Fault {
        from: [0, 8, 0],
        until: Some([2, 1, 8]),
        effect: "embedded data may differ between two sends of a snapshot, so an interrupted upload may have to begin again",
        url: "https://github.com/openzfs/zfs/issues/13778",
    },
    Fault {
        from: [2, 2, 7],
        until: None,
        effect: "a stream may lose extended attributes or ACLs of files that have large ones; 'upload' refuses such a stream",
        url: "https://github.com/openzfs/zfs/issues/18239",
    },
];

const TESTED: &str = "zfs2s3 is tested with OpenZFS 2.1 and 2.3";

/// `text`: the output of `zfs version`. `encrypted`: how many datasets are.
pub fn judge(text: Option<&str>, encrypted: usize) -> Vec<Finding> {
    const CHECK: &str = "zfs";
    let Some(text) = text else {
        return vec![Finding::warning(CHECK, "a version before OpenZFS 0.8").hint(TESTED)];
    };
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let userland = lines.next().unwrap_or_default();
    let kernel = lines.find_map(|line| line.strip_prefix("zfs-kmod-"));
    let Some(version) = parse(userland.trim_start_matches("zfs-")) else {
        return vec![Finding::warning(CHECK, format!("the version '{userland}' is unknown")).hint(TESTED)];
    };
    let mut findings = vec![Finding::ok(CHECK, format!("OpenZFS {}", userland.trim_start_matches("zfs-")))];
    // zfs send is done by the kernel
    let of_kernel = kernel.and_then(parse).unwrap_or(version);
    // distributions update the patch level of one without the other
    if of_kernel[..2] != version[..2] {
        findings.push(
            Finding::warning(
                CHECK,
                format!("the kernel module has a different version: {}", kernel.unwrap_or_default()),
            )
            .hint("if OpenZFS was updated, reboot"),
        );
    }
    let is_affected =
        |fault: &&Fault| of_kernel >= fault.from && fault.until.is_none_or(|until| of_kernel < until);
    for fault in FAULTS.iter().filter(is_affected) {
        findings.push(match encrypted {
            0 => Finding::ok(
                CHECK,
                format!(
                    "it has a bug ({}) that affects only encrypted datasets; this host has none",
                    fault.url
                ),
            ),
            _ => {
                Finding::warning(CHECK, format!("of encrypted datasets, {}", fault.effect)).hint(match fault
                    .until
                {
                    Some([major, minor, patch]) => {
                        format!("see {}; fixed in OpenZFS {major}.{minor}.{patch}", fault.url)
                    }
                    None => format!("see {}; no fixed version is known", fault.url),
                })
            }
        });
    }
    findings
}

/// `2.1.11-1ubuntu2` is 2.1.11.
fn parse(text: &str) -> Option<Version> {
    let mut numbers = text.split(['.', '-', '_', '~', '+', 'r']).map(|word| word.parse().ok());
    let (major, minor) = (numbers.next()??, numbers.next()??);
    Some([major, minor, numbers.next().flatten().unwrap_or(0)])
}

#[cfg(test)]
mod tests {
    use super::super::report::Level;
    use super::*;

    #[test]
    fn versions_and_their_faults() {
        for (version, faults) in [
            ("zfs-2.1.7-1\nzfs-kmod-2.1.7-1\n", "13778"),
            ("zfs-2.1.8-1\nzfs-kmod-2.1.8-1\n", ""),
            ("zfs-2.2.6-FreeBSD_g33174af15\nzfs-kmod-2.2.6-FreeBSD_g33174af15\n", ""),
            ("zfs-2.2.7-1\nzfs-kmod-2.2.7-1\n", "18239"),
            ("zfs-2.3.0-rc3\nzfs-kmod-2.3.0-rc3\n", "18239"),
            ("zfs-0.8.3-1ubuntu12\nzfs-kmod-0.8.3-1ubuntu12\n", "13778"),
        ] {
            let warnings = |encrypted| {
                let found = judge(Some(version), encrypted);
                let warnings = found.iter().filter(|found| found.level != Level::Ok);
                warnings.map(|found| found.hints.concat()).collect::<Vec<_>>()
            };
            assert!(warnings(0).is_empty(), "{version}");
            let found = warnings(1).concat();
            assert!(found.contains(faults) && faults.is_empty() == found.is_empty(), "{version}: {found}");
        }
    }

    #[test]
    fn the_kernel_may_have_another_version() {
        let found = judge(Some("zfs-2.3.1-1\nzfs-kmod-2.1.7-1\n"), 1);
        assert!(found[1].message.contains("2.1.7") && found[2].hints[0].contains("13778"), "{found:?}");
        assert_eq!(judge(None, 0)[0].level, Level::Warning);
        assert_eq!(judge(Some("something\n"), 0)[0].level, Level::Warning);
    }
}
