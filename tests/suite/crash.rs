//! Each command is killed before each of its steps (os/step.rs), or a step fails. Then what must always hold
//! (src/DESIGN.md) is checked from the files and the bucket alone, the command that heals runs, and it is
//! checked again.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::sigv4::{hex, sha256};
use crate::support::{Fault, Host, made_stream};

const CHUNK: usize = 4096;
const ENOSPC: &str = "28";
const EIO: &str = "5";

/// `tank/a@1` in five chunks and three segments; `@2` and `@3` in one chunk.
fn host() -> Host {
    let mut host = Host::with_snapshots(3);
    host.add_stream(("", 1), None, &made_stream(1, 0, 4 * CHUNK + 700));
    host.set("ZFS2S3_CHUNK_SIZE", &CHUNK.to_string());
    host.set("ZFS2S3_TEST_PARTS", "2");
    host.set("ZFS2S3_JOBS", "1");
    host
}

fn with_two_stored() -> Host {
    let host = host();
    host.ok("upload tank/a@1");
    host.ok("upload -i @1 tank/a@2");
    host
}

/// An entry of the store.
struct Stored {
    guid: u64,
    base: Option<u64>,
    id: String,
    is_stored: bool,
    keys: Vec<String>,
    composite: String,
}

fn entries(host: &Host) -> Vec<Stored> {
    let text = host.store_text();
    let entry = |line: &str| {
        let entry: Value = serde_json::from_str(line).unwrap();
        let guid = |point: &Value| point["guid"].as_str().map(|text| text.parse().unwrap());
        let segments = entry["stream"]["segments"].as_array().unwrap();
        Stored {
            guid: guid(&entry["snapshot"]).unwrap(),
            base: guid(&entry["base"]),
            id: entry["id"].as_str().unwrap().to_string(),
            is_stored: entry.get("state").is_none(),
            keys: segments.iter().map(|segment| segment["key"].as_str().unwrap().to_string()).collect(),
            composite: entry["stream"]["composite_sha256"].as_str().unwrap().to_string(),
        }
    };
    text.lines().filter_map(|line| line.strip_prefix("- ")).map(entry).collect()
}

/// The rules, a second time: by the store, the journal and the bucket, as they are now.
fn check(host: &Host, after: &str) {
    let entries = entries(host);
    let state = host.s3.state();
    let snapshots: BTreeSet<u64> =
        entries.iter().filter(|entry| entry.is_stored).map(|entry| entry.guid).collect();
    let mut known: BTreeMap<&str, bool> = BTreeMap::new();
    for entry in &entries {
        known.insert(&entry.id, entry.is_stored);
        if !entry.is_stored {
            continue;
        }
        assert!(
            entry.base.is_none_or(|base| snapshots.contains(&base)),
            "{after}: the base of {} is lost",
            entry.guid
        );
        let name = entry.base.map_or("full".to_string(), |base| format!("from-{base}"));
        let stream =
            std::fs::read(host.home().join(format!("zfs/{}-{name}", entry.guid))).expect("its stream");
        let there: Vec<u8> = entry.keys.iter().flat_map(|key| state.bytes(key).to_vec()).collect();
        assert!(there == stream, "{after}: the data of {} are not the stream", entry.guid);
        let manifest = entry.keys[0].replace(".zfs", ".yml");
        let manifest = String::from_utf8(state.bytes(&manifest).to_vec()).unwrap();
        let sums: Vec<Vec<u8>> = stream.chunks(CHUNK).map(sha256).collect();
        for sum in &sums {
            assert!(manifest.contains(&hex(sum)), "{after}: the manifest of {} lacks a chunk", entry.guid);
        }
        assert_eq!(entry.composite, hex(&sha256(&sums.concat())), "{after}: {}", entry.guid);
    }
    let journal = std::fs::read_to_string(host.data("upload_progress.yml")).ok();
    let pending = journal.as_deref().and_then(|text| text.split("\"id\":\"").nth(1)).map(|text| &text[..8]);
    for key in state.keys() {
        let name = key.rsplit_once('/').unwrap().1;
        let id = name.split('.').next().and_then(|stem| stem.rsplit_once('-')).unwrap().1;
        // `recover` has not read it yet
        let is_new = entries.len() < 2 && host.home().join("old_store").exists();
        assert!(known.contains_key(id) || pending == Some(id) || is_new, "{after}: {key} belongs to nothing");
    }
    for upload in state.uploads.values() {
        assert!(
            pending.is_some_and(|id| upload.key.contains(id)),
            "{after}: the upload of {} is forgotten",
            upload.key
        );
    }
    assert!(pending.is_some() || host.holds().is_empty(), "{after}: a hold is left: {}", host.holds());
}

/// A command, what it begins with, which command heals it, if one is needed, and what must be so at the end.
struct Case {
    setup: fn() -> Host,
    command: &'static str,
    heal: fn(&Host) -> Option<&'static str>,
    end: fn(&Host),
}

impl Case {
    /// Runs the command once for each step; `act`: `kill`, or the number of an error. How many steps there
    /// were.
    fn at_each_step(&self, act: &str) -> u64 {
        let command = self.command;
        let mut n = 0;
        loop {
            n += 1;
            let mut host = (self.setup)();
            let Some(what) = stopped(&mut host, act, n, command) else {
                host.assert_clean();
                return n - 1;
            };
            let after = format!("{command}: {act} at step {n}, {what}");
            check(&host, &after);
            // of those that heal, each is killed at another step, too
            if act == "kill"
                && let Some(heal) = (self.heal)(&host)
                && let Some(second) = stopped(&mut host, "kill", 1 + n * 7 % 23, heal)
            {
                check(&host, &format!("{after}; {heal}: killed at {second}"));
            }
            if let Some(heal) = (self.heal)(&host) {
                host.ok(heal);
            }
            check(&host, &format!("{after}, healed"));
            // it also removes a file that was being replaced
            host.run("abort_upload").expect(4);
            host.assert_clean();
            (self.end)(&host);
        }
    }

