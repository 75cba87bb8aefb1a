//! Registries that fail, against the whole process: a scripted registry for each fault, the real `provost serve`, and a
//! caller that follows the API server's rules under `failurePolicy: Fail` and `Ignore`. `scripts/faults` shows the table.

mod accept;
mod authority;
mod caller;
mod canary;
mod crowds;
mod gate;
mod matrix;
mod passing;
mod report;
mod rows;
mod sample;
mod secrets;
mod spoil;
mod wire;

/// One server at a time: they are measured.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
