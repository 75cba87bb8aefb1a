//! What is fuzzed: one function for each reader of bytes that others wrote. It must never hold a check of its own that the
//! product should make: a function panics only where the product broke a promise.
//!
//! `scripts/fuzz` runs each of them under libFuzzer, by the file of the same name in `fuzz/targets/`; `tests/corpus` runs
//! each over its folder in `fuzz/corpus/`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use provost::decision::decide::{decide, refuse};
use provost::decision::evidence::{AskedKey, StatementKind};
use provost::decision::name::Namespace;
use provost::decision::pattern::{NamespacePattern, RepositoryPattern};
use provost::decision::plan::{Limits, plan};
use provost::decision::policy::Governing;
use provost::decision::record::{ChainName, RecordName, RecordPlace, Row};
use provost::decision::reference::{Digest, ImageRef, Repository, Tag};
use provost::decision::review::{Review, Subject};
use provost::decision::verdict::Verdict;
use provost::edge::admission::{RecordMark, Reply, Undecodable, decode, encode, rescue_uid as rescue};
use provost::edge::policy_dir::{Known, lint, load};
use provost::edge::registry::{DockerConfig, parse_index};
use provost::edge::sigstore::key::{parse_der, parse_pem};
use provost::edge::sigstore::verify::{Candidate, bundle as verify_bundle, legacy_layer, read_bundle};
use serde_json::{Value, json};

/// One function that is fuzzed.
pub(crate) type Target = fn(&[u8]);

/// All of them, by the name of their file in `fuzz/targets/` and of their folder in `fuzz/corpus/`.
pub(crate) const TARGETS: [(&str, Target); 12] = [
    ("bundle", bundle),
    ("docker_config", docker_config),
    ("envelope", envelope),
    ("key", key),
    ("pattern", pattern),
    ("payload", payload),
    ("policy", policy),
    ("record", record),
    ("reference", reference),
    ("referrers", referrers),
    ("rescue_uid", rescue_uid),
    ("review", review),
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
    fn same<T: std::str::FromStr + ToString + PartialEq + std::fmt::Debug>(text: &str) {
        if let Ok(read) = text.parse::<T>() {
            let again = read.to_string().parse::<T>().ok();
            assert_eq!(again.as_ref(), Some(&read));
        }
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
                assert_eq!(config.is_empty(), config.len() == 0);
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
