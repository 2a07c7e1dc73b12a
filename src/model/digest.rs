//! SHA-256 digests: of a chunk, and the composite one that S3 makes of several parts. Pure.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::digest::{self, SHA256};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Sha256([u8; 32]);

impl Sha256 {
    pub fn of(bytes: &[u8]) -> Self {
        Sha256::from(digest::digest(&SHA256, bytes))
    }
    /// As in `x-amz-checksum-sha256`.
    pub fn base64(&self) -> String {
        BASE64.encode(self.0)
    }
    /// As S3 writes a composite one: with the number of parts.
    pub fn of_parts(&self, parts: usize) -> String {
        format!("{}-{parts}", self.base64())
    }
}

impl From<digest::Digest> for Sha256 {
    fn from(digest: digest::Digest) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Sha256(bytes)
    }
}

/// Lower-case hex, as `sha256sum` prints it.
impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

impl FromStr for Sha256 {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("'{text}' is not a SHA-256 in hex");
        if text.len() != 64 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
        }
        Ok(Sha256(bytes))
    }
}

serialize_as_text!(Sha256);

/// The SHA-256 of the parts' digests, one after the other: what S3 calls a composite checksum.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html>
pub struct Composite(digest::Context);

impl Default for Composite {
    fn default() -> Self {
        Composite(digest::Context::new(&SHA256))
    }
}

impl Composite {
    pub fn push(&mut self, part: &Sha256) {
        self.0.update(&part.0);
    }
    pub fn sha256(&self) -> Sha256 {
        Sha256::from(self.0.clone().finish())
    }
}

impl<'a> FromIterator<&'a Sha256> for Composite {
    fn from_iter<I: IntoIterator<Item = &'a Sha256>>(parts: I) -> Self {
        let mut composite = Composite::default();
        parts.into_iter().for_each(|part| composite.push(part));
        composite
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_and_base64() {
        let sum = Sha256::of(b"abc");
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sum.to_string(), hex);
        assert_eq!(hex.parse(), Ok(sum));
        assert_eq!(sum.base64(), "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
        for bad in ["", "ba78", &hex.to_uppercase(), &format!("{hex}0"), &"é".repeat(32)] {
            assert!(bad.parse::<Sha256>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn composite_is_the_hash_of_the_hashes() {
        let parts = [Sha256::of(b"a"), Sha256::of(b"b")];
        let composite: Composite = parts.iter().collect();
        let joined = [parts[0].0, parts[1].0].concat();
        assert_eq!(composite.sha256(), Sha256::of(&joined));
        assert_eq!(composite.sha256().of_parts(2), format!("{}-2", Sha256::of(&joined).base64()));
    }
}
