//! Which permissions the credentials have, and what the server supports, found by harmless requests.
//!
//! Some of them need an object or a multipart upload of their own, a probe. Its key is no backup's. Nothing
//! is written unless it can be deleted without a trace: in a bucket whose credentials may not delete, or
//! that keeps versions which they may not delete, or that locks each object, no object is written, and what
//! only one could show is not checked. An open upload that cannot be aborted is reported.
//!
//! A doctor that is killed leaves its probes to the next one, which knows by the key that they are this
//! host's; those of other hosts it leaves alone for a day.

use std::cell::Cell;

use super::bucket::Bucket;
use super::report::{Finding, Level};
use crate::model::archive::{Archive, Tier};
use crate::model::copy::Id;
use crate::model::digest::Sha256;
use crate::model::storage_class::StorageClass;
use crate::model::utc::Utc;
use crate::s3::client::Client;
use crate::s3::failure::Failure;
use crate::s3::reply::{ListedUpload, Object};

/// How the keys of probes begin, after the prefix of the store.
const MARK: &str = "zfs2s3-probe-";
/// Seconds after which another host's probe is no longer in use.
const A_DAY: i64 = 86_400;

pub struct Probes<'a> {
    pub client: &'a Client,
    pub bucket: &'a Bucket,
    store_prefix: &'a str,
    /// That of all probes.
    pub prefix: String,
    /// That of this run, and of all runs of this host.
    stem: String,
    of_host: String,
    /// May these credentials list the bucket?
    may_list: bool,
    /// Set also by the reply to a PutObject, if the bucket could not be asked.
    keeps_versions: Cell<bool>,
}

/// What a probe request has shown of a permission.
pub enum Answer<T> {
    Allowed(T),
    Forbidden,
    Failed(Failure),
}

pub fn answer<T>(result: Result<T, Failure>) -> Answer<T> {
    match result {
        Ok(value) => Answer::Allowed(value),
        Err(failure) if failure.is_forbidden() => Answer::Forbidden,
        Err(failure) => Answer::Failed(failure),
    }
}

/// The names of probes, at the ends of their keys.
const NAMES: &[&str] = &["object", "upload", "locked", "whole", "absent"];

