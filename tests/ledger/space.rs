//! A disk that is full or cannot be written: a small file system of its own, which runs out of room for real.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use provost::decision::chain::{Summary, Verifier};
use provost::decision::record::{Event, PolicyChange};
use provost::edge::ledger::{Appended, Health, Ledger, Reader, Settings, Store, Wait};
use serde_json::Value;
use tokio::time::Instant;

use super::reviews::{Answered, again, caller, overridden, provost, refused, send, wait_until_ready};
use super::support::process::Program;
use super::support::provost::records;
use super::support::{folder, wait};

/// A file system of `size`, unmounted when it is dropped.
struct Disk(PathBuf);

impl Disk {
    fn new(size: &str) -> Self {
        let at = folder::new("disk");
        let options = format!("size={size}");
        let done = Program::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&at).run();
        assert!(
            done.code == 0,
            "a file system of its own cannot be mounted: run the tests as root, as a container does: {}",
            done.stderr
        );
        Self(at)
    }

    fn remount(&self, how: &str) {
        Program::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.0).must();
    }

    fn ledger(&self) -> PathBuf {
        self.0.join("ledger.db")
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut ballast = File::options().append(true).create(true).open(self.ballast()).expect("open");
        for block in [64 * 1024, 4096, 64] {
            while ballast.write_all(&vec![7; block]).is_ok() {}
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a test that failed may have files open.
        let _ = Program::new("umount").arg("-l").arg(&self.0).run();
    }
}

/// Records as they were streamed.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("lock").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// The names of the changes that were streamed, with or without the mark `unsaved`.
    fn names(&self, unsaved: bool) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().expect("lock").clone()).expect("text");
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
        lines.filter(|line| (line["unsaved"] == true) == unsaved).filter_map(|line| name_of(&line["event"])).collect()
    }
}

/// The first word of the change's name.
fn name_of(event: &Value) -> Option<String> {
    event["changes"][0]["name"].as_str()?.split(' ').next().map(str::to_owned)
}

/// An event of about 4 KiB.
fn large(name: &str) -> Event {
    let name = format!("{name} {}", "x".repeat(4000));
    Event::PoliciesChanged(vec![PolicyChange { name, from: None, to: None, error: None }])
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = soon();
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        ticks.tick().await;
    }
}

/// The names of the changes in a ledger whose chains hold, in the order of writing.
fn written(path: &Path) -> (Vec<String>, Summary) {
    let reader = Reader::open(path).expect("reader");
    let mut verifier = Verifier::default();
    reader.all().for_each(|stored| verifier.push(&stored.expect("readable")));
    let summary = verifier.finish().expect("as it was written");
    let records = reader.tail(100_000).expect("readable");
    let names = records
        .iter()
        .filter_map(|record| name_of(&serde_json::from_str::<Value>(&record.body).expect("JSON")["event"]));
    (names.collect(), summary)
}

