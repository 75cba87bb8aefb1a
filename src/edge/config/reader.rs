//! Taking settings out of flags, environment and file, in that order, and collecting what is wrong. It must never stop
//! at the first problem, and never drop a key unread.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::problem::{Problem, Source};
use super::{Override, Setting};
use crate::edge::yaml::{self, Key, Node, Position, Rules, Tree, Value};

/// No settings file is larger.
const LARGEST: u64 = 1 << 20;

const RULES: Rules = Rules {
    max_depth: 32,
    max_nodes: 100_000,
    max_documents: 2,
    max_aliases: 1_000,
    max_aliased_nodes: 10_000,
    merge_keys: false,
    strict_booleans: true,
};

/// Reads one file's tree and collects problems.
pub(super) struct Reader<'a> {
    overrides: &'a [Override],
    file: Option<Arc<Path>>,
    /// What relative paths of the file start from.
    base: PathBuf,
    pub(super) problems: Vec<Problem>,
}

/// One mapping of the file, from which known keys are taken; what is left is a problem.
pub(super) struct Section {
    /// The keys that lead here, with a dot at the end where there are any.
    path: String,
    entries: Vec<(Key, Node)>,
    known: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: Option<&Path>, overrides: &'a [Override]) -> Self {
        let base = file.and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
        Self { overrides, file: file.map(Arc::from), base, problems: Vec::new() }
    }

    /// The file as a section; empty where there is no file or it cannot be read, which is a problem then.
    pub(super) fn top(&mut self) -> Section {
        let node = match self.file.clone() {
            None => None,
            Some(file) => match self.parse(&file) {
                Ok(node) => node,
                Err(problem) => {
                    self.problems.push(problem);
                    None
                }
            },
        };
        self.section(String::new(), "the file", node)
    }

    fn parse(&self, file: &Path) -> Result<Option<Node>, Problem> {
        let unreadable = |detail: String| Problem::Unreadable { file: file.to_owned(), detail };
        let length = std::fs::metadata(file).map_err(|error| unreadable(error.to_string()))?.len();
        if length > LARGEST {
            return Err(unreadable(format!("larger than {LARGEST} bytes")));
        }
        let text = std::fs::read_to_string(file).map_err(|error| unreadable(error.to_string()))?;
        let syntax = |at, detail| Problem::Syntax { at: self.at(at), detail };
        let mut settings = None;
        for document in yaml::documents(&text, RULES) {
            let Tree { root, oddities } = document.map_err(|error| syntax(error.at, error.message))?;
            if let Some((at, oddity)) = oddities.first() {
                return Err(syntax(*at, oddity.to_string()));
            }
            if settings.is_some() {
                return Err(syntax(root.at, "a second document: settings are one".to_owned()));
            }
            settings = Some(root);
        }
        Ok(settings)
    }

    /// A mapping within the file.
    pub(super) fn section(&mut self, path: String, name: &str, node: Option<Node>) -> Section {
        let entries = match node {
            None => Vec::new(),
            Some(node) => match node.value {
                Value::Null => Vec::new(),
                Value::Map(entries) => entries,
                other @ (Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) | Value::List(_)) => {
                    self.wrong_type(node.at, name, "a mapping", &other);
                    Vec::new()
                }
            },
        };
        Section { path, entries, known: Vec::new() }
    }

    /// The mapping under a key.
    pub(super) fn subsection(&mut self, section: &mut Section, key: &'static str) -> Section {
        let node = section.take(key);
        let name = section.full(key);
        self.section(format!("{name}."), &name, node)
    }

    /// A setting that is written as text: flag, then environment, then file, then default. All that is written is
    /// checked, also where something stronger wins.
    pub(super) fn text<T>(
        &mut self,
        section: &mut Section,
        key: &'static str,
        default: T,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Setting<T> {
        self.maybe_text(section, key, parse).unwrap_or(Setting { value: default, source: Source::Default })
    }

    /// The same without a default.
    pub(super) fn maybe_text<T>(
        &mut self,
        section: &mut Section,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Setting<T>> {
        let node = section.take(key);
        let written = self.scalar(&section.full(key), node, "text", |node| match node {
            Value::Text(text) => Some(text.clone()),
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => None,
        });
        self.strongest(&section.full(key), written, parse)
    }

    /// A whole number within bounds.
    pub(super) fn count(
        &mut self,
        section: &mut Section,
        key: &'static str,
        default: usize,
        bounds: std::ops::RangeInclusive<usize>,
    ) -> Setting<usize> {
        let node = section.take(key);
        let written = self.scalar(&section.full(key), node, "a whole number", |node| match node {
            Value::Integer(number) => Some(number.to_string()),
            Value::Null | Value::Bool(_) | Value::Text(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => None,
        });
        let parse = |text: &str| match text.parse() {
            Ok(count) if bounds.contains(&count) => Ok(count),
            Ok(_) | Err(_) => Err(format!("must be a whole number from {} to {}", bounds.start(), bounds.end())),
        };
        self.strongest(&section.full(key), written, parse)
            .unwrap_or(Setting { value: default, source: Source::Default })
    }

    /// `true` or `false`; `false` where nothing is written.
    pub(super) fn truth(&mut self, section: &mut Section, key: &'static str) -> Setting<bool> {
        let node = section.take(key);
        let written = self.scalar(&section.full(key), node, "true or false", |node| match node {
            Value::Bool(value) => Some(value.to_string()),
            Value::Null | Value::Integer(_) | Value::Text(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => None,
        });
        let parse = |text: &str| text.parse().map_err(|_| "must be true or false".to_owned());
        self.strongest(&section.full(key), written, parse).unwrap_or(Setting { value: false, source: Source::Default })
    }

    /// A list of texts. Whatever flags or the environment say takes the place of the file's whole list.
    pub(super) fn list(&mut self, section: &mut Section, key: &'static str) -> Vec<Setting<String>> {
        let name = section.full(key);
        let written = self.written_list(section, key);
        let said = self.overrides.iter().filter(|said| said.key == name);
        let said: Vec<_> = said.map(|said| Setting { value: said.text.clone(), source: said.source.clone() }).collect();
        if said.is_empty() { written } else { said }
    }

    fn written_list(&mut self, section: &mut Section, key: &'static str) -> Vec<Setting<String>> {
        let Some(node) = section.take(key) else { return Vec::new() };
        let name = section.full(key);
        let items = match node.value {
            Value::List(items) => items,
            other @ (Value::Null
            | Value::Bool(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::Map(_)) => {
                self.wrong_type(node.at, &name, "a list of texts", &other);
                return Vec::new();
            }
        };
        let mut texts = Vec::new();
        for item in items {
            match item.value {
                Value::Text(value) => texts.push(Setting { value, source: self.at(item.at) }),
                other @ (Value::Null
                | Value::Bool(_)
                | Value::Integer(_)
                | Value::Float(_)
                | Value::List(_)
                | Value::Map(_)) => {
                    self.wrong_type(item.at, &name, "a list of texts", &other);
                }
            }
        }
        texts
    }

    /// A path: what the file or a default says starts at the file's folder, what flags say at the working directory.
    pub(super) fn path(&self, setting: Setting<PathBuf>) -> Setting<PathBuf> {
        match setting.source {
            Source::File { .. } | Source::Default => Setting { value: self.base.join(setting.value), ..setting },
            Source::Env(_) | Source::Flag(_) => setting,
        }
    }

    /// Whatever was not taken is a problem.
    pub(super) fn finish(&mut self, section: Section, not_yet: &[(&str, &'static str)]) {
        let Section { path, entries, known } = section;
        for (key, _) in entries {
            let at = self.at(key.at);
            let key = format!("{path}{}", key.text);
            let why = not_yet.iter().find(|(name, _)| *name == key).map(|(_, why)| *why);
            self.problems.push(match why {
                Some(why) => Problem::NotYet { at, key, why },
                None => Problem::UnknownKey { at, key, known: known.clone() },
            });
        }
    }

    /// The keys of a mapping whose keys are names.
    pub(super) fn names(&mut self, section: &mut Section, key: &'static str) -> Vec<(Setting<String>, Node)> {
        let inner = self.subsection(section, key);
        inner
            .entries
            .into_iter()
            .map(|(name, node)| (Setting { source: self.at(name.at), value: name.text }, node))
            .collect()
    }

    fn scalar(
        &mut self,
        key: &str,
        node: Option<Node>,
        wanted: &'static str,
        read: impl Fn(&Value) -> Option<String>,
    ) -> Option<Setting<String>> {
        let node = node?;
        if let Some(value) = read(&node.value) {
            return Some(Setting { value, source: self.at(node.at) });
        }
        self.wrong_type(node.at, key, wanted, &node.value);
        None
    }

    fn strongest<T>(
        &mut self,
        key: &str,
        written: Option<Setting<String>>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Setting<T>> {
        // The order of `overrides` is that of their strength, and all are stronger than the file.
        let said = self.overrides.iter().filter(|said| said.key == key);
        let said = said.map(|said| Setting { value: said.text.clone(), source: said.source.clone() });
        let mut strongest = None;
        for Setting { value, source } in said.chain(written) {
            match parse(&value) {
                Ok(value) => strongest = strongest.or(Some(Setting { value, source })),
                Err(detail) => self.problems.push(Problem::BadValue { at: source, key: key.to_owned(), detail }),
            }
        }
        strongest
    }

    fn wrong_type(&mut self, at: Position, key: &str, wanted: &'static str, found: &Value) {
        let at = self.at(at);
        self.problems.push(Problem::WrongType { at, key: key.to_owned(), wanted, found: kind(found) });
    }

    fn at(&self, Position { line, column }: Position) -> Source {
        match &self.file {
            Some(file) => Source::File { file: Arc::clone(file), line, column },
            None => Source::Default,
        }
    }
}

impl Section {
    fn take(&mut self, key: &'static str) -> Option<Node> {
        self.known.push(key);
        let at = self.entries.iter().position(|(name, _)| name.text == key)?;
        Some(self.entries.remove(at).1)
    }

    pub(super) fn full(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }
}

/// What a value is, for a reader.
const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "a truth value (quote it to make it text)",
        Value::Integer(_) | Value::Float(_) => "a number (quote it to make it text)",
        Value::Text(_) => "text",
        Value::List(_) => "a list",
        Value::Map(_) => "a mapping",
    }
}
