//! Object Locks: uploads with one, and removals of what one protects.

use crate::support::s3::IfMatch;
use crate::support::{Fault, Host, key, made_stream};

fn host() -> Host {
    let host = Host::with_snapshots(3);
    host.s3.state().capabilities.locks = true;
    host
}

#[test]
fn every_object_of_a_backup_is_locked() {
    let mut host = host();
    host.ok("upload -l 2099-01-01 tank/a@1");
    let data = host.real_key(&key("tank/a@1", 1, None));
    let lock = ("GOVERNANCE".to_string(), "2099-01-01T00:00:00Z".to_string());
    assert_eq!(host.s3.state().locked.len(), 2, "not the README");
    for key in [data.clone(), data.replace(".zfs", ".yml")] {
        assert_eq!(host.s3.state().locked[&key], lock, "{key}");
    }
    // a resume uses the same
    host.set("ZFS2S3_LOCK_DAYS", "30");
    host.set("ZFS2S3_LOCK_MODE", "COMPLIANCE");
    host.set("ZFS2S3_TEST_PARTS", "2");
    host.add_stream(("", 2), Some(("", 1)), &made_stream(2, 1, 200_000));
    let shown = host.ok("upload -n -i @1 tank/a@2").stdout;
    assert!(shown.contains("  lock      until 2") && shown.contains(" (COMPLIANCE)\n"), "{shown}");
    host.killed("upload -i @1 tank/a@2", "UploadPart", 1, Fault::KillBefore);
    host.unset("ZFS2S3_LOCK_DAYS");
    host.unset("ZFS2S3_LOCK_MODE");
    host.ok("resume_upload");
    let state = host.s3.state();
    let ends: Vec<_> = state.locked.iter().filter(|(key, _)| key.starts_with("tank/a@2/")).collect();
    assert_eq!(ends.len(), 3, "two segments and the manifest");
    assert!(ends.iter().all(|(_, lock)| **lock == *ends[0].1 && lock.0 == "COMPLIANCE"), "{ends:?}");
}

#[test]
fn a_protected_backup_is_not_removed() {
    let host = host();
    host.ok("upload tank/a@1");
    host.ok("upload -l 2099-01-01 -i @1 tank/a@2");
    for command in ["remove -n", "remove"] {
        let said = host.fails(3, &format!("{command} -i @1 tank/a@2"));
        assert_eq!(
            said,
            "zfs2s3: error: '-i tank/a@1 tank/a@2' is kept until 2099-01-01T00:00:00Z by an Object Lock (GOVERNANCE)\n"
        );
    }
    assert_eq!(host.s3.state().count("DeleteObject"), 0);
    assert!(host.listed()[1].ends_with("stored"));
    host.assert_clean();
    // one that has ended
    host.s3.state().locked.values_mut().for_each(|lock| lock.1 = "2020-01-01T00:00:00Z".to_string());
    host.ok("remove -i @1 tank/a@2");
    host.assert_clean();
}

#[test]
fn a_removal_that_had_begun_is_undone_while_the_backup_is_whole() {
    let host = host();
    host.ok("upload tank/a@1");
    host.killed("remove tank/a@1", "DeleteObject", 0, Fault::KillBefore);
    assert!(host.listed()[0].ends_with("removing"));
    let data = host.real_key(&key("tank/a@1", 1, None));
    host.s3.state().locked.insert(data, ("COMPLIANCE".to_string(), "2099-01-01T00:00:00.000Z".to_string()));
    let said = host.fails(3, "remove tank/a@1");
    assert!(said.contains("by an Object Lock (COMPLIANCE)") && said.contains("is still stored"), "{said}");
    host.assert_clean();
    assert!(host.listed()[0].ends_with("stored"));
}

#[test]
fn an_upload_that_is_complete_and_protected_is_resumed_and_not_aborted() {
    let host = host();
    host.ok("upload tank/a@1");
    host.killed("upload -l 2099-01-01 -i @1 tank/a@2", "PutObject", 0, Fault::KillAfter);
    let said = host.fails(3, "abort_upload");
    assert!(said.contains("is kept until 2099-01-01T00:00:00Z by an Object Lock (GOVERNANCE)"), "{said}");
    assert!(said.contains("'zfs2s3 resume_upload' stores it"), "{said}");
    assert_eq!(host.s3.state().count("DeleteObject"), 0);
    host.ok("resume_upload");
    assert!(host.listed()[1].ends_with("stored"));
    host.assert_clean();
}