#[tokio::test]
async fn x_127_x_128_a_full_disk_has_space_for_overrides_and_recovers_by_itself() {
    let disk = Disk::new("6m");
    let lines = Lines::default();
    let ledger = Ledger::open(Settings {
        reserve: 1 << 20,
        queue: 12,
        stream: Some(Box::new(lines.clone())),
        ..Settings::new(Store::File(disk.ledger()))
    })
    .expect("ledger");
    assert_eq!(fs::metadata(disk.0.join("ledger.db.reserve")).expect("kept back").len(), 1 << 20);
    let mut kept = Vec::new();
    let mut keep = |name: &str| kept.push(name.to_owned());

    // Denials until the disk is full: the first that does not fit is pending.
    for n in 0.. {
        let name = format!("denial-{n}");
        let appended = ledger.append(large(&name), Wait::Saved, soon()).await;
        keep(&name);
        match appended {
            Appended::Saved(_) => assert!(n < 1000, "the disk is never full"),
            Appended::Pending => break,
            Appended::Queued(_) | Appended::Repeat(_) | Appended::Unavailable(_) | Appended::Off => {
                panic!("{name}: {appended:?}")
            }
        }
    }
    let Health::Failing { reason, .. } = ledger.health() else { panic!("{:?}", ledger.health()) };
    assert!(reason.contains("full"), "{reason}");

    // Overrides are on disk nevertheless, each with what was queued before it.
    for n in 0..5 {
        for name in [format!("pending-{n}"), format!("admit-{n}")] {
            let wait = if name.starts_with("admit") { Wait::Queued } else { Wait::Saved };
            let appended = ledger.append(large(&name), wait, soon()).await;
            assert!(matches!(appended, Appended::Pending | Appended::Queued(_) | Appended::Saved(_)), "{appended:?}");
            keep(&name);
        }
        let name = format!("override-{n}");
        let appended = ledger.append(large(&name), Wait::OrNothing, soon()).await;
        let Appended::Saved(record) = appended else { panic!("{name}: {appended:?}, {:?}", ledger.health()) };
        keep(&name);
        let place = record.to_string().parse().expect("a name");
        let shown = Reader::open(&disk.ledger()).expect("reader").show(place).expect("readable");
        assert!(matches!(shown, provost::edge::ledger::Shown::Found(_)), "{record} is not on disk");
    }

    // Somebody else takes all that is left, and what was kept back is used up: now overrides are denied.
    let mut ballast = File::create(disk.0.join("ballast")).expect("create");
    let mut overrides = 5;
    loop {
        while ballast.write_all(&[7; 4096]).is_ok() {}
        let name = format!("override-{overrides}");
        match ledger.append(large(&name), Wait::OrNothing, soon()).await {
            Appended::Saved(_) => keep(&name),
            // The one that finds out is denied, and written when it can be.
            Appended::Pending => {
                keep(&name);
                break;
            }
            Appended::Unavailable(_) => break,
            other @ (Appended::Queued(_) | Appended::Repeat(_) | Appended::Off) => panic!("{other:?}"),
        }
        overrides += 1;
        assert!(overrides < 500, "what is kept back never ends");
    }
    assert!(overrides > 20, "{overrides} overrides in a megabyte");

    // Admissions while the queue holds, then nothing.
    let mut admits = 0;
    loop {
        let name = format!("late-{admits}");
        match ledger.append(large(&name), Wait::Queued, soon()).await {
            Appended::Queued(_) => keep(&name),
            Appended::Unavailable(why) => break assert!(why.contains("wait for the ledger's storage"), "{why}"),
            other @ (Appended::Saved(_) | Appended::Pending | Appended::Repeat(_) | Appended::Off) => {
                panic!("{other:?}")
            }
        }
        admits += 1;
        assert!(admits <= 12, "the queue has no bound");
    }
    assert!(admits > 0);
    assert!(matches!(ledger.append(large("never"), Wait::Saved, soon()).await, Appended::Unavailable(_)));
    assert!(matches!(ledger.append(large("never"), Wait::OrNothing, soon()).await, Appended::Unavailable(_)));
    let late = format!("late-{}", admits - 1);
    until("what is not on disk is streamed as such", || lines.names(true).contains(&late)).await;

    // Room again: no restart, and what was queued comes first.
    drop(ballast);
    fs::remove_file(disk.0.join("ballast")).expect("remove");
    Program::new("mount").args(["-o", "remount,size=16m"]).arg(&disk.0).must();
    until("there is room", || ledger.health() == Health::Well).await;
    let appended = ledger.append(large("after"), Wait::OrNothing, soon()).await;
    assert!(matches!(appended, Appended::Saved(_)), "{appended:?}");
    keep("after");
    ledger.seal(soon()).await.expect("sealed");
    let (names, summary) = written(&disk.ledger());
    assert_eq!(names, kept);
    assert_eq!(summary.chains.len(), 1);
    assert_eq!(lines.names(false), kept, "each is streamed once more when it is saved");
}

