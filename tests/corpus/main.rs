//! The kept corpus of the fuzz targets, as ordinary tests: every file through its target. It must never pass over a target
//! without files.

#[path = "../../fuzz/targets.rs"]
mod targets;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use provost::decision::evidence::VerifiedStatement;

/// The longest that one file may keep a processor busy, in a build that is not optimised.
const LIMIT: Duration = Duration::from_millis(250);

/// How long this thread has been on a processor: other than the time that passes, it says nothing about who else is.
fn on_processor() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux says how long a thread ran");
    Duration::from_nanos(text.split(' ').next().and_then(|first| first.parse().ok()).expect("nanoseconds"))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).expect("a folder of the corpus");
    entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("plain text")).collect()
}

#[test]
fn every_kept_file_runs_through_its_target() {
    let mut slow = Vec::new();
    for (name, target) in targets::TARGETS {
        let corpus = folder().join("corpus").join(name);
        let files = names(&corpus);
        assert!(!files.is_empty(), "{} is empty", corpus.display());
        for file in files {
            let bytes = std::fs::read(corpus.join(&file)).expect("a file");
            println!("{name}/{file}");
            let begun = on_processor();
            target(&bytes);
            let took = on_processor().saturating_sub(begun);
            if took >= LIMIT {
                slow.push(format!("{name}/{file}: {took:?}"));
            }
        }
    }
    assert!(slow.is_empty(), "over {LIMIT:?}: {slow:#?}");
}

/// Else the target says nothing about proof.
#[test]
fn manifests_that_lead_to_signatures_are_proof() {
    for (file, proofs) in
        [("legacy_signatures", 2), ("legacy_referrer", 1), ("bundle_referrer", 1), ("bundle_other_subject", 0)]
    {
        let bytes = std::fs::read(folder().join("corpus/manifest").join(file)).expect("a file");
        let facts = targets::evidence_in(&bytes);
        let found: BTreeSet<_> = facts.statements.iter().map(VerifiedStatement::evidence).collect();
        assert_eq!(found.len(), proofs, "{file}: {:?}", facts.rejected);
    }
}

#[test]
fn every_target_has_a_program_and_a_corpus() {
    let targets: BTreeSet<String> = targets::TARGETS.map(|(name, _)| name.to_owned()).into_iter().collect();
    let programs =
        names(&folder().join("targets")).iter().map(|file| file.trim_end_matches(".rs").to_owned()).collect();
    assert_eq!(targets, programs);
    assert_eq!(targets, names(&folder().join("corpus")));
    let manifest = std::fs::read_to_string(folder().join("Cargo.toml")).expect("fuzz/Cargo.toml");
    for name in &targets {
        assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"targets/{name}.rs\"")), "{name} is not built");
    }
}
