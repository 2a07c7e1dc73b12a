//! `thaw`: has S3 make archived backups readable, and shows how far it is.

use std::collections::{BTreeMap, HashSet};

use super::Context;
use crate::cli;
use crate::error::{Error, Result, Status};
use crate::model::archive::{Access, Archive};
use crate::model::names::check_dataset_name;
use crate::model::units::{count, human_size};
use crate::model::utc::Utc;
use crate::os::clock;
use crate::restore::stored::survey;
use crate::restore::survey::{ObjectState, Survey, why_unreadable};
use crate::restore::thaw::{ThawOptions, seen, thaw, to_ask_for};
use crate::restore::{Plan, PlannedStep, Restore, plan_from_nothing};
use crate::s3::client::Client;
use crate::state::archive_states::{self, ArchiveStates};
use crate::state::store::format::{Contents, Entry};
use crate::state::store::selector::{BackupSelector, SnapshotSelector};
use crate::ui::table::aligned;

pub fn run(context: &Context, args: &cli::ThawArgs) -> Result<()> {
    let options = ThawOptions::parse(args.tier.as_deref(), args.days)?;
    let (store, client) = context.store_and_client()?;
    let contents = &store.contents;
    let mut steps = steps(context, args, &client, contents)?;
    let objects = to_ask_for(steps.iter_mut().map(|step| &mut step.survey), &options)?;
    if args.dry_run {
        return context.ui.data(&dry_run_text(&objects, &options));
    }
    let begun = thaw(&client, objects, &options)?;
    let states = remember(context, contents, &steps, &begun);
    context.ui.data(&table(contents, &steps, &states))?;
    match under_way(&steps, &options) {
        Some(text) => Err(Error::new(Status::UnderWay, text)),
        None => Ok(()),
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
        None => {
            let wanted = SnapshotSelector::parse(&args.snapshot)?.find(contents, "thaw")?;
            plan_from_nothing(client, contents, &wanted)
        }
        Some(target) => {
            check_dataset_name(target)
                .map_err(|why| Error::usage(format!("'{target}' is not a dataset: {why}")))?;
            let restore = Restore {
                zfs: &context.zfs(),
                client,
                contents,
                ui: &context.ui,
                wanted: SnapshotSelector::parse(&args.snapshot)?.find(contents, "thaw")?,
                target,
                properties: &[],
                discard: false,
                continues: false,
            };
            match restore.plan()? {
                Plan::AlreadyThere { name, .. } => {
                    context.ui.note(&format!("{name} exists already: nothing needs to be thawed"));
                    Ok(Vec::new())
                }
                Plan::Receive(plan) => Ok(plan.into_steps(contents)),
            }
        }
    }
}

/// For `list`. Nothing depends on it.
pub fn remember(
    context: &Context,
    contents: &Contents,
    steps: &[PlannedStep],
    begun: &HashSet<String>,
) -> ArchiveStates {
    let now = clock::now();
    let news = steps.iter().filter_map(|step| {
        let key = contents.entries[step.place].keys(&contents.prefix).into_iter().next()?;
        Some((key, seen(&step.survey, begun, now)?))
    });
    archive_states::update(&context.folder, contents, news.collect()).unwrap_or_else(|error| {
        context.ui.warning(&error.message);
        ArchiveStates::new()
    })
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

/// What S3 is still thawing.
pub fn under_way(steps: &[PlannedStep], options: &ThawOptions) -> Option<String> {
    let archived: Vec<&ObjectState> = steps.iter().flat_map(|step| step.survey.archived()).collect();
    let bytes = archived.iter().fold(0u64, |sum, object| sum.saturating_add(object.bytes));
    let mut durations: Vec<&str> = Vec::new();
    for archive in archived.iter().filter_map(|object| object.access.archive()) {
        let duration = archive.duration(options.tier()).unwrap_or("hours");
        if !durations.contains(&duration) {
            durations.push(duration);
        }
    }
    if archived.is_empty() {
        return None;
    }
    Some(format!(
        "S3 is thawing {} ({}), which takes {} ({})",
        count(archived.len() as u64, "object"),
        human_size(bytes),
        durations.join(" or "),
        options.tier()
    ))
}

fn table(contents: &Contents, steps: &[PlannedStep], states: &ArchiveStates) -> String {
    let mut cells = vec![["SNAPSHOT", "BASE", "SIZE", "CLASS", "STATE"].map(str::to_string).to_vec()];
    for step in steps {
        let entry = &contents.entries[step.place];
        let key = entry.keys(&contents.prefix).into_iter().next().unwrap_or_default();
        let since = states.get(&key).and_then(|seen| seen.since);
        cells.push(vec![
            entry.snapshot.name.clone(),
            entry.base.as_ref().map_or("-".to_string(), |base| base.name.clone()),
            human_size(step.bytes),
            class(entry, &step.survey),
            state(&step.survey, since),
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
    let archived = |object: &ObjectState| matches!(object.access, Access::Archived(_));
    if survey.objects.iter().any(archived) {
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
fn dry_run_text(objects: &[&mut ObjectState], options: &ThawOptions) -> String {
    let (tier, days) = (options.tier(), options.days());
    let mut by_archive: BTreeMap<Archive, (u64, u64)> = BTreeMap::new();
    let mut lines = String::new();
    for object in objects {
        let Some(archive) = object.access.archive() else { continue };
        let (requests, bytes) = by_archive.entry(archive).or_default();
        *requests += 1;
        // the time of a copy is set anew without another retrieval
        if !object.access.is_readable() {
            *bytes = bytes.saturating_add(object.bytes);
        }
        lines += &format!("  {}  {} bytes  {}\n", archive.class(), object.bytes, object.key);
    }
    if by_archive.is_empty() {
        return "would thaw nothing: there is nothing to ask S3 for\n".to_string();
    }
    let mut text = format!("would thaw {}\n{lines}", count(objects.len() as u64, "object"));
    for (archive, (requests, bytes)) in &by_archive {
        let copies = if archive.makes_copies() {
            format!(", copies in STANDARD for {}", count(u64::from(days), "day"))
        } else {
            String::new()
        };
        text += &format!(
            "  {}: {}, {bytes} bytes ({}) to retrieve ({tier}){copies}; takes {}\n",
            archive.class(),
            count(*requests, "request"),
            human_size(*bytes),
            archive.duration(tier).unwrap_or("hours")
        );
    }
    text
}
