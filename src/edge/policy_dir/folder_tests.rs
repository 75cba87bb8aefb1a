//! A folder over time: what serves after each change, over swaps of a mounted `ConfigMap`, and over a restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::decision::policy::{Governing, PolicySet};

use super::file_tests::{KEY_A, KEY_B};
use super::load::{Change, ChangeKind, Known, Loaded, load};
use super::watch::PolicyDir;

const DIGEST: &str = "sha256:9ae97d36d26566ff84e8893c64a6dc4fe8ca6d1144bf5b87b2b85a32def253c7";
const UNREADABLE: &str = "a: [\n";

struct Folder {
    root: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("folder");
        std::fs::create_dir(root.path().join("policies")).expect("folder");
        Self { root }
    }

    fn policies(&self) -> PathBuf {
        self.root.path().join("policies")
    }

    fn last_good(&self) -> PathBuf {
        self.root.path().join("policies.last-good.json")
    }

    fn write(&self, name: &str, text: &str) -> &Self {
        // Renamed, so that a watch never sees a half of it.
        let beside = self.policies().join(".beside");
        std::fs::write(&beside, text).expect("file");
        std::fs::rename(beside, self.policies().join(name)).expect("rename");
        self
    }

    fn remove(&self, name: &str) -> &Self {
        std::fs::remove_file(self.policies().join(name)).expect("file");
        self
    }

    fn load(&self, previous: &Known) -> Loaded {
        load(&self.policies(), previous)
    }

    fn open(&self) -> (PolicyDir, Loaded) {
        PolicyDir::open(&self.policies(), Some(&self.last_good()))
    }
}

fn policy(name: &str, namespace: &str, tag: &str) -> String {
    format!(
        "apiVersion: provost.dev/v1\nkind: ReleasePolicy\nmetadata: {{name: {name}}}\nspec:\n  namespaces: {{names: [{namespace}]}}\n  \
         rules: [{{name: {tag}, repositories: [r.example.com/a], signatures: not-required, digests: ['{DIGEST}']}}]\n"
    )
}

fn broken(name: &str, namespace: &str) -> String {
    policy(name, namespace, "one").replace("kind:", "surplus: 1\nkind:")
}

fn deny_list(name: &str, reason: &str) -> String {
    format!(
        "apiVersion: provost.dev/v1\nkind: DenyList\nmetadata: {{name: {name}}}\nspec: {{digests: [{{digest: '{DIGEST}', reason: '{reason}'}}]}}\n"
    )
}

fn governing(set: &PolicySet, namespace: &str) -> Governing {
    set.governing(&namespace.parse().expect("namespace"))
}

/// Name and only rule of each policy, then `!name` for each broken one that denies, in a namespace.
fn serving(set: &PolicySet, namespace: &str) -> Vec<String> {
    let governing = governing(set, namespace);
    let policies = governing.policies.iter().map(|p| format!("{}:{}", p.name, p.rules[0].name));
    policies.chain(governing.broken.iter().map(|b| format!("!{}", b.name))).collect()
}

fn changes(loaded: &Loaded) -> Vec<String> {
    loaded.changes.iter().map(|Change { name, what, .. }| format!("{name} {what}")).collect()
}

#[test]
fn x_081_a_policy_that_breaks_goes_on_in_its_last_good_version() {
    let folder = Folder::new();
    let first = folder
        .write("a.yaml", &policy("a", "payments", "one"))
        .write("b.yml", &policy("b", "billing", "one"))
        .load(&Known::default());
    assert_eq!(first.problems, []);
    assert_eq!(changes(&first), ["a added", "b added"]);

    // It breaks: the last good one goes on; the other one is taken over.
    let second = folder
        .write("a.yaml", &broken("a", "payments"))
        .write("b.yml", &policy("b", "billing", "two"))
        .load(&first.known);
    assert_eq!(second.problems.len(), 1);
    assert_eq!(serving(&second.set, "payments"), ["a:one"]);
    assert_eq!(serving(&second.set, "billing"), ["b:two"]);
    assert_eq!(changes(&second), ["a broken", "b changed"]);
    assert_eq!(second.stale.len(), 1);

    // Still broken: no news. Moved to another file and mended: it is the same policy.
    let third = folder.load(&second.known);
    assert_eq!(changes(&third), [""; 0]);
    assert!(Arc::ptr_eq(&third.set, &second.set));
    let fourth = folder.remove("a.yaml").write("c.json", &policy("a", "payments", "three")).load(&third.known);
    assert_eq!(changes(&fourth), ["a changed"]);
    assert_eq!(serving(&fourth.set, "payments"), ["a:three"]);
    assert!(fourth.stale.is_empty() && fourth.problems.is_empty());

    // Gone is gone.
    let fifth = folder.remove("c.json").load(&fourth.known);
    assert_eq!(changes(&fifth), ["a removed"]);
    assert_eq!(serving(&fifth.set, "payments"), [""; 0]);
}

