//! Temporary folders of this test process, all below one that is removed when the process ends, whichever way it ends.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A new, empty folder whose name says what it is for.
pub(crate) fn new(name: &str) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let folder = root().join(format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir(&folder).expect("a folder of its own name below ours");
    folder
}

/// Writes a file and the folders that it needs.
pub(crate) fn write(path: &Path, text: impl AsRef<[u8]>) {
    let parent = path.parent().expect("a file stands in a folder");
    fs::create_dir_all(parent).unwrap_or_else(|e| panic!("{}: {e}", parent.display()));
    fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

fn root() -> &'static Path {
    static ROOT: OnceLock<(PathBuf, Child)> = OnceLock::new();
    let (root, _) = ROOT.get_or_init(|| {
        let root = tempfile::Builder::new().prefix("provost-test-").tempdir().expect("a temporary folder").keep();
        let sweeper = sweep_when_we_end(&root);
        (root, sweeper)
    });
    root
}

/// A shell that waits for the end of this process (the pipe closes) and then removes the folder. It stands in a process
/// group of its own, so that Ctrl-C ends the tests and not the sweeping. What we started dies with us, but not before
/// us: so it tries for a while.
fn sweep_when_we_end(root: &Path) -> Child {
    let script =
        r#"read -r never; for try in 1 2 3 4 5 6 7 8 9 10; do rm -rf "$1" 2>/dev/null && exit; sleep 0.3; done"#;
    Command::new("/bin/sh")
        .args(["-c", script, "sweeper"])
        .arg(root)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell")
}
