//! What is done to a ledger is found, and named; what is not, is not.

use jiff::Timestamp;

use super::*;
use crate::decision::record::{Event, PolicyChange, Record, Started, Writer};

fn stored(record: &Record) -> Stored {
    Stored {
        previous: record.previous.as_bytes().to_vec(),
        hash: record.hash.as_bytes().to_vec(),
        body: record.body.clone(),
        row: Row::of(&record.body).expect("a record"),
    }
}

/// A chain of records; each event is sealed after the one before it.
fn chain(letters: &str, events: impl IntoIterator<Item = Event>) -> Vec<Record> {
    let letters = letters.parse().expect("chain");
    let mut previous = NO_RECORD;
    let mut records = Vec::new();
    for (seq, event) in (1..).zip(events) {
        let time = Timestamp::from_second(1_700_000_000 + i64::try_from(seq).expect("small")).expect("time");
        let record = event.draft().seal(letters, seq, time, &Writer::new("c", "r"), previous);
        previous = record.hash;
        records.push(record);
    }
    records
}

fn change(n: usize) -> Event {
    Event::PoliciesChanged(vec![PolicyChange { name: format!("p{n}"), from: None, to: None, error: None }])
}

fn started() -> Event {
    Event::Started(Started::default())
}

/// `started`, changes, and so `count` records.
fn plain(letters: &str, count: usize) -> Vec<Record> {
    chain(letters, [started()].into_iter().chain((1..count).map(change)))
}

fn found(records: impl IntoIterator<Item = Stored>) -> Vec<(Tampering, String)> {
    match verify_chain(records) {
        Ok(_) => vec![],
        Err(findings) => findings.into_iter().map(|finding| (finding.kind, finding.record)).collect(),
    }
}

/// The same ledger with its store's sequences counted anew, as they must be for a store that has each only once.
fn renumbered(mut records: Vec<Stored>) -> Vec<Stored> {
    for (seq, record) in (1..).zip(&mut records) {
        record.row.seq = seq;
    }
    records
}

/// A record that was never written, made by somebody who knows how.
fn forged(after: &Record, seq: u64) -> Record {
    change(99).draft().seal(after.name.chain, seq, after.time, &Writer::new("c", "r"), after.hash)
}

#[test]
fn x_124_a_sound_ledger_is_sound() {
    let records = plain("aaaa", 9);
    let summary = verify_chain(records.iter().map(stored)).expect("sound");
    assert_eq!(summary.records, 9);
    assert_eq!(
        summary.chains,
        [ChainSummary { chain: "aaaa".parse().expect("chain"), last: records[8].name, end: End::Open }]
    );
    assert_eq!(verify_chain([]).expect("an empty ledger is sound"), Summary::default());
    let stopped = chain("aaaa", [started(), Event::Stopped, started(), Event::Stopped]);
    assert_eq!(verify_chain(stopped.iter().map(stored)).expect("sound").chains[0].end, End::Stopped);
}

#[test]
fn x_124_flipped() {
    use Tampering::{ColumnsChanged, Flipped, Replaced};
    type Change = fn(&mut Stored);
    let records = plain("aaaa", 5);
    let changes: [(&str, Tampering, Change); 14] = [
        ("one byte of the body", Flipped, |r| r.body = r.body.replacen("\"c\"", "\"d\"", 1)),
        ("white space", Flipped, |r| r.body.push(' ')),
        ("no JSON", Flipped, |r| r.body.clear()),
        ("its hash", Flipped, |r| r.hash[31] ^= 1),
        ("the start of its hash", Flipped, |r| r.hash[0] ^= 1),
        ("a short hash", Flipped, |r| r.hash.truncate(31)),
        ("the hash before it", Flipped, |r| r.previous[0] ^= 1),
        ("body and hash, but not the next record", Replaced, |r| {
            r.body = r.body.replacen("\"c\"", "\"d\"", 1);
            r.hash = record_hash(&r.previous, r.body.as_bytes()).as_bytes().to_vec();
        }),
        ("time column", ColumnsChanged, |r| r.row.time += 1),
        ("verdict column", ColumnsChanged, |r| r.row.verdict = "admit".to_owned()),
        ("namespace column", ColumnsChanged, |r| r.row.namespace = "x".to_owned()),
        ("user column", ColumnsChanged, |r| r.row.user = "x".to_owned()),
        ("dry run column", ColumnsChanged, |r| r.row.dry_run = true),
        ("an image put in", ColumnsChanged, |r| r.row.images.push(crate::decision::record::ImageRow::default())),
    ];
    for (name, want, change) in changes {
        for at in 0..5 {
            let mut ledger: Vec<_> = records.iter().map(stored).collect();
            change(&mut ledger[at]);
            let found = found(ledger);
            if want == Replaced && at == 4 {
                // Nothing follows that could name the true one: this is what names kept elsewhere are for.
                assert!(found.is_empty(), "{name} at {at}: {found:?}");
                continue;
            }
            assert_eq!(found.len(), 1, "{name} at {at}: {found:?}");
            assert_eq!(found[0].0, want, "{name} at {at}");
            let place = format!("aaaa-{}", at + 1);
            assert!(found[0].1 == place || found[0].1.starts_with(&format!("{place}-")), "{name}: {found:?}");
        }
    }
}

