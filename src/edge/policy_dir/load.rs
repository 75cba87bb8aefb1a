//! From what lies in a folder to the set that serves, and what happens when a policy breaks: its last good version goes
//! on. It must never let a broken policy fall out of force.
//!
//! A policy is known by its kind and `metadata.name`, not by its file. For each:
//! 1. It is good: it replaces the old one. It is gone: it is gone.
//! 2. It is broken and has a last good version: that one goes on serving.
//! 3. It is broken and has none: its namespaces, where they can be read, are denied `policy-invalid`.
//! 4. Not even its namespaces can be read, or a file cannot: the whole set stays as it was. Where there was none,
//!    everything is denied `policy-invalid`.
//!
//! A broken deny-list without a last good version holds nothing back, except where there was no set before.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::decision::name::PolicyName;
use crate::decision::policy::{BrokenPolicy, DenyList, Policy, PolicySet};
use crate::decision::reference::Digest;

use super::compile::{Document, Good, PolicyPlaces};
use super::document::Kind;
use super::fault::{Fault, PolicyError, sort};
use super::folder::{Contents, Snapshot};

/// What is known from before: the last set that was taken over, and what serves.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The last set in which each policy is good, in its last good version, or denies its own namespaces. `None`: there
    /// never was one.
    good: Option<Arc<PolicySet>>,
    /// What serves.
    serving: Arc<PolicySet>,
    /// Of what serves, what is older than what is written.
    stale: BTreeSet<(Kind, PolicyName)>,
}

impl Known {
    /// A good set from before, for example from before a restart.
    #[must_use]
    pub fn from_good(set: PolicySet) -> Self {
        let set = Arc::new(set);
        Self { good: Some(Arc::clone(&set)), serving: set, stale: BTreeSet::new() }
    }

    /// The last good set, where there is one.
    #[must_use]
    pub fn good(&self) -> Option<&Arc<PolicySet>> {
        self.good.as_ref()
    }
}

/// What came of reading the folder.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What serves from now on.
    pub set: Arc<PolicySet>,
    /// Everything that is wrong, by file and position.
    pub problems: Vec<PolicyError>,
    /// What is legal and unwise, by file and position.
    pub warnings: Vec<PolicyError>,
    /// What differs from what served before, by kind and name.
    pub changes: Vec<Change>,
    /// What serves in its last good version, because what is written now is broken.
    pub stale: BTreeSet<(Kind, PolicyName)>,
    /// What to give to the next [`load`].
    pub known: Known,
}

/// One difference between what serves and what served before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Of what kind.
    pub kind: Kind,
    /// `metadata.name`; of a broken policy the file, where the name cannot be read.
    pub name: String,
    /// What happened.
    pub what: ChangeKind,
    /// The content hash of what served before; `None` where nothing did.
    pub before: Option<Digest>,
    /// The content hash of what serves now; `None` where nothing does.
    pub serves: Option<Digest>,
}

/// What happened to a policy or deny-list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It has another content.
    Changed,
    /// It is gone.
    Removed,
    /// What is written is broken now: the last good version goes on, where `serves` is given; else it denies.
    Broken,
}

impl std::fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
            Self::Broken => "broken",
        })
    }
}

/// Reads a folder of policies. Every fault ends in `problems`; the set is safe to serve whatever they are.
#[must_use]
pub fn load(dir: &Path, previous: &Known) -> Loaded {
    merge(Snapshot::of_folder(dir).contents(), previous)
}

