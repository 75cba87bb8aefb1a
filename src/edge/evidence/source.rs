//! What evidence is read from: a registry, or in tests a table in memory. It must never interpret what it hands over.

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::decision::reference::{Digest, Host, PinnedImage, Repository};
use crate::edge::cores::Cores;
use crate::edge::registry::{Budget, Failure, Manifest, ManifestRef, Referrers, Registry};

/// The calls that a search makes. Every one ends within the budget's deadline, and spends from the budget what it fetches.
pub trait Source: Send + Sync + 'static {
    /// A manifest. By digest: its body was hashed and compared.
    fn manifest<'a>(
        &'a self,
        repository: &'a Repository,
        by: &'a ManifestRef,
        budget: &'a Budget,
    ) -> BoxFuture<'a, Result<Manifest, Failure>>;

    /// What refers to an image, by the referrers API (OCI distribution specification 1.1), every page.
    fn referrers<'a>(&'a self, image: &'a PinnedImage, budget: &'a Budget)
    -> BoxFuture<'a, Result<Referrers, Failure>>;

    /// A blob: refused unfetched where `size` is over `max`; hashed; compared with `size` (bytes).
    fn blob<'a>(
        &'a self,
        repository: &'a Repository,
        digest: Digest,
        size: u64,
        max: u64,
        budget: &'a Budget,
    ) -> BoxFuture<'a, Result<Bytes, Failure>>;

    /// Whether a host is known to have the referrers API, or known to lack it.
    fn has_referrers_api<'a>(&'a self, host: &'a Host) -> BoxFuture<'a, Option<bool>>;

    /// Where what takes long is computed: signatures are checked there, too.
    fn cores(&self) -> Cores;

    /// Which credential would be used for a repository, as an opaque keyed hash; never the credential.
    fn credential_scope(&self, repository: &Repository) -> [u8; 32];
}

impl Source for Registry {
    fn manifest<'a>(
        &'a self,
        repository: &'a Repository,
        by: &'a ManifestRef,
        budget: &'a Budget,
    ) -> BoxFuture<'a, Result<Manifest, Failure>> {
        Box::pin(Self::manifest(self, repository, by, budget))
    }

    fn referrers<'a>(
        &'a self,
        image: &'a PinnedImage,
        budget: &'a Budget,
    ) -> BoxFuture<'a, Result<Referrers, Failure>> {
        Box::pin(Self::referrers(self, image, budget))
    }

    fn blob<'a>(
        &'a self,
        repository: &'a Repository,
        digest: Digest,
        size: u64,
        max: u64,
        budget: &'a Budget,
    ) -> BoxFuture<'a, Result<Bytes, Failure>> {
        Box::pin(Self::blob(self, repository, digest, size, max, budget))
    }

    fn has_referrers_api<'a>(&'a self, host: &'a Host) -> BoxFuture<'a, Option<bool>> {
        Box::pin(Self::has_referrers_api(self, host))
    }

    fn cores(&self) -> Cores {
        Self::cores(self).clone()
    }

    fn credential_scope(&self, repository: &Repository) -> [u8; 32] {
        Self::credential_scope(self, repository)
    }
}
