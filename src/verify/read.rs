//! Verifies backups by reading them: a sample of their chunks, or all of them with the records of the
//! stream.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::objects::{Problem, Severity};
use super::{Checked, Verify};
use crate::chunk_io::concurrency::Concurrency;
use crate::chunk_io::each::for_each;
use crate::chunk_io::fetch;
use crate::error::{Error, Result, Status};
use crate::filter::UNFILTER;
use crate::model::traffic::Meter;
use crate::model::utc::Utc;
use crate::os::clock;
use crate::os::mutex::{into_inner, lock};
use crate::os::random;
use crate::restore::stored::{Opened, StoredBackup};
use crate::restore::survey::{Survey, why_unreadable};
use crate::state::store::format::Entry;
use crate::state::verified::{self, DeepPosition, DeepRun, Method, Proof, Verified};
use crate::stream::StreamError;
use crate::stream::check::StreamCheck;

/// Hashes in memory, of 32 bytes each, unless one backup has more.
const MAX_HASHES: u64 = 1 << 16;
/// Seconds: a deep verification that was stopped longer ago begins anew.
const MAX_AGE: i64 = 30 * 86_400;

impl Verify<'_> {
    /// Reads so many percent of the chunks of each object, at least one. Skips what cannot be read, or is
    /// archived; returns how many backups were not read.
    pub fn read_samples(&self, checked: &mut [Checked], percent: f64) -> Result<u64> {
        let mut readable: Vec<&mut Checked> = checked.iter_mut().filter(|it| it.can_be_read()).collect();
        self.sample(&mut readable, Some(percent))
    }

    /// Reads one chunk of each object that is unclear by its ETag: another object is found so.
    pub fn read_unclear(&self, checked: &mut [Checked]) -> Result<()> {
        let is_unclear = |checked: &&mut Checked| {
            checked.can_be_read() && checked.problems.iter().any(|(_, problem)| problem.is_unclear())
        };
        let mut unclear: Vec<&mut Checked> = checked.iter_mut().filter(is_unclear).collect();
        self.sample(&mut unclear, None).map(|_| ())
    }

    /// Reads so many percent of the chunks of each object; or if there is no percentage, one of each object
    /// that is unclear. Returns how many backups were not read.
    fn sample(&self, backups: &mut [&mut Checked], percent: Option<f64>) -> Result<u64> {
        let jobs = self.client.memory.jobs();
        let mut unread = 0;
        let (mut findings, mut saved) = (Vec::new(), Instant::now());
        let mut rest = backups;
        while !rest.is_empty() {
            let (batch, others) = rest.split_at_mut(self.batch_size(rest));
            rest = others;
            let entries: Vec<&Entry> = batch.iter().map(|it| &self.contents.entries[it.place]).collect();
            let opened = for_each(&entries, jobs, |entry| {
                StoredBackup::open(self.client, &self.contents.prefix, entry)
            })?;
            let mut stored = Vec::new();
            for (checked, opened) in batch.iter_mut().zip(opened) {
                match opened {
                    Opened::Readable(readable) if readable.is_hashed() => stored.push((checked, readable)),
                    Opened::Readable(_) => unread += 1,
                    Opened::Unreadable(survey) if survey.can_be_thawed() => unread += 1,
                    Opened::Unreadable(survey) => {
                        let (key, problem) = unreadable(&self.manifest_key(checked.place), survey);
                        self.add(checked, key, problem);
                    }
                }
            }
            let mut drawn: Vec<(usize, u64)> = Vec::new();
            for (n, (checked, stored)) in stored.iter().enumerate() {
                for (key, chunks) in stored.chunks_of_objects() {
                    let mut problems = checked.problems.iter().filter(|(object, _)| object == key);
                    if percent.is_some() || problems.any(|(_, problem)| problem.is_unclear()) {
                        let chunks = draw(chunks, percent.unwrap_or(0.0));
                        drawn.extend(chunks.into_iter().map(|chunk| (n, chunk)));
                    }
                }
            }
            let readable: Vec<&StoredBackup> = stored.iter().map(|(_, readable)| readable).collect();
            for (n, chunk, error) in self.check(&readable, &drawn)? {
                let key = stored[n].1.object_of(chunk).to_string();
                self.add(stored[n].0, key, problem_of(error));
            }
            if percent.is_some() {
                stored.iter_mut().for_each(|(checked, _)| checked.method = Method::Sample);
                findings.extend(stored.iter().filter_map(|(it, _)| self.finding(it, None)));
                if saved.elapsed() >= self.save_every {
                    self.save(std::mem::take(&mut findings));
                    saved = Instant::now();
                }
            }
        }
        self.save(findings);
        Ok(unread)
    }

    /// Reads these chunks, each given by the place of its backup and its index. Returns what is wrong with
    /// which of them.
    fn check(&self, backups: &[&StoredBackup], drawn: &[(usize, u64)]) -> Result<Vec<(usize, u64, Error)>> {
        let largest = backups.iter().map(|stored| stored.buffer_size()).max().unwrap_or_default();
        // `open` has checked that it fits
        let buffer_size = largest as usize;
        // too few in a row to find out what the line needs
        let memory = &self.client.memory;
        let concurrency = Concurrency::fixed(memory.jobs_for(largest).min(memory.jobs()));
        let found = Mutex::new(Vec::new());
        let fetch = |index, buffer: &mut [u8], stop: &AtomicBool, meter: Meter| {
            let (n, chunk) = drawn[index as usize];
            match backups[n].fetch_chunk(chunk, buffer, stop, meter) {
                Err(error) if error.status != Status::TryAgain => {
                    lock(&found).push((n, chunk, error));
                    Ok(0)
                }
                read => read,
            }
        };
        fetch::run(drawn.len() as u64, buffer_size, concurrency, &fetch, |_, _| Ok(()))?;
        let mut found = into_inner(found);
        found.sort_by_key(|(n, chunk, _)| (*n, *chunk));
        Ok(found)
    }

    /// How many backups are sampled at once: enough to use all connections, but with few hashes in memory.
    fn batch_size(&self, rest: &[&mut Checked]) -> usize {
        let chunks = |checked: &&mut Checked| {
            let stream = self.contents.entries[checked.place].stream.as_ref();
            stream.map_or(0, |stream| stream.size / stream.chunk_size.max(1))
        };
        let mut sum = 0;
        let fits = |checked: &&&mut Checked| {
            sum += chunks(checked);
            sum <= MAX_HASHES
        };
        rest.iter().take(self.client.memory.jobs()).take_while(fits).count().max(1)
    }

    /// Reads all of each backup. `snapshots`: what was asked for. If it is stopped, the next call for the
    /// same continues.
    pub fn read_all(&self, checked: &mut [Checked], snapshots: &[String]) -> Result<()> {
        let (verified, warning) = verified::read(self.folder);
        warning.into_iter().for_each(|warning| self.ui.warning_once(&warning));
        let Verified { backups, deep, .. } = verified;
        let continued = deep.into_iter().find(|run| run.snapshots == snapshots && is_recent(run.since));
        let run = match continued {
            Some(run) => {
                self.ui.note(&format!("continuing the deep verification that began at {}", run.since));
                run
            }
            None => {
                DeepRun { id: random::id(), since: clock::now(), snapshots: snapshots.to_vec(), at: None }
            }
        };
        let mut results = Results { verify: self, run, new: Vec::new(), saved: Instant::now() };
        results.save();
        for checked in checked.iter_mut().filter(|checked| checked.can_be_read()) {
            let key = self.manifest_key(checked.place);
            let is_of_this_run =
                |proof: &Proof| proof.deep_run == Some(results.run.id) && proof.damaged.is_none();
            if backups.get(&key).is_some_and(is_of_this_run) && checked.is_whole() {
                checked.method = Method::Deep;
                continue;
            }
            let is_it = results.run.at.as_ref().is_some_and(|at| at.manifest == key);
            let begun = if is_it { results.run.at.take() } else { None };
            let read = self.read_whole(&self.contents.entries[checked.place], &key, begun, &mut results);
            self.ui.transfer_done();
            match read {
                Ok(found) => {
                    let is_read = found.iter().all(|(_, problem)| !matches!(problem, Problem::Unchecked(_)));
                    found.into_iter().for_each(|(key, problem)| self.add(checked, key, problem));
                    let is_stream =
                        self.unfilter.is_some() || !self.contents.entries[checked.place].is_filtered();
                    if is_read && !is_stream {
                        // its stream remains to be read
                        checked.method = Method::Sample;
                        self.clear(checked);
                        results.run.at = None;
                        results.new.extend(self.finding(checked, None));
                    } else if is_read {
                        checked.method = Method::Deep;
                        self.clear(checked);
                        results.run.at = None;
                        results.add(checked);
                    }
                }
                Err(error) if error.status == Status::TryAgain => {
                    results.save();
                    return Err(error.hint("the same command continues"));
                }
                Err(error) => self.add(checked, key, Problem::Unchecked(error.message)),
            }
        }
        let id = results.run.id;
        results.save();
        self.update(|verified| verified.deep.retain(|run| run.id != id));
        Ok(())
    }

    /// What only reading could tell is a copy.
    fn clear(&self, checked: &mut Checked) {
        if !checked
            .problems
            .iter()
            .all(|(_, problem)| problem.is_unclear() || problem.severity() == Severity::Note)
        {
            return;
        }
        let backup = self.contents.entries[checked.place].backup();
        for (key, problem) in checked.problems.iter_mut().filter(|(_, problem)| problem.is_unclear()) {
            problem.clear();
            self.ui.note(&format!("'{backup}': {}", problem.describe(key)));
        }
    }

    /// Reads one backup, from where an earlier run was. Returns what is wrong with it.
    fn read_whole(
        &self,
        entry: &Entry,
        key: &str,
        begun: Option<DeepPosition>,
        results: &mut Results,
    ) -> Result<Vec<(String, Problem)>> {
        let stored = match StoredBackup::open(self.client, &self.contents.prefix, entry)? {
            Opened::Readable(stored) => stored,
            Opened::Unreadable(survey) => return Ok(vec![unreadable(key, survey)]),
        };
        if entry.is_filtered() && self.unfilter.is_none() {
            return self.read_filtered(entry, &stored);
        }
        let stored = stored.unfiltered_by(self.unfilter)?;
        let composite = entry.stream.as_ref().map(|stream| stream.composite_sha256);
        let begun = begun.filter(|at| Some(at.composite_sha256) == composite && at.position < stored.size());
        let (mut position, mut check) = begun.map_or((0, StreamCheck::new()), |at| (at.position, at.check));
        self.ui.transfer(&entry.snapshot.name, Some(stored.size()));
        let read = stored.read_on(position, &mut check, self.ui, |_, now, check| {
            position = now;
            if let Some(composite_sha256) = composite
                && results.is_due()
            {
                let manifest = key.to_string();
                results.run.at =
                    Some(DeepPosition { manifest, composite_sha256, position, check: check.clone() });
                results.save();
            }
            Ok(())
        });
        let mut found = Vec::new();
        match read {
            Ok(()) => {}
            Err(error) if error.status == Status::Damaged => {
                found.push((stored.object_at(position).to_string(), Problem::Read(error.message)));
            }
            Err(error) => return Err(error),
        }
        if let Some(object) = check.lost_object() {
            let why = stored.invalid(StreamError::Loses(object)).message;
            found.push((key.to_string(), Problem::Loses(why)));
        }
        if let Some(unchecked) = check.unchecked() {
            let why = format!("the stored stream of '{}' {unchecked}", entry.backup());
            found.push((key.to_string(), Problem::Unchecked(why)));
        }
        Ok(found)
    }
}

