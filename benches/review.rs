//! What one review costs without network, disk and TLS: decode → plan → decide → encode, with the facts at hand.

mod common;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput};
use jiff::Timestamp;
use provost::decision::decide::decide;
use provost::decision::evidence::{
    Answer, Facts, Identity, Origin, Question, StatementKind, StatementParts, VerifiedStatement,
};
use provost::decision::plan::{Limits, plan};
use provost::decision::policy::PolicySet;
use provost::edge::admission::{RecordMark, Reply, decode, encode};
use provost::edge::policy_dir::PolicyDir;
use provost::edge::samples::SampleKey;

const HOST: &str = "registry.example.com";

fn main() {
    let mut criterion = Criterion::default().without_plots().configure_from_args();
    let policies = policies();
    let digest = |byte: &str| format!("@sha256:{}", byte.repeat(32));
    let signed = format!("{HOST}/release/payments/api{}", digest("a1"));
    let unsigned = format!("{HOST}/release/payments/worker{}", digest("b2"));
    let foreign = format!("registry.example.net/team/tool{}", digest("c3"));
    let tagged = format!("{HOST}/release/payments/api:1.2");

    let mut group = criterion.benchmark_group("review");
    for (name, body, allowed) in [
        ("signed pod", common::pod(&[&signed]), true),
        ("pod with three images refused", common::pod(&[&tagged, &foreign, &unsigned]), false),
        ("signed deployment", deployment(&[&signed]), true),
    ] {
        let facts = Facts { exhausted: true, ..Facts::default() };
        let unproven = Answer { facts: Arc::new(facts), origin: Origin::Cached };
        let answer = |question: &Question| if name.starts_with("signed") { proven(question) } else { unproven.clone() };
        // Answers are looked up by a running server; here they are made once.
        let answers = answers(&policies, &body, answer);
        let reply = judge(&policies, &body, &answers);
        let marker: &[u8] = if allowed { br#""allowed":true"# } else { br#""allowed":false"# };
        assert!(reply.windows(marker.len()).any(|part| part == marker), "{name}: {}", String::from_utf8_lossy(&reply));
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| judge(&policies, black_box(&body), &answers)));
        group.bench_function(format!("{name}, decode alone"), |bencher| bencher.iter(|| decode(black_box(&body))));
    }
    group.finish();
    criterion.final_summary();
}

/// One review, from bytes to bytes.
fn judge(policies: &PolicySet, body: &[u8], answers: &[Answer]) -> Vec<u8> {
    let review = decode(body).expect("a review");
    let governing = policies.governing(&review.namespace);
    let plan = plan(&review, &governing, Limits::default());
    let verdict = decide(&review, &governing, &plan, answers, Timestamp::UNIX_EPOCH);
    let record = RecordMark::Saved("kqzt-184467-9f3c2a7e11d0c4aa".to_owned());
    encode(&Reply { uid: &review.request.uid, verdict: &verdict, record })
}

fn answers(policies: &PolicySet, body: &[u8], answer: impl Fn(&Question) -> Answer) -> Vec<Answer> {
    let review = decode(body).expect("a review");
    let governing = policies.governing(&review.namespace);
    plan(&review, &governing, Limits::default()).questions().iter().map(answer).collect()
}

/// What the edge says of an image that the asked key has signed.
fn proven(question: &Question) -> Answer {
    let key = question.keys.first().expect("a policy that names a key");
    let statement = VerifiedStatement::vouch(StatementParts {
        subject: question.image.digest(),
        kind: StatementKind::ImageSignature,
        identity: Identity::Key(key.fingerprint),
        annotations: std::collections::BTreeMap::new(),
        signed_for: None,
        evidence: question.image.digest(),
        source: "bench".to_owned(),
    });
    let facts = Facts { statements: vec![statement], exhausted: true, ..Facts::default() };
    Answer { facts: Arc::new(facts), origin: Origin::Cached }
}

fn policies() -> PolicySet {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = SampleKey::generate().expect("a key");
    std::fs::write(folder.path().join("payments.yaml"), common::policy(HOST, &key.public_pem())).expect("written");
    let (policies, loaded) = PolicyDir::open(folder.path(), None);
    assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
    policies.current().as_ref().clone()
}

/// A review of a new Deployment whose pods run these images.
fn deployment(images: &[&str]) -> Vec<u8> {
    let object = format!(
        r#"{{"kind":"Deployment","apiVersion":"apps/v1","metadata":{},"spec":{{"replicas":3,"selector":{{"matchLabels":{{"app":"api"}}}},"template":{{"metadata":{{"creationTimestamp":null,"labels":{{"app":"api"}}}},"spec":{}}},"strategy":{{"type":"RollingUpdate","rollingUpdate":{{"maxUnavailable":"25%","maxSurge":"25%"}}}},"revisionHistoryLimit":10,"progressDeadlineSeconds":600}},"status":{{}}}},"oldObject":null"#,
        common::METADATA,
        common::pod_spec(images)
    );
    common::review(("apps", "Deployment", "deployments"), &object)
}
