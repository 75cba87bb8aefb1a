//! `provost serve` as a process, with a registry of samples beside it, called as an API server calls.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use provost::edge::ledger::Reader;
use provost::edge::samples::{SampleKey, Samples};
use provost::edge::tls::ca;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{RwLock, watch};
use tokio::time::{Instant, timeout};

/// Nothing here takes longer.
pub(crate) const LONGEST: Duration = Duration::from_secs(30);
const NAME: &str = "provost.provost.svc";

/// The flood takes all there is of this machine: it runs alone, and the others beside each other.
pub(crate) static ALONE: RwLock<()> = RwLock::const_new(());

/// A registry of signed images that can be told to wait, and to want a password.
pub(crate) struct Registry {
    pub(crate) host: String,
    pub(crate) images: Vec<String>,
    pub(crate) asked: Arc<AtomicUsize>,
    later: watch::Sender<Option<u32>>,
}

/// `user:CANARY`.
const BASIC: &str = "Basic dXNlcjpDQU5BUlk=";

impl Registry {
    /// With so many signed images, behind a password or not.
    pub(crate) async fn start(key: &SampleKey, count: usize, password: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let host = listener.local_addr().expect("bound").to_string();
        let mut samples = Samples::default();
        let images = (0..count).map(|number| {
            let repository = format!("release/app{number}");
            let digest = samples.image(&repository, "1", &format!("{host} {number}"));
            samples.sign_with_bundle(&repository, digest, key).expect("signed");
            format!("{host}/{repository}@{digest}")
        });
        let images = images.collect();
        let (asked, later) = (Arc::new(AtomicUsize::new(0)), watch::Sender::new(None));
        let (counted, told) = (Arc::clone(&asked), later.subscribe());
        let gatekeeper = from_fn(move |request: Request, next: Next| {
            let (counted, told) = (Arc::clone(&counted), *told.borrow());
            async move {
                counted.fetch_add(1, Ordering::AcqRel);
                if let Some(seconds) = told {
                    let later = Response::builder().status(429).header("retry-after", seconds);
                    return later.body(axum::body::Body::empty()).expect("a response");
                }
                let shown = request.headers().get("authorization").and_then(|value| value.to_str().ok());
                if password && shown != Some(BASIC) {
                    let refusal = Response::builder().status(401).header("www-authenticate", "Basic realm=x");
                    return refusal.body(axum::body::Body::empty()).expect("a response");
                }
                next.run(request).await
            }
        });
        let router = samples.into_router().layer(gatekeeper);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { host, images, asked, later }
    }

    /// Answers, or lets everybody ask again in so many seconds.
    pub(crate) fn later(&self, seconds: Option<u32>) {
        self.later.send_replace(seconds);
    }
}

/// The running program.
pub(crate) struct Program {
    pub(crate) folder: TempDir,
    pub(crate) review: SocketAddr,
    pub(crate) health: SocketAddr,
    pub(crate) ca: String,
    child: Child,
}

