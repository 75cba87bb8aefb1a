//! Records of reviews: they say all that they should, fit, and never drop an image.

use serde_json::{Value, json};

use super::super::{Event, NO_RECORD, Row, Writer};
use super::*;
use crate::decision::evidence::Identity;
use crate::decision::policy::PolicyStamp;
use crate::decision::record::MAX_RECORD;
use crate::decision::review::{Kind, Place};
use crate::decision::verdict::for_tests::overridden;
use crate::decision::verdict::{Admitted, CountedSignature, Denied, WouldDeny};

fn hex(n: usize) -> String {
    format!("{n:064x}")
}

fn image(n: usize, text: String) -> ReviewedImage {
    let place =
        Place { path: format!("spec.template.spec.containers[{n}]"), holder: Holder::Container, name: format!("c{n}") };
    ReviewedImage { place, text, unchanged: false }
}

fn stamp(name: &str) -> PolicyStamp {
    PolicyStamp { name: name.parse().expect("name"), hash: NO_RECORD }
}

fn denial(code: Code, image: &ReviewedImage, text: &str) -> Denial {
    Denial {
        code,
        place: Some(image.place.clone()),
        image: Some(image.text.as_str().into()),
        policy: Some(stamp("payments")),
        rule: Some("release".parse().expect("name")),
        wanted: format!("wanted {text}").into(),
        found: format!("found {text}").into(),
        mode: Mode::Enforce,
    }
}

fn deny(denials: Vec<Denial>, images: usize) -> Verdict {
    Verdict::Deny(Denied { denials, policies: vec![stamp("payments")], images })
}

fn proof(image: &ReviewedImage, signatures: usize, origin: Origin) -> Proof {
    let signature = |n| CountedSignature {
        signer: format!("signer-{n}").parse().expect("name"),
        identity: Identity::Key(NO_RECORD),
        evidence: NO_RECORD,
        source: format!("referrer sha256:{}", hex(n)),
    };
    Proof {
        place: image.place.clone(),
        image: image.text.parse::<ImageRef>().expect("image").pinned(),
        ground: Ground::Rule {
            policy: stamp("payments"),
            rule: "release".parse().expect("name"),
            listed: false,
            signatures: (0..signatures).map(signature).collect(),
            origin: Some(origin),
        },
    }
}

fn request() -> Request {
    Request {
        uid: "0f9c3c2a-7f0e-4a0e-9f59-3c0b4d7f7a11".to_owned(),
        operation: Some(Operation::Create),
        kind: Kind { group: "apps".to_owned(), version: "v1".to_owned(), kind: "Deployment".to_owned() },
        resource: "deployments".to_owned(),
        namespace: "payments".to_owned(),
        name: "api".to_owned(),
        user: "alice".to_owned(),
        groups: vec!["dev".to_owned()],
        ..Request::default()
    }
}

fn record(request: &Request, images: &[ReviewedImage], verdict: &Verdict, fault: Option<&Fault>) -> Value {
    let stages = [("decode", Duration::from_micros(12)), ("evidence", Duration::from_millis(3))];
    let review = ReviewRecord::new(ReviewInput { request, images, verdict, fault, stages: &stages });
    let value: Value = serde_json::from_str(review.canonical()).expect("JSON");
    assert_eq!(serde_json_canonicalizer::to_string(&value).expect("canonical"), review.canonical());
    let chain = "kqzt".parse().expect("chain");
    let writer = Writer::new(&"\u{1}".repeat(300), &"r".repeat(300));
    let time = "2026-11-20T10:00:00.123456Z".parse().expect("time");
    let sealed = Event::Review(review).draft().seal(chain, (1 << 53) - 1, time, &writer, NO_RECORD);
    assert!(sealed.line(false).len() <= MAX_RECORD, "{} bytes", sealed.line(false).len());
    Row::of(&sealed.body).expect("columns");
    value
}

