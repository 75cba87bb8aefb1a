//! Who has a place: a bounded number of connections, few of them for those who have not yet carried a valid review. It
//! must never end a connection that carries a request.
//!
//! A connection begins as a newcomer. There are few places for newcomers, and where they are used up the oldest idle one
//! goes first, of the address that holds most: a flood so turns over its own places, from however many addresses it comes.
//! Nobody goes in its first moments, in which a handshake ends and a request comes: where nobody may go, the next one is
//! not accepted yet, and waits in the kernel's queue. So a burst of calls is slowed down, never cut. An address from which
//! a known caller has sent a valid review is vouched for: its newcomers go last, since an API server opens many
//! connections at once. The first valid review makes a connection a guest, who may be idle for long; guests go only where
//! every place is taken, and those whose caller is not known have a quarter of the places: anybody can send a valid review.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::Gauge;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::connection::Phase;

/// How long an address is vouched for by a valid review of a known caller.
const VOUCHED: Duration = Duration::from_mins(10);
/// Most addresses that are vouched for: API servers, and what stands between them and us.
const MOST_VOUCHED: usize = 64;

/// How long a newcomer is left in peace: a handshake and the way of a request take a few round trips, and some
/// milliseconds of processor time each.
const GRACE: Duration = Duration::from_millis(500);
/// How often it is looked again who may go, where nobody may and nobody goes by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How many places there are, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places {
    /// For all.
    pub(super) all: usize,
    /// Of these, for connections that have not yet carried a valid review.
    pub(super) newcomers: usize,
    /// Of these, for connections that have, of callers that are not known.
    pub(super) strangers: usize,
}

impl Places {
    /// So many, at most 1024 of them for newcomers, and a quarter for guests whose caller is not known.
    #[must_use]
    pub(super) fn new(all: usize) -> Self {
        Self { all, newcomers: all.min(1024), strangers: all.div_ceil(4) }
    }
}

/// The places of one listener.
#[derive(Clone)]
pub(super) struct Room(Arc<Inner>);

struct Inner {
    places: Places,
    shown: Option<Gauge>,
    seats: Mutex<Seats>,
    /// A place was given back, or is a newcomer's no more.
    freed: Notify,
}

/// Who sits where, by a number that grows with time.
#[derive(Default)]
struct Seats {
    next: u64,
    newcomers: HashMap<u64, Seat>,
    /// Guests whose caller was not known when they last sent a valid review.
    strangers: HashMap<u64, Seat>,
    /// The others.
    guests: HashMap<u64, Seat>,
    /// Addresses from which known callers have sent valid reviews, and when.
    vouched: Vec<(IpAddr, Instant)>,
    /// The newcomers of each address.
    held: HashMap<IpAddr, BTreeSet<u64>>,
}

struct Seat {
    address: IpAddr,
    since: Instant,
    phase: Phase,
}

/// One connection's place, given back when dropped.
pub(super) struct Place {
    room: Room,
    number: u64,
}

impl Room {
    pub(super) fn new(places: Places, shown: Option<Gauge>) -> Self {
        Self(Arc::new(Inner { places, shown, seats: Mutex::default(), freed: Notify::new() }))
    }

    /// Waits until there is a place for one more; makes it where somebody may go. To be called before each
    /// [`take`](Self::take), by the one that accepts.
    pub(super) async fn one_free(&self) {
        while !self.make_one_free() {
            // Who ends its request, or its first moments, tells nobody.
            let _woken = timeout(LOOK_AGAIN, self.0.freed.notified()).await;
        }
    }

    /// Whether there is a place for one more, made where somebody may go.
    fn make_one_free(&self) -> bool {
        let Places { all, newcomers, .. } = self.0.places;
        let mut seats = self.seats();
        let now = Instant::now();
        if seats.newcomers.len() >= newcomers && !seats.send_newcomer_off(now) {
            return false;
        }
        let free = seats.taken() < all || seats.send_newcomer_off(now) || seats.send_guest_off(now);
        self.show(&seats);
        free
    }

    /// The place of a newcomer.
    pub(super) fn take(&self, address: IpAddr, phase: Phase) -> Place {
        let mut seats = self.seats();
        let number = seats.next;
        seats.next += 1;
        seats.add(number, Seat { address: address.to_canonical(), since: Instant::now(), phase });
        self.show(&seats);
        Place { room: self.clone(), number }
    }

