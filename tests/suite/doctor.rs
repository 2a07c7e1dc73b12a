//! The doctor: what it finds, with each fault in turn, and that it leaves nothing behind.

use crate::support::s3::{Capabilities, IfMatch};
use crate::support::{Fault, Host, Ran};

/// A healthy host with two backups.
fn healthy() -> Host {
    let mut host = Host::with_snapshots(2);
    host.set("ZFS2S3_PREFIX", "nas/");
    host.set("ZFS2S3_TEST_PATIENCE_MS", "300");
    // by its name, since a script with a path may be anything
    let zfs = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/support");
    host.set("PATH", &format!("{zfs}:{}", std::env::var("PATH").unwrap()));
    host.set("ZFS2S3_ZFS", "zfs");
    host.ok("upload tank/a@1");
    host.ok("upload -i @1 tank/a@2");
    host
}

/// The lines that are not `ok`.
fn complaints(ran: &Ran) -> Vec<&str> {
    ran.stdout.lines().filter(|line| !line.starts_with("ok ") && !line.starts_with(' ')).collect()
}

/// Nothing but the two backups and the README.
#[track_caller]
fn assert_nothing_left(host: &Host, what: &str) {
    let state = host.s3.state();
    let probes: Vec<&String> = state.objects.keys().filter(|key| key.contains("probe")).collect();
    assert!(probes.is_empty(), "{what}: {probes:?}");
    assert!(state.uploads.is_empty(), "{what}: {} uploads", state.uploads.len());
    assert!(state.hidden.is_empty() && state.markers.is_empty(), "{what}: {:?}", state.markers);
}

#[test]
fn a_healthy_host_has_no_errors_and_no_warnings() {
    let host = healthy();
    let before = host.s3.state().objects.keys().cloned().collect::<Vec<_>>();
    let ran = host.ok("doctor");
    assert_eq!(complaints(&ran), Vec::<&str>::new(), "{}", ran.stdout);
    let quiet = host.ok("doctor -q");
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    assert_eq!(ran.stderr, "zfs2s3: 0 errors, 0 warnings\n");
    for line in [
        "ok       store: 2 backups, all in the bucket",
        "ok       bucket: 'test-bucket', prefix 'nas/', region us-east-1",
        "ok       SHA-256: a part that was damaged in transit is refused",
        "ok       parts: up to 10000 in an upload",
        "ok       If-None-Match: honored",
        "ok       If-Match: honored by DeleteObject",
        "ok       bases: each dataset that is backed up has a stored snapshot, or a bookmark of one",
    ] {
        assert!(ran.stdout.lines().any(|found| found == line), "{line}\n{}", ran.stdout);
    }
    assert_eq!(before, host.s3.state().objects.keys().cloned().collect::<Vec<_>>());
    assert_nothing_left(&host, "a healthy host");
    host.assert_clean();
    let json: serde_json::Value = serde_json::from_str(&host.ok("doctor -j").stdout).unwrap();
    let findings = json.as_array().unwrap();
    assert_eq!(findings.len(), ran.stdout.lines().count());
    assert_eq!(findings[0]["level"], "ok");
    assert_eq!(findings[0]["check"], "pending upload");
    assert_eq!((&findings[0]["message"], &findings[0]["hints"]), (&"none".into(), &serde_json::json!([])));
}

const FORBIDDEN: (u16, &str) = (403, "AccessDenied");

