//! The closed list of reason codes: one enum, no free text. It must never hold a rule.
//!
//! Declaration order is the order in which a review lists its codes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whose fault a denial is: it decides what the reader is told to do and what may be retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The request or the object in it.
    Request,
    /// The policy, or the rules in it.
    Policy,
    /// The image or its evidence, as the registry holds it.
    Evidence,
    /// The registry, or the way to it. Only these are retried.
    Registry,
    /// Provost itself.
    Ours,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $blame:ident, $advice:literal;)+) => {
        /// A stable reason code, as it stands in replies, records, metrics and documentation.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Code {
            $(
                #[doc = concat!("`", $text, "`: ", $advice)]
                #[serde(rename = $text)]
                $name,
            )+
        }

        impl Code {
            /// Every code, in the order in which a review lists them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The kebab-case text, for example `not-digest-pinned`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// One sentence that tells the reader what to do.
            #[must_use]
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$name => $advice),+ }
            }

            /// Whose fault it is.
            #[must_use]
            pub const fn blame(self) -> Blame {
                match self { $(Self::$name => Blame::$blame),+ }
            }
        }
    };
}

codes! {
    NotDigestPinned = "not-digest-pinned", Request, "no sha256 digest: pin the image as name@sha256:… and apply again";
    MalformedReference = "malformed-reference", Request, "correct the image name; the message marks the first wrong character";
    UnsupportedDigest = "unsupported-digest", Request, "use the image's sha256 digest";
    EmptyImage = "empty-image", Request, "set the pod's image";
    DigestNotListed = "digest-not-listed", Policy, "this repository's images are listed one by one: ask the policy owner to list this digest";
    DenyListed = "deny-listed", Policy, "this digest was withdrawn, the message says why: deploy another release";
    NotReleaseRepo = "not-release-repo", Policy, "promote the image to one of the listed repositories";
    UnknownImageField = "unknown-image-field", Request, "remove the field that we do not know, or upgrade Provost";
    UnsupportedKind = "unsupported-kind", Request, "ask the administrator to correct the webhook's rules";
    MalformedReview = "malformed-review", Request, "correct the object; if it came unchanged from an API server, report a bug";
    ReviewTooLarge = "review-too-large", Request, "make the object smaller than the limit shown";
    NoPolicy = "no-policy", Policy, "ask the policy owner to govern this namespace";
    PolicyInvalid = "policy-invalid", Policy, "ask the policy owner to run `provost policy lint`";
    Unsigned = "unsigned", Evidence, "sign this digest in the release pipeline";
    SignatureInvalid = "signature-invalid", Evidence, "sign again, and treat the stored signature as suspect";
    WrongSigner = "wrong-signer", Evidence, "verifies under none of the listed keys: sign with a listed one";
    ThresholdNotMet = "threshold-not-met", Evidence, "get a signature from one more of the listed signers";
    SubjectMismatch = "subject-mismatch", Evidence, "the signed statement is about other bytes: sign this digest";
    KeyNotValid = "key-not-valid", Evidence, "sign with a key that is within its validity";
    EvidenceMalformed = "evidence-malformed", Evidence, "replace the named artifact in the registry";
    AnnotationMismatch = "annotation-mismatch", Evidence, "sign with the annotations, or from the repository, that the rule wants";
    ImageNotFound = "image-not-found", Evidence, "push or promote the image first";
    DigestMismatch = "digest-mismatch", Evidence, "stop and tell security: the registry, or the path to it, is not sound";
    ManifestInvalid = "manifest-invalid", Evidence, "rebuild the image with a current tool";
    RegistryAuthFailed = "registry-auth-failed", Registry, "correct the registry credential or the registry's permissions";
    RateLimited = "rate-limited", Registry, "wait as long as shown, or give Provost an account there";
    AddressRefused = "address-refused", Registry, "ask the administrator to list the host, if it is meant to be used";
    EvidenceUnavailable = "evidence-unavailable", Registry, "try again; if it stays, look at the registry";
    DeadlineExceeded = "deadline-exceeded", Ours, "try again: the check goes on and its answer will be ready";
    BudgetExceeded = "budget-exceeded", Request, "remove surplus evidence or split the pod; the limit is named";
    AuditUnavailable = "audit-unavailable", Ours, "ask the administrator to free or mend the ledger's storage";
    InternalError = "internal-error", Ours, "our fault: report it with the record id";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Code {
    /// The `status.code` of a denial with this code alone (admission contract, C-23).
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::MalformedReview | Self::UnsupportedKind => 400,
            Self::ReviewTooLarge => 413,
            Self::InternalError | Self::AuditUnavailable => 500,
            Self::NotDigestPinned
            | Self::MalformedReference
            | Self::UnsupportedDigest
            | Self::EmptyImage
            | Self::DigestNotListed
            | Self::DenyListed
            | Self::NotReleaseRepo
            | Self::UnknownImageField
            | Self::NoPolicy
            | Self::PolicyInvalid
            | Self::Unsigned
            | Self::SignatureInvalid
            | Self::WrongSigner
            | Self::ThresholdNotMet
            | Self::SubjectMismatch
            | Self::KeyNotValid
            | Self::EvidenceMalformed
            | Self::AnnotationMismatch
            | Self::ImageNotFound
            | Self::DigestMismatch
            | Self::ManifestInvalid
            | Self::RegistryAuthFailed
            | Self::RateLimited
            | Self::AddressRefused
            | Self::EvidenceUnavailable
            | Self::DeadlineExceeded
            | Self::BudgetExceeded => 403,
        }
    }

    /// Whether a policy in `warn` or `audit` mode may soften this denial. What is about the review as a whole, the
    /// policies themselves or a withdrawn digest always denies.
    #[must_use]
    pub const fn can_be_softened(self) -> bool {
        match self {
            Self::DenyListed
            | Self::UnknownImageField
            | Self::UnsupportedKind
            | Self::MalformedReview
            | Self::ReviewTooLarge
            | Self::NoPolicy
            | Self::PolicyInvalid
            | Self::AuditUnavailable
            | Self::InternalError => false,
            Self::NotDigestPinned
            | Self::MalformedReference
            | Self::UnsupportedDigest
            | Self::EmptyImage
            | Self::DigestNotListed
            | Self::NotReleaseRepo
            | Self::Unsigned
            | Self::SignatureInvalid
            | Self::WrongSigner
            | Self::ThresholdNotMet
            | Self::SubjectMismatch
            | Self::KeyNotValid
            | Self::EvidenceMalformed
            | Self::AnnotationMismatch
            | Self::ImageNotFound
            | Self::DigestMismatch
            | Self::ManifestInvalid
            | Self::RegistryAuthFailed
            | Self::RateLimited
            | Self::AddressRefused
            | Self::EvidenceUnavailable
            | Self::DeadlineExceeded
            | Self::BudgetExceeded => true,
        }
    }
}
