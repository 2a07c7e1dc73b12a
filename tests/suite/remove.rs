//! `remove`: exactly the one backup that is named, and never one that others need.

use crate::support::s3::IfMatch;
use crate::support::{Fault, Host, key, made_stream};

fn month() -> Host {
    let host = Host::with_snapshots(5);
    host.ok("upload tank/a@1");
    for n in 2..=4 {
        host.ok(&format!("upload -i @{} tank/a@{n}", n - 1));
    }
    host
}

#[test]
fn a_chain_is_removed_from_its_end_and_a_refusal_shows_the_order() {
    let host = month();
    let before = host.store_text();
    let said = host.fails(3, "remove tank/a@1");
    assert_eq!(
        said,
        "zfs2s3: error: 'tank/a@1' is needed to restore other backups, which must be removed first, in this order:\n\
         \x20   zfs2s3 remove -i tank/a@3 tank/a@4\n\
         \x20   zfs2s3 remove -i tank/a@2 tank/a@3\n\
         \x20   zfs2s3 remove -i tank/a@1 tank/a@2\n\
         zfs2s3: hint: nothing was removed\n"
    );
    host.fails(3, "remove -i @1 tank/a@2");
    host.fails(3, "remove -i @2 tank/a@3");
    assert_eq!(host.store_text(), before);
    assert_eq!(host.s3.state().count("DeleteObject"), 0);
    for n in [4, 3, 2] {
        host.ok(&format!("remove -i @{} tank/a@{n}", n - 1));
        host.assert_clean();
        assert_eq!(host.listed().len(), n - 1);
    }
    host.ok("remove tank/a@1");
    assert!(host.s3.state().keys().is_empty());
}

