//! A real API server calls a real Provost: what is created, changed and refused, what the user reads, and whether the
//! API server's audit log, its answers and the ledger say the same.
//!
//! The tools are built by `scripts/test-tools`; without them these tests fail. One cluster serves all tests, each of
//! which has namespaces of its own.

#![expect(clippy::panic, reason = "a test says what is wrong by panicking, in its helpers too")]

#[allow(dead_code, reason = "shared with tests/registries; each of the two uses its part")]
#[path = "../support/mod.rs"]
mod support;

mod break_glass;
mod callers;
mod faults;
mod fields;
mod helm;
mod kinds;
mod mirror;
mod objects;
mod operations;
mod pods;
mod telling;
mod updates;
mod world;
