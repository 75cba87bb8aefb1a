//! What an UPDATE leaves as it was, as far as only the JSON can tell (C-37). It must never call equal what differs: where
//! in doubt, it differs. Called for updates only, on a body that was read strictly before.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::object::Stranger;

/// The most values, in each of two objects, that are compared one by one. What holds more is equal as text, as an API server
/// writes equal objects, or not at all.
const MAX_VALUES: usize = 200_000;

/// The new and the old object, as text.
pub(super) struct Objects<'a> {
    new: &'a RawValue,
    old: &'a RawValue,
}

impl<'a> Objects<'a> {
    /// Finds both in the body of a review; `None` where one is missing.
    pub(super) fn of(body: &'a str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Review<'a> {
            #[serde(borrow)]
            request: Request<'a>,
        }
        #[derive(Deserialize)]
        struct Request<'a> {
            #[serde(borrow)]
            object: Option<&'a RawValue>,
            #[serde(borrow, rename = "oldObject")]
            old: Option<&'a RawValue>,
        }
        let Review { request: Request { object, old } } = serde_json::from_str(body).ok()?;
        Some(Self { new: object?, old: old? })
    }

    /// Whether both hold an equal value under these keys.
    pub(super) fn are_equal_at(&self, path: &[&str]) -> bool {
        let (Some(new), Some(old)) = (find(self.new, path), find(self.old, path)) else { return false };
        new.get() == old.get()
            || match (value(new), value(old)) {
                (Some(new), Some(old)) => new == old,
                (Some(_) | None, _) => false,
            }
    }

    /// For each unknown field, whether the old object holds an equal value in the same place. A container or volume is the
    /// same if it has the same name in the same list, and nothing else there has that name.
    pub(super) fn hold_equal(&self, pod_spec: &[&str], strangers: &[Stranger]) -> Vec<bool> {
        let parse = |raw| find(raw, pod_spec).and_then(value);
        let Some((new, old)) = parse(self.new).zip(parse(self.old)) else { return vec![false; strangers.len()] };
        let mut named: HashMap<&str, HashMap<&str, Option<&Value>>> = HashMap::new();
        let is_as_before = |stranger: &Stranger| match &stranger.inside {
            None => equal_under(Some(&new), Some(&old), &stranger.key),
            Some(inside) => {
                let new = new.get(inside.list).and_then(|list| list.get(inside.index));
                let elements = named.entry(inside.list).or_insert_with(|| by_name(old.get(inside.list)));
                let old = elements.get(inside.name.as_str()).copied().flatten();
                let [new, old] =
                    [new, old].map(|element| if inside.image_volume { element?.get("image") } else { element });
                !inside.name.is_empty() && equal_under(new, old, &stranger.key)
            }
        };
        strangers.iter().map(is_as_before).collect()
    }
}

/// The elements of a list by name; `None` for a name that several have.
fn by_name(list: Option<&Value>) -> HashMap<&str, Option<&Value>> {
    let mut named: HashMap<&str, Option<&Value>> = HashMap::new();
    for element in list.and_then(Value::as_array).into_iter().flatten() {
        let Some(name) = element.get("name").and_then(Value::as_str) else { continue };
        named.entry(name).and_modify(|only| *only = None).or_insert(Some(element));
    }
    named
}

fn equal_under(new: Option<&Value>, old: Option<&Value>, key: &str) -> bool {
    let [new, old] = [new, old].map(|value| value?.get(key));
    matches!((new, old), (Some(new), Some(old)) if new == old)
}

/// The value of a text, unless it would take many times the memory of the text.
fn value(raw: &RawValue) -> Option<Value> {
    // Before each value but the first stands one of these, and more of them stand in texts.
    let most = raw.get().bytes().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
    if most > MAX_VALUES { None } else { serde_json::from_str(raw.get()).ok() }
}

/// The value under a path of keys.
fn find<'a>(from: &'a RawValue, path: &[&str]) -> Option<&'a RawValue> {
    path.iter().try_fold(from, |raw, key| {
        Under(key).deserialize(&mut serde_json::Deserializer::from_str(raw.get())).ok().flatten()
    })
}

/// Reads the value under one key of an object.
struct Under<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for Under<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Under<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(super::strict::Text(key)) = map.next_key()? {
            if key == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}
