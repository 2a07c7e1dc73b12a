//! Checks AWS Signature Version 4 as S3 does, from the raw request. Written from the specification, without
//! code of the program: <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>

use sha2::{Digest, Sha256};

use super::s3::Request;

pub const ACCESS_KEY: &str = "AKIATESTTESTTESTTEST";
pub const SECRET_KEY: &str = "secret/of+the=tests";
pub const REGION: &str = "us-east-1";

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}

fn hmac(key: &[u8], message: &str) -> Vec<u8> {
    let mut block = [0u8; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |with: u8| block.map(|byte| byte ^ with).to_vec();
    let inner = sha256(&[pad(0x36), message.as_bytes().to_vec()].concat());
    sha256(&[pad(0x5c), inner].concat())
}

/// The error code and why, as S3 would put it. `body`: check its hash, too.
pub fn check(request: &Request, body: bool) -> Result<(), (u16, &'static str, String)> {
    let denied = |code, why: &str| Err((403, code, why.to_string()));
    let header = |name: &str| request.header(name).unwrap_or_default();
    let Some(fields) = header("authorization").strip_prefix("AWS4-HMAC-SHA256 ") else {
        return denied("AccessDenied", "no signature");
    };
    let field = |name: &str| {
        let mut parts = fields.split(',').map(str::trim);
        parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
    };
    let date_time = header("x-amz-date");
    let Some(date) = date_time.get(..8) else { return denied("AccessDenied", "no x-amz-date") };
    let service = if request.is_for_sts() { "sts" } else { "s3" };
    let scope = format!("{date}/{REGION}/{service}/aws4_request");
    // with a letter for the host at its end, if there are several
    let is_known = |key: &str| key.trim_end_matches(['A', 'B']) == ACCESS_KEY;
    match field("Credential").split_once('/') {
        Some((key, found)) if is_known(key) && found == scope => {}
        Some((key, found)) if is_known(key) => {
            return Err((400, "AuthorizationHeaderMalformed", found.to_string()));
        }
        _ => {
            return denied(
                "InvalidAccessKeyId",
                "The AWS Access Key Id you provided does not exist in our records.",
            );
        }
    }
    let signed: Vec<&str> = field("SignedHeaders").split(';').collect();
    let must = request.headers.keys().filter(|name| name.starts_with("x-amz-") || *name == "host");
    if let Some(missing) = must.into_iter().find(|name| !signed.contains(&name.as_str())) {
        return denied("AccessDenied", &format!("header {missing} is not signed"));
    }
    let mut query: Vec<&str> = request.query.split('&').filter(|pair| !pair.is_empty()).collect();
    query.sort_unstable();
    let headers: String = signed.iter().map(|name| format!("{name}:{}\n", header(name))).collect();
    let body_hash = header("x-amz-content-sha256");
    let canonical = format!(
        "{}\n{}\n{}\n{headers}\n{}\n{body_hash}",
        request.method,
        request.path,
        query.join("&"),
        signed.join(";")
    );
    let to_sign = format!("AWS4-HMAC-SHA256\n{date_time}\n{scope}\n{}", hex(&sha256(canonical.as_bytes())));
    let mut key = format!("AWS4{SECRET_KEY}").into_bytes();
    for part in [date, REGION, service, "aws4_request"] {
        key = hmac(&key, part);
    }
    if hex(&hmac(&key, &to_sign)) != field("Signature") {
        return denied("SignatureDoesNotMatch", "The request signature we calculated does not match.");
    }
    if body && hex(&sha256(&request.body)) != body_hash {
        return Err((
            400,
            "XAmzContentSHA256Mismatch",
            "The provided hash does not match the body.".to_string(),
        ));
    }
    Ok(())
}
