//! The listing of the bucket, and what it shows of each copy.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::error::Result;
use crate::model::copy::{CopyName, Id};
use crate::model::keys::{self, ObjectKind, Parsed};
use crate::model::readme;
use crate::s3::client::Client;
use crate::s3::reply::{ListedUpload, Object};
use crate::state::store::format::{Contents, Entry};
use crate::ui::Ui;

/// The objects and uploads under the store's prefix.
#[derive(Default)]
pub struct Listing {
    pub objects: Vec<Object>,
    pub uploads: Vec<ListedUpload>,
    pub has_readme: bool,
}

/// Are open uploads listed, too? Only if the decision depends on them.
#[derive(Clone, Copy, PartialEq)]
pub enum OpenUploads {
    List,
    Skip,
}

impl Listing {
    /// None: listing is forbidden. Open uploads are listed first: one that is completed in between is then
    /// among the objects.
    pub fn read(client: &Client, contents: &Contents, ui: &Ui, uploads: OpenUploads) -> Result<Option<Self>> {
        let prefix = contents.prefix.as_str();
        let uploads = match uploads {
            OpenUploads::Skip => Vec::new(),
            OpenUploads::List => match client.list_uploads(prefix) {
                Ok(uploads) => uploads,
                Err(failure) if failure.says_forbidden() || failure.is_not_supported() => Vec::new(),
                Err(failure) => return Err(failure.into()),
            },
        };
        let python: HashSet<String> = contents
            .entries
            .iter()
            .filter(|entry| entry.stream.is_none())
            .flat_map(|entry| entry.keys(prefix))
            .collect();
        let readme = readme::key(prefix);
        let ours = |object: &Object| {
            keys::parse(prefix, &object.key).is_some() || python.contains(&object.key) || object.key == readme
        };
        match client.list_objects(prefix, ours) {
            Ok(objects) => {
                let has_readme = objects.iter().any(|object| object.key == readme);
                Ok(Some(Listing { objects, uploads, has_readme }))
            }
            Err(failure) if failure.says_forbidden() => {
                ui.warning_once(&format!(
                    "cannot list the bucket ({}): the store alone decides what is stored",
                    failure.describe()
                ));
                Ok(None)
            }
            Err(failure) => Err(failure.into()),
        }
    }
}

#[derive(Default)]
pub(super) struct ListedCopy {
    pub manifest: bool,
    /// Sizes of its segments, by number.
    pub segments: BTreeMap<u32, u64>,
    pub announcements: Vec<Id>,
}

/// The first object of a backup that is missing, or has another size.
pub(super) fn what_is_lost(entry: &Entry, prefix: &str, sizes: &HashMap<&str, u64>) -> Option<String> {
    let expected = entry.stream.iter().flat_map(|stream| &stream.segments);
    let expected: HashMap<&str, u64> = expected.map(|s| (s.key.as_str(), s.size)).collect();
    entry.keys(prefix).into_iter().find_map(|key| {
        match (sizes.get(key.as_str()), expected.get(key.as_str())) {
            (None, _) => Some(format!("the bucket has no object '{key}'")),
            (Some(there), Some(size)) if there != size => {
                Some(format!("the object '{key}' has {there} bytes, not {size}"))
            }
            _ => None,
        }
    })
}

impl ListedCopy {
    pub fn what_is_lost(&self) -> Option<String> {
        match (self.manifest, self.segments.contains_key(&1)) {
            (true, true) => None,
            (false, _) => Some(
                "its manifest is not in the bucket: another host may be storing or removing it".to_string(),
            ),
            (true, false) => Some("its data are not in the bucket".to_string()),
        }
    }
}

pub(super) fn listed_copies(
    prefix: &str,
    listing: &Listing,
    python: &HashSet<CopyName>,
) -> BTreeMap<CopyName, ListedCopy> {
    let mut found: BTreeMap<CopyName, ListedCopy> = BTreeMap::new();
    for object in &listing.objects {
        let Some(Parsed { copy, kind }) = keys::parse(prefix, &object.key) else { continue };
        let seen = found.entry(copy).or_default();
        match kind {
            ObjectKind::Manifest => seen.manifest = true,
            ObjectKind::Segment(number) => {
                seen.segments.insert(number, object.size);
            }
            // an empty announcement is withdrawn
            ObjectKind::Removing(_) if object.size == 0 => {}
            ObjectKind::Removing(nonce) => seen.announcements.push(nonce),
        }
    }
    for upload in &listing.uploads {
        if let Some(parsed) = keys::parse(prefix, &upload.key) {
            found.entry(parsed.copy).or_default();
        }
    }
    // an announcement without any other object means nothing
    let open: HashSet<CopyName> =
        listing.uploads.iter().filter_map(|u| Some(keys::parse(prefix, &u.key)?.copy)).collect();
    let is_there = |copy: &CopyName, seen: &ListedCopy| {
        seen.manifest || !seen.segments.is_empty() || open.contains(copy) || python.contains(copy)
    };
    found.retain(|copy, seen| is_there(copy, seen));
    found
}
