//! What a scripted registry holds: images of every shape and signatures in every format, by the path at which each is
//! asked for. Written from the formats' specifications, and not with the project's own code.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, SigningKey as _};
use serde_json::{Value, json};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const BLOB: &str = "application/octet-stream";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const STATEMENT: &str = "application/vnd.in-toto+json";

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Name, address, TCP and TLS.
    Connection,
    /// An answer to a request that carries no authorization yet.
    Challenge,
    /// The token exchange.
    Token,
    /// The image's own manifest.
    Image,
    /// The referrers API.
    Referrers,
    /// The tag `sha256-<hex>`.
    FallbackTag,
    /// The tag `sha256-<hex>.sig`.
    SigTag,
    /// The manifest of a referrer.
    Candidate,
    /// A bundle or a payload.
    Blob,
}

/// One thing that is kept.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) stage: Stage,
    pub(crate) content_type: &'static str,
    pub(crate) body: Bytes,
}

/// Everything that one registry holds, by the path below `/v2/`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contents(pub(crate) BTreeMap<String, Object>);

/// A key that signs: ECDSA on P-256.
pub(crate) struct Key(KeyPair);

impl Key {
    pub(crate) fn new() -> Self {
        Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key"))
    }

    pub(crate) fn public_pem(&self) -> String {
        self.0.public_key_pem()
    }

    fn sign(&self, message: &[u8]) -> String {
        BASE64.encode(self.0.sign(message).expect("a signature"))
    }
}

/// An image in a repository: what hangs on it is hung on by its digest.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) repository: String,
    pub(crate) digest: String,
    size: usize,
}

impl Image {
    fn hex(&self) -> &str {
        self.digest.trim_start_matches("sha256:")
    }

    /// As a pod names it.
    pub(crate) fn at(&self, host: &str) -> String {
        format!("{host}/{}@{}", self.repository, self.digest)
    }

    fn subject(&self) -> Value {
        json!({"mediaType": MANIFEST, "digest": self.digest, "size": self.size})
    }
}

/// Makes an image; the text keeps two images of one shape apart.
pub(crate) type Shape = fn(&mut Contents, repository: &str, text: &str) -> Image;
/// Hangs something on an image.
pub(crate) type Signed = fn(&mut Contents, image: &Image, key: &Key);

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref()))
}

/// In hexadecimal, small letters.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16).expect("half a byte is a digit");
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

impl Contents {
    fn put(&mut self, path: String, stage: Stage, content_type: &'static str, body: impl Into<Bytes>) {
        self.0.insert(path, Object { stage, content_type, body: body.into() });
    }

    fn blob(&mut self, repository: &str, body: &[u8]) -> (String, usize) {
        let digest = digest(body);
        self.put(format!("{repository}/blobs/{digest}"), Stage::Blob, BLOB, body.to_vec());
        (digest, body.len())
    }

    fn by_digest(&mut self, repository: &str, stage: Stage, content_type: &'static str, body: &Value) -> Image {
        let body = body.to_string();
        let digest = digest(body.as_bytes());
        let image = Image { repository: repository.to_owned(), digest, size: body.len() };
        self.put(format!("{repository}/manifests/{}", image.digest), stage, content_type, body);
        image
    }

    /// An ordinary image.
    pub(crate) fn plain(&mut self, repository: &str, text: &str) -> Image {
        let manifest = manifest(text);
        self.by_digest(repository, Stage::Image, MANIFEST, &manifest)
    }

    fn image_of(&mut self, repository: &str, content_type: &'static str, body: &Value) -> Image {
        self.by_digest(repository, Stage::Image, content_type, body)
    }

    /// An index of indexes, so many deep, with an image at the end.
    fn nested(&mut self, repository: &str, text: &str, depth: usize) -> Image {
        let mut inner = self.plain(repository, text);
        let mut kind = MANIFEST;
        for _ in 0..depth {
            let entry = json!({"mediaType": kind, "digest": inner.digest, "size": inner.size});
            inner = self.image_of(repository, INDEX, &index(&[entry]));
            kind = INDEX;
        }
        inner
    }
}

fn manifest(text: &str) -> Value {
    json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(b"{}"), "size": 2},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest(text.as_bytes()), "size": text.len()}],
    })
}

