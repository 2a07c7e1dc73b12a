//! `list`: what is stored, being uploaded or being removed. Reads only the store and the journal.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::Context;
use crate::cli;
use crate::error::{Error, Result};
use crate::model::copy::Id;
use crate::model::names::{Guid, check_dataset_name, dataset_of};
use crate::model::storage_class::StorageClass;
use crate::model::units::human_size;
use crate::model::utc::Utc;
use crate::state::journal;
use crate::state::journal::record::Overview;
use crate::state::store::format::{Contents, Entry, State};

pub fn run(context: &Context, args: &cli::ListArgs) -> Result<()> {
    if let Some(dataset) = &args.dataset {
        check_dataset_name(dataset)
            .map_err(|why| Error::usage(format!("'{dataset}' is not a dataset: {why}")))?;
    }
    // the pending upload first: if it ends in between, it is also in the store
    let pending = journal::overview(&context.folder)?;
    let contents = context.store()?.contents;
    let rows = rows(&contents, pending.as_ref(), args.dataset.as_deref());
    context.ui.data(&match args {
        cli::ListArgs { json: true, .. } => {
            serde_json::to_string_pretty(&rows).map_err(|e| Error::failed(e.to_string()))? + "\n"
        }
        cli::ListArgs { script: true, parsable, .. } => rows.iter().map(|row| row.fields(*parsable)).collect(),
        _ if rows.is_empty() => {
            context.ui.note(&match &args.dataset {
                Some(dataset) if !contents.entries.is_empty() => format!("no backups of {dataset} are stored"),
                _ => "no backups are in the store; if it was lost, 'zfs2s3 recover' rebuilds it from the bucket"
                    .to_string(),
            });
            return Ok(());
        }
        cli::ListArgs { parsable, .. } => table(&rows, *parsable),
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
}

fn rows(contents: &Contents, pending: Option<&Overview>, dataset: Option<&str>) -> Vec<Row> {
    let mut rows: Vec<Row> = contents.entries.iter().map(Row::of).collect();
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
        });
    }
    rows.retain(|row| dataset.is_none_or(|dataset| dataset_of(&row.snapshot) == dataset));
    rows
}

impl Row {
    fn of(entry: &Entry) -> Self {
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

/// A table whose first column is a tree: each backup is below its base.
fn table(rows: &[Row], parsable: bool) -> String {
    let mut cells = vec![["SNAPSHOT", "SIZE", "CLASS", "STORED", "STATE"].map(str::to_string)];
    for (label, row) in tree(rows) {
        let size = match row.bytes {
            Some(bytes) if parsable => bytes.to_string(),
            Some(bytes) => human_size(bytes),
            None => "-".to_string(),
        };
        let time = |t: Utc| if parsable { t.unix_seconds().to_string() } else { t.to_minute() };
        let stored = row.stored.map(time).unwrap_or_else(|| "-".to_string());
        let class = row.storage_class.as_ref().map_or("-".to_string(), StorageClass::to_string);
        cells.push([label, size, class, stored, row.state.to_string()]);
    }
    let width = |n: usize| cells.iter().map(|row| row[n].chars().count()).max().unwrap_or(0);
    let (w0, w1, w2, w3) = (width(0), width(1), width(2), width(3));
    cells
        .iter()
        .map(|[label, size, class, stored, state]| {
            format!("{label:<w0$}  {size:>w1$}  {class:<w2$}  {stored:<w3$}  {state}\n")
        })
        .collect()
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
        let text = table(&rows[..2], false);
        let expected = "\
SNAPSHOT   SIZE  CLASS     STORED            STATE
t@1       1.27G  STANDARD  2026-01-02 03:04  stored
└ t@2     1.27G  STANDARD  2026-01-02 03:04  stored
";
        assert_eq!(text, expected);
        assert_eq!(rows[1].fields(true), "t@2\t2\tt@1\t1363148800\tSTANDARD\t1767323045\tstored\n");
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
