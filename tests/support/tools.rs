//! Where the real parts are. It must never build or fetch one: `scripts/test-tools` does, once a machine.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The executable of a tool of `tests/tools/versions`. Fails where it is not there: no test passes by skipping.
pub(crate) fn path(name: &'static str) -> PathBuf {
    static KNOWN: OnceLock<Mutex<HashMap<&'static str, PathBuf>>> = OnceLock::new();
    let mut known = KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    known.entry(name).or_insert_with(|| ask(name)).clone()
}

fn ask(name: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/test-tools");
    let answer = Command::new(&script).args(["--path", name]).output().expect("scripts/test-tools runs");
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let path = PathBuf::from(String::from_utf8_lossy(&answer.stdout).trim());
    assert!(path.is_file(), "{name} is not on this machine: run scripts/test-tools");
    path
}
