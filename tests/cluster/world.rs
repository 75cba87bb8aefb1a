//! The shared cluster with its webhook, the images, and the one way in which a request's outcome is checked. It must
//! never decide what an outcome ought to be.

use std::collections::BTreeMap;
use std::fs;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::objects::{deployment, pod, spec};
use super::support::cluster::{Cluster, User};
use super::support::images::{self, Format, Image};
use super::support::keys::Key;
use super::support::process::Done;
use super::support::provost::{Provost, Setup};
use super::support::registry::{Registry, settings};
use super::support::wait;

/// What every test uses.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) registry: Registry,
    pub(crate) images: Images,
    pub(crate) gate: Gate,
}

/// The images that pods are made of.
#[derive(Debug)]
pub(crate) struct Images {
    /// Signs what counts.
    pub(crate) release: Key,
    /// Signs what does not.
    pub(crate) mallory: Key,
    pub(crate) signed: Image,
    /// Signed as well.
    pub(crate) next: Image,
    pub(crate) unsigned: Image,
    /// Signed by somebody else.
    pub(crate) wrong_key: Image,
    /// Signed by the right one, and withdrawn.
    pub(crate) withdrawn: Image,
    /// A copy of `signed`, with its signature, where no rule covers it.
    pub(crate) foreign: Image,
}

/// One Provost and how the API server calls it.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) provost: Provost,
    /// The webhook's name: the prefix of audit annotations, and what users read.
    hook: String,
}

/// Namespaces that only a gate of their own reviews; each is named in one test.
pub(crate) const OWN: [&str; 12] = [
    "own-known",
    "own-stranger",
    "own-rotated",
    "own-url",
    "own-reload",
    "own-swap",
    "own-drain",
    "own-stopped",
    "own-stopped-ignore",
    "own-silent",
    "own-silent-ignore",
    "own-gone",
];

/// The cluster, started by the first test that asks.
pub(crate) fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(World::start)
}

impl World {
    fn start() -> Self {
        // Images are signed while the API server starts.
        let cluster = thread::spawn(Cluster::start);
        let registry = Registry::with_referrers();
        let images = Images::make(&registry);
        let provost = Setup::behind_service("provost")
            .registries(settings(&registry, None))
            .policy("keys/release.pub", images.release.pem())
            .policy("apps.yaml", policy("apps", "apps-*", "enforce", &registry.host))
            .policy("warned.yaml", policy("warned", "warned-*", "warn", &registry.host))
            .policy("audited.yaml", policy("audited", "audited-*", "audit", &registry.host))
            .policy("withdrawn.yaml", deny_list(&images.withdrawn))
            .policy("glass.yaml", with_break_glass(&policy("glass", "glass-*", "enforce", &registry.host)))
            .start();
        let cluster = cluster.join().expect("the cluster starts");
        old_objects(&cluster, &images);
        let excluded: Vec<&str> = ["provost", "kube-system"].into_iter().chain(OWN).collect();
        let selector = json!({"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": excluded});
        let gate = Gate { provost, hook: "images.provost.dev".to_owned() };
        let service = service(&gate.provost, "provost");
        let configuration = registration("provost", &gate, &json!(null), &selector, &gate.provost.certificates.ca());
        cluster.apply(&[namespace_object("provost"), service, configuration]);
        gate.wait_until_called(&cluster, "apps-probe");
        Self { cluster, registry, images, gate }
    }

    /// A namespace of a test's own.
    pub(crate) fn namespace(&self, name: &str) -> String {
        self.cluster.apply(&[namespace_object(name)]);
        name.to_owned()
    }

    /// A gate for one namespace of [`OWN`] alone: its Provost gives what the webhook is to be, in `change`.
    pub(crate) fn own_gate(&self, namespace: &'static str, provost: Provost, roots: &str, change: &Value) -> Gate {
        assert!(OWN.contains(&namespace), "the shared webhook must leave {namespace} out");
        let gate = Gate { provost, hook: format!("{namespace}.provost.dev") };
        self.register(namespace, &gate, roots, change);
        gate
    }

    /// Registers a gate for a namespace of [`OWN`], as the reference says but for `change`, and waits until it is called.
    pub(crate) fn register(&self, namespace: &'static str, gate: &Gate, roots: &str, change: &Value) {
        let selector = json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": [namespace]});
        let mut objects = vec![namespace_object(namespace)];
        if change["clientConfig"].is_null() {
            objects.push(service(&gate.provost, namespace));
        }
        objects.push(registration(namespace, gate, change, &selector, roots));
        self.cluster.apply(&objects);
        gate.wait_until_called(&self.cluster, namespace);
    }

