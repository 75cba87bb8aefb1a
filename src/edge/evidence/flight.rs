//! Flights: one search for each key, shared by all who ask. A flight must never end because a waiter does, and its panic
//! must never be more than an answer.

use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use tokio::sync::watch;

use super::Enough;
use super::cache::{Kept, Key};
use crate::decision::code::Code;
use crate::decision::evidence::Facts;
use crate::edge::registry::Budget;

/// The flights under way, by key.
#[derive(Clone, Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<Key, Arc<Flight>>>>);

impl Flights {
    /// Joins the flight of a key, or has `launch` start one; `Err` with a flight that takes nobody in any more.
    pub(super) fn join_or_start(
        &self,
        key: Key,
        enough: &Enough,
        budget: impl FnOnce() -> Budget,
        launch: impl FnOnce(Arc<Flight>),
    ) -> Result<Arc<Flight>, Arc<Flight>> {
        let mut flights = lock(&self.0);
        if let Some(flight) = flights.get(&key) {
            return if flight.join(enough) { Ok(Arc::clone(flight)) } else { Err(Arc::clone(flight)) };
        }
        let flight = Arc::new(Flight::new(Arc::clone(enough), budget()));
        flights.insert(key, Arc::clone(&flight));
        drop(flights);
        launch(Arc::clone(&flight));
        Ok(flight)
    }

    /// Something that lands the flight when it is dropped, however its task ends.
    pub(super) fn landing(&self, key: Key, flight: &Arc<Flight>) -> Landing {
        Landing { flights: self.clone(), key, flight: Arc::clone(flight) }
    }

    fn land(&self, key: &Key, flight: &Flight) {
        lock(&self.0).remove(key);
        flight.progress.send_modify(|progress| {
            progress.landed = true;
            if !std::mem::replace(&mut progress.complete, true) {
                progress.facts = Some(Arc::new(lost()));
            }
        });
    }
}

/// Takes a flight off the list and tells its waiters, when it is dropped.
pub(super) struct Landing {
    flights: Flights,
    key: Key,
    flight: Arc<Flight>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.flights.land(&self.key, &self.flight);
    }
}

/// One search with its waiters.
pub(super) struct Flight {
    /// What the search may spend, and until when.
    pub(super) budget: Budget,
    /// What each waiter needs; `None` once nobody can join any more.
    waiters: Mutex<Option<Vec<Enough>>>,
    /// What every waiter needed, when the flight was closed.
    outcome: Mutex<Outcome>,
    progress: watch::Sender<Progress>,
}

/// Whom the last facts satisfied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Outcome {
    all: bool,
    any: bool,
}

#[derive(Clone, Default)]
struct Progress {
    /// What was found so far; `None` until it may be judged.
    facts: Option<Arc<Facts>>,
    /// The search is over.
    complete: bool,
    /// Over, and its facts are in the store if they ever will be.
    landed: bool,
}

impl Flight {
    fn new(first: Enough, budget: Budget) -> Self {
        Self {
            budget,
            waiters: Mutex::new(Some(vec![first])),
            outcome: Mutex::default(),
            progress: watch::Sender::new(Progress::default()),
        }
    }

    /// Adds a waiter's needs to the flight's; false where it is too late.
    fn join(&self, enough: &Enough) -> bool {
        let mut waiters = lock(&self.waiters);
        let Some(waiters) = waiters.as_mut() else { return false };
        // A thousand waiters of one review's kind share one closure.
        if !waiters.iter().any(|known| Arc::ptr_eq(known, enough)) {
            waiters.push(Arc::clone(enough));
        }
        true
    }

    /// Runs the search and publishes its last facts; `None` where it panicked.
    pub(super) async fn fly(&self, search: impl Future<Output = Facts>) -> Option<Arc<Facts>> {
        let found = AssertUnwindSafe(search).catch_unwind().await.map(Arc::new).ok();
        let facts = found.clone().unwrap_or_else(|| {
            tracing::error!("a search for evidence panicked");
            Arc::new(lost())
        });
        self.close(&facts);
        self.progress.send_modify(|progress| {
            progress.facts = Some(facts);
            progress.complete = true;
        });
        found
    }

    /// Shows facts to the waiters; true where every one of them has enough, and the search may stop.
    pub(super) fn report(&self, facts: &Facts) -> bool {
        let shown = Arc::new(facts.clone());
        self.progress.send_modify(|progress| progress.facts = Some(shown));
        let mut waiters = lock(&self.waiters);
        let stop = waiters.as_ref().is_none_or(|waiters| waiters.iter().all(|enough| satisfies(facts, enough)));
        if stop && waiters.take().is_some() {
            *lock(&self.outcome) = Outcome { all: true, any: true };
        }
        stop
    }

    /// Waits for facts that suffice, or for the end of the search.
    pub(super) async fn wait(&self, enough: &Enough) -> Arc<Facts> {
        let mut progress = self.progress.subscribe();
        let suffices =
            |progress: &Progress| progress.complete || progress.facts.as_ref().is_some_and(|f| satisfies(f, enough));
        let seen = progress.wait_for(suffices).await;
        seen.ok().and_then(|progress| progress.facts.clone()).unwrap_or_else(|| Arc::new(lost()))
    }

    /// Waits until the flight is off the list.
    pub(super) async fn landed(&self) {
        // An error would mean that it is gone: then it has landed.
        let _ = self.progress.subscribe().wait_for(|progress| progress.landed).await;
    }

    /// Whether facts are kept: definite ones always; a proof beside unanswered sources where it loses nothing; faults never.
    pub(super) fn worth_keeping(&self, facts: &Arc<Facts>, earlier: Option<&Kept>) -> bool {
        let Outcome { all, any } = *lock(&self.outcome);
        all || (facts.exhausted && facts.unanswered.is_empty()) || (any && earlier.is_none())
    }

    /// Takes nobody in any more, and notes whom the last facts satisfy.
    fn close(&self, facts: &Facts) {
        let mut waiters = lock(&self.waiters);
        if let Some(waiters) = waiters.take() {
            let satisfied = waiters.iter().filter(|enough| satisfies(facts, enough)).count();
            *lock(&self.outcome) = Outcome { all: satisfied == waiters.len(), any: satisfied > 0 };
        }
    }
}

/// Whether facts suffice for a waiter. One whose closure panics never has enough, and harms no other.
fn satisfies(facts: &Facts, enough: &Enough) -> bool {
    catch_unwind(AssertUnwindSafe(|| enough(facts))).unwrap_or(false)
}

fn lost() -> Facts {
    Facts::unanswered(Code::InternalError, "our search for evidence failed")
}

/// A lock whose holder panicked still guards sound data here: every change under it is a single assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
