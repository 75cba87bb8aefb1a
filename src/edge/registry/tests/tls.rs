//! TLS: own roots, client certificates, and the certificates that are refused.

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use super::super::scripted::{Server, budget, digest, ok, redirect, settings, with};
use super::super::{ClientCert, DockerConfig, Failure, HostSettings, Manifest, ManifestRef, Names, Settings};
use super::{client, told};
use crate::decision::code::Code;
use crate::decision::reference::Repository;

const BODY: &str = "over TLS";

/// A certificate authority made for one test.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    der: rustls_pki_types::CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("certificate");
        Self { pem: certificate.pem(), der: certificate.der().clone(), issuer: Issuer::new(params, key) }
    }

    /// A leaf for one name: its certificate and its key.
    fn leaf(&self, name: &str, expired: bool, client: bool) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        params.extended_key_usages =
            vec![if client { ExtendedKeyUsagePurpose::ClientAuth } else { ExtendedKeyUsagePurpose::ServerAuth }];
        if expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        (params.signed_by(&key, &self.issuer).expect("certificate"), key)
    }

    fn acceptor(&self, name: &str, expired: bool, clients: Option<&Self>) -> TlsAcceptor {
        let (certificate, key) = self.leaf(name, expired, false);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.der.clone()).expect("root");
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().expect("verifier"))
            }
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = builder.with_single_cert(vec![certificate.der().clone()], key).expect("configuration");
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A host on loopback whose certificate is by this authority.
fn special(authority: &Authority) -> HostSettings {
    HostSettings {
        addresses: vec!["127.0.0.0/8".parse().expect("network")],
        ca: Some(authority.pem.clone().into_bytes()),
        ..HostSettings::default()
    }
}

/// Settings under which every name is at this address.
fn at(address: [u8; 4]) -> Settings {
    Settings { names: Some(Names::new(move |_| Some(vec![IpAddr::from(address)]))), ..settings([]) }
}

async fn pull(settings: &Settings, host: &str) -> Result<Manifest, Failure> {
    let repository: Repository = format!("{host}/team/app").parse().expect("repository");
    client(settings).manifest(&repository, &ManifestRef::Digest(digest(BODY)), &budget()).await
}

