//! What is kept between searches: facts by question, bodies by digest. It must never
//! keep a verdict, a fault of a registry, or one credential's finds for another.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use moka::future::Cache;
use moka::policy::EvictionPolicy;
use tokio::time::Instant;

use crate::decision::evidence::{Facts, Question, StatementKind};
use crate::decision::reference::{Digest, Repository};

use super::limits::Limits;

/// How long facts serve that prove what is asked.
pub(super) const PROVEN: Duration = Duration::from_mins(10);
/// How long facts serve that do not, where every source was asked to its end.
pub(super) const REFUTED: Duration = Duration::from_secs(30);

/// Format of the keys below. Raise it where facts change their meaning.
const FORMAT: &str = "provost-evidence-1";

/// The key of one question: everything that its answer depends on, hashed, each field with its length before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

impl Key {
    pub(super) fn new(question: &Question, limits: &Limits, scope: &[u8; 32]) -> Self {
        // Taken apart by name, so that a field that is added cannot be forgotten here.
        let Question { image, keys, children } = question;
        let Limits { listed, opened, layers, checks, bytes, requests } = *limits;
        let mut hash = Fields(aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256));
        hash.field(FORMAT.as_bytes());
        hash.field(env!("CARGO_PKG_VERSION").as_bytes());
        hash.field(image.repository().to_string().as_bytes());
        hash.field(image.digest().as_bytes());
        hash.field(&[u8::from(*children)]);
        hash.number(keys.len() as u64);
        for key in keys {
            hash.field(key.fingerprint.as_bytes());
            hash.field(&[key.scheme as u8]);
            hash.field(&key.spki);
        }
        for count in [listed as u64, opened as u64, layers as u64, checks as u64, bytes, requests] {
            hash.number(count);
        }
        hash.field(scope);
        let mut out = [0; 32];
        out.copy_from_slice(hash.0.finish().as_ref());
        Self(out)
    }
}

struct Fields(aws_lc_rs::digest::Context);

impl Fields {
    fn field(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn number(&mut self, number: u64) {
        self.field(&number.to_be_bytes());
    }
}

/// Facts with the time at which they were found.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) facts: Arc<Facts>,
    pub(super) at: Instant,
}

impl Kept {
    /// Whether every source was asked and answered.
    pub(super) fn is_definite(&self) -> bool {
        self.facts.exhausted && self.facts.unanswered.is_empty()
    }
}

/// A body that was hashed when it was fetched.
#[derive(Debug, Clone)]
pub(super) struct Body {
    pub(super) bytes: Bytes,
    /// `Content-Type` of a manifest; empty for a blob.
    pub(super) content_type: Arc<str>,
}

/// Whose find a body is: credential scope and repository. A body serves only where it could have been fetched.
type BodyKey = ([u8; 32], Repository, Digest);

/// All that is kept, bounded by bytes; least recently used goes first.
#[derive(Debug, Clone)]
pub(super) struct Store {
    facts: Cache<Key, Kept>,
    bodies: Cache<BodyKey, Body>,
}

impl Store {
    /// A store of at most so many bytes: a quarter for facts, the rest for bodies.
    pub(super) fn new(max_bytes: u64) -> Self {
        let facts = Cache::builder()
            .max_capacity(max_bytes / 4)
            .eviction_policy(EvictionPolicy::lru())
            .weigher(|_: &Key, kept: &Kept| weight(&kept.facts))
            .build();
        let bodies = Cache::builder()
            .max_capacity(max_bytes - max_bytes / 4)
            .eviction_policy(EvictionPolicy::lru())
            .weigher(|_: &BodyKey, body: &Body| u32::try_from(body.bytes.len() + 512).unwrap_or(u32::MAX))
            .build();
        Self { facts, bodies }
    }

    pub(super) async fn facts(&self, key: &Key) -> Option<Kept> {
        self.facts.get(key).await
    }

    pub(super) async fn keep(&self, key: Key, facts: Arc<Facts>) {
        self.facts.insert(key, Kept { facts, at: Instant::now() }).await;
    }

    pub(super) async fn body(&self, scope: [u8; 32], repository: &Repository, digest: Digest) -> Option<Body> {
        self.bodies.get(&(scope, repository.clone(), digest)).await
    }

