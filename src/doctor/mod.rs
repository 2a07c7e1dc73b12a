//! Checks what could make a backup, a removal or a restore fail later: the server and the credentials
//! (`server`), the bucket (`bucket`, `lifecycle`), each permission and what the server supports (`deletion`,
//! `multipart`, `objects`, with `probes`), what is stored (`contents`), and zfs (`pool`, `rights`,
//! `zfs_faults`). `report` is what each returns. It changes nothing, and leaves nothing behind.

mod bucket;
mod contents;
mod deletion;
mod lifecycle;
mod multipart;
mod objects;
mod pool;
mod probes;
pub mod report;
mod rights;
mod server;
mod zfs_faults;

use std::path::PathBuf;

use crate::config::UploadSettings;
use crate::error::Result;
use crate::inventory::{Inventory, OpenUploads};
use crate::model::archive::Archive;
use crate::model::storage_class::StorageClass;
use crate::os::{clock, host};
use crate::s3::client::Client;
use crate::s3::failure::Failure;
use crate::s3::reply::Object;
use crate::state::store::Folder;
use crate::state::store::format::Contents;
use crate::ui::Ui;
use crate::zfs::Zfs;
use contents::{compare, pending, verification};
use objects::Written;
use probes::Probes;
use report::{Finding, Level};
use server::Contact;

pub struct Doctor<'a> {
    pub client: Result<Client>,
    pub ca_bundle: Option<PathBuf>,
    /// The store of this server.
    pub contents: Result<Contents>,
    pub bucket: &'a str,
    pub prefix: &'a str,
    pub folder: &'a Folder,
    pub upload: &'a UploadSettings,
    pub zfs: Zfs,
    pub ui: &'a Ui,
}

impl Doctor<'_> {
    /// Calls `report` with the findings of each part as soon as they are known.
    pub fn run(self, mut report: impl FnMut(Vec<Finding>) -> Result<()>) -> Result<()> {
        let mut findings = vec![pending(self.folder, self.bucket)];
        let contents = match &self.contents {
            Ok(contents) => Some(contents),
            Err(error) => {
                findings.push(Finding::of_error("store", error));
                None
            }
        };
        report(std::mem::take(&mut findings))?;
        match &self.client {
            Err(error) => findings.push(Finding::of_error("settings", error)),
            Ok(client) => self.check_server(client, contents, &mut findings, &mut report)?,
        }
        findings.extend(contents.and_then(|contents| verification(self.folder, contents, clock::now())));
        report(std::mem::take(&mut findings))?;
        pool::check(&self.zfs, contents, self.folder, &mut findings);
        report(findings)
    }

    fn check_server(
        &self,
        client: &Client,
        contents: Option<&Contents>,
        findings: &mut Vec<Finding>,
        report: &mut impl FnMut(Vec<Finding>) -> Result<()>,
    ) -> Result<()> {
        let listed = match server::contact(client, &probes::prefix(self.prefix), findings) {
            Contact::Failed => return report(std::mem::take(findings)),
            Contact::Made(listed) => listed,
        };
        findings.push(server::transport(client, self.ca_bundle.as_deref()));
        findings.extend(server::credentials(client));
        let region = client.endpoint().region.to_string();
        let place = format!("'{}', prefix '{}', region {region}", self.bucket, self.prefix);
        findings.push(Finding::ok("bucket", place));
        report(std::mem::take(findings))?;
        let names = self.names_in_use(contents);
        let lock_days = self.upload.lock_days.is_some();
        let bucket = bucket::check(client, self.prefix, &names, lock_days, findings);
        report(std::mem::take(findings))?;
        let inventory = match (contents, &listed) {
            (Some(contents), Ok(_)) => {
                let read = Inventory::read(client, contents, self.ui, OpenUploads::List);
                read.map_err(|error| findings.push(Finding::of_error("store", &error))).ok()
            }
            _ => None,
        };
        let owner = format!("{}:{:?}", host::name(), self.folder);
        let probes = Probes::new(client, &bucket, self.prefix, &owner, listed.is_ok());
        self.check_permissions(&probes, contents, inventory.as_ref(), listed, findings);
        let is_listing = |found: &Finding| found.check == multipart::LIST_UPLOADS && found.level == Level::Ok;
        let lists_uploads = findings.iter().any(is_listing);
        report(std::mem::take(findings))?;
        if let Some((contents, inventory)) = contents.zip(inventory) {
            compare(client, contents, &inventory, self.folder, lists_uploads, findings);
        }
        report(std::mem::take(findings))
    }

    fn check_permissions(
        &self,
        probes: &Probes,
        contents: Option<&Contents>,
        inventory: Option<&Inventory>,
        listed: Result<Vec<Object>, Failure>,
        findings: &mut Vec<Finding>,
    ) {
        findings.extend(probes.sweep(listed.as_deref().unwrap_or_default(), clock::now()));
        findings.push(match listed {
            Ok(_) => Finding::ok("s3:ListBucket", "permitted"),
            Err(failure) => Finding::not_permitted(
                Level::Warning,
                "s3:ListBucket",
                "so the store alone decides what is stored, and 'recover' and parts of 'verify' fail",
                &failure,
            ),
        });
        probes.multipart(self.upload, findings);
        let archive = archive_in_use(&self.upload.storage_class, contents);
        let mut objects = Vec::new();
        let unchecked = match probes.deletion(findings) {
            Some(obstacle) => Some(obstacle),
            // what cannot be uploaded in parts cannot be uploaded at all
            None if findings.iter().any(|found| found.check == "s3:PutObject") => Some("none can be written"),
            None => {
                objects.push(probes.key("object"));
                match probes.object(&objects[0], archive, findings) {
                    Written::Yes => {
                        objects.push(probes.key("whole"));
                        findings.push(probes.checksums(&objects[1]));
                        None
                    }
                    Written::AsVersion => Some("the server keeps versions after all"),
                    // that is an error of its own
                    Written::No => None,
                }
            }
        };
        if let Some(why) = unchecked {
            let stored = inventory.and_then(Inventory::listing).and_then(|listing| listing.objects.first());
            findings.push(probes.reading(stored.map(|object| object.key.as_str())));
            let also = if archive.is_some() { ", s3:RestoreObject" } else { "" };
            let what = format!("what only an object can show, such as If-Match{also} and checksums");
            findings.push(
                Finding::warning("not checked", format!("{what}, because {why}"))
                    .hint("in another bucket of this server, or with other credentials, it can be checked"),
            );
        }
        findings.extend(probes.clean_up(&objects));
    }

    /// The names of stored snapshots, and of the datasets of this host, with which keys may begin.
    fn names_in_use(&self, contents: Option<&Contents>) -> Vec<String> {
        let stored = contents.iter().flat_map(|contents| &contents.entries);
        let stored = stored.map(|entry| entry.snapshot.name.clone());
        stored.chain(pool::datasets(&self.zfs).into_iter().map(|dataset| dataset.name)).collect()
    }
}

/// The archive class that uploads use, or that a stored backup is in.
fn archive_in_use<'a>(class: &'a StorageClass, contents: Option<&'a Contents>) -> Option<&'a StorageClass> {
    let entries = contents.map(|contents| contents.entries.as_slice()).unwrap_or_default();
    let stored = entries.iter().filter_map(|entry| Some(&entry.stream.as_ref()?.storage_class));
    std::iter::once(class).chain(stored).find(|class| Archive::of(Some(class), None).is_some())
}
