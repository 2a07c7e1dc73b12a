//! A bucket and a host of version 0.1.0 (tests/legacy/0.1.0, made by that program) are used without
//! conversion.

use crate::support::s3::{Object, Upload};
use crate::support::{Fault, Host, S1, S2, key, made_stream, real};

const STORE: &str = include_str!("../legacy/0.1.0/stored_snapshots.yml");
const PENDING: &str = include_str!("../legacy/0.1.0/upload_progress.yml");
const MANIFESTS: [&str; 2] = [include_str!("../legacy/0.1.0/s1.yml"), include_str!("../legacy/0.1.0/s2.yml")];

/// Its store and its bucket.
fn older() -> Host {
    let host = Host::with_real_streams();
    host.write_data("stored_snapshots.yml", &STORE.replace("http://127.0.0.1:1", &host.s3.url()));
    let mut state = host.s3.state();
    for (key, stream, manifest) in [
        (key(S1.0, S1.1, None), "full.zfs", MANIFESTS[0]),
        (key(S2.0, S2.1, Some(S1.1)), "incr.zfs", MANIFESTS[1]),
    ] {
        state.put_exactly(&key, &real(stream));
        state.put_exactly(&key.replace(".zfs", ".yml"), manifest.as_bytes());
    }
    drop(state);
    host
}

#[test]
fn its_backups_are_listed_restored_extended_and_removed() {
    let host = older();
    assert_eq!(
        host.listed(),
        ["tank/src@s1 - 1131752 STANDARD stored", "tank/src@s2 tank/src@s1 290104 STANDARD stored"]
    );
    assert!(host.ok("recover").stderr.contains("nothing to add: 2"));
    host.ok("restore tank/src@s2 tank/new");
    assert!(host.fails(3, "upload tank/src@s1").contains("is stored already"));
    host.fails(3, "remove tank/src@s1");
    host.snapshot(("tank/src@s3", 3), 30);
    host.add_stream(("", 3), Some(S2), &made_stream(3, S2.1, 700));
    host.ok("upload -i @s2 tank/src@s3");
    assert!(host.store_text().starts_with("version: 2\n"));
    host.fails(3, "remove -i @s1 tank/src@s2");
    host.ok("remove -i @s2 tank/src@s3");
    host.ok("remove -i @s1 tank/src@s2");
    host.ok("remove tank/src@s1");
    host.assert_clean();
    assert!(host.s3.state().keys().is_empty());
}

#[test]
fn a_copy_without_an_id_can_be_removed_beside_another() {
    let host = older();
    let older_keys = host.s3.state().keys().len();
    // as another host stores it at the same time
    let (data, manifest) = (key(S1.0, S1.1, None), key(S1.0, S1.1, None).replace(".zfs", ".yml"));
    let first = [&data, &manifest].map(|key| host.s3.state().take(key).unwrap());
    host.ok("upload tank/src@s1");
    host.s3.state().objects.extend(first);
    let said = host.ok("recover").stderr;
    assert!(said.contains("'zfs2s3 remove -c none tank/src@s1' removes it"), "{said}");
    host.fails(1, &format!("remove -c none {}", S1.1));
    host.ok("remove -c none tank/src@s1");
    assert_eq!(host.s3.state().keys().len(), older_keys);
    host.ok("restore tank/src@s2 tank/new");
    host.assert_clean();
}

#[test]
fn its_store_is_rebuilt_from_its_bucket() {
    let host = older();
    let before = host.store_text();
    std::fs::remove_file(host.data("stored_snapshots.yml")).unwrap();
    host.ok("recover");
    assert_eq!(host.store_text(), before.replace("version: 1\n", "version: 2\n"));
}

#[test]
fn a_removal_that_it_has_begun_is_completed() {
    let host = older();
    let marked = host.store_text().replacen(
        "},\"stream\":{\"size\":290104",
        "},\"state\":\"removing\",\"stream\":{\"size\":290104",
        1,
    );
    host.write_data("stored_snapshots.yml", &marked);
    assert!(host.listed()[1].ends_with("removing"));
    host.killed("remove -i @s1 tank/src@s2", "DeleteObject", 1, Fault::KillBefore);
    host.ok("remove -i @s1 tank/src@s2");
    host.assert_clean();
    assert_eq!(host.listed().len(), 1);
}

