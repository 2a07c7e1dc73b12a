//! What protects an object from deletion. Pure.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html>

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::utc::Utc;

/// Who may end a retention early: with the right permission, or nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Mode {
    Governance,
    Compliance,
}

impl FromStr for Mode {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_uppercase().as_str() {
            "GOVERNANCE" => Ok(Mode::Governance),
            "COMPLIANCE" => Ok(Mode::Compliance),
            _ => Err(format!("'{text}' is not a mode: it is GOVERNANCE or COMPLIANCE")),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Governance => "GOVERNANCE",
            Mode::Compliance => "COMPLIANCE",
        })
    }
}

serialize_as_text!(Mode);

/// The object cannot be deleted before a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    pub mode: Mode,
    pub until: Utc,
}

/// The end of a protection, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProtectedUntil {
    Time(Utc),
    /// It has no known end.
    Unknown,
}

/// The protection of an object, as HEAD shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectLock {
    pub retention: Option<Retention>,
    /// A retention that this version cannot read, as S3 writes it.
    unreadable: Option<String>,
    /// It has no end.
    pub legal_hold: bool,
}

impl ObjectLock {
    /// By the headers `x-amz-object-lock-mode`, `-retain-until-date` and `-legal-hold`.
    pub fn of(mode: Option<&str>, until: Option<&str>, legal_hold: Option<&str>) -> Self {
        let words: Vec<&str> = mode.into_iter().chain(until).collect();
        let mode = mode.and_then(|text| text.parse().ok());
        let until = until.and_then(|text| Utc::lenient(text).ok());
        let retention = mode.zip(until).map(|(mode, until)| Retention { mode, until });
        ObjectLock {
            retention,
            unreadable: (retention.is_none() && !words.is_empty()).then(|| words.join(" ")),
            legal_hold: legal_hold.is_some_and(|text| text.eq_ignore_ascii_case("ON")),
        }
    }

    /// Until when it is protected; the latest is without an end.
    pub fn end(&self) -> Option<ProtectedUntil> {
        if self.legal_hold || self.unreadable.is_some() {
            return Some(ProtectedUntil::Unknown);
        }
        self.retention.map(|retention| ProtectedUntil::Time(retention.until))
    }

    /// What protects it now, in words; none: nothing.
    pub fn protection(&self, now: Utc) -> Option<String> {
        match self {
            ObjectLock { legal_hold: true, .. } => Some("by a legal hold".to_string()),
            ObjectLock { unreadable: Some(words), .. } => {
                Some(format!("by an Object Lock that this version does not know ({words:?})"))
            }
            ObjectLock { retention: Some(Retention { mode, until }), .. } if *until > now => {
                Some(format!("until {until} by an Object Lock ({mode})"))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_protects_an_object() {
        let now = Utc::try_from("2026-01-01T00:00:00Z".to_string()).unwrap();
        let words = |mode, until, hold| ObjectLock::of(mode, until, hold).protection(now);
        assert_eq!(words(None, None, None), None);
        assert_eq!(
            words(Some("COMPLIANCE"), Some("2026-01-01T00:00:01.000Z"), None).unwrap(),
            "until 2026-01-01T00:00:01Z by an Object Lock (COMPLIANCE)"
        );
        assert_eq!(
            words(Some("GOVERNANCE"), Some("2026-01-01T00:00:00Z"), Some("OFF")),
            None,
            "it has ended"
        );
        assert_eq!(words(None, None, Some("ON")).unwrap(), "by a legal hold");
        for (mode, until) in [(Some("NEW"), Some("2027-01-01T00:00:00Z")), (Some("COMPLIANCE"), Some("soon"))]
        {
            let said = words(mode, until, None).unwrap();
            assert!(said.contains("does not know") && said.contains(until.unwrap()), "{said}");
        }
        assert!("soft".parse::<Mode>().is_err());
    }
}
