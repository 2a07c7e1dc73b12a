//! The monthly script of the man page: it removes only what it may, whatever happened before. The daily one
//! needs a real ZFS: tests/guest/sixty-days runs both.

use std::process::{Command, Output};

use crate::support::{Fault, Host, made_stream};

const DAYS: [&str; 6] = ["2026-01-05", "2026-01-06", "2026-01-07", "2026-01-31", "2026-02-03", "2026-02-04"];

/// tank/a with these days, of which the first is stored in full, and each other from the one before.
fn days() -> Host {
    let host = Host::new();
    for (to, day) in (1..).zip(DAYS) {
        host.snapshot((&format!("tank/a@{day}"), to), to * 10);
        host.add_stream(("", to), None, &made_stream(to, 0, 700));
        for from in 1..to {
            host.add_stream(("", to), Some(("", from)), &made_stream(to, from, 700));
        }
    }
    host.ok("upload tank/a@2026-01-05");
    for pair in DAYS.windows(2) {
        host.ok(&format!("upload -i @{} tank/a@{}", pair[0], pair[1]));
    }
    host
}

/// Runs the script on February 4, with the programs of the tests.
fn monthly(host: &Host) -> Output {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/zfs2s3.1")).unwrap();
    let script = page.split("# usage: monthly ").nth(1).unwrap().split("\n.Ed").next().unwrap();
    let folder = host.home().join("bin");
    std::fs::create_dir_all(&folder).unwrap();
    let program = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(folder.join(name), text).unwrap();
        std::fs::set_permissions(folder.join(name), PermissionsExt::from_mode(0o755)).unwrap();
    };
    program("date", "#!/bin/sh\n[ \"$1\" = +%Y-%m ] || exit 9\necho 2026-02\n");
    program(
        "zfs",
        &format!("#!/bin/sh\nexec {}/tests/suite/support/zfs \"$@\"\n", env!("CARGO_MANIFEST_DIR")),
    );
    program("zfs2s3", &format!("#!/bin/sh\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_zfs2s3")));
    std::fs::write(host.home().join("conf"), "").unwrap();
    let script = format!("# {script}\n")
        .replace("\\e", "\\")
        .replace("PATH=/usr/local/sbin", &format!("PATH={}:/usr/local/sbin", folder.display()))
        .replace("/etc/zfs2s3.conf", &format!("{}/conf", host.home().display()));
    let mut shell = Command::new("sh");
    shell.env_clear().envs(host.environment()).args(["-c", &script, "monthly", "tank/a"]);
    shell.output().unwrap()
}

#[track_caller]
fn quiet(host: &Host) {
    let ran = monthly(host);
    let said = String::from_utf8_lossy(&ran.stderr);
    assert_eq!((ran.status.code(), &*said, ran.stdout.len()), (Some(0), "", 0));
}

/// Snapshot and base of each, without the year.
fn stored(host: &Host) -> String {
    let rows = host.ok("list -H").stdout.replace("tank/a@2026-", "").replace("tank/a#2026-", "#");
    let row = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let state = if fields[6] == "stored" { "" } else { " removing" };
        format!("{}<{}{state}", fields[0], fields[2])
    };
    rows.lines().map(row).collect::<Vec<_>>().join(", ")
}

const AFTER: &str = "01-05<-, 02-04<02-03, 02-03<01-05";

#[test]
fn a_month_becomes_a_bypass() {
    let host = days();
    quiet(&host);
    assert_eq!(stored(&host), AFTER);
    // on each later day there is nothing to do
    quiet(&host);
    assert_eq!(stored(&host), AFTER);
    host.ok("verify -q");
}

#[test]
fn an_interrupted_removal_is_continued() {
    let host = days();
    // the second one, after its manifest is deleted
    host.s3.fault("DeleteObject", 4, 99, Fault::Status(400, "Odd"));
    assert!(!monthly(&host).status.success());
    assert!(stored(&host).contains(" removing"), "{}", stored(&host));
    host.s3.no_more_faults();
    quiet(&host);
    assert_eq!(stored(&host), AFTER);
}

#[test]
fn the_base_may_be_a_bookmark() {
    let host = days();
    host.snapshot(("tank/a#2026-01-05", 1), 10);
    host.destroy("tank/a@2026-01-05");
    quiet(&host);
    assert_eq!(stored(&host), "01-05<-, 02-04<02-03, 02-03<#01-05");
    quiet(&host);
}

#[test]
fn nothing_is_removed_if_the_bypass_is_not_there() {
    // it cannot be stored
    let host = days();
    host.destroy("tank/a@2026-02-03");
    let before = stored(&host);
    assert!(!monthly(&host).status.success());
    assert_eq!(stored(&host), before);
    // it is stored, its data are gone, and nothing later depends on the days
    let host = days();
    host.ok("remove -i @2026-02-03 tank/a@2026-02-04");
    host.ok("upload -i @2026-01-05 tank/a@2026-02-03");
    host.s3.state().take("tank/a@2026-02-03/0000000000000005-from-0000000000000001.zfs").unwrap();
    let before = stored(&host);
    assert_eq!(monthly(&host).status.code(), Some(5));
    assert_eq!(stored(&host), before);
    // its own removal was interrupted
    let host = days();
    host.ok("remove -i @2026-02-03 tank/a@2026-02-04");
    host.ok("upload -i @2026-01-05 tank/a@2026-02-03");
    host.s3.fault("DeleteObject", 1, 99, Fault::Status(400, "Odd"));
    host.fails(1, "remove -i @2026-01-05 tank/a@2026-02-03");
    host.s3.no_more_faults();
    let before = stored(&host);
    monthly(&host);
    assert_eq!(stored(&host), before);
}

#[test]
fn only_days_are_removed_and_not_what_is_kept() {
    let host = days();
    host.snapshot(("tank/a@2026-01-20-before-upgrade", 9), 35);
    host.add_stream(("", 9), Some(("", 3)), &made_stream(9, 3, 700));
    host.ok("upload -i @2026-01-07 tank/a@2026-01-20-before-upgrade");
    quiet(&host);
    assert_eq!(
        stored(&host),
        "01-05<-, 01-06<01-05, 01-07<01-06, 02-04<02-03, 01-20-before-upgrade<01-07, 02-03<01-05"
    );
    let host = days();
    host.ok("keep -i @2026-01-06 tank/a@2026-01-07");
    quiet(&host);
    assert_eq!(stored(&host), "01-05<-, 01-06<01-05, 01-07<01-06, 02-04<02-03, 02-03<01-05");
}

#[test]
fn a_new_chain_is_not_bypassed() {
    let host = days();
    host.ok("upload tank/a@2026-02-03");
    let before = stored(&host);
    quiet(&host);
    assert_eq!(stored(&host), before);
}
