//! One connection's time: how long it may be silent in each phase of its life. It must never end one that carries a
//! request; that has a deadline of its own.
//!
//! hyper's `header_read_timeout` runs while a kept connection is idle, so it cannot tell a client that sends its header
//! byte by byte from a caller that has nothing to ask. It is used for the idle time only; the rest is told apart here,
//! where the bytes arrive.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a connection may take for what.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From accept to the end of the first request's header, TLS handshake included.
    pub first: Duration,
    /// From the first byte of a later request to the end of its header.
    pub header: Duration,
    /// Without a byte between two requests.
    pub idle: Duration,
    /// For a whole body.
    pub body: Duration,
    /// Without progress while a reply is written.
    pub write: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let short = Duration::from_secs(5);
        Self { first: short, header: short, idle: Duration::from_mins(2), body: short, write: Duration::from_secs(10) }
    }
}

/// How late a body may be before its connection can be ended for others. A caller sends it with the header.
const BODY_UNDER_WAY: Duration = Duration::from_secs(1);

/// Where a connection stands. Shared by its stream, which sees bytes, its service, which sees requests, and the room, in
/// which others wait for its place.
#[derive(Debug, Clone)]
pub(super) struct Phase(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    leave: Notify,
    /// How long a newcomer may be silent.
    first: Duration,
}

#[derive(Debug, Clone, Copy)]
struct State {
    at: At,
    /// It has carried a valid review, and may be idle for long.
    stays: bool,
}

#[derive(Debug, Clone, Copy)]
enum At {
    /// Before the end of the first header, or of another one of a newcomer, which must come by then.
    First(Instant),
    /// Between two requests, since then.
    Idle(Instant),
    /// Within the header of a later request, which must end by then.
    Header(Instant),
    /// A header is complete since then, and its body is coming in.
    Body(Instant),
    /// A whole request is judged or answered.
    Request,
    /// Ended, for others.
    SentOff,
}

impl At {
    fn may_go(self, now: Instant) -> bool {
        match self {
            Self::First(_) | Self::Idle(_) | Self::Header(_) => true,
            Self::Body(since) => now.duration_since(since) > BODY_UNDER_WAY,
            Self::Request | Self::SentOff => false,
        }
    }
}

impl Phase {
    /// A connection whose first header must have come by then; later ones within `patience`, until it
    /// [`stays`](Self::stays).
    pub(super) fn new(first: Instant, patience: Duration) -> Self {
        let state = Mutex::new(State { at: At::First(first), stays: false });
        Self(Arc::new(Shared { state, leave: Notify::new(), first: patience }))
    }

    /// A header is complete.
    pub(super) fn request(&self) {
        self.goes_on(|_| At::Body(Instant::now()));
    }

    /// The body is complete, or needed no more.
    pub(super) fn arrived(&self) {
        self.goes_on(|_| At::Request);
    }

    /// The reply was sent.
    pub(super) fn replied(&self) {
        let now = Instant::now();
        self.goes_on(|stays| if stays { At::Idle(now) } else { At::First(now + self.0.first) });
    }

    /// From now on it may be idle for long.
    pub(super) fn stays(&self) {
        self.state().stays = true;
    }

