//! `recover`: the store again, from what the bucket says. It deletes nothing, in the bucket or in the store.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::leftovers::{self, Seen};
use super::remove::NO_ID;
use super::{Context, Reader};
use crate::cli;
use crate::error::{Error, Result, one_line};
use crate::model::announcement::{self, Announcement};
use crate::model::copy::CopyName;
use crate::model::keys::{self, Kind};
use crate::model::shell::quoted;
use crate::model::units::{count, human_size};
use crate::recover::{Difference, Found, Why, compare, entry_of, is_python_key};
use crate::removal::withdraw;
use crate::s3::failure;
use crate::s3::reply::Object;
use crate::state::journal;
use crate::state::store::format::{Contents, Entry, State};
use crate::ui::Ui;

pub fn run(context: &Context, args: &cli::Recover) -> Result<()> {
    let _lock = if args.dry_run { None } else { Some(context.lock("recover")?) };
    journal::refuse_python_upload(&context.folder, &context.local.bucket)?;
    let mut reader = context.reader()?;
    let pending = journal::overview(&context.folder)?.map(|overview| overview.intent);
    if let Some(intent) = &pending {
        // with the store of another place in its way it could not be resumed
        context.check_place(intent, Some(&reader.store.contents.endpoint))?;
        let backup = intent.backup().in_words();
        context.ui.note(&format!("the upload of {backup} is pending, and is left alone"));
    }
    let copy = pending.as_ref().map(|intent| intent.copy());
    // one that is in the store is stored, and only its end is pending
    let left_alone = copy.filter(|copy| reader.store.contents.entries.iter().all(|e| e.copy() != *copy));
    if !args.dry_run {
        take_removals_back(context, args, &reader)?;
    }
    let found = scan(&reader, left_alone.as_ref(), &context.ui)?;
    let all_was_read = found.unread.is_empty();
    let difference = compare(&reader.store.contents, found);
    report(&difference, &context.ui);
    let all_is_well = all_was_read
        && difference.unsound.is_empty()
        && difference.lost.is_empty()
        && difference.announced.is_empty();
    let added = add(context, args, &mut reader, difference);
    match added {
        Ok(()) if !all_is_well => {
            Err(Error::failed("not all of the backups in the bucket and in the store can be restored")
                .hint("the warnings say which, and why"))
        }
        Err(error) if pending.is_some() => Err(error.hint("end the pending upload, and run it again")),
        added => added,
    }
}

/// `-m` takes this host's own removals back: none is running, since this command has the lock. `-r` takes back those of a host of
/// which the user says that it is gone; never those of all hosts, of which one may be running.
fn take_removals_back(context: &Context, args: &cli::Recover, reader: &Reader) -> Result<()> {
    let contents = &reader.store.contents;
    let prefix = contents.prefix.as_str();
    if args.merge {
        for entry in contents.entries.iter().filter(|entry| entry.state == State::Removing) {
            if let Some(nonce) = entry.removal {
                withdraw(&reader.client, &keys::announcement(prefix, &entry.copy(), nonce))?;
            }
        }
    }
    let Some(gone) = &args.revive else { return Ok(()) };
    let announcement = |object: &Object| {
        object.size > 0
            && keys::parse(prefix, &object.key).is_some_and(|p| matches!(p.kind, Kind::Removing(_)))
    };
    let mut others = Vec::new();
    let mut taken_back = 0;
    for object in reader.client.list_objects(prefix, announcement)? {
        // one that cannot be read is named by the end of its key
        let nonce = object.key.rsplit('-').next().unwrap_or_default().to_string();
        let host = match reader.client.get(&object.key, announcement::MAX_LEN) {
            Ok(said) => Announcement::host(&said).unwrap_or(nonce),
            Err(failure) if failure.kind == failure::Kind::Final => nonce,
            Err(failure) => return Err(failure.into()),
        };
        if host == *gone {
            withdraw(&reader.client, &object.key)?;
            context.ui.note(&format!("took back an announced removal: '{}'", object.key));
            taken_back += 1;
        } else {
            others.push(host);
        }
    }
    if taken_back == 0 {
        let error = Error::failed(format!("no removal is announced by a host '{}'", one_line(gone)));
        others.sort();
        others.dedup();
        return Err(others
            .iter()
            .fold(error, |error, host| error.hint(format!("one is by '{}'", one_line(host)))));
    }
    Ok(())
}

