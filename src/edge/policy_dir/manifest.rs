//! A compiled policy as a manifest again: one form for one meaning. It must never leave out anything that the rules read.
//!
//! Two uses: with the fingerprints of its keys its RFC 8785 form is what the content hash is over; with the keys
//! themselves it is what is kept for a restart, and read again by the same parser.

use base64::Engine as _;
use serde_json::{Map, Value, json};

use crate::decision::policy::{
    BreakGlass, DenyList, KeyScheme, NamespaceSelector, OverrideRequests, Policy, PublicKey, Rule, SignatureRule,
    Signer, Withdrawn,
};
use crate::decision::reference::Digest;
use crate::edge::sigstore::digest_of;

use super::document::{API_VERSION, Kind};

/// The whole manifest, keys as PEM.
pub(super) fn of_policy(policy: &Policy) -> Value {
    document(Kind::ReleasePolicy, policy.name.as_str(), &policy_spec(policy, pem))
}

/// The whole manifest.
pub(super) fn of_deny_list(list: &DenyList) -> Value {
    document(Kind::DenyList, list.name.as_str(), &deny_list_spec(list))
}

/// The content hash of a policy: SHA-256 over the canonical spec, defaults filled, keys by fingerprint.
pub(super) fn policy_hash(policy: &Policy) -> Result<Digest, serde_json::Error> {
    hash(&policy_spec(policy, |key| ("fingerprint", key.fingerprint.to_string())))
}

/// The content hash of a deny-list.
pub(super) fn deny_list_hash(list: &DenyList) -> Result<Digest, serde_json::Error> {
    hash(&deny_list_spec(list))
}

fn hash(spec: &Value) -> Result<Digest, serde_json::Error> {
    Ok(digest_of(&serde_json_canonicalizer::to_vec(spec)?))
}

fn document(kind: Kind, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": API_VERSION, "kind": kind.as_str(), "metadata": {"name": name}, "spec": spec})
}

/// Each type is taken apart by all its fields, so that a new one cannot be forgotten here.
fn policy_spec(policy: &Policy, key: fn(&PublicKey) -> (&'static str, String)) -> Value {
    let Policy { name: _, hash: _, namespaces, mode, signers, rules, break_glass } = policy;
    let mut spec = Map::new();
    spec.insert(
        "namespaces".to_owned(),
        match namespaces {
            NamespaceSelector::Names(patterns) => json!({"names": sorted(patterns.iter().map(ToString::to_string))}),
            NamespaceSelector::Otherwise => json!({"otherwise": true}),
        },
    );
    spec.insert("mode".to_owned(), json!(mode));
    if !signers.is_empty() {
        let signers = signers.iter().map(|(name, signer)| (name.to_string(), of_signer(signer, key)));
        spec.insert("signers".to_owned(), Value::Object(signers.collect()));
    }
    let mut rules: Vec<&Rule> = rules.iter().collect();
    rules.sort_by(|a, b| a.name.cmp(&b.name));
    spec.insert("rules".to_owned(), rules.into_iter().map(of_rule).collect());
    if let Some(BreakGlass { request }) = break_glass {
        spec.insert("breakGlass".to_owned(), json!({"request": of_requests(request)}));
    }
    Value::Object(spec)
}

fn of_signer(signer: &Signer, key: fn(&PublicKey) -> (&'static str, String)) -> Value {
    match signer {
        Signer::Keys(keys) => {
            let mut keys: Vec<&PublicKey> = keys.iter().collect();
            keys.sort();
            let keys: Vec<Value> = keys.into_iter().map(|k| of_key(k, key)).collect();
            json!({"keys": keys, "transparencyLog": "not-required"})
        }
    }
}

fn of_key(public: &PublicKey, key: fn(&PublicKey) -> (&'static str, String)) -> Value {
    let PublicKey { spki: _, fingerprint: _, scheme, not_before, not_after } = public;
    let (field, text) = key(public);
    let mut out = Map::new();
    out.insert(field.to_owned(), json!(text));
    match scheme {
        KeyScheme::RsaPss => {
            out.insert("scheme".to_owned(), json!("rsa-pss"));
        }
        // These follow from the key.
        KeyScheme::EcdsaP256
        | KeyScheme::EcdsaP384
        | KeyScheme::EcdsaP521
        | KeyScheme::Ed25519
        | KeyScheme::RsaPkcs1 => {}
    }
    for (field, time) in [("notBefore", not_before), ("notAfter", not_after)] {
        if let Some(time) = time {
            out.insert(field.to_owned(), json!(time.to_string()));
        }
    }
    Value::Object(out)
}

fn pem(key: &PublicKey) -> (&'static str, String) {
    let base64 = base64::engine::general_purpose::STANDARD.encode(&key.spki);
    let mut text = String::from("-----BEGIN PUBLIC KEY-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END PUBLIC KEY-----\n");
    ("pem", text)
}

fn of_rule(rule: &Rule) -> Value {
    let Rule { name, repositories, signatures, digests } = rule;
    let mut out = Map::new();
    out.insert("name".to_owned(), json!(name.as_str()));
    out.insert("repositories".to_owned(), json!(sorted(repositories.iter().map(ToString::to_string))));
    if let Some(digests) = digests {
        out.insert("digests".to_owned(), json!(digests));
    }
    let Some(SignatureRule { by, at_least, annotations, signed_from }) = signatures else {
        out.insert("signatures".to_owned(), json!("not-required"));
        return Value::Object(out);
    };
    let by = sorted(by.iter().map(ToString::to_string));
    out.insert("signatures".to_owned(), json!({"by": by, "atLeast": at_least}));
    if !annotations.is_empty() {
        out.insert("annotations".to_owned(), json!(annotations));
    }
    if !signed_from.is_empty() {
        out.insert("signedFrom".to_owned(), json!(sorted(signed_from.iter().map(ToString::to_string))));
    }
    Value::Object(out)
}

fn of_requests(requests: &OverrideRequests) -> Value {
    let OverrideRequests { users, groups, waivable, ticket_pattern } = requests;
    let mut out = Map::new();
    for (field, names) in [("users", users), ("groups", groups)] {
        if !names.is_empty() {
            out.insert(field.to_owned(), json!(names));
        }
    }
    out.insert("waivable".to_owned(), json!(waivable));
    out.insert("ticketPattern".to_owned(), json!(ticket_pattern));
    Value::Object(out)
}

fn deny_list_spec(list: &DenyList) -> Value {
    let DenyList { name: _, hash: _, digests } = list;
    let digests: Vec<Value> = digests
        .iter()
        .map(|(digest, Withdrawn { reason, since })| match since {
            Some(since) => json!({"digest": digest, "reason": reason, "since": since}),
            None => json!({"digest": digest, "reason": reason}),
        })
        .collect();
    json!({"digests": digests})
}

/// The order in a list of patterns or names means nothing.
fn sorted(items: impl Iterator<Item = String>) -> Vec<String> {
    let mut items: Vec<String> = items.collect();
    items.sort();
    items
}
