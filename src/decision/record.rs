//! Ledger records: what is written down of each decision and each change, and how records are chained. It must never hold
//! an environment value, a secret, a token or the object under review.
//!
//! **Body.** The canonical JSON (RFC 8785) of one object with the members `chain`, `cluster`, `event`, `replica`, `seq`,
//! `time` (RFC 3339, UTC) and `v` (1). What happened is in `event`, its kind in `event.type`.
//!
//! **Chain.** `hash = SHA-256("provost-record-v1\n" ‖ previous ‖ body)`, where `previous` is the 32 bytes of the hash of the
//! record before it in the same chain, and 32 zero bytes for the first. Sequences begin at 1 and have no gaps.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::Serialize;

use super::reference::Digest;

mod claims;
mod fit;
mod floods;
mod review;

pub use claims::{ImageRow, NotARecord, Recovery, Row, column_repository};
pub use fit::{MAX_RECORD, shorten};
pub use floods::{Floods, Refusal, Repeats, Tally};
pub use review::{ReviewInput, ReviewRecord};

/// What `previous` is for the first record of a chain.
pub const NO_RECORD: Digest = Digest::from_bytes([0; 32]);

/// Something that is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A review and what it ended in.
    Review(ReviewRecord),
    /// The server started; always before its first review.
    Started(Started),
    /// The server stopped and everything is on disk; always the last record before the next `started`.
    Stopped,
    /// The policies that serve have changed.
    PoliciesChanged(Vec<PolicyChange>),
    /// Another serving certificate is in use.
    CertificateChanged {
        /// SHA-256 of the certificate's DER.
        fingerprint: Digest,
        /// When it ends.
        not_after: Timestamp,
    },
    /// The first record of a chain that goes on where another ended without `stopped`.
    Recovered(Recovery),
    /// Refusals that were equal to one that has a record of its own.
    Repeats(Repeats),
    /// Reviews that were turned away unjudged (C-03).
    Shed(Tally),
}

/// What a server says of itself when it starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Started {
    /// The version of Provost.
    pub version: String,
    /// Settings worth knowing, by name. Never a secret.
    pub settings: std::collections::BTreeMap<String, String>,
}

/// One policy or deny-list that came, went or changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyChange {
    /// `metadata.name`, or the source where not even that could be read.
    pub name: String,
    /// The content hash before; `None`: it is new.
    pub from: Option<Digest>,
    /// The content hash now; `None`: it is gone, or broken.
    pub to: Option<Digest>,
    /// What is wrong with it, where it is broken.
    pub error: Option<String>,
}

/// The four lower-case letters that name a chain. Drawn when a chain begins, so that names are unique over replicas.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainName([u8; 4]);

impl ChainName {
    /// The name for a random number; every name is as likely as any other, to within one in nine thousand.
    #[must_use]
    pub const fn drawn(random: u32) -> Self {
        let mut letters = [b'a'; 4];
        let mut rest = random;
        let mut at = 0;
        while at < letters.len() {
            // The remainder is below 26, so the sum stays within the letters.
            letters[at] += (rest % 26) as u8;
            rest /= 26;
            at += 1;
        }
        Self(letters)
    }
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|letter| write!(f, "{}", char::from(*letter)))
    }
}

impl fmt::Debug for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ChainName {
    type Err = InvalidRecordName;

    fn from_str(text: &str) -> Result<Self, InvalidRecordName> {
        match <[u8; 4]>::try_from(text.as_bytes()) {
            Ok(letters) if letters.iter().all(u8::is_ascii_lowercase) => Ok(Self(letters)),
            Ok(_) | Err(_) => Err(InvalidRecordName::new(text)),
        }
    }
}

/// The name of one record: `<chain>-<seq>-<hash16>`, the last part being the first 16 hex digits of its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordName {
    /// The chain.
    pub chain: ChainName,
    /// The place in the chain, from 1.
    pub seq: u64,
    /// The first eight bytes of the record's hash.
    pub hash16: [u8; 8],
}

impl RecordName {
    /// The name of the record at a place, with its hash.
    #[must_use]
    pub fn new(chain: ChainName, seq: u64, hash: &Digest) -> Self {
        let mut hash16 = [0; 8];
        hash16.copy_from_slice(&hash.as_bytes()[..8]);
        Self { chain, seq, hash16 }
    }
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{:016x}", self.chain, self.seq, u64::from_be_bytes(self.hash16))
    }
}

impl FromStr for RecordName {
    type Err = InvalidRecordName;

    fn from_str(text: &str) -> Result<Self, InvalidRecordName> {
        let place = text.parse::<RecordPlace>()?;
        match place.hash16 {
            Some(hash16) => Ok(Self { chain: place.chain, seq: place.seq, hash16 }),
            None => Err(InvalidRecordName::new(text)),
        }
    }
}

