//! `upload`: the bucket and the store afterwards, and what is refused.

use crate::support::{BUCKET, Fault, Host, MadeStream, PUT_DATA, S1, S2, key, made_stream, real};

#[test]
fn a_full_and_an_incremental_backup_are_stored_byte_for_byte() {
    let host = Host::with_real_streams();
    let ran = host.ok("upload tank/src@s1");
    assert_eq!(ran.stderr, "zfs2s3: stored tank/src@s1, full: 1.08M, 18 parts\n");
    assert_eq!(ran.stdout, "");
    host.ok("upload -i @s1 tank/src@s2");
    {
        let state = host.s3.state();
        assert_eq!(state.bytes(&key(S1.0, S1.1, None)), real("full.zfs"));
        assert_eq!(state.bytes(&key(S2.0, S2.1, Some(S1.1))), real("incr.zfs"));
        assert_eq!(state.count("UploadPart"), 18 + 5);
    }
    host.assert_clean();
    assert_eq!(
        host.listed(),
        ["tank/src@s1 - 1131752 STANDARD stored", "tank/src@s2 tank/src@s1 290104 STANDARD stored"]
    );
    assert!(
        host.zfs_log().contains("\nsend --large-block --compressed -i tank/src@s1 tank/src@s2\n"),
        "{}",
        host.zfs_log()
    );
}

#[test]
fn the_manifest_describes_the_data() {
    let host = Host::with_real_streams();
    host.ok("upload tank/src@s1");
    let state = host.s3.state();
    let manifest = key(S1.0, S1.1, None).replace(".zfs", ".yml");
    let text = String::from_utf8(state.bytes(&manifest).to_vec()).unwrap();
    assert_eq!(state.object(&manifest).storage_class, "STANDARD");
    for line in [
        "version: 3\n",
        "  name: tank/src@s1\n",
        "  guid: '13707626622376489106'\n",
        "  size: 1131752\n",
        "  chunk_size: 65536\n",
        "  - --large-block\n",
        "  stages: []\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    for chunk in real("full.zfs").chunks(65536) {
        let sum = crate::support::sigv4::hex(&crate::support::sigv4::sha256(chunk));
        assert!(text.contains(&format!("      {sum}\n")), "{sum}\n{text}");
    }
    let object = &state.object(&key(S1.0, S1.1, None));
    assert!(text.contains(object.checksum.as_ref().unwrap()));
    drop(state);
    let store = host.store_text();
    assert!(!store.contains("chunks:"), "the store keeps no list of chunks");
    use std::os::unix::fs::PermissionsExt;
    let mode = |name| std::fs::metadata(host.data(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("stored_snapshots.yml"), mode("lock")), (0o700, 0o600, 0o600));
}

#[test]
fn sizes_at_the_edges_of_a_chunk() {
    for size in [624, 65535, 65536, 65537, 131072, 131073] {
        let host = Host::new();
        host.snapshot(("tank@a", 7), 1);
        let stream = made_stream(7, 0, size);
        host.add_stream(("tank@a", 7), None, &stream);
        host.ok("upload tank@a");
        assert_eq!(host.s3.state().bytes(&key("tank@a", 7, None)), stream);
        let state = host.s3.state();
        let parts = if size < 65536 { 0 } else { size.div_ceil(65536) };
        assert_eq!((state.count("UploadPart"), state.count(PUT_DATA)), (parts, usize::from(parts == 0)));
        drop(state);
        host.assert_clean();
    }
}

#[test]
fn a_stream_with_too_many_parts_is_divided_into_segments() {
    for (parts, segments) in [("18", 1), ("17", 2), ("9", 2), ("5", 4), ("1", 18)] {
        let mut host = Host::with_real_streams();
        host.set("ZFS2S3_TEST_PARTS", parts);
        host.ok("upload tank/src@s1");
        let first = key(S1.0, S1.1, None);
        let names: Vec<String> =
            (1..=segments).map(|n| if n == 1 { first.clone() } else { format!("{first}.{n}") }).collect();
        let state = host.s3.state();
        let joined: Vec<u8> = names.iter().flat_map(|name| state.bytes(name).to_vec()).collect();
        assert_eq!(joined, real("full.zfs"), "{parts} parts a segment");
        assert_eq!(state.keys().len(), segments + 1);
        drop(state);
        host.assert_clean();
        host.ok("remove tank/src@s1");
        assert_eq!(host.s3.state().keys(), [""; 0]);
    }
}

