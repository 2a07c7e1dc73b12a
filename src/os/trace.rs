//! What `--verbose` shows: the commands that are run, and the requests. `ui` prints it.

use std::sync::OnceLock;

type Sink = Box<dyn Fn(&str) + Send + Sync>;

static SINK: OnceLock<Sink> = OnceLock::new();

/// From now on, each event goes to `sink`.
pub fn show(sink: impl Fn(&str) + Send + Sync + 'static) {
    let _ = SINK.set(Box::new(sink));
}

pub fn is_shown() -> bool {
    SINK.get().is_some()
}

/// Without `--verbose`, the text is not even made.
pub fn event(text: impl FnOnce() -> String) {
    if let Some(sink) = SINK.get() {
        sink(&text());
    }
}
