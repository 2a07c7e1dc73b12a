//! Which additions of AWS to S3 a server supports. Each is sent until it is refused; if the request is
//! accepted without it, it is omitted for the rest of the run. Pure, except that it remembers this.

use std::sync::atomic::{AtomicU8, Ordering};

use super::failure::Failure;

/// A feature of AWS that other servers may refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Extra {
    /// `Expect: 100-continue`, so that a body is not sent if the request is refused.
    Expect = 1,
    /// The checksum headers of each call: some servers support them only for some calls.
    ChecksumOfUpload = 1 << 1,
    ChecksumOfPart = 1 << 2,
    ChecksumOfObject = 1 << 3,
    ChecksumMode = 1 << 4,
    /// `encoding-type=url`, so that a listing is valid XML whatever the keys are.
    UrlEncoding = 1 << 5,
    /// `Content-MD5`, sent only if a server requires it: for buckets with an Object Lock, on servers that do
    /// not accept SHA-256 instead.
    Md5 = 1 << 6,
    /// `If-Match` with DeleteObject.
    /// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-deletes.html>
    IfMatch = 1 << 7,
}

/// A set of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extras(u8);

impl Extras {
    pub const NONE: Extras = Extras(0);
    /// What is sent to a server that has not been asked yet.
    const AT_FIRST: Extras = Extras(!(Extra::Md5 as u8));

    pub fn has(self, extra: Extra) -> bool {
        self.0 & extra as u8 != 0
    }
    pub fn with(self, extra: Extra) -> Self {
        Extras(self.0 | extra as u8)
    }
    pub fn without(self, extra: Extra) -> Self {
        Extras(self.0 & !(extra as u8))
    }

    /// The extras with which this refused request may be accepted, if any. `carried`: those that it had;
    /// `takes_md5`: may it have Content-MD5?
    pub fn after(self, carried: Extras, takes_md5: bool, failure: &Failure) -> Option<Self> {
        if failure.status == Some(417) {
            return carried.has(Extra::Expect).then(|| self.without(Extra::Expect));
        }
        if takes_md5 && failure.asks_for_md5() && !self.has(Extra::Md5) {
            return Some(self.with(Extra::Md5));
        }
        let refusable = carried.without(Extra::Expect).without(Extra::Md5);
        (failure.is_not_supported() && refusable != Extras::NONE).then_some(Extras(self.0 & !refusable.0))
    }
}

/// What one server supports.
pub struct Dialect(AtomicU8);

impl Dialect {
    /// `upload_checksums`, `download_checksums`: may they be sent where S3 does not require them?
    pub fn new(upload_checksums: bool, download_checksums: bool) -> Self {
        let mut extras = Extras::AT_FIRST;
        if !upload_checksums {
            for extra in [Extra::ChecksumOfUpload, Extra::ChecksumOfPart, Extra::ChecksumOfObject] {
                extras = extras.without(extra);
            }
        }
        if !download_checksums {
            extras = extras.without(Extra::ChecksumMode);
        }
        Dialect(AtomicU8::new(extras.0))
    }

    pub fn extras(&self) -> Extras {
        Extras(self.0.load(Ordering::SeqCst))
    }

    /// A request that was refused with `refused` was accepted with `accepted`.
    pub fn learn(&self, refused: Extras, accepted: Extras) {
        self.0.fetch_and(!(refused.0 & !accepted.0), Ordering::SeqCst);
        self.0.fetch_or(accepted.0 & !refused.0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, code: &str, message: &str) -> Failure {
        let body = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
        Failure::reply("PUT k".to_string(), false, status, |_| None, body.as_bytes())
    }

    #[test]
    fn what_is_omitted_after_a_refusal() {
        let all = Dialect::new(true, true).extras();
        let carried = Extras::NONE.with(Extra::Expect).with(Extra::ChecksumOfPart);
        assert_eq!(all.after(carried, true, &refusal(417, "", "")), Some(all.without(Extra::Expect)));
        for (status, code) in [(400, "InvalidArgument"), (501, "NotImplemented")] {
            let less = all.after(carried, true, &refusal(status, code, ""));
            assert_eq!(less, Some(all.without(Extra::ChecksumOfPart)), "{code}");
        }
        assert_eq!(all.after(Extras::NONE, true, &refusal(400, "InvalidArgument", "")), None, "it had none");
        assert_eq!(all.after(carried, true, &refusal(403, "AccessDenied", "")), None);
        assert_eq!(all.after(carried, true, &refusal(400, "AuthorizationHeaderMalformed", "")), None);
        let md5 = refusal(400, "InvalidRequest", "Content-MD5 HTTP header is required for Put Part requests");
        assert_eq!(all.after(carried, true, &md5), Some(all.with(Extra::Md5)));
        assert_eq!(all.after(Extras::NONE, false, &md5), None);
        assert_eq!(
            all.with(Extra::Md5).after(carried, true, &md5),
            Some(all.with(Extra::Md5).without(Extra::ChecksumOfPart))
        );
    }

    #[test]
    fn a_refusal_is_remembered() {
        let dialect = Dialect::new(true, true);
        let first = dialect.extras();
        dialect.learn(first, first.without(Extra::ChecksumMode).with(Extra::Md5));
        dialect.learn(first, first.without(Extra::Expect));
        let now = dialect.extras();
        assert!(!now.has(Extra::ChecksumMode) && !now.has(Extra::Expect));
        assert!(now.has(Extra::Md5) && now.has(Extra::ChecksumOfPart));
    }

    #[test]
    fn checksums_only_when_required() {
        let extras = Dialect::new(false, true).extras();
        assert!(!extras.has(Extra::ChecksumOfUpload) && !extras.has(Extra::ChecksumOfObject));
        assert!(extras.has(Extra::ChecksumMode));
        assert!(!Dialect::new(true, false).extras().has(Extra::ChecksumMode));
    }
}
