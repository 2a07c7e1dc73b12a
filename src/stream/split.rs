//! Cuts a stream that passes by in pieces of any size into its records and their payloads. Pure.

use super::record::RECORD;

#[derive(Default)]
pub struct RecordSplitter {
    /// A record of which not all bytes have come.
    record: Vec<u8>,
    /// Bytes of the payload that are still to come.
    left: usize,
}

// it is looked at and gone: a box for each record would cost more
#[allow(clippy::large_enum_variant)]
pub enum StreamSlice<'a> {
    /// Behind it comes as much payload as [`RecordSplitter::payload_follows`] is told now.
    Record([u8; RECORD]),
    /// Some of the payload.
    Payload(&'a [u8]),
}

impl RecordSplitter {
    /// Takes the next piece off the front of `bytes`. None: nothing is left of them, but perhaps the beginning of a record.
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

    /// So many bytes of payload follow on the record that was taken last.
    pub fn payload_follows(&mut self, payload: usize) {
        self.left = payload;
    }

    /// Does a record come next?
    pub fn payload_is_over(&self) -> bool {
        self.left == 0
    }
}
