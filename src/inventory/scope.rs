//! The part of the bucket on which an upload depends: the objects of its own dataset, and of those in the
//! chains to its base. Pure.
//!
//! An announcement concerns only its own copy, so nothing beyond these can prevent an upload; at most it has
//! a further chain. So what is allowed by a part is allowed by the whole, and what is not is decided again by
//! the whole.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::model::names::{Guid, dataset_of};
use crate::state::store::format::{Contents, Entry};

/// So many are rare: then everything is listed.
const MOST_DATASETS: usize = 4;

#[derive(Clone, Debug, PartialEq)]
pub struct Scope {
    datasets: BTreeSet<String>,
}

impl Scope {
    /// For backups of `dataset`, for the chains to these snapshots that the store has, and for those to all other
    /// snapshots of the same datasets. None: everything.
    pub fn of(contents: &Contents, dataset: &str, wanted: impl IntoIterator<Item = Guid>) -> Option<Self> {
        // an empty store may be a lost one, and the keys of the Python tool have no prefix
        if contents.entries.is_empty() || contents.entries.iter().any(|entry| entry.stream.is_none()) {
            return None;
        }
        let mut leading: HashMap<Guid, Vec<&str>> = HashMap::new();
        let mut bases: HashMap<&str, Vec<Guid>> = HashMap::new();
        for Entry { snapshot, base, .. } in &contents.entries {
            let dataset = dataset_of(&snapshot.name);
            leading.entry(snapshot.guid).or_default().push(dataset);
            bases.entry(dataset).or_default().extend(base.as_ref().map(|base| base.guid));
        }
        let mut datasets = BTreeSet::new();
        let mut frontier: Vec<Guid> = wanted.into_iter().collect();
        let mut found = vec![dataset];
        let mut seen = HashSet::new();
        while !found.is_empty() || !frontier.is_empty() {
            for dataset in found.drain(..) {
                if datasets.insert(dataset) {
                    frontier.extend(bases.remove(dataset).unwrap_or_default());
                }
            }
            for guid in frontier.drain(..).filter(|guid| seen.insert(*guid)) {
                found.extend(leading.get(&guid).into_iter().flatten());
            }
            if datasets.len() > MOST_DATASETS {
                return None;
            }
        }
        Some(Scope { datasets: datasets.into_iter().map(str::to_string).collect() })
    }

    pub fn has(&self, entry: &Entry) -> bool {
        self.datasets.contains(dataset_of(&entry.snapshot.name))
    }

