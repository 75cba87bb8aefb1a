//! Image registries over HTTP (OCI distribution specification 1.1): bounded, deadline-driven, credentials per exact host.
//! It must never decide what a missing or broken answer means for an image.

mod address;
mod auth;
mod breaker;
mod client;
mod credentials;
mod list;
#[cfg(test)]
pub(crate) mod scripted;
mod settings;
#[cfg(test)]
mod tests;
mod transport;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use tokio::time::Instant;

use crate::decision::code::Code;
use crate::decision::reference::{Digest, Host, PinnedImage, Repository, Tag};
use crate::edge::cores::Cores;

pub use address::{Network, NetworkError};
use breaker::held_back;
use client::{Ask, Client, Reply};
pub use credentials::{DockerConfig, DockerConfigError, MAX_CONFIG};
pub use list::parse_index;
use list::{Pages, parse_page};
pub use settings::{ClientCert, HostSettings, Names, Settings, SettingsError};
use transport::Limit;

/// Longest manifest, index or referrers page, in bytes.
pub const MAX_MANIFEST: u64 = 4 * 1024 * 1024;
/// Media type of an OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of a Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Some registries answer 404 to a narrower `Accept` for a manifest that is there.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// Every way in which a registry call ends without its answer. Closed: unsigned is not unreachable.
///
/// It speaks of the conversation, and of a body as a run of bytes: so long, with this digest. What a document *says* is
/// judged by whoever reads it, and is never a failure of the call; what a reply lacks to be an answer (a redirect that leads
/// nowhere, a list that is none, a token that cannot be read) is never a fault of a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// 404 with a registry's error body, or without one: what was asked for is not there.
    #[error("{what}: not found")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// 401 or 403 after the token exchange, or a realm that is not listed.
    #[error("{detail}")]
    AuthFailed {
        /// Which host refused, and what for. Never a credential.
        detail: String,
    },
    /// 429.
    #[error("{host} answers 429{}", wait(*.retry_after))]
    RateLimited {
        /// Which host.
        host: String,
        /// What its `Retry-After` says.
        retry_after: Option<Duration>,
    },
    /// Host or address outside what the operator allows.
    #[error("{detail}")]
    AddressRefused {
        /// Which, and how to allow it.
        detail: String,
    },
    /// DNS, TCP, TLS, timeout, 5xx, body cut short or encoded, a reply that is no answer to what was asked.
    #[error("{detail}")]
    Unavailable {
        /// Which of these, at which host.
        detail: String,
        /// Whether trying again may help (not so for TLS).
        transient: bool,
    },
    /// A body that is not its digest, or not its declared size.
    #[error("{detail}")]
    DigestMismatch {
        /// What was fetched and what came.
        detail: String,
    },
    /// A limit of bytes, requests or pages.
    #[error("{detail}")]
    BudgetExceeded {
        /// Which limit.
        detail: String,
    },
    /// The deadline of the search passed.
    #[error("the deadline passed while {doing}")]
    DeadlineExceeded {
        /// What was under way.
        doing: String,
    },
}

impl Failure {
    /// The reason code of this failure, where it is about the image itself or about a source as a whole.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::NotFound { .. } => Code::ImageNotFound,
            Self::AuthFailed { .. } => Code::RegistryAuthFailed,
            Self::RateLimited { .. } => Code::RateLimited,
            Self::AddressRefused { .. } => Code::AddressRefused,
            Self::Unavailable { .. } => Code::EvidenceUnavailable,
            Self::DigestMismatch { .. } => Code::DigestMismatch,
            Self::BudgetExceeded { .. } => Code::BudgetExceeded,
            Self::DeadlineExceeded { .. } => Code::DeadlineExceeded,
        }
    }

    /// Whether trying again may help.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::RateLimited { .. } | Self::Unavailable { transient: true, .. } => true,
            Self::Unavailable { transient: false, .. }
            | Self::NotFound { .. }
            | Self::AuthFailed { .. }
            | Self::AddressRefused { .. }
            | Self::DigestMismatch { .. }
            | Self::BudgetExceeded { .. }
            | Self::DeadlineExceeded { .. } => false,
        }
    }
}

