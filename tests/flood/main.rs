//! The running program among many: a flood of connections, callers with and without a name, more reviews than there is
//! room for, and an operator who only observes. Everything is sent from and to loopback addresses.

mod callers;
mod overload;
mod program;
mod storm;
