//! `restore` and `download`: the result is what was stored, or nothing is delivered.

use std::time::Duration;

use crate::support::{Fault, Host, S1, S2, key, made_stream, real, summed};

/// Snapshots 1 to 4 in a chain, and a bypass from 1 to 4.
fn month() -> Host {
    let host = Host::with_snapshots(4);
    host.ok("upload tank/a@1");
    for n in 2..=4 {
        host.ok(&format!("upload -i @{} tank/a@{n}", n - 1));
    }
    host
}

fn received(host: &Host, target: &str) -> Vec<u8> {
    std::fs::read(host.home().join("zfs").join(format!("{}.received", target.replace('/', "%"))))
        .unwrap_or_default()
}

/// The streams that lead to `to`, concatenated.
fn streams(chain: &[(u64, u64)]) -> Vec<u8> {
    chain.iter().flat_map(|(to, from)| made_stream(*to, *from, 700)).collect()
}

/// stdout as bytes, stderr, and the exit status.
fn download(host: &Host, line: &str) -> (Vec<u8>, String, i32) {
    let output = host.spawn(line).wait_with_output().unwrap();
    (output.stdout, String::from_utf8(output.stderr).unwrap(), output.status.code().unwrap())
}

#[test]
fn a_download_is_the_stream_byte_for_byte() {
    for parts in ["1000", "5", "1"] {
        let mut host = Host::with_real_streams();
        host.set("ZFS2S3_TEST_PARTS", parts);
        host.ok("upload tank/src@s1");
        host.ok("upload -i @s1 tank/src@s2");
        assert_eq!(download(&host, "download tank/src@s1"), (real("full.zfs"), String::new(), 0));
        assert_eq!(download(&host, "download -i @s1 tank/src@s2").0, real("incr.zfs"));
        let by_guid = format!("download -i {} {}", S1.1, S2.1);
        assert_eq!(download(&host, &by_guid).0, real("incr.zfs"));
        host.destroy(S1.0);
        host.set("ZFS2S3_JOBS", "7");
        assert_eq!(download(&host, "download tank/src@s1").0, real("full.zfs"), "the snapshot is gone");
        assert_eq!(download(&host, "download tank/src@s2").2, 1, "there is no full one");
    }
}

#[test]
fn every_range_may_fail_in_every_way_and_the_result_is_whole() {
    for act in [
        Fault::Drop,
        Fault::LoseReply,
        Fault::TruncateReply,
        Fault::FlipBit,
        Fault::Status(500, "InternalError"),
        Fault::Status(503, "SlowDown"),
        Fault::Delay(Duration::from_millis(50)),
    ] {
        let mut host = Host::with_real_streams();
        host.set("ZFS2S3_JOBS", "8");
        host.ok("upload tank/src@s1");
        host.s3.state().log.clear();
        host.s3.fault_each_range(act.clone());
        let (bytes, said, status) = download(&host, "download tank/src@s1");
        assert_eq!((status, bytes == real("full.zfs")), (0, true), "{act:?}: {said}");
        // the manifest, and each of the 18 chunks twice, unless it was only late
        let tries = if matches!(act, Fault::Delay(_)) { 1 } else { 2 };
        assert_eq!(host.s3.state().count("GetObject"), 1 + 18 * tries, "{act:?}: {said}");
        host.s3.fault_each_range(act.clone());
        host.ok("restore tank/src@s1 tank/new");
        assert_eq!(received(&host, "tank/new"), real("full.zfs"), "{act:?}");
    }
}

#[test]
fn a_damaged_chunk_is_named_and_not_delivered() {
    let full = real("full.zfs");
    let host = Host::with_real_streams();
    host.ok("upload tank/src@s1");
    let key = host.real_key(&key(S1.0, S1.1, None));
    for chunk in 0..full.len().div_ceil(65536) {
        let (start, end) = (chunk * 65536, full.len().min((chunk + 1) * 65536));
        let at = start + (end - start) * 2 / 3;
        host.s3.state().object_mut(&key).bytes[at] ^= 0x10;
        let (bytes, said, status) = download(&host, "download tank/src@s1");
        assert_eq!(status, 1);
        assert!(bytes == full[..start], "chunk {chunk}: all before it, and no more");
        let named = format!("the object '{key}' (segment 1) is damaged in bytes {start} to {}", end - 1);
        assert!(said.contains(&named), "{said}");
        let said = host.fails(1, &format!("restore tank/src@s1 tank/new{chunk}"));
        assert!(said.contains(&named), "{said}");
        assert_eq!(received(&host, &format!("tank/new{chunk}")), b"", "no whole snapshot");
        let _ = std::fs::remove_file(host.home().join("zfs/partial"));
        host.s3.state().object_mut(&key).bytes[at] ^= 0x10;
    }
}

