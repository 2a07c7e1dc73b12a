//! What a user may do with a dataset, by the output of `zfs allow`. Pure.
//!
//! The output has a part for the dataset, and for each of its parents that grants anything:
//!
//! ```text
//! ---- Permissions on tank/home ----------------
//! Permission sets:
//!     @backup hold,release,send
//! Local+Descendent permissions:
//!     user alice @backup,mount
//!     group staff snapshot
//!     everyone hold
//! ```

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::zfs::inspect::{DatasetInfo, User};

/// What uploads, and restores, need.
const FOR_UPLOADS: &[&str] = &["send", "hold", "release"];
const FOR_RESTORES: &[&str] = &["create", "mount", "receive"];

const RAW: &[&str] = &["send:raw", "send:encrypted"];

/// Those that the user does not have: for uploads, and for restores.
pub fn missing(allowed: &str, dataset: &DatasetInfo, user: &User) -> (Vec<&'static str>, Vec<&'static str>) {
    let mut granted = granted(allowed, &dataset.name, user);
    // an encrypted dataset is sent raw, which OpenZFS 2.4 has a right for
    if dataset.is_encrypted && RAW.iter().any(|right| granted.contains(*right)) {
        granted.insert("send".to_string());
    }
    let lacks =
        |needed: &[&'static str]| needed.iter().filter(|right| !granted.contains(**right)).copied().collect();
    (lacks(FOR_UPLOADS), lacks(FOR_RESTORES))
}

fn granted(allowed: &str, dataset: &str, user: &User) -> HashSet<String> {
    let mut sets: HashMap<&str, BTreeSet<&str>> = HashMap::new();
    let mut given: Vec<&str> = Vec::new();
    let (mut is_own, mut section) = (false, "");
    for line in allowed.lines() {
        if let Some(rest) = line.strip_prefix("---- Permissions on ") {
            is_own = rest.trim_end_matches(['-', ' ']) == dataset.trim_end_matches(['-', ' ']);
            continue;
        }
        if !line.starts_with([' ', '\t']) {
            section = line.trim_end_matches(':');
            continue;
        }
        let line = line.trim();
        let applies = match section {
            "Permission sets" => {
                if let Some((name, rights)) = line.split_once(' ') {
                    sets.entry(name).or_default().extend(rights.split(','));
                }
                continue;
            }
            "Local permissions" => is_own,
            "Descendent permissions" => !is_own,
            "Local+Descendent permissions" => true,
            _ => false,
        };
        // names may have spaces
        let Some((who, rights)) = line.rsplit_once(' ') else { continue };
        let (kind, name) = who.split_once(' ').unwrap_or((who, ""));
        // of a user without a name
        let name = name.strip_prefix("(unknown: ").and_then(|name| name.strip_suffix(')')).unwrap_or(name);
        let is_meant = match kind {
            "everyone" => true,
            "user" => name == user.name,
            "group" => user.groups.iter().any(|group| group == name),
            _ => false,
        };
        let rights = Some(rights).filter(|_| is_meant);
        given.extend(rights.filter(|_| applies).iter().flat_map(|rights| rights.split(',')));
    }
    let mut all = HashSet::new();
    while let Some(right) = given.pop() {
        if all.insert(right.to_string()) {
            given.extend(sets.get(right).into_iter().flatten());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: &str = "---- Permissions on tank/home ------------------------------------
Permission sets:
\t@all @some,release
\t@some send
Create time permissions:
\tdestroy
Local permissions:
\tuser alice @all
Local+Descendent permissions:
\tgroup staff create,mount
\tuser (unknown: 4711) hold,release,send
---- Permissions on tank -----------------------------------------
Local permissions:
\tuser alice snapshot
\teveryone rollback
Descendent permissions:
\teveryone receive
Local+Descendent permissions:
\tuser alice hold
\tuser bob send
";

    fn of(name: &str, groups: &[&str]) -> User {
        let groups = groups.iter().map(|group| group.to_string()).collect();
        User { name: name.to_string(), groups, is_root: false }
    }

    #[test]
    fn rights_of_the_dataset_and_its_parents_count() {
        let mut all: Vec<String> =
            granted(ALLOWED, "tank/home", &of("alice", &["staff"])).into_iter().collect();
        all.sort();
        assert_eq!(
            all,
            ["@all", "@some", "create", "hold", "mount", "receive", "release", "send"],
            "neither those for tank alone, nor for its creator"
        );
        let missing = |allowed: &str, is_encrypted, user: &User| {
            super::missing(allowed, &DatasetInfo { name: "tank/home".to_string(), is_encrypted }, user)
        };
        let alice = of("alice", &["staff"]);
        assert_eq!(missing(ALLOWED, false, &alice), (vec![], vec![]), "everything that is needed");
        let (uploads, restores) = missing(ALLOWED, false, &of("bob", &["other"]));
        assert_eq!((uploads, restores), (vec!["hold", "release"], vec!["create", "mount"]));
        assert_eq!(missing("", false, &of("alice", &[])).0, FOR_UPLOADS);
        assert!(missing(ALLOWED, false, &of("4711", &[])).0.is_empty());
        let raw = "---- Permissions on tank/home ---\nLocal permissions:\n\tuser x hold,release,send:raw\n";
        assert!(missing(raw, true, &of("x", &[])).0.is_empty());
        assert_eq!(missing(raw, false, &of("x", &[])).0, ["send"], "not in plain text");
    }
}