    fn run(&self) {
        for act in ["kill", ENOSPC, EIO] {
            let steps = self.at_each_step(act);
            assert!(steps >= 5, "{}: {act}: {steps} steps", self.command);
            println!("{}: {act}: {steps} steps, all healed", self.command);
        }
    }
}

/// Runs the command up to this step. What the step was; none: the command has fewer.
fn stopped(host: &mut Host, act: &str, n: u64, command: &str) -> Option<String> {
    let note = host.home().join("step");
    let _ = std::fs::remove_file(&note);
    host.set("ZFS2S3_TEST_STEP", &format!("{act} {n} {}", note.display()));
    let ran = host.run(command);
    host.unset("ZFS2S3_TEST_STEP");
    let what = std::fs::read_to_string(&note).ok();
    let is_killed = act == "kill" && what.is_some();
    assert_eq!(is_killed, ran.status == -9, "{command}: {act} at step {n}: {}", ran.stderr);
    if what.is_none() {
        ran.expect(0);
    }
    what
}

fn is_pending(host: &Host) -> bool {
    host.data("upload_progress.yml").exists()
}

fn stored(host: &Host) -> Vec<u64> {
    let mut guids: Vec<u64> =
        entries(host).iter().filter(|entry| entry.is_stored).map(|entry| entry.guid).collect();
    guids.sort_unstable();
    guids
}

fn interrupted() -> Host {
    let host = host();
    host.killed("upload tank/a@1", "UploadPart", 3, Fault::KillBefore);
    host
}

fn with_one_stored() -> Host {
    let host = host();
    host.ok("upload tank/a@1");
    host
}

fn resume_or_upload(host: &Host) -> Option<&'static str> {
    match (is_pending(host), entries(host).is_empty()) {
        (true, _) => Some("resume_upload"),
        (false, true) => Some("upload tank/a@1"),
        (false, false) => None,
    }
}

fn abort(host: &Host) -> Option<&'static str> {
    is_pending(host).then_some("abort_upload")
}

fn has_one(host: &Host) {
    assert_eq!(stored(host), [1]);
}

fn has_both(host: &Host) {
    assert_eq!(stored(host), [1, 2]);
}

/// What was stored when it was aborted stays.
fn has_one_or_none(host: &Host) {
    let objects = host.s3.state().keys().len();
    assert_eq!(objects == 0, stored(host).is_empty(), "{objects} objects");
}

#[test]
fn an_upload_of_three_segments_is_resumed() {
    Case { setup: host, command: "upload tank/a@1", heal: resume_or_upload, end: has_one }.run();
}

#[test]
fn an_upload_of_three_segments_is_aborted() {
    Case { setup: host, command: "upload tank/a@1", heal: abort, end: has_one_or_none }.run();
}

#[test]
fn an_incremental_upload_is_resumed() {
    let heal = |host: &Host| match (is_pending(host), entries(host).len()) {
        (true, _) => Some("resume_upload"),
        (false, 1) => Some("upload -i @1 tank/a@2"),
        _ => None,
    };
    Case { setup: with_one_stored, command: "upload -i @1 tank/a@2", heal, end: has_both }.run();
}

#[test]
fn a_resume_is_resumed() {
    Case { setup: interrupted, command: "resume_upload", heal: resume_or_upload, end: has_one }.run();
}

#[test]
fn a_resume_is_aborted() {
    Case { setup: interrupted, command: "resume_upload", heal: abort, end: has_one_or_none }.run();
}

#[test]
fn an_abort_is_continued() {
    Case { setup: interrupted, command: "abort_upload", heal: abort, end: has_one_or_none }.run();
}

#[test]
fn a_removal_is_continued() {
    let heal = |host: &Host| (entries(host).len() == 2).then_some("remove -i @1 tank/a@2");
    Case { setup: with_two_stored, command: "remove -i @1 tank/a@2", heal, end: has_one }.run();
}

#[test]
fn a_removal_is_cancelled() {
    let setup = || {
        let host = with_two_stored();
        host.killed("remove -i @1 tank/a@2", "DeleteObject", 0, Fault::KillBefore);
        host
    };
    let heal = |host: &Host| (stored(host).len() < 2).then_some("recover -m");
    Case { setup, command: "recover -m", heal, end: has_both }.run();
}

#[test]
fn a_store_is_recovered() {
    let setup = || {
        let host = with_two_stored();
        std::fs::remove_file(host.data("stored_snapshots.yml")).unwrap();
        std::fs::write(host.home().join("old_store"), "").unwrap();
        host
    };
    let heal = |host: &Host| entries(host).is_empty().then_some("recover");
    Case { setup, command: "recover", heal, end: has_both }.run();
}

#[test]
fn an_old_store_is_recovered() {
    let setup = || {
        let host = with_one_stored();
        let before = host.store_text();
        host.ok("upload -i @1 tank/a@2");
        host.write_data("stored_snapshots.yml", &before);
        std::fs::write(host.home().join("old_store"), "").unwrap();
        host
    };
    let heal = |host: &Host| (stored(host).len() < 2).then_some("recover -m");
    Case { setup, command: "recover -m", heal, end: has_both }.run();
}