#[tokio::test]
async fn x_043_a_certificate_must_be_current_for_this_name_and_by_a_trusted_root() {
    let (authority, other) = (Authority::new(), Authority::new());
    for (name, expired, trusted, want) in [
        ("r.example", false, &authority, true),
        ("s.example", false, &authority, false),
        ("r.example", true, &authority, false),
        ("r.example", false, &other, false),
    ] {
        let acceptor = authority.acceptor(name, expired, None);
        let server = Server::start_on("127.0.0.1", Some(acceptor), |_| Some(ok(BODY))).await;
        let host = format!("r.example:{}", server.port());
        let mut settings = at([127, 0, 0, 1]);
        settings.hosts.insert(host.parse().expect("host"), special(trusted));
        match pull(&settings, &host).await {
            Ok(_) => assert!(want, "{name} {expired}"),
            Err(failure) => {
                assert!(!want, "{name} {expired}: {failure}");
                assert!(matches!(failure, Failure::Unavailable { transient: false, .. }), "not tried again: {failure}");
                assert!(failure.to_string().starts_with(&format!("TLS with {host} failed: ")), "{failure}");
                assert_eq!(server.asked(), Vec::<String>::new());
            }
        }
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_its_host() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let acceptor = authority.acceptor("r.example", false, Some(&clients));
    let server = Server::start_on("127.0.0.1", Some(acceptor), |_| Some(ok(BODY))).await;
    let host = format!("r.example:{}", server.port());
    let (certificate, key) = clients.leaf("provost", false, true);
    let pair = ClientCert { cert: certificate.pem().into_bytes(), key: key.serialize_pem().into_bytes() };
    assert_eq!(format!("{pair:?}"), "ClientCert(***)");
    let mut settings = at([127, 0, 0, 1]);
    let with_pair = HostSettings { client_cert: Some(pair), ..special(&authority) };
    settings.hosts.insert(host.parse().expect("host"), with_pair);
    assert!(pull(&settings, &host).await.is_ok());
    settings.hosts.insert(host.parse().expect("host"), special(&authority));
    let (code, text) = told(pull(&settings, &host).await);
    assert_eq!(code, Code::EvidenceUnavailable, "{text}");
}

/// A registry over TLS that sends us on to storage over TLS.
struct Pair {
    server: Server,
    storage: Server,
    settings: Settings,
    host: String,
}

/// `user:CANARY` is wanted by the registry; storage serves anybody, or nobody where `code` says so.
async fn pair(location: impl Fn(u16) -> String, storage_code: u16) -> Pair {
    let authority = Authority::new();
    let storage = Server::start_on("127.0.0.1", Some(authority.acceptor("s.example", false, None)), move |_| {
        let mut response = with(ok(BODY), "www-authenticate", "Basic realm=x");
        *response.status_mut() = axum::http::StatusCode::from_u16(storage_code).expect("status");
        Some(response)
    })
    .await;
    let target = location(storage.port());
    let server = Server::start_on("127.0.0.1", Some(authority.acceptor("r.example", false, None)), move |seen| {
        Some(match seen.header("authorization") {
            "Basic dXNlcjpDQU5BUlk=" => redirect(307, &target),
            _ => with(super::super::scripted::status(401), "www-authenticate", "Basic realm=x"),
        })
    })
    .await;
    let mut settings = at([127, 0, 0, 1]);
    let host = format!("r.example:{}", server.port());
    for host in [host.clone(), format!("s.example:{}", storage.port())] {
        let text = format!(r#"{{"auths":{{"{host}":{{"username":"user","password":"CANARY"}}}}}}"#);
        let credentials = Some(DockerConfig::parse(text.as_bytes()).expect("config").0);
        settings.hosts.insert(host.parse().expect("host"), HostSettings { credentials, ..special(&authority) });
    }
    Pair { server, storage, settings, host }
}

#[tokio::test]
async fn x_047_a_redirect_to_storage_is_followed_without_a_credential() {
    let pair = pair(|port| format!("https://s.example:{port}/blob?signature=SECRET"), 200).await;
    assert!(pull(&pair.settings, &pair.host).await.is_ok());
    assert_eq!(pair.server.seen().len(), 2);
    let [seen] = &pair.storage.seen()[..] else { panic!("one request") };
    assert_eq!((seen.header("authorization"), seen.header("cookie"), seen.header("referer")), ("", "", ""));
    assert!(!format!("{seen:?}").contains("CANARY"));
}

#[tokio::test]
async fn x_047_storage_that_asks_for_a_credential_gets_none() {
    for (code, want) in [(401, Code::RegistryAuthFailed), (403, Code::RegistryAuthFailed), (404, Code::ImageNotFound)] {
        let pair = pair(|port| format!("https://s.example:{port}/blob?signature=SECRET"), code).await;
        let (got, text) = told(pull(&pair.settings, &pair.host).await);
        assert_eq!(got, want, "{text}");
        assert!(!text.contains("SECRET") && !text.contains("CANARY"), "{text}");
        assert_eq!(pair.storage.seen().len(), 1);
        assert!(pair.storage.seen().iter().all(|seen| seen.header("authorization").is_empty()));
    }
}

#[tokio::test]
async fn x_045_https_never_leads_to_http() {
    for location in ["http://s.example:{}/blob", "http://r.example:{}/blob"] {
        let pair = pair(|port| location.replace("{}", &port.to_string()), 200).await;
        let (code, text) = told(pull(&pair.settings, &pair.host).await);
        assert_eq!(code, Code::AddressRefused, "{text}");
        assert_eq!(pair.storage.asked(), Vec::<String>::new());
    }
}