    /// Since when it is idle, where it is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        match self.state().at {
            At::Idle(since) => Some(since),
            At::First(_) | At::Header(_) | At::Body(_) | At::Request | At::SentOff => None,
        }
    }

    /// Whether it carries no request, and so can be ended for others.
    pub(super) fn may_go(&self, now: Instant) -> bool {
        self.state().at.may_go(now)
    }

    /// Ends the connection for others, unless it carries a request; true where it does not.
    pub(super) fn send_off(&self, now: Instant) -> bool {
        self.end_where(|at| at.may_go(now))
    }

    /// Ends the connection for others where it is idle.
    pub(super) fn send_off_idle(&self) -> bool {
        self.end_where(|at| matches!(at, At::Idle(_)))
    }

    /// Waits until the connection is ended for others.
    pub(super) async fn sent_off(&self) {
        self.0.leave.notified().await;
    }

    #[cfg(test)]
    pub(super) fn is_sent_off(&self) -> bool {
        matches!(self.state().at, At::SentOff)
    }

    /// Not within a header: nothing is lost when the connection ends after the reply it may be writing.
    pub(super) fn is_between_headers(&self) -> bool {
        match self.state().at {
            At::Idle(_) | At::Body(_) | At::Request | At::SentOff => true,
            At::First(_) | At::Header(_) => false,
        }
    }

    fn end_where(&self, may: impl FnOnce(At) -> bool) -> bool {
        let mut state = self.state();
        let ends = may(state.at);
        if ends {
            state.at = At::SentOff;
            self.0.leave.notify_one();
        }
        ends
    }

    fn goes_on(&self, to: impl FnOnce(bool) -> At) {
        let mut state = self.state();
        if !matches!(state.at, At::SentOff) {
            state.at = to(state.stays);
        }
    }

    /// Bytes came in.
    fn bytes(&self, header: Duration) {
        let mut state = self.state();
        if matches!(state.at, At::Idle(_)) {
            state.at = At::Header(Instant::now() + header);
        }
    }

    /// Until when bytes may be waited for. Between requests hyper's own timer runs.
    fn limit(&self) -> Option<Instant> {
        match self.state().at {
            At::First(by) | At::Header(by) => Some(by),
            At::Idle(_) | At::Body(_) | At::Request | At::SentOff => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is a single assignment.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that fails with [`io::ErrorKind::TimedOut`] when its peer is too slow for the phase it is in.
#[derive(Debug)]
pub(super) struct Patient<IO> {
    io: IO,
    phase: Phase,
    patience: Patience,
    reading: Alarm,
    writing: Alarm,
}

impl<IO> Patient<IO> {
    pub(super) fn new(io: IO, phase: Phase, patience: Patience) -> Self {
        Self { io, phase, patience, reading: Alarm::default(), writing: Alarm::default() }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Patient<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        match Pin::new(&mut this.io).poll_read(cx, buf) {
            Poll::Ready(result) => {
                if buf.filled().len() > before {
                    this.phase.bytes(this.patience.header);
                }
                Poll::Ready(result)
            }
            Poll::Pending => match this.phase.limit() {
                None => Poll::Pending,
                Some(limit) => this.reading.poll(limit, cx),
            },
        }
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Patient<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.io).poll_write(cx, buf);
        this.writing.watch(poll, this.patience.write, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.io).poll_flush(cx);
        this.writing.watch(poll, this.patience.write, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.io).poll_shutdown(cx);
        this.writing.watch(poll, this.patience.write, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.writing.watch(poll, this.patience.write, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// A timer that is made when it is first needed and then moved.
#[derive(Debug, Default)]
struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    /// When the current stall ends, where one is watched.
    stalled_until: Option<Instant>,
}

impl Alarm {
    /// An error once `limit` has passed; else the task is woken then.
    fn poll<T>(&mut self, limit: Instant, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(limit)));
        if sleep.deadline() != limit {
            sleep.as_mut().reset(limit);
        }
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Passes progress on, and turns a stall of this length into an error.
    fn watch<T>(&mut self, poll: Poll<io::Result<T>>, longest: Duration, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.stalled_until = None;
            return poll;
        }
        let limit = *self.stalled_until.get_or_insert_with(|| Instant::now() + longest);
        self.poll(limit, cx)
    }
}

/// A reply's body that ends its request when hyper lets go of it.
#[derive(Debug)]
pub(super) struct Answer<B> {
    body: B,
    phase: Phase,
}

impl<B> Answer<B> {
    pub(super) fn new(body: B, phase: Phase) -> Self {
        Self { body, phase }
    }
}

impl<B> Drop for Answer<B> {
    fn drop(&mut self) {
        self.phase.replied();
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