#[test]
fn a_lock_that_outlives_those_it_depends_on_is_a_warning() {
    let host = host();
    host.ok("upload tank/a@1");
    host.ok("upload -l 2098-01-01 -i @1 tank/a@2");
    let said = host.ok("upload -n -l 2098-01-01 -i @2 tank/a@3").stderr;
    assert!(
        said.contains("warning: it depends on tank/a@1, which no Object Lock protects for as long"),
        "{said}"
    );
    let said = host.ok("upload -l 2099-01-01 -i @2 tank/a@3").stderr;
    assert!(said.contains("it depends on tank/a@1 and 1 other backup, which"), "{said}");
    // locks of the same length end one after the other
    let mut host = self::host();
    host.set("ZFS2S3_LOCK_DAYS", "30");
    host.ok("upload tank/a@1");
    host.s3.state().locked.values_mut().for_each(|lock| lock.1 = "2098-01-01T00:00:00Z".to_string());
    host.set("ZFS2S3_LOCK_DAYS", "36000");
    assert_eq!(host.ok("upload -n -i @1 tank/a@2").stderr, "");
    host.s3.state().locked.clear();
    let said = host.ok("upload -n -i @1 tank/a@2").stderr;
    assert!(said.contains("it depends on tank/a@1, which no Object Lock protects"), "{said}");
    // and it is only a warning
    host.s3.fault("HeadObject", 0, 1, Fault::Status(405, "MethodNotAllowed"));
    let said = host.ok("upload -i @1 tank/a@2").stderr;
    assert!(said.contains("warning: it is not known until when its base is protected"), "{said}");
}

#[test]
fn a_bucket_without_an_object_lock_refuses_before_anything_is_sent() {
    let host = Host::with_snapshots(1);
    for command in ["upload -n", "upload"] {
        let said = host.fails(1, &format!("{command} -l 2099-01-01 tank/a@1"));
        assert!(said.contains("the bucket 'test-bucket' has no Object Lock"), "{said}");
        assert!(!said.contains("pending"), "{said}");
    }
    assert_eq!(host.s3.state().count("CreateMultipartUpload"), 0);
    // whether there is one may not be asked
    host.s3.fault("GetObjectLockConfiguration", 0, 1, Fault::Status(403, "AccessDenied"));
    let said = host.fails(1, "upload -l 2099-01-01 tank/a@1");
    assert!(said.contains("Bucket is missing Object Lock Configuration"), "{said}");
    assert!(
        said.contains("hint: to lock objects, the bucket needs an Object Lock, and the credentials"),
        "{said}"
    );
    assert_eq!(host.s3.state().count("UploadPart"), 0);
    host.assert_clean();
    for (line, words) in [("-l 2020-01-01", "the date is past"), ("-l soon", "neither a date")] {
        assert!(host.fails(2, &format!("upload {line} tank/a@1")).contains(words), "{line}");
    }
}

/// As `aws s3 rm` leaves it.
fn delete_from_outside(host: &Host, start: &str) {
    let mut state = host.s3.state();
    let keys: Vec<String> = state.objects.keys().filter(|key| key.starts_with(start)).cloned().collect();
    keys.iter().for_each(|key| state.hide(key));
}

/// Runs the commands that `recover` has printed.
fn run_commands(host: &Host, said: &str) -> usize {
    let commands: Vec<&str> =
        said.lines().filter_map(|line| line.split("--bucket=test-bucket ").nth(1)).collect();
    for command in &commands {
        let (key, version) = command.strip_prefix("--key=").unwrap().split_once(" --version-id=").unwrap();
        assert!(host.s3.state().delete_marker(key, version.trim_matches('\'')), "{command}");
    }
    commands.len()
}

#[test]
fn backups_that_delete_markers_hide_are_named_with_the_commands_that_bring_them_back() {
    for page in [1000, 1] {
        let host = host();
        host.s3.state().capabilities.page = page;
        host.ok("upload tank/a@1");
        host.ok("upload -i @1 tank/a@2");
        delete_from_outside(&host, "tank/a@2/");
        let said = host.fails(1, "recover");
        assert!(said.contains("'-i tank/a@1 tank/a@2' ("), "{said}");
        assert!(
            said.contains("is in the store, but was deleted from the bucket (2026-01-01T00:00:00.000Z)"),
            "{said}"
        );
        assert_eq!(run_commands(&host, &said), 2);
        host.ok("recover");
        host.ok("restore tank/a@2 tank/new");
    }
}

