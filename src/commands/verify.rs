//! `verify`: proves that stored backups can be restored, and says what damage costs.

use std::collections::HashSet;

use serde::Serialize;

use super::Context;
use crate::cli;
use crate::config;
use crate::error::{Error, Result, Status};
use crate::model::copy::Id;
use crate::model::names::Guid;
use crate::model::units::count;
use crate::state::store::format::{Contents, Entry, State};
use crate::state::store::selector::SnapshotSelector;
use crate::state::verified::Method;
use crate::verify::cost::{Cost, cost, leading_to};
use crate::verify::objects::Severity;
use crate::verify::{Checked, Verify};

pub fn run(context: &Context, args: &cli::VerifyArgs) -> Result<()> {
    let percent = args.sample.as_deref().map(percent).transpose()?;
    if percent.is_some() && args.deep {
        return Err(Error::usage("-s and -D exclude each other: -D reads everything"));
    }
    let (store, client) = context.store_and_client()?;
    let contents = &store.contents;
    let places = selected(contents, &args.snapshots)?;
    let ui = &context.ui;
    let save_every = config::save_every(&context.env);
    let unfilter = context.unfilter()?;
    let verify = Verify { client: &client, contents, folder: &context.folder, ui, save_every, unfilter };
    let mut checked = verify.check_objects(&places)?;
    let mut unread = 0;
    let read = match percent {
        Some(percent) => verify.read_samples(&mut checked, percent).map(|count| unread = count),
        None if args.deep => verify.read_all(&mut checked, &args.snapshots),
        None => Ok(()),
    };
    // a command of this host may have removed backups meanwhile
    let now = if checked.iter().all(Checked::is_whole) { None } else { Some(context.store()?.contents) };
    let is_still_stored = |checked: &Checked| {
        let copy = contents.entries[checked.place].copy();
        now.iter()
            .flat_map(|now| &now.entries)
            .any(|entry| entry.state == State::Stored && entry.copy() == copy)
    };
    checked.retain(|checked| checked.is_whole() || is_still_stored(checked));
    let places = |counts: &dyn Fn(&Checked) -> bool| -> HashSet<usize> {
        checked.iter().filter(|checked| counts(checked)).map(|checked| checked.place).collect()
    };
    let damaged = places(&|it| it.problems.iter().any(|(_, problem)| problem.prevents_restore()));
    let cost = cost(&contents.entries, &damaged, &places(&Checked::is_whole));
    if args.json {
        let report = Report::of(contents, &checked, &cost);
        context.print_json(&report)?;
    }
    if unread > 0 {
        let tell = |text: &str| if unread == checked.len() as u64 { ui.warning(text) } else { ui.note(text) };
        tell(&format!(
            "of {}, no chunk was read: it must be thawed first, or the Python tool kept no hashes",
            count(unread, "backup")
        ));
    }
    match (outcome(&checked, &cost), read) {
        (Err(damage), Err(error)) if damage.status == Status::Damaged => {
            let damage = damage.hint(format!("not all was read: {error}"));
            return Err(error.hints.into_iter().fold(damage, Error::hint));
        }
        (_, Err(error)) | (Err(error), Ok(())) => return Err(error),
        (Ok(()), Ok(())) => {}
    }
    ui.note(&format!("verified {}{}", count(checked.len() as u64, "backup"), methods_of(&checked)));
    Ok(())
}

/// By which methods, and how many by each if they are several.
fn methods_of(checked: &[Checked]) -> String {
    let of = |method| checked.iter().filter(|checked| checked.method == method).count();
    let counts = [Method::Deep, Method::Sample, Method::Objects].map(|method| (of(method), method.as_str()));
    let used: Vec<(usize, &str)> = counts.into_iter().filter(|(count, _)| *count > 0).collect();
    let words: Vec<String> = match used.as_slice() {
        [(_, method)] => vec![(*method).to_string()],
        several => several.iter().map(|(count, method)| format!("{count} {method}")).collect(),
    };
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
}

