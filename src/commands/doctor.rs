//! `doctor`: checks what could make a backup, removal or restore fail later.

use std::sync::Arc;
use std::time::Duration;

use super::Context;
use crate::cli;
use crate::config::{self, RemoteSettings, UploadSettings};
use crate::doctor::Doctor;
use crate::doctor::report::{Finding, Level};
use crate::error::{Error, Result};
use crate::filter::{FILTER, Filter};
use crate::model::units::count;
use crate::s3::client::Client;

/// A person is waiting for it.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn run(context: &Context, args: &cli::DoctorArgs) -> Result<()> {
    let upload = UploadSettings::new(&context.env)?;
    let remote = RemoteSettings::new(&context.env, &context.local)?;
    let endpoint = remote.endpoint.url.clone();
    let read_store = || context.store_at(&endpoint).map(|store| store.contents);
    let ca_bundle = remote.ca_bundle.clone();
    let remote = RemoteSettings { patience: remote.patience.min(PATIENCE), ..remote };
    let doctor = Doctor {
        client: Client::new(remote, Arc::clone(&context.ui)),
        ca_bundle,
        read_store: &read_store,
        bucket: &context.local.bucket,
        prefix: &context.local.prefix,
        folder: &context.folder,
        upload: &upload,
        filter: upload
            .filter
            .as_ref()
            .map(|command| Filter::new(FILTER, command, config::filter_patience(&context.env))),
        unfilter: context.unfilter(),
        zfs: context.zfs(),
        ui: &context.ui,
    };
    let mut all: Vec<Finding> = Vec::new();
    doctor.run(|findings| {
        if !args.json {
            let shown = findings.iter().filter(|finding| !args.quiet || finding.level != Level::Ok);
            context.ui.data(&shown.map(Finding::text).collect::<String>())?;
        }
        all.extend(findings);
        Ok(())
    })?;
    if args.json {
        context.print_json(&all)?;
    }
    let of = |level| all.iter().filter(|finding| finding.level == level).count() as u64;
    let (errors, warnings) = (of(Level::Error), of(Level::Warning));
    let words = format!("{}, {}", count(errors, "error"), count(warnings, "warning"));
    match errors {
        0 => {
            context.ui.note(&words);
            Ok(())
        }
        _ => Err(Error::failed(words)),
    }
}
