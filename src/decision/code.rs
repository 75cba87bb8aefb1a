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
    ($($(#[$doc:meta])* $name:ident = $text:literal, $blame:ident, $advice:literal, $meaning:literal;)+) => {
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

            /// What it means, for whoever was refused.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning),+ }
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
    NotDigestPinned = "not-digest-pinned", Request,
        "no sha256 digest: run `provost pin` on the manifest and apply what it prints",
        "The image is named by a tag, or by nothing. A tag can point at other bytes tomorrow, so nothing that is proven about it holds.";
    MalformedReference = "malformed-reference", Request,
        "correct the image name; the message marks the first wrong character",
        "The text is not an image name: a wrong character, an upper-case digest, an address with a scheme, a port out of range.";
    UnsupportedDigest = "unsupported-digest", Request,
        "use the image's sha256 digest",
        "The image is pinned by another kind of digest. Registries, signatures and policies here speak sha256.";
    EmptyImage = "empty-image", Request,
        "set the pod's image",
        "A container of a pod has no image, or only blanks.";
    DigestNotListed = "digest-not-listed", Policy,
        "this repository's images are listed one by one: ask the policy owner to list this digest",
        "A rule covers this repository and lists the digests that somebody has looked at. This one is not among them.";
    DenyListed = "deny-listed", Policy,
        "this digest was withdrawn, the message says why: deploy another release",
        "The digest, or a child of this index, is on a DenyList. Nothing overrides that: no signature, no rule, no mode of a policy. Only what runs already stays: an image that an update leaves as it was, the mirror of a static pod.";
    NotReleaseRepo = "not-release-repo", Policy,
        "promote the image to one of the listed repositories",
        "No rule of the policy covers the repository. Names are compared by whole parts: host, port and each segment of the path.";
    UnknownImageField = "unknown-image-field", Request,
        "remove the field that we do not know, or upgrade Provost",
        "The object has a field that this version does not know and that may name an image. What cannot be checked is not admitted.";
    UnsupportedKind = "unsupported-kind", Request,
        "ask the administrator to correct the webhook's rules",
        "The webhook was sent a kind of object that it does not know how to read.";
    MalformedReview = "malformed-review", Request,
        "correct the object; if it came unchanged from an API server, report a bug",
        "The request or the object in it cannot be read: missing, without containers, keys twice, another kind or namespace than the request says.";
    ReviewTooLarge = "review-too-large", Request,
        "make the object smaller than the limit shown",
        "The request is larger than 8 MiB.";
    NoPolicy = "no-policy", Policy,
        "ask the policy owner to govern this namespace",
        "No policy governs the namespace. What nobody has allowed is denied.";
    PolicyInvalid = "policy-invalid", Policy,
        "ask the policy owner to run `provost policy lint`",
        "A policy for this namespace cannot be read, and there is no earlier version that could serve.";
    Unsigned = "unsigned", Evidence,
        "sign this digest in the release pipeline",
        "Every source has answered, and there is no signature of this digest. Attestations and SBOMs are none.";
    SignatureInvalid = "signature-invalid", Evidence,
        "sign again, and treat the stored signature as suspect",
        "There is a signature that cannot be decoded, or that claims a listed key and does not verify under it.";
    WrongSigner = "wrong-signer", Evidence,
        "verifies under none of the listed keys: sign with a listed one",
        "There are signatures, and none verifies under a key of the signers that the rule names.";
    ThresholdNotMet = "threshold-not-met", Evidence,
        "get a signature from one more of the listed signers",
        "The rule wants signatures by several signers, and too few of them count. One signer counts once, whatever keys it has.";
    SubjectMismatch = "subject-mismatch", Evidence,
        "the signed statement is about other bytes: sign this digest",
        "What was signed is about another digest: a signature of other bytes hangs on this image.";
    KeyNotValid = "key-not-valid", Evidence,
        "sign with a key that is within its validity",
        "The signature verifies under a listed key whose notBefore or notAfter excludes the present time.";
    EvidenceMalformed = "evidence-malformed", Evidence,
        "replace the named artifact in the registry",
        "A signature artifact cannot be read: broken JSON, keys twice, wrong encoding, a format that is not read here.";
    AnnotationMismatch = "annotation-mismatch", Evidence,
        "sign with the annotations, or from the repository, that the rule wants",
        "A listed signer has signed, but not with the annotations, or not for the repository, that the rule asks for.";
    ImageNotFound = "image-not-found", Evidence,
        "push or promote the image first",
        "The registry says that this digest is not in this repository.";
    DigestMismatch = "digest-mismatch", Evidence,
        "stop and tell security: the registry, or the path to it, is not sound",
        "The registry delivered bytes that do not hash to the digest that was asked for.";
    ManifestInvalid = "manifest-invalid", Evidence,
        "rebuild the image with a current tool",
        "The image's manifest is not a usable image manifest or index: contradictory, empty, nested too deeply, or of an unknown type.";
    RegistryAuthFailed = "registry-auth-failed", Registry,
        "correct the registry credential or the registry's permissions",
        "The registry refused Provost: no credential, a wrong one, or a token service that the configuration does not list.";
    RateLimited = "rate-limited", Registry,
        "wait as long as shown, or give Provost an account there",
        "The registry answered 429, also after waiting as long as the deadline allowed.";
    AddressRefused = "address-refused", Registry,
        "ask the administrator to list the host, if it is meant to be used",
        "The registry's name leads to a private, loopback or link-local address, or redirects to a host that is not allowed. Nothing was sent there.";
    EvidenceUnavailable = "evidence-unavailable", Registry,
        "try again; if it stays, look at the registry",
        "The registry did not answer properly: DNS, connection, TLS, timeout, a server error, a body cut short or encoded. It is unknown whether the image is signed.";
    DeadlineExceeded = "deadline-exceeded", Ours,
        "try again: the check goes on and its answer will be ready",
        "The answer did not come before the API server's deadline. The search goes on in the background.";
    BudgetExceeded = "budget-exceeded", Request,
        "remove surplus evidence or split the pod; the limit is named",
        "A limit was reached: images in one object, candidates, bytes or requests for one image. The message names it.";
    BreakGlassDisabled = "break-glass-disabled", Policy,
        "ask the policy owner for a `breakGlass` section",
        "An override was asked for, and the policy that denies says of nobody that they may override it.";
    BreakGlassRefused = "break-glass-refused", Request,
        "ask somebody whom the policy's `breakGlass` lists to make the pod",
        "An override was asked for by somebody, or on something, for which it does not count: a person whom the policy does not list, a template, a controller's pod, a reason left over from an earlier request, a caller that has not shown that it is the API server.";
    BreakGlassMalformed = "break-glass-malformed", Request,
        "use the annotation that the message shows, with a ticket",
        "An override was asked for in a way that is none: by a label, without a ticket as the policy wants it, or without saying why.";
    GrantNotWaivable = "grant-not-waivable", Request,
        "fix the named denial: no grant may waive it",
        "An override was asked for where a denial stands that nothing overrides: an image that is not pinned or cannot be read, a withdrawn digest, bytes that are not what they should be.";
    GrantInsufficient = "grant-insufficient", Request,
        "ask for one grant that waives every denial shown",
        "An override was asked for that waives less than was denied. What several waive together does not add up.";
    AuditUnavailable = "audit-unavailable", Ours,
        "ask the administrator to free or mend the ledger's storage",
        "The ledger cannot store a record, and what cannot be recorded is not done.";
    Overloaded = "overloaded", Ours,
        "try again in a second",
        "Provost is at capacity and judged nothing: more reviews at once than it computes, more that wait for evidence, or too many bytes. Clients try again by themselves.";
    InternalError = "internal-error", Ours,
        "our fault: report it with the record id",
        "Provost failed in a way that it did not foresee, and denied.";
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
            Self::Overloaded => 429,
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
            | Self::BudgetExceeded
            | Self::BreakGlassDisabled
            | Self::BreakGlassRefused
            | Self::BreakGlassMalformed
            | Self::GrantNotWaivable
            | Self::GrantInsufficient => 403,
        }
    }

    /// Whether a policy in `warn` or `audit` mode may soften this denial. What is about the review as a whole, the
    /// policies themselves or a withdrawn digest always denies; what is wrong with an override stands beside what denies.
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
            | Self::BreakGlassDisabled
            | Self::BreakGlassRefused
            | Self::BreakGlassMalformed
            | Self::GrantNotWaivable
            | Self::GrantInsufficient
            | Self::AuditUnavailable
            | Self::Overloaded
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
