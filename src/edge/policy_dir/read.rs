//! A [`Node`] as a serde data source that goes on after a fault, so that all faults of a file come out at once. It must
//! never hand over a value beside which a fault was found without that fault being recorded.
//!
//! The types of `document.rs` derive `Deserialize`; each of their fields is an [`At`], and at each `At` a fault ends only
//! the value under it. Unknown keys are recorded and left out. Whoever reads the values must look at the faults first.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{StrDeserializer, U64Deserializer};
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer as _, Unexpected, VariantAccess, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};

use super::document::not_yet_hint;
use super::fault::{Fault, Faults, Position, either, shown};
use super::tree::{Key, Node, Value};

/// The value of `T` in a node. `None` where the node as a whole is not one. Every fault is in `faults`.
pub(super) fn typed<T: for<'de> Deserialize<'de>>(node: &Node, faults: &Faults) -> Option<T> {
    At::<T>::deserialize(Reader { node, key: None, faults }).ok().and_then(|at| at.value)
}

/// A value with its place. `value` is `None` where a fault was found in it, and recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) at: Position,
    pub(super) value: Option<T>,
}

/// A mapping from names to values, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named<T>(pub(super) Vec<(At<String>, At<T>)>);

/// A key that a later version honours. Reading it records the fault; that it stood there is all that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotYet;

/// In an enum that is either a word or a mapping: the variant for the mapping.
pub(super) const MAPPING: &str = "{}";

const AT: &str = "provost::At";
const NOT_YET: &str = "provost::NotYet";

/// Why reading a value ended. `None`: the fault is recorded already.
#[derive(Debug)]
struct Stop(Option<Fault>);

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(fault) => fault.fmt(f),
            None => f.write_str("see the recorded faults"),
        }
    }
}

impl std::error::Error for Stop {}

impl de::Error for Stop {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(Some(Fault::Shape(message.to_string())))
    }

    fn missing_field(field: &'static str) -> Self {
        Self(Some(Fault::Missing { key: field.to_owned() }))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self(Some(Fault::WrongType { expected: expected.to_string(), found: found.to_string() }))
    }
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    node: &'a Node,
    key: Option<&'a Key>,
    faults: &'a Faults,
}

impl<'a> Reader<'a> {
    fn wrong_type(&self, expected: impl fmt::Display) -> Stop {
        let (expected, mut found) = (expected.to_string(), self.node.described());
        if expected == "text" && matches!(self.node.value, Value::Bool(_) | Value::Integer(_) | Value::Float(_)) {
            found.push_str(": put it in quotes");
        }
        Stop(Some(Fault::WrongType { expected, found }))
    }

    fn item(self, node: &'a Node) -> Self {
        Self { node, key: None, faults: self.faults }
    }
}

