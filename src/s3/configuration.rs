//! The replies about the configuration of a bucket, as types. Pure. A server without one of these calls may
//! answer anything, so that what is not as documented is an error.

use serde::Deserialize;

use super::reply::parse_named;
use crate::model::lifecycle::{Action, Rule, When};
use crate::model::storage_class::StorageClass;

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketVersioning.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketVersioning {
    pub status: Versioning,
    /// A version can be deleted only with a code of a device.
    pub mfa_delete: bool,
}

/// Does the bucket keep versions?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versioning {
    Never,
    Enabled,
    /// No new ones, but those that it has.
    Suspended,
}

pub fn versioning(body: &[u8]) -> Result<BucketVersioning, String> {
    #[derive(Deserialize)]
    struct Configuration {
        #[serde(rename = "Status")]
        status: Option<String>,
        #[serde(rename = "MfaDelete")]
        mfa_delete: Option<String>,
    }
    // moto has another name for it
    let read: Configuration = parse_named(body, "VersioningConfiguration")
        .or_else(|why| parse_named(body, "GetBucketVersioning").map_err(|_| why))?;
    let status = match read.status.as_deref() {
        Some("Enabled") => Versioning::Enabled,
        Some("Suspended") => Versioning::Suspended,
        None | Some("") => Versioning::Never,
        Some(other) => return Err(format!("the status '{other}' is not documented")),
    };
    Ok(BucketVersioning { status, mfa_delete: read.mfa_delete.as_deref() == Some("Enabled") })
}

/// The Object Lock of a bucket.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObjectLockConfiguration.html>
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketLock {
    pub is_enabled: bool,
    /// The retention that each new object gets, such as `30 days (GOVERNANCE)`.
    pub default_retention: Option<String>,
}

