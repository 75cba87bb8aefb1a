//! What a review ends in. It must never make a verdict: only [`super::decide`] does.

use std::sync::Arc;
use std::time::Duration;

use super::code::Code;
use super::evidence::{Identity, Origin};
use super::name::{RuleName, SignerName};
use super::policy::{Mode, PolicyStamp};
use super::reference::{Digest, PinnedImage};
use super::review::Place;

/// How a review ends. Reply, record, metrics and command line are rendered from this value and from nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Everything that runs is proven.
    Admit(Admitted),
    /// Something is not.
    Deny(Denied),
    /// Something is not, and somebody who may has taken that upon themselves.
    Override(Overridden),
    /// Something is not, and nobody enforces that here.
    WouldDeny(WouldDeny),
    /// The object can bring no image.
    NoImages,
}

/// An admission: one proof or more for each image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    pub(in crate::decision) proofs: Vec<Proof>,
    pub(in crate::decision) policies: Vec<PolicyStamp>,
    pub(in crate::decision) notes: Vec<Note>,
}

/// A denial: never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    pub(in crate::decision) denials: Vec<Denial>,
    pub(in crate::decision) policies: Vec<PolicyStamp>,
    pub(in crate::decision) images: usize,
}

/// An override: the rules have run, every enforcing denial is waived, and all of them stay on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overridden {
    /// All denials: those that enforce are waived, the others are softened by their policy's mode.
    pub(in crate::decision) denials: Vec<Denial>,
    /// What waives them, never empty; each denial is waived by one permission alone (BG-06).
    pub(in crate::decision) permissions: Vec<Permission>,
    /// Of the images that nothing is wrong with.
    pub(in crate::decision) proofs: Vec<Proof>,
    pub(in crate::decision) policies: Vec<PolicyStamp>,
    pub(in crate::decision) notes: Vec<Note>,
    pub(in crate::decision) images: usize,
}

/// What allows to waive denials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permission {
    /// One person asked, for this one review.
    Request(OverrideRequest),
}

/// An annotated request that counts. Texts are untrusted, bounded, and on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverrideRequest {
    /// Who overrides.
    pub user: String,
    /// The ticket.
    pub ticket: String,
    /// Why.
    pub reason: String,
    /// The debug container for which it counts; `None`: for the whole review.
    pub container: Option<String>,
    /// The policies that let this person override what they deny here; never empty.
    pub policies: Vec<PolicyStamp>,
}

impl Permission {
    /// What kind it is, as it stands in records and metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Request(_) => "request",
        }
    }
}

/// What would have been denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WouldDeny {
    pub(in crate::decision) denials: Vec<Denial>,
    pub(in crate::decision) policies: Vec<PolicyStamp>,
    pub(in crate::decision) notes: Vec<Note>,
    pub(in crate::decision) because: Softened,
}

/// Why a denial was not enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Softened {
    /// A policy in `warn` mode denies: the user sees warnings.
    Warn,
    /// A policy in `audit` mode denies: only the record knows.
    Audit,
    /// The mirror of a static pod: it runs already, refusing it would only hide it (C-46).
    MirrorPod,
    /// `provost serve --observe` denies nothing, faults included.
    Observe,
}

/// Notes on what was allowed, never on a denial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Note {
    /// The update leaves every image as it was.
    ImagesUnchanged,
    /// A template has an image that is filled in later.
    EmptyTemplateImage,
    /// The mirror of a static pod.
    MirrorPod,
    /// An override was asked for, and nothing needed it.
    GrantNotNeeded,
}

impl Note {
    /// The note as it stands in records and annotations.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ImagesUnchanged => "images-unchanged",
            Self::EmptyTemplateImage => "empty-template-image",
            Self::MirrorPod => "mirror-pod",
            Self::GrantNotNeeded => "grant-not-needed",
        }
    }
}

/// Why one image may run, for one rule of one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    pub(in crate::decision) place: Place,
    pub(in crate::decision) image: Option<PinnedImage>,
    pub(in crate::decision) ground: Ground,
}

/// What a proof rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ground {
    /// The rule is satisfied.
    Rule {
        /// The policy.
        policy: PolicyStamp,
        /// The rule.
        rule: RuleName,
        /// The digest is one of those that the rule lists.
        listed: bool,
        /// The signatures that count; empty only where the digest alone is asked for.
        signatures: Vec<CountedSignature>,
        /// Where the facts come from; `None` where none were needed.
        origin: Option<Origin>,
    },
    /// The update leaves the image as it was; stands for every policy.
    Unchanged,
    /// A template's empty image, filled in later and judged at the pod.
    EmptyInTemplate,
}

