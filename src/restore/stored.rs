//! Reads one stored backup. Nothing is delivered unchecked: each chunk is checked against its SHA-256 in the
//! manifest, the list of these against the composite one in the store, and the stream's BEGIN and END records
//! against the guids.

use std::sync::atomic::AtomicBool;

use crate::chunk_io::fetch;
use crate::error::{Error, Result, Status};
use crate::inventory::read_manifest::{Chunks, ManifestRead, read_manifest, unusable};
use crate::model::digest::Sha256;
use crate::model::keys;
use crate::model::manifest::Stream;
use crate::model::storage_class::StorageClass;
use crate::restore::resume::locate::{self, ResumePoint};
use crate::restore::resume::partial::PartialReceive;
use crate::restore::resume::search::StreamChunks;
use crate::s3::client::Client;
use crate::state::store::format::Entry;
use crate::stream::spill_check::SpillCheck;
use crate::stream::{StreamError, Tail, check_begin};
use crate::ui::Ui;

/// For objects of the Python tool, which have no chunks. Bytes.
const PYTHON_CHUNK: u64 = 16 << 20;
/// How often a damaged chunk is fetched: it may have been damaged in transit.
const ATTEMPTS: u32 = 3;

pub struct StoredBackup<'a> {
    client: &'a Client,
    entry: &'a Entry,
    chunk_size: u64,
    size: u64,
    segments: Vec<StoredSegment>,
}

/// One object.
struct StoredSegment {
    key: String,
    size: u64,
    /// The index of its first chunk.
    first: u64,
    /// One for each chunk; none for the Python tool's.
    sums: Option<Vec<Sha256>>,
}

/// Where a chunk lies.
struct ChunkRange<'a> {
    segment: &'a StoredSegment,
    /// From 1.
    number: usize,
    start: u64,
    length: usize,
    sum: Option<Sha256>,
}

impl<'a> StoredBackup<'a> {
    /// Reads the manifest, and checks that the data can be read now. The errors name every object that
    /// cannot.
    pub fn open(client: &'a Client, prefix: &str, entry: &'a Entry) -> Result<Self, Vec<Error>> {
        let stored = match &entry.stream {
            Some(stream) => Self::by_manifest(client, prefix, entry, stream),
            None => Self::of_python(client, entry),
        };
        let stored = stored.map_err(|error| vec![error])?;
        if usize::try_from(stored.chunk_size).is_err() {
            return Err(vec![Error::failed(format!(
                "the chunks of '{}' are too large for this machine",
                entry.backup()
            ))]);
        }
        let errors: Vec<Error> =
            stored.segments.iter().filter_map(|segment| stored.check(segment).err()).collect();
        if errors.is_empty() { Ok(stored) } else { Err(errors) }
    }

    /// Can this object be read now?
    fn check(&self, segment: &StoredSegment) -> Result<()> {
        let key = &segment.key;
        let head = self.client.head(key)?.ok_or_else(|| missing(key))?;
        if self.client.is_archived(key, &head)? {
            let class = head.storage_class.as_ref().map_or("an archive tier", StorageClass::as_str);
            return Err(if head.is_being_restored() {
                Error::failed(format!(
                    "the object '{key}' is in the storage class {class}, and is being restored: it cannot be read yet"
                ))
                .hint("run this command again when S3 has restored it, which takes hours")
            } else {
                Error::failed(format!(
                    "the object '{key}' is in the storage class {class}, and must be restored before it can be read"
                ))
                .hint("'aws s3api restore-object' makes a readable copy, which takes hours")
            });
        }
        if head.size != segment.size {
            return Err(Error::failed(format!(
                "the object '{key}' has {} bytes, not {}",
                head.size, segment.size
            )));
        }
        Ok(())
    }

    fn by_manifest(client: &'a Client, prefix: &str, entry: &'a Entry, known: &Stream) -> Result<Self> {
        let key = keys::manifest(prefix, &entry.copy());
        let read = match read_manifest(client, &key, known.size, Chunks::Kept)? {
            ManifestRead::Found(read) => read,
            ManifestRead::Missing => return Err(missing(&key)),
            ManifestRead::Unreadable { why, .. } => return Err(unusable(&key, why)),
        };
        let manifest = read.manifest;
        let same = manifest.snapshot.guid == entry.snapshot.guid
            && manifest.base.as_ref().map(|base| base.guid) == entry.base.as_ref().map(|base| base.guid);
        let stream = manifest.stream;
        if !same || stream != *known {
            return Err(unusable(&key, Error::failed("it describes another backup than the store")));
        }
        let mut segments = Vec::new();
        let mut first = 0;
        for (segment, sums) in stream.segments.into_iter().zip(read.chunks) {
            let count = sums.len() as u64;
            segments.push(StoredSegment { key: segment.key, size: segment.size, first, sums: Some(sums) });
            first += count;
        }
        Ok(StoredBackup { client, entry, chunk_size: stream.chunk_size, size: stream.size, segments })
    }

