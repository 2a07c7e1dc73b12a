//! Two hosts on one bucket: the real binary, under every schedule of two commands with at most two
//! preemptions, under random ones with more, and with kills. The result is checked only from the bucket and
//! the stores.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Child;

use crate::support::gate::{ACCESS_KEYS, Verdict};
use crate::support::s3::Object;
use crate::support::{Fault, Host};

/// Two stores, each as on a host of its own, or the same one twice; with the same pool.
pub struct Pair {
    pub host: Host,
    folders: [&'static str; 2],
    /// The bucket, the stores and the files of zfs at the beginning of each schedule.
    bucket: BTreeMap<String, Object>,
    stores: [BTreeMap<String, Vec<u8>>; 2],
    zfs: BTreeMap<String, Vec<u8>>,
    /// The part that is omitted from the protocol, to show that this is noticed.
    lacks: Option<&'static str>,
    /// What is pending on the first host.
    pending: Option<String>,
    /// What else must be so in the end, or what is wrong.
    pub end: fn(&Pair, &[Ended; 2]) -> Option<String>,
}

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Ended {
    pub line: String,
    pub status: i32,
    pub said: String,
}

/// One step: which host continues, for how many requests.
type Schedule = Vec<(usize, usize)>;
const TO_THE_END: usize = usize::MAX;

impl Pair {
    /// `setup`: commands of the first host; the second one recovers what they have stored.
    fn new(setup: &[&str]) -> Pair {
        Pair::of(Host::with_snapshots(4), ["host0", "host1"], setup)
    }

    /// In these folders.
    pub fn of(mut host: Host, folders: [&'static str; 2], setup: &[&str]) -> Pair {
        host.set("ZFS2S3_JOBS", "1");
        // the schedule holds what is waited for
        host.set("ZFS2S3_TEST_PATIENCE_MS", "100");
        let mut pair = Pair {
            host,
            folders,
            bucket: BTreeMap::new(),
            stores: Default::default(),
            zfs: BTreeMap::new(),
            lacks: None,
            pending: None,
            end: |_, _| None,
        };
        for line in setup {
            assert_eq!(pair.run(0, line).status, 0, "{line}");
        }
        if !setup.is_empty() && folders[0] != folders[1] {
            assert_eq!(pair.run(1, "recover").status, 0);
        }
        pair.keep();
        pair
    }

    /// The present state is the beginning of each schedule.
    pub fn keep(&mut self) {
        self.bucket = self.host.s3.state().objects.clone();
        self.stores = [0, 1].map(|n| files(&self.folder(n)));
        self.zfs = files(&self.host.home().join("zfs"));
        self.zfs.remove("holds");
    }

    fn begin(&self) {
        let mut state = self.host.s3.state();
        state.objects = self.bucket.clone();
        state.copies.clear();
        assert!(state.uploads.is_empty());
        drop(state);
        let zfs = self.host.home().join("zfs");
        for (name, bytes) in files(&zfs) {
            match self.zfs.get(&name) {
                None => std::fs::remove_file(zfs.join(name)).unwrap(),
                Some(before) if *before != bytes => std::fs::write(zfs.join(name), before).unwrap(),
                Some(_) => {}
            }
        }
        for n in [0, 1] {
            let _ = std::fs::remove_dir_all(self.folder(n));
            std::fs::create_dir_all(self.folder(n)).unwrap();
            for (name, bytes) in &self.stores[n] {
                std::fs::write(self.folder(n).join(name), bytes).unwrap();
            }
        }
    }

    pub fn folder(&self, n: usize) -> PathBuf {
        self.host.home().join(self.folders[n]).join("zfs2s3")
    }

    fn spawn(&self, n: usize, line: &str) -> Child {
        let mut command = self.host.command(line);
        command.env("XDG_DATA_HOME", self.folder(n).parent().unwrap());
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEYS[n]);
        if let Some(part) = self.lacks {
            command.env("ZFS2S3_TEST_LACKS", part);
        }
        command.spawn().unwrap()
    }

    pub fn run(&self, n: usize, line: &str) -> Ended {
        ended(line, self.spawn(n, line))
    }

