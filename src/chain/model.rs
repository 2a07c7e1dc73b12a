//! The chain rule against a brute-force model that knows nothing of sets and closures: it follows every chain
//! of every backup by hand, on some ten thousand random histories.

use std::collections::HashSet;

use super::*;
use crate::model::backup::Link;
use crate::model::names::Guid;

/// Small, seeded, and the same everywhere, so that a failure can be reproduced.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Can `guid` be restored? Tries every usable backup that ends there, never entering a snapshot twice.
fn restorable(members: &[Member], guid: Guid, entered: &mut Vec<Guid>) -> bool {
    if entered.contains(&guid) {
        return false;
    }
    entered.push(guid);
    let found = members.iter().any(|m| {
        m.whole
            && !m.announced
            && m.link.snapshot == guid
            && match m.link.base {
                None => true,
                Some(base) => restorable(members, base, entered),
            }
    });
    entered.pop();
    found
}

/// The fewest backups that restore `guid`: tries with ever more of them.
fn shortest(members: &[Member], guid: Guid) -> Option<usize> {
    fn reaches(members: &[Member], guid: Guid, steps: usize) -> bool {
        let usable = members.iter().filter(|m| m.whole && !m.announced && m.link.snapshot == guid);
        steps > 0
            && usable.into_iter().any(|m| match m.link.base {
                None => steps == 1,
                Some(base) => reaches(members, base, steps - 1),
            })
    }
    (1..=8).find(|steps| reaches(members, guid, *steps))
}

fn base_restorable(members: &[Member], link: Link) -> bool {
    link.base.is_none_or(|base| restorable(members, base, &mut Vec::new()))
}

fn sound(members: &[Member]) -> bool {
    members.iter().all(|m| base_restorable(members, m.link))
}

fn without(members: &[Member], old: usize) -> Vec<Member> {
    members.iter().enumerate().filter(|(n, _)| *n != old).map(|(_, member)| *member).collect()
}

/// For a sound set: what is left must be sound. For any set: nothing that can be restored is lost, and
/// nothing broken loses what it still depends on.
fn model_allows_removal(members: &[Member], old: usize) -> bool {
    let rest = without(members, old);
    if sound(members) && members.iter().all(|m| m.whole && !m.announced) {
        return sound(&rest);
    }
    let snapshot = Some(members[old].link.snapshot);
    rest.iter().all(|m| m.link.base != snapshot || base_restorable(&rest, m.link))
}

fn history(random: &mut Random, damaged: bool) -> Vec<Member> {
    let guid = |n: u64| Guid::new(n + 1).expect("not zero");
    let snapshots = 2 + random.below(6);
    let mut members: Vec<Member> = Vec::new();
    for _ in 0..random.below(14) {
        let snapshot = guid(random.below(snapshots));
        let base = match random.below(4) {
            0 => None,
            _ => Some(guid(random.below(snapshots))),
        };
        let link = Link { snapshot, base };
        let fits = damaged || (base_restorable(&members, link) && base.is_none_or(|base| base < snapshot));
        // sometimes a second copy
        if fits && (random.below(8) == 0 || members.iter().all(|m| m.link != link)) {
            let (whole, announced) = (random.below(8) != 0, random.below(8) == 0);
            members.push(Member { link, whole: !damaged || whole, announced: damaged && announced });
        }
    }
    members
}

