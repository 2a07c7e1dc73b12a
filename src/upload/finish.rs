//! Has the objects completed, writes the manifest, decides by a listing, then writes the store. Each step may
//! be repeated: after a crash the next run finds what was done. No other upload has these keys, so whatever
//! they name was made by this one.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::complete::another_object;
use super::{ABORT, Upload};
use crate::chain::Settled;
use crate::error::{Error, Result, Status};
use crate::inventory::read_manifest::{Cause, Chunks, ManifestRead, read_manifest};
use crate::inventory::{IF_IT_DIED, WHEN_IT_HAS_ENDED};
use crate::model::backup::Point;
use crate::model::keys;
use crate::model::manifest::text::{self, ManifestReader};
use crate::model::manifest::{Manifest, ManifestError, Segment, Stream, stages};
use crate::model::names::dataset_of;
use crate::model::object_lock::ProtectedUntil;
use crate::model::properties::{self, Which};
use crate::model::readme;
use crate::model::units::{count, human_size};
use crate::os::clock;
use crate::state::journal::record::{End, Intent, PartStored};
use crate::state::journal::{Journal, RecordedParts};
use crate::state::store::format::{Entry, State};

/// How long to wait for a removal by another host. It takes seconds, unless it was interrupted.
const WAIT_FOR_REMOVAL: Duration = Duration::from_secs(60);
/// For servers that list an object only after a moment.
const WAIT_FOR_LISTING: Duration = Duration::from_secs(10);

impl Upload {
    pub(super) fn finish(&mut self, journal: Journal, intent: &Intent, end: &End) -> Result<()> {
        let backup = intent.backup();
        let recorded = RecordedParts::find(&self.folder)?;
        let (segments, composite_sha256) = self.complete_all(&journal, &recorded, intent, end)?;
        let stream = Stream {
            size: end.size,
            composite_sha256,
            send_args: intent.send_args.clone(),
            stages: stages(intent.filter.as_deref()),
            filter: intent.filter.clone(),
            chunk_size: intent.chunking.chunk_size,
            storage_class: intent.storage_class.clone(),
            stored: end.stored,
            segments: vec![],
        };
        let mut manifest = Manifest::new(&intent.tool, intent.host.as_deref(), &backup, stream);
        self.describe_snapshot(intent, &mut manifest);
        let (text, parts) = manifest_text(&recorded, &mut manifest, segments)?;
        let manifest = self.put_manifest(intent, manifest, &text)?;
        drop(text); // it may be large
        self.check_locks(intent, &manifest.stream.segments);
        let has_readme = self.settle(&journal, intent, &manifest.stream.segments)?;
        // that of an older version explains no filter
        let is_first_filtered =
            intent.filter.is_some() && !self.store.contents.entries.iter().any(Entry::is_filtered);
        // a backup does not fail without it
        if ((self.is_first() && !has_readme) || is_first_filtered)
            && let Err(error) = self.put_readme(&intent.bucket, &intent.prefix)
        {
            self.ui.warning(&format!("no README in the bucket: {error}"));
        }
        let stored = human_size(manifest.stream.stored_size());
        let size = match intent.filter {
            None => stored,
            Some(_) => format!("{stored}, filtered from {}", human_size(end.size)),
        };
        let entries = &mut self.store.contents.entries;
        let kept = entries.iter().any(|entry| entry.link() == backup.link() && entry.kept);
        // the entry of another copy, whose objects may be gone
        entries.retain(|entry| entry.link() != backup.link() || entry.state == State::Removing);
        entries.push(Entry {
            snapshot: backup.snapshot.clone(),
            base: backup.base.clone(),
            id: intent.id,
            state: State::Stored,
            removal: None,
            kept,
            stream: Some(manifest.stream),
        });
        self.store.save()?;
        if self.strays.load(Ordering::SeqCst) {
            self.abort_strays(intent, &[])?;
        }
        self.close(journal, intent)?;
        self.ui.note(&format!("stored {}: {size}, {}", backup.describe(), count(parts, "part")));
        Ok(())
    }

    /// When the snapshot was created, and the properties of the dataset, as they are now. A backup does not
    /// fail without them.
    fn describe_snapshot(&self, intent: &Intent, manifest: &mut Manifest) {
        let described =
            self.current_name(&intent.snapshot, intent, None).and_then(|Point { name, .. }| {
                let lines = match self.keeps {
                    Which::None => String::new(),
                    Which::All | Which::Native => self.zfs.properties(dataset_of(&name))?,
                };
                Ok((self.zfs.creation(&name)?, lines))
            });
        match described {
            Ok((created, lines)) => {
                let (kept, too_long) = properties::kept(&lines, self.keeps);
                if !too_long.is_empty() {
                    self.ui.note(&format!(
                        "these properties are too long to be kept with the backup: {}",
                        too_long.join(", ")
                    ));
                }
                manifest.describe_snapshot(Some(created), kept);
            }
            Err(error) => {
                self.ui.warning(&format!("the properties are not kept with the backup: {}", error.message));
            }
        }
    }

    /// Returns the manifest in the bucket: this one, or an equal one with a key of version 1.
    fn put_manifest(&self, intent: &Intent, manifest: Manifest, text: &str) -> Result<Manifest> {
        let key = keys::manifest(&intent.prefix, &intent.copy());
        if intent.id.is_none() && self.client.head_if_allowed(&key)?.is_some() {
            return match read_manifest(&self.client, &key, manifest.stream.size, Chunks::Checked)? {
                ManifestRead::Found(there) if there.manifest.is_of_the_same_data(&manifest) => {
                    Ok(there.manifest)
                }
                ManifestRead::Unreadable { why, cause: Cause::Refused | Cause::Archived } => Err(why),
                ManifestRead::Missing => {
                    Err(Error::failed(format!("the manifest '{key}' is gone meanwhile")))
                }
                ManifestRead::Found(_) | ManifestRead::Unreadable { .. } => Err(another_object(&key)),
            };
        }
        self.client.put_locked(&key, text.as_bytes(), intent.lock_at(clock::now()))?;
        Ok(manifest)
    }

