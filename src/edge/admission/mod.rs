//! `AdmissionReview` JSON ⇄ the ground floor's types. It must never decide: what cannot be read becomes a fault, what was
//! decided is rendered, and `allowed` is written in one place, from the verdict alone.
//!
//! Reading is one pass over the bytes that keeps only what a rule, a record or a reply needs. It is stricter than the API
//! server: a key that comes twice or in another case on the way to an image, a half surrogate or a number out of range
//! anywhere, makes the whole review malformed, since two readers could see two different images in it.

mod decode;
mod encode;
mod form;
mod kinds;
mod known_fields;
mod message;
mod object;
mod reading;
mod rescue;
mod strict;
mod update;

pub use decode::{MAX_BODY, Undecodable, decode, too_large};
pub use encode::{RecordMark, Reply, encode, encode_observed};
pub use kinds::is_workload;
pub use known_fields::{KnownFields, known_fields};
pub use rescue::{RESCUE_WINDOW, rescue_uid};