#[test]
fn a_manifest_that_differs_from_the_store_is_not_trusted() {
    let host = Host::with_real_streams();
    host.ok("upload tank/src@s1");
    let manifest = key(S1.0, S1.1, None).replace(".zfs", ".yml");
    let good = String::from_utf8(host.s3.state().bytes(&manifest).to_vec()).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    let first_sum = lines.iter().position(|line| line.trim_start().len() == 64).unwrap();
    for (bad, why) in [
        (String::new(), "missing field"),
        (good.replace("version: 3", "version: 9"), "version 9"),
        (good.replace("stages: []", "stages: [zstd]"), "stage 'zstd'"),
        (good.replace("size: 1131752", "size: 1131751"), "another backup than the store"),
        (good.replace("chunk_size: 65536", "chunk_size: 65537"), "another backup than the store"),
        (good.replace("chunk_size: 65536", "chunk_size: 1"), "the wrong number of chunks"),
        (good.replace("guid: '13707626622376489106'", "guid: '5'"), "another backup than the store"),
        (
            good.replace(lines[first_sum], &format!("      {}", "0".repeat(64))),
            "its list of chunks does not match",
        ),
        (good.replace(&format!("{}\n", lines[first_sum]), ""), "the wrong number of chunks"),
        (good.replace(lines[first_sum], "      xyz"), "is not a SHA-256"),
    ] {
        assert_ne!(bad, good, "{why}");
        host.s3.state().put(&manifest, bad.as_bytes());
        let (bytes, said, status) = download(&host, "download tank/src@s1");
        assert_eq!((bytes.len(), status), (0, 1), "{said}");
        assert!(said.contains("the manifest '") && said.contains(why), "{said}");
    }
    let (own, _) = host.s3.state().take(&manifest).unwrap();
    assert!(download(&host, "download tank/src@s1").1.contains("the bucket has no object"));
    host.s3.state().put_exactly(&own, good.as_bytes());
    host.s3.state().object_mut(&key(S1.0, S1.1, None)).bytes.pop();
    assert!(download(&host, "download tank/src@s1").1.contains("has 1131751 bytes, not 1131752"));
}

#[test]
fn a_closed_pipe_is_not_a_crash() {
    let host = Host::with_real_streams();
    host.ok("upload tank/src@s1");
    let mut child = host.spawn("download tank/src@s1");
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("zfs2s3: error: cannot write to standard output"), "{said}");
}

#[test]
fn a_chain_is_restored_in_order_and_by_the_cheapest_route() {
    let host = month();
    let said = host.ok("restore tank/a@4 tank/new").stderr;
    assert_eq!(received(&host, "tank/new"), streams(&[(1, 0), (2, 1), (3, 2), (4, 3)]));
    assert_eq!(said.matches("received ").count(), 4, "{said}");
    assert!(host.zfs_log().contains("\nreceive -s -u tank/new\n"));
    assert!(host.ok("restore tank/a@4 tank/new").stderr.contains("exists already"));
    // the bypass is as long as one of the three that it replaces
    host.ok("upload -i @1 tank/a@4");
    host.ok("restore tank/a@4 tank/other");
    assert_eq!(received(&host, "tank/other"), streams(&[(1, 0), (4, 1)]));
    // and backups that the target has are not fetched again
    host.ok("restore tank/a@1 tank/third");
    host.ok("restore 2 tank/third");
    host.ok("restore tank/a@4 tank/third");
    assert_eq!(received(&host, "tank/third"), streams(&[(1, 0), (2, 1), (3, 2), (4, 3)]));
}

#[test]
fn a_dry_run_shows_the_backups_and_their_bytes() {
    let host = month();
    host.ok("restore tank/a@1 tank/new");
    let said = host.ok("restore -n tank/a@3 tank/new").stdout;
    assert_eq!(
        said,
        "would restore into tank/new, which has tank/new@1\n  receive  tank/a@2, incremental from tank/a@1  700 bytes  STANDARD\n  \
         receive  tank/a@3, incremental from tank/a@2  700 bytes  STANDARD\n  total    1400 bytes (1.37K), 2 backups\n"
    );
    assert!(
        host.ok("restore -n tank/a@1 tank/x")
            .stdout
            .starts_with("would restore into tank/x, a new dataset\n")
    );
    assert_eq!(received(&host, "tank/new"), streams(&[(1, 0)]));
    host.ok("restore tank/a@2 tank/new");
    let said = host.ok("restore -n tank/a@3 tank/new").stdout;
    assert!(
        said.starts_with("would restore into tank/new, which has tank/new@2 and 1 other snapshot\n"),
        "{said}"
    );
}

