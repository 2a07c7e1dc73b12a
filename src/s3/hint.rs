//! What to try next, judging by the reply of a server, a proxy or the TLS library. Pure.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>

use super::failure::NO_CAPACITY;
use super::reply::ErrorBody;
use crate::aws::endpoint::host_of;
use crate::aws::region::of_host;

/// A reply that is an error.
pub struct Refused<'a> {
    pub status: u16,
    pub said: &'a ErrorBody,
    /// The header `x-amz-bucket-region`.
    pub region: Option<String>,
    pub location: Option<String>,
    /// It has no body, because it answers HEAD.
    pub is_bare_404: bool,
}

pub fn of_reply(refused: &Refused) -> Option<String> {
    let Refused { status, said, .. } = refused;
    let message = said.message.to_lowercase();
    let hint = match said.code.as_str() {
        "SignatureDoesNotMatch" => {
            "the secret key does not match the access key: check AWS_SECRET_ACCESS_KEY or the AWS profile"
        }
        "InvalidAccessKeyId" => UNKNOWN_KEY,
        // Garage
        "AccessDenied" if message.contains("no such key") => UNKNOWN_KEY,
        "ExpiredToken" | "ExpiredTokenException" => "get new credentials; AWS_SESSION_TOKEN may have expired",
        "NoSuchKey" => "the object may have been removed meanwhile, by this host or another",
        "NoSuchBucket" => "create the bucket first ('aws s3 mb'), or set ZFS2S3_BUCKET",
        "RequestTimeTooSkewed" => "the clock of this host is wrong",
        "InvalidObjectState" => {
            "it is in an archive storage class: 'aws s3api restore-object' makes a readable copy"
        }
        "InvalidStorageClass" => STORAGE_CLASS,
        NO_CAPACITY => "S3 has no capacity for expedited retrievals now: try '--tier standard'",
        // Alibaba Cloud OSS
        "SecondLevelDomainForbidden" => "set ZFS2S3_ADDRESSING_STYLE=virtual",
        "PermanentRedirect"
        | "TemporaryRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException" => return Some(other_region(refused)),
        _ if (300..400).contains(status) => return Some(other_region(refused)),
        _ if message.contains("http request to an https server")
            || message.contains("plain http request was sent to https port") =>
        {
            "the server expects https: write https:// in AWS_ENDPOINT_URL"
        }
        "" if *status == 404 && !refused.is_bare_404 => {
            "this is not an answer from S3: check AWS_ENDPOINT_URL, and any proxy in between"
        }
        "AccessDenied" if message.contains("explicit deny") => {
            "a policy forbids this request; if it requires encryption, set ZFS2S3_SSE"
        }
        _ if *status == 403 => PERMISSIONS,
        _ => return None,
    };
    Some(hint.to_string())
}

/// For a refusal whose reason is not known.
pub const PERMISSIONS: &str = "the SECURITY section of the man page lists the required permissions";
pub const STORAGE_CLASS: &str =
    "check ZFS2S3_STORAGE_CLASS: the server may not have this storage class, or have another name for it";
pub const NO_HTTPS: &str = "the server may not support https: write http:// in AWS_ENDPOINT_URL";
pub const NOT_REACHED: &str = "the server has not answered yet: check the network, and AWS_ENDPOINT_URL or AWS_REGION, which name the server";
pub const PROXY_PASSWORD: &str =
    "the proxy requires a user name and a password: http://NAME:PASSWORD@HOST:PORT";
pub const UNKNOWN_KEY: &str =
    "the server does not know the access key: check AWS_ACCESS_KEY_ID, AWS_PROFILE and AWS_ENDPOINT_URL";

fn other_region(refused: &Refused) -> String {
    let said = refused.said;
    let named = refused.region.as_deref().filter(|region| !region.is_empty());
    let in_body = Some(said.region.as_str()).filter(|region| !region.is_empty());
    let in_words = || said.message.split_once("expecting '").and_then(|(_, rest)| rest.split('\'').next());
    let urls = [Some(said.endpoint.as_str()), refused.location.as_deref()];
    let by_host = || urls.into_iter().flatten().find_map(|url| of_host(host_of(url)));
    match named.or(in_body).map(str::to_string).or_else(|| in_words().map(str::to_string)).or_else(by_host) {
        Some(region) => format!("the bucket is in another region: set AWS_REGION={region}"),
        None => match &refused.location {
            Some(location) => {
                format!("the server redirects to {location}: check AWS_ENDPOINT_URL and AWS_REGION")
            }
            None => "the bucket is in another region: set AWS_REGION".to_string(),
        },
    }
}

