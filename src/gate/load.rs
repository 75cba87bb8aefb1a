//! How many reviews may be under way: so many that compute, so many that wait for evidence (C-03, X-101). It must never
//! keep a review waiting for long only to turn it away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use crate::decision::evidence::Question;
use crate::decision::reference::Host;
use crate::edge::metrics;

/// How long a review may wait for its turn to compute, which takes far less than a millisecond for each before it.
const TURN: Duration = Duration::from_millis(250);

/// Bounds of what is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadLimits {
    /// Reviews that compute.
    pub computing: usize,
    /// Reviews that wait for evidence; at most half of them for one registry host, unless they wait for one search.
    pub waiting: usize,
    /// Callers are told apart: those that are not known wait in half of the places at most.
    pub told_apart: bool,
}

impl Default for LoadLimits {
    fn default() -> Self {
        Self { computing: 256, waiting: 1000, told_apart: false }
    }
}

/// What is under way.
#[derive(Debug)]
pub struct Load {
    limits: LoadLimits,
    computing: Semaphore,
    waiting: Mutex<Waiting>,
}

/// Reviews that wait, and for what.
#[derive(Debug, Default)]
struct Waiting {
    reviews: usize,
    strangers: usize,
    /// How many wait for each search.
    searches: HashMap<Search, usize>,
    /// How many have begun a search at each host. Who joins one adds nothing to the host's load.
    hosts: HashMap<Host, usize>,
}

/// A search: the question, and whether it is asked for a caller that is known.
type Search = (Question, bool);

/// The place of a review that waits, given back when dropped.
#[derive(Debug)]
pub struct Place<'a> {
    load: &'a Load,
    searches: Vec<Search>,
    hosts: Vec<Host>,
    known: bool,
}

impl Load {
    /// Nothing is under way yet.
    #[must_use]
    pub fn new(limits: LoadLimits) -> Arc<Self> {
        let computing = Semaphore::new(limits.computing.min(Semaphore::MAX_PERMITS));
        Arc::new(Self { limits, computing, waiting: Mutex::default() })
    }

    /// A turn to compute; `None` where none came free in a moment.
    pub async fn turn(&self, deadline: Instant) -> Option<SemaphorePermit<'_>> {
        let moment = deadline.min(Instant::now() + TURN);
        timeout_at(moment, self.computing.acquire()).await.ok()?.ok()
    }

    /// A place to wait for the answers to these questions, for a caller that is known or not; `None` where there is none.
    #[must_use]
    pub fn place(&self, questions: &[&Question], known: bool) -> Option<Place<'_>> {
        let LoadLimits { waiting: most, told_apart, .. } = self.limits;
        // Of a limit of one, half is one.
        let half = most.div_ceil(2);
        let mut waiting = self.lock();
        if waiting.reviews >= most || (told_apart && !known && waiting.strangers >= half) {
            return None;
        }
        let searches: Vec<Search> = questions.iter().map(|question| ((*question).clone(), known)).collect();
        let mut hosts: Vec<Host> = searches
            .iter()
            .filter(|search| !waiting.searches.contains_key(search))
            .map(|(question, _)| question.image.repository().host().clone())
            .collect();
        hosts.sort_unstable();
        hosts.dedup();
        if hosts.iter().any(|host| waiting.hosts.get(host).is_some_and(|begun| *begun >= half)) {
            return None;
        }
        waiting.reviews += 1;
        ::metrics::gauge!(metrics::WAITING).increment(1.0);
        waiting.strangers += usize::from(!known);
        for search in &searches {
            *waiting.searches.entry(search.clone()).or_insert(0) += 1;
        }
        for host in &hosts {
            *waiting.hosts.entry(host.clone()).or_insert(0) += 1;
        }
        Some(Place { load: self, searches, hosts, known })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing under the lock panics between two changes.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.load.lock();
        waiting.reviews = waiting.reviews.saturating_sub(1);
        ::metrics::gauge!(metrics::WAITING).decrement(1.0);
        if !self.known {
            waiting.strangers = waiting.strangers.saturating_sub(1);
        }
        for search in &self.searches {
            give_back(&mut waiting.searches, search);
        }
        for host in &self.hosts {
            give_back(&mut waiting.hosts, host);
        }
    }
}

fn give_back<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::decision::reference::ImageRef;

    fn question(host: &str, digit: char) -> Question {
        let name = format!("{host}/app@sha256:{}", digit.to_string().repeat(64));
        let image = name.parse::<ImageRef>().expect("a reference").pinned().expect("pinned");
        Question { image, keys: BTreeSet::new(), children: false }
    }

    fn load(waiting: usize, told_apart: bool) -> Arc<Load> {
        Load::new(LoadLimits { computing: 1, waiting, told_apart })
    }

    #[test]
    fn x_101_one_slow_registry_takes_half_of_the_places_and_one_search_any() {
        let load = load(4, false);
        let slow: Vec<Question> = ['1', '2', '3'].map(|digit| question("slow.example", digit)).into();
        let first = load.place(&[&slow[0]], true).expect("a place");
        let second = load.place(&[&slow[1]], true).expect("a place");
        assert!(load.place(&[&slow[2]], true).is_none(), "two of four wait for this host");
        assert!(load.place(&[&slow[2], &question("r.example", '1')], true).is_none(), "also beside another host");
        // Its twin asks another registry; another joins a search that is under way.
        let other = load.place(&[&question("r.example", '1')], true).expect("a place");
        let joined = load.place(&[&slow[0], &slow[1]], true).expect("a place");
        assert!(load.place(&[&question("r.example", '1')], true).is_none(), "all four are taken");
        drop((first, other));
        // The search goes on for those who joined it, and their host has room for one that begins.
        let third = load.place(&[&slow[2]], true).expect("a place");
        drop((second, joined, third));
        let Waiting { reviews, strangers, searches, hosts } = &*load.lock();
        assert_eq!((*reviews, *strangers, searches.len(), hosts.len()), (0, 0, 0, 0));
    }

    #[test]
    fn x_101_a_thousand_pods_of_one_digest_wait_for_one_search() {
        let load = load(1000, false);
        let question = question("slow.example", '1');
        let places: Vec<_> = (0..1000).map(|_| load.place(&[&question], true).expect("a place")).collect();
        assert!(load.place(&[&question], true).is_none());
        assert_eq!(load.lock().hosts.values().sum::<usize>(), 1);
        drop(places);
    }

    #[test]
    fn strangers_leave_half_of_the_places_to_those_whom_we_know() {
        for (told_apart, places) in [(true, 2), (false, 4)] {
            let load = load(4, told_apart);
            let questions: Vec<Question> = (0..5).map(|host| question(&format!("r{host}.example"), '1')).collect();
            let held: Vec<_> = questions.iter().map_while(|question| load.place(&[question], false)).collect();
            assert_eq!(held.len(), places);
            assert_eq!(load.place(&[&questions[4]], true).is_some(), told_apart);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn c_03_a_turn_is_waited_for_a_moment_and_no_longer() {
        let load = load(1, false);
        let soon = || Instant::now() + Duration::from_secs(9);
        let turn = load.turn(soon()).await.expect("a turn");
        let began = Instant::now();
        assert!(load.turn(soon()).await.is_none());
        assert_eq!(began.elapsed(), TURN);
        assert!(load.turn(Instant::now() + Duration::from_millis(10)).await.is_none());
        assert_eq!(began.elapsed(), TURN + Duration::from_millis(10), "and never past the deadline");
        let (next, ()) = tokio::join!(load.turn(soon()), async { drop(turn) });
        assert!(next.is_some());
    }
}
