//! One S3 request, and its signature (AWS Signature Version 4). Pure: keys and time are arguments.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>

use hmac::Mac;
use rust_s3::Region;
use rust_s3::signing;
use ureq::http::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::outgoing::Meter;
use crate::config::credentials::Keys;
use crate::digest::Sha256;
use crate::utc::Utc;

/// All S3 calls alike.
pub struct Request<'a> {
    pub method: &'static str,
    /// Empty: the bucket itself.
    pub key: &'a str,
    pub query: Vec<(&'static str, String)>,
    /// Lower-case names.
    pub headers: Vec<(&'static str, String)>,
    pub body: &'a [u8],
    /// Of `body`: it is part of the signature, so S3 refuses a body that was damaged on the way.
    pub sha256: Sha256,
    pub meter: Option<Meter<'a>>,
    /// Of the reply's body, in bytes.
    pub max_len: u64,
}

/// The longest reply is a page of a listing: 1,000 keys of up to 1,024 bytes, which may be escaped.
const MAX_REPLY: u64 = 64 << 20;

pub struct Signed {
    pub url: String,
    pub headers: HeaderMap,
}

impl<'a> Request<'a> {
    pub fn new(method: &'static str, key: &'a str) -> Self {
        Request {
            method,
            key,
            query: vec![],
            headers: vec![],
            body: b"",
            sha256: Sha256::of(b""),
            meter: None,
            max_len: MAX_REPLY,
        }
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
    /// `sha256` must be `body`'s.
    pub fn body(mut self, body: &'a [u8], sha256: Sha256) -> Self {
        (self.body, self.sha256) = (body, sha256);
        self
    }

    /// Who is told of the body's bytes as they are sent.
    pub fn meter(mut self, meter: Meter<'a>) -> Self {
        self.meter = Some(meter);
        self
    }

    /// A larger reply is refused.
    pub fn at_most(mut self, bytes: u64) -> Self {
        self.max_len = bytes;
        self
    }

    /// Is the reply's body an object's, whatever that begins with?
    pub fn is_object(&self) -> bool {
        self.method == "GET" && !self.key.is_empty() && self.query.is_empty()
    }

    /// For messages: `PUT key part 1`, without what changes from try to try.
    pub fn describe(&self) -> String {
        let part = self.query.iter().find(|(name, _)| *name == "partNumber");
        let part = part.map(|(_, number)| format!(" part {number}")).unwrap_or_default();
        match self.key {
            "" => "listing the bucket".to_string(),
            key => format!("{} {key}{part}", self.method),
        }
    }

    fn url(&self, bucket_url: &str) -> Result<Url, String> {
        let mut text = format!("{bucket_url}/{}", signing::uri_encode(self.key, false));
        for (n, (name, value)) in self.query.iter().enumerate() {
            text.push(if n == 0 { '?' } else { '&' });
            text.push_str(&format!(
                "{}={}",
                signing::uri_encode(name, true),
                signing::uri_encode(value, true)
            ));
        }
        Url::parse(&text).map_err(|e| format!("'{text}' is not a URL: {e}"))
    }

    pub fn sign(&self, bucket_url: &str, region: &Region, keys: &Keys, now: Utc) -> Result<Signed, String> {
        let url = self.url(bucket_url)?;
        let time = now.date_time();
        let host = match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_string(),
            (None, _) => return Err(format!("'{url}' has no host")),
        };
        let mut headers = HeaderMap::new();
        let mut add = |name: &str, value: &str| -> Result<(), String> {
            let name: HeaderName = name.parse().map_err(|_| format!("header '{name}'"))?;
            let value: HeaderValue =
                value.parse().map_err(|_| format!("the value of header '{name}' cannot be sent"))?;
            headers.insert(name, value);
            Ok(())
        };
        add("host", &host)?;
        add("x-amz-content-sha256", &self.sha256.to_string())?;
        add("x-amz-date", &now.to_string().replace(['-', ':'], ""))?;
        if let Some(token) = &keys.session_token {
            add("x-amz-security-token", token)?;
        }
        self.headers.iter().try_for_each(|(name, value)| add(name, value))?;

        let signature = |headers: &HeaderMap| -> Result<String, rust_s3::error::S3Error> {
            let canonical = signing::canonical_request(self.method, &url, headers, &self.sha256.to_string())?;
            let to_sign = signing::string_to_sign(&time, region, &canonical)?;
            let key = signing::signing_key(&time, &keys.secret_key, region, "s3")?;
            let mac = hmac(&key, to_sign.as_bytes())?;
            let signed = signing::signed_header_string(headers);
            signing::authorization_header(&keys.access_key, &time, region, &signed, &mac)
        };
        let authorization = signature(&headers).map_err(|e| format!("cannot sign: {e}"))?;
        let mut authorization: HeaderValue = authorization
            .parse()
            .map_err(|_| "the access key has characters that cannot be sent".to_string())?;
        authorization.set_sensitive(true);
        headers.insert("authorization", authorization);
        Ok(Signed { url: url.to_string(), headers })
    }
}

/// Lower-case hex.
fn hmac(key: &[u8], message: &[u8]) -> Result<String, rust_s3::error::S3Error> {
    let mut mac = signing::HmacSha256::new_from_slice(key)?;
    mac.update(message);
    Ok(mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(token: Option<&str>) -> Keys {
        Keys {
            access_key: "AKIAIOSFODNN7EXAMPLE".to_string(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_string(),
            session_token: token.map(str::to_string),
            expires: None,
        }
    }
    fn sign(request: &Request, token: Option<&str>) -> Signed {
        let region = Region::Custom { region: "us-east-1".to_string(), endpoint: String::new() };
        let now = Utc::try_from("2013-05-24T00:00:00Z".to_string()).unwrap();
        request.sign("https://examplebucket.s3.amazonaws.com", &region, &keys(token), now).unwrap()
    }

    /// The examples of the page named on top of this file.
    #[test]
    fn aws_own_examples() {
        let get = Request::new("GET", "test.txt").header("range", "bytes=0-9");
        let signed = sign(&get, None);
        let authorization = signed.headers["authorization"].to_str().unwrap();
        assert_eq!(
            authorization,
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
             SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,\
             Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        let list = Request::new("GET", "").query("max-keys", 2).query("prefix", "J");
        let authorization = &sign(&list, None).headers["authorization"];
        let signature = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7";
        assert!(authorization.to_str().unwrap().ends_with(signature));
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
    fn a_session_token_is_signed_and_the_authorization_is_sensitive() {
        let signed = sign(&Request::new("GET", "k"), Some("t"));
        assert!(signed.headers["authorization"].to_str().unwrap().contains(";x-amz-security-token,"));
        assert!(signed.headers["authorization"].is_sensitive());
    }

    #[test]
    fn nothing_can_be_smuggled_into_a_header() {
        let request = Request::new("GET", "k").header("x-amz-storage-class", "A\r\nx-evil: 1");
        let region = Region::Custom { region: "r".to_string(), endpoint: String::new() };
        assert!(request.sign("https://h", &region, &keys(None), Utc::now()).is_err());
    }
}
