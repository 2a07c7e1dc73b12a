//! `list`: what is stored, being uploaded or being removed. Reads only the store and the journal.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::Context;
use crate::cli;
use crate::error::{Error, Result};
use crate::model::archive::Archive;
use crate::model::copy::Id;
use crate::model::names::{Guid, check_dataset_name, dataset_of};
use crate::model::storage_class::StorageClass;
use crate::model::units::human_size;
use crate::model::utc::Utc;
use crate::os::clock;
use crate::state::archive_states::{self, ArchiveStates, Seen, SeenState};
use crate::state::journal;
use crate::state::journal::record::Overview;
use crate::state::store::format::{Contents, Entry, State};
use crate::state::verified::{self, Proof, Verified};
use crate::ui::table::aligned;

pub fn run(context: &Context, args: &cli::ListArgs) -> Result<()> {
    if let Some(dataset) = &args.dataset {
        check_dataset_name(dataset)
            .map_err(|why| Error::usage(format!("'{dataset}' is not a dataset: {why}")))?;
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
    let rows = rows(&known, pending.as_ref(), args.dataset.as_deref());
    context.ui.data(&match args {
        cli::ListArgs { json: true, .. } => return context.print_json(&rows),
        cli::ListArgs { script: true, parsable, .. } => rows.iter().map(|row| row.fields(*parsable)).collect(),
        _ if rows.is_empty() => {
            context.ui.note(&match &args.dataset {
                Some(dataset) if !contents.entries.is_empty() => format!("no backups of {dataset} are stored"),
                _ => "no backups are in the store; if it was lost, 'zfs2s3 recover' rebuilds it from the bucket"
                    .to_string(),
            });
            return Ok(());
        }
        cli::ListArgs { parsable, verbose, .. } => table(&rows, *parsable, *verbose, clock::now()),
    })
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
    state: &'static str,
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

fn rows(known: &Known, pending: Option<&Overview>, dataset: Option<&str>) -> Vec<Row> {
    let Known { contents, states, verified } = known;
    let row = |entry: &Entry| {
        let key = entry.first_key(&contents.prefix);
        Row::of(entry, states.get(&key).cloned(), verified.backups.get(&key).cloned())
    };
    let mut rows: Vec<Row> = contents.entries.iter().map(row).collect();
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
            state: "uploading",
            last_seen: None,
            verified: None,
        });
    }
    rows.retain(|row| dataset.is_none_or(|dataset| dataset_of(&row.snapshot) == dataset));
    rows
}

impl Row {
    fn of(entry: &Entry, last_seen: Option<Seen>, verified: Option<Proof>) -> Self {
        let stream = entry.stream.as_ref();
        Row {
            snapshot: entry.snapshot.name.clone(),
            guid: entry.snapshot.guid,
            base: entry.base.as_ref().map(|base| base.name.clone()),
            base_guid: entry.base.as_ref().map(|base| base.guid),
            copy: entry.id,
            bytes: entry.size(),
            storage_class: stream.map(|stream| stream.storage_class.clone()),
            stored: stream.map(|stream| stream.stored),
            state: match entry.state {
                State::Stored => "stored",
                State::Removing => "removing",
            },
            last_seen,
            verified,
        }
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
        ];
        fields.join("\t") + "\n"
    }
}

/// For a table.
fn time(t: Utc, parsable: bool) -> String {
    if parsable { t.unix_seconds().to_string() } else { t.to_minute() }
}

/// A table whose first column is a tree: each backup is below its base. If one is archived, another column
/// shows what can be read.
fn table(rows: &[Row], parsable: bool, verbose: bool, now: Utc) -> String {
    let mut header = ["SNAPSHOT", "SIZE", "CLASS", "STORED", "STATE"].map(str::to_string).to_vec();
    let with_readable = rows.iter().any(Row::is_archived);
    if with_readable {
        header.push("READABLE".to_string());
    }
    if verbose {
        header.push("VERIFIED".to_string());
    }
    let mut cells = vec![header];
    for (label, row) in tree(rows) {
        let size = match row.bytes {
            Some(bytes) if parsable => bytes.to_string(),
            Some(bytes) => human_size(bytes),
            None => "-".to_string(),
        };
        let stored = row.stored.map(|stored| time(stored, parsable)).unwrap_or_else(|| "-".to_string());
        let class = row.storage_class.as_ref().map_or("-".to_string(), StorageClass::to_string);
        cells.push(vec![label, size, class, stored, row.state.to_string()]);
        let last = cells.last_mut().into_iter();
        last.for_each(|cells| {
            cells.extend(with_readable.then(|| row.readable(parsable, now)));
            cells.extend(verbose.then(|| row.verified(parsable)));
        });
    }
    aligned(&cells, &[1])
}

