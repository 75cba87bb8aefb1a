//! Registries that do not answer: a denial in-band and in time, so that it is one under `failurePolicy: Ignore` too.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::objects::{pod, spec};
use super::support::cluster::User;
use super::support::images::{self, Format};
use super::support::provost::{Provost, Setup};
use super::support::registry::{Registry, settings};
use super::world::{Gate, Request, Want, policy, world};

const APP: &str = "spec.containers[0]";

fn ignore() -> Value {
    json!({"failurePolicy": "Ignore"})
}

/// A Provost that knows one registry; its policy governs the namespace.
fn provost(registry: &Registry, namespace: &str) -> Provost {
    Setup::behind_service(namespace)
        .registries(settings(registry, None))
        .policy("keys/release.pub", world().images.release.pem())
        .policy("own.yaml", policy("own", namespace, "enforce", &registry.host))
        .start()
}

/// What an unreachable registry means for pods: one image that is known, one that was never asked for.
fn registry_stops(namespace: &'static str, change: &Value) {
    let world = world();
    let registry = Registry::crane();
    let [known, new] = ["known", "new"].map(|name| {
        let image = images::push(&registry, &format!("release/{name}"), &format!("{namespace} {name}"));
        images::sign(&registry, &image, &world.images.release, Format::Bundle, &BTreeMap::new());
        image
    });
    let provost = provost(&registry, namespace);
    let ca = provost.certificates.ca();
    let gate = world.own_gate(namespace, provost, &ca, change);
    let send = |name: &str, image: &str, want| {
        let begun = Instant::now();
        let done = world.create(namespace, &pod(name, &spec(image)), &[]);
        gate.check(&world.cluster, &Request::new("create", namespace, "pods", name), &done, want);
        assert!(begun.elapsed() < Duration::from_secs(10), "{name}: {:?}", begun.elapsed());
        world.stored(namespace, "pods", name).is_some()
    };
    assert!(send("before", &known.pinned(), Want::Admit));
    registry.stop();
    assert!(!send("new", &new.pinned(), Want::Deny(&[("evidence-unavailable", APP)])));
    // What was proven a moment ago is still known.
    assert!(send("after", &known.pinned(), Want::Admit));
    // What needs no registry has its own code.
    assert!(!send("tag", &known.tagged(), Want::Deny(&[("not-digest-pinned", APP)])));
}

#[test]
fn x_040_c_02_a_registry_that_is_down() {
    registry_stops("own-stopped", &json!(null));
}

#[test]
fn x_040_c_02_a_registry_that_is_down_under_ignore() {
    registry_stops("own-stopped-ignore", &ignore());
}

/// A registry that takes connections and never says a word.
fn silent(namespace: &'static str, change: &Value) {
    let world = world();
    let registry = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let host = registry.local_addr().expect("bound").to_string();
    let entry = format!("  {host}: {{addresses: [127.0.0.0/8], plainHttp: true}}\n");
    let provost = Setup::behind_service(namespace)
        .registries(entry)
        .policy("keys/release.pub", world.images.release.pem())
        .policy("own.yaml", policy("own", namespace, "enforce", &host))
        .start();
    let ca = provost.certificates.ca();
    let mut change = change.clone();
    change["timeoutSeconds"] = json!(2);
    let gate = world.own_gate(namespace, provost, &ca, &change);
    let image = |letter: &str| format!("{host}/release/app@sha256:{}", letter.repeat(64));

    let begun = Instant::now();
    let done = world.create(namespace, &pod("slow", &spec(&image("a"))), &[]);
    let took = begun.elapsed();
    let request = Request::new("create", namespace, "pods", "slow");
    gate.check(&world.cluster, &request, &done, Want::Deny(&[("deadline-exceeded", APP)]));
    assert!(world.stored(namespace, "pods", "slow").is_none());
    assert!(took > Duration::from_secs(1), "{took:?}");

    // C-01: the API request ends before the webhook's time does.
    let raw = format!("/api/v1/namespaces/{namespace}/pods?timeout=1s");
    let call = world.cluster.kubectl(User::Developer).args(["create", "--raw", &raw, "-f", "-"]);
    let done = call.input(pod("hurried", &spec(&image("b"))).to_string()).run();
    assert!(done.code != 0, "{}", done.stdout);
    assert!(world.stored(namespace, "pods", "hurried").is_none(), "{}", done.stderr);
    assert_never_open(&gate, namespace);
}

#[test]
fn x_044_c_10_a_registry_that_never_answers() {
    silent("own-silent", &json!({}));
}

#[test]
fn x_044_c_10_c_01_a_registry_that_never_answers_under_ignore() {
    silent("own-silent-ignore", &ignore());
}

/// No request of the namespace was let through because a call had failed.
fn assert_never_open(gate: &Gate, namespace: &str) {
    let failed_open = |event: &Value| {
        let annotations = event["annotations"].as_object();
        annotations.into_iter().flatten().any(|(key, _)| key.starts_with("failed-open."))
    };
    let all = world().cluster.audit(namespace, |_| true);
    let open: Vec<_> = all.into_iter().filter(failed_open).collect();
    assert!(open.is_empty(), "{open:?}\n{}", gate.provost.server.log());
}

/// The other side of `Ignore`: with nobody there, the API server lets it through. The denials above are not its doing.
#[test]
fn c_36_without_provost_ignore_lets_a_pod_through() {
    let world = world();
    let provost = provost(&world.registry, "own-gone");
    let ca = provost.certificates.ca();
    let gate = world.own_gate("own-gone", provost, &ca, &ignore());
    let object = |name| pod(name, &spec(&world.images.unsigned.pinned()));
    let done = world.create("own-gone", &object("before"), &[]);
    gate.check(
        &world.cluster,
        &Request::new("create", "own-gone", "pods", "before"),
        &done,
        Want::Deny(&[("unsigned", APP)]),
    );
    gate.provost.server.kill();
    let done = world.create("own-gone", &object("after"), &[]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let open = world.cluster.audit("own-gone", |event| event["objectRef"]["name"] == "after");
    let annotations = open[0]["annotations"].as_object().expect("annotations");
    assert!(annotations.keys().any(|key| key.starts_with("failed-open.")), "{annotations:?}");
}