#[test]
fn a_target_that_has_diverged_is_refused_untouched() {
    let host = month();
    host.ok("restore tank/a@2 tank/new");
    host.snapshot(("tank/new@mine", 99), 5000);
    let said = host.fails(3, "restore tank/a@4 tank/new");
    assert!(said.contains("tank/new has diverged") && said.contains("tank/new@mine"), "{said}");
    assert!(said.contains("which discards everything since: zfs rollback -r tank/new@2"), "{said}");
    // newer than the wanted one
    host.ok("restore tank/a@4 tank/other");
    let said = host.ok("restore tank/a@2 tank/other").stderr;
    assert!(
        said.contains("tank/other@2 exists already; the latest snapshot there is tank/other@4"),
        "{said}"
    );
    host.destroy("tank/other@2");
    let said = host.fails(3, "restore tank/a@2 tank/other");
    assert!(
        said.contains("tank/other is already at tank/other@4, which is later than tank/a@2")
            && said.contains("hint: nothing is rolled back"),
        "{said}"
    );
    // a dataset without a snapshot
    host.snapshot(("tank/empty", 1000), 1);
    assert!(
        host.fails(3, "restore tank/a@2 tank/empty")
            .contains("has no snapshot that a backup could be received onto")
    );
    assert_eq!(received(&host, "tank/new"), streams(&[(1, 0), (2, 1)]));
}

#[test]
fn a_restore_killed_in_the_middle_is_continued() {
    let host = month();
    // the second backup's manifest has been read; its data are on their way
    let before = host.s3.state().count("GetObject");
    host.killed("restore tank/a@4 tank/new", "GetObject", before.max(4) + 1 - before, Fault::KillBefore);
    // the zfs receive of the tests sees the end of its input
    std::thread::sleep(Duration::from_millis(1000));
    let ran = host.run("restore tank/a@4 tank/new");
    if ran.status == 3 {
        assert!(
            ran.stderr.contains("has a part of an interrupted stream") && ran.stderr.contains("-A discards"),
            "{}",
            ran.stderr
        );
        host.ok("restore -A tank/a@4 tank/new");
    }
    assert_eq!(received(&host, "tank/new"), streams(&[(1, 0), (2, 1), (3, 2), (4, 3)]));
}

/// Gives the target a part of a stream, up to an object and offset, of which so many bytes were read.
pub fn interrupt(host: &Host, to: (&str, u64), from: u64, [object, offset, bytes]: [u64; 3], more: &str) {
    let base = if from == 0 { String::new() } else { format!("\tfromguid = {from:#x}\n") };
    host.zfs_file("partial", "1-abc\n");
    host.zfs_file(
        "token",
        &format!(
            "resume token contents:\nnvlist version: 0\n\tobject = {object:#x}\n\toffset = {offset:#x}\n\tbytes = {bytes:#x}\n\
             {base}\ttoguid = {:#x}\n\ttoname = {}\n{more}",
            to.1, to.0
        ),
    );
}

/// Of the output of `zfs send -t` for such a token of full.zfs.
pub const RESUMED: &str = "04af56124b14dc23ad886bc7cb66820f2bf102636467bfaea4e90b23feebc22f";
pub const PLACE: [u64; 3] = [22, 0x20000, 297_808];

pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn an_interrupted_receive_resumes_as_with_zfs_send_t() {
    for (jobs, search) in [("1", 15), ("5", 6)] {
        let mut host = Host::with_real_streams();
        host.set("ZFS2S3_JOBS", jobs);
        host.ok("upload tank/src@s1");
        host.ok("upload -i @s1 tank/src@s2");
        // a dataset that only the partial receive has created
        host.snapshot(("tank/new", 0), 0);
        interrupt(&host, S1, 0, PLACE, "");
        assert_eq!(
            host.ok("restore -n tank/src@s2 tank/new").stdout,
            "would restore into tank/new, a new dataset\n  resume   tank/src@s1, full  965016 bytes  STANDARD\n  \
             receive  tank/src@s2, incremental from tank/src@s1  290104 bytes  STANDARD\n  total    1255120 bytes (1.20M), 2 backups\n"
        );
        assert_eq!(received(&host, "tank/new"), b"");
        host.s3.state().log.clear();
        let said = host.ok("restore tank/src@s2 tank/new").stderr;
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(
            lines,
            [
                "zfs2s3: finding the point where the receive into tank/new was interrupted",
                "zfs2s3: resuming tank/src@s1, full, of which tank/new has the first 163K",
                "zfs2s3: received tank/src@s1, full, into tank/new: 942K",
                "zfs2s3: received tank/src@s2, incremental from tank/src@s1, into tank/new: 283K",
            ]
        );
        let got = received(&host, "tank/new");
        assert_eq!(sha256(&got[..966_224]), RESUMED);
        assert_eq!(got[966_224..], real("incr.zfs"));
        // manifests: one of the first, two of the second; chunks: to find the place, the last 16 of 18, and
        // 5. Here a record is longer than a chunk, so the search has more of them to look at, and jobs + 1 of
        // them are kept meanwhile
        let requests = host.s3.state().count("GetObject");
        assert!(requests <= 3 + search + 16 + 5, "{requests} requests");
        assert!(!host.zfs_log().contains("receive -A"));
    }
}

