//! The part of the bucket on which an upload depends: the objects of its own dataset, and of those in the
//! chains to its base. Pure.
//!
//! An announcement concerns only its own copy, so nothing beyond these can prevent an upload; at most it has
//! a further chain. So what is allowed by a part is allowed by the whole, and what is not is decided again by
//! the whole.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::model::names::{Guid, dataset_of};
use crate::state::store::format::{Contents, Entry};

/// With more datasets, listing all is not slower.
const MOST_DATASETS: usize = 4;

#[derive(Clone, Debug, PartialEq)]
pub struct Scope {
    datasets: BTreeSet<String>,
}

impl Scope {
    /// For backups of `dataset`, and for the chains to these snapshots that the store has. None: everything.
    pub fn of(contents: &Contents, dataset: &str, wanted: impl IntoIterator<Item = Guid>) -> Option<Self> {
        // an empty store may be a lost one, and the keys of the Python tool have no prefix
        if contents.entries.is_empty() || contents.entries.iter().any(|entry| entry.stream.is_none()) {
            return None;
        }
        let mut leading: HashMap<Guid, Vec<&Entry>> = HashMap::new();
        for entry in &contents.entries {
            leading.entry(entry.snapshot.guid).or_default().push(entry);
        }
        let mut datasets = BTreeSet::from([dataset]);
        let mut frontier: Vec<Guid> = wanted.into_iter().collect();
        let mut seen = HashSet::new();
        while let Some(guid) = frontier.pop() {
            if seen.insert(guid) {
                let entries = leading.get(&guid).into_iter().flatten();
                for Entry { snapshot, base, .. } in entries {
                    datasets.insert(dataset_of(&snapshot.name));
                    frontier.extend(base.as_ref().map(|base| base.guid));
                }
            }
        }
        let datasets: BTreeSet<String> = datasets.into_iter().map(str::to_string).collect();
        (datasets.len() <= MOST_DATASETS).then_some(Scope { datasets })
    }

    pub fn has(&self, entry: &Entry) -> bool {
        self.datasets.contains(dataset_of(&entry.snapshot.name))
    }

    /// What all keys of its objects begin with.
    pub fn beginnings(&self, prefix: &str) -> impl Iterator<Item = String> {
        self.datasets.iter().map(move |dataset| format!("{prefix}{dataset}@"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::store::history::{guid, store};

    fn of(history: &str, dataset: &str, wanted: &str) -> Option<String> {
        let wanted = wanted.split_whitespace().map(guid);
        let scope = Scope::of(&store(history), &format!("tank/{dataset}"), wanted)?;
        Some(scope.beginnings("p/").collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn the_datasets_of_the_chains_that_lead_to_the_snapshots() {
        const STORE: &str = "o/A, B<o/A, l/C<B, D";
        let scope = |dataset, wanted| of(STORE, dataset, wanted).unwrap();
        assert_eq!(scope("new", ""), "p/tank/new@");
        assert_eq!(scope("new", "D"), "p/tank/a@ p/tank/new@");
        assert_eq!(scope("a", "B"), "p/tank/a@ p/tank/o@", "nothing that starts from it");
        assert_eq!(scope("a", "C"), "p/tank/a@ p/tank/l@ p/tank/o@");
        let scope = Scope::of(&store(STORE), "tank/a", [guid("B")]).unwrap();
        let has: Vec<bool> = store(STORE).entries.iter().map(|entry| scope.has(entry)).collect();
        assert_eq!(has, [true, true, false, true]);
    }

    #[test]
    fn everything_where_a_part_would_not_do() {
        assert_eq!(of("", "a", ""), None);
        assert_eq!(of("1/A, 2/B<1/A, 3/C<2/B, D<3/C", "a", "D").unwrap().split(' ').count(), 4);
        assert_eq!(of("1/A, 2/B<1/A, 3/C<2/B, 4/D<3/C, E<4/D", "a", "E"), None);
        let mut python = store("A");
        python.entries[0].stream = None;
        assert_eq!(Scope::of(&python, "tank/a", []), None);
    }
}
