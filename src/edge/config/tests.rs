//! What the settings, as they are read from all their sources, must be.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::edge::registry::DockerConfig;

/// A folder with a `provost.yaml`.
fn written(text: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("provost.yaml");
    fs::write(&file, text).expect("the folder can be written to");
    (dir, file)
}

/// What is wrong with a file, without the folder's name.
fn problems(text: &str) -> Vec<String> {
    let (dir, file) = written(text);
    let folder = format!("{}/", dir.path().display());
    match Config::load(Some(&file), &[]) {
        Ok(_) => Vec::new(),
        Err(Problems(all)) => all.iter().map(|problem| problem.to_string().replace(&folder, "")).collect(),
    }
}

fn said(key: &'static str, text: &str, source: Source) -> Override {
    Override { key, text: text.to_owned(), source }
}

const FULL: &str = r"cluster: prod-eu1
listen: 127.0.0.1:8443
healthListen: 127.0.0.1:8080
tls: {cert: tls.crt, key: /etc/provost/tls.key, clientCa: callers.crt, clientSubjects: [kube-apiserver, b.example]}
drain: 20s
policies: policies/
ledger:
  store: ledger.db
  durability: all
registries:
  registry.corp.example:
    addresses: [10.20.0.0/16]
    ca: corp-ca.pem
    plainHttp: false
    credentialsFile: config.json
    realm: https://auth.corp.example
    clientCert: {cert: client.crt, key: client.key}
  127.0.0.1:5000:
    addresses: [127.0.0.1/32]
    plainHttp: true
limits: {connections: 100, imagesPerReview: 32, computing: 8, waiting: 20}
cache: {size: 16MiB, staleProofs: 0s}
records: none
logFormat: json
callerToken: tokens/caller-token
observe: true
";

#[test]
fn every_key_is_read_and_knows_its_place() {
    let (dir, file) = written(FULL);
    let config = Config::load(Some(&file), &[]).expect("the full file is right");
    assert_eq!(config.cluster.value, "prod-eu1");
    assert_eq!(config.cluster.source.to_string(), format!("{}:1:10", file.display()));
    assert_eq!(config.tls_cert.value, dir.path().join("tls.crt"));
    assert_eq!(config.tls_key.value, Path::new("/etc/provost/tls.key"));
    assert_eq!(config.tls_key.source.to_string(), format!("{}:4:27", file.display()));
    assert_eq!(config.drain.value, Duration::from_secs(20));
    assert_eq!(config.ledger_store.value, dir.path().join("ledger.db"));
    assert_eq!(config.ledger_durability.value, Durability::All);
    assert_eq!((config.connections.value, config.images_per_review.value), (100, 32));
    assert_eq!((config.computing.value, config.waiting.value), (8, 20));
    assert_eq!(config.client_ca.as_ref().map(|ca| ca.value.clone()), Some(dir.path().join("callers.crt")));
    let subjects: Vec<&str> = config.client_subjects.iter().map(|subject| subject.value.as_str()).collect();
    assert_eq!(subjects, ["kube-apiserver", "b.example"]);
    assert_eq!(config.caller_token.value, dir.path().join("tokens/caller-token"));
    assert!(config.observe.value);
    assert_eq!((config.cache_size.value, config.stale_proofs.value), (16 << 20, Duration::ZERO));
    assert_eq!((config.records.value, config.log_format.value), (Records::None, LogFormat::Json));
    let corp = &config.registries[&"registry.corp.example".parse().expect("a host")];
    assert_eq!(corp.addresses[0].value.to_string(), "10.20.0.0/16");
    assert_eq!(corp.addresses[0].source.to_string(), format!("{}:12:17", file.display()));
    assert_eq!(corp.ca.as_ref().map(|ca| ca.value.clone()), Some(dir.path().join("corp-ca.pem")));
    assert!(config.registries[&"127.0.0.1:5000".parse().expect("a host")].plain_http.value);
}

#[test]
fn nothing_said_is_the_default() {
    for text in ["", "# nothing\n", "{}\n", "tls:\nledger: {}\n"] {
        assert_eq!(problems(text), Vec::<String>::new(), "{text:?}");
    }
    let config = Config::load(None, &[]).expect("the defaults are right");
    assert_eq!(config.listen.value.port(), 8443);
    assert_eq!(config.images_per_review.value, 64);
    assert_eq!(config.stale_proofs.value, Duration::from_hours(24));
    assert_eq!(config.policies, Setting { value: PathBuf::from("policies"), source: Source::Default });
}