    pub(super) fn taken(&self) -> usize {
        self.seats().taken()
    }

    fn show(&self, seats: &Seats) {
        #[expect(clippy::cast_precision_loss, reason = "a listener has at most 65 536 places")]
        if let Some(gauge) = &self.0.shown {
            gauge.set(seats.taken() as f64);
        }
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        // Every change under the lock is a single step.
        self.0.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The connection has carried a valid review, of a caller that is known or not.
    pub(super) fn carried_a_review(&self, trusted: bool) {
        let mut seats = self.room.seats();
        if !trusted
            && seats.newcomers.contains_key(&self.number)
            && seats.strangers.len() >= self.room.0.places.strangers
        {
            // It stays a newcomer.
            return;
        }
        let Some(seat) = seats.remove(self.number) else { return };
        seat.phase.stays();
        if trusted {
            seats.vouch(seat.address);
            seats.guests.insert(self.number, seat);
        } else {
            seats.strangers.insert(self.number, seat);
        }
        self.room.0.freed.notify_one();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut seats = self.room.seats();
        // Whoever was sent off has no seat any more.
        seats.remove(self.number);
        self.room.0.freed.notify_one();
        self.room.show(&seats);
    }
}

impl Seats {
    fn taken(&self) -> usize {
        self.newcomers.len() + self.strangers.len() + self.guests.len()
    }

    /// Ends a newcomer that carries nothing and has not only just come: of the address that has most, those of addresses
    /// that are vouched for last; of these the oldest. False where there is none.
    fn send_newcomer_off(&mut self, now: Instant) -> bool {
        let mut addresses: Vec<(bool, Reverse<usize>, u64, IpAddr)> = self
            .held
            .iter()
            .filter_map(|(address, held)| {
                Some((self.vouches_for(*address, now), Reverse(held.len()), *held.first()?, *address))
            })
            .collect();
        addresses.sort_unstable();
        let in_turn = addresses.iter().filter_map(|(.., address)| self.held.get(address)).flatten();
        let goes = in_turn.copied().find(|number| {
            self.newcomers
                .get(number)
                .is_some_and(|seat| now.duration_since(seat.since) >= GRACE && seat.phase.send_off(now))
        });
        goes.and_then(|number| self.remove(number)).is_some()
    }

    /// Whether a known caller has lately sent a valid review from there: an API server opens many connections at once.
    fn vouches_for(&self, address: IpAddr, now: Instant) -> bool {
        self.vouched.iter().any(|(vouched, since)| *vouched == address && now.duration_since(*since) < VOUCHED)
    }

    fn vouch(&mut self, address: IpAddr) {
        let now = Instant::now();
        self.vouched.retain(|(vouched, since)| *vouched != address && now.duration_since(*since) < VOUCHED);
        if self.vouched.len() < MOST_VOUCHED {
            self.vouched.push((address, now));
        }
    }

    fn add(&mut self, number: u64, seat: Seat) {
        self.held.entry(seat.address).or_default().insert(number);
        self.newcomers.insert(number, seat);
    }

    /// Takes a seat away, where there is one of that number.
    fn remove(&mut self, number: u64) -> Option<Seat> {
        let Some(seat) = self.newcomers.remove(&number) else {
            return self.strangers.remove(&number).or_else(|| self.guests.remove(&number));
        };
        if let Some(held) = self.held.get_mut(&seat.address) {
            held.remove(&number);
            if held.is_empty() {
                self.held.remove(&seat.address);
            }
        }
        Some(seat)
    }

