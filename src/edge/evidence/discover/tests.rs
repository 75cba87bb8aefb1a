//! Where evidence lies, what a registry may do about it, and what may be said then.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::decision::evidence::{Identity, StatementKind};
use crate::decision::policy::KeyScheme;
use crate::decision::reference::PinnedImage;
use crate::edge::evidence::Limits;
use crate::edge::evidence::cache::Store;
use crate::edge::evidence::source::Source as _;
use crate::edge::evidence::testing::{
    EMPTY, INDEX, MANIFEST, Memory, artifact, down, image_manifest, index, pinned, signed,
};
use crate::edge::registry::Manifest;
use crate::edge::sigstore::digest_of;
use crate::edge::sigstore::samples::{TestKey, simple_signing, statement};

const SBOM: &str = "https://spdx.dev/Document";

fn key() -> TestKey {
    TestKey::new(KeyScheme::EcdsaP256)
}

fn question(image: &PinnedImage, keys: &[&TestKey], children: bool) -> Question {
    Question { image: image.clone(), keys: keys.iter().map(|key| key.asked()).collect(), children }
}

async fn search_with(memory: &Memory, question: &Question, limits: Limits, stop: impl FnMut(&Facts) -> bool) -> Facts {
    let tools = tools(memory, limits);
    let budget = Budget::new(Instant::now() + Duration::from_secs(20), limits.bytes, limits.requests);
    search(&tools, &Arc::new(question.clone()), &budget, stop).await
}

fn tools(memory: &Memory, limits: Limits) -> Tools {
    Tools { source: Arc::new(memory.clone()), store: Store::new(8 << 20), limits, cores: memory.cores() }
}

/// A search that stops at the first image signature.
async fn first(memory: &Memory, question: &Question) -> Facts {
    search_with(memory, question, Limits::default(), is_signed).await
}

fn is_signed(facts: &Facts) -> bool {
    facts.statements.iter().any(|s| *s.kind() == StatementKind::ImageSignature)
}

fn codes(facts: &Facts) -> Vec<Code> {
    facts.rejected.iter().map(|r| r.code).collect()
}

fn unanswered(facts: &Facts) -> Vec<Code> {
    facts.unanswered.iter().map(|u| u.code).collect()
}

fn signature(key: &TestKey, image: &PinnedImage) -> Vec<u8> {
    key.bundle(&statement(image.digest(), bundle::IMAGE_SIGNATURE))
}

/// Puts one good signature into a place.
fn sign(memory: &Memory, key: &TestKey, image: &PinnedImage, place: &str) {
    let digest = image.digest();
    let payload = simple_signing(digest);
    let bundled = |predicate| memory.bundle(digest, &signature(key, image), predicate);
    match place {
        "the .sig tag" => memory.legacy(image, &[signed(key, payload)]),
        "a listed bundle" => memory.list(bundled(Some(bundle::IMAGE_SIGNATURE))),
        "a listed bundle without hints" => memory.list(bundled(None)),
        "a bundle under the fallback tag" => memory.fallback(image, &[bundled(None)]),
        "a listed legacy layer" => memory.list(memory.legacy_referrer(digest, &payload, &key.annotation(&payload))),
        "a legacy layer under the fallback tag" => {
            memory.fallback(image, &[memory.legacy_referrer(digest, &payload, &key.annotation(&payload))]);
        }
        "a listed message signature" => {
            memory.list(memory.bundle(digest, &key.message_bundle(image_manifest("app").to_string().as_bytes()), None));
        }
        other => panic!("no place {other}"),
    }
}

const PLACES: [&str; 7] = [
    "the .sig tag",
    "a listed bundle",
    "a listed bundle without hints",
    "a bundle under the fallback tag",
    "a listed legacy layer",
    "a legacy layer under the fallback tag",
    "a listed message signature",
];

