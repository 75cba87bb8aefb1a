//! Public keys as an owner writes them down: PEM in, checked SPKI out. It must never accept anything but one public key.

use std::sync::Arc;

use aws_lc_rs::signature as algorithm;
use sigstore_verify::crypto::{SigningScheme, validate_raw_public_key};
use x509_cert::der::asn1::{AnyRef, UintRef};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode as _, Encode as _, Reader as _, pem};
use x509_cert::spki::SubjectPublicKeyInfoRef;

use crate::decision::policy::KeyScheme;
use crate::decision::printable::clip;
use crate::decision::reference::Digest;

/// Longest accepted text of a key: an RSA key of 8192 bits takes 1.5 KiB.
const MAX_TEXT: usize = 16 * 1024;
/// How much of a PEM label is repeated in an error, in characters.
const LABEL: usize = 40;

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// A public key that was read and found usable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedKey {
    /// DER `SubjectPublicKeyInfo` (RFC 5280, section 4.1.2.7), as written.
    pub spki: Arc<[u8]>,
    /// SHA-256 of `spki`.
    pub fingerprint: Digest,
    /// How such a key signs. An RSA key comes as `RsaPkcs1`; whoever wants `RsaPss` says so elsewhere.
    pub scheme: KeyScheme,
}

/// Why a text is no usable public key. The text itself is never repeated: it may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no PEM block, or there are several.
    #[error("a key is exactly one `-----BEGIN PUBLIC KEY-----` block, and nothing else; found {blocks} blocks")]
    NotOneBlock {
        /// How many blocks there are.
        blocks: usize,
    },
    /// Text stands before or after the block.
    #[error("there is text outside the `PUBLIC KEY` block: remove it")]
    StrayText,
    /// A private key.
    #[error(
        "this is a PRIVATE key (`{label}`): it must not be here. Remove it, consider it disclosed, and write the public key"
    )]
    PrivateKey {
        /// The label of the PEM block.
        label: String,
    },
    /// A certificate.
    #[error("this is a certificate, not a public key: `openssl x509 -pubkey -noout` shows the key in it")]
    Certificate,
    /// Another kind of PEM block.
    #[error("`{label}` is not `PUBLIC KEY` (SubjectPublicKeyInfo): convert it with `openssl pkey -pubin -pubout`")]
    WrongLabel {
        /// The label of the PEM block, escaped and shortened.
        label: String,
    },
    /// The block cannot be decoded.
    #[error("the `PUBLIC KEY` block is damaged: its base64 or its line structure cannot be read")]
    Encoding,
    /// The block holds something else than a public key.
    #[error("the `PUBLIC KEY` block does not hold a well-formed public key")]
    NotAKey,
    /// An algorithm or a curve that is not supported.
    #[error("{what} is not supported: use ECDSA on P-256, P-384 or P-521, Ed25519, or RSA of 2048 to 8192 bits")]
    Unsupported {
        /// Which algorithm or curve.
        what: String,
    },
    /// An RSA key that is too short or too long.
    #[error("an RSA key of {bits} bits is not accepted: 2048 to 8192 are")]
    RsaSize {
        /// The length of its modulus in bits.
        bits: usize,
    },
    /// The text is too long to be a key.
    #[error("a key of over 16 KiB is none that is supported")]
    TooLong,
}

/// Reads one public key in PEM (RFC 7468, section 13): exactly one `PUBLIC KEY` block, with nothing but white space
/// around it.
pub fn parse_pem(text: &str) -> Result<ParsedKey, KeyError> {
    if text.len() > MAX_TEXT {
        return Err(KeyError::TooLong);
    }
    let text = text.trim();
    let labels = labels(text);
    // A private key is the first thing to be said, whatever stands beside it.
    if let Some(label) = labels.iter().find(|label| label.contains("PRIVATE KEY")) {
        return Err(KeyError::PrivateKey { label: clip(label, LABEL) });
    }
    let [label] = labels.as_slice() else {
        return Err(KeyError::NotOneBlock { blocks: labels.len() });
    };
    match *label {
        "PUBLIC KEY" => {}
        "CERTIFICATE" | "TRUSTED CERTIFICATE" | "X509 CERTIFICATE" => return Err(KeyError::Certificate),
        other => return Err(KeyError::WrongLabel { label: clip(other, LABEL) }),
    }
    if !text.starts_with("-----BEGIN PUBLIC KEY-----") || !text.ends_with("-----END PUBLIC KEY-----") {
        return Err(KeyError::StrayText);
    }
    let (_, der) = pem::decode_vec(text.as_bytes()).map_err(|_| KeyError::Encoding)?;
    parse_der(&der)
}

