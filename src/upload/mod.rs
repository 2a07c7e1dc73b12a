//! One backup on its way to the bucket, from the intent to the store. In order:
//!
//! - `base`: which base it has, if the user lets zfs2s3 choose;
//! - `plan`: what is checked before it begins;
//! - `snapshots`: holds the snapshots, and finds renamed ones;
//! - `source`: the stream of `zfs send`, checked;
//! - `transfer`: uploads the parts, and records each when S3 has it;
//! - `packing`: which filtered chunks are in which part;
//! - `single`: stores a stream that has only one chunk;
//! - `expected`: the object that these make;
//! - `complete`: completes the objects;
//! - `finish`: has them completed, writes the manifest and the store;
//! - `reconcile`: finds what S3 really has of an interrupted upload;
//! - `strays`: aborts multipart uploads that it left without knowing them;
//! - `abort`: rolls everything back.

mod abort;
pub mod base;
mod complete;
mod expected;
mod finish;
mod packing;
mod plan;
mod reconcile;
mod single;
mod snapshots;
mod source;
mod strays;
mod transfer;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::error::{Error, Result, Status};
use crate::filter::{FILTER, Filter};
use crate::inventory::{Inventory, OpenUploads};
use crate::model::backup::Backup;
use crate::model::chunks::Chunking;
use crate::model::copy::CopyName;
use crate::model::keys;
use crate::model::properties::Which;
use crate::s3::client::Client;
use crate::state::journal::record::{End, Intent, Overview, Record};
use crate::state::journal::{self, Journal, RecordedParts};
use crate::state::store::{Folder, Store};
use crate::ui::Ui;
use crate::zfs::Zfs;

/// Everything that the steps of an upload use.
pub struct Upload {
    pub folder: Folder,
    pub store: Store,
    pub client: Arc<Client>,
    pub zfs: Zfs,
    pub ui: Arc<Ui>,
    /// Which properties of the dataset are kept with a backup.
    pub keeps: Which,
    /// How long a filter may do nothing.
    pub filter_patience: Duration,
    /// What undoes the filter, if the user has set it: then it is tried, too.
    pub unfilter: Option<Filter>,
    /// There may be a multipart upload whose ID is unknown.
    pub strays: AtomicBool,
}

impl Upload {
    /// Stores a backup that the chain rule allows. After an error the upload is pending, unless nothing was
    /// stored yet.
    pub fn begin(mut self, intent: Intent) -> Result<()> {
        let filter = self.tried_filter(&intent)?;
        // the intent first: a crash at any later point leaves a pending upload, which can be resumed and
        // aborted
        let journal = Journal::create(&self.folder, &intent)?;
        let backup = intent.backup();
        self.hold(&intent, &backup);
        let overview = Overview::new(intent.clone());
        let known = transfer::RecordedChunks::default();
        let result = self
            .transfer(&journal, &backup, overview, known, filter)
            .and_then(|end| self.finish(journal, &intent, &end));
        match result {
            Err(error) if error.status != Status::TryAgain && self.stored_nothing() => {
                match self.roll_back(&intent) {
                    Ok(()) => Err(error),
                    Err(second) => {
                        let both = error_with(&error, second);
                        Err(if self.folder.journal().exists() { pending(both) } else { both })
                    }
                }
            }
            result => result.map_err(pending),
        }
    }

    /// Resumes the pending upload. `parts`: how many parts a segment may have, if the user sets that. `filter`:
    /// what the user would filter with now.
    pub fn resume(mut self, overview: Overview, parts: Option<u16>, filter: Option<&str>) -> Result<()> {
        let intent = overview.intent.clone();
        if let Some(began_with) = &intent.filter {
            if filter != Some(began_with) {
                // that of now may be the inverse of another one
                self.unfilter = None;
                self.ui
                    .note(&format!("the filter stays the one with which the upload began: '{began_with}'"));
            }
            self.ui.note("if the key of the filter has changed since then, abort the upload instead");
        }
        if self.is_stored(&intent) && self.is_whole_in_bucket(&intent.copy())? {
            // the last run ended after the store was written
            let journal = Journal::open(&self.folder)?;
            self.abort_strays(&intent, &[]).map_err(pending)?;
            self.close(journal, &intent)?;
            self.ui.note(&format!("{} was stored already", intent.backup().describe()));
            return Ok(());
        }
        if let Some(nonce) = overview.removal {
            // an abort was interrupted
            self.withdraw(&intent, nonce).map_err(pending)?;
        }
        self.check_base(&intent).map_err(pending)?;
        let journal = Journal::open(&self.folder)?;
        let (overview, known) = self.reconcile(&journal, overview).map_err(pending)?;
        let chunking = self.with_fewer_parts(&overview, parts);
        let is_whole = |end: &End| known.all_stored() && known.count() >= intent.chunking.chunks_of(end.size);
        let Some(end) = overview.end.clone().filter(is_whole) else {
            return self.resume_from_source(journal, overview, known, chunking).map_err(pending);
        };
        // it may be large
        drop(known);
        match self.finish(journal, &intent, &end) {
            // the server may not be able to complete so many parts
            Err(error) if error.status == Status::Failed && chunking.is_some() => {
                let again = journal::overview(&self.folder)?.filter(|again| !again.is_complete());
                let Some(again) = again else { return Err(pending(error)) };
                self.ui
                    .warning(&format!("the stream is divided again, into segments of fewer parts: {error}"));
                let journal = Journal::open(&self.folder)?;
                let (overview, known) = self.reconcile(&journal, again).map_err(pending)?;
                self.resume_from_source(journal, overview, known, chunking).map_err(pending)
            }
            result => result.map_err(pending),
        }
    }

