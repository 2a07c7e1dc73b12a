//! Splits a stream that arrives in slices of any size into records and payloads. Pure.

use serde::{Deserialize, Serialize};

use super::record::RECORD;

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordSplitter {
    /// A record that has not fully arrived.
    record: Vec<u8>,
    /// Bytes of the payload that are still to come.
    left: usize,
}

// it lives only briefly: a box for each record would cost more
#[allow(clippy::large_enum_variant)]
pub enum StreamSlice<'a> {
    /// The caller now passes the length of its payload to [`RecordSplitter::payload_follows`].
    Record([u8; RECORD]),
    /// Some of the payload.
    Payload(&'a [u8]),
}

impl RecordSplitter {
    /// Takes the next slice off the front of `bytes`. None: `bytes` is used up, perhaps by the beginning of a
    /// record.
    pub fn take<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<StreamSlice<'a>> {
        if bytes.is_empty() {
            return None;
        }
        if self.left > 0 {
            let (payload, rest) = bytes.split_at(bytes.len().min(self.left));
            self.left -= payload.len();
            *bytes = rest;
            return Some(StreamSlice::Payload(payload));
        }
        let (part, rest) = bytes.split_at(bytes.len().min(RECORD - self.record.len()));
        self.record.extend_from_slice(part);
        *bytes = rest;
        let record = self.record.first_chunk().copied()?;
        self.record.clear();
        Some(StreamSlice::Record(record))
    }

    /// The record that was taken last has a payload of this many bytes.
    pub fn payload_follows(&mut self, payload: usize) {
        self.left = payload;
    }

    /// Does a record come next?
    pub fn payload_is_over(&self) -> bool {
        self.left == 0
    }
}
