//! The scripted registry: HTTP/1.1 over raw TCP or TLS, so that every byte of a fault can be chosen and every byte that
//! comes in is kept. Honest until its fault is switched on.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::sample::{Contents, Stage};

/// Between two bytes of an answer that drips.
const DROP: Duration = Duration::from_millis(100);
/// A head that is longer is nobody's.
const LONGEST_HEAD: usize = 64 * 1024;

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) stage: Stage,
    /// Path and query.
    pub(crate) target: String,
    /// The whole head, as it came.
    pub(crate) head: String,
    /// How often this stage was asked before.
    pub(crate) nth: usize,
    /// Whether the fault was on.
    pub(crate) faulty: bool,
}

impl Asked {
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    pub(crate) fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// An answer as HTTP has it.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// An error in the distribution specification's form.
    pub(crate) fn error(status: u16, code: &str) -> Self {
        let body = serde_json::json!({"errors": [{"code": code, "message": "said so"}]}).to_string();
        Self::new(status, body).with("Content-Type", "application/json")
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Status line and headers, without what says how long the body is.
    pub(crate) fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {} Said\r\n", self.status);
        for (name, value) in &self.headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head
    }

    /// All of it, as it should be.
    pub(crate) fn whole(&self) -> Answer {
        self.claiming(self.body.len() as u64)
    }

    /// All of it, with a `Content-Length` of one's own.
    pub(crate) fn claiming(&self, length: u64) -> Answer {
        let mut bytes = format!("{}Content-Length: {length}\r\n\r\n", self.head()).into_bytes();
        bytes.extend_from_slice(&self.body);
        vec![Act::Send(bytes.into())]
    }
}

/// What the server does, one after the other; after the last it waits for the next request.
pub(crate) type Answer = Vec<Act>;

#[derive(Debug, Clone)]
pub(crate) enum Act {
    Send(Bytes),
    /// The same bytes over and over.
    Endless(Bytes),
    /// One byte at a time.
    Drip(Bytes),
    /// Not a word any more, until the peer leaves.
    Hang,
    /// RST.
    Reset,
    /// FIN.
    Close,
}

/// Turns the honest answer into the faulty one.
pub(crate) type Spoil = Arc<dyn Fn(&Asked, Reply, &Around) -> Answer + Send + Sync>;

/// Where a fault can lead.
#[derive(Debug, Clone)]
pub(crate) struct Around {
    /// This server, as a URL.
    pub(crate) base: String,
    /// Servers that nobody may ever connect to: `host:port`, the first without and the second with TLS.
    pub(crate) traps: [String; 2],
    /// Where blobs may be redirected to: `https://host:port`.
    pub(crate) storage: String,
}

/// How connections are taken while the fault is on.
#[derive(Clone)]
pub(crate) enum Door {
    Open,
    /// Nobody listens.
    Refuse,
    /// Accepted, and not a word.
    Silent,
    Close,
    Reset,
    /// Another certificate.
    Present(TlsAcceptor),
    /// Plain HTTP where TLS is expected.
    PlainText,
}

/// How a registry wants to see credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Auth {
    None,
    Basic,
    /// A token from `/token` on the same host, for user and password.
    Bearer,
}

/// What makes a server.
pub(crate) struct Script {
    pub(crate) contents: Contents,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) auth: Auth,
    /// The stem of user, password and token; each of them is found by it.
    pub(crate) canary: String,
    pub(crate) door: Door,
    pub(crate) spoil: Option<(Stage, Spoil)>,
    pub(crate) traps: [String; 2],
    pub(crate) storage: String,
}

/// A running server; it ends when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    on: watch::Sender<bool>,
    task: JoinHandle<()>,
}

