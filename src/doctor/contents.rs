//! What this host and the bucket have: the store, the pending upload, what differs, what is unfinished, and
//! when it was last verified.

use super::report::Finding;
use crate::error::one_line;
use crate::inventory::{Inventory, Summary};
use crate::model::copy::CopyName;
use crate::model::keys;
use crate::model::shell::abort_multipart_upload;
use crate::model::units::{count, first_of, human_size};
use crate::model::utc::Utc;
use crate::s3::client::Client;
use crate::s3::reply::ListedUpload;
use crate::state::journal;
use crate::state::journal::record::Intent;
use crate::state::store::Folder;
use crate::state::store::format::{Contents, Entry, State};
use crate::state::verified;
use crate::zfs::Zfs;

/// How many uploads are asked for their size, and named.
const NAMED: usize = 5;
/// Days: an older verification is worth a warning.
const RECENT: i64 = 35;
const DAY: i64 = 86_400;

/// The pending upload of this host.
pub enum Pending {
    None,
    Upload(Box<Intent>),
    /// The journal cannot be read, so anything that seems unfinished may be of this upload.
    Unknown,
}

impl Pending {
    pub fn read(folder: &Folder) -> Pending {
        match journal::overview(folder) {
            Ok(None) => Pending::None,
            Ok(Some(overview)) => Pending::Upload(Box::new(overview.intent)),
            Err(_) => Pending::Unknown,
        }
    }

    /// Is this the key of an object of it, in this bucket? Its prefix may be another one than that of the store.
    fn has(&self, bucket: &str, key: &str) -> bool {
        match self {
            Pending::Upload(intent) => {
                intent.bucket == bucket && key.starts_with(&keys::stem(&intent.prefix, &intent.copy()))
            }
            _ => false,
        }
    }
}

/// The pending upload, and what it means.
pub fn pending(folder: &Folder, bucket: &str, prefix: &str, zfs: &Zfs) -> Finding {
    const CHECK: &str = "pending upload";
    let read = journal::refuse_python_upload(folder, bucket).and_then(|()| journal::overview(folder));
    let intent = match read {
        Ok(None) => return Finding::ok(CHECK, "none"),
        Ok(Some(overview)) => overview.intent,
        Err(error) => return Finding::of_error(CHECK, &error),
    };
    let what = format!("{}, since {}", intent.backup().describe(), intent.begun);
    if intent.bucket != bucket || intent.prefix != prefix {
        let place = format!("bucket '{}', prefix '{}'", intent.bucket, intent.prefix);
        return Finding::warning(CHECK, format!("{what}, for another bucket or prefix: {place}"))
            .hint("set ZFS2S3_BUCKET and ZFS2S3_PREFIX as they were when it began");
    }
    if zfs.names_of(intent.snapshot.guid).is_ok_and(|names| names.is_empty()) {
        return Finding::warning(
            CHECK,
            format!("{what}, cannot be resumed, because the snapshot is no longer on this host; until it is aborted, no other upload can begin"),
        )
        .hint("zfs2s3 abort_upload");
    }
    Finding::warning(CHECK, format!("{what}: no other upload can begin until it is completed or aborted"))
        .hint("if it is not running now, 'zfs2s3 resume_upload' resumes it, and 'zfs2s3 abort_upload' aborts it")
}

/// What was read of the store and the bucket, and the pending upload just before that.
pub struct Compared<'a> {
    pub client: &'a Client,
    pub contents: &'a Contents,
    pub inventory: &'a Inventory<'a>,
    pub pending: Pending,
}

/// How the store and the bucket differ. `lists_uploads`: open uploads can be listed. `store_now`: reads the
/// store again, since a command of this host may have changed it meanwhile.
pub fn compare(
    compared: &Compared,
    folder: &Folder,
    lists_uploads: bool,
    store_now: &dyn Fn() -> Option<Contents>,
    findings: &mut Vec<Finding>,
) {
    let Compared { client, contents, inventory, pending } = compared;
    let Some(listing) = inventory.listing() else {
        return findings.push(Finding::not_checked("store", "s3:ListBucket"));
    };
    let pending_now = Pending::read(folder);
    let is_pending =
        |key: &str| [pending, &pending_now].iter().any(|pending| pending.has(&contents.bucket, key));
    let now = store_now();
    let is_stored = |copy: &CopyName, state| {
        let mut entries = now.iter().flat_map(|now| &now.entries);
        entries.any(|entry| entry.state == state && entry.copy() == *copy)
    };
    // what has changed since the listing is left out
    let summary = inventory.summary(|copy, state| match state {
        Some(state) => now.is_none() || is_stored(copy, state),
        None => {
            !is_pending(&keys::stem(&contents.prefix, copy))
                && !is_stored(copy, State::Stored)
                && !is_stored(copy, State::Removing)
        }
    });
    of_summary(&summary, contents.entries.is_empty(), findings);
    if lists_uploads {
        findings.push(match (pending, &pending_now) {
            (Pending::Unknown, _) | (_, Pending::Unknown) => Finding::warning(
                "unfinished uploads",
                "not checked, because the pending upload, which may be among them, cannot be read",
            )
            .hint("see 'pending upload' above"),
            _ => unfinished(client, contents, &listing.uploads, is_pending),
        });
    }
}

