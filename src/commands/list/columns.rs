//! The columns of `list`: their names, their cells, and the order of the rows. Pure.

use std::cmp::Ordering;

use super::row::Row;
use crate::error::{Error, Result};
use crate::model::names::dataset_of;
use crate::model::storage_class::StorageClass;
use crate::model::units::{age, human_size};
use crate::model::utc::Utc;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Column {
    Snapshot,
    Guid,
    Base,
    BaseGuid,
    Copy,
    Size,
    Chain,
    Restore,
    Class,
    Stored,
    Age,
    Begun,
    State,
    Filter,
    Readable,
    Verified,
}

/// For whom the cells are.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// Whole names, sizes in bytes, times to the second.
    pub script: bool,
    /// Exact numbers.
    pub parsable: bool,
    pub now: Utc,
}

/// The fields of `list -H`.
pub const OF_SCRIPTS: [Column; 8] = [
    Column::Snapshot,
    Column::Guid,
    Column::Base,
    Column::Size,
    Column::Class,
    Column::Stored,
    Column::State,
    Column::BaseGuid,
];

impl Column {
    const ALL: [(Column, &'static str); 16] = [
        (Column::Snapshot, "snapshot"),
        (Column::Guid, "guid"),
        (Column::Base, "base"),
        (Column::BaseGuid, "base_guid"),
        (Column::Copy, "copy"),
        (Column::Size, "size"),
        (Column::Chain, "chain"),
        (Column::Restore, "restore"),
        (Column::Class, "class"),
        (Column::Stored, "stored"),
        (Column::Age, "age"),
        (Column::Begun, "begun"),
        (Column::State, "state"),
        (Column::Filter, "filter"),
        (Column::Readable, "readable"),
        (Column::Verified, "verified"),
    ];

    fn name(self) -> &'static str {
        Column::ALL.iter().find(|(column, _)| *column == self).map_or("", |(_, name)| name)
    }

    pub fn header(self, form: &Form) -> String {
        let is_time = matches!(self, Column::Stored | Column::Begun);
        self.name().to_ascii_uppercase() + if is_time && !form.parsable { " (UTC)" } else { "" }
    }

    pub fn is_number(self) -> bool {
        matches!(self, Column::Size | Column::Chain | Column::Restore | Column::Age)
    }

    /// From the user: `snapshot,size`.
    pub fn list(text: &str) -> Result<Vec<Column>> {
        text.split(',').map(Column::parse).collect()
    }

    pub fn parse(word: &str) -> Result<Column> {
        let known = Column::ALL.iter().find(|(_, name)| *name == word.to_ascii_lowercase());
        known.map(|(column, _)| *column).ok_or_else(|| {
            let names: Vec<&str> = Column::ALL.iter().map(|(_, name)| *name).collect();
            Error::usage(format!("there is no column '{word}'"))
                .hint(format!("the columns are {}", names.join(", ")))
        })
    }

    pub fn cell(self, row: &Row, form: &Form) -> String {
        let exact = form.script || form.parsable;
        let size = |bytes: u64| if exact { bytes.to_string() } else { human_size(bytes) };
        let cell = match self {
            Column::Snapshot => Some(row.snapshot.clone()),
            Column::Guid => Some(row.guid.to_string()),
            Column::Base => row.base.as_deref().map(|base| short(base, &row.snapshot, form)),
            Column::BaseGuid => row.base_guid.map(|guid| guid.to_string()),
            Column::Copy => row.copy.map(|id| id.to_string()),
            Column::Size => row.bytes.map(size),
            Column::Chain => row.chain.map(|chain| chain.to_string()),
            Column::Restore => row.restore_bytes.map(size),
            Column::Class => row.storage_class.as_ref().map(StorageClass::to_string),
            Column::Stored => row.stored.map(|stored| form.time(stored)),
            Column::Age => row.age.map(|seconds| if exact { seconds.to_string() } else { age(seconds) }),
            Column::Begun => row.begun.map(|begun| form.time(begun)),
            Column::State if form.script => Some(row.state.to_string()),
            Column::State => Some(row.shown_state()),
            Column::Filter => row.filter.clone(),
            Column::Readable => row.readable(form),
            Column::Verified => row.verified(form),
        };
        cell.unwrap_or_else(|| "-".to_string())
    }

    /// What is unknown comes first.
    fn compare(self, one: &Row, other: &Row, form: &Form) -> Ordering {
        match self {
            Column::Snapshot => by_dataset(one, other).then_with(|| one.snapshot.cmp(&other.snapshot)),
            Column::Guid => one.guid.cmp(&other.guid),
            Column::BaseGuid => one.base_guid.cmp(&other.base_guid),
            Column::Size => one.bytes.cmp(&other.bytes),
            Column::Chain => one.chain.cmp(&other.chain),
            Column::Restore => one.restore_bytes.cmp(&other.restore_bytes),
            Column::Stored => one.stored.cmp(&other.stored),
            Column::Age => one.age.cmp(&other.age),
            Column::Begun => one.begun.cmp(&other.begun),
            Column::Verified => one.last_verified().cmp(&other.last_verified()),
            Column::Base
            | Column::Copy
            | Column::Class
            | Column::State
            | Column::Filter
            | Column::Readable => self.cell(one, form).cmp(&self.cell(other, form)),
        }
    }
}

