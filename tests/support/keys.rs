//! Signing keys, made at test time by cosign and openssl.

use std::fs;
use std::path::PathBuf;

use super::process::Program;
use super::{folder, tools};

/// A key pair in cosign's form: `path.key`, with an empty password, and `path.pub`.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    path: PathBuf,
}

impl Key {
    /// A key as cosign makes them: P-256.
    pub(crate) fn generated(name: &str) -> Self {
        let path = folder::new("key").join(name);
        cosign().arg("generate-key-pair").arg("--output-key-prefix").arg(&path).must();
        Self { path }
    }

    /// A key that openssl makes, with the arguments of `openssl genpkey`, brought into cosign's form.
    pub(crate) fn imported(name: &str, genpkey: &[&str]) -> Self {
        let path = folder::new("key").join(name);
        let pem = path.with_extension("pem");
        Program::new("openssl").arg("genpkey").args(genpkey).arg("-out").arg(&pem).must();
        cosign().args(["import-key-pair", "--key"]).arg(&pem).arg("--output-key-prefix").arg(&path).must();
        Self { path }
    }

    pub(crate) fn private(&self) -> PathBuf {
        self.path.with_extension("key")
    }

    pub(crate) fn public(&self) -> PathBuf {
        self.path.with_extension("pub")
    }

    /// The public key as PEM.
    pub(crate) fn pem(&self) -> String {
        fs::read_to_string(self.public()).expect("cosign wrote it")
    }
}

/// `cosign`, with the empty password of our keys.
pub(crate) fn cosign() -> Program {
    Program::new(tools::path("cosign")).env("COSIGN_PASSWORD", "")
}
