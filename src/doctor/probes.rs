//! Probes: the objects and uploads that some checks need. Their keys are no backup's, and only what has
//! exactly such a key is ever deleted.
//!
//! A doctor that is killed leaves its probes to the next one. The key has the host and the process: those of
//! a process of this host that has ended are deleted at once, all others after a day.

use std::cell::Cell;

use super::bucket::{Bucket, Versions};
use super::report::{Finding, Level};
use crate::error::one_line;
use crate::model::digest::Sha256;
use crate::model::shell::abort_multipart_upload;
use crate::model::units::count;
use crate::model::utc::Utc;
use crate::os::process;
use crate::s3::client::Client;
use crate::s3::failure::Failure;
use crate::s3::reply::{ListedUpload, Object};

const CHECK: &str = "probes";
/// How the keys of probes begin, after the prefix of the store.
const MARK: &str = "zfs2s3-probe-";
/// The names of probes, at the ends of their keys.
const NAMES: &[&str] = &["object", "upload", "locked", "whole", "absent"];
/// Seconds after which another host's probe is no longer in use.
const A_DAY: i64 = 86_400;

pub struct Probes<'a> {
    pub client: &'a Client,
    pub bucket: &'a Bucket,
    store_prefix: &'a str,
    /// That of the probes of this host, and of this process.
    of_host: String,
    stem: String,
    /// May these credentials list the bucket?
    may_list: bool,
    /// A reply to CreateMultipartUpload was lost.
    pub may_have_strays: Cell<bool>,
}

/// What a request has shown of a permission.
pub enum Answer<T> {
    Allowed(T),
    Forbidden(Failure),
    /// It remains unknown.
    Failed(Failure),
}

pub fn answer<T>(result: Result<T, Failure>) -> Answer<T> {
    match result {
        Ok(value) => Answer::Allowed(value),
        Err(failure) if failure.says_forbidden() => Answer::Forbidden(failure),
        Err(failure) => Answer::Failed(failure),
    }
}

/// The same, if some failures prove the permission, because they come only after it was checked.
pub fn answer_unless(
    result: Result<(), Failure>,
    proves_permission: impl Fn(&Failure) -> bool,
) -> Answer<()> {
    match result {
        Err(failure) if proves_permission(&failure) => Answer::Allowed(()),
        result => answer(result),
    }
}

/// What is found of a permission. `level`: if it is missing. `consequence`: a clause that begins with `so`.
pub fn of_permission<T>(answer: Answer<T>, level: Level, action: &str, consequence: &str) -> Finding {
    match answer {
        Answer::Allowed(_) => Finding::ok(action, "permitted"),
        Answer::Forbidden(failure) => Finding::not_permitted(level, action, consequence, &failure),
        Answer::Failed(failure) => Finding::of_failure(Level::Warning, action, &failure),
    }
}

/// The parts of the key of a probe: host, process, name. A pool may be called `zfs2s3-probe-…`, but each key
/// of its backups has a slash after that.
fn parse<'a>(store_prefix: &str, key: &'a str) -> Option<(&'a str, u32)> {
    let hex = |word: &str| {
        let is_hex = word.len() == 8 && word.bytes().all(|b| b.is_ascii_hexdigit());
        is_hex.then(|| u32::from_str_radix(word, 16).ok()).flatten()
    };
    let mut words = key.strip_prefix(store_prefix)?.strip_prefix(MARK)?.split('-');
    let (host, process, name) = (words.next()?, hex(words.next()?)?, words.next()?);
    let is_probe = hex(host).is_some() && NAMES.contains(&name) && words.next().is_none();
    is_probe.then_some((host, process))
}

/// The prefix of all probes.
pub fn prefix(store_prefix: &str) -> String {
    format!("{store_prefix}{MARK}")
}

impl<'a> Probes<'a> {
    /// `owner`: the host and the data folder.
    pub fn new(
        client: &'a Client,
        bucket: &'a Bucket,
        store_prefix: &'a str,
        owner: &str,
        may_list: bool,
    ) -> Self {
        let host = Sha256::of(owner.as_bytes()).to_string()[..8].to_string();
        let stem = format!("{}{host}-{:08x}", prefix(store_prefix), std::process::id());
        Probes {
            client,
            bucket,
            store_prefix,
            of_host: host,
            stem,
            may_list,
            may_have_strays: Cell::new(false),
        }
    }

    /// The key of a probe of this process.
    pub fn key(&self, name: &str) -> String {
        format!("{}-{name}", self.stem)
    }

    fn is_own(&self, key: &str) -> bool {
        key.starts_with(&self.stem) && parse(self.store_prefix, key).is_some()
    }

