//! The manifest as text: YAML, written and read without ever holding more than one form of it. Pure.
//!
//! The list of chunks is most of it (71 bytes a chunk: 28 MB for 6 TiB), so it is read line by line as it
//! arrives, and each SHA-256 is handled at once. The rest, a few lines a segment, is parsed as YAML, but only
//! if it has no more structure than a manifest needs: nobody who can write to the bucket may make a reader
//! spend minutes or gigabytes.

use serde::Deserialize;

use super::{Manifest, ManifestError, Segment, check_version};
use crate::model::chunks::{MAX_CHUNK, max_filtered};
use crate::model::digest::{Composite, Sha256};
use crate::model::{properties, yaml};

/// The first line of the list of chunks: a YAML literal.
const CHUNKS: &str = "chunks: |";
/// Bytes. An object key has at most 1,024.
const MAX_LINE: usize = 16 << 10;
/// Without the chunks. A segment has five lines, and at least 25 GiB of data.
const MAX_LINES: usize = 20_000;
const MAX_TEXT: usize = 4 << 20;
/// Of `[`, `{` and `,`. A YAML parser needs time proportional to the square of the nesting, and memory for
/// each item.
const MAX_BRACKETS: usize = 10_000;

const TOO_MUCH: &str = "it has more structure than a manifest needs";

/// The approximate length of a manifest, in bytes.
pub fn estimated_len(chunks: u64, segments: u64, is_filtered: bool) -> usize {
    let line = if is_filtered { 80 } else { 71 };
    (4096 + line * chunks + 4096 * segments) as usize
}

/// Appends one segment with its chunks: the SHA-256 of each as it is stored, and if it is filtered, its size.
/// [`insert_head`] adds what precedes the first one.
pub fn push_segment(
    text: &mut String,
    segment: &Segment,
    chunks: impl Iterator<Item = (Sha256, Option<u64>)>,
) -> Result<(), String> {
    use std::fmt::Write;
    for line in yaml::to_string(&[segment])?.lines() {
        let _ = writeln!(text, "  {line}");
    }
    let _ = writeln!(text, "    {CHUNKS}");
    for (sum, size) in chunks {
        let _ = match size {
            None => writeln!(text, "      {sum}"),
            Some(size) => writeln!(text, "      {sum} {size}"),
        };
    }
    Ok(())
}

/// Puts the head before the text of all segments. `manifest` has no segments.
pub fn insert_head(text: &mut String, manifest: &Manifest) -> Result<(), String> {
    let head = yaml::to_string(manifest)?;
    let head = head.strip_suffix(" []\n").ok_or("its segments are in it already")?;
    text.insert_str(0, &format!("{head}\n"));
    Ok(())
}

/// A consistent manifest: this version can read the stream, each segment has the right number of chunks, and
/// their SHA-256s make up the composite one.
#[derive(Debug, PartialEq)]
pub struct CheckedManifest {
    pub manifest: Manifest,
    /// Of each segment, if they are kept.
    pub chunks: Vec<SegmentChunks>,
}

/// The chunks of a segment.
#[derive(Debug, Default, PartialEq)]
pub struct SegmentChunks {
    /// The SHA-256 of each, as it is stored.
    pub sums: Vec<Sha256>,
    /// Where each ends in the object, if they are filtered.
    pub ends: Vec<u64>,
}

/// What is counted of the chunks of a segment.
struct Counts {
    chunks: u64,
    /// Those that have a size; and the bytes of all of them.
    sized: u64,
    bytes: u64,
    smallest: u64,
    largest: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Counts { chunks: 0, sized: 0, bytes: 0, smallest: u64::MAX, largest: 0 }
    }
}

/// Reads a manifest as it arrives.
#[derive(Default)]
pub struct ManifestReader {
    keep_chunks: bool,
    /// Everything except the chunks.
    text: String,
    lines: usize,
    brackets: usize,
    /// The current line, as far as it has arrived.
    line: Vec<u8>,
    /// The indentation of `chunks:` while its lines are being read.
    in_chunks: Option<usize>,
    composite: Composite,
    counts: Vec<Counts>,
    chunks: Vec<SegmentChunks>,
}

