//! One chain, record by record: does each follow the one before it? It must never lose sight of a gap.

use std::collections::BTreeMap;

use super::{Findings, NO_RECORD, Recovery, Row, Tampering};
use crate::decision::reference::Digest;

/// A record whose hash is right.
pub(super) struct Link<'a> {
    /// The sequence under which it is stored.
    pub(super) place: u64,
    /// The sequence that it was written with.
    pub(super) seq: u64,
    pub(super) previous: Digest,
    pub(super) hash: Digest,
    pub(super) name: &'a str,
    pub(super) row: &'a Row,
}

/// How far one chain was followed.
#[derive(Debug, Default)]
pub(super) struct Follower {
    /// The sequence reached; 0 before the first record.
    at: u64,
    /// The record there stands in another's place.
    at_is_moved: bool,
    /// The records that claim this sequence: one, unless something was put in.
    tips: Vec<Tip>,
    /// Sequences that were not seen: first to last.
    gaps: BTreeMap<u64, u64>,
    /// At the rims of gaps: the hash of the record before one, and the hash that the record after one names.
    hashes: BTreeMap<u64, Digest>,
    wanted: BTreeMap<u64, Digest>,
    /// A run of records that all stand the same way off: the first, how many, how far.
    shifted: Option<(String, u64, i128)>,
    first_time: i64,
    recovery: Option<Recovery>,
    stopped: bool,
}

#[derive(Debug)]
struct Tip {
    name: String,
    /// The hashes by which a successor may name it: two where it was flipped, and one of them is the old one.
    hashes: Vec<Digest>,
    /// Known to be flipped: nothing more is said about it.
    flipped: bool,
}

impl Follower {
    /// A record that is not what it was: its place counts, its links do not.
    pub(super) fn flipped(&mut self, seq: u64, name: &str, hashes: Vec<Digest>) {
        self.advance_to(seq, None);
        self.stopped = false;
        if seq > self.at {
            self.at = seq;
            self.at_is_moved = false;
            self.tips.clear();
        } else {
            self.fill(seq);
        }
        if seq == self.at {
            self.tips.push(Tip { name: name.to_owned(), hashes, flipped: true });
        }
    }

    /// A record whose hash is right.
    pub(super) fn follow(&mut self, link: &Link<'_>, body: &str, findings: &mut Findings) {
        let moved = self.note_place(link, findings);
        let Link { seq, previous, hash, name, row, .. } = *link;
        if seq == 0 {
            return findings.add(Tampering::Inserted, name, "sequences begin at 1");
        }
        let tip = || Tip { name: name.to_owned(), hashes: vec![hash], flipped: false };
        if seq > self.at {
            let adjacent = seq == self.at + 1;
            self.advance_to(seq, Some(previous));
            if adjacent {
                self.judge_link(previous, name, findings);
            }
            if seq == 1 {
                self.first_time = row.time;
                self.recovery = Row::recovery(body);
            }
            self.at = seq;
            self.at_is_moved = moved;
            self.tips = vec![tip()];
            self.stopped = row.verdict == "stopped";
        } else if seq == self.at {
            // Which of them is the true one, the next record tells.
            self.tips.push(tip());
        } else if self.fill(seq) {
            // One that stands in its own place comes late because another does not.
            if !moved && !self.at_is_moved {
                findings.add(Tampering::Reordered, name, format!("it comes after {}", self.at));
            }
            let before = self.hashes.get(&(seq - 1)).is_none_or(|hash| *hash == previous);
            let after = self.wanted.get(&seq).is_none_or(|wanted| *wanted == hash);
            if !before || !after {
                findings.add(Tampering::Replaced, name, "its neighbours name another record");
            }
            self.hashes.insert(seq, hash);
            self.wanted.insert(seq - 1, previous);
        } else {
            findings.add(Tampering::Inserted, name, format!("there is a record with the sequence {seq} already"));
        }
    }

