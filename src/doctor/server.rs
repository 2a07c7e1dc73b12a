//! The server: can it be reached, by whom, and at what time?

use std::path::Path;

use super::report::{Finding, Level};
use crate::aws::endpoint::Protection;
use crate::os::clock;
use crate::s3::client::Client;
use crate::s3::failure::{Failure, SIGNING};
use crate::s3::reply::Object;

/// Seconds by which the clocks may differ before that is worth a warning.
const CLOCK_TOLERANCE: i64 = 60;
/// Seconds: S3 refuses requests of clocks that differ by more.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/RESTAuthentication.html>
const CLOCK_LIMIT: i64 = 15 * 60;

/// What the first request has shown.
pub enum Contact {
    /// The listed objects, or how listing is forbidden.
    Made(Result<Vec<Object>, Failure>),
    /// Whatever else is asked fails for the same reason.
    Failed,
}

/// Lists the objects below `prefix`, which reaches the server, the bucket, and the permission to list.
pub fn contact(client: &Client, prefix: &str, findings: &mut Vec<Finding>) -> Contact {
    let listed = client.list_objects(prefix, |_| true);
    // without an answer there is nothing to compare with
    let is_refused = matches!(&listed, Err(failure) if !failure.says_forbidden());
    findings.extend(client.clock_ahead().map(|ahead| clock_finding(ahead, is_refused)));
    match listed {
        Ok(objects) => Contact::Made(Ok(objects)),
        Err(failure) if failure.says_forbidden() && !failure.is_of_unknown_key() => {
            Contact::Made(Err(failure))
        }
        Err(failure) => {
            let check = check_of(&failure);
            if !(check == "clock" && findings.iter().any(|it| it.check == check && it.level == Level::Error))
            {
                findings.push(Finding::of_failure(Level::Error, check, &failure));
            }
            Contact::Failed
        }
    }
}

/// Which check a failure of the first request belongs to.
fn check_of(failure: &Failure) -> &'static str {
    match (failure.code.as_str(), failure.status) {
        ("RequestTimeTooSkewed", _) => "clock",
        (
            "SignatureDoesNotMatch"
            | "InvalidAccessKeyId"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "InvalidToken"
            | "AccessDenied",
            _,
        ) => "credentials",
        ("NoSuchBucket" | "AuthorizationHeaderMalformed", _) | (_, Some(300..400)) => "bucket",
        _ if failure.request == SIGNING => "credentials",
        _ => "server",
    }
}

/// `is_refused`: the request that has shown it.
fn clock_finding(ahead: i64, is_refused: bool) -> Finding {
    let apart = ahead.abs();
    let span = match apart {
        0..120 => format!("{apart} s"),
        120..7200 => format!("{} min", apart / 60),
        _ => format!("{} h", apart / 3600),
    };
    let direction = if ahead > 0 { "ahead of" } else { "behind" };
    let message = format!("the clock of this host is {span} {direction} the server's");
    let hint = "synchronize it, for example with chrony or systemd-timesyncd";
    match apart {
        0..=CLOCK_TOLERANCE => Finding::ok("clock", format!("within {} s of the server's", apart.max(1))),
        _ if apart < CLOCK_LIMIT => Finding::warning(
            "clock",
            format!("{message}; S3 rejects requests if the clocks differ by more than 15 min"),
        )
        .hint(hint),
        _ if is_refused => {
            Finding::error("clock", format!("{message}, so S3 refuses all requests")).hint(hint)
        }
        _ => Finding::warning("clock", format!("{message}, which this server accepts, but AWS does not"))
            .hint(hint),
    }
}

/// The URL, and whether the way to it is protected.
pub fn transport(client: &Client, ca_bundle: Option<&Path>) -> Finding {
    let url = &client.endpoint().url;
    match client.endpoint().protection() {
        Protection::Tls => {
            let trusted = ca_bundle.map_or(String::new(), |path| format!(", trusted by {}", path.display()));
            Finding::ok("server", format!("{url}, with a valid certificate{trusted}"))
        }
        Protection::SameHost => Finding::ok("server", format!("{url}, on this host")),
        Protection::None => Finding::warning("server", format!("{url}: data can be read in transit")).hint(
            "write https:// in AWS_ENDPOINT_URL, unless the network is trusted or the datasets are encrypted",
        ),
    }
}

/// Where the credentials come from, whose they are, and how long they are valid. They must have been used.
pub fn credentials(client: &Client) -> Vec<Finding> {
    const CHECK: &str = "credentials";
    let (source, expire) = (client.credentials().source(), client.credentials().expire());
    let mut findings = vec![match expire {
        Some(end) => {
            let hours = (end.unix_seconds() - clock::now().unix_seconds()) / 3600;
            Finding::ok(CHECK, format!("{}; they expire in {hours} h, and are renewed before that", source.describe()))
        }
        None if source.will_expire() => {
            Finding::warning(CHECK, format!("{}; they are temporary, and cannot be renewed", source.describe())).hint(
                "use AWS_PROFILE with a role or a credential_process: an upload may take longer than these are valid",
            )
        }
        None => Finding::ok(CHECK, source.describe()),
    }];
    match client.caller_identity() {
        Ok(None) => {}
        Ok(Some(arn)) if arn.ends_with(":root") => findings.push(
            Finding::warning(CHECK, format!("they belong to {arn}, which has full access to the account"))
                .hint("create a user for backups, with the permissions in SECURITY of the man page"),
        ),
        Ok(Some(arn)) => findings.push(Finding::ok(CHECK, format!("they belong to {arn}"))),
        // a network may lead to S3 alone
        Err(failure) if failure.status.is_none() => {
            findings.push(Finding::ok(CHECK, "whose they are is unknown, because STS cannot be reached"));
        }
        Err(failure) => findings.push(Finding::of_failure(Level::Warning, CHECK, &failure)),
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ() {
        let words = |ahead| {
            let found = clock_finding(ahead, true);
            (found.level, found.message)
        };
        assert_eq!(words(0), (Level::Ok, "within 1 s of the server's".to_string()));
        assert_eq!(words(-60).0, Level::Ok);
        assert_eq!(words(61).0, Level::Warning);
        assert!(words(-300).1.contains("5 min behind the server's"));
        assert_eq!(words(899).0, Level::Warning);
        let (level, message) = words(-3600);
        assert_eq!(level, Level::Error);
        assert!(message.contains("60 min behind"), "{message}");
        assert_eq!(clock_finding(-3600, false).level, Level::Warning, "the server does not mind");
        assert!(words(86_400).1.contains("24 h ahead of"));
    }
}