#[tokio::test]
async fn a_signature_is_found_wherever_it_lies_and_its_twin_refused() {
    let (signer, other) = (key(), key());
    for place in PLACES {
        for api in [true, false] {
            if !api && place.contains("listed") {
                continue;
            }
            let memory = if api { Memory::new() } else { Memory::new().without_api() };
            let image = memory.image("app");
            sign(&memory, &signer, &image, place);
            let facts = first(&memory, &question(&image, &[&other, &signer], false)).await;
            let name = format!("{place}, API: {api}: {facts:?}");
            assert_eq!(facts.statements.len(), 1, "{name}");
            assert_eq!(facts.statements[0].identity(), &Identity::Key(signer.asked().fingerprint), "{name}");
            assert_eq!(facts.statements[0].subject(), image.digest(), "{name}");
            assert!(facts.statements[0].source().contains("sha256"), "{name}");

            let facts = first(&memory, &question(&image, &[&other], false)).await;
            assert!(facts.statements.is_empty() && facts.exhausted, "{facts:?}");
            // The bundle of a message signature names its key's hint, as do the others; none is listed here.
            assert_eq!(codes(&facts), [Code::WrongSigner], "{facts:?}");
        }
    }
}

#[tokio::test]
async fn a_message_signature_by_a_key_that_does_not_hash_with_sha256_fetches_the_image() {
    let signer = TestKey::new(KeyScheme::EcdsaP384);
    let memory = Memory::new();
    let image = memory.image("app");
    sign(&memory, &signer, &image, "a listed message signature");
    assert!(is_signed(&first(&memory, &question(&image, &[&signer], false)).await));
    assert_eq!(memory.count(&format!("manifest {}", image.digest())), 1);
    memory.fail(format!("manifest {}", image.digest()), down());
    let facts = first(&memory, &question(&image, &[&signer], false)).await;
    assert!(facts.statements.is_empty());
    assert_eq!(unanswered(&facts), [Code::EvidenceUnavailable]);
}

#[tokio::test]
async fn x_051_unsigned_is_said_only_when_every_source_has_answered() {
    let signer = key();
    for api in [true, false] {
        let memory = if api { Memory::new() } else { Memory::new().without_api() };
        let image = memory.image("app");
        let (sig, tag) =
            (format!("tag sha256-{}.sig", image.digest().hex()), format!("tag sha256-{}", image.digest().hex()));
        let own = format!("manifest {}", image.digest());
        let ask = question(&image, &[&signer], false);
        let facts = first(&memory, &ask).await;
        assert!(facts.exhausted && facts.statements.is_empty() && facts.rejected.is_empty(), "{facts:?}");
        assert!(facts.unanswered.is_empty() && facts.image_fault.is_none() && facts.limit.is_none(), "{facts:?}");
        let asked: BTreeSet<String> = memory.asked().into_iter().collect();
        assert_eq!(asked, BTreeSet::from(["referrers".to_owned(), sig.clone(), tag.clone(), own.clone()]));
        for source in ["referrers".to_owned(), sig, tag, own] {
            for (failure, code) in [
                (down(), Code::EvidenceUnavailable),
                (Failure::AuthFailed { detail: "401".to_owned() }, Code::RegistryAuthFailed),
                (
                    Failure::RateLimited { host: "h".to_owned(), retry_after: Some(Duration::from_secs(7)) },
                    Code::RateLimited,
                ),
                (Failure::AddressRefused { detail: "private".to_owned() }, Code::AddressRefused),
                (Failure::DeadlineExceeded { doing: "waiting".to_owned() }, Code::DeadlineExceeded),
            ] {
                memory.heal();
                memory.fail(source.clone(), failure);
                let facts = first(&memory, &ask).await;
                assert_eq!(unanswered(&facts), [code], "{source}");
                assert!(!facts.exhausted && facts.image_fault.is_none(), "{source}: {facts:?}");
                assert_eq!(facts.unanswered[0].detail.contains("7 s"), code == Code::RateLimited, "{facts:?}");
            }
        }
    }
}

