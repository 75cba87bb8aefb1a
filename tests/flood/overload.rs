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
async fn c_03_x_101_what_there_is_no_room_for_is_denied_in_band_and_recorded_together() {
    let _beside_each_other = ALONE.read().await;
    let key = SampleKey::generate().expect("a key");
    let (slow, fast) = (Registry::start(&key, 6, false).await, Registry::start(&key, 1, false).await);
    slow.later(Some(15));
    let program = Program::start(&key, &[(&slow, ""), (&fast, "")], "limits: {waiting: 4}\n", &[]).await;
    let caller = Caller::new(&program);
    let mut waiting = Vec::new();
    for number in 0..2 {
        let before = slow.asked.load(Ordering::Acquire);
        waiting.push(caller.begin(&format!("w{number}"), &slow.images[number]));
        asked(&slow, before).await;
    }
    // Half of the places wait for this registry: a third search is turned away at once, and so are those after it.
    for number in 0..6 {
        let uid = format!("shed-{number}");
        let shed = caller.call(&uid, &slow.images[2 + number % 4]).await;
        shed.assert_denied("overloaded");
        let response = shed.response.as_ref().expect("a reply");
        assert_eq!(response["status"]["code"], 429);
        assert_eq!(response["status"]["details"]["retryAfterSeconds"], 1);
        assert!(response.get("warnings").is_none() && response["auditAnnotations"].get("record").is_none());
        assert!(shed.took < Duration::from_secs(5), "{:?}", shed.took);
    }
    // Other registries are not delayed, and who asks what is asked already may wait for it.
    caller.call("fast", &fast.images[0]).await.assert_admitted();
    waiting.push(caller.begin("w2", &slow.images[0]));
    waiting.push(caller.begin("w3", &slow.images[1]));
    let full = timeout(LONGEST, async {
        while program.metric("provost_waiting").await < 4.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    full.await.expect("full in time");
    // What is at hand needs no place, and what nobody has asked about yet does.
    let image = format!("{}/release/none@sha256:{:064x}", fast.host, 1);
    caller.call("full", &image).await.assert_denied("overloaded");
    caller.call("cached", &fast.images[0]).await.assert_admitted();
    slow.later(None);
    for waiting in waiting {
        waiting.await.expect("no panic").assert_admitted();
    }
    caller.call("after", &slow.images[5]).await.assert_admitted();
    assert!(program.metric("provost_overloaded_total").await > 6.5);

    let events = program.stop().await;
    let shed: Vec<_> = events.iter().filter(|event| event["type"] == "shed").collect();
    let count: u64 = shed.iter().filter_map(|event| event["count"].as_u64()).sum();
    let uids: Vec<&str> =
        shed.iter().filter_map(|event| event["uids"].as_array()).flatten().filter_map(|uid| uid.as_str()).collect();
    assert_eq!(count, uids.len() as u64);
    for number in 0..6 {
        assert!(uids.contains(&format!("shed-{number}").as_str()), "{uids:?}");
    }
    assert!(shed.len() < 10, "together, not one by one: {}", shed.len());
    assert!(!events.iter().any(|event| event["type"] == "review" && event["codes"][0] == "overloaded"));
}

#[tokio::test(flavor = "multi_thread")]
async fn c_04_x_101_a_burst_of_new_connections_from_a_stranger_is_answered_every_time() {
    let _beside_each_other = ALONE.read().await;
    let key = SampleKey::generate().expect("a key");
    let fast = Registry::start(&key, 1, false).await;
    let program = Program::start(&key, &[(&fast, "")], "", &[]).await;
    // Nobody has called yet, and every call comes on a connection of its own.
    let client = program.client().pool_max_idle_per_host(0).build().expect("a client");
    let caller = Caller { client, url: program.url("/validate") };
    let burst: Vec<_> = (0..150).map(|number| caller.begin(&format!("n{number}"), &fast.images[0])).collect();
    for outcome in burst {
        outcome.await.expect("no panic").assert_admitted();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c_03_a_burst_with_one_turn_at_a_time_is_answered_in_band_every_time() {
    let _beside_each_other = ALONE.read().await;
    let key = SampleKey::generate().expect("a key");
    let fast = Registry::start(&key, 1, false).await;
    let program = Program::start(&key, &[(&fast, "")], "limits: {computing: 1, waiting: 1}\n", &[]).await;
    let caller = Arc::new(Caller::new(&program));
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
