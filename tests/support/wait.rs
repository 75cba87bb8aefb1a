//! Waiting for something that is going to be so, by asking again until a limit. It must never be a mere delay.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

/// Asks until there is an answer; fails with `what` when it takes longer than `limit`.
pub(crate) fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    until_ok(what, limit, || ask().ok_or(""))
}

/// The same; what was last heard instead of an answer is told as well.
pub(crate) fn until_ok<T, E: Display>(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<T, E>) -> T {
    let begun = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(heard) => assert!(begun.elapsed() < limit, "{what}: not so after {} s\n{heard}", limit.as_secs_f32()),
        }
        thread::park_timeout(Duration::from_millis(20));
    }
}
