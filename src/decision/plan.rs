//! What can be settled without asking anybody, and what must be asked. It must never leave an image out.
//!
//! Order for each image: reference, deny-list, repository, listed digests. An image that fails here, or that no rule
//! covers, asks nothing: no DNS, no TCP. The other images of the review are asked all the same, so that the reply holds
//! everything at once.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::code::Code;
use super::evidence::{AskedKey, Question};
use super::policy::{Governing, Mode, Policy, Rule, Signer};
use super::reference::{ImageRef, PinnedImage};
use super::review::{Place, Review, ReviewedImage, Subject};
use super::verdict::{Denial, Ground};

/// Limits that the rules themselves keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Distinct image references in one review.
    pub images_per_review: usize,
    /// Signature checks in vain: those of all images of a review that stay unproven.
    pub checks_in_vain: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { images_per_review: 64, checks_in_vain: 2000 }
    }
}

/// A review half judged: what is settled, and the questions that remain. It belongs to the review and the policies that it
/// was made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Denials of the review as a whole.
    pub(in crate::decision) whole: Vec<Denial>,
    /// One step for each image of the review, in its order.
    pub(in crate::decision) steps: Vec<Step>,
    /// What must be asked; each distinct image once.
    pub(in crate::decision) questions: Vec<Question>,
    /// [`Limits::checks_in_vain`].
    pub(in crate::decision) checks_in_vain: usize,
}

/// Where one image stands after planning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::decision) enum Step {
    /// Proven without evidence, for every policy.
    Proven(Ground),
    /// Denied before any policy is asked for its rules.
    Denied(Denial),
    /// Not judged, since the review is denied as a whole. Never a proof.
    Unjudged,
    /// Covered or refused by each policy; `rules` remain to be judged.
    Open {
        image: PinnedImage,
        denials: Vec<Denial>,
        rules: Vec<RuleAt>,
        /// Index of the question whose answer the rules need; `None` where they need none, or where nothing may be asked.
        question: Option<usize>,
    },
}

impl Step {
    /// The same for another place of the same image.
    fn at(&self, place: &Place) -> Self {
        match self {
            Self::Proven(ground) => Self::Proven(ground.clone()),
            Self::Denied(denial) => Self::Denied(denial.at(place)),
            Self::Unjudged => Self::Unjudged,
            Self::Open { image, denials, rules, question } => Self::Open {
                image: image.clone(),
                denials: denials.iter().map(|denial| denial.at(place)).collect(),
                rules: rules.clone(),
                question: *question,
            },
        }
    }
}

/// A rule by its place in [`Governing`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::decision) struct RuleAt {
    pub(in crate::decision) policy: usize,
    pub(in crate::decision) rule: usize,
}

impl RuleAt {
    pub(in crate::decision) fn of(self, governing: &Governing) -> Option<(&Policy, &Rule)> {
        let policy = governing.policies.get(self.policy)?;
        Some((policy, policy.rules.get(self.rule)?))
    }
}

impl Plan {
    /// What must be asked; each distinct image once.
    #[must_use]
    pub fn questions(&self) -> &[Question] {
        &self.questions
    }
}

/// Settles what needs no evidence.
#[must_use]
pub fn plan(review: &Review, governing: &Governing, limits: Limits) -> Plan {
    let mut plan = Plan { checks_in_vain: limits.checks_in_vain, ..Plan::default() };
    for field in review.unknown_fields.iter().filter(|field| !field.unchanged) {
        plan.whole.push(Denial::of_review(
            Code::UnknownImageField,
            "no unknown field that may hold an image",
            field.path.clone(),
        ));
    }
    if review.subject == Subject::NoImages {
        return plan;
    }
    if review.images.is_empty() {
        plan.whole.push(Denial::of_review(
            Code::MalformedReview,
            "an object with at least one container",
            "none".to_owned(),
        ));
        return plan;
    }
    // Nothing new starts, so no policy is needed: objects in an ungoverned namespace stay editable (C-37).
    let governed = review.leaves_all_images() || is_governed(review, governing, limits, &mut plan);
    let may_ask = governed && governing.broken.is_empty();
    let mut asked = HashMap::new();
    // Each text is settled once, in however many places it stands.
    let mut settled: HashMap<(&str, bool), usize> = HashMap::new();
    for image in &review.images {
        let first = *settled.entry((&image.text, image.unchanged)).or_insert(plan.steps.len());
        let step = if let Some(step) = plan.steps.get(first) {
            step.at(&image.place)
        } else {
            let step = settle(review, image, governing, governed);
            if may_ask { ask(step, governing, &mut plan.questions, &mut asked) } else { step }
        };
        plan.steps.push(step);
    }
    plan
}

