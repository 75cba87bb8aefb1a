//! What is kept, for how long and for whom; one flight for everybody; faults that stay nobody's answer.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::{advance, sleep};

use super::testing::{Memory, down, signed};
use super::*;
use crate::decision::evidence::{StatementKind, VerifiedStatement};
use crate::decision::policy::KeyScheme;
use crate::decision::reference::PinnedImage;
use crate::edge::registry::Failure;
use crate::edge::sigstore::bundle;
use crate::edge::sigstore::samples::{TestKey, simple_signing, statement};

struct Scene {
    memory: Memory,
    evidence: Evidence,
    image: PinnedImage,
    one: TestKey,
    two: TestKey,
}

impl Scene {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        let memory = Memory::new();
        let image = memory.image("app");
        let evidence = Evidence::new(memory.clone(), settings);
        Self {
            memory,
            evidence,
            image,
            one: TestKey::new(KeyScheme::EcdsaP256),
            two: TestKey::new(KeyScheme::EcdsaP256),
        }
    }

    /// A legacy signature by key one.
    fn sign(&self) {
        self.memory.legacy(&self.image, &[signed(&self.one, simple_signing(self.image.digest()))]);
    }

    /// A bundle by key two.
    fn sign_too(&self) {
        let bytes = self.two.bundle(&statement(self.image.digest(), bundle::IMAGE_SIGNATURE));
        self.memory.list(self.memory.bundle(self.image.digest(), &bytes, None));
    }

    fn question(&self) -> Question {
        let keys = [self.one.asked(), self.two.asked()];
        Question { image: self.image.clone(), keys: keys.into(), children: false }
    }

    async fn ask(&self, wanted: usize) -> Answer {
        self.evidence.answer(&self.question(), Instant::now() + Duration::from_secs(5), at_least(wanted)).await
    }

    /// How many searches were begun.
    fn searches(&self) -> usize {
        self.memory.count("referrers")
    }
}

/// So many different signers.
fn at_least(wanted: usize) -> Enough {
    Arc::new(move |facts| signers(facts) >= wanted)
}

fn signers(facts: &Facts) -> usize {
    let signatures = facts.statements.iter().filter(|s| *s.kind() == StatementKind::ImageSignature);
    signatures.map(VerifiedStatement::identity).collect::<std::collections::BTreeSet<_>>().len()
}

fn codes(answer: &Answer) -> Vec<Code> {
    answer.facts.unanswered.iter().map(|u| u.code).collect()
}

