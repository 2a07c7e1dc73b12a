//! The calls for one object.

use std::sync::atomic::AtomicBool;

use super::{Head, Result, Thawing, hint_data, hint_lock, lock_headers, unexpected_reply};
use crate::model::archive::{Access, Archive, Tier, parse_restore};
use crate::model::digest::Sha256;
use crate::model::manifest::text::{CheckedManifest, ManifestReader};
use crate::model::manifest::{ManifestError, max_len};
use crate::model::object_lock::{ObjectLock, Retention};
use crate::model::storage_class::StorageClass;
use crate::model::traffic::Meter;
use crate::model::utc::Utc;
use crate::s3::client::Client;
use crate::s3::dialect::Extra;
use crate::s3::failure::{Failure, FailureKind};
use crate::s3::request::Request;

/// GetObject of the first byte. Its reply says why an object cannot be read; a reply to HEAD has no body.
pub(super) fn first_byte(key: &str) -> Request<'_> {
    Request::new("GET", key).header("range", "bytes=0-0").at_most(64 << 10)
}

fn may_not_read(mut failure: Failure) -> Failure {
    failure.message = format!("these credentials may not read objects: {}", failure.message);
    failure.hints = vec!["allow s3:GetObject: checking and restoring backups needs it".to_string()];
    failure
}

impl Client {
    /// HeadObject; none: no such object.
    pub fn head(&self, key: &str) -> Result<Option<Head>> {
        let request =
            Request::new("HEAD", key).extra_header(Extra::ChecksumMode, "x-amz-checksum-mode", "ENABLED");
        let reply = match self.send(&request) {
            Err(failure) if failure.is_missing() => return Ok(None),
            Err(failure) if matches!(failure.status, Some(400 | 403)) && self.had_expired(key) => {
                self.send(&request)?
            }
            reply => reply?,
        };
        let size = reply.header("content-length").and_then(|text| text.parse().ok());
        Ok(Some(Head {
            size: size.ok_or_else(|| {
                unexpected_reply("HEAD", key, "the reply has no Content-Length".to_string())
            })?,
            etag: reply.header("etag").unwrap_or_default().to_string(),
            checksum: reply.header("x-amz-checksum-sha256").map(str::to_string),
            modified: reply.header("last-modified").and_then(|text| Utc::from_http(text).ok()),
            storage_class: reply.header("x-amz-storage-class").map(StorageClass::of),
            restore: reply.header("x-amz-restore").map(str::to_string),
            archive_status: reply.header("x-amz-archive-status").map(str::to_string),
            lock: ObjectLock::of(
                reply.header("x-amz-object-lock-mode"),
                reply.header("x-amz-object-lock-retain-until-date"),
                reply.header("x-amz-object-lock-legal-hold"),
            ),
        }))
    }

    /// Did HEAD fail because the credentials have expired? Its reply has no body to say so, but a reply to
    /// GET has, and it makes the client renew them.
    fn had_expired(&self, key: &str) -> bool {
        if !self.can_renew() {
            return false;
        }
        let before = self.renewals();
        let _ = self.send_once(&first_byte(key));
        self.renewals() != before
    }

    /// HEAD that only asks whether an object exists. Without s3:ListBucket, S3 answers "forbidden" for a
    /// missing object; with it, for one that may not be read.
    pub fn head_if_allowed(&self, key: &str) -> Result<Option<Head>> {
        match self.head(key) {
            Err(failure) if failure.is_forbidden() => match self.is_listed(key)? {
                Some(true) => Err(may_not_read(failure)),
                _ => Ok(None),
            },
            head => head,
        }
    }

    /// May objects be read? If listing is allowed, S3 answers this also for the key of a missing object.
    pub fn may_read(&self, key: &str) -> Result<Result<(), Failure>> {
        match self.send(&first_byte(key)) {
            Err(failure) if failure.says_forbidden() => Ok(Err(may_not_read(failure))),
            // any other answer means that reading is allowed
            Err(failure) if failure.kind == FailureKind::Transient => Err(failure),
            _ => Ok(Ok(())),
        }
    }

