//! Image registries over HTTP (OCI distribution specification 1.1): bounded, deadline-driven, credentials per exact host.
//! It must never decide what a missing or broken answer means for an image.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::decision::code::Code;
use crate::decision::reference::{Digest, PinnedImage, Repository, Tag};

/// Every way in which a registry call ends without its answer. Closed: unsigned is not unreachable.
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
    #[error("{host} answers 429")]
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
    /// DNS, TCP, TLS, timeout, 5xx, body cut short or encoded.
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
    /// The body is not what the specification says.
    #[error("{detail}")]
    Malformed {
        /// What it is instead.
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
            Self::Malformed { .. } => Code::ManifestInvalid,
            Self::DeadlineExceeded { .. } => Code::DeadlineExceeded,
        }
    }
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
    pub annotations: std::collections::BTreeMap<String, String>,
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
    bytes: std::sync::atomic::AtomicU64,
    requests: std::sync::atomic::AtomicU64,
}

impl Budget {
    /// A budget of so many bytes and requests until a deadline.
    #[must_use]
    pub const fn new(deadline: Instant, bytes: u64, requests: u64) -> Self {
        use std::sync::atomic::AtomicU64;
        Self { deadline, bytes: AtomicU64::new(bytes), requests: AtomicU64::new(requests) }
    }
}

// The contract that the other edges build on; bodies follow in this module:
//
// #[derive(Clone)] pub struct Registry(Arc<..>);
// impl Registry {
//     pub fn new(settings: Settings) -> Result<Self, SettingsError>;
//     /// `GET /v2/<repo>/manifests/<reference>`, at most 4 MiB, all four types in `Accept`.
//     pub async fn manifest(&self, repository: &Repository, by: &ManifestRef, budget: &Budget) -> Result<Manifest, Failure>;
//     /// `HEAD` of the image itself: Ok(true) there, Ok(false) 404.
//     pub async fn exists(&self, image: &PinnedImage, budget: &Budget) -> Result<bool, Failure>;
//     /// `GET /v2/<repo>/referrers/<digest>`, every page.
//     pub async fn referrers(&self, image: &PinnedImage, budget: &Budget) -> Result<Referrers, Failure>;
//     /// A blob: refused unfetched when `size` is over `max`; hashed; compared with `size`.
//     pub async fn blob(&self, repository: &Repository, digest: Digest, size: u64, max: u64, budget: &Budget) -> Result<Bytes, Failure>;
//     /// Which credential would be used, as an opaque keyed hash (part of the cache key); never the credential.
//     pub fn credential_scope(&self, repository: &Repository) -> [u8; 32];
// }
const _: fn(&PinnedImage, &Repository) = |_, _| {};