/// Each row once, with its label. Backups are below the first row with their base.
fn tree(rows: &[Row]) -> Vec<(String, &Row)> {
    let mut first_of: HashMap<Guid, usize> = HashMap::new();
    for (n, row) in rows.iter().enumerate() {
        first_of.entry(row.guid).or_insert(n);
    }
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); rows.len()];
    let mut roots = Vec::new();
    for (n, row) in rows.iter().enumerate() {
        match row.base_guid.and_then(|base| first_of.get(&base)) {
            Some(parent) if *parent != n => children[*parent].push(n),
            _ => roots.push(n),
        }
    }
    let mut drawn = Vec::new();
    let mut seen = HashSet::new();
    // circles, in a damaged store, have no root, and are drawn last
    for root in roots.into_iter().chain(0..rows.len()) {
        let mut walk = vec![(root, String::new(), String::new())];
        while let Some((n, head, indent)) = walk.pop() {
            if !seen.insert(n) {
                continue;
            }
            let shown = match (&rows[n].base, head.is_empty()) {
                (Some(base), true) => format!("{} (from {base})", rows[n].snapshot),
                _ => rows[n].snapshot.clone(),
            };
            drawn.push((format!("{head}{shown}"), &rows[n]));
            let last = children[n].last().copied();
            // a chain is not indented: an only child stands at the level of its parent
            for child in children[n].iter().rev() {
                let (arm, below) = match (Some(*child) == last, children[n].len()) {
                    (_, 1) => ("└ ", ""),
                    (true, _) => ("└ ", "  "),
                    (false, _) => ("├ ", "│ "),
                };
                walk.push((*child, format!("{indent}{arm}"), format!("{indent}{below}")));
            }
        }
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(snapshot: &str, guid: u64, base: Option<(&str, u64)>) -> Row {
        Row {
            snapshot: snapshot.to_string(),
            guid: Guid::new(guid).unwrap(),
            base: base.map(|(name, _)| name.to_string()),
            base_guid: base.and_then(|(_, guid)| Guid::new(guid)),
            copy: None,
            bytes: Some(1300 << 20),
            storage_class: Some(StorageClass::standard()),
            stored: Some(Utc::try_from("2026-01-02T03:04:05Z".to_string()).unwrap()),
            state: "stored",
            last_seen: None,
            verified: None,
        }
    }

    #[test]
    fn a_month_with_its_bypass() {
        let rows = [
            row("t@1", 1, None),
            row("t@2", 2, Some(("t@1", 1))),
            row("t@3", 3, Some(("t@2", 2))),
            row("t@4", 4, Some(("t@3", 3))),
            row("t@4", 4, Some(("t@1", 1))),
            row("t@5", 5, Some(("t@4", 4))),
            row("u@1", 6, None),
            row("u@9", 9, Some(("u#8", 8))),
        ];
        let labels: Vec<String> = tree(&rows).into_iter().map(|(label, _)| label).collect();
        assert_eq!(
            labels,
            ["t@1", "├ t@2", "│ └ t@3", "│ └ t@4", "│ └ t@5", "└ t@4", "u@1", "u@9 (from u#8)"]
        );
        let text =
            table(&rows[..2], false, false, Utc::try_from("2026-01-03T00:00:00Z".to_string()).unwrap());
        let expected = "\
SNAPSHOT   SIZE  CLASS     STORED            STATE
t@1       1.27G  STANDARD  2026-01-02 03:04  stored
└ t@2     1.27G  STANDARD  2026-01-02 03:04  stored
";
        assert_eq!(text, expected);
        assert_eq!(rows[1].fields(true), "t@2\t2\tt@1\t1363148800\tSTANDARD\t1767323045\tstored\n");
    }

    #[test]
    fn what_can_be_read_is_shown_if_something_is_archived() {
        let time = |text: &str| Utc::try_from(text.to_string()).unwrap();
        let now = time("2026-01-03T00:00:00Z");
        let seen = |state, until: Option<&str>| {
            Some(Seen { state, since: None, tier: None, days: None, until: until.map(time), seen: now })
        };
        let archived = |guid, last_seen| Row {
            storage_class: Some(StorageClass::of("DEEP_ARCHIVE")),
            last_seen,
            ..row(&format!("t@{guid}"), guid, None)
        };
        let rows = [
            row("t@1", 1, None),
            archived(2, None),
            archived(3, seen(SeenState::Thawing, None)),
            archived(4, seen(SeenState::Readable, Some("2026-01-03T00:01:00Z"))),
            archived(5, seen(SeenState::Readable, Some("2026-01-02T23:59:00Z"))),
            archived(6, seen(SeenState::Archived, None)),
        ];
        let text = table(&rows, false, false, now);
        let last: Vec<&str> = text.lines().map(|line| line.split("stored").last().unwrap().trim()).collect();
        assert!(last[0].ends_with("STATE   READABLE"), "{text}");
        assert_eq!(last[1..], ["yes", "no", "thawing", "until 2026-01-03 00:01", "no", "no"]);
        assert!(!table(&rows[..1], false, false, now).contains("READABLE"));
    }

    #[test]
    fn circles_in_a_damaged_store_are_drawn_once() {
        let rows = [
            row("t@1", 1, Some(("t@2", 2))),
            row("t@2", 2, Some(("t@1", 1))),
            row("t@3", 3, Some(("t@3", 3))),
        ];
        assert_eq!(tree(&rows).len(), 3);
    }
}
