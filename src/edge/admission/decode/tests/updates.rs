//! What an UPDATE leaves as it was, and what only looks so.

use serde_json::{Value, json};

use super::*;

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
fn x_137_an_unknown_field_is_as_it_was_only_under_a_name_that_stands_once() {
    let container = |name: &str, side: &str| json!({"name": name, "image": "r/a", "sideImage": side});
    let pod = |containers: Vec<Value>| object("", "Pod", &json!({ "containers": containers }));
    let new = pod(vec![container("a", "r/side"), container("b", "r/b")]);
    for (name, old, want) in [
        ("once", vec![container("a", "r/side"), container("b", "r/b")], [true, true]),
        ("in another order", vec![container("b", "r/b"), container("a", "r/side")], [true, true]),
        ("another value", vec![container("a", "r/other"), container("b", "r/b")], [false, true]),
        ("another name", vec![container("c", "r/side"), container("b", "r/b")], [false, true]),
        ("twice", vec![container("a", "r/side"), container("a", "r/other"), container("b", "r/b")], [false, true]),
    ] {
        let review = good(&review("UPDATE", "", "Pod", &new, &pod(old)));
        assert_eq!(review.unknown_fields.iter().map(|field| field.unchanged).collect::<Vec<_>>(), want, "{name}");
    }
}

#[test]
fn x_098_c_37_what_holds_too_many_values_is_equal_as_text_or_not_at_all() {
    let env = |count: usize, more: &str| {
        let args = vec!["0"; count].join(",");
        format!(r#"{{"spec":{{"containers":[{{"name":"a","image":"r/a","numbers":[{args}]{more}}}]}}}}"#)
    };
    let unchanged = |old: &str, new: &str| {
        let deployment = |template: &str| {
            format!(
                r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"a","namespace":"payments"}},"spec":{{"template":{template}}}}}"#
            )
        };
        let body = format!(
            r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"u-1","kind":{{"group":"apps","version":"v1","kind":"Deployment"}},"namespace":"payments","operation":"UPDATE","object":{},"oldObject":{}}}}}"#,
            deployment(new),
            deployment(old)
        );
        decode(body.as_bytes()).unwrap_or_else(|error| panic!("{error}")).images[0].unchanged
    };
    // A form of their own makes a difference only where there is too much to compare; a change of meaning always.
    for (count, in_another_form) in [(1_000, true), (300_000, false)] {
        assert!(unchanged(&env(count, ""), &env(count, "")), "{count}");
        assert_eq!(unchanged(&env(count, ""), &env(count, " ")), in_another_form, "{count}");
        assert!(!unchanged(&env(count, ""), &env(count, r#","tty":true"#)), "{count}");
    }
}
