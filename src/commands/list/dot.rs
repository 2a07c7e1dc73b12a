//! `list --dot`: the chains as a picture, in the language of Graphviz. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::row::Row;
use crate::model::names::{Guid, dataset_of};
use crate::model::units::human_size;

const HEAD: &str = "digraph backups {
  rankdir=LR
  node [shape=box, fontname=\"sans-serif\"]
  edge [fontname=\"sans-serif\"]
";

/// A box for each snapshot, in a frame for its dataset; an arrow for each incremental backup, from its base.
pub fn dot(rows: &[Row]) -> String {
    let mut datasets: BTreeMap<&str, BTreeMap<Guid, Vec<&Row>>> = BTreeMap::new();
    for row in rows {
        let snapshots = datasets.entry(dataset_of(&row.snapshot)).or_default();
        snapshots.entry(row.guid).or_default().push(row);
    }
    let mut text = HEAD.to_string();
    for (n, (dataset, snapshots)) in datasets.iter().enumerate() {
        text += &format!("  subgraph cluster{n} {{\n    label={}\n", quoted(dataset));
        for (guid, backups) in snapshots {
            text += &format!("    \"{guid}\" {}\n", snapshot(backups));
        }
        text += "  }\n";
    }
    let known: BTreeSet<Guid> = rows.iter().map(|row| row.guid).collect();
    for row in rows {
        let (Some(base), Some(guid)) = (&row.base, row.base_guid) else { continue };
        if !known.contains(&guid) {
            text += &format!("  \"{guid}\" [label={}, style=dashed]\n", quoted(base));
        }
        text += &format!("  \"{guid}\" -> \"{}\" [label={}{}]\n", row.guid, quoted(&words(row)), style(row));
    }
    text + "}\n"
}

/// A full backup has a double border, as a chain begins there; what no chain restores is red.
fn snapshot(backups: &[&Row]) -> String {
    let full: Vec<&&Row> = backups.iter().filter(|row| row.base_guid.is_none()).collect();
    let name = backups.first().map_or("", |row| &row.snapshot[dataset_of(&row.snapshot).len()..]);
    let mut lines = vec![name.to_string()];
    lines.extend(full.iter().map(|row| format!("full, {}", words(row))));
    let mut attributes = format!("label={}", quoted(&lines.join("\n")));
    if !full.is_empty() {
        attributes += ", peripheries=2";
    }
    if full.iter().any(|row| row.state != "stored") {
        attributes += ", style=dotted";
    }
    if backups.iter().all(|row| row.chain.is_none() && row.state == "stored") {
        attributes += ", color=red";
    }
    format!("[{attributes}]")
}

/// What is said of a backup: its size, and what is special.
fn words(row: &Row) -> String {
    let mut words: Vec<String> = row.bytes.map(human_size).into_iter().collect();
    words.extend(row.is_archived().then(|| "archived".to_string()));
    words.extend(Some(row.shown_state()).filter(|state| state != "stored"));
    words.join(", ")
}

fn style(row: &Row) -> &'static str {
    if row.state == "stored" { "" } else { ", style=dotted" }
}

/// A quoted string of the language, in which a line break is `\n`.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::row;
    use super::*;

    #[test]
    fn boxes_and_arrows() {
        let chained = |name: &str, guid, base, chain| Row { chain, ..row(name, guid, base) };
        let mut rows = [
            chained("t@1", 1, None, Some(1)),
            chained("t@2", 2, Some(("t@1", 1)), Some(2)),
            chained("u@\"x\\", 4, Some(("t#3", 3)), None),
            chained("u@5", 5, None, None),
        ];
        rows[1].kept = true;
        rows[3].state = "uploading";
        rows[3].bytes = None;
        let expected = r#"  subgraph cluster0 {
    label="t"
    "1" [label="@1\nfull, 1.27G", peripheries=2]
    "2" [label="@2"]
  }
  subgraph cluster1 {
    label="u"
    "4" [label="@\"x\\", color=red]
    "5" [label="@5\nfull, uploading", peripheries=2, style=dotted]
  }
  "1" -> "2" [label="1.27G, kept"]
  "3" [label="t#3", style=dashed]
  "3" -> "4" [label="1.27G"]
}
"#;
        assert_eq!(dot(&rows), format!("{HEAD}{expected}"));
    }
}
