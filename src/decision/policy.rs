//! Policies as the rules use them: validated, compiled, immutable. It must never hold one that checks nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::name::{Namespace, PolicyName, RuleName, SignerName};
use super::pattern::{NamespacePattern, RepositoryPattern, TicketPattern};
use super::reference::Digest;

/// One `ReleasePolicy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// `metadata.name`.
    pub name: PolicyName,
    /// SHA-256 of the canonical spec with the fingerprints of the keys that it names.
    pub hash: Digest,
    /// Which namespaces it governs.
    pub namespaces: NamespaceSelector,
    /// What its denials do.
    pub mode: Mode,
    /// Who may sign, by name.
    pub signers: BTreeMap<SignerName, Signer>,
    /// At least one; an image needs one that covers it and must satisfy every one that does.
    pub rules: Vec<Rule>,
    /// What of it may be overridden, and by whom; `None`: nothing (BG-01).
    pub break_glass: Option<BreakGlass>,
}

/// Name and content hash of a policy, as every verdict names it: `payments@sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PolicyStamp {
    /// `metadata.name`.
    pub name: PolicyName,
    /// The content hash.
    pub hash: Digest,
}

impl std::fmt::Display for PolicyStamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.name, self.hash)
    }
}

/// What the denials of a policy do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// They deny.
    Enforce,
    /// They are recorded and shown to the user as warnings.
    Warn,
    /// They are recorded.
    Audit,
}

/// Which namespaces a policy governs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamespaceSelector {
    /// Those that one of the patterns matches; at least one pattern.
    Names(Vec<NamespacePattern>),
    /// Every namespace that no enforcing policy matches by name (one for `*` alone does not count).
    Otherwise,
}

impl NamespaceSelector {
    fn names(&self, namespace: &Namespace) -> bool {
        match self {
            Self::Names(patterns) => patterns.iter().any(|p| p.matches(namespace)),
            Self::Otherwise => false,
        }
    }

    /// Like [`Self::names`], without the baseline pattern `*`.
    fn names_in_particular(&self, namespace: &Namespace) -> bool {
        match self {
            Self::Names(patterns) => patterns.iter().any(|p| !p.is_everything() && p.matches(namespace)),
            Self::Otherwise => false,
        }
    }
}

/// Somebody who signs: a person or a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signer {
    /// Whoever holds one of these keys. Several keys are one signer that rotates; never empty.
    Keys(Vec<PublicKey>),
}

impl Signer {
    /// The keys that count for this signer.
    #[must_use]
    pub fn keys(&self) -> &[PublicKey] {
        match self {
            Self::Keys(keys) => keys,
        }
    }
}

/// A public key that a policy trusts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey {
    /// DER `SubjectPublicKeyInfo` (RFC 5280, section 4.1.2.7).
    pub spki: Arc<[u8]>,
    /// SHA-256 of `spki`.
    pub fingerprint: Digest,
    /// How it signs.
    pub scheme: KeyScheme,
    /// Before this time its signatures do not count.
    pub not_before: Option<Timestamp>,
    /// After this time its signatures do not count.
    pub not_after: Option<Timestamp>,
}

impl PublicKey {
    /// Whether the key is within its window. A signature by a bare key carries no time of its own, so `now` decides.
    #[must_use]
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.not_before.is_none_or(|from| from <= now) && self.not_after.is_none_or(|until| now <= until)
    }
}

/// The kinds of key, with the way they sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyScheme {
    /// ECDSA on P-256 with SHA-256.
    EcdsaP256,
    /// ECDSA on P-384 with SHA-384 (legacy signatures: SHA-256 too).
    EcdsaP384,
    /// ECDSA on P-521 with SHA-512 (legacy signatures: SHA-256 too).
    EcdsaP521,
    /// Ed25519 (RFC 8032); legacy signatures use the pre-hashed variant.
    Ed25519,
    /// RSA, PKCS#1 v1.5 with SHA-256, 2048 to 8192 bits.
    RsaPkcs1,
    /// RSA-PSS with SHA-256, where the signer says so.
    RsaPss,
}

/// One rule: the repositories it covers and what their images must prove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name within the policy.
    pub name: RuleName,
    /// What it covers; at least one.
    pub repositories: Vec<RepositoryPattern>,
    /// What must be signed. `None` only where `digests` is given and `signatures: not-required` is written.
    pub signatures: Option<SignatureRule>,
    /// Exact digests, somebody having looked at each: only these pass. Never empty.
    pub digests: Option<BTreeSet<Digest>>,
}

