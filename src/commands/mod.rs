//! One file for each command, and what they share: configuration, lock, store, the pending upload.

pub mod abort_upload;
pub mod check;
pub mod doctor;
pub mod download;
pub mod keep;
pub mod list;
pub mod recover;
pub mod remove;
pub mod restore;
pub mod resume_upload;
pub mod thaw;
pub mod upload;
pub mod verify;

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::Serialize;

use crate::cli::Command;
use crate::config::{self, LocalSettings, RemoteSettings};
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::model::units::parse_age;
use crate::os::env::Env;
use crate::os::signals;
use crate::s3::client::Client;
use crate::state::journal;
use crate::state::journal::record::{Intent, Overview};
use crate::state::lock::Lock;
use crate::state::store::{Folder, Store};
use crate::ui::Ui;
use crate::upload::Upload;
use crate::zfs::Zfs;

pub fn run(command: Command, env: Env, ui: Arc<Ui>) -> Result<()> {
    ui.set_quiet(command.is_quiet());
    if command.is_verbose() {
        ui.set_verbose();
    }
    let context = Context::new(env, ui)?;
    tell_before_end(&context, &command);
    match command {
        Command::Upload(args) => upload::run(&context, &args),
        Command::Resume(args) => resume_upload::run(&context, &args),
        Command::Abort(_) => abort_upload::run(&context),
        Command::Remove(args) => remove::run(&context, &args),
        Command::Keep(args) => keep::keep(&context, &args),
        Command::Unkeep(args) => keep::unkeep(&context, &args),
        Command::List(args) => list::run(&context, &args),
        Command::Restore(args) => restore::run(&context, &args),
        Command::Download(args) => download::run(&context, &args),
        Command::Thaw(args) => thaw::run(&context, &args),
        Command::Verify(args) => verify::run(&context, &args),
        Command::Check(args) => check::run(&context, &args),
        Command::Doctor(args) => doctor::run(&context, &args),
        Command::Recover(args) => recover::run(&context, &args),
    }
}

/// At a signal, says how to go on.
fn tell_before_end(context: &Context, command: &Command) {
    let again = match command {
        Command::List(_) | Command::Doctor(_) | Command::Check(_) => None,
        Command::Download(_) => Some("what was written is not complete"),
        _ => Some("run the same command again"),
    };
    let (ui, folder) = (Arc::clone(&context.ui), context.folder.clone());
    let changes_uploads = matches!(command, Command::Upload(_) | Command::Resume(_) | Command::Abort(_));
    signals::tell_before_end(move |signal| {
        let error = Error::failed(format!("interrupted by {signal}"));
        let is_pending = changes_uploads && folder.journal().exists() && Lock::is_of_this_process(&folder);
        ui.transfer_done();
        ui.error(&match again {
            _ if is_pending => crate::upload::pending(error),
            Some(again) => error.hint(again),
            None => error,
        });
    });
}

pub struct Context {
    pub env: Env,
    pub local: LocalSettings,
    pub folder: Folder,
    pub ui: Arc<Ui>,
    /// Shared by all that a command does, with its connections and credentials.
    client: OnceCell<Arc<Client>>,
    unfilter: OnceCell<Option<Filter>>,
}

impl Context {
    fn new(env: Env, ui: Arc<Ui>) -> Result<Self> {
        let local = LocalSettings::new(&env)?;
        let folder = Folder::new(local.data_folder.clone());
        Ok(Context { env, local, folder, ui, client: OnceCell::new(), unfilter: OnceCell::new() })
    }

    /// An error after which the command goes on with something else.
    pub fn report(&self, error: &Error) {
        signals::await_end();
        self.ui.error(error);
    }

    /// `command`: shown to another zfs2s3 that is started meanwhile.
    pub fn lock(&self, command: &str) -> Result<Lock> {
        Lock::take(&self.folder, command)
    }

    /// A dry run needs no lock, since it changes nothing.
    pub fn lock_unless(&self, dry_run: bool, command: &str) -> Result<Option<Lock>> {
        self.lock_within(None, dry_run, command)
    }

    /// With `--wait-lock`, another command may take so long to end.
    fn lock_within(&self, wait: Option<&str>, dry_run: bool, command: &str) -> Result<Option<Lock>> {
        let limit =
            wait.map_or(Ok(0), parse_age).map_err(|why| Error::usage(format!("--wait-lock: {why}")))?;
        if dry_run {
            return Ok(None);
        }
        let limit = Duration::from_secs(limit.unsigned_abs());
        let waiting = |why: &str| self.ui.note_once(&format!("{why}; waiting"));
        Lock::take_within(&self.folder, command, limit, waiting).map(Some)
    }

