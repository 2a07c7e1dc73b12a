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
use crate::recover::hidden;
use crate::state::store::format::{Contents, Entry, State};
use crate::state::store::selector::SnapshotSelector;
use crate::state::verified::Method;
use crate::verify::cost::{Cost, cost, leading_to};
use crate::verify::objects::{Problem, Severity};
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
    let verify = Verify { client: &client, contents, folder: &context.folder, ui, save_every };
    let mut checked = verify.check_objects(&places)?;
    let mut archived = 0;
    if let Some(percent) = percent {
        archived = verify.read_samples(&mut checked, percent)?;
    }
    if args.deep {
        verify.read_all(&mut checked, &args.snapshots)?;
    }
    for checked in &checked {
        let entry = &contents.entries[checked.place];
        for (key, problem) in &checked.problems {
            let words = format!("'{}': the object '{key}': {problem}", entry.backup());
            if problem.severity() == Severity::Note { ui.note(&words) } else { ui.warning(&words) }
        }
        if checked.problems.iter().any(|(_, problem)| *problem == Problem::Missing) {
            hidden::report_copy(&client, contents, &entry.copy(), ui);
        }
    }
    let damaged: HashSet<usize> = checked
        .iter()
        .filter(|checked| checked.problems.iter().any(|(_, problem)| problem.prevents_restore()))
        .map(|checked| checked.place)
        .collect();
    let cost = cost(&contents.entries, &damaged);
    if args.json {
        let report = Report::of(contents, &checked, &cost);
        let text = serde_json::to_string_pretty(&report).map_err(|e| Error::failed(e.to_string()))?;
        ui.data(&(text + "\n"))?;
    }
    if archived > 0 {
        ui.note(&format!(
            "of {}, no chunk was read: they must be thawed first",
            count(archived, "archived backup")
        ));
    }
    outcome(&checked, &cost)?;
    let method = match (percent, args.deep) {
        (_, true) => Method::Deep,
        (Some(_), false) => Method::Sample,
        (None, false) => Method::Objects,
    };
    ui.note(&format!("verified {} ({})", count(checked.len() as u64, "backup"), method.as_str()));
    Ok(())
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
    /// Snapshots that depend on damaged backups, and can be restored by another route.
    spared: &'a [String],
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
        Report { backups, lost: &cost.lost, spared: &cost.spared }
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