    /// Can this object be read now? Where its class may be an archive, a GET decides: on other servers than
    /// AWS a class of this name may be an ordinary one.
    pub fn access(&self, key: &str, head: &Head) -> Result<Access> {
        let archive = Archive::of(head.storage_class.as_ref(), head.archive_status.as_deref());
        let Some(archive) = archive.filter(|_| head.size > 0) else { return Ok(Access::Immediate) };
        let (ongoing, until) = head.restore.as_deref().map_or((false, None), parse_restore);
        match self.send(&first_byte(key)) {
            Err(failure) if failure.code == "InvalidObjectState" && ongoing => Ok(Access::Thawing(archive)),
            Err(failure) if failure.code == "InvalidObjectState" => Ok(Access::Archived(archive)),
            Err(failure) if failure.kind == FailureKind::Transient => Err(failure),
            _ if head.restore.is_some() => Ok(Access::Copy { archive, until }),
            // other failures will show when the object is read
            _ => Ok(Access::Immediate),
        }
    }

    /// RestoreObject: thaws an archived object. `days`: how long the copy is kept.
    pub fn restore_object(&self, key: &str, archive: Archive, tier: Tier, days: u32) -> Result<Thawing> {
        let days = if archive.makes_copies() { format!("<Days>{days}</Days>") } else { String::new() };
        let xml = format!(
            "<RestoreRequest xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{days}<GlacierJobParameters><Tier>{}</Tier>\
             </GlacierJobParameters></RestoreRequest>",
            tier.as_str()
        );
        let request = Request::new("POST", key)
            .query("restore", "")
            .header("content-type", "application/xml")
            .body(xml.as_bytes(), Sha256::of(xml.as_bytes()));
        match self.send(&request) {
            Ok(reply) if reply.status == 202 => Ok(Thawing::Begun),
            Ok(_) => Ok(Thawing::NotNeeded),
            Err(failure) if failure.code == "RestoreAlreadyInProgress" => Ok(Thawing::InProgress),
            Err(failure) if failure.code == "ObjectAlreadyInActiveTierError" => Ok(Thawing::NotNeeded),
            Err(mut failure) if matches!(failure.status, Some(405 | 501)) => {
                failure.hints.push("this server may not be able to thaw objects".to_string());
                Err(failure)
            }
            Err(failure) => Err(failure),
        }
    }

    /// GetObject, for small objects. `max_len`: bytes.
    pub fn get(&self, key: &str, max_len: u64) -> Result<Vec<u8>> {
        Ok(self.send(&Request::new("GET", key).at_most(max_len))?.body)
    }

    /// GetObject of a manifest that describes `data` bytes. The inner error: why it cannot be used.
    pub fn get_manifest(
        &self,
        key: &str,
        data: u64,
        keep_chunks: bool,
    ) -> Result<Result<CheckedManifest, ManifestError>> {
        let request = Request::new("GET", key).at_most(max_len(data));
        let read = self.send_through(&request, || ManifestReader::new(keep_chunks), ManifestReader::push)?;
        Ok(read.map_err(ManifestError::from).and_then(ManifestReader::finish))
    }

    /// GetObject of the bytes from `start` that fill `buffer`. `stop`: see [`Client::send_into`]. `meter`:
    /// called as the bytes arrive.
    pub fn get_range(
        &self,
        key: &str,
        start: u64,
        buffer: &mut [u8],
        stop: &AtomicBool,
        meter: Meter,
    ) -> Result<()> {
        let Some(last) = buffer.len().checked_sub(1) else { return Ok(()) };
        let request =
            Request::new("GET", key).header("range", format!("bytes={start}-{}", start + last as u64));
        self.send_into(&request.meter(meter), buffer, stop)
    }

