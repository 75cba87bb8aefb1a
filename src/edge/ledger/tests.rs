//! The ledger on real files: what is promised before a reply is on disk before it, and nothing is lost, whatever fails.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

use super::*;
use crate::decision::chain::{End, Summary, Verifier};
use crate::decision::record::{PolicyChange, RecordPlace, ReviewInput, ReviewRecord};
use crate::decision::review::{Holder, Operation, Place, Request, ReviewedImage};
use crate::decision::verdict::Verdict;

mod floods;
mod reading;

fn change(name: &str) -> Event {
    Event::PoliciesChanged(vec![PolicyChange { name: name.to_owned(), from: None, to: None, error: None }])
}

/// A review without images, by this user in this namespace.
fn review(namespace: &str, user: &str) -> Event {
    let request = Request {
        uid: format!("uid-{user}"),
        operation: Some(Operation::Create),
        namespace: namespace.to_owned(),
        user: user.to_owned(),
        ..Request::default()
    };
    let input = ReviewInput { request: &request, images: &[], verdict: &Verdict::NoImages, fault: None, stages: &[] };
    Event::Review(ReviewRecord::new(input))
}

/// A review of one image; its verdict does not matter to what is tested here.
fn review_of(image: &str, uid: &str) -> Event {
    let request = Request { uid: uid.to_owned(), namespace: "payments".to_owned(), ..Request::default() };
    let place = Place { path: "spec.containers[0]".to_owned(), holder: Holder::Container, name: "app".to_owned() };
    let images = [ReviewedImage { place, text: image.to_owned(), unchanged: false }];
    let input =
        ReviewInput { request: &request, images: &images, verdict: &Verdict::NoImages, fault: None, stages: &[] };
    Event::Review(ReviewRecord::new(input))
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("ledger.db")
}

fn settings(folder: &TempDir) -> Settings {
    Settings {
        cluster: "test".to_owned(),
        replica: "r0".to_owned(),
        reserve: 10_000,
        ..Settings::new(Store::File(file(folder)))
    }
}

fn open(folder: &TempDir) -> Ledger {
    Ledger::open(settings(folder)).expect("ledger")
}

fn verified(path: &Path) -> Summary {
    let reader = Reader::open(path).expect("reader");
    let mut verifier = Verifier::default();
    reader.all().for_each(|stored| verifier.push(&stored.expect("readable")));
    assert_eq!(reader.stray_image().expect("readable"), None);
    verifier.finish().expect("sound")
}

fn events(path: &Path) -> Vec<String> {
    let records = Reader::open(path).expect("reader").tail(10_000).expect("readable");
    records.iter().map(|record| event(record)["type"].as_str().unwrap_or_default().to_owned()).collect()
}

fn event(record: &StoredRecord) -> Value {
    serde_json::from_str::<Value>(&record.body).expect("JSON")["event"].take()
}

/// Another process that holds the file's write lock, so that commits fail until it is dropped.
fn stuck(path: &Path) -> Connection {
    let connection = Connection::open(path).expect("open");
    connection.execute_batch("PRAGMA busy_timeout = 5000; BEGIN IMMEDIATE").expect("lock");
    connection
}

/// A stream that a test can read.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("lock").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn json(&self) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().expect("lock").clone()).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = soon();
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        ticks.tick().await;
    }
}

#[tokio::test]
async fn x_126_what_is_saved_is_on_disk_before_the_reply() {
    let folder = TempDir::new().expect("folder");
    let ledger = open(&folder);
    for n in 0..20 {
        let Appended::Saved(name) = ledger.append(change(&format!("p{n}")), Wait::Saved, soon()).await else {
            panic!("not saved");
        };
        // Another connection sees what is committed, and nothing else.
        let place: RecordPlace = name.to_string().parse().expect("name");
        let Shown::Found(record) = Reader::open(&file(&folder)).expect("reader").show(place).expect("readable") else {
            panic!("{name} is not on disk");
        };
        assert_eq!(record.name, name.to_string());
        assert_eq!(event(&record)["changes"][0]["name"], format!("p{n}"));
    }
    assert_eq!(ledger.health(), Health::Well);
    ledger.seal(soon()).await.expect("sealed");
    assert_eq!(ledger.health(), Health::Closed);
    assert!(!folder.path().join("ledger.db-wal").exists(), "the log was moved into the ledger");
    assert!(matches!(ledger.append(change("late"), Wait::Saved, soon()).await, Appended::Unavailable(_)));
    let summary = verified(&file(&folder));
    assert_eq!((summary.records, summary.chains[0].end), (22, End::Stopped));
}

