//! What came of it all: the table, and the searches for credentials and records.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use provost::edge::ledger::Reader;
use serde_json::Value;

use crate::canary;
use crate::gate::Ended;
use crate::matrix::{Cache, Outcome, Played, auth};
use crate::rows::{Listing, Row, Want};
use crate::sample::Stage;
use crate::wire::Auth;

/// The rows and what came of them, as text.
pub(crate) fn table(rows: &[Row], outcomes: &[Outcome]) -> String {
    let mut text = format!(
        "{:<12}{:<37}{:<22}{:<27}{:<27}{:<11}{:<11}{}\n",
        "stage", "fault", "must end in", "cold, one image", "cold, several", "warm, one", "warm, sev.", "rule"
    );
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.row == number).collect();
        let want = match row.want {
            Want::Admit => "admit".to_owned(),
            Want::Deny(code) => code.to_string(),
        };
        let short = |outcome: &Outcome| {
            let shown = outcome.shown.replace("deny ", "");
            let mark = if outcome.wrong.is_empty() { "" } else { "!" };
            format!("{mark}{shown} {:.1}s", outcome.took.as_secs_f64())
        };
        // What a warm cell repeats of a cold one need not be said in full.
        let word = |outcome: &Outcome| {
            let mark = if outcome.wrong.is_empty() { "" } else { "!" };
            format!("{mark}{}", outcome.shown.split(' ').next().unwrap_or_default())
        };
        let _ = writeln!(
            text,
            "{:<12}{:<37}{:<22}{:<27}{:<27}{:<11}{:<11}{}",
            format!("{:?}", row.stage),
            row.fault,
            want,
            short(cells[0]),
            short(cells[1]),
            word(cells[2]),
            word(cells[3]),
            row.rule,
        );
    }
    text
}

/// each canary stays with its own registry, and is told to nobody else.
pub(crate) fn credentials(
    stage: &Played,
    rows: &[Row],
    outcomes: &[Outcome],
    metrics: &str,
    ended: &Ended,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    let servers = stage.sites.iter().map(|site| &site.server);
    for server in servers.chain([&stage.good, &stage.storage]).chain(&stage.traps) {
        let found = canary::find(&server.received());
        if found.contains(server.canary()) {
            seen.insert(server.canary());
        }
        for other in found.iter().filter(|canary| *canary != server.canary()) {
            wrong.push(format!("{} was sent the credential {other} of another host", server.address));
        }
        let clear = server.asked().iter().any(|asked| asked.target.contains(server.canary()));
        if clear {
            wrong.push(format!("{} found a credential in a URL", server.address));
        }
    }
    // The search can find: whoever asks for a credential, and is spoken to, has it.
    let asking = stage.sites.iter().filter(|site| {
        let row = &rows[site.row];
        let spoken_to = site.cache == Cache::Warm || !matches!(row.stage, Stage::Connection | Stage::Challenge);
        auth(row, site.crowds) != Auth::None && row.listing == Listing::Listed && spoken_to
    });
    for site in asking {
        if !seen.contains(site.server.canary()) {
            wrong.push(format!("{}: its own credential never came", rows[site.row].fault));
        }
    }
    if seen.len() < stage.sites.len() / 2 {
        wrong.push(format!("only {} registries ever saw their own credential", seen.len()));
    }
    let replies = outcomes.iter().map(|outcome| ("a reply".to_owned(), outcome.replies.clone()));
    let told = ended.said.iter().cloned().chain(replies).chain([("metrics".to_owned(), metrics.as_bytes().to_vec())]);
    for (name, bytes) in told {
        for canary in canary::find(&bytes) {
            wrong.push(format!("{name} holds the credential {canary}"));
        }
    }
    let logged =
        ended.said.iter().map(|(name, bytes)| format!("{name} {} KiB", bytes.len() / 1024)).collect::<Vec<_>>();
    println!("{} registries saw their own credential; searched also: {}", seen.len(), logged.join(", "));
    if !stage.storage.asked().iter().any(|asked| asked.target.contains("/blobs/")) {
        wrong.push("the storage was never asked".to_owned());
    }
    wrong
}

/// Every denial names its record, and that record says the same.
pub(crate) fn ledger(outcomes: &[Outcome], ended: &Ended) -> Vec<String> {
    let reader = Reader::open(&ended.ledger()).expect("the ledger");
    let records = reader.tail(100_000).expect("records");
    let codes: std::collections::HashMap<String, String> = records
        .iter()
        .map(|record| {
            let body: Value = serde_json::from_str(&record.body).expect("JSON");
            let codes = body["event"]["codes"].as_array().into_iter().flatten().filter_map(Value::as_str);
            (record.name.clone(), codes.collect::<Vec<_>>().join(","))
        })
        .collect();
    let mut wrong = Vec::new();
    for outcome in outcomes {
        let want = outcome.shown.strip_prefix("deny ").unwrap_or_default();
        match codes.get(&outcome.record) {
            Some(codes) if codes == want => {}
            // On a busy disk the record may be later than the reply, which then names none.
            None if outcome.record == "pending" && outcome.took > Duration::from_secs(1) => {}
            other => wrong.push(format!("the record {:?} of {:?} says {other:?}", outcome.record, outcome.shown)),
        }
    }
    wrong
}
