//! Uploads the stream in parts: each chunk is hashed once, compared with its recorded hash, and uploaded if
//! S3 does not have it yet; filtered first, if the user has a filter.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, OnceLock};

use super::packing::{Packer, Part, StoredPart};
use super::source::Source;
use super::{ABORT, Upload};
use crate::chunk_io::buffers::Buffers;
use crate::chunk_io::concurrency::Concurrency;
use crate::chunk_io::send::{self, ChunkSink};
use crate::error::{Error, Result};
use crate::filter::{Filter, bytes_of_chunk};
use crate::model::backup::Backup;
use crate::model::chunks::PartPosition;
use crate::model::digest::Sha256;
use crate::model::keys;
use crate::os::clock;
use crate::os::mutex::{lock, wait};
use crate::s3::calls::MultipartUpload;
use crate::s3::failure::Failure;
use crate::state::journal::record::{
    Begun, End, FilteredChunk, FilteredChunks, Overview, PartStored, Record, SegmentBegun, SegmentState,
};
use crate::state::journal::{Journal, RecordedParts};

/// The chunks that an interrupted upload has recorded.
#[derive(Default)]
pub struct RecordedChunks {
    by_index: Vec<Option<RecordedChunk>>,
    /// The parts of filtered chunks that S3 has.
    pub parts: Vec<StoredPart>,
}

#[derive(Clone, Copy)]
pub struct RecordedChunk {
    pub sha256: Sha256,
    /// S3 has it.
    pub stored: bool,
}

impl RecordedChunks {
    pub fn add(&mut self, index: u64, chunk: RecordedChunk) {
        let index = index as usize;
        if self.by_index.len() <= index {
            self.by_index.resize(index + 1, None);
        }
        self.by_index[index] = Some(chunk);
    }
    pub fn expect(&mut self, more: usize) {
        self.by_index.reserve_exact(more);
    }
    /// As many as the stream has at least.
    pub fn count(&self) -> u64 {
        self.by_index.len() as u64
    }
    pub fn all_stored(&self) -> bool {
        self.by_index.iter().all(|chunk| chunk.is_some_and(|chunk| chunk.stored))
    }
    /// Is the first chunk recorded?
    pub fn begins(&self) -> bool {
        self.get(0).is_some()
    }
    /// The chunks from this index must be sent again, and those that share a part with one of them.
    pub fn forget_stored_from(&mut self, index: u64) {
        let goes = |part: &StoredPart| part.end > index;
        let first = self.parts.iter().filter(|part| goes(part)).map(|part| part.first).min();
        let first = first.unwrap_or(index).min(index) as usize;
        self.parts.retain(|part| !goes(part));
        self.by_index.iter_mut().skip(first).flatten().for_each(|chunk| chunk.stored = false);
    }
    fn get(&self, index: u64) -> Option<RecordedChunk> {
        self.by_index.get(usize::try_from(index).ok()?).copied().flatten()
    }
}

pub struct Transfer<'a> {
    upload: &'a Upload,
    journal: &'a Journal,
    /// With its current names.
    backup: &'a Backup,
    overview: Overview,
    known: RecordedChunks,
    /// The segments begun so far.
    segments: Mutex<BTreeMap<u32, SegmentState>>,
    /// The end of a stream that had only one chunk.
    single: OnceLock<End>,
    filtering: Option<Filtering>,
}

/// Filtered chunks, on their way into parts. Each waits until those before it are in theirs.
struct Filtering {
    filter: Filter,
    packer: Mutex<Packer>,
    turn: Condvar,
    /// After an error: some chunks may never come.
    stop: AtomicBool,
}

impl<'a> Transfer<'a> {
    pub fn new(
        upload: &'a Upload,
        journal: &'a Journal,
        backup: &'a Backup,
        mut overview: Overview,
        mut known: RecordedChunks,
        filter: Option<Filter>,
    ) -> Self {
        let segments = Mutex::new(std::mem::take(&mut overview.segments));
        let parts = std::mem::take(&mut known.parts);
        let filtering = filter.map(|filter| {
            let packer = Mutex::new(Packer::new(overview.intent.chunking, parts));
            Filtering { filter, packer, turn: Condvar::new(), stop: AtomicBool::new(false) }
        });
        let single = OnceLock::new();
        Transfer { upload, journal, backup, overview, known, segments, single, filtering }
    }

    pub fn name(&self) -> String {
        self.overview.intent.snapshot.name.clone()
    }

    pub fn estimate(&self) -> Option<u64> {
        self.overview.intent.estimate
    }

