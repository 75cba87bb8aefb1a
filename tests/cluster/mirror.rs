//! Mirror pods (C-46): what the kubelet of a node says about a static pod that runs already.

use serde_json::{Value, json};

use super::objects::{pod, spec};
use super::support::cluster::User;
use super::world::{Request, Want, world};

const APP: &str = "spec.containers[0]";

fn mirror(name: &str, image: &str) -> Value {
    let mut spec = spec(image);
    spec["nodeName"] = json!("n1");
    let mut pod = pod(name, &spec);
    pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "0123456789abcdef"});
    pod
}

#[test]
fn c_46_x_019_only_the_pods_own_node_may_show_what_runs_already() {
    let world = world();
    let namespace = world.namespace("apps-mirror");
    let unsigned = world.images.unsigned.pinned();
    let denials = [("unsigned", APP)];
    for (user, want) in [
        (User::Node, Want::WouldDeny(&denials)),
        (User::OtherNode, Want::Deny(&denials)),
        (User::Developer, Want::Deny(&denials)),
        (User::Admin, Want::Deny(&denials)),
    ] {
        let name = format!("by-{}", user.name().replace([':', '@', '.'], "-"));
        let done = world.create_as(user, &namespace, &mirror(&name, &unsigned), &[]);
        let request = Request { user, ..Request::new("create", &namespace, "pods", &name) };
        let seen = world.check(&request, &done, want);
        let is_own = user == User::Node;
        assert_eq!(world.stored(&namespace, "pods", &name).is_some(), is_own, "{name}");
        if is_own {
            assert_eq!(seen.record["event"]["softened"], "mirror-pod", "{}", seen.record);
            assert!(done.stderr.contains("Warning: provost: unsigned (mirror pod, not enforced)"), "{}", done.stderr);
        }
    }
}

#[test]
fn c_46_a_node_without_the_annotation_is_judged_like_anybody() {
    let world = world();
    let namespace = world.namespace("apps-node");
    let mut object = mirror("plain", &world.images.unsigned.pinned());
    object["metadata"]["annotations"] = json!({});
    let done = world.create_as(User::Node, &namespace, &object, &[]);
    let request = Request { user: User::Node, ..Request::new("create", &namespace, "pods", "plain") };
    world.check(&request, &done, Want::Deny(&[("unsigned", APP)]));
}