/// What the server lacks or does, and how the one line that says so begins.
type Change = fn(&mut Capabilities);
const FAULTS: &[(Change, &str)] = &[
    // permissions
    (|s| s.may_list = false, "warning  s3:ListBucket: not permitted, so the store alone decides"),
    (|s| forbid(s, "PutObject"), "error    s3:PutObject: not permitted, so nothing can be stored"),
    (
        |s| forbid(s, "CreateMultipartUpload"),
        "error    s3:PutObject: not permitted, so nothing can be stored",
    ),
    (|s| forbid(s, "GetObject"), "error    s3:GetObject: not permitted, so nothing can be restored"),
    (|s| s.may_delete = false, "warning  s3:DeleteObject: not permitted, so 'remove' fails"),
    (
        |s| forbid(s, "ListParts"),
        "error    s3:ListMultipartUploadParts: not permitted, so an interrupted upload cannot",
    ),
    (|s| forbid(s, "ListMultipartUploads"), "warning  s3:ListBucketMultipartUploads: not permitted"),
    (|s| forbid(s, "AbortMultipartUpload"), "warning  s3:AbortMultipartUpload: not permitted"),
    (
        |s| forbid(s, "GetBucketVersioning"),
        "warning  versioning: not checked, because asking is not permitted",
    ),
    (|s| forbid(s, "GetBucketLifecycleConfiguration"), "warning  lifecycle: not checked"),
    (|s| forbid(s, "GetObjectLockConfiguration"), "warning  Object Lock: not checked"),
    // the clock
    (|s| s.clock = 3600, "error    clock: the clock of this host is 60 min behind the server's"),
    (|s| s.clock = -3600, "error    clock: the clock of this host is 60 min ahead of the server's"),
    (|s| s.clock = 300, "warning  clock: the clock of this host is 5 min behind the server's"),
    // lifecycle rules
    (|s| s.lifecycle = EXPIRES, "error    lifecycle: the rule 'tidy' deletes objects after 30 days"),
    (|s| s.lifecycle = EXPIRES_ALL, "error    lifecycle: the rule for '' deletes objects on 2027-01-01"),
    (
        |s| s.lifecycle = ARCHIVES,
        "warning  lifecycle: the rule 'cold' moves objects to DEEP_ARCHIVE after 1 day",
    ),
    (|s| s.lifecycle = ABORTS, "warning  lifecycle: the rule 'parts' aborts unfinished uploads after 7 days"),
    (|s| s.lifecycle = HARMLESS, ""),
    // versions and locks
    (
        |s| s.versioning = Some("Enabled"),
        "warning  versioning: on; what is removed is kept and billed, because",
    ),
    (
        |s| s.versioning = Some("Suspended"),
        "warning  versioning: suspended, so what was stored since is deleted",
    ),
    (versions_with_a_rule, ""),
    (|s| s.locks = true, "warning  versioning: on; what is removed is kept"),
    (
        |s| locked(s, "GetObjectRetention"),
        "warning  s3:GetObjectRetention: not permitted, so 'remove' does not see",
    ),
    (|s| locked(s, "GetObjectLegalHold"), "warning  s3:GetObjectLegalHold: not permitted"),
    (|s| versions_forbid(s, "ListObjectVersions"), "warning  s3:ListBucketVersions: not permitted"),
    (
        |s| versions_lack(s, "DeleteObjectVersion", 501, "NotImplemented"),
        "warning  s3:DeleteObjectVersion: DELETE",
    ),
    (
        |s| {
            locked(s, "GetObjectLockConfiguration");
            s.default_retention = Some("<Mode>COMPLIANCE</Mode><Years>7</Years>");
        },
        "warning  not checked: If-Match and checksums, because no probe object can be used: it is unknown",
    ),
    (
        |s| s.versioning = Some("Enabled</Status><MfaDelete>Enabled</MfaDelete><Status>"),
        "warning  not checked",
    ),
    // what the server does
    (|s| s.takes_wrong_sums = true, "warning  SHA-256: the server accepts a part whose SHA-256 is wrong"),
    (
        |s| s.max_parts = 1000,
        "error    parts: the server accepts at most 1000 in an upload, so a stream of more than",
    ),
    (|s| s.checksums = false, ""),
    (|s| s.if_none_match = false, ""),
    (|s| s.if_match = IfMatch::Ignored, "warning  If-Match: ignored by DeleteObject, so 'remove' deletes"),
    (|s| s.if_match = IfMatch::Refused, "warning  If-Match: not supported by DeleteObject, so 'remove'"),
    (
        |s| s.lacks = vec![("ListParts", 501, "NotImplemented")],
        "warning  s3:ListMultipartUploadParts: not supported",
    ),
    (
        |s| s.lists_objects_for_uploads = true,
        "warning  s3:ListBucketMultipartUploads: this server does not list open uploads",
    ),
    (|s| s.lacks = vec![("GetBucketVersioning", 501, "NotImplemented")], ""),
    (|s| s.lacks = vec![("GetBucketLifecycleConfiguration", 405, "MethodNotAllowed")], ""),
    // the server
    (|s| s.region = Some(("eu-west-3", true)), "error    bucket: listing the bucket: 307 TemporaryRedirect"),
    (
        |s| forbid_with(s, "ListObjectsV2", "SignatureDoesNotMatch"),
        "error    credentials: listing the bucket: 403",
    ),
    (
        |s| forbid_with(s, "ListObjectsV2", "NoSuchBucket"),
        "error    bucket: listing the bucket: 403 NoSuchBucket",
    ),
];

const EXPIRES: &str = "<Rule><ID>tidy</ID><Filter><Prefix>nas/tank/</Prefix></Filter><Status>Enabled</Status>\
                       <Expiration><Days>30</Days></Expiration></Rule>";
const EXPIRES_ALL: &str = "<Rule><Prefix/><Status>Enabled</Status>\
                           <Expiration><Date>2027-01-01T00:00:00.000Z</Date></Expiration></Rule>";
const ARCHIVES: &str = "<Rule><ID>cold</ID><Filter/><Status>Enabled</Status>\
                        <Transition><Days>1</Days><StorageClass>DEEP_ARCHIVE</StorageClass></Transition></Rule>";
const ABORTS: &str = "<Rule><ID>parts</ID><Filter/><Status>Enabled</Status>\
                      <AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation>\
                      </AbortIncompleteMultipartUpload></Rule>";
