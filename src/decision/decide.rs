//! Makes verdicts; nothing else does. It must never ask anybody anything: all it knows comes in as arguments.
//!
//! An admission needs, for every image, a [`Ground`] for each rule that covers it in each policy that governs; such a ground
//! is made in [`prove`] and nowhere else. The two grounds that no rule gives, an image that an update leaves as it was and one
//! that is empty in a template, are made in [`super::plan`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use super::break_glass::{self, Outcome};
use super::code::Code;
use super::evidence::{Answer, Facts, Identity, StatementKind, VerifiedStatement};
use super::name::SignerName;
use super::plan::{Plan, RuleAt, Step};
use super::policy::{Governing, Mode, Policy, Rule, SignatureRule, Signer};
use super::reference::{Digest, ImageRef, PinnedImage};
use super::review::{Fault, Review, ReviewedImage, Subject};
use super::verdict::{
    Admitted, CountedSignature, Denial, Denied, Ground, Note, Overridden, Proof, Softened, Verdict, WouldDeny,
};

/// The verdict on a review, from the plan that was made of it under the same policies and the answers to its questions, in
/// their order. `now` judges the windows of keys.
#[must_use]
pub fn decide(review: &Review, governing: &Governing, plan: &Plan, answers: &[Answer], now: Timestamp) -> Verdict {
    if review.subject == Subject::NoImages && plan.whole.is_empty() {
        return Verdict::NoImages;
    }
    let mut denials = plan.whole.clone();
    // What an override would have to waive: every denial, and what was not judged because an image is refused anyway. Where
    // nobody asks for one it is not gathered: there may be thousands of denials.
    let asked = break_glass::is_asked(review);
    let mut at_stake = if asked { plan.whole.clone() } else { Vec::new() };
    let mut proofs = Vec::new();
    let overspent = overspent(plan, governing, answers, now);
    // What evidence says of an image is judged once, in however many places it stands.
    let mut judged: HashMap<&str, Judged> = HashMap::new();
    for (image, step) in review.images.iter().zip(&plan.steps) {
        let judge = || judge(image, step, plan, governing, answers, overspent.as_deref(), now);
        let outcome = match step {
            Step::Open { .. } => judged
                .entry(&image.text)
                .or_insert_with(judge)
                .as_ref()
                .map(|proofs| proofs.iter().map(|proof| proof.at(&image.place)).collect::<Vec<_>>())
                .map_err(|refused| refused.iter().map(|denial| denial.at(&image.place)).collect()),
            Step::Proven(_) | Step::Denied(_) | Step::Unjudged => judge(),
        };
        match outcome {
            Ok(proven) => proofs.extend(proven),
            Err(mut refused) => {
                refused.sort_by_key(Denial::code);
                if asked {
                    at_stake.extend(refused.iter().cloned());
                    at_stake.extend(unjudged(image, step, governing, &refused));
                }
                denials.extend(refused);
            }
        }
    }
    let policies: Vec<_> = governing.policies.iter().map(|policy| policy.stamp()).collect();
    if denials.is_empty() {
        // Every image has passed `judge`; an object without images was refused by `plan`.
        if proofs.is_empty() || plan.steps.len() != review.images.len() {
            // At nobody's stake: nothing waives it.
            denials.push(Denial::of_review(Code::InternalError, "a proof for each image", "none".to_owned()));
        } else {
            let notes = notes(review, &proofs);
            return Verdict::Admit(Admitted { proofs, policies, notes });
        }
    }
    let because = if review.is_mirror_pod() {
        Softened::MirrorPod
    } else if denials.iter().any(|denial| denial.mode == Mode::Enforce) {
        let images = review.images.len();
        return match break_glass::judge(review, governing, &at_stake) {
            Outcome::NotAsked => Verdict::Deny(Denied { denials, policies, images }),
            Outcome::Refused(faults) => {
                Verdict::Deny(Denied { denials: put_beside(denials, faults), policies, images })
            }
            Outcome::Waived(permissions) => {
                let notes = notes(review, &proofs).into_iter().filter(|note| *note != Note::GrantNotNeeded).collect();
                Verdict::Override(Overridden { denials: at_stake, permissions, proofs, policies, notes, images })
            }
        };
    } else if denials.iter().any(|denial| denial.mode == Mode::Warn) {
        Softened::Warn
    } else {
        Softened::Audit
    };
    let notes = if because == Softened::MirrorPod { vec![Note::MirrorPod] } else { notes(review, &proofs) };
    Verdict::WouldDeny(WouldDeny { denials, policies, notes, because })
}

