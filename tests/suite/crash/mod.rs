//! Each command is interrupted, or meets a fault, wherever that is possible. Then what must always hold
//! (src/DESIGN.md) is checked from the files and the bucket alone, the command that heals runs, and it is
//! checked again.

mod local;
mod power;
mod requests;
mod signals;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use serde_json::Value;

use crate::support::disk;
use crate::support::sigv4::{hex, sha256};
use crate::support::{Fault, Host, PYTHON_STORE, Ran, S2, made_stream, s3};

const CHUNK: usize = 4096;

/// Its inverse, and how many bytes it adds. It gives other bytes each time, as encryption does.
const FILTER: (&str, &str, usize) = ("head -c 8 /dev/urandom; cat", "tail -c +9", 8);

/// In the home of a host: there are backups that its store lacks.
const OLD_STORE: &str = "old_store";

/// `tank/a@1` in five chunks and three segments; `@2` and `@3` in one chunk.
fn host() -> Host {
    let mut host = Host::with_snapshots(3);
    host.add_stream(("", 1), None, &made_stream(1, 0, 4 * CHUNK + 700));
    host.set("ZFS2S3_CHUNK_SIZE", &CHUNK.to_string());
    host.set("ZFS2S3_TEST_PARTS", "2");
    host.set("ZFS2S3_JOBS", "1");
    host
}

/// Two chunks are a part: three parts in three segments.
fn with_filter() -> Host {
    filtering(host())
}

fn filtering(mut host: Host) -> Host {
    host.set("ZFS2S3_FILTER", FILTER.0);
    host.set("ZFS2S3_UNFILTER", FILTER.1);
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
    /// None: of the Python tool.
    id: Option<String>,
    is_stored: bool,
    keys: Vec<String>,
    composite: String,
}