    /// Returns, and records, once the stream is complete and all of it is stored.
    pub fn run(&self) -> Result<End> {
        self.upload.ui.remark("Ctrl-C interrupts the upload; 'zfs2s3 resume_upload' resumes it");
        let intent = &self.overview.intent;
        let source = Source::open(
            &self.upload.zfs,
            self.backup,
            &intent.send_args,
            &intent.backup(),
            &self.upload.ui,
        )?;
        let chunk_size = usize::try_from(intent.chunking.chunk_size)
            .map_err(|_| Error::usage("ZFS2S3_CHUNK_SIZE is too large for this machine"))?;
        let in_memory = bytes_of_chunk(intent.chunking.chunk_size, self.filtering.is_some());
        let concurrency = Concurrency::of(&self.upload.client.memory, in_memory);
        let size = send::run(source, chunk_size, concurrency, self)?;
        if self.known.count() > intent.chunking.chunks_of(size) {
            return Err(self.not_the_same("it is shorter"));
        }
        if let Some(end) = self.single.get() {
            return Ok(end.clone());
        }
        let end = End { size, stored: clock::now() };
        self.journal.add(&Record::End(end.clone()))?;
        Ok(end)
    }

    /// Stores a stream that has only this chunk.
    fn store_single(&self, chunk: &[u8], sha256: Sha256) -> Result<()> {
        let end = self.upload.store_single(self.journal, &self.overview.intent, chunk, sha256)?;
        let _ = self.single.set(end);
        Ok(())
    }

    /// Begins the multipart upload of a segment.
    fn open_segment(&self, segment: u32) -> Result<()> {
        let mut segments = lock(&self.segments);
        let intent = &self.overview.intent;
        let key = keys::segment(&intent.prefix, &intent.copy(), segment);
        let mut repeated = false;
        let lock = intent.lock_at(clock::now());
        let created =
            self.upload.client.create_multipart_upload(&key, &intent.storage_class, lock, &mut repeated);
        if repeated {
            self.upload.strays.store(true, Ordering::SeqCst);
        }
        let (upload_id, checksums) = created?;
        let begun = SegmentBegun { segment, upload_id: upload_id.clone(), checksums };
        self.journal.add(&Record::Segment(begun))?;
        segments.insert(segment, SegmentState::new(Begun::Multipart { upload_id, checksums }));
        Ok(())
    }

    /// Version 1 had no keys of its own. And a filter may give other bytes in a resumed upload: what was sent
    /// before must not become the object after that.
    fn may_be_single(&self) -> bool {
        self.overview.intent.id.is_some() && self.filtering.is_none()
    }

    /// None: by PutObject.
    fn begun(&self, segment: u32) -> Option<Begun> {
        lock(&self.segments).get(&segment).map(|state| state.begun.clone())
    }

    /// The server allows fewer parts an upload than AWS.
    fn too_many_parts(&self, position: PartPosition, failure: Failure) -> Error {
        let recorded = RecordedParts::find(&self.upload.folder).and_then(|it| it.of(position.segment));
        let stored = recorded.map_or(0, |parts| parts.len());
        let numbers = failure.message.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
        let named = numbers.filter(|n: &usize| (2..usize::from(position.part)).contains(n)).max();
        let parts = named.unwrap_or(stored.max(1));
        Error::from(failure).hint(format!(
            "this server allows fewer parts an upload: 'ZFS2S3_PARTS={parts} zfs2s3 resume_upload' continues with further \
             segments; set it for later uploads, too"
        ))
    }

    fn not_the_same(&self, why: &str) -> Error {
        let name = &self.overview.intent.snapshot.name;
        Error::refused(format!("'zfs send' of {name} does not give the same stream as before: {why}"))
            .hint("possible reasons: a pool upgrade, another ZFS version, a changed property, key or name")
            .hint(ABORT)
    }
}

