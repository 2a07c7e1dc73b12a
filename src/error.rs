//! The error type: a message, hints on what to try next, and the exit status.
//!
//! A message says what failed, on which object, and why; a hint says what to do. Both are lower case, and end
//! without a period. Neither ever contains a secret.

use std::fmt;

/// The kinds of errors. The man page lists their exit statuses, in EXIT STATUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It failed, and trying again unchanged will not help.
    Failed,
    /// The command line or the configuration is wrong.
    Usage,
    /// Refused for the safety of stored backups.
    Refused,
    /// An upload is pending, or (resume_upload, abort_upload) none is.
    Pending,
    /// What is stored is damaged.
    Damaged,
    /// A temporary failure; the state is kept.
    TryAgain,
    /// An archived object must be thawed first.
    Archived,
    /// No failure: S3 is thawing.
    UnderWay,
}

impl Status {
    pub fn exit_code(self) -> u8 {
        match self {
            Status::Failed => 1,
            Status::Usage => 2,
            Status::Refused => 3,
            Status::Pending => 4,
            Status::Damaged => 5,
            Status::TryAgain | Status::Archived | Status::UnderWay => 75,
        }
    }
}

#[derive(Debug)]
pub struct Error {
    pub status: Status,
    pub message: String,
    pub hints: Vec<String>,
}

/// Of whatever can fail with a message for the user, or with an error of its own.
pub type Result<T, E = Error> = std::result::Result<T, E>;

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
    /// An invalid variable, or an invalid setting in the AWS files, by the name of its variable.
    pub fn setting(name: &str, why: impl fmt::Display) -> Self {
        Self::usage(format!("{name}: {why}"))
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
    /// Adds a line on what to try next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
    /// That damage is in the way: `verify` looks for it, but other commands fail.
    pub fn of_damage(mut self) -> Self {
        if self.status == Status::Damaged {
            self.status = Status::Failed;
        }
        self
    }
    /// As a temporary failure.
    pub fn for_now(mut self) -> Self {
        self.status = Status::TryAgain;
        self
    }
}

/// Removes the numbers of system errors, as in `No such file or directory (os error 2)`.
pub fn without_os_error(text: &str) -> String {
    let mut message = text.to_string();
    const START: &str = " (os error ";
    while let Some(at) = message.find(START) {
        let rest = &message[at + START.len()..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || !rest[digits..].starts_with(')') {
            break;
        }
        message.replace_range(at..at + START.len() + digits + 1, "");
    }
    message
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Characters of a line. The longest command that is printed has two keys of 1,024 bytes.
const MAX_LINE: usize = 4_000;

/// Text from a server or a file must not begin a line of its own, move the cursor, change the direction of
/// the text that follows, or fill the screen.
pub fn one_line(text: &str) -> String {
    let mut line: String =
        text.chars().take(MAX_LINE).map(|c| if is_invisible(c) { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(MAX_LINE).is_some() {
        line.push('…');
    }
    line
}

/// Control characters, and the format characters and line separators of Unicode, whose effects are invisible.
/// <https://www.unicode.org/reports/tr9/> describes those that change the direction.
pub fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_system_are_not_shown() {
        let message = without_os_error;
        assert_eq!(
            message("cannot read a: No such file or directory (os error 2); b (os error 17)"),
            "cannot read a: No such file or directory; b"
        );
        assert_eq!(message("a (os error x) (os error 2)"), "a (os error x) (os error 2)");
    }

    #[test]
    fn nothing_moves_the_cursor() {
        assert_eq!(one_line("a\u{1b}[2Jb\u{9b}2J\r\nc"), "a\u{fffd}[2Jb\u{fffd}2J\u{fffd}\u{fffd}c");
        assert_eq!(one_line("tank/ä b@1"), "tank/ä b@1");
    }

    #[test]
    fn invisible_reversing_and_endless_text_is_made_harmless() {
        assert_eq!(one_line("a\u{202e}b\u{2066}c\u{200b}d\u{feff}"), "a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}");
        assert_eq!(one_line(&"n".repeat(900_000)).chars().count(), 4_001);
    }
}