impl Rule {
    /// Whether the rule covers a repository.
    #[must_use]
    pub fn covers(&self, repository: &super::reference::Repository) -> bool {
        self.repositories.iter().any(|p| p.matches(repository))
    }
}

/// Who must have signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureRule {
    /// Signers of the policy, none twice; never empty.
    pub by: Vec<SignerName>,
    /// How many of them: 1 to `by.len()`.
    pub at_least: usize,
    /// What the counting signature itself must say.
    pub annotations: BTreeMap<String, String>,
    /// The repository that the counting signature itself must name; empty: any.
    pub signed_from: Vec<RepositoryPattern>,
}

/// How denials of a policy may be overridden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakGlass {
    /// By one person, at once, for one review.
    pub request: OverrideRequests,
}

/// Who may override what by an annotated request. Somebody is listed, and something is waivable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverrideRequests {
    /// Kubernetes users, exact. Never one of [`is_machine`].
    pub users: BTreeSet<String>,
    /// Kubernetes groups, exact. Never one of [`is_machine_group`].
    pub groups: BTreeSet<String>,
    /// Which denials it may waive.
    pub waivable: BTreeSet<Waivable>,
    /// What the ticket looks like that must be named.
    pub ticket_pattern: TicketPattern,
}

impl OverrideRequests {
    /// Whether this person is listed, by name or by one of the groups.
    #[must_use]
    pub fn lists(&self, user: &str, groups: &[String]) -> bool {
        self.users.contains(user) || groups.iter().any(|group| self.groups.contains(group))
    }
}

/// The kinds of denials that can be waived. What each covers: [`super::break_glass::waivable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Waivable {
    /// The image is from another repository, or is not one of the listed digests.
    Repository,
    /// Its signatures are not what the rule wants, or could not be asked for.
    Signatures,
}

impl Waivable {
    /// The word in a policy.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Repository => "repository",
            Self::Signatures => "signatures",
        }
    }
}

/// Whether a Kubernetes user is no person: a service account, a node, a part of Kubernetes, nobody. None of them overrides.
#[must_use]
pub fn is_machine(user: &str) -> bool {
    user.is_empty()
        || ["system:anonymous", "system:apiserver"].contains(&user)
        || ["system:serviceaccount:", "system:node:", "system:kube-", "system:bootstrap:"]
            .iter()
            .any(|of| user.starts_with(of))
}

/// Whether a Kubernetes group holds service accounts, nodes or unauthenticated callers.
#[must_use]
pub fn is_machine_group(group: &str) -> bool {
    group.is_empty()
        || ["system:serviceaccounts", "system:nodes", "system:unauthenticated"].contains(&group)
        || group.starts_with("system:serviceaccounts:")
}

/// Digests that never run, whatever signs them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DenyList {
    /// `metadata.name`.
    pub name: PolicyName,
    /// SHA-256 of the canonical spec.
    pub hash: Digest,
    /// The withdrawn digests.
    pub digests: BTreeMap<Digest, Withdrawn>,
}

/// Why a digest was withdrawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawn {
    /// What to tell the user.
    pub reason: String,
    /// Since when, as written.
    pub since: Option<String>,
}

/// A policy that could not be read and of which there is no good version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenPolicy {
    /// `metadata.name`, or the source where not even that could be read.
    pub name: String,
    /// The namespaces that are denied `policy-invalid`; `None` where they cannot be read: then all are.
    pub namespaces: Option<NamespaceSelector>,
    /// What is wrong, for the policy's owner.
    pub error: String,
}

/// All policies that serve.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicySet {
    /// The good ones, by name.
    pub policies: BTreeMap<PolicyName, Arc<Policy>>,
    /// The deny-lists, by name.
    pub deny_lists: BTreeMap<PolicyName, Arc<DenyList>>,
    /// Those without a good version.
    pub broken: Vec<Arc<BrokenPolicy>>,
}

/// What governs one namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Governing {
    /// Every policy that must allow, by name.
    pub policies: Vec<Arc<Policy>>,
    /// Every deny-list.
    pub deny_lists: Vec<Arc<DenyList>>,
    /// Broken policies that would govern it.
    pub broken: Vec<Arc<BrokenPolicy>>,
}

