//! The chain rule: which backup may be stored, and which may go. Pure, and the only place where that
//! is decided.
//!
//! R(B) of a set of backups B is the least set of guids with: a full backup's snapshot is in R; an
//! incremental's snapshot is in R if its base is. B is sound if every incremental's base is in R(B).
//!
//! - A backup may be stored if it is not stored yet and its base (if any) is in R(B).
//! - A backup may be removed if no other backup starts from its snapshot, or that snapshot stays in R
//!   without it. Of a sound B this says just that B without it is sound. Of an unsound B (a damaged
//!   store) it is the stricter half that still lets a user take away what nothing hangs on.
//!
//! A backup whose data the bucket no longer holds whole ([`Member::intact`] is false) leads nowhere, so it never
//! counts as a route; it still counts as one that hangs on its base.

use std::collections::{HashMap, HashSet};

use crate::backup::Link;
use crate::names::Guid;

/// One backup of B.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    pub link: Link,
    /// Its data are where they should be, as far as is known.
    pub intact: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum UploadConflict {
    AlreadyStored,
    /// No chain reaches the base.
    BaseNotRecoverable(Guid),
}

#[derive(Debug, PartialEq, Eq)]
pub enum RemoveConflict {
    NotStored,
    /// These would be lost. In this order each of them may be removed, and then the one asked for.
    Needed(Vec<Link>),
}

/// R(B): the snapshots that some chain of intact backups reaches.
pub fn recoverable(members: &[Member]) -> HashSet<Guid> {
    recoverable_without(members, None)
}

fn recoverable_without(members: &[Member], without: Option<Link>) -> HashSet<Guid> {
    let mut from: HashMap<Guid, Vec<Guid>> = HashMap::new();
    let mut reached = HashSet::new();
    let mut frontier = Vec::new();
    for member in members.iter().filter(|m| m.intact && Some(m.link) != without) {
        match member.link.base {
            Some(base) => from.entry(base).or_default().push(member.link.snapshot),
            None => frontier.push(member.link.snapshot),
        }
    }
    while let Some(guid) = frontier.pop() {
        if reached.insert(guid) {
            frontier.extend(from.get(&guid).into_iter().flatten());
        }
    }
    reached
}

pub fn check_upload(members: &[Member], new: Link) -> Result<(), UploadConflict> {
    if members.iter().any(|m| m.link == new) {
        return Err(UploadConflict::AlreadyStored);
    }
    match new.base {
        Some(base) if !recoverable(members).contains(&base) => Err(UploadConflict::BaseNotRecoverable(base)),
        _ => Ok(()),
    }
}

pub fn check_remove(members: &[Member], old: Link) -> Result<(), RemoveConflict> {
    if !members.iter().any(|m| m.link == old) {
        return Err(RemoveConflict::NotStored);
    }
    let left = recoverable_without(members, Some(old));
    if left.contains(&old.snapshot) {
        return Ok(());
    }
    match hanging_on(members, old, &left) {
        needed if needed.is_empty() => Ok(()),
        needed => Err(RemoveConflict::Needed(needed)),
    }
}

