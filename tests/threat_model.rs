//! The threat model claims no id without a test that carries it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Ids that a name carries, for example `x_027_x_028_…`.
fn ids_in(name: &str) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    let parts: Vec<&str> = name.split('_').collect();
    for pair in parts.windows(2) {
        if pair[0] == "x" && pair[1].len() == 3 && pair[1].bytes().all(|b| b.is_ascii_digit()) {
            ids.insert(format!("X-{}", pair[1]));
        }
    }
    ids
}

fn count(ids: BTreeSet<String>, tests: &mut BTreeMap<String, usize>) {
    for id in ids {
        *tests.entry(id).or_default() += 1;
    }
}

fn tests_below(folder: &Path, tests: &mut BTreeMap<String, usize>) {
    for entry in fs::read_dir(folder).expect("folder") {
        let path = entry.expect("entry").path();
        let name = path.file_name().expect("name").to_string_lossy().into_owned();
        if path.is_dir() {
            if path.join("want.json").exists() {
                count(ids_in(&name), tests);
            } else if name != "target" && name != "tools" {
                tests_below(&path, tests);
            }
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = fs::read_to_string(&path).expect("text");
            for line in text.lines().map(str::trim) {
                let Some((_, name)) = line.split_once("fn ") else { continue };
                let name = name.split('(').next().unwrap_or_default();
                count(ids_in(name), tests);
            }
        }
    }
}

/// The ids in the first column of the tables between two headings.
fn ids_between(page: &str, from: &str, to: &str) -> BTreeSet<String> {
    let part = page.split(from).nth(1).expect(from).split(to).next().expect(to);
    part.lines().filter_map(|line| line.strip_prefix("| X-")).map(|rest| format!("X-{}", &rest[..3])).collect()
}

#[test]
fn every_id_that_is_claimed_has_a_test() {
    let page = fs::read_to_string(root().join("docs/threat-model.md")).expect("docs/threat-model.md");
    let mut tests = BTreeMap::new();
    tests_below(&root().join("src"), &mut tests);
    tests_below(&root().join("tests"), &mut tests);
    let claimed = ids_between(&page, "\n## Withstood", "\n## Not in this version");
    let later = ids_between(&page, "\n## Not in this version", "\n## Not stopped");
    assert!(claimed.len() > 60, "only {} ids are claimed", claimed.len());
    let bare: Vec<_> = claimed.iter().filter(|id| !tests.contains_key(*id)).collect();
    assert!(bare.is_empty(), "claimed in docs/threat-model.md without a test: {bare:?}");
    assert!(claimed.is_disjoint(&later), "claimed and put off at once");
    println!("{} ids claimed, each with a test ({} tests carry one)", claimed.len(), tests.values().sum::<usize>());
}
