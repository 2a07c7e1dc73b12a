//! Calls that only the doctor makes, to learn what a server does. Each is sent as it is: nothing that the
//! server refuses is omitted, and no condition is dropped.

use super::objects::first_byte;
use super::{MultipartUpload, Result};
use crate::model::digest::Sha256;
use crate::s3::client::Client;
use crate::s3::dialect::Extra;
use crate::s3::request::Request;

/// Which of the two hashes of a part is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrongSum {
    /// `x-amz-content-sha256`, which the signature covers.
    Signed,
    /// `x-amz-checksum-sha256`.
    Checksum,
}

impl Client {
    /// PutObject: the version, if the bucket keeps them. `only_if_absent`: with `If-None-Match: *`.
    pub fn put_probe(&self, key: &str, body: &[u8], only_if_absent: bool) -> Result<Option<String>> {
        let request = Request::new("PUT", key)
            .headers(&self.encryption)
            .header_if(only_if_absent, "if-none-match", "*")
            .body(body, Sha256::of(body))
            .checksum(Extra::ChecksumOfObject);
        let reply = self.send(&request)?;
        Ok(reply.header("x-amz-version-id").map(str::to_string))
    }

    /// DeleteObject, with `If-Match` if there is an ETag. The delete marker that it has made, if the bucket keeps
    /// versions.
    pub fn delete_probe(&self, key: &str, etag: Option<&str>) -> Result<Option<String>> {
        let request =
            Request::new("DELETE", key).header_if(etag.is_some(), "if-match", etag.unwrap_or_default());
        let reply = self.send(&request)?;
        let is_marker = reply.header("x-amz-delete-marker") == Some("true");
        Ok(reply.header("x-amz-version-id").filter(|_| is_marker).map(str::to_string))
    }

    /// GetObject of the first byte.
    pub fn read_first_byte(&self, key: &str) -> Result<()> {
        self.send(&first_byte(key)).map(|_| ())
    }

    /// DeleteObject of one version, or of a delete marker.
    pub fn delete_version(&self, key: &str, version_id: &str) -> Result<()> {
        match self.send(&Request::new("DELETE", key).query("versionId", version_id)) {
            // an earlier attempt, whose reply was lost, has deleted it
            Err(failure) if failure.is_missing() || failure.code == "NoSuchVersion" => Ok(()),
            reply => reply.map(|_| ()),
        }
    }

    /// GetObjectRetention, or GetObjectLegalHold. `name`: `retention` or `legal-hold`.
    pub fn read_lock(&self, key: &str, name: &'static str) -> Result<()> {
        self.send(&Request::new("GET", key).query(name, "").at_most(64 << 10)).map(|_| ())
    }

    /// UploadPart with a wrong hash: an error is what should happen. One attempt, because the refusals of a
    /// damaged body count as transient.
    pub fn upload_part_with_wrong_sum(
        &self,
        upload: MultipartUpload,
        part: u16,
        body: &[u8],
        which: WrongSum,
    ) -> Result<()> {
        let (right, wrong) = (Sha256::of(body), Sha256::of(b"another body"));
        let (signed, checksum) = match which {
            WrongSum::Signed => (wrong, right),
            WrongSum::Checksum => (right, wrong),
        };
        let request = Request::new("PUT", upload.key)
            .query("partNumber", part)
            .query("uploadId", upload.upload_id)
            .header_if(upload.checksums, "x-amz-checksum-sha256", checksum.base64())
            .body(body, signed);
        self.send_once(&request).map(|_| ())
    }
}
