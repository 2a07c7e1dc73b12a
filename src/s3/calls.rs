//! The S3 calls that zfs2s3 makes, one function each, named after the API's own page.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html>

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::AtomicBool;

use super::client::Client;
use super::failure::Failure;
use super::outgoing::Meter;
use super::reply::{self, Completion, Object, Page, Part, Upload};
use super::request::Request;
use crate::digest::Sha256;
use crate::manifest::max_len;
use crate::manifest::text::{Checked, Reader};

/// Pages of a listing, some billion keys; and empty ones in a row.
const MAX_PAGES: usize = 1_000_000;
const MAX_EMPTY_PAGES: usize = 1_000;

type Result<T> = std::result::Result<T, Failure>;

/// Where a header or a reply is not as documented.
fn odd(call: &str, key: &str, why: String) -> Failure {
    Failure::transport(format!("{call} {key}"), why, super::failure::Kind::Final)
}

/// What HEAD says of an object.
#[derive(Debug, PartialEq)]
pub struct Head {
    pub size: u64,
    pub etag: String,
    /// The composite SHA-256, where the server keeps it.
    pub checksum: Option<String>,
    /// Absent for STANDARD.
    pub storage_class: Option<String>,
    /// `x-amz-restore`: how the restoring of an archived object stands.
    pub restore: Option<String>,
    /// `x-amz-archive-status`: Intelligent-Tiering has moved it to an archive tier.
    pub archive_status: Option<String>,
}

impl Head {
    /// It lies in an archive class, and no copy to read has been restored.
    /// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html>
    pub fn is_archived(&self) -> bool {
        let archive = matches!(self.storage_class.as_deref(), Some("GLACIER" | "DEEP_ARCHIVE"))
            || self.archive_status.is_some();
        archive && !self.restore.as_ref().is_some_and(|text| text.contains("ongoing-request=\"false\""))
    }
}

/// An upload of one segment that S3 knows.
#[derive(Clone, Copy, Debug)]
pub struct Open<'a> {
    pub key: &'a str,
    pub upload_id: &'a str,
    /// It was begun with checksums, so each part must carry one.
    pub checksums: bool,
}

/// Number, ETag and SHA-256 of a part to be put together.
pub type Piece<'a> = (u16, &'a str, Sha256);

impl Client {
    /// ListObjectsV2, all pages: every object whose key begins with `prefix` and that `keep` wants.
    pub fn list_objects(&self, prefix: &str, keep: impl Fn(&Object) -> bool) -> Result<Vec<Object>> {
        self.pages("list", prefix, reply::objects, keep, || {
            Request::new("GET", "").query("list-type", 2).query("prefix", prefix)
        })
    }

    /// ListMultipartUploads, all pages: the unfinished uploads whose key begins with `prefix`.
    pub fn list_uploads(&self, prefix: &str) -> Result<Vec<Upload>> {
        let ours = |upload: &Upload| upload.key.starts_with(prefix);
        self.pages("list uploads", prefix, reply::uploads, ours, || {
            Request::new("GET", "").query("prefix", prefix).query("uploads", "")
        })
    }

    /// ListParts, all pages; none: S3 does not know this upload (any more).
    pub fn list_parts(&self, open: Open) -> Result<Option<Vec<Part>>> {
        let first = || Request::new("GET", open.key).query("uploadId", open.upload_id);
        match self.pages("list parts", open.key, reply::parts, |_| true, first) {
            Err(failure) if failure.is_missing() => Ok(None),
            parts => parts.map(Some),
        }
    }

