//! The dataset that is restored into, as it is or will be. Pure.

use crate::model::names::{Guid, short_name};
use crate::state::store::format::Entry;

#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    New,
    Has {
        /// Oldest first: name and guid.
        snapshots: Vec<(String, Guid)>,
        /// The one that `zfs receive` builds on: the latest, or an earlier one since which nothing was
        /// written. None: the dataset has no snapshot.
        base: Option<Guid>,
    },
}

impl Target {
    pub fn snapshots(&self) -> &[(String, Guid)] {
        match self {
            Target::New => &[],
            Target::Has { snapshots, .. } => snapshots,
        }
    }

    /// The name that this snapshot has there.
    pub fn name_of(&self, guid: Guid) -> Option<&str> {
        self.snapshots().iter().find(|(_, there)| *there == guid).map(|(name, _)| name.as_str())
    }

    pub fn latest_name(&self) -> Option<&str> {
        self.snapshots().last().map(|(name, _)| name.as_str())
    }

    /// The name of the snapshot to build on.
    pub fn base_name(&self) -> Option<&str> {
        match self {
            Target::Has { base: Some(base), .. } => self.name_of(*base),
            _ => None,
        }
    }

    /// As it will be when this backup has been received.
    pub fn with(&self, entry: &Entry, dataset: &str) -> Target {
        let guid = entry.snapshot.guid;
        let received = (format!("{dataset}@{}", short_name(&entry.snapshot.name)), guid);
        Target::Has { snapshots: [self.snapshots(), &[received]].concat(), base: Some(guid) }
    }
}
