//! Starts threads. The system may refuse one, at which `std::thread::spawn` panics.

use std::sync::atomic::AtomicBool;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use crate::error::{Error, Result};

/// The flag for what is never stopped.
pub static GO_ON: AtomicBool = AtomicBool::new(false);

/// The error is a temporary failure.
pub fn start_in<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    f: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    Builder::new()
        .spawn_scoped(scope, f)
        .map_err(|e| Error::try_again(format!("the system gives no further thread: {e}")))
}