#[test]
fn an_incremental_receive_is_resumed_too() {
    let host = Host::with_real_streams();
    host.ok("upload tank/src@s1");
    host.ok("upload -i @s1 tank/src@s2");
    host.ok("restore tank/src@s1 tank/new");
    host.snapshot(("tank/new@s1", S1.1), 1000);
    // nothing is certain yet: everything is received, but as a resumed stream
    interrupt(&host, S2, S1.1, [1, 0, 0], "");
    host.ok("restore tank/src@s2 tank/new");
    let (got, incremental) = (received(&host, "tank/new"), real("incr.zfs"));
    assert_eq!(got.len(), real("full.zfs").len() + incremental.len() + 96);
    let rest = &got[got.len() - incremental.len() + 312..];
    assert_eq!(rest[..280], incremental[312..592], "the first record but for its checksum");
}

/// They were set when the dataset was created.
#[test]
fn the_same_command_with_properties_resumes_too() {
    let host = Host::with_real_streams();
    host.ok("upload tank/src@s1");
    host.ok("upload -i @s1 tank/src@s2");
    host.snapshot(("tank/new", 0), 0);
    interrupt(&host, S1, 0, PLACE, "");
    host.ok("restore -o readonly=on tank/src@s2 tank/new");
    assert!(!host.home().join("zfs/properties").exists());
    assert!(received(&host, "tank/new").ends_with(&real("incr.zfs")));
}

#[test]
fn a_damaged_chunk_ends_a_resumed_restore_too() {
    let host = Host::with_real_streams();
    host.ok("upload tank/src@s1");
    host.snapshot(("tank/new", 0), 0);
    interrupt(&host, S1, 0, PLACE, "");
    host.s3.state().object_mut(&key(S1.0, S1.1, None)).bytes[9 * 65536] ^= 1;
    let said = host.fails(1, "restore tank/src@s1 tank/new");
    assert!(said.contains("(segment 1) is damaged in bytes 589824 to 655359"), "{said}");
    assert_eq!(received(&host, "tank/new"), b"");
    host.s3.state().object_mut(&key(S1.0, S1.1, None)).bytes[9 * 65536] ^= 1;
    host.ok("restore tank/src@s1 tank/new");
    assert_eq!(sha256(&received(&host, "tank/new")), RESUMED);
}

#[test]
fn a_receive_that_cannot_be_resumed_is_refused_with_the_reason() {
    let host = Host::with_real_streams();
    host.ok("upload tank/src@s1");
    host.ok("upload -i @s1 tank/src@s2");
    host.snapshot(("tank/new", 0), 0);
    for (snapshot, from, place, more, why) in [
        (("tank/x@y", 5), 0, PLACE, "", "interrupted stream of tank/x@y, which is not stored"),
        (S2, S1.1, PLACE, "", "of tank/src@s2, which does not follow the snapshots there"),
        (
            S1,
            0,
            [22, 0x20001, 297_808],
            "",
            "the stored stream does not contain the point where it was interrupted",
        ),
        (
            S1,
            0,
            PLACE,
            "\tcompressok = 1\n",
            "it was received from another kind of 'zfs send' than the stored one",
        ),
        (
            S1,
            0,
            PLACE,
            "\tbook_redact_snaps = 0x1 0x2\n",
            "its resume token has the field 'book_redact_snaps', which this version does not know",
        ),
    ] {
        interrupt(&host, snapshot, from, place, more);
        let said = host.fails(3, "restore tank/src@s1 tank/new");
        assert!(said.contains("tank/new") && said.contains(why), "{said}");
        assert!(said.contains("-A discards that part; whole snapshots stay"), "{said}");
        assert_eq!(received(&host, "tank/new"), b"");
        assert!(host.home().join("zfs/partial").exists());
    }
}

#[test]
fn a_token_that_zfs_cannot_read_is_an_error_with_its_message() {
    let host = Host::with_real_streams();
    host.ok("upload tank/src@s1");
    host.snapshot(("tank/new", 0), 0);
    interrupt(&host, S1, 0, PLACE, "");
    host.zfs_file("token", "");
    let said = host.fails(1, "restore tank/src@s1 tank/new");
    assert!(
        said.contains("'zfs send -nvP -t' failed: cannot resume send: ") && said.contains("-A discards"),
        "{said}"
    );
    assert!(host.home().join("zfs/partial").exists());
    host.ok("restore -A tank/src@s1 tank/new");
    assert!(!host.home().join("zfs/partial").exists());
}