pub fn bucket_lock(body: &[u8]) -> Result<BucketLock, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Configuration {
        object_lock_enabled: String,
        rule: Option<LockRule>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct LockRule {
        default_retention: Option<Default>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Default {
        #[serde(default)]
        mode: String,
        days: Option<u32>,
        years: Option<u32>,
    }
    let read: Configuration = parse_named(body, "ObjectLockConfiguration")?;
    let words = |Default { mode, days, years }| {
        let time = match (days, years) {
            (Some(1), _) => "1 day".to_string(),
            (Some(days), _) => format!("{days} days"),
            (None, Some(1)) => "1 year".to_string(),
            (None, Some(years)) => format!("{years} years"),
            (None, None) => "an unknown time".to_string(),
        };
        format!("{time} ({mode})")
    };
    Ok(BucketLock {
        is_enabled: read.object_lock_enabled == "Enabled",
        default_retention: read.rule.and_then(|rule| rule.default_retention).map(words),
    })
}

/// The enabled rules.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketLifecycleConfiguration.html>
pub fn lifecycle(body: &[u8]) -> Result<Vec<Rule>, String> {
    #[derive(Deserialize)]
    struct Configuration {
        #[serde(rename = "Rule", default)]
        rules: Vec<Listed>,
    }
    let read: Configuration = parse_named(body, "LifecycleConfiguration")?;
    read.rules.into_iter().filter(|rule| rule.status.trim() == "Enabled").map(Listed::rule).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    #[serde(rename = "ID", default)]
    id: String,
    status: String,
    /// As in rules of before 2016.
    prefix: Option<String>,
    filter: Option<Filter>,
    expiration: Option<Term>,
    #[serde(rename = "Transition", default)]
    transitions: Vec<Term>,
    noncurrent_version_expiration: Option<Noncurrent>,
    abort_incomplete_multipart_upload: Option<Abort>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Filter {
    prefix: Option<String>,
    tag: Option<serde::de::IgnoredAny>,
    object_size_greater_than: Option<u64>,
    object_size_less_than: Option<u64>,
    and: Option<Conditions>,
}

/// All of them must be met.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Conditions {
    prefix: Option<String>,
    #[serde(rename = "Tag")]
    tags: Vec<serde::de::IgnoredAny>,
    object_size_greater_than: Option<u64>,
    object_size_less_than: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Term {
    days: Option<u32>,
    date: Option<String>,
    storage_class: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Noncurrent {
    #[serde(default)]
    noncurrent_days: u32,
    /// So many are kept whatever their age.
    #[serde(default)]
    newer_noncurrent_versions: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Abort {
    days_after_initiation: u32,
}

impl Term {
    /// None: it is only for delete markers that hide nothing.
    fn when(&self) -> Option<When> {
        self.days.map(When::Days).or_else(|| self.date.clone().map(When::Date))
    }
}

impl Listed {
    fn rule(self) -> Result<Rule, String> {
        let filter = self.filter.unwrap_or_default();
        let and = filter.and.unwrap_or_default();
        let mut actions = Vec::new();
        actions.extend(self.expiration.and_then(|term| term.when()).map(Action::Expire));
        for term in self.transitions {
            match (term.when(), &term.storage_class) {
                (Some(when), Some(class)) => actions.push(Action::Transition(when, StorageClass::of(class))),
                _ => return Err(format!("a transition of the rule '{}' is incomplete", self.id)),
            }
        }
        // keys are not used twice, so an object has one version that is not current, and that is then kept
        let noncurrent = self.noncurrent_version_expiration.filter(|it| it.newer_noncurrent_versions == 0);
        actions.extend(noncurrent.map(|it| Action::ExpireVersions(it.noncurrent_days)));
        let abort = self.abort_incomplete_multipart_upload;
        actions.extend(abort.map(|it| Action::AbortUploads(it.days_after_initiation)));
        Ok(Rule {
            id: self.id,
            prefix: filter.prefix.or(and.prefix).or(self.prefix).unwrap_or_default(),
            needs_tag: filter.tag.is_some() || !and.tags.is_empty(),
            larger_than: filter.object_size_greater_than.or(and.object_size_greater_than).unwrap_or(0),
            smaller_than: filter.object_size_less_than.or(and.object_size_less_than),
            actions,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_as_s3_writes_them() {
        let body = br#"<?xml version="1.0" encoding="UTF-8"?>
<LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
<Rule><ID>a &amp; b</ID><Filter><Prefix>nas/</Prefix></Filter><Status>Enabled</Status><Expiration><Days>30</Days></Expiration>
<Transition><Days>1</Days><StorageClass>STANDARD_IA</StorageClass></Transition>
<Transition><Date>2027-01-01T00:00:00.000Z</Date><StorageClass>GLACIER</StorageClass></Transition></Rule>
<Rule><Status>Enabled</Status><Prefix>old/</Prefix><NoncurrentVersionExpiration><NoncurrentDays>7</NoncurrentDays></NoncurrentVersionExpiration>
<AbortIncompleteMultipartUpload><DaysAfterInitiation>3</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule>
<Rule><ID>tagged</ID><Filter><And><Prefix>x/</Prefix><Tag><Key>k</Key><Value>v</Value></Tag><Tag><Key>k</Key><Value>v</Value></Tag>
<ObjectSizeGreaterThan>131072</ObjectSizeGreaterThan></And></Filter><Status>Enabled</Status><Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration></Rule>
<Rule><ID>off</ID><Filter/><Status>Disabled</Status><Expiration><Days>1</Days></Expiration></Rule>
<Rule><ID>kept</ID><Filter/><Status>Enabled</Status><NoncurrentVersionExpiration><NoncurrentDays>7</NoncurrentDays>
<NewerNoncurrentVersions>2</NewerNoncurrentVersions></NoncurrentVersionExpiration></Rule>
<Rule><ID>one</ID><Filter><Tag><Key>k</Key><Value>v</Value></Tag></Filter><Status>Enabled</Status></Rule>
</LifecycleConfiguration>"#;
        let rule = |id: &str, prefix: &str, needs_tag, larger_than, actions: &[Action]| Rule {
            id: id.to_string(),
            prefix: prefix.to_string(),
            needs_tag,
            larger_than,
            smaller_than: None,
            actions: actions.to_vec(),
        };
        let moved = |when, class| Action::Transition(when, StorageClass::of(class));
        let date = When::Date("2027-01-01T00:00:00.000Z".to_string());
        assert_eq!(
            lifecycle(body).unwrap(),
            [
                rule(
                    "a & b",
                    "nas/",
                    false,
                    0,
                    &[
                        Action::Expire(When::Days(30)),
                        moved(When::Days(1), "STANDARD_IA"),
                        moved(date, "GLACIER")
                    ]
                ),
                rule("", "old/", false, 0, &[Action::ExpireVersions(7), Action::AbortUploads(3)]),
                rule("tagged", "x/", true, 131_072, &[]),
                rule("kept", "", false, 0, &[]),
                rule("one", "", true, 0, &[]),
            ]
        );
        assert_eq!(lifecycle(b"<LifecycleConfiguration/>"), Ok(vec![]));
        for not_it in ["<ListBucketResult/>", "", "<html></html>"] {
            assert!(lifecycle(not_it.as_bytes()).is_err(), "{not_it}");
        }
    }

    #[test]
    fn versioning_as_s3_writes_it() {
        let of = |inner: &str| {
            let xml = format!("<VersioningConfiguration>{inner}</VersioningConfiguration>");
            versioning(xml.as_bytes()).map(|read| (read.status, read.mfa_delete))
        };
        assert_eq!(of(""), Ok((Versioning::Never, false)));
        let enabled = |mfa| of(&format!("<Status>Enabled</Status><MfaDelete>{mfa}</MfaDelete>"));
        assert_eq!(enabled("Disabled"), Ok((Versioning::Enabled, false)));
        assert_eq!(enabled("Enabled"), Ok((Versioning::Enabled, true)));
        assert_eq!(of("<Status>Suspended</Status>"), Ok((Versioning::Suspended, false)));
        assert!(of("<Status>Maybe</Status>").is_err() && versioning(b"<ListBucketResult/>").is_err());
    }

    #[test]
    fn locks_as_s3_writes_them() {
        let of = |inner: &str| {
            let xml = format!("<ObjectLockConfiguration>{inner}</ObjectLockConfiguration>");
            bucket_lock(xml.as_bytes()).map(|lock| (lock.is_enabled, lock.default_retention))
        };
        let enabled = "<ObjectLockEnabled>Enabled</ObjectLockEnabled>";
        assert_eq!(of(enabled), Ok((true, None)));
        let with = |default: &str| {
            of(&format!("{enabled}<Rule><DefaultRetention>{default}</DefaultRetention></Rule>")).unwrap().1
        };
        assert_eq!(with("<Mode>GOVERNANCE</Mode><Days>30</Days>").unwrap(), "30 days (GOVERNANCE)");
        assert_eq!(with("<Years>1</Years><Mode>COMPLIANCE</Mode>").unwrap(), "1 year (COMPLIANCE)");
        assert!(of("").is_err());
    }
}
