//! The house holds: what each floor may name, who may vouch for evidence, and which crates may come in.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a folder, as its path from the project's root and its text without comments and test modules.
fn code_below(folder: &str) -> Vec<(String, String)> {
    let mut files = Vec::new();
    collect(&root().join(folder), &mut files);
    assert!(!files.is_empty(), "{folder} has no Rust files");
    files
}

fn collect(folder: &Path, files: &mut Vec<(String, String)>) {
    let mut entries: Vec<_> = fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let name = path.strip_prefix(root()).expect("below the root").display().to_string();
            files.push((name, without_tests(&fs::read_to_string(&path).expect("text"))));
        }
    }
}

/// Comments and everything from the first test module on are left out: tests stand last in a file.
fn without_tests(text: &str) -> String {
    let mut code = text;
    for begin in ["\n#[cfg(test)]\nmod ", "\n#[cfg(test)]\npub(crate) mod "] {
        code = code.split(begin).next().unwrap_or(code);
    }
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn is_test_only(file: &str) -> bool {
    file.ends_with("tests.rs") || file.contains("/tests/") || file.ends_with("/scripted.rs")
}

/// Fails with every place in which one of the words stands.
fn assert_absent(folder: &str, words: &[&str], why: &str, except: impl Fn(&str, &str) -> bool) {
    let mut found = Vec::new();
    for (file, code) in code_below(folder) {
        for (number, line) in code.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                if !is_test_only(&file) && !except(&file, line) {
                    found.push(format!("{file}:{}: {word}: {}", number + 1, line.trim()));
                }
            }
        }
    }
    assert!(found.is_empty(), "{why}\n{}", found.join("\n"));
}

#[test]
fn the_ground_floor_touches_nothing() {
    assert_absent(
        "src/decision",
        &[
            "tokio",
            "axum",
            "hyper",
            "kube::",
            "k8s_openapi",
            "reqwest",
            "rusqlite",
            "sigstore",
            "rustls",
            "moka",
            "arc_swap",
            "tracing",
            "metrics::",
            "std::fs",
            "std::net",
            "std::env",
            "std::process",
            "std::thread",
            "SystemTime",
            "Instant",
            "async ",
            ".await",
            "::now()",
            "crate::edge",
            "crate::command",
            "crate::gate",
        ],
        "src/decision must stay pure: time, randomness and bytes come in as arguments",
        // The last is how Kubernetes names its own parts as users.
        |_, line| {
            line.contains("https://") || line.contains("\"system:kube-\"") || line.contains("crate::edge::sigstore` ")
        },
    );
}

#[test]
fn the_first_floor_names_no_command_and_no_rule() {
    assert_absent(
        "src/edge",
        &[
            "crate::command",
            "crate::gate",
            "decision::decide",
            "decision::plan",
            "decide::{",
            "Proof {",
            "Ground::Rule {",
        ],
        "an edge turns bytes into types and back: it decides nothing and knows no command",
        |_, line| line.contains("Ground::Rule { ") && line.contains("..") && line.contains("=>"),
    );
}

#[test]
fn only_the_verifier_vouches_for_evidence() {
    let mut callers = Vec::new();
    for (file, code) in code_below("src") {
        if code.contains("::vouch(") && !is_test_only(&file) {
            callers.push(file);
        }
    }
    assert_eq!(callers, ["src/edge/sigstore/verify.rs"], "a VerifiedStatement is made by the file that verified it");
}

#[test]
fn only_decide_makes_verdicts() {
    let mut makers = Vec::new();
    for (file, code) in code_below("src") {
        for made in ["Admitted {", "Denied {", "WouldDeny {", "Overridden {"] {
            let is_made = |line: &str| {
                line.find(made).is_some_and(|at| !line[..at].ends_with(char::is_alphanumeric))
                    && !line.contains("struct ")
                    && !line.contains("impl ")
            };
            if code.lines().any(is_made) && !is_test_only(&file) {
                makers.push(file.clone());
            }
        }
    }
    makers.dedup();
    assert_eq!(makers, ["src/decision/decide.rs"], "the one function that makes verdicts is in decide.rs");
}

#[test]
fn the_binary_only_parses_and_calls() {
    let main = fs::read_to_string(root().join("src/main.rs")).expect("src/main.rs");
    assert!(main.lines().count() < 30, "src/main.rs parses flags and calls a command");
}

#[test]
fn one_crypto_provider_and_no_foreign_c_libraries() {
    // Cargo.lock also names what no feature switches on; the tree is what is compiled.
    let tree = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--edges", "normal,build", "--prefix", "none"])
        .current_dir(root())
        .output()
        .expect("cargo tree");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).expect("text");
    let packages: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(packages.contains(&"aws-lc-rs"), "the crypto provider is aws-lc-rs");
    for banned in ["ring", "openssl", "openssl-sys", "native-tls", "oci-client", "docker_credential", "serde_yaml"] {
        assert!(!packages.contains(&banned), "{banned} is compiled in; deny.toml says why it must not be");
    }
}

#[test]
fn every_module_says_what_it_is() {
    let mut silent = Vec::new();
    for folder in ["src", "tests"] {
        let mut files = Vec::new();
        collect(&root().join(folder), &mut files);
        for (file, _) in files {
            if !fs::read_to_string(root().join(&file)).expect("text").starts_with("//! ") {
                silent.push(file);
            }
        }
    }
    assert!(silent.is_empty(), "the first line of a module says what it is: {silent:?}");
}
