//! `thaw`: has S3 make archived backups readable, and shows how far it is.

use std::collections::{BTreeMap, HashSet};

use super::Context;
use crate::cli;
use crate::error::{Error, Result, Status};
use crate::model::archive::Archive;
use crate::model::names::check_dataset_name;
use crate::model::units::{count, human_size};
use crate::model::utc::Utc;
use crate::os::clock;
use crate::restore::newest;
use crate::restore::stored::survey;
use crate::restore::survey::{Survey, why_unreadable};
use crate::restore::thaw::{Thaw, ThawOptions, Thawed, ToThaw, under_way};
use crate::restore::{PlannedStep, Restore, needed_from_nothing};
use crate::s3::client::Client;
use crate::state::archive_states::{self, Seen};
use crate::state::store::format::{Contents, Entry};
use crate::state::store::selector::{BackupSelector, SnapshotSelector};
use crate::ui::table::aligned;

pub fn run(context: &Context, args: &cli::ThawArgs) -> Result<()> {
    let options = ThawOptions::parse(args.tier.as_deref(), args.days)?;
    let (store, client) = context.store_and_client()?;
    let contents = &store.contents;
    let mut steps = steps(context, args, &client, contents)?;
    if args.dry_run {
        let thaw = prepare(context, &client, contents, options);
        return context.ui.data(&dry_run_text(&thaw.requests(&mut steps)?, &options));
    }
    let news = thaw_and_remember(context, &client, contents, &mut steps, options)?;
    context.ui.data(&table(contents, &steps, &news))?;
    match under_way(contents, &steps, &news) {
        Some(text) => Err(Error::new(Status::UnderWay, text)),
        None => Ok(()),
    }
}

fn prepare<'a>(
    context: &Context,
    client: &'a Client,
    contents: &'a Contents,
    options: ThawOptions,
) -> Thaw<'a> {
    let (states, warning) = archive_states::read(&context.folder);
    warning.into_iter().for_each(|warning| context.ui.warning_once(&warning));
    Thaw { client, contents, options, states, now: clock::now() }
}

/// Thaws what is archived, and keeps for `list` what was seen. Also returns that.
pub fn thaw_and_remember(
    context: &Context,
    client: &Client,
    contents: &Contents,
    steps: &mut [PlannedStep],
    options: ThawOptions,
) -> Result<Vec<(String, Seen)>> {
    let Thawed { news, not_faster, error } = prepare(context, client, contents, options).run(steps)?;
    if let Err(error) = archive_states::update(&context.folder, contents, &news) {
        context.ui.warning_once(&error.message);
    }
    if not_faster > 0 {
        let objects = count(not_faster, "object");
        context.ui.note_once(&format!("S3 is thawing {objects} already, and does not accept another tier"));
    }
    match error {
        Some(error) => {
            Err(error.hint("what S3 has accepted is being thawed; the same command asks for the rest"))
        }
        None => Ok(news),
    }
}

/// The backups whose objects are thawed.
fn steps(
    context: &Context,
    args: &cli::ThawArgs,
    client: &Client,
    contents: &Contents,
) -> Result<Vec<PlannedStep>> {
    let is_one = args.full || args.base.is_some();
    let wanted = || {
        let selector = SnapshotSelector::parse_or_newest(&args.snapshot)?;
        newest::selected(&selector, client, contents, "thaw", &context.ui)
    };
    match &args.target {
        _ if args.full && args.base.is_some() => Err(Error::usage("-f and -i exclude each other")),
        Some(_) if is_one => Err(Error::usage("-f and -i are for 'download', which has no target")),
        None if is_one => {
            let selector = BackupSelector::parse("thaw", &args.snapshot, args.base.as_deref())?;
            let place = selector.find(contents)?;
            let entry = &contents.entries[place];
            let mut survey = survey(client, &contents.prefix, entry)?;
            if !survey.can_be_thawed() {
                return Err(why_unreadable([&mut survey]));
            }
            Ok(vec![PlannedStep { place, bytes: entry.size().unwrap_or_default(), survey }])
        }
        None => needed_from_nothing(client, contents, &wanted()?),
        Some(target) => {
            check_dataset_name(target)
                .map_err(|why| Error::usage(format!("'{target}' is not a dataset: {why}")))?;
            let restore = Restore {
                zfs: &context.zfs(),
                client,
                contents,
                ui: &context.ui,
                wanted: wanted()?,
                target,
                properties: &[],
                discard: args.discard,
                waits: true,
                may_exist: true,
                planned: &HashSet::new(),
                unfilter: None,
            };
            restore.needed().map(|steps| {
                steps.unwrap_or_else(|| {
                    context.ui.note(&format!("{target} has {} already", restore.wanted.name));
                    Vec::new()
                })
            })
        }
    }
}

