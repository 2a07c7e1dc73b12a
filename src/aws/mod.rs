//! The settings of the AWS tools: profiles, credentials, endpoints, proxies, and options of requests. zfs2s3
//! reads the same files and variables.

pub mod credentials;
pub mod endpoint;
pub mod profile;
pub mod proxy;
pub mod region;
pub mod renewal;
pub mod requests;
