//! Where S3 is: region, URL and addressing. Pure.
//!
//! AWS is addressed by virtual host (`https://bucket.s3.region.amazonaws.com`), every other endpoint by path,
//! unless the user or the profile sets the style. A name without a scheme means https, except for this host
//! itself; http:// to other hosts is used only if the user wrote it.

use rust_s3::creds::Credentials;
use rust_s3::{Bucket, Region};

use super::profile::Profile;
use crate::error::{Error, Result};
use crate::os::env::Env;

const DEFAULT_REGION: &str = "us-east-1";

/// What protects requests on their way to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    Tls,
    /// They do not leave this host.
    SameHost,
    None,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    pub region: Region,
    /// The server's URL.
    pub url: String,
    /// The URL of the bucket, without a trailing slash.
    pub bucket_url: String,
    /// That of STS, which knows whose credentials are: of AWS, or as the user sets it.
    pub sts_url: Option<String>,
    pub bucket: String,
}

impl Endpoint {
    pub fn new(env: &Env, profile: &Profile, bucket: &str) -> Result<Self> {
        let region = env
            .first(&["AWS_REGION", "AWS_DEFAULT_REGION"])
            .or(profile.get("region"))
            .unwrap_or(DEFAULT_REGION);
        if !region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            return Err(Error::setting("AWS_REGION", format!("'{region}' cannot be a region")));
        }
        let given = given_url(env, profile, "s3");
        let url = match given {
            Some(given) => with_scheme(given).map_err(|why| Error::setting("AWS_ENDPOINT_URL", why))?,
            None => aws_url("s3", region),
        };
        let sts_url = match given_url(env, profile, "sts") {
            Some(given) => {
                Some(with_scheme(given).map_err(|why| Error::setting("AWS_ENDPOINT_URL_STS", why))?)
            }
            None => is_aws(host_of(&url)).then(|| aws_url("sts", region)),
        };
        let by_path = match Style::new(env, profile)? {
            Style::Path => true,
            Style::Virtual => false,
            // an AWS certificate does not cover a bucket with dots
            Style::Auto => bucket.contains('.') || (given.is_some() && !knows_no_paths(&url)),
        };
        let region = Region::Custom { region: region.to_string(), endpoint: url.clone() };
        Ok(Endpoint {
            bucket_url: bucket_url(bucket, &region, by_path)?,
            region,
            url,
            sts_url,
            bucket: bucket.to_string(),
        })
    }

    pub fn protection(&self) -> Protection {
        match self.url.split_once("://") {
            Some(("https", _)) => Protection::Tls,
            Some((_, authority)) if is_loopback(authority) => Protection::SameHost,
            _ => Protection::None,
        }
    }

    pub fn is_aws(&self) -> bool {
        is_aws(host_of(&self.url))
    }

    /// The URL without the bucket, if it seems to contain it: `https://s3.example.org` for
    /// `https://s3.example.org/bucket` and for `https://bucket.s3.example.org`. The URL may be right
    /// nevertheless: a server may have the name of the bucket.
    pub fn without_bucket(&self) -> Option<String> {
        let (scheme, rest) = self.url.split_once("://")?;
        let without = match rest.rsplit_once('/') {
            Some((before, last)) if last == self.bucket => before,
            _ => rest.strip_prefix(&self.bucket)?.strip_prefix('.')?,
        };
        Some(format!("{scheme}://{without}"))
    }
}

/// In the order of AWS's own tools.
/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html>
/// Another server than AWS has no STS, unless it is set for itself.
fn given_url<'a>(env: &'a Env, profile: &'a Profile, service: &str) -> Option<&'a str> {
    let is_true = |value: Option<&str>| value.is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if is_true(
        env.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").or(profile.get("ignore_configured_endpoint_urls")),
    ) {
        return None;
    }
    match service {
        "sts" => env.get("AWS_ENDPOINT_URL_STS").or_else(|| profile.service("sts", "endpoint_url")),
        _ => env
            .first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
            .or_else(|| profile.service("s3", "endpoint_url"))
            .or_else(|| profile.get("endpoint_url")),
    }
}