#[tokio::test]
async fn a_clean_stop_goes_on_in_its_chain_and_an_unclean_one_in_another() {
    let folder = TempDir::new().expect("folder");
    let ledger = open(&folder);
    ledger.append(change("a"), Wait::Saved, soon()).await;
    ledger.seal(soon()).await.expect("sealed");
    drop(ledger);
    let ledger = open(&folder);
    let Appended::Saved(before) = ledger.append(change("b"), Wait::Saved, soon()).await else { panic!("not saved") };
    drop(ledger);
    let ledger = open(&folder);
    let Appended::Saved(after) = ledger.append(change("c"), Wait::Saved, soon()).await else { panic!("not saved") };
    ledger.seal(soon()).await.expect("sealed");
    assert_eq!(
        events(&file(&folder)),
        [
            "started",
            "policies-changed",
            "stopped",
            "started",
            "policies-changed",
            "recovered",
            "started",
            "policies-changed",
            "stopped"
        ]
    );
    assert_eq!((before.seq, after.seq), (5, 3));
    assert_ne!(before.chain, after.chain);
    let summary = verified(&file(&folder));
    let end = |of: RecordName| summary.chains.iter().find(|chain| chain.chain == of.chain).map(|chain| chain.end);
    assert_eq!(end(before), Some(End::Recovered(after.chain)));
    assert_eq!(end(after), Some(End::Stopped));
    // A name that the old chain might have given away is lost, not tampered with; one of the new chain is not known.
    let reader = Reader::open(&file(&folder)).expect("reader");
    let place = |chain, seq| RecordPlace { chain, seq, hash16: None };
    assert_eq!(reader.show(place(before.chain, 6)).expect("readable"), Shown::LostInCrash);
    assert_eq!(reader.show(place(after.chain, 5)).expect("readable"), Shown::Unknown);
    let other = RecordPlace { hash16: Some([0; 8]), ..place(before.chain, 5) };
    assert!(matches!(reader.show(other).expect("readable"), Shown::Other(_)));
}

#[tokio::test]
async fn group_commit_takes_many_records_at_once() {
    let folder = TempDir::new().expect("folder");
    let database = store::Database::open(&file(&folder)).expect("store");
    let commits = Arc::clone(&database.commits);
    let (ledger, _) = over(database, 4096);
    let waiting: Vec<_> = (0..200)
        .map(|n| {
            let ledger = ledger.clone();
            tokio::spawn(async move { ledger.append(review("payments", &format!("u{n}")), Wait::Saved, soon()).await })
        })
        .collect();
    let mut names = BTreeSet::new();
    for waiting in waiting {
        let Ok(Appended::Saved(name)) = waiting.await else { panic!("not saved") };
        assert!(names.insert(name.seq), "{name} twice");
    }
    assert_eq!(names, (1..=200).collect());
    assert!(commits.load(Ordering::SeqCst) < 150, "{} commits", commits.load(Ordering::SeqCst));
    ledger.seal(soon()).await.expect("sealed");
    assert_eq!(verified(&file(&folder)).records, 201);
}

/// A ledger over a store that the test has its hands on.
fn over(database: store::Database, bound: usize) -> (Ledger, Lines) {
    let lines = Lines::default();
    let stream = stream::Stream::start(Box::new(lines.clone())).expect("stream");
    let writer = Writer::new("test", "r0");
    let (chain, last) = ("aaaa".parse().expect("chain"), crate::decision::record::NO_RECORD);
    let queue =
        Arc::new(Queue::new(&writer::Head { chain, seq: 0, last, seed: [0; 32], records: vec![] }, writer, bound));
    let (ending, ended) = watch::channel(false);
    let kept = writer::Kept { database, reserve: None, giving: false, is_spent: false };
    let thread = writer::start(Arc::clone(&queue), Some(kept), vec![], Some(stream), ending).expect("thread");
    let inner = Inner { queue: Some(queue), durability: Durability::Denials, off: false, ended, thread: Some(thread) };
    (Ledger { inner: Arc::new(inner) }, lines)
}

