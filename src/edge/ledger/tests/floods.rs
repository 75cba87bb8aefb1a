//! Equal refusals and shed reviews: counted, on disk within a second, never lost at an orderly end.

use super::*;
use crate::decision::code::Code;
use crate::decision::verdict::for_tests::{denial, deny};

/// A refusal that differs from others by its uid only.
fn refusal(namespace: &str, uid: &str) -> Event {
    let request = Request { uid: uid.to_owned(), namespace: namespace.to_owned(), ..Request::default() };
    let verdict = deny(vec![denial(Code::NoPolicy, None, "", "")], vec![], 0);
    Event::Review(ReviewRecord::new(ReviewInput {
        request: &request,
        images: &[],
        verdict: &verdict,
        fault: None,
        stages: &[],
    }))
}

/// The counted events of a ledger: type, count, uids.
fn counted(path: &Path) -> Vec<(String, u64, usize)> {
    let records = Reader::open(path).expect("reader").tail(10_000).expect("readable");
    let events = records.iter().map(event).filter(|event| event["count"].is_u64());
    events
        .map(|event| {
            let uids = event["uids"].as_array().map_or(0, Vec::len);
            (event["type"].as_str().unwrap_or_default().to_owned(), event["count"].as_u64().unwrap_or(0), uids)
        })
        .collect()
}

#[tokio::test]
async fn x_128_equal_refusals_are_one_record_within_a_second() {
    let folder = TempDir::new().expect("folder");
    let ledger = open(&folder);
    let mut names = Vec::new();
    for n in 0..10 {
        let Appended::Saved(name) = ledger.append(refusal("a", &format!("u{n}")), Wait::Saved, soon()).await else {
            panic!("{n} has no record of its own");
        };
        names.push(name);
    }
    let begun = Instant::now();
    for n in 10..400 {
        let appended = ledger.append(refusal("a", &format!("u{n}")), Wait::Saved, soon()).await;
        assert_eq!(appended, Appended::Repeat(names[9]), "{n}");
        assert!(appended.is_kept() && appended.name().is_none());
    }
    // Twins: another namespace, and what is no refusal.
    assert!(matches!(ledger.append(refusal("b", "u"), Wait::Saved, soon()).await, Appended::Saved(_)));
    for _ in 0..30 {
        assert!(matches!(ledger.append(review("a", "bob"), Wait::Queued, soon()).await, Appended::Queued(_)));
    }
    until("they are counted on disk", || counted(&file(&folder)).iter().map(|(_, count, _)| count).sum::<u64>() == 390)
        .await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(counted(&file(&folder)).iter().all(|(kind, _, _)| kind == "repeats"));
    let of = Reader::open(&file(&folder)).expect("reader").tail(1000).expect("readable");
    let of = of.iter().map(event).find_map(|event| event["of"].as_str().map(str::to_owned));
    assert_eq!(of, Some(names[9].to_string()));
    // What is still counted at the end is written before `stopped`.
    ledger.append(refusal("a", "last"), Wait::Saved, soon()).await;
    ledger.seal(soon()).await.expect("sealed");
    assert_eq!(counted(&file(&folder)).last(), Some(&("repeats".to_owned(), 1, 1)));
    let verified = verified(&file(&folder));
    assert_eq!(verified.chains[0].end, End::Stopped);
    assert!(verified.records < 10 + 1 + 30 + 2 + 10, "{}", verified.records);
    assert!(matches!(ledger.append(refusal("a", "later"), Wait::Saved, soon()).await, Appended::Unavailable(_)));
}

#[tokio::test]
async fn c_03_shed_reviews_are_one_record_within_a_second() {
    let folder = TempDir::new().expect("folder");
    let ledger = open(&folder);
    (0..1000).for_each(|n| ledger.shed(&format!("uid-{n}")));
    until("they are on disk", || counted(&file(&folder)) == [("shed".to_owned(), 1000, 256)]).await;
    ledger.shed("one more");
    drop(ledger);
    assert_eq!(
        counted(&file(&folder))[1..],
        [("shed".to_owned(), 1, 1)],
        "also where the server does not stop in order"
    );
    // Twin: off, nothing is counted and nothing breaks.
    Ledger::open(Settings::new(Store::Off)).expect("ledger").shed("uid");
}

#[tokio::test]
async fn x_127_while_the_store_fails_repeats_take_no_room() {
    let folder = TempDir::new().expect("folder");
    let (ledger, _) = over(store::Database::open(&file(&folder)).expect("store"), 20);
    for n in 0..10 {
        let appended = ledger.append(refusal("a", &format!("u{n}")), Wait::Saved, soon()).await;
        assert!(matches!(appended, Appended::Saved(_)), "{appended:?}");
    }
    let lock = stuck(&file(&folder));
    assert_eq!(ledger.append(change("finds out"), Wait::Saved, soon()).await, Appended::Pending);
    for n in 0..1000 {
        let appended = ledger.append(refusal("a", &format!("v{n}")), Wait::Saved, soon()).await;
        assert!(matches!(appended, Appended::Repeat(_)), "{n}: {appended:?}");
        ledger.shed(&format!("w{n}"));
    }
    let Health::Failing { unsaved, .. } = ledger.health() else { panic!("{:?}", ledger.health()) };
    assert_eq!(unsaved, 1);
    drop(lock);
    let all = [("repeats".to_owned(), 1000, 256), ("shed".to_owned(), 1000, 256)];
    until("all is written", || counted(&file(&folder)) == all).await;
    ledger.seal(soon()).await.expect("sealed");
    verified(&file(&folder));
}
