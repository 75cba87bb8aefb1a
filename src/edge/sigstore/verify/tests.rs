//! Every scheme in both formats, each with a twin that differs by one byte and is refused by its code.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};
use sigstore_verify::types::pae;

use super::*;
use crate::decision::policy::KeyScheme;
use crate::edge::sigstore::samples::{ALL_SCHEMES, TestKey, enveloped, simple_signing, statement};
use crate::edge::sigstore::{json as strict, key};

const IMAGE: &[u8] = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#;
const SBOM: &str = "https://spdx.dev/Document";

fn image() -> Digest {
    digest_of(IMAGE)
}

fn keys(keys: &[&TestKey]) -> BTreeSet<AskedKey> {
    keys.iter().map(|key| key.asked()).collect()
}

fn candidate(keys: &BTreeSet<AskedKey>) -> Candidate<'_> {
    Candidate { image: image(), keys, source: "tag sha256-….sig, layer 0" }
}

fn code<T: std::fmt::Debug>(result: Result<T, Unproven>) -> Code {
    result.expect_err("refused").rejected.code
}

/// A document with one value replaced.
fn with(document: &[u8], pointer: &str, value: Value) -> Vec<u8> {
    let mut document: Value = serde_json::from_slice(document).expect("JSON");
    *document.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
    document.to_string().into_bytes()
}

/// A document with one field added.
fn plus(document: &[u8], pointer: &str, field: &str, value: Value) -> Vec<u8> {
    let mut document: Value = serde_json::from_slice(document).expect("JSON");
    let object = document.pointer_mut(pointer).and_then(Value::as_object_mut).expect("an object");
    object.insert(field.to_owned(), value);
    document.to_string().into_bytes()
}

#[test]
fn every_scheme_in_both_formats_with_a_twin() {
    for scheme in ALL_SCHEMES {
        let (signer, other) = (TestKey::new(scheme), TestKey::new(scheme));
        let (listed, foreign) = (keys(&[&other, &signer]), keys(&[&other]));
        let payload = simple_signing(image());
        let statement = statement(image(), bundle::IMAGE_SIGNATURE);
        let pae = pae(bundle::STATEMENT_TYPE, &statement);
        for (how, payload_signature, statement_signature) in [
            ("natural", signer.sign(&payload), signer.sign(&pae)),
            ("otherwise", signer.sign_otherwise(&payload), signer.sign_otherwise(&pae)),
        ] {
            let name = format!("{scheme:?}, {how}");
            let annotation = strict::to_base64(&payload_signature);
            let proven = legacy_layer(&candidate(&listed), &payload, &annotation).expect(&name);
            assert_eq!(proven.subject(), image(), "{name}");
            assert_eq!(proven.kind(), &StatementKind::ImageSignature, "{name}");
            assert_eq!(proven.identity(), &Identity::Key(signer.asked().fingerprint), "{name}");
            assert_eq!(proven.annotations(), &BTreeMap::from([("env".to_owned(), "prod".to_owned())]), "{name}");
            assert_eq!(proven.signed_for(), Some("registry.example.com/rc/app"), "{name}");
            assert_eq!(proven.evidence(), digest_of(&payload), "{name}");
            assert_eq!(code(legacy_layer(&candidate(&foreign), &payload, &annotation)), Code::WrongSigner, "{name}");
            let mut twin = payload.clone();
            let at = payload.windows(4).position(|w| w == b"prod").expect("in it");
            twin[at] ^= 1;
            assert_eq!(code(legacy_layer(&candidate(&listed), &twin, &annotation)), Code::WrongSigner, "{name}");

            // SHA-256 on P-521 was never written into a bundle.
            let accepted = how == "natural" || scheme != KeyScheme::EcdsaP521;
            let bytes = enveloped(&statement, &statement_signature, "another key");
            let result = super::bundle(&candidate(&listed), &bytes, None);
            if !accepted {
                assert_eq!(code(result), Code::WrongSigner, "{name}");
                continue;
            }
            let proven = result.expect(&name);
            assert_eq!(proven.kind(), &StatementKind::ImageSignature, "{name}");
            assert_eq!(proven.identity(), &Identity::Key(signer.asked().fingerprint), "{name}");
            assert_eq!(proven.annotations(), &BTreeMap::from([("env".to_owned(), "prod".to_owned())]), "{name}");
            assert_eq!(proven.signed_for(), None, "{name}");
            assert_eq!(code(super::bundle(&candidate(&foreign), &bytes, None)), Code::WrongSigner, "{name}");
            let mut twin = statement.clone();
            let at = statement.windows(4).position(|w| w == b"prod").expect("in it");
            twin[at] ^= 1;
            let twin = enveloped(&twin, &statement_signature, "another key");
            assert_eq!(code(super::bundle(&candidate(&listed), &twin, None)), Code::WrongSigner, "{name}");
        }
    }
}

