//! Backups that the user's own filter compresses or encrypts, chunk by chunk.

use crate::restore::{PLACE, RESUMED, interrupt, sha256};
use crate::support::{Fault, Host, S1, key, real};

const CHUNK: usize = 65536;

/// Gives other bytes each time, as encryption does, and what it gives cannot be read without its inverse.
const CHANGING: (&str, &str) = (
    "head -c 8 /dev/urandom; tr '\\000-\\377' '\\200-\\377\\000-\\177'",
    "tail -c +9 | tr '\\000-\\377' '\\200-\\377\\000-\\177'",
);
const GZIP: (&str, &str) = ("gzip -1", "gzip -d");

fn with_filter(filter: (&str, &str)) -> Host {
    let mut host = Host::with_real_streams();
    host.set("ZFS2S3_FILTER", filter.0);
    host.set("ZFS2S3_UNFILTER", filter.1);
    host
}

fn stored(filter: (&str, &str)) -> Host {
    let host = with_filter(filter);
    host.ok("upload tank/src@s1");
    host.ok("upload -i @s1 tank/src@s2");
    host
}

fn download(host: &Host, line: &str) -> Vec<u8> {
    let output = host.spawn(line).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn received(host: &Host) -> Vec<u8> {
    std::fs::read(host.home().join("zfs/tank%new.received")).unwrap_or_default()
}

fn manifest(host: &Host) -> String {
    let key = key(S1.0, S1.1, None).replace(".zfs", ".yml");
    String::from_utf8(host.s3.state().bytes(&key).to_vec()).unwrap()
}

/// The filtered chunks, by the manifest's list of their sizes, as a person with `head -c` would take them.
fn chunks(host: &Host) -> Vec<Vec<u8>> {
    let bytes = host.s3.state().bytes(&key(S1.0, S1.1, None)).to_vec();
    let mut rest = &bytes[..];
    let mut chunks = Vec::new();
    for line in manifest(host).lines() {
        let Some((sum, size)) = line.trim().split_once(' ').filter(|(sum, _)| sum.len() == 64) else {
            continue;
        };
        let (chunk, others) = rest.split_at(size.parse().unwrap());
        assert_eq!(sha256(chunk), sum);
        chunks.push(chunk.to_vec());
        rest = others;
    }
    assert!(rest.is_empty());
    chunks
}

#[test]
fn a_filtered_backup_goes_and_comes_back() {
    for filter in [GZIP, CHANGING] {
        for (jobs, parts) in [("1", "1000"), ("4", "1000"), ("2", "5")] {
            let mut host = with_filter(filter);
            host.set("ZFS2S3_JOBS", jobs);
            host.set("ZFS2S3_TEST_PARTS", parts);
            let said = host.ok("upload tank/src@s1").stderr;
            assert!(said.contains(", filtered from 1.08M, "), "{said}");
            host.ok("upload -i @s1 tank/src@s2");
            host.assert_clean();
            host.ok("verify");
            host.ok("verify -s 50");
            host.ok("verify -D");
            assert_eq!(download(&host, "download tank/src@s1"), real("full.zfs"));
            host.ok("restore tank/src@s2 tank/new");
            assert_eq!(received(&host), [real("full.zfs"), real("incr.zfs")].concat());
            host.ok("remove -i @s1 tank/src@s2");
            host.ok("remove tank/src@s1");
            assert!(host.s3.state().keys().iter().all(|key| key.contains("README")));
        }
    }
}

#[test]
fn the_manifest_of_a_filtered_backup_names_no_plain_hash() {
    let host = stored(CHANGING);
    let text = manifest(&host);
    for line in
        ["version: 4\n", "  size: 1131752\n", "  stages:\n  - filter\n", "  filter: head -c 8 /dev/ura"]
    {
        assert!(text.contains(line), "{line}{text}");
    }
    let store = host.store_text();
    assert!(store.starts_with("version: 4\n"), "{store}");
    for chunk in real("full.zfs").chunks(CHUNK) {
        assert!(!text.contains(&sha256(chunk)) && !store.contains(&sha256(chunk)), "{text}");
    }
    assert!(!text.contains(&sha256(&real("full.zfs"))));
    let all = chunks(&host);
    assert_eq!(all.len(), 18);
    assert!(all.iter().all(|chunk| chunk.len() <= CHUNK + 8));
    let state = host.s3.state();
    let object = state.bytes(&key(S1.0, S1.1, None));
    assert!(object.windows(8).all(|bytes| bytes != b"tank/src"), "the name is not readable");
    drop(state);
    let raw = download(&host, "download --raw-object tank/src@s1");
    assert_eq!(raw, all.concat());
}

#[test]
fn what_list_and_a_dry_run_show_of_a_filter() {
    let host = stored(GZIP);
    let bytes = host.s3.state().bytes(&key(S1.0, S1.1, None)).len();
    assert!(host.ok("list").stdout.contains("  filtered\n"));
    assert_eq!(host.listed()[0], format!("tank/src@s1 - {bytes} STANDARD stored"));
    assert_eq!(host.ok("list -H -o filter tank/src").stdout, "gzip -1\ngzip -1\n");
    assert!(host.ok("list -j").stdout.contains("\"filter\": \"gzip -1\""));
    host.ok("remove -i @s1 tank/src@s2");
    let plan = host.ok("upload -n -i @s1 tank/src@s2").stdout;
    assert!(plan.contains("\n  filter    gzip -1\n"), "{plan}");
}

#[test]
fn without_a_filter_again_the_store_is_as_before() {
    let mut host = stored(GZIP);
    host.ok("remove -i @s1 tank/src@s2");
    host.unset("ZFS2S3_FILTER");
    host.ok("upload -i @s1 tank/src@s2");
    host.ok("restore tank/src@s2 tank/new");
    assert_eq!(received(&host), [real("full.zfs"), real("incr.zfs")].concat());
    host.ok("remove -i @s1 tank/src@s2");
    host.ok("remove tank/src@s1");
    assert!(host.store_text().starts_with("version: 2\n"));
}

/// The filter gives other bytes the second time, so nothing may be sent twice, and nothing mixed.
#[test]
fn a_resume_sends_only_the_parts_that_are_missing() {
    let mut total = 0;
    for jobs in ["1", "3"] {
        for parts in ["1000", "4"] {
            for killed in 0..9 {
                for fault in [Fault::KillBefore, Fault::KillAfter] {
                    let mut host = with_filter(CHANGING);
                    host.set("ZFS2S3_JOBS", jobs);
                    host.set("ZFS2S3_TEST_PARTS", parts);
                    host.killed("upload tank/src@s1", "UploadPart", killed, fault);
                    let journal = std::fs::read_to_string(host.data("upload_progress.yml")).unwrap();
                    let recorded = journal.matches("{\"part\":").count();
                    host.s3.state().log.clear();
                    host.unset("ZFS2S3_FILTER");
                    let said = host.ok("resume_upload").stderr;
                    assert!(said.contains("the filter stays the one with which the upload began"), "{said}");
                    // 18 chunks of 64 KiB, each as large as before; two are a part, but not over the end of a
                    // segment
                    let sent = host.s3.state().count("UploadPart");
                    // of several connections, others may have been sending when it was killed
                    let late = if jobs == "1" { 0 } else { 2 };
                    assert!((9..=9 + late).contains(&(sent + recorded)), "{sent}: {journal}");
                    host.assert_clean();
                    assert_eq!(download(&host, "download tank/src@s1"), real("full.zfs"));
                    host.ok("verify -D");
                    total += 1;
                }
            }
        }
    }
    assert_eq!(total, 72);
}

#[test]
fn a_resume_compares_the_plain_chunks() {
    let host = with_filter(CHANGING);
    host.killed("upload tank/src@s1", "UploadPart", 6, Fault::KillBefore);
    let mut other = real("full.zfs");
    // in the data of a record, in the third chunk
    other[166_736 + 312 + 50] ^= 1;
    host.add_stream(S1, None, &crate::support::summed(&other));
    let said = host.fails(3, "resume_upload");
    assert!(
        said.contains("does not give the same stream as before: it differs in the chunk at byte "),
        "{said}"
    );
    host.ok("abort_upload");
    assert!(host.s3.state().uploads.is_empty());
}

#[test]
fn a_filter_that_fails_stores_nothing() {
    // after the trial and some chunks
    let late = "head -c 1 >>COUNT; test $(wc -c <COUNT) -lt 6 || { echo the token is gone >&2; exit 7; }; printf x; cat";
    for (filter, status, words) in [
        ("cat; echo no recipient >&2; exit 3", 1, "failed (exit status: 3): no recipient"),
        (late, 1, "failed (exit status: 7): the token is gone"),
        ("sh -c 'kill -9 $$' | cat", 75, "was killed"),
        ("sh -c 'head -c 1000; kill -9 $$'", 75, "was killed"),
        ("no-such-program", 1, "not found"),
        ("tee /dev/stderr 2>&1", 1, "makes a chunk of"),
        ("yes", 1, "makes a chunk of"),
        ("cat; sleep 60", 75, "has done nothing for 0 s, and was killed"),
        ("sleep 60", 75, "has done nothing for 0 s, and was killed"),
        ("cat >/dev/null", 1, "gives nothing"),
        ("echo hi", 1, "does not read all of its input"),
        ("cat >/dev/null; date", 1, "loses data: it turns "),
    ] {
        let mut host = with_filter((filter, "cat"));
        host.unset("ZFS2S3_UNFILTER");
        let count = host.home().join("count").display().to_string();
        host.set("ZFS2S3_FILTER", &filter.replace("COUNT", &count));
        host.set("ZFS2S3_TEST_FILTER_MS", "500");
        let said = host.fails(status, "upload tank/src@s1");
        assert!(said.contains("error: ZFS2S3_FILTER '") && said.contains(words), "{filter}: {said}");
        if filter == late {
            host.ok("abort_upload");
        }
        assert!(host.s3.state().uploads.is_empty(), "{filter}");
        assert!(host.s3.state().keys().is_empty(), "{filter}: {:?}", host.s3.state().keys());
        host.assert_clean();
    }
    // what could not be undone here
    for (unfilter, words) in [("cat", "gives more than"), ("gzip -d | tr a b", "gives something other than")]
    {
        let host = with_filter(("gzip -1", unfilter));
        let said = host.fails(1, "upload tank/src@s1");
        assert!(said.contains("error: ZFS2S3_UNFILTER '") && said.contains(words), "{said}");
        host.assert_clean();
    }
    let mut host = with_filter(("a\nb", "cat"));
    assert!(host.fails(2, "upload tank/src@s1").contains("must be one line"));
    host.set("ZFS2S3_FILTER", " ");
    host.ok("upload tank/src@s1");
    assert!(host.store_text().starts_with("version: 2\n"), "none");
}

#[test]
fn without_the_right_key_nothing_is_received() {
    let mut host = stored(CHANGING);
    for (unfilter, status, words) in [
        ("", 2, "'tank/src@s1' was filtered by 'head -c 8 /dev/urandom; "),
        (
            "cat >/dev/null; echo no identity matched >&2; exit 1",
            1,
            "failed (exit status: 1): no identity matched",
        ),
        ("cat", 1, "gives more than the 65536 bytes that were filtered"),
        ("gzip -d", 1, "failed (exit status: 1): "),
        ("tail -c +9", 1, "ZFS2S3_UNFILTER does not give the stream of 'tank/src@s1': "),
        ("head -c 100; cat >/dev/null", 1, "gives 100 bytes, not the 65536 that were filtered"),
        ("sleep 60", 75, "has done nothing"),
    ] {
        host.set("ZFS2S3_UNFILTER", unfilter);
        host.set("ZFS2S3_TEST_FILTER_MS", "500");
        let said = host.fails(status, "restore tank/src@s2 tank/new");
        assert!(said.contains(words), "{unfilter}: {said}");
        if status == 1 {
            assert!(said.contains("hint: what was read is what was stored, so the command of"), "{said}");
            assert!(said.contains("hint: it was filtered by 'head -c 8"), "{said}");
        }
        assert!(!host.zfs_log().contains("\nreceive "), "{unfilter}");
        let output = host.spawn("download tank/src@s1").wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(status), 0), "{unfilter}");
        // it is no damage
        let said = host.run("verify -D tank/src@s1");
        assert_eq!(said.status, if status == 2 { 0 } else { status }, "{unfilter}: {}", said.stderr);
    }
}

