//! Policy files as YAML trees, within a policy's limits. It must never drop a node: a key that stands twice, or that is no
//! text, is a fault.

use super::fault::{Fault, Position, shown};
use crate::edge::yaml::{self, Oddity, Rules};

pub(super) use crate::edge::yaml::{Key, Node, Value};

/// Largest policy file, in bytes.
pub(super) const MAX_FILE: u64 = 1024 * 1024;

/// Tight limits: a policy file is small, flat, and has no use for clever YAML.
const RULES: Rules = Rules {
    // A policy has less than ten levels.
    max_depth: 32,
    max_nodes: 200_000,
    max_documents: 1_024,
    max_aliases: 1_000,
    max_aliased_nodes: 10_000,
    // `kubectl apply` does not know them alike, and they hide where a value comes from.
    merge_keys: false,
    strict_booleans: false,
};

impl Node {
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

    /// Leaves out what stands under keys that are no text. Each of them has its fault.
    fn without_odd_keys(&mut self) {
        match &mut self.value {
            Value::Map(fields) => {
                fields.retain(|(key, _)| key.is_text);
                for (_, node) in fields {
                    node.without_odd_keys();
                }
            }
            Value::List(items) => items.iter_mut().for_each(Self::without_odd_keys),
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => {}
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
    let read = yaml::documents(text, RULES).into_iter();
    read.map(|document| {
        let yaml::Tree { mut root, oddities } =
            document.map_err(|unreadable| (unreadable.at, Fault::Syntax(unreadable.message)))?;
        root.without_odd_keys();
        let faults = oddities.into_iter().map(|(at, oddity)| match oddity {
            Oddity::DuplicateKey { key, first } => (at, Fault::DuplicateKey { key: shown(&key), first }),
            Oddity::KeyNotText => (at, Fault::KeyNotText),
        });
        Ok(Tree { root, faults: faults.collect() })
    })
    .collect()
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