fn entries(host: &Host) -> Vec<Stored> {
    let text = host.store_text();
    if text.starts_with("!S3BackupStructureDto") {
        return vec![];
    }
    let entry = |line: &str| {
        let entry: Value = serde_json::from_str(line).unwrap();
        let guid = |point: &Value| point["guid"].as_str().map(|text| text.parse().unwrap());
        let segments = entry["stream"]["segments"].as_array().into_iter().flatten();
        Stored {
            guid: guid(&entry["snapshot"]).unwrap(),
            base: guid(&entry["base"]),
            id: entry["id"].as_str().map(str::to_string),
            is_stored: entry.get("state").is_none(),
            keys: segments.map(|segment| segment["key"].as_str().unwrap().to_string()).collect(),
            composite: entry["stream"]["composite_sha256"].as_str().unwrap_or_default().to_string(),
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
        if let Some(id) = &entry.id {
            known.insert(id, entry.is_stored);
        }
        if !entry.is_stored {
            continue;
        }
        assert!(
            entry.base.is_none_or(|base| snapshots.contains(&base)),
            "{after}: the base of {} is lost",
            entry.guid
        );
        if entry.id.is_none() {
            continue;
        }
        let name = entry.base.map_or("full".to_string(), |base| format!("from-{base}"));
        let stream =
            std::fs::read(host.home().join(format!("zfs/{}-{name}", entry.guid))).expect("its stream");
        let there: Vec<u8> = entry.keys.iter().flat_map(|key| state.bytes(key).to_vec()).collect();
        let manifest = entry.keys[0].replace(".zfs", ".yml");
        let manifest = String::from_utf8(state.bytes(&manifest).to_vec()).unwrap();
        let grown = if manifest.contains("- filter\n") { FILTER.2 } else { 0 };
        let chunks: Vec<&[u8]> = there.chunks(CHUNK + grown).collect();
        let plain: Vec<u8> = chunks.iter().flat_map(|chunk| chunk[grown..].to_vec()).collect();
        assert!(plain == stream, "{after}: the data of {} are not the stream", entry.guid);
        let sums: Vec<Vec<u8>> = chunks.iter().map(|chunk| sha256(chunk)).collect();
        for sum in &sums {
            assert!(manifest.contains(&hex(sum)), "{after}: the manifest of {} lacks a chunk", entry.guid);
        }
        assert_eq!(entry.composite, hex(&sha256(&sums.concat())), "{after}: {}", entry.guid);
    }
    let journal = std::fs::read_to_string(host.data("upload_progress.yml")).ok();
    let pending = journal.as_deref().and_then(|text| text.split("\"id\":\"").nth(1)).map(|text| &text[..8]);
    for key in state.keys() {
        let name = key.rsplit_once('/').unwrap().1;
        // it is of the Python tool, or a mark, which is not of one copy
        if !name.contains('.') || name.contains(".keep-") {
            continue;
        }
        let id = name.split('.').next().and_then(|stem| stem.rsplit_once('-')).unwrap().1;
        // `recover` has not read it yet
        let is_new = host.home().join(OLD_STORE).exists() && snapshots.len() < 2;
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
    /// Of the command and of what heals it.
    status: i32,
    /// Of so many steps one is tried, unless everything is to be.
    share: u64,
}

impl Case {
    fn new(
        setup: fn() -> Host,
        command: &'static str,
        heal: fn(&Host) -> Option<&'static str>,
        end: fn(&Host),
    ) -> Case {
        Case { setup, command, heal, end, status: 0, share: 1 }
    }

    /// After whatever has happened: the rules hold, they still do after healing, and the end is as it must
    /// be.
    fn heals(&self, host: &Host, after: &str) {
        // shown if the test fails
        println!("{after}");
        check(host, after);
        // `upload -r` goes on with other datasets
        for _ in 0..2 {
            if let Some(heal) = (self.heal)(host) {
                host.run(heal).expect(self.status);
            }
        }
        check(host, &format!("{after}, healed"));
        // it also removes a file that was being replaced
        host.run("abort_upload").expect(4);
        for name in disk::files(&host.data("")).keys() {
            // what is only for `list` is replaced without the lock, and removed after an hour
            let is_left = name.ends_with(".tmp") && !name.starts_with("archive_states.");
            assert!(!is_left && name != "upload_progress.yml", "{after}, healed: {name} is left");
        }
        (self.end)(host);
    }
}

/// How the commands that met a fault have ended.
#[derive(Default)]
struct Counts {
    done: usize,
    refused: usize,
}

impl Counts {
    /// It has ended right, or with a documented status and an error.
    fn add(&mut self, case: &Case, ran: &Ran, after: &str) {
        assert!([0, 1, 3, 75].contains(&ran.status), "{after}");
        assert!(ran.status == 0 || ran.stderr.contains("zfs2s3: error: ") || case.status != 0, "{after}");
        if ran.status == case.status {
            self.done += 1;
        } else {
            self.refused += 1;
        }
    }

    fn report(&self, case: &Case, what: &str) {
        let Counts { done, refused } = self;
        report(&format!(
            "{}: {} {what}: {done} times done all the same, {refused} times refused; all healed",
            case.command,
            done + refused
        ));
    }
}

/// Tries each of `kinds` at each moment, or at one of so many. `meet` gets a host, the kind, and the number
/// of the moment, and returns whether the command has such a moment.
fn at_each_moment<T>(case: &Case, kinds: &[T], share: u64, mut meet: impl FnMut(Host, &T, usize) -> bool) {
    for (seed, kind) in (0..).zip(kinds) {
        let moments = (0..).filter(|n| is_in_share(n + seed, share * case.share));
        for n in moments {
            if !meet((case.setup)(), kind, n as usize) {
                break;
            }
        }
    }
}

/// What was done, for who reads the output of the tests.
fn report(counts: &str) {
    // the capture of the tests has no part in it
    let _ = writeln!(std::io::stderr(), "{counts}");
}

/// What remains of a test that takes long: everything, or a share, which is another one for each `seed`.
fn is_in_share(seed: u64, share: u64) -> bool {
    std::env::var_os("ZFS2S3_WHOLE_MATRIX").is_some() || seed.is_multiple_of(share)
}

/// Is what was run here still running, such as a `zfs receive`?
fn await_children(host: &Host) {
    let folder = host.home().join("zfs").canonicalize().unwrap();
    let is_here = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == folder))
    };
    for _ in 0..1000 {
        if !std::fs::read_dir("/proc").unwrap().any(is_here) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("a command of zfs goes on for 10 seconds");
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

/// Until so many are stored.
fn resume_or(host: &Host, count: usize, upload: &'static str) -> Option<&'static str> {
    if is_pending(host) {
        return Some("resume_upload");
    }
    (stored(host).len() < count).then_some(upload)
}

fn resume_or_upload(host: &Host) -> Option<&'static str> {
    resume_or(host, 1, "upload tank/a@1")
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

fn tree() -> Host {
    Host::with_tree()
}

/// What the Python tool has left, and a snapshot after it.
fn python() -> Host {
    let host = Host::of_python_tool();
    host.snapshot(("tank/src@s3", 33), 30);
    host.add_stream(("", 33), Some(S2), &made_stream(33, S2.1, 700));
    host
}

/// A chain of two, in one chunk each, in this class.
fn small(class: &str) -> Host {
    stored_small(Host::with_snapshots(2), class)
}

/// The same, filtered.
fn filtered() -> Host {
    stored_small(filtering(Host::with_snapshots(2)), "STANDARD")
}

fn stored_small(mut host: Host, class: &str) -> Host {
    host.set("ZFS2S3_CHUNK_SIZE", &CHUNK.to_string());
    host.set("ZFS2S3_JOBS", "1");
    host.set("ZFS2S3_STORAGE_CLASS", class);
    host.ok("upload tank/a@1");
    host.ok("upload -i @1 tank/a@2");
    host
}

fn removing() -> Host {
    let host = with_two_stored();
    host.killed("remove -i @1 tank/a@2", "DeleteObject", 0, Fault::KillBefore);
    host
}

fn lost_store() -> Host {
    let host = with_two_stored();
    std::fs::remove_file(host.data("stored_snapshots.yml")).unwrap();
    lacks_backups(host)
}

fn old_store() -> Host {
    let host = with_one_stored();
    let before = host.store_text();
    host.ok("upload -i @1 tank/a@2");
    host.write_data("stored_snapshots.yml", &before);
    lacks_backups(host)
}

fn lacks_backups(host: Host) -> Host {
    std::fs::write(host.home().join(OLD_STORE), "").unwrap();
    host
}

fn recover_the_new(host: &Host) -> Option<&'static str> {
    (stored(host).len() < 2).then_some("recover -m")
}

fn has_tree(host: &Host) {
    assert_eq!(stored(host), [11, 21, 31, 41]);
}

fn has_python(host: &Host) {
    assert_eq!(stored(host).len(), 3);
    let aside = std::fs::read_to_string(host.data("stored_snapshots.yml.orig")).unwrap();
    assert_eq!(aside, PYTHON_STORE);
}

fn is_thawed(host: &Host) {
    let state = host.s3.state();
    assert!(state.copies.len() == 2, "{} are thawed", state.copies.len());
    assert!(state.thawed.len() <= 4, "{:?}", state.thawed);
}

fn is_restored(host: &Host) {
    let there = std::fs::read(host.home().join("zfs/tank%new.received")).unwrap();
    assert!(there == [made_stream(1, 0, 700), made_stream(2, 1, 700)].concat());
}

/// Each `keep` that was interrupted may have left its own mark.
fn is_marked(host: &Host, is_kept: bool) {
    // an empty one is withdrawn
    let is_mark = |(key, object): (&String, &s3::Object)| key.contains(".keep-") && !object.bytes.is_empty();
    let has_mark = host.s3.state().objects.iter().any(is_mark);
    assert_eq!((has_mark, host.store_text().contains("kept")), (is_kept, is_kept));
}

/// Each of them, in each way: `$run` gets one, and is a test of its own.
macro_rules! each_case {
    ($run:path; $($name:ident: $case:expr;)*) => {
        $(#[test]
        fn $name() {
            $run(&$case);
        })*
    };
    ($run:path) => {
        $crate::crash::each_case! { $run;
            an_upload_of_three_segments_is_resumed:
                Case::new(host, "upload tank/a@1", resume_or_upload, has_one);
            a_filtered_upload_is_resumed: Case::new(with_filter, "upload tank/a@1", resume_or_upload, has_one);
            a_filtered_restore_is_continued: Case::new(
                filtered,
                "restore tank/a@2 tank/new",
                |_| Some("restore tank/a@2 tank/new"),
                is_restored
            );
            an_upload_of_three_segments_is_aborted: Case::new(host, "upload tank/a@1", abort, has_one_or_none);
            an_incremental_upload_is_resumed:
                Case::new(
                    with_one_stored,
                    "upload -i @1 tank/a@2",
                    |host| resume_or(host, 2, "upload -i @1 tank/a@2"),
                    has_both
                );
            an_upload_of_a_tree_is_resumed: Case {
                share: 5,
                ..Case::new(
                    tree,
                    "upload -ar tank@1",
                    |host| resume_or(host, 4, "upload -ar tank@1"),
                    has_tree
                )
            };
            an_upload_after_those_of_the_python_tool_is_resumed: Case::new(
                python,
                "upload -i @s2 tank/src@s3",
                |host| resume_or(host, 3, "upload -i @s2 tank/src@s3"),
                has_python
            );
            a_resume_is_resumed: Case::new(interrupted, "resume_upload", resume_or_upload, has_one);
            a_resume_is_aborted: Case::new(interrupted, "resume_upload", abort, has_one_or_none);
            an_abort_is_continued: Case::new(interrupted, "abort_upload", abort, has_one_or_none);
            a_removal_is_continued: Case::new(
                with_two_stored,
                "remove -i @1 tank/a@2",
                |host| (entries(host).len() == 2).then_some("remove -i @1 tank/a@2"),
                has_one
            );
            a_removal_is_cancelled: Case::new(removing, "recover -m", recover_the_new, has_both);
            a_store_is_recovered: Case::new(
                lost_store,
                "recover",
                |host| match stored(host).len() {
                    0 => Some("recover"),
                    1 => Some("recover -m"),
                    _ => None,
                },
                has_both
            );
            an_old_store_is_recovered: Case::new(old_store, "recover -m", recover_the_new, has_both);
            a_mark_is_set: Case::new(
                || small("STANDARD"),
                "keep -i @1 tank/a@2",
                |_| Some("keep -i @1 tank/a@2"),
                |host| is_marked(host, true)
            );
            a_mark_is_removed: Case::new(
                || {
                    let host = small("STANDARD");
                    host.ok("keep -i @1 tank/a@2");
                    host
                },
                "unkeep -i @1 tank/a@2",
                |_| Some("unkeep -i @1 tank/a@2"),
                |host| is_marked(host, false)
            );
            a_thaw_is_continued: Case {
                status: 75,
                ..Case::new(
                    || small("DEEP_ARCHIVE"),
                    "thaw tank/a@2 tank/new",
                    |_| Some("thaw tank/a@2 tank/new"),
                    is_thawed
                )
            };
            a_restore_is_continued: Case::new(
                || small("STANDARD"),
                "restore tank/a@2 tank/new",
                |_| Some("restore tank/a@2 tank/new"),
                is_restored
            );
        }
    };
}
use each_case;
