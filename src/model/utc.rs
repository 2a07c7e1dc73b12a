//! Points in time, to the second, in UTC; RFC 3339 in files and on the screen. Pure: the current time is an
//! argument.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Utc(OffsetDateTime);

impl Utc {
    /// Drops the fraction of a second.
    pub fn of(time: OffsetDateTime) -> Self {
        Utc(time.replace_nanosecond(0).unwrap_or(time))
    }
    pub fn unix_seconds(self) -> i64 {
        self.0.unix_timestamp()
    }
    /// None: out of range.
    pub fn from_unix_seconds(seconds: i64) -> Option<Self> {
        OffsetDateTime::from_unix_timestamp(seconds).ok().map(Utc)
    }
    pub fn date_time(self) -> OffsetDateTime {
        self.0
    }
    /// Accepts RFC 3339 and ISO 8601: `+0000` and `+00:00` are the same, and seconds may have a fraction.
    pub fn lenient(text: &str) -> Result<Self, String> {
        let mut text = text.trim().replacen(' ', "T", 1);
        let bytes = text.as_bytes();
        // an offset without a colon
        if let Some(at) = bytes.len().checked_sub(5).filter(|at| matches!(bytes[*at], b'+' | b'-'))
            && bytes[at + 1..].iter().all(u8::is_ascii_digit)
        {
            text.insert(at + 3, ':');
        }
        Utc::try_from(text)
    }
    /// As a user writes it: a day, which begins at midnight UTC, or a time.
    pub fn from_date(text: &str) -> Result<Self, String> {
        if text.len() == 10 { Utc::try_from(format!("{text}T00:00:00Z")) } else { Utc::lenient(text) }
            .map(|time| Utc::of(time.0))
            .map_err(|_| format!("'{text}' is neither a date, such as 2026-12-31, nor a time"))
    }
    /// None: out of range.
    pub fn plus_days(self, days: u32) -> Option<Self> {
        self.0.checked_add(time::Duration::days(i64::from(days))).map(Utc)
    }
    /// As HTTP writes it: `Fri, 21 Dec 2012 00:00:00 GMT`.
    pub fn from_http(text: &str) -> Result<Self, String> {
        let time =
            OffsetDateTime::parse(text, &Rfc2822).map_err(|e| format!("'{text}' is not a time: {e}"))?;
        Ok(Utc::of(time.to_offset(time::UtcOffset::UTC)))
    }
    /// `2026-11-23 16:32`, for tables.
    pub fn to_minute(self) -> String {
        self.to_string().replacen('T', " ", 1).chars().take(16).collect()
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

impl From<Utc> for String {
    fn from(utc: Utc) -> String {
        utc.to_string()
    }
}

impl TryFrom<String> for Utc {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let bad = |why: &dyn fmt::Display| format!("'{text}' is not a time: {why}");
        let parsed = OffsetDateTime::parse(&text, &Rfc3339).map_err(|e| bad(&e))?;
        let utc = parsed.checked_to_offset(time::UtcOffset::UTC).filter(|t| (1..=9999).contains(&t.year()));
        utc.map(Utc).ok_or_else(|| bad(&"out of range"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_rfc_3339() {
        let utc = Utc::try_from("2026-11-23T17:32:35+01:00".to_string()).unwrap();
        assert_eq!(utc.to_string(), "2026-11-23T16:32:35Z");
        assert_eq!(utc.to_minute(), "2026-11-23 16:32");
        assert_eq!(utc.unix_seconds(), 1_795_451_555);
        for text in [
            "2026-11-23T16:32:35+0000",
            "2026-11-23T17:32:35+0100",
            "2026-11-23T16:32:35.123456Z",
            "   2026-11-23 17:32:35+0100 ",
        ] {
            assert_eq!(Utc::lenient(text).unwrap().unix_seconds(), utc.unix_seconds(), "{text}");
        }
        assert_eq!(Utc::from_date("2026-11-23").unwrap().to_string(), "2026-11-23T00:00:00Z");
        assert_eq!(Utc::from_date("2026-11-23T17:32:35+01:00").unwrap(), utc);
        assert!(Utc::from_date("2026-13-01").is_err() && Utc::from_date("tomorrow").is_err());
        assert_eq!(utc.plus_days(8).unwrap().to_string(), "2026-12-01T16:32:35Z");
        assert!(Utc::lenient("soon-0000").is_err() && Utc::lenient("").is_err());
        for bad in
            ["yesterday", "9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00+01:00", "0000-06-01T00:00:00Z"]
        {
            assert!(Utc::try_from(bad.to_string()).is_err(), "{bad}");
        }
    }
}