fn wait(after: Option<Duration>) -> String {
    after.map(|after| format!(": try again in {} s", after.as_secs())).unwrap_or_default()
}

/// What a manifest is asked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestRef {
    /// By digest: the body is hashed and compared.
    Digest(Digest),
    /// By tag: the body's digest is computed, and the tag proves nothing.
    Tag(Tag),
}

/// A manifest as received.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The body, byte for byte.
    pub bytes: Bytes,
    /// SHA-256 of the body, computed here.
    pub digest: Digest,
    /// `Content-Type` without parameters; informative only.
    pub content_type: String,
}

/// One entry of a referrers list or of an index (OCI image specification, "Content Descriptors").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Media type as written.
    pub media_type: String,
    /// `artifactType`, where written; a hint.
    pub artifact_type: Option<String>,
    /// The digest, checked to be sha256 and well-formed.
    pub digest: Digest,
    /// The size in bytes.
    pub size: u64,
    /// Annotations; hints.
    pub annotations: BTreeMap<String, String>,
    /// Operating system and architecture, where the entry of an index names them.
    pub platform: Option<(String, String)>,
}

/// What the referrers API says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Referrers {
    /// The registry has the API, and this is its list.
    Listed {
        /// The entries, in the registry's order, duplicates dropped.
        entries: Vec<Descriptor>,
        /// False where the server says that it filtered, or where a limit cut the list.
        complete: bool,
        /// The limit that cut the list, where one did.
        cut_by: Option<String>,
    },
    /// The registry has no such API (404, 405, or a redirect to another host): the fallback tag must be asked.
    NoApi,
}

/// What one search may spend. Shared by its concurrent calls.
#[derive(Debug)]
pub struct Budget {
    /// When the search must be over.
    pub deadline: Instant,
    bytes: AtomicU64,
    requests: AtomicU64,
    pauses: Mutex<Pauses>,
}

/// The failures after which calls wait for as long as the registry asked, by number.
#[derive(Debug, Default)]
struct Pauses {
    last: u64,
    open: BTreeMap<u64, (Failure, Instant)>,
}

/// A call that waits, until this is dropped.
#[derive(Debug)]
pub(crate) struct Pause<'a> {
    budget: &'a Budget,
    number: u64,
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.budget.pauses().open.remove(&self.number);
    }
}

impl Budget {
    /// A budget of so many bytes and requests until a deadline.
    #[must_use]
    pub const fn new(deadline: Instant, bytes: u64, requests: u64) -> Self {
        let pauses = Mutex::new(Pauses { last: 0, open: BTreeMap::new() });
        Self { deadline, bytes: AtomicU64::new(bytes), requests: AtomicU64::new(requests), pauses }
    }

    /// Notes that a call waits until then, because the registry asked it to when it failed.
    pub(crate) fn sit_out(&self, failure: &Failure, until: Instant) -> Pause<'_> {
        let mut pauses = self.pauses();
        pauses.last += 1;
        let number = pauses.last;
        pauses.open.insert(number, (failure.clone(), until));
        Pause { budget: self, number }
    }

    /// What the registry said to the calls that now wait for as long as it asked, with the time that is left: the reason for
    /// those who cannot wait so long.
    #[must_use]
    pub fn sitting_out(&self) -> Vec<Failure> {
        let now = Instant::now();
        let pauses = self.pauses();
        pauses.open.values().map(|(failure, until)| held_back(failure, until.duration_since(now))).collect()
    }

    fn pauses(&self) -> MutexGuard<'_, Pauses> {
        // Every change under the lock is a single one.
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that are left.
    #[must_use]
    pub fn bytes_left(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Requests that are left.
    #[must_use]
    pub fn requests_left(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Whether so many bytes are left: asked before a body is read whose length is known.
    fn has_bytes(&self, count: u64) -> Result<(), Failure> {
        if count <= self.bytes_left() { Ok(()) } else { Err(no_bytes()) }
    }

    fn spend_bytes(&self, count: u64) -> Result<(), Failure> {
        spend(&self.bytes, count).ok_or_else(no_bytes)
    }

    fn spend_request(&self) -> Result<(), Failure> {
        spend(&self.requests, 1)
            .ok_or_else(|| Failure::BudgetExceeded { detail: "the requests for this image are used up".to_owned() })
    }
}

/// Takes so much, or nothing where less is left.
fn spend(counter: &AtomicU64, count: u64) -> Option<()> {
    counter.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(count)).ok().map(|_| ())
}