/// Killed with three parts stored, and the server knows its upload.
fn pending() -> Host {
    let host = older();
    let first: String =
        STORE.lines().filter(|line| !line.contains("tank/src@s2")).flat_map(|l| [l, "\n"]).collect();
    let first = first.replace("count: 2", "count: 1").replace("http://127.0.0.1:1", &host.s3.url());
    host.write_data("stored_snapshots.yml", &first);
    host.write_data("upload_progress.yml", &PENDING.replace("http://127.0.0.1:1", &host.s3.url()));
    host.zfs_file("holds", &format!("zfs2s3 {}\nzfs2s3 {}\n", S1.0, S2.0));
    let data = key(S2.0, S2.1, Some(S1.1));
    let mut state = host.s3.state();
    state.objects.remove(&data);
    state.objects.remove(&data.replace(".zfs", ".yml"));
    let stream = real("incr.zfs");
    let part = |line: &str| {
        let record: serde_json::Value = serde_json::from_str(line.strip_prefix("- ")?).unwrap();
        let part = record.get("part")?;
        let number = part["part"].as_u64()? as usize;
        let bytes = &stream[(number - 1) * 65536..number * 65536];
        Some((number as u16, Object::part(bytes, part["etag"].as_str()?)))
    };
    let parts = PENDING.lines().filter_map(part).collect();
    let upload = Upload { key: data, storage_class: "STANDARD".to_string(), checksums: true, parts };
    let id = PENDING.split("\"upload_id\":\"").nth(1).unwrap().split('"').next().unwrap();
    state.uploads.insert(id.to_string(), upload);
    drop(state);
    host
}

#[test]
fn its_pending_upload_is_resumed_in_place() {
    let host = pending();
    host.ok("resume_upload");
    assert_eq!(host.s3.state().count("UploadPart"), 2, "three of five were stored");
    let state = host.s3.state();
    assert_eq!(state.objects[&key(S2.0, S2.1, Some(S1.1))].bytes, real("incr.zfs"), "under its own key");
    drop(state);
    host.assert_clean();
    host.ok("restore tank/src@s2 tank/new");
}

#[test]
fn its_pending_upload_is_aborted() {
    for (may_list, hides_absent) in [(true, false), (true, true), (false, false)] {
        let host = pending();
        let allow = |may_list, hides_absent| {
            let capabilities = &mut host.s3.state().capabilities;
            (capabilities.may_list, capabilities.hides_absent) = (may_list, hides_absent);
        };
        allow(may_list, hides_absent);
        host.ok("abort_upload");
        allow(true, false);
        host.assert_clean();
        assert_eq!(host.s3.state().keys().len(), 2);
    }
}

/// Objects with its keys may belong to another host.
#[test]
fn objects_that_may_belong_to_another_host_are_not_touched() {
    // the same data in the same objects: adopting them harms nobody
    let host = pending();
    let data = key(S2.0, S2.1, Some(S1.1));
    host.s3.state().put_exactly(&data, &real("incr.zfs"));
    host.s3.state().put_exactly(&data.replace(".zfs", ".yml"), MANIFESTS[1].as_bytes());
    host.ok("resume_upload");
    assert_eq!(host.listed().len(), 2);
    // other data
    let host = pending();
    host.s3.state().put_exactly(&data, b"another host's");
    let said = host.fails(3, "resume_upload");
    assert!(said.contains("another object has the key"), "{said}");
    let said = host.ok("abort_upload").stderr;
    assert!(said.contains("may belong to another upload, and is not deleted"), "{said}");
    assert_eq!(host.s3.state().objects[&data].bytes, b"another host's");
    // a manifest that cannot be read
    let host = pending();
    host.s3.state().put_exactly(&data, b"another host's");
    host.s3.state().put_exactly(&data.replace(".zfs", ".yml"), b"later: 1\n");
    let said = host.fails(1, "abort_upload");
    assert!(said.contains("the upload is still pending"), "{said}");
    assert!(host.data("upload_progress.yml").exists() && host.s3.state().uploads.len() == 1);
}

#[test]
fn a_newer_manifest_with_the_same_key_belongs_to_another_host() {
    let host = older();
    let manifest = key(S2.0, S2.1, Some(S1.1)).replace(".zfs", ".yml");
    host.s3
        .state()
        .put_exactly(&manifest, MANIFESTS[1].replace("version: 1", "version: 5\nlater: 1").as_bytes());
    let said = host.fails(3, "remove -i @s1 tank/src@s2");
    assert!(said.contains("was written by a newer version of zfs2s3"), "{said}");
    assert_eq!(host.s3.state().count("DeleteObject"), 0);
}
