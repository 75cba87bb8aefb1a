//! YAML (and JSON, which is YAML) as a tree in which every node knows its place and its bytes. It must never know what a
//! key means, and never drop a node: a key that stands twice, or that is no text, stays and is told.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Location, Spanned};

mod raw;

use raw::Raw;

/// A place in a file: line and column, both from 1, in characters. `0:0` is the file as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// The line, from 1.
    pub line: u64,
    /// The column, from 1.
    pub column: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A node with its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    /// Where it is used.
    pub(super) at: Position,
    /// Where it is written: elsewhere than `at` for an alias and for what a merge brings.
    pub(super) written: Written,
    pub(super) value: Value,
}

/// Where a node is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) at: Position,
    /// The bytes of a scalar within the file: with its quotes, without tag and anchor; of a block scalar only the lines.
    /// Of a list or mapping only the start means anything.
    pub(super) bytes: Range<usize>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file; a key that stands twice is here twice.
    Map(Vec<(Key, Node)>),
}

/// A key with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) at: Position,
    /// The text; for a number or a boolean as it would be as text, for anything else empty.
    pub(super) text: String,
    /// False where it is no text in the file.
    pub(super) is_text: bool,
}

impl Node {
    /// The value under a key that stands exactly once.
    pub(super) fn field(&self, key: &str) -> Option<&Self> {
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
}

/// As JSON, with every key as often as it stands: whoever reads that can refuse it.
impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Integer(value) => serializer.serialize_i128(*value),
            Value::Float(value) => serializer.serialize_f64(*value),
            Value::Text(text) => serializer.serialize_str(text),
            Value::List(items) => serializer.collect_seq(items),
            Value::Map(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                fields.iter().try_for_each(|(key, value)| map.serialize_entry(&key.text, value))?;
                map.end()
            }
        }
    }
}

/// One document of a file, with what is wrong with its mappings.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) root: Node,
    pub(super) oddities: Vec<(Position, Oddity)>,
}

/// What can be wrong with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Oddity {
    /// It stands twice in one mapping.
    DuplicateKey { key: String, first: Position },
    /// It is a number, a list, …
    KeyNotText,
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DuplicateKey { key, first } => {
                write!(f, "key `{}` is already written at {first}", key.escape_debug())
            }
            Self::KeyNotText => f.write_str("a key must be text: put it in quotes"),
        }
    }
}

/// A document that cannot be read; nothing can be said about its contents, nor about what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) at: Position,
    /// Printable.
    pub(super) message: String,
}

/// What is read, and how much of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Deepest nesting.
    pub(super) max_depth: usize,
    /// Most nodes of a file.
    pub(super) max_nodes: usize,
    /// Most documents of a file.
    pub(super) max_documents: usize,
    /// Most aliases, and as many anchors.
    pub(super) max_aliases: usize,
    /// Most nodes that aliases may bring.
    pub(super) max_aliased_nodes: usize,
    /// Whether `<<` is merged, as `kubectl` does; else it is an error, since it hides where a value comes from.
    pub(super) merge_keys: bool,
    /// Whether only `true` and `false` are booleans, and not `yes` and `on`, as they are to `kubectl`.
    pub(super) strict_booleans: bool,
}

/// Every document of a file that is not empty. `text` is what the caller has bounded already.
pub(super) fn documents(text: &str, rules: Rules) -> Vec<Result<Tree, Unreadable>> {
    // The parser counts it in some places and not in others.
    let (skipped, body) =
        text.strip_prefix(BYTE_ORDER_MARK).map_or((0, text), |body| (BYTE_ORDER_MARK.len_utf8(), body));
    let offsets = Offsets::of(body, skipped);
    let mut building = Building { offsets: &offsets, oddities: Vec::new(), nodes: 0 };
    let mut out = Vec::new();
    let mut bytes = body.as_bytes();
    for document in serde_saphyr::read_with_options::<_, Spanned<Raw>>(&mut bytes, rules.options()) {
        match document {
            Ok(document) => {
                let at = position(document.referenced);
                let root = building.node(document);
                // The parser's limits are for each document by itself.
                for (found, limit, what) in
                    [(out.len() + 1, rules.max_documents, "documents"), (building.nodes, rules.max_nodes, "nodes")]
                {
                    if found > limit {
                        out.push(Err(Unreadable { at, message: format!("more than {limit} {what} in one file") }));
                        return out;
                    }
                }
                out.push(Ok(Tree { root, oddities: std::mem::take(&mut building.oddities) }));
            }
            Err(error) => out.push(Err(Unreadable {
                at: error.location().map_or_else(Position::default, position),
                message: message(&error),
            })),
        }
    }
    out
}

const BYTE_ORDER_MARK: char = '\u{feff}';