impl Verify<'_> {
    /// Without what undoes the filter, what it gave is all that can be compared.
    fn read_filtered(&self, entry: &Entry, stored: &StoredBackup) -> Result<Vec<(String, Problem)>> {
        self.ui.note_once(&format!(
            "{UNFILTER} is not set, so filtered backups are compared with what the filter gave, not read as streams"
        ));
        self.ui.transfer(&entry.snapshot.name, Some(stored.stored_size()));
        let mut next = 0;
        let read = stored.read_objects(self.ui, |index, _| {
            next = index + 1;
            Ok(())
        });
        match read {
            Ok(()) => Ok(Vec::new()),
            Err(error) if error.status == Status::Damaged => {
                Ok(vec![(stored.object_of(next).to_string(), Problem::Read(error.message))])
            }
            Err(error) => Err(error),
        }
    }
}

fn is_recent(since: Utc) -> bool {
    (0..MAX_AGE).contains(&(clock::now().unix_seconds() - since.unix_seconds()))
}

/// What a deep verification has found, and is not in the file yet: it is written every few seconds, together
/// with the position.
struct Results<'a> {
    verify: &'a Verify<'a>,
    run: DeepRun,
    new: Vec<super::Finding>,
    saved: Instant,
}

impl Results<'_> {
    fn is_due(&self) -> bool {
        self.saved.elapsed() >= self.verify.save_every
    }

    fn add(&mut self, checked: &Checked) {
        self.new.extend(self.verify.finding(checked, Some(self.run.id)));
        if self.is_due() {
            self.save();
        }
    }

    fn save(&mut self) {
        let (new, run) = (std::mem::take(&mut self.new), self.run.clone());
        self.verify.update(|verified| {
            new.into_iter().for_each(|finding| finding.enter(verified));
            verified.deep.retain(|other| other.snapshots != run.snapshots);
            verified.deep.push(run);
        });
        self.saved = Instant::now();
    }
}

