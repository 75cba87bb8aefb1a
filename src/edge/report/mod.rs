//! The verdicts on manifests as programs read them: JSON of our own, and SARIF 2.1.0. It must never judge, and never say
//! anything that is not in a verdict.

mod json;
mod sarif;

pub use json::{SCHEMA_VERSION, json, schema};
pub use sarif::sarif;

use crate::decision::verdict::Verdict;
use crate::edge::manifests::{Problem, Workload};

/// Everything that was found in manifests.
#[derive(Debug, Default)]
pub struct Report {
    /// Each workload with its verdict, in the order of the manifests.
    pub checked: Vec<(Workload, Verdict)>,
    /// How many objects have no pods.
    pub skipped: usize,
    /// What could not be read.
    pub problems: Vec<Problem>,
}

/// How many ended how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Workloads that would be admitted, and about which nobody complains.
    pub admitted: usize,
    /// Workloads that would be denied, and those that only an override would let in.
    pub denied: usize,
    /// Workloads that do not hold, where the policy's owner enforces nothing.
    pub would_deny: usize,
    /// Objects without pods.
    pub skipped: usize,
    /// Files and documents that could not be read.
    pub unreadable: usize,
}

impl Report {
    /// How many ended how.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals { skipped: self.skipped, unreadable: self.problems.len(), ..Totals::default() };
        for (_, verdict) in &self.checked {
            match verdict {
                Verdict::Admit(_) | Verdict::NoImages => totals.admitted += 1,
                Verdict::Deny(_) | Verdict::Override(_) => totals.denied += 1,
                Verdict::WouldDeny(_) => totals.would_deny += 1,
            }
        }
        totals
    }
}
