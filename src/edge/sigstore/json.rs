//! JSON from strangers, read strictly: no duplicate keys in what is read, bounded depth, base64 in one spelling. It must
//! never read text that two readers could understand differently.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, Visitor};

/// Deepest nesting that is read.
pub const MAX_DEPTH: usize = 128;

/// Reads one JSON document. Fields that a type names must not occur twice (serde refuses those); fields that it does not
/// name are skipped.
///
/// # Errors
/// One sentence that says where it fails, without any of the text itself.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    if too_deep(bytes) {
        return Err(Unreadable { what: format!("it is nested deeper than {MAX_DEPTH} levels"), is_whole: true });
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let (what, is_whole) = match error.classify() {
            serde_json::error::Category::Data => ("a field is missing, duplicated or of another type", true),
            serde_json::error::Category::Eof => ("it ends too early", false),
            serde_json::error::Category::Syntax | serde_json::error::Category::Io => ("it is not JSON", false),
        };
        Unreadable { what: format!("{what} (line {}, column {})", error.line(), error.column()), is_whole }
    })
}

/// Why a document cannot be read, for the reader: never text of the document or of a library.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Unreadable {
    what: String,
    /// Whether it is JSON as far as it was read, and says something else than it should. Where unset it is none: it ends too
    /// early, or is something else altogether.
    pub(in crate::edge) is_whole: bool,
}

/// Decodes base64: standard alphabet, padded, no white space, no stray bits (RFC 4648, sections 3.3 to 3.5 and 4).
#[must_use]
pub fn base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Encodes base64 in the same spelling.
#[must_use]
pub fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// A JSON object whose keys are all different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unique<V>(pub BTreeMap<String, V>);

impl<V> Default for Unique<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl Unique<serde_json::Value> {
    /// The entries whose values are texts. The others never match anything that a policy can ask for.
    #[must_use]
    pub fn into_texts(self) -> BTreeMap<String, String> {
        self.0
            .into_iter()
            .filter_map(
                |(key, value)| if let serde_json::Value::String(text) = value { Some((key, text)) } else { None },
            )
            .collect()
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Unique<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = Unique<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object without duplicate keys")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, V>()? {
                    if entries.insert(key, value).is_some() {
                        return Err(A::Error::custom("duplicate key"));
                    }
                }
                Ok(Unique(entries))
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// Counts brackets outside strings; what is skipped counts too.
fn too_deep(bytes: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Sample {
        a: u8,
        #[serde(default)]
        m: Unique<serde_json::Value>,
    }

    #[test]
    fn duplicates_depth_and_garbage_are_refused() {
        let nested = |depth: usize| format!(r#"{{"a":1,"x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        for (name, text, good) in [
            ("plain", r#"{"a":1,"m":{"k":"v"}}"#.to_owned(), true),
            ("an unknown field", r#"{"a":1,"b":{"c":2}}"#.to_owned(), true),
            ("a duplicate field", r#"{"a":1,"a":1}"#.to_owned(), false),
            ("an escaped duplicate", r#"{"a":1,"\u0061":1}"#.to_owned(), false),
            ("a duplicate key in a map", r#"{"a":1,"m":{"k":"v","k":"v"}}"#.to_owned(), false),
            ("another case", r#"{"A":1}"#.to_owned(), false),
            ("bytes after the end", r#"{"a":1}{}"#.to_owned(), false),
            ("a byte-order mark", "\u{feff}{\"a\":1}".to_owned(), false),
            ("deep enough", nested(127), true),
            ("too deep", nested(128), false),
            ("brackets in a string", format!(r#"{{"a":1,"x":"{}\""}}"#, "[".repeat(500)), true),
            ("1e400", r#"{"a":1e400}"#.to_owned(), false),
            ("nothing", String::new(), false),
        ] {
            assert_eq!(read::<Sample>(text.as_bytes()).is_ok(), good, "{name}");
        }
    }

    #[test]
    fn base64_has_one_spelling() {
        assert_eq!(base64("aGk="), Some(b"hi".to_vec()));
        for text in ["aGk", "aGl=", "aGk=\n", " aGk=", "a-_=", "aGk=aGk="] {
            assert_eq!(base64(text), None, "{text:?}");
        }
    }

    #[test]
    fn errors_do_not_repeat_the_document() {
        let error = read::<Sample>(br#"{"a":"SECRET"}"#).expect_err("refused");
        assert!(!error.to_string().contains("SECRET"), "{error}");
    }
}
