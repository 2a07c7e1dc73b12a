//! Verifies backups by reading them: a sample of their chunks, or all of them with the records of the
//! stream.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Instant;

use super::objects::Problem;
use super::{Checked, Finding, Verify};
use crate::chunk_io::each::for_each;
use crate::error::{Error, Result, Status};
use crate::os::clock;
use crate::os::random;
use crate::restore::stored::{Opened, StoredBackup};
use crate::restore::survey::{Survey, why_unreadable};
use crate::state::store::format::Entry;
use crate::state::verified::{self, DeepPosition, DeepRun, Method};
use crate::stream::StreamError;
use crate::stream::check::StreamCheck;

/// Hashes in memory, of 32 bytes each, unless one backup has more.
const MAX_HASHES: u64 = 1 << 16;

impl Verify<'_> {
    /// Reads so many percent of the chunks of each object, at least one. Skips what is damaged already, or
    /// archived; returns how many are archived.
    pub fn read_samples(&self, checked: &mut [Checked], percent: f64) -> Result<u64> {
        let jobs = self.client.jobs;
        let mut archived = 0;
        let mut whole: Vec<&mut Checked> = checked.iter_mut().filter(|checked| checked.is_whole()).collect();
        let mut results = Results::new(self);
        let mut rest = whole.as_mut_slice();
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
                    Opened::Readable(_) => {}
                    Opened::Unreadable(survey) if survey.can_be_thawed() => archived += 1,
                    Opened::Unreadable(survey) => {
                        let key = self.manifest_key(checked.place);
                        checked.problems.push(unreadable(&key, survey));
                    }
                }
            }
            let chunks_of = |(n, (_, stored)): (usize, &(_, StoredBackup))| {
                let chunks = stored.chunks_of_objects().into_iter().flat_map(|chunks| draw(chunks, percent));
                chunks.map(|chunk| (n, chunk)).collect::<Vec<_>>()
            };
            let drawn: Vec<(usize, u64)> = stored.iter().enumerate().flat_map(chunks_of).collect();
            let readable: Vec<&StoredBackup> = stored.iter().map(|(_, readable)| readable).collect();
            let found = for_each(&drawn, jobs, |(n, chunk)| match readable[*n].check_chunk(*chunk) {
                Err(error) if error.status == Status::TryAgain => Err(error),
                read => Ok(read.err()),
            })?;
            for ((n, _), error) in drawn.iter().zip(found) {
                if let Some(error) = error {
                    let checked = &mut stored[*n].0;
                    let key = self.manifest_key(checked.place);
                    checked.problems.push((key, problem_of(error)));
                }
            }
            for (checked, _) in stored {
                checked.method = Method::Sample;
                results.add(checked)?;
            }
        }
        results.save()?;
        Ok(archived)
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
        rest.iter().take(self.client.jobs).take_while(fits).count().max(1)
    }

    /// Reads all of each backup, except of what is damaged already. `snapshots`: what was asked for. If it is
    /// stopped, the next call continues.
    pub fn read_all(&self, checked: &mut [Checked], snapshots: &[String]) -> Result<()> {
        let (verified, warning) = verified::read(self.folder);
        warning.into_iter().for_each(|warning| self.ui.warning(&warning));
        let continued = verified.deep.filter(|run| run.snapshots == snapshots);
        let since = continued.as_ref().map_or_else(clock::now, |run| run.since);
        let is_continued = continued.is_some();
        if is_continued {
            self.ui.note(&format!("continuing the deep verification that began at {since}"));
        }
        let mut at = continued.and_then(|run| run.at);
        if !is_continued {
            let run = DeepRun { since, snapshots: snapshots.to_vec(), at: None };
            verified::update(self.folder, self.contents, |verified| verified.deep = Some(run))?;
        }
        let may_be_whole = |checked: &&mut Checked| {
            checked.problems.iter().all(|(_, problem)| problem.is_decided_by_reading())
        };
        let mut results = Results::new(self);
        for checked in checked.iter_mut().filter(may_be_whole) {
            let key = self.manifest_key(checked.place);
            let proof = verified.backups.get(&key);
            let is_done = is_continued
                && proof.is_some_and(|proof| {
                    proof.deep.is_some_and(|deep| deep >= since) && proof.damaged.is_none()
                });
            if is_done && checked.is_whole() {
                checked.method = Method::Deep;
                continue;
            }
            let save = |at: Option<DeepPosition>| {
                let run = DeepRun { since, snapshots: snapshots.to_vec(), at };
                verified::update(self.folder, self.contents, |verified| verified.deep = Some(run))
            };
            let begun = at.take().filter(|at| at.manifest == key);
            let read = self.read_whole(&self.contents.entries[checked.place], &key, begun, save);
            self.ui.transfer_done();
            match read {
                Ok(None) => {
                    checked.method = Method::Deep;
                    checked.problems.iter_mut().for_each(|(_, problem)| *problem = Problem::Copied);
                }
                Ok(Some(problem)) => checked.problems.push(problem),
                Err(error) if error.status == Status::Damaged => {
                    checked.method = Method::Deep;
                    checked.problems.push((key, problem_of(error)));
                }
                Err(error) if error.status == Status::TryAgain => {
                    results.save()?;
                    return Err(error.hint("the same command continues"));
                }
                Err(error) => checked.problems.push((key, problem_of(error))),
            }
            if checked.method == Method::Deep {
                results.add(checked)?;
            }
        }
        results.save()?;
        verified::update(self.folder, self.contents, |verified| verified.deep = None)
    }

    /// Reads one backup, from where an earlier run was. A problem: it cannot be read.
    fn read_whole(
        &self,
        entry: &Entry,
        key: &str,
        begun: Option<DeepPosition>,
        save: impl Fn(Option<DeepPosition>) -> Result<()>,
    ) -> Result<Option<(String, Problem)>> {
        let stored = match StoredBackup::open(self.client, &self.contents.prefix, entry)? {
            Opened::Readable(stored) => stored,
            Opened::Unreadable(survey) => return Ok(Some(unreadable(key, survey))),
        };
        let composite = entry.stream.as_ref().map(|stream| stream.composite_sha256);
        let begun = begun.filter(|at| Some(at.composite_sha256) == composite && at.position < stored.size());
        let (from, mut check) = begun.map_or((0, StreamCheck::new()), |at| (at.position, at.check));
        let mut saved = Instant::now();
        self.ui.transfer(&entry.snapshot.name, Some(stored.size()));
        stored.read_on(from, &mut check, self.ui, |_, position, check| {
            if let Some(composite_sha256) = composite
                && saved.elapsed() >= self.save_every
            {
                let manifest = key.to_string();
                save(Some(DeepPosition { manifest, composite_sha256, position, check: check.clone() }))?;
                saved = Instant::now();
            }
            Ok(())
        })?;
        if let Some(object) = check.lost_object() {
            self.ui.warning(&stored.invalid(StreamError::Loses(object)).message);
        }
        if let Some(unchecked) = check.unchecked() {
            self.ui.warning(&format!("the stored stream of '{}' {unchecked}", entry.backup()));
        }
        Ok(None)
    }
}

/// What was found, and is not in the file yet: it is written every few seconds.
struct Results<'a> {
    verify: &'a Verify<'a>,
    new: Vec<Finding>,
    saved: Instant,
}

impl<'a> Results<'a> {
    fn new(verify: &'a Verify<'a>) -> Self {
        Results { verify, new: Vec::new(), saved: Instant::now() }
    }

    fn add(&mut self, checked: &Checked) -> Result<()> {
        self.new.extend(self.verify.finding(checked));
        if self.saved.elapsed() >= self.verify.save_every { self.save() } else { Ok(()) }
    }

    fn save(&mut self) -> Result<()> {
        self.verify.save(std::mem::take(&mut self.new))?;
        self.saved = Instant::now();
        Ok(())
    }
}

fn unreadable(key: &str, mut survey: Survey) -> (String, Problem) {
    (key.to_string(), Problem::Unchecked(why_unreadable([&mut survey]).message))
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
            [(1, 1.0, 1), (100, 1.0, 1), (100, 10.0, 10), (7, 50.0, 4), (50, 100.0, 50)]
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