/// A signature that counts for a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountedSignature {
    /// The signer's name in the policy.
    pub signer: SignerName,
    /// Who that is, as the cryptography tells it.
    pub identity: Identity,
    /// Digest of the evidence.
    pub evidence: Digest,
    /// Where it was found.
    pub source: String,
}

/// One reason against one image, or against the review as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    pub(in crate::decision) code: Code,
    pub(in crate::decision) place: Option<Place>,
    /// Shared, like the texts below, by all places of one image: there may be thousands of them.
    pub(in crate::decision) image: Option<Arc<str>>,
    pub(in crate::decision) policy: Option<PolicyStamp>,
    pub(in crate::decision) rule: Option<RuleName>,
    pub(in crate::decision) wanted: Arc<str>,
    pub(in crate::decision) found: Arc<str>,
    pub(in crate::decision) mode: Mode,
}

impl Denial {
    /// The same for another place of the same image; what is about the whole review stays so.
    pub(in crate::decision) fn at(&self, place: &Place) -> Self {
        Self { place: self.place.as_ref().map(|_| place.clone()), ..self.clone() }
    }

    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// Where the image stands; `None` where the denial is about the whole review.
    #[must_use]
    pub const fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// The image as written; untrusted text.
    #[must_use]
    pub fn image(&self) -> Option<&str> {
        self.image.as_deref()
    }

    /// The policy that denies; `None` where the denial is nobody's in particular.
    #[must_use]
    pub const fn policy(&self) -> Option<&PolicyStamp> {
        self.policy.as_ref()
    }

    /// The rule that is not satisfied.
    #[must_use]
    pub const fn rule(&self) -> Option<&RuleName> {
        self.rule.as_ref()
    }

    /// What was wanted; may be empty.
    #[must_use]
    pub fn wanted(&self) -> &str {
        &self.wanted
    }

    /// What was found; may be empty. May hold untrusted text.
    #[must_use]
    pub fn found(&self) -> &str {
        &self.found
    }

    /// What this denial does: the mode of the policy it comes from.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// One sentence that says what to do.
    #[must_use]
    pub const fn advice(&self) -> &'static str {
        self.code.advice()
    }
}

impl Proof {
    /// The same for another place of the same image.
    pub(in crate::decision) fn at(&self, place: &Place) -> Self {
        Self { place: place.clone(), ..self.clone() }
    }

    /// Where the image stands.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// The image as verified; `None` where nothing was looked at.
    #[must_use]
    pub const fn image(&self) -> Option<&PinnedImage> {
        self.image.as_ref()
    }

    /// What the proof rests on.
    #[must_use]
    pub const fn ground(&self) -> &Ground {
        &self.ground
    }

    /// The age of a proof that was kept longer than it should be because the registry does not answer.
    #[must_use]
    pub const fn stale(&self) -> Option<Duration> {
        match &self.ground {
            Ground::Rule { origin: Some(Origin::Stale(age)), .. } => Some(*age),
            Ground::Rule { .. } | Ground::Unchanged | Ground::EmptyInTemplate => None,
        }
    }
}