impl<'de, 'a: 'de> Deserializer<'de> for Reader<'a> {
    type Error = Stop;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let expected = Expected(&visitor).to_string();
        let wrong = self.wrong_type(expected);
        let got = match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => match u64::try_from(*value) {
                Ok(value) => visitor.visit_u64(value),
                Err(_) => return Err(wrong),
            },
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(text) => visitor.visit_str(text),
            Value::List(items) => visitor.visit_seq(Items { reader: self, items: items.iter() }),
            Value::Map(fields) => {
                visitor.visit_map(Fields { reader: self, known: None, rest: fields.iter(), next: None })
            }
        };
        // Our own words for what was found, in place of serde's.
        got.map_err(|stop| if matches!(stop.0, Some(Fault::WrongType { .. })) { wrong } else { stop })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        // A key that is written without a value is written: it must not read like one that is absent.
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Stop> {
        match name {
            AT => visitor.visit_seq(Placed { reader: self, step: 0 }),
            NOT_YET => {
                let at = self.key.map_or(self.node.at, |key| key.at);
                let key = self.key.map_or("", |key| key.text.as_str());
                if let Some((key, hint)) = not_yet_hint(key) {
                    self.faults.error(at, Fault::NotYet { key, hint });
                    visitor.visit_unit()
                } else {
                    Err(Stop(Some(Fault::Shape(format!("this version cannot honour `{}` yet", shown(key))))))
                }
            }
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let Value::Map(fields) = &self.node.value else { return Err(self.wrong_type("a mapping")) };
        visitor.visit_map(Fields { reader: self, known: Some(known), rest: fields.iter(), next: None })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let Value::Map(fields) = &self.node.value else { return Err(self.wrong_type("a mapping")) };
        visitor.visit_map(Fields { reader: self, known: None, rest: fields.iter(), next: None })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let Value::List(items) = &self.node.value else { return Err(self.wrong_type("a list")) };
        visitor.visit_seq(Items { reader: self, items: items.iter() })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        match &self.node.value {
            Value::Text(text) if text != MAPPING && variants.contains(&text.as_str()) => visitor.visit_enum(Word(text)),
            Value::Map(_) if variants.contains(&MAPPING) => visitor.visit_enum(Mapping(self)),
            Value::Null
            | Value::Bool(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::List(_)
            | Value::Map(_) => {
                let words = variants.iter().filter(|word| not_yet_hint(word).is_none());
                let words =
                    words.map(|word| if *word == MAPPING { "a mapping".to_owned() } else { format!("`{word}`") });
                Err(self.wrong_type(either(&words.collect::<Vec<_>>())))
            }
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct identifier ignored_any
    }
}

/// What a visitor expects, in our words.
struct Expected<'v, V>(&'v V);

impl<'de, V: Visitor<'de>> fmt::Display for Expected<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Raw<'v, V>(&'v V);
        impl<'de, V: Visitor<'de>> fmt::Display for Raw<'_, V> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.expecting(f)
            }
        }
        let text = Raw(self.0).to_string();
        f.write_str(match text.as_str() {
            "a string" => "text",
            "a boolean" => "`true` or `false`",
            "usize" | "u64" => "a whole number",
            other => other,
        })
    }
}

struct Items<'a> {
    reader: Reader<'a>,
    items: std::slice::Iter<'a, Node>,
}

impl<'de, 'a: 'de> de::SeqAccess<'de> for Items<'a> {
    type Error = Stop;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Stop> {
        self.items.next().map(|node| seed.deserialize(self.reader.item(node))).transpose()
    }
}

struct Fields<'a> {
    reader: Reader<'a>,
    /// The keys of a struct; `None` for a mapping with free keys.
    known: Option<&'static [&'static str]>,
    rest: std::slice::Iter<'a, (Key, Node)>,
    next: Option<(&'a Key, &'a Node)>,
}

impl<'de, 'a: 'de> de::MapAccess<'de> for Fields<'a> {
    type Error = Stop;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Stop> {
        while let Some((key, node)) = self.rest.next() {
            match self.known {
                None => {
                    self.next = Some((key, node));
                    return seed.deserialize(KeyReader(key)).map(Some);
                }
                // A key that stands twice has its fault from the tree already; only the first goes on.
                Some(known) if known.contains(&key.text.as_str()) => {
                    if self.is_repeated(key) {
                        continue;
                    }
                    self.next = Some((key, node));
                    return seed.deserialize(StrDeserializer::new(&key.text)).map(Some);
                }
                Some(known) => self.reader.faults.error(key.at, unknown_key(&key.text, known)),
            }
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Stop> {
        let Some((key, node)) = self.next.take() else {
            return Err(Stop(Some(Fault::Shape("a value without a key".to_owned()))));
        };
        seed.deserialize(Reader { node, key: Some(key), faults: self.reader.faults })
    }
}

impl Fields<'_> {
    fn is_repeated(&self, key: &Key) -> bool {
        let Value::Map(all) = &self.reader.node.value else { return false };
        all.iter().find(|(k, _)| k.text == key.text).is_some_and(|(first, _)| first.at != key.at)
    }
}

/// The key of a mapping with free keys, as an [`At`].
struct KeyReader<'a>(&'a Key);

impl<'de> Deserializer<'de> for KeyReader<'_> {
    type Error = Stop;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_str(&self.0.text)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Stop> {
        let Position { line, column } = self.0.at;
        visitor.visit_seq(PlacedKey { parts: [line, column].into_iter(), text: Some(&self.0.text) })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

struct PlacedKey<'a> {
    parts: std::array::IntoIter<u64, 2>,
    text: Option<&'a str>,
}

