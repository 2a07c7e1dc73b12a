//! Reads one stored backup. Nothing is delivered unchecked: each chunk is checked against its SHA-256 in the
//! manifest, the list of these against the composite one in the store, the stream's BEGIN and END records
//! against the guids, and each record against its own checksum. What was filtered is checked as it is stored
//! before the unfilter sees it, and as a stream after that.

use std::sync::atomic::AtomicBool;

use crate::chunk_io::concurrency::Concurrency;
use crate::chunk_io::fetch;
use crate::error::{Error, Result, Status};
use crate::filter::{Filter, bytes_of_chunk};
use crate::inventory::read_manifest::{Cause, Chunks, ManifestRead, read_manifest, unusable};
use crate::model::chunks::{length_of_chunk, max_filtered};
use crate::model::digest::Sha256;
use crate::model::keys;
use crate::model::manifest::text::SegmentChunks;
use crate::model::manifest::{Manifest, Stream};
use crate::model::traffic::Meter;
use crate::os::thread::GO_ON;
use crate::restore::resume::locate::{self, ResumePoint};
use crate::restore::resume::partial::PartialReceive;
use crate::restore::resume::search::StreamChunks;
use crate::restore::survey::{Survey, why_unreadable};
use crate::restore::unfiltering::Unfiltering;
use crate::s3::client::Client;
use crate::state::store::format::Entry;
use crate::stream::check::StreamCheck;
use crate::stream::{StreamError, check_begin};
use crate::ui::Ui;

/// For objects of the Python tool, which have no chunks. Bytes.
const PYTHON_CHUNK: u64 = 16 << 20;
/// How often a damaged chunk is fetched: it may have been damaged in transit.
const ATTEMPTS: u32 = 3;

pub struct StoredBackup<'a> {
    client: &'a Client,
    entry: &'a Entry,
    chunk_size: u64,
    /// Bytes of the stream.
    size: u64,
    segments: Vec<StoredSegment>,
    survey: Survey,
    /// None: chunks are read as they are stored.
    unfiltering: Option<Unfiltering<'a>>,
}

/// One object.
struct StoredSegment {
    key: String,
    size: u64,
    /// The index of its first chunk.
    first: u64,
    /// None for the Python tool's.
    chunks: Option<SegmentChunks>,
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

/// A backup of the store, as it is in the bucket now.
pub enum Opened<'a> {
    Readable(StoredBackup<'a>),
    /// An object must be thawed first, or something is wrong with it.
    Unreadable(Survey),
}

impl<'a> Opened<'a> {
    pub fn readable(self) -> Result<StoredBackup<'a>> {
        match self {
            Opened::Readable(stored) => Ok(stored),
            Opened::Unreadable(mut survey) => Err(why_unreadable([&mut survey])),
        }
    }
}

/// The objects of a backup, as they are in the bucket now. A transient failure is an error.
pub fn survey(client: &Client, prefix: &str, entry: &Entry) -> Result<Survey> {
    match StoredBackup::open_with(client, prefix, entry, Chunks::Checked)? {
        Opened::Readable(stored) => Ok(stored.survey),
        Opened::Unreadable(survey) => Ok(survey),
    }
}

