//! The monthly script of the man page: it removes only what it may, whatever happened before. The daily one
//! needs a real ZFS: tests/guest/sixty-days runs both.

use std::process::{Command, Output};

use crate::support::{Fault, Host, PUT_DATA, made_stream};

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

/// An example of the man page, from the line that begins like this.
fn example(begin: &str) -> String {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/zfs2s3.1")).unwrap();
    let text = page.split(begin).nth(1).unwrap_or_else(|| panic!("no example '{begin}'"));
    format!("{begin}{}", text.split("\n.Ed").next().unwrap()).replace("\\e", "\\")
}

/// Programs that a script finds first.
fn program(host: &Host, name: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    let folder = host.home().join("bin");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(folder.join(name), PermissionsExt::from_mode(0o755)).unwrap();
}

/// Runs a script of the man page, with the programs of the tests.
fn run(host: &Host, script: &str, args: &[&str]) -> Output {
    let fake = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/support/zfs");
    if !host.home().join("bin/zfs2s3").exists() {
        program(host, "zfs", &format!("exec {fake} \"$@\""));
        program(host, "zfs2s3", &format!("exec {} \"$@\"", env!("CARGO_BIN_EXE_zfs2s3")));
    }
    std::fs::write(host.home().join("conf"), "").unwrap();
    let folder = host.home().join("bin");
    let script = script
        .replace("PATH=/usr/local/sbin", &format!("PATH={}:/usr/local/sbin", folder.display()))
        .replace("/etc/zfs2s3.conf", &format!("{}/conf", host.home().display()));
    let mut shell = Command::new("sh");
    shell.env_clear().envs(host.environment()).args(["-c", &script, "script"]).args(args);
    shell.output().unwrap()
}

/// On February 4.
fn monthly(host: &Host) -> Output {
    program(host, "date", "[ \"$1\" = +%Y-%m ] || exit 9\necho 2026-02");
    run(host, &example("# usage: monthly "), &["tank/a"])
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
    let ran = monthly(&host);
    assert_eq!(
        (ran.status.code(), String::from_utf8_lossy(&ran.stderr).as_ref()),
        (
            Some(1),
            "monthly: tank/a@2026-02-03 was destroyed here, so the days before it stay; see zfs2s3 list --advise\n"
        )
    );
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

#[test]
fn nothing_leads_past_the_beginning_of_a_new_chain() {
    let host = days();
    host.ok("upload tank/a@2026-01-31");
    let before = stored(&host);
    quiet(&host);
    assert_eq!(stored(&host), before, "the new chain has only its first day and the next");
    // one more day in that, which can go
    let host = days();
    host.ok("upload tank/a@2026-01-07");
    quiet(&host);
    assert_eq!(
        stored(&host),
        "01-05<-, 01-06<01-05, 01-07<01-06, 02-04<02-03, 01-07<-, 02-03<01-07",
        "the old chain is left as it is"
    );
    host.ok("verify -q");
}

/// A pool for the script that destroys local snapshots: `points` has the name and guid of each.
const POOL: &str = r#"cd "${0%/*}"
case "$1 $*" in
    *"-o name,guid t/a b") cat points ;;
    *"-o name t/a b") cut -f 1 points | grep '#' ;;
    "list "*) grep -q "^$4	" points ;;
    "bookmark "*) ! grep -q "^$3	" points && printf '%s\t0\n' "$3" >> points ;;
    "destroy "*) grep -v "^$2	" points > rest; mv rest points ;;
    *) exit 9 ;;
esac"#;

