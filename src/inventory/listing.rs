//! The listing of the bucket, and what it shows of each copy.

use std::collections::HashSet;

use super::scope::Scope;
use crate::error::Result;
use crate::model::backup::Link;
use crate::model::keys;
use crate::model::readme;
use crate::s3::client::Client;
use crate::s3::failure::Failure;
use crate::s3::reply::{ListedUpload, Object};
use crate::state::store::format::Contents;
use crate::ui::Ui;

/// The objects and uploads under the store's prefix.
#[derive(Default)]
pub struct Listing {
    pub objects: Vec<Object>,
    pub uploads: Vec<ListedUpload>,
    /// As far as everything was listed.
    pub has_readme: bool,
}

/// Are open uploads listed, too? Only if the decision depends on them.
#[derive(Clone, Copy, PartialEq)]
pub enum OpenUploads {
    List,
    Skip,
}

impl Listing {
    /// The keys of the marks that a backup is kept.
    pub fn marks_of(&self, prefix: &str, link: Link) -> impl Iterator<Item = &str> {
        let is_mark = move |o: &&Object| keys::kept_backup(prefix, &o.key, o.size) == Some(link);
        self.objects.iter().filter(is_mark).map(|object| object.key.as_str())
    }

    /// The objects of a scope. None: listing that alone is forbidden.
    pub fn read_part(client: &Client, contents: &Contents, scope: &Scope) -> Result<Option<Self>> {
        let prefix = contents.prefix.as_str();
        let mut objects = Vec::new();
        for beginning in scope.beginnings(prefix) {
            let ours = |object: &Object| keys::parse(prefix, &object.key).is_some();
            match client.list_objects(&beginning, ours) {
                Ok(found) => objects.extend(found),
                Err(failure) if failure.says_forbidden() => return Ok(None),
                Err(failure) => return Err(failure.into()),
            }
        }
        Ok(Some(Listing { objects, ..Listing::default() }))
    }

    /// All of it. None: listing is forbidden, of which a warning tells.
    pub fn read(client: &Client, contents: &Contents, ui: &Ui, uploads: OpenUploads) -> Result<Option<Self>> {
        Self::try_read(client, contents, uploads).map(|listing| match listing {
            Ok(listing) => Some(listing),
            Err(failure) => {
                ui.warning_once(&format!(
                    "cannot list the bucket ({}): the store alone decides what is stored",
                    failure.describe()
                ));
                None
            }
        })
    }

    /// The inner error: listing is forbidden. Open uploads are listed first: one that is completed in
    /// between is then among the objects.
    pub fn try_read(
        client: &Client,
        contents: &Contents,
        uploads: OpenUploads,
    ) -> Result<Result<Self, Failure>> {
        let prefix = contents.prefix.as_str();
        let uploads = match uploads {
            OpenUploads::Skip => Vec::new(),
            OpenUploads::List => match client.list_uploads(prefix) {
                Ok(uploads) => uploads.unwrap_or_default(),
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
                Ok(Ok(Listing { objects, uploads, has_readme }))
            }
            Err(failure) if failure.says_forbidden() => Ok(Err(failure)),
            Err(failure) => Err(failure.into()),
        }
    }
}
