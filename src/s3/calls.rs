//! The S3 calls that zfs2s3 makes, one function each, with the name of its page in the API reference.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html>

use std::cell::Cell;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::AtomicBool;

use super::client::Client;
use super::dialect::Extra;
use super::failure::{Failure, FailureKind};
use super::hint;
use super::reply::{self, Completion, ListedPart, ListedUpload, Object, Page, Version};
use super::request::Request;
use super::request_body::Meter;
use crate::model::archive::{Access, Archive, Tier, parse_restore};
use crate::model::digest::Sha256;
use crate::model::manifest::text::{CheckedManifest, ManifestReader};
use crate::model::manifest::{ManifestError, max_len};
use crate::model::object_lock::{ObjectLock, Retention};
use crate::model::storage_class::StorageClass;
use crate::model::utc::Utc;

/// Limits for a listing: pages (a billion keys), and empty pages in a row.
const MAX_PAGES: usize = 1_000_000;
const MAX_EMPTY_PAGES: usize = 1_000;

type Result<T, E = Failure> = std::result::Result<T, E>;

/// A header or a reply is not as documented.
fn unexpected_reply(call: &str, key: &str, why: String) -> Failure {
    Failure::transport(format!("{call} {key}"), why, FailureKind::Final)
}

/// Lists the keys that begin with `prefix`. If the server supports the encoding, the XML is valid whatever
/// the keys are.
fn listing<'a>(prefix: &str) -> Request<'a> {
    Request::new("GET", "").query("prefix", prefix).extra_query(Extra::UrlEncoding, "encoding-type", "url")
}

/// GetObject of the first byte. Its reply says why an object cannot be read; a reply to HEAD has no body.
fn first_byte(key: &str) -> Request<'_> {
    Request::new("GET", key).header("range", "bytes=0-0").at_most(64 << 10)
}

fn may_not_read(mut failure: Failure) -> Failure {
    failure.message = format!("these credentials may not read objects: {}", failure.message);
    failure.hints = vec!["allow s3:GetObject: checking and restoring backups needs it".to_string()];
    failure
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock-managing.html>
fn lock_headers(lock: Option<Retention>) -> Vec<(&'static str, String)> {
    let headers = |lock: Retention| {
        [
            ("x-amz-object-lock-mode", lock.mode.to_string()),
            ("x-amz-object-lock-retain-until-date", lock.until.to_string()),
        ]
    };
    lock.map(headers).into_iter().flatten().collect()
}

fn hint_lock(mut failure: Failure, lock: Option<Retention>) -> Failure {
    let may_be_why = matches!(
        failure.code.as_str(),
        "InvalidRequest" | "InvalidArgument" | "AccessDenied" | "NotImplemented"
    );
    if lock.is_some() && may_be_why && failure.hints.is_empty() {
        failure.hints.push(
            "to lock objects, the bucket needs an Object Lock, and the credentials s3:PutObjectRetention"
                .to_string(),
        );
    }
    failure
}

/// The reply to HEAD.
#[derive(Debug, PartialEq)]
pub struct Head {
    pub size: u64,
    pub etag: String,
    /// The composite SHA-256, if the server keeps it.
    pub checksum: Option<String>,
    pub modified: Option<Utc>,
    /// Absent for STANDARD.
    pub storage_class: Option<StorageClass>,
    /// `x-amz-restore`: the state of the readable copy of an archived object.
    pub restore: Option<String>,
    /// `x-amz-archive-status`: Intelligent-Tiering has moved it to an archive tier.
    pub archive_status: Option<String>,
    /// Absent also if the credentials may not read it.
    pub lock: ObjectLock,
}

/// The reply to RestoreObject, which asks S3 to thaw an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thawing {
    /// S3 has accepted the request.
    Begun,
    /// An earlier request is not done yet.
    InProgress,
    /// It can be read already; if through a copy, that is kept for longer.
    NotNeeded,
}

/// The reply to ListParts.
#[derive(Debug)]
pub enum Parts {
    Listed(Vec<ListedPart>),
    /// S3 does not, or no longer, know this upload.
    NoSuchUpload,
    /// The server does not have this call, or not in the form that AWS has.
    NotSupported(Failure),
}

/// The open multipart upload of one segment.
#[derive(Clone, Copy, Debug)]
pub struct MultipartUpload<'a> {
    pub key: &'a str,
    pub upload_id: &'a str,
    /// The server keeps the checksums of the parts, so each part must have one.
    pub checksums: bool,
}

/// Number, ETag and SHA-256 of a part.
pub type CompletedPart<'a> = (u16, &'a str, Sha256);

impl Client {
    /// ListObjectsV2, all pages: every object whose key begins with `prefix` and that `keep` selects.
    pub fn list_objects(&self, prefix: &str, keep: impl Fn(&Object) -> bool) -> Result<Vec<Object>> {
        self.pages(
            "list",
            prefix,
            |body| reply::objects(body, prefix),
            keep,
            || listing(prefix).query("list-type", 2),
        )
    }

