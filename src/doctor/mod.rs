//! Checks what could make a backup, a removal or a restore fail later: the server and the credentials
//! (`server`), the filter (`filter`), the bucket (`bucket`, `lifecycle`), each permission and what the server
//! supports (`deletion`, `multipart`, `objects`, with `probes`), what is stored (`contents`), and zfs
//! (`pool`, `rights`, `zfs_faults`). `report` is what each returns. It changes nothing, and leaves nothing
//! behind.

mod bucket;
mod contents;
mod deletion;
mod filter;
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
use crate::filter::Filter;
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
use crate::zfs::inspect::DatasetInfo;
use contents::{Compared, Pending, compare, pending, verification};
use deletion::Obstacle;
use objects::Written;
use probes::Probes;
use report::{Finding, Level};
use server::Contact;

pub struct Doctor<'a> {
    pub client: Result<Client>,
    pub ca_bundle: Option<PathBuf>,
    /// Reads the store of this server.
    pub read_store: &'a dyn Fn() -> Result<Contents>,
    pub bucket: &'a str,
    pub prefix: &'a str,
    pub folder: &'a Folder,
    pub upload: &'a UploadSettings,
    /// What filters chunks, and what undoes that.
    pub filter: Option<Filter>,
    pub unfilter: Result<Option<&'a Filter>>,
    pub zfs: Zfs,
    pub ui: &'a Ui,
}

impl Doctor<'_> {
    /// Calls `report` with the findings of each part as soon as they are known.
    pub fn run(mut self, mut report: impl FnMut(Vec<Finding>) -> Result<()>) -> Result<()> {
        let mut findings = vec![pending(self.folder, self.bucket, self.prefix, &self.zfs)];
        let contents = (self.read_store)();
        findings.extend(contents.as_ref().err().map(|error| Finding::of_error("store", error)));
        let contents = contents.ok();
        let unfilter = std::mem::replace(&mut self.unfilter, Ok(None));
        findings.extend(filter::check(self.filter.take(), unfilter));
        report(std::mem::take(&mut findings))?;
        let datasets = self.zfs.all_datasets();
        match &self.client {
            Err(error) => findings.push(Finding::of_error("settings", error)),
            Ok(client) => {
                let datasets = datasets.as_deref().ok();
                self.check_server(client, contents.as_ref(), datasets, &mut findings, &mut report)?;
            }
        }
        let verified = contents.as_ref().and_then(|it| verification(self.folder, it, clock::now()));
        findings.extend(verified);
        report(std::mem::take(&mut findings))?;
        match datasets {
            Ok(datasets) => {
                pool::check(&self.zfs, &datasets, contents.as_ref(), self.folder, &mut findings);
            }
            Err(error) => findings.push(Finding::of_error("zfs", &error)),
        }
        report(findings)
    }

    fn check_server(
        &self,
        client: &Client,
        contents: Option<&Contents>,
        datasets: Option<&[DatasetInfo]>,
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
        let is_new = contents.is_none_or(|contents| contents.entries.is_empty());
        if !self.prefix.is_empty() && !self.prefix.ends_with('/') && is_new {
            let message = format!("it does not end in '/', so keys begin with '{}POOL'", self.prefix);
            let hint = format!("with ZFS2S3_PREFIX={}/ they are below a folder", self.prefix);
            findings.push(Finding::warning("prefix", message).hint(hint));
        }
        report(std::mem::take(findings))?;
        let pending = Pending::read(self.folder);
        let inventory = match (contents, &listed) {
            (Some(contents), Ok(_)) => {
                let read = Inventory::read(client, contents, self.ui, OpenUploads::List);
                read.map_err(|error| findings.push(Finding::of_error("store", &error))).ok()
            }
            _ => None,
        };
        let names = names_in_use(contents, inventory.as_ref(), datasets);
        let lock_days = self.upload.lock_days.is_some();
        let bucket = bucket::check(client, self.prefix, names.as_deref(), lock_days, findings);
        report(std::mem::take(findings))?;
        let owner = format!("{}:{}:{:?}", host::name(), host::machine_id(), self.folder);
        let probes = Probes::new(client, &bucket, self.prefix, &owner, listed.is_ok());
        self.check_permissions(&probes, contents, inventory.as_ref(), listed, findings);
        let is_listing = |found: &Finding| found.check == multipart::LIST_UPLOADS && found.level == Level::Ok;
        let lists_uploads = findings.iter().any(is_listing);
        report(std::mem::take(findings))?;
        if let Some((contents, inventory)) = contents.zip(inventory.as_ref()) {
            let compared = Compared { client, contents, inventory, pending };
            let store_now = || (self.read_store)().ok();
            compare(&compared, self.folder, lists_uploads, &store_now, findings);
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
        let mut written = Vec::new();
        let obstacle = match probes.deletion(findings) {
            Some(obstacle) => Some(obstacle),
            // what cannot be uploaded in parts cannot be uploaded at all
            None if findings.iter().any(|found| found.check == "s3:PutObject") => {
                Some("it cannot be written")
            }
            None => {
                let is_filtered = self.upload.filter.is_some();
                check_objects(probes, archive, is_filtered, &mut written, findings)
            }
        };
        if let Some(why) = obstacle {
            let stored = inventory.and_then(Inventory::listing).and_then(|listing| listing.objects.first());
            if !findings.iter().any(|found| found.check == "s3:GetObject") {
                findings.push(probes.reading(stored.map(|object| object.key.as_str())));
            }
            let also = if archive.is_some() { ", s3:RestoreObject" } else { "" };
            let message = format!("If-Match{also} and checksums, because no probe object can be used: {why}");
            findings
                .push(Finding::warning("not checked", message).hint(
                    "in another bucket of this server, or with other credentials, they can be checked",
                ));
        }
        findings.extend(probes.clean_up(&written));
    }
}

