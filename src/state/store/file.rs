//! stored_snapshots.yml in the form in which it is written: one line a backup, so that neither reading nor
//! writing needs all of the text in memory.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

use super::format::{Contents, Entry, Unchecked};
use crate::model::manifest::{DESCRIBED, Stream, VERSION};
use crate::model::yaml;

/// The file's first lines.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u32,
    endpoint: String,
    bucket: String,
    prefix: String,
}

const LIST: &str = "backups:\n";
const NO_BACKUPS: &str = "backups: []\n";
const ITEM: &str = "- ";
const COUNT: &str = "count: ";

/// One line a backup, in the flow style of YAML, which is JSON: for grep, and fast to read.
pub fn write(contents: &Contents, mut file: impl Write) -> io::Result<()> {
    // nothing is written that could not be read again
    contents.check().map_err(io::Error::other)?;
    let least = |entry: &Entry| {
        let of_stream = entry.stream.as_ref().map_or(VERSION, Stream::version);
        if entry.kept { of_stream.max(DESCRIBED) } else { of_stream }
    };
    let header = Header {
        // what an older program can read, it shall
        version: contents.entries.iter().map(least).max().unwrap_or(VERSION),
        endpoint: contents.endpoint.clone(),
        bucket: contents.bucket.clone(),
        prefix: contents.prefix.clone(),
    };
    file.write_all(yaml::to_string(&header).map_err(io::Error::other)?.as_bytes())?;
    file.write_all(if contents.entries.is_empty() { NO_BACKUPS } else { LIST }.as_bytes())?;
    for entry in &contents.entries {
        file.write_all(ITEM.as_bytes())?;
        serde_json::to_writer(&mut file, entry)?;
        file.write_all(b"\n")?;
    }
    writeln!(file, "{COUNT}{}", contents.entries.len())
}

/// Ten times as fast as a YAML parser, and without all of the text in memory. None: it was edited, or is
/// damaged.
pub fn read(mut file: impl BufRead) -> io::Result<Option<Result<Contents, String>>> {
    let mut line = String::new();
    let mut next = |line: &mut String| -> io::Result<bool> {
        line.clear();
        match file.read_line(line) {
            Err(e) if e.kind() == io::ErrorKind::InvalidData => line.push_str("not text"),
            read => {
                read?;
            }
        }
        Ok(line.ends_with('\n'))
    };
    let mut header = String::new();
    while next(&mut line)? && line != LIST {
        header.push_str(&line);
    }
    if line != LIST {
        return Ok(None);
    }
    let Ok(Header { version, endpoint, bucket, prefix }) = yaml::from_str(&header) else { return Ok(None) };
    let mut backups: Vec<Entry> = Vec::new();
    while next(&mut line)? {
        if let Some(item) = line.strip_prefix(ITEM) {
            let Ok(mut entry) = serde_json::from_str::<Entry>(item.trim_end_matches('\n')) else {
                return Ok(None);
            };
            // serde reserves space for four of each
            if let Some(stream) = &mut entry.stream {
                stream.segments.shrink_to_fit();
                stream.send_args.shrink_to_fit();
            }
            backups.push(entry);
            continue;
        }
        let count = line.strip_prefix(COUNT).and_then(|count| count.trim_end_matches('\n').parse().ok());
        let is_end = !next(&mut line)? && line.is_empty();
        let read = count.filter(|_| is_end).map(|count| Unchecked {
            version,
            endpoint,
            bucket,
            prefix,
            backups,
            count,
        });
        return Ok(read.map(Contents::checked));
    }
    Ok(None)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::state::store::history::store;

    #[test]
    fn what_is_not_as_it_is_written_is_not_read() {
        let text = written(&store("A, B<A"));
        assert!(matches!(read(text.as_bytes()), Ok(Some(Ok(_)))));
        for (n, byte) in text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n') {
            let mut cut = text.clone().into_bytes();
            cut.truncate(n);
            assert!(matches!(read(&cut[..]), Ok(None)), "cut at byte {n}");
            cut.extend([byte, 0xff]);
            cut.extend(&text.as_bytes()[n + 1..]);
            assert!(!matches!(read(&cut[..]), Ok(Some(Ok(_)))), "a byte that is not text at {n}");
        }
        for added in ["\n", "- {}\n", "count: 2\n", "x"] {
            assert!(matches!(read((text.clone() + added).as_bytes()), Ok(None)), "{added:?} at the end");
        }
    }

    /// As a host does: first in the form in which it is written.
    pub fn parse(text: &str) -> Result<Contents, String> {
        read(text.as_bytes()).unwrap().unwrap_or_else(|| Contents::parse(text))
    }

    pub fn written(contents: &Contents) -> String {
        let mut bytes = Vec::new();
        write(contents, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }
}
