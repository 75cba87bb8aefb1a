//! The Sigstore bundle (protobuf-specs `sigstore_bundle.proto`, v0.1 to v0.3), DSSE and the in-toto statement, as far as
//! they are read. It must never say that anything in them is true.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::json::{self, Unique, Unreadable};
use super::scheme;
use crate::decision::evidence::AskedKey;

/// The media types of a bundle; a bundle without one is v0.1.
pub const MEDIA_TYPES: [&str; 4] = [
    "application/vnd.dev.sigstore.bundle+json;version=0.1",
    "application/vnd.dev.sigstore.bundle+json;version=0.2",
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
    "application/vnd.dev.sigstore.bundle.v0.3+json",
];
/// The predicate type that says "I sign this image"; no other does.
pub const IMAGE_SIGNATURE: &str = "https://sigstore.dev/cosign/sign/v1";
/// Annotation of a manifest that claims what its bundle says; a hint.
pub const PREDICATE_HINT: &str = "dev.sigstore.bundle.predicateType";
/// Largest bundle that is read where signatures of an image are looked for, in bytes.
pub const MAX_SIGNATURE_BUNDLE: u64 = 256 * 1024;
/// The DSSE payload type that is read.
pub(super) const STATEMENT_TYPE: &str = "application/vnd.in-toto+json";

const STATEMENT_VERSIONS: [&str; 2] = ["https://in-toto.io/Statement/v0.1", "https://in-toto.io/Statement/v1"];
const MAX_LOG_ENTRIES: usize = 4;
const MAX_TIMESTAMPS: usize = 4;
const MAX_CERTIFICATES: usize = 6;
const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;
const MAX_SUBJECTS: usize = 1024;

/// Whether a media type is one of a bundle.
#[must_use]
pub fn is_bundle(media_type: &str) -> bool {
    MEDIA_TYPES.contains(&media_type)
}

/// A bundle that is well-formed and within its limits. Nothing in it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// SHA-256 of `publicKey.hint`'s key, where it is one. It chooses nothing.
    pub(super) hint: Option<String>,
    pub(super) content: Content,
}

/// What is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// A DSSE envelope with one signature over an in-toto statement.
    Envelope {
        /// The statement's bytes, as signed.
        payload: Vec<u8>,
        /// What they say.
        statement: Statement,
        /// The signature, as written.
        signature: String,
    },
    /// A signature over the image's own bytes.
    Message {
        /// The digest that the bundle claims, where it claims one: algorithm and bytes.
        digest: Option<(HashName, Vec<u8>)>,
        /// The signature, as written.
        signature: String,
    },
}

/// The hash that a message digest names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HashName {
    Sha256,
    Sha384,
    Sha512,
}

/// An in-toto statement (v0.1 and v1), without its predicate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) predicate_type: String,
    pub(super) subjects: Vec<Subject>,
}

/// One subject of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) name: Option<String>,
    /// `digest.sha256`, as written.
    pub(super) sha256: Option<String>,
    pub(super) annotations: BTreeMap<String, String>,
}

/// Why bytes are no bundle that is read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// It is not what the specification says, or a kind that is not read: which.
    #[error("{0}")]
    Malformed(String),
    /// It holds more than the limit of something: of what.
    #[error("{0}")]
    OverLimit(String),
}

impl Bundle {
    /// Reads a bundle. `bytes` must already be within the limit that holds for the question.
    pub fn read(bytes: &[u8]) -> Result<Self, BundleError> {
        let wire: Wire = json::read(bytes).map_err(|e| unreadable("the bundle", &e))?;
        if let Some(other) = wire.media_type.as_deref().filter(|t| !is_bundle(t)) {
            return Err(malformed(format!("the bundle's media type {:?} is none that is read", shown(other))));
        }
        let hint = wire.verification_material.check()?;
        let content = match (wire.dsse_envelope, wire.message_signature) {
            (Some(envelope), None) => envelope.read()?,
            (None, Some(message)) => message.read()?,
            (Some(_), Some(_)) => return Err(malformed("the bundle holds an envelope and a message signature")),
            (None, None) => return Err(malformed("the bundle holds neither an envelope nor a message signature")),
        };
        Ok(Self { hint, content })
    }