impl Form {
    pub fn time(&self, time: Utc) -> String {
        match self {
            Form { parsable: true, .. } => time.unix_seconds().to_string(),
            Form { script: true, .. } => time.to_string(),
            Form { .. } => time.to_minute(),
        }
    }
}

/// For a person without the dataset, if that is the same.
fn short(base: &str, snapshot: &str, form: &Form) -> String {
    let short = base.strip_prefix(dataset_of(snapshot)).filter(|short| short.starts_with(['@', '#']));
    short.filter(|_| !form.script).unwrap_or(base).to_string()
}

/// Those below a dataset come right after it, as in `zfs list`.
pub fn by_dataset(one: &Row, other: &Row) -> Ordering {
    let [parts, others] = [one, other].map(|row| dataset_of(&row.snapshot).split('/'));
    parts.cmp(others)
}

/// By each column in turn. Rows that are equal in all of them keep their order.
pub fn sort(rows: &mut [Row], ascending: &[Column], descending: &[Column], form: &Form) {
    rows.sort_by(|one, other| {
        let up = ascending.iter().map(|column| column.compare(one, other, form));
        let down = descending.iter().map(|column| column.compare(other, one, form));
        up.chain(down).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    });
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::row;
    use super::*;

    fn form(script: bool, parsable: bool) -> Form {
        Form { script, parsable, now: Utc::try_from("2026-01-03T00:00:00Z".to_string()).unwrap() }
    }

    fn line(row: &Row, columns: &[Column], form: &Form) -> String {
        columns.iter().map(|column| column.cell(row, form)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_has_its_own_name() {
        for (column, name) in Column::ALL {
            assert_eq!(Column::parse(name).unwrap(), column);
            assert_eq!(column.header(&form(false, true)).to_ascii_lowercase(), name);
        }
        assert_eq!(Column::list("SIZE,age").unwrap(), [Column::Size, Column::Age]);
        let refused = Column::list("size,colour").unwrap_err();
        assert_eq!(refused.message, "there is no column 'colour'");
        assert!(refused.hints[0].contains("snapshot, guid, base"), "{:?}", refused.hints);
        assert!(Column::list("").is_err());
    }

    #[test]
    fn for_a_script_and_for_a_person() {
        let mut row = row("t@2", 2, Some(("t@1", 1)));
        row.kept = true;
        row.age = Some(3 * 86400);
        assert_eq!(
            line(&row, &OF_SCRIPTS, &form(true, true)),
            "t@2 2 t@1 1363148800 STANDARD 1767323045 stored 1"
        );
        assert_eq!(
            line(&row, &OF_SCRIPTS, &form(true, false)),
            "t@2 2 t@1 1363148800 STANDARD 2026-01-02T03:04:05Z stored 1"
        );
        let columns = Column::list("base,size,stored,state,age,chain,copy,verified").unwrap();
        assert_eq!(line(&row, &columns, &form(false, false)), "@1 1.27G 2026-01-02 03:04 kept 3 days - - -");
        assert_eq!(line(&row, &columns, &form(false, true)), "@1 1363148800 1767323045 kept 259200 - - -");
    }

    #[test]
    fn sorted_by_one_or_more() {
        let sized = |name: &str, guid, bytes| Row { bytes, ..row(name, guid, None) };
        let rows = || {
            vec![
                sized("t/a@1", 1, Some(9)),
                sized("t@2", 2, None),
                sized("t@1", 3, Some(100)),
                sized("t-b@1", 4, Some(9)),
            ]
        };
        let sorted = |ascending: &str, descending: &str| {
            let mut rows = rows();
            let columns = |text: &str| match text {
                "" => Vec::new(),
                text => Column::list(text).unwrap(),
            };
            sort(&mut rows, &columns(ascending), &columns(descending), &form(false, false));
            rows.iter().map(|row| row.snapshot.clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(sorted("", ""), "t/a@1 t@2 t@1 t-b@1");
        assert_eq!(sorted("snapshot", ""), "t@1 t@2 t/a@1 t-b@1");
        assert_eq!(sorted("size", ""), "t@2 t/a@1 t-b@1 t@1", "by the number, not its digits");
        assert_eq!(sorted("", "size"), "t@1 t/a@1 t-b@1 t@2");
        assert_eq!(sorted("", "size,snapshot"), "t@1 t-b@1 t/a@1 t@2");
        assert_eq!(sorted("size,snapshot", ""), "t@2 t/a@1 t-b@1 t@1");
        assert_eq!(sorted("class", "guid"), "t-b@1 t@1 t@2 t/a@1");
    }
}
