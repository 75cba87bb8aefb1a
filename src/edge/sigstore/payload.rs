//! Cosign's legacy payload ("simple signing"). It must never read a digest under another key than the one that was signed.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::json::{self, Unique, Unreadable};

/// Media type of a layer that holds a payload.
pub const MEDIA_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Annotation of the layer that holds the signature.
pub const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// `artifactType` or config type of a referrer whose layers are payloads.
pub const ARTIFACT_TYPE: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
/// `critical.type`: the only one there is.
pub const TYPE: &str = "cosign container image signature";
/// Largest payload that is read, in bytes.
pub const MAX_BYTES: u64 = 64 * 1024;

/// What a payload says, not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Payload {
    /// `critical.type`.
    pub(super) kind: String,
    /// `critical.image.docker-manifest-digest`, as written.
    pub(super) digest: String,
    /// `critical.identity.docker-reference`.
    pub(super) reference: Option<String>,
    /// The texts of `optional`.
    pub(super) optional: BTreeMap<String, String>,
}

impl Payload {
    /// Reads a payload.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let wire: Wire = json::read(bytes)?;
        Ok(Self {
            kind: wire.critical.kind,
            digest: wire.critical.image.digest,
            reference: wire.critical.identity.and_then(|identity| identity.reference),
            optional: wire.optional.unwrap_or_default().into_texts(),
        })
    }
}

#[derive(Deserialize)]
struct Wire {
    critical: Critical,
    #[serde(default)]
    optional: Option<Unique<Value>>,
}

#[derive(Deserialize)]
struct Critical {
    #[serde(default)]
    identity: Option<SignedFor>,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct SignedFor {
    #[serde(default, rename = "docker-reference")]
    reference: Option<String>,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}
