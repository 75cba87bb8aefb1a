//! JSON read strictly and without copying: every value is looked at, only what is wanted is kept. It must never let two
//! readers see different things: no key twice, no key in another case, no half surrogate, no number out of range (X-016).

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::decision::printable::clip;

/// How deep objects and lists may be nested; the review itself is the first level.
pub(super) const MAX_DEPTH: u8 = 64;

/// A text, borrowed from the body unless it holds an escape. `null` is the empty text, as it is to the API server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Text<'de>(pub(super) Cow<'de, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;

        impl<'de> Visitor<'de> for Texts {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                without_nul(text)?;
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_unit<E: Error>(self) -> Result<Text<'de>, E> {
                Ok(Text::default())
            }
        }

        deserializer.deserialize_any(Texts)
    }
}

/// Reads one value to its end and keeps nothing, but whether a key in it names an image. Unlike `serde::de::IgnoredAny`,
/// under which `serde_json` only looks for the end, it refuses half surrogates, numbers out of range and deep nesting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Skip {
    /// The level of nesting at which the value stands, if it is an object or a list.
    pub(super) depth: u8,
}

/// Whether a key names an image: `image`, `…Image` or `reference`.
pub(super) fn names_image(key: &str) -> bool {
    // The last byte settles it for nearly every key.
    matches!(key.as_bytes().last(), Some(b'e' | b'E'))
        && (key.ends_with("Image") || folds_to(key, "image") || folds_to(key, "reference"))
}

impl<'de> DeserializeSeed<'de> for Skip {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Skip {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_borrowed_str<E: Error>(self, _: &'de str) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<bool, E> {
        without_nul(text)?;
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        let below = Self { depth: deeper(self.depth)? };
        let mut image = false;
        while let Some(inside) = seq.next_element_seed(below)? {
            image |= inside;
        }
        Ok(image)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let below = Self { depth: deeper(self.depth)? };
        let mut image = false;
        while let Some(Text(key)) = map.next_key()? {
            image |= names_image(&key);
            image |= map.next_value_seed(below)?;
        }
        Ok(image)
    }
}

/// An object on the way to an image: which keys are known there, and what becomes of their values.
pub(super) trait Fields<'de> {
    /// What the object is, for the reader of an error: `the pod spec`.
    fn what(&self) -> &'static str;

    /// The keys that are known, at most 64, best in the order in which they come.
    fn keys(&self) -> &'static [&'static str];

    /// Reads the value of a known key.
    fn known<A: MapAccess<'de>>(&mut self, key: &'static str, value: Value<'_, A>) -> Result<(), A::Error>;

    /// Reads the value of any other key.
    fn unknown<A: MapAccess<'de>>(&mut self, _key: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        value.skip().map(drop)
    }
}

/// A value that is yet to be read, and the level of nesting at which it stands.
pub(super) struct Value<'m, A> {
    pub(super) map: &'m mut A,
    pub(super) depth: u8,
}

impl<'de, A: MapAccess<'de>> Value<'_, A> {
    /// As a text; `null` is empty.
    pub(super) fn text(self) -> Result<Cow<'de, str>, A::Error> {
        self.map.next_value::<Text<'de>>().map(|text| text.0)
    }

    /// As an object; false for `null`.
    pub(super) fn object(self, fields: &mut impl Fields<'de>) -> Result<bool, A::Error> {
        self.map.next_value_seed(Object { fields, depth: self.depth })
    }

    /// Not kept; true where a key in it names an image.
    pub(super) fn skip(self) -> Result<bool, A::Error> {
        self.map.next_value_seed(Skip { depth: self.depth })
    }
}

/// Reads an object into its [`Fields`]; false for `null`.
pub(super) struct Object<'f, F> {
    pub(super) fields: &'f mut F,
    pub(super) depth: u8,
}

impl<'de, F: Fields<'de>> DeserializeSeed<'de> for Object<'_, F> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: Fields<'de>> Visitor<'de> for Object<'_, F> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object for {}", self.fields.what())
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let Self { fields, depth } = self;
        let depth = deeper(depth)?;
        let keys = fields.keys();
        let mut seen = 0_u64;
        let mut others = HashSet::new();
        let mut next = 0;
        while let Some(Text(key)) = map.next_key()? {
            let value = Value { map: &mut map, depth };
            if let Some(index) = position(keys, &key, next) {
                let bit = 1_u64 << (index % 64);
                if seen & bit != 0 {
                    return Err(refuse_key(&key, "comes twice", fields.what()));
                }
                seen |= bit;
                next = index + 1;
                fields.known(keys[index], value)?;
            } else {
                if keys.iter().any(|known| folds_to(&key, known)) {
                    return Err(refuse_key(&key, "is a known key in another case", fields.what()));
                }
                fields.unknown(&key, value)?;
                if let Some(key) = others.replace(key) {
                    return Err(refuse_key(&key, "comes twice", fields.what()));
                }
            }
        }
        Ok(true)
    }
}

