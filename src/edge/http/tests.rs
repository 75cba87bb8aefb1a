//! The way in, from a socket to a reviewer that echoes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::decision::code::Code;
use crate::edge::tls::ca::{self, Made};
use crate::edge::tls::{CertFiles, ClientCheck, ServingCert, with_client_check};

/// Nothing in these tests takes longer.
const LONGEST: Duration = Duration::from_secs(20);
const TOKEN: &str = "0123456789abcdef0123";
const SHORT: Duration = Duration::from_millis(800);

/// Admits everything by its uid, and does what the review's `do` says.
#[derive(Default)]
struct Echo {
    /// Reviews that wait go on from here.
    go_on: Notify,
    /// A waiting review has begun.
    begun: Notify,
    refuse_panics: AtomicBool,
    /// A review that overran was ended.
    ended: Arc<Notify>,
}

struct OnEnd(Arc<Notify>);

impl Drop for OnEnd {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Echo {
    fn denied(head: &[u8], fault: &Fault) -> Reply {
        let text = String::from_utf8_lossy(head);
        match text.split("\"uid\":\"").nth(1).and_then(|rest| rest.split('"').next()) {
            Some(uid) => {
                Reply::Unjudged(format!("{{\"uid\":\"{uid}\",\"allowed\":false,\"code\":\"{}\"}}", fault.code).into())
            }
            None => Reply::Impossible("no uid".to_owned()),
        }
    }
}

fn in_band(uid: &str, rest: &str) -> Reply {
    Reply::InBand(format!("{{\"uid\":\"{uid}\",{rest}}}").into())
}

impl Reviewer for Echo {
    async fn review(&self, body: Bytes, deadline: Instant, caller: Caller) -> Reply {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        let Ok(review) = serde_json::from_slice::<serde_json::Value>(&body) else {
            return Reply::Impossible("not JSON".to_owned());
        };
        let Some(uid) = review.get("uid").and_then(serde_json::Value::as_str) else {
            return Reply::Impossible("no uid".to_owned());
        };
        match review.get("do").and_then(serde_json::Value::as_str) {
            Some("panic") => panic!("as the test wants"),
            Some("overrun") => {
                let _ended = OnEnd(Arc::clone(&self.ended));
                self.begun.notify_one();
                std::future::pending::<()>().await;
            }
            Some("wait") => {
                self.begun.notify_one();
                self.go_on.notified().await;
            }
            Some(_) | None => {}
        }
        in_band(uid, &format!("\"allowed\":true,\"left\":{left},\"caller\":\"{}\"", caller.word()))
    }

    async fn refuse(&self, head: Bytes, fault: Fault, _: Instant, _: Caller) -> Reply {
        assert!(!self.refuse_panics.load(Ordering::Acquire), "as the test wants");
        Self::denied(&head, &fault)
    }

    fn last_resort(&self, head: &[u8], fault: Fault) -> Reply {
        Self::denied(head, &fault)
    }
}

/// A server of this module, with its clients' trust.
struct Served {
    review: std::net::SocketAddr,
    health: std::net::SocketAddr,
    made: Made,
    echo: Arc<Echo>,
    readiness: Arc<Readiness>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Drained>,
}

async fn served(patience: Patience, drain: Duration, connections: usize) -> Served {
    served_for(patience, drain, connections, None).await
}

async fn served_for(
    patience: Patience,
    drain: Duration,
    connections: usize,
    check: Option<Arc<ClientCheck>>,
) -> Served {
    let made = ca::make(&["provost.provost.svc".to_owned()], 1).expect("a certificate");
    let certificate = Arc::new(ServingCert::new());
    let files = CertFiles { cert: "tls.crt".into(), key: "tls.key".into() };
    certificate.offer(&files, made.cert_pem.as_bytes(), made.key_pem.as_bytes()).expect("the pair fits");
    let bind = || TcpListener::bind("127.0.0.1:0");
    let (review, health) = (bind().await.expect("a port"), bind().await.expect("a port"));
    let (review_at, health_at) = (review.local_addr().expect("bound"), health.local_addr().expect("bound"));
    let echo = Arc::new(Echo::default());
    let readiness = Arc::new(Readiness::new(Arc::clone(&certificate)));
    let tls = with_client_check(certificate, check).expect("the settings are right");
    let callers = Arc::new(Callers::default());
    callers.offer(std::path::Path::new("caller-token"), TOKEN.as_bytes()).expect("a token");
    let metrics = crate::edge::metrics::install().expect("no other recorder in this test binary");
    let (stop, stopped) = oneshot::channel();
    let listeners = Listeners { review, health, tls, connections, callers, patience, drain };
    let task = tokio::spawn(serve(listeners, Arc::clone(&echo), Arc::clone(&readiness), metrics, async move {
        // A sender that is dropped stops the server too.
        let _ended = stopped.await.is_ok();
    }));
    Served { review: review_at, health: health_at, made, echo, readiness, stop, task }
}

/// Short enough to wait for, long enough for a busy machine.
fn brief() -> Patience {
    Patience { first: SHORT, header: SHORT, idle: Duration::from_secs(10), body: SHORT, write: LONGEST }
}

impl Served {
    async fn usual() -> Self {
        served(Patience::default(), Duration::ZERO, 100).await
    }

