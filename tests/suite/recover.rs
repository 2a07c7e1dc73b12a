//! `recover`: rebuilds the store from nothing but the bucket, whose objects are not trusted.

use std::process::Command;

use crate::support::{BUCKET, Fault, Host, PUT_DATA, S1, S2, key, made_stream, real};

fn chain() -> Host {
    let host = Host::with_snapshots(4);
    host.ok("upload tank/a@1");
    for n in 2..=4 {
        host.ok(&format!("upload -i @{} tank/a@{n}", n - 1));
    }
    host.ok("upload -i @1 tank/a@4");
    host
}

fn lose_the_store(host: &Host) -> String {
    let lost = host.store_text();
    std::fs::remove_dir_all(host.data("")).unwrap();
    lost
}

fn manifest(n: u64, from: Option<u64>) -> String {
    key(&format!("tank/a@{n}"), n, from).replace(".zfs", ".yml")
}

#[test]
fn a_lost_store_is_rebuilt_without_a_difference() {
    let host = chain();
    host.ok("remove -i @1 tank/a@4");
    let lost = lose_the_store(&host);
    let said = host.ok("recover -n");
    assert!(said.stderr.contains("zfs2s3: would add 4 backups"), "{}", said.stderr);
    assert_eq!(said.stdout.lines().next(), Some("tank/a@1"));
    assert_eq!(host.store_text(), "");
    host.ok("recover");
    assert_eq!(host.store_text(), lost);
    assert!(host.ok("recover").stderr.contains("nothing to add: 4 in the store and in the bucket"));
    host.fails(3, "remove tank/a@1");
    host.ok("restore tank/a@4 tank/new");
}

#[test]
fn twenty_five_hundred_backups_under_a_prefix() {
    let mut host = Host::new();
    host.set("ZFS2S3_PREFIX", "nas 1/");
    host.set("ZFS2S3_JOBS", "8");
    host.snapshot(("tank/a@1", 1), 1);
    host.add_stream(("", 1), None, &made_stream(1, 0, 700));
    host.ok("upload tank/a@1");
    // the others as a chain on it, in the format of the first
    let first = host.real_key(&format!("nas 1/{}", key("tank/a@1", 1, None)));
    let end = first.rsplit('-').next().unwrap().to_string();
    let (data, form) = {
        let state = host.s3.state();
        let text = String::from_utf8(state.bytes(&first.replace(".zfs", ".yml")).to_vec()).unwrap();
        (state.bytes(&first).to_vec(), text)
    };
    let mut entries =
        vec![host.store_text().lines().find(|line| line.starts_with("- ")).unwrap().to_string()];
    for n in 2..=2500u64 {
        let (name, before) = (format!("tank/a@{n}"), n - 1);
        let own = format!(
            "nas 1/{}",
            key(&name, n, Some(before)).replace("zfs", &end).replace('.', "-").replace("-zfs", ".zfs")
        );
        let text =
            form.replace(&first, &own).replace("name: tank/a@1\n", &format!("name: {name}\n")).replace(
                "  guid: '1'\n",
                &format!("  guid: '{n}'\nbase:\n  name: tank/a@{before}\n  guid: '{before}'\n"),
            );
        let points = format!(
            "\"snapshot\":{{\"name\":\"{name}\",\"guid\":\"{n}\"}},\"base\":{{\"name\":\"tank/a@{before}\",\"guid\":\"{before}\"}}"
        );
        let entry = entries[0].replace(&first, &own);
        entries.push(entry.replace("\"snapshot\":{\"name\":\"tank/a@1\",\"guid\":\"1\"}", &points));
        let mut state = host.s3.state();
        state.put(&own, &data);
        state.put(&own.replace(".zfs", ".yml"), text.as_bytes());
    }
    lose_the_store(&host);
    let before = host.s3.state().count("GetObject");
    host.ok("recover");
    let store = host.store_text();
    let recovered: Vec<&str> = store.lines().filter(|line| line.starts_with("- ")).collect();
    assert_eq!(recovered, entries);
    assert_eq!(host.listed().len(), 2500);
    assert_eq!(host.s3.state().count("GetObject"), before + 2500);
    assert!(host.s3.state().count("ListObjectsV2") >= 6, "5,001 objects are more than a page");
}

