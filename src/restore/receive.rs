//! One stored backup on its way into `zfs receive`: whole, or from where an earlier one was interrupted.

use std::io::{self, Write};

use super::locate::Start;
use super::partial::Features;
use super::stored::Stored;
use crate::error::{Error, Result, Status};
use crate::model::units::human_size;
use crate::state::store::format::Entry;
use crate::stream::{StreamError, begin_of};
use crate::ui::Ui;
use crate::zfs::{GOES_ON, Zfs};

/// A backup on its way into the target.
pub struct Receiving<'a> {
    pub entry: &'a Entry,
    pub stored: Stored<'a>,
    /// Where it goes on, if its beginning is there.
    pub start: Option<Start>,
}

impl Receiving<'_> {
    /// Bytes of the stream that are there already.
    pub fn from(&self) -> u64 {
        self.start.as_ref().map_or(0, |start| start.position)
    }

    /// `properties`: what the dataset is to have that this makes.
    pub fn receive(self, zfs: &Zfs, target: &str, properties: &[String], jobs: usize, ui: &Ui) -> Result<()> {
        let (from, size) = (self.from(), self.stored.size());
        let mut receive = zfs.receive(target, properties)?;
        let mut refused = false;
        let mut embeds = false;
        let mut hand_on = Onward::new(self.start);
        ui.transfer(&self.entry.snapshot.name, Some(size));
        let read = self.stored.read(from, jobs, ui, |chunk| {
            embeds |= begins_with_embedded_data(chunk);
            hand_on.push(chunk, &mut receive).map_err(|trouble| match trouble {
                Trouble::Stream(e) => self.stored.wrong(e),
                Trouble::Write(e) => {
                    refused = true;
                    Error::failed(format!("cannot write to 'zfs receive': {e}"))
                }
            })
        });
        let read = read.and_then(|()| hand_on.check_ended().map_err(|e| self.stored.wrong(e)));
        ui.transfer_done();
        let explain = |error: Error| match embeds
            && WORDS_ON_FEATURES.iter().any(|words| error.message.contains(words))
        {
            true => error.hint(EMBEDDED),
            false => error,
        };
        match read {
            Ok(()) => receive.finish().map_err(explain)?,
            // it has ended before its input: its own words tell why
            Err(error) if refused => return Err(receive.finish().err().map_or(error, explain)),
            // 'zfs receive' keeps what it has
            Err(error) if error.status == Status::TryAgain => {
                return Err(error.hint(GOES_ON));
            }
            Err(error) => return Err(error),
        }
        ui.note(&format!(
            "received {}, into {target}: {}",
            self.entry.backup().in_words(),
            human_size(size - from)
        ));
        Ok(())
    }
}

/// What zfs says of a stream with embedded data below an encrypted dataset: OpenZFS up to 2.1, and later.
const WORDS_ON_FEATURES: [&str; 2] = ["kernel modules must be upgraded", "embedded data"];
const EMBEDDED: &str = "the stream has embedded data, which cannot be received below an encrypted dataset: \
                        '-o encryption=off' receives it, unencrypted; or name another target";

fn begins_with_embedded_data(chunk: &[u8]) -> bool {
    begin_of(chunk).map(|begin| Features::of(&begin)).is_ok_and(|features| features.embedded && !features.raw)
}

/// What stands between the stored bytes and `zfs receive`: nothing, or what makes them go on where it was interrupted.
enum Onward {
    Whole,
    Rest(Box<Start>),
}

enum Trouble {
    Stream(StreamError),
    Write(io::Error),
}

impl From<StreamError> for Trouble {
    fn from(e: StreamError) -> Self {
        Trouble::Stream(e)
    }
}

impl Onward {
    fn new(start: Option<Start>) -> Self {
        start.map_or(Onward::Whole, |start| Onward::Rest(Box::new(start)))
    }

    fn push(&mut self, chunk: &[u8], to: &mut impl Write) -> std::result::Result<(), Trouble> {
        match self {
            Onward::Whole => to.write_all(chunk).map_err(Trouble::Write),
            Onward::Rest(start) => {
                to.write_all(&std::mem::take(&mut start.head)).map_err(Trouble::Write)?;
                start.rewriting.push(chunk, |bytes| to.write_all(bytes).map_err(Trouble::Write))
            }
        }
    }

    fn check_ended(&self) -> std::result::Result<(), StreamError> {
        match self {
            Onward::Whole => Ok(()),
            Onward::Rest(start) => start.rewriting.check_ended(),
        }
    }
}