impl ManifestReader {
    pub fn new(keep_chunks: bool) -> Self {
        ManifestReader { keep_chunks, ..ManifestReader::default() }
    }

    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            self.append(&bytes[..end])?;
            self.end_line()?;
            bytes = &bytes[end + 1..];
        }
        self.append(bytes)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.line.len() + bytes.len() > MAX_LINE {
            return Err(format!("a line of it has more than {MAX_LINE} bytes"));
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), String> {
        let line = std::mem::take(&mut self.line);
        let text = std::str::from_utf8(&line).map_err(|_| "it is not UTF-8")?;
        let rest = text.trim_start_matches(' ');
        let indentation = text.len() - rest.len();
        match self.in_chunks {
            Some(above) if indentation > above => self.add_chunk(rest)?,
            _ if rest == CHUNKS => {
                self.in_chunks = Some(indentation);
                self.lines += 1;
                if self.lines > MAX_LINES {
                    return Err(TOO_MUCH.to_string());
                }
                self.counts.push(Counts::default());
                self.chunks.push(SegmentChunks::default());
            }
            _ => {
                self.in_chunks = None;
                self.add_line(text, rest)?;
            }
        }
        self.line = line;
        self.line.clear();
        Ok(())
    }

    fn add_chunk(&mut self, line: &str) -> Result<(), String> {
        let (sum, size) = match line.split_once(' ') {
            None => (line.parse()?, None),
            Some((sum, size)) => {
                let size: u64 = size.parse().map_err(|_| format!("'{size}' is not the size of a chunk"))?;
                (sum.parse()?, Some(size))
            }
        };
        self.composite.push(&sum);
        if let (Some(counts), Some(chunks)) = (self.counts.last_mut(), self.chunks.last_mut()) {
            counts.chunks += 1;
            if let Some(size) = size {
                counts.sized += 1;
                counts.smallest = counts.smallest.min(size);
                counts.bytes = counts.bytes.checked_add(size).ok_or("its sizes are too large")?;
                counts.largest = counts.largest.max(size);
            }
            if self.keep_chunks {
                chunks.sums.push(sum);
                chunks.ends.extend(size.map(|_| counts.bytes));
            }
        }
        Ok(())
    }

    fn add_line(&mut self, line: &str, rest: &str) -> Result<(), String> {
        self.lines += 1;
        self.brackets += line.bytes().filter(|b| matches!(b, b'[' | b'{' | b',')).count();
        if self.lines > MAX_LINES || self.text.len() + line.len() > MAX_TEXT || self.brackets > MAX_BRACKETS {
            return Err(TOO_MUCH.to_string());
        }
        check_line(rest)?;
        self.text.push_str(line);
        self.text.push('\n');
        Ok(())
    }

    /// To be called at the end.
    pub fn finish(mut self) -> Result<CheckedManifest, ManifestError> {
        if !self.line.is_empty() {
            self.end_line()?;
        }
        let mut manifest: Manifest =
            yaml::from_str(&self.text).map_err(|why| match newer_version(&self.text) {
                Some(newer) => ManifestError::Newer(newer),
                None => ManifestError::Invalid(why),
            })?;
        check_version(manifest.version).map_err(ManifestError::Newer)?;
        properties::sanitize(&mut manifest.properties);
        self.check(&manifest)?;
        Ok(CheckedManifest { manifest, chunks: self.chunks })
    }

    /// Does the manifest agree with its own chunks?
    fn check(&self, manifest: &Manifest) -> Result<(), String> {
        let stream = &manifest.stream;
        stream.check_stages()?;
        if stream.is_filtered() && manifest.version < stream.version() {
            return Err(format!("it has version {}, but is filtered", manifest.version));
        }
        if !(1..=MAX_CHUNK).contains(&stream.chunk_size) {
            return Err(format!("its chunks have {} bytes", stream.chunk_size));
        }
        let mut size: u64 = 0;
        let mut chunks: u64 = 0;
        for (n, segment) in stream.segments.iter().enumerate() {
            let none = Counts::default();
            let counts = self.counts.get(n).unwrap_or(&none);
            let is_right = if stream.is_filtered() {
                counts.sized == counts.chunks && counts.bytes == segment.size
            } else {
                counts.sized == 0 && counts.chunks == segment.size.div_ceil(stream.chunk_size)
            };
            if !is_right {
                return Err(format!("it has the wrong number of chunks for {}", segment.key));
            }
            let odd = [counts.smallest, counts.largest];
            let is_odd = |size: &u64| *size == 0 || *size > max_filtered(stream.chunk_size);
            if let Some(size) = odd.iter().take(counts.sized as usize).find(|size| is_odd(size)) {
                return Err(format!("it has a chunk of {size} bytes"));
            }
            size = size.checked_add(segment.size).ok_or("its sizes are too large")?;
            chunks = chunks.saturating_add(counts.chunks);
        }
        let adds_up = if stream.is_filtered() {
            chunks == stream.size.div_ceil(stream.chunk_size)
        } else {
            size == stream.size
        };
        if stream.segments.is_empty() || !adds_up || self.counts.len() != stream.segments.len() {
            return Err("its segments do not add up to the stream".to_string());
        }
        if self.composite.sha256() != stream.composite_sha256 {
            return Err("its list of chunks does not match its composite SHA-256".to_string());
        }
        Ok(())
    }
}

