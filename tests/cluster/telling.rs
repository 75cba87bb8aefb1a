//! What people read: warnings as kubectl prints them, annotations as the audit log keeps them.

use serde_json::{Value, json};

use super::objects::{container, pod, spec};
use super::support::cluster::User;
use super::world::{Request, Want, world};

const APP: &str = "spec.containers[0]";

/// The warnings of an answer, as kubectl shows them.
fn warnings(stderr: &str) -> Vec<&str> {
    stderr.lines().filter_map(|line| line.strip_prefix("Warning: ")).collect()
}

#[test]
fn c_24_c_25_a_denial_is_repeated_as_a_warning() {
    let world = world();
    let namespace = world.namespace("apps-warnings");
    let images = &world.images;
    let done = world.create(&namespace, &pod("bad", &spec(&images.unsigned.pinned())), &[]);
    world.check(&Request::new("create", &namespace, "pods", "bad"), &done, Want::Deny(&[("unsigned", APP)]));
    let digest = &images.unsigned.digest[..("sha256:".len() + 12)];
    let warning = format!("provost: unsigned: {APP} (app) {}@{digest}", images.unsigned.repository);
    assert_eq!(warnings(&done.stderr), [warning], "{}", done.stderr);
    // An admission says nothing.
    let done = world.create(&namespace, &pod("good", &spec(&images.signed.pinned())), &[]);
    world.check(&Request::new("create", &namespace, "pods", "good"), &done, Want::Admit);
    assert_eq!(warnings(&done.stderr), [""; 0]);
}

#[test]
fn x_082_warn_admits_with_warnings_and_audit_without() {
    let world = world();
    let object = pod("bad", &spec(&world.images.unsigned.pinned()));
    for (name, shown) in [("warned-pods", 1), ("audited-pods", 0), ("apps-enforced", 1)] {
        let namespace = world.namespace(name);
        let done = world.create(&namespace, &object, &[]);
        let enforced = name.starts_with("apps");
        let denials = [("unsigned", APP)];
        let want = if enforced { Want::Deny(&denials) } else { Want::WouldDeny(&denials) };
        world.check(&Request::new("create", &namespace, "pods", "bad"), &done, want);
        let warnings = warnings(&done.stderr);
        assert_eq!(warnings.len(), shown, "{}", done.stderr);
        assert!(warnings.iter().all(|text| text.contains("(not enforced)") != enforced), "{warnings:?}");
        assert_eq!(world.stored(&namespace, "pods", "bad").is_some(), !enforced);
    }
}

#[test]
fn c_25_x_031_what_could_do_harm_in_a_terminal_arrives_as_text() {
    let world = world();
    let namespace = world.namespace("warned-harm");
    let evil = "evil\n\u{1b}[31mred\u{202e}txt\u{7}";
    let done = world.create(&namespace, &pod("evil", &spec(evil)), &[]);
    let request = Request::new("create", &namespace, "pods", "evil");
    world.check(&request, &done, Want::WouldDeny(&[("malformed-reference", APP)]));
    let [warning] = warnings(&done.stderr)[..] else { panic!("one warning: {:?}", done.stderr) };
    assert!(warning.starts_with("provost: malformed-reference") && warning.contains("evil"), "{warning:?}");
    assert!(done.stderr.chars().all(|c| c == '\n' || !c.is_control()), "{:?}", done.stderr);
    assert!(!done.stderr.contains('\u{202e}'), "{:?}", done.stderr);
}

#[test]
fn c_25_many_refused_images_are_eight_warnings_of_120_characters() {
    let world = world();
    let namespace = world.namespace("apps-many");
    let long = "x".repeat(63);
    let containers: Vec<Value> =
        (0..20).map(|i| container(&format!("{}{i:02}", &long[2..]), &format!("{long}/{long}:{i}"))).collect();
    let done = world.create(&namespace, &pod("many", &json!({"containers": containers})), &[]);
    assert!(done.stderr.contains("20 of 20 images refused"), "{}", done.stderr);
    let warnings = warnings(&done.stderr);
    assert_eq!(warnings.len(), 8, "{}", done.stderr);
    assert!(warnings.iter().all(|text| text.chars().count() <= 120), "{warnings:?}");
    assert!(warnings[7].starts_with("provost: and 13 more"), "{warnings:?}");
    let message = done.stderr.split_once("denied the request: ").expect("denied").1;
    assert!(message.len() < 1536 + 1, "{} bytes", message.len());
}

