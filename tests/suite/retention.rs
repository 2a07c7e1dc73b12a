//! `keep` and `unkeep`, `list --removable` and `list --advise`: what may go, and what must not.

use crate::support::{Fault, Host};

/// tank/a@1 in full, and @2 to @n each from the one before.
fn chain(n: u64) -> Host {
    let host = Host::with_snapshots(n);
    host.ok("upload tank/a@1");
    for day in 2..=n {
        host.ok(&format!("upload -i @{} tank/a@{day}", day - 1));
    }
    host
}

/// `keep` from cron, while a removal was interrupted: what an earlier one has marked stays marked.
#[test]
fn a_mark_is_withdrawn_only_by_who_made_it() {
    let host = chain(2);
    let mut other = Host::new();
    other.share(&host);
    other.ok("recover");
    // the removal has passed its first check
    host.s3.fault("PutObject", 0, 1, Fault::Delay(std::time::Duration::from_millis(900)));
    let removing = other.spawn("remove -i @1 tank/a@2");
    while host.s3.state().faults_left() > 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    host.ok("keep -i @1 tank/a@2");
    let ended = removing.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(3));
    // another one is announced, by a host that knows no marks
    let stem = host.real_key("tank/a@2/0000000000000002-from-0000000000000001.yml").replace(".yml", "");
    host.s3.state().put_exactly(&format!("{stem}.removing-0000001f"), b"version: 1\n");
    let said = host.fails(3, "keep -i @1 tank/a@2");
    assert!(said.contains("is being removed"), "{said}");
    let marks = host.s3.state().keys().iter().filter(|key| key.contains(".keep-")).count();
    assert_eq!(marks, 1, "the first mark stays");
    host.s3.state().take(&format!("{stem}.removing-0000001f")).unwrap();
    host.fails(3, "remove -i @1 tank/a@2");
}

/// The mark is on the backup: also on a copy that is stored later, because the first one was damaged.
#[test]
fn what_is_stored_again_is_still_kept() {
    let host = chain(2);
    host.ok("keep -i @1 tank/a@2");
    host.s3.state().take("tank/a@2/0000000000000002-from-0000000000000001.zfs").unwrap();
    host.ok("upload -i @1 tank/a@2");
    assert!(host.ok("list").stdout.contains("  kept\n"));
    host.fails(3, "remove -i @1 tank/a@2");
    host.ok("unkeep -i @1 tank/a@2");
    host.ok("remove -i @1 tank/a@2");
}

#[test]
fn what_a_failed_upload_leaves_is_not_removed_by_the_rest_of_the_advice() {
    let host = chain(6);
    host.zfs_file("estimate", "700\n");
    let advice = host.ok("list --advise").stdout;
    // the base is destroyed before it is run
    host.destroy("tank/a@1");
    let path =
        std::path::Path::new(env!("CARGO_BIN_EXE_zfs2s3")).parent().unwrap().to_str().unwrap().to_string();
    let mut shell = std::process::Command::new("sh");
    shell.env_clear().envs(host.environment()).args(["-c", &advice]);
    let all = std::env::var("PATH").unwrap();
    assert!(!shell.env("PATH", format!("{path}:{all}")).output().unwrap().status.success());
    assert_eq!(host.listed().len(), 6);
}

/// `list -HR`: snapshot, base and state of each.
fn removable(host: &Host) -> Vec<String> {
    let rows = host.ok("list -HR").stdout;
    let row = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        [fields[0], fields[2], fields[6]].join(" ").replace("tank/a@", "")
    };
    rows.lines().map(row).collect()
}