/// `tank/new@s1`, and a part of s2, from which no chain leads to s3.
fn with_a_useless_part() -> Host {
    let host = Host::with_real_streams();
    host.ok("upload tank/src@s1");
    host.ok("upload -i @s1 tank/src@s2");
    host.snapshot(("tank/new@s1", S1.1), 1000);
    host.snapshot(("tank/src@s3", 33), 30);
    host.add_stream(("", 33), Some(("", S1.1)), &made_stream(33, S1.1, 700));
    host.ok("upload -i @s1 tank/src@s3");
    interrupt(&host, S2, S1.1, [1, 0, 0], "");
    host
}

#[test]
fn a_part_that_does_not_lead_to_the_snapshot_must_be_discarded() {
    let host = with_a_useless_part();
    let said = host.fails(3, "restore tank/src@s3 tank/new");
    assert!(
        said.contains("no chain of stored backups leads from its latest snapshot tank/new@s2 to tank/src@s3")
            && said.contains("tank/new has a part of tank/src@s2, incremental from tank/src@s1; -A discards"),
        "{said}"
    );
    host.ok("restore -A tank/src@s3 tank/new");
    assert!(!host.home().join("zfs/partial").exists());
}

#[test]
fn a_part_is_discarded_on_request_even_if_the_snapshot_exists_already() {
    let host = with_a_useless_part();
    let got = received(&host, "tank/new");
    assert!(host.ok("restore tank/src@s1 tank/new").stderr.contains("exists already"));
    let said = host.ok("restore -n -A tank/src@s1 tank/new").stderr;
    assert!(said.contains("would discard the part of a stream in tank/new"), "{said}");
    assert!(host.home().join("zfs/partial").exists());
    assert!(host.ok("restore -A tank/src@s1 tank/new").stderr.contains("discarding the part"));
    assert!(!host.home().join("zfs/partial").exists());
    assert_eq!(received(&host, "tank/new"), got);
}

#[test]
fn a_partial_receive_is_discarded_only_on_request() {
    let host = month();
    host.ok("restore tank/a@1 tank/new");
    interrupt(&host, ("tank/x@y", 5), 1, PLACE, "");
    let said = host.fails(3, "restore tank/a@2 tank/new");
    assert!(
        said.contains("tank/new has a part of an interrupted stream")
            && said.contains("hint: -A discards that part"),
        "{said}"
    );
    let said = host.ok("restore -n -A tank/a@2 tank/new").stderr;
    assert!(said.contains("would discard the part of a stream in tank/new"), "{said}");
    assert!(host.home().join("zfs/partial").exists());
    host.ok("restore -A tank/a@2 tank/new");
    assert_eq!(received(&host, "tank/new"), streams(&[(1, 0), (2, 1)]));
}

#[test]
fn the_message_of_zfs_receive_is_shown() {
    let host = month();
    host.zfs_file("refuse_receive", "destination has been modified\nsince most recent snapshot");
    let said = host.fails(1, "restore tank/a@1 tank/new");
    assert!(
        said.contains("destination has been modified") && said.contains("hint: 'zfs rollback'"),
        "{said}"
    );
    let saved = "checksum mismatch or incomplete stream.\nPartially received snapshot is saved.";
    host.zfs_file("refuse_receive", saved);
    let said = host.fails(1, "restore tank/a@1 tank/new");
    assert!(said.contains("hint: the same command resumes"), "{said}");
}

#[test]
fn after_a_long_failure_of_s3_the_same_command_resumes() {
    let mut host = Host::with_real_streams();
    host.ok("upload tank/src@s1");
    host.set("ZFS2S3_TEST_PATIENCE_MS", "300");
    host.s3.fault("GetObject", 9, 1000, Fault::Status(503, "SlowDown"));
    let said = host.fails(75, "restore tank/src@s1 tank/new");
    assert!(said.contains("hint: the same command resumes where this one has ended"), "{said}");
    host.s3.no_more_faults();
    interrupt(&host, S1, 0, PLACE, "");
    host.ok("restore tank/src@s1 tank/new");
    assert_eq!(sha256(&received(&host, "tank/new")), RESUMED);
}