/// Whether policies govern the review and its images can be judged by them; denies the whole review where not.
fn is_governed(review: &Review, governing: &Governing, limits: Limits, plan: &mut Plan) -> bool {
    for broken in &governing.broken {
        plan.whole.push(Denial::of_review(
            Code::PolicyInvalid,
            "a policy that can be read",
            format!("{}: {}", broken.name, broken.error),
        ));
    }
    if governing.policies.is_empty() {
        if governing.broken.is_empty() {
            plan.whole.push(Denial::of_review(
                Code::NoPolicy,
                "a policy for this namespace",
                format!("none governs {}", review.namespace),
            ));
        }
        return false;
    }
    let distinct = review.images.iter().filter(|i| !i.unchanged).map(|i| i.text.as_str()).collect::<HashSet<_>>().len();
    if distinct > limits.images_per_review {
        plan.whole.push(Denial::of_review(
            Code::BudgetExceeded,
            format!("at most {} distinct images in one object", limits.images_per_review),
            format!("{distinct}"),
        ));
        return false;
    }
    true
}

fn settle(review: &Review, image: &ReviewedImage, governing: &Governing, governed: bool) -> Step {
    if image.unchanged {
        return Step::Proven(Ground::Unchanged);
    }
    if image.text.trim().is_empty() {
        return match review.subject {
            Subject::Template => Step::Proven(Ground::EmptyInTemplate),
            Subject::Pod | Subject::NoImages => {
                Step::Denied(denial(governing, image, Code::EmptyImage, "an image", ""))
            }
        };
    }
    let reference: ImageRef = match image.text.parse() {
        Ok(reference) => reference,
        Err(error) => return Step::Denied(refuse_reference(governing, image, &error)),
    };
    let Some(pinned) = reference.pinned() else {
        let found = reference.tag().map_or_else(|| "neither tag nor digest".to_owned(), |tag| format!("the tag {tag}"));
        return Step::Denied(denial(governing, image, Code::NotDigestPinned, "a sha256 digest", &found));
    };
    if let Some((list, why)) = governing.withdrawn(pinned.digest()) {
        let since = why.since.as_deref().map(|since| format!(", since {since}")).unwrap_or_default();
        return Step::Denied(denial(
            governing,
            image,
            Code::DenyListed,
            "a digest that was not withdrawn",
            &format!("{} ({}{since})", why.reason, list.name),
        ));
    }
    if !governed {
        return Step::Unjudged;
    }
    let mut denials = Vec::new();
    let mut rules = Vec::new();
    for (policy_index, policy) in governing.policies.iter().enumerate() {
        judge_name(policy, policy_index, image, &pinned, &mut denials, &mut rules);
    }
    Step::Open { image: pinned, denials, rules, question: None }
}

/// A reference that cannot be read: nonsense, or a digest of another kind.
fn refuse_reference(governing: &Governing, image: &ReviewedImage, error: &super::reference::ReferenceError) -> Denial {
    match error.unsupported_algorithm() {
        Some(algorithm) => {
            denial(governing, image, Code::UnsupportedDigest, "a sha256 digest", &format!("a {algorithm} digest"))
        }
        None => denial(governing, image, Code::MalformedReference, "an image name", &error.to_string()),
    }
}