fn row(request: &Request, images: &[ReviewedImage], verdict: &Verdict) -> Row {
    let review = ReviewRecord::new(ReviewInput { request, images, verdict, fault: None, stages: &[] });
    let time = "2026-11-20T10:00:00.123456Z".parse().expect("time");
    let sealed =
        Event::Review(review).draft().seal("kqzt".parse().expect("chain"), 1, time, &Writer::new("", ""), NO_RECORD);
    Row::of(&sealed.body).expect("columns")
}

#[test]
fn a_denial_is_recorded_whole() {
    let images = [image(0, format!("r.example/app:1@sha256:{}", hex(1))), image(1, "busybox".to_owned())];
    let verdict = deny(vec![denial(Code::Unsigned, &images[0], "a"), denial(Code::NotDigestPinned, &images[1], "")], 2);
    let fault = Fault::new(Code::MalformedReview, "odd");
    let value = record(
        &Request { dry_run: true, sub_resource: "scale".to_owned(), ..request() },
        &images,
        &verdict,
        Some(&fault),
    );
    assert_eq!(
        value,
        json!({
            "type": "review", "uid": "0f9c3c2a-7f0e-4a0e-9f59-3c0b4d7f7a11", "dryRun": true, "operation": "CREATE",
            "kind": "apps/v1/Deployment", "resource": "deployments/scale", "namespace": "payments", "name": "api",
            "user": "alice", "caller": "unknown", "groups": ["dev"], "verdict": "deny", "codes": ["unsigned", "not-digest-pinned"],
            "policies": [format!("payments@{NO_RECORD}")],
            "images": [
                {"asked": format!("r.example/app:1@sha256:{}", hex(1)), "at": "spec.template.spec.containers[0]", "holder": "container",
                 "name": "c0", "repository": "r.example/app", "digest": format!("sha256:{}", hex(1)), "codes": ["unsigned"]},
                {"asked": "busybox", "at": "spec.template.spec.containers[1]", "holder": "container", "name": "c1",
                 "repository": "docker.io/library/busybox", "codes": ["not-digest-pinned"]},
            ],
            "denials": [
                {"code": "unsigned", "at": "spec.template.spec.containers[0]", "policy": "payments", "rule": "release",
                 "wanted": "wanted a", "found": "found a", "mode": "enforce"},
                {"code": "not-digest-pinned", "at": "spec.template.spec.containers[1]", "policy": "payments", "rule": "release",
                 "wanted": "wanted ", "found": "found ", "mode": "enforce"},
            ],
            "fault": {"code": "malformed-review", "detail": "odd"},
            "stages": [["decode", 12], ["evidence", 3000]],
        })
    );
    let row = row(&request(), &images, &verdict);
    assert_eq!(
        (row.verdict.as_str(), row.codes.as_str(), row.user.as_str()),
        ("deny", "unsigned,not-digest-pinned", "alice")
    );
    assert_eq!(row.images.len(), 2);
    assert_eq!(row.images[1].repository.as_deref(), Some("docker.io/library/busybox"));
    assert_eq!((row.images[1].digest.as_deref(), row.images[1].code.as_deref()), (None, Some("not-digest-pinned")));
}

