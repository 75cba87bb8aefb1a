//! Changes of objects that are there, some of them older than the gate: what starts nothing new stays possible, and
//! every other change is judged.

use serde_json::{Value, json};

use super::objects::{deployment, owner, pod, spec};
use super::support::cluster::User;
use super::support::process::Done;
use super::world::{OLD, OLD_UNGOVERNED, Request, Seen, Want, world};

const APP: &str = "spec.containers[0]";
const TEMPLATE_APP: &str = "spec.template.spec.containers[0]";

/// `kubectl patch` by a developer, as a strategic merge.
fn patch(namespace: &str, resource: &str, name: &str, change: &Value) -> Done {
    let call = world().cluster.kubectl(User::Developer).args(["patch", "-n", namespace, resource, name]);
    call.args(["-p", &change.to_string()]).run()
}

fn check(namespace: &str, resource: &str, name: &str, done: &Done, want: Want<'_>) -> Seen {
    world().check(&Request::new("patch", namespace, resource, name), done, want)
}

/// A change that leaves every image as it was: admitted, and the record says why.
fn is_unchanged(namespace: &str, resource: &str, name: &str, done: &Done) {
    let seen = check(namespace, resource, name, done, Want::Admit);
    assert_eq!(seen.record["event"]["notes"], json!(["images-unchanged"]), "{}", seen.record);
}

fn image_of(container: &str, image: &str) -> Value {
    json!({"containers": [{"name": container, "image": image}]})
}

#[test]
fn x_005_an_image_is_replaced_on_a_running_pod() {
    let world = world();
    let namespace = world.namespace("apps-replaced");
    let images = &world.images;
    let done = world.create(&namespace, &pod("app", &spec(&images.signed.pinned())), &[]);
    world.check(&Request::new("create", &namespace, "pods", "app"), &done, Want::Admit);
    let stored =
        || world.stored(&namespace, "pods", "app").expect("it was created")["spec"]["containers"][0]["image"].clone();

    let done = patch(&namespace, "pods", "app", &json!({"spec": image_of("app", &images.unsigned.pinned())}));
    check(&namespace, "pods", "app", &done, Want::Deny(&[("unsigned", APP)]));
    assert_eq!(stored(), images.signed.pinned());

    let set = |image: &str| {
        let call = world.cluster.kubectl(User::Developer).args(["set", "image", "-n", &namespace, "pod/app"]);
        call.arg(format!("app={image}")).run()
    };
    check(&namespace, "pods", "app", &set(&images.signed.tagged()), Want::Deny(&[("not-digest-pinned", APP)]));
    check(&namespace, "pods", "app", &set(&images.next.pinned()), Want::Admit);
    assert_eq!(stored(), images.next.pinned());

    // Server-side apply, and a whole new object.
    let apply = |image: &str| {
        let call = world.cluster.kubectl(User::Developer).args([
            "apply",
            "-n",
            &namespace,
            "--server-side",
            "--force-conflicts",
        ]);
        call.args(["-f", "-"]).input(pod("app", &spec(image)).to_string()).run()
    };
    check(&namespace, "pods", "app", &apply(&images.wrong_key.pinned()), Want::Deny(&[("wrong-signer", APP)]));
    check(&namespace, "pods", "app", &apply(&images.signed.pinned()), Want::Admit);
    let replace = |image: &str| {
        let mut whole = world.stored(&namespace, "pods", "app").expect("it is there");
        whole["spec"]["containers"][0]["image"] = json!(image);
        let call = world.cluster.kubectl(User::Developer).args(["replace", "-n", &namespace, "-f", "-"]);
        let done = call.input(whole.to_string()).run();
        (Request::new("update", &namespace, "pods", "app"), done)
    };
    let (request, done) = replace(&images.foreign.pinned());
    world.check(&request, &done, Want::Deny(&[("not-release-repo", APP)]));
    let (request, done) = replace(&images.next.pinned());
    world.check(&request, &done, Want::Admit);
}

#[test]
fn x_009_old_unsigned_pods_can_be_labelled_and_let_go() {
    for namespace in [OLD, OLD_UNGOVERNED] {
        let world = world();
        let done = patch(namespace, "pods", "label", &json!({"metadata": {"labels": {"team": "payments"}}}));
        is_unchanged(namespace, "pods", "label", &done);

        // Deleted, it is held by its finalizer; who holds it lets go.
        world
            .cluster
            .kubectl(User::Developer)
            .args(["delete", "-n", namespace, "pod", "finalizer", "--wait=false"])
            .must();
        let held = world.stored(namespace, "pods", "finalizer").expect("held by its finalizer");
        assert!(held["metadata"]["deletionTimestamp"].is_string(), "{held}");
        let done = patch(namespace, "pods", "finalizer", &json!({"metadata": {"finalizers": null}}));
        is_unchanged(namespace, "pods", "finalizer", &done);
        assert!(world.stored(namespace, "pods", "finalizer").is_none());
    }
}

