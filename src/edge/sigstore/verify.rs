//! The check of one candidate, in numbered steps. The only place that makes a [`VerifiedStatement`]; it must never take a
//! key from the evidence, and never let one image's signature pass for another's.
//!
//! One chain, on one signature: the image's digest ← signed bytes ← signature ← key. Steps 4, 5 and 7 to 13 belong to
//! certificates, logs and timestamps; whoever signs with a bare key has them ignored (step 14).

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sigstore_verify::types::pae;

use super::bundle::{self, Bundle, BundleError, Content, HashName, Statement};
use super::payload::{self, Payload};
use super::scheme::{self, Format};
use super::{digest_of, json};
use crate::decision::code::Code;
use crate::decision::evidence::{AskedKey, Identity, Rejected, StatementKind, StatementParts, VerifiedStatement};
use crate::decision::reference::Digest;

/// What a candidate is checked against, and where it was found.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The image that the evidence must be about.
    pub image: Digest,
    /// The keys that count, from policies. The evidence chooses none of them.
    pub keys: &'a BTreeSet<AskedKey>,
    /// Where it was found, for the reader: `referrer sha256:…`, `tag sha256-….sig, layer 0`.
    pub source: &'a str,
}

/// A candidate that proved nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unproven {
    /// Why, for the reader. [`Code::InternalError`] where it is our fault: then nothing is known about the candidate.
    pub rejected: Rejected,
    /// What it claims to be, unverified: good for choosing what to show, never for a proof.
    pub claims: Claim,
}

/// What an unverified candidate claims to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// A signature of the image.
    ImageSignature,
    /// A statement with another predicate type.
    Attestation(String),
    /// It could not be read far enough.
    Unreadable,
}

/// Checks one layer of cosign's legacy format: `payload` is the blob, `signature` the layer's annotation
/// [`payload::SIGNATURE`].
pub fn legacy_layer(candidate: &Candidate<'_>, payload: &[u8], signature: &str) -> Result<VerifiedStatement, Unproven> {
    let unproven = |code, detail: String| candidate.unproven(Claim::ImageSignature, code, detail);
    guarded(candidate, || {
        // 1. Limits, strict parsers.
        if payload.len() as u64 > payload::MAX_BYTES {
            return Err(unproven(Code::BudgetExceeded, "the payload is over 64 KiB".to_owned()));
        }
        let said = Payload::read(payload)
            .map_err(|error| unproven(Code::EvidenceMalformed, format!("the payload cannot be read: {error}")))?;
        // 3. The payload names the image, as a string; its type is the one that there is.
        if said.kind != payload::TYPE {
            return Err(unproven(Code::EvidenceMalformed, "the payload's critical.type is another".to_owned()));
        }
        if said.digest != candidate.image.to_string() {
            return Err(match said.digest.parse::<Digest>() {
                Ok(other) => unproven(Code::SubjectMismatch, format!("it signs {other}, not {}", candidate.image)),
                Err(error) if error.unsupported_algorithm().is_some() => {
                    unproven(Code::SubjectMismatch, "it names the image by another algorithm than sha256".to_owned())
                }
                Err(_) => unproven(Code::EvidenceMalformed, "what it signs is not a digest".to_owned()),
            });
        }
        // 14. By key, without log: the signature over the payload, byte for byte as it was read.
        let signature = decoded(signature)
            .ok_or_else(|| unproven(Code::SignatureInvalid, "the signature is not base64, or empty".to_owned()))?;
        let key = candidate
            .keys
            .iter()
            .find(|key| scheme::verifies(key, Format::Legacy, payload, &signature))
            .ok_or_else(|| unproven(Code::WrongSigner, no_key(candidate)))?;
        // 15. Only now.
        Ok(VerifiedStatement::vouch(StatementParts {
            subject: candidate.image,
            kind: StatementKind::ImageSignature,
            identity: Identity::Key(key.fingerprint),
            annotations: said.optional,
            signed_for: said.reference,
            evidence: digest_of(payload),
            source: candidate.source.to_owned(),
        }))
    })
}

