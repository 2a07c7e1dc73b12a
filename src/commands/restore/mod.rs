//! `restore`: a snapshot, or with -r all datasets below one, out of the bucket and into ZFS.

mod attempt;
mod dry_run;
mod tree;

use super::Context;
use crate::cli;
use crate::error::{Error, Result};
use crate::model::names::check_dataset_name;
use crate::restore::thaw::ThawOptions;
use crate::restore::wait;
use crate::state::store::selector::SnapshotSelector;
use attempt::Attempt;

pub fn run(context: &Context, args: &cli::RestoreArgs) -> Result<()> {
    let selector = SnapshotSelector::parse_or_newest(&args.snapshot)?;
    let target = &args.target;
    check_dataset_name(target).map_err(|why| Error::usage(format!("'{target}' is not a dataset: {why}")))?;
    if !args.wait && (args.days.is_some() || args.tier.is_some()) {
        return Err(Error::usage("-d and -t are for -w"));
    }
    let options = ThawOptions::parse(args.tier.as_deref(), args.days)?;
    if args.recursive {
        return tree::run(context, args, &selector, options);
    }
    let mut attempt = Attempt::new(context, args, args.snapshot.clone(), selector, target.clone())?;
    if args.wait && !args.dry_run {
        return wait::until_done(&context.ui, || attempt.round(options));
    }
    match attempt.once() {
        Ok(_) => Ok(()),
        Err(error) => Err(attempt.hint(error)),
    }
}
