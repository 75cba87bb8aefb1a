//! Computing that takes long: on threads of its own, one core always left for the rest. It must never run on a thread on
//! which others wait for their turn.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::sync::Semaphore;

/// Largest document, in bytes, that is read where it arrives. What is larger would hold up everybody else there.
const AT_ONCE: usize = 256 * 1024;

/// The cores that long computations may take. Clones share them; those who wait are served in the order in which they came,
/// so that whoever has much to compute, and asks for one thing after the other, is no longer ahead of those who have little.
#[derive(Debug, Clone)]
pub struct Cores(Arc<Semaphore>);

impl Cores {
    /// All cores but one; where there is one only, that one, which the system then shares out.
    #[must_use]
    pub fn all_but_one() -> Self {
        let all = available_parallelism().map_or(1, NonZero::get);
        Self(Arc::new(Semaphore::new((all - 1).max(1))))
    }

    /// Computes when its turn comes. Once begun it is computed to its end, also where nobody waits for it any more.
    ///
    /// # Panics
    /// Where `work` does, and outside a Tokio runtime.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let turn = Arc::clone(&self.0).acquire_owned().await.expect("the semaphore is never closed");
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        match done.await.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(done) => done,
            Err(Ok(panic)) => resume_unwind(panic),
            // The runtime ends, and with it whoever waits here.
            Err(Err(_)) => std::future::pending().await,
        }
    }

    /// Reads a document of so many bytes: here, unless it is long.
    pub async fn read<T: Send + 'static>(&self, bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
        if bytes > AT_ONCE { self.run(work).await } else { work() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use futures::future::join_all;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn x_096_no_more_is_computed_at_once_than_there_are_turns() {
        let cores = Cores(Arc::new(Semaphore::new(2)));
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let all = (0..200).map(|number| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            cores.run(move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                thread::yield_now();
                now.fetch_sub(1, Ordering::SeqCst);
                number
            })
        });
        assert_eq!(join_all(all).await, (0..200).collect::<Vec<_>>());
        assert!((1..=2).contains(&most.load(Ordering::SeqCst)), "{most:?}");
        assert!(Cores::all_but_one().0.available_permits() >= 1);
    }

    #[tokio::test]
    async fn what_is_long_is_read_elsewhere() {
        let cores = Cores::all_but_one();
        let here = thread::current().id();
        for (bytes, moved) in [(0, false), (AT_ONCE, false), (AT_ONCE + 1, true)] {
            assert_eq!(cores.read(bytes, move || thread::current().id() != here).await, moved, "{bytes} bytes");
        }
    }

    #[tokio::test]
    async fn a_turn_lasts_as_long_as_the_work_whoever_leaves() {
        let cores = Cores(Arc::new(Semaphore::new(1)));
        let (starts, underway) = oneshot::channel();
        let (finish, finished) = oneshot::channel::<()>();
        let (shared, work) = (cores.clone(), move || {
            starts.send(()).expect("somebody listens");
            finished.blocking_recv().expect("told to finish");
        });
        let waiter = tokio::spawn(async move { shared.run(work).await });
        underway.await.expect("it has begun");
        waiter.abort();
        assert!(waiter.await.is_err_and(|error| error.is_cancelled()));
        assert_eq!(cores.0.available_permits(), 0, "nobody waits for it, and it still computes");
        finish.send(()).expect("it listens");
        assert_eq!(cores.run(|| 7).await, 7);
    }

    #[tokio::test]
    #[should_panic(expected = "made to panic")]
    async fn x_102_a_panic_is_passed_on() {
        Cores::all_but_one().run(|| panic!("made to panic")).await;
    }
}
