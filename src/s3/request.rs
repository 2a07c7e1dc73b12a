//! One S3 request, and its signature (AWS Signature Version 4). Pure: credentials and time are arguments.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::hmac;
use rust_s3::Region;
use rust_s3::signing;
use ureq::http::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::dialect::{Extra, Extras};
use crate::aws::credentials::Credentials;
use crate::model::digest::Sha256;
use crate::model::traffic::{Meter, Traffic};
use crate::model::utc::Utc;

/// Any S3 call, or one of STS.
pub struct Request<'a> {
    /// `s3` or `sts`.
    pub service: &'static str,
    pub method: &'static str,
    /// Empty: the bucket itself.
    pub key: &'a str,
    pub query: Vec<(&'static str, String)>,
    /// Lower-case names.
    pub headers: Vec<(&'static str, String)>,
    /// Headers that some servers do not understand.
    extra_headers: Vec<(Extra, &'static str, String)>,
    /// Query parameters that some servers do not understand.
    extra_query: Vec<(Extra, &'static str, &'static str)>,
    pub body: &'a [u8],
    /// The SHA-256 of `body`. It is part of the signature, so S3 refuses a body that was damaged in transit.
    pub sha256: Sha256,
    /// Called as the data are sent or received.
    pub meter: Option<Meter<'a>>,
    /// What it asks of the bucket, for messages.
    purpose: &'static str,
    /// Limit for the body of the reply, in bytes.
    pub max_len: u64,
}

/// The longest reply is a page of a listing: 1,000 keys of up to 1,024 bytes, possibly escaped.
const MAX_REPLY: u64 = 64 << 20;

/// To wait for the server's consent takes a round trip: less than sending a larger body in vain. Bytes.
const EXPECT_FROM: usize = 1 << 20;

/// Everything that a signature depends on.
#[derive(Clone, Copy)]
pub struct Signing<'a> {
    /// Of the bucket, or of STS.
    pub url: &'a str,
    pub region: &'a Region,
    pub extras: Extras,
    /// Headers of every request.
    pub headers: &'a [(&'static str, String)],
    pub credentials: &'a Credentials,
    pub now: Utc,
}

pub struct Signed {
    pub url: String,
    pub headers: HeaderMap,
}

