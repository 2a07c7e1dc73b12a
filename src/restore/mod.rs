//! Stored backups on their way back into a dataset. Nothing in the target is destroyed or rolled back. In
//! order:
//!
//! - `inspect`: what the target has;
//! - `route`, `plan`: which backups restore a snapshot onto that, for the fewest bytes;
//! - `survey`, `readable`: the same, of those backups that can be read now, or else thawed;
//! - `thaw`, `wait`: S3 is asked to thaw what is archived, and the restore goes on as it becomes readable;
//! - `stored`: one stored backup, read and checked chunk by chunk;
//! - `unfiltering`: undoes its filter, if it has one;
//! - `receive`: one backup piped into `zfs receive`;
//! - `resume`: where an interrupted receive continues;
//! - `newest`: the newest snapshot of a dataset, where the user has named none;
//! - `tree`: the datasets that `restore -r` restores, each like this;
//! - `properties`: those that were kept with a backup, set on what was restored.

mod inspect;
pub mod newest;
mod plan;
pub mod properties;
mod readable;
mod receive;
pub mod resume;
pub mod route;
pub mod stored;
pub mod survey;
pub mod target;
pub mod thaw;
pub mod tree;
mod unfiltering;
pub mod wait;

use std::collections::HashSet;
use std::sync::Arc;

use crate::error::{Error, Result, Status};
use crate::filter::Filter;
use crate::model::backup::Point;
use crate::model::names::Guid;
use crate::model::units::human_size;
use crate::s3::client::Client;
use crate::state::store::format::Contents;
use crate::ui::Ui;
use crate::zfs::Zfs;
use inspect::inspect_target;
use plan::{DISCARD_HINT, find_begun};
pub use readable::PlannedStep;
use readable::Planner;
pub use receive::PlannedReceive;
use resume::partial::PartialReceive;
use stored::{Opened, StoredBackup, survey};
use survey::{Survey, why_unreadable};
use target::Target;
use unfiltering::Unfiltering;

/// The restore of one snapshot into one dataset.
pub struct Restore<'a> {
    pub zfs: &'a Zfs,
    pub client: &'a Client,
    pub contents: &'a Contents,
    pub ui: &'a Arc<Ui>,
    pub wanted: Point,
    pub target: &'a str,
    /// Of the dataset that it creates.
    pub properties: &'a [String],
    /// What undoes the filter of backups that were filtered.
    pub unfilter: Option<&'a Filter>,
    /// Discard what an interrupted receive has left, instead of continuing it.
    pub discard: bool,
    /// It waits for what is thawed.
    pub waits: bool,
    /// An earlier run of the same command may have created the target already, with its properties.
    pub may_exist: bool,
    /// Snapshots that will be in the target's pool by then, in a dry run of several restores.
    pub planned: &'a HashSet<Guid>,
}

/// What a restore will do.
pub enum Plan<'a> {
    /// The target has the snapshot, under the name `name`.
    AlreadyThere {
        name: String,
        latest: String,
        discard: bool,
    },
    Receive(Box<Receives<'a>>),
}

pub struct Receives<'a> {
    /// The target as the first of `steps` will find it, or the backup that is resumed.
    pub onto: Target,
    /// The backup of which the target has a part, if that is resumed.
    pub resumed: Option<PlannedReceive<'a>>,
    /// The backups that follow. If one that is to be resumed is archived, it is the first of these.
    pub steps: Vec<PlannedStep>,
    /// The target has a part of a stream that must be discarded first.
    pub discard: bool,
}

/// The backups that restore `wanted` on a host that has nothing.
pub fn needed_from_nothing(client: &Client, contents: &Contents, wanted: &Point) -> Result<Vec<PlannedStep>> {
    Planner::new(client, contents, true)?.plan_from_nothing(wanted)
}

impl Receives<'_> {
    /// The snapshots that are received, and how many bytes of the stream of each.
    pub fn received(&self, contents: &Contents) -> Vec<(Guid, u64)> {
        let resumed = self.resumed.iter().map(|resumed| (resumed.entry.snapshot.guid, resumed.remaining()));
        let steps = self.steps.iter().map(|step| {
            let entry = &contents.entries[step.place];
            (entry.snapshot.guid, entry.stream.as_ref().map_or(step.bytes, |stream| stream.size))
        });
        resumed.chain(steps).collect()
    }

    /// Leaves out the first backup that cannot be read yet, and those after it. Returns whether something is
    /// left that can be received.
    pub fn keep_readable(&mut self) -> bool {
        let readable = self.steps.iter().take_while(|step| step.survey.is_readable()).count();
        self.steps.truncate(readable);
        self.resumed.is_some() || readable > 0
    }

    /// Refuses what must be thawed first.
    pub fn check_readable(&mut self) -> Result<()> {
        if self.steps.iter().all(|step| step.survey.is_readable()) {
            return Ok(());
        }
        Err(why_unreadable(self.steps.iter_mut().map(|step| &mut step.survey)))
    }
}

