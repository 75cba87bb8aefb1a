//! What is folded, what never is, and that nothing grows without bound.

use super::*;
use crate::decision::record::{ChainName, MAX_RECORD, ReviewRecord, Row, Writer};
use crate::decision::review::{Holder, Kind, Operation, Place, ReviewedImage};
use crate::decision::verdict::Softened;
use crate::decision::verdict::for_tests::{admit, denial, deny, would_deny};

fn request(uid: &str) -> Request {
    Request {
        uid: uid.to_owned(),
        operation: Some(Operation::Create),
        kind: Kind { group: String::new(), version: "v1".to_owned(), kind: "Pod".to_owned() },
        namespace: "payments".to_owned(),
        name: "web-".to_owned(),
        user: "alice".to_owned(),
        ..Request::default()
    }
}

fn images(text: &str) -> Vec<ReviewedImage> {
    let place = Place { path: "spec.containers[0]".to_owned(), holder: Holder::Container, name: "app".to_owned() };
    vec![ReviewedImage { place, text: text.to_owned(), unchanged: false }]
}

fn denied(code: Code) -> Verdict {
    deny(vec![denial(code, None, "", "")], vec![], 1)
}

fn refusal_of(request: &Request, images: &[ReviewedImage], verdict: &Verdict) -> Option<Refusal> {
    ReviewRecord::new(ReviewInput { request, images, verdict, fault: None, stages: &[] }).refusal().cloned()
}

fn refusal(uid: &str) -> Refusal {
    refusal_of(&request(uid), &images("busybox"), &denied(Code::Unsigned)).expect("a refusal")
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(1_700_000_000_000 + millis).expect("time")
}

fn name(seq: u64) -> RecordName {
    RecordName::new(ChainName::drawn(7), seq, &NO_RECORD)
}

/// Refuses once; gives what it repeats, and says that it was recorded where it was not.
fn refuse(floods: &mut Floods, refusal: &Refusal, now: Timestamp, seq: u64) -> Option<RecordName> {
    let of = floods.refused(refusal, now);
    if of.is_none() {
        floods.recorded(refusal, name(seq));
    }
    of
}