/// The verdict on a request that could not be judged by the rules: always a denial.
#[must_use]
pub fn refuse(fault: &Fault) -> Verdict {
    let denial = Denial::of_review(fault.code, String::new(), fault.detail.clone());
    Verdict::Deny(Denied { denials: vec![denial], policies: Vec::new(), images: 0 })
}

/// The verdict on a review for which there is no room: a denial that judged nothing (C-03).
#[must_use]
pub fn shed() -> Verdict {
    refuse(&no_room())
}

/// Why a review is not judged for which there is no room.
#[must_use]
pub fn no_room() -> Fault {
    Fault::new(Code::Overloaded, "Provost is at capacity and judged nothing")
}

/// What becomes of a verdict where the operator only observes: a denial of any kind is recorded and not enforced.
#[must_use]
pub fn observed(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Deny(Denied { denials, policies, images: _ }) => {
            Verdict::WouldDeny(WouldDeny { denials, policies, notes: Vec::new(), because: Softened::Observe })
        }
        Verdict::Admit(_) | Verdict::Override(_) | Verdict::WouldDeny(_) | Verdict::NoImages => verdict,
    }
}

/// The verdict on a review whose record cannot be kept: a denial, whatever it was before.
#[must_use]
pub fn unrecorded(verdict: Verdict, why: &str) -> Verdict {
    let policies = verdict.policies().to_vec();
    let images = verdict.images_reviewed();
    let mut denials = vec![Denial::of_review(Code::AuditUnavailable, "a durable record", why.to_owned())];
    match verdict {
        Verdict::Deny(Denied { denials: earlier, .. })
        | Verdict::WouldDeny(WouldDeny { denials: earlier, because: Softened::Observe, .. })
        // Not waived after all.
        | Verdict::Override(Overridden { denials: earlier, .. }) => denials.extend(earlier),
        Verdict::Admit(_) | Verdict::WouldDeny(_) | Verdict::NoImages => {}
    }
    Verdict::Deny(Denied { denials, policies, images })
}

/// Whether facts about the image of one question satisfy every rule that needs them, so that the search may stop.
#[derive(Debug, Clone)]
pub struct Enough {
    image: PinnedImage,
    children: bool,
    rules: Vec<(Arc<Policy>, usize)>,
    now: Timestamp,
}

impl Enough {
    /// For the question at `index` of a plan; `None` where there is no such question.
    #[must_use]
    pub fn new(plan: &Plan, governing: &Governing, index: usize, now: Timestamp) -> Option<Self> {
        let asked = plan.questions.get(index)?;
        let mut rules = Vec::new();
        for step in &plan.steps {
            if let Step::Open { question: Some(question), rules: open, .. } = step
                && *question == index
            {
                rules.extend(
                    open.iter().filter_map(|at| Some((Arc::clone(governing.policies.get(at.policy)?), at.rule))),
                );
                break; // Equal images have equal rules.
            }
        }
        Some(Self { image: asked.image.clone(), children: asked.children, rules, now })
    }

    /// Whether nothing that is still to be found could be needed.
    #[must_use]
    pub fn holds(&self, facts: &Facts) -> bool {
        facts.image_fault.is_none()
            && (!self.children || facts.children.is_some())
            && self.rules.iter().all(|(policy, index)| {
                policy.rules.get(*index).is_some_and(|rule| match &rule.signatures {
                    None => true,
                    Some(wanted) => {
                        count(policy, wanted, self.image.digest(), facts, self.now).len() >= wanted.at_least.max(1)
                    }
                })
            })
    }
}

/// More signature checks in vain than a review may have, in words; `None` where it stays within.
///
/// Counted are the images that stay unproven although all their sources have answered: what such a search takes is a property
/// of what the registry holds, so that every replica, cold or warm, counts alike. What a proof took is not counted: that
/// depends on the order of the registry's answers, and with it would the verdict.
fn overspent(plan: &Plan, governing: &Governing, answers: &[Answer], now: Timestamp) -> Option<String> {
    let most = plan.checks_in_vain;
    let total = |counted: &dyn Fn(usize, &Facts) -> bool| {
        let facts = answers.iter().map(|answer| answer.facts.as_ref()).enumerate();
        facts
            .filter(|(index, facts)| counted(*index, facts))
            .map(|(_, facts)| facts.checks)
            .fold(0, usize::saturating_add)
    };
    if total(&|_, _| true) <= most {
        return None;
    }
    let made = total(&|index, facts| {
        facts.exhausted
            && facts.unanswered.is_empty()
            && !Enough::new(plan, governing, index, now).is_some_and(|enough| enough.holds(facts))
    });
    (made > most).then(|| format!("{made} signature checks for this object proved nothing, {most} are the limit"))
}