#[test]
fn x_081_broken_without_a_good_version() {
    for (case, text, payments, billing) in [
        ("its namespaces are denied", broken("new", "payments"), vec!["old:one", "!new"], vec!["old:one"]),
        ("also where its name is no name", broken("NEW", "payments"), vec!["old:one", "!"], vec!["old:one"]),
        (
            "also where its kind is misspelt",
            policy("new", "payments", "a").replace("ReleaseP", "RelaseP"),
            vec!["old:one", "!new"],
            vec!["old:one"],
        ),
        ("namespaces unreadable: as it was", broken("new", "PAY"), vec!["old:one"], vec!["old:one"]),
        (
            "labels alone: as it was",
            broken("new", "x").replace("names: [x]", "labels: {a: b}"),
            vec!["old:one"],
            vec!["old:one"],
        ),
        ("not even YAML: as it was", UNREADABLE.to_owned(), vec!["old:one"], vec!["old:one"]),
        ("no document: as it was", "# nothing\n".to_owned(), vec!["old:one"], vec!["old:one"]),
    ] {
        let folder = Folder::new();
        let first = folder.write("old.yaml", &policy("old", "\"*\"", "one")).load(&Known::default());
        let second = folder.write("new.yaml", &text).load(&first.known);
        assert!(!second.problems.is_empty(), "{case}");
        let short = |set: &PolicySet, namespace| {
            serving(set, namespace)
                .into_iter()
                .map(|s| if s.contains("new.yaml") { "!".to_owned() } else { s })
                .collect::<Vec<_>>()
        };
        assert_eq!(short(&second.set, "payments"), payments, "{case}");
        assert_eq!(short(&second.set, "billing"), billing, "{case}");
    }
}

#[test]
fn x_081_what_cannot_be_read_holds_the_whole_set() {
    let folder = Folder::new();
    folder.write("a.yaml", &policy("a", "payments", "one")).write("b.yaml", &policy("b", "billing", "one"));
    let first = folder.write("d.yaml", &deny_list("d", "x")).load(&Known::default());
    folder
        .write("junk.yaml", UNREADABLE)
        .write("a.yaml", &policy("a", "payments", "two"))
        .remove("b.yaml")
        .remove("d.yaml");
    let second = folder.load(&first.known);
    assert_eq!(*second.set, *first.set);
    assert_eq!(changes(&second), ["a broken", "b broken", "d broken"]);
    // What is known to be broken denies even then: that only narrows.
    let third = folder.write("c.yaml", &broken("c", "tools")).load(&second.known);
    assert_eq!(serving(&third.set, "tools"), ["!c"]);
    assert_eq!(serving(&third.set, "payments"), ["a:one"]);
    // Mended: all that was written meanwhile is taken over.
    let last = folder.remove("junk.yaml").remove("c.yaml").load(&third.known);
    assert_eq!(serving(&last.set, "payments"), ["a:two"]);
    assert_eq!(serving(&last.set, "billing"), [""; 0]);
    assert!(last.set.deny_lists.is_empty() && last.set.broken.is_empty());
}

#[test]
fn x_081_at_a_start_with_nothing_before() {
    for (case, text, all) in [
        ("not YAML", UNREADABLE.to_owned(), true),
        ("namespaces unreadable", broken("new", "PAY"), true),
        ("deny-list", deny_list("d", ""), true),
        ("namespaces readable", broken("new", "payments"), false),
    ] {
        let folder = Folder::new();
        folder.write("good.yaml", &policy("good", "billing", "one"));
        let loaded = folder.write("new.yaml", &text).load(&Known::default());
        assert_eq!(!governing(&loaded.set, "billing").broken.is_empty(), all, "{case}");
        assert!(!governing(&loaded.set, "payments").broken.is_empty(), "{case}");
        assert_eq!(loaded.known.good().is_none(), all, "{case}");
        // A second look says the same, and a mended file ends it.
        let again = folder.load(&loaded.known);
        assert_eq!(!governing(&again.set, "billing").broken.is_empty(), all, "{case}");
        let mended = folder.remove("new.yaml").load(&again.known);
        assert!(mended.set.broken.is_empty() && mended.problems.is_empty(), "{case}");
    }
}