    fn pages<'a, T>(
        &self,
        call: &str,
        key: &str,
        parse: impl Fn(&[u8]) -> std::result::Result<Page<T>, String>,
        keep: impl Fn(&T) -> bool,
        first: impl Fn() -> Request<'a>,
    ) -> Result<Vec<T>> {
        let endless = || odd(call, key, "the server's listing does not end".to_string());
        let mut items = Vec::new();
        let mut asked: HashSet<u64> = HashSet::new();
        let mut empty = 0;
        let mut next: Vec<(&'static str, String)> = Vec::new();
        loop {
            let request = next.iter().fold(first(), |request, (name, value)| request.query(name, value));
            let reply = self.send(&request)?;
            let page = parse(&reply.body).map_err(|why| odd(call, key, why))?;
            empty = if page.items.is_empty() { empty + 1 } else { 0 };
            items.extend(page.items.into_iter().filter(&keep));
            let Some(marker) = page.next else { return Ok(items) };
            let mut hasher = DefaultHasher::new();
            marker.hash(&mut hasher);
            if !asked.insert(hasher.finish()) {
                return Err(odd(call, key, "the server gives the same page again and again".to_string()));
            }
            if empty >= MAX_EMPTY_PAGES || asked.len() >= MAX_PAGES {
                return Err(endless());
            }
            next = marker;
        }
    }

    /// HeadObject; none: no such object.
    pub fn head(&self, key: &str) -> Result<Option<Head>> {
        let request = Request::new("HEAD", key).header("x-amz-checksum-mode", "ENABLED");
        let reply = match self.send(&request) {
            Err(failure) if failure.is_missing() => return Ok(None),
            Err(failure) if matches!(failure.status, Some(400 | 403)) && self.had_expired(key) => {
                self.send(&request)?
            }
            reply => reply?,
        };
        let size = reply.header("content-length").and_then(|text| text.parse().ok());
        Ok(Some(Head {
            size: size.ok_or_else(|| odd("HEAD", key, "the reply has no Content-Length".to_string()))?,
            etag: reply.header("etag").unwrap_or_default().to_string(),
            checksum: reply.header("x-amz-checksum-sha256").map(str::to_string),
            storage_class: reply.header("x-amz-storage-class").map(str::to_string),
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
        let request = Request::new("GET", key).header("range", "bytes=0-0").at_most(64 << 10);
        let _ = self.send_once(&request);
        self.renewals() != before
    }

    /// HEAD where only "it is there" counts. Without s3:ListBucket, S3 says "forbidden" of what is not there.
    pub fn head_if_allowed(&self, key: &str) -> Result<Option<Head>> {
        match self.head(key) {
            Err(failure) if failure.is_forbidden() => Ok(None),
            head => head,
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
    ) -> Result<std::result::Result<Checked, String>> {
        let request = Request::new("GET", key).at_most(max_len(data));
        let read = self.send_through(&request, || Reader::new(keep_chunks), Reader::push)?;
        Ok(read.and_then(Reader::finish))
    }

    /// GetObject of just the bytes from `start` on that fill `buffer`.
    pub fn get_range(&self, key: &str, start: u64, buffer: &mut [u8], stop: &AtomicBool) -> Result<()> {
        let Some(last) = buffer.len().checked_sub(1) else { return Ok(()) };
        let request =
            Request::new("GET", key).header("range", format!("bytes={start}-{}", start + last as u64));
        self.send_into(&request, buffer, stop)
    }

    /// PutObject in class STANDARD. Where the server does not know a checksum, which Object Lock asks for, it goes without.
    pub fn put(&self, key: &str, body: &[u8]) -> Result<()> {
        let sha256 = Sha256::of(body);
        let request = |checksum| {
            Request::new("PUT", key)
                .header_if(checksum, "x-amz-checksum-sha256", sha256.base64())
                .body(body, sha256)
        };
        match self.send(&request(true)) {
            Err(failure) if failure.is_not_supported() => self.send(&request(false)).map(|_| ()),
            reply => reply.map(|_| ()),
        }
    }

    /// DeleteObject; a key that is not there is fine.
    pub fn delete(&self, key: &str) -> Result<()> {
        match self.send(&Request::new("DELETE", key)) {
            Err(failure) if failure.is_missing() => Ok(()),
            reply => reply.map(|_| ()),
        }
    }

    /// CreateMultipartUpload: the upload ID, and whether the server keeps the parts' SHA-256. Some servers
    /// reject what AWS calls a checksum algorithm (400, 501); the signed body hash still protects the way there. `repeated` is set
    /// where a reply was lost: S3 may have begun another one then.
    pub fn create_multipart_upload(
        &self,
        key: &str,
        storage_class: &str,
        repeated: &mut bool,
    ) -> Result<(String, bool)> {
        let request = |checksums| {
            Request::new("POST", key)
                .query("uploads", "")
                .header_if(storage_class != "STANDARD", "x-amz-storage-class", storage_class)
                .header_if(checksums, "x-amz-checksum-algorithm", "SHA256")
        };
        let mut patience = self.patience();
        let mut checksums = true;
        let reply = loop {
            match self.send_once(&request(checksums)) {
                Ok(reply) => break reply,
                Err(failure) if checksums && failure.is_not_supported() => checksums = false,
                Err(failure) => {
                    patience.pause_after(failure)?;
                    *repeated = true;
                }
            }
        };
        match reply::upload_id(&reply.body).map_err(|why| odd("create an upload of", key, why))? {
            (id, None) => Ok((id, checksums)),
            (id, Some(unusable)) => {
                // nobody could end it later
                let _ = self.abort_multipart_upload(key, &id);
                Err(odd("create an upload of", key, unusable))
            }
        }
    }

    /// UploadPart: the part's ETag. `sha256` is `body`'s; `meter` is told of its bytes as they are sent.
    pub fn upload_part(
        &self,
        open: Open,
        part: u16,
        body: &[u8],
        sha256: Sha256,
        meter: Meter,
    ) -> Result<String> {
        let request = Request::new("PUT", open.key)
            .query("partNumber", part)
            .query("uploadId", open.upload_id)
            .header_if(open.checksums, "x-amz-checksum-sha256", sha256.base64())
            .header("expect", "100-continue")
            .body(body, sha256)
            .meter(meter);
        let reply = self.send(&request)?;
        let etag = reply.header("etag").filter(|etag| !etag.is_empty());
        etag.map(str::to_string)
            .ok_or_else(|| odd("upload a part of", open.key, "the reply has no ETag".to_string()))
    }

    /// CompleteMultipartUpload, one try: a lost reply must not lead to a blind repetition.
    pub fn complete_multipart_upload_once(&self, open: Open, pieces: &[Piece]) -> Result<Completion> {
        let with_sum = |sum: &Sha256| open.checksums.then(|| sum.base64());
        let xml =
            reply::complete_body(pieces.iter().map(|(number, etag, sum)| (*number, *etag, with_sum(sum))));
        let request = Request::new("POST", open.key)
            .query("uploadId", open.upload_id)
            .header("content-type", "application/xml")
            .body(xml.as_bytes(), Sha256::of(xml.as_bytes()));
        let reply = self.send_once(&request)?;
        reply::completed(&reply.body).map_err(|why| {
            Failure::transport(format!("complete {}", open.key), why, super::failure::Kind::Transient)
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