#[test]
fn x_124_dropped() {
    let records = plain("aaaa", 9);
    for (name, gone, want) in [
        ("one", 3..4, Some("aaaa-4")),
        ("several", 3..6, Some("aaaa-4")),
        ("the first", 0..1, Some("aaaa-1")),
        ("the last, which nobody else names", 8..9, None),
    ] {
        let mut ledger: Vec<_> = records.iter().map(stored).collect();
        ledger.drain(gone.clone());
        let want: Vec<_> = want.iter().map(|place| (Tampering::Dropped, (*place).to_owned())).collect();
        assert_eq!(found(ledger.clone()), want, "{name}");
        if want.is_empty() || gone.start == 0 {
            continue;
        }
        // Closing the gap in the columns does not help: the records know their places.
        let found = found(renumbered(ledger));
        assert!(found.contains(&want[0]), "{name}: {found:?}");
        assert!(found.contains(&(Tampering::Reordered, records[gone.end].name.to_string())), "{name}: {found:?}");
    }
}

#[test]
fn x_124_reordered() {
    let records = plain("aaaa", 9);
    let mut ledger: Vec<_> = records.iter().map(stored).collect();
    ledger.swap(3, 5);
    // As a file whose lines were swapped, and as a store whose columns were.
    assert_eq!(
        found(ledger.clone()),
        [(Tampering::Reordered, records[4].name.to_string()), (Tampering::Reordered, records[3].name.to_string()),]
    );
    assert_eq!(
        found(renumbered(ledger)),
        [(Tampering::Reordered, records[5].name.to_string()), (Tampering::Reordered, records[3].name.to_string()),]
    );
}

#[test]
fn x_124_inserted() {
    use Tampering::{Inserted, Replaced};
    let records = plain("aaaa", 9);
    let honest: Vec<_> = records.iter().map(stored).collect();
    let put = |at: usize, record: &Record| {
        let mut ledger = honest.clone();
        ledger.insert(at, stored(record));
        ledger
    };
    // Before the true record of the same sequence, after it, and at the very end.
    for at in [5, 6] {
        let record = forged(&records[4], 6);
        assert_eq!(found(put(at, &record)), [(Inserted, record.name.to_string())], "at {at}");
        let shifted = found(renumbered(put(at, &record)));
        assert!(shifted.contains(&(Inserted, record.name.to_string())), "at {at}: {shifted:?}");
    }
    let record = forged(&records[7], 9);
    assert_eq!(found(put(9, &record)), [(Inserted, record.name.to_string())]);
    // A copy of an old record.
    assert_eq!(found(put(9, &records[2])), [(Inserted, records[2].name.to_string())]);
    assert_eq!(found(put(3, &records[2])), [(Inserted, records[2].name.to_string())]);
    // In the place of the true one.
    let record = forged(&records[4], 6);
    let mut ledger = honest.clone();
    ledger[5] = stored(&record);
    assert_eq!(found(ledger), [(Replaced, record.name.to_string())]);
    // One that names another predecessor.
    let record = forged(&records[1], 10);
    assert_eq!(found(put(9, &record)), [(Replaced, records[8].name.to_string())]);
    // Another chain's record.
    let other = plain("bbbb", 3);
    let mut stranger = stored(&other[1]);
    stranger.row.chain = "aaaa".to_owned();
    let mut ledger = honest.clone();
    ledger.push(stranger);
    assert_eq!(found(ledger), [(Inserted, other[1].name.to_string())]);
    // A chain of one's own, which goes on after nothing.
    assert_eq!(found(honest.iter().cloned().chain(other.iter().map(stored))), [(Inserted, "bbbb".to_owned())]);
    // A chain that begins with a predecessor.
    let alone =
        change(1).draft().seal(records[0].name.chain, 1, records[0].time, &Writer::new("c", "r"), records[0].hash);
    assert_eq!(found([stored(&alone)]), [(Replaced, alone.name.to_string())]);
}

