//! The stream of one backup, as `zfs send` gives it, read only as far as it is right: it begins with the BEGIN record of that
//! backup, and it ends only if it is whole. A stream that breaks off reads as an error, never as an end, so a chunk that
//! is short because of that is never taken for the last one.

use std::io::{self, Read};

use crate::backup::{Backup, Link};
use crate::error::{Error, Result};
use crate::pipeline::fill;
use crate::stream::record::RECORD;
use crate::stream::watch::Watch;
use crate::stream::{StreamError, Tail, check_begin};
use crate::zfs::{Send, Zfs};

pub struct Source {
    name: String,
    link: Link,
    /// What was read to look at the BEGIN record, and not yet handed on.
    begin: Vec<u8>,
    /// None: it came to its end, and that was a good one.
    send: Option<Send>,
    tail: Tail,
    watch: Watch,
}

impl Source {
    pub fn open(zfs: &Zfs, backup: &Backup, flags: &[String]) -> Result<Self> {
        let mut source = Source {
            name: backup.snapshot.name.clone(),
            link: backup.link(),
            begin: vec![0; RECORD],
            send: None,
            tail: Tail::new(),
            watch: Watch::default(),
        };
        let mut send = zfs.send(backup, flags)?;
        let length = fill(&mut send, &mut source.begin)
            .map_err(|e| Error::try_again(format!("cannot read the stream of {}: {e}", source.name)))?;
        if length < RECORD {
            // zfs's own words tell more
            send.finish().map_err(Error::for_now)?;
            return Err(Error::failed(source.wrong(&StreamError::TooShort(length))));
        }
        check_begin(&source.begin, source.link).map_err(|e| Error::failed(source.wrong(&e)))?;
        source.send = Some(send);
        Ok(source)
    }

    fn wrong(&self, error: &StreamError) -> String {
        format!("the stream of {}: {error}", self.name)
    }

    fn next(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.begin.is_empty() {
            let count = self.begin.len().min(buffer.len());
            buffer[..count].copy_from_slice(&self.begin[..count]);
            self.begin.drain(..count);
            return Ok(count);
        }
        match &mut self.send {
            Some(send) => send.read(buffer),
            None => Ok(0),
        }
    }

    fn watch_over(&mut self, bytes: &[u8]) -> Result<()> {
        self.tail.push(bytes);
        self.watch.push(bytes);
        match self.watch.lost() {
            None => Ok(()),
            Some(object) => Err(Error::failed(self.wrong(&StreamError::Loses(object))).hint(
                "this is a bug of this host's OpenZFS: see https://github.com/openzfs/zfs/issues/18239",
            )),
        }
    }

    /// `zfs send` must have ended well, and its last record been END.
    fn check_end(&mut self) -> Result<()> {
        if let Some(send) = self.send.take() {
            send.finish().map_err(Error::for_now)?;
            self.tail.check_end(self.link).map_err(|e| Error::try_again(self.wrong(&e)))?;
        }
        Ok(())
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.next(buffer)?;
        match count {
            0 if !buffer.is_empty() => self.check_end().map_err(io::Error::other)?,
            _ => self.watch_over(&buffer[..count]).map_err(io::Error::other)?,
        }
        Ok(count)
    }
}
