//! Addresses and redirects: where the client goes, and where it does not.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::scripted::{Server, budget, digest, ok, plain, redirect, settings, status};
use super::super::{HostSettings, ManifestRef, Names, Referrers, Settings};
use super::{app, client, image, pull, registry, told};
use crate::decision::code::Code;
use crate::decision::reference::Repository;

const BODY: &str = "a blob";

/// Settings under which every name is at 127.0.0.1.
fn all_on_loopback() -> Settings {
    Settings { names: Some(Names::new(|_| Some(vec![IpAddr::from([127, 0, 0, 1])]))), ..settings([]) }
}

#[tokio::test]
async fn x_045_unlisted_hosts_are_reached_at_public_addresses_only() {
    let server = Server::start(|_| Some(ok(BODY))).await;
    for host in [server.host(), format!("r.example:{}", server.port()), format!("[::1]:{}", server.port())] {
        let repository: Repository = format!("{host}/team/app").parse().expect("repository");
        let by = ManifestRef::Digest(digest(BODY));
        let (code, text) = told(client(&all_on_loopback()).manifest(&repository, &by, &budget()).await);
        assert_eq!(code, Code::AddressRefused, "{text}");
        assert!(text.contains("a loopback address: refused unless provost.yaml lists it under registries."), "{text}");
    }
    assert_eq!(server.asked(), Vec::<String>::new());
    // The twin: the same name, listed.
    let mut listed = all_on_loopback();
    let host = format!("r.example:{}", server.port());
    listed.hosts.insert(host.parse().expect("host"), plain());
    let repository: Repository = format!("{host}/team/app").parse().expect("repository");
    assert!(client(&listed).manifest(&repository, &ManifestRef::Digest(digest(BODY)), &budget()).await.is_ok());
}