const OLD_VERSIONS: &str = "<Rule><ID>old</ID><Filter/><Status>Enabled</Status>\
                            <NoncurrentVersionExpiration><NoncurrentDays>30</NoncurrentDays>\
                            </NoncurrentVersionExpiration></Rule>";
/// For other objects, disabled, for tagged objects, or of no consequence.
const HARMLESS: &str = "<Rule><ID>other</ID><Filter><Prefix>tmp/</Prefix></Filter><Status>Enabled</Status>\
                        <Expiration><Days>1</Days></Expiration></Rule>\
                        <Rule><ID>off</ID><Filter/><Status>Disabled</Status><Expiration><Days>1</Days></Expiration></Rule>\
                        <Rule><ID>tagged</ID><Filter><Tag><Key>k</Key><Value>v</Value></Tag></Filter><Status>Enabled</Status>\
                        <Expiration><Days>1</Days></Expiration></Rule>\
                        <Rule><ID>warm</ID><Filter/><Status>Enabled</Status>\
                        <Transition><Days>30</Days><StorageClass>STANDARD_IA</StorageClass></Transition></Rule>";

fn forbid(server: &mut Capabilities, call: &'static str) {
    server.lacks.push((call, FORBIDDEN.0, FORBIDDEN.1));
}
fn forbid_with(server: &mut Capabilities, call: &'static str, code: &'static str) {
    server.lacks.push((call, 403, code));
}
fn lacking(server: &mut Capabilities, call: &'static str, status: u16, code: &'static str) {
    server.lacks.push((call, status, code));
}
fn versions_lack(server: &mut Capabilities, call: &'static str, status: u16, code: &'static str) {
    versions_with_a_rule(server);
    lacking(server, call, status, code);
}
fn versions_with_a_rule(server: &mut Capabilities) {
    (server.versioning, server.lifecycle) = (Some("Enabled"), OLD_VERSIONS);
}
fn versions_forbid(server: &mut Capabilities, call: &'static str) {
    versions_with_a_rule(server);
    forbid(server, call);
}
fn locked(server: &mut Capabilities, call: &'static str) {
    (server.locks, server.lifecycle) = (true, OLD_VERSIONS);
    forbid(server, call);
}

#[test]
fn each_fault_of_the_server_is_found_and_nothing_is_left() {
    for (n, (fault, expected)) in FAULTS.iter().enumerate() {
        let mut host = healthy();
        host.unset("ZFS2S3_TEST_PARTS");
        host.unset("ZFS2S3_CHUNK_SIZE");
        fault(&mut host.s3.state().capabilities);
        let ran = host.run("doctor");
        let found = complaints(&ran);
        let what = format!("fault {n}: '{expected}' in\n{}{}", ran.stdout, ran.stderr);
        println!("{what}");
        if expected.is_empty() {
            assert!(found.is_empty(), "{what}");
        } else {
            assert!(found.iter().any(|line| line.starts_with(expected)), "{what}");
        }
        let is_error = found.iter().any(|line| line.starts_with("error"));
        ran.expect(i32::from(is_error));
        assert_eq!(expected.starts_with("error"), is_error, "{what}");
        // it says what to do about each
        for line in &found {
            let below = ran.stdout.split(line).nth(1).unwrap_or_default();
            assert!(below.starts_with("\n         hint: "), "{line}\n{what}");
        }
        assert_nothing_left(&host, &what);
    }
}

#[test]
fn each_call_that_fails_is_reported() {
    let host = healthy();
    let before = host.s3.state().log.len();
    host.ok("doctor");
    let calls: Vec<&'static str> = host.s3.state().log[before..].iter().map(|(call, _)| *call).collect();
    assert!(calls.len() > 25, "{calls:?}");
    let mut silent = vec![];
    for (n, call) in calls.iter().enumerate() {
        for fault in [Fault::Status(403, "AccessDenied"), Fault::Status(400, "Strange")] {
            let host = healthy();
            host.s3.fault("", n, 1, fault.clone());
            let ran = host.run("doctor");
            assert!(matches!(ran.status, 0 | 1), "{n}\n{}{}", ran.stdout, ran.stderr);
            if matches!(fault, Fault::Status(403, _)) && complaints(&ran).is_empty() {
                silent.push(*call);
            }
            host.s3.no_more_faults();
            // if that was the deletion of a probe, the next one deletes it
            host.ok("doctor");
            assert_nothing_left(&host, &format!("request {n}, {call}"));
        }
    }
    // lists of uploads, which are asked for again: those that the store is compared with, those that another
    // run has left, and that of the check; two deletions, which are tried again with a condition; and at the
    // end, whether uploads are left, another such deletion, and whether objects are left
    let [list, delete] = ["ListMultipartUploads", "DeleteObject"];
    assert_eq!(silent, [list, list, list, delete, delete, list, delete, "ListObjectsV2"]);
}