/// What is written, against what is known.
pub(super) fn merge(contents: Contents, previous: &Known) -> Loaded {
    let Contents { documents, unreadable, mut problems, mut warnings, keys: _ } = contents;
    let documents = same_names(documents, &mut problems);
    let mut next = Next::of(&documents, previous.good.as_deref());
    for error in unreadable {
        next.block(error.file.clone(), error.to_string());
    }
    withdrawn_and_listed(&documents, &mut warnings);
    sort(&mut problems);
    sort(&mut warnings);

    let Next { mut set, stale, blocked } = next;
    let good = match (blocked.is_empty(), &previous.good) {
        (true, _) => Some(Arc::new(set.clone())),
        (false, Some(good)) => {
            // Point 4: the whole set stays as it was. What is known to be broken denies nevertheless: that only narrows.
            let broken = std::mem::take(&mut set.broken);
            set = good.as_ref().clone();
            set.broken.extend(broken.into_iter().filter(|b| !good.broken.contains(b)));
            Some(Arc::clone(good))
        }
        (false, None) => {
            set.broken.extend(blocked.iter().cloned().map(Arc::new));
            None
        }
    };
    let stale = match (blocked.is_empty(), &previous.good) {
        (false, Some(good)) => not_as_written(good, &documents),
        (true, _) | (false, None) => stale,
    };
    let set = if set == *previous.serving { Arc::clone(&previous.serving) } else { Arc::new(set) };
    let changes = changes(previous, &set, &stale);
    let known = Known { good, serving: Arc::clone(&set), stale: stale.clone() };
    Loaded { set, problems, warnings, changes, stale, known }
}

/// A name that stands twice is a fault of each of its documents but the first, and none of them is good.
fn same_names(documents: Vec<(String, Document)>, problems: &mut Vec<PolicyError>) -> Vec<(String, Document)> {
    let mut first: BTreeMap<(Kind, PolicyName), String> = BTreeMap::new();
    let mut twice: BTreeMap<(Kind, PolicyName), String> = BTreeMap::new();
    for (file, document) in &documents {
        let (Some(kind), Some(name)) = (document.kind, &document.name) else { continue };
        let key = (kind, name.clone());
        if let Some(first) = first.get(&key) {
            let fault = Fault::SameName { kind: kind.as_str(), name: name.to_string(), first: first.clone() };
            let error = PolicyError::at(file, document.name_at, fault);
            twice.entry(key).or_insert_with(|| error.to_string());
            problems.push(error);
        } else {
            first.insert(key, format!("{file}:{}", document.name_at));
        }
    }
    let mut documents = documents;
    for (_, document) in &mut documents {
        let (Some(kind), Some(name)) = (document.kind, &document.name) else { continue };
        if let Some(error) = twice.get(&(kind, name.clone())) {
            document.good = None;
            document.error.get_or_insert_with(|| error.clone());
        }
    }
    documents
}

/// A set under construction.
#[derive(Debug, Default)]
struct Next {
    set: PolicySet,
    stale: BTreeSet<(Kind, PolicyName)>,
    /// Why the whole set cannot be taken over; each denies everything.
    blocked: Vec<BrokenPolicy>,
}

impl Next {
    fn of(documents: &[(String, Document)], known: Option<&PolicySet>) -> Self {
        let mut next = Self::default();
        for (_, document) in documents {
            match &document.good {
                Some(Good::Policy(policy, _)) => {
                    next.set.policies.insert(policy.name.clone(), Arc::clone(policy));
                }
                Some(Good::DenyList(list)) => {
                    next.set.deny_lists.insert(list.name.clone(), Arc::clone(list));
                }
                None => {}
            }
        }
        for (file, document) in documents.iter().filter(|(_, document)| document.good.is_none()) {
            if !next.keeps(document, known) {
                next.broken(file, document, known.is_some());
            }
        }
        next
    }

    /// Point 2. A document whose kind cannot be read keeps whatever has its name.
    fn keeps(&mut self, document: &Document, known: Option<&PolicySet>) -> bool {
        let (Some(known), Some(name)) = (known, &document.name) else { return false };
        let mut kept = false;
        if document.kind != Some(Kind::DenyList)
            && let Some(policy) = known.policies.get(name)
        {
            kept = true;
            if !self.set.policies.contains_key(name) {
                self.set.policies.insert(name.clone(), Arc::clone(policy));
                self.stale.insert((Kind::ReleasePolicy, name.clone()));
            }
        }
        if document.kind != Some(Kind::ReleasePolicy)
            && let Some(list) = known.deny_lists.get(name)
        {
            kept = true;
            if !self.set.deny_lists.contains_key(name) {
                self.set.deny_lists.insert(name.clone(), Arc::clone(list));
                self.stale.insert((Kind::DenyList, name.clone()));
            }
        }
        kept
    }

