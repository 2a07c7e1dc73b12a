//! Why a request got no answer, whether to retry it, and what to tell the user.

use std::io::ErrorKind;

use super::failure::{Failure, FailureKind, is_transient};
use super::hint;
use crate::aws::endpoint::host_of;
use crate::aws::proxy::Proxy;

/// The server, and the proxy on the way to it.
pub struct Destination<'a> {
    pub url: &'a str,
    pub proxy: Option<&'a Proxy>,
    /// The server has answered before.
    pub has_answered: bool,
}

impl Destination<'_> {
    pub fn failure(&self, request: String, error: &ureq::Error) -> Failure {
        let (kind, hint) = self.judge(error);
        let words = match error {
            ureq::Error::Io(e) => e.to_string(),
            other => other.to_string(),
        };
        let place = match &self.proxy {
            Some(proxy) => {
                format!("at {}, through the proxy {} of {}", self.url, proxy.shown, proxy.variable)
            }
            None => format!("at {}", self.url),
        };
        let hints = hint.into_iter().collect();
        Failure { hints, ..Failure::transport(request, format!("{words} ({place})"), kind) }
    }

    fn judge(&self, error: &ureq::Error) -> (FailureKind, Option<String>) {
        use ureq::Error::*;
        let is_https = self.url.starts_with("https:");
        match error {
            _ if is_of_tls(error) => {
                (FailureKind::Final, Some(hint::of_tls(&error.to_string(), host_of(self.url))))
            }
            Protocol(_) if !self.has_answered => {
                let other = if is_https { "http" } else { "https" };
                let hint = format!("the answer is not HTTP: check whether AWS_ENDPOINT_URL needs {other}://");
                (FailureKind::Final, Some(hint))
            }
            Io(e) if e.kind() == ErrorKind::UnexpectedEof && is_https && !self.has_answered => {
                (FailureKind::Transient, Some(hint::NO_HTTPS.to_string()))
            }
            ConnectProxyFailed(why) => match status_in(why) {
                Some(407) => (FailureKind::Final, Some(hint::PROXY_PASSWORD.to_string())),
                Some(status) if !is_transient(status) => (FailureKind::Final, None),
                _ => (FailureKind::Transient, None),
            },
            Io(_) | Timeout(_) | HostNotFound | ConnectionFailed
                if !self.has_answered && self.proxy.is_none() =>
            {
                (FailureKind::Transient, Some(hint::NOT_REACHED.to_string()))
            }
            Io(_) | Timeout(_) | HostNotFound | ConnectionFailed | Protocol(_) | BodyStalled => {
                (FailureKind::Transient, None)
            }
            _ => (FailureKind::Final, None),
        }
    }
}

/// Errors of rustls for a handshake that cannot succeed.
fn is_of_tls(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Io(e) if e.kind() == ErrorKind::InvalidData)
        || matches!(error, ureq::Error::Rustls(_) | ureq::Error::Tls(_))
}

/// `proxy server responded 407/407`
fn status_in(why: &str) -> Option<u16> {
    why.rsplit('/').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(url: &str, has_answered: bool, error: &ureq::Error) -> (FailureKind, String) {
        let (kind, hint) = Destination { url, proxy: None, has_answered }.judge(error);
        (kind, hint.unwrap_or_default())
    }

    #[test]
    fn temporary_failures_are_retried() {
        let io = |kind: ErrorKind| ureq::Error::Io(kind.into());
        let proxy = |status: u16| {
            ureq::Error::ConnectProxyFailed(format!("proxy server responded {status}/{status}"))
        };
        for (error, kind, words) in [
            (ureq::Error::HostNotFound, FailureKind::Transient, "AWS_ENDPOINT_URL"),
            (io(ErrorKind::ConnectionRefused), FailureKind::Transient, "AWS_ENDPOINT_URL"),
            (io(ErrorKind::UnexpectedEof), FailureKind::Transient, "may not support https"),
            (io(ErrorKind::InvalidData), FailureKind::Final, "AWS_CA_BUNDLE"),
            (proxy(503), FailureKind::Transient, ""),
            (proxy(429), FailureKind::Transient, ""),
            (proxy(403), FailureKind::Final, ""),
            (proxy(407), FailureKind::Final, "a user name and a password"),
            (
                ureq::Error::ConnectProxyFailed("proxy server did not respond".to_string()),
                FailureKind::Transient,
                "",
            ),
        ] {
            let (found, hint) = judge("https://s3.example.org", false, &error);
            assert_eq!(found, kind, "{error}");
            assert!(hint.contains(words) && hint.is_empty() == words.is_empty(), "{error}: {hint}");
        }
        let (kind, hint) = judge("https://s3.example.org", true, &io(ErrorKind::UnexpectedEof));
        assert_eq!((kind, hint.as_str()), (FailureKind::Transient, ""), "it has spoken https before");
    }
}