fn index(entries: &[Value]) -> Value {
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
}

/// The shapes of images, each with its twin.
pub(crate) mod shape {
    use super::{Contents, DOCKER_LIST, DOCKER_MANIFEST, INDEX, Image, MANIFEST, index, json, manifest};

    pub(crate) fn plain(contents: &mut Contents, repository: &str, text: &str) -> Image {
        contents.plain(repository, text)
    }

    /// An image as Docker made them before OCI.
    pub(crate) fn docker(contents: &mut Contents, repository: &str, text: &str) -> Image {
        let mut body = manifest(text);
        body["mediaType"] = json!(DOCKER_MANIFEST);
        contents.image_of(repository, DOCKER_MANIFEST, &body)
    }

    /// The same for several platforms.
    pub(crate) fn docker_list(contents: &mut Contents, repository: &str, text: &str) -> Image {
        let inner = docker(contents, repository, text);
        let mut body = index(&[json!({"mediaType": DOCKER_MANIFEST, "digest": inner.digest, "size": inner.size})]);
        body["mediaType"] = json!(DOCKER_LIST);
        contents.image_of(repository, DOCKER_LIST, &body)
    }

    pub(crate) fn index_of_one(contents: &mut Contents, repository: &str, text: &str) -> Image {
        contents.nested(repository, text, 1)
    }

    pub(crate) fn index_in_index(contents: &mut Contents, repository: &str, text: &str) -> Image {
        contents.nested(repository, text, 2)
    }

    pub(crate) fn nested_deeper(contents: &mut Contents, repository: &str, text: &str) -> Image {
        contents.nested(repository, text, 3)
    }

    pub(crate) fn empty_index(contents: &mut Contents, repository: &str, text: &str) -> Image {
        let mut body = index(&[]);
        body["annotations"] = json!({ "text": text });
        contents.image_of(repository, INDEX, &body)
    }

    pub(crate) fn index_of(contents: &mut Contents, repository: &str, text: &str, count: usize) -> Image {
        let entries: Vec<_> = (0..count)
            .map(|n| {
                let child = contents.plain(repository, &format!("{text} {n}"));
                json!({"mediaType": MANIFEST, "digest": child.digest, "size": child.size})
            })
            .collect();
        contents.image_of(repository, INDEX, &index(&entries))
    }

    pub(crate) fn index_of_64(contents: &mut Contents, repository: &str, text: &str) -> Image {
        index_of(contents, repository, text, 64)
    }

    pub(crate) fn index_of_65(contents: &mut Contents, repository: &str, text: &str) -> Image {
        index_of(contents, repository, text, 65)
    }

    pub(crate) fn manifest_and_index(contents: &mut Contents, repository: &str, text: &str) -> Image {
        let mut body = manifest(text);
        body["manifests"] = json!([]);
        contents.image_of(repository, MANIFEST, &body)
    }

    pub(crate) fn schema_1(contents: &mut Contents, repository: &str, text: &str) -> Image {
        let body = json!({"schemaVersion": 1, "name": repository, "tag": text, "fsLayers": [], "history": []});
        contents.image_of(repository, MANIFEST, &body)
    }

    pub(crate) fn unknown_type(contents: &mut Contents, repository: &str, text: &str) -> Image {
        let mut body = manifest(text);
        body["mediaType"] = json!("application/vnd.example.image+json");
        contents.image_of(repository, MANIFEST, &body)
    }

    pub(crate) fn two_types(contents: &mut Contents, repository: &str, text: &str) -> Image {
        contents.image_of(repository, INDEX, &manifest(text))
    }
}

/// What can hang on an image.
pub(crate) mod signed {
    use base64::Engine as _;

    use super::{
        BASE64, BUNDLE, Contents, INDEX, Image, Key, MANIFEST, SIGNATURE, SIMPLE_SIGNING, STATEMENT, Stage, Value,
        digest, index, json,
    };

    /// Nothing, in a registry that has the referrers API.
    pub(crate) fn not_at_all(contents: &mut Contents, image: &Image, _key: &Key) {
        list(contents, image, &[]);
    }

