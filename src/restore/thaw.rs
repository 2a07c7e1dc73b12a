//! Asks S3 to thaw what a restore needs, and keeps for `list` what was seen.

use std::sync::atomic::{AtomicBool, Ordering};

use super::readable::PlannedStep;
use super::survey::{ObjectState, Survey};
use crate::chunk_io::each::for_each;
use crate::error::{Error, Result};
use crate::model::archive::{Access, Tier};
use crate::model::units::{count, human_size};
use crate::model::utc::Utc;
use crate::s3::calls::Thawing;
use crate::s3::client::Client;
use crate::state::archive_states::{ArchiveStates, Seen, SeenState};
use crate::state::store::format::Contents;

const DEFAULT_DAYS: u32 = 7;
/// S3 accepts more, but what is needed for years should be stored in another class.
const MAX_DAYS: u32 = 365;

/// As the user gave them; what is not given has a default, and changes nothing that has begun.
#[derive(Clone, Copy)]
pub struct ThawOptions {
    tier: Option<Tier>,
    days: Option<u32>,
}

impl ThawOptions {
    pub fn parse(tier: Option<&str>, days: Option<u32>) -> Result<Self> {
        let tier = tier.map(str::parse).transpose().map_err(Error::usage)?;
        if days.is_some_and(|days| !(1..=MAX_DAYS).contains(&days)) {
            return Err(Error::usage(format!("a number of days is from 1 to {MAX_DAYS}")));
        }
        Ok(ThawOptions { tier, days })
    }

    pub fn tier(&self) -> Tier {
        self.tier.unwrap_or(Tier::Bulk)
    }

    /// How long copies are kept.
    pub fn days(&self) -> u32 {
        self.days.unwrap_or(DEFAULT_DAYS)
    }
}

/// Thaws the objects of some backups.
pub struct Thaw<'a> {
    pub client: &'a Client,
    pub contents: &'a Contents,
    pub options: ThawOptions,
    /// As they were seen before.
    pub states: ArchiveStates,
    pub now: Utc,
}

/// A request to S3.
pub struct ToThaw<'s> {
    pub object: &'s mut ObjectState,
    tier: Tier,
    days: u32,
}

/// What became of the requests.
#[derive(Default)]
pub struct Thawed {
    /// To be kept for `list`.
    pub news: Vec<(String, Seen)>,
    /// Objects that S3 was already thawing, and does not thaw faster.
    pub not_faster: u64,
    /// The first that failed. The others were sent all the same.
    pub error: Option<Error>,
}

