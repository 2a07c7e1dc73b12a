//! Verifies that stored backups can be restored: by what S3 says of their objects (`objects`), by reading
//! some or all of their chunks (`read`); and says what damage costs (`cost`).

pub mod cost;
pub mod objects;
pub mod read;

use std::collections::HashMap;
use std::time::Duration;

use crate::chunk_io::each::for_each;
use crate::error::Result;
use crate::inventory::read_manifest::{Cause, Chunks, ManifestRead, read_manifest};
use crate::inventory::{Listing, OpenUploads};
use crate::model::copy::CopyName;
use crate::model::keys::{self, ObjectKind};
use crate::model::manifest::{Segment, Stream};
use crate::os::clock;
use crate::restore::stored::check_manifest;
use crate::s3::client::Client;
use crate::s3::reply::Object;
use crate::state::store::Folder;
use crate::state::store::format::{Contents, Entry};
use crate::state::verified::{self, Method};
use crate::ui::Ui;
use objects::{Listed, Problem, Severity, compare, judge};

pub struct Verify<'a> {
    pub client: &'a Client,
    pub contents: &'a Contents,
    pub folder: &'a Folder,
    pub ui: &'a Ui,
    /// How often the position of a deep verification is saved.
    pub save_every: Duration,
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
}

/// What the file gets to know of a backup.
struct Finding {
    manifest: String,
    method: Method,
    is_whole: bool,
}

/// The listing of the bucket, by key; none: listing is forbidden.
struct Listings<'a> {
    objects: Option<HashMap<&'a str, &'a Object>>,
    /// The keys of segments, by copy.
    segments: HashMap<CopyName, Vec<&'a str>>,
}

impl<'a> Listings<'a> {
    fn new(listing: Option<&'a Listing>, prefix: &str) -> Self {
        let mut segments: HashMap<CopyName, Vec<&str>> = HashMap::new();
        for object in listing.iter().flat_map(|listing| &listing.objects) {
            if let Some(keys::Parsed { copy, kind: ObjectKind::Segment(_) }) =
                keys::parse(prefix, &object.key)
            {
                segments.entry(copy).or_default().push(&object.key);
            }
        }
        let by_key = |listing: &'a Listing| listing.objects.iter().map(|o| (o.key.as_str(), o)).collect();
        Listings { objects: listing.map(by_key), segments }
    }
}

impl Verify<'_> {
    /// Checks the objects of these backups, without reading them. A transient failure is an error.
    pub fn check_objects(&self, places: &[usize]) -> Result<Vec<Checked>> {
        let listing = Listing::read(self.client, self.contents, self.ui, OpenUploads::Skip)?;
        let listings = Listings::new(listing.as_ref(), &self.contents.prefix);
        let mut checked = for_each(places, self.client.jobs, |place| {
            let entry = &self.contents.entries[*place];
            let problems = match &entry.stream {
                Some(stream) => self.check_by_manifest(entry, stream, &listings)?,
                None => self.check_python(entry, &listings)?,
            };
            Ok(Checked { place: *place, method: Method::Objects, problems })
        })?;
        for place in cost::unsound(&self.contents.entries) {
            if let Some(checked) = checked.iter_mut().find(|checked| checked.place == place) {
                let key = self.manifest_key(place);
                checked.problems.push((key, Problem::Manifest("its base cannot be restored".to_string())));
            }
        }
        self.save(checked.iter().filter_map(|checked| self.finding(checked)).collect())?;
        Ok(checked)
    }

    fn manifest_key(&self, place: usize) -> String {
        let keys = self.contents.entries[place].keys(&self.contents.prefix);
        keys.into_iter().next().unwrap_or_default()
    }

    /// For the file; none: it could not be checked.
    fn finding(&self, checked: &Checked) -> Option<Finding> {
        (checked.severity() != Severity::Unchecked).then(|| Finding {
            manifest: self.manifest_key(checked.place),
            method: checked.method,
            is_whole: checked.is_whole(),
        })
    }

    fn save(&self, findings: Vec<Finding>) -> Result<()> {
        let now = clock::now();
        verified::update(self.folder, self.contents, |verified| {
            for Finding { manifest, method, is_whole } in findings {
                verified.backups.entry(manifest).or_default().add(method, is_whole, now);
            }
        })
    }

    fn check_by_manifest(
        &self,
        entry: &Entry,
        known: &Stream,
        listings: &Listings,
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
        problems.extend(problem.map(|problem| (manifest, problem)));
        for segment in &known.segments {
            let problem = self.check_segment(segment, known, listings)?;
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
    ) -> Result<Option<Problem>> {
        let mut modified = "";
        if let Some(objects) = &listings.objects {
            let listed = objects.get(expected.key.as_str()).copied();
            match compare(expected, listed) {
                Listed::Same => return Ok(None),
                Listed::Wrong(problem) => return Ok(Some(problem)),
                Listed::Unclear => modified = listed.map_or("", |object| object.modified.as_str()),
            }
        }
        match self.client.head(&expected.key) {
            Ok(head) => Ok(judge(expected, head.as_ref(), modified, stream.stored)),
            Err(failure) if failure.is_forbidden() => Ok(Some(Problem::Unchecked(failure.describe()))),
            Err(failure) => Err(failure.into()),
        }
    }

    /// The Python tool kept no sizes, and no hashes.
    fn check_python(&self, entry: &Entry, listings: &Listings) -> Result<Vec<(String, Problem)>> {
        let mut problems = Vec::new();
        for key in entry.keys(&self.contents.prefix) {
            let is_there = match &listings.objects {
                Some(objects) => objects.contains_key(key.as_str()),
                None => self.client.head_if_allowed(&key)?.is_some(),
            };
            if !is_there {
                problems.push((key, Problem::Missing));
            }
        }
        Ok(problems)
    }
}