impl<'de> de::SeqAccess<'de> for PlacedKey<'_> {
    type Error = Stop;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Stop> {
        match self.parts.next() {
            Some(part) => seed.deserialize(U64Deserializer::new(part)).map(Some),
            None => self.text.take().map(|text| seed.deserialize(StrDeserializer::new(text))).transpose(),
        }
    }
}

/// Line, column, and the value, where it is one.
struct Placed<'a> {
    reader: Reader<'a>,
    step: u8,
}

impl<'de, 'a: 'de> de::SeqAccess<'de> for Placed<'a> {
    type Error = Stop;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Stop> {
        let Position { line, column } = self.reader.node.at;
        self.step += 1;
        match self.step {
            1 => seed.deserialize(U64Deserializer::new(line)).map(Some),
            2 => seed.deserialize(U64Deserializer::new(column)).map(Some),
            _ => match seed.deserialize(self.reader) {
                Ok(value) => Ok(Some(value)),
                Err(Stop(fault)) => {
                    if let Some(fault) = fault {
                        self.reader.faults.error(self.reader.node.at, fault);
                    }
                    Ok(None)
                }
            },
        }
    }
}

/// A word as a unit variant.
struct Word<'a>(&'a str);

impl<'de> EnumAccess<'de> for Word<'_> {
    type Error = Stop;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Stop> {
        let value = seed.deserialize(IntoDeserializerOf(self.0).into_deserializer())?;
        Ok((value, self))
    }
}

struct IntoDeserializerOf<'a>(&'a str);

impl<'a> IntoDeserializerOf<'a> {
    fn into_deserializer(self) -> StrDeserializer<'a, Stop> {
        self.0.into_deserializer()
    }
}

impl<'de> VariantAccess<'de> for Word<'_> {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, _: S) -> Result<S::Value, Stop> {
        Err(Stop(Some(Fault::Shape(format!("`{}` is no word that can stand alone", shown(self.0))))))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Stop> {
        self.newtype_variant_seed(PhantomData::<()>).and_then(|()| visitor.visit_unit())
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Stop> {
        self.newtype_variant_seed(PhantomData::<()>).and_then(|()| visitor.visit_unit())
    }
}

/// A mapping as the variant [`MAPPING`].
struct Mapping<'a>(Reader<'a>);

impl<'de, 'a: 'de> EnumAccess<'de> for Mapping<'a> {
    type Error = Stop;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Stop> {
        let value = seed.deserialize(IntoDeserializerOf(MAPPING).into_deserializer())?;
        Ok((value, self))
    }
}

impl<'de, 'a: 'de> VariantAccess<'de> for Mapping<'a> {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        Err(self.0.wrong_type("a word"))
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Stop> {
        seed.deserialize(self.0)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Stop> {
        self.0.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, known: &'static [&'static str], visitor: V) -> Result<V::Value, Stop> {
        self.0.deserialize_struct("", known, visitor)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AtVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for AtVisitor<T> {
            type Value = At<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value with its place")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut parts: A) -> Result<At<T>, A::Error> {
                let line = parts.next_element()?.unwrap_or_default();
                let column = parts.next_element()?.unwrap_or_default();
                Ok(At { at: Position { line, column }, value: parts.next_element()? })
            }
        }
        deserializer.deserialize_newtype_struct(AT, AtVisitor(PhantomData))
    }
}

impl<'de> Deserialize<'de> for NotYet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NotYetVisitor;
        impl Visitor<'_> for NotYetVisitor {
            type Value = NotYet;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("nothing")
            }

            fn visit_unit<E: de::Error>(self) -> Result<NotYet, E> {
                Ok(NotYet)
            }
        }
        deserializer.deserialize_newtype_struct(NOT_YET, NotYetVisitor)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NamedVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for NamedVisitor<T> {
            type Value = Named<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Named<T>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Named(fields))
            }
        }
        deserializer.deserialize_map(NamedVisitor(PhantomData))
    }
}

fn unknown_key(key: &str, known: &[&'static str]) -> Fault {
    let meant =
        known.iter().filter(|k| distance(&key.to_lowercase(), &k.to_lowercase()) <= 2).min_by_key(|k| distance(key, k));
    let known = known.iter().copied().filter(|k| not_yet_hint(k).is_none()).collect();
    Fault::UnknownKey { key: shown(key), known, meant: meant.map(|k| (*k).to_owned()) }
}

/// How many characters must be put in, taken out or changed to make one word the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
