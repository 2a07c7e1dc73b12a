//! The plan of a restore: which stored backups, in which order, onto what the target has. Pure.

use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::model::backup::{Link, Point};
use crate::model::names::{Guid, dataset_of, short_name};
use crate::model::shell::quoted;
use crate::restore::resume::partial::PartialReceive;
use crate::restore::route::{Step, cheapest};
use crate::restore::target::Target;
use crate::state::store::format::{Contents, Entry};

/// The place in the store of the backup that the target has a part of, and the target as it will be when that
/// is whole.
pub fn find_begun(
    contents: &Contents,
    partial: &PartialReceive,
    name: &str,
    target: &Target,
) -> Result<(usize, Target)> {
    let cannot = |why: &str| {
        Error::refused(format!("{name} has a part of an interrupted stream of {}, {why}", partial.name))
            .hint(DISCARD_HINT)
    };
    let is_it = |entry: &Entry| entry.link() == partial.link;
    let place = contents.entries.iter().position(is_it).ok_or_else(|| cannot("which is not stored"))?;
    let follows = match (target, partial.link.base) {
        (Target::New, None) => true,
        (Target::New, Some(_)) => is_clone(&contents.entries[place]),
        (Target::Has { base: there, .. }, Some(base)) => *there == Some(base),
        _ => false,
    };
    if !follows {
        return Err(cannot("which does not follow the snapshots there"));
    }
    Ok((place, target.with(&contents.entries[place], name)))
}

/// What to do about a part that is in the way.
pub const DISCARD_HINT: &str = "-A discards that part; whole snapshots stay";

/// The stored backups that restore `wanted` onto what the target has: their places in the store, in order.
/// `bytes` is what fetching an entry costs; none: it cannot be fetched. `origins`: the snapshots of the
/// target's pool, of which a new target may be a clone.
pub fn plan(
    contents: &Contents,
    bytes: impl Fn(usize, &Entry) -> Option<u64>,
    wanted: &Point,
    target_name: &str,
    target: &Target,
    origins: &HashSet<Guid>,
) -> Result<Vec<usize>> {
    let start = match target {
        Target::New => None,
        Target::Has { base: None, .. } => {
            return Err(Error::refused(format!(
                "{target_name} exists, and has no snapshot that a backup could be received onto"
            ))
            .hint("nothing is overwritten: name a dataset that does not exist"));
        }
        Target::Has { base, .. } => *base,
    };
    let is_new = *target == Target::New;
    // the first stream of a clone creates a dataset, as a full one does
    let link = |entry: &Entry| match (is_clone(entry), entry.base.as_ref()) {
        (false, _) => Some(entry.link()),
        (true, Some(base)) if is_new && origins.contains(&base.guid) => {
            Some(Link { snapshot: entry.snapshot.guid, base: None })
        }
        _ => None,
    };
    let (places, steps) = steps_of(contents, &bytes, link);
    match cheapest(&steps, start, wanted.guid) {
        Some(route) => {
            let steps: Vec<usize> = route.iter().map(|n| places[*n]).collect();
            check_names(contents, &steps, target_name, target)?;
            Ok(steps)
        }
        None => {
            let from_nothing = cheapest(&steps, None, wanted.guid).is_some();
            let clone = if from_nothing { None } else { missing_origin(contents, &bytes, wanted) };
            Err(match clone {
                Some(entry) if is_new => no_origin(contents, entry, target_name),
                Some(entry) => Error::refused(format!(
                    "{} is stored as a clone, which creates a new dataset, and {target_name} exists",
                    entry.snapshot.name
                ))
                .hint("name a dataset that does not exist"),
                None => no_route(&steps, from_nothing, wanted, target_name, target),
            })
        }
    }
}

/// The same for a host that has nothing: the chain of a clone's origin comes first.
pub fn plan_from_nothing(
    contents: &Contents,
    bytes: impl Fn(usize, &Entry) -> Option<u64>,
    wanted: &Point,
) -> Result<Vec<usize>> {
    let (places, steps) = steps_of(contents, &bytes, |entry| Some(entry.link()));
    match cheapest(&steps, None, wanted.guid) {
        Some(route) => Ok(route.iter().map(|n| places[*n]).collect()),
        None => Err(no_chain(&wanted.name)),
    }
}

fn no_chain(name: &str) -> Error {
    Error::failed(format!("no stored chain of backups leads to {name}"))
}

/// The last clone of a route that only lacks the origin of that clone.
fn missing_origin<'a>(
    contents: &'a Contents,
    bytes: &impl Fn(usize, &Entry) -> Option<u64>,
    wanted: &Point,
) -> Option<&'a Entry> {
    let (places, steps) = steps_of(contents, bytes, |entry| Some(entry.link()));
    let route = cheapest(&steps, None, wanted.guid)?;
    route.iter().rev().map(|n| &contents.entries[places[*n]]).find(|entry| is_clone(entry))
}