    fn of_python(client: &'a Client, entry: &'a Entry) -> Result<Self> {
        let key = keys::python(&entry.backup());
        let size = client.head(&key)?.ok_or_else(|| missing(&key))?.size;
        let segments = vec![StoredSegment { key, size, first: 0, sums: None }];
        Ok(StoredBackup { client, entry, chunk_size: PYTHON_CHUNK, size, segments })
    }

    /// The error that the stored stream is invalid.
    pub fn invalid(&self, e: StreamError) -> Error {
        Error::failed(format!("the stored stream of '{}': {e}", self.entry.backup()))
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where an interrupted receive continues. At most jobs + 1 chunks are in memory.
    pub fn find_resume_point(&self, partial: &PartialReceive) -> Result<ResumePoint> {
        if self.segments.iter().any(|segment| segment.sums.is_none()) {
            return Err(Error::refused(format!(
                "cannot resume the receive of {}: the Python tool stored it, without checksums of its chunks",
                partial.name
            )));
        }
        let fetch = |index| {
            let range = self.range(index);
            let mut chunk = vec![0; range.length];
            self.fetch(&range, &mut chunk, &AtomicBool::new(false)).map(|()| chunk)
        };
        let mut chunks = StreamChunks::new(fetch, self.chunk_size, self.size, self.client.jobs + 1);
        locate::find_resume_point(&mut chunks, partial)
    }

    /// Delivers the stream in order, from the position `from`, where a record begins. The first chunk that
    /// stays damaged ends it, and nothing of it or after it is delivered.
    pub fn read(&self, from: u64, ui: &Ui, mut deliver: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let jobs = self.client.jobs;
        // `open` has checked that it fits
        let chunk_size = self.chunk_size as usize;
        let first = from / self.chunk_size;
        let mut skip = (from % self.chunk_size) as usize;
        let count: u64 = self.segments.iter().map(|segment| segment.size.div_ceil(self.chunk_size)).sum();
        let link = self.entry.link();
        let mut tail = Tail::new();
        // a resumed one begins at a record
        let mut spill_check = if from == 0 { SpillCheck::default() } else { SpillCheck::between_records() };
        let fetch_one = |index, buffer: &mut [u8], stop: &AtomicBool| {
            let range = self.range(first + index);
            self.fetch(&range, &mut buffer[..range.length], stop)?;
            Ok(range.length)
        };
        ui.advance(from, false);
        fetch::run(count.saturating_sub(first), chunk_size, jobs, &fetch_one, |index, chunk| {
            if first + index == 0 {
                check_begin(chunk, link).map_err(|e| self.invalid(e))?;
            }
            tail.push(chunk);
            let chunk = &chunk[std::mem::take(&mut skip)..];
            spill_check.push(chunk);
            deliver(chunk)?;
            ui.advance(chunk.len() as u64, true);
            Ok(())
        })?;
        // it was stored as it was sent, so refusing it now would not help
        if let Some(object) = spill_check.lost_object() {
            ui.warning(&self.invalid(StreamError::Loses(object)).message);
        }
        tail.check_end(link).map_err(|e| self.invalid(e))
    }

    fn range(&self, index: u64) -> ChunkRange<'_> {
        let number = self.segments.partition_point(|segment| segment.first <= index).max(1);
        let segment = &self.segments[number - 1];
        let start = (index - segment.first) * self.chunk_size;
        // `open` has checked that a chunk fits
        let length = (segment.size - start).min(self.chunk_size) as usize;
        let sum = segment.sums.as_ref().map(|sums| sums[(index - segment.first) as usize]);
        ChunkRange { segment, number, start, length, sum }
    }

    fn fetch(&self, range: &ChunkRange, buffer: &mut [u8], stop: &AtomicBool) -> Result<()> {
        let ChunkRange { segment, number, start, .. } = range;
        let mut found = None;
        for _ in 0..ATTEMPTS {
            self.client.get_range(&segment.key, *start, buffer, stop)?;
            let sum = Sha256::of(buffer);
            if range.sum.is_none_or(|expected| expected == sum) {
                return Ok(());
            }
            found = Some(sum);
        }
        let (last, sum) =
            (start + buffer.len() as u64 - 1, found.map(|sum| sum.to_string()).unwrap_or_default());
        Err(Error::failed(format!(
            "the object '{}' (segment {number}) is damaged in bytes {start} to {last}: their SHA-256 is {sum}",
            segment.key
        ))
        .hint("nothing of that chunk or after it was delivered"))
    }
}

/// Several errors as one.
pub fn all_as_one(mut errors: Vec<Error>) -> Error {
    if let Some(n) = errors.iter().position(|error| error.status == Status::TryAgain) {
        return errors.swap_remove(n);
    }
    if errors.len() == 1 {
        return errors.remove(0);
    }
    let count = errors.len();
    let mut hints: Vec<String> = Vec::new();
    let mut all = Error::failed(format!("{count} objects that are needed cannot be read now"));
    for error in errors {
        all = all.hint(error.message);
        hints.extend(error.hints.into_iter().filter(|hint| !all.hints.contains(hint)));
    }
    hints.dedup();
    hints.into_iter().fold(all, Error::hint)
}

fn missing(key: &str) -> Error {
    Error::failed(format!("the bucket has no object '{key}'"))
}
