//! S3 and the network at their worst: the result is whole, or nothing is reported as stored.

use std::time::Duration;

use crate::support::{Fault, Host, PUT_DATA, S1, key, made_stream, real, summed};

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
            let host = Host::with_snapshots(1);
            host.s3.fault(if *call == "UploadPart" { PUT_DATA } else { call }, 0, 1, act.clone());
            host.ok("upload tank/a@1");
            assert_eq!(host.s3.state().bytes(&key("tank/a@1", 1, None)).len(), 700, "{call} {act:?}");
            host.assert_clean();
        }
    }
}

/// Of a stream that has only one chunk.
#[test]
fn a_single_chunk_is_not_sent_again_blindly_after_a_lost_reply() {
    let host = Host::with_snapshots(1);
    host.s3.fault(PUT_DATA, 0, 1, Fault::LoseReply);
    host.ok("upload tank/a@1");
    let state = host.s3.state();
    assert_eq!((state.count(PUT_DATA), state.count("HeadObject")), (1, 1));
}

/// Such as that of a portal between this host and S3.
#[test]
fn a_page_with_status_200_is_no_success() {
    for call in [PUT_DATA, "PutObject"] {
        let host = Host::with_snapshots(1);
        host.s3.fault(call, 0, 1, Fault::Page(200));
        let said = host.ok("upload tank/a@1").stderr;
        assert!(said.contains("the reply is a page for people, not one of S3; retrying"), "{said}");
        host.assert_clean();
    }
    let host = Host::with_snapshots(1);
    host.ok("upload tank/a@1");
    // the manifest is deleted first
    host.s3.fault("DeleteObject", 1, 1, Fault::Page(200));
    host.ok("remove tank/a@1");
    assert_eq!(host.s3.state().keys(), [""; 0]);
}

/// A Create whose reply was lost has left one whose ID is nowhere else.
fn stays_pending_until_uploads_are_listed(host: Host, fault: Fault) {
    host.killed("upload tank/src@s1", "CreateMultipartUpload", 0, Fault::KillAfter);
    host.s3.fault("ListMultipartUploads", 0, 1000, fault);
    host.fails(75, "abort_upload");
    host.s3.no_more_faults();
    host.ok("abort_upload");
    host.assert_clean();
}

/// A 403 of something in between says nothing about the bucket.
#[test]
fn an_upload_stays_pending_if_a_proxy_hides_its_unfinished_uploads() {
    stays_pending_until_uploads_are_listed(Host::with_real_streams(), Fault::Page(403));
}

#[test]
fn an_upload_stays_pending_until_its_unfinished_uploads_can_be_found() {
    let mut host = Host::with_real_streams();
    host.set("ZFS2S3_TEST_PATIENCE_MS", "100");
    stays_pending_until_uploads_are_listed(host, Fault::Status(500, "InternalError"));
}

#[test]
fn an_unfinished_upload_that_s3_lists_is_aborted_until_it_does_not() {
    let host = Host::with_real_streams();
    host.killed("upload tank/src@s1", "CreateMultipartUpload", 0, Fault::KillAfter);
    host.s3.fault("AbortMultipartUpload", 0, 1, Fault::Status(404, "NoSuchUpload"));
    let said = host.ok("abort_upload").stderr;
    assert!(!said.contains("left"), "{said}");
    host.assert_clean();

    // a wrong key does not hide it
    host.killed("upload tank/src@s1", "CreateMultipartUpload", 0, Fault::KillAfter);
    host.s3.fault("ListMultipartUploads", 0, 1, Fault::OtherKeys);
    host.ok("abort_upload");
    host.assert_clean();

    // there is an end to it
    host.killed("upload tank/src@s1", "CreateMultipartUpload", 0, Fault::KillAfter);
    host.s3.fault("AbortMultipartUpload", 0, 1000, Fault::Status(404, "NoSuchUpload"));
    let said = host.ok("abort_upload").stderr;
    assert!(
        said.contains("an unfinished upload is left in the bucket: S3 still has that of 'tank/src@s1"),
        "{said}"
    );
    assert_eq!(host.s3.state().count("AbortMultipartUpload"), 2 + 1 + 3);
}