#[test]
fn a_message_signature_is_over_the_image_itself() {
    for scheme in ALL_SCHEMES {
        let (signer, other) = (TestKey::new(scheme), TestKey::new(scheme));
        let (listed, foreign) = (keys(&[&signer]), keys(&[&other]));
        let bytes = signer.message_bundle(IMAGE);
        let needs = read_bundle(&candidate(&listed), &bytes).expect("read").needs_image(&listed);
        let from_digest = matches!(scheme, KeyScheme::EcdsaP256 | KeyScheme::RsaPkcs1 | KeyScheme::RsaPss);
        assert_eq!(needs, !from_digest, "{scheme:?}");
        let proven =
            super::bundle(&candidate(&listed), &bytes, Some(IMAGE)).unwrap_or_else(|e| panic!("{scheme:?}: {e:?}"));
        assert_eq!(proven.kind(), &StatementKind::ImageSignature, "{scheme:?}");
        assert_eq!(super::bundle(&candidate(&listed), &bytes, None).is_ok(), from_digest, "{scheme:?}");
        assert_eq!(code(super::bundle(&candidate(&foreign), &bytes, Some(IMAGE))), Code::WrongSigner, "{scheme:?}");
        let twin = signer.message_bundle(b"another image");
        assert_eq!(code(super::bundle(&candidate(&listed), &twin, Some(IMAGE))), Code::SubjectMismatch, "{scheme:?}");
        assert_eq!(code(super::bundle(&candidate(&listed), &bytes, Some(b"{}"))), Code::DigestMismatch, "{scheme:?}");
    }
    // A claimed digest by another hash is compared with the image's bytes, and so is what was signed.
    let signer = TestKey::new(KeyScheme::EcdsaP384);
    let listed = keys(&[&signer]);
    let sha384 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA384, IMAGE);
    let claimed = json!({"algorithm": "SHA2_384", "digest": strict::to_base64(sha384.as_ref())});
    let good = with(&signer.message_bundle(IMAGE), "/messageSignature/messageDigest", claimed);
    assert!(super::bundle(&candidate(&listed), &good, Some(IMAGE)).is_ok());
    let bad = with(&good, "/messageSignature/messageDigest/digest", json!(strict::to_base64(&[0; 48])));
    assert_eq!(code(super::bundle(&candidate(&listed), &bad, Some(IMAGE))), Code::SubjectMismatch);
    // Without any claim the signature alone binds the two.
    let none = with(&good, "/messageSignature/messageDigest", Value::Null);
    assert!(super::bundle(&candidate(&listed), &none, Some(IMAGE)).is_ok());
}

#[test]
fn what_cosign_3_1_3_wrote_is_read() {
    let file: Value = serde_json::from_str(include_str!("../testdata/cosign-3.1.3.json")).expect("JSON");
    let samples = file["samples"].as_array().expect("samples");
    assert_eq!(samples.len(), 5);
    for sample in samples {
        let text = |field: &str| sample[field].as_str().unwrap_or_else(|| panic!("no {field}"));
        let name = text("scheme");
        let parsed = key::parse_pem(text("public_key")).expect(name);
        let asked = AskedKey { fingerprint: parsed.fingerprint, scheme: parsed.scheme, spki: parsed.spki };
        let (listed, stranger) = (BTreeSet::from([asked]), keys(&[&TestKey::new(KeyScheme::EcdsaP256)]));
        let at = |keys| Candidate { image: text("image").parse().expect("digest"), keys, source: "sample" };
        let payload = text("payload").as_bytes();
        let signatures = ["signature", "signature_sha256", "signature_plain"];
        for signature in signatures.iter().filter_map(|field| sample[field].as_str()) {
            assert!(legacy_layer(&at(&listed), payload, signature).is_ok(), "{name}, legacy");
            assert_eq!(code(legacy_layer(&at(&stranger), payload, signature)), Code::WrongSigner, "{name}, legacy");
        }
        let bytes = text("bundle").as_bytes();
        let proven = super::bundle(&at(&listed), bytes, None).expect(name);
        assert_eq!(proven.kind(), &StatementKind::ImageSignature, "{name}");
        assert_eq!(code(super::bundle(&at(&stranger), bytes, None)), Code::WrongSigner, "{name}, bundle");
        // Its hint names its key: where the signature is damaged, that is said.
        let damaged = with(bytes, "/dsseEnvelope/signatures/0/sig", json!("AAAA"));
        assert_eq!(code(super::bundle(&at(&listed), &damaged, None)), Code::SignatureInvalid, "{name}, damaged");
        assert_eq!(code(super::bundle(&at(&stranger), &damaged, None)), Code::WrongSigner, "{name}, damaged");
    }
}