impl<'a> Request<'a> {
    pub fn new(method: &'static str, key: &'a str) -> Self {
        Request {
            service: "s3",
            method,
            key,
            query: vec![],
            headers: vec![],
            extra_headers: vec![],
            extra_query: vec![],
            body: b"",
            sha256: Sha256::of(b""),
            meter: None,
            purpose: "listing the bucket",
            max_len: MAX_REPLY,
        }
    }
    /// A call of STS. `body`: its parameters.
    pub fn sts(body: &'a [u8]) -> Self {
        let request = Request::new("POST", "").body(body, Sha256::of(body)).at_most(64 << 10);
        Request { service: "sts", ..request.header("content-type", "application/x-www-form-urlencoded") }
    }
    pub fn query(mut self, name: &'static str, value: impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
    pub fn header_if(self, wanted: bool, name: &'static str, value: impl Into<String>) -> Self {
        if wanted { self.header(name, value) } else { self }
    }
    pub fn headers(mut self, headers: &[(&'static str, String)]) -> Self {
        self.headers.extend_from_slice(headers);
        self
    }
    pub fn extra_header(mut self, extra: Extra, name: &'static str, value: impl Into<String>) -> Self {
        self.extra_headers.push((extra, name, value.into()));
        self
    }
    pub fn extra_query(mut self, extra: Extra, name: &'static str, value: &'static str) -> Self {
        self.extra_query.push((extra, name, value));
        self
    }
    /// The SHA-256 of the body, in the headers of the AWS SDKs.
    pub fn checksum(self, extra: Extra) -> Self {
        let sum = self.sha256.base64();
        self.extra_header(extra, "x-amz-checksum-sha256", sum).extra_header(
            extra,
            "x-amz-sdk-checksum-algorithm",
            "SHA256",
        )
    }

    pub fn takes_md5(&self) -> bool {
        self.method == "PUT"
    }

    /// Those of `extras` that this request has.
    pub fn carried(&self, extras: Extras) -> Extras {
        let headers = self.extra_headers.iter().map(|(extra, ..)| *extra);
        let all = headers.chain(self.extra_query.iter().map(|(extra, ..)| *extra));
        all.filter(|extra| extras.has(*extra)).fold(Extras::NONE, Extras::with)
    }
    /// `sha256` must be that of `body`.
    pub fn body(mut self, body: &'a [u8], sha256: Sha256) -> Self {
        (self.body, self.sha256) = (body, sha256);
        self
    }

    pub fn meter(mut self, meter: Meter<'a>) -> Self {
        self.meter = Some(meter);
        self
    }

    pub fn note(&self, traffic: Traffic) {
        self.meter.into_iter().for_each(|meter| meter(traffic));
    }

    /// A body that may be large.
    pub fn data(self, body: &'a [u8], sha256: Sha256, meter: Meter<'a>) -> Self {
        let request = self.body(body, sha256).meter(meter);
        if body.len() < EXPECT_FROM {
            return request;
        }
        request.extra_header(Extra::Expect, "expect", "100-continue")
    }

    /// What a request about the bucket asks, for messages, such as `reading the lifecycle rules`.
    pub fn purpose(mut self, purpose: &'static str) -> Self {
        self.purpose = purpose;
        self
    }

    /// A larger reply is refused.
    pub fn at_most(mut self, bytes: u64) -> Self {
        self.max_len = bytes;
        self
    }

    /// Is the body of the reply an object, whatever it begins with?
    pub fn is_object(&self) -> bool {
        self.method == "GET" && !self.key.is_empty() && self.query.is_empty()
    }

    /// For messages: `PUT key part 1`, without what differs between attempts.
    pub fn describe(&self) -> String {
        let part = self.query.iter().find(|(name, _)| *name == "partNumber");
        let part = part.map(|(_, number)| format!(" part {number}")).unwrap_or_default();
        match self.key {
            "" => self.purpose.to_string(),
            key => format!("{} {key}{part}", self.method),
        }
    }

    fn url(&self, base: &str, extras: Extras) -> Result<Url, String> {
        let mut text = format!("{base}/{}", signing::uri_encode(self.key, false));
        let query = self.query.iter().map(|(name, value)| (*name, value.as_str()));
        let extra = self.extra_query.iter().filter(|(extra, ..)| extras.has(*extra));
        let extra = extra.map(|(_, name, value)| (*name, *value));
        for (n, (name, value)) in query.chain(extra).enumerate() {
            text.push(if n == 0 { '?' } else { '&' });
            text.push_str(&format!(
                "{}={}",
                signing::uri_encode(name, true),
                signing::uri_encode(value, true)
            ));
        }
        Url::parse(&text).map_err(|e| format!("'{text}' is not a URL: {e}"))
    }

    fn canonical(&self, url: &Url, headers: &HeaderMap) -> Result<String, rust_s3::error::S3Error> {
        Ok([
            self.method,
            &signing::canonical_uri_string(url),
            &signing::canonical_query_string(url),
            &canonical_headers(headers)?,
            &signing::signed_header_string(headers),
            &self.sha256.to_string(),
        ]
        .join("\n"))
    }

    /// Headers that a proxy may consume or change are not signed: `Expect`, `Range`. S3 requires Host,
    /// Content-Type and everything that begins with x-amz-.
    pub fn sign(&self, with: &Signing) -> Result<Signed, String> {
        let Signing { url, region, extras, headers: for_all, credentials, now } = *with;
        let url = self.url(url, extras)?;
        let time = now.date_time();
        let host = match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_string(),
            (None, _) => return Err(format!("'{url}' has no host")),
        };
        let mut headers = HeaderMap::new();
        let mut unsigned = HeaderMap::new();
        let mut add = |name: &str, value: &str| -> Result<(), String> {
            let is_signed = is_signed(name);
            let name: HeaderName = name.parse().map_err(|_| format!("header '{name}'"))?;
            let value: HeaderValue =
                value.parse().map_err(|_| format!("the value of header '{name}' cannot be sent"))?;
            if is_signed { &mut headers } else { &mut unsigned }.insert(name, value);
            Ok(())
        };
        add("host", &host)?;
        add("x-amz-content-sha256", &self.sha256.to_string())?;
        let date_time = now.to_string().replace(['-', ':'], "");
        add("x-amz-date", &date_time)?;
        if let Some(token) = &credentials.session_token {
            add("x-amz-security-token", token)?;
        }
        for_all.iter().chain(&self.headers).try_for_each(|(name, value)| add(name, value))?;
        let extra = self.extra_headers.iter().filter(|(extra, ..)| extras.has(*extra));
        extra.into_iter().try_for_each(|(_, name, value)| add(name, value))?;
        if extras.has(Extra::Md5) && self.takes_md5() {
            add("content-md5", &md5_base64(self.body))?;
        }

        let signature = |headers: &HeaderMap| -> Result<String, rust_s3::error::S3Error> {
            let canonical = self.canonical(&url, headers)?;
            let scope = signing::scope_string(&time, region)?;
            let scope = scope.replace("/s3/aws4_request", &format!("/{}/aws4_request", self.service));
            let hash = Sha256::of(canonical.as_bytes());
            let to_sign = format!("AWS4-HMAC-SHA256\n{date_time}\n{scope}\n{hash}");
            let key = signing::signing_key(&time, &credentials.secret_key, region, self.service)?;
            let mac = hmac(&key, to_sign.as_bytes());
            let (access_key, signed) = (&credentials.access_key, signing::signed_header_string(headers));
            Ok(format!(
                "AWS4-HMAC-SHA256 Credential={access_key}/{scope},SignedHeaders={signed},Signature={mac}"
            ))
        };
        let authorization = signature(&headers).map_err(|e| format!("cannot sign: {e}"))?;
        let mut authorization: HeaderValue = authorization
            .parse()
            .map_err(|_| "the access key has characters that cannot be sent".to_string())?;
        authorization.set_sensitive(true);
        headers.insert("authorization", authorization);
        headers.extend(unsigned);
        Ok(Signed { url: url.to_string(), headers })
    }
}

/// Sorts by name. The library sorts whole lines, which puts `a-b:` before `a:`.
fn canonical_headers(headers: &HeaderMap) -> Result<String, rust_s3::error::S3Error> {
    let mut lines = Vec::new();
    for (name, value) in headers {
        lines.push((name.as_str(), value.to_str()?.trim()));
    }
    lines.sort_unstable();
    Ok(lines.iter().map(|(name, value)| format!("{name}:{value}\n")).collect())
}

fn is_signed(header: &str) -> bool {
    header.starts_with("x-amz-") || matches!(header, "host" | "content-type" | "content-md5")
}

fn md5_base64(body: &[u8]) -> String {
    BASE64.encode(md5::compute(body).0)
}

/// Lower-case hex.
fn hmac(key: &[u8], message: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::dialect::Dialect;
    use super::*;

    fn credentials(token: Option<&str>) -> Credentials {
        Credentials {
            access_key: "AKIAIOSFODNN7EXAMPLE".to_string(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_string(),
            session_token: token.map(str::to_string),
            expires: None,
        }
    }
    fn signed_with(
        request: &Request,
        bucket_url: &str,
        extras: Extras,
        credentials: &Credentials,
    ) -> Result<Signed, String> {
        let region = Region::Custom { region: "us-east-1".to_string(), endpoint: String::new() };
        let now = Utc::try_from("2013-05-24T00:00:00Z".to_string()).unwrap();
        request.sign(&Signing { url: bucket_url, region: &region, extras, headers: &[], credentials, now })
    }
    fn sign(request: &Request, token: Option<&str>) -> Signed {
        let extras = Dialect::new(true, true).extras();
        signed_with(request, "https://examplebucket.s3.amazonaws.com", extras, &credentials(token)).unwrap()
    }

    /// The examples of the page that is named at the top of this file.
    #[test]
    fn aws_own_examples() {
        for (request, signature) in [
            (
                Request::new("GET", "").query("lifecycle", ""),
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            ),
            (
                Request::new("GET", "").query("max-keys", 2).query("prefix", "J"),
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ] {
            let signed = sign(&request, None);
            let authorization = signed.headers["authorization"].to_str().unwrap();
            assert_eq!(
                authorization,
                format!(
                    "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
                     SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature={signature}"
                )
            );
        }
    }

    #[test]
    fn headers_that_a_proxy_may_change_are_not_signed() {
        let request = Request::new("PUT", "k")
            .header("range", "bytes=0-9")
            .header("content-type", "application/xml")
            .extra_header(Extra::Expect, "expect", "100-continue");
        let signed = sign(&request, None);
        assert!(signed.headers.contains_key("expect") && signed.headers.contains_key("range"));
        let authorization = signed.headers["authorization"].to_str().unwrap();
        assert!(
            authorization.contains("SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date,"),
            "{authorization}"
        );
    }

    #[test]
    fn what_a_server_does_not_support_is_omitted() {
        let body = b"abc";
        let request = Request::new("PUT", "k")
            .body(body, Sha256::of(body))
            .checksum(Extra::ChecksumOfObject)
            .extra_query(Extra::UrlEncoding, "encoding-type", "url");
        let with = |extras| signed_with(&request, "https://h", extras, &credentials(None)).unwrap();
        let all = with(Extras::NONE.with(Extra::ChecksumOfObject).with(Extra::UrlEncoding).with(Extra::Md5));
        assert_eq!(all.url, "https://h/k?encoding-type=url");
        assert_eq!(all.headers["x-amz-checksum-sha256"], "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
        assert_eq!(all.headers["x-amz-sdk-checksum-algorithm"], "SHA256");
        assert_eq!(all.headers["content-md5"], "kAFQmDzST7DWlj99KOF/cg==");
        let none = with(Extras::NONE);
        assert_eq!(none.url, "https://h/k");
        assert!(!none.headers.keys().any(|name| name.as_str().contains("checksum") || name == "content-md5"));
    }

    #[test]
    fn names_with_spaces_and_signs_are_escaped_once() {
        let put = Request::new("PUT", "a b+c/t@x:1/g-full.zfs").query("uploadId", "a+/=& b");
        let signed = sign(&put, None);
        assert_eq!(
            signed.url,
            "https://examplebucket.s3.amazonaws.com/a%20b%2Bc/t%40x%3A1/g-full.zfs?uploadId=a%2B%2F%3D%26%20b"
        );
    }

    #[test]
    fn headers_are_sorted_by_name() {
        let mut headers = HeaderMap::new();
        for name in ["x-amz-server-side-encryption-aws-kms-key-id", "x-amz-server-side-encryption", "host"] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("v"));
        }
        let text = canonical_headers(&headers).unwrap();
        assert_eq!(
            text,
            "host:v\nx-amz-server-side-encryption:v\nx-amz-server-side-encryption-aws-kms-key-id:v\n"
        );
    }

    #[test]
    fn a_session_token_is_signed_and_the_authorization_is_sensitive() {
        let signed = sign(&Request::new("GET", "k"), Some("t"));
        assert!(signed.headers["authorization"].to_str().unwrap().contains(";x-amz-security-token,"));
        assert!(signed.headers["authorization"].is_sensitive());
    }

    #[test]
    fn nothing_can_be_smuggled_into_a_header() {
        let request = Request::new("GET", "k").header("x-amz-storage-class", "A\r\nx-evil: 1");
        assert!(signed_with(&request, "https://h", Extras::NONE, &credentials(None)).is_err());
    }
}