    /// Whether the image's own manifest is needed to check this bundle under all of these keys: a message signature
    /// whose hash is not SHA-256 cannot be checked from the image's digest.
    #[must_use]
    pub fn needs_image<'a>(&self, keys: impl IntoIterator<Item = &'a AskedKey>) -> bool {
        match &self.content {
            Content::Envelope { .. } => false,
            Content::Message { digest, .. } => {
                digest.as_ref().is_some_and(|(hash, _)| *hash != HashName::Sha256)
                    || keys.into_iter().any(|key| !scheme::signs_sha256(key.scheme))
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(default)]
    media_type: Option<String>,
    verification_material: Material,
    #[serde(default)]
    dsse_envelope: Option<Envelope>,
    #[serde(default)]
    message_signature: Option<Message>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    #[serde(default)]
    public_key: Option<KeyHint>,
    #[serde(default)]
    certificate: Option<Certificate>,
    #[serde(default)]
    x509_certificate_chain: Option<Chain>,
    #[serde(default)]
    tlog_entries: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    timestamp_verification_data: Option<Timestamps>,
}

#[derive(Deserialize)]
struct KeyHint {
    #[serde(default)]
    hint: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Certificate {
    raw_bytes: String,
}

#[derive(Deserialize)]
struct Chain {
    certificates: Vec<Certificate>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Timestamps {
    #[serde(default)]
    rfc3161_timestamps: Option<Vec<IgnoredAny>>,
}

impl Material {
    /// Counts and sizes only: whoever signs with a key has what else lies here ignored. Returns the key's hint.
    fn check(self) -> Result<Option<String>, BundleError> {
        within("log entries", self.tlog_entries.map_or(0, |e| e.len()), MAX_LOG_ENTRIES)?;
        let tokens = self.timestamp_verification_data.and_then(|data| data.rfc3161_timestamps);
        within("timestamps", tokens.map_or(0, |t| t.len()), MAX_TIMESTAMPS)?;
        let kinds = usize::from(self.public_key.is_some())
            + usize::from(self.certificate.is_some())
            + usize::from(self.x509_certificate_chain.is_some());
        if kinds != 1 {
            return Err(malformed("the bundle does not name exactly one of a public key, a certificate and a chain"));
        }
        let chain = self.x509_certificate_chain.map_or_else(Vec::new, |chain| chain.certificates);
        within("certificates", chain.len(), MAX_CERTIFICATES)?;
        let longest = chain.iter().chain(&self.certificate).map(|c| c.raw_bytes.len()).max().unwrap_or(0);
        within("bytes of a certificate", longest / 4 * 3, MAX_CERTIFICATE_BYTES)?;
        Ok(self.public_key.and_then(|key| key.hint).filter(|hint| !hint.is_empty()))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

impl Envelope {
    fn read(self) -> Result<Content, BundleError> {
        let Ok([EnvelopeSignature { sig }]) = <[EnvelopeSignature; 1]>::try_from(self.signatures) else {
            return Err(malformed("the envelope does not hold exactly one signature"));
        };
        if self.payload_type != STATEMENT_TYPE {
            return Err(malformed(format!("the payload type {:?} is none that is read", shown(&self.payload_type))));
        }
        let payload = json::base64(&self.payload).ok_or_else(|| malformed("the payload is not base64"))?;
        let statement = Statement::read(&payload)?;
        Ok(Content::Envelope { payload, statement, signature: sig })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    #[serde(default)]
    message_digest: Option<MessageDigest>,
    signature: String,
}

#[derive(Deserialize)]
struct MessageDigest {
    algorithm: String,
    digest: String,
}

impl Message {
    fn read(self) -> Result<Content, BundleError> {
        let digest = match self.message_digest {
            None => None,
            Some(MessageDigest { algorithm, digest }) => {
                let hash = match algorithm.as_str() {
                    "SHA2_256" => HashName::Sha256,
                    "SHA2_384" => HashName::Sha384,
                    "SHA2_512" => HashName::Sha512,
                    other => return Err(malformed(format!("the hash {:?} is none that is read", shown(other)))),
                };
                let bytes = json::base64(&digest).ok_or_else(|| malformed("the message digest is not base64"))?;
                Some((hash, bytes))
            }
        };
        Ok(Content::Message { digest, signature: self.signature })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatementWire {
    #[serde(rename = "_type")]
    version: String,
    subject: Vec<SubjectWire>,
    predicate_type: String,
}

#[derive(Deserialize)]
struct SubjectWire {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    digest: Option<Unique<String>>,
    #[serde(default)]
    annotations: Option<Unique<Value>>,
}

impl Statement {
    fn read(payload: &[u8]) -> Result<Self, BundleError> {
        let wire: StatementWire = json::read(payload).map_err(|e| unreadable("the statement", &e))?;
        if !STATEMENT_VERSIONS.contains(&wire.version.as_str()) {
            return Err(malformed(format!("the statement type {:?} is none that is read", shown(&wire.version))));
        }
        within("subjects", wire.subject.len(), MAX_SUBJECTS)?;
        if wire.subject.is_empty() {
            return Err(malformed("the statement has no subject"));
        }
        let subjects = wire.subject.into_iter().map(|subject| Subject {
            name: subject.name.filter(|name| !name.is_empty()),
            sha256: subject.digest.unwrap_or_default().0.remove("sha256"),
            annotations: subject.annotations.unwrap_or_default().into_texts(),
        });
        Ok(Self { predicate_type: wire.predicate_type, subjects: subjects.collect() })
    }
}

/// Fingerprints of keys, spelled as the hint of a bundle spells them.
pub(super) fn names_one_of(hint: &str, keys: &BTreeSet<AskedKey>) -> bool {
    keys.iter().any(|key| json::to_base64(key.fingerprint.as_bytes()) == hint)
}

fn within(what: &str, found: usize, limit: usize) -> Result<(), BundleError> {
    if found <= limit {
        Ok(())
    } else {
        Err(BundleError::OverLimit(format!("{found} {what} in one bundle, {limit} are read")))
    }
}

fn malformed(detail: impl Into<String>) -> BundleError {
    BundleError::Malformed(detail.into())
}

fn unreadable(what: &str, error: &Unreadable) -> BundleError {
    BundleError::Malformed(format!("{what} cannot be read: {error}"))
}

/// Text of a stranger, shortened for a message; `{:?}` escapes the rest.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}
