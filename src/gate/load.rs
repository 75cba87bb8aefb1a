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
    /// Reviews that wait for evidence. At one registry host at most half as many searches are begun by them, of which one
    /// review may begin many; who joins a search adds nothing.
    pub waiting: usize,
    /// Callers are told apart: those that are not known wait in half of the places at most, and begin half of a host's
    /// searches at most.
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
    /// What was begun at each host.
    hosts: HashMap<Host, Begun>,
}

/// Searches that were begun at one host by reviews that still wait. Who joins one adds nothing to the host's load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Begun {
    all: usize,
    strangers: usize,
}

/// A search: the question, and whether it is asked for a caller that is known.
type Search = (Question, bool);

/// The place of a review that waits, given back when dropped.
#[derive(Debug)]
pub struct Place<'a> {
    load: &'a Load,
    searches: Vec<Search>,
    /// How many of them were begun, by host.
    begun: HashMap<Host, usize>,
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
        let mut begun: HashMap<Host, usize> = HashMap::new();
        for (question, _) in searches.iter().filter(|search| !waiting.searches.contains_key(search)) {
            *begun.entry(question.image.repository().host().clone()).or_insert(0) += 1;
        }
        // One review by itself may always begin all that it needs.
        let fits = |begun: usize, more: usize, most: usize| begun == 0 || begun + more <= most;
        let has_room = |(host, more): (&Host, &usize)| {
            let Begun { all, strangers } = waiting.hosts.get(host).copied().unwrap_or_default();
            fits(all, *more, half) && (!told_apart || known || fits(strangers, *more, half.div_ceil(2)))
        };
        if !begun.iter().all(has_room) {
            return None;
        }
        waiting.reviews += 1;
        ::metrics::gauge!(metrics::WAITING).increment(1.0);
        waiting.strangers += usize::from(!known);
        for search in &searches {
            *waiting.searches.entry(search.clone()).or_insert(0) += 1;
        }
        for (host, more) in &begun {
            let at = waiting.hosts.entry(host.clone()).or_default();
            at.all += more;
            at.strangers += if known { 0 } else { *more };
        }
        Some(Place { load: self, searches, begun, known })
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
            if let Some(count) = waiting.searches.get_mut(search) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    waiting.searches.remove(search);
                }
            }
        }
        for (host, less) in &self.begun {
            if let Some(at) = waiting.hosts.get_mut(host) {
                at.all = at.all.saturating_sub(*less);
                at.strangers = at.strangers.saturating_sub(if self.known { 0 } else { *less });
                if at.all == 0 {
                    waiting.hosts.remove(host);
                }
            }
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
        assert_eq!(load.lock().hosts.values().map(|begun| begun.all).sum::<usize>(), 1);
        drop(places);
    }

    #[test]
    fn x_101_a_host_is_loaded_by_searches_and_not_by_reviews() {
        let of = |digits: std::ops::Range<u32>| -> Vec<Question> {
            let digit = |n| char::from_digit(n, 16).expect("a hex digit");
            digits.map(|n| question("slow.example", digit(n))).collect()
        };
        let begin = |load: &Load, questions: &[Question], known| -> Option<usize> {
            let questions: Vec<&Question> = questions.iter().collect();
            // Held until the end of the test.
            load.place(&questions, known).map(std::mem::forget).map(|()| load.lock().reviews)
        };
        let load = load(16, true);
        assert_eq!(begin(&load, &of(0..5), true), Some(1));
        assert_eq!(begin(&load, &of(5..9), true), None, "five and four searches, eight may be begun at one host");
        assert_eq!(begin(&load, &of(5..8), true), Some(2));
        assert_eq!(begin(&load, &of(2..6), true), Some(3), "what others search for already is joined");
        // A review that needs more than that has it while nobody else asks there.
        let load = Load::new(LoadLimits { computing: 1, waiting: 16, told_apart: true });
        assert_eq!(begin(&load, &of(0..12), true), Some(1));
        assert_eq!(begin(&load, &of(12..13), true), None);
    }

    #[test]
    fn x_132_strangers_leave_half_of_a_host_to_those_whom_we_know() {
        let of = |digit: char| question("r.example", digit);
        for (told_apart, places) in [(true, 4), (false, 8)] {
            let load = load(16, told_apart);
            let held: Vec<_> = ('0'..='9').map_while(|digit| load.place(&[&of(digit)], false)).collect();
            assert_eq!(held.len(), places);
            assert_eq!(load.place(&[&of('a')], true).is_some(), told_apart);
            drop(held);
            assert!(load.lock().hosts.is_empty() && load.lock().searches.is_empty());
        }
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
