//! Provost: a validating admission gate for container images.

pub mod command;
pub mod decision;
pub mod edge;
pub mod gate;
