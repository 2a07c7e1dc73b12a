//! The user's filter: does it work, and does the unfilter undo it?

use super::report::Finding;
use crate::error::Result;
use crate::filter::{FILTER, Filter, UNFILTER};

/// Bytes: as many as a chunk has.
const SIZE: u64 = 16 << 20;

/// `filter`, `unfilter`: if they are set.
pub fn check(filter: Option<Filter>, unfilter: Result<Option<&Filter>>) -> Vec<Finding> {
    let unfilter = match unfilter {
        Ok(unfilter) => unfilter,
        Err(error) => return vec![Finding::of_error(UNFILTER, &error)],
    };
    let Some(filter) = filter else { return Vec::new() };
    let tried = match filter.check(SIZE) {
        Ok(tried) => tried,
        Err(error) => return vec![Finding::of_error(FILTER, &error)],
    };
    let undone = match unfilter.map(|unfilter| unfilter.check_undoes(&tried)) {
        // this host may have no key on purpose
        None => Finding::ok(UNFILTER, "not set, so whether filtered backups can be restored is not checked"),
        Some(Ok(())) => Finding::ok(UNFILTER, "it undoes the filter"),
        Some(Err(error)) => Finding::of_error(UNFILTER, &error),
    };
    vec![Finding::ok(FILTER, "it works"), undone]
}
