//! The chain rule: which backup may be stored, which may be called stored, and which may be removed. Pure,
//! and decided nowhere else.
//!
//! R(B) of a set of backups B is the least set of guids with: a full backup's snapshot is in R; an
//! incremental's snapshot is in R if its base is. B is sound if every incremental's base is in R(B).
//!
//! - A backup may be stored if it is not stored yet and its base (if any) is in R(B).
//! - A backup may be removed if no other backup starts from its snapshot, or that snapshot stays in R without
//!   it. For a sound B this means exactly that B without it is sound. For an unsound B (a damaged store) the
//!   rule is stricter, but still lets a user remove backups on which nothing depends.
//!
//! B has a member for each copy. A copy that is not whole in the bucket is unusable, and so is one whose
//! removal a host has announced: neither counts as a route, but both count as depending on their base. This
//! makes the rule safe between hosts: a removal is announced first and then decided by a listing, and an
//! upload is called stored by a listing after its manifest was written. So of two of them at least one sees
//! the other (`protocol.rs` tries all orders).

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};

use crate::model::backup::Link;
use crate::model::names::Guid;

/// One copy of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pub link: Link,
    /// Its manifest and data are in the bucket, as far as is known.
    pub whole: bool,
    /// A host has announced its removal.
    pub announced: bool,
}

