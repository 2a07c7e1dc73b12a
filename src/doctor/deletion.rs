//! What the credentials may delete. It is found out before anything is written, so that nothing is written
//! that would stay: with a key that has no object, and where a delete marker could not be deleted, with a
//! condition that nothing meets.

use super::bucket::Versions;
use super::probes::{Answer, Probes, answer, of_permission};
use super::report::{Finding, Level};
use crate::s3::failure::Failure;

const OBJECT: &str = "s3:DeleteObject";
const VERSION: &str = "s3:DeleteObjectVersion";
const LIST_VERSIONS: &str = "s3:ListBucketVersions";

/// Why no probe object may be written.
pub type Obstacle = &'static str;

impl Probes<'_> {
    /// None: an object can be written, and deleted without a trace.
    pub fn deletion(&self, findings: &mut Vec<Finding>) -> Option<Obstacle> {
        let versions = self.bucket.versions();
        let may_delete_versions = match versions {
            Versions::Kept => self.may_list_versions(findings) & self.may_delete_versions(findings),
            Versions::None | Versions::Unknown => false,
        };
        let objects = self.may_delete_objects(may_delete_versions, findings);
        match (self.bucket.locks_everything(), versions) {
            (Some(true), _) => Some("the bucket protects each object from deletion"),
            (_, Versions::Unknown) => Some("it is unknown whether the bucket keeps versions"),
            (None, _) => Some("it is unknown whether the bucket protects objects from deletion"),
            (_, Versions::Kept) if !may_delete_versions => Some("its version could not be deleted"),
            (_, Versions::None) if objects == Ok(Made::Marker) => Some("the server keeps versions after all"),
            _ if objects.is_err() => Some("it could not be deleted"),
            _ => None,
        }
    }

    fn may_delete_objects(&self, may_delete_versions: bool, findings: &mut Vec<Finding>) -> Result<Made, ()> {
        const CONDITION: Option<&str> = Some("\"zfs2s3\"");
        let tried = match self.bucket.versions() {
            Versions::None => match self.delete_absent(None) {
                // the policy of a bucket may allow only conditional deletes
                Err(failure) if failure.says_forbidden() => {
                    self.delete_absent(CONDITION).map_err(|_| failure)
                }
                tried => tried,
            },
            Versions::Kept if may_delete_versions => {
                self.delete_absent(CONDITION).or_else(|_| self.delete_absent(None))
            }
            // AWS makes no delete marker if the condition is not met
            _ if self.client.endpoint().is_aws() => self.delete_absent(CONDITION),
            _ => {
                findings.push(
                    Finding::warning(OBJECT, "not checked, because a delete marker could stay")
                        .hint("'remove' reports it if it is not permitted"),
                );
                return Err(());
            }
        };
        findings.push(match answer(tried) {
            Answer::Allowed(Made::StuckMarker) => Finding::warning(
                OBJECT,
                "permitted, but the delete marker of this check could not be deleted",
            )
            .hint(self.by_hand(&self.key("absent"))),
            Answer::Allowed(made) => {
                findings.push(Finding::ok(OBJECT, "permitted"));
                return Ok(made);
            }
            Answer::Forbidden(failure) => {
                let consequence = "so 'remove' fails, and 'abort_upload' leaves objects behind";
                let finding = Finding::not_permitted(Level::Warning, OBJECT, consequence, &failure);
                let hint = "if this host should only add backups, this is as intended; otherwise allow it";
                Finding { hints: vec![hint.to_string()], ..finding }
            }
            Answer::Failed(failure) => Finding::of_failure(Level::Warning, OBJECT, &failure),
        });
        Err(())
    }

    /// A delete marker that this makes is deleted at once.
    fn delete_absent(&self, condition: Option<&str>) -> Result<Made, Failure> {
        let key = self.key("absent");
        match self.client.delete_probe(&key, condition) {
            Ok(None) => Ok(Made::Nothing),
            Ok(Some(marker)) => match self.client.delete_version(&key, &marker) {
                Ok(()) => Ok(Made::Marker),
                Err(_) => Ok(Made::StuckMarker),
            },
            // S3 says that there is no such object, or that its ETag differs
            Err(failure) if failure.is_missing() || failure.status == Some(412) => Ok(Made::Nothing),
            Err(failure) => Err(failure),
        }
    }

    fn may_delete_versions(&self, findings: &mut Vec<Finding>) -> bool {
        let reply = self.client.delete_version(&self.key("absent"), "null");
        let (finding, is_permitted) = match answer(reply) {
            Answer::Allowed(()) if self.bucket.needs_mfa() => {
                (Finding::ok(VERSION, "permitted, with MFA: older versions are safe from this host"), false)
            }
            Answer::Allowed(()) => (Finding::ok(VERSION, "permitted"), true),
            Answer::Forbidden(_) => {
                (Finding::ok(VERSION, "not permitted, so older versions are safe from this host"), false)
            }
            Answer::Failed(failure) => {
                let finding = Finding::of_failure(Level::Warning, VERSION, &failure);
                (finding.hint("older versions may stay, and be billed"), false)
            }
        };
        findings.push(finding);
        is_permitted
    }

    /// `recover` names with them what was deleted.
    fn may_list_versions(&self, findings: &mut Vec<Finding>) -> bool {
        let answer = answer(self.client.list_versions(&self.key("absent"), |_| false));
        let is_permitted = matches!(answer, Answer::Allowed(_));
        let consequence = "so 'recover' and 'verify' cannot name what a delete marker hides";
        findings.push(of_permission(answer, Level::Warning, LIST_VERSIONS, consequence));
        is_permitted
    }
}

/// What the deletion of a missing object has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    Nothing,
    /// A delete marker, which is deleted again.
    Marker,
    /// One that could not be deleted.
    StuckMarker,
}