impl<'a> Restore<'a> {
    /// Inspects the target, and plans. Changes nothing.
    pub fn plan(&self) -> Result<Plan<'a>> {
        let state = inspect_target(self.zfs, self.target, self.contents)?;
        let has = state.without_partial();
        if let Some(name) = has.name_of(self.wanted.guid) {
            let latest = has.latest_name().unwrap_or(name).to_string();
            let discard = state.token.is_some() && self.discard;
            return Ok(Plan::AlreadyThere { name: name.to_string(), latest, discard });
        }
        self.check_properties(&has)?;
        let planner = Planner::new(self.client, self.contents, self.waits)?;
        match &state.token {
            Some(token) if !self.discard => {
                self.plan_resume(&planner, token, has).map(|plan| Plan::Receive(Box::new(plan)))
            }
            token => {
                let (steps, onto) = planner.plan_from_any_base(self, has)?;
                self.check_unfilter(&steps)?;
                self.note_later_snapshots(&onto);
                let discard = token.is_some();
                Ok(Plan::Receive(Box::new(Receives { onto, resumed: None, steps, discard })))
            }
        }
    }

    /// The backups of the plan, before it is known whether they can be read; none: the target has the
    /// snapshot. One of which the target has a part is the first.
    pub fn needed(&self) -> Result<Option<Vec<PlannedStep>>> {
        let state = inspect_target(self.zfs, self.target, self.contents)?;
        let has = state.without_partial();
        if has.name_of(self.wanted.guid).is_some() {
            return Ok(None);
        }
        self.check_properties(&has)?;
        let planner = Planner::new(self.client, self.contents, true)?;
        let steps = match &state.token {
            Some(token) if !self.discard => {
                let (place, _, then) = self.find_begun(token, &has)?;
                let mut survey = survey(self.client, &self.contents.prefix, &self.contents.entries[place])?;
                if !survey.can_be_thawed() {
                    return Err(why_unreadable([&mut survey]));
                }
                let begun = self.begun_step(place, survey);
                let rest = self.plan_rest(&planner, place, &then)?;
                std::iter::once(begun).chain(rest).collect()
            }
            _ => planner.plan_from_any_base(self, has)?.0,
        };
        Ok(Some(steps))
    }

    /// A dataset that only an interrupted receive has created has its properties already.
    fn check_properties(&self, has: &Target) -> Result<()> {
        if self.properties.is_empty() || *has == Target::New {
            return Ok(());
        }
        if !self.may_exist {
            return Err(Error::usage(format!("-o is for a new dataset, and {} exists", self.target))
                .hint("'zfs set' changes its properties"));
        }
        self.ui.note_once(&format!("{} exists: -o does not change its properties", self.target));
        Ok(())
    }

    /// The plan to resume the backup of which the target has a part, and to receive the rest.
    fn plan_resume(&self, planner: &Planner, token: &str, has: Target) -> Result<Receives<'a>> {
        let (place, partial, then) = self.find_begun(token, &has)?;
        let entry = &self.contents.entries[place];
        let mut archived = None;
        let resumed = match StoredBackup::open(self.client, &self.contents.prefix, entry)? {
            Opened::Readable(stored) => {
                let stored = stored.unfiltered_by(self.unfilter)?;
                self.ui.note(&format!(
                    "finding the point where the receive into {} was interrupted",
                    self.target
                ));
                let point = stored
                    .find_resume_point(&partial)
                    .map_err(|error| hint_if_refused(error, DISCARD_HINT))?;
                Some(PlannedReceive { entry, stored, resume_at: Some(point) })
            }
            Opened::Unreadable(survey) if survey.can_be_thawed() => {
                archived = Some(self.begun_step(place, survey));
                None
            }
            Opened::Unreadable(mut survey) => return Err(why_unreadable([&mut survey])),
        };
        let steps: Vec<PlannedStep> =
            archived.into_iter().chain(self.plan_rest(planner, place, &then)?).collect();
        self.check_unfilter(&steps)?;
        Ok(Receives { onto: has, resumed, steps, discard: false })
    }

    /// Before anything is received.
    fn check_unfilter(&self, steps: &[PlannedStep]) -> Result<()> {
        let mut entries = steps.iter().map(|step| &self.contents.entries[step.place]);
        entries.try_for_each(|entry| Unfiltering::of(entry, self.unfilter).map(|_| ()))
    }

    fn begun_step(&self, place: usize, survey: Survey) -> PlannedStep {
        let bytes = self.contents.entries[place].size().unwrap_or_default();
        PlannedStep { place, bytes, survey }
    }

    /// What follows the backup of which the target has a part.
    fn plan_rest(&self, planner: &Planner, begun: usize, then: &Target) -> Result<Vec<PlannedStep>> {
        let backup = self.contents.entries[begun].backup().describe();
        let hint = format!("{} has a part of {backup}; {DISCARD_HINT}", self.target);
        planner.plan(self, then).map_err(|error| hint_if_refused(error, &hint))
    }

    /// The place of the backup of which the target has a part, that part, and the target as it will be after
    /// that backup.
    fn find_begun(&self, token: &str, has: &Target) -> Result<(usize, PartialReceive, Target)> {
        let partial = self.partial_receive(token)?;
        let (place, then) = find_begun(self.contents, &partial, self.target, has)?;
        Ok((place, partial, then))
    }

    fn partial_receive(&self, token: &str) -> Result<PartialReceive> {
        let (text, failed) = self.zfs.explain_token(token)?;
        let cannot = |why: &str| {
            Error::refused(format!("{} has a part of an interrupted stream: {why}", self.target))
                .hint(DISCARD_HINT)
        };
        PartialReceive::parse(&text).map_err(|why| cannot(&why))?.ok_or_else(|| {
            let silent = || cannot("'zfs send -nvP -t' does not name it");
            failed.map_or_else(silent, |error| error.hint(DISCARD_HINT))
        })
    }

    fn note_later_snapshots(&self, onto: &Target) {
        if let Some((latest, base)) = onto.latest_name().zip(onto.base_name())
            && latest != base
        {
            self.ui.note(&format!(
                "{} has later snapshots than {base}, but has not changed since: the restore continues from {base}",
                self.target
            ));
        }
    }

    /// Does what was planned, if all of it can be read.
    pub fn run(&self, mut plan: Receives) -> Result<()> {
        plan.check_readable()?;
        let Receives { onto, resumed, steps, discard } = plan;
        if discard {
            self.discard_partial()?;
            let state = inspect_target(self.zfs, self.target, self.contents)?;
            if state.without_partial().snapshots() != onto.snapshots() {
                return Err(Error::refused(format!("{} has changed since it was checked", self.target))
                    .hint("check it, and run the restore again"));
            }
        }
        let mut properties = if onto == Target::New { self.properties } else { &[] };
        if let Some(resumed) = resumed {
            self.ui.note(&format!(
                "resuming {}, of which {} has the first {}",
                resumed.entry.backup().describe(),
                self.target,
                human_size(resumed.received())
            ));
            properties = &[];
            resumed.receive(self.zfs, self.target, &[], self.ui)?;
        }
        for step in &steps {
            let entry = &self.contents.entries[step.place];
            let stored = StoredBackup::open(self.client, &self.contents.prefix, entry)?.readable()?;
            let stored = stored.unfiltered_by(self.unfilter)?;
            let receive = PlannedReceive { entry, stored, resume_at: None };
            // only the first one creates the dataset
            receive.receive(self.zfs, self.target, std::mem::take(&mut properties), self.ui)?;
        }
        Ok(())
    }

    pub fn discard_partial_if_any(&self) -> Result<()> {
        let state = inspect_target(self.zfs, self.target, self.contents)?;
        if state.token.is_some() { self.discard_partial() } else { Ok(()) }
    }

    pub fn discard_partial(&self) -> Result<()> {
        self.ui.note(&format!("discarding the part of a stream in {}", self.target));
        self.zfs.discard_partial_receive(self.target)
    }
}

fn hint_if_refused(error: Error, hint: &str) -> Error {
    if error.status == Status::Refused { error.hint(hint) } else { error }
}
