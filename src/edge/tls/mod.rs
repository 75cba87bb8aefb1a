//! TLS of the review path: the settings, the serving certificate and its reload, and development certificates. It must
//! never serve a certificate with a key that is not its own.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;

pub mod ca;
mod client;
mod serving;
mod watched;

pub use client::{ClientCheck, subject};
pub use serving::{CertFiles, LoadError, POLL, Seen, ServingCert};
pub use watched::Watched;

/// The settings of the review path: TLS 1.2 and 1.3, `http/1.1` only (C-05, C-06), whatever certificate is loaded at
/// the time of a handshake.
pub fn server_config(certificate: Arc<ServingCert>) -> Result<Arc<rustls::ServerConfig>, rustls::Error> {
    with_client_check(certificate, None)
}

/// The same, with client certificates checked where the operator names a CA for them (C-08).
pub fn with_client_check(
    certificate: Arc<ServingCert>,
    check: Option<Arc<ClientCheck>>,
) -> Result<Arc<rustls::ServerConfig>, rustls::Error> {
    let builder = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    let mut config = match check {
        None => builder.with_no_client_auth().with_cert_resolver(certificate),
        Some(check) => {
            let mut config = builder.with_client_cert_verifier(check).with_cert_resolver(certificate);
            // A session that goes on later would bring its certificate along unchecked, whatever became of the CA.
            config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            config
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests;
