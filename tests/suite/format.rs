//! The files of version 0.2.0, as its first program wrote them (tests/legacy/0.2.0), are used without
//! conversion, and written in the same form, byte for byte.

use crate::support::s3::{Object, Upload};
use crate::support::{Fault, Host, S1, S2, key, real};

const STORE: &str = include_str!("../legacy/0.2.0/stored_snapshots.yml");
const REMOVING: &str = include_str!("../legacy/0.2.0/removing.yml");
const JOURNAL: &str = include_str!("../legacy/0.2.0/upload_progress.yml");
const MANIFESTS: [&str; 2] = [include_str!("../legacy/0.2.0/s1.yml"), include_str!("../legacy/0.2.0/s2.yml")];
const ANNOUNCEMENT: &str = include_str!("../legacy/0.2.0/announcement.yml");

/// The sample's URL is that of this server.
fn here(host: &Host, text: &str) -> String {
    text.replace("http://127.0.0.1:1", &host.s3.url())
}

/// The key in the first segment of a manifest, and the manifest's own.
fn keys_of(manifest: &str) -> (String, String) {
    let data = manifest.split("key: ").nth(1).unwrap().lines().next().unwrap().to_string();
    (data.clone(), data.replace(".zfs", ".yml"))
}

/// Its store and its bucket.
fn sample(store: &str) -> Host {
    let host = Host::with_real_streams();
    host.write_data("stored_snapshots.yml", &here(&host, store));
    let mut state = host.s3.state();
    for (manifest, stream) in MANIFESTS.iter().zip(["full.zfs", "incr.zfs"]) {
        let (data, own) = keys_of(manifest);
        state.put_exactly(&data, &real(stream));
        state.put_exactly(&own, manifest.as_bytes());
    }
    drop(state);
    host
}

/// Without what differs from run to run: IDs, times, the name of the host, the URL, the version.
fn normal(text: &str, host: &Host, id: &str) -> String {
    let is_time = |word: &str| word.len() == 20 && word.ends_with('Z') && word.starts_with("20");
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_string();
    let text = text
        .replace(&host.s3.url(), "http://127.0.0.1:1")
        .replace(id, "ID")
        .replace(concat!("zfs2s3 ", env!("CARGO_PKG_VERSION")), "zfs2s3 0.2.0")
        .replace(&format!("host: {name}\n"), "host: nas\n")
        .replace(&format!("\"host\":\"{name}\""), "\"host\":\"nas\"");
    let words = text.split_inclusive([' ', '\n', '"']);
    words
        .map(|word| {
            let bare = word.trim_end_matches(['"', '\n', ' ']);
            if is_time(bare) { word.replace(bare, "TIME") } else { word.to_string() }
        })
        .collect()
}

fn id_of(key: &str) -> &str {
    key.rsplit('-').next().unwrap().split('.').next().unwrap()
}

#[test]
fn its_store_and_bucket_are_used() {
    let host = sample(STORE);
    assert_eq!(
        host.listed(),
        ["tank/src@s1 - 1131752 STANDARD stored", "tank/src@s2 tank/src@s1 290104 STANDARD stored"]
    );
    assert!(host.ok("recover").stderr.contains("nothing to add: 2"));
    let before = host.store_text();
    std::fs::remove_file(host.data("stored_snapshots.yml")).unwrap();
    host.ok("recover");
    assert_eq!(host.store_text(), before);
    host.ok("restore tank/src@s2 tank/new");
    host.ok("remove -i @s1 tank/src@s2");
    host.ok("remove tank/src@s1");
    assert!(host.s3.state().keys().is_empty());
}

#[test]
fn its_interrupted_removal_is_completed() {
    let host = sample(REMOVING);
    let (data, _) = keys_of(MANIFESTS[1]);
    let nonce = REMOVING.split("\"removal\":\"").nth(1).unwrap().split('"').next().unwrap();
    let announcement = data.replace(".zfs", &format!(".removing-{nonce}"));
    host.s3.state().put_exactly(&announcement, ANNOUNCEMENT.as_bytes());
    assert!(host.listed()[1].ends_with("removing"));
    host.ok("remove -i @s1 tank/src@s2");
    assert_eq!(host.s3.state().keys().len(), 2);
    host.assert_clean();
}

