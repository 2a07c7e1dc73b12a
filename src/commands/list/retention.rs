//! `list --removable` and `list --advise`: what could go, by the chain rule and the listing of the bucket.
//! Nothing is removed.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::Scope;
use super::row::Row;
use crate::chunk_io::each::for_each;
use crate::commands::Context;
use crate::error::Result;
use crate::inventory::{Bypasses, Inventory, OpenUploads};
use crate::model::backup::{Backup, Point};
use crate::model::copy::CopyName;
use crate::model::names::{Guid, dataset_of};
use crate::model::units::{count, human_size};
use crate::os::clock;
use crate::s3::client::Client;
use crate::state::store::format::{Contents, Entry, State};
use crate::zfs::Zfs;

/// The rows of what could be removed now, in order.
pub fn removable(context: &Context, scope: Scope, row: impl Fn(&Entry) -> Row) -> Result<Vec<Row>> {
    let (store, client) = context.store_and_client()?;
    let contents = &store.contents;
    let entries = by_name(contents);
    let mut inventory = Inventory::read(&client, contents, &context.ui, OpenUploads::List)?;
    let allowed = inventory.removable()?;
    let mut allowed: Vec<&Entry> = allowed.iter().filter_map(|name| entries.get(name).copied()).collect();
    allowed.retain(|entry| scope.has(&entry.snapshot.name));
    let locked = locked(&client, contents, &allowed)?;
    let removable = allowed.iter().map(|entry| entry.copy()).filter(|name| !locked.contains(name)).collect();
    let (order, instead) = inventory.in_order(&removable);
    let rows = |names: Vec<CopyName>, state: &'static str| -> Vec<Row> {
        let entries = names.iter().filter_map(|name| entries.get(name));
        entries.map(|entry| Row { state, ..row(entry) }).collect()
    };
    Ok(rows(order, "removable").into_iter().chain(rows(instead, "alternative")).collect())
}

/// The best bypass of each dataset, as the text of a shell script.
pub fn advise(context: &Context, scope: Scope) -> Result<String> {
    let (store, client) = context.store_and_client()?;
    let contents = &store.contents;
    let zfs = context.zfs();
    let inventory = Inventory::read(&client, contents, &context.ui, OpenUploads::List)?;
    let stored: Vec<&Entry> =
        contents.entries.iter().filter(|entry| scope.has(&entry.snapshot.name)).collect();
    let locked = locked(&client, contents, &stored)?;
    let datasets: BTreeSet<&str> = stored.iter().map(|entry| dataset_of(&entry.snapshot.name)).collect();
    let bypasses = inventory.bypasses(contents, &locked);
    let entries = by_name(contents);
    let mut text = String::new();
    for dataset in datasets {
        text += &match best_of(&zfs, &bypasses, &entries, dataset) {
            Some(best) => best,
            None => format!("# {dataset}: no bypass would make a backup removable\n"),
        };
    }
    Ok(text)
}

fn best_of(
    zfs: &Zfs,
    bypasses: &Bypasses,
    entries: &HashMap<CopyName, &Entry>,
    dataset: &str,
) -> Option<String> {
    // a dataset that is gone has nothing that could be sent
    let mut points = zfs.points_of(dataset).ok()?;
    points.sort_by_key(|point| std::cmp::Reverse(point.createtxg));
    let bases: HashSet<Guid> = points.iter().map(|point| point.guid).collect();
    let snapshots = points.iter().filter(|point| point.name.contains('@'));
    let snapshots: Vec<Guid> = snapshots.map(|point| point.guid).collect();
    let (link, freed, bytes) = bypasses.best(&bases, &snapshots)?;
    // a snapshot before its bookmark
    let point = |guid: Guid| {
        let found =
            points.iter().filter(|point| point.guid == guid).min_by_key(|point| point.name.contains('#'));
        found.map(|found| Point { name: found.name.clone(), guid })
    };
    let (snapshot, base) = (point(link.snapshot)?, point(link.base?)?);
    let backup = Backup { snapshot, base: Some(base) };
    let flags = zfs.send_flags(&backup.snapshot.name).map(|flags| flags.words()).unwrap_or_default();
    let estimate = zfs.estimate(&backup, &flags).ok();
    if let Some(estimate) = estimate.filter(|estimate| *estimate >= bytes) {
        return Some(format!(
            "# {dataset}: no bypass saves anything: the best would free {}, and take about {} itself\n",
            human_size(bytes),
            human_size(estimate)
        ));
    }
    let saved = estimate
        .map_or(String::new(), |estimate| format!(", and so saves about {}", human_size(bytes - estimate)));
    let cost =
        estimate.map_or("of unknown size".to_string(), |bytes| format!("of about {}", human_size(bytes)));
    // nothing is removed unless the command before has succeeded
    let mut text = format!(
        "# {dataset}: a bypass {cost} makes {} removable, {} in all{saved}\nzfs2s3 upload {}",
        count(freed.len() as u64, "backup"),
        human_size(bytes),
        backup.arguments()
    );
    for entry in freed.iter().filter_map(|name| entries.get(name)) {
        text += &format!(" &&\nzfs2s3 remove {}", entry.backup().arguments());
    }
    Some(text + "\n")
}

fn by_name(contents: &Contents) -> HashMap<CopyName, &Entry> {
    contents.entries.iter().map(|entry| (entry.copy(), entry)).collect()
}

/// Those that an Object Lock protects.
fn locked(client: &Client, contents: &Contents, entries: &[&Entry]) -> Result<HashSet<CopyName>> {
    let entries: Vec<&&Entry> = entries.iter().filter(|entry| entry.state == State::Stored).collect();
    if entries.is_empty() || client.bucket_has_object_lock()? == Some(false) {
        return Ok(HashSet::new());
    }
    let now = clock::now();
    let is_locked = for_each(&entries, client.memory.jobs(), |entry| {
        for key in entry.keys(&contents.prefix) {
            let head = client.head_if_allowed(&key)?;
            if head.is_some_and(|head| head.lock.protection(now).is_some()) {
                return Ok(true);
            }
        }
        Ok(false)
    })?;
    let both = entries.iter().zip(is_locked);
    Ok(both.filter(|(_, is_locked)| *is_locked).map(|(entry, _)| entry.copy()).collect())
}
