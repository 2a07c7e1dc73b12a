//! `upload --auto`: the base that it chooses, and everything that a line in cron must survive.

use crate::support::{Fault, Host, PUT_DATA, made_stream};

/// The last line of the output of `list -H`: snapshot, base, state.
fn last(host: &Host) -> String {
    let rows = host.ok("list -H").stdout;
    let fields: Vec<&str> = rows.lines().last().unwrap().split('\t').collect();
    [fields[0], fields[2], fields[6]].join(" ")
}

#[test]
fn day_by_day() {
    let host = Host::with_snapshots(4);
    assert_eq!(
        host.ok("upload -a tank/a@1").stderr.lines().next().unwrap(),
        "zfs2s3: tank/a@1: a full backup, because none of tank/a is stored"
    );
    let said = host.ok("upload --auto tank/a@2").stderr;
    assert!(
        said.starts_with("zfs2s3: tank/a@2: the changes since tank/a@1, 2 backups in the chain\n"),
        "{said}"
    );
    assert_eq!(last(&host), "tank/a@2 tank/a@1 stored");
    // the same again
    let sent = host.s3.state().count("UploadPart");
    assert_eq!(host.ok("upload -a tank/a@2").stderr, "zfs2s3: tank/a@2 is stored already\n");
    assert_eq!(host.s3.state().count("UploadPart"), sent);
    // a day was missed
    host.ok("upload -a tank/a@4");
    assert_eq!(last(&host), "tank/a@4 tank/a@2 stored");
    // and is stored later
    host.ok("upload -a tank/a@3");
    assert_eq!(last(&host), "tank/a@3 tank/a@2 stored");
    host.assert_clean();
}

#[test]
fn a_dry_run_shows_the_choice() {
    let host = Host::with_snapshots(2);
    host.ok("upload -a tank/a@1");
    let ran = host.ok("upload -an tank/a@2");
    assert!(ran.stdout.starts_with("would upload tank/a@2, incremental from tank/a@1\n"), "{}", ran.stdout);
    assert!(
        ran.stderr.contains("tank/a@2: the changes since tank/a@1, 2 backups in the chain"),
        "{}",
        ran.stderr
    );
    assert_eq!(host.listed().len(), 1);
}

#[test]
fn a_bookmark_is_a_base_when_its_snapshot_is_gone() {
    let host = Host::with_snapshots(3);
    host.ok("upload -ab tank/a@1");
    host.destroy("tank/a@1");
    host.ok("upload -ab tank/a@2");
    assert_eq!(last(&host), "tank/a@2 tank/a#1 stored");
    // it is there already
    host.ok("upload -ab tank/a@2");
    // nothing is left that is stored
    for point in ["tank/a#1", "tank/a@2", "tank/a#2"] {
        host.destroy(point);
    }
    let said = host.ok("upload -a tank/a@3").stderr;
    assert!(
        said.contains(
            "warning: tank/a@3: a full backup, because no stored snapshot of tank/a, nor a bookmark of one, is on this host"
        ),
        "{said}"
    );
    assert_eq!(last(&host), "tank/a@3 - stored");
}

