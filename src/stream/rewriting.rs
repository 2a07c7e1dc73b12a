//! Turns a stream into another one with the same data: one that resumes an interrupted receive, or one with
//! another name of the snapshot. Pure.
//!
//! The output of `zfs send -t` differs from the whole stream in its BEGIN record, which has the feature
//! RESUMING and an nvlist with `resume_object` and `resume_offset`; in the records that it skips; and so in
//! the checksums, each of which covers everything before it (OpenZFS module/zfs/dmu_send.c: dmu_send_impl,
//! dump_record). After a rename only the name in BEGIN and again all checksums differ. The checksums of the
//! input are verified, from the second record after each skip: they prove that the input was parsed
//! correctly. The caller is responsible for passing the right bytes.

use super::fletcher::{SUMS, Span, Sums};
use super::record::{CHECKSUM, MAX_BEGIN_PAYLOAD, RECORD, Record, RecordKind};
use super::split::{RecordSplitter, StreamSlice};
use super::{MAGIC, StreamError};

/// `drr_toname`: up to the end of the record, with a NUL.
const NAME: usize = 56;
/// `DMU_BACKUP_FEATURE_RESUMING` in `drr_versioninfo`, where features are shifted by 2 bits.
const RESUMING: u64 = 1 << 22;
/// The start of a packed nvlist (OpenZFS module/nvpair/nvpair.c): native encoding, little-endian, version 0,
/// unique names.
const NVLIST: [u8; 12] = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
const NVLIST_END: [u8; 4] = [0; 4];

/// The length of the payload of a BEGIN record.
pub fn begin_payload(begin: &[u8; RECORD]) -> Result<usize, StreamError> {
    let record = Record { bytes: begin, swapped: false };
    match record.u32(4) {
        _ if record.u64(8) != MAGIC => Err(StreamError::BigEndian),
        length @ 0..=MAX_BEGIN_PAYLOAD => Ok(length as usize),
        _ => Err(StreamError::NotAStream),
    }
}

/// Makes the other stream: first its BEGIN, then the bytes passed to [`Rewriting::push`].
pub struct Rewriting {
    toguid: u64,
    /// Over the output so far.
    given: Sums,
    /// Over the input so far; unknown after a skip, until the next record.
    taken: Option<Sums>,
    split: RecordSplitter,
    payload: Span,
    ended: bool,
}

impl Rewriting {
    /// The stream with this BEGIN record and payload, but with another name of the snapshot. Also returns its
    /// BEGIN record and payload.
    pub fn with_name(
        begin: &[u8; RECORD],
        payload: &[u8],
        name: &str,
    ) -> Result<(Self, Vec<u8>), StreamError> {
        if name.len() >= RECORD - NAME {
            return Err(StreamError::UnknownRecord);
        }
        let mut bytes = begin.to_vec();
        bytes[NAME..].fill(0);
        bytes[NAME..NAME + name.len()].copy_from_slice(name.as_bytes());
        bytes.extend_from_slice(payload);
        Ok((Self::of(begin, payload, &bytes), bytes))
    }

