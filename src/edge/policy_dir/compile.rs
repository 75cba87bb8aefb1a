//! From a manifest to what the rules use. It must never return a policy beside which a fault was found.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use crate::decision::name::{PolicyName, RuleName, SignerName};
use crate::decision::pattern::{NamespacePattern, RepositoryPattern};
use crate::decision::policy::{
    BreakGlass, DenyList, Mode, NamespaceSelector, Policy, Rule, SignatureRule, Signer, Withdrawn,
};
use crate::decision::reference::{Digest, MAX_REPOSITORY};

use super::break_glass;
use super::document::{self as written, Kind};
use super::fault::{Fault, Faults, Position, shown};
use super::keys::KeyFiles;
use super::manifest;
use super::read::{At, Named, typed};
use super::signers::{most_signers, signer_map, time};
use super::tree::{Node, Value};

/// Longest value of an annotation and longest reason, in characters.
const MAX_TEXT: usize = 500;

/// One document of a file: what could be read of it in any case, and what it is where it is good.
#[derive(Debug, Clone)]
pub(super) struct Document {
    pub(super) at: Position,
    /// Where `metadata.name` stands, else where the document begins.
    pub(super) name_at: Position,
    /// As far as it can be read.
    pub(super) kind: Option<Kind>,
    /// As far as it can be read.
    pub(super) name: Option<PolicyName>,
    /// As far as they can be read; `None` for a deny-list.
    pub(super) namespaces: Option<NamespaceSelector>,
    /// Nothing where any fault was found.
    pub(super) good: Option<Good>,
    /// The first fault, for those whom it stops.
    pub(super) error: Option<String>,
}

/// A document in which no fault was found.
#[derive(Debug, Clone)]
pub(super) enum Good {
    Policy(Arc<Policy>, PolicyPlaces),
    DenyList(Arc<DenyList>),
}

/// Where the parts of a policy stand, for warnings about several documents.
#[derive(Debug, Clone, Default)]
pub(super) struct PolicyPlaces {
    pub(super) digests: Vec<(Digest, Position)>,
    pub(super) signers: Vec<(SignerName, Position)>,
}

/// Reads one document. Every fault goes to `faults`.
pub(super) fn document(node: &Node, keys: &mut KeyFiles, faults: &Faults, before: usize) -> Document {
    let kind = match node.field("kind").and_then(Node::text) {
        Some("ReleasePolicy") => Some(Kind::ReleasePolicy),
        Some("DenyList") => Some(Kind::DenyList),
        Some(_) | None => None,
    };
    let named = node.field("metadata").and_then(|metadata| metadata.field("name"));
    let name = named.and_then(Node::text).and_then(|name| name.parse().ok());
    let name_at = named.map_or(node.at, |name| name.at);
    let namespaces = namespaces_of(node);
    let good = match kind {
        Some(Kind::ReleasePolicy) => typed(node, faults)
            .and_then(|doc: written::ReleasePolicy| policy(&doc, keys, faults))
            .map(|(policy, places)| Good::Policy(Arc::new(policy), places)),
        Some(Kind::DenyList) => typed(node, faults)
            .and_then(|doc: written::DenyList| deny_list(&doc, faults))
            .map(|list| Good::DenyList(Arc::new(list))),
        None => {
            kind_fault(node, faults);
            None
        }
    };
    let errors = faults.since(before);
    let good = if errors.is_empty() { good } else { None };
    Document { at: node.at, name_at, kind, name, namespaces, good, error: errors.first().map(ToString::to_string) }
}

fn kind_fault(node: &Node, faults: &Faults) {
    match (&node.value, node.field("kind")) {
        (Value::Map(_), Some(kind)) => {
            let expected = format!("`{}` or `{}`", Kind::ReleasePolicy, Kind::DenyList);
            faults.error(kind.at, Fault::WrongType { expected, found: kind.described() });
        }
        // Twice is a fault that the tree has recorded already; so is reported what is not there at all.
        (Value::Map(fields), None) => {
            if !fields.iter().any(|(key, _)| key.text == "kind") {
                faults.error(node.at, Fault::Missing { key: "kind".to_owned() });
            }
        }
        (Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) | Value::List(_), _) => {
            faults.error(node.at, Fault::WrongType { expected: "a manifest".to_owned(), found: node.described() });
        }
    }
}

