//! The failure of a request: whether to retry it, and what to tell the user. Pure.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>

use std::time::Duration;

use super::hint::{self, Refused};
use super::reply;
use crate::error::{Error, one_line};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The network, or S3 is busy: the same request may succeed later.
    Transient,
    /// The credentials have expired: with new ones the request may succeed at once.
    Expired,
    /// S3 has understood and refused the request.
    Final,
}

/// The request of a failure without one: there are no credentials.
pub const SIGNING: &str = "no request can be signed";

#[derive(Debug)]
pub struct Failure {
    /// The request, such as `PUT key part 3`.
    pub request: String,
    pub kind: FailureKind,
    pub status: Option<u16>,
    /// The error code of S3, or empty.
    pub code: String,
    pub message: String,
    pub retry_after: Option<Duration>,
    /// A 404 to HEAD, whose replies have no body.
    pub(super) is_bare_404: bool,
    /// What to try next.
    pub hints: Vec<String>,
}

const TRANSIENT_CODES: &[&str] = &[
    "InternalError",
    "ServiceUnavailable",
    "RequestTimeout",
    "OperationAborted",
    "ConditionalRequestConflict",
    // the body was damaged in transit
    "BadDigest",
    "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
    "IncompleteBody",
];
/// Transient, too.
const THROTTLING_CODES: &[&str] = &["SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded"];
/// Seconds: the maximum of Retry-After that is respected.
const A_DAY: u64 = 86_400;
/// A 503 that may last for hours.
pub const NO_CAPACITY: &str = "GlacierExpeditedRetrievalNotAvailable";
const EXPIRED_CODES: &[&str] = &["ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"];

impl Failure {
    /// There was no reply, or an incomplete one.
    pub fn transport(request: String, message: String, kind: FailureKind) -> Self {
        Failure {
            request,
            kind,
            status: None,
            code: String::new(),
            message,
            retry_after: None,
            is_bare_404: false,
            hints: vec![],
        }
    }

    /// The reply is an error, even one with status 200. `is_head`: it answers HEAD.
    pub fn reply(
        request: String,
        is_head: bool,
        status: u16,
        header: impl Fn(&str) -> Option<String>,
        body: &[u8],
    ) -> Self {
        let mut said = reply::error(body).unwrap_or_default();
        // nor is it an error of S3
        let is_no_reply = said.code.is_empty() && (200..300).contains(&status);
        let kind = if EXPIRED_CODES.contains(&said.code.as_str()) {
            FailureKind::Expired
        } else if said.code == NO_CAPACITY {
            FailureKind::Final
        } else if [TRANSIENT_CODES, THROTTLING_CODES].iter().any(|codes| codes.contains(&said.code.as_str()))
            || is_no_reply
            || is_transient(status)
        {
            FailureKind::Transient
        } else {
            FailureKind::Final
        };
        let seconds = header("retry-after").and_then(|text| text.parse::<u64>().ok());
        let retry_after = seconds.map(|seconds| Duration::from_secs(seconds.min(A_DAY)));
        // a page for people comes from a proxy, or a web server
        let is_empty = header("content-length").is_some_and(|length| length == "0");
        let is_page = !is_empty && header("content-type").is_some_and(|kind| kind.starts_with("text/html"));
        let is_bare_404 = is_head && status == 404 && !is_page;
        if is_no_reply {
            said.message = "the reply is a page for people, not one of S3".to_string();
        } else if said.code.is_empty() && said.message.is_empty() {
            said.message = words_of(body);
        }
        let refused = Refused {
            status,
            said: &said,
            region: header("x-amz-bucket-region"),
            location: header("location"),
            is_bare_404,
        };
        let hints = hint::of_reply(&refused).into_iter().collect();
        Failure {
            request,
            kind,
            status: Some(status),
            code: said.code,
            message: said.message,
            retry_after,
            is_bare_404,
            hints,
        }
    }