    /// The stream that resumes the one with this BEGIN record and payload at the object and offset of a
    /// token. Also returns its BEGIN record and payload.
    pub fn resumed_at(
        begin: &[u8; RECORD],
        payload: &[u8],
        object: u64,
        offset: u64,
    ) -> Result<(Self, Vec<u8>), StreamError> {
        let whole = Record { bytes: begin, swapped: false };
        let mut nvlist = NVLIST.to_vec();
        nvlist.extend(nvpair("resume_object", object));
        nvlist.extend(nvpair("resume_offset", offset));
        match payload.strip_prefix(&NVLIST) {
            Some(pairs) => nvlist.extend_from_slice(pairs),
            None if payload.is_empty() => nvlist.extend(NVLIST_END),
            None => return Err(StreamError::UnknownRecord),
        }
        let mut bytes = begin.to_vec();
        bytes[4..8].copy_from_slice(&(nvlist.len() as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&(whole.u64(16) | RESUMING).to_le_bytes());
        bytes.extend(nvlist);
        Ok((Self::of(begin, payload, &bytes), bytes))
    }

    /// `given`: BEGIN and payload of the new stream.
    fn of(begin: &[u8; RECORD], payload: &[u8], given: &[u8]) -> Self {
        Rewriting {
            toguid: Record { bytes: begin, swapped: false }.u64(40),
            given: Sums::default().then(&Span::of(given)),
            taken: Some(Sums::default().then(&Span::of(begin)).then(&Span::of(payload))),
            split: RecordSplitter::default(),
            payload: Span::default(),
            ended: false,
        }
    }

    /// Bytes are skipped between the last and the next push. Both end and begin at a record.
    pub fn skip(&mut self) {
        self.taken = None;
    }

    /// Takes more bytes of the whole stream, and passes on the rewritten ones.
    pub fn push<E: From<StreamError>>(
        &mut self,
        mut bytes: &[u8],
        mut hand_on: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(piece) = self.split.take(&mut bytes) {
            match piece {
                StreamSlice::Record(record) => hand_on(&self.with_new_sums(record)?)?,
                StreamSlice::Payload(payload) => {
                    self.payload.push(payload);
                    hand_on(payload)?;
                    if self.split.payload_is_over() {
                        let payload = std::mem::take(&mut self.payload);
                        self.given = self.given.then(&payload);
                        self.taken = self.taken.map(|sums| sums.then(&payload));
                    }
                }
            }
        }
        Ok(())
    }

    /// Was the last record END?
    pub fn check_ended(&self) -> Result<(), StreamError> {
        if self.ended { Ok(()) } else { Err(StreamError::NoEnd) }
    }

    fn with_new_sums(&mut self, mut bytes: [u8; RECORD]) -> Result<[u8; RECORD], StreamError> {
        let record = Record { bytes: &bytes, swapped: false };
        let facts = record.facts().filter(|facts| facts.toguid == self.toguid && !self.ended);
        let facts = facts.ok_or(StreamError::UnknownRecord)?;
        self.ended = facts.kind == RecordKind::End;
        self.split.payload_follows(facts.payload);
        let as_it_was = record.sums(CHECKSUM);
        let until_sums = Span::of(&bytes[..CHECKSUM]);
        let right = match self.taken {
            Some(before) => {
                before.then(&until_sums) == as_it_was && (!self.ended || record.sums(8) == before)
            }
            None => true,
        };
        if !right {
            return Err(StreamError::Checksum);
        }
        self.taken = Some(as_it_was.then(&Span::of(&as_it_was.bytes())));
        if self.ended {
            bytes[8..8 + SUMS].copy_from_slice(&self.given.bytes());
        }
        let sums = self.given.then(&Span::of(&bytes[..CHECKSUM]));
        bytes[CHECKSUM..].copy_from_slice(&sums.bytes());
        self.given = sums.then(&Span::of(&sums.bytes()));
        Ok(bytes)
    }
}

/// A packed pair of the type uint64: its size, the length of its name, one value, the type; name and value,
/// each padded to 8 bytes.
fn nvpair(name: &str, value: u64) -> Vec<u8> {
    const UINT64: u32 = 8;
    let name_length = name.len() + 1;
    let size = 16 + (16 + name_length).next_multiple_of(8) - 16 + 8;
    let mut pair = Vec::with_capacity(size);
    pair.extend((size as u32).to_le_bytes());
    pair.extend((name_length as u16).to_le_bytes());
    pair.extend([0; 2]);
    pair.extend(1u32.to_le_bytes());
    pair.extend(UINT64.to_le_bytes());
    pair.extend(name.as_bytes());
    pair.resize(size - 8, 0);
    pair.extend(value.to_le_bytes());
    pair
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::digest::Sha256;

    const FULL: &[u8] = include_bytes!("../../tests/streams/full.zfs");
    /// Object 22 and its FREE; the WRITE record of its offset 0x20000.
    const OBJECT: std::ops::Range<usize> = 34552..35352;
    const WRITE: usize = 166_736;

    fn resumed(whole: &[u8], pieces: usize) -> Result<Vec<u8>, StreamError> {
        let begin = whole.first_chunk().unwrap();
        let (mut rewriting, mut stream) = Rewriting::resumed_at(begin, &[], 22, 0x20000)?;
        let mut hand_on = |bytes: &[u8]| {
            stream.extend_from_slice(bytes);
            Ok(())
        };
        rewriting.skip();
        rewriting.push(&whole[OBJECT], &mut hand_on)?;
        rewriting.skip();
        for piece in whole[WRITE..].chunks(pieces) {
            rewriting.push(piece, &mut hand_on)?;
        }
        rewriting.check_ended()?;
        Ok(stream)
    }

    #[test]
    fn the_result_is_the_output_of_zfs_send_t() {
        // tests/streams/README.md describes how that stream was made; it has 966,224 bytes
        let expected = "04af56124b14dc23ad886bc7cb66820f2bf102636467bfaea4e90b23feebc22f";
        for pieces in [1, 313, 65536, FULL.len()] {
            let stream = resumed(FULL, pieces).unwrap();
            assert_eq!((stream.len(), Sha256::of(&stream).to_string()), (966_224, expected.to_string()));
        }
    }

    #[test]
    fn a_damaged_incomplete_or_foreign_stream_is_an_error() {
        for at in [WRITE + 400, FULL.len() - 1000, FULL.len() - 312 + 8, FULL.len() - 1] {
            let mut bad = FULL.to_vec();
            bad[at] ^= 1;
            assert_eq!(resumed(&bad, 4096), Err(StreamError::Checksum), "{at}");
        }
        assert_eq!(resumed(&FULL[..FULL.len() - 312], 4096), Err(StreamError::NoEnd));
        let twice = [FULL, &FULL[FULL.len() - 312..]].concat();
        assert_eq!(resumed(&twice, 4096), Err(StreamError::UnknownRecord));
        let mut foreign = FULL.to_vec();
        foreign[WRITE + 40] ^= 1;
        assert_eq!(resumed(&foreign, 4096), Err(StreamError::UnknownRecord), "another toguid");
        let mut big_endian = FULL[..RECORD].to_vec();
        big_endian[..16].reverse();
        assert_eq!(begin_payload(big_endian.first_chunk().unwrap()), Err(StreamError::BigEndian));
    }

    #[test]
    fn with_its_old_name_it_is_the_same_stream() {
        let raw = include_bytes!("../../tests/streams/raw-encrypted-full.zfs");
        for stream in [FULL, &raw[..]] {
            let renamed = |stream: &[u8], name: &str| {
                let begin = stream.first_chunk().unwrap();
                let length = begin_payload(begin).unwrap();
                let payload = &stream[RECORD..RECORD + length];
                let (mut rewriting, mut made) = Rewriting::with_name(begin, payload, name).unwrap();
                for piece in stream[RECORD + length..].chunks(1000) {
                    let mut keep = |bytes: &[u8]| {
                        made.extend_from_slice(bytes);
                        Ok::<(), StreamError>(())
                    };
                    rewriting.push(piece, &mut keep).unwrap();
                }
                rewriting.check_ended().unwrap();
                made
            };
            let end = stream[NAME..].iter().position(|byte| *byte == 0).unwrap();
            let name = std::str::from_utf8(&stream[NAME..NAME + end]).unwrap();
            let other = renamed(stream, "pool/longer/than/before@x");
            assert!(other[..RECORD] != stream[..RECORD] && other[1000..] != stream[1000..]);
            assert!(renamed(&other, name) == stream);
        }
        assert!(Rewriting::with_name(FULL.first_chunk().unwrap(), b"", &"n".repeat(256)).is_err());
    }

    #[test]
    fn an_existing_nvlist_gets_the_two_pairs() {
        let raw = include_bytes!("../../tests/streams/raw-encrypted-full.zfs");
        let begin = raw.first_chunk().unwrap();
        let length = begin_payload(begin).unwrap();
        assert_eq!(length, 1028);
        let payload = &raw[RECORD..RECORD + length];
        let (_, bytes) = Rewriting::resumed_at(begin, payload, 3, 512).unwrap();
        assert_eq!(begin_payload(bytes.first_chunk().unwrap()), Ok(1028 + 80));
        assert_eq!(bytes[RECORD + 12 + 80..], payload[12..], "the encryption parameters");
    }
}
