//! `list`: what is stored, being uploaded or being removed. Reads only the files of this host, except to find
//! what could be removed (`retention`).

mod columns;
mod dot;
mod retention;
mod row;
mod table;

use super::Context;
use crate::cli;
use crate::error::{Error, Result};
use crate::model::names::{check_dataset_name, dataset_of};
use crate::os::clock;
use crate::state::archive_states;
use crate::state::journal;
use crate::state::store::format::Contents;
use crate::state::verified;
use columns::{Column, Form, OF_SCRIPTS};
use row::Known;

pub fn run(context: &Context, args: &cli::ListArgs) -> Result<()> {
    let columns = Columns::parse(args)?;
    if let Some(dataset) = &args.dataset {
        check_dataset_name(dataset)
            .map_err(|why| Error::usage(format!("'{dataset}' is not a dataset: {why}")))?;
    }
    let scope = Scope { dataset: args.dataset.as_deref(), recursive: args.recursive };
    if args.advise {
        return context.ui.data(&retention::advise(context, scope)?);
    }
    // the pending upload first: if it ends in between, it is also in the store
    let pending = journal::overview(&context.folder)?;
    let contents = context.store()?.contents;
    let (states, warning) = archive_states::read(&context.folder);
    warning.into_iter().for_each(|warning| context.ui.warning(&warning));
    let shows_proofs = args.verbose || args.json || columns.contain(Column::Verified);
    let (verified, warning) = if shows_proofs { verified::read(&context.folder) } else { Default::default() };
    warning.into_iter().for_each(|warning| context.ui.warning(&warning));
    let known = Known { contents: &contents, states, verified };
    let form = Form { script: args.script, parsable: args.parsable, now: clock::now() };
    let mut rows = if args.removable {
        let costs = row::costs(&contents);
        retention::removable(context, scope, |entry| known.row(entry, &costs, form.now))?
    } else {
        row::rows(&known, pending.as_ref(), scope, form.now)
    };
    if !args.removable && !args.script && !args.json {
        rows.sort_by(columns::by_dataset);
    }
    columns::sort(&mut rows, &columns.ascending, &columns.descending, &form);
    match args {
        cli::ListArgs { json: true, .. } => context.print_json(&rows),
        // a script asks for what there is; but the store must not be lost
        _ if rows.is_empty() && (!args.script || contents.entries.is_empty()) => {
            context.ui.note(&nothing(args, &contents));
            Ok(())
        }
        cli::ListArgs { dot: true, .. } => context.ui.data(&dot::dot(&rows)),
        cli::ListArgs { script: true, .. } => {
            let chosen = columns.chosen.as_deref().unwrap_or(&OF_SCRIPTS);
            context.ui.data(&table::fields(&rows, chosen, &form))
        }
        _ => {
            let chosen = columns.chosen.unwrap_or_else(|| table::columns(&rows, args.verbose));
            context.ui.data(&table::table(&rows, &chosen, &form))
        }
    }
}

/// What the user asks for.
struct Columns {
    chosen: Option<Vec<Column>>,
    ascending: Vec<Column>,
    descending: Vec<Column>,
}

impl Columns {
    fn parse(args: &cli::ListArgs) -> Result<Self> {
        let all = |words: &[String]| words.iter().map(|word| Column::parse(word)).collect::<Result<Vec<_>>>();
        let chosen = args.columns.as_deref().map(Column::list).transpose()?;
        let columns =
            Columns { chosen, ascending: all(&args.ascending)?, descending: all(&args.descending)? };
        let is_sorted = !columns.ascending.is_empty() || !columns.descending.is_empty();
        let (option, other) = match args {
            cli::ListArgs { json: true, columns: Some(_), .. } => ("-o", "-j, which has all of them"),
            cli::ListArgs { dot: true, columns: Some(_), .. } => ("-o", "--dot"),
            cli::ListArgs { advise: true, columns: Some(_), .. } => ("-o", "-A"),
            cli::ListArgs { removable: true, .. } if is_sorted => ("-s or -S", "-R, which has its own order"),
            cli::ListArgs { dot: true, .. } if is_sorted => ("-s or -S", "--dot"),
            cli::ListArgs { advise: true, .. } if is_sorted => ("-s or -S", "-A"),
            _ => return Ok(columns),
        };
        Err(Error::usage(format!("{option} cannot be combined with {other}")))
    }

    fn contain(&self, column: Column) -> bool {
        let chosen = self.chosen.iter().flatten();
        chosen.chain(&self.ascending).chain(&self.descending).any(|known| *known == column)
    }
}

/// The dataset that the user asks for; none: all.
#[derive(Clone, Copy)]
struct Scope<'a> {
    dataset: Option<&'a str>,
    /// And those below.
    recursive: bool,
}

impl Scope<'_> {
    fn has(&self, snapshot: &str) -> bool {
        let Some(top) = self.dataset else { return true };
        match dataset_of(snapshot).strip_prefix(top) {
            Some(below) => below.is_empty() || self.recursive && below.starts_with('/'),
            None => false,
        }
    }
}

/// Why the list is empty.
fn nothing(args: &cli::ListArgs, contents: &Contents) -> String {
    match &args.dataset {
        _ if args.removable => "no backup could be removed now".to_string(),
        Some(dataset) if !contents.entries.is_empty() => {
            let below = Scope { dataset: Some(dataset), recursive: true };
            if !args.recursive && contents.entries.iter().any(|entry| below.has(&entry.snapshot.name)) {
                format!(
                    "no backups of {dataset} itself are stored; 'zfs2s3 list -r {dataset}' shows those below it"
                )
            } else {
                format!("no backups of {dataset} are stored")
            }
        }
        _ => "no backups are in the store; if it was lost, 'zfs2s3 recover' rebuilds it from the bucket"
            .to_string(),
    }
}
