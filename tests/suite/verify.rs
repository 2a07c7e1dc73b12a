//! `verify`: each kind of damage, and what it costs.

use serde_json::Value;

use crate::support::s3::Object;
use crate::support::{Fault, Host, key, made_stream, real};

/// A chain of four, and a bypass from the first to the last; chunks of 64 KiB, objects of two.
fn host() -> Host {
    let mut host = Host::new();
    host.set("ZFS2S3_TEST_PARTS", "2");
    for to in 1..=4 {
        host.snapshot((&format!("tank/a@{to}"), to), to * 10);
        for from in 0..to {
            let base = (from > 0).then_some(("", from));
            host.add_stream(("", to), base, &made_stream(to, from, 300_000));
        }
    }
    host.ok("upload tank/a@1");
    for to in 2..=4 {
        host.ok(&format!("upload -i @{} tank/a@{to}", to - 1));
    }
    host.ok("upload -i @1 tank/a@4");
    host
}

fn data(host: &Host, to: u64, from: Option<u64>) -> String {
    host.real_key(&key(&format!("tank/a@{to}"), to, from))
}

fn results(report: &Value) -> String {
    let backups = report["backups"].as_array().unwrap();
    backups.iter().map(|backup| &backup["result"].as_str().unwrap()[..1]).collect()
}

#[test]
fn what_is_whole_is_proven_dated_and_shown() {
    let host = host();
    host.s3.state().log.clear();
    let said = host.ok("verify").stderr;
    assert_eq!(said, "zfs2s3: verified 5 backups (objects)\n");
    let names: Vec<&str> = host.s3.state().log.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), 6, "one listing, and the manifests: {names:?}");
    let said = host.ok("verify --sample 10% tank/a@2").stderr;
    assert_eq!(said, "zfs2s3: verified 2 backups (sample)\n");
    let said = host.ok("verify -D tank/a@1").stderr;
    assert!(said.ends_with("zfs2s3: verified 1 backup (deep)\n"), "{said}");
    let table = host.ok("list -v").stdout;
    let header = table.lines().next().unwrap();
    assert!(header.ends_with("VERIFIED"), "{table}");
    let last: Vec<&str> =
        table.lines().map(|line| line.get(header.len() - 8..).unwrap_or_default()).collect();
    assert!(last[1].starts_with("deep 20") && last[2].starts_with("sample 20"), "{table}");
    assert!(last[3].starts_with("objects 20"), "{table}");
    let rows: Value = serde_json::from_str(&host.ok("list -j").stdout).unwrap();
    assert!(rows[0]["verified"]["deep"].is_string() && rows[2]["verified"]["deep"].is_null());
    assert_eq!(host.ok("list -H").stdout.lines().next().unwrap().split('\t').count(), 8);
    // another store knows nothing proven
    std::fs::remove_file(host.data("stored_snapshots.yml")).unwrap();
    host.ok("recover");
    let rows: Value = serde_json::from_str(&host.ok("list -j").stdout).unwrap();
    assert!(rows.as_array().unwrap().iter().all(|row| row["verified"].is_null()));
}

