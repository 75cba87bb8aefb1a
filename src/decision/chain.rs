//! Whether a ledger still holds what was written: every record against its hash, its place, its neighbours and its columns.
//! It must never call a ledger sound that has a record changed, dropped, put elsewhere or put in.
//!
//! Two things no ledger can show by itself: that its newest records were cut off, and that all of it was written anew. For
//! these the names of records that others keep are compared ([`Verifier::expect`]).

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::record::{ChainName, NO_RECORD, RecordName, RecordPlace, Recovery, Row, record_hash};
use super::reference::Digest;

mod follow;
#[cfg(test)]
mod tests;

use follow::Follower;

/// A record as a store holds it, nothing of it believed yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// The hash of the record before it, as stored.
    pub previous: Vec<u8>,
    /// Its own hash, as stored.
    pub hash: Vec<u8>,
    /// Its body, as stored.
    pub body: String,
    /// The columns under which it is found.
    pub row: Row,
}

/// One thing that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was done.
    pub kind: Tampering,
    /// The record, by name where its hash can be read, else `<chain>-<seq>`; a chain by its four letters.
    pub record: String,
    /// What shows it.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.kind.as_str(), self.record, self.detail)
    }
}

/// What was done to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tampering {
    /// Its bytes are not those that its hash was made of.
    Flipped,
    /// It is whole by itself, and a neighbour names another.
    Replaced,
    /// It is gone from between others.
    Dropped,
    /// It stands in another's place.
    Reordered,
    /// It was put in.
    Inserted,
    /// The end of its chain is gone.
    Cut,
    /// The columns by which it is found say something else than it does.
    ColumnsChanged,
}

impl Tampering {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flipped => "flipped",
            Self::Replaced => "replaced",
            Self::Dropped => "dropped",
            Self::Reordered => "reordered",
            Self::Inserted => "inserted",
            Self::Cut => "cut",
            Self::ColumnsChanged => "columns-changed",
        }
    }
}

/// What a sound ledger holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// All records.
    pub records: u64,
    /// All chains, by name.
    pub chains: Vec<ChainSummary>,
    /// Names that were asked for and that an unclean stop lost before they were on disk ([`Verifier::expect`]).
    pub lost_in_crash: Vec<RecordPlace>,
}

/// One chain of a sound ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainSummary {
    /// Its letters.
    pub chain: ChainName,
    /// Its last record. It has as many records as this has for a sequence.
    pub last: RecordName,
    /// How it ends.
    pub end: End,
}

/// How a chain ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With `stopped`.
    Stopped,
    /// Without `stopped`; this chain goes on where it ended.
    Recovered(ChainName),
    /// Without `stopped`: it is being written, or its server died and was not started again, or its end was cut off.
    Open,
}

/// How many findings are kept; the rest is counted.
const MAX_FINDINGS: usize = 1000;

/// Verifies records in the order of their store: by chain, then by sequence.
pub fn verify_chain(records: impl IntoIterator<Item = Stored>) -> Result<Summary, Vec<Finding>> {
    let mut verifier = Verifier::default();
    records.into_iter().for_each(|record| verifier.push(&record));
    verifier.finish()
}

/// A verification in progress.
#[derive(Debug, Default)]
pub struct Verifier {
    chains: BTreeMap<String, Follower>,
    records: u64,
    expected: HashMap<(String, u64), Vec<RecordPlace>>,
    findings: Findings,
}

/// Findings, the first [`MAX_FINDINGS`] of them.
#[derive(Debug, Default)]
struct Findings {
    kept: Vec<Finding>,
    more: usize,
}

impl Findings {
    fn add(&mut self, kind: Tampering, record: impl Into<String>, detail: impl Into<String>) {
        if self.kept.len() < MAX_FINDINGS {
            self.kept.push(Finding { kind, record: record.into(), detail: detail.into() });
        } else {
            self.more += 1;
        }
    }
}

impl Verifier {
    /// Asks for a record whose name somebody else kept, say the API server's audit log. Call it before the first
    /// [`Self::push`].
    pub fn expect(&mut self, name: RecordPlace) {
        self.expected.entry((name.chain.to_string(), name.seq)).or_default().push(name);
    }

    /// The next record, in the order of chain and sequence.
    pub fn push(&mut self, stored: &Stored) {
        self.records += 1;
        let Stored { previous, hash, body, row } = stored;
        let seq = u64::try_from(row.seq).unwrap_or(0);
        let follower = self.chains.entry(row.chain.clone()).or_default();
        let (Ok(_), Ok(previous), Ok(hash)) =
            (row.chain.parse::<ChainName>(), <[u8; 32]>::try_from(&**previous), <[u8; 32]>::try_from(&**hash))
        else {
            let place = format!("{}-{}", row.chain, row.seq);
            follower.flipped(seq, &place, <[u8; 32]>::try_from(&**hash).map(Digest::from_bytes).into_iter().collect());
            return self.findings.add(Tampering::Flipped, place, "its chain or one of its hashes is none");
        };
        let (previous, hash) = (Digest::from_bytes(previous), Digest::from_bytes(hash));
        let named = |chain: &str, seq: i64| format!("{chain}-{seq}-{}", &hash.hex()[..16]);
        let computed = record_hash(previous.as_bytes(), body.as_bytes());
        match Row::of(body) {
            Ok(claims) if computed == hash => {
                let name = named(&claims.chain, claims.seq);
                if claims.chain == row.chain {
                    if let Some(column) = differing(&claims, row) {
                        let detail = format!("{column} is not what the record says");
                        self.findings.add(Tampering::ColumnsChanged, &name, detail);
                    }
                    let true_seq = u64::try_from(claims.seq).unwrap_or(0);
                    let link = follow::Link { place: seq, seq: true_seq, previous, hash, name: &name, row: &claims };
                    follower.follow(&link, body, &mut self.findings);
                } else {
                    let detail = format!("it stands at {}-{}, in another chain than its own", row.chain, row.seq);
                    self.findings.add(Tampering::Inserted, &name, detail);
                }
            }
            Ok(_) | Err(_) => {
                let name = named(&row.chain, row.seq);
                let detail = if computed == hash {
                    "its body is no record".to_owned()
                } else {
                    format!("its hash is {computed}, not {hash} as stored")
                };
                self.findings.add(Tampering::Flipped, &name, detail);
                follower.flipped(seq, &name, vec![hash, computed]);
            }
        }
        if let Some(names) = self.expected.get_mut(&(row.chain.clone(), seq)) {
            names.retain(|wanted| wanted.hash16.is_some_and(|hash16| hash16 != hash.as_bytes()[..8]));
        }
    }