#[test]
fn what_a_killed_doctor_leaves_the_next_one_deletes() {
    for versions in [false, true] {
        let requests = {
            let host = healthy();
            if versions {
                versions_with_a_rule(&mut host.s3.state().capabilities);
            }
            let before = host.s3.state().log.len();
            host.ok("doctor");
            host.s3.state().log.len() - before
        };
        for n in 0..requests {
            let host = healthy();
            if versions {
                versions_with_a_rule(&mut host.s3.state().capabilities);
            }
            host.killed("doctor", "", n, Fault::KillAfter);
            let ran = host.ok("doctor");
            assert_nothing_left(&host, &format!("killed after request {n}, versions {versions}"));
            assert_eq!(complaints(&ran), Vec::<&str>::new(), "{n}\n{}", ran.stdout);
        }
    }
}

#[test]
fn a_probe_of_another_host_is_left_alone_for_a_day() {
    let host = healthy();
    // the server of the tests says that all its objects are from January 2026
    host.s3.state().put_exactly("nas/zfs2s3-probe-00000000-00000001-object", b"old");
    host.s3.state().put_exactly("zfs2s3-probe-00000000-00000001-object", b"below another prefix");
    // a pool may have such a name
    let backup = "nas/zfs2s3-probe-00000000-00000001-object/a@1/0000000000000063-full-00000001.zfs";
    host.s3.state().put_exactly(backup, b"data");
    let ran = host.ok("doctor");
    assert!(
        ran.stdout.contains("ok       probes: deleted those that an interrupted run had left"),
        "{}",
        ran.stdout
    );
    let state = host.s3.state();
    let left: Vec<&String> = state.objects.keys().filter(|key| key.contains("probe")).collect();
    assert_eq!(left, [backup, "zfs2s3-probe-00000000-00000001-object"]);
}

#[test]
fn no_object_is_written_that_could_not_be_deleted() {
    let cases: [(Change, &str); 3] = [
        (|s| s.may_delete = false, "it could not be deleted"),
        (
            |s| (s.locks, s.default_retention) = (true, Some("<Mode>COMPLIANCE</Mode><Days>30</Days>")),
            "the bucket protects each object from deletion",
        ),
        (|s| versions_forbid(s, "DeleteObjectVersion"), "its version could not be deleted"),
    ];
    for (fault, why) in cases {
        let host = healthy();
        fault(&mut host.s3.state().capabilities);
        let before = host.s3.state().count("PutObject");
        let ran = host.ok("doctor");
        assert!(ran.stdout.contains(why), "{why}\n{}", ran.stdout);
        assert!(ran.stdout.contains("ok       s3:GetObject: permitted"), "by an object of a backup");
        assert_eq!(host.s3.state().count("PutObject"), before);
        assert_nothing_left(&host, why);
    }
    let host = healthy();
    let mut all = host.s3.state();
    (all.capabilities.locks, all.capabilities.default_retention) =
        (true, Some("<Mode>COMPLIANCE</Mode><Days>30</Days>"));
    drop(all);
    let said = host.ok("doctor").stdout;
    assert!(said.contains("Object Lock: each new object is protected for 30 days (COMPLIANCE)"), "{said}");
}

#[test]
fn a_lock_that_uploads_ask_for_must_be_permitted() {
    let mut host = healthy();
    host.set("ZFS2S3_LOCK_DAYS", "30");
    let said = host.run("doctor");
    said.expect(1);
    assert!(said.stdout.contains("error    Object Lock: the bucket has none, so uploads"), "{}", said.stdout);
    let quiet = host.run("doctor -q").stdout;
    assert!(quiet.starts_with("error    Object Lock: ") && !quiet.contains("\nok "), "{quiet}");
    host.s3.state().capabilities.locks = true;
    assert!(host.ok("doctor").stdout.contains("ok       s3:PutObjectRetention: permitted"));
    assert_nothing_left(&host, "locks");
}

#[test]
fn an_archive_needs_the_permission_to_thaw() {
    let mut host = healthy();
    host.set("ZFS2S3_STORAGE_CLASS", "DEEP_ARCHIVE");
    assert!(host.ok("doctor").stdout.contains("ok       s3:RestoreObject: permitted"));
    forbid(&mut host.s3.state().capabilities, "RestoreObject");
    let ran = host.run("doctor");
    ran.expect(1);
    assert!(ran.stdout.contains("error    s3:RestoreObject: not permitted, so 'thaw'"), "{}", ran.stdout);
}