impl Thaw<'_> {
    fn before(&self, step: &PlannedStep) -> Option<&Seen> {
        self.states.get(&self.key(step))
    }

    fn key(&self, step: &PlannedStep) -> String {
        let entry = &self.contents.entries[step.place];
        entry.first_key(&self.contents.prefix)
    }

    /// The requests that are needed. The error: an object has no such tier.
    pub fn requests<'s>(&self, steps: &'s mut [PlannedStep]) -> Result<Vec<ToThaw<'s>>> {
        let mut requests = Vec::new();
        for step in steps {
            let before = self.before(step).cloned();
            for object in &mut step.survey.objects {
                if let Some((tier, days)) = self.request(object.access, before.as_ref()) {
                    requests.push(ToThaw { object, tier, days });
                }
            }
        }
        let lacking = requests.iter().find_map(|ToThaw { object, tier, .. }| {
            object.access.archive().filter(|archive| archive.duration(*tier).is_none())
        });
        let Some(archive) = lacking else { return Ok(requests) };
        let offered = [Tier::Standard, Tier::Bulk]
            .into_iter()
            .filter_map(|tier| archive.duration(tier).map(|duration| format!("{tier} ({duration})")));
        let offered: Vec<String> = offered.collect();
        Err(Error::usage(format!("{} has no {} tier", archive.class(), self.options.tier()))
            .hint(format!("use {}", offered.join(" or "))))
    }

    /// The tier and the days to ask for; none: there is nothing to ask for.
    fn request(&self, access: Access, before: Option<&Seen>) -> Option<(Tier, u32)> {
        let ThawOptions { tier, days } = self.options;
        match access {
            Access::Immediate => None,
            Access::Archived(_) => Some((self.options.tier(), self.options.days())),
            // a faster tier speeds it up; S3 refuses if anything else differs from the first request
            Access::Thawing(_) => {
                let first = before.filter(|before| before.state == SeenState::Thawing);
                let tier = tier.filter(|tier| first.and_then(|first| first.tier) < Some(*tier))?;
                Some((tier, first.and_then(|first| first.days).unwrap_or(self.options.days())))
            }
            // keep it for longer
            Access::Copy { archive, until } => {
                let days = days.filter(|_| archive.makes_copies())?;
                let wanted = self.now.unix_seconds() + 86_400 * i64::from(days - 1);
                let is_long_enough = until.is_some_and(|until| until.unix_seconds() >= wanted);
                if is_long_enough { None } else { Some((self.options.tier(), days)) }
            }
        }
    }

    /// Sends the requests, and updates what is known of the objects.
    pub fn run(&self, steps: &mut [PlannedStep]) -> Result<Thawed> {
        let before: Vec<(String, Option<Seen>)> =
            steps.iter().map(|step| (self.key(step), self.before(step).cloned())).collect();
        let was_archived: Vec<bool> = steps.iter().map(|step| step.survey.any_archived()).collect();
        let requests = self.requests(steps)?;
        let failed = AtomicBool::new(false);
        let answers = for_each(&requests, self.client.memory.jobs(), |request| {
            if failed.load(Ordering::SeqCst) {
                return Ok(None);
            }
            let answer = self.send(request);
            failed.fetch_or(answer.is_err(), Ordering::SeqCst);
            Ok(Some(answer))
        })?;
        let mut thawed = Thawed::default();
        for (request, answer) in requests.into_iter().zip(answers) {
            match answer {
                Some(Ok((access, in_progress))) => {
                    let was_thawing = matches!(request.object.access, Access::Thawing(_));
                    thawed.not_faster += u64::from(in_progress && was_thawing);
                    request.object.access = access;
                    request.object.asked = Some((request.tier, request.days)).filter(|_| !in_progress);
                }
                Some(Err(error)) => thawed.error = thawed.error.or(Some(error)),
                None => {}
            }
        }
        for ((step, (key, before)), was_archived) in steps.iter().zip(before).zip(was_archived) {
            thawed.news.push((key, self.seen(&step.survey, before, was_archived)));
        }
        Ok(thawed)
    }

    /// How the object can be read after the request, and whether S3 was thawing it already.
    fn send(&self, ToThaw { object, tier, days }: &ToThaw) -> Result<(Access, bool)> {
        let Some(archive) = object.access.archive() else { return Ok((object.access, false)) };
        match self.client.restore_object(&object.key, archive, *tier, *days)? {
            Thawing::Begun => Ok((Access::Thawing(archive), false)),
            Thawing::InProgress => Ok((Access::Thawing(archive), true)),
            Thawing::NotNeeded => match self.client.head(&object.key)? {
                Some(head) => Ok((self.client.access(&object.key, &head)?, false)),
                None => Ok((object.access, false)),
            },
        }
    }

    /// A backup is as readable as its worst object.
    fn seen(&self, survey: &Survey, before: Option<Seen>, was_archived: bool) -> Seen {
        let any = |is: fn(&Access) -> bool| survey.objects.iter().any(|object| is(&object.access));
        let state = if any(|access| matches!(access, Access::Archived(_))) {
            SeenState::Archived
        } else if any(|access| matches!(access, Access::Thawing(_))) {
            SeenState::Thawing
        } else {
            SeenState::Readable
        };
        let is_thawing = state == SeenState::Thawing;
        let before = before.filter(|before| is_thawing && before.state == SeenState::Thawing);
        let asked = survey.objects.iter().find_map(|object| object.asked).filter(|_| is_thawing);
        let since = before.as_ref().and_then(|before| before.since);
        Seen {
            state,
            since: since.or(asked.filter(|_| was_archived).map(|_| self.now)),
            tier: asked.map(|(tier, _)| tier).or(before.as_ref().and_then(|before| before.tier)),
            days: asked.map(|(_, days)| days).or(before.as_ref().and_then(|before| before.days)),
            until: survey.until(),
            seen: self.now,
        }
    }
}

/// What S3 is still thawing; none: nothing. `states`: by the key of a step's backup.
pub fn under_way(contents: &Contents, steps: &[PlannedStep], news: &[(String, Seen)]) -> Option<String> {
    let (mut objects, mut bytes) = (0u64, 0u64);
    let mut durations: Vec<String> = Vec::new();
    for step in steps {
        let key = contents.entries[step.place].first_key(&contents.prefix);
        let tier = news.iter().find(|(of, _)| *of == key).and_then(|(_, seen)| seen.tier);
        for object in step.survey.archived() {
            objects += 1;
            bytes = bytes.saturating_add(object.bytes);
            let duration = object.access.archive().zip(tier).and_then(|(archive, tier)| {
                archive.duration(tier).map(|duration| format!("{duration} ({tier})"))
            });
            durations.extend(duration.filter(|duration| !durations.contains(duration)));
        }
    }
    let takes = if durations.is_empty() {
        String::new()
    } else {
        format!(", which takes {}", durations.join(" or "))
    };
    (objects > 0)
        .then(|| format!("S3 is thawing {} ({}){takes}", count(objects, "object"), human_size(bytes)))
}