    /// What came out: the summary of a sound ledger, or all that is wrong with this one.
    pub fn finish(self) -> Result<Summary, Vec<Finding>> {
        let Self { mut chains, records, expected, mut findings } = self;
        for (chain, follower) in &mut chains {
            follower.finish(chain, &mut findings);
        }
        let recovered_by = follow_recoveries(&chains, &mut findings);
        let mut lost_in_crash = Vec::new();
        for place in expected.into_values().flatten() {
            let chain = place.chain.to_string();
            let end = chains.get(&chain).map_or(0, Follower::last_seq);
            if place.seq > end && recovered_by.contains_key(&chain) {
                lost_in_crash.push(place);
            } else if place.seq > end {
                findings.add(Tampering::Cut, place.to_string(), "it was named, and its chain ends before it");
            } else {
                findings.add(Tampering::Replaced, place.to_string(), "another record stands in its place");
            }
        }
        lost_in_crash.sort_unstable();
        let Findings { mut kept, more } = findings;
        if more > 0 {
            let last = kept.last().map_or(Tampering::Flipped, |finding| finding.kind);
            kept.push(Finding { kind: last, record: "…".to_owned(), detail: format!("and {more} findings more") });
        }
        if !kept.is_empty() {
            return Err(kept);
        }
        let chains = chains
            .iter()
            .filter_map(|(chain, follower)| {
                let end = match (recovered_by.get(chain), follower.stopped()) {
                    (Some(next), _) => End::Recovered(*next),
                    (None, true) => End::Stopped,
                    (None, false) => End::Open,
                };
                let (chain, (seq, hash)) = (chain.parse().ok()?, follower.last()?);
                Some(ChainSummary { chain, last: RecordName::new(chain, seq, &hash), end })
            })
            .collect();
        Ok(Summary { records, chains, lost_in_crash })
    }
}

/// Which chain goes on after which, and what that shows about their ends.
fn follow_recoveries(chains: &BTreeMap<String, Follower>, findings: &mut Findings) -> BTreeMap<String, ChainName> {
    let mut recovered_by: BTreeMap<String, ChainName> = BTreeMap::new();
    let mut roots = Vec::new();
    for (name, follower) in chains {
        let Ok(next) = name.parse::<ChainName>() else { continue };
        match follower.recovery() {
            None => roots.push((follower.first_time(), name)),
            Some(Recovery { chain, seq, hash }) => {
                let old = chain.to_string();
                if let Some(other) = recovered_by.insert(old.clone(), next) {
                    findings.add(Tampering::Inserted, name, format!("{other} goes on after {old} already"));
                }
                let end = chains.get(&old).and_then(Follower::last);
                match end {
                    None => findings.add(Tampering::Dropped, &old, format!("{name} goes on after this chain")),
                    Some((last, _)) if last < seq => {
                        let detail = format!("{name} goes on after {old}-{seq}, and it ends with {old}-{last}");
                        findings.add(Tampering::Cut, format!("{old}-{}", last + 1), detail);
                    }
                    Some((last, _)) if last > seq => {
                        let detail = format!("{name} goes on after {old}-{seq}, and it ends with {old}-{last}");
                        findings.add(Tampering::Inserted, format!("{old}-{}", seq + 1), detail);
                    }
                    Some((_, end)) if end != hash => {
                        let detail = format!("{name} goes on after a record with the hash {hash}");
                        findings.add(Tampering::Replaced, format!("{old}-{seq}"), detail);
                    }
                    Some(_) => {}
                }
            }
        }
    }
    roots.sort_unstable();
    for (_, root) in roots.iter().skip(1) {
        findings.add(Tampering::Inserted, root.as_str(), "it begins without `recovered`, beside an older chain");
    }
    recovered_by
}

/// The first column that differs from what the body says. The place in the chain is judged elsewhere.
fn differing(claims: &Row, stored: &Row) -> Option<&'static str> {
    let Row { chain: _, seq: _, time, uid, dry_run, namespace, verdict, codes, user, images } = claims;
    [
        (*time == stored.time, "time"),
        (*uid == stored.uid, "uid"),
        (*dry_run == stored.dry_run, "dry_run"),
        (*namespace == stored.namespace, "namespace"),
        (*verdict == stored.verdict, "verdict"),
        (*codes == stored.codes, "codes"),
        (*user == stored.user, "user"),
        (*images == stored.images, "record_images"),
    ]
    .into_iter()
    .find_map(|(same, column)| (!same).then_some(column))
}
