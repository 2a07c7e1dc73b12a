//! Settings for requests: encryption by S3, who pays, the expected owner of the bucket, and checksums. Pure.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateMultipartUpload.html>

use super::profile::Profile;
use crate::error::{Error, Result};
use crate::os::env::Env;

type Headers = Vec<(&'static str, String)>;

/// May checksums be sent, and requested, where S3 does not require them?
/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-dataintegrity.html>
pub struct Checksums {
    pub upload: bool,
    pub download: bool,
}

impl Checksums {
    pub fn new(env: &Env, profile: &Profile) -> Result<Self> {
        let supported = |variable: &str, setting: &str| {
            let value = env.get(variable).or(profile.get(setting)).unwrap_or("when_supported");
            match value.to_lowercase().as_str() {
                "when_supported" => Ok(true),
                "when_required" => Ok(false),
                _ => Err(Error::setting(
                    variable,
                    format!("'{value}' is neither when_supported nor when_required"),
                )),
            }
        };
        Ok(Checksums {
            upload: supported("AWS_REQUEST_CHECKSUM_CALCULATION", "request_checksum_calculation")?,
            download: supported("AWS_RESPONSE_CHECKSUM_VALIDATION", "response_checksum_validation")?,
        })
    }
}

/// Headers of every request.
pub fn headers(env: &Env) -> Result<Headers> {
    let mut headers = Headers::new();
    match env.get("ZFS2S3_REQUEST_PAYER") {
        None => {}
        Some(payer @ "requester") => headers.push(("x-amz-request-payer", payer.to_string())),
        Some(other) => {
            return Err(Error::setting("ZFS2S3_REQUEST_PAYER", format!("'{other}' is not 'requester'")));
        }
    }
    if let Some(owner) = env.get("ZFS2S3_EXPECTED_BUCKET_OWNER") {
        if !owner.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(Error::setting(
                "ZFS2S3_EXPECTED_BUCKET_OWNER",
                format!("'{owner}' is not the ID of an account"),
            ));
        }
        headers.push(("x-amz-expected-bucket-owner", owner.to_string()));
    }
    Ok(headers)
}

/// Headers of requests that create an object.
pub fn encryption(env: &Env) -> Result<Headers> {
    let mut headers = Headers::new();
    let key = env.get("ZFS2S3_SSE_KMS_KEY_ID");
    let kind = match (env.get("ZFS2S3_SSE"), key) {
        (None, None) => return Ok(headers),
        (None, Some(_)) => "aws:kms",
        (Some(kind @ ("AES256" | "aws:kms" | "aws:kms:dsse")), _) => kind,
        (Some(other), _) => {
            return Err(Error::setting(
                "ZFS2S3_SSE",
                format!("'{other}' is not AES256, aws:kms or aws:kms:dsse"),
            ));
        }
    };
    headers.push(("x-amz-server-side-encryption", kind.to_string()));
    if let Some(key) = key {
        if kind == "AES256" {
            return Err(Error::setting(
                "ZFS2S3_SSE_KMS_KEY_ID",
                "a KMS key cannot be used with ZFS2S3_SSE=AES256",
            ));
        }
        if !key.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::setting(
                "ZFS2S3_SSE_KMS_KEY_ID",
                "it has characters that a key ID cannot have",
            ));
        }
        headers.push(("x-amz-server-side-encryption-aws-kms-key-id", key.to_string()));
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encryption_by_s3() {
        let made = |pairs: &[(&str, &str)]| encryption(&Env::of(pairs)).map(|headers| format!("{headers:?}"));
        assert_eq!(made(&[]).unwrap(), "[]");
        assert!(made(&[("ZFS2S3_SSE", "AES256")]).unwrap().contains("AES256"));
        let kms = made(&[("ZFS2S3_SSE_KMS_KEY_ID", "arn:aws:kms:eu-west-1:1:key/x")]).unwrap();
        assert!(
            kms.contains("aws:kms\"") && kms.contains("-aws-kms-key-id\", \"arn:aws:kms:eu-west-1:1:key/x")
        );
        assert!(made(&[("ZFS2S3_SSE", "aes")]).is_err());
        assert!(made(&[("ZFS2S3_SSE", "AES256"), ("ZFS2S3_SSE_KMS_KEY_ID", "k")]).is_err());
        assert!(made(&[("ZFS2S3_SSE_KMS_KEY_ID", "a\r\nb")]).is_err());
    }

    #[test]
    fn requester_pays_and_the_expected_owner() {
        let made = |pairs: &[(&str, &str)]| headers(&Env::of(pairs));
        let both = [("ZFS2S3_REQUEST_PAYER", "requester"), ("ZFS2S3_EXPECTED_BUCKET_OWNER", "111122223333")];
        assert_eq!(made(&both).unwrap().len(), 2);
        assert!(made(&[("ZFS2S3_REQUEST_PAYER", "me")]).is_err());
        assert!(made(&[("ZFS2S3_EXPECTED_BUCKET_OWNER", "a b")]).is_err());
    }

    #[test]
    fn checksums_as_aws_settings_say() {
        let made = |value: &str| {
            let env = Env::of(&[("AWS_REQUEST_CHECKSUM_CALCULATION", value)]);
            Checksums::new(&env, &Profile::default())
        };
        assert!(!made("when_required").unwrap().upload && made("WHEN_SUPPORTED").unwrap().upload);
        assert!(made("never").is_err());
    }
}
