//! Policy files as they lie in a folder: found, read within bounds, turned into documents. It must never pass over a
//! file that it cannot read: what is in it is unknown, and that is said.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::decision::reference::Digest;
use crate::edge::sigstore::digest_of;

use super::compile::{self, Document};
use super::fault::{Fault, Faults, PolicyError, Position};
use super::keys::{self, KeyFiles};
use super::tree::{self, MAX_FILE, Tree};

/// Most policy files in a folder.
const MAX_FILES: usize = 1000;

/// The bytes of a folder at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    folder: PathBuf,
    files: Vec<(PathBuf, Result<String, Fault>)>,
    /// Why the folder as a whole could not be read.
    fault: Option<Fault>,
}

/// What a snapshot says.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) documents: Vec<(String, Document)>,
    /// Files (or the folder) of which it is unknown which policies they hold; each has its error in `problems` too.
    pub(super) unreadable: Vec<PolicyError>,
    pub(super) problems: Vec<PolicyError>,
    pub(super) warnings: Vec<PolicyError>,
    /// The key files that were read.
    pub(super) keys: BTreeMap<PathBuf, Option<String>>,
}

impl Snapshot {
    /// Every `*.yaml`, `*.yml` and `*.json` of a folder, not of the folders in it. Links are followed, as a mounted
    /// `ConfigMap` is nothing else; names that begin with a dot are left out, as its `..data` is.
    pub(super) fn of_folder(folder: &Path) -> Self {
        let fault = |fault| Self { folder: folder.to_owned(), files: Vec::new(), fault: Some(fault) };
        let mut names = Vec::new();
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => return fault(Fault::Unreadable(keys::reason(&error))),
        };
        for entry in entries {
            match entry {
                Ok(entry) if is_policy_file(Path::new(&entry.file_name())) => names.push(entry.file_name()),
                Ok(_) => {}
                Err(error) => return fault(Fault::Unreadable(keys::reason(&error))),
            }
            if names.len() > MAX_FILES {
                return fault(Fault::TooManyFiles { limit: MAX_FILES });
            }
        }
        names.sort();
        let files = names.into_iter().map(|name| folder.join(name)).map(|path| (path.clone(), text(&path))).collect();
        Self { folder: folder.to_owned(), files, fault: None }
    }

    /// One file by itself.
    pub(super) fn of_file(path: &Path) -> Self {
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            Some(_) | None => PathBuf::from("."),
        };
        Self { folder, files: vec![(path.to_owned(), text(path))], fault: None }
    }

    /// Leaves out the files that were seen before, by whatever path.
    pub(super) fn leave_out(&mut self, seen: &mut BTreeSet<PathBuf>) {
        self.files.retain(|(path, _)| seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())));
    }

    /// How many policy files there are.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// A hash over every file and over the key files that were read for it before.
    pub(super) fn fingerprint(&self, key_files: impl Iterator<Item = (PathBuf, Option<String>)>) -> Digest {
        let mut all = Vec::new();
        let mut add = |name: &str, contents: &str| {
            for part in [name, contents] {
                all.extend_from_slice(&part.len().to_be_bytes());
                all.extend_from_slice(digest_of(part.as_bytes()).as_bytes());
            }
        };
        if let Some(fault) = &self.fault {
            add("folder", &fault.to_string());
        }
        for (path, text) in &self.files {
            match text {
                Ok(text) => add(&format!("file {}", path.display()), text),
                Err(fault) => add(&format!("fault {}", path.display()), &fault.to_string()),
            }
        }
        for (path, text) in key_files {
            match text {
                Some(text) => add(&format!("key {}", path.display()), &text),
                None => add(&format!("no key {}", path.display()), ""),
            }
        }
        digest_of(&all)
    }

    /// The present text of key files that were read before.
    pub(super) fn keys_again<'a>(
        &'a self,
        key_files: impl Iterator<Item = &'a PathBuf> + 'a,
    ) -> impl Iterator<Item = (PathBuf, Option<String>)> + 'a {
        key_files.map(|path| (path.clone(), keys::again(&self.folder, path)))
    }

    /// Reads every document.
    pub(super) fn contents(&self) -> Contents {
        let mut keys = KeyFiles::under(&self.folder);
        let mut out = Contents::default();
        if let Some(fault) = &self.fault {
            out.is_unreadable(PolicyError::of_file(self.folder.display().to_string(), fault.clone()));
        }
        for (path, text) in &self.files {
            let file = path.display().to_string();
            match text {
                Err(fault) => out.is_unreadable(PolicyError::of_file(file, fault.clone())),
                Ok(text) => {
                    let parsed = parse(&file, text, &mut keys);
                    if !parsed.readable {
                        out.unreadable.extend(parsed.errors.first().cloned());
                    }
                    out.documents.extend(parsed.documents.into_iter().map(|document| (file.clone(), document)));
                    out.problems.extend(parsed.errors);
                    out.warnings.extend(parsed.warnings);
                }
            }
        }
        out.keys = keys.into_read();
        out
    }
}

impl Contents {
    /// Adds what another place holds.
    pub(super) fn add(&mut self, other: Self) {
        let Self { documents, unreadable, problems, warnings, keys } = other;
        self.documents.extend(documents);
        self.unreadable.extend(unreadable);
        self.problems.extend(problems);
        self.warnings.extend(warnings);
        self.keys.extend(keys);
    }

    fn is_unreadable(&mut self, error: PolicyError) {
        self.unreadable.push(error.clone());
        self.problems.push(error);
    }
}

/// One text, read.
pub(super) struct ParsedText {
    pub(super) documents: Vec<Document>,
    /// Whether every document of the text is among `documents`.
    pub(super) readable: bool,
    pub(super) errors: Vec<PolicyError>,
    pub(super) warnings: Vec<PolicyError>,
}

/// Reads every document of a text.
pub(super) fn parse(file: &str, text: &str, keys: &mut KeyFiles) -> ParsedText {
    let faults = Faults::of(file);
    let mut documents = Vec::new();
    let mut readable = true;
    for tree in tree::documents(text) {
        let before = faults.count();
        match tree {
            Ok(Tree { root, faults: of_shape }) => {
                for (at, fault) in of_shape {
                    faults.error(at, fault);
                }
                documents.push(compile::document(&root, keys, &faults, before));
            }
            Err((at, fault)) => {
                faults.error(at, fault);
                readable = false;
            }
        }
    }
    // An editor that empties a file before it writes it must not remove a policy for that moment.
    if documents.is_empty() && readable {
        faults.error(Position::default(), Fault::NoDocument);
        readable = false;
    }
    let (errors, warnings) = faults.finish();
    ParsedText { documents, readable, errors, warnings }
}

fn is_policy_file(name: &Path) -> bool {
    let hidden = name.to_str().is_some_and(|name| name.starts_with('.'));
    let extension = name.extension().and_then(|extension| extension.to_str());
    !hidden && matches!(extension, Some("yaml" | "yml" | "json"))
}

fn text(path: &Path) -> Result<String, Fault> {
    let unreadable = |error: std::io::Error| Fault::Unreadable(keys::reason(&error));
    // Asked before it is opened: to open a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(Fault::NotAFile);
    }
    let mut text = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut text)).map_err(unreadable)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX_FILE {
        return Err(Fault::TooLarge { limit: MAX_FILE });
    }
    String::from_utf8(text).map_err(|_| Fault::NotUtf8)
}
