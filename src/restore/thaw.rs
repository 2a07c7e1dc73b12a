//! Asks S3 to thaw what a restore needs.

use std::collections::HashSet;

use super::survey::{ObjectState, Survey};
use crate::chunk_io::each::for_each;
use crate::error::{Error, Result};
use crate::model::archive::{Access, Tier};
use crate::model::utc::Utc;
use crate::s3::calls::Thawing;
use crate::s3::client::Client;
use crate::state::archive_states::{Seen, SeenState};

const DEFAULT_DAYS: u32 = 7;
/// S3 accepts more, but what is needed for years should be stored in another class.
const MAX_DAYS: u32 = 365;

/// As the user gave them; what is not given has a default, and changes nothing that has begun.
#[derive(Clone, Copy)]
pub struct ThawOptions {
    tier: Option<Tier>,
    days: Option<u32>,
    changes_begun: bool,
}

impl ThawOptions {
    pub fn parse(tier: Option<&str>, days: Option<u32>) -> Result<Self> {
        let tier = tier.map(str::parse).transpose().map_err(Error::usage)?;
        if days.is_some_and(|days| !(1..=MAX_DAYS).contains(&days)) {
            return Err(Error::usage(format!("a number of days is from 1 to {MAX_DAYS}")));
        }
        Ok(ThawOptions { tier, days, changes_begun: true })
    }

    pub fn tier(&self) -> Tier {
        self.tier.unwrap_or(Tier::Bulk)
    }

    /// How long copies are kept.
    pub fn days(&self) -> u32 {
        self.days.unwrap_or(DEFAULT_DAYS)
    }

    /// To ask again later: what has begun stays as it is.
    pub fn for_new_only(self) -> Self {
        ThawOptions { changes_begun: false, ..self }
    }

    /// Is there something to ask S3 for? A faster tier speeds up what is being thawed, and the time of a copy
    /// can be set anew.
    fn asks_for(&self, access: Access) -> bool {
        match access {
            Access::Immediate => false,
            Access::Archived(_) => true,
            Access::Thawing(_) => self.changes_begun && self.tier.is_some(),
            Access::Copy { archive, .. } => {
                self.changes_begun && archive.makes_copies() && self.days.is_some()
            }
        }
    }
}

/// What S3 is to be asked for. The error: an object has no such tier.
pub fn to_ask_for<'s>(
    surveys: impl IntoIterator<Item = &'s mut Survey>,
    options: &ThawOptions,
) -> Result<Vec<&'s mut ObjectState>> {
    let objects = surveys.into_iter().flat_map(|survey| &mut survey.objects);
    let objects: Vec<&mut ObjectState> = objects.filter(|object| options.asks_for(object.access)).collect();
    let tier = options.tier();
    let lacking = objects
        .iter()
        .find_map(|object| object.access.archive().filter(|archive| archive.duration(tier).is_none()));
    match lacking {
        None => Ok(objects),
        Some(archive) => {
            let offered = [Tier::Standard, Tier::Bulk]
                .into_iter()
                .filter_map(|tier| archive.duration(tier).map(|duration| format!("{tier} ({duration})")));
            let offered: Vec<String> = offered.collect();
            Err(Error::usage(format!("{} has no {tier} tier", archive.class()))
                .hint(format!("use {}", offered.join(" or "))))
        }
    }
}

/// Sends the requests, and updates what is known of the objects. Returns the keys of those that S3 has begun
/// to thaw now.
pub fn thaw(
    client: &Client,
    objects: Vec<&mut ObjectState>,
    options: &ThawOptions,
) -> Result<HashSet<String>> {
    let answers = for_each(&objects, client.jobs, |object| {
        let Some(archive) = object.access.archive() else { return Ok((object.access, false)) };
        match client.restore_object(&object.key, archive, options.tier(), options.days())? {
            Thawing::Begun => Ok((Access::Thawing(archive), true)),
            Thawing::InProgress => Ok((Access::Thawing(archive), false)),
            Thawing::NotNeeded => match client.head(&object.key)? {
                Some(head) => Ok((client.access(&object.key, &head)?, false)),
                None => Ok((object.access, false)),
            },
        }
    })?;
    let mut begun = HashSet::new();
    for (object, (access, now)) in objects.into_iter().zip(answers) {
        object.access = access;
        if now {
            begun.insert(object.key.clone());
        }
    }
    Ok(begun)
}

/// What is kept for `list`; none: nothing of it is archived. A backup is as readable as its worst object.
pub fn seen(survey: &Survey, begun: &HashSet<String>, now: Utc) -> Option<Seen> {
    let any = |is: fn(&Access) -> bool| survey.objects.iter().any(|object| is(&object.access));
    let state = if any(|access| matches!(access, Access::Archived(_))) {
        SeenState::Archived
    } else if any(|access| matches!(access, Access::Thawing(_))) {
        SeenState::Thawing
    } else if any(|access| matches!(access, Access::Copy { .. })) {
        SeenState::Readable
    } else {
        return None;
    };
    let is_new = survey.objects.iter().any(|object| begun.contains(&object.key));
    let since = Some(now).filter(|_| state == SeenState::Thawing && is_new);
    Some(Seen { state, since, until: survey.until(), seen: now })
}