    /// Registers the shared Provost a second time, under another name, for one namespace.
    pub(crate) fn second_hook(&self, namespace: &str, hook: &str) {
        let Gate { provost, .. } = &self.gate;
        let selector = json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": [namespace]});
        let change = json!({"name": hook, "clientConfig": by_service("provost", &provost.path())});
        self.cluster.apply(&[registration("second", &self.gate, &change, &selector, &provost.certificates.ca())]);
        let probe = pod("probe", &spec("registry.example/probe:tag"));
        wait::until("both webhooks are called", Duration::from_secs(30), || {
            let done = self.create(namespace, &probe, &["--dry-run=server"]);
            (done.stderr.matches("Warning: ").count() == 1).then_some(())?;
            let key = format!("{hook}/verdict");
            let events = self.cluster.audit(namespace, |event| event["verb"] == "create");
            events.iter().any(|event| event["annotations"][&key].is_string()).then_some(())
        });
    }

    /// Sends an object with `kubectl create`, as a developer, with further arguments.
    pub(crate) fn create(&self, namespace: &str, object: &Value, args: &[&str]) -> Done {
        self.create_as(User::Developer, namespace, object, args)
    }

    pub(crate) fn create_as(&self, user: User, namespace: &str, object: &Value, args: &[&str]) -> Done {
        let call = self.cluster.kubectl(user).args(["create", "-n", namespace, "-f", "-"]).args(args);
        call.input(object.to_string()).run()
    }

    /// The stored object; `None` where there is none.
    pub(crate) fn stored(&self, namespace: &str, resource: &str, name: &str) -> Option<Value> {
        let call = self.cluster.kubectl(User::Admin).args(["get", "-n", namespace, resource, name, "-o", "json"]);
        let done = call.run();
        assert!(done.code == 0 || done.stderr.contains("NotFound"), "{}", done.stderr);
        (done.code == 0).then(|| serde_json::from_str(&done.stdout).expect("kubectl prints JSON"))
    }

    /// Checks the outcome of a request to the shared gate.
    pub(crate) fn check(&self, request: &Request<'_>, done: &Done, want: Want<'_>) -> Seen {
        self.gate.check(&self.cluster, request, done, want)
    }
}

impl Images {
    fn make(registry: &Registry) -> Self {
        let (release, mallory) = (Key::generated("release"), Key::generated("mallory"));
        let none = BTreeMap::new();
        let signed_by = |key: &Key, name: &str| {
            let image = images::push(registry, &format!("release/{name}"), name);
            images::sign(registry, &image, key, Format::Bundle, &none);
            image
        };
        let signed = signed_by(&release, "app");
        let foreign = images::copy(registry, &signed, "elsewhere/app");
        images::sign(registry, &foreign, &release, Format::Bundle, &none);
        Self {
            next: signed_by(&release, "next"),
            unsigned: images::push(registry, "release/unsigned", "unsigned"),
            wrong_key: signed_by(&mallory, "wrong-key"),
            withdrawn: signed_by(&release, "withdrawn"),
            release,
            mallory,
            signed,
            foreign,
        }
    }
}

/// A policy with one rule: everything below `release/` is signed by the release key, `keys/release.pub`. As JSON, which
/// is YAML.
pub(crate) fn policy(name: &str, namespace: &str, mode: &str, registry: &str) -> String {
    let repositories = [format!("{registry}/release/**")];
    json!({
        "apiVersion": "provost.dev/v1",
        "kind": "ReleasePolicy",
        "metadata": {"name": name},
        "spec": {
            "namespaces": {"names": [namespace]},
            "mode": mode,
            "signers": {"release": {"keys": [{"file": "keys/release.pub"}], "transparencyLog": "not-required"}},
            "rules": [{"name": "releases", "repositories": repositories, "signatures": {"by": ["release"]}}],
        },
    })
    .to_string()
}

/// The policy, and whom it lets override it: the group on call, for signatures, with a ticket.
fn with_break_glass(policy: &str) -> String {
    let mut policy: Value = serde_json::from_str(policy).expect("it is JSON");
    policy["spec"]["breakGlass"] =
        json!({"request": {"groups": ["oncall"], "waivable": ["signatures"], "ticketPattern": "INC-*"}});
    policy.to_string()
}

fn deny_list(image: &Image) -> String {
    let withdrawn = json!({"digest": image.digest, "reason": "CVE-2026-1234, use 1.4.2", "since": "2026-11-02"});
    json!({
        "apiVersion": "provost.dev/v1",
        "kind": "DenyList",
        "metadata": {"name": "withdrawn"},
        "spec": {"digests": [withdrawn]},
    })
    .to_string()
}

