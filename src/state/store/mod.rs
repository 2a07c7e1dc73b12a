//! The store: ~/.local/share/zfs2s3/stored_snapshots.yml, the list of stored backups; and the folder that it
//! is in.
//!
//! It is read and written as a whole, and is on disk before a caller continues. It belongs to one server,
//! bucket and prefix.

mod file;
pub mod format;
#[cfg(test)]
pub mod history;
pub mod newest;
pub mod python;
pub mod selector;

use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::os::step::{self, Change};
use crate::state::durable;
use format::Contents;

/// The folder of the store, the pending upload and the lock.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(path: PathBuf) -> Self {
        Folder(path)
    }
    pub fn make(&self) -> Result<()> {
        durable::make_folder(&self.0).map_err(|e| io_error("cannot create the folder", &self.0, &e))
    }
    pub fn store(&self) -> PathBuf {
        self.0.join("stored_snapshots.yml")
    }
    /// Where a list of the Python tool is kept.
    pub fn store_original(&self) -> PathBuf {
        self.0.join("stored_snapshots.yml.orig")
    }
    pub fn journal(&self) -> PathBuf {
        self.0.join("upload_progress.yml")
    }
    /// Where the Python tool noted a pending upload.
    pub fn python_schedule(&self) -> PathBuf {
        self.0.join("upload_schedule.yml")
    }
    /// What `thaw` has seen, for `list`.
    pub fn archive_states(&self) -> PathBuf {
        self.0.join("archive_states.yml")
    }
    /// What `verify` has proven, for `list`.
    pub fn verified(&self) -> PathBuf {
        self.0.join("verified.yml")
    }
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }
}

pub struct Store {
    folder: Folder,
    pub contents: Contents,
    /// The file still has the format of the Python tool, and is kept aside before it is replaced.
    from_python: bool,
}

impl Store {
    /// A missing file is an empty store; an unreadable or invalid file is an error. `endpoint`: none if the
    /// bucket is not used.
    pub fn open(folder: &Folder, bucket: &str, prefix: &str, endpoint: Option<&str>) -> Result<Store> {
        let empty = Contents::empty(endpoint.unwrap_or_default(), bucket, prefix);
        let path = folder.store();
        let as_written = match File::open(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Ok(Store { folder: folder.clone(), contents: empty, from_python: false });
            }
            file => file.and_then(|file| file::read(BufReader::new(file))),
        };
        let as_written = as_written.map_err(|e| io_error("cannot read", &path, &e))?;
        // it was edited, or is damaged, or the Python tool wrote it
        let text = if as_written.is_some() { None } else { read_text(&path)? }.unwrap_or_default();
        let from_python = python::is_python(&text);
        let damaged = |why: String| {
            let error = Error::failed(format!("the store {} cannot be used: {why}", path.display())).hint(
                "nothing was changed; put back a good copy of it, or use the version of zfs2s3 that wrote it",
            );
            if from_python {
                error
            } else {
                error.hint(
                    "or move it away, and 'zfs2s3 recover' rebuilds it from the bucket, without the backups of the \
                     Python tool",
                )
            }
        };
        if from_python && !prefix.is_empty() {
            return Err(Error::failed(format!(
                "the store {} was written by the older, Python zfs2s3, which had no prefixes",
                path.display()
            ))
            .hint("unset ZFS2S3_PREFIX, or set XDG_DATA_HOME to use another store"));
        }
        let contents = if from_python {
            let entries = python::parse(&text).map_err(damaged)?;
            let contents = Contents { entries, ..empty };
            contents.check().map_err(damaged)?;
            contents
        } else {
            as_written.unwrap_or_else(|| Contents::parse(&text)).map_err(damaged)?
        };
        let store = Store { folder: folder.clone(), contents, from_python };
        store.check_place(bucket, prefix, endpoint)?;
        Ok(store)
    }

    fn check_place(&self, bucket: &str, prefix: &str, endpoint: Option<&str>) -> Result<()> {
        let own = &self.contents;
        let path = self.folder.store();
        if own.bucket != bucket || own.prefix != prefix {
            let place = |bucket: &str, prefix: &str| format!("bucket '{bucket}', prefix '{prefix}'");
            return Err(Error::failed(format!(
                "the store {} is for {}, not for {}",
                path.display(),
                place(&own.bucket, &own.prefix),
                place(bucket, prefix)
            ))
            .hint(
                "set ZFS2S3_BUCKET and ZFS2S3_PREFIX to the store's, or XDG_DATA_HOME to use another store",
            ));
        }
        match endpoint {
            Some(endpoint) if endpoint != own.endpoint => Err(Error::failed(format!(
                "the store {} is for the server {}, not for {endpoint}",
                path.display(),
                own.endpoint
            ))
            .hint("set AWS_ENDPOINT_URL or AWS_REGION to the store's; if the same bucket has moved, change 'endpoint' in the file")),
            _ => Ok(()),
        }
    }

    /// When this returns, the new list is on disk.
    pub fn save(&mut self) -> Result<()> {
        let path = self.folder.store();
        if self.from_python {
            self.keep_original_aside()?;
        }
        durable::replace_with(&path, |file| file::write(&self.contents, file))
            .map_err(|e| io_error("cannot write the store", &path, &e))?;
        self.from_python = false;
        Ok(())
    }

    fn keep_original_aside(&self) -> Result<()> {
        let (path, aside) = (self.folder.store(), self.folder.store_original());
        let linked = match step::of_file(&Change::Link(&path, &aside))
            .and_then(|()| std::fs::hard_link(&path, &aside))
        {
            // an earlier run was interrupted after this
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        };
        linked
            .and_then(|()| durable::sync_folder_of(&aside))
            .map_err(|e| io_error("cannot keep the store of the Python tool as", &aside, &e))
    }
}

/// None: no such file.
pub fn read_text(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io_error("cannot read", path, &e)),
    }
}

pub fn io_error(what: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::failed(format!("{what} {}: {error}", path.display()))
}