/// The namespaces of a policy that may be broken elsewhere. `None` unless they can be read to the last one.
fn namespaces_of(node: &Node) -> Option<NamespaceSelector> {
    let namespaces = node.field("spec")?.field("namespaces")?;
    let Value::Map(fields) = &namespaces.value else { return None };
    let has = |key: &str| fields.iter().any(|(k, _)| k.text == key);
    match (has("names"), has("otherwise")) {
        (true, false) => {
            let Value::List(items) = &namespaces.field("names")?.value else { return None };
            let patterns: Option<Vec<NamespacePattern>> = items.iter().map(|item| item.text()?.parse().ok()).collect();
            patterns.filter(|patterns| !patterns.is_empty()).map(NamespaceSelector::Names)
        }
        (false, true) => {
            matches!(namespaces.field("otherwise")?.value, Value::Bool(true)).then_some(NamespaceSelector::Otherwise)
        }
        (true, true) | (false, false) => None,
    }
}

/// `None` only where a fault was recorded; where it is `Some`, faults must still be looked at.
fn policy(doc: &written::ReleasePolicy, keys: &mut KeyFiles, faults: &Faults) -> Option<(Policy, PolicyPlaces)> {
    let name = doc.metadata.value.as_ref().and_then(|m| parsed::<PolicyName>(&m.name, faults, Fault::from));
    let spec = doc.spec.value.as_ref()?;
    let namespaces = namespaces(&spec.namespaces, faults);
    let mode = match &spec.mode {
        Some(mode) => mode.value,
        None => Some(Mode::Enforce),
    };
    let mut places = PolicyPlaces::default();
    let signers =
        spec.signers.as_ref().map(|signers| signer_map(signers, keys, &mut places, faults)).unwrap_or_default();
    let rules = rules(spec, &signers, &mut places, faults);
    let break_glass: Option<Option<BreakGlass>> = match &spec.break_glass {
        None => Some(None),
        Some(written) => break_glass::compile(written, mode, faults).map(Some),
    };
    let mut policy = Policy {
        name: name?,
        hash: Digest::from_bytes([0; 32]),
        namespaces: namespaces?,
        mode: mode?,
        signers: signers.into_iter().map(|(name, signer)| Some((name, signer?))).collect::<Option<_>>()?,
        rules: rules?,
        break_glass: break_glass?,
    };
    match manifest::policy_hash(&policy) {
        Ok(hash) => policy.hash = hash,
        Err(error) => {
            faults.error(doc.spec.at, Fault::Shape(format!("has no canonical form: {error}")));
            return None;
        }
    }
    Some((policy, places))
}

fn namespaces(namespaces: &At<written::Namespaces>, faults: &Faults) -> Option<NamespaceSelector> {
    let written::Namespaces { names, otherwise, labels } = namespaces.value.as_ref()?;
    match (names, otherwise) {
        (Some(names), None) => {
            let patterns = list(names, "names", "name the namespaces, or write `otherwise: true`", faults)?;
            let patterns = each::<NamespacePattern>(patterns, "namespace", faults, Fault::from)?;
            Some(NamespaceSelector::Names(patterns.into_iter().map(|(pattern, _)| pattern).collect()))
        }
        (None, Some(otherwise)) => match otherwise.value {
            Some(true) => Some(NamespaceSelector::Otherwise),
            Some(false) => {
                faults.error(otherwise.at, Fault::OtherwiseFalse);
                None
            }
            None => None,
        },
        (Some(_), Some(_)) => {
            faults.error(namespaces.at, Fault::NamespacesOneOf);
            None
        }
        (None, None) => {
            // With `labels` alone there is one fault already, and it says what to write.
            if labels.is_none() {
                faults.error(namespaces.at, Fault::NamespacesOneOf);
            }
            None
        }
    }
}