/// Checks one bundle: an image signature or an attestation, as the signed statement says.
///
/// `image_bytes` is the image's own manifest; it is needed where [`Bundle::needs_image`] says so.
pub fn bundle(
    candidate: &Candidate<'_>,
    bytes: &[u8],
    image_bytes: Option<&[u8]>,
) -> Result<VerifiedStatement, Unproven> {
    guarded(candidate, || {
        // 1., 2. Limits, strict parsers, one of the media types that are read. 6. One signature, statement types.
        let bundle = read_bundle(candidate, bytes)?;
        let evidence = digest_of(bytes);
        match &bundle.content {
            Content::Envelope { payload, statement, signature } => {
                envelope(candidate, &bundle, payload, statement, signature, evidence)
            }
            Content::Message { digest, signature } => {
                message(candidate, &bundle, digest.as_ref(), signature, image_bytes, evidence)
            }
        }
    })
}

/// Reads a bundle without judging it, so that what it needs can be fetched first.
pub fn read_bundle(candidate: &Candidate<'_>, bytes: &[u8]) -> Result<Bundle, Unproven> {
    Bundle::read(bytes).map_err(|error| {
        let code = match &error {
            BundleError::Malformed(_) => Code::EvidenceMalformed,
            BundleError::OverLimit(_) => Code::BudgetExceeded,
        };
        candidate.unproven(Claim::Unreadable, code, error.to_string())
    })
}

fn envelope(
    candidate: &Candidate<'_>,
    bundle: &Bundle,
    payload: &[u8],
    statement: &Statement,
    signature: &str,
    evidence: Digest,
) -> Result<VerifiedStatement, Unproven> {
    // 13. The signed predicate type decides, as a whole string: an attestation is no image signature.
    let (kind, claim) = if statement.predicate_type == bundle::IMAGE_SIGNATURE {
        (StatementKind::ImageSignature, Claim::ImageSignature)
    } else {
        let predicate_type = statement.predicate_type.clone();
        (StatementKind::Attestation { predicate_type: predicate_type.clone() }, Claim::Attestation(predicate_type))
    };
    // 6. One of the subjects is the image. Names and other algorithms are not looked at.
    let wanted = candidate.image.hex();
    let Some(subject) = statement.subjects.iter().find(|s| s.sha256.as_deref() == Some(wanted.as_str())) else {
        let detail = match statement.subjects.iter().find_map(|s| s.sha256.as_deref()) {
            Some(other) => format!("it is about sha256:{}, not {}", other.escape_default(), candidate.image),
            None => "it names nothing by sha256".to_owned(),
        };
        return Err(candidate.unproven(claim, Code::SubjectMismatch, detail));
    };
    // 14. By key, without log: the signature over the PAE of the payload as it was decoded.
    let signed = pae(bundle::STATEMENT_TYPE, payload);
    let key = signer(candidate, bundle, claim, signature, |key, signature| {
        scheme::verifies(key, Format::Bundle, &signed, signature)
    })?;
    // 15. Only now.
    Ok(VerifiedStatement::vouch(StatementParts {
        subject: candidate.image,
        kind,
        identity: Identity::Key(key.fingerprint),
        annotations: subject.annotations.clone(),
        signed_for: subject.name.clone(),
        evidence,
        source: candidate.source.to_owned(),
    }))
}

