//! Reviews as an API server sends them. What must hold: every image, from every list of every kind.

mod hostile;
mod updates;

use serde_json::{Value, json};

use super::*;
use crate::decision::printable::printable;
use crate::decision::review::{Holder, Operation, Subject};

/// A pod of a `ReplicaSet`, in the form and order in which an API server of version 1.36 sends it.
const SAMPLE: &str = include_str!("sample_pod.json");

fn pod() -> Value {
    serde_json::from_str(SAMPLE).expect("sample")
}

/// A small review of a kind, with this object.
fn review(operation: &str, group: &str, kind: &str, object: &Value, old: &Value) -> Value {
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {
        "uid": "u-1", "kind": {"group": group, "version": "v1", "kind": kind},
        "resource": {"group": group, "version": "v1", "resource": "things"},
        "name": "thing", "namespace": "payments", "operation": operation,
        "userInfo": {"username": "alice", "groups": ["developers"]},
        "object": object, "oldObject": old, "dryRun": false}})
}

/// An object of a kind with this pod spec where that kind has it, and otherwise `extra` in its spec.
fn object(group: &str, kind: &str, pod_spec: &Value) -> Value {
    let api_version = if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") };
    let metadata = json!({"name": "thing", "namespace": "payments"});
    let template = json!({"metadata": {"labels": {"app": "a"}}, "spec": pod_spec});
    let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata});
    match kind {
        "Pod" => object["spec"] = pod_spec.clone(),
        "PodTemplate" => object["template"] = template,
        "CronJob" => object["spec"] = json!({"schedule": "@daily", "jobTemplate": {"spec": {"template": template}}}),
        _ => object["spec"] = json!({"replicas": 1, "selector": {}, "template": template}),
    }
    object
}

fn containers(images: &[&str]) -> Value {
    let list: Vec<Value> =
        images.iter().enumerate().map(|(i, image)| json!({"name": format!("c{i}"), "image": image})).collect();
    json!({ "containers": list })
}

fn read(review: &Value) -> Result<Review, Undecodable> {
    decode(review.to_string().as_bytes())
}

fn good(review: &Value) -> Review {
    read(review).unwrap_or_else(|error| panic!("{error}: {review}"))
}

#[track_caller]
fn assert_refused(body: &[u8], code: Code, name: &str) -> Fault {
    match decode(body) {
        Err(Undecodable::Refuse { request, fault }) => {
            assert!(!request.uid.is_empty(), "{name}: no uid");
            assert_eq!(fault.code, code, "{name}: {fault}");
            assert_eq!(fault.detail, printable(&fault.detail), "{name}");
            assert!(fault.detail.len() < 600, "{name}: {fault}");
            fault
        }
        other => panic!("{name}: {other:?}"),
    }
}

fn malformed_value(review: &Value, name: &str) -> Fault {
    assert_refused(review.to_string().as_bytes(), Code::MalformedReview, name)
}

fn places(review: &Review) -> Vec<(&str, &str, &str)> {
    review.images.iter().map(|i| (i.place.path.as_str(), i.place.name.as_str(), i.text.as_str())).collect()
}

/// Each kind that holds a pod spec: its group, name, the path to that spec, what it is to the rules.
const KINDS: &[(&str, &str, &str, Subject)] = &[
    ("", "Pod", "spec", Subject::Pod),
    ("", "ReplicationController", "spec.template.spec", Subject::Template),
    ("", "PodTemplate", "template.spec", Subject::Template),
    ("apps", "Deployment", "spec.template.spec", Subject::Template),
    ("apps", "ReplicaSet", "spec.template.spec", Subject::Template),
    ("apps", "StatefulSet", "spec.template.spec", Subject::Template),
    ("apps", "DaemonSet", "spec.template.spec", Subject::Template),
    ("batch", "Job", "spec.template.spec", Subject::Template),
    ("batch", "CronJob", "spec.jobTemplate.spec.template.spec", Subject::Template),
];

