//! The configuration of the bucket: versions, Object Lock, lifecycle rules.

use super::lifecycle;
use super::report::{Finding, Level};
use crate::model::lifecycle::Rule;
use crate::model::units::count;
use crate::s3::calls::Configured;
use crate::s3::client::Client;
use crate::s3::configuration::{BucketLock, BucketVersioning, Versioning};
use crate::s3::failure::Failure;

/// What other checks depend on. None: unknown.
#[derive(Default)]
pub struct Bucket {
    versioning: Option<BucketVersioning>,
    lock: Option<BucketLock>,
}

/// Does the bucket keep what is deleted?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versions {
    None,
    Kept,
    Unknown,
}

impl Bucket {
    pub fn versions(&self) -> Versions {
        match self.versioning.map(|versioning| versioning.status) {
            _ if self.has_lock() => Versions::Kept,
            Some(Versioning::Never) => Versions::None,
            Some(Versioning::Enabled | Versioning::Suspended) => Versions::Kept,
            None => Versions::Unknown,
        }
    }

    /// Does deleting a version require a code of a device?
    pub fn needs_mfa(&self) -> bool {
        self.versioning.is_some_and(|versioning| versioning.mfa_delete)
    }

    pub fn has_lock(&self) -> bool {
        self.lock.as_ref().is_some_and(|lock| lock.is_enabled)
    }

    /// Is each new object protected, whether or not that was asked for? None: unknown. Without versions there
    /// is no Object Lock.
    pub fn locks_everything(&self) -> Option<bool> {
        match &self.lock {
            Some(lock) => Some(lock.default_retention.is_some()),
            None => (self.versions() == Versions::None).then_some(false),
        }
    }
}

/// `names`: those of snapshots and datasets whose backups are, or may be, in the bucket, if all are known.
/// `lock_days`: ZFS2S3_LOCK_DAYS is set.
pub fn check(
    client: &Client,
    prefix: &str,
    names: Option<&[String]>,
    lock_days: bool,
    findings: &mut Vec<Finding>,
) -> Bucket {
    let is_aws = client.endpoint().is_aws();
    let mut ask = Ask { is_aws, findings };
    let versioning = ask.about("versioning", "s3:GetBucketVersioning", client.versioning());
    let lock = ask.about("Object Lock", "s3:GetBucketObjectLockConfiguration", client.bucket_lock());
    let rules = ask.about("lifecycle", "s3:GetLifecycleConfiguration", client.lifecycle_rules());
    let rules = rules.known_or(None);
    if let Reply::Known(versioning) = &versioning {
        findings.push(versioning_finding(versioning, rules.as_deref(), prefix));
    }
    findings.extend(lock_finding(&lock, lock_days));
    findings.extend(rules.iter().flat_map(|rules| lifecycle::judge(rules, prefix, names)));
    // another server than AWS has none if it cannot say so
    let never = BucketVersioning { status: Versioning::Never, mfa_delete: false };
    Bucket { versioning: versioning.known_or(Some(never)), lock: lock.known_or(Some(BucketLock::default())) }
}

enum Reply<T> {
    Known(T),
    /// Another server than AWS does not have it.
    NotSupported,
    Unknown,
}

impl<T> Reply<T> {
    /// What is known; `not_supported`: what follows from that.
    fn known_or(self, not_supported: Option<T>) -> Option<T> {
        match self {
            Reply::Known(known) => Some(known),
            Reply::NotSupported => not_supported,
            Reply::Unknown => None,
        }
    }
}

struct Ask<'a> {
    is_aws: bool,
    findings: &'a mut Vec<Finding>,
}

impl Ask<'_> {
    fn about<T>(&mut self, check: &str, action: &str, answer: Result<Configured<T>, Failure>) -> Reply<T> {
        let finding = match answer {
            Ok(Configured::Known(known)) => return Reply::Known(known),
            Ok(Configured::NotSupported(_)) if !self.is_aws => {
                self.findings.push(Finding::ok(check, "not supported by this server"));
                return Reply::NotSupported;
            }
            Ok(Configured::Forbidden) => Finding::not_checked(check, action),
            Ok(Configured::NotSupported(why) | Configured::Unreadable(why)) => {
                Finding::warning(check, format!("not checked: {why}"))
                    .hint("an access point or a proxy may not pass this request on")
            }
            Err(failure) => Finding::of_failure(Level::Warning, check, &failure),
        };
        self.findings.push(finding);
        Reply::Unknown
    }
}

