//! Undoes the filter of a backup while that is read, and says what it means if a chunk cannot be undone: what
//! the unfilter is given was compared with the manifest before, so first of all its command or key is wrong.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result, Status, one_line};
use crate::filter::{Filter, UNFILTER};
use crate::os::mutex::lock;
use crate::state::store::format::Entry;
use crate::stream::StreamError;

pub struct Unfiltering<'a> {
    entry: &'a Entry,
    unfilter: &'a Filter,
    /// Some of it was undone: what cannot be undone then is not due to the key.
    has_undone: AtomicBool,
    /// The chunks that could not be.
    not_undone: Mutex<BTreeSet<u64>>,
}

impl<'a> Unfiltering<'a> {
    /// None: the backup was not filtered.
    pub fn of(entry: &'a Entry, unfilter: Option<&'a Filter>) -> Result<Option<Self>> {
        if !entry.is_filtered() {
            return Ok(None);
        }
        let unfilter = unfilter.ok_or_else(|| {
            let filter = entry.filter().map_or(String::new(), |filter| format!(" by '{}'", one_line(filter)));
            Error::usage(format!("'{}' was filtered{filter}, and {UNFILTER} is not set", entry.backup()))
                .hint(format!(
                    "set {UNFILTER} to the command that undoes it, such as 'age -d -i key | zstd -d'"
                ))
        })?;
        let (has_undone, not_undone) = (AtomicBool::new(false), Mutex::default());
        Ok(Some(Unfiltering { entry, unfilter, has_undone, not_undone }))
    }

    /// Undoes the filter of this chunk, the first `filtered` bytes of the buffer, which become `length` bytes.
    pub fn undo(&self, index: u64, buffer: &mut [u8], filtered: usize, length: usize) -> Result<()> {
        let undo = || self.unfilter.unfilter(&buffer[..filtered], length);
        let chunk = match undo() {
            // before it is called damage, or the key is called wrong
            Err(error) if error.status != Status::TryAgain => undo().map_err(|error| {
                lock(&self.not_undone).insert(index);
                let message = format!("chunk {index} of '{}': {error}", self.entry.backup());
                Error { message, ..error }
            }),
            undone => undone,
        }?;
        buffer[..length].copy_from_slice(&chunk);
        self.unfilter.give(chunk);
        Ok(())
    }

    /// What was undone is the stream, as far as it was read.
    pub fn is_right(&self) {
        self.has_undone.store(true, Ordering::SeqCst);
    }

    /// The error that what was undone is no stream. None: it was one, so what is stored is damaged.
    pub fn no_stream(&self, e: &StreamError) -> Option<Error> {
        let why = || format!("{UNFILTER} does not give the stream of '{}': {e}", self.entry.backup());
        (!self.has_undone.load(Ordering::SeqCst)).then(|| self.wrong(Error::failed(why())))
    }

    /// What the error means if it is that this chunk, after those that were delivered, could not be undone.
    /// `can_undo`: can that one, now?
    pub fn explained(&self, index: u64, error: Error, can_undo: impl FnOnce(u64) -> bool) -> Error {
        if error.status == Status::TryAgain || !lock(&self.not_undone).contains(&index) {
            return error;
        }
        // is the key still there?
        if self.has_undone.load(Ordering::SeqCst) && index.checked_sub(1).is_some_and(can_undo) {
            return Error { status: Status::Damaged, ..error }.hint(
                "the filter has not given what could be undone, or its key was changed during the upload",
            );
        }
        self.wrong(error)
    }

    fn wrong(&self, error: Error) -> Error {
        let error = error.hint(format!(
            "what was read is what was stored, so the command of {UNFILTER}, or its key, is the wrong one"
        ));
        match self.entry.filter() {
            Some(filter) => error.hint(format!("it was filtered by '{}'", one_line(filter))),
            None => error,
        }
    }
}
