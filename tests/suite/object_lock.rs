//! Object Locks: uploads with one, and removals of what one protects.

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
fn a_lock_that_outlives_those_it_depends_on_is_a_warning() {
    let host = host();
    host.ok("upload tank/a@1");
    host.ok("upload -l 2098-01-01 -i @1 tank/a@2");
    let said = host.ok("upload -n -l 2098-01-01 -i @2 tank/a@3").stderr;
    assert!(
        said.contains("warning: it depends on tank/a@1, which the Object Lock protects not as long"),
        "{said}"
    );
    let said = host.ok("upload -l 2099-01-01 -i @2 tank/a@3").stderr;
    assert!(said.contains("it depends on tank/a@1 and 1 other backup, which"), "{said}");
}

#[test]
fn a_bucket_without_an_object_lock_refuses_before_anything_is_sent() {
    let host = Host::with_snapshots(1);
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