    pub(super) async fn keep_body(&self, scope: [u8; 32], repository: &Repository, digest: Digest, body: Body) {
        self.bodies.insert((scope, repository.clone(), digest), body).await;
    }
}

/// Bytes that facts take, roughly.
fn weight(facts: &Facts) -> u32 {
    let Facts { statements, rejected, unanswered, image_fault, children, limit, exhausted: _, checks: _ } = facts;
    let statements: usize = statements
        .iter()
        .map(|s| {
            let predicate = match s.kind() {
                StatementKind::ImageSignature => 0,
                StatementKind::Attestation { predicate_type } => predicate_type.len(),
            };
            let annotations: usize = s.annotations().iter().map(|(k, v)| k.len() + v.len() + 96).sum();
            256 + predicate + annotations + s.signed_for().map_or(0, str::len) + s.source().len()
        })
        .sum();
    let rejected: usize = rejected.iter().chain(image_fault).map(|r| 96 + r.source.len() + r.detail.len()).sum();
    let unanswered: usize = unanswered.iter().map(|u| 64 + u.detail.len()).sum();
    let total = 256
        + statements
        + rejected
        + unanswered
        + children.as_ref().map_or(0, Vec::len) * 32
        + limit.as_ref().map_or(0, String::len);
    u32::try_from(total).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::policy::KeyScheme;
    use crate::edge::sigstore::samples::TestKey;
    use std::collections::BTreeSet;

    #[test]
    fn x_049_x_091_everything_an_answer_depends_on_is_in_its_key() {
        let (one, two) = (TestKey::new(KeyScheme::RsaPkcs1).asked(), TestKey::new(KeyScheme::EcdsaP256).asked());
        let mut pss = one.clone();
        pss.scheme = KeyScheme::RsaPss;
        let question = |name: &str, keys: &[&crate::decision::evidence::AskedKey], children| Question {
            image: format!("{name}@sha256:{}", "0".repeat(64))
                .parse::<crate::decision::reference::ImageRef>()
                .expect("reference")
                .pinned()
                .expect("pinned"),
            keys: keys.iter().map(|k| (*k).clone()).collect(),
            children,
        };
        let limits = Limits::default();
        let fewer = Limits { opened: 99, ..limits };
        let base = question("r.example.com/a", &[&one], false);
        let keys = [
            Key::new(&base, &limits, &[0; 32]),
            Key::new(&question("r.example.com/b", &[&one], false), &limits, &[0; 32]),
            Key::new(&question("r.example.com:5000/a", &[&one], false), &limits, &[0; 32]),
            Key::new(&question("r.example.com/a", &[&two], false), &limits, &[0; 32]),
            Key::new(&question("r.example.com/a", &[&pss], false), &limits, &[0; 32]),
            Key::new(&question("r.example.com/a", &[&one, &two], false), &limits, &[0; 32]),
            Key::new(&question("r.example.com/a", &[], false), &limits, &[0; 32]),
            Key::new(&question("r.example.com/a", &[&one], true), &limits, &[0; 32]),
            Key::new(&base, &fewer, &[0; 32]),
            Key::new(&base, &limits, &[1; 32]),
        ];
        assert_eq!(keys.iter().map(|k| k.0).collect::<BTreeSet<_>>().len(), keys.len());
        assert_eq!(keys[0], Key::new(&base.clone(), &limits, &[0; 32]), "and nothing else is");
    }

    #[tokio::test]
    async fn x_104_the_store_is_bounded_by_bytes() {
        let store = Store::new(400 * 1024);
        let repository: Repository = "r.example.com/a".parse().expect("repository");
        for n in 0..200_u8 {
            let body = Body { bytes: Bytes::from(vec![n; 16 * 1024]), content_type: "".into() };
            store.keep_body([0; 32], &repository, Digest::from_bytes([n; 32]), body).await;
        }
        store.bodies.run_pending_tasks().await;
        assert!(store.bodies.weighted_size() <= 300 * 1024, "{}", store.bodies.weighted_size());
        assert!(
            store.body([0; 32], &repository, Digest::from_bytes([199; 32])).await.is_some(),
            "the last one is kept"
        );
        assert!(
            store.body([1; 32], &repository, Digest::from_bytes([199; 32])).await.is_none(),
            "another credential's"
        );
    }
}
