//! Where cosign is no oracle: each case in which Provost must not do as cosign does, shown with what cosign does.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::fixture::{CRANE, DISTRIBUTION, Judge, REFERRERS, keys, samples, word};
use super::support::images::{Format, Image, cosign_verify};
use super::support::keys::Key;
use super::support::process::Program;
use super::support::registry::Registry;
use super::support::{folder, net};

/// Judges one sample in each registry under some policies: `(policy, want)`.
fn in_every_registry(sample: &str, wants: &[(&str, &str)]) {
    for registry in [CRANE, DISTRIBUTION, REFERRERS] {
        let samples = samples(registry);
        let judge = Judge::of(&samples.registry);
        for (policy, want) in wants {
            let got = judge.verify(&samples.image(sample).pinned(), policy).verdict();
            assert_eq!(got, *want, "{registry}: {sample} {policy}");
        }
    }
}

/// cosign 3.1.3 takes any attestation in a bundle for a signature. About the legacy form it agrees: see `agreement`.
#[test]
fn x_052_an_attestation_alone_is_no_signature() {
    in_every_registry("attested-bundle", &[("by-k1", "unsigned"), ("by-other", "unsigned")]);
    let samples = samples(REFERRERS);
    let image = samples.image("attested-bundle");
    let cosign = cosign_verify(&samples.registry, image, &keys().k1, Format::Bundle, &[]);
    assert_eq!(cosign.code, 0, "cosign has changed its mind: let it be an oracle again\n{}", cosign.stderr);
    // Its twin is a signature.
    in_every_registry("beside-bundle", &[("by-k1", "admit")]);
}

/// cosign looks at bundles only, once there is one: with a foreign bundle beside it, a good `.sig` is not seen.
#[test]
fn a_good_sig_tag_counts_beside_a_bundle_by_another_key() {
    let sample = "sig-beside-foreign-bundle";
    in_every_registry(
        sample,
        &[("by-k1", "admit"), ("by-k2", "admit"), ("by-both", "admit"), ("by-other", "wrong-signer")],
    );
    let samples = samples(REFERRERS);
    let image = samples.image(sample);
    let verify = |key, format| cosign_verify(&samples.registry, image, key, format, &[]).code == 0;
    assert!(!verify(&keys().k1, Format::Bundle), "cosign has changed its mind: let it be an oracle again");
    // It does see each of the two when it is told where to look.
    assert!(verify(&keys().k1, Format::Legacy) && verify(&keys().k2, Format::Bundle));
}

/// Legacy signatures in a referrer: cosign can write them and, by experiment, read them, but promises nothing.
#[test]
fn a_legacy_signature_in_a_referrer_is_checked_like_one_behind_a_tag() {
    let named = |what: &str| format!("{what}-{}", word(Format::LegacyAsReferrer));
    in_every_registry(
        &named("one"),
        &[("by-k1", "admit"), ("by-other", "wrong-signer"), ("by-both", "threshold-not-met")],
    );
    in_every_registry(
        &named("two"),
        &[("by-k1", "admit"), ("by-k2", "admit"), ("by-both", "admit"), ("by-other", "wrong-signer")],
    );
    in_every_registry(
        &named("annotated"),
        &[("by-k1", "admit"), ("by-k1-for-prod", "admit"), ("by-k1-for-test", "annotation-mismatch")],
    );
    in_every_registry(&named("index"), &[("by-k1", "admit"), ("by-other", "wrong-signer")]);
    in_every_registry(&format!("{}/0", named("index")), &[("by-k1", "unsigned")]);
    let samples = samples(REFERRERS);
    for (kind, policy) in [("p384", "by-p384"), ("ed25519", "by-ed25519"), ("rsa", "by-rsa")] {
        let image = samples.image(&named(kind)).pinned();
        let judge = Judge::of(&samples.registry);
        assert_eq!(judge.verify(&image, policy).verdict(), "admit", "{kind}");
        assert_eq!(judge.verify(&image, "by-other").verdict(), "wrong-signer", "{kind}");
    }
}

/// cosign's legacy format uses SHA-256 with P-384 and the pre-hashed variant of Ed25519.
#[test]
fn p_384_and_ed25519_in_the_legacy_format() {
    let samples = samples(REFERRERS);
    let judge = Judge::of(&samples.registry);
    for (kind, policy) in [("p384", "by-p384"), ("ed25519", "by-ed25519")] {
        let image = samples.image(&format!("{kind}-legacy")).pinned();
        assert_eq!(judge.verify(&image, policy).verdict(), "admit", "{kind}");
        assert_eq!(judge.verify(&image, "by-other").verdict(), "wrong-signer", "{kind}");
    }
}

/// cosign 3.1.3 signs a bundle with P-384 and SHA-384, and cannot verify it; openssl can.
#[test]
fn p_384_in_a_bundle() {
    let samples = samples(REFERRERS);
    let image = samples.image("p384-bundle");
    let judge = Judge::of(&samples.registry);
    assert_eq!(judge.verify(&image.pinned(), "by-p384").verdict(), "admit");
    assert_eq!(judge.verify(&image.pinned(), "by-other").verdict(), "wrong-signer");

    let key = &keys().kinds["p384"];
    let cosign = cosign_verify(&samples.registry, image, key, Format::Bundle, &[]);
    assert_ne!(cosign.code, 0, "cosign has changed its mind: let it be an oracle again");
    let (message, signature) = signed_bytes(&samples.registry, image);
    let mut changed = message.clone();
    changed.push(b' ');
    let accepts = |key: &Key, message: &[u8]| openssl_accepts(key, "-sha384", message, &signature);
    assert!(accepts(key, &message));
    assert!(!accepts(key, &changed) && !accepts(&keys().other, &message));
}

/// What a bundle signs, and its signature: from the one referrer of an image.
fn signed_bytes(registry: &Registry, image: &Image) -> (Vec<u8>, Vec<u8>) {
    let address = registry.host.parse().expect("an address");
    let (_, path) = image.repository.split_once('/').expect("host and path");
    let json = |what: &str, digest: &str| -> Value {
        let (status, body) = net::get(address, &format!("/v2/{path}/{what}/{digest}")).expect("an answer");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("JSON")
    };
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let referrers = json("referrers", &image.digest);
    let manifest = json("manifests", &text(&referrers["manifests"][0]["digest"]));
    let bundle = json("blobs", &text(&manifest["layers"][0]["digest"]));
    let envelope = &bundle["dsseEnvelope"];
    let decoded = |value: &Value| STANDARD.decode(text(value)).expect("base64");
    let (kind, payload) = (text(&envelope["payloadType"]), decoded(&envelope["payload"]));
    let mut message = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    message.extend(payload);
    (message, decoded(&envelope["signatures"][0]["sig"]))
}

fn openssl_accepts(key: &Key, hash: &str, message: &[u8], signature: &[u8]) -> bool {
    let folder = folder::new("openssl");
    let (to_check, by) = (folder.join("message"), folder.join("signature"));
    folder::write(&to_check, message);
    folder::write(&by, signature);
    let call = Program::new("openssl").args(["dgst", hash, "-verify"]).arg(key.public()).arg("-signature").arg(by);
    call.arg(to_check).run().code == 0
}