#[test]
fn a_flag_wins_over_a_variable_over_the_file_over_the_default() {
    let (dir, file) = written("cluster: from-file\npolicies: from-file\nlimits: {connections: 7}\n");
    let flag = said("cluster", "from-flag", Source::Flag("--cluster"));
    let env = said("policies", "from-env", Source::Env("PROVOST_POLICIES"));
    let config = Config::load(Some(&file), &[flag, env]).expect("all are right");
    assert_eq!(config.cluster, Setting { value: "from-flag".to_owned(), source: Source::Flag("--cluster") });
    // What the file says starts at its folder; what is said outside starts where we are.
    assert_eq!(config.policies.value, Path::new("from-env"));
    assert_eq!(config.connections.value, 7);
    assert_eq!(config.ledger_store.value, dir.path().join("ledger.db"));
    let count = said("limits.connections", "8", Source::Env("PROVOST_CONNECTIONS"));
    assert_eq!(Config::load(Some(&file), &[count]).expect("a count").connections.value, 8);
}

#[test]
fn what_is_wrong_is_told_with_line_and_column() {
    let table: &[(&str, &[&str])] = &[
        // each with its twin in `every_key_is_read_and_knows_its_place`, which differs in what is named
        ("cluster: prod eu1\n", &["provost.yaml:1:10: `cluster`: must be 1 to 63 of A-Z a-z 0-9 . _ -"]),
        ("cluster: 17\n", &["provost.yaml:1:10: `cluster` must be text, and is a number (quote it to make it text)"]),
        ("cluster:\n", &["provost.yaml:1:8: `cluster` must be text, and is empty"]),
        (
            "listen: localhost:8443\n",
            &["provost.yaml:1:9: `listen`: must be an address and a port, for example 0.0.0.0:8443 or [::]:8443"],
        ),
        (
            "healthListen: 0.0.0.0:8443\n",
            &[
                "provost.yaml:1:15: `healthListen`: must not be the address of `listen`: health is a listener of its own",
            ],
        ),
        ("drain: 15\n", &["provost.yaml:1:8: `drain` must be text, and is a number (quote it to make it text)"]),
        ("\ndrain: 15 s\n", &["provost.yaml:2:8: `drain`: not a duration such as 500ms, 15s, 5m, 24h or 7d"]),
        ("drain: 11m\n", &["provost.yaml:1:8: `drain`: must not be over 10m"]),
        ("ledger: {durability: some}\n", &["provost.yaml:1:22: `ledger.durability`: must be one of: denials, all"]),
        ("ledger: ledger.db\n", &["provost.yaml:1:9: `ledger` must be a mapping, and is text"]),
        (
            "limits: {imagesPerReview: 0}\n",
            &["provost.yaml:1:27: `limits.imagesPerReview`: must be a whole number from 1 to 1024"],
        ),
        (
            "limits: {imagesPerReview: \"64\"}\n",
            &["provost.yaml:1:27: `limits.imagesPerReview` must be a whole number, and is text"],
        ),
        ("cache: {size: 64MB}\n", &["provost.yaml:1:15: `cache.size`: not a size such as 512KiB, 64MiB or 1GiB"]),
        (
            "tls: {clientSubjects: [a]}\n",
            &["provost.yaml:1:24: `tls.clientSubjects`: needs `tls.clientCa`: without a CA a subject proves nothing"],
        ),
        ("observe: yes\n", &["provost.yaml:1:10: `observe` must be true or false, and is text"]),
        ("limits: {waiting: 0}\n", &["provost.yaml:1:19: `limits.waiting`: must be a whole number from 1 to 65536"]),
        ("policies: ''\n", &["provost.yaml:1:11: `policies`: must be a path"]),
        (
            "tls:\n  certificate: tls.crt\n",
            &["provost.yaml:2:3: unknown key `tls.certificate`; here are known: cert, key, clientCa, clientSubjects"],
        ),
        (
            "Drain: 15s\n",
            &["provost.yaml:1:1: unknown key `Drain`; here are known: cluster, listen, healthListen, tls, \
                 callerToken, observe, drain, policies, ledger, registries, limits, cache, records, logFormat"],
        ),
        ("- cluster\n", &["provost.yaml:1:1: `the file` must be a mapping, and is a list"]),
        ("registries: {'bad host': {}}\n", &["provost.yaml:1:14: `registries.bad host`: not a registry host: "]),
        (
            "registries:\n  r.example:\n    plainHttp: yes\n",
            &["provost.yaml:3:16: `registries.r.example.plainHttp` must be true or false, and is text"],
        ),
        (
            "registries:\n  r.example:\n    addresses: 10.0.0.0/8\n",
            &["provost.yaml:3:16: `registries.r.example.addresses` must be a list of texts, and is text"],
        ),
        (
            "registries:\n  r.example:\n    addresses: [10.0.0.0/8, 10.0.0.1/8]\n",
            &["provost.yaml:3:29: `registries.r.example.addresses`: bits after the prefix are set: write 10.0.0.0/8"],
        ),
        (
            "registries:\n  r.example:\n    clientCert: {cert: a}\n",
            &["provost.yaml:3:24: `registries.r.example.clientCert`: needs both `cert` and `key`"],
        ),
        (
            "registries:\n  r.example:\n    realm: https://user:hunter2@auth.example\n",
            &["provost.yaml:3:12: `registries.r.example.realm`: must be an address such as"],
        ),
        (
            "registries:\n  docker.io: {}\n  index.docker.io: {}\n",
            &["provost.yaml:3:3: `registries.index.docker.io`: stands here twice, as docker.io"],
        ),
    ];
    for (text, want) in table {
        let found = problems(text);
        assert_eq!(found.len(), want.len(), "{text}: {found:#?}");
        for (found, want) in found.iter().zip(*want) {
            assert!(found.starts_with(want), "{text}\nfound: {found}\nwant:  {want}");
            assert!(!found.contains("hunter2"), "{found}");
        }
    }
}

