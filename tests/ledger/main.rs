//! The ledger under stress, on real files and real processes: killed at random moments, full, read-only, with an fsync
//! that fails, and with records flipped, dropped, put elsewhere, put in and cut off.
//!
//! `scripts/test --long` kills it more often.

#![expect(clippy::panic, reason = "a test says what is wrong by panicking, in its helpers too")]

#[allow(dead_code, reason = "shared with tests/cluster; each uses its part")]
#[path = "../support/mod.rs"]
mod support;

mod failing;
mod killed;
mod reviews;
mod space;
mod tampering;