/// What is done to the bucket, and what is then said of `-i @1 tank/a@2`.
#[test]
fn each_damage_is_found_with_its_object() {
    type Damage = fn(&Host, &str);
    fn edit(host: &Host, key: &str, change: impl FnOnce(&mut Object)) {
        change(host.s3.state().objects.get_mut(key).unwrap());
    }
    fn manifest(data: &str) -> String {
        data.replace(".zfs", ".yml")
    }
    let cases: &[(Damage, &str, &str)] = &[
        (|h, data| drop(h.s3.state().objects.remove(data)), ".zfs': it is missing", "d"),
        (|h, data| drop(h.s3.state().objects.remove(&format!("{data}.2"))), ".zfs.2': it is missing", "d"),
        (
            |h, data| edit(h, data, |o| o.bytes.truncate(131_071)),
            ".zfs': it has 131071 bytes, not 131072",
            "d",
        ),
        (
            |h, data| {
                edit(h, data, |o| {
                    o.bytes[9] ^= 1;
                    o.etag = "\"other\"".to_string();
                    o.checksum = Some("other-2".to_string());
                });
            },
            ".zfs': it is not the object that was stored: its ETag is \"other\", and its SHA-256 is another one, too",
            "d",
        ),
        // by another program, without a checksum: one chunk is read
        (
            |h, data| {
                edit(h, data, |o| {
                    o.bytes.iter_mut().for_each(|byte| *byte ^= 1);
                    (o.etag, o.checksum) = ("\"other\"".to_string(), None);
                });
            },
            ".zfs' (segment 1) is damaged in bytes ",
            "d",
        ),
        (
            |h, data| edit(h, data, |o| o.etag = "\"copy\"".to_string()),
            ".zfs': it was copied, since its ETag has changed, but its SHA-256 is the same",
            "w",
        ),
        (
            |h, data| {
                let object = h.s3.state().objects[data].clone();
                h.s3.state().objects.insert(format!("{data}.9"), object);
            },
            ".zfs.9': the manifest does not name it",
            "d",
        ),
        (|h, data| drop(h.s3.state().objects.remove(&manifest(data))), ".yml': it is missing", "d"),
        (
            |h, data| {
                let other =
                    h.s3.state().object("tank/a@3/0000000000000003-from-0000000000000002.yml").clone();
                h.s3.state().objects.insert(manifest(data), other);
            },
            ".yml': it describes another backup than the store",
            "d",
        ),
        (|h, data| edit(h, &manifest(data), |o| o.bytes.truncate(300)), ".yml': it cannot be used: ", "d"),
        (
            |h, data| {
                edit(h, &manifest(data), |o| {
                    let text = String::from_utf8(o.bytes.clone()).unwrap();
                    o.bytes = text.replacen("version: 3", "version: 9", 1).into_bytes();
                });
            },
            "it has version 9",
            "d",
        ),
    ];
    for (damage, words, result) in cases {
        let host = host();
        damage(&host, &data(&host, 2, Some(1)));
        let ran = host.run("verify -j");
        ran.expect(if *result == "d" { 5 } else { 0 });
        assert!(
            ran.stderr.contains("warning: '-i tank/a@1 tank/a@2': the object 'tank/a@2/") || *result == "w"
        );
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(results(&report), format!("w{result}www"), "{words}");
        if *result == "d" && !words.contains("does not name") {
            assert_eq!(report["lost"], serde_json::json!(["tank/a@2", "tank/a@3"]), "{words}");
            assert_eq!(report["spared"], serde_json::json!(["tank/a@4"]), "{words}");
            assert!(ran.stderr.contains("error: 1 backup of 5 damaged"), "{}", ran.stderr);
            assert!(ran.stderr.contains("can no longer be restored: tank/a@2, tank/a@3"), "{}", ran.stderr);
            assert!(ran.stderr.contains("these still can, by another route: tank/a@4"), "{}", ran.stderr);
            assert!(host.ok("list -v").stdout.contains("damaged 20"), "{words}");
        }
        // what is needed for another snapshot is whole
        host.ok("verify tank/a@1");
    }
}

/// Put there again by another program, without a checksum.
#[test]
fn an_object_with_another_etag_is_judged_by_reading_it() {
    let host = host();
    let data = data(&host, 2, Some(1));
    let mut state = host.s3.state();
    let object = state.objects.get_mut(&data).unwrap();
    (object.etag, object.checksum) = ("\"again\"".to_string(), None);
    drop(state);
    // what was read of it is right
    for line in ["verify", "verify -s 100"] {
        let said = host.fails(1, line);
        assert!(
            said.contains("its ETag is \"again\", and S3 has no SHA-256 of it that could be compared"),
            "{said}"
        );
        assert!(!said.contains("can no longer be restored"), "{said}");
    }
    let said = host.ok("verify -D").stderr;
    assert!(
        said.contains("it was copied, since its ETag has changed, but its SHA-256 is the same"),
        "{said}"
    );
    // it is known from then on
    assert!(host.ok("verify").stderr.contains("its SHA-256 is the same"));
    assert!(!host.ok("list -v").stdout.contains("damaged"));
    host.s3.state().objects.get_mut(&data).unwrap().bytes[70_000] ^= 1;
    let said = host.fails(5, "verify -D");
    assert!(said.contains("is damaged in bytes 65536 to 131071"), "{said}");
}

#[test]
fn what_a_delete_marker_hides_is_shown_with_the_command() {
    let host = Host::with_snapshots(1);
    host.s3.state().capabilities.locks = true;
    host.ok("upload tank/a@1");
    let data = host.real_key(&key("tank/a@1", 1, None));
    host.s3.state().hide(&data);
    let said = host.fails(5, "verify");
    assert!(
        said.contains(&format!("aws s3api delete-object --bucket=test-bucket --key={data} --version-id=")),
        "{said}"
    );
}

