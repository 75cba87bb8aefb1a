//! Golden replies, and what holds for every reply.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::message::{MAX_ANNOTATION, MAX_MESSAGE, MAX_WARNING, MAX_WARNINGS};
use super::*;
use crate::decision::decide;
use crate::decision::evidence::Origin;
use crate::decision::policy::{Mode, PolicyStamp};
use crate::decision::printable::printable;
use crate::decision::reference::Digest;
use crate::decision::review::{Fault, Holder, Place};
use crate::decision::verdict::for_tests::{admit, denial, deny, overridden, softened, would_deny};
use crate::decision::verdict::{Denial, Ground, OverrideRequest, Softened};

const UID: &str = "6d1f0c3a-52be-4e0b-9a57-0c8a4e1b7f20";
const RECORD: &str = "kqzt-184467-9f3c2a7e11d0c4aa";
const HEX: &str = "9b2c64d1e07f4a5b8c3d2e1f0a9b8c7d6e5f4a3b2c1d0e9f8a7b6c5d4e3f2a1b";

fn reply(verdict: &Verdict, record: RecordMark) -> Value {
    let bytes = encode(&Reply { uid: UID, verdict, record });
    assert!(!bytes.contains(&b'\n'), "one line");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn saved(verdict: &Verdict) -> Value {
    reply(verdict, RecordMark::Saved(RECORD.to_owned()))
}

fn stamp(name: &str) -> PolicyStamp {
    PolicyStamp { name: name.parse().expect("name"), hash: Digest::from_bytes([0x41; 32]) }
}

fn container(index: usize, name: &str) -> Place {
    Place { path: format!("spec.containers[{index}]"), holder: Holder::Container, name: name.to_owned() }
}

fn volume(index: usize, name: &str) -> Place {
    Place { path: format!("spec.volumes[{index}].image"), holder: Holder::Volume, name: name.to_owned() }
}

fn message(reply: &Value) -> &str {
    reply["response"]["status"]["message"].as_str().expect("message")
}

fn warnings(reply: &Value) -> Vec<&str> {
    reply["response"]["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn c_20_c_22_golden_denial() {
    let (api, model) =
        ("registry.example.com/release/payments/api:1.2", format!("registry.example.net/team/model@sha256:{HEX}"));
    let verdict = deny(
        vec![
            denial(Code::NotDigestPinned, Some((container(0, "api"), api)), "the tag 1.2", "a sha256 digest"),
            denial(
                Code::NotReleaseRepo,
                Some((volume(1, "model"), &model)),
                "registry.example.net/team/model",
                "registry.example.com/release/payments/**",
            ),
        ],
        vec![stamp("payments")],
        3,
    );
    let hash = "41".repeat(32);
    let want = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {
        "uid": UID, "allowed": false,
        "status": {"code": 403, "reason": "Forbidden", "message": format!(
            "2 of 3 images refused; spec.containers[0] (api) registry.example.com/release/payments/api:1.2: \
            not-digest-pinned, {}; spec.volumes[1] (model) registry.example.net/team/model@sha256:{HEX}: \
            not-release-repo, allowed here: registry.example.com/release/payments/**; \
            policy payments@sha256:{hash}, record {RECORD}", Code::NotDigestPinned.advice())},
        "warnings": [
            "provost: not-digest-pinned: spec.containers[0] (api) registry.example.com/release/payments/api:1.2",
            "provost: not-release-repo: spec.volumes[1] (model) registry.example.net/team/model@sha256:9b2c64d1e07f"],
        "auditAnnotations": {"verdict": "deny", "codes": "not-digest-pinned,not-release-repo",
            "policy": format!("payments@sha256:{hash}"), "record": RECORD}}});
    assert_eq!(saved(&verdict), want);
    let text =
        String::from_utf8(encode(&Reply { uid: UID, verdict: &verdict, record: RecordMark::None })).expect("text");
    let begins = format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{{"uid":"{UID}","allowed":false,"status":{{"code":403,"#
    );
    assert!(text.starts_with(&begins), "{text}");
}

#[test]
fn bg_10_c_26_an_override_says_who_answers_for_it() {
    let request = |container: Option<&str>, user: &str| OverrideRequest {
        user: user.to_owned(),
        ticket: "INC-42".to_owned(),
        reason: "database is down".to_owned(),
        container: container.map(str::to_owned),
        policies: vec![stamp("payments")],
    };
    let unsigned = || denial(Code::Unsigned, Some((container(0, "api"), "r.example/api")), "", "");
    let soft =
        softened(denial(Code::WrongSigner, Some((container(0, "api"), "r.example/api")), "", ""), Mode::Warn, None);
    let verdict = overridden(vec![unsigned(), soft], vec![request(None, "alice@acme.com")], vec![stamp("payments")]);
    let hash = "41".repeat(32);
    let place = RECORD.rsplit_once('-').expect("a record's name").0;
    assert_eq!(
        saved(&verdict)["response"],
        json!({"uid": UID, "allowed": true,
        "warnings": [
            format!("provost: override by alice@acme.com (INC-42), this request only, will be reviewed: {place}"),
            "provost: unsigned (overridden): spec.containers[0] (api) r.example/api",
            "provost: wrong-signer (not enforced): spec.containers[0] (api) r.example/api"],
        "auditAnnotations": {"verdict": "override", "codes": "wrong-signer", "overridden": "unsigned",
            "policy": format!("payments@sha256:{hash}"), "record": RECORD}})
    );
    // Many of them, and names that are not ours (X-129).
    let hostile = "a\n\u{1b}[31m\u{202e}".repeat(20);
    let many = (0..20).map(|_| request(Some(&hostile), &hostile)).collect();
    let denials = (0..20).map(|at| denial(Code::Unsigned, Some((container(at, "a"), "r/a")), "", "")).collect();
    let reply = saved(&overridden(denials, many, vec![]));
    let warnings = warnings(&reply);
    assert_eq!(warnings.len(), MAX_WARNINGS);
    assert!(
        warnings.iter().all(|w| w.chars().count() <= MAX_WARNING && !w.chars().any(char::is_control)),
        "{warnings:?}"
    );
    assert_eq!(warnings[2], "provost: and 18 more overrides");
    assert!(warnings[7].starts_with("provost: and 16 more"), "{warnings:?}");
}

#[test]
fn x_128_a_repeat_names_the_record_that_it_repeats() {
    let verdict = deny(vec![denial(Code::NoPolicy, None, "", "")], vec![], 1);
    let reply = reply(&verdict, RecordMark::RepeatOf(RECORD.to_owned()));
    let response = &reply["response"];
    assert_eq!(response["allowed"], false);
    assert_eq!(response["auditAnnotations"]["record"], format!("repeat of {RECORD}"));
    let message = response["status"]["message"].as_str().unwrap_or_default();
    assert!(message.ends_with(&format!("; repeat of {RECORD}")), "{message}");
}

#[test]
fn c_22_c_26_golden_admissions() {
    let hash = "41".repeat(32);
    let response = |annotations: Value| json!({"uid": UID, "allowed": true, "auditAnnotations": annotations});
    let unchanged = || vec![(container(0, "a"), Ground::Unchanged)];
    for (name, verdict, record, annotations) in [
        (
            "admit",
            admit(unchanged(), vec![stamp("payments")], vec![]),
            RecordMark::Saved(RECORD.to_owned()),
            json!({"verdict": "admit", "policy": format!("payments@sha256:{hash}"), "record": RECORD}),
        ),
        (
            "notes",
            admit(unchanged(), vec![], vec![Note::ImagesUnchanged, Note::EmptyTemplateImage]),
            RecordMark::Pending,
            json!({"verdict": "admit", "notes": "images-unchanged,empty-template-image", "record": "pending"}),
        ),
        (
            "no images",
            Verdict::NoImages,
            RecordMark::Saved(RECORD.to_owned()),
            json!({"verdict": "no-images", "record": RECORD}),
        ),
        ("no record", Verdict::NoImages, RecordMark::None, json!({"verdict": "no-images"})),
    ] {
        let reply = reply(&verdict, record);
        assert_eq!(reply["response"], response(annotations), "{name}");
    }
}

#[test]
fn c_26_a_stale_proof_is_told() {
    let ground = |origin| Ground::Rule {
        policy: stamp("payments"),
        rule: "own".parse().expect("rule"),
        listed: false,
        signatures: vec![],
        origin: Some(origin),
    };
    let old = Origin::Stale(Duration::from_hours(1));
    let verdict = admit(
        vec![
            (container(0, "a"), ground(old)),
            (container(1, "b"), ground(Origin::Fetched)),
            (container(0, "a"), ground(old)),
        ],
        vec![],
        vec![],
    );
    assert_eq!(saved(&verdict)["response"]["auditAnnotations"]["stale"], "spec.containers[0] (a) 3600s");
}

#[test]
fn c_23_codes_and_reasons() {
    let whole = |code| denial(code, None, "found", "wanted");
    let image = |code| denial(code, Some((container(0, "a"), "r/a")), "found", "wanted");
    for (name, denials, code, reason) in [
        ("image", vec![image(Code::Unsigned)], 403, "Forbidden"),
        ("policy", vec![whole(Code::NoPolicy)], 403, "Forbidden"),
        ("malformed", vec![whole(Code::MalformedReview)], 400, "BadRequest"),
        ("kind", vec![whole(Code::UnsupportedKind)], 400, "BadRequest"),
        ("large", vec![whole(Code::ReviewTooLarge)], 413, "RequestEntityTooLarge"),
        ("ours", vec![whole(Code::InternalError)], 500, "InternalError"),
        ("ledger", vec![whole(Code::AuditUnavailable), image(Code::Unsigned)], 500, "InternalError"),
        ("ours, at an image", vec![image(Code::InternalError)], 500, "InternalError"),
        ("ours and theirs", vec![image(Code::InternalError), image(Code::Unsigned)], 403, "Forbidden"),
    ] {
        let reply = saved(&deny(denials, vec![], 1));
        let status = &reply["response"]["status"];
        assert_eq!((&status["code"], &status["reason"]), (&json!(code), &json!(reason)), "{name}");
        assert_eq!(status.get("details"), None, "{name}");
    }
}

#[test]
fn c_23_faults_say_what_where_and_what_to_do() {
    let fault =
        denial(Code::MalformedReview, None, "the key `image` comes twice in a container at line 1 column 9", "");
    let reply = reply(&deny(vec![fault], vec![], 0), RecordMark::Pending);
    assert_eq!(
        message(&reply),
        format!(
            "malformed-review, found the key `image` comes twice in a container at line 1 column 9, {}; record: pending",
            Code::MalformedReview.advice()
        )
    );
    assert_eq!(
        warnings(&reply),
        ["provost: malformed-review: the key `image` comes twice in a container at line 1 column 9"]
    );
}

#[test]
fn c_23_denial_lists_every_code_of_an_image() {
    let at = |index| Some((container(index, "a"), "r/a@sha256:00"));
    let by = |denial, name| softened(denial, Mode::Enforce, Some(stamp(name)));
    let verdict = deny(
        vec![
            by(denial(Code::Unsigned, at(0), "nothing", "1 of ci"), "one"),
            by(denial(Code::WrongSigner, at(0), "other", "1 of dev"), "two"),
            by(denial(Code::Unsigned, at(1), "nothing", "1 of ci"), "one"),
            by(denial(Code::Unsigned, at(1), "nothing", "1 of ci"), "one"),
        ],
        vec![stamp("one"), stamp("two")],
        2,
    );
    let reply = saved(&verdict);
    let message = message(&reply);
    assert!(message.starts_with("2 of 2 images refused; spec.containers[0] (a) r/a@sha256:00: unsigned in one, found nothing, wanted 1 of ci, sign"), "{message}");
    assert!(message.contains("; also wrong-signer in two, found other, wanted 1 of dev, "), "{message}");
    assert_eq!(message.matches("spec.containers[1]").count(), 1);
    assert_eq!(message.matches("unsigned in one").count(), 2, "{message}");
    assert!(message.contains("; policies one@sha256:4141"), "{message}");
    assert_eq!(reply["response"]["auditAnnotations"]["codes"], "unsigned,wrong-signer");
}

#[test]
fn c_23_what_is_not_enforced_is_no_reason() {
    let at = |index| Some((container(index, "a"), "r/a"));
    let verdict = deny(
        vec![
            denial(Code::Unsigned, at(0), "", ""),
            softened(denial(Code::WrongSigner, at(1), "", ""), Mode::Warn, Some(stamp("soft"))),
            softened(denial(Code::KeyNotValid, at(2), "", ""), Mode::Audit, Some(stamp("softer"))),
        ],
        vec![stamp("hard")],
        3,
    );
    let reply = saved(&verdict);
    assert!(message(&reply).starts_with("1 of 3 images refused; spec.containers[0] (a) r/a: unsigned, "));
    assert!(!message(&reply).contains("wrong-signer") && !message(&reply).contains("key-not-valid"));
    assert_eq!(
        warnings(&reply),
        [
            "provost: unsigned: spec.containers[0] (a) r/a",
            "provost: wrong-signer (not enforced): spec.containers[1] (a) r/a"
        ]
    );
    assert_eq!(reply["response"]["auditAnnotations"]["codes"], "unsigned,wrong-signer,key-not-valid");
}

#[test]
fn c_25_c_46_what_softened_verdicts_tell_the_user() {
    let refusal = |mode| softened(denial(Code::Unsigned, Some((container(0, "a"), "r/a")), "", ""), mode, None);
    for (name, because, mode, want) in [
        ("warn", Softened::Warn, Mode::Warn, vec!["provost: unsigned (not enforced): spec.containers[0] (a) r/a"]),
        ("audit", Softened::Audit, Mode::Audit, vec![]),
        ("audit beside warn", Softened::Warn, Mode::Audit, vec![]),
        (
            "mirror pod",
            Softened::MirrorPod,
            Mode::Enforce,
            vec!["provost: unsigned (mirror pod, not enforced): spec.containers[0] (a) r/a"],
        ),
        (
            "observe",
            Softened::Observe,
            Mode::Enforce,
            vec!["provost: unsigned (observed, not enforced): spec.containers[0] (a) r/a"],
        ),
    ] {
        let reply = saved(&would_deny(vec![refusal(mode)], vec![], because));
        assert_eq!(warnings(&reply), want, "{name}");
        assert_eq!(reply["response"]["allowed"], true, "{name}");
        assert_eq!(reply["response"].get("status"), None, "{name}");
        assert_eq!(
            reply["response"]["auditAnnotations"],
            json!({"verdict": "would-deny", "codes": "unsigned", "record": RECORD}),
            "{name}"
        );
    }
}

#[test]
fn c_03_a_shed_review_is_the_golden_reply() {
    let shed = decide::shed();
    let bytes =
        encode(&Reply { uid: "c2a94e13-8d05-4b7f-a6e1-5f30b98d7c42", verdict: &shed, record: RecordMark::None });
    let golden = concat!(
        r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"#,
        r#""uid":"c2a94e13-8d05-4b7f-a6e1-5f30b98d7c42","allowed":false,"#,
        r#""status":{"code":429,"reason":"TooManyRequests","details":{"retryAfterSeconds":1},"#,
        r#""message":"overloaded: Provost is at capacity and judged nothing; try again in a second"},"#,
        r#""auditAnnotations":{"verdict":"deny","codes":"overloaded"}}}"#
    );
    assert_eq!(String::from_utf8_lossy(&bytes), golden);
    // Its twin: any other fault has no second to wait for.
    let other = decide::refuse(&Fault::new(Code::InternalError, "x"));
    let bytes = encode(&Reply { uid: "u", verdict: &other, record: RecordMark::None });
    assert!(!String::from_utf8_lossy(&bytes).contains("retryAfterSeconds"));
}

#[test]
fn every_reply_of_an_observer_says_so_and_allows() {
    let many = (0..20).map(|at| denial(Code::Unsigned, Some((container(at, "a"), "r/a")), "", "")).collect();
    let faults = [Code::MalformedReview, Code::InternalError, Code::Overloaded, Code::AuditUnavailable];
    let mut verdicts: Vec<Verdict> =
        faults.iter().map(|code| decide::refuse(&Fault::new(*code, "what went wrong"))).collect();
    verdicts.extend([
        deny(many, vec![], 20),
        Verdict::NoImages,
        admit(vec![(container(0, "a"), Ground::Unchanged)], vec![], vec![]),
    ]);
    for verdict in verdicts {
        let (codes, verdict) = (verdict.codes(), decide::observed(verdict));
        assert_eq!(verdict.codes(), codes, "what would have been denied is kept");
        let bytes = encode_observed(&Reply { uid: "u", verdict: &verdict, record: RecordMark::None });
        let reply: Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(reply["response"]["allowed"], true, "{reply}");
        let warnings = warnings(&reply);
        assert!(warnings[0].starts_with("provost: observe mode: nothing is denied"), "{warnings:?}");
        assert!(warnings.len() <= MAX_WARNINGS && warnings.iter().all(|w| w.chars().count() <= MAX_WARNING));
        assert_eq!(warnings.len() > 1, !codes.is_empty(), "{warnings:?}");
    }
}

#[test]
fn c_23_c_25_sixty_four_refused_images() {
    let refused = |count: usize, name: &str| {
        let image = format!("registry.example.com/{name}@sha256:{HEX}");
        let denials = (0..count)
            .map(|i| denial(Code::Unsigned, Some((container(i, &format!("c{i}")), &image)), "nothing", "1 of ci"))
            .collect();
        saved(&deny(denials, vec![stamp("payments")], count))
    };
    // As long as all fit, all are there, with less and less said of each.
    for count in [1, 5, 8, 12, 20, 27] {
        let reply = refused(count, "a");
        let message = message(&reply);
        assert!(message.len() <= MAX_MESSAGE, "{count}: {}", message.len());
        for i in 0..count {
            assert!(message.contains(&format!("spec.containers[{i}] (c{i})")), "{count}: {message}");
        }
        assert_eq!(message.matches("unsigned").count(), count, "{message}");
        assert!(!message.contains("more"), "{count}: {message}");
        assert_eq!(message.contains(HEX), count <= 5, "{count}: whole digests go first: {message}");
    }
    let reply = refused(64, "team/a/long/name");
    let message = message(&reply);
    assert!(message.len() <= MAX_MESSAGE);
    assert!(message.starts_with("64 of 64 images refused; spec.containers[0] (c0): unsigned; "), "{message}");
    let shown = message.matches(": unsigned").count();
    assert!(shown > 20, "{message}");
    let end = format!("; and {} more; policy payments@sha256:{}, record {RECORD}", 64 - shown, "41".repeat(32));
    assert!(message.ends_with(&end), "{message}");
    let warnings = warnings(&reply);
    assert_eq!(warnings.len(), MAX_WARNINGS);
    assert_eq!(warnings[7], format!("provost: and 57 more, record {RECORD}"));
    assert_eq!(super::super::message::warnings(&deny(vec![], vec![], 0), &RecordMark::None).len(), 0);
}

#[test]
fn x_096_twenty_thousand_refused_containers() {
    let denials =
        (0..20_000).map(|i| denial(Code::NotDigestPinned, Some((container(i, "c"), "r/a")), "", "")).collect();
    let reply = saved(&deny(denials, vec![], 20_000));
    let message = message(&reply);
    assert!(
        message.starts_with("20000 of 20000 images refused; spec.containers[0] (c): not-digest-pinned; "),
        "{message}"
    );
    let shown = message.matches(": not-digest-pinned").count();
    assert!(message.len() <= MAX_MESSAGE && message.len() > 1_400, "{message}");
    assert!(message.ends_with(&format!("; and {} more; record {RECORD}", 20_000 - shown)), "{message}");
    assert_eq!(warnings(&reply)[7], format!("provost: and 19993 more, record {RECORD}"));
}

#[test]
fn c_25_x_129_untrusted_text_arrives_harmless() {
    let image = "registry.example.com/a\n\u{1b}[31mb\u{202e}c\u{fffd}ä@sha256:zz";
    let place = Place { path: "spec.containers[0]".to_owned(), holder: Holder::Container, name: "x\r\ny".to_owned() };
    let reply =
        saved(&deny(vec![denial(Code::MalformedReference, Some((place, image)), image, "a\u{2028}name")], vec![], 1));
    assert_eq!(
        warnings(&reply),
        ["provost: malformed-reference: spec.containers[0] (x\\u{d}\\u{a}y) \
          registry.example.com/a\\u{a}\\u{1b}[31mb\\u{202e}c\u{fffd}ä@sha..."]
    );
    let message = message(&reply);
    assert!(message.contains("(x\\u{d}\\u{a}y) registry.example.com/a\\u{a}\\u{1b}[31mb\\u{202e}c\u{fffd}ä@sha256:"));
    assert!(message.contains("wanted a\\u{2028}name"));
}

#[test]
fn c_23_a_message_is_never_cut_inside_a_character() {
    for length in 380..430 {
        let image = "ä".repeat(length);
        let denials = (0..3)
            .map(|i| denial(Code::MalformedReference, Some((container(i, &image), &image)), &image, &image))
            .collect();
        let reply = saved(&deny(denials, vec![], 3));
        let message = message(&reply);
        assert!(message.len() <= MAX_MESSAGE, "{}", message.len());
        assert!(message.ends_with(RECORD), "{message}");
    }
}

#[test]
fn c_20_the_uid_is_echoed() {
    for uid in ["u", "a\"b\\c", "ü\u{202e}\n", ""] {
        let bytes = encode(&Reply { uid, verdict: &Verdict::NoImages, record: RecordMark::None });
        let value: Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(value["response"]["uid"], uid);
    }
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-z0-9./:@-]{0,300}",
        Just(format!("r/a@sha256:{HEX}")),
        Just("ä\u{202e}".repeat(900))
    ]
}

fn any_denial() -> impl Strategy<Value = Denial> {
    let code = proptest::sample::select(Code::ALL);
    let mode = proptest::sample::select(&[Mode::Enforce, Mode::Warn, Mode::Audit][..]);
    let place = proptest::option::of((0..70_usize, any_text(), any_text(), any::<bool>()));
    (code, mode, place, any_text(), any_text(), any::<bool>()).prop_map(|(code, mode, place, found, wanted, by)| {
        let at = place.as_ref().map(|(index, name, image, is_volume)| {
            (if *is_volume { volume(*index, name) } else { container(*index, name) }, image.as_str())
        });
        softened(denial(code, at, &found, &wanted), mode, by.then(|| stamp("some-policy")))
    })
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    let denials = proptest::collection::vec(any_denial(), 0..80);
    let policies = proptest::collection::vec("[a-z]{1,253}".prop_map(|name| stamp(&name)), 0..30);
    let because =
        proptest::sample::select(&[Softened::Warn, Softened::Audit, Softened::MirrorPod, Softened::Observe][..]);
    (denials, policies, 0..100_usize, because, 0..4_u8).prop_map(|(denials, policies, images, because, which)| {
        match which {
            0 => Verdict::NoImages,
            1 => admit(vec![(container(0, "a"), Ground::Unchanged)], policies, vec![Note::ImagesUnchanged]),
            2 => would_deny(denials, policies, because),
            _ => deny(denials, policies, images),
        }
    })
}

fn keys(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                into.push(key.clone());
                keys(value, into);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| keys(value, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn c_21_c_22_c_23_c_25_c_26_every_reply(verdict in any_verdict(), uid in any::<String>(), pending in any::<bool>()) {
        let record = if pending { RecordMark::Pending } else { RecordMark::Saved(RECORD.to_owned()) };
        let bytes = encode(&Reply { uid: &uid, verdict: &verdict, record });
        let value: Value = serde_json::from_slice(&bytes).expect("JSON");
        let mut found = Vec::new();
        keys(&value, &mut found);
        prop_assert!(!found.iter().any(|key| key == "patch" || key == "patchType"));
        let response = &value["response"];
        prop_assert_eq!(&response["uid"], &json!(uid));
        prop_assert_eq!(&response["allowed"], &json!(verdict.word() != "deny"));
        prop_assert_eq!(response.get("status").is_some(), verdict.word() == "deny");
        if let Some(status) = response.get("status") {
            let message = status["message"].as_str().expect("message");
            prop_assert!(!message.is_empty() && message.len() < 1536);
            let record = if pending { "record: pending".to_owned() } else { format!("record {RECORD}") };
            prop_assert!(message.ends_with(&record), "{}", message);
            prop_assert_eq!(message, printable(message));
            prop_assert!((400..=500).contains(&status["code"].as_u64().expect("code")));
        }
        let warnings = warnings(&value);
        prop_assert!(warnings.len() <= MAX_WARNINGS);
        for warning in warnings {
            prop_assert!(warning.chars().count() <= MAX_WARNING);
            prop_assert!(warning.starts_with("provost: "));
            prop_assert_eq!(warning, printable(warning));
        }
        for (key, text) in response["auditAnnotations"].as_object().expect("annotations") {
            prop_assert!(key.len() <= 63 && key.bytes().all(|b| b.is_ascii_alphanumeric()));
            let text = text.as_str().expect("text");
            prop_assert!(!text.is_empty() && text.len() <= MAX_ANNOTATION);
            prop_assert_eq!(text, printable(text));
        }
    }
}