/// The backups that can be fetched and have a link: their places in the store, and what each costs.
fn steps_of(
    contents: &Contents,
    bytes: &impl Fn(usize, &Entry) -> Option<u64>,
    link: impl Fn(&Entry) -> Option<Link>,
) -> (Vec<usize>, Vec<Step>) {
    let step = |(n, entry): (usize, &Entry)| Some((n, Step { link: link(entry)?, bytes: bytes(n, entry)? }));
    contents.entries.iter().enumerate().filter_map(step).unzip()
}

fn no_origin(contents: &Contents, clone: &Entry, target_name: &str) -> Error {
    let Some(base) = &clone.base else { return Error::failed("a clone without an origin") };
    let pool = target_name.split('/').next().unwrap_or_default();
    let mut named =
        contents.entries.iter().map(|entry| &entry.snapshot).filter(|s| s.name == base.name).peekable();
    let is_clear = named.peek().is_some() && named.all(|snapshot| snapshot.guid == base.guid);
    let origin = if is_clear { quoted(&base.name) } else { base.guid.to_string() };
    let mut place = format!("{pool}/{}", dataset_of(&base.name).rsplit('/').next().unwrap_or_default());
    if place == target_name {
        place.push_str("-origin");
    }
    Error::refused(format!(
        "{} is stored as a clone of {}, which is not in the pool {pool}",
        clone.snapshot.name, base.name
    ))
    .hint(format!("first restore that into a dataset of its own: zfs2s3 restore {origin} {}", quoted(&place)))
    .hint("then run this command again: the new dataset will be a clone of it")
}

/// See [`Backup::is_clone`](crate::model::backup::Backup::is_clone).
pub fn is_clone(entry: &Entry) -> bool {
    entry.base.as_ref().is_some_and(|base| entry.snapshot.is_clone_of(base))
}

/// A dataset has each snapshot name only once.
fn check_names(contents: &Contents, steps: &[usize], target_name: &str, target: &Target) -> Result<()> {
    let mut taken: HashSet<&str> = target.snapshots().iter().map(|(name, _)| short_name(name)).collect();
    for step in steps {
        let name = &contents.entries[*step].snapshot.name;
        if !taken.insert(short_name(name)) {
            return Err(Error::refused(format!(
                "{target_name} would have two snapshots with the name {} during the restore, which is impossible",
                short_name(name)
            ))
            .hint("'zfs2s3 download' and 'zfs receive' can restore them one by one, renamed in between"));
        }
    }
    Ok(())
}