#[test]
fn a_base_that_is_not_stored_is_damage() {
    let host = host();
    let store = host.store_text();
    let lines: Vec<&str> = store
        .lines()
        .filter(|line| !line.contains("\"name\":\"tank/a@3\",\"guid\":\"3\"},\"base\""))
        .collect();
    host.write_data("stored_snapshots.yml", &(lines.join("\n").replace("count: 5", "count: 4") + "\n"));
    let said = host.fails(5, "verify");
    assert!(said.contains("warning: '-i tank/a@3 tank/a@4': its base cannot be restored"), "{said}");
}

/// No false alarm if the server keeps no checksums, lists other ETags than it gave, or may not list.
#[test]
fn other_servers_and_rights() {
    let host = Host::with_snapshots(2);
    host.s3.state().capabilities.checksums = false;
    host.ok("upload tank/a@1");
    host.ok("upload -i @1 tank/a@2");
    host.ok("verify");
    let data = host.real_key(&key("tank/a@1", 1, None));
    host.s3.state().objects.get_mut(&data).unwrap().etag = "\"of this server\"".to_string();
    host.ok("verify");
    host.s3.state().capabilities.may_list = false;
    host.ok("verify");
    host.s3.state().objects.remove(&data);
    // a missing object is "forbidden" then
    let said = host.fails(1, "verify");
    assert!(said.contains("error: 1 backup of 2 could not be checked"), "{said}");
}

#[test]
fn what_is_archived_is_verified_but_not_read() {
    let mut host = Host::with_snapshots(2);
    host.ok("upload tank/a@1");
    host.set("ZFS2S3_STORAGE_CLASS", "DEEP_ARCHIVE");
    host.ok("upload -i @1 tank/a@2");
    host.ok("verify");
    let said = host.ok("verify -s 100").stderr;
    assert!(said.contains("of 1 backup, no chunk was read: it must be thawed first"), "{said}");
    assert!(said.ends_with("verified 2 backups (1 sample, 1 objects)\n"), "{said}");
    let said = host.fails(1, "verify -D");
    assert!(said.contains("could not be checked"), "{said}");
    assert_eq!(host.s3.state().count("RestoreObject"), 0);
    let rows: Value = serde_json::from_str(&host.ok("list -j").stdout).unwrap();
    assert!(rows[0]["verified"]["deep"].is_string() && rows[1]["verified"]["deep"].is_null());
}

#[test]
fn a_flipped_bit_is_found_by_reading() {
    for at in [5, 65_535, 65_536, 131_071] {
        let host = host();
        let data = data(&host, 3, Some(2));
        host.s3.state().objects.get_mut(&format!("{data}.2")).unwrap().bytes[at] ^= 16;
        host.ok("verify");
        for line in ["verify -D", "verify -s 100"] {
            let said = host.fails(5, line);
            assert!(said.contains("zfs.2' (segment 2) is damaged in bytes "), "{said}");
            assert!(said.contains("can no longer be restored: tank/a@3"), "{said}");
        }
        host.ok("verify");
        assert!(host.ok("list -v").stdout.contains("damaged 20"), "only reading it can tell otherwise");
        host.s3.state().objects.get_mut(&format!("{data}.2")).unwrap().bytes[at] ^= 16;
        host.ok("verify -s 100");
        host.ok("verify -D");
        assert!(!host.ok("list -v").stdout.contains("damaged"));
    }
}

#[test]
fn a_sample_finds_what_it_draws() {
    let host = host();
    // each chunk of the second object of one backup
    let data = data(&host, 2, Some(1));
    host.s3
        .state()
        .objects
        .get_mut(&format!("{data}.2"))
        .unwrap()
        .bytes
        .iter_mut()
        .for_each(|byte| *byte ^= 1);
    host.s3.state().log.clear();
    let said = host.fails(5, "verify --sample 1");
    assert!(said.contains("is damaged in bytes"), "{said}");
    // one chunk of each of three objects of five backups, and a damaged one is fetched three times
    assert!(host.s3.state().count("GetObject") >= 5 + 15 + 2, "{}", host.s3.state().count("GetObject"));
    for (line, words) in [
        ("-s 0", "not a percentage"),
        ("-s 101", "not a percentage"),
        ("-s x", "not a percentage"),
        ("-D -s 5", "exclude"),
    ] {
        assert!(host.fails(2, &format!("verify {line}")).contains(words), "{line}");
    }
}