/// What is left on March 15, of snapshots that are older than seven days.
fn cleaned(points: &[&str], stored: &[&str]) -> String {
    let host = Host::new();
    let line = |point: &&str| format!("t/a b{}\n", point.replace(' ', "\t"));
    let points: String = points.iter().map(line).collect();
    program(&host, "zfs", POOL);
    program(&host, "date", "[ $# = 1 ] && echo 2026-03 || echo 2026-03-08");
    let rows: String =
        stored.iter().map(|row| row.replacen(' ', "\t", 1).replacen(' ', "\t1\t", 1) + "\n").collect();
    program(&host, "zfs2s3", "[ $1 = verify ] || cat \"${0%/*}/rows\"");
    let bin = host.home().join("bin");
    std::fs::write(bin.join("rows"), rows).unwrap();
    std::fs::write(bin.join("points"), points).unwrap();
    let ran = run(&host, &example("# usage: clean "), &["t/a b", "7"]);
    assert!(ran.status.success() && ran.stderr.is_empty(), "{}", String::from_utf8_lossy(&ran.stderr));
    let left = std::fs::read_to_string(bin.join("points")).unwrap();
    left.lines()
        .map(|line| line.split('\t').next().unwrap().replace("t/a b", ""))
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn only_what_was_stored_and_is_old_is_destroyed_here() {
    let names = |points: &[&str]| {
        points.iter().map(|point| point.split(' ').next().unwrap()).collect::<Vec<_>>().join(" ")
    };
    // stored, and bookmarked; the newest stays
    let stored = ["stored 1 t/a b@2026-02-20", "stored 2 t/a b@2026-02-21", "stored 3 t/a b@2026-03-14"];
    let points = ["@2026-02-20 1", "#2026-02-20 1", "@2026-02-21 2", "#2026-02-21 2", "@2026-03-14 3"];
    assert_eq!(cleaned(&points, &stored), "#2026-02-20 #2026-02-21 @2026-03-14");
    assert_eq!(cleaned(&points[..2], &stored), "@2026-02-20 #2026-02-20", "it is the newest");
    // removed from the bucket since, or stored with another name of the dataset: the bookmark tells
    assert_eq!(cleaned(&points, &stored[2..]), "#2026-02-20 #2026-02-21 @2026-03-14");
    // restored, so without a bookmark, which it gets
    let restored = ["@2026-02-20 1", "@2026-03-14 3"];
    assert_eq!(cleaned(&restored, &stored), "@2026-03-14 #2026-02-20");
    assert_eq!(
        cleaned(&["@2026-02-20 1", "#2026-02-20 9", "@2026-03-14 3"], &stored),
        "@2026-02-20 #2026-02-20 @2026-03-14",
        "its name is taken"
    );
    // the store is lost, or has nothing later
    assert_eq!(cleaned(&points, &[]), names(&points));
    assert_eq!(cleaned(&points, &["stored 9 t/a b@2026-01-01"]), names(&points));
    // not stored: never, another with that name, still being uploaded, being removed
    for rows in [
        &[][..],
        &["stored 9 t/a b@2026-02-20"],
        &["uploading 1 t/a b@2026-02-20"],
        &["removing 1 t/a b@2026-02-20"],
    ] {
        assert_eq!(cleaned(&restored, rows), "@2026-02-20 @2026-03-14", "{rows:?}");
    }
    // young, or not a day
    let others = ["@2026-03-08 1", "@manual 2", "@2026-02-20x 3", "@2026-03-14 4"];
    let all = ["stored 1 t/a b@2026-03-08", "stored 2 t/a b@manual", "stored 3 t/a b@2026-02-20x"];
    assert_eq!(cleaned(&others, &all), names(&others));
    // the first of this month that is stored
    let month = ["@2026-03-01 1", "@2026-03-02 2", "@2026-03-03 3", "@2026-03-14 4"];
    let days = ["stored 3 t/a b@2026-03-03", "stored 2 t/a b@2026-03-02", "stored 4 t/a b@2026-03-14"];
    assert_eq!(cleaned(&month, &days), "@2026-03-01 @2026-03-02 @2026-03-14 #2026-03-03");
    assert_eq!(
        cleaned(&month, &days[..2]),
        "@2026-03-01 @2026-03-02 @2026-03-03 @2026-03-14",
        "nothing later is stored"
    );
}

#[test]
fn metrics_for_prometheus() {
    let host = days();
    let file = host.home().join("zfs2s3.prom");
    let metrics = || {
        let ran = run(&host, &example("# usage: metrics "), &[file.to_str().unwrap(), "tank/a"]);
        assert!(ran.status.success() && ran.stderr.is_empty(), "{}", String::from_utf8_lossy(&ran.stderr));
        std::fs::read_to_string(&file).unwrap()
    };
    let text = metrics();
    for line in [
        "# TYPE zfs2s3_stored_bytes gauge",
        "zfs2s3_stored_bytes{dataset=\"tank/a\"} 4200",
        "zfs2s3_stored_backups{dataset=\"tank/a\"} 6",
        "zfs2s3_check_failed 0",
    ] {
        assert!(text.lines().any(|known| known == line), "{line} in {text}");
    }
    let newest = host.ok("list -HpS stored -o stored").stdout;
    let newest = newest.lines().next().unwrap();
    assert!(
        text.contains(&format!("zfs2s3_newest_backup_seconds{{dataset=\"tank/a\"}} {newest}\n")),
        "{text}"
    );
    assert!(!text.contains("zfs2s3_pending_since_seconds{"), "{text}");
    host.snapshot(("tank/b@1", 90), 90);
    host.add_stream(("", 90), None, &made_stream(90, 0, 700));
    host.killed("upload tank/b@1", PUT_DATA, 0, Fault::KillBefore);
    host.pending_since("2026-01-01T00:00:00Z");
    let text = metrics();
    assert!(text.contains("zfs2s3_pending_since_seconds{dataset=\"tank/b\"} 1767225600\n"), "{text}");
    assert!(text.contains("zfs2s3_check_failed 1\n"), "{text}");
    // a store that cannot be read leaves the file as it was: its age tells
    std::fs::write(host.data("stored_snapshots.yml"), "damaged").unwrap();
    assert!(!run(&host, &example("# usage: metrics "), &[file.to_str().unwrap(), "tank/a"]).status.success());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}

#[test]
fn a_unit_that_tells_of_a_failure() {
    let unit = example("# /etc/systemd/system/notify@.service");
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let host = Host::new();
    program(&host, "journalctl", "echo \"$@\"");
    program(&host, "mail", "echo \"$@\"; cat");
    let script = format!("PATH=/usr/local/sbin:$PATH\n{}", command.replace("%i", "zfs2s3.service"));
    let said = String::from_utf8(run(&host, &script, &[]).stdout).unwrap();
    assert_eq!(said, "-s zfs2s3.service failed root\n-u zfs2s3.service -n 30\n");
}
