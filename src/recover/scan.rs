//! Reads the bucket: its listing, and each manifest in it.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::compare::{BucketScan, is_python_key};
use super::leftovers::{self, BackupObject};
use crate::chunk_io::each::for_each;
use crate::error::Result;
use crate::inventory::read_manifest::{Chunks, ManifestRead, Rejection, entry_for, read_manifest};
use crate::model::backup::Link;
use crate::model::copy::CopyName;
use crate::model::keys::{self, ObjectKind};
use crate::model::shell::quoted;
use crate::model::units::count;
use crate::s3::client::Client;
use crate::s3::reply::Object;
use crate::state::store::format::{Contents, Entry};
use crate::ui::Ui;

/// Scans the bucket, and reports what it has beside usable backups. The copy whose upload is `pending` is
/// left to `resume_upload`.
pub fn scan_bucket(
    client: &Client,
    contents: &Contents,
    pending: Option<&CopyName>,
    ui: &Ui,
) -> Result<BucketScan> {
    let prefix = contents.prefix.as_str();
    let is_python = |key: &str| prefix.is_empty() && is_python_key(key);
    let keep = |object: &Object| BackupObject::of(prefix, object).is_some() || is_python(&object.key);
    let before = client.list_objects(prefix, keep)?;
    let listed: Vec<BackupObject> =
        before.iter().filter_map(|object| BackupObject::of(prefix, object)).collect();
    let manifests = read_manifests(client, prefix, &listed, pending)?;
    // a copy counts only if it is still there, and not announced for removal, after its manifest was read
    let objects = client.list_objects(prefix, keep)?;
    let sizes: HashMap<&str, u64> = objects.iter().map(|o| (o.key.as_str(), o.size)).collect();
    let mut scan = collect(manifests, &sizes, ui);
    let listed: Vec<BackupObject> =
        objects.iter().filter_map(|object| BackupObject::of(prefix, object)).collect();
    // the store marks this host's own removals
    let is_own = |copy: &CopyName, nonce| {
        contents.entries.iter().any(|entry| entry.removal == Some(nonce) && entry.copy() == *copy)
    };
    let announced = listed.iter().filter(|it| match it.key.kind {
        ObjectKind::Removing(nonce) => it.object.size > 0 && !is_own(&it.key.copy, nonce),
        _ => false,
    });
    let kept: HashSet<Link> =
        objects.iter().filter_map(|o| keys::kept_backup(prefix, &o.key, o.size)).collect();
    scan.entries.iter_mut().for_each(|entry| entry.kept = kept.contains(&entry.link()));
    scan.announced = announced.map(|it| it.key.copy.clone()).collect();
    let of_python: Vec<&Object> = objects.iter().filter(|object| is_python(&object.key)).collect();
    scan.python = of_python.iter().map(|object| object.key.clone()).collect();
    leftovers::report_python_objects(&contents.entries, &of_python, ui);
    leftovers::report(client, contents, &listed, pending, ui)?;
    Ok(scan)
}

type ReadManifest = Result<Entry, Rejection>;

/// Reads the manifests in parallel, and checks each, by its key. A transient failure ends the scan.
fn read_manifests<'a>(
    client: &Client,
    prefix: &str,
    listed: &'a [BackupObject<'a>],
    pending: Option<&CopyName>,
) -> Result<BTreeMap<&'a str, (&'a CopyName, ReadManifest)>> {
    let sizes: HashMap<&str, u64> =
        listed.iter().map(|it| (it.object.key.as_str(), it.object.size)).collect();
    let mut data: HashMap<&CopyName, u64> = HashMap::new();
    for segment in listed.iter().filter(|it| matches!(it.key.kind, ObjectKind::Segment(_))) {
        let sum = data.entry(&segment.key.copy).or_default();
        *sum = sum.saturating_add(segment.object.size);
    }
    let manifests: Vec<&BackupObject> = listed
        .iter()
        .filter(|it| it.key.kind == ObjectKind::Manifest && Some(&it.key.copy) != pending)
        .collect();
    let read = for_each(&manifests, client.memory.jobs(), |it| {
        let key = it.object.key.as_str();
        let invalid = |why: String| Ok(Err(Rejection::Invalid(why)));
        let Some(size) = data.get(&it.key.copy) else {
            return invalid("the bucket has none of its data".to_string());
        };
        match read_manifest(client, key, *size, Chunks::Checked)? {
            ManifestRead::Found(checked) => Ok(entry_for(prefix, key, checked.manifest, &sizes)),
            ManifestRead::Missing => invalid("it is listed, but S3 does not return it".to_string()),
            ManifestRead::Unreadable { why, .. } => invalid(why.message),
        }
    })?;
    let by_key =
        |(it, read): (&&'a BackupObject, ReadManifest)| (it.object.key.as_str(), (&it.key.copy, read));
    Ok(manifests.iter().zip(read).map(by_key).collect())
}

/// Keeps what is whole by the second listing, and reports the rest.
fn collect(
    manifests: BTreeMap<&str, (&CopyName, ReadManifest)>,
    sizes: &HashMap<&str, u64>,
    ui: &Ui,
) -> BucketScan {
    let is_whole = |entry: &Entry, key: &str| {
        let segments = entry.stream.iter().flat_map(|stream| &stream.segments);
        sizes.contains_key(key) && segments.into_iter().all(|s| sizes.get(s.key.as_str()) == Some(&s.size))
    };
    let mut scan = BucketScan::default();
    let mut other_prefixes: BTreeMap<String, u64> = BTreeMap::new();
    for (key, (copy, read)) in manifests {
        match read {
            Ok(entry) if is_whole(&entry, key) => scan.entries.push(entry),
            // removed meanwhile
            Ok(_) => {}
            Err(_) if !sizes.contains_key(key) => {}
            Err(Rejection::OtherPrefix(prefix)) => *other_prefixes.entry(prefix).or_default() += 1,
            Err(Rejection::Invalid(why)) => {
                ui.warning(&format!("the manifest '{key}' is ignored: {why}"));
                scan.unreadable.insert(copy.clone());
            }
        }
    }
    if !scan.unreadable.is_empty() {
        ui.note(
            "ignored objects are left unchanged; if the bucket keeps versions, an older one may be good \
             ('aws s3api list-object-versions'); to store such a backup again, move its objects aside first ('aws s3 mv')",
        );
    }
    for (prefix, backups) in other_prefixes {
        ui.note(&format!(
            "{} under the prefix '{prefix}' of another store: ZFS2S3_PREFIX={} recovers them",
            count(backups, "backup"),
            quoted(&prefix)
        ));
    }
    scan
}
