//! Interrupted uploads: whatever ends the program, at any point, the next command leads to a clean state.

use std::time::Duration;

use crate::support::{Fault, Host, PUT_DATA, S1, key, made_stream, real, summed};

/// A host whose upload of s1 was killed when `parts` parts were stored, one at a time.
fn killed_after(parts: usize) -> Host {
    let mut host = Host::with_real_streams();
    host.set("ZFS2S3_JOBS", "1");
    host.killed("upload tank/src@s1", "UploadPart", parts, Fault::KillBefore);
    host
}

#[test]
fn only_the_missing_parts_are_sent() {
    let host = killed_after(7);
    assert_eq!(host.s3.state().count("UploadPart"), 8);
    assert_eq!(host.listed(), ["tank/src@s1 - - STANDARD uploading"]);
    for line in ["upload tank/src@s1", "upload tank/src@s2", "remove tank/src@s1"] {
        let said = host.fails(4, line);
        assert!(said.contains("error: an upload is pending: tank/src@s1, full, since "), "{said}");
    }
    host.ok("resume_upload");
    assert_eq!(host.s3.state().count("UploadPart"), 8 + 11, "18 parts, of which 7 were stored");
    assert_eq!(host.s3.state().bytes(&key(S1.0, S1.1, None)), real("full.zfs"));
    host.assert_clean();
    assert!(host.fails(4, "resume_upload").contains("no upload is pending"));
    assert!(host.fails(4, "abort_upload").contains("no upload is pending"));
}

/// The invariant I4, at each request of an upload, before and after S3 has done it, for resume and abort.
#[test]
fn an_upload_killed_at_any_request_is_resumed_or_aborted_cleanly() {
    let prepare = || {
        let mut host = Host::with_real_streams();
        host.set("ZFS2S3_CHUNK_SIZE", "100K");
        host.set("ZFS2S3_TEST_PARTS", "5");
        host.ok("upload tank/src@s1");
        host.s3.state().log.clear();
        host
    };
    let host = prepare();
    host.ok("upload -i @s1 tank/src@s2");
    let requests = host.s3.state().log.len();
    assert!(requests >= 8, "{:?}", host.s3.state().log);
    for way_out in ["resume_upload", "abort_upload"] {
        for act in [Fault::KillBefore, Fault::KillAfter] {
            for at in 0..requests {
                let host = prepare();
                host.killed("upload -i @s1 tank/src@s2", "", at, act.clone());
                ends_cleanly(&host, way_out, &format!("{act:?} of request {at}, then {way_out}"));
            }
        }
    }
}

fn ends_cleanly(host: &Host, way_out: &str, what: &str) {
    let pending = host.data("upload_progress.yml").exists();
    if pending {
        let said = host.fails(4, "upload -i @s1 tank/src@s2");
        assert!(said.contains("is pending: tank/src@s2"), "{what}: {said}");
        host.ok(way_out);
    }
    host.assert_clean();
    let stored = host.listed().len() == 2;
    let object = key("tank/src@s2", crate::support::S2.1, Some(S1.1));
    assert_eq!(host.s3.state().has(&object), stored, "{what}");
    if stored {
        assert_eq!(host.s3.state().bytes(&object), real("incr.zfs"), "{what}");
        host.ok("remove -i @s1 tank/src@s2");
    } else if way_out == "resume_upload" {
        assert!(!pending, "{what}: resumed, but not stored");
    }
    host.ok("upload -i @s1 tank/src@s2");
    host.assert_clean();
}

/// `tank/a@2` on `@1`, killed when its manifest is in the bucket, and the store does not know it yet.
fn complete_but_for_the_store() -> Host {
    let host = Host::with_snapshots(3);
    host.ok("upload tank/a@1");
    host.killed("upload -i @1 tank/a@2", "PutObject", 0, Fault::KillAfter);
    host
}