#[test]
fn bg_10_an_override_is_recorded_with_who_why_and_all_denials() {
    let images = [image(0, format!("r.example/app:1@sha256:{}", hex(1)))];
    let request_for = |container: Option<String>, reason: &str| OverrideRequest {
        user: "alice@acme.com".to_owned(),
        ticket: "INC-42".to_owned(),
        reason: reason.to_owned(),
        container,
        policies: vec![stamp("payments")],
    };
    let denials = || vec![denial(Code::Unsigned, &images[0], "a")];
    let verdict = overridden(denials(), vec![request_for(None, "database is down")], vec![stamp("payments")]);
    let value = record(&request(), &images, &verdict, None);
    assert_eq!((&value["verdict"], &value["codes"]), (&json!("override"), &json!(["unsigned"])));
    assert_eq!(
        value["overrides"],
        json!([{"by": "request", "user": "alice@acme.com", "ticket": "INC-42", "reason": "database is down",
                "policies": ["payments"]}])
    );
    assert_eq!(value["denials"][0]["code"], json!("unsigned"));
    assert_eq!(row(&request(), &images, &verdict).verdict, "override");
    let many = (0..64).map(|n| request_for(Some(format!("debug-{n}")), &"\u{1}".repeat(500))).collect();
    let value = record(&request(), &images, &overridden(denials(), many, vec![]), None);
    let kept = value["overrides"].as_array().map_or(0, Vec::len);
    assert!(kept > 0 && value["omitted"]["overrides"]["count"] == json!(64 - kept), "{value}");
}

#[test]
fn an_admission_names_its_evidence() {
    let images = [image(0, format!("r.example/app:1@sha256:{}", hex(1)))];
    let admit = |origin| {
        Verdict::Admit(Admitted {
            proofs: vec![proof(&images[0], 1, origin)],
            policies: vec![stamp("payments")],
            notes: vec![Note::EmptyTemplateImage],
        })
    };
    for (origin, word, age) in [
        (Origin::Fetched, "fetched", Value::Null),
        (Origin::Cached, "cached", Value::Null),
        (Origin::Stale(Duration::from_secs(90)), "stale", json!(90)),
    ] {
        let value = record(&request(), &images, &admit(origin), None);
        assert_eq!((&value["verdict"], &value["notes"]), (&json!("admit"), &json!(["empty-template-image"])));
        assert_eq!(value["images"][0]["verified"], json!(true));
        assert_eq!(value["images"][0]["proofs"][0]["origin"], json!(word));
        assert_eq!(value["images"][0]["proofs"][0]["age"], age);
        assert_eq!(
            value["images"][0]["proofs"][0]["signatures"][0],
            json!({"signer": "signer-0", "identity": format!("key {NO_RECORD}"), "evidence": NO_RECORD.to_string(),
                   "source": format!("referrer sha256:{}", hex(0))})
        );
    }
    let softened = Verdict::WouldDeny(WouldDeny {
        denials: vec![denial(Code::Unsigned, &images[0], "")],
        policies: vec![],
        notes: vec![],
        because: Softened::Warn,
    });
    let value = record(&request(), &images, &softened, None);
    assert_eq!((&value["verdict"], &value["softened"]), (&json!("would-deny"), &json!("warn")));
    let none = record(&request(), &[], &Verdict::NoImages, None);
    assert_eq!((&none["verdict"], &none["images"], &none["codes"]), (&json!("no-images"), &json!([]), &json!([])));
}

/// The longest valid repository, different for each number from its first part on.
fn long_repository(n: usize) -> String {
    format!("registry-{n:03}.example/{}", "a/".repeat(115) + "abc")
}

