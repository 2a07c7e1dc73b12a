//! `check`: for monitoring: is there a recent backup of each dataset? By the files of this host alone; with
//! -r also by its datasets.

use std::collections::BTreeMap;

use super::Context;
use crate::cli;
use crate::error::{Error, Result};
use crate::model::names::{check_dataset_name, dataset_of};
use crate::model::units::{age, count, parse_age};
use crate::model::utc::Utc;
use crate::os::clock;
use crate::state::journal;
use crate::state::store::format::{Contents, State};
use crate::state::store::newest::{Created, Restorable};

/// A day, and two hours for the backup itself.
const DEFAULT_MAX_AGE: &str = "26h";

pub fn run(context: &Context, args: &cli::CheckArgs) -> Result<()> {
    let max_age = args.max_age.as_deref().unwrap_or(DEFAULT_MAX_AGE);
    let max_age = parse_age(max_age).map_err(|why| Error::usage(format!("-m: {why}")))?;
    for dataset in &args.datasets {
        check_dataset_name(dataset)
            .map_err(|why| Error::usage(format!("'{dataset}' is not a dataset: {why}")))?;
    }
    if args.recursive && args.datasets.is_empty() {
        return Err(Error::usage("-r needs a dataset"));
    }
    let contents = context.store()?.contents;
    let now = clock::now();
    let (datasets, missing) =
        if args.recursive { with_descendants(context, args) } else { (args.datasets.clone(), Vec::new()) };
    let mut problems = if datasets.is_empty() && args.recursive {
        Vec::new()
    } else {
        problems(&contents, &datasets, max_age, now)
    };
    problems.extend(missing);
    journal::refuse_python_upload(&context.folder, &context.local.bucket)?;
    if let Some(overview) = journal::overview(&context.folder)? {
        let intent = overview.intent;
        let since = seconds_between(intent.begun, now);
        if since > max_age {
            problems.push(format!(
                "the upload of {} is pending for {}",
                intent.backup().describe(),
                age(since)
            ));
        }
    }
    problems.iter().for_each(|problem| context.ui.warning(problem));
    match problems.len() {
        0 => Ok(()),
        n => Err(Error::failed(format!("{} found", count(n as u64, "problem")))),
    }
}

/// Those that `upload -r` would store, and what is wrong with others.
fn with_descendants(context: &Context, args: &cli::CheckArgs) -> (Vec<String>, Vec<String>) {
    let zfs = context.zfs();
    let (mut datasets, mut problems) = (Vec::new(), Vec::new());
    for dataset in &args.datasets {
        match zfs.tree_to_upload(dataset) {
            Ok(tree) => datasets.extend(tree),
            Err(error) => problems.push(error.message),
        }
    }
    (datasets, problems)
}

/// `datasets`: those that must have a backup; none: those that have one.
fn problems(contents: &Contents, datasets: &[String], max_age: i64, now: Utc) -> Vec<String> {
    let mut newest: BTreeMap<&str, Option<(Utc, &str)>> = BTreeMap::new();
    for entry in contents.entries.iter().filter(|entry| entry.state == State::Stored) {
        let time = entry.stream.as_ref().map(|stream| (stream.stored, entry.snapshot.name.as_str()));
        let slot = newest.entry(dataset_of(&entry.snapshot.name)).or_default();
        *slot = (*slot).max(time);
    }
    let of_dataset = |dataset: &str, newest: Option<(Utc, &str)>| match newest {
        Some((stored, _)) if seconds_between(stored, now) <= max_age => None,
        Some((stored, snapshot)) => {
            let old = age(seconds_between(stored, now));
            Some(format!("{dataset}: the newest backup, {snapshot}, was stored {old} ago"))
        }
        // by the Python tool
        None => Some(format!("{dataset}: it is unknown when its backups were stored")),
    };
    if datasets.is_empty() {
        if newest.is_empty() {
            return vec!["no backup is stored".to_string()];
        }
        let restorable = Restorable::of(contents, &Created::new());
        // what is stored with a newer name is checked with that
        let was_renamed =
            |dataset: &str| restorable.later_name(dataset).is_some_and(|later| newest.contains_key(later));
        let counted = newest.iter().filter(|(dataset, _)| !was_renamed(dataset));
        return counted.filter_map(|(dataset, newest)| of_dataset(dataset, *newest)).collect();
    }
    let check = |dataset: &String| match newest.get(dataset.as_str()) {
        Some(newest) => of_dataset(dataset, *newest),
        None => Some(format!("{dataset}: no backup is stored")),
    };
    datasets.iter().filter_map(check).collect()
}

/// A clock that was put back makes nothing older.
fn seconds_between(earlier: Utc, later: Utc) -> i64 {
    (later.unix_seconds() - earlier.unix_seconds()).max(0)
}
