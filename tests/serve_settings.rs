//! `provost serve --print-config` and `provost certs` as a user meets them: the real program, its flags, variables, files
//! and exit codes.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Runs the program in a folder, with these variables and no others of ours.
fn provost(dir: &Path, variables: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_provost"));
    command.current_dir(dir).env_clear().envs(variables.iter().copied()).args(args);
    command.output().expect("the program was built with this test")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// The line of a key, without the spaces before its source.
fn line(shown: &str, key: &str) -> String {
    let line = shown.lines().find(|line| line.trim_start().starts_with(&format!("{key}: ")));
    assert!(line.is_some(), "no {key} in:\n{shown}");
    line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_flag_wins_over_a_variable_over_the_file_over_the_default() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::write(dir.path().join("p.yaml"), "cluster: of-file\ndrain: 1s\nrecords: none\n").expect("written");
    let variables = [
        ("PROVOST_CONFIG", "p.yaml"),
        ("PROVOST_CLUSTER", "of-variable"),
        ("PROVOST_DRAIN", "2s"),
        ("PROVOST_LEDGER", "l.db"),
    ];
    let output = provost(dir.path(), &variables, &["serve", "--print-config", "--cluster", "of-flag"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let shown = stdout(&output);
    for (key, want) in [
        ("cluster", "cluster: of-flag # --cluster"),
        ("drain", "drain: 2s # PROVOST_DRAIN"),
        ("store", "store: l.db # PROVOST_LEDGER"),
        ("records", "records: none # p.yaml:3:10"),
        ("logFormat", "logFormat: text # default"),
    ] {
        assert_eq!(line(&shown, key), want);
    }
}

#[test]
fn every_flag_and_every_variable_reaches_its_setting() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let table = [
        ("cluster", "--cluster", "PROVOST_CLUSTER", "c"),
        ("listen", "--listen", "PROVOST_LISTEN", "127.0.0.1:1"),
        ("healthListen", "--health-listen", "PROVOST_HEALTH_LISTEN", "127.0.0.1:2"),
        ("cert", "--tls-cert", "PROVOST_TLS_CERT", "x.crt"),
        ("key", "--tls-key", "PROVOST_TLS_KEY", "x.key"),
        ("clientCa", "--client-ca", "PROVOST_CLIENT_CA", "ca.crt"),
        ("callerToken", "--caller-token", "PROVOST_CALLER_TOKEN", "tokens"),
        ("observe", "--observe", "PROVOST_OBSERVE", "true"),
        ("computing", "--computing", "PROVOST_COMPUTING", "6"),
        ("waiting", "--waiting", "PROVOST_WAITING", "5"),
        ("drain", "--drain", "PROVOST_DRAIN", "7s"),
        ("policies", "--policies", "PROVOST_POLICIES", "pol"),
        ("store", "--ledger", "PROVOST_LEDGER", "x.db"),
        ("durability", "--ledger-durability", "PROVOST_LEDGER_DURABILITY", "all"),
        ("connections", "--connections", "PROVOST_CONNECTIONS", "9"),
        ("imagesPerReview", "--images-per-review", "PROVOST_IMAGES_PER_REVIEW", "8"),
        ("size", "--cache-size", "PROVOST_CACHE_SIZE", "1MiB"),
        ("staleProofs", "--stale-proofs", "PROVOST_STALE_PROOFS", "1h"),
        ("records", "--records", "PROVOST_RECORDS", "none"),
        ("logFormat", "--log-format", "PROVOST_LOG_FORMAT", "json"),
    ];
    let variables: Vec<(&str, &str)> = table.iter().map(|(_, _, variable, value)| (*variable, *value)).collect();
    let by_variable = stdout(&provost(dir.path(), &variables, &["serve", "--print-config"]));
    let mut args = vec!["serve", "--print-config"];
    args.extend(table.iter().flat_map(|(_, flag, _, value)| [*flag, *value]));
    let by_flag = stdout(&provost(dir.path(), &[], &args));
    for (key, flag, variable, value) in table {
        for (shown, source) in [(&by_flag, flag), (&by_variable, variable)] {
            assert_eq!(line(shown, key).replace('"', ""), format!("{key}: {value} # {source}"));
        }
    }
    assert_eq!(by_flag.matches("# default").count(), 1, "only registries have no flag:\n{by_flag}");
}

#[test]
fn client_subjects_are_repeated_as_flags_and_separated_by_commas_as_a_variable() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::write(dir.path().join("p.yaml"), "tls: {clientCa: ca.crt, clientSubjects: [of-file]}\n").expect("written");
    let variables = [("PROVOST_CONFIG", "p.yaml"), ("PROVOST_CLIENT_SUBJECT", "c,d.example")];
    let flags = ["--client-subject", "a", "--client-subject", "b.example"];
    for (variables, flags, want) in [
        (&variables[..1], &flags[..0], vec!["- of-file # p.yaml:1:42"]),
        (&variables[..], &flags[..0], vec!["- c # PROVOST_CLIENT_SUBJECT", "- d.example # PROVOST_CLIENT_SUBJECT"]),
        (&variables[..], &flags[..], vec!["- a # --client-subject", "- b.example # --client-subject"]),
    ] {
        let args: Vec<&str> = ["serve", "--print-config"].iter().chain(flags).copied().collect();
        let shown = stdout(&provost(dir.path(), variables, &args));
        let lines = shown.lines().filter(|line| line.trim_start().starts_with("- "));
        let lines: Vec<String> = lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines, want, "{shown}");
    }
    // --observe needs no value, and takes one.
    for (args, want) in
        [(&["--observe"][..], "observe: true # --observe"), (&["--observe", "false"], "observe: false # --observe")]
    {
        let args: Vec<&str> = ["serve", "--print-config"].iter().chain(args).copied().collect();
        assert_eq!(line(&stdout(&provost(dir.path(), &[], &args)), "observe"), want);
    }
}

#[test]
fn wrong_settings_end_with_2_and_every_reason() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::write(dir.path().join("p.yaml"), "cluster: a b\nnotify: []\n").expect("written");
    let output = provost(dir.path(), &[("PROVOST_DRAIN", "soon")], &["serve", "--config", "p.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    let told = stderr(&output);
    for want in
        ["p.yaml:1:10: `cluster`: must be", "p.yaml:2:1: `notify` is not supported", "PROVOST_DRAIN: `drain`: not"]
    {
        assert!(told.contains(want), "{want} is not in:\n{told}");
    }
    assert_eq!(stdout(&output), "");
}

#[test]
fn certs_makes_what_serve_wants_and_does_not_overwrite() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let made = provost(dir.path(), &[], &["certs"]);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    assert!(stdout(&made).contains("caBundle: LS0t"), "{}", stdout(&made));
    let shown = stdout(&provost(dir.path(), &[], &["serve", "--print-config"]));
    for key in ["cert", "key"] {
        let path = line(&shown, key);
        let path = path.split([' ', '"']).nth(1).filter(|path| !path.is_empty()).expect("a path");
        assert!(dir.path().join(path).is_file(), "{path} is where serve looks by itself");
    }
    let again = provost(dir.path(), &[], &["certs"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(stderr(&again).contains("ca.crt exists"), "{}", stderr(&again));
    assert_eq!(provost(dir.path(), &[], &["certs", "--force", "--name", "a.b.svc"]).status.code(), Some(0));
    assert_eq!(provost(dir.path(), &[], &["certs", "--dir", "x", "--name", "a b"]).status.code(), Some(2));
}