/// Adds the command that thaws what is archived.
pub fn hint_thaw(error: Error, arguments: &str) -> Error {
    match error.status {
        Status::Archived => {
            error.hint(format!("'zfs2s3 thaw {arguments}' makes it readable, which takes hours"))
        }
        _ => error,
    }
}

/// `news`: what was seen of each step.
fn table(contents: &Contents, steps: &[PlannedStep], news: &[(String, Seen)]) -> String {
    let mut cells = vec![["SNAPSHOT", "BASE", "SIZE", "CLASS", "STATE"].map(str::to_string).to_vec()];
    for (step, (_, seen)) in steps.iter().zip(news) {
        let entry = &contents.entries[step.place];
        cells.push(vec![
            entry.snapshot.name.clone(),
            entry.base.as_ref().map_or("-".to_string(), |base| base.name.clone()),
            human_size(step.bytes),
            class(entry, &step.survey),
            state(&step.survey, seen.since),
        ]);
    }
    if steps.is_empty() { String::new() } else { aligned(&cells, &[2]) }
}

/// Where the objects are now: a lifecycle rule may have moved them.
fn class(entry: &Entry, survey: &Survey) -> String {
    let archive = survey.objects.iter().find_map(|object| object.access.archive());
    match (archive, &entry.stream) {
        (Some(archive), _) => archive.class().to_string(),
        (None, Some(stream)) => stream.storage_class.to_string(),
        (None, None) => "-".to_string(),
    }
}

fn state(survey: &Survey, since: Option<Utc>) -> String {
    if survey.any_archived() {
        return "archived".to_string();
    }
    match (survey.is_readable(), since, survey.until()) {
        (true, _, Some(until)) => format!("readable until {}", until.to_minute()),
        (true, _, None) => "readable".to_string(),
        (false, Some(since), _) => format!("thawing since {}", since.to_minute()),
        (false, None, _) => "thawing".to_string(),
    }
}

/// What a price list is applied to: requests and bytes by class and tier, and how long copies are kept.
fn dry_run_text(requests: &[ToThaw], options: &ThawOptions) -> String {
    let (tier, days) = (options.tier(), options.days());
    let mut by_archive: BTreeMap<Archive, (u64, u64)> = BTreeMap::new();
    let mut lines = String::new();
    for ToThaw { object, .. } in requests {
        let Some(archive) = object.access.archive() else { continue };
        let (number, bytes) = by_archive.entry(archive).or_default();
        *number += 1;
        // the time of a copy is set anew without another retrieval
        if !object.access.is_readable() {
            *bytes = bytes.saturating_add(object.bytes);
        }
        lines += &format!("  {}  {} bytes  {}\n", archive.class(), object.bytes, object.key);
    }
    if by_archive.is_empty() {
        return "would thaw nothing: there is nothing to ask S3 for\n".to_string();
    }
    let mut text = format!("would thaw {}\n{lines}", count(requests.len() as u64, "object"));
    for (archive, (number, bytes)) in &by_archive {
        let copies = if archive.makes_copies() {
            format!(", copies in STANDARD for {}", count(u64::from(days), "day"))
        } else {
            String::new()
        };
        text += &format!(
            "  {}: {}, {bytes} bytes ({}) to retrieve ({tier}){copies}; takes {}\n",
            archive.class(),
            count(*number, "request"),
            human_size(*bytes),
            archive.duration(tier).unwrap_or("hours")
        );
    }
    text
}
