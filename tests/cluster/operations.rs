//! Running it: a webhook by URL, policies and certificates that change under it, an end that loses nothing.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::objects::{pod, spec};
use super::support::https::Caller;
use super::support::images::Image;
use super::support::process::Done;
use super::support::provost::{Provost, Setup};
use super::support::registry::settings;
use super::support::{net, wait};
use super::world::{Gate, Request, Want, policy, world};

const APP: &str = "spec.containers[0]";

/// A setup like the shared one, whose policy governs one namespace.
fn setup(setup: Setup, namespace: &str) -> Setup {
    let world = world();
    setup
        .registries(settings(&world.registry, None))
        .policy("keys/release.pub", world.images.release.pem())
        .policy("keys/mallory.pub", world.images.mallory.pem())
        .policy("own.yaml", policy("own", namespace, "enforce", &world.registry.host))
}

#[test]
fn c_11_a_webhook_by_url() {
    let world = world();
    let namespace = "own-url";
    let provost = setup(Setup::on_loopback(), namespace).start();
    let change = json!({"clientConfig": {"url": format!("https://{}{}", provost.listen, provost.path())}});
    let ca = provost.certificates.ca();
    let gate = world.own_gate(namespace, provost, &ca, &change);
    for (name, image, want) in [
        ("good", world.images.signed.pinned(), Want::Admit),
        ("tag", world.images.signed.tagged(), Want::Deny(&[("not-digest-pinned", APP)])),
        ("bad", world.images.unsigned.pinned(), Want::Deny(&[("unsigned", APP)])),
    ] {
        let done = world.create(namespace, &pod(name, &spec(&image)), &[]);
        gate.check(&world.cluster, &Request::new("create", namespace, "pods", name), &done, want);
    }
}

/// How a pod with an image would end now.
fn dry_run(namespace: &str, name: &str, image: &Image) -> Done {
    world().create(namespace, &pod(name, &spec(&image.pinned())), &["--dry-run=server"])
}

#[test]
fn x_081_x_091_policies_are_taken_over_without_a_restart() {
    let world = world();
    let namespace = "own-reload";
    let provost = setup(Setup::behind_service(namespace), namespace).start();
    let ca = provost.certificates.ca();
    let gate = world.own_gate(namespace, provost, &ca, &json!(null));
    let now = |name: &str, image: &Image, want| {
        let done = dry_run(namespace, name, image);
        let request = Request { dry_run: true, ..Request::new("create", namespace, "pods", name) };
        gate.check(&world.cluster, &request, &done, want);
    };
    let comes_to = |image: &Image, code: &str| {
        wait::until(&format!("{code} after a change of policy"), Duration::from_secs(30), || {
            let done = dry_run(namespace, "asked", image);
            (if code.is_empty() { done.code == 0 } else { done.stderr.contains(&format!(": {code}, ")) }).then_some(())
        });
    };
    let (signed, by_mallory) = (&world.images.signed, &world.images.wrong_key);
    now("first", signed, Want::Admit);
    now("first-twin", by_mallory, Want::Deny(&[("wrong-signer", APP)]));

    // Another key: the same images, the same evidence, the other verdicts.
    let text = gate.file("policies/own.yaml");
    gate.provost.write_policy("own.yaml", &text.replace("keys/release.pub", "keys/mallory.pub"));
    comes_to(signed, "wrong-signer");
    now("second", signed, Want::Deny(&[("wrong-signer", APP)]));
    now("second-twin", by_mallory, Want::Admit);

    // Broken: the last good one goes on, and a metric says so.
    let failures = || gate.provost.metric("provost_policy_load_failures_total", &[]);
    let before = failures();
    gate.provost.write_policy("own.yaml", &text.replace("signers", "singers"));
    wait::until("the failure is counted", Duration::from_secs(30), || (failures() > before).then_some(()));
    now("third", signed, Want::Deny(&[("wrong-signer", APP)]));
    now("third-twin", by_mallory, Want::Admit);
    assert!(gate.provost.is_ready(), "C-45: a broken policy does not make it unready");

    // Mended, then gone.
    gate.provost.write_policy("own.yaml", &text);
    comes_to(signed, "");
    now("fourth-twin", by_mallory, Want::Deny(&[("wrong-signer", APP)]));
    fs::remove_file(gate.provost.folder.join("policies/own.yaml")).expect("it is there");
    wait::until("no policy is left", Duration::from_secs(30), || {
        dry_run(namespace, "asked", signed).stderr.contains("no-policy").then_some(())
    });
    now("fifth", signed, Want::Deny(&[("no-policy", "")]));

    // Every change is in the ledger, with what the policy was and is.
    let changes: Vec<Value> = gate.provost.records(&["--verdict", "policies-changed"]);
    assert!(changes.len() >= 4, "{changes:?}");
    assert!(changes.iter().all(|change| change.to_string().contains("own")), "{changes:?}");
}

