//! Stored backups on their way back into a dataset. Nothing in the target is destroyed or rolled back. In
//! order:
//!
//! - `inspect`: what the target has;
//! - `route`, `plan`: which backups restore a snapshot onto that, for the fewest bytes;
//! - `readable`: the same, of those backups that can be read now;
//! - `stored`: one stored backup, read and checked chunk by chunk;
//! - `receive`: one backup piped into `zfs receive`;
//! - `resume`: where an interrupted receive continues.

mod inspect;
mod plan;
mod readable;
mod receive;
pub mod resume;
mod route;
pub mod stored;
pub mod target;

use std::sync::Arc;

use crate::error::{Error, Result, Status};
use crate::model::backup::Point;
use crate::model::units::human_size;
use crate::s3::client::Client;
use crate::state::store::format::Contents;
use crate::ui::Ui;
use crate::zfs::Zfs;
use inspect::inspect_target;
use plan::{DISCARD_HINT, find_begun};
use readable::Planner;
pub use receive::PlannedReceive;
use resume::partial::PartialReceive;
use stored::{StoredBackup, all_as_one};
use target::Target;

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
    /// Discard what an interrupted receive has left, instead of continuing it.
    pub discard: bool,
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
    /// The places in the store of the backups that follow, and their bytes.
    pub steps: Vec<(usize, u64)>,
    /// The target has a part of a stream that must be discarded first.
    pub discard: bool,
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
        // a dataset that only an interrupted receive has created has its properties already
        if !self.properties.is_empty() && has != Target::New {
            return Err(Error::usage(format!("-o is for a new dataset, and {} exists", self.target))
                .hint("'zfs set' changes its properties"));
        }
        let planner = Planner::new(self)?;
        match &state.token {
            Some(token) if !self.discard => {
                self.plan_resume(&planner, token, has).map(|plan| Plan::Receive(Box::new(plan)))
            }
            token => {
                let (steps, onto) = planner.plan_from_any_base(has)?;
                self.note_later_snapshots(&onto);
                let discard = token.is_some();
                Ok(Plan::Receive(Box::new(Receives { onto, resumed: None, steps, discard })))
            }
        }
    }

    fn plan_resume(&self, planner: &Planner, token: &str, has: Target) -> Result<Receives<'a>> {
        let target = self.target;
        self.ui.note(&format!("finding the point where the receive into {target} was interrupted"));
        let (resumed, then) = self.find_interrupted(token, &has)?;
        let backup = resumed.entry.backup().describe();
        let hint = format!("{target} has a part of {backup}; {DISCARD_HINT}");
        let steps = planner.plan(&then).map_err(|error| hint_if_refused(error, &hint))?;
        Ok(Receives { onto: has, resumed: Some(resumed), steps, discard: false })
    }

    /// The backup of which the target has a part, ready to be resumed, and the target as it will be after
    /// that.
    fn find_interrupted(&self, token: &str, has: &Target) -> Result<(PlannedReceive<'a>, Target)> {
        let (text, failed) = self.zfs.explain_token(token)?;
        let cannot = |why: &str| {
            Error::refused(format!("{} has a part of an interrupted stream: {why}", self.target))
                .hint(DISCARD_HINT)
        };
        let partial = PartialReceive::parse(&text).map_err(|why| cannot(&why))?.ok_or_else(|| {
            let silent = || cannot("'zfs send -nvP -t' does not name it");
            failed.map_or_else(silent, |error| error.hint(DISCARD_HINT))
        })?;
        let (n, then) = find_begun(self.contents, &partial, self.target, has)?;
        let entry = &self.contents.entries[n];
        let stored = StoredBackup::open(self.client, &self.contents.prefix, entry).map_err(all_as_one)?;
        let point =
            stored.find_resume_point(&partial).map_err(|error| hint_if_refused(error, DISCARD_HINT))?;
        Ok((PlannedReceive { entry, stored, resume_at: Some(point) }, then))
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

    /// Does what was planned.
    pub fn run(&self, plan: Receives) -> Result<()> {
        let Receives { onto, resumed, steps, discard } = plan;
        if discard {
            self.discard_partial()?;
            let state = inspect_target(self.zfs, self.target, self.contents)?;
            if state.without_partial().snapshots() != onto.snapshots() {
                return Err(Error::refused(format!("{} has changed since it was checked", self.target))
                    .hint("check it, and run the restore again"));
            }
        }
        let mut properties = self.properties;
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
        for (n, _) in &steps {
            let entry = &self.contents.entries[*n];
            let stored = StoredBackup::open(self.client, &self.contents.prefix, entry).map_err(all_as_one)?;
            let receive = PlannedReceive { entry, stored, resume_at: None };
            // only the first one creates the dataset
            receive.receive(self.zfs, self.target, std::mem::take(&mut properties), self.ui)?;
        }
        Ok(())
    }

    pub fn discard_partial(&self) -> Result<()> {
        self.ui.note(&format!("discarding the part of a stream in {}", self.target));
        self.zfs.discard_partial_receive(self.target)
    }
}

fn hint_if_refused(error: Error, hint: &str) -> Error {
    if error.status == Status::Refused { error.hint(hint) } else { error }
}
