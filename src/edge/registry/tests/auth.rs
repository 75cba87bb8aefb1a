//! Credentials: who gets them, and who does not.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::http::Response;

use super::super::scripted::{Seen, Server, budget, digest, ok, plain, redirect, settings, status, with};
use super::super::{DockerConfig, HostSettings, ManifestRef, Settings, SettingsError};
use super::{app, client, image, pull, registry, told};
use crate::decision::code::Code;
use crate::decision::reference::Repository;

const BODY: &str = "a manifest";
/// `user:CANARY` in base64.
const BASIC: &str = "Basic dXNlcjpDQU5BUlk=";
const TOKEN: &str = "TOKEN-CANARY";

fn config(key: &str) -> DockerConfig {
    let text = serde_json::json!({ "auths": { key: { "username": "user", "password": "CANARY" } } }).to_string();
    DockerConfig::parse(text.as_bytes()).expect("config").0
}

/// Settings for a plain server with `user:CANARY`.
fn with_credential(server: &Server) -> Settings {
    let mut settings = settings([]);
    let host = server.host();
    let special = HostSettings { credentials: Some(config(&host)), ..plain() };
    settings.hosts.insert(host.parse().expect("host"), special);
    settings
}

/// A registry that wants a token from the realm, and a token service beside it that wants the credential.
fn token_registry(realm: impl Fn(&Seen) -> String) -> impl Fn(&Seen) -> Option<Response<Body>> {
    move |seen| {
        Some(if seen.path() == "/token" {
            if seen.header("authorization") == BASIC {
                ok(format!(r#"{{"token":"{TOKEN}","expires_in":300}}"#))
            } else {
                status(401)
            }
        } else if seen.header("authorization") == format!("Bearer {TOKEN}") {
            ok(BODY)
        } else {
            let challenge =
                format!(r#"Bearer realm="{}",service="a registry",scope="repository:other:*""#, realm(seen));
            with(status(401), "www-authenticate", &challenge)
        })
    }
}

#[tokio::test]
async fn basic_credentials_are_sent_when_they_are_asked_for() {
    let server = Server::start(|seen| {
        Some(match seen.header("authorization") {
            BASIC => ok(BODY),
            _ => with(status(401), "www-authenticate", r#"Basic realm="registry", charset="UTF-8""#),
        })
    })
    .await;
    let registry = client(&with_credential(&server));
    assert!(pull(&registry, &server, digest(BODY)).await.is_ok());
    assert!(pull(&registry, &server, digest(BODY)).await.is_ok());
    let sent: Vec<String> = server.seen().iter().map(|seen| seen.header("authorization").to_owned()).collect();
    assert_eq!(sent, ["", BASIC, BASIC], "asked once, then known");
    let (code, text) = told(pull(&super::registry(&[&server]), &server, digest(BODY)).await);
    assert_eq!(code, Code::RegistryAuthFailed);
    let host = server.host();
    assert_eq!(text, format!("{host} wants a user and a password for {host}/team/app, and none is configured"));
}

#[tokio::test]
async fn a_token_is_fetched_once_for_all_calls_and_for_pulling_only() {
    let server = Server::start(token_registry(|seen| format!("http://{}/token?a=b", seen.header("host")))).await;
    let registry = client(&with_credential(&server));
    let calls = (0..6).map(|_| pull(&registry, &server, digest(BODY)));
    assert!(futures::future::join_all(calls).await.iter().all(Result::is_ok));
    let asked: Vec<Seen> = server.seen().into_iter().filter(|seen| seen.path() == "/token").collect();
    let [token] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!(token.target, "/token?a=b&service=a+registry&scope=repository%3Ateam%2Fapp%3Apull");
    // Another repository is another scope.
    let other: Repository = format!("{}/team/other", server.host()).parse().expect("repository");
    assert!(registry.manifest(&other, &ManifestRef::Digest(digest(BODY)), &budget()).await.is_ok());
    assert_eq!(server.seen().iter().filter(|seen| seen.path() == "/token").count(), 2);
}

#[tokio::test]
async fn an_anonymous_token_is_fetched_without_a_credential() {
    let server = Server::start(|seen| {
        Some(match (seen.path(), seen.header("authorization")) {
            ("/token", "") => ok(r#"{"access_token":"anonymous"}"#),
            ("/token", _) => status(400),
            (_, "Bearer anonymous") => ok(BODY),
            _ => {
                let challenge = format!("bearer REALM=\"http://{}/token\"", seen.header("host"));
                with(status(401), "www-authenticate", &challenge)
            }
        })
    })
    .await;
    assert!(pull(&registry(&[&server]), &server, digest(BODY)).await.is_ok());
}

#[tokio::test]
async fn x_042_a_401_in_a_loop_ends_as_a_failed_authorization() {
    let server = Server::start(|seen| {
        let realm = format!("Bearer realm=\"http://{}/token\"", seen.header("host"));
        Some(if seen.path() == "/token" {
            ok(format!(r#"{{"token":"{TOKEN}"}}"#))
        } else {
            with(status(401), "www-authenticate", &realm)
        })
    })
    .await;
    let registry = client(&with_credential(&server));
    let (code, text) = told(pull(&registry, &server, digest(BODY)).await);
    assert_eq!((code, server.seen().len()), (Code::RegistryAuthFailed, 3), "{text}");
    assert!(text.contains("answers 401") && !text.contains("CANARY"), "{text}");
    // The kept token is refused, a fresh one as well: four more, and no end without an end.
    let (code, _) = told(pull(&registry, &server, digest(BODY)).await);
    assert_eq!((code, server.seen().len()), (Code::RegistryAuthFailed, 6));
}

#[tokio::test]
async fn x_042_no_image_is_missing_where_authorization_is() {
    for (answer, challenge) in [
        (401, None),
        (401, Some("Negotiate abc==")),
        (401, Some("Bearer service=\"x\"")),
        (401, Some("Bearer realm=\"a\", realm=\"b\"")),
        (401, Some("Bearer realm=\"unclosed")),
        (403, None),
    ] {
        let server = Server::start(move |_| {
            Some(match challenge {
                Some(challenge) => with(status(answer), "www-authenticate", challenge),
                None => status(answer),
            })
        })
        .await;
        let registry = client(&with_credential(&server));
        let (code, text) = told(pull(&registry, &server, digest(BODY)).await);
        assert_eq!((code, server.seen().len()), (Code::RegistryAuthFailed, 1), "{challenge:?}: {text}");
        let (code, _) = told(registry.referrers(&image(&server, digest(BODY)), &budget()).await);
        assert_eq!(code, Code::RegistryAuthFailed);
    }
}

#[tokio::test]
async fn a_token_service_that_refuses_is_never_gone_around() {
    for (answer, want) in [
        (status(401), Code::RegistryAuthFailed),
        (status(403), Code::RegistryAuthFailed),
        (status(404), Code::RegistryAuthFailed),
        (redirect(302, "/token2"), Code::RegistryAuthFailed),
        (with(status(429), "retry-after", "0"), Code::RateLimited),
        (status(500), Code::EvidenceUnavailable),
        (ok("{}"), Code::RegistryAuthFailed),
        (ok(r#"{"token":""}"#), Code::RegistryAuthFailed),
        (ok(r#"{"token":"a b"}"#), Code::RegistryAuthFailed),
        (ok(r#"{"token":"a\r\nX: y"}"#), Code::RegistryAuthFailed),
        (ok(r#"{"token":"a","token":"b"}"#), Code::EvidenceUnavailable),
        (ok(r#"{"token":"a"#), Code::EvidenceUnavailable),
        (ok("<html>log in</html>"), Code::EvidenceUnavailable),
        (ok(""), Code::EvidenceUnavailable),
        (ok("x".repeat(64 * 1024 + 1)), Code::BudgetExceeded),
    ] {
        let (parts, body) = answer.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.expect("body");
        let server = Server::start(move |seen| {
            if seen.path() == "/token" {
                let mut response = ok(body.clone());
                *response.status_mut() = parts.status;
                *response.headers_mut() = parts.headers.clone();
                return Some(response);
            }
            let realm = format!("Bearer realm=\"http://{}/token\"", seen.header("host"));
            Some(with(status(401), "www-authenticate", &realm))
        })
        .await;
        let (code, text) = told(pull(&client(&with_credential(&server)), &server, digest(BODY)).await);
        assert_eq!(code, want, "{text}");
        assert!(server.seen().iter().all(|seen| !seen.header("authorization").starts_with("Bearer")), "{text}");
    }
}

#[tokio::test]
async fn x_047_nothing_is_sent_to_a_realm_that_is_not_listed() {
    let thief = Server::start_on("127.0.0.2", None, |_| Some(ok(format!(r#"{{"token":"{TOKEN}"}}"#)))).await;
    let realms = [
        format!("http://{}/token", thief.host()),
        format!("https://{}/token", thief.host()),
        format!("//{}/token", thief.host()),
        format!("http://0x7f000002:{}/token", thief.port()),
        "/token".to_owned(),
        "token".to_owned(),
        String::new(),
    ];
    for realm in realms {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"s\"");
        let server = Server::start(move |_| Some(with(status(401), "www-authenticate", &challenge))).await;
        let mut settings = with_credential(&server);
        settings.hosts.insert(thief.host().parse().expect("host"), plain());
        let (code, text) = told(pull(&client(&settings), &server, digest(BODY)).await);
        assert_eq!((code, server.seen().len()), (Code::RegistryAuthFailed, 1), "{realm}: {text}");
        assert!(!text.contains("CANARY"));
        if realm.starts_with("http://127") {
            assert!(text.contains("that realm is not listed"), "{text}");
        }
    }
    assert_eq!(thief.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn x_047_the_realm_that_the_operator_lists_is_used() {
    let service = Server::start_on("127.0.0.2", None, token_registry(|_| String::new())).await;
    let realm = format!("http://{}/token", service.host());
    let named = realm.clone();
    let server = Server::start(token_registry(move |_| named.clone())).await;
    for (listed, want) in [
        (realm.clone(), true),
        (format!("http://{}", service.host()), true),
        (format!("http://{}/tok", service.host()), false),
        (format!("https://{}/token", service.host()), false),
        ("http://127.0.0.2:1/token".to_owned(), false),
    ] {
        let mut settings = with_credential(&server);
        settings.hosts.insert(service.host().parse().expect("host"), plain());
        if let Some(special) = settings.hosts.get_mut(&server.host().parse().expect("host")) {
            special.realm = Some(listed.clone());
        }
        let result = pull(&client(&settings), &server, digest(BODY)).await;
        assert_eq!(result.is_ok(), want, "{listed}: {result:?}");
    }
    assert!(server.seen().iter().all(|seen| seen.header("authorization") != BASIC), "the registry sees the token only");
}

#[tokio::test]
async fn x_047_a_redirect_takes_no_credential_to_another_host() {
    let storage = Server::start_on("127.0.0.2", None, |_| Some(ok(BODY))).await;
    let target = format!("http://{}/blob", storage.host());
    let server = Server::start(move |seen| {
        Some(match seen.header("authorization") {
            BASIC => redirect(307, &target),
            _ => with(status(401), "www-authenticate", "Basic"),
        })
    })
    .await;
    let mut settings = with_credential(&server);
    // The other host is the operator's own, and has the same credential: still it is not the host that was asked.
    let special = HostSettings { credentials: Some(config(&storage.host())), ..plain() };
    settings.hosts.insert(storage.host().parse().expect("host"), special);
    // Plain http ends at its host: the same with https stands in the TLS tests.
    let (code, _) = told(pull(&client(&settings), &server, digest(BODY)).await);
    assert_eq!(code, Code::AddressRefused);
    assert!(storage.seen().iter().all(|seen| seen.header("authorization").is_empty()));
}

#[tokio::test]
async fn a_kept_token_is_replaced_when_it_is_refused_and_not_used_in_its_last_seconds() {
    static GIVEN: AtomicUsize = AtomicUsize::new(0);
    let server = Server::start(|seen| {
        let given = GIVEN.load(Ordering::Relaxed);
        let realm = format!("Bearer realm=\"http://{}/token\"", seen.header("host"));
        Some(match seen.path() {
            "/token" => {
                GIVEN.store(given + 1, Ordering::Relaxed);
                // The first lives long but is revoked; the later ones are all but over when they come.
                ok(format!(r#"{{"token":"t{given}","expires_in":{}}}"#, if given == 0 { 300 } else { 5 }))
            }
            path if path.ends_with("revoked") && seen.header("authorization") == "Bearer t0" => {
                with(status(401), "www-authenticate", &realm)
            }
            _ if seen.header("authorization").is_empty() => with(status(401), "www-authenticate", &realm),
            _ => ok(BODY),
        })
    })
    .await;
    let registry = registry(&[&server]);
    let tag = |tag: &str| ManifestRef::Tag(tag.parse().expect("tag"));
    for (name, given) in [("a", 1), ("a", 1), ("revoked", 2), ("a", 3), ("a", 4)] {
        assert!(registry.manifest(&app(&server), &tag(name), &budget()).await.is_ok());
        assert_eq!(GIVEN.load(Ordering::Relaxed), given, "{name}");
    }
}

#[tokio::test]
async fn every_credential_that_matches_is_tried_the_most_specific_first() {
    let server = Server::start(|seen| {
        Some(match seen.header("authorization") {
            BASIC => ok(BODY),
            _ => with(status(401), "www-authenticate", "Basic realm=x"),
        })
    })
    .await;
    let host = server.host();
    let text = serde_json::json!({"auths": {
        host.clone(): {"username": "user", "password": "CANARY"},
        format!("{host}/team"): {"username": "team", "password": "old"},
        "127.0.0.9": {"username": "other", "password": "other"},
    }});
    let config = DockerConfig::parse(text.to_string().as_bytes()).expect("config").0;
    let mut settings = settings([]);
    settings.hosts.insert(host.parse().expect("host"), HostSettings { credentials: Some(config), ..plain() });
    let registry = client(&settings);
    assert!(pull(&registry, &server, digest(BODY)).await.is_ok());
    let sent: Vec<String> = server.seen().iter().map(|seen| seen.header("authorization").to_owned()).collect();
    assert_eq!(sent, ["", "Basic dGVhbTpvbGQ=", "", BASIC]);
}

#[tokio::test]
async fn x_049_the_scope_tells_credentials_apart_and_tells_nothing_about_them() {
    let one = Server::start(|_| None).await;
    let repository = app(&one);
    let registry = client(&with_credential(&one));
    let anonymous = super::registry(&[&one]);
    assert_eq!(registry.credential_scope(&repository), registry.clone().credential_scope(&repository));
    assert_ne!(registry.credential_scope(&repository), anonymous.credential_scope(&repository));
    let other: Repository = "r.example/app".parse().expect("repository");
    assert_ne!(registry.credential_scope(&repository), registry.credential_scope(&other));
    let again = client(&with_credential(&one));
    assert_ne!(registry.credential_scope(&repository), again.credential_scope(&repository), "keyed at start");
    assert!(!format!("{registry:?}").contains("CANARY"));
}

#[tokio::test]
async fn c_08_x_132_who_is_lent_nothing_asks_nothing_that_credentials_are_for() {
    let server =
        Server::start(|seen| Some(if seen.header("authorization") == BASIC { ok(BODY) } else { challenge() })).await;
    let lent = client(&with_credential(&server));
    let (code, text) = told(pull(&lent.without_credentials(), &server, digest(BODY)).await);
    assert_eq!(code, Code::RegistryAuthFailed);
    assert!(text.contains("a caller that is not known may not use them"), "{text}");
    assert!(server.seen().is_empty(), "nothing was asked");
    assert!(pull(&lent, &server, digest(BODY)).await.is_ok());
    // Now that the other has a token and a body, there is still nothing for this one.
    let asked = server.seen().len();
    assert_eq!(told(pull(&lent.without_credentials(), &server, digest(BODY)).await).0, Code::RegistryAuthFailed);
    assert_eq!(server.seen().len(), asked);
    let repository = app(&server);
    assert_ne!(lent.credential_scope(&repository), lent.without_credentials().credential_scope(&repository));

    // Its twin: where there are no credentials, both ask and share.
    let open = Server::start(|_| Some(ok(BODY))).await;
    let open_registry = super::registry(&[&open]);
    assert!(pull(&open_registry.without_credentials(), &open, digest(BODY)).await.is_ok());
    let repository = app(&open);
    let scope = open_registry.credential_scope(&repository);
    assert_eq!(scope, open_registry.without_credentials().credential_scope(&repository));
    assert_ne!(scope, lent.without_credentials().credential_scope(&app(&server)));
}

fn challenge() -> Response<Body> {
    with(status(401), "www-authenticate", "Basic realm=x")
}

#[tokio::test]
async fn the_common_config_is_for_hosts_that_are_not_listed() {
    let server =
        Server::start(|seen| Some(if seen.header("authorization") == BASIC { ok(BODY) } else { status(401) })).await;
    let mut settings = settings([server.host().as_str()]);
    settings.docker_config = Some(config(&server.host()));
    let registry = client(&settings);
    let (code, _) = told(pull(&registry, &server, digest(BODY)).await);
    assert_eq!(code, Code::RegistryAuthFailed);
    assert!(server.seen().iter().all(|seen| seen.header("authorization").is_empty()));
}

#[test]
fn settings_that_cannot_be_used_are_refused_by_name() {
    let host = "r.example";
    let with = |special: HostSettings| {
        let mut settings = settings([]);
        settings.hosts.insert(host.parse().expect("host"), special);
        super::super::Registry::new(&settings).map(|_| ()).expect_err("refused").to_string()
    };
    for realm in ["auth.example", "ftp://auth.example", "https://user:CANARY@auth.example", "https://0x7f.1/"] {
        let text = with(HostSettings { realm: Some(realm.to_owned()), ..plain() });
        assert!(text.starts_with("registries.r.example.realm: ") && !text.contains("CANARY"), "{text}");
    }
    let text = with(HostSettings { ca: Some(b"no pem".to_vec()), ..plain() });
    assert_eq!(text, "registries.r.example.ca: holds no certificate");
    let pair = super::super::ClientCert { cert: b"CANARY".to_vec(), key: b"CANARY".to_vec() };
    let text = with(HostSettings { client_cert: Some(pair), ..plain() });
    assert_eq!(text, "registries.r.example.clientCert: not a certificate and its private key in PEM");
    assert_eq!(SettingsError::Random.to_string(), "the system gives no random bytes");
}
