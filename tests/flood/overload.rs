//! C-03 and X-101 at the running program: what there is no room for is denied in-band, under either failure policy. And
//! the operator who only observes denies nothing, whatever happens.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use provost::edge::samples::SampleKey;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::program::{ALONE, LONGEST, Outcome, Program, Registry, call, review};

/// A caller with its token, whose calls can wait beside each other.
#[derive(Clone)]
struct Caller {
    client: reqwest::Client,
    url: String,
}

impl Caller {
    fn new(program: &Program) -> Self {
        let client = program.client().build().expect("a client");
        Self { client, url: program.url(&format!("/validate/{}", program.token())) }
    }

    async fn call(&self, uid: &str, image: &str) -> Outcome {
        call(&self.client, &self.url, uid, review(uid, &[image])).await
    }

    fn begin(&self, uid: &str, image: &str) -> JoinHandle<Outcome> {
        let (caller, uid, image) = (self.clone(), uid.to_owned(), image.to_owned());
        tokio::spawn(async move { caller.call(&uid, &image).await })
    }
}

/// Waits until a registry was asked for something since `before`.
async fn asked(registry: &Registry, before: usize) {
    let asked = timeout(LONGEST, async {
        while registry.asked.load(Ordering::Acquire) <= before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    asked.await.expect("asked in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn c_03_a_burst_with_one_turn_at_a_time_is_answered_in_band_every_time() {
    let _beside_each_other = ALONE.read().await;
    let key = SampleKey::generate().expect("a key");
    let fast = Registry::start(&key, 1, false).await;
    let program = Program::start(&key, &[(&fast, "")], "limits: {computing: 1, waiting: 1}\n", &[]).await;
    let caller = Arc::new(Caller::new(&program));
    // From then on its address is vouched for, and may open many connections at once.
    caller.call("first", &fast.images[0]).await.assert_admitted();
    let burst: Vec<_> = (0..200).map(|number| caller.begin(&format!("b{number}"), &fast.images[0])).collect();
    let mut admitted = 0;
    for outcome in burst {
        let outcome = outcome.await.expect("no panic");
        assert_eq!(outcome.status, Some(200), "{outcome:?}");
        if outcome.codes().is_empty() {
            outcome.assert_admitted();
            admitted += 1;
        } else {
            outcome.assert_denied("overloaded");
        }
    }
    assert!(admitted > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_denies_nothing_and_says_so_whatever_happens() {
    let _beside_each_other = ALONE.read().await;
    let key = SampleKey::generate().expect("a key");
    let slow = Registry::start(&key, 3, false).await;
    for observe in [true, false] {
        let args: &[&str] = if observe { &["--observe"] } else { &[] };
        let program = Program::start(&key, &[(&slow, "")], "limits: {waiting: 1}\n", args).await;
        let caller = Caller::new(&program);
        slow.later(None);
        let unsigned = format!("{}/release/none@sha256:{}", slow.host, "a".repeat(64));
        let foreign = format!("registry.example.net/x@sha256:{}", "b".repeat(64));
        let send = async |uid: &str, body: Vec<u8>| call(&caller.client, &caller.url, uid, body).await;
        let mut large = review("large", &[&foreign]);
        large.resize(9 << 20, b' ');
        let malformed = String::from_utf8(review("malformed", &[])).expect("UTF-8");
        let mut outcomes = vec![
            ("image-not-found", caller.call("none", &unsigned).await),
            ("not-release-repo", caller.call("foreign", &foreign).await),
            ("not-digest-pinned", caller.call("tag", &format!("{}/release/app0:1", slow.host)).await),
            ("malformed-review", send("malformed", malformed.into_bytes()).await),
            ("review-too-large", send("large", large).await),
        ];
        slow.later(Some(5));
        let before = slow.asked.load(Ordering::Acquire);
        let waiting = caller.begin("waits", &slow.images[1]);
        asked(&slow, before).await;
        outcomes.push(("overloaded", caller.call("shed", &slow.images[2]).await));
        slow.later(None);
        outcomes.push(("", waiting.await.expect("no panic")));
        for (codes, outcome) in &outcomes {
            let response = outcome.response.as_ref().expect("a reply");
            let first = response["warnings"][0].as_str().unwrap_or_default();
            if observe {
                outcome.assert_admitted();
                assert_eq!(outcome.codes(), *codes, "{outcome:?}");
                assert!(first.starts_with("provost: observe mode: nothing is denied"), "{codes}: {response}");
                let word = if codes.is_empty() { "admit" } else { "would-deny" };
                assert_eq!(response["auditAnnotations"]["verdict"], word, "{codes}");
            } else if codes.is_empty() {
                outcome.assert_admitted();
            } else {
                outcome.assert_denied(codes);
                assert!(!first.contains("observe"));
            }
        }
        let gauge = program.metric("provost_observe").await;
        assert!((gauge - if observe { 1.0 } else { 0.0 }).abs() < 0.1, "{gauge}");
        assert_eq!(program.log().contains("observe mode: everything is judged and recorded"), observe);
        let events = program.stop().await;
        let recorded = |uid: &str| {
            let of = |event: &&serde_json::Value| event["type"] == "review" && event["uid"] == uid;
            events.iter().find(of).map(|event| (event["verdict"].clone(), event["softened"].clone()))
        };
        for uid in ["none", "foreign", "tag", "malformed", "large"] {
            let (verdict, softened) = recorded(uid).expect("recorded");
            assert_eq!((verdict == "would-deny", softened == "observe"), (observe, observe), "{uid}");
        }
        assert!(events.iter().any(|event| event["type"] == "shed" && event["uids"][0] == "shed"));
    }
}