fn add(context: &Context, args: &cli::Recover, reader: &mut Reader, difference: Difference) -> Result<()> {
    let Difference { to_add, to_replace, to_revive, same, .. } = difference;
    let had_some = !reader.store.contents.entries.is_empty();
    let new = count((to_add.len() + to_replace.len() + to_revive.len()) as u64, "backup");
    if to_add.is_empty() && to_replace.is_empty() && to_revive.is_empty() {
        if !had_some {
            return Err(nothing_found(&reader.store.contents));
        }
        context.ui.note(&format!("nothing to add: {same} in the store and in the bucket"));
        return Ok(());
    }
    let not_without_merge = had_some && !args.merge;
    if args.dry_run {
        let with = if not_without_merge { "with -m " } else { "" };
        context.ui.note(&format!("{with}would add {new} to the store"));
        let all = to_add.iter().chain(to_replace.iter().map(|(_, there)| there)).chain(&to_revive);
        return context.ui.data(&all.map(|entry| format!("{}\n", entry.backup())).collect::<String>());
    }
    if not_without_merge {
        for entry in &to_add {
            context.ui.note(&format!("'{}' is in the bucket, and not in the store", entry.backup()));
        }
        for entry in &to_revive {
            context.ui.note(&format!("the removal of '{}' has begun, and it is still whole", entry.backup()));
        }
        return Err(Error::failed(format!(
            "the bucket has {new} that the store does not have, or that differ there"
        ))
        .hint("'zfs2s3 recover -m' takes them into the store"));
    }
    let entries = &mut reader.store.contents.entries;
    for (copy, there) in to_replace {
        entries.iter_mut().filter(|entry| entry.copy() == copy).for_each(|entry| *entry = there.clone());
    }
    for there in to_revive {
        // unless another copy is stored
        let taken = entries.iter().any(|e| e.link() == there.link() && e.state == State::Stored);
        entries.retain(|entry| entry.copy() != there.copy());
        if !taken {
            entries.push(there);
        }
    }
    for entry in to_add {
        if entries.iter().all(|e| e.link() != entry.link() || e.state == State::Removing) {
            entries.push(entry);
        }
    }
    // as they were stored, as everywhere; the Python tool's, whose times are not known, stay first
    entries.sort_by_key(|entry| entry.stream.as_ref().map(|stream| stream.stored));
    reader.store.save()?;
    context.ui.note(&format!("added {new} to the store"));
    Ok(())
}

fn nothing_found(Contents { bucket, prefix, .. }: &Contents) -> Error {
    let place = if prefix.is_empty() { String::new() } else { format!(" under the prefix '{prefix}'") };
    Error::failed(format!("no backup that can be restored was found in the bucket '{bucket}'{place}")).hint(
        format!(
            "ZFS2S3_PREFIX is all that stands before DATASET@SNAPSHOT in the keys, and before README.zfs2s3.txt: \
             'aws s3 ls --recursive s3://{bucket}' lists them"
        ),
    )
}

/// Looks through the bucket, and reports what else is there. A copy whose upload is pending is for `resume_upload`.
fn scan(reader: &Reader, pending: Option<&CopyName>, ui: &Ui) -> Result<Found> {
    let prefix = reader.store.contents.prefix.as_str();
    let python = |key: &str| prefix.is_empty() && is_python_key(key);
    let wanted = |object: &Object| Seen::of(prefix, object).is_some() || python(&object.key);
    let before = reader.client.list_objects(prefix, wanted)?;
    let seen: Vec<Seen> = before.iter().filter_map(|object| Seen::of(prefix, object)).collect();
    let read = read_manifests(reader, &seen, pending)?;
    // only what is still there, and not announced for removal, after its manifest was read is taken
    let objects = reader.client.list_objects(prefix, wanted)?;
    let there: HashMap<&str, u64> = objects.iter().map(|o| (o.key.as_str(), o.size)).collect();
    let mut found = found(read, &there, ui);
    let seen: Vec<Seen> = objects.iter().filter_map(|object| Seen::of(prefix, object)).collect();
    // this host's own is known by the store, which says so
    let own = |copy: &CopyName, nonce| {
        let mut entries = reader.store.contents.entries.iter();
        entries.any(|entry| entry.removal == Some(nonce) && entry.copy() == *copy)
    };
    let announced = seen.iter().filter(|s| match s.key.kind {
        Kind::Removing(nonce) => s.object.size > 0 && !own(&s.key.copy, nonce),
        _ => false,
    });
    found.announced = announced.map(|s| s.key.copy.clone()).collect();
    let of_python: Vec<&Object> = objects.iter().filter(|object| python(&object.key)).collect();
    found.python = of_python.iter().map(|object| object.key.clone()).collect();
    leftovers::tell_of_python(&reader.store.contents.entries, &of_python, ui);
    leftovers::report_the_rest(reader, &seen, pending, ui)?;
    Ok(found)
}

/// What became of a manifest.
type Outcome = std::result::Result<Entry, Why>;

