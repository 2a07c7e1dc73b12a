//! What the bucket has beside backups: data without a manifest, unfinished uploads, objects of the older
//! Python tool. Each is reported with what to do about it.

use std::collections::{HashMap, HashSet};

use crate::error::{Result, one_line};
use crate::model::announcement::{self, Announcement};
use crate::model::copy::{CopyName, Id};
use crate::model::keys::{self, ObjectKind, Parsed};
use crate::model::names::Guid;
use crate::model::shell::{abort_multipart_upload, quoted};
use crate::model::units::human_size;
use crate::s3::client::Client;
use crate::s3::reply::{ListedUpload, Object};
use crate::state::store::format::{Contents, Entry, State};
use crate::ui::Ui;

/// An object whose key is that of a backup.
pub struct BackupObject<'a> {
    pub object: &'a Object,
    pub key: Parsed,
}

impl<'a> BackupObject<'a> {
    pub fn of(prefix: &str, object: &'a Object) -> Option<Self> {
        Some(BackupObject { object, key: keys::parse(prefix, &object.key)? })
    }
}

pub fn report_python_objects(entries: &[Entry], objects: &[&Object], ui: &Ui) {
    let known: HashSet<String> =
        entries.iter().filter(|e| e.stream.is_none()).map(|e| keys::python(&e.backup())).collect();
    for object in objects.iter().filter(|object| !known.contains(&object.key)) {
        ui.warning(&format!(
            "'{}' ({}) was stored by the older, Python zfs2s3, and cannot be recovered, since its key contains no guid; \
             put that program's stored_snapshots.yml in place to use it",
            object.key,
            human_size(object.size)
        ));
    }
}

/// Reports data without a manifest, interrupted removals and unfinished uploads, except those of the copy
/// whose upload is pending.
pub fn report(
    client: &Client,
    contents: &Contents,
    listed: &[BackupObject],
    pending: Option<&CopyName>,
    ui: &Ui,
) -> Result<()> {
    report_data(contents, listed, pending, ui);
    report_announcements(client, contents, listed, ui);
    report_uploads(client, contents, pending, ui)
}

fn report_uploads(client: &Client, contents: &Contents, pending: Option<&CopyName>, ui: &Ui) -> Result<()> {
    let prefix = &contents.prefix;
    let uploads = match client.list_uploads(prefix) {
        Ok(uploads) => uploads.unwrap_or_default(),
        Err(failure) if failure.is_forbidden() || failure.is_not_supported() => {
            ui.warning(&format!("unfinished uploads could not be listed: {}", failure.describe()));
            return Ok(());
        }
        Err(failure) => return Err(failure.into()),
    };
    let ours = |upload: &&ListedUpload| {
        keys::parse(prefix, &upload.key).is_some_and(|parsed| Some(&parsed.copy) != pending)
    };
    for ListedUpload { key, upload_id, initiated } in uploads.iter().filter(ours) {
        let size = client.size_of_upload(key, upload_id).map_or("size unknown".to_string(), human_size);
        ui.warning(&format!(
            "an upload of '{key}' ({size}, {}) is unfinished; if no host is working on it: {}",
            one_line(initiated.as_deref().unwrap_or("age unknown")),
            abort_multipart_upload(&contents.bucket, key, &one_line(upload_id))
        ));
    }
    Ok(())
}

fn report_data(contents: &Contents, listed: &[BackupObject], pending: Option<&CopyName>, ui: &Ui) {
    let stored: HashMap<CopyName, &Entry> =
        contents.entries.iter().map(|entry| (entry.copy(), entry)).collect();
    let all = listed.iter().map(|it| &it.key.copy).chain(stored.keys());
    let bases: HashSet<Guid> = all.filter_map(|copy| copy.link.base).collect();
    let manifests = listed.iter().filter(|it| it.key.kind == ObjectKind::Manifest);
    let whole: HashSet<&CopyName> = manifests.map(|it| &it.key.copy).collect();
    let bare = |it: &&BackupObject| !whole.contains(&it.key.copy) && Some(&it.key.copy) != pending;
    for it in listed.iter().filter(bare) {
        let by_hand = match it.key.kind {
            ObjectKind::Segment(1) => ", but may be whole: aws s3 cp {} - | zfs receive -u …",
            ObjectKind::Segment(_) => "",
            ObjectKind::Manifest | ObjectKind::Removing(_) | ObjectKind::Keep(_) => continue,
        };
        let url = quoted(&format!("s3://{}/{}", contents.bucket, it.object.key));
        let by_hand = by_hand.replace("{}", &url);
        let then = match stored.get(&it.key.copy) {
            Some(Entry { state: State::Removing, .. }) => {
                "its removal was interrupted, and the same 'zfs2s3 remove' continues it".to_string()
            }
            Some(_) => "the backup is in the store: keep the object".to_string(),
            None if bases.contains(&it.key.copy.link.snapshot) => {
                "other backups depend on it: keep it, or move it aside ('aws s3 mv') if the snapshot still exists and \
                 can be stored again"
                    .to_string()
            }
            None => format!("to delete it, if no host is storing it: aws s3 rm {url}"),
        };
        ui.warning(&format!(
            "the object '{}' ({}, {}) has no manifest{by_hand}; {then}",
            it.object.key,
            human_size(it.object.size),
            one_line(&it.object.modified),
        ));
    }
}

/// Removals that other hosts have announced. Only a person knows whether they are still running.
fn report_announcements(client: &Client, contents: &Contents, listed: &[BackupObject], ui: &Ui) {
    let own = |copy: &CopyName, nonce: Id| {
        contents.entries.iter().any(|entry| entry.copy() == *copy && entry.removal == Some(nonce))
    };
    let there: HashSet<&CopyName> = listed
        .iter()
        .filter(|it| !matches!(it.key.kind, ObjectKind::Removing(_) | ObjectKind::Keep(_)))
        .map(|it| &it.key.copy)
        .collect();
    for it in listed {
        let ObjectKind::Removing(nonce) = it.key.kind else { continue };
        if it.object.size == 0 || own(&it.key.copy, nonce) {
            continue;
        }
        let text = client.get(&it.object.key, announcement::MAX_LEN).unwrap_or_default();
        let who = Announcement::describe(&text);
        let url = quoted(&format!("s3://{}/{}", contents.bucket, it.object.key));
        let name = &it.key.copy.name;
        ui.warning(&if there.contains(&it.key.copy) {
            format!(
                "the removal of a copy of {name} was announced by {who}, and no backup can use it as its base until the \
                 removal has ended; if it was interrupted, the same command or 'resume_upload' on that host continues it; if \
                 that host is gone, 'zfs2s3 recover -r {}' cancels its removals",
                quoted(&one_line(&Announcement::host(&text).unwrap_or_else(|| nonce.to_string())))
            )
        } else {
            format!(
                "the removal of {name} by {who} is complete, but its announcement is left; if that host is gone: \
                 aws s3 rm {url}"
            )
        });
    }
}