impl Program {
    /// Starts it beside registries, with further lines of settings and further arguments, and waits until it is ready.
    pub(crate) async fn start(
        key: &SampleKey,
        registries: &[(&Registry, &str)],
        settings: &str,
        args: &[&str],
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let made = ca::make(&[NAME.to_owned()], 2).expect("a certificate");
        let (review, health) = (free_address().await, free_address().await);
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
        write("tls.crt", &made.cert_pem);
        write("tls.key", &made.key_pem);
        write("config.json", &docker_config(registries));
        std::fs::create_dir(folder.path().join("policies")).expect("a folder");
        write("policies/payments.yaml", &policy(registries, key));
        let mut hosts = String::new();
        for (registry, special) in registries {
            let host = &registry.host;
            let _ok = writeln!(hosts, "  '{host}': {{addresses: [127.0.0.0/8], plainHttp: true{special}}}").is_ok();
        }
        let tls = if settings.contains("tls: {") { "" } else { "tls: {cert: tls.crt, key: tls.key}\n" };
        let text = format!(
            "listen: {review}\nhealthListen: {health}\npolicies: policies\nledger: {{store: ledger.db}}\n\
             records: none\ndrain: 0s\n{tls}registries:\n{hosts}{settings}"
        );
        let text = if registries.is_empty() { text.replace("registries:\n", "") } else { text };
        write("provost.yaml", &text);
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_provost"))
            .current_dir(folder.path())
            .env_clear()
            .args(["serve", "--config", "provost.yaml"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program was built with this test");
        let program = Self { folder, review, health, ca: made.ca_pem, child };
        let ready = timeout(LONGEST, async {
            let client = reqwest::Client::builder().no_proxy().build().expect("a client");
            let address = format!("http://{health}/readyz");
            while !client.get(&address).send().await.is_ok_and(|answer| answer.status() == 200) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(ready.await.is_ok(), "not ready in time:\n{}", program.log());
        program
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    pub(crate) fn token(&self) -> String {
        std::fs::read_to_string(self.file("caller-token")).expect("a token was made").trim().to_owned()
    }

    /// The address of its webhook: `target` begins with `/validate`.
    pub(crate) fn url(&self, target: &str) -> String {
        format!("https://{NAME}:{}{target}", self.review.port())
    }

    pub(crate) fn client(&self) -> reqwest::ClientBuilder {
        let ca = reqwest::Certificate::from_pem(self.ca.as_bytes()).expect("a CA");
        reqwest::Client::builder().tls_certs_only([ca]).resolve(NAME, self.review).no_proxy().timeout(LONGEST * 2)
    }

    /// The value of a metric, summed over its labels; 0 where there is none.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let answer = client.get(format!("http://{}/metrics", self.health)).send().await.expect("metrics are served");
        let text = answer.text().await.expect("text");
        let lines = text.lines().filter(|line| line.starts_with(name) && line[name.len()..].starts_with([' ', '{']));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// The most memory that it ever had, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
        kib * 1024
    }

    /// Stops it as a kubelet does, and gives the events of its ledger.
    pub(crate) async fn stop(mut self) -> Vec<Value> {
        let told = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill");
        assert!(told.success());
        let ended = timeout(LONGEST, async {
            loop {
                if let Some(status) = self.child.try_wait().expect("a child") {
                    break status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let status = ended.await.expect("it ends in time");
        assert!(status.success(), "{status}:\n{}", self.log());
        let reader = Reader::open(&self.file("ledger.db")).expect("a ledger");
        let records = reader.all().map(|record| record.expect("a record"));
        records.map(|record| serde_json::from_str::<Value>(&record.body).expect("JSON")["event"].clone()).collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.and_then(|listener| listener.local_addr()).expect("a port")
}

fn docker_config(registries: &[(&Registry, &str)]) -> String {
    let hosts = registries
        .iter()
        .map(|(registry, _)| (registry.host.clone(), json!({"username": "user", "password": "CANARY"})));
    json!({"auths": hosts.collect::<serde_json::Map<_, _>>()}).to_string()
}

fn policy(registries: &[(&Registry, &str)], key: &SampleKey) -> String {
    let key = key.public_pem().lines().collect::<Vec<_>>().join("\n            ");
    let mut repositories: Vec<String> =
        registries.iter().map(|(registry, _)| format!("'{}/release/**'", registry.host)).collect();
    repositories.push("registry.example.com/release/**".to_owned());
    format!(
        "apiVersion: provost.dev/v1
kind: ReleasePolicy
metadata:
  name: payments
spec:
  namespaces:
    names: [payments]
  signers:
    release-key:
      keys:
        - pem: |
            {key}
      transparencyLog: not-required
  rules:
    - name: our-releases
      repositories: [{}]
      signatures: {{by: [release-key]}}
",
        repositories.join(", ")
    )
}

/// A review of a new pod.
pub(crate) fn review(uid: &str, images: &[&str]) -> Vec<u8> {
    let containers: Vec<Value> =
        images.iter().enumerate().map(|(index, image)| json!({"name": format!("c{index}"), "image": image})).collect();
    json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": uid,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "name": "web", "namespace": "payments", "operation": "CREATE",
            "userInfo": {"username": "alice", "groups": ["system:authenticated"]},
            "object": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": containers}},
            "oldObject": null, "dryRun": false,
        },
    })
    .to_string()
    .into_bytes()
}

/// What an API server makes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailurePolicy {
    Fail,
    Ignore,
}

/// The end of one call of a webhook, as an API server sees it.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What the user's request came to, by failure policy.
    admitted: [bool; 2],
    /// The reply, where it is one.
    pub(crate) response: Option<Value>,
    pub(crate) status: Option<u16>,
    /// Why there was none.
    #[expect(dead_code, reason = "shown where an assertion fails")]
    error: Option<String>,
    pub(crate) took: Duration,
}

impl Outcome {
    pub(crate) fn admitted(&self, policy: FailurePolicy) -> bool {
        self.admitted[usize::from(policy == FailurePolicy::Ignore)]
    }

    /// Admitted, or denied by these codes, in a reply.
    pub(crate) fn codes(&self) -> &str {
        let response = self.response.as_ref().expect("a reply");
        response["auditAnnotations"]["codes"].as_str().unwrap_or_default()
    }

    /// Denied by a reply with these codes, and so under both failure policies.
    pub(crate) fn assert_denied(&self, codes: &str) {
        for policy in [FailurePolicy::Fail, FailurePolicy::Ignore] {
            assert!(!self.admitted(policy), "{policy:?}: {self:?}");
        }
        assert_eq!((self.status, self.codes()), (Some(200), codes), "{self:?}");
    }

    /// Admitted by a reply, and so under both failure policies.
    pub(crate) fn assert_admitted(&self) {
        for policy in [FailurePolicy::Fail, FailurePolicy::Ignore] {
            assert!(self.admitted(policy), "{policy:?}: {self:?}");
        }
        assert_eq!(self.status, Some(200), "{self:?}");
    }
}

/// Calls as an API server does: whatever is no whole reply with the right uid in a status of 200 to 206 is a call error,
/// which `Fail` denies and `Ignore` admits. A 429 or 5xx with `Retry-After` is sent again, up to ten times.
pub(crate) async fn call(client: &reqwest::Client, url: &str, uid: &str, body: Vec<u8>) -> Outcome {
    let began = Instant::now();
    let mut tries = 0;
    let (status, response, error) = loop {
        tries += 1;
        let sent = client
            .post(format!("{url}?timeout=30s"))
            .header("Content-Type", "application/json")
            .header("Accept", "application/json, */*")
            .body(body.clone())
            .send()
            .await;
        let answer = match sent {
            Ok(answer) => answer,
            Err(error) => break (None, None, Some(format!("{error:?}"))),
        };
        let status = answer.status().as_u16();
        let again = (status == 429 || status >= 500) && answer.headers().contains_key("retry-after");
        if again && tries < 10 {
            continue;
        }
        let text = answer.bytes().await.unwrap_or_default();
        break (Some(status), serde_json::from_slice::<Value>(&text).ok(), None);
    };
    let response = response.filter(|reply| {
        status.is_some_and(|status| (200..=206).contains(&status))
            && reply["kind"] == "AdmissionReview"
            && reply["apiVersion"] == "admission.k8s.io/v1"
            && reply["response"]["uid"] == uid
            && reply["response"].get("patch").is_none()
    });
    let response = response.map(|reply| reply["response"].clone());
    let admitted = match &response {
        Some(response) => [response["allowed"] == true; 2],
        None => [false, true],
    };
    Outcome { admitted, response, status, error, took: began.elapsed() }
}

/// A file in the way a kubelet swaps it.
pub(crate) fn swap(file: &Path, content: &str) {
    let beside = file.with_extension("new");
    std::fs::write(&beside, content).expect("written");
    std::fs::rename(&beside, file).expect("swapped");
}