#[tokio::test]
async fn x_127_a_store_that_fails_keeps_what_it_can_and_recovers_in_order() {
    let folder = TempDir::new().expect("folder");
    let (ledger, lines) = over(store::Database::open(&file(&folder)).expect("store"), 10);
    assert!(matches!(ledger.append(change("0"), Wait::Saved, soon()).await, Appended::Saved(_)));
    let lock = stuck(&file(&folder));
    // The first that waits finds out.
    assert_eq!(ledger.append(change("1"), Wait::Saved, soon()).await, Appended::Pending);
    let Health::Failing { unsaved, .. } = ledger.health() else { panic!("{:?}", ledger.health()) };
    assert_eq!(unsaved, 1);
    // From now on nobody waits: admissions queue, denials are pending, what must be recorded is refused and not queued.
    assert!(matches!(ledger.append(change("2"), Wait::Queued, soon()).await, Appended::Queued(_)));
    assert_eq!(ledger.append(change("3"), Wait::Saved, soon()).await, Appended::Pending);
    assert!(matches!(ledger.append(change("never"), Wait::OrNothing, soon()).await, Appended::Unavailable(_)));
    for n in 4..=10 {
        let appended = ledger.append(change(&n.to_string()), Wait::Queued, soon()).await;
        assert!(appended.is_kept(), "{n}: {appended:?}");
    }
    // The queue is full: nothing is taken any more.
    for wait in [Wait::Queued, Wait::Saved, Wait::OrNothing] {
        let appended = ledger.append(change("never"), wait, soon()).await;
        assert!(matches!(&appended, Appended::Unavailable(_)), "{wait:?}: {appended:?}");
        assert!(!appended.is_kept() && appended.name().is_none());
    }
    until("all are streamed as unsaved", || lines.json().iter().filter(|line| line["unsaved"] == true).count() == 10)
        .await;
    drop(lock);
    until("the store is back", || ledger.health() == Health::Well).await;
    assert!(matches!(ledger.append(change("11"), Wait::OrNothing, soon()).await, Appended::Saved(_)));
    ledger.seal(soon()).await.expect("sealed");
    let written = Reader::open(&file(&folder)).expect("reader").tail(100).expect("readable");
    let names: Vec<_> =
        written.iter().filter_map(|r| event(r)["changes"][0]["name"].as_str().map(str::to_owned)).collect();
    assert_eq!(names, (0..=11).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(verified(&file(&folder)).records, 13);
    let saved = lines.json().iter().filter(|line| line.get("unsaved").is_none()).count();
    assert_eq!(saved, 13, "each is streamed once more when it is saved");
}

#[tokio::test]
async fn x_127_a_full_disk_is_survived() {
    let folder = TempDir::new().expect("folder");
    let database = store::Database::open(&file(&folder)).expect("store");
    let pages = Arc::clone(&database.pages);
    let (ledger, _) = over(database, 4096);
    assert!(matches!(ledger.append(change("0"), Wait::Saved, soon()).await, Appended::Saved(_)));
    pages.store(1, Ordering::SeqCst);
    let mut kept = 1;
    let reason = loop {
        // SQLite says "database or disk is full" when the next page is needed.
        kept += 1;
        match ledger.append(change(&"x".repeat(3000)), Wait::Saved, soon()).await {
            Appended::Saved(_) => assert!(kept < 100, "the disk is never full"),
            Appended::Pending => {
                let Health::Failing { reason, .. } = ledger.health() else { panic!("{:?}", ledger.health()) };
                break reason;
            }
            other @ (Appended::Queued(_) | Appended::Repeat(_) | Appended::Unavailable(_) | Appended::Off) => {
                panic!("{other:?}")
            }
        }
    };
    assert!(reason.contains("full"), "{reason}");
    pages.store(u32::MAX, Ordering::SeqCst);
    until("there is space", || ledger.health() == Health::Well).await;
    ledger.seal(soon()).await.expect("sealed");
    assert_eq!(verified(&file(&folder)).records, kept + 1);
}

#[tokio::test]
async fn x_127_a_file_that_is_taken_away_is_noticed() {
    let folder = TempDir::new().expect("folder");
    let (ledger, _) = over(store::Database::open(&file(&folder)).expect("store"), 100);
    assert!(matches!(ledger.append(change("0"), Wait::Saved, soon()).await, Appended::Saved(_)));
    let away = folder.path().join("away.db");
    std::fs::rename(file(&folder), &away).expect("rename");
    assert_eq!(ledger.append(change("1"), Wait::Saved, soon()).await, Appended::Pending);
    let Health::Failing { reason, .. } = ledger.health() else { panic!("{:?}", ledger.health()) };
    assert!(reason.contains("moved"), "{reason}");
    std::fs::rename(away, file(&folder)).expect("rename");
    until("it is back", || ledger.health() == Health::Well).await;
    ledger.seal(soon()).await.expect("sealed");
    assert_eq!(verified(&file(&folder)).records, 3);
}

#[tokio::test]
async fn a_deadline_is_kept_and_the_record_is_written_all_the_same() {
    let folder = TempDir::new().expect("folder");
    let (ledger, _) = over(store::Database::open(&file(&folder)).expect("store"), 100);
    // Nothing can be committed before the deadline has passed.
    let lock = stuck(&file(&folder));
    let begun = Instant::now();
    let deadline = begun + Duration::from_millis(20);
    assert_eq!(ledger.append(change("0"), Wait::Saved, deadline).await, Appended::Pending);
    assert!(Instant::now() >= deadline && begun.elapsed() < Duration::from_secs(10));
    drop(lock);
    ledger.seal(soon()).await.expect("sealed");
    assert_eq!(events(&file(&folder)), ["policies-changed", "stopped"]);
}

#[tokio::test]
async fn sealing_a_store_that_fails_says_what_is_lost() {
    let folder = TempDir::new().expect("folder");
    let (ledger, lines) = over(store::Database::open(&file(&folder)).expect("store"), 100);
    let lock = stuck(&file(&folder));
    ledger.append(change("0"), Wait::Queued, soon()).await;
    let error = ledger.seal(Instant::now() + Duration::from_millis(600)).await.expect_err("nothing is on disk");
    assert!(matches!(error, LedgerError::NotSealed { unsaved: 2 }), "{error}");
    drop(ledger);
    assert!(lines.json().iter().all(|line| line["unsaved"] == true));
    assert_eq!(lines.json().len(), 2);
    drop(lock);
}

#[tokio::test]
async fn durable_admissions_wait_or_are_refused() {
    let folder = TempDir::new().expect("folder");
    let ledger = Ledger::open(Settings { durability: Durability::All, ..settings(&folder) }).expect("ledger");
    assert!(matches!(ledger.append(change("0"), Wait::Queued, soon()).await, Appended::Saved(_)));
    let lock = stuck(&file(&folder));
    assert_eq!(ledger.append(change("1"), Wait::Queued, soon()).await, Appended::Pending);
    assert!(matches!(ledger.append(change("2"), Wait::Queued, soon()).await, Appended::Unavailable(_)));
    drop(lock);
    ledger.seal(soon()).await.expect("sealed");
    // Twin: where only denials are durable, the same admission does not wait.
    let folder = TempDir::new().expect("folder");
    let ledger = open(&folder);
    assert!(matches!(ledger.append(change("0"), Wait::Queued, soon()).await, Appended::Queued(_)));
    ledger.seal(soon()).await.expect("sealed");
    assert_eq!(events(&file(&folder)), ["started", "policies-changed", "stopped"]);
}

#[tokio::test]
async fn x_131_two_writers_newer_schemas_and_strange_files_are_refused() {
    let folder = TempDir::new().expect("folder");
    let ledger = open(&folder);
    let refused = |path: &Path| Ledger::open(Settings::new(Store::File(path.to_owned()))).err().expect("refused");
    assert!(matches!(refused(&file(&folder)), LedgerError::InUse { .. }));
    // Under another name it is the same file.
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(file(&folder), &link).expect("link");
    assert!(matches!(refused(&link), LedgerError::InUse { .. }));
    // A reader is not kept out.
    assert_eq!(Reader::open(&link).expect("reader").tail(9).expect("readable").len(), 1);
    ledger.seal(soon()).await.expect("sealed");
    drop(ledger);
    let ledger = open(&folder);
    ledger.seal(soon()).await.expect("twin: a ledger that nobody writes can be opened");
    drop(ledger);

    let newer = |version: u32| {
        Connection::open(file(&folder)).expect("open").pragma_update(None, "user_version", version).expect("update");
    };
    newer(SCHEMA + 1);
    let error = refused(&file(&folder));
    assert!(matches!(error, LedgerError::Newer { found, .. } if found == SCHEMA + 1), "{error}");
    assert!(error.to_string().contains("use the version that made it"), "{error}");
    assert!(matches!(Reader::open(&file(&folder)), Err(LedgerError::Newer { .. })));
    newer(SCHEMA);
    drop(open(&folder));

    let strange = folder.path().join("strange.db");
    Connection::open(&strange).expect("open").execute_batch("CREATE TABLE t (x)").expect("table");
    assert!(matches!(refused(&strange), LedgerError::NotALedger { .. }));
    assert!(matches!(Reader::open(&strange), Err(LedgerError::NotALedger { .. })));
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "not a database, but rather long: ".repeat(100)).expect("write");
    assert!(matches!(refused(&text), LedgerError::NotALedger { .. }));
    assert_eq!(std::fs::read_to_string(&text).expect("unchanged").len(), 3300);
    assert!(matches!(refused(Path::new("/nonexistent/ledger.db")), LedgerError::File { .. }));
    assert!(matches!(Reader::open(&folder.path().join("none.db")), Err(LedgerError::File { .. })));
}

