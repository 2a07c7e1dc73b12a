//! What the server makes of multipart uploads: the permissions, the sums, the lists, the number of parts.

use super::objects::not_put;
use super::probes::{Answer, Probes, answer, answer_unless, of_permission};
use super::report::{Finding, Level};
use crate::aws::endpoint::Protection;
use crate::config::UploadSettings;
use crate::model::chunks::{Chunking, MAX_PARTS, MIN_CHUNK};
use crate::model::digest::Sha256;
use crate::model::object_lock::Retention;
use crate::model::storage_class::StorageClass;
use crate::model::units::human_size;
use crate::os::clock;
use crate::s3::calls::{CompletedPart, MultipartUpload, Parts, WrongSum};
use crate::s3::failure::{Failure, FailureKind};

const BODY: &[u8] = b"a part of 'zfs2s3 doctor'\n";

/// The check whose success says that open uploads can be listed.
pub const LIST_UPLOADS: &str = "s3:ListBucketMultipartUploads";
const ABORT: &str = "s3:AbortMultipartUpload";
const UPLOAD: &str = "multipart upload";
const BY_LIFECYCLE: &str =
    "a lifecycle rule with AbortIncompleteMultipartUpload can abort uploads after a month or later";

impl Probes<'_> {
    /// Begins an upload as `upload` would, learns from it, and aborts it; unless it would stay.
    pub fn multipart(&self, settings: &UploadSettings, findings: &mut Vec<Finding>) {
        if !self.may_abort(findings) {
            return;
        }
        let key = self.key("upload");
        let class = &settings.storage_class;
        let begun = self.begin(&key, class, None);
        let (id, checksums) = match answer(begun) {
            Answer::Allowed(begun) => begun,
            Answer::Forbidden(failure) => return findings.push(not_put(&failure)),
            Answer::Failed(failure) => {
                return findings.push(Finding::of_failure(Level::Error, UPLOAD, &failure));
            }
        };
        findings.push(Finding::ok(UPLOAD, format!("begun in the storage class {class}")));
        let upload = MultipartUpload { key: &key, upload_id: &id, checksums };
        match self.put_part(upload, 1) {
            Ok(_) => {
                findings.push(self.wrong_sums(upload));
                let chunking = settings.chunking.for_stream(&self.client.endpoint().url, None, false);
                findings.push(self.number_of_parts(upload, chunking));
                findings.push(self.list_of_parts(upload));
            }
            Err(failure) => findings.push(Finding::of_failure(Level::Error, UPLOAD, &failure)),
        }
        findings.push(self.list_of_uploads(upload));
        let aborted = self.client.abort_multipart_upload(upload.key, upload.upload_id);
        findings.extend(aborted.err().map(|failure| self.upload_left(&failure, &key, &id)));
        if self.bucket.has_lock() {
            findings.push(self.locking(settings));
        }
    }

    /// May uploads be aborted? One that there is not is refused, but for another reason.
    fn may_abort(&self, findings: &mut Vec<Finding>) -> bool {
        let reply = self.client.abort_multipart_upload(&self.key("absent"), "zfs2s3-absent");
        // not each server says that there is no such upload in the words of S3
        let is_about_the_upload = |failure: &Failure| {
            matches!(failure.status, Some(400..=499))
                && !failure.code.is_empty()
                && !failure.is_forbidden()
                && !failure.is_no_call_of_the_server()
        };
        let (finding, is_permitted) = match answer_unless(reply.map(|_| ()), is_about_the_upload) {
            Answer::Forbidden(failure) => {
                let consequence = "so unfinished uploads stay in the bucket and are billed";
                let finding = Finding::not_permitted(Level::Warning, ABORT, consequence, &failure);
                findings.push(finding.hint(BY_LIFECYCLE));
                let why = "not checked, because the upload of this check could not be aborted";
                (Finding::warning(UPLOAD, why).hint(format!("allow {ABORT}")), false)
            }
            Answer::Allowed(()) => (Finding::ok(ABORT, "permitted"), true),
            Answer::Failed(failure) => {
                let finding = Finding::of_failure(Level::Warning, ABORT, &failure);
                (finding.hint("unfinished uploads may stay in the bucket"), false)
            }
        };
        findings.push(finding);
        is_permitted
    }

    fn begin(
        &self,
        key: &str,
        class: &StorageClass,
        lock: Option<Retention>,
    ) -> Result<(String, bool), Failure> {
        let mut repeated = false;
        let begun = self.client.create_multipart_upload(key, class, lock, &mut repeated);
        if repeated {
            self.may_have_strays.set(true);
        }
        begun
    }

    /// Returns the ETag.
    fn put_part(&self, upload: MultipartUpload, number: u16) -> Result<String, Failure> {
        self.client.upload_part(upload, number, BODY, Sha256::of(BODY), &|_| {})
    }

    /// A part that was damaged in transit must be refused, by one of the two sums that it has.
    fn wrong_sums(&self, upload: MultipartUpload) -> Finding {
        const CHECK: &str = "SHA-256";
        let is_refused = |which| match self.client.upload_part_with_wrong_sum(upload, 2, BODY, which) {
            Ok(()) => Ok(false),
            Err(failure) if failure.is_of_wrong_sum() => Ok(true),
            Err(failure) => Err(failure),
        };
        let (signed, checksum) = match (
            is_refused(WrongSum::Signed),
            if upload.checksums { is_refused(WrongSum::Checksum) } else { Ok(false) },
        ) {
            (Ok(signed), Ok(checksum)) => (signed, checksum),
            (Err(failure), _) | (_, Err(failure)) => {
                return Finding::of_failure(Level::Warning, CHECK, &failure);
            }
        };
        match (signed, checksum) {
            (true, _) => Finding::ok(CHECK, "a part that was damaged in transit is refused"),
            (false, true) => {
                Finding::ok(CHECK, "a part that was damaged in transit is refused because of its checksum")
            }
            (false, false) => {
                let message = "the server accepts a part whose SHA-256 is wrong";
                let finding = match self.client.endpoint().protection() {
                    Protection::Tls => {
                        Finding::warning(CHECK, format!("{message}, so only TLS protects data in transit"))
                    }
                    Protection::SameHost => Finding::warning(CHECK, message),
                    Protection::None => {
                        Finding::error(CHECK, format!("{message}, so damage in transit is not noticed"))
                            .hint("use https")
                    }
                };
                finding.hint("run 'zfs2s3 verify -D' after uploads, which reads all of them")
            }
        }
    }

    /// How many parts may an upload have?
    fn number_of_parts(&self, upload: MultipartUpload, chunking: Chunking) -> Finding {
        const CHECK: &str = "parts";
        let accepts = |number: u16| match self.put_part(upload, number) {
            Ok(_) => Ok(true),
            Err(failure) if failure.refuses_part_number() || failure.is_not_supported() => Ok(false),
            Err(failure) => Err(failure),
        };
        let highest = match accepts(MAX_PARTS as u16) {
            Ok(true) => Ok(MAX_PARTS as u16),
            Ok(false) => highest_accepted(MAX_PARTS as u16, accepts),
            Err(failure) => Err(failure),
        };
        match highest {
            Ok(highest) if highest >= chunking.parts_per_segment => {
                Finding::ok(CHECK, format!("up to {highest} in an upload"))
            }
            Ok(highest) => {
                let size = human_size(u64::from(highest) * chunking.chunk_size);
                Finding::error(
                    CHECK,
                    format!(
                        "the server accepts at most {highest} in an upload, so a stream of more than {size} fails"
                    ),
                )
                .hint(format!("set ZFS2S3_PARTS={highest}"))
            }
            Err(failure) => Finding::of_failure(Level::Warning, CHECK, &failure),
        }
    }

    fn list_of_parts(&self, upload: MultipartUpload) -> Finding {
        const ACTION: &str = "s3:ListMultipartUploadParts";
        match answer(self.client.list_parts(upload)) {
            Answer::Allowed(Parts::Listed(parts)) if parts.iter().any(|part| part.part_number == 1) => {
                Finding::ok(ACTION, "permitted")
            }
            Answer::Allowed(Parts::NoSuchUpload) => {
                Finding::warning(ACTION, "not checked, because another program has aborted the upload")
                    .hint("run it again")
            }
            Answer::Allowed(Parts::Listed(_)) => {
                Finding::error(ACTION, "the list of parts lacks one that was just sent")
                    .hint("zfs2s3 needs a server that is strongly consistent, as S3 is")
            }
            Answer::Allowed(Parts::NotSupported(_)) => Finding::warning(
                ACTION,
                "not supported by this server, so an interrupted upload sends its last segment again",
            )
            .hint("a smaller ZFS2S3_PARTS makes segments shorter"),
            answer => of_permission(
                answer,
                Level::Error,
                ACTION,
                "so an interrupted upload cannot be resumed, only aborted",
            ),
        }
    }

    fn list_of_uploads(&self, upload: MultipartUpload) -> Finding {
        let consequence =
            "so uploads that other hosts have left unfinished are not seen, and their parts are billed";
        match answer(self.client.list_uploads(upload.key)) {
            Answer::Allowed(uploads)
                if uploads.iter().flatten().any(|it| it.upload_id == upload.upload_id) =>
            {
                Finding::ok(LIST_UPLOADS, "permitted")
            }
            Answer::Allowed(_) => Finding::warning(
                LIST_UPLOADS,
                format!("this server does not list open uploads, {consequence}"),
            )
            .hint(BY_LIFECYCLE),
            answer => of_permission(answer, Level::Warning, LIST_UPLOADS, consequence),
        }
    }

    /// May uploads be protected by an Object Lock? An upload that is aborted protects nothing.
    fn locking(&self, settings: &UploadSettings) -> Finding {
        const ACTION: &str = "s3:PutObjectRetention";
        // the policy of the bucket may allow only some times
        let Some(until) = clock::now().plus_days(settings.lock_days.unwrap_or(1)) else {
            return Finding::warning(ACTION, "not checked, because the clock is out of range");
        };
        let lock = Some(Retention { mode: settings.lock_mode, until });
        let level = if settings.lock_days.is_some() { Level::Error } else { Level::Warning };
        let (key, class) = (self.key("locked"), &settings.storage_class);
        match answer(self.begin(&key, class, lock)) {
            Answer::Allowed((id, _)) => match self.client.abort_multipart_upload(&key, &id) {
                Ok(_) => Finding::ok(ACTION, "permitted"),
                Err(failure) => self.upload_left(&failure, &key, &id),
            },
            Answer::Forbidden(failure) => {
                Finding::not_permitted(level, ACTION, "so uploads with -l or ZFS2S3_LOCK_DAYS fail", &failure)
            }
            Answer::Failed(failure) => Finding::of_failure(level, ACTION, &failure),
        }
    }

    /// Does the server keep the composite SHA-256 of an object?
    pub fn checksums(&self, key: &str) -> Finding {
        let kept = self.completed(key, &[BODY]).map(|()| self.client.head(key));
        match kept {
            Ok(Ok(Some(head))) if head.checksum.is_some() => Finding::ok(
                "checksums",
                "the server keeps the SHA-256 of an object, and 'verify' compares it",
            ),
            Ok(Ok(Some(_))) => Finding::ok(
                "checksums",
                "the server keeps no SHA-256; 'verify' compares sizes and ETags, and -s or -D reads objects",
            ),
            Ok(Ok(None)) => Finding::error("checksums", "an object that was just completed is not there"),
            Ok(Err(failure)) | Err(failure) => Finding::of_failure(Level::Warning, "checksums", &failure),
        }
    }

    /// A filter that compresses makes such parts.
    pub fn parts_of_different_sizes(&self, key: &str) -> Finding {
        const CHECK: &str = "parts of different sizes";
        let body = vec![0; MIN_CHUNK as usize + (1 << 20)];
        match self.completed(key, &[&body[..MIN_CHUNK as usize], &body, BODY]) {
            Ok(()) => Finding::ok(CHECK, "accepted"),
            Err(failure) if failure.kind == FailureKind::Final => {
                let why =
                    format!("refused, so compressed backups of several parts fail: {}", failure.describe());
                Finding::warning(CHECK, why).hint(
                    "only encrypt, since that keeps the sizes equal; or set ZFS2S3_CHUNK_SIZE to more than the largest stream",
                )
            }
            Err(failure) => Finding::of_failure(Level::Warning, CHECK, &failure),
        }
    }

    fn completed(&self, key: &str, bodies: &[&[u8]]) -> Result<(), Failure> {
        let (id, checksums) = self.begin(key, &StorageClass::standard(), None)?;
        let upload = MultipartUpload { key, upload_id: &id, checksums };
        let parts = (1..).zip(bodies).map(|(number, body)| {
            let sha256 = Sha256::of(body);
            let etag = self.client.upload_part(upload, number, body, sha256, &|_| {})?;
            Ok((number, etag, sha256))
        });
        let completed = parts.collect::<Result<Vec<_>, Failure>>().and_then(|parts| {
            let pieces: Vec<CompletedPart> =
                parts.iter().map(|(number, etag, sha256)| (*number, etag.as_str(), *sha256)).collect();
            self.client.complete_multipart_upload_once(upload, &pieces)
        });
        if completed.is_err() {
            // the abort of the first upload has shown whether this is permitted
            let _ = self.client.abort_multipart_upload(key, &id);
        }
        completed.map(|_| ())
    }
}

/// The highest part number below `refused` that is accepted.
fn highest_accepted(refused: u16, accepts: impl Fn(u16) -> Result<bool, Failure>) -> Result<u16, Failure> {
    let (mut accepted, mut refused) = (1, refused);
    while refused - accepted > 1 {
        let middle = accepted + (refused - accepted) / 2;
        if accepts(middle)? { accepted = middle } else { refused = middle }
    }
    Ok(accepted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_part_number_is_found() {
        for limit in [1, 2, 999, 1000, 9_999] {
            assert_eq!(highest_accepted(10_000, |number| Ok(number <= limit)).unwrap(), limit);
        }
    }
}
