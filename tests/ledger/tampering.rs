//! What is done to a ledger's file is found by `provost audit verify`, and named; and nothing that a record
//! holds can write on the terminal that shows it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use provost::decision::record::{ChainName, Event, PolicyChange, Record, ReviewInput, ReviewRecord, Writer};
use provost::decision::reference::Digest;
use provost::decision::review::Request;
use provost::decision::verdict::Verdict;
use provost::edge::ledger::{Appended, Ledger, Settings, Store, Wait};
use rusqlite::{Connection, params};
use tokio::time::Instant;

use super::support::folder;
use super::support::process::Done;
use super::support::provost::program;

fn change(name: &str) -> Event {
    Event::PoliciesChanged(vec![PolicyChange { name: name.to_owned(), from: None, to: None, error: None }])
}

/// A ledger of `started`, these events and `stopped`, and the names of all but the first and the last.
async fn ledger(path: &Path, events: Vec<Event>) -> Vec<String> {
    let deadline = || Instant::now() + Duration::from_secs(20);
    let ledger = Ledger::open(Settings { reserve: 0, ..Settings::new(Store::File(path.to_owned())) }).expect("ledger");
    let mut names = Vec::new();
    for event in events {
        let appended = ledger.append(event, Wait::Saved, deadline()).await;
        let Appended::Saved(name) = appended else { panic!("{appended:?}") };
        names.push(name.to_string());
    }
    ledger.seal(deadline()).await.expect("sealed");
    names
}

fn audit(what: &str, path: &Path, more: &[&str]) -> Done {
    program().args(["audit", what, "--ledger"]).arg(path).args(more).run()
}

/// One ledger, and copies of it to which something is done.
struct Original {
    folder: PathBuf,
    names: Vec<String>,
}

impl Original {
    async fn new() -> Self {
        let folder = folder::new("tampering");
        let names = ledger(&folder.join("ledger.db"), (2..=9).map(|n| change(&format!("policy-{n}"))).collect()).await;
        Self { folder, names }
    }

    /// The name of the record with this sequence; the first change has 2.
    fn name(&self, seq: usize) -> &str {
        &self.names[seq - 2]
    }

    fn copy(&self) -> PathBuf {
        let copy = self.folder.join("copy.db");
        fs::copy(self.folder.join("ledger.db"), &copy).expect("copy");
        copy
    }

    /// A copy on which this was run.
    fn with(&self, sql: &str) -> PathBuf {
        let copy = self.copy();
        Connection::open(&copy).expect("open").execute_batch(sql).expect(sql);
        copy
    }
}

const COLUMNS: &str = "time, uid, dry_run, namespace, verdict, codes, user, grant_id, previous, hash, body";

#[tokio::test]
async fn x_124_every_change_is_found_and_named() {
    let original = Original::new().await;
    let done = audit("verify", &original.copy(), &[]);
    assert_eq!(done.code, 0, "twin: the ledger as it is: {}", done.stdout);

    // One bit of one byte of the file.
    let copy = original.copy();
    let mut bytes = fs::read(&copy).expect("read");
    let at = bytes.windows(8).position(|window| window == b"policy-5").expect("its name is in the file");
    bytes[at + 7] ^= 1;
    fs::write(&copy, bytes).expect("write");
    found(&audit("verify", &copy, &[]), "flipped", original.name(5));

    let chain = original.name(2).split('-').next().expect("a chain");
    let insert = |seq: &str, from: &str| {
        format!(
            "INSERT INTO records (chain, seq, {COLUMNS}) SELECT chain, {seq}, {COLUMNS} FROM records WHERE seq = {from}"
        )
    };
    for (sql, kind, record) in [
        ("DELETE FROM records WHERE seq = 5".to_owned(), "dropped", format!("{chain}-5")),
        (
            "DELETE FROM records WHERE seq = 5; UPDATE records SET seq = seq - 1 WHERE seq > 5".to_owned(),
            "dropped",
            format!("{chain}-5"),
        ),
        (
            "UPDATE records SET seq = -1 WHERE seq = 5; UPDATE records SET seq = 5 WHERE seq = 6;
             UPDATE records SET seq = 6 WHERE seq = -1"
                .to_owned(),
            "reordered",
            original.name(5).to_owned(),
        ),
        (insert("99", "5"), "inserted", original.name(5).to_owned()),
        (
            format!(
                "UPDATE records SET seq = -seq - 1 WHERE seq > 5; UPDATE records SET seq = -seq WHERE seq < 0; {}",
                insert("6", "5")
            ),
            "inserted",
            original.name(5).to_owned(),
        ),
        ("UPDATE records SET hash = zeroblob(32) WHERE seq = 5".to_owned(), "flipped", format!("{chain}-5-")),
        (
            "UPDATE records SET user = 'mallory' WHERE seq = 5".to_owned(),
            "columns-changed",
            original.name(5).to_owned(),
        ),
    ] {
        let done = audit("verify", &original.with(&sql), &[]);
        found(&done, kind, &record);
    }

    // Half of the file: it cannot be read to its end, which is no success either.
    let copy = original.copy();
    let bytes = fs::read(&copy).expect("read");
    fs::write(&copy, &bytes[..bytes.len() / 2]).expect("write");
    let done = audit("verify", &copy, &[]);
    assert!(done.code == 1 || done.code == 2, "{}{}", done.stdout, done.stderr);
}