#[tokio::test]
async fn records_are_streamed_and_the_body_can_be_cut_out() {
    let lines = Lines::default();
    let folder = TempDir::new().expect("folder");
    let ledger = Ledger::open(Settings { stream: Some(Box::new(lines.clone())), ..settings(&folder) }).expect("ledger");
    ledger.append(review("payments", "alice\u{202e}\n"), Wait::Saved, soon()).await;
    ledger.seal(soon()).await.expect("sealed");
    let streamed = lines.json();
    let stored = Reader::open(&file(&folder)).expect("reader").tail(10).expect("readable");
    assert_eq!(streamed.len(), 3);
    for (line, record) in streamed.iter().zip(&stored) {
        assert_eq!(line["record"], record.name);
        assert_eq!(line["hash"], record.hash);
        assert_eq!(line["cluster"], "test");
    }
    // Off, with a stream: named and streamed, kept nowhere.
    let lines = Lines::default();
    let off = Settings { stream: Some(Box::new(lines.clone())), ..Settings::new(Store::Off) };
    let ledger = Ledger::open(off).expect("ledger");
    assert_eq!(ledger.append(review("payments", "bob"), Wait::Saved, soon()).await, Appended::Off);
    ledger.seal(soon()).await.expect("sealed");
    assert_eq!(lines.json().len(), 3);
    let ledger = Ledger::open(Settings::new(Store::Off)).expect("ledger");
    assert_eq!(ledger.append(review("payments", "bob"), Wait::Saved, soon()).await, Appended::Off);
    ledger.seal(soon()).await.expect("sealed");
    let ledger = Ledger::open(Settings::new(Store::Memory)).expect("ledger");
    assert!(matches!(ledger.append(review("payments", "bob"), Wait::Saved, soon()).await, Appended::Saved(_)));
    ledger.seal(soon()).await.expect("sealed");
}
