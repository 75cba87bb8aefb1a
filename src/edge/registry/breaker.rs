//! The breaker: after a call has failed with all its retries, the registry is left alone for a while. It must never turn
//! one kind of failure into another.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Failure;
use crate::decision::reference::{Host, Repository};

/// How long a failure without `Retry-After` holds back.
const PAUSE: Duration = Duration::from_secs(5);
/// The longest that a `Retry-After` is believed.
const LONGEST: Duration = Duration::from_mins(1);
/// Places that are remembered at once.
const PLACES: usize = 1024;

/// What is left alone, under which credential: another credential may be served well.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// A registry that cannot be reached, is silent, or asks for patience.
    Host(Host, [u8; 32]),
    /// A repository for which the registry answers 5xx.
    Repository(Repository, [u8; 32]),
}

/// What is left alone at present. Bounded: beyond its size the entry that ends first is forgotten.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    open: Mutex<HashMap<Place, Open>>,
}

#[derive(Debug)]
struct Open {
    until: Instant,
    failure: Failure,
}

impl Breaker {
    /// The failure that still holds for one of these places.
    pub(super) fn check(&self, places: &[Place], now: Instant) -> Result<(), Failure> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for place in places {
            if let Some(entry) = open.get(place)
                && entry.until > now
            {
                return Err(held_back(&entry.failure, entry.until - now));
            }
        }
        Ok(())
    }

    /// Leaves a place alone after a failure that may pass, for as long as the registry asked; other failures change
    /// nothing.
    pub(super) fn trip(&self, place: Place, failure: &Failure, asked: Option<Duration>, now: Instant) {
        if !failure.may_pass() {
            return;
        }
        let until = now + asked.map_or(PAUSE, |asked| asked.min(LONGEST));
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= PLACES && !open.contains_key(&place) {
            open.retain(|_, entry| entry.until > now);
            if open.len() >= PLACES
                && let Some(first) = open.iter().min_by_key(|(_, entry)| entry.until).map(|(place, _)| place.clone())
            {
                open.remove(&first);
            }
        }
        match open.get(&place) {
            Some(entry) if entry.until >= until => {}
            Some(_) | None => {
                open.insert(place, Open { until, failure: failure.clone() });
            }
        }
    }
}

/// The same kind of failure, saying that nothing was asked.
pub(super) fn held_back(failure: &Failure, left: Duration) -> Failure {
    match failure {
        Failure::Unavailable { detail, transient } => Failure::Unavailable {
            detail: format!("not asked for another {} s, since the last answer was: {detail}", left.as_secs() + 1),
            transient: *transient,
        },
        Failure::RateLimited { host, .. } => {
            Failure::RateLimited { host: host.clone(), retry_after: Some(Duration::from_secs(left.as_secs() + 1)) }
        }
        Failure::NotFound { .. }
        | Failure::AuthFailed { .. }
        | Failure::AddressRefused { .. }
        | Failure::DigestMismatch { .. }
        | Failure::BudgetExceeded { .. }
        | Failure::DeadlineExceeded { .. } => failure.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(host: &str) -> Place {
        Place::Host(host.parse().expect(host), [0; 32])
    }

    fn down() -> Failure {
        Failure::Unavailable { detail: "r.example answers 503".to_owned(), transient: true }
    }

    #[test]
    fn a_place_is_left_alone_for_five_seconds_and_no_longer() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        breaker.trip(place("r.example"), &down(), None, now);
        let held = breaker.check(&[place("r.example")], now + Duration::from_millis(4999)).expect_err("open");
        assert_eq!(held.to_string(), "not asked for another 1 s, since the last answer was: r.example answers 503");
        assert!(matches!(held, Failure::Unavailable { transient: true, .. }));
        assert_eq!(breaker.check(&[place("r.example")], now + Duration::from_secs(5)), Ok(()));
        assert_eq!(breaker.check(&[place("s.example")], now), Ok(()));
        let other_credential = Place::Host("r.example".parse().expect("host"), [1; 32]);
        assert_eq!(breaker.check(&[other_credential], now), Ok(()));
    }

    #[test]
    fn x_042_retry_after_is_honoured_up_to_a_minute() {
        for (asked, until) in [(Some(7), 7), (Some(3600), 60), (None, 5), (Some(0), 0)] {
            let (breaker, now) = (Breaker::default(), Instant::now());
            let asked = asked.map(Duration::from_secs);
            let limited = Failure::RateLimited { host: "r.example".to_owned(), retry_after: asked };
            breaker.trip(place("r.example"), &limited, asked, now);
            let at = |seconds: u64| breaker.check(&[place("r.example")], now + Duration::from_secs(seconds));
            assert_eq!(at(until), Ok(()), "{asked:?}");
            if until > 0 {
                let Err(Failure::RateLimited { retry_after, .. }) = at(until - 1) else { panic!("{asked:?}") };
                assert_eq!(retry_after, Some(Duration::from_secs(2)));
            }
        }
    }

    #[test]
    fn only_what_may_pass_opens_it() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        for failure in [
            Failure::Unavailable { detail: "TLS".to_owned(), transient: false },
            Failure::AuthFailed { detail: String::new() },
            Failure::NotFound { what: String::new() },
        ] {
            breaker.trip(place("r.example"), &failure, None, now);
            assert_eq!(breaker.check(&[place("r.example")], now), Ok(()), "{failure:?}");
        }
    }

    #[test]
    fn x_104_its_size_is_bounded_and_a_longer_hold_stands() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        let trip = |host: &str, seconds| breaker.trip(place(host), &down(), Some(Duration::from_secs(seconds)), now);
        trip("kept.example", 50);
        trip("kept.example", 1);
        for n in 0..2 * PLACES {
            trip(&format!("r{n}.example"), 10);
        }
        assert_eq!(breaker.open.lock().expect("lock").len(), PLACES);
        assert!(breaker.check(&[place("kept.example")], now + Duration::from_secs(49)).is_err());
    }
}
