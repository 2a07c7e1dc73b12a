//! The stream of one backup from `zfs send`, checked as it is read: it begins with the BEGIN record of that
//! backup, every record passes its check, and it ends only if it is complete. An interrupted stream reads as
//! an error, never as an end, so a chunk that is short for this reason is never mistaken for the last one.

use std::io::{self, Read};
use std::sync::Arc;

use crate::chunk_io::send::fill;
use crate::error::{Error, Result};
use crate::model::backup::{Backup, Link};
use crate::stream::check::StreamCheck;
use crate::stream::record::RECORD;
use crate::stream::rewriting::{Rewriting, begin_payload};
use crate::stream::{StreamError, begins_clone, check_begin};
use crate::ui::Ui;
use crate::zfs::{Send, Zfs};

pub struct Source {
    name: String,
    link: Link,
    /// Bytes that were read, but not yet passed on.
    ready: Vec<u8>,
    /// None: it has exited successfully.
    send: Option<Send>,
    /// Turns it into the stream of the old name, if the snapshot was renamed.
    renamed: Option<Rewriting>,
    check: StreamCheck,
    ui: Arc<Ui>,
}

const CHANGED: &str = "memory, a pipe, or a program in ZFS2S3_ZFS (such as ssh) may be at fault; 'zfs2s3 resume_upload' reads the \
                       stream again, and if that differs from what was sent already, 'zfs2s3 abort_upload' ends the upload";

/// How many bytes are rewritten at once.
const PIECE: usize = 256 << 10;

impl Source {
    /// `stored_as`: with the names that it had when the upload began. The stream contains the name, and
    /// whether it creates a clone, which ZFS judges by the names.
    pub fn open(
        zfs: &Zfs,
        backup: &Backup,
        flags: &[String],
        stored_as: &Backup,
        ui: &Arc<Ui>,
    ) -> Result<Self> {
        let name = stored_as.snapshot.name.as_str();
        let mut source = Source {
            name: backup.snapshot.name.clone(),
            link: backup.link(),
            ready: vec![0; RECORD],
            send: None,
            renamed: None,
            check: StreamCheck::new(),
            ui: Arc::clone(ui),
        };
        let mut send = zfs.send(backup, flags)?;
        let cannot_read = |e: io::Error| {
            Error::try_again(format!("cannot read the stream of {}: {e}", backup.snapshot.name))
        };
        let length = fill(&mut send, &mut source.ready).map_err(cannot_read)?;
        if length < RECORD {
            // the message of zfs is more useful
            send.finish().map_err(Error::for_now)?;
            return Err(Error::failed(source.wrong(&StreamError::TooShort(length))));
        }
        check_begin(&source.ready, source.link).map_err(|e| Error::failed(source.wrong(&e)))?;
        if begins_clone(&source.ready) != stored_as.is_clone() {
            return Err(Error::refused(format!(
                "the dataset of the base has changed since the upload began: {} is sent as {} now",
                source.name,
                if stored_as.is_clone() { "no clone" } else { "a clone" }
            ))
            .hint("'zfs promote' may be the reason; run 'zfs2s3 abort_upload', and upload it again"));
        }
        if source.name != name {
            let wrong = |e: StreamError| {
                Error::refused(source.wrong(&e)).hint(format!("rename it back to {name}, then resume"))
            };
            let begin = source.ready.first_chunk().ok_or_else(|| wrong(StreamError::NotAStream))?;
            let mut payload = vec![0; begin_payload(begin).map_err(wrong)?];
            let length = fill(&mut send, &mut payload).map_err(cannot_read)?;
            let (rewriting, bytes) = Rewriting::with_name(begin, &payload[..length], name).map_err(wrong)?;
            (source.renamed, source.ready) = (Some(rewriting), bytes);
        }
        source.send = Some(send);
        Ok(source)
    }

    fn wrong(&self, error: &StreamError) -> String {
        format!("the stream of {}: {error}", self.name)
    }

    fn next(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.ready.is_empty() {
            let count = self.ready.len().min(buffer.len());
            buffer[..count].copy_from_slice(&self.ready[..count]);
            self.ready.drain(..count);
            return Ok(count);
        }
        let Some(send) = &mut self.send else { return Ok(0) };
        let Some(rewriting) = &mut self.renamed else { return send.read(buffer) };
        let mut piece = vec![0; PIECE];
        while self.ready.is_empty() {
            let count = send.read(&mut piece)?;
            if count == 0 {
                return Ok(0);
            }
            let ready = &mut self.ready;
            let rewritten = rewriting.push(&piece[..count], |bytes| {
                ready.extend_from_slice(bytes);
                Ok(())
            });
            if let Err(e) = rewritten {
                let e: StreamError = e;
                return Err(io::Error::other(Error::failed(self.wrong(&e))));
            }
        }
        self.next(buffer)
    }

    fn check(&mut self, bytes: &[u8]) -> Result<()> {
        self.check.push(bytes).map_err(|e| Error::failed(self.wrong(&e)).hint(CHANGED))?;
        match self.check.lost_object() {
            None => Ok(()),
            Some(object) => Err(Error::failed(self.wrong(&StreamError::Loses(object))).hint(
                "this is a bug in the OpenZFS of this host: see https://github.com/openzfs/zfs/issues/18239",
            )),
        }
    }

    /// `zfs send` must have exited successfully, and its last record must be END.
    fn check_end(&mut self) -> Result<()> {
        if let Some(send) = self.send.take() {
            send.finish().map_err(Error::for_now)?;
            self.check.check_end(self.link).map_err(|e| Error::try_again(self.wrong(&e)))?;
            if let Some(unchecked) = self.check.unchecked() {
                self.ui.warning(&format!("the stream of {} {unchecked}", self.name));
            }
        }
        Ok(())
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.next(buffer)?;
        match count {
            0 if !buffer.is_empty() => self.check_end().map_err(io::Error::other)?,
            _ => self.check(&buffer[..count]).map_err(io::Error::other)?,
        }
        Ok(count)
    }
}