impl ChunkSink for Transfer<'_> {
    fn begin(&self, index: u64, is_last: bool) -> Result<()> {
        let position = self.overview.intent.chunking.position(index);
        match self.begun(position.segment) {
            Some(Begun::Multipart { .. }) => Ok(()),
            Some(Begun::Single) if !is_last => Err(self.not_the_same("it is longer")),
            Some(Begun::Single) => Ok(()),
            None if index == 0 && is_last && self.may_be_single() => Ok(()),
            None => self.open_segment(position.segment),
        }
    }

    fn store(&self, index: u64, chunk: &[u8], buffers: &Buffers) -> Result<()> {
        let intent = &self.overview.intent;
        let position = intent.chunking.position(index);
        let sha256 = Sha256::of(chunk);
        let known = self.known.get(index);
        match known {
            Some(known) if known.sha256 != sha256 => {
                let at = index * intent.chunking.chunk_size;
                return Err(self.not_the_same(&format!("it differs in the chunk at byte {at}")));
            }
            Some(known) if known.stored => {
                self.upload.ui.advance(chunk.len() as u64, false);
                return Ok(());
            }
            _ => {}
        }
        if let Some(filtering) = &self.filtering {
            return self.store_filtered(filtering, index, chunk, sha256, buffers);
        }
        if index == 0 && !matches!(self.begun(position.segment), Some(Begun::Multipart { .. })) {
            return self.store_single(chunk, sha256);
        }
        let etag = self.send_part(position, chunk, sha256, buffers)?;
        self.journal.add(&Record::Part(PartStored {
            segment: position.segment,
            part: position.part,
            size: chunk.len() as u64,
            etag,
            sha256,
            filtered: None,
        }))?;
        self.upload.ui.advance(chunk.len() as u64, true);
        Ok(())
    }

    fn stop(&self) {
        if let Some(filtering) = &self.filtering {
            let _packer = lock(&filtering.packer);
            filtering.stop.store(true, Ordering::SeqCst);
            filtering.turn.notify_all();
        }
    }

    fn end(&self, buffers: &Buffers) -> Result<()> {
        let Some(filtering) = &self.filtering else { return Ok(()) };
        let last = lock(&filtering.packer).finish();
        last.map_or(Ok(()), |part| self.store_part(filtering, part, buffers))
    }
}

impl Transfer<'_> {
    /// Filters a chunk, and stores the part that it completes, if it does.
    fn store_filtered(
        &self,
        filtering: &Filtering,
        index: u64,
        chunk: &[u8],
        plain_sha256: Sha256,
        buffers: &Buffers,
    ) -> Result<()> {
        let bytes = filtering.filter.filter(chunk, &filtering.stop)?;
        let filtered = FilteredChunk { size: bytes.len() as u64, sha256: Sha256::of(&bytes), plain_sha256 };
        let mut packer = lock(&filtering.packer);
        while packer.next() < index {
            if filtering.stop.load(Ordering::SeqCst) {
                return Ok(());
            }
            packer = wait(&filtering.turn, packer);
        }
        let (part, free) = packer.add(index, filtered, bytes).map_err(|why| {
            Error::failed(format!("the upload of {} cannot be resumed: {why}", self.name())).hint(ABORT)
        })?;
        drop(packer);
        filtering.turn.notify_all();
        free.into_iter().for_each(|buffer| filtering.filter.give(buffer));
        self.upload.ui.advance(chunk.len() as u64, true);
        part.map_or(Ok(()), |part| self.store_part(filtering, part, buffers))
    }

    fn store_part(&self, filtering: &Filtering, part: Part, buffers: &Buffers) -> Result<()> {
        let Part { segment, number, first, chunks, bytes } = part;
        let only = chunks.first().filter(|_| chunks.len() == 1);
        let sha256 = only.map_or_else(|| Sha256::of(&bytes), |chunk| chunk.sha256);
        let position = PartPosition { segment, part: number };
        let etag = self.send_part(position, &bytes, sha256, buffers)?;
        let size = bytes.len() as u64;
        let filtered = Some(FilteredChunks { first, chunks });
        self.journal.add(&Record::Part(PartStored {
            segment,
            part: number,
            size,
            etag,
            sha256,
            filtered,
        }))?;
        filtering.filter.give(bytes);
        Ok(())
    }

    /// The ETag.
    fn send_part(
        &self,
        position: PartPosition,
        body: &[u8],
        sha256: Sha256,
        buffers: &Buffers,
    ) -> Result<String> {
        let intent = &self.overview.intent;
        let Some(Begun::Multipart { upload_id, checksums }) = self.begun(position.segment) else {
            return Err(Error::failed(format!("segment {} is not open", position.segment)));
        };
        let key = keys::segment(&intent.prefix, &intent.copy(), position.segment);
        let open = MultipartUpload { key: &key, upload_id: &upload_id, checksums };
        let client = &self.upload.client;
        let request = buffers.begin_request();
        let connection = self.upload.ui.connection();
        let meter = |traffic| {
            request.note(traffic);
            self.upload.ui.traffic(traffic);
        };
        let sent = client.upload_part(open, position.part, body, sha256, &meter).map_err(|failure| {
            let lost = failure.is_missing();
            if position.part > 1 && failure.refuses_part_number() {
                return self.too_many_parts(position, failure);
            }
            let error = Error::from(failure);
            // resume begins the segment again
            if lost { Error::try_again(format!("S3 no longer knows the upload: {error}")) } else { error }
        });
        drop(connection);
        sent
    }
}