    async fn tls(&self, alpn: &[&str]) -> std::io::Result<Client<TlsStream<TcpStream>>> {
        self.tls_as(alpn, None).await
    }

    /// A connection that shows a client certificate, where one is given: chain and key.
    async fn tls_as(
        &self,
        alpn: &[&str],
        shown: Option<&(String, String)>,
    ) -> std::io::Result<Client<TlsStream<TcpStream>>> {
        let mut roots = rustls::RootCertStore::empty();
        let ca = rustls_pki_types::CertificateDer::from_pem_slice(self.made.ca_pem.as_bytes()).expect("PEM");
        roots.add(ca).expect("a CA");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the defaults are right")
            .with_root_certificates(roots);
        let mut config = match shown {
            None => config.with_no_client_auth(),
            Some((cert, key)) => {
                let cert = rustls_pki_types::CertificateDer::from_pem_slice(cert.as_bytes()).expect("PEM");
                let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
                config.with_client_auth_cert(vec![cert], key).expect("a pair")
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("provost.provost.svc").expect("a name");
        let tcp = TcpStream::connect(self.review).await?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp);
        timeout(LONGEST, stream).await.expect("in time").map(Client)
    }

    async fn client(&self) -> Client<TlsStream<TcpStream>> {
        self.tls(&["http/1.1"]).await.expect("a connection")
    }

    async fn health(&self, path: &str) -> Answer {
        let mut client = Client(TcpStream::connect(self.health).await.expect("health is served"));
        client.call(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"), b"").await.expect("an answer")
    }

    async fn end(self) -> Drained {
        self.stop.send(()).expect("the server runs");
        timeout(LONGEST, self.task).await.expect("in time").expect("no panic")
    }
}

/// HTTP/1.1, by hand, so that nothing is sent or repeated that the test does not see.
struct Client<IO>(IO);

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn closes(&self) -> bool {
        self.head.contains("\r\nconnection: close\r\n")
    }

    fn is(&self, status: u16, body: &str) {
        assert_eq!((self.status, self.body.as_str()), (status, body), "{}", self.head);
        assert!(self.head.contains("\r\ncontent-type: application/json\r\n"), "{}", self.head);
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Client<IO> {
    async fn call(&mut self, head: &str, body: &[u8]) -> std::io::Result<Answer> {
        self.0.write_all(head.as_bytes()).await?;
        self.0.write_all(body).await?;
        self.0.flush().await?;
        self.answer().await
    }

    async fn answer(&mut self) -> std::io::Result<Answer> {
        timeout(LONGEST, async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(self.0.read_u8().await?);
            }
            let head = String::from_utf8(head).expect("ASCII").to_ascii_lowercase();
            let status = head.get(9..12).and_then(|code| code.parse().ok()).expect("a status");
            let length = head.split("\r\ncontent-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a length"))];
            self.0.read_exact(&mut body).await?;
            Ok(Answer { status, head, body: String::from_utf8(body).expect("UTF-8") })
        })
        .await
        .expect("answered in time")
    }

    async fn post(&mut self, target: &str, body: &[u8]) -> std::io::Result<Answer> {
        self.call(&api_server(target, body.len()), body).await
    }

    /// How long it took until the server hung up without another byte.
    async fn hung_up(&mut self) -> Duration {
        let began = Instant::now();
        let read = timeout(LONGEST, self.0.read_u8()).await.expect("hung up in time");
        assert!(read.is_err(), "a byte came instead of the end: {read:?}");
        began.elapsed()
    }
}