/// The Python tool did not check the records.
#[test]
fn a_stream_whose_records_are_damaged_is_found_by_a_deep_one() {
    let host = Host::new();
    host.write_data("stored_snapshots.yml", include_str!("../legacy/stored_snapshots.yml"));
    let mut full = real("full.zfs");
    host.s3.state().put("tank/src@s1", &full);
    host.s3.state().put("tank/src@s2 <- tank/src@s1", &real("incr.zfs"));
    host.ok("verify -D tank/src@s1");
    full[400_000] ^= 1;
    host.s3.state().put("tank/src@s1", &full);
    host.ok("verify tank/src@s1");
    let said = host.fails(5, "verify -D tank/src@s1");
    assert!(said.contains("the stored stream of 'tank/src@s1': it is damaged: record "), "{said}");
}

/// Also if a backup before it is archived, or damaged, or small.
#[test]
fn a_deep_one_that_was_stopped_continues() {
    for first in ["whole", "archived", "damaged"] {
        let mut host = host();
        host.set("ZFS2S3_JOBS", "1");
        if first == "damaged" {
            let data = data(&host, 1, None);
            host.s3.state().objects.get_mut(&data).unwrap().bytes[5] ^= 1;
        }
        if first == "archived" {
            let data = data(&host, 1, None);
            host.s3.state().objects.get_mut(&data).unwrap().storage_class = "GLACIER".to_string();
        }
        let status = match first {
            "whole" => 0,
            "archived" => 1,
            _ => 5,
        };
        let chunks = |host: &Host| {
            let is_chunk = |(name, key): &(&str, String)| *name == "GetObject" && key.contains(".zfs");
            host.s3.state().log.drain(..).filter(is_chunk).count()
        };
        chunks(&host);
        host.run("verify -D").expect(status);
        let whole = chunks(&host);
        host.set("ZFS2S3_TEST_SAVE_EVERY", "0");
        host.killed("verify -D", "GetObject", whole + 2, Fault::KillBefore);
        let killed = chunks(&host);
        host.set("ZFS2S3_TEST_SAVE_EVERY", "1000");
        let ran = host.run("verify -D");
        ran.expect(status);
        assert!(ran.stderr.contains("continuing the deep verification that began at 20"), "{}", ran.stderr);
        let rest = chunks(&host);
        // the damaged chunk is read again, three times, and so are some that were on their way
        assert!(
            2 * killed > whole && killed + rest <= whole + 10,
            "{first}: {killed} and {rest}, of {whole}"
        );
        // another selection is another run
        assert!(!host.run("verify -D tank/a@1").stderr.contains("continuing"));
    }
}

#[test]
fn the_verdict_does_not_depend_on_the_file() {
    let host = host();
    let data = data(&host, 3, Some(2));
    host.s3.state().objects.remove(&data);
    for text in [&b"\xff\xfe"[..], b"- x", b"version: 9\nnew: 1\n"] {
        std::fs::write(host.data("verified.yml"), text).unwrap();
        let said = host.fails(5, "verify");
        assert!(said.contains("it is missing") && said.contains("warning: "), "{said}");
    }
    assert_eq!(std::fs::read(host.data("verified.yml")).unwrap(), b"version: 9\nnew: 1\n");
    std::fs::remove_file(host.data("verified.yml")).unwrap();
    std::fs::create_dir(host.data("verified.yml")).unwrap();
    host.fails(5, "verify -D");
}

#[test]
fn damage_is_reported_even_if_the_rest_cannot_be_read() {
    let mut host = host();
    host.set("ZFS2S3_JOBS", "1");
    let data = data(&host, 1, None);
    host.s3.state().objects.get_mut(&data).unwrap().bytes[5] ^= 1;
    let before = {
        host.run("verify -D tank/a@1").expect(5);
        host.s3.state().count("GetObject")
    };
    host.s3.fault("GetObject", before, 1000, Fault::Status(503, "SlowDown"));
    let said = host.fails(5, "verify -D");
    assert!(
        said.contains("is damaged in bytes 0 to 65535") && said.contains("hint: not all was read: "),
        "{said}"
    );
}

#[test]
fn what_is_being_removed_is_no_damage() {
    let host = host();
    host.killed("remove -i @1 tank/a@4", "DeleteObject", 1, Fault::KillBefore);
    assert_eq!(host.ok("verify").stderr, "zfs2s3: verified 4 backups (objects)\n");
    // by another host, whose announcement is there
    let other = self::host();
    let data = data(&other, 4, Some(3));
    let mut state = other.s3.state();
    state.objects.remove(&data.replace(".zfs", ".yml"));
    state.put_exactly(&data.replace(".zfs", ".removing-12345678"), b"version: 1\nhost: x\n");
    drop(state);
    let said = other.fails(1, "verify");
    assert!(said.contains("a host is removing it"), "{said}");
}
