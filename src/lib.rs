//! Provost: a validating admission gate for container images. Production runs only what was built once, promoted by digest,
//! and signed by the right people and pipelines.
//!
//! # The way of one review
//!
//! 1. [`edge::http`] takes `POST /validate` from the API server over TLS, bounds the body, and takes the deadline from
//!    `?timeout=`.
//! 2. [`edge::admission`] turns the JSON into a [`decision::review::Review`]: who asks, what is done, and **every** image
//!    with the place it came from. What cannot be read becomes a [`decision::review::Fault`], and a denial.
//! 3. [`decision::compare`] marks the images that an UPDATE leaves as they were. Where that is all of them, no policy is
//!    needed; else [`gate`] picks every policy that governs the namespace.
//! 4. [`decision::plan`] settles what needs no network (is it pinned? withdrawn? from a repository that a rule covers?) and
//!    returns the questions that remain. An image that fails here asks nobody anything.
//! 5. [`edge::evidence`] answers the questions under the deadline, from its cache or from the registry. An answer is data:
//!    which signed statements were verified, what was looked at and proved nothing, and which source did not answer.
//! 6. [`decision::decide`] makes the verdict. It is the only code that does, and an admission needs, for every image, a
//!    proof for every rule that covers it in every policy that governs.
//! 7. The ledger's record, the metrics, the warnings, the audit annotations and the reply are rendered from that verdict.
//!    A denial is on disk before it is answered, and an override that is not on disk is a denial.
//!
//! `provost verify` and `provost demo` go the same way from step 3 or 1 on. There is no other engine.
//!
//! # What can make it say yes?
//!
//! [`decision::verdict::Ground`] lists it: a rule that is satisfied (by as many verified signatures of named signers as it
//! wants, by a listed digest, or by both, as the rule says), an image that an update leaves as it was, or an image that is
//! empty in a template and is judged at its pod. Beside these there is only [`decision::verdict::Verdict::NoImages`], for
//! kinds that cannot hold an image, [`decision::verdict::Verdict::Override`], where [`decision::break_glass`] lets somebody
//! whom the policy names answer for what it denies, and [`decision::verdict::Verdict::WouldDeny`], where a policy's owner
//! wrote `warn` or `audit`, for the mirror of a static pod that runs already, and for everything under `serve --observe`,
//! which denies nothing. Facts may be older than they should be while a registry does not answer
//! ([`decision::evidence::Origin::Stale`]); a proof then says so.
//!
//! # The house
//!
//! ```text
//!   top      command/   serve  verify  policy  audit  certs  demo       prints; holds no rule, parses no wire format
//!                          \      |
//!            gate.rs        plan → evidence → decide → record           the one place where rules and edges meet
//!                          /      |       \
//!   first    edge/      http  admission  policy_dir  evidence ─▶ registry, sigstore   ledger  metrics   decides nothing
//!                          \      |       /
//!   ground   decision/  names, policies, evidence, plan, decide, records              pure: no clock, no file, no socket
//! ```
//!
//! A floor uses the floors below it and never one above; `tests/architecture.rs` holds that. Ids such as X-136 (attacks), C-37
//! (the contract with the API server) and BG-09 (break-glass) stand in the names of tests; attacks are in
//! `docs/threat-model.md`.

pub mod command;
pub mod decision;
pub mod edge;
pub mod gate;

#[cfg(test)]
#[path = "../tests/cases/runner.rs"]
mod cases;
