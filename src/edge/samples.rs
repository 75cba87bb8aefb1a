//! A small read-only registry in memory with sample images, for `provost demo`: signed, unsigned, signed by somebody else.
//! It must never hold more than samples: keys are made on the spot and die with the process.
//!
//! It speaks the part of the OCI distribution specification 1.1 that a gate reads: manifests, blobs, referrers.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, SigningKey as _};
use serde_json::{Value, json};

use crate::decision::reference::Digest;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// A key pair of the samples: ECDSA on P-256.
pub struct SampleKey(KeyPair);

impl SampleKey {
    /// A new key.
    pub fn generate() -> Result<Self, rcgen::Error> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Self)
    }

    /// The public half as PEM, as a policy holds it.
    #[must_use]
    pub fn public_pem(&self) -> String {
        self.0.public_key_pem()
    }

    /// An ASN.1 signature over the SHA-256 of `message`, as base64.
    fn sign(&self, message: &[u8]) -> Result<String, rcgen::Error> {
        self.0.sign(message).map(|signature| BASE64.encode(signature))
    }
}

/// The contents of the registry.
#[derive(Debug, Default)]
pub struct Samples {
    blobs: BTreeMap<Digest, Bytes>,
    /// By repository and digest or tag.
    manifests: BTreeMap<(String, String), (&'static str, Bytes)>,
    /// Descriptors by repository and subject.
    referrers: BTreeMap<(String, Digest), Vec<Value>>,
}

impl Samples {
    /// Puts an image with one layer of `text` into a repository, under a tag, and gives its digest.
    pub fn image(&mut self, repository: &str, tag: &str, text: &str) -> Digest {
        let config = self.blob(
            json!({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": []}})
                .to_string(),
        );
        let layer = self.blob(text.to_owned());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.0, "size": config.1},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.0, "size": layer.1}],
        });
        self.manifest(repository, Some(tag), &manifest)
    }

    /// Signs a digest the way cosign 3 does: a bundle as OCI referrer.
    pub fn sign_with_bundle(&mut self, repository: &str, image: Digest, key: &SampleKey) -> Result<(), rcgen::Error> {
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"digest": {"sha256": image.hex()}, "annotations": {}}],
            "predicateType": "https://sigstore.dev/cosign/sign/v1", "predicate": {},
        })
        .to_string();
        let payload_type = "application/vnd.in-toto+json";
        // DSSE pre-authentication encoding, version 1.
        let encoded = format!("DSSEv1 {} {payload_type} {} {statement}", payload_type.len(), statement.len());
        let bundle = json!({
            "mediaType": BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": "sample"}},
            "dsseEnvelope": {
                "payload": BASE64.encode(&statement), "payloadType": payload_type,
                "signatures": [{"sig": key.sign(encoded.as_bytes())?}],
            },
        });
        let bundle = self.blob(bundle.to_string());
        let empty = self.blob("{}".to_owned());
        let subject =
            self.manifests.get(&(repository.to_owned(), image.to_string())).map_or(0, |(_, bytes)| bytes.len());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": BUNDLE,
            "config": {"mediaType": EMPTY, "digest": empty.0, "size": empty.1},
            "layers": [{"mediaType": BUNDLE, "digest": bundle.0, "size": bundle.1}],
            "subject": {"mediaType": MANIFEST, "digest": image, "size": subject},
        });
        let digest = self.manifest(repository, None, &manifest);
        let entry = json!({"mediaType": MANIFEST, "artifactType": BUNDLE, "digest": digest, "size": manifest.to_string().len()});
        self.referrers.entry((repository.to_owned(), image)).or_default().push(entry);
        Ok(())
    }

    /// Signs `signed` the way cosign 1 and 2 do, and hangs it on `image`: the same digest where all is honest.
    pub fn sign_with_tag(
        &mut self,
        repository: &str,
        image: Digest,
        signed: Digest,
        key: &SampleKey,
    ) -> Result<(), rcgen::Error> {
        let payload = json!({
            "critical": {
                "identity": {"docker-reference": repository},
                "image": {"docker-manifest-digest": signed},
                "type": "cosign container image signature",
            },
            "optional": null,
        })
        .to_string();
        let signature = key.sign(payload.as_bytes())?;
        let config = self.blob("{}".to_owned());
        let layer = self.blob(payload);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.0, "size": config.1},
            "layers": [{"mediaType": SIMPLE_SIGNING, "digest": layer.0, "size": layer.1, "annotations": {SIGNATURE: signature}}],
        });
        self.manifest(repository, Some(&format!("sha256-{}.sig", image.hex())), &manifest);
        Ok(())
    }

    /// The registry as a service.
    pub fn into_router(self) -> Router {
        Router::new().route("/v2/", get(StatusCode::OK)).route("/v2/{*path}", get(read)).with_state(Arc::new(self))
    }

    fn blob(&mut self, text: String) -> (Digest, usize) {
        let (digest, size) = (digest_of(text.as_bytes()), text.len());
        self.blobs.insert(digest, Bytes::from(text));
        (digest, size)
    }

    fn manifest(&mut self, repository: &str, tag: Option<&str>, manifest: &Value) -> Digest {
        let bytes = Bytes::from(manifest.to_string());
        let digest = digest_of(&bytes);
        for name in [Some(digest.to_string()), tag.map(str::to_owned)].into_iter().flatten() {
            self.manifests.insert((repository.to_owned(), name), (MANIFEST, bytes.clone()));
        }
        digest
    }
}

fn digest_of(bytes: &[u8]) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    Digest::from_bytes(out)
}

async fn read(State(samples): State<Arc<Samples>>, Path(path): Path<String>) -> Response {
    let parts: Vec<&str> = path.split('/').collect();
    let (Some(name), Some(kind)) = (parts.last(), parts.len().checked_sub(2).and_then(|at| parts.get(at))) else {
        return not_found();
    };
    let repository = parts[..parts.len() - 2].join("/");
    match *kind {
        "manifests" => match samples.manifests.get(&(repository, (*name).to_owned())) {
            Some((media_type, bytes)) => body(media_type, bytes.clone()),
            None => not_found(),
        },
        "blobs" => match name.parse().ok().and_then(|digest: Digest| samples.blobs.get(&digest)) {
            Some(bytes) => body("application/octet-stream", bytes.clone()),
            None => not_found(),
        },
        "referrers" => match name.parse::<Digest>() {
            Ok(subject) => {
                let entries = samples.referrers.get(&(repository, subject)).cloned().unwrap_or_default();
                let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
                body(INDEX, Bytes::from(index.to_string()))
            }
            Err(_) => not_found(),
        },
        _ => not_found(),
    }
}

fn body(media_type: &'static str, bytes: Bytes) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(media_type));
    (StatusCode::OK, headers, bytes).into_response()
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, r#"{"errors":[{"code":"NOT_FOUND","message":"not found"}]}"#).into_response()
}