#[test]
fn the_storage_class_goes_to_the_data_not_to_the_manifest() {
    let mut host = Host::with_snapshots(1);
    host.set("ZFS2S3_STORAGE_CLASS", "DEEP_GLACIER");
    host.ok("upload tank/a@1");
    let state = host.s3.state();
    let classes: Vec<&str> = state.objects.values().map(|object| object.storage_class.as_str()).collect();
    assert_eq!(classes, ["STANDARD", "STANDARD", "DEEP_ARCHIVE"], "README, manifest, data");
    drop(state);
    assert_eq!(host.listed(), ["tank/a@1 - 700 DEEP_ARCHIVE stored"]);
    let mut host = Host::with_snapshots(1);
    host.set("ZFS2S3_STORAGE_CLASS", "COLD9");
    let warning = host.ok("upload tank/a@1").stderr;
    assert!(
        warning.starts_with("zfs2s3: warning: S3 does not document the storage class 'COLD9'"),
        "{warning}"
    );
}

#[test]
fn a_prefix_is_put_before_each_key() {
    let mut host = Host::with_snapshots(2);
    host.set("ZFS2S3_PREFIX", "nas 1/+x/");
    host.ok("upload tank/a@1");
    host.ok("upload -i @1 tank/a@2");
    assert!(host.s3.state().keys().iter().all(|key| key.starts_with("nas 1/+x/tank/a@")));
    host.ok("remove -i @1 tank/a@2");
    host.ok("remove tank/a@1");
    assert!(host.s3.state().keys().is_empty());
}

#[test]
fn a_dry_run_shows_what_would_be_stored_and_changes_nothing() {
    let mut host = Host::with_snapshots(2);
    host.ok("upload tank/a@1");
    let before = host.s3.state().keys().join(" ");
    let said = host.ok("upload -n -i @1 tank/a@2").stdout;
    assert_eq!(
        said,
        format!(
            "would upload tank/a@2, incremental from tank/a@1\n  guid      2\n  to        s3://{BUCKET}/{}-ID.zfs\n  \
             class     STANDARD\n  size      about 1000000 bytes (977K)\n  parts     16 of 64.0K, in 1 segment\n  \
             requests  2 to begin and complete the upload, 16 to send the parts, 1 for the manifest\n",
            key("tank/a@2", 2, Some(1)).trim_end_matches(".zfs")
        )
    );
    host.set("ZFS2S3_CHUNK_SIZE", "1M");
    let said = host.ok("upload -n -i @1 tank/a@2").stdout;
    let end = "  size      about 1000000 bytes (977K)\n  requests  1 to send the data, 1 for the manifest\n";
    assert!(said.ends_with(end), "{said}");
    assert!(host.fails(3, "upload -n tank/a@1").contains("is stored already"));
    assert_eq!(host.s3.state().keys().join(" "), before);
    host.assert_clean();
}

#[test]
fn the_chunks_follow_from_the_memory_and_the_estimate() {
    let mut host = Host::with_snapshots(1);
    host.unset("ZFS2S3_CHUNK_SIZE");
    host.unset("ZFS2S3_TEST_PARTS");
    host.unset("ZFS2S3_JOBS");
    let mut parts = |memory, estimate: u64| {
        host.set("ZFS2S3_MEMORY", memory);
        host.zfs_file("estimate", &estimate.to_string());
        let said = host.ok("upload -n tank/a@1").stdout;
        said.lines().find_map(|line| line.strip_prefix("  parts     ")).unwrap().to_string()
    };
    assert_eq!(parts("", 1 << 40), "65536 of 16.0M, in 7 segments");
    assert_eq!(parts("64M", 100 << 20), "20 of 5.00M, in 1 segment");
    assert_eq!(parts("2G", 1 << 40), "9447 of 111M, in 1 segment");
    host.set("ZFS2S3_MEMORY", "20M");
    let said = host.fails(2, "upload -n tank/a@1");
    assert!(
        said.contains("ZFS2S3_MEMORY: 20.0M is too little: 1 job with chunks of 5.00M would take 26.0M"),
        "{said}"
    );
}

#[test]
fn what_the_chain_rule_does_not_allow_is_refused_with_status_3() {
    let host = Host::with_snapshots(3);
    let no_base = host.fails(3, "upload -i @1 tank/a@2");
    assert!(no_base.contains("no stored chain of backups leads to the base tank/a@1"), "{no_base}");
    assert!(no_base.contains("hint: upload tank/a@1 first"), "{no_base}");
    host.ok("upload tank/a@2");
    assert!(host.fails(3, "upload tank/a@2").contains("'tank/a@2' is stored already"));
    assert!(host.fails(3, "upload -i @2 tank/a@1").contains("the base tank/a@2 is not older than tank/a@1"));
    assert!(host.fails(3, "upload -i @2 tank/a@2").contains("is not older"));
    assert!(host.s3.state().uploads.is_empty());
    host.assert_clean();
}

