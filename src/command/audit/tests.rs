//! The command on real ledgers, and how it reads what people write.

use super::*;
use crate::decision::record::{Event, PolicyChange, ReviewInput, ReviewRecord};
use crate::decision::review::Request;
use crate::decision::verdict::for_tests::{denial, deny, overridden};
use crate::edge::ledger::{Ledger, Settings, Store, Wait};
use clap::Args as _;

#[test]
fn times_are_read_as_people_write_them() {
    let now = "2026-11-20T10:00:00Z".parse().expect("time");
    for (text, want) in [
        ("1h", Some("2026-11-20T09:00:00Z")),
        ("90m", Some("2026-11-20T08:30:00Z")),
        ("7d", Some("2026-11-13T10:00:00Z")),
        ("1d12h", Some("2026-11-18T22:00:00Z")),
        ("2026-11-01", Some("2026-11-01T00:00:00Z")),
        ("2026-11-01T09:30:00Z", Some("2026-11-01T09:30:00Z")),
        ("2026-11-01T09:30:00+02:00", Some("2026-11-01T07:30:00Z")),
        ("-1h", None),
        ("yesterday", None),
        ("", None),
        ("2026-13-01", None),
        ("99999999d", None),
    ] {
        let got = parse_time_at(text, now).ok();
        assert_eq!(got, want.map(|want| want.parse().expect("time")), "{text:?}");
    }
}

#[test]
fn help_has_an_example_each() {
    let command = super::Args::augment_args(clap::Command::new("audit"));
    command.clone().debug_assert();
    for sub in command.get_subcommands() {
        let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains(&format!("provost audit {}", sub.get_name())), "{}: {help}", sub.get_name());
    }
}

/// A ledger with one event for each name.
async fn ledger(path: &Path, names: &[&str]) {
    let deadline = || tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    let ledger = Ledger::open(Settings::new(Store::File(path.to_owned()))).expect("ledger");
    for name in names {
        let change = PolicyChange { name: (*name).to_owned(), from: None, to: None, error: None };
        let appended = ledger.append(Event::PoliciesChanged(vec![change]), Wait::Saved, deadline()).await;
        assert!(appended.is_kept(), "{appended:?}");
    }
    ledger.seal(deadline()).await.expect("sealed");
}

fn run(line: &str, paths: &[&Path]) -> (String, String) {
    let ledgers = paths.iter().flat_map(|path| ["--ledger".to_owned(), path.display().to_string()]);
    let words = std::iter::once("audit".to_owned()).chain(line.split(' ').map(str::to_owned)).chain(ledgers);
    let matches = super::Args::augment_args(clap::Command::new("audit")).try_get_matches_from(words).expect("usage");
    let args = <super::Args as clap::FromArgMatches>::from_arg_matches(&matches).expect("usage");
    let mut out = Vec::new();
    let code = match args.command.run(&mut out) {
        Ok(code) => format!("{code:?}"),
        Err(error) => format!("{error:#}"),
    };
    (code, String::from_utf8(out).expect("text"))
}