struct State {
    script: Script,
    around: Around,
    on: AtomicBool,
    /// Every byte that came in, decrypted.
    received: Mutex<Vec<u8>>,
    asked: Mutex<Vec<Asked>>,
    accepted: AtomicUsize,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// On a free port of 127.0.0.1.
    pub(crate) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port on loopback");
        let address = listener.local_addr().expect("its address");
        let scheme = if script.tls.is_some() { "https" } else { "http" };
        let around = Around {
            base: format!("{scheme}://{address}"),
            traps: script.traps.clone(),
            storage: script.storage.clone(),
        };
        let state = Arc::new(State {
            script,
            around,
            on: AtomicBool::new(false),
            received: Mutex::default(),
            asked: Mutex::default(),
            accepted: AtomicUsize::new(0),
        });
        let on = watch::Sender::new(false);
        let task = tokio::spawn(accept(listener, address, Arc::clone(&state), on.subscribe()));
        Self { address, state, on, task }
    }

    /// A server that serves nothing and is never to be asked.
    pub(crate) async fn trap(tls: Option<TlsAcceptor>) -> Self {
        Self::start(Script {
            contents: Contents::default(),
            tls,
            auth: Auth::None,
            canary: String::new(),
            door: Door::Open,
            spoil: None,
            traps: Default::default(),
            storage: String::new(),
        })
        .await
    }

    /// From here on the fault shows.
    pub(crate) async fn switch_on(&self) {
        self.state.on.store(true, Ordering::SeqCst);
        self.on.send_replace(true);
        if matches!(self.state.script.door, Door::Refuse) {
            // The task drops its receiver once nobody listens any more.
            self.on.closed().await;
        }
    }

    /// From here on all is well again, but for a door that nobody opens any more.
    pub(crate) fn switch_off(&self) {
        self.state.on.store(false, Ordering::SeqCst);
        self.on.send_replace(false);
    }

    /// `127.0.0.1:port`, as the host of an image.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn canary(&self) -> &str {
        &self.state.script.canary
    }

    pub(crate) fn received(&self) -> Vec<u8> {
        self.state.received.lock().expect("lock").clone()
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().expect("lock").clone()
    }

    /// How many connections there were.
    pub(crate) fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }
}

/// User and password that belong to a canary.
pub(crate) fn credential(canary: &str) -> String {
    format!("u{canary}:p{canary}")
}

/// The loop that accepts; with `Door::Refuse` it ends when the fault is switched on, and the port stays taken.
async fn accept(listener: TcpListener, address: SocketAddr, state: Arc<State>, mut on: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let refuse = matches!(state.script.door, Door::Refuse);
    loop {
        tokio::select! {
            _ = on.wait_for(|on| *on && refuse) => break,
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    state.accepted.fetch_add(1, Ordering::SeqCst);
                    connections.spawn(connection(stream, Arc::clone(&state)));
                }
            }
        }
    }
    drop(listener);
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option");
    socket.bind(address).expect("the port is still ours");
    drop(on);
    std::future::pending::<()>().await;
}

async fn connection(mut stream: TcpStream, state: Arc<State>) {
    let faulty = state.on.load(Ordering::SeqCst);
    let door = if faulty { state.script.door.clone() } else { Door::Open };
    let tls = match door {
        Door::Open | Door::Refuse => state.script.tls.clone(),
        Door::Present(other) => Some(other),
        Door::PlainText => {
            // What a server says that was asked in a language that it does not know.
            if stream.read(&mut [0; 64]).await.is_ok() {
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
            }
            return;
        }
        Door::Silent => return listen(&mut stream, &state).await,
        Door::Close => return,
        Door::Reset => return stream.reset(),
    };
    match tls {
        None => serve(stream, &state).await,
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                serve(stream, &state).await;
            }
        }
    }
}

/// One end of a connection.
trait Peer: AsyncRead + AsyncWrite + Unpin {
    /// Ends it with RST when it is dropped.
    fn reset(&self);
}

impl Peer for TcpStream {
    fn reset(&self) {
        self.set_zero_linger().expect("a socket option");
    }
}

impl Peer for tokio_rustls::server::TlsStream<TcpStream> {
    fn reset(&self) {
        self.get_ref().0.reset();
    }
}

/// Keeps what comes until the peer leaves.
async fn listen(stream: &mut impl Peer, state: &State) {
    let mut buffer = vec![0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        state.received.lock().expect("lock").extend_from_slice(&buffer[..count]);
    }
}

async fn serve(mut stream: impl Peer, state: &State) {
    while let Some(head) = read_head(&mut stream, state).await {
        for act in state.answer(head) {
            let sent = match act {
                Act::Send(bytes) => stream.write_all(&bytes).await,
                Act::Endless(bytes) => loop {
                    if let Err(error) = stream.write_all(&bytes).await {
                        break Err(error);
                    }
                },
                Act::Drip(bytes) => drip(&mut stream, &bytes).await,
                Act::Hang => return listen(&mut stream, state).await,
                Act::Reset => {
                    // What is still on its way must arrive before the reset, or it is another fault.
                    let _ = stream.flush().await;
                    return stream.reset();
                }
                Act::Close => {
                    let _ = stream.shutdown().await;
                    return;
                }
            };
            if sent.is_err() {
                return;
            }
        }
        if stream.flush().await.is_err() {
            return;
        }
    }
}