#[test]
fn a_base_with_the_same_name_but_another_guid_is_not_stored() {
    let host = Host::with_snapshots(3);
    host.ok("upload tank/a@1");
    host.snapshot(("tank/a@1", 99), 15);
    host.add_stream(("", 2), Some(("", 99)), &made_stream(2, 99, 700));
    assert!(host.fails(3, "upload -i @1 tank/a@2").contains("no stored chain"));
}

#[test]
fn a_recreated_snapshot_never_touches_the_older_object() {
    let host = Host::with_snapshots(1);
    host.ok("upload tank/a@1");
    let old = host.s3.state().bytes(&key("tank/a@1", 1, None)).to_vec();
    host.snapshot(("tank/a@1", 77), 20);
    host.add_stream(("", 77), None, &made_stream(77, 0, 900));
    host.ok("upload tank/a@1");
    let state = host.s3.state();
    assert_eq!(state.bytes(&key("tank/a@1", 1, None)), old);
    assert_eq!(state.bytes(&key("tank/a@1", 77, None)), made_stream(77, 0, 900));
    drop(state);
    host.assert_clean();
}

#[test]
fn a_bookmark_may_be_the_base() {
    let host = Host::with_snapshots(2);
    host.ok("upload tank/a@1");
    host.snapshot(("tank/a#mark", 1), 10);
    host.destroy("tank/a@1");
    host.ok("upload -i #mark tank/a@2");
    assert_eq!(host.listed()[1], "tank/a@2 tank/a#mark 700 STANDARD stored");
    assert!(!host.zfs_log().contains("hold zfs2s3 tank/a#mark"), "a bookmark cannot be held");
    host.assert_clean();
}

#[test]
fn a_missing_snapshot_is_a_failure_and_an_invalid_name_a_usage_error() {
    let host = Host::with_snapshots(1);
    let said = host.fails(1, "upload tank/a@9");
    assert!(said.contains("error: there is no snapshot tank/a@9 on this host\n"), "{said}");
    assert!(said.contains("hint: the only snapshot of tank/a is tank/a@1\n"), "{said}");
    assert!(host.fails(1, "upload tank/x@1").contains("there is no dataset tank/x on this host"));
    assert!(host.fails(1, "upload -i #9 tank/a@1").contains("hint: tank/a has no bookmarks"));
    assert!(host.fails(1, "upload -i @9 tank/a@1").contains("there is no snapshot tank/a@9 on this host"));
    for line in [
        "upload tank/a",
        "upload tank/a#mark",
        "upload @1",
        "upload tank/a@1 x",
        "upload",
        "upload -i 1 tank/a@1",
        "upload -i tank/a@1",
    ] {
        host.fails(2, line);
    }
    assert_eq!(
        host.fails(2, "upload tank/a"),
        "zfs2s3: error: 'tank/a' is not a snapshot name (dataset@snapshot): it has no '@'\n"
    );
}

#[test]
fn holds_are_placed_while_it_runs_and_released_after() {
    let host = Host::with_snapshots(2);
    host.ok("upload tank/a@1");
    host.ok("upload -i @1 tank/a@2");
    // each upload has a tag of its own, so none ends the holds of another
    let log = host.zfs_log();
    let tags = |verb: &str, name: &str| -> Vec<String> {
        let ours = log.lines().filter(|line| line.starts_with(verb) && line.ends_with(name));
        ours.map(|line| line.split(' ').nth(1).unwrap().to_string()).collect()
    };
    for (name, times) in [("tank/a@1", 2), ("tank/a@2", 1)] {
        let held = tags("hold ", name);
        assert_eq!(held.len(), times, "{log}");
        assert_eq!(held, tags("release ", name), "{log}");
        assert!(held.iter().all(|tag| tag.len() == 15 && tag.starts_with("zfs2s3-")), "{log}");
    }
    assert_ne!(tags("hold ", "tank/a@1")[0], tags("hold ", "tank/a@1")[1]);
    host.assert_clean();
    let host = Host::with_snapshots(1);
    host.zfs_file("no_hold", "");
    let said = host.ok("upload tank/a@1").stderr;
    assert!(said.contains("warning: cannot hold tank/a@1") && said.contains("permission denied"), "{said}");
    host.assert_clean();
}

