//! The table of `list`. Pure.

use std::collections::BTreeSet;

use super::columns::{Column, Form};
use super::row::Row;
use crate::model::names::dataset_of;
use crate::model::storage_class::StorageClass;
use crate::model::units::{count, human_size};
use crate::ui::table::aligned;

/// Those that are shown unless others are asked for. What would tell nothing is left out: the class if all
/// are STANDARD, the state if all are stored.
pub fn columns(rows: &[Row], verbose: bool) -> Vec<Column> {
    let standard = StorageClass::standard();
    let with_class =
        rows.iter().any(|row| row.storage_class.as_ref().is_some_and(|class| *class != standard));
    let with_state = rows.iter().any(|row| row.shown_state() != "stored");
    let with_readable = rows.iter().any(Row::is_archived);
    let mut columns = vec![Column::Snapshot, Column::Base, Column::Size, Column::Chain, Column::Restore];
    columns.extend(with_class.then_some(Column::Class));
    columns.push(Column::Stored);
    columns.extend(with_state.then_some(Column::State));
    columns.extend(with_readable.then_some(Column::Readable));
    columns.extend(verbose.then_some(Column::Verified));
    columns
}

/// Aligned, with a header and the totals.
pub fn table(rows: &[Row], columns: &[Column], form: &Form) -> String {
    let header = columns.iter().map(|column| column.header(form)).collect();
    let cells: Vec<Vec<String>> =
        std::iter::once(header).chain(rows.iter().map(|row| cells(row, columns, form))).collect();
    let numbers: Vec<usize> = (0..columns.len()).filter(|n| columns[*n].is_number()).collect();
    aligned(&cells, &numbers) + &totals(rows, form.parsable)
}

/// One line for each row, for scripts.
pub fn fields(rows: &[Row], columns: &[Column], form: &Form) -> String {
    rows.iter().map(|row| cells(row, columns, form).join("\t") + "\n").collect()
}

fn cells(row: &Row, columns: &[Column], form: &Form) -> Vec<String> {
    columns.iter().map(|column| column.cell(row, form)).collect()
}

/// `3 backups of 1 dataset, 1.33G`. What is being uploaded is no backup yet.
fn totals(rows: &[Row], parsable: bool) -> String {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.state != "uploading").collect();
    let datasets: BTreeSet<&str> = rows.iter().map(|row| dataset_of(&row.snapshot)).collect();
    let bytes = rows.iter().filter_map(|row| row.bytes).fold(0u64, u64::saturating_add);
    let bytes = if parsable { format!("{bytes} bytes") } else { human_size(bytes) };
    let [backups, datasets] =
        [(rows.len(), "backup"), (datasets.len(), "dataset")].map(|(n, thing)| count(n as u64, thing));
    format!("{backups} of {datasets}, {bytes}\n")
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::row;
    use super::*;
    use crate::model::utc::Utc;
    use crate::state::archive_states::{Seen, SeenState};

    fn at(text: &str) -> Utc {
        Utc::try_from(text.to_string()).unwrap()
    }

    fn shown(rows: &[Row], parsable: bool) -> String {
        let form = Form { script: false, parsable, now: at("2026-01-03T00:00:00Z") };
        table(rows, &columns(rows, false), &form)
    }

    #[test]
    fn a_chain_with_its_bases_and_costs() {
        let mut rows = vec![
            row("t@1", 1, None),
            row("t@2", 2, Some(("t@1", 1))),
            row("t@3", 3, Some(("t#2", 2))),
            row("u@1", 4, Some(("t@1", 1))),
        ];
        rows[0].restore_bytes = Some(1300 << 20);
        rows[0].chain = Some(1);
        let expected = "\
SNAPSHOT  BASE   SIZE  CHAIN  RESTORE  STORED (UTC)
t@1       -     1.27G      1    1.27G  2026-01-02 03:04
t@2       @1    1.27G      -        -  2026-01-02 03:04
t@3       #2    1.27G      -        -  2026-01-02 03:04
u@1       t@1   1.27G      -        -  2026-01-02 03:04
4 backups of 2 datasets, 5.08G
";
        assert_eq!(shown(&rows, false), expected);
        rows.truncate(1);
        rows[0].storage_class = Some(StorageClass::of("STANDARD_IA"));
        rows[0].kept = true;
        let expected = "\
SNAPSHOT  BASE        SIZE  CHAIN     RESTORE  CLASS        STORED      STATE
t@1       -     1363148800      1  1363148800  STANDARD_IA  1767323045  kept
1 backup of 1 dataset, 1363148800 bytes
";
        assert_eq!(shown(&rows, true), expected);
    }

    #[test]
    fn what_can_be_read_is_shown_if_something_is_archived() {
        let now = at("2026-01-03T00:00:00Z");
        let seen = |state, until: Option<&str>| {
            Some(Seen { state, since: None, tier: None, days: None, until: until.map(at), seen: now })
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
        let text = shown(&rows, false);
        let lines: Vec<&str> = text.lines().collect();
        let last: Vec<&str> =
            lines[1..7].iter().map(|line| line.split("03:04").last().unwrap().trim()).collect();
        assert!(lines[0].ends_with("CLASS         STORED (UTC)      READABLE"), "{text}");
        assert_eq!(last, ["yes", "no", "thawing", "until 2026-01-03 00:01", "no", "no"]);
        assert!(!shown(&rows[..1], false).contains("READABLE"));
    }
}