#[test]
fn an_existing_store_is_compared_and_merged_only_on_request() {
    let (host, lost) = with_another_store();
    let before = host.store_text();
    let said = host.fails(1, "recover");
    assert!(said.contains("the bucket has 5 backups missing from the store"), "{said}");
    assert!(said.contains("'zfs2s3 recover -m' adds them to the store"), "{said}");
    assert!(said.contains("'-i tank/a@1 tank/a@4' is in the bucket, but not in the store"), "{said}");
    assert!(host.ok("recover -n").stderr.contains("with -m would add 5 backups to the store"));
    assert_eq!(host.store_text(), before);
    host.ok("recover -m");
    assert_eq!(host.listed().len(), 6);
    for line in lost.lines().filter(|line| line.starts_with("- ")) {
        assert!(host.store_text().lines().any(|there| there == line), "{line}");
    }
}

/// A store that has only `tank/b@9`, and the text of the lost one with the chain.
fn with_another_store() -> (Host, String) {
    let host = chain();
    let lost = lose_the_store(&host);
    host.snapshot(("tank/b@9", 9), 5);
    host.add_stream(("", 9), None, &made_stream(9, 0, 700));
    host.ok("upload tank/b@9");
    (host, lost)
}

#[test]
fn a_backup_that_depends_on_a_lost_one_is_not_added() {
    let (host, _) = with_another_store();
    host.ok("recover -m");
    let with_all = host.store_text();
    host.s3.state().take(&manifest(3, Some(2))).unwrap();
    host.ok("remove -i @1 tank/a@4");
    let line =
        with_all.lines().find(|line| line.contains("\"tank/a@4\"") && line.contains("\"tank/a@3\"")).unwrap();
    let without = host.store_text().replace(&format!("{line}\n"), "").replace("count: 5", "count: 4");
    host.write_data("stored_snapshots.yml", &without);
    let said = host.fails(1, "recover -m");
    assert!(
        said.contains("'-i tank/a@3 tank/a@4' is in the bucket, but its base cannot be restored"),
        "{said}"
    );
    assert_eq!(host.store_text(), without);
}

#[test]
fn what_differs_is_taken_from_the_bucket_and_what_is_lost_stays_in_the_store() {
    let (host, _) = with_another_store();
    host.ok("recover -m");
    host.s3.state().take(&manifest(3, Some(2))).unwrap();
    let text = host.store_text();
    let good = text.lines().find(|line| line.contains("\"tank/b@9\"")).unwrap();
    let changed = text.replace(good, &good.replace("\"size\":700", "\"size\":701"));
    host.write_data("stored_snapshots.yml", &changed);
    let said = host.fails(1, "recover");
    assert!(said.contains("'-i tank/a@2 tank/a@3' is in the store, but not in the bucket"), "{said}");
    assert!(said.contains("'tank/b@9' differs between the store and the bucket"), "{said}");
    assert!(
        said.contains("has no manifest, but may be whole: ")
            && said.contains("; the backup is in the store: keep the object"),
        "{said}"
    );
    assert_eq!(host.store_text(), changed);
    host.fails(1, "recover -m");
    assert_eq!(host.store_text(), text);
}

