//! What `list` knows of each backup.

use std::collections::HashMap;

use serde::Serialize;

use super::Scope;
use super::columns::Form;
use crate::model::archive::Archive;
use crate::model::copy::Id;
use crate::model::names::Guid;
use crate::model::storage_class::StorageClass;
use crate::model::utc::Utc;
use crate::restore::route::{self, Cost};
use crate::state::archive_states::{ArchiveStates, Seen, SeenState};
use crate::state::journal::record::Overview;
use crate::state::store::format::{Contents, Entry, State};
use crate::state::verified::{Proof, Verified};

#[derive(Serialize)]
pub struct Row {
    pub snapshot: String,
    pub guid: Guid,
    pub base: Option<String>,
    pub base_guid: Option<Guid>,
    pub copy: Option<Id>,
    pub bytes: Option<u64>,
    pub storage_class: Option<StorageClass>,
    pub stored: Option<Utc>,
    /// Seconds since then.
    pub age: Option<i64>,
    /// When the upload began that is running or pending.
    pub begun: Option<Utc>,
    pub state: &'static str,
    /// The command that has filtered it.
    pub filter: Option<String>,
    /// It is marked, as far as this host knows.
    pub kept: bool,
    /// Of the cheapest chain that restores the snapshot: how many backups it has, and their bytes.
    pub chain: Option<u32>,
    pub restore_bytes: Option<u64>,
    /// Of an archived backup, when S3 was last asked.
    pub last_seen: Option<Seen>,
    /// What `verify` has proven.
    pub verified: Option<Proof>,
}

/// What the files of this host say.
pub struct Known<'a> {
    pub contents: &'a Contents,
    pub states: ArchiveStates,
    pub verified: Verified,
}

impl Known<'_> {
    pub fn row(&self, entry: &Entry, costs: &HashMap<Guid, Cost>, now: Utc) -> Row {
        let key = entry.first_key(&self.contents.prefix);
        let cost = costs.get(&entry.snapshot.guid);
        let stream = entry.stream.as_ref();
        let stored = stream.map(|stream| stream.stored);
        Row {
            snapshot: entry.snapshot.name.clone(),
            guid: entry.snapshot.guid,
            base: entry.base.as_ref().map(|base| base.name.clone()),
            base_guid: entry.link().base,
            copy: entry.id,
            bytes: entry.size(),
            storage_class: stream.map(|stream| stream.storage_class.clone()),
            stored,
            age: stored.map(|stored| now.unix_seconds() - stored.unix_seconds()),
            begun: None,
            state: match entry.state {
                State::Stored => "stored",
                State::Removing => "removing",
            },
            filter: entry.filter().map(str::to_string),
            kept: entry.kept,
            chain: cost.map(|cost| cost.backups),
            restore_bytes: cost.map(|cost| cost.bytes),
            last_seen: self.states.get(&key).cloned(),
            verified: self.verified.backups.get(&key).cloned(),
        }
    }
}

/// What it takes to restore each snapshot from nothing.
pub fn costs(contents: &Contents) -> HashMap<Guid, Cost> {
    route::costs(&route::steps_of_stored(contents))
}

/// In the order in which they were stored.
pub fn rows(known: &Known, pending: Option<&Overview>, scope: Scope, now: Utc) -> Vec<Row> {
    let contents = known.contents;
    let costs = costs(contents);
    let mut rows: Vec<Row> = contents.entries.iter().map(|entry| known.row(entry, &costs, now)).collect();
    if let Some(Overview { intent, .. }) = pending
        && contents.entries.iter().all(|entry| entry.copy() != intent.copy())
    {
        rows.push(Row {
            snapshot: intent.snapshot.name.clone(),
            guid: intent.snapshot.guid,
            base: intent.base.as_ref().map(|base| base.name.clone()),
            base_guid: intent.base.as_ref().map(|base| base.guid),
            copy: intent.id,
            bytes: None,
            storage_class: Some(intent.storage_class.clone()),
            stored: None,
            age: None,
            begun: Some(intent.begun),
            state: "uploading",
            filter: intent.filter.clone(),
            kept: false,
            chain: None,
            restore_bytes: None,
            last_seen: None,
            verified: None,
        });
    }
    rows.retain(|row| scope.has(&row.snapshot));
    rows
}