/// Is this the key of a probe? Only those are ever deleted. `prefix`: that of the store. A pool may be called
/// `zfs2s3-probe-…`, but each key of its backups has a slash after that.
fn is_probe(prefix: &str, key: &str) -> bool {
    let is_hex = |word: &str| word.len() == 8 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let rest = key.strip_prefix(prefix).and_then(|key| key.strip_prefix(MARK));
    let words: Option<Vec<&str>> = rest.map(|rest| rest.split('-').collect());
    matches!(words.as_deref(), Some([host, run, name]) if is_hex(host) && is_hex(run) && NAMES.contains(name))
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
        run: Id,
        may_list: bool,
    ) -> Self {
        let prefix = prefix(store_prefix);
        let host = Sha256::of(owner.as_bytes()).to_string();
        let of_host = format!("{prefix}{}-", &host[..8]);
        let keeps_versions = Cell::new(bucket.keeps_versions());
        let stem = format!("{of_host}{run}");
        Probes { client, bucket, store_prefix, stem, of_host, prefix, may_list, keeps_versions }
    }

    /// The key of a probe of this run.
    pub fn key(&self, name: &str) -> String {
        format!("{}-{name}", self.stem)
    }

    /// May a probe object be written? None: yes; else why not.
    pub fn why_not_write(&self, may_delete: bool, may_delete_versions: bool) -> Option<&'static str> {
        if self.bucket.locks_everything() {
            Some("the bucket protects each object from deletion")
        } else if self.bucket.keeps_versions() && !may_delete_versions {
            Some("its version could not be deleted")
        } else if !may_delete {
            Some("it could not be deleted")
        } else {
            None
        }
    }

    /// Deletes the probes of an earlier run of this host that was killed, and old ones of other hosts.
    /// `listed`: the objects below `prefix`.
    pub fn sweep(&self, listed: &[Object], now: Utc) -> Vec<Finding> {
        let is_old = |time: &str| {
            Utc::lenient(time).is_ok_and(|time| now.unix_seconds() - time.unix_seconds() > A_DAY)
        };
        let is_left = |key: &str, time: &str| {
            is_probe(self.store_prefix, key) && (key.starts_with(&self.of_host) || is_old(time))
        };
        let left: Vec<&str> = listed
            .iter()
            .filter(|object| is_left(&object.key, &object.modified))
            .map(|object| object.key.as_str())
            .collect();
        let uploads = self.client.list_uploads(&self.prefix).unwrap_or_default();
        let uploads: Vec<&ListedUpload> = uploads
            .iter()
            .filter(|upload| is_left(&upload.key, upload.initiated.as_deref().unwrap_or_default()))
            .collect();
        let versions = if self.keeps_versions.get() {
            let listed = self.client.list_versions(&self.prefix, |it| is_left(&it.key, &it.modified));
            listed.unwrap_or_default()
        } else {
            Vec::new()
        };
        if left.is_empty() && uploads.is_empty() && versions.is_empty() {
            return Vec::new();
        }
        let mut failures: Vec<Failure> = Vec::new();
        for upload in uploads {
            failures.extend(self.client.abort_multipart_upload(&upload.key, &upload.upload_id).err());
        }
        for version in &versions {
            failures.extend(self.client.delete_version(&version.key, &version.version_id).err());
        }
        if versions.is_empty() {
            failures.extend(left.iter().filter_map(|key| self.client.delete(key).err()));
        }
        vec![match failures.first() {
            None => Finding::ok("probes", "those of an interrupted doctor are deleted"),
            Some(failure) => Finding::of_failure(Level::Warning, "probes", failure)
                .hint(format!("delete what begins with '{}' by hand", self.prefix)),
        }]
    }

    /// Deletes what this run has made, and finds out whether anything is left.
    pub fn clean_up(&self, made: &[String]) -> Option<Finding> {
        let mut failures: Vec<Failure> =
            made.iter().filter_map(|key| self.client.delete(key).err()).collect();
        if self.keeps_versions.get() {
            match self.client.list_versions(&self.stem, |it| is_probe(self.store_prefix, &it.key)) {
                Ok(versions) => {
                    let deleted =
                        versions.iter().map(|it| self.client.delete_version(&it.key, &it.version_id));
                    failures.extend(deleted.filter_map(Result::err));
                }
                Err(failure) => failures.push(failure),
            }
        }
        let listed =
            if self.may_list { self.client.list_objects(&self.stem, |_| true) } else { Ok(Vec::new()) };
        let left = listed.as_ref().is_ok_and(|objects| !objects.is_empty());
        let finding = match (failures.first(), left) {
            (None, false) => return None,
            (Some(failure), _) => Finding::of_failure(Level::Warning, "probes", failure),
            (None, true) => Finding::warning("probes", "a probe is still there after it was deleted"),
        };
        Some(finding.hint(format!("delete what begins with '{}' by hand", self.stem)))
    }

    /// Which permission to delete these credentials have: objects, and versions. A key without an object, and
    /// a condition that it cannot meet, so that nothing is deleted, and no delete marker is made.
    pub fn deletion(&self, findings: &mut Vec<Finding>) -> (bool, bool) {
        let versions = !self.bucket.keeps_versions() || self.may_delete_versions(findings);
        if self.bucket.keeps_versions() && !versions && !self.client.endpoint().is_aws() {
            findings.push(Finding::warning(
                "s3:DeleteObject",
                "not checked, because the server could make a delete marker, which could not be deleted",
            ));
            return (false, false);
        }
        let key = self.key("absent");
        let reply = match self.client.delete_if_match(&key, "\"zfs2s3\"") {
            // S3 says that there is no such object, or that its ETag differs
            Err(failure) if failure.is_missing() || failure.status == Some(412) => Ok(()),
            Err(failure) if failure.is_not_supported() || failure.has_no_such_call() => {
                self.client.delete(&key)
            }
            reply => reply,
        };
        match answer(reply) {
            Answer::Forbidden => {
                findings.push(
                    Finding::warning(
                        "s3:DeleteObject",
                        "not permitted, so 'remove' fails, and 'abort_upload' leaves objects behind",
                    )
                    .hint("allow it, unless this host is only meant to add backups"),
                );
                (false, versions)
            }
            Answer::Failed(failure) => {
                findings.push(Finding::of_failure(Level::Warning, "s3:DeleteObject", &failure));
                (false, versions)
            }
            Answer::Allowed(()) => {
                findings.push(Finding::ok("s3:DeleteObject", "permitted"));
                (true, versions)
            }
        }
    }

    fn may_delete_versions(&self, findings: &mut Vec<Finding>) -> bool {
        const ACTION: &str = "s3:DeleteObjectVersion";
        match answer(self.client.delete_version(&self.key("absent"), "null")) {
            Answer::Forbidden => {
                findings.push(Finding::ok(
                    ACTION,
                    "not permitted: this host cannot delete what the bucket keeps of removed backups",
                ));
                false
            }
            _ => {
                findings.push(Finding::ok(ACTION, "permitted"));
                true
            }
        }
    }

    /// May versions be listed? `recover` names with them what was deleted.
    pub fn version_listing(&self) -> Option<Finding> {
        const ACTION: &str = "s3:ListBucketVersions";
        if !self.bucket.keeps_versions() {
            return None;
        }
        Some(match answer(self.client.list_versions(&self.stem, |it| is_probe(self.store_prefix, &it.key))) {
            Answer::Allowed(_) => Finding::ok(ACTION, "permitted"),
            Answer::Forbidden => Finding::not_permitted(
                Level::Warning,
                ACTION,
                "so 'recover' and 'verify' cannot name what a delete marker hides",
            ),
            Answer::Failed(failure) => Finding::of_failure(Level::Warning, ACTION, &failure),
        })
    }
}