fn versioning_finding(versioning: &BucketVersioning, rules: Option<&[Rule]>, prefix: &str) -> Finding {
    const CHECK: &str = "versioning";
    let (state, kept) = match versioning.status {
        Versioning::Never => return Finding::ok(CHECK, "off, so what is removed is gone at once"),
        Versioning::Enabled => ("on", "what is removed is kept"),
        Versioning::Suspended => (
            "suspended, so what was stored since is deleted permanently when it is removed",
            "older versions are kept",
        ),
    };
    match rules.map(|rules| lifecycle::versions_kept(rules, prefix)) {
        Some(Some(days)) => {
            Finding::ok(CHECK, format!("{state}; {kept} for {}", count(u64::from(days), "day")))
        }
        Some(None) => Finding::warning(
            CHECK,
            format!("{state}; {kept} and billed, because no lifecycle rule deletes old versions"),
        )
        .hint(format!(
            "add a rule with NoncurrentVersionExpiration for the prefix '{prefix}', for example after 30 days"
        )),
        None => Finding::ok(CHECK, format!("{state}; {kept}")),
    }
}

fn lock_finding(lock: &Reply<BucketLock>, lock_days: bool) -> Option<Finding> {
    const CHECK: &str = "Object Lock";
    let none = BucketLock::default();
    let lock = match lock {
        Reply::Known(lock) => lock,
        Reply::NotSupported if lock_days => &none,
        Reply::NotSupported | Reply::Unknown => return None,
    };
    Some(match (lock.is_enabled, &lock.default_retention) {
        (false, _) if lock_days => {
            Finding::error(CHECK, "the bucket has none, so uploads with ZFS2S3_LOCK_DAYS fail")
                .hint("unset ZFS2S3_LOCK_DAYS, or enable Object Lock for the bucket")
        }
        (false, _) => Finding::ok(CHECK, "none"),
        (true, None) => Finding::ok(CHECK, "enabled; only uploads with -l or ZFS2S3_LOCK_DAYS are protected"),
        (true, Some(retention)) => Finding::ok(
            CHECK,
            format!(
                "each new object is protected for {retention}; until then, 'remove' refuses to delete it"
            ),
        ),
    })
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
            smaller_than: None,
            actions: vec![Action::ExpireVersions(30)],
        };
        let level = |status, rules| {
            versioning_finding(&BucketVersioning { status, mfa_delete: false }, rules, "nas/").level
        };
        assert_eq!(level(Versioning::Never, Some(&[][..])), Level::Ok);
        assert_eq!(level(Versioning::Enabled, Some(&[][..])), Level::Warning);
        assert_eq!(level(Versioning::Suspended, Some(&[][..])), Level::Warning);
        assert_eq!(level(Versioning::Enabled, Some(std::slice::from_ref(&rule))), Level::Ok);
        assert_eq!(level(Versioning::Enabled, None), Level::Ok, "the rules are unknown");
    }

    #[test]
    fn a_lock_that_uploads_ask_for_must_be_possible() {
        let lock = |is_enabled, retention: Option<&str>| {
            Reply::Known(BucketLock { is_enabled, default_retention: retention.map(str::to_string) })
        };
        let level = |lock, days| lock_finding(&lock, days).unwrap().level;
        assert_eq!(level(lock(false, None), false), Level::Ok);
        assert_eq!(level(lock(false, None), true), Level::Error);
        assert_eq!(level(Reply::NotSupported, true), Level::Error);
        assert_eq!(level(lock(true, None), true), Level::Ok);
        let all = lock_finding(&lock(true, Some("30 days (GOVERNANCE)")), false).unwrap();
        assert!(all.message.contains("30 days (GOVERNANCE)"), "{all:?}");
    }

    #[test]
    fn what_is_not_known_is_not_taken_for_none() {
        let versioning = |status| Some(BucketVersioning { status, mfa_delete: false });
        let lock = |is_enabled, default: Option<&str>| {
            Some(BucketLock { is_enabled, default_retention: default.map(str::to_string) })
        };
        for (versioning, lock, versions, locks) in [
            (None, None, Versions::Unknown, None),
            (None, lock(false, None), Versions::Unknown, Some(false)),
            (None, lock(true, None), Versions::Kept, Some(false)),
            (versioning(Versioning::Never), None, Versions::None, Some(false)),
            (versioning(Versioning::Enabled), None, Versions::Kept, None),
            (versioning(Versioning::Suspended), lock(false, None), Versions::Kept, Some(false)),
            (versioning(Versioning::Enabled), lock(true, Some("1 day")), Versions::Kept, Some(true)),
        ] {
            let bucket = Bucket { versioning, lock };
            assert_eq!((bucket.versions(), bucket.locks_everything()), (versions, locks));
        }
    }
}