/// What becomes of one image.
type Judged = Result<Vec<Proof>, Vec<Denial>>;

fn judge(
    image: &ReviewedImage,
    step: &Step,
    plan: &Plan,
    governing: &Governing,
    answers: &[Answer],
    overspent: Option<&str>,
    now: Timestamp,
) -> Judged {
    let (pinned, denials, rules, question) = match step {
        Step::Proven(ground) => {
            return Ok(vec![Proof { place: image.place.clone(), image: None, ground: ground.clone() }]);
        }
        Step::Denied(denial) => return Err(vec![denial.clone()]),
        Step::Unjudged if plan.whole.is_empty() => {
            let found = format!("{} was not judged", image.place.path);
            return Err(vec![Denial::of_review(Code::InternalError, "a proof for each image", found)]);
        }
        Step::Unjudged => return Ok(Vec::new()),
        Step::Open { image, denials, rules, question } => (image, denials, rules, question),
    };
    let answer = question.and_then(|index| answers.get(index));
    let children = question.and_then(|index| plan.questions.get(index)).is_some_and(|asked| asked.children);
    let mut denials = denials.clone();
    let mut proofs = Vec::new();
    if let Some(denial) = answer.and_then(|answer| withdrawn_child(image, governing, &answer.facts)) {
        denials.push(denial);
    }
    // A broken policy stands in the way of the whole review, and nobody is asked.
    let refused = denials.iter().any(|denial| denial.mode == Mode::Enforce) || !plan.whole.is_empty();
    for at in rules {
        // The plan was made from the same policies; a place that is not there proves nothing.
        let Some((policy, rule)) = at.of(governing) else { continue };
        if question.is_none() && refused && rule.signatures.is_some() {
            continue; // Not asked, since the image or the review is refused already.
        }
        match prove(policy, rule, pinned, answer.map(|answer| (answer, children)), overspent, now) {
            Ok(ground) => proofs.push(Proof { place: image.place.clone(), image: Some(pinned.clone()), ground }),
            Err(Refuted { code, wanted, found }) => {
                denials.push(Denial::of_rule(code, image, policy, Some(rule), wanted, found));
            }
        }
    }
    let covered: BTreeSet<usize> = rules.iter().map(|RuleAt { policy, .. }| *policy).collect();
    if denials.is_empty()
        && plan.whole.is_empty()
        && (covered.len() != governing.policies.len() || proofs.len() != rules.len() || proofs.is_empty())
    {
        denials.push(Denial::of_review(
            Code::InternalError,
            "a proof for each policy and rule",
            format!("none for {}", image.place.path),
        ));
    }
    if denials.is_empty() { Ok(proofs) } else { Err(denials) }
}

/// What nobody judged of a refused image: the signatures that enforcing rules want of it, where it was refused by its name or
/// digest and so nobody was asked about it. An override must waive these too, each by its own policy: that one policy lets
/// the repository be waived does not satisfy another.
fn unjudged<'a>(
    image: &'a ReviewedImage,
    step: &'a Step,
    governing: &'a Governing,
    refused: &'a [Denial],
) -> impl Iterator<Item = Denial> + 'a {
    let pinned = match step {
        Step::Open { image, question: None, .. } => Some(image),
        // Asked, and so judged; or refused by what nothing waives.
        Step::Open { question: Some(_), .. } | Step::Proven(_) | Step::Denied(_) | Step::Unjudged => None,
    };
    let policies = governing.policies.iter().filter(|policy| policy.mode == Mode::Enforce);
    let rules = policies.flat_map(move |policy| {
        let covering = pinned.map(|pinned| policy.covering(pinned.repository())).into_iter().flatten();
        covering.map(move |rule| (policy, rule))
    });
    rules.filter_map(move |(policy, rule)| {
        let wanted = rule.signatures.as_ref()?;
        let is_judged = refused.iter().any(|denial| {
            denial.code != Code::DigestNotListed
                && denial.rule.as_ref() == Some(&rule.name)
                && denial.policy.as_ref().is_some_and(|stamp| stamp.name == policy.name)
        });
        let found = "not asked for, since the image is refused by its name or digest".to_owned();
        (!is_judged).then(|| {
            Denial::of_rule(Code::EvidenceUnavailable, image, policy, Some(rule), wanted_signatures(wanted), found)
        })
    })
}