    /// A bundle as OCI referrer, as cosign 3 does it.
    pub(crate) fn bundle(contents: &mut Contents, image: &Image, key: &Key) {
        let entry = referrer(contents, image, envelope(image, key, 1).to_string().as_bytes());
        list(contents, image, &[entry]);
    }

    /// A bundle under the fallback tag, in a registry without the referrers API.
    pub(crate) fn fallback(contents: &mut Contents, image: &Image, key: &Key) {
        let entry = referrer(contents, image, envelope(image, key, 1).to_string().as_bytes());
        let path = format!("{}/manifests/sha256-{}", image.repository, image.hex());
        contents.put(path, Stage::FallbackTag, INDEX, index(&[entry]).to_string());
    }

    /// A signature under `sha256-<hex>.sig`, as cosign 1 and 2 do it.
    pub(crate) fn sig(contents: &mut Contents, image: &Image, key: &Key) {
        let payload = payload(image);
        let signature = key.sign(payload.as_bytes());
        sig_tag(contents, image, &payload, &[signature]);
        list(contents, image, &[]);
    }

    /// Both, so that either alone would do.
    pub(crate) fn bundle_and_sig(contents: &mut Contents, image: &Image, key: &Key) {
        sig(contents, image, key);
        bundle(contents, image, key);
    }

    /// 100 signatures of somebody else behind the good one, which is the oldest.
    pub(crate) fn behind_100_of_others(contents: &mut Contents, image: &Image, key: &Key) {
        let payload = payload(image);
        let junk = Key::new().sign(payload.as_bytes());
        let mut signatures = vec![key.sign(payload.as_bytes())];
        signatures.resize(101, junk);
        sig_tag(contents, image, &payload, &signatures);
        list(contents, image, &[]);
    }

    /// 100 signatures of somebody else, and none else.
    pub(crate) fn by_100_others(contents: &mut Contents, image: &Image, _key: &Key) {
        let payload = payload(image);
        let junk = Key::new().sign(payload.as_bytes());
        sig_tag(contents, image, &payload, &vec![junk; 100]);
        list(contents, image, &[]);
    }

    /// Over 100 referrers, none of them by a key that counts.
    pub(crate) fn by_101_referrers_of_others(contents: &mut Contents, image: &Image, _key: &Key) {
        let other = Key::new();
        let entries: Vec<Value> = (0..101)
            .map(|n| {
                let bundle = format!("{}{}", envelope(image, &other, 1), " ".repeat(n));
                referrer(contents, image, bundle.as_bytes())
            })
            .collect();
        list(contents, image, &entries);
    }

    /// A bundle of this many bytes; the padding is behind the good one.
    fn padded(contents: &mut Contents, image: &Image, key: &Key, size: usize) {
        let mut bundle = envelope(image, key, 1).to_string();
        bundle.extend(std::iter::repeat_n(' ', size - bundle.len()));
        let entry = referrer(contents, image, bundle.as_bytes());
        list(contents, image, &[entry]);
    }

    pub(crate) fn bundle_of_256_kib(contents: &mut Contents, image: &Image, key: &Key) {
        padded(contents, image, key, 256 * 1024);
    }

    pub(crate) fn bundle_over_256_kib(contents: &mut Contents, image: &Image, key: &Key) {
        padded(contents, image, key, 256 * 1024 + 1);
    }

    /// A bundle of which its manifest says that it has a tebibyte.
    pub(crate) fn bundle_of_a_tebibyte(contents: &mut Contents, image: &Image, key: &Key) {
        let (blob, _) = contents.blob(&image.repository, envelope(image, key, 1).to_string().as_bytes());
        let entry = referrer_with(contents, image, &json!(blob), 1 << 40);
        list(contents, image, &[entry]);
    }

    /// A bundle at a digest that is a path.
    pub(crate) fn bundle_at_a_path(contents: &mut Contents, image: &Image, _key: &Key) {
        let entry = referrer_with(contents, image, &json!("sha256:../../../../v2/other/blobs/x"), 700);
        list(contents, image, &[entry]);
    }

    fn odd(contents: &mut Contents, image: &Image, key: &Key, change: impl FnOnce(&mut Value)) {
        let mut bundle = envelope(image, key, 1);
        change(&mut bundle);
        let entry = referrer(contents, image, bundle.to_string().as_bytes());
        list(contents, image, &[entry]);
    }