#[test]
fn whose_the_credentials_are() {
    let mut host = healthy();
    assert!(host.ok("doctor").stdout.contains("ok       credentials: from AWS_ACCESS_KEY_ID\n"));
    assert_eq!(host.s3.state().count("GetCallerIdentity"), 0, "there is no STS to ask");
    host.set("AWS_ENDPOINT_URL_STS", &host.s3.url());
    let said = host.ok("doctor").stdout;
    assert!(said.contains("credentials: they belong to arn:aws:iam::123456789012:user/nas\n"), "{said}");
    host.s3.state().capabilities.arn = "arn:aws:iam::123456789012:root";
    let said = host.ok("doctor").stdout;
    assert!(
        said.contains("warning  credentials: they belong to arn:aws:iam::123456789012:root, which"),
        "{said}"
    );
    host.set("AWS_SESSION_TOKEN", "token");
    let said = host.ok("doctor").stdout;
    assert!(
        said.contains("warning  credentials: from AWS_ACCESS_KEY_ID; they are temporary, and cannot"),
        "{said}"
    );
    host.s3.fault("GetCallerIdentity", 0, 1, Fault::Status(403, "AccessDenied"));
    let said = host.ok("doctor").stdout;
    assert!(said.contains("warning  credentials: asking STS whose the credentials are: 403"), "{said}");
}

#[test]
fn a_server_that_cannot_be_reached_ends_only_its_own_checks() {
    let mut host = healthy();
    host.set("AWS_ENDPOINT_URL", "http://127.0.0.1:9");
    let ran = host.run("doctor");
    ran.expect(1);
    let found = complaints(&ran);
    // the store is that of another server
    assert_eq!(found.len(), 2, "{}", ran.stdout);
    assert!(found[0].starts_with("error    store: the store ") && found[1].starts_with("error    server: "));
    assert!(ran.stdout.contains("ok       zfs: OpenZFS 2.1.11-1"), "{}", ran.stdout);
}

#[test]
fn a_store_that_differs_from_the_bucket() {
    let host = healthy();
    // gone from the bucket
    let (key, object) =
        host.s3.state().take("nas/tank/a@2/0000000000000002-from-0000000000000001.zfs").unwrap();
    let ran = host.run("doctor");
    ran.expect(1);
    let line = "error    store: 1 backup incomplete or missing in the bucket: '-i tank/a@1 tank/a@2': the bucket has no object";
    assert!(ran.stdout.contains(line), "{}", ran.stdout);
    host.s3.state().objects.insert(key, object);
    // lost by the store
    std::fs::rename(host.data("stored_snapshots.yml"), host.data("saved")).unwrap();
    let said = host.ok("doctor").stdout;
    assert!(said.contains(
        "warning  store: it is empty, and the bucket has 2 backups\n         hint: 'zfs2s3 recover'"
    ));
    host.write_data("stored_snapshots.yml", "damaged");
    let ran = host.run("doctor");
    ran.expect(1);
    assert!(ran.stdout.contains("error    store: the store ") && ran.stdout.contains("cannot be used"));
    std::fs::rename(host.data("saved"), host.data("stored_snapshots.yml")).unwrap();
    // data of an upload that another host has begun, and its open upload
    let other = "nas/tank/b@1/0000000000000063-full-00000001.zfs";
    host.s3.state().put_exactly(other, b"data");
    let said = host.ok("doctor").stdout;
    assert!(said.contains("warning  store: 1 backup incomplete in the bucket"), "{said}");
    host.s3.state().objects.remove(other);
    // a removal that another host has announced
    let announced = "nas/tank/a@2/0000000000000002-from-0000000000000001.removing-00000001";
    let stem = host.real_key("nas/tank/a@2/0000000000000002-from-0000000000000001.yml");
    let announced = announced
        .replace("nas/tank/a@2/0000000000000002-from-0000000000000001.", stem.strip_suffix("yml").unwrap());
    host.s3.state().put_exactly(&announced, b"host: other\n");
    let said = host.ok("doctor").stdout;
    assert!(said.contains("warning  store: 1 backup announced for removal by another host"), "{said}");
    host.s3.state().objects.remove(&announced);
    assert_eq!(complaints(&host.ok("doctor")), Vec::<&str>::new());
}

#[test]
fn pending_and_unfinished_uploads_and_what_they_hold() {
    let mut host = Host::with_real_streams();
    host.set("ZFS2S3_JOBS", "1");
    host.killed("upload tank/src@s1", "UploadPart", 7, Fault::KillBefore);
    let said = host.ok("doctor").stdout;
    assert!(said.contains("warning  pending upload: tank/src@s1, full, since "), "{said}");
    assert!(said.contains("hint: if it is not running now, 'zfs2s3 resume_upload' resumes it"), "{said}");
    assert!(
        said.contains("ok       unfinished uploads: none"),
        "the pending one is not listed twice: {said}"
    );
    assert!(said.contains("ok       holds: no upload has left"), "{said}");
    // the journal is lost
    std::fs::remove_file(host.data("upload_progress.yml")).unwrap();
    let said = host.ok("doctor").stdout;
    assert!(said.contains("warning  unfinished uploads: 1 (448K), begun 2026-01-01T00:00:00.000Z"), "{said}");
    assert!(
        said.contains("hint: aws s3api abort-multipart-upload --bucket test-bucket --key tank/src@s1/"),
        "{said}"
    );
    assert!(
        said.contains("warning  holds: tank/src@s1 cannot be destroyed: held by an upload other than"),
        "{said}"
    );
    let command = said.lines().find_map(|line| line.trim().strip_prefix("hint: zfs release ")).unwrap();
    let (tag, snapshot) = command.split_once(' ').unwrap();
    assert_eq!(host.holds(), format!("{tag} {snapshot}\n"));
}