#[test]
fn reads_what_an_api_server_sends() {
    let review = decode(SAMPLE.as_bytes()).expect("sample");
    let digest = |hex: &str| format!("@sha256:{hex}");
    let repository = "registry.example.com/release/payments";
    let api = format!("{repository}/api{}", digest("41c0d2e3f4a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f"));
    let migrate =
        format!("{repository}/migrate{}", digest("1f2e3d4c5b6a79880716253443526170f1e2d3c4b5a6978869504132231405f6"));
    let model =
        format!("{repository}/model{}", digest("9b2c64d1e07f4a5b8c3d2e1f0a9b8c7d6e5f4a3b2c1d0e9f8a7b6c5d4e3f2a1b"));
    assert_eq!(
        places(&review),
        [
            ("spec.containers[0]", "api", api.as_str()),
            ("spec.initContainers[0]", "migrate", &migrate),
            ("spec.volumes[1].image", "model", &model),
        ]
    );
    assert_eq!(review.namespace.as_str(), "payments");
    assert_eq!(review.subject, Subject::Pod);
    assert!(review.unknown_fields.is_empty());
    assert_eq!(review.mirror_of_node, None);
    assert_eq!(
        review.request,
        Request {
            uid: "6d1f0c3a-52be-4e0b-9a57-0c8a4e1b7f20".to_owned(),
            operation: Some(Operation::Create),
            kind: crate::decision::review::Kind {
                group: String::new(),
                version: "v1".to_owned(),
                kind: "Pod".to_owned()
            },
            resource: "pods".to_owned(),
            sub_resource: String::new(),
            request_kind: None,
            request_resource: None,
            namespace: "payments".to_owned(),
            name: "api-6c8d9f7b5c-".to_owned(),
            user: "system:serviceaccount:kube-system:replicaset-controller".to_owned(),
            groups: ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"]
                .map(str::to_owned)
                .to_vec(),
            dry_run: false,
            caller: crate::decision::review::Caller::Unknown,
        }
    );
}

#[test]
fn x_002_x_003_x_004_x_006_every_kind_and_every_list() {
    for (group, kind, prefix, subject) in KINDS {
        let spec = json!({
            "volumes": [{"name": "v0", "emptyDir": {}}, {"name": "v1", "image": {"reference": "r/volume"}}],
            "initContainers": [{"name": "i0", "image": "r/init"}, {"name": "i1", "image": "r/sidecar", "restartPolicy": "Always"}],
            "containers": [{"name": "c0", "image": "r/one"}, {"name": "c1", "image": "r/two"}],
            "ephemeralContainers": [{"name": "e0", "image": "r/debug", "targetContainerName": "c0"}],
        });
        for operation in ["CREATE", "UPDATE"] {
            let review = good(&review(operation, group, kind, &object(group, kind, &spec), &Value::Null));
            let want = [
                ("containers[0]", "c0", "r/one"),
                ("containers[1]", "c1", "r/two"),
                ("initContainers[0]", "i0", "r/init"),
                ("initContainers[1]", "i1", "r/sidecar"),
                ("ephemeralContainers[0]", "e0", "r/debug"),
                ("volumes[1].image", "v1", "r/volume"),
            ]
            .map(|(path, name, text)| (format!("{prefix}.{path}"), name, text));
            let want: Vec<_> = want.iter().map(|(path, name, text)| (path.as_str(), *name, *text)).collect();
            assert_eq!(places(&review), want, "{kind} {operation}");
            assert_eq!(review.subject, *subject, "{kind}");
            assert!(review.images.iter().all(|image| !image.unchanged), "{kind}: nothing to compare with");
            let holders: Vec<Holder> = review.images.iter().map(|image| image.place.holder).collect();
            let (c, i) = (Holder::Container, Holder::InitContainer);
            assert_eq!(holders, [c, c, i, i, Holder::EphemeralContainer, Holder::Volume], "{kind}");
        }
    }
}

#[test]
fn the_order_of_keys_does_not_matter() {
    let sorted = pod().to_string();
    assert!(sorted.find("\"object\"") < sorted.find("\"operation\""), "serde_json sorts keys: the object comes first");
    assert_eq!(decode(sorted.as_bytes()), decode(SAMPLE.as_bytes()));
    // A duplicate inside an object that stands before the operation is found as well.
    let twice = sorted.replace("\"pullPolicy\"", "\"reference\"");
    assert_ne!(twice, sorted);
    assert_refused(twice.as_bytes(), Code::MalformedReview, "duplicate in an early object");
}

#[test]
fn x_018_images_that_are_empty_are_images() {
    let spec = json!({
        "containers": [{"name": "a"}, {"name": "b", "image": null}, {"image": " "}],
        "volumes": [{"name": "v", "image": {}}, {"name": "w", "image": null}, {"name": "x", "secret": {}}],
    });
    let review = good(&review("CREATE", "", "Pod", &object("", "Pod", &spec), &Value::Null));
    assert_eq!(
        places(&review),
        [
            ("spec.containers[0]", "a", ""),
            ("spec.containers[1]", "b", ""),
            ("spec.containers[2]", "", " "),
            ("spec.volumes[0].image", "v", ""),
        ]
    );
}