#[test]
fn a_broken_deny_list() {
    let folder = Folder::new();
    folder.write("a.yaml", &policy("a", "payments", "one")).write("d.yaml", &deny_list("d", "old"));
    let first = folder.load(&Known::default());
    // It keeps its last good version.
    let second =
        folder.write("d.yaml", &deny_list("d", "")).write("a.yaml", &policy("a", "payments", "two")).load(&first.known);
    let withdrawn = |set: &PolicySet| {
        set.deny_lists.values().map(|l| l.digests.values().map(|w| w.reason.clone()).collect()).collect::<Vec<Vec<_>>>()
    };
    assert_eq!(withdrawn(&second.set), [["old"]]);
    assert_eq!(serving(&second.set, "payments"), ["a:two"]);
    // A new one that breaks holds nothing else back.
    let third = folder
        .write("e.yaml", &deny_list("e", ""))
        .write("a.yaml", &policy("a", "payments", "three"))
        .load(&second.known);
    assert_eq!(serving(&third.set, "payments"), ["a:three"]);
    assert_eq!((third.problems.len(), third.set.deny_lists.len()), (2, 1));
}

#[test]
fn x_083_the_same_name_twice() {
    let folder = Folder::new();
    let first = folder.write("a.yaml", &policy("a", "payments", "one")).load(&Known::default());
    // The last good version goes on, and neither of the two replaces it.
    folder.write("a.yaml", &policy("a", "payments", "two"));
    let second = folder.write("z.yaml", &policy("a", "billing", "three")).load(&first.known);
    assert_eq!(serving(&second.set, "payments"), ["a:one"]);
    assert_eq!(serving(&second.set, "billing"), [""; 0]);
    let message = second.problems[0].to_string();
    assert!(
        message.contains("z.yaml:3:18: ReleasePolicy `a` is already defined in ") && message.contains("a.yaml:3:18"),
        "{message}"
    );
    // Without one, the namespaces of both are denied.
    let fresh = folder.load(&Known::default());
    assert_eq!(serving(&fresh.set, "payments"), ["!a"]);
    assert_eq!(serving(&fresh.set, "billing"), ["!a"]);
    // A policy and a deny-list may have one name.
    let other = folder.write("z.yaml", &deny_list("a", "x")).load(&Known::default());
    assert_eq!(other.problems, []);
    // Twice in one file is twice.
    folder.remove("z.yaml").write("a.yaml", &format!("{}---\n{}", policy("a", "x", "one"), policy("a", "x", "one")));
    assert_eq!(folder.load(&Known::default()).problems.len(), 1);
}

#[test]
fn what_is_read_of_a_folder() {
    let folder = Folder::new();
    folder
        .write("a.yaml", &policy("a", "a", "one"))
        .write("b.yml", &policy("b", "b", "one"))
        .write("README.md", "text");
    folder.write(".hidden.yaml", UNREADABLE).write("a.yaml~", UNREADABLE);
    std::fs::create_dir(folder.policies().join("keys")).expect("folder");
    let loaded = folder.load(&Known::default());
    assert_eq!((loaded.problems.len(), loaded.set.policies.len()), (0, 2));

    let first = loaded;
    for (case, name, bytes) in
        [("too large", "c.yaml", "#".repeat(1_048_577).into_bytes()), ("not UTF-8", "c.yaml", vec![0xff, 0xfe])]
    {
        std::fs::write(folder.policies().join(name), bytes).expect("file");
        let loaded = folder.remove("a.yaml").load(&first.known);
        assert_eq!((loaded.problems.len(), loaded.set.policies.len()), (1, 2), "{case}: {:?}", loaded.problems);
        folder.write("a.yaml", &policy("a", "a", "one")).remove(name);
    }
    std::fs::create_dir(folder.policies().join("d.yaml")).expect("folder");
    assert!(folder.load(&first.known).problems[0].to_string().ends_with("d.yaml: is not a regular file"));
    std::fs::remove_dir(folder.policies().join("d.yaml")).expect("folder");
    for index in 0..1000 {
        folder.write(&format!("n{index}.yaml"), "");
    }
    assert!(folder.load(&first.known).problems[0].to_string().ends_with("holds more than 1000 policy files"));
}

