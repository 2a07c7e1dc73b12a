//! S3 and the network at their worst: the result is whole, or nothing is said to be stored.

use std::time::Duration;

use crate::support::{Act, Host, S1, key, real};

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
fn every_call_may_fail_in_every_way_and_the_upload_still_ends_well() {
    for call in CALLS {
        for act in [
            Act::Drop,
            Act::LoseReply,
            Act::Status(500, "InternalError"),
            Act::Status(503, "SlowDown"),
            Act::OkWithError("InternalError"),
            Act::Delay(Duration::from_millis(100)),
            Act::TruncateReply,
        ] {
            // HEAD has no body to put an error in or to cut
            if *call == "HeadObject" && matches!(act, Act::OkWithError(_) | Act::TruncateReply) {
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
    host.s3.fault("UploadPart", 2, 1, Act::Status(503, "SlowDown"));
    host.s3.fault("UploadPart", 5, 1, Act::Drop);
    host.s3.fault("UploadPart", 8, 1, Act::LoseReply);
    host.s3.fault("UploadPart", 11, 1, Act::Status(400, "BadDigest"));
    host.s3.fault("UploadPart", 14, 1, Act::Status(400, "RequestTimeout"));
    host.ok("upload tank/src@s1");
    assert_eq!(host.s3.state().bytes(&key(S1.0, S1.1, None)), real("full.zfs"));
    assert_eq!(host.s3.state().count("UploadPart"), 18 + 5);
    host.assert_clean();
}

#[test]
fn a_complete_whose_reply_is_lost_is_not_blindly_repeated() {
    let host = Host::with_real_streams();
    host.s3.fault("CompleteMultipartUpload", 0, 1, Act::LoseReply);
    host.ok("upload tank/src@s1");
    assert_eq!(host.s3.state().count("CompleteMultipartUpload"), 1);
    host.assert_clean();
}

#[test]
fn an_error_that_comes_as_200_is_an_error() {
    let mut host = Host::with_real_streams();
    host.set("ZFS2S3_TEST_PATIENCE_MS", "2500");
    host.s3.fault("CompleteMultipartUpload", 0, 1000, Act::OkWithError("InternalError"));
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
fn a_damaged_object_is_never_called_stored() {
    // S3 puts the parts together, and then has other bytes
    let host = Host::with_real_streams();
    host.s3.fault("CompleteMultipartUpload", 0, 1, Act::KillAfter);
    host.run("upload tank/src@s1").expect(-9);
    {
        let mut state = host.s3.state();
        let object = state.objects.get_mut(&key(S1.0, S1.1, None)).unwrap();
        object.checksum = Some("AAAA-18".to_string());
    }
    let said = host.fails(3, "resume_upload");
    assert!(said.contains("another object is at") && said.contains("abort_upload"), "{said}");
    let said = host.ok("abort_upload").stderr;
    assert!(said.contains("is not what this upload made, and stays"), "{said}");
    assert!(host.listed().is_empty());
    let said = host.fails(3, "upload tank/src@s1");
    assert!(
        said.contains("its manifest is not in the bucket")
            && said.contains("hint: 'zfs2s3 recover -n' tells more"),
        "{said}"
    );
}

#[test]
fn a_no_is_told_at_once_and_leaves_nothing() {
    for (call, code) in [("ListObjectsV2", "InvalidBucketName"), ("CreateMultipartUpload", "AccessDenied")] {
        let host = Host::with_real_streams();
        host.s3.fault(call, 0, 10, Act::Status(403, code));
        if call == "CreateMultipartUpload" {
            let said = host.fails(1, "upload tank/src@s1");
            assert!(said.contains(&format!("403 {code}")), "{said}");
            assert!(!said.contains("trying again"), "{said}");
            host.assert_clean();
        }
    }
    let host = Host::with_real_streams();
    host.s3.fault("UploadPart", 3, 100, Act::Status(403, "AccessDenied"));
    let said = host.fails(1, "upload tank/src@s1");
    assert!(said.contains("403 AccessDenied") && said.contains("the upload is pending"), "{said}");
    host.s3.no_more_faults();
    host.ok("resume_upload");
    host.assert_clean();
}

#[test]
fn the_object_is_there_already_by_another_host() {
    let host = Host::with_real_streams();
    host.s3.fault("HeadObject", 0, 1, Act::Delay(Duration::from_millis(800)));
    let child = host.spawn("upload tank/src@s1");
    while host.s3.state().count("HeadObject") == 0 {
        std::thread::sleep(Duration::from_millis(2));
    }
    host.s3.state().put(&key(S1.0, S1.1, None), b"another host's");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).to_string();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("another object is at"), "{said}");
    host.ok("abort_upload");
    assert_eq!(host.s3.state().bytes(&key(S1.0, S1.1, None)), b"another host's");
    assert!(host.s3.state().uploads.is_empty());
}