impl<'a> StoredBackup<'a> {
    /// Reads the manifest, and asks S3 for each object. A transient failure is an error.
    pub fn open(client: &'a Client, prefix: &str, entry: &'a Entry) -> Result<Opened<'a>> {
        Self::open_with(client, prefix, entry, Chunks::Kept)
    }

    fn open_with(client: &'a Client, prefix: &str, entry: &'a Entry, chunks: Chunks) -> Result<Opened<'a>> {
        match &entry.stream {
            Some(stream) => Self::open_by_manifest(client, prefix, entry, stream, chunks),
            None => Self::open_of_python(client, entry),
        }
    }

    fn open_by_manifest(
        client: &'a Client,
        prefix: &str,
        entry: &'a Entry,
        known: &Stream,
        chunks: Chunks,
    ) -> Result<Opened<'a>> {
        let key = keys::manifest(prefix, &entry.copy());
        let mut survey = Survey::default();
        let read = match read_manifest(client, &key, known.size, chunks)? {
            ManifestRead::Found(read) => match check_manifest(entry, known, &read.manifest) {
                Ok(()) => Ok(Some(read)),
                Err(why) => Err(unusable(&key, why)),
            },
            ManifestRead::Missing => Err(missing(&key)),
            ManifestRead::Unreadable { why, cause: Cause::Archived } => {
                survey.add(client, &key, None)?;
                if survey.is_readable() { Err(unusable(&key, why)) } else { Ok(None) }
            }
            ManifestRead::Unreadable { why, .. } => Err(unusable(&key, why)),
        };
        for segment in &known.segments {
            survey.add(client, &segment.key, Some(segment.size))?;
        }
        match read {
            Ok(Some(read)) if survey.is_readable() => {
                let mut segments = Vec::new();
                let mut first = 0;
                for (segment, chunks) in known.segments.iter().zip(read.chunks) {
                    let count = chunks.sums.len() as u64;
                    let (key, size) = (segment.key.clone(), segment.size);
                    segments.push(StoredSegment { key, size, first, chunks: Some(chunks) });
                    first += count;
                }
                let (chunk_size, size) = (known.chunk_size, known.size);
                Ok(Opened::Readable(Self::new(client, entry, (chunk_size, size), segments, survey)))
            }
            Ok(_) => Ok(Opened::Unreadable(survey)),
            Err(error) => {
                survey.errors.insert(0, error);
                Ok(Opened::Unreadable(survey))
            }
        }
    }

    fn open_of_python(client: &'a Client, entry: &'a Entry) -> Result<Opened<'a>> {
        let mut survey = Survey::default();
        survey.add(client, &keys::python(&entry.backup()), None)?;
        let Some(object) = survey.objects.first().filter(|_| survey.is_readable()) else {
            return Ok(Opened::Unreadable(survey));
        };
        let size = object.bytes;
        let segments = vec![StoredSegment { key: object.key.clone(), size, first: 0, chunks: None }];
        Ok(Opened::Readable(Self::new(client, entry, (PYTHON_CHUNK, size), segments, survey)))
    }

    /// `chunk_size`, `size`: of a chunk, and of the stream.
    fn new(
        client: &'a Client,
        entry: &'a Entry,
        (chunk_size, size): (u64, u64),
        segments: Vec<StoredSegment>,
        survey: Survey,
    ) -> Self {
        StoredBackup { client, entry, chunk_size, size, segments, survey, unfiltering: None }
    }

    /// With what undoes the filter, if it was filtered.
    pub fn unfiltered_by(mut self, unfilter: Option<&'a Filter>) -> Result<Self> {
        self.unfiltering = Unfiltering::of(self.entry, unfilter)?;
        Ok(self)
    }

    fn is_filtered(&self) -> bool {
        self.entry.is_filtered()
    }

    /// The error that the stored stream is invalid. If the stored bytes are those that the filter gave, and none
    /// of them could be undone yet, that is no damage.
    pub fn invalid(&self, e: StreamError) -> Error {
        let no_stream = self.unfiltering.as_ref().and_then(|unfiltering| unfiltering.no_stream(&e));
        no_stream.unwrap_or_else(|| {
            Error::new(Status::Damaged, format!("the stored stream of '{}': {e}", self.entry.backup()))
        })
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Are its hashes known? Not if the Python tool has stored it.
    pub fn is_hashed(&self) -> bool {
        self.segments.iter().all(|segment| segment.chunks.is_some())
    }

    /// Of each object, its key and the indexes of its chunks.
    pub fn chunks_of_objects(&self) -> Vec<(&str, std::ops::Range<u64>)> {
        let chunks = |segment: &StoredSegment| segment.first..segment.first + self.count_of(segment);
        self.segments.iter().map(|segment| (segment.key.as_str(), chunks(segment))).collect()
    }

    /// The key of the object with this chunk.
    pub fn object_of(&self, chunk: u64) -> &str {
        &self.segment_of(chunk).1.key
    }

    /// The key of the object with the byte at this position of the stream, or the last one.
    pub fn object_at(&self, position: u64) -> &str {
        self.object_of(position.min(self.size.saturating_sub(1)) / self.chunk_size)
    }

    fn count_of(&self, segment: &StoredSegment) -> u64 {
        let by_size = segment.size.div_ceil(self.chunk_size);
        segment.chunks.as_ref().map_or(by_size, |chunks| chunks.sums.len() as u64)
    }

    /// Bytes that a chunk may have, as it is stored or as it was.
    pub fn buffer_size(&self) -> u64 {
        if self.is_filtered() { max_filtered(self.chunk_size) } else { self.chunk_size }
    }

    /// Reads one chunk into a buffer of [`Self::buffer_size`], checks its hash, and undoes the filter. The
    /// length of the chunk.
    pub fn fetch_chunk(
        &self,
        index: u64,
        buffer: &mut [u8],
        stop: &AtomicBool,
        meter: Meter,
    ) -> Result<usize> {
        let range = self.range(index);
        self.fetch(&range, &mut buffer[..range.length], stop, meter)?;
        let Some(unfiltering) = &self.unfiltering else { return Ok(range.length) };
        // the manifest has as many chunks as the stream
        let length = length_of_chunk(index, self.chunk_size, self.size) as usize;
        unfiltering.undo(index, buffer, range.length, length, stop)?;
        Ok(length)
    }

    /// The error of this chunk, the next one to be delivered.
    fn explained(&self, index: u64, error: Error) -> Error {
        match &self.unfiltering {
            Some(unfiltering) => {
                unfiltering.explained(index, error, |index| self.fetch_alone(index).map(|_| ()))
            }
            None => error,
        }
    }

    /// The chunk, while no other is fetched.
    fn fetch_alone(&self, index: u64) -> Result<Vec<u8>> {
        let mut chunk = vec![0; self.buffer_size() as usize];
        let length = self.fetch_chunk(index, &mut chunk, &GO_ON, &|_| ())?;
        chunk.truncate(length);
        Ok(chunk)
    }

    /// Where an interrupted receive continues.
    pub fn find_resume_point(&self, partial: &PartialReceive) -> Result<ResumePoint> {
        if !self.is_hashed() {
            return Err(Error::refused(format!(
                "cannot resume the receive of {}: the Python tool stored it, without checksums of its chunks",
                partial.name
            )));
        }
        let fetch = |index| self.fetch_alone(index).map_err(|error| self.explained(index, error));
        let mut chunks = StreamChunks::new(
            fetch,
            self.chunk_size,
            self.size,
            self.client.memory.jobs_for(self.bytes_in_memory()) + 1,
        );
        locate::find_resume_point(&mut chunks, partial).map_err(undelivered)
    }

    fn bytes_in_memory(&self) -> u64 {
        bytes_of_chunk(self.chunk_size, self.is_filtered())
    }

    /// Delivers the objects in order, as they are stored, with the index of each chunk. The first chunk that
    /// stays damaged ends it.
    pub fn read_objects(&self, ui: &Ui, mut deliver: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        self.fetch_all(0, ui, |index, chunk| {
            deliver(index, chunk)?;
            ui.advance(chunk.len() as u64, true);
            Ok(())
        })
    }

    /// Bytes of the objects.
    pub fn stored_size(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size).sum()
    }

    /// Fetches the chunks from this one on, and delivers each, with its index, in order.
    fn fetch_all(
        &self,
        first: u64,
        ui: &Ui,
        mut deliver: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let count: u64 = self.segments.iter().map(|segment| self.count_of(segment)).sum();
        let fetch_one = |index, buffer: &mut [u8], stop: &AtomicBool, meter: Meter| {
            let _connection = ui.connection();
            self.fetch_chunk(first + index, buffer, stop, meter)
        };
        let concurrency = Concurrency::of(&self.client.memory, self.bytes_in_memory());
        // `open` has checked that it fits
        let buffer_size = self.buffer_size() as usize;
        fetch::run(count.saturating_sub(first), buffer_size, concurrency, &fetch_one, |index, chunk| {
            deliver(first + index, chunk)
        })
    }

    /// Delivers the stream in order, from the position `from`, where a record begins. The first chunk that
    /// stays damaged ends it, and nothing of it or after it is delivered.
    pub fn read(&self, from: u64, ui: &Ui, mut deliver: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut check = if from == 0 { StreamCheck::new() } else { StreamCheck::from_record_at(from) };
        self.read_on(from, &mut check, ui, |chunk, _, _| deliver(chunk)).map_err(undelivered)?;
        // it was stored as it was sent, so refusing it now would not help
        if let Some(object) = check.lost_object() {
            ui.warning(&self.invalid(StreamError::Loses(object)).message);
        }
        if let Some(unchecked) = check.unchecked() {
            ui.warning(&format!("the stored stream of '{}' {unchecked}", self.entry.backup()));
        }
        Ok(())
    }

    /// The same, with the check of what was read before. `deliver` also gets the position after the chunk,
    /// and the check.
    pub fn read_on(
        &self,
        from: u64,
        check: &mut StreamCheck,
        ui: &Ui,
        mut deliver: impl FnMut(&[u8], u64, &StreamCheck) -> Result<()>,
    ) -> Result<()> {
        let mut skip = (from % self.chunk_size) as usize;
        let link = self.entry.link();
        let mut position = from;
        let mut next = from / self.chunk_size;
        ui.advance(from, false);
        self.fetch_all(next, ui, |index, chunk| {
            if index == 0 {
                check_begin(chunk, link).map_err(|e| self.invalid(e))?;
            }
            let chunk = &chunk[std::mem::take(&mut skip)..];
            check.push(chunk).map_err(|e| self.invalid(e))?;
            self.unfiltering.iter().for_each(Unfiltering::is_right);
            position += chunk.len() as u64;
            deliver(chunk, position, check)?;
            next = index + 1;
            ui.advance(chunk.len() as u64, true);
            Ok(())
        })
        .map_err(|error| self.explained(next, error))?;
        check.check_end(link).map_err(|e| self.invalid(e))
    }

    /// The segment with this chunk, or the last one, and its number.
    fn segment_of(&self, index: u64) -> (usize, &StoredSegment) {
        let number = self.segments.partition_point(|segment| segment.first <= index).max(1);
        (number, &self.segments[number - 1])
    }

    fn range(&self, index: u64) -> ChunkRange<'_> {
        let (number, segment) = self.segment_of(index);
        let n = (index - segment.first) as usize;
        let (start, end) = match &segment.chunks {
            Some(chunks) if self.is_filtered() => {
                (n.checked_sub(1).map_or(0, |before| chunks.ends[before]), chunks.ends[n])
            }
            _ => {
                let start = n as u64 * self.chunk_size;
                (start, segment.size.min(start + self.chunk_size))
            }
        };
        let sum = segment.chunks.as_ref().map(|chunks| chunks.sums[n]);
        // `open` has checked that a chunk fits
        ChunkRange { segment, number, start, length: (end - start) as usize, sum }
    }

    fn fetch(&self, range: &ChunkRange, buffer: &mut [u8], stop: &AtomicBool, meter: Meter) -> Result<()> {
        let ChunkRange { segment, number, start, .. } = range;
        let mut found = None;
        for _ in 0..ATTEMPTS {
            self.client.get_range(&segment.key, *start, buffer, stop, meter).map_err(|failure| {
                if failure.code == "InvalidObjectState" {
                    return Error::new(
                        Status::Archived,
                        format!(
                            "the object '{}' can no longer be read, and must be thawed again",
                            segment.key
                        ),
                    );
                }
                failure.into()
            })?;
            let sum = Sha256::of(buffer);
            if range.sum.is_none_or(|expected| expected == sum) {
                return Ok(());
            }
            found = Some(sum);
        }
        let (last, sum) =
            (start + buffer.len() as u64 - 1, found.map(|sum| sum.to_string()).unwrap_or_default());
        Err(Error::new(
            Status::Damaged,
            format!(
                "the object '{}' (segment {number}) is damaged in bytes {start} to {last}: their SHA-256 is {sum}",
                segment.key
            ),
        ))
    }
}

/// That damage is in the way, and how far the output is right.
pub fn undelivered(error: Error) -> Error {
    let is_damage = error.status == Status::Damaged;
    let error = error.of_damage();
    if is_damage { error.hint("nothing of that chunk or after it was delivered") } else { error }
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

pub fn check_manifest(entry: &Entry, known: &Stream, manifest: &Manifest) -> Result<()> {
    let same = manifest.snapshot.guid == entry.snapshot.guid
        && manifest.base.as_ref().map(|base| base.guid) == entry.base.as_ref().map(|base| base.guid)
        && manifest.stream == *known;
    if !same {
        return Err(Error::failed("it describes another backup than the store"));
    }
    if usize::try_from(max_filtered(known.chunk_size)).is_err() {
        return Err(Error::failed("its chunks are too large for this machine"));
    }
    Ok(())
}

pub fn missing(key: &str) -> Error {
    Error::failed(format!("the bucket has no object '{key}'"))
}
