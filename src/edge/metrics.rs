//! Metrics: their names, what they mean, and the recorder. It must never take an image, a user or an error text as a
//! label; labels come from closed sets.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::decision::review::Request;
use crate::decision::verdict::Verdict;

macro_rules! metrics {
    ($($name:ident = $kind:ident $text:literal, $unit:expr, $meaning:literal;)+) => {
        $(
            #[doc = $meaning]
            pub const $name: &str = $text;
        )+

        fn describe() {
            $(describe!($kind, $name, $unit, $meaning);)+
        }
    };
}

macro_rules! describe {
    (counter, $name:expr, $unit:expr, $meaning:literal) => {
        metrics::describe_counter!($name, $unit, $meaning)
    };
    (gauge, $name:expr, $unit:expr, $meaning:literal) => {
        metrics::describe_gauge!($name, $unit, $meaning)
    };
    (histogram, $name:expr, $unit:expr, $meaning:literal) => {
        metrics::describe_histogram!($name, $unit, $meaning)
    };
}

metrics! {
    REVIEWS_TOTAL = counter "provost_reviews_total", metrics::Unit::Count,
        "Reviews answered, by verdict and kind of object";
    DENIALS_TOTAL = counter "provost_denials_total", metrics::Unit::Count,
        "Denials, by reason code";
    OVERRIDES_TOTAL = counter "provost_overrides_total", metrics::Unit::Count,
        "Reviews allowed by an override, dry runs not counted, by what permits it";
    REVIEW_DURATION_SECONDS = histogram "provost_review_duration_seconds", metrics::Unit::Seconds,
        "Time from a review's header to its answer, by outcome";
    STAGE_DURATION_SECONDS = histogram "provost_stage_duration_seconds", metrics::Unit::Seconds,
        "Time spent in each stage of a review";
    EVIDENCE_REQUESTS_TOTAL = counter "provost_evidence_requests_total", metrics::Unit::Count,
        "Questions put to the evidence edge, by outcome";
    EVIDENCE_CACHE_HITS_TOTAL = counter "provost_evidence_cache_hits_total", metrics::Unit::Count,
        "Questions answered from the cache";
    EVIDENCE_CACHE_MISSES_TOTAL = counter "provost_evidence_cache_misses_total", metrics::Unit::Count,
        "Questions that the cache could not answer";
    EVIDENCE_CACHE_STALE_TOTAL = counter "provost_evidence_cache_stale_total", metrics::Unit::Count,
        "Questions answered from proofs past their time, because the registry could not be reached";
    REGISTRY_REQUESTS_TOTAL = counter "provost_registry_requests_total", metrics::Unit::Count,
        "Calls to registries, by outcome";
    LEDGER_RECORDS_TOTAL = counter "provost_ledger_records_total", metrics::Unit::Count,
        "Records written to the ledger";
    LEDGER_COMMIT_SECONDS = histogram "provost_ledger_commit_seconds", metrics::Unit::Seconds,
        "Time of one commit of the ledger";
    LEDGER_UNSAVED = gauge "provost_ledger_unsaved", metrics::Unit::Count,
        "Records that are not on disk yet";
    LEDGER_BYTES = gauge "provost_ledger_bytes", metrics::Unit::Bytes,
        "Size of the ledger's file";
    LEDGER_SPACE_USED_RATIO = gauge "provost_ledger_space_used_ratio", metrics::Unit::Count,
        "Share of the ledger's file system that is used, 0 to 1; from 0.8 on somebody should make room";
    POLICY_INFO = gauge "provost_policy_info", metrics::Unit::Count,
        "Policies in force, by source";
    POLICY_LOAD_FAILURES_TOTAL = counter "provost_policy_load_failures_total", metrics::Unit::Count,
        "Loads of the policies that failed";
    POLICIES_STALE = gauge "provost_policies_stale", metrics::Unit::Count,
        "1 while an older set of policies is in force because the present one does not load";
    CERT_NOT_AFTER_SECONDS = gauge "provost_cert_not_after_seconds", metrics::Unit::Seconds,
        "End of the serving certificate, in seconds since 1970";
    CERT_LOAD_FAILURES_TOTAL = counter "provost_cert_load_failures_total", metrics::Unit::Count,
        "Changes of the certificate's files that could not be taken over";
    CONNECTIONS = gauge "provost_connections", metrics::Unit::Count,
        "Connections of the review path";
    IN_FLIGHT = gauge "provost_in_flight", metrics::Unit::Count,
        "Reviews being read, judged or answered";
    WAITING = gauge "provost_waiting", metrics::Unit::Count,
        "Reviews that wait for evidence from registries";
    OVERLOADED_TOTAL = counter "provost_overloaded_total", metrics::Unit::Count,
        "Reviews turned away unjudged because there was no room for them";
    CALLERS_UNKNOWN_TOTAL = counter "provost_callers_unknown_total", metrics::Unit::Count,
        "Reviews from callers with neither a client certificate nor a token that is known";
    OBSERVE = gauge "provost_observe", metrics::Unit::Count,
        "1 where nothing is denied because the operator only observes";
    HTTP_REFUSED_TOTAL = counter "provost_http_refused_total", metrics::Unit::Count,
        "Requests and connections refused outside of the review protocol, by outcome";
    TLS_FAILURES_TOTAL = counter "provost_tls_failures_total", metrics::Unit::Count,
        "TLS handshakes that failed, by outcome";
    BUILD_INFO = gauge "provost_build_info", metrics::Unit::Count,
        "Always 1; its label is the version";
}

