//! One changing command at a time: an flock on the file `lock` beside the store, whose contents name the
//! holder. The kernel releases it when the process ends, in whatever way.

use std::fs::{File, TryLockError};
use std::io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
use std::io::{Read, Seek, Write};
use std::time::{Duration, Instant};

use crate::error::{Error, Result, Status};
use crate::model::units::age;
use crate::state::durable;
use crate::state::store::{Folder, io_error};

/// How often a lock that is waited for is tried.
const LOOK_UP: Duration = Duration::from_secs(1);

/// Held until it is dropped.
pub struct Lock {
    _file: File,
}

fn note() -> String {
    format!("process {}: ", std::process::id())
}

impl Lock {
    /// As far as it could be written down.
    pub fn is_of_this_process(folder: &Folder) -> bool {
        std::fs::read_to_string(folder.lock()).is_ok_and(|holder| holder.starts_with(&note()))
    }

    /// Waits for another holder to end, up to `limit`. `waiting` is called with its name.
    pub fn take_within(folder: &Folder, who: &str, limit: Duration, waiting: impl Fn(&str)) -> Result<Lock> {
        let begun = Instant::now();
        loop {
            match Self::take(folder, who) {
                Err(error) if error.status == Status::Pending && begun.elapsed() < limit => {
                    waiting(&error.message);
                    std::thread::sleep(LOOK_UP.min(limit.saturating_sub(begun.elapsed())));
                }
                Err(error) if error.status == Status::Pending && !limit.is_zero() => {
                    let waited = age(i64::try_from(limit.as_secs()).unwrap_or(i64::MAX));
                    return Err(Error::pending(format!("{} (waited {waited} for it)", error.message)));
                }
                taken => return taken,
            }
        }
    }

    /// `who`: the command, which is shown to a second one.
    pub fn take(folder: &Folder, who: &str) -> Result<Lock> {
        folder.make()?;
        let path = folder.lock();
        let cannot = |e: &std::io::Error| io_error("cannot take the lock", &path, e);
        let mut options = durable::private();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| cannot(&e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(e)) => return Err(cannot(&e)),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.take(300).read_to_string(&mut holder);
                let holder: String = holder.lines().next().unwrap_or_default().to_string();
                return Err(Error::pending(format!("another zfs2s3 is running: {holder}"))
                    .hint("wait until it has ended; some commands do so with --wait-lock"));
            }
        }
        let note = format!("{}{who}\n", note());
        // only for people: on a full disk, commands that free space must still run
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(note.as_bytes()));
        durable::remove_unfinished(&folder.store());
        durable::remove_unfinished(&folder.journal());
        // A process that was killed may have renamed a file, and not made that last. Whatever is decided and
        // done by that file must not outlive it.
        let synced = durable::sync_folder_of(&path);
        // where folders cannot be synced, only commands that write nothing go on
        if let Err(e) = synced.as_ref()
            && !matches!(e.kind(), InvalidInput | Unsupported | PermissionDenied)
        {
            return Err(cannot(e));
        }
        Ok(Lock { _file: file })
    }
}