#[test]
fn what_is_kept_is_not_removed() {
    let host = chain(3);
    assert_eq!(host.ok("keep -i @2 tank/a@3").stderr, "zfs2s3: tank/a@3, incremental from tank/a@2: kept\n");
    assert_eq!(host.ok("keep -q -w 5m -i @2 tank/a@3").stderr, "");
    for line in ["remove -i @2 tank/a@3", "remove -n -i @2 tank/a@3"] {
        let said = host.fails(3, line);
        assert!(said.contains("'-i tank/a@2 tank/a@3' is kept, as host '"), "{said}");
        assert!(said.contains("to end that: zfs2s3 unkeep -i tank/a@2 tank/a@3"), "{said}");
    }
    assert!(host.ok("list").stdout.contains("  kept\n"));
    assert!(host.ok("list -H").stdout.ends_with("\tstored\t2\n"), "for scripts");
    assert!(host.ok("list -j").stdout.contains("\"kept\": true"));
    // what it depends on cannot be removed either; the same again does no harm
    host.fails(3, "remove -i @1 tank/a@2");
    host.ok("keep -i @2 tank/a@3");
    // also after the loss of the store
    std::fs::remove_file(host.data("stored_snapshots.yml")).unwrap();
    host.ok("recover");
    assert!(host.ok("list").stdout.contains("  kept\n"));
    host.fails(3, "remove -i @2 tank/a@3");
    host.ok("verify");
    std::fs::remove_file(host.data("verified.yml")).unwrap();
    // its marks must be found first
    host.s3.state().capabilities.may_list = false;
    assert!(host.fails(1, "unkeep -i @2 tank/a@3").contains("unkeep needs s3:ListBucket"));
    host.s3.state().capabilities.may_list = true;
    host.fails(3, "remove -i @2 tank/a@3");
    // and be gone
    host.s3.fault("DeleteObject", 0, 1, Fault::Status(404, "NoSuchKey"));
    assert!(host.fails(75, "unkeep -i @2 tank/a@3").contains("S3 still has the mark"));
    host.ok("unkeep -i @2 tank/a@3");
    host.ok("unkeep -i @2 tank/a@3");
    assert!(!host.ok("list").stdout.contains("kept"));
    assert!(host.store_text().starts_with("version: 2\n"));
    host.ok("remove -i @2 tank/a@3");
    host.assert_clean();
}

#[test]
fn another_host_sees_the_mark() {
    let host = chain(2);
    let mut other = Host::new();
    other.share(&host);
    other.ok("recover");
    other.ok("keep -i @1 tank/a@2");
    // this host's store does not know it
    assert!(!host.ok("list").stdout.contains("kept"));
    let said = host.fails(3, "remove -i @1 tank/a@2");
    assert!(said.contains("is kept, as host '"), "{said}");
    assert_eq!(removable(&host), [""; 0]);
    let said = host.fails(1, "recover");
    assert!(said.contains("'-i tank/a@1 tank/a@2' differs between the store and the bucket"), "{said}");
    host.ok("recover -m");
    assert!(host.ok("list").stdout.contains("  kept\n"));
    // nor is its copy removed by its ID
    let id = host.real_key("tank/a@2/0000000000000002-from-0000000000000001.yml");
    let id = id.rsplit_once('-').unwrap().1.strip_suffix(".yml").unwrap().to_string();
    host.fails(3, &format!("remove -c {id} -i @1 tank/a@2"));
    host.ok("unkeep -i @1 tank/a@2");
    // the mark in the bucket counts, not what the other host remembers
    assert!(other.ok("list").stdout.contains("  kept\n"));
    other.ok("remove -i @1 tank/a@2");
}

#[test]
fn without_a_listing_the_store_remembers_it() {
    let host = chain(2);
    host.ok("keep -i @1 tank/a@2");
    host.s3.fault("ListObjectsV2", 0, 99, Fault::Status(403, "AccessDenied"));
    let said = host.fails(3, "remove -i @1 tank/a@2");
    assert!(said.contains("is kept"), "{said}");
}

#[test]
fn where_nothing_may_be_deleted_an_empty_mark_counts_as_none() {
    let host = chain(2);
    host.ok("keep -i @1 tank/a@2");
    host.s3.fault("DeleteObject", 0, 99, Fault::Status(403, "AccessDenied"));
    host.ok("unkeep -i @1 tank/a@2");
    host.s3.no_more_faults();
    assert!(host.s3.state().keys().iter().any(|key| key.contains(".keep-")));
    assert_eq!(removable(&host), ["2 1 removable"]);
    host.ok("remove -i @1 tank/a@2");
    assert!(!host.s3.state().keys().iter().any(|key| key.contains("@2/") && !key.contains(".keep-")));
}

#[test]
fn what_is_being_removed_cannot_be_kept() {
    let host = chain(2);
    let mut other = Host::new();
    other.share(&host);
    other.ok("recover");
    // the removal is announced, and then its host dies
    host.s3.fault("DeleteObject", 0, 1, Fault::KillBefore);
    let mut removing = other.spawn("remove -i @1 tank/a@2");
    host.s3.victim.store(removing.id(), std::sync::atomic::Ordering::SeqCst);
    assert!(!removing.wait().unwrap().success());
    let said = host.fails(3, "keep -i @1 tank/a@2");
    assert!(said.contains("'-i tank/a@1 tank/a@2' is being removed by host '"), "{said}");
    assert!(!host.s3.state().keys().iter().any(|key| key.contains(".keep-")));
    let said = other.fails(3, "keep -i @1 tank/a@2");
    assert!(said.contains("the removal of '-i tank/a@1 tank/a@2' has begun"), "{said}");
    other.ok("remove -i @1 tank/a@2");
    assert!(host.fails(1, "keep -i @1 tank/a@2").contains("cannot be kept: the bucket has no object"));
    let said = host.fails(1, "keep tank/a@7");
    assert!(said.contains("no full backup of tank/a@7 is stored"), "{said}");
}

