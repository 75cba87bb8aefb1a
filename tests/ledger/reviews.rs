//! Reviews that need no registry, what is answered to them, and a Provost that is started again where it was.

use std::ffi::OsString;
use std::time::Duration;
use std::{fs, io};

use serde_json::{Value, json};

use super::support::https::{Caller, Connection};
use super::support::provost::{Provost, Setup, program};

/// One listed digest, and a person who may let others of that repository, and other repositories, run. Nothing here asks a
/// registry.
const ONCALL: &str = "
apiVersion: provost.dev/v1
kind: ReleasePolicy
metadata: {name: oncall}
spec:
  namespaces: {names: [oncall]}
  rules:
    - name: tools
      repositories: [registry.example.com/release/tool]
      signatures: not-required
      digests: [sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]
  breakGlass:
    request: {users: [alice], waivable: [repository], ticketPattern: INC-*}
";

/// What [`overridden`] waives.
pub(crate) const WAIVED: [&str; 2] = ["not-release-repo", "digest-not-listed"];

/// A Provost with a policy for the namespace `oncall` only: elsewhere every new pod is refused, `no-policy`.
pub(crate) fn provost() -> Provost {
    Setup::on_loopback().policy("oncall.yaml", ONCALL).start()
}

/// Ends it at once and starts it again on the same ledger, address and certificate.
pub(crate) fn again(provost: &mut Provost, env: &[(&'static str, OsString)]) {
    provost.server.kill();
    let program = program().args(["serve", "--config"]).arg(provost.folder.join("provost.yaml"));
    let program = env.iter().fold(program, |program, (name, value)| program.env(name, value));
    provost.server = program.serve("provost");
}

pub(crate) fn wait_until_ready(provost: &Provost) {
    provost.server.until("is ready", Duration::from_secs(30), || provost.is_ready().then_some(()));
}

/// Calls as a caller that Provost knows: of others it takes no override.
#[derive(Clone)]
pub(crate) struct Known {
    caller: Caller,
    path: String,
}

/// One connection of such a caller.
pub(crate) struct Line {
    connection: Connection,
    path: String,
}

/// A caller with the token that was made at the first start.
pub(crate) fn caller(provost: &Provost) -> Known {
    let tokens = fs::read_to_string(provost.folder.join("caller-token")).expect("made at the first start");
    let token = tokens.lines().find(|line| !line.is_empty() && !line.starts_with('#')).expect("a token");
    Known {
        caller: Caller::new(provost.listen, "provost.provost.svc", &provost.certificates.ca()),
        path: format!("/validate/{token}?timeout=10s"),
    }
}

impl Known {
    pub(crate) fn connect(&self) -> io::Result<Line> {
        Ok(Line { connection: self.caller.connect()?, path: self.path.clone() })
    }
}

/// What came of a review.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    pub(crate) uid: String,
    pub(crate) allowed: bool,
    pub(crate) verdict: String,
    /// The codes that stand in the way.
    pub(crate) codes: String,
    /// Those that were waived.
    pub(crate) overridden: String,
    pub(crate) message: String,
    /// The audit annotation `record`; empty where there is none.
    pub(crate) record: String,
}

impl Answered {
    pub(crate) fn is_override(&self) -> bool {
        self.verdict == "override"
    }

    /// Fails unless it is denied since it cannot be recorded, though it might have been overridden.
    pub(crate) fn must_lack_its_record(&self) {
        let codes: Vec<&str> = self.codes.split(',').collect();
        assert!(!self.allowed && self.verdict == "deny", "{self:?}");
        assert!(codes.contains(&"audit-unavailable") && WAIVED.iter().all(|code| codes.contains(code)), "{self:?}");
    }

    /// Fails unless it is overridden and the record is its own and says it all.
    pub(crate) fn must_be_overridden(&self, event: &Value) {
        assert!(self.allowed && self.is_override(), "{self:?}");
        let mut waived: Vec<&str> = self.overridden.split(',').collect();
        let denied = event["denials"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut denied: Vec<&str> = denied.iter().filter_map(|denial| denial["code"].as_str()).collect();
        let mut wanted = WAIVED;
        waived.sort_unstable();
        denied.sort_unstable();
        wanted.sort_unstable();
        assert_eq!((waived.as_slice(), denied.as_slice()), (&wanted[..], &wanted[..]), "{event}");
        assert_eq!((&event["uid"], &event["verdict"]), (&json!(self.uid), &json!("override")), "{event}");
        assert_eq!(
            (&event["overrides"][0]["user"], &event["overrides"][0]["ticket"]),
            (&json!("alice"), &json!("INC-42"))
        );
    }
}

/// A new pod of that name, by tag, where no policy governs: it is refused.
pub(crate) fn refused(uid: &str, name: &str) -> String {
    review(uid, "CREATE", &pod("payments", name), &Value::Null)
}

/// An update that leaves the image as it was: it is admitted.
pub(crate) fn admitted(uid: &str, name: &str) -> String {
    review(uid, "UPDATE", &pod("payments", name), &pod("payments", name))
}

/// A new pod that is refused for both of its images, with a reason by somebody whom the policy lists.
pub(crate) fn overridden(uid: &str, name: &str) -> String {
    let mut pod = pod("oncall", name);
    let image = |repository: &str| format!("registry.example.com/{repository}@sha256:{}", "c".repeat(64));
    pod["metadata"]["annotations"] = json!({"provost.dev/break-glass-reason": format!("INC-42 {name} must run")});
    pod["spec"]["containers"] = json!([
        {"name": "c0", "image": image("sandbox/tool")}, {"name": "c1", "image": image("release/tool")},
    ]);
    review(uid, "CREATE", &pod, &Value::Null)
}

fn pod(namespace: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
           "spec": {"containers": [{"name": "c0", "image": "nginx:latest"}]}})
}

fn review(uid: &str, operation: &str, object: &Value, old: &Value) -> String {
    let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
    let resource = json!({"group": "", "version": "v1", "resource": "pods"});
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {
        "uid": uid, "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
        "name": object["metadata"]["name"], "namespace": object["metadata"]["namespace"], "operation": operation,
        "userInfo": {"username": "alice", "groups": ["system:authenticated"]},
        "object": object, "oldObject": old, "dryRun": false,
    }})
    .to_string()
}

/// Sends a review; `None` where the connection breaks.
pub(crate) fn send(line: &mut Line, uid: &str, body: &str) -> Option<Answered> {
    let answer = line.connection.post(&line.path, body).ok()?;
    assert_eq!(answer.status, 200, "every outcome is in-band: {}", answer.body);
    let reply: Value = serde_json::from_str(&answer.body).unwrap_or_else(|e| panic!("{e}: {}", answer.body));
    let response = &reply["response"];
    assert_eq!(response["uid"], uid, "{}", answer.body);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Some(Answered {
        uid: uid.to_owned(),
        allowed: response["allowed"] == true,
        verdict: text(&response["auditAnnotations"]["verdict"]),
        codes: text(&response["auditAnnotations"]["codes"]),
        overridden: text(&response["auditAnnotations"]["overridden"]),
        message: text(&response["status"]["message"]),
        record: text(&response["auditAnnotations"]["record"]),
    })
}