fn rules(
    spec: &written::ReleasePolicySpec,
    signers: &BTreeMap<SignerName, Option<Signer>>,
    places: &mut PolicyPlaces,
    faults: &Faults,
) -> Option<Vec<Rule>> {
    let listed = list(&spec.rules, "rules", "without a rule no image can pass", faults)?;
    let mut names: BTreeMap<RuleName, Position> = BTreeMap::new();
    let mut used: BTreeSet<SignerName> = BTreeSet::new();
    let mut out = Some(Vec::new());
    for rule in listed {
        let compiled = rule.value.as_ref().and_then(|r| self::rule(r, signers, &mut used, places, faults));
        if let Some(name) = rule.value.as_ref().and_then(|r| r.name.value.as_deref()?.parse::<RuleName>().ok())
            && let Some(at) = rule.value.as_ref().map(|r| r.name.at)
        {
            repeated(&mut names, name, at, "rule", faults);
        }
        out = out.and_then(|mut all: Vec<(Rule, Position)>| {
            all.push((compiled?, rule.value.as_ref()?.name.at));
            Some(all)
        });
    }
    for (name, at) in &places.signers {
        if !used.contains(name) {
            faults.warn(*at, Fault::UnusedSigner(name.to_string()));
        }
    }
    let out = out?;
    disjoint_digests(&out, faults);
    Some(out.into_iter().map(|(rule, _)| rule).collect())
}

/// Warns of two rules that cover the same repositories and that no digest can satisfy together.
fn disjoint_digests(rules: &[(Rule, Position)], faults: &Faults) {
    for (index, (rule, at)) in rules.iter().enumerate() {
        for (other, _) in rules.iter().take(index) {
            let (Some(mine), Some(theirs)) = (&rule.digests, &other.digests) else { continue };
            if let Some(both) = rule.repositories.iter().find(|p| other.repositories.contains(p))
                && mine.is_disjoint(theirs)
            {
                let (rule, repository) = (other.name.to_string(), both.to_string());
                faults.warn(*at, Fault::DisjointDigests { rule, repository });
            }
        }
    }
}

fn rule(
    rule: &written::Rule,
    signers: &BTreeMap<SignerName, Option<Signer>>,
    used: &mut BTreeSet<SignerName>,
    places: &mut PolicyPlaces,
    faults: &Faults,
) -> Option<Rule> {
    let name = parsed::<RuleName>(&rule.name, faults, Fault::from);
    let shown_name = rule.name.value.as_deref().map(shown).unwrap_or_default();
    let repositories = list(&rule.repositories, "repositories", "name what the rule covers", faults)
        .and_then(|patterns| self::repositories(patterns, faults));
    let digests = match &rule.digests {
        None => Some(None),
        Some(digests) => list(digests, "digests", "list those that may run, or remove it", faults)
            .and_then(|digests| self::digests(digests, places, faults))
            .map(Some),
    };
    let annotations = rule.annotations.as_ref().map_or_else(|| Some(BTreeMap::new()), |a| annotations(a, faults));
    let signed_from = match &rule.signed_from {
        None => Some(Vec::new()),
        Some(patterns) => list(patterns, "signedFrom", "name the repositories, or remove it", faults)
            .and_then(|patterns| self::repositories(patterns, faults)),
    };
    let signatures = match &rule.signatures {
        None => {
            faults.error(rule.name.at, Fault::SignaturesMissing(shown_name));
            None
        }
        Some(signatures) => match &signatures.value {
            None => None,
            Some(written::Signatures::By(by)) => self::by(by, signers, used, faults).map(Some),
            Some(written::Signatures::NotRequired) => {
                not_required(rule, signatures.at, &shown_name, faults);
                Some(None)
            }
        },
    };
    let signatures = signatures?.map(|(by, at_least)| {
        Some(SignatureRule { by, at_least, annotations: annotations.clone()?, signed_from: signed_from.clone()? })
    });
    let signatures = match signatures {
        None => None,
        Some(rule) => Some(rule?),
    };
    Some(Rule { name: name?, repositories: repositories?, signatures, digests: digests? })
}