#[test]
fn an_upload_with_a_manifest_is_aborted_only_if_nothing_depends_on_it() {
    let host = complete_but_for_the_store();
    host.ok("abort_upload");
    assert_eq!(host.listed().len(), 1);
    host.assert_clean();
    // another host has used it as a base
    let host = complete_but_for_the_store();
    host.s3.state().put(&key("tank/a@3", 3, Some(2)), b"x");
    let said = host.fails(3, "abort_upload");
    assert!(
        said.contains("is needed to restore other backups") && said.contains("-i tank/a@2 tank/a@3"),
        "{said}"
    );
    host.ok("resume_upload");
    assert_eq!(host.listed().len(), 2);
}

/// Another store of the same host.
fn other_store(host: &Host, line: &str) -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_zfs2s3"));
    command.env_clear().envs(host.environment()).env("XDG_DATA_HOME", host.home().join("other"));
    command.args(line.split(' '));
    command
}

#[test]
fn an_upload_of_another_store_is_another_copy() {
    for way_out in ["resume_upload", "abort_upload"] {
        let host = killed_after(7);
        let other = other_store(&host, "upload tank/src@s1").output().unwrap();
        assert!(other.status.success(), "{}", String::from_utf8_lossy(&other.stderr));
        assert_eq!(host.s3.state().uploads.len(), 1, "this store's upload is left alone");
        host.ok(way_out);
        let copies = if way_out == "resume_upload" { 2 } else { 1 };
        assert_eq!(host.s3.state().keys().len(), 2 * copies, "a manifest and an object each");
        assert_eq!(host.listed().len(), copies - 1);
        assert!(host.s3.state().uploads.is_empty());
        assert_eq!(host.holds(), "");
    }
}

/// One completes while the other is pending.
#[test]
fn two_stores_of_one_host_do_not_share_their_holds() {
    let host = killed_after(7);
    let held = host.holds();
    assert_eq!(held.lines().count(), 1);
    assert!(other_store(&host, "upload tank/src@s1").output().unwrap().status.success());
    assert_eq!(host.holds(), held, "the pending one keeps its own");
    host.ok("resume_upload");
    assert_eq!(host.holds(), "");
}

#[test]
fn a_running_upload_of_another_store_is_not_touched() {
    let host = Host::with_real_streams();
    host.s3.fault("UploadPart", 7, 1, Fault::KillBefore);
    let mut other = host.environment();
    other.push(("XDG_DATA_HOME".to_string(), host.home().join("other").to_str().unwrap().to_string()));
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_zfs2s3"));
    let child = child
        .env_clear()
        .envs(other)
        .args(["upload", "tank/src@s1"])
        .stderr(std::process::Stdio::null())
        .spawn();
    let mut child = child.unwrap();
    host.s3.victim.store(child.id(), std::sync::atomic::Ordering::SeqCst);
    child.wait().unwrap();
    host.s3.no_more_faults();
    assert_eq!(host.s3.state().uploads.len(), 1);
    host.fails(3, "upload -i @s1 tank/src@s2");
    host.ok("upload tank/src@s1");
    assert_eq!(host.s3.state().uploads.len(), 1);
}

#[test]
fn an_upload_is_never_resumed_on_another_server() {
    let mut host = killed_after(7);
    let elsewhere = Host::new();
    let home = host.s3.url();
    host.set("AWS_ENDPOINT_URL", &elsewhere.s3.url());
    for line in ["resume_upload", "abort_upload"] {
        let said = host.fails(1, line);
        assert!(said.contains(&format!("the pending upload is for the server {home}")), "{said}");
    }
    host.set("AWS_ENDPOINT_URL", &home);
    host.ok("resume_upload");
    host.set("AWS_ENDPOINT_URL", &elsewhere.s3.url());
    let said = host.fails(1, "remove tank/src@s1");
    assert!(said.contains(&format!("is for the server {home}, not for {}", elsewhere.s3.url())), "{said}");
    assert_eq!(host.listed().len(), 1, "looking needs no server");
    assert!(elsewhere.s3.state().log.is_empty());
}