    fn resume_from_source(
        &mut self,
        journal: Journal,
        overview: Overview,
        known: transfer::RecordedChunks,
        chunking: Option<Chunking>,
    ) -> Result<()> {
        // nothing is dropped before the source is known to exist
        let backup = self.find_source(&overview.intent, known.begins())?;
        let filter = self.tried_filter(&overview.intent)?;
        self.hold(&overview.intent, &backup);
        let (overview, known) = match chunking {
            Some(chunking) => self.apply_chunking(&journal, overview, known, chunking)?,
            None => (overview, known),
        };
        let intent = overview.intent.clone();
        let end = self.transfer(&journal, &backup, overview, known, filter)?;
        self.finish(journal, &intent, &end)
    }

    /// From now on, segments have no more than these parts, because the server allows fewer than assumed.
    fn with_fewer_parts(&self, overview: &Overview, parts: Option<u16>) -> Option<Chunking> {
        let chunking = overview.intent.chunking;
        let parts_per_segment = parts.filter(|parts| *parts < chunking.parts_per_segment)?;
        if overview.segments.values().any(|state| state.completed.is_some()) {
            self.ui.warning(&format!(
                "ZFS2S3_PARTS is not applied to this upload: it has complete segments of up to {} parts",
                chunking.parts_per_segment
            ));
            return None;
        }
        Some(Chunking { parts_per_segment, ..chunking })
    }

    /// Parts that are no longer in the first segment are sent again. Their recorded hashes still prove that
    /// the stream is the same.
    fn apply_chunking(
        &self,
        journal: &Journal,
        mut overview: Overview,
        mut known: transfer::RecordedChunks,
        chunking: Chunking,
    ) -> Result<(Overview, transfer::RecordedChunks)> {
        let intent = &overview.intent;
        // while their IDs are known
        for (segment, state) in overview.segments.iter().filter(|(segment, _)| **segment > 1) {
            let key = keys::segment(&intent.prefix, &intent.copy(), *segment);
            if let Some(upload_id) = state.upload_id() {
                self.abort_upload(&key, upload_id)?;
            }
        }
        let record = Record::Chunking(chunking);
        journal.add(&record)?;
        overview.add(record).map_err(Error::failed)?;
        known.forget_stored_from(u64::from(chunking.parts_per_segment));
        Ok((overview, known))
    }

    /// Aborts the pending upload.
    pub fn abort(mut self, intent: &Intent) -> Result<()> {
        self.roll_back(intent)
    }

    /// The filter of this upload, which works.
    fn tried_filter(&self, intent: &Intent) -> Result<Option<Filter>> {
        let Some(command) = &intent.filter else { return Ok(None) };
        let filter = Filter::new(FILTER, command, self.filter_patience);
        let size = intent.chunking.chunk_size.min(intent.estimate.unwrap_or(u64::MAX));
        let tried = filter.check(size)?;
        if let Some(unfilter) = &self.unfilter {
            unfilter.check_undoes(&tried)?;
        }
        Ok(Some(filter))
    }

    /// `backup`: with its current names.
    fn transfer(
        &self,
        journal: &Journal,
        backup: &Backup,
        overview: Overview,
        known: transfer::RecordedChunks,
        filter: Option<Filter>,
    ) -> Result<End> {
        let transfer = transfer::Transfer::new(self, journal, backup, overview, known, filter);
        self.ui.transfer(&transfer.name(), transfer.estimate());
        let end = transfer.run();
        self.ui.transfer_done();
        end
    }

    /// Another host may have removed the base since the upload began.
    fn check_base(&self, intent: &Intent) -> Result<()> {
        if intent.base.is_none() {
            return Ok(());
        }
        let inventory = self.inventory()?;
        inventory.check_resume(&intent.backup())
    }

    /// Does the store have this very copy?
    fn is_stored(&self, intent: &Intent) -> bool {
        self.store.contents.entries.iter().any(|entry| entry.copy() == intent.copy())
    }

    /// If listing is forbidden, the store decides.
    fn is_whole_in_bucket(&self, copy: &CopyName) -> Result<bool> {
        let inventory = self.inventory()?;
        Ok(inventory.is_whole(copy))
    }

    /// Of all that is stored.
    fn inventory(&self) -> Result<Inventory<'_>> {
        Inventory::read(&self.client, &self.store.contents, &self.ui, OpenUploads::Skip)
    }

    fn stored_nothing(&self) -> bool {
        let Ok(Some(overview)) = journal::overview(&self.folder) else { return false };
        // a single chunk is recorded before it is sent
        let is_single = overview.segments.get(&1).is_some_and(|state| state.upload_id().is_none());
        !overview.segments.values().any(|state| state.completed.is_some())
            && (is_single
                || RecordedParts::find(&self.folder).and_then(|it| it.of(1)).is_ok_and(|it| it.is_empty()))
    }

    /// The last step of a finished or aborted upload.
    fn close(&self, journal: Journal, intent: &Intent) -> Result<()> {
        self.release(intent);
        journal.remove()
    }
}

const ABORT: &str = "'zfs2s3 abort_upload' aborts the pending upload";

pub fn pending(error: Error) -> Error {
    if error.hints.iter().any(|hint| hint == ABORT) {
        return error;
    }
    error.hint("the upload is pending: 'zfs2s3 resume_upload' resumes it").hint(ABORT)
}

fn error_with(error: &Error, second: Error) -> Error {
    let mut both = Error::failed(format!("{error}; and cleaning up: {second}"));
    both.hints = error.hints.iter().cloned().chain(second.hints).collect();
    both
}