/// A finding for each difference.
fn of_summary(summary: &Summary, store_is_empty: bool, findings: &mut Vec<Finding>) {
    let names = |list: &[String]| first_of(&list.iter().map(String::as_str).collect::<Vec<_>>(), NAMED);
    let backups = |list: &[String]| count(list.len() as u64, "backup");
    findings.push(if summary.lost.is_empty() {
        Finding::ok("store", format!("{}, all in the bucket", count(summary.whole as u64, "backup")))
    } else {
        let message = format!(
            "{} incomplete or missing in the bucket: {}",
            backups(&summary.lost),
            names(&summary.lost)
        );
        Finding::error("store", message)
            .hint("'zfs2s3 verify' shows which snapshots can no longer be restored")
    });
    if !summary.only_in_bucket.is_empty() {
        let found = backups(&summary.only_in_bucket);
        findings.push(if store_is_empty {
            Finding::warning("store", format!("it is empty, and the bucket has {found}"))
                .hint("'zfs2s3 recover' rebuilds it")
        } else {
            Finding::warning(
                "store",
                format!(
                    "the bucket has {found} not listed in the store: of another host, or lost from the store"
                ),
            )
            .hint("'zfs2s3 recover -n' lists them, 'zfs2s3 recover -m' adds them")
        });
    }
    for (list, words, hint) in [
        (
            &summary.removing,
            "begun to be removed",
            "the same 'zfs2s3 remove' completes the removal, 'zfs2s3 recover -m' cancels it",
        ),
        (
            &summary.announced,
            "announced for removal by another host, and not usable as a base",
            "'zfs2s3 recover -n' shows by which host, and since when",
        ),
        (
            &summary.incomplete,
            "incomplete in the bucket; a host may be storing or removing it",
            "if none is, 'zfs2s3 recover -n' shows what can be deleted",
        ),
    ] {
        if !list.is_empty() {
            let message = format!("{} {words}: {}", backups(list), names(list));
            findings.push(Finding::warning("store", message).hint(hint));
        }
    }
}

/// Uploads that were begun and neither completed nor aborted: their parts are billed.
fn unfinished(
    client: &Client,
    contents: &Contents,
    uploads: &[ListedUpload],
    is_pending: impl Fn(&str) -> bool,
) -> Finding {
    const CHECK: &str = "unfinished uploads";
    let is_left = |upload: &&ListedUpload| {
        keys::parse(&contents.prefix, &upload.key).is_some() && !is_pending(&upload.key)
    };
    let left: Vec<&ListedUpload> = uploads.iter().filter(is_left).collect();
    if left.is_empty() {
        return Finding::ok(CHECK, "none");
    }
    let size = |upload: &&ListedUpload| client.size_of_upload(&upload.key, &upload.upload_id);
    let sizes: Option<Vec<u64>> = left.iter().take(NAMED).map(size).collect();
    let size = match sizes {
        Some(sizes) if left.len() <= NAMED => format!(" ({})", human_size(sizes.iter().sum())),
        Some(sizes) => format!(" (more than {})", human_size(sizes.iter().sum())),
        None => String::new(),
    };
    let oldest = left.iter().filter_map(|upload| upload.initiated.as_deref()).min();
    let the_oldest = if left.len() > 1 { "the oldest " } else { "" };
    let oldest = oldest.map_or(String::new(), |time| format!(", {the_oldest}begun {}", one_line(time)));
    let finding = Finding::warning(CHECK, format!("{}{size}{oldest}", left.len())).hint(
        "its parts are billed until it is aborted; only if no host is uploading it or will resume it, abort it with:",
    );
    left.iter().take(NAMED).fold(finding, |finding, upload| {
        finding.hint(abort_multipart_upload(&contents.bucket, &upload.key, &one_line(&upload.upload_id)))
    })
}

/// When the stored backups were last verified; what was just stored was in the bucket then.
pub fn verification(folder: &Folder, contents: &Contents, now: Utc) -> Option<Finding> {
    const CHECK: &str = "verification";
    let (verified, warning) = verified::read(folder);
    if let Some(warning) = warning {
        return Some(Finding::warning(CHECK, warning));
    }
    let stored: Vec<&Entry> = contents.entries.iter().filter(|entry| entry.state == State::Stored).collect();
    if stored.is_empty() {
        return None;
    }
    let proof = |entry: &Entry| verified.backups.get(&entry.first_key(&contents.prefix));
    let is_damaged = |entry: &&&Entry| proof(entry).is_some_and(|proof| proof.damaged.is_some());
    let damaged = stored.iter().filter(is_damaged).count() as u64;
    if damaged > 0 {
        let words = format!("{} found damaged", count(damaged, "backup"));
        return Some(Finding::error(CHECK, words).hint("'zfs2s3 verify' shows which snapshots this affects"));
    }
    let is_recent = |entry: &&&Entry| {
        let proof = proof(entry);
        let verified = proof.and_then(|proof| proof.best()).map(|(_, time)| time);
        let stored = entry.stream.as_ref().map(|stream| stream.stored);
        let times = [verified, proof.and_then(|proof| proof.objects), stored];
        let last = times.into_iter().flatten().max();
        last.is_some_and(|time| now.unix_seconds() - time.unix_seconds() <= RECENT * DAY)
    };
    let old = stored.len() - stored.iter().filter(is_recent).count();
    Some(match old {
        0 => Finding::ok(CHECK, format!("all were stored or verified in the last {RECENT} days")),
        _ => {
            Finding::warning(CHECK, format!("{} not verified for {RECENT} days", count(old as u64, "backup")))
                .hint("'zfs2s3 verify' checks them without reading them; run it every week")
        }
    })
}
