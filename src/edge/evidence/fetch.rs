//! The steps of one search that take their time: calls, with bodies by digest from the store where it has them, and
//! checks. It must never say what an answer means for the image.

use std::sync::Arc;

use bytes::Bytes;

use super::cache::{Body, Store};
use super::limits::Limits;
use super::manifest::{Document, Unread};
use super::source::Source;
use crate::decision::evidence::{Question, VerifiedStatement};
use crate::decision::reference::{Digest, Tag};
use crate::edge::cores::Cores;
use crate::edge::registry::{Budget, Descriptor, Failure, Manifest, ManifestRef, Referrers};
use crate::edge::sigstore::verify::{self, Candidate, Unproven};

/// What a search works with.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) source: Arc<dyn Source>,
    pub(super) store: Store,
    pub(super) limits: Limits,
    /// Where signatures are checked and long documents are read.
    pub(super) cores: Cores,
}

/// Something to fetch or to check.
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
    /// Some candidates.
    Check(Vec<Check>),
}

/// A candidate with all that its check needs.
#[derive(Debug)]
pub(super) enum Check {
    /// A legacy layer.
    Layer { source: String, payload: Bytes, signature: String },
    /// A bundle, with the image's own bytes where they are needed.
    Bundle { source: String, bytes: Bytes, image: Option<Bytes> },
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
    LegacyTag(Result<Read, Failure>),
    FallbackTag(Result<Read, Failure>),
    Image(Result<Read, Failure>),
    Nested(Digest, usize, Result<Read, Failure>),
    Open(Descriptor, Result<Read, Failure>),
    Blob(Wanted, Result<Bytes, Failure>),
    Checked(Vec<Result<VerifiedStatement, Unproven>>),
}

/// A manifest, and what it says.
pub(super) struct Read {
    pub(super) digest: Digest,
    pub(super) bytes: Bytes,
    pub(super) document: Result<Document, Unread>,
}

impl From<Manifest> for Read {
    fn from(manifest: Manifest) -> Self {
        let document = Document::read(&manifest);
        Self { digest: manifest.digest, bytes: manifest.bytes, document }
    }
}

/// The steps of a search.
pub(super) struct Calls<'a> {
    pub(super) tools: &'a Tools,
    pub(super) question: &'a Arc<Question>,
    pub(super) budget: &'a Budget,
    pub(super) scope: [u8; 32],
}

impl Calls<'_> {
    /// Takes one step.
    pub(super) async fn run(&self, step: Step) -> Done {
        let image = &self.question.image;
        match step {
            Step::Referrers => Done::Referrers(self.tools.source.referrers(image, self.budget).await),
            Step::LegacyTag => Done::LegacyTag(self.tagged(legacy_tag(image.digest())).await),
            Step::FallbackTag => Done::FallbackTag(self.tagged(fallback_tag(image.digest())).await),
            // Never from the store: whether the image is there is part of the answer.
            Step::Image => Done::Image(self.read(self.fetch(&ManifestRef::Digest(image.digest())).await).await),
            Step::Nested { digest, depth } => {
                Done::Nested(digest, depth, self.read(self.by_digest(digest).await).await)
            }
            Step::Open(descriptor) => {
                let opened = self.read(self.by_digest(descriptor.digest).await).await;
                Done::Open(descriptor, opened)
            }
            Step::Blob { what, digest, size, max } => {
                let fetched = self.blob(digest, size, max).await;
                Done::Blob(what, fetched)
            }
            Step::Check(checks) => {
                let question = Arc::clone(self.question);
                let all = move || checks.iter().map(|check| check.make(&question)).collect();
                Done::Checked(self.tools.cores.run(all).await)
            }
        }
    }

    async fn tagged(&self, tag: Tag) -> Result<Read, Failure> {
        self.read(self.fetch(&ManifestRef::Tag(tag)).await).await
    }

    async fn read(&self, fetched: Result<Manifest, Failure>) -> Result<Read, Failure> {
        let manifest = fetched?;
        Ok(self.tools.cores.read(manifest.bytes.len(), move || manifest.into()).await)
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

impl Check {
    /// Checks the candidate against the image and the keys of the question.
    fn make(&self, question: &Question) -> Result<VerifiedStatement, Unproven> {
        let candidate = |source| Candidate { image: question.image.digest(), keys: &question.keys, source };
        match self {
            Self::Layer { source, payload, signature } => {
                verify::legacy_layer(&candidate(source.as_str()), payload, signature)
            }
            Self::Bundle { source, bytes, image } => {
                verify::bundle(&candidate(source.as_str()), bytes, image.as_deref())
            }
        }
    }
}

/// `sha256-<hex>.sig`: where cosign's legacy format keeps signatures.
pub(super) fn legacy_tag(digest: Digest) -> Tag {
    format!("sha256-{}.sig", digest.hex()).parse().expect("75 letters, digits, dashes and dots are a tag")
}

/// `sha256-<hex>`: the referrers tag schema (OCI distribution specification 1.1).
pub(super) fn fallback_tag(digest: Digest) -> Tag {
    format!("sha256-{}", digest.hex()).parse().expect("71 letters, digits and dashes are a tag")
}
