//! From the bytes of an `AdmissionReview` to a [`Review`]. It must never admit by failing: what cannot be read is a fault
//! with the uid that its denial needs, or, without one, no reply at all.

use super::form::Form;
use super::reading::Reading;
use super::rescue::{RESCUE_WINDOW, rescue_uid};
use crate::decision::code::Code;
use crate::decision::printable::clip;
use crate::decision::review::{Fault, Request, Review};

/// The longest body that is read, in bytes (C-09).
pub const MAX_BODY: usize = 8 * 1024 * 1024;

/// The longest uid that is echoed, in bytes; an API server's has 36.
const MAX_UID: usize = 256;

/// A body that is no review that could be judged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// There is no uid that a reply could carry, or the version is another (C-20): only an HTTP error is left. No API server
    /// sends such a body.
    #[error("{detail}")]
    NoReply {
        /// What was wrong, for the log and the HTTP reply; printable.
        detail: String,
    },
    /// To be denied in-band.
    #[error("{fault}")]
    Refuse {
        /// All that could be read; the uid always.
        request: Box<Request>,
        /// What was wrong.
        fault: Fault,
    },
}

impl Undecodable {
    /// The uid that the denial is told with.
    #[must_use]
    pub fn uid(&self) -> Option<&str> {
        match self {
            Self::NoReply { .. } => None,
            Self::Refuse { request, .. } => Some(&request.uid),
        }
    }
}

/// Reads a review. `malformed-review`, `unsupported-kind`, `budget-exceeded` and `review-too-large` are told in-band where
/// there is a uid to tell them with.
pub fn decode(body: &[u8]) -> Result<Review, Undecodable> {
    if body.len() > MAX_BODY {
        return Err(too_large(body));
    }
    let mut reading = Reading::default();
    let text =
        std::str::from_utf8(body).map_err(|error| malformed(format!("byte {} is not UTF-8", error.valid_up_to())));
    let read = text.and_then(|text| reading.read(text).map(|()| text));
    reading.settle_request();
    if let Some(detail) = reading.other_version(read.is_ok()) {
        return Err(Undecodable::NoReply { detail });
    }
    if reading.request.uid.is_empty() {
        reading.request.uid = rescue_uid(body).unwrap_or_default();
    }
    if reading.request.uid.is_empty() || reading.request.uid.len() > MAX_UID {
        let detail = match read {
            Err(fault) => fault.detail,
            Ok(_) => format!("request.uid is absent or longer than {MAX_UID} bytes"),
        };
        return Err(Undecodable::NoReply { detail });
    }
    let formed = read.and_then(|text| reading.form(text));
    let request = reading.request;
    match formed {
        Err(fault) => Err(Undecodable::Refuse { request: Box::new(request), fault }),
        Ok(Form { namespace, subject, images, unknown_fields, mirror_of_node, override_asked }) => {
            Ok(Review { request, namespace, subject, images, unknown_fields, mirror_of_node, override_asked })
        }
    }
}

/// What becomes of a body that is longer than [`MAX_BODY`], from its first [`RESCUE_WINDOW`] bytes: `review-too-large`
/// where they hold the uid.
#[must_use]
pub fn too_large(first_64k: &[u8]) -> Undecodable {
    let detail = format!("the review is larger than {} MiB", MAX_BODY / (1024 * 1024));
    match rescue_uid(first_64k) {
        Some(uid) if uid.len() <= MAX_UID => Undecodable::Refuse {
            request: Box::new(Request { uid, ..Request::default() }),
            fault: Fault::new(Code::ReviewTooLarge, detail),
        },
        Some(_) | None => {
            Undecodable::NoReply { detail: format!("{detail}, with no uid in its first {} KiB", RESCUE_WINDOW / 1024) }
        }
    }
}

/// A fault of the review's form.
pub(super) fn malformed(detail: impl Into<String>) -> Fault {
    Fault::new(Code::MalformedReview, detail)
}

/// A piece of untrusted text, as a fault may hold it.
pub(super) fn quoted(text: &str) -> String {
    format!("`{}`", clip(text, 80))
}

#[cfg(test)]
mod tests;
