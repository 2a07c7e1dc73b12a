//! For tests: stores written as one-line histories. Pure.

use super::format::{Contents, Entry, State};
use crate::model::backup::Point;
use crate::model::copy::Id;
use crate::model::digest::Sha256;
use crate::model::keys;
use crate::model::manifest::{Segment, Stream};
use crate::model::names::Guid;
use crate::model::storage_class::StorageClass;

/// `"A, B<A, C<B"`: a full backup of tank/a@A, incremental ones of @B and @C. After a backup `:7` is its size
/// (else 10 bytes), `'` makes it another, later copy, `!` marks it as being removed. `x/B` is tank/x@B.
pub fn store(history: &str) -> Contents {
    let texts = history.split(',').map(str::trim).filter(|text| !text.is_empty());
    let entries = texts.map(entry).collect();
    Contents { entries, ..Contents::empty("https://s3.example.org", "bucket", "") }
}

fn entry(text: &str) -> Entry {
    let (text, state) = text.strip_suffix('!').map_or((text, State::Stored), |text| (text, State::Removing));
    let (text, copy) = text.strip_suffix('\'').map_or((text, 1), |text| (text, 2));
    let (names, size) = text.split_once(':').unwrap_or((text, "10"));
    let (snapshot, base) = match names.split_once('<') {
        Some((snapshot, base)) => (point(snapshot), Some(point(base))),
        None => (point(names), None),
    };
    let size = size.parse().expect("a size");
    let stream = Stream {
        size,
        composite_sha256: Sha256::of(b""),
        send_args: vec![],
        stages: vec![],
        filter: None,
        chunk_size: 16,
        storage_class: StorageClass::standard(),
        stored: format!("2026-01-01T00:{:02}:0{copy}Z", snapshot.guid.number() % 60)
            .try_into()
            .expect("a time"),
        segments: vec![],
    };
    let removal = (state == State::Removing).then_some(Id(9));
    let mut entry = Entry { snapshot, base, id: Some(Id(copy)), state, removal, kept: false, stream: None };
    let key = keys::segment("", &entry.copy(), 1);
    let segments = vec![Segment { key, size, etag: String::new(), checksum: None }];
    entry.stream = Some(Stream { segments, ..stream });
    entry
}

/// `A` is tank/a@A, with the guid 65.
pub fn point(text: &str) -> Point {
    let (dataset, letter) = text.rsplit_once('/').unwrap_or(("a", text));
    Point { name: format!("tank/{dataset}@{letter}"), guid: guid(letter) }
}

pub fn guid(letter: &str) -> Guid {
    Guid::new(u64::from(letter.as_bytes()[0])).expect("not zero")
}

/// The reverse of [`store`], for comparisons.
pub fn written<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> String {
    let letter = |point: &Point| point.name.replace("tank/a@", "").replace("tank/", "").replace('@', "/");
    let text = |entry: &Entry| {
        let base = entry.base.as_ref().map(|base| format!("<{}", letter(base))).unwrap_or_default();
        let copy = if entry.id == Some(Id(2)) { "'" } else { "" };
        let state = if entry.state == State::Removing { "!" } else { "" };
        format!("{}{base}{copy}{state}", letter(&entry.snapshot))
    };
    entries.into_iter().map(text).collect::<Vec<_>>().join(", ")
}
