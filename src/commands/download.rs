//! `download`: writes the stream of one stored backup, checked chunk by chunk, to standard output.

use std::io::{self, IsTerminal, Write};

use super::Context;
use super::thaw::hint_thaw;
use crate::cli;
use crate::error::{Error, Result};
use crate::model::shell::quoted;
use crate::restore::stored::{StoredBackup, undelivered};
use crate::state::store::selector::BackupSelector;

pub fn run(context: &Context, args: &cli::DownloadArgs) -> Result<()> {
    let selector = BackupSelector::parse("download", &args.snapshot, args.base.as_deref())?;
    if io::stdout().is_terminal() {
        return Err(Error::usage("a stream cannot be written to a terminal")
            .hint("pipe it into 'zfs receive', or into a file"));
    }
    let (store, client) = context.store_and_client()?;
    let contents = &store.contents;
    let entry = &contents.entries[selector.find(contents)?];
    let kind = args.base.as_ref().map_or("-f".to_string(), |base| format!("-i {}", quoted(base)));
    let thaw = format!("{kind} {}", quoted(&args.snapshot));
    let stored = StoredBackup::open(&client, &contents.prefix, entry)?
        .readable()
        .map_err(|error| hint_thaw(error, &thaw))?;
    let mut stdout = io::stdout().lock();
    let mut write = |chunk: &[u8]| {
        stdout.write_all(chunk).map_err(|e| Error::failed(format!("cannot write to standard output: {e}")))
    };
    let read = if args.raw_object {
        context.ui.transfer(&entry.snapshot.name, Some(stored.stored_size()));
        stored.read_objects(&context.ui, |_, chunk| write(chunk)).map_err(undelivered)
    } else {
        let stored = stored.unfiltered_by(context.unfilter()?)?;
        context.ui.transfer(&entry.snapshot.name, Some(stored.size()));
        stored.read(0, &context.ui, write)
    };
    context.ui.transfer_done();
    read.map_err(|error| hint_thaw(error, &thaw))?;
    stdout.flush().map_err(|e| Error::failed(format!("cannot write to standard output: {e}")))
}
