//! What `restore -r` restores: the datasets below one, and in which order. Pure.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::route::{cheapest, steps_of_stored};
use crate::model::backup::Point;
use crate::model::names::{Guid, dataset_of, is_below, is_within};
use crate::state::store::format::Contents;
use crate::state::store::newest::Restorable;

#[derive(Debug, Default, PartialEq)]
pub struct Tree {
    /// Parents first, and origins before their clones.
    pub branches: Vec<Branch>,
    /// Datasets in between of which nothing is restored: their names in the target.
    pub parents: Vec<String>,
    /// What is not meant to be restored, and why.
    pub left_out: Vec<String>,
    /// Datasets of which nothing can be restored.
    pub lost: Vec<String>,
}

/// One dataset.
#[derive(Clone, Debug, PartialEq)]
pub struct Branch {
    pub wanted: Point,
    pub target: String,
    /// Snapshots on the way, which clones need as their origins.
    pub origins: Vec<Point>,
}

/// `name`: of the snapshots; none: each dataset's newest.
pub fn tree(
    contents: &Contents,
    restorable: &Restorable,
    top: &str,
    name: Option<&str>,
    target: &str,
) -> Tree {
    let mut tree = Tree::default();
    let mut chosen: Vec<&Point> = Vec::new();
    for dataset in restorable.datasets().filter(|dataset| is_within(dataset, top)) {
        match (name, restorable.later_name(dataset).filter(|later| is_within(later, top))) {
            (None, Some(later)) => tree.left_out.push(format!("{dataset} was renamed to {later} later")),
            (None, None) => chosen.extend(restorable.newest(dataset)),
            (Some(name), _) => match restorable.named(dataset, name) {
                Some(point) => chosen.push(point),
                None => tree.left_out.push(format!("{dataset} has no snapshot @{name} that can be restored")),
            },
        }
    }
    let known: HashSet<&str> = restorable.datasets().collect();
    let stored = contents.entries.iter().map(|entry| dataset_of(&entry.snapshot.name));
    let lost: BTreeSet<&str> =
        stored.filter(|dataset| is_within(dataset, top) && !known.contains(dataset)).collect();
    tree.lost = lost.into_iter().map(str::to_string).collect();

    let place = |dataset: &str| format!("{target}{}", &dataset[top.len()..]);
    tree.branches = in_order(restorable, chosen.clone())
        .into_iter()
        .map(|point| Branch {
            target: place(dataset_of(&point.name)),
            wanted: point.clone(),
            origins: origins_on_the_way(contents, restorable, &chosen, point),
        })
        .collect();
    let made: HashSet<&str> = tree.branches.iter().map(|branch| branch.target.as_str()).collect();
    let mut parents = BTreeSet::new();
    for branch in &tree.branches {
        let ends = branch.target.match_indices('/').map(|(end, _)| end).filter(|end| *end >= target.len());
        parents.extend(ends.map(|end| &branch.target[..end]).filter(|parent| !made.contains(parent)));
    }
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
                let has_origin = || origins.iter().any(|guid| restorable.point(other, *guid).is_some());
                is_below(dataset, other) || has_origin()
            };
            walk.extend(chosen.iter().rev().filter(precedes).map(|point| (*point, false)));
        }
    }
    ordered
}

/// The cheapest chain to a snapshot may pass by one that a clone needs. It is received on the way, if a chain
/// leads on from there.
fn origins_on_the_way(
    contents: &Contents,
    restorable: &Restorable,
    chosen: &[&Point],
    wanted: &Point,
) -> Vec<Point> {
    let dataset = dataset_of(&wanted.name);
    let clones = chosen.iter().map(|point| dataset_of(&point.name)).filter(|clone| *clone != dataset);
    let needed = clones.flat_map(|clone| restorable.origins(clone)).filter(|guid| *guid != wanted.guid);
    let points: BTreeMap<Guid, &Point> =
        needed.filter_map(|guid| Some((guid, restorable.point(dataset, guid)?))).collect();
    if points.is_empty() {
        return Vec::new();
    }
    let steps = steps_of_stored(contents);
    // from the earliest to the latest: each leads on to the next, or is left out
    let distance = |guid: Guid| cheapest(&steps, Some(guid), wanted.guid).map(|route| route.len());
    let mut on_the_way: Vec<(usize, &Point)> =
        points.iter().filter_map(|(guid, point)| Some((distance(*guid)?, *point))).collect();
    on_the_way.sort_by_key(|(distance, _)| std::cmp::Reverse(*distance));
    let mut kept: Vec<Point> = Vec::new();
    for (_, point) in on_the_way {
        let leads_on = |last: &Point| cheapest(&steps, Some(last.guid), point.guid).is_some();
        if kept.last().is_none_or(leads_on) {
            kept.push(point.clone());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::store::history::store;
    use crate::state::store::newest::Created;

    fn tree_of(history: &str, top: &str, name: Option<&str>) -> Tree {
        let contents = store(history);
        tree(&contents, &Restorable::of(&contents, &Created::new()), top, name, "new/x")
    }

    fn planned(history: &str, top: &str, name: Option<&str>) -> String {
        let tree = tree_of(history, top, name);
        let branch = |branch: &Branch| {
            let via: String = branch.origins.iter().map(|point| format!(" via {}", point.name)).collect();
            format!("{}{via} in {}", branch.wanted.name, branch.target)
        };
        let lost = tree.lost.iter().map(|dataset| format!("{dataset} is lost"));
        let lines = tree.branches.iter().map(branch).chain(tree.left_out.iter().cloned()).chain(lost);
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
        assert_eq!(planned("A, b/C<b/B", "tank", None), "tank/a@A in new/x/a, tank/b is lost");
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
    fn a_dataset_that_was_renamed_to_another_tree_is_restored() {
        assert_eq!(planned("a/c/A, n/B<n/A", "tank/a", None), "tank/a/c@A in new/x/c");
    }

    #[test]
    fn the_origin_of_a_clone_is_received_on_the_way() {
        // the bypass C<A passes by the origin B
        let history = "z/A, z/B<z/A, z/C<z/B, z/C<z/A', b/D<z/B";
        assert_eq!(planned(history, "tank", None), "tank/z@C via tank/z@B in new/x/z, tank/b@D in new/x/b");
        let history = "z/A, z/B<z/A, z/C<z/A, b/D<z/B";
        assert_eq!(planned(history, "tank", None), "tank/z@C in new/x/z, tank/b@D in new/x/b");
    }

    #[test]
    fn datasets_in_between_are_made() {
        let parents = |history: &str, top: &str| tree_of(history, top, None).parents;
        assert_eq!(parents("a/b/c/A, z/B", "tank"), ["new/x", "new/x/a", "new/x/a/b"]);
        assert_eq!(parents("A, a/b/B", "tank/a"), [""; 0]);
        assert_eq!(parents("a/b/B", "tank/a"), ["new/x"]);
    }
}
