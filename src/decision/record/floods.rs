//! Floods: equal refusals and reviews that were turned away, counted instead of written down one by one. It must
//! never count what was allowed, nor grow with what a caller invents.

use std::collections::{BTreeMap, HashMap};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::fit::{canonical, digest, sha256, shorten};
use super::{Event, NO_RECORD, RecordName, ReviewInput};
use crate::decision::code::Code;
use crate::decision::reference::Digest;
use crate::decision::review::Request;
use crate::decision::verdict::Verdict;

/// How many of the equal refusals within a minute have a record of their own.
const WHOLE: u32 = 10;
/// How long equal refusals are taken together, from the first of them on.
const WINDOW: SignedDuration = SignedDuration::from_mins(1);
/// For how many refusals it is known how often they came.
const SLOTS: u16 = 4096;
/// How many different refusals may be counted at a time; others then have records of their own.
const GROUPS: usize = 128;
/// So many uids are no longer held back.
const LARGE: usize = 4096;
/// The bytes that a uid may take: an API server's have 36.
const UID: usize = 36;

/// How many reviews, and which.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    count: u64,
    uids: Vec<String>,
    rest: Option<Digest>,
}

impl Tally {
    /// How many uids are named. The others are hashed, one after the other: SHA-256 of the hash so far (32 zero bytes at
    /// first) and the uid.
    pub const NAMED: usize = 256;

    /// Adds one.
    pub fn add(&mut self, uid: &str) {
        self.count += 1;
        if self.uids.len() < Self::NAMED {
            self.uids.push(shorten(uid, UID).into_owned());
        } else {
            let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
            hash.update(self.rest.unwrap_or(NO_RECORD).as_bytes());
            hash.update(uid.as_bytes());
            self.rest = Some(digest(&hash.finish()));
        }
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The first of them.
    #[must_use]
    pub fn uids(&self) -> &[String] {
        &self.uids
    }

    /// The hash of the others, where there are others.
    #[must_use]
    pub const fn rest(&self) -> Option<Digest> {
        self.rest
    }
}

/// What makes two refusals equal: all of the request but its uid (so user, namespace, kind, name or generateName), the
/// images as asked, the codes and the policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    key: Digest,
    uid: String,
    namespace: String,
    user: String,
    codes: Vec<Code>,
}

impl Refusal {
    /// The refusal of a review; `None` where it was not refused.
    pub(super) fn of(input: &ReviewInput<'_>) -> Option<Self> {
        let ReviewInput { request, images, verdict, .. } = input;
        if !matches!(verdict, Verdict::Deny(_)) {
            return None;
        }
        let codes = verdict.codes();
        let anonymous = Request { uid: String::new(), ..(*request).clone() };
        let images: Vec<_> = images.iter().map(|image| (&image.place.path, &image.text, image.unchanged)).collect();
        let policies: Vec<_> = verdict.policies().iter().map(ToString::to_string).collect();
        // It never leaves this process, so any encoding will do that tells all of them apart.
        let whole = serde_json::to_vec(&(anonymous, images, &codes, policies)).expect("texts and lists of them");
        Some(Self {
            key: sha256(&whole),
            uid: request.uid.clone(),
            namespace: shorten(&request.namespace, 256).into_owned(),
            user: shorten(&request.user, 512).into_owned(),
            codes,
        })
    }
}

/// Refusals that were equal to one that has a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeats {
    of: RecordName,
    namespace: String,
    user: String,
    codes: Vec<Code>,
    tally: Tally,
}

impl Repeats {
    /// The record that says what they all say.
    #[must_use]
    pub const fn of(&self) -> RecordName {
        self.of
    }

    /// How many, and which.
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(super) fn canonical(&self) -> String {
        canonical(&Shape {
            r#type: "repeats",
            of: Some(self.of.to_string()),
            namespace: Some(&self.namespace),
            user: Some(&self.user),
            codes: &self.codes,
            count: self.tally.count,
            uids: &self.tally.uids,
            rest: self.tally.rest,
        })
    }
}