    /// The server asks for fewer requests.
    pub fn asks_for_less(&self) -> bool {
        matches!(self.status, Some(429 | 503)) || THROTTLING_CODES.contains(&self.code.as_str())
    }
    /// S3 itself says that there is no such key or upload. A 404 page of another server says nothing about
    /// the bucket.
    pub fn is_missing(&self) -> bool {
        self.code == "NoSuchUpload" || self.code == "NoSuchKey" || self.is_bare_404
    }
    /// The server may not support a header, a parameter or a call that AWS supports.
    pub fn is_not_supported(&self) -> bool {
        self.status == Some(501)
            || (self.status == Some(400)
                && self.kind == FailureKind::Final
                && self.code != "AuthorizationHeaderMalformed")
    }
    /// It requires `Content-MD5`.
    pub fn asks_for_md5(&self) -> bool {
        self.status == Some(400)
            && (self.code == "MissingContentMD5" || self.message.to_lowercase().contains("content-md5"))
    }
    /// The server itself says that it does not have this call. A 404 without a code may come from anything in
    /// between.
    pub fn has_no_such_call(&self) -> bool {
        match self.status {
            Some(404) => !self.code.is_empty() && self.code != "NoSuchBucket",
            status => matches!(status, Some(405 | 501)),
        }
    }
    /// The same for a call that changes something: only an error code of the server counts.
    pub fn is_no_call_of_the_server(&self) -> bool {
        matches!(self.status, Some(405 | 501)) && !self.code.is_empty()
    }
    /// The part number is too high for this server.
    pub fn refuses_part_number(&self) -> bool {
        let message = self.message.to_lowercase();
        self.status == Some(400)
            && (matches!(self.code.as_str(), "InvalidPartNumber" | "TooManyParts")
                || ["part number", "partnumber", "number of parts"]
                    .iter()
                    .any(|words| message.contains(words)))
    }
    /// The body of the request does not have the hash that was sent with it. What differs between servers is
    /// the code; none has a status of its own.
    pub fn is_of_wrong_sum(&self) -> bool {
        matches!(
            self.code.as_str(),
            "BadDigest"
                | "InvalidDigest"
                | "XAmzContentSHA256Mismatch"
                | "XAmzContentChecksumMismatch"
                | "SignatureDoesNotMatch"
        ) || matches!(self.status, Some(400 | 422))
    }
    /// The server does not know the access key.
    pub fn is_of_unknown_key(&self) -> bool {
        self.hints.iter().any(|hint| hint == hint::UNKNOWN_KEY)
    }
    /// What is said beyond that it is forbidden: the words of the server, and what to try.
    pub fn reason(&self) -> (Option<String>, Vec<String>) {
        let is_plain = ["", "access denied", "access denied.", "forbidden", "accessdenied"]
            .contains(&self.message.to_lowercase().as_str());
        let hints = self.hints.iter().filter(|hint| *hint != hint::PERMISSIONS).cloned().collect();
        ((!is_plain).then(|| self.message.clone()), hints)
    }
    /// S3 itself says that this is forbidden. A 403 without its error code may come from anything in between.
    pub fn says_forbidden(&self) -> bool {
        self.status == Some(403)
            && matches!(
                self.code.as_str(),
                "AccessDenied" | "AllAccessDisabled" | "Forbidden" | "Unauthorized"
            )
    }
    /// The same, also without an error code, as in a reply to HEAD.
    pub fn is_forbidden(&self) -> bool {
        self.status == Some(403)
            && !matches!(
                self.code.as_str(),
                "SignatureDoesNotMatch" | "InvalidAccessKeyId" | "RequestTimeTooSkewed"
            )
    }

    /// Later, with new credentials, or without what is in between, the same request may succeed.
    pub fn may_pass(&self) -> bool {
        self.kind != FailureKind::Final || (self.status == Some(403) && self.code.is_empty())
    }

    /// For a message, on one line.
    pub fn describe(&self) -> String {
        let status = self.status.map(|status| status.to_string()).unwrap_or_default();
        let words = [status.as_str(), &self.code, &self.message];
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let said = one_line(&words.join(" ").replace(['\n', '\r'], " "));
        format!("{}: {}", self.request, said.chars().take(400).collect::<String>())
    }
}

/// The text of a reply that is not from S3: the title of a page, or the first line.
fn words_of(body: &[u8]) -> String {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let words = match text.split_once("<title>") {
        Some((_, rest)) => rest.split('<').next().unwrap_or_default(),
        None => text.lines().next().filter(|line| !line.contains(['<', '{'])).unwrap_or_default(),
    };
    words.trim().chars().take(200).collect()
}