#[test]
fn the_stream_of_another_snapshot_is_never_stored() {
    for (stream, why) in [
        (made_stream(5, 0, 700), "its toguid is 5, not 1"),
        (made_stream(1, 9, 700), "its fromguid is 9, not 0"),
        (real("incr-I.zfs"), "a package of several streams"),
        (vec![7; 700], "does not begin as a ZFS stream"),
        (vec![], "too few for a stream"),
        (made_stream(1, 0, 700)[..100].to_vec(), "too few for a stream"),
    ] {
        let host = Host::with_snapshots(1);
        host.add_stream(("", 1), None, &stream);
        let said = host.fails(1, "upload tank/a@1");
        assert!(said.contains(why), "{said}");
        assert_eq!(host.s3.state().count("UploadPart"), 0, "{why}");
        assert!(host.s3.state().keys().is_empty());
        host.assert_clean();
    }
}

#[test]
fn a_stream_that_ends_early_is_never_completed() {
    // zfs send fails
    let host = Host::with_real_streams();
    host.zfs_file("die_after", "200000");
    let said = host.fails(75, "upload tank/src@s1");
    assert!(said.contains("Input/output error") && said.contains("hint: the upload is pending"), "{said}");
    assert_eq!(host.s3.state().count("CompleteMultipartUpload"), 0);
    assert_eq!(host.listed(), ["tank/src@s1 - - STANDARD uploading"]);
    host.remove_zfs_file("die_after");
    // the whole chunks, or fewer, but not the one that is short because it broke off
    assert!(host.s3.state().count("UploadPart") <= 3);
    host.ok("resume_upload");
    assert_eq!(host.s3.state().bytes(&key(S1.0, S1.1, None)), real("full.zfs"));
    assert_eq!(host.s3.state().count("UploadPart"), 18);
    host.assert_clean();
    // zfs send reports success
    let host = Host::with_real_streams();
    host.add_stream(S1, None, &real("full.zfs")[..1131751]);
    let said = host.fails(75, "upload tank/src@s1");
    assert!(said.contains("it has no END record"), "{said}");
    assert_eq!(host.s3.state().count("CompleteMultipartUpload"), 0);
    host.ok("abort_upload");
    assert!(host.s3.state().keys().is_empty());
    host.assert_clean();
}

#[test]
fn a_backup_that_only_the_bucket_knows_counts() {
    let host = Host::with_snapshots(3);
    host.ok("upload tank/a@1");
    host.ok("upload -i @1 tank/a@2");
    std::fs::remove_file(host.data("stored_snapshots.yml")).unwrap();
    let said = host.fails(3, "upload tank/a@1");
    assert!(said.contains("'tank/a@1' is in the bucket already, but not in the store"), "{said}");
    let said = host.fails(3, "upload -i @2 tank/a@3");
    assert!(
        said.contains("hint: '-i tank/a@1 tank/a@2' is in the bucket, but not in this host's store"),
        "{said}"
    );
    let said = host.fails(1, "remove tank/a@1");
    assert!(said.contains("no full backup of tank/a@1 is stored"), "{said}");
}

#[test]
fn a_base_whose_data_are_lost_is_refused() {
    let host = Host::with_snapshots(2);
    host.ok("upload tank/a@1");
    let (data, _) = host.s3.state().take(&key("tank/a@1", 1, None)).unwrap();
    let said = host.fails(3, "upload -i @1 tank/a@2");
    assert!(said.contains("hint: 'tank/a@1' is in the store, but the bucket has no object"), "{said}");
    host.s3.state().put_exactly(&data, b"short");
    let said = host.fails(3, "upload -i @1 tank/a@2");
    assert!(said.contains("has 5 bytes, not 700"), "{said}");
    // a lost backup is stored again, with new keys, and the stale entry is replaced
    let said = host.ok("upload tank/a@1").stderr;
    assert!(said.contains("the store has 'tank/a@1', but the object"), "{said}");
    assert!(said.contains("it is stored again"), "{said}");
    assert_eq!(host.listed(), ["tank/a@1 - 700 STANDARD stored"]);
    host.ok("upload -i @1 tank/a@2");
    host.ok("restore tank/a@2 tank/new");
}

