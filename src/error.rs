//! The one error type: what a person reads, what to try next, and the exit status.
//!
//! A message says what failed, on which object, and why; the hint says what to do. Both are lower
//! case and end without a period. No secret is ever put into either.

use std::fmt;

/// The exit statuses, as in the man page's EXIT STATUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It did not work, and trying again unchanged will not help.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// Refused for the safety of stored backups.
    Refused = 3,
    /// An upload is pending, or (resume_upload, abort_upload) none is.
    Pending = 4,
    /// Gave up for now; the state is kept.
    TryAgain = 75,
}

#[derive(Debug)]
pub struct Error {
    pub status: Status,
    pub message: String,
    pub hints: Vec<String>,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Error { status, message: message.into(), hints: Vec::new() }
    }
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Status::Failed, message)
    }
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Status::Usage, message)
    }
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Status::Refused, message)
    }
    pub fn pending(message: impl Into<String>) -> Self {
        Self::new(Status::Pending, message)
    }
    pub fn try_again(message: impl Into<String>) -> Self {
        Self::new(Status::TryAgain, message)
    }
    /// Adds one line on what to try next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
    /// The same, but it may work later, and the state is kept.
    pub fn for_now(mut self) -> Self {
        self.status = Status::TryAgain;
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// What a server or a file says must neither begin a line of its own nor move the cursor.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_the_cursor() {
        assert_eq!(one_line("a\u{1b}[2Jb\u{9b}2J\r\nc"), "a\u{fffd}[2Jb\u{fffd}2J\u{fffd}\u{fffd}c");
        assert_eq!(one_line("tank/ä b@1"), "tank/ä b@1");
    }
}
