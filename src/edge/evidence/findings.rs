//! What one search has found so far, and what each failure means for it. It must never turn a failure into "nothing there".

use std::cmp::Reverse;

use super::limits::REJECTED_KEPT;
use super::manifest::{Invalid, Unread};
use crate::decision::code::Code;
use crate::decision::evidence::{Facts, Rejected, Unanswered, VerifiedStatement};
use crate::decision::reference::Digest;
use crate::edge::registry::Failure;

/// Codes of candidates, the farthest from a proof first: the later a check fails, the nearer it came.
const NEARNESS: [Code; 7] = [
    Code::ManifestInvalid,
    Code::EvidenceMalformed,
    Code::BudgetExceeded,
    Code::DigestMismatch,
    Code::SubjectMismatch,
    Code::SignatureInvalid,
    Code::WrongSigner,
];

/// Facts in the making.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) facts: Facts,
    /// Whether something was added that may decide the question.
    pub(super) changed: bool,
    /// A part of the image's index could not be read.
    pub(super) children_unknown: bool,
    image: String,
}

impl Findings {
    pub(super) fn new(image: Digest) -> Self {
        let image = format!("image {image}");
        Self { facts: Facts::default(), changed: false, children_unknown: false, image }
    }

    /// Something was verified.
    pub(super) fn statement(&mut self, statement: VerifiedStatement) {
        self.facts.statements.push(statement);
        self.changed = true;
    }

    /// A whole source failed. Only "not found" means that it has nothing.
    pub(super) fn source_failed(&mut self, failure: Failure) {
        match failure {
            Failure::NotFound { .. } => {}
            Failure::BudgetExceeded { detail } => self.limit(detail),
            Failure::DigestMismatch { detail } => self.unanswered(Code::EvidenceUnavailable, detail),
            Failure::AuthFailed { .. }
            | Failure::RateLimited { .. }
            | Failure::AddressRefused { .. }
            | Failure::Unavailable { .. }
            | Failure::DeadlineExceeded { .. } => self.unanswered(failure.code(), reader(&failure)),
        }
    }

    /// What lies under a tag is no manifest that is read. Nobody has named these bytes: where they are no document at all, the
    /// registry has not answered.
    pub(super) fn tag_unread(&mut self, source: &str, unread: Unread) {
        match unread {
            Unread::NoDocument(detail) => self.unanswered(Code::EvidenceUnavailable, format!("{source}: {detail}")),
            Unread::Invalid(Invalid(detail)) => self.reject(source, Code::ManifestInvalid, detail),
        }
    }

    /// Something that a list or a manifest names could not be had.
    pub(super) fn candidate_failed(&mut self, source: &str, failure: Failure) {
        match failure {
            Failure::NotFound { .. } => {
                self.reject(
                    source,
                    Code::EvidenceMalformed,
                    "it is named, but the registry does not have it".to_owned(),
                );
            }
            Failure::DigestMismatch { detail } => self.reject(source, Code::DigestMismatch, detail),
            Failure::BudgetExceeded { detail } => {
                self.reject(source, Code::BudgetExceeded, detail.clone());
                self.limit(detail);
            }
            Failure::AuthFailed { .. }
            | Failure::RateLimited { .. }
            | Failure::AddressRefused { .. }
            | Failure::Unavailable { .. }
            | Failure::DeadlineExceeded { .. } => self.unanswered(failure.code(), reader(&failure)),
        }
    }

    /// The image's own manifest, or an index within it, could not be had.
    pub(super) fn image_failed(&mut self, failure: &Failure) {
        match failure {
            Failure::NotFound { .. } | Failure::DigestMismatch { .. } | Failure::BudgetExceeded { .. } => {
                self.image_fault(failure.code(), reader(failure));
            }
            Failure::AuthFailed { .. }
            | Failure::RateLimited { .. }
            | Failure::AddressRefused { .. }
            | Failure::Unavailable { .. }
            | Failure::DeadlineExceeded { .. } => {
                self.children_unknown = true;
                self.unanswered(failure.code(), reader(failure));
            }
        }
    }

    /// Something is wrong with the image itself.
    pub(super) fn image_fault(&mut self, code: Code, detail: String) {
        self.children_unknown = true;
        self.facts.image_fault.get_or_insert_with(|| Rejected { source: self.image.clone(), code, detail });
        self.changed = true;
    }

    /// A source gave no answer.
    pub(super) fn unanswered(&mut self, code: Code, detail: String) {
        let unanswered = Unanswered { code, detail };
        if !self.facts.unanswered.contains(&unanswered) && self.facts.unanswered.len() < REJECTED_KEPT {
            self.facts.unanswered.push(unanswered);
        }
    }

    /// A limit cut the search; the first one is kept.
    pub(super) fn limit(&mut self, limit: String) {
        self.facts.limit.get_or_insert(limit);
    }

    /// A candidate proves nothing.
    pub(super) fn reject(&mut self, source: &str, code: Code, detail: String) {
        self.keep_rejected(Rejected { source: source.to_owned(), code, detail });
    }

    /// Keeps the candidates that came nearest to success, nearest first.
    pub(super) fn keep_rejected(&mut self, rejected: Rejected) {
        let place = |r: &Rejected| (Reverse(nearness(r.code)), r.source.clone());
        let at = self.facts.rejected.partition_point(|kept| place(kept) <= place(&rejected));
        self.facts.rejected.insert(at, rejected);
        self.facts.rejected.truncate(REJECTED_KEPT);
    }
}

/// A failure for the reader; how long to wait is shown.
pub(super) fn reader(failure: &Failure) -> String {
    if let Failure::RateLimited { retry_after: Some(wait), .. } = failure {
        return format!("{failure}, Retry-After: {} s", wait.as_secs());
    }
    failure.to_string()
}

fn nearness(code: Code) -> Option<usize> {
    NEARNESS.iter().position(|near| *near == code)
}