#[test]
fn without_the_permission_to_list_the_store_alone_decides() {
    let host = Host::with_snapshots(2);
    host.s3.state().capabilities.may_list = false;
    let said = host.ok("upload tank/a@1").stderr;
    assert!(said.contains("warning: cannot list the bucket"), "{said}");
    host.ok("upload -i @1 tank/a@2");
    host.fails(3, "remove tank/a@1");
    host.ok("remove -i @1 tank/a@2");
    host.assert_clean();
}

#[test]
fn a_backup_under_a_longer_prefix_is_not_a_base() {
    let mut host = Host::with_snapshots(2);
    host.set("ZFS2S3_PREFIX", "b/");
    host.ok("upload tank/a@1");
    host.set("ZFS2S3_PREFIX", "");
    std::fs::remove_file(host.data("stored_snapshots.yml")).unwrap();
    host.fails(3, "upload -i @1 tank/a@2");
    // nor does it prevent this one
    let said = host.ok("upload tank/a@1").stderr;
    assert!(
        said.contains(
            "the bucket has this backup already, as 'b/tank/a@1', which is not in this host's store"
        ),
        "{said}"
    );
    host.ok("upload -i @1 tank/a@2");
    assert_eq!(host.listed().len(), 2);
    // one with another name in the store does
    host.snapshot(("tank/renamed@1", 1), 10);
    let said = host.fails(3, "upload tank/renamed@1");
    assert!(
        said.contains("'tank/renamed@1' is stored already, as 'tank/a@1': with the same guids"),
        "{said}"
    );
}

#[test]
fn servers_without_checksums() {
    let host = Host::with_real_streams();
    {
        host.s3.state().capabilities.checksums = false;
    }
    host.ok("upload tank/src@s1");
    assert_eq!(host.s3.state().bytes(&key(S1.0, S1.1, None)), real("full.zfs"));
    host.assert_clean();
    // nothing is overwritten, with or without the permission to list
    let host = Host::with_snapshots(1);
    host.s3.state().capabilities.may_list = false;
    let theirs = key("tank/a@1", 1, None);
    host.s3.state().put_exactly(&theirs, b"somebody's");
    host.ok("upload tank/a@1");
    assert_eq!(host.s3.state().objects[&theirs].bytes, b"somebody's");
}

