//! Servers that support less than AWS, or differ from it: everything works with each of them.

use crate::support::s3::{Capabilities, Encoding, IfMatch};
use crate::support::{Fault, Host, PUT_DATA, S1, key, real};

type Quirk = fn(&mut Capabilities);

/// Quirks that were seen, and the servers that have or had them.
const QUIRKS: &[(&str, Quirk)] = &[
    ("nginx takes Expect for itself", |p| p.takes_expect = true),
    ("417 to Expect", |p| p.knows_expect = false),
    ("400 to each checksum header (Backblaze B2)", |p| p.checksums = false),
    ("501 to a checksum of a part", |p| p.no_checksums_at = &["UploadPart"]),
    ("501 to a checksum of an object", |p| p.no_checksums_at = &["PutObject"]),
    ("501 to a checksum algorithm", |p| p.no_checksums_at = &["CreateMultipartUpload"]),
    ("501 to the checksum mode of HEAD", |p| p.no_checksums_at = &["HeadObject"]),
    ("no checksums in the body of Complete (OpenStack Swift)", |p| p.strict_complete = true),
    ("Content-MD5 for an Object Lock", |p| p.wants_md5 = true),
    ("Content-MD5 and no other checksum", |p| {
        p.wants_md5 = true;
        p.checksums = false;
    }),
    ("200 to a ranged GET", |p| p.says_200 = Some(true)),
    ("404 to ListMultipartUploads", |p| p.lacks = vec![("ListMultipartUploads", 404, "NoSuchUpload")]),
    ("405 to ListMultipartUploads", |p| p.lacks = vec![("ListMultipartUploads", 405, "MethodNotAllowed")]),
    ("501 to ListParts", |p| p.lacks = vec![("ListParts", 501, "NotImplemented")]),
    ("404 to ListParts", |p| p.lacks = vec![("ListParts", 404, "NoSuchKey")]),
    ("501 to all about open uploads (localbucket)", |p| {
        p.lacks = vec![("ListParts", 501, "NotImplemented"), ("ListMultipartUploads", 501, "NotImplemented")];
    }),
    ("objects listed in place of uploads (fauxqs)", |p| p.lists_objects_for_uploads = true),
    ("parts listed without ETag (s3s-fs)", |p| p.parts_without_etag = true),
    ("501 to encoding-type", |p| p.encoding = Encoding::Refused),
    ("encoding-type ignored", |p| p.encoding = Encoding::Ignored),
    ("keys encoded unasked (rclone before 1.69)", |p| p.encoding = Encoding::Always),
    ("501 to a conditional delete", |p| p.if_match = IfMatch::Refused),
    ("conditional deletes that never match", |p| p.if_match = IfMatch::Fails),
    ("replies with other names (moto)", |p| p.moto = true),
    ("the first version of ListObjects", |p| {
        p.lists_as_before = true;
        p.page = 2;
    }),
];

fn received(host: &Host) -> Vec<u8> {
    std::fs::read(host.home().join("zfs/tank%new.received")).unwrap()
}

#[test]
fn everything_works_with_each_quirk() {
    for (name, quirk) in QUIRKS {
        let mut host = Host::with_real_streams();
        host.set("ZFS2S3_JOBS", "1");
        host.set("ZFS2S3_PREFIX", "my nas's + 1/");
        quirk(&mut host.s3.state().capabilities);
        println!("{name}");
        host.ok("upload tank/src@s1");
        host.killed("upload -i @s1 tank/src@s2", "UploadPart", 2, Fault::KillBefore);
        host.ok("abort_upload");
        host.assert_clean();
        host.killed("upload -i @s1 tank/src@s2", "UploadPart", 2, Fault::KillBefore);
        host.ok("resume_upload");
        host.assert_clean();
        // the server has lost the upload
        host.ok("remove -i @s1 tank/src@s2");
        host.killed("upload -i @s1 tank/src@s2", "UploadPart", 2, Fault::KillBefore);
        host.s3.state().uploads.clear();
        host.ok("resume_upload");
        let store = host.store_text();
        std::fs::remove_file(host.data("stored_snapshots.yml")).unwrap();
        host.ok("recover");
        assert_eq!(host.store_text().lines().count(), store.lines().count(), "{name}");
        // it is archived
        host.s3.state().object_mut(&format!("my nas's + 1/{}", key(S1.0, S1.1, None))).storage_class =
            "DEEP_ARCHIVE".to_string();
        host.run("thaw tank/src@s2 tank/new").expect(75);
        host.s3.state().finish_thawing();
        host.ok("thaw tank/src@s2 tank/new");
        host.ok("verify");
        host.ok("verify -D");
        host.ok("restore tank/src@s2 tank/new");
        assert_eq!(received(&host), [real("full.zfs"), real("incr.zfs")].concat(), "{name}");
        host.ok("remove -i @s1 tank/src@s2");
        host.ok("remove tank/src@s1");
        assert!(host.s3.state().keys().is_empty(), "{name}");
    }
}

