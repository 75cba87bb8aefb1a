//! The serving certificate: loaded as a pair, reloaded when its content changes (C-42). It must never give up a good
//! pair for one that does not fit.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest;
use jiff::Timestamp;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_cert::der::Decode as _;

use crate::decision::reference::Digest;
use crate::edge::{clock, metrics as names};

/// How often the files are looked at. A file watch would see the first swap of a mounted Secret at most.
pub const POLL: Duration = Duration::from_secs(2);
/// How often a change is read again until it holds still; after that what fits is taken over.
pub(super) const SETTLING: u32 = 3;
/// No certificate chain and no key is larger.
const LARGEST: u64 = 1 << 20;

/// Where the pair stands.
#[derive(Debug, Clone)]
pub struct CertFiles {
    /// PEM: the leaf, then intermediates.
    pub cert: PathBuf,
    /// PEM: the leaf's private key, PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// Why a pair cannot be served. Holds nothing of a key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A file cannot be read.
    #[error("{}: {detail}", file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What the system says.
        detail: String,
    },
    /// A file does not hold what it should.
    #[error("{}: {detail}", file.display())]
    Malformed {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The key is not the certificate's.
    #[error("{} is not the key of {}", key.display(), cert.display())]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The new certificate has ended, and the old one has not.
    #[error("{} expired at {end}", file.display())]
    Expired {
        /// The certificate's file.
        file: PathBuf,
        /// When it ended.
        end: Timestamp,
    },
}

/// The certificate that handshakes are answered with; none before the first pair could be loaded.
#[derive(Debug, Default)]
pub struct ServingCert {
    served: ArcSwapOption<Served>,
}

#[derive(Debug)]
struct Served {
    pair: Arc<CertifiedKey>,
    not_after: Timestamp,
}

impl ResolvesServerCert for ServingCert {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.served.load().as_ref().map(|served| Arc::clone(&served.pair))
    }
}

impl ServingCert {
    /// No certificate yet: handshakes fail until a pair is loaded.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// When the served certificate ends; `None` while there is none.
    #[must_use]
    pub fn not_after(&self) -> Option<Timestamp> {
        self.served.load().as_ref().map(|served| served.not_after)
    }

    /// SHA-256 of the served leaf's DER, and when it ends; `None` while there is none.
    #[must_use]
    pub fn served(&self) -> Option<(Digest, Timestamp)> {
        let served = self.served.load();
        let served = served.as_ref()?;
        let leaf = served.pair.cert.first()?;
        Some((Digest::from_bytes(sha256(leaf)), served.not_after))
    }

    /// Takes a pair of PEM texts over, or keeps the one that it has and says why.
    pub fn offer(&self, files: &CertFiles, cert: &[u8], key: &[u8]) -> Result<Timestamp, LoadError> {
        let served = read_pair(files, cert, key)?;
        let (now, end) = (clock::now(), served.not_after);
        if end <= now && self.not_after().is_some_and(|kept| kept > now) {
            return Err(LoadError::Expired { file: files.cert.clone(), end });
        }
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit into 52 bits")]
        metrics::gauge!(names::CERT_NOT_AFTER_SECONDS).set(end.as_second() as f64);
        self.served.store(Some(Arc::new(served)));
        Ok(end)
    }

    /// Looks at the files every 2 s, for ever, and takes over what changed since `seen` and fits. What does not fit is
    /// said once. `looked` is called after each change that was looked at.
    pub async fn follow(&self, files: &CertFiles, seen: Seen, looked: impl Fn()) {
        self.follow_every(files, seen, POLL, looked).await;
    }

    /// [`ServingCert::follow`] with a period of its own, for tests.
    pub async fn follow_every(&self, files: &CertFiles, mut seen: Seen, period: Duration, looked: impl Fn()) {
        loop {
            tokio::time::sleep(period).await;
            let now = self.look(files, Some(seen.clone())).await;
            if now != seen {
                looked();
            }
            seen = now;
        }
    }

