//! The proxy for requests to S3, if the environment names one, with the rules of curl and the AWS tools.
//! Pure.
//!
//! A proxy that cannot be used is an error: a user who sets one does not want requests to bypass it.
//! <https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-proxy.html>

use std::net::IpAddr;

use ureq::ProxyProtocol;
use url::{Host, Url};

use crate::error::{Error, Result};
use crate::os::env::Env;

pub struct Proxy {
    pub connector: ureq::Proxy,
    /// Its URL, without user name and password.
    pub shown: String,
    /// The variable that names it.
    pub variable: &'static str,
}

const FOR_HTTPS: &[&str] = &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
const FOR_HTTP: &[&str] = &["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];

impl Proxy {
    /// For requests to this URL.
    pub fn of(env: &Env, url: &str) -> Result<Option<Proxy>> {
        let Ok(url) = Url::parse(url) else { return Ok(None) };
        let variables = if url.scheme() == "https" { FOR_HTTPS } else { FOR_HTTP };
        let Some((variable, given)) = variables.iter().find_map(|name| Some((*name, env.get(name)?))) else {
            return Ok(None);
        };
        let exceptions = env.first(&["no_proxy", "NO_PROXY"]).unwrap_or_default();
        if is_excepted(&url, exceptions) {
            return Ok(None);
        }
        let shown = shown(given);
        let cannot = |why: &str| Error::setting(variable, format!("cannot use the proxy {shown}: {why}"));
        let connector =
            ureq::Proxy::new(given).map_err(|_| cannot("it is not a URL such as http://HOST:PORT"))?;
        match connector.protocol() {
            ProxyProtocol::Http | ProxyProtocol::Https => {}
            _ => return Err(cannot("only http:// and https:// proxies are supported")),
        }
        Ok(Some(Proxy { connector, shown, variable }))
    }
}

/// Without the part before an `@`, which may have a password.
fn shown(given: &str) -> String {
    match given.rsplit_once('@') {
        None => given.to_string(),
        Some((before, host)) => match before.split_once("://") {
            Some((scheme, _)) => format!("{scheme}://{host}"),
            None => host.to_string(),
        },
    }
}

/// Is the host in this list of exceptions? They are separated by commas or spaces: domains, which include
/// their subdomains, addresses, and networks (`10.0.0.0/8`), each optionally with a port; or `*` for all
/// hosts.
fn is_excepted(url: &Url, exceptions: &str) -> bool {
    let Some(host) = url.host() else { return false };
    let port = url.port_or_known_default();
    let words = exceptions.split([',', ' ', '\t']).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).any(|word| word == "*" || matches(&host, port, &word))
}

fn matches(host: &Host<&str>, port: Option<u16>, word: &str) -> bool {
    let (word, its_port) = split_port(word);
    if its_port.is_some() && its_port != port {
        return false;
    }
    let address = match host {
        Host::Domain(name) => {
            let word = word.trim_start_matches("*").trim_start_matches('.').trim_end_matches('.');
            let name = name.trim_end_matches('.').to_lowercase();
            let below = name.strip_suffix(word).is_some_and(|rest| rest.ends_with('.'));
            return !word.is_empty() && (name == word || below);
        }
        Host::Ipv4(address) => IpAddr::V4(*address),
        Host::Ipv6(address) => IpAddr::V6(*address),
    };
    match word.split_once('/') {
        Some((network, length)) => match (network.parse(), length.parse()) {
            (Ok(network), Ok(length)) => is_in(address, network, length),
            _ => false,
        },
        None => word.parse() == Ok(address),
    }
}

/// `[::1]:443`, `host:443`; an IPv6 address without brackets has no port.
fn split_port(word: &str) -> (&str, Option<u16>) {
    if let Some(rest) = word.strip_prefix('[') {
        let (address, port) = rest.split_once(']').unwrap_or((rest, ""));
        return (address, port.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match word.split_once(':') {
        Some((name, port)) if !port.contains(':') => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (word, None),
        },
        _ => (word, None),
    }
}

/// Does the address begin with the first `length` bits of the network?
fn is_in(address: IpAddr, network: IpAddr, length: u32) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let differs = u32::from(address) ^ u32::from(network);
            length <= 32 && differs.checked_shr(32 - length).unwrap_or(0) == 0
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let differs = u128::from(address) ^ u128::from(network);
            length <= 128 && differs.checked_shr(128 - length).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(env: &[(&str, &str)], url: &str) -> Option<&'static str> {
        Proxy::of(&Env::of(env), url).unwrap().map(|proxy| proxy.variable)
    }

    #[test]
    fn each_scheme_has_its_variable() {
        let both = [("HTTPS_PROXY", "http://p:1"), ("HTTP_PROXY", "http://p:2")];
        assert_eq!(variable(&both, "https://s3.example.org"), Some("HTTPS_PROXY"));
        assert_eq!(variable(&both, "http://nas:9000"), Some("HTTP_PROXY"));
        assert_eq!(variable(&both[..1], "http://nas:9000"), None, "not for http");
        let all = [("all_proxy", "p:1")];
        assert_eq!(variable(&all, "http://nas:9000"), Some("all_proxy"));
        assert_eq!(variable(&[], "https://s3.example.org"), None);
    }

    #[test]
    fn an_unusable_proxy_is_an_error_without_its_password() {
        for given in ["socks5://me:secret@p:1", "nonsense://me:secret@x", "http://me:secret@", "me:secret@ x"]
        {
            let error = Proxy::of(&Env::of(&[("HTTPS_PROXY", given)]), "https://h").err().expect(given);
            assert!(error.message.starts_with("HTTPS_PROXY: cannot use the proxy "), "{error}");
            assert!(!error.message.contains("secret"), "{error}");
        }
        let good = Proxy::of(&Env::of(&[("HTTPS_PROXY", "http://me:p@ss@p:1")]), "https://h");
        if let Ok(Some(proxy)) = good {
            assert_eq!(proxy.shown, "http://p:1");
        }
    }

    #[test]
    fn exceptions() {
        let excepted = |url: &str, list: &str| is_excepted(&Url::parse(url).unwrap(), list);
        for (url, list) in [
            ("https://s3.example.org", "localhost, example.org"),
            ("https://s3.example.org", ".example.org"),
            ("https://s3.example.org", "*.EXAMPLE.org"),
            ("https://s3.example.org", "a b s3.example.org:443"),
            ("https://s3.example.org", "*"),
            ("http://127.0.0.1:9000", "localhost, 127.0.0.1"),
            ("http://127.0.0.1:9000", "127.0.0.0/8"),
            ("http://127.0.0.1:9000", "127.0.0.1:9000"),
            ("http://10.1.2.3", "0.0.0.0/0"),
            ("http://[fd00::5]:9000", "fd00::/8"),
            ("http://[::1]:9000", "::1"),
            ("http://[::1]:9000", "[::1]:9000"),
        ] {
            assert!(excepted(url, list), "{url} {list}");
        }
        for (url, list) in [
            ("https://s3.example.org", ""),
            ("https://s3.example.org", "ample.org"),
            ("https://s3.example.org", "example.org:80"),
            ("https://example.org.evil", "example.org"),
            ("http://128.0.0.1", "127.0.0.0/8"),
            ("http://127.0.0.1:9000", "127.0.0.1:80"),
            ("http://127.0.0.1", "127.0.0.0/33"),
            ("http://127.0.0.1", "::/0"),
        ] {
            assert!(!excepted(url, list), "{url} {list}");
        }
    }
}
