//! `recover`: the store again, from what the bucket says. It deletes nothing, in the bucket or in the store.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Context, Reader};
use crate::cli;
use crate::error::{Error, Result};
use crate::keys::{self, Kind};
use crate::manifest::{Manifest, largest};
use crate::recover::{Difference, compare, entry_of, is_python_key};
use crate::s3::client::Client;
use crate::s3::failure;
use crate::s3::reply::Object;
use crate::shell::{abort_multipart_upload, quoted};
use crate::store::format::Entry;
use crate::ui::Ui;
use crate::units::{count, human_size};
use crate::yaml;

pub fn run(context: &Context, args: &cli::Recover) -> Result<()> {
    let _lock = if args.dry_run { None } else { Some(context.lock("recover")?) };
    context.refuse_while_pending()?;
    let mut reader = context.reader()?;
    let found = look(&reader, &context.ui)?;
    let had_some = !reader.store.contents.entries.is_empty();
    let difference = compare(&reader.store.contents, found);
    say(&difference, &context.ui);
    let new = count(difference.to_add.len() as u64, "backup");
    if difference.to_add.is_empty() {
        context.ui.note(&format!("nothing to add: {} in the store and in the bucket", difference.same));
        return Ok(());
    }
    if args.dry_run {
        context.ui.note(&format!("would add {new} to the store"));
        let lines: String = difference.to_add.iter().map(|entry| format!("{}\n", entry.backup())).collect();
        return context.ui.data(&lines);
    }
    if had_some && !args.merge {
        return Err(Error::failed(format!("the bucket has {new} that the store does not have"))
            .hint("'zfs2s3 recover -n' names them, 'zfs2s3 recover -m' adds them"));
    }
    reader.store.contents.entries.extend(difference.to_add);
    reader.store.save()?;
    context.ui.note(&format!("added {new} to the store"));
    Ok(())
}

/// The backups whose manifests and data are in the bucket; what else is there is told.
fn look(reader: &Reader, ui: &Ui) -> Result<Vec<Entry>> {
    let prefix = reader.store.contents.prefix.as_str();
    let python = |key: &str| prefix.is_empty() && is_python_key(key);
    let objects =
        reader.client.list_objects(prefix, |o| keys::parse(prefix, &o.key).is_some() || python(&o.key))?;
    let sizes: HashMap<&str, u64> = objects.iter().map(|o| (o.key.as_str(), o.size)).collect();
    let manifests: Vec<&str> = objects
        .iter()
        .map(|o| o.key.as_str())
        .filter(|key| keys::parse(prefix, key).is_some_and(|parsed| parsed.kind == Kind::Manifest))
        .collect();
    let mut data: HashMap<&str, u64> = HashMap::new();
    for (stem, size) in objects.iter().filter_map(|o| Some((stem(&o.key)?, o.size))) {
        let sum = data.entry(stem).or_default();
        *sum = sum.saturating_add(size);
    }
    let most = |key: &str| largest(data.get(key.trim_end_matches(".yml")).copied().unwrap_or_default());
    let read = read_all(&reader.client, reader.jobs, &manifests, &most, &|key, manifest| {
        manifest.and_then(|manifest| entry_of(prefix, key, manifest, &sizes))
    })?;
    let mut found = Vec::new();
    for (key, entry) in manifests.iter().zip(read) {
        match entry {
            Ok(entry) => found.push(entry),
            Err(why) => ui.warning(&format!("the manifest '{key}' is passed over: {why}")),
        }
    }
    tell_of_python(&reader.store.contents.entries, &objects, &python, ui);
    tell_of_leftovers(&reader.client, &reader.store.contents.bucket, prefix, &objects, ui)?;
    Ok(found)
}

/// What the keys of a backup's objects have in common: of one of its segments.
fn stem(key: &str) -> Option<&str> {
    key.rsplit_once(".zfs").map(|(stem, _)| stem)
}

