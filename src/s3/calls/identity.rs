//! Whose the credentials are: GetCallerIdentity of STS, which needs no permission.
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html>

use super::{Result, unexpected_reply};
use crate::s3::client::Client;
use crate::s3::reply;
use crate::s3::request::Request;

impl Client {
    /// The ARN of the user or role; none: there is no STS to ask.
    pub fn caller_identity(&self) -> Result<Option<String>> {
        if self.endpoint().sts_url.is_none() {
            return Ok(None);
        }
        let request = Request::sts(b"Action=GetCallerIdentity&Version=2011-06-15");
        let reply = self.send_once(&request.purpose("asking STS whose the credentials are"))?;
        let arn = reply::caller_arn(&reply.body);
        arn.map(Some).map_err(|why| unexpected_reply("STS", "GetCallerIdentity", why))
    }
}