/// Allows only `key: value`, `key:`, and either of them in a list. No flow collections except a list on one
/// line, no anchors, aliases, tags or block scalars, and no nested list on one line: each of them makes a
/// short text expensive to parse.
fn check_line(rest: &str) -> Result<(), String> {
    let item = rest.strip_prefix("- ").unwrap_or(rest);
    let value = item.split_once(": ").map_or(item, |(_, value)| value);
    let is_plain_list = |text: &str| {
        let items = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        items.is_some_and(|items| !items.contains(['[', ']', '{', '}', '&', '*']))
    };
    let is_odd = |text: &str| {
        text.starts_with(['[', '{', '&', '*', '!', '|', '>', '%', '@', '`', '\t']) && !is_plain_list(text)
    };
    let is_nested = matches!(item, "-" | "?")
        || value == "?"
        || item.starts_with("? ")
        || value.starts_with("? ")
        || item.starts_with("- ")
        || (item.is_empty() && !rest.is_empty());
    if is_nested || is_odd(item) || is_odd(value) {
        return Err("it has a structure that no manifest has".to_string());
    }
    Ok(())
}

/// A newer version has other fields, so if the text does not parse, its version decides the message.
pub fn newer_version(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct JustVersion {
        version: u32,
    }
    check_version(yaml::from_str::<JustVersion>(text).ok()?.version).err()
}

#[cfg(test)]
mod tests {
    use super::super::Stream;
    use super::*;
    use crate::model::backup::{Backup, Point};
    use crate::model::names::Guid;
    use crate::model::properties::Which;
    use crate::model::storage_class::StorageClass;

    fn sums() -> [Sha256; 3] {
        [Sha256::of(b"one"), Sha256::of(b"two"), Sha256::of(b"three")]
    }

    fn example() -> Manifest {
        let point = |name: &str, guid| Point { name: name.to_string(), guid: Guid::new(guid).unwrap() };
        let backup = Backup {
            snapshot: point("tank/home@jan-02", u64::MAX),
            base: Some(point("tank/home#jan-01", 10)),
        };
        let segment = |key: &str, size| Segment {
            key: key.to_string(),
            size,
            etag: "\"abc-2\"".to_string(),
            checksum: None,
        };
        let stream = Stream {
            size: 11,
            composite_sha256: sums().iter().collect::<Composite>().sha256(),
            send_args: vec!["--raw".to_string()],
            stages: vec![],
            filter: None,
            chunk_size: 4,
            storage_class: StorageClass::standard(),
            stored: "2026-01-02T03:04:05Z".to_string().try_into().unwrap(),
            segments: vec![segment("k", 8), segment("k.2", 3)],
        };
        Manifest::new("zfs2s3 0.1.0", Some("nas1"), &backup, stream)
    }