#[test]
fn zfs_and_the_rights_of_its_user() {
    let mut host = healthy();
    let id = |name: &str, text: &str| {
        let folder = host.home().join("bin");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        std::fs::write(&path, format!("#!/bin/sh\necho '{text}'\n")).unwrap();
        std::process::Command::new("chmod").args(["+x", path.to_str().unwrap()]).status().unwrap();
        folder.display().to_string()
    };
    let folder = id("id", "uid=1000(backup) gid=1000(backup) groups=1000(backup)");
    let zfs = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/support");
    host.set("PATH", &format!("{folder}:{zfs}:{}", std::env::var("PATH").unwrap()));
    let ran = host.run("doctor");
    ran.expect(1);
    let said = "error    zfs allow: user backup is not permitted to upload tank/a\n         \
                hint: zfs allow -u backup send,hold,release tank/a\n";
    assert!(ran.stdout.contains(said), "{}", ran.stdout);
    host.zfs_file(
        "allow",
        "---- Permissions on tank ------\nLocal+Descendent permissions:\n\tuser backup hold,release,send\n",
    );
    assert!(
        host.ok("doctor").stdout.contains("ok       zfs allow: user backup is permitted to upload tank/a\n")
    );
    // faults of versions matter only to encrypted datasets
    host.zfs_file("version", "zfs-2.2.7-1\nzfs-kmod-2.2.7-1\n");
    let said = host.ok("doctor").stdout;
    assert!(
        said.contains(
            "ok       zfs: it has a bug (https://github.com/openzfs/zfs/issues/18239) that affects only"
        ),
        "{said}"
    );
    host.zfs_file("encryption", "aes-256-gcm\n");
    let said = host.ok("doctor").stdout;
    assert!(
        said.contains("warning  zfs: of encrypted datasets, a stream may lose extended attributes"),
        "{said}"
    );
    // the bases are gone
    host.destroy("tank/a@1");
    host.destroy("tank/a@2");
    host.snapshot(("tank/a@3", 3), 30);
    let said = host.ok("doctor").stdout;
    assert!(
        said.contains("warning  bases: tank/a: no stored snapshot, nor a bookmark of one, is on this host"),
        "{said}"
    );
    host.snapshot(("tank/a#2", 2), 20);
    assert!(host.ok("doctor").stdout.contains("ok       bases: "));
    host.set("ZFS2S3_ZFS", "/nonexistent/zfs");
    let ran = host.run("doctor");
    ran.expect(1);
    assert!(ran.stdout.contains("error    zfs: cannot run '/nonexistent/zfs'"), "{}", ran.stdout);
    assert!(ran.stdout.contains("hint: set ZFS2S3_ZFS to the command"), "{}", ran.stdout);
}

#[test]
fn what_was_never_verified_is_worth_a_warning() {
    let host = healthy();
    let store = host.store_text();
    assert!(
        host.ok("doctor")
            .stdout
            .contains("ok       verification: all were stored or verified in the last 35 days")
    );
    let stored = store.split("\"stored\":\"").nth(1).unwrap().split('"').next().unwrap();
    host.write_data("stored_snapshots.yml", &store.replacen(stored, "2020-01-01T00:00:00Z", 1));
    let said = host.ok("doctor").stdout;
    assert!(said.contains("warning  verification: 1 backup not verified for 35 days"), "{said}");
    host.write_data("stored_snapshots.yml", &store);
    let key = "nas/tank/a@2/0000000000000002-from-0000000000000001.zfs";
    let (key, object) = host.s3.state().take(key).unwrap();
    host.fails(5, "verify");
    host.s3.state().objects.insert(key, object);
    let ran = host.run("doctor");
    ran.expect(1);
    assert!(ran.stdout.contains("error    verification: 1 backup found damaged"), "{}", ran.stdout);
    host.ok("verify");
    host.ok("doctor");
}