#[test]
fn without_a_key_all_but_the_stream_can_be_proven() {
    let mut host = stored(CHANGING);
    host.unset("ZFS2S3_FILTER");
    host.unset("ZFS2S3_UNFILTER");
    std::fs::remove_file(host.data("stored_snapshots.yml")).unwrap();
    host.ok("recover");
    assert!(host.ok("list").stdout.contains("filtered"));
    host.ok("verify");
    host.ok("verify -s 100");
    let said = host.ok("verify -D").stderr;
    assert!(said.ends_with("verified 2 backups (sample)\n"), "its stream remains to be read: {said}");
    assert!(
        said.contains(
            "ZFS2S3_UNFILTER is not set, so filtered backups are compared with what the filter gave"
        ),
        "{said}"
    );
    let name = host.real_key(&key(S1.0, S1.1, None));
    host.s3.state().objects.get_mut(&name).unwrap().bytes[200_000] ^= 1;
    assert!(host.fails(5, "verify -D tank/src@s1").contains("is damaged in bytes"));
    // and before any unfilter sees it
    host.set("ZFS2S3_UNFILTER", "cat; echo x");
    assert!(host.fails(1, "download -i @s1 tank/src@s2").contains("gives more than"));
}

/// Runs `otherwise` instead of the unfilter for this chunk.
fn unfilter_all_but(host: &mut Host, chunk: usize, otherwise: &str) {
    let file = host.home().join("chunk").display().to_string();
    let size = chunks(host)[chunk].len();
    host.set(
        "ZFS2S3_UNFILTER",
        &format!(
            "cat >{file}.$$; if test $(wc -c <{file}.$$) = {size}; then {otherwise}; fi; gzip -d <{file}.$$"
        ),
    );
}

