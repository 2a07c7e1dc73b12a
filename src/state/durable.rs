//! Files that survive a power failure: a temporary file is written, fsynced and renamed, and the folder is
//! fsynced.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use crate::os::step::{self, Change};

/// After an error the old file is unchanged; after success the new one is on disk.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_with(path, |file| file.write_all(bytes))
}

/// The same for a file that need not be in memory as a whole.
pub fn replace_with(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    replace_through(&path.with_extension("tmp"), path, write)
}

/// A replacement takes much less.
const ABANDONED_AFTER: Duration = Duration::from_secs(3600);

/// The same for a file that several processes may replace at the same time: one of them wins.
pub fn replace_shared(path: &Path, bytes: &[u8]) -> io::Result<()> {
    remove_abandoned(path);
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    replace_through(&temporary, path, |file| file.write_all(bytes))
}

/// Removes what processes that were killed have left of replacements of this file.
fn remove_abandoned(path: &Path) {
    let (Some(folder), Some(stem)) = (path.parent(), path.file_stem().and_then(|stem| stem.to_str())) else {
        return;
    };
    let is_old = |entry: &std::fs::DirEntry| {
        let modified = entry.metadata().and_then(|metadata| metadata.modified()).ok();
        modified.and_then(|time| time.elapsed().ok()).is_some_and(|age| age > ABANDONED_AFTER)
    };
    let is_temporary = |name: &str| {
        let rest = name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(".tmp"));
        rest.is_some_and(|rest| rest.starts_with('.') && rest[1..].bytes().all(|b| b.is_ascii_digit()))
    };
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_temporary) && is_old(&entry) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn replace_through(
    temporary: &Path,
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let rename = || {
        step::of_file(&Change::Rename(temporary, path))?;
        std::fs::rename(temporary, path)
    };
    let written = write_new(temporary, write).and_then(|()| rename());
    if written.is_err() {
        let _ = std::fs::remove_file(temporary);
    }
    written.and_then(|()| sync_folder_of(path))
}

fn write_new(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    step::of_file(&Change::Create(path))?;
    let file = private().write(true).create(true).truncate(true).open(path)?;
    let mut buffered = BufWriter::new(NewFile { file, path });
    write(&mut buffered)?;
    // a lost write is an error here, which it would not be when it is dropped
    let NewFile { file, .. } = buffered.into_inner()?;
    step::of_file(&Change::Sync(path))?;
    file.sync_all()
}

struct NewFile<'a> {
    file: File,
    path: &'a Path,
}

impl Write for NewFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        step::write(&mut self.file, self.path, bytes).map(|()| bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Removes what a process that was killed has left of replacing this file. Only for who holds the lock.
pub fn remove_unfinished(path: &Path) {
    let temporary = path.with_extension("tmp");
    if temporary.exists() {
        // the next replacement overwrites it anyway
        let _ = step::of_file(&Change::Unlink(&temporary)).and_then(|()| std::fs::remove_file(&temporary));
    }
}

/// Removes a file durably. A missing file is not an error.
pub fn remove(path: &Path) -> io::Result<()> {
    step::of_file(&Change::Unlink(path))?;
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
    // one that is empty may have been made by a process that was killed before it was on disk
    if std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) {
        return Ok(());
    }
    step::of_file(&Change::MakeFolder(path))?;
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    for parent in path.ancestors().skip(1) {
        // those that were not made here may be unreadable, or on a file system without fsync
        let _ = sync(parent);
    }
    Ok(())
}

pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    sync(path.parent().unwrap_or(Path::new(".")))
}

fn sync(folder: &Path) -> io::Result<()> {
    step::of_file(&Change::SyncFolder(folder))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn what_killed_processes_left_is_removed() {
        let folder = std::env::temp_dir().join(format!("zfs2s3-durable-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("a.yml");
        for (name, age) in [("a.1.tmp", 7200), ("a.2.tmp", 60), ("a.x.tmp", 7200), ("b.1.tmp", 7200)] {
            let file = File::create(folder.join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        replace_shared(&path, b"text").unwrap();
        let mut names: Vec<_> =
            std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(names, ["a.2.tmp", "a.x.tmp", "a.yml", "b.1.tmp"]);
    }
}
