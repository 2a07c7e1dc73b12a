//! Verifies that stored backups can be restored: by what S3 says of their objects (`objects`), by reading
//! some or all of their chunks (`read`); and says what damage costs (`cost`).

pub mod cost;
pub mod objects;
pub mod read;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::chunk_io::each::for_each;
use crate::error::Result;
use crate::filter::Filter;
use crate::inventory::read_manifest::{Cause, Chunks, ManifestRead, read_manifest};
use crate::inventory::{Listing, OpenUploads};
use crate::model::copy::{CopyName, Id};
use crate::model::keys::{self, ObjectKind};
use crate::model::manifest::{Segment, Stream};
use crate::model::utc::Utc;
use crate::os::clock;
use crate::recover::hidden;
use crate::restore::stored::check_manifest;
use crate::s3::client::Client;
use crate::s3::failure::FailureKind;
use crate::s3::reply::Object;
use crate::state::store::Folder;
use crate::state::store::format::{Contents, Entry};
use crate::state::verified::{self, Method, Verified};
use crate::ui::Ui;
use objects::{Listed, Problem, Severity, compare, judge};

pub struct Verify<'a> {
    pub client: &'a Client,
    pub contents: &'a Contents,
    pub folder: &'a Folder,
    pub ui: &'a Ui,
    /// How often the position of a deep verification is saved.
    pub save_every: Duration,
    /// What undoes the filter of backups that were filtered.
    pub unfilter: Option<&'a Filter>,
}

/// What was found of one backup.
pub struct Checked {
    /// Its place in the store.
    pub place: usize,
    pub method: Method,
    /// With the key of the object.
    pub problems: Vec<(String, Problem)>,
}

impl Checked {
    pub fn severity(&self) -> Severity {
        self.problems.iter().map(|(_, problem)| problem.severity()).max().unwrap_or(Severity::Note)
    }

    pub fn is_whole(&self) -> bool {
        self.severity() == Severity::Note
    }

    fn can_be_read(&self) -> bool {
        !self.problems.iter().any(|(_, problem)| problem.prevents_reading())
    }
}

/// What the file gets to know of a backup.
struct Finding {
    manifest: String,
    method: Method,
    is_whole: bool,
    time: Utc,
    /// Of a deep verification.
    run: Option<Id>,
    /// Those of objects that are copies.
    etags: Vec<(String, String)>,
}

impl Finding {
    fn enter(self, verified: &mut Verified) {
        let proof = verified.backups.entry(self.manifest).or_default();
        proof.add(self.method, self.is_whole, self.time);
        if self.run.is_some() {
            proof.deep_run = self.run;
            proof.etags = self.etags.into_iter().collect();
        }
    }
}

/// The listing of the bucket, by key; none: listing is forbidden.
struct Listings<'a> {
    objects: Option<HashMap<&'a str, &'a Object>>,
    /// The keys of segments, by copy.
    segments: HashMap<CopyName, Vec<&'a str>>,
    /// The copies whose removal a host has announced.
    announced: HashSet<CopyName>,
}

impl<'a> Listings<'a> {
    fn new(listing: Option<&'a Listing>, prefix: &str) -> Self {
        let by_key = |listing: &'a Listing| listing.objects.iter().map(|o| (o.key.as_str(), o)).collect();
        let objects = listing.map(by_key);
        let mut listings = Listings { objects, segments: HashMap::new(), announced: HashSet::new() };
        for object in listing.iter().flat_map(|listing| &listing.objects) {
            match keys::parse(prefix, &object.key) {
                Some(keys::Parsed { copy, kind: ObjectKind::Segment(_) }) => {
                    listings.segments.entry(copy).or_default().push(&object.key);
                }
                Some(keys::Parsed { copy, kind: ObjectKind::Removing(_) }) if object.size > 0 => {
                    listings.announced.insert(copy);
                }
                _ => {}
            }
        }
        listings
    }
}

