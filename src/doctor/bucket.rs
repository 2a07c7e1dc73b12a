//! The configuration of the bucket: versions, Object Lock, lifecycle rules.

use super::lifecycle;
use super::report::{Finding, Level};
use crate::model::lifecycle::Rule;
use crate::s3::calls::Configured;
use crate::s3::client::Client;
use crate::s3::configuration::{BucketLock, Versioning};
use crate::s3::failure::Failure;

/// What other checks depend on. None: unknown.
#[derive(Default)]
pub struct Bucket {
    pub versioning: Option<Versioning>,
    pub lock: Option<BucketLock>,
}

impl Bucket {
    /// Does it keep what is deleted?
    pub fn keeps_versions(&self) -> bool {
        matches!(self.versioning, Some(Versioning::Enabled | Versioning::Suspended))
            || self.lock.as_ref().is_some_and(|lock| lock.is_enabled)
    }

    pub fn has_lock(&self) -> bool {
        self.lock.as_ref().is_some_and(|lock| lock.is_enabled)
    }

    /// Is each new object protected, whether or not that was asked for?
    pub fn locks_everything(&self) -> bool {
        self.lock.as_ref().is_some_and(|lock| lock.default_retention.is_some())
    }
}

/// `lock_days`: ZFS2S3_LOCK_DAYS is set.
pub fn check(client: &Client, prefix: &str, lock_days: bool, findings: &mut Vec<Finding>) -> Bucket {
    let mut ask = Ask { is_aws: client.endpoint().is_aws(), findings };
    let versioning = ask.about("versioning", "s3:GetBucketVersioning", client.versioning());
    let lock = ask.about("Object Lock", "s3:GetBucketObjectLockConfiguration", client.bucket_lock());
    let rules = ask.about("lifecycle", "s3:GetLifecycleConfiguration", client.lifecycle_rules());
    findings.extend(versioning.map(|it| versioning_finding(it, rules.as_deref(), prefix)));
    findings.extend(lock.as_ref().map(|lock| lock_finding(lock, lock_days)));
    findings.extend(rules.iter().flat_map(|rules| lifecycle::judge(rules, prefix)));
    Bucket { versioning, lock }
}

struct Ask<'a> {
    is_aws: bool,
    findings: &'a mut Vec<Finding>,
}

impl Ask<'_> {
    fn about<T>(&mut self, check: &str, action: &str, answer: Result<Configured<T>, Failure>) -> Option<T> {
        match answer {
            Ok(Configured::Known(known)) => return Some(known),
            Ok(Configured::Forbidden) => self.findings.push(Finding::not_checked(check, action)),
            Ok(Configured::NotSupported(why)) if self.is_aws => {
                self.findings.push(Finding::warning(check, why).hint("is there a proxy in between?"));
            }
            Ok(Configured::NotSupported(_)) => {
                self.findings.push(Finding::ok(check, "not supported by this server"));
            }
            Err(failure) => self.findings.push(Finding::of_failure(Level::Warning, check, &failure)),
        }
        None
    }
}

fn versioning_finding(versioning: Versioning, rules: Option<&[Rule]>, prefix: &str) -> Finding {
    const CHECK: &str = "versioning";
    let state = match versioning {
        Versioning::Never => return Finding::ok(CHECK, "off, so what is removed is gone at once"),
        Versioning::Enabled => "on",
        Versioning::Suspended => "suspended",
    };
    match rules.map(|rules| lifecycle::versions_kept(rules, prefix)) {
        Some(Some(days)) => {
            Finding::ok(CHECK, format!("{state}, so what is removed is kept for {days} more days"))
        }
        Some(None) => Finding::warning(
            CHECK,
            format!(
                "{state}, and no lifecycle rule deletes old versions: removed backups are kept and billed"
            ),
        )
        .hint("add a rule with NoncurrentVersionExpiration, for example after 30 days"),
        None => Finding::ok(CHECK, format!("{state}, so what is removed is kept")),
    }
}

fn lock_finding(lock: &BucketLock, lock_days: bool) -> Finding {
    const CHECK: &str = "Object Lock";
    match (lock.is_enabled, &lock.default_retention) {
        (false, _) if lock_days => {
            Finding::error(CHECK, "the bucket has none, so uploads with ZFS2S3_LOCK_DAYS fail")
                .hint("unset ZFS2S3_LOCK_DAYS, or enable Object Lock for the bucket")
        }
        (false, _) => Finding::ok(CHECK, "none"),
        (true, None) => Finding::ok(CHECK, "enabled; only uploads with -l or ZFS2S3_LOCK_DAYS are protected"),
        (true, Some(retention)) => Finding::ok(
            CHECK,
            format!("each new object is protected for {retention}; until then, 'remove' refuses"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::lifecycle::Action;

    #[test]
    fn versions_that_nothing_deletes_are_worth_a_warning() {
        let rule = Rule {
            id: String::new(),
            prefix: String::new(),
            needs_tag: false,
            larger_than: 0,
            actions: vec![Action::ExpireVersions(30)],
        };
        let level = |versioning, rules| versioning_finding(versioning, rules, "nas/").level;
        assert_eq!(level(Versioning::Never, Some(&[][..])), Level::Ok);
        assert_eq!(level(Versioning::Enabled, Some(&[][..])), Level::Warning);
        assert_eq!(level(Versioning::Suspended, Some(&[][..])), Level::Warning);
        assert_eq!(level(Versioning::Enabled, Some(std::slice::from_ref(&rule))), Level::Ok);
        assert_eq!(level(Versioning::Enabled, None), Level::Ok, "the rules are unknown");
    }

    #[test]
    fn a_lock_that_uploads_ask_for_must_be_possible() {
        let lock = |is_enabled, retention: Option<&str>| BucketLock {
            is_enabled,
            default_retention: retention.map(str::to_string),
        };
        assert_eq!(lock_finding(&lock(false, None), false).level, Level::Ok);
        assert_eq!(lock_finding(&lock(false, None), true).level, Level::Error);
        assert_eq!(lock_finding(&lock(true, None), true).level, Level::Ok);
        let all = lock_finding(&lock(true, Some("30 days (GOVERNANCE)")), false);
        assert!(all.message.contains("30 days (GOVERNANCE)"), "{all:?}");
    }
}