    /// The store, for commands that do not use S3.
    pub fn store(&self) -> Result<Store> {
        Store::open(&self.folder, &self.local.bucket, &self.local.prefix, None)
    }

    /// The store, which must belong to this server.
    fn store_at(&self, endpoint: &str) -> Result<Store> {
        Store::open(&self.folder, &self.local.bucket, &self.local.prefix, Some(endpoint))
    }

    pub fn zfs(&self) -> Zfs {
        Zfs::new(config::zfs_words(&self.env))
    }

    pub fn store_and_client(&self) -> Result<(Store, Arc<Client>)> {
        let client = self.client()?;
        Ok((self.store_at(&client.endpoint().url)?, client))
    }

    fn client(&self) -> Result<Arc<Client>> {
        if let Some(client) = self.client.get() {
            return Ok(Arc::clone(client));
        }
        let remote = RemoteSettings::new(&self.env, &self.local)?;
        let client = Arc::new(Client::new(remote, Arc::clone(&self.ui))?);
        Ok(Arc::clone(self.client.get_or_init(|| client)))
    }

    /// What undoes the filter of backups that were filtered, if the user has set it.
    pub fn unfilter(&self) -> Result<Option<&Filter>> {
        if let Some(unfilter) = self.unfilter.get() {
            return Ok(unfilter.as_ref());
        }
        let unfilter = config::unfilter(&self.env)?;
        Ok(self.unfilter.get_or_init(|| unfilter).as_ref())
    }

    /// Data, as JSON for a person, too.
    pub fn print_json(&self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value).map_err(|e| Error::failed(e.to_string()))?;
        self.ui.data(&(text + "\n"))
    }

    pub fn refuse_while_pending(&self) -> Result<()> {
        journal::refuse_python_upload(&self.folder, &self.local.bucket)?;
        match journal::overview(&self.folder)? {
            None => Ok(()),
            Some(overview) => {
                Err(Error::pending(format!("an upload is pending: {}", what(&overview.intent)))
                    .hint("'zfs2s3 resume_upload' resumes it, 'zfs2s3 abort_upload' aborts it"))
            }
        }
    }

    /// The pending upload, for resume_upload and abort_upload.
    pub fn pending(&self) -> Result<(Overview, Upload)> {
        journal::refuse_python_upload(&self.folder, &self.local.bucket)?;
        let Some(overview) = journal::overview(&self.folder)? else {
            return Err(Error::pending("no upload is pending"));
        };
        self.check_place(&overview.intent, None)?;
        let upload = self.upload()?;
        self.check_place(&overview.intent, Some(&upload.client.endpoint().url))?;
        Ok((overview, upload))
    }

    /// A pending upload can only be resumed with the server, bucket and prefix that it began with.
    fn check_place(
        &self,
        Intent { bucket, prefix, endpoint, .. }: &Intent,
        here: Option<&str>,
    ) -> Result<()> {
        if *bucket != self.local.bucket || *prefix != self.local.prefix {
            return Err(Error::failed(format!(
                "the pending upload is for bucket '{bucket}', prefix '{prefix}', not for bucket '{}', prefix '{}'",
                self.local.bucket, self.local.prefix
            ))
            .hint("set ZFS2S3_BUCKET and ZFS2S3_PREFIX as they were when it began"));
        }
        match here {
            Some(here) if here != endpoint => {
                Err(Error::failed(format!("the pending upload is for the server {endpoint}, not for {here}"))
                    .hint("set AWS_ENDPOINT_URL or AWS_REGION as they were when it began"))
            }
            _ => Ok(()),
        }
    }

    /// Everything that an upload uses.
    pub fn upload(&self) -> Result<Upload> {
        let (store, client) = self.store_and_client()?;
        Ok(Upload {
            folder: self.folder.clone(),
            store,
            client,
            zfs: self.zfs(),
            ui: Arc::clone(&self.ui),
            keeps: config::kept_properties(&self.env)?,
            filter_patience: config::filter_patience(&self.env),
            unfilter: config::unfilter(&self.env)?,
            strays: AtomicBool::new(false),
        })
    }
}

fn what(intent: &Intent) -> String {
    format!("{}, since {}", intent.backup().describe(), intent.begun)
}