/// With keys of version 1: another host, with the same store, has removed a backup and stored it again.
#[test]
fn a_backup_that_another_host_stored_again_must_be_recovered_before_it_is_removed() {
    let host = chain();
    host.make_older();
    let before = host.store_text();
    let own = manifest(4, Some(1));
    let text = String::from_utf8(host.s3.state().bytes(&own).to_vec()).unwrap();
    let stored = text.lines().find(|line| line.trim_start().starts_with("stored: ")).unwrap();
    let again = text.replace(stored, "  stored: 2099-01-01T00:00:00Z");
    host.s3.state().put(&own, again.as_bytes());
    let said = host.fails(3, "remove -i @1 tank/a@4");
    assert!(said.contains("another host has stored it again, at 2099-01-01T00:00:00Z"), "{said}");
    assert!(said.contains("hint: 'zfs2s3 recover -m' adds that one to the store"), "{said}");
    host.fails(3, "remove -n -i @1 tank/a@4");
    let said = host.fails(1, "recover");
    assert!(said.contains("'-i tank/a@1 tank/a@4' differs between the store and the bucket"), "{said}");
    assert_eq!(host.store_text(), before);
    host.ok("recover -m");
    assert!(host.ok("list -H").stdout.contains("2099-01-01T00:00:00Z"));
    host.ok("remove -i @1 tank/a@4");
    host.assert_clean();
}

#[test]
fn recover_does_not_replace_the_store_of_an_upload_to_another_bucket() {
    let mut host = Host::with_snapshots(2);
    host.set("ZFS2S3_PREFIX", "b/");
    host.ok("upload tank/a@2");
    lose_the_store(&host);
    host.set("ZFS2S3_PREFIX", "a/");
    host.killed("upload tank/a@1", PUT_DATA, 0, Fault::KillBefore);
    host.set("ZFS2S3_PREFIX", "b/");
    for line in ["recover", "recover -n"] {
        let said = host.fails(1, line);
        assert!(said.contains("the pending upload is for bucket 'test-bucket', prefix 'a/'"), "{said}");
    }
    assert!(!host.data("stored_snapshots.yml").exists());
    host.set("ZFS2S3_PREFIX", "a/");
    host.ok("resume_upload");
    assert_eq!(host.listed().len(), 1);
}

#[test]
fn backups_of_the_python_tool_are_checked_too() {
    let host = Host::of_python_tool();
    host.ok("recover");
    host.s3.state().objects.remove("tank/src@s1");
    let said = host.fails(1, "recover");
    assert!(said.contains("'tank/src@s1' is in the store, but not in the bucket"), "{said}");
}

#[test]
fn without_the_permission_to_list_parts_it_recovers_the_rest() {
    let host = chain();
    host.s3.fault("CompleteMultipartUpload", 0, 1, Fault::KillBefore);
    host.snapshot(S1, 900);
    host.add_stream(S1, None, &made_stream(S1.1, 0, 70_000));
    host.run("upload tank/src@s1").expect(-9);
    host.s3.no_more_faults();
    lose_the_store(&host);
    host.s3.fault("ListParts", 0, 1000, Fault::Status(403, "AccessDenied"));
    let said = host.ok("recover").stderr;
    assert!(said.contains("an upload of 'tank/src@s1/be3b45c974703092-full-"), "{said}");
    assert_eq!(host.listed().len(), 5);
}