/// An `AdmissionReview` as the API server sends it.
fn review(namespace: &str, image: &str) -> String {
    json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "6d1f0c3a-52be-4e0b-9a57-0c8a4e1b7f20",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "name": "app",
            "namespace": namespace,
            "operation": "CREATE",
            "userInfo": {"username": "dev@acme.example", "groups": ["developers"]},
            "object": pod("app", &spec(image)),
            "oldObject": null,
            "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    })
    .to_string()
}

/// Callers that send one review after the other over connections that they keep, and never send one again.
struct Load {
    stop: AtomicBool,
    answered: AtomicUsize,
    /// Asked to close, and closed, in this many answers.
    closing: AtomicUsize,
}

impl Load {
    fn new() -> Self {
        Self { stop: AtomicBool::new(false), answered: AtomicUsize::new(0), closing: AtomicUsize::new(0) }
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Tells the callers to stop when it is dropped, so that a test that fails does not wait for them for ever.
    fn until_dropped(&self) -> Stop<'_> {
        Stop(self)
    }

    /// Until told to stop, or until nobody takes connections any more: then `Ok(true)`. An error is a review that was
    /// sent and not answered as it must be.
    fn run(&self, caller: &Caller, body: &str, new_connection_every: usize) -> Result<bool, String> {
        let mut connection = None;
        let mut used = 0;
        while !self.stop.load(Ordering::Relaxed) {
            if used % new_connection_every == 0 {
                connection = None;
            }
            let mut kept = match connection.take() {
                Some(kept) => kept,
                None => match caller.connect() {
                    Ok(new) => new,
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => return Ok(true),
                    Err(error) => return Err(format!("no connection: {error}")),
                },
            };
            used += 1;
            let answer = kept.post("/validate?timeout=10s", body).map_err(|error| format!("no answer: {error}"))?;
            if answer.status != 200 || !answer.body.contains("\"allowed\":true") {
                return Err(format!("{answer:?}"));
            }
            self.answered.fetch_add(1, Ordering::Relaxed);
            if answer.closes {
                self.closing.fetch_add(1, Ordering::Relaxed);
            } else {
                connection = Some(kept);
            }
        }
        Ok(false)
    }
}

struct Stop<'a>(&'a Load);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

#[test]
fn c_42_certificates_are_swapped_under_load() {
    const SWAPS: usize = 5;
    let world = world();
    let namespace = "own-swap";
    let provost = setup(Setup::behind_service(namespace), namespace).start();
    let mounted = &provost.certificates;
    let names: Vec<String> = (0..SWAPS).map(|index| format!("..swap-{index}")).collect();
    let mut roots = mounted.ca();
    for name in &names {
        mounted.make(name);
        roots += &fs::read_to_string(mounted.file(name, "ca.crt")).expect("just made");
    }
    // One whose key does not fit.
    mounted.make("..mismatched");
    fs::copy(mounted.file("..first", "tls.key"), mounted.file("..mismatched", "tls.key")).expect("just made");
    let gate = world.own_gate(namespace, provost, &roots, &json!(null));
    let mounted = &gate.provost.certificates;
    let caller = Caller::new(gate.provost.listen, &gate.provost.certificates.name, &roots);
    let body = review(namespace, &world.images.signed.pinned());
    let shown = || caller.connect().expect("it serves").certificate();
    let on_disk = |name: &str| der(&fs::read_to_string(mounted.file(name, "tls.crt")).expect("made"));
    let load = Load::new();
    thread::scope(|scope| {
        let load = &load;
        let (caller, body) = (&caller, &body);
        let callers: Vec<_> = [1, 7, 1000].map(|every| scope.spawn(move || load.run(caller, body, every))).into();
        let stop = load.until_dropped();
        for (index, name) in names.iter().enumerate() {
            if index == SWAPS - 1 {
                // The pair that does not fit is not taken over: the one before goes on.
                let failed = || gate.provost.server.log().contains("key");
                let before = shown();
                mounted.swap_to("..mismatched");
                wait::until("it is told that the pair does not fit", Duration::from_secs(15), || {
                    failed().then_some(())
                });
                assert_eq!(shown(), before);
            }
            mounted.swap_to(name);
            let begun = Instant::now();
            let wanted = on_disk(name);
            wait::until(&format!("{name} is served"), Duration::from_secs(15), || (shown() == wanted).then_some(()));
            assert!(begun.elapsed() < Duration::from_secs(10), "C-42 says 5 s: {:?}", begun.elapsed());
            // The API server goes on as well.
            let done = dry_run(namespace, name.trim_start_matches('.'), &world.images.signed);
            let request =
                Request { dry_run: true, ..Request::new("create", namespace, "pods", name.trim_start_matches('.')) };
            gate.check(&world.cluster, &request, &done, Want::Admit);
        }
        drop(stop);
        for caller in callers {
            assert_eq!(caller.join().expect("a caller"), Ok(false));
        }
    });
    assert!(load.answered() > 100, "{} reviews", load.answered());
}

