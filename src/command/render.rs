//! Verdicts as a person at a terminal wants to see them. It must never judge: it shows what is in a verdict and nothing else.
//!
//! Colour and its absence (`NO_COLOR`, a pipe) are `anstream`'s business: print these texts with its macros.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use crate::decision::code::Code;
use crate::decision::evidence::Identity;
use crate::decision::policy::Mode;
use crate::decision::printable::printable;
use crate::decision::review::ReviewedImage;
use crate::decision::verdict::{Denial, Ground, OverrideRequest, Permission, Proof, Verdict};

const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const SOFT: Style = AnsiColor::Yellow.on_default().bold();

/// What an image has to pass, in the order in which it is checked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Check {
    Name,
    Pinned,
    NotWithdrawn,
    Repository,
    Listed,
    Evidence,
}

/// The headline: `✗ DENY`, `✓ ADMIT`, …
#[must_use]
pub fn headline(verdict: &Verdict) -> String {
    let (style, text) = match verdict {
        Verdict::Admit(_) | Verdict::NoImages => (GOOD, "✓ ADMIT"),
        Verdict::Deny(_) => (BAD, "✗ DENY"),
        Verdict::Override(_) => (SOFT, "! OVERRIDE"),
        Verdict::WouldDeny(_) => (SOFT, "! WOULD DENY"),
    };
    format!("{style}{text}{style:#}")
}

/// A mark for what holds or does not.
#[must_use]
pub fn mark(holds: bool) -> String {
    if holds { format!("{GOOD}✓{GOOD:#}") } else { format!("{BAD}✗{BAD:#}") }
}

/// Each image of a verdict with every check, then what is wrong with the review as a whole.
#[must_use]
pub fn verdict(verdict: &Verdict, images: &[ReviewedImage]) -> String {
    verdict_with_places(verdict, images, |_| None)
}

/// The same, with a line below each image that says where it stands.
#[must_use]
pub fn verdict_with_places(
    verdict: &Verdict,
    images: &[ReviewedImage],
    place: impl Fn(usize) -> Option<String>,
) -> String {
    let mut out = String::new();
    // A denial keeps no proofs; where each of its reasons is about an image, all images were judged.
    let all_judged = !verdict.denials().is_empty() && verdict.denials().iter().all(|denial| denial.place().is_some());
    for (index, image) in images.iter().enumerate() {
        let denials: Vec<&Denial> = verdict.denials().iter().filter(|d| d.place() == Some(&image.place)).collect();
        let proofs: Vec<&Proof> = verdict.proofs().iter().filter(|p| *p.place() == image.place).collect();
        let _ = writeln!(out, "  image   {}", printable(&image.text));
        if let Some(place) = place(index) {
            let _ = writeln!(out, "          {}", printable(&place));
        }
        if all_judged && denials.is_empty() && proofs.is_empty() {
            let _ = writeln!(out, "          {} nothing against this image", mark(true));
        }
        one_image(&mut out, &denials, &proofs);
    }
    for denial in verdict.denials().iter().filter(|denial| denial.place().is_none()) {
        one_denial(&mut out, denial);
    }
    for permission in verdict.permissions() {
        one_permission(&mut out, permission);
    }
    if !verdict.policies().is_empty() {
        let stamps: Vec<String> =
            verdict.policies().iter().map(|stamp| format!("{}@{}", stamp.name, stamp.hash.short())).collect();
        let _ = writeln!(out, "  policy  {}", stamps.join(", "));
    }
    out
}

fn one_image(out: &mut String, denials: &[&Denial], proofs: &[&Proof]) {
    let failed = denials.iter().map(|denial| check_of(denial.code())).min();
    let listed = proofs.iter().any(|proof| matches!(proof.ground(), Ground::Rule { listed: true, .. }));
    let passed: Vec<String> = [
        (Check::Name, "name"),
        (Check::Pinned, "pinned"),
        (Check::NotWithdrawn, "not withdrawn"),
        (Check::Repository, "release repository"),
        (Check::Listed, "listed digest"),
    ]
    .into_iter()
    .filter(|(check, _)| match failed {
        None => *check != Check::Listed || listed,
        Some(failed) => *check < failed && *check != Check::Listed,
    })
    .map(|(_, text)| format!("{} {text}", mark(true)))
    .collect();
    let unjudged = proofs.iter().any(|proof| !matches!(proof.ground(), Ground::Rule { .. }));
    let judged = !(denials.is_empty() && proofs.is_empty());
    if judged && !unjudged && !passed.is_empty() {
        let _ = writeln!(out, "          {}", passed.join("   "));
    }
    for proof in proofs {
        one_proof(out, proof);
    }
    for denial in denials {
        one_denial(out, denial);
    }
}

