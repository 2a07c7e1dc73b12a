//! What the lifecycle rules of a bucket do to backups. Pure.
//!
//! A rule that deletes objects breaks chains, and one that moves manifests to an archive hides from `recover`
//! what is stored. Rules for old versions and for unfinished uploads are useful, if they wait long enough.

use super::report::Finding;
use crate::model::archive::Archive;
use crate::model::lifecycle::{Action, Rule};
use crate::model::units::{count, human_size};

const CHECK: &str = "lifecycle";
/// Days: an upload may be pending for that long.
const SHORTEST_PENDING: u32 = 30;

/// Bytes: the manifest of a stream of 4 TiB in chunks of 16 MiB.
const LARGEST_MANIFEST: u64 = 16 << 20;

/// The days for which old versions are kept, if a rule deletes those of this store.
pub fn versions_kept(rules: &[Rule], prefix: &str) -> Option<u32> {
    // a rule for a part of the store leaves the versions of the rest
    let covers = |rule: &&Rule| {
        rule.applies_to(prefix, Some(&[])) && rule.larger_than == 0 && rule.smaller_than.is_none()
    };
    let actions = rules.iter().filter(covers).flat_map(|rule| &rule.actions);
    actions
        .filter_map(|action| if let Action::ExpireVersions(days) = action { Some(*days) } else { None })
        .min()
}

/// What the rules do to the objects of a store with this prefix, and with backups of these names.
pub fn judge(rules: &[Rule], prefix: &str, names: Option<&[String]>) -> Vec<Finding> {
    let relevant: Vec<&Rule> = rules.iter().filter(|rule| rule.applies_to(prefix, names)).collect();
    if relevant.is_empty() {
        let what = if rules.is_empty() { "no rules" } else { "no rule applies to the objects of zfs2s3" };
        return vec![Finding::ok(CHECK, what)];
    }
    relevant.iter().flat_map(|rule| rule.actions.iter().map(|action| of_action(rule, action))).collect()
}

fn in_days(days: u32) -> String {
    count(u64::from(days), "day")
}

fn of_action(rule: &Rule, action: &Action) -> Finding {
    let name = match rule.id.as_str() {
        "" => format!("the rule for '{}'", rule.prefix),
        id => format!("the rule '{id}'"),
    };
    match action {
        Action::Expire(when) => {
            Finding::error(CHECK, format!("{name} deletes objects {when}, which breaks chains"))
                .hint("remove it, or limit it to a prefix without backups; 'zfs2s3 remove' deletes backups safely")
        }
        Action::Transition(when, class) if Archive::of(Some(class), None).is_none() => {
            Finding::ok(CHECK, format!("{name} moves objects to {class} {when}, where they can be read at once"))
        }
        Action::Transition(when, class) if rule.larger_than >= LARGEST_MANIFEST => Finding::ok(
            CHECK,
            format!(
                "{name} moves objects of more than {} to {class} {when}: 'zfs2s3 thaw' makes them readable again",
                human_size(rule.larger_than)
            ),
        ),
        Action::Transition(when, class) => Finding::warning(
            CHECK,
            format!(
                "{name} moves objects to {class} {when}, and with them manifests, which 'recover' and 'verify' must read"
            ),
        )
        .hint(format!("use ZFS2S3_STORAGE_CLASS={class} instead, which keeps manifests in STANDARD"))
        .hint(format!("or limit the rule to objects of more than {}", human_size(LARGEST_MANIFEST))),
        Action::ExpireVersions(days) => {
            Finding::ok(CHECK, format!("{name} deletes old versions after {}", in_days(*days)))
        }
        Action::AbortUploads(days) if *days < SHORTEST_PENDING => Finding::warning(
            CHECK,
            format!("{name} aborts unfinished uploads after {}, even one that could be resumed", in_days(*days)),
        )
        .hint(format!("set its DaysAfterInitiation to {SHORTEST_PENDING} or more")),
        Action::AbortUploads(days) => {
            Finding::ok(CHECK, format!("{name} aborts unfinished uploads after {}", in_days(*days)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::lifecycle::When;
    use crate::model::storage_class::StorageClass;

    fn rule(prefix: &str, actions: &[Action]) -> Rule {
        Rule {
            id: "r".to_string(),
            prefix: prefix.to_string(),
            needs_tag: false,
            larger_than: 0,
            smaller_than: None,
            actions: actions.to_vec(),
        }
    }

    #[test]
    fn each_action_and_what_it_does_to_backups() {
        let after = |days| When::Days(days);
        let moved = |class| Action::Transition(after(30), StorageClass::of(class));
        for (action, larger_than, expected) in [
            (Action::Expire(after(30)), 0, "error deletes objects after 30 days"),
            (Action::Expire(When::Date("2027-01-01".to_string())), 0, "error deletes objects on 2027-01-01"),
            (moved("STANDARD_IA"), 0, "ok moves objects to STANDARD_IA after 30 days"),
            (moved("DEEP_ARCHIVE"), 0, "warning moves objects to DEEP_ARCHIVE after 30 days"),
            (moved("GLACIER"), 16 << 20, "ok moves objects of more than 16.0M to GLACIER"),
            (moved("GLACIER"), 128 << 10, "warning moves objects to GLACIER"),
            (Action::ExpireVersions(7), 0, "ok deletes old versions after 7 days"),
            (Action::AbortUploads(7), 0, "warning aborts unfinished uploads after 7 days"),
            (Action::AbortUploads(30), 0, "ok aborts unfinished uploads after 30 days"),
        ] {
            let found = judge(&[Rule { larger_than, ..rule("", &[action]) }], "nas/", Some(&[]));
            let text = format!("{:?} {}", found[0].level, found[0].message.replace("the rule 'r' ", ""));
            assert!(text.to_lowercase().starts_with(&expected.to_lowercase()), "{text}, not {expected}");
        }
    }

    #[test]
    fn rules_for_other_objects_do_not_matter() {
        let other = rule("tmp/", &[Action::Expire(When::Days(1))]);
        let tagged = Rule { needs_tag: true, ..rule("", &[Action::Expire(When::Days(1))]) };
        let found = judge(&[other, tagged], "nas/", Some(&[]));
        assert_eq!(found, [Finding::ok("lifecycle", "no rule applies to the objects of zfs2s3")]);
    }

    #[test]
    fn old_versions_must_be_deleted_in_all_of_the_store() {
        let kept =
            |prefix: &str, store: &str| versions_kept(&[rule(prefix, &[Action::ExpireVersions(9)])], store);
        assert_eq!(kept("", "nas/"), Some(9));
        assert_eq!(kept("nas/", "nas/"), Some(9));
        assert_eq!(kept("nas/tank/", "nas/"), None);
    }
}