/// As after a removal that was interrupted, or whose replies were lost.
#[test]
fn all_delete_markers_of_a_backup_are_named() {
    for if_match in [IfMatch::Known, IfMatch::Ignored] {
        let host = host();
        host.s3.state().capabilities.if_match = if_match;
        host.ok("upload tank/a@1");
        host.s3.fault("DeleteObject", 0, 1, Fault::LoseReply);
        host.killed("remove tank/a@1", "DeleteObject", 1, Fault::KillAfter);
        host.ok("remove tank/a@1");
        let markers = |host: &Host| -> usize {
            let state = host.s3.state();
            state.markers.iter().filter(|(key, _)| !key.contains("removing")).map(|(_, ids)| ids.len()).sum()
        };
        // only a server without conditional deletes makes another one for the repeated request
        let expected = if if_match == IfMatch::Known { 2 } else { 3 };
        assert_eq!(markers(&host), expected);
        let said = host.fails(1, "recover -n");
        assert_eq!(run_commands(&host, &said), expected);
        host.ok("recover");
        host.ok("restore tank/a@1 tank/new");
    }
}

#[test]
fn hidden_data_of_a_manifest_that_is_there_are_named() {
    let host = host();
    host.ok("upload tank/a@1");
    let data = host.real_key(&key("tank/a@1", 1, None));
    host.s3.state().hide(&data);
    let said = host.fails(1, "recover");
    assert!(said.contains("'tank/a@1' (700B) is in the store, but was deleted from the bucket"), "{said}");
    assert_eq!(run_commands(&host, &said), 1);
    host.ok("restore tank/a@1 tank/new");
}

#[test]
fn a_protected_copy_that_can_no_longer_be_stored_is_aborted() {
    let host = host();
    host.ok("upload tank/a@1");
    host.killed("upload -l 2099-01-01 -i @1 tank/a@2", "PutObject", 0, Fault::KillAfter);
    // another host removes its base
    delete_from_outside(&host, "tank/a@1/");
    host.fails(3, "resume_upload");
    let said = host.ok("abort_upload").stderr;
    assert!(
        said.contains("are only hidden by delete markers") && said.contains("until 2099-01-01"),
        "{said}"
    );
    host.assert_clean();
    // and one without a manifest
    let host = self::host();
    host.killed("upload -l 2099-01-01 tank/a@1", "PutObject", 0, Fault::KillBefore);
    let said = host.ok("abort_upload").stderr;
    assert!(said.contains("are only hidden by delete markers"), "{said}");
    host.assert_clean();
}

#[test]
fn a_removal_that_is_half_done_continues_under_a_lock() {
    let host = host();
    host.ok("upload tank/a@1");
    host.killed("remove tank/a@1", "DeleteObject", 0, Fault::KillAfter);
    let data = host.real_key(&key("tank/a@1", 1, None));
    host.s3.state().locked.insert(data, ("COMPLIANCE".to_string(), "2099-01-01T00:00:00.000Z".to_string()));
    let said = host.ok("remove tank/a@1").stderr;
    assert!(said.contains("are only hidden by delete markers") && said.contains("COMPLIANCE"), "{said}");
    assert!(host.listed().is_empty());
    host.assert_clean();
}

#[test]
fn a_lock_that_the_server_ignores_is_a_warning() {
    let host = host();
    host.s3.state().capabilities.ignores_locks = true;
    let said = host.ok("upload -l 2099-01-01 tank/a@1").stderr;
    assert!(said.contains("warning: the server does not show an Object Lock on 'tank/a@1/"), "{said}");
    assert!(host.listed()[0].ends_with("stored"));
}

#[test]
fn what_was_removed_is_counted_and_listed_by_a_dry_run() {
    let host = host();
    host.ok("upload tank/a@1");
    host.ok("upload -i @1 tank/a@2");
    host.ok("remove -i @1 tank/a@2");
    let said = host.ok("recover").stderr;
    assert!(said.contains("keeps older versions of 1 deleted backup ("), "{said}");
    assert!(!said.contains("--version-id"), "{said}");
    let said = host.ok("recover -n").stderr;
    assert_eq!(said.matches("--version-id").count(), 2, "not that of the announcement: {said}");
    // all is lost
    delete_from_outside(&host, "");
    std::fs::remove_file(host.data("stored_snapshots.yml")).unwrap();
    let said = host.fails(1, "recover");
    assert!(said.contains("a backup of tank/a@1 (") && said.contains("a backup of tank/a@2 ("), "{said}");
}

#[test]
fn recover_does_not_need_the_list_of_versions() {
    for fault in [
        Fault::Status(501, "NotImplemented"),
        Fault::Status(403, "AccessDenied"),
        Fault::OkWithError("InvalidRequest"),
    ] {
        let host = host();
        host.ok("upload tank/a@1");
        host.s3.fault("ListObjectVersions", 0, 1, fault);
        host.ok("recover");
    }
}