/// Repository and listed digests: which rules of a policy remain to be judged on evidence.
fn judge_name(
    policy: &Policy,
    policy_index: usize,
    image: &ReviewedImage,
    pinned: &PinnedImage,
    denials: &mut Vec<Denial>,
    rules: &mut Vec<RuleAt>,
) {
    let mut covered = false;
    for (rule_index, rule) in policy.rules.iter().enumerate().filter(|(_, rule)| rule.covers(pinned.repository())) {
        covered = true;
        match &rule.digests {
            Some(digests) if !digests.contains(&pinned.digest()) => denials.push(Denial::of_rule(
                Code::DigestNotListed,
                image,
                policy,
                Some(rule),
                format!("one of the {} listed digests", digests.len()),
                pinned.digest().to_string(),
            )),
            Some(_) | None => rules.push(RuleAt { policy: policy_index, rule: rule_index }),
        }
    }
    if !covered {
        let allowed: BTreeSet<String> =
            policy.rules.iter().flat_map(|rule| &rule.repositories).map(ToString::to_string).collect();
        let allowed = allowed.into_iter().collect::<Vec<_>>().join(", ");
        denials.push(Denial::of_rule(
            Code::NotReleaseRepo,
            image,
            policy,
            None,
            allowed,
            pinned.repository().to_string(),
        ));
    }
}

/// Adds the question that an open image needs, unless an enforcing policy has refused it already.
fn ask(
    step: Step,
    governing: &Governing,
    questions: &mut Vec<Question>,
    asked: &mut HashMap<PinnedImage, usize>,
) -> Step {
    let Step::Open { image, denials, rules, question: _ } = step else { return step };
    let refused = denials.iter().any(|denial| denial.mode == Mode::Enforce);
    let mut keys = BTreeSet::new();
    for (policy, rule) in rules.iter().filter_map(|at| at.of(governing)) {
        if let Some(signatures) = &rule.signatures {
            let signers = signatures.by.iter().filter_map(|name| policy.signers.get(name));
            keys.extend(signers.flat_map(Signer::keys).map(AskedKey::from));
        }
    }
    // What is listed by its digest may still be an index with a withdrawn child.
    let children = governing.deny_lists.iter().any(|list| !list.digests.is_empty());
    let question = if refused || rules.is_empty() || (keys.is_empty() && !children) {
        None
    } else {
        Some(*asked.entry(image.clone()).or_insert_with(|| {
            questions.push(Question { image: image.clone(), keys, children });
            questions.len() - 1
        }))
    };
    Step::Open { image, denials, rules, question }
}

/// A denial of one image that is no policy's in particular. It is enforced unless every governing policy is softer.
fn denial(governing: &Governing, image: &ReviewedImage, code: Code, wanted: &str, found: &str) -> Denial {
    let softest =
        if governing.policies.iter().any(|policy| policy.mode == Mode::Warn) { Mode::Warn } else { Mode::Audit };
    let enforced = governing.enforces() || governing.policies.is_empty() || !code.can_be_softened();
    Denial {
        code,
        place: Some(image.place.clone()),
        image: Some(image.text.as_str().into()),
        policy: None,
        rule: None,
        wanted: wanted.into(),
        found: found.into(),
        mode: if enforced { Mode::Enforce } else { softest },
    }
}

impl Denial {
    /// A denial of the review as a whole: it always denies.
    pub(in crate::decision) fn of_review(code: Code, wanted: impl Into<Arc<str>>, found: String) -> Self {
        Self {
            code,
            place: None,
            image: None,
            policy: None,
            rule: None,
            wanted: wanted.into(),
            found: found.into(),
            mode: Mode::Enforce,
        }
    }

    /// A denial of one image by one policy: it does what the policy's mode says, where the code can be softened.
    pub(in crate::decision) fn of_rule(
        code: Code,
        image: &ReviewedImage,
        policy: &Policy,
        rule: Option<&Rule>,
        wanted: String,
        found: String,
    ) -> Self {
        Self {
            code,
            place: Some(image.place.clone()),
            image: Some(image.text.as_str().into()),
            policy: Some(policy.stamp()),
            rule: rule.map(|rule| rule.name.clone()),
            wanted: wanted.into(),
            found: found.into(),
            mode: if code.can_be_softened() { policy.mode } else { Mode::Enforce },
        }
    }
}
