//! `provost demo`: the whole story on this machine. It starts the real server beside a small registry of samples, sends
//! reviews over TLS as an API server does, and shows what users would see. It must never take a shortcut into the gate.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anstream::println;
use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::serve::Signals;
use super::server::Server;
use super::{audit, render};
use crate::decision::chain::verify_chain;
use crate::decision::code::Code;
use crate::decision::reference::Digest;
use crate::edge::config::Config;
use crate::edge::ledger::Reader;
use crate::edge::samples::{SampleKey, Samples};
use crate::edge::{telling, tls};

/// The name under which an API server calls a webhook that is registered by Service.
const SERVICE: &str = "provost.provost.svc";
/// The width of a terminal that everybody has.
const WIDTH: usize = 100;

/// Flags of `provost demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: provost demo --once\n\nExit code: 0 when every review ended as it should, else 1.")]
pub struct Args {
    /// Ends after the reviews instead of serving on
    #[arg(long)]
    once: bool,
}

impl Args {
    /// Runs it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        telling::install_quiet()?;
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(self.play())
    }

    async fn play(self) -> anyhow::Result<ExitCode> {
        let mut signals = Signals::new()?;
        let stage = Stage::set().await?;
        let config = Config::load(Some(&stage.folder().join("provost.yaml")), &[])?;
        let server = Server::new(&config).await?;
        let address = server.review_address()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve(async {
            // A sender that is gone means the same.
            let _ = stopped.await;
        }));

        println!("Provost takes reviews on https://{address}/validate, registry {} is beside it.\n", stage.registry);
        let caller = Caller::new(address, &stage.ca)?;
        let mut held = true;
        for (number, scene) in stage.scenes().into_iter().enumerate() {
            held &= caller.show(number + 1, &scene).await?;
        }
        show_ledger(&config.ledger_store.value)?;
        if !self.once {
            stage.say_how_to_try(address)?;
            signals.next().await;
        }
        drop(stop);
        serving.await??;
        held &= show_chain(&config.ledger_store.value)?;
        Ok(if held { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

/// Everything that a real installation has: images, signatures, policies, certificates, settings.
struct Stage {
    folder: tempfile::TempDir,
    registry: SocketAddr,
    ca: String,
    images: Images,
}

/// The sample images, by digest.
struct Images {
    api: Digest,
    worker: Digest,
    unsigned: Digest,
    forged: Digest,
    borrowed: Digest,
    withdrawn: Digest,
    tool: Digest,
}

impl Stage {
    async fn set() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let registry = listener.local_addr()?;
        let (release, mallory) = (SampleKey::generate()?, SampleKey::generate()?);
        let mut samples = Samples::default();
        let images = Images {
            api: samples.image("release/payments/api", "1.2", "api"),
            worker: samples.image("release/payments/worker", "1.0", "worker"),
            unsigned: samples.image("release/payments/unsigned", "1.0", "unsigned"),
            forged: samples.image("release/payments/forged", "1.0", "forged"),
            borrowed: samples.image("release/payments/borrowed", "1.0", "borrowed"),
            withdrawn: samples.image("release/payments/api", "1.1", "api with a hole"),
            tool: samples.image("sandbox/tool", "1.0", "tool"),
        };
        samples.sign_with_bundle("release/payments/api", images.api, &release)?;
        samples.sign_with_bundle("release/payments/api", images.withdrawn, &release)?;
        samples.sign_with_tag("release/payments/worker", images.worker, images.worker, &release)?;
        samples.sign_with_bundle("release/payments/forged", images.forged, &mallory)?;
        samples.sign_with_tag("release/payments/borrowed", images.borrowed, images.api, &release)?;
        tokio::spawn(async move { axum::serve(listener, samples.into_router()).await });

        let folder = tempfile::Builder::new().prefix("provost-demo-").tempdir()?;
        let made = tls::ca::make(&[SERVICE.to_owned()], 7)?;
        let stage = Self { folder, registry, ca: made.ca_pem.clone(), images };
        fs::create_dir(stage.folder().join("policies"))?;
        stage.write("ca.crt", &made.ca_pem)?;
        stage.write("tls.crt", &made.cert_pem)?;
        stage.write("tls.key", &made.key_pem)?;
        stage.write("policies/payments.yaml", &stage.policy(&release.public_pem()))?;
        stage.write("provost.yaml", &stage.settings())?;
        Ok(stage)
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path: PathBuf = self.folder().join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    fn policy(&self, key: &str) -> String {
        let (registry, withdrawn) = (self.registry, self.images.withdrawn);
        let key = key.trim().replace('\n', "\n            ");
        format!(
            "apiVersion: provost.dev/v1
kind: ReleasePolicy
metadata: {{name: payments}}
spec:
  namespaces: {{names: [payments]}}
  signers:
    release-key:
      keys:
        - pem: |
            {key}
      transparencyLog: not-required
  rules:
    - name: releases
      repositories: [\"{registry}/release/payments/**\"]
      signatures: {{by: [release-key]}}
---
apiVersion: provost.dev/v1
kind: DenyList
metadata: {{name: withdrawn}}
spec:
  digests:
    - {{digest: \"{withdrawn}\", reason: \"CVE-2026-1234, use api 1.2\", since: 2026-11-02}}
"
        )
    }

    fn settings(&self) -> String {
        let registry = self.registry;
        format!(
            "cluster: demo
listen: 127.0.0.1:0
healthListen: 127.0.0.1:0
tls: {{cert: tls.crt, key: tls.key}}
drain: 0s
policies: policies/
ledger: {{store: ledger.db}}
records: none
registries:
  \"{registry}\": {{addresses: [127.0.0.0/8], plainHttp: true}}
"
        )
    }

    fn image(&self, path: &str, digest: Digest) -> String {
        format!("{}/{path}@{digest}", self.registry)
    }

    fn scenes(&self) -> Vec<Scene> {
        let Images { api, worker, unsigned, forged, borrowed, withdrawn, tool } = &self.images;
        let image = |path: &str, digest: &Digest| self.image(path, *digest);
        let api = image("release/payments/api", api);
        let worker = image("release/payments/worker", worker);
        let by_tag = format!("{}/release/payments/api:1.2", self.registry);
        let unsigned = image("release/payments/unsigned", unsigned);
        let pod = |images: &[&str]| object("Pod", &containers(images));
        vec![
            Scene::new("a pod whose image is pinned, released and signed (bundle, cosign 3)", pod(&[&api]), &[]),
            Scene::new("the same, signed in cosign's older format", pod(&[&worker]), &[]),
            Scene::new("by tag", pod(&[&by_tag]), &[Code::NotDigestPinned]),
            Scene::new("from another repository", pod(&[&image("sandbox/tool", tool)]), &[Code::NotReleaseRepo]),
            Scene::new("never signed", pod(&[&unsigned]), &[Code::Unsigned]),
            Scene::new(
                "signed, but by somebody else's key",
                pod(&[&image("release/payments/forged", forged)]),
                &[Code::WrongSigner],
            ),
            Scene::new(
                "with a signature that was made for another image",
                pod(&[&image("release/payments/borrowed", borrowed)]),
                &[Code::SubjectMismatch],
            ),
            Scene::new(
                "a good signature on a release that was withdrawn",
                pod(&[&image("release/payments/api", withdrawn)]),
                &[Code::DenyListed],
            ),
            Scene::new(
                "a Deployment with one good image and an unsigned init container",
                object(
                    "Deployment",
                    &json!({"template": {"spec": {
                        "initContainers": [{"name": "migrate", "image": unsigned}],
                        "containers": [{"name": "api", "image": api}],
                    }}}),
                ),
                &[Code::Unsigned],
            ),
            Scene::in_namespace(
                "legacy",
                "a good image in a namespace that no policy governs",
                pod(&[&api]),
                &[Code::NoPolicy],
            ),
        ]
    }

    fn say_how_to_try(&self, address: SocketAddr) -> anyhow::Result<()> {
        for scene in self.scenes().iter().take(1) {
            self.write("review.json", &scene.review("00000000-0000-4000-8000-000000000000").to_string())?;
        }
        let folder = self.folder().display();
        let unsigned = self.image("release/payments/unsigned", self.images.unsigned);
        println!("Still serving; interrupt to end. In another terminal, where `provost` is this program:\n");
        println!("  provost verify --config {folder}/provost.yaml {unsigned}");
        println!("  provost audit tail --ledger {folder}/ledger.db");
        println!("  provost policy lint {folder}/policies      (edit a policy: it is taken over within seconds)");
        println!(
            "  curl --cacert {folder}/ca.crt -H 'Content-Type: application/json' -d @{folder}/review.json 'https://{address}/validate?timeout=10s'"
        );
        println!("\nIts settings, policies and certificates are in {folder} and go with it.");
        Ok(())
    }
}

/// One review and how it must end.
struct Scene {
    title: &'static str,
    namespace: &'static str,
    object: Value,
    codes: &'static [Code],
}

impl Scene {
    fn new(title: &'static str, object: Value, codes: &'static [Code]) -> Self {
        Self::in_namespace("payments", title, object, codes)
    }

    fn in_namespace(namespace: &'static str, title: &'static str, object: Value, codes: &'static [Code]) -> Self {
        Self { title, namespace, object, codes }
    }

    fn review(&self, uid: &str) -> Value {
        let (group, resource) = if self.object["kind"] == "Pod" { ("", "pods") } else { ("apps", "deployments") };
        let kind = json!({"group": group, "version": "v1", "kind": self.object["kind"]});
        json!({
            "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
            "request": {
                "uid": uid, "kind": kind, "resource": {"group": group, "version": "v1", "resource": resource},
                "name": "web", "namespace": self.namespace, "operation": "CREATE",
                "userInfo": {"username": "alice@acme.com", "groups": ["developers", "system:authenticated"]},
                "object": self.object, "oldObject": null, "dryRun": false,
            },
        })
    }
}

fn object(kind: &str, spec: &Value) -> Value {
    let version = if kind == "Pod" { "v1" } else { "apps/v1" };
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": "web"}, "spec": spec})
}

fn containers(images: &[&str]) -> Value {
    let containers: Vec<Value> =
        images.iter().enumerate().map(|(index, image)| json!({"name": format!("c{index}"), "image": image})).collect();
    json!({ "containers": containers })
}

/// The API server's part: it calls over TLS under the name of the Service, and trusts one CA.
struct Caller {
    client: reqwest::Client,
    url: String,
}

impl Caller {
    fn new(address: SocketAddr, ca: &str) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(ca.as_bytes())?])
            .resolve(SERVICE, address)
            .no_proxy()
            .timeout(Duration::from_secs(10))
            .build()?;
        Ok(Self { client, url: format!("https://{SERVICE}:{}/validate?timeout=10s", address.port()) })
    }

    /// Sends one review, shows the reply, and says whether it is the one that must come.
    async fn show(&self, number: usize, scene: &Scene) -> anyhow::Result<bool> {
        let uid = format!("00000000-0000-4000-8000-{number:012}");
        let body = serde_json::to_vec(&scene.review(&uid))?;
        let begun = Instant::now();
        let reply = self.client.post(&self.url).header("Content-Type", "application/json").body(body).send().await?;
        let reply: Value = serde_json::from_slice(&reply.bytes().await?)?;
        let took = begun.elapsed();
        let response = &reply["response"];
        let admitted = response["allowed"] == true;
        let codes: Vec<&str> = scene.codes.iter().map(|code| code.as_str()).collect();
        let told = response["auditAnnotations"]["codes"].as_str().unwrap_or_default();
        let as_it_must = response["uid"] == uid.as_str() && admitted == codes.is_empty() && told == codes.join(",");

        let word = if admitted { "ADMIT" } else { "DENY " };
        println!(
            "{} {word}  {number}. {} ({:.1} ms)",
            render::mark(admitted),
            scene.title,
            took.as_secs_f64() * 1000.0
        );
        if let Some(message) = response["status"]["message"].as_str() {
            println!("{}", render::wrapped(message, "           ", WIDTH));
        }
        if !as_it_must {
            println!("  ! this should have ended with {codes:?}: {reply}");
        }
        println!();
        Ok(as_it_must)
    }
}

fn show_ledger(file: &Path) -> anyhow::Result<()> {
    println!("The ledger, as `provost audit query` reads it (every denial was on disk before it was answered):\n");
    audit::table(&Reader::open(file)?.tail(100)?, &mut anstream::stdout())?;
    println!();
    Ok(())
}

/// Verifies the hash chain, now that the server has ended and sealed it.
fn show_chain(file: &Path) -> anyhow::Result<bool> {
    let reader = Reader::open(file)?;
    let records = reader.all().collect::<Result<Vec<_>, _>>()?;
    let count = records.len();
    match verify_chain(records) {
        Ok(_) => {
            println!("{} The ledger's hash chain holds: {count} records.", render::mark(true));
            Ok(true)
        }
        Err(findings) => {
            for finding in findings {
                println!("{} {finding}", render::mark(false));
            }
            Ok(false)
        }
    }
}