#[test]
fn names_with_all_characters_that_zfs_allows() {
    let host = Host::new();
    let name = "tank/a b.c_d-e:f@x:1 .y";
    host.snapshot((name, 5), 1);
    host.add_stream(("", 5), None, &made_stream(5, 0, 700));
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_zfs2s3"));
    child.env_clear().env("PATH", std::env::var("PATH").unwrap()).env("HOME", host.home());
    child.env("TEST_ZFS", host.home().join("zfs"));
    child.env("ZFS2S3_ZFS", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/support/zfs"));
    child.env("ZFS2S3_BUCKET", BUCKET).env("AWS_ENDPOINT_URL", host.s3.url());
    child.env("AWS_ACCESS_KEY_ID", crate::support::sigv4::ACCESS_KEY);
    child.env("AWS_SECRET_ACCESS_KEY", crate::support::sigv4::SECRET_KEY);
    let output = child.args(["upload", name]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(host.s3.state().bytes(&key(name, 5, None)), made_stream(5, 0, 700));
}

#[test]
fn a_second_command_is_told_which_one_is_running() {
    let host = Host::with_snapshots(2);
    host.s3.fault(PUT_DATA, 0, 1, crate::support::Fault::Delay(std::time::Duration::from_millis(5000)));
    let first = host.spawn("upload tank/a@1");
    while host.s3.state().count(PUT_DATA) == 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    for line in ["upload tank/a@2", "remove tank/a@1", "resume_upload", "abort_upload"] {
        let said = host.fails(4, line);
        assert!(said.contains(&format!("process {}: upload tank/a@1", first.id())), "{said}");
    }
    assert_eq!(host.listed(), ["tank/a@1 - - STANDARD uploading"], "list needs no lock");
    assert!(first.wait_with_output().unwrap().status.success());
    host.assert_clean();
}

#[test]
fn embedded_data_are_never_requested_and_encrypted_data_are_sent_raw() {
    for (encryption, flags) in
        [("off", "--large-block --compressed"), ("aes-256-gcm", "--raw"), ("-", "--raw")]
    {
        let host = Host::with_real_streams();
        host.zfs_file("encryption", encryption);
        host.ok("upload tank/src@s1");
        // later messages change nothing
        host.zfs_file("die_after", "200000");
        host.fails(75, "upload -i @s1 tank/src@s2");
        host.remove_zfs_file("die_after");
        host.remove_zfs_file("encryption");
        host.ok("resume_upload");
        let log = host.zfs_log();
        let sends: Vec<&str> = log.lines().filter(|line| line.starts_with("send ")).collect();
        let incremental = format!("{flags} -i tank/src@s1 tank/src@s2");
        assert_eq!(
            sends,
            [
                format!("send -nP {flags} tank/src@s1"),
                format!("send {flags} tank/src@s1"),
                format!("send -nP {incremental}"),
                format!("send {incremental}"),
                format!("send {incremental}"),
            ]
        );
        let state = host.s3.state();
        let manifest =
            String::from_utf8(state.bytes(&key(S1.0, S1.1, None).replace(".zfs", ".yml")).to_vec());
        let words: String = flags.split(' ').map(|flag| format!("  - {flag}\n")).collect();
        assert!(manifest.unwrap().contains(&format!("  send_args:\n{words}")));
    }
}

#[test]
fn a_stream_that_would_lose_attributes_is_not_stored() {
    let mut host = Host::new();
    // some chunks before the first such record, one after the other, so that S3 certainly has some of them
    host.set("ZFS2S3_CHUNK_SIZE", "1K");
    host.set("ZFS2S3_JOBS", "1");
    let bad = real("embedded-spill.zfs");
    let guid = u64::from_le_bytes(bad[40..48].try_into().unwrap());
    host.snapshot(("tank/p@1", guid), 10);
    host.add_stream(("", guid), None, &bad);
    let said = host.fails(1, "upload tank/p@1");
    assert!(
        said.contains("the stream of tank/p@1: 'zfs receive' would lose extended attributes, or the target of a long symbolic link, of the object 3")
            && said.contains("https://github.com/openzfs/zfs/issues/18239"),
        "{said}"
    );
    assert_eq!(host.listed(), ["tank/p@1 - - STANDARD uploading"]);
    host.ok("abort_upload");
    host.assert_clean();
    // if an older program stored it, it is restored unchanged, with a warning
    let store = include_str!("../legacy/stored_snapshots.yml").replace(&S1.1.to_string(), &guid.to_string());
    host.write_data("stored_snapshots.yml", &store);
    host.s3.state().put("tank/src@s1", &bad);
    let output = host.spawn("download tank/src@s1").wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout), (Some(0), bad));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("zfs2s3: warning: ") && said.contains("would lose"), "{said}");
}

/// What was changed on the way from the pool, in memory or by a program in between.
#[test]
fn a_damaged_stream_is_refused_at_its_record() {
    let good = real("full.zfs");
    // a WRITE record with 128 KiB, and the next record
    let (write, next) = (166_736, 166_736 + 312 + (128 << 10));
    let flipped = |at: usize| {
        let mut bad = good.clone();
        bad[at] ^= 1;
        bad
    };
    let mut swapped = good.clone();
    swapped.copy_within(next + 312..next + 312 + (128 << 10), write + 312);
    swapped[next + 312..next + 312 + (128 << 10)].copy_from_slice(&good[write + 312..next]);
    let from = write + 312;
    for (bad, record, from) in [
        (flipped(write + 400), next, from),
        (flipped(next + 30), next, from),
        (flipped(next + 311), next, from),
        (swapped, next, from),
        (flipped(900_000), 0, 0),
    ] {
        let mut host = Host::with_real_streams();
        host.set("ZFS2S3_CHUNK_SIZE", "16K");
        host.add_stream(S1, None, &bad);
        let said = host.fails(1, "upload tank/src@s1");
        let place = format!(
            ", at byte {record}, has the wrong checksum, so it or the data before it, from byte {from}, "
        );
        assert!(said.contains("the stream of tank/src@s1: it is damaged: record "), "{said}");
        assert!(record == 0 || said.contains(&place), "{said}");
        assert!(said.contains("hint: memory, a pipe, or a program in ZFS2S3_ZFS"), "{said}");
        assert_eq!(host.s3.state().count("CompleteMultipartUpload"), 0);
        host.ok("abort_upload");
        host.assert_clean();
    }
    // END and more
    let host = Host::with_real_streams();
    host.add_stream(S1, None, &[&good[..], &good[good.len() - 312..]].concat());
    let said = host.fails(1, "upload tank/src@s1");
    assert!(said.contains(&format!("it continues after its END record, at byte {}", good.len())), "{said}");
    // a record of a later version, with the right checksum
    let mut later = MadeStream::default();
    later.record(&[(8, 0x2_F5BA_CBAC), (16, 1), (40, S1.1)], &[]);
    later.record(&[(0, 77)], &[5; 1000]);
    later.end(S1.1);
    host.ok("abort_upload");
    host.add_stream(S1, None, &later.bytes);
    let said = host.ok("upload tank/src@s1").stderr;
    assert!(
        said.contains("warning: the stream of tank/src@s1 is not checked after record 2, at byte 312"),
        "{said}"
    );
}

