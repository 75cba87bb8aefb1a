//! Each kind of the registration, created by kubectl: with signed images, and with an unsigned one in each of its
//! lists.

use serde_json::{Value, json};

use super::objects::{KINDS, Kind, container, spec};
use super::world::{Request, Want, world};

/// A pod spec in which the signed image stands in every list but one place, which holds `image`.
fn everywhere(signed: &str, place: &str, image: &str) -> Value {
    let at = |here: &str| if here == place { image } else { signed };
    let model = json!({"name": "model", "image": {"reference": at("volumes[1].image")}});
    json!({
        "initContainers": [
            container("init", at("initContainers[0]")),
            {"name": "sidecar", "image": at("initContainers[1]"), "restartPolicy": "Always"},
        ],
        "containers": [container("app", at("containers[0]")), container("other", at("containers[1]"))],
        "volumes": [{"name": "scratch", "emptyDir": {}}, model],
    })
}

const PLACES: [&str; 5] =
    ["initContainers[0]", "initContainers[1]", "containers[0]", "containers[1]", "volumes[1].image"];

fn signed_is_created_and_unsigned_is_not(kind: &Kind) {
    let world = world();
    let namespace = world.namespace(&format!("apps-{}", kind.resource));
    let images = &world.images;
    let (signed, unsigned) = (images.signed.pinned(), images.unsigned.pinned());

    let done = world.create(&namespace, &kind.object("signed", &everywhere(&signed, "", "")), &[]);
    let seen = world.check(&Request::new("create", &namespace, kind.resource, "signed"), &done, Want::Admit);
    assert!(world.stored(&namespace, kind.resource, "signed").is_some(), "{}", done.stdout);
    assert_eq!(seen.record["event"]["images"].as_array().map(Vec::len), Some(5), "{}", seen.record);

    for (index, place) in PLACES.iter().enumerate() {
        let name = format!("unsigned-{index}");
        let done = world.create(&namespace, &kind.object(&name, &everywhere(&signed, place, &unsigned)), &[]);
        let at = format!("{}{place}", kind.place);
        world.check(&Request::new("create", &namespace, kind.resource, &name), &done, Want::Deny(&[("unsigned", &at)]));
        assert!(world.stored(&namespace, kind.resource, &name).is_none(), "{name} is stored");
    }
    let done = world.create(&namespace, &kind.object("tag", &spec(&images.signed.tagged())), &[]);
    let at = format!("{}containers[0]", kind.place);
    world.check(
        &Request::new("create", &namespace, kind.resource, "tag"),
        &done,
        Want::Deny(&[("not-digest-pinned", &at)]),
    );
}

macro_rules! one_test_a_kind {
    ($($test:ident: $index:literal;)+) => {$(
        #[test]
        fn $test() {
            signed_is_created_and_unsigned_is_not(&KINDS[$index]);
        }
    )+};
}

one_test_a_kind! {
    x_001_x_002_x_004_pod: 0;
    x_006_replication_controller: 1;
    x_006_pod_template: 2;
    x_006_deployment: 3;
    x_006_replica_set: 4;
    x_006_stateful_set: 5;
    x_006_daemon_set: 6;
    x_006_job: 7;
    x_006_cron_job: 8;
}

#[test]
fn x_007_zero_replicas_and_suspended_are_judged_when_made() {
    let world = world();
    let namespace = world.namespace("apps-zero");
    let (signed, unsigned) = (world.images.signed.pinned(), world.images.unsigned.pinned());
    for (kind, key, value) in [
        (&KINDS[3], "replicas", json!(0)),
        (&KINDS[4], "replicas", json!(0)),
        (&KINDS[7], "suspend", json!(true)),
        (&KINDS[8], "suspend", json!(true)),
    ] {
        let send = |name, image: &str, want: Want<'_>| {
            let mut object = kind.object(name, &spec(image));
            object["spec"][key] = value.clone();
            let done = world.create(&namespace, &object, &[]);
            world.check(&Request::new("create", &namespace, kind.resource, name), &done, want);
        };
        let at = format!("{}containers[0]", kind.place);
        send("bad", &unsigned, Want::Deny(&[("unsigned", &at)]));
        send("good", &signed, Want::Admit);
    }
}

#[test]
fn x_018_a_blank_image_in_a_template_is_judged_at_its_pod() {
    let world = world();
    let namespace = world.namespace("apps-blank");
    let done = world.create(&namespace, &KINDS[3].object("blank", &spec(" ")), &[]);
    let seen = world.check(&Request::new("create", &namespace, "deployments", "blank"), &done, Want::Admit);
    assert_eq!(seen.record["event"]["notes"], json!(["empty-template-image"]));
    // In a pod the API server refuses it before anybody is asked.
    let done = world.create(&namespace, &KINDS[0].object("blank", &spec(" ")), &[]);
    assert!(done.code != 0 && !done.stderr.contains("denied the request"), "{}", done.stderr);
}