    /// Runs both commands by the schedule. `kill`: this host, when it would continue after its turn; its last
    /// request is done, or never arrives. Returns the number of requests of each.
    fn race(
        &self,
        lines: [&str; 2],
        schedule: &[(usize, usize)],
        kill: Option<(usize, Verdict)>,
    ) -> ([Ended; 2], [usize; 2]) {
        self.begin();
        let gate = &self.host.s3.gate;
        gate.set_closed(true);
        let mut requests = [0; 2];
        let mut children: Vec<Option<Child>> = vec![];
        for (n, line) in lines.iter().enumerate() {
            let mut child = self.spawn(n, line);
            gate.await_request(n, || child.try_wait().unwrap().is_some());
            children.push(Some(child));
        }
        let mut has_run = [false; 2];
        let both = [(0, TO_THE_END), (1, TO_THE_END)];
        for (n, count) in schedule.iter().copied().chain(both) {
            let child = children[n].as_mut().unwrap();
            let dies = kill.is_some_and(|(victim, _)| victim == n) && has_run[n];
            has_run[n] = true;
            let mut left = count;
            while left > 0 && gate.await_request(n, || child.try_wait().unwrap().is_some()) {
                if dies {
                    child.kill().unwrap();
                    let _ = child.wait();
                    gate.release(n, kill.unwrap().1);
                    break;
                }
                gate.release(n, Verdict::Pass);
                requests[n] += 1;
                left -= 1;
            }
        }
        gate.set_closed(false);
        let mut ended = children.into_iter().zip(lines).map(|(child, line)| ended(line, child.unwrap()));
        ([ended.next().unwrap(), ended.next().unwrap()], requests)
    }

    /// What users do after that: continue what is pending, until nothing is.
    fn heal(&self, lines: [&str; 2], resume: &str) -> Vec<Ended> {
        let mut all = vec![];
        for round in 0..6 {
            let mut calm = true;
            for (n, line) in lines.iter().enumerate() {
                let pending = self.folder(n).join("upload_progress.yml").exists();
                let text = self.store(n).unwrap_or_default();
                if pending {
                    // what can no longer be stored is aborted, and what others need is resumed
                    let other = if resume == "resume_upload" { "abort_upload" } else { "resume_upload" };
                    all.push(self.run(n, [resume, other][round % 2]));
                    calm = false;
                } else if text.contains("\"state\":\"removing\"") {
                    // with one store it may be the other's
                    let removal = |line: &&&str| line.starts_with("remove ");
                    let line = Some(line).filter(removal).or(lines.iter().find(removal)).unwrap();
                    all.push(self.run(n, line));
                    calm = false;
                }
            }
            if calm {
                return all;
            }
        }
        panic!("nothing comes to rest: {all:#?}");
    }

    fn store(&self, n: usize) -> Option<String> {
        std::fs::read_to_string(self.folder(n).join("stored_snapshots.yml")).ok()
    }

    /// The problems that show from outside, when nothing is pending. `told`: what a host was asked to remove.
    fn problems(&self, lines: [&str; 2], told: &[&str]) -> Vec<String> {
        let mut bad = vec![];
        let state = self.host.s3.state();
        if !state.uploads.is_empty() {
            bad.push("an upload is open".to_string());
        }
        if !self.host.holds().is_empty() {
            bad.push(format!("holds: {}", self.host.holds()));
        }
        let keys: Vec<&str> = state.keys();
        let mut whole = BTreeSet::new();
        for key in &keys {
            let (stem, end) = key.rsplit_once('.').unwrap();
            let has = |end: &str| keys.contains(&format!("{stem}.{end}").as_str());
            match end {
                "yml" if has("zfs") => drop(whole.insert(stem.to_string())),
                "zfs" if has("yml") => {}
                // of a host that was killed before it looked: it means nothing, and no store has it
                end if end.starts_with("keep-") => {}
                _ => bad.push(format!("left alone: {key}")),
            }
        }
        let links: Vec<(String, Option<String>)> = whole.iter().map(|stem| link(stem)).collect();
        let mut reached = BTreeSet::new();
        for _ in &links {
            for (snapshot, base) in &links {
                if base.as_ref().is_none_or(|base| reached.contains(base)) {
                    reached.insert(snapshot.clone());
                }
            }
        }
        for (stem, (_, base)) in whole.iter().zip(&links) {
            if base.as_ref().is_some_and(|base| !reached.contains(base)) {
                bad.push(format!("no chain leads to the base of {stem}"));
            }
        }
        for n in [0, 1] {
            for entry in self.entries(n) {
                let name = shown(&entry);
                if entry["state"] == "removing" {
                    bad.push(format!("host {n}: {name} is being removed"));
                }
                let key = entry["stream"]["segments"][0]["key"].as_str().unwrap();
                let stem = key.trim_end_matches(".zfs");
                let backup = stem.rsplit_once('-').unwrap().0;
                let is_marked = keys.iter().any(|key| key.starts_with(&format!("{backup}.keep-")));
                // whoever withdraws it may be another host, or be killed before it is told
                let is_withdrawn = lines.iter().any(|line| line.starts_with("unkeep"));
                if entry["kept"] == true && !is_withdrawn && !(whole.contains(stem) && is_marked) {
                    bad.push(format!("host {n} calls {name} kept, and it is gone, or not marked"));
                }
                if told.contains(&name.as_str()) {
                    continue;
                }
                if !whole.contains(stem) {
                    bad.push(format!("host {n} calls {name} stored, and it is gone"));
                } else if link(stem).1.is_some_and(|base| !reached.contains(&base)) {
                    bad.push(format!("host {n} calls {name} stored, and no chain leads to its base"));
                }
            }
        }
        bad
    }

