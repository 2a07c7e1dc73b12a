//! What AWS's own tools know of a user: profiles, credentials, endpoints, proxies, and how requests are to be made. zfs2s3 reads the
//! same files and variables.

pub mod credentials;
pub mod endpoint;
pub mod profile;
pub mod proxy;
pub mod region;
pub mod renewal;
pub mod requests;