#[test]
fn x_052_an_attestation_is_never_an_image_signature() {
    let signer = TestKey::new(KeyScheme::EcdsaP256);
    let listed = keys(&[&signer]);
    for predicate_type in [SBOM, "https://sigstore.dev/cosign/sign/v1/", "https://sigstore.dev/cosign/sign/V1", ""] {
        let bytes = signer.bundle(&statement(image(), predicate_type));
        let proven = super::bundle(&candidate(&listed), &bytes, None).expect("verified");
        let want = StatementKind::Attestation { predicate_type: predicate_type.to_owned() };
        assert_eq!(proven.kind(), &want);
    }
    let bytes = signer.bundle(&statement(image(), bundle::IMAGE_SIGNATURE));
    let proven = super::bundle(&candidate(&listed), &bytes, None).expect("verified");
    assert_eq!(proven.kind(), &StatementKind::ImageSignature);
}

#[test]
fn x_053_x_054_whose_signature_it_is_and_what_it_covers() {
    let (signer, other) = (TestKey::new(KeyScheme::EcdsaP256), TestKey::new(KeyScheme::EcdsaP256));
    let (listed, foreign) = (keys(&[&signer]), keys(&[&other]));
    let payload = simple_signing(image());
    let good = signer.annotation(&payload);
    // Padding and alphabet have one spelling; nothing is decoded leniently.
    let mut flipped = signer.sign(&payload);
    flipped[12] ^= 1;
    for (name, keys, signature, want) in [
        ("one bit of the signature", &listed, strict::to_base64(&flipped), Code::WrongSigner),
        ("another key", &foreign, good.clone(), Code::WrongSigner),
        ("no base64", &listed, "!!".to_owned(), Code::SignatureInvalid),
        ("no padding", &listed, strict::to_base64(b"ab").trim_end_matches('=').to_owned(), Code::SignatureInvalid),
        ("a line break", &listed, format!("{good}\n"), Code::SignatureInvalid),
        ("nothing", &listed, String::new(), Code::SignatureInvalid),
    ] {
        assert_eq!(code(legacy_layer(&candidate(keys), &payload, &signature)), want, "{name}");
    }
    let bytes = signer.bundle(&statement(image(), bundle::IMAGE_SIGNATURE));
    let flip = |bytes: &[u8]| with(bytes, "/dsseEnvelope/signatures/0/sig", json!(strict::to_base64(&flipped)));
    let unhinted = with(&bytes, "/verificationMaterial/publicKey", json!({}));
    for (name, keys, bytes, want) in [
        ("its hint names the listed key", &listed, flip(&bytes), Code::SignatureInvalid),
        ("its hint names no listed key", &foreign, flip(&bytes), Code::WrongSigner),
        ("no hint", &listed, flip(&unhinted), Code::WrongSigner),
        ("another key", &foreign, bytes.clone(), Code::WrongSigner),
    ] {
        assert_eq!(code(super::bundle(&candidate(keys), &bytes, None)), want, "{name}");
    }
    assert!(super::bundle(&candidate(&listed), &unhinted, None).is_ok(), "a hint chooses nothing");
}