/// The first certificate of a PEM text.
fn der(pem: &str) -> Vec<u8> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM").to_vec()
}

#[test]
fn c_44_sigterm_drains_and_loses_nothing() {
    let world = world();
    let namespace = "own-drain";
    let provost = setup(Setup::behind_service(namespace), namespace).drain("5s").start();
    let ca = provost.certificates.ca();
    let gate = world.own_gate(namespace, provost, &ca, &json!(null));
    let caller = Caller::new(gate.provost.listen, &gate.provost.certificates.name, &ca);
    let body = review(namespace, &world.images.signed.pinned());
    let load = Load::new();
    let provost = &gate.provost;
    thread::scope(|scope| {
        let load = &load;
        let (caller, body) = (&caller, &body);
        let callers: Vec<_> = (0..4).map(|_| scope.spawn(move || load.run(caller, body, usize::MAX))).collect();
        let _stop = load.until_dropped();
        wait::until("reviews run", Duration::from_secs(30), || (load.answered() > 50).then_some(()));
        let begun = Instant::now();
        provost.server.ask_to_end();
        // At once, and for as long as it still serves.
        let unready = || net::get(provost.health, "/readyz").is_some_and(|(status, _)| status == 503);
        wait::until("it says that it is not ready", Duration::from_secs(5), || unready().then_some(()));
        let at_the_signal = load.answered();
        // The API server still reaches it, as one that has not heard yet does.
        let done = dry_run(namespace, "late", &world.images.signed);
        let request = Request { dry_run: true, ..Request::new("create", namespace, "pods", "late") };
        check_late(&gate, &request, &done);
        let status = provost.server.ended(Duration::from_secs(30));
        assert!(status.success(), "{status}\n{}", provost.server.log());
        assert!(begun.elapsed() >= Duration::from_secs(5), "it drains for 5 s: {:?}", begun.elapsed());
        for caller in callers {
            assert_eq!(caller.join().expect("a caller"), Ok(true), "{}", provost.server.log());
        }
        assert!(load.answered() > at_the_signal + 10, "it serves while it drains");
    });
    assert!(load.closing.load(Ordering::Relaxed) >= 4, "every connection is told to close");
    let (holds, told) = provost.verify_ledger(&[]);
    assert!(holds, "{told}");
    let records = provost.records(&[]);
    assert_eq!(records.last().map(|record| &record["event"]["type"]), Some(&json!("stopped")), "{records:?}");
    let reviews = records.iter().filter(|record| record["event"]["verdict"] == "admit").count();
    assert!(reviews >= load.answered(), "{reviews} records of {} answered reviews", load.answered());
}

/// The ledger can be asked while its writer still runs.
fn check_late(gate: &Gate, request: &Request<'_>, done: &Done) {
    gate.check(&world().cluster, request, done, Want::Admit);
}

#[test]
fn c_44_with_no_time_to_drain_it_ends_at_once() {
    let provost: Provost = setup(Setup::on_loopback(), "nowhere").start();
    let begun = Instant::now();
    let status = provost.end();
    assert!(status.success(), "{status}\n{}", provost.server.log());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
