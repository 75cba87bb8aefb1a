//! A double of the API server's webhook caller, as far as it decides what a reply is worth (Kubernetes 1.37,
//! `apiserver/pkg/admission/plugin/webhook` and client-go's `rest.Request`).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The name under which a webhook is called that is registered by Service.
const SERVICE: &str = "provost.provost.svc";
/// client-go repeats a call so often.
const REPEATS: u32 = 10;

/// `failurePolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailurePolicy {
    Fail,
    Ignore,
}

/// What comes of a request in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Admitted,
    Denied,
}

/// One call, repeats included.
#[derive(Debug)]
pub(crate) struct Called {
    /// The `response` of a reply that counts, or why there is none: then the failure policy decides.
    pub(crate) reply: Result<Value, String>,
    pub(crate) took: Duration,
    pub(crate) repeats: u32,
}

impl Called {
    /// What an API server makes of it.
    pub(crate) fn effect(&self, policy: FailurePolicy) -> Effect {
        match (&self.reply, policy) {
            // Without `allowed` it reads as false.
            (Ok(response), _) if response["allowed"] == true => Effect::Admitted,
            (Ok(_), _) | (Err(_), FailurePolicy::Fail) => Effect::Denied,
            (Err(_), FailurePolicy::Ignore) => Effect::Admitted,
        }
    }

    /// The codes of the reply, as the audit log gets them.
    pub(crate) fn codes(&self) -> &str {
        self.annotation("codes")
    }

    pub(crate) fn annotation(&self, key: &str) -> &str {
        self.reply.as_ref().ok().and_then(|reply| reply["auditAnnotations"][key].as_str()).unwrap_or_default()
    }

    /// The message that a user sees.
    pub(crate) fn message(&self) -> &str {
        match &self.reply {
            Ok(reply) => reply["status"]["message"].as_str().unwrap_or_default(),
            Err(error) => error,
        }
    }
}

/// The caller: one pool of connections, as an API server has for one client configuration.
#[derive(Clone)]
pub(crate) struct Caller {
    client: reqwest::Client,
    url: String,
}

impl Caller {
    /// Calls `https://provost.provost.svc` at this address, trusting one CA, known by a token in the path.
    pub(crate) fn new(address: SocketAddr, ca: &str, token: &str) -> Self {
        let client = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(ca.as_bytes()).expect("a CA")])
            .resolve(SERVICE, address)
            .no_proxy()
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent("kube-apiserver-admission")
            .build()
            .expect("a client");
        Self { client, url: format!("https://{SERVICE}:{}/validate/{token}", address.port()) }
    }

    /// The same over plain HTTP, for the double's own test.
    fn plain(address: SocketAddr) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { client, url: format!("http://{address}/validate") }
    }

    /// Sends a review and waits for its reply, so many seconds at most, repeats included.
    pub(crate) async fn review(&self, review: &Review, seconds: u64) -> Called {
        let began = Instant::now();
        let mut repeats = 0;
        let asking = self.ask(&review.body, &review.uid, seconds, &mut repeats);
        let reply = tokio::time::timeout(Duration::from_secs(seconds), asking).await;
        let reply = reply.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()));
        Called { reply, took: began.elapsed(), repeats }
    }

    /// Sends whatever is wanted to whatever path, with a header; gives all that comes back.
    pub(crate) async fn say(&self, path: &str, header: (&str, &str), body: String) -> String {
        let (host, _) = self.url.split_once("/validate").expect("made so");
        let (name, value) = header;
        let request = self.client.post(format!("{host}{path}")).header("Content-Type", "application/json");
        let sent = request.header(name, value).timeout(Duration::from_secs(30)).body(body).send().await;
        let answer = sent.expect("an answer in time");
        let head = format!("{} {:?}", answer.status(), answer.headers());
        format!("{head}\n{}", answer.text().await.expect("a text"))
    }

    /// The path of the webhook.
    pub(crate) fn path(&self) -> &str {
        let (_, token) = self.url.split_once("/validate").expect("made so");
        &self.url[self.url.len() - token.len() - "/validate".len()..]
    }

    async fn ask(&self, body: &str, uid: &str, seconds: u64, repeats: &mut u32) -> Result<Value, String> {
        loop {
            let sent = self
                .client
                .post(format!("{}?timeout={seconds}s", self.url))
                .header("Content-Type", "application/json")
                .header("Accept", "application/json, */*")
                .body(body.to_owned())
                .send()
                .await;
            // A POST that meets a reset or an early end is not sent again.
            let answer = sent.map_err(|error| format!("failed calling webhook: {error:?}"))?;
            let status = answer.status().as_u16();
            let after = answer.headers().get("retry-after").and_then(|text| text.to_str().ok()?.parse::<u64>().ok());
            if let Some(after) = after.filter(|_| status == 429 || status >= 500)
                && *repeats < REPEATS
            {
                *repeats += 1;
                tokio::time::sleep(Duration::from_secs(after)).await;
                continue;
            }
            let body = answer.bytes().await.map_err(|error| format!("failed calling webhook: {error:?}"))?;
            return read(status, &body, uid);
        }
    }
}