/// The same with several segments, killed again while it resumes.
#[test]
fn an_upload_that_is_killed_repeatedly_still_completes() {
    let mut host = Host::with_real_streams();
    host.set("ZFS2S3_TEST_PARTS", "4");
    let mut tries = 0;
    let mut line = "upload tank/src@s1";
    loop {
        let act = if tries % 2 == 0 { Fault::KillBefore } else { Fault::KillAfter };
        host.s3.fault("", 9, 1, act);
        let ran = host.run(line);
        host.s3.no_more_faults();
        if ran.status == 0 {
            break;
        }
        ran.expect(-9);
        tries += 1;
        assert!(tries < 40, "no progress");
        if host.data("upload_progress.yml").exists() {
            line = "resume_upload";
        }
    }
    assert!(tries > 3);
    let state = host.s3.state();
    let first = key(S1.0, S1.1, None);
    let names = std::iter::once(first.clone()).chain((2..=5).map(|n| format!("{first}.{n}")));
    assert_eq!(names.flat_map(|name| state.bytes(&name).to_vec()).collect::<Vec<u8>>(), real("full.zfs"));
    drop(state);
    host.assert_clean();
}

#[test]
fn s3_is_authoritative_about_parts() {
    let host = killed_after(9);
    {
        let mut state = host.s3.state();
        let upload = state.uploads.values_mut().next().unwrap();
        upload.parts.remove(&3);
        upload.parts.get_mut(&5).unwrap().etag = "\"another\"".to_string();
        upload.parts.get_mut(&6).unwrap().bytes.pop();
    }
    host.ok("resume_upload");
    assert_eq!(host.s3.state().count("UploadPart"), 10 + 9 + 3);
    assert_eq!(host.s3.state().bytes(&key(S1.0, S1.1, None)), real("full.zfs"));
    host.assert_clean();
}

#[test]
fn parts_are_compared_also_beyond_the_first_page() {
    let host = killed_after(11);
    host.s3.state().capabilities.page = 2;
    host.ok("resume_upload");
    assert_eq!(host.s3.state().count("UploadPart"), 12 + 7);
    assert_eq!(host.s3.state().count("ListParts"), 6);
    host.assert_clean();
}

#[test]
fn an_upload_that_s3_no_longer_knows_begins_again_in_place() {
    let host = killed_after(7);
    host.s3.state().uploads.clear();
    let said = host.ok("resume_upload").stderr;
    assert!(said.contains("S3 no longer knows the upload of segment 1"), "{said}");
    assert_eq!(host.s3.state().count("UploadPart"), 8 + 18);
    assert_eq!(host.s3.state().bytes(&key(S1.0, S1.1, None)), real("full.zfs"));
    host.assert_clean();
}

#[test]
fn a_multipart_upload_is_aborted_by_someone_else_while_it_runs() {
    let host = Host::with_real_streams();
    host.s3.fault("UploadPart", 4, 1, Fault::Status(404, "NoSuchUpload"));
    let said = host.fails(75, "upload tank/src@s1");
    assert!(said.contains("S3 no longer knows the upload"), "{said}");
    host.s3.state().uploads.clear();
    host.ok("resume_upload");
    host.assert_clean();
}

#[test]
fn a_changed_stream_is_refused_and_the_upload_can_be_aborted() {
    let host = killed_after(7);
    let mut other = real("full.zfs");
    other[3 * 65536 + 5] ^= 1;
    host.add_stream(S1, None, &summed(&other));
    let said = host.fails(3, "resume_upload");
    assert!(
        said.contains("does not give the same stream as before: it differs in the chunk at byte 196608"),
        "{said}"
    );
    assert!(said.contains("hint: 'zfs2s3 abort_upload'"), "{said}");
    assert_eq!(host.s3.state().count("CompleteMultipartUpload"), 0);
    // the same, but without its last blocks
    let (stream, block) = (real("full.zfs"), 300_000);
    let is_write =
        |at: &usize| stream[*at..*at + 4] == [3, 0, 0, 0] && stream[*at + 40..*at + 48] == S1.1.to_le_bytes();
    let write = (block..stream.len() - 312).find(is_write).unwrap();
    host.add_stream(S1, None, &summed(&[&stream[..write], &stream[stream.len() - 312..]].concat()));
    let said = host.fails(3, "resume_upload");
    assert!(said.contains("same stream"), "{said}");
    host.ok("abort_upload");
    assert!(host.s3.state().keys().is_empty());
    host.assert_clean();
}

