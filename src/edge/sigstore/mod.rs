//! Sigstore's formats over bytes: keys, cosign's legacy signatures, bundles. It must never fetch anything, and never take
//! a key, an identity or a time on a registry's word.

pub mod key;

use crate::decision::reference::Digest;

/// SHA-256 of some bytes.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    Digest::from_bytes(out)
}