#[test]
fn what_could_be_removed_now() {
    let host = chain(4);
    assert_eq!(removable(&host), ["4 3 removable"]);
    // a bypass: either of the chains to @4 may go
    host.ok("upload -i @1 tank/a@4");
    assert_eq!(removable(&host), ["4 3 removable", "4 1 removable"]);
    let text = host.ok("list --removable").stdout;
    assert!(text.contains("STATE\ntank/a@4  @3") && text.contains("  removable\n"), "{text}");
    assert!(host.ok("list -Rj tank/a").stdout.contains("\"removable\""));
    assert_eq!(host.ok("list -R tank/b").stderr, "zfs2s3: no backup could be removed now\n");
    assert_eq!(host.ok("list -HR tank/b").stderr, "", "a script asks each day");
    // as the monthly script does it
    for (base, snapshot) in [(3, 4), (2, 3), (1, 2)] {
        assert_eq!(removable(&host)[0], format!("{snapshot} {base} removable"));
        host.ok(&format!("remove -i @{base} tank/a@{snapshot}"));
    }
    assert_eq!(removable(&host), ["4 1 removable"]);
    host.assert_clean();
}

#[test]
fn one_of_two_chains_to_what_others_need() {
    let host = chain(4);
    host.ok("upload -i @1 tank/a@3");
    host.ok("keep -i @3 tank/a@4");
    assert_eq!(removable(&host), ["3 2 removable", "3 1 alternative"]);
}

#[test]
fn what_another_host_needs_is_not_removable() {
    let host = Host::with_snapshots(3);
    host.ok("upload tank/a@1");
    host.ok("upload -i @1 tank/a@2");
    let mut other = Host::with_snapshots(3);
    other.share(&host);
    other.ok("recover");
    other.ok("upload -i @2 tank/a@3");
    assert_eq!(removable(&host), [""; 0]);
    assert_eq!(removable(&other), ["3 2 removable"]);
}

#[test]
fn the_bypass_that_lets_most_go() {
    let host = chain(6);
    let advice = host.ok("list --advise").stdout;
    let lines: Vec<&str> = advice.lines().collect();
    // the fake ZFS estimates each backup at a megabyte
    assert_eq!(
        lines,
        ["# tank/a: no bypass saves anything: the best would free 3.42K, and take about 977K itself"]
    );
    host.zfs_file("estimate", "700\n");
    let advice = host.ok("list --advise").stdout;
    let lines: Vec<&str> = advice.lines().collect();
    assert!(lines[0].starts_with("# tank/a: a bypass of about 700B makes 5 backups removable, "), "{advice}");
    assert_eq!(
        lines[1..],
        [
            "zfs2s3 upload -i tank/a@1 tank/a@6 &&",
            "zfs2s3 remove -i tank/a@5 tank/a@6 &&",
            "zfs2s3 remove -i tank/a@4 tank/a@5 &&",
            "zfs2s3 remove -i tank/a@3 tank/a@4 &&",
            "zfs2s3 remove -i tank/a@2 tank/a@3 &&",
            "zfs2s3 remove -i tank/a@1 tank/a@2",
        ]
    );
    // what is kept stays, and what it needs
    host.ok("keep -i @2 tank/a@3");
    let advice = host.ok("list --advise tank/a").stdout;
    let lines: Vec<&str> = advice.lines().skip(1).collect();
    assert_eq!(
        lines,
        [
            "zfs2s3 upload -i tank/a@3 tank/a@6 &&",
            "zfs2s3 remove -i tank/a@5 tank/a@6 &&",
            "zfs2s3 remove -i tank/a@4 tank/a@5 &&",
            "zfs2s3 remove -i tank/a@3 tank/a@4",
        ]
    );
    // each is accepted, in this order
    for line in lines {
        host.ok(line.strip_prefix("zfs2s3 ").unwrap().trim_end_matches(" &&"));
    }
    assert_eq!(host.listed().len(), 4);
    host.ok("verify");
    assert!(host.ok("list -A").stdout.contains("no bypass"));
}

#[test]
fn a_base_that_is_only_a_bookmark() {
    let host = chain(4);
    host.zfs_file("estimate", "700\n");
    host.snapshot(("tank/a#1", 1), 10);
    host.destroy("tank/a@1");
    host.destroy("tank/a@4");
    let advice = host.ok("list --advise").stdout;
    assert!(
        advice.contains("\nzfs2s3 upload -i 'tank/a#1' tank/a@3 &&\nzfs2s3 remove -i tank/a@2 tank/a@3 &&\n"),
        "{advice}"
    );
}