#[test]
fn a_recreated_snapshot_is_refused_and_the_upload_can_be_aborted() {
    let host = killed_after(7);
    host.snapshot((S1.0, 4711), 30);
    let said = host.fails(3, "resume_upload");
    assert!(said.contains("its guid is 4711, not 13707626622376489106"), "{said}");
    host.destroy(S1.0);
    let said = host.fails(1, "resume_upload");
    assert!(
        said.contains("tank/src@s1 is no longer on this host") && said.contains("abort_upload"),
        "{said}"
    );
    host.ok("abort_upload");
    assert!(host.s3.state().uploads.is_empty() && host.s3.state().keys().is_empty());
    assert!(!host.data("upload_progress.yml").exists());
}

#[test]
fn the_settings_of_the_beginning_are_kept() {
    let mut host = killed_after(7);
    host.set("ZFS2S3_CHUNK_SIZE", "1M");
    host.set("ZFS2S3_STORAGE_CLASS", "GLACIER");
    host.set("ZFS2S3_BUCKET", "another");
    let said = host.fails(1, "resume_upload");
    assert!(said.contains("the pending upload is for bucket 'test-bucket'"), "{said}");
    host.fails(1, "abort_upload");
    host.set("ZFS2S3_BUCKET", crate::support::BUCKET);
    host.ok("resume_upload");
    assert_eq!(host.s3.state().count("UploadPart"), 8 + 11);
    assert_eq!(host.listed(), ["tank/src@s1 - 1131752 STANDARD stored"]);
}

#[test]
fn a_truncated_last_record_is_dropped_and_other_damage_is_an_error() {
    let host = killed_after(7);
    let path = host.data("upload_progress.yml");
    let good = std::fs::read(&path).unwrap();
    for torn in [
        &b"- {\"part\":{\"segm"[..],
        b"- {\"part\":{\"segm\n",
        b"\0\0\0\0\0\0",
        b"\xff\n",
        b"- {\"part\":{}}",
    ] {
        std::fs::write(&path, [&good, torn].concat()).unwrap();
        assert_eq!(host.listed(), ["tank/src@s1 - - STANDARD uploading"]);
    }
    for bad in [&b""[..], b"\0\0\0\0", b"- {\"later\":{}}\n"] {
        let first_line = good.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for damaged in [
            bad.to_vec(),
            [bad, &good].concat(),
            [&good[..first_line], b"\0\n", &good[first_line..]].concat(),
        ] {
            if damaged == good {
                continue;
            }
            std::fs::write(&path, &damaged).unwrap();
            for line in ["resume_upload", "abort_upload", "upload tank/src@s2", "list"] {
                let said = host.fails(1, line);
                assert!(said.contains("upload_progress.yml cannot be used"), "{said}");
            }
            assert_eq!(std::fs::read(&path).unwrap(), damaged, "left as it is");
        }
    }
    let newer = String::from_utf8(good.clone()).unwrap().replacen("\"version\":2", "\"version\":4", 1);
    std::fs::write(&path, newer).unwrap();
    assert!(host.fails(1, "resume_upload").contains("it has version 4"));
    std::fs::write(&path, [&good, &b"- {\"part\":{\"segm"[..]].concat()).unwrap();
    host.ok("resume_upload");
    host.assert_clean();
}

#[test]
fn a_base_that_is_removed_meanwhile_by_another_host_ends_the_resume() {
    let host = Host::with_snapshots(2);
    host.ok("upload tank/a@1");
    host.killed("upload -i @1 tank/a@2", PUT_DATA, 0, Fault::KillBefore);
    host.s3.state().objects.clear();
    let said = host.fails(3, "resume_upload");
    assert!(said.contains("no stored chain"), "{said}");
    host.ok("abort_upload");
    assert!(host.s3.state().uploads.is_empty());
    assert!(!host.data("upload_progress.yml").exists());
}

