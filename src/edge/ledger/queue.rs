//! What waits for the store, in the order of the chain. It must never give one place to two records, nor grow past its bound.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::writer::Head;
use super::{Health, Wait};
use crate::decision::record::{ChainName, Draft, Floods, Record, RecordName, Refusal, Writer};
use crate::decision::reference::Digest;
use crate::edge::clock;

/// How many records one transaction takes.
pub(super) const GROUP: usize = 512;
/// How long records for which nobody waits may gather.
const LINGER: Duration = Duration::from_millis(10);

/// How long what is only counted is gathered; with its commit it is on disk within a second.
const GATHER: Duration = Duration::from_millis(500);
/// How many essential records the queue takes beyond its bound while the disk is full.
const SPARED: usize = 64;

/// What the writer tells those who wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// The commit is on disk.
    Saved,
    /// It failed; the record stays queued.
    Failing,
}

/// A record in the queue, and who waits for it.
pub(super) struct Item {
    pub(super) record: Record,
    pub(super) waiter: Option<oneshot::Sender<Told>>,
    /// The space that is kept back is for this one.
    pub(super) essential: bool,
    /// It went to the stream already, marked `unsaved`.
    pub(super) streamed: bool,
}

impl Item {
    pub(super) fn tell(&mut self, told: Told) {
        if let Some(waiter) = self.waiter.take() {
            // Nobody listens any more where the deadline has passed.
            let _ = waiter.send(told);
        }
    }
}

/// Why an event was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// As many records as may wait do.
    Full(usize),
    /// The store is failing, and the event may not wait for it.
    Failing(String),
    /// The ledger was sealed or its writer has ended.
    Closed,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(bound) => write!(f, "{bound} records wait for the ledger's storage already"),
            Self::Failing(reason) => write!(f, "the ledger's storage fails: {reason}"),
            Self::Closed => f.write_str("the ledger is closed"),
        }
    }
}

pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    writer: Writer,
    bound: usize,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, set at another time")]
struct State {
    chain: ChainName,
    /// The last sequence that was given away, and that record's hash.
    seq: u64,
    last: Digest,
    items: VecDeque<Item>,
    /// Taken by the writer and not on disk yet.
    taken: usize,
    /// What is counted instead of queued.
    floods: Floods,
    /// When that is to be queued.
    due: Option<Instant>,
    failing: Option<String>,
    /// Something is kept back for what is essential, though the disk is full.
    spare: bool,
    closed: bool,
    /// The store is not waited for any more.
    abandoned: bool,
    ended: bool,
}

/// What the writer does next.
pub(super) enum Next {
    /// More records to write, behind those that are in its hands.
    More(Vec<Item>),
    /// There is nothing more, and there will not be.
    End,
}

