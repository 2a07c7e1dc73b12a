//! Multipart uploads.

use super::{Aborted, CompletedPart, MultipartUpload, Result, hint_data, lock_headers, unexpected_reply};
use crate::model::digest::Sha256;
use crate::model::object_lock::Retention;
use crate::model::storage_class::StorageClass;
use crate::model::traffic::Meter;
use crate::s3::client::Client;
use crate::s3::dialect::Extra;
use crate::s3::failure::{Failure, FailureKind};
use crate::s3::reply::{self, Completion};
use crate::s3::request::Request;

impl Client {
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
                Err(failure) => {
                    patience.pause_after(hint_data(failure, in_a_class, lock))?;
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
            .data(body, sha256, meter);
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

    /// AbortMultipartUpload.
    pub fn abort_multipart_upload(&self, key: &str, upload_id: &str) -> Result<Aborted> {
        match self.send(&Request::new("DELETE", key).query("uploadId", upload_id)) {
            Err(failure) if failure.is_missing() => Ok(Aborted::Unknown),
            reply => reply.map(|_| Aborted::Done),
        }
    }
}