/// s3rver has neither ListParts nor AbortMultipartUpload.
#[test]
fn a_multipart_upload_that_cannot_be_aborted_blocks_nothing() {
    for way in ["resume_upload", "abort_upload"] {
        let mut host = Host::with_real_streams();
        host.set("ZFS2S3_JOBS", "1");
        host.s3.state().capabilities.lacks =
            vec![("ListParts", 405, "MethodNotAllowed"), ("AbortMultipartUpload", 405, "MethodNotAllowed")];
        host.killed("upload tank/src@s1", "UploadPart", 7, Fault::KillBefore);
        let said = host.ok(way).stderr;
        assert!(
            said.contains("an unfinished upload is left in the bucket: ")
                && said.contains("405 MethodNotAllowed"),
            "{said}"
        );
        assert_eq!(host.s3.state().uploads.len(), 1);
        host.s3.state().uploads.clear();
        host.assert_clean();
    }
    // a proxy that forbids DELETE is another matter
    let host = Host::with_real_streams();
    host.killed("upload tank/src@s1", "UploadPart", 7, Fault::KillBefore);
    host.s3.fault("AbortMultipartUpload", 0, 9, Fault::Page(405));
    host.fails(1, "abort_upload");
    host.s3.no_more_faults();
    host.ok("abort_upload");
    host.assert_clean();
}

#[test]
fn a_page_instead_of_a_list_of_parts_loses_nothing() {
    let mut host = Host::with_real_streams();
    host.set("ZFS2S3_JOBS", "1");
    host.killed("upload tank/src@s1", "UploadPart", 7, Fault::KillBefore);
    host.s3.fault("ListParts", 0, 1, Fault::Page(200));
    host.fails(1, "resume_upload");
    host.ok("resume_upload");
    assert_eq!(host.s3.state().count("UploadPart"), 8 + 11, "no part is sent twice");
    // but a finished object is recognized
    host.killed("upload -i @s1 tank/src@s2", "CompleteMultipartUpload", 0, Fault::KillAfter);
    let sent = host.s3.state().count("UploadPart");
    host.s3.fault("ListParts", 0, 1, Fault::Page(200));
    host.ok("resume_upload");
    assert_eq!(host.s3.state().count("UploadPart"), sent);
    host.assert_clean();
}

#[test]
fn what_a_server_refuses_is_omitted_for_the_rest_of_the_run() {
    let mut host = Host::with_real_streams();
    host.set("ZFS2S3_JOBS", "1");
    host.s3.state().capabilities.no_checksums_at = &["UploadPart"];
    host.ok("upload tank/src@s1");
    assert_eq!(host.s3.state().count("UploadPart"), 18 + 1);
    let host = Host::with_real_streams();
    host.s3.state().capabilities.checksums = false;
    host.ok("upload tank/src@s1");
    assert_eq!(host.s3.state().count("CreateMultipartUpload"), 2);
    assert_eq!(host.s3.state().count("UploadPart"), 18, "the reply of Create said that none are kept");
}

