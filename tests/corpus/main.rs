//! The kept corpus of the fuzz targets, as ordinary tests: every file through its target. It must never pass over a target
//! without files.

#[path = "../../fuzz/targets.rs"]
mod targets;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The longest that one file may take; it is measured anew where a busy machine may be the reason.
const LIMIT: Duration = Duration::from_millis(100);

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
            let took = (0..5).map(|_| {
                let start = Instant::now();
                target(&bytes);
                start.elapsed()
            });
            let mut fastest = Duration::MAX;
            for took in took {
                fastest = fastest.min(took);
                if fastest < LIMIT {
                    break;
                }
            }
            if fastest >= LIMIT {
                slow.push(format!("{name}/{file}: {fastest:?}"));
            }
        }
    }
    assert!(slow.is_empty(), "over {LIMIT:?}: {slow:#?}");
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