/// The namespace in which objects are older than the gate.
pub(crate) const OLD: &str = "apps-old";
/// The same, with no policy for it.
pub(crate) const OLD_UNGOVERNED: &str = "free-old";

/// Objects that were there before the webhook was: unsigned, some held by a finalizer.
fn old_objects(cluster: &Cluster, images: &Images) {
    let mut objects = Vec::new();
    for namespace in [OLD, OLD_UNGOVERNED] {
        objects.push(namespace_object(namespace));
        let mut old = |mut object: Value| {
            object["metadata"]["namespace"] = json!(namespace);
            object["metadata"]["finalizers"] = json!(["tests.example/hold"]);
            objects.push(object);
        };
        for name in ["finalizer", "label", "image", "deleted"] {
            old(pod(name, &spec(&images.unsigned.pinned())));
        }
        let two = json!({"containers": [
            {"name": "one", "image": images.unsigned.pinned()}, {"name": "two", "image": images.wrong_key.pinned()},
        ]});
        old(pod("swapped", &two));
        for name in ["scaled", "rolled", "annotated"] {
            let mut object = deployment(name, &spec(&images.unsigned.pinned()));
            object["spec"]["replicas"] = json!(3);
            old(object);
        }
    }
    cluster.apply(&objects);
}

fn namespace_object(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// The Service at whose address a Provost listens.
fn service(provost: &Provost, name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "provost", "name": name},
        "spec": {"clusterIP": provost.listen.ip(), "ports": [{"port": 443}]},
    })
}

/// `clientConfig` of a webhook that is called through a Service of the namespace `provost`.
pub(crate) fn by_service(name: &str, path: &str) -> Value {
    json!({"service": {"namespace": "provost", "name": name, "path": path, "port": 443}})
}

/// The reference registration, filled in; `change` replaces whole keys of the webhook.
fn registration(name: &str, gate: &Gate, change: &Value, selector: &Value, roots: &str) -> Value {
    // What the chart renders is held to this very file.
    let reference = include_str!("../chart/webhook.golden.yaml");
    let mut object: Value = serde_saphyr::from_str(reference).expect("the reference");
    object["metadata"]["name"] = json!(name);
    let hook = &mut object["webhooks"][0];
    hook["name"] = json!(gate.hook);
    hook["clientConfig"] = by_service(name, &gate.provost.path());
    hook["namespaceSelector"]["matchExpressions"] = json!([selector]);
    for (key, value) in change.as_object().into_iter().flatten() {
        hook[key] = value.clone();
    }
    hook["clientConfig"]["caBundle"] = json!(STANDARD.encode(roots));
    object
}

/// A request as the audit log knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) user: User,
    pub(crate) namespace: &'a str,
    /// `create`, `update`, `patch`
    pub(crate) verb: &'a str,
    /// `pods`, or `pods/ephemeralcontainers`
    pub(crate) resource: &'a str,
    pub(crate) name: &'a str,
    pub(crate) dry_run: bool,
}

impl<'a> Request<'a> {
    /// A developer's.
    pub(crate) fn new(verb: &'a str, namespace: &'a str, resource: &'a str, name: &'a str) -> Self {
        Self { user: User::Developer, namespace, verb, resource, name, dry_run: false }
    }
}