/// The header of an API server (C-01).
fn api_server(target: &str, length: usize) -> String {
    format!(
        "POST {target} HTTP/1.1\r\nHost: provost.provost.svc:443\r\nUser-Agent: kube-apiserver-admission\r\n\
         Content-Length: {length}\r\nAccept: application/json, */*\r\nContent-Type: application/json\r\n\
         Accept-Encoding: gzip\r\n\r\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn c_01_the_deadline_follows_the_api_servers_timeout() {
    let served = Served::usual().await;
    let mut client = served.client().await;
    for (target, budget) in [
        ("/validate?timeout=1s", 500),
        ("/validate?timeout=10s", 9_500),
        ("/validate?timeout=30s", 29_500),
        ("/validate", 9_500),
        ("/validate?timeout=abc", 9_500),
        ("/validate?timeout=0s", 9_500),
        ("/validate?timeout=1h", 9_500),
        ("/validate?timeout=-5s", 9_500),
    ] {
        let answer = client.post(target, br#"{"uid":"u1"}"#).await.expect("an answer");
        let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        let left = body["left"].as_u64().expect("a number");
        assert!((budget - 300..=budget).contains(&left), "{target}: {left} ms");
        assert!(!answer.closes(), "{target}");
    }
    assert_eq!(served.end().await, Drained::Clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn c_05_only_http_1_1_is_offered() {
    let served = Served::usual().await;
    let chosen = |client: &Client<TlsStream<TcpStream>>| client.0.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    assert!(served.tls(&["h2"]).await.is_err(), "a client of HTTP/2 alone is refused");
    let mut both = served.tls(&["h2", "http/1.1"]).await.expect("served");
    assert_eq!(chosen(&both).as_deref(), Some(&b"http/1.1"[..]));
    let mut none = served.tls(&[]).await.expect("served");
    assert_eq!(chosen(&none), None);
    for client in [&mut both, &mut none] {
        assert_eq!(client.post("/validate", br#"{"uid":"u1"}"#).await.expect("an answer").status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c_09_a_body_over_the_limit_is_denied_by_its_uid_or_is_413() {
    let served = Served::usual().await;
    let mut client = served.client().await;
    let review = |length: usize| {
        let mut body = br#"{"uid":"u9","pad":""#.to_vec();
        body.resize(length - 2, b'x');
        body.extend_from_slice(b"\"}");
        body
    };
    let fits = client.post("/validate", &review(LIMIT)).await.expect("an answer");
    assert!(fits.body.starts_with(r#"{"uid":"u9","allowed":true,"#), "{}", fits.body);
    for length in [LIMIT + 1, 9 << 20, 20 << 20] {
        let large = client.post("/validate", &review(length)).await.expect("an answer");
        large.is(200, r#"{"uid":"u9","allowed":false,"code":"review-too-large"}"#);
        assert!(!large.closes(), "what was too large was read to its end");
    }
    let junk = client.post("/validate", &vec![b'x'; 9 << 20]).await.expect("an answer");
    assert_eq!(junk.status, 413);
    assert_eq!(client.post("/validate", br#"{"uid":"u1"}"#).await.expect("an answer").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn c_12_what_no_api_server_sends_is_refused_and_its_twin_is_served() {
    let served = Served::usual().await;
    let usual = api_server("/validate", 12);
    let body: &[u8] = br#"{"uid":"u1"}"#;
    let table: &[(&str, &str, u16, &str)] = &[
        // what is changed in the usual header, into what, the answer, and the twin's text
        ("POST /validate ", "PUT /validate ", 405, "POST /validate "),
        ("POST /validate ", "GET /validate ", 405, "POST /validate "),
        ("POST /validate ", "POST /validat ", 404, "POST /validate "),
        ("POST /validate ", "POST /validate/ ", 404, "POST /validate/t "),
        ("POST /validate ", "POST /validate/t/u ", 404, "POST /validate/t?u "),
        ("POST /validate ", "POST //validate ", 404, "POST /validate?timeout=3s "),
        ("POST /validate ", "POST /Validate ", 404, "POST /validate? "),
        ("POST /validate ", "POST /metrics ", 404, "POST /validate "),
        ("Content-Type: application/json\r\n", "", 415, "content-type: Application/JSON\r\n"),
        ("application/json\r\nAcc", "application/jsom\r\nAcc", 415, "application/json; charset=utf-8\r\nAcc"),
        ("application/json\r\nAcc", "application/json+x\r\nAcc", 415, "application/json ;x=y\r\nAcc"),
        ("application/json\r\nAcc", "application/json\r\nContent-Type: a/b\r\nAcc", 415, "application/json\r\nAcc"),
        ("Accept-Encoding: gzip", "Content-Encoding: gzip", 415, "Content-Encoding: identity"),
    ];
    for (part, change, status, twin) in table {
        assert!(usual.contains(part), "{part}");
        for (text, status) in [(change, *status), (twin, 200)] {
            let head = usual.replacen(part, text, 1);
            let answer = served.client().await.call(&head, body).await.expect("an answer");
            assert_eq!(answer.status, status, "{head}");
            assert!(status == 200 || !answer.body.contains("allowed"), "{answer:?}");
            assert_eq!(answer.head.contains("\r\nallow: post\r\n"), status == 405, "{}", answer.head);
        }
    }
    let mut client = served.client().await;
    for (body, status) in
        [(&br#"{"uid":"u1"}"#[..], 200), (br#"{"uie":"u1"}"#, 400), (br#"{"uid":"u1""#, 400), (b"", 400)]
    {
        let answer = client.post("/validate", body).await.expect("an answer");
        assert_eq!(answer.status, status, "{}", String::from_utf8_lossy(body));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn x_102_a_review_that_panics_is_denied_in_band_and_the_process_serves_on() {
    let served = Served::usual().await;
    let mut client = served.client().await;
    let body = br#"{"uid":"u2","do":"panic"}"#;
    let denied = r#"{"uid":"u2","allowed":false,"code":"internal-error"}"#;
    client.post("/validate", body).await.expect("an answer").is(200, denied);
    // The refusal panics as well: the last resort answers.
    served.echo.refuse_panics.store(true, Ordering::Release);
    client.post("/validate", body).await.expect("an answer").is(200, denied);
    let twin = client.post("/validate", br#"{"uid":"u2","do":"panid"}"#).await.expect("an answer");
    assert!(twin.body.starts_with(r#"{"uid":"u2","allowed":true,"#), "{twin:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c_02_a_review_that_overruns_is_denied_in_band_before_the_callers_time_is_up() {
    let served = Served::usual().await;
    let mut client = served.client().await;
    let began = Instant::now();
    let answer = client.post("/validate?timeout=1s", br#"{"uid":"u3","do":"overrun"}"#).await.expect("an answer");
    answer.is(200, r#"{"uid":"u3","allowed":false,"code":"deadline-exceeded"}"#);
    assert!((Duration::from_millis(500)..Duration::from_secs(1)).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_goes_on_without_its_caller_and_still_has_an_end() {
    let served = Served::usual().await;
    let mut client = served.client().await;
    let body = br#"{"uid":"u3","do":"overrun"}"#;
    client.0.write_all(api_server("/validate?timeout=1s", body.len()).as_bytes()).await.expect("open");
    client.0.write_all(body).await.expect("open");
    client.0.flush().await.expect("open");
    timeout(LONGEST, served.echo.begun.notified()).await.expect("the review began");
    let began = Instant::now();
    drop(client);
    timeout(LONGEST, served.echo.ended.notified()).await.expect("the review was ended");
    assert!(began.elapsed() > Duration::from_millis(300), "it did not end with its caller: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_denied_in_band_and_the_connection_closed() {
    let served = served(brief(), Duration::ZERO, 100).await;
    let mut client = served.client().await;
    let answer = client.call(&api_server("/validate", 100), br#"{"uid":"u4","#).await.expect("an answer");
    answer.is(200, r#"{"uid":"u4","allowed":false,"code":"deadline-exceeded"}"#);
    assert!(answer.closes());
    // The same by the review's own deadline, which is shorter here than the time for a body.
    let served = served_for_bodies().await;
    let mut client = served.client().await;
    let answer = client.call(&api_server("/validate?timeout=1s", 100), br#"{"uid":"u4","#).await.expect("an answer");
    answer.is(200, r#"{"uid":"u4","allowed":false,"code":"deadline-exceeded"}"#);
}

async fn served_for_bodies() -> Served {
    served(Patience { body: LONGEST, ..brief() }, Duration::ZERO, 100).await
}

#[tokio::test(flavor = "multi_thread")]
async fn x_094_slow_handshakes_and_headers_are_cut_and_idle_callers_are_not() {
    let served = served(brief(), Duration::ZERO, 100).await;
    let in_time = |cut: Duration| assert!(cut < LONGEST / 2, "cut after {cut:?}");

    let mut silent = Client(TcpStream::connect(served.review).await.expect("a connection"));
    in_time(silent.hung_up().await);

    let mut no_request = served.client().await;
    in_time(no_request.hung_up().await);

    // A byte now and then does not help.
    let mut drip = served.client().await;
    let began = Instant::now();
    for byte in api_server("/validate", 12).bytes().cycle() {
        let sent = drip.0.write_all(&[byte]).await.is_ok() && drip.0.flush().await.is_ok();
        if !sent || began.elapsed() > LONGEST / 2 {
            break;
        }
        let read = timeout(Duration::from_millis(10), drip.0.read_u8()).await;
        if read.is_ok() {
            break;
        }
    }
    in_time(began.elapsed());

    // One that has carried a review may be silent for longer, and is then served at once.
    let mut idle = served.client().await;
    idle.post("/validate", br#"{"uid":"u1"}"#).await.expect("an answer");
    let silence = timeout(SHORT * 3, idle.0.read_u8()).await;
    assert!(silence.is_err(), "cut while idle: {silence:?}");
    idle.post("/validate", br#"{"uid":"u1"}"#).await.expect("an answer");
    // But a header that has begun must end.
    idle.0.write_all(b"POST /vali").await.expect("open");
    idle.0.flush().await.expect("open");
    in_time(idle.hung_up().await);

    let short = Patience { idle: SHORT, ..brief() };
    let served = super::tests::served(short, Duration::ZERO, 100).await;
    let mut idle = served.client().await;
    idle.post("/validate", br#"{"uid":"u1"}"#).await.expect("an answer");
    in_time(idle.hung_up().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn x_094_one_connection_too_many_ends_an_idle_one_and_never_one_with_a_request() {
    let served = served(Patience::default(), Duration::ZERO, 2).await;
    let mut busy = served.client().await;
    let body = br#"{"uid":"u7","do":"wait"}"#;
    busy.0.write_all(api_server("/validate", body.len()).as_bytes()).await.expect("open");
    busy.0.write_all(body).await.expect("open");
    busy.0.flush().await.expect("open");
    timeout(LONGEST, served.echo.begun.notified()).await.expect("the review began");
    let mut idle = served.client().await;
    // One that has carried nothing makes room for the next, and so does one that has, where there is no other.
    let mut next = served.client().await;
    idle.hung_up().await;
    next.post("/validate", br#"{"uid":"u1"}"#).await.expect("an answer");
    let mut last = served.client().await;
    next.hung_up().await;
    let body = br#"{"uid":"u8","do":"wait"}"#;
    last.0.write_all(api_server("/validate", body.len()).as_bytes()).await.expect("open");
    last.0.write_all(body).await.expect("open");
    last.0.flush().await.expect("open");
    timeout(LONGEST, served.echo.begun.notified()).await.expect("the review began");
    // Both carry a request: the next one waits, and neither of them nor it is cut.
    let mut third = std::pin::pin!(served.client());
    assert!(timeout(SHORT, &mut third).await.is_err(), "there is no place");
    served.echo.go_on.notify_one();
    served.echo.go_on.notify_one();
    for (client, uid) in [(&mut busy, "u7"), (&mut last, "u8")] {
        let answer = client.answer().await.expect("a request is never cut");
        assert!(answer.body.starts_with(&format!("{{\"uid\":\"{uid}\",\"allowed\":true")), "{answer:?}");
    }
    let mut third = timeout(LONGEST, third).await.expect("a place came free");
    third.post("/validate", br#"{"uid":"u9"}"#).await.expect("an answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn x_094_only_a_valid_review_lets_a_connection_be_idle_for_long() {
    let served = served(brief(), Duration::ZERO, 100).await;
    for (body, status) in [(&b"junk"[..], 400), (&br#"{"uie":"u1"}"#[..], 400)] {
        let mut client = served.client().await;
        assert_eq!(client.post("/validate", body).await.expect("an answer").status, status);
        assert!(client.hung_up().await < LONGEST / 2, "cut as if nothing had come");
    }
    let mut large = served.client().await;
    let mut body = br#"{"uid":"u9","pad":""#.to_vec();
    body.resize(9 << 20, b'x');
    assert_eq!(large.post("/validate", &body).await.expect("an answer").status, 200);
    assert!(large.hung_up().await < LONGEST / 2, "denied unjudged");
    // Their twin has carried one, and what comes after it changes nothing.
    let mut client = served.client().await;
    assert_eq!(client.post("/validate", br#"{"uid":"u1"}"#).await.expect("an answer").status, 200);
    assert_eq!(client.post("/validate", b"junk").await.expect("an answer").status, 400);
    let silence = timeout(SHORT * 3, client.0.read_u8()).await;
    assert!(silence.is_err(), "cut while idle: {silence:?}");
}

/// A CA for callers, and what it signs.
struct CallerCa(rcgen::CertifiedIssuer<'static, rcgen::KeyPair>);

impl CallerCa {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        Self(rcgen::CertifiedIssuer::self_signed(params, key).expect("a CA"))
    }

    fn client(&self, common_name: &str, usage: rcgen::ExtendedKeyUsagePurpose) -> (String, String) {
        let mut params = rcgen::CertificateParams::new(vec!["callers.example".to_owned()]).expect("a name");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        params.extended_key_usages = vec![usage];
        let key = rcgen::KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.0).expect("a certificate");
        (cert.pem(), key.serialize_pem())
    }
}

/// How a caller fares: the word for it, or nothing where it was refused before it could ask.
async fn fares(served: &Served, shown: Option<&(String, String)>, target: &str) -> Option<String> {
    let mut client = served.tls_as(&["http/1.1"], shown).await.ok()?;
    let answer = client.post(target, br#"{"uid":"u1"}"#).await.ok()?;
    let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    body["caller"].as_str().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn c_08_x_132_who_is_let_in_and_as_whom() {
    use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let (ca, other) = (CallerCa::new(), CallerCa::new());
    let right = ca.client("kube-apiserver", ClientAuth);
    let wrong_ca = other.client("kube-apiserver", ClientAuth);
    let wrong_subject = ca.client("kubelet", ClientAuth);
    let wrong_usage = ca.client("kube-apiserver", ServerAuth);
    let token = format!("/validate/{TOKEN}");
    let wrong_token = format!("/validate/{}", TOKEN.replace('0', "1"));
    let check = |mandatory| {
        let check = ClientCheck::new(vec!["kube-apiserver".to_owned()], mandatory);
        check.offer(std::path::Path::new("ca.crt"), ca.0.pem().as_bytes()).expect("a CA");
        Some(Arc::new(check))
    };
    let forced = served_for(Patience::default(), Duration::ZERO, 100, check(true)).await;
    let either = served_for(Patience::default(), Duration::ZERO, 100, check(false)).await;
    let tokens = served_for(Patience::default(), Duration::ZERO, 100, None).await;
    let table = [
        // what is shown, the path, and who that is: where a certificate must be shown, where it may be, where none is asked for
        (Some(&right), "/validate", [Some("certificate"), Some("certificate"), Some("unknown")]),
        (Some(&right), token.as_str(), [Some("certificate"), Some("certificate"), Some("token")]),
        (Some(&wrong_ca), &token, [None, None, Some("token")]),
        (Some(&wrong_subject), &token, [None, None, Some("token")]),
        (Some(&wrong_usage), &token, [None, None, Some("token")]),
        (None, &token, [None, Some("token"), Some("token")]),
        (None, &wrong_token, [None, Some("unknown"), Some("unknown")]),
        (None, "/validate", [None, Some("unknown"), Some("unknown")]),
    ];
    for (row, (shown, target, want)) in table.into_iter().enumerate() {
        for (served, want) in [&forced, &either, &tokens].into_iter().zip(want) {
            assert_eq!(fares(served, shown, target).await.as_deref(), want, "row {row}, {target}");
        }
    }
    let metrics = forced.health("/metrics").await;
    assert!(metrics.body.contains("provost_tls_failures_total{outcome=\"client-certificate\"}"), "{}", metrics.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn c_44_draining_answers_everything_and_tells_callers_to_leave() {
    let served = served(Patience::default(), Duration::from_secs(1), 100).await;
    served.readiness.ledger_writable();
    served.readiness.policies_read();
    assert_eq!(served.health("/readyz").await.status, 200);

    let mut pooled = served.client().await;
    assert!(!pooled.post("/validate", br#"{"uid":"u1"}"#).await.expect("an answer").closes());
    let mut idle = served.client().await;
    idle.post("/validate", br#"{"uid":"u1"}"#).await.expect("an answer");
    let mut waiting = served.client().await;
    let (head, body) = (api_server("/validate?timeout=30s", 24), br#"{"uid":"u7","do":"wait"}"#);
    waiting.0.write_all(head.as_bytes()).await.expect("open");
    waiting.0.write_all(body).await.expect("open");
    waiting.0.flush().await.expect("open");
    timeout(LONGEST, served.echo.begun.notified()).await.expect("the review began");

    let Served { stop, task, health, review, echo, readiness, made } = served;
    stop.send(()).expect("the server runs");
    timeout(LONGEST, async {
        while !readiness.stopping() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it heard");
    let began = Instant::now();
    // Told already: this one is never used.
    let (stop, _) = oneshot::channel();
    let served = Served { review, health, made, echo, readiness, stop, task };
    let unready = served.health("/readyz").await;
    assert_eq!((unready.status, unready.body.as_str()), (503, "not ready\nstopping\n"));
    assert_eq!(served.health("/livez").await.status, 200);

    // A caller that leaves when it is told to, and never repeats a call, loses none.
    let mut calls = 0;
    while began.elapsed() < Duration::from_millis(500) {
        let answer = pooled.post("/validate", br#"{"uid":"u1"}"#).await.expect("no call fails while draining");
        assert!(answer.closes(), "{}", answer.head);
        pooled = served.client().await;
        calls += 1;
    }
    assert!(calls > 0);
    // An idle connection is ended once nothing is accepted any more, without a byte in between.
    idle.hung_up().await;
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    // What was in flight before is answered after, and the process waits for it.
    assert!(!served.task.is_finished());
    served.echo.go_on.notify_one();
    let last = waiting.answer().await.expect("answered");
    assert!(last.body.starts_with(r#"{"uid":"u7","allowed":true,"#) && last.closes(), "{last:?}");
    assert_eq!(timeout(LONGEST, served.task).await.expect("in time").expect("no panic"), Drained::Clean);
    assert!(TcpStream::connect(served.review).await.is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn c_44_a_request_that_is_just_coming_in_when_the_door_closes_is_answered() {
    let served = served(Patience::default(), Duration::ZERO, 100).await;
    let mut begun = served.client().await;
    begun.post("/validate", br#"{"uid":"u1"}"#).await.expect("an answer");
    begun.0.write_all(b"POST /validate HTTP/1.1\r\n").await.expect("open");
    begun.0.flush().await.expect("open");
    let mut fresh = served.client().await;
    // A full round trip on a third connection, so that the server has seen the bytes above.
    served.client().await.post("/validate", br#"{"uid":"u1"}"#).await.expect("an answer");

    let review = served.review;
    served.stop.send(()).expect("the server runs");
    timeout(LONGEST, async { while TcpStream::connect(review).await.is_ok() {} }).await.expect("the door closed");
    let rest = api_server("/validate", 12).replacen("POST /validate HTTP/1.1\r\n", "", 1);
    let answer = begun.call(&rest, br#"{"uid":"u1"}"#).await.expect("answered");
    assert!(answer.status == 200 && answer.closes(), "{answer:?}");
    let answer = fresh.post("/validate", br#"{"uid":"u1"}"#).await.expect("answered");
    assert!(answer.status == 200 && answer.closes(), "{answer:?}");
    assert_eq!(timeout(LONGEST, served.task).await.expect("in time").expect("no panic"), Drained::Clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn c_45_ready_is_certificate_ledger_and_policies_and_health_serves_nothing_else() {
    let served = Served::usual().await;
    let body = async || served.health("/readyz").await;
    assert_eq!(body().await.body, "not ready\nledger: not writable yet\npolicies: not read yet\n");
    served.readiness.ledger_writable();
    assert_eq!(body().await.body, "not ready\npolicies: not read yet\n");
    served.readiness.policies_read();
    assert_eq!((body().await.status, body().await.body.as_str()), (200, "ok\n"));
    let metrics = served.health("/metrics").await;
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{}", metrics.head);
    assert!(metrics.body.contains("provost_build_info"), "{}", metrics.body);
    for path in ["/", "/validate", "/livez/", "/debug", "/metrics/x"] {
        assert_eq!(served.health(path).await.status, 404, "{path}");
    }
    let none = Readiness::new(Arc::new(ServingCert::new()));
    assert_eq!(none.missing()[0], "certificate: none loaded");
    assert_eq!(Fault::new(Code::InternalError, "").code.http_status(), 500);
}
