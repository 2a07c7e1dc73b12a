//! What `restore -r` restores: the datasets below one, and in which order. Pure.

use std::collections::HashSet;

use crate::model::backup::Point;
use crate::model::names::dataset_of;
use crate::state::store::format::Contents;
use crate::state::store::newest::Restorable;

#[derive(Debug, Default, PartialEq)]
pub struct Tree {
    /// Parents first, and origins before their clones.
    pub branches: Vec<Branch>,
    /// Datasets in between that have no backup: their names in the target.
    pub parents: Vec<String>,
    /// What is not restored, and why.
    pub left_out: Vec<String>,
}

/// One dataset.
#[derive(Clone, Debug, PartialEq)]
pub struct Branch {
    pub wanted: Point,
    pub target: String,
}

/// `name`: of the snapshots; none: each dataset's newest.
pub fn tree(contents: &Contents, top: &str, name: Option<&str>, target: &str) -> Tree {
    let restorable = Restorable::of(contents);
    let is_below = |dataset: &str| {
        dataset.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let mut tree = Tree::default();
    let mut chosen: Vec<&Point> = Vec::new();
    for dataset in restorable.datasets().filter(|dataset| is_below(dataset)) {
        match (name, restorable.later_name(dataset)) {
            (None, Some(later)) => tree.left_out.push(format!("{dataset} was renamed to {later} later")),
            (None, None) => chosen.extend(restorable.newest(dataset)),
            (Some(name), _) => match restorable.named(dataset, name) {
                Some(point) => chosen.push(point),
                None => tree.left_out.push(format!("{dataset} has no snapshot @{name} that can be restored")),
            },
        }
    }
    let restored: HashSet<&str> = restorable.datasets().collect();
    let mut lost: Vec<&str> = contents.entries.iter().map(|entry| dataset_of(&entry.snapshot.name)).collect();
    lost.retain(|dataset| is_below(dataset) && !restored.contains(dataset));
    lost.sort_unstable();
    lost.dedup();
    tree.left_out.extend(lost.iter().map(|dataset| format!("no snapshot of {dataset} can be restored")));

    let place = |dataset: &str| format!("{target}{}", &dataset[top.len()..]);
    tree.branches = in_order(&restorable, chosen)
        .into_iter()
        .map(|point| Branch { target: place(dataset_of(&point.name)), wanted: point.clone() })
        .collect();
    let made: HashSet<&str> = tree.branches.iter().map(|branch| branch.target.as_str()).collect();
    let mut parents = Vec::new();
    for branch in &tree.branches {
        let ends = branch.target.match_indices('/').map(|(end, _)| end).filter(|end| *end >= target.len());
        parents.extend(ends.map(|end| &branch.target[..end]).filter(|parent| !made.contains(parent)));
    }
    parents.sort_unstable();
    parents.dedup();
    tree.parents = parents.into_iter().map(str::to_string).collect();
    tree
}

/// By name, which puts parents first; but what a dataset may be a clone of precedes it.
fn in_order<'a>(restorable: &Restorable<'a>, chosen: Vec<&'a Point>) -> Vec<&'a Point> {
    let mut ordered: Vec<&Point> = Vec::new();
    let mut begun: HashSet<&str> = HashSet::new();
    // what is to be placed, and whether all that precedes it has been
    let mut walk: Vec<(&Point, bool)> = chosen.iter().rev().map(|point| (*point, false)).collect();
    while let Some((point, ready)) = walk.pop() {
        let dataset = dataset_of(&point.name);
        if ready {
            ordered.push(point);
        } else if begun.insert(dataset) {
            walk.push((point, true));
            let origins = restorable.origins(dataset);
            let precedes = |other: &&&Point| {
                let other = dataset_of(&other.name);
                origins.contains(&other) || dataset.strip_prefix(other).is_some_and(|r| r.starts_with('/'))
            };
            walk.extend(chosen.iter().rev().filter(precedes).map(|point| (*point, false)));
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::store::history::store;

    fn planned(history: &str, top: &str, name: Option<&str>) -> String {
        let tree = tree(&store(history), top, name, "new/x");
        let branch = |branch: &Branch| format!("{} in {}", branch.wanted.name, branch.target);
        let lines = tree.branches.iter().map(branch).chain(tree.left_out.iter().cloned());
        lines.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn each_dataset_below_at_its_newest_snapshot() {
        let history = "A, B<A, a/c/C, a/c/D<a/c/C, ab/E, F<B";
        assert_eq!(planned(history, "tank/a", None), "tank/a@F in new/x, tank/a/c@D in new/x/c");
        assert_eq!(planned(history, "tank/ab", None), "tank/ab@E in new/x");
        assert_eq!(
            planned(history, "tank", None),
            "tank/a@F in new/x/a, tank/a/c@D in new/x/a/c, tank/ab@E in new/x/ab"
        );
        assert_eq!(
            planned(history, "tank/a", Some("B")),
            "tank/a@B in new/x, tank/a/c has no snapshot @B that can be restored"
        );
        assert_eq!(planned(history, "tank/none", None), "");
    }

    #[test]
    fn what_cannot_be_restored_is_named() {
        assert_eq!(
            planned("A, b/C<b/B", "tank", None),
            "tank/a@A in new/x/a, no snapshot of tank/b can be restored"
        );
        assert_eq!(
            planned("A, n/B<n/A", "tank", None),
            "tank/n@B in new/x/n, tank/a was renamed to tank/n later"
        );
    }

    #[test]
    fn origins_precede_their_clones_and_parents_their_children() {
        assert_eq!(
            planned("A, z/B, b/C<z/B", "tank", None),
            "tank/a@A in new/x/a, tank/z@B in new/x/z, tank/b@C in new/x/b"
        );
        let history = "z/B, b/c/C, b/D<z/B";
        assert_eq!(
            planned(history, "tank", None),
            "tank/z@B in new/x/z, tank/b@D in new/x/b, tank/b/c@C in new/x/b/c"
        );
        // each a clone of the other, which no pool has
        assert!(planned("y/A, z/B, y/C<z/B, z/D<y/A", "tank", None).contains("tank/y@C"));
    }

    #[test]
    fn datasets_in_between_are_made() {
        let parents = |history: &str, top: &str| tree(&store(history), top, None, "new/x").parents;
        assert_eq!(parents("a/b/c/A, z/B", "tank"), ["new/x", "new/x/a", "new/x/a/b"]);
        assert_eq!(parents("A, a/b/B", "tank/a"), [""; 0]);
        assert_eq!(parents("a/b/B", "tank/a"), ["new/x"]);
    }
}