#[test]
fn damaged_and_hostile_manifests_are_reported_and_ignored() {
    let host = chain();
    let bypass = host.real_key(&manifest(4, Some(1)));
    let good = String::from_utf8(host.s3.state().bytes(&bypass).to_vec()).unwrap();
    lose_the_store(&host);
    let own = bypass.replace(".yml", ".zfs");
    let composite = good.split("composite_sha256: ").nth(1).unwrap().split('\n').next().unwrap();
    for (bad, why) in [
        ("\0\0".to_string(), ""),
        (String::new(), "missing field"),
        (good.replace("version: 3", "version: 5"), "version 5"),
        (good.replace("stages: []", "stages: [x]"), "stage 'x'"),
        (good.replace("guid: '4'", "guid: '5'"), "another backup than its key"),
        (good.replace("name: tank/a@4", "name: tank/b@4"), "another backup than its key"),
        (
            good.replace(&format!("key: {own}"), "key: tank/a@1/0000000000000001-full.zfs"),
            "has the key of another object",
        ),
        (good.replace("size: 700", "size: 18446744073709551615"), "the wrong number of chunks"),
        (good.replace("size: 700", "size: 701"), "has 700 bytes, not 701"),
        (good.replace("chunk_size: 65536", "chunk_size: 0"), "its chunks have 0 bytes"),
        (good.replace("chunk_size: 65536", "chunk_size: 10"), "the wrong number of chunks"),
        (good.replace(composite, &"0".repeat(64)), "its list of chunks does not match"),
        (good.clone() + "later: 1\n", "later"),
        (good.clone() + &"#\n".repeat(1 << 19), "more structure than a manifest needs"),
        (good.replace("name: tank/a@1\n", "name: ../x@a\n"), "its base '../x@a'"),
        (good.replace("storage_class: STANDARD", "storage_class: \"A\\tB\""), "storage class"),
        (good.replace("stored: 2", "stored: 9999-12-31T23:59:59-01:00 #"), "is not a time"),
    ] {
        assert_ne!(bad, good, "{why}");
        host.s3.state().put(&bypass, bad.as_bytes());
        let said = host.fails(1, "recover");
        assert!(said.contains(&format!("the manifest '{bypass}' is ignored: ")), "{said}");
        assert!(said.contains("added 4 backups to the store\nzfs2s3: error: some backups"), "{said}");
        assert!(said.contains(why), "{why}: {said}");
        assert_eq!(host.listed().len(), 4);
        std::fs::remove_file(host.data("stored_snapshots.yml")).unwrap();
    }
    host.s3.state().put(&bypass, good.as_bytes());
    host.s3.state().take(&own);
    assert!(host.fails(1, "recover").contains("is ignored: the bucket has none of its data\n"));
}

#[test]
fn a_backup_without_its_base_is_reported_and_not_added() {
    let host = chain();
    lose_the_store(&host);
    host.s3.state().take(&manifest(2, Some(1)));
    let said = host.fails(1, "recover");
    assert!(
        said.contains("'-i tank/a@2 tank/a@3' is in the bucket, but its base cannot be restored"),
        "{said}"
    );
    // the objects on which others depend must not be deleted, and may be whole
    let own = host.real_key(&key("tank/a@2", 2, Some(1)));
    assert!(
        said.contains(&format!("the object '{own}' (700B, 2026-01-01T00:00:00.000Z) has no manifest")),
        "{said}"
    );
    assert!(said.contains(&format!("aws s3 cp s3://{BUCKET}/{own} - | zfs receive")), "{said}");
    assert!(said.contains("; other backups depend on it: keep it") && !said.contains("aws s3 rm"), "{said}");
    let listed = host.listed();
    let names: Vec<&str> = listed.iter().map(|line| line.split(" 700").next().unwrap()).collect();
    assert_eq!(names, ["tank/a@1 -", "tank/a@4 tank/a@1"]);
}

#[test]
fn backups_under_another_prefix_are_reported_with_it() {
    let mut host = Host::with_snapshots(2);
    host.set("ZFS2S3_PREFIX", "nas 1/");
    host.ok("upload tank/a@1");
    host.ok("upload -i @1 tank/a@2");
    let lost = lose_the_store(&host);
    host.set("ZFS2S3_PREFIX", "");
    let said = host.fails(1, "recover");
    assert!(
        said.starts_with("zfs2s3: 2 backups under the prefix 'nas 1/' of another store: ZFS2S3_PREFIX='nas 1/' recovers them\n"),
        "{said}"
    );
    for prefix in ["", "nas 1", "other/"] {
        host.set("ZFS2S3_PREFIX", prefix);
        let said = host.fails(1, "recover");
        let place = if prefix.is_empty() { String::new() } else { format!(" under the prefix '{prefix}'") };
        assert!(
            said.contains(&format!("the bucket '{BUCKET}' has no backup that can be restored{place}\n")),
            "{said}"
        );
        assert!(said.contains("hint: ZFS2S3_PREFIX must be everything before DATASET@SNAPSHOT"), "{said}");
        assert!(!host.data("stored_snapshots.yml").exists());
    }
    host.set("ZFS2S3_PREFIX", "nas 1/");
    host.ok("recover");
    assert_eq!(host.store_text(), lost);
}

