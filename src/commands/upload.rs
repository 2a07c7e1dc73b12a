//! `upload`: stores a snapshot, in full or as the changes since a base.

use super::Context;
use crate::cli;
use crate::config::{self, UploadSettings};
use crate::error::{Error, Result, Status};
use crate::inventory::Look;
use crate::model::keys;
use crate::model::names::{BaseName, SnapshotName, short_name};
use crate::model::object_lock::Retention;
use crate::model::units::{count, first_of, human_size};
use crate::os::clock;
use crate::state::journal;
use crate::state::journal::record::Intent;
use crate::upload::Upload;
use crate::upload::base::{Choice, WhyFull};

pub fn run(context: &Context, args: &cli::UploadArgs) -> Result<()> {
    let snapshot: SnapshotName = args.snapshot.parse().map_err(Error::usage)?;
    let base = args.base.as_ref().map(|base| BaseName::parse(base, &snapshot));
    let base = base.transpose().map_err(Error::usage)?;
    check_options(args)?;
    let settings = UploadSettings::new(&context.env)?;
    settings.warnings.iter().for_each(|warning| context.ui.warning(warning));
    settings.lock(args.lock_until.as_deref(), clock::now())?;
    let command = format!("upload {snapshot}");
    let _lock = context.lock_within(args.wait_lock.as_deref(), args.dry_run, &command)?;
    if args.auto && !args.dry_run {
        resume_pending(context, args.bookmark)?;
    }
    context.refuse_while_pending()?;
    let stored = if args.recursive {
        store_tree(context, args, &settings, &snapshot)
    } else {
        store(context, args, &settings, &snapshot, base)
    };
    stored.map_err(|error| match error.status {
        Status::TryAgain if args.auto && !context.folder.journal().exists() => {
            let what =
                if args.recursive { "not all of it could be stored" } else { "it could not be stored" };
            let message = format!("{snapshot}: {what}: {}", error.message);
            Error { message, ..error }
                .hint("run the same command again later; the next snapshot has the changes, too")
        }
        _ => error,
    })
}

/// Stores one snapshot.
fn store(
    context: &Context,
    args: &cli::UploadArgs,
    settings: &UploadSettings,
    snapshot: &SnapshotName,
    base: Option<BaseName>,
) -> Result<()> {
    let lock = settings.lock(args.lock_until.as_deref(), clock::now())?;
    let upload = context.upload()?;
    let chosen = if args.auto { choose_base(&upload, snapshot, args)? } else { Chosen::Base(base, None) };
    let Chosen::Base(base, look) = chosen else {
        context.ui.note(&format!("{snapshot} is stored already"));
        return if args.bookmark && !args.dry_run { upload.bookmark_stored(snapshot) } else { Ok(()) };
    };
    let intent = upload.plan(snapshot, base.as_ref(), look, settings, lock, args.dry_run)?;
    if base.is_none() && !args.recursive {
        note_children(context, snapshot);
    }
    if base.is_none() && !args.auto {
        note_base(context, &upload, snapshot);
    }
    if args.dry_run {
        return context.ui.data(&dry_run_text(&intent));
    }
    let point = intent.snapshot.clone();
    upload.begin(intent)?;
    if args.bookmark { context.zfs().bookmark(&point) } else { Ok(()) }
}

/// With a full backup, since -i may have been forgotten.
fn note_base(context: &Context, upload: &Upload, snapshot: &SnapshotName) {
    if let Some(base) = upload.possible_base(snapshot) {
        context.ui.note(&format!(
            "this is a full backup of {snapshot}; with '-i {base}' or -a, only the changes since {base} would be uploaded"
        ));
    }
}

/// With a full backup, since a newcomer may take it for one of everything below.
fn note_children(context: &Context, snapshot: &SnapshotName) {
    let Ok(tree) = context.zfs().tree(snapshot.dataset()) else { return };
    let children: Vec<&str> = tree.iter().map(|(name, _)| name.as_str()).skip(1).collect();
    if !children.is_empty() {
        context.ui.note(&format!(
            "{} has children, which are not in this backup: {}; 'upload -ar' stores each as its own backup",
            snapshot.dataset(),
            first_of(&children, 1)
        ));
    }
}

/// The snapshot of each descendant that has it, and that the user has not excluded, parents first. One that
/// fails does not keep the others from being stored, unless its upload is pending now, or the network is the
/// reason.
fn store_tree(
    context: &Context,
    args: &cli::UploadArgs,
    settings: &UploadSettings,
    snapshot: &SnapshotName,
) -> Result<()> {
    let (zfs, dataset) = (context.zfs(), snapshot.dataset());
    let name = short_name(snapshot.as_str());
    let (tree, with_snapshot) = (zfs.tree_to_upload(dataset)?, zfs.with_snapshot(dataset, name)?);
    let (datasets, without): (Vec<&str>, Vec<&str>) =
        tree.iter().map(String::as_str).partition(|dataset| with_snapshot.contains(*dataset));
    if datasets.is_empty() {
        return Err(Error::failed(format!(
            "neither {dataset} nor a dataset below it has a snapshot @{name}"
        ))
        .hint(format!("'zfs snapshot -r {snapshot}' takes them; zfs2s3:upload=off excludes a dataset")));
    }
    for dataset in without {
        context.ui.note(&format!("{dataset} has no snapshot @{name}, so it is not stored"));
    }
    // what is wrong for all of them is said once
    context.store_and_client()?;
    let mut failed: Vec<(&str, Status)> = Vec::new();
    for dataset in &datasets {
        let one: SnapshotName = format!("{dataset}@{name}").parse().map_err(Error::failed)?;
        let Err(error) = store(context, args, settings, &one, None) else { continue };
        if error.status == Status::TryAgain || context.folder.journal().exists() || datasets.len() == 1 {
            return Err(error);
        }
        context.report(&error);
        failed.push((dataset, error.status));
    }
    let Some((_, status)) = failed.first() else { return Ok(()) };
    let names: Vec<&str> = failed.iter().map(|(dataset, _)| *dataset).collect();
    let count = count(datasets.len() as u64, "dataset");
    Err(Error::new(*status, format!("of {count}, these could not be stored: {}", names.join(", ")))
        .hint("the reasons are above; the same command stores what is missing"))
}

