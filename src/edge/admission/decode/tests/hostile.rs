//! Bodies that an API server never sends. What must hold: a fault with its code, told in-band where there is a uid.

use serde_json::{Value, json};

use super::*;
use crate::edge::admission::object::MAX_IMAGES;
use crate::edge::admission::reading::MAX_GROUPS;

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
fn what_was_read_before_a_fault_is_kept() {
    let body = SAMPLE.replacen(r#""name":"api","image""#, r#""name":"api","image":"x","image""#, 1);
    let Err(Undecodable::Refuse { request, fault }) = decode(body.as_bytes()) else { panic!("refused") };
    let whole = decode(SAMPLE.as_bytes()).expect("sample").request;
    assert_eq!(*request, whole);
    assert!(fault.detail.starts_with("the key `image` comes twice in a container at line 1 column"), "{fault}");
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
fn x_096_a_user_has_ten_thousand_groups_at_most() {
    let body = |count: usize| {
        let mut body = pod();
        body["request"]["userInfo"]["groups"] = json!(vec![""; count]);
        body
    };
    assert_eq!(good(&body(MAX_GROUPS)).request.groups.len(), MAX_GROUPS);
    let fault = assert_refused(body(MAX_GROUPS + 1).to_string().as_bytes(), Code::BudgetExceeded, "10 001");
    assert_eq!(fault.detail, "a user with more than 10000 groups");
}

#[test]
fn x_096_unknown_fields_are_counted_within_one_container_too() {
    let fields = |count: usize| (0..count).map(|i| format!(r#""f{i}Image":1,"#)).collect::<Vec<_>>().concat();
    let body = |count: usize| SAMPLE.replacen(r#""containers":[{"#, &format!(r#""containers":[{{{}"#, fields(count)), 1);
    assert_eq!(decode(body(1_000).as_bytes()).expect("1 000").unknown_fields.len(), 1_000);
    for count in [1_001, 50_000] {
        assert_refused(body(count).as_bytes(), Code::BudgetExceeded, "unknown fields of a container");
    }
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

#[test]
fn x_130_what_stands_where_something_else_belongs_is_not_quoted() {
    for (pointer, value, says) in [
        ("/request/object/spec", json!("hunter2"), "invalid type: string, expected"),
        ("/request/object/spec/containers", json!("hunter2"), "invalid type: string, expected"),
        ("/request/object/spec/containers/0", json!("hunter2, expected \"hunter2\""), "invalid type: string, expected"),
        (
            "/request/object/spec/containers/0/image",
            json!({"hunter2": "hunter2"}),
            "invalid type: map, expected a text",
        ),
        ("/request/object/apiVersion", json!(4_711_471_147_114_711_u64), "invalid type: integer, expected a text"),
        ("/request/object/metadata", json!(471_147.5), "invalid type: floating point, expected"),
        ("/request/userInfo", json!(true), "invalid type: boolean, expected"),
        ("/request/dryRun", json!("hunter2"), "invalid type: string, expected a boolean"),
    ] {
        let mut body = pod();
        *body.pointer_mut(pointer).expect(pointer) = value;
        let fault = malformed_value(&body, pointer);
        assert!(fault.detail.starts_with(says) && fault.detail.contains(" at line 1 column "), "{pointer}: {fault}");
        assert!(
            ["hunter2", "471147", "true"].iter().all(|secret| !fault.detail.contains(secret)),
            "{pointer}: {fault}"
        );
    }
}