    /// Deletes the probes of processes that have ended, and old ones of other hosts. `listed`: the objects
    /// below `prefix`.
    pub fn sweep(&self, listed: &[Object], now: Utc) -> Option<Finding> {
        let is_old = |time: &str| {
            Utc::lenient(time).is_ok_and(|time| now.unix_seconds() - time.unix_seconds() > A_DAY)
        };
        let is_left = |key: &str, time: &str| match parse(self.store_prefix, key) {
            Some((host, pid)) => (host == self.of_host && !process::may_be_running(pid)) || is_old(time),
            None => false,
        };
        let prefix = prefix(self.store_prefix);
        let uploads = self.client.list_uploads(&prefix).ok().flatten().unwrap_or_default();
        let uploads: Vec<&ListedUpload> = uploads
            .iter()
            .filter(|upload| is_left(&upload.key, upload.initiated.as_deref().unwrap_or_default()))
            .collect();
        let mut failures: Vec<Failure> = Vec::new();
        let mut left = uploads.len();
        for upload in uploads {
            failures.extend(self.client.abort_multipart_upload(&upload.key, &upload.upload_id).err());
        }
        let objects: Vec<&Object> =
            listed.iter().filter(|object| is_left(&object.key, &object.modified)).collect();
        match self.bucket.versions() {
            Versions::None => {
                left += objects.len();
                failures.extend(objects.iter().filter_map(|object| self.client.delete(&object.key).err()));
            }
            // a delete marker would hide it, and stay
            Versions::Unknown if objects.is_empty() => {}
            Versions::Unknown => {
                let probes = count(objects.len() as u64, "probe");
                return Some(
                    Finding::warning(CHECK, format!("left behind by an interrupted run: {probes}"))
                        .hint(self.by_hand(&prefix)),
                );
            }
            Versions::Kept => match self.client.list_versions(&prefix, |it| is_left(&it.key, &it.modified)) {
                Ok(versions) => {
                    left += versions.len();
                    let deleted =
                        versions.iter().map(|it| self.client.delete_version(&it.key, &it.version_id));
                    failures.extend(deleted.filter_map(Result::err));
                }
                Err(failure) if !objects.is_empty() => failures.push(failure),
                Err(_) => {}
            },
        }
        match failures.first() {
            Some(failure) => {
                Some(Finding::of_failure(Level::Warning, CHECK, failure).hint(self.by_hand(&prefix)))
            }
            None if left > 0 => Some(Finding::ok(CHECK, "deleted those that an interrupted run had left")),
            None => None,
        }
    }

    /// Deletes one object of this process.
    pub fn delete(&self, key: &str) -> Result<(), Failure> {
        if self.bucket.versions() == Versions::Kept {
            self.delete_versions()
        } else {
            self.client.delete(key)
        }
    }

    /// All versions and delete markers of this process.
    fn delete_versions(&self) -> Result<(), Failure> {
        for version in self.client.list_versions(&self.stem, |it| self.is_own(&it.key))? {
            self.client.delete_version(&version.key, &version.version_id)?;
        }
        Ok(())
    }

    /// Deletes what this process may have left, and finds out whether anything is there: `objects`, uploads
    /// whose begin was not confirmed, versions.
    pub fn clean_up(&self, objects: &[String]) -> Vec<Finding> {
        let mut findings = Vec::new();
        match self.client.list_uploads(&self.stem) {
            Ok(uploads) => {
                for upload in uploads.iter().flatten().filter(|upload| self.is_own(&upload.key)) {
                    let aborted = self.client.abort_multipart_upload(&upload.key, &upload.upload_id);
                    findings.extend(
                        aborted
                            .err()
                            .map(|failure| self.upload_left(&failure, &upload.key, &upload.upload_id)),
                    );
                }
            }
            Err(failure) if self.may_have_strays.get() => {
                findings
                    .push(Finding::of_failure(Level::Warning, CHECK, &failure).hint(
                        "an upload of this check may be left, because the reply to its begin was lost",
                    ));
            }
            Err(_) => {}
        }
        let mut failures: Vec<Failure> = Vec::new();
        if self.bucket.versions() == Versions::Kept {
            // without objects, this may not be permitted, and nothing is to be deleted
            failures.extend(self.delete_versions().err().filter(|_| !objects.is_empty()));
        } else {
            failures.extend(objects.iter().filter_map(|key| self.client.delete(key).err()));
        }
        let may_be_left = !objects.is_empty() && self.may_list;
        let listed = may_be_left.then(|| self.client.list_objects(&self.stem, |_| true));
        let finding = match (failures.first(), listed) {
            (Some(failure), _) => Finding::of_failure(Level::Warning, CHECK, failure),
            (None, Some(Ok(left))) if !left.is_empty() => {
                Finding::warning(CHECK, "one is still listed after its deletion")
            }
            _ => return findings,
        };
        findings.push(finding.hint(self.by_hand(&self.stem)));
        findings
    }

    /// An upload of this check could not be aborted.
    pub fn upload_left(&self, failure: &Failure, key: &str, upload_id: &str) -> Finding {
        Finding::of_failure(Level::Warning, CHECK, failure).hint(abort_multipart_upload(
            &self.client.endpoint().bucket,
            key,
            &one_line(upload_id),
        ))
    }

    pub fn by_hand(&self, prefix: &str) -> String {
        format!(
            "delete the leftover probes by hand, with all their versions: the keys that begin with '{prefix}'; they contain no backups"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::keys;

    #[test]
    fn only_the_keys_of_probes_are_those_of_probes() {
        for name in NAMES {
            let key = format!("nas/zfs2s3-probe-01234567-89abcdef-{name}");
            assert_eq!(parse("nas/", &key), Some(("01234567", 0x89ab_cdef)));
            assert!(parse("", &key).is_none() && keys::parse("nas/", &key).is_none());
        }
        for key in [
            // of pools with such a name
            "zfs2s3-probe-01234567-89abcdef-object@1/000000000000be3b-full-0000001f.zfs",
            "zfs2s3-probe-01234567-89abcdef-object/a@1/000000000000be3b-full-0000001f.yml",
            "zfs2s3-probe-01234567-89abcdef-object@1",
            "zfs2s3-probe-/a@1/000000000000be3b-full-0000001f.zfs",
            // of a store whose prefix is such a name
            "zfs2s3-probe-01234567-89abcdef-objectREADME.zfs2s3.txt",
            "zfs2s3-probe-01234567-89abcdef-object-",
            "zfs2s3-probe-01234567-89abcdef-other",
            "zfs2s3-probe-01234567-89abcdex-object",
            "zfs2s3-probe-01234567-+9abcdef-object",
            "zfs2s3-probe-01234567-object",
            "README.zfs2s3.txt",
        ] {
            assert_eq!(parse("", key), None, "{key}");
        }
    }
}
