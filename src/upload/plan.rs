//! What is checked before an upload begins: everything that can be, since from then on a crash leaves a
//! pending upload.

use std::collections::HashMap;

use super::Upload;
use super::base::{self, Choice};
use crate::chain;
use crate::chunk_io::each::for_each;
use crate::config::{LockRequest, UploadSettings};
use crate::error::{Error, Result};
use crate::filter::bytes_of_chunk;
use crate::inventory::{Inventory, Listing, Look};
use crate::model::backup::{Backup, Link};
use crate::model::chunks::{MAX_CHUNK, max_filtered};
use crate::model::names::{BaseName, Guid, SnapshotName, dataset_of};
use crate::model::object_lock::ProtectedUntil;
use crate::model::readme;
use crate::model::storage_class::StorageClass;
use crate::model::units::{count, human_size};
use crate::os::clock;
use crate::os::host;
use crate::os::random;
use crate::os::thread::start_in;
use crate::removal::TOOL;
use crate::state::journal::record::{FILTERED, Intent, VERSION};
use crate::state::store::format::{Contents, Entry};
use crate::zfs::{Flags, PointInfo, SnapshotInfo};

/// What a base can be chosen from.
pub struct Candidates {
    points: Vec<PointInfo>,
    snapshot: SnapshotInfo,
    lengths: HashMap<Guid, usize>,
    has_backups: bool,
    look: Look,
}

impl Candidates {
    /// Can the snapshot be restored already?
    pub fn is_stored(&self) -> bool {
        self.lengths.contains_key(&self.snapshot.point.guid)
    }

    pub fn choose(&self, max_chain: Option<usize>) -> Choice<'_> {
        base::choose(&self.points, self.snapshot.createtxg, &self.lengths, self.has_backups, max_chain)
    }

    /// What the bucket has.
    pub fn into_look(self) -> Look {
        self.look
    }
}

impl Upload {
    /// What a base for this snapshot can be chosen from.
    pub fn candidates(&self, snapshot: &SnapshotName) -> Result<Candidates> {
        let found = self.find_here(snapshot.as_str())?;
        let points = self.zfs.points_of(snapshot.dataset())?;
        let contents = &self.store.contents;
        let dataset = snapshot.dataset();
        let snapshots = points.iter().map(|point| point.guid).chain([found.point.guid]);
        let inventory = Inventory::read_for(&self.client, contents, &self.ui, dataset, snapshots)?;
        let is_here = |entry: &Entry| points.iter().any(|point| point.guid == entry.snapshot.guid);
        let is_of_dataset = |entry: &Entry| dataset_of(&entry.snapshot.name) == dataset;
        let has_backups = contents.entries.iter().any(|entry| is_of_dataset(entry) || is_here(entry));
        if !has_backups && inventory.has_others_of(dataset) {
            return Err(Error::refused(format!(
                "the bucket has backups of {dataset}, but the store has none: a new full backup may not be what is needed"
            ))
            .hint("if the store was lost, 'zfs2s3 recover' rebuilds it; if they are those of another host, 'zfs2s3 recover -m' adds them")
            .hint("to store a full backup nevertheless, run upload without -a"));
        }
        let lengths = inventory.chain_lengths();
        Ok(Candidates { has_backups, lengths, snapshot: found, points, look: inventory.into_look() })
    }

    /// Makes the bookmark of a snapshot whose backup is stored.
    pub fn bookmark_stored(&self, snapshot: &SnapshotName) -> Result<()> {
        self.zfs.bookmark(&self.zfs.find(snapshot.as_str())?.point)
    }

