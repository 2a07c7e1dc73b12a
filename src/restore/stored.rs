//! One stored backup, read back. Nothing is handed on that was not checked: each chunk against its SHA-256 in the manifest, the
//! list of these against the composite one in the store, and the stream's BEGIN and END records against the guids.

use std::sync::atomic::AtomicBool;

use crate::chunk_io::fetch;
use crate::error::{Error, Result, Status};
use crate::model::digest::Sha256;
use crate::model::keys;
use crate::model::manifest::Stream;
use crate::model::manifest::text::Checked;
use crate::restore::locate::{self, Start};
use crate::restore::partial::Partial;
use crate::restore::search::Chunks;
use crate::s3::client::Client;
use crate::state::store::format::Entry;
use crate::stream::watch::Watch;
use crate::stream::{StreamError, Tail, check_begin};
use crate::ui::Ui;

/// For objects of the Python tool, which have no chunks of their own. Bytes.
const PYTHON_CHUNK: u64 = 16 << 20;
/// A chunk that is not what it should be is fetched so many times: the damage may be on the way.
const TRIES: u32 = 3;

pub struct Stored<'a> {
    client: &'a Client,
    entry: &'a Entry,
    chunk_size: u64,
    size: u64,
    segments: Vec<Piece>,
}

/// One object.
struct Piece {
    key: String,
    size: u64,
    /// The index of its first chunk.
    first: u64,
    /// One for each chunk; none for the Python tool's.
    sums: Option<Vec<Sha256>>,
}

/// A chunk's place.
struct Range<'a> {
    piece: &'a Piece,
    segment: usize,
    start: u64,
    length: usize,
    sum: Option<Sha256>,
}

impl<'a> Stored<'a> {
    /// Reads the manifest, and makes sure that the data can be read now. All that is wrong is named.
    pub fn open(client: &'a Client, prefix: &str, entry: &'a Entry) -> std::result::Result<Self, Vec<Error>> {
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
            stored.segments.iter().filter_map(|piece| stored.check(piece).err()).collect();
        if errors.is_empty() { Ok(stored) } else { Err(errors) }
    }

    /// Can this object be read now?
    fn check(&self, piece: &Piece) -> Result<()> {
        let head = self.client.head(&piece.key)?.ok_or_else(|| missing(&piece.key))?;
        if self.client.is_archived(&piece.key, &head)? {
            let class = head.storage_class.as_deref().unwrap_or("an archive tier");
            return Err(if head.is_being_restored() {
                Error::failed(format!(
                    "the object '{}' is in the storage class {class}, and is being restored: it cannot be read yet",
                    piece.key
                ))
                .hint("run this again when that is done, in hours")
            } else {
                Error::failed(format!(
                    "the object '{}' is in the storage class {class}, and must be restored before it can be read",
                    piece.key
                ))
                .hint("'aws s3api restore-object' makes a copy to read, in hours")
            });
        }
        if head.size != piece.size {
            return Err(Error::failed(format!(
                "the object '{}' has {} bytes, not {}",
                piece.key, head.size, piece.size
            )));
        }
        Ok(())
    }

    fn by_manifest(client: &'a Client, prefix: &str, entry: &'a Entry, known: &Stream) -> Result<Self> {
        let key = keys::manifest(prefix, &entry.copy());
        let wrong = |why: &str| Error::failed(format!("the manifest '{key}' cannot be used: {why}"));
        let read =
            client.get_manifest(&key, known.size, true).map_err(|failure| match failure.is_missing() {
                true => missing(&key),
                false => failure.into(),
            })?;
        let Checked { manifest, chunks } = read.map_err(|why| wrong(&why))?;
        let same = manifest.snapshot.guid == entry.snapshot.guid
            && manifest.base.as_ref().map(|base| base.guid) == entry.base.as_ref().map(|base| base.guid);
        let stream = manifest.stream;
        if !same || stream != *known {
            return Err(wrong("it is not of the backup that the store knows"));
        }
        let mut segments = Vec::new();
        let mut first = 0;
        for (segment, sums) in stream.segments.into_iter().zip(chunks) {
            let count = sums.len() as u64;
            segments.push(Piece { key: segment.key, size: segment.size, first, sums: Some(sums) });
            first += count;
        }
        Ok(Stored { client, entry, chunk_size: stream.chunk_size, size: stream.size, segments })
    }

