//! The configuration of the bucket.

use super::Result;
use crate::model::lifecycle::Rule;
use crate::s3::client::Client;
use crate::s3::configuration::{self, BucketLock, BucketVersioning};
use crate::s3::reply;
use crate::s3::request::Request;

/// What S3 says about a part of the configuration.
pub enum Configured<T> {
    Known(T),
    /// These credentials may not ask.
    Forbidden,
    /// The server does not have this call.
    NotSupported(String),
    /// The reply is not the one that S3 documents.
    Unreadable(String),
}

/// Bytes: a thousand lifecycle rules, the maximum, have fewer.
const MAX_CONFIGURATION: u64 = 4 << 20;

impl Client {
    /// GetObjectLockConfiguration: does the bucket have an Object Lock? None: it may not be asked.
    pub fn bucket_has_object_lock(&self) -> Result<Option<bool>> {
        match self.bucket_lock()? {
            Configured::Known(lock) => Ok(Some(lock.is_enabled)),
            Configured::Forbidden => Ok(None),
            Configured::NotSupported(_) | Configured::Unreadable(_) => Ok(Some(false)),
        }
    }

    /// GetObjectLockConfiguration.
    pub fn bucket_lock(&self) -> Result<Configured<BucketLock>> {
        let none = Some(("ObjectLockConfigurationNotFoundError", BucketLock::default()));
        self.configuration("object-lock", "reading the Object Lock", configuration::bucket_lock, none)
    }

    /// GetBucketVersioning.
    pub fn versioning(&self) -> Result<Configured<BucketVersioning>> {
        self.configuration("versioning", "reading the versioning", configuration::versioning, None)
    }

    /// GetBucketLifecycleConfiguration: the enabled rules.
    pub fn lifecycle_rules(&self) -> Result<Configured<Vec<Rule>>> {
        let none = Some(("NoSuchLifecycleConfiguration", Vec::new()));
        self.configuration("lifecycle", "reading the lifecycle rules", configuration::lifecycle, none)
    }

    /// `none`: the error code if there is no such configuration, and what that means.
    fn configuration<T>(
        &self,
        name: &'static str,
        purpose: &'static str,
        parse: impl Fn(&[u8]) -> Result<T, String>,
        none: Option<(&str, T)>,
    ) -> Result<Configured<T>> {
        let request = Request::new("GET", "").query(name, "").purpose(purpose).at_most(MAX_CONFIGURATION);
        match (self.send(&request), none) {
            (Ok(reply), _) => Ok(match parse(&reply.body) {
                Ok(known) => Configured::Known(known),
                // a server that does not know the parameter
                Err(why) if reply::is_listing(&reply.body) => Configured::NotSupported(why),
                Err(why) => Configured::Unreadable(why),
            }),
            (Err(failure), Some((code, none))) if failure.code == code => Ok(Configured::Known(none)),
            (Err(failure), _) if failure.is_forbidden() => Ok(Configured::Forbidden),
            (Err(failure), _) if failure.has_no_such_call() || failure.is_not_supported() => {
                Ok(Configured::NotSupported(failure.describe()))
            }
            (Err(failure), _) => Err(failure),
        }
    }
}
