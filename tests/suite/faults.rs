//! S3 and the network at their worst: the result is whole, or nothing is reported as stored.

use std::time::Duration;

use crate::support::{Fault, Host, S1, key, real};

const CALLS: &[&str] = &[
    "ListObjectsV2",
    "CreateMultipartUpload",
    "UploadPart",
    "HeadObject",
    "CompleteMultipartUpload",
    "PutObject",
    "ListMultipartUploads",
];

#[test]
fn every_call_may_fail_in_every_way_and_the_upload_still_succeeds() {
    for call in CALLS {
        for act in [
            Fault::Drop,
            Fault::LoseReply,
            Fault::Status(500, "InternalError"),
            Fault::Status(503, "SlowDown"),
            Fault::OkWithError("InternalError"),
            Fault::Delay(Duration::from_millis(100)),
            Fault::TruncateReply,
        ] {
            // a reply to HEAD has no body for an error, or to truncate
            if *call == "HeadObject" && matches!(act, Fault::OkWithError(_) | Fault::TruncateReply) {
                continue;
            }
            let host = Host::with_real_streams();
            host.s3.fault(call, 0, 1, act.clone());
            host.ok("upload tank/src@s1");
            assert_eq!(host.s3.state().bytes(&key(S1.0, S1.1, None)), real("full.zfs"), "{call} {act:?}");
            assert!(host.s3.state().count(call) <= 18 + 5, "requests are bounded");
            host.assert_clean();
        }
    }
}

#[test]
fn parts_that_fail_now_and_then() {
    let host = Host::with_real_streams();
    host.s3.fault("UploadPart", 2, 1, Fault::Status(503, "SlowDown"));
    host.s3.fault("UploadPart", 5, 1, Fault::Drop);
    host.s3.fault("UploadPart", 8, 1, Fault::LoseReply);
    host.s3.fault("UploadPart", 11, 1, Fault::Status(400, "BadDigest"));
    host.s3.fault("UploadPart", 14, 1, Fault::Status(400, "RequestTimeout"));
    host.ok("upload tank/src@s1");
    assert_eq!(host.s3.state().bytes(&key(S1.0, S1.1, None)), real("full.zfs"));
    assert_eq!(host.s3.state().count("UploadPart"), 18 + 5);
    host.assert_clean();
}

#[test]
fn complete_is_not_repeated_blindly_after_a_lost_reply() {
    let host = Host::with_real_streams();
    host.s3.fault("CompleteMultipartUpload", 0, 1, Fault::LoseReply);
    host.ok("upload tank/src@s1");
    assert_eq!(host.s3.state().count("CompleteMultipartUpload"), 1);
    host.assert_clean();
}

#[test]
fn an_error_that_comes_as_200_is_an_error() {
    let mut host = Host::with_real_streams();
    host.set("ZFS2S3_TEST_PATIENCE_MS", "2500");
    host.s3.fault("CompleteMultipartUpload", 0, 1000, Fault::OkWithError("InternalError"));
    let said = host.fails(75, "upload tank/src@s1");
    assert!(said.contains("200 InternalError"), "{said}");
    assert_eq!(host.listed(), ["tank/src@s1 - - STANDARD uploading"]);
    host.s3.no_more_faults();
    let sent = host.s3.state().count("UploadPart");
    host.ok("resume_upload");
    assert_eq!(host.s3.state().count("UploadPart"), sent, "all parts were there");
    host.assert_clean();
}

#[test]
fn an_object_that_does_not_match_its_parts_is_never_stored() {
    let host = Host::with_real_streams();
    host.s3.state().capabilities.mangles = true;
    let said = host.fails(75, "upload tank/src@s1");
    assert!(said.contains("does not match its parts") && said.contains("resume_upload"), "{said}");
    assert_eq!(host.listed(), ["tank/src@s1 - - STANDARD uploading"]);
    host.s3.state().capabilities.mangles = false;
    let said = host.ok("resume_upload").stderr;
    assert!(said.contains("S3 no longer knows the upload of segment 1: it begins again"), "{said}");
    assert_eq!(host.s3.state().bytes(&key(S1.0, S1.1, None)), real("full.zfs"));
    host.assert_clean();
    // and if the program is killed before it sees the reply
    let host = Host::with_real_streams();
    host.s3.fault("CompleteMultipartUpload", 0, 1, Fault::KillAfter);
    host.run("upload tank/src@s1").expect(-9);
    host.s3.state().object_mut(&key(S1.0, S1.1, None)).checksum = Some("AAAA-18".to_string());
    host.ok("abort_upload");
    assert!(host.s3.state().keys().is_empty());
    host.assert_clean();
}

#[test]
fn a_refusal_is_reported_at_once_and_leaves_nothing() {
    for (call, code) in [("ListObjectsV2", "InvalidBucketName"), ("CreateMultipartUpload", "AccessDenied")] {
        let host = Host::with_real_streams();
        host.s3.fault(call, 0, 10, Fault::Status(403, code));
        let said = host.fails(1, "upload tank/src@s1");
        assert!(said.contains(&format!("403 {code}")), "{said}");
        assert!(!said.contains("retrying"), "{said}");
        assert_eq!(host.s3.state().count(call), 1);
        host.s3.no_more_faults();
        host.assert_clean();
    }
    let host = Host::with_real_streams();
    host.s3.fault("UploadPart", 3, 100, Fault::Status(403, "AccessDenied"));
    let said = host.fails(1, "upload tank/src@s1");
    assert!(said.contains("403 AccessDenied") && said.contains("the upload is pending"), "{said}");
    host.s3.no_more_faults();
    host.ok("resume_upload");
    host.assert_clean();
}

#[test]
fn verbose_shows_each_command_request_and_retry() {
    let told = |arguments: &str| {
        let host = Host::with_real_streams();
        host.s3.fault("UploadPart", 2, 2, Fault::Status(503, "SlowDown"));
        host.ok(arguments).stderr
    };
    let said = told("upload -v tank/src@s1");
    for event in [
        "zfs get -Hp -o property,value guid,createtxg tank/src@s1\n",
        "zfs send --large-block --compressed tank/src@s1\n",
        "part 1: 200 after 0.",
    ] {
        assert!(said.contains(event), "'{event}' in {said}");
    }
    assert!(said.lines().all(|line| line.starts_with("zfs2s3: ")), "{said}");
    assert_eq!(said.matches(": 503 after ").count(), 2, "{said}");
    assert_eq!(said.matches("503 SlowDown").count(), 2, "each retry: {said}");
    let said = told("upload tank/src@s1");
    assert_eq!(said.matches("503").count(), 1, "{said}");
    assert!(!said.contains("zfs send") && !said.contains("part 1: 200"), "{said}");
    // also with -q, which is about the notes
    let said = told("upload -q -v tank/src@s1");
    assert!(said.contains("part 1: 200 after ") && !said.contains(" is stored"), "{said}");
}