#[test]
fn what_s3_still_has_is_not_called_removed() {
    // it says that something is missing, or deleted, and is wrong
    let faults = [("HeadObject", Fault::Status(404, "NoSuchKey")), ("DeleteObject", Fault::Word)];
    for (call, fault) in faults {
        let host = Host::with_snapshots(1);
        host.ok("upload tank/a@1");
        host.s3.fault(call, 0, 1, fault);
        let said = host.fails(75, "remove tank/a@1");
        assert!(said.contains("S3 still has 'tank/a@1/"), "{said}");
        host.ok("remove tank/a@1");
        assert!(host.s3.state().keys().is_empty(), "{call}");
        host.assert_clean();
    }
    // its key is in no folder of the backup
    let host = Host::of_python_tool();
    host.s3.fault("DeleteObject", 0, 1, Fault::Word);
    let said = host.fails(75, "remove -i @s1 tank/src@s2");
    assert!(said.contains("S3 still has 'tank/src@s2"), "{said}");
    host.ok("remove -i @s1 tank/src@s2");
}

#[test]
fn what_is_not_there_is_not_called_written() {
    let host = Host::with_snapshots(2);
    host.ok("upload tank/a@1");
    for line in ["upload -i @1 tank/a@2", "keep tank/a@1", "remove tank/a@1"] {
        // the manifest, the mark, the announcement
        host.s3.fault("PutObject", 0, 1, Fault::Word);
        let said = host.fails(75, line);
        assert!(said.contains("the reply has no ETag, and the object is not what was sent"), "{said}");
        if line.starts_with("upload") {
            host.ok("abort_upload");
        }
    }
    host.ok("remove tank/a@1");
    host.assert_clean();
}

/// Without the permission to list, S3 says 403 of what is not there.
#[test]
fn what_may_not_be_there_is_not_called_stored() {
    for call in [PUT_DATA, "PutObject"] {
        let host = Host::with_snapshots(1);
        host.s3.state().capabilities.may_list = false;
        host.s3.fault(call, 0, 1, Fault::Word);
        host.fails(75, "upload tank/a@1");
        host.ok("abort_upload");
        host.assert_clean();
    }
}

#[test]
fn a_segment_that_s3_says_it_does_not_know_is_looked_for_again() {
    let host = Host::with_real_streams();
    host.killed("upload tank/src@s1", "UploadPart", 1, Fault::KillBefore);
    host.s3.fault("ListParts", 0, 1, Fault::Status(404, "NoSuchUpload"));
    host.ok("resume_upload");
    host.assert_clean();
}

#[test]
fn an_upload_of_a_single_chunk_killed_at_any_request_is_resumed_or_aborted() {
    // a listing, the chunk, the manifest, another listing
    const REQUESTS: [(&str, usize); 4] =
        [("ListObjectsV2", 0), (PUT_DATA, 0), ("PutObject", 0), ("ListObjectsV2", 1)];
    for (call, skip) in REQUESTS {
        for act in [Fault::KillBefore, Fault::KillAfter] {
            for may_list in [true, false] {
                for way in ["resume_upload", "abort_upload"] {
                    let host = Host::with_snapshots(2);
                    host.ok("upload tank/a@1");
                    host.killed("upload -i @1 tank/a@2", call, skip, act.clone());
                    if call == "ListObjectsV2" && skip == 0 {
                        assert!(!host.data("upload_progress.yml").exists());
                        continue;
                    }
                    host.s3.state().capabilities.may_list = may_list;
                    let sent = host.s3.state().count(PUT_DATA);
                    host.ok(way);
                    let is_stored = call != PUT_DATA || matches!(act, Fault::KillAfter);
                    let again = usize::from(way == "resume_upload" && !is_stored);
                    assert_eq!(host.s3.state().count(PUT_DATA), sent + again, "{call} {act:?} {way}");
                    host.s3.state().capabilities.may_list = true;
                    let left = if way == "resume_upload" { 4 } else { 2 };
                    assert_eq!(host.s3.state().keys().len(), left, "{call} {act:?} {may_list} {way}");
                    host.assert_clean();
                }
            }
        }
    }
}

