//! What waits for the store, in the order of the chain. It must never give one place to two records, nor grow past its bound.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Health, Wait};
use crate::decision::record::{ChainName, Draft, Record, RecordName, Writer};
use crate::decision::reference::Digest;
use crate::edge::clock;

/// How many records one transaction takes.
pub(super) const GROUP: usize = 512;
/// How long records for which nobody waits may gather.
const LINGER: Duration = Duration::from_millis(10);

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

struct State {
    chain: ChainName,
    /// The last sequence that was given away, and that record's hash.
    seq: u64,
    last: Digest,
    items: VecDeque<Item>,
    /// Taken by the writer and not on disk yet.
    taken: usize,
    failing: Option<String>,
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
    pub(super) fn new(chain: ChainName, seq: u64, last: Digest, writer: Writer, bound: usize) -> Self {
        let state = State {
            chain,
            seq,
            last,
            items: VecDeque::new(),
            taken: 0,
            failing: None,
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
    ) -> Result<(RecordName, Option<oneshot::Receiver<Told>>), Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.items.len() + state.taken >= self.bound {
            return Err(Refused::Full(self.bound));
        }
        match (wait, &state.failing) {
            (Wait::OrNothing, Some(reason)) => return Err(Refused::Failing(reason.clone())),
            (Wait::Queued, _) => return Ok((self.place(&mut state, draft, None), None)),
            (Wait::OrNothing | Wait::Saved, _) => {}
        }
        let (waiter, told) = oneshot::channel();
        let mut item = Some(waiter);
        if state.failing.is_some()
            && let Some(waiter) = item.take()
        {
            // A denial does not wait for a store that is known to fail. The receiver is in our hands, so this arrives.
            let _ = waiter.send(Told::Failing);
        }
        Ok((self.place(&mut state, draft, item), Some(told)))
    }

    /// Queues the last record, whatever the bound, and closes.
    pub(super) fn push_last(&self, draft: Draft) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        self.place(&mut state, draft, None);
        state.closed = true;
        self.changed.notify_all();
        Ok(())
    }

    fn place(&self, state: &mut State, draft: Draft, waiter: Option<oneshot::Sender<Told>>) -> RecordName {
        state.seq += 1;
        let record = draft.seal(state.chain, state.seq, clock::now(), &self.writer, state.last);
        state.last = record.hash;
        let name = record.name;
        // The writer is woken only where it has something to do at once: admissions gather.
        let urgent = waiter.is_some() || state.items.is_empty() || state.items.len() + 1 == GROUP;
        state.items.push_back(Item { record, waiter, streamed: false });
        if urgent {
            self.changed.notify_all();
        }
        name
    }

    /// No more events are taken; those that wait are still written.
    pub(super) fn close(&self) {
        self.lock().closed = true;
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
        while state.items.is_empty() {
            if state.closed {
                return Next::End;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
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
    }

    /// The store does not take them.
    pub(super) fn failing(&self, reason: String) {
        let mut state = self.lock();
        state.failing = Some(reason);
        for item in &mut state.items {
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