/// The record of reviews that were turned away.
pub(super) fn shed(tally: &Tally) -> String {
    canonical(&Shape {
        r#type: "shed",
        of: None,
        namespace: None,
        user: None,
        codes: &[Code::Overloaded],
        count: tally.count,
        uids: &tally.uids,
        rest: tally.rest,
    })
}

#[derive(Serialize)]
struct Shape<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    codes: &'a [Code],
    count: u64,
    uids: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    rest: Option<Digest>,
}

/// What is counted and not yet written down. Its memory is bounded, whatever comes.
#[derive(Debug)]
pub struct Floods {
    seed: [u8; 32],
    /// How often a refusal came of late. A refusal has one place here, which others may take: it then counts anew, and
    /// more than it must is written down. The seed keeps callers from aiming at a place.
    slots: HashMap<u16, Slot>,
    repeats: BTreeMap<RecordName, Repeats>,
    shed: Tally,
    /// Uids that are held.
    held: usize,
}

#[derive(Debug)]
struct Slot {
    key: Digest,
    since: Timestamp,
    count: u32,
    /// The newest record of it that is on disk.
    record: Option<RecordName>,
}

impl Slot {
    fn is_live(&self, now: Timestamp) -> bool {
        let age = now.duration_since(self.since);
        !age.is_negative() && age < WINDOW
    }
}

impl Floods {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed, slots: HashMap::new(), repeats: BTreeMap::new(), shed: Tally::default(), held: 0 }
    }

    /// A refusal comes. Where it is the eleventh of its kind within a minute, or a later one, and one of the others is on
    /// disk, it is counted, and that record's name is given. `None`: it is to have a record of its own.
    pub fn refused(&mut self, refusal: &Refusal, now: Timestamp) -> Option<RecordName> {
        let fresh = || Slot { key: refusal.key, since: now, count: 1, record: None };
        let place = self.place(&refusal.key);
        let slot = self.slots.entry(place).or_insert_with(|| Slot { count: 0, ..fresh() });
        if !slot.is_live(now) {
            *slot = fresh();
            return None;
        }
        if slot.key != refusal.key {
            // One that is counted at the moment keeps its place.
            if slot.count <= WHOLE {
                *slot = fresh();
            }
            return None;
        }
        slot.count = slot.count.saturating_add(1);
        let of = slot.record.filter(|_| slot.count > WHOLE)?;
        if self.repeats.len() >= GROUPS && !self.repeats.contains_key(&of) {
            return None;
        }
        let repeats = self.repeats.entry(of).or_insert_with(|| Repeats {
            of,
            namespace: refusal.namespace.clone(),
            user: refusal.user.clone(),
            codes: refusal.codes.clone(),
            tally: Tally::default(),
        });
        repeats.tally.add(&refusal.uid);
        self.held += 1;
        Some(of)
    }

    /// A refusal that was to have a record has it, on disk.
    pub fn recorded(&mut self, refusal: &Refusal, record: RecordName) {
        let place = self.place(&refusal.key);
        if let Some(slot) = self.slots.get_mut(&place).filter(|slot| slot.key == refusal.key) {
            slot.record = Some(record);
        }
    }

    /// A review is turned away.
    pub fn shed(&mut self, uid: &str) {
        self.shed.add(uid);
        self.held += 1;
    }

    /// Nothing waits to be written down.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shed.count == 0 && self.repeats.is_empty()
    }

    /// So much is counted that it is to be written down at once.
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.held >= LARGE
    }

    /// What was counted, to be written down now.
    pub fn drain(&mut self) -> Vec<Event> {
        self.held = 0;
        let shed = std::mem::take(&mut self.shed);
        let shed = (shed.count > 0).then_some(Event::Shed(shed));
        std::mem::take(&mut self.repeats).into_values().map(Event::Repeats).chain(shed).collect()
    }

    fn place(&self, key: &Digest) -> u16 {
        let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        hash.update(&self.seed);
        hash.update(key.as_bytes());
        let hash = digest(&hash.finish());
        let [high, low, ..] = hash.as_bytes();
        u16::from_be_bytes([*high, *low]) % SLOTS
    }
}

#[cfg(test)]
mod tests;