impl Verify<'_> {
    /// Checks the objects of these backups, without reading them. A transient failure is an error.
    pub fn check_objects(&self, places: &[usize]) -> Result<Vec<Checked>> {
        let (verified, warning) = verified::read(self.folder);
        warning.into_iter().for_each(|warning| self.ui.warning_once(&warning));
        let listing = Listing::read(self.client, self.contents, self.ui, OpenUploads::Skip)?;
        let listings = Listings::new(listing.as_ref(), &self.contents.prefix);
        let mut checked = for_each(places, self.client.memory.jobs(), |place| {
            let entry = &self.contents.entries[*place];
            let problems = match &entry.stream {
                Some(stream) => self.check_by_manifest(entry, stream, &listings, &verified)?,
                None => self.check_python(entry, &listings)?,
            };
            let is_announced = listings.announced.contains(&entry.copy());
            let problems = if is_announced && !problems.is_empty() {
                let why = "a host is removing it".to_string();
                vec![(self.manifest_key(*place), Problem::Unchecked(why))]
            } else {
                problems
            };
            Ok(Checked { place: *place, method: Method::Objects, problems })
        })?;
        for place in cost::unsound(&self.contents.entries) {
            if let Some(checked) = checked.iter_mut().find(|checked| checked.place == place) {
                checked.problems.push((self.manifest_key(place), Problem::NoBase));
            }
        }
        checked.iter().for_each(|checked| self.report(checked));
        // what cannot be read now stays unclear
        if let Err(error) = self.read_unclear(&mut checked) {
            self.ui.warning(&error.message);
        }
        self.save(checked.iter().filter_map(|checked| self.finding(checked, None)).collect());
        Ok(checked)
    }

    fn manifest_key(&self, place: usize) -> String {
        self.contents.entries[place].first_key(&self.contents.prefix)
    }

    fn report(&self, checked: &Checked) {
        let entry = &self.contents.entries[checked.place];
        for (key, problem) in &checked.problems {
            let words = format!("'{}': {}", entry.backup(), problem.describe(key));
            if problem.severity() == Severity::Note { self.ui.note(&words) } else { self.ui.warning(&words) }
        }
        if checked.problems.iter().any(|(_, problem)| *problem == Problem::Missing) {
            hidden::report_copy(self.client, self.contents, &entry.copy(), self.ui);
        }
    }

    /// Adds what was found by reading, and reports it at once: reading may take days.
    fn add(&self, checked: &mut Checked, key: String, problem: Problem) {
        let entry = &self.contents.entries[checked.place];
        self.ui.warning(&format!("'{}': {}", entry.backup(), problem.describe(&key)));
        checked.problems.push((key, problem));
    }

    /// For the file; none: it could not be checked. `run`: the deep verification.
    fn finding(&self, checked: &Checked, run: Option<Id>) -> Option<Finding> {
        let etag = |(key, problem): &(String, Problem)| match problem {
            Problem::Copied { etag } => Some((key.clone(), etag.clone())),
            _ => None,
        };
        (checked.severity() != Severity::Unchecked).then(|| Finding {
            manifest: self.manifest_key(checked.place),
            method: checked.method,
            is_whole: checked.is_whole(),
            time: clock::now(),
            run,
            etags: checked.problems.iter().filter_map(etag).collect(),
        })
    }

    fn save(&self, findings: Vec<Finding>) {
        self.update(|verified| findings.into_iter().for_each(|finding| finding.enter(verified)));
    }

    /// That it cannot be written must not hide what was found.
    fn update(&self, change: impl FnOnce(&mut Verified)) {
        if let Err(error) = verified::update(self.folder, self.contents, change) {
            self.ui.warning_once(&error.message);
        }
    }

    fn check_by_manifest(
        &self,
        entry: &Entry,
        known: &Stream,
        listings: &Listings,
        verified: &Verified,
    ) -> Result<Vec<(String, Problem)>> {
        let manifest = keys::manifest(&self.contents.prefix, &entry.copy());
        let mut problems = Vec::new();
        let problem = match read_manifest(self.client, &manifest, known.size, Chunks::Checked)? {
            ManifestRead::Found(read) => {
                check_manifest(entry, known, &read.manifest).err().map(|why| Problem::Manifest(why.message))
            }
            ManifestRead::Missing => Some(Problem::Missing),
            ManifestRead::Unreadable { why, cause: Cause::Newer | Cause::Invalid } => {
                Some(Problem::Manifest(format!("it cannot be used: {why}")))
            }
            ManifestRead::Unreadable { why, .. } => Some(Problem::Unchecked(why.message)),
        };
        problems.extend(problem.map(|problem| (manifest.clone(), problem)));
        let proven = verified.backups.get(&manifest).map(|proof| &proof.etags);
        for segment in &known.segments {
            let proven = proven.and_then(|etags| etags.get(&segment.key)).map(String::as_str);
            let problem = self.check_segment(segment, known, listings, proven)?;
            problems.extend(problem.map(|problem| (segment.key.clone(), problem)));
        }
        let there = listings.segments.get(&entry.copy()).into_iter().flatten();
        let unknown = there.filter(|key| known.segments.iter().all(|segment| segment.key != **key));
        problems.extend(unknown.map(|key| ((*key).to_string(), Problem::Unknown)));
        Ok(problems)
    }

    fn check_segment(
        &self,
        expected: &Segment,
        stream: &Stream,
        listings: &Listings,
        proven: Option<&str>,
    ) -> Result<Option<Problem>> {
        if let Some(objects) = &listings.objects {
            match compare(expected, objects.get(expected.key.as_str()).copied()) {
                Listed::Same => return Ok(None),
                Listed::Wrong(problem) => return Ok(Some(problem)),
                Listed::Unclear => {}
            }
        }
        match self.client.head(&expected.key) {
            Ok(head) => Ok(judge(expected, head.as_ref(), proven, stream.stored)),
            Err(failure) if failure.kind == FailureKind::Final => {
                Ok(Some(Problem::Unchecked(failure.describe())))
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// The Python tool kept no sizes, and no hashes.
    fn check_python(&self, entry: &Entry, listings: &Listings) -> Result<Vec<(String, Problem)>> {
        let mut problems = Vec::new();
        for key in entry.keys(&self.contents.prefix) {
            let problem = match &listings.objects {
                Some(objects) => (!objects.contains_key(key.as_str())).then_some(Problem::Missing),
                None => match self.client.head(&key) {
                    Ok(head) => head.is_none().then_some(Problem::Missing),
                    Err(failure) if failure.kind == FailureKind::Final => {
                        Some(Problem::Unchecked(failure.describe()))
                    }
                    Err(failure) => return Err(failure.into()),
                },
            };
            problems.extend(problem.map(|problem| (key, problem)));
        }
        Ok(problems)
    }
}