/// Reads one public key as DER `SubjectPublicKeyInfo`.
pub fn parse_der(der: &[u8]) -> Result<ParsedKey, KeyError> {
    let spki = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| KeyError::NotAKey)?;
    // One key has one encoding, else it would have two fingerprints and could stand for two signers.
    if spki.to_der().map_err(|_| KeyError::NotAKey)? != der {
        return Err(KeyError::NotAKey);
    }
    let raw = spki.subject_public_key.as_bytes().ok_or(KeyError::NotAKey)?;
    let absent_or_null = spki.algorithm.parameters.is_none_or(AnyRef::is_null);
    let scheme = match spki.algorithm.oid {
        EC_PUBLIC_KEY => match spki.algorithm.parameters_oid() {
            Ok(P256) => KeyScheme::EcdsaP256,
            Ok(P384) => KeyScheme::EcdsaP384,
            Ok(P521) => KeyScheme::EcdsaP521,
            Ok(other) => return Err(KeyError::Unsupported { what: format!("the curve {other}") }),
            Err(_) => return Err(KeyError::Unsupported { what: "a curve without a name".to_owned() }),
        },
        ED25519 if spki.algorithm.parameters.is_none() => KeyScheme::Ed25519,
        RSA if absent_or_null => KeyScheme::RsaPkcs1,
        ED25519 | RSA => return Err(KeyError::NotAKey),
        other => return Err(KeyError::Unsupported { what: format!("the key algorithm {other}") }),
    };
    check_key_material(scheme, raw)?;
    Ok(ParsedKey { spki: der.into(), fingerprint: fingerprint(der), scheme })
}

/// SHA-256 of a DER `SubjectPublicKeyInfo`.
#[must_use]
pub fn fingerprint(spki: &[u8]) -> Digest {
    super::digest_of(spki)
}

/// The point lies on its curve and is not compressed; the modulus is of an accepted size.
fn check_key_material(scheme: KeyScheme, raw: &[u8]) -> Result<(), KeyError> {
    let uncompressed = raw.first() == Some(&0x04);
    match scheme {
        KeyScheme::EcdsaP256 | KeyScheme::EcdsaP384 | KeyScheme::EcdsaP521 if !uncompressed => {
            return Err(KeyError::Unsupported { what: "a compressed curve point".to_owned() });
        }
        KeyScheme::RsaPkcs1 | KeyScheme::RsaPss => {
            let bits = rsa_bits(raw).ok_or(KeyError::NotAKey)?;
            if validate_raw_public_key(SigningScheme::RsaPkcs1Sha256, raw).is_err() {
                return Err(if (2048..=8192).contains(&bits) { KeyError::NotAKey } else { KeyError::RsaSize { bits } });
            }
        }
        KeyScheme::EcdsaP256 | KeyScheme::EcdsaP384 | KeyScheme::EcdsaP521 | KeyScheme::Ed25519 => {}
    }
    let parsed = match scheme {
        KeyScheme::EcdsaP256 => algorithm::ParsedPublicKey::new(&algorithm::ECDSA_P256_SHA256_ASN1, raw),
        KeyScheme::EcdsaP384 => algorithm::ParsedPublicKey::new(&algorithm::ECDSA_P384_SHA384_ASN1, raw),
        KeyScheme::EcdsaP521 => algorithm::ParsedPublicKey::new(&algorithm::ECDSA_P521_SHA512_ASN1, raw),
        KeyScheme::Ed25519 => algorithm::ParsedPublicKey::new(&algorithm::ED25519, raw),
        KeyScheme::RsaPkcs1 | KeyScheme::RsaPss => {
            algorithm::ParsedPublicKey::new(&algorithm::RSA_PKCS1_2048_8192_SHA256, raw)
        }
    };
    parsed.map(drop).map_err(|_| KeyError::NotAKey)
}