#[test]
fn c_32_kinds_without_images() {
    let body = |operation: &str, group: &str, kind: &str, object: &Value| {
        let mut body = review(operation, group, kind, object, &Value::Null);
        body["request"]["kind"]["version"] = json!("v1");
        body
    };
    for (group, kind, operation) in [
        ("", "Binding", "CREATE"),
        ("policy", "Eviction", "CREATE"),
        ("autoscaling", "Scale", "UPDATE"),
        ("", "PodExecOptions", "CONNECT"),
        ("", "PodAttachOptions", "CONNECT"),
        ("", "PodPortForwardOptions", "CONNECT"),
        ("", "PodProxyOptions", "CONNECT"),
        ("", "ServiceProxyOptions", "CONNECT"),
        ("", "NodeProxyOptions", "CONNECT"),
        ("", "Pod", "DELETE"),
        ("example.com", "Widget", "DELETE"),
    ] {
        let version = if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") };
        for object in
            [json!(null), json!({"apiVersion": version, "kind": kind, "spec": {"containers": [{"image": "x"}]}})]
        {
            let review = good(&body(operation, group, kind, &object));
            assert_eq!((review.subject, review.images.len()), (Subject::NoImages, 0), "{operation} {kind}");
        }
        let mut cluster_scoped = body(operation, group, kind, &Value::Null);
        cluster_scoped["request"]["namespace"] = json!("");
        assert_eq!(good(&cluster_scoped).request.namespace, "", "{kind}");
    }
    // Another object under the name of such a kind.
    let pod = object("", "Pod", &containers(&["r/a"]));
    malformed_value(&body("CREATE", "", "Binding", &pod), "a pod sent as a binding");
}

#[test]
fn c_32_status_and_resize_are_judged_as_updates() {
    for sub in ["status", "resize", "ephemeralcontainers"] {
        let old = object("", "Pod", &containers(&["r/a", "r/b"]));
        let new = object("", "Pod", &containers(&["r/a", "r/x"]));
        let mut body = review("UPDATE", "", "Pod", &new, &old);
        body["request"]["subResource"] = json!(sub);
        let review = good(&body);
        assert_eq!(review.request.sub_resource, sub);
        assert_eq!(review.images.iter().map(|i| i.unchanged).collect::<Vec<_>>(), [true, false], "{sub}");
    }
}

#[test]
fn c_30_x_013_x_014_kinds_are_known_exactly() {
    let spec = containers(&["r/a"]);
    for (group, version, kind) in [
        ("", "v1", "pod"),
        ("", "v2", "Pod"),
        ("core", "v1", "Pod"),
        ("", "v1", "Deployment"),
        ("apps", "v1beta1", "Deployment"),
        ("extensions", "v1beta1", "Deployment"),
        ("apps", "v1", "Job"),
        ("batch", "v1beta1", "CronJob"),
        ("batch", "v1", "ReplicationController"),
        ("policy", "v1beta1", "Eviction"),
        ("apps", "v1", "Scale"),
        ("example.com", "v1", "Pod"),
        ("argoproj.io", "v1alpha1", "Rollout"),
        ("", "v1", ""),
    ] {
        for operation in ["CREATE", "UPDATE", "CONNECT"] {
            let mut body = review(operation, group, kind, &object(group, kind, &spec), &Value::Null);
            body["request"]["kind"]["version"] = json!(version);
            let fault = assert_refused(body.to_string().as_bytes(), Code::UnsupportedKind, kind);
            assert!(fault.detail.contains(kind), "{fault}");
        }
    }
}

#[test]
fn c_30_the_version_in_which_it_was_sent_is_kept() {
    let mut body =
        review("CREATE", "apps", "Deployment", &object("apps", "Deployment", &containers(&["a"])), &Value::Null);
    let request = &mut body["request"];
    request["resource"] = json!({"group": "apps", "version": "v1", "resource": "deployments"});
    request["requestKind"] = json!({"group": "extensions", "version": "v1beta1", "kind": "Deployment"});
    request["requestResource"] = json!({"group": "extensions", "version": "v1beta1", "resource": "deployments"});
    let review = good(&body);
    assert_eq!(
        review.request.request_kind.map(|kind| kind.to_string()).as_deref(),
        Some("extensions/v1beta1/Deployment")
    );
    assert_eq!(review.request.request_resource.as_deref(), Some("extensions/v1beta1/deployments"));
    assert_eq!(review.request.kind.to_string(), "apps/v1/Deployment");
}