/// The backups that only `old` makes recoverable, directly or not, the last of each chain first:
/// a walk along "starts from", in post-order. Iterative, since chains may be long, and each snapshot is
/// entered once, so that a circle in a damaged store ends.
fn hanging_on(members: &[Member], old: Link, left: &HashSet<Guid>) -> Vec<Link> {
    let mut by_base: HashMap<Guid, Vec<Link>> = HashMap::new();
    for member in members.iter().filter(|m| m.link != old) {
        if let Some(base) = member.link.base {
            by_base.entry(base).or_default().push(member.link);
        }
    }
    let mut take = |guid: Guid| by_base.remove(&guid).unwrap_or_default().into_iter();
    let mut order = Vec::new();
    // each level: the backups that start from one snapshot, and the backup that led to that snapshot
    let mut walk = vec![(take(old.snapshot), None)];
    while let Some((siblings, via)) = walk.last_mut() {
        match siblings.next() {
            Some(link) if left.contains(&link.snapshot) => order.push(link),
            Some(link) => walk.push((take(link.snapshot), Some(link))),
            None => {
                order.extend(*via);
                walk.pop();
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `"A, B<A, C<B"`: a full backup of A, incrementals to B and C. `!` after one: its data are gone.
    fn stored(text: &str) -> Vec<Member> {
        let members = text.split(',').map(str::trim).filter(|t| !t.is_empty());
        members.map(|t| Member { link: link(t.trim_end_matches('!')), intact: !t.ends_with('!') }).collect()
    }
    fn link(text: &str) -> Link {
        let guid = |t: &str| {
            Guid::new(t.bytes().fold(0, |n, b| n * 256 + u64::from(b))).expect("a name gives a number")
        };
        match text.split_once('<') {
            Some((snapshot, base)) => Link { snapshot: guid(snapshot), base: Some(guid(base)) },
            None => Link { snapshot: guid(text), base: None },
        }
    }
    fn upload(members: &str, new: &str) -> Result<(), UploadConflict> {
        check_upload(&stored(members), link(new))
    }
    /// Ok, or the backups in the way, in order.
    fn remove(members: &str, old: &str) -> Result<(), RemoveConflict> {
        check_remove(&stored(members), link(old))
    }
    fn needed(text: &str) -> Result<(), RemoveConflict> {
        Err(RemoveConflict::Needed(text.split(", ").map(link).collect()))
    }

    #[test]
    fn a_full_backup_may_always_be_stored_once() {
        assert_eq!(upload("", "A"), Ok(()));
        assert_eq!(upload("A", "A"), Err(UploadConflict::AlreadyStored));
        assert_eq!(upload("A, B<A", "B"), Ok(()));
    }

    #[test]
    fn an_incremental_needs_a_recoverable_base() {
        let unknown = |base: &str| Err(UploadConflict::BaseNotRecoverable(link(base).snapshot));
        assert_eq!(upload("A", "B<A"), Ok(()));
        assert_eq!(upload("A, B<A", "B<A"), Err(UploadConflict::AlreadyStored));
        assert_eq!(upload("", "B<A"), unknown("A"));
        assert_eq!(upload("A, B<A", "C<X"), unknown("X"));
        assert_eq!(upload("A, B<A", "C<A"), Ok(()), "a bypass");
        assert_eq!(upload("X<Y, Y<X", "C<X"), unknown("X"), "being named by a backup is not enough");
        assert_eq!(upload("A!", "B<A"), unknown("A"), "a base whose data are gone");
        assert_eq!(upload("A!, A<Z, Z", "B<A"), Ok(()), "but another route leads there");
    }

    #[test]
    fn of_a_chain_only_the_last_may_go() {
        let chain = "A, B<A, C<B, D<C";
        assert_eq!(remove(chain, "D<C"), Ok(()));
        assert_eq!(remove(chain, "C<B"), needed("D<C"));
        assert_eq!(remove(chain, "A"), needed("D<C, C<B, B<A"));
        assert_eq!(remove(chain, "X"), Err(RemoveConflict::NotStored));
        assert_eq!(remove(chain, "B"), Err(RemoveConflict::NotStored), "B is stored, but not in full");
    }

    #[test]
    fn with_a_bypass_the_days_between_may_go_from_the_end() {
        let month = "1, 2<1, 3<2, 4<3, 4<1, 5<4";
        assert_eq!(remove(month, "4<3"), Ok(()));
        assert_eq!(remove(month, "3<2"), needed("4<3"));
        assert_eq!(remove(month, "4<1"), Ok(()), "the long way is still there");
        assert_eq!(remove("1, 2<1, 3<2, 4<1, 5<4", "3<2"), Ok(()));
        assert_eq!(remove("1, 2<1, 4<1, 5<4", "2<1"), Ok(()));
        assert_eq!(remove("1, 4<1, 5<4", "4<1"), needed("5<4"));
    }

    #[test]
    fn a_second_full_backup_is_a_route() {
        assert_eq!(remove("A, B<A, B, C<B", "B<A"), Ok(()));
        assert_eq!(remove("A, B<A, B, C<B", "A"), needed("B<A"), "B stays, but this backup of it would not");
        assert_eq!(remove("A, B<A, B!, C<B", "B<A"), needed("C<B"), "that full backup's data are gone");
    }

    #[test]
    fn what_the_bucket_lost_still_hangs_on_its_base() {
        assert_eq!(remove("A, B<A!", "A"), needed("B<A"));
        assert_eq!(remove("A, B<A!", "B<A"), Ok(()));
        assert_eq!(remove("A!, B<A", "A"), needed("B<A"), "its objects may be back tomorrow");
    }

    #[test]
    fn circles_in_a_damaged_store_end() {
        assert_eq!(remove("X<Y, Y<X", "X<Y"), needed("Y<X"));
        assert_eq!(remove("X<X", "X<X"), Ok(()));
        assert_eq!(remove("B<A, C<B", "C<B"), Ok(()), "nothing hangs on it");
        assert_eq!(
            remove("B<A, C<B", "B<A"),
            needed("C<B"),
            "A may be somewhere that the store does not know"
        );
    }

    #[test]
    fn long_chains_need_no_deep_stack() {
        let guid = |n: u64| Guid::new(n).unwrap();
        let mut members = vec![Member { link: Link { snapshot: guid(1), base: None }, intact: true }];
        for n in 2..=100_000 {
            members.push(Member { link: Link { snapshot: guid(n), base: Some(guid(n - 1)) }, intact: true });
        }
        let Err(RemoveConflict::Needed(order)) = check_remove(&members, members[0].link) else { panic!() };
        assert_eq!(order.len(), 99_999);
        assert_eq!(order[0], members[99_999].link);
    }
}

#[cfg(test)]
#[path = "chain_model.rs"]
mod model;
