//! The journal file: the one pending upload, on disk. It is append-only, and each record is fsynced before
//! the caller continues.
//!
//! A last record that a crash truncated is dropped when the file is opened; damage anywhere else is an error.
//! An upload is pending if and only if the file exists.

mod parts;
pub mod record;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Mutex;

use crate::error::{Error, Result};
use crate::model::shell::{abort_multipart_upload, quoted};
use crate::os::mutex::lock;
use crate::os::step::{self, Change};
use crate::state::durable;
use crate::state::store::{Folder, io_error, read_text};
use parts::SegmentParts;
use record::{FILTERED, Intent, Overview, PartStored, Record};

const PYTHON_TAG: &[u8] = b"!S3UploadProgressDto";
/// Longer than any record: a part has at most as many chunks as a segment, 10,000.
const LINE_LIMIT: u64 = 4 << 20;

/// Open for adding records; used by all upload threads.
pub struct Journal {
    folder: Folder,
    /// None after a failed write: whatever follows a truncated record could never be read again.
    file: Mutex<Option<File>>,
}

impl Journal {
    /// Begins a pending upload. When this returns, the intent is on disk.
    pub fn create(folder: &Folder, intent: &Intent) -> Result<Journal> {
        let path = folder.journal();
        let line = Record::Intent(Box::new(intent.clone())).to_line().map_err(Error::failed)?;
        durable::replace(&path, line.as_bytes()).map_err(|e| io_error("cannot write", &path, &e))?;
        Journal::append_to(folder)
    }

    /// Opens the journal of the pending upload, and drops a truncated last record. Who wrote the others may
    /// have been killed before they were on disk: when this returns, they are.
    pub fn open(folder: &Folder) -> Result<Journal> {
        let path = folder.journal();
        let whole = scan(folder, WHOLE, |_, _| Ok(()))?;
        let truncated = durable::private().write(true).open(&path).and_then(|file| {
            step::of_file(&Change::Truncate(&path, whole))?;
            file.set_len(whole)?;
            step::of_file(&Change::Sync(&path))?;
            file.sync_all()
        });
        truncated.map_err(|e| io_error("cannot write", &path, &e))?;
        Journal::append_to(folder)
    }

    fn append_to(folder: &Folder) -> Result<Journal> {
        let path = folder.journal();
        let file =
            durable::private().append(true).open(&path).map_err(|e| io_error("cannot write", &path, &e))?;
        Ok(Journal { folder: folder.clone(), file: Mutex::new(Some(file)) })
    }

    /// When this returns, the record is on disk. So a crash can tear only the last one.
    pub fn add(&self, record: &Record) -> Result<()> {
        let path = self.folder.journal();
        let line = record.to_line().map_err(Error::failed)?;
        let mut slot = lock(&self.file);
        let Some(file) = slot.as_mut() else {
            return Err(Error::try_again(format!("an earlier write to {} failed", path.display())));
        };
        let mut write = || {
            step::write(file, &path, line.as_bytes())?;
            step::of_file(&Change::Sync(&path))?;
            file.sync_data()
        };
        let written = write();
        written.map_err(|e| {
            *slot = None;
            io_error("cannot write", &path, &e).for_now()
        })
    }

    /// The upload is no longer pending.
    pub fn remove(self) -> Result<()> {
        let path = self.folder.journal();
        durable::remove(&path).map_err(|e| io_error("cannot remove", &path, &e))
    }
}

/// The pending upload, if there is one.
pub fn overview(folder: &Folder) -> Result<Option<Overview>> {
    if !folder.journal().exists() || python_progress(folder)? {
        return Ok(None);
    }
    let mut overview = None;
    scan(folder, WHOLE, |record, _| match (&mut overview, record) {
        (None, Record::Intent(intent)) if (1..=FILTERED).contains(&intent.version) => {
            intent.chunking.check()?;
            overview = Some(Overview::new(*intent));
            Ok(())
        }
        (None, Record::Intent(intent)) => {
            Err(format!("it has version {}, and this program knows versions 1 to {FILTERED}", intent.version))
        }
        (None, _) => Err("it does not begin with an intent".to_string()),
        (Some(overview), record) => overview.add(record),
    })?;
    overview.map(Some).ok_or_else(|| damaged(folder, "it has no complete record"))
}

/// Where the journal has the parts of each segment. There may be millions, so they are read a segment at a
/// time.
pub struct RecordedParts {
    folder: Folder,
    /// Of each segment, the bytes from its beginning to its last part.
    places: BTreeMap<u32, Range<u64>>,
}