    pub(crate) fn with_5_log_entries(contents: &mut Contents, image: &Image, key: &Key) {
        odd(contents, image, key, |bundle| bundle["verificationMaterial"]["tlogEntries"] = json!(vec![json!({}); 5]));
    }

    pub(crate) fn with_5_timestamps(contents: &mut Contents, image: &Image, key: &Key) {
        let token = json!({"signedTimestamp": "AAAA"});
        odd(contents, image, key, |bundle| {
            bundle["verificationMaterial"]["timestampVerificationData"] = json!({"rfc3161Timestamps": vec![token; 5]});
        });
    }

    pub(crate) fn with_1024_subjects(contents: &mut Contents, image: &Image, key: &Key) {
        let entry = referrer(contents, image, envelope(image, key, 1024).to_string().as_bytes());
        list(contents, image, &[entry]);
    }

    pub(crate) fn with_1025_subjects(contents: &mut Contents, image: &Image, key: &Key) {
        let entry = referrer(contents, image, envelope(image, key, 1025).to_string().as_bytes());
        list(contents, image, &[entry]);
    }

    /// A statement about the image and so many subjects in all, signed, in a bundle.
    fn envelope(image: &Image, key: &Key, subjects: usize) -> Value {
        let mut all = vec![json!({"digest": {"sha256": image.hex()}, "annotations": {}})];
        all.extend((1..subjects).map(|n| json!({"digest": {"sha256": format!("{n:064x}")}})));
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1", "subject": all,
            "predicateType": "https://sigstore.dev/cosign/sign/v1", "predicate": {},
        })
        .to_string();
        // DSSE pre-authentication encoding, version 1.
        let encoded = format!("DSSEv1 {} {STATEMENT} {} {statement}", STATEMENT.len(), statement.len());
        json!({
            "mediaType": BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": "faults"}},
            "dsseEnvelope": {
                "payload": BASE64.encode(&statement), "payloadType": STATEMENT,
                "signatures": [{"sig": key.sign(encoded.as_bytes())}],
            },
        })
    }

    /// The manifest of a referrer that holds a bundle; gives its entry for a list.
    fn referrer(contents: &mut Contents, image: &Image, bundle: &[u8]) -> Value {
        let (blob, size) = contents.blob(&image.repository, bundle);
        referrer_with(contents, image, &json!(blob), size)
    }

    fn referrer_with(contents: &mut Contents, image: &Image, blob: &Value, size: usize) -> Value {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": BUNDLE,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(b"{}"), "size": 2},
            "layers": [{"mediaType": BUNDLE, "digest": blob, "size": size}],
            "subject": image.subject(),
        });
        let made = contents.by_digest(&image.repository, Stage::Candidate, MANIFEST, &manifest);
        json!({"mediaType": MANIFEST, "artifactType": BUNDLE, "digest": made.digest, "size": made.size})
    }

    fn list(contents: &mut Contents, image: &Image, entries: &[Value]) {
        let path = format!("{}/referrers/{}", image.repository, image.digest);
        contents.put(path, Stage::Referrers, INDEX, index(entries).to_string());
    }

    fn payload(image: &Image) -> String {
        json!({
            "critical": {
                "identity": {"docker-reference": image.repository},
                "image": {"docker-manifest-digest": image.digest},
                "type": "cosign container image signature",
            },
            "optional": null,
        })
        .to_string()
    }

    fn sig_tag(contents: &mut Contents, image: &Image, payload: &str, signatures: &[String]) {
        let (blob, size) = contents.blob(&image.repository, payload.as_bytes());
        let layers: Vec<Value> = signatures
            .iter()
            .map(|signature| {
                let annotations = json!({ SIGNATURE: signature });
                json!({"mediaType": SIMPLE_SIGNING, "digest": blob, "size": size, "annotations": annotations})
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(b"{}"), "size": 2},
            "layers": layers,
        });
        let path = format!("{}/manifests/sha256-{}.sig", image.repository, image.hex());
        contents.put(path, Stage::SigTag, MANIFEST, manifest.to_string());
    }
}