    /// Ends a guest: first of those whose caller is not known one that carries no request, else one that is idle. Of these
    /// one of the address that has most, and the one that is idle for longest. False where none is.
    fn send_guest_off(&mut self, now: Instant) -> bool {
        let strangers = in_turn(&self.strangers, |phase| phase.idle_since().or(phase.may_go(now).then_some(now)));
        let known = in_turn(&self.guests, Phase::idle_since);
        let goes = strangers
            .into_iter()
            .find(|number| self.strangers.get(number).is_some_and(|seat| seat.phase.send_off(now)))
            .or_else(|| {
                let idle = |number: &u64| self.guests.get(number).is_some_and(|seat| seat.phase.send_off_idle());
                known.into_iter().find(idle)
            });
        goes.and_then(|number| self.remove(number)).is_some()
    }
}

/// Who may go, those first who are to go first: of the address that holds most, then those that may for longest.
fn in_turn(seats: &HashMap<u64, Seat>, may_go_since: impl Fn(&Phase) -> Option<Instant>) -> Vec<u64> {
    let mut held: HashMap<IpAddr, usize> = HashMap::new();
    for seat in seats.values() {
        *held.entry(seat.address).or_insert(0) += 1;
    }
    let mut all: Vec<_> = seats
        .iter()
        .filter_map(|(number, seat)| {
            Some((Reverse(held.get(&seat.address).copied()), may_go_since(&seat.phase)?, *number))
        })
        .collect();
    all.sort_unstable();
    all.into_iter().map(|(_, _, number)| number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase() -> Phase {
        Phase::new(Instant::now() + Duration::from_secs(5), Duration::from_secs(5))
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    struct Here {
        phase: Phase,
        place: Place,
    }

    /// One that comes when all others have been there for longer than their first moments.
    async fn come(room: &Room, from: u8) -> Option<Here> {
        tokio::time::advance(GRACE).await;
        come_at_once(room, from)
    }

    fn come_at_once(room: &Room, from: u8) -> Option<Here> {
        let phase = phase();
        let place = room.make_one_free().then(|| room.take(address(from), phase.clone()))?;
        Some(Here { phase, place })
    }

    async fn come_all(room: &Room, from: impl IntoIterator<Item = u8>) -> Vec<Here> {
        let mut all = Vec::new();
        for from in from {
            all.push(come(room, from).await.expect("room"));
        }
        all
    }

    fn gone(all: &[Here]) -> Vec<usize> {
        all.iter().enumerate().filter(|(_, here)| here.phase.is_sent_off()).map(|(index, _)| index).collect()
    }

    fn room(all: usize, newcomers: usize) -> Room {
        Room::new(Places { all, newcomers, strangers: all }, None)
    }

    #[tokio::test(start_paused = true)]
    async fn x_094_the_oldest_idle_newcomer_of_a_crowded_address_goes_first() {
        let room = room(10, 6);
        let mut all = come_all(&room, [3, 1, 2, 1, 1, 1]).await;
        // Its twin is the older one, and alone from its address.
        all.push(come(&room, 2).await.expect("in place of the oldest of address 1"));
        assert_eq!(gone(&all), [1]);
        // One that carries a request stays, and the next oldest goes.
        all[3].phase.request();
        all[3].phase.arrived();
        all.push(come(&room, 4).await.expect("in place of the next"));
        assert_eq!(gone(&all), [1, 4]);
        // Now addresses 1 and 2 have two each: the oldest of all that may go.
        all.push(come(&room, 5).await.expect("in place of another"));
        assert_eq!(gone(&all), [1, 2, 4]);
        assert_eq!(room.taken(), 6);
        drop(all);
        assert_eq!(room.taken(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn c_04_x_101_nobody_goes_in_its_first_moments_and_the_next_one_waits() {
        let room = room(10, 4);
        // A burst of one address: nobody goes, and what is over the bound is not accepted.
        let burst: Vec<Here> = (0..4).map(|_| come_at_once(&room, 1).expect("room")).collect();
        assert!(come_at_once(&room, 1).is_none());
        assert!(gone(&burst).is_empty());
        let began = Instant::now();
        // A review makes room at once.
        let waits = async {
            room.one_free().await;
            began.elapsed()
        };
        let reviewed = async {
            burst[0].phase.request();
            burst[0].phase.arrived();
            burst[0].place.carried_a_review(false);
        };
        let (waited, ()) = tokio::join!(waits, reviewed);
        assert!(waited < LOOK_AGAIN, "{waited:?}");
        assert!(gone(&burst).is_empty());
        let next = room.take(address(2), phase());
        // Its twin waits until the oldest has had its time.
        room.one_free().await;
        assert!(began.elapsed() >= GRACE, "{:?}", began.elapsed());
        assert_eq!(gone(&burst), [1]);
        drop(next);
    }

    #[tokio::test(start_paused = true)]
    async fn x_094_where_everybody_carries_a_request_the_newcomer_waits() {
        let room = room(2, 2);
        let all = come_all(&room, [1, 2]).await;
        for here in &all {
            here.phase.request();
            here.phase.arrived();
        }
        assert!(come(&room, 3).await.is_none());
        assert!(gone(&all).is_empty());
        all[1].phase.replied();
        assert!(come(&room, 3).await.is_some(), "the twin without a request makes room");
        assert_eq!(gone(&all), [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn x_094_a_burst_of_an_address_that_is_vouched_for_outlives_a_flood() {
        for trusted in [true, false] {
            let room = room(20, 8);
            let first = come(&room, 1).await.expect("room");
            first.phase.request();
            first.phase.arrived();
            first.place.carried_a_review(trusted);
            first.phase.replied();
            let burst = come_all(&room, [1; 4]).await;
            let flood = come_all(&room, 2..22).await;
            assert_eq!(gone(&burst).len(), if trusted { 0 } else { 4 });
            assert!(gone(&flood).len() >= 12, "the flood turns over its own");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn x_094_a_body_that_does_not_come_holds_no_place_for_ever() {
        let room = room(1, 1);
        let slow = come(&room, 1).await.expect("room");
        slow.phase.request();
        assert!(come(&room, 2).await.is_none(), "its body may be on its way");
        tokio::time::advance(Duration::from_millis(900)).await;
        let next = come(&room, 2).await.expect("it was not");
        assert!(slow.phase.is_sent_off());
        next.phase.request();
        next.phase.arrived();
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(come(&room, 2).await.is_none(), "a whole request is never cut");
    }

    #[tokio::test(start_paused = true)]
    async fn x_094_x_132_strangers_who_send_one_valid_review_each_hold_no_place_against_those_whom_we_know() {
        let room = Room::new(Places { all: 12, newcomers: 6, strangers: 3 }, None);
        let known = come(&room, 1).await.expect("room");
        known.place.carried_a_review(true);
        known.phase.request();
        known.phase.arrived();
        known.phase.replied();
        let mut strangers = Vec::new();
        for _ in 0..20 {
            let here = come(&room, 2).await.expect("in place of another stranger");
            here.phase.request();
            here.phase.arrived();
            here.place.carried_a_review(false);
            here.phase.replied();
            // Then each begins a request that it does not end.
            here.phase.request();
            strangers.push(here);
            tokio::time::advance(Duration::from_millis(700)).await;
        }
        assert!(!known.phase.is_sent_off());
        assert_eq!(room.seats().strangers.len(), 3);
        let more: Vec<_> = come_all(&room, [1; 6]).await;
        assert!(gone(&more).is_empty(), "and those whom we know come in");
        for here in more {
            here.place.carried_a_review(true);
        }
        assert!(come(&room, 1).await.is_some());
        assert!(!known.phase.is_sent_off());
    }

    #[tokio::test(start_paused = true)]
    async fn guests_go_last_strangers_before_those_whom_we_know() {
        let room = room(4, 2);
        let mut all = Vec::new();
        for (from, trusted) in [(1, true), (2, false), (2, false), (3, false)] {
            let here = come(&room, from).await.expect("room");
            here.phase.request();
            here.phase.arrived();
            here.place.carried_a_review(trusted);
            here.phase.replied();
            tokio::time::advance(Duration::from_millis(10)).await;
            all.push(here);
        }
        for want in [vec![1], vec![1, 2]] {
            let here = come(&room, 4).await.expect("in place of an idle guest");
            here.place.carried_a_review(true);
            here.phase.request();
            all.push(here);
            assert_eq!(gone(&all), want, "of the address that has most, the one that is idle for longest");
        }
        let third = come(&room, 4).await.expect("room");
        assert_eq!(gone(&all), [1, 2, 3]);
        third.place.carried_a_review(true);
        third.phase.request();
        let fourth = come(&room, 4).await.expect("room");
        assert_eq!(gone(&all), [0, 1, 2, 3], "then a known one that is idle");
        fourth.place.carried_a_review(false);
        fourth.phase.request();
        assert!(come(&room, 5).await.is_none(), "all carry requests");
    }
}