#[test]
fn a_base_that_is_removed_while_the_upload_runs_ends_it() {
    let host = Host::with_snapshots(2);
    host.ok("upload tank/a@1");
    host.s3.fault(PUT_DATA, 0, 1, Fault::Delay(Duration::from_millis(500)));
    let child = host.spawn("upload -i @1 tank/a@2");
    while host.s3.state().count(PUT_DATA) < 2 {
        std::thread::sleep(Duration::from_millis(2));
    }
    host.s3.state().objects.clear();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).to_string();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("the base tank/a@1 can no longer be restored"), "{said}");
    host.ok("abort_upload");
    assert!(host.s3.state().keys().is_empty() && host.s3.state().uploads.is_empty());
}

#[test]
fn without_the_permission_to_list_an_upload_is_resumed_too() {
    let host = killed_after(7);
    host.s3.state().capabilities.may_list = false;
    host.ok("resume_upload");
    assert_eq!(host.s3.state().count("UploadPart"), 8 + 11);
    host.assert_clean();
    // and if S3 no longer knows the upload
    let host = killed_after(7);
    host.s3.state().capabilities.may_list = false;
    host.s3.state().uploads.clear();
    host.ok("resume_upload");
    assert_eq!(host.s3.state().bytes(&key(S1.0, S1.1, None)), real("full.zfs"));
    host.assert_clean();
}

#[test]
fn a_lost_reply_to_create_leaves_no_open_upload() {
    let host = Host::with_real_streams();
    host.s3.fault("CreateMultipartUpload", 0, 2, Fault::LoseReply);
    host.ok("upload tank/src@s1");
    assert_eq!(host.s3.state().count("CreateMultipartUpload"), 3);
    host.assert_clean();
}

#[test]
fn a_full_disk_ends_the_upload_and_keeps_the_journal() {
    // the journal cannot grow: its limit is reached after the intent and some parts
    let mut host = Host::with_real_streams();
    host.set("ZFS2S3_JOBS", "1");
    let limited = std::process::Command::new("bash")
        .args([
            "-c",
            "ulimit -f 2; trap '' XFSZ; exec \"$0\" upload tank/src@s1",
            env!("CARGO_BIN_EXE_zfs2s3"),
        ])
        .env_clear()
        .envs(host.environment())
        .output()
        .unwrap();
    let said = String::from_utf8(limited.stderr).unwrap();
    assert_eq!(limited.status.code(), Some(75), "{said}");
    assert!(said.contains("upload_progress.yml: File too large"), "{said}");
    let sent = host.s3.state().count("UploadPart");
    assert!((2..18).contains(&sent), "{sent}");
    host.ok("resume_upload");
    assert!(
        host.s3.state().count("UploadPart") <= 18 + 1,
        "at most the one whose record was torn is sent again"
    );
    host.assert_clean();
}

#[test]
fn waiting_is_bounded_when_the_network_is_gone() {
    let mut host = Host::with_real_streams();
    host.set("ZFS2S3_TEST_PATIENCE_MS", "2500");
    host.s3.fault("UploadPart", 3, 1000, Fault::Drop);
    let begun = std::time::Instant::now();
    let said = host.fails(75, "upload tank/src@s1");
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert!(
        said.contains("retrying in") && said.contains("hint: the upload is pending: 'zfs2s3 resume_upload'"),
        "{said}"
    );
    host.s3.no_more_faults();
    host.ok("resume_upload");
    host.assert_clean();
}