/// Reads the manifests with parallel jobs, each into what `make` makes of it, and none of more than `most` bytes. A reply that
/// cannot be had ends it.
fn read_all(
    client: &Client,
    jobs: usize,
    keys: &[&str],
    most: &(impl Fn(&str) -> u64 + Sync),
    make: &(impl Fn(&str, std::result::Result<Manifest, String>) -> std::result::Result<Entry, String> + Sync),
) -> Result<Vec<std::result::Result<Entry, String>>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(HashMap::new());
    let gave_up = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(keys.len()) {
            scope.spawn(|| {
                while let Some(key) = keys.get(next.fetch_add(1, Ordering::SeqCst)) {
                    match client.get(key, most(key)) {
                        Ok(bytes) => {
                            let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_string());
                            let entry = make(key, text.and_then(|text| yaml::from_str(&text)));
                            done.lock().unwrap_or_else(|e| e.into_inner()).insert(*key, entry);
                        }
                        // in an archive class, say, or deleted meanwhile
                        Err(error) if error.kind == failure::Kind::Final => {
                            let entry = Err(error.describe());
                            done.lock().unwrap_or_else(|e| e.into_inner()).insert(*key, entry);
                        }
                        Err(error) => {
                            gave_up.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(error);
                            next.store(keys.len(), Ordering::SeqCst);
                        }
                    }
                }
            });
        }
    });
    if let Some(error) = gave_up.into_inner().unwrap_or_else(|e| e.into_inner()) {
        return Err(error.into());
    }
    let mut done = done.into_inner().unwrap_or_else(|e| e.into_inner());
    Ok(keys.iter().filter_map(|key| done.remove(key)).collect())
}

fn tell_of_python(entries: &[Entry], objects: &[Object], python: &impl Fn(&str) -> bool, ui: &Ui) {
    let known: HashSet<String> =
        entries.iter().filter(|e| e.stream.is_none()).map(|e| keys::python(&e.backup())).collect();
    for object in objects.iter().filter(|o| python(&o.key) && !known.contains(&o.key)) {
        ui.warning(&format!(
            "'{}' ({}) is of the older, Python zfs2s3, and its key bears no guid: it is not taken up; \
             put that program's stored_snapshots.yml in place to go on with it",
            object.key,
            human_size(object.size)
        ));
    }
}

/// Data without a manifest, and unfinished uploads.
fn tell_of_leftovers(client: &Client, bucket: &str, prefix: &str, objects: &[Object], ui: &Ui) -> Result<()> {
    let there: HashSet<&str> = objects.iter().map(|o| o.key.as_str()).collect();
    for (object, stem) in objects.iter().filter_map(|o| Some((o, stem(&o.key)?))) {
        if keys::parse(prefix, &object.key).is_some() && !there.contains(format!("{stem}.yml").as_str()) {
            ui.warning(&format!(
                "the object '{}' ({}, {}) has no manifest; if no host is storing it: aws s3 rm {}",
                object.key,
                human_size(object.size),
                object.modified,
                quoted(&format!("s3://{bucket}/{}", object.key))
            ));
        }
    }
    let uploads = match client.list_uploads(prefix) {
        Ok(uploads) => uploads,
        Err(failure) if failure.is_forbidden() || failure.is_not_supported() => return Ok(()),
        Err(failure) => return Err(failure.into()),
    };
    for upload in uploads.iter().filter(|upload| keys::parse(prefix, &upload.key).is_some()) {
        let open =
            crate::s3::calls::Open { key: &upload.key, upload_id: &upload.upload_id, checksums: false };
        let size = client.list_parts(open)?.unwrap_or_default().iter().map(|part| part.size).sum();
        ui.warning(&format!(
            "an upload of '{}' ({}, {}) is unfinished; if no host is at it: {}",
            upload.key,
            human_size(size),
            upload.initiated.as_deref().unwrap_or("age unknown"),
            abort_multipart_upload(bucket, &upload.key, &upload.upload_id)
        ));
    }
    Ok(())
}

fn say(difference: &Difference, ui: &Ui) {
    for name in &difference.unsound {
        ui.warning(&format!("'{name}' is in the bucket, but no chain leads to its base: it is not added"));
    }
    for name in &difference.twice {
        ui.warning(&format!(
            "'{name}' is in the bucket under another name, too, and that is the one that counts"
        ));
    }
    for name in &difference.lost {
        ui.warning(&format!("'{name}' is in the store, but not (whole) in the bucket"));
    }
    for name in &difference.unequal {
        ui.warning(&format!(
            "'{name}' is in the store and in the bucket, and not the same: the store's stays"
        ));
    }
}
