//! The review path: `POST /validate`. Every fault from the body on ends in an in-band denial where the uid can be read
//! (C-02); it must never answer a review with HTTP 429 or 5xx, which its caller would repeat or take for a broken hook.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use bytes::Bytes;
use metrics::Gauge;
use tokio::time::{Instant, timeout_at};

use super::body::{self, LIMIT, Memory, Received, Rest};
use super::callers::{Callers, SHORTEST, Visitor};
use super::connection::Patience;
use super::{Reply, Reviewer, deadline};
use crate::decision::code::Code;
use crate::decision::review::{Caller, Fault};
use crate::edge::metrics as names;

/// How long after its deadline a review is ended and answered for.
const LAST_RESORT: Duration = Duration::from_millis(200);
/// How much of a body is kept while it is judged, to answer for it if that fails: an API server writes the uid first.
const KEPT: usize = 8 << 10;

/// What the review path needs to know.
pub(super) struct Front<R> {
    reviewer: Arc<R>,
    patience: Patience,
    callers: Arc<Callers>,
    /// What bodies of known callers may take together, and those of all others.
    memory: [Memory; 2],
    in_flight: Gauge,
}

impl<R> Front<R> {
    pub(super) fn new(reviewer: Arc<R>, patience: Patience, callers: Arc<Callers>) -> Self {
        let memory = [Memory::default(), Memory::default()];
        Self { reviewer, patience, callers, memory, in_flight: metrics::gauge!(names::IN_FLIGHT) }
    }

    /// Strangers cannot use up what those have whom we know.
    fn memory_of(&self, caller: &Caller) -> &Memory {
        let [known, others] = &self.memory;
        if caller.is_known() { known } else { others }
    }
}

/// The routes of the review listener: `/validate`, and `/validate/<x>` with whatever token stands there (C-08).
pub(super) fn router<R: Reviewer>(front: Arc<Front<R>>) -> Router {
    Router::new()
        .route("/validate", post(validate::<R>))
        .route("/validate/{caller}", post(validate::<R>))
        .method_not_allowed_fallback(|request: Request| async move { Refused::Method.respond(&request_line(&request)) })
        .fallback(|request: Request| async move { Refused::Path.respond(&request_line(&request)) })
        .with_state(front)
}

async fn validate<R: Reviewer>(State(front): State<Arc<Front<R>>>, request: Request) -> Response {
    let began = Instant::now();
    let deadline = began + deadline::budget(request.uri().query());
    if let Err(refused) = acceptable(request.headers()) {
        return refused.respond(&request_line(&request));
    }
    let visitor = request.extensions().get::<Visitor>().cloned();
    let certificate = visitor.as_ref().and_then(|visitor| visitor.certificate.as_deref());
    let caller = front.callers.of(certificate, request.uri().path());
    let _in_flight = InFlight::begin(&front.in_flight);
    let until = deadline.min(began + front.patience.body);
    let received = body::read(request.into_body(), until, front.memory_of(&caller)).await;
    let known = caller.is_known();
    if let Some(visitor) = &visitor {
        visitor.phase.arrived();
        if known {
            // The evidence may be long in coming: meanwhile the connection takes no newcomer's place.
            visitor.place.carried_a_review(known);
        }
    }
    let (reply, close) = match received {
        Received::Whole(body) => (judge(&front.reviewer, body, deadline, caller).await, false),
        Received::TooLarge(head, rest) => {
            let fault = Fault::new(Code::ReviewTooLarge, format!("the review is larger than {LIMIT} bytes"));
            let reply = match refuse(&front.reviewer, head, fault, deadline, caller).await {
                Reply::InBand(bytes) | Reply::Unjudged(bytes) => in_band(bytes),
                Reply::Impossible(why) => Refused::TooLarge.respond(&why),
            };
            return close_if(reply, rest == Rest::Unread);
        }
        Received::NoRoom(head, rest) => {
            let fault = Fault::new(Code::Overloaded, "Provost is at capacity and judged nothing");
            (refuse(&front.reviewer, head, fault, deadline, caller).await, rest == Rest::Unread)
        }
        Received::Late(head) => {
            let fault = Fault::new(Code::DeadlineExceeded, "the review's body did not arrive in time");
            (refuse(&front.reviewer, head, fault, deadline, caller).await, true)
        }
        Received::Cut(_) => return close_if(Refused::Cut.respond("the body broke off"), true),
    };
    let response = match reply {
        Reply::InBand(bytes) => {
            if let Some(visitor) = &visitor {
                visitor.place.carried_a_review(known);
            }
            in_band(bytes)
        }
        Reply::Unjudged(bytes) => in_band(bytes),
        Reply::Impossible(why) => Refused::NoReview.respond(&why),
    };
    close_if(response, close)
}

/// Runs the review as a task of its own, so that it is recorded even when its caller hangs up, and ends it when it
/// panics or overruns.
async fn judge<R: Reviewer>(reviewer: &Arc<R>, body: Bytes, deadline: Instant, caller: Caller) -> Reply {
    let head = Bytes::copy_from_slice(body.get(..KEPT).unwrap_or(&body));
    let (of_task, who) = (Arc::clone(reviewer), caller.clone());
    match finish(async move { of_task.review(body, deadline, who).await }, deadline).await {
        Ok(reply) => reply,
        Err(Unfinished::Panicked) => {
            let fault = Fault::new(Code::InternalError, "the review failed in a way that we did not foresee");
            refuse(reviewer, head, fault, deadline, caller).await
        }
        Err(Unfinished::Overran) => last_resort(reviewer.as_ref(), &head, overran()),
    }
}