#[test]
fn x_127_x_128_a_full_disk_below_the_server_takes_overrides_and_answers_denials() {
    let disk = Disk::new("12m");
    let mut provost = provost();
    // The same server over a ledger of its own on that disk.
    provost.server.kill();
    let ledger = provost.folder.join("ledger.db");
    fs::remove_file(&ledger).expect("it was there");
    for beside in ["-wal", "-shm"] {
        let _ = fs::remove_file(provost.folder.join(format!("ledger.db{beside}")));
    }
    symlink(disk.ledger(), &ledger).expect("a link in a folder of our own");
    again(&mut provost, &[]);
    wait_until_ready(&provost);
    let kept = fs::metadata(disk.0.join("ledger.db.reserve")).expect("kept back").len();
    assert!((1 << 20..3 << 20).contains(&kept), "{kept}");
    let mut line = caller(&provost).connect().expect("connected");
    let answers: RefCell<Vec<Answered>> = RefCell::default();
    let mut ask = |uid: String, make: fn(&str, &str) -> String| {
        let answer = send(&mut line, &uid, &make(&uid, &uid)).expect("the server goes on");
        answers.borrow_mut().push(answer.clone());
        answer
    };

    // Full for denials: they are answered, and say that their record is not on disk.
    for n in 0.. {
        disk.fill();
        let denial = ask(format!("denial-{n}"), refused);
        assert!(!denial.allowed && denial.codes == "no-policy,not-digest-pinned", "{denial:?}");
        if denial.record == "pending" {
            break;
        }
        assert!(n < 1000, "the disk is never full: {denial:?}");
    }
    // An override is let pass, and is on disk when its reply comes; the denials between are answered as before.
    for n in 0..5 {
        let denial = ask(format!("between-{n}"), refused);
        assert!(!denial.allowed && denial.codes == "no-policy,not-digest-pinned", "{denial:?}");
        let answer = ask(format!("override-{n}"), overridden);
        let found = records(&disk.ledger(), &["--break-glass"]).pop().expect("an override");
        assert_eq!(found["record"], answer.record.as_str(), "{answer:?}");
        answer.must_be_overridden(&found["event"]);
        disk.fill();
    }
    // What is kept back is used up as well: then nothing is overridden any more.
    for n in 5.. {
        disk.fill();
        let answer = ask(format!("override-{n}"), overridden);
        if !answer.allowed {
            answer.must_lack_its_record();
            break;
        }
        assert!(n < 2000, "what is kept back never ends");
    }
    let most = answers.borrow().iter().filter(|answer| answer.is_override()).count();
    println!("{most} overrides in the {kept} bytes that were kept back");
    assert!(most > 20, "{most} overrides in {kept} bytes");
    ask("override-of-no-room".to_owned(), overridden).must_lack_its_record();
    let denial = ask("denial-of-no-room".to_owned(), refused);
    assert!(!denial.allowed && denial.record == "pending", "{denial:?}");
    assert!(provost.is_ready(), "a ledger that fails makes nobody unready (C-45)");

    // Room again: nobody restarts anything.
    fs::remove_file(disk.ballast()).expect("remove");
    let mut tries = 0;
    wait::until("a denial is on disk again", Duration::from_secs(30), || {
        tries += 1;
        ask(format!("after-{tries}"), refused).record.contains('-').then_some(())
    });
    assert!(ask("override-after".to_owned(), overridden).is_override());
    drop(line);
    assert!(provost.end().success(), "{}", provost.server.log());
    let (sound, said) = provost.verify_ledger(&[]);
    assert!(sound, "{said}");
    // Every answer is there; of an override that was denied, that denial is the last word.
    let records = records(&disk.ledger(), &[]);
    let last: BTreeMap<&str, &Value> =
        records.iter().filter_map(|record| Some((record["event"]["uid"].as_str()?, &record["event"]))).collect();
    for answer in answers.borrow().iter() {
        let event = last.get(answer.uid.as_str()).unwrap_or_else(|| panic!("{answer:?} is not in the ledger"));
        assert_eq!(event["verdict"], answer.verdict.as_str(), "{answer:?}");
        if answer.is_override() {
            answer.must_be_overridden(event);
        }
    }
}

#[tokio::test]
async fn x_127_a_ledger_that_cannot_be_written_is_refused_at_start_and_can_be_read() {
    let disk = Disk::new("4m");
    let ledger = Ledger::open(Settings::new(Store::File(disk.ledger()))).expect("ledger");
    assert!(matches!(ledger.append(large("a"), Wait::Saved, soon()).await, Appended::Saved(_)));
    ledger.seal(soon()).await.expect("sealed");
    drop(ledger);
    let kept = fs::metadata(disk.0.join("ledger.db.reserve")).expect("kept back").len();
    assert!((500_000..1 << 20).contains(&kept), "{kept}: not more than a quarter of a small disk");
    disk.remount("ro");
    let error = Ledger::open(Settings::new(Store::File(disk.ledger()))).err().expect("refused").to_string();
    assert!(error.starts_with("cannot open ") && error.contains("Read-only file system"), "{error}");
    assert_eq!(written(&disk.ledger()).0, ["a"]);
    // Twin: the same file, when it can be written.
    disk.remount("rw");
    let ledger = Ledger::open(Settings::new(Store::File(disk.ledger()))).expect("ledger");
    ledger.seal(soon()).await.expect("sealed");
}