#[test]
fn what_a_wrapper_changes_is_found() {
    let mut host = Host::with_real_streams();
    let wrapper = host.home().join("ssh");
    let zfs = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/support/zfs");
    let text = format!(
        "#!/bin/sh\nif [ \"$1\" = send ]; then\n{zfs} \"$@\" | {{ head -c 400000; printf X; tail -c +2; }}\nelse\nexec {zfs} \"$@\"\nfi\n"
    );
    std::fs::write(&wrapper, text).unwrap();
    host.set("ZFS2S3_ZFS", &format!("sh {}", wrapper.display()));
    let said = host.fails(1, "upload tank/src@s1");
    assert!(said.contains("it is damaged: record "), "{said}");
    host.ok("abort_upload");
}

/// Its hashes are right, so only its records show the damage.
#[test]
fn a_stream_that_was_stored_damaged_is_not_handed_on() {
    let host = Host::new();
    host.write_data("stored_snapshots.yml", include_str!("../legacy/stored_snapshots.yml"));
    let mut bad = real("full.zfs");
    bad[400_000] ^= 1;
    host.s3.state().put("tank/src@s1", &bad);
    let said = host.fails(1, "download tank/src@s1");
    assert!(said.contains("the stored stream of 'tank/src@s1': it is damaged: record "), "{said}");
}

#[test]
fn the_requests_of_an_upload() {
    let host = Host::with_snapshots(4);
    host.zfs_file("estimate", "700");
    let requests = || -> Vec<&'static str> { host.s3.state().log.drain(..).map(|(name, _)| name).collect() };
    let stored = ["ListObjectsV2", PUT_DATA, "PutObject", "ListObjectsV2"];
    host.ok("upload tank/a@1");
    // with the first one, the permission to read is checked, and the README is written
    assert_eq!(requests(), [&["ListObjectsV2", "GetObject"], &stored[1..], &["PutObject"]].concat());
    host.ok("upload -i @1 tank/a@2");
    assert_eq!(requests(), stored);
    host.ok("upload -ab tank/a@3");
    assert_eq!(requests(), stored);
    host.ok("upload -a tank/a@3");
    assert_eq!(requests(), ["ListObjectsV2"], "it is stored already");
    host.fails(3, "upload tank/a@1");
    assert_eq!(requests(), ["ListObjectsV2", "ListObjectsV2"], "the second lists everything");
    // one in parts
    host.add_stream(("tank/a@4", 4), Some(("tank/a@3", 3)), &made_stream(4, 3, 70_000));
    host.zfs_file("estimate", "70000");
    host.ok("upload -i @3 tank/a@4");
    let parts = ["CreateMultipartUpload", "UploadPart", "UploadPart", "CompleteMultipartUpload"];
    assert_eq!(
        requests(),
        [&["ListObjectsV2", "GetObject"], &parts[..], &["PutObject", "ListObjectsV2"]].concat()
    );
}

#[test]
fn an_upload_lists_only_what_it_depends_on() {
    let host = Host::with_tree();
    host.zfs_file("estimate", "700");
    for name in ["tank@1", "tank/a@1", "tank/c@1"] {
        host.ok(&format!("upload {name}"));
    }
    // 5,000 objects that are not ours, and a lost one of another dataset
    for n in 0..5_000 {
        host.s3.state().put_exactly(&format!("tank/photos/{n}"), b"");
    }
    host.s3.state().take(&key("tank/c@1", 41, None)).unwrap();
    host.s3.state().log.clear();
    assert_eq!(
        host.ok("upload -i @1 tank/a@2").stderr,
        "zfs2s3: stored tank/a@2, incremental from tank/a@1: 700B, 1 part\n"
    );
    assert_eq!(host.s3.state().count("ListObjectsV2"), 2);
    let said = host.fails(3, "upload tank/a@1");
    assert!(said.contains("'tank/a@1' is stored already"), "{said}");
    assert_eq!(host.s3.state().count("ListObjectsV2"), 2 + 1 + 6, "all of it, before it is refused");
}

