//! Registries that know a manifest only by the right `Accept`: whatever kind of image it is, it is judged, and
//! never taken for one that is not there.

use crate::caller::{Effect, FailurePolicy, pod};
use crate::gate::{Gate, Listed};
use crate::sample::{Contents, Key, Shape, Signed, Stage, shape, signed};
use crate::wire::{Asked, Auth, Door, Reply, Script, Server, Spoil};

/// What an image's manifest can be.
const TYPES: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

fn names_all(asked: &Asked) -> bool {
    let named: Vec<&str> = asked.header("accept").unwrap_or_default().split(',').map(str::trim).collect();
    TYPES.iter().all(|wanted| named.contains(wanted))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x_140_a_registry_that_answers_404_to_a_narrow_accept_is_asked_for_all_four_types() {
    let _alone = crate::ALONE.lock().await;
    let key = Key::new();
    let mut contents = Contents::default();
    let shapes: [(&str, Shape); 4] = [
        ("oci-manifest", shape::plain),
        ("oci-index", shape::index_of_one),
        ("docker-manifest", shape::docker),
        ("docker-list", shape::docker_list),
    ];
    // Each once signed, in either format, and once not: both are verdicts about an image that was found.
    let evidence: [(&str, Signed, &str); 3] =
        [("bundle", signed::bundle, ""), ("sig", signed::sig, ""), ("unsigned", signed::not_at_all, "unsigned")];
    let mut images = Vec::new();
    for (kind, shape) in shapes {
        for (how, hang, want) in evidence {
            let name = format!("{kind}-{how}");
            let image = shape(&mut contents, &format!("release/{name}"), &name);
            hang(&mut contents, &image, &key);
            images.push((name, image, want));
        }
    }
    let strict: Spoil = std::sync::Arc::new(|asked, honest, _| {
        if names_all(asked) { honest.whole() } else { Reply::error(404, "MANIFEST_UNKNOWN").whole() }
    });
    let server = Server::start(Script {
        contents,
        tls: None,
        auth: Auth::None,
        canary: String::new(),
        door: Door::Open,
        spoil: Some((Stage::Image, strict)),
        traps: Default::default(),
        storage: String::new(),
    })
    .await;
    server.switch_on().await;
    let host = server.host();

    // It is strict: whoever names one type alone, be it the very one of the image, finds nothing.
    let client =
        reqwest::Client::builder().no_proxy().timeout(std::time::Duration::from_secs(30)).build().expect("client");
    let url = format!("http://{host}/v2/{}/manifests/{}", images[0].1.repository, images[0].1.digest);
    for (accept, status) in [(TYPES[0].to_owned(), 404), (TYPES[1].to_owned(), 404), (TYPES.join(", "), 200)] {
        let answer = client.get(&url).header("Accept", &accept).send().await.expect("an answer");
        assert_eq!(answer.status(), status, "{accept}");
    }
    let asked_by_us = server.asked().len();

    let gate = Gate::start(&key, std::slice::from_ref(&host), &[Listed::plain(host.clone())]).await;
    for (name, image, want) in &images {
        let called = gate.caller.review(&pod(name, &[image.at(&host)]), 30).await;
        let effect = if want.is_empty() { Effect::Admitted } else { Effect::Denied };
        assert_eq!(
            (called.effect(FailurePolicy::Fail), called.codes()),
            (effect, *want),
            "{name}: {}",
            called.message()
        );
    }
    let asked = server.asked().split_off(asked_by_us);
    let manifests: Vec<&Asked> = asked.iter().filter(|asked| asked.path().contains("/manifests/")).collect();
    assert!(manifests.len() >= images.len(), "{manifests:?}");
    let narrow: Vec<_> = manifests.iter().filter(|asked| !names_all(asked)).collect();
    assert!(narrow.is_empty(), "{narrow:?}");
    assert!(gate.end().await.status.success());
}