/// Where a key stands in a list, looked for from `from` on: an API server writes keys in the order of the list.
fn position(keys: &[&str], key: &str, from: usize) -> Option<usize> {
    let after = keys.iter().skip(from).position(|known| *known == key).map(|index| index + from);
    after.or_else(|| keys.iter().take(from).position(|known| *known == key))
}

/// Whether a key is the same as a known one to a reader that does not mind case. Such readers fold two letters beyond ASCII
/// too: the long s and the Kelvin sign.
fn folds_to(key: &str, known: &str) -> bool {
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    key.len() >= known.len() && key.chars().map(fold).eq(known.chars().map(fold))
}

pub(super) fn deeper<E: Error>(depth: u8) -> Result<u8, E> {
    if depth > MAX_DEPTH {
        return Err(E::custom(format_args!("nested deeper than {MAX_DEPTH} levels")));
    }
    Ok(depth + 1)
}

fn without_nul<E: Error>(text: &str) -> Result<(), E> {
    if text.contains('\0') { Err(E::custom("a NUL in a text")) } else { Ok(()) }
}

fn refuse_key<E: Error>(key: &str, why: &str, what: &str) -> E {
    E::custom(format_args!("the key `{}` {why} in {what}", clip(key, 80)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip(json: &str) -> Result<bool, String> {
        let mut reader = serde_json::Deserializer::from_str(json);
        let image = Skip { depth: 1 }.deserialize(&mut reader).map_err(|e| e.to_string())?;
        reader.end().map_err(|e| e.to_string())?;
        Ok(image)
    }

    #[test]
    fn x_016_what_is_skipped_is_read_strictly() {
        for (name, good, bad) in [
            ("surrogates", r#"["\ud83d\ude00"]"#, r#"["\ud83d"]"#),
            ("surrogate in a key", r#"{"\ud83d\ude00":1}"#, r#"{"\ude00":1}"#),
            ("number", "[1e300, -1e300]", "[1e400]"),
            ("negative number", "[-1e308]", "[-1e309]"),
            ("whole number", "[123456789012345678901234567890]", "[01]"),
            ("escaped NUL", r#"["\u0001"]"#, r#"["\u0000"]"#),
            ("NUL", "[\"a\"]", "[\"a\0\"]"),
            ("end", "[1]", "[1]x"),
            ("comma", "[1,2]", "[1,]"),
            ("literal", "[null,true,false]", "[nul]"),
        ] {
            assert_eq!(skip(good), Ok(false), "{name}");
            assert!(skip(bad).is_err(), "{name}");
        }
    }

    #[test]
    fn x_095_nesting_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(skip(&nested(64)), Ok(false));
        assert!(skip(&nested(65)).is_err_and(|e| e.starts_with("nested deeper than 64 levels")));
        assert!(skip(&nested(100_000)).is_err());
        assert!(skip(&r#"{"a":"#.repeat(100_000)).is_err());
    }

    #[test]
    fn x_015_which_keys_name_an_image() {
        for (json, want) in [
            (r#"{"image":1}"#, true),
            (r#"{"a":[{"b":{"sideImage":null}}]}"#, true),
            (r#"{"a":[[{"reference":"x"}]]}"#, true),
            (r#"{"Image":1}"#, true),
            (r#"{"REFERENCE":1}"#, true),
            (r#"{"\u0069mage":1}"#, true),
            (r#"{"imagePullPolicy":1}"#, false),
            (r#"{"preference":1}"#, false),
            (r#"{"scrimage":1}"#, false),
            (r#"{"a":"image"}"#, false),
        ] {
            assert_eq!(skip(json), Ok(want), "{json}");
        }
    }

    #[test]
    fn x_016_letters_that_fold() {
        for (key, known, want) in [
            ("Image", "image", true),
            ("SPEC", "spec", true),
            ("\u{17f}pec", "spec", true),
            ("to\u{212a}en", "token", true),
            ("imag", "image", false),
            ("images", "image", false),
            ("ımage", "image", false),
        ] {
            assert_eq!(folds_to(key, known), want, "{key}");
        }
    }
}
