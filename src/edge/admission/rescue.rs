//! The uid of a review that cannot be read as a whole (C-09). It must never take a `uid` from anywhere but `request.uid`.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};

use super::strict::{Skip, Text};

/// How much of an oversize body is looked at, in bytes. An API server writes `request.uid` first.
pub const RESCUE_WINDOW: usize = 64 * 1024;

/// Reads `request.uid` from the beginning of a body; what follows it may be anything or missing. `None` where it does not
/// stand there, is empty, holds an escape, or comes after something that is not JSON.
#[must_use]
pub fn rescue_uid(first_64k: &[u8]) -> Option<String> {
    let window = &first_64k[..first_64k.len().min(RESCUE_WINDOW)];
    let window = window.strip_prefix("\u{feff}".as_bytes()).unwrap_or(window);
    let mut uid = None;
    // It ends in an error: after the uid on purpose, before it because there is none.
    let _ = Level { path: &["request", "uid"], uid: &mut uid, depth: 1 }
        .deserialize(&mut serde_json::Deserializer::from_slice(window));
    uid.filter(|uid: &String| !uid.is_empty())
}

/// One object on the way; `path` begins with the key that is looked for in it.
struct Level<'a> {
    path: &'static [&'static str],
    uid: &'a mut Option<String>,
    depth: u8,
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { path, uid, depth } = self;
        while let Some(Text(key)) = map.next_key()? {
            match path {
                [last] if key == *last => {
                    *uid = Some(map.next_value::<&str>()?.to_owned());
                    return Err(A::Error::custom("found"));
                }
                [first, rest @ ..] if key == *first => {
                    map.next_value_seed(Level { path: rest, uid, depth: depth + 1 })?;
                    return Err(A::Error::custom("not there"));
                }
                _ => {
                    map.next_value_seed(Skip { depth: depth + 1 })?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_09_the_uid_is_the_requests_own() {
        for (name, body, want) in [
            ("as sent", r#"{"kind":"AdmissionReview","apiVersion":"v1","request":{"uid":"u-1","kind":{"#, Some("u-1")),
            ("spaces", " { \"request\" : \n{ \"uid\"\t: \"u-1\" , ", Some("u-1")),
            ("after others", r#"{"request":{"dryRun":true,"name":"x","uid":"u-1","#, Some("u-1")),
            ("byte-order mark", "\u{feff}{\"request\":{\"uid\":\"u-1\"", Some("u-1")),
            ("the user's", r#"{"request":{"userInfo":{"uid":"evil"},"uid":"u-1"}"#, Some("u-1")),
            ("only the user's", r#"{"request":{"userInfo":{"uid":"evil"}}}"#, None),
            ("the object's", r#"{"request":{"object":{"metadata":{"uid":"evil"}}}}"#, None),
            ("in a string", r#"{"request":{"name":"\"uid\":\"evil\"","uid":"u-1"}}"#, Some("u-1")),
            ("in a string, alone", r#"{"request":{"name":"\"uid\":\"evil\""}}"#, None),
            ("at the top", r#"{"uid":"evil","request":{"uid":"u-1"}}"#, Some("u-1")),
            ("at the top, alone", r#"{"uid":"evil"}"#, None),
            ("in the response", r#"{"response":{"uid":"evil"},"request":{"uid":"u-1"}}"#, Some("u-1")),
            ("in another request", r#"{"x":{"request":{"uid":"evil"}},"request":{"uid":"u-1"}}"#, Some("u-1")),
            ("request twice", r#"{"request":{},"request":{"uid":"evil"}}"#, None),
            ("in a list", r#"[{"request":{"uid":"evil"}}]"#, None),
            ("request is a list", r#"{"request":[{"uid":"evil"}]}"#, None),
            ("cut in the uid", r#"{"request":{"uid":"u-1"#, None),
            ("escape", r#"{"request":{"uid":"u\u002d1"}}"#, None),
            ("number", r#"{"request":{"uid":1}}"#, None),
            ("empty", r#"{"request":{"uid":""}}"#, None),
            ("another case", r#"{"request":{"UID":"evil"}}"#, None),
            ("junk", "\x16\x03\x01", None),
            ("nothing", "", None),
        ] {
            assert_eq!(rescue_uid(body.as_bytes()).as_deref(), want, "{name}");
        }
    }

    #[test]
    fn c_09_looks_at_64_kib_and_no_further() {
        let body = |pad: usize| format!(r#"{{"request":{{"name":"{}","uid":"u-1"}}}}"#, "x".repeat(pad));
        assert_eq!(rescue_uid(body(60_000).as_bytes()).as_deref(), Some("u-1"));
        assert_eq!(rescue_uid(body(RESCUE_WINDOW).as_bytes()), None);
        assert_eq!(rescue_uid(format!(r#"{{"a":{}"#, "[".repeat(65_000)).as_bytes()), None);
        assert_eq!(rescue_uid(b"{\"request\":{\"name\":\"\xff\",\"uid\":\"u-1\"}}"), None);
    }

    proptest::proptest! {
        #[test]
        fn c_09_never_panics(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..512)) {
            let _ = rescue_uid(&body);
        }
    }
}
