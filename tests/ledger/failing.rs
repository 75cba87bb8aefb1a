//! A disk that stops taking what is written, below the real server: fsync fails, or it turns read-only. Denials are
//! answered, and nothing is overridden (BG-09). The faults come from a small library that is loaded before the C library; Provost itself is the one that ships.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::reviews::{Answered, admitted, again, caller, overridden, provost, refused, send, wait_until_ready};
use super::support::process::Program;
use super::support::{folder, wait};

/// The library, compiled.
fn library() -> PathBuf {
    let library = folder::new("fault").join("fault.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ledger/fault.c");
    Program::new("cc").args(["-shared", "-fPIC", "-O1", "-Wall", "-o"]).arg(&library).arg(source).arg("-ldl").must();
    library
}

#[test]
fn x_127_a_failing_fsync_is_survived_without_a_restart() {
    survives("fsync", 4096, overridden);
}

#[test]
fn x_127_a_disk_that_turns_read_only_is_survived_without_a_restart() {
    survives("readonly", 50, refused);
}

/// Makes a review of a uid and a name.
type Make = fn(&str, &str) -> String;

/// Reviews before, while and after the disk fails so; `admits` is how many admissions are sent meanwhile, and `finds_out` is
/// the first review that meets the fault.
fn survives(fault: &str, admits: usize, finds_out: Make) {
    let mut provost = provost();
    let switch = provost.folder.join("switch");
    fs::write(&switch, "none").expect("write");
    let env = [("LD_PRELOAD", library().into_os_string()), ("FAULT_FILE", OsString::from(&switch))];
    again(&mut provost, &env);
    wait_until_ready(&provost);
    let mut connection = caller(&provost).connect().expect("connected");
    let mut answers: Vec<Answered> = Vec::new();
    let mut ask = |uid: String, make: Make| {
        let answer = send(&mut connection, &uid, &make(&uid, &uid)).expect("the server goes on");
        answers.push(answer.clone());
        answer
    };
    let before = ask("before".to_owned(), refused);
    assert!(!before.allowed && before.record.contains('-'), "{before:?}");
    let before = ask("override-before".to_owned(), overridden);
    assert!(before.is_override() && before.record.contains('-'), "twin: {before:?}");

    fs::write(&switch, fault).expect("write");
    let first = ask("finds-out".to_owned(), finds_out);
    assert!(!first.allowed && first.record == "pending", "{first:?}");
    // Denials go on, and say that their record is not on disk. Overrides become denials, and say why.
    for n in 0..3 {
        ask(format!("override-{n}"), overridden).must_lack_its_record();
        let denial = ask(format!("denial-{n}"), refused);
        assert!(!denial.allowed && denial.record == "pending", "{denial:?}");
        assert_eq!(denial.codes, "no-policy,not-digest-pinned");
        assert!(denial.message.contains("record: pending"), "{}", denial.message);
    }
    // Admissions go on while the queue holds.
    let mut let_in = 0;
    let mut denied = None;
    for n in 0..admits {
        let answer = ask(format!("admit-{n}"), admitted);
        if answer.allowed {
            assert!(answer.record.contains('-'), "{answer:?}");
            let_in += 1;
        } else {
            denied = Some(answer);
            break;
        }
    }
    if admits >= 4096 {
        let denied = denied.expect("a queue of 4096 is full");
        assert_eq!((denied.codes.as_str(), denied.record.as_str()), ("audit-unavailable", ""));
        assert!(let_in > 4000, "{let_in}");
        // Then everything is denied, in-band; a denial says the same as ever, without a record.
        let denial = ask("unrecorded".to_owned(), refused);
        assert!(!denial.allowed && denial.record.is_empty(), "{denial:?}");
        ask("override-unrecorded".to_owned(), overridden).must_lack_its_record();
    } else {
        assert_eq!(let_in, admits);
    }
    assert!(provost.is_ready(), "a ledger that fails makes nobody unready (C-45)");
    assert!(provost.metric("provost_ledger_unsaved", &[]) > 0.0);

    // It comes back: nobody restarts anything.
    fs::write(&switch, "none").expect("write");
    let mut tries = 0;
    let after = wait::until("a denial is on disk again", Duration::from_secs(30), || {
        tries += 1;
        let answer = ask(format!("after-{tries}"), refused);
        answer.record.contains('-').then_some(answer)
    });
    let overridden_again = ask("override-after".to_owned(), overridden);
    assert!(overridden_again.is_override(), "{overridden_again:?}");
    assert!(provost.server.is_running(), "{after:?}");
    drop(connection);
    assert!(provost.end().success(), "{}", provost.server.log());
    let (sound, said) = provost.verify_ledger(&[]);
    assert!(sound, "{said}");

    // What was promised is there, in the order in which it was promised.
    let records = provost.records(&[]);
    // An override that was denied may be followed by that denial: the last word counts.
    let by_uid: BTreeMap<&str, &Value> =
        records.iter().filter_map(|record| Some((record["event"]["uid"].as_str()?, record))).collect();
    for answer in &answers {
        let Answered { uid, allowed, verdict, record, .. } = answer;
        match (by_uid.get(uid.as_str()), record.as_str()) {
            (Some(found), "pending" | "") => {
                assert!(!allowed && found["event"]["verdict"] == "deny", "{answer:?}: {found}");
            }
            (Some(found), name) => {
                assert_eq!((&found["record"], &found["event"]["verdict"]), (&json!(name), &json!(verdict)));
                if answer.is_override() {
                    answer.must_be_overridden(&found["event"]);
                }
            }
            (None, "") => assert!(!allowed, "{uid} was let in without a record"),
            (None, name) => panic!("{uid} is not in the ledger, and its reply said {name}"),
        }
    }
    let overrides = answers.iter().filter(|answer| answer.is_override()).count();
    assert_eq!(overrides, 2, "before and after");
    let streamed: Vec<Value> = fs::read_to_string(provost.server.stdout())
        .expect("records")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    let marked = streamed.iter().filter(|line| line["unsaved"] == true && line["event"]["uid"] == "denial-0").count();
    let saved =
        streamed.iter().filter(|line| line.get("unsaved").is_none() && line["event"]["uid"] == "denial-0").count();
    assert_eq!((marked, saved), (1, 1), "it is streamed as unsaved, and once more when it is saved");
}