    fn entries(&self, n: usize) -> Vec<serde_json::Value> {
        let text = self.store(n).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("- ")?).ok()).collect()
    }

    /// Runs one schedule, recovers, and checks. Returns the first problem, if there is one.
    fn check(
        &self,
        lines: [&str; 2],
        schedule: Schedule,
        kill: Option<(usize, Verdict)>,
        resume: &str,
    ) -> Result<[usize; 2], String> {
        let (ended, requests) = self.race(lines, &schedule, kill);
        let healed = self.heal(lines, resume);
        // a removal that was allowed counts as requested
        let told: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("remove ")).collect();
        let mut told: Vec<String> = told.iter().map(|line| line.replace("-i @", "-i tank/a@")).collect();
        // the other host may have recovered what is aborted
        told.extend(self.pending.clone());
        let told: Vec<&str> = told.iter().map(String::as_str).collect();
        let mut bad = self.problems(lines, &told);
        bad.extend((self.end)(self, &ended));
        for it in ended.iter().chain(&healed) {
            if let Some(why) = self.unexplained(it) {
                bad.push(why);
            }
        }
        if bad.is_empty() {
            return Ok(requests);
        }
        Err(format!(
            "{lines:?} {schedule:?} {kill:?} {bad:#?}\n{ended:#?}\n{healed:#?}\n{:#?}",
            self.host.s3.state().keys()
        ))
    }

    pub fn holds(&self, lines: [&str; 2]) {
        match self.explore(lines, "resume_upload") {
            Ok(count) => println!("{lines:?}: {count} schedules"),
            Err(why) => panic!("{why}"),
        }
    }

    /// All schedules with at most two preemptions, or a share of so many, some random ones, and kills. Returns
    /// their number, or the first that failed.
    fn explore(&self, lines: [&str; 2], resume: &str) -> Result<usize, String> {
        let steps = [
            self.check(lines, vec![(0, TO_THE_END), (1, TO_THE_END)], None, resume)?,
            self.check(lines, vec![(1, TO_THE_END), (0, TO_THE_END)], None, resume)?,
        ];
        let mut count = 2;
        // of whole trees, there are hundreds
        let all = steps[0][0] * steps[1][1];
        let is_whole = std::env::var_os("ZFS2S3_WHOLE_MATRIX").is_some();
        let (share, random_ones) = if is_whole || all <= 200 { (1, 25) } else { (all / 12, 8) };
        for first in [0, 1] {
            let (most, others) = (steps[first][first], steps[1 - first][1 - first]);
            for i in 1..=most {
                for j in (1..=others).filter(|j| (i * others + j) % share == 0) {
                    let schedule =
                        vec![(first, i), (1 - first, j), (first, TO_THE_END), (1 - first, TO_THE_END)];
                    self.check(lines, schedule, None, resume)?;
                    count += 1;
                    if (i + j) % 3 != 0 {
                        continue;
                    }
                    // the first one is killed there, and the other continues
                    let verdict = if i % 2 == 0 { Verdict::Pass } else { Verdict::Discard };
                    let schedule = vec![(first, i), (1 - first, j), (first, 1), (1 - first, TO_THE_END)];
                    self.check(lines, schedule, Some((first, verdict)), resume)?;
                    count += 1;
                }
            }
        }
        let mut random = 0x2f5b_acba_c000_0001u64;
        let mut below = |limit: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % limit as u64) as usize
        };
        for _ in 0..random_ones {
            let schedule = (0..16).map(|_| (below(2), 1 + below(2))).collect();
            let kill = match below(4) {
                n @ (0 | 1) => Some((n, if below(2) == 0 { Verdict::Pass } else { Verdict::Discard })),
                _ => None,
            };
            self.check(lines, schedule, kill, resume)?;
            count += 1;
        }
        Ok(count)
    }

    /// Each exit status has its reason.
    fn unexplained(&self, it: &Ended) -> Option<String> {
        let any = |words: &[&str]| words.iter().any(|word| it.said.contains(word));
        let verifies = it.line.starts_with("verify");
        let reads = verifies || it.line.starts_with("restore") || it.line.starts_with("thaw");
        let fine = match it.status {
            0 | -9 => true,
            1 => {
                any(&[
                    "is stored",
                    "but is being removed: it is not added",
                    "no full backup",
                    "no such incremental backup",
                    "cannot be kept",
                    "recover -m",
                ]) || (reads
                    && any(&["the bucket has no object", "the object may have been removed meanwhile"]))
                    || (verifies && any(&["1 backup of 2 could not be checked"]))
                    || (it.line.starts_with("recover")
                        && any(&["some backups in the bucket or in the store cannot be restored"]))
            }
            3 => any(&[
                "is needed to restore other backups",
                "is stored already",
                "is in the bucket already",
                "no stored chain of backups leads to the base",
                "is being removed",
                "is kept, as ",
                "another host has removed it",
                "another host has removed them",
                "but the store has none: a new full backup may not be what is needed",
            ]),
            4 if any(&["another zfs2s3 is running"]) => self.folders[0] == self.folders[1],
            4 => any(&["no upload is pending", "an upload is pending"]),
            // this host's store does not know that another host has removed it
            5 if verifies => any(&["it is missing"]) && self.folders[0] != self.folders[1],
            75 => {
                any(&["while a removal is announced", "is being removed", "no longer knows the upload"])
                    || (reads && any(&["S3 is thawing"]))
            }
            _ => false,
        };
        (!fine).then(|| format!("status {} of '{}' is not explained: {}", it.status, it.line, it.said))
    }
}

