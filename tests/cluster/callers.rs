//! C-08 through a real API server: what the token in the registration's path is worth, and how it is replaced.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::objects::{pod, spec};
use super::support::images::{self, Format};
use super::support::provost::Setup;
use super::support::registry::{Registry, settings};
use super::support::{net, wait};
use super::world::{Request, Want, by_service, policy, world};

const APP: &str = "spec.containers[0]";
const OLD: &str = "the-old-token-0123456789";
const NEW: &str = "the-new-token-0123456789";

#[test]
fn c_08_x_132_only_who_shows_a_token_is_trusted_with_the_operators_credentials() {
    let world = world();
    let registry = Registry::with_password();
    let [signed, unsigned] =
        ["signed", "unsigned"].map(|name| images::push(&registry, &format!("release/{name}"), name));
    images::sign(&registry, &signed, &world.images.release, Format::Bundle, &BTreeMap::new());
    let provost = Setup::behind_service("own-known")
        .registries(settings(&registry, registry.login.as_deref()))
        .policy("keys/release.pub", world.images.release.pem())
        .policy("own.yaml", policy("own", "own-*", "enforce", &registry.host))
        .tokens(format!("{OLD}\n"))
        .start();
    let ca = provost.certificates.ca();
    // One Provost, registered three times: with its token, without one, and with one that it does not know yet.
    let gate = world.own_gate("own-known", provost, &ca, &json!(null));
    let registered = |path: &str| json!({"clientConfig": by_service("own-known", path)});
    world.register("own-stranger", &gate, &ca, &registered("/validate"));
    world.register("own-rotated", &gate, &ca, &registered(&format!("/validate/{NEW}")));
    let refused = [("registry-auth-failed", APP)];
    let send = |namespace: &str, name: &str, known: bool| {
        let want = if known { Want::Admit } else { Want::Deny(&refused) };
        let done = world.create(namespace, &pod(name, &spec(&signed.pinned())), &[]);
        let seen = gate.check(&world.cluster, &Request::new("create", namespace, "pods", name), &done, want);
        assert_eq!(seen.record["event"]["caller"], if known { "token" } else { "unknown" }, "{namespace}");
        assert_eq!(world.stored(namespace, "pods", name).is_some(), known, "{namespace}");
        assert!(!done.stderr.contains("-token-"), "{}", done.stderr);
    };
    let comes_to = |namespace: &str, known: bool| {
        wait::until(&format!("{namespace} comes to known: {known}"), Duration::from_secs(30), || {
            let done = world.create(namespace, &pod("asked", &spec(&signed.pinned())), &["--dry-run=server"]);
            ((done.code == 0) == known).then_some(())
        });
    };

    send("own-known", "before", true);
    // What was proven a moment ago to a caller that is known proves nothing to a stranger.
    send("own-stranger", "before", false);
    send("own-rotated", "before", false);
    // Credentials are no proof: the same caller, another image.
    let done = world.create("own-known", &pod("twin", &spec(&unsigned.pinned())), &[]);
    let request = Request::new("create", "own-known", "pods", "twin");
    gate.check(&world.cluster, &request, &done, Want::Deny(&[("unsigned", APP)]));

    // While one token replaces the other, both are accepted.
    gate.provost.write_tokens(&format!("{NEW}\n{OLD}\n"));
    comes_to("own-rotated", true);
    send("own-rotated", "meanwhile", true);
    send("own-known", "meanwhile", true);
    send("own-stranger", "meanwhile", false);
    // Then the old one is worth nothing.
    gate.provost.write_tokens(&format!("{NEW}\n"));
    comes_to("own-known", false);
    send("own-known", "after", false);
    send("own-rotated", "after", true);

    let (_, metrics) = net::get(gate.provost.health, "/metrics").expect("metrics");
    assert!(metrics.contains("provost_callers_unknown_total"), "{metrics}");
    let records = gate.provost.records(&[]);
    assert!(records.len() > 8, "{records:?}");
    for said in [gate.provost.server.log(), metrics, json!(records).to_string()] {
        assert!(![OLD, NEW].iter().any(|token| said.contains(token)), "a token is told: {said}");
    }
}