#[test]
fn a_single_chunk_that_has_changed_is_refused_when_it_is_resumed() {
    for act in [Fault::KillBefore, Fault::KillAfter] {
        for (size, why) in [(700, "it differs in the chunk at byte 0"), (70_000, "it is longer")] {
            let host = Host::with_snapshots(1);
            host.killed("upload tank/a@1", PUT_DATA, 0, act.clone());
            let mut other = made_stream(1, 0, size);
            other[320] ^= 1;
            host.add_stream(("tank/a@1", 1), None, &summed(&other));
            if matches!(act, Fault::KillAfter) {
                // what S3 has is what was recorded
                host.ok("resume_upload");
                assert_eq!(host.s3.state().bytes(&key("tank/a@1", 1, None)), made_stream(1, 0, 700));
            } else {
                let said = host.fails(3, "resume_upload");
                assert!(said.contains(why), "{said}");
                host.ok("abort_upload");
            }
            host.assert_clean();
        }
    }
}

#[test]
fn a_refused_single_chunk_leaves_nothing() {
    let host = Host::with_snapshots(1);
    host.s3.fault(PUT_DATA, 0, 9, Fault::Status(403, "AccessDenied"));
    let said = host.fails(1, "upload tank/a@1");
    assert!(said.contains("403 AccessDenied") && !said.contains("pending"), "{said}");
    assert_eq!(host.s3.state().count(PUT_DATA), 1);
    assert!(!host.data("upload_progress.yml").exists() && host.s3.state().keys().is_empty());
}

/// The first request may still be under way.
#[test]
fn a_single_chunk_that_is_refused_after_an_unanswered_attempt_stays_pending() {
    for call in [PUT_DATA, "HeadObject"] {
        let host = Host::with_snapshots(1);
        host.s3.fault(PUT_DATA, 0, 1, Fault::Status(504, "GatewayTimeout"));
        host.s3.fault(call, usize::from(call == PUT_DATA), 9, Fault::Status(400, "InvalidRequest"));
        let said = host.fails(75, "upload tank/a@1");
        assert!(said.contains("400") && said.contains("resume_upload"), "{said}");
        host.s3.no_more_faults();
        host.ok("resume_upload");
        host.assert_clean();
    }
}

#[test]
fn a_single_chunk_that_the_server_has_changed_is_never_stored() {
    let host = Host::with_snapshots(1);
    host.s3.state().capabilities.mangles = true;
    let said = host.fails(75, "upload tank/a@1");
    assert!(said.contains("is not what was sent: its checksum is AAAA, not "), "{said}");
    host.s3.state().capabilities.mangles = false;
    host.ok("resume_upload");
    assert_eq!(host.s3.state().bytes(&key("tank/a@1", 1, None)), made_stream(1, 0, 700));
    host.assert_clean();
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

#[test]
fn fewer_connections_are_used_if_the_server_asks_for_that() {
    let mut host = Host::with_real_streams();
    host.unset("ZFS2S3_JOBS");
    for (call, skip, command) in
        [("UploadPart", 0, "upload tank/src@s1"), ("GetObject", 2, "restore tank/src@s1 pool/new")]
    {
        host.s3.state().delayed_at_once.clear();
        // on a busy machine, too, they come together
        host.s3.fault(call, skip, 4, Fault::Delay(Duration::from_secs(1)));
        host.s3.fault(call, skip + 4, 1, Fault::Status(503, "SlowDown"));
        host.s3.fault(call, skip + 5, 18, Fault::Delay(Duration::from_millis(150)));
        host.ok(command);
        let at_once = host.s3.state().delayed_at_once.clone();
        assert_eq!(at_once.len(), 18, "{call}");
        assert!(at_once.iter().max() >= Some(&3), "at first, four: {call} {at_once:?}");
        assert!(at_once[9..].iter().all(|count| *count <= 2), "{call} {at_once:?}");
    }
    host.assert_clean();
}