    fn written(manifest: &Manifest) -> String {
        let mut text = String::new();
        let [first, second, third] = sums();
        let sized = |sum, size| (sum, manifest.stream.is_filtered().then_some(size));
        let [one, other] = [&manifest.stream.segments[0], &manifest.stream.segments[1]];
        push_segment(&mut text, one, [sized(first, 3), sized(second, 5)].into_iter()).unwrap();
        push_segment(&mut text, other, [sized(third, 3)].into_iter()).unwrap();
        let mut bare = manifest.clone();
        bare.stream.segments.clear();
        insert_head(&mut text, &bare).unwrap();
        text
    }

    fn read(text: &str) -> Result<CheckedManifest, ManifestError> {
        // as it may arrive
        let mut reader = ManifestReader::new(true);
        text.as_bytes().chunks(7).try_for_each(|bytes| reader.push(bytes))?;
        reader.finish()
    }

    #[test]
    fn a_manifest_can_be_read_by_people_and_later_versions() {
        let expected = "\
version: 2
tool: zfs2s3 0.1.0
host: nas1
snapshot:
  name: tank/home@jan-02
  guid: '18446744073709551615'
base:
  name: tank/home#jan-01
  guid: '10'
stream:
  size: 11
  composite_sha256: 9c2fcdf14cb29b8c8a4c3c3b0d0fd0b6a9d9bff6a6b0ea2bb7ed10a9bb0c5a0f
  send_args:
  - --raw
  stages: []
  chunk_size: 4
  storage_class: STANDARD
  stored: 2026-01-02T03:04:05Z
  segments:
  - key: k
    size: 8
    etag: '\"abc-2\"'
    chunks: |
      7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed
      3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3
  - key: k.2
    size: 3
    etag: '\"abc-2\"'
    chunks: |
      8b5b9db0c13db24256c829aa364aa90c6d2eba318b9232a4ab9313b954d3555f
";
        let composite = example().stream.composite_sha256.to_string();
        let expected =
            expected.replace("9c2fcdf14cb29b8c8a4c3c3b0d0fd0b6a9d9bff6a6b0ea2bb7ed10a9bb0c5a0f", &composite);
        let text = written(&example());
        assert_eq!(text, expected);
        let [first, second, third] = sums();
        let plain = |sums| SegmentChunks { sums, ends: vec![] };
        let chunks = vec![plain(vec![first, second]), plain(vec![third])];
        let checked = CheckedManifest { manifest: example(), chunks };
        assert_eq!(read(&text), Ok(checked));
        let parsed: serde_json::Value = yaml::from_str(&text).unwrap();
        assert_eq!(parsed["stream"]["segments"][1]["chunks"], format!("{third}\n"), "it is YAML");
    }

    #[test]
    fn a_manifest_of_version_1_is_read() {
        let older = written(&example()).replace("version: 2", "version: 1").replace("host: nas1\n", "");
        assert_eq!(read(&older).unwrap().manifest.host, None);
    }

    fn filtered() -> Manifest {
        let mut manifest = example();
        manifest.stream.stages = super::super::stages(Some("zstd"));
        manifest.stream.filter = Some("zstd -3 | age -R '/etc/x: y'".to_string());
        manifest.version = 4;
        manifest
    }

    #[test]
    fn a_filtered_manifest_has_the_size_of_each_chunk() {
        let text = written(&filtered());
        let [first, second, third] = sums();
        assert!(text.contains(&format!("    chunks: |\n      {first} 3\n      {second} 5\n")), "{text}");
        let read = read(&text).unwrap();
        assert_eq!(read.manifest, filtered());
        let chunks = |sums, ends: &[u64]| SegmentChunks { sums, ends: ends.to_vec() };
        assert_eq!(read.chunks, [chunks(vec![first, second], &[3, 8]), chunks(vec![third], &[3])]);
    }