/// For a failed handshake, by the message of rustls.
pub fn of_tls(said: &str, host: &str) -> String {
    if said.contains("CaUsedAsEndEntity") {
        return format!(
            "the server's own certificate is marked as one of an authority, which is not accepted; make one that is not: \
             openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -keyout key.pem -out cert.pem -subj /CN={host} \
             -addext basicConstraints=critical,CA:FALSE -addext subjectAltName={}:{host}, and name cert.pem in AWS_CA_BUNDLE",
            if matches!(url::Host::parse(host), Ok(url::Host::Domain(_))) { "DNS" } else { "IP" }
        );
    }
    let hint = if said.contains("UnknownIssuer") {
        "AWS_CA_BUNDLE must name the authorities to trust, or the server's own certificate"
    } else if said.contains("xpired") || said.contains("not valid yet") || said.contains("NotValidYet") {
        "renew the server's certificate, or check the clock of this host"
    } else if said.contains("not valid for name") || said.contains("NotValidForName") {
        "the certificate is for another name: check AWS_ENDPOINT_URL"
    } else if said.contains("corrupt message") {
        NO_HTTPS
    } else {
        "check AWS_ENDPOINT_URL and AWS_CA_BUNDLE"
    };
    hint.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(status: u16, code: &str, message: &str) -> String {
        let said = ErrorBody { code: code.to_string(), message: message.to_string(), ..ErrorBody::default() };
        let refused = Refused { status, said: &said, region: None, location: None, is_bare_404: false };
        of_reply(&refused).unwrap_or_default()
    }

    #[test]
    fn each_refusal_and_its_hint() {
        for (status, code, message, part) in [
            (403, "SignatureDoesNotMatch", "", "AWS_SECRET_ACCESS_KEY"),
            (403, "InvalidAccessKeyId", "", "AWS_ACCESS_KEY_ID"),
            (403, "AccessDenied", "Forbidden: No such key: GK31c2f218a2e44f485b94239e", "AWS_ACCESS_KEY_ID"),
            (403, "AccessDenied", "Access Denied", "SECURITY"),
            (403, "AccessDenied", "… with an explicit deny in a resource-based policy", "ZFS2S3_SSE"),
            (403, "SecondLevelDomainForbidden", "", "ZFS2S3_ADDRESSING_STYLE=virtual"),
            (400, "ExpiredToken", "", "AWS_SESSION_TOKEN"),
            (404, "NoSuchBucket", "", "ZFS2S3_BUCKET"),
            (403, "RequestTimeTooSkewed", "", "clock"),
            (403, "InvalidObjectState", "", "restore-object"),
            (400, "InvalidStorageClass", "", "ZFS2S3_STORAGE_CLASS"),
            (503, "GlacierExpeditedRetrievalNotAvailable", "", "--tier standard"),
            (400, "", "Client sent an HTTP request to an HTTPS server.", "https://"),
            (400, "", "The plain HTTP request was sent to HTTPS port", "https://"),
            (404, "", "", "not an answer from S3"),
            (400, "AuthorizationHeaderMalformed", "the region is wrong; expecting 'eu-west-1'", "=eu-west-1"),
            (400, "InvalidRequest", "", ""),
        ] {
            let hint = hint(status, code, message);
            assert!(hint.contains(part) && part.is_empty() == hint.is_empty(), "{code} {message}: {hint}");
        }
    }

    #[test]
    fn another_region_is_named_wherever_the_server_names_it() {
        let said = |region: &str, endpoint: &str| ErrorBody {
            region: region.to_string(),
            endpoint: endpoint.to_string(),
            ..ErrorBody::default()
        };
        let hint = |said: &ErrorBody, header: Option<&str>, location: Option<&str>| {
            let refused = Refused {
                status: 307,
                said,
                region: header.map(str::to_string),
                location: location.map(str::to_string),
                is_bare_404: false,
            };
            of_reply(&refused).unwrap()
        };
        let set = "the bucket is in another region: set AWS_REGION=eu-west-3";
        assert_eq!(hint(&said("", ""), Some("eu-west-3"), None), set);
        assert_eq!(hint(&said("eu-west-3", ""), None, None), set);
        assert_eq!(hint(&said("", "b.s3.eu-west-3.amazonaws.com"), None, None), set);
        assert_eq!(hint(&said("", ""), None, Some("https://b.s3.eu-west-3.amazonaws.com/k")), set);
        let elsewhere = hint(&said("", ""), None, Some("https://login.example.org/"));
        assert!(elsewhere.contains("redirects to https://login.example.org/"), "{elsewhere}");
    }

    #[test]
    fn hints_for_tls_errors() {
        let hint = |said: &str| of_tls(said, "nas.lan");
        assert!(hint("invalid peer certificate: UnknownIssuer").contains("AWS_CA_BUNDLE"));
        assert!(hint("invalid peer certificate: certificate expired: …").contains("clock"));
        assert!(hint("received corrupt message of type InvalidContentType").contains("http://"));
        let made = hint("invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))");
        assert!(made.contains("openssl req -x509") && made.contains("DNS:nas.lan"), "{made}");
        assert!(of_tls("CaUsedAsEndEntity", "10.0.0.2").contains("IP:10.0.0.2"));
    }
}