#[test]
fn a_folder_that_is_not_there() {
    let folder = Folder::new();
    let first = folder.write("a.yaml", &policy("a", "payments", "one")).load(&Known::default());
    std::fs::remove_dir_all(folder.policies()).expect("folder");
    let gone = folder.load(&first.known);
    assert_eq!(*gone.set, *first.set);
    assert!(gone.problems[0].to_string().ends_with("policies: cannot be read: it is not there"));
    assert_eq!(folder.load(&Known::default()).set.broken.len(), 1);
}

/// Writes a version as a kubelet does: a new folder, and the link `..data` renamed over.
fn swap(mount: &Path, version: usize, files: &[(&str, String)]) {
    let data = mount.join(format!("..v{version}"));
    std::fs::create_dir(&data).expect("folder");
    for (name, text) in files {
        std::fs::write(data.join(name), text).expect("file");
        let link = mount.join(name);
        if std::fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink(format!("..data/{name}"), link).expect("link");
        }
    }
    std::os::unix::fs::symlink(format!("..v{version}"), mount.join("..data_tmp")).expect("link");
    std::fs::rename(mount.join("..data_tmp"), mount.join("..data")).expect("rename");
    if version > 0 {
        std::fs::remove_dir_all(mount.join(format!("..v{}", version - 1))).expect("folder");
    }
}

#[test]
fn a_mounted_config_map_is_followed_over_twenty_swaps() {
    let folder = Folder::new();
    let signed = |tag: usize| {
        policy("a", "payments", &format!("r{tag}"))
            + "  signers: {s: {keys: [{file: key.pub}], transparencyLog: not-required}}\n"
    };
    let key = |version: usize| if version.is_multiple_of(2) { KEY_A } else { KEY_B }.to_owned();
    swap(&folder.policies(), 0, &[("p.yaml", signed(0)), ("key.pub", key(0))]);
    let (dir, first) = folder.open();
    assert_eq!(first.problems, []);
    assert_eq!(dir.reload_if_changed().map(|l| changes(&l)), None);
    let mut hashes = std::collections::BTreeSet::from([first.set.policies.values().next().map(|p| p.hash)]);
    for version in 1..=20 {
        // Every second time it is the key alone that changes.
        swap(&folder.policies(), version, &[("p.yaml", signed(version / 2)), ("key.pub", key(version))]);
        let loaded = dir.reload_if_changed().expect("a change");
        assert_eq!(loaded.problems, [], "swap {version}");
        assert_eq!(changes(&loaded), ["a changed"], "swap {version}");
        assert_eq!(dir.reload_if_changed().map(|l| changes(&l)), None, "swap {version}");
        assert_eq!(*dir.current(), *loaded.set);
        hashes.insert(loaded.set.policies.values().next().map(|p| p.hash));
    }
    assert_eq!(hashes.len(), 21);
    // The key is taken away: its policy goes on as it was.
    std::fs::remove_file(folder.policies().join("key.pub")).expect("key");
    let loaded = dir.reload_if_changed().expect("a change");
    assert_eq!(changes(&loaded), ["a broken"]);
    assert_eq!(serving(&dir.current(), "payments").len(), 1);
}

#[test]
fn the_last_good_set_survives_a_restart() {
    let folder = Folder::new();
    folder.write("key.pub", KEY_A).write("d.yaml", &deny_list("d", "withdrawn: \"quotes\" and ü"));
    let text = policy("a", "payments", "one")
        + "  signers: {s: {keys: [{file: key.pub, notAfter: 2030-01-01}], transparencyLog: not-required}}\n";
    let (_, first) = folder.write("a.yaml", &text).open();
    assert_eq!(first.problems, []);
    assert!(folder.last_good().exists());

    // Broken and the key gone, then a restart: it serves as before, from what was kept.
    folder.write("a.yaml", &text.replace("digests", "digest")).remove("key.pub");
    let (dir, second) = folder.open();
    assert_eq!(*second.set, *first.set);
    assert_eq!(second.stale.len(), 1);
    assert_eq!(changes(&second), ["a broken"]);
    // What goes on is kept further.
    drop(dir);
    let (_, third) = folder.open();
    assert_eq!(*third.set, *first.set);

    // Unreadable as a whole: the same. So too when the folder is not there yet.
    folder.write("a.yaml", UNREADABLE);
    assert_eq!(*folder.open().1.set, *first.set);
    std::fs::rename(folder.policies(), folder.root.path().join("away")).expect("rename");
    assert_eq!(*folder.open().1.set, *first.set);
    std::fs::rename(folder.root.path().join("away"), folder.policies()).expect("rename");

    // Mended: what is kept is replaced.
    let (_, fourth) = folder.write("a.yaml", &policy("a", "payments", "two")).open();
    assert_eq!(serving(&fourth.set, "payments"), ["a:two"]);
    let (_, fifth) = folder.write("a.yaml", UNREADABLE).open();
    assert_eq!(serving(&fifth.set, "payments"), ["a:two"]);
}

