//! Policy files looked at without serving them. It must never call good what a server would refuse: it is the same reader.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use crate::decision::policy::{PolicySet, Signer};

use super::compile::{Document, Good, PolicyPlaces};
use super::fault::{Fault, PolicyError, sort};
use super::folder::{Contents, Snapshot};
use super::load::{Known, merge};

/// What was found in some files.
#[derive(Debug, Clone)]
pub struct Linted {
    /// The good policies and deny-lists.
    pub set: Arc<PolicySet>,
    /// How many files there are.
    pub files: usize,
    /// What is wrong, by file and position.
    pub problems: Vec<PolicyError>,
    /// What is legal and unwise, by file and position.
    pub warnings: Vec<PolicyError>,
    /// Something could not be read at all, so that nothing can be said about it.
    pub could_not_tell: bool,
}

/// Reads files and folders as one set. `now` is for keys that no longer count.
#[must_use]
pub fn lint(paths: &[PathBuf], now: Timestamp) -> Linted {
    let mut seen = BTreeSet::new();
    let mut all = Contents::default();
    let mut files = 0;
    for path in paths {
        let mut snapshot = if path.is_dir() { Snapshot::of_folder(path) } else { Snapshot::of_file(path) };
        let found = snapshot.len();
        snapshot.leave_out(&mut seen);
        files += snapshot.len();
        all.add(snapshot.contents());
        if path.is_dir() && found == 0 && all.unreadable.is_empty() {
            all.warnings.push(PolicyError::of_file(path.display().to_string(), Fault::NoFiles));
        }
    }
    let expired: Vec<PolicyError> =
        all.documents.iter().flat_map(|(file, document)| expired(file, document, now)).collect();
    all.warnings.extend(expired);
    let could_not_tell = files == 0 || all.unreadable.iter().any(|error| is_out_of_reach(&error.fault));
    let loaded = merge(all, &Known::default());
    let mut warnings = loaded.warnings;
    sort(&mut warnings);
    Linted { set: loaded.set, files, problems: loaded.problems, warnings, could_not_tell }
}

fn expired(file: &str, document: &Document, now: Timestamp) -> Vec<PolicyError> {
    let Some(Good::Policy(policy, PolicyPlaces { signers, .. })) = &document.good else { return Vec::new() };
    signers
        .iter()
        .filter(|(name, _)| {
            let keys = policy.signers.get(name).map(Signer::keys).unwrap_or_default();
            keys.iter().all(|key| key.not_after.is_some_and(|until| until < now))
        })
        .map(|(name, at)| PolicyError::at(file, *at, Fault::ExpiredSigner(name.to_string())))
        .collect()
}

/// Whether a fault is of the disk rather than of a policy.
fn is_out_of_reach(fault: &Fault) -> bool {
    matches!(fault, Fault::Unreadable(_) | Fault::NotAFile)
}
