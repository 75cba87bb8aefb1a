//! etcd and kube-apiserver on loopback, and `kubectl` for each of its users.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::process::{Program, Server};
use super::{folder, net, tools, wait};

/// A cluster without nodes or controllers: what it stores stays as it was sent.
#[derive(Debug)]
pub(crate) struct Cluster {
    folder: PathBuf,
    // Before etcd: what is dropped first ends first.
    api: Server,
    _etcd: Server,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    Admin,
    /// May do what people who deploy do, in every namespace.
    Developer,
    /// The node `n1`.
    Node,
    /// The node `n2`.
    OtherNode,
    /// May look at everything, and make and debug pods.
    OnCall,
}

impl User {
    const ALL: [Self; 5] = [Self::Admin, Self::Developer, Self::Node, Self::OtherNode, Self::OnCall];

    /// As the API server names it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Developer => "dev@acme.example",
            Self::Node => "system:node:n1",
            Self::OtherNode => "system:node:n2",
            Self::OnCall => "oncall@acme.example",
        }
    }

    const fn group(self) -> &'static str {
        match self {
            Self::Admin => "system:masters",
            Self::Developer => "developers",
            Self::Node | Self::OtherNode => "system:nodes",
            Self::OnCall => "oncall",
        }
    }

    const fn context(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Developer => "developer",
            Self::Node => "n1",
            Self::OtherNode => "n2",
            Self::OnCall => "oncall",
        }
    }
}

/// Far above the three seconds that it takes, for a machine that does much else.
const START_LIMIT: Duration = Duration::from_mins(2);

impl Cluster {
    /// Starts one and waits until it answers and everybody may do what is theirs.
    pub(crate) fn start() -> Self {
        let folder = folder::new("cluster");
        let etcd_url = format!("http://127.0.0.1:{}", net::free_port());
        let etcd = etcd(&folder, &etcd_url);
        let port = net::free_port();
        let api = api_server(&folder, &etcd_url, port);
        kubeconfig(&folder, port);
        let cluster = Self { folder, api, _etcd: etcd };
        cluster.api.until("is ready", START_LIMIT, || {
            let ready = cluster.kubectl(User::Admin).args(["get", "--raw", "/readyz"]).run();
            (ready.code == 0 && ready.stdout == "ok").then_some(())
        });
        cluster.apply(&rights());
        cluster
    }

    /// `kubectl` as one of the users.
    pub(crate) fn kubectl(&self, user: User) -> Program {
        Program::new(tools::path("kubectl"))
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .arg("--cache-dir")
            .arg(self.folder.join("kubectl-cache"))
            .args(["--context", user.context()])
    }

    /// Where the kubeconfig with the contexts of all users is; the administrator's is `admin`.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// Applies objects as the administrator.
    pub(crate) fn apply(&self, objects: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.kubectl(User::Admin).args(["apply", "--server-side", "-f", "-"]).input(list.to_string()).must();
    }

    /// The audit events of whole requests in a namespace that an asker wants to see, in the order in which they were
    /// written; waits for the first.
    pub(crate) fn audit(&self, namespace: &str, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let word = format!("\"namespace\":\"{namespace}\"");
        wait::until("an audit event", Duration::from_secs(10), || {
            let text = fs::read_to_string(self.folder.join("audit.log")).unwrap_or_default();
            // The last line may be half written.
            let lines = text.lines().filter(|line| line.contains(&word));
            let events = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let found: Vec<_> = events.filter(|event| event["stage"] == "ResponseComplete" && wanted(event)).collect();
            (!found.is_empty()).then_some(found)
        })
    }
}

fn etcd(folder: &Path, url: &str) -> Server {
    let peer = format!("http://127.0.0.1:{}", net::free_port());
    Program::new(tools::path("etcd"))
        .arg("--data-dir")
        .arg(folder.join("etcd"))
        .args(["--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", &peer])
        .args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &format!("default={peer}")])
        .args(["--unsafe-no-fsync", "--log-level", "error"])
        .serve("etcd")
}

fn api_server(folder: &Path, etcd: &str, port: u16) -> Server {
    let file = |name: &str| folder.join(name);
    Program::new("openssl").args(["genrsa", "-out"]).arg(file("sa.key")).arg("2048").must();
    let line = |user: &User| format!("{0}-token,{1},{0}-uid,\"{2}\"", user.context(), user.name(), user.group());
    folder::write(&file("tokens.csv"), User::ALL.iter().map(line).collect::<Vec<_>>().join("\n"));
    folder::write(&file("audit.yaml"), "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n");
    let path = |flag: &str, name: &str| format!("--{flag}={}", file(name).display());
    Program::new(tools::path("kube-apiserver"))
        .arg(format!("--etcd-servers={etcd}"))
        .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", &format!("--secure-port={port}")])
        .args(["--service-cluster-ip-range=127.96.0.0/16", "--endpoint-reconciler-type=none"])
        .args(["--service-account-issuer=https://kubernetes.default.svc", "--disable-admission-plugins=ServiceAccount"])
        .args([path("service-account-key-file", "sa.key"), path("service-account-signing-key-file", "sa.key")])
        .args([
            path("cert-dir", "certs"),
            path("token-auth-file", "tokens.csv"),
            "--authorization-mode=RBAC".to_owned(),
        ])
        .args([path("audit-policy-file", "audit.yaml"), path("audit-log-path", "audit.log")])
        .serve("kube-apiserver")
}

fn kubeconfig(folder: &Path, port: u16) {
    let ca = folder.join("certs/apiserver.crt");
    let server = json!({"server": format!("https://127.0.0.1:{port}"), "certificate-authority": ca});
    let each =
        |shape: &dyn Fn(&'static str) -> Value| User::ALL.iter().map(|user| shape(user.context())).collect::<Vec<_>>();
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": server}],
        "users": each(&|name| json!({"name": name, "user": {"token": format!("{name}-token")}})),
        "contexts": each(&|user| json!({"name": user, "context": {"cluster": "tests", "user": user}})),
    });
    folder::write(&folder.join("kubeconfig"), config.to_string());
}

/// Who may do what. The API server has no Node authorizer here, so nodes are given their rights by role as well.
fn rights() -> Vec<Value> {
    let pods = ["pods", "pods/ephemeralcontainers", "pods/finalizers"];
    let pods_and_kin = [&pods[..], &["replicationcontrollers", "podtemplates"]].concat();
    let apps = ["deployments", "deployments/scale", "replicasets", "statefulsets", "daemonsets"];
    let mut objects = Vec::new();
    for (user, rules) in [
        (User::Developer, vec![rule("", &pods_and_kin), rule("apps", &apps), rule("batch", &["jobs", "cronjobs"])]),
        (User::Node, vec![rule("", &["pods", "pods/status"])]),
        (User::OnCall, vec![rule("", &pods)]),
    ] {
        let name = format!("tests-{}", user.context());
        objects.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": name},
            "rules": rules,
        }));
        objects.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": user.group()}],
        }));
    }
    objects
}

/// Everything may be done to these.
fn rule(group: &str, resources: &[&str]) -> Value {
    let verbs = ["get", "list", "watch", "create", "update", "patch", "delete"];
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}
