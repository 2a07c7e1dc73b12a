//! The plan of a restore, of backups that can be read now, or else of backups that can be thawed. S3 is asked
//! for each object before the first byte is received.

use std::collections::{HashMap, HashSet};

use super::Restore;
use super::plan::{is_clone, plan, plan_from_nothing};
use super::stored::survey;
use super::survey::{Survey, why_unreadable};
use super::target::Target;
use crate::chunk_io::each::for_each;
use crate::error::{Error, Result, Status};
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
    /// Sizes of the Python tool's objects, by key.
    python_sizes: HashMap<String, u64>,
}

impl<'a> Planner<'a> {
    pub fn new(client: &'a Client, contents: &'a Contents) -> Result<Self> {
        Ok(Planner { client, contents, python_sizes: python_sizes(client, contents)? })
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
            zfs.snapshots_of_pool(target)?
        } else {
            HashSet::new()
        };
        self.choose(|cost| plan(self.contents, cost, wanted, target, has, &origins))
    }

    /// The plan for a host that has nothing: of a clone, first the chain of its origin.
    pub fn plan_from_nothing(&self, wanted: &Point) -> Result<Vec<PlannedStep>> {
        self.choose(|cost| plan_from_nothing(self.contents, cost, wanted))
    }

    /// The cheapest route whose backups can all be read now; or else the cheapest of those that can be thawed.
    /// `route` finds the cheapest, and is called again without what turned out to be unreadable. If there is
    /// none, the error names every unreadable object of the first route.
    fn choose(&self, route: impl Fn(&Cost) -> Result<Vec<usize>>) -> Result<Vec<PlannedStep>> {
        let mut surveys: HashMap<usize, Survey> = HashMap::new();
        let mut first_choice: Option<Vec<usize>> = None;
        let mut no_route = Error::failed("there is no route");
        // a backup that is being removed may still be whole: it is used only if there is no other route
        for (thaw, removing) in [(false, false), (false, true), (true, false), (true, true)] {
            loop {
                let is_usable = |survey: &Survey| survey.is_readable() || (thaw && survey.can_be_thawed());
                let cost = |n: usize, entry: &Entry| {
                    let excluded = surveys.get(&n).is_some_and(|survey| !is_usable(survey))
                        || (entry.state == State::Removing && !removing);
                    if excluded { None } else { self.size(entry) }
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
                surveys.extend(unknown.iter().copied().zip(self.survey(&unknown)?));
                if places.iter().all(|n| surveys.get(n).is_some_and(is_usable)) {
                    let step = |place: usize| PlannedStep {
                        place,
                        bytes: self.size(&self.contents.entries[place]).unwrap_or_default(),
                        survey: surveys.remove(&place).unwrap_or_default(),
                    };
                    return Ok(places.into_iter().map(step).collect());
                }
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

    fn survey(&self, places: &[usize]) -> Result<Vec<Survey>> {
        let Contents { prefix, entries, .. } = self.contents;
        for_each(places, self.client.jobs, |n| survey(self.client, prefix, &entries[*n]))
    }

    fn size(&self, entry: &Entry) -> Option<u64> {
        match &entry.stream {
            Some(stream) => Some(stream.size),
            None => self.python_sizes.get(&keys::python(&entry.backup())).copied(),
        }
    }
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
