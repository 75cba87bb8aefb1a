//! A registry in memory for tests: manifests, tags, lists, faults, and what was asked of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Source;
use crate::decision::reference::{Digest, Host, ImageRef, PinnedImage, Repository};
use crate::edge::cores::Cores;
use crate::edge::registry::{Budget, Descriptor, Failure, Manifest, ManifestRef, Referrers};
use crate::edge::sigstore::samples::TestKey;
use crate::edge::sigstore::{bundle, digest_of, payload};

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// A registry in memory. Clones share everything.
#[derive(Clone)]
pub(super) struct Memory {
    state: Arc<Mutex<State>>,
    /// While true, no call is answered.
    held: watch::Sender<bool>,
    cores: Cores,
}

pub(super) struct State {
    manifests: BTreeMap<Digest, Manifest>,
    pub(super) tags: BTreeMap<String, Digest>,
    blobs: BTreeMap<Digest, Bytes>,
    /// `None`: no referrers API.
    pub(super) referrers: Option<Vec<Descriptor>>,
    pub(super) complete: bool,
    pub(super) cut_by: Option<String>,
    pub(super) knows_api: Option<bool>,
    /// By what is asked: `referrers`, `tag …`, `manifest …`, `blob …`.
    pub(super) faults: BTreeMap<String, Failure>,
    /// What asks to be left alone for so long before it answers, and how it says that.
    pub(super) patience: BTreeMap<String, (Failure, Duration)>,
    pub(super) panics: BTreeSet<String>,
    pub(super) asked: Vec<String>,
    pub(super) scope: [u8; 32],
}

impl Memory {
    /// An empty registry with the referrers API.
    pub(super) fn new() -> Self {
        let state = State {
            manifests: BTreeMap::new(),
            tags: BTreeMap::new(),
            blobs: BTreeMap::new(),
            referrers: Some(Vec::new()),
            complete: true,
            cut_by: None,
            knows_api: None,
            faults: BTreeMap::new(),
            patience: BTreeMap::new(),
            panics: BTreeSet::new(),
            asked: Vec::new(),
            scope: [0; 32],
        };
        Self { state: Arc::new(Mutex::new(state)), held: watch::Sender::new(false), cores: Cores::all_but_one() }
    }

