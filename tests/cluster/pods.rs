//! Pods and debug containers: each reason to refuse, by its own code, beside its twin that is admitted.

use std::time::Duration;

use serde_json::{Value, json};

use super::objects::{container, owner, pod, spec};
use super::support::cluster::User;
use super::support::process::Done;
use super::support::wait;
use super::world::{Request, Want, World, world};

const APP: &str = "spec.containers[0]";

#[test]
fn x_021_x_034_x_051_x_053_x_058_each_refusal_has_its_code() {
    let world = world();
    let namespace = world.namespace("apps-refusals");
    let images = &world.images;
    let pinned = images.signed.pinned();
    let (repository, digest) = (&images.signed.repository, &images.signed.digest);
    let short = pinned[..pinned.len() - 1].to_owned();
    let capitals = format!("{repository}@sha256:{}", digest["sha256:".len()..].to_uppercase());
    let sha512 = format!("{repository}@sha512:{0}{0}", &digest["sha256:".len()..]);
    let other_repository = images.next.repository.clone() + "@" + &images.withdrawn.digest;
    let missing = format!("{repository}@sha256:{}", "0".repeat(64));
    for (name, image, code) in [
        ("signed", pinned.as_str(), ""),
        ("tag-and-digest", &format!("{}@{digest}", images.signed.tagged()), ""),
        ("tag", &images.signed.tagged(), "not-digest-pinned"),
        ("neither", repository, "not-digest-pinned"),
        ("short-digest", &short, "malformed-reference"),
        ("capitals", &capitals, "malformed-reference"),
        ("sha512", &sha512, "unsupported-digest"),
        ("foreign", &images.foreign.pinned(), "not-release-repo"),
        ("docker-hub", &format!("nginx@{digest}"), "not-release-repo"),
        ("unsigned", &images.unsigned.pinned(), "unsigned"),
        ("wrong-key", &images.wrong_key.pinned(), "wrong-signer"),
        ("withdrawn", &images.withdrawn.pinned(), "deny-listed"),
        ("withdrawn-elsewhere", &other_repository, "deny-listed"),
        ("missing", &missing, "image-not-found"),
    ] {
        let done = world.create(&namespace, &pod(name, &spec(image)), &[]);
        let denial = [(code, APP)];
        let want = if code.is_empty() { Want::Admit } else { Want::Deny(&denial) };
        world.check(&Request::new("create", &namespace, "pods", name), &done, want);
        assert_eq!(world.stored(&namespace, "pods", name).is_some(), code.is_empty(), "{name}");
    }
}

#[test]
fn c_23_one_answer_names_every_refused_image() {
    let world = world();
    let namespace = world.namespace("apps-several");
    let images = &world.images;
    let spec = json!({
        "initContainers": [container("init", &images.unsigned.pinned())],
        "containers": [
            container("signed", &images.signed.pinned()),
            container("tag", &images.signed.tagged()),
            container("wrong", &images.wrong_key.pinned()),
        ],
        "volumes": [{"name": "model", "image": {"reference": images.foreign.pinned()}}],
    });
    let done = world.create(&namespace, &pod("several", &spec), &[]);
    let seen = world.check(
        &Request::new("create", &namespace, "pods", "several"),
        &done,
        Want::Deny(&[
            ("unsigned", "spec.initContainers[0]"),
            ("not-digest-pinned", "spec.containers[1]"),
            ("wrong-signer", "spec.containers[2]"),
            ("not-release-repo", "spec.volumes[0].image"),
        ]),
    );
    assert!(done.stderr.contains("4 of 5 images refused"), "{}", done.stderr);
    // The image that is fine is recorded as well.
    assert_eq!(seen.record["event"]["images"].as_array().map(Vec::len), Some(5));
}

#[test]
fn x_079_a_namespace_without_a_policy() {
    let world = world();
    let object = pod("app", &spec(&world.images.signed.pinned()));
    for (namespace, want) in [("free-none", Want::Deny(&[("no-policy", "")])), ("apps-some", Want::Admit)] {
        let namespace = world.namespace(namespace);
        let done = world.create(&namespace, &object, &[]);
        world.check(&Request::new("create", &namespace, "pods", "app"), &done, want);
    }
}