#[test]
fn other_errors_do_not_mean_that_a_feature_is_missing() {
    let host = Host::with_real_streams();
    host.s3.fault("CreateMultipartUpload", 0, 2, Fault::Status(400, "InvalidArgument"));
    let said = host.fails(1, "upload tank/src@s1");
    assert!(said.contains("400 InvalidArgument as the test wants it"), "{said}");
    assert_eq!(host.s3.state().count("CreateMultipartUpload"), 2);
    host.ok("upload tank/src@s1");
    let state = host.s3.state();
    assert!(state.object(&key(S1.0, S1.1, None)).checksum.is_some(), "in the next run they are sent");
}

#[test]
fn checksums_are_left_out_where_the_user_wants_only_those_required() {
    let mut host = Host::with_real_streams();
    host.set("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required");
    host.set("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required");
    host.s3.state().capabilities.checksums = false;
    host.ok("upload tank/src@s1");
    host.ok("restore tank/src@s1 tank/new");
    assert_eq!(host.s3.state().count("CreateMultipartUpload"), 1);
    assert_eq!(host.s3.state().count("PutObject"), 2, "the manifest and the README");
    assert_eq!(host.s3.state().count("HeadObject"), 2);
}

#[test]
fn a_412_from_complete_is_final_and_its_message_is_shown() {
    let host = Host::with_real_streams();
    host.s3.fault("CompleteMultipartUpload", 0, 1, Fault::Status(412, "PreconditionFailed"));
    let said = host.fails(1, "upload tank/src@s1");
    assert!(said.contains("412 PreconditionFailed as the test wants it"), "{said}");
    assert_eq!(host.s3.state().count("CompleteMultipartUpload"), 1);
    host.ok("resume_upload");
    host.assert_clean();
}

#[test]
fn a_server_with_fewer_parts_names_the_setting_and_the_upload_continues_in_segments() {
    for jobs in ["1", "8"] {
        let mut host = Host::with_real_streams();
        host.set("ZFS2S3_JOBS", jobs);
        host.s3.state().capabilities.max_parts = 7;
        let said = host.fails(1, "upload tank/src@s1");
        assert!(
            said.contains("between 1 and 7") && said.contains("'ZFS2S3_PARTS=7 zfs2s3 resume_upload'"),
            "{said}"
        );
        let sent = host.s3.state().count("UploadPart");
        host.set("ZFS2S3_PARTS", "7");
        host.ok("resume_upload");
        let stored = host.s3.state().count("UploadPart") - sent;
        assert!(stored < 18 && (jobs == "8" || stored == 11), "{stored} parts after the refusal");
        let first = key(S1.0, S1.1, None);
        let (full, mut at) = (real("full.zfs"), 0);
        for segment in [first.clone(), format!("{first}.2"), format!("{first}.3")] {
            let state = host.s3.state();
            let bytes = state.bytes(&segment);
            assert_eq!(bytes, &full[at..at + bytes.len()]);
            at += bytes.len();
        }
        assert_eq!(at, full.len());
        host.ok("upload -i @s1 tank/src@s2");
        host.ok("restore tank/src@s2 tank/new");
        assert_eq!(received(&host), [real("full.zfs"), real("incr.zfs")].concat());
        host.assert_clean();
    }
}

#[test]
fn an_upload_with_too_many_parts_for_complete_is_divided_again() {
    // the server accepts the parts, and refuses to complete so many
    let mut host = Host::with_real_streams();
    host.s3.fault("CompleteMultipartUpload", 0, 4, Fault::Status(400, "InvalidRequest"));
    host.fails(1, "upload tank/src@s1");
    host.set("ZFS2S3_PARTS", "10");
    host.s3.state().capabilities.max_parts = 10;
    host.ok("resume_upload");
    let first = key(S1.0, S1.1, None);
    let sizes = [first.clone(), format!("{first}.2")].map(|key| host.s3.state().bytes(&key).len());
    assert_eq!(sizes, [655_360, 1_131_752 - 655_360]);
    host.assert_clean();
    let downloaded = host.spawn("download tank/src@s1").wait_with_output().unwrap();
    assert!(downloaded.status.success() && downloaded.stdout == real("full.zfs"));
}

