//! Which objects of a backup can be read now, which must be thawed first, and what is wrong with the others.

use super::stored::{all_as_one, missing};
use crate::error::{Error, Result, Status};
use crate::model::archive::{Access, Tier};
use crate::model::units::{count, human_size};
use crate::model::utc::Utc;
use crate::s3::client::Client;

pub struct ObjectState {
    pub key: String,
    pub bytes: u64,
    pub access: Access,
    /// What S3 was asked for now, and accepted: the tier, and the days that a copy is kept.
    pub asked: Option<(Tier, u32)>,
}

/// The objects of a backup, as S3 has them now.
#[derive(Default)]
pub struct Survey {
    pub objects: Vec<ObjectState>,
    /// Why others cannot be read, not even after thawing.
    pub errors: Vec<Error>,
}

impl Survey {
    /// Asks S3 for one more object. `size`: what it must have. A transient failure is an error.
    pub fn add(&mut self, client: &Client, key: &str, size: Option<u64>) -> Result<()> {
        match inspect(client, key, size) {
            Ok(object) => self.objects.push(object),
            Err(error) if error.status == Status::TryAgain => return Err(error),
            Err(error) => self.errors.push(error),
        }
        Ok(())
    }

    pub fn is_readable(&self) -> bool {
        self.can_be_thawed() && self.archived().next().is_none()
    }

    /// Nothing is wrong, except that it may be archived.
    pub fn can_be_thawed(&self) -> bool {
        self.errors.is_empty()
    }

    /// What cannot be read yet.
    pub fn archived(&self) -> impl Iterator<Item = &ObjectState> {
        self.objects.iter().filter(|object| !object.access.is_readable())
    }

    /// Must something be thawed that S3 is not thawing yet?
    pub fn any_archived(&self) -> bool {
        self.objects.iter().any(|object| matches!(object.access, Access::Archived(_)))
    }

    /// When the first of the copies expires.
    pub fn until(&self) -> Option<Utc> {
        let until = |object: &ObjectState| match object.access {
            Access::Copy { until, .. } => until,
            _ => None,
        };
        self.objects.iter().filter_map(until).min()
    }
}

fn inspect(client: &Client, key: &str, size: Option<u64>) -> Result<ObjectState> {
    let head = client.head(key)?.ok_or_else(|| missing(key))?;
    if let Some(size) = size.filter(|size| *size != head.size) {
        return Err(Error::failed(format!("the object '{key}' has {} bytes, not {size}", head.size)));
    }
    let access = client.access(key, &head)?;
    Ok(ObjectState { key: key.to_string(), bytes: head.size, access, asked: None })
}

/// Why these backups, of which at least one is unreadable, cannot be read now.
pub fn why_unreadable<'a>(surveys: impl IntoIterator<Item = &'a mut Survey>) -> Error {
    let mut errors = Vec::new();
    let mut archived = Vec::new();
    for survey in surveys {
        errors.append(&mut survey.errors);
        archived.extend(survey.objects.iter().filter(|object| !object.access.is_readable()));
    }
    if errors.is_empty() {
        return archived_error(&archived);
    }
    for object in archived {
        let class = object.access.archive().map_or("an archive", |archive| archive.class());
        let verb =
            if matches!(object.access, Access::Thawing(_)) { "being thawed from" } else { "archived in" };
        errors.push(Error::failed(format!("the object '{}' is {verb} {class}", object.key)));
    }
    all_as_one(errors)
}

fn archived_error(archived: &[&ObjectState]) -> Error {
    let objects = archived.len() as u64;
    let thawing = archived.iter().filter(|object| matches!(object.access, Access::Thawing(_))).count() as u64;
    let bytes = archived.iter().fold(0u64, |sum, object| sum.saturating_add(object.bytes));
    let these = format!("{} ({})", count(objects, "object"), human_size(bytes));
    let are = |number| if number == 1 { "is" } else { "are" };
    let message = match thawing {
        0 => format!("{these} {} archived, and must be thawed first", are(objects)),
        n if n == objects => format!("{these} {} being thawed, and cannot be read yet", are(objects)),
        n => format!(
            "{these} {} archived, and must be thawed first; {n} of them {} being thawed",
            are(objects),
            are(n)
        ),
    };
    Error::new(Status::Archived, message)
}
