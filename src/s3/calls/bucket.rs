//! The configuration of the bucket.

use super::Result;
use crate::s3::client::Client;
use crate::s3::reply;
use crate::s3::request::Request;

impl Client {
    /// GetObjectLockConfiguration: does the bucket have an Object Lock? None: it may not be asked.
    pub fn bucket_has_object_lock(&self) -> Result<Option<bool>> {
        match self.send(&Request::new("GET", "").query("object-lock", "").at_most(64 << 10)) {
            Ok(reply) => Ok(Some(reply::has_object_lock(&reply.body))),
            Err(failure) if failure.is_forbidden() => Ok(None),
            Err(failure) if failure.has_no_such_call() || failure.is_not_supported() => Ok(Some(false)),
            Err(failure) => Err(failure),
        }
    }
}
