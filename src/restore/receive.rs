//! One stored backup piped into `zfs receive`: whole, or from the point where an earlier receive was
//! interrupted.

use std::io::{self, Write};

use super::resume::locate::ResumePoint;
use super::resume::partial::Features;
use super::stored::StoredBackup;
use crate::error::{Error, Result, Status};
use crate::model::units::human_size;
use crate::state::store::format::Entry;
use crate::stream::{StreamError, begin_of};
use crate::ui::Ui;
use crate::zfs::{RESUME_HINT, Receive, Zfs};

pub struct PlannedReceive<'a> {
    pub entry: &'a Entry,
    pub stored: StoredBackup<'a>,
    /// If the target has its beginning already.
    pub resume_at: Option<ResumePoint>,
}

impl PlannedReceive<'_> {
    /// Bytes of the stream that the target has already.
    pub fn received(&self) -> u64 {
        self.resume_at.as_ref().map_or(0, |point| point.position)
    }

    /// Bytes of the stream that are yet to be received.
    pub fn remaining(&self) -> u64 {
        self.stored.size() - self.received()
    }

    /// `properties`: of the dataset that this creates.
    pub fn receive(self, zfs: &Zfs, target: &str, properties: &[String], ui: &Ui) -> Result<()> {
        let (from, size) = (self.received(), self.stored.size());
        ui.remark("Ctrl-C interrupts the restore; the same command continues it");
        // not before there is something to receive
        let mut receive: Option<Receive> = None;
        let mut refused = false;
        let mut embeds = false;
        let mut input = ReceiveInput::new(self.resume_at);
        ui.transfer(&self.entry.snapshot.name, Some(size));
        let read = self.stored.read(from, ui, |chunk| {
            embeds |= begins_with_embedded_data(chunk);
            let receive = match &mut receive {
                Some(receive) => receive,
                None => receive.insert(zfs.receive(target, properties)?),
            };
            input.push(chunk, receive).map_err(|e| match e {
                InputError::Stream(e) => self.stored.invalid(e),
                InputError::Write(e) => {
                    refused = true;
                    Error::failed(format!("cannot write to 'zfs receive': {e}"))
                }
            })
        });
        let read = read.and_then(|()| input.check_ended().map_err(|e| self.stored.invalid(e).of_damage()));
        ui.transfer_done();
        let explain = |error: Error| {
            let is_about_features = WORDS_ON_FEATURES.iter().any(|words| error.message.contains(words));
            if embeds && is_about_features { error.hint(EMBEDDED) } else { error }
        };
        match read {
            Ok(()) => receive.map_or(Ok(()), Receive::finish).map_err(explain)?,
            // it ended before its input did: its own message tells why
            Err(error) if refused => {
                return Err(receive.and_then(|receive| receive.finish().err()).map_or(error, explain));
            }
            // 'zfs receive' keeps what it has
            Err(error) if error.status == Status::TryAgain => return Err(error.hint(RESUME_HINT)),
            Err(error) => return Err(error),
        }
        ui.note(&format!(
            "received {}, into {target}: {}",
            self.entry.backup().describe(),
            human_size(size - from)
        ));
        Ok(())
    }
}

/// Parts of zfs's message about a stream with embedded data below an encrypted dataset: OpenZFS up to 2.1,
/// and later.
const WORDS_ON_FEATURES: [&str; 2] = ["kernel modules must be upgraded", "embedded data"];
const EMBEDDED: &str = "the stream has embedded data, which cannot be received below an encrypted dataset: \
                        '-o encryption=off' receives it, unencrypted; or name another target";

fn begins_with_embedded_data(chunk: &[u8]) -> bool {
    begin_of(chunk).map(|begin| Features::of(&begin)).is_ok_and(|features| features.embedded && !features.raw)
}

/// The input of `zfs receive`: the stored bytes as they are, or turned into a stream that resumes an
/// interrupted receive.
enum ReceiveInput {
    Whole,
    Rest(Box<ResumePoint>),
}

enum InputError {
    Stream(StreamError),
    Write(io::Error),
}

impl From<StreamError> for InputError {
    fn from(e: StreamError) -> Self {
        InputError::Stream(e)
    }
}

impl ReceiveInput {
    fn new(resume_at: Option<ResumePoint>) -> Self {
        resume_at.map_or(ReceiveInput::Whole, |point| ReceiveInput::Rest(Box::new(point)))
    }

    fn push(&mut self, chunk: &[u8], to: &mut impl Write) -> Result<(), InputError> {
        match self {
            ReceiveInput::Whole => to.write_all(chunk).map_err(InputError::Write),
            ReceiveInput::Rest(point) => {
                to.write_all(&std::mem::take(&mut point.head)).map_err(InputError::Write)?;
                point.rewriting.push(chunk, |bytes| to.write_all(bytes).map_err(InputError::Write))
            }
        }
    }

    fn check_ended(&self) -> Result<(), StreamError> {
        match self {
            ReceiveInput::Whole => Ok(()),
            ReceiveInput::Rest(point) => point.rewriting.check_ended(),
        }
    }
}