async fn drip(stream: &mut impl Peer, bytes: &[u8]) -> std::io::Result<()> {
    for byte in bytes {
        stream.write_all(&[*byte]).await?;
        stream.flush().await?;
        tokio::time::sleep(DROP).await;
    }
    Ok(())
}

async fn read_head(stream: &mut impl Peer, state: &State) -> Option<String> {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.ends_with(b"\r\n\r\n") && head.len() < LONGEST_HEAD {
        let count = stream.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        state.received.lock().expect("lock").extend_from_slice(&buffer[..count]);
        head.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8(head).ok()
}

impl State {
    fn answer(&self, head: String) -> Answer {
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut asked =
            Asked { stage: Stage::Connection, target, head, nth: 0, faulty: self.on.load(Ordering::SeqCst) };
        let (stage, honest) = self.honest(&asked);
        asked.stage = stage;
        {
            let mut all = self.asked.lock().expect("lock");
            asked.nth = all.iter().filter(|other| other.stage == stage).count();
            all.push(asked.clone());
        }
        match &self.script.spoil {
            Some((spoilt, spoil)) if asked.faulty && *spoilt == stage => spoil(&asked, honest, &self.around),
            Some(_) | None => honest.whole(),
        }
    }

    /// What a sound registry answers.
    fn honest(&self, asked: &Asked) -> (Stage, Reply) {
        let Script { auth, canary, contents, .. } = &self.script;
        let basic = format!("Basic {}", BASE64.encode(credential(canary)));
        let shown = asked.header("authorization");
        if asked.path() == "/token" {
            let reply = match shown {
                Some(shown) if shown == basic => {
                    let token = serde_json::json!({"token": format!("t{canary}"), "expires_in": 300});
                    Reply::new(200, token.to_string()).with("Content-Type", "application/json")
                }
                Some(_) | None => Reply::error(401, "UNAUTHORIZED"),
            };
            return (Stage::Token, reply);
        }
        let (wanted, challenge) = match auth {
            Auth::None => (None, String::new()),
            Auth::Basic => (Some(basic), "Basic realm=\"here\"".to_owned()),
            Auth::Bearer => {
                let base = &self.around.base;
                (Some(format!("Bearer t{canary}")), format!("Bearer realm=\"{base}/token\",service=\"here\""))
            }
        };
        if wanted.is_some_and(|wanted| shown != Some(wanted.as_str())) {
            return (Stage::Challenge, Reply::error(401, "UNAUTHORIZED").with("WWW-Authenticate", &challenge));
        }
        let path = asked.path().strip_prefix("/v2/").unwrap_or_default();
        let stage = contents.0.get(path).map_or_else(|| stage_of(path), |object| object.stage);
        let reply = match contents.0.get(path) {
            // As distribution does it: what the request does not name is not there.
            Some(object) if is_acceptable(object.stage, asked.header("accept"), object.content_type) => {
                Reply::new(200, object.body.clone()).with("Content-Type", object.content_type)
            }
            Some(_) | None if stage == Stage::Blob => Reply::error(404, "BLOB_UNKNOWN"),
            Some(_) | None => Reply::error(404, "MANIFEST_UNKNOWN"),
        };
        (stage, reply)
    }
}

fn is_acceptable(stage: Stage, accept: Option<&str>, content_type: &str) -> bool {
    stage == Stage::Blob || accept.is_some_and(|all| all.split(',').any(|one| one.trim() == content_type))
}

/// What a path that leads to nothing is about.
fn stage_of(path: &str) -> Stage {
    let last = path.rsplit('/').next().unwrap_or_default();
    if path.contains("/referrers/") {
        Stage::Referrers
    } else if path.contains("/blobs/") {
        Stage::Blob
    } else if last.strip_suffix(".sig").is_some() {
        Stage::SigTag
    } else if last.starts_with("sha256-") {
        Stage::FallbackTag
    } else {
        Stage::Image
    }
}
