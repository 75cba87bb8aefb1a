//! Reviews that need no registry, what is answered to them, and a Provost that is started again where it was.

use std::ffi::OsString;
use std::time::Duration;

use serde_json::{Value, json};

use super::support::https::{Caller, Connection};
use super::support::provost::{Provost, Setup, program};

/// A Provost without policies: every new pod is refused, `no-policy`.
pub(crate) fn provost() -> Provost {
    Setup::on_loopback().start()
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

pub(crate) fn caller(provost: &Provost) -> Caller {
    Caller::new(provost.listen, "provost.provost.svc", &provost.certificates.ca())
}

/// What came of a review.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    pub(crate) uid: String,
    pub(crate) allowed: bool,
    pub(crate) codes: String,
    pub(crate) message: String,
    /// The audit annotation `record`; empty where there is none.
    pub(crate) record: String,
}

/// A new pod of that name, by tag, where no policy governs: it is refused.
pub(crate) fn refused(uid: &str, name: &str) -> String {
    review(uid, name, "CREATE", &Value::Null)
}

/// An update that leaves the image as it was: it is admitted.
pub(crate) fn admitted(uid: &str, name: &str) -> String {
    review(uid, name, "UPDATE", &pod(name))
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "payments"},
           "spec": {"containers": [{"name": "c0", "image": "nginx:latest"}]}})
}

fn review(uid: &str, name: &str, operation: &str, old: &Value) -> String {
    let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
    let resource = json!({"group": "", "version": "v1", "resource": "pods"});
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {
        "uid": uid, "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
        "name": name, "namespace": "payments", "operation": operation,
        "userInfo": {"username": "alice", "groups": ["system:authenticated"]},
        "object": pod(name), "oldObject": old, "dryRun": false,
    }})
    .to_string()
}

/// Sends a review; `None` where the connection breaks.
pub(crate) fn send(connection: &mut Connection, uid: &str, body: &str) -> Option<Answered> {
    let answer = connection.post("/validate?timeout=10s", body).ok()?;
    assert_eq!(answer.status, 200, "every outcome is in-band: {}", answer.body);
    let reply: Value = serde_json::from_str(&answer.body).unwrap_or_else(|e| panic!("{e}: {}", answer.body));
    let response = &reply["response"];
    assert_eq!(response["uid"], uid, "{}", answer.body);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Some(Answered {
        uid: uid.to_owned(),
        allowed: response["allowed"] == true,
        codes: text(&response["auditAnnotations"]["codes"]),
        message: text(&response["status"]["message"]),
        record: text(&response["auditAnnotations"]["record"]),
    })
}
