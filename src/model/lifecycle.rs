//! The lifecycle rules of a bucket. Pure.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/intro-lifecycle-rules.html>

use std::fmt;

use crate::model::storage_class::StorageClass;

/// A rule that is enabled.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Empty if it has none.
    pub id: String,
    /// It applies to the keys that begin with this.
    pub prefix: String,
    /// It applies only to objects with a tag, which those of zfs2s3 do not have.
    pub needs_tag: bool,
    /// Bytes: it applies only to larger objects.
    pub larger_than: u64,
    /// Bytes: and to smaller ones.
    pub smaller_than: Option<u64>,
    pub actions: Vec<Action>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Deletes objects; if the bucket has versions, hides them behind delete markers.
    Expire(When),
    /// Moves objects to another storage class.
    Transition(When, StorageClass),
    /// Deletes versions that have not been current for so many days.
    ExpireVersions(u32),
    /// Aborts multipart uploads that have been open for so many days.
    AbortUploads(u32),
}

#[derive(Clone, Debug, PartialEq)]
pub enum When {
    /// At this age.
    Days(u32),
    /// All at once, at this time, as S3 writes it.
    Date(String),
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            When::Days(1) => f.write_str("after 1 day"),
            When::Days(days) => write!(f, "after {days} days"),
            When::Date(date) => write!(f, "on {}", date.get(..10).unwrap_or(date)),
        }
    }
}

impl Rule {
    /// May it apply to objects of a store with this prefix? `names`: those of the snapshots that it has, and of
    /// the datasets whose snapshots it may get; with them the keys begin. None: they are not all known.
    pub fn applies_to(&self, prefix: &str, names: Option<&[String]>) -> bool {
        let is_of = |rest: &str| {
            let mut names = names.into_iter().flatten();
            names.any(|name| name.starts_with(rest) || rest.starts_with(name.as_str()))
        };
        let applies = match self.prefix.strip_prefix(prefix) {
            Some(rest) => rest.is_empty() || names.is_none() || is_of(rest),
            None => prefix.starts_with(&self.prefix),
        };
        applies && !self.needs_tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_applies_to_a_store_if_they_have_keys_in_common() {
        let names = ["tank/home@a".to_string(), "tank/src".to_string()];
        let applies = |rule: &str, store: &str, needs_tag| {
            let rule = Rule {
                id: String::new(),
                prefix: rule.to_string(),
                needs_tag,
                larger_than: 0,
                smaller_than: None,
                actions: vec![],
            };
            rule.applies_to(store, Some(&names))
        };
        for (rule, store) in [
            ("", ""),
            ("", "nas/"),
            ("nas/", "nas/"),
            ("n", "nas/"),
            ("nas/tank/", "nas/"),
            ("tank", ""),
            ("tank/home@", ""),
            ("tank/src@2026-", ""),
        ] {
            assert!(applies(rule, store, false), "{rule} {store}");
            assert!(!applies(rule, store, true), "{rule} {store}, for tagged objects");
        }
        let logs = Rule {
            id: String::new(),
            prefix: "logs/".to_string(),
            needs_tag: false,
            larger_than: 0,
            smaller_than: None,
            actions: vec![],
        };
        assert!(logs.applies_to("", None) && !logs.applies_to("", Some(&[])), "if names are unknown");
        for (rule, store) in [("tmp/", "nas/"), ("nas2/", "nas/"), ("logs/", ""), ("nas/logs/", "nas/")] {
            assert!(!applies(rule, store, false), "{rule} {store}");
        }
    }

    #[test]
    fn when_in_words() {
        let words = [When::Days(1), When::Days(30), When::Date("2027-01-01T00:00:00.000Z".to_string())];
        assert_eq!(words.map(|when| when.to_string()), ["after 1 day", "after 30 days", "on 2027-01-01"]);
    }
}
