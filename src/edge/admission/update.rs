//! What an UPDATE leaves as it was, as far as only the JSON can tell (C-37). It must never call equal what differs: where
//! in doubt, it differs. Called for updates only, on a body that was read strictly before.

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::object::{Inside, Stranger};

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
            || match (serde_json::from_str::<Value>(new.get()), serde_json::from_str::<Value>(old.get())) {
                (Ok(new), Ok(old)) => new == old,
                (Ok(_) | Err(_), _) => false,
            }
    }

    /// For each unknown field, whether the old object holds an equal value in the same place. A container or volume is the
    /// same if it has the same name in the same list.
    pub(super) fn hold_equal<'s>(
        &self,
        pod_spec: &[&str],
        strangers: &'s [Stranger],
    ) -> impl Iterator<Item = bool> + 's {
        let parse = |raw| find(raw, pod_spec).and_then(|spec| serde_json::from_str::<Value>(spec.get()).ok());
        let specs = parse(self.new).zip(parse(self.old));
        strangers.iter().map(move |stranger| {
            specs.as_ref().is_some_and(|(new, old)| match &stranger.inside {
                None => equal_under(new, old, &stranger.key),
                Some(inside) => inside.is_as_before(new, old, &stranger.key),
            })
        })
    }
}

impl Inside {
    fn is_as_before(&self, new: &Value, old: &Value, key: &str) -> bool {
        let part = |element: &Value| -> Option<Value> {
            if self.image_volume { element.get("image").cloned() } else { Some(element.clone()) }
        };
        let Some(new) = new.get(self.list).and_then(|list| list.get(self.index)).and_then(part) else { return false };
        let before = old.get(self.list).and_then(Value::as_array).into_iter().flatten();
        let named = before.filter(|element| element.get("name").and_then(Value::as_str) == Some(&self.name));
        !self.name.is_empty() && named.filter_map(part).any(|old| equal_under(&new, &old, key))
    }
}

fn equal_under(new: &Value, old: &Value, key: &str) -> bool {
    matches!((new.get(key), old.get(key)), (Some(new), Some(old)) if new == old)
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