#[test]
fn every_permission_and_refusal_equals_the_brute_force_model() {
    let mut random = Random(0x2f5b_acba_c000_0001);
    let (mut allowed, mut refused) = (0, 0);
    for round in 0..15_000 {
        let damaged = round % 3 == 0;
        let members = history(&mut random, damaged);
        assert!(damaged || sound(&members));
        let reached = recoverable(&members);
        let lengths = lengths(&members);
        for n in 1..=8 {
            let guid = Guid::new(n).expect("not zero");
            assert_eq!(reached.contains(&guid), restorable(&members, guid, &mut Vec::new()), "{members:?}");
            assert_eq!(lengths.get(&guid).copied(), shortest(&members, guid), "{members:?}");
            let chain = route_to(&members, guid, None).map(|chain| chain.len());
            assert_eq!(lengths.get(&guid).copied(), chain, "{members:?}");
            for base in (0..=8).map(Guid::new) {
                let new = Link { snapshot: guid, base };
                let is_new = members.iter().all(|m| m.link != new || !m.whole);
                let expected = is_new && base_restorable(&members, new);
                assert_eq!(check_upload(&members, new).is_ok(), expected, "{members:?} + {new:?}");
            }
        }
        for (n, member) in members.iter().enumerate() {
            let verdict = check_remove(&members, n);
            assert_eq!(verdict.is_ok(), model_allows_removal(&members, n), "{members:?} - {member:?}");
            match verdict {
                Ok(()) => allowed += 1,
                Err(order) if !damaged => {
                    refused += 1;
                    removing_in_that_order_works(&members, &order, n);
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(allowed > 10_000 && refused > 10_000, "both kinds are there: {allowed}, {refused}");
}

/// A user follows the order that a refusal names: each step must be allowed, and none superfluous.
fn removing_in_that_order_works(members: &[Member], order: &[usize], wanted: usize) {
    // their places in `members`, as they are left
    let mut places: Vec<usize> = (0..members.len()).collect();
    let rest = |places: &[usize]| places.iter().map(|n| members[*n]).collect::<Vec<_>>();
    let at = |places: &[usize], n: usize| places.iter().position(|p| *p == n).expect("it is still there");
    for n in order {
        let now = rest(&places);
        assert!(
            check_remove(&now, at(&places, wanted)).is_err(),
            "{n} need not go for {wanted} in {members:?}"
        );
        assert_eq!(check_remove(&now, at(&places, *n)), Ok(()), "{order:?} of {members:?}");
        places.retain(|p| p != n);
    }
    assert_eq!(check_remove(&rest(&places), at(&places, wanted)), Ok(()), "after {order:?} of {members:?}");
}

/// Days in a row, now and then from an earlier one, and some bypasses.
fn chains(random: &mut Random) -> Vec<Member> {
    let guid = |n: u64| Guid::new(n).expect("not zero");
    let mut members: Vec<Member> = Vec::new();
    for day in 1..=8 {
        let base = match random.below(8) {
            _ if day == 1 => None,
            0 => Guid::new(random.below(day)),
            _ => Some(guid(day - 1)),
        };
        members.push(Member { link: Link { snapshot: guid(day), base }, whole: true, announced: false });
    }
    for _ in 0..random.below(3) {
        let to = 2 + random.below(7);
        let link = Link { snapshot: guid(to), base: Guid::new(random.below(to)) };
        if check_upload(&members, link).is_ok() {
            members.push(Member { link, whole: true, announced: false });
        }
    }
    members
}

/// What `list --removable` shows: all that may be removed now, and as many as possible in a row.
#[test]
fn what_is_removable_equals_the_brute_force_model() {
    let mut random = Random(0x0be5_7e11);
    let mut alternatives = 0;
    for round in 0..12_000 {
        let members = history(&mut random, round % 3 == 0);
        let found = removable(&members);
        let by_model: Vec<usize> =
            (0..members.len()).filter(|n| model_allows_removal(&members, *n)).collect();
        assert_eq!(found, by_model, "{members:?}");
        let (order, instead) = in_order(&members, &found);
        let mut left: Vec<usize> = (0..members.len()).collect();
        let rest = |left: &[usize]| left.iter().map(|n| members[*n]).collect::<Vec<_>>();
        let at = |left: &[usize], n: usize| left.iter().position(|place| *place == n).expect("it is there");
        for n in &order {
            assert!(model_allows_removal(&rest(&left), at(&left, *n)), "{order:?} of {members:?}");
            left.retain(|place| place != n);
        }
        for n in &instead {
            assert!(!model_allows_removal(&rest(&left), at(&left, *n)), "{instead:?} of {members:?}");
        }
        alternatives += instead.len();
    }
    assert!(alternatives > 100, "both kinds are there: {alternatives}");
}

/// What `list --advise` proposes: no other bypass lets more go, and nothing of it is refused.
#[test]
fn the_best_bypass_equals_the_brute_force_model() {
    let mut random = Random(0xad71_5e00);
    let mut advised = 0;
    for _ in 0..12_000 {
        let members = chains(&mut random);
        let here: HashSet<Guid> = (1..=8).filter(|_| random.below(3) > 0).filter_map(Guid::new).collect();
        let sizes: Vec<Option<u64>> =
            members.iter().map(|_| (random.below(8) > 0).then(|| 1 + random.below(9))).collect();
        let snapshots: Vec<Guid> = here.iter().copied().collect();
        let best = best_bypass(&members, |n| sizes[n], &here, &snapshots);
        let bytes = |freed: &[usize]| freed.iter().filter_map(|n| sizes[*n]).sum::<u64>();
        if let Some(best) = &best {
            advised += 1;
            assert!(here.contains(&best.from) && here.contains(&best.to));
            let link = Link { snapshot: best.to, base: Some(best.from) };
            assert_eq!(check_upload(&members, link), Ok(()), "{best:?} of {members:?}");
            let with = [members.clone(), vec![Member { link, whole: true, announced: false }]].concat();
            let mut left: Vec<usize> = (0..with.len()).collect();
            for n in &best.freed {
                let rest: Vec<Member> = left.iter().map(|n| with[*n]).collect();
                let at = left.iter().position(|place| place == n).expect("it is there");
                assert!(sizes[*n].is_some() && model_allows_removal(&rest, at), "{best:?} of {members:?}");
                left.retain(|place| place != n);
            }
            assert_eq!(bytes(&best.freed), best.bytes);
        }
        // every pair, from the end of the chain between them, each as often as it helps
        for (to, from) in here.iter().flat_map(|to| here.iter().map(move |from| (*to, *from))) {
            let Some(chain) = route_to(&members, to, None) else { continue };
            let Some(start) = chain.iter().position(|n| members[*n].link.snapshot == from) else { continue };
            let link = Link { snapshot: to, base: Some(from) };
            if chain.len() - start < 3 || members.iter().any(|m| m.link == link) {
                continue;
            }
            let with = [members.clone(), vec![Member { link, whole: true, announced: false }]].concat();
            let mut freed: Vec<usize> = Vec::new();
            for n in chain[start + 1..].iter().rev().filter(|n| sizes[**n].is_some()) {
                let left: Vec<usize> = (0..with.len()).filter(|place| !freed.contains(place)).collect();
                let rest: Vec<Member> = left.iter().map(|n| with[*n]).collect();
                let at = left.iter().position(|place| place == n).expect("it is there");
                if model_allows_removal(&rest, at) {
                    freed.push(*n);
                }
            }
            if freed.len() > 1 {
                let best = best.as_ref().map_or(0, |best| best.bytes);
                assert!(bytes(&freed) <= best, "{from}..{to} frees {freed:?} of {members:?}, not {best}");
            }
        }
    }
    assert!(advised > 500, "{advised}");
}

#[test]
fn no_sequence_of_permitted_steps_ever_leaves_an_unsound_set() {
    let mut random = Random(0x5eed);
    for _ in 0..2_000 {
        let mut members: Vec<Member> = Vec::new();
        for _ in 0..30 {
            let snapshot = Guid::new(1 + random.below(7)).expect("not zero");
            let link = Link { snapshot, base: Guid::new(random.below(7)) };
            let place = members.iter().position(|m| m.link == link);
            if random.below(3) > 0 {
                if link.base.is_none_or(|base| base < snapshot) && check_upload(&members, link).is_ok() {
                    members.push(Member { link, whole: true, announced: false });
                }
            } else if let Some(n) = place.filter(|n| check_remove(&members, *n).is_ok()) {
                let before = recoverable(&members);
                members = without(&members, n);
                let mut lost = before;
                lost.retain(|guid| !recoverable(&members).contains(guid));
                assert!(lost.iter().all(|guid| *guid == link.snapshot), "only what was named: {lost:?}");
            }
            assert!(sound(&members), "{members:?}");
        }
    }
}