#[test]
fn x_057_a_signature_of_another_digest() {
    let signer = TestKey::new(KeyScheme::EcdsaP256);
    let listed = keys(&[&signer]);
    let other = digest_of(b"another image");
    let digest_at = "/critical/image/docker-manifest-digest";
    for (name, payload, want) in [
        ("another digest", simple_signing(other), Code::SubjectMismatch),
        (
            "sha512",
            with(&simple_signing(image()), digest_at, json!(format!("sha512:{}", "0".repeat(128)))),
            Code::SubjectMismatch,
        ),
        (
            "upper case",
            with(&simple_signing(image()), digest_at, json!(format!("sha256:{}", image().hex().to_uppercase()))),
            Code::EvidenceMalformed,
        ),
        ("only the hex", with(&simple_signing(image()), digest_at, json!(image().hex())), Code::EvidenceMalformed),
    ] {
        assert_eq!(code(legacy_layer(&candidate(&listed), &payload, &signer.annotation(&payload))), want, "{name}");
    }
    for (name, subject, want) in [
        ("another digest", json!([{"digest": {"sha256": other.hex()}}]), Some(Code::SubjectMismatch)),
        ("no sha256", json!([{"digest": {"sha512": "00"}}]), Some(Code::SubjectMismatch)),
        ("no digest", json!([{"name": image().hex()}]), Some(Code::SubjectMismatch)),
        ("with prefix", json!([{"digest": {"sha256": image().to_string()}}]), Some(Code::SubjectMismatch)),
        ("upper case", json!([{"digest": {"sha256": image().hex().to_uppercase()}}]), Some(Code::SubjectMismatch)),
        ("a second subject", json!([{"digest": {"sha256": other.hex()}}, {"digest": {"sha256": image().hex()}}]), None),
        ("a null subject", json!([null, {"digest": {"sha256": image().hex()}}]), Some(Code::EvidenceMalformed)),
        ("no subject", json!([]), Some(Code::EvidenceMalformed)),
    ] {
        let statement = with(&statement(image(), bundle::IMAGE_SIGNATURE), "/subject", subject);
        let result = super::bundle(&candidate(&listed), &signer.bundle(&statement), None);
        assert_eq!(result.err().map(|e| e.rejected.code), want, "{name}");
    }
}

#[test]
fn x_069_x_073_malformed_evidence_is_said_to_be_so() {
    let signer = TestKey::new(KeyScheme::EcdsaP256);
    let listed = keys(&[&signer]);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let payload = text(&simple_signing(image()));
    for (name, payload) in [
        ("not JSON", "hello".to_owned()),
        ("null", "null".to_owned()),
        ("another type", payload.replace("cosign container image signature", "cosign container image")),
        ("another case", payload.replace("docker-manifest-digest", "Docker-manifest-digest")),
        ("critical twice", payload.replacen("\"critical\":", "\"critical\":null,\"critical\":", 1)),
        ("optional twice", payload.replacen("\"env\":", "\"env\":\"dev\",\"env\":", 1)),
        ("trailing bytes", format!("{payload}x")),
    ] {
        let bytes = payload.as_bytes();
        assert_eq!(
            code(legacy_layer(&candidate(&listed), bytes, &signer.annotation(bytes))),
            Code::EvidenceMalformed,
            "{name}"
        );
    }
    let good = signer.bundle(&statement(image(), bundle::IMAGE_SIGNATURE));
    let signature = json!({"sig": "AAAA"});
    let v1 = "https://in-toto.io/Statement/v1";
    for (name, bytes) in [
        ("another media type", with(&good, "/mediaType", json!("application/vnd.dev.sigstore.bundle.v0.4+json"))),
        ("another payload type", with(&good, "/dsseEnvelope/payloadType", json!("application/json"))),
        ("two signatures", with(&good, "/dsseEnvelope/signatures", json!([signature, signature]))),
        ("no signature", with(&good, "/dsseEnvelope/signatures", json!([]))),
        ("no envelope", with(&good, "/dsseEnvelope", Value::Null)),
        ("both contents", plus(&good, "", "messageSignature", json!({"signature": "AAAA"}))),
        ("no material", with(&good, "/verificationMaterial", json!({}))),
        ("two materials", plus(&good, "/verificationMaterial", "certificate", json!({"rawBytes": ""}))),
        ("payload in another base64", with(&good, "/dsseEnvelope/payload", json!("_-8="))),
        (
            "a statement of another kind",
            signer.bundle(
                text(&statement(image(), bundle::IMAGE_SIGNATURE))
                    .replace(v1, "https://in-toto.io/Statement/v2")
                    .as_bytes(),
            ),
        ),
        (
            "predicateType twice",
            signer.bundle(
                text(&statement(image(), SBOM))
                    .replacen('{', "{\"predicateType\":\"https://sigstore.dev/cosign/sign/v1\",", 1)
                    .as_bytes(),
            ),
        ),
        ("a duplicate key", text(&good).replacen('{', "{\"dsseEnvelope\":null,", 1).into_bytes()),
    ] {
        assert_eq!(code(super::bundle(&candidate(&listed), &bytes, None)), Code::EvidenceMalformed, "{name}");
    }
    for media_type in bundle::MEDIA_TYPES {
        let bytes = with(&good, "/mediaType", json!(media_type));
        assert!(super::bundle(&candidate(&listed), &bytes, None).is_ok(), "{media_type}");
    }
    assert!(super::bundle(&candidate(&listed), &with(&good, "/mediaType", Value::Null), None).is_ok(), "none is v0.1");
}