#[test]
fn keys_of_later_versions_are_refused_and_not_ignored() {
    let later = [
        ("manageWebhook: true", "1:1"),
        ("ledger: {checkpointKey: ledger.key}", "1:10"),
        ("ledger: {retention: 400d}", "1:10"),
        ("evidence: []", "1:1"),
        ("evidenceBundles: bundles/", "1:1"),
        ("trustRoots: {public-good: {}}", "1:1"),
        ("protectedNamespaceLabels: [environment]", "1:1"),
        ("exemptNamespaces: [kube-system]", "1:1"),
        ("notify: []", "1:1"),
        ("pullSecrets: {namespaces: [payments]}", "1:1"),
        ("limits: {evidence: {}}", "1:10"),
    ];
    assert_eq!(later.len(), NOT_YET.len(), "each key of the list has its row");
    for (text, place) in later {
        let found = problems(text);
        assert_eq!(found.len(), 1, "{text}: {found:#?}");
        assert!(found[0].starts_with(&format!("provost.yaml:{place}: ")), "{}", found[0]);
        assert!(found[0].contains("is not supported by this version"), "{}", found[0]);
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let text = "cluster: ''\nlistn: 0.0.0.0:1\nnotify: []\ncache: {size: big}\n";
    let (_dir, file) = written(text);
    let flag = said("drain", "soon", Source::Flag("--drain"));
    let Problems(all) = Config::load(Some(&file), &[flag]).expect_err("five things are wrong");
    let keys: Vec<String> = all.iter().map(ToString::to_string).collect();
    assert_eq!(keys.len(), 5, "{keys:#?}");
    assert!(keys.iter().any(|text| text.starts_with("--drain: `drain`: not a duration")), "{keys:#?}");
    let shown = Problems(all).to_string();
    assert!(shown.starts_with("the settings cannot be used, for 5 reasons\n  "), "{shown}");
}

#[test]
fn a_file_that_is_not_one_yaml_document_is_refused_with_its_place() {
    for (text, place) in [
        ("cluster: a\ncluster: b\n", "provost.yaml:2:1: "),
        ("tls: {cert: a, cert: b}\n", "provost.yaml:1:16: "),
        ("cluster: [a\n", "provost.yaml:"),
        ("cluster: a\n---\ncluster: b\n", "provost.yaml:"),
        ("base: &b {cluster: a}\n<<: *b\n", "provost.yaml:2:1: "),
    ] {
        let found = problems(text);
        assert_eq!(found.len(), 1, "{text}: {found:#?}");
        assert!(found[0].starts_with(place), "{text}: {}", found[0]);
    }
    let missing = Path::new("/nowhere/provost.yaml");
    let Problems(all) = Config::load(Some(missing), &[]).expect_err("there is no such file");
    assert!(matches!(&all[..], [Problem::Unreadable { file, .. }] if file == missing), "{all:?}");
}

#[test]
fn what_is_printed_can_be_read_again_and_shows_every_source() {
    let (dir, file) = written(FULL);
    let secrets = [("config.json", "{\"auths\":{\"x\":{\"auth\":\"c2VjcmV0\"}}}"), ("client.key", "PRIVATE hunter2")];
    for (name, content) in secrets {
        fs::write(dir.path().join(name), content).expect("the folder can be written to");
    }
    let overrides = [
        said("cluster", "from-flag", Source::Flag("--cluster")),
        said("drain", "1500ms", Source::Env("PROVOST_DRAIN")),
    ];
    let config = Config::load(Some(&file), &overrides).expect("all are right");
    let printed = config.print();
    for (line, source) in [
        ("cluster: from-flag", "--cluster".to_owned()),
        ("drain: 1500ms", "PROVOST_DRAIN".to_owned()),
        ("  durability: all", format!("{}:9:15", file.display())),
        ("    plainHttp: true", format!("{}:20:16", file.display())),
    ] {
        let found =
            printed.lines().find(|found| found.starts_with(line)).unwrap_or_else(|| panic!("{line}:\n{printed}"));
        assert!(found.ends_with(&format!("# {source}")), "{found}");
    }
    for (_, content) in secrets {
        assert!(!printed.contains(content), "{printed}");
    }
    assert!(!printed.contains("hunter2") && !printed.contains("c2VjcmV0"), "{printed}");

    let (_dir, again) = written(&printed);
    let again = Config::load(Some(&again), &[]).expect("what is printed is right");
    assert_eq!(again.print().lines().map(strip).collect::<Vec<_>>(), printed.lines().map(strip).collect::<Vec<_>>());
    let defaults = Config::load(None, &[]).expect("the defaults are right").print();
    assert!(defaults.lines().all(|line| line.ends_with(':') || line.ends_with("# default")), "{defaults}");
}

#[test]
fn the_files_of_registries_are_read_and_each_that_cannot_be_used_is_told() {
    let (dir, file) = written(FULL);
    let config = Config::load(Some(&file), &[]).expect("the full file is right");
    let Problems(all) = config.registry_settings().expect_err("there are no such files");
    assert_eq!(all.len(), 4, "{all:#?}");
    let place = format!("{}:13:9: `registries.registry.corp.example.ca`: ", file.display());
    assert!(all.iter().any(|problem| problem.to_string().starts_with(&place)), "{all:#?}");

    let auth = "{\"auths\":{\"registry.corp.example\":{\"auth\":\"dTpodW50ZXIy\"}},\"credsStore\":\"x\"}";
    for (name, content) in [("corp-ca.pem", "ca"), ("config.json", auth), ("client.crt", "cert"), ("client.key", "key")]
    {
        fs::write(dir.path().join(name), content).expect("written");
    }
    let (settings, warnings) = config.registry_settings().expect("all files are there");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("config.json: credsStore is ignored"), "{warnings:?}");
    let corp = &settings.hosts[&"registry.corp.example".parse().expect("a host")];
    assert_eq!(corp.ca.as_deref(), Some(&b"ca"[..]));
    assert_eq!(corp.credentials.as_ref().map(DockerConfig::len), Some(1));
    assert_eq!(corp.client_cert.as_ref().map(|pair| pair.key.clone()), Some(b"key".to_vec()));
    assert_eq!(corp.realm.as_deref(), Some("https://auth.corp.example"));
    assert!(!corp.plain_http);
    let local = &settings.hosts[&"127.0.0.1:5000".parse().expect("a host")];
    assert!(local.plain_http && local.credentials.is_none() && local.addresses.len() == 1);

    // What cannot be used is named without its content.
    fs::write(dir.path().join("config.json"), "{\"auths\":{\"x\":{\"auth\":\"hunter2\"}}").expect("written");
    let Problems(all) = config.registry_settings().expect_err("the file is cut short");
    assert_eq!(all.len(), 1, "{all:#?}");
    assert!(!all[0].to_string().contains("hunter2"), "{}", all[0]);
}

fn strip(line: &str) -> &str {
    line.split(" # ").next().unwrap_or_default().trim_end()
}