#[test]
fn a_configuration_that_cannot_be_read_is_not_taken_for_none() {
    // neither a code nor a body
    let host = healthy();
    host.s3.state().capabilities.versioning = Some("Enabled");
    for page in [403, 405, 502] {
        host.s3.fault("GetBucketVersioning", 0, 9, Fault::Page(page));
        let said = host.run("doctor").stdout;
        host.s3.no_more_faults();
        assert!(!said.contains("versioning: off"), "{page}: {said}");
    }
    assert_nothing_left(&host, "an unknown versioning");
    // what S3 does not document
    host.s3.fault("GetBucketLifecycleConfiguration", 0, 9, Fault::Page(200));
    let said = host.ok("doctor").stdout;
    assert!(
        said.contains("warning  lifecycle: not checked: the reply is not the one that S3 documents"),
        "{said}"
    );
}

#[test]
fn what_a_server_does_not_say_of_its_versions_is_noticed_with_the_first_one() {
    let host = healthy();
    {
        let mut state = host.s3.state();
        state.capabilities.versioning = Some("Enabled");
        state.capabilities.lacks = vec![("GetBucketVersioning", 501, "NotImplemented")];
    }
    let said = host.ok("doctor").stdout;
    assert!(said.contains("the server keeps versions after all"), "{said}");
    assert_nothing_left(&host, "a marker");
}

#[test]
fn nothing_of_an_upload_is_called_left_behind_while_the_journal_cannot_be_read() {
    let mut host = Host::with_real_streams();
    host.set("ZFS2S3_JOBS", "1");
    host.killed("upload tank/src@s1", "UploadPart", 7, Fault::KillBefore);
    let journal = std::fs::read_to_string(host.data("upload_progress.yml")).unwrap();
    host.write_data("upload_progress.yml", &journal.replacen("\"version\":2", "\"version\":9", 1));
    let ran = host.run("doctor");
    ran.expect(1);
    assert!(ran.stdout.contains("error    pending upload: "), "{}", ran.stdout);
    assert!(ran.stdout.contains("warning  holds: not checked, because the pending upload"), "{}", ran.stdout);
    assert!(ran.stdout.contains("warning  unfinished uploads: not checked"), "{}", ran.stdout);
    assert!(
        !ran.stdout.contains("zfs release") && !ran.stdout.contains("abort-multipart-upload --"),
        "{}",
        ran.stdout
    );
    host.write_data("upload_progress.yml", &journal);
    host.ok("resume_upload");
}

#[test]
fn a_rule_for_other_keys_beside_a_store_without_a_prefix() {
    let mut host = healthy();
    host.unset("ZFS2S3_PREFIX");
    host.set("XDG_DATA_HOME", &format!("{}/other", host.home().display()));
    let rule = |prefix: &str| -> &'static str { EXPIRES.replace("nas/tank/", prefix).leak() };
    host.s3.state().capabilities.lifecycle = rule("logs/");
    assert!(host.ok("doctor").stdout.contains("ok       lifecycle: no rule applies"));
    // a dataset of this host, of which nothing is stored yet
    host.s3.state().capabilities.lifecycle = rule("tank/a@2026-");
    assert!(host.run("doctor").stdout.contains("error    lifecycle: the rule 'tidy' deletes objects"));
}

#[test]
fn the_reason_of_a_refusal_is_told() {
    let host = healthy();
    host.s3.state().capabilities.wants_for_objects = Some(("x-amz-server-side-encryption", "AES256"));
    let ran = host.run("doctor");
    ran.expect(1);
    assert!(ran.stdout.contains("error    s3:PutObject: not permitted"), "{}", ran.stdout);
    assert_eq!(ran.stdout.matches("s3:PutObject").count(), 2, "one line, and its hint: {}", ran.stdout);
    // an answer that says neither yes nor no
    let host = healthy();
    host.s3.fault("UploadPart", 1, 1, Fault::Status(503, "SlowDown"));
    let said = host.ok("doctor").stdout;
    assert!(said.contains("warning  SHA-256: PUT ") && said.contains("503 SlowDown"), "{said}");
}