#[test]
fn x_128_sixty_four_long_images_fit_and_none_is_dropped() {
    let tag = "t".repeat(128);
    let pinned: Vec<_> = (0..64).map(|n| image(n, format!("{}:{tag}@sha256:{}", long_repository(n), hex(n)))).collect();
    assert!(pinned[0].text.len() > 440, "{}", pinned[0].text.len());
    let malformed: Vec<_> = (0..64).map(|n| image(n, format!("{n}\"\u{1}{}", "\u{7}é".repeat(1000)))).collect();
    let words = "\u{1}".repeat(2000);
    let hostile = Request {
        uid: words.clone(),
        kind: Kind { group: words.clone(), version: words.clone(), kind: words.clone() },
        request_kind: Some(Kind { group: words.clone(), version: words.clone(), kind: words.clone() }),
        request_resource: Some(words.clone()),
        resource: words.clone(),
        sub_resource: words.clone(),
        namespace: words.clone(),
        name: words.clone(),
        user: words.clone(),
        groups: vec![words.clone(); 20],
        ..request()
    };
    let many_policies: Vec<_> = (0..40).map(|n| stamp(&format!("p{n}-{}", "x".repeat(60)))).collect();
    let fault = Fault::new(Code::InternalError, words.clone());
    for (name, images) in [("pinned", &pinned), ("malformed", &malformed)] {
        let denials = (images.iter())
            .flat_map(|image| Code::ALL.iter().map(move |code| denial(*code, image, &"long ".repeat(30))))
            .collect();
        let verdict = Verdict::Deny(Denied { denials, policies: many_policies.clone(), images: 64 });
        for (request, fault) in [(&request(), None), (&hostile, Some(&fault))] {
            let value = record(request, images, &verdict, fault);
            let recorded = value["images"].as_array().expect("images");
            assert_eq!(recorded.len(), 64, "{name}");
            for (n, image) in recorded.iter().enumerate() {
                assert_eq!(image["at"], format!("containers[{n}]"), "{name}");
                assert!(!image["codes"].as_array().expect("codes").is_empty());
                if name == "pinned" {
                    assert_eq!(image["digest"], format!("sha256:{}", hex(n)));
                } else {
                    assert!(image["asked"].as_str().expect("asked").contains("…#"), "{image}");
                }
            }
            assert_eq!(value["omitted"]["images"]["count"], 0);
            assert_eq!(value["omitted"]["denials"]["count"], 64 * Code::ALL.len());
            assert_eq!(value["codes"].as_array().expect("codes").len(), Code::ALL.len());
        }
        // A repository that was shortened is found all the same.
        let row = row(&hostile, images, &verdict);
        if name == "pinned" {
            let column = super::super::column_repository(&long_repository(7));
            assert!(row.images.iter().any(|image| image.repository.as_deref() == Some(&column)), "{row:?}");
        }
    }
    let proofs = (pinned.iter()).flat_map(|image| (0..4).map(move |_| proof(image, 4, Origin::Cached))).collect();
    let verdict = Verdict::Admit(Admitted { proofs, policies: many_policies, notes: vec![] });
    let value = record(&request(), &pinned, &verdict, None);
    assert_eq!(value["images"].as_array().map(Vec::len), Some(64));
    assert_eq!(value["omitted"]["proofs"]["count"], 256);
    assert!(value["images"].as_array().expect("images").iter().all(|image| image["verified"] == json!(true)));
}

#[test]
fn x_128_more_images_than_are_allowed_are_counted_and_hashed() {
    let denials = |images: &[ReviewedImage]| vec![denial(Code::BudgetExceeded, &images[0], "")];
    // One image a thousand times is one image.
    let same: Vec<_> = (0..1000).map(|n| image(n, format!("r.example/app@sha256:{}", hex(1)))).collect();
    let value = record(&request(), &same, &deny(denials(&same), 1000), None);
    assert_eq!(value["images"].as_array().map(Vec::len), Some(1));
    assert_eq!((&value["images"][0]["also"], &value["omitted"]["images"]["count"]), (&json!(999), &json!(0)));
    // Beyond the limit, where the review is denied whatever it holds, some have no room.
    let many: Vec<_> = (0..3000).map(|n| image(n, format!("r.example/app{n}@sha256:{}", hex(n)))).collect();
    let value = record(&request(), &many, &deny(denials(&many), 3000), None);
    let kept = value["images"].as_array().map_or(0, Vec::len);
    assert!(kept >= 64, "{kept}");
    assert_eq!(value["omitted"]["images"]["count"], 3000 - kept);
    // The hash of the whole tells two such reviews apart.
    let mut other = many.clone();
    other[2999].text.push('0');
    let again = record(&request(), &other, &deny(denials(&other), 3000), None);
    assert_ne!(value["omitted"]["images"]["sha256"], again["omitted"]["images"]["sha256"]);
}