/// The checks of an object that was written.
impl Probes<'_> {
    /// PutObject, GetObject, and what depends on them. Returns the keys that may exist now.
    pub fn object(&self, archives: Option<&StorageClass>, findings: &mut Vec<Finding>) -> Vec<String> {
        let key = self.key("object");
        let body = b"written by 'zfs2s3 doctor', and deleted at its end\n";
        match answer(self.client.put_probe(&key, body, false)) {
            Answer::Forbidden => findings.push(not_put()),
            Answer::Failed(failure) => {
                findings.push(Finding::of_failure(Level::Error, "s3:PutObject", &failure));
            }
            Answer::Allowed(version) => {
                if version.is_some_and(|version| version != "null") {
                    self.keeps_versions.set(true);
                }
                findings.push(Finding::ok("s3:PutObject", "permitted"));
                self.read(&key, body, findings);
                findings.extend(self.object_lock(&key));
                findings.extend(archives.and_then(|class| self.thawing(&key, class)));
                findings.push(self.conditional_write(&key));
                findings.push(self.conditional_delete(&key));
            }
        }
        vec![key]
    }

    fn read(&self, key: &str, body: &[u8], findings: &mut Vec<Finding>) {
        findings.push(match answer(self.client.get(key, 1024)) {
            Answer::Allowed(read) if read == body => Finding::ok("s3:GetObject", "permitted"),
            Answer::Allowed(_) => {
                Finding::error("s3:GetObject", "the server returns something else than was written")
            }
            Answer::Forbidden => not_read(),
            Answer::Failed(failure) => Finding::of_failure(Level::Error, "s3:GetObject", &failure),
        });
    }

    /// May objects be read, if none can be written? `key`: one that may exist.
    pub fn reading(&self, key: &str) -> Finding {
        match self.client.may_read(key) {
            Ok(Ok(())) => Finding::ok("s3:GetObject", "permitted"),
            Ok(Err(_)) => not_read(),
            Err(failure) => Finding::of_failure(Level::Error, "s3:GetObject", &failure),
        }
    }

    /// With If-None-Match, a second PutObject must be refused.
    fn conditional_write(&self, key: &str) -> Finding {
        const CHECK: &str = "If-None-Match";
        match self.client.put_probe(key, b"again\n", true) {
            Err(failure) if failure.status == Some(412) => Finding::ok(CHECK, "honored"),
            Err(failure) if failure.is_not_supported() || failure.has_no_such_call() => {
                Finding::ok(CHECK, "not supported, which does no harm: no key is used twice")
            }
            Err(failure) => Finding::of_failure(Level::Warning, CHECK, &failure),
            Ok(_) => Finding::ok(CHECK, "ignored, which does no harm: no key is used twice"),
        }
    }

    /// With If-Match and another ETag, DeleteObject must be refused.
    fn conditional_delete(&self, key: &str) -> Finding {
        const CHECK: &str = "If-Match";
        let deletes = "so 'remove' deletes an object even if another program has just replaced it";
        let hint = "let no other program write below the prefix";
        match self.client.delete_if_match(key, "\"zfs2s3\"") {
            Err(failure) if failure.status == Some(412) => Finding::ok(CHECK, "honored by DeleteObject"),
            Err(failure) if failure.is_not_supported() || failure.has_no_such_call() => {
                Finding::warning(CHECK, format!("not supported by DeleteObject, {deletes}")).hint(hint)
            }
            Err(failure) => Finding::of_failure(Level::Warning, CHECK, &failure),
            Ok(()) => Finding::warning(CHECK, format!("ignored by DeleteObject, {deletes}")).hint(hint),
        }
    }

    /// May Object Locks be seen?
    fn object_lock(&self, key: &str) -> Vec<Finding> {
        if !self.bucket.has_lock() {
            return Vec::new();
        }
        let ask = |(action, name)| match self.client.read_lock(key, name) {
            Err(failure) if failure.says_forbidden() => Finding::not_permitted(
                Level::Warning,
                action,
                "so 'remove' does not see what protects an object, and only hides it",
            ),
            // that there is none is an error of its own
            _ => Finding::ok(action, "permitted"),
        };
        [("s3:GetObjectRetention", "retention"), ("s3:GetObjectLegalHold", "legal-hold")].map(ask).to_vec()
    }

    /// May objects be thawed? One that is not archived is refused, but for another reason.
    fn thawing(&self, key: &str, class: &StorageClass) -> Option<Finding> {
        const ACTION: &str = "s3:RestoreObject";
        let archive = Archive::of(Some(class), None)?;
        Some(match self.client.restore_object(key, archive, Tier::Bulk, 1) {
            Err(failure) if failure.says_forbidden() => Finding::not_permitted(
                Level::Error,
                ACTION,
                "so 'thaw' and 'restore -w' fail, and archived backups cannot be restored",
            ),
            Err(failure) if failure.is_no_call_of_the_server() => Finding::warning(
                ACTION,
                format!("this server cannot thaw objects; are those in {class} readable?"),
            )
            .hint("restore one now, to be sure"),
            _ => Finding::ok(ACTION, "permitted"),
        })
    }
}