#[test]
fn leftovers_and_objects_of_the_python_tool_are_reported() {
    let host = chain();
    // data alone, on which nothing depends
    let alone = key("tank/z@9", 9, None);
    host.s3.state().put(&alone, b"x");
    let said = host.ok("recover").stderr;
    assert!(
        said.contains(&format!("to delete it, if no host is storing it: aws s3 rm s3://{BUCKET}/{alone}")),
        "{said}"
    );
    host.s3.state().take(&alone);
    host.s3.fault("CompleteMultipartUpload", 0, 1, Fault::KillBefore);
    host.snapshot(S1, 900);
    host.add_stream(S1, None, &made_stream(S1.1, 0, 70_000));
    host.run("upload tank/src@s1").expect(-9);
    host.s3.no_more_faults();
    let said = host.ok("recover").stderr;
    assert!(
        said.starts_with("zfs2s3: the upload of tank/src@s1, full is pending, and is left unchanged\n"),
        "{said}"
    );
    assert!(!said.contains("is unfinished"), "{said}");
    lose_the_store(&host);
    host.s3.state().put("tank/old@b <- tank/old@a", b"x");
    let before = host.s3.state().objects.len();
    let said = host.ok("recover").stderr;
    let unfinished = "an upload of 'tank/src@s1/be3b45c974703092-full-";
    assert!(
        said.contains(unfinished) && said.contains("(68.4K, 2026-01-01T00:00:00.000Z) is unfinished"),
        "{said}"
    );
    assert!(said.contains("aws s3api abort-multipart-upload --bucket"), "{said}");
    assert!(
        said.contains("'tank/old@b <- tank/old@a' (1B) was stored by the older, Python zfs2s3"),
        "{said}"
    );
    let state = host.s3.state();
    assert_eq!((state.objects.len(), state.uploads.len()), (before, 1), "nothing is deleted");
}

#[test]
fn a_server_that_fails_is_not_an_empty_bucket() {
    let mut host = chain();
    lose_the_store(&host);
    host.set("ZFS2S3_TEST_PATIENCE_MS", "600");
    for call in ["ListObjectsV2", "GetObject"] {
        host.s3.fault(call, 0, 1000, Fault::Status(500, "InternalError"));
        host.fails(75, "recover");
        host.s3.no_more_faults();
        assert_eq!(host.store_text(), "");
    }
    host.set("ZFS2S3_TEST_PATIENCE_MS", "30000");
    // one after the other: nothing depends on the last backup
    host.set("ZFS2S3_JOBS", "1");
    host.s3.fault("GetObject", 4, 1, Fault::Status(403, "AccessDenied"));
    let said = host.fails(1, "recover -n");
    assert!(said.contains("would add 4 backups") && said.contains("403 AccessDenied"), "{said}");
    host.s3.no_more_faults();
    host.s3.fault("GetObject", 2, 1, Fault::TruncateReply);
    host.s3.fault("GetObject", 3, 1, Fault::Drop);
    host.ok("recover");
    assert_eq!(host.listed().len(), 5);
}