impl Member {
    fn is_route(&self) -> bool {
        self.whole && !self.announced
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum UploadConflict {
    AlreadyStored,
    /// No chain reaches the base.
    BaseNotRecoverable(Guid),
    /// All chains that reach the base are being removed.
    BaseAnnounced(Guid),
}

/// The outcome of an upload, by a listing after its manifest was written.
#[derive(Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is whole, and so is a chain to its base.
    Stored,
    /// Its own removal is announced, or that of every chain to its base: to be decided when that has ended.
    Undecided,
    /// No chain reaches the base: the manifest must not stay.
    BaseNotRecoverable,
    /// It is not whole: another host has removed it.
    NotWhole,
}

/// R(B): the snapshots that some chain of usable backups reaches.
pub fn recoverable(members: &[Member]) -> HashSet<Guid> {
    reached(members, None, Member::is_route)
}

fn reached(members: &[Member], without: Option<usize>, counts: impl Fn(&Member) -> bool) -> HashSet<Guid> {
    let mut from: HashMap<Guid, Vec<Guid>> = HashMap::new();
    let mut reached = HashSet::new();
    let mut frontier = Vec::new();
    for (n, member) in members.iter().enumerate().filter(|(_, member)| counts(member)) {
        match member.link.base {
            _ if Some(n) == without => {}
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

/// The last backup of the shortest chain to each snapshot in R, as a place in `members`, and the length of
/// that chain.
fn shortest_chains(members: &[Member], without: Option<usize>) -> HashMap<Guid, (usize, usize)> {
    let mut leaving: HashMap<Option<Guid>, Vec<usize>> = HashMap::new();
    for (n, member) in members.iter().enumerate().filter(|(n, m)| Some(*n) != without && m.is_route()) {
        leaving.entry(member.link.base).or_default().push(n);
    }
    let mut last_steps = HashMap::new();
    let mut frontier = VecDeque::from([(None, 0)]);
    while let Some((here, length)) = frontier.pop_front() {
        for n in leaving.remove(&here).unwrap_or_default() {
            let next = members[n].link.snapshot;
            if let Entry::Vacant(place) = last_steps.entry(next) {
                place.insert((n, length + 1));
                frontier.push_back((Some(next), length + 1));
            }
        }
    }
    last_steps
}

/// How many backups the shortest chain to each snapshot in R has.
pub fn lengths(members: &[Member]) -> HashMap<Guid, usize> {
    shortest_chains(members, None).into_iter().map(|(guid, (_, length))| (guid, length)).collect()
}

/// The shortest chain of usable backups to a snapshot, as places in `members`; none: without `without`, the
/// snapshot is not in R.
pub fn route_to(members: &[Member], wanted: Guid, without: Option<usize>) -> Option<Vec<usize>> {
    let last_steps = shortest_chains(members, without);
    let mut chain = Vec::new();
    let mut here = Some(wanted);
    while let Some(guid) = here {
        let (step, _) = *last_steps.get(&guid)?;
        chain.push(step);
        here = members[step].link.base;
    }
    chain.reverse();
    Some(chain)
}

pub fn check_upload(members: &[Member], new: Link) -> Result<(), UploadConflict> {
    if members.iter().any(|member| member.link == new && member.whole) {
        return Err(UploadConflict::AlreadyStored);
    }
    match new.base {
        Some(base) if !recoverable(members).contains(&base) => {
            let is_whole = reached(members, None, |member| member.whole).contains(&base);
            Err(if is_whole {
                UploadConflict::BaseAnnounced(base)
            } else {
                UploadConflict::BaseNotRecoverable(base)
            })
        }
        _ => Ok(()),
    }
}

/// May the copy at `own` be called stored?
pub fn settle(members: &[Member], own: usize) -> Settled {
    let member = members[own];
    if !member.whole {
        return Settled::NotWhole;
    }
    let base_in = |reached: HashSet<Guid>| member.link.base.is_none_or(|base| reached.contains(&base));
    if !base_in(reached(members, Some(own), |member| member.whole)) {
        return Settled::BaseNotRecoverable;
    }
    let is_stored = !member.announced && base_in(reached(members, Some(own), Member::is_route));
    if is_stored { Settled::Stored } else { Settled::Undecided }
}

/// May the copy at `old` be removed? If not: the places of those that would be lost, in an order in which
/// each of them may be removed, and the copy itself after them.
pub fn check_remove(members: &[Member], old: usize) -> Result<(), Vec<usize>> {
    let left = reached(members, Some(old), Member::is_route);
    if left.contains(&members[old].link.snapshot) {
        return Ok(());
    }
    match depending_on(members, old, &left) {
        needed if needed.is_empty() => Ok(()),
        needed => Err(needed),
    }
}

/// The same for an upload that is not yet called stored. If its base is lost, too, aborting it makes nothing
/// unavailable. `as_listed` decides whether it is lost: there a copy counts as whole until it is known not to
/// be.
pub fn check_abort(members: &[Member], as_listed: &[Member], old: usize) -> Result<(), Vec<usize>> {
    match members[old].link.base {
        Some(base) if !reached(as_listed, Some(old), |member| member.whole).contains(&base) => Ok(()),
        _ => check_remove(members, old),
    }
}

/// The copies that only `old` makes recoverable, directly or not, the last of each chain first: a walk along
/// "starts from", in post-order. Iterative, since chains may be long, and each snapshot is entered once, so
/// that a circle in a damaged store ends.
fn depending_on(members: &[Member], old: usize, left: &HashSet<Guid>) -> Vec<usize> {
    let mut by_base: HashMap<Guid, Vec<usize>> = HashMap::new();
    for (n, member) in members.iter().enumerate().filter(|(n, _)| *n != old) {
        if let Some(base) = member.link.base {
            by_base.entry(base).or_default().push(n);
        }
    }
    let mut take = |guid: Guid| by_base.remove(&guid).unwrap_or_default().into_iter();
    let mut order = Vec::new();
    // each level: the copies that start from one snapshot, and the copy that led to that snapshot
    let mut walk = vec![(take(members[old].link.snapshot), None)];
    while let Some((siblings, via)) = walk.last_mut() {
        match siblings.next() {
            Some(n) if left.contains(&members[n].link.snapshot) => order.push(n),
            Some(n) => walk.push((take(members[n].link.snapshot), Some(n))),
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

    /// `"A, B<A, C<B"`: a full backup of A, incrementals to B and C. `!` after one: its data are gone; `~`:
    /// its removal is announced.
    fn stored(text: &str) -> Vec<Member> {
        let members = text.split(',').map(str::trim).filter(|t| !t.is_empty());
        let member = |t: &str| Member {
            link: link(t.trim_end_matches(['!', '~'])),
            whole: !t.contains('!'),
            announced: t.contains('~'),
        };
        members.map(member).collect()
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
    fn place(members: &[Member], old: &str) -> usize {
        members.iter().position(|m| m.link == link(old)).expect("it is a member")
    }
    fn upload(members: &str, new: &str) -> Result<(), UploadConflict> {
        check_upload(&stored(members), link(new))
    }
    /// Ok, or the backups that prevent the removal, in order.
    fn remove(members: &str, old: &str) -> Result<(), Vec<Link>> {
        let members = stored(members);
        let links = |order: Vec<usize>| order.iter().map(|n| members[*n].link).collect();
        check_remove(&members, place(&members, old)).map_err(links)
    }
    fn needed(text: &str) -> Result<(), Vec<Link>> {
        Err(text.split(", ").map(link).collect())
    }
    /// For the last member.
    fn settled(members: &str) -> Settled {
        let members = stored(members);
        settle(&members, members.len() - 1)
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
    fn only_the_last_backup_of_a_chain_may_be_removed() {
        let chain = "A, B<A, C<B, D<C";
        assert_eq!(remove(chain, "D<C"), Ok(()));
        assert_eq!(remove(chain, "C<B"), needed("D<C"));
        assert_eq!(remove(chain, "A"), needed("D<C, C<B, B<A"));
    }

    #[test]
    fn with_a_bypass_the_days_between_may_be_removed_from_the_end() {
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
    fn a_lost_backup_still_depends_on_its_base() {
        assert_eq!(remove("A, B<A!", "A"), needed("B<A"));
        assert_eq!(remove("A, B<A!", "B<A"), Ok(()));
        assert_eq!(remove("A!, B<A", "A"), needed("B<A"), "its objects may be back tomorrow");
    }

    #[test]
    fn only_the_last_of_several_copies_is_needed() {
        assert_eq!(remove("A, A, B<A", "A"), Ok(()));
        assert_eq!(remove("A, A!, B<A", "A"), needed("B<A"), "the other is not whole");
        assert_eq!(remove("A, A~, B<A", "A"), needed("B<A"), "the other may go at any moment");
        assert_eq!(upload("A", "A"), Err(UploadConflict::AlreadyStored));
        assert_eq!(upload("A!", "A"), Ok(()), "the rest of a copy prevents nothing");
    }

    #[test]
    fn an_announced_copy_is_not_a_route_but_depends_on_its_base() {
        assert_eq!(remove("A, B<A~", "A"), needed("B<A"));
        assert_eq!(remove("A, B<A, B~, C<B", "B<A"), needed("C<B"));
        let announced = Err(UploadConflict::BaseAnnounced(link("A").snapshot));
        assert_eq!(upload("A~", "B<A"), announced);
        assert_eq!(upload("A~, A", "B<A"), Ok(()));
        assert_eq!(upload("A~", "A"), Err(UploadConflict::AlreadyStored), "its removal may be refused");
    }

    #[test]
    fn an_upload_is_stored_only_with_a_chain_that_no_host_is_removing() {
        assert_eq!(settled("A"), Settled::Stored);
        assert_eq!(settled("A, B<A"), Settled::Stored);
        assert_eq!(settled("A, B<A!"), Settled::NotWhole);
        assert_eq!(settled("A, B<A~"), Settled::Undecided, "somebody removes the new one itself");
        assert_eq!(settled("A~, B<A"), Settled::Undecided);
        assert_eq!(settled("A~, A, B<A"), Settled::Stored);
        assert_eq!(settled("A!, B<A"), Settled::BaseNotRecoverable);
        assert_eq!(settled("B<B"), Settled::BaseNotRecoverable, "it is not its own base");
    }

    #[test]
    fn an_upload_without_a_base_may_be_aborted_whatever_depends_on_it() {
        let abort = |members: &str, old: &str| {
            let members = stored(members);
            check_abort(&members, &members, place(&members, old)).is_ok()
        };
        assert!(abort("B<A, C<B", "B<A") && abort("A!, B<A, C<B", "B<A"));
        assert!(!abort("A, B<A, C<B", "B<A"));
        assert!(!abort("A~, B<A, C<B", "B<A"), "A may stay");
        assert!(!abort("A, B<A", "A"));
        // another host stored A, and its manifest was not read
        let (known, listed) = (stored("A!, B<A, C<B"), stored("A, B<A, C<B"));
        assert_eq!(check_abort(&known, &listed, 1), Err(vec![2]));
    }

    #[test]
    fn the_chain_to_a_snapshot_is_named() {
        let route = |members: &str, to: &str| route_to(&stored(members), link(to).snapshot, None);
        assert_eq!(route("A, B<A, C<B, C<A", "C"), Some(vec![0, 3]));
        assert_eq!(route("A, B<A, C<B, C<A!", "C"), Some(vec![0, 1, 2]));
        assert_eq!(route("A~, B<A", "B"), None);
        assert_eq!(route("B<A, A<B", "B"), None);
        assert_eq!(route_to(&stored("A, A, B<A"), link("B").snapshot, Some(0)), Some(vec![1, 2]));
    }

    #[test]
    fn circles_in_a_damaged_store_end() {
        assert_eq!(remove("X<Y, Y<X", "X<Y"), needed("Y<X"));
        assert_eq!(remove("X<X", "X<X"), Ok(()));
        assert_eq!(remove("B<A, C<B", "C<B"), Ok(()), "nothing depends on it");
        assert_eq!(
            remove("B<A, C<B", "B<A"),
            needed("C<B"),
            "A may be somewhere that the store does not know"
        );
    }

    #[test]
    fn long_chains_need_no_deep_stack() {
        let guid = |n: u64| Guid::new(n).unwrap();
        let member = |snapshot, base| Member { link: Link { snapshot, base }, whole: true, announced: false };
        let mut members = vec![member(guid(1), None)];
        members.extend((2..=100_000).map(|n| member(guid(n), Some(guid(n - 1)))));
        let Err(order) = check_remove(&members, 0) else { panic!() };
        assert_eq!(order.len(), 99_999);
        assert_eq!(order[0], 99_999);
        assert_eq!(route_to(&members, guid(100_000), None).map(|chain| chain.len()), Some(100_000));
    }
}
