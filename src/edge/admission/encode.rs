//! From a verdict to the bytes of the reply (C-20 to C-26). It must never write `patch` or `patchType`, and never say
//! `allowed` for any reason but the verdict.

use std::borrow::Cow;

use serde::Serialize;

use super::message::{annotation_list, message, observed_warnings, stale, warnings};
use crate::decision::code::Code;
use crate::decision::verdict::{Note, Verdict};

/// What a reply is rendered from.
#[derive(Debug, Clone)]
pub struct Reply<'a> {
    /// `request.uid`, echoed byte for byte.
    pub uid: &'a str,
    /// The verdict.
    pub verdict: &'a Verdict,
    /// What became of the record.
    pub record: RecordMark,
}

/// What became of the record of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordMark {
    /// It stands in the ledger, or in its queue, under this id.
    Saved(String),
    /// It is counted with others that are equal to the record of this id.
    RepeatOf(String),
    /// It could not be written in time and may yet be.
    Pending,
    /// There is none of its own.
    None,
}

/// The body of the HTTP reply: one line of JSON.
#[must_use]
pub fn encode(reply: &Reply<'_>) -> Vec<u8> {
    encode_with(reply, warnings(reply.verdict, &reply.record))
}

/// The same where the operator only observes: a warning of its own says so to whoever applies something.
#[must_use]
pub fn encode_observed(reply: &Reply<'_>) -> Vec<u8> {
    encode_with(reply, observed_warnings(reply.verdict, &reply.record))
}

fn encode_with(reply: &Reply<'_>, warnings: Vec<String>) -> Vec<u8> {
    let Reply { uid, verdict, record } = reply;
    let allowed = match verdict {
        Verdict::Admit(_) | Verdict::Override(_) | Verdict::WouldDeny(_) | Verdict::NoImages => true,
        Verdict::Deny(_) => false,
    };
    let review = Review {
        api_version: "admission.k8s.io/v1",
        kind: "AdmissionReview",
        response: Response {
            uid,
            allowed,
            status: (!allowed).then(|| Status::of(verdict, record)),
            warnings,
            audit_annotations: annotations(verdict, record),
        },
    };
    // Texts, numbers and lists of texts: there is nothing here that JSON cannot say, and a vector takes every byte.
    serde_json::to_vec(&review).expect("a reply is texts and numbers only")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    audit_annotations: Annotations<'a>,
}

#[derive(Serialize)]
struct Status {
    code: u16,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
    message: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    retry_after_seconds: u32,
}

/// Keys of C-26; each value is one line under 1 KiB.
#[derive(Serialize)]
struct Annotations<'a> {
    verdict: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    codes: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    overridden: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    policy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    notes: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    stale: String,
}

impl Status {
    fn of(verdict: &Verdict, record: &RecordMark) -> Self {
        let code = status_code(verdict);
        let reason = match code {
            400 => "BadRequest",
            413 => "RequestEntityTooLarge",
            429 => "TooManyRequests",
            500 => "InternalError",
            _ => "Forbidden",
        };
        // Only here: elsewhere a client's silent repeats would hide the reason.
        let details = (code == 429).then_some(Details { retry_after_seconds: 1 });
        Self { code, reason, details, message: message(verdict, record) }
    }
}

/// That of the first denial of the review as a whole; else that on which all denials agree; else 403.
fn status_code(verdict: &Verdict) -> u16 {
    let denials = verdict.denials();
    if let Some(whole) = denials.iter().find(|denial| denial.place().is_none()) {
        return whole.code().http_status();
    }
    let mut codes = denials.iter().map(|denial| denial.code().http_status());
    let first = codes.next().unwrap_or(403);
    if codes.all(|code| code == first) { first } else { 403 }
}

fn annotations<'a>(verdict: &Verdict, record: &'a RecordMark) -> Annotations<'a> {
    let waived = verdict.waived();
    let mut codes = verdict.codes();
    codes.retain(|code| !waived.contains(code));
    Annotations {
        verdict: verdict.word(),
        codes: annotation_list(codes.into_iter().map(Code::as_str)),
        overridden: annotation_list(waived.into_iter().map(Code::as_str)),
        policy: annotation_list(verdict.policies().iter().map(ToString::to_string)),
        record: match record {
            RecordMark::Saved(id) => Some(Cow::Borrowed(id)),
            RecordMark::RepeatOf(id) => Some(Cow::Owned(format!("repeat of {id}"))),
            RecordMark::Pending => Some(Cow::Borrowed("pending")),
            RecordMark::None => None,
        },
        notes: annotation_list(verdict.notes().iter().copied().map(Note::as_str)),
        stale: annotation_list(stale(verdict)),
    }
}

#[cfg(test)]
mod tests;