    fn of_python(client: &'a Client, entry: &'a Entry) -> Result<Self> {
        let key = keys::python(&entry.backup());
        let size = client.head(&key)?.ok_or_else(|| missing(&key))?.size;
        let segments = vec![Piece { key, size, first: 0, sums: None }];
        Ok(Stored { client, entry, chunk_size: PYTHON_CHUNK, size, segments })
    }

    /// The error that this is not the stream that it should be.
    pub fn wrong(&self, e: StreamError) -> Error {
        Error::failed(format!("what is stored of '{}': {e}", self.entry.backup()))
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where the stream goes on that was interrupted. At most jobs + 1 chunks are in memory.
    pub fn start(&self, partial: &Partial, jobs: usize) -> Result<Start> {
        if self.segments.iter().any(|piece| piece.sums.is_none()) {
            return Err(Error::refused(format!(
                "cannot go on with the part of {}: the Python tool stored it, without checksums to check a part by",
                partial.name
            )));
        }
        let chunk = |index| {
            let range = self.range(index);
            let mut chunk = vec![0; range.length];
            self.fetch(&range, &mut chunk, &AtomicBool::new(false)).map(|()| chunk)
        };
        locate::start(&mut Chunks::new(chunk, self.chunk_size, self.size, jobs + 1), partial)
    }

    /// Hands the stream on from the position `from`, where a record begins, in order, as far as it is right. The first chunk that stays wrong ends it.
    pub fn read(
        &self,
        from: u64,
        jobs: usize,
        ui: &Ui,
        mut hand_on: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        // that it fits was checked by `open`
        let chunk_size = self.chunk_size as usize;
        let first = from / self.chunk_size;
        let mut skip = (from % self.chunk_size) as usize;
        let count: u64 = self.segments.iter().map(|piece| piece.size.div_ceil(self.chunk_size)).sum();
        let link = self.entry.link();
        let mut tail = Tail::new();
        // one that goes on begins at a record
        let mut watch = if from == 0 { Watch::default() } else { Watch::between_records() };
        let fetch_one = |index, buffer: &mut [u8], stop: &AtomicBool| {
            let range = self.range(first + index);
            self.fetch(&range, &mut buffer[..range.length], stop)?;
            Ok(range.length)
        };
        ui.advance(from, false);
        fetch::run(count.saturating_sub(first), chunk_size, jobs, &fetch_one, |index, chunk| {
            if first + index == 0 {
                check_begin(chunk, link).map_err(|e| self.wrong(e))?;
            }
            tail.push(chunk);
            let chunk = &chunk[std::mem::take(&mut skip)..];
            watch.push(chunk);
            hand_on(chunk)?;
            ui.advance(chunk.len() as u64, true);
            Ok(())
        })?;
        // stored as it was sent: it is too late to refuse it
        if let Some(object) = watch.lost() {
            ui.warning(&self.wrong(StreamError::Loses(object)).message);
        }
        tail.check_end(link).map_err(|e| self.wrong(e))
    }

    fn range(&self, index: u64) -> Range<'_> {
        let segment = self.segments.partition_point(|piece| piece.first <= index).saturating_sub(1);
        let piece = &self.segments[segment];
        let start = (index - piece.first) * self.chunk_size;
        // that a chunk fits was checked by `open`
        let length = (piece.size - start).min(self.chunk_size) as usize;
        let sum = piece.sums.as_ref().map(|sums| sums[(index - piece.first) as usize]);
        Range { piece, segment: segment + 1, start, length, sum }
    }

    fn fetch(&self, range: &Range, buffer: &mut [u8], stop: &AtomicBool) -> Result<()> {
        let Range { piece, segment, start, .. } = range;
        let mut found = None;
        for _ in 0..TRIES {
            self.client.get_range(&piece.key, *start, buffer, stop)?;
            let sum = Sha256::of(buffer);
            if range.sum.is_none_or(|expected| expected == sum) {
                return Ok(());
            }
            found = Some(sum);
        }
        let (last, sum) =
            (start + buffer.len() as u64 - 1, found.map(|sum| sum.to_string()).unwrap_or_default());
        Err(Error::failed(format!(
            "the object '{}' (segment {segment}) is damaged in bytes {start} to {last}: their SHA-256 is {sum}",
            piece.key
        ))
        .hint("nothing of that chunk, or after it, was handed on"))
    }
}

/// All that keeps a restore from beginning, as one error.
pub fn all_of(mut errors: Vec<Error>) -> Error {
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