#[test]
fn what_was_kept_and_is_damaged_is_ignored() {
    let folder = Folder::new();
    let (_, first) = folder.write("a.yaml", &policy("a", "payments", "one")).open();
    assert_eq!(first.problems, []);
    let kept = std::fs::read_to_string(folder.last_good()).expect("kept");
    folder.write("a.yaml", UNREADABLE);
    assert_eq!(folder.open().1.set.broken.len(), 0, "the twin of the rows below");
    for (case, damaged) in [
        ("one letter", kept.replacen("payments", "payment5", 1)),
        ("cut", kept[..kept.len() - 20].to_owned()),
        ("empty", String::new()),
        ("another format", kept.replacen("policies/v1", "policies/v2", 1)),
        ("surplus", kept.replacen("{\"format", "{\"x\":1,\"format", 1)),
        ("a policy more", kept.replacen("[{", "[{},{", 1)),
    ] {
        assert_ne!(damaged, kept, "{case}");
        std::fs::write(folder.last_good(), damaged).expect("file");
        let (_, loaded) = folder.open();
        assert_eq!(governing(&loaded.set, "anything").broken.len(), 1, "{case}");
        assert!(loaded.problems.iter().any(|p| p.to_string().contains("cannot be used and are ignored")), "{case}");
        // What denies everything is not kept as good.
        assert_eq!(loaded.known.good(), None, "{case}");
    }
}

#[test]
fn a_set_that_cannot_be_kept_is_a_problem_and_tried_again() {
    let folder = Folder::new();
    folder.write("a.yaml", &policy("a", "payments", "one"));
    let nowhere = folder.root.path().join("nowhere");
    let (dir, loaded) = PolicyDir::open(&folder.policies(), Some(&nowhere.join("kept.json")));
    assert_eq!(serving(&dir.current(), "payments"), ["a:one"]);
    assert!(
        loaded.problems[0].to_string().contains("could not be kept for a restart: it is not there"),
        "{:?}",
        loaded.problems
    );
    std::fs::create_dir(&nowhere).expect("folder");
    assert_eq!(dir.reload_if_changed().map(|l| changes(&l)), None);
    assert!(nowhere.join("kept.json").exists());
    let names: Vec<_> = std::fs::read_dir(&nowhere).expect("folder").map(|e| e.expect("entry").file_name()).collect();
    assert_eq!(names, ["kept.json"], "nothing is left beside it");
}

#[tokio::test]
async fn the_watch_tells_of_each_change() {
    let folder = Folder::new();
    folder.write("a.yaml", &policy("a", "payments", "r0"));
    let (dir, _) = PolicyDir::open(&folder.policies(), None);
    let dir = Arc::new(dir);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let watch = tokio::spawn(Arc::clone(&dir).watch_every(
        Duration::from_millis(5),
        Duration::from_millis(2),
        move |loaded: &Loaded| {
            let _ = tell.send((changes(loaded), serving(&loaded.set, "payments")));
        },
    ));
    for round in 1..=3 {
        folder.write("a.yaml", &policy("a", "payments", &format!("r{round}")));
        let (changes, serving) = tokio::time::timeout(Duration::from_secs(20), told.recv())
            .await
            .expect("in time")
            .expect("the watch goes on");
        assert_eq!((changes, serving), (vec!["a changed".to_owned()], vec![format!("a:r{round}")]));
    }
    folder.write("a.yaml", UNREADABLE);
    let (told_changes, serving) =
        tokio::time::timeout(Duration::from_secs(20), told.recv()).await.expect("in time").expect("the watch goes on");
    assert_eq!((told_changes, serving), (vec!["a broken".to_owned()], vec!["a:r3".to_owned()]));
    watch.abort();
    assert_eq!(ChangeKind::Broken.to_string(), "broken");
}
