//! The caller: as many TLS connections as wanted, each with one call at a time. It does as little as it can, so that the
//! server is what is measured; and it checks every reply, so that only right answers count.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::{Buf as _, BytesMut};
use futures::future::try_join_all;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::setup::Server;

/// Calls before the measured time, so that caches are warm and connections open.
const WARM_UP: Duration = Duration::from_millis(700);
/// How long a run may last beyond its time.
const SLACK: Duration = Duration::from_secs(15);

/// How hard and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) time: Duration,
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) calls: u32,
    /// Nanoseconds of each call, sorted.
    latencies: Vec<u32>,
    time: Duration,
    /// Processor time of the server's process.
    cpu: Duration,
}

impl Figures {
    pub(crate) fn rate(&self) -> f64 {
        f64::from(self.calls) / self.time.as_secs_f64()
    }

    pub(crate) fn cpu_per_call(&self) -> Duration {
        self.cpu / self.calls
    }

    /// Share of one core that the server used.
    pub(crate) fn busy(&self) -> f64 {
        self.cpu.as_secs_f64() / self.time.as_secs_f64()
    }

    /// What so many of a thousand calls stayed under.
    pub(crate) fn quantile(&self, of_thousand: usize) -> Duration {
        let at = self.latencies.len() * of_thousand / 1000;
        Duration::from_nanos(self.latencies.get(at).copied().unwrap_or_default().into())
    }
}

/// Calls until the time is over. `marker` must stand in every reply, which else must be the body itself.
pub(crate) async fn run(
    roots: &Arc<rustls::RootCertStore>,
    address: SocketAddr,
    body: &[u8],
    marker: Option<&str>,
    load: Load,
    server: &Server,
) -> anyhow::Result<Figures> {
    let connector = TlsConnector::from(Arc::new(tls(roots)?));
    let request = request(body);
    let first = Connection::open(&connector, address).await?.call(&request).await?;
    let want = Want::from_first(&first, body, marker)?;

    let connections = try_join_all((0..load.connections).map(|_| Connection::open(&connector, address))).await?;
    let began = Instant::now() + WARM_UP;
    let ends = began + load.time;
    let tasks = connections.into_iter().map(|connection| {
        let (request, want) = (request.clone(), want.clone());
        tokio::spawn(call_until(connection, request, want, began, ends))
    });
    let tasks: Vec<_> = tasks.collect();
    tokio::time::sleep_until(began.into()).await;
    let cpu = server.cpu_time()?;
    tokio::time::sleep_until(ends.into()).await;
    let cpu = server.cpu_time()?.saturating_sub(cpu);

    let mut latencies = Vec::new();
    for each in tokio::time::timeout(SLACK, try_join_all(tasks)).await.context("calls that did not end")?? {
        latencies.extend(each?);
    }
    latencies.sort_unstable();
    let calls = u32::try_from(latencies.len()).context("more calls than can be counted")?;
    ensure!(calls > 0, "no call was answered");
    Ok(Figures { calls, latencies, time: load.time, cpu })
}

async fn call_until(
    mut connection: Connection,
    request: Arc<[u8]>,
    want: Want,
    began: Instant,
    ends: Instant,
) -> anyhow::Result<Vec<u32>> {
    let mut latencies = Vec::with_capacity(1 << 14);
    loop {
        let sent = Instant::now();
        let reply = connection.call(&request).await?;
        let now = Instant::now();
        ensure!(want.holds(&reply), "a reply of another kind: {}", String::from_utf8_lossy(&reply));
        if now >= ends {
            return Ok(latencies);
        }
        if sent >= began {
            latencies.push(u32::try_from((now - sent).as_nanos()).unwrap_or(u32::MAX));
        }
    }
}

/// What each reply must hold.
#[derive(Debug, Clone)]
enum Want {
    /// These bytes at this place.
    Marker { at: usize, text: Arc<[u8]> },
    /// So many bytes.
    Length(usize),
}

impl Want {
    fn from_first(reply: &[u8], body: &[u8], marker: Option<&str>) -> anyhow::Result<Self> {
        let Some(marker) = marker else {
            ensure!(reply == body, "the echo differs from what was sent");
            return Ok(Self::Length(body.len()));
        };
        let marker = marker.as_bytes();
        match reply.windows(marker.len()).position(|part| part == marker) {
            Some(at) => Ok(Self::Marker { at, text: marker.into() }),
            None => bail!("not the verdict that this review must get: {}", String::from_utf8_lossy(reply)),
        }
    }

    fn holds(&self, reply: &[u8]) -> bool {
        match self {
            Self::Marker { at, text } => reply.get(*at..).is_some_and(|rest| rest.starts_with(text)),
            Self::Length(length) => reply.len() == *length,
        }
    }
}

struct Connection {
    stream: TlsStream<TcpStream>,
    buffer: BytesMut,
}

impl Connection {
    async fn open(connector: &TlsConnector, address: SocketAddr) -> anyhow::Result<Self> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let stream = connector.connect(ServerName::from(address.ip()), tcp).await?;
        Ok(Self { stream, buffer: BytesMut::with_capacity(16 << 10) })
    }

    /// One call; the reply's body. Anything but 200 with a length is an error.
    async fn call(&mut self, request: &[u8]) -> anyhow::Result<BytesMut> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        loop {
            if let Some((head, length)) = head(&self.buffer)? {
                while self.buffer.len() < head + length {
                    self.fill().await?;
                }
                self.buffer.advance(head);
                return Ok(self.buffer.split_to(length));
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the server closed a connection");
        Ok(())
    }
}

/// Length of the head and of the body after it, once the head is there.
fn head(bytes: &[u8]) -> anyhow::Result<Option<(usize, usize)>> {
    let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..end]).context("a head that is no text")?;
    ensure!(text.starts_with("HTTP/1.1 200 "), "not 200: {text}");
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    Ok(Some((end + 4, length.context("a reply without a length")?)))
}

/// As the API server writes it.
fn request(body: &[u8]) -> Arc<[u8]> {
    let mut request = format!(
        "POST /validate?timeout=10s HTTP/1.1\r\nHost: provost.provost.svc:443\r\nUser-Agent: kube-apiserver-admission\r\n\
         Content-Length: {}\r\nAccept: application/json, */*\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request.into()
}

fn tls(roots: &Arc<rustls::RootCertStore>) -> anyhow::Result<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(Arc::clone(roots))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
