//! kill -9 at random moments, again and again on one ledger: whatever a reply named is there, every override that
//! was let pass with all that was refused of it, nothing is named twice, and the chains hold.
//!
//! `PROVOST_KILL_ROUNDS` says how often, 25 (where it is not set) or more.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::reviews::{Answered, Known, admitted, again, caller, overridden, provost, refused, send, wait_until_ready};
use super::support::provost::{Provost, program};

/// Calling threads, each with a connection of its own: two send refusals that differ, one equal ones, one admissions, one
/// overrides.
const CALLERS: usize = 5;
/// How often a ledger is killed at least, before it is read from end to end: else too little is on it.
const ON_ONE_LEDGER: usize = 25;
/// How long load lasts at most before the server is killed, in milliseconds.
const LOAD: u64 = 800;

#[test]
fn x_126_killed_at_random_moments() {
    let mut rounds = rounds();
    for ledgers in (1..=rounds / ON_ONE_LEDGER).rev() {
        let share = rounds / ledgers;
        killed(share);
        rounds -= share;
    }
}

#[expect(clippy::disallowed_methods, reason = "how long to test is no setting of the product")]
fn rounds() -> usize {
    let rounds = match std::env::var("PROVOST_KILL_ROUNDS") {
        Ok(text) => text.parse().expect("PROVOST_KILL_ROUNDS is a whole number"),
        Err(_) => ON_ONE_LEDGER,
    };
    assert!(rounds >= ON_ONE_LEDGER, "PROVOST_KILL_ROUNDS is {ON_ONE_LEDGER} or more");
    rounds
}

fn killed(rounds: usize) {
    let begun = Instant::now();
    let mut provost = provost();
    let mut answers: Vec<Answered> = Vec::new();
    let mut under_load = 0;
    for round in 0..rounds {
        if round > 0 {
            again(&mut provost, &[]);
        }
        // Every fifth time it is killed while it starts.
        if round % 5 == 4 {
            thread::park_timeout(Duration::from_millis(random(120)));
            continue;
        }
        wait_until_ready(&provost);
        answers.extend(load_and_kill(&provost, round));
        under_load += 1;
    }
    again(&mut provost, &[]);
    wait_until_ready(&provost);
    assert!(provost.end().success(), "{}", provost.server.log());
    let figures = judge(&provost, &answers);
    println!("{rounds} kills, {under_load} of them under load, in {:.0} s: {figures}", begun.elapsed().as_secs_f64());
}

/// Below `limit`, and not to be foreseen.
fn random(limit: u64) -> u64 {
    RandomState::new().hash_one(0) % limit
}

/// All replies that arrived before the server was killed.
fn load_and_kill(provost: &Provost, round: usize) -> Vec<Answered> {
    let caller = caller(provost);
    let answered: [AtomicUsize; CALLERS] = Default::default();
    thread::scope(|scope| {
        let callers: Vec<_> = answered
            .iter()
            .enumerate()
            .map(|(which, answered)| (which, answered, caller.clone()))
            .map(|(which, answered, caller)| scope.spawn(move || call(&caller, round, which, answered)))
            .collect();
        // Some live long enough for everybody to be answered, and for what is only counted to reach the disk.
        if round % 8 == 3 {
            let before = counted(provost);
            provost.server.until("everybody is answered and repeats are on disk", Duration::from_mins(1), || {
                let all = answered.iter().all(|answered| answered.load(Ordering::Relaxed) > 0);
                (all && counted(provost) > before + 1).then_some(())
            });
        }
        thread::park_timeout(Duration::from_millis(random(LOAD)));
        provost.server.kill();
        callers.into_iter().flat_map(|caller| caller.join().expect("a caller does not panic")).collect()
    })
}

/// How many refusals are on disk that were only counted.
fn counted(provost: &Provost) -> u64 {
    let records = provost.records(&["--verdict", "repeats"]);
    records.iter().filter_map(|record| record["event"]["count"].as_u64()).sum()
}

