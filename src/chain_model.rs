//! The chain rule against a brute-force model that knows nothing of sets and closures: it follows every chain
//! of every backup by hand, on some ten thousand random histories.

use super::*;

/// Small, seeded, and the same everywhere, so that a failure can be looked at again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Can `guid` be restored? Tries every intact backup that ends there, never entering a snapshot twice.
fn restorable(members: &[Member], guid: Guid, entered: &mut Vec<Guid>) -> bool {
    if entered.contains(&guid) {
        return false;
    }
    entered.push(guid);
    let found = members.iter().any(|m| {
        m.intact
            && m.link.snapshot == guid
            && match m.link.base {
                None => true,
                Some(base) => restorable(members, base, entered),
            }
    });
    entered.pop();
    found
}

fn base_restorable(members: &[Member], link: Link) -> bool {
    link.base.is_none_or(|base| restorable(members, base, &mut Vec::new()))
}

fn sound(members: &[Member]) -> bool {
    members.iter().all(|m| base_restorable(members, m.link))
}

fn without(members: &[Member], old: Link) -> Vec<Member> {
    members.iter().copied().filter(|m| m.link != old).collect()
}

/// The rule of DESIGN's words for a sound set: what is left must be sound.
/// For any set: nothing that can be restored is lost, and nothing broken loses what it still hangs on.
fn model_allows_removal(members: &[Member], old: Link) -> bool {
    let rest = without(members, old);
    if sound(members) && members.iter().all(|m| m.intact) {
        return sound(&rest);
    }
    rest.iter().all(|m| m.link.base != Some(old.snapshot) || base_restorable(&rest, m.link))
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
        if fits && members.iter().all(|m| m.link != link) {
            members.push(Member { link, intact: !damaged || random.below(8) != 0 });
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
        for n in 1..=8 {
            let guid = Guid::new(n).expect("not zero");
            assert_eq!(reached.contains(&guid), restorable(&members, guid, &mut Vec::new()), "{members:?}");
            for base in (0..=8).map(Guid::new) {
                let new = Link { snapshot: guid, base };
                let expected = members.iter().all(|m| m.link != new) && base_restorable(&members, new);
                assert_eq!(check_upload(&members, new).is_ok(), expected, "{members:?} + {new:?}");
            }
        }
        for member in &members {
            let verdict = check_remove(&members, member.link);
            assert_eq!(
                verdict.is_ok(),
                model_allows_removal(&members, member.link),
                "{members:?} - {member:?}"
            );
            match verdict {
                Ok(()) => allowed += 1,
                Err(RemoveConflict::Needed(order)) if !damaged => {
                    refused += 1;
                    removing_in_that_order_works(&members, &order, member.link);
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(allowed > 10_000 && refused > 10_000, "both kinds are there: {allowed}, {refused}");
}

/// What a refusal names is what a user does next: each step must be allowed, and none be superfluous.
fn removing_in_that_order_works(members: &[Member], order: &[Link], wanted: Link) {
    let mut now = members.to_vec();
    for link in order {
        assert!(check_remove(&now, wanted).is_err(), "{link:?} need not go for {wanted:?} in {members:?}");
        assert_eq!(check_remove(&now, *link), Ok(()), "{order:?} of {members:?}");
        now = without(&now, *link);
    }
    assert_eq!(check_remove(&now, wanted), Ok(()), "after {order:?} of {members:?}");
}

#[test]
fn no_sequence_of_permitted_steps_ever_leaves_an_unsound_set() {
    let mut random = Random(0x5eed);
    for _ in 0..2_000 {
        let mut members: Vec<Member> = Vec::new();
        for _ in 0..30 {
            let snapshot = Guid::new(1 + random.below(7)).expect("not zero");
            let link = Link { snapshot, base: Guid::new(random.below(7)) };
            if random.below(3) > 0 {
                if link.base.is_none_or(|base| base < snapshot) && check_upload(&members, link).is_ok() {
                    members.push(Member { link, intact: true });
                }
            } else if check_remove(&members, link).is_ok() {
                let before = recoverable(&members);
                members = without(&members, link);
                let mut lost = before;
                lost.retain(|guid| !recoverable(&members).contains(guid));
                assert!(lost.iter().all(|guid| *guid == link.snapshot), "only what was named: {lost:?}");
            }
            assert!(sound(&members), "{members:?}");
        }
    }
}