impl Verdict {
    /// `admit`, `deny`, `override`, `would-deny` or `no-images`.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Admit(_) => "admit",
            Self::Deny(_) => "deny",
            Self::Override(_) => "override",
            Self::WouldDeny(_) => "would-deny",
            Self::NoImages => "no-images",
        }
    }

    /// Every denial, in the order of the object.
    #[must_use]
    pub fn denials(&self) -> &[Denial] {
        match self {
            Self::Deny(denied) => &denied.denials,
            Self::Override(overridden) => &overridden.denials,
            Self::WouldDeny(would) => &would.denials,
            Self::Admit(_) | Self::NoImages => &[],
        }
    }

    /// What waives the denials that enforce; empty for every verdict but an override.
    #[must_use]
    pub fn permissions(&self) -> &[Permission] {
        match self {
            Self::Override(overridden) => &overridden.permissions,
            Self::Admit(_) | Self::Deny(_) | Self::WouldDeny(_) | Self::NoImages => &[],
        }
    }

    /// Every proof of an admission, and of an override's images with which nothing is wrong.
    #[must_use]
    pub fn proofs(&self) -> &[Proof] {
        match self {
            Self::Admit(admitted) => &admitted.proofs,
            Self::Override(overridden) => &overridden.proofs,
            Self::Deny(_) | Self::WouldDeny(_) | Self::NoImages => &[],
        }
    }

    /// The policies that governed.
    #[must_use]
    pub fn policies(&self) -> &[PolicyStamp] {
        match self {
            Self::Admit(admitted) => &admitted.policies,
            Self::Deny(denied) => &denied.policies,
            Self::Override(overridden) => &overridden.policies,
            Self::WouldDeny(would) => &would.policies,
            Self::NoImages => &[],
        }
    }

    /// Notes on what was allowed.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        match self {
            Self::Admit(admitted) => &admitted.notes,
            Self::WouldDeny(would) => &would.notes,
            Self::Override(overridden) => &overridden.notes,
            Self::Deny(_) | Self::NoImages => &[],
        }
    }

    /// Why denials were not enforced.
    #[must_use]
    pub const fn softened(&self) -> Option<Softened> {
        match self {
            Self::WouldDeny(would) => Some(would.because),
            Self::Admit(_) | Self::Deny(_) | Self::Override(_) | Self::NoImages => None,
        }
    }

    /// How many images the review held, refused or not; 0 where it could not be read.
    #[must_use]
    pub const fn images_reviewed(&self) -> usize {
        match self {
            Self::Deny(denied) => denied.images,
            Self::Override(overridden) => overridden.images,
            Self::Admit(_) | Self::WouldDeny(_) | Self::NoImages => 0,
        }
    }

    /// The codes that an override waives, each once, in the order of the object; those that only a policy's mode softens are
    /// not among them. Empty for every other verdict.
    #[must_use]
    pub fn waived(&self) -> Vec<Code> {
        let mut codes = Vec::new();
        if let Self::Override(overridden) = self {
            for denial in overridden.denials.iter().filter(|denial| denial.mode == Mode::Enforce) {
                if !codes.contains(&denial.code) {
                    codes.push(denial.code);
                }
            }
        }
        codes
    }

    /// The codes of all denials, each once, in the order of the object and then of the list of codes.
    #[must_use]
    pub fn codes(&self) -> Vec<Code> {
        let mut codes = Vec::new();
        for denial in self.denials() {
            if !codes.contains(&denial.code) {
                codes.push(denial.code);
            }
        }
        codes
    }
}

/// Verdicts as a test of what is rendered from them wants them. No other build can make one but by [`super::decide`].
#[cfg(test)]
pub(crate) mod for_tests {
    use super::{Admitted, Denial, Denied, Ground, Note, PolicyStamp, Proof, Softened, Verdict, WouldDeny};
    use super::{Code, Mode, Place};
    use super::{Overridden, OverrideRequest, Permission};

    pub(crate) fn denial(code: Code, at: Option<(Place, &str)>, found: &str, wanted: &str) -> Denial {
        let (place, image) = at.map(|(place, image)| (place, image.into())).unzip();
        let (found, wanted) = (found.into(), wanted.into());
        Denial { code, place, image, policy: None, rule: None, wanted, found, mode: Mode::Enforce }
    }

    pub(crate) fn softened(denial: Denial, mode: Mode, policy: Option<PolicyStamp>) -> Denial {
        Denial { policy, mode, ..denial }
    }

    pub(crate) fn deny(denials: Vec<Denial>, policies: Vec<PolicyStamp>, images: usize) -> Verdict {
        Verdict::Deny(Denied { denials, policies, images })
    }

    pub(crate) fn overridden(
        denials: Vec<Denial>,
        requests: Vec<OverrideRequest>,
        policies: Vec<PolicyStamp>,
    ) -> Verdict {
        let permissions = requests.into_iter().map(Permission::Request).collect();
        let (proofs, notes, images) = (Vec::new(), Vec::new(), denials.len());
        Verdict::Override(Overridden { denials, permissions, proofs, policies, notes, images })
    }

    pub(crate) fn would_deny(denials: Vec<Denial>, policies: Vec<PolicyStamp>, because: Softened) -> Verdict {
        Verdict::WouldDeny(WouldDeny { denials, policies, notes: Vec::new(), because })
    }

    pub(crate) fn admit(grounds: Vec<(Place, Ground)>, policies: Vec<PolicyStamp>, notes: Vec<Note>) -> Verdict {
        let proofs = grounds.into_iter().map(|(place, ground)| Proof { place, image: None, ground }).collect();
        Verdict::Admit(Admitted { proofs, policies, notes })
    }
}