fn check_options(args: &cli::UploadArgs) -> Result<()> {
    if args.auto && args.base.is_some() {
        return Err(Error::usage("-a and -i exclude each other: -a chooses the base"));
    }
    if args.recursive && !args.auto {
        return Err(Error::usage("-r needs -a, which chooses the base of each dataset"));
    }
    match args.max_chain {
        Some(_) if !args.auto => Err(Error::usage("-m needs -a, which chooses the base")),
        Some(0) => Err(Error::usage("-m: a chain has at least 1 backup, the full one")),
        _ => Ok(()),
    }
}

/// Resumes the pending upload, if there is one.
fn resume_pending(context: &Context, bookmark: bool) -> Result<()> {
    journal::refuse_python_upload(&context.folder, &context.local.bucket)?;
    if journal::overview(&context.folder)?.is_none() {
        return Ok(());
    }
    let (overview, upload) = context.pending()?;
    let point = overview.intent.snapshot.clone();
    context.ui.note(&format!("resuming the upload of {}", overview.intent.backup().describe()));
    let (parts, filter) = (config::parts(&context.env)?, config::filter(&context.env)?);
    upload.resume(overview, parts, filter.as_deref()).map_err(|error| match error.status {
        Status::TryAgain => error,
        _ => error
            .hint("until it is aborted, nothing is stored; after abort_upload, run the same command again"),
    })?;
    if bookmark { context.zfs().bookmark(&point) } else { Ok(()) }
}

/// What `-a` has chosen.
enum Chosen {
    Stored,
    /// The base, none for a full backup; and what the bucket has, if it was listed.
    Base(Option<BaseName>, Option<Look>),
}

fn choose_base(upload: &Upload, snapshot: &SnapshotName, args: &cli::UploadArgs) -> Result<Chosen> {
    let candidates = upload.candidates(snapshot)?;
    if candidates.is_stored() {
        return Ok(Chosen::Stored);
    }
    let dataset = snapshot.dataset();
    let choice = candidates.choose(args.max_chain);
    let tell = |text: &str| match choice {
        // it may be a surprise, and expensive
        Choice::Full(WhyFull::NoneHere) => upload.ui.warning(text),
        _ => upload.ui.note(text),
    };
    let (base, why) = match &choice {
        Choice::Base { point, length } => {
            let base = BaseName::parse(&point.name, snapshot).map_err(Error::failed)?;
            (
                Some(base),
                format!("the changes since {}, {} in the chain", point.name, count(*length as u64, "backup")),
            )
        }
        Choice::Full(WhyFull::NothingStored) => {
            (None, format!("a full backup, because none of {dataset} is stored"))
        }
        Choice::Full(WhyFull::NoneHere) => {
            let why = format!(
                "a full backup, because no stored snapshot of {dataset}, nor a bookmark of one, is on this host"
            );
            (None, why)
        }
        Choice::Full(WhyFull::TooLong) => {
            let limit = count(args.max_chain.unwrap_or_default() as u64, "backup");
            (None, format!("a full backup, because a chain may have no more than {limit}"))
        }
    };
    tell(&format!("{snapshot}: {why}"));
    Ok(Chosen::Base(base, Some(candidates.into_look())))
}

/// Each run has another ID.
fn key_without_id(intent: &Intent) -> String {
    let key = keys::segment(&intent.prefix, &intent.copy(), 1);
    intent.id.map_or(key.clone(), |id| key.replace(&format!("-{id}."), "-ID."))
}

fn dry_run_text(intent: &Intent) -> String {
    let Intent { chunking, storage_class, .. } = intent;
    let size = match intent.estimate {
        Some(bytes) => format!("about {bytes} bytes ({})", human_size(bytes)),
        None => "unknown until it is sent".to_string(),
    };
    let mut text = format!(
        "would upload {}\n  guid      {}\n  to        s3://{}/{}\n  class     {storage_class}\n  size      {size}\n",
        intent.backup().describe(),
        intent.snapshot.guid,
        intent.bucket,
        key_without_id(intent),
    );
    if let Some(bytes) = intent.estimate {
        let parts = chunking.chunks_of(bytes);
        let segments = parts.div_ceil(u64::from(chunking.parts_per_segment));
        text += &if intent.filter.is_some() {
            // how much smaller the filter makes them is not known
            format!(
                "  requests  at most {} to send the parts, {} to begin and complete the upload, 1 for the manifest\n",
                parts,
                2 * segments
            )
        } else if bytes < chunking.chunk_size {
            "  requests  1 to send the data, 1 for the manifest\n".to_string()
        } else {
            format!(
                "  parts     {} of {}, in {}\n  requests  {} to begin and complete the upload, {} to send the parts, 1 for the manifest\n",
                parts,
                human_size(chunking.chunk_size),
                count(segments, "segment"),
                2 * segments,
                parts
            )
        };
    }
    if let Some(filter) = &intent.filter {
        text += &format!("  filter    {filter}\n");
    }
    if let Some(Retention { mode, until }) = intent.lock {
        text += &format!("  lock      until {until} ({mode})\n");
    }
    if let Some(days) = storage_class.minimum_days() {
        text += &format!("  minimum   on AWS, {storage_class} is billed for at least {days} days\n");
    }
    text
}
