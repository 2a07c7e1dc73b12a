//! Looks up the names of servers, in a static binary (`make static`): by `getent` of this host. The
//! resolver that is linked in would load the modules that /etc/nsswitch.conf names, such as mdns4_minimal,
//! and abort if they are of another version of the C library. A host without getent, such as one with
//! BusyBox, has no such modules.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::os::{process, trace};

/// Is the C library linked in?
pub const IS_STATIC: bool = cfg!(target_feature = "crt-static");

/// How many addresses ureq keeps.
const MOST: usize = 16;
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Getent;

impl Resolver for Getent {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let (scheme, authority) = (uri.scheme(), uri.authority());
        let host_and_port = scheme.zip(authority).and_then(|(s, a)| DefaultResolver::host_and_port(s, a));
        let host_and_port = host_and_port.ok_or(Error::HostNotFound)?;
        let (host, port) = host_and_port.rsplit_once(':').ok_or(Error::HostNotFound)?;
        let port = port.parse().map_err(|_| Error::HostNotFound)?;
        let addresses = match addresses(host, (*timeout.after).min(LONGEST)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return DefaultResolver::default().resolve(uri, config, timeout);
            }
            addresses => addresses.map_err(Error::Io)?,
        };
        let mut found = self.empty();
        addresses.into_iter().take(MOST).for_each(|address| found.push(SocketAddr::new(address, port)));
        if found.is_empty() { Err(Error::HostNotFound) } else { Ok(found) }
    }
}

/// `host`: a name, or an address; one of IPv6 is in brackets.
fn addresses(host: &str, limit: Duration) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse() {
        return Ok(vec![address]);
    }
    let mut getent = Command::new("getent");
    getent.env("PATH", process::search_path()).args(["ahosts", host]);
    trace::event(|| format!("getent ahosts {host}"));
    let output = process::run(&mut getent, Some(limit))
        .map_err(|e| io::Error::new(e.kind(), format!("'getent ahosts {host}' cannot be run: {e}")))?;
    Ok(listed(&String::from_utf8_lossy(&output.stdout)))
}

/// Each address in `192.0.2.1  STREAM name` once, in its order. Musl writes no type after an address.
fn listed(text: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for address in text.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()) {
        if !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_getent_lists() {
        let text = "2001:db8::1     STREAM nas.example.net\n2001:db8::1     DGRAM  \n2001:db8::1     RAW    \n\
                    192.0.2.1       STREAM \n192.0.2.1       DGRAM  \nnonsense\n";
        let expected: Vec<IpAddr> = ["2001:db8::1", "192.0.2.1"].iter().map(|a| a.parse().unwrap()).collect();
        assert_eq!(listed(text), expected);
        assert!(listed("").is_empty());
    }

    #[test]
    fn a_url_is_resolved_with_its_port() {
        let resolve = |url: &str| {
            let timeout = NextTimeout { after: LONGEST.into(), ..NextTimeout::default() };
            let found = Getent.resolve(&url.parse().unwrap(), &Config::default(), timeout)?;
            Ok::<Vec<SocketAddr>, Error>(found.iter().copied().collect())
        };
        assert!(
            resolve("http://localhost:8333/b")
                .unwrap()
                .iter()
                .all(|a| a.ip().is_loopback() && a.port() == 8333)
        );
        assert_eq!(resolve("https://192.0.2.1").unwrap(), ["192.0.2.1:443".parse().unwrap()]);
        assert_eq!(resolve("http://[2001:db8::1]:80").unwrap(), ["[2001:db8::1]:80".parse().unwrap()]);
        assert!(matches!(resolve("http://nobody.invalid"), Err(Error::HostNotFound)));
    }

    #[test]
    fn names_and_addresses() {
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!(addresses("127.0.0.1", LONGEST).unwrap(), [loopback]);
        assert_eq!(addresses("[::1]", LONGEST).unwrap(), ["::1".parse::<IpAddr>().unwrap()]);
        assert!(addresses("localhost", LONGEST).unwrap().iter().all(|address| address.is_loopback()));
        assert!(addresses("nobody.invalid", LONGEST).unwrap().is_empty());
    }
}