    /// Notes a record that stands under another sequence than its own. Runs that are shifted alike are one finding.
    fn note_place(&mut self, link: &Link<'_>, findings: &mut Findings) -> bool {
        let off = i128::from(link.place) - i128::from(link.seq);
        match &mut self.shifted {
            Some((_, count, by)) if off != 0 && *by == off => *count += 1,
            _ => {
                self.report_shifted(findings);
                self.shifted = (off != 0).then(|| (link.name.to_owned(), 1, off));
            }
        }
        off != 0
    }

    fn report_shifted(&mut self, findings: &mut Findings) {
        if let Some((name, count, by)) = self.shifted.take() {
            let others = if count > 1 { format!(", and {} after it do", count - 1) } else { String::new() };
            let detail =
                format!("it stands {} {} its place{others}", by.abs(), if by > 0 { "after" } else { "before" });
            findings.add(Tampering::Reordered, name, detail);
        }
    }

    /// Whether the record named as predecessor is the one that stands there; what else stands there was put in.
    fn judge_link(&mut self, previous: Digest, name: &str, findings: &mut Findings) {
        if self.at == 0 {
            if previous != NO_RECORD {
                findings.add(Tampering::Replaced, name, "it is the first of its chain, and names a record before it");
            }
            return;
        }
        let is_meant = |tip: &Tip| tip.hashes.contains(&previous);
        if let Some(meant) = self.tips.iter().position(is_meant) {
            // Also a copy of the true one is one too many.
            let others = self.tips.iter().enumerate().filter(|(at, tip)| *at != meant && !tip.flipped);
            for (_, tip) in others {
                findings.add(Tampering::Inserted, &tip.name, format!("{name} follows another record of this sequence"));
            }
        } else if let Some(tip) = self.tips.iter().find(|tip| !tip.flipped) {
            findings.add(Tampering::Replaced, &tip.name, format!("{name}, which comes next, names another record"));
        }
    }

    /// Opens a gap, where there is one before `seq`.
    fn advance_to(&mut self, seq: u64, previous: Option<Digest>) {
        if seq > self.at + 1 {
            self.gaps.insert(self.at + 1, seq - 1);
            if let [tip] = self.tips.as_slice()
                && let ([hash], false) = (tip.hashes.as_slice(), tip.flipped)
            {
                self.hashes.insert(self.at, *hash);
            }
            if let Some(previous) = previous {
                self.wanted.insert(seq - 1, previous);
            }
        }
    }

    /// Takes a sequence out of the gap that it lies in; false where there is none.
    fn fill(&mut self, seq: u64) -> bool {
        let Some((&from, &to)) = self.gaps.range(..=seq).next_back().filter(|(_, to)| seq <= **to) else {
            return false;
        };
        self.gaps.remove(&from);
        if from < seq {
            self.gaps.insert(from, seq - 1);
        }
        if seq < to {
            self.gaps.insert(seq + 1, to);
        }
        true
    }

    /// What only the end shows.
    pub(super) fn finish(&mut self, chain: &str, findings: &mut Findings) {
        self.report_shifted(findings);
        for tip in self.tips.iter().skip(1).filter(|tip| !tip.flipped) {
            findings.add(
                Tampering::Inserted,
                &tip.name,
                format!("there is a record with the sequence {} already", self.at),
            );
        }
        for (from, to) in &self.gaps {
            let (record, detail) = if from == to {
                (format!("{chain}-{from}"), "it is not there".to_owned())
            } else {
                (format!("{chain}-{from}"), format!("it and all others up to {chain}-{to} are not there"))
            };
            findings.add(Tampering::Dropped, record, detail);
        }
    }

    pub(super) const fn last_seq(&self) -> u64 {
        self.at
    }

    /// The last sequence and the hash stored there.
    pub(super) fn last(&self) -> Option<(u64, Digest)> {
        Some((self.at, *self.tips.first()?.hashes.first()?))
    }

    pub(super) const fn first_time(&self) -> i64 {
        self.first_time
    }

    pub(super) const fn recovery(&self) -> Option<Recovery> {
        self.recovery
    }

    pub(super) const fn stopped(&self) -> bool {
        self.stopped
    }
}
