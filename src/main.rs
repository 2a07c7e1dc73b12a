//! zfs2s3 backs up ZFS snapshots incrementally to S3. The man page, zfs2s3.1, is the contract; DESIGN.md,
//! beside this file, explains the design.
//!
//! The parts, from the top down. Each uses only those below it; tests/suite/tidy.rs checks every `use`.
//!
//! - `commands`: one file for each command, which parses the arguments, calls the parts below, and prints
//! - `cli`: the arguments
//! - `upload`: stores a backup, and resumes or aborts an interrupted upload
//! - `doctor`: checks what could make a backup, removal or restore fail later
//! - `verify`: proves that stored backups can be restored
//! - `restore`: receives stored backups into a dataset
//! - `recover`: rebuilds the store from the bucket
//! - `removal`: announces, decides and completes a removal
//! - `inventory`: what is stored, according to the store and the listing of the bucket together
//! - `s3`: requests, replies, retries, and the calls of the API
//! - `config`: the settings
//! - `ui`: messages and the progress line
//! - `chunk_io`: parallel input and output of chunks, in bounded memory
//! - `filter`: the user's own programs that compress or encrypt chunks
//! - `zfs`: the program `zfs`
//! - `state`: the files of this host: the store, the journal of the pending upload, the lock
//! - `aws`: the settings of the AWS tools: profiles, credentials and their renewal, endpoints, proxies
//! - `os`: services of the operating system
//! - `chain`: the chain rule: what may be stored, called stored, and removed; and the proof that it is safe
//!   between hosts
//! - `stream`: the records of a `zfs send` stream
//! - `model`: names, guids, backups, keys, manifests, chunks, digests, units, times
//! - `error`: the error type, with hints and exit status

mod aws;
mod chain;
mod chunk_io;
mod cli;
mod commands;
mod config;
mod doctor;
mod error;
mod filter;
mod inventory;
mod model;
mod os;
mod recover;
mod removal;
mod restore;
mod s3;
mod state;
mod stream;
mod ui;
mod upload;
mod verify;
mod zfs;

use std::process::ExitCode;
use std::sync::Arc;

use cli::Invocation;
use error::{Error, Result};
use ui::Ui;

fn main() -> ExitCode {
    let ui = Arc::new(Ui::new());
    match run(Arc::clone(&ui)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            os::signals::await_end();
            ui.error(&error);
            ExitCode::from(error.status.exit_code())
        }
    }
}

fn run(ui: Arc<Ui>) -> Result<()> {
    let args = std::env::args_os().skip(1).map(|arg| arg.into_string());
    let args: Vec<String> =
        args.collect::<Result<_, _>>().map_err(|_| Error::usage("an argument is not UTF-8"))?;
    match cli::parse(&args)? {
        Invocation::Print(text) => ui.data(&text),
        Invocation::Run(command) => commands::run(command, os::env::Env::of_process(), ui),
    }
}