/// After these statuses the same request may succeed later: those that RFC 9110, RFC 6585 and RFC 8470 call
/// temporary, and other failures of the server or, such as Cloudflare's 520 to 530, in front of it.
pub fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599) && !matches!(status, 501 | 505)
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        let text = failure.describe();
        let error = match failure.kind {
            FailureKind::Transient => Error::try_again(text),
            FailureKind::Expired | FailureKind::Final => Error::failed(text),
        };
        failure.hints.into_iter().fold(error, Error::hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: u16, code: &str) -> Failure {
        let body = format!("<Error><Code>{code}</Code><Message>m</Message></Error>");
        Failure::reply("GET k".to_string(), false, status, |_| None, body.as_bytes())
    }

    #[test]
    fn failures_that_are_retried() {
        for (status, code) in [
            (503, "SlowDown"),
            (500, "InternalError"),
            (200, "InternalError"),
            (400, "RequestTimeout"),
            (425, "X"),
            (429, "X"),
            (509, ""),
            (520, ""),
            (527, ""),
            (530, ""),
            (599, ""),
            (400, "BadDigest"),
        ] {
            assert_eq!(failure(status, code).kind, FailureKind::Transient, "{status} {code}");
        }
        for (status, code) in [
            (403, "AccessDenied"),
            (404, "NoSuchBucket"),
            (400, "InvalidRequest"),
            (412, "PreconditionFailed"),
            (501, "NotImplemented"),
            (505, ""),
            (200, "AccessDenied"),
        ] {
            assert_eq!(failure(status, code).kind, FailureKind::Final, "{status} {code}");
        }
        assert_eq!(failure(400, "ExpiredToken").kind, FailureKind::Expired);
        assert_eq!(
            Failure::reply(String::new(), false, 502, |_| None, b"<html>").kind,
            FailureKind::Transient
        );
        assert!(failure(404, "NoSuchUpload").is_missing());
        assert!(!failure(404, "NoSuchBucket").is_missing(), "a missing bucket is not a missing object");
    }

    #[test]
    fn only_s3_itself_says_that_something_is_missing_or_forbidden() {
        let page = |name: &str| (name == "content-type").then(|| "text/html; charset=utf-8".to_string());
        let reply = |is_head, status, header: &dyn Fn(&str) -> Option<String>, body: &str| {
            Failure::reply("k".to_string(), is_head, status, header, body.as_bytes())
        };
        assert!(reply(true, 404, &|_| None, "").is_missing(), "HEAD has no body");
        assert!(!reply(true, 404, &page, "").is_missing());
        let empty_page =
            |name: &str| if name == "content-length" { Some("0".to_string()) } else { page(name) };
        assert!(reply(true, 404, &empty_page, "").is_missing(), "a type, but no page");
        assert!(!reply(false, 404, &|_| None, "").is_missing());
        assert!(!reply(false, 404, &page, "<html>404 page not found</html>").is_missing());
        assert!(failure(403, "AccessDenied").says_forbidden());
        assert!(!failure(403, "").says_forbidden() && !reply(false, 403, &page, "<html>").says_forbidden());
    }

    #[test]
    fn the_text_of_other_servers_is_quoted_too() {
        for (body, words) in [
            (
                "<html>\r\n<head><title>400 The plain HTTP request was sent to HTTPS port</title></head>",
                "400 The plain HTTP request was sent to HTTPS port",
            ),
            (
                "Client sent an HTTP request to an HTTPS server.\n",
                "Client sent an HTTP request to an HTTPS server.",
            ),
            ("<html><body>error code: 520</body></html>", ""),
            ("{\"error\": 1}", ""),
            ("", ""),
        ] {
            let failure = Failure::reply("GET k".to_string(), false, 400, |_| None, body.as_bytes());
            assert_eq!(failure.message, words);
            assert_eq!(failure.hints.is_empty(), words.is_empty(), "{body}");
        }
    }

    #[test]
    fn retry_after_is_respected_up_to_a_limit() {
        let asked = |text: &str| {
            let header = |name: &str| (name == "retry-after").then(|| text.to_string());
            Failure::reply("GET k".to_string(), false, 503, header, b"").retry_after
        };
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("18446744073709551615"), Some(Duration::from_secs(A_DAY)));
        assert_eq!(asked("Wed, 21 Oct 2026 07:28:00 GMT"), None);
    }

    #[test]
    fn a_reply_cannot_write_lines_of_its_own() {
        let body = b"<Error><Code>X</Code><Message>a\nzfs2s3: stored</Message></Error>";
        let failure = Failure::reply("GET k".to_string(), false, 400, |_| None, body);
        assert_eq!(failure.describe(), "GET k: 400 X a zfs2s3: stored");
    }
}