#[test]
fn x_009_images_swapped_between_containers_are_judged() {
    let images = &world().images;
    let swapped = json!({"spec": {"containers": [
        {"name": "one", "image": images.wrong_key.pinned()}, {"name": "two", "image": images.unsigned.pinned()},
    ]}});
    let done = patch(OLD, "pods", "swapped", &swapped);
    check(OLD, "pods", "swapped", &done, Want::Deny(&[("wrong-signer", APP), ("unsigned", "spec.containers[1]")]));
    // Its twin: a label, and the images where they were.
    let done = patch(OLD, "pods", "swapped", &json!({"metadata": {"labels": {"team": "payments"}}}));
    is_unchanged(OLD, "pods", "swapped", &done);
}

#[test]
fn x_005_a_new_image_on_an_old_unsigned_pod_is_judged() {
    let images = &world().images;
    let change = |image: &str| json!({"metadata": {"finalizers": null}, "spec": image_of("app", image)});
    let done = patch(OLD, "pods", "image", &change(&images.wrong_key.pinned()));
    check(OLD, "pods", "image", &done, Want::Deny(&[("wrong-signer", APP)]));
    let done = patch(OLD, "pods", "image", &change(&images.signed.pinned()));
    check(OLD, "pods", "image", &done, Want::Admit);
    // Where nobody governs, no image is new enough.
    let done = patch(OLD_UNGOVERNED, "pods", "image", &change(&images.signed.pinned()));
    check(OLD_UNGOVERNED, "pods", "image", &done, Want::Deny(&[("no-policy", "")]));
}

#[test]
fn x_008_an_image_change_with_a_scale_down_or_while_deleted_is_judged() {
    let world = world();
    let images = &world.images;
    let scaled = |image: Option<&str>| match image {
        Some(image) => json!({"spec": {"replicas": 1, "template": {"spec": image_of("app", image)}}}),
        None => json!({"spec": {"replicas": 1}}),
    };
    let done = patch(OLD, "deployments", "scaled", &scaled(Some(&images.wrong_key.pinned())));
    check(OLD, "deployments", "scaled", &done, Want::Deny(&[("wrong-signer", TEMPLATE_APP)]));
    // The scale-down alone, and the one with a signed image.
    let done = patch(OLD, "deployments", "scaled", &scaled(None));
    is_unchanged(OLD, "deployments", "scaled", &done);
    let done = patch(OLD, "deployments", "scaled", &scaled(Some(&images.signed.pinned())));
    check(OLD, "deployments", "scaled", &done, Want::Admit);

    world.cluster.kubectl(User::Developer).args(["delete", "-n", OLD, "pod", "deleted", "--wait=false"]).must();
    let change = |image: &str| json!({"spec": image_of("app", image)});
    let done = patch(OLD, "pods", "deleted", &change(&images.wrong_key.pinned()));
    check(OLD, "pods", "deleted", &done, Want::Deny(&[("wrong-signer", APP)]));
    let done = patch(OLD, "pods", "deleted", &change(&images.signed.pinned()));
    check(OLD, "pods", "deleted", &done, Want::Admit);
}

#[test]
fn c_37_a_template_needs_new_proof_unless_all_of_it_is_as_it_was() {
    let images = &world().images;
    // An annotation of the Deployment leaves the template alone; one of the template does not.
    let done = patch(OLD, "deployments", "annotated", &json!({"metadata": {"annotations": {"owner": "payments"}}}));
    is_unchanged(OLD, "deployments", "annotated", &done);
    let restart =
        json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}}}});
    let done = patch(OLD, "deployments", "rolled", &restart);
    check(OLD, "deployments", "rolled", &done, Want::Deny(&[("unsigned", TEMPLATE_APP)]));
    // With a signed image the same restart goes through.
    let namespace = world().namespace("apps-restarted");
    let done = world().create(&namespace, &deployment("rolled", &spec(&images.signed.pinned())), &[]);
    world().check(&Request::new("create", &namespace, "deployments", "rolled"), &done, Want::Admit);
    let done = patch(&namespace, "deployments", "rolled", &restart);
    let seen = check(&namespace, "deployments", "rolled", &done, Want::Admit);
    assert!(seen.record["event"]["notes"].is_null(), "{}", seen.record);
}

#[test]
fn x_007_a_deployment_that_is_scaled_up_is_judged_at_its_pods() {
    let world = world();
    // Scaling goes through a subresource that holds no image.
    let scale = ["scale", "-n", OLD, "deployment/annotated", "--replicas=5"];
    world.cluster.kubectl(User::Developer).args(scale).must();
    // The pod that its controller then makes.
    let mut object = pod("annotated-1", &spec(&world.images.unsigned.pinned()));
    let made_by = world.stored(OLD, "deployments", "annotated").expect("older than the gate");
    object["metadata"]["ownerReferences"] = json!([owner("Deployment", "annotated", &made_by["metadata"]["uid"])]);
    let done = world.create(OLD, &object, &[]);
    world.check(&Request::new("create", OLD, "pods", "annotated-1"), &done, Want::Deny(&[("unsigned", APP)]));
}
