//! Files by which nothing is decided: a damaged one counts as empty, and is replaced; one that a newer
//! version wrote is left alone.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::store::read_text;
use crate::error::{Error, Result, Status};
use crate::model::yaml;

#[derive(Deserialize)]
struct OnlyVersion {
    version: u32,
}

/// The file; none: there is none.
pub fn read<T: DeserializeOwned>(path: &Path, version: u32) -> Result<Option<T>> {
    read_text(path)?.map(|text| parse(path, &text, version)).transpose()
}

/// The error has the status `Refused` if a newer version than `version` wrote it.
pub fn parse<T: DeserializeOwned>(path: &Path, text: &str, version: u32) -> Result<T> {
    let unusable =
        |status, why: &str| Error::new(status, format!("{} cannot be used: {why}", path.display()));
    if is_newer(text, version) {
        return Err(unusable(Status::Refused, "a newer version of zfs2s3 wrote it"));
    }
    yaml::from_str(text).map_err(|why| unusable(Status::Failed, &why))
}

fn is_newer(text: &str, version: u32) -> bool {
    yaml::from_str::<OnlyVersion>(text).is_ok_and(|file| file.version > version)
}