fn unreadable(key: &str, mut survey: Survey) -> (String, Problem) {
    let Error { mut message, hints, .. } = why_unreadable([&mut survey]);
    // the first of the objects, for example
    if let Some(hint) = hints.first() {
        message += &format!(": {hint}");
    }
    (key.to_string(), Problem::Unchecked(message))
}

fn problem_of(error: Error) -> Problem {
    if error.status == Status::Damaged {
        Problem::Read(error.message)
    } else {
        Problem::Unchecked(error.message)
    }
}

/// Draws so many percent of these, at least one, in order.
fn draw(chunks: Range<u64>, percent: f64) -> BTreeSet<u64> {
    let count = chunks.end - chunks.start;
    let wanted = ((count as f64 * percent / 100.0).ceil() as u64).clamp(1, count.max(1));
    let mut drawn = BTreeSet::new();
    // Floyd's algorithm
    for top in count - wanted.min(count)..count {
        let n = chunks.start + (random::fraction() * (top + 1) as f64) as u64;
        if !drawn.insert(n.min(chunks.start + top)) {
            drawn.insert(chunks.start + top);
        }
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_drawn_as_were_asked_for() {
        for (count, percent, wanted) in
            [(1, 1.0, 1), (100, 0.0, 1), (100, 1.0, 1), (100, 10.0, 10), (7, 50.0, 4), (50, 100.0, 50)]
        {
            let drawn = draw(1000..1000 + count, percent);
            assert_eq!(drawn.len(), wanted, "{count}, {percent}");
            assert!(drawn.iter().all(|n| (1000..1000 + count).contains(n)));
        }
        // each of them, in time
        let seen: BTreeSet<u64> = (0..400).flat_map(|_| draw(0..10, 10.0)).collect();
        assert_eq!(seen.len(), 10);
    }
}
