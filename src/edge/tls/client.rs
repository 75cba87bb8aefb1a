//! Client certificates (C-08): who may connect, by the CA and the subjects that the operator names. It must never let a
//! certificate in that another CA has signed, or whose subject is not listed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_cert::der::{Decode as _, Tag, Tagged as _};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::serving::{LoadError, POLL};
use super::watched::Watched;

/// `commonName` (RFC 4519, section 2.3).
const COMMON_NAME: x509_cert::der::asn1::ObjectIdentifier =
    x509_cert::der::asn1::ObjectIdentifier::new_unwrap("2.5.4.3");

/// Checks client certificates in the handshake, against a CA that can be changed while it serves.
#[derive(Debug)]
pub struct ClientCheck {
    trusted: ArcSwapOption<Trusted>,
    subjects: Vec<String>,
    mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
struct Trusted(Arc<dyn ClientCertVerifier>);

impl ClientCheck {
    /// Without a CA yet: no certificate is good. `subjects` are common names or DNS names; none: any under the CA.
    /// `mandatory`: whoever shows no certificate is refused too.
    #[must_use]
    pub fn new(subjects: Vec<String>, mandatory: bool) -> Self {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        Self { trusted: ArcSwapOption::empty(), subjects, mandatory, algorithms }
    }

    /// Takes the CAs of a PEM file over, or keeps those that it has and says why. Gives how many there are.
    pub fn offer(&self, file: &Path, pem: &[u8]) -> Result<usize, LoadError> {
        let bad = |detail: String| LoadError::Malformed { file: file.to_owned(), detail };
        let mut roots = RootCertStore::empty();
        for ca in CertificateDer::pem_slice_iter(pem) {
            let ca = ca.map_err(|error| bad(format!("not PEM: {error}")))?;
            roots.add(ca).map_err(|error| bad(format!("not a CA certificate: {error}")))?;
        }
        if roots.is_empty() {
            return Err(bad("holds no certificate".to_owned()));
        }
        let count = roots.len();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| bad(format!("cannot be used: {error}")))?;
        self.trusted.store(Some(Arc::new(Trusted(verifier))));
        Ok(count)
    }

    /// Looks at the file every 2 s, for ever, and takes over what changed and can be used (C-43).
    pub async fn follow(&self, watched: Watched) {
        self.follow_every(watched, POLL).await;
    }

    /// [`ClientCheck::follow`] with a period of its own, for tests.
    pub async fn follow_every(&self, mut watched: Watched, period: Duration) {
        loop {
            tokio::time::sleep(period).await;
            let Some(read) = watched.changed().await else { continue };
            match read.and_then(|pem| self.offer(watched.file(), &pem)) {
                Ok(count) => tracing::info!(file = %watched.file().display(), count, "client CA loaded"),
                Err(error) => tracing::warn!(%error, "client CA not taken over; the old one stays"),
            }
        }
    }
}

impl ClientCertVerifier for ClientCheck {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    /// No hints: they would have to be those of one moment, and callers have one certificate for us.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let trusted = self.trusted.load();
        let Some(Trusted(verifier)) = trusted.as_deref() else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        let proof = verifier.verify_client_cert(end_entity, intermediates, now)?;
        let names = names(end_entity).ok_or(CertificateError::BadEncoding)?;
        if self.subjects.is_empty() || names.iter().any(|name| self.subjects.contains(name)) {
            Ok(proof)
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The name of a certificate that was let in, for the record: its common name, else its first DNS name; empty where it
/// has neither.
#[must_use]
pub fn subject(certificate: &CertificateDer<'_>) -> String {
    names(certificate).and_then(|names| names.into_iter().next()).unwrap_or_default()
}

/// The common name, where there is exactly one, and the DNS names. `None` where the certificate cannot be read.
fn names(certificate: &CertificateDer<'_>) -> Option<Vec<String>> {
    let certificate = x509_cert::Certificate::from_der(certificate).ok()?.tbs_certificate;
    let attributes = certificate.subject.0.iter().flat_map(|part| part.0.iter());
    let mut names: Vec<String> = attributes
        .filter(|attribute| attribute.oid == COMMON_NAME)
        .map(|attribute| {
            let is_text = [Tag::Utf8String, Tag::PrintableString, Tag::Ia5String].contains(&attribute.value.tag());
            let text = std::str::from_utf8(attribute.value.value()).ok()?;
            is_text.then(|| text.to_owned())
        })
        .collect::<Option<_>>()?;
    if names.len() > 1 {
        return None; // Which of them would speak?
    }
    if let Some((_, SubjectAltName(alternatives))) = certificate.get::<SubjectAltName>().ok()? {
        for name in alternatives {
            if let GeneralName::DnsName(name) = name {
                names.push(name.to_string());
            }
        }
    }
    Some(names)
}