    /// The intent of an upload that may begin. `look`: if the bucket was listed for it already. In a dry run
    /// nothing is written to the bucket.
    pub fn plan(
        &self,
        snapshot: &SnapshotName,
        base: Option<&BaseName>,
        look: Option<Look>,
        settings: &UploadSettings,
        lock: Option<LockRequest>,
        dry_run: bool,
    ) -> Result<Intent> {
        let backup = self.find_backup(snapshot, base)?;
        let mut intent = Intent {
            version: VERSION,
            tool: TOOL.to_string(),
            endpoint: self.client.endpoint().url.clone(),
            bucket: self.store.contents.bucket.clone(),
            prefix: self.store.contents.prefix.clone(),
            snapshot: backup.snapshot.clone(),
            base: backup.base.clone(),
            id: Some(random::id()),
            host: Some(host::name()),
            chunking: settings.chunking.for_stream(&self.client.endpoint().url, None, false),
            storage_class: settings.storage_class.clone(),
            lock: lock.map(|lock| lock.retention),
            send_args: vec![],
            filter: None,
            estimate: None,
            begun: clock::now(),
        };
        // S3 and zfs are asked at the same time
        let (inventory, stream) = std::thread::scope(|scope| -> Result<_> {
            let inventory = start_in(scope, || self.check_against_inventory(&backup, look))?;
            let stream = self.flags_and_estimate(&backup);
            Ok((inventory.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), stream))
        })?;
        let inventory = inventory?;
        let (flags, estimate) = stream?;
        (intent.send_args, intent.estimate) = (flags.words(), estimate);
        self.apply_filter(settings, flags, &mut intent)?;
        if let Some(listing) = inventory.listing()
            && (self.is_first() || intent.estimate.is_none_or(|bytes| bytes >= intent.chunking.chunk_size))
        {
            self.check_may_read(&intent, listing, dry_run)?;
        }
        drop(inventory);
        if let Some(lock) = lock {
            if self.client.bucket_has_object_lock()? == Some(false) {
                return Err(Error::failed(format!("the bucket '{}' has no Object Lock", intent.bucket))
                    .hint("it must be enabled for the bucket; ZFS2S3_LOCK_DAYS or -l asked for it"));
            }
            self.warn_of_earlier_locks(&backup, lock);
        }
        if intent.estimate.is_some_and(|bytes| bytes < settings.standard_below) {
            intent.storage_class = StorageClass::standard();
        }
        intent.begun = clock::now();
        Ok(intent)
    }

    /// Whether it is filtered, and how large chunks are then. An encrypted dataset is sent as it is on the disk.
    fn apply_filter(&self, settings: &UploadSettings, flags: Flags, intent: &mut Intent) -> Result<()> {
        let dataset = dataset_of(&intent.snapshot.name);
        match (&settings.filter, flags) {
            (Some(command), Flags::WithoutEmbedded) => {
                (intent.filter, intent.version) = (Some(command.clone()), FILTERED);
            }
            (Some(_), Flags::Raw) => {
                self.ui.note(&format!("{dataset} is encrypted by ZFS, so it is sent raw, and not filtered"));
            }
            (Some(_), Flags::RawIfUnknown) => {
                return Err(Error::failed(format!(
                    "it is not known whether {dataset} is encrypted by ZFS, so neither is it known whether to filter it"
                ))
                .hint("without ZFS2S3_FILTER, it is sent raw"));
            }
            (None, Flags::WithoutEmbedded) if self.is_base_filtered(intent) => {
                self.ui
                    .warning("the base was filtered, and this backup is not, since ZFS2S3_FILTER is not set");
            }
            (None, _) => {}
        }
        let (url, is_filtered) = (&self.client.endpoint().url, intent.filter.is_some());
        intent.chunking = settings.chunking.for_stream(url, intent.estimate, is_filtered);
        let chunk_size = intent.chunking.chunk_size;
        if is_filtered && max_filtered(chunk_size) > MAX_CHUNK {
            let why = format!("chunks of {} are too large to be filtered", human_size(chunk_size));
            return Err(Error::setting("ZFS2S3_CHUNK_SIZE", why));
        }
        if is_filtered {
            let checked = settings.chunking.memory.check(bytes_of_chunk(chunk_size, true));
            checked.map_err(|why| Error::setting("ZFS2S3_MEMORY", format!("with a filter, {why}")))?;
        }
        Ok(())
    }

    fn is_base_filtered(&self, intent: &Intent) -> bool {
        let base = intent.base.as_ref().map(|base| base.guid);
        let entries = &self.store.contents.entries;
        entries.iter().any(|entry| Some(entry.snapshot.guid) == base && entry.is_filtered())
    }

    fn find_backup(&self, snapshot: &SnapshotName, base: Option<&BaseName>) -> Result<Backup> {
        let found = self.find_here(snapshot.as_str())?;
        let Some(base) = base else {
            return Ok(Backup { snapshot: found.point, base: None });
        };
        let older = self.find_here(base.as_str()).map_err(|error| match self.stored_here(&found) {
            Some(name) => {
                error.hint(format!("the newest that is stored, and older than {snapshot}, is {name}"))
            }
            None => error,
        })?;
        if older.createtxg >= found.createtxg {
            return Err(Error::refused(format!("the base {base} is not older than {snapshot}")));
        }
        Ok(Backup { snapshot: found.point, base: Some(older.point) })
    }

    /// A snapshot or bookmark that must be on this host.
    fn find_here(&self, name: &str) -> Result<SnapshotInfo> {
        self.zfs.find(name).map_err(|error| {
            if error.message.contains("does not exist") { self.no_such_point(name) } else { error }
        })
    }

    fn no_such_point(&self, name: &str) -> Error {
        let dataset = dataset_of(name);
        let Ok(mut points) = self.zfs.points_of(dataset) else {
            return Error::failed(format!("there is no dataset {dataset} on this host"));
        };
        let (kind, sign) = if name.contains('#') { ("bookmark", '#') } else { ("snapshot", '@') };
        points.retain(|point| point.name.contains(sign));
        points.sort_by_key(|point| std::cmp::Reverse(point.createtxg));
        let latest: Vec<&str> = points.iter().take(3).map(|point| point.name.as_str()).collect();
        let error = Error::failed(format!("there is no {kind} {name} on this host"));
        match latest.len() {
            0 => error.hint(format!("{dataset} has no {kind}s")),
            1 => error.hint(format!("the only {kind} of {dataset} is {}", latest[0])),
            _ => error.hint(format!("the latest {kind}s of {dataset} are {}", latest.join(", "))),
        }
    }

    /// The base that `choose` would take for this snapshot, according to the store alone.
    fn stored_here(&self, snapshot: &SnapshotInfo) -> Option<String> {
        let points = self.zfs.points_of(dataset_of(&snapshot.point.name)).ok()?;
        let lengths = chain::lengths(&self.store.contents.members());
        match base::choose(&points, snapshot.createtxg, &lengths, true, None) {
            Choice::Base { point, .. } => Some(point.name.clone()),
            Choice::Full(_) => None,
        }
    }

    /// Of a full backup: the base with which only changes would be stored.
    pub fn possible_base(&self, snapshot: &SnapshotName) -> Option<String> {
        self.stored_here(&self.zfs.find(snapshot.as_str()).ok()?)
    }

    /// A backup is of no use without those that it depends on, whose locks may end earlier. If the length of
    /// locks is always the same, they do; then only one that has ended, or that never was, is a warning.
    fn warn_of_earlier_locks(&self, backup: &Backup, lock: LockRequest) {
        let Contents { entries, prefix, .. } = &self.store.contents;
        let Some(base) = backup.base.as_ref() else { return };
        let Some(chain) = chain::route_to(&self.store.contents.members(), base.guid, None) else { return };
        let ends = for_each(&chain, self.client.memory.jobs(), |n| {
            let key = entries[*n].first_key(prefix);
            Ok(self.client.head_if_allowed(&key)?.and_then(|head| head.lock.end()))
        });
        let ends = match ends {
            Ok(ends) => ends,
            Err(error) => {
                self.ui
                    .warning(&format!("it is not known until when its base is protected: {}", error.message));
                return;
            }
        };
        let needed = if lock.by_days { clock::now() } else { lock.retention.until };
        let earlier: Vec<&str> = chain
            .iter()
            .zip(ends)
            .filter(|(_, end)| end.is_none_or(|end| end < ProtectedUntil::Time(needed)))
            .map(|(n, _)| entries[*n].snapshot.name.as_str())
            .collect();
        if let Some(first) = earlier.first() {
            let others = match earlier.len() - 1 {
                0 => String::new(),
                n => format!(" and {}", count(n as u64, "other backup")),
            };
            self.ui.warning(&format!(
                "it depends on {first}{others}, which no Object Lock protects for as long, as far as these credentials can see"
            ));
        }
    }

    /// The flags of `zfs send`, and how many bytes it will give, if zfs can tell.
    fn flags_and_estimate(&self, backup: &Backup) -> Result<(Flags, Option<u64>)> {
        let flags = self.zfs.send_flags(&backup.snapshot.name)?;
        let estimate = match self.zfs.estimate(backup, &flags.words()) {
            Ok(size) => Some(size),
            // some versions of ZFS cannot estimate from a bookmark
            Err(_) if backup.base.as_ref().is_some_and(|base| base.name.contains('#')) => None,
            Err(error) => return Err(error),
        };
        Ok((flags, estimate))
    }

    /// Is nothing stored yet?
    pub(super) fn is_first(&self) -> bool {
        self.store.contents.entries.iter().all(|entry| entry.stream.is_none())
    }

    fn check_against_inventory(&self, backup: &Backup, look: Option<Look>) -> Result<Inventory<'_>> {
        let (client, contents) = (&self.client, &self.store.contents);
        let mut inventory = match look {
            Some(look) => Inventory::of(client, contents, look),
            None => self.inventory_for(backup)?,
        };
        if inventory.is_part() && inventory.check_upload(backup).is_err() {
            inventory = inventory.widened(contents)?;
        }
        inventory.check_upload(backup)?;
        inventory.notes(backup).iter().for_each(|note| self.ui.note(note));
        for name in inventory.unrecoverable() {
            self.ui.warning(&format!(
                "'{name}' cannot be restored: its data, or those of a backup that it depends on, are not in the bucket"
            ));
        }
        Ok(inventory)
    }

    /// Of the part of the bucket on which this backup depends.
    pub(super) fn inventory_for(&self, backup: &Backup) -> Result<Inventory<'_>> {
        let Link { snapshot, base } = backup.link();
        let dataset = dataset_of(&backup.snapshot.name);
        let snapshots = std::iter::once(snapshot).chain(base);
        Inventory::read_for(&self.client, &self.store.contents, &self.ui, dataset, snapshots)
    }

    /// Without the permission to read, S3 would refuse only after everything is sent, and could not be asked
    /// what was stored. Asked for the first backup of a store, and for one that is large.
    fn check_may_read(&self, intent: &Intent, listing: &Listing, dry_run: bool) -> Result<()> {
        let readme = readme::key(&intent.prefix);
        let existing = if listing.has_readme {
            Some(readme.as_str())
        } else {
            listing.objects.first().map(|object| object.key.as_str())
        };
        if let Some(key) = existing {
            return self.client.may_read(key)?.map_err(Error::from);
        }
        let Err(failure) = self.client.may_read(&readme)? else { return Ok(()) };
        // a policy that allows listing only below a prefix makes S3 answer so for a missing object, too
        if dry_run {
            self.ui.warning(&failure.describe());
            return Ok(());
        }
        self.put_readme(&intent.bucket, &intent.prefix)?;
        self.client.may_read(&readme)?.map_err(Error::from)
    }
}