fn found(read: BTreeMap<&str, (&Seen, Outcome)>, there: &HashMap<&str, u64>, ui: &Ui) -> Found {
    let is_there = |entry: &Entry, key: &str| {
        let segments = entry.stream.iter().flat_map(|stream| &stream.segments);
        there.contains_key(key) && segments.into_iter().all(|s| there.get(s.key.as_str()) == Some(&s.size))
    };
    let mut found = Found::default();
    let mut elsewhere: BTreeMap<String, u64> = BTreeMap::new();
    for (key, (seen, outcome)) in read {
        match outcome {
            Ok(entry) if is_there(&entry, key) => found.entries.push(entry),
            // removed since
            Ok(_) => {}
            Err(_) if !there.contains_key(key) => {}
            Err(Why::OtherPrefix(prefix)) => *elsewhere.entry(prefix).or_default() += 1,
            Err(Why::Wrong(why)) => {
                ui.warning(&format!("the manifest '{key}' is passed over: {why}"));
                found.unread.insert(seen.key.copy.clone());
            }
        }
    }
    if !found.unread.is_empty() {
        ui.note(
            "what is passed over is left as it is; in a bucket with versioning an older version may be good \
             ('aws s3api list-object-versions'); to store such a backup again, move its objects aside first ('aws s3 mv')",
        );
    }
    for (prefix, backups) in elsewhere {
        ui.note(&format!(
            "{} under the prefix '{prefix}', another store's: ZFS2S3_PREFIX={} recovers them",
            count(backups, "backup"),
            quoted(&prefix)
        ));
    }
    found
}

/// Reads the manifests with parallel jobs, and checks each, by its key. A reply that cannot be had ends it.
fn read_manifests<'a>(
    reader: &Reader,
    seen: &'a [Seen<'a>],
    pending: Option<&CopyName>,
) -> Result<BTreeMap<&'a str, (&'a Seen<'a>, Outcome)>> {
    let Reader { client, store, jobs } = reader;
    let sizes: HashMap<&str, u64> = seen.iter().map(|s| (s.object.key.as_str(), s.object.size)).collect();
    let mut data: HashMap<&CopyName, u64> = HashMap::new();
    for segment in seen.iter().filter(|s| matches!(s.key.kind, Kind::Segment(_))) {
        let sum = data.entry(&segment.key.copy).or_default();
        *sum = sum.saturating_add(segment.object.size);
    }
    let manifests: Vec<&'a Seen<'a>> =
        seen.iter().filter(|s| s.key.kind == Kind::Manifest && Some(&s.key.copy) != pending).collect();
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    let gave_up = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..(*jobs).min(manifests.len()) {
            scope.spawn(|| {
                while let Some(manifest) = manifests.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let key = manifest.object.key.as_str();
                    let data = data.get(&manifest.key.copy).copied();
                    let outcome = match data.map(|size| client.get_manifest(key, size, false)) {
                        None => Err(Why::Wrong("the bucket has none of its data".to_string())),
                        Some(Ok(Ok(checked))) => {
                            entry_of(&store.contents.prefix, key, checked.manifest, &sizes)
                        }
                        Some(Ok(Err(why))) => Err(Why::Wrong(why)),
                        // in an archive class, say, or deleted meanwhile
                        Some(Err(error)) if error.kind == failure::Kind::Final => {
                            Err(Why::Wrong(error.describe()))
                        }
                        Some(Err(error)) => {
                            gave_up.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(error);
                            next.store(manifests.len(), Ordering::SeqCst);
                            break;
                        }
                    };
                    done.lock().unwrap_or_else(|e| e.into_inner()).insert(key, (*manifest, outcome));
                }
            });
        }
    });
    match gave_up.into_inner().unwrap_or_else(|e| e.into_inner()) {
        Some(error) => Err(error.into()),
        None => Ok(done.into_inner().unwrap_or_else(|e| e.into_inner())),
    }
}

fn report(difference: &Difference, ui: &Ui) {
    for name in &difference.unsound {
        ui.warning(&format!("'{name}' is in the bucket, but no chain leads to its base: it is not added"));
    }
    for entry in &difference.announced {
        ui.warning(&format!("'{}' is in the bucket, but being removed: it is not added", entry.backup()));
    }
    for entry in &difference.spare {
        let size = entry.size().map(human_size).unwrap_or_default();
        let what = format!("the bucket has another copy of '{}' ({size})", entry.backup());
        let base = entry.base.as_ref().map(|base| format!("-i {} ", base.guid)).unwrap_or_default();
        let snapshot = match entry.id {
            Some(id) => format!("{id} {base}{}", entry.snapshot.guid),
            // of these only the name is different
            None => format!("{NO_ID} {base}{}", quoted(&entry.snapshot.name)),
        };
        ui.note(&format!("{what}; 'zfs2s3 remove -c {snapshot}' removes it"));
    }
    for name in &difference.lost {
        ui.warning(&format!("'{name}' is in the store, but not in the bucket"));
    }
    for (copy, there) in &difference.to_replace {
        let name = &copy.name;
        ui.warning(&match *name == there.snapshot.name {
            true if copy.id == there.id => {
                format!("'{}' is in the store and in the bucket, and differs", there.backup())
            }
            true => format!("'{}' is in the store, but in the bucket only as another copy", there.backup()),
            false => {
                format!(
                    "'{name}' is in the store, but in the bucket only under another name: '{}'",
                    there.backup()
                )
            }
        });
    }
}
