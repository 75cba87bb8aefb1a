//! How records are kept small: texts are shortened with the hash of the whole. It must never shorten without leaving a
//! hash of what is gone.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;

use serde::Serialize;

use super::{PolicyChange, Started};
use crate::decision::reference::Digest;

/// The longest record in bytes, as a line with its hashes and its name.
pub const MAX_RECORD: usize = 16 * 1024;

/// The longest event: what is left when the header (with cluster and replica of 200 bytes each) and the hashes have their place.
pub(super) const MAX_EVENT: usize = MAX_RECORD - 1024;

/// What [`shorten`] puts at the end: `…#` and 32 hex digits.
const MARK: usize = "…#".len() + 32;

/// A text of at most `width` bytes of JSON, quotes not counted; `width` is at least 36. A longer one keeps its beginning, then
/// come `…#` and the first 32 hex digits of the SHA-256 of the whole.
#[must_use]
pub fn shorten(text: &str, width: usize) -> Cow<'_, str> {
    let mut used = 0;
    let mut keep = 0;
    for (at, c) in text.char_indices() {
        used += json_width(c);
        if used + MARK <= width {
            keep = at + c.len_utf8();
        }
        if used > width {
            return Cow::Owned(format!("{}…#{}", &text[..keep], short_hash(text)));
        }
    }
    Cow::Borrowed(text)
}

/// The bytes that RFC 8785 spends on a character.
const fn json_width(c: char) -> usize {
    match c {
        '"' | '\\' | '\u{8}' | '\t' | '\n' | '\u{c}' | '\r' => 2,
        '\0'..='\u{1f}' => 6,
        _ => c.len_utf8(),
    }
}

/// The first 32 hex digits of a text's SHA-256.
pub(super) fn short_hash(text: &str) -> String {
    let mut hex = sha256(text.as_bytes()).hex();
    hex.truncate(32);
    hex
}

pub(super) fn sha256(bytes: &[u8]) -> Digest {
    digest(&aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes))
}

/// A finished SHA-256 as our type.
pub(super) fn digest(finished: &aws_lc_rs::digest::Digest) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(finished.as_ref());
    Digest::from_bytes(bytes)
}

/// Canonical JSON (RFC 8785) of something made of texts, truth values, small integers, lists and structures.
pub(super) fn canonical<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json_canonicalizer::to_string(&value)
        .expect("only maps with other keys than texts, numbers that are not finite, and types that refuse can fail; there are none")
}

/// The same of something whose members stand in the order of RFC 8785 (section 3.2.3) already, and whose whole numbers are
/// below 2^53: in a third of the time, since nothing is sorted. Each record of a review is written by it.
pub(super) fn canonical_in_order<T: Serialize + ?Sized>(value: &T) -> String {
    let text = serde_json::to_string(&value)
        .expect("only maps with other keys than texts and types that refuse can fail; there are none");
    debug_assert_eq!(text, canonical(value), "its members stand in another order");
    text
}

/// What was left out: how much, and the SHA-256 of the canonical JSON of the whole list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Omitted {
    count: usize,
    sha256: Digest,
}

impl Omitted {
    pub(super) fn of<T: Serialize>(count: usize, whole: &T) -> Self {
        Self { count, sha256: sha256(canonical(whole).as_bytes()) }
    }

    /// The same for a list that is too long to be held as text: hashed one by one.
    pub(super) fn of_each<T: Serialize>(count: usize, whole: impl Iterator<Item = T>) -> Self {
        let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        let mut before: &[u8] = b"[";
        for each in whole {
            hash.update(before);
            hash.update(canonical(&each).as_bytes());
            before = b",";
        }
        hash.update(if before == b"[" { b"[]" } else { b"]" });
        Self { count, sha256: digest(&hash.finish()) }
    }

    /// The same size as any other, for finding out what fits.
    pub(super) const fn unhashed(count: usize) -> Self {
        Self { count, sha256: super::NO_RECORD }
    }
}

#[derive(Serialize)]
struct StartedShape<'a> {
    r#type: &'static str,
    version: Cow<'a, str>,
    settings: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted: Option<Omitted>,
}