impl Queue {
    /// An empty queue that goes on after the record `seq` with the hash `last`.
    pub(super) fn new(head: &Head, writer: Writer, bound: usize) -> Self {
        let Head { chain, seq, last, seed, .. } = *head;
        let state = State {
            chain,
            seq,
            last,
            items: VecDeque::new(),
            taken: 0,
            floods: Floods::new(seed),
            due: None,
            failing: None,
            spare: false,
            closed: false,
            abandoned: false,
            ended: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), writer, bound }
    }

    /// Gives an event its place and queues it.
    pub(super) fn push(
        &self,
        draft: Draft,
        wait: Wait,
        essential: bool,
    ) -> Result<(RecordName, Option<oneshot::Receiver<Told>>), Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        let spared = essential && state.spare;
        let bound = if spared { self.bound + SPARED } else { self.bound };
        if state.items.len() + state.taken >= bound {
            return Err(Refused::Full(self.bound));
        }
        match (wait, &state.failing) {
            (Wait::OrNothing, Some(reason)) if !spared => return Err(Refused::Failing(reason.clone())),
            (Wait::Queued, _) => return Ok((self.place(&mut state, draft, None, false), None)),
            (Wait::OrNothing | Wait::Saved, _) => {}
        }
        let (waiter, told) = oneshot::channel();
        let mut item = Some(waiter);
        if state.failing.is_some()
            && !spared
            && let Some(waiter) = item.take()
        {
            // A denial does not wait for a store that is known to fail. The receiver is in our hands, so this arrives.
            let _ = waiter.send(Told::Failing);
        }
        Ok((self.place(&mut state, draft, item, essential), Some(told)))
    }

    /// Counts a refusal where it is one of many, and says which record it repeats.
    pub(super) fn repeat(&self, refusal: &Refusal) -> Option<RecordName> {
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        let of = state.floods.refused(refusal, clock::now())?;
        self.gather(&mut state);
        Some(of)
    }

    /// A refusal is on disk.
    pub(super) fn recorded(&self, refusal: &Refusal, name: RecordName) {
        self.lock().floods.recorded(refusal, name);
    }

    /// Counts a review that is turned away.
    pub(super) fn shed(&self, uid: &str) {
        let mut state = self.lock();
        if !state.closed {
            state.floods.shed(uid);
            self.gather(&mut state);
        }
    }

    /// Says when what was counted is to be queued.
    fn gather(&self, state: &mut State) {
        if state.due.is_none() {
            state.due = Some(Instant::now() + GATHER);
            self.changed.notify_all();
        }
        if state.floods.is_large() && state.due.is_some_and(|due| due > Instant::now()) {
            state.due = Some(Instant::now());
            self.changed.notify_all();
        }
    }

    /// Queues what was counted. It takes no room from others: there is little of it.
    fn count(&self, state: &mut State) {
        state.due = None;
        for event in state.floods.drain() {
            self.place(state, event.draft(), None, false);
        }
    }

    /// Queues the last record, whatever the bound, and closes.
    pub(super) fn push_last(&self, draft: Draft) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        self.count(&mut state);
        self.place(&mut state, draft, None, false);
        state.closed = true;
        self.changed.notify_all();
        Ok(())
    }

    fn place(
        &self,
        state: &mut State,
        draft: Draft,
        waiter: Option<oneshot::Sender<Told>>,
        essential: bool,
    ) -> RecordName {
        state.seq += 1;
        let record = draft.seal(state.chain, state.seq, clock::now(), &self.writer, state.last);
        state.last = record.hash;
        let name = record.name;
        // The writer is woken only where it has something to do at once: admissions gather.
        let urgent = waiter.is_some() || state.items.is_empty() || state.items.len() + 1 == GROUP;
        state.items.push_back(Item { record, waiter, essential, streamed: false });
        if urgent {
            self.changed.notify_all();
        }
        name
    }

    /// No more events are taken; those that wait are still written.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        if !state.closed {
            self.count(&mut state);
            state.closed = true;
        }
        self.changed.notify_all();
    }

    /// A store that fails is not tried again.
    pub(super) fn abandon(&self) {
        self.lock().abandoned = true;
        self.changed.notify_all();
    }

    /// Waits for records and takes up to [`GROUP`] of them. Where nobody waits for one, it lingers for more of them.
    pub(super) fn take(&self) -> Next {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if state.due.is_some_and(|due| due <= now) {
                self.count(&mut state);
            }
            if !state.items.is_empty() {
                break;
            }
            if state.closed {
                return Next::End;
            }
            state = match state.due {
                Some(due) => {
                    let waited = self.changed.wait_timeout(state, due.saturating_duration_since(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        let gathering = |state: &mut State| {
            !state.closed && state.items.len() < GROUP && state.items.iter().all(|item| item.waiter.is_none())
        };
        let lingered = self.changed.wait_timeout_while(state, LINGER, gathering);
        state = lingered.unwrap_or_else(PoisonError::into_inner).0;
        Next::More(state.take())
    }

    /// While the store fails: waits until it is to be tried again, or until more records came (which then are streamed).
    /// `None`: it is not to be tried again.
    pub(super) fn wait_to_retry(&self, delay: Duration) -> Option<Vec<Item>> {
        let state = self.lock();
        let idle = |state: &mut State| !state.abandoned && state.items.is_empty();
        let waited = self.changed.wait_timeout_while(state, delay, idle);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if state.abandoned { None } else { Some(state.take()) }
    }

    /// The first `count` of those taken are on disk.
    pub(super) fn saved(&self, count: usize) {
        let mut state = self.lock();
        state.taken = state.taken.saturating_sub(count);
        state.failing = None;
        state.spare = false;
    }

    /// The store does not take them; `spare`: but there is space for what is essential.
    pub(super) fn failing(&self, reason: String, spare: bool) {
        let mut state = self.lock();
        state.failing = Some(reason);
        state.spare = spare;
        for item in state.items.iter_mut().filter(|item| !(spare && item.essential)) {
            item.tell(Told::Failing);
        }
    }

    /// The writer has ended, in order or not.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.ended = true;
        for item in &mut state.items {
            item.tell(Told::Failing);
        }
    }

    /// Records that have a name and are not on disk.
    pub(super) fn unsaved(&self) -> usize {
        let state = self.lock();
        state.items.len() + state.taken
    }

    pub(super) fn health(&self) -> Health {
        let state = self.lock();
        match &state.failing {
            Some(reason) => Health::Failing { reason: reason.clone(), unsaved: state.items.len() + state.taken },
            None if state.closed || state.ended => Health::Closed,
            None => Health::Well,
        }
    }

    /// A panic elsewhere leaves the state whole: every change of it is complete before anything can panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self) -> Vec<Item> {
        let count = self.items.len().min(GROUP);
        self.taken += count;
        self.items.drain(..count).collect()
    }
}
