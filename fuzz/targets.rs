//! What is fuzzed: one function for each reader of bytes that others wrote. It must never hold a check of its own that the
//! product should make: a function panics only where the product broke a promise.
//!
//! `scripts/fuzz` runs each of them under libFuzzer, by the file of the same name in `fuzz/targets/`; `tests/corpus` runs
//! each over its folder in `fuzz/corpus/`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::pin::Pin as Pinned;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use provost::decision::decide::{decide, refuse};
use provost::decision::evidence::{AskedKey, Facts, Question, Rejected, StatementKind};
use provost::decision::name::Namespace;
use provost::decision::pattern::{NamespacePattern, RepositoryPattern};
use provost::decision::plan::{Limits, plan};
use provost::decision::policy::Governing;
use provost::decision::record::{ChainName, RecordName, RecordPlace, Row};
use provost::decision::reference::{Digest, Host, ImageRef, PinnedImage, Repository, Tag};
use provost::decision::review::{Review, Subject};
use provost::decision::verdict::Verdict;
use provost::edge::admission::{RecordMark, Reply, Undecodable, decode, encode, rescue_uid as rescue};
use provost::edge::cores::Cores;
use provost::edge::evidence::{Evidence, Settings, Source};
use provost::edge::manifests::{Manifest as File, Pin, contents, splice, unified};
use provost::edge::policy_dir::{Known, lint, load};
use provost::edge::registry::{
    Budget, Descriptor, DockerConfig, Failure, Manifest, ManifestRef, Referrers, parse_index,
};
use provost::edge::sigstore::digest_of;
use provost::edge::sigstore::key::{parse_der, parse_pem};
use provost::edge::sigstore::verify::{Candidate, bundle as verify_bundle, legacy_layer, read_bundle};
use serde_json::{Value, json};

/// One function that is fuzzed.
pub(crate) type Target = fn(&[u8]);

/// All of them, by the name of their file in `fuzz/targets/` and of their folder in `fuzz/corpus/`.
pub(crate) const TARGETS: [(&str, Target); 14] = [
    ("bundle", bundle),
    ("docker_config", docker_config),
    ("envelope", envelope),
    ("key", key),
    ("manifest", manifest),
    ("pattern", pattern),
    ("payload", payload),
    ("policy", policy),
    ("record", record),
    ("reference", reference),
    ("referrers", referrers),
    ("rescue_uid", rescue_uid),
    ("review", review),
    ("workloads", workloads),
];

/// `AdmissionReview` JSON: read, judged without any policy, answered. It ends in an answer with the right uid, or in none;
/// allowed is only what can hold no image, leaves every image as it was, or mirrors a static pod.
pub(crate) fn review(bytes: &[u8]) {
    let (uid, verdict, may_allow) = match decode(bytes) {
        Err(Undecodable::NoReply { detail }) => {
            assert!(!detail.is_empty());
            return;
        }
        Err(Undecodable::Refuse { request, fault }) => {
            assert!(!fault.to_string().chars().any(char::is_control), "unprintable: {fault:?}");
            (request.uid, refuse(&fault), false)
        }
        Ok(review) => {
            let may_allow = review.subject == Subject::NoImages || review.leaves_all_images() || review.is_mirror_pod();
            check_places(&review);
            let governing = Governing { policies: Vec::new(), deny_lists: Vec::new(), broken: Vec::new() };
            let plan = plan(&review, &governing, Limits::default());
            assert!(plan.questions().is_empty(), "nobody governs, yet somebody is asked");
            let verdict = decide(&review, &governing, &plan, &[], jiff::Timestamp::UNIX_EPOCH);
            (review.request.uid, verdict, may_allow)
        }
    };
    assert!(!uid.is_empty());
    let allowed = match verdict {
        Verdict::Deny(_) => false,
        Verdict::Admit(_) | Verdict::Override(_) | Verdict::WouldDeny(_) | Verdict::NoImages => true,
    };
    assert!(!allowed || may_allow, "allowed without a reason");
    for record in [RecordMark::None, RecordMark::Pending, RecordMark::Saved("kqzt-1-9f3c2a7e11d0c4aa".to_owned())] {
        let reply = encode(&Reply { uid: &uid, verdict: &verdict, record });
        let reply: Value = serde_json::from_slice(&reply).expect("a reply is JSON");
        assert_eq!(reply.pointer("/response/uid"), Some(&Value::String(uid.clone())));
        assert_eq!(reply.pointer("/response/allowed"), Some(&Value::Bool(allowed)));
    }
}

