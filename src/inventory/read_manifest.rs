//! Reads manifests from the bucket, which happens nowhere else, and checks them. Nothing in the bucket is
//! trusted: a manifest counts only if its key, names, guids, sizes and counts agree with each other and with
//! the listing.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::model::backup::Backup;
use crate::model::copy::CopyName;
use crate::model::keys::{self, ObjectKind, Parsed};
use crate::model::manifest::text::CheckedManifest;
use crate::model::manifest::{Manifest, ManifestError, Stream};
use crate::model::names::check_point_name;
use crate::s3::client::Client;
use crate::s3::failure::FailureKind;
use crate::state::store::format::{Entry, State};

/// The outcome of reading a manifest.
pub enum ManifestRead {
    Missing,
    Unreadable { why: Error, cause: Cause },
    Found(Box<CheckedManifest>),
}

/// What is wrong with a manifest that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A newer version of zfs2s3 wrote it.
    Newer,
    Invalid,
    /// S3 does not return it.
    Refused,
    /// It must be thawed first: a lifecycle rule has archived it.
    Archived,
}

/// The error that a manifest cannot be used.
pub fn unusable(key: &str, why: Error) -> Error {
    Error { message: format!("the manifest '{key}' cannot be used: {why}"), ..why }
}

/// Are the SHA-256s of the chunks kept, or only checked?
#[derive(Clone, Copy, PartialEq)]
pub enum Chunks {
    Kept,
    Checked,
}

/// Reads the manifest at `key`, which describes `data` bytes; this limits its own length. A transient failure
/// is an error.
pub fn read_manifest(client: &Client, key: &str, data: u64, chunks: Chunks) -> Result<ManifestRead> {
    match client.get_manifest(key, data, chunks == Chunks::Kept) {
        Ok(Ok(checked)) => Ok(ManifestRead::Found(Box::new(checked))),
        Ok(Err(why)) => {
            let cause = if matches!(why, ManifestError::Newer(_)) { Cause::Newer } else { Cause::Invalid };
            Ok(ManifestRead::Unreadable { why: Error::failed(why.to_string()), cause })
        }
        Err(failure) if failure.kind != FailureKind::Final => Err(failure.into()),
        Err(failure) if failure.is_missing() => Ok(ManifestRead::Missing),
        Err(failure) => {
            let cause = if failure.code == "InvalidObjectState" { Cause::Archived } else { Cause::Refused };
            Ok(ManifestRead::Unreadable { why: failure.into(), cause })
        }
    }
}

/// Why a manifest does not count.
#[derive(Debug, PartialEq, Eq)]
pub enum Rejection {
    Invalid(String),
    /// It would be valid under this prefix.
    OtherPrefix(String),
}

/// The store's entry for a manifest at `key`. `sizes`: the listing.
pub fn entry_for(
    prefix: &str,
    key: &str,
    manifest: Manifest,
    sizes: &HashMap<&str, u64>,
) -> Result<Entry, Rejection> {
    let invalid = |why: &str| Err(Rejection::Invalid(why.to_string()));
    let Some(Parsed { copy, kind: ObjectKind::Manifest }) = keys::parse(prefix, key) else {
        return invalid("its key is not that of a manifest");
    };
    let backup = Backup { snapshot: manifest.snapshot, base: manifest.base };
    if backup.link() != copy.link || backup.snapshot.name != copy.name {
        let own = CopyName { name: backup.snapshot.name.clone(), link: backup.link(), id: copy.id };
        return match key.strip_suffix(&keys::manifest("", &own)) {
            Some(other) if other != prefix => Err(Rejection::OtherPrefix(other.to_string())),
            _ => invalid("it describes another backup than its key"),
        };
    }
    check_stream(prefix, &copy, &backup, &manifest.stream, sizes).map_err(Rejection::Invalid)?;
    Ok(Entry {
        snapshot: backup.snapshot,
        base: backup.base,
        id: copy.id,
        state: State::Stored,
        removal: None,
        kept: false,
        stream: Some(manifest.stream),
    })
}

fn check_stream(
    prefix: &str,
    copy: &CopyName,
    backup: &Backup,
    stream: &Stream,
    sizes: &HashMap<&str, u64>,
) -> Result<(), String> {
    if let Some(base) = &backup.base {
        check_point_name(&base.name, "@#").map_err(|why| format!("its base '{}': {why}", base.name))?;
    }
    stream.storage_class.check()?;
    for (number, segment) in (1..).zip(&stream.segments) {
        if segment.key != keys::segment(prefix, copy, number) {
            return Err(format!("its segment {number} has the key of another object"));
        }
        match sizes.get(segment.key.as_str()) {
            None => return Err(format!("the bucket has no object '{}'", segment.key)),
            Some(there) if *there != segment.size => {
                return Err(format!("the object '{}' has {there} bytes, not {}", segment.key, segment.size));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
