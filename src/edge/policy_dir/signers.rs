//! The signers of a policy: their keys, and how long each counts. It must never let a signer pass without a key, or a
//! key without having read it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::decision::name::SignerName;
use crate::decision::policy::{KeyScheme, PublicKey, Signer};
use crate::decision::reference::Digest;
use crate::edge::sigstore::key::{ParsedKey, parse_pem};

use super::compile::{PolicyPlaces, list, parsed};
use super::document as written;
use super::fault::{Fault, Faults, Position, shown};
use super::keys::KeyFiles;
use super::read::{At, Named};

/// Every signer that is named; `None` for one in which a fault was found, so that `by` may still name it.
pub(super) fn signer_map(
    signers: &At<Named<written::Signer>>,
    keys: &mut KeyFiles,
    places: &mut PolicyPlaces,
    faults: &Faults,
) -> BTreeMap<SignerName, Option<Signer>> {
    let mut out = BTreeMap::new();
    let Some(Named(fields)) = &signers.value else { return out };
    if fields.is_empty() {
        faults.error(signers.at, Fault::Empty { key: "signers", hint: "name who signs, or remove it" });
    }
    for (name, written) in fields {
        let compiled = written.value.as_ref().and_then(|s| signer(name, s, keys, faults));
        if let Some(parsed) = parsed::<SignerName>(name, faults, Fault::from) {
            places.signers.push((parsed.clone(), name.at));
            out.insert(parsed, compiled);
        }
    }
    shared_keys(&out, places, faults);
    out
}

/// Warns of a key that several signers have: what it signs counts for one of them.
fn shared_keys(signers: &BTreeMap<SignerName, Option<Signer>>, places: &PolicyPlaces, faults: &Faults) {
    let mut owners: BTreeMap<Digest, &SignerName> = BTreeMap::new();
    for (name, at) in &places.signers {
        let Some(Some(signer)) = signers.get(name) else { continue };
        for key in signer.keys() {
            if let Some(other) = owners.insert(key.fingerprint, name)
                && other != name
            {
                faults.warn(*at, Fault::SharedKey { fingerprint: key.fingerprint.short(), other: other.to_string() });
            }
        }
    }
}

fn signer(name: &At<String>, signer: &written::Signer, keys: &mut KeyFiles, faults: &Faults) -> Option<Signer> {
    let written::Signer { keys: listed, transparency_log, keyless, certificate } = signer;
    let shown_name = name.value.as_deref().map(shown).unwrap_or_default();
    let Some(listed) = listed else {
        // A signer of another kind has its fault already.
        if keyless.is_none() && certificate.is_none() {
            faults.error(name.at, Fault::SignerWithoutKeys(shown_name));
        }
        return None;
    };
    match transparency_log {
        None => faults.error(name.at, Fault::LogNotChecked(shown_name)),
        Some(log) => match log.value {
            Some(written::TransparencyLog::Required) => faults.error(log.at, Fault::LogNotChecked(shown_name)),
            Some(written::TransparencyLog::NotRequired) | None => {}
        },
    }
    let mut compiled = Vec::new();
    let mut places: BTreeMap<Digest, Position> = BTreeMap::new();
    let mut whole = true;
    for key in list(listed, "keys", "give at least one key", faults)? {
        let Some(parsed) = key.value.as_ref().and_then(|k| public_key(k, key.at, keys, faults)) else {
            whole = false;
            continue;
        };
        if let Some(first) = places.insert(parsed.fingerprint, key.at) {
            let text = parsed.fingerprint.short();
            faults.error(key.at, Fault::Duplicate { what: "key", text, first });
        }
        compiled.push(parsed);
    }
    whole.then_some(Signer::Keys(compiled))
}

fn public_key(key: &written::SignerKey, at: Position, keys: &mut KeyFiles, faults: &Faults) -> Option<PublicKey> {
    let written::SignerKey { file, pem, not_before, not_after, scheme, secret } = key;
    let (place, text) = match (file, pem) {
        (Some(file), None) => {
            let name = file.value.as_ref();
            (file.at, name.and_then(|name| keys.text(name).map_err(|fault| faults.error(file.at, fault)).ok()))
        }
        (None, Some(pem)) => (pem.at, pem.value.clone()),
        (None, None) if secret.is_some() => (at, None),
        (Some(_), Some(_)) | (None, None) => {
            faults.error(at, Fault::KeyOneOf);
            (at, None)
        }
    };
    let parsed = text.and_then(|text| parse_pem(&text).map_err(|error| faults.error(place, error)).ok());
    let from = not_before.as_ref().map(|text| time(text, false, faults));
    let until = not_after.as_ref().map(|text| time(text, true, faults));
    if let (Some(Some(from)), Some(Some(until)), Some(place)) = (from, until, not_after)
        && until <= from
    {
        faults.error(place.at, Fault::EmptyWindow);
    }
    let ParsedKey { spki, fingerprint, scheme: own } = parsed?;
    let scheme = match scheme {
        None => own,
        Some(asked) => match (asked.value?, own) {
            (written::Scheme::RsaPss, KeyScheme::RsaPkcs1 | KeyScheme::RsaPss) => KeyScheme::RsaPss,
            (
                written::Scheme::RsaPss,
                KeyScheme::EcdsaP256 | KeyScheme::EcdsaP384 | KeyScheme::EcdsaP521 | KeyScheme::Ed25519,
            ) => {
                faults.error(asked.at, Fault::NotRsa);
                return None;
            }
        },
    };
    Some(PublicKey { spki, fingerprint, scheme, not_before: all(from)?, not_after: all(until)? })
}

/// A time that is not written is fine; one that is written and cannot be read is not.
#[expect(
    clippy::option_option,
    reason = "the outer one is whether it is written, the inner one whether it can be read"
)]
fn all<T>(written: Option<Option<T>>) -> Option<Option<T>> {
    match written {
        None => Some(None),
        Some(read) => read.map(Some),
    }
}

/// A timestamp, or a date: its first moment in UTC, or its last one.
pub(super) fn time(text: &At<String>, last: bool, faults: &Faults) -> Option<Timestamp> {
    let written = text.value.as_ref()?;
    let time = date(written, last).or_else(|| written.parse().ok());
    if time.is_none() {
        faults.error(text.at, Fault::Time(shown(written)));
    }
    time
}

fn date(text: &str, last: bool) -> Option<Timestamp> {
    if text.len() != "2027-06-30".len() {
        return None;
    }
    let date: jiff::civil::Date = text.parse().ok()?;
    let start = if last { date.tomorrow().ok()? } else { date }.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    if last { start.checked_sub(jiff::SignedDuration::from_nanos(1)).ok() } else { Some(start) }
}

/// How many of the signers can be counted at once, when one key counts for one of them only: the largest matching
/// between signers and keys, each signer trying to take a key, and whoever holds it another one.
pub(super) fn most_signers(signers: &[&Signer]) -> usize {
    fn place(
        signer: usize,
        all: &[&Signer],
        tried: &mut BTreeSet<Digest>,
        taken: &mut BTreeMap<Digest, usize>,
    ) -> bool {
        for key in all[signer].keys() {
            if !tried.insert(key.fingerprint) {
                continue;
            }
            let free = match taken.get(&key.fingerprint) {
                None => true,
                Some(&holder) => place(holder, all, tried, taken),
            };
            if free {
                taken.insert(key.fingerprint, signer);
                return true;
            }
        }
        false
    }
    let mut taken = BTreeMap::new();
    (0..signers.len()).filter(|signer| place(*signer, signers, &mut BTreeSet::new(), &mut taken)).count()
}
