//! The user's filter: does it work, and does the unfilter undo it?

use super::report::Finding;
use crate::error::Result;
use crate::filter::{FILTER, Filter, UNFILTER};

/// `filter`, `unfilter`: if they are set.
pub fn check(filter: Option<Result<Filter>>, unfilter: Result<Option<&Filter>>) -> Vec<Finding> {
    let unfilter = match unfilter {
        Ok(unfilter) => unfilter,
        Err(error) => return vec![Finding::of_error(UNFILTER, &error)],
    };
    let filter = match filter {
        None => return Vec::new(),
        Some(Ok(filter)) => filter,
        Some(Err(error)) => return vec![Finding::of_error(FILTER, &error)],
    };
    let (sample, filtered) = match filter.check() {
        Ok(both) => both,
        Err(error) => return vec![Finding::of_error(FILTER, &error)],
    };
    let mut findings = vec![Finding::ok(FILTER, "it works")];
    findings.push(match unfilter.map(|unfilter| unfilter.unfilter(&filtered, sample.len(), Vec::new())) {
        // this host may have no key on purpose
        None => Finding::ok(UNFILTER, "not set, so whether filtered backups can be restored is not checked"),
        Some(Ok(back)) if back == sample => Finding::ok(UNFILTER, "it undoes the filter"),
        Some(Ok(_)) => Finding::error(UNFILTER, "it gives something other than what was filtered"),
        Some(Err(error)) => Finding::of_error(UNFILTER, &error),
    });
    findings
}
