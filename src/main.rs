//! zfs2s3: backs up ZFS snapshots incrementally to S3. The man page zfs2s3.1 is the contract, and DESIGN.md beside this file says why it
//! is built as it is.
//!
//! The map. Each part uses only those below it in this list; tests/suite/tidy.rs holds every `use` against it.
//!
//! - `commands`: one file a command: it reads the arguments, calls what does the work, and prints
//! - `cli`: the arguments
//! - `upload`: a backup on its way to the bucket, and an interrupted one resumed or aborted
//! - `restore`: stored backups on their way back into a dataset
//! - `recover`: the store rebuilt from the bucket
//! - `removal`: how a removal is announced, decided and done
//! - `inventory`: what is stored, by the store and by the bucket's listing together
//! - `s3`: requests, replies, retries, and the calls of the API that are made
//! - `config`: zfs2s3's own variables
//! - `ui`: messages and the progress line
//! - `chunk_io`: chunks sent and fetched by several threads, in bounded memory
//! - `zfs`: the program `zfs`
//! - `state`: what is kept on this host: the store, the journal of the pending upload, the lock
//! - `aws`: what AWS's own tools know of a user: profiles, credentials, endpoints, proxies
//! - `os`: the environment, helper processes, random numbers
//! - `chain`: the rule: what may be stored, called stored, and removed; and why that is safe between hosts
//! - `stream`: the records of a `zfs send` stream
//! - `model`: names, guids, backups, keys, manifests, chunks, digests, units, times
//! - `error`: the one error type, with its hint and exit status

mod aws;
mod chain;
mod chunk_io;
mod cli;
mod commands;
mod config;
mod error;
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
            ui.error(&error);
            ExitCode::from(error.status as u8)
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
