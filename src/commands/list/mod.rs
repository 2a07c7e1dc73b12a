//! `list`: what is stored, being uploaded or being removed. Reads only the files of this host, except to find
//! what could be removed (`retention`).

mod retention;
mod table;

use std::collections::HashMap;

use serde::Serialize;

use super::Context;
use crate::cli;
use crate::error::{Error, Result};
use crate::model::archive::Archive;
use crate::model::copy::Id;
use crate::model::names::{Guid, check_dataset_name, dataset_of};
use crate::model::storage_class::StorageClass;
use crate::model::utc::Utc;
use crate::os::clock;
use crate::restore::route::{self, Cost};
use crate::state::archive_states::{self, ArchiveStates, Seen, SeenState};
use crate::state::journal;
use crate::state::journal::record::Overview;
use crate::state::store::format::{Contents, Entry, State};
use crate::state::verified::{self, Proof, Verified};
use table::time;

pub fn run(context: &Context, args: &cli::ListArgs) -> Result<()> {
    if let Some(dataset) = &args.dataset {
        check_dataset_name(dataset)
            .map_err(|why| Error::usage(format!("'{dataset}' is not a dataset: {why}")))?;
    }
    if args.advise {
        return context.ui.data(&retention::advise(context, args.dataset.as_deref())?);
    }
    // the pending upload first: if it ends in between, it is also in the store
    let pending = journal::overview(&context.folder)?;
    let contents = context.store()?.contents;
    let (states, warning) = archive_states::read(&context.folder);
    warning.into_iter().for_each(|warning| context.ui.warning(&warning));
    let shows_proofs = args.verbose || args.json;
    let (verified, warning) = if shows_proofs { verified::read(&context.folder) } else { Default::default() };
    warning.into_iter().for_each(|warning| context.ui.warning(&warning));
    let known = Known { contents: &contents, states, verified };
    let now = clock::now();
    let mut rows = if args.removable {
        let costs = costs(&contents);
        retention::removable(context, args.dataset.as_deref(), |entry| known.row(entry, &costs, now))?
    } else {
        rows(&known, pending.as_ref(), args.dataset.as_deref(), now)
    };
    match args {
        cli::ListArgs { json: true, .. } => context.print_json(&rows),
        // a script asks for what there is; but the store must not be lost
        _ if rows.is_empty() && (!args.script || contents.entries.is_empty()) => {
            context.ui.note(&nothing(args, &contents));
            Ok(())
        }
        cli::ListArgs { script: true, parsable, .. } => {
            context.ui.data(&rows.iter().map(|row| row.fields(*parsable)).collect::<String>())
        }
        cli::ListArgs { parsable, verbose, removable, .. } => {
            if !removable {
                rows.sort_by(|one, other| dataset_of(&one.snapshot).cmp(dataset_of(&other.snapshot)));
            }
            context.ui.data(&table::table(&rows, *parsable, *verbose, now))
        }
    }
}

/// Is it a snapshot of the dataset that the user asks for?
fn is_of(dataset: Option<&str>, snapshot: &str) -> bool {
    dataset.is_none_or(|dataset| dataset_of(snapshot) == dataset)
}

/// Why the list is empty.
fn nothing(args: &cli::ListArgs, contents: &Contents) -> String {
    match &args.dataset {
        _ if args.removable => "no backup could be removed now".to_string(),
        Some(dataset) if !contents.entries.is_empty() => format!("no backups of {dataset} are stored"),
        _ => "no backups are in the store; if it was lost, 'zfs2s3 recover' rebuilds it from the bucket"
            .to_string(),
    }
}

#[derive(Serialize)]
struct Row {
    snapshot: String,
    guid: Guid,
    base: Option<String>,
    base_guid: Option<Guid>,
    copy: Option<Id>,
    bytes: Option<u64>,
    storage_class: Option<StorageClass>,
    stored: Option<Utc>,
    /// Seconds since then.
    age: Option<i64>,
    /// When the upload began that is running or pending.
    begun: Option<Utc>,
    state: &'static str,
    /// It is marked, as far as this host knows.
    kept: bool,
    /// Of the cheapest chain that restores the snapshot: how many backups it has, and their bytes.
    chain: Option<u32>,
    restore_bytes: Option<u64>,
    /// Of an archived backup, when S3 was last asked.
    last_seen: Option<Seen>,
    /// What `verify` has proven.
    verified: Option<Proof>,
}

