//! The HTTP agent that all requests of a run share: TLS, proxy, connections, buffers, and time limits for
//! each step.

use std::time::Duration;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;

use super::resolver::{self, Getent};
use crate::config::RemoteSettings;
use crate::error::{Error, Result};

pub fn new(remote: &RemoteSettings) -> Result<ureq::Agent> {
    let mut tls = TlsConfig::builder();
    if let Some(path) = &remote.ca_bundle {
        let cannot =
            |why: String| Error::usage(format!("AWS_CA_BUNDLE: cannot use {}: {why}", path.display()));
        let pem = std::fs::read(path).map_err(|e| cannot(e.to_string()))?;
        tls = tls.root_certs(RootCerts::new_with_certs(&certificates(&pem).map_err(cannot)?));
    }
    // two for each connection, small compared with the chunks
    let connections = remote.memory.most_jobs();
    let buffer = ((4 << 20) / connections).clamp(16 << 10, 128 << 10);
    // a request must not hang; how long a part takes is unknown, so each step has a limit
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("zfs2s3/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity")
        .max_idle_connections(connections + 1)
        .max_idle_connections_per_host(connections + 1)
        .input_buffer_size(buffer)
        .output_buffer_size(buffer)
        .timeout_resolve(Some(Duration::from_secs(30)))
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_per_write(Some(Duration::from_secs(120)))
        .timeout_per_read(Some(Duration::from_secs(300)))
        .timeout_recv_response(Some(remote.reply_limit))
        .tls_config(tls.build())
        .proxy(remote.proxy.as_ref().map(|proxy| proxy.connector.clone()))
        .build();
    Ok(if resolver::IS_STATIC {
        ureq::Agent::with_parts(config, DefaultConnector::default(), Getent)
    } else {
        config.new_agent()
    })
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>, String> {
    let mut found = Vec::new();
    for item in ureq::tls::parse_pem(pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|e| e.to_string())? {
            found.push(certificate);
        }
    }
    if found.is_empty() { Err("there is no certificate in it".to_string()) } else { Ok(found) }
}
