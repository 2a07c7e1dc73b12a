//! zfs2s3: backs up ZFS snapshots incrementally to S3. The man page zfs2s3.1 is the contract.
//!
//! Arrows point one way: main -> cli, commands -> upload, removal, inventory -> pipeline, fetch, store, progress, zfs, s3, ui -> the
//! pure modules (names, backup, copy, chain, chunks, digest, keys, manifest, stream, units, utc). tests/suite/tidy.rs checks that.
//! Where it is decided what may be stored and removed: `chain`; why that is safe beside other hosts: `protocol_model`.

mod announcement;
mod backup;
mod chain;
mod chunks;
mod cli;
mod commands;
mod config;
mod copy;
mod digest;
mod durable;
mod error;
mod fetch;
mod host;
mod inventory;
mod keys;
mod lock;
mod manifest;
mod names;
mod pipeline;
mod process;
mod progress;
mod random;
mod readme;
mod recover;
mod removal;
mod restore;
mod route;
mod s3;
mod send_flags;
mod shell;
mod store;
mod stream;
mod ui;
mod units;
mod upload;
mod utc;
mod yaml;
mod zfs;

use std::process::ExitCode;
use std::sync::Arc;

use cli::Asked;
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
        args.collect::<std::result::Result<_, _>>().map_err(|_| Error::usage("an argument is not UTF-8"))?;
    match cli::parse(&args)? {
        Asked::Print(text) => ui.data(&text),
        Asked::Run(command) => commands::run(command, config::Env::of_process(), ui),
    }
}