/// What the files of this host say.
struct Known<'a> {
    contents: &'a Contents,
    states: ArchiveStates,
    verified: Verified,
}

impl Known<'_> {
    fn row(&self, entry: &Entry, costs: &HashMap<Guid, Cost>, now: Utc) -> Row {
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
            kept: entry.kept,
            chain: cost.map(|cost| cost.backups),
            restore_bytes: cost.map(|cost| cost.bytes),
            last_seen: self.states.get(&key).cloned(),
            verified: self.verified.backups.get(&key).cloned(),
        }
    }
}

/// What it takes to restore each snapshot from nothing.
fn costs(contents: &Contents) -> HashMap<Guid, Cost> {
    route::costs(&route::steps_of_stored(contents))
}

/// In the order in which they were stored.
fn rows(known: &Known, pending: Option<&Overview>, dataset: Option<&str>, now: Utc) -> Vec<Row> {
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
            kept: false,
            chain: None,
            restore_bytes: None,
            last_seen: None,
            verified: None,
        });
    }
    rows.retain(|row| is_of(dataset, &row.snapshot));
    rows
}

impl Row {
    /// For a person.
    fn shown_state(&self) -> &'static str {
        if self.kept && self.state == "stored" { "kept" } else { self.state }
    }

    /// How and when it was last verified.
    fn verified(&self, parsable: bool) -> String {
        let Some(proof) = &self.verified else { return "-".to_string() };
        match (&proof.damaged, proof.best()) {
            (Some(damage), _) => format!("damaged {}", time(damage.found, parsable)),
            (None, Some((method, when))) => format!("{} {}", method.as_str(), time(when, parsable)),
            (None, None) => "-".to_string(),
        }
    }

    /// Is it in an archive, as far as this host knows? A lifecycle rule may have moved it there.
    fn is_archived(&self) -> bool {
        self.last_seen.is_some()
            || Archive::of(self.storage_class.as_ref(), None).is_some_and(Archive::is_of_aws)
    }

    /// Can it be read now?
    fn readable(&self, parsable: bool, now: Utc) -> String {
        match &self.last_seen {
            _ if self.state == "uploading" => "-".to_string(),
            None if self.storage_class.is_none() => "-".to_string(),
            None if self.is_archived() => "no".to_string(),
            None => "yes".to_string(),
            Some(Seen { state: SeenState::Thawing, .. }) => "thawing".to_string(),
            Some(Seen { state: SeenState::Readable, until: None, .. }) => "yes".to_string(),
            Some(Seen { state: SeenState::Readable, until: Some(until), .. }) if *until > now => {
                format!("until {}", time(*until, parsable))
            }
            Some(_) => "no".to_string(),
        }
    }

    /// One line of `-H`.
    fn fields(&self, parsable: bool) -> String {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_string());
        let time = |t: Utc| if parsable { t.unix_seconds().to_string() } else { t.to_string() };
        let fields = [
            self.snapshot.clone(),
            self.guid.to_string(),
            or_dash(self.base.clone()),
            or_dash(self.bytes.map(|bytes| bytes.to_string())),
            or_dash(self.storage_class.as_ref().map(StorageClass::to_string)),
            or_dash(self.stored.map(time)),
            self.state.to_string(),
            or_dash(self.base_guid.map(|guid| guid.to_string())),
        ];
        fields.join("\t") + "\n"
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::state::store::history::store;

    pub(super) fn row(snapshot: &str, guid: u64, base: Option<(&str, u64)>) -> Row {
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
            kept: false,
            chain: None,
            restore_bytes: None,
            last_seen: None,
            verified: None,
        }
    }

    #[test]
    fn a_line_for_scripts() {
        let row = row("t@2", 2, Some(("t@1", 1)));
        assert_eq!(row.fields(true), "t@2\t2\tt@1\t1363148800\tSTANDARD\t1767323045\tstored\t1\n");
    }

    #[test]
    fn what_it_takes_to_restore_each_snapshot() {
        let known = Known {
            contents: &store("A:100, B<A:10, C<B:10, C<A:15, X<Y, b/D"),
            states: ArchiveStates::default(),
            verified: Verified::default(),
        };
        let now = Utc::try_from("2026-01-03T00:00:00Z".to_string()).unwrap();
        let rows = rows(&known, None, None, now);
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
