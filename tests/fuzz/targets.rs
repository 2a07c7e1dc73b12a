//! Everything that the program reads, as a hostile disk, server or `zfs` could have written it: no panic, no
//! hang, bounded memory, no character on the screen that moves the cursor. ZFS2S3_FUZZ names the target; see
//! `run`, beside this file.

#![no_main]
#![allow(dead_code, unused_imports)]

#[path = "../../src/aws/mod.rs"]
mod aws;
#[path = "../../src/chain/mod.rs"]
mod chain;
#[path = "../../src/chunk_io/mod.rs"]
mod chunk_io;
#[path = "../../src/config.rs"]
mod config;
#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/filter/mod.rs"]
mod filter;
#[path = "../../src/inventory/mod.rs"]
mod inventory;
#[path = "../../src/model/mod.rs"]
mod model;
#[path = "../../src/os/mod.rs"]
mod os;
#[path = "../../src/recover/mod.rs"]
mod recover;
#[path = "../../src/removal/mod.rs"]
mod removal;
#[path = "../../src/restore/mod.rs"]
mod restore;
#[path = "../../src/s3/mod.rs"]
mod s3;
#[path = "../../src/state/mod.rs"]
mod state;
#[path = "../../src/stream/mod.rs"]
mod stream;
#[path = "../../src/ui/mod.rs"]
mod ui;
#[path = "../../src/verify/mod.rs"]
mod verify;
#[path = "../../src/zfs/mod.rs"]
mod zfs;

use std::path::PathBuf;
use std::sync::OnceLock;

use error::{is_invisible, one_line};
use libfuzzer_sys::fuzz_target;
use model::keys::{self, ObjectKind};
use model::manifest::text::ManifestReader;
use model::{announcement, archive, copy, properties, units, utc::Utc};
use restore::resume::partial::PartialReceive;
use s3::failure::Failure;
use s3::{configuration, reply};
use state::journal::{self, RecordedParts};
use state::store::{Folder, Store};
use stream::check::StreamCheck;

fuzz_target!(|bytes: &[u8]| {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    let target = TARGET.get_or_init(|| match std::env::var("ZFS2S3_FUZZ").as_deref() {
        Ok("store") => store,
        Ok("journal") => journal,
        Ok("manifest") => manifest,
        Ok("xml") => xml,
        Ok("aws") => aws,
        Ok("stream") => stream,
        Ok("names") => names,
        Ok("zfs") => zfs_output,
        other => panic!("ZFS2S3_FUZZ: no target {other:?}"),
    });
    target(bytes);
});

/// In memory: `run` has made it for this process alone.
fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let path = PathBuf::from(std::env::var_os("HOME").unwrap());
        std::fs::create_dir_all(path.join(".aws")).unwrap();
        path
    })
}

fn write(name: &str, bytes: &[u8]) {
    std::fs::write(folder().join(name), bytes).unwrap();
}

/// What is shown is one line, which changes nothing else on a screen.
fn is_shown(text: &str) {
    assert!(!one_line(text).chars().any(is_invisible), "{text:?}");
}

fn store(bytes: &[u8]) {
    write("stored_snapshots.yml", bytes);
    let folder = Folder::new(folder().clone());
    let first = Store::open(&folder, "b", "", None);
    if let Ok(mut store) = first {
        let count = store.contents.entries.len();
        store.save().unwrap();
        let again = Store::open(&folder, "b", "", None);
        assert!(again.is_ok_and(|again| again.contents.entries.len() == count), "it cannot be read again");
    }
    for name in ["stored_snapshots.yml.orig", "stored_snapshots.tmp"] {
        let _ = std::fs::remove_file(self::folder().join(name));
    }
    write("archive_states.yml", bytes);
    write("verified.yml", bytes);
    state::archive_states::read(&folder);
    state::verified::read(&folder);
}

fn journal(bytes: &[u8]) {
    write("upload_progress.yml", bytes);
    let folder = Folder::new(folder().clone());
    let _ = journal::refuse_python_upload(&folder, "b");
    if let Ok(Some(_)) = journal::overview(&folder) {
        // what can be read whole can also be read by segments
        let parts = RecordedParts::find(&folder).expect("its parts are found");
        for segment in 0..4 {
            parts.of(segment).expect("and read");
        }
        journal::Journal::open(&folder).expect("it can be continued");
        journal::overview(&folder).expect("and read again");
    }
}

fn manifest(bytes: &[u8]) {
    let read = |size: usize| {
        let mut reader = ManifestReader::new(true);
        let pushed = bytes.chunks(size).try_for_each(|piece| reader.push(piece));
        pushed.is_ok() && reader.finish().is_ok()
    };
    // however it arrives
    assert_eq!(read(1 << 20), read(1 + bytes.len() % 97));
    announcement::Announcement::host(bytes);
    is_shown(&announcement::Announcement::describe(bytes));
}