    /// Is there an object with this key, according to a listing? None: listing is forbidden.
    fn is_listed(&self, key: &str) -> Result<Option<bool>> {
        match self.list_objects(key, |object| object.key == key) {
            Ok(found) => Ok(Some(!found.is_empty())),
            Err(failure) if failure.says_forbidden() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// ListMultipartUploads, all pages: the unfinished uploads whose key begins with `prefix`. None if the
    /// server does not have this call.
    pub fn list_uploads(&self, prefix: &str) -> Result<Vec<ListedUpload>> {
        let ours = |upload: &ListedUpload| upload.key.starts_with(prefix);
        let listed = self.pages(
            "list uploads",
            prefix,
            |body| reply::uploads(body, prefix),
            ours,
            || listing(prefix).query("uploads", ""),
        );
        match listed {
            Err(failure) if failure.has_no_such_call() => Ok(Vec::new()),
            listed => listed,
        }
    }

    /// ListObjectVersions, all pages: the versions and delete markers whose key begins with `prefix` and that
    /// `keep` selects.
    pub fn list_versions(&self, prefix: &str, keep: impl Fn(&Version) -> bool) -> Result<Vec<Version>> {
        self.pages(
            "list versions",
            prefix,
            |body| reply::versions(body, prefix),
            keep,
            || listing(prefix).query("versions", ""),
        )
    }

    /// GetObjectLockConfiguration: does the bucket have an Object Lock? None: it may not be asked.
    pub fn bucket_has_object_lock(&self) -> Result<Option<bool>> {
        match self.send(&Request::new("GET", "").query("object-lock", "").at_most(64 << 10)) {
            Ok(reply) => Ok(Some(reply::has_object_lock(&reply.body))),
            Err(failure) if failure.is_forbidden() => Ok(None),
            Err(failure) if failure.has_no_such_call() || failure.is_not_supported() => Ok(Some(false)),
            Err(failure) => Err(failure),
        }
    }

    /// ListParts, all pages.
    pub fn list_parts(&self, upload: MultipartUpload) -> Result<Parts> {
        let first = || Request::new("GET", upload.key).query("uploadId", upload.upload_id);
        let is_list = Cell::new(true);
        let parse = |body: &[u8]| {
            is_list.set(reply::is_list_of_parts(body));
            reply::parts(body)
        };
        match self.pages("list parts", upload.key, parse, |_| true, first) {
            Ok(parts) => Ok(Parts::Listed(parts)),
            Err(failure) if failure.code == "NoSuchUpload" => Ok(Parts::NoSuchUpload),
            Err(failure) if failure.has_no_such_call() || failure.is_not_supported() => {
                Ok(Parts::NotSupported(failure))
            }
            // an incomplete or endless list
            Err(failure)
                if failure.status.is_none() && failure.kind == FailureKind::Final && is_list.get() =>
            {
                Ok(Parts::NotSupported(failure))
            }
            Err(failure) => Err(failure),
        }
    }

    fn pages<'a, T>(
        &self,
        call: &str,
        key: &str,
        parse: impl Fn(&[u8]) -> Result<Page<T>, String>,
        keep: impl Fn(&T) -> bool,
        first: impl Fn() -> Request<'a>,
    ) -> Result<Vec<T>> {
        let endless = || unexpected_reply(call, key, "the server's listing does not end".to_string());
        let mut items = Vec::new();
        let mut asked: HashSet<u64> = HashSet::new();
        let mut empty = 0;
        let mut next: Vec<(&'static str, String)> = Vec::new();
        loop {
            let request = next.iter().fold(first(), |request, (name, value)| request.query(name, value));
            let reply = self.send(&request)?;
            let page = parse(&reply.body).map_err(|why| unexpected_reply(call, key, why))?;
            empty = if page.items.is_empty() { empty + 1 } else { 0 };
            items.extend(page.items.into_iter().filter(&keep));
            let Some(marker) = page.next else { return Ok(items) };
            let mut hasher = DefaultHasher::new();
            marker.hash(&mut hasher);
            if !asked.insert(hasher.finish()) {
                return Err(unexpected_reply(
                    call,
                    key,
                    "the server returns the same page again and again".to_string(),
                ));
            }
            if empty >= MAX_EMPTY_PAGES || asked.len() >= MAX_PAGES {
                return Err(endless());
            }
            next = marker;
        }
    }

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

    /// GetObject of the bytes from `start` that fill `buffer`.
    pub fn get_range(&self, key: &str, start: u64, buffer: &mut [u8], stop: &AtomicBool) -> Result<()> {
        let Some(last) = buffer.len().checked_sub(1) else { return Ok(()) };
        let request =
            Request::new("GET", key).header("range", format!("bytes={start}-{}", start + last as u64));
        self.send_into(&request, buffer, stop)
    }

    /// PutObject, in the class STANDARD.
    pub fn put(&self, key: &str, body: &[u8]) -> Result<()> {
        self.put_locked(key, body, None)
    }

    /// The same, protected by an Object Lock.
    pub fn put_locked(&self, key: &str, body: &[u8], lock: Option<Retention>) -> Result<()> {
        let request = Request::new("PUT", key)
            .headers(&self.encryption)
            .headers(&lock_headers(lock))
            .body(body, Sha256::of(body))
            // S3 requires it if the bucket has an Object Lock
            .checksum(Extra::ChecksumOfObject);
        self.send(&request).map(|_| ()).map_err(|failure| hint_lock(failure, lock))
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

    /// CreateMultipartUpload: the upload ID, and whether the server keeps the SHA-256 of each part, according
    /// to its reply. If not, the signed hash still protects each part in transit. `repeated` is set if a
    /// reply was lost: then S3 may have begun another upload.
    pub fn create_multipart_upload(
        &self,
        key: &str,
        storage_class: &StorageClass,
        lock: Option<Retention>,
        repeated: &mut bool,
    ) -> Result<(String, bool)> {
        let in_a_class = !storage_class.is_standard();
        let request = Request::new("POST", key)
            .query("uploads", "")
            .headers(&self.encryption)
            .headers(&lock_headers(lock))
            .header_if(in_a_class, "x-amz-storage-class", storage_class.as_str())
            .extra_header(Extra::ChecksumOfUpload, "x-amz-checksum-algorithm", "SHA256");
        let mut patience = self.patience();
        let reply = loop {
            match self.send_once(&request) {
                Ok(reply) => break reply,
                Err(failure) if lock.is_some() && failure.kind == FailureKind::Final => {
                    return Err(hint_lock(failure, lock));
                }
                // some servers have no specific error code
                Err(mut failure) if in_a_class && failure.is_not_supported() && failure.hints.is_empty() => {
                    failure.hints.push(hint::STORAGE_CLASS.to_string());
                    return Err(failure);
                }
                Err(failure) => {
                    patience.pause_after(failure)?;
                    *repeated = true;
                }
            }
        };
        let algorithm = reply.header("x-amz-checksum-algorithm");
        let checksums = algorithm.is_some_and(|algorithm| algorithm.eq_ignore_ascii_case("SHA256"));
        match reply::upload_id(&reply.body).map_err(|why| unexpected_reply("begin an upload of", key, why))? {
            (id, None) => Ok((id, checksums)),
            (id, Some(unusable)) => {
                // it could not be aborted later
                let _ = self.abort_multipart_upload(key, &id);
                Err(unexpected_reply("begin an upload of", key, unusable))
            }
        }
    }

    /// UploadPart: the ETag of the part. `sha256`: that of `body`. `meter`: called as the bytes are sent.
    pub fn upload_part(
        &self,
        upload: MultipartUpload,
        part: u16,
        body: &[u8],
        sha256: Sha256,
        meter: Meter,
    ) -> Result<String> {
        let request = Request::new("PUT", upload.key)
            .query("partNumber", part)
            .query("uploadId", upload.upload_id)
            .extra_header(Extra::Expect, "expect", "100-continue")
            .body(body, sha256)
            .meter(meter);
        let request = if upload.checksums { request.checksum(Extra::ChecksumOfPart) } else { request };
        let reply = self.send(&request)?;
        let etag = reply.header("etag").filter(|etag| !etag.is_empty());
        etag.map(str::to_string).ok_or_else(|| {
            unexpected_reply("upload a part of", upload.key, "the reply has no ETag".to_string())
        })
    }

    /// CompleteMultipartUpload, one attempt: after a lost reply it must not be repeated blindly. A server
    /// that keeps checksums may not understand them here; a request that it does not understand has no
    /// effect.
    pub fn complete_multipart_upload_once(
        &self,
        upload: MultipartUpload,
        pieces: &[CompletedPart],
    ) -> Result<Completion> {
        match self.complete_with(upload, pieces, upload.checksums) {
            Err(failure) if upload.checksums && failure.is_not_supported() => {
                match self.complete_with(upload, pieces, false) {
                    // the checksums were not the reason
                    Err(second) if second.is_not_supported() => Err(failure),
                    reply => reply,
                }
            }
            reply => reply,
        }
    }

    fn complete_with(
        &self,
        upload: MultipartUpload,
        pieces: &[CompletedPart],
        checksums: bool,
    ) -> Result<Completion> {
        let with_sum = |sum: &Sha256| checksums.then(|| sum.base64());
        let xml =
            reply::complete_body(pieces.iter().map(|(number, etag, sum)| (*number, *etag, with_sum(sum))));
        let request = Request::new("POST", upload.key)
            .query("uploadId", upload.upload_id)
            .header("content-type", "application/xml")
            .body(xml.as_bytes(), Sha256::of(xml.as_bytes()));
        let reply = self.send_once(&request)?;
        reply::completed(&reply.body).map_err(|why| {
            Failure::transport(format!("complete {}", upload.key), why, FailureKind::Transient)
        })
    }

    /// AbortMultipartUpload. A missing upload is not an error.
    pub fn abort_multipart_upload(&self, key: &str, upload_id: &str) -> Result<()> {
        match self.send(&Request::new("DELETE", key).query("uploadId", upload_id)) {
            Err(failure) if failure.is_missing() => Ok(()),
            reply => reply.map(|_| ()),
        }
    }
}