/// A proxy in front of S3 that answers everything with its own page says nothing about the bucket.
#[test]
fn a_404_page_of_another_server_does_not_mean_that_an_object_is_missing() {
    for way in ["abort_upload", "resume_upload"] {
        for parts in [7, 18] {
            let host = Host::with_real_streams();
            let call = if parts == 7 { "UploadPart" } else { "PutObject" };
            host.killed("upload tank/src@s1", call, if parts == 7 { 7 } else { 0 }, Fault::KillBefore);
            host.s3.fault("", 0, 1000, Fault::Page(404));
            let said = host.fails(1, way);
            assert!(said.contains("404") && said.contains("this is not an answer from S3"), "{said}");
            assert!(host.data("upload_progress.yml").exists(), "{way} after {parts}");
            host.s3.no_more_faults();
            let uploads = host.s3.state().uploads.len();
            assert_eq!(uploads + host.s3.state().keys().len(), 1, "nothing was lost");
            host.ok(way);
            host.assert_clean();
        }
    }
    // one of them only
    for call in ["ListParts", "HeadObject"] {
        let host = killed_after(7);
        host.s3.fault(call, 0, 1, Fault::Page(404));
        let sent = host.s3.state().count("UploadPart");
        if host.run("resume_upload").status != 0 {
            host.ok("resume_upload");
        }
        assert_eq!(host.s3.state().count("UploadPart"), sent + 11, "no part is sent twice");
        host.assert_clean();
    }
}

#[test]
fn an_upload_is_called_stored_already_only_after_checking_the_bucket() {
    for way in ["resume_upload", "abort_upload"] {
        let host = Host::with_snapshots(1);
        host.stored_but_for_the_end("upload tank/a@1");
        let said = host.ok(way).stderr;
        assert!(said.contains("tank/a@1, full was stored already"), "{said}");
        assert_eq!(host.listed(), ["tank/a@1 - 700 STANDARD stored"]);
        host.assert_clean();
        // another host has removed it since
        let host = Host::with_snapshots(1);
        host.stored_but_for_the_end("upload tank/a@1");
        host.s3.state().objects.clear();
        let status = if way == "resume_upload" { 3 } else { 0 };
        let ran = host.run(way);
        ran.expect(status);
        assert!(!ran.stderr.contains("stored already"), "{}", ran.stderr);
        if status == 3 {
            assert!(ran.stderr.contains("another host has removed them"), "{}", ran.stderr);
            host.ok("abort_upload");
        }
        assert!(host.listed().is_empty());
        host.ok("upload tank/a@1");
        host.assert_clean();
    }
}

/// A file that is only for people must not block a command.
#[test]
fn the_lock_can_be_taken_on_a_full_disk() {
    let limited = |host: &Host, line: &str| {
        std::process::Command::new("bash")
            .args(["-c", "ulimit -f 0; trap '' XFSZ; exec \"$0\" $1", env!("CARGO_BIN_EXE_zfs2s3"), line])
            .env_clear()
            .envs(host.environment())
            .output()
            .unwrap()
    };
    let host = killed_after(7);
    // the zfs of the tests releases the holds in files of its own
    host.zfs_file("holds", "");
    let output = limited(&host, "abort_upload");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!host.data("upload_progress.yml").exists() && host.s3.state().uploads.is_empty());
    let host = killed_after(7);
    let output = limited(&host, "resume_upload");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("the lock"), "{said}");
    host.ok("resume_upload");
    host.assert_clean();
}