impl PolicySet {
    /// Every policy that governs `namespace`. Neither the order of files nor that of rules matters.
    #[must_use]
    pub fn governing(&self, namespace: &Namespace) -> Governing {
        let claimed =
            self.policies.values().any(|p| p.mode == Mode::Enforce && p.namespaces.names_in_particular(namespace));
        let governs = |selector: &NamespaceSelector| match selector {
            NamespaceSelector::Names(_) => selector.names(namespace),
            NamespaceSelector::Otherwise => !claimed,
        };
        Governing {
            policies: self.policies.values().filter(|p| governs(&p.namespaces)).cloned().collect(),
            deny_lists: self.deny_lists.values().cloned().collect(),
            broken: self.broken.iter().filter(|b| b.namespaces.as_ref().is_none_or(governs)).cloned().collect(),
        }
    }
}

impl Governing {
    /// The deny-list entry that withdraws a digest.
    #[must_use]
    pub fn withdrawn(&self, digest: Digest) -> Option<(&DenyList, &Withdrawn)> {
        self.deny_lists.iter().find_map(|list| list.digests.get(&digest).map(|why| (list.as_ref(), why)))
    }

    /// Whether any of the policies enforces. Where none does, denials about images are softened.
    #[must_use]
    pub fn enforces(&self) -> bool {
        self.policies.iter().any(|p| p.mode == Mode::Enforce)
    }
}

impl Policy {
    /// Name and content hash.
    #[must_use]
    pub fn stamp(&self) -> PolicyStamp {
        PolicyStamp { name: self.name.clone(), hash: self.hash }
    }

    /// The rules that cover a repository.
    pub fn covering<'a>(&'a self, repository: &'a super::reference::Repository) -> impl Iterator<Item = &'a Rule> {
        self.rules.iter().filter(move |rule| rule.covers(repository))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, mode: Mode, namespaces: NamespaceSelector) -> Arc<Policy> {
        Arc::new(Policy {
            name: name.parse().expect("name"),
            hash: Digest::from_bytes([0; 32]),
            namespaces,
            mode,
            signers: BTreeMap::new(),
            rules: vec![],
            break_glass: None,
        })
    }

    fn names(patterns: &[&str]) -> NamespaceSelector {
        NamespaceSelector::Names(patterns.iter().map(|p| p.parse().expect("pattern")).collect())
    }

    #[test]
    fn x_082_x_083_x_134_who_governs_a_namespace() {
        let strict = policy("strict", Mode::Enforce, NamespaceSelector::Otherwise);
        let own = |mode| policy("own", mode, names(&["payments"]));
        let baseline = policy("baseline", Mode::Enforce, names(&["*"]));
        for (case, set, namespace, want) in [
            ("own policy", vec![own(Mode::Enforce)], "payments", vec!["own"]),
            ("another namespace", vec![own(Mode::Enforce)], "billing", vec![]),
            (
                "an enforcing policy takes the place of otherwise",
                vec![strict.clone(), own(Mode::Enforce)],
                "payments",
                vec!["own"],
            ),
            ("otherwise elsewhere", vec![strict.clone(), own(Mode::Enforce)], "billing", vec!["strict"]),
            (
                "warn does not switch otherwise off",
                vec![strict.clone(), own(Mode::Warn)],
                "payments",
                vec!["own", "strict"],
            ),
            ("audit does not either", vec![strict.clone(), own(Mode::Audit)], "payments", vec!["own", "strict"]),
            ("nor does a baseline", vec![strict.clone(), baseline.clone()], "payments", vec!["baseline", "strict"]),
            ("a baseline holds beside others", vec![baseline, own(Mode::Enforce)], "payments", vec!["baseline", "own"]),
        ] {
            let set =
                PolicySet { policies: set.into_iter().map(|p| (p.name.clone(), p)).collect(), ..PolicySet::default() };
            let governing = set.governing(&namespace.parse().expect("namespace"));
            assert_eq!(governing.policies.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), want, "{case}");
        }
    }

    #[test]
    fn a_broken_policy_denies_its_own_namespaces_or_all() {
        let broken = |namespaces| PolicySet {
            broken: vec![Arc::new(BrokenPolicy { name: "p".to_owned(), namespaces, error: String::new() })],
            ..PolicySet::default()
        };
        let governs =
            |set: &PolicySet, namespace: &str| set.governing(&namespace.parse().expect("namespace")).broken.len();
        assert_eq!(governs(&broken(Some(names(&["payments"]))), "payments"), 1);
        assert_eq!(governs(&broken(Some(names(&["payments"]))), "billing"), 0);
        assert_eq!(governs(&broken(None), "billing"), 1);
    }
}
