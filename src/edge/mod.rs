//! The first floor: one module for each thing outside the process. It turns bytes into the ground floor's types and back,
//! and must never decide anything.

pub mod admission;
pub mod clock;
pub mod config;
pub mod cores;
pub mod evidence;
pub mod http;
pub mod ledger;
pub mod manifests;
pub mod metrics;
pub mod policy_dir;
pub mod registry;
pub mod report;
pub mod samples;
pub mod sigstore;
pub mod telling;
pub mod tls;
mod yaml;