#[test]
fn the_name_may_be_found_in_the_object() {
    for (request, metadata, want) in [
        (json!("given"), json!({"name": "own", "generateName": "gen-"}), "given"),
        (json!(""), json!({"name": "own", "generateName": "gen-"}), "own"),
        (json!(null), json!({"generateName": "gen-"}), "gen-"),
        (json!(null), json!({}), ""),
    ] {
        let mut pod = object("", "Pod", &containers(&["r/a"]));
        pod["metadata"] = metadata;
        let mut body = review("CREATE", "", "Pod", &pod, &Value::Null);
        body["request"]["name"] = request;
        assert_eq!(good(&body).request.name, want);
    }
}

#[test]
fn x_015_unknown_fields_that_may_hold_an_image() {
    // Where the field stands, its value, whether it is refused and under which path.
    let spec = "spec";
    for (name, pointer, key, value, want) in [
        ("pod spec", "", "sideImage", json!("x"), Some("sideImage")),
        ("pod spec, deep", "", "sides", json!([{"a": {"image": "x"}}]), Some("sides")),
        ("pod spec, reference", "", "sides", json!({"reference": 1}), Some("sides")),
        ("container", "/containers/0", "checkpointImage", json!(null), Some("containers[0].checkpointImage")),
        ("container, deep", "/containers/1", "restore", json!({"fromImage": "x"}), Some("containers[1].restore")),
        ("init container", "/initContainers/0", "fork", json!([{"reference": "x"}]), Some("initContainers[0].fork")),
        ("ephemeral", "/ephemeralContainers/0", "x", json!({"image": 1}), Some("ephemeralContainers[0].x")),
        ("volume", "/volumes/0", "artifact", json!({"reference": "x"}), Some("volumes[0].artifact")),
        ("volume, itself", "/volumes/0", "reference", json!("x"), Some("volumes[0].reference")),
        ("image volume", "/volumes/1/image", "fallbackImage", json!("x"), Some("volumes[1].image.fallbackImage")),
        ("a key of another place", "/containers/0", "volumes", json!([{"image": {}}]), Some("containers[0].volumes")),
        ("only of ephemeral ones", "/containers/0", "targetContainerName", json!("x"), None),
        ("unknown, no image", "", "fancyPolicy", json!({"x": [1, {"y": "image"}]}), None),
        ("unknown, no image, container", "/containers/0", "fancyPolicy", json!("image"), None),
        ("unknown, no image, volume", "/volumes/0", "fancy", json!({"imageless": 1}), None),
        ("known field with a key image", "/volumes/0", "csi", json!({"volumeAttributes": {"image": "x"}}), None),
        ("rbd's own image", "/volumes/0", "rbd", json!({"image": "disk"}), None),
        ("known field", "/containers/0", "env", json!([{"name": "image", "value": "x"}]), None),
    ] {
        let mut pod_spec = json!({
            "containers": [{"name": "a", "image": "r/a"}, {"name": "b", "image": "r/b"}],
            "initContainers": [{"name": "i", "image": "r/i"}],
            "ephemeralContainers": [{"name": "e", "image": "r/e"}],
            "volumes": [{"name": "v"}, {"name": "w", "image": {"reference": "r/w"}}],
        });
        pod_spec.pointer_mut(pointer).expect("pointer")[key] = value;
        let review = good(&review("CREATE", "", "Pod", &object("", "Pod", &pod_spec), &Value::Null));
        let found: Vec<_> = review.unknown_fields.iter().map(|field| (field.path.as_str(), field.unchanged)).collect();
        let want = want.map(|path| format!("{spec}.{path}"));
        assert_eq!(found, want.iter().map(|path| (path.as_str(), false)).collect::<Vec<_>>(), "{name}");
        assert_eq!(review.images.len(), 5, "{name}: images are read all the same");
    }
}

#[test]
fn c_46_x_019_mirror_pods() {
    let mirror = |annotations: Value, node: Value, kind: &str, group: &str| {
        let mut spec = containers(&["r/a"]);
        spec["nodeName"] = node;
        let mut object = object(group, kind, &spec);
        object["metadata"]["annotations"] = annotations;
        good(&review("CREATE", group, kind, &object, &Value::Null)).mirror_of_node
    };
    let annotation = json!({"kubernetes.io/config.mirror": "0a1b"});
    assert_eq!(mirror(annotation.clone(), json!("n1"), "Pod", "").as_deref(), Some("n1"));
    assert_eq!(mirror(annotation.clone(), json!(null), "Pod", "").as_deref(), Some(""));
    assert_eq!(mirror(json!({"kubernetes.io/config.source": "api"}), json!("n1"), "Pod", ""), None);
    assert_eq!(mirror(json!(null), json!("n1"), "Pod", ""), None);
    assert_eq!(mirror(annotation, json!("n1"), "Job", "batch"), None);
}