#[test]
fn a_class_with_the_name_of_an_archive_is_read_if_it_is_none() {
    let mut host = Host::with_real_streams();
    host.set("ZFS2S3_STORAGE_CLASS", "GLACIER");
    host.ok("upload tank/src@s1");
    host.ok("upload -i @s1 tank/src@s2");
    let said = host.fails(75, "restore tank/src@s2 tank/new");
    assert!(said.contains("2 objects (1.36M) are archived"), "{said}");
    host.s3.state().capabilities.reads_glacier = true;
    host.ok("restore tank/src@s2 tank/new");
    assert_eq!(received(&host), [real("full.zfs"), real("incr.zfs")].concat());
}

#[test]
fn keys_that_xml_cannot_hold_do_not_end_a_listing() {
    let host = Host::with_snapshots(1);
    host.s3.state().put_exactly("somebody's\u{1}\n+ key", b"x");
    host.ok("upload tank/a@1");
    assert!(host.s3.state().has(&key("tank/a@1", 1, None)));
    host.ok("recover -m");
}

#[test]
fn a_missing_permission_to_read_is_reported_before_anything_is_sent() {
    let host = Host::with_real_streams();
    host.s3.state().capabilities.may_read = false;
    let said = host.fails(1, "upload tank/src@s1");
    assert!(
        said.contains("403 AccessDenied these credentials may not read objects")
            && said.contains("hint: allow s3:GetObject"),
        "{said}"
    );
    assert_eq!(host.s3.state().count("CreateMultipartUpload"), 0);
    assert!(!host.data("upload_progress.yml").exists());
    // a dry run writes nothing
    let host = Host::with_real_streams();
    host.s3.state().capabilities.may_read = false;
    let said = host.ok("upload -n tank/src@s1").stderr;
    assert!(said.contains("warning: ") && said.contains("may not read objects"), "{said}");
    assert!(host.s3.state().objects.is_empty());
}

/// As AWS does where a policy allows listing only below a prefix, which a GET does not name.
#[test]
fn a_403_for_a_missing_object_does_not_prevent_an_upload() {
    let host = Host::with_real_streams();
    host.s3.state().capabilities.hides_absent = true;
    host.ok("upload tank/src@s1");
    host.ok("upload -i @s1 tank/src@s2");
    host.assert_clean();
}

#[test]
fn without_the_permission_to_list_parts_nothing_is_lost() {
    let mut host = Host::with_real_streams();
    host.set("ZFS2S3_JOBS", "1");
    host.killed("upload tank/src@s1", "UploadPart", 7, Fault::KillBefore);
    host.s3.fault("ListParts", 0, 1, Fault::Status(403, "AccessDenied"));
    let said = host.fails(1, "resume_upload");
    assert!(said.contains("403 AccessDenied") && said.contains("hint: the SECURITY section"), "{said}");
    host.ok("resume_upload");
    assert_eq!(host.s3.state().count("UploadPart"), 8 + 11, "no part is sent twice");
    host.assert_clean();
}

#[test]
fn a_lower_number_of_parts_costs_nothing_if_none_is_needed() {
    // everything is in S3, and the source is gone
    let mut host = Host::with_real_streams();
    host.killed("upload tank/src@s1", "CompleteMultipartUpload", 0, Fault::KillBefore);
    let sent = host.s3.state().count("UploadPart");
    host.destroy(S1.0);
    host.zfs_file("holds", "");
    host.set("ZFS2S3_PARTS", "7");
    host.ok("resume_upload");
    assert_eq!(host.s3.state().count("UploadPart"), sent);
    assert_eq!(host.s3.state().bytes(&key(S1.0, S1.1, None)), real("full.zfs"));
    host.assert_clean();
}