/// The length of an RSA modulus in bits (RFC 8017, appendix A.1.1).
fn rsa_bits(raw: &[u8]) -> Option<usize> {
    let key = AnyRef::from_der(raw).ok()?;
    let modulus = key.sequence(|fields| {
        let modulus: UintRef<'_> = fields.decode()?;
        let _exponent: UintRef<'_> = fields.decode()?;
        Ok(modulus)
    });
    let bytes = modulus.ok()?.as_bytes();
    let first = bytes.first()?;
    Some(bytes.len() * 8 - first.leading_zeros() as usize)
}

/// The labels of all PEM blocks that begin in the text, well-formed or not.
fn labels(text: &str) -> Vec<&str> {
    text.split("-----BEGIN ").skip(1).map(|rest| rest.split("-----").next().unwrap_or(rest)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
    use x509_cert::der::pem::LineEnding;

    fn to_pem(label: &str, der: &[u8]) -> String {
        pem::encode_string(label, LineEnding::LF, der).expect("PEM")
    }

    fn ec(signing: &'static algorithm::EcdsaSigningAlgorithm) -> Vec<u8> {
        let pair = EcdsaKeyPair::generate(signing).expect("key");
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("DER");
        der.as_ref().to_vec()
    }

    fn ed25519() -> Vec<u8> {
        let pair = Ed25519KeyPair::generate().expect("key");
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("DER");
        der.as_ref().to_vec()
    }

    fn rsa(size: KeySize) -> Vec<u8> {
        let pair = RsaKeyPair::generate(size).expect("key");
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("DER");
        der.as_ref().to_vec()
    }

    #[test]
    fn every_supported_kind_is_read() {
        for (name, der, want) in [
            ("P-256", ec(&algorithm::ECDSA_P256_SHA256_ASN1_SIGNING), KeyScheme::EcdsaP256),
            ("P-384", ec(&algorithm::ECDSA_P384_SHA384_ASN1_SIGNING), KeyScheme::EcdsaP384),
            ("P-521", ec(&algorithm::ECDSA_P521_SHA512_ASN1_SIGNING), KeyScheme::EcdsaP521),
            ("Ed25519", ed25519(), KeyScheme::Ed25519),
            ("RSA", rsa(KeySize::Rsa2048), KeyScheme::RsaPkcs1),
        ] {
            let text = to_pem("PUBLIC KEY", &der);
            let key = parse_pem(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(key.scheme, want, "{name}");
            assert_eq!(&*key.spki, der.as_slice(), "{name}");
            assert_eq!(key.fingerprint, fingerprint(&der), "{name}");
            assert_eq!(parse_pem(&format!("\n  {}\r\n", text.trim())).as_ref(), Ok(&key), "{name}: white space around");
        }
    }

    #[test]
    fn anything_but_one_public_key_is_refused_by_name() {
        let der = ec(&algorithm::ECDSA_P256_SHA256_ASN1_SIGNING);
        let good = to_pem("PUBLIC KEY", &der);
        let private = EcdsaKeyPair::generate_pkcs8(&algorithm::ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
            .expect("key");
        let private = to_pem("PRIVATE KEY", private.as_ref());
        let mut off_curve = der.clone();
        *off_curve.last_mut().expect("not empty") ^= 1;
        let mut longer = der.clone();
        longer.push(0);
        // secp256k1 in place of P-256.
        let k1 = ec_with_curve(&der, &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a]);
        for (name, text, want) in [
            ("nothing", String::new(), KeyError::NotOneBlock { blocks: 0 }),
            ("two keys", format!("{good}{good}"), KeyError::NotOneBlock { blocks: 2 }),
            ("a private key", private.clone(), KeyError::PrivateKey { label: "PRIVATE KEY".to_owned() }),
            (
                "a private key after it",
                format!("{good}{private}"),
                KeyError::PrivateKey { label: "PRIVATE KEY".to_owned() },
            ),
            (
                "cosign's private key",
                to_pem("ENCRYPTED SIGSTORE PRIVATE KEY", b"{}"),
                KeyError::PrivateKey { label: "ENCRYPTED SIGSTORE PRIVATE KEY".to_owned() },
            ),
            ("a certificate", to_pem("CERTIFICATE", &der), KeyError::Certificate),
            ("PKCS#1", to_pem("RSA PUBLIC KEY", &der), KeyError::WrongLabel { label: "RSA PUBLIC KEY".to_owned() }),
            ("text before", format!("my key\n{good}"), KeyError::StrayText),
            ("text after", format!("{good}my key"), KeyError::StrayText),
            ("damaged base64", good.replacen("MFkw", "MF!w", 1), KeyError::Encoding),
            ("other DER", to_pem("PUBLIC KEY", &[0x30, 0x00]), KeyError::NotAKey),
            ("bytes after the key", to_pem("PUBLIC KEY", &longer), KeyError::NotAKey),
            ("a point off the curve", to_pem("PUBLIC KEY", &off_curve), KeyError::NotAKey),
            (
                "another curve",
                to_pem("PUBLIC KEY", &k1),
                KeyError::Unsupported { what: "the curve 1.3.132.0.10".to_owned() },
            ),
            ("RSA of 1024 bits", to_pem("PUBLIC KEY", &rsa_of(1024)), KeyError::RsaSize { bits: 1024 }),
            ("RSA of 8200 bits", to_pem("PUBLIC KEY", &rsa_of(8200)), KeyError::RsaSize { bits: 8200 }),
            ("a novel", "x".repeat(MAX_TEXT + 1), KeyError::TooLong),
        ] {
            assert_eq!(parse_pem(&text), Err(want), "{name}");
        }
    }

    #[test]
    fn errors_never_repeat_a_secret() {
        let secret = "-----BEGIN PRIVATE KEY-----\nTOPSECRET\n-----END PRIVATE KEY-----";
        let error = parse_pem(secret).expect_err("refused").to_string();
        assert!(!error.contains("TOPSECRET"), "{error}");
        assert!(error.contains("PRIVATE key"), "{error}");
    }

    /// The key with another curve named.
    fn ec_with_curve(der: &[u8], curve: &[u8]) -> Vec<u8> {
        let key = SubjectPublicKeyInfoRef::from_der(der).expect("SPKI");
        let point = key.subject_public_key.raw_bytes();
        let oid = [0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
        let algorithm = tlv(0x30, &[&oid[..], curve].concat());
        tlv(0x30, &[algorithm, tlv(0x03, &[&[0], point].concat())].concat())
    }

    /// An SPKI with an odd modulus of so many bits. Nobody has its private key.
    fn rsa_of(bits: usize) -> Vec<u8> {
        let mut modulus = vec![0xff; bits / 8];
        modulus.insert(0, 0);
        let key = tlv(0x30, &[tlv(0x02, &modulus), vec![0x02, 0x03, 0x01, 0x00, 0x01]].concat());
        let oid = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
        tlv(0x30, &[tlv(0x30, &oid), tlv(0x03, &[&[0], key.as_slice()].concat())].concat())
    }

    fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
        let mut out = vec![tag];
        match u8::try_from(value.len()) {
            Ok(short) if short < 0x80 => out.push(short),
            Ok(medium) => out.extend([0x81, medium]),
            Err(_) => {
                out.push(0x82);
                out.extend(u16::try_from(value.len()).expect("short enough").to_be_bytes());
            }
        }
        out.extend_from_slice(value);
        out
    }
}
