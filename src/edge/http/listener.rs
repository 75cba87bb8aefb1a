//! The accept loops: TCP, handshake, connections, and the way out (C-04, C-05, C-44). It must never reset a connection
//! that carries a request.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, Response, header};
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::callers::{Callers, Visitor};
use super::connection::{Answer, Patience, Patient, Phase};
use super::review::Front;
use super::room::{Places, Room};
use super::{Readiness, Reviewer, health, review};
use crate::edge::metrics::{self as names, Metrics};

/// How many connections health and metrics may have. None of them ever carries a review.
const HEALTH_PLACES: Places = Places { all: 64, newcomers: 64, strangers: 64 };
/// How long what is in flight may take to finish; the longest review ends before.
const LAST_REPLIES: Duration = Duration::from_secs(32);
/// The pause after a failed accept, which mostly means that there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where and within what bounds is served.
#[derive(Debug)]
pub struct Listeners {
    /// The review path.
    pub review: TcpListener,
    /// `/livez`, `/readyz`, `/metrics`.
    pub health: TcpListener,
    /// The TLS settings of the review path, from [`crate::edge::tls::server_config`].
    pub tls: Arc<rustls::ServerConfig>,
    /// How many connections the review path may have. Of these, at most 1024 may not have carried a valid review.
    pub connections: usize,
    /// How callers make themselves known.
    pub callers: Arc<Callers>,
    /// How long a connection may take for what.
    pub patience: Patience,
    /// How long reviews are still served after the end was asked for, so that callers learn of it first.
    pub drain: Duration,
}

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every reply was sent.
    Clean,
    /// So many connections still carried something when the time for last replies was over.
    Cut(usize),
}

/// Serves until `stop` completes, then drains as C-44 says: unready at once, `Connection: close` on every reply for
/// the time of `drain`, then no new connections, and what is in flight is finished. Health is served to the end.
pub async fn serve<R: Reviewer>(
    listeners: Listeners,
    reviewer: Arc<R>,
    readiness: Arc<Readiness>,
    metrics: Metrics,
    stop: impl Future<Output = ()>,
) -> Drained {
    let Listeners { review, health, tls, connections, callers, patience, drain } = listeners;
    let reviews = Door {
        router: review::router(Arc::new(Front::new(reviewer, patience, callers))),
        tls: Some(TlsAcceptor::from(tls)),
        readiness: Arc::clone(&readiness),
        patience,
        room: Room::new(Places::new(connections), Some(metrics::gauge!(names::CONNECTIONS))),
    };
    let checks = Door {
        router: health::router(Arc::clone(&readiness), metrics),
        tls: None,
        readiness: Arc::clone(&readiness),
        patience,
        room: Room::new(HEALTH_PLACES, None),
    };
    // Closing is told to every connection, and each holds its receiver to its end: no receiver left, nothing in flight.
    let closing = watch::Sender::new(false);
    let checks_closing = watch::Sender::new(false);
    let drained = async {
        let until = async {
            stop.await;
            readiness.stop();
            tracing::info!(drain_seconds = drain.as_secs_f64(), "stopping: unready, draining");
            tokio::time::sleep(drain).await;
        };
        // Dropping the loop mid-accept loses nothing: tokio's accept is cancel safe.
        tokio::select! {
            () = reviews.accept_all(&review, &closing) => {}
            () = until => {}
        }
        // What the kernel has accepted for us already would be reset with the listener.
        reviews.admit_waiting(review, &closing);
        closing.send_replace(true);
        match timeout(LAST_REPLIES, closing.closed()).await {
            Ok(()) => Drained::Clean,
            Err(_) => Drained::Cut(reviews.room.taken()),
        }
    };
    tokio::select! {
        drained = drained => drained,
        () = checks.accept_all(&health, &checks_closing) => Drained::Clean,
    }
}

/// What one listener serves.
#[derive(Clone)]
struct Door {
    router: Router,
    tls: Option<TlsAcceptor>,
    readiness: Arc<Readiness>,
    patience: Patience,
    room: Room,
}

