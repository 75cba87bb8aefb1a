//! Registries that fail, against the whole process: a scripted registry for each fault, the real `provost serve`, and a
//! caller that follows the API server's rules under `failurePolicy: Fail` and `Ignore`. `scripts/faults` shows the table.

mod caller;
mod canary;
mod crowds;
mod gate;
mod matrix;
mod rows;
mod sample;
mod wire;