#[test]
fn a_bookmark_must_be_of_the_snapshot_that_is_stored() {
    let host = Host::with_snapshots(2);
    // another snapshot once had the name
    host.snapshot(("tank/a#1", 77), 5);
    let said = host.fails(1, "upload -ab tank/a@1");
    assert!(said.contains("tank/a@1 is stored, but tank/a#1 is a bookmark of another snapshot"), "{said}");
    assert_eq!(last(&host), "tank/a@1 - stored");
    // or has it now
    let other = Host::with_snapshots(2);
    other.s3.fault(PUT_DATA, 0, 1, Fault::Delay(std::time::Duration::from_millis(800)));
    let running = other.spawn("upload -ab tank/a@1");
    while other.s3.state().count(PUT_DATA) == 0 {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    other.snapshot(("tank/a@1", 88), 15);
    let ended = running.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(
        said.contains("tank/a@1 is stored, but not bookmarked: another snapshot has its name now"),
        "{said}"
    );
    assert!(!std::fs::read_to_string(other.home().join("zfs/snapshots")).unwrap().contains('#'));
    host.zfs_file("no_bookmark", "");
    let said = host.fails(1, "upload -ab tank/a@2");
    assert!(said.contains("tank/a@2 is stored, but cannot be bookmarked: 'zfs bookmark"), "{said}");
    host.assert_clean();
}

#[test]
fn a_pending_upload_is_resumed_first() {
    let host = Host::with_snapshots(2);
    host.killed("upload -ab tank/a@1", PUT_DATA, 0, Fault::KillBefore);
    let said = host.ok("upload -ab tank/a@2").stderr;
    assert!(said.starts_with("zfs2s3: resuming the upload of tank/a@1, full\n"), "{said}");
    assert_eq!(last(&host), "tank/a@2 tank/a@1 stored");
    let bookmarks = std::fs::read_to_string(host.home().join("zfs/snapshots")).unwrap();
    assert!(bookmarks.contains("tank/a#1\t1\t") && bookmarks.contains("tank/a#2\t2\t"), "{bookmarks}");
    host.assert_clean();
    // one that cannot be resumed stays pending, and nothing else is begun
    let host = Host::with_snapshots(2);
    host.killed("upload -a tank/a@1", PUT_DATA, 0, Fault::KillBefore);
    host.destroy("tank/a@1");
    host.s3.state().uploads.clear();
    let said = host.fails(1, "upload -a tank/a@2");
    assert!(said.contains("'zfs2s3 abort_upload' aborts the pending upload"), "{said}");
    assert!(host.s3.state().keys().is_empty());
}

#[test]
fn chains_no_longer_than_asked_for() {
    let host = Host::with_snapshots(6);
    for n in 1..=3 {
        host.ok(&format!("upload -a -m 3 tank/a@{n}"));
    }
    assert_eq!(last(&host), "tank/a@3 tank/a@2 stored");
    let said = host.ok("upload -am 3 tank/a@4").stderr;
    assert!(said.contains("the changes since tank/a@2, 3 backups in the chain"), "{said}");
    assert_eq!(last(&host), "tank/a@4 tank/a@2 stored");
    for gone in ["tank/a@1", "tank/a@2"] {
        host.destroy(gone);
    }
    let said = host.ok("upload --auto --max-chain=3 tank/a@5").stderr;
    assert!(said.contains("a full backup, because a chain may have no more than 3 backups"), "{said}");
    host.ok("upload --auto --max-chain=3 tank/a@6");
    assert_eq!(last(&host), "tank/a@6 tank/a@5 stored");
}

#[test]
fn a_base_that_cannot_be_restored_is_not_chosen() {
    let host = Host::with_snapshots(3);
    host.ok("upload -a tank/a@1");
    host.ok("upload -a tank/a@2");
    // its data are gone
    host.s3.state().take("tank/a@2/0000000000000002-from-0000000000000001.zfs").unwrap();
    let said = host.ok("upload -a tank/a@3").stderr;
    assert!(said.contains("the changes since tank/a@1, 2 backups in the chain"), "{said}");
    // and that is stored again, since it can no longer be restored
    host.ok("upload -a tank/a@2");
    assert_eq!(host.listed().iter().filter(|row| row.starts_with("tank/a@2 ")).count(), 1);
}

#[test]
fn a_lost_store_does_not_make_a_new_full_backup() {
    let host = Host::with_snapshots(2);
    host.ok("upload -a tank/a@1");
    std::fs::remove_file(host.data("stored_snapshots.yml")).unwrap();
    let said = host.fails(3, "upload -a tank/a@2");
    assert!(said.contains("the bucket has backups of tank/a, but the store has none"), "{said}");
    assert!(said.contains("'zfs2s3 recover' rebuilds it"), "{said}");
    host.ok("recover");
    host.ok("upload -a tank/a@2");
    assert_eq!(last(&host), "tank/a@2 tank/a@1 stored");
}

#[test]
fn options_that_exclude_or_need_each_other() {
    let host = Host::with_snapshots(2);
    assert!(host.fails(2, "upload -a -i @1 tank/a@2").contains("-a and -i exclude each other"));
    assert!(host.fails(2, "upload -m 3 tank/a@2").contains("-m needs -a"));
    assert!(host.fails(2, "upload -am 0 tank/a@2").contains("at least 1 backup"));
}

/// `list -H`: snapshot and base, of each.
fn stored(host: &Host) -> Vec<String> {
    let rows = host.ok("list -H").stdout;
    let pair = |row: &str| {
        let fields: Vec<&str> = row.split('\t').collect();
        format!("{} {}", fields[0], fields[2])
    };
    rows.lines().map(pair).collect()
}

#[test]
fn each_dataset_below_is_a_backup_of_its_own() {
    let host = Host::with_tree();
    host.ok("upload -ar tank@1");
    assert_eq!(stored(&host), ["tank@1 -", "tank/a@1 -", "tank/a/b@1 -", "tank/c@1 -"]);
    host.zfs_file("excluded", "tank/a\toff\ntank/a/b\toff\n");
    // it has no such snapshot
    host.destroy("tank/c@2");
    host.ok("upload -ar tank@2");
    assert_eq!(stored(&host)[4..], ["tank@2 tank@1"]);
    // the parent need not have one
    host.destroy("tank/a@2");
    host.zfs_file("excluded", "");
    host.ok("upload -arb tank/a@2");
    assert_eq!(stored(&host)[5..], ["tank/a/b@2 tank/a/b@1"]);
    let said = host.fails(1, "upload -ar tank@3");
    assert!(said.contains("neither tank nor a dataset below it has a snapshot @3"), "{said}");
    assert!(host.fails(2, "upload -r tank@1").contains("-r needs -a"));
    host.assert_clean();
}

#[test]
fn one_dataset_that_fails_does_not_keep_the_others_from_being_stored() {
    let host = Host::with_tree();
    // its stream is another one
    host.add_stream(("", 21), None, &made_stream(99, 0, 700));
    let said = host.fails(1, "upload -ar tank@1");
    assert!(said.contains("of 4 datasets, these could not be stored: tank/a\n"), "{said}");
    assert_eq!(stored(&host), ["tank@1 -", "tank/a/b@1 -", "tank/c@1 -"]);
    host.add_stream(("", 21), None, &made_stream(21, 0, 700));
    host.ok("upload -ar tank@1");
    assert_eq!(stored(&host)[3..], ["tank/a@1 -"]);
    // a network that fails, fails for all
    let mut host = Host::with_tree();
    host.set("ZFS2S3_TEST_PATIENCE_MS", "200");
    host.s3.fault(PUT_DATA, 1, 999, Fault::Drop);
    host.fails(75, "upload -ar tank@1");
    assert_eq!(stored(&host)[..1], ["tank@1 -"]);
    host.s3.no_more_faults();
    host.ok("upload -ar tank@1");
    assert_eq!(stored(&host).len(), 4);
    host.assert_clean();
}

#[test]
fn children_that_are_not_in_a_full_backup_are_named() {
    let host = Host::with_tree();
    let said = host.ok("upload tank@1").stderr;
    assert!(said.contains("tank has children, which are not in this backup: tank/a and 2 more"), "{said}");
    assert!(!host.ok("upload -i @1 tank@2").stderr.contains("children"));
    assert!(!host.ok("upload tank/c@1").stderr.contains("children"));
}

#[test]
fn a_full_backup_that_may_be_a_mistake_is_told() {
    let host = Host::with_snapshots(3);
    host.ok("upload tank/a@1");
    let said = host.ok("upload -n tank/a@2").stderr;
    assert!(
        said.contains("this is a full backup of tank/a@2; with '-i tank/a@1' or -a, only the changes since tank/a@1 would be"),
        "{said}"
    );
    // the base is gone
    let said = host.fails(1, "upload -i @0 tank/a@3");
    assert!(said.contains("there is no snapshot tank/a@0 on this host"), "{said}");
    assert!(said.contains("hint: the newest that is stored, and older than tank/a@3, is tank/a@1"), "{said}");
}

#[test]
fn a_good_night_is_quiet() {
    let host = Host::with_snapshots(3);
    for line in
        ["upload -aq tank/a@1", "upload -abq tank/a@2", "upload -aq tank/a@2", "upload -q -i @2 tank/a@3"]
    {
        let ran = host.ok(line);
        assert_eq!((ran.stdout, ran.stderr), (String::new(), String::new()), "{line}");
    }
    for line in ["verify -q", "remove -q -i @2 tank/a@3"] {
        assert_eq!(host.ok(line).stderr, "", "{line}");
    }
    host.killed("upload -aq tank/a@3", PUT_DATA, 0, Fault::KillBefore);
    assert_eq!(host.ok("resume_upload --quiet").stderr, "");
    // but a bad one is not
    assert!(host.fails(1, "upload -aq tank/a@9").contains("there is no snapshot tank/a@9 on this host"));
    host.ok("remove -i @2 tank/a@3");
    host.s3.fault("PutObject", 0, 1, Fault::Status(503, "SlowDown"));
    assert_eq!(host.ok("upload -aq tank/a@3").stderr, "", "it has passed at once");
}

#[test]
fn one_waits_for_another_to_end() {
    let host = Host::with_snapshots(2);
    host.s3.fault(PUT_DATA, 0, 1, Fault::Delay(std::time::Duration::from_millis(1500)));
    let running = host.spawn("upload -a tank/a@1");
    while host.s3.state().count(PUT_DATA) == 0 {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let said = host.fails(4, "upload -a tank/a@2");
    assert!(said.contains("hint: wait until it has ended; some commands do so with --wait-lock"), "{said}");
    let said = host.ok("upload -a --wait-lock 5m tank/a@2").stderr;
    assert!(said.starts_with("zfs2s3: another zfs2s3 is running: process "), "{said}");
    assert!(said.contains(": upload tank/a@1; waiting\n"), "{said}");
    assert!(running.wait_with_output().unwrap().status.success());
    assert_eq!(last(&host), "tank/a@2 tank/a@1 stored");
    assert!(host.fails(2, "upload -w 5 tank/a@2").contains("--wait-lock: '5' is not an age"));
}
