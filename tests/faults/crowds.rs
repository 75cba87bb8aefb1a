//! Many images and many pods at once: one check for each image, and no host delays another.

use std::time::Duration;

use futures::StreamExt as _;

use crate::caller::{Effect, FailurePolicy, pod};
use crate::gate::{Gate, Listed};
use crate::sample::{Contents, Key, Stage, shape, signed};
use crate::wire::{Act, Auth, Door, Script, Server, Spoil};

/// Pods of one new digest.
const PODS: usize = 1000;
/// Those of them that are under way at once, each on a connection of its own, beside sixteen others.
const AT_ONCE: usize = 96;

async fn registry(contents: Contents, spoil: Option<(Stage, Spoil)>) -> Server {
    let server = Server::start(Script {
        contents,
        tls: None,
        auth: Auth::None,
        canary: String::new(),
        door: Door::Open,
        spoil,
        traps: Default::default(),
        storage: String::new(),
    })
    .await;
    server.switch_on().await;
    server
}

fn asked(server: &Server, stage: Stage) -> usize {
    server.asked().iter().filter(|asked| asked.stage == stage).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x_096_many_containers_images_and_signatures_end_in_time() {
    let _alone = crate::ALONE.lock().await;
    let key = Key::new();
    let mut contents = Contents::default();
    let good = shape::plain(&mut contents, "release/app", "good");
    signed::bundle(&mut contents, &good, &key);
    let crowd: Vec<_> = (0..65)
        .map(|number| {
            let image = shape::plain(&mut contents, "release/crowd", &number.to_string());
            signed::by_100_others(&mut contents, &image, &key);
            image
        })
        .collect();
    let server = registry(contents, None).await;
    let host = server.host();
    let gate = Gate::start(&key, std::slice::from_ref(&host), &[Listed::plain(host.clone())]).await;

    // 10 000 containers with one image: one check.
    let called = gate.caller.review(&pod("one-image", &vec![good.at(&host); 10_000]), 30).await;
    assert_eq!(called.effect(FailurePolicy::Fail), Effect::Admitted, "{}", called.message());
    assert_eq!((asked(&server, Stage::Image), asked(&server, Stage::Blob)), (1, 1));

    // Over 64 distinct images: nobody is asked.
    let all: Vec<String> = crowd.iter().map(|image| image.at(&host)).collect();
    let called = gate.caller.review(&pod("65-images", &all), 30).await;
    assert_eq!((called.effect(FailurePolicy::Ignore), called.codes()), (Effect::Denied, "budget-exceeded"));
    assert_eq!(asked(&server, Stage::Image), 1);

    // 64 images with 100 signatures each, none by the key: 6 400 checks in vain, of which an object may have 2 000. Each reply
    // comes in time; on a slow machine the first ones come before all is checked, and the check goes on.
    let mut tries = 0;
    let called = loop {
        tries += 1;
        let called = gate.caller.review(&pod(&format!("64-images-{tries}"), &all[..64]), 30).await;
        println!("64 images with 100 signatures each: {} after {:?}", called.codes(), called.took);
        assert_eq!(called.effect(FailurePolicy::Ignore), Effect::Denied, "{}", called.message());
        assert!(called.took < Duration::from_millis(29_800), "{:?}", called.took);
        if !called.codes().contains("deadline-exceeded") {
            break called;
        }
        assert!(tries < 5, "{}", called.message());
    };
    assert_eq!(called.codes(), "budget-exceeded", "{}", called.message());
    // Those that fit into one object are judged by their signatures, whether or not they were asked for with others before:
    // what is known of an image does not depend on its company.
    for (name, images, code) in [
        ("20-known", &all[..20], "wrong-signer"),
        ("20-and-a-new-one", &all[45..], "wrong-signer"),
        ("21-known", &all[..21], "budget-exceeded"),
    ] {
        let called = gate.caller.review(&pod(name, images), 30).await;
        assert_eq!((called.effect(FailurePolicy::Ignore), called.codes()), (Effect::Denied, code), "{name}");
    }
    assert!(gate.end().await.status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x_101_a_thousand_pods_of_one_digest_are_one_fetch_and_a_slow_registry_delays_no_other() {
    let _alone = crate::ALONE.lock().await;
    let key = Key::new();
    let mut contents = Contents::default();
    let image = shape::plain(&mut contents, "release/app", "new");
    signed::bundle(&mut contents, &image, &key);
    let quick = registry(contents.clone(), None).await;
    let dripping: Spoil = std::sync::Arc::new(|_, honest, _| {
        let head = format!("{}Content-Length: {}\r\n\r\n", honest.head(), honest.body.len());
        vec![Act::Send(head.into()), Act::Drip(honest.body)]
    });
    let slow = registry(contents, Some((Stage::Image, dripping))).await;
    let hosts = [quick.host(), slow.host()];
    let listed = hosts.clone().map(Listed::plain);
    let gate = Gate::start(&key, &hosts, &listed).await;

    // Pods of the slow registry are waiting while those of the quick one are judged.
    let waiting: Vec<_> = (0..16)
        .map(|number| {
            let (caller, review) = (gate.caller.clone(), pod(&format!("slow-{number}"), &[image.at(&hosts[1])]));
            tokio::spawn(async move { caller.review(&review, 30).await })
        })
        .collect();
    let (gate_, image_, hosts_) = (&gate, &image, &hosts);
    let called: Vec<_> = futures::stream::iter(0..PODS)
        .map(|number| async move {
            gate_.caller.review(&pod(&format!("quick-{number}"), &[image_.at(&hosts_[0])]), 30).await
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    for called in &called {
        assert_eq!(called.effect(FailurePolicy::Fail), Effect::Admitted, "{}", called.message());
    }
    for stage in [Stage::Image, Stage::Referrers, Stage::SigTag, Stage::Candidate, Stage::Blob] {
        assert_eq!(asked(&quick, stage), 1, "{stage:?}");
    }
    for waiting in waiting {
        assert!(!waiting.is_finished(), "the slow registry was answered for before the quick one");
        waiting.abort();
    }
    assert_eq!(asked(&slow, Stage::Referrers), 1, "sixteen pods wait for one flight");
}
