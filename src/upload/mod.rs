//! One backup on its way to the bucket, from the intent to the store. In order:
//!
//! - `snapshots`: the snapshots held, and found again under other names;
//! - `source`: the stream of `zfs send`, checked;
//! - `transfer`: the stream into parts, each recorded when S3 has it;
//! - `finish`: parts into objects, the manifest, the store;
//! - `reconcile`: what of an interrupted upload S3 really has;
//! - `abandon`: rolling all of it back.

mod abandon;
mod finish;
mod reconcile;
mod snapshots;
mod source;
mod transfer;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::backup::Backup;
use crate::chunks::Cut;
use crate::copy::CopyName;
use crate::error::{Error, Result, Status};
use crate::inventory::{Inventory, Uploads};
use crate::progress::record::{End, Intent, Overview, Record};
use crate::progress::{self, Progress};
use crate::s3::client::Client;
use crate::store::{Folder, Store};
use crate::ui::Ui;
use crate::utc::Utc;
use crate::zfs::Zfs;

/// All that the steps of an upload work with.
pub struct Upload {
    pub folder: Folder,
    pub store: Store,
    /// The server's URL.
    pub endpoint: String,
    pub region: String,
    pub client: Client,
    pub zfs: Zfs,
    pub jobs: usize,
    pub ui: Arc<Ui>,
    /// A multipart upload may have been begun whose ID is not known.
    pub strays: AtomicBool,
}

impl Upload {
    /// Stores a backup that the chain rule allows. After an error the upload is pending, unless it had stored nothing.
    pub fn begin(mut self, intent: Intent) -> Result<()> {
        // the intent first: whatever comes after it, a crash leaves something that resume and abort know of
        let progress = Progress::create(&self.folder, &intent)?;
        let backup = intent.backup();
        self.hold(&intent, &backup);
        let overview = Overview::new(intent.clone());
        let known = transfer::Known::default();
        let result = self
            .transfer(&progress, &backup, overview, known)
            .and_then(|end| self.finish(progress, &intent, &end));
        match result {
            Err(error) if error.status != Status::TryAgain && self.stored_nothing() => {
                match self.abandon(&intent) {
                    Ok(()) => Err(error),
                    Err(second) => {
                        let both = error_with(&error, second);
                        Err(if self.folder.progress().exists() { pending(both) } else { both })
                    }
                }
            }
            result => result.map_err(pending),
        }
    }

    /// Resumes the pending upload. `parts`: how many a segment may have, where the user says that.
    pub fn resume(mut self, overview: Overview, parts: Option<u16>) -> Result<()> {
        let intent = overview.intent.clone();
        if self.is_stored(&intent) && self.is_whole_in_bucket(&intent.copy())? {
            // the run before ended between the store and the progress file
            let progress = Progress::open(&self.folder)?;
            self.end_strays(&intent, &[]);
            self.forget(progress, &intent)?;
            self.ui.note(&format!("{} was stored already", intent.backup().in_words()));
            return Ok(());
        }
        if let Some(nonce) = overview.removal {
            // an abort was cut short
            self.withdraw(&intent, nonce).map_err(pending)?;
        }
        self.check_base(&intent).map_err(pending)?;
        let progress = Progress::open(&self.folder)?;
        let overview = self.with_fewer_parts(&progress, overview, parts)?;
        let intent = overview.intent.clone();
        let (overview, known) = self.reconcile(&progress, overview).map_err(pending)?;
        let end = match overview.end.clone() {
            Some(end) if known.all_stored() => {
                // it may be large
                drop(known);
                end
            }
            _ => {
                let backup = self.find_again(&intent)?;
                self.hold(&intent, &backup);
                self.transfer(&progress, &backup, overview, known).map_err(pending)?
            }
        };
        self.finish(progress, &intent, &end).map_err(pending)
    }

    /// A server that takes fewer parts an upload than was thought gets no more than these in a segment from now on.
    fn with_fewer_parts(
        &self,
        progress: &Progress,
        mut overview: Overview,
        parts: Option<u16>,
    ) -> Result<Overview> {
        let cut = overview.intent.cut;
        let Some(parts_per_segment) = parts.filter(|parts| *parts < cut.parts_per_segment) else {
            return Ok(overview);
        };
        if overview.segments.values().any(|state| state.completed.is_some()) {
            self.ui.warning(&format!(
                "ZFS2S3_PARTS is not applied to this upload: it has complete segments of {} parts",
                cut.parts_per_segment
            ));
            return Ok(overview);
        }
        let record = Record::Cut(Cut { parts_per_segment, ..cut });
        progress.add(&record)?;
        overview.add(record).map_err(Error::failed)?;
        Ok(overview)
    }

    /// Aborts the pending upload.
    pub fn abort(mut self, intent: &Intent) -> Result<()> {
        self.abandon(intent)
    }

    /// `backup`: what is sent, as it is called now.
    fn transfer(
        &self,
        progress: &Progress,
        backup: &Backup,
        overview: Overview,
        known: transfer::Known,
    ) -> Result<End> {
        let transfer = transfer::Transfer::new(self, progress, backup, overview, known);
        self.ui.transfer(&transfer.name(), transfer.estimate());
        let size = transfer.run();
        self.ui.transfer_done();
        let end = End { size: size?, stored: Utc::now() };
        progress.add(&Record::End(end.clone()))?;
        Ok(end)
    }

    /// Another host may have removed the base since the upload began.
    fn check_base(&self, intent: &Intent) -> Result<()> {
        if intent.base.is_none() {
            return Ok(());
        }
        let inventory = Inventory::read(&self.client, &self.store.contents, &self.ui, Uploads::NotAsked)?;
        inventory.check_resume(&intent.backup())
    }

    /// Does the store have this very copy?
    fn is_stored(&self, intent: &Intent) -> bool {
        self.store.contents.entries.iter().any(|entry| entry.copy() == intent.copy())
    }

    /// Where listing is forbidden, what the store says.
    fn is_whole_in_bucket(&self, copy: &CopyName) -> Result<bool> {
        let inventory = Inventory::read(&self.client, &self.store.contents, &self.ui, Uploads::NotAsked)?;
        Ok(inventory.is_whole(copy))
    }

    fn stored_nothing(&self) -> bool {
        progress::parts_of(&self.folder, 1).is_ok_and(|parts| parts.is_empty())
    }

    /// The last step, of a finished upload as of an aborted one.
    fn forget(&self, progress: Progress, intent: &Intent) -> Result<()> {
        self.release(intent);
        progress.remove()
    }
}

const ABORT: &str = "'zfs2s3 abort_upload' aborts the pending upload";

fn pending(error: Error) -> Error {
    match error.hints.iter().any(|hint| hint == ABORT) {
        true => error,
        false => error.hint("the upload is pending: 'zfs2s3 resume_upload' resumes it").hint(ABORT),
    }
}

fn error_with(error: &Error, second: Error) -> Error {
    let mut both = Error::failed(format!("{error}; and cleaning up: {second}"));
    both.hints = error.hints.iter().cloned().chain(second.hints).collect();
    both
}
