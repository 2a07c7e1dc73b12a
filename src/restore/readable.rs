//! The plan of a restore, of backups that can be read now, or else of backups that can be thawed. S3 is asked
//! for each object before the first byte is received.

use std::collections::{HashMap, HashSet};

use super::Restore;
use super::plan::{is_clone, plan, plan_from_nothing};
use super::stored::survey;
use super::survey::{ObjectState, Survey, why_unreadable};
use super::target::Target;
use crate::chunk_io::each::for_each;
use crate::error::{Error, Result, Status};
use crate::model::archive::Access;
use crate::model::backup::Point;
use crate::model::keys;
use crate::s3::client::Client;
use crate::state::store::format::{Contents, Entry, State};

/// A backup that a restore fetches.
pub struct PlannedStep {
    /// Its place in the store.
    pub place: usize,
    pub bytes: u64,
    pub survey: Survey,
}

/// What fetching the entry at a place in the store costs, in bytes; none: it cannot be fetched.
type Cost<'a> = dyn Fn(usize, &Entry) -> Option<u64> + 'a;

pub struct Planner<'a> {
    client: &'a Client,
    contents: &'a Contents,
    /// A backup that is being removed is used only if there is no other route: before what must be thawed, or
    /// after it?
    removing_last: bool,
    /// Sizes of the Python tool's objects, by key.
    python_sizes: HashMap<String, u64>,
}

impl<'a> Planner<'a> {
    pub fn new(client: &'a Client, contents: &'a Contents, removing_last: bool) -> Result<Self> {
        let python_sizes = python_sizes(client, contents)?;
        Ok(Planner { client, contents, removing_last, python_sizes })
    }

    /// The plan from the target's base, or if none starts there, from an earlier snapshot since which nothing
    /// was written. Also returns the target with that base.
    pub fn plan_from_any_base(&self, restore: &Restore, has: Target) -> Result<(Vec<PlannedStep>, Target)> {
        let refused = match self.plan(restore, &has) {
            Err(error) if error.status == Status::Refused => error,
            planned => return planned.map(|steps| (steps, has)),
        };
        let Target::Has { snapshots, base: Some(base) } = &has else { return Err(refused) };
        let before = snapshots.iter().rev().skip_while(|(_, guid)| guid != base).skip(1);
        for (name, guid) in before {
            if !restore.zfs.is_unchanged_since(name).unwrap_or(false) {
                break;
            }
            let from = Target::Has { snapshots: snapshots.clone(), base: Some(*guid) };
            if let Ok(steps) = self.plan(restore, &from) {
                return Ok((steps, from));
            }
        }
        Err(refused)
    }

    /// The plan onto what the target has.
    pub fn plan(&self, restore: &Restore, has: &Target) -> Result<Vec<PlannedStep>> {
        let Restore { zfs, wanted, target, .. } = restore;
        let origins = if *has == Target::New && self.contents.entries.iter().any(is_clone) {
            &zfs.snapshots_of_pool(target)? | restore.planned
        } else {
            HashSet::new()
        };
        self.choose(|cost| plan(self.contents, cost, wanted, target, has, &origins))
    }

    /// The plan for a host that has nothing: of a clone, first the chain of its origin.
    pub fn plan_from_nothing(&self, wanted: &Point) -> Result<Vec<PlannedStep>> {
        self.choose(|cost| plan_from_nothing(self.contents, cost, wanted))
    }

    /// The cheapest route whose backups can all be read now; or else the route of which the fewest bytes must
    /// be thawed. `route` finds the cheapest, and is called again as more is known. If there is none, the
    /// error names every unreadable object of the first route.
    fn choose(&self, route: impl Fn(&Cost) -> Result<Vec<usize>>) -> Result<Vec<PlannedStep>> {
        let mut surveys: HashMap<usize, Survey> = HashMap::new();
        let mut first_choice: Option<Vec<usize>> = None;
        let mut no_route = Error::failed("there is no route");
        let (removing, thawing) = ((false, true), (true, false));
        let middle = if self.removing_last { [thawing, removing] } else { [removing, thawing] };
        for (thaw, removing) in [(false, false), middle[0], middle[1], (true, true)] {
            loop {
                let cost = |n: usize, entry: &Entry| {
                    let is_excluded = entry.state == State::Removing && !removing;
                    let size = self.size(entry).filter(|_| !is_excluded)?;
                    match surveys.get(&n) {
                        Some(survey) if survey.is_readable() => Some(size),
                        Some(survey) if !thaw || !survey.can_be_thawed() => None,
                        Some(survey) => Some(cost_of_thawing(size, survey)),
                        None => Some(size),
                    }
                };
                let places = match route(&cost) {
                    Ok(places) => places,
                    Err(error) => {
                        no_route = error;
                        break;
                    }
                };
                let unknown: Vec<usize> =
                    places.iter().copied().filter(|n| !surveys.contains_key(n)).collect();
                if unknown.is_empty() {
                    return Ok(places.into_iter().map(|place| self.step(place, &mut surveys)).collect());
                }
                surveys.extend(unknown.iter().copied().zip(self.survey(&unknown)?));
                first_choice.get_or_insert(places);
            }
        }
        match first_choice {
            // the reason why it cannot be read is more useful
            Some(places) => {
                let mut chosen: Vec<Survey> = places.iter().filter_map(|n| surveys.remove(n)).collect();
                Err(why_unreadable(&mut chosen))
            }
            None => Err(no_route),
        }
    }

    fn step(&self, place: usize, surveys: &mut HashMap<usize, Survey>) -> PlannedStep {
        PlannedStep {
            place,
            bytes: self.size(&self.contents.entries[place]).unwrap_or_default(),
            survey: surveys.remove(&place).unwrap_or_default(),
        }
    }

    fn survey(&self, places: &[usize]) -> Result<Vec<Survey>> {
        let Contents { prefix, entries, .. } = self.contents;
        for_each(places, self.client.memory.jobs(), |n| survey(self.client, prefix, &entries[*n]))
    }

    fn size(&self, entry: &Entry) -> Option<u64> {
        match &entry.stream {
            Some(stream) => Some(stream.size),
            None => self.python_sizes.get(&keys::python(&entry.backup())).copied(),
        }
    }
}

/// Bytes that must be thawed first count far more than those that only must be fetched. What is being thawed
/// already is paid for, but must be waited for.
fn cost_of_thawing(size: u64, survey: &Survey) -> u64 {
    let weight = |object: &ObjectState| match object.access {
        Access::Archived(_) => object.bytes.saturating_mul(1000),
        Access::Thawing(_) => object.bytes.saturating_mul(10),
        _ => 0,
    };
    survey.objects.iter().fold(size, |sum, object| sum.saturating_add(weight(object)))
}

/// The Python tool's list has no sizes.
fn python_sizes(client: &Client, contents: &Contents) -> Result<HashMap<String, u64>> {
    let mut sizes = HashMap::new();
    for entry in contents.entries.iter().filter(|entry| entry.stream.is_none()) {
        let key = keys::python(&entry.backup());
        if let Some(head) = client.head(&key)? {
            sizes.insert(key, head.size);
        }
    }
    Ok(sizes)
}