#[test]
fn with_a_bypass_the_backups_between_may_be_removed() {
    let host = month();
    host.ok("upload -i @1 tank/a@4");
    host.ok("upload -i @4 tank/a@5");
    assert!(host.fails(3, "remove -i @2 tank/a@3").contains("-i tank/a@3 tank/a@4"));
    for n in [4, 3, 2] {
        host.ok(&format!("remove -i @{} tank/a@{n}", n - 1));
        host.assert_clean();
    }
    assert!(host.fails(3, "remove -i @1 tank/a@4").contains("-i tank/a@4 tank/a@5"));
    let listed: Vec<String> =
        host.listed().iter().map(|l| l.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(listed, ["tank/a@1 -", "tank/a@4 tank/a@1", "tank/a@5 tank/a@4"]);
}

#[test]
fn a_bypass_whose_data_are_lost_does_not_count() {
    let host = month();
    host.ok("upload -i @1 tank/a@4");
    host.ok("upload -i @4 tank/a@5");
    host.s3.state().take(&key("tank/a@4", 4, Some(1)));
    assert!(host.fails(3, "remove -i @3 tank/a@4").contains("-i tank/a@4 tank/a@5"));
    host.ok("remove -i @1 tank/a@4");
}

#[test]
fn a_backup_is_removed_by_name_or_guid_after_its_snapshot_is_gone() {
    let host = month();
    (1..=4).for_each(|n| host.destroy(&format!("tank/a@{n}")));
    assert!(host.zfs_log().contains("send"));
    host.ok("remove -i tank/a@3 tank/a@4");
    host.ok("remove -i 2 3");
    host.ok("remove -i tank/a@1 2");
    host.ok("remove 1");
    assert!(host.s3.state().keys().is_empty());
}

#[test]
fn a_name_that_is_stored_twice_needs_a_guid() {
    let host = Host::with_snapshots(1);
    host.ok("upload tank/a@1");
    host.snapshot(("tank/a@1", 77), 20);
    host.add_stream(("", 77), None, &made_stream(77, 0, 700));
    host.ok("upload tank/a@1");
    let said = host.fails(1, "remove tank/a@1");
    assert!(said.contains("hint: zfs2s3 remove 1\n") && said.contains("hint: zfs2s3 remove 77\n"), "{said}");
    host.ok("remove 1");
    assert_eq!(host.s3.state().bytes(&key("tank/a@1", 77, None)), made_stream(77, 0, 700));
    host.ok("remove tank/a@1");
    host.assert_clean();
}

#[test]
fn a_backup_that_is_not_stored_is_an_error_that_names_the_stored_ones() {
    let host = month();
    assert!(host.fails(1, "remove tank/a@9").contains("backup of tank/a@9 is stored"));
    let said = host.fails(1, "remove tank/a@3");
    assert!(
        said.contains("hint: stored as an incremental backup: zfs2s3 remove -i tank/a@2 tank/a@3"),
        "{said}"
    );
    host.fails(1, "remove -i @1 tank/a@3");
    for line in ["remove", "remove tank/a", "remove -i x tank/a@1", "remove -i @1 4"] {
        host.fails(2, line);
    }
    assert_eq!(host.s3.state().count("DeleteObject"), 0);
}

#[test]
fn a_base_stored_by_bookmark_is_found_by_either_name() {
    for base in ["#mark", "@1", "1"] {
        let host = Host::with_snapshots(2);
        host.ok("upload tank/a@1");
        host.snapshot(("tank/a#mark", 1), 10);
        host.ok("upload -i #mark tank/a@2");
        host.fails(3, "remove tank/a@1");
        host.ok(&format!("remove -i {base} tank/a@2"));
        host.assert_clean();
    }
}

#[test]
fn a_dry_run_shows_the_objects_and_their_bytes() {
    let host = month();
    let said = host.ok("remove -n -i @3 tank/a@4").stdout;
    let data = host.real_key(&key("tank/a@4", 4, Some(3)));
    assert_eq!(
        said,
        format!(
            "would remove tank/a@4, incremental from tank/a@3\n  delete  s3://test-bucket/{}\n  delete  s3://test-bucket/{data}\n  \
             size    700 bytes (700B), 2 objects\n",
            data.replace(".zfs", ".yml")
        )
    );
    host.fails(3, "remove -n tank/a@1");
    assert_eq!(host.listed().len(), 4);
}

#[test]
fn a_backup_of_another_host_that_depends_on_it_counts() {
    let host = Host::with_snapshots(2);
    host.ok("upload tank/a@1");
    let before = host.store_text();
    host.ok("upload -i @1 tank/a@2");
    host.write_data("stored_snapshots.yml", &before);
    let said = host.fails(3, "remove tank/a@1");
    assert!(said.contains("-i tank/a@1 tank/a@2: in the bucket as copy "), "{said}");
    // also while it is being uploaded in parts
    let host = Host::with_snapshots(2);
    host.add_stream(("tank/a@2", 2), Some(("tank/a@1", 1)), &made_stream(2, 1, 70_000));
    host.ok("upload tank/a@1");
    let before = host.store_text();
    host.killed("upload -i @1 tank/a@2", "CompleteMultipartUpload", 0, Fault::KillBefore);
    let progress = std::fs::read(host.data("upload_progress.yml")).unwrap();
    std::fs::remove_file(host.data("upload_progress.yml")).unwrap();
    assert!(host.fails(3, "remove tank/a@1").contains("-i tank/a@1 tank/a@2: an unfinished upload"));
    std::fs::write(host.data("upload_progress.yml"), progress).unwrap();
    host.ok("resume_upload");
    host.write_data("stored_snapshots.yml", &before);
    // and while it is being stored, when only its data are there
    host.s3.state().take(&key("tank/a@2", 2, Some(1)).replace(".zfs", ".yml"));
    host.fails(3, "remove tank/a@1");
}

#[test]
fn a_removal_killed_at_any_request_is_continued() {
    for act in [Fault::KillBefore, Fault::KillAfter] {
        // a listing, a HEAD of each object, the announcement, two listings, and three deletions
        for at in 0..9 {
            let host = month();
            host.killed("remove -i @3 tank/a@4", "", at, act.clone());
            if at > 2 {
                assert_eq!(host.listed()[3], "tank/a@4 tank/a@3 700 STANDARD removing");
                assert!(host.fails(3, "upload -i @3 tank/a@4").contains("is being removed"));
                host.ok("upload -i @3 tank/a@5");
                host.ok("remove -i @3 tank/a@5");
            }
            host.ok("remove -i @3 tank/a@4");
            assert_eq!(host.listed().len(), 3);
            host.assert_clean();
        }
    }
}

#[test]
fn a_deletion_that_s3_refuses_later_leaves_it_marked() {
    let host = month();
    host.s3.fault("DeleteObject", 1, 1, Fault::Status(403, "AccessDenied"));
    let said = host.fails(1, "remove -i @3 tank/a@4");
    assert!(
        said.contains("403 AccessDenied")
            && said.contains("the same 'zfs2s3 remove -i tank/a@3 tank/a@4' continues it"),
        "{said}"
    );
    is_continued(&host);
}

#[test]
fn lost_replies_and_busy_servers() {
    for act in
        [Fault::LoseReply, Fault::Drop, Fault::Status(503, "SlowDown"), Fault::Status(500, "InternalError")]
    {
        let host = month();
        host.s3.fault("", 0, 1, act.clone());
        host.s3.fault("DeleteObject", 0, 1, act.clone());
        host.ok("remove -i @3 tank/a@4");
        host.assert_clean();
    }
}

#[test]
fn a_damaged_store_with_a_circle_loses_nothing() {
    let host = month();
    let full = "- {\"snapshot\":{\"name\":\"tank/a@1\",\"guid\":\"1\"},";
    let based = format!("{full}\"base\":{{\"name\":\"tank/a@4\",\"guid\":\"4\"}},");
    assert!(host.store_text().contains(full));
    let circle = host.store_text().replacen(full, &based, 1);
    let circle = circle.replace("0000000000000001-full", "0000000000000001-from-0000000000000004");
    host.write_data("stored_snapshots.yml", &circle);
    host.s3.state().capabilities.may_list = false;
    for n in 2..=4 {
        host.fails(3, &format!("remove -i @{} tank/a@{n}", n - 1));
    }
    host.fails(3, "remove -i @4 tank/a@1");
    host.fails(3, "upload -i @4 tank/a@5");
    assert_eq!(host.s3.state().count("DeleteObject"), 0);
}

#[test]
fn an_interrupted_removal_is_decided_again() {
    let host = month();
    host.killed("remove -i @3 tank/a@4", "DeleteObject", 0, Fault::KillBefore);
    // another host sees its manifest, and uses it as a base
    host.s3.state().put(&key("tank/a@5", 5, Some(4)), b"x");
    let said = host.fails(3, "remove -i @3 tank/a@4");
    assert!(said.contains("-i tank/a@4 tank/a@5"), "{said}");
    host.s3.state().take(&key("tank/a@5", 5, Some(4)));
    host.ok("remove -i @3 tank/a@4");
    host.assert_clean();
}

#[test]
fn two_python_backups_with_one_object() {
    let host = Host::new();
    let twice = "!S3BackupStructureDto\nbackups:\n- !S3BackupDto\n  base: null\n  snapshot: !SnapshotDto\n    guid: '1'\n    name: tank@a\n\
                 - !S3BackupDto\n  base: null\n  snapshot: !SnapshotDto\n    guid: '2'\n    name: tank@a\n";
    host.write_data("stored_snapshots.yml", twice);
    host.s3.state().put("tank@a", b"the newer");
    let said = host.fails(3, "remove 1");
    assert!(said.contains("the backup with guid 2 has the same object 'tank@a'"), "{said}");
    assert_eq!(host.s3.state().bytes("tank@a"), b"the newer");
}

/// Append-only credentials, or an Object Lock.
#[test]
fn without_the_permission_to_delete_nothing_is_lost() {
    let host = month();
    host.s3.state().capabilities.may_delete = false;
    let said = host.fails(1, "remove -i @3 tank/a@4");
    assert!(said.contains("403 AccessDenied nothing may be deleted"), "{said}");
    assert!(said.contains("hint: nothing was removed: '-i tank/a@3 tank/a@4' is still stored"), "{said}");
    assert_eq!(host.listed()[3], "tank/a@4 tank/a@3 700 STANDARD stored");
    // also if listing is forbidden
    host.s3.state().capabilities.may_list = false;
    host.fails(1, "remove -i @3 tank/a@4");
    assert_eq!(host.listed()[3], "tank/a@4 tank/a@3 700 STANDARD stored");
    host.s3.state().capabilities.may_list = true;
    // the announcement could not be deleted either, and blocks nobody
    host.ok("upload -i @4 tank/a@5");
    assert!(host.ok("recover").stderr.contains("nothing to add: 5"));
    let state = host.s3.state();
    let left: Vec<&str> = state.keys().into_iter().filter(|key| key.contains(".removing-")).collect();
    assert!(left.len() == 2 && left.iter().all(|key| state.objects[*key].bytes.is_empty()), "{left:?}");
    drop(state);
    host.s3.state().capabilities.may_delete = true;
    host.ok("remove -i @4 tank/a@5");
    host.ok("remove -i @3 tank/a@4");
    host.assert_clean();
}

/// A host that has announced a removal and died: the backup is no longer a base, and nobody is stuck.
#[test]
fn an_interrupted_removal_can_be_cancelled() {
    let killed = || {
        let host = month();
        host.killed("remove -i @3 tank/a@4", "DeleteObject", 0, Fault::KillBefore);
        host
    };
    let host = killed();
    let said = host.fails(3, "upload -i @4 tank/a@5");
    assert!(said.contains("the base tank/a@4 is being removed"), "{said}");
    assert!(said.contains("'-i tank/a@3 tank/a@4', by host '") && said.contains("' since 2"), "{said}");
    // a backup that is still whole is used
    host.ok("restore tank/a@4 tank/new");
    let said = host.fails(1, "recover");
    assert!(
        said.contains("the removal of '-i tank/a@3 tank/a@4' has begun, but the backup is still whole"),
        "{said}"
    );
    host.ok("recover -m");
    assert_eq!(host.listed()[3], "tank/a@4 tank/a@3 700 STANDARD stored");
    host.ok("upload -i @4 tank/a@5");
    host.assert_clean();
    // by another host, whose user knows that the first one is gone
    let mut host = killed();
    host.set("XDG_DATA_HOME", host.home().join("other").to_str().unwrap());
    let said = host.fails(1, "recover");
    assert!(said.contains("the removal of a copy of tank/a@4 was announced by host '"), "{said}");
    assert!(
        said.contains("'-i tank/a@3 tank/a@4' is in the bucket, but is being removed: it is not added"),
        "{said}"
    );
    assert_eq!(host.listed().len(), 3);
    let said = host.fails(3, "upload -i @4 tank/a@5");
    assert!(said.contains("the base tank/a@4") && said.contains("recover -m"), "{said}");
    host.fails(1, "recover -m");
    assert_eq!(host.listed().len(), 3, "-m is not enough");
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_string();
    let said = host.fails(1, "recover -m -r elsewhere");
    assert!(said.contains("the host 'elsewhere' has announced no removal"), "{said}");
    assert!(said.contains(&format!("hint: the host '{name}' has")), "{said}");
    host.ok(&format!("recover -m -r {name}"));
    assert_eq!(host.listed().len(), 4);
    host.ok("upload -i @4 tank/a@5");
}

#[test]
fn a_backup_is_lost_only_with_its_last_copy() {
    let (host, id) = two_copies();
    let objects = host.s3.state().keys().len();
    host.ok(&format!("remove -c {id} 1"));
    assert_eq!(host.s3.state().keys().len(), objects - 2);
    assert_eq!(host.listed().len(), 2);
    host.ok("restore tank/a@2 tank/new");
    host.fails(3, "remove tank/a@1");
}

/// `tank/a@1` and `@2`, stored; another host stores the first at the same time, and recovers. That host, and
/// the ID of the copy that it can spare.
fn two_copies() -> (Host, String) {
    let mut host = Host::with_snapshots(2);
    host.ok("upload tank/a@1");
    host.ok("upload -i @1 tank/a@2");
    let first = host.s3.state().take(&key("tank/a@1", 1, None)).unwrap();
    let manifest = host.s3.state().take(&key("tank/a@1", 1, None).replace(".zfs", ".yml")).unwrap();
    host.set("XDG_DATA_HOME", host.home().join("other").to_str().unwrap());
    host.ok("upload tank/a@1");
    host.s3.state().objects.extend([first, manifest]);
    let said = host.ok("recover -m").stderr;
    let id = said.split("'zfs2s3 remove -c ").nth(1).unwrap()[..8].to_string();
    assert!(
        said.contains(&format!("another copy of 'tank/a@1' (700B); 'zfs2s3 remove -c {id} 1' removes it")),
        "{said}"
    );
    (host, id)
}

#[test]
fn a_copy_is_named_by_its_id_and_its_backup() {
    let (host, id) = two_copies();
    let objects = host.s3.state().keys().len();
    let shown = host.ok(&format!("remove -n -c {id} 1")).stdout;
    assert!(shown.starts_with(&format!("would remove copy {id} of tank/a@1\n")), "{shown}");
    assert!(host.fails(1, &format!("remove -c {id} 2")).contains("the bucket has no copy"));
    assert!(host.fails(2, "remove -c xyz 1").contains("'xyz' is not the ID of a copy"));
    assert_eq!(host.s3.state().keys().len(), objects);
}

#[test]
fn after_its_own_copy_is_gone_a_host_recovers_another_one() {
    let (mut host, id) = two_copies();
    host.ok(&format!("remove -c {id} 1"));
    host.unset("XDG_DATA_HOME");
    let said = host.fails(1, "recover");
    assert!(
        said.contains("'tank/a@1' is in the store, but the bucket has only another copy of it"),
        "{said}"
    );
    host.ok("recover -m");
    host.assert_clean();
}

#[test]
fn the_last_copy_is_removed_only_as_the_backup_itself() {
    let host = Host::with_snapshots(2);
    host.ok("upload tank/a@1");
    host.ok("upload -i @1 tank/a@2");
    let leaf = host.real_key(&key("tank/a@2", 2, Some(1)));
    let last = &leaf[leaf.len() - 12..leaf.len() - 4];
    let store = host.store_text();
    // whether the store knows it or not
    let line = store.lines().find(|line| line.contains(last)).unwrap();
    let without = store.replace(&format!("{line}\n"), "").replace("count: 2", "count: 1");
    for text in [&without, &store] {
        host.write_data("stored_snapshots.yml", text);
        let said = host.fails(3, &format!("remove -c {last} -i 1 2"));
        assert!(said.contains("is the last copy of that backup"), "{said}");
    }
    assert_eq!(host.listed().len(), 2);
    host.assert_clean();
}

#[test]
fn another_prefix_with_its_own_chain_prevents_nothing() {
    let mut host = Host::with_snapshots(2);
    host.ok("upload tank/a@1");
    host.set("XDG_DATA_HOME", host.home().join("other").to_str().unwrap());
    host.set("ZFS2S3_PREFIX", "b/");
    host.ok("upload tank/a@1");
    host.ok("upload -i @1 tank/a@2");
    host.unset("XDG_DATA_HOME");
    host.unset("ZFS2S3_PREFIX");
    host.ok("remove tank/a@1");
    // if its chain is not whole, it is
    host.ok("upload tank/a@1");
    host.s3.state().take(&format!("b/{}", key("tank/a@1", 1, None)));
    let said = host.fails(3, "remove tank/a@1");
    assert!(said.contains("b/tank/a@2"), "{said}");
}

#[test]
fn the_requests_of_a_removal() {
    let host = month();
    host.s3.state().log.clear();
    host.ok("remove -i @3 tank/a@4");
    let names: Vec<&str> = host.s3.state().log.iter().map(|(name, _)| *name).collect();
    let listings = ["ListMultipartUploads", "ListObjectsV2"];
    let deletions = ["DeleteObject"; 3];
    let before = ["ListObjectsV2", "HeadObject", "HeadObject", "PutObject"];
    let after = ["ListObjectsV2"];
    assert_eq!(names, [&before[..], &listings, &deletions, &after].concat());
    // and of one that is refused
    host.s3.state().log.clear();
    host.fails(3, "remove tank/a@1");
    assert_eq!(host.s3.state().log.len(), 1);
}

#[test]
fn an_object_that_another_program_replaced_is_not_deleted() {
    let host = month();
    host.s3.fault("DeleteObject", 0, 1, Fault::Replace);
    let said = host.fails(1, "remove -i @3 tank/a@4");
    assert!(said.contains("has changed since it was looked at"), "{said}");
    assert!(said.contains("'-i tank/a@3 tank/a@4' is still stored"), "{said}");
    assert_eq!(host.listed()[3], "tank/a@4 tank/a@3 700 STANDARD stored");
    host.s3.no_more_faults();
    // its data, after its manifest was deleted
    host.s3.fault("DeleteObject", 1, 1, Fault::Replace);
    let said = host.fails(1, "remove -i @3 tank/a@4");
    assert!(said.contains("the removal has begun"), "{said}");
    is_continued(&host);
}

#[test]
fn a_bucket_may_allow_only_conditional_deletes() {
    let host = month();
    host.s3.state().capabilities.deletes_by_condition = true;
    host.ok("remove -i @3 tank/a@4");
    host.killed("remove -i @2 tank/a@3", "DeleteObject", 1, Fault::KillBefore);
    host.ok("remove -i @2 tank/a@3");
    assert_eq!(host.listed().len(), 2);
    host.assert_clean();
    host.killed("upload -i @2 tank/a@3", "PutObject", 0, Fault::KillAfter);
    host.ok("abort_upload");
    host.assert_clean();
}

/// A failure of S3 must not undo a removal that has begun.
#[test]
fn a_removal_stays_begun_if_the_next_one_fails() {
    let host = month();
    host.killed("remove -i @3 tank/a@4", "DeleteObject", 0, Fault::KillBefore);
    host.s3.fault("HeadObject", 0, 2, Fault::Status(405, "MethodNotAllowed"));
    let said = host.fails(1, "remove -i @3 tank/a@4");
    host.s3.no_more_faults();
    assert!(!said.contains("still stored"), "{said}");
    is_continued(&host);
}

#[test]
fn servers_without_conditional_deletes_delete() {
    for if_match in [IfMatch::Ignored, IfMatch::Refused, IfMatch::Fails] {
        let host = month();
        host.s3.state().capabilities.if_match = if_match;
        host.ok("remove -i @3 tank/a@4");
        assert_eq!(host.listed().len(), 3);
        host.assert_clean();
    }
}

/// A refusal may follow an attempt that succeeded.
#[test]
fn a_refusal_after_a_lost_reply_is_not_called_stored() {
    let host = month();
    host.s3.fault("DeleteObject", 0, 1, Fault::LoseReply);
    host.s3.fault("DeleteObject", 0, 1, Fault::Status(403, "AccessDenied"));
    let said = host.fails(1, "remove -i @3 tank/a@4");
    assert!(said.contains("the removal has begun"), "{said}");
    is_continued(&host);
}

/// The removal of `-i tank/a@3 tank/a@4` has begun, and the same command completes it.
fn is_continued(host: &Host) {
    assert_eq!(host.listed()[3], "tank/a@4 tank/a@3 700 STANDARD removing");
    host.ok("remove -i @3 tank/a@4");
    host.assert_clean();
}

#[test]
fn an_announcement_that_is_refused_changes_nothing() {
    let host = month();
    host.s3.fault("PutObject", 0, 1, Fault::Status(403, "QuotaExceeded"));
    let said = host.fails(1, "remove -i @3 tank/a@4");
    assert!(said.contains("403 QuotaExceeded"), "{said}");
    assert_eq!(host.listed()[3], "tank/a@4 tank/a@3 700 STANDARD stored");
    host.assert_clean();
}

/// Other hosts cannot parse the keys of the Python tool, but its backups are routes like any other.
#[test]
fn a_python_backup_whose_removal_was_interrupted_still_depends_on_its_base() {
    let host = Host::of_python_tool();
    host.killed("remove -i @s1 tank/src@s2", "PutObject", 0, Fault::KillBefore);
    host.fails(3, "remove tank/src@s1");
    host.ok("recover -m");
    assert_eq!(host.listed().len(), 2);
    assert!(host.listed().iter().all(|line| line.ends_with(" stored")));
    host.ok("remove -i @s1 tank/src@s2");
    host.ok("remove tank/src@s1");
    host.assert_clean();
}

/// A profile with too few permissions.
#[test]
fn read_only_credentials_change_nothing() {
    let host = month();
    host.s3.state().capabilities.may_delete = false;
    host.s3.fault("PutObject", 0, 1000, Fault::Status(403, "AccessDenied"));
    host.fails(1, "remove -i @3 tank/a@4");
    assert_eq!(host.listed()[3], "tank/a@4 tank/a@3 700 STANDARD stored");
}