#[test]
fn x_124_x_125_cut() {
    let old = plain("mmmm", 6);
    let recovery =
        |at: usize| Event::Recovered(Recovery { chain: old[at].name.chain, seq: old[at].name.seq, hash: old[at].hash });
    for new in ["aaaa", "zzzz"] {
        let next = chain(new, [recovery(5), started(), change(1)]);
        let sound = verify_chain(old.iter().chain(&next).map(stored)).expect("sound");
        let ends: Vec<_> = sound.chains.iter().map(|chain| (chain.chain.to_string(), chain.end)).collect();
        assert!(ends.contains(&("mmmm".to_owned(), End::Recovered(new.parse().expect("chain")))), "{ends:?}");
        assert!(ends.contains(&(new.to_owned(), End::Open)), "{ends:?}");
        for (name, kept, want) in [
            ("the end", 5, (Tampering::Cut, "mmmm-6")),
            ("more of the end", 2, (Tampering::Cut, "mmmm-3")),
            ("all", 0, (Tampering::Dropped, "mmmm")),
        ] {
            let ledger = old.iter().take(kept).chain(&next).map(stored);
            assert_eq!(found(ledger), [(want.0, want.1.to_owned())], "{name}");
        }
        // A record put behind the end of a chain that is over.
        let next = chain(new, [recovery(4), started()]);
        assert_eq!(found(old.iter().chain(&next).map(stored)), [(Tampering::Inserted, "mmmm-6".to_owned())]);
        // The last record replaced by another, whole by itself.
        let next = chain(new, [recovery(5), started()]);
        let mut ledger: Vec<_> = old.iter().chain(&next).map(stored).collect();
        ledger[5] = stored(&forged(&old[4], 6));
        assert_eq!(found(ledger), [(Tampering::Replaced, "mmmm-6".to_owned())]);
    }
    // Two chains that both go on after one.
    let both = [chain("aaaa", [recovery(5)]), chain("bbbb", [recovery(5)])].concat();
    assert_eq!(found(old.iter().chain(&both).map(stored)), [(Tampering::Inserted, "bbbb".to_owned())]);
}

#[test]
fn x_125_x_126_names_kept_elsewhere() {
    let old = plain("mmmm", 6);
    let end = Recovery { chain: old[5].name.chain, seq: 6, hash: old[5].hash };
    let next = chain("zzzz", [Event::Recovered(end), started()]);
    let other = "0000000000000000";
    for (name, asked, want) in [
        ("there", old[3].name.to_string(), Ok(false)),
        ("there, asked without hash", "mmmm-4".to_owned(), Ok(false)),
        ("given away and lost in the crash", format!("mmmm-7-{other}"), Ok(true)),
        ("cut off the open chain", format!("zzzz-3-{other}"), Err(Tampering::Cut)),
        ("another in its place", format!("mmmm-4-{other}"), Err(Tampering::Replaced)),
        ("of a chain that is not here", format!("qqqq-1-{other}"), Err(Tampering::Cut)),
    ] {
        let mut verifier = Verifier::default();
        let place: RecordPlace = asked.parse().expect("a name");
        verifier.expect(place);
        old.iter().chain(&next).for_each(|record| verifier.push(&stored(record)));
        match (verifier.finish(), want) {
            (Ok(summary), Ok(lost)) => {
                assert_eq!(summary.lost_in_crash, if lost { vec![place] } else { vec![] }, "{name}");
            }
            (Err(findings), Err(kind)) => {
                assert_eq!(
                    findings.iter().map(|f| (f.kind, f.record.clone())).collect::<Vec<_>>(),
                    [(kind, asked)],
                    "{name}"
                );
            }
            (got, want) => panic!("{name}: {got:?}, not {want:?}"),
        }
    }
}

#[test]
fn findings_are_bounded() {
    let mut ledger: Vec<_> = plain("aaaa", 2000).iter().map(stored).collect();
    for record in &mut ledger {
        record.body.push(' ');
    }
    let found = found(ledger);
    assert_eq!(found.len(), MAX_FINDINGS + 1);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Whatever is done to some records but the last, something is found.
    #[test]
    fn x_124_any_flip_is_found(at in 0_usize..7, byte in 0_usize..200, bit in 0_u8..7) {
        let records = plain("aaaa", 8);
        let mut ledger: Vec<_> = records.iter().map(stored).collect();
        let mut body = ledger[at].body.clone().into_bytes();
        let byte = byte % body.len();
        body[byte] ^= 1 << bit;
        if let Ok(body) = String::from_utf8(body) {
            ledger[at].body = body;
            let place = format!("aaaa-{}-", at + 1);
            proptest::prop_assert!(matches!(found(ledger).as_slice(), [(Tampering::Flipped, name)] if name.starts_with(&place)));
        }
    }

    /// Any order but the true one is found.
    #[test]
    fn x_124_any_other_order_is_found(order in proptest::prelude::Just((0..7).collect::<Vec<usize>>()).prop_shuffle()) {
        let records = plain("aaaa", 7);
        let ledger: Vec<_> = order.iter().map(|at| stored(&records[*at])).collect();
        let in_order = order.is_sorted();
        proptest::prop_assert_eq!(found(ledger.clone()).is_empty(), in_order);
        proptest::prop_assert_eq!(found(renumbered(ledger)).is_empty(), in_order);
    }
}

use proptest::strategy::Strategy as _;
