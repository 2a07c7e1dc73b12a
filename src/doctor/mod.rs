//! Checks what could make a backup, a removal or a restore fail later: the server and the credentials
//! (`server`), the bucket (`bucket`, `lifecycle`), each permission and what the server supports (`probes`,
//! `multipart`), zfs (`pool`, `rights`, `zfs_faults`), and what is stored (`contents`). `report` is what each
//! returns. It changes nothing, and leaves nothing behind.

mod bucket;
mod contents;
mod lifecycle;
mod multipart;
mod pool;
mod probes;
pub mod report;
mod rights;
mod server;
mod zfs_faults;

use std::path::PathBuf;

use crate::config::UploadSettings;
use crate::error::Result;
use crate::model::archive::Archive;
use crate::model::copy::CopyName;
use crate::model::readme;
use crate::model::storage_class::StorageClass;
use crate::os::{clock, host, random};
use crate::s3::client::Client;
use crate::s3::reply::Object;
use crate::state::store::Folder;
use crate::state::store::format::Contents;
use crate::ui::Ui;
use crate::zfs::Zfs;
use contents::{compare, pending, verification};
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
        let mut findings = Vec::new();
        let intent = pending(self.folder, self.bucket, &mut findings);
        let copy = intent.as_ref().map(|intent| intent.copy());
        let tag = intent.as_ref().map(|intent| intent.hold_tag());
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
            Ok(client) => self.check_server(client, contents, copy.as_ref(), &mut findings, &mut report)?,
        }
        findings.extend(contents.and_then(|contents| verification(self.folder, contents, clock::now())));
        report(std::mem::take(&mut findings))?;
        pool::check(&self.zfs, contents, tag.as_deref(), &mut findings);
        report(findings)
    }

    fn check_server(
        &self,
        client: &Client,
        contents: Option<&Contents>,
        pending: Option<&CopyName>,
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
        let bucket = bucket::check(client, self.prefix, self.upload.lock_days.is_some(), findings);
        report(std::mem::take(findings))?;
        let owner = format!("{}:{:?}", host::name(), self.folder);
        let may_list = listed.is_some();
        let probes = Probes::new(client, &bucket, self.prefix, &owner, random::id(), may_list);
        self.check_permissions(&probes, contents, listed.as_deref(), findings);
        let is_listing = |found: &Finding| found.check == multipart::LIST_UPLOADS && found.level == Level::Ok;
        let lists_uploads = findings.iter().any(is_listing);
        report(std::mem::take(findings))?;
        if let Some(contents) = contents.filter(|_| may_list) {
            let compared = compare(client, contents, pending, lists_uploads, self.ui, findings);
            findings.extend(compared.err().map(|error| Finding::of_error("store", &error)));
        }
        report(std::mem::take(findings))
    }

    fn check_permissions(
        &self,
        probes: &Probes,
        contents: Option<&Contents>,
        listed: Option<&[Object]>,
        findings: &mut Vec<Finding>,
    ) {
        findings.extend(probes.sweep(listed.unwrap_or_default(), clock::now()));
        findings.push(match listed {
            Some(_) => Finding::ok("s3:ListBucket", "permitted"),
            None => Finding::not_permitted(
                Level::Warning,
                "s3:ListBucket",
                "so the store alone decides what is stored, and 'recover' and parts of 'verify' fail",
            ),
        });
        findings.extend(probes.version_listing());
        probes.multipart(self.upload, findings);
        let (may_delete, may_delete_versions) = probes.deletion(findings);
        match probes.why_not_write(may_delete, may_delete_versions) {
            None => {
                let archive = archive_in_use(&self.upload.storage_class, contents);
                let mut made = probes.object(archive, findings);
                if findings.iter().all(|found| found.check != "s3:PutObject" || found.level == Level::Ok) {
                    made.extend(probes.checksums(findings));
                }
                findings.extend(probes.clean_up(&made));
            }
            Some(why) => {
                findings.push(probes.reading(&self.object_to_read(contents)));
                let what = "what only an object can show, such as If-Match and checksums";
                findings.push(
                    Finding::warning("not checked", format!("{what}, because {why}")).hint(
                        "in another bucket of this server, or with other credentials, it can be checked",
                    ),
                );
                // a condition that a server ignores makes a delete marker
                findings.extend(probes.clean_up(&[]));
            }
        }
    }

    /// The key of an object that should be there.
    fn object_to_read(&self, contents: Option<&Contents>) -> String {
        let first = contents.and_then(|contents| contents.entries.first());
        first.map_or_else(|| readme::key(self.prefix), |entry| entry.first_key(self.prefix))
    }
}

/// The archive class that uploads use, or that a stored backup is in.
fn archive_in_use<'a>(class: &'a StorageClass, contents: Option<&'a Contents>) -> Option<&'a StorageClass> {
    let entries = contents.map(|contents| contents.entries.as_slice()).unwrap_or_default();
    let stored = entries.iter().filter_map(|entry| Some(&entry.stream.as_ref()?.storage_class));
    std::iter::once(class).chain(stored).find(|class| Archive::of(Some(class), None).is_some())
}