pub fn not_put() -> Finding {
    Finding::not_permitted(Level::Error, "s3:PutObject", "so nothing can be stored")
}

fn not_read() -> Finding {
    Finding::not_permitted(Level::Error, "s3:GetObject", "so nothing can be restored or verified")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::keys;

    #[test]
    fn only_the_keys_of_probes_are_those_of_probes() {
        for name in NAMES {
            let key = format!("nas/zfs2s3-probe-01234567-89abcdef-{name}");
            assert!(is_probe("nas/", &key));
            assert!(!is_probe("", &key) && keys::parse("nas/", &key).is_none());
        }
        for key in [
            // of pools with such a name
            "zfs2s3-probe-01234567-89abcdef-object@1/000000000000be3b-full-0000001f.zfs",
            "zfs2s3-probe-01234567-89abcdef-object/a@1/000000000000be3b-full-0000001f.yml",
            "zfs2s3-probe-01234567-89abcdef-object@1",
            "zfs2s3-probe-/a@1/000000000000be3b-full-0000001f.zfs",
            // of a store whose prefix is such a name
            "zfs2s3-probe-01234567-89abcdef-objectREADME.zfs2s3.txt",
            "zfs2s3-probe-01234567-89abcdef-other",
            "zfs2s3-probe-01234567-89abcdex-object",
            "zfs2s3-probe-01234567-object",
            "README.zfs2s3.txt",
        ] {
            assert!(!is_probe("", key), "{key}");
        }
    }
}