/// The stored bytes are those that the filter gave, but that gave something that cannot be undone.
#[test]
fn what_cannot_be_undone_in_the_middle_is_damage() {
    let mut host = stored(GZIP);
    unfilter_all_but(&mut host, 1, "exit 1");
    let said = host.fails(5, "verify -D tank/src@s1");
    assert!(said.contains("chunk 1 of 'tank/src@s1'"), "{said}");
    assert!(said.contains("can no longer be restored"), "{said}");
    let said = host.fails(1, "restore tank/src@s1 tank/new");
    assert!(said.contains("or its key was changed during the upload"), "{said}");
    // and the same where an interrupted receive would continue
    unfilter_all_but(&mut host, 4, "exit 1");
    host.snapshot(("tank/new", 0), 0);
    interrupt(&host, S1, 0, PLACE, "");
    let said = host.fails(1, "restore tank/src@s1 tank/new");
    assert!(said.contains("or its key was changed during the upload"), "{said}");
}

#[test]
fn what_an_unfilter_can_undo_when_it_runs_alone_is_no_damage() {
    let mut host = stored(GZIP);
    let tries = host.home().join("tries").display().to_string();
    unfilter_all_but(&mut host, 1, &format!("echo >>{tries}; test $(wc -l <{tries}) -gt 2 || exit 1"));
    let said = host.fails(75, "verify -D tank/src@s1");
    assert!(said.contains("now, alone, the same chunk could be undone"), "{said}");
    host.ok("verify -D tank/src@s1");
}