pub(super) fn started(started: &Started) -> String {
    let all = &started.settings;
    let whole = OnceCell::new();
    fitting(all.len(), |width, count| {
        canonical(&StartedShape {
            r#type: "started",
            version: shorten(&started.version, width),
            settings: all.iter().take(count).map(|(k, v)| (shorten(k, width), shorten(v, width))).collect(),
            omitted: (count < all.len())
                .then(|| Omitted { count: all.len() - count, ..*whole.get_or_init(|| Omitted::of(0, all)) }),
        })
    })
}

#[derive(Serialize)]
struct PoliciesShape<'a> {
    r#type: &'static str,
    changes: Vec<ChangeShape<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted: Option<Omitted>,
}

#[derive(Serialize)]
struct ChangeShape<'a> {
    name: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Cow<'a, str>>,
}

pub(super) fn policies_changed(changes: &[PolicyChange]) -> String {
    let whole = OnceCell::new();
    fitting(changes.len(), |width, count| {
        canonical(&PoliciesShape {
            r#type: "policies-changed",
            changes: (changes.iter().take(count))
                .map(|change| ChangeShape {
                    name: shorten(&change.name, width),
                    from: change.from,
                    to: change.to,
                    error: change.error.as_deref().map(|error| shorten(error, width)),
                })
                .collect(),
            omitted: (count < changes.len())
                .then(|| Omitted { count: changes.len() - count, ..*whole.get_or_init(|| Omitted::of(0, &changes)) }),
        })
    })
}

/// The widest of several attempts that fits: first all of the list with ever narrower texts, then ever less of the list.
fn fitting(all: usize, attempt: impl Fn(usize, usize) -> String) -> String {
    let narrower = [4096, 1024, 256, 64].into_iter().map(|width| (width, all));
    let fewer = std::iter::successors(Some(all / 2), |n| (*n > 0).then_some(n / 2)).map(|count| (64, count));
    narrower
        .chain(fewer)
        .map(|(width, count)| attempt(width, count))
        .find(|text| text.len() <= MAX_EVENT)
        .unwrap_or_else(|| attempt(64, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortened_texts_keep_the_hash_of_the_whole() {
        let long = "a".repeat(200);
        for (name, text, width, want) in [
            ("fits", "abc", 36, "abc".to_owned()),
            ("just fits", &long[..36], 36, "a".repeat(36)),
            ("one too many", &long[..37], 36, format!("…#{}", short_hash(&long[..37]))),
            ("its beginning stays", &long, 100, format!("{}…#{}", "a".repeat(100 - MARK), short_hash(&long))),
            ("escapes count", "\0\0\0\0\0\0\0", 37, format!("…#{}", short_hash("\0\0\0\0\0\0\0"))),
            ("characters stay whole", &"é".repeat(40), 40, format!("éé…#{}", short_hash(&"é".repeat(40)))),
        ] {
            let got = shorten(text, width);
            assert_eq!(got, want, "{name}");
            assert!(canonical(&got).len() <= width + 2, "{name}");
        }
        assert_ne!(shorten(&"a".repeat(99), 50), shorten(&"a".repeat(98), 50));
    }

    #[test]
    fn a_list_is_hashed_alike_as_a_whole_and_one_by_one() {
        for list in [&[][..], &["a"], &["b", "\u{1}\"", "ä"]] {
            assert_eq!(Omitted::of_each(1, list.iter()), Omitted::of(1, &list), "{list:?}");
        }
    }

    #[test]
    fn x_128_changes_and_settings_stay_small() {
        let change = |n: usize| PolicyChange {
            name: format!("{n}-{}", "\u{1}".repeat(900)),
            from: None,
            to: Some(sha256(b"x")),
            error: Some("e".repeat(900)),
        };
        for count in [0, 1, 10, 64, 300] {
            let changes: Vec<_> = (0..count).map(change).collect();
            let text = policies_changed(&changes);
            assert!(text.len() <= MAX_EVENT, "{count}: {}", text.len());
            let settings = (0..count).map(|n| (format!("{n}{}", "k".repeat(300)), "\"".repeat(900))).collect();
            let text = started(&Started { version: "v".repeat(10_000), settings });
            assert!(text.len() <= MAX_EVENT, "{count}: {}", text.len());
        }
    }
}