/// `from_nothing`: is there a route to a new dataset?
fn no_route(steps: &[Step], from_nothing: bool, wanted: &Point, target_name: &str, target: &Target) -> Error {
    let name = &wanted.name;
    match target {
        Target::Has { snapshots, base: Some(base) } if from_nothing => {
            let latest = target.base_name().unwrap_or_default();
            if cheapest(steps, Some(wanted.guid), *base).is_some() {
                return Error::refused(format!(
                    "{target_name} is already at {latest}, which is later than {name}"
                ))
                .hint("nothing is rolled back: name a dataset that does not exist");
            }
            let leads_there =
                |(_, guid): &&(String, Guid)| cheapest(steps, Some(*guid), wanted.guid).is_some();
            match snapshots.iter().rfind(leads_there) {
                Some((common, _)) => Error::refused(format!(
                    "{target_name} has diverged: no chain of stored backups leads from its latest snapshot {latest} to {name}"
                ))
                .hint("nothing was rolled back or destroyed; a new dataset as target gets all of it")
                .hint(format!(
                    "or go back to the latest snapshot from which a chain leads there, which discards everything since: zfs rollback -r {}",
                    quoted(common)
                )),
                None => Error::refused(format!(
                    "{target_name} is not an earlier state of {name}: no chain of stored backups leads there from any of its snapshots"
                ))
                .hint("nothing was changed; give a target that does not exist yet"),
            }
        }
        _ => no_chain(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::resume::partial::Features;
    use crate::state::store::history::{guid, point, store, written};

    /// `new`, `empty`, or the snapshots of tank/new, oldest first, with the base before a dot: `A B.C`.
    fn target(text: &str) -> Target {
        let (before, after) = text.split_once('.').unwrap_or((text, ""));
        match text {
            "new" => Target::New,
            "empty" => Target::Has { snapshots: vec![], base: None },
            _ => Target::Has {
                snapshots: before
                    .split(' ')
                    .chain(after.split(' '))
                    .filter(|letter| !letter.is_empty())
                    .map(|letter| (format!("tank/new@{letter}"), guid(letter)))
                    .collect(),
                base: before.split(' ').next_back().map(guid),
            },
        }
    }

    /// The backups that are received, or the words of the refusal. `origins`: in the target's pool.
    fn planned_with(origins: &str, history: &str, onto: &str, wanted: &str) -> String {
        let contents = store(history);
        let origins = origins.split(' ').filter(|letter| !letter.is_empty()).map(guid).collect();
        let size = |_: usize, entry: &Entry| entry.size();
        match plan(&contents, size, &point(wanted), "tank/new", &target(onto), &origins) {
            Ok(steps) => written(steps.iter().map(|n| &contents.entries[*n])),
            Err(error) => error.message,
        }
    }

    fn planned(history: &str, onto: &str, wanted: &str) -> String {
        planned_with("", history, onto, wanted)
    }

    #[test]
    fn from_nothing_or_from_what_the_target_has() {
        assert_eq!(planned("A, B<A, C<B", "new", "C"), "A, B<A, C<B");
        assert_eq!(planned("A, B<A, C<B", "A", "C"), "B<A, C<B");
        assert_eq!(planned("A, B<A, C<B", "A B", "C"), "C<B");
        assert_eq!(planned("A, B<A, C<B", "A.x y", "C"), "B<A, C<B", "later snapshots do not matter");
    }

    #[test]
    fn the_cheapest_chain() {
        assert_eq!(planned("A:100, B<A:10, C<B:10, C<A:15", "new", "C"), "A, C<A");
        assert_eq!(planned("A:100, B<A:10, C<B:10, C:90", "new", "C"), "C");
        assert_eq!(planned("A:100, B<A:10, C<B:10, C:90", "A", "C"), "B<A, C<B");
    }

    #[test]
    fn nothing_is_rolled_back_or_overwritten() {
        let said = planned("A, B<A", "A B", "A");
        assert_eq!(said, "tank/new is already at tank/new@B, which is later than tank/a@A");
        assert!(planned("A, B<A", "x", "B").contains("tank/new is not an earlier state of tank/a@B"));
        assert!(planned("A, B<A", "A x", "B").contains("tank/new has diverged"));
        assert!(planned("A", "empty", "A").contains("has no snapshot that a backup could be received onto"));
        assert_eq!(planned("B<A", "new", "B"), "no stored chain of backups leads to tank/a@B");
    }

    #[test]
    fn a_clone_needs_its_origin_in_the_pool_of_a_new_target() {
        let history = "A, x/B<A, x/C<x/B";
        assert_eq!(planned_with("A", history, "new", "x/C"), "x/B<A, x/C<x/B");
        let said = planned(history, "new", "x/C");
        assert_eq!(said, "tank/x@B is stored as a clone of tank/a@A, which is not in the pool tank");
        assert!(planned_with("A", history, "A", "x/C").contains("which creates a new dataset"));
        assert_eq!(planned_with("A", history, "B", "x/C"), "x/C<x/B", "a clone that exists is continued");
    }

    #[test]
    fn two_snapshots_with_one_name_are_not_received() {
        let mut contents = store("A, B<A");
        contents.entries[1].snapshot.name = "tank/a@A".to_string();
        let size = |_: usize, entry: &Entry| entry.size();
        let made = plan(&contents, size, &point("B"), "tank/new", &Target::New, &HashSet::new());
        assert!(made.unwrap_err().message.contains("two snapshots with the name A"));
    }

    #[test]
    fn an_interrupted_receive_must_be_of_a_stored_backup_that_follows() {
        let features = Features { large_blocks: false, embedded: false, compressed: false, raw: false };
        let found = |history: &str, link: &str, onto: &str| {
            let link = store(link).entries[0].link();
            let partial = PartialReceive {
                link,
                name: "tank/a@?".to_string(),
                object: 1,
                offset: 0,
                bytes: 0,
                features,
            };
            match find_begun(&store(history), &partial, "tank/new", &target(onto)) {
                Ok((n, Target::Has { base, .. })) => format!("{n}, then {}", base.unwrap().number()),
                Ok((n, Target::New)) => format!("{n}, then nothing"),
                Err(error) => error.message,
            }
        };
        assert_eq!(found("A, B<A", "A", "new"), "0, then 65");
        assert_eq!(found("A, B<A", "B<A", "A"), "1, then 66");
        assert_eq!(found("A, x/B<A", "x/B<A", "new"), "1, then 66", "a clone");
        assert!(found("A", "C", "new").contains("which is not stored"));
        for (link, onto) in [("B<A", "new"), ("A", "B"), ("B<A", "B"), ("B<A", "empty")] {
            assert!(found("A, B<A", link, onto).contains("does not follow"), "{link} onto {onto}");
        }
    }
}