/// Puts what is wrong with a request for an override behind the denials of the same image; what is about the whole review
/// comes last. There may be a fault for each of thousands of containers.
fn put_beside(denials: Vec<Denial>, faults: Vec<Denial>) -> Vec<Denial> {
    let path = |denial: &Denial| denial.place.as_ref().map(|place| place.path.clone());
    let mut behind: HashMap<String, (usize, Vec<Denial>)> = HashMap::new();
    for (index, denial) in denials.iter().enumerate() {
        if let Some(path) = path(denial) {
            behind.entry(path).or_default().0 = index;
        }
    }
    let mut rest = Vec::new();
    for fault in faults {
        match path(&fault).and_then(|path| behind.get_mut(&path)) {
            Some((_, faults)) => faults.push(fault),
            None => rest.push(fault),
        }
    }
    let mut out = Vec::with_capacity(denials.len() + rest.len());
    for (index, denial) in denials.into_iter().enumerate() {
        let last = path(&denial).and_then(|path| behind.get_mut(&path)).filter(|(last, _)| *last == index);
        out.push(denial);
        out.append(last.map_or(&mut Vec::new(), |(_, faults)| faults));
    }
    out.append(&mut rest);
    out
}

/// An index whose child was withdrawn is withdrawn with it.
fn withdrawn_child(image: &ReviewedImage, governing: &Governing, facts: &Facts) -> Option<Denial> {
    let (child, (list, why)) =
        facts.children.iter().flatten().find_map(|child| Some((child, governing.withdrawn(*child)?)))?;
    Some(Denial {
        place: Some(image.place.clone()),
        image: Some(image.text.as_str().into()),
        ..Denial::of_review(
            Code::DenyListed,
            "an index without a withdrawn child",
            format!("child {child}: {} ({})", why.reason, list.name),
        )
    })
}

/// Why a rule is not satisfied.
struct Refuted {
    code: Code,
    wanted: String,
    found: String,
}

/// The one place that makes the ground of a rule: from the digest alone where the rule asks for nothing else, else from as
/// many counted signatures as the rule wants. With the answer comes whether the image's children had to be known; where the
/// review overspent, `overspent` says how.
fn prove(
    policy: &Policy,
    rule: &Rule,
    image: &PinnedImage,
    answer: Option<(&Answer, bool)>,
    overspent: Option<&str>,
    now: Timestamp,
) -> Result<Ground, Refuted> {
    let listed = rule.digests.as_ref().is_some_and(|digests| digests.contains(&image.digest()));
    let ground = |signatures, origin| Ground::Rule {
        policy: policy.stamp(),
        rule: rule.name.clone(),
        listed,
        signatures,
        origin,
    };
    let Some(wanted) = &rule.signatures else {
        let wanted = |wanted: &str| wanted.to_owned();
        if !listed {
            let found = image.digest().to_string();
            return Err(Refuted { code: Code::InternalError, wanted: wanted("a listed digest"), found });
        }
        // Whether a withdrawn image is within it is known where nobody needs to know, or where it was fetched.
        return match answer.filter(|(answer, children)| *children && answer.facts.children.is_none()) {
            None => Ok(ground(Vec::new(), None)),
            Some((answer, _)) => {
                let (code, found) = unknown_children(&answer.facts);
                Err(Refuted { code, wanted: wanted("to know that no withdrawn image is within it"), found })
            }
        };
    };
    let refuted = |code, found| Err(Refuted { code, wanted: wanted_signatures(wanted), found });
    let Some((answer, children)) = answer else {
        return refuted(Code::InternalError, "the question was not answered".to_owned());
    };
    let facts = answer.facts.as_ref();
    // What is wrong with the image itself comes before anything that hangs on it.
    if let Some(fault) = &facts.image_fault {
        return refuted(fault.code, fault.detail.clone());
    }
    let counted = count(policy, wanted, image.digest(), facts, now);
    if counted.len() >= wanted.at_least.max(1) && (facts.children.is_some() || !children) {
        return Ok(ground(counted, Some(answer.origin)));
    }
    if let Some(source) = facts.unanswered.iter().min_by_key(|source| source.code) {
        return refuted(source.code, source.detail.clone());
    }
    if let Some(limit) = &facts.limit {
        return refuted(Code::BudgetExceeded, limit.clone());
    }
    if !facts.exhausted {
        return refuted(Code::InternalError, "the search stopped early".to_owned());
    }
    // An image that took no check has no part in it.
    if let Some(overspent) = overspent.filter(|_| facts.checks > 0) {
        return refuted(Code::BudgetExceeded, overspent.to_owned());
    }
    let (code, found) = nearest(policy, wanted, image.digest(), facts, &counted, now);
    refuted(code, found)
}