#[test]
fn the_readme_is_written_with_the_first_backup_and_never_again() {
    let mut host = Host::with_snapshots(3);
    host.set("ZFS2S3_PREFIX", "nas/");
    host.ok("upload tank/a@1");
    let text = String::from_utf8(host.s3.state().bytes("nas/README.zfs2s3.txt").to_vec()).unwrap();
    let line = format!(
        "aws s3 cp 's3://{BUCKET}/nas/DATASET@SNAPSHOT/GUID-full-ID.zfs' - | zfs receive -u NEWDATASET"
    );
    assert!(text.contains(&line), "{text}");
    host.s3.state().put("nas/README.zfs2s3.txt", b"my own words");
    host.ok("upload tank/a@2");
    lose_the_store(&host);
    host.ok("upload tank/a@3");
    assert_eq!(host.s3.state().bytes("nas/README.zfs2s3.txt"), b"my own words");
    let host = Host::with_snapshots(1);
    host.s3.fault("PutObject", 1, 1, Fault::Status(403, "AccessDenied"));
    assert!(host.ok("upload tank/a@1").stderr.contains("warning: no README in the bucket"));
}

/// Runs in a shell in which `aws s3 cp s3://BUCKET/KEY -` writes the object, and `zfs receive` keeps its
/// input.
#[test]
fn the_command_lines_of_the_readme_restore_the_streams() {
    let mut host = Host::with_real_streams();
    host.set("ZFS2S3_PREFIX", "my nas's/");
    // two segments of the first, one of the second
    host.set("ZFS2S3_TEST_PARTS", "10");
    host.ok("upload tank/src@s1");
    host.ok("upload -i @s1 tank/src@s2");
    let bucket = host.home().join("bucket");
    for (key, object) in &host.s3.state().objects {
        let path = bucket.join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &object.bytes).unwrap();
    }
    let text = std::fs::read_to_string(bucket.join("my nas's/README.zfs2s3.txt")).unwrap();
    let id_of = |key: String| host.real_key(&key)[key.len() + 9 - 12..key.len() + 9 - 4].to_string();
    let line = |with: &str, name: &str, guid: u64, id: &str| {
        let line = text.lines().find(|line| line.contains("| zfs receive") && line.contains(with)).unwrap();
        line.replace("DATASET@SNAPSHOT", name)
            .replace("GUID", &format!("{guid:016x}"))
            .replace("BASE", &format!("{:016x}", S1.1))
            .replace("ID", id)
            .replace("NEWDATASET", "tank/new")
    };
    let script = format!(
        "set -eu\naws() {{ [ \"$1 $2 $4\" = 's3 cp -' ]; cat \"${{3#s3://{BUCKET}/}}\"; }}\n\
         zfs() {{ [ \"$*\" = 'receive -u tank/new' ]; cat >> ../received; }}\n{}\n{}\n",
        line(".zfs.2", S1.0, S1.1, &id_of(format!("my nas's/{}", key(S1.0, S1.1, None)))),
        line("-from-", S2.0, S2.1, &id_of(format!("my nas's/{}", key(S2.0, S2.1, Some(S1.1)))))
    );
    let ran = Command::new("sh").args(["-c", &script]).current_dir(&bucket).output().unwrap();
    assert!(ran.status.success(), "{script}\n{}", String::from_utf8_lossy(&ran.stderr));
    let received = std::fs::read(host.home().join("received")).unwrap();
    assert!(received == [real("full.zfs"), real("incr.zfs")].concat(), "{script}");
}

