//! What can be wrong with settings, and where a setting comes from. It must never show the content of a file that holds
//! a secret.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody said anything.
    Default,
    /// `provost.yaml`. Lines and columns count from 1, columns in characters.
    File {
        /// The file.
        file: Arc<Path>,
        /// The line of the value, or of the key where the key is wrong.
        line: u64,
        /// The column of the same.
        column: u64,
    },
    /// An environment variable.
    Env(&'static str),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line, column } => write!(f, "{}:{line}:{column}", file.display()),
            Self::Env(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// One thing that is wrong with the settings. Its text begins with the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file itself cannot be read.
    #[error("{}: {detail}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        detail: String,
    },
    /// The file is not one YAML document; a key that stands twice is counted here.
    #[error("{at}: {detail}")]
    Syntax {
        /// Where.
        at: Source,
        /// What the parser says.
        detail: String,
    },
    /// A key that does not exist.
    #[error("{at}: unknown key `{key}`; here are known: {}", known.join(", "))]
    UnknownKey {
        /// Where the key stands.
        at: Source,
        /// The key with the keys that lead to it.
        key: String,
        /// The keys that may stand there.
        known: Vec<&'static str>,
    },
    /// A key that a later version knows. It is refused, since reading and ignoring it would be a promise not kept.
    #[error("{at}: `{key}` is not supported by this version: {why}; remove it")]
    NotYet {
        /// Where the key stands.
        at: Source,
        /// The key with the keys that lead to it.
        key: String,
        /// What is missing.
        why: &'static str,
    },
    /// Text where a number should be, and the like.
    #[error("{at}: `{key}` must be {wanted}, and is {found}")]
    WrongType {
        /// Where the value stands.
        at: Source,
        /// The key.
        key: String,
        /// What it should be.
        wanted: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// A value that means nothing, or is out of bounds.
    #[error("{at}: `{key}`: {detail}")]
    BadValue {
        /// Where the value stands.
        at: Source,
        /// The key.
        key: String,
        /// What is wrong, and what would be right.
        detail: String,
    },
    /// A file that a setting names cannot be used.
    #[error("{at}: `{key}`: {}: {detail}", file.display())]
    NamedFile {
        /// Where the setting stands.
        at: Source,
        /// The key.
        key: String,
        /// The file.
        file: PathBuf,
        /// What is wrong with it; never its content.
        detail: String,
    },
}

/// Everything that is wrong with the settings, in the order of reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("the settings cannot be used")?,
            count => write!(f, "the settings cannot be used, for {count} reasons")?,
        }
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Problems {}