/// Whoever can write the bucket must not write on the screen, or in the list of a script.
#[test]
fn the_name_of_a_hostile_filter_is_refused() {
    for filter in [r#""x\ttank/a@9""#, r#""x\e[2J""#, &"x".repeat(1001)] {
        let host = stored(GZIP);
        let key = host.real_key(&key(S1.0, S1.1, None).replace(".zfs", ".yml"));
        let text = manifest(&host).replace("filter: gzip -1", &format!("filter: {filter}"));
        host.s3.state().objects.get_mut(&key).unwrap().bytes = text.into_bytes();
        std::fs::remove_file(host.data("stored_snapshots.yml")).unwrap();
        let said = host.run("recover").stderr;
        assert!(said.contains("a filter must be one line"), "{said}");
        assert!(!host.ok("list -H -o snapshot,filter").stdout.contains("s1"));
    }
}

#[test]
fn plain_text_after_filtered_backups_is_worth_a_warning() {
    let mut host = with_filter(GZIP);
    host.ok("upload tank/src@s1");
    host.unset("ZFS2S3_FILTER");
    let said = host.ok("upload -i @s1 tank/src@s2").stderr;
    assert!(said.contains("warning: the base was filtered, and this backup is not"), "{said}");
    host.set("ZFS2S3_FILTER", GZIP.0);
    host.ok("remove -i @s1 tank/src@s2");
    host.zfs_file("encryption", "-\n");
    assert!(
        host.fails(1, "upload -i @s1 tank/src@s2").contains("it is not known whether tank/src is encrypted")
    );
    host.zfs_file("encryption", "off\n");
    host.set("ZFS2S3_MEMORY", "20M");
    host.set("ZFS2S3_CHUNK_SIZE", "1M");
    assert!(host.fails(2, "upload -i @s1 tank/src@s2").contains("with a filter, 20.0M is too little"));
}