/// What a rule without signatures must have, and what it cannot have.
fn not_required(rule: &written::Rule, at: Position, name: &str, faults: &Faults) {
    if rule.digests.is_none() && rule.attestations.is_none() && rule.image_labels.is_none() {
        faults.error(at, Fault::ChecksNothing(name.to_owned()));
    }
    if let Some(annotations) = &rule.annotations {
        faults.error(annotations.at, Fault::NeedsSignatures("annotations"));
    }
    if let Some(signed_from) = &rule.signed_from {
        faults.error(signed_from.at, Fault::NeedsSignatures("signedFrom"));
    }
}

fn by(
    written: &written::SignedBy,
    signers: &BTreeMap<SignerName, Option<Signer>>,
    used: &mut BTreeSet<SignerName>,
    faults: &Faults,
) -> Option<(Vec<SignerName>, usize)> {
    let named = list(&written.by, "by", "name the signers", faults)?;
    let mut whole = true;
    let mut seen = BTreeMap::new();
    let mut by = Vec::new();
    for item in named {
        let Some(text) = &item.value else {
            whole = false;
            continue;
        };
        match text.parse::<SignerName>() {
            Ok(name) if signers.contains_key(&name) => {
                used.insert(name.clone());
                repeated(&mut seen, name.clone(), item.at, "signer", faults);
                by.push(name);
            }
            Ok(_) | Err(_) => {
                faults.error(item.at, Fault::UnknownSigner(shown(text)));
                whole = false;
            }
        }
    }
    let at_least = match &written.at_least {
        None => 1,
        Some(at_least) => {
            let asked = at_least.value?;
            if asked == 0 || asked > named.len() {
                faults.error(at_least.at, Fault::AtLeastRange { most: named.len() });
                return None;
            }
            let keys: Option<Vec<_>> = by.iter().map(|name| signers.get(name)?.as_ref()).collect();
            if let (true, Some(keys)) = (whole, keys) {
                let most = most_signers(&keys);
                if most < asked {
                    faults.error(at_least.at, Fault::AtLeastUnreachable { most, at_least: asked });
                }
            }
            asked
        }
    };
    whole.then_some((by, at_least))
}

fn repositories(patterns: &[At<String>], faults: &Faults) -> Option<Vec<RepositoryPattern>> {
    let parsed = each::<RepositoryPattern>(patterns, "repository", faults, Fault::from)?;
    let mut whole = true;
    for (pattern, at) in &parsed {
        // What is left without its wildcards, one character for each `**`.
        let shortest = pattern.to_string().replace("**", "x").replace('*', "").len();
        if shortest > MAX_REPOSITORY {
            faults.error(*at, Fault::PatternTooLong { shortest });
            whole = false;
        }
    }
    whole.then(|| parsed.into_iter().map(|(pattern, _)| pattern).collect())
}

fn digests(listed: &[At<String>], places: &mut PolicyPlaces, faults: &Faults) -> Option<BTreeSet<Digest>> {
    let mut whole = true;
    let mut out = BTreeSet::new();
    for item in listed {
        match parsed::<Digest>(item, faults, Fault::Digest) {
            None => whole = false,
            Some(digest) => {
                places.digests.push((digest, item.at));
                if !out.insert(digest) {
                    faults.warn(item.at, Fault::RepeatedDigest(digest.short()));
                }
            }
        }
    }
    whole.then_some(out)
}