fn files(folder: &std::path::Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(folder).into_iter().flatten().map(|file| file.unwrap().path());
    files
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_string(), std::fs::read(&path).unwrap()))
        .collect()
}

fn ended(line: &str, child: Child) -> Ended {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ended { line: line.to_string(), status: output.status.code().unwrap_or(-9), said }
}

/// Snapshot and base, of a key.
fn link(stem: &str) -> (String, Option<String>) {
    let words: Vec<&str> = stem.rsplit('/').next().unwrap().split('-').collect();
    (words[0].to_string(), (words[1] == "from").then(|| words[2].to_string()))
}

/// As an argument of a command.
fn shown(entry: &serde_json::Value) -> String {
    let name = |point: &serde_json::Value| point["name"].as_str().map(str::to_string);
    let base = name(&entry["base"]).map(|base| format!("-i {base} ")).unwrap_or_default();
    base + &name(&entry["snapshot"]).unwrap()
}

/// Of a mark and a removal one wins, or neither; never both.
#[test]
fn what_is_kept_by_one_host_is_not_removed_by_the_other() {
    let setup = ["upload tank/a@1", "upload -i @1 tank/a@2"];
    holds(&setup, ["keep -i @1 tank/a@2", "remove -i @1 tank/a@2"]);
    holds(&setup, ["remove -i @1 tank/a@2", "keep tank/a@1"]);
}

fn holds(setup: &[&str], lines: [&str; 2]) {
    Pair::new(setup).holds(lines);
}

#[test]
fn an_upload_whose_base_is_being_removed() {
    holds(&["upload tank/a@1"], ["remove tank/a@1", "upload -i @1 tank/a@2"]);
}

#[test]
fn two_routes_removed_at_the_same_time() {
    let setup = ["upload tank/a@1", "upload -i @1 tank/a@2", "upload tank/a@2", "upload -i @2 tank/a@3"];
    holds(&setup, ["remove tank/a@2", "remove -i @1 tank/a@2"]);
}