/// Every image and every unknown field stands in a place of its own, and a kind without images has none.
fn check_places(review: &Review) {
    let paths: BTreeSet<&str> = review.images.iter().map(|image| image.place.path.as_str()).collect();
    assert_eq!(paths.len(), review.images.len(), "one place twice");
    assert_eq!(review.images.is_empty(), review.subject == Subject::NoImages);
    assert!(review.subject != Subject::NoImages || review.unknown_fields.is_empty());
}

/// The uid of a body that cannot be read as a whole: where the whole can be read, it is the same.
pub(crate) fn rescue_uid(bytes: &[u8]) {
    if let (Some(rescued), Ok(Review { request, .. })) = (rescue(bytes), decode(bytes)) {
        assert_eq!(rescued, request.uid);
    }
}

/// What `check` and `pin` read: every image that has a place of its own is pinned there, and reads as it was but for the
/// digest.
pub(crate) fn workloads(bytes: &[u8]) {
    const SUFFIX: &str = "@sha256:9b2c64d1e07f4a5b8c3d2e1f0a9b8c7d6e5f4a3b2c1d0e9f8a7b6c5d4e3f2a1b";
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let named = |text: &str| File { name: "fuzz.yaml".to_owned(), path: None, text: text.to_owned() };
    let namespace = "default".parse().expect("a namespace");
    let before = named(text);
    let found = contents(&before, &namespace);
    let mut pins = Vec::new();
    for workload in &found.workloads {
        let Ok(review) = &workload.review else { continue };
        check_places(review);
        assert_eq!(review.images.len(), workload.images.len(), "an image without its place");
        for (image, spot) in review.images.iter().zip(&workload.images) {
            let Some(bytes) = spot.bytes.clone() else { continue };
            assert!(text.get(bytes.clone()).is_some(), "outside of the text, or inside a character: {bytes:?}");
            if !image.text.trim().is_empty() && !image.text.contains('@') {
                pins.push(Pin { bytes, at: spot.at, image: image.text.clone(), suffix: SUFFIX.to_owned() });
            }
        }
    }
    let Ok(pinned) = splice(&before, &pins) else { return };
    assert_eq!(pinned.replace(SUFFIX, ""), text.replace(SUFFIX, ""), "more than digests was written");
    let _ = unified("fuzz.yaml", text, &pinned);
    let after = contents(&named(&pinned), &namespace);
    assert_eq!(after.problems.len(), found.problems.len());
    let images = |found: &provost::edge::manifests::Contents| -> Vec<String> {
        let reviews = found.workloads.iter().filter_map(|workload| workload.review.as_ref().ok());
        reviews.flat_map(|review| &review.images).map(|image| image.text.replace(SUFFIX, "")).collect()
    };
    assert_eq!(images(&after), images(&found), "pinning changed which images there are");
}

/// What a name prints reads as the same name.
fn same<T: std::str::FromStr + ToString + PartialEq + std::fmt::Debug>(text: &str) {
    if let Ok(read) = text.parse::<T>() {
        let again = read.to_string().parse::<T>().ok();
        assert_eq!(again.as_ref(), Some(&read));
    }
}

/// Image names and their parts: what is read is written so that it reads the same.
pub(crate) fn reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match text.parse::<ImageRef>() {
        Ok(read) => {
            let written = read.to_string();
            assert_eq!(written.parse::<ImageRef>().as_ref(), Ok(&read), "{text:?} became {written:?}");
            assert!(written.bytes().all(|byte| byte.is_ascii_graphic()), "{written:?}");
            if let Some(pinned) = read.pinned() {
                let again = pinned.to_string().parse::<ImageRef>().ok().and_then(|read| read.pinned());
                assert_eq!(again, Some(pinned));
            }
        }
        Err(error) => assert!(!error.to_string().chars().any(char::is_control), "unprintable: {error:?}"),
    }
    same::<Digest>(text);
    same::<Tag>(text);
    same::<Repository>(text);
}