/// Why it is not known what an image contains.
fn unknown_children(facts: &Facts) -> (Code, String) {
    if let Some(fault) = &facts.image_fault {
        return (fault.code, fault.detail.clone());
    }
    if let Some(source) = facts.unanswered.iter().min_by_key(|source| source.code) {
        return (source.code, source.detail.clone());
    }
    match &facts.limit {
        Some(limit) => (Code::BudgetExceeded, limit.clone()),
        None => (Code::InternalError, "the search stopped early".to_owned()),
    }
}

fn wanted_signatures(wanted: &SignatureRule) -> String {
    let names = wanted.by.iter().map(SignerName::as_str).collect::<Vec<_>>().join(", ");
    let mut text = match (wanted.at_least, wanted.by.len()) {
        (1, 1) => format!("a signature by {names}"),
        (1, _) => format!("a signature by one of {names}"),
        (n, all) if n == all => format!("signatures by {names}"),
        (n, _) => format!("signatures by {n} of {names}"),
    };
    for (key, value) in &wanted.annotations {
        text.extend([", with ", key, "=", value]);
    }
    if !wanted.signed_from.is_empty() {
        let from = wanted.signed_from.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        text.extend([", made for ", &from]);
    }
    text
}

/// The signatures that count, one for each of the most signers that can be told apart: one signer counts once, whatever
/// keys it signed with, and one identity counts for one signer only.
fn count(
    policy: &Policy,
    wanted: &SignatureRule,
    digest: Digest,
    facts: &Facts,
    now: Timestamp,
) -> Vec<CountedSignature> {
    let mut options: Vec<(&SignerName, BTreeMap<&Identity, &VerifiedStatement>)> = Vec::new();
    for name in &wanted.by {
        let mut mine = BTreeMap::new();
        for statement in signatures_of(facts, digest).filter(|statement| meets(wanted, statement)) {
            if policy.signers.get(name).is_some_and(|signer| {
                signer
                    .keys()
                    .iter()
                    .any(|key| *statement.identity() == Identity::Key(key.fingerprint) && key.is_valid_at(now))
            }) {
                mine.entry(statement.identity()).or_insert(statement);
            }
        }
        options.push((name, mine));
    }
    // Largest assignment of identities to signers (augmenting paths): at most signers × identities steps for each signer.
    let mut holder: BTreeMap<&Identity, usize> = BTreeMap::new();
    for signer in 0..options.len() {
        assign(signer, &options, &mut holder, &mut BTreeSet::new());
    }
    let mut counted: Vec<(usize, CountedSignature)> = holder
        .iter()
        .filter_map(|(identity, signer)| {
            let (name, mine) = options.get(*signer)?;
            let statement = mine.get(identity)?;
            Some((
                *signer,
                CountedSignature {
                    signer: (*name).clone(),
                    identity: (*identity).clone(),
                    evidence: statement.evidence(),
                    source: statement.source().to_owned(),
                },
            ))
        })
        .collect();
    counted.sort_by_key(|(signer, _)| *signer);
    counted.into_iter().map(|(_, signature)| signature).collect()
}

