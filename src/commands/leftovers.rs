//! What lies in the bucket beside the backups: data without a manifest, unfinished uploads, objects of the older Python tool.
//! `recover` names each, with what to do about it.

use std::collections::{HashMap, HashSet};

use super::Reader;
use crate::error::{Result, one_line};
use crate::model::announcement::{self, Announcement};
use crate::model::copy::{CopyName, Id};
use crate::model::keys::{self, Kind, Parsed};
use crate::model::names::Guid;
use crate::model::shell::{abort_multipart_upload, quoted};
use crate::model::units::human_size;
use crate::s3::calls::{Open, Parts};
use crate::s3::reply::{Object, Upload};
use crate::state::store::format::{Contents, Entry, State};
use crate::ui::Ui;

/// An object of a backup, by its key.
pub struct Seen<'a> {
    pub object: &'a Object,
    pub key: Parsed,
}

impl<'a> Seen<'a> {
    pub fn of(prefix: &str, object: &'a Object) -> Option<Self> {
        Some(Seen { object, key: keys::parse(prefix, &object.key)? })
    }
}

pub fn tell_of_python(entries: &[Entry], objects: &[&Object], ui: &Ui) {
    let known: HashSet<String> =
        entries.iter().filter(|e| e.stream.is_none()).map(|e| keys::python(&e.backup())).collect();
    for object in objects.iter().filter(|object| !known.contains(&object.key)) {
        ui.warning(&format!(
            "'{}' ({}) is of the older, Python zfs2s3, and its key bears no guid: it is not taken up; \
             put that program's stored_snapshots.yml in place to use it",
            object.key,
            human_size(object.size)
        ));
    }
}

/// Data without a manifest, interrupted removals, and unfinished uploads, but for those of the copy whose upload is pending.
pub fn report_the_rest(reader: &Reader, seen: &[Seen], pending: Option<&CopyName>, ui: &Ui) -> Result<()> {
    report_data(&reader.store.contents, seen, pending, ui);
    report_announcements(reader, seen, ui);
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
        keys::parse(prefix, &upload.key).is_some_and(|parsed| Some(&parsed.copy) != pending)
    };
    for Upload { key, upload_id, initiated } in uploads.iter().filter(ours) {
        let size = match reader.client.list_parts(Open { key, upload_id, checksums: false }) {
            Ok(Parts::Listed(parts)) => human_size(parts.iter().map(|part| part.size).sum()),
            _ => "size unknown".to_string(),
        };
        ui.warning(&format!(
            "an upload of '{key}' ({size}, {}) is unfinished; if no host is working on it: {}",
            one_line(initiated.as_deref().unwrap_or("age unknown")),
            abort_multipart_upload(&reader.store.contents.bucket, key, &one_line(upload_id))
        ));
    }
    Ok(())
}

fn report_data(contents: &Contents, seen: &[Seen], pending: Option<&CopyName>, ui: &Ui) {
    let stored: HashMap<CopyName, &Entry> =
        contents.entries.iter().map(|entry| (entry.copy(), entry)).collect();
    let all = seen.iter().map(|seen| &seen.key.copy).chain(stored.keys());
    let bases: HashSet<Guid> = all.filter_map(|copy| copy.link.base).collect();
    let manifests = seen.iter().filter(|seen| seen.key.kind == Kind::Manifest);
    let whole: HashSet<&CopyName> = manifests.map(|seen| &seen.key.copy).collect();
    let bare = |it: &&Seen| !whole.contains(&it.key.copy) && Some(&it.key.copy) != pending;
    for it in seen.iter().filter(bare) {
        let by_hand = match it.key.kind {
            Kind::Segment(1) => ", but may be whole: aws s3 cp {} - | zfs receive -u …",
            Kind::Segment(_) => "",
            Kind::Manifest | Kind::Removing(_) => continue,
        };
        let url = quoted(&format!("s3://{}/{}", contents.bucket, it.object.key));
        let by_hand = by_hand.replace("{}", &url);
        let then = match stored.get(&it.key.copy) {
            Some(Entry { state: State::Removing, .. }) => {
                "its removal was interrupted, and the same 'zfs2s3 remove' continues it".to_string()
            }
            Some(_) => "the store has it: keep it".to_string(),
            None if bases.contains(&it.key.copy.link.snapshot) => {
                "backups depend on it: keep it, or move it aside \
                 ('aws s3 mv') where the snapshot is still there to be stored again"
                    .to_string()
            }
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

/// Removals that other hosts have announced. Whether they are still at it only a person knows.
fn report_announcements(reader: &Reader, seen: &[Seen], ui: &Ui) {
    let contents = &reader.store.contents;
    let own = |copy: &CopyName, nonce: Id| {
        contents.entries.iter().any(|entry| entry.copy() == *copy && entry.removal == Some(nonce))
    };
    let there: HashSet<&CopyName> =
        seen.iter().filter(|s| !matches!(s.key.kind, Kind::Removing(_))).map(|s| &s.key.copy).collect();
    for it in seen {
        let Kind::Removing(nonce) = it.key.kind else { continue };
        if it.object.size == 0 || own(&it.key.copy, nonce) {
            continue;
        }
        let said = reader.client.get(&it.object.key, announcement::MAX_LEN).unwrap_or_default();
        let who = Announcement::describe(&said);
        let url = quoted(&format!("s3://{}/{}", contents.bucket, it.object.key));
        let name = &it.key.copy.name;
        ui.warning(&match there.contains(&it.key.copy) {
            true => format!(
                "the removal of a copy of {name} was announced by {who}, and no backup can build on it until that has \
                 ended; if it was interrupted, the same command on that host continues it, or 'resume_upload' there; if that host is gone, \
                 'zfs2s3 recover -r {}' takes its removals back",
                quoted(&one_line(&Announcement::host(&said).unwrap_or_else(|| nonce.to_string())))
            ),
            false => format!(
                "an announcement is left of a removal of {name} by {who}, which is done; if that host is gone: aws s3 rm {url}"
            ),
        });
    }
}