/// Patterns, each line after the first matched by the first.
pub(crate) fn pattern(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    match first.parse::<RepositoryPattern>() {
        Ok(pattern) => {
            let again = pattern.to_string().parse::<RepositoryPattern>().expect("what was read reads again");
            for repository in rest.lines().filter_map(|line| line.parse::<Repository>().ok()) {
                assert_eq!(pattern.matches(&repository), again.matches(&repository));
                let host = first.split('/').next().unwrap_or_default();
                assert!(
                    !pattern.matches(&repository) || host.eq_ignore_ascii_case(repository.host().as_str()),
                    "{first:?} crosses into the host of {repository}"
                );
            }
        }
        Err(error) => assert!(!error.to_string().chars().any(char::is_control), "unprintable: {error:?}"),
    }
    if let Ok(pattern) = first.parse::<NamespacePattern>() {
        let again = pattern.to_string().parse::<NamespacePattern>().expect("what was read reads again");
        for namespace in rest.lines().filter_map(|line| line.parse::<Namespace>().ok()) {
            assert_eq!(pattern.matches(&namespace), again.matches(&namespace));
        }
    }
}

/// One policy file in a folder with keys: read twice alike, and what is not good denies.
pub(crate) fn policy(bytes: &[u8]) {
    thread_local! {
        static FOLDER: tempfile::TempDir = {
            let folder = tempfile::tempdir().expect("a folder");
            let keys = folder.path().join("keys");
            std::fs::create_dir(&keys).expect("a folder for keys");
            std::fs::write(keys.join("release.pub"), include_str!("../policies/keys/release.pub")).expect("a key");
            folder
        };
    }
    let file: PathBuf = FOLDER.with(|folder| folder.path().join("policy.yaml"));
    std::fs::write(&file, bytes).expect("a policy");
    let folder = file.parent().expect("it has a folder");
    let loaded = load(folder, &Known::default());
    assert_eq!(loaded.set, load(folder, &Known::default()).set, "read twice, and different");
    // Whatever is wrong somewhere is wrong for somebody: no fault without a denial.
    assert!(loaded.problems.is_empty() || !loaded.set.broken.is_empty(), "{:?}", loaded.problems);
    let linted = lint(std::slice::from_ref(&file), jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(linted.problems.is_empty(), loaded.problems.is_empty(), "lint and load differ");
    let mut shown = String::new();
    for told in loaded.problems.iter().chain(&loaded.warnings).chain(&linted.warnings) {
        write!(shown, "{told}").expect("a text takes it");
    }
    assert!(!shown.contains('\x1b'), "{shown:?}");
}

/// A referrers list, or an index.
pub(crate) fn referrers(bytes: &[u8]) {
    match parse_index(bytes) {
        Ok(entries) => assert!(entries.len() <= 1000),
        Err(failure) => assert!(!failure.to_string().chars().any(char::is_control), "unprintable: {failure:?}"),
    }
}

/// Signatures by real keys over one image, made by cosign; the private keys are gone.
struct Samples {
    image: Digest,
    keys: BTreeSet<AskedKey>,
    payloads: BTreeSet<Vec<u8>>,
    /// Payloads and bundles, as a registry keeps them.
    blobs: BTreeMap<Digest, Bytes>,
}

static SAMPLES: LazyLock<Samples> = LazyLock::new(|| {
    let file: Value =
        serde_json::from_str(include_str!("../src/edge/sigstore/testdata/cosign-3.1.3.json")).expect("JSON");
    let samples = file["samples"].as_array().expect("samples");
    let text = |sample: &Value, key: &str| sample[key].as_str().expect("a text").to_owned();
    let image = text(&samples[0], "image").parse().expect("a digest");
    let asked = |sample: &Value| {
        let parsed = parse_pem(&text(sample, "public_key")).expect("a key");
        AskedKey { fingerprint: parsed.fingerprint, scheme: parsed.scheme, spki: parsed.spki }
    };
    Samples {
        image,
        keys: samples.iter().map(asked).collect(),
        payloads: samples.iter().map(|sample| text(sample, "payload").into_bytes()).collect(),
        blobs: samples
            .iter()
            .flat_map(|sample| [text(sample, "payload"), text(sample, "bundle")])
            .map(|blob| (digest_of(blob.as_bytes()), Bytes::from(blob)))
            .collect(),
    }
});

fn candidate() -> Candidate<'static> {
    Candidate { image: SAMPLES.image, keys: &SAMPLES.keys, source: "fuzz" }
}