#[test]
fn a_policy_that_allows_to_list_only_the_prefix_is_enough() {
    let mut host = Host::with_snapshots(3);
    host.set("ZFS2S3_PREFIX", "nas/");
    host.ok("upload tank/a@1");
    host.s3.state().capabilities.lists_only = Some("nas/");
    let said = host.ok("upload -a tank/a@2").stderr;
    assert!(!said.contains("cannot list"), "{said}");
    host.s3.state().take("nas/tank/a@1/0000000000000001-full.zfs").unwrap();
    let said = host.fails(3, "upload -i @2 tank/a@3");
    assert!(said.contains("no stored chain of backups leads to the base tank/a@2"), "{said}");
}

/// What a part of the listing does not allow is not allowed by the store alone.
#[test]
fn a_policy_that_allows_to_list_only_a_part_is_taken_at_its_word() {
    let host = Host::with_snapshots(3);
    host.ok("upload tank/a@1");
    host.ok("upload -i @1 tank/a@2");
    host.s3.state().capabilities.lists_only = Some("tank/a@");
    assert_eq!(host.ok("upload -i @2 tank/a@3").stderr.lines().count(), 1);
    host.ok("remove -i @2 tank/a@3");
    let data = host.s3.state().take(&key("tank/a@1", 1, None)).unwrap();
    let said = host.fails(3, "upload -i @2 tank/a@3");
    assert!(said.contains("no stored chain of backups leads to the base tank/a@2"), "{said}");
    host.s3.state().objects.extend([data]);
    // it is lost during the upload
    host.s3.fault(PUT_DATA, 0, 1, Fault::Delay(std::time::Duration::from_millis(500)));
    let before = host.s3.state().count(PUT_DATA);
    let child = host.spawn("upload -i @2 tank/a@3");
    while host.s3.state().count(PUT_DATA) == before {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    host.s3.state().take(&key("tank/a@1", 1, None)).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).to_string();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("the base tank/a@2 can no longer be restored"), "{said}");
}

#[test]
fn an_older_chain_that_begins_in_another_dataset_is_not_called_lost() {
    let host = Host::new();
    host.zfs_file("estimate", "700");
    for (guid, base) in [(1, 0), (2, 1), (3, 0), (4, 3)] {
        host.add_stream(("", guid), (base > 0).then_some(("", base)), &made_stream(guid, base, 700));
    }
    host.snapshot(("tank/o@1", 1), 10);
    host.ok("upload tank/o@1");
    // it is renamed
    host.zfs_file("snapshots", "");
    (1..5).for_each(|guid| host.snapshot((&format!("tank/c@{guid}"), guid), guid * 10));
    host.ok("upload -i @1 tank/c@2");
    host.ok("upload tank/c@3");
    assert_eq!(host.ok("upload -i @3 tank/c@4").stderr.lines().count(), 1);
}

#[test]
fn the_readme_is_not_written_again_for_a_new_dataset() {
    let host = Host::with_tree();
    host.ok("upload tank/a@1");
    host.s3.state().capabilities.hides_absent = true;
    host.s3.state().log.clear();
    host.ok("upload tank/c@1");
    let state = host.s3.state();
    assert!(
        !state.log.iter().any(|(name, key)| *name == "PutObject" && key.contains("README")),
        "{:?}",
        state.log
    );
}

#[test]
fn an_upload_id_that_is_too_long_is_refused_at_once() {
    let host = Host::with_real_streams();
    host.s3.state().capabilities.long_ids = 6_000;
    let said = host.fails(1, "upload tank/src@s1");
    assert!(said.contains("the upload ID has 60") && said.contains("the maximum of 4096"), "{said}");
    host.assert_clean();
    host.s3.state().capabilities.long_ids = 4_000;
    host.ok("upload tank/src@s1");
    host.assert_clean();
}

/// ssh's ControlPersist master did that.
#[test]
fn a_process_that_zfs_leaves_behind_is_not_waited_for() {
    let host = Host::with_snapshots(1);
    host.zfs_file("keep_stderr", "");
    let begun = std::time::Instant::now();
    host.ok("upload tank/a@1");
    let took = begun.elapsed();
    let pids = std::fs::read_to_string(host.home().join("zfs/keep_stderr")).unwrap();
    assert_eq!(pids.lines().count(), 1);
    for pid in pids.lines() {
        std::process::Command::new("kill").arg(pid).status().unwrap();
    }
    assert!(took < std::time::Duration::from_secs(40), "{took:?}");
    host.assert_clean();
}
