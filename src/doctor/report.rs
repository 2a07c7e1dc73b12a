//! What the doctor has found: one line for each check. Pure.

use serde::Serialize;

use crate::error::{Error, one_line};
use crate::s3::failure::Failure;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// Something works less well than it could, or could not be checked.
    Warning,
    /// Something will fail.
    Error,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    pub level: Level,
    /// What was checked, such as `clock` or `s3:GetObject`.
    pub check: String,
    pub message: String,
    /// What to do.
    pub hints: Vec<String>,
}

impl Finding {
    fn new(level: Level, check: &str, message: impl Into<String>) -> Self {
        Finding { level, check: check.to_string(), message: message.into(), hints: Vec::new() }
    }
    pub fn ok(check: &str, message: impl Into<String>) -> Self {
        Self::new(Level::Ok, check, message)
    }
    pub fn warning(check: &str, message: impl Into<String>) -> Self {
        Self::new(Level::Warning, check, message)
    }
    pub fn error(check: &str, message: impl Into<String>) -> Self {
        Self::new(Level::Error, check, message)
    }
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
    /// A request failed, and not because it is forbidden.
    pub fn of_failure(level: Level, check: &str, failure: &Failure) -> Self {
        Finding { hints: failure.hints.clone(), ..Self::new(level, check, failure.describe()) }
    }
    /// What is needed for a check, or a part of it, failed.
    pub fn of_error(check: &str, error: &Error) -> Self {
        Finding { hints: error.hints.clone(), ..Self::new(Level::Error, check, error.message.clone()) }
    }
    /// A permission is missing, or something else is, as the server may say. `consequence`: a clause that
    /// begins with `so`.
    pub fn not_permitted(level: Level, action: &str, consequence: &str, failure: &Failure) -> Self {
        let (words, mut hints) = failure.reason();
        let words = words.map(|words| format!(" ({words})")).unwrap_or_default();
        if hints.is_empty() {
            hints.push(format!("allow {action}"));
        }
        Finding { hints, ..Self::new(level, action, format!("not permitted, {consequence}{words}")) }
    }
    /// A check is impossible without this permission.
    pub fn not_checked(check: &str, action: &str) -> Self {
        Self::warning(check, "not checked, because asking is not permitted").hint(format!("allow {action}"))
    }

    /// For a person. Text of servers and of zfs cannot begin a line of its own.
    pub fn text(&self) -> String {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        let mut text = format!("{level:<7}  {}: {}\n", one_line(&self.check), one_line(&self.message));
        for hint in &self.hints {
            text.push_str(&format!("         hint: {}\n", one_line(hint)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_and_its_hints_are_below_it() {
        assert_eq!(Finding::ok("clock", "right").text(), "ok       clock: right\n");
        let refused = |message: &str| {
            let body = format!("<Error><Code>AccessDenied</Code><Message>{message}</Message></Error>");
            let failure = Failure::reply("GET k".to_string(), false, 403, |_| None, body.as_bytes());
            Finding::not_permitted(Level::Error, "s3:GetObject", "so nothing can be restored", &failure)
                .text()
        };
        assert_eq!(
            refused("Access Denied"),
            "error    s3:GetObject: not permitted, so nothing can be restored\n         hint: allow s3:GetObject\n"
        );
        let by_policy = refused("… with an explicit deny in a resource-based policy");
        assert!(
            by_policy.contains("(… with an explicit deny") && by_policy.contains("ZFS2S3_SSE"),
            "{by_policy}"
        );
        let hostile = Finding::warning("a\nok  b", "c\u{1b}[2Jd").text();
        assert_eq!(hostile.lines().count(), 1, "{hostile}");
    }
}