#[tokio::test]
async fn x_032_odd_spellings_of_an_address_are_no_hosts() {
    let server = Server::start(|_| Some(ok(BODY))).await;
    for name in ["0x7f.0.0.1", "0x7f000001", "2130706433", "127.1", "0177.0.0.1", "127.0.0.01"] {
        let host = format!("{name}:{}", server.port());
        let mut listed = settings([host.as_str()]);
        listed.names = all_on_loopback().names;
        let repository: Repository = format!("{host}/team/app").parse().expect("repository");
        let by = ManifestRef::Digest(digest(BODY));
        let (code, text) = told(client(&listed).manifest(&repository, &by, &budget()).await);
        assert_eq!(code, Code::AddressRefused, "{name}: {text}");
    }
    assert_eq!(server.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn x_045_a_name_that_changes_its_address_is_checked_each_time() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let server = Server::start(|_| Some(status(503))).await;
    let host = format!("r.example:{}", server.port());
    let mut moving = settings([host.as_str()]);
    moving.hosts.insert(
        host.parse().expect("host"),
        HostSettings { addresses: vec!["127.0.0.1".parse().expect("network")], ..plain() },
    );
    moving.names = Some(Names::new(|_| {
        let first = ASKED.fetch_add(1, Ordering::Relaxed) == 0;
        Some(vec![if first { [127, 0, 0, 1].into() } else { [169, 254, 169, 254].into() }])
    }));
    let registry = client(&moving);
    let repository: Repository = format!("{host}/team/app").parse().expect("repository");
    let other: Repository = format!("{host}/team/other").parse().expect("repository");
    let by = ManifestRef::Digest(digest(BODY));
    // The first answer serves as long as its connection does; the second leads nowhere.
    let (code, _) = told(registry.manifest(&repository, &by, &budget()).await);
    assert_eq!(code, Code::EvidenceUnavailable);
    drop(server);
    let failure = loop {
        let failure = registry.manifest(&other, &by, &budget()).await.expect_err("never served");
        if failure.code() == Code::AddressRefused {
            break failure;
        }
        tokio::task::yield_now().await;
    };
    assert!(failure.to_string().contains("is at 169.254.169.254, a cloud metadata address"), "{failure}");
}

#[tokio::test]
async fn x_045_plain_http_is_for_the_hosts_that_ask_for_it() {
    let server = Server::start(|_| Some(ok(BODY))).await;
    let host = server.host();
    let mut secure = settings([host.as_str()]);
    secure.hosts.insert(host.parse().expect("host"), HostSettings { plain_http: false, ..plain() });
    let (code, text) = told(pull(&client(&secure), &server, digest(BODY)).await);
    assert_eq!(code, Code::EvidenceUnavailable, "https to a server without it: {text}");
    assert!(text.starts_with(&format!("TLS with {host} failed")), "{text}");
    assert_eq!(server.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn redirects_are_followed_three_times_on_one_host() {
    let server = Server::start(|seen| {
        let hop: usize = seen.target.split("hop=").nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
        let last = if seen.path().contains(&digest("far").to_string()) { 4 } else { 3 };
        Some(if hop == last { ok(BODY) } else { redirect(307, &format!("{}?hop={}", seen.path(), hop + 1)) })
    })
    .await;
    let registry = registry(&[&server]);
    assert!(pull(&registry, &server, digest(BODY)).await.is_ok());
    assert_eq!(server.seen().len(), 4);
    let (code, text) = told(pull(&registry, &server, digest("far")).await);
    assert_eq!((code, server.seen().len()), (Code::AddressRefused, 8), "{text}");
    assert!(text.contains("more than 3 times"), "{text}");
}

#[tokio::test]
async fn x_045_a_redirect_loop_ends() {
    let server = Server::start(|seen| Some(redirect(302, &seen.target))).await;
    let (code, _) = told(pull(&registry(&[&server]), &server, digest(BODY)).await);
    assert_eq!((code, server.seen().len()), (Code::AddressRefused, 4));
}

#[tokio::test]
async fn x_045_redirects_lead_to_no_unlisted_address_and_no_other_scheme() {
    let inside = Server::start_on("127.0.0.2", None, |_| Some(ok(BODY))).await;
    let targets = [
        format!("http://{}/secret", inside.host()),
        format!("//{}/secret", inside.host()),
        format!("https://{}/secret", inside.host()),
        format!("https://name.example:{}/secret", inside.port()),
        format!("https://0x7f000002:{}/secret", inside.port()),
        format!("https://user@{}/secret", inside.host()),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "https://169.254.169.254/latest/meta-data".to_owned(),
        "https://[::ffff:169.254.169.254]/".to_owned(),
        "https://[::1]/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "ftp://r.example/".to_owned(),
        "gopher:x".to_owned(),
        String::new(),
    ];
    for target in targets {
        let shown = target.clone();
        let server = Server::start(move |_| Some(redirect(307, &target))).await;
        let mut settings = all_on_loopback();
        settings.hosts.insert(server.host().parse().expect("host"), plain());
        let registry = client(&settings);
        for result in [
            pull(&registry, &server, digest(BODY)).await.map(|_| ()),
            registry.blob(&app(&server), digest(BODY), 6, 6, &budget()).await.map(|_| ()),
        ] {
            let (code, text) = told(result);
            assert_eq!(code, Code::AddressRefused, "{shown}: {text}");
            assert!(!text.contains("secret"), "an address may carry its authorization: {text}");
        }
    }
    assert_eq!(inside.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn x_045_plain_http_ends_at_its_own_host() {
    let storage = Server::start_on("127.0.0.2", None, |_| Some(ok(BODY))).await;
    let target = format!("http://{}/blob", storage.host());
    let server = Server::start(move |_| Some(redirect(307, &target))).await;
    // The other host is listed with its address, but not for plain http.
    let host = storage.host();
    let mut settings = settings([server.host().as_str()]);
    settings.hosts.insert(host.parse().expect("host"), HostSettings { plain_http: false, ..plain() });
    let (code, text) = told(pull(&client(&settings), &server, digest(BODY)).await);
    assert_eq!(code, Code::AddressRefused, "{text}");
    assert_eq!(storage.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn x_043_a_redirect_without_one_location_is_no_answer() {
    for answer in [status(307), super::super::scripted::with(redirect(307, "/a"), "location", "/b")] {
        let headers = answer.headers().clone();
        let server = Server::start(move |_| {
            let mut response = status(307);
            *response.headers_mut() = headers.clone();
            Some(response)
        })
        .await;
        let (code, text) = told(pull(&registry(&[&server]), &server, digest(BODY)).await);
        assert_eq!(code, Code::EvidenceUnavailable, "{text}");
        assert!(text.ends_with("answers 307 without one Location"), "{text}");
    }
}

#[tokio::test]
async fn referrers_behind_another_host_are_no_api() {
    let other = Server::start_on("127.0.0.2", None, |_| Some(ok(BODY))).await;
    let target = format!("http://{}/login", other.host());
    let server = Server::start(move |_| Some(redirect(303, &target))).await;
    let registry = registry(&[&server, &other]);
    let image = image(&server, digest("image"));
    assert_eq!(registry.referrers(&image, &budget()).await, Ok(Referrers::NoApi));
    assert_eq!(other.asked(), Vec::<String>::new(), "never followed");
    // Remembered: nothing is asked again.
    assert_eq!(registry.referrers(&image, &budget()).await, Ok(Referrers::NoApi));
    assert_eq!(server.seen().len(), 1);
    assert_eq!(registry.has_referrers_api(image.repository().host()).await, Some(false));
}
