//! Keys and signatures for tests, made on the spot. No key of these ever leaves the process.

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use ed25519_dalek::Digest as _;
use serde_json::json;
use sigstore_verify::types::pae;

use super::{bundle, digest_of, json as strict, payload};
use crate::decision::evidence::AskedKey;
use crate::decision::policy::KeyScheme;
use crate::decision::reference::Digest;

pub(crate) const ALL_SCHEMES: [KeyScheme; 6] = [
    KeyScheme::EcdsaP256,
    KeyScheme::EcdsaP384,
    KeyScheme::EcdsaP521,
    KeyScheme::Ed25519,
    KeyScheme::RsaPkcs1,
    KeyScheme::RsaPss,
];

enum Pair {
    Ecdsa(EcdsaKeyPair, Vec<u8>),
    Ed25519(Ed25519KeyPair, [u8; 32]),
    Rsa(RsaKeyPair),
}

pub(crate) struct TestKey {
    scheme: KeyScheme,
    pair: Pair,
    spki: Vec<u8>,
}

impl TestKey {
    pub(crate) fn new(scheme: KeyScheme) -> Self {
        let pair = match scheme {
            KeyScheme::EcdsaP256 => ecdsa(&signature::ECDSA_P256_SHA256_ASN1_SIGNING),
            KeyScheme::EcdsaP384 => ecdsa(&signature::ECDSA_P384_SHA384_ASN1_SIGNING),
            KeyScheme::EcdsaP521 => ecdsa(&signature::ECDSA_P521_SHA512_ASN1_SIGNING),
            KeyScheme::Ed25519 => {
                let mut seed = [0; 32];
                aws_lc_rs::rand::fill(&mut seed).expect("random");
                Pair::Ed25519(Ed25519KeyPair::from_seed_unchecked(&seed).expect("key"), seed)
            }
            KeyScheme::RsaPkcs1 | KeyScheme::RsaPss => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("key")),
        };
        let spki = match &pair {
            Pair::Ecdsa(pair, _) => der(&pair.public_key().as_der().expect("DER")),
            Pair::Ed25519(pair, _) => der(&pair.public_key().as_der().expect("DER")),
            Pair::Rsa(pair) => der(&pair.public_key().as_der().expect("DER")),
        };
        Self { scheme, pair, spki }
    }

    pub(crate) fn asked(&self) -> AskedKey {
        AskedKey { fingerprint: digest_of(&self.spki), scheme: self.scheme, spki: self.spki.as_slice().into() }
    }

    /// The signature with the scheme's natural hash; plain Ed25519.
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.pair {
            Pair::Ecdsa(pair, _) => pair.sign(&SystemRandom::new(), message).expect("signs").as_ref().to_vec(),
            Pair::Ed25519(pair, _) => pair.sign(message).as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let padding: &'static dyn signature::RsaEncoding = if self.scheme == KeyScheme::RsaPss {
                    &signature::RSA_PSS_SHA256
                } else {
                    &signature::RSA_PKCS1_SHA256
                };
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &SystemRandom::new(), message, &mut out).expect("signs");
                out
            }
        }
    }

    /// The signature as older tools, or cosign for Ed25519, make it: SHA-256 on P-521 (P-384: see
    /// testdata); Ed25519ph.
    pub(crate) fn sign_otherwise(&self, message: &[u8]) -> Vec<u8> {
        match (&self.pair, self.scheme) {
            (Pair::Ecdsa(_, pkcs8), KeyScheme::EcdsaP521) => {
                resign(&signature::ECDSA_P521_SHA256_ASN1_SIGNING, pkcs8, message)
            }
            (Pair::Ed25519(_, seed), _) => ed25519_dalek::SigningKey::from_bytes(seed)
                .sign_prehashed(ed25519_dalek::Sha512::new().chain_update(message), None)
                .expect("signs")
                .to_bytes()
                .to_vec(),
            _ => self.sign(message),
        }
    }

    /// The hint that cosign writes for this key.
    pub(crate) fn hint(&self) -> String {
        strict::to_base64(digest_of(&self.spki).as_bytes())
    }

    /// The legacy signature annotation over a payload.
    pub(crate) fn annotation(&self, payload: &[u8]) -> String {
        strict::to_base64(&self.sign(payload))
    }

    /// A bundle with an envelope over `statement`.
    pub(crate) fn bundle(&self, statement: &[u8]) -> Vec<u8> {
        enveloped(statement, &self.sign(&pae(bundle::STATEMENT_TYPE, statement)), &self.hint())
    }

    /// A bundle with a signature over the image's bytes.
    pub(crate) fn message_bundle(&self, image: &[u8]) -> Vec<u8> {
        let digest = strict::to_base64(digest_of(image).as_bytes());
        json!({
            "mediaType": bundle::MEDIA_TYPES[3],
            "verificationMaterial": {"publicKey": {"hint": self.hint()}},
            "messageSignature": {
                "messageDigest": {"algorithm": "SHA2_256", "digest": digest},
                "signature": strict::to_base64(&self.sign(image)),
            },
        })
        .to_string()
        .into_bytes()
    }
}

/// A bundle around a statement and a ready signature.
pub(crate) fn enveloped(statement: &[u8], signature: &[u8], hint: &str) -> Vec<u8> {
    json!({
        "mediaType": bundle::MEDIA_TYPES[3],
        "verificationMaterial": {"publicKey": {"hint": hint}},
        "dsseEnvelope": {
            "payload": strict::to_base64(statement),
            "payloadType": bundle::STATEMENT_TYPE,
            "signatures": [{"sig": strict::to_base64(signature)}],
        },
    })
    .to_string()
    .into_bytes()
}

/// The payload that cosign signs in the legacy format.
pub(crate) fn simple_signing(image: Digest) -> Vec<u8> {
    json!({
        "critical": {
            "identity": {"docker-reference": "registry.example.com/rc/app"},
            "image": {"docker-manifest-digest": image.to_string()},
            "type": payload::TYPE,
        },
        "optional": {"env": "prod", "build": 7},
    })
    .to_string()
    .into_bytes()
}

/// The statement that cosign 3 signs for an image.
pub(crate) fn statement(image: Digest, predicate_type: &str) -> Vec<u8> {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": image.hex()}, "annotations": {"env": "prod"}}],
        "predicateType": predicate_type,
        "predicate": {},
    })
    .to_string()
    .into_bytes()
}

fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm) -> Pair {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).expect("key");
    Pair::Ecdsa(EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).expect("key"), pkcs8.as_ref().to_vec())
}

fn resign(algorithm: &'static EcdsaSigningAlgorithm, pkcs8: &[u8], message: &[u8]) -> Vec<u8> {
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8).expect("key");
    pair.sign(&SystemRandom::new(), message).expect("signs").as_ref().to_vec()
}

fn der(der: &PublicKeyX509Der<'_>) -> Vec<u8> {
    der.as_ref().to_vec()
}
