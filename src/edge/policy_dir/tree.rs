//! YAML (and JSON, which is YAML) as a tree in which every node knows its place. It must never drop a node: a key that
//! stands twice, or that is no text, is a fault.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};

use super::fault::{Fault, Position, shown};

/// Largest policy file, in bytes.
pub(super) const MAX_FILE: u64 = 1024 * 1024;
/// Deepest nesting; a policy has less than ten levels.
const MAX_DEPTH: usize = 32;

/// A node with its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) at: Position,
    pub(super) text: String,
}

impl Node {
    /// The value under a key that stands exactly once.
    pub(super) fn field(&self, key: &str) -> Option<&Node> {
        let Value::Map(fields) = &self.value else { return None };
        let mut found = fields.iter().filter(|(k, _)| k.text == key).map(|(_, node)| node);
        match (found.next(), found.next()) {
            (Some(node), None) => Some(node),
            (None | Some(_), _) => None,
        }
    }

    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        if let Value::Text(text) = &self.value { Some(text) } else { None }
    }

    /// What this is, for a message.
    pub(super) fn described(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => format!("the boolean `{value}`"),
            Value::Integer(value) => format!("the number `{value}`"),
            Value::Float(value) => format!("the number `{value}`"),
            Value::Text(text) => format!("the text `{}`", shown(text)),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }
}

/// One document of a file, with what is wrong with its mappings.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) root: Node,
    pub(super) faults: Vec<(Position, Fault)>,
}

/// Every document of a file; the error where one cannot be read, and with it nothing can be said about its contents.
/// `text` is what the caller has bounded already.
pub(super) fn documents(text: &str) -> Vec<Result<Tree, (Position, Fault)>> {
    let mut bytes = text.as_bytes();
    serde_saphyr::read_with_options::<_, Spanned<Raw>>(&mut bytes, options())
        .map(|document| match document {
            Ok(document) => {
                let mut faults = Vec::new();
                let root = node(document, &mut faults);
                Ok(Tree { root, faults })
            }
            Err(error) => {
                let at = error.location().map_or_else(Position::default, position);
                Err((at, Fault::Syntax(message(&error))))
            }
        })
        .collect()
}

/// Tight limits: a policy file is small, flat, and has no use for clever YAML.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_reader_input_bytes: None,
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_events: 400_000,
            max_nodes: 200_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_recorded_anchor_events: 10_000,
            max_recorded_anchor_bytes: 1024 * 1024,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 10_000,
            max_replay_stack_depth: 8,
        },
        // Both values of a key that stands twice come through, so that `node` below reports it with both places and the
        // rest of the document is still checked. None of them is ever used.
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        // `kubectl apply` does not know them alike, and they hide where a value comes from.
        merge_keys: MergeKeyPolicy::Error,
        reject_unsupported_tags: true,
        non_finite_float_policy: NonFiniteFloatPolicy::Reject,
        with_snippet: false,
    }
}

fn message(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::{MessageFormatter as _, UserMessageFormatter};
    let text = UserMessageFormatter.format_message(error.without_snippet());
    format!("not readable as YAML: {}", text.escape_debug())
}

fn position(location: serde_saphyr::Location) -> Position {
    Position { line: location.line(), column: location.column() }
}

fn node(raw: Spanned<Raw>, faults: &mut Vec<(Position, Fault)>) -> Node {
    let at = position(raw.referenced);
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Bool(value) => Value::Bool(value),
        Raw::Integer(value) => Value::Integer(value),
        Raw::Float(value) => Value::Float(value),
        Raw::Text(text) => Value::Text(text),
        Raw::List(items) => Value::List(items.into_iter().map(|item| node(item, faults)).collect()),
        Raw::Map(fields) => Value::Map(mapping(fields, faults)),
    };
    Node { at, value }
}

fn mapping(fields: Vec<(Spanned<Raw>, Spanned<Raw>)>, faults: &mut Vec<(Position, Fault)>) -> Vec<(Key, Node)> {
    let mut seen = std::collections::BTreeMap::new();
    let mut out = Vec::with_capacity(fields.len());
    for (key, value) in fields {
        let at = position(key.referenced);
        let value = node(value, faults);
        let Raw::Text(text) = key.value else {
            faults.push((at, Fault::KeyNotText));
            continue;
        };
        if let Some(first) = seen.insert(text.clone(), at) {
            seen.insert(text.clone(), first);
            faults.push((at, Fault::DuplicateKey { key: shown(&text), first }));
        }
        out.push((Key { at, text }, value));
    }
    out
}