/// If standard error is a terminal that is gone, nothing is drawn.
#[test]
fn the_upload_continues_after_the_terminal_is_closed() {
    let mut host = Host::with_real_streams();
    host.set("ZFS2S3_JOBS", "1");
    host.s3.fault("UploadPart", 0, 18, Fault::Delay(Duration::from_millis(100)));
    let status = host.home().join("status");
    let line = format!(
        "trap '' HUP; '{}' upload tank/src@s1; echo $? > '{}'",
        env!("CARGO_BIN_EXE_zfs2s3"),
        status.display()
    );
    let mut script = std::process::Command::new("script")
        .args(["-qc", &line, "/dev/null"])
        .env_clear()
        .envs(host.environment())
        .env("SHELL", "/bin/sh")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while host.s3.state().count("UploadPart") < 3 {
        std::thread::sleep(Duration::from_millis(5));
    }
    script.kill().unwrap();
    script.wait().unwrap();
    for _ in 0..600 {
        if status.exists() && std::fs::read_to_string(&status).unwrap().ends_with('\n') {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(std::fs::read_to_string(&status).unwrap(), "0\n");
    host.assert_clean();
}

/// Append-only credentials: the upload must end nevertheless.
#[test]
fn an_upload_can_be_aborted_where_nothing_may_be_deleted() {
    for (fault, act) in [("PutObject", Fault::KillBefore), ("PutObject", Fault::KillAfter)] {
        let host = Host::with_snapshots(2);
        host.killed("upload tank/a@1", fault, 0, act);
        host.s3.state().capabilities.may_delete = false;
        let said = host.fails(1, "abort_upload");
        assert!(said.contains("403 AccessDenied") && said.contains("is no longer pending"), "{said}");
        assert!(said.contains("tank/a@1/0000000000000001-full-"), "{said}");
        let complete = host.s3.state().keys().iter().any(|key| key.ends_with(".yml"));
        assert_eq!(said.contains("it is a complete backup: 'zfs2s3 recover -m'"), complete, "{said}");
        assert_eq!(host.holds(), "");
        host.ok("upload tank/a@2");
    }
}

/// The name of the snapshot is in the stream, and so in every checksum after it.
fn with_name(stream: &[u8], name: &str) -> Vec<u8> {
    let mut stream = stream.to_vec();
    let mut sums = [0u64; 4];
    let mut add = |bytes: &[u8]| {
        for word in bytes.chunks(4) {
            sums[0] = sums[0].wrapping_add(u64::from(u32::from_le_bytes(word.try_into().unwrap())));
            (1..4).for_each(|n| sums[n] = sums[n].wrapping_add(sums[n - 1]));
        }
        sums.map(u64::to_le_bytes).concat()
    };
    stream[56..312].fill(0);
    stream[56..56 + name.len()].copy_from_slice(name.as_bytes());
    let mut at = 312;
    let mut before = add(&stream[..at]);
    while at < stream.len() {
        let record = &mut stream[at..];
        let word = |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_le_bytes(record[at..at + 8].try_into().unwrap());
        let payload = match word(0) {
            1 if word(36) != 0 => u64::from(word(36)),
            1 => u64::from(word(28)).next_multiple_of(8),
            3 if record[50] != 0 => long(96),
            3 => long(32),
            7 if long(40) != 0 => long(40),
            7 => long(16),
            8 => u64::from(word(52)).next_multiple_of(8),
            _ => 0,
        };
        if word(0) == 5 {
            record[8..40].copy_from_slice(&before);
        }
        let sum = add(&record[..280]);
        record[280..312].copy_from_slice(&sum);
        before = add(&record[280..312 + payload as usize]);
        at += 312 + payload as usize;
    }
    stream
}

#[test]
fn a_dataset_that_was_renamed_meanwhile_is_found_by_its_guid() {
    let same = with_name(&real("full.zfs"), "tank/src@s1");
    assert!(same == real("full.zfs"), "this test writes the checksums as ZFS does");
    for jobs in ["1", "4"] {
        let mut host = killed_after(7);
        host.set("ZFS2S3_JOBS", jobs);
        let held = host.holds();
        // zfs rename tank/src tank/new: the hold goes with it
        host.destroy(S1.0);
        host.snapshot(("tank/new@s1", S1.1), 10);
        host.zfs_file("holds", &held.replace("tank/src@s1", "tank/new@s1"));
        host.add_stream(S1, None, &with_name(&real("full.zfs"), "tank/new@s1"));
        let said = host.ok("resume_upload").stderr;
        assert!(said.contains("tank/src@s1 is called tank/new@s1 now"), "{said}");
        assert_eq!(host.s3.state().count("UploadPart"), 8 + 11, "what is stored is not sent again");
        assert_eq!(host.s3.state().bytes(&key(S1.0, S1.1, None)), real("full.zfs"), "as it was begun");
        host.assert_clean();
        assert_eq!(host.listed(), ["tank/src@s1 - 1131752 STANDARD stored"]);
    }
}

#[test]
fn an_abort_releases_the_hold_under_the_new_name() {
    let host = killed_after(7);
    let held = host.holds();
    host.destroy(S1.0);
    host.snapshot(("tank/new@s1", S1.1), 10);
    // a received copy has the same guid, and no hold
    host.snapshot(("backup/src@s1", S1.1), 5);
    host.zfs_file("holds", &held.replace("tank/src@s1", "tank/new@s1"));
    host.ok("abort_upload");
    host.assert_clean();
}

#[test]
fn the_held_one_of_several_snapshots_with_the_guid_is_resumed() {
    let host = killed_after(7);
    let held = host.holds();
    host.destroy(S1.0);
    // a received copy alone is not the renamed snapshot
    host.snapshot(("backup/src@s1", S1.1), 5);
    let said = host.fails(1, "resume_upload");
    assert!(said.contains("tank/src@s1 is no longer on this host"), "{said}");
    host.snapshot(("tank/new@s1", S1.1), 10);
    host.add_stream(S1, None, &with_name(&real("full.zfs"), "tank/new@s1"));
    host.zfs_file("holds", "");
    let said = host.fails(1, "resume_upload");
    assert!(said.contains("tank/src@s1 is no longer on this host"), "{said}");
    host.zfs_file("holds", &held.replace("tank/src@s1", "tank/new@s1"));
    let said = host.ok("resume_upload").stderr;
    assert!(said.contains("tank/src@s1 is called tank/new@s1 now"), "{said}");
    host.assert_clean();
}

#[test]
fn a_stream_that_changed_besides_its_name_is_refused() {
    let host = killed_after(7);
    host.destroy(S1.0);
    host.snapshot(("tank/new@s1", S1.1), 10);
    host.zfs_file("holds", &host.holds().replace("tank/src@s1", "tank/new@s1"));
    let mut other = real("full.zfs");
    // in the data of a record, in the third of the seven parts that are stored
    other[166_736 + 312 + 50] ^= 1;
    host.add_stream(S1, None, &with_name(&other, "tank/new@s1"));
    let said = host.fails(3, "resume_upload");
    assert!(said.contains("does not give the same stream as before"), "{said}");
}

/// An encrypted dataset is never sent as plain text, nor the other way round, whatever has its name now.
#[test]
fn a_dataset_whose_encryption_changed_is_refused() {
    for (then, now) in [("aes-256-gcm", "off"), ("off", "aes-256-gcm")] {
        for parts in [0, 7] {
            let mut host = Host::with_real_streams();
            host.set("ZFS2S3_JOBS", "1");
            host.zfs_file("encryption", then);
            host.killed("upload tank/src@s1", "UploadPart", parts, Fault::KillBefore);
            host.zfs_file("encryption", now);
            let before = host.zfs_log().len();
            // with a recorded beginning, the chunks decide
            if parts == 7 && now == "off" {
                host.add_stream(S1, None, &real("full-raw-unencrypted.zfs"));
            }
            let said = host.fails(3, "resume_upload");
            let log = host.zfs_log()[before..].to_string();
            if parts == 7 && now == "off" {
                assert!(said.contains("does not give the same stream"), "{said}");
            } else {
                assert!(said.contains("would have to be sent with"), "{said}");
                assert!(!log.contains("\nsend "), "{log}");
            }
            host.ok("abort_upload");
            host.assert_clean();
        }
    }
}

#[test]
fn a_base_that_a_promote_has_moved_is_refused() {
    let mut host = Host::with_snapshots(2);
    host.set("ZFS2S3_JOBS", "1");
    host.ok("upload tank/a@1");
    host.killed("upload -i @1 tank/a@2", PUT_DATA, 0, Fault::KillBefore);
    host.destroy("tank/a@1");
    host.snapshot(("tank/clone@1", 1), 10);
    let held = host.holds();
    host.zfs_file("holds", &held.replace("tank/a@1", "tank/clone@1"));
    // ZFS judges by the names
    let mut clone = made_stream(2, 1, 700);
    clone[36] |= 1;
    let clone = summed(&clone);
    host.add_stream(("", 2), Some(("", 1)), &clone);
    let said = host.fails(3, "resume_upload");
    assert!(
        said.contains("the dataset of the base has changed")
            && said.contains("'zfs promote' may be the reason"),
        "{said}"
    );
    host.ok("abort_upload");
}