#[test]
fn a_damaged_chunk_never_reaches_the_unfilter() {
    let mut host = stored(CHANGING);
    let log = host.home().join("unfilter.log");
    host.set("ZFS2S3_UNFILTER", &format!("echo >>{}; {}", log.display(), CHANGING.1));
    let name = host.real_key(&key(S1.0, S1.1, None));
    host.s3.state().objects.get_mut(&name).unwrap().bytes[0] ^= 1;
    host.set("ZFS2S3_JOBS", "1");
    let said = host.fails(1, "restore tank/src@s1 tank/new");
    assert!(said.contains("is damaged in bytes 0 to 65543"), "{said}");
    assert!(!host.zfs_log().contains("\nreceive "));
    let seen = std::fs::read_to_string(log).unwrap_or_default();
    assert!(seen.len() <= 1, "at most the chunk after it was read already");
}

#[test]
fn a_receive_that_was_interrupted_inside_a_filtered_stream_is_resumed() {
    for jobs in ["1", "5"] {
        let mut host = stored(CHANGING);
        host.set("ZFS2S3_JOBS", jobs);
        host.snapshot(("tank/new", 0), 0);
        interrupt(&host, S1, 0, PLACE, "");
        host.s3.state().log.clear();
        host.ok("restore tank/src@s2 tank/new");
        let got = received(&host);
        assert_eq!(sha256(&got[..966_224]), RESUMED);
        assert_eq!(got[966_224..], real("incr.zfs"));
    }
}

#[test]
fn an_encrypted_dataset_is_not_filtered() {
    let host = with_filter(GZIP);
    host.zfs_file("encryption", "aes-256-gcm\n");
    host.add_stream(S1, None, &real("full-raw-unencrypted.zfs"));
    let said = host.ok("upload tank/src@s1").stderr;
    assert!(said.contains("tank/src is encrypted by ZFS, so it is sent raw, and not filtered"), "{said}");
    assert_eq!(host.s3.state().bytes(&key(S1.0, S1.1, None)), real("full-raw-unencrypted.zfs"));
    assert!(host.store_text().starts_with("version: 2\n"));
}

#[test]
fn doctor_tries_the_filter_and_parts_of_different_sizes() {
    let mut host = with_filter(CHANGING);
    let said = host.ok("doctor").stdout;
    assert!(said.contains("ok       ZFS2S3_FILTER: it works\n"), "{said}");
    assert!(said.contains("ok       ZFS2S3_UNFILTER: it undoes the filter\n"), "{said}");
    assert!(said.contains("ok       parts of different sizes: accepted\n"), "{said}");
    host.s3.state().capabilities.equal_parts = true;
    let said = host.run("doctor").stdout;
    assert!(
        said.contains(
            "warning  parts of different sizes: refused, so compressed backups of several parts fail"
        ),
        "{said}"
    );
    assert!(host.s3.state().keys().is_empty() && host.s3.state().uploads.is_empty());
    // so does an upload, and it says that
    host.set("ZFS2S3_FILTER", GZIP.0);
    host.set("ZFS2S3_UNFILTER", GZIP.1);
    let said = host.fails(1, "upload tank/src@s1");
    assert!(said.contains("must have the same length") && said.contains("hint: "), "{said}");
    host.ok("abort_upload");
    host.set("ZFS2S3_FILTER", CHANGING.0);
    host.set("ZFS2S3_UNFILTER", CHANGING.1);
    host.ok("upload tank/src@s1");
    host.s3.state().capabilities.equal_parts = false;
    for (unfilter, words) in [
        ("", "ok       ZFS2S3_UNFILTER: not set, so"),
        ("tail -c +9", "error    ZFS2S3_UNFILTER: ZFS2S3_UNFILTER 'tail -c +9' gives something other than"),
        ("cat", "error    ZFS2S3_UNFILTER: ZFS2S3_UNFILTER 'cat' gives more than"),
    ] {
        host.set("ZFS2S3_UNFILTER", unfilter);
        let said = host.run("doctor").stdout;
        assert!(said.contains(words), "{said}");
    }
    host.set("ZFS2S3_FILTER", "cat >/dev/null");
    let said = host.run("doctor").stdout;
    assert!(said.contains("error    ZFS2S3_FILTER: ZFS2S3_FILTER 'cat >/dev/null' gives nothing"), "{said}");
}
