//! S3: a model of requests and replies (pure), a client that signs, sends and retries, and the calls that
//! zfs2s3 makes.

mod agent;
pub mod calls;
pub mod client;
pub mod configuration;
mod dialect;
pub mod failure;
mod hint;
mod no_answer;
pub mod reply;
mod request;
mod request_body;
mod resolver;
mod retry;