/// How URLs name the bucket.
/// <https://docs.aws.amazon.com/cli/latest/topic/s3-config.html>, `addressing_style`.
enum Style {
    Auto,
    Path,
    Virtual,
}

impl Style {
    fn new(env: &Env, profile: &Profile) -> Result<Self> {
        let given = env.get("ZFS2S3_ADDRESSING_STYLE").or(profile.get("s3.addressing_style"));
        match given {
            None | Some("auto") => Ok(Style::Auto),
            Some("path") => Ok(Style::Path),
            Some("virtual") => Ok(Style::Virtual),
            Some(other) => Err(Error::setting(
                "ZFS2S3_ADDRESSING_STYLE",
                format!("'{other}' is not 'auto', 'path' or 'virtual'"),
            )),
        }
    }
}

/// Alibaba Cloud OSS answers `SecondLevelDomainForbidden` to paths.
fn knows_no_paths(url: &str) -> bool {
    host_of(url).ends_with(".aliyuncs.com")
}

/// The host of a URL, with or without a scheme.
pub fn host_of(url: &str) -> &str {
    let authority = url.split("://").last().unwrap_or_default();
    authority.split(['/', ':']).next().unwrap_or_default()
}

fn bucket_url(bucket: &str, region: &Region, by_path: bool) -> Result<String> {
    let wrong = |e: &dyn std::fmt::Display| Error::usage(format!("bucket '{bucket}': {e}"));
    let nobody = Credentials::anonymous().map_err(|e| wrong(&e))?;
    let model = Bucket::new(bucket, region.clone(), nobody).map_err(|e| wrong(&e))?;
    Ok(if by_path { model.with_path_style().url() } else { model.url() })
}

fn is_aws(host: &str) -> bool {
    host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn")
}

fn aws_url(service: &str, region: &str) -> String {
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("https://{service}.{region}.{domain}")
}

fn with_scheme(given: &str) -> Result<String, String> {
    // a URL with a password in it is not shown
    let shown = if given.contains('@') { "it".to_string() } else { format!("'{given}'") };
    let bad = || format!("{shown} is not a URL such as https://s3.example.org");
    let (scheme, rest) = match given.split_once("://") {
        Some((scheme, rest)) => (scheme, rest),
        None if is_loopback(given) => ("http", given),
        None => ("https", given),
    };
    let rest = rest.trim_end_matches('/');
    if !matches!(scheme, "http" | "https") || rest.contains('@') {
        return Err(bad());
    }
    let url = url::Url::parse(&format!("{scheme}://{rest}")).map_err(|_| bad())?;
    let bare = url.query().is_none() && url.fragment().is_none();
    if !bare || url.host_str().is_none_or(str::is_empty) {
        return Err(bad());
    }
    Ok(format!("{scheme}://{rest}"))
}

