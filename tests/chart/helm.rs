//! The real `helm`, each call bounded in time and without the user's own settings. It must never reach a cluster.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

/// Far more than any call here takes.
const LIMIT: &str = "60";

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What a call said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) good: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs helm with these arguments.
pub(crate) fn helm(arguments: &[&str]) -> Said {
    let home = tempfile::tempdir().expect("a temporary folder");
    let mut command = bounded(binary());
    command.args(arguments).current_dir(root()).env_clear().env("HOME", home.path()).env("KUBECONFIG", "/dev/null");
    said(command.output().expect("`timeout` (coreutils) is installed"))
}

/// Renders the chart with values files of this folder and settings (`key=value`), as a release in a namespace.
pub(crate) fn template(release: &str, namespace: &str, values: &[&str], settings: &[&str]) -> Said {
    let arguments = with_values(&["template", release, "charts/provost", "--namespace", namespace], values, settings);
    helm(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The objects that [`template`] renders; fails where it refuses.
pub(crate) fn objects(release: &str, namespace: &str, values: &[&str], settings: &[&str]) -> Vec<Value> {
    let said = template(release, namespace, values, settings);
    assert!(said.good, "{}", said.stderr);
    let documents: Vec<Value> = serde_saphyr::from_multiple(&said.stdout).expect("YAML");
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

pub(crate) fn with_values(command: &[&str], values: &[&str], settings: &[&str]) -> Vec<String> {
    let mut arguments: Vec<String> = command.iter().map(ToString::to_string).collect();
    arguments.extend(values.iter().flat_map(|file| ["--values".to_owned(), format!("tests/chart/{file}")]));
    arguments.extend(settings.iter().flat_map(|setting| ["--set".to_owned(), setting.to_string()]));
    arguments
}

/// Where `scripts/test-tools` keeps helm.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let mut command = bounded(&root().join("scripts/test-tools"));
        let said = said(command.args(["--path", "helm"]).output().expect("`timeout` (coreutils) is installed"));
        assert!(said.good, "{}", said.stderr);
        let path = PathBuf::from(said.stdout.trim());
        assert!(path.is_file(), "{} is missing: run scripts/test-tools, which builds it", path.display());
        path
    })
}

fn bounded(program: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", LIMIT]).arg(program);
    command
}

fn said(output: Output) -> Said {
    Said {
        good: output.status.success(),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}