/// Nine parts, then an upload ID, fewer parts, and three parts of a second segment.
#[test]
fn its_pending_upload_is_resumed() {
    let mut host = Host::with_real_streams();
    host.set("ZFS2S3_JOBS", "1");
    // IDs that the server does not give to new uploads
    host.write_data("upload_progress.yml", &here(&host, &JOURNAL.replace("id+", "old+")));
    let id = JOURNAL.split("\"id\":\"").nth(1).unwrap().split('"').next().unwrap();
    let segment = key(S1.0, S1.1, None).replace(".zfs", &format!("-{id}.zfs"));
    let stream = real("full.zfs");
    for (n, first) in [(1, 0), (2, 4)] {
        let part = |line: &str| {
            let record: serde_json::Value = serde_json::from_str(line.strip_prefix("- ")?).unwrap();
            let part = record.get("part").filter(|part| part["segment"] == n)?;
            let number = part["part"].as_u64()? as usize;
            let chunk = stream.chunks(65536).nth(first + number - 1)?;
            Some((number as u16, Object::part(chunk, part["etag"].as_str()?)))
        };
        let key = if n == 1 { segment.clone() } else { format!("{segment}.{n}") };
        let parts = JOURNAL.lines().filter_map(part).collect();
        let upload = Upload { key, storage_class: "STANDARD".to_string(), checksums: true, parts };
        host.s3.state().uploads.insert(format!("old+{n}/=& x"), upload);
    }
    host.ok("resume_upload");
    let stored = host.s3.state().count("UploadPart");
    assert_eq!(stored, 18 - 4 - 3, "only the missing parts are sent");
    let state = host.s3.state();
    let whole: Vec<u8> = (1..=5)
        .flat_map(|n| {
            let key = if n == 1 { segment.clone() } else { format!("{segment}.{n}") };
            state.bytes(&key).to_vec()
        })
        .collect();
    drop(state);
    assert!(whole == stream);
    host.assert_clean();
}

#[test]
fn the_store_and_the_manifests_are_written_as_before() {
    let host = Host::with_real_streams();
    host.ok("upload tank/src@s1");
    host.ok("upload -i @s1 tank/src@s2");
    let ids = [(S1.0, S1.1, None), (S2.0, S2.1, Some(S1.1))].map(|(name, guid, base)| {
        let key = host.real_key(&key(name, guid, base));
        (id_of(&key).to_string(), key.replace(".zfs", ".yml"))
    });
    let mut written = host.store_text();
    let mut expected = STORE.to_string();
    for ((id, manifest_key), sample) in ids.iter().zip(MANIFESTS) {
        let (data, _) = keys_of(sample);
        let sample_id = id_of(&data);
        let manifest = String::from_utf8(host.s3.state().bytes(manifest_key).to_vec()).unwrap();
        // but for when the snapshot was created, which version 3 has
        let created = manifest.lines().find(|line| line.starts_with("created: ")).unwrap();
        let manifest = manifest.replacen(&format!("{created}\n"), "", 1);
        let sample = sample.replacen("version: 2\n", "version: 3\n", 1);
        assert_eq!(normal(&manifest, &host, id), normal(&sample, &host, sample_id));
        written = written.replace(id, "ID");
        expected = expected.replace(sample_id, "ID");
    }
    assert_eq!(normal(&written, &host, "ID"), normal(&expected, &host, "ID"));
}

#[test]
fn the_journal_and_the_announcement_are_written_as_before() {
    let mut host = Host::with_real_streams();
    host.set("ZFS2S3_JOBS", "1");
    host.killed("upload tank/src@s1", "UploadPart", 9, Fault::KillBefore);
    host.set("ZFS2S3_PARTS", "4");
    host.killed("resume_upload", "UploadPart", 3, Fault::KillBefore);
    let written = std::fs::read_to_string(host.data("upload_progress.yml")).unwrap();
    let id = |text: &str| text.split("\"id\":\"").nth(1).unwrap().split('"').next().unwrap().to_string();
    let (written, expected) = (normal(&written, &host, &id(&written)), normal(JOURNAL, &host, &id(JOURNAL)));
    // the next segment may have begun before the kill
    assert_eq!(
        written.lines().take(expected.lines().count()).collect::<Vec<_>>(),
        expected.lines().collect::<Vec<_>>()
    );
    let host = Host::with_snapshots(1);
    host.ok("upload tank/a@1");
    host.killed("remove tank/a@1", "DeleteObject", 0, Fault::KillBefore);
    let keys: Vec<String> = host.s3.state().keys().into_iter().map(|key| key.to_string()).collect();
    let key = keys.iter().find(|key| key.contains(".removing-")).unwrap();
    let written = String::from_utf8(host.s3.state().bytes(key).to_vec()).unwrap();
    assert_eq!(normal(&written, &host, "no ID"), normal(ANNOUNCEMENT, &host, "no ID"));
}