fn one_proof(out: &mut String, proof: &Proof) {
    let holds = mark(true);
    let _ = match proof.ground() {
        Ground::Unchanged => writeln!(out, "          {holds} unchanged by this update"),
        Ground::EmptyInTemplate => writeln!(out, "          {holds} empty in a template: judged at the pod"),
        Ground::Rule { policy, rule, signatures, .. } if signatures.is_empty() => {
            writeln!(out, "          {holds} {}/{rule}: the digest is listed", policy.name)
        }
        Ground::Rule { policy, rule, signatures, .. } => signatures.iter().try_for_each(|signature| {
            let Identity::Key(key) = &signature.identity;
            writeln!(
                out,
                "          {holds} {}/{rule}: signed by {} (key {}, {})",
                policy.name,
                signature.signer,
                key.short(),
                printable(&signature.source)
            )
        }),
    };
    if let Some(age) = proof.stale() {
        let _ = writeln!(
            out,
            "          {SOFT}!{SOFT:#} from a check {} min ago: the registry does not answer",
            age.as_secs() / 60
        );
    }
}

fn one_permission(out: &mut String, permission: &Permission) {
    let Permission::Request(OverrideRequest { user, ticket, reason, container, policies }) = permission;
    let scope = match container {
        None => "this request".to_owned(),
        Some(name) => format!("container {}", printable(name)),
    };
    let policies = policies.iter().map(|stamp| stamp.name.as_str()).collect::<Vec<_>>().join(", ");
    let _ = writeln!(out, "  {SOFT}!{SOFT:#} waived for {scope} by {} (policy {policies})", printable(user));
    let _ = writeln!(out, "            ticket  {}", printable(ticket));
    let _ = writeln!(out, "            reason  {}", printable(reason));
}

fn one_denial(out: &mut String, denial: &Denial) {
    let policy = match (denial.policy(), denial.rule()) {
        (Some(policy), Some(rule)) => format!(" ({}/{rule})", policy.name),
        (Some(policy), None) => format!(" ({})", policy.name),
        (None, _) => String::new(),
    };
    let softened = match denial.mode() {
        Mode::Enforce => "",
        Mode::Warn => " [warn]",
        Mode::Audit => " [audit]",
    };
    let _ = writeln!(out, "          {} {BAD}{}{BAD:#}{softened}{policy}", mark(false), denial.code());
    if !denial.wanted().is_empty() {
        let _ = writeln!(out, "            wanted  {}", printable(denial.wanted()));
    }
    if !denial.found().is_empty() {
        let _ = writeln!(out, "            found   {}", printable(denial.found()));
    }
    let _ = writeln!(out, "            → {}", denial.advice());
}

/// The check that a code belongs to; everything about evidence and the registry comes last.
const fn check_of(code: Code) -> Check {
    match code {
        Code::EmptyImage | Code::MalformedReference | Code::UnsupportedDigest => Check::Name,
        Code::NotDigestPinned => Check::Pinned,
        Code::DenyListed => Check::NotWithdrawn,
        Code::NotReleaseRepo => Check::Repository,
        Code::DigestNotListed => Check::Listed,
        Code::UnknownImageField
        | Code::UnsupportedKind
        | Code::MalformedReview
        | Code::ReviewTooLarge
        | Code::NoPolicy
        | Code::PolicyInvalid
        | Code::Unsigned
        | Code::SignatureInvalid
        | Code::WrongSigner
        | Code::ThresholdNotMet
        | Code::SubjectMismatch
        | Code::KeyNotValid
        | Code::EvidenceMalformed
        | Code::AnnotationMismatch
        | Code::ImageNotFound
        | Code::DigestMismatch
        | Code::ManifestInvalid
        | Code::RegistryAuthFailed
        | Code::RateLimited
        | Code::AddressRefused
        | Code::EvidenceUnavailable
        | Code::DeadlineExceeded
        | Code::BudgetExceeded
        | Code::BreakGlassDisabled
        | Code::BreakGlassRefused
        | Code::BreakGlassMalformed
        | Code::GrantNotWaivable
        | Code::GrantInsufficient
        | Code::AuditUnavailable
        | Code::Overloaded
        | Code::InternalError => Check::Evidence,
    }
}

/// Text broken at spaces to a width, each line behind `indent`. A word longer than a line stays whole: digests are copied.
#[must_use]
pub fn wrapped(text: &str, indent: &str, width: usize) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > width.saturating_sub(indent.len()) {
            out.push('\n');
            column = 0;
        }
        if column == 0 {
            out.push_str(indent);
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out
}
