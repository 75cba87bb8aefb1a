//! What has been proven about an image, as plain data. It must never say whether that is enough.
//!
//! Edges make these values from bytes; [`super::decide`] judges them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::code::Code;
use super::policy::{KeyScheme, PublicKey};
use super::reference::{Digest, PinnedImage};

/// What is asked about one image: a fact-finding order, without any rule about what would be enough.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Question {
    /// The image.
    pub image: PinnedImage,
    /// Keys under which signatures are looked for; empty: no signatures are asked for.
    pub keys: BTreeSet<AskedKey>,
    /// Whether the children of an index must be known (a deny-list names digests that may be among them).
    pub children: bool,
}

/// A key as an edge needs it. Its window is no part of the question: that is judged later.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskedKey {
    /// SHA-256 of `spki`.
    pub fingerprint: Digest,
    /// How it signs.
    pub scheme: KeyScheme,
    /// DER `SubjectPublicKeyInfo`.
    pub spki: Arc<[u8]>,
}

impl From<&PublicKey> for AskedKey {
    fn from(key: &PublicKey) -> Self {
        Self { fingerprint: key.fingerprint, scheme: key.scheme, spki: Arc::clone(&key.spki) }
    }
}

/// The answer to one [`Question`].
#[derive(Debug, Clone)]
pub struct Answer {
    /// What was found.
    pub facts: Arc<Facts>,
    /// Where the facts come from.
    pub origin: Origin,
}

/// Where an answer's facts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Fetched for this review, or for one that waited with it.
    Fetched,
    /// Kept from an earlier fetch.
    Cached,
    /// Kept longer than it should be, while the registry does not answer; how old it is.
    Stale(Duration),
}

/// Everything that was learned about one image. An empty value with `exhausted` unset proves nothing and denies nothing.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// What was verified.
    pub statements: Vec<VerifiedStatement>,
    /// What was looked at and proved nothing, with the reason; at most ten are kept.
    pub rejected: Vec<Rejected>,
    /// Sources that gave no answer. Where there is one, nothing may be called absent.
    pub unanswered: Vec<Unanswered>,
    /// What is wrong with the image itself, whatever hangs on it.
    pub image_fault: Option<Rejected>,
    /// Runnable children of the image, empty where it is no index; `None` where the manifest was not fetched.
    pub children: Option<Vec<Digest>>,
    /// The limit that ended the search early, where one did.
    pub limit: Option<String>,
    /// Every source was asked to its end. Where unset, the search may be resumed.
    pub exhausted: bool,
    /// Signature checks that the search took: pairs of candidate and key. Of a search to its end it is a property of what the
    /// registry holds; of one that stopped early it also depends on what came first.
    pub checks: usize,
}

impl Facts {
    /// Facts that say only that nothing could be learned.
    #[must_use]
    pub fn unanswered(code: Code, detail: impl Into<String>) -> Self {
        Self { unanswered: vec![Unanswered { code, detail: detail.into() }], ..Self::default() }
    }
}

/// A candidate that proved nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Where it was found: `referrer sha256:…`, `tag sha256-….sig, layer 0`.
    pub source: String,
    /// Why it proves nothing.
    pub code: Code,
    /// What was found, for the reader. Never text of a library, never the contents of a predicate.
    pub detail: String,
}

/// A source that gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unanswered {
    /// `evidence-unavailable`, `rate-limited`, `registry-auth-failed`, `address-refused`, `deadline-exceeded`, `internal-error`.
    pub code: Code,
    /// What happened, for the reader.
    pub detail: String,
}

/// A signed statement about one digest whose signature was verified over exactly the bytes that were read.
///
/// Made by [`VerifiedStatement::vouch`], which only `edge/sigstore/verify.rs` may call (`tests/architecture.rs` holds that).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedStatement {
    subject: Digest,
    kind: StatementKind,
    identity: Identity,
    annotations: BTreeMap<String, String>,
    signed_for: Option<String>,
    evidence: Digest,
    source: String,
}

/// What a statement says about its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatementKind {
    /// "I sign this image": simple signing, a message signature, or predicate `https://sigstore.dev/cosign/sign/v1`.
    ImageSignature,
    /// Anything else; it is never a signature of the image, whoever made it.
    Attestation {
        /// The predicate type, as signed.
        predicate_type: String,
    },
}

/// Who made a statement, as the cryptography tells it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// The holder of the key with this SHA-256 of its SPKI.
    Key(Digest),
}

/// The parts of a [`VerifiedStatement`], for the one place that makes them.
#[derive(Debug, Clone)]
pub struct StatementParts {
    /// The digest that the statement names.
    pub subject: Digest,
    /// What it says.
    pub kind: StatementKind,
    /// Who says it.
    pub identity: Identity,
    /// Signed annotations: the payload's `optional`, or `subject[].annotations`.
    pub annotations: BTreeMap<String, String>,
    /// The repository that the statement names (`docker-reference`, or the subject's name), where it names one.
    pub signed_for: Option<String>,
    /// Digest of the bytes that hold the evidence: a bundle, or a payload layer.
    pub evidence: Digest,
    /// Where it was found.
    pub source: String,
}

impl VerifiedStatement {
    /// Vouches that the signature was verified. Only the file that verifies may call it.
    #[must_use]
    pub fn vouch(parts: StatementParts) -> Self {
        let StatementParts { subject, kind, identity, annotations, signed_for, evidence, source } = parts;
        Self { subject, kind, identity, annotations, signed_for, evidence, source }
    }

    /// The digest that the statement names.
    #[must_use]
    pub const fn subject(&self) -> Digest {
        self.subject
    }

    /// What it says.
    #[must_use]
    pub const fn kind(&self) -> &StatementKind {
        &self.kind
    }

    /// Who says it.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Signed annotations.
    #[must_use]
    pub const fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }

    /// The repository that the statement names, where it names one.
    #[must_use]
    pub fn signed_for(&self) -> Option<&str> {
        self.signed_for.as_deref()
    }

    /// Digest of the bytes that hold the evidence.
    #[must_use]
    pub const fn evidence(&self) -> Digest {
        self.evidence
    }

    /// Where it was found.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }
}