#[test]
fn one_backup_with_two_names_is_added_once() {
    let host = Host::with_snapshots(1);
    host.ok("upload tank/a@1");
    let lost = lose_the_store(&host);
    // as stored by another host, on which the snapshot has another name
    {
        let mut state = host.s3.state();
        let text = String::from_utf8(state.bytes(&manifest(1, None)).to_vec()).unwrap();
        let data = state.bytes(&key("tank/a@1", 1, None)).to_vec();
        let own = state.real_key(&key("tank/a@1", 1, None)).replace("tank/a@1", "tank/b@1");
        state.put(&own, &data);
        let other = text.replace("tank/a@1", "tank/b@1");
        state.put(&own.replace(".zfs", ".yml"), other.as_bytes());
    }
    let said = host.ok("recover").stderr;
    assert!(said.contains("the bucket has another copy of 'tank/b@1' (700B)"), "{said}");
    assert_eq!(host.store_text(), lost);
    // the one in the store counts, even if it is listed later
    let renamed = lost.replace("tank/a@1", "tank/b@1");
    host.write_data("stored_snapshots.yml", &renamed);
    let said = host.ok("recover -m").stderr;
    assert!(said.contains("the bucket has another copy of 'tank/a@1' (700B)"), "{said}");
    assert!(said.contains("nothing to add: 1 in the store and in the bucket"), "{said}");
    assert_eq!(host.store_text(), renamed);
    // and if only the other name is left, that one
    host.s3.state().objects.retain(|key, _| !key.starts_with("tank/b@1"));
    let said = host.fails(1, "recover");
    assert!(
        said.contains(
            "'tank/b@1' is in the store, but the bucket has it only under another name: 'tank/a@1'"
        ),
        "{said}"
    );
    host.ok("recover -m");
    assert_eq!(host.store_text(), lost);
    host.ok("restore tank/a@1 tank/new");
}

#[test]
fn what_is_being_removed_is_reported_as_such() {
    let host = chain();
    host.killed("remove -i @1 tank/a@4", "DeleteObject", 1, Fault::KillBefore);
    let said = host.ok("recover").stderr;
    assert!(
        said.contains("; its removal was interrupted, and the same 'zfs2s3 remove' continues it"),
        "{said}"
    );
    host.ok("remove -i @1 tank/a@4");
    assert_eq!(host.ok("recover").stderr, "zfs2s3: nothing to add: 4 in the store and in the bucket\n");
}

/// `remove` would delete what is whole.
#[test]
fn an_unreadable_backup_is_not_called_lost() {
    let host = chain();
    let before = host.store_text();
    host.s3.fault("GetObject", 0, 1000, Fault::Status(403, "AccessDenied"));
    let said = host.fails(1, "recover");
    assert_eq!(said.matches("is ignored: ").count(), 5, "{said}");
    assert!(!said.contains("is not in the bucket") && !said.contains("remove"), "{said}");
    assert_eq!(host.store_text(), before);
}

#[test]
fn names_that_look_like_objects_do_no_harm() {
    let mut host = Host::new();
    host.set("ZFS2S3_PREFIX", "nas.zfs/");
    host.snapshot(("tank/vm.zfs@a.zfs.2", 7), 10);
    host.add_stream(("", 7), None, &made_stream(7, 0, 700));
    host.ok("upload tank/vm.zfs@a.zfs.2");
    let lost = lose_the_store(&host);
    assert_eq!(host.ok("recover").stderr, "zfs2s3: added 1 backup to the store\n");
    assert_eq!(host.store_text(), lost);
}

#[test]
fn an_upload_that_only_has_to_end_is_stored() {
    let host = Host::with_snapshots(2);
    host.stored_but_for_the_end("upload tank/a@1");
    assert!(host.data("upload_progress.yml").exists() && host.listed() == ["tank/a@1 - 700 STANDARD stored"]);
    let said = host.ok("recover").stderr;
    assert!(said.contains("nothing to add: 1 in the store and in the bucket"), "{said}");
    host.ok("resume_upload");
    host.assert_clean();
}

/// The hints must not lead in a circle.
#[test]
fn a_store_that_is_lost_during_an_upload_is_rebuilt() {
    let host = Host::with_snapshots(3);
    host.ok("upload tank/a@1");
    host.ok("upload -i @1 tank/a@2");
    let before = host.store_text();
    for (fault, last) in [(PUT_DATA, false), ("PutObject", true)] {
        let act = if last { Fault::KillAfter } else { Fault::KillBefore };
        host.killed("upload -i @2 tank/a@3", fault, 0, act);
        std::fs::remove_file(host.data("stored_snapshots.yml")).unwrap();
        let said = host.fails(3, "resume_upload");
        assert!(said.contains("recover -m"), "{said}");
        host.ok("recover");
        assert_eq!(host.store_text(), before);
        host.ok("resume_upload");
        assert_eq!(host.listed().len(), 3);
        host.assert_clean();
        host.ok("remove -i @2 tank/a@3");
    }
}