fn is_loopback(authority: &str) -> bool {
    let host = authority.split('/').next().unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost"
        || name == "[::1]"
        || name.parse::<core::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(env: &[(&str, &str)], bucket: &str) -> String {
        Endpoint::new(&Env::of(env), &Profile::default(), bucket).unwrap().bucket_url
    }

    #[test]
    fn aws_by_virtual_host_others_by_path() {
        assert_eq!(url(&[], "b"), "https://b.s3.us-east-1.amazonaws.com");
        assert_eq!(
            url(&[("AWS_DEFAULT_REGION", "eu-central-1")], "b"),
            "https://b.s3.eu-central-1.amazonaws.com"
        );
        assert_eq!(url(&[("AWS_REGION", "cn-north-1")], "b"), "https://b.s3.cn-north-1.amazonaws.com.cn");
        assert_eq!(url(&[("AWS_REGION", "xx-new-9")], "b"), "https://b.s3.xx-new-9.amazonaws.com");
        assert_eq!(url(&[], "b.c"), "https://s3.us-east-1.amazonaws.com/b.c");
        assert_eq!(url(&[("AWS_ENDPOINT_URL", "https://s3.example.org/")], "b"), "https://s3.example.org/b");
        let both = [("AWS_ENDPOINT_URL", "https://a"), ("AWS_ENDPOINT_URL_S3", "https://s")];
        assert_eq!(url(&both, "b"), "https://s/b");
    }

    #[test]
    fn sts_is_that_of_aws_or_as_set() {
        let sts = |env: &[(&str, &str)]| {
            Endpoint::new(&Env::of(env), &Profile::default(), "b").unwrap().sts_url.unwrap_or_default()
        };
        assert_eq!(sts(&[("AWS_REGION", "eu-west-1")]), "https://sts.eu-west-1.amazonaws.com");
        assert_eq!(sts(&[("AWS_REGION", "cn-north-1")]), "https://sts.cn-north-1.amazonaws.com.cn");
        let other = ("AWS_ENDPOINT_URL", "https://s3.example.org");
        assert_eq!(sts(&[other]), "");
        assert_eq!(sts(&[other, ("AWS_ENDPOINT_URL_STS", "localhost:4566")]), "http://localhost:4566");
        let by_name = ("AWS_ENDPOINT_URL", "https://s3.eu-west-1.amazonaws.com");
        assert_eq!(sts(&[by_name, ("AWS_REGION", "eu-west-1")]), "https://sts.eu-west-1.amazonaws.com");
    }

    #[test]
    fn https_unless_it_is_this_host_or_the_user_wrote_http() {
        for (given, expected) in [
            ("s3.example.org", "https://s3.example.org/b"),
            ("nas:9000", "https://nas:9000/b"),
            ("localhost:9000", "http://localhost:9000/b"),
            ("127.0.0.1:9000", "http://127.0.0.1:9000/b"),
            ("[::1]:9000", "http://[::1]:9000/b"),
            ("127.0.0.1.example.org", "https://127.0.0.1.example.org/b"),
            ("http://nas:9000", "http://nas:9000/b"),
        ] {
            assert_eq!(url(&[("AWS_ENDPOINT_URL", given)], "b"), expected);
        }
    }

    #[test]
    fn addressing_styles() {
        let other = ("AWS_ENDPOINT_URL", "https://s3.example.org:444/x");
        let style = |style| [other, ("ZFS2S3_ADDRESSING_STYLE", style)];
        assert_eq!(url(&style("virtual"), "b"), "https://b.s3.example.org:444/x");
        assert_eq!(url(&style("path"), "b"), "https://s3.example.org:444/x/b");
        assert_eq!(url(&style("auto"), "b"), "https://s3.example.org:444/x/b");
        assert_eq!(url(&[("ZFS2S3_ADDRESSING_STYLE", "path")], "b"), "https://s3.us-east-1.amazonaws.com/b");
        let oss = [("AWS_ENDPOINT_URL", "https://oss-eu-central-1.aliyuncs.com")];
        assert_eq!(url(&oss, "b"), "https://b.oss-eu-central-1.aliyuncs.com");
        assert!(Endpoint::new(&Env::of(&style("host")), &Profile::default(), "b").is_err());
    }

    #[test]
    fn a_url_that_seems_to_name_the_bucket() {
        let without = |given: &str, bucket: &str| {
            let env = Env::of(&[("AWS_ENDPOINT_URL", given)]);
            Endpoint::new(&env, &Profile::default(), bucket).unwrap().without_bucket().unwrap_or_default()
        };
        assert_eq!(without("https://s3.example.org/b", "b"), "https://s3.example.org");
        assert_eq!(
            without("https://b.s3.eu-west-1.amazonaws.com", "b"),
            "https://s3.eu-west-1.amazonaws.com"
        );
        assert_eq!(without("https://backup.example.org", "backup"), "https://example.org", "only a hint");
        assert_eq!(without("https://x.supabase.co/storage/v1/s3", "b"), "");
    }

    #[test]
    fn invalid_urls() {
        for given in
            ["ftp://x", "https://", "http://user:secret@host", "https://h?x=1", "https://h#f", "https://a b"]
        {
            let made = Endpoint::new(&Env::of(&[("AWS_ENDPOINT_URL", given)]), &Profile::default(), "b");
            assert!(!made.unwrap_err().message.contains("secret"), "{given}");
        }
        assert!(Endpoint::new(&Env::of(&[("AWS_REGION", "a/b")]), &Profile::default(), "b").is_err());
    }
}
