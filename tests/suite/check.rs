//! `check`, for monitoring.

use crate::support::{Fault, Host, PUT_DATA};

/// The store with another time of storing for the backup of this snapshot.
fn stored_at(host: &Host, snapshot: &str, time: &str) {
    let store = host.store_text();
    let line =
        store.lines().find(|line| line.contains(&format!("\"snapshot\":{{\"name\":\"{snapshot}\""))).unwrap();
    let old = line.split("\"stored\":\"").nth(1).unwrap().split('"').next().unwrap();
    host.write_data("stored_snapshots.yml", &store.replacen(line, &line.replacen(old, time, 1), 1));
}

#[test]
fn the_newest_backup_of_each_dataset_counts() {
    let host = Host::with_snapshots(2);
    assert_eq!(
        host.fails(1, "check"),
        "zfs2s3: warning: no backup is stored\nzfs2s3: error: 1 problem found\n"
    );
    host.ok("upload tank/a@1");
    host.ok("upload -i @1 tank/a@2");
    assert_eq!(host.ok("check").stderr, "");
    stored_at(&host, "tank/a@1", "2020-01-01T00:00:00Z");
    host.ok("check tank/a");
    let said = host.fails(1, "check tank/a tank/b");
    assert!(said.starts_with("zfs2s3: warning: tank/b: no backup is stored\n"), "{said}");
    stored_at(&host, "tank/a@2", "2026-01-01T00:00:00Z");
    let said = host.fails(1, "check --max-age 26h");
    assert!(
        said.contains("warning: tank/a: the newest backup, tank/a@2, was stored ")
            && said.contains(" days ago"),
        "{said}"
    );
    host.ok("check -m 36500d");
    for wrong in ["check -m 26", "check -m 0h", "check tank/a@1"] {
        host.fails(2, wrong);
    }
}

#[test]
fn an_upload_that_is_pending_for_too_long_is_a_problem() {
    let host = Host::with_snapshots(2);
    host.ok("upload tank/a@1");
    host.killed("upload -i @1 tank/a@2", PUT_DATA, 0, Fault::KillBefore);
    host.ok("check");
    host.pending_since("2026-01-01T00:00:00Z");
    let said = host.fails(1, "check");
    assert!(said.contains("the upload of tank/a@2, incremental from tank/a@1 is pending for "), "{said}");
}

#[test]
fn the_old_name_of_a_renamed_dataset_is_ignored() {
    let host = Host::with_snapshots(2);
    host.ok("upload tank/a@1");
    for name in ["tank/a@1", "tank/a@2"] {
        host.destroy(name);
    }
    host.snapshot(("tank/n@1", 1), 10);
    host.snapshot(("tank/n@2", 2), 20);
    host.ok("upload -i @1 tank/n@2");
    stored_at(&host, "tank/a@1", "2020-01-01T00:00:00Z");
    assert_eq!(host.ok("check").stderr, "");
    assert!(host.fails(1, "check tank/a").contains("tank/a: the newest backup"));
}

#[test]
fn the_datasets_below_are_those_that_upload_stores() {
    let host = Host::with_tree();
    host.zfs_file("excluded", "tank/c\toff\n");
    host.ok("upload -ar tank/a@1");
    host.ok("check -r tank/a");
    let said = host.fails(1, "check -r tank");
    assert_eq!(said, "zfs2s3: warning: tank: no backup is stored\nzfs2s3: error: 1 problem found\n");
    host.ok("upload tank@1");
    host.ok("check -r tank");
    assert!(host.fails(1, "check tank/c").contains("tank/c: no backup is stored"));
    assert!(host.fails(1, "check -r tank tank/gone").contains("tank/gone"));
    host.fails(2, "check -r");
}
