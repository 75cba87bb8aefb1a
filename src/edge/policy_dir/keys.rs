//! The key files that policies name: read under the policy's own folder, bounded. It must never follow a name, or a
//! link, out of that folder.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use super::fault::{Fault, shown};

/// Largest key file, in bytes.
const MAX_KEY_FILE: u64 = 64 * 1024;

/// Reads key files and remembers what it read, so that a change of any of them can be noticed.
#[derive(Debug, Default)]
pub(super) struct KeyFiles {
    /// `None`: key files cannot be named here.
    folder: Option<PathBuf>,
    read: BTreeMap<PathBuf, Option<String>>,
}

impl KeyFiles {
    /// Key files under the folder that holds the policy files.
    pub(super) fn under(folder: &Path) -> Self {
        Self { folder: Some(folder.to_owned()), read: BTreeMap::new() }
    }

    /// For policies that do not come from a folder: every key stands in its policy.
    pub(super) fn none() -> Self {
        Self::default()
    }

    /// What was read so far: the path, and the contents where it could be read.
    pub(super) fn into_read(self) -> BTreeMap<PathBuf, Option<String>> {
        self.read
    }

    /// The text of a key file.
    pub(super) fn text(&mut self, name: &str) -> Result<String, Fault> {
        let outside = || Fault::KeyOutside { file: shown(name) };
        let Some(folder) = &self.folder else { return Err(outside()) };
        let relative = Path::new(name);
        if name.is_empty()
            || !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        {
            return Err(outside());
        }
        let path = folder.join(relative);
        let text = within(folder, &path, name);
        self.read.insert(path, text.as_ref().ok().cloned());
        text
    }
}

/// The text of a key file that was read before, by the path that [`KeyFiles::into_read`] gives.
pub(super) fn again(folder: &Path, path: &Path) -> Option<String> {
    within(folder, path, "").ok()
}

fn within(folder: &Path, path: &Path, name: &str) -> Result<String, Fault> {
    let unreadable = |error: std::io::Error| Fault::KeyUnreadable { file: shown(name), why: reason(&error) };
    let folder = folder.canonicalize().map_err(unreadable)?;
    // Where the links end: a mounted ConfigMap is links within the folder, and those are followed.
    let path = path.canonicalize().map_err(unreadable)?;
    if !path.starts_with(&folder) {
        return Err(Fault::KeyOutside { file: shown(name) });
    }
    let why = |why: &str| Fault::KeyUnreadable { file: shown(name), why: why.to_owned() };
    // Asked before it is opened: to open a pipe would wait for its other end.
    if !path.metadata().map_err(unreadable)?.is_file() {
        return Err(why("it is not a regular file"));
    }
    let mut text = Vec::new();
    std::fs::File::open(&path)
        .and_then(|file| file.take(MAX_KEY_FILE + 1).read_to_end(&mut text))
        .map_err(unreadable)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX_KEY_FILE {
        return Err(why("it is larger than 64 KiB"));
    }
    String::from_utf8(text).map_err(|_| why("it is not text: a key file is PEM"))
}

/// An I/O error without the number that only a programmer reads.
pub(super) fn reason(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    if error.kind() == ErrorKind::NotFound {
        "it is not there".to_owned()
    } else if error.kind() == ErrorKind::PermissionDenied {
        "permission denied".to_owned()
    } else {
        error.to_string()
    }
}
