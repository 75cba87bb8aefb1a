//! What the tests on real parts share: processes, folders, a cluster, registries, signed images, Provost itself. It
//! must never judge: what is right is said by the tests.
//!
//! Nothing here listens or sends outside 127.0.0.0/8, and everything that is started ends with the test process, also
//! where that is killed.

pub(crate) mod cluster;
pub(crate) mod folder;
pub(crate) mod https;
pub(crate) mod images;
pub(crate) mod keys;
pub(crate) mod net;
pub(crate) mod process;
pub(crate) mod provost;
pub(crate) mod registry;
pub(crate) mod tools;
pub(crate) mod wait;
