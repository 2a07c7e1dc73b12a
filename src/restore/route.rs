//! Which backups bring a snapshot back for the fewest bytes. Pure.
//!
//! `zfs receive` takes an incremental stream only onto its base, and only if that is the target's latest
//! snapshot; a full stream only where there is no target yet. So a route begins at the target's latest
//! snapshot, or at nothing.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use crate::model::backup::Link;
use crate::model::names::Guid;
use crate::state::store::format::{Contents, State};

/// A stored backup, and what it costs to fetch it.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub link: Link,
    pub bytes: u64,
}

/// The backups that are stored, as if all of them were whole.
pub fn steps_of_stored(contents: &Contents) -> Vec<Step> {
    let stored = contents.entries.iter().filter(|entry| entry.state == State::Stored);
    stored.map(|entry| Step { link: entry.link(), bytes: entry.size().unwrap_or_default() }).collect()
}

/// The cheapest row of backups from `start` (none: no target yet) to `wanted`, by their places in `steps`;
/// none if there is no route.
pub fn cheapest(steps: &[Step], start: Option<Guid>, wanted: Guid) -> Option<Vec<usize>> {
    let reached = reached(steps, start, Some(wanted));
    reached.contains_key(&Some(wanted)).then(|| walk_back(steps, &reached, start, wanted))
}

/// The cheapest row of backups to a snapshot, from nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    pub bytes: u64,
    pub backups: u32,
}

pub fn costs(steps: &[Step]) -> HashMap<Guid, Cost> {
    let reached = reached(steps, None, None).into_iter();
    reached.filter_map(|(guid, Reached { cost, .. })| Some((guid?, cost))).collect()
}

/// How a snapshot is reached.
struct Reached {
    cost: Cost,
    /// The last step to it.
    last: Option<usize>,
}

/// By Dijkstra's algorithm; of two routes of the same bytes, the one of fewer backups. It ends at `until`.
fn reached(steps: &[Step], start: Option<Guid>, until: Option<Guid>) -> HashMap<Option<Guid>, Reached> {
    let mut leaving: HashMap<Option<Guid>, Vec<usize>> = HashMap::new();
    for (n, step) in steps.iter().enumerate() {
        leaving.entry(step.link.base).or_default().push(n);
    }
    let mut reached: HashMap<Option<Guid>, Reached> = HashMap::new();
    let mut frontier = BinaryHeap::from([Reverse((0u64, 0u32, start, None))]);
    while let Some(Reverse((bytes, backups, here, last))) = frontier.pop() {
        if reached.contains_key(&here) {
            continue;
        }
        reached.insert(here, Reached { cost: Cost { bytes, backups }, last });
        if until.is_some() && here == until {
            break;
        }
        for n in leaving.get(&here).into_iter().flatten() {
            let next = Some(steps[*n].link.snapshot);
            frontier.push(Reverse((bytes.saturating_add(steps[*n].bytes), backups + 1, next, Some(*n))));
        }
    }
    reached
}

fn walk_back(
    steps: &[Step],
    reached: &HashMap<Option<Guid>, Reached>,
    start: Option<Guid>,
    wanted: Guid,
) -> Vec<usize> {
    let mut route = Vec::new();
    let mut here = Some(wanted);
    while here != start {
        let Some(Reached { last: Some(n), .. }) = reached.get(&here) else { break };
        route.push(*n);
        here = steps[*n].link.base;
    }
    route.reverse();
    route
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `"A:100, B<A:10"`
    fn steps(text: &str) -> Vec<Step> {
        let guid = |name: &str| Guid::new(u64::from(name.as_bytes()[0])).unwrap();
        let step = |text: &str| {
            let (link, bytes) = text.trim().split_once(':').unwrap();
            let (snapshot, base) = match link.split_once('<') {
                Some((snapshot, base)) => (guid(snapshot), Some(guid(base))),
                None => (guid(link), None),
            };
            Step { link: Link { snapshot, base }, bytes: bytes.parse().unwrap() }
        };
        text.split(',').map(step).collect()
    }
    fn route(text: &str, start: &str, wanted: &str) -> Option<Vec<usize>> {
        let guid = |name: &str| name.bytes().next().and_then(|b| Guid::new(u64::from(b)));
        cheapest(&steps(text), guid(start), guid(wanted).unwrap())
    }

    #[test]
    fn a_chain_starts_at_nothing_or_at_the_target() {
        let chain = "A:100, B<A:10, C<B:10";
        assert_eq!(route(chain, "", "C"), Some(vec![0, 1, 2]));
        assert_eq!(route(chain, "A", "C"), Some(vec![1, 2]));
        assert_eq!(route(chain, "C", "C"), Some(vec![]));
        assert_eq!(route(chain, "C", "A"), None, "nothing is rolled back");
        assert_eq!(route(chain, "X", "C"), None, "a target that has diverged");
        assert_eq!(route(chain, "", "X"), None);
    }

    #[test]
    fn the_cheapest_of_several_routes() {
        assert_eq!(route("A:100, B<A:10, C<B:10, C<A:15", "", "C"), Some(vec![0, 3]));
        assert_eq!(route("A:100, B<A:10, C<B:10, C<A:25", "", "C"), Some(vec![0, 1, 2]));
        assert_eq!(route("A:100, B<A:10, C<B:10, C<A:20", "", "C"), Some(vec![0, 3]), "fewer backups");
        assert_eq!(route("A:100, B<A:10, C<B:10, C:90", "", "C"), Some(vec![3]), "a later full one");
        assert_eq!(route("A:100, B<A:10, C<B:10, C:90", "A", "C"), Some(vec![1, 2]), "there is a target");
    }

    #[test]
    fn what_each_snapshot_costs() {
        let costs = costs(&steps("A:100, B<A:10, C<B:10, C<A:15, X<Y:1"));
        let cost = |name: &str| Guid::new(u64::from(name.as_bytes()[0])).and_then(|guid| costs.get(&guid));
        assert_eq!(cost("B"), Some(&Cost { bytes: 110, backups: 2 }));
        assert_eq!(cost("C"), Some(&Cost { bytes: 115, backups: 2 }));
        assert_eq!(cost("X"), None, "not recoverable");
    }

    #[test]
    fn circles_end() {
        assert_eq!(route("B<A:1, A<B:1", "", "A"), None);
        assert_eq!(route("A:5, B<A:1, A<B:1", "", "B"), Some(vec![0, 1]));
    }
}