#[tokio::test(start_paused = true)]
async fn a_proof_is_kept_ten_minutes() {
    let scene = Scene::new();
    scene.sign();
    assert_eq!(scene.ask(1).await.origin, Origin::Fetched);
    advance(Duration::from_secs(599)).await;
    assert_eq!(scene.ask(1).await.origin, Origin::Cached);
    assert_eq!(scene.searches(), 1);
    advance(Duration::from_secs(2)).await;
    assert_eq!(scene.ask(1).await.origin, Origin::Fetched);
    assert_eq!(scene.searches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refutation_is_kept_half_a_minute() {
    let scene = Scene::new();
    let answer = scene.ask(1).await;
    assert!(answer.facts.exhausted && answer.facts.statements.is_empty());
    scene.sign();
    advance(Duration::from_secs(29)).await;
    assert_eq!(scene.ask(1).await.origin, Origin::Cached);
    advance(Duration::from_secs(2)).await;
    let answer = scene.ask(1).await;
    assert_eq!((answer.origin, signers(&answer.facts)), (Origin::Fetched, 1));
}

#[tokio::test(start_paused = true)]
async fn x_050_a_fault_is_not_kept() {
    let scene = Scene::new();
    scene.sign();
    for failure in [down(), Failure::AuthFailed { detail: "401".to_owned() }] {
        scene.memory.fail(format!("tag sha256-{}.sig", scene.image.digest().hex()), failure.clone());
        let answer = scene.ask(1).await;
        assert_eq!(codes(&answer), [failure.code()]);
    }
    scene.memory.heal();
    let answer = scene.ask(1).await;
    assert_eq!((answer.origin, signers(&answer.facts)), (Origin::Fetched, 1), "at once, when it has passed");
}

#[tokio::test(start_paused = true)]
async fn x_043_x_050_half_a_list_is_not_kept() {
    let scene = Scene::new();
    scene.sign();
    let tag = format!("sha256-{}.sig", scene.image.digest().hex());
    let whole = scene.memory.change(|state| state.tags.get(&tag).copied()).expect("signed");
    scene.memory.put_tag(&tag, "{\"schemaVersion\":2,\"layers\":[");
    assert_eq!(codes(&scene.ask(1).await), [Code::EvidenceUnavailable]);
    scene.memory.change(|state| state.tags.insert(tag, whole));
    let answer = scene.ask(1).await;
    assert_eq!((answer.origin, signers(&answer.facts)), (Origin::Fetched, 1), "at once, when it is whole again");
}

#[tokio::test(start_paused = true)]
async fn x_042_a_waiter_out_of_time_is_told_what_the_search_is_sitting_out() {
    let scene = Scene::new();
    scene.sign();
    let patience = |what: &str, failure: Failure, seconds| {
        scene.memory.change(|state| state.patience.insert(what.to_owned(), (failure, Duration::from_secs(seconds))));
    };
    let limited = Failure::RateLimited { host: "r.example".to_owned(), retry_after: Some(Duration::from_secs(20)) };
    patience(&format!("tag sha256-{}.sig", scene.image.digest().hex()), limited, 20);
    // It has five seconds.
    let answer = scene.ask(1).await;
    assert_eq!(codes(&answer), [Code::RateLimited]);
    let detail = &answer.facts.unanswered[0].detail;
    assert!(detail.contains("Retry-After: 16 s") && detail.ends_with("the search goes on"), "{detail}");
    // Whoever comes later is told the same, of what is left.
    patience("referrers", down(), 0);
    let answer = scene.ask(1).await;
    assert_eq!(codes(&answer), [Code::RateLimited]);
    assert!(answer.facts.unanswered[0].detail.contains("Retry-After: 11 s"), "{:?}", answer.facts);
    assert_eq!(scene.searches(), 1);
    // And whoever can wait so long, or comes when it is over, has the answer.
    let deadline = Instant::now() + Duration::from_secs(15);
    let answer = scene.evidence.answer(&scene.question(), deadline, at_least(1)).await;
    assert_eq!((answer.origin, signers(&answer.facts)), (Origin::Fetched, 1));
    assert_eq!(scene.ask(1).await.origin, Origin::Cached);
    assert_eq!(scene.searches(), 1);
}

#[tokio::test(start_paused = true)]
async fn x_042_a_proof_serves_stale_while_the_registry_asks_for_patience() {
    let scene = Scene::new();
    scene.sign();
    assert_eq!(scene.ask(1).await.origin, Origin::Fetched);
    advance(PROVEN).await;
    let limited = Failure::RateLimited { host: "r.example".to_owned(), retry_after: None };
    let sig = format!("tag sha256-{}.sig", scene.image.digest().hex());
    scene.memory.change(|state| state.patience.insert(sig, (limited, Duration::from_secs(20))));
    let answer = scene.ask(1).await;
    assert!(matches!(answer.origin, Origin::Stale(_)), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_proof_serves_stale_only_while_the_registry_is_out() {
    let scene = Scene::new();
    scene.sign();
    assert_eq!(scene.ask(1).await.origin, Origin::Fetched);
    advance(Duration::from_hours(1)).await;
    let sig = format!("tag sha256-{}.sig", scene.image.digest().hex());
    scene.memory.fail(&sig, down());
    let answer = scene.ask(1).await;
    assert!(matches!(answer.origin, Origin::Stale(age) if age >= Duration::from_hours(1)), "{:?}", answer.origin);
    assert_eq!(signers(&answer.facts), 1);
    // Not for somebody whom it does not prove enough.
    assert_eq!(codes(&scene.ask(2).await), [Code::EvidenceUnavailable]);
    // Not where the registry refuses us, rather than being out.
    scene.memory.fail(&sig, Failure::AuthFailed { detail: "401".to_owned() });
    assert_eq!(codes(&scene.ask(1).await), [Code::RegistryAuthFailed]);
    // Not for ever.
    scene.memory.fail(&sig, down());
    advance(Duration::from_hours(23)).await;
    assert_eq!(codes(&scene.ask(1).await), [Code::EvidenceUnavailable]);
    // A registry that says no takes the proof away.
    scene.memory.heal();
    scene.memory.change(|state| state.tags.clear());
    assert_eq!(signers(&scene.ask(1).await.facts), 0);
    scene.memory.fail(&sig, down());
    advance(REFUTED).await;
    assert_eq!(codes(&scene.ask(1).await), [Code::EvidenceUnavailable]);
}

#[tokio::test(start_paused = true)]
async fn stale_proofs_can_be_switched_off() {
    let scene = Scene::with(Settings { stale_proofs: Duration::ZERO, ..Settings::default() });
    scene.sign();
    assert_eq!(scene.ask(1).await.origin, Origin::Fetched);
    advance(PROVEN).await;
    scene.memory.fail("referrers", down());
    scene.memory.fail(format!("tag sha256-{}.sig", scene.image.digest().hex()), down());
    assert_eq!(codes(&scene.ask(1).await), [Code::EvidenceUnavailable]);
}

#[tokio::test(start_paused = true)]
async fn x_049_one_credential_s_finds_are_not_another_s() {
    let scene = Scene::new();
    scene.sign();
    assert_eq!(signers(&scene.ask(1).await.facts), 1);
    scene.memory.change(|state| state.scope = [1; 32]);
    for what in ["referrers".to_owned(), format!("tag sha256-{}.sig", scene.image.digest().hex())] {
        scene.memory.fail(what, Failure::AuthFailed { detail: "403".to_owned() });
    }
    let answer = scene.ask(1).await;
    assert_eq!((answer.origin, codes(&answer)), (Origin::Fetched, vec![Code::RegistryAuthFailed]));
    scene.memory.change(|state| state.scope = [0; 32]);
    assert_eq!(scene.ask(1).await.origin, Origin::Cached, "the first one's is still there");
}

#[tokio::test(start_paused = true)]
async fn x_091_another_key_is_another_question() {
    let scene = Scene::new();
    scene.sign();
    assert_eq!(signers(&scene.ask(1).await.facts), 1);
    let mut question = scene.question();
    question.keys = [scene.two.asked()].into();
    let answer = scene.evidence.answer(&question, Instant::now() + Duration::from_secs(5), at_least(1)).await;
    assert_eq!((answer.origin, signers(&answer.facts)), (Origin::Fetched, 0), "the key is no longer listed");
}

#[tokio::test(start_paused = true)]
async fn facts_that_stopped_early_are_completed_for_who_needs_more() {
    let scene = Scene::new();
    scene.sign();
    scene.sign_too();
    let first = scene.ask(1).await;
    assert!(!first.facts.exhausted);
    let blobs = scene.memory.count("blob");
    let both = scene.ask(2).await;
    assert_eq!((both.origin, signers(&both.facts)), (Origin::Fetched, 2));
    assert!(scene.memory.count("blob") <= blobs + 1, "bodies that are known are not fetched again");
    assert_eq!(scene.ask(2).await.origin, Origin::Cached);
    let three = scene.ask(3).await;
    assert!(three.facts.exhausted && three.origin == Origin::Fetched, "never refuted from an early stop");
}

#[tokio::test(start_paused = true)]
async fn x_101_a_thousand_waiters_share_one_search() {
    let scene = Scene::new();
    scene.sign();
    scene.memory.hold(true);
    let waiters: Vec<_> = (0..1000)
        .map(|_| {
            let (evidence, question) = (scene.evidence.clone(), scene.question());
            let deadline = Instant::now() + Duration::from_secs(5);
            tokio::spawn(async move { evidence.answer(&question, deadline, at_least(1)).await })
        })
        .collect();
    sleep(Duration::from_secs(1)).await;
    scene.memory.hold(false);
    for waiter in waiters {
        let answer = waiter.await.expect("answered");
        assert_eq!((answer.origin, signers(&answer.facts)), (Origin::Fetched, 1));
    }
    assert_eq!(scene.searches(), 1);
    assert_eq!(scene.memory.count("blob"), 1);
}

#[tokio::test(start_paused = true)]
async fn x_050_the_first_waiter_s_end_is_nobody_else_s() {
    let scene = Scene::new();
    scene.sign();
    scene.memory.hold(true);
    let spawn = || {
        let (evidence, question) = (scene.evidence.clone(), scene.question());
        let deadline = Instant::now() + Duration::from_secs(5);
        tokio::spawn(async move { evidence.answer(&question, deadline, at_least(1)).await })
    };
    let (first, second) = (spawn(), spawn());
    sleep(Duration::from_millis(10)).await;
    first.abort();
    sleep(Duration::from_millis(10)).await;
    scene.memory.hold(false);
    assert_eq!(signers(&second.await.expect("answered").facts), 1);
    assert_eq!(scene.searches(), 1);
}

#[tokio::test(start_paused = true)]
async fn x_044_a_waiter_out_of_time_leaves_the_search_to_the_next() {
    let scene = Scene::new();
    scene.sign();
    scene.memory.hold(true);
    assert_eq!(codes(&scene.ask(1).await), [Code::DeadlineExceeded]);
    scene.memory.hold(false);
    sleep(Duration::from_millis(10)).await;
    let answer = scene.ask(1).await;
    assert_eq!((answer.origin, signers(&answer.facts)), (Origin::Cached, 1), "its answer is ready");
    assert_eq!(scene.searches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_search_has_an_end_of_its_own() {
    let scene = Scene::new();
    scene.sign();
    scene.memory.hold(true);
    let deadline = Instant::now() + Duration::from_mins(10);
    let answer = scene.evidence.answer(&scene.question(), deadline, at_least(1)).await;
    assert_eq!(codes(&answer), [Code::DeadlineExceeded]);
    assert!(deadline.duration_since(Instant::now()) > Duration::from_mins(9));
    scene.memory.hold(false);
    assert_eq!(signers(&scene.ask(1).await.facts), 1, "and is begun anew");
    assert_eq!(scene.searches(), 2);
}

#[tokio::test(start_paused = true)]
async fn waiters_with_different_needs_share_a_search() {
    let scene = Scene::new();
    scene.sign();
    scene.sign_too();
    scene.memory.hold(true);
    let (little, much) = tokio::join!(scene.ask(1), async {
        sleep(Duration::from_millis(10)).await;
        let more = scene.ask(2);
        tokio::pin!(more);
        tokio::select! {
            biased;
            answer = &mut more => answer,
            () = sleep(Duration::from_millis(10)) => {
                scene.memory.hold(false);
                more.await
            }
        }
    });
    assert!(signers(&little.facts) >= 1);
    assert_eq!(signers(&much.facts), 2);
    assert_eq!(scene.searches(), 1);
}

#[tokio::test(start_paused = true)]
async fn x_102_a_panic_is_an_answer_and_the_next_one_is_served() {
    let scene = Scene::new();
    scene.sign();
    scene.memory.change(|state| state.panics.insert("referrers".to_owned()));
    let (one, two) = tokio::join!(scene.ask(1), scene.ask(1));
    assert_eq!((codes(&one), codes(&two)), (vec![Code::InternalError], vec![Code::InternalError]));
    scene.memory.change(|state| state.panics.clear());
    assert_eq!(signers(&scene.ask(1).await.facts), 1);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_whose_closure_panics_harms_no_other() {
    let scene = Scene::new();
    scene.sign();
    let (evidence, question) = (scene.evidence.clone(), scene.question());
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let bad: Enough = Arc::new(move |_| {
        assert!(counted.fetch_add(1, Ordering::Relaxed) > 1000, "made to panic");
        false
    });
    let deadline = Instant::now() + Duration::from_secs(5);
    let first = tokio::spawn(async move { evidence.answer(&question, deadline, bad).await });
    let answer = scene.ask(1).await;
    assert_eq!(signers(&answer.facts), 1);
    assert!(first.await.is_err(), "its own task may end so");
    assert!(calls.load(Ordering::Relaxed) > 0);
    assert_eq!(signers(&scene.ask(1).await.facts), 1);
}
