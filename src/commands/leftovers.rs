//! What lies in the bucket beside the backups: data without a manifest, unfinished uploads, objects of the older Python tool.
//! `recover` names each, with what to do about it.

use std::collections::{HashMap, HashSet};

use super::Reader;
use crate::backup::Link;
use crate::error::{Result, one_line};
use crate::keys::{self, Kind, Parsed};
use crate::names::Guid;
use crate::s3::calls::Open;
use crate::s3::reply::{Object, Upload};
use crate::shell::{abort_multipart_upload, quoted};
use crate::store::format::{Contents, Entry, State};
use crate::ui::Ui;
use crate::units::human_size;

/// An object of a backup, by its key.
pub struct Seen<'a> {
    pub object: &'a Object,
    pub key: Parsed,
}

impl<'a> Seen<'a> {
    pub fn of(prefix: &str, object: &'a Object) -> Option<Self> {
        Some(Seen { object, key: keys::parse(prefix, &object.key)? })
    }

    /// What it has in common with the other objects of its backup. One backup may be there under several names.
    pub fn backup(&self) -> (&str, Link) {
        (&self.key.snapshot_name, self.key.link)
    }
}

pub fn tell_of_python(entries: &[Entry], objects: &[&Object], ui: &Ui) {
    let known: HashSet<String> =
        entries.iter().filter(|e| e.stream.is_none()).map(|e| keys::python(&e.backup())).collect();
    for object in objects.iter().filter(|object| !known.contains(&object.key)) {
        ui.warning(&format!(
            "'{}' ({}) is of the older, Python zfs2s3, and its key bears no guid: it is not taken up; \
             put that program's stored_snapshots.yml in place to go on with it",
            object.key,
            human_size(object.size)
        ));
    }
}

/// Data without a manifest, and unfinished uploads, but for those of the backup whose upload is pending.
pub fn tell_of_the_rest(reader: &Reader, seen: &[Seen], pending: Option<Link>, ui: &Ui) -> Result<()> {
    tell_of_data(&reader.store.contents, seen, pending, ui);
    let prefix = &reader.store.contents.prefix;
    let uploads = match reader.client.list_uploads(prefix) {
        Ok(uploads) => uploads,
        Err(failure) if failure.is_forbidden() || failure.is_not_supported() => {
            ui.warning(&format!("unfinished uploads were not looked for: {}", failure.describe()));
            return Ok(());
        }
        Err(failure) => return Err(failure.into()),
    };
    let ours = |upload: &&Upload| {
        keys::parse(prefix, &upload.key).is_some_and(|parsed| Some(parsed.link) != pending)
    };
    for Upload { key, upload_id, initiated } in uploads.iter().filter(ours) {
        let size = match reader.client.list_parts(Open { key, upload_id, checksums: false }) {
            Ok(parts) => human_size(parts.iter().flatten().map(|part| part.size).sum()),
            Err(_) => "size unknown".to_string(),
        };
        ui.warning(&format!(
            "an upload of '{key}' ({size}, {}) is unfinished; if no host is at it: {}",
            one_line(initiated.as_deref().unwrap_or("age unknown")),
            abort_multipart_upload(&reader.store.contents.bucket, key, &one_line(upload_id))
        ));
    }
    Ok(())
}

fn tell_of_data(contents: &Contents, seen: &[Seen], pending: Option<Link>, ui: &Ui) {
    let stored: HashMap<Link, &Entry> = contents.entries.iter().map(|entry| (entry.link(), entry)).collect();
    let all = seen.iter().map(|seen| &seen.key.link).chain(stored.keys());
    let bases: HashSet<Guid> = all.filter_map(|link| link.base).collect();
    let manifests = seen.iter().filter(|seen| seen.key.kind == Kind::Manifest);
    let whole: HashSet<(&str, Link)> = manifests.map(Seen::backup).collect();
    for it in seen.iter().filter(|seen| !whole.contains(&seen.backup()) && Some(seen.key.link) != pending) {
        let url = quoted(&format!("s3://{}/{}", contents.bucket, it.object.key));
        let by_hand = match it.key.kind {
            Kind::Segment(1) => format!(", but may be whole: aws s3 cp {url} - | zfs receive -u …"),
            _ => String::new(),
        };
        let then = match stored.get(&it.key.link) {
            Some(Entry { state: State::Removing, .. }) => {
                "its removal was interrupted, and the same 'zfs2s3 remove' goes on with it".to_string()
            }
            Some(_) => "the store has it: keep it".to_string(),
            None if bases.contains(&it.key.link.snapshot) => "backups hang on it: keep it, or move it aside \
                 ('aws s3 mv') where the snapshot is still there to be stored again"
                .to_string(),
            None => format!("if no host is storing it, and it is not wanted: aws s3 rm {url}"),
        };
        ui.warning(&format!(
            "the object '{}' ({}, {}) has no manifest{by_hand}; {then}",
            it.object.key,
            human_size(it.object.size),
            one_line(&it.object.modified),
        ));
    }
}
