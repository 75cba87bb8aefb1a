//! Manifest files found and read, within bounds. It must never pass over a file that it cannot read: what is in it is
//! unknown, and that is said.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Position, Problem};

/// Largest file, in bytes.
const MAX_FILE: u64 = 16 << 20;
/// Most bytes of all files together.
const MAX_BYTES: usize = 256 << 20;
/// Most files.
const MAX_FILES: usize = 10_000;
/// Deepest folder below the one that is named.
const MAX_FOLDERS: usize = 32;

/// Where manifests come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// `-`
    Stdin,
    /// A file, whatever its name, or a folder with all that is below it.
    Path(PathBuf),
}

impl From<&str> for Input {
    fn from(text: &str) -> Self {
        if text == "-" { Self::Stdin } else { Self::Path(PathBuf::from(text)) }
    }
}

/// The text of one manifest file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The path as it was named or found; `stdin`.
    pub name: String,
    /// Where it lies; `None` for stdin.
    pub path: Option<PathBuf>,
    /// Its bytes, which are UTF-8.
    pub text: String,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Manifests {
    /// In the order of naming, those of a folder by name.
    pub files: Vec<Manifest>,
    /// What could not be read.
    pub problems: Vec<Problem>,
}

/// Reads everything that is named. Of folders: every `*.yaml`, `*.yml` and `*.json`, in folders below them too, but
/// nothing whose name begins with a dot. Links are followed. A file that is reached twice is read once.
#[must_use]
pub fn read(inputs: &[Input]) -> Manifests {
    let mut reading = Reading::default();
    for input in inputs {
        match input {
            Input::Stdin => reading.stdin(io::stdin().lock()),
            Input::Path(path) if path.is_dir() => reading.folder(path, 0),
            Input::Path(path) => reading.file(path),
        }
    }
    reading.found
}

#[derive(Debug, Default)]
struct Reading {
    found: Manifests,
    bytes: usize,
    seen: BTreeSet<PathBuf>,
    full: bool,
}

impl Reading {
    fn stdin(&mut self, from: impl Read) {
        let name = "stdin".to_owned();
        match text(from) {
            Ok(text) => self.keep(Manifest { name, path: None, text }),
            Err(what) => self.found.problems.push(Problem { file: name, at: Position::default(), what }),
        }
    }

    fn folder(&mut self, folder: &Path, depth: usize) {
        if self.full || !self.is_new(folder) {
            return;
        }
        if depth > MAX_FOLDERS {
            self.problem(folder, format!("folders are looked into {MAX_FOLDERS} levels deep"));
            return;
        }
        let entries = fs::read_dir(folder).and_then(|entries| {
            let mut paths: Vec<PathBuf> =
                entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
            paths.sort();
            Ok(paths)
        });
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.problem(folder, error.to_string()),
        };
        for path in entries {
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if hidden {
                continue;
            }
            if path.is_dir() {
                self.folder(&path, depth + 1);
            } else if is_manifest(&path) {
                match fs::metadata(&path) {
                    Ok(about) if !about.is_file() => self.problem(&path, "is no file".to_owned()),
                    Ok(_) => self.file(&path),
                    Err(error) => self.problem(&path, error.to_string()),
                }
            }
        }
    }

    /// A file that is named may be a pipe, as a shell makes it for `<(helm template …)`.
    fn file(&mut self, path: &Path) {
        if self.full || !self.is_new(path) {
            return;
        }
        if self.found.files.len() >= MAX_FILES {
            self.full = true;
            return self.problem(path, format!("more than {MAX_FILES} files: name fewer"));
        }
        match File::open(path).map_err(|error| error.to_string()).and_then(text) {
            Ok(text) => {
                self.keep(Manifest { name: path.display().to_string(), path: Some(path.to_owned()), text });
            }
            Err(what) => self.problem(path, what),
        }
    }

    fn keep(&mut self, manifest: Manifest) {
        self.bytes = self.bytes.saturating_add(manifest.text.len());
        if self.bytes > MAX_BYTES {
            self.full = true;
            let what = format!("all files together are over {} MiB: name fewer", MAX_BYTES >> 20);
            self.found.problems.push(Problem { file: manifest.name, at: Position::default(), what });
        } else {
            self.found.files.push(manifest);
        }
    }

    fn is_new(&mut self, path: &Path) -> bool {
        self.seen.insert(path.canonicalize().unwrap_or_else(|_| path.to_owned()))
    }

    fn problem(&mut self, path: &Path, what: String) {
        self.found.problems.push(Problem { file: path.display().to_string(), at: Position::default(), what });
    }
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ["yaml", "yml", "json"].iter().any(|known| ending == *known))
}

fn text(from: impl Read) -> Result<String, String> {
    let mut bytes = Vec::new();
    from.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("larger than {} MiB", MAX_FILE >> 20));
    }
    String::from_utf8(bytes).map_err(|error| format!("byte {} is not UTF-8", error.utf8_error().valid_up_to()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(found: &Manifests, below: &Path) -> Vec<String> {
        let short = |file: &Manifest| file.name.strip_prefix(&format!("{}/", below.display())).map(str::to_owned);
        found.files.iter().filter_map(short).collect()
    }

    #[test]
    fn folders_are_read_in_order_and_hidden_files_are_not() {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("b/.git")).expect("folders");
        for name in ["z.yaml", "a.yml", "b/c.json", "b/d.txt", ".hidden.yaml", "b/.git/e.yaml"] {
            fs::write(at(name), "{}").expect("file");
        }
        std::os::unix::fs::symlink(folder.path(), at("b/loop")).expect("link");
        std::os::unix::fs::symlink(at("z.yaml"), at("b/again.yaml")).expect("link");
        let found = read(&[Input::Path(folder.path().to_owned())]);
        assert_eq!(found.problems, []);
        assert_eq!(names(&found, folder.path()), ["a.yml", "b/again.yaml", "b/c.json"]);
        let named = read(&[Input::Path(at("b/d.txt")), Input::Path(at(".hidden.yaml"))]);
        assert_eq!(names(&named, folder.path()), ["b/d.txt", ".hidden.yaml"]);
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("latin.yaml"), b"a: \xe4\n").expect("file");
        fs::create_dir(at("folder.yaml")).expect("folder");
        std::os::unix::fs::symlink(at("nowhere"), at("dangling.yaml")).expect("link");
        File::create(at("large.yaml")).and_then(|file| file.set_len(MAX_FILE + 1)).expect("file");
        let found = read(&[Input::Path(folder.path().to_owned()), Input::Path(at("missing.yaml"))]);
        assert!(found.files.is_empty());
        let told: Vec<String> = found.problems.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 4, "{told:?}");
        for (told, want) in told.iter().zip([
            "dangling.yaml: No such file",
            "large.yaml: larger than 16 MiB",
            "latin.yaml: byte 3 is not UTF-8",
            "missing.yaml: No such file",
        ]) {
            assert!(told.contains(want), "{told}");
        }
    }
}