#[test]
fn c_26_audit_annotations_on_allow_and_deny() {
    let world = world();
    let namespace = world.namespace("apps-annotations");
    for (name, image, want) in [
        ("good", world.images.signed.pinned(), Want::Admit),
        ("bad", world.images.unsigned.pinned(), Want::Deny(&[("unsigned", APP)])),
    ] {
        let done = world.create(&namespace, &pod(name, &spec(&image)), &[]);
        let seen = world.check(&Request::new("create", &namespace, "pods", name), &done, want);
        let annotations = seen.audit["annotations"].as_object().expect("annotations");
        let ours: Vec<&str> = annotations.keys().filter_map(|key| key.strip_prefix("images.provost.dev/")).collect();
        let wanted: &[&str] =
            if name == "good" { &["policy", "record", "verdict"] } else { &["codes", "policy", "record", "verdict"] };
        assert_eq!(ours, wanted, "{annotations:?}");
        let policy = annotations["images.provost.dev/policy"].as_str().unwrap_or_default();
        assert_eq!(json!([policy]), seen.record["event"]["policies"], "{annotations:?}");
        assert!(policy.starts_with("apps@sha256:"), "{policy}");
    }
}

#[test]
fn c_24_two_webhooks_refuse_at_once_and_both_are_on_record() {
    let world = world();
    let namespace = world.namespace("apps-two-hooks");
    world.second_hook(&namespace, "second.provost.dev");
    let done = world.create(&namespace, &pod("bad", &spec(&world.images.unsigned.pinned())), &[]);
    // One of the two errors reaches the user; equal warnings are shown once.
    assert_eq!(done.stderr.matches("denied the request: ").count(), 1, "{}", done.stderr);
    assert_eq!(warnings(&done.stderr).len(), 1, "{}", done.stderr);
    let events = world.cluster.audit(&namespace, |event| event["objectRef"]["name"] == "bad");
    let records = ["images.provost.dev", "second.provost.dev"].map(|hook| {
        let said =
            |key: &str| events[0]["annotations"][format!("{hook}/{key}")].as_str().unwrap_or_default().to_owned();
        assert_eq!((said("verdict"), said("codes")), ("deny".to_owned(), "unsigned".to_owned()), "{hook}: {events:?}");
        world.gate.provost.record(&said("record"))
    });
    assert_ne!(records[0]["record"], records[1]["record"], "each call is a decision of its own");
}

/// The names of records in the API server's audit log pin the ledger from outside.
#[test]
fn the_audit_log_and_the_ledger_hold_each_other() {
    let world = world();
    let namespace = world.namespace("apps-anchored");
    let mut names = Vec::new();
    for (name, image, want) in [
        ("good", world.images.signed.pinned(), Want::Admit),
        ("bad", world.images.unsigned.pinned(), Want::Deny(&[("unsigned", APP)])),
    ] {
        let done = world.create(&namespace, &pod(name, &spec(&image)), &[]);
        let seen = world.check(&Request::new("create", &namespace, "pods", name), &done, want);
        names.push(seen.audit["annotations"]["images.provost.dev/record"].as_str().unwrap_or_default().to_owned());
    }
    let (holds, told) = world.gate.provost.verify_ledger(&names);
    assert!(holds, "{told}");
    let (place, hash) = names[0].rsplit_once('-').expect("chain, number and hash");
    let turned: String = hash.chars().map(|digit| if digit == '0' { '1' } else { '0' }).collect();
    let (holds, told) = world.gate.provost.verify_ledger(&[format!("{place}-{turned}")]);
    assert!(!holds && told.contains(place), "{told}");
}

#[test]
fn the_ledger_answers_for_namespace_user_code_and_verdict() {
    let world = world();
    let namespace = world.namespace("apps-asked");
    for (name, user, image) in [
        ("good", User::Developer, world.images.signed.pinned()),
        ("bad", User::Developer, world.images.unsigned.pinned()),
        ("bad-too", User::OnCall, world.images.wrong_key.pinned()),
    ] {
        let done = world.create_as(user, &namespace, &pod(name, &spec(&image)), &[]);
        let want = match name {
            "good" => Want::Admit,
            "bad" => Want::Deny(&[("unsigned", APP)]),
            _ => Want::Deny(&[("wrong-signer", APP)]),
        };
        world.check(&Request { user, ..Request::new("create", &namespace, "pods", name) }, &done, want);
    }
    let digest = world.images.unsigned.digest.as_str();
    let oncall = User::OnCall.name();
    for (filter, wanted) in [
        (vec![], vec!["bad", "bad-too", "good"]),
        (vec!["--verdict", "deny"], vec!["bad", "bad-too"]),
        (vec!["--verdict", "admit"], vec!["good"]),
        (vec!["--code", "wrong-signer"], vec!["bad-too"]),
        (vec!["--code", "unsigned", "--verdict", "deny"], vec!["bad"]),
        (vec!["--user", oncall], vec!["bad-too"]),
        (vec!["--digest", digest], vec!["bad"]),
        (vec!["--code", "deny-listed"], vec![]),
    ] {
        let mut args = vec!["--namespace", namespace.as_str()];
        args.extend(&filter);
        let records = world.gate.provost.records(&args);
        let mut names: Vec<&str> = records.iter().filter_map(|record| record["event"]["name"].as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, wanted, "{filter:?}");
    }
    let (holds, told) = world.gate.provost.verify_ledger(&[]);
    assert!(holds, "{told}");
}
