//! Health and metrics, on a listener of their own: `/livez`, `/readyz`, `/metrics` and nothing else. It must never
//! carry image data nor reach the review path.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use crate::edge::clock;
use crate::edge::metrics::Metrics;
use crate::edge::tls::ServingCert;

/// Whether reviews should be sent here (C-45). Ready for the first time when a certificate is loaded, the ledger was
/// writable once and the policies were read once, whatever their state; after that only an expired certificate or the
/// end of the process makes it unready. Every other fault is answered in-band.
#[derive(Debug)]
pub struct Readiness {
    certificate: Arc<ServingCert>,
    ledger: AtomicBool,
    policies: AtomicBool,
    stopping: AtomicBool,
}

impl Readiness {
    /// Not ready yet.
    #[must_use]
    pub fn new(certificate: Arc<ServingCert>) -> Self {
        let no = || AtomicBool::new(false);
        Self { certificate, ledger: no(), policies: no(), stopping: no() }
    }

    /// The ledger took a write.
    pub fn ledger_writable(&self) {
        self.ledger.store(true, Ordering::Release);
    }

    /// The policies were read, whatever came of it.
    pub fn policies_read(&self) {
        self.policies.store(true, Ordering::Release);
    }

    /// The process ends: not ready from now on, and each reply asks for the connection's end (C-44).
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Whether the end of the process has begun.
    #[must_use]
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// What is missing, in words; empty when ready.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if self.stopping() {
            missing.push("stopping".to_owned());
        }
        match self.certificate.not_after() {
            None => missing.push("certificate: none loaded".to_owned()),
            Some(end) if end <= clock::now() => missing.push(format!("certificate: expired at {end}")),
            Some(_) => {}
        }
        if !self.ledger.load(Ordering::Acquire) {
            missing.push("ledger: not writable yet".to_owned());
        }
        if !self.policies.load(Ordering::Acquire) {
            missing.push("policies: not read yet".to_owned());
        }
        missing
    }
}

/// The routes of the health listener.
pub(super) fn router(readiness: Arc<Readiness>, metrics: Metrics) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready).with_state(readiness))
        .route("/metrics", get(async move || render(&metrics)))
}

async fn ready(State(readiness): State<Arc<Readiness>>) -> Response {
    let missing = readiness.missing();
    if missing.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{}\n", missing.join("\n"))).into_response()
}

/// Prometheus text format, version 0.0.4.
fn render(metrics: &Metrics) -> Response {
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, text)], metrics.render()).into_response()
}
