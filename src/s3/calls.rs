//! The S3 calls that zfs2s3 makes, one function each, named after the API's own page.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html>

use std::cell::Cell;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::AtomicBool;

use super::client::Client;
use super::dialect::Extra;
use super::failure::{Failure, FailureKind};
use super::hint;
use super::reply::{self, Completion, ListedPart, ListedUpload, Object, Page};
use super::request::Request;
use super::request_body::Meter;
use crate::model::digest::Sha256;
use crate::model::manifest::text::{CheckedManifest, ManifestReader};
use crate::model::manifest::{ManifestError, max_len};
use crate::model::storage_class::StorageClass;

/// Pages of a listing, some billion keys; and empty ones in a row.
const MAX_PAGES: usize = 1_000_000;
const MAX_EMPTY_PAGES: usize = 1_000;

type Result<T, E = Failure> = std::result::Result<T, E>;

/// Where a header or a reply is not as documented.
fn unexpected_reply(call: &str, key: &str, why: String) -> Failure {
    Failure::transport(format!("{call} {key}"), why, FailureKind::Final)
}

/// Of the keys that begin with `prefix`. Their XML is valid whatever they are, where the server knows how.
fn listing<'a>(prefix: &str) -> Request<'a> {
    Request::new("GET", "").query("prefix", prefix).extra_query(Extra::UrlEncoding, "encoding-type", "url")
}

/// GetObject of the first byte: what S3 has against reading an object, it says in the body, and HEAD has none.
fn first_byte(key: &str) -> Request<'_> {
    Request::new("GET", key).header("range", "bytes=0-0").at_most(64 << 10)
}

fn may_not_read(mut failure: Failure) -> Failure {
    failure.message = format!("these credentials may not read objects: {}", failure.message);
    failure.hints = vec!["allow s3:GetObject: what is stored is checked, and restored, by it".to_string()];
    failure
}

/// What HEAD says of an object.
#[derive(Debug, PartialEq)]
pub struct Head {
    pub size: u64,
    pub etag: String,
    /// The composite SHA-256, where the server keeps it.
    pub checksum: Option<String>,
    /// Absent for STANDARD.
    pub storage_class: Option<StorageClass>,
    /// `x-amz-restore`: how the restoring of an archived object stands.
    pub restore: Option<String>,
    /// `x-amz-archive-status`: Intelligent-Tiering has moved it to an archive tier.
    pub archive_status: Option<String>,
}

impl Head {
    /// It may lie in an archive class, with no copy restored that could be read. Only reading it tells: on other servers
    /// than AWS these may be names like any others.
    /// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html>
    pub fn may_be_archived(&self) -> bool {
        let archive = self.storage_class.as_ref().is_some_and(StorageClass::is_archive)
            || self.archive_status.is_some();
        archive && !self.restore.as_ref().is_some_and(|text| text.contains("ongoing-request=\"false\""))
    }

    /// A copy to read is being made.
    pub fn is_being_restored(&self) -> bool {
        self.restore.as_ref().is_some_and(|text| text.contains("ongoing-request=\"true\""))
    }
}

/// What ListParts says.
#[derive(Debug)]
pub enum Parts {
    Listed(Vec<ListedPart>),
    /// S3 does not know this upload (any more).
    NoSuchUpload,
    /// The server does not have this call, or not as AWS has it.
    NotSupported(Failure),
}

/// An upload of one segment that S3 knows.
#[derive(Clone, Copy, Debug)]
pub struct MultipartUpload<'a> {
    pub key: &'a str,
    pub upload_id: &'a str,
    /// The server keeps the checksums of its parts, so each part must carry one.
    pub checksums: bool,
}

/// Number, ETag and SHA-256 of a part to be put together.
pub type CompletedPart<'a> = (u16, &'a str, Sha256);

impl Client {
    /// ListObjectsV2, all pages: every object whose key begins with `prefix` and that `keep` wants.
    pub fn list_objects(&self, prefix: &str, keep: impl Fn(&Object) -> bool) -> Result<Vec<Object>> {
        self.pages(
            "list",
            prefix,
            |body| reply::objects(body, prefix),
            keep,
            || listing(prefix).query("list-type", 2),
        )
    }

