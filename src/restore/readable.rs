//! The plan of a restore, of backups that can be read now. S3 is asked for each object before the first byte
//! is received.

use std::collections::{HashMap, HashSet};

use super::Restore;
use super::plan::{is_clone, plan};
use super::stored::{StoredBackup, all_as_one};
use super::target::Target;
use crate::error::{Error, Result, Status};
use crate::model::keys;
use crate::s3::client::Client;
use crate::state::store::format::{Contents, Entry, State};

/// Places in the store, and bytes.
type Steps = Vec<(usize, u64)>;

pub struct Planner<'a> {
    restore: &'a Restore<'a>,
    /// Sizes of the Python tool's objects, by key.
    python_sizes: HashMap<String, u64>,
}

impl<'a> Planner<'a> {
    pub fn new(restore: &'a Restore) -> Result<Self> {
        Ok(Planner { restore, python_sizes: python_sizes(restore.client, restore.contents)? })
    }

    /// The plan from the target's base, or if none starts there, from an earlier snapshot since which nothing
    /// was written. Also returns the target with that base.
    pub fn plan_from_any_base(&self, has: Target) -> Result<(Steps, Target)> {
        let refused = match self.plan(&has) {
            Err(error) if error.status == Status::Refused => error,
            planned => return planned.map(|steps| (steps, has)),
        };
        let Target::Has { snapshots, base: Some(base) } = &has else { return Err(refused) };
        let before = snapshots.iter().rev().skip_while(|(_, guid)| guid != base).skip(1);
        for (name, guid) in before {
            if !self.restore.zfs.is_unchanged_since(name).unwrap_or(false) {
                break;
            }
            let from = Target::Has { snapshots: snapshots.clone(), base: Some(*guid) };
            if let Ok(steps) = self.plan(&from) {
                return Ok((steps, from));
            }
        }
        Err(refused)
    }

    /// The cheapest route whose backups can all be read now. An unreadable backup is excluded, and the next
    /// cheapest route tried. If there is none, the error names every unreadable object of the first route.
    pub fn plan(&self, has: &Target) -> Result<Steps> {
        let Restore { zfs, client, contents, wanted, target, .. } = self.restore;
        let origins = if *has == Target::New && contents.entries.iter().any(is_clone) {
            zfs.snapshots_of_pool(target)?
        } else {
            HashSet::new()
        };
        let mut excluded: HashSet<usize> = HashSet::new();
        let mut errors_of_first: Vec<Error> = Vec::new();
        // a backup that is being removed may still be whole: it is used only if there is no other route
        let mut use_removing = false;
        loop {
            let bytes = |n: usize, entry: &Entry| match &entry.stream {
                _ if excluded.contains(&n) => None,
                _ if entry.state == State::Removing && !use_removing => None,
                Some(stream) => Some(stream.size),
                None => self.python_sizes.get(&keys::python(&entry.backup())).copied(),
            };
            let steps = match plan(contents, bytes, wanted, target, has, &origins) {
                Ok(steps) => steps,
                Err(_) if !use_removing => {
                    use_removing = true;
                    continue;
                }
                Err(error) if errors_of_first.is_empty() => return Err(error),
                // the reason why it cannot be read is more useful
                Err(_) => return Err(all_as_one(errors_of_first)),
            };
            let mut unreadable = Vec::new();
            for n in &steps {
                let Err(errors) = StoredBackup::open(client, &contents.prefix, &contents.entries[*n]) else {
                    continue;
                };
                unreadable.push(*n);
                if excluded.is_empty() {
                    errors_of_first.extend(errors);
                } else if let Some(error) = errors.into_iter().find(|e| e.status == Status::TryAgain) {
                    return Err(error);
                }
            }
            if errors_of_first.iter().any(|error| error.status == Status::TryAgain) {
                return Err(all_as_one(errors_of_first));
            }
            if unreadable.is_empty() {
                let size = |n: &usize| bytes(*n, &contents.entries[*n]).unwrap_or_default();
                return Ok(steps.iter().map(|n| (*n, size(n))).collect());
            }
            excluded.extend(unreadable);
        }
    }
}

/// The Python tool's list has no sizes.
fn python_sizes(client: &Client, contents: &Contents) -> Result<HashMap<String, u64>> {
    let mut sizes = HashMap::new();
    for entry in contents.entries.iter().filter(|entry| entry.stream.is_none()) {
        let key = keys::python(&entry.backup());
        if let Some(head) = client.head(&key)? {
            sizes.insert(key, head.size);
        }
    }
    Ok(sizes)
}
