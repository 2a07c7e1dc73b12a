//! Stores a stream that has only one chunk: by one PutObject instead of the three requests of a multipart
//! upload. The stream is complete by then, so its end is recorded together with the hash of the chunk.

use super::Upload;
use super::expected::ExpectedObject;
use crate::error::{Error, Result};
use crate::model::digest::Sha256;
use crate::model::keys;
use crate::os::clock;
use crate::state::journal::Journal;
use crate::state::journal::record::{Completed, End, Intent, Record, SingleChunk};

impl Upload {
    pub(super) fn store_single(
        &self,
        journal: &Journal,
        intent: &Intent,
        chunk: &[u8],
        sha256: Sha256,
    ) -> Result<End> {
        let size = chunk.len() as u64;
        let end = End { size, stored: clock::now() };
        // before it is sent: whatever S3 has then is named by the journal
        journal.add(&Record::Single(SingleChunk { size, sha256 }))?;
        journal.add(&Record::End(end.clone()))?;
        let completed = self.put_single(intent, chunk, sha256)?;
        journal.add(&Record::Completed(completed))?;
        self.ui.advance(size, true);
        Ok(end)
    }

    /// No other upload has this key. So after a lost reply, HEAD tells whether the chunk is stored.
    fn put_single(&self, intent: &Intent, chunk: &[u8], sha256: Sha256) -> Result<Completed> {
        let key = keys::segment(&intent.prefix, &intent.copy(), 1);
        let expected = ExpectedObject::single(chunk.len() as u64, sha256);
        let meter = |traffic| self.ui.traffic(traffic);
        let connection = self.ui.connection();
        let mut patience = self.client.patience();
        let mut is_repeated = false;
        let (mut etag, mut checksum) = loop {
            let lock = intent.lock_at(clock::now());
            match self.client.put_data_once(&key, chunk, sha256, &intent.storage_class, lock, &meter) {
                Ok(reply) => break reply,
                Err(failure) => patience.pause_after(failure).map_err(|failure| {
                    let error = Error::from(failure);
                    // S3 may still do what it has not answered: then the upload must stay pending
                    if is_repeated { error.for_now() } else { error }
                })?,
            }
            is_repeated = true;
            match self.client.head_if_allowed(&key).map_err(|failure| Error::from(failure).for_now())? {
                Some(head) if expected.matches(&head) => break (head.etag, head.checksum),
                _ => {}
            }
        };
        drop(connection);
        if etag.is_empty() {
            // as in `put_locked`
            (etag, checksum) = match self.client.head(&key) {
                Ok(Some(head)) if expected.matches(&head) => (head.etag, head.checksum),
                Err(failure) => return Err(Error::from(failure).for_now()),
                Ok(_) => {
                    let why = "the reply has no ETag, and the object is not what was sent";
                    return Err(Error::try_again(format!("PUT {key}: {why}")));
                }
            };
        }
        if !expected.agrees(&etag, checksum.as_deref()) {
            return Err(Error::try_again(format!(
                "the object '{key}' is not what was sent: its checksum is {}, not {}",
                checksum.as_deref().unwrap_or("unknown"),
                expected.checksum()
            )));
        }
        Ok(Completed { segment: 1, etag, checksum })
    }
}