impl Row {
    /// For a person.
    pub fn shown_state(&self) -> String {
        let kept = if self.kept && self.state == "stored" { "kept" } else { self.state };
        match &self.filter {
            None => kept.to_string(),
            Some(_) if kept == "stored" => "filtered".to_string(),
            Some(_) => format!("{kept}, filtered"),
        }
    }

    /// How and when it was last verified.
    pub fn verified(&self, form: &Form) -> Option<String> {
        let proof = self.verified.as_ref()?;
        match (&proof.damaged, proof.best()) {
            (Some(damage), _) => Some(format!("damaged {}", form.time(damage.found))),
            (None, Some((method, when))) => Some(format!("{} {}", method.as_str(), form.time(when))),
            (None, None) => None,
        }
    }

    pub fn last_verified(&self) -> Option<Utc> {
        let proof = self.verified.as_ref()?;
        let damaged = proof.damaged.as_ref().map(|damage| damage.found);
        damaged.or_else(|| proof.best().map(|(_, when)| when))
    }

    /// Is it in an archive, as far as this host knows? A lifecycle rule may have moved it there.
    pub fn is_archived(&self) -> bool {
        self.last_seen.is_some()
            || Archive::of(self.storage_class.as_ref(), None).is_some_and(Archive::is_of_aws)
    }

    /// Can it be read now?
    pub fn readable(&self, form: &Form) -> Option<String> {
        let readable = match &self.last_seen {
            _ if self.state == "uploading" => return None,
            None if self.storage_class.is_none() => return None,
            None if self.is_archived() => "no",
            None => "yes",
            Some(Seen { state: SeenState::Thawing, .. }) => "thawing",
            Some(Seen { state: SeenState::Readable, until: None, .. }) => "yes",
            Some(Seen { state: SeenState::Readable, until: Some(until), .. }) if *until > form.now => {
                return Some(format!("until {}", form.time(*until)));
            }
            Some(_) => "no",
        };
        Some(readable.to_string())
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::state::store::history::store;

    pub fn row(snapshot: &str, guid: u64, base: Option<(&str, u64)>) -> Row {
        Row {
            snapshot: snapshot.to_string(),
            guid: Guid::new(guid).unwrap(),
            base: base.map(|(name, _)| name.to_string()),
            base_guid: base.and_then(|(_, guid)| Guid::new(guid)),
            copy: None,
            bytes: Some(1300 << 20),
            storage_class: Some(StorageClass::standard()),
            stored: Some(Utc::try_from("2026-01-02T03:04:05Z".to_string()).unwrap()),
            age: Some(0),
            begun: None,
            state: "stored",
            filter: None,
            kept: false,
            chain: None,
            restore_bytes: None,
            last_seen: None,
            verified: None,
        }
    }

    #[test]
    fn what_it_takes_to_restore_each_snapshot() {
        let known = Known {
            contents: &store("A:100, B<A:10, C<B:10, C<A:15, X<Y, b/D"),
            states: ArchiveStates::default(),
            verified: Verified::default(),
        };
        let now = Utc::try_from("2026-01-03T00:00:00Z".to_string()).unwrap();
        let rows = rows(&known, None, Scope { dataset: None, recursive: false }, now);
        let cost = |row: &Row| format!("{} {:?} {:?}", row.snapshot, row.chain, row.restore_bytes);
        let costs: Vec<String> = rows.iter().map(cost).collect();
        assert_eq!(
            costs,
            [
                "tank/a@A Some(1) Some(100)",
                "tank/a@B Some(2) Some(110)",
                "tank/a@C Some(2) Some(115)",
                "tank/a@C Some(2) Some(115)",
                "tank/a@X None None",
                "tank/b@D Some(1) Some(10)"
            ]
        );
    }
}