/// A node as serde-saphyr hands it over.
enum Raw {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<Raw>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping, a list, text, a number or a boolean")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Integer(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Integer(value.into()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Integer(value))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Raw, E> {
        i128::try_from(value).map(Raw::Integer).map_err(|_| E::custom("number too large"))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Text(value))
    }

    fn visit_bytes<E: de::Error>(self, _: &[u8]) -> Result<Raw, E> {
        Err(E::custom("`!!binary` has no place in a policy: write the text itself"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Raw::Map(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The documents, unless one is unreadable, and all faults.
    fn read(text: &str) -> (Option<Vec<Node>>, Vec<String>) {
        let (mut out, mut faults) = (Some(Vec::new()), Vec::new());
        for document in documents(text) {
            match document {
                Ok(tree) => {
                    if let Some(all) = &mut out {
                        all.push(tree.root.clone());
                    }
                    faults.extend(tree.faults);
                }
                Err(fault) => {
                    out = None;
                    faults.push(fault);
                }
            }
        }
        (out, faults.into_iter().map(|(at, fault)| format!("f:{at}: {fault}")).collect())
    }

    #[test]
    fn every_node_knows_its_place() {
        let (documents, faults) = read("a: 1\nb:\n  - x\n  - {ü: z, d: [true, ~]}\n---\nc: 2027-06-30\n");
        assert_eq!(faults, [""; 0]);
        let documents = documents.expect("readable");
        let b = documents[0].field("b").expect("b");
        assert_eq!(b.at, Position { line: 3, column: 3 });
        let Value::List(items) = &b.value else { panic!("{b:?}") };
        assert_eq!(items[0].at, Position { line: 3, column: 5 });
        let d = items[1].field("d").expect("d");
        assert_eq!(d.at, Position { line: 4, column: 15 });
        let c = documents[1].field("c").expect("c");
        assert_eq!((c.at, c.text()), (Position { line: 6, column: 4 }, Some("2027-06-30")));
    }

    #[test]
    fn what_no_policy_needs_is_refused() {
        for (name, text, want) in [
            ("duplicate", "a: 1\nb: 2\na: 3\n", "f:3:1: key `a` is already written at 1:1: remove one of them"),
            ("duplicate in flow", "x: {a: 1, a: 1}\n", "f:1:11: key `a` is already written at 1:5: remove one of them"),
            ("duplicate in quotes", "a: 1\n'a': 3\n", "f:2:1: key `a` is already written at 1:1: remove one of them"),
            (
                "duplicate in escapes",
                "a: 1\n\"\\x61\": 3\n",
                "f:2:1: key `a` is already written at 1:1: remove one of them",
            ),
            (
                "duplicate in JSON",
                "{\"a\": 1,\n \"a\": 2}",
                "f:2:2: key `a` is already written at 1:2: remove one of them",
            ),
            ("number as key", "1: a\n", "f:1:1: a key must be text: put it in quotes"),
            ("list as key", "? [a]\n: b\n", "f:1:3: a key must be text: put it in quotes"),
            ("merge key", "a: &x {b: 1}\nc:\n  <<: *x\n", "f:3:3: not readable as YAML: merge key not allowed here"),
            ("unknown tag", "a: !foo bar\n", "f:1:9: not readable as YAML: unsupported tag `!foo`"),
            ("infinite", "a: .inf\n", "f:1:4: not readable as YAML: value `.inf` is not a finite number"),
            ("tab", "a:\n\tb: 1\n", "f:2:"),
            ("unclosed", "a: [1, 2\n", "f:"),
            ("control character", "a: \u{1}\n", "f:1:"),
        ] {
            let (_, faults) = read(text);
            assert!(faults.first().is_some_and(|f| f.starts_with(want)), "{name}: {faults:?}");
            assert_eq!(faults.len(), 1, "{name}: {faults:?}");
        }
    }

    #[test]
    fn x_033_bombs_end_at_the_budget() {
        let depth = format!("a: {}{}\n", "[".repeat(100), "]".repeat(100));
        let aliases = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                       d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\n";
        let block = (0..200).map(|i| " ".repeat(i) + "a:\n").collect::<String>();
        for (name, text) in [("depth", depth.as_str()), ("aliases", aliases), ("blocks", &block)] {
            let (documents, faults) = read(text);
            assert!(documents.is_none(), "{name} was read");
            assert_eq!(faults.len(), 1, "{name}: {faults:?}");
        }
        assert!(read("a: &a [x]\nb: *a\n").0.is_some());
    }
}
