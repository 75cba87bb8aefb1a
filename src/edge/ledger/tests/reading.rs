//! Queries, and what a verification reads, on real files.

use std::ops::ControlFlow;

use super::*;
use crate::decision::chain::Tampering;
use crate::decision::code::Code;
use crate::edge::ledger::queue::GROUP;

#[tokio::test]
async fn queries_find_what_they_should_and_nothing_else() {
    let folder = TempDir::new().expect("folder");
    let ledger = open(&folder);
    let digest = |n: u8| format!("sha256:{}", format!("{n:02x}").repeat(32));
    for (image, uid) in [
        (format!("r.example/a@{}", digest(1)), "u1"),
        (format!("r.example/a@{}", digest(2)), "u2"),
        (format!("r.example/b@{}", digest(1)), "u3"),
        ("busybox".to_owned(), "u4"),
    ] {
        ledger.append(review_of(&image, uid), Wait::Queued, soon()).await;
    }
    ledger.append(review("billing", "bob"), Wait::Saved, soon()).await;
    ledger.append(change("p"), Wait::Saved, soon()).await;
    ledger.seal(soon()).await.expect("sealed");
    let reader = Reader::open(&file(&folder)).expect("reader");
    let uids = |filter: &Filter| {
        let mut uids = Vec::new();
        reader
            .query(filter, |record| {
                let event = event(&record);
                uids.push(event["uid"].as_str().or(event["type"].as_str()).unwrap_or_default().to_owned());
                ControlFlow::Continue(())
            })
            .expect("query");
        uids
    };
    let image = |repository: Option<&str>, d: Option<u8>| Filter {
        image: ImageFilter {
            repository: repository.map(|repository| repository.parse().expect("repository")),
            digest: d.map(|n| digest(n).parse().expect("digest")),
        },
        ..Filter::default()
    };
    let any = Filter::default;
    let times: Vec<_> = reader.tail(99).expect("readable").iter().map(|record| record.time).collect();
    for (name, filter, want) in [
        (
            "everything, the newest first",
            any(),
            vec!["stopped", "policies-changed", "uid-bob", "u4", "u3", "u2", "u1", "started"],
        ),
        ("namespace", Filter { namespace: Some("billing".to_owned()), ..any() }, vec!["uid-bob"]),
        ("another namespace", Filter { namespace: Some("billin".to_owned()), ..any() }, vec![]),
        ("user", Filter { user: Some("bob".to_owned()), ..any() }, vec!["uid-bob"]),
        ("verdict", Filter { verdict: Some("no-images".to_owned()), ..any() }, vec!["uid-bob", "u4", "u3", "u2", "u1"]),
        ("kind of event", Filter { verdict: Some("started".to_owned()), ..any() }, vec!["started"]),
        ("no admission", Filter { verdict: Some("admit".to_owned()), ..any() }, vec![]),
        ("repository", image(Some("r.example/a"), None), vec!["u2", "u1"]),
        ("repository by its short name", image(Some("busybox"), None), vec!["u4"]),
        ("digest", image(None, Some(1)), vec!["u3", "u1"]),
        ("both", image(Some("r.example/a"), Some(1)), vec!["u1"]),
        ("both, of two images", image(Some("r.example/b"), Some(2)), vec![]),
        ("image elsewhere", Filter { namespace: Some("billing".to_owned()), ..image(None, Some(1)) }, vec![]),
        ("a code that nothing has", Filter { code: Some(Code::Unsigned), ..any() }, vec![]),
        ("since", Filter { since: Some(times[5]), ..any() }, vec!["stopped", "policies-changed", "uid-bob"]),
        ("until", Filter { until: Some(times[1]), ..any() }, vec!["started"]),
        ("image since", Filter { since: Some(times[3]), ..image(None, Some(1)) }, vec!["u3"]),
        ("injection", Filter { user: Some("' OR 1=1 --".to_owned()), ..any() }, vec![]),
    ] {
        assert_eq!(uids(&filter), want, "{name}");
    }
    let stats = reader.stats(None, None).expect("stats");
    assert_eq!((stats.records, stats.verdicts["no-images"], stats.verdicts["started"]), (8, 5, 1));
    assert_eq!((stats.first, stats.last), (times.first().copied(), times.last().copied()));
    assert_eq!(reader.stats(Some(times[5]), None).expect("stats").records, 3);
    assert_eq!(reader.after(6).expect("readable").len(), 2);
}