    /// Is there an object with this key? Asked of the listing; none: that is forbidden.
    fn is_listed(&self, key: &str) -> Result<Option<bool>> {
        match self.list_objects(key, |object| object.key == key) {
            Ok(found) => Ok(Some(!found.is_empty())),
            Err(failure) if failure.says_forbidden() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// ListMultipartUploads, all pages: the unfinished uploads whose key begins with `prefix`. Where the server does not have this
    /// call, none.
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
            // a list that lacks what it must have, or does not end
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
                    "the server gives the same page again and again".to_string(),
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
            storage_class: reply.header("x-amz-storage-class").and_then(|text| text.parse().ok()),
            restore: reply.header("x-amz-restore").map(str::to_string),
            archive_status: reply.header("x-amz-archive-status").map(str::to_string),
        }))
    }

    /// Did HEAD fail because the credentials have run out? Its reply has no body to say so, but GET's has; and the client has
    /// new ones after that.
    fn had_expired(&self, key: &str) -> bool {
        if !self.can_renew() {
            return false;
        }
        let before = self.renewals();
        let _ = self.send_once(&first_byte(key));
        self.renewals() != before
    }

    /// HEAD where only "it is there" counts. Without s3:ListBucket, S3 says "forbidden" of what is not there; with it, of
    /// what may not be read.
    pub fn head_if_allowed(&self, key: &str) -> Result<Option<Head>> {
        match self.head(key) {
            Err(failure) if failure.is_forbidden() => match self.is_listed(key)? {
                Some(true) => Err(may_not_read(failure)),
                _ => Ok(None),
            },
            head => head,
        }
    }

    /// May objects be read? Where listing is allowed, S3 also says so of a key under which there is nothing.
    pub fn may_read(&self, key: &str) -> Result<Result<(), Failure>> {
        match self.send(&first_byte(key)) {
            Err(failure) if failure.says_forbidden() => Ok(Err(may_not_read(failure))),
            // whatever else it says, it has nothing against reading
            Err(failure) if failure.kind == FailureKind::Transient => Err(failure),
            _ => Ok(Ok(())),
        }
    }

    /// Can this object be read now, whatever its storage class is called? `InvalidObjectState` says that it cannot.
    pub fn is_archived(&self, key: &str, head: &Head) -> Result<bool> {
        if !head.may_be_archived() || head.size == 0 {
            return Ok(false);
        }
        match self.send(&first_byte(key)) {
            Err(failure) if failure.code == "InvalidObjectState" => Ok(true),
            Err(failure) if failure.kind == FailureKind::Transient => Err(failure),
            // whatever else there is to say, reading all of it will say
            _ => Ok(false),
        }
    }

    /// GetObject, for small ones: of at most so many bytes.
    pub fn get(&self, key: &str, max_len: u64) -> Result<Vec<u8>> {
        Ok(self.send(&Request::new("GET", key).at_most(max_len))?.body)
    }

    /// GetObject of a manifest that describes so many bytes of data. The inner error: what is wrong with it.
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

    /// GetObject of just the bytes from `start` on that fill `buffer`.
    pub fn get_range(&self, key: &str, start: u64, buffer: &mut [u8], stop: &AtomicBool) -> Result<()> {
        let Some(last) = buffer.len().checked_sub(1) else { return Ok(()) };
        let request =
            Request::new("GET", key).header("range", format!("bytes={start}-{}", start + last as u64));
        self.send_into(&request, buffer, stop)
    }

    /// PutObject in class STANDARD.
    pub fn put(&self, key: &str, body: &[u8]) -> Result<()> {
        let request = Request::new("PUT", key)
            .headers(&self.encryption)
            .body(body, Sha256::of(body))
            // for an Object Lock, S3 insists on it
            .checksum(Extra::ChecksumOfObject);
        self.send(&request).map(|_| ())
    }

    /// DeleteObject; a key that is not there is fine.
    pub fn delete(&self, key: &str) -> Result<()> {
        match self.send(&Request::new("DELETE", key)) {
            Err(failure) if failure.is_missing() => Ok(()),
            reply => reply.map(|_| ()),
        }
    }

    /// CreateMultipartUpload: the upload ID, and whether the server keeps the parts' SHA-256, as its reply says. Without that
    /// the signed hash of each body still protects the way there. `repeated` is set where a reply was lost: S3 may have begun
    /// another one then.
    pub fn create_multipart_upload(
        &self,
        key: &str,
        storage_class: &StorageClass,
        repeated: &mut bool,
    ) -> Result<(String, bool)> {
        let in_a_class = !storage_class.is_standard();
        let request = Request::new("POST", key)
            .query("uploads", "")
            .headers(&self.encryption)
            .header_if(in_a_class, "x-amz-storage-class", storage_class.as_str())
            .extra_header(Extra::ChecksumOfUpload, "x-amz-checksum-algorithm", "SHA256");
        let mut patience = self.patience();
        let reply = loop {
            match self.send_once(&request) {
                Ok(reply) => break reply,
                // some servers have no code of their own for it
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
        match reply::upload_id(&reply.body)
            .map_err(|why| unexpected_reply("create an upload of", key, why))?
        {
            (id, None) => Ok((id, checksums)),
            (id, Some(unusable)) => {
                // nobody could end it later
                let _ = self.abort_multipart_upload(key, &id);
                Err(unexpected_reply("create an upload of", key, unusable))
            }
        }
    }

    /// UploadPart: the part's ETag. `sha256` is `body`'s; `meter` is told of its bytes as they are sent.
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

    /// CompleteMultipartUpload, one try: a lost reply must not lead to a blind repetition. A server that keeps checksums need not
    /// understand them here; what it does not understand it has not done.
    pub fn complete_multipart_upload_once(
        &self,
        upload: MultipartUpload,
        pieces: &[CompletedPart],
    ) -> Result<Completion> {
        match self.complete_with(upload, pieces, upload.checksums) {
            Err(failure) if upload.checksums && failure.is_not_supported() => {
                match self.complete_with(upload, pieces, false) {
                    // it was not about the checksums
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

    /// AbortMultipartUpload; an upload that is not there is fine.
    pub fn abort_multipart_upload(&self, key: &str, upload_id: &str) -> Result<()> {
        match self.send(&Request::new("DELETE", key).query("uploadId", upload_id)) {
            Err(failure) if failure.is_missing() => Ok(()),
            reply => reply.map(|_| ()),
        }
    }
}