#[test]
fn the_same_backup_stored_at_the_same_time() {
    holds(&[], ["upload tank/a@1", "upload tank/a@1"]);
}

#[test]
fn the_same_backup_removed_at_the_same_time() {
    let setup = ["upload tank/a@1", "upload -i @1 tank/a@2"];
    holds(&setup, ["remove -i @1 tank/a@2", "remove -i @1 tank/a@2"]);
}

#[test]
fn a_chain_removed_from_its_end_while_it_grows() {
    let setup = ["upload tank/a@1", "upload -i @1 tank/a@2"];
    holds(&setup, ["remove -i @1 tank/a@2", "upload -i @2 tank/a@3"]);
}

#[test]
fn a_backup_is_recovered_while_it_is_removed() {
    let mut pair = Pair::new(&["upload tank/a@1", "upload -i @1 tank/a@2"]);
    std::fs::remove_file(pair.folder(1).join("stored_snapshots.yml")).unwrap();
    pair.keep();
    pair.holds(["remove -i @1 tank/a@2", "recover"]);
}

/// The first host was killed between its manifest and its store; the second has recovered what it has made.
#[test]
fn an_upload_is_aborted_while_another_uses_it_as_its_base() {
    let mut pair = Pair::new(&["upload tank/a@1"]);
    let host = &pair.host;
    host.s3.fault("PutObject", 0, 1, Fault::KillAfter);
    let child = pair.spawn(0, "upload -i @1 tank/a@2");
    host.s3.victim.store(child.id(), std::sync::atomic::Ordering::SeqCst);
    assert_eq!(ended("", child).status, -9);
    host.s3.no_more_faults();
    assert_eq!(pair.run(1, "recover -m").status, 0);
    pair.keep();
    pair.pending = Some("-i tank/a@1 tank/a@2".to_string());
    for resume in ["abort_upload", "resume_upload"] {
        if let Err(why) = pair.explore(["abort_upload", "upload -i @2 tank/a@3"], resume) {
            panic!("{why}");
        }
    }
}

/// The base is there only as a copy that the first host does not know.
#[test]
fn an_upload_whose_base_is_in_another_store_is_aborted() {
    let pair = Pair::new(&["upload tank/a@1"]);
    let host = &pair.host;
    // a second copy of the base, for the second host alone
    let first: Vec<_> = std::mem::take(&mut host.s3.state().objects).into_iter().collect();
    std::fs::remove_file(pair.folder(1).join("stored_snapshots.yml")).unwrap();
    assert_eq!(pair.run(1, "upload tank/a@1").status, 0);
    host.s3.state().objects.extend(first);
    host.s3.fault("PutObject", 0, 1, Fault::KillAfter);
    let child = pair.spawn(0, "upload -i @1 tank/a@2");
    host.s3.victim.store(child.id(), std::sync::atomic::Ordering::SeqCst);
    assert_eq!(ended("", child).status, -9);
    host.s3.no_more_faults();
    let said = pair.run(1, "recover -m").said;
    let spare = said.split("'zfs2s3 ").nth(1).unwrap().split('\'').next().unwrap().to_string();
    assert!(spare.starts_with("remove -c "), "{said}");
    assert_eq!(pair.run(1, &spare).status, 0);
    assert_eq!(pair.run(1, "upload -i @2 tank/a@3").status, 0);
    assert_eq!(pair.run(0, "resume_upload").status, 3);
    let aborted = pair.run(0, "abort_upload");
    assert_eq!(aborted.status, 3, "{}", aborted.said);
    assert!(aborted.said.contains("-i tank/a@2 tank/a@3"), "{}", aborted.said);
    assert_eq!(pair.run(1, "restore tank/a@3 tank/new").status, 0);
}

/// The tests notice if a part of the protocol is missing.
#[test]
fn a_binary_that_lacks_a_part_of_the_protocol_is_caught() {
    for (part, lines) in [
        ("announcing first", ["remove tank/a@1", "upload -i @1 tank/a@2"]),
        ("second look", ["remove tank/a@1", "upload -i @1 tank/a@2"]),
    ] {
        let mut pair = Pair::new(&["upload tank/a@1"]);
        pair.lacks = Some(part);
        let why = pair.explore(lines, "resume_upload").expect_err(part);
        assert!(why.contains("no chain leads to its base") || why.contains("it is gone"), "{part}: {why}");
    }
}
