//! What could be removed now, and which bypass would let the most go, by the chain rule. Pure.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use super::rule::{Member, check_remove, lengths, route_to};
use crate::model::backup::Link;
use crate::model::names::Guid;

/// The places of those that [`check_remove`] allows to be removed now.
pub fn removable(members: &[Member]) -> Vec<usize> {
    let counts = Counts::of(members);
    (0..members.len()).filter(|n| counts.may_remove(members, *n)).collect()
}

/// An order in which as many of these as possible can be removed, one after the other; and those that could
/// only be removed instead of others.
pub fn in_order(members: &[Member], removable: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let counts = Counts::of(members);
    let lengths = lengths(members);
    // of two chains to a snapshot, the longer one goes
    let length = |n: &usize| members[*n].link.base.and_then(|base| lengths.get(&base)).copied().unwrap_or(0);
    let mut order = removable.to_vec();
    order.sort_by_key(|n| (counts.dependents_of(&members[*n]) > 0, Reverse(length(n))));
    let mut left = Left::of(members);
    order.into_iter().partition(|n| left.remove(*n))
}

/// A backup that does not exist yet, and what could be removed if it did.
#[derive(Debug, PartialEq)]
pub struct Bypass {
    pub from: Guid,
    pub to: Guid,
    /// Places, in the order of their removal.
    pub freed: Vec<usize>,
    pub bytes: u64,
}

/// The bypass that lets the most bytes go. `bytes`: of a member; none: it must stay. `bases` and `snapshots`
/// are on this host, and so could be its base, or be sent.
pub fn best_bypass(
    members: &[Member],
    bytes: impl Fn(usize) -> Option<u64>,
    bases: &HashSet<Guid>,
    snapshots: &[Guid],
) -> Option<Bypass> {
    let is_stored = |link: Link| members.iter().any(|member| member.link == link && member.whole);
    let mut best: Option<Bypass> = None;
    for to in snapshots {
        let Some(chain) = route_to(members, *to, None) else { continue };
        let snapshot = |n: usize| members[chain[n]].link.snapshot;
        let Some(last) = chain.len().checked_sub(1) else { continue };
        // the earliest base lets go whatever a later one does
        let mut places = (0..last.saturating_sub(1)).filter(|n| bases.contains(&snapshot(*n)));
        let Some(first) = places.next() else { continue };
        let freed =
            freed(members, &bytes, &chain[first + 1..], Link { snapshot: *to, base: Some(snapshot(first)) });
        let total = freed.iter().filter_map(|n| bytes(*n)).fold(0u64, u64::saturating_add);
        if freed.len() < 2 || best.as_ref().is_some_and(|best| best.bytes >= total) {
            continue;
        }
        // the latest base that lets the same go has the fewest changes to send
        let untouched = chain.iter().take_while(|n| !freed.contains(n)).count();
        let from = places.take_while(|n| *n < untouched).last().unwrap_or(first);
        let link = Link { snapshot: *to, base: Some(snapshot(from)) };
        if !is_stored(link) {
            best = Some(Bypass { from: snapshot(from), to: *to, freed, bytes: total });
        }
    }
    best
}

/// What could be removed of this part of a chain, from its end, if there were such a bypass.
fn freed(
    members: &[Member],
    bytes: impl Fn(usize) -> Option<u64>,
    part: &[usize],
    bypass: Link,
) -> Vec<usize> {
    let mut with_bypass = members.to_vec();
    with_bypass.push(Member { link: bypass, whole: true, announced: false });
    let mut left = Left::of(&with_bypass);
    part.iter().rev().copied().filter(|n| bytes(*n).is_some() && left.remove(*n)).collect()
}

/// Members, of which some are removed in turn.
struct Left {
    members: Vec<Member>,
    is_left: Vec<bool>,
    counts: Counts,
}

impl Left {
    fn of(members: &[Member]) -> Self {
        Left { members: members.to_vec(), is_left: vec![true; members.len()], counts: Counts::of(members) }
    }

    /// Returns whether that is allowed.
    fn remove(&mut self, n: usize) -> bool {
        let allowed = match self.counts.quick(&self.members[n]) {
            Some(allowed) => allowed,
            None => {
                let before = self.is_left[..n].iter().filter(|is_left| **is_left).count();
                let both = self.members.iter().zip(&self.is_left);
                let left: Vec<Member> = both.filter(|(_, is_left)| **is_left).map(|(m, _)| *m).collect();
                check_remove(&left, before).is_ok()
            }
        };
        if allowed {
            self.is_left[n] = false;
            self.counts.forget(&self.members[n]);
        }
        allowed
    }
}

/// How many members start from each snapshot, and how many lead to it: enough to decide most cases.
struct Counts {
    dependents: HashMap<Guid, usize>,
    routes: HashMap<Guid, usize>,
}

impl Counts {
    fn of(members: &[Member]) -> Self {
        let mut counts = Counts { dependents: HashMap::new(), routes: HashMap::new() };
        for member in members {
            *counts.routes.entry(member.link.snapshot).or_default() += 1;
            if let Some(base) = member.link.base {
                *counts.dependents.entry(base).or_default() += 1;
            }
        }
        counts
    }

    fn forget(&mut self, member: &Member) {
        let one_less = |count: Option<&mut usize>| count.into_iter().for_each(|count| *count -= 1);
        one_less(self.routes.get_mut(&member.link.snapshot));
        one_less(member.link.base.and_then(|base| self.dependents.get_mut(&base)));
    }

    fn dependents_of(&self, member: &Member) -> usize {
        // in a damaged store, one may start from itself
        let itself = usize::from(member.link.base == Some(member.link.snapshot));
        self.dependents.get(&member.link.snapshot).copied().unwrap_or(0) - itself
    }

    /// May it be removed? None: only the rule can tell.
    fn quick(&self, member: &Member) -> Option<bool> {
        match (self.dependents_of(member), self.routes.get(&member.link.snapshot)) {
            (0, _) => Some(true),
            (_, Some(1)) => Some(false),
            _ => None,
        }
    }

    fn may_remove(&self, members: &[Member], n: usize) -> bool {
        self.quick(&members[n]).unwrap_or_else(|| check_remove(members, n).is_ok())
    }
}
