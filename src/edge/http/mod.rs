//! The way in: one listener for reviews over TLS, one for health and metrics. It bounds what comes in, in bytes and in
//! time, and hands bytes to a [`Reviewer`]; it must never decide anything, nor write a review's answer itself.
//!
//! - [`listener`]: accept, handshake, drain (C-04, C-05, C-44)
//! - `connection`: how long a connection may be silent in which phase
//! - `room`: how many connections there may be, and who goes first
//! - `callers`: who calls, by certificate or token (C-08)
//! - `review`: the review path (C-01, C-02, C-09, C-12)
//! - `body`, [`deadline`]: one request's bytes and time
//! - [`health`]: `/livez`, `/readyz`, `/metrics` (C-45)

use std::future::Future;

use bytes::Bytes;
use tokio::time::Instant;

use crate::decision::review::{Caller, Fault};

mod body;
mod callers;
mod connection;
pub mod deadline;
pub mod health;
pub mod listener;
mod review;
mod room;

pub use body::{HEAD, LIMIT};
pub use callers::{Callers, make_token};
pub use connection::Patience;
pub use health::Readiness;
pub use listener::{Drained, Listeners, serve};

/// What answers reviews. Every answer is written by it, so that a reply always carries the right uid or is none.
pub trait Reviewer: Send + Sync + 'static {
    /// Judges one review: the body as received, at most [`LIMIT`] bytes. It answers before `deadline`, and answers a
    /// fault of its own in-band. It runs as a task of its own and goes on when the caller hangs up; a panic in it is
    /// answered through [`Reviewer::refuse`], and 200 ms after `deadline` it is ended. The body's bytes count against
    /// what all requests may hold until it is dropped.
    fn review(&self, body: Bytes, deadline: Instant, caller: Caller) -> impl Future<Output = Reply> + Send;

    /// Refuses a review that cannot be judged: too large, not arrived in time, no room for it, or one whose judging
    /// panicked. `head` is the beginning of its body, at most [`HEAD`] bytes, to read the uid from. Bounded as
    /// [`Reviewer::review`] is.
    fn refuse(
        &self,
        head: Bytes,
        fault: Fault,
        deadline: Instant,
        caller: Caller,
    ) -> impl Future<Output = Reply> + Send;

    /// The same, at once, without a record and without waiting for anything: asked only where the other two panicked
    /// or ran over their time.
    fn last_resort(&self, head: &[u8], fault: Fault) -> Reply;
}

/// How a review is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A whole `AdmissionReview` with the request's uid, as JSON. It is sent with HTTP 200, whatever it says (C-02).
    InBand(Bytes),
    /// The same, to what was no review that can be judged, or was not judged: its connection does not become one that
    /// has carried a valid review.
    Unjudged(Bytes),
    /// No valid reply exists, and why: no readable uid, or no `admission.k8s.io/v1` review (C-12, C-20). It becomes an
    /// HTTP 400, or 413 where the body was too large.
    Impossible(String),
}

#[cfg(test)]
mod tests;