#[test]
fn when_zfs_receive_has_ended_no_fetch_is_waited_for() {
    let mut host = Host::with_real_streams();
    host.set("ZFS2S3_JOBS", "1");
    host.ok("upload tank/src@s1");
    host.zfs_file("dead_receive", "out of space");
    // the manifest, twice, and the first two chunks arrive: a pipe that nobody reads holds one. The third,
    // which is fetched meanwhile, does not, and is retried for 30 seconds
    host.s3.fault("GetObject", 4, 100, Fault::Status(503, "SlowDown"));
    let begun = std::time::Instant::now();
    let said = host.fails(1, "restore tank/src@s1 tank/new");
    assert!(said.contains("cannot receive: out of space"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn backups_of_the_python_tool_are_restored_too() {
    let host = Host::of_python_tool();
    assert_eq!(download(&host, "download tank/src@s1").0, real("full.zfs"));
    assert!(
        host.ok("restore -n tank/src@s2 tank/new").stdout.ends_with(
            "  receive  tank/src@s1, full  1131752 bytes  -\n  \
             receive  tank/src@s2, incremental from tank/src@s1  290104 bytes  -\n  total    1421856 bytes (1.36M), 2 backups\n"
        )
    );
    host.ok("restore tank/src@s2 tank/new");
    assert_eq!(received(&host, "tank/new"), [real("full.zfs"), real("incr.zfs")].concat());
    // another stream instead
    host.s3.state().put("tank/src@s1", &made_stream(5, 0, 700));
    let (bytes, said, _) = download(&host, "download tank/src@s1");
    assert!(bytes.is_empty() && said.contains("its toguid is 5"), "{said}");
    host.s3.state().put("tank/src@s1", &real("full.zfs")[..1_000_000]);
    assert!(download(&host, "download tank/src@s1").1.contains("it has no END record"));
}

#[test]
fn names_that_are_not_stored_or_not_names() {
    let host = month();
    assert!(
        host.fails(1, "restore tank/a@9 tank/new")
            .contains("tank/a@9 is not stored\nzfs2s3: hint: 'zfs2s3 list'")
    );
    host.write_data("stored_snapshots.yml", "");
    assert!(
        host.fails(1, "restore tank/a@1 tank/new")
            .contains("or move it away, and 'zfs2s3 recover' rebuilds it")
    );
    std::fs::remove_file(host.data("stored_snapshots.yml")).unwrap();
    for line in ["restore tank/a@1 tank/new", "restore tank/a tank/new", "download tank/a@1"] {
        assert!(host.fails(1, line).contains("hint: the store is empty: if it was lost, 'zfs2s3 recover'"));
    }
    for line in [
        "restore tank/a@1",
        "restore tank/a#1 tank/new",
        "restore tank/a@1 tank/new@1",
        "restore tank/a@1 /x",
        "download tank/a",
    ] {
        host.fails(2, line);
    }
}

#[test]
fn nothing_is_discarded_before_the_restore_is_known_to_be_possible() {
    let host = month();
    host.ok("restore tank/a@1 tank/new");
    host.snapshot(("tank/new@mine", 99), 5000);
    host.zfs_file("partial", "1-abc\n");
    host.fails(3, "restore -A tank/a@2 tank/new");
    host.destroy("tank/new@mine");
    let there = host.s3.state().take(&key("tank/a@2", 2, Some(1))).unwrap();
    host.fails(1, "restore -A tank/a@2 tank/new");
    assert!(host.home().join("zfs/partial").exists());
    host.s3.state().objects.insert(there.0, there.1);
    host.ok("restore -A tank/a@2 tank/new");
    assert_eq!(received(&host, "tank/new"), streams(&[(1, 0), (2, 1)]));
}

#[test]
fn if_the_cheapest_route_cannot_be_read_another_one_is_used() {
    let host = month();
    host.ok("upload -i @1 tank/a@4");
    host.s3.state().take(&key("tank/a@4", 4, Some(1)));
    host.ok("restore tank/a@4 tank/new");
    assert_eq!(received(&host, "tank/new"), streams(&[(1, 0), (2, 1), (3, 2), (4, 3)]));
    host.s3.state().take(&key("tank/a@3", 3, Some(2)));
    let said = host.fails(1, "restore tank/a@4 tank/other");
    assert!(said.contains("the bucket has no object"), "{said}");
    assert_eq!(received(&host, "tank/other"), b"");
}

#[test]
fn a_route_that_zfs_receive_would_refuse_is_not_begun() {
    // a recreated snapshot with the same name, in the chain
    let host = Host::with_snapshots(2);
    host.ok("upload tank/a@1");
    host.ok("upload -i @1 tank/a@2");
    host.snapshot(("tank/a@1", 3), 30);
    host.add_stream(("", 3), Some(("", 2)), &made_stream(3, 2, 700));
    host.ok("upload -i @2 tank/a@1");
    let said = host.fails(3, "restore 3 tank/new");
    assert!(said.contains("would have two snapshots with the name 1"), "{said}");
    assert_eq!(received(&host, "tank/new"), b"");
}

/// The stream of a clone from its origin.
fn clone_stream(guid: u64, from: u64) -> Vec<u8> {
    let mut stream = made_stream(guid, from, 700);
    stream[36] |= 1;
    summed(&stream)
}

fn clones(first: &[(u64, u64)], then: &[(u64, u64)]) -> Vec<u8> {
    let first: Vec<u8> = first.iter().flat_map(|(guid, from)| clone_stream(*guid, *from)).collect();
    [first, streams(then)].concat()
}

/// A month of `tank/a`, and `tank/clone@5` to `@6`, cloned from `tank/a@2`.
fn month_with_clone() -> Host {
    let host = month();
    host.snapshot(("tank/clone@5", 5), 50);
    host.add_stream(("", 5), Some(("", 2)), &clone_stream(5, 2));
    host.snapshot(("tank/clone@6", 6), 60);
    host.add_stream(("", 6), Some(("", 5)), &made_stream(6, 5, 700));
    host.ok("upload -i tank/a@2 tank/clone@5");
    host.ok("upload -i @5 tank/clone@6");
    host
}

#[test]
fn a_clone_is_received_as_a_clone_of_its_origin() {
    let host = month_with_clone();
    // the origin is in the pool, under whatever name
    let said = host.ok("restore -n tank/clone@6 tank/new").stdout;
    assert!(
        said.contains(
            "  receive  tank/clone@5, incremental from tank/a@2  700 bytes  STANDARD  as a clone\n"
        ),
        "{said}"
    );
    host.ok("restore tank/clone@6 tank/new");
    assert_eq!(received(&host, "tank/new"), clones(&[(5, 2)], &[(6, 5)]));
    assert!(host.ok("restore tank/clone@6 tank/new").stderr.contains("exists already"));
    // and from there
    host.snapshot(("tank/clone@7", 7), 70);
    host.add_stream(("", 7), Some(("", 6)), &made_stream(7, 6, 700));
    host.ok("upload -i @6 tank/clone@7");
    host.ok("restore tank/clone@7 tank/new");
    assert_eq!(received(&host, "tank/new"), clones(&[(5, 2)], &[(6, 5), (7, 6)]));
}

#[test]
fn if_the_origin_is_missing_both_commands_are_shown() {
    let host = month_with_clone();
    for command in ["restore -n", "restore"] {
        let said = host.fails(3, &format!("{command} tank/clone@6 other/new"));
        assert!(
            said.contains("tank/clone@5 is stored as a clone of tank/a@2, which is not in the pool other"),
            "{said}"
        );
        assert!(
            said.contains(
                "hint: first restore that into a dataset of its own: zfs2s3 restore tank/a@2 other/a"
            ),
            "{said}"
        );
    }
    host.ok("restore tank/a@2 other/a");
    host.ok("restore tank/clone@6 other/new");
    assert_eq!(received(&host, "other/new"), clones(&[(5, 2)], &[(6, 5)]));
    // a clone of a clone
    host.snapshot(("tank/second@8", 8), 80);
    host.add_stream(("", 8), Some(("", 6)), &clone_stream(8, 6));
    host.ok("upload -i tank/clone@6 tank/second@8");
    host.ok("restore tank/second@8 other/second");
    let said = host.fails(3, "restore tank/second@8 third/second");
    assert!(said.contains("zfs2s3 restore tank/clone@6 third/clone"), "{said}");
    let said = host.fails(3, "restore tank/clone@6 third/clone");
    assert!(said.contains("zfs2s3 restore tank/a@2 third/a"), "{said}");
}

#[test]
fn a_clone_is_not_received_onto_the_dataset_of_its_origin() {
    let host = month_with_clone();
    host.ok("restore tank/a@2 other/a");
    let said = host.fails(3, "restore tank/clone@5 other/a");
    assert!(
        said.contains("tank/clone@5 is stored as a clone, which creates a new dataset, and other/a exists"),
        "{said}"
    );
    assert_eq!(received(&host, "other/a"), streams(&[(1, 0), (2, 1)]));
}

#[test]
fn a_promote_exchanges_origin_and_clone() {
    let host = month();
    // tank/a@1 and @2 belong to tank/clone now, and tank/a is a clone of tank/clone@2
    for (name, guid) in [("tank/clone@1", 1), ("tank/clone@2", 2), ("tank/clone@5", 5)] {
        host.snapshot((name, guid), guid * 10);
    }
    host.destroy("tank/a@1");
    host.destroy("tank/a@2");
    host.add_stream(("", 5), Some(("", 2)), &made_stream(5, 2, 700));
    host.snapshot(("tank/a@9", 9), 90);
    host.add_stream(("", 9), Some(("", 2)), &clone_stream(9, 2));
    host.ok("upload -i @2 tank/clone@5");
    host.ok("upload -i tank/clone@2 tank/a@9");
    host.ok("restore tank/clone@5 other/clone");
    assert_eq!(received(&host, "other/clone"), streams(&[(1, 0), (2, 1), (5, 2)]));
    host.ok("restore tank/a@9 other/a");
    assert_eq!(received(&host, "other/a"), clones(&[(9, 2)], &[]));
}

#[test]
fn later_snapshots_of_the_target_do_no_harm_if_nothing_was_written() {
    let host = month();
    host.ok("restore tank/a@2 tank/new");
    host.snapshot(("tank/new@autosnap_hourly", 99), 5000);
    host.zfs_file("written", "0");
    let said = host.ok("restore -n tank/a@3 tank/new").stdout;
    assert!(
        said.starts_with("would restore into tank/new, which has tank/new@2 and 2 other snapshots\n"),
        "{said}"
    );
    let said = host.ok("restore tank/a@3 tank/new").stderr;
    assert!(
        said.contains("tank/new has later snapshots than tank/new@2, but has not changed since: the restore continues from tank/new@2"),
        "{said}"
    );
    assert_eq!(received(&host, "tank/new"), streams(&[(1, 0), (2, 1), (3, 2)]));
    // also if the latest ones are stored, and no chain starts there
    host.ok("restore tank/a@2 tank/other");
    host.snapshot(("tank/other@1b", 11), 5500);
    host.snapshot(("tank/b@1b", 11), 1);
    host.add_stream(("", 11), None, &made_stream(11, 0, 700));
    host.ok("upload tank/b@1b");
    host.ok("restore tank/a@3 tank/other");
    assert_eq!(received(&host, "tank/other"), streams(&[(1, 0), (2, 1), (3, 2)]));
    // but if something was written
    host.snapshot(("tank/new@autosnap_daily", 98), 6000);
    host.zfs_file("written", "512");
    assert!(host.fails(3, "restore tank/a@4 tank/new").contains("tank/new has diverged"));
}

#[test]
fn properties_of_a_new_dataset() {
    let host = month();
    host.ok("restore -o encryption=off -oreadonly=on tank/a@2 tank/new");
    let set = std::fs::read_to_string(host.home().join("zfs/properties")).unwrap();
    assert_eq!(set, "encryption=off\nreadonly=on\n", "of the first receive only");
    let said = host.fails(2, "restore -o readonly=on tank/a@3 tank/new");
    assert!(said.contains("-o is for a new dataset") && said.contains("hint: 'zfs set'"), "{said}");
}

#[test]
fn embedded_data_below_an_encrypted_dataset_are_explained() {
    let host = Host::with_real_streams();
    host.snapshot(("tank/enc", 0), 0);
    for (stream, embeds) in [("full-raw-unencrypted.zfs", true), ("full.zfs", false)] {
        host.add_stream(S1, None, &real(stream));
        host.ok("upload tank/src@s1");
        for words in [
            "kernel modules must be upgraded to receive this stream.",
            "incompatible embedded data stream feature",
        ] {
            host.zfs_file("refuse_receive", words);
            let said = host.fails(1, "restore tank/src@s1 tank/enc/new");
            assert_eq!(said.contains("'-o encryption=off' receives it, unencrypted"), embeds, "{said}");
        }
        host.ok("remove tank/src@s1");
    }
}

#[test]
fn every_unreadable_object_is_named_before_anything_is_received() {
    let mut host = Host::with_snapshots(3);
    host.set("ZFS2S3_STORAGE_CLASS", "GLACIER");
    host.ok("upload tank/a@1");
    host.ok("upload -i @1 tank/a@2");
    host.set("ZFS2S3_STORAGE_CLASS", "STANDARD");
    host.ok("upload -i @2 tank/a@3");
    let third = key("tank/a@3", 3, Some(2));
    let (real_key, object) = host.s3.state().take(&third).unwrap();
    for command in ["restore -n", "restore"] {
        let said = host.fails(1, &format!("{command} tank/a@3 tank/new"));
        assert!(said.contains("error: 3 objects that are needed cannot be read now"), "{said}");
        for (name, guid, from, why) in [
            ("tank/a@1", 1, None, "GLACIER"),
            ("tank/a@2", 2, Some(1), "GLACIER"),
            ("tank/a@3", 3, Some(2), "has no object"),
        ] {
            let start = key(name, guid, from).replace(".zfs", "");
            assert!(said.lines().any(|line| line.contains(&start) && line.contains(why)), "{start}: {said}");
        }
    }
    assert_eq!(received(&host, "tank/new"), b"");
    host.s3.state().objects.insert(real_key, object);
    host.s3.state().capabilities.reads_glacier = true;
    host.ok("restore tank/a@3 tank/new");
}

#[test]
fn a_quiet_restore_prints_nothing_if_all_is_well() {
    let host = month();
    assert_eq!(host.ok("restore -q tank/a@2 tank/new").stderr, "");
    assert_eq!(host.ok("recover -qn").stderr, "");
    assert!(host.fails(1, "restore -q tank/a@9 tank/new").contains("error: "));
}
