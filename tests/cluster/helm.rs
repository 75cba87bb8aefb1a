//! The chart, installed and upgraded by the real helm: the token that it makes survives upgrades, is the one that the API
//! server shows, and is replaced without a gap. A cluster of its own, since this gate is for every namespace.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::objects::{pod, spec};
use super::support::cluster::{Cluster, User};
use super::support::images::{self, Format};
use super::support::process::{Done, Program};
use super::support::provost::Setup;
use super::support::registry::{Registry, settings};
use super::support::{folder, tools, wait};
use super::world::{Gate, Request, Want, policy, world};

/// helm with values of its own for one cluster.
struct Helm<'a> {
    cluster: &'a Cluster,
    values: PathBuf,
}

impl Helm<'_> {
    fn program(&self, command: &[&str]) -> Program {
        let to = ["provost", "--namespace", "provost", "--kube-context", "admin", "--kubeconfig"];
        Program::new(tools::path("helm")).args(command).args(to).arg(self.cluster.kubeconfig())
    }

    /// `install` or `upgrade` with further settings.
    fn run(&self, command: &str, set: &[&str]) -> Done {
        let call = self.program(&[command]).arg(root().join("charts/provost")).arg("--values").arg(&self.values);
        set.iter().fold(call, |call, set| call.args(["--set", set])).run()
    }

    fn must(&self, command: &str, set: &[&str]) -> String {
        let done = self.run(command, set);
        assert!(done.code == 0, "{command} {set:?}: {}{}", done.stdout, done.stderr);
        done.stdout + &done.stderr
    }

    fn get(&self, resource: &str, name: &str) -> Option<Value> {
        let call = self.cluster.kubectl(User::Admin).args(["get", "-n", "provost", resource, name, "-o", "json"]);
        let done = call.run();
        (done.code == 0).then(|| serde_json::from_str(&done.stdout).expect("kubectl prints JSON"))
    }

    /// What a kubelet would mount.
    fn tokens(&self, secret: &str) -> String {
        let secret = self.get("secret", secret).expect("the Secret");
        let bytes = STANDARD.decode(secret["data"]["tokens"].as_str().expect("text")).expect("base64");
        String::from_utf8(bytes).expect("UTF-8")
    }

    fn write_tokens(&self, content: &str) {
        let patch = json!({"stringData": {"tokens": content}}).to_string();
        let call = self.cluster.kubectl(User::Admin).args(["patch", "-n", "provost", "secret", "provost-callers"]);
        call.args(["--type", "merge", "-p", &patch]).must();
    }

    /// Runs the shell block of a page that holds these words, in a folder, with `kubectl` and `helm` for this cluster.
    fn follow(&self, page: &str, words: &str, folder: &Path) {
        let text = fs::read_to_string(root().join(page)).expect("a page of ours");
        let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split_once("```").map(|(block, _)| block));
        let block = blocks.into_iter().find(|block| block.contains(words)).expect("the block");
        let kubeconfig = self.cluster.kubeconfig();
        let [kubeconfig, values, chart] = [kubeconfig, self.values.clone(), root().join("charts/provost")]
            .map(|path| path.to_str().expect("UTF-8").to_owned());
        let tool = |name: &'static str, context: &str| {
            let path = tools::path(name);
            format!("{name}() {{ {} --kubeconfig '{kubeconfig}' {context} admin \"$@\"; }}\n", path.display())
        };
        let block = block.replace("charts/provost", &chart).replace("my-values.yaml", &values);
        let tools = tool("kubectl", "--context") + &tool("helm", "--kube-context");
        let script = format!("set -eu; cd '{}'\n{tools}{block}", folder.display());
        Program::new("/bin/sh").args(["-c", &script]).must();
    }

    /// The path under which the webhook is registered.
    fn path(&self) -> String {
        let hook = self.get("validatingwebhookconfiguration", "provost").expect("the registration");
        hook["webhooks"][0]["clientConfig"]["service"]["path"].as_str().expect("text").to_owned()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Service of the chart with an address that a Provost can listen on, as helm takes it over.
fn service(address: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "namespace": "provost",
            "name": "provost",
            "labels": {"app.kubernetes.io/managed-by": "Helm"},
            "annotations": {"meta.helm.sh/release-name": "provost", "meta.helm.sh/release-namespace": "provost"},
        },
        "spec": {
            "clusterIP": address,
            "ports": [{"name": "https", "port": 443, "targetPort": "https", "protocol": "TCP"}],
        },
    })
}

