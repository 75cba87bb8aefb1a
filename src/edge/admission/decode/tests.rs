//! Reviews as an API server sends them, and as it never would. What must hold: every image, from every list, or a fault.

use serde_json::{Value, json};

use super::super::object::MAX_IMAGES;
use super::super::printable::printable;
use super::*;
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
fn c_20_another_version_has_no_reply() {
    for (api_version, kind) in [
        ("admission.k8s.io/v1beta1", "AdmissionReview"),
        ("admission.k8s.io/v2", "AdmissionReview"),
        ("", "AdmissionReview"),
        ("v1", "AdmissionReview"),
        ("admission.k8s.io/v1", "ConversionReview"),
        ("admission.k8s.io/v1", ""),
    ] {
        let mut body = pod();
        body["apiVersion"] = json!(api_version);
        body["kind"] = json!(kind);
        assert!(matches!(read(&body), Err(Undecodable::NoReply { .. })), "{api_version} {kind}");
    }
    for missing in ["apiVersion", "kind"] {
        let mut body = pod();
        body.as_object_mut().expect("object").remove(missing);
        assert!(matches!(read(&body), Err(Undecodable::NoReply { .. })), "{missing}");
    }
}

#[test]
fn c_12_without_a_uid_there_is_no_reply() {
    let with_uid = |uid: Value| {
        let mut body = pod();
        body["request"]["uid"] = uid;
        body.to_string()
    };
    for body in [
        with_uid(json!("")),
        with_uid(json!(null)),
        with_uid(json!("u".repeat(MAX_UID + 1))),
        with_uid(json!(7)),
        SAMPLE.replace("6d1f0c3a-52be-4e0b-9a57-0c8a4e1b7f20", "\\ud83d"),
        r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":null}"#.to_owned(),
        r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}"#.to_owned(),
        String::new(),
        "null".to_owned(),
        "[]".to_owned(),
        "{".to_owned(),
        "\x16\x03\x01".to_owned(),
    ] {
        assert!(matches!(decode(body.as_bytes()), Err(Undecodable::NoReply { .. })), "{body}");
    }
    assert!(decode(with_uid(json!("u".repeat(MAX_UID))).as_bytes()).is_ok());
    assert_eq!(good(&serde_json::from_str(&with_uid(json!("a\"ü\n"))).expect("json")).request.uid, "a\"ü\n");
}

#[test]
fn c_09_oversize_bodies() {
    let padding = " ".repeat(MAX_BODY - SAMPLE.len());
    assert!(decode(format!("{SAMPLE}{padding}").as_bytes()).is_ok());
    let fault = assert_refused(format!("{SAMPLE}{padding} ").as_bytes(), Code::ReviewTooLarge, "one byte more");
    assert_eq!(fault.detail, "the review is larger than 8 MiB");
    assert!(matches!(decode(&vec![b'x'; 9 << 20]), Err(Undecodable::NoReply { .. })));
    assert_eq!(too_large(&SAMPLE.as_bytes()[..300]).uid(), Some("6d1f0c3a-52be-4e0b-9a57-0c8a4e1b7f20"));
    // 3 MiB and 3 MiB are read.
    let mut spec = containers(&["r/a"]);
    spec["containers"][0]["args"] = json!(vec!["x".repeat(1 << 20); 3]);
    let pod = object("", "Pod", &spec);
    assert!(good(&review("UPDATE", "", "Pod", &pod, &pod)).leaves_all_images());
}