#[test]
fn recorded_parts_are_dropped_only_if_the_source_exists() {
    let mut host = Host::with_real_streams();
    host.set("ZFS2S3_JOBS", "1");
    host.set("ZFS2S3_TEST_PARTS", "8");
    host.killed("upload tank/src@s1", "UploadPart", 11, Fault::KillBefore);
    host.set("ZFS2S3_PARTS", "3");
    host.destroy(S1.0);
    let record = std::fs::read(host.data("upload_progress.yml")).unwrap();
    host.fails(1, "resume_upload");
    assert_eq!(std::fs::read(host.data("upload_progress.yml")).unwrap(), record);
    assert_eq!(host.s3.state().uploads.len(), 2);
    host.snapshot(S1, 10);
    // without the permission to list open uploads, that of the second segment is aborted by its ID
    host.s3.state().capabilities.lacks = vec![("ListMultipartUploads", 403, "AccessDenied")];
    host.ok("resume_upload");
    host.assert_clean();
    assert_eq!(host.s3.state().keys().len(), 6 + 1, "18 parts in segments of 3");
    host.ok("restore tank/src@s1 tank/new");
    assert_eq!(received(&host), real("full.zfs"));
}

#[test]
fn parts_that_may_not_be_read_are_not_sent_again() {
    // the reply of Complete is lost, so only HEAD can tell the outcome
    let mut host = Host::with_real_streams();
    host.set("ZFS2S3_JOBS", "1");
    host.killed("upload tank/src@s1", "CompleteMultipartUpload", 0, Fault::KillAfter);
    let sent = host.s3.state().count("UploadPart");
    host.s3.state().capabilities.may_read = false;
    let said = host.fails(1, "resume_upload");
    assert!(said.contains("403") && said.contains("hint: allow s3:GetObject"), "{said}");
    host.s3.state().capabilities.may_read = true;
    host.ok("resume_upload");
    assert_eq!(host.s3.state().count("UploadPart"), sent, "nothing is sent again");
    host.assert_clean();
}

#[test]
fn headers_that_a_bucket_wants() {
    for (pairs, always, for_objects) in [
        (vec![("ZFS2S3_REQUEST_PAYER", "requester")], Some(("x-amz-request-payer", "requester")), None),
        (
            vec![("ZFS2S3_EXPECTED_BUCKET_OWNER", "111122223333")],
            Some(("x-amz-expected-bucket-owner", "111122223333")),
            None,
        ),
        (vec![("ZFS2S3_SSE", "AES256")], None, Some(("x-amz-server-side-encryption", "AES256"))),
        (
            vec![("ZFS2S3_SSE", "aws:kms"), ("ZFS2S3_SSE_KMS_KEY_ID", "arn:aws:kms:x:1:key/2")],
            None,
            Some(("x-amz-server-side-encryption-aws-kms-key-id", "arn:aws:kms:x:1:key/2")),
        ),
    ] {
        let mut host = Host::with_real_streams();
        {
            let mut state = host.s3.state();
            state.capabilities.wants_always = always;
            state.capabilities.wants_for_objects = for_objects;
        }
        host.fails(1, "upload tank/src@s1");
        for (name, value) in pairs {
            host.set(name, value);
        }
        host.ok("upload tank/src@s1");
        host.ok("restore tank/src@s1 tank/new");
        host.ok("remove tank/src@s1");
        assert!(host.s3.state().keys().is_empty());
    }
}

#[test]
fn a_transient_failure_of_any_kind_is_retried() {
    for status in [425, 429, 500, 507, 509, 520, 522, 524, 527, 530, 599] {
        let mut host = Host::with_snapshots(1);
        host.set("ZFS2S3_TEST_PATIENCE_MS", "20000");
        host.s3.fault(PUT_DATA, 0, 1, Fault::Page(status));
        host.ok("upload tank/a@1");
        assert_eq!(host.s3.state().count(PUT_DATA), 2, "{status}");
        host.assert_clean();
    }
    for status in [501, 505] {
        let host = Host::with_snapshots(1);
        host.s3.fault(PUT_DATA, 0, 9, Fault::Page(status));
        host.fails(1, "upload tank/a@1");
    }
}

