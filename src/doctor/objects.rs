//! What can be done with an object: written, read, thawed; and what the server makes of conditions.

use super::bucket::Versions;
use super::probes::{Answer, Probes, answer, answer_unless, of_permission};
use super::report::{Finding, Level};
use crate::model::archive::{Archive, Tier};
use crate::model::storage_class::StorageClass;
use crate::s3::failure::Failure;

const PUT: &str = "s3:PutObject";
const GET: &str = "s3:GetObject";
const BODY: &[u8] = b"written by 'zfs2s3 doctor', and deleted at its end\n";

/// Error codes of RestoreObject for an object that is not archived.
const NOT_ARCHIVED: &[&str] = &[
    "InvalidObjectState",
    "ObjectAlreadyInActiveTierError",
    "RestoreAlreadyInProgress",
    "ObjectNotInArchive",
];

/// Error codes of GetObject that are not about permissions: it is archived, gone meanwhile, or empty.
const READABLE: &[&str] = &["InvalidObjectState", "NoSuchKey", "InvalidRange"];

/// What the probe object has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    No,
    Yes,
    /// The reply names a version, in a bucket that is said to keep none.
    AsVersion,
}

impl Probes<'_> {
    /// PutObject, GetObject, and what depends on them. `archive`: a class in use that must be thawed.
    pub fn object(&self, key: &str, archive: Option<&StorageClass>, findings: &mut Vec<Finding>) -> Written {
        let version = match answer(self.client.put_probe(key, BODY, false)) {
            Answer::Allowed(version) => version.filter(|version| version != "null"),
            Answer::Forbidden(failure) => {
                findings.push(not_put(&failure));
                return Written::No;
            }
            Answer::Failed(failure) => {
                findings.push(Finding::of_failure(Level::Error, PUT, &failure));
                return Written::No;
            }
        };
        findings.push(Finding::ok(PUT, "permitted"));
        if let Some(version) = version.filter(|_| self.bucket.versions() == Versions::None) {
            // the bucket has changed, or the server has misinformed: this is all that is written
            let deleted = self.client.delete_version(key, &version);
            findings.extend(deleted.err().map(|failure| {
                Finding::of_failure(Level::Warning, "probes", &failure).hint(self.by_hand(key))
            }));
            return Written::AsVersion;
        }
        self.read(key, findings);
        findings.extend(self.object_lock(key));
        findings.extend(archive.and_then(|class| self.thawing(key, class)));
        findings.push(self.conditional_write(key));
        findings.push(self.conditional_delete(key));
        Written::Yes
    }

    fn read(&self, key: &str, findings: &mut Vec<Finding>) {
        findings.push(match answer(self.client.get(key, 1024)) {
            Answer::Allowed(read) if read == BODY => Finding::ok(GET, "permitted"),
            Answer::Allowed(_) => {
                Finding::error(GET, "the server returns something other than what was written")
                    .hint("do not use this server")
            }
            Answer::Forbidden(failure) => not_read(&failure),
            Answer::Failed(failure) => Finding::of_failure(Level::Error, GET, &failure),
        });
    }

    /// May objects be read, if none can be written? `listed`: the key of one that is there.
    pub fn reading(&self, listed: Option<&str>) -> Finding {
        let Some(key) = listed else {
            return Finding::warning(GET, "not checked, because no object is known that could be read")
                .hint("run 'zfs2s3 doctor' again once a backup is stored");
        };
        let is_about_the_object = |failure: &Failure| READABLE.contains(&failure.code.as_str());
        match answer_unless(self.client.read_first_byte(key), is_about_the_object) {
            Answer::Allowed(()) => Finding::ok(GET, "permitted"),
            Answer::Forbidden(failure) => not_read(&failure),
            Answer::Failed(failure) => Finding::of_failure(Level::Error, GET, &failure),
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
        match self.client.delete_probe(key, Some("\"zfs2s3\"")) {
            Err(failure) if failure.status == Some(412) => Finding::ok(CHECK, "honored by DeleteObject"),
            Err(failure) if failure.is_not_supported() || failure.has_no_such_call() => {
                Finding::warning(CHECK, format!("not supported by DeleteObject, {deletes}")).hint(hint)
            }
            Err(failure) => Finding::of_failure(Level::Warning, CHECK, &failure),
            Ok(_) => Finding::warning(CHECK, format!("ignored by DeleteObject, {deletes}")).hint(hint),
        }
    }

    /// May Object Locks be seen?
    fn object_lock(&self, key: &str) -> Vec<Finding> {
        if !self.bucket.has_lock() {
            return Vec::new();
        }
        // that there is none is an error of its own, with another code on each server
        let has_none = |failure: &Failure| failure.has_no_such_call() && failure.status == Some(404);
        let consequence = "so 'remove' does not see what protects an object, and only hides it";
        let ask = |(action, name)| {
            let answer = answer_unless(self.client.read_lock(key, name), has_none);
            of_permission(answer, Level::Warning, action, consequence)
        };
        [("s3:GetObjectRetention", "retention"), ("s3:GetObjectLegalHold", "legal-hold")].map(ask).to_vec()
    }

    /// May objects be thawed? One that is not archived is refused, but for another reason.
    fn thawing(&self, key: &str, class: &StorageClass) -> Option<Finding> {
        const ACTION: &str = "s3:RestoreObject";
        let archive = Archive::of(Some(class), None)?;
        let thawed = self.client.restore_object(key, archive, Tier::Bulk, 1).map(|_| ());
        let answer = answer_unless(thawed, |failure| NOT_ARCHIVED.contains(&failure.code.as_str()));
        let is_unknown = matches!(answer, Answer::Failed(_));
        let consequence = "so 'thaw' and 'restore -w' fail, and archived backups cannot be restored";
        let finding = of_permission(answer, Level::Error, ACTION, consequence);
        Some(if is_unknown {
            finding.hint(format!(
                "this server may not be able to thaw objects: restore a backup in {class} now, to be sure"
            ))
        } else {
            finding
        })
    }
}

pub fn not_put(failure: &Failure) -> Finding {
    Finding::not_permitted(Level::Error, PUT, "so nothing can be stored", failure)
}

fn not_read(failure: &Failure) -> Finding {
    Finding::not_permitted(Level::Error, GET, "so nothing can be restored or verified", failure)
}
