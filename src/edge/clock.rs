//! The wall clock: the one place that reads it. It must never be asked from the ground floor.

use jiff::Timestamp;

/// The present time.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Timestamp {
    Timestamp::now()
}
