//! The client as a whole, against a registry that answers as the test tells it.

mod answers;
mod auth;
mod junk;
mod lists;
mod redirects;
mod tls;

use super::scripted::{Server, budget, settings};
use super::{Failure, Manifest, ManifestRef, Registry, Settings};
use crate::decision::code::Code;
use crate::decision::reference::{Digest, PinnedImage, Repository};

/// A client that may use these servers.
fn registry(servers: &[&Server]) -> Registry {
    let hosts: Vec<String> = servers.iter().map(|server| server.host()).collect();
    client(&settings(hosts.iter().map(String::as_str)))
}

fn client(settings: &Settings) -> Registry {
    Registry::new(settings).expect("settings")
}

/// `team/app` on a server.
fn app(server: &Server) -> Repository {
    format!("{}/team/app", server.host()).parse().expect("repository")
}

fn image(server: &Server, digest: Digest) -> PinnedImage {
    PinnedImage::new(app(server), digest)
}

/// The manifest with this digest of `team/app`.
async fn pull(registry: &Registry, server: &Server, digest: Digest) -> Result<Manifest, Failure> {
    registry.manifest(&app(server), &ManifestRef::Digest(digest), &budget()).await
}

/// A failure's code and text.
fn told<T: std::fmt::Debug>(result: Result<T, Failure>) -> (Code, String) {
    let failure = result.expect_err("a failure");
    (failure.code(), failure.to_string())
}