    /// PutObject, in the class STANDARD.
    pub fn put(&self, key: &str, body: &[u8]) -> Result<()> {
        self.put_locked(key, body, None)
    }

    /// The same, protected by an Object Lock. Each server returns an ETag, so a reply without one may not be
    /// that of S3.
    pub fn put_locked(&self, key: &str, body: &[u8], lock: Option<Retention>) -> Result<()> {
        let request = Request::new("PUT", key)
            .headers(&self.encryption)
            .headers(&lock_headers(lock))
            .body(body, Sha256::of(body))
            // S3 requires it if the bucket has an Object Lock
            .checksum(Extra::ChecksumOfObject);
        let reply = self.send(&request).map_err(|failure| hint_lock(failure, lock))?;
        if reply.header("etag").is_some() {
            return Ok(());
        }
        // without the permission to list, S3 also says 403 of what is not there
        let unclear = |failure| Failure { kind: FailureKind::Transient, ..failure };
        if self.head(key).map_err(unclear)?.is_some_and(|head| head.size == body.len() as u64) {
            return Ok(());
        }
        Err(Failure::transport(
            format!("PUT {key}"),
            "the reply has no ETag, and the object is not what was sent".to_string(),
            FailureKind::Transient,
        ))
    }

    /// PutObject of a whole segment, one attempt: after a lost reply, HEAD tells whether it was stored. The
    /// ETag and, if the server keeps it, the SHA-256. `meter`: called as the bytes are sent.
    pub fn put_data_once(
        &self,
        key: &str,
        body: &[u8],
        sha256: Sha256,
        storage_class: &StorageClass,
        lock: Option<Retention>,
        meter: Meter,
    ) -> Result<(String, Option<String>)> {
        let in_a_class = !storage_class.is_standard();
        let request = Request::new("PUT", key)
            .headers(&self.encryption)
            .headers(&lock_headers(lock))
            .header_if(in_a_class, "x-amz-storage-class", storage_class.as_str())
            .data(body, sha256, meter)
            .checksum(Extra::ChecksumOfObject);
        let reply = self.send_once(&request).map_err(|failure| hint_data(failure, in_a_class, lock))?;
        let checksum = reply.header("x-amz-checksum-sha256").map(str::to_string);
        Ok((reply.header("etag").unwrap_or_default().to_string(), checksum))
    }

    /// DeleteObject. A missing object is not an error. The policy of a bucket may allow only conditional
    /// deletes: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-delete-enforce.html>
    pub fn delete(&self, key: &str) -> Result<()> {
        let refused = match self.delete_by(&Request::new("DELETE", key)) {
            Err(failure) if failure.says_forbidden() => failure,
            reply => return reply,
        };
        match self.head(key) {
            Ok(Some(head)) if !head.etag.is_empty() => {
                let request = Request::new("DELETE", key).header("if-match", head.etag);
                self.delete_by(&request).map_err(|_| refused)
            }
            _ => Err(refused),
        }
    }

    /// The same, if the object still has this ETag. Servers without conditional deletes ignore it.
    pub fn delete_if_unchanged(&self, key: &str, etag: &str) -> Result<()> {
        let request = Request::new("DELETE", key).extra_header(Extra::IfMatch, "if-match", etag);
        match self.delete_by(&request) {
            Err(mut failure) if failure.status == Some(412) => {
                match self.head(key)? {
                    // an earlier attempt, whose reply was lost, has deleted it
                    None => return Ok(()),
                    // this server compares ETags in another way
                    Some(head) if head.etag == etag => return self.delete_by(&Request::new("DELETE", key)),
                    Some(_) => {}
                }
                failure.message =
                    "the object has changed since it was looked at: another program writes here".to_string();
                Err(failure)
            }
            reply => reply,
        }
    }

    fn delete_by(&self, request: &Request) -> Result<()> {
        match self.send(request) {
            Err(failure) if failure.is_missing() => Ok(()),
            reply => reply.map(|_| ()),
        }
    }
}
