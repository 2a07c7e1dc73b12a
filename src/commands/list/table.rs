//! The table of `list`. Pure.

use std::collections::BTreeSet;

use super::Row;
use crate::model::names::dataset_of;
use crate::model::storage_class::StorageClass;
use crate::model::units::{count, human_size};
use crate::model::utc::Utc;
use crate::ui::table::aligned;

/// Columns that would tell nothing are left out: the class if all are STANDARD, the state if all are stored.
pub fn table(rows: &[Row], parsable: bool, verbose: bool, now: Utc) -> String {
    let standard = StorageClass::standard();
    let with_class =
        rows.iter().any(|row| row.storage_class.as_ref().is_some_and(|class| *class != standard));
    let with_state = rows.iter().any(|row| row.shown_state() != "stored");
    let with_readable = rows.iter().any(Row::is_archived);
    let size = |bytes: Option<u64>| match bytes {
        Some(bytes) if parsable => bytes.to_string(),
        Some(bytes) => human_size(bytes),
        None => "-".to_string(),
    };
    let line = |row: &Row| {
        let mut cells = vec![row.snapshot.clone(), base(row), size(row.bytes)];
        cells.push(row.chain.map_or("-".to_string(), |chain| chain.to_string()));
        cells.push(size(row.restore_bytes));
        let class = || row.storage_class.as_ref().map_or("-".to_string(), StorageClass::to_string);
        cells.extend(with_class.then(class));
        cells.push(row.stored.map(|stored| time(stored, parsable)).unwrap_or_else(|| "-".to_string()));
        cells.extend(with_state.then(|| row.shown_state().to_string()));
        cells.extend(with_readable.then(|| row.readable(parsable, now)));
        cells.extend(verbose.then(|| row.verified(parsable)));
        cells
    };
    let mut header = vec!["SNAPSHOT", "BASE", "SIZE", "CHAIN", "RESTORE"];
    header.extend(with_class.then_some("CLASS"));
    header.push("STORED");
    header.extend(with_state.then_some("STATE"));
    header.extend(with_readable.then_some("READABLE"));
    header.extend(verbose.then_some("VERIFIED"));
    let header = header.into_iter().map(str::to_string).collect();
    let cells: Vec<Vec<String>> = std::iter::once(header).chain(rows.iter().map(line)).collect();
    aligned(&cells, &[2, 3, 4]) + &totals(rows, parsable)
}

/// `3 backups of 1 dataset, 1.33G`
fn totals(rows: &[Row], parsable: bool) -> String {
    let datasets: BTreeSet<&str> = rows.iter().map(|row| dataset_of(&row.snapshot)).collect();
    let bytes = rows.iter().filter_map(|row| row.bytes).fold(0u64, u64::saturating_add);
    let bytes = if parsable { format!("{bytes} bytes") } else { human_size(bytes) };
    let [backups, datasets] =
        [(rows.len(), "backup"), (datasets.len(), "dataset")].map(|(n, thing)| count(n as u64, thing));
    format!("{backups} of {datasets}, {bytes}\n")
}

/// Without the dataset, if that is the same.
fn base(row: &Row) -> String {
    let Some(base) = &row.base else { return "-".to_string() };
    let short = base.strip_prefix(dataset_of(&row.snapshot)).filter(|short| short.starts_with(['@', '#']));
    short.unwrap_or(base).to_string()
}

pub fn time(t: Utc, parsable: bool) -> String {
    if parsable { t.unix_seconds().to_string() } else { t.to_minute() }
}

#[cfg(test)]
mod tests {
    use super::super::tests::row;
    use super::*;
    use crate::state::archive_states::{Seen, SeenState};

    fn at(text: &str) -> Utc {
        Utc::try_from(text.to_string()).unwrap()
    }

    #[test]
    fn a_chain_with_its_bases_and_costs() {
        let now = at("2026-01-03T00:00:00Z");
        let mut rows = vec![
            row("t@1", 1, None),
            row("t@2", 2, Some(("t@1", 1))),
            row("t@3", 3, Some(("t#2", 2))),
            row("u@1", 4, Some(("t@1", 1))),
        ];
        rows[0].restore_bytes = Some(1300 << 20);
        rows[0].chain = Some(1);
        let expected = "\
SNAPSHOT  BASE   SIZE  CHAIN  RESTORE  STORED
t@1       -     1.27G      1    1.27G  2026-01-02 03:04
t@2       @1    1.27G      -        -  2026-01-02 03:04
t@3       #2    1.27G      -        -  2026-01-02 03:04
u@1       t@1   1.27G      -        -  2026-01-02 03:04
4 backups of 2 datasets, 5.08G
";
        assert_eq!(table(&rows, false, false, now), expected);
        rows.truncate(1);
        rows[0].storage_class = Some(StorageClass::of("STANDARD_IA"));
        rows[0].kept = true;
        let expected = "\
SNAPSHOT  BASE        SIZE  CHAIN     RESTORE  CLASS        STORED      STATE
t@1       -     1363148800      1  1363148800  STANDARD_IA  1767323045  kept
1 backup of 1 dataset, 1363148800 bytes
";
        assert_eq!(table(&rows, true, false, now), expected);
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
        let text = table(&rows, false, false, now);
        let lines: Vec<&str> = text.lines().collect();
        let last: Vec<&str> =
            lines[1..7].iter().map(|line| line.split("03:04").last().unwrap().trim()).collect();
        assert!(lines[0].ends_with("CLASS         STORED            READABLE"), "{text}");
        assert_eq!(last, ["yes", "no", "thawing", "until 2026-01-03 00:01", "no", "no"]);
        assert!(!table(&rows[..1], false, false, now).contains("READABLE"));
    }
}