    pub(super) fn without_api(self) -> Self {
        self.change(|state| state.referrers = None);
        self
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().expect("not poisoned"))
    }

    /// Holds back, or lets go, every answer.
    pub(super) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    pub(super) fn fail(&self, what: impl Into<String>, failure: Failure) {
        self.change(|state| state.faults.insert(what.into(), failure));
    }

    pub(super) fn heal(&self) {
        self.change(|state| state.faults.clear());
    }

    /// What was asked, in order.
    pub(super) fn asked(&self) -> Vec<String> {
        self.change(|state| state.asked.clone())
    }

    /// How often something was asked whose text begins so.
    pub(super) fn count(&self, prefix: &str) -> usize {
        self.asked().iter().filter(|what| what.starts_with(prefix)).count()
    }

    pub(super) fn put(&self, body: &Value, content_type: &str) -> (Digest, u64) {
        let bytes = Bytes::from(body.to_string());
        let (digest, size) = (digest_of(&bytes), bytes.len() as u64);
        let manifest = Manifest { bytes, digest, content_type: content_type.to_owned() };
        self.change(|state| state.manifests.insert(digest, manifest));
        (digest, size)
    }

    /// Puts any text as a manifest.
    pub(super) fn put_text(&self, text: &str) -> Digest {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        let digest = digest_of(&bytes);
        let manifest = Manifest { bytes, digest, content_type: String::new() };
        self.change(|state| state.manifests.insert(digest, manifest));
        digest
    }

    /// Puts any text under a tag.
    pub(super) fn put_tag(&self, tag: &str, text: &str) {
        let digest = self.put_text(text);
        self.change(|state| state.tags.insert(tag.to_owned(), digest));
    }

    /// Puts a manifest under a digest that is not its own.
    pub(super) fn forge(&self, digest: Digest, body: &Value) {
        let bytes = Bytes::from(body.to_string());
        let manifest = Manifest { digest: digest_of(&bytes), bytes, content_type: MANIFEST.to_owned() };
        self.change(|state| state.manifests.insert(digest, manifest));
    }

    pub(super) fn put_blob(&self, bytes: &[u8]) -> Digest {
        let digest = digest_of(bytes);
        self.change(|state| state.blobs.insert(digest, Bytes::copy_from_slice(bytes)));
        digest
    }

    /// An image; different names make different images.
    pub(super) fn image(&self, name: &str) -> PinnedImage {
        let (digest, _) = self.put(&image_manifest(name), MANIFEST);
        pinned(digest)
    }

    /// Legacy signatures under the `.sig` tag: each a payload with its annotation.
    pub(super) fn legacy(&self, image: &PinnedImage, layers: &[(Vec<u8>, Option<String>)]) {
        let layers: Vec<Value> =
            layers.iter().map(|(payload, signature)| self.layer(payload, signature.as_deref())).collect();
        let (digest, _) = self.put(&artifact(None, None, &layers, &json!({})), MANIFEST);
        self.change(|state| state.tags.insert(format!("sha256-{}.sig", image.digest().hex()), digest));
    }

    fn layer(&self, payload: &[u8], signature: Option<&str>) -> Value {
        let annotations = signature.map_or(json!({}), |signature| json!({payload::SIGNATURE: signature}));
        let digest = self.put_blob(payload);
        json!({"mediaType": payload::MEDIA_TYPE, "digest": digest, "size": payload.len(), "annotations": annotations})
    }

    /// The manifest of a bundle that refers to an image; not listed anywhere yet.
    pub(super) fn bundle(&self, image: Digest, bytes: &[u8], predicate: Option<&str>) -> Descriptor {
        let digest = self.put_blob(bytes);
        let layer = json!({"mediaType": bundle::MEDIA_TYPES[3], "digest": digest, "size": bytes.len()});
        let annotations = predicate.map_or(json!({}), |predicate| json!({bundle::PREDICATE_HINT: predicate}));
        self.referrer(&artifact(Some(image), Some(bundle::MEDIA_TYPES[3]), &[layer], &annotations))
    }

    /// A legacy layer in a referrer (format E); not listed anywhere yet.
    pub(super) fn legacy_referrer(&self, image: Digest, payload: &[u8], signature: &str) -> Descriptor {
        let layer = self.layer(payload, Some(signature));
        self.referrer(&artifact(Some(image), Some(payload::ARTIFACT_TYPE), &[layer], &json!({})))
    }

    /// Any referrer, described the way that sloppy lists describe it.
    pub(super) fn referrer(&self, body: &Value) -> Descriptor {
        let media_type = if body.get("manifests").is_some() { INDEX } else { MANIFEST };
        let (digest, size) = self.put(body, media_type);
        Descriptor {
            media_type: media_type.to_owned(),
            artifact_type: Some(EMPTY.to_owned()),
            digest,
            size,
            annotations: BTreeMap::new(),
            platform: None,
        }
    }

    /// Lists a referrer in the API's answer.
    pub(super) fn list(&self, entry: Descriptor) {
        self.change(|state| state.referrers.get_or_insert_default().push(entry));
    }

    /// Puts an index under the fallback tag.
    pub(super) fn fallback(&self, image: &PinnedImage, entries: &[Descriptor]) {
        let (digest, _) = self.put(&index(entries), INDEX);
        self.change(|state| state.tags.insert(format!("sha256-{}", image.digest().hex()), digest));
    }

    async fn ask(&self, what: String, budget: &Budget) -> Result<(), Failure> {
        let (fault, panics, patience) = self.change(|state| {
            state.asked.push(what.clone());
            (state.faults.get(&what).cloned(), state.panics.contains(&what), state.patience.get(&what).cloned())
        });
        if let Some((failure, wait)) = patience {
            let until = Instant::now() + wait;
            let _pause = budget.sit_out(&failure, until);
            sleep_until(until).await;
        }
        // An error would mean that the sender is gone, and we hold one.
        let _ = self.held.subscribe().wait_for(|held| !held).await;
        tokio::task::yield_now().await;
        assert!(!panics, "made to panic");
        fault.map_or(Ok(()), Err)
    }
}

