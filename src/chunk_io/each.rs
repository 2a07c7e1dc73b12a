//! Calls a function for each of many items, in several threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::Result;
use crate::os::mutex::{into_inner, lock};
use crate::os::thread::start_in;

/// Returns the results in the order of the items. After an error no further item is begun, and the error is
/// returned.
pub fn for_each<T: Sync, R: Send>(
    items: &[T],
    jobs: usize,
    f: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<R>>> = Mutex::new(items.iter().map(|_| None).collect());
    let first_error = Mutex::new(None);
    let fail = |error| {
        lock(&first_error).get_or_insert(error);
        next.store(items.len(), Ordering::SeqCst);
    };
    let job = || {
        loop {
            let n = next.fetch_add(1, Ordering::SeqCst);
            let Some(item) = items.get(n) else { break };
            match f(item) {
                Ok(result) => lock(&results)[n] = Some(result),
                Err(error) => {
                    fail(error);
                    break;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let started = (0..jobs.min(items.len())).try_for_each(|_| start_in(scope, job).map(|_| ()));
        started.unwrap_or_else(fail);
    });
    match into_inner(first_error) {
        Some(error) => Err(error),
        None => Ok(into_inner(results).into_iter().flatten().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let items: Vec<u64> = (0..100).collect();
        let slow = |n: &u64| {
            std::thread::sleep(std::time::Duration::from_millis(n * 7 % 5));
            Ok(n * 2)
        };
        for jobs in [1, 3, 200] {
            assert_eq!(for_each(&items, jobs, slow).unwrap(), (0..100).map(|n| n * 2).collect::<Vec<_>>());
        }
        assert!(for_each(&[], 3, slow).unwrap().is_empty());
    }

    #[test]
    fn an_error_ends_it() {
        let items: Vec<u64> = (0..1000).collect();
        let begun = AtomicUsize::new(0);
        let failing = |n: &u64| {
            begun.fetch_add(1, Ordering::SeqCst);
            if *n == 5 { Err(Error::failed("five")) } else { Ok(()) }
        };
        assert_eq!(for_each(&items, 2, failing).unwrap_err().message, "five");
        assert!(begun.into_inner() < 1000);
    }
}
