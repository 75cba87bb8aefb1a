//! Waiting for something that is going to be so, by asking again until a limit. It must never be a mere delay.

use std::thread;
use std::time::{Duration, Instant};

/// Asks until there is an answer; fails with `what` when it takes longer than `limit`.
pub(crate) fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < limit, "{what}: not so after {} s", limit.as_secs_f32());
        thread::park_timeout(Duration::from_millis(20));
    }
}