#[test]
fn x_016_two_readers_see_the_same() {
    let replace = |from: &str, to: &str| {
        let body = SAMPLE.replacen(from, to, 1);
        assert_ne!(body, SAMPLE, "{from} is not in the sample");
        body.into_bytes()
    };
    let mut bodies: Vec<(&str, Vec<u8>)> = [
        ("image twice", r#""name":"api","image""#, r#""image":"x","name":"api","image""#),
        ("image in another case", r#""name":"api","image""#, r#""name":"api","Image":"x","image""#),
        ("image in another case alone", r#""name":"api","image""#, r#""name":"api","IMAGE""#),
        ("image by escape, twice", r#""name":"api","image""#, r#""\u0069mage":"x","name":"api","image""#),
        ("name twice", r#""name":"api","#, r#""name":"api","name":"b","#),
        ("long s", r#""spec":{"volumes""#, r#""ſpec":{},"spec":{"volumes""#),
        ("Kelvin sign", r#""kind":"Pod","apiVersion""#, "\"\u{212a}ind\":\"Pod\",\"apiVersion\""),
        ("spec twice", r#""spec":{"volumes""#, r#""spec":{},"spec":{"volumes""#),
        ("spec in another case", r#""spec":{"volumes""#, r#""Spec":{},"spec":{"volumes""#),
        ("containers twice", r#""containers":[{"name":"api""#, r#""containers":[],"containers":[{"name":"api""#),
        ("containers in another case", r#""containers":[{"name":"api""#, r#""Containers":[{"name":"api""#),
        ("volumes twice", r#""volumes":["#, r#""volumes":[],"volumes":["#),
        ("reference twice", r#""reference":"#, r#""reference":"x","reference":"#),
        ("reference in another case", r#""reference":"#, r#""Reference":"#),
        ("volume's image twice", r#""image":{"ref"#, r#""image":{},"image":{"ref"#),
        ("object twice", r#""object":{"#, r#""object":{},"object":{"#),
        ("object in another case", r#""object":{"#, r#""Object":{"#),
        ("request twice", r#""request":{"#, r#""request":{"uid":"other"},"request":{"#),
        ("request in another case", r#""request":{"uid""#, r#""Request":{},"request":{"uid""#),
        ("metadata twice", r#""metadata":{"generateName""#, r#""metadata":{},"metadata":{"generateName""#),
        ("namespace twice", r#""namespace":"payments","op"#, r#""namespace":"payments","namespace":"other","op"#),
        ("operation twice", r#""operation":"CREATE""#, r#""operation":"DELETE","operation":"CREATE""#),
        ("kind twice", r#""kind":"Pod","apiVersion""#, r#""kind":"Binding","kind":"Pod","apiVersion""#),
        ("user twice", r#""username":"#, r#""username":"system:node:n1","username":"#),
        ("uid twice", r#""uid":"6d1f0c3a"#, r#""uid":"other","uid":"6d1f0c3a"#),
        (
            "annotation twice",
            r#""annotations":{"#,
            r#""annotations":{"kubernetes.io/config.mirror":"","kubernetes.io/config.mirror":"","#,
        ),
        ("unknown key twice", r#""name":"api","#, r#""name":"api","new":1,"new":2,"#),
        ("half a surrogate in an image", "release/payments/api@", "release/\\ud83d/api@"),
        ("half a surrogate where it is not read", "hello, ", "hello\\udc00, "),
        ("half a surrogate in a key", r#""prometheus.io/scrape":"true""#, r#""\ud800":"true""#),
        (
            "1e400 where it is not read",
            r#""containerPort":8080,"protocol":"TCP"}],"env""#,
            r#""containerPort":1e400,"protocol":"TCP"}],"env""#,
        ),
        ("1e400 in the status", r#""phase":"Pending""#, r#""phase":1e400"#),
        ("1e400 in the options", r#"{"kind":"CreateOptions""#, r#"{"n":1e400,"kind":"CreateOptions""#),
        ("escaped NUL in an image", "release/payments/api@", "release/\\u0000/api@"),
        ("escaped NUL where it is not read", "hello, ", "hello\\u0000, "),
        ("NUL in an image", "release/payments/api@", "release/\0/api@"),
        ("NUL where it is not read", "hello, ", "hello\0, "),
        ("NUL between tokens", r#""dryRun":"#, "\0\"dryRun\":"),
        ("newline in a text", "hello, ", "hello\n, "),
        ("trailing comma", r#""status":{"phase""#, r#""status":{,"phase""#),
        ("number in bad form", r#""priority":0"#, r#""priority":00"#),
        ("comment", r#""priority":0"#, r#""priority":0/**/"#),
        ("image is a number", r#""name":"api","image""#, r#""name":"api","image":7,"x""#),
        ("image is an object", r#""name":"api","image""#, r#""name":"api","image":{},"x""#),
        ("containers is an object", r#""containers":[{"name":"api""#, r#""containers":{},"x":[{"name":"api""#),
        ("container is null", r#""containers":[{"name":"api""#, r#""containers":[null,{"name":"api""#),
        ("container is a list", r#""containers":[{"name":"api""#, r#""containers":[["api"],{"name":"api""#),
        ("spec is a list", r#""spec":{"volumes""#, r#""spec":[],"x":{"volumes""#),
        ("dryRun is a text", r#""dryRun":false"#, r#""dryRun":"false""#),
    ]
    .map(|(name, from, to)| (name, replace(from, to)))
    .to_vec();
    bodies.push(("byte-order mark", format!("\u{feff}{SAMPLE}").into_bytes()));
    bodies.push(("bytes after the end", format!("{SAMPLE}x").into_bytes()));
    bodies.push(("another review after the end", format!("{SAMPLE}{SAMPLE}").into_bytes()));
    bodies.push(("NUL after the end", format!("{SAMPLE}\0").into_bytes()));
    let at = SAMPLE.find("hello, ").expect("greeting");
    let mut not_utf8 = SAMPLE.as_bytes().to_vec();
    not_utf8[at] = 0xff;
    bodies.push(("not UTF-8", not_utf8));
    bodies.push(("cut", SAMPLE.as_bytes()[..SAMPLE.len() - 20].to_vec()));
    for (name, body) in bodies {
        assert_refused(&body, Code::MalformedReview, name);
    }
    // Twins that mean the same, and twins outside the way to an image.
    for (name, from, to) in [
        ("whole surrogates", "hello, ", "\\ud83d\\ude00"),
        ("escaped letter", r#""name":"api","image""#, r#""name":"api","\u0069mage""#),
        ("1e300", r#""priority":0"#, r#""priority":1e300"#),
        ("other label in another case", r#""app":"api""#, r#""app":"api","App":"api""#),
        ("unknown key", r#""name":"api","#, r#""name":"api","new":{"x":[1]},"#),
    ] {
        assert!(decode(&replace(from, to)).is_ok(), "{name}");
    }
    assert!(decode(format!(" \n{SAMPLE}\t\r\n ").as_bytes()).is_ok());
}

#[test]
fn x_017_c_28_objects_that_are_not_there_or_another() {
    for (group, kind, _, _) in KINDS {
        let whole = object(group, kind, &containers(&["r/a"]));
        for operation in ["CREATE", "UPDATE"] {
            for (name, object) in [
                ("null", json!(null)),
                ("empty", json!({})),
                ("no containers", object(group, kind, &json!({"containers": []}))),
                ("containers null", object(group, kind, &json!({"containers": null}))),
                ("empty spec", object(group, kind, &json!({}))),
                ("null spec", object(group, kind, &json!(null))),
                ("text", json!("x")),
                ("list", json!([whole])),
            ] {
                malformed_value(
                    &review(operation, group, kind, &object, &Value::Null),
                    &format!("{operation} {kind}: {name}"),
                );
            }
            let mut body = review(operation, group, kind, &whole, &Value::Null);
            body["request"].as_object_mut().expect("object").remove("object");
            malformed_value(&body, &format!("{operation} {kind}: absent"));
        }
        for (name, pointer, value) in [
            ("other kind", "/kind", json!("Secret")),
            ("no kind", "/kind", json!(null)),
            ("other version", "/apiVersion", json!("v9")),
            ("no version", "/apiVersion", json!("")),
            ("other namespace", "/metadata/namespace", json!("kube-system")),
        ] {
            let mut other = whole.clone();
            *other.pointer_mut(pointer).expect("pointer") = value;
            malformed_value(&review("CREATE", group, kind, &other, &Value::Null), &format!("{kind}: {name}"));
        }
        let mut silent = whole.clone();
        silent["metadata"]["namespace"] = json!("");
        good(&review("CREATE", group, kind, &silent, &Value::Null));
    }
}

#[test]
fn x_017_c_28_the_request_must_say_what_it_is() {
    let body = |pointer: &str, value: Value| {
        let mut body = pod();
        *body.pointer_mut(pointer).expect("pointer") = value;
        body
    };
    for (pointer, value) in [
        ("/request/operation", json!("PATCH")),
        ("/request/operation", json!("create")),
        ("/request/operation", json!(null)),
        ("/request/kind", json!(null)),
        ("/request/namespace", json!("")),
        ("/request/namespace", json!(null)),
        ("/request/namespace", json!("Payments")),
        ("/request/namespace", json!("a.b")),
        ("/request/namespace", json!("a\u{202e}b")),
        ("/request/userInfo/groups", json!("x")),
    ] {
        malformed_value(&body(pointer, value.clone()), &format!("{pointer} {value}"));
    }
    good(&body("/request/userInfo", json!(null)));
    good(&body("/request/userInfo/groups", json!(null)));
    assert!(good(&body("/request/dryRun", json!(true))).request.dry_run);
}

#[test]
fn c_28_old_objects_may_be_missing() {
    let pod = object("", "Pod", &containers(&["r/a"]));
    for old in [json!(null), json!({}), json!({"metadata": {}})] {
        let review = good(&review("UPDATE", "", "Pod", &pod, &old));
        assert!(!review.images[0].unchanged, "{old}");
    }
    let mut body = review("UPDATE", "", "Pod", &pod, &Value::Null);
    body["request"].as_object_mut().expect("object").remove("oldObject");
    assert!(!good(&body).images[0].unchanged);
    let mut other = pod.clone();
    other["kind"] = json!("Secret");
    malformed_value(&review("UPDATE", "", "Pod", &pod, &other), "old object of another kind");
    // On CREATE an old object makes nothing unchanged.
    assert!(!good(&review("CREATE", "", "Pod", &pod, &pod)).images[0].unchanged);
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
fn what_was_read_before_a_fault_is_kept() {
    let body = SAMPLE.replacen(r#""name":"api","image""#, r#""name":"api","image":"x","image""#, 1);
    let Err(Undecodable::Refuse { request, fault }) = decode(body.as_bytes()) else { panic!("refused") };
    let whole = decode(SAMPLE.as_bytes()).expect("sample").request;
    assert_eq!(*request, whole);
    assert!(fault.detail.starts_with("the key `image` comes twice in a container at line 1 column"), "{fault}");
}

#[test]
fn x_009_c_37_pods_by_list_name_and_text() {
    let spec = |a: &str, b: &str| {
        json!({"containers": [{"name": "a", "image": a}, {"name": "b", "image": b}],
               "volumes": [{"name": "v", "image": {"reference": "r/v"}}]})
    };
    let unchanged = |new: &Value, old: &Value| {
        let (new, old) = (object("", "Pod", new), object("", "Pod", old));
        good(&review("UPDATE", "", "Pod", &new, &old)).images.iter().map(|i| i.unchanged).collect::<Vec<_>>()
    };
    assert_eq!(unchanged(&spec("r/a", "r/b"), &spec("r/a", "r/b")), [true, true, true]);
    assert_eq!(unchanged(&spec("r/b", "r/a"), &spec("r/a", "r/b")), [false, false, true]);
    assert_eq!(unchanged(&spec("r/a", "r/c"), &spec("r/a", "r/b")), [true, false, true]);
    let mut other_volume = spec("r/a", "r/b");
    other_volume["volumes"][0]["name"] = json!("w");
    assert_eq!(unchanged(&other_volume, &spec("r/a", "r/b")), [true, true, false]);
}

#[test]
fn x_007_x_008_c_37_templates_only_as_a_whole() {
    for (group, kind, prefix, _) in KINDS.iter().filter(|kind| kind.3 == Subject::Template) {
        let template = format!("/{}", prefix.strip_suffix(".spec").expect("spec").replace('.', "/"));
        let old = object(group, kind, &containers(&["r/a", "r/b"]));
        let unchanged = |new: &Value| {
            let flags: Vec<bool> =
                good(&review("UPDATE", group, kind, new, &old)).images.iter().map(|i| i.unchanged).collect();
            assert!(flags.iter().all(|flag| *flag == flags[0]), "{kind}: all or none");
            flags[0]
        };
        let change = |pointer: &str, key: &str, value: Value| {
            let mut new = old.clone();
            new.pointer_mut(pointer).expect("pointer")[key] = value;
            new
        };
        assert!(unchanged(&old), "{kind}");
        assert!(unchanged(&change("/metadata", "finalizers", json!([]))), "{kind}: finalizer");
        assert!(unchanged(&change("/metadata", "deletionTimestamp", json!("2026-11-20T00:00:00Z"))), "{kind}: deleted");
        assert!(unchanged(&change("", "status", json!({"x": 1}))), "{kind}: status");
        if *kind != "PodTemplate" {
            assert!(unchanged(&change("/spec", "replicas", json!(9))), "{kind}: scale");
        }
        assert!(!unchanged(&change(&template, "metadata", json!({"labels": {"app": "b"}}))), "{kind}: template label");
        let image = format!("{template}/spec/containers/0");
        assert!(!unchanged(&change(&image, "image", json!("r/x"))), "{kind}: image");
        assert!(!unchanged(&change(&image, "env", json!([]))), "{kind}: env");
        if *kind != "PodTemplate" {
            let mut both = change(&image, "image", json!("r/x"));
            both["spec"]["replicas"] = json!(0);
            both["metadata"]["deletionTimestamp"] = json!("2026-11-20T00:00:00Z");
            assert!(!unchanged(&both), "{kind}: image and scale-down");
        }
        for nothing in [json!(null), json!({}), json!({"spec": null})] {
            let review = good(&review("UPDATE", group, kind, &old, &nothing));
            assert!(review.images.iter().all(|image| !image.unchanged), "{kind}: {nothing}");
        }
    }
    // Equal as JSON, if not in form.
    let old = object("apps", "Deployment", &containers(&["r/a"]));
    let body = review("UPDATE", "apps", "Deployment", &old, &old).to_string();
    let spaced = body.replacen("\"image\":\"r/a\"", "\"image\" : \"r\\/a\"", 1);
    assert_ne!(spaced, body);
    assert!(decode(spaced.as_bytes()).expect("reads").leaves_all_images());
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
fn x_137_unknown_fields_of_an_update() {
    let base = json!({
        "sideImage": {"x": [1]},
        "containers": [{"name": "a", "image": "r/a", "sideImage": "s"}, {"name": "b", "image": "r/b"}],
        "volumes": [{"name": "w", "image": {"reference": "r/w", "fallbackImage": "f"}}],
    });
    let flags = |group: &str, kind: &str, new: &Value, old: &Value| {
        let review = good(&review("UPDATE", group, kind, &object(group, kind, new), &object(group, kind, old)));
        review.unknown_fields.iter().map(|field| field.unchanged).collect::<Vec<_>>()
    };
    for (group, kind) in [("", "Pod"), ("apps", "Deployment"), ("batch", "CronJob"), ("", "PodTemplate")] {
        let with = |pointer: &str, key: &str, value: Value| {
            let mut spec = base.clone();
            spec.pointer_mut(pointer).expect("pointer")[key] = value;
            spec
        };
        // In the order of the keys: containers, the pod spec's own, volumes.
        assert_eq!(flags(group, kind, &base, &base), [true, true, true], "{kind}: as before");
        assert_eq!(flags(group, kind, &base, &json!({})), [false, false, false], "{kind}: new");
        assert_eq!(flags(group, kind, &with("", "sideImage", json!("y")), &base), [true, false, true], "{kind}");
        assert_eq!(
            flags(group, kind, &with("/containers/0", "sideImage", json!("t")), &base),
            [false, true, true],
            "{kind}"
        );
        let renamed = with("/containers/0", "name", json!("z"));
        assert_eq!(flags(group, kind, &renamed, &base), [false, true, true], "{kind}: another container");
        let unnamed = with("/containers/0", "name", json!(""));
        assert_eq!(flags(group, kind, &unnamed, &unnamed), [false, true, true], "{kind}: a container without a name");
        let image = json!({"reference": "r/w", "fallbackImage": "g"});
        assert_eq!(flags(group, kind, &with("/volumes/0", "image", image), &base), [true, true, false], "{kind}");
        let added = with("/containers/1", "sideImage", json!("s"));
        assert_eq!(flags(group, kind, &added, &base), [true, false, true, true], "{kind}: known images left alone");
        let mut reordered = base.clone();
        reordered["containers"].as_array_mut().expect("list").reverse();
        assert_eq!(flags(group, kind, &reordered, &base), [true, true, true], "{kind}: by name, not by index");
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

#[test]
fn x_095_nesting_is_bounded() {
    let with_status = |value: &str| SAMPLE.replacen(r#""status":{"#, &format!(r#""status":{{"deep":{value},"#), 1);
    let nested = |open: &str, close: &str, depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
    assert!(decode(with_status(&nested("[", "]", 60)).as_bytes()).is_ok());
    assert_refused(with_status(&nested("[", "]", 61)).as_bytes(), Code::MalformedReview, "65 levels");
    assert_refused(with_status(&nested("[", "]", 100_000)).as_bytes(), Code::MalformedReview, "lists");
    assert_refused(with_status(&nested(r#"{"a":"#, "}", 100_000)).as_bytes(), Code::MalformedReview, "objects");
    // Before the kind and the operation are known, and in a container that is no object.
    let early = format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u","object":{},"operation":"CREATE","kind":{{"group":"","version":"v1","kind":"Pod"}}}}}}"#,
        nested(r#"{"spec":"#, "}", 100_000)
    );
    assert_refused(early.as_bytes(), Code::MalformedReview, "early object");
    let body = SAMPLE.replacen(r#""containers":["#, &format!(r#""containers":[{},"#, nested("[", "]", 100_000)), 1);
    assert_refused(body.as_bytes(), Code::MalformedReview, "containers");
}

#[test]
fn x_096_counts_are_bounded() {
    let pod = |count: usize| {
        let list: Vec<Value> = (0..count).map(|i| json!({"name": format!("c{i}"), "image": "r/a"})).collect();
        object("", "Pod", &json!({ "containers": list }))
    };
    let many = |count| review("CREATE", "", "Pod", &pod(count), &Value::Null).to_string();
    assert_eq!(decode(many(10_000).as_bytes()).expect("10 000").images.len(), 10_000);
    assert_eq!(decode(many(MAX_IMAGES).as_bytes()).expect("20 000").images.len(), MAX_IMAGES);
    let fault = assert_refused(many(MAX_IMAGES + 1).as_bytes(), Code::BudgetExceeded, "20 001");
    assert_eq!(fault.detail, "more than 20000 containers and image volumes in one object");
    let fields = (0..2_000).map(|i| format!(r#""f{i}Image":1,"#)).collect::<Vec<_>>().concat();
    let body = SAMPLE.replacen(r#""containers":["#, &format!(r#"{fields}"containers":["#), 1);
    assert_refused(body.as_bytes(), Code::BudgetExceeded, "unknown fields");
    // Kept as it is: the rules refuse the name.
    let long = "r".repeat(100_000);
    let review = good(&review("CREATE", "", "Pod", &object("", "Pod", &containers(&[&long])), &Value::Null));
    assert_eq!(review.images[0].text.len(), long.len());
}

#[test]
fn many_unknown_keys_take_no_long() {
    let labels = (0..200_000).map(|i| format!(r#""k{i}":{i},"#)).collect::<Vec<_>>().concat();
    for at in [r#""annotations":{"#, r#""spec":{"#, r#""status":{"#] {
        let body = SAMPLE.replacen(at, &format!("{at}{labels}"), 1);
        assert!(decode(body.as_bytes()).is_ok(), "{at}");
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn decode_never_panics(body in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let _ = decode(&body);
        }

        #[test]
        fn c_32_changed_reviews_never_panic_nor_lose_an_image(
            changes in proptest::collection::vec((0..SAMPLE.len(), any::<u8>()), 1..4),
        ) {
            let mut body = SAMPLE.as_bytes().to_vec();
            for (at, byte) in changes {
                body[at] = byte;
            }
            if let Ok(review) = decode(&body) {
                // What a lenient reader finds, we found.
                let value: Value = serde_json::from_slice(&body).expect("readable");
                let spec = &value["request"]["object"]["spec"];
                let count = |list: &str, pointer: &str| {
                    spec[list].as_array().map_or(0, |list| list.iter().filter(|e| e.pointer(pointer).is_some()).count())
                };
                let want = count("containers", "") + count("initContainers", "") + count("volumes", "/image");
                prop_assert_eq!(review.images.len(), want);
                prop_assert_eq!(value["request"]["uid"].as_str(), Some(review.request.uid.as_str()));
            }
        }

        #[test]
        fn cut_reviews_never_read(at in 0..SAMPLE.trim_end().len()) {
            prop_assert!(decode(&SAMPLE.as_bytes()[..at]).is_err());
        }

        #[test]
        fn c_32_random_kinds_never_pass(group in "[a-z.]{0,8}", version in "v[0-9][a-z0-9]{0,4}", kind in "[A-Z][A-Za-z]{0,12}") {
            let known = KINDS.iter().any(|known| known.0 == group && known.1 == kind && version == "v1");
            let mut body = pod();
            body["request"]["kind"] = json!({"group": group, "version": version, "kind": kind});
            if !known {
                prop_assert!(read(&body).is_err());
            }
        }
    }
}