#[tokio::test]
async fn ledgers_are_merged_shown_and_verified() {
    let folder = tempfile::TempDir::new().expect("folder");
    let (one, two) = (folder.path().join("one.db"), folder.path().join("two.db"));
    ledger(&one, &["a", "b"]).await;
    ledger(&two, &["c"]).await;
    ledger(&one, &["d"]).await;
    let both = [one.as_path(), two.as_path()];
    let zero = format!("{:?}", ExitCode::SUCCESS);
    let broken = format!("{:?}", ExitCode::from(1));

    let (code, out) = run("query --verdict policies-changed -o json", &both);
    let names = |out: &str| -> Vec<String> {
        let lines = out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        lines.map(|line| line["event"]["changes"][0]["name"].as_str().unwrap_or("-").to_owned()).collect()
    };
    assert_eq!((code.as_str(), names(&out)), (zero.as_str(), ["a", "b", "c", "d"].map(str::to_owned).to_vec()));
    assert_eq!(names(&run("query --verdict policies-changed --limit 2 -o json", &both).1), ["c", "d"]);
    assert_eq!(names(&run("tail -n 2 -o json", &both).1), ["d", "-"]);
    assert_eq!(run("query --since 1h", &both).1.lines().count(), 1 + 10);
    assert_eq!(run("query --namespace nowhere", &both).1, "");

    let first: serde_json::Value = serde_json::from_str(run("tail -n 1 -o json", &both).1.trim()).expect("JSON");
    let name = first["record"].as_str().expect("name").to_owned();
    let (code, out) = run(&format!("show {name}"), &both);
    assert_eq!(code, zero);
    assert!(out.starts_with(&format!("record    {name}\n")) && out.contains("type: stopped"), "{out}");
    let short = name.rsplit_once('-').map_or("", |(short, _)| short);
    assert_eq!(run(&format!("show {short}"), &both).0, zero);
    assert_eq!(run("show zzzz-1", &[&two]).0, broken);
    assert!(run("stats", &both).1.starts_with("10 records, "));

    let (code, out) = run(&format!("verify {name}"), &both);
    assert_eq!(code, zero, "{out}");
    assert!(out.contains("7 records in 1 chains") && out.contains("3 records in 1 chains"), "{out}");
    let forged = format!("verify {short}-0000000000000000");
    for paths in [&both[..], &both[..1]] {
        let (code, out) = run(&forged, paths);
        assert_eq!(code, broken, "{out}");
        assert!(out.contains(&format!("replaced {short}-0000000000000000")), "{out}");
    }
    assert_eq!(run("verify zzzz-1", &both).0, broken);
    rusqlite::Connection::open(&two).expect("open").execute_batch("DELETE FROM records WHERE seq = 2").expect("delete");
    let (code, out) = run("verify", &both);
    assert_eq!(code, broken);
    assert!(out.contains("NOT as it was written") && out.contains("\n  dropped ") && out.contains("-2: "), "{out}");
    assert!(run("verify", &[&folder.path().join("none.db")]).0.contains("cannot open"));
}

#[tokio::test]
async fn overrides_are_found_alone() {
    let folder = tempfile::TempDir::new().expect("folder");
    let path = folder.path().join("ledger.db");
    let deadline = || tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    let ledger = Ledger::open(Settings { reserve: 0, ..Settings::new(Store::File(path.clone())) }).expect("ledger");
    let refused = || vec![denial(Code::Unsigned, None, "", "")];
    for (uid, verdict) in
        [("denied", deny(refused(), vec![], 1)), ("overridden", overridden(refused(), vec![], vec![]))]
    {
        let request = Request { uid: uid.to_owned(), ..Request::default() };
        let input = ReviewInput { request: &request, images: &[], verdict: &verdict, fault: None, stages: &[] };
        let appended = ledger.append(Event::Review(ReviewRecord::new(input)), Wait::Saved, deadline()).await;
        assert!(appended.is_kept(), "{appended:?}");
    }
    ledger.seal(deadline()).await.expect("sealed");
    let uids = |line: &str| -> Vec<String> {
        let (_, out) = run(line, &[&path]);
        let lines = out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        lines.map(|line| line["event"]["uid"].as_str().unwrap_or("-").to_owned()).collect()
    };
    assert_eq!(uids("query --break-glass -o json"), ["overridden"]);
    assert_eq!(uids("query --break-glass --code unsigned -o json"), ["overridden"]);
    // Twin: the code alone finds both.
    assert_eq!(uids("query --code unsigned -o json"), ["denied", "overridden"]);
    assert_eq!(uids("query --break-glass --code wrong-signer -o json"), [] as [&str; 0]);
    let both = ["audit", "query", "--break-glass", "--verdict", "deny"];
    assert!(super::Args::augment_args(clap::Command::new("audit")).try_get_matches_from(both).is_err());
}