    /// A server may accept the request for an Object Lock, and ignore it. The backup is stored all the same.
    fn check_locks(&self, intent: &Intent, segments: &[Segment]) {
        let Some(wanted) = intent.lock_at(clock::now()) else { return };
        let manifest = keys::manifest(&intent.prefix, &intent.copy());
        for key in segments.iter().map(|segment| &segment.key).chain([&manifest]) {
            let end = match self.client.head_if_allowed(key) {
                Ok(head) => head.and_then(|head| head.lock.end()),
                Err(failure) => {
                    return self
                        .ui
                        .warning(&format!("the Object Lock was not checked: {}", failure.describe()));
                }
            };
            if end.is_none_or(|end| end < ProtectedUntil::Time(wanted.until)) {
                return self.ui.warning(&format!(
                    "the server does not show an Object Lock on '{key}': it may have ignored it, or these credentials may \
                     not see it (s3:GetObjectRetention)"
                ));
            }
        }
    }

    /// Decides, by a listing after the manifest was written, whether this backup is stored. Returns whether
    /// there is a README, as far as everything was listed: for the first backup it is.
    fn settle(&self, journal: &Journal, intent: &Intent, segments: &[Segment]) -> Result<bool> {
        if self.client.lacks("second look") {
            return Ok(true);
        }
        let copy = intent.copy();
        let sizes: HashMap<String, u64> = segments.iter().map(|s| (s.key.clone(), s.size)).collect();
        let begun = Instant::now();
        let mut pause = Duration::from_millis(50);
        let mut inventory = self.inventory_for(&intent.backup())?;
        let mut widens = true;
        loop {
            let Some(listing) = inventory.listing() else {
                return Ok(self.client.head_if_allowed(&readme::key(&intent.prefix))?.is_some());
            };
            let has_readme = listing.has_readme;
            let settled = inventory.settle(&copy, &sizes)?;
            if settled != Settled::Stored && inventory.is_part() && std::mem::take(&mut widens) {
                inventory = inventory.widened(&self.store.contents)?;
                continue;
            }
            let (limit, error) = match settled {
                Settled::Stored => return Ok(has_readme),
                Settled::Undecided => {
                    let removers = inventory.removers_of(&copy);
                    let error = Error::try_again(format!(
                        "{} cannot become stored while a removal is announced: {removers}",
                        intent.backup().describe()
                    ));
                    (WAIT_FOR_REMOVAL, error.hint(WHEN_IT_HAS_ENDED).hint(IF_IT_DIED))
                }
                Settled::NotWhole => (WAIT_FOR_LISTING, removed_meanwhile(intent)),
                Settled::BaseNotRecoverable => {
                    self.withdraw_manifest(journal, intent)?;
                    let base = intent.base.as_ref().map(|base| base.name.as_str()).unwrap_or_default();
                    return Err(Error::refused(format!(
                        "the base {base} can no longer be restored: another host has removed it, or a backup that it depends on"
                    ))
                    .hint(ABORT));
                }
            };
            if begun.elapsed() > limit.min(self.client.patience_limit()) {
                return Err(error);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(5));
            inventory =
                if inventory.is_part() { self.inventory_for(&intent.backup())? } else { self.inventory()? };
        }
    }

    /// The README for someone who has only the bucket.
    pub fn put_readme(&self, bucket: &str, prefix: &str) -> Result<()> {
        let server = self.client.endpoint();
        let text = readme::text(&server.url, &server.region.to_string(), bucket, prefix);
        Ok(self.client.put(&readme::key(prefix), text.as_bytes())?)
    }
}

/// Adds the segments to the manifest. Its text, which can be read again, and the number of parts. They are
/// read from the journal one segment at a time, since there may be many.
fn manifest_text(
    recorded: &RecordedParts,
    manifest: &mut Manifest,
    segments: Vec<Segment>,
) -> Result<(String, u64)> {
    let wrong = |why: String| Error::failed(format!("the manifest: {why}"));
    let stream = &manifest.stream;
    let (chunks, is_filtered) = (stream.size.div_ceil(stream.chunk_size), stream.is_filtered());
    let mut text = String::with_capacity(text::estimated_len(chunks, segments.len() as u64, is_filtered));
    let mut count = 0;
    for (number, segment) in (1..).zip(&segments) {
        let parts = recorded.of(number)?;
        count += parts.len() as u64;
        text::push_segment(&mut text, segment, parts.values().flat_map(PartStored::stored_sums))
            .map_err(wrong)?;
    }
    text::insert_head(&mut text, manifest).map_err(wrong)?;
    manifest.stream.segments = segments;
    let mut reader = ManifestReader::new(false);
    let read = reader.push(text.as_bytes()).map_err(ManifestError::from).and_then(|()| reader.finish());
    match read {
        Ok(read) if read.manifest == *manifest => Ok((text, count)),
        Ok(_) => Err(wrong("it would be read as another one".to_string())),
        Err(why) => Err(wrong(why.to_string())),
    }
}

/// The objects of this upload existed, and are gone.
pub(super) fn removed_meanwhile(intent: &Intent) -> Error {
    Error::new(
        Status::Refused,
        format!("the objects of {} are gone: another host has removed them", intent.backup().describe()),
    )
    .hint("run 'zfs2s3 abort_upload', and upload it again")
}