#[tokio::test]
async fn x_040_one_source_down_and_the_other_found() {
    let (signer, other) = (key(), key());
    for (place, source) in [
        ("the .sig tag", "referrers".to_owned()),
        ("a listed bundle", "sig".to_owned()),
        ("a bundle under the fallback tag", "sig".to_owned()),
        ("a bundle under the fallback tag", "referrers".to_owned()),
    ] {
        let memory = Memory::new();
        let image = memory.image("app");
        let source = if source == "sig" { format!("tag sha256-{}.sig", image.digest().hex()) } else { source };
        sign(&memory, &signer, &image, place);
        memory.fail(&source, down());
        let facts = first(&memory, &question(&image, &[&signer], false)).await;
        assert!(is_signed(&facts), "{place}, {source} down: it proves");
        let facts = first(&memory, &question(&image, &[&other], false)).await;
        assert_eq!(unanswered(&facts), [Code::EvidenceUnavailable], "{place}, {source} down: it does not");
        assert!(!facts.exhausted);
    }
}

#[tokio::test]
async fn a_candidate_that_cannot_be_had_is_unanswered_or_rejected() {
    let signer = key();
    let memory = Memory::new();
    let image = memory.image("app");
    let bytes = signature(&signer, &image);
    let entry = memory.bundle(image.digest(), &bytes, None);
    memory.list(entry.clone());
    let ask = question(&image, &[&signer], false);
    let mismatch = || Failure::DigestMismatch { detail: "other bytes".to_owned() };
    for what in [format!("manifest {}", entry.digest), format!("blob {}", digest_of(&bytes))] {
        for (failure, rejected, missing) in [
            (down(), None, Some(Code::EvidenceUnavailable)),
            (Failure::NotFound { what: what.clone() }, Some(Code::EvidenceMalformed), None),
            (mismatch(), Some(Code::DigestMismatch), None),
            (Failure::BudgetExceeded { detail: "too many".to_owned() }, Some(Code::BudgetExceeded), None),
        ] {
            memory.heal();
            memory.fail(what.clone(), failure);
            let facts = first(&memory, &ask).await;
            assert!(facts.statements.is_empty());
            assert_eq!(codes(&facts).first().copied(), rejected, "{what}");
            assert_eq!(unanswered(&facts).first().copied(), missing, "{what}");
            assert_eq!(facts.limit.is_some(), rejected == Some(Code::BudgetExceeded), "{what}");
        }
    }
    memory.heal();
    assert!(is_signed(&first(&memory, &ask).await));
    // A list that tells another size than the manifest has is not believed.
    memory.change(|state| state.referrers = Some(vec![Descriptor { size: entry.size + 1, ..entry.clone() }]));
    assert_eq!(codes(&first(&memory, &ask).await), [Code::DigestMismatch]);
}

