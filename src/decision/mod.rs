//! The ground floor: the rules, and nothing that touches the world. It must never name a clock, a file, a socket or an
//! asynchronous type; time comes in as an argument.

pub mod break_glass;
pub mod chain;
pub mod code;
pub mod compare;
pub mod decide;
pub mod evidence;
pub mod name;
pub mod pattern;
pub mod plan;
pub mod policy;
pub mod printable;
pub mod record;
pub mod reference;
pub mod review;
pub mod verdict;
