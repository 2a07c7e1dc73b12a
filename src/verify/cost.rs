//! What damaged backups cost: which snapshots can no longer be restored, and which still can. Pure.

use std::collections::HashSet;

use crate::chain::{Member, recoverable};
use crate::model::names::Guid;
use crate::state::store::format::{Entry, State};

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Names of snapshots.
    pub lost: Vec<String>,
    /// Those that depend on damaged backups, but can be restored by another route, which is whole.
    pub spared: Vec<String>,
    /// The same, but the route was not verified.
    pub unknown: Vec<String>,
}

/// `damaged`, `whole`: places in the store.
pub fn cost(entries: &[Entry], damaged: &HashSet<usize>, whole: &HashSet<usize>) -> Cost {
    let reached_by = |counts: &dyn Fn(usize) -> bool| {
        let member = |(n, entry): (usize, &Entry)| Member {
            link: entry.link(),
            whole: entry.state == State::Stored && counts(n),
            announced: false,
        };
        recoverable(&entries.iter().enumerate().map(member).collect::<Vec<_>>())
    };
    let surely = reached_by(&|n| whole.contains(&n));
    let perhaps = reached_by(&|n| !damaged.contains(&n));
    let affected = affected(entries, damaged);
    let mut cost = Cost::default();
    let mut seen = HashSet::new();
    for entry in entries.iter().filter(|entry| affected.contains(&entry.snapshot.guid)) {
        let guid = &entry.snapshot.guid;
        if seen.insert(*guid) {
            let list = match (surely.contains(guid), perhaps.contains(guid)) {
                (true, _) => &mut cost.spared,
                (false, true) => &mut cost.unknown,
                (false, false) => &mut cost.lost,
            };
            list.push(entry.snapshot.name.clone());
        }
    }
    cost
}

/// The snapshots of damaged backups, and those downstream of them.
fn affected(entries: &[Entry], damaged: &HashSet<usize>) -> HashSet<Guid> {
    let mut affected = HashSet::new();
    let mut frontier: Vec<Guid> =
        damaged.iter().filter_map(|n| entries.get(*n)).map(|entry| entry.snapshot.guid).collect();
    while let Some(guid) = frontier.pop() {
        if affected.insert(guid) {
            let from_it =
                entries.iter().filter(|entry| entry.base.as_ref().is_some_and(|base| base.guid == guid));
            frontier.extend(from_it.map(|entry| entry.snapshot.guid));
        }
    }
    affected
}

/// The places of the stored backups whose base cannot be restored, even if nothing is damaged.
pub fn unsound(entries: &[Entry]) -> Vec<usize> {
    let member = |entry: &Entry| Member { link: entry.link(), whole: true, announced: false };
    let reached = recoverable(&entries.iter().map(member).collect::<Vec<_>>());
    let is_unsound = |entry: &Entry| {
        entry.state == State::Stored && entry.base.as_ref().is_some_and(|base| !reached.contains(&base.guid))
    };
    entries.iter().enumerate().filter(|(_, entry)| is_unsound(entry)).map(|(n, _)| n).collect()
}

/// The places of the backups that lead to this snapshot, by any route.
pub fn leading_to(entries: &[Entry], snapshot: Guid) -> Vec<usize> {
    let mut wanted = HashSet::from([snapshot]);
    let mut frontier = vec![snapshot];
    while let Some(guid) = frontier.pop() {
        let bases =
            entries.iter().filter(|entry| entry.snapshot.guid == guid).filter_map(|e| e.base.as_ref());
        frontier.extend(bases.map(|base| base.guid).filter(|base| wanted.insert(*base)));
    }
    (0..entries.len()).filter(|n| wanted.contains(&entries[*n].snapshot.guid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::store::history::store;

    #[test]
    fn what_is_lost_and_what_another_route_saves() {
        // a chain, and a bypass from A to D
        let entries = store("A, B<A, C<B, D<C, D<A, E<D").entries;
        for (damaged, lost, spared) in [
            (&[][..], "", ""),
            (&[1], "B C", "D E"),
            (&[2], "C", "D E"),
            (&[3], "", "D E"),
            (&[4], "", "D E"),
            (&[3, 4], "D E", ""),
            (&[0], "A B C D E", ""),
            (&[5], "E", ""),
        ] {
            let damaged: HashSet<usize> = damaged.iter().copied().collect();
            let whole = (0..entries.len()).filter(|n| !damaged.contains(n)).collect();
            let cost = cost(&entries, &damaged, &whole);
            assert_eq!(cost.unknown, [""; 0]);
            let names = |names: &[String]| names.join(" ").replace("tank/a@", "");
            assert_eq!(
                (names(&cost.lost).as_str(), names(&cost.spared).as_str()),
                (lost, spared),
                "{damaged:?}"
            );
        }
    }

    #[test]
    fn a_route_that_was_not_verified_is_only_possible() {
        let entries = store("A, B<A, C<B, C<A").entries;
        let cost = cost(&entries, &HashSet::from([1]), &HashSet::from([0]));
        assert_eq!((cost.lost, cost.unknown), (vec!["tank/a@B".to_string()], vec!["tank/a@C".to_string()]));
        assert!(cost.spared.is_empty());
    }

    #[test]
    fn what_has_no_base_and_what_leads_to_a_snapshot() {
        assert_eq!(unsound(&store("A, B<A, C<X, D<C").entries), [2, 3]);
        assert_eq!(unsound(&store("A<B, B<A").entries), [0, 1]);
        let entries = store("A, B<A, C<B, D<C, D<A, E<D, F").entries;
        let to = |n: usize| leading_to(&entries, entries[n].snapshot.guid);
        assert_eq!(to(1), [0, 1]);
        assert_eq!(to(4), [0, 1, 2, 3, 4]);
        assert_eq!(to(6), [6]);
    }
}