/// How a request must end: with which denials, each a code and a place.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Want<'a> {
    Admit,
    Deny(&'a [(&'a str, &'a str)]),
    WouldDeny(&'a [(&'a str, &'a str)]),
    /// Admitted in spite of these.
    Override(&'a [(&'a str, &'a str)]),
}

/// What the three witnesses said, once they agree.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The API server's audit event.
    pub(crate) audit: Value,
    /// The ledger's record.
    pub(crate) record: Value,
}

impl Gate {
    /// A Provost behind a webhook of that name which somebody else has registered.
    pub(crate) const fn new(provost: Provost, hook: String) -> Self {
        Self { provost, hook }
    }

    /// Holds that the user's answer, the audit log and the ledger say the same, and that it is what must be.
    pub(crate) fn check(&self, cluster: &Cluster, request: &Request<'_>, done: &Done, want: Want<'_>) -> Seen {
        let (verdict, denials) = match want {
            Want::Admit => ("admit", &[][..]),
            Want::Deny(denials) => ("deny", denials),
            Want::WouldDeny(denials) => ("would-deny", denials),
            Want::Override(denials) => ("override", denials),
        };
        let what = format!("{request:?}\n{}{}", done.stdout, done.stderr);
        let denied = format!("admission webhook \"{}\" denied the request: ", self.hook);
        assert_eq!(done.stderr.contains(&denied), verdict == "deny", "want {verdict}: {what}");
        assert_eq!(done.code == 0, verdict != "deny", "want {verdict}: {what}");

        let audit = self.audit_event(cluster, request);
        let said = |key: &str| audit["annotations"][format!("{}/{key}", self.hook)].as_str().unwrap_or_default();
        let mut codes: Vec<&str> = denials.iter().map(|(code, _)| *code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(said("verdict"), verdict, "the audit log: {what}");
        let listed = |key: &str| sorted(said(key).split(',').filter(|code| !code.is_empty()));
        let none = Vec::new();
        let (refused, overridden) = if verdict == "override" { (&none, &codes) } else { (&codes, &none) };
        assert_eq!((&listed("codes"), &listed("overridden")), (refused, overridden), "the audit log: {what}");

        let name = said("record").to_owned();
        let record = self.provost.record(&name);
        let event = &record["event"];
        let texts = |list: &Value, pick: fn(&Value) -> String| sorted(list.as_array().into_iter().flatten().map(pick));
        assert_eq!(event["verdict"], verdict, "the ledger: {what}");
        assert_eq!(
            texts(&event["codes"], |code| code.as_str().unwrap_or_default().to_owned()),
            codes,
            "the ledger: {what}"
        );
        let in_ledger = texts(&event["denials"], |denial| {
            let part = |key: &str| denial[key].as_str().unwrap_or_default().to_owned();
            format!("{} {}", part("code"), part("at"))
        });
        assert_eq!(in_ledger, sorted(denials.iter().map(|(code, at)| format!("{code} {at}"))), "the ledger: {what}");
        for (key, value) in [
            ("namespace", request.namespace),
            ("resource", request.resource),
            ("name", request.name),
            ("user", request.user.name()),
        ] {
            assert_eq!(event[key], value, "the ledger's {key}: {what}");
        }
        assert_eq!(event["dryRun"], request.dry_run, "the ledger: {what}");

        if verdict == "deny" {
            let (_, message) = done.stderr.split_once(&denied).expect("seen above");
            assert!(message.contains(&format!("record {name}")), "record {name}: {what}");
            for (code, at) in denials {
                let at = at.strip_suffix(".image").unwrap_or(at);
                assert!(message.contains(code) && message.contains(at), "{code} at {at} is not told: {what}");
            }
        }
        Seen { audit, record }
    }

    /// The last event of that request in the API server's audit log that went through this webhook.
    fn audit_event(&self, cluster: &Cluster, request: &Request<'_>) -> Value {
        let (resource, sub) = request.resource.split_once('/').unwrap_or((request.resource, ""));
        let key = format!("{}/verdict", self.hook);
        let is_it = |event: &Value| {
            let object = &event["objectRef"];
            let dry = event["requestURI"].as_str().is_some_and(|uri| uri.contains("dryRun=All"));
            event["verb"] == request.verb
                && event["user"]["username"] == request.user.name()
                && object["namespace"] == request.namespace
                && object["resource"] == resource
                && object["subresource"].as_str().unwrap_or_default() == sub
                && (object["name"] == request.name || object["name"].is_null())
                && dry == request.dry_run
                && event["annotations"][&key].is_string()
        };
        cluster.audit(request.namespace, is_it).pop().expect("at least one")
    }

    /// The API server learns of a webhook, and of its Service, a moment after they are stored.
    pub(crate) fn wait_until_called(&self, cluster: &Cluster, namespace: &str) {
        let probe = pod("probe", &spec("registry.example/probe:tag")).to_string();
        cluster.apply(&[namespace_object(namespace)]);
        wait::until_ok("the API server calls the webhook", Duration::from_secs(30), || {
            let call = cluster.kubectl(User::Admin).args(["create", "-n", namespace, "--dry-run=server", "-f", "-"]);
            let done = call.input(probe.clone()).run();
            let called = done.stderr.contains(&format!("\"{}\" denied the request", self.hook));
            if called { Ok(()) } else { Err(format!("{}{}{}", done.stdout, done.stderr, self.provost.server.log())) }
        });
    }

    /// The text of a file in the Provost's folder.
    pub(crate) fn file(&self, name: &str) -> String {
        fs::read_to_string(self.provost.folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }
}

fn sorted<T: Ord>(list: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut list: Vec<T> = list.into_iter().collect();
    list.sort();
    list
}
