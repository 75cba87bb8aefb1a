//! What is wrong with a file, to the line, column and word; and what makes the content hash.

use std::path::Path;

use proptest::prelude::*;

use crate::decision::policy::{KeyScheme, Mode, NamespaceSelector, Policy};

use super::compile::Good;
use super::folder::{ParsedText, Snapshot, parse};
use super::keys::KeyFiles;
use super::manifest;

/// Keys that nobody holds the private half of.
pub(super) const KEY_A: &str = "-----BEGIN PUBLIC KEY-----\n\
    MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEoNTvVzKonl4uQodKSLAhZgWB644h\n\
    5q9bHUpldO9xxXCzoq5y3yc6nP+Cm60zawbtilEEa5ZQ+0c5sXuzD/Jsvw==\n\
    -----END PUBLIC KEY-----\n";
pub(super) const KEY_B: &str = include_str!("../../../policies/keys/release.pub");
pub(super) const KEY_C: &str = include_str!("../../../policies/keys/security-team.pub");
const DIGEST: &str = "sha256:9ae97d36d26566ff84e8893c64a6dc4fe8ca6d1144bf5b87b2b85a32def253c7";

/// A key as a flow scalar.
fn quoted(pem: &str) -> String {
    format!("{pem:?}")
}

/// A policy that is good as it stands: each row below changes one piece of it.
fn good() -> String {
    format!(
        "apiVersion: provost.dev/v1
kind: ReleasePolicy
metadata:
  name: payments
spec:
  namespaces:
    names: [payments, payments-*]
  mode: enforce
  signers:
    alice:
      keys:
        - pem: {a}
      transparencyLog: not-required
    bob:
      keys:
        - pem: {b}
          notBefore: 2026-01-01
          notAfter: 2027-06-30
      transparencyLog: not-required
  rules:
    - name: releases
      repositories: [r.example.com/release/**]
      signatures: {{by: [alice, bob], atLeast: 2}}
      annotations: {{env: prod}}
      signedFrom: [r.example.com/release/**]
    - name: vendor
      repositories: [docker.io/library/busybox]
      signatures: not-required
      digests: [{DIGEST}]
",
        a = quoted(KEY_A),
        b = quoted(KEY_B),
    )
}

fn read(text: &str) -> ParsedText {
    parse("f", text, &mut KeyFiles::none())
}

fn errors(text: &str) -> Vec<String> {
    read(text).errors.iter().map(ToString::to_string).collect()
}

fn policy(text: &str) -> std::sync::Arc<Policy> {
    let parsed = read(text);
    assert_eq!(parsed.errors, [], "{text}");
    match &parsed.documents[0].good {
        Some(Good::Policy(policy, _)) => std::sync::Arc::clone(policy),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_good_policy_is_read_whole() {
    let policy = policy(&good());
    assert_eq!(policy.name.as_str(), "payments");
    assert_eq!(policy.mode, Mode::Enforce);
    let NamespaceSelector::Names(names) = &policy.namespaces else { panic!("{:?}", policy.namespaces) };
    assert_eq!(names.iter().map(ToString::to_string).collect::<Vec<_>>(), ["payments", "payments-*"]);
    let bob = &policy.signers[&"bob".parse().expect("name")].keys()[0];
    assert_eq!(bob.scheme, KeyScheme::EcdsaP256);
    assert_eq!(bob.not_before.map(|t| t.to_string()).as_deref(), Some("2026-01-01T00:00:00Z"));
    assert_eq!(bob.not_after.map(|t| t.to_string()).as_deref(), Some("2027-06-30T23:59:59.999999999Z"));
    let signatures = policy.rules[0].signatures.as_ref().expect("signatures");
    assert_eq!((signatures.by.len(), signatures.at_least), (2, 2));
    assert_eq!(signatures.annotations.get("env").map(String::as_str), Some("prod"));
    assert_eq!(signatures.signed_from.len(), 1);
    assert_eq!(policy.rules[1].signatures, None);
    assert_eq!(policy.rules[1].digests.as_ref().map(std::collections::BTreeSet::len), Some(1));
}

/// What is changed, into what, and the place and the words of the first fault that follows.
const BROKEN: &[(&str, &str, &str)] = &[
    // shape
    ("provost.dev/v1", "provost.dev/v2", "f:1:13: expected `provost.dev/v1`, found the text `provost.dev/v2`"),
    (
        "kind: ReleasePolicy",
        "kind: RelasePolicy",
        "f:2:7: expected `ReleasePolicy` or `DenyList`, found the text `RelasePolicy`",
    ),
    ("kind: ReleasePolicy\n", "", "f:1:1: `kind` is missing"),
    ("apiVersion: provost.dev/v1\n", "", "f:1:1: `apiVersion` is missing"),
    ("  mode: enforce", "  mod: enforce", "f:8:3: unknown key `mod`: did you mean `mode`?"),
    (
        "  mode: enforce",
        "  frobnicate: 1",
        "f:8:3: unknown key `frobnicate`: here can stand `namespaces`, `mode`, `signers`, `rules`",
    ),
    ("mode: enforce", "mode: dryrun", "f:8:9: expected `enforce`, `warn` or `audit`, found the text `dryrun`"),
    ("mode: enforce", "mode:", "f:8:7: expected `enforce`, `warn` or `audit`, found nothing"),
    ("mode: enforce", "mode: [enforce]", "f:8:9: expected `enforce`, `warn` or `audit`, found a list"),
    (
        "mode: enforce",
        "mode: enforce\n  mode: audit",
        "f:9:3: key `mode` is already written at 8:3: remove one of them",
    ),
    ("  name: payments", "  name: payments\n  namespace: x", "f:5:3: unknown key `namespace`: here can stand `name`"),
    ("  name: payments", "  name: Payments", "f:4:9: policy name \"Payments\" is not valid"),
    ("  name: payments", "  name: 12", "f:4:9: expected text, found the number `12`: put it in quotes"),
    // namespaces
    ("names: [payments, payments-*]", "{}", "f:7:5: say which namespaces: either"),
    ("names: [payments, payments-*]", "names: []", "f:7:12: `names` is empty: name the namespaces"),
    ("names: [payments, payments-*]", "names: [payments, PAY]", "f:7:23: \"PAY\" can never match a namespace"),
    (
        "names: [payments, payments-*]",
        "names: [payments, payments]",
        "f:7:23: namespace `payments` is already given at 7:13",
    ),
    ("names: [payments, payments-*]", "names: [payments]\n    otherwise: true", "f:7:5: say which namespaces: either"),
    ("names: [payments, payments-*]", "otherwise: false", "f:7:16: `otherwise` can only be `true`"),
    (
        "names: [payments, payments-*]",
        "otherwise: yes please",
        "f:7:16: expected `true` or `false`, found the text `yes please`",
    ),
    // signers
    ("    alice:\n", "    Alice:\n", "f:10:5: signer name \"Alice\" is not valid"),
    (
        "not-required\n    bob",
        "required\n    bob",
        "f:13:24: the signatures of `alice` would be looked up in the transparency log",
    ),
    (
        "      transparencyLog: not-required\n    bob",
        "    bob",
        "f:10:5: the signatures of `alice` would be looked up in the transparency log",
    ),
    ("not-required\n    bob", "\n    bob", "f:13:22: expected `not-required`, found nothing"),
    ("not-required\n    bob", "off\n    bob", "f:13:24: expected `not-required`, found "),
    (
        "- pem: \"-----BEGIN PUBLIC KEY-----\\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEo",
        "- pem: \"-----BEGIN PUBLIC KEY-----\\nnot base64 ",
        "f:12:16: the `PUBLIC KEY` block is damaged",
    ),
    ("2027-06-30", "2025-06-30", "f:18:21: `notAfter` is not later than `notBefore`"),
    ("2027-06-30", "soon", "f:18:21: `soon` is neither a date"),
    ("2027-06-30", "2027-02-30", "f:18:21: `2027-02-30` is neither a date"),
    ("          notBefore: 2026-01-01", "          scheme: rsa-pss", "f:17:19: `scheme: rsa-pss` is for RSA keys"),
    (
        "          notBefore: 2026-01-01",
        "          scheme: ed25519",
        "f:17:19: expected `rsa-pss`, found the text `ed25519`",
    ),
    ("          notBefore: 2026-01-01", "          file: k.pub", "f:16:11: a key is given by either `file` or `pem`"),
    // rules
    ("- name: releases", "- nam: releases", "f:21:7: unknown key `nam`: did you mean `name`?"),
    ("- name: vendor", "- name: releases", "f:26:13: rule `releases` is already given at 21:13"),
    ("- name: vendor", "- name: Vendor", "f:26:13: rule name \"Vendor\" is not valid"),
    ("repositories: [docker.io/library/busybox]", "repositories: []", "f:27:21: `repositories` is empty"),
    (
        "repositories: [docker.io/library/busybox]",
        "repositories: docker.io/library/busybox",
        "f:27:21: expected a list, found the text",
    ),
    (
        "repositories: [docker.io/library/busybox]",
        "repositories: [\"*.io/library/busybox\"]",
        "f:27:22: a repository pattern begins with a registry host without a wildcard",
    ),
    (
        "repositories: [docker.io/library/busybox]",
        "repositories: [docker.io/Library/x]",
        "f:27:22: \"Library\" can never match",
    ),
    (
        "repositories: [docker.io/library/busybox]",
        "repositories: [docker.io/library/x:1]",
        "f:27:22: a repository pattern has no tag",
    ),
    (
        "repositories: [docker.io/library/busybox]",
        "repositories: [docker.io/busybox, docker.io/library/busybox]",
        "f:27:41: repository `docker.io/library/busybox` is already given at 27:22",
    ),
    ("      signatures: not-required\n", "", "f:26:13: rule `vendor` does not say who must have signed"),
    ("signatures: not-required", "signatures:", "f:28:17: expected `not-required` or a mapping, found nothing"),
    (
        "signatures: not-required",
        "signatures: notrequired",
        "f:28:19: expected `not-required` or a mapping, found the text `notrequired`",
    ),
    (
        "signatures: not-required",
        "signatures: '{}'",
        "f:28:19: expected `not-required` or a mapping, found the text `{}`",
    ),
    ("signatures: not-required", "signatures: {}", "f:28:19: `by` is missing"),
    ("by: [alice, bob], atLeast: 2", "by: []", "f:23:24: `by` is empty: name the signers"),
    ("by: [alice, bob], atLeast: 2", "by: [alice, carol]", "f:23:32: `carol` is no signer of this policy"),
    ("by: [alice, bob], atLeast: 2", "by: [alice, bob, alice]", "f:23:37: signer `alice` is already given at 23:25"),
    ("atLeast: 2", "atLeast: 0", "f:23:47: `atLeast` must be 1 to 2"),
    ("atLeast: 2", "atLeast: 3", "f:23:47: `atLeast` must be 1 to 2"),
    ("atLeast: 2", "atLeast: -1", "f:23:47: expected a whole number, found the number `-1`"),
    ("atLeast: 2", "atLeast: 1.5", "f:23:47: expected a whole number, found the number `1.5`"),
    ("atLeast: 2", "atLeast: '2'", "f:23:47: expected a whole number, found the text `2`"),
    ("atLeast: 2", "atleast: 2", "f:23:38: unknown key `atleast`: did you mean `atLeast`?"),
    ("{env: prod}", "{}", "f:24:20: `annotations` is empty"),
    ("{env: prod}", "{env: true}", "f:24:26: expected text, found the boolean `true`: put it in quotes"),
    ("signedFrom: [r.example.com/release/**]", "signedFrom: []", "f:25:19: `signedFrom` is empty"),
    (
        "signedFrom: [r.example.com/release/**]",
        "signedFrom: [release]",
        "f:25:20: a repository pattern begins with a registry host",
    ),
    (
        "      signatures: not-required",
        "      signatures: not-required\n      annotations: {a: b}",
        "f:29:20: `annotations` is about signatures",
    ),
    (
        "      signatures: not-required",
        "      signatures: not-required\n      signedFrom: [r.example.com/a]",
        "f:29:19: `signedFrom` is about signatures",
    ),
    ("sha256:9ae", "sha256:9AE", "f:29:17: a digest is `sha256:` and 64 lower-case hex digits"),
    ("sha256:9ae", "sha512:9ae", "f:29:17: a digest is `sha256:` and 64 lower-case hex digits"),
    ("[sha256:9ae97d36d26566ff84e8893c64a6dc4fe8ca6d1144bf5b87b2b85a32def253c7]", "[]", "f:29:16: `digests` is empty"),
    // what this version cannot honour
    (
        "    names: [payments, payments-*]",
        "    names: [payments]\n    labels: {a: b}",
        "f:8:5: this version cannot honour `labels` yet: labels come with the cluster",
    ),
    (
        "    names: [payments, payments-*]",
        "    labels: {a: b}",
        "f:7:5: this version cannot honour `labels` yet: labels come with the cluster",
    ),
    (
        "    alice:\n",
        "    alice:\n      keyless: {issuer: x, subject: y}\n",
        "f:11:7: this version cannot honour `keyless` yet: ",
    ),
    (
        "    alice:\n",
        "    carol: {keyless: {issuer: x, subject: y}}\n    alice:\n",
        "f:10:13: this version cannot honour `keyless` yet: ",
    ),
    (
        "    alice:\n",
        "    alice:\n      certificate: {uri: x}\n",
        "f:11:7: this version cannot honour `certificate` yet: ",
    ),
    (
        "        - pem: \"",
        "        - secret: {name: x}\n        - pem: \"",
        "f:12:11: this version cannot honour `secret` yet: ",
    ),
    (
        "    - name: vendor",
        "    - name: vendor\n      attestations: []",
        "f:27:7: this version cannot honour `attestations` yet: ",
    ),
    ("    - name: vendor", "    - name: vendor\n      where: a", "f:27:7: this version cannot honour `where` yet: "),
    (
        "    - name: vendor",
        "    - name: vendor\n      platforms: each",
        "f:27:7: this version cannot honour `platforms` yet: ",
    ),
    (
        "    - name: vendor",
        "    - name: vendor\n      imageLabels: {required: [a]}",
        "f:27:7: this version cannot honour `imageLabels` yet: ",
    ),
    ("    - name: vendor", "    - name: vendor\n      maxAge: 1h", "f:27:7: this version cannot honour `maxAge` yet: "),
    ("atLeast: 2", "atLeast: 2, platforms: each", "f:23:50: this version cannot honour `platforms` yet: "),
];

#[test]
fn x_029_x_063_x_080_x_085_each_fault_has_its_place_and_its_words() {
    let mut wrong = Vec::new();
    for (from, to, want) in BROKEN {
        let text = good();
        assert!(text.contains(from), "{from:?} is not in the good policy");
        let parsed = read(&text.replacen(from, to, 1));
        let errors: Vec<String> = parsed.errors.iter().map(ToString::to_string).collect();
        // What follows from the first fault may be said too: a signer whose name is none cannot be named in `by`.
        if errors.len() > 2 || !errors.first().is_some_and(|error| error.starts_with(want)) {
            wrong.push(format!("{from:?} -> {to:?}\n  want {want}\n  have {errors:?}"));
        }
        assert!(parsed.documents.iter().all(|document| document.good.is_none()), "{to:?} was taken");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The same, with something that may be overridden.
fn overridable() -> String {
    good()
        + "  breakGlass:
    request:
      users: [alice@acme.com]
      groups: [oncall]
      waivable: [repository, signatures]
      ticketPattern: INC-*
"
}

#[test]
fn bg_01_who_may_override_what() {
    assert_eq!(policy(&good()).break_glass, None);
    let policy = policy(&overridable());
    let request = &policy.break_glass.as_ref().expect("breakGlass").request;
    assert!(request.lists("alice@acme.com", &[]) && request.lists("bob", &["oncall".to_owned()]));
    assert!(!request.lists("oncall", &["alice@acme.com".to_owned()]) && !request.lists("Alice@acme.com", &[]));
    assert_eq!(request.waivable.iter().map(|kind| kind.as_str()).collect::<Vec<_>>(), ["repository", "signatures"]);
    for (ticket, want) in [("INC-42", true), ("INC-", false), ("inc-42", false), ("XINC-42", false), ("", false)] {
        assert_eq!(request.ticket_pattern.matches(ticket), want, "{ticket}");
    }
    for (from, to, want) in [
        (
            "    request:\n",
            "    grants: {atLeast: 2}\n    request:\n",
            "f:31:5: this version cannot honour `grants` yet: ",
        ),
        ("      users: [alice@acme.com]\n      groups: [oncall]\n", "", "f:32:7: nobody may ask"),
        ("[alice@acme.com]", "[]", "f:32:14: `users` is empty: list who may ask"),
        (
            "[alice@acme.com]",
            "[alice@acme.com, alice@acme.com]",
            "f:32:31: user `alice@acme.com` is already given at 32:15",
        ),
        ("[alice@acme.com]", "['alice ']", "f:32:15: `users` must be 1 to 256 characters of text on one line"),
        ("[alice@acme.com]", "['*']", "f:32:15: `*` cannot be listed"),
        ("[alice@acme.com]", "['system:serviceaccount:a:b']", "f:32:15: `system:serviceaccount:a:b` cannot be listed"),
        ("[alice@acme.com]", "['system:node:n1']", "f:32:15: `system:node:n1` cannot be listed"),
        ("[alice@acme.com]", "['system:kube-scheduler']", "f:32:15: `system:kube-scheduler` cannot be listed"),
        ("[oncall]", "['system:authenticated']", "f:33:16: `system:authenticated` cannot be listed"),
        ("[oncall]", "['system:serviceaccounts:a']", "f:33:16: `system:serviceaccounts:a` cannot be listed"),
        ("[oncall]", "['system:nodes']", "f:33:16: `system:nodes` cannot be listed"),
        ("[repository, signatures]", "[]", "f:34:17: `waivable` is empty"),
        (
            "[repository, signatures]",
            "[signatures, signatures]",
            "f:34:30: word `signatures` is already given at 34:18",
        ),
        (
            "[repository, signatures]",
            "[repository, attestations]",
            "f:34:30: this version cannot honour `attestations` yet",
        ),
        (
            "[repository, signatures]",
            "[pinning]",
            "f:34:18: expected `repository` or `signatures`, found the text `pinning`",
        ),
        ("      waivable: [repository, signatures]\n", "", "f:32:7: `waivable` is missing"),
        ("      ticketPattern: INC-*\n", "", "f:32:7: `ticketPattern` is missing"),
        ("INC-*", "'*'", "f:35:22: \"*\" is no ticket pattern"),
        ("INC-*", "'INC *'", "f:35:22: \"INC *\" is no ticket pattern"),
        ("INC-*", "INC-*\n      rbac: true", "f:36:13: this version cannot honour `rbac` yet"),
        ("INC-*", "INC-*\n      ticket: a", "f:36:7: unknown key `ticket`"),
    ] {
        assert!(overridable().contains(from), "{from:?}");
        let parsed = read(&overridable().replacen(from, to, 1));
        let errors: Vec<String> = parsed.errors.iter().map(ToString::to_string).collect();
        assert!(errors.len() == 1 && errors[0].starts_with(want), "{to:?}\n  want {want}\n  have {errors:?}");
        assert!(parsed.documents.iter().all(|document| document.good.is_none()), "{to:?} was taken");
    }
    let empty = good() + "  breakGlass: {}\n";
    assert_eq!(errors(&empty), ["f:30:15: `request` is missing"]);
    let soft = read(&overridable().replacen("mode: enforce", "mode: audit", 1));
    assert_eq!(soft.errors, []);
    let warnings: Vec<String> = soft.warnings.iter().map(ToString::to_string).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("`breakGlass` has no effect"), "{warnings:?}");
}

#[test]
fn bg_01_the_hash_holds_who_may_override_what() {
    let hash = |text: &str| policy(text).hash;
    let before = hash(&overridable());
    for (what, text) in [
        ("the order of words", overridable().replace("[repository, signatures]", "[signatures, repository]")),
        ("what is so anyway", overridable() + "      rbac: false\n"),
        ("JSON", manifest::of_policy(&policy(&overridable())).to_string()),
    ] {
        assert_eq!(hash(&text), before, "{what} changed the hash");
    }
    let mut seen = std::collections::BTreeSet::from([before, hash(&good())]);
    assert_eq!(seen.len(), 2);
    for (from, to) in [
        ("[alice@acme.com]", "[bob@acme.com]"),
        ("[alice@acme.com]", "[alice@acme.com, bob@acme.com]"),
        ("      users: [alice@acme.com]\n", ""),
        ("      groups: [oncall]\n", ""),
        ("[oncall]", "[admins]"),
        ("[repository, signatures]", "[signatures]"),
        ("[repository, signatures]", "[repository]"),
        ("INC-*", "SEC-*"),
    ] {
        assert!(
            seen.insert(hash(&overridable().replacen(from, to, 1))),
            "{from:?} -> {to:?} has a hash of another one"
        );
    }
}

#[test]
fn x_080_rules_that_check_nothing() {
    let text = good().replacen(&format!("      digests: [{DIGEST}]\n"), "", 1);
    assert_eq!(
        errors(&text),
        ["f:28:19: rule `vendor` checks nothing: without signatures it needs `digests`, each looked at by somebody"]
    );
    let rules = good().find("  rules:\n").expect("rules");
    assert_eq!(
        errors(&format!("{}  rules: []\n", &good()[..rules])),
        ["f:20:10: `rules` is empty: without a rule no image can pass"]
    );
    assert_eq!(errors(&good()[..rules]), ["f:6:3: `rules` is missing"]);
}

#[test]
fn one_key_cannot_be_two_signers() {
    let shared = good().replacen(&quoted(KEY_B), &quoted(KEY_A), 1);
    assert_eq!(
        errors(&shared),
        [
            "f:23:47: never satisfied: one key counts for one signer only, and the keys of `by` make at most 1 signers, not 2"
        ]
    );
    let one = shared.replacen("atLeast: 2", "atLeast: 1", 1);
    let parsed = read(&one);
    assert_eq!(parsed.errors, []);
    assert_eq!(parsed.warnings.len(), 1, "{:?}", parsed.warnings);
    assert!(parsed.warnings[0].to_string().starts_with("f:14:5: this key (sha256:"), "{}", parsed.warnings[0]);
    // A second key of its own makes the second signer.
    let two = shared.replacen(
        "    bob:\n      keys:\n",
        &format!("    bob:\n      keys:\n        - pem: {}\n", quoted(KEY_C)),
        1,
    );
    assert_eq!(errors(&two), [""; 0]);
}

#[test]
fn all_faults_of_a_file_come_at_once_in_their_order() {
    let text = good()
        .replacen("mode: enforce", "mode: dryrun", 1)
        .replacen("alice, bob]", "alice, carol]", 1)
        .replacen("{env: prod}", "{}", 1)
        .replacen("- name: vendor", "- name: releases", 1)
        + "---\nkind: DenyList\n---\n[1, 2]\n";
    let places: Vec<(u64, u64)> = read(&text).errors.iter().map(|e| (e.line, e.column)).collect();
    assert_eq!(places, [(8, 9), (23, 32), (24, 20), (26, 13), (31, 1), (33, 1)]);
}

#[test]
fn unwise_but_legal() {
    let other = "sha256:69073fa47e254a192bb17c187b96f12020c97b7e2265e55f93f9e4203865813e";
    for (from, to, want) in [
        (
            "by: [alice, bob], atLeast: 2".to_owned(),
            "by: [alice]".to_owned(),
            "f:14:5: signer `bob` is used by no rule",
        ),
        (format!("[{DIGEST}]"), format!("[{DIGEST}, {DIGEST}]"), "f:29:90: digest sha256:9ae97d36d265 is listed twice"),
        (
            "    - name: vendor".to_owned(),
            format!(
                "    - name: also\n      repositories: [docker.io/busybox]\n      signatures: not-required\n      digests: [{other}]\n    - name: vendor"
            ),
            "f:30:13: rule `also` covers `docker.io/library/busybox` too",
        ),
    ] {
        let parsed = read(&good().replacen(&from, &to, 1));
        assert_eq!(parsed.errors, [], "{to}");
        let warnings: Vec<String> = parsed.warnings.iter().map(ToString::to_string).collect();
        assert!(warnings.len() == 1 && warnings[0].starts_with(want), "{warnings:?}");
    }
    assert_eq!(read(&good()).warnings, []);
}

#[test]
fn deny_lists() {
    let good = format!(
        "apiVersion: provost.dev/v1\nkind: DenyList\nmetadata: {{name: withdrawn}}\nspec:\n  digests:\n    - {{digest: '{DIGEST}', reason: 'CVE, use 1.4.2', since: 2026-11-02}}\n"
    );
    assert_eq!(errors(&good), [""; 0]);
    for (from, to, want) in [
        (DIGEST, "sha256:00", "f:6:16: a digest is `sha256:`"),
        ("'CVE, use 1.4.2'", "''", "f:6:99: `reason` must be 1 to 500 characters of text on one line"),
        ("'CVE, use 1.4.2'", "\"a\\nb\"", "f:6:99: `reason` must be 1 to 500 characters of text on one line"),
        (", reason: 'CVE, use 1.4.2'", "", "f:6:7: `reason` is missing"),
        ("2026-11-02", "lately", "f:6:124: `lately` is neither a date"),
        (", since", ", sinse", "f:6:117: unknown key `sinse`: did you mean `since`?"),
        ("  digests:\n", "  digest:\n", "f:5:3: unknown key `digest`: did you mean `digests`?"),
    ] {
        let errors = errors(&good.replacen(from, to, 1));
        assert!(errors.first().is_some_and(|e| e.starts_with(want)), "{to:?}: {errors:?}");
    }
    let twice = format!("{good}    - {{digest: '{DIGEST}', reason: other}}\n");
    assert_eq!(errors(&twice), [format!("f:7:16: digest `{DIGEST}` is already given at 6:16: remove one of them")]);
    let empty = format!("{}  digests: []\n", &good[..good.find("  digests").expect("digests")]);
    assert_eq!(errors(&empty), ["f:5:12: `digests` is empty: list what is withdrawn, or remove the file"]);
}

#[test]
fn the_hash_is_of_the_meaning() {
    let hash = |text: &str| policy(text).hash;
    let before = hash(&good());
    for (what, text) in [
        ("comments", good().replace("  mode: enforce\n", "  # strict\n  mode: enforce # really\n")),
        ("the default mode", good().replace("  mode: enforce\n", "")),
        ("the order of names", good().replace("[payments, payments-*]", "[payments-*, payments]")),
        ("the order of signers", good().replace("by: [alice, bob]", "by: [bob, alice]")),
        (
            "the order of keys",
            good().replace("signatures: {by: [alice, bob], atLeast: 2}", "signatures: {atLeast: 2, by: [alice, bob]}"),
        ),
        ("the name of a repository", good().replace("docker.io/library/busybox", "index.docker.io/busybox")),
        ("quotes", good().replace("name: releases", "name: 'releases'")),
        ("metadata for other tools", good().replace("  name: payments\n", "  name: payments\n  labels: {team: a}\n")),
        ("the form of a time", good().replace("2026-01-01", "2026-01-01T01:00:00+01:00")),
        ("JSON", {
            let manifest = manifest::of_policy(&policy(&good()));
            serde_json::to_string_pretty(&manifest).expect("json")
        }),
    ] {
        assert_eq!(hash(&text), before, "{what} changed the hash");
    }
    let mut seen = std::collections::BTreeSet::from([before]);
    for (from, to) in [
        ("payments, payments-*", "payments"),
        ("mode: enforce", "mode: warn"),
        ("mode: enforce", "mode: audit"),
        ("names: [payments, payments-*]", "otherwise: true"),
        ("2027-06-30", "2027-06-29"),
        ("2026-01-01", "2026-01-02"),
        ("          notAfter: 2027-06-30\n", ""),
        ("[alice, bob], atLeast: 2", "[alice, bob], atLeast: 1"),
        ("[alice, bob], atLeast: 2", "[alice], atLeast: 1"),
        ("name: releases", "name: release"),
        ("[r.example.com/release/**]\n      signatures", "[r.example.com/release/*]\n      signatures"),
        ("env: prod", "env: test"),
        ("env: prod", "enV: prod"),
        ("      annotations: {env: prod}\n", ""),
        ("signedFrom: [r.example.com/release/**]", "signedFrom: [r.example.com/release/*]"),
        ("      signedFrom: [r.example.com/release/**]\n", ""),
        ("253c7]", "253c8]"),
        (&quoted(KEY_B), &quoted(KEY_C)),
    ] {
        assert!(good().contains(from), "{from:?}");
        assert!(seen.insert(hash(&good().replacen(from, to, 1))), "{from:?} -> {to:?} has a hash of another one");
    }
}

#[test]
fn a_key_in_a_file_and_in_the_policy_are_one_meaning() {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("a.pub"), KEY_A).expect("key");
    let text = good().replacen(&format!("pem: {}", quoted(KEY_A)), "file: a.pub", 1);
    std::fs::write(folder.path().join("p.yaml"), &text).expect("policy");
    let contents = Snapshot::of_folder(folder.path()).contents();
    assert_eq!(contents.problems, []);
    let Some(Good::Policy(from_file, _)) = &contents.documents[0].1.good else { panic!("{contents:?}") };
    assert_eq!(from_file.hash, policy(&good()).hash);
}

#[test]
fn key_files_stay_in_the_folder_of_their_policy() {
    let root = tempfile::tempdir().expect("folder");
    let folder = root.path().join("policies");
    std::fs::create_dir_all(folder.join("keys")).expect("folder");
    std::fs::write(root.path().join("outside.pub"), KEY_A).expect("key");
    std::fs::write(folder.join("keys/a.pub"), KEY_A).expect("key");
    std::fs::write(folder.join("keys/big.pub"), "x".repeat(70_000)).expect("key");
    std::fs::write(folder.join("keys/binary.pub"), [0xff, 0xfe]).expect("key");
    for (link, to) in [("out.pub", "../outside.pub"), ("in.pub", "keys/a.pub"), ("up", ".."), ("loop.pub", "loop.pub")]
    {
        std::os::unix::fs::symlink(to, folder.join(link)).expect("link");
    }
    let absolute = folder.join("keys/a.pub").display().to_string();
    for (file, want) in [
        ("keys/a.pub", ""),
        ("./keys/a.pub", ""),
        ("in.pub", ""),
        ("out.pub", "is outside the folder"),
        ("up/outside.pub", "is outside the folder"),
        ("../outside.pub", "is outside the folder"),
        ("keys/../keys/a.pub", "is outside the folder"),
        (absolute.as_str(), "is outside the folder"),
        ("''", "is outside the folder"),
        ("nowhere.pub", "cannot be read: it is not there"),
        ("keys", "cannot be read: it is not a regular file"),
        ("keys/big.pub", "cannot be read: it is larger than 64 KiB"),
        ("keys/binary.pub", "cannot be read: it is not text"),
        ("loop.pub", "cannot be read: "),
    ] {
        let text = good().replacen(&format!("pem: {}", quoted(KEY_A)), &format!("file: {file}"), 1);
        std::fs::write(folder.join("p.yaml"), &text).expect("policy");
        let problems = Snapshot::of_folder(&folder).contents().problems;
        if want.is_empty() {
            assert_eq!(problems, [], "{file}");
        } else {
            assert!(problems.len() == 1 && problems[0].to_string().contains(want), "{file}: {problems:?}");
            assert_eq!((problems[0].line, problems[0].column), (12, 17), "{file}");
        }
    }
}

#[test]
fn a_private_key_is_named_as_what_it_is_and_never_repeated() {
    let private = "\"-----BEGIN PRIVATE KEY-----\\nc2VjcmV0\\n-----END PRIVATE KEY-----\\n\"";
    for (from, to, want) in [
        (quoted(KEY_A), private.to_owned(), "f:12:16: this is a PRIVATE key"),
        (format!("pem: {}", quoted(KEY_A)), format!("file: {private}"), "f:12:17: key file `(PEM)` is outside"),
        ("2027-06-30".to_owned(), private.to_owned(), "f:18:21: `(PEM)` is neither a date"),
        (
            "enforce".to_owned(),
            private.to_owned(),
            "f:8:9: expected `enforce`, `warn` or `audit`, found the text `(PEM)`",
        ),
    ] {
        let errors = errors(&good().replacen(&from, &to, 1));
        assert!(errors.len() == 1 && errors[0].starts_with(want) && !errors[0].contains("c2VjcmV0"), "{errors:?}");
    }
}

#[test]
fn what_is_written_again_is_read_again_as_the_same() {
    for text in [
        good(),
        good().replace("names: [payments, payments-*]", "otherwise: true"),
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/vendor-tools.yaml"))
            .expect("example"),
    ] {
        let before = policy(&text);
        let again = policy(&manifest::of_policy(&before).to_string());
        assert_eq!(again.hash, before.hash);
        assert_eq!((&again.signers, &again.mode), (&before.signers, &before.mode));
    }
}

#[test]
fn files_without_a_document_are_no_way_to_remove_a_policy() {
    for text in ["", "\n", "# nothing\n", "---\n", "---\n---\n", "null\n"] {
        let parsed = read(text);
        assert!(!parsed.readable, "{text:?}");
        assert_eq!(
            parsed.errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["f: holds no policy: write one, or remove the file"],
            "{text:?}"
        );
    }
    assert!(read(&format!("---\n{}---\n", good())).readable);
}

/// Where there is an error, either the file as a whole is held back, or a document is.
fn is_sound(parsed: &ParsedText) -> bool {
    parsed.errors.is_empty() || !parsed.readable || parsed.documents.iter().any(|document| document.good.is_none())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// No text whatever may end the process, and none that has a fault may come out as a policy.
    #[test]
    fn no_text_panics(text in "\\PC{0,200}|[-a-z:{}\\[\\]#&*!|>'\"%@` \n\t,?~0-9]{0,200}") {
        let parsed = read(&text);
        prop_assert!(is_sound(&parsed), "{:?}", parsed.errors);
    }

    /// Nor may a good policy that was cut, or in which bytes were overwritten.
    #[test]
    fn no_damage_panics(at in 0_usize..1400, with in "\\PC{0,3}|[\n\t:{}\\[\\]*&-]{0,3}", cut in 0_usize..6) {
        let good = good();
        let chars: Vec<char> = good.chars().collect();
        let at = at.min(chars.len());
        let text: String = chars[..at].iter().copied().chain(with.chars()).chain(chars[(at + cut).min(chars.len())..].iter().copied()).collect();
        let parsed = read(&text);
        prop_assert!(is_sound(&parsed), "{:?}", parsed.errors);
    }
}