#[tokio::test]
async fn indexes_answer_the_queries() {
    let folder = TempDir::new().expect("folder");
    drop(open(&folder));
    let connection = Connection::open(file(&folder)).expect("open");
    let some = Filter::default;
    let digest = || "sha256:".to_owned() + &"0".repeat(64);
    for (filter, index) in [
        (some(), "records_time"),
        (Filter { namespace: Some("a".to_owned()), ..some() }, "records_namespace"),
        (Filter { user: Some("a".to_owned()), ..some() }, "records_user"),
        (Filter { verdict: Some("deny".to_owned()), ..some() }, "records_refused"),
        (Filter { verdict: Some("admit".to_owned()), ..some() }, "records_time"),
        (Filter { code: Some(Code::Unsigned), ..some() }, "images_code"),
        (
            Filter { image: ImageFilter { repository: Some("a".parse().expect("name")), digest: None }, ..some() },
            "images_repository",
        ),
        (
            Filter {
                image: ImageFilter {
                    repository: Some("a".parse().expect("name")),
                    digest: Some(digest().parse().expect("digest")),
                },
                code: Some(Code::Unsigned),
                namespace: Some("a".to_owned()),
                ..some()
            },
            "images_digest",
        ),
    ] {
        let (sql, values) = filter.sql();
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("prepare");
        let plan: Vec<String> = statement
            .query_map(rusqlite::params_from_iter(values), |row| row.get(3))
            .expect("plan")
            .collect::<Result<_, _>>()
            .expect("plan");
        assert!(plan.iter().any(|step| step.contains(index)), "{filter:?}: {plan:?}");
        assert!(
            !plan.iter().any(|step| step.starts_with("SCAN") && !step.contains("USING INDEX")),
            "{filter:?}: {plan:?}"
        );
    }
}

#[tokio::test]
async fn x_124_what_is_done_to_the_file_is_found() {
    let folder = TempDir::new().expect("folder");
    let ledger = open(&folder);
    for n in 0..5 {
        ledger.append(review_of(&format!("r.example/app{n}"), "u"), Wait::Saved, soon()).await;
    }
    ledger.seal(soon()).await.expect("sealed");
    drop(ledger);
    let whole = std::fs::read(file(&folder)).expect("read");
    for (sql, kind) in [
        ("SELECT 1", None),
        ("UPDATE records SET body = replace(body, 'app2', 'app9')", Some(Tampering::Flipped)),
        ("UPDATE records SET hash = zeroblob(32) WHERE seq = 3", Some(Tampering::Flipped)),
        ("UPDATE records SET user = 'mallory' WHERE seq = 3", Some(Tampering::ColumnsChanged)),
        ("UPDATE record_images SET digest = 'sha256:00' WHERE seq = 3", Some(Tampering::ColumnsChanged)),
        ("DELETE FROM record_images WHERE seq = 3", Some(Tampering::ColumnsChanged)),
        ("DELETE FROM records WHERE seq = 3", Some(Tampering::Dropped)),
        ("UPDATE records SET seq = -1 WHERE seq = 3; UPDATE records SET seq = 3 WHERE seq = 4; UPDATE records SET seq = 4 WHERE seq = -1",
            Some(Tampering::Reordered)),
        ("INSERT INTO records SELECT chain, 99, time, uid, dry_run, namespace, verdict, codes, user, NULL, previous, hash, body
          FROM records WHERE seq = 3", Some(Tampering::Inserted)),
        ("INSERT INTO records SELECT 'zzzz', seq, time, uid, dry_run, namespace, verdict, codes, user, NULL, previous, hash, body
          FROM records WHERE seq = 3", Some(Tampering::Inserted)),
    ] {
        std::fs::write(file(&folder), &whole).expect("write");
        let connection = Connection::open(file(&folder)).expect("open");
        connection.execute_batch(sql).expect(sql);
        drop(connection);
        let reader = Reader::open(&file(&folder)).expect("reader");
        let mut verifier = Verifier::default();
        reader.all().for_each(|stored| verifier.push(&stored.expect("readable")));
        let kinds: Vec<_> = verifier.finish().err().unwrap_or_default().iter().map(|finding| finding.kind).collect();
        match kind {
            None => assert!(kinds.is_empty(), "{sql}: {kinds:?}"),
            Some(kind) => assert!(kinds.contains(&kind), "{sql}: {kinds:?}"),
        }
    }
    // Rows about images of a record that is not there.
    std::fs::write(file(&folder), &whole).expect("write");
    let stray = "INSERT INTO record_images SELECT chain, 77, item, time, repository, digest, code FROM record_images WHERE seq = 3";
    Connection::open(file(&folder)).expect("open").execute_batch(stray).expect("insert");
    assert!(
        Reader::open(&file(&folder))
            .expect("reader")
            .stray_image()
            .expect("readable")
            .is_some_and(|s| s.ends_with("-77"))
    );
}

#[tokio::test]
async fn more_records_than_a_page_and_a_group_are_all_read() {
    let folder = TempDir::new().expect("folder");
    let ledger = open(&folder);
    let count = GROUP * 5 + 7;
    let mut kept = 0;
    for n in 0..count {
        if ledger.append(review_of(&format!("r.example/app{n}"), "u"), Wait::Queued, soon()).await.is_kept() {
            kept += 1;
        }
    }
    ledger.append(change("last"), Wait::Saved, soon()).await;
    assert_eq!(kept, count);
    // Read while it is open.
    assert_eq!(verified(&file(&folder)).records, count as u64 + 2);
    ledger.seal(soon()).await.expect("sealed");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(file(&folder)).expect("metadata"));
    assert_eq!(mode & 0o777, 0o600, "only its owner reads it");
}