    #[test]
    fn the_first_filtered_manifest_is_read() {
        let text = include_str!("../../../tests/legacy/filtered/s1.yml");
        let read = read(text).unwrap();
        assert_eq!(read.manifest.stream.filter.as_deref(), Some("gzip -1"));
        assert_eq!(read.chunks[0].ends.last(), Some(&read.manifest.stream.stored_size()));
    }

    #[test]
    fn an_inconsistent_filtered_manifest_is_refused() {
        let good = written(&filtered());
        let [first, second, _] = sums();
        let large = u64::MAX.to_string();
        for (from, to, why) in [
            (format!("{first} 3"), format!("{first} 4"), "wrong number"),
            (format!("{first} 3"), first.to_string(), "wrong number"),
            (format!("{second} 5"), format!("{second} {large}"), "too large"),
            (format!("{second} 5"), format!("{second} x"), "not the size"),
            (format!("{second} 5"), format!("{second} 5 5"), "not the size"),
            (format!("      {second} 5\n"), String::new(), "wrong number"),
            ("size: 11".to_string(), "size: 13".to_string(), "do not add up"),
            ("size: 8".to_string(), "size: 7".to_string(), "wrong number"),
            ("  - filter\n".to_string(), "  - filter\n  - filter\n".to_string(), "stage 'filter'"),
            ("  - filter\n".to_string(), "  - later\n".to_string(), "stage 'later'"),
        ] {
            assert!(good.contains(&from), "{from}");
            let said = read(&good.replacen(&from, &to, 1)).unwrap_err().to_string();
            assert!(said.contains(why), "{why}: {said}");
        }
        let huge = good.replace(" 5\n", " 70000\n").replace("size: 8", "size: 70003");
        assert!(read(&huge).unwrap_err().to_string().contains("a chunk of 70000 bytes"));
        let plain = good.replace("stages:\n  - filter\n", "stages: []\n");
        assert!(read(&plain).unwrap_err().to_string().contains("a filter, but no such stage"));
        let has_no_filter = |line: &&str| !line.starts_with("  filter: ");
        let plain: String = plain.split_inclusive('\n').filter(has_no_filter).collect();
        assert!(read(&plain).unwrap_err().to_string().contains("wrong number"));
        assert!(read(&good.replace("version: 4", "version: 3")).is_err());
    }

    #[test]
    fn an_inconsistent_manifest_is_refused() {
        let good = written(&example());
        for (from, to, why) in [
            ("version: 2", "version: 5", "version 5"),
            ("version: 2", "version: 5\nlater: 1", "version 5"),
            ("tool:", "later: 1\ntool:", "later"),
            ("stages: []", "stages:\n  - zstd", "stage 'zstd'"),
            ("size: 8", "size: 9", "wrong number"),
            ("size: 3", "size: 2", "do not add up"),
            ("7692c3", "7692c4", "composite"),
            ("7692c3", "7692C3", "not a SHA-256"),
            ("chunk_size: 4", "chunk_size: 0", "have 0 bytes"),
            ("    chunks: |\n", "", ""),
        ] {
            assert!(good.contains(from), "{from}");
            let said = read(&good.replacen(from, to, 1)).unwrap_err();
            assert_eq!(matches!(said, ManifestError::Newer(_)), why == "version 5", "{said}");
            let said = said.to_string();
            assert!(said.contains(why), "{why}: {said}");
        }
        for end in 0..good.len() - 1 {
            assert!(read(&good[..end]).is_err(), "cut at byte {end}");
        }
    }

    #[test]
    fn keys_and_names_with_any_prefix() {
        for prefix in [
            "?x/", "-x/", "a: b/", "[x]/", "&x/", "*x/", "!x/", "%x/", "@x/", "#x/", "'x\"/", "ä ö/",
            "x,y{z}/",
        ] {
            let mut manifest = example();
            manifest.host = Some(prefix.to_string());
            for segment in &mut manifest.stream.segments {
                segment.key = format!("{prefix}{}", segment.key);
                segment.etag = prefix.to_string();
            }
            let read = read(&written(&manifest));
            assert_eq!(read.map(|checked| checked.manifest), Ok(manifest), "{prefix}");
        }
    }