fn annotations(annotations: &At<Named<String>>, faults: &Faults) -> Option<BTreeMap<String, String>> {
    let Named(fields) = annotations.value.as_ref()?;
    if fields.is_empty() {
        faults
            .error(annotations.at, Fault::Empty { key: "annotations", hint: "say what must be signed, or remove it" });
        return None;
    }
    let mut out = BTreeMap::new();
    for (key, value) in fields {
        let (Some(key_text), Some(value_text)) = (&key.value, &value.value) else { return None };
        if key_text.is_empty() || !is_line(key_text, MAX_TEXT) {
            faults.error(key.at, Fault::Text { key: "annotations", limit: MAX_TEXT });
            return None;
        }
        if value_text.chars().count() > MAX_TEXT {
            faults.error(value.at, Fault::Text { key: "annotations", limit: MAX_TEXT });
            return None;
        }
        out.insert(key_text.clone(), value_text.clone());
    }
    Some(out)
}

fn deny_list(doc: &written::DenyList, faults: &Faults) -> Option<DenyList> {
    let name = doc.metadata.value.as_ref().and_then(|m| parsed::<PolicyName>(&m.name, faults, Fault::from));
    let spec = doc.spec.value.as_ref()?;
    let mut digests = BTreeMap::new();
    let mut seen = BTreeMap::new();
    for entry in list(&spec.digests, "digests", "list what is withdrawn, or remove the file", faults)? {
        let Some(written::WithdrawnDigest { digest, reason, since }) = &entry.value else { continue };
        if let Some(since) = since {
            time(since, false, faults);
        }
        if let Some(text) = &reason.value
            && (text.trim().is_empty() || !is_line(text, MAX_TEXT))
        {
            faults.error(reason.at, Fault::Text { key: "reason", limit: MAX_TEXT });
        }
        let (Some(parsed), Some(reason)) = (parsed::<Digest>(digest, faults, Fault::Digest), &reason.value) else {
            continue;
        };
        repeated(&mut seen, parsed, digest.at, "digest", faults);
        let since = since.as_ref().and_then(|since| since.value.clone());
        digests.insert(parsed, Withdrawn { reason: reason.clone(), since });
    }
    let mut list = DenyList { name: name?, hash: Digest::from_bytes([0; 32]), digests };
    match manifest::deny_list_hash(&list) {
        Ok(hash) => list.hash = hash,
        Err(error) => {
            faults.error(doc.spec.at, Fault::Shape(format!("has no canonical form: {error}")));
            return None;
        }
    }
    Some(list)
}

pub(super) fn is_line(text: &str, limit: usize) -> bool {
    text.chars().count() <= limit && !text.chars().any(char::is_control)
}

/// The items of a list that must not be empty.
pub(super) fn list<'a, T>(
    items: &'a At<Vec<At<T>>>,
    key: &'static str,
    hint: &'static str,
    faults: &Faults,
) -> Option<&'a [At<T>]> {
    let found = items.value.as_deref()?;
    if found.is_empty() {
        faults.error(items.at, Fault::Empty { key, hint });
        return None;
    }
    Some(found)
}

/// Every item as `T`, none twice.
fn each<T: FromStr + Ord + Clone + Display>(
    items: &[At<String>],
    what: &'static str,
    faults: &Faults,
    fault: fn(T::Err) -> Fault,
) -> Option<Vec<(T, Position)>> {
    let mut seen = BTreeMap::new();
    let mut out = Vec::with_capacity(items.len());
    for item in items {
        if let Some(value) = parsed::<T>(item, faults, fault) {
            repeated(&mut seen, value.clone(), item.at, what, faults);
            out.push((value, item.at));
        }
    }
    (out.len() == items.len()).then_some(out)
}

pub(super) fn repeated<T: Ord + Display>(
    seen: &mut BTreeMap<T, Position>,
    value: T,
    at: Position,
    what: &'static str,
    faults: &Faults,
) {
    if let Some(first) = seen.get(&value) {
        faults.error(at, Fault::Duplicate { what, text: value.to_string(), first: *first });
    } else {
        seen.insert(value, at);
    }
}

pub(super) fn parsed<T: FromStr>(text: &At<String>, faults: &Faults, fault: fn(T::Err) -> Fault) -> Option<T> {
    text.value.as_ref()?.parse().map_err(|error| faults.error(text.at, fault(error))).ok()
}