fn percent(text: &str) -> Result<f64> {
    let number = text.trim_end_matches('%').parse::<f64>().ok();
    number
        .filter(|percent| *percent > 0.0 && *percent <= 100.0)
        .ok_or_else(|| Error::usage(format!("-s: '{text}' is not a percentage above 0, and up to 100")))
}

/// The places of the backups to verify: all that are stored, or those that lead to these snapshots.
fn selected(contents: &Contents, snapshots: &[String]) -> Result<Vec<usize>> {
    let entries = &contents.entries;
    let mut places: Vec<usize> = if snapshots.is_empty() { (0..entries.len()).collect() } else { Vec::new() };
    for snapshot in snapshots {
        let point = SnapshotSelector::parse(snapshot)?.find(contents, "verify")?;
        places.extend(leading_to(entries, point.guid));
    }
    places.sort_unstable();
    places.dedup();
    places.retain(|place| entries[*place].state == State::Stored);
    Ok(places)
}

fn outcome(checked: &[Checked], cost: &Cost) -> Result<()> {
    let with = |severity| checked.iter().filter(|checked| checked.severity() == severity).count() as u64;
    let all = checked.len();
    let damaged = with(Severity::Damage);
    if damaged > 0 {
        let mut error = Error::new(Status::Damaged, format!("{} of {all} damaged", count(damaged, "backup")));
        if !cost.lost.is_empty() {
            error =
                error.hint(format!("these snapshots can no longer be restored: {}", cost.lost.join(", ")));
        }
        if !cost.spared.is_empty() {
            error = error.hint(format!("these still can, by another route: {}", cost.spared.join(", ")));
        }
        if !cost.unknown.is_empty() {
            error = error
                .hint(format!("these may, by a route that was not verified: {}", cost.unknown.join(", ")));
        }
        return Err(error);
    }
    match with(Severity::Unchecked) {
        0 => Ok(()),
        unchecked => {
            Err(Error::failed(format!("{} of {all} could not be checked", count(unchecked, "backup"))))
        }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    backups: Vec<BackupReport<'a>>,
    /// Snapshots that can no longer be restored.
    lost: &'a [String],
    /// Snapshots that depend on damaged backups, and can be restored by another route; or perhaps, since that
    /// was not verified.
    spared: &'a [String],
    unknown: &'a [String],
}

#[derive(Serialize)]
struct BackupReport<'a> {
    snapshot: &'a str,
    guid: Guid,
    base: Option<&'a str>,
    base_guid: Option<Guid>,
    copy: Option<Id>,
    method: Method,
    result: &'static str,
    problems: Vec<ProblemReport<'a>>,
}

#[derive(Serialize)]
struct ProblemReport<'a> {
    object: &'a str,
    problem: String,
}

impl<'a> Report<'a> {
    fn of(contents: &'a Contents, checked: &'a [Checked], cost: &'a Cost) -> Self {
        let backups = checked.iter().map(|it| BackupReport::of(&contents.entries[it.place], it)).collect();
        Report { backups, lost: &cost.lost, spared: &cost.spared, unknown: &cost.unknown }
    }
}

impl<'a> BackupReport<'a> {
    fn of(entry: &'a Entry, checked: &'a Checked) -> Self {
        BackupReport {
            snapshot: &entry.snapshot.name,
            guid: entry.snapshot.guid,
            base: entry.base.as_ref().map(|base| base.name.as_str()),
            base_guid: entry.base.as_ref().map(|base| base.guid),
            copy: entry.id,
            method: checked.method,
            result: match checked.severity() {
                Severity::Note => "whole",
                Severity::Unchecked => "unchecked",
                Severity::Damage => "damaged",
            },
            problems: checked
                .problems
                .iter()
                .map(|(object, problem)| ProblemReport { object, problem: problem.to_string() })
                .collect(),
        }
    }
}
