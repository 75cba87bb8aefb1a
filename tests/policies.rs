//! The example policies, the published schemas, and `provost policy` as a user calls it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use provost::edge::policy_dir::{Kind, lint, schema};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs the binary, and ends it where it does not end by itself.
fn provost(args: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_provost"))
        .args(args)
        .current_dir(root())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let (done, waiting) = std::sync::mpsc::channel();
    let stdout = child.stdout.take().expect("stdout is piped");
    let stderr = child.stderr.take().expect("stderr is piped");
    let reader = std::thread::spawn(move || {
        let read = (std::io::read_to_string(stdout), std::io::read_to_string(stderr));
        let _ = done.send(());
        read
    });
    let deadline = Instant::now() + Duration::from_secs(30);
    if waiting.recv_timeout(deadline - Instant::now()).is_err() {
        child.kill().expect("it can be ended");
    }
    let (stdout, stderr) = reader.join().expect("read");
    let status = child.wait().expect("it ends");
    let bytes = |text: std::io::Result<String>| text.expect("UTF-8").into_bytes();
    Output { status, stdout: bytes(stdout), stderr: bytes(stderr) }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn the_examples_are_clean_together_and_govern_what_they_say() {
    let now = "2026-11-20T00:00:00Z".parse().expect("time");
    let linted = lint(&[root().join("policies")], now);
    assert_eq!((&linted.problems, &linted.warnings), (&vec![], &vec![]));
    assert!(!linted.could_not_tell);
    for (namespace, want) in [
        ("payments", vec!["baseline", "payments"]),
        ("payments-eu", vec!["baseline", "payments"]),
        ("tools", vec!["baseline", "vendor-tools"]),
        ("billing", vec!["baseline", "otherwise"]),
    ] {
        let governing = linted.set.governing(&namespace.parse().expect("namespace"));
        let names: Vec<&str> = governing.policies.iter().map(|policy| policy.name.as_str()).collect();
        assert_eq!(names, want, "{namespace}");
        assert_eq!(governing.deny_lists.len(), 1);
    }
    // The baseline holds beside the others, so whatever they let in it must let in too.
    let images = [
        "registry.example.com/release/payments/api",
        "registry.example.com/release/shared/auth",
        "docker.io/library/busybox",
    ];
    let baseline = &linted.set.policies[&"baseline".parse().expect("name")];
    for image in images {
        assert!(baseline.covering(&image.parse().expect("repository")).next().is_some(), "{image}");
    }
}

#[test]
fn the_published_schemas_are_current() {
    for (kind, name) in [(Kind::ReleasePolicy, "release-policy"), (Kind::DenyList, "deny-list")] {
        let path = root().join("schemas").join(format!("{name}.json"));
        let published = std::fs::read_to_string(&path).expect("published schema");
        let current = serde_json::to_string_pretty(&schema(Some(kind))).expect("json") + "\n";
        assert!(published == current, "run: provost policy schema {name} > schemas/{name}.json");
        assert_eq!(text(&provost(&["policy", "schema", name]).stdout), published);
        for (kind, key) in [(Some(kind), "\"additionalProperties\": false"), (Some(kind), "\"provost.dev/v1\"")] {
            assert!(serde_json::to_string_pretty(&schema(kind)).expect("json").contains(key), "{key}");
        }
    }
    assert!(schema(None)["anyOf"].as_array().is_some_and(|kinds| kinds.len() == 2));
}

#[test]
fn the_schema_offers_nothing_that_this_version_cannot_honour() {
    let schema = serde_json::to_string(&schema(Some(Kind::ReleasePolicy))).expect("json");
    for key in
        ["keyless", "certificate", "secret", "attestations", "imageLabels", "grants", "platforms", "where", "maxAge"]
    {
        assert!(!schema.contains(&format!("\"{key}\":")), "{key} is offered");
    }
    assert!(!schema.contains("\"required\",") && !schema.contains("null"), "{schema}");
}

#[test]
fn lint_says_what_is_wrong_and_ends_in_0_1_or_2() {
    let good = provost(&["policy", "lint", "policies"]);
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stdout));
    assert!(text(&good.stdout).ends_with("good: 5 files, 0 errors, 0 warnings\n"), "{}", text(&good.stdout));

    let folder = tempfile::tempdir().expect("folder");
    let file: PathBuf = folder.path().join("bad.yaml");
    let example = std::fs::read_to_string(root().join("policies/vendor-tools.yaml")).expect("example");
    std::fs::write(&file, example.replace("signatures: not-required", "signature: not-required")).expect("file");
    let path = file.display().to_string();
    let bad = provost(&["policy", "lint", &path]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(
        text(&bad.stdout).contains(&format!("{path}:13:7: error: unknown key `signature`: did you mean `signatures`?")),
        "{}",
        text(&bad.stdout)
    );
    let json: serde_json::Value =
        serde_json::from_slice(&provost(&["policy", "lint", "-o", "json", &path]).stdout).expect("json");
    assert_eq!((json["errors"][1]["line"].as_u64(), json["errors"][1]["column"].as_u64()), (Some(13), Some(7)));

    // The same file by two paths is one file; the same policy in two files is two.
    let twice = provost(&["policy", "lint", "policies", "policies/payments.yaml"]);
    assert_eq!(twice.status.code(), Some(0), "{}", text(&twice.stdout));
    std::fs::write(&file, &example).expect("file");
    assert_eq!(provost(&["policy", "lint", "policies", &path]).status.code(), Some(1));

    std::fs::remove_file(&file).expect("file");
    for paths in
        [vec![path.as_str()], vec![folder.path().to_str().expect("UTF-8")], vec!["policies", path.as_str()], vec![]]
    {
        let args: Vec<&str> = ["policy", "lint"].into_iter().chain(paths.iter().copied()).collect();
        assert_eq!(provost(&args).status.code(), Some(2), "{paths:?}");
    }
}