fn xml(bytes: &[u8]) {
    for prefix in ["", "nas/"] {
        let _ = reply::objects(bytes, prefix);
        let _ = reply::uploads(bytes, prefix);
        let _ = reply::versions(bytes, prefix);
    }
    let _ = (reply::parts(bytes), reply::upload_id(bytes), reply::caller_arn(bytes), reply::completed(bytes));
    reply::is_error_or_page(bytes);
    let _ = (configuration::versioning(bytes), configuration::bucket_lock(bytes));
    let _ = configuration::lifecycle(bytes);
    for (status, is_head) in [(200, false), (403, false), (404, true), (503, false)] {
        let said = Failure::reply("GET k".to_string(), is_head, status, |_| None, bytes).describe();
        assert!(!said.chars().any(is_invisible), "{said:?}");
        assert!(said.chars().count() < 1000);
    }
}

fn aws(bytes: &[u8]) {
    write(".aws/config", bytes);
    write(".aws/credentials", bytes);
    static ENV: OnceLock<os::env::Env> = OnceLock::new();
    let env = ENV.get_or_init(os::env::Env::of_process);
    match aws::profile::Profile::load(env) {
        Ok(profile) => {
            let _ = (aws::endpoint::Endpoint::new(env, &profile, "bucket"), profile.get("region"));
        }
        Err(error) => is_shown(&error.message),
    }
}

fn stream(bytes: &[u8]) {
    let check = |size: usize| {
        let mut check = StreamCheck::new();
        let pushed = bytes.chunks(size).try_for_each(|piece| check.push(piece));
        (pushed.map_err(|why| why.to_string()), check.lost_object())
    };
    assert_eq!(check(1 << 20).0.is_ok(), check(1 + bytes.len() % 1013).0.is_ok());
    stream::begins_clone(bytes);
    let _ = stream::begin_of(bytes);
}

fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    is_shown(text);
    for prefix in ["", "nas/"] {
        if let Some(parsed) = keys::parse(prefix, text) {
            let again = match parsed.kind {
                ObjectKind::Manifest => keys::manifest(prefix, &parsed.copy),
                ObjectKind::Segment(n) => keys::segment(prefix, &parsed.copy, n),
                ObjectKind::Removing(nonce) => keys::announcement(prefix, &parsed.copy, nonce),
                ObjectKind::Keep(nonce) => keys::keep(prefix, &parsed.copy, nonce),
            };
            // a mark is not of one copy
            assert!(again == text || matches!(parsed.kind, ObjectKind::Keep(_)), "{text} {again}");
        }
    }
    let _ = PartialReceive::parse(text);
    let _ = (units::parse_size(text), units::parse_age(text), copy::parse_id(text));
    archive::parse_restore(text);
    let _ = (Utc::from_http(text), Utc::lenient(text), Utc::from_date(text));
    let (mut kept, _) = properties::kept(text, properties::Which::All);
    properties::sanitize(&mut kept);
    for (name, value) in properties::pairs(text) {
        properties::is_harmless(name, value);
    }
}

/// The first byte chooses the question, the rest is the answer.
fn zfs_output(bytes: &[u8]) {
    let Some((question, answer)) = bytes.split_first() else { return };
    write("answer", answer);
    let words = ["sh", "-c", "exec cat \"$HOME/answer\""].map(str::to_string);
    let zfs = zfs::Zfs::new(words.to_vec());
    let point = model::backup::Point { name: "tank/a@1".to_string(), guid: "1".parse().unwrap() };
    let backup = model::backup::Backup { snapshot: point.clone(), base: None };
    let shown = |error: error::Error| is_shown(&error.message);
    match question % 16 {
        0 => drop(zfs.find("tank/a@1").map_err(shown)),
        1 => drop(zfs.all_points().map_err(shown)),
        2 => drop(zfs.points_of("tank/a").map_err(shown)),
        3 => drop(zfs.all_datasets().map_err(shown)),
        4 => drop(zfs.tree("tank").map_err(shown)),
        5 => drop(zfs.tree_to_upload("tank").map_err(shown)),
        6 => drop(zfs.holds(&["tank/a@1"]).map_err(shown)),
        7 => drop(zfs.creation("tank/a@1").map_err(shown)),
        8 => drop(zfs.estimate(&backup, &[]).map_err(shown)),
        9 => drop(zfs.snapshots("tank/a").map_err(shown)),
        10 => drop(zfs.resume_token("tank/a").map_err(shown)),
        11 => drop(zfs.explain_token("1-x").map(|(said, _)| PartialReceive::parse(&said)).map_err(shown)),
        12 => drop(zfs.names_of(point.guid).map_err(shown)),
        13 => drop(zfs.version().map_err(shown)),
        14 => drop((zfs.send_flags("tank/a@1"), zfs.is_inconsistent("tank/a"), zfs.available("tank/a"))),
        _ => drop(zfs.with_snapshot("tank/a", "1").map_err(shown)),
    }
}