/// A record as a person asks for it: `<chain>-<seq>`, with or without the hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordPlace {
    /// The chain.
    pub chain: ChainName,
    /// The place in the chain, from 1.
    pub seq: u64,
    /// The hash as far as a name holds it, where it was given: then the record must have it.
    pub hash16: Option<[u8; 8]>,
}

impl fmt::Display for RecordPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.chain, self.seq)?;
        self.hash16.map_or(Ok(()), |hash16| write!(f, "-{:016x}", u64::from_be_bytes(hash16)))
    }
}

impl FromStr for RecordPlace {
    type Err = InvalidRecordName;

    fn from_str(text: &str) -> Result<Self, InvalidRecordName> {
        let fail = || InvalidRecordName::new(text);
        let mut parts = text.splitn(3, '-');
        let chain = parts.next().unwrap_or_default().parse().map_err(|_| fail())?;
        let seq = parts.next().unwrap_or_default();
        let plain = (1..=16).contains(&seq.len()) && seq.bytes().all(|b| b.is_ascii_digit()) && !seq.starts_with('0');
        let seq = seq.parse().ok().filter(|_| plain).ok_or_else(fail)?;
        let hash16 = match parts.next() {
            None => None,
            Some(hex) => {
                let lower = hex.len() == 16 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
                let number = u64::from_str_radix(hex, 16).ok().filter(|_| lower).ok_or_else(fail)?;
                Some(number.to_be_bytes())
            }
        };
        Ok(Self { chain, seq, hash16 })
    }
}

/// Why a text names no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} names no record: four lower-case letters, a number and 16 hex digits, as in kqzt-184467-9f3c2a7e11d0c4aa"
)]
pub struct InvalidRecordName {
    text: String,
}

impl InvalidRecordName {
    fn new(text: &str) -> Self {
        Self { text: text.chars().take(80).collect() }
    }
}

/// Who writes a chain. Texts are shortened to 200 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    cluster: String,
    replica: String,
}

impl Writer {
    /// The names as they stand in records.
    #[must_use]
    pub fn new(cluster: &str, replica: &str) -> Self {
        let quoted = |text| fit::canonical(&fit::shorten(text, 200));
        Self { cluster: quoted(cluster), replica: quoted(replica) }
    }
}

/// An event made ready: everything that costs time is done, only its place in a chain is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    event: String,
}

impl Event {
    /// What makes it equal to other refusals; `None` for all that was allowed, and for what is no review.
    #[must_use]
    pub const fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Review(review) => review.refusal(),
            Self::Started(_)
            | Self::Stopped
            | Self::PoliciesChanged(_)
            | Self::CertificateChanged { .. }
            | Self::Recovered(_)
            | Self::Repeats(_)
            | Self::Shed(_) => None,
        }
    }

    /// Makes the event ready for a chain.
    #[must_use]
    pub fn draft(&self) -> Draft {
        let event = match self {
            Self::Review(review) => review.canonical().to_owned(),
            Self::Started(started) => fit::started(started),
            Self::Stopped => r#"{"type":"stopped"}"#.to_owned(),
            Self::PoliciesChanged(changes) => fit::policies_changed(changes),
            Self::CertificateChanged { fingerprint, not_after } => {
                format!(r#"{{"fingerprint":"{fingerprint}","notAfter":"{not_after}","type":"certificate-changed"}}"#)
            }
            Self::Recovered(Recovery { chain, seq, hash }) => {
                format!(r#"{{"chain":"{chain}","hash":"{hash}","seq":{seq},"type":"recovered"}}"#)
            }
            Self::Repeats(repeats) => repeats.canonical(),
            Self::Shed(tally) => floods::shed(tally),
        };
        Draft { event }
    }
}

impl Draft {
    /// Puts the event at its place in a chain. The members stand in the order that RFC 8785 asks for.
    #[must_use]
    pub fn seal(self, chain: ChainName, seq: u64, time: Timestamp, writer: &Writer, previous: Digest) -> Record {
        let Writer { cluster, replica } = writer;
        let body = format!(
            r#"{{"chain":"{chain}","cluster":{cluster},"event":{},"replica":{replica},"seq":{seq},"time":"{time}","v":1}}"#,
            self.event
        );
        let hash = record_hash(previous.as_bytes(), body.as_bytes());
        Record { name: RecordName::new(chain, seq, &hash), time, previous, hash, body }
    }
}

/// One record in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its name.
    pub name: RecordName,
    /// When it was made.
    pub time: Timestamp,
    /// The hash of the record before it; [`NO_RECORD`] for the first.
    pub previous: Digest,
    /// Its own hash.
    pub hash: Digest,
    /// Its canonical body.
    pub body: String,
}

