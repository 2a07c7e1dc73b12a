//! The S3 calls that zfs2s3 makes, one function each, with the name of its page in the API reference.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html>

mod bucket;
mod identity;
mod listings;
mod multipart;
mod objects;
mod probes;

pub use bucket::Configured;
pub use probes::WrongSum;

use super::failure::{Failure, FailureKind};
use super::hint;
use super::reply::ListedPart;
use crate::model::digest::Sha256;
use crate::model::object_lock::{ObjectLock, Retention};
use crate::model::storage_class::StorageClass;
use crate::model::utc::Utc;

type Result<T, E = Failure> = std::result::Result<T, E>;

/// The outcome of AbortMultipartUpload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aborted {
    Done,
    /// S3 says that there is no such upload.
    Unknown,
}

/// A header or a reply is not as documented.
fn unexpected_reply(call: &str, key: &str, why: String) -> Failure {
    Failure::transport(format!("{call} {key}"), why, FailureKind::Final)
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

/// For a refusal to store data.
fn hint_data(failure: Failure, in_a_class: bool, lock: Option<Retention>) -> Failure {
    if lock.is_some() && failure.kind == FailureKind::Final {
        return hint_lock(failure, lock);
    }
    let mut failure = failure;
    // some servers have no specific error code
    if in_a_class && failure.is_not_supported() && failure.hints.is_empty() {
        failure.hints.push(hint::STORAGE_CLASS.to_string());
    }
    failure
}

/// The reply to HEAD.
#[derive(Debug, PartialEq)]
pub struct Head {
    pub size: u64,
    pub etag: String,
    /// The SHA-256, if the server keeps it: of all bytes or, with the number of parts, the composite one.
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