/// Upper bounds of the duration histograms, in seconds: a warm review takes well under a millisecond, the longest 30 s.
const BUCKETS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The recorder's reading end. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// All metrics in the Prometheus text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Folds finished samples into the histograms, so that memory stays bounded where nobody scrapes. Call it every
    /// few seconds.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

/// Counts one review from its verdict: the verdict by kind, each denial by code, the time by stage.
pub fn review(verdict: &Verdict, request: &Request, stages: &[(&'static str, Duration)]) {
    metrics::counter!(REVIEWS_TOTAL, "verdict" => verdict.word(), "kind" => kind(&request.kind.kind)).increment(1);
    for code in verdict.codes() {
        metrics::counter!(DENIALS_TOTAL, "code" => code.as_str()).increment(1);
    }
    // One for each review, whatever number of containers it is about; what several permit is named by the first.
    if let (Some(permission), false) = (verdict.permissions().first(), request.dry_run) {
        metrics::counter!(OVERRIDES_TOTAL, "by" => permission.kind()).increment(1);
    }
    for (stage, took) in stages {
        metrics::histogram!(STAGE_DURATION_SECONDS, "stage" => *stage).record(took.as_secs_f64());
    }
    let whole: Duration = stages.iter().map(|(_, took)| *took).sum();
    metrics::histogram!(REVIEW_DURATION_SECONDS, "outcome" => verdict.word()).record(whole.as_secs_f64());
}

/// Says what serves: how many policies and deny-lists, how many of them not as they are written, and whether the load failed.
pub fn policies(serving: usize, stale: usize, failed: bool) {
    #[expect(clippy::cast_precision_loss, reason = "a folder holds at most a thousand files")]
    let (serving, stale) = (serving as f64, stale as f64);
    metrics::gauge!(POLICY_INFO, "source" => "folder").set(serving);
    metrics::gauge!(POLICIES_STALE).set(stale);
    if failed {
        metrics::counter!(POLICY_LOAD_FAILURES_TOTAL).increment(1);
    }
}

/// The kind as a label: anybody may name a kind, so only the known ones are told apart.
fn kind(kind: &str) -> &'static str {
    const KNOWN: &[&str] = &[
        "Pod",
        "ReplicationController",
        "PodTemplate",
        "Deployment",
        "ReplicaSet",
        "StatefulSet",
        "DaemonSet",
        "Job",
        "CronJob",
    ];
    KNOWN.iter().find(|known| **known == kind).copied().unwrap_or("other")
}

/// Installs the recorder of this process, or returns the one that is installed. Errors where another recorder is.
pub fn install() -> Result<Metrics, BuildError> {
    static INSTALLED: OnceLock<Metrics> = OnceLock::new();
    static INSTALLING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one_at_a_time = INSTALLING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(metrics) = INSTALLED.get() {
        return Ok(metrics.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), BUCKETS)?
        .install_recorder()?;
    describe();
    metrics::gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(INSTALLED.get_or_init(|| Metrics(handle)).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown_with_its_meaning() {
        let shown = install().expect("no other recorder in this test binary");
        metrics::counter!(TLS_FAILURES_TOTAL, "outcome" => "timeout").increment(1);
        metrics::histogram!(LEDGER_COMMIT_SECONDS).record(0.003);
        let text = shown.render();
        for line in [
            concat!("provost_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "# HELP provost_tls_failures_total TLS handshakes that failed, by outcome",
            "provost_tls_failures_total{outcome=\"timeout\"}",
            "provost_ledger_commit_seconds_bucket{le=\"0.005\"}",
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
        install().expect("a second call returns the first recorder");
    }
}
