//! Break-glass with kubectl, through a real API server: who is listed overrides one pod, reads that people will look, and
//! leaves a record that keeps every denial. Each has a twin that is refused.

use serde_json::{Value, json};

use super::objects::{pod, spec};
use super::support::cluster::User;
use super::world::{Request, Seen, Want, World, world};

const APP: &str = "spec.containers[0]";
const REASON: &str = "provost.dev/break-glass-reason";
const SAID: &str = "INC-4711 the database is down";

fn asking(name: &str, image: &str, reason: &str) -> Value {
    let mut object = pod(name, &spec(image));
    object["metadata"]["annotations"] = json!({REASON: reason});
    object
}

/// Sends the pod as that user; checks how it ended, and whether it is there.
fn send(world: &World, user: User, namespace: &str, object: &Value, want: Want<'_>) -> (Seen, String) {
    let name = object["metadata"]["name"].as_str().expect("a name");
    let done = world.create_as(user, namespace, object, &[]);
    let request = Request { user, ..Request::new("create", namespace, "pods", name) };
    let seen = world.check(&request, &done, want);
    assert_eq!(world.stored(namespace, "pods", name).is_some(), done.code == 0, "{name}");
    (seen, done.stderr)
}

/// The place of a record in its ledger: its name without the hash.
fn place(seen: &Seen) -> String {
    let name = seen.audit["annotations"]["images.provost.dev/record"].as_str().expect("an override has a record");
    name.rsplit_once('-').expect("chain, number and hash").0.to_owned()
}

#[test]
fn bg_01_bg_10_x_105_x_107_x_108_x_114_who_is_listed_overrides_one_pod() {
    let world = world();
    let namespace = world.namespace("glass-pods");
    let (unsigned, tagged) = (world.images.unsigned.pinned(), world.images.signed.tagged());
    let denials = [("unsigned", APP)];
    let (seen, stderr) =
        send(world, User::OnCall, &namespace, &asking("listed", &unsigned, SAID), Want::Override(&denials));
    let digest = &world.images.unsigned.digest[..("sha256:".len() + 12)];
    let image = format!("{}@{digest}", world.images.unsigned.repository);
    let told = [
        format!(
            "Warning: provost: override by oncall@acme.example (INC-4711), this request only, will be reviewed: {}",
            place(&seen)
        ),
        format!("Warning: provost: unsigned (overridden): {APP} (app) {image}"),
    ];
    assert_eq!(stderr.lines().collect::<Vec<_>>(), told);
    let event = &seen.record["event"];
    let by = json!([{"by": "request", "user": "oncall@acme.example", "ticket": "INC-4711",
        "reason": "the database is down", "policies": ["glass"]}]);
    assert_eq!((&event["overrides"], &event["caller"]), (&by, &json!("token")), "{event}");

    // The twins: another user, no ticket, what nobody may waive, a policy that lets nobody override it.
    let refused = |user, namespace: &str, object: &Value, denials: &[(&str, &str)], says: &str| {
        let (seen, stderr) = send(world, user, namespace, object, Want::Deny(denials));
        assert!(stderr.contains(says), "{says}: {stderr}");
        assert_eq!(seen.record["event"]["overrides"], Value::Null);
    };
    refused(
        User::Developer,
        &namespace,
        &asking("not-listed", &unsigned, SAID),
        &[("unsigned", APP), ("break-glass-refused", "")],
        "dev@acme.example is not listed by policy glass",
    );
    refused(
        User::OnCall,
        &namespace,
        &asking("no-ticket", &unsigned, "the database is down"),
        &[("unsigned", APP), ("break-glass-malformed", "")],
        "provost.dev/break-glass-reason: \"INC-* <why>\"",
    );
    refused(
        User::OnCall,
        &namespace,
        &asking("not-pinned", &tagged, SAID),
        &[("not-digest-pinned", APP), ("grant-not-waivable", "")],
        "not-digest-pinned",
    );
    let strict = world.namespace("apps-glass");
    refused(
        User::OnCall,
        &strict,
        &asking("strict", &unsigned, SAID),
        &[("unsigned", APP), ("break-glass-disabled", "")],
        "policy apps lets nobody override it",
    );
    // A dry run says the same, and stores nothing.
    let done = world.create_as(User::OnCall, &namespace, &asking("dry", &unsigned, SAID), &["--dry-run=server"]);
    let request = Request { user: User::OnCall, dry_run: true, ..Request::new("create", &namespace, "pods", "dry") };
    world.check(&request, &done, Want::Override(&denials));
    assert!(world.stored(&namespace, "pods", "dry").is_none());

    let found = world.gate.provost.records(&["--namespace", &namespace, "--verdict", "override"]);
    let names: Vec<_> = found.iter().map(|record| record["event"]["name"].as_str().unwrap_or_default()).collect();
    assert_eq!(names, ["listed", "dry"], "{found:?}");
}

#[test]
fn bg_01_x_108_a_reason_on_the_pod_lets_one_debug_container_in() {
    let world = world();
    let namespace = world.namespace("glass-debug");
    let images = &world.images;
    send(world, User::OnCall, &namespace, &pod("app", &spec(&images.signed.pinned())), Want::Admit);
    let reason = format!("{REASON}.shell=INC-4712 {} look at the queue", images.unsigned.pinned());
    world.cluster.kubectl(User::OnCall).args(["annotate", "-n", &namespace, "pod", "app", &reason]).must();
    let request =
        Request { user: User::OnCall, ..Request::new("patch", &namespace, "pods/ephemeralcontainers", "app") };
    let debug = |user, container: &str, image: &str| {
        let call = world.cluster.kubectl(user).args(["debug", "-n", &namespace, "app", "--attach=false"]);
        call.args(["--container", container, "--image", image, "--", "sh"]).run()
    };
    let at = "spec.ephemeralContainers[0]";
    // Another image than the one of the reason; a container for which there is none, so that nothing was asked; another
    // person. Then the very one.
    let done = debug(User::OnCall, "shell", &images.wrong_key.pinned());
    world.check(&request, &done, Want::Deny(&[("wrong-signer", at), ("break-glass-refused", at)]));
    let done = debug(User::OnCall, "other", &images.unsigned.pinned());
    world.check(&request, &done, Want::Deny(&[("unsigned", at)]));
    let done = debug(User::Developer, "shell", &images.unsigned.pinned());
    let developers = Request { user: User::Developer, ..request };
    world.check(&developers, &done, Want::Deny(&[("unsigned", at), ("break-glass-refused", at)]));
    let done = debug(User::OnCall, "shell", &images.unsigned.pinned());
    let seen = world.check(&request, &done, Want::Override(&[("unsigned", at)]));
    assert!(done.stderr.contains("Warning: provost: override by oncall@acme.example (INC-4712), container shell only"));
    assert_eq!(seen.record["event"]["overrides"][0]["container"], "shell", "{}", seen.record);
    let stored = world.stored(&namespace, "pods", "app").expect("it is there");
    assert_eq!(stored["spec"]["ephemeralContainers"].as_array().map(Vec::len), Some(1), "{stored}");
}