async fn refuse<R: Reviewer>(reviewer: &Arc<R>, head: Bytes, fault: Fault, deadline: Instant, caller: Caller) -> Reply {
    let (of_task, begun, why) = (Arc::clone(reviewer), head.clone(), fault.clone());
    match finish(async move { of_task.refuse(begun, why, deadline, caller).await }, deadline).await {
        Ok(reply) => reply,
        Err(Unfinished::Panicked | Unfinished::Overran) => last_resort(reviewer.as_ref(), &head, fault),
    }
}

fn last_resort<R: Reviewer>(reviewer: &R, head: &[u8], fault: Fault) -> Reply {
    // Nothing is left half done that anyone would look at again: the reviewer only reads here.
    catch_unwind(AssertUnwindSafe(|| reviewer.last_resort(head, fault))).unwrap_or_else(|_| {
        tracing::error!("the last resort panicked: this review ends as a call error");
        Reply::Impossible("our fault: no answer could be written".to_owned())
    })
}

fn overran() -> Fault {
    Fault::new(Code::DeadlineExceeded, "the review did not end in time")
}

enum Unfinished {
    Panicked,
    Overran,
}

/// Runs an answer as a task of its own, and ends it a moment after its deadline: within the task, since nobody may be
/// waiting for it any more, and here, since it may hold its thread.
async fn finish(answer: impl Future<Output = Reply> + Send + 'static, deadline: Instant) -> Result<Reply, Unfinished> {
    let end = deadline + LAST_RESORT;
    match timeout_at(end, tokio::spawn(timeout_at(end, answer))).await {
        Ok(Ok(Ok(reply))) => Ok(reply),
        Ok(Err(ended)) => {
            tracing::error!(panicked = ended.is_panic(), "a review's task failed; it is denied");
            Err(Unfinished::Panicked)
        }
        Ok(Ok(Err(_))) | Err(_) => {
            tracing::error!("a review overran its deadline and was ended; it is denied");
            Err(Unfinished::Overran)
        }
    }
}

/// C-12: what an API server sends is JSON, and plain. Encoded bodies are neither asked for nor decoded.
fn acceptable(headers: &HeaderMap) -> Result<(), Refused> {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(content_type), None) = (types.next(), types.next()) else { return Err(Refused::ContentType) };
    let essence = content_type.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    if !essence.trim_ascii().eq_ignore_ascii_case(b"application/json") {
        return Err(Refused::ContentType);
    }
    let plain = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if headers.get_all(header::CONTENT_ENCODING).iter().all(plain) { Ok(()) } else { Err(Refused::ContentEncoding) }
}

/// What is answered outside of the review protocol. None of these comes from an API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    Method,
    Path,
    ContentType,
    ContentEncoding,
    Cut,
    NoReview,
    TooLarge,
}

impl Refused {
    const fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Path => StatusCode::NOT_FOUND,
            Self::ContentType | Self::ContentEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Cut | Self::NoReview => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }

    /// The label of the metric, and what the reader is told.
    const fn outcome(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Path => "path",
            Self::ContentType => "content-type",
            Self::ContentEncoding => "content-encoding",
            Self::Cut => "body-cut",
            Self::NoReview => "no-review",
            Self::TooLarge => "too-large",
        }
    }

    const fn sentence(self) -> &'static str {
        match self {
            Self::Method => "reviews are sent by POST\n",
            Self::Path => "reviews are sent to /validate\n",
            Self::ContentType => "reviews are sent as application/json\n",
            Self::ContentEncoding => "reviews are sent without a content encoding\n",
            Self::Cut => "the body broke off\n",
            Self::NoReview => "not an admission.k8s.io/v1 AdmissionReview whose uid can be read\n",
            Self::TooLarge => "too large, and no uid in its beginning\n",
        }
    }

    /// `detail` is logged, escaped; it is not sent back.
    fn respond(self, detail: &str) -> Response {
        metrics::counter!(names::HTTP_REFUSED_TOTAL, "outcome" => self.outcome()).increment(1);
        tracing::info!(outcome = self.outcome(), ?detail, "request refused");
        let mut response = (self.status(), self.sentence()).into_response();
        if self == Self::Method {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        response
    }
}

/// Method and path for the log, shortened. A path may end in a caller's token, so only its first segment is shown, and of a
/// webhook that is registered wrongly that may be the token itself.
fn request_line(request: &Request) -> String {
    let path = request.uri().path();
    let first = path.get(1..).and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let shown = if first.len() < SHORTEST { first } else { "…" };
    let method: String = request.method().as_str().chars().take(16).collect();
    format!("{method} /{shown}")
}

fn in_band(bytes: Bytes) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], bytes).into_response()
}

fn close_if(mut response: Response, close: bool) -> Response {
    if close {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Counts a review for as long as it lives.
struct InFlight(Gauge);

impl InFlight {
    fn begin(gauge: &Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