fn call(caller: &Known, round: usize, which: usize, answered: &AtomicUsize) -> Vec<Answered> {
    let mut answers = Vec::new();
    let Ok(mut line) = caller.connect() else { return answers };
    loop {
        let uid = format!("u-{round}-{which}-{}", answers.len());
        let body = match which {
            0 => admitted(&uid, &uid),
            1 => refused(&uid, "web"),
            2 => overridden(&uid, &uid),
            _ => refused(&uid, &uid),
        };
        match send(&mut line, &uid, &body) {
            Some(answer) => answers.push(answer),
            None => return answers,
        }
        answered.store(answers.len(), Ordering::Relaxed);
    }
}

/// Holds every reply to the ledger.
fn judge(provost: &Provost, answers: &[Answered]) -> String {
    let ledger = provost.folder.join("ledger.db");
    let records = provost.records(&[]);
    let by_name: BTreeMap<&str, &Value> =
        records.iter().map(|record| (record["record"].as_str().expect("a name"), &record["event"])).collect();
    assert_eq!(by_name.len(), records.len(), "a name stands for one record");
    let counted: BTreeSet<&str> = records
        .iter()
        .flat_map(|record| record["event"]["uids"].as_array().into_iter().flatten().filter_map(Value::as_str))
        .collect();

    let mut named = BTreeSet::new();
    let (mut denials, mut repeats, mut repeats_lost, mut overrides, mut admits, mut lost) = (0, 0, 0, 0, 0, Vec::new());
    for answer in answers {
        let Answered { uid, verdict, record, .. } = answer;
        if let Some(of) = record.strip_prefix("repeat of ") {
            let event = by_name.get(of).unwrap_or_else(|| panic!("{uid} repeats {of}, which is not in the ledger"));
            assert_eq!(event["codes"][0], "no-policy", "{event}");
            repeats += 1;
            // Counts of the last moment before the kill are not on disk: the record that is named says it all.
            repeats_lost += usize::from(!counted.contains(uid.as_str()));
            continue;
        }
        assert!(!record.is_empty() && record != "pending", "{answer:?}");
        assert!(named.insert(record.as_str()), "{record} is named twice");
        match by_name.get(record.as_str()) {
            Some(event) => {
                assert_eq!(event["uid"], uid.as_str(), "{record} is of another review");
                assert_eq!(event["verdict"], verdict.as_str(), "{record}");
                if answer.is_override() {
                    answer.must_be_overridden(event);
                }
            }
            None if verdict == "admit" => lost.push(record.as_str()),
            None => panic!("{record}, named by the reply to {uid} ({verdict}), is not in the ledger"),
        }
        match verdict.as_str() {
            "admit" => admits += 1,
            "deny" => denials += 1,
            "override" => overrides += 1,
            _ => panic!("{answer:?}"),
        }
    }
    assert!(repeats_lost < repeats, "not one of {repeats} repeats is counted on disk");
    assert!(
        denials > 0 && repeats > 0 && admits > 0 && overrides > 0,
        "{denials} denials, {repeats} repeats, {admits} admissions, {overrides} overrides"
    );

    // The chains hold, and what was named and is not there was lost in a crash, which the ledger itself knows.
    let done = program().args(["audit", "verify", "--ledger"]).arg(&ledger).args(&lost).run();
    assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
    assert_eq!(done.stdout.matches("is lost-in-crash").count(), lost.len(), "{}", done.stdout);
    let recovered = done.stdout.matches("goes on in").count();
    assert!(recovered > 0, "{}", done.stdout);
    format!(
        "{overrides} overrides, {denials} denials and {repeats} repeats named their record and every one is there \
         ({repeats_lost} counts of the last moment are not), {admits} admissions ({} lost in crashes and known as such), {} records, {recovered} recovered chains",
        lost.len(),
        records.len(),
    )
}