#[test]
fn x_099_counts_within_one_bundle() {
    let signer = TestKey::new(KeyScheme::EcdsaP256);
    let listed = keys(&[&signer]);
    let good = signer.bundle(&statement(image(), bundle::IMAGE_SIGNATURE));
    let entries = |n: usize| plus(&good, "/verificationMaterial", "tlogEntries", json!(vec![json!({}); n]));
    let tokens = |n: usize| {
        plus(
            &good,
            "/verificationMaterial",
            "timestampVerificationData",
            json!({"rfc3161Timestamps": vec![json!({}); n]}),
        )
    };
    let chain = |n: usize, size: usize| {
        let certificates = vec![json!({"rawBytes": "A".repeat(size)}); n];
        with(&good, "/verificationMaterial", json!({"x509CertificateChain": {"certificates": certificates}}))
    };
    let subjects = |n: usize| {
        let subject = json!({"digest": {"sha256": image().hex()}});
        signer.bundle(&with(&statement(image(), bundle::IMAGE_SIGNATURE), "/subject", json!(vec![subject; n])))
    };
    // A key signer ignores what else lies there, as long as there is not too much of it.
    for (name, at_limit, over) in [
        ("log entries", entries(4), entries(5)),
        ("timestamps", tokens(4), tokens(5)),
        ("certificates", chain(6, 8), chain(7, 8)),
        ("bytes of a certificate", chain(1, 20_000), chain(1, 22_000)),
        ("subjects", subjects(1024), subjects(1025)),
    ] {
        assert!(super::bundle(&candidate(&listed), &at_limit, None).is_ok(), "{name}");
        assert_eq!(code(super::bundle(&candidate(&listed), &over, None)), Code::BudgetExceeded, "{name}");
    }
    let mut payload = simple_signing(image());
    payload.resize(64 * 1024, b' ');
    assert!(legacy_layer(&candidate(&listed), &payload, &signer.annotation(&payload)).is_ok());
    payload.push(b' ');
    assert_eq!(code(legacy_layer(&candidate(&listed), &payload, &signer.annotation(&payload))), Code::BudgetExceeded);
}

#[test]
fn what_a_candidate_claims_is_told_even_where_it_proves_nothing() {
    let (signer, other) = (TestKey::new(KeyScheme::EcdsaP256), TestKey::new(KeyScheme::EcdsaP256));
    let foreign = keys(&[&other]);
    let claims = |bytes: &[u8]| super::bundle(&candidate(&foreign), bytes, None).expect_err("refused").claims;
    assert_eq!(claims(&signer.bundle(&statement(image(), SBOM))), Claim::Attestation(SBOM.to_owned()));
    assert_eq!(claims(&signer.bundle(&statement(image(), bundle::IMAGE_SIGNATURE))), Claim::ImageSignature);
    assert_eq!(claims(b"{}"), Claim::Unreadable);
}

#[test]
fn x_102_a_panic_ends_the_candidate_only() {
    let listed = BTreeSet::new();
    let result: Result<(), Unproven> = guarded(&candidate(&listed), || panic!("a library's fault"));
    assert_eq!(code(result), Code::InternalError);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512), signature in ".{0,64}") {
        let listed = BTreeSet::new();
        prop_assert_ne!(code(legacy_layer(&candidate(&listed), &bytes, &signature)), Code::InternalError);
        prop_assert_ne!(code(super::bundle(&candidate(&listed), &bytes, Some(&bytes))), Code::InternalError);
    }

    #[test]
    fn no_damage_to_good_evidence_makes_it_panic_or_pass(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let signer = TestKey::new(KeyScheme::EcdsaP256);
        let listed = keys(&[&signer]);
        let payload = simple_signing(image());
        let annotation = signer.annotation(&payload);
        let mut damaged = payload.clone();
        damaged[at.index(payload.len())] ^= 1 << bit;
        prop_assert_ne!(code(legacy_layer(&candidate(&listed), &damaged, &annotation)), Code::InternalError);
        // A bundle is not signed as a whole: damage outside statement and signature may leave it good.
        let bundle = signer.bundle(&statement(image(), bundle::IMAGE_SIGNATURE));
        let mut damaged = bundle.clone();
        damaged[at.index(bundle.len())] ^= 1 << bit;
        match super::bundle(&candidate(&listed), &damaged, None) {
            Ok(proven) => prop_assert_eq!(proven.subject(), image()),
            Err(refused) => prop_assert_ne!(refused.rejected.code, Code::InternalError),
        }
    }
}