#[test]
fn a_listing_that_does_not_end_is_an_error() {
    let host = chain();
    host.s3.state().capabilities.lists_for_ever = true;
    let said = host.fails(1, "recover");
    assert!(said.contains("the server's listing does not end"), "{said}");
}

/// It may come from a proxy, or from another server.
#[test]
fn a_403_without_a_code_does_not_mean_that_listing_is_forbidden() {
    let host = chain();
    host.s3.fault("ListObjectsV2", 0, 1000, Fault::Page(403));
    for line in ["upload -i @3 tank/a@4", "remove -i @1 tank/a@4"] {
        let said = host.fails(1, line);
        assert!(said.contains("403") && !said.contains("the store alone"), "{said}");
    }
    assert_eq!(host.s3.state().count("DeleteObject"), 0);
}

/// For 1.5 TiB each, read at the same time. Their lists of chunks are never in memory as a whole.
#[test]
fn manifests_of_large_backups_take_little_memory() {
    let mut host = Host::with_snapshots(1);
    host.set("ZFS2S3_JOBS", "8");
    host.ok("upload tank/a@1");
    let (own, text) = {
        let state = host.s3.state();
        let own = state.real_key(&manifest(1, None));
        (own.clone(), String::from_utf8(state.bytes(&own).to_vec()).unwrap())
    };
    // 100,000 chunks that do not match the composite sum: all of it must be read to see that
    let at = text.find("    chunks: |\n").unwrap() + 14;
    let sum = text[at..].lines().next().unwrap();
    let large = text[..at].to_string() + &format!("{sum}\n").repeat(100_000);
    let data = host.s3.state().bytes(&own.replace(".yml", ".zfs")).to_vec();
    for n in 2..=9u64 {
        let key =
            own.replace("tank/a@1", &format!("tank/a@{n}")).replace("0000000000000001", &format!("{n:016x}"));
        let mut state = host.s3.state();
        state.put_exactly(&key, large.as_bytes());
        // so many that such a manifest is plausible
        state.put_exactly(&key.replace(".yml", ".zfs"), &data.repeat(350_000));
    }
    let mut child = host.spawn("recover -m");
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0));
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let said = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    assert_eq!(said.matches("the wrong number of chunks").count(), 8, "{said}");
    assert!((1..24 << 10).contains(&peak), "{peak} KiB at the peak");
}

#[test]
fn a_wrong_range_is_fetched_again() {
    let host = Host::with_real_streams();
    host.ok("upload tank/src@s1");
    host.s3.fault("GetObject", 3, 2, Fault::OtherRange);
    host.s3.state().log.clear();
    host.ok("restore tank/src@s1 tank/new");
    assert_eq!(host.s3.state().count("GetObject"), 2 + 18 + 2);
}

/// Each read returns something, so the limit for one read does not end it.
#[test]
fn a_reply_that_trickles_for_ever_is_ended() {
    let mut host = chain();
    host.set("ZFS2S3_TEST_REPLY_MS", "500");
    host.set("ZFS2S3_TEST_PATIENCE_MS", "600");
    host.s3.fault("GetObject", 0, 1, Fault::Trickle);
    let begun = std::time::Instant::now();
    host.ok("recover");
    assert!(begun.elapsed().as_secs() >= 1, "a second for each 16 KiB that it may have");
    host.s3.fault("ListObjectsV2", 0, 1, Fault::Status(503, "SlowDown"));
    host.ok("recover");
}
