//! Files that survive a power failure: a temporary file is written, fsynced and renamed, and the folder is
//! fsynced.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// After an error the old file is unchanged; after success the new one is on disk.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_through(&path.with_extension("tmp"), path, bytes)
}

/// The same for a file that several processes may replace at the same time: one of them wins.
pub fn replace_shared(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_through(&path.with_extension(format!("{}.tmp", std::process::id())), path, bytes)
}

fn replace_through(temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let written = write_new(temporary, bytes).and_then(|()| std::fs::rename(temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(temporary);
    }
    written.and_then(|()| sync_folder_of(path))
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = private().write(true).create(true).truncate(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Removes a file durably. A missing file is not an error.
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => sync_folder_of(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

/// A file that only its owner may read (created with mode 0600).
pub fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Creates a folder and its parents, for their owner alone (mode 0700).
pub fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