#[tokio::test]
async fn x_043_x_050_what_is_no_document_under_a_tag_is_no_answer() {
    let signer = key();
    let good = index(&[]).to_string();
    for (text, cut) in [
        (&good[..good.len() / 2], true),
        ("", true),
        ("<html>log in</html>", true),
        ("[]", false),
        (r#"{"schemaVersion":1}"#, false),
    ] {
        for tag in ["sha256-HEX.sig", "sha256-HEX"] {
            let memory = Memory::new();
            let image = memory.image("app");
            memory.put_tag(&tag.replace("HEX", &image.digest().hex()), text);
            let facts = first(&memory, &question(&image, &[&signer], false)).await;
            let want =
                if cut { (vec![Code::EvidenceUnavailable], vec![]) } else { (vec![], vec![Code::ManifestInvalid]) };
            assert_eq!((unanswered(&facts), codes(&facts)), want, "{tag}: {text}: {facts:?}");
            assert_eq!(facts.exhausted, !cut, "{tag}: {text}");
            // Under their digest the same bytes are what was meant, and no registry is at fault.
            let image = pinned(digest_of(text.as_bytes()));
            memory.put_text(text);
            let facts = first(&memory, &question(&image, &[&signer], false)).await;
            assert_eq!(facts.image_fault.as_ref().map(|f| f.code), Some(Code::ManifestInvalid), "{text}: {facts:?}");
            assert!(facts.exhausted && facts.unanswered.is_empty(), "{text}: {facts:?}");
        }
    }
}

#[tokio::test]
async fn x_098_a_fallback_list_that_is_longer_than_what_is_read_is_cut() {
    let signer = key();
    let memory = Memory::new().without_api();
    let image = memory.image("app");
    let other = memory.referrer(&image_manifest("other"));
    for (count, cut) in [(1000, false), (1001, true)] {
        memory.fallback(&image, &vec![other.clone(); count]);
        let facts = first(&memory, &question(&image, &[&signer], false)).await;
        assert_eq!(facts.limit.is_some_and(|limit| limit.contains("over 1000 referrers")), cut, "{count}");
    }
}

#[tokio::test]
async fn x_096_facts_say_how_many_checks_they_took() {
    let (signer, other, third) = (key(), key(), key());
    let memory = Memory::new();
    let image = memory.image("app");
    let ask = question(&image, &[&signer, &third], false);
    assert_eq!(first(&memory, &ask).await.checks, 0, "there is nothing to check");
    let layers: Vec<_> = (0..20).map(|_| signed(&other, simple_signing(image.digest()))).collect();
    memory.legacy(&image, &layers);
    for n in 0..10 {
        let bundle = other.bundle(&statement(image.digest(), bundle::IMAGE_SIGNATURE));
        memory.list(memory.bundle(image.digest(), &[&bundle[..], &vec![b' '; n]].concat(), None));
    }
    for _ in 0..3 {
        let facts = first(&memory, &ask).await;
        assert_eq!((facts.checks, facts.exhausted), (60, true), "each candidate with each key, whatever comes first");
    }
    let facts = search_with(&memory, &ask, Limits { checks: 33, ..Limits::default() }, |_| false).await;
    assert_eq!(facts.checks, 32, "no more than are made");
    assert!(facts.limit.is_some());
}

#[tokio::test]
async fn x_037_x_039_x_138_the_image_itself_comes_first() {
    let (signer, other) = (key(), key());
    let lone = |bytes: &serde_json::Value| digest_of(bytes.to_string().as_bytes());
    let empty = index(&[]);
    let both = json!({"schemaVersion": 2, "manifests": [], "config": {"mediaType": "x"}, "layers": []});
    let schema_1 = json!({"schemaVersion": 1, "fsLayers": []});
    for (name, body, want) in [
        ("not there", None, Code::ImageNotFound),
        ("an empty index", Some(&empty), Code::ManifestInvalid),
        ("manifest and index at once", Some(&both), Code::ManifestInvalid),
        ("schema 1", Some(&schema_1), Code::ManifestInvalid),
    ] {
        let memory = Memory::new();
        let image = pinned(body.map_or_else(|| digest_of(b"nothing"), lone));
        if let Some(body) = body {
            memory.put(body, "");
        }
        let facts = first(&memory, &question(&image, &[&other], false)).await;
        assert_eq!(facts.image_fault.as_ref().map(|f| f.code), Some(want), "{name}");
        assert!(facts.exhausted, "{name}: that is definite");
    }
    // X-138: a junk candidate beside an image that does not hash.
    let memory = Memory::new();
    let image = memory.image("app");
    memory.forge(image.digest(), &image_manifest("another"));
    sign(&memory, &signer, &image, "the .sig tag");
    let facts = first(&memory, &question(&image, &[&other], false)).await;
    assert_eq!(facts.image_fault.map(|f| f.code), Some(Code::DigestMismatch));
    assert_eq!(facts.rejected.iter().map(|r| r.code).collect::<Vec<_>>(), [Code::WrongSigner]);
}

#[tokio::test]
async fn a_host_with_the_api_is_not_asked_for_the_fallback_tag_unless_it_matters() {
    let (signer, other) = (key(), key());
    let memory = Memory::new();
    memory.change(|state| state.knows_api = Some(true));
    let image = memory.image("app");
    sign(&memory, &signer, &image, "a listed bundle");
    let fallback = format!("tag sha256-{}", image.digest().hex());
    let asked = |memory: &Memory| memory.asked().contains(&fallback);
    assert!(is_signed(&first(&memory, &question(&image, &[&signer], false)).await));
    assert!(!asked(&memory), "{:?}", memory.asked());
    assert!(!is_signed(&first(&memory, &question(&image, &[&other], false)).await));
    assert!(asked(&memory), "before anything but a proof, every source is asked");
    // It may be there all the same.
    memory.change(|state| state.referrers = Some(Vec::new()));
    sign(&memory, &other, &image, "a bundle under the fallback tag");
    assert!(is_signed(&first(&memory, &question(&image, &[&other], false)).await));
}

#[tokio::test]
async fn x_041_lists_that_disagree_or_claim_a_filter_are_united() {
    let (one, two) = (key(), key());
    let memory = Memory::new();
    memory.change(|state| state.knows_api = Some(true));
    let image = memory.image("app");
    let (first_entry, second_entry) = (
        memory.bundle(image.digest(), &signature(&one, &image), None),
        memory.bundle(image.digest(), &signature(&two, &image), None),
    );
    memory.list(first_entry.clone());
    memory.fallback(&image, &[first_entry.clone(), second_entry]);
    let both = |facts: &Facts| facts.statements.len() == 2;
    let facts = search_with(&memory, &question(&image, &[&one, &two], false), Limits::default(), both).await;
    assert!(both(&facts), "{facts:?}");
    assert_eq!(memory.count(&format!("manifest {}", first_entry.digest)), 1, "each is opened once");

    memory.change(|state| {
        state.referrers = Some(Vec::new());
        state.complete = false;
        state.asked.clear();
    });
    let facts = search_with(&memory, &question(&image, &[&one, &two], false), Limits::default(), both).await;
    assert!(both(&facts), "{facts:?}");

    // A list that a limit cut is no list: what is beyond it cannot be called absent.
    memory.change(|state| {
        state.tags.clear();
        state.cut_by = Some("over 10 pages".to_owned());
    });
    let facts = first(&memory, &question(&image, &[&one], false)).await;
    assert_eq!(facts.limit.as_deref(), Some("over 10 pages"));
}

#[tokio::test]
async fn x_139_a_copied_index_under_the_fallback_tag_holds_no_candidates() {
    let signer = key();
    let memory = Memory::new().without_api();
    let children: Vec<Descriptor> = ["amd64", "arm64"].map(|name| memory.referrer(&image_manifest(name))).to_vec();
    let (digest, _) = memory.put(&index(&children), INDEX);
    let image = pinned(digest);
    // The copied index beside another entry: children without `subject`, nested index, junk.
    let nested = memory.referrer(&index(&children));
    memory.fallback(&image, &[children[0].clone(), children[1].clone(), nested]);
    let facts = first(&memory, &question(&image, &[&signer], false)).await;
    assert!(facts.exhausted && facts.rejected.is_empty() && facts.image_fault.is_none(), "{facts:?}");
    // They use up no count.
    let bundle = memory.bundle(image.digest(), &signature(&signer, &image), None);
    let mut entries: Vec<Descriptor> = (0..40).map(|n| memory.referrer(&image_manifest(&n.to_string()))).collect();
    entries.push(bundle);
    memory.fallback(&image, &entries);
    let limits = Limits { opened: 1, ..Limits::default() };
    let facts = search_with(&memory, &question(&image, &[&signer], false), limits, is_signed).await;
    assert!(is_signed(&facts), "{facts:?}");
    // The tag may hold the image itself.
    memory.change(|state| state.tags.insert(format!("sha256-{}", image.digest().hex()), image.digest()));
    let facts = first(&memory, &question(&image, &[&signer], false)).await;
    assert!(facts.exhausted && facts.rejected.is_empty() && facts.image_fault.is_none(), "{facts:?}");
    // Anything else there is not a list, and is said to be none.
    let other = memory.put(&image_manifest("other"), MANIFEST).0;
    memory.change(|state| state.tags.insert(format!("sha256-{}", image.digest().hex()), other));
    assert_eq!(codes(&first(&memory, &question(&image, &[&signer], false)).await), [Code::ManifestInvalid]);
}

#[tokio::test]
async fn x_051_x_052_attestations_are_no_signatures() {
    let (signer, other) = (key(), key());
    let memory = Memory::new();
    let image = memory.image("app");
    memory.list(memory.bundle(image.digest(), &signer.bundle(&statement(image.digest(), SBOM)), Some(SBOM)));
    let facts = first(&memory, &question(&image, &[&signer], false)).await;
    assert_eq!(facts.statements[0].kind(), &StatementKind::Attestation { predicate_type: SBOM.to_owned() });
    assert!(facts.exhausted && !is_signed(&facts));
    // By somebody else, or about something else, it is not even a failed signature.
    let facts = first(&memory, &question(&image, &[&other], false)).await;
    assert!(facts.exhausted && facts.statements.is_empty() && facts.rejected.is_empty(), "{facts:?}");
    // Nor is one that says of itself that it is large and something else.
    let large = vec![b' '; 300 * 1024];
    memory.change(|state| state.referrers = None);
    memory.list(memory.bundle(image.digest(), &large, Some(SBOM)));
    let facts = first(&memory, &question(&image, &[&signer], false)).await;
    assert!(facts.limit.is_none() && facts.rejected.is_empty(), "{facts:?}");
    // Other things that refer to the image are no candidates.
    memory.change(|state| state.referrers = None);
    memory.list(memory.referrer(&artifact(Some(image.digest()), Some("application/spdx+json"), &[], &json!({}))));
    let facts = first(&memory, &question(&image, &[&signer], false)).await;
    assert!(facts.exhausted && facts.rejected.is_empty(), "{facts:?}");
}

#[tokio::test]
async fn x_057_a_signature_of_one_digest_under_the_tag_of_another() {
    let signer = key();
    let memory = Memory::new();
    let (image, other) = (memory.image("app"), memory.image("other"));
    memory.legacy(&image, &[signed(&signer, simple_signing(other.digest()))]);
    memory.list(memory.bundle(image.digest(), &signature(&signer, &other), None));
    memory.list(memory.bundle(other.digest(), &signature(&signer, &image), None));
    let facts = first(&memory, &question(&image, &[&signer], false)).await;
    assert_eq!(codes(&facts), [Code::SubjectMismatch; 3], "{facts:?}");
    assert!(facts.statements.is_empty() && facts.exhausted);
}

#[tokio::test]
async fn the_good_one_behind_many_malformed_ones() {
    let (signer, other) = (key(), key());
    let memory = Memory::new();
    let image = memory.image("app");
    // Junk layers of every kind after it: the newest come first.
    let mut layers = vec![signed(&signer, simple_signing(image.digest()))];
    layers.extend((0..60_u8).map(|n| match n % 4 {
        0 => (vec![n; 20], Some("AAAA".to_owned())),
        1 => (simple_signing(image.digest()), None),
        2 => (simple_signing(image.digest()), Some("%".to_owned())),
        _ => signed(&other, simple_signing(image.digest())),
    }));
    memory.legacy(&image, &layers);
    for n in 0..30 {
        memory.list(memory.bundle(image.digest(), format!("{{\"junk\":{n}}}").as_bytes(), None));
    }
    let facts = first(&memory, &question(&image, &[&signer], false)).await;
    assert!(is_signed(&facts), "{facts:?}");
    let facts = first(&memory, &question(&image, &[&key()], false)).await;
    assert_eq!(facts.rejected.len(), 10, "no more are kept");
    assert_eq!(codes(&facts), [Code::WrongSigner; 10], "the nearest to success");
    // In lists, the good one last.
    memory.change(|state| state.tags.clear());
    memory.list(memory.bundle(image.digest(), &signature(&signer, &image), None));
    assert!(is_signed(&first(&memory, &question(&image, &[&signer], false)).await));
}

#[tokio::test]
async fn two_signatures_may_share_a_payload() {
    let (one, two) = (key(), key());
    let memory = Memory::new();
    let image = memory.image("app");
    let payload = simple_signing(image.digest());
    memory.legacy(&image, &[signed(&one, payload.clone()), signed(&two, payload.clone())]);
    let both = |facts: &Facts| facts.statements.len() == 2;
    let facts = search_with(&memory, &question(&image, &[&one, &two], false), Limits::default(), both).await;
    assert!(both(&facts), "{facts:?}");
    assert_eq!(memory.count(&format!("blob {}", digest_of(&payload))), 1);
}

#[tokio::test]
async fn x_096_x_097_x_098_limits_are_said() {
    let (signer, other) = (key(), key());
    let ask = |image: &PinnedImage| question(image, &[&signer, &other], false);
    let small = Limits { opened: 3, listed: 5, layers: 2, checks: 4, ..Limits::default() };
    // More referrers than are opened. What looks right, then what is newest, goes first.
    let memory = Memory::new();
    let image = memory.image("app");
    for n in 0..4 {
        memory.list(memory.bundle(image.digest(), format!("{{\"junk\":{n}}}").as_bytes(), None));
    }
    let good = memory.bundle(image.digest(), &signature(&signer, &image), None);
    memory.list(good.clone());
    let facts = search_with(&memory, &ask(&image), Limits { opened: 5, checks: 20, ..small }, is_signed).await;
    assert!(is_signed(&facts) && facts.limit.is_none(), "at the limit");
    memory.change(|state| {
        let entries = state.referrers.as_mut().expect("has the API");
        entries[4].annotations.insert("org.opencontainers.image.created".to_owned(), "2026-11-20T23:34:21Z".to_owned());
    });
    let facts = search_with(&memory, &ask(&image), small, is_signed).await;
    assert!(is_signed(&facts), "the newest first: {facts:?}");
    let facts = search_with(&memory, &ask(&image), small, |_| false).await;
    assert!(facts.exhausted && facts.limit.as_deref().is_some_and(|l| l.contains("3 referrers")), "{facts:?}");
    // More than are listed.
    for n in 4..8 {
        memory.list(memory.bundle(image.digest(), format!("{{\"junk\":{n}}}").as_bytes(), None));
    }
    let facts = search_with(&memory, &ask(&image), Limits { listed: 5, ..Limits::default() }, |_| false).await;
    assert!(facts.limit.as_deref().is_some_and(|l| l.contains("5 referrers are listed")), "{facts:?}");
    // More layers than are read.
    let memory = Memory::new();
    let image = memory.image("app");
    let layer = || signed(&other, simple_signing(image.digest()));
    memory.legacy(&image, &[layer(), layer(), layer()]);
    let facts = search_with(&memory, &ask(&image), Limits { checks: 2000, ..small }, |_| false).await;
    assert!(facts.limit.as_deref().is_some_and(|l| l.contains("3 layers")), "{facts:?}");
    assert_eq!(facts.statements.len(), 2);
    // More checks than are made.
    let facts = search_with(&memory, &ask(&image), Limits { layers: 100, ..small }, |_| false).await;
    assert!(facts.limit.as_deref().is_some_and(|l| l.contains("4 signature checks")), "{facts:?}");
    // Too large to be fetched.
    let memory = Memory::new();
    let image = memory.image("app");
    memory.legacy(&image, &[(vec![b' '; 65 * 1024], Some("AAAA".to_owned()))]);
    memory.list(memory.bundle(image.digest(), &vec![b' '; 257 * 1024], None));
    let facts = first(&memory, &ask(&image)).await;
    assert_eq!(codes(&facts), [Code::BudgetExceeded; 2]);
    assert!(facts.limit.is_some() && memory.count("blob") == 0, "refused before they are read");
}

#[tokio::test]
async fn children_of_an_index_are_all_known_or_nothing_is_proven() {
    let signer = key();
    let memory = Memory::new();
    let children: Vec<Descriptor> = ["a", "b"].map(|name| memory.referrer(&image_manifest(name))).to_vec();
    let nested = memory.referrer(&index(&children[1..]));
    let outer = index(&[children[0].clone(), nested.clone()]);
    let image = pinned(memory.put(&outer, INDEX).0);
    sign(&memory, &signer, &image, "the .sig tag");
    let ask = question(&image, &[&signer], true);
    let facts = first(&memory, &ask).await;
    assert!(is_signed(&facts));
    let mut known = facts.children.expect("known");
    known.sort_unstable();
    let mut want = vec![children[0].digest, nested.digest, children[1].digest];
    want.sort_unstable();
    assert_eq!(known, want);
    for what in [format!("manifest {}", image.digest()), format!("manifest {}", nested.digest)] {
        memory.heal();
        memory.fail(what.clone(), down());
        let facts = first(&memory, &ask).await;
        assert!(facts.children.is_none() && facts.statements.is_empty() && !facts.exhausted, "{what}: {facts:?}");
        assert_eq!(unanswered(&facts), [Code::EvidenceUnavailable], "{what}");
    }
    memory.heal();
    // Not asked for: not fetched, and not known.
    let facts = first(&memory, &question(&image, &[&signer], false)).await;
    assert!(facts.children.is_none() && is_signed(&facts));
    // An image that is no index has none.
    let lone = memory.image("lone");
    assert_eq!(first(&memory, &question(&lone, &[&signer], true)).await.children, Some(Vec::new()));
    // Children alone can be asked for.
    memory.change(|state| state.asked.clear());
    let facts = search_with(&memory, &question(&image, &[], true), Limits::default(), |f| f.children.is_some()).await;
    assert_eq!(facts.children.map(|c| c.len()), Some(3));
    assert_eq!(memory.count("tag") + memory.count("referrers"), 0);
}

#[tokio::test]
async fn x_039_indexes_are_bounded() {
    let signer = key();
    let memory = Memory::new();
    let many: Vec<Descriptor> = (0..65).map(|n| memory.referrer(&image_manifest(&n.to_string()))).collect();
    let nest = |entry: Descriptor| memory.referrer(&index(&[entry]));
    let (one, two) = (nest(many[0].clone()), nest(nest(many[0].clone())));
    for (name, entries, want) in [
        ("64 entries", &many[..64], None),
        ("65 entries", &many[..], Some(Code::BudgetExceeded)),
        ("depth 2", &[one][..], None),
        ("depth 3", &[two][..], Some(Code::BudgetExceeded)),
    ] {
        let image = pinned(memory.put(&index(entries), INDEX).0);
        sign(&memory, &signer, &image, "the .sig tag");
        let facts = first(&memory, &question(&image, &[&signer], true)).await;
        assert_eq!(facts.image_fault.as_ref().map(|f| f.code), want, "{name}");
        assert_eq!(facts.statements.is_empty(), want.is_some(), "{name}: {facts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn x_044_a_search_ends_at_its_deadline() {
    let signer = key();
    let memory = Memory::new();
    let image = memory.image("app");
    memory.hold(true);
    let facts = first(&memory, &question(&image, &[&signer], false)).await;
    assert_eq!(unanswered(&facts), [Code::DeadlineExceeded]);
    assert!(!facts.exhausted);
    assert_eq!(memory.asked().len(), 3, "the first round at once");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_manifest_makes_a_search_panic(body in ".{0,200}", kind in 0..4_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
        runtime.block_on(async {
            let memory = Memory::new();
            let image = memory.image("app");
            // Damaged JSON reads further than noise.
            let good = [
                index(&[memory.referrer(&image_manifest("x"))]),
                artifact(Some(image.digest()), Some(bundle::MEDIA_TYPES[3]), &[], &json!({})),
                json!({"schemaVersion": 2, "config": {"mediaType": EMPTY}, "layers": [{"mediaType": payload::MEDIA_TYPE}]}),
                json!(null),
            ];
            let mut text = good[kind].to_string();
            let at = body.len() % text.len();
            if text.is_char_boundary(at) {
                text.insert_str(at, &body);
            }
            let manifest = Manifest { digest: digest_of(text.as_bytes()), bytes: text.into_bytes().into(), content_type: String::new() };
            let tools = tools(&memory, Limits::default());
            let ask = question(&image, &[&TestKey::new(KeyScheme::EcdsaP256)], true);
            let mut search = Search::new(&tools, &ask);
            search.absorb(Done::LegacyTag(Ok(manifest.clone().into())));
            search.absorb(Done::FallbackTag(Ok(manifest.clone().into())));
            search.absorb(Done::Image(Ok(manifest.clone().into())));
            (search.opened, search.opening) = (1, 1);
            search.absorb(Done::Open(memory.referrer(&json!({})), Ok(manifest.into())));
            assert!(search.found.facts.statements.is_empty());
        });
    }
}
