//! Real registries, and signatures that the real cosign made: `provost verify` and `cosign verify` agree on all of
//! them, accepted and refused, but for the cases in which cosign is no oracle. Those have tests of their own.
//!
//! The tools are built by `scripts/test-tools`; without them these tests fail.

#![expect(clippy::panic, reason = "a test says what is wrong by panicking, in its helpers too")]

#[allow(dead_code, reason = "shared with tests/cluster; each of the two uses its part")]
#[path = "../support/mod.rs"]
mod support;

mod access;
mod agreement;
mod fixture;
mod no_oracle;