fn no_bytes() -> Failure {
    Failure::BudgetExceeded { detail: "the bytes for this image are used up".to_owned() }
}

/// The registry client. Cheap to clone; all clones share connections, tokens and what is known of each registry.
#[derive(Debug, Clone)]
pub struct Registry(Arc<Client>, Credentials);

/// Whether the operator's credentials may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Credentials {
    Lent,
    Kept,
}

impl Registry {
    /// A client for these settings. An error names the setting that cannot be used.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        Ok(Self(Arc::new(Client::new(settings)?), Credentials::Lent))
    }

    /// The same client for callers who are trusted with no credential (C-08). What the operator's credentials or client
    /// certificates are for is not asked at all: `AuthFailed`. Everything else is asked, and shared, as before.
    #[must_use]
    pub fn without_credentials(&self) -> Self {
        Self(Arc::clone(&self.0), Credentials::Kept)
    }

    /// `GET /v2/<repository>/manifests/<reference>`: a manifest or index of at most 4 MiB, any of the four types.
    ///
    /// By digest, the body must hash to it (`DigestMismatch`). By tag, the digest is only computed.
    pub async fn manifest(
        &self,
        repository: &Repository,
        by: &ManifestRef,
        budget: &Budget,
    ) -> Result<Manifest, Failure> {
        let what = match by {
            ManifestRef::Digest(digest) => format!("the manifest {digest} of {repository}"),
            ManifestRef::Tag(tag) => format!("the manifest {tag} of {repository}"),
        };
        let reference = match by {
            ManifestRef::Digest(digest) => digest.to_string(),
            ManifestRef::Tag(tag) => tag.to_string(),
        };
        let url = self.0.url(repository, &format!("manifests/{reference}"))?;
        let limit = Limit::AtMost(MAX_MANIFEST);
        let ask = Ask { accept: Some(MANIFEST_TYPES), ..Ask::get(repository, &url, limit, &what) };
        let (bytes, digest, headers) = found(self.ask(&ask, budget).await?, &what, repository)?;
        if let ManifestRef::Digest(wanted) = by
            && *wanted != digest
        {
            return Err(mismatch(&what, digest));
        }
        self.0.api.exists(repository).await;
        Ok(Manifest { bytes, digest, content_type: content_type(&headers) })
    }

    /// `GET /v2/<repository>/referrers/<digest>`: what refers to an image, over all pages.
    ///
    /// A host that is known to lack the API is not asked again for an hour.
    pub async fn referrers(&self, image: &PinnedImage, budget: &Budget) -> Result<Referrers, Failure> {
        let repository = image.repository();
        let host = repository.host();
        if self.0.api.known(host).await == Some(false) {
            return Ok(Referrers::NoApi);
        }
        let what = format!("the referrers of {image}");
        let first = self.0.url(repository, &format!("referrers/{}", image.digest()))?;
        let mut pages = Pages::new(first);
        while let Some(url) = pages.next() {
            let ask = Ask {
                accept: Some(OCI_INDEX),
                leave: false,
                ..Ask::get(repository, &url, Limit::AtMost(MAX_MANIFEST), &what)
            };
            match self.ask(&ask, budget).await? {
                Reply::Found { bytes, headers, .. } => {
                    let page = self.0.cores.read(bytes.len(), move || parse_page(&bytes)).await;
                    pages.add(&url, page, &headers, &what)?;
                }
                Reply::Absent { unknown, .. } if pages.is_first() => {
                    if !unknown {
                        self.0.api.lacks(repository, false).await;
                    }
                    return Ok(Referrers::NoApi);
                }
                Reply::Elsewhere if pages.is_first() => {
                    self.0.api.lacks(repository, true).await;
                    return Ok(Referrers::NoApi);
                }
                // The list began, so the API is there, and the rest of it is unanswered.
                Reply::Absent { .. } | Reply::Elsewhere => {
                    let detail = format!("{host} has a first page of {what}, and not the next one that it names");
                    return Err(Failure::Unavailable { detail, transient: false });
                }
            }
        }
        self.0.api.has(host).await;
        Ok(pages.finish())
    }

    /// Whether a host is known to have the referrers API, or known to lack it. Known for an hour.
    pub async fn has_referrers_api(&self, host: &Host) -> Option<bool> {
        self.0.api.known(host).await
    }

    /// `GET /v2/<repository>/blobs/<digest>`: a blob of `size` bytes, as its descriptor says, and of at most `max`.
    ///
    /// `BudgetExceeded`, unfetched, where `size` is over `max`; `DigestMismatch` where digest or size differ.
    pub async fn blob(
        &self,
        repository: &Repository,
        digest: Digest,
        size: u64,
        max: u64,
        budget: &Budget,
    ) -> Result<Bytes, Failure> {
        let what = format!("the blob {digest} of {repository}");
        if size > max {
            return Err(Failure::BudgetExceeded { detail: format!("{what} is {size} bytes, the limit is {max}") });
        }
        let url = self.0.url(repository, &format!("blobs/{digest}"))?;
        let ask = Ask::get(repository, &url, Limit::Exactly(size), &what);
        let (bytes, sum, _) = found(self.ask(&ask, budget).await?, &what, repository)?;
        if sum != digest {
            return Err(mismatch(&what, sum));
        }
        self.0.api.exists(repository).await;
        Ok(bytes)
    }

    /// Which credentials would be used for a repository, as a hash under a key that is made at start. Never a credential.
    /// Where there are none, it is the same with and without the right to use them.
    #[must_use]
    pub fn credential_scope(&self, repository: &Repository) -> [u8; 32] {
        match self.1 {
            Credentials::Kept if self.0.lends(repository) => self.0.refused_scope(),
            Credentials::Kept | Credentials::Lent => self.0.scope(repository),
        }
    }

    /// Where what takes long is computed: lent to whoever works with the answers, so that all of it has one bound.
    #[must_use]
    pub fn cores(&self) -> &Cores {
        &self.0.cores
    }

    async fn ask(&self, ask: &Ask<'_>, budget: &Budget) -> Result<Reply, Failure> {
        if self.1 == Credentials::Kept && self.0.lends(ask.repository) {
            let repository = ask.repository;
            let detail =
                format!("there are credentials for {repository}, and a caller that is not known may not use them");
            return Err(Failure::AuthFailed { detail });
        }
        self.0.ask(ask, budget).await
    }
}