fn assign<'a>(
    signer: usize,
    options: &[(&SignerName, BTreeMap<&'a Identity, &VerifiedStatement>)],
    holder: &mut BTreeMap<&'a Identity, usize>,
    tried: &mut BTreeSet<&'a Identity>,
) -> bool {
    let Some((_, mine)) = options.get(signer) else { return false };
    for identity in mine.keys() {
        if !tried.insert(identity) {
            continue;
        }
        let free = match holder.get(identity) {
            None => true,
            Some(other) => assign(*other, options, holder, tried),
        };
        if free {
            holder.insert(identity, signer);
            return true;
        }
    }
    false
}

/// Statements that sign the image itself. An attestation is none, whoever made it.
fn signatures_of(facts: &Facts, digest: Digest) -> impl Iterator<Item = &VerifiedStatement> {
    facts.statements.iter().filter(move |statement| match statement.kind() {
        StatementKind::ImageSignature => statement.subject() == digest,
        StatementKind::Attestation { .. } => false,
    })
}

/// Whether one signature says everything that the rule wants a counting signature to say.
fn meets(wanted: &SignatureRule, statement: &VerifiedStatement) -> bool {
    wanted.annotations.iter().all(|(key, value)| statement.annotations().get(key) == Some(value))
        && (wanted.signed_from.is_empty()
            || statement
                .signed_for()
                .and_then(|text| text.parse::<ImageRef>().ok())
                .is_some_and(|image| wanted.signed_from.iter().any(|pattern| pattern.matches(image.repository()))))
}

/// The code nearest to success, with what was found: all sources have answered, and too few signatures count.
fn nearest(
    policy: &Policy,
    wanted: &SignatureRule,
    digest: Digest,
    facts: &Facts,
    counted: &[CountedSignature],
    now: Timestamp,
) -> (Code, String) {
    if !counted.is_empty() {
        let who = counted.iter().map(|signature| signature.signer.as_str()).collect::<Vec<_>>().join(", ");
        return (Code::ThresholdNotMet, format!("{} of {}: {who}", counted.len(), wanted.at_least));
    }
    let mut best: Option<(u8, Code, String)> = None;
    let mut offer = |code: Code, found: String| {
        let rank = nearness(code);
        if best.as_ref().is_none_or(|(known, ..)| rank > *known) {
            best = Some((rank, code, found));
        }
    };
    for statement in signatures_of(facts, digest) {
        let Identity::Key(fingerprint) = statement.identity();
        let keys = wanted.by.iter().filter_map(|name| policy.signers.get(name)).flat_map(Signer::keys);
        match keys.into_iter().find(|key| key.fingerprint == *fingerprint) {
            None => offer(
                Code::WrongSigner,
                format!("{}: by the key {}, which this rule does not name", statement.source(), fingerprint.short()),
            ),
            Some(key) if !key.is_valid_at(now) => {
                offer(
                    Code::KeyNotValid,
                    format!("{}: the key {} is not valid at {now}", statement.source(), fingerprint.short()),
                );
            }
            Some(_) => offer(Code::AnnotationMismatch, format!("{}: {}", statement.source(), said(statement))),
        }
    }
    for rejected in &facts.rejected {
        offer(rejected.code, format!("{}: {}", rejected.source, rejected.detail));
    }
    match best {
        Some((_, code, found)) => (code, found),
        None if facts.statements.is_empty() => (Code::Unsigned, "no signature".to_owned()),
        None => (Code::Unsigned, "attestations, but no signature".to_owned()),
    }
}

/// What a signature says of itself, for the reader.
fn said(statement: &VerifiedStatement) -> String {
    let mut parts: Vec<String> = statement.annotations().iter().map(|(key, value)| format!("{key}={value}")).collect();
    if let Some(name) = statement.signed_for() {
        parts.push(format!("made for {name}"));
    }
    if parts.is_empty() { "signed without annotations".to_owned() } else { parts.join(", ") }
}

/// How near to success a candidate came. All that a registry can plant by itself stands below what needs a trusted key.
const fn nearness(code: Code) -> u8 {
    match code {
        Code::AnnotationMismatch => 9,
        Code::WrongSigner => 8,
        Code::KeyNotValid => 7,
        Code::SignatureInvalid => 6,
        Code::DigestMismatch | Code::SubjectMismatch => 5,
        Code::BudgetExceeded => 4,
        Code::EvidenceMalformed | Code::ManifestInvalid => 3,
        Code::Unsigned => 2,
        Code::NotDigestPinned
        | Code::MalformedReference
        | Code::UnsupportedDigest
        | Code::EmptyImage
        | Code::DigestNotListed
        | Code::DenyListed
        | Code::NotReleaseRepo
        | Code::UnknownImageField
        | Code::UnsupportedKind
        | Code::MalformedReview
        | Code::ReviewTooLarge
        | Code::NoPolicy
        | Code::PolicyInvalid
        | Code::ThresholdNotMet
        | Code::ImageNotFound
        | Code::RegistryAuthFailed
        | Code::RateLimited
        | Code::AddressRefused
        | Code::EvidenceUnavailable
        | Code::DeadlineExceeded
        | Code::BreakGlassDisabled
        | Code::BreakGlassRefused
        | Code::BreakGlassMalformed
        | Code::GrantNotWaivable
        | Code::GrantInsufficient
        | Code::AuditUnavailable
        | Code::Overloaded
        | Code::InternalError => 1,
    }
}

fn notes(review: &Review, proofs: &[Proof]) -> Vec<Note> {
    let mut notes = BTreeSet::new();
    if break_glass::is_unneeded(review) {
        notes.insert(Note::GrantNotNeeded);
    }
    if review.leaves_all_images() {
        notes.insert(Note::ImagesUnchanged);
    }
    if proofs.iter().any(|proof| proof.ground == Ground::EmptyInTemplate) {
        notes.insert(Note::EmptyTemplateImage);
    }
    notes.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::super::evidence::Origin;
    use super::super::plan::{Limits, plan};
    use super::super::policy::{BrokenPolicy, NamespaceSelector};
    use super::super::review::{Caller, Holder, OverrideAsked, OverrideReason, Place, Request};
    use super::super::verdict::for_tests::denial;
    use super::*;

    fn container(index: usize, text: String) -> ReviewedImage {
        let place =
            Place { path: format!("spec.containers[{index}]"), holder: Holder::Container, name: format!("c{index}") };
        ReviewedImage { place, text, unchanged: false }
    }

    fn pod(texts: &[String]) -> Review {
        Review {
            request: Request::default(),
            namespace: "payments".parse().expect("namespace"),
            subject: Subject::Pod,
            images: texts.iter().enumerate().map(|(index, text)| container(index, text.clone())).collect(),
            unknown_fields: Vec::new(),
            mirror_of_node: None,
            override_asked: OverrideAsked::default(),
        }
    }

    fn payments(rule: Rule) -> Policy {
        Policy {
            name: "payments".parse().expect("name"),
            hash: Digest::from_bytes([0; 32]),
            namespaces: NamespaceSelector::Names(vec!["payments".parse().expect("pattern")]),
            mode: Mode::Enforce,
            signers: BTreeMap::new(),
            rules: vec![rule],
            break_glass: None,
        }
    }

    #[test]
    fn a_broken_policy_beside_a_good_one_is_what_denies() {
        let signatures = |at_least| {
            Some(SignatureRule {
                by: vec!["release".parse().expect("name")],
                at_least,
                annotations: BTreeMap::new(),
                signed_from: Vec::new(),
            })
        };
        let repositories = vec!["r.example/team/**".parse().expect("pattern")];
        let rule = |at_least| Rule {
            name: "releases".parse().expect("name"),
            repositories: repositories.clone(),
            signatures: signatures(at_least),
            digests: None,
        };
        let broken = BrokenPolicy { name: "other".to_owned(), namespaces: None, error: "a misspelt key".to_owned() };
        let governing = Governing {
            policies: vec![Arc::new(payments(rule(1)))],
            broken: vec![Arc::new(broken)],
            ..Governing::default()
        };
        let review = pod(&[format!("r.example/team/a@{}", Digest::from_bytes([1; 32]))]);
        let plan_ = plan(&review, &governing, Limits::default());
        let verdict = decide(&review, &governing, &plan_, &[], Timestamp::UNIX_EPOCH);
        assert_eq!((verdict.word(), verdict.codes()), ("deny", vec![Code::PolicyInvalid]));
        // And a rule that asks for no signature at all, which no policy can say, is not satisfied by none.
        let governing = Governing { policies: vec![Arc::new(payments(rule(0)))], ..Governing::default() };
        let plan_ = plan(&review, &governing, Limits::default());
        let answers = vec![Answer { facts: Arc::default(), origin: Origin::Fetched }; plan_.questions().len()];
        let verdict = decide(&review, &governing, &plan_, &answers, Timestamp::UNIX_EPOCH);
        assert_eq!(verdict.word(), "deny");
    }

    #[test]
    fn bg_03_what_is_our_fault_is_waived_by_nobody() {
        let listed = Digest::from_bytes([1; 32]);
        let policy = payments(Rule {
            name: "listed".parse().expect("name"),
            repositories: vec!["r.example/team/**".parse().expect("pattern")],
            signatures: None,
            digests: Some(BTreeSet::from([listed])),
        });
        let governing = Governing { policies: vec![Arc::new(policy)], ..Governing::default() };
        let texts = [format!("r.example/team/a@{listed}"), format!("r.example/team/b@{listed}")];
        let mut review = pod(&texts);
        review.request.user = "alice@acme.com".to_owned();
        review.request.caller = Caller::Token;
        review.override_asked.reason = Some(OverrideReason { text: "INC-1 why".to_owned(), fresh: true });
        // A plan that is not of this review: its second image has no step.
        let other = plan(&pod(&texts[..1]), &governing, Limits::default());
        let verdict = decide(&review, &governing, &other, &[], Timestamp::UNIX_EPOCH);
        assert_eq!((verdict.word(), verdict.codes()), ("deny", vec![Code::InternalError]));
    }

    #[test]
    fn x_096_x_098_places_of_one_image_share_what_is_said_of_it() {
        let listed: Digest = Digest::from_bytes([1; 32]);
        let policy = payments(Rule {
            name: "listed".parse().expect("name"),
            repositories: vec!["r.example/team/**".parse().expect("pattern")],
            signatures: None,
            digests: Some(BTreeSet::from([listed])),
        });
        let governing = Governing { policies: vec![Arc::new(policy)], ..Governing::default() };
        let judge = |texts: &[String]| {
            let review = pod(texts);
            let plan = plan(&review, &governing, Limits::default());
            decide(&review, &governing, &plan, &[], Timestamp::UNIX_EPOCH)
        };
        let (good, other, evil) = ("r.example/team/a", "r.example/team/b", "evil.example/a");
        let pinned = |name: &str| format!("{name}@{listed}");
        let verdict = judge(&[pinned(evil), pinned(good), pinned(evil), "evil.example/a:1".to_owned(), pinned(evil)]);
        let denials = verdict.denials();
        let told: Vec<(&str, Code)> =
            denials.iter().map(|d| (d.place().expect("a place").path.as_str(), d.code())).collect();
        assert_eq!(
            told,
            [
                ("spec.containers[0]", Code::NotReleaseRepo),
                ("spec.containers[2]", Code::NotReleaseRepo),
                ("spec.containers[3]", Code::NotDigestPinned),
                ("spec.containers[4]", Code::NotReleaseRepo),
            ]
        );
        let shared = |a: &Denial, b: &Denial| {
            (Arc::ptr_eq(&a.wanted, &b.wanted), Arc::ptr_eq(&a.found, &b.found)) == (true, true)
                && a.image.as_ref().zip(b.image.as_ref()).is_some_and(|(a, b)| Arc::ptr_eq(a, b))
        };
        assert!(shared(&denials[0], &denials[1]) && shared(&denials[0], &denials[3]));
        assert!(!shared(&denials[0], &denials[2]));
        // Each place is proven by itself.
        let verdict = judge(&[pinned(good), pinned(other), pinned(good)]);
        assert_eq!(verdict.word(), "admit");
        let places: Vec<&str> = verdict.proofs().iter().map(|proof| proof.place().path.as_str()).collect();
        assert_eq!(places, ["spec.containers[0]", "spec.containers[1]", "spec.containers[2]"]);
    }

    #[test]
    fn x_115_what_is_wrong_with_an_override_stands_behind_the_denials_of_the_same_image() {
        let at = |code, index: Option<usize>, found: &str| {
            let place = |index| Place {
                path: format!("spec.ephemeralContainers[{index}]"),
                holder: Holder::EphemeralContainer,
                name: format!("c{index}"),
            };
            denial(code, index.map(|index| (place(index), "r/a")), found, "")
        };
        let denials = vec![
            at(Code::Unsigned, Some(0), "a"),
            at(Code::NotReleaseRepo, Some(1), "b"),
            at(Code::Unsigned, Some(1), "c"),
            at(Code::NoPolicy, None, "d"),
            at(Code::Unsigned, Some(2), "e"),
        ];
        let faults = vec![
            at(Code::BreakGlassRefused, None, "1"),
            at(Code::BreakGlassMalformed, Some(2), "2"),
            at(Code::BreakGlassMalformed, Some(1), "3"),
            at(Code::GrantInsufficient, Some(1), "4"),
            at(Code::BreakGlassMalformed, Some(7), "5"),
            at(Code::GrantNotWaivable, None, "6"),
        ];
        let order: String = put_beside(denials, faults).iter().map(Denial::found).collect();
        assert_eq!(order, "abc34de2156");
        // One fault for each of thousands of containers is a matter of thousands of steps, not of their square.
        let many = || (0..20_000).map(|index| at(Code::Unsigned, Some(index), "")).collect::<Vec<_>>();
        assert_eq!(put_beside(many(), many()).len(), 40_000);
    }
}
