//! The faults: what a registry does wrong, at which stage, and how that must end. The codes are those of the design. Rules are
//! named by their ids; S-n stands for section n of the design's page on signatures.

mod answers;
mod special;

use std::sync::Arc;

use provost::decision::code::Code;

use crate::sample::{Shape, Signed, Stage, shape, signed};
use crate::wire::{Answer, Around, Asked, Auth, Door, Reply, Spoil};

/// How a review of the image must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    Admit,
    Deny(Code),
}

/// How the same review must end if it was proven before the fault began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Warm {
    /// A proof is kept for ten minutes, whatever becomes of the registry.
    Admit,
    /// The image never was provable.
    Same,
}

/// How the settings know the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listing {
    /// With its network.
    Listed,
    /// With another network.
    OtherNetwork,
    /// Not at all.
    Unlisted,
    /// Not at all, and named `localhost`.
    UnlistedName,
}

/// Which certificate a registry shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    Expired,
    OtherName,
    UnknownCa,
}

/// How connections fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    No,
    Refuse,
    Silent,
    Close,
    Reset,
    PlainText,
    Certificate(Shown),
}

impl Broken {
    /// As the server does it; a certificate is made by whoever has the authority.
    pub(crate) fn door(self, present: impl FnOnce(Shown) -> tokio_rustls::TlsAcceptor) -> Door {
        match self {
            Self::No => Door::Open,
            Self::Refuse => Door::Refuse,
            Self::Silent => Door::Silent,
            Self::Close => Door::Close,
            Self::Reset => Door::Reset,
            Self::PlainText => Door::PlainText,
            Self::Certificate(shown) => Door::Present(present(shown)),
        }
    }
}

/// One fault.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) stage: Stage,
    pub(crate) fault: String,
    /// The rule that says how it must end.
    pub(crate) rule: &'static str,
    pub(crate) want: Want,
    pub(crate) warm: Warm,
    /// `timeoutSeconds` of the webhook.
    pub(crate) seconds: u64,
    pub(crate) shape: Shape,
    pub(crate) signed: Signed,
    pub(crate) listing: Listing,
    pub(crate) tls: bool,
    pub(crate) broken: Broken,
    pub(crate) auth: Auth,
    pub(crate) spoil: Option<Spoil>,
    /// Stages that may not be asked.
    pub(crate) unasked: &'static [Stage],
}

impl Row {
    fn new(stage: Stage, fault: impl Into<String>, rule: &'static str, want: Want) -> Self {
        let signed = match stage {
            Stage::FallbackTag => signed::fallback,
            Stage::SigTag => signed::sig,
            Stage::Connection
            | Stage::Challenge
            | Stage::Token
            | Stage::Image
            | Stage::Referrers
            | Stage::Candidate
            | Stage::Blob => signed::bundle,
        };
        Self {
            stage,
            fault: fault.into(),
            rule,
            want,
            warm: Warm::Admit,
            seconds: QUICK,
            shape: shape::plain,
            signed,
            listing: Listing::Listed,
            tls: false,
            broken: Broken::No,
            auth: Auth::Bearer,
            spoil: None,
            unasked: &[],
        }
    }

    fn deny(stage: Stage, fault: impl Into<String>, rule: &'static str, code: Code) -> Self {
        Self::new(stage, fault, rule, Want::Deny(code))
    }

    fn admit(stage: Stage, fault: impl Into<String>, rule: &'static str) -> Self {
        Self::new(stage, fault, rule, Want::Admit)
    }

    /// What the registry answers at this stage.
    fn by(mut self, spoil: impl Fn(&Asked, Reply, &Around) -> Answer + Send + Sync + 'static) -> Self {
        self.spoil = Some(Arc::new(spoil));
        self
    }

    /// What hangs on the image, from the beginning.
    fn hung(mut self, signed: Signed) -> Self {
        self.signed = signed;
        self
    }

    /// An image that is as it is, so that no proof can have come before the fault.
    fn born(mut self, shape: Shape, signed: Signed) -> Self {
        (self.shape, self.signed, self.warm) = (shape, signed, Warm::Same);
        self
    }

    /// Whether it takes as long as the caller waits.
    pub(crate) fn is_slow(&self) -> bool {
        self.seconds == SLOW
    }

    fn slow(mut self) -> Self {
        self.seconds = SLOW;
        self
    }

    fn broken(mut self, broken: Broken, tls: bool) -> Self {
        (self.broken, self.tls) = (broken, tls);
        self
    }

    fn listing(mut self, listing: Listing) -> Self {
        (self.listing, self.warm) = (listing, Warm::Same);
        self.unasked = &EVERYTHING;
        self
    }

    fn auth(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }

    fn unasked(mut self, stages: &'static [Stage]) -> Self {
        self.unasked = stages;
        self
    }
}

/// `timeoutSeconds` where the answer does not wait for time to pass: the default.
const QUICK: u64 = 10;
/// `timeoutSeconds` where it does.
const SLOW: u64 = 3;
const EVERYTHING: [Stage; 8] = [
    Stage::Challenge,
    Stage::Token,
    Stage::Image,
    Stage::Referrers,
    Stage::FallbackTag,
    Stage::SigTag,
    Stage::Candidate,
    Stage::Blob,
];

/// Every row.
pub(crate) fn all() -> Vec<Row> {
    let mut rows = special::before_any_answer();
    for stage in [Stage::Image, Stage::Referrers, Stage::FallbackTag, Stage::SigTag, Stage::Candidate, Stage::Blob] {
        rows.extend(answers::at(stage));
    }
    rows.extend(special::after_all());
    rows
}
