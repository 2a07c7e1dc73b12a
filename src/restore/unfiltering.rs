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
    /// Some of it was undone, and was the stream.
    has_undone: AtomicBool,
    /// The chunks that could not be undone.
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
    pub fn undo(
        &self,
        index: u64,
        buffer: &mut [u8],
        filtered: usize,
        length: usize,
        stop: &AtomicBool,
    ) -> Result<()> {
        let undo = || self.unfilter.unfilter(&buffer[..filtered], length, stop);
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
        if self.has_undone.load(Ordering::SeqCst) {
            return None;
        }
        let why = format!("{UNFILTER} does not give the stream of '{}': {e}", self.entry.backup());
        Some(self.wrong(Error::failed(why)))
    }

    /// What the error means if it is that this chunk could not be undone. `undone`: tries a chunk now, alone.
    pub fn explained(&self, index: u64, error: Error, undone: impl Fn(u64) -> Result<()>) -> Error {
        if error.status == Status::TryAgain || !lock(&self.not_undone).contains(&index) {
            return error;
        }
        // with others beside it, it may have had too little memory
        match undone(index) {
            Ok(()) => return error.for_now().hint("now, alone, the same chunk could be undone"),
            Err(now) if now.status != Status::Failed => return now,
            Err(_) => {}
        }
        // is the key still there?
        match index.checked_sub(1).map(undone) {
            Some(Ok(())) => Error { status: Status::Damaged, ..error }
                .hint("what the filter gave cannot be undone, or its key was changed during the upload"),
            Some(Err(now)) if now.status != Status::Failed => now,
            _ => self.wrong(error),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::manifest::stages;
    use crate::state::store::history;
    use std::time::Duration;

    fn filtered() -> Entry {
        let mut entry = history::store("A").entries.remove(0);
        let stream = entry.stream.as_mut().unwrap();
        (stream.stages, stream.filter) = (stages(Some("gzip")), Some("gzip".to_string()));
        entry
    }

    #[test]
    fn what_cannot_be_undone_is_damage_only_if_that_is_certain() {
        let entry = filtered();
        let unfilter = Filter::new(UNFILTER, "cat >/dev/null; exit 3", Duration::from_secs(60));
        let unfiltering = Unfiltering::of(&entry, Some(&unfilter)).unwrap().unwrap();
        let not_undone = |index| unfiltering.undo(index, &mut [7; 10], 10, 10, &AtomicBool::new(false));
        let fails = |status| Err(Error::new(status, "why"));
        let failed = || Some(Status::Failed);
        // how the chunk itself ends, and the one before, when each is tried alone
        for (n, (index, itself, before, status, hint)) in [
            (5, None, None, Status::TryAgain, "could be undone"),
            (5, Some(Status::TryAgain), None, Status::TryAgain, ""),
            (5, Some(Status::Damaged), None, Status::Damaged, ""),
            (5, failed(), None, Status::Damaged, "or its key was changed during the upload"),
            (5, failed(), failed(), Status::Failed, "or its key, is the wrong one"),
            (5, failed(), Some(Status::TryAgain), Status::TryAgain, ""),
            (5, failed(), Some(Status::Archived), Status::Archived, ""),
            (0, failed(), None, Status::Failed, "or its key, is the wrong one"),
        ]
        .into_iter()
        .enumerate()
        {
            let error = not_undone(index).unwrap_err();
            assert!(error.message.starts_with(&format!("chunk {index} of 'tank/a@A': ")), "{error}");
            let undone = |tried| if tried == index { itself } else { before }.map_or(Ok(()), fails);
            let error = unfiltering.explained(index, error, undone);
            assert_eq!(error.status, status, "{n}: {error}");
            assert!(
                error.hints.iter().any(|it| it.contains(hint)) || hint.is_empty(),
                "{n}: {:?}",
                error.hints
            );
        }
        // of another chunk, or of the network
        let error = unfiltering.explained(9, Error::failed("x"), |_| panic!("it is not tried"));
        assert_eq!((error.status, error.hints.len()), (Status::Failed, 0));
    }
}
