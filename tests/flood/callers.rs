//! C-08 and X-132 at the running program: who is known may use the operator's credentials, and nobody else.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use provost::edge::samples::SampleKey;
use tokio::time::timeout;

use crate::program::{ALONE, LONGEST, Program, Registry, call, review, swap};

const CREDENTIALS: &str = ", credentialsFile: config.json";

#[tokio::test(flavor = "multi_thread")]
async fn c_08_x_132_a_stranger_is_judged_and_trusted_with_nothing() {
    let _beside_each_other = ALONE.read().await;
    let key = SampleKey::generate().expect("a key");
    let (private, public) = (Registry::start(&key, 1, true).await, Registry::start(&key, 1, false).await);
    let program = Program::start(&key, &[(&private, CREDENTIALS), (&public, "")], "", &[]).await;
    let token = program.token();
    let mode = std::fs::metadata(program.file("caller-token")).expect("made").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "the first start made it");
    let client = program.client().build().expect("a client");
    let ask = async |uid: &str, target: &str, image: &str| {
        call(&client, &program.url(target), uid, review(uid, &[image])).await
    };
    let known = format!("/validate/{token}");
    let wrong = format!("/validate/{}", token.replace(|c: char| c.is_ascii_digit(), "f"));

    ask("u1", "/validate", &private.images[0]).await.assert_denied("registry-auth-failed");
    ask("u2", &wrong, &private.images[0]).await.assert_denied("registry-auth-failed");
    assert_eq!(private.asked.load(Ordering::Acquire), 0, "nothing was asked for a stranger");
    ask("u3", &known, &private.images[0]).await.assert_admitted();
    // What was proven for a caller that is known proves nothing to a stranger.
    ask("u4", "/validate", &private.images[0]).await.assert_denied("registry-auth-failed");
    ask("u5", "/validate", &public.images[0]).await.assert_admitted();
    ask("u6", &known, &public.images[0]).await.assert_admitted();
    assert!((program.metric("provost_callers_unknown_total").await - 4.0).abs() < 0.5);

    let log = program.log();
    assert!(!log.contains(&token), "a token is never logged");
    assert!(log.contains("/validate/<token>") && log.contains("caller-token"), "{log}");
    let events = program.stop().await;
    let callers: Vec<(&str, &str)> = events
        .iter()
        .filter(|event| event["type"] == "review")
        .filter_map(|event| Some((event["uid"].as_str()?, event["caller"].as_str()?)))
        .collect();
    let want =
        [("u1", "unknown"), ("u2", "unknown"), ("u3", "token"), ("u4", "unknown"), ("u5", "unknown"), ("u6", "token")];
    assert_eq!(callers, want);
    assert!(!events.iter().any(|event| event.to_string().contains(&token)), "nor recorded");
}

#[tokio::test(flavor = "multi_thread")]
async fn c_08_a_token_is_rotated_under_load_and_no_call_fails() {
    let _beside_each_other = ALONE.read().await;
    let key = SampleKey::generate().expect("a key");
    let private = Registry::start(&key, 1, true).await;
    let program = Arc::new(Program::start(&key, &[(&private, CREDENTIALS)], "", &[]).await);
    let (old, new) = (program.token(), "a-new-token-0123456789".to_owned());
    let over = Arc::new(AtomicBool::new(false));
    let rotated = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn({
        let (program, over, rotated) = (Arc::clone(&program), Arc::clone(&over), Arc::clone(&rotated));
        let image = private.images[0].clone();
        let (old, new) = (old.clone(), new.clone());
        async move {
            let client = program.client().build().expect("a client");
            let mut calls = 0;
            while !over.load(Ordering::Acquire) {
                // Who registers takes the new one once it is accepted.
                let token = if rotated.load(Ordering::Acquire) { &new } else { &old };
                let uid = format!("load-{calls}");
                let url = program.url(&format!("/validate/{token}"));
                call(&client, &url, &uid, review(&uid, &[&image])).await.assert_admitted();
                calls += 1;
            }
            calls
        }
    });
    let client = program.client().build().expect("a client");
    let admitted = async |token: &str| {
        let url = program.url(&format!("/validate/{token}"));
        call(&client, &url, "probe", review("probe", &[&private.images[0]])).await.codes().is_empty()
    };
    let until = async |token: &str, want: bool| {
        let reached = timeout(LONGEST, async {
            while admitted(token).await != want {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        reached.await.expect("taken over in time");
    };
    assert!(admitted(&old).await && !admitted(&new).await);
    swap(&program.file("caller-token"), &format!("{new}\n{old}\n"));
    until(&new, true).await;
    assert!(admitted(&old).await, "both are served meanwhile");
    rotated.store(true, Ordering::Release);
    // The caller of the load may be within its last call with the old one.
    tokio::time::sleep(Duration::from_millis(500)).await;
    swap(&program.file("caller-token"), &format!("{new}\n"));
    until(&old, false).await;
    assert!(admitted(&new).await);
    over.store(true, Ordering::Release);
    assert!(load.await.expect("no call failed") > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn c_08_with_a_client_ca_whoever_shows_no_certificate_of_it_is_refused_in_the_handshake() {
    let _beside_each_other = ALONE.read().await;
    let key = SampleKey::generate().expect("a key");
    let private = Registry::start(&key, 1, true).await;
    let ca = tempfile::tempdir().expect("a temporary folder");
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().expect("a key")).expect("a CA");
    let identity = |name: &str| {
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let key = rcgen::KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &issuer).expect("a certificate");
        reqwest::Identity::from_pem(format!("{}{}", cert.pem(), key.serialize_pem()).as_bytes()).expect("a pair")
    };
    let file = ca.path().join("callers.crt");
    std::fs::write(&file, issuer.pem()).expect("written");
    let file = file.display().to_string();
    let args = ["--client-ca", file.as_str(), "--client-subject", "kube-apiserver"];
    let program = Program::start(&key, &[(&private, CREDENTIALS)], "", &args).await;
    assert!(!program.file("caller-token").exists(), "nobody needs a token here");
    let body = || review("u1", &[&private.images[0]]);
    let url = program.url("/validate");
    let right = program.client().identity(identity("kube-apiserver")).build().expect("a client");
    call(&right, &url, "u1", body()).await.assert_admitted();
    for (what, client) in
        [("another subject", program.client().identity(identity("kubelet"))), ("no certificate", program.client())]
    {
        let outcome = call(&client.build().expect("a client"), &url, "u1", body()).await;
        assert_eq!(outcome.status, None, "{what}");
    }
    assert!(program.metric("provost_tls_failures_total").await > 1.5);
    let events = program.stop().await;
    let callers: Vec<_> =
        events.iter().filter(|event| event["type"] == "review").map(|event| &event["caller"]).collect();
    assert_eq!(callers, ["certificate"]);
}