#[test]
fn two_doctors_at_once_do_not_disturb_each_other() {
    let host = healthy();
    host.s3.state().capabilities.lists_real_times = true;
    for call in ["ListParts", "GetObject", "HeadObject"] {
        host.s3.fault(call, 0, 1, Fault::Delay(std::time::Duration::from_secs(2)));
        let before = host.s3.state().count(call);
        let first = host.spawn("doctor");
        while host.s3.state().count(call) == before {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let second = host.ok("doctor");
        let first = first.wait_with_output().unwrap();
        let first = String::from_utf8(first.stdout).unwrap();
        assert_eq!(complaints(&second), Vec::<&str>::new(), "{call}");
        assert!(!first.contains("warning") && !first.contains("error "), "{call}: {first}");
        assert_nothing_left(&host, call);
    }
}

#[test]
fn a_host_that_may_only_add_has_no_error_in_an_empty_bucket() {
    let mut host = Host::with_snapshots(1);
    host.set("ZFS2S3_TEST_PATIENCE_MS", "300");
    {
        let mut state = host.s3.state();
        (state.capabilities.may_list, state.capabilities.may_delete) = (false, false);
    }
    let said = host.ok("doctor").stdout;
    assert!(said.contains("warning  s3:GetObject: not checked, because no object is known"), "{said}");
    assert_nothing_left(&host, "an empty bucket");
}

#[test]
fn an_upload_whose_reply_was_lost_is_aborted() {
    for n in 0..2 {
        let host = healthy();
        host.s3.fault("CreateMultipartUpload", n, 1, Fault::LoseReply);
        host.run("doctor");
        assert_nothing_left(&host, "a lost reply");
    }
}

#[test]
fn the_pending_upload_is_known_whatever_the_prefix_is() {
    let mut host = Host::with_real_streams();
    host.set("ZFS2S3_JOBS", "1");
    host.set("ZFS2S3_PREFIX", "nas/");
    host.killed("upload tank/src@s1", "UploadPart", 7, Fault::KillBefore);
    host.unset("ZFS2S3_PREFIX");
    let said = host.ok("doctor").stdout;
    assert!(said.contains("for another bucket or prefix: bucket 'test-bucket', prefix 'nas/'"), "{said}");
    assert!(said.contains("ok       unfinished uploads: none"), "{said}");
}

#[test]
fn a_delete_marker_that_a_condition_does_not_prevent_is_deleted() {
    let host = healthy();
    {
        let mut state = host.s3.state();
        versions_with_a_rule(&mut state.capabilities);
        state.capabilities.if_match = IfMatch::Ignored;
        // so that no object is written
        forbid(&mut state.capabilities, "GetObjectLockConfiguration");
    }
    host.ok("doctor");
    assert_nothing_left(&host, "a delete marker");
    // the versions are not known, and the marker stays
    let host = healthy();
    {
        let mut state = host.s3.state();
        state.capabilities.versioning = Some("Enabled");
        state.capabilities.lacks = vec![
            ("GetBucketVersioning", 501, "NotImplemented"),
            ("DeleteObjectVersion", 403, "AccessDenied"),
        ];
    }
    let said = host.ok("doctor").stdout;
    assert!(
        said.contains("warning  s3:DeleteObject: permitted, but the delete marker of this check"),
        "{said}"
    );
    let state = host.s3.state();
    assert_eq!(state.markers.len(), 1, "which is said; {:?}", state.markers);
    assert!(state.objects.keys().all(|key| !key.contains("probe")) && state.hidden.is_empty());
}

#[test]
fn a_rule_for_the_backups_of_another_host_is_found_by_the_listing() {
    let mut host = healthy();
    host.set("XDG_DATA_HOME", &format!("{}/other", host.home().display()));
    host.zfs_file("snapshots", "");
    host.s3.state().capabilities.lifecycle = EXPIRES;
    let ran = host.run("doctor");
    ran.expect(1);
    assert!(
        ran.stdout.contains("error    lifecycle: the rule 'tidy' deletes objects after 30 days"),
        "{}",
        ran.stdout
    );
}

#[test]
fn a_refusal_without_a_code_says_nothing_of_permissions() {
    let host = healthy();
    host.s3.fault("AbortMultipartUpload", 0, 1, Fault::Page(403));
    let said = host.ok("doctor").stdout;
    assert!(said.contains("warning  s3:AbortMultipartUpload: DELETE "), "{said}");
    assert_nothing_left(&host, "an upload that could not be aborted");
}

#[test]
fn what_a_server_protects_by_a_rule_of_its_own_is_written_once() {
    let host = healthy();
    // the key without an object can be deleted, an object cannot
    host.s3.fault("DeleteObject", 2, 99, Fault::Status(403, "AccessDenied"));
    let said = host.ok("doctor").stdout;
    assert!(said.contains("hint: the server may protect objects by a rule that S3 does not show"), "{said}");
    assert!(said.contains("by hand, with all their versions"), "{said}");
    let state = host.s3.state();
    assert_eq!(state.objects.keys().filter(|key| key.contains("probe")).count(), 1);
}

#[test]
fn holds_that_cannot_be_read_are_not_called_none() {
    let host = healthy();
    host.zfs_file("holds", "zfs2s3-0000beef tank/a@1\n");
    host.zfs_file("no_holds", "");
    let said = host.ok("doctor").stdout;
    assert!(said.contains("warning  holds: not checked: 'zfs holds"), "{said}");
}

#[test]
fn a_prefix_that_is_no_folder_is_noticed_before_the_first_backup() {
    let mut host = Host::with_snapshots(1);
    host.set("ZFS2S3_PREFIX", "nas");
    let said = host.ok("doctor").stdout;
    assert!(
        said.contains("warning  prefix: it does not end in '/', so keys begin with 'nasPOOL'\n"),
        "{said}"
    );
    host.ok("upload tank/a@1");
    assert!(!host.ok("doctor").stdout.contains("prefix: it"));
}