/// The `response` of a reply that counts.
fn read(status: u16, body: &[u8], uid: &str) -> Result<Value, String> {
    if !(200..=206).contains(&status) {
        return Err(format!("the server answered {status}"));
    }
    let mut review: Value = serde_json::from_slice(body).map_err(|error| format!("no JSON: {error}"))?;
    if review["apiVersion"] != "admission.k8s.io/v1" || review["kind"] != "AdmissionReview" {
        return Err("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview".to_owned());
    }
    let response = review["response"].take();
    if !response.is_object() {
        return Err("webhook response was absent".to_owned());
    }
    if response["uid"] != uid {
        return Err("expected response.uid to be that of the request".to_owned());
    }
    if response.get("patch").is_some() || response.get("patchType").is_some() {
        return Err("a validating webhook may not patch".to_owned());
    }
    if !(response["allowed"].is_boolean() || response["allowed"].is_null()) {
        return Err("allowed is no boolean".to_owned());
    }
    Ok(response)
}

/// An `AdmissionReview` as it is sent.
pub(crate) struct Review {
    uid: String,
    body: String,
}

/// A review of a new pod with these images, one container each. As in an API server's text, the uid comes first.
pub(crate) fn pod(uid: &str, images: &[String]) -> Review {
    let containers: Vec<Value> = images
        .iter()
        .enumerate()
        .map(|(number, image)| serde_json::json!({"name": format!("c{number}"), "image": image}))
        .collect();
    let kind = serde_json::json!({"group": "", "version": "v1", "kind": "Pod"});
    let resource = serde_json::json!({"group": "", "version": "v1", "resource": "pods"});
    let user = serde_json::json!({"username": "alice@acme.com", "groups": ["system:authenticated"]});
    let object = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "payments"},
        "spec": {"containers": containers},
    });
    let body = format!(
        r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"{uid}","kind":{kind},"resource":{resource},"requestKind":{kind},"requestResource":{resource},"name":"web","namespace":"payments","operation":"CREATE","userInfo":{user},"object":{object},"oldObject":null,"dryRun":false,"options":{{"kind":"CreateOptions","apiVersion":"meta.k8s.io/v1"}}}}}}"#
    );
    Review { uid: uid.to_owned(), body }
}

/// The double is worth what it tells apart: each reply that an API server takes for a broken hook must be an admission
/// under `Ignore` here as well.
#[tokio::test]
async fn c_02_the_double_takes_no_broken_reply_for_a_denial() {
    use Effect::{Admitted, Denied};
    let good = |response: &str| {
        format!(r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{response}}}"#)
    };
    let denied = good(r#"{"uid":"u","allowed":false}"#);
    let table: Vec<(&str, u16, &str, String, Effect, Effect, u32)> = vec![
        ("a denial", 200, "", denied.clone(), Denied, Denied, 0),
        ("a denial with 206", 206, "", denied.clone(), Denied, Denied, 0),
        ("an admission", 200, "", good(r#"{"uid":"u","allowed":true}"#), Admitted, Admitted, 0),
        ("without allowed", 200, "", good(r#"{"uid":"u"}"#), Denied, Denied, 0),
        ("a denial with 207", 207, "", denied.clone(), Denied, Admitted, 0),
        ("a denial with 403", 403, "", denied.clone(), Denied, Admitted, 0),
        ("500", 500, "", denied.clone(), Denied, Admitted, 0),
        ("503, at once again", 503, "Retry-After: 0\r\n", denied.clone(), Denied, Admitted, REPEATS),
        ("429, at once again", 429, "Retry-After: 0\r\n", denied.clone(), Denied, Admitted, REPEATS),
        ("429, later than it can wait", 429, "Retry-After: 30\r\n", denied.clone(), Denied, Admitted, 1),
        ("404 is not repeated", 404, "Retry-After: 0\r\n", denied.clone(), Denied, Admitted, 0),
        ("another uid", 200, "", good(r#"{"uid":"v","allowed":false}"#), Denied, Admitted, 0),
        ("another uid, allowed", 200, "", good(r#"{"uid":"v","allowed":true}"#), Denied, Admitted, 0),
        ("no uid", 200, "", good(r#"{"allowed":false}"#), Denied, Admitted, 0),
        ("no response", 200, "", good("null"), Denied, Admitted, 0),
        ("another version", 200, "", denied.replace("/v1", "/v1beta1"), Denied, Admitted, 0),
        ("another kind", 200, "", denied.replace("AdmissionReview", "Review"), Denied, Admitted, 0),
        ("a patch", 200, "", good(r#"{"uid":"u","allowed":false,"patch":""}"#), Denied, Admitted, 0),
        ("a patch type", 200, "", good(r#"{"uid":"u","allowed":false,"patchType":null}"#), Denied, Admitted, 0),
        ("allowed as text", 200, "", good(r#"{"uid":"u","allowed":"false"}"#), Denied, Admitted, 0),
        ("cut JSON", 200, "", denied[..denied.len() - 2].to_owned(), Denied, Admitted, 0),
        ("nothing", 200, "", String::new(), Denied, Admitted, 0),
    ];
    for (name, status, headers, body, fail, ignore, repeats) in table {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let double = Caller::plain(listener.local_addr().expect("its address"));
        let length = body.len();
        let answer =
            format!("HTTP/1.1 {status} Said\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        let task = tokio::spawn(async move {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut asked = Vec::new();
                while !asked.ends_with(b"}") && stream.read_buf(&mut asked).await.is_ok_and(|count| count > 0) {}
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        let called = double.review(&Review { uid: "u".to_owned(), body: "{}".to_owned() }, 2).await;
        task.abort();
        let effects = (called.effect(FailurePolicy::Fail), called.effect(FailurePolicy::Ignore));
        assert_eq!((effects, called.repeats), ((fail, ignore), repeats), "{name}: {called:?}");
        assert!(called.took < Duration::from_secs(3), "{name}: {called:?}");
    }
}
