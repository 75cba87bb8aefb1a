//! A disk that stops taking what is written, below the real server: fsync fails, or it turns read-only. The faults
//! come from a small library that is loaded before the C library; Provost itself is the one that ships.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::reviews::{Answered, admitted, again, caller, provost, refused, send, wait_until_ready};
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
    survives("fsync", 4096);
}

#[test]
fn x_127_a_disk_that_turns_read_only_is_survived_without_a_restart() {
    survives("readonly", 50);
}

/// Reviews before, while and after the disk fails so; `admits` is how many admissions are sent meanwhile.
fn survives(fault: &str, admits: usize) {
    let mut provost = provost();
    let switch = provost.folder.join("switch");
    fs::write(&switch, "none").expect("write");
    let env = [("LD_PRELOAD", library().into_os_string()), ("FAULT_FILE", OsString::from(&switch))];
    again(&mut provost, &env);
    wait_until_ready(&provost);
    let mut connection = caller(&provost).connect().expect("connected");
    let mut answers: Vec<Answered> = Vec::new();
    let mut ask = |uid: String, admit: bool| {
        let body = if admit { admitted(&uid, &uid) } else { refused(&uid, &uid) };
        let answer = send(&mut connection, &uid, &body).expect("the server goes on");
        answers.push(answer.clone());
        answer
    };
    let before = ask("before".to_owned(), false);
    assert!(!before.allowed && before.record.contains('-'), "{before:?}");

    fs::write(&switch, fault).expect("write");
    // Denials go on, and say that their record is not on disk.
    for n in 0..3 {
        let denial = ask(format!("denial-{n}"), false);
        assert!(!denial.allowed && denial.record == "pending", "{denial:?}");
        assert_eq!(denial.codes, "no-policy,not-digest-pinned");
        assert!(denial.message.contains("record: pending"), "{}", denial.message);
    }
    // Admissions go on while the queue holds.
    let mut let_in = 0;
    let mut denied = None;
    for n in 0..admits {
        let answer = ask(format!("admit-{n}"), true);
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
        let denial = ask("unrecorded".to_owned(), false);
        assert!(!denial.allowed && denial.record.is_empty(), "{denial:?}");
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
        let answer = ask(format!("after-{tries}"), false);
        answer.record.contains('-').then_some(answer)
    });
    assert!(provost.server.is_running(), "{after:?}");
    drop(connection);
    assert!(provost.end().success(), "{}", provost.server.log());
    let (sound, said) = provost.verify_ledger(&[]);
    assert!(sound, "{said}");

    // What was promised is there, in the order in which it was promised.
    let records = provost.records(&[]);
    let by_uid: BTreeMap<&str, &Value> =
        records.iter().filter_map(|record| Some((record["event"]["uid"].as_str()?, record))).collect();
    for Answered { uid, allowed, record, .. } in &answers {
        match (by_uid.get(uid.as_str()), record.as_str()) {
            (Some(found), "pending") => assert_eq!(found["event"]["verdict"], "deny"),
            (Some(found), name) => {
                assert_eq!(found["record"], name);
                assert_eq!(found["event"]["verdict"], if *allowed { "admit" } else { "deny" });
            }
            (None, "") => assert!(!allowed, "{uid} was let in without a record"),
            (None, name) => panic!("{uid} is not in the ledger, and its reply said {name}"),
        }
    }
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
