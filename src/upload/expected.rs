//! The object of a segment, as the recorded parts make it. Pure.

use std::collections::BTreeMap;

use crate::model::digest::{Composite, Sha256};
use crate::s3::calls::Head;
use crate::state::journal::record::{Begun, PartStored, SegmentState};

pub struct ExpectedObject {
    pub size: u64,
    sums: Sums,
}

enum Sums {
    Multipart { parts: usize, composite: Sha256 },
    Single(Sha256),
}

impl ExpectedObject {
    /// None: no part is recorded.
    pub fn of(state: &SegmentState, parts: &BTreeMap<u16, PartStored>) -> Option<Self> {
        let first = parts.values().next()?;
        Some(match state.begun {
            Begun::Single => Self::single(first.size, first.sha256),
            Begun::Multipart { .. } => ExpectedObject {
                size: parts.values().map(|part| part.size).sum(),
                sums: Sums::Multipart {
                    parts: parts.len(),
                    composite: parts.values().map(|part| &part.sha256).collect::<Composite>().sha256(),
                },
            },
        })
    }

    pub fn single(size: u64, sha256: Sha256) -> Self {
        ExpectedObject { size, sums: Sums::Single(sha256) }
    }

    pub fn matches(&self, head: &Head) -> bool {
        head.size == self.size && self.agrees(&head.etag, head.checksum.as_deref())
    }

    /// Compares the SHA-256 or, if the server keeps none, the number of parts in the ETag.
    pub fn agrees(&self, etag: &str, checksum: Option<&str>) -> bool {
        match (&self.sums, checksum) {
            (Sums::Single(sha256), Some(sum)) => sum == sha256.base64(),
            (Sums::Single(_), None) => true,
            (Sums::Multipart { composite, .. }, Some(sum)) => {
                sum == self.checksum() || sum == composite.base64()
            }
            (Sums::Multipart { parts, .. }, None) => match etag.trim_matches('"').rsplit_once('-') {
                Some((_, number)) if number.bytes().all(|b| b.is_ascii_digit()) => {
                    number == parts.to_string()
                }
                _ => true,
            },
        }
    }

    /// As S3 writes it.
    pub fn checksum(&self) -> String {
        match &self.sums {
            Sums::Single(sha256) => sha256.base64(),
            Sums::Multipart { parts, composite } => composite.of_parts(*parts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::journal::record::SingleChunk;

    fn parts(chunks: &[&[u8]]) -> BTreeMap<u16, PartStored> {
        let part = |(number, chunk): (u16, &&[u8])| {
            let (size, sha256) = (chunk.len() as u64, Sha256::of(chunk));
            (number, PartStored { part: number, ..PartStored::single(SingleChunk { size, sha256 }) })
        };
        (1..).zip(chunks).map(part).collect()
    }

    fn multipart() -> SegmentState {
        SegmentState::new(Begun::Multipart { upload_id: "u".to_string(), checksums: true })
    }

    #[test]
    fn the_sums_of_a_multipart_upload_and_of_a_single_chunk_differ() {
        let single = ExpectedObject::single(1, Sha256::of(b"a"));
        let of_one_part = ExpectedObject::of(&multipart(), &parts(&[b"a"])).unwrap();
        let (whole, composite) = (single.checksum(), of_one_part.checksum());
        assert_eq!((whole.contains('-'), composite.ends_with("-1")), (false, true));
        assert!(single.agrees("\"e\"", Some(&whole)) && !single.agrees("\"e\"", Some(&composite)));
        assert!(of_one_part.agrees("\"e\"", Some(&composite)) && !of_one_part.agrees("\"e\"", Some(&whole)));
    }

    #[test]
    fn without_a_sum_the_number_of_parts_in_the_etag_counts() {
        let two = ExpectedObject::of(&multipart(), &parts(&[b"a", b"b"])).unwrap();
        for (etag, agrees) in [("\"ab-2\"", true), ("\"ab-3\"", false), ("ab", true), ("a-x", true)] {
            assert_eq!(two.agrees(etag, None), agrees, "{etag}");
        }
        let single = ExpectedObject::single(1, Sha256::of(b"a"));
        assert!(single.agrees("\"ab-2\"", None));
        assert!(ExpectedObject::of(&multipart(), &parts(&[])).is_none());
    }
}
