//! The lists: of objects, their versions, open uploads, and the parts of one; always all pages.

use std::cell::Cell;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::{MultipartUpload, Parts, Result, unexpected_reply};
use crate::s3::client::Client;
use crate::s3::dialect::Extra;
use crate::s3::failure::FailureKind;
use crate::s3::reply::{self, ListedUpload, Object, Page, Version};
use crate::s3::request::Request;

/// Limits for a listing: pages (a billion keys), and empty pages in a row.
const MAX_PAGES: usize = 1_000_000;
const MAX_EMPTY_PAGES: usize = 1_000;

/// Lists the keys that begin with `prefix`. If the server supports the encoding, the XML is valid whatever
/// the keys are.
fn listing<'a>(prefix: &str) -> Request<'a> {
    Request::new("GET", "").query("prefix", prefix).extra_query(Extra::UrlEncoding, "encoding-type", "url")
}

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
    pub(super) fn is_listed(&self, key: &str) -> Result<Option<bool>> {
        match self.list_objects(key, |object| object.key == key) {
            Ok(found) => Ok(Some(!found.is_empty())),
            Err(failure) if failure.says_forbidden() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// ListMultipartUploads, all pages: the unfinished uploads whose key begins with `prefix`. None if the
    /// server does not have this call.
    pub fn list_uploads(&self, prefix: &str) -> Result<Option<Vec<ListedUpload>>> {
        let are_others = Cell::new(false);
        let ours = |upload: &ListedUpload| {
            let is_ours = upload.key.starts_with(prefix);
            are_others.set(are_others.get() || !is_ours);
            is_ours
        };
        let list = || {
            self.pages(
                "list uploads",
                prefix,
                |body| reply::uploads(body, prefix),
                ours,
                || listing(prefix).query("uploads", ""),
            )
        };
        // one wrong reply would hide an upload, or one wrong key; but some servers list others, too
        let listed = match list() {
            Err(failure) if failure.has_no_such_call() || failure.says_forbidden() => list(),
            Ok(listed) if listed.is_empty() && are_others.get() => list(),
            listed => listed,
        };
        match listed {
            Err(failure) if failure.has_no_such_call() => Ok(None),
            listed => listed.map(Some),
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

    /// How many bytes an open upload has, by its parts. None: they cannot be listed.
    pub fn size_of_upload(&self, key: &str, upload_id: &str) -> Option<u64> {
        match self.list_parts(MultipartUpload { key, upload_id, checksums: false }) {
            Ok(Parts::Listed(parts)) => Some(parts.iter().map(|part| part.size).sum()),
            _ => None,
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
}