    /// What all keys of its objects begin with.
    pub fn beginnings(&self, prefix: &str) -> impl Iterator<Item = String> {
        self.datasets.iter().map(move |dataset| format!("{prefix}{dataset}@"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{Member, Settled, check_upload, settle};
    use crate::inventory::copies::copy_states;
    use crate::inventory::listing::Listing;
    use crate::model::copy::Id;
    use crate::model::keys;
    use crate::s3::reply::Object;
    use crate::state::store::history::{guid, store};

    fn of(history: &str, dataset: &str, wanted: &str) -> Option<String> {
        let wanted = wanted.split_whitespace().map(guid);
        let scope = Scope::of(&store(history), &format!("tank/{dataset}"), wanted)?;
        Some(scope.beginnings("p/").collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn the_datasets_of_the_chains_that_lead_to_the_snapshots() {
        const STORE: &str = "o/A, B<o/A, l/C<B, D";
        let scope = |dataset, wanted| of(STORE, dataset, wanted).unwrap();
        assert_eq!(scope("new", ""), "p/tank/new@");
        assert_eq!(scope("new", "A"), "p/tank/new@ p/tank/o@");
        assert_eq!(scope("a", "B"), "p/tank/a@ p/tank/o@", "nothing that starts from it");
        assert_eq!(scope("a", "D"), "p/tank/a@ p/tank/o@", "no other backup of it loses its chain");
        assert_eq!(scope("a", "C"), "p/tank/a@ p/tank/l@ p/tank/o@");
        let scope = Scope::of(&store(STORE), "tank/a", [guid("B")]).unwrap();
        let has: Vec<bool> = store(STORE).entries.iter().map(|entry| scope.has(entry)).collect();
        assert_eq!(has, [true, true, false, true]);
    }

    #[test]
    fn everything_where_a_part_would_not_do() {
        assert_eq!(of("", "a", ""), None);
        assert_eq!(of("1/A, 2/B<1/A, 3/C<2/B, D<3/C", "a", "D").unwrap().split(' ').count(), 4);
        assert_eq!(of("1/A, 2/B<1/A, 3/C<2/B, 4/D<3/C, E<4/D", "a", "E"), None);
        let mut python = store("A");
        python.entries[0].stream = None;
        assert_eq!(Scope::of(&python, "tank/a", []), None);
    }

    /// Small, seeded, and the same everywhere.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (self.0 >> 33) % limit
        }
        /// One in so many times.
        fn happens(&mut self, times: u64) -> bool {
            self.below(times) == 0
        }
        /// Backups of @A to @F in some datasets, each from an earlier one, of which a store has some.
        fn history(&mut self) -> String {
            let mut snapshots: Vec<String> = Vec::new();
            let mut backups = Vec::new();
            for letter in "ABCDEF".chars().filter(|_| !self.happens(5)).collect::<Vec<_>>() {
                for copy in 0..=u64::from(self.happens(3)) {
                    let snapshot =
                        format!("{}/{letter}", ["a", "b", "c", "d", "e", "f"][self.below(6) as usize]);
                    let base = match snapshots.len() as u64 {
                        0 => String::new(),
                        _ if self.happens(4) => String::new(),
                        count => format!("<{}", snapshots[self.below(count) as usize]),
                    };
                    backups.push(format!("{snapshot}{base}{}", if copy == 1 { "'" } else { "" }));
                    snapshots.push(snapshot);
                }
            }
            backups.join(", ")
        }
    }

    /// The objects of each, but for some that are lost, and some announcements.
    fn objects(random: &mut Random, entries: &[Entry]) -> Vec<Object> {
        let object = |key: String, size| Object { key, size, modified: String::new(), etag: String::new() };
        let mut objects = Vec::new();
        for entry in entries {
            let keys = entry.keys("").into_iter().filter(|_| !random.happens(12)).collect::<Vec<_>>();
            let size = |key: &str| if key.ends_with(".yml") { 99 } else { entry.size().unwrap_or_default() };
            objects.extend(keys.into_iter().map(|key| object(key.clone(), size(&key))));
            if random.happens(10) {
                objects.push(object(keys::announcement("", &entry.copy(), Id(7)), 50));
            }
        }
        objects
    }

    #[test]
    fn what_a_part_allows_everything_allows() {
        let mut random = Random(1);
        let mut allowed = [0, 0];
        for _ in 0..20_000 {
            let all = store(&random.history());
            // the others are those of another host
            let entries: Vec<Entry> = all.entries.iter().filter(|_| !random.happens(3)).cloned().collect();
            let contents = Contents { entries, ..store("") };
            let base = all.entries.get(random.below(8) as usize).map(|entry| entry.snapshot.clone());
            let new = store(&format!(
                "a/Z{}",
                base.map_or(String::new(), |base| format!("<{}", &base.name[5..].replace('@', "/")))
            ));
            let own = new.entries[0].copy();
            let wanted = std::iter::once(own.link.snapshot).chain(own.link.base);
            let Some(scope) = Scope::of(&contents, "tank/a", wanted) else { continue };
            let mut objects = objects(&mut random, &all.entries);
            for count in &mut allowed {
                let beginnings: Vec<String> = scope.beginnings("").collect();
                let is_in_part =
                    |object: &&Object| beginnings.iter().any(|start| object.key.starts_with(start));
                let part = objects.iter().filter(is_in_part).cloned().collect();
                let answer = |scope: Option<&Scope>, objects: Vec<Object>| {
                    let listing = Listing { objects, ..Listing::default() };
                    let mut copies = copy_states(&contents, scope, Some(&listing));
                    let place = copies.iter().position(|copy| copy.name == own);
                    place.into_iter().for_each(|place| copies[place].confirmed = true);
                    let members: Vec<Member> = copies.iter().map(|copy| copy.member(false, None)).collect();
                    match place {
                        None => check_upload(&members, own.link).is_ok(),
                        Some(place) => settle(&members, place) == Settled::Stored,
                    }
                };
                if answer(Some(&scope), part) {
                    assert!(
                        answer(None, objects.clone()),
                        "{own:?} by {scope:?} of {contents:?} and {objects:?}"
                    );
                    *count += 1;
                }
                // then it is uploaded
                objects.extend(super::tests::objects(&mut random, &new.entries));
            }
        }
        assert!(allowed.iter().all(|count| *count > 2_000), "{allowed:?}");
    }
}