fn found(done: &Done, kind: &str, record: &str) {
    assert_eq!(done.code, 1, "{kind} {record}: {}{}", done.stdout, done.stderr);
    assert!(done.stdout.contains(&format!("  {kind} {record}")), "{kind} {record} is not among:\n{}", done.stdout);
}

#[tokio::test]
async fn x_124_a_record_put_in_with_a_right_hash_is_found() {
    let original = Original::new().await;
    let copy = original.copy();
    // Whoever can write the file knows how records are made: one more in place of the fifth, made to follow the fourth.
    let forged = forge(&copy, 4, "policy-5", "DELETE FROM records WHERE seq = 5");
    found(&audit("verify", &copy, &[]), "replaced", &forged);
}

#[tokio::test]
async fn x_125_a_tail_cut_off_or_written_anew_is_found_by_names_kept_elsewhere() {
    let original = Original::new().await;
    let witness = original.name(8);
    let copy = original.with("DELETE FROM records WHERE seq >= 7");
    let done = audit("verify", &copy, &[]);
    assert_eq!(done.code, 0, "nothing in the ledger itself can show it: {}", done.stdout);
    assert!(done.stdout.contains("or its end was cut off"), "{}", done.stdout);
    found(&audit("verify", &copy, &[witness]), "cut", witness);
    // Twin: a name from before the cut.
    assert_eq!(audit("verify", &copy, &[original.name(6)]).code, 0);

    // The tail written anew, with hashes that are right.
    let copy = original.copy();
    let mut sql = "DELETE FROM records WHERE seq >= 5";
    for n in 5..=9 {
        forge(&copy, n - 1, &format!("other-{n}"), sql);
        sql = "";
    }
    let done = audit("verify", &copy, &[]);
    assert_eq!(done.code, 0, "nothing in the ledger itself can show it: {}", done.stdout);
    found(&audit("verify", &copy, &[witness]), "replaced", witness);

    // All of it rolled back to a copy from before: the same.
    let other = Original::new().await;
    found(&audit("verify", &other.copy(), &[witness]), "cut", witness);
}

/// Puts a record in that follows the one with the sequence `after`; its name.
fn forge(path: &Path, after: i64, name: &str, sql: &str) -> String {
    let connection = Connection::open(path).expect("open");
    connection.execute_batch(sql).expect(sql);
    let (chain, hash): (String, [u8; 32]) = connection
        .query_row("SELECT chain, hash FROM records WHERE seq = ?1", [after], |row| Ok((row.get(0)?, row.get(1)?)))
        .expect("the record before it");
    let chain: ChainName = chain.parse().expect("a chain");
    let time = "2026-11-20T10:00:00Z".parse().expect("time");
    let seq = u64::try_from(after).expect("small") + 1;
    let Record { name, previous, hash, body, .. } =
        change(name).draft().seal(chain, seq, time, &Writer::new("", ""), Digest::from_bytes(hash));
    connection
        .execute(
            "INSERT INTO records (chain, seq, time, uid, dry_run, namespace, verdict, codes, user, previous, hash, body)
             VALUES (?1, ?2, ?3, '', 0, '', 'policies-changed', '', '', ?4, ?5, ?6)",
            params![chain.to_string(), after + 1, time.as_microsecond(), previous.as_bytes(), hash.as_bytes(), body],
        )
        .expect("put in");
    name.to_string()
}

#[tokio::test]
async fn x_129_no_record_writes_on_the_terminal() {
    let evil = "\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}31m\u{202e}\u{2028}\r\n\u{200b}\u{e0041}";
    let path = folder::new("terminal").join("ledger.db");
    let request = Request {
        uid: format!("uid{evil}"),
        namespace: format!("payments{evil}"),
        name: format!("web{evil}"),
        user: format!("alice{evil}"),
        groups: vec![evil.to_owned()],
        ..Request::default()
    };
    let input = ReviewInput { request: &request, images: &[], verdict: &Verdict::NoImages, fault: None, stages: &[] };
    let names = ledger(&path, vec![Event::Review(ReviewRecord::new(input)), change(&format!("policy{evil}"))]).await;
    let mut outputs = vec![];
    for (what, more) in [
        ("query", &[][..]),
        ("query", &["-o", "csv"]),
        ("query", &["-o", "json"]),
        ("tail", &[]),
        ("tail", &["-o", "json"]),
        ("stats", &[]),
        ("stats", &["-o", "json"]),
        ("show", &[names[0].as_str()]),
        ("show", &[names[0].as_str(), "-o", "json"]),
        ("verify", &[]),
    ] {
        let done = audit(what, &path, more);
        assert_eq!(done.code, 0, "{what} {more:?}: {}", done.stderr);
        outputs.push((format!("{what} {more:?}"), done.stdout + &done.stderr));
    }
    // A chain that somebody named so.
    Connection::open(&path)
        .expect("open")
        .execute("UPDATE records SET chain = ?1 WHERE seq = 3", [format!("x{evil}")])
        .expect("update");
    let done = audit("verify", &path, &[]);
    assert_eq!(done.code, 1, "{}", done.stdout);
    outputs.push(("verify, tampered with".to_owned(), done.stdout + &done.stderr));
    for (what, output) in outputs {
        assert!(!output.is_empty(), "{what}");
        let seen = |c: char| c == '\n' || (what.contains("csv") && c == '\r');
        let bad =
            output.chars().find(|c| (c.is_control() && !seen(*c)) || "\u{202e}\u{2028}\u{200b}\u{e0041}".contains(*c));
        assert_eq!(bad, None, "{what}: {output:?}");
    }
}