impl RecordedParts {
    pub fn find(folder: &Folder) -> Result<Self> {
        let mut places: BTreeMap<u32, Range<u64>> = BTreeMap::new();
        scan(folder, WHOLE, |record, place| {
            match record {
                Record::Segment(begun) => {
                    places.insert(begun.segment, place);
                }
                Record::Single(_) => places = BTreeMap::from([(1, place)]),
                Record::Chunking(_) => {
                    places.retain(|segment, _| *segment == 1);
                    places.values_mut().for_each(|own| own.end = place.end);
                }
                Record::Part(part) => {
                    places.entry(part.segment).or_insert_with(|| place.clone()).end = place.end;
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(RecordedParts { folder: folder.clone(), places })
    }

    /// The parts of one segment, by number. A single chunk counts as one, without an ETag.
    pub fn of(&self, segment: u32) -> Result<BTreeMap<u16, PartStored>> {
        let Some(place) = self.places.get(&segment) else { return Ok(BTreeMap::new()) };
        let mut parts = SegmentParts::default();
        let end = scan(&self.folder, place.clone(), |record, _| {
            match record {
                Record::Single(single) => parts = SegmentParts::single(PartStored::single(single)),
                Record::Chunking(chunking) => parts.retain_within(&chunking),
                Record::Part(part) if part.segment == segment => parts.add(part),
                _ => {}
            }
            Ok(())
        })?;
        if end != place.end {
            return Err(damaged(&self.folder, &format!("the record at byte {end} has changed")));
        }
        Ok(parts.into_parts())
    }
}

const WHOLE: Range<u64> = 0..u64::MAX;

/// Calls `visit` with each record in these bytes of the file, and its place. Returns where the last complete
/// one ends.
fn scan(
    folder: &Folder,
    bytes: Range<u64>,
    mut visit: impl FnMut(Record, Range<u64>) -> Result<(), String>,
) -> Result<u64> {
    let path = folder.journal();
    let cannot = |e: std::io::Error| io_error("cannot read", &path, &e);
    let mut file = File::open(&path).map_err(cannot)?;
    file.seek(SeekFrom::Start(bytes.start)).map_err(cannot)?;
    let mut reader = BufReader::new(file.take(bytes.end - bytes.start));
    let mut whole = bytes.start;
    let mut torn: Option<String> = None;
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = (&mut reader).take(LINE_LIMIT).read_until(b'\n', &mut line).map_err(cannot)?;
        if length == 0 {
            return Ok(whole);
        }
        if let Some(why) = torn {
            return Err(damaged(folder, &why));
        }
        let record = match line.strip_suffix(b"\n").map(std::str::from_utf8) {
            Some(Ok(text)) => Record::parse(text),
            _ => Err("a record is not a line of text".to_string()),
        };
        match record {
            Ok(record) => {
                let end = whole + length as u64;
                visit(record, whole..end).map_err(|why| damaged(folder, &why))?;
                whole = end;
            }
            // only the last one may be truncated
            Err(why) if whole > 0 => torn = Some(format!("the record at byte {whole}: {why}")),
            Err(why) => return Err(damaged(folder, &why)),
        }
    }
}

fn damaged(folder: &Folder, why: &str) -> Error {
    let path = folder.journal();
    Error::failed(format!("the pending upload {} cannot be used: {why}", path.display())).hint(
        "put back a good copy of it; if there is none, move it away, and abort the unfinished upload with \
         'aws s3api list-multipart-uploads' and 'abort-multipart-upload'",
    )
}

/// Does the file exist, and did the Python tool write it, which used the same name?
fn python_progress(folder: &Folder) -> Result<bool> {
    let path = folder.journal();
    let mut start = Vec::new();
    match File::open(&path).and_then(|file| file.take(PYTHON_TAG.len() as u64).read_to_end(&mut start)) {
        Ok(_) => Ok(start == PYTHON_TAG),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(io_error("cannot read", &path, &e)),
    }
}

/// An upload of the older Python tool cannot be resumed, but it must not be forgotten either.
pub fn refuse_python_upload(folder: &Folder, bucket: &str) -> Result<()> {
    let (schedule, journal) = (folder.python_schedule(), folder.journal());
    let python_progress = python_progress(folder)?;
    if !python_progress && !schedule.exists() {
        return Ok(());
    }
    let text = if python_progress { read_text(&journal)?.unwrap_or_default() } else { String::new() };
    let planned = read_text(&schedule)?.unwrap_or_default();
    let (key, upload_id) = python_upload(&planned, &text);
    let files = [(&schedule, schedule.exists()), (&journal, python_progress)];
    let files = files.iter().filter(|(_, there)| *there).map(|(path, _)| quoted(&path.display().to_string()));
    let mut error = Error::pending(format!("an upload of the older, Python zfs2s3 is pending: '{key}'"))
        .hint("finish or abort it with that program; or abort it by hand:");
    if let Some(id) = upload_id {
        error = error.hint(abort_multipart_upload(bucket, &key, &id));
    }
    Err(error.hint(format!("rm {}", files.collect::<Vec<_>>().join(" "))))
}

/// The key and upload ID in the two files of the Python tool, as far as they are readable.
fn python_upload(schedule: &str, journal: &str) -> (String, Option<String>) {
    #[derive(serde::Deserialize)]
    struct Schedule {
        backup: Planned,
    }
    #[derive(serde::Deserialize)]
    struct Planned {
        snapshot: crate::model::backup::Point,
        base: Option<crate::model::backup::Point>,
    }
    #[derive(serde::Deserialize)]
    struct Started {
        upload_id: Option<String>,
    }
    let key = crate::model::yaml::from_str::<Schedule>(schedule).map(|s| {
        crate::model::keys::python(&crate::model::backup::Backup {
            snapshot: s.backup.snapshot,
            base: s.backup.base,
        })
    });
    let id = crate::model::yaml::from_str::<Started>(journal).ok().and_then(|s| s.upload_id);
    (key.unwrap_or_else(|_| "unknown".to_string()), id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::chunks::Chunking;
    use crate::model::digest::Sha256;
    use crate::model::utc::Utc;
    use crate::os::random;
    use record::{FilteredChunk, FilteredChunks, SegmentBegun, SingleChunk};

    /// The parts of a segment, as the format says it: later records override earlier ones.
    fn parts_by_all_records(records: &[Record], segment: u32) -> BTreeMap<u16, PartStored> {
        let mut parts = BTreeMap::new();
        for record in records {
            match record {
                Record::Segment(begun) if begun.segment == segment => parts.clear(),
                Record::Single(single) => {
                    let part = PartStored::single(single.clone());
                    parts = (segment == 1).then_some((1, part)).into_iter().collect();
                }
                Record::Chunking(_) if segment > 1 => parts.clear(),
                Record::Chunking(chunking) => {
                    parts.retain(|number, _| *number <= chunking.parts_per_segment);
                }
                Record::Part(part) if part.segment == segment => {
                    parts.insert(part.part, part.clone());
                }
                _ => {}
            }
        }
        parts
    }

    #[test]
    fn of_parts_that_have_chunks_in_common_the_last_one_counts() {
        let path = std::env::temp_dir().join(format!("zfs2s3-filtered-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let folder = Folder::new(path.clone());
        let below = |count: u32| (random::fraction() * f64::from(count)) as u32;
        let mut made = 0;
        for _ in 0..300 {
            let upload_id = "u".to_string();
            let mut records = vec![Record::Segment(SegmentBegun { segment: 1, upload_id, checksums: true })];
            // of each chunk, the part that was recorded last
            let mut expected: BTreeMap<u64, (u16, FilteredChunk)> = BTreeMap::new();
            let mut number = || {
                made += 1;
                Sha256::of(&u64::to_le_bytes(made))
            };
            for _ in 0..below(12) {
                let first = u64::from(below(10));
                let chunks: Vec<FilteredChunk> = (0..1 + below(3))
                    .map(|_| FilteredChunk { size: 7, sha256: number(), plain_sha256: number() })
                    .collect();
                let end = first + chunks.len() as u64;
                let part = 1 + below(6) as u16;
                let filtered = Some(FilteredChunks { first, chunks: chunks.clone() });
                let single = PartStored::single(SingleChunk { size: 7, sha256: number() });
                records.push(Record::Part(PartStored { part, filtered, ..single }));
                let replaced = (first..end).filter_map(|n| expected.get(&n)).map(|(part, _)| *part);
                let gone: Vec<u16> = replaced.chain([part]).collect();
                expected.retain(|_, (part, _)| !gone.contains(part));
                expected.extend((first..end).zip(chunks.into_iter().map(|chunk| (part, chunk))));
            }
            let text: String = records.iter().map(|record| record.to_line().unwrap()).collect();
            std::fs::write(folder.journal(), text).unwrap();
            let found = RecordedParts::find(&folder).unwrap().of(1).unwrap();
            let any = Chunking { chunk_size: 10, parts_per_segment: 100 };
            let chunks = found.values().flat_map(|part| {
                let filtered = part.filtered.as_ref().unwrap().chunks.iter();
                part.chunks(&any).zip(filtered.map(|chunk| (part.part, *chunk)))
            });
            assert_eq!(chunks.collect::<BTreeMap<_, _>>(), expected, "{records:?}");
        }
        std::fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn the_parts_of_a_segment_are_found_wherever_they_are() {
        let path = std::env::temp_dir().join(format!("zfs2s3-journal-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let folder = Folder::new(path.clone());
        let below = |count: u32| (random::fraction() * f64::from(count)) as u32;
        for _ in 0..300 {
            let mut records = Vec::new();
            let mut begun = 0;
            for n in 0..below(40) {
                let record = match below(12) {
                    0 | 1 if begun < 4 => {
                        begun += 1;
                        let upload_id = n.to_string();
                        Record::Segment(SegmentBegun { segment: begun, upload_id, checksums: true })
                    }
                    2 if begun > 0 => Record::Segment(SegmentBegun {
                        segment: 1 + below(begun),
                        upload_id: n.to_string(),
                        checksums: true,
                    }),
                    3 if begun > 0 && below(4) == 0 => {
                        begun = 1;
                        Record::Chunking(Chunking { chunk_size: 10, parts_per_segment: 1 + below(5) as u16 })
                    }
                    4 if begun <= 1 => {
                        begun = 1;
                        Record::Single(SingleChunk { size: 5, sha256: Sha256::of(&[n as u8]) })
                    }
                    5 => Record::End(record::End { size: 5, stored: Utc::from_unix_seconds(0).unwrap() }),
                    _ if begun > 0 => Record::Part(PartStored {
                        segment: 1 + below(begun),
                        part: 1 + below(8) as u16,
                        size: 10,
                        etag: n.to_string(),
                        sha256: Sha256::of(&[n as u8]),
                        filtered: None,
                    }),
                    _ => continue,
                };
                records.push(record);
            }
            let text: String = records.iter().map(|record| record.to_line().unwrap()).collect();
            std::fs::write(folder.journal(), text).unwrap();
            let recorded = RecordedParts::find(&folder).unwrap();
            for segment in 1..=5 {
                let expected = parts_by_all_records(&records, segment);
                assert_eq!(recorded.of(segment).unwrap(), expected, "{segment}: {records:?}");
            }
        }
        std::fs::remove_dir_all(&path).unwrap();
    }

    const FIRST_FILTERED: &str = include_str!("../../../tests/legacy/filtered/upload_progress.yml");

    #[test]
    fn numbers_that_no_upload_has_are_refused() {
        let path = std::env::temp_dir().join(format!("zfs2s3-numbers-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let folder = Folder::new(path.clone());
        let begins = "- {\"segment\":{\"segment\":1,";
        let cut = format!("- {{\"cut\":{{\"chunk_size\":1,\"parts_per_segment\":7}}}}\n{begins}");
        let part = FIRST_FILTERED.lines().find(|line| line.starts_with("- {\"part\"")).unwrap();
        let first_chunks = &part[part.find("\"chunks\"").unwrap()..=part.rfind(']').unwrap()];
        for (from, to, why) in [
            ("\"chunk_size\":65536", "\"chunk_size\":0", "cannot be divided"),
            ("\"chunk_size\":65536", "\"chunk_size\":99999999999999", "cannot be divided"),
            ("\"parts_per_segment\":1000", "\"parts_per_segment\":0", "cannot be divided"),
            ("\"parts_per_segment\":1000", "\"parts_per_segment\":65535", "cannot be divided"),
            (begins, cut.as_str(), "the size of its chunks changes"),
            (begins, "- {\"segment\":{\"segment\":0,", "segment 0 begins"),
            (begins, "- {\"segment\":{\"segment\":4000000000,", "segment 4000000000 begins"),
            ("\"part\":1,", "\"part\":0,", "an impossible part 0"),
            ("\"part\":1,", "\"part\":65535,", "an impossible part 65535"),
            (first_chunks, "\"chunks\":[]", "an impossible part 1"),
        ] {
            assert!(FIRST_FILTERED.contains(from), "{from}");
            std::fs::write(folder.journal(), FIRST_FILTERED.replacen(from, to, 1)).unwrap();
            let error = overview(&folder).unwrap_err();
            assert!(error.message.contains(why), "{to}: {error}");
        }
        std::fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn the_first_journal_with_a_filter_is_read() {
        let path = std::env::temp_dir().join(format!("zfs2s3-first-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let folder = Folder::new(path.clone());
        std::fs::write(folder.journal(), FIRST_FILTERED).unwrap();
        let intent = overview(&folder).unwrap().unwrap().intent;
        assert_eq!((intent.version, intent.filter.as_deref()), (FILTERED, Some("gzip -1")));
        let parts = RecordedParts::find(&folder).unwrap().of(1).unwrap();
        let ends: Vec<u64> = parts.values().map(|part| part.chunks(&intent.chunking).end).collect();
        assert!(ends.is_sorted() && ends.last() > Some(&9), "{ends:?}");
        let is_consistent = |part: &PartStored| part.is_consistent(&intent.chunking, u64::MAX);
        assert!(parts.values().all(is_consistent));
        std::fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn the_upload_of_the_python_tool_is_named() {
        let schedule = include_str!("../../../tests/legacy/upload_schedule.yml");
        let journal = include_str!("../../../tests/legacy/upload_progress.yml");
        assert_eq!(
            python_upload(schedule, journal),
            ("tank/src@s3 <- tank/src@s2".to_string(), Some("2~abcDEF".to_string()))
        );
    }
}