impl Rules {
    fn options(self) -> serde_saphyr::Options {
        serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_reader_input_bytes: None,
                max_depth: self.max_depth,
                flow_nesting_limit: self.max_depth,
                max_documents: self.max_documents,
                max_events: self.max_nodes.saturating_mul(2),
                max_nodes: self.max_nodes,
                max_aliases: self.max_aliases,
                max_anchors: self.max_aliases,
                max_merge_keys: self.max_aliases,
                // One anchor may well serve hundreds of objects; what aliases bring is counted.
                enforce_alias_anchor_ratio: false,
                max_recorded_anchor_events: self.max_aliased_nodes,
                max_recorded_anchor_bytes: 1024 * 1024,
            },
            alias_limits: serde_saphyr::alias_limits! {
                max_total_replayed_events: self.max_aliased_nodes,
                max_replay_stack_depth: 8,
            },
            // Both values of a key that stands twice come through, so that it is told with both places and the rest of
            // the document is still looked at.
            duplicate_keys: DuplicateKeyPolicy::LastWins,
            merge_keys: if self.merge_keys { MergeKeyPolicy::Merge } else { MergeKeyPolicy::Error },
            strict_booleans: self.strict_booleans,
            reject_unsupported_tags: true,
            non_finite_float_policy: NonFiniteFloatPolicy::Reject,
            with_snippet: false,
        }
    }
}

fn message(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::{MessageFormatter as _, UserMessageFormatter};
    let text = UserMessageFormatter.format_message(error.without_snippet());
    format!("not readable as YAML: {}", text.escape_debug())
}

fn position(location: Location) -> Position {
    Position { line: location.line(), column: location.column() }
}

/// From the parser's nodes to ours.
struct Building<'a> {
    offsets: &'a Offsets<'a>,
    oddities: Vec<(Position, Oddity)>,
    /// How many were made, over all documents.
    nodes: usize,
}

impl Building<'_> {
    fn node(&mut self, raw: Spanned<Raw>) -> Node {
        self.nodes += 1;
        let at = position(raw.referenced);
        let span = raw.defined.span();
        let bytes = self.offsets.byte(span.offset())..self.offsets.byte(span.offset().saturating_add(span.len()));
        let value = match raw.value {
            Raw::Null => Value::Null,
            Raw::Bool(value) => Value::Bool(value),
            Raw::Integer(value) => Value::Integer(value),
            Raw::Float(value) => Value::Float(value),
            Raw::Text(text) => Value::Text(text),
            Raw::List(items) => Value::List(items.into_iter().map(|item| self.node(item)).collect()),
            Raw::Map(fields) => Value::Map(self.mapping(fields)),
        };
        Node { at, written: Written { at: position(raw.defined), bytes }, value }
    }

    fn mapping(&mut self, fields: Vec<(Spanned<Raw>, Spanned<Raw>)>) -> Vec<(Key, Node)> {
        let mut seen = BTreeMap::new();
        let mut out = Vec::with_capacity(fields.len());
        for (key, value) in fields {
            let at = position(key.referenced);
            let value = self.node(value);
            let (text, is_text) = match key.value {
                Raw::Text(text) => (text, true),
                Raw::Null => ("null".to_owned(), false),
                Raw::Bool(value) => (value.to_string(), false),
                Raw::Integer(value) => (value.to_string(), false),
                Raw::Float(value) => (value.to_string(), false),
                Raw::List(_) | Raw::Map(_) => (String::new(), false),
            };
            if !is_text {
                self.oddities.push((at, Oddity::KeyNotText));
            } else if let Some(first) = seen.get(&text) {
                self.oddities.push((at, Oddity::DuplicateKey { key: text.clone(), first: *first }));
            } else {
                seen.insert(text.clone(), at);
            }
            out.push((Key { at, text, is_text }, value));
        }
        out
    }
}

/// Where characters begin, in bytes: the parser counts characters.
struct Offsets<'a> {
    text: &'a str,
    skipped: usize,
    /// The byte at which every [`STRIDE`]th character begins; none where all characters are one byte long.
    strides: Vec<usize>,
}

const STRIDE: usize = 64;

impl<'a> Offsets<'a> {
    fn of(text: &'a str, skipped: usize) -> Self {
        let strides = if text.is_ascii() {
            Vec::new()
        } else {
            text.char_indices().step_by(STRIDE).map(|(byte, _)| byte).collect()
        };
        Self { text, skipped, strides }
    }

    /// The byte at which a character begins; past the end, the end.
    fn byte(&self, character: u64) -> usize {
        let character = usize::try_from(character).unwrap_or(usize::MAX);
        let byte = if self.strides.is_empty() {
            character.min(self.text.len())
        } else {
            self.strides.get(character / STRIDE).map_or(self.text.len(), |from| {
                let after = &self.text[*from..];
                after.char_indices().nth(character % STRIDE).map_or(self.text.len(), |(byte, _)| from + byte)
            })
        };
        byte + self.skipped
    }
}

#[cfg(test)]
mod tests;