    /// Points 3 and 4.
    fn broken(&mut self, file: &str, document: &Document, there_was_a_set: bool) {
        let name = document.name.as_ref().map_or_else(|| format!("{file}:{}", document.at), ToString::to_string);
        let error = document.error.clone().unwrap_or_else(|| "is broken".to_owned());
        match (document.kind, &document.namespaces) {
            (Some(Kind::DenyList), _) if there_was_a_set => {}
            (Some(Kind::DenyList), _) | (_, None) => self.block(name, error),
            (Some(Kind::ReleasePolicy) | None, Some(namespaces)) => {
                self.set.broken.push(Arc::new(BrokenPolicy { name, namespaces: Some(namespaces.clone()), error }));
            }
        }
    }

    fn block(&mut self, name: String, error: String) {
        self.blocked.push(BrokenPolicy { name, namespaces: None, error });
    }
}

/// What of a set is not written, word for word, in good documents.
fn not_as_written(set: &PolicySet, documents: &[(String, Document)]) -> BTreeSet<(Kind, PolicyName)> {
    let written: BTreeSet<(Kind, &PolicyName, Digest)> = documents
        .iter()
        .filter_map(|(_, document)| match document.good.as_ref()? {
            Good::Policy(policy, _) => Some((Kind::ReleasePolicy, &policy.name, policy.hash)),
            Good::DenyList(list) => Some((Kind::DenyList, &list.name, list.hash)),
        })
        .collect();
    hashes(set)
        .into_iter()
        .filter(|((kind, name), hash)| !written.contains(&(*kind, name, *hash)))
        .map(|(key, _)| key)
        .collect()
}

/// Warns of a digest that a rule lists although a deny-list withdraws it.
fn withdrawn_and_listed(documents: &[(String, Document)], warnings: &mut Vec<PolicyError>) {
    let lists: Vec<&Arc<DenyList>> = documents
        .iter()
        .filter_map(|(_, document)| match document.good.as_ref()? {
            Good::DenyList(list) => Some(list),
            Good::Policy(..) => None,
        })
        .collect();
    for (file, document) in documents {
        let Some(Good::Policy(_, PolicyPlaces { digests, .. })) = &document.good else { continue };
        for (digest, at) in digests {
            if let Some(list) = lists.iter().find(|list| list.digests.contains_key(digest)) {
                let fault = Fault::ListedAndWithdrawn { digest: digest.short(), list: list.name.to_string() };
                warnings.push(PolicyError::at(file, *at, fault));
            }
        }
    }
}

fn changes(previous: &Known, set: &PolicySet, stale: &BTreeSet<(Kind, PolicyName)>) -> Vec<Change> {
    let (before, now) = (hashes(&previous.serving), hashes(set));
    let change = |key: &(Kind, PolicyName), what| Change {
        kind: key.0,
        name: key.1.to_string(),
        what,
        before: before.get(key).copied(),
        serves: now.get(key).copied(),
    };
    let mut out = Vec::new();
    for (key, hash) in &now {
        match before.get(key) {
            None => out.push(change(key, ChangeKind::Added)),
            Some(old) if old != hash => out.push(change(key, ChangeKind::Changed)),
            Some(_) => {}
        }
    }
    out.extend(before.keys().filter(|key| !now.contains_key(key)).map(|key| change(key, ChangeKind::Removed)));
    out.extend(stale.difference(&previous.stale).map(|key| change(key, ChangeKind::Broken)));
    for broken in &set.broken {
        if !previous.serving.broken.iter().any(|b| b.name == broken.name && b.namespaces == broken.namespaces) {
            let name = broken.name.clone();
            let what = ChangeKind::Broken;
            out.push(Change { kind: Kind::ReleasePolicy, name, what, before: None, serves: None });
        }
    }
    out.sort_by(|a, b| (a.kind, &a.name, a.what).cmp(&(b.kind, &b.name, b.what)));
    out
}

fn hashes(set: &PolicySet) -> BTreeMap<(Kind, PolicyName), Digest> {
    let policies = set.policies.values().map(|p: &Arc<Policy>| ((Kind::ReleasePolicy, p.name.clone()), p.hash));
    let lists = set.deny_lists.values().map(|l: &Arc<DenyList>| ((Kind::DenyList, l.name.clone()), l.hash));
    policies.chain(lists).collect()
}