    /// Looks at the files once. Returns what was seen, so that the same content is not judged twice.
    pub async fn look(&self, files: &CertFiles, seen: Option<Seen>) -> Seen {
        let (mut read, mut now) = both(files).await;
        if seen.as_ref() == Some(&now) {
            return now;
        }
        // Two reads that agree: a swap between the two files of one read would pair the old one with the new one.
        for _ in 0..SETTLING {
            let (again, then) = both(files).await;
            let settled = then == now;
            (read, now) = (again, then);
            if settled {
                break;
            }
        }
        match read.and_then(|(cert, key)| self.offer(files, &cert, &key)) {
            Ok(end) => tracing::info!(cert = %files.cert.display(), not_after = %end, "serving certificate loaded"),
            Err(error) => {
                metrics::counter!(names::CERT_LOAD_FAILURES_TOTAL).increment(1);
                if let Some(kept) = self.not_after() {
                    tracing::warn!(%error, "certificate not taken over; the old one is served until {kept}");
                } else {
                    tracing::error!(%error, "no certificate: not ready until there is one; see `provost certs`");
                }
            }
        }
        now
    }
}

type Pair = (Vec<u8>, Vec<u8>);

async fn both(files: &CertFiles) -> (Result<Pair, LoadError>, Seen) {
    let read = match (small_file(&files.cert).await, small_file(&files.key).await) {
        (Ok(cert), Ok(key)) => Ok((cert, key)),
        (Err(error), _) | (_, Err(error)) => Err(error),
    };
    let seen = match &read {
        Ok((cert, key)) => Seen::Content([sha256(cert), sha256(key)]),
        Err(error) => Seen::Unreadable(error.to_string()),
    };
    (read, seen)
}

/// What a look at the files found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The hashes of both files.
    Content([[u8; 32]; 2]),
    /// They could not be read.
    Unreadable(String),
}

fn read_pair(files: &CertFiles, cert: &[u8], key: &[u8]) -> Result<Served, LoadError> {
    let bad_cert = |detail: String| LoadError::Malformed { file: files.cert.clone(), detail };
    let bad_key = |detail: &str| LoadError::Malformed { file: files.key.clone(), detail: detail.to_owned() };
    let chain = CertificateDer::pem_slice_iter(cert)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad_cert(format!("not PEM: {error}")))?;
    let leaf = chain.first().ok_or_else(|| bad_cert("holds no certificate".to_owned()))?;
    let leaf = x509_cert::Certificate::from_der(leaf).map_err(|error| bad_cert(format!("not X.509: {error}")))?;
    let end = leaf.tbs_certificate.validity.not_after.to_system_time();
    let not_after = Timestamp::try_from(end).map_err(|error| bad_cert(format!("its end is no date: {error}")))?;
    // Errors about keys are worded here, so that no byte of one is ever printed.
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| bad_key("holds no private key in PEM"))?;
    let pair = CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| {
        if let rustls::Error::InconsistentKeys(_) = error {
            LoadError::Mismatch { cert: files.cert.clone(), key: files.key.clone() }
        } else if let rustls::Error::InvalidCertificate(detail) = error {
            bad_cert(format!("not a certificate that TLS can use: {detail}"))
        } else {
            bad_key("not a private key that can sign for TLS (ECDSA P-256/384/521, Ed25519, RSA)")
        }
    })?;
    Ok(Served { pair: Arc::new(pair), not_after })
}

pub(super) async fn small_file(file: &Path) -> Result<Vec<u8>, LoadError> {
    use tokio::io::AsyncReadExt as _;
    let unreadable = |error: std::io::Error| LoadError::Unreadable { file: file.to_owned(), detail: error.to_string() };
    let opened = tokio::fs::File::open(file).await.map_err(unreadable)?;
    let mut content = Vec::new();
    opened.take(LARGEST + 1).read_to_end(&mut content).await.map_err(unreadable)?;
    if content.len() as u64 > LARGEST {
        return Err(LoadError::Malformed { file: file.to_owned(), detail: format!("larger than {LARGEST} bytes") });
    }
    Ok(content)
}

pub(super) fn sha256(content: &[u8]) -> [u8; 32] {
    let hash = digest::digest(&digest::SHA256, content);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.as_ref());
    bytes
}