#[test]
fn c_08_the_chart_makes_a_token_once_and_replaces_it_without_a_gap() {
    let world = world();
    let cluster = Cluster::start();
    let registry = Registry::with_password();
    let [signed, unsigned] =
        ["signed", "unsigned"].map(|name| images::push(&registry, &format!("release/{name}"), name));
    images::sign(&registry, &signed, &world.images.release, Format::Bundle, &BTreeMap::new());
    let setup = Setup::behind_service("provost")
        .registries(settings(&registry, registry.login.as_deref()))
        .policy("keys/release.pub", world.images.release.pem())
        .policy("payments.yaml", policy("payments", "payments", "enforce", &registry.host));
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    cluster.apply(&[namespace("provost"), namespace("payments"), service(&setup.listen.ip().to_string())]);

    // Installed as its README says, in two steps: the gate closes once somebody stands behind it.
    let values = folder::new("chart").join("values.yaml");
    let mut given = json!({
        "image": {"repository": "registry.example.com/release/provost", "digest": signed.digest},
        "tls": {"existingSecret": "provost-tls"},
        "policies": {"payments.yaml": "apiVersion: provost.dev/v1\nkind: ReleasePolicy\n"},
    });
    folder::write(&values, given.to_string());
    let helm = Helm { cluster: &cluster, values };
    let mut said = helm.must("install", &["webhook.enabled=false"]);
    let tokens = helm.tokens("provost-callers");
    let first = tokens.trim_end().to_owned();
    let is_plain = first.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    assert!(first.len() == 40 && is_plain, "{} characters", first.len());
    assert_eq!(helm.get("validatingwebhookconfiguration", "provost"), None);
    let provost = setup.tokens(&*tokens).start();
    given["tls"]["ca"] = json!(provost.certificates.ca());
    folder::write(&helm.values, given.to_string());
    said += &helm.must("upgrade", &[]);
    assert_eq!((helm.tokens("provost-callers"), helm.path()), (tokens.clone(), format!("/validate/{first}")));
    said += &helm.must("upgrade", &["replicas=5"]);
    assert_eq!((helm.tokens("provost-callers"), helm.path()), (tokens, format!("/validate/{first}")));

    // What the chart registered is called, and known: the password of the registry is used.
    let gate = Gate::new(provost, "images.provost.dev".to_owned());
    gate.wait_until_called(&cluster, "payments");
    let send = |name: &str, image: &str, want| {
        let call = cluster.kubectl(User::Developer).args(["create", "-n", "payments", "-f", "-"]);
        let done = call.input(pod(name, &spec(image)).to_string()).run();
        let seen = gate.check(&cluster, &Request::new("create", "payments", "pods", name), &done, want);
        assert_eq!(seen.record["event"]["caller"], "token", "{name}");
        done.stdout + &done.stderr
    };
    said += &send("signed", &signed.pinned(), Want::Admit);
    said += &send("unsigned", &unsigned.pinned(), Want::Deny(&[("unsigned", "spec.containers[0]")]));

    // Rotated as the README says. Accepted first; the one that is registered is still the old one.
    let second = "the-second-token-of-this-chart";
    let both = format!("{first}\n{second}\n");
    helm.write_tokens(&both);
    gate.provost.write_tokens(&both);
    said += &helm.must("upgrade", &[]);
    assert_eq!((helm.tokens("provost-callers"), helm.path()), (both, format!("/validate/{first}")));
    said += &send("accepted", &signed.pinned(), Want::Admit);
    wait::until("both tokens are accepted", Duration::from_secs(30), || {
        gate.provost.server.log().contains("caller tokens loaded").then_some(())
    });
    // Registered: whether the API server shows the one or the other yet, nobody is refused.
    helm.write_tokens(&format!("{second}\n{first}\n"));
    said += &helm.must("upgrade", &[]);
    assert_eq!(helm.path(), format!("/validate/{second}"));
    said += &send("registered", &signed.pinned(), Want::Admit);

    // A Secret of one's own: the token that is registered is read from it, and none is made.
    let none = helm.run("upgrade", &["caller.existingSecret=mine"]);
    assert!(none.code != 0 && none.stderr.contains("the Secret mine is not there"), "{}", none.stderr);
    let third = "the-third-token-of-this-chart";
    let mine = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "provost", "name": "mine"},
        "stringData": {"tokens": format!("# by hand\n{third}\n{second}\n")}});
    cluster.apply(&[mine]);
    let other = helm.run("upgrade", &["caller.existingSecret=mine", "caller.tokens={a-token-that-it-does-not-hold}"]);
    assert!(other.code != 0 && other.stderr.contains("the Secret mine does not hold this token"), "{}", other.stderr);
    said += &(none.stderr + &other.stderr + &helm.must("upgrade", &["caller.existingSecret=mine"]));
    assert_eq!((helm.path(), helm.get("secret", "provost-callers")), (format!("/validate/{third}"), None));

    // The pages say it in these words: rotated, and registered by hand.
    helm.must("upgrade", &[]);
    let made = helm.tokens("provost-callers");
    helm.follow("charts/provost/README.md", "secret \"$old\\n$new\\n\"", &folder::new("rotation"));
    let rotated = helm.tokens("provost-callers");
    assert!(rotated != made && rotated.trim_end().len() == 40, "{} characters", rotated.len());
    assert_eq!(helm.path(), format!("/validate/{}", rotated.trim_end()));
    let by_hand = folder::new("by-hand");
    folder::write(&by_hand.join("tokens"), format!("{first}\n{second}\n"));
    folder::write(&by_hand.join("certs/ca.crt"), gate.provost.certificates.ca());
    let reference = fs::read_to_string(root().join("tests/chart/webhook.golden.yaml")).expect("the reference");
    folder::write(&by_hand.join("tests/chart/webhook.golden.yaml"), reference);
    cluster.kubectl(User::Admin).args(["delete", "validatingwebhookconfiguration", "provost"]).must();
    helm.follow("docs/webhook.md", "tests/chart/webhook.golden.yaml", &by_hand);
    assert_eq!(helm.path(), format!("/validate/{first}"));
    gate.provost.write_tokens(&format!("{first}\n"));
    wait::until("what was registered by hand is called, and known", Duration::from_secs(30), || {
        let call = cluster.kubectl(User::Developer).args(["create", "-n", "payments", "--dry-run=server", "-f", "-"]);
        let done = call.input(pod("by-hand", &spec(&signed.pinned())).to_string()).run();
        (done.code == 0).then_some(())
    });
    send("by-hand", &signed.pinned(), Want::Admit);

    // Nobody who looks at the release, or reads what helm, kubectl and Provost say, sees one.
    said += &helm.program(&["status"]).must();
    said += &helm.program(&["get", "values"]).arg("--all").must();
    said += &gate.provost.server.log();
    for token in [&*first, second, third, "a-token-that-it-does-not-hold"] {
        assert!(!said.contains(token), "{token} is told: {said}");
    }
}