fn message(
    candidate: &Candidate<'_>,
    bundle: &Bundle,
    claimed: Option<&(HashName, Vec<u8>)>,
    signature: &str,
    image_bytes: Option<&[u8]>,
    evidence: Digest,
) -> Result<VerifiedStatement, Unproven> {
    let claim = Claim::ImageSignature;
    // 8. The image's own bytes, where they were fetched, are the image's.
    if image_bytes.is_some_and(|bytes| digest_of(bytes) != candidate.image) {
        let detail = "the manifest that was fetched is not the image's".to_owned();
        return Err(candidate.unproven(claim, Code::DigestMismatch, detail));
    }
    // 6. The digest that the bundle claims is the image's. Where it claims none, the signature alone binds the two.
    let about_this_image = match claimed {
        None => true,
        Some((HashName::Sha256, digest)) => digest.as_slice() == candidate.image.as_bytes(),
        Some((HashName::Sha384, digest)) => {
            image_bytes.is_some_and(|bytes| is_hash(&aws_lc_rs::digest::SHA384, bytes, digest))
        }
        Some((HashName::Sha512, digest)) => {
            image_bytes.is_some_and(|bytes| is_hash(&aws_lc_rs::digest::SHA512, bytes, digest))
        }
    };
    if !about_this_image {
        let detail = format!("its message digest is not that of {}", candidate.image);
        return Err(candidate.unproven(claim, Code::SubjectMismatch, detail));
    }
    // 14. By key, without log: the signature over the image's bytes, or over their digest.
    let key = signer(candidate, bundle, claim, signature, |key, signature| {
        image_bytes.map_or_else(
            || scheme::verifies_digest(key, candidate.image, signature),
            |bytes| scheme::verifies(key, Format::Bundle, bytes, signature),
        )
    })?;
    // 15. Only now.
    Ok(VerifiedStatement::vouch(StatementParts {
        subject: candidate.image,
        kind: StatementKind::ImageSignature,
        identity: Identity::Key(key.fingerprint),
        annotations: std::collections::BTreeMap::new(),
        signed_for: None,
        evidence,
        source: candidate.source.to_owned(),
    }))
}

/// The asked key under which a bundle's signature verifies. The hint chooses nothing; it only tells whose fault it is.
fn signer<'a>(
    candidate: &Candidate<'a>,
    bundle: &Bundle,
    claim: Claim,
    signature: &str,
    verifies: impl Fn(&AskedKey, &[u8]) -> bool,
) -> Result<&'a AskedKey, Unproven> {
    let Some(signature) = decoded(signature) else {
        let detail = "the signature is not base64, or empty".to_owned();
        return Err(candidate.unproven(claim, Code::SignatureInvalid, detail));
    };
    if let Some(key) = candidate.keys.iter().find(|key| verifies(key, &signature)) {
        return Ok(key);
    }
    Err(match &bundle.hint {
        Some(hint) if bundle::names_one_of(hint, candidate.keys) => {
            let detail = "it names a listed key and does not verify under it".to_owned();
            candidate.unproven(claim, Code::SignatureInvalid, detail)
        }
        Some(_) | None => candidate.unproven(claim, Code::WrongSigner, no_key(candidate)),
    })
}

impl Candidate<'_> {
    fn unproven(&self, claims: Claim, code: Code, detail: String) -> Unproven {
        Unproven { rejected: Rejected { source: self.source.to_owned(), code, detail }, claims }
    }
}

fn no_key(candidate: &Candidate<'_>) -> String {
    match candidate.keys.len() {
        1 => "it does not verify under the listed key".to_owned(),
        n => format!("it verifies under none of the {n} listed keys"),
    }
}

fn decoded(signature: &str) -> Option<Vec<u8>> {
    json::base64(signature).filter(|bytes| !bytes.is_empty())
}

fn is_hash(algorithm: &'static aws_lc_rs::digest::Algorithm, bytes: &[u8], want: &[u8]) -> bool {
    aws_lc_rs::digest::digest(algorithm, bytes).as_ref() == want
}

/// A panic in a library ends this candidate, not the process, and says nothing about the evidence.
fn guarded<T>(candidate: &Candidate<'_>, check: impl FnOnce() -> Result<T, Unproven>) -> Result<T, Unproven> {
    catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|_| {
        tracing::error!(source = candidate.source, "the check of a candidate panicked");
        Err(candidate.unproven(Claim::Unreadable, Code::InternalError, "our check of it failed".to_owned()))
    })
}

#[cfg(test)]
mod tests;