#[test]
fn x_128_the_eleventh_within_a_minute_is_counted() {
    let mut floods = Floods::new([1; 32]);
    for n in 1..=10 {
        assert_eq!(refuse(&mut floods, &refusal(&format!("u{n}")), at(1), n), None, "{n}");
    }
    assert!(floods.is_empty());
    for n in 11..=13 {
        assert_eq!(refuse(&mut floods, &refusal(&format!("u{n}")), at(59_999), n), Some(name(10)), "{n}");
    }
    let events = floods.drain();
    let [Event::Repeats(repeats)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((repeats.of(), repeats.tally().count(), repeats.tally().rest()), (name(10), 3, None));
    assert_eq!(repeats.tally().uids(), ["u11", "u12", "u13"]);
    let record = events[0].draft().seal(ChainName::drawn(7), 11, at(0), &Writer::new("c", "r"), NO_RECORD);
    let row = Row::of(&record.body).expect("a record");
    let columns = (row.verdict.as_str(), row.namespace.as_str(), row.user.as_str(), row.codes.as_str());
    assert_eq!(columns, ("repeats", "payments", "alice", "unsigned"));
    // Twin: a minute after the first it begins anew.
    assert!(floods.is_empty() && floods.drain().is_empty());
    assert_eq!(refuse(&mut floods, &refusal("u14"), at(60_001), 14), None);
    assert_eq!(refuse(&mut floods, &refusal("u15"), at(60_002), 15), None);
    // A clock that is set back begins anew as well.
    assert_eq!(refuse(&mut floods, &refusal("u16"), at(0), 16), None);
}

#[test]
fn x_128_a_refusal_that_differs_has_a_record_of_its_own() {
    let base = refusal("u");
    let other = |change: fn(&mut Request)| {
        let mut request = request("u");
        change(&mut request);
        refusal_of(&request, &images("busybox"), &denied(Code::Unsigned)).expect("a refusal")
    };
    for (what, other, equal) in [
        ("uid", other(|r| r.uid = "v".to_owned()), true),
        ("user", other(|r| r.user = "bob".to_owned()), false),
        ("namespace", other(|r| r.namespace = "billing".to_owned()), false),
        ("name", other(|r| r.name = "web".to_owned()), false),
        ("dry run", other(|r| r.dry_run = true), false),
        ("operation", other(|r| r.operation = Some(Operation::Update)), false),
        ("image", refusal_of(&request("u"), &images("alpine"), &denied(Code::Unsigned)).expect("a refusal"), false),
        ("code", refusal_of(&request("u"), &images("busybox"), &denied(Code::NoPolicy)).expect("a refusal"), false),
    ] {
        let mut floods = Floods::new([1; 32]);
        (1..=10).for_each(|n| assert_eq!(refuse(&mut floods, &base, at(0), n), None));
        assert_eq!(refuse(&mut floods, &other, at(0), 11).is_some(), equal, "{what}");
    }
}

#[test]
fn what_is_allowed_is_never_counted_away() {
    let denial = || denial(Code::Unsigned, None, "", "");
    for (what, verdict, is_refusal) in [
        ("admit", admit(vec![], vec![], vec![]), false),
        ("would-deny", would_deny(vec![denial()], vec![], Softened::Warn), false),
        ("no images", Verdict::NoImages, false),
        ("deny", denied(Code::Unsigned), true),
    ] {
        assert_eq!(refusal_of(&request("u"), &images("busybox"), &verdict).is_some(), is_refusal, "{what}");
    }
}

#[test]
fn nothing_repeats_a_record_that_is_not_on_disk() {
    let mut floods = Floods::new([1; 32]);
    for n in 0..50 {
        assert_eq!(floods.refused(&refusal("u"), at(n)), None);
    }
    floods.recorded(&refusal("u"), name(3));
    assert_eq!(floods.refused(&refusal("u"), at(60)), Some(name(3)));
}

#[test]
fn x_128_memory_is_bounded_whatever_the_keys() {
    let base = refusal("u");
    let of = |n: u32| Refusal { key: sha256(&n.to_be_bytes()), ..base.clone() };
    let mut floods = Floods::new([2; 32]);
    for n in 0..20_000 {
        assert_eq!(refuse(&mut floods, &of(n), at(0), 1), None);
    }
    assert!(floods.slots.len() <= usize::from(SLOTS), "{}", floods.slots.len());
    // More kinds at once than are counted: the others have records of their own.
    let mut floods = Floods::new([2; 32]);
    let mut counted = 0;
    for n in 0..300_u32 {
        for _ in 0..10 {
            refuse(&mut floods, &of(n), at(0), u64::from(n) + 1);
        }
        counted += usize::from(refuse(&mut floods, &of(n), at(0), 1).is_some());
    }
    assert!(counted <= GROUPS && counted > GROUPS / 2, "{counted}");
    assert_eq!(floods.drain().len(), counted);
    // Many uids: named up to a number, the rest hashed; and written down before they are many.
    (0..LARGE).for_each(|n| floods.shed(&format!("uid-{n}-{}", "\u{1}".repeat(5000))));
    assert!(floods.is_large());
    let events = floods.drain();
    assert!(!floods.is_large() && floods.is_empty());
    let [Event::Shed(tally)] = events.as_slice() else { panic!("{}", events.len()) };
    assert_eq!((tally.count(), tally.uids().len()), (LARGE as u64, Tally::NAMED));
    assert!(tally.rest().is_some());
    let record = events[0].draft().seal(ChainName::drawn(7), 1, at(0), &Writer::new("c", "r"), NO_RECORD);
    assert!(record.line(false).len() <= MAX_RECORD, "{}", record.line(false).len());
    // It is found by the code that the callers were told.
    let row = Row::of(&record.body).expect("a record");
    let found: Vec<_> = row.images.iter().filter_map(|image| image.code.as_deref()).collect();
    assert_eq!((row.verdict.as_str(), row.codes.as_str(), found), ("shed", "overloaded", vec!["overloaded"]));
}

#[test]
fn x_128_the_widest_repeats_fit_a_record() {
    let mut request = request("u");
    request.namespace = "\u{1}".repeat(300);
    request.user = "\"".repeat(9000);
    let all = Code::ALL.iter().map(|code| denial(*code, None, "", "")).collect();
    let refusal = refusal_of(&request, &images("busybox"), &deny(all, vec![], 1)).expect("a refusal");
    let mut floods = Floods::new([3; 32]);
    for n in 0..400 {
        let refusal = Refusal { uid: format!("{n}{}", "\u{7}".repeat(50)), ..refusal.clone() };
        refuse(&mut floods, &refusal, at(0), 1);
    }
    let events = floods.drain();
    let record = events[0].draft().seal(ChainName::drawn(7), (1 << 53) - 1, at(0), &Writer::new("c", "r"), NO_RECORD);
    assert!(record.line(false).len() <= MAX_RECORD, "{}", record.line(false).len());
    let value: serde_json::Value = serde_json::from_str(&record.body).expect("JSON");
    assert_eq!(serde_json_canonicalizer::to_string(&value).expect("canonical"), record.body);
}