fn found(reply: Reply, what: &str, repository: &Repository) -> Result<(Bytes, Digest, HeaderMap), Failure> {
    match reply {
        Reply::Found { bytes, digest, headers } => Ok((bytes, digest, headers)),
        Reply::Absent { status: StatusCode::NOT_FOUND, .. } => Err(Failure::NotFound { what: what.to_owned() }),
        Reply::Absent { status, .. } => Err(Failure::Unavailable {
            detail: format!("{} answers {} to the request for {what}", repository.host(), status.as_u16()),
            transient: false,
        }),
        Reply::Elsewhere => {
            Err(Failure::AddressRefused { detail: format!("{} redirects {what} elsewhere", repository.host()) })
        }
    }
}

fn mismatch(what: &str, got: Digest) -> Failure {
    Failure::DigestMismatch { detail: format!("{what} hashes to {got}") }
}

/// `Content-Type` without parameters, in lower case.
fn content_type(headers: &HeaderMap) -> String {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Text from outside for a message: at most `max` characters, with everything but printable ASCII escaped.
fn shown(text: &str, max: usize) -> String {
    let mut out = String::new();
    for (index, c) in text.chars().enumerate() {
        if index == max {
            out.push('…');
            break;
        }
        if c == ' ' || c.is_ascii_graphic() { out.push(c) } else { out.extend(c.escape_unicode()) }
    }
    out
}
