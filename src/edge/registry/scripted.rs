//! A registry that answers as a test tells it, on loopback only, and remembers what it was asked. It must never be part of
//! the program.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{Budget, HostSettings, Settings};
use crate::decision::reference::{Digest, Host};

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
}

impl Seen {
    /// The path alone.
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A header's text; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A running server; it ends when it is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// A server on 127.0.0.1 over plain HTTP. The script gives the answer to a request, or `None` to stay silent.
    pub(crate) async fn start(script: impl Fn(&Seen) -> Option<Response<Body>> + Send + Sync + 'static) -> Self {
        Self::start_on("127.0.0.1", None, script).await
    }

    /// A server on any loopback address; over TLS where an acceptor is given.
    pub(crate) async fn start_on(
        ip: &str,
        tls: Option<tokio_rustls::TlsAcceptor>,
        script: impl Fn(&Seen) -> Option<Response<Body>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((ip, 0)).await.expect("a free port on loopback");
        let address = listener.local_addr().expect("its address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, script) = (Arc::clone(&seen), Arc::new(script));
        let router = axum::Router::new().fallback(move |request: Request| {
            let (log, script) = (Arc::clone(&log), Arc::clone(&script));
            async move {
                let seen = Seen {
                    method: request.method().clone(),
                    target: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
                    headers: request.headers().clone(),
                };
                log.lock().expect("lock").push(seen.clone());
                match script(&seen) {
                    Some(response) => response,
                    None => std::future::pending().await,
                }
            }
        });
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, router) = (tls.clone(), router.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(stream, router).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, router).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, seen, task }
    }

    /// A server that answers every connection with these bytes and closes it, whatever is asked.
    pub(crate) async fn raw(answer: impl Into<Vec<u8>>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port on loopback");
        let address = listener.local_addr().expect("its address");
        let answer = answer.into();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let answer = answer.clone();
                tokio::spawn(async move {
                    let mut asked = Vec::new();
                    while !asked.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => asked.push(byte),
                            Err(_) => return,
                        }
                    }
                    let _ = stream.write_all(&answer).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self { address, seen: Arc::default(), task }
    }

    /// `127.0.0.1:port`, as the host of an image.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Everything that was asked so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("lock").clone()
    }

    /// Method and target of everything that was asked so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.seen().iter().map(|seen| format!("{} {}", seen.method, seen.target)).collect()
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: axum::Router) {
    let service = TowerToHyperService::new(router);
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// 200 with a body.
pub(crate) fn ok(body: impl Into<Body>) -> Response<Body> {
    Response::new(body.into())
}

/// A status and no body.
pub(crate) fn status(code: u16) -> Response<Body> {
    let mut response = ok("");
    *response.status_mut() = StatusCode::from_u16(code).expect("a status");
    response
}

/// The answer with one more header.
pub(crate) fn with(mut response: Response<Body>, name: &'static str, value: &str) -> Response<Body> {
    response.headers_mut().append(name, value.parse().expect("a header value"));
    response
}

/// A redirect.
pub(crate) fn redirect(code: u16, location: &str) -> Response<Body> {
    with(status(code), header::LOCATION.as_str(), location)
}

/// An error in the distribution specification's form.
pub(crate) fn oci_error(status_code: u16, code: &str) -> Response<Body> {
    let mut response = ok(serde_json::json!({ "errors": [{ "code": code, "message": "said so" }] }).to_string());
    *response.status_mut() = StatusCode::from_u16(status_code).expect("a status");
    response
}

/// SHA-256.
pub(crate) fn digest(bytes: impl AsRef<[u8]>) -> Digest {
    let mut sum = [0; 32];
    sum.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes.as_ref()).as_ref());
    Digest::from_bytes(sum)
}

/// An index with these descriptors, each `(digest, size)`.
pub(crate) fn index(entries: impl IntoIterator<Item = (Digest, u64)>) -> String {
    let manifests: Vec<_> = entries
        .into_iter()
        .map(|(digest, size)| {
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest.to_string(), "size": size,
            })
        })
        .collect();
    serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests,
    })
    .to_string()
}

/// Settings that list each host for plain HTTP on loopback, with short waits.
pub(crate) fn settings<'a>(hosts: impl IntoIterator<Item = &'a str>) -> Settings {
    let mut settings = Settings {
        connect_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(1),
        ..Settings::default()
    };
    for host in hosts {
        let host: Host = host.parse().expect("a host");
        settings.hosts.insert(host, plain());
    }
    settings
}

/// A host that may be on loopback and speaks plain HTTP.
pub(crate) fn plain() -> HostSettings {
    HostSettings {
        addresses: vec!["127.0.0.0/8".parse().expect("a network")],
        plain_http: true,
        ..HostSettings::default()
    }
}

/// Ten seconds, 32 MiB and 250 requests: what one image may spend.
pub(crate) fn budget() -> Budget {
    Budget::new(tokio::time::Instant::now() + Duration::from_secs(10), 32 << 20, 250)
}