/// Each mistake of a first setup, and its message.
#[test]
fn each_error_names_what_to_do() {
    type Break = fn(&mut Host);
    const TABLE: &[(&str, Break, &[&str])] = &[
        (
            "307 with the region in a header",
            |host| host.s3.state().capabilities.region = Some(("eu-central-1", true)),
            &["307 TemporaryRedirect", "hint: the bucket is in another region: set AWS_REGION=eu-central-1"],
        ),
        (
            "307 with the region in the body",
            |host| host.s3.state().capabilities.region = Some(("eu-central-1", false)),
            &["hint: the bucket is in another region: set AWS_REGION=eu-central-1"],
        ),
        (
            "the bucket in the endpoint's path",
            |host| {
                let url = format!("{}/test-bucket", host.s3.url());
                host.set("AWS_ENDPOINT_URL", &url);
            },
            &[
                "hint: AWS_ENDPOINT_URL seems to contain the bucket, which must be only in ZFS2S3_BUCKET: try http://127.0.0.1:",
            ],
        ),
        (
            "https spoken to http",
            |host| {
                let url = host.s3.url().replace("http:", "https:");
                host.set("AWS_ENDPOINT_URL", &url);
            },
            &["hint: the server may not support https: write http:// in AWS_ENDPOINT_URL"],
        ),
        (
            "a storage class that the server does not know",
            |host| {
                host.set("ZFS2S3_STORAGE_CLASS", "COLD9");
                host.s3.fault(PUT_DATA, 0, 2, Fault::Status(400, "InvalidArgument"));
            },
            &["400 InvalidArgument", "hint: check ZFS2S3_STORAGE_CLASS"],
        ),
        (
            "virtual hosts wanted",
            |host| host.s3.fault("", 0, 1, Fault::Status(403, "SecondLevelDomainForbidden")),
            &["hint: set ZFS2S3_ADDRESSING_STYLE=virtual"],
        ),
        (
            "an ARN",
            |host| host.set("ZFS2S3_BUCKET", "arn:aws:s3:eu-west-1:1:accesspoint/x"),
            &["ZFS2S3_BUCKET: an ARN is not supported: name the access point's alias instead"],
        ),
        (
            "no such bucket",
            |host| host.set("ZFS2S3_BUCKET", "another"),
            &["404 NoSuchBucket", "hint: create the bucket first"],
        ),
        (
            "a clock that is wrong",
            |host| host.s3.fault("", 0, 1, Fault::Status(403, "RequestTimeTooSkewed")),
            &["hint: the clock of this host is wrong"],
        ),
        (
            "a dead proxy",
            |host| {
                host.set("ZFS2S3_TEST_PATIENCE_MS", "100");
                host.set("HTTP_PROXY", "http://me:s3cret@127.0.0.1:1");
            },
            &["through the proxy http://127.0.0.1:1 of HTTP_PROXY"],
        ),
        (
            "a proxy of a kind that cannot be used",
            |host| host.set("ALL_PROXY", "socks5://me:s3cret@127.0.0.1:1"),
            &[
                "ALL_PROXY: cannot use the proxy socks5://127.0.0.1:1: only http:// and https:// proxies are supported",
            ],
        ),
    ];
    for (name, set, parts) in TABLE {
        let mut host = Host::with_snapshots(1);
        set(&mut host);
        let ran = host.run("upload tank/a@1");
        assert!([1, 2, 75].contains(&ran.status), "{name}: {}", ran.stderr);
        for part in *parts {
            assert!(ran.stderr.contains(part), "{name}: '{part}' is not in {}", ran.stderr);
        }
        assert!(!ran.stderr.contains("s3cret"), "{name}: {}", ran.stderr);
        assert!(!host.data("upload_progress.yml").exists(), "{name}");
    }
}

