//! What damaged backups cost: which snapshots can no longer be restored, and which still can. Pure.

use std::collections::HashSet;

use crate::chain::{Member, recoverable};
use crate::model::names::Guid;
use crate::state::store::format::{Entry, State};

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Names of snapshots.
    pub lost: Vec<String>,
    /// Those that depend on damaged backups, but can be restored by another route.
    pub spared: Vec<String>,
}

/// `damaged`: places in the store.
pub fn cost(entries: &[Entry], damaged: &HashSet<usize>) -> Cost {
    let member = |(n, entry): (usize, &Entry)| Member {
        link: entry.link(),
        whole: entry.state == State::Stored && !damaged.contains(&n),
        announced: false,
    };
    let reached = recoverable(&entries.iter().enumerate().map(member).collect::<Vec<_>>());
    let affected = affected(entries, damaged);
    let mut cost = Cost::default();
    let mut seen = HashSet::new();
    for entry in entries.iter().filter(|entry| affected.contains(&entry.snapshot.guid)) {
        if seen.insert(entry.snapshot.guid) {
            let list = if reached.contains(&entry.snapshot.guid) { &mut cost.spared } else { &mut cost.lost };
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
            let cost = cost(&entries, &damaged.iter().copied().collect());
            let names = |names: &[String]| names.join(" ").replace("tank/a@", "");
            assert_eq!(
                (names(&cost.lost).as_str(), names(&cost.spared).as_str()),
                (lost, spared),
                "{damaged:?}"
            );
        }
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