/// Cosign's legacy payload; the first line is the signature. Only the bytes that were signed are proof.
pub(crate) fn payload(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let signature = String::from_utf8_lossy(&bytes[..end]);
    let payload = bytes.get(end + 1..).unwrap_or_default();
    if let Ok(statement) = legacy_layer(&candidate(), payload, &signature) {
        assert!(SAMPLES.payloads.contains(payload), "a signature verifies over bytes that nobody signed");
        assert_eq!(statement.subject(), SAMPLES.image);
        assert_eq!(statement.kind(), &StatementKind::ImageSignature);
    }
}

/// A Sigstore bundle. What it proves, it proves about the image that was asked for.
pub(crate) fn bundle(bytes: &[u8]) {
    let candidate = candidate();
    let read = read_bundle(&candidate, bytes);
    if let Ok(bundle) = &read {
        let _ = bundle.needs_image(candidate.keys);
    }
    for image in [None, Some(b"{}".as_slice())] {
        if let Ok(statement) = verify_bundle(&candidate, bytes, image) {
            assert!(read.is_ok(), "proof from what cannot be read");
            assert_eq!(statement.subject(), SAMPLES.image);
            assert_eq!(statement.kind(), &StatementKind::ImageSignature, "the keys signed nothing else");
        }
    }
}

type Answer<'a, T> = Pinned<Box<dyn Future<Output = T> + Send + 'a>>;

/// A registry that has real signatures as blobs, and the same manifest wherever one is asked for: as the image, under every
/// tag, as every referrer and as every child.
struct Echo {
    body: Bytes,
    content_type: String,
}

impl Source for Echo {
    fn manifest<'a>(
        &'a self,
        _: &'a Repository,
        by: &'a ManifestRef,
        _: &'a Budget,
    ) -> Answer<'a, Result<Manifest, Failure>> {
        let digest = match by {
            ManifestRef::Digest(digest) => *digest,
            ManifestRef::Tag(_) => digest_of(&self.body),
        };
        let content_type = self.content_type.clone();
        Box::pin(async move { Ok(Manifest { bytes: self.body.clone(), digest, content_type }) })
    }

    fn referrers<'a>(&'a self, _: &'a PinnedImage, _: &'a Budget) -> Answer<'a, Result<Referrers, Failure>> {
        let entry = Descriptor {
            media_type: self.content_type.clone(),
            artifact_type: None,
            digest: digest_of(&self.body),
            size: self.body.len() as u64,
            annotations: BTreeMap::new(),
            platform: None,
        };
        Box::pin(async move { Ok(Referrers::Listed { entries: vec![entry], complete: false, cut_by: None }) })
    }

    fn blob<'a>(
        &'a self,
        _: &'a Repository,
        digest: Digest,
        size: u64,
        max: u64,
        _: &'a Budget,
    ) -> Answer<'a, Result<Bytes, Failure>> {
        let blob = SAMPLES.blobs.get(&digest).filter(|blob| blob.len() as u64 == size).cloned();
        Box::pin(async move {
            if size > max {
                return Err(Failure::BudgetExceeded { detail: format!("{size} bytes, the limit is {max}") });
            }
            blob.ok_or(Failure::NotFound { what: "the blob".to_owned() })
        })
    }

    fn has_referrers_api<'a>(&'a self, _: &'a Host) -> Answer<'a, Option<bool>> {
        Box::pin(async { None })
    }

    fn cores(&self) -> Cores {
        static CORES: LazyLock<Cores> = LazyLock::new(Cores::all_but_one);
        CORES.clone()
    }

    fn credential_scope(&self, _: &Repository) -> [u8; 32] {
        [0; 32]
    }
}

/// The body of a `manifest` case, whose first line is the `Content-Type`.
fn body_of(bytes: &[u8]) -> (String, Bytes) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let content_type = String::from_utf8_lossy(&bytes[..end]).into_owned();
    (content_type, Bytes::copy_from_slice(bytes.get(end + 1..).unwrap_or_default()))
}

/// What a search finds in a registry that answers with this manifest.
pub(crate) fn evidence_in(bytes: &[u8]) -> Arc<Facts> {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    }
    let (content_type, body) = body_of(bytes);
    let repository = "registry.example.com/release/app".parse().expect("a repository");
    let image = PinnedImage::new(repository, SAMPLES.image);
    let question = Question { image, keys: SAMPLES.keys.clone(), children: true };
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let evidence = Evidence::new(Echo { body, content_type }, Settings::default());
            let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
            evidence.answer(&question, deadline, Arc::new(|_| false)).await.facts
        })
    })
}