    #[test]
    fn properties_with_any_value() {
        let mut manifest = example();
        let values = [
            "",
            "on",
            "1",
            "null",
            "~",
            "- a",
            "? a",
            "a: b",
            "a: [b",
            "[a",
            "{a",
            "&a",
            "*a",
            "!a",
            "|",
            ">",
            "%a",
            "@a",
            "`a",
            "#a",
            "a #b",
            "'a",
            "\"a",
            "a\\",
            " a ",
            "rw=@10.0.0.0/8,ro=*",
            "ä ö",
            "---",
            "...",
            "a:",
        ];
        let named = values.iter().enumerate().map(|(n, value)| (format!("it:{n}"), value.to_string()));
        let created = "2026-01-01T00:00:00Z".to_string().try_into().ok();
        manifest.describe_snapshot(created, named.chain([("quota".to_string(), "1".to_string())]).collect());
        assert_eq!(read(&written(&manifest)).map(|checked| checked.manifest), Ok(manifest.clone()));
        let lines: String = (0..100).map(|n| format!("it:{n}\t{}\n", ",".repeat(1000))).collect();
        manifest.properties = properties::kept(&lines, Which::All).0;
        assert!(read(&written(&manifest)).is_ok(), "the most that is kept");
        for length in [100, 117, 118, 200] {
            let (kept, too_long) = properties::kept(&format!("it:{}\t1\n", "x".repeat(length)), Which::All);
            assert_eq!(kept.len() + too_long.len(), 1);
            manifest.properties = kept.clone();
            assert_eq!(
                read(&written(&manifest)).map(|checked| checked.manifest.properties),
                Ok(kept),
                "{length}"
            );
        }
        manifest.properties = [("-o".to_string(), "x".to_string())].into();
        let read = read(&written(&manifest)).map(|checked| checked.manifest.properties.len());
        assert_eq!(read, Ok(0), "a backup is of use without them");
    }

    #[test]
    fn endless_lists_of_chunks_are_refused() {
        let mut reader = ManifestReader::new(false);
        let refused = (0..30_000).any(|_| reader.push(b"chunks: |\n").is_err());
        assert!(refused && reader.counts.len() <= MAX_LINES);
    }

    /// A mebibyte of each, as an attacker with access to the bucket could store it.
    #[test]
    fn hostile_yaml_is_refused_at_little_cost() {
        let repeat = |start: &str, unit: &str| start.to_string() + &unit.repeat((1 << 20) / unit.len());
        for hostile in [
            repeat("", "["),
            repeat("version: ", "["),
            repeat("version: [", "[],"),
            repeat("version: [", "[],\n"),
            repeat("\"x: y\": ", "["),
            repeat("", "\"x: y\": [[[[[[[[\n"),
            repeat("", "- "),
            repeat("", "- \n"),
            repeat("", "-\n"),
            repeat("", "? "),
            repeat("", "? \n"),
            repeat("", "a:\n"),
            repeat("", "a: {a: \n"),
            repeat("tool: &a x\nversion: [", "*a,"),
            repeat("tool: &a x\n", "b: *a\n"),
            repeat("a: &a [x,x]\n", "b: &b [*a,*a]\n"),
            repeat("tool: \"", "x"),
            repeat("tool: |\n", " x\n"),
            repeat("chunks: |\n", " x\n"),
            repeat("", "chunks: |\n"),
            repeat("", "\0"),
            repeat("", "#\n"),
            repeat("", "\n"),
        ] {
            let begun = std::time::Instant::now();
            assert!(read(&hostile).is_err());
            let took = begun.elapsed();
            assert!(took.as_millis() < 1000, "{took:?} for {}", &hostile[..30]);
        }
    }
}
