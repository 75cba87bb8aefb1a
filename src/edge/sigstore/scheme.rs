//! One signature under one key. It must never be told by the evidence which key or scheme to use.

use aws_lc_rs::signature::{ECDSA_P521_SHA256_ASN1, UnparsedPublicKey};
use ed25519_dalek::Digest as _;
use sigstore::crypto::{CosignVerificationKey, Signature, SigningScheme as CosignScheme};
use sigstore_verify::crypto::{SigningScheme, VerificationKey};
use sigstore_verify::types::{DerPublicKey, SignatureBytes};
use x509_cert::der::Decode as _;
use x509_cert::spki::SubjectPublicKeyInfoRef;

use crate::decision::evidence::AskedKey;
use crate::decision::policy::KeyScheme;
use crate::decision::reference::Digest;

/// Which of cosign's two formats a signature stands in. They differ in the hashes that were ever used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// The `.sig` tag: older tools used SHA-256 whatever the curve.
    Legacy,
    /// The Sigstore bundle.
    Bundle,
}

/// Whether `signature` is one by `key` over `message`.
///
/// Ed25519 is tried as such and pre-hashed (Ed25519ph, RFC 8032, section 5.1) in both formats: cosign 3.1 writes the
/// pre-hashed variant into bundles too, cosign 1 wrote the plain one into `.sig`. The two are separated by their domain
/// prefix, so that neither can be passed off as the other over other bytes.
pub(super) fn verifies(key: &AskedKey, format: Format, message: &[u8], signature: &[u8]) -> bool {
    match (format, key.scheme) {
        (Format::Legacy, KeyScheme::EcdsaP256) => {
            cosign(key, &CosignScheme::ECDSA_P256_SHA256_ASN1, message, signature)
        }
        (Format::Legacy, KeyScheme::EcdsaP384) => {
            cosign(key, &CosignScheme::ECDSA_P384_SHA384_ASN1, message, signature)
                || bundled(key, SigningScheme::EcdsaP384Sha256, message, signature)
        }
        (Format::Legacy, KeyScheme::EcdsaP521) => {
            cosign(key, &CosignScheme::ECDSA_P521_SHA512_ASN1, message, signature)
                || UnparsedPublicKey::new(&ECDSA_P521_SHA256_ASN1, &*key.spki).verify(message, signature).is_ok()
        }
        (Format::Legacy, KeyScheme::RsaPkcs1) => cosign(key, &CosignScheme::RSA_PKCS1_SHA256(0), message, signature),
        (Format::Legacy, KeyScheme::RsaPss) => cosign(key, &CosignScheme::RSA_PSS_SHA256(0), message, signature),
        (Format::Legacy, KeyScheme::Ed25519) => {
            ed25519ph(key, message, signature) || cosign(key, &CosignScheme::ED25519, message, signature)
        }
        (Format::Bundle, KeyScheme::EcdsaP256) => bundled(key, SigningScheme::EcdsaP256Sha256, message, signature),
        (Format::Bundle, KeyScheme::EcdsaP384) => bundled(key, SigningScheme::EcdsaP384Sha384, message, signature),
        // The bundle library has no P-521.
        (Format::Bundle, KeyScheme::EcdsaP521) => {
            cosign(key, &CosignScheme::ECDSA_P521_SHA512_ASN1, message, signature)
        }
        (Format::Bundle, KeyScheme::RsaPkcs1) => bundled(key, SigningScheme::RsaPkcs1Sha256, message, signature),
        (Format::Bundle, KeyScheme::RsaPss) => bundled(key, SigningScheme::RsaPssSha256, message, signature),
        (Format::Bundle, KeyScheme::Ed25519) => {
            bundled(key, SigningScheme::Ed25519, message, signature) || ed25519ph(key, message, signature)
        }
    }
}

/// Whether a key signs a SHA-256 digest, so that a digest is enough to check its signature.
pub(super) const fn signs_sha256(scheme: KeyScheme) -> bool {
    match scheme {
        KeyScheme::EcdsaP256 | KeyScheme::RsaPkcs1 | KeyScheme::RsaPss => true,
        KeyScheme::EcdsaP384 | KeyScheme::EcdsaP521 | KeyScheme::Ed25519 => false,
    }
}

/// Whether `signature` is one by `key` over the bytes that hash to `digest`. Never so for a key that hashes otherwise.
pub(super) fn verifies_digest(key: &AskedKey, digest: Digest, signature: &[u8]) -> bool {
    let scheme = match key.scheme {
        KeyScheme::EcdsaP256 => SigningScheme::EcdsaP256Sha256,
        KeyScheme::RsaPkcs1 => SigningScheme::RsaPkcs1Sha256,
        KeyScheme::RsaPss => SigningScheme::RsaPssSha256,
        KeyScheme::EcdsaP384 | KeyScheme::EcdsaP521 | KeyScheme::Ed25519 => return false,
    };
    VerificationKey::from_spki_with_scheme(&DerPublicKey::from_bytes(&key.spki), scheme)
        .is_ok_and(|key| key.verify_prehashed(digest.as_bytes(), &SignatureBytes::from_bytes(signature)).is_ok())
}

fn cosign(key: &AskedKey, scheme: &CosignScheme, message: &[u8], signature: &[u8]) -> bool {
    CosignVerificationKey::from_der(&key.spki, scheme)
        .is_ok_and(|key| key.verify_signature(Signature::Raw(signature), message).is_ok())
}

fn bundled(key: &AskedKey, scheme: SigningScheme, message: &[u8], signature: &[u8]) -> bool {
    VerificationKey::from_spki_with_scheme(&DerPublicKey::from_bytes(&key.spki), scheme)
        .is_ok_and(|key| key.verify(message, &SignatureBytes::from_bytes(signature)).is_ok())
}

fn ed25519ph(key: &AskedKey, message: &[u8], signature: &[u8]) -> bool {
    let Ok(spki) = SubjectPublicKeyInfoRef::from_der(&key.spki) else { return false };
    let Ok(raw) = <[u8; 32]>::try_from(spki.subject_public_key.raw_bytes()) else { return false };
    let Ok(key) = ed25519_dalek::VerifyingKey::from_bytes(&raw) else { return false };
    let Ok(signature) = ed25519_dalek::Signature::from_slice(signature) else { return false };
    key.verify_prehashed_strict(ed25519_dalek::Sha512::new().chain_update(message), None, &signature).is_ok()
}