/// A proxy that answers each of its first connections with one of these statuses, and passes all others on to
/// the server, which clients know by this name.
fn proxy(statuses: &'static [u16], s3: &str, asked_for: &str) -> String {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = s3.replace("http://", "");
    let asked_for = asked_for.replace("http://", "");
    std::thread::spawn(move || {
        let mut statuses = statuses.iter();
        for client in listener.incoming() {
            let Ok(mut client) = client else { return };
            let mut head = vec![];
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if client.read(&mut byte).unwrap_or(0) == 0 {
                    break;
                }
                head.push(byte[0]);
            }
            assert!(head.starts_with(format!("CONNECT {asked_for} HTTP/1.1\r\n").as_bytes()));
            if let Some(status) = statuses.next() {
                let _ =
                    client.write_all(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").as_bytes());
                continue;
            }
            let _ = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            let upstream = TcpStream::connect(&server).unwrap();
            for (mut from, mut to) in
                [(client.try_clone().unwrap(), upstream.try_clone().unwrap()), (upstream, client)]
            {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    format!("http://me:s3cret@{address}")
}

#[test]
fn a_proxy_that_is_busy_is_tried_again_and_one_that_refuses_is_not() {
    let mut host = Host::with_snapshots(1);
    let url = proxy(&[503, 429, 522], &host.s3.url(), &host.s3.url());
    host.set("HTTP_PROXY", &url);
    let said = host.ok("upload tank/a@1").stderr;
    assert!(said.contains("proxy server responded 503") && said.contains("retrying in"), "{said}");
    assert!(!said.contains("s3cret"), "{said}");
    host.assert_clean();
    for (status, hint) in [(407, "hint: the proxy requires a user name and a password"), (403, "")] {
        let mut host = Host::with_snapshots(1);
        let statuses: &[u16] = if status == 407 { &[407, 407] } else { &[403, 403] };
        let url = proxy(statuses, &host.s3.url(), &host.s3.url());
        host.set("HTTP_PROXY", &url);
        let said = host.fails(1, "upload tank/a@1");
        assert!(said.contains(&format!("proxy server responded {status}")) && said.contains(hint), "{said}");
        assert!(said.contains("through the proxy http://127.0.0.1:") && !said.contains("s3cret"), "{said}");
    }
}

#[test]
fn buckets_by_virtual_host() {
    for setting in ["variable", "profile"] {
        let mut host = Host::with_real_streams();
        let url = proxy(&[], &host.s3.url(), "test-bucket.s3.test:80");
        host.set("HTTP_PROXY", &url);
        host.set("AWS_ENDPOINT_URL", "http://s3.test");
        match setting {
            "variable" => host.set("ZFS2S3_ADDRESSING_STYLE", "virtual"),
            _ => {
                std::fs::create_dir_all(host.home().join(".aws")).unwrap();
                let text = "[default]\ns3 =\n    addressing_style = virtual\n";
                std::fs::write(host.home().join(".aws/config"), text).unwrap();
            }
        }
        host.ok("upload tank/src@s1");
        host.ok("restore tank/src@s1 tank/new");
        host.ok("remove tank/src@s1");
        host.assert_clean();
    }
}

#[test]
fn proxies_are_used_for_their_scheme_except_for_exceptions() {
    for (name, value, except) in [
        ("HTTPS_PROXY", "http://127.0.0.1:1", ""),
        ("HTTP_PROXY", "http://127.0.0.1:1", "localhost, 127.0.0.1"),
        ("http_proxy", "http://127.0.0.1:1", "10.0.0.0/8 127.0.0.0/8"),
        ("ALL_PROXY", "http://127.0.0.1:1", "*"),
    ] {
        let mut host = Host::with_snapshots(1);
        host.set(name, value);
        host.set("NO_PROXY", except);
        host.ok("upload tank/a@1");
    }
}

#[test]
fn the_readme_names_the_region() {
    let host = Host::with_real_streams();
    host.ok("upload tank/src@s1");
    let state = host.s3.state();
    let readme = String::from_utf8(state.objects["README.zfs2s3.txt"].bytes.clone()).unwrap();
    assert_eq!(readme.matches("    export AWS_REGION='us-east-1'\n").count(), 2);
}