/// A manifest or an index, as an image and as evidence about it. What it leads to is proof only where somebody signed it,
/// and every entry of an index is a child.
pub(crate) fn manifest(bytes: &[u8]) {
    let (_, body) = body_of(bytes);
    let facts = evidence_in(bytes);
    let Facts { statements, rejected, unanswered, image_fault, children, limit, exhausted: _, checks: _ } = &*facts;
    // Under a tag, what is no JSON is no answer; all else was answered.
    let is_whole = serde_json::from_slice::<Value>(&body).is_ok();
    assert!(unanswered.is_empty() || !is_whole, "everything was answered: {unanswered:?}");
    for statement in statements {
        assert_eq!((statement.subject(), statement.kind()), (SAMPLES.image, &StatementKind::ImageSignature));
        assert!(SAMPLES.blobs.contains_key(&statement.evidence()), "proof that nobody signed");
    }
    let told = rejected.iter().chain(image_fault).map(|Rejected { detail, .. }| detail).chain(limit);
    told.for_each(|detail| assert!(!detail.chars().any(char::is_control), "unprintable: {detail:?}"));
    assert!(children.is_some() != image_fault.is_some(), "read, or at fault: {children:?}, {image_fault:?}");
    let Some(children) = children else { return assert!(statements.is_empty(), "nobody knows what is in it") };
    assert_eq!(children.iter().collect::<BTreeSet<_>>().len(), children.len(), "one child twice");
    assert!(children.len() <= 64, "{}", children.len());
    if let Ok(entries) = parse_index(&body) {
        assert!(!entries.is_empty(), "an index without entries is sound");
        let overlooked = entries.iter().find(|entry| !children.contains(&entry.digest));
        assert!(overlooked.is_none(), "an index to one reader and not to the other: {overlooked:?}");
    }
}

/// An in-toto statement inside a DSSE envelope inside a bundle, whose signature nobody made.
pub(crate) fn envelope(bytes: &[u8]) {
    let bundle = json!({
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": ""}},
        "dsseEnvelope": {
            "payload": BASE64_STANDARD.encode(bytes),
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"sig": "MAYCAQECAQE="}],
        },
    });
    let proof = verify_bundle(&candidate(), bundle.to_string().as_bytes(), None);
    assert!(proof.is_err(), "proof without a signature");
}

/// Registry credentials, in both forms. Neither the errors nor what is shown for debugging holds a secret.
pub(crate) fn docker_config(bytes: &[u8]) {
    const CANARY: &str = "canary-5e1f";
    for read in [DockerConfig::parse(bytes), DockerConfig::parse_legacy(bytes)] {
        let shown = match read {
            Ok((config, warnings)) => {
                assert!(config.len() <= bytes.len(), "more credentials than bytes");
                warnings.concat()
            }
            Err(error) => error.to_string(),
        };
        assert!(!shown.contains(CANARY), "a secret is shown: {shown}");
    }
}

/// Public keys, PEM or DER.
pub(crate) fn key(bytes: &[u8]) {
    let pem = std::str::from_utf8(bytes).ok().and_then(|text| parse_pem(text).ok());
    for read in pem.into_iter().chain(parse_der(bytes)) {
        let again = parse_der(&read.spki).expect("what was read reads again");
        assert_eq!((again.fingerprint, again.scheme), (read.fingerprint, read.scheme));
    }
}

/// A record's body, and the names of records.
pub(crate) fn record(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(row) = Row::of(text) {
        assert_eq!(Row::of(text).ok(), Some(row));
    }
    let _ = Row::recovery(text);
    for line in text.lines() {
        if let Ok(name) = line.parse::<RecordName>() {
            assert_eq!(name.to_string(), line);
            assert_eq!(line.parse::<RecordPlace>().map(|place| place.to_string()).ok().as_deref(), Some(line));
        } else if let Ok(place) = line.parse::<RecordPlace>() {
            assert_eq!(place.to_string(), line);
        }
        if let Ok(chain) = line.parse::<ChainName>() {
            assert_eq!(chain.to_string(), line);
        }
    }
}
