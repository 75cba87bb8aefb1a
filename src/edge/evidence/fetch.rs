//! The calls of one search, bodies by digest from the store where it has them. It must never interpret an answer.

use std::sync::Arc;

use bytes::Bytes;

use super::cache::{Body, Store};
use super::limits::Limits;
use super::source::Source;
use crate::decision::evidence::Question;
use crate::decision::reference::{Digest, Tag};
use crate::edge::registry::{Budget, Descriptor, Failure, Manifest, ManifestRef, Referrers};

/// What a search works with.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) source: Arc<dyn Source>,
    pub(super) store: Store,
    pub(super) limits: Limits,
}

/// Something to fetch.
#[derive(Debug)]
pub(super) enum Step {
    /// The referrers API.
    Referrers,
    /// `sha256-<hex>.sig`.
    LegacyTag,
    /// `sha256-<hex>`: the referrers tag schema.
    FallbackTag,
    /// The image's own manifest.
    Image,
    /// An index within the image's index.
    Nested { digest: Digest, depth: usize },
    /// The manifest of a referrer.
    Open(Descriptor),
    /// A blob of a candidate.
    Blob { what: Wanted, digest: Digest, size: u64, max: u64 },
}

/// What a blob is fetched for.
#[derive(Debug)]
pub(super) enum Wanted {
    /// A legacy payload: each layer that points to it, with its signature.
    Payload(Vec<(String, String)>),
    /// A bundle, and where it was found.
    Bundle(String),
}

/// A step with its outcome.
pub(super) enum Done {
    Referrers(Result<Referrers, Failure>),
    LegacyTag(Result<Manifest, Failure>),
    FallbackTag(Result<Manifest, Failure>),
    Image(Result<Manifest, Failure>),
    Nested(Digest, usize, Result<Manifest, Failure>),
    Open(Descriptor, Result<Manifest, Failure>),
    Blob(Wanted, Result<Bytes, Failure>),
}

/// The calls of a search, bodies by digest from the store where it has them.
pub(super) struct Calls<'a> {
    pub(super) tools: &'a Tools,
    pub(super) question: &'a Question,
    pub(super) budget: &'a Budget,
    pub(super) scope: [u8; 32],
}

impl Calls<'_> {
    /// Makes one call.
    pub(super) async fn run(&self, step: Step) -> Done {
        let image = &self.question.image;
        match step {
            Step::Referrers => Done::Referrers(self.tools.source.referrers(image, self.budget).await),
            Step::LegacyTag => Done::LegacyTag(self.tagged(&legacy_tag(image.digest())).await),
            Step::FallbackTag => Done::FallbackTag(self.tagged(&fallback_tag(image.digest())).await),
            // Never from the store: whether the image is there is part of the answer.
            Step::Image => Done::Image(self.fetch(&ManifestRef::Digest(image.digest())).await),
            Step::Nested { digest, depth } => Done::Nested(digest, depth, self.by_digest(digest).await),
            Step::Open(descriptor) => {
                let opened = self.by_digest(descriptor.digest).await;
                Done::Open(descriptor, opened)
            }
            Step::Blob { what, digest, size, max } => {
                let fetched = self.blob(digest, size, max).await;
                Done::Blob(what, fetched)
            }
        }
    }

    async fn tagged(&self, tag: &str) -> Result<Manifest, Failure> {
        let tag: Tag = tag.parse().map_err(|_| Failure::Malformed { detail: "the tag is none".to_owned() })?;
        self.fetch(&ManifestRef::Tag(tag)).await
    }

    async fn fetch(&self, by: &ManifestRef) -> Result<Manifest, Failure> {
        self.tools.source.manifest(self.question.image.repository(), by, self.budget).await
    }

    async fn by_digest(&self, digest: Digest) -> Result<Manifest, Failure> {
        let (store, repository) = (&self.tools.store, self.question.image.repository());
        if let Some(Body { bytes, content_type }) = store.body(self.scope, repository, digest).await {
            return Ok(Manifest { bytes, digest, content_type: content_type.to_string() });
        }
        let manifest = self.fetch(&ManifestRef::Digest(digest)).await?;
        let body = Body { bytes: manifest.bytes.clone(), content_type: manifest.content_type.as_str().into() };
        store.keep_body(self.scope, repository, digest, body).await;
        Ok(manifest)
    }

    async fn blob(&self, digest: Digest, size: u64, max: u64) -> Result<Bytes, Failure> {
        let (store, repository) = (&self.tools.store, self.question.image.repository());
        if let Some(body) = store.body(self.scope, repository, digest).await {
            if body.bytes.len() as u64 == size {
                return Ok(body.bytes);
            }
            let detail = format!("{digest} has {} bytes, not the {size} that are declared", body.bytes.len());
            return Err(Failure::DigestMismatch { detail });
        }
        let bytes = self.tools.source.blob(repository, digest, size, max, self.budget).await?;
        let body = Body { bytes: bytes.clone(), content_type: "".into() };
        store.keep_body(self.scope, repository, digest, body).await;
        Ok(bytes)
    }
}

/// `sha256-<hex>.sig`: where cosign's legacy format keeps signatures.
pub(super) fn legacy_tag(digest: Digest) -> String {
    format!("sha256-{}.sig", digest.hex())
}

/// `sha256-<hex>`: the referrers tag schema (OCI distribution specification 1.1).
pub(super) fn fallback_tag(digest: Digest) -> String {
    format!("sha256-{}", digest.hex())
}