impl Source for Memory {
    fn manifest<'a>(
        &'a self,
        _repository: &'a Repository,
        by: &'a ManifestRef,
        budget: &'a Budget,
    ) -> BoxFuture<'a, Result<Manifest, Failure>> {
        Box::pin(async move {
            let what = match by {
                ManifestRef::Digest(digest) => format!("manifest {digest}"),
                ManifestRef::Tag(tag) => format!("tag {tag}"),
            };
            self.ask(what.clone(), budget).await?;
            self.change(|state| {
                let digest = match by {
                    ManifestRef::Digest(digest) => Some(*digest),
                    ManifestRef::Tag(tag) => state.tags.get(tag.as_str()).copied(),
                };
                let found = digest.and_then(|digest| state.manifests.get(&digest)).cloned();
                let found = found.ok_or(Failure::NotFound { what: what.clone() })?;
                match by {
                    ManifestRef::Digest(wanted) if *wanted != found.digest => {
                        Err(Failure::DigestMismatch { detail: format!("{what} hashes to {}", found.digest) })
                    }
                    ManifestRef::Digest(_) | ManifestRef::Tag(_) => Ok(found),
                }
            })
        })
    }

    fn referrers<'a>(
        &'a self,
        _image: &'a PinnedImage,
        budget: &'a Budget,
    ) -> BoxFuture<'a, Result<Referrers, Failure>> {
        Box::pin(async move {
            self.ask("referrers".to_owned(), budget).await?;
            Ok(self.change(|state| match state.referrers.clone() {
                Some(entries) => Referrers::Listed { entries, complete: state.complete, cut_by: state.cut_by.clone() },
                None => Referrers::NoApi,
            }))
        })
    }

    fn blob<'a>(
        &'a self,
        _repository: &'a Repository,
        digest: Digest,
        size: u64,
        max: u64,
        budget: &'a Budget,
    ) -> BoxFuture<'a, Result<Bytes, Failure>> {
        Box::pin(async move {
            let what = format!("blob {digest}");
            if size > max {
                return Err(Failure::BudgetExceeded { detail: format!("{what} is {size} bytes, the limit is {max}") });
            }
            self.ask(what.clone(), budget).await?;
            let found = self.change(|state| state.blobs.get(&digest).cloned());
            match found.ok_or(Failure::NotFound { what: what.clone() })? {
                bytes if bytes.len() as u64 == size => Ok(bytes),
                _ => Err(Failure::DigestMismatch { detail: format!("{what} has another size") }),
            }
        })
    }

    fn has_referrers_api<'a>(&'a self, _host: &'a Host) -> BoxFuture<'a, Option<bool>> {
        Box::pin(async move { self.change(|state| state.knows_api) })
    }

    fn cores(&self) -> Cores {
        self.cores.clone()
    }

    fn credential_scope(&self, _repository: &Repository) -> [u8; 32] {
        self.change(|state| state.scope)
    }
}

pub(super) fn pinned(digest: Digest) -> PinnedImage {
    let image: ImageRef = format!("registry.example.com/rc/app@{digest}").parse().expect("a reference");
    image.pinned().expect("pinned")
}

pub(super) fn image_manifest(name: &str) -> Value {
    let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": format!("sha256:{}", "0".repeat(64)), "size": 2});
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [], "annotations": {"name": name}})
}

pub(super) fn artifact(subject: Option<Digest>, kind: Option<&str>, layers: &[Value], annotations: &Value) -> Value {
    let config = json!({"mediaType": EMPTY, "digest": format!("sha256:{}", "0".repeat(64)), "size": 2});
    let mut body = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers, "annotations": annotations});
    let fields = body.as_object_mut().expect("an object");
    if let Some(kind) = kind {
        fields.insert("artifactType".to_owned(), json!(kind));
    }
    if let Some(subject) = subject {
        fields.insert("subject".to_owned(), json!({"mediaType": MANIFEST, "digest": subject, "size": 1}));
    }
    body
}

pub(super) fn index(entries: &[Descriptor]) -> Value {
    let entries: Vec<Value> = entries
        .iter()
        .map(|entry| {
            json!({
                "mediaType": entry.media_type,
                "digest": entry.digest,
                "size": entry.size,
                "annotations": entry.annotations,
            })
        })
        .collect();
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
}

/// 503 of the registry.
pub(super) fn down() -> Failure {
    Failure::Unavailable { detail: "registry.example.com answers 503".to_owned(), transient: true }
}

/// A good legacy layer.
pub(super) fn signed(key: &TestKey, payload: Vec<u8>) -> (Vec<u8>, Option<String>) {
    let annotation = key.annotation(&payload);
    (payload, Some(annotation))
}
