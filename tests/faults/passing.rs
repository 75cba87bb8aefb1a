//! Faults that pass: what a registry did wrong a moment ago is no denial of the next review.

use futures::StreamExt as _;

use crate::caller::{Effect, FailurePolicy, pod};
use crate::matrix::{Cache, set};
use crate::rows::{self, Row, Want};
use crate::sample::Stage;

/// Replies that are no answer, where a careless reader would find fault with a document. None of them makes us leave the
/// registry alone for a while, so the next review asks it again.
const NO_ANSWER: [(Stage, &str); 12] = [
    (Stage::Token, "cut JSON"),
    (Stage::Token, "no token in the reply"),
    (Stage::Referrers, "cut JSON"),
    (Stage::Referrers, "HTML"),
    (Stage::FallbackTag, "cut JSON"),
    (Stage::SigTag, "cut JSON"),
    (Stage::Image, "redirect without a Location"),
    (Stage::Referrers, "redirect without a Location"),
    (Stage::FallbackTag, "redirect without a Location"),
    (Stage::SigTag, "redirect without a Location"),
    (Stage::Candidate, "redirect without a Location"),
    (Stage::Blob, "redirect without a Location"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x_050_the_review_after_a_fault_that_has_passed_is_admitted_at_once() {
    let _alone = crate::ALONE.lock().await;
    let is_listed = |row: &Row| NO_ANSWER.contains(&(row.stage, row.fault.as_str()));
    let rows: Vec<Row> = rows::all().into_iter().filter(is_listed).collect();
    assert_eq!(rows.len(), NO_ANSWER.len(), "each of them is a row");
    let stage = set(&rows).await;
    let gate = stage.gate(&rows).await;
    let cold: Vec<_> = stage.sites.iter().filter(|site| site.cache == Cache::Cold).collect();
    let wrong: Vec<String> = futures::stream::iter(&cold)
        .map(async |site| {
            let row = &rows[site.row];
            let number = site.server.address.port();
            let review = |when: &str| pod(&format!("{number}-{when}"), std::slice::from_ref(&site.faulty));
            site.server.switch_on().await;
            let during = gate.caller.review(&review("during"), 30).await;
            site.server.switch_off();
            let after = gate.caller.review(&review("after"), 30).await;
            let Want::Deny(code) = row.want else { return Some(format!("{}: not a fault", row.fault)) };
            let is_right = during.effect(FailurePolicy::Ignore) == Effect::Denied
                && during.codes() == code.as_str()
                && after.effect(FailurePolicy::Fail) == Effect::Admitted;
            let said = || format!("{:?}, {}: {} | {}", row.stage, row.fault, during.message(), after.message());
            (!is_right).then(said)
        })
        .buffer_unordered(8)
        .filter_map(async |wrong| wrong)
        .collect()
        .await;
    assert_eq!(cold.len(), 2 * rows.len());
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(gate.end().await.status.success());
}
