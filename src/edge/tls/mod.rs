//! TLS of the review path: the settings, the serving certificate and its reload, and development certificates. It must
//! never serve a certificate with a key that is not its own.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;

pub mod ca;
mod serving;

pub use serving::{CertFiles, LoadError, Seen, ServingCert};

/// The settings of the review path: TLS 1.2 and 1.3, `http/1.1` only (C-05, C-06), whatever certificate is loaded at
/// the time of a handshake.
pub fn server_config(certificate: Arc<ServingCert>) -> Result<Arc<rustls::ServerConfig>, rustls::Error> {
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests;
