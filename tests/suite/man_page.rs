//! The man page is the contract: it agrees with the program.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::Host;

fn page() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("zfs2s3.1")).unwrap()
}

fn source(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(name)).unwrap()
}

/// The lines of a section.
fn section(name: &str) -> String {
    let page = page();
    let from = page.split(&format!("\n.Sh {name}\n")).nth(1).unwrap_or_else(|| panic!("no section {name}"));
    from.split("\n.Sh ").next().unwrap().to_string()
}

const COMMANDS: &[&str] = &[
    "upload",
    "resume_upload",
    "abort_upload",
    "remove",
    "keep",
    "unkeep",
    "list",
    "restore",
    "download",
    "thaw",
    "verify",
    "doctor",
    "check",
    "recover",
];

#[test]
fn commands_and_their_options_are_those_of_the_program() {
    let host = Host::new();
    let help = host.ok("--help").stdout;
    let synopsis = section("SYNOPSIS");
    let commands = section("COMMANDS");
    let common = commands.split("\n.It Nm ").next().unwrap();
    let listed: Vec<&str> = synopsis.lines().filter_map(|line| line.strip_prefix(".Cm ")).collect();
    assert_eq!(listed, COMMANDS);
    for command in COMMANDS {
        assert!(help.contains(&format!("  {command} ")), "{command} in --help");
        let about = commands.split(&format!("\n.It Nm Cm {command}\n")).nth(1).or(commands
            .split("\n.It Nm ")
            .find(|item| {
                item.starts_with(&format!("Cm {command}\n")) || item.starts_with(&format!("Cm {command} "))
            }));
        let about = about.unwrap_or_else(|| panic!("{command} in COMMANDS"));
        let of_synopsis =
            synopsis.split(&format!(".Cm {command}\n")).nth(1).unwrap().split(".Nm").next().unwrap();
        let usage = host.ok(&format!("{command} --help")).stdout;
        // the letter of each option, or its name if it has none
        let options: BTreeSet<String> = usage
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix('-')?.split([',', ' ']).next())
            .filter(|option| *option != "-help")
            .map(str::to_string)
            .collect();
        let in_page: BTreeSet<String> = of_synopsis
            .lines()
            .filter_map(|line| line.strip_prefix(".Op Fl ")?.split(' ').next())
            .map(str::to_string)
            .collect();
        assert_eq!(options, in_page, "options of {command}: in its --help, and in SYNOPSIS");
        let described = format!("{common}{}", about.split("\n.It Nm ").next().unwrap());
        for option in &options {
            assert!(described.contains(&format!("Fl {option}")), "-{option} of {command} in COMMANDS");
        }
    }
}

#[test]
fn every_variable_that_the_program_reads_is_described_and_no_other() {
    let mut read = BTreeSet::new();
    for name in ["config", "aws/profile", "aws/credentials", "aws/endpoint", "aws/proxy", "aws/requests"] {
        let text = source(&format!("{name}.rs"));
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
        for word in code.split('"').skip(1).step_by(2) {
            let variable = (word.starts_with("ZFS2S3_")
                || word.starts_with("AWS_")
                || word.starts_with("XDG_")
                || word.ends_with("_PROXY"))
                && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
            if variable && !word.starts_with("ZFS2S3_TEST") {
                read.insert(word.to_string());
            }
        }
    }
    let described: BTreeSet<String> = section("ENVIRONMENT")
        .lines()
        .filter_map(|line| line.strip_prefix(".It Ev "))
        .flat_map(|line| line.split(" , Ev ").map(str::to_string).collect::<Vec<_>>())
        .collect();
    assert_eq!(read, described);
}

#[test]
fn every_exit_status_is_described() {
    let mut in_code = BTreeSet::from(["0".to_string()]);
    let text = source("error.rs");
    let body = text.split("pub fn exit_code(").nth(1).unwrap().split('}').next().unwrap();
    in_code.extend(
        body.lines().filter_map(|line| Some(line.split_once(" => ")?.1.trim_end_matches(',').to_string())),
    );
    let described: BTreeSet<String> = section("EXIT STATUS")
        .lines()
        .filter_map(|line| line.strip_prefix(".It "))
        .map(str::to_string)
        .collect();
    assert_eq!(in_code, described);
}

#[test]
fn every_file_is_described() {
    let files = section("FILES");
    let folder = source("state/store/mod.rs");
    let body = folder.split("impl Folder {").nth(1).unwrap().split("\npub struct Store").next().unwrap();
    for name in body.split("join(\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(files.contains(name) || section("COMPATIBILITY").contains(name), "{name} in FILES");
    }
}

#[test]
fn the_version_is_the_programs() {
    let host = Host::new();
    let version = host.ok("--version").stdout;
    // `make` adds the commit
    let commit = option_env!("ZFS2S3_COMMIT").map(|commit| format!(" ({commit})")).unwrap_or_default();
    assert_eq!(version, format!("zfs2s3 {}{commit}\n", env!("CARGO_PKG_VERSION")));
    assert!(page().contains(concat!("zfs2s3 ", env!("CARGO_PKG_VERSION"))), "the page names it");
}

#[test]
fn help_and_mistakes() {
    let host = Host::new();
    assert!(host.ok("-h").stdout.starts_with("Usage: zfs2s3 <command>"));
    assert!(host.ok("--help").stdout.contains("\n  --version, -V     display the version\n"));
    let said = host.fails(2, "");
    assert_eq!(said, "zfs2s3: error: no command given\nzfs2s3: hint: see 'zfs2s3 --help' or 'man zfs2s3'\n");
    let said = host.fails(2, "frobnicate");
    assert_eq!(
        said,
        "zfs2s3: error: there is no command 'frobnicate'\n\
         zfs2s3: hint: the commands are upload, resume_upload, abort_upload, remove, keep, unkeep, list, restore, download, thaw, verify, doctor, check, recover\n"
    );
}