#[test]
fn c_28_a_pod_that_has_no_name_yet() {
    let world = world();
    let namespace = world.namespace("apps-generated");
    for (prefix, image, want) in [
        ("good-", world.images.signed.pinned(), Want::Admit),
        ("bad-", world.images.unsigned.pinned(), Want::Deny(&[("unsigned", APP)])),
    ] {
        let mut object = pod("", &spec(&image));
        object["metadata"] = json!({"generateName": prefix});
        let done = world.create(&namespace, &object, &[]);
        // The API server makes the name before it asks; the audit log shows it where the pod was made.
        let made = done.stdout.strip_prefix("pod/").and_then(|rest| rest.split(' ').next()).unwrap_or(prefix);
        // An admission is written down a moment after it is answered.
        let records = wait::until("the record", Duration::from_secs(10), || {
            let mut records = world.gate.provost.records(&["--namespace", &namespace]);
            records.retain(|record| record["event"]["name"].as_str().is_some_and(|name| name.starts_with(prefix)));
            (!records.is_empty()).then_some(records)
        });
        assert_eq!(records.len(), 1, "{records:?}");
        match want {
            Want::Admit => assert!(world.stored(&namespace, "pods", made).is_some(), "{}", done.stderr),
            Want::Deny(_) | Want::WouldDeny(_) | Want::Override(_) => {
                assert!(done.stderr.contains("unsigned"), "{}", done.stderr);
            }
        }
    }
}

#[test]
fn c_27_a_dry_run_is_judged_and_recorded_and_changes_nothing() {
    let world = world();
    let namespace = world.namespace("apps-dry");
    for (name, image, want) in [
        ("good", world.images.signed.pinned(), Want::Admit),
        ("bad", world.images.unsigned.pinned(), Want::Deny(&[("unsigned", APP)])),
    ] {
        let done = world.create(&namespace, &pod(name, &spec(&image)), &["--dry-run=server"]);
        let request = Request { dry_run: true, ..Request::new("create", &namespace, "pods", name) };
        world.check(&request, &done, want);
        assert!(world.stored(&namespace, "pods", name).is_none());
    }
}

#[test]
fn x_010_x_011_owners_and_claims_of_verification_allow_nothing() {
    let world = world();
    let namespace = world.namespace("apps-claims");
    let images = &world.images;
    let owner = json!([owner("ReplicaSet", "signed", &json!("6d1f0c3a-52be-4e0b-9a57-0c8a4e1b7f20"))]);
    let claims = json!({"provost.dev/verified": "true", "kubernetes.io/config.source": "file"});
    for (name, image, want) in [
        ("good", images.signed.pinned(), Want::Admit),
        ("bad", images.unsigned.pinned(), Want::Deny(&[("unsigned", APP)])),
    ] {
        let mut object = pod(name, &spec(&image));
        object["metadata"]["ownerReferences"] = owner.clone();
        object["metadata"]["annotations"] = claims.clone();
        let done = world.create(&namespace, &object, &[]);
        world.check(&Request::new("create", &namespace, "pods", name), &done, want);
    }
}

/// `kubectl debug` by the person on call; her request and kubectl's answer.
fn debug(world: &World, namespace: &str, container: &str, image: &str) -> Done {
    let call = world.cluster.kubectl(User::OnCall).args(["debug", "-n", namespace, "app", "--attach=false"]);
    call.args(["--container", container, "--image", image, "--", "sh"]).run()
}

#[test]
fn x_003_debug_containers_through_the_subresource() {
    let world = world();
    let namespace = world.namespace("apps-debug");
    let images = &world.images;
    let done = world.create(&namespace, &pod("app", &spec(&images.signed.pinned())), &[]);
    world.check(&Request::new("create", &namespace, "pods", "app"), &done, Want::Admit);
    let request =
        Request { user: User::OnCall, ..Request::new("patch", &namespace, "pods/ephemeralcontainers", "app") };
    let debuggers = |pod: Option<Value>| {
        let list = pod.map(|pod| pod["spec"]["ephemeralContainers"].clone()).unwrap_or_default();
        list.as_array().map_or(0, Vec::len)
    };
    for (container, image, code, at) in [
        ("first", images.unsigned.pinned(), "unsigned", "spec.ephemeralContainers[0]"),
        ("second", images.signed.tagged(), "not-digest-pinned", "spec.ephemeralContainers[0]"),
        ("third", images.next.pinned(), "", ""),
        ("fourth", images.wrong_key.pinned(), "wrong-signer", "spec.ephemeralContainers[1]"),
    ] {
        let before = debuggers(world.stored(&namespace, "pods", "app"));
        let done = debug(world, &namespace, container, &image);
        let denial = [(code, at)];
        let want = if code.is_empty() { Want::Admit } else { Want::Deny(&denial) };
        world.check(&request, &done, want);
        let more = usize::from(code.is_empty());
        assert_eq!(debuggers(world.stored(&namespace, "pods", "app")), before + more, "{container}");
    }
}