impl Record {
    /// The record as one line of JSON: the body with `record`, `previous` and `hash` put at its end, and
    /// `"unsaved":true` while it is not on disk. Cutting these off again gives the body, byte for byte.
    #[must_use]
    pub fn line(&self, saved: bool) -> String {
        let inner = self.body.strip_suffix('}').unwrap_or(&self.body);
        let unsaved = if saved { "" } else { r#","unsaved":true"# };
        format!(r#"{inner},"record":"{}","previous":"{}","hash":"{}"{unsaved}}}"#, self.name, self.previous, self.hash)
    }
}

/// The hash of a record, as the head of this module defines it.
#[must_use]
pub fn record_hash(previous: &[u8], body: &[u8]) -> Digest {
    let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    hash.update(b"provost-record-v1\n");
    hash.update(previous);
    hash.update(body);
    fit::digest(&hash.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(count: usize) -> Tally {
        let mut tally = Tally::default();
        (0..count).for_each(|n| tally.add(&format!("{n}\u{1}\"")));
        tally
    }

    #[test]
    fn names_of_records() {
        for (text, name, place) in [
            ("kqzt-184467-9f3c2a7e11d0c4aa", true, true),
            ("kqzt-1-0000000000000000", true, true),
            ("kqzt-1", false, true),
            ("kqzt-9007199254740991", false, true),
            ("kqzt-0", false, false),
            ("kqzt-01", false, false),
            ("kqzt-+1", false, false),
            ("kqzt-", false, false),
            ("kqzt", false, false),
            ("", false, false),
            ("KQZT-1", false, false),
            ("kqz-1", false, false),
            ("kqzta-1", false, false),
            ("kqz1-1", false, false),
            ("kqzt-1-9f3c2a7e11d0c4a", false, false),
            ("kqzt-1-9f3c2a7e11d0c4aaa", false, false),
            ("kqzt-1-9F3C2A7E11D0C4AA", false, false),
            ("kqzt-1-+f3c2a7e11d0c4aa", false, false),
            ("kqzt-1-9f3c2a7e11d0c4aa-", false, false),
            ("kqzt-99999999999999999999", false, false),
        ] {
            assert_eq!(text.parse::<RecordName>().is_ok(), name, "{text:?} as a name");
            assert_eq!(text.parse::<RecordPlace>().is_ok(), place, "{text:?} as a place");
            if let Ok(place) = text.parse::<RecordPlace>() {
                assert_eq!(place.to_string(), text);
            }
        }
        assert_eq!(ChainName::drawn(0).to_string(), "aaaa");
        assert_eq!(ChainName::drawn(26 * 26 * 26 * 26 - 1).to_string(), "zzzz");
        assert!(ChainName::drawn(u32::MAX).to_string().parse::<ChainName>().is_ok());
    }

    #[test]
    fn a_body_is_canonical_and_its_hash_covers_place_and_predecessor() {
        let chain = ChainName::drawn(7);
        let writer = Writer::new("prod \"eu\"\n", "provost-0");
        let time: Timestamp = "2026-11-20T10:00:00.5Z".parse().expect("time");
        let started = Started {
            version: "1".to_owned(),
            settings: [("b".to_owned(), "x".to_owned()), ("a".to_owned(), "é\u{1}".to_owned())].into(),
        };
        for event in [
            Event::Started(started),
            Event::Stopped,
            Event::PoliciesChanged(vec![PolicyChange {
                name: "p".to_owned(),
                from: None,
                to: Some(NO_RECORD),
                error: Some("\"".to_owned()),
            }]),
            Event::CertificateChanged { fingerprint: NO_RECORD, not_after: time },
            Event::Recovered(Recovery { chain, seq: 9, hash: NO_RECORD }),
            Event::Shed(Tally::default()),
            Event::Shed(tally(300)),
        ] {
            let record = event.draft().seal(chain, 3, time, &writer, NO_RECORD);
            let value: serde_json::Value = serde_json::from_str(&record.body).expect("JSON");
            assert_eq!(serde_json_canonicalizer::to_string(&value).expect("canonical"), record.body, "{event:?}");
            let row = Row::of(&record.body).expect("claims");
            assert_eq!((row.chain.as_str(), row.seq), (chain.to_string().as_str(), 3));
            assert_eq!(row.time, time.as_microsecond());
            assert_eq!(Event::clone(&event).draft().seal(chain, 3, time, &writer, NO_RECORD), record);
            for other in [
                event.draft().seal(ChainName::drawn(8), 3, time, &writer, NO_RECORD),
                event.draft().seal(chain, 4, time, &writer, NO_RECORD),
                event.draft().seal(chain, 3, time, &writer, Digest::from_bytes([1; 32])),
                event.draft().seal(chain, 3, time, &Writer::new("prod", "provost-0"), NO_RECORD),
            ] {
                assert_ne!(other.hash, record.hash, "{event:?}");
            }
            for saved in [true, false] {
                let line = record.line(saved);
                let value: serde_json::Value = serde_json::from_str(&line).expect("a line is JSON");
                assert_eq!(value["record"], record.name.to_string());
                assert_eq!(value["unsaved"].as_bool().unwrap_or(false), !saved);
                let (inner, _) = line.split_once(r#","record":""#).expect("the suffix");
                assert_eq!(format!("{inner}}}"), record.body);
            }
        }
    }
}