/// The names of snapshots in the store and the bucket, and of the datasets of this host, with which keys may
/// begin. None: they are not all known.
fn names_in_use(
    contents: Option<&Contents>,
    inventory: Option<&Inventory>,
    datasets: Option<&[DatasetInfo]>,
) -> Option<Vec<String>> {
    let listed = inventory.filter(|inventory| inventory.listing().is_some())?;
    let datasets = datasets?.iter().map(|dataset| dataset.name.clone());
    let stored = contents?.entries.iter().map(|entry| entry.snapshot.name.clone());
    Some(stored.chain(listed.names().map(str::to_string)).chain(datasets).collect())
}

/// Writes an object, and if it can be deleted, another. Returns what kept it from doing so. `written`: what
/// may be left.
fn check_objects(
    probes: &Probes,
    archive: Option<&StorageClass>,
    is_filtered: bool,
    written: &mut Vec<String>,
    findings: &mut Vec<Finding>,
) -> Option<Obstacle> {
    let key = probes.key("object");
    match probes.object(&key, archive, findings) {
        Written::AsVersion => return Some("the server keeps versions after all"),
        // that is an error of its own; a lost reply may have written it nevertheless
        Written::No => {
            written.push(key);
            return None;
        }
        Written::Yes => {}
    }
    if let Err(failure) = probes.delete(&key) {
        findings.push(
            Finding::of_failure(Level::Warning, "s3:DeleteObject", &failure)
                .hint("the server may protect objects by a rule that S3 does not show")
                .hint(probes.by_hand(&key)),
        );
        return Some("the first object of this check could not be deleted");
    }
    let whole = probes.key("whole");
    findings.push(probes.checksums(&whole));
    findings.extend(is_filtered.then(|| probes.parts_of_different_sizes(&whole)));
    written.extend([key, whole]);
    None
}

/// The archive class that uploads use, or that a stored backup is in.
fn archive_in_use<'a>(class: &'a StorageClass, contents: Option<&'a Contents>) -> Option<&'a StorageClass> {
    let entries = contents.map(|contents| contents.entries.as_slice()).unwrap_or_default();
    let stored = entries.iter().filter_map(|entry| Some(&entry.stream.as_ref()?.storage_class));
    std::iter::once(class).chain(stored).find(|class| Archive::of(Some(class), None).is_some())
}