impl Door {
    /// Accepts for ever, one at a time, where there is room.
    async fn accept_all(&self, listener: &TcpListener, closing: &watch::Sender<bool>) {
        loop {
            self.room.one_free().await;
            match listener.accept().await {
                Ok((stream, peer)) => self.admit(stream, peer, closing),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves all connections that wait in the kernel's queue, and accepts no more.
    fn admit_waiting(&self, listener: TcpListener, closing: &watch::Sender<bool>) {
        // Asked of the kernel itself: the runtime may not have heard of them yet.
        let listener = match listener.into_std() {
            Ok(listener) => listener,
            Err(error) => return tracing::warn!(%error, "connections that were waiting are lost"),
        };
        while let Ok((stream, peer)) = listener.accept() {
            match stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
                Ok(stream) => self.admit(stream, peer, closing),
                Err(error) => tracing::warn!(%error, "a connection that was waiting is lost"),
            }
        }
    }

    /// Serves a connection in a task of its own.
    fn admit(&self, stream: TcpStream, peer: SocketAddr, closing: &watch::Sender<bool>) {
        let first = Instant::now() + self.patience.first;
        let phase = Phase::new(first, self.patience.first);
        if self.tls.is_none() {
            // Whoever asks for health and metrics comes back every few seconds.
            phase.stays();
        }
        let place = self.room.take(peer.ip(), phase.clone());
        let door = self.clone();
        let closing = closing.subscribe();
        let visitor = Visitor { phase: phase.clone(), place: Arc::new(place), certificate: None };
        tokio::spawn(async move {
            tokio::select! {
                () = door.connection(stream, first, visitor, closing) => {}
                () = phase.sent_off() => {
                    metrics::counter!(names::HTTP_REFUSED_TOTAL, "outcome" => "turned-over").increment(1);
                }
            }
        });
    }

    async fn connection(self, stream: TcpStream, first: Instant, visitor: Visitor, closing: watch::Receiver<bool>) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was refused");
        }
        let Some(tls) = &self.tls else { return self.http(stream, visitor, closing).await };
        let outcome = match timeout_at(first, tls.accept(stream)).await {
            Ok(Ok(stream)) => {
                let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                let certificate = shown.map(|shown| Arc::from(crate::edge::tls::subject(shown)));
                return self.http(stream, Visitor { certificate, ..visitor }, closing).await;
            }
            Ok(Err(error)) => tls_failure(&error),
            Err(_) => "timeout",
        };
        metrics::counter!(names::TLS_FAILURES_TOTAL, "outcome" => outcome).increment(1);
    }

    async fn http<IO>(self, stream: IO, visitor: Visitor, closing: watch::Receiver<bool>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let phase = visitor.phase.clone();
        let stream = TokioIo::new(Patient::new(stream, phase.clone(), self.patience));
        let inner = TowerToHyperService::new(self.router);
        let readiness = &self.readiness;
        let service = service_fn(|mut request: hyper::Request<Incoming>| {
            phase.request();
            request.extensions_mut().insert(visitor.clone());
            let answer = inner.call(request);
            let (phase, readiness) = (phase.clone(), Arc::clone(readiness));
            async move {
                let mut response: Response<_> = answer.await?.map(|body| Answer::new(body, phase));
                if readiness.stopping() {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.patience.idle)
            .max_buf_size(16 << 10)
            .serve_connection(stream, service);
        if let Err(error) = run(connection, &phase, closing).await {
            // A peer that hangs up or is too slow; nobody is left to answer to.
            tracing::debug!(%error, "a connection ended early");
        }
    }
}

/// Runs a connection to its end. Once closing is told, one that is between two requests is closed, and one that is
/// within a reply ends after it. One whose request is just coming in is left alone: its reply will close it.
async fn run<C>(connection: C, phase: &Phase, mut closing: watch::Receiver<bool>) -> Result<(), C::Error>
where
    C: GracefulConnection,
{
    let mut connection = pin!(connection);
    let told = async {
        // An error means that the sender is gone, and with it the process.
        let _closing = closing.wait_for(|closing| *closing).await.is_ok();
    };
    // The connection is polled first: bytes that are there already count as a request that is coming in.
    tokio::select! {
        biased;
        result = connection.as_mut() => return result,
        () = told => {}
    }
    if phase.is_between_headers() {
        connection.as_mut().graceful_shutdown();
    }
    connection.await
}

/// The label for a handshake that failed.
fn tls_failure(error: &io::Error) -> &'static str {
    let detail = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    tracing::debug!(%error, "a TLS handshake failed");
    match detail {
        Some(rustls::Error::NoApplicationProtocol) => "alpn",
        Some(rustls::Error::AlertReceived(_)) => "alert",
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => "client-certificate",
        Some(_) => "protocol",
        None => "io",
    }
}
