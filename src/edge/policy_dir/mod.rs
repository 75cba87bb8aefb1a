//! Policy files in a folder: read, checked, compiled, kept over a restart. It must never let a policy that it cannot
//! honour to the letter take part in a decision.

mod break_glass;
mod compile;
mod document;
mod fault;
mod folder;
mod keys;
mod lint;
mod load;
mod manifest;
mod read;
mod remember;
mod signers;
mod tree;
mod watch;

#[cfg(test)]
mod file_tests;
#[cfg(test)]
mod folder_tests;

pub use document::{Kind, schema};
pub use fault::{Fault, PolicyError, Position};
pub use lint::{Linted, lint};
pub use load::{Change, ChangeKind, Known, Loaded, load};
pub use watch::{POLL, PolicyDir};
