//! Real registries on loopback: two without the referrers API, one with it, and one that wants TLS and a password.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::process::{Program, Server};
use super::{folder, net, tools};

/// A registry that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Registry {
    /// Host and port, as they stand in image names.
    pub(crate) host: String,
    /// The certificate authority that vouches for it, where it speaks TLS.
    pub(crate) ca: Option<PathBuf>,
    /// A docker configuration folder whose credential it accepts, where it wants one.
    pub(crate) login: Option<PathBuf>,
    server: Server,
}

/// Who may use the registry that wants a password.
pub(crate) const USER: &str = "builder";
pub(crate) const PASSWORD: &str = "correct horse";
/// `bcrypt` of that password.
const HTPASSWD: &str = "builder:$2b$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2\n";

impl Registry {
    /// `crane registry serve`: no referrers API, answers 404 in JSON.
    pub(crate) fn crane() -> Self {
        let server =
            Program::new(tools::path("crane")).args(["registry", "serve", "--address", "127.0.0.1:0"]).serve("crane");
        let port: u16 = server.stderr_line(|line| line.split_once("serving on port ")?.1.trim().parse().ok());
        Self::plain(format!("127.0.0.1:{port}"), server)
    }

    /// The same library with the referrers API.
    pub(crate) fn with_referrers() -> Self {
        let server = Program::new(tools::path("referrers-registry"))
            .args(["-addr", "127.0.0.1", "-port", "0"])
            .serve("referrers");
        let host = server.stdout_line(|line| line.starts_with("127.0.0.1:").then(|| line.to_owned()));
        Self::plain(host, server)
    }

    /// distribution, the registry that people run: no referrers API, answers 404 in plain text.
    pub(crate) fn distribution() -> Self {
        let (host, server) = distribution("");
        Self::plain(host, server)
    }

    /// distribution, with a password.
    pub(crate) fn with_password() -> Self {
        let htpasswd = folder::new("htpasswd").join("users");
        folder::write(&htpasswd, HTPASSWD);
        let (host, server) =
            distribution(&format!("auth: {{htpasswd: {{realm: tests, path: {}}}}}\n", htpasswd.display()));
        let login = Some(docker_config(&host, USER, PASSWORD));
        Self { login, ..Self::plain(host, server) }
    }

    /// distribution, over TLS, with a certificate of an authority that nobody else knows.
    pub(crate) fn with_tls() -> Self {
        let (ca, cert, key) = certificate();
        let tls = format!(", tls: {{certificate: {}, key: {}}}", cert.display(), key.display());
        let (host, server) = distribution_with("", &tls);
        Self { ca: Some(ca), ..Self::plain(host, server) }
    }

    /// Ends it: connections are refused from now on.
    pub(crate) fn stop(&self) {
        self.server.kill();
    }

    /// `crane` or `cosign` with what this registry asks of its callers.
    pub(crate) fn client(&self, program: Program) -> Program {
        let program = match &self.ca {
            Some(ca) => program.env("SSL_CERT_FILE", ca),
            None => program,
        };
        match &self.login {
            Some(folder) => program.env("DOCKER_CONFIG", folder),
            None => program,
        }
    }

    fn plain(host: String, server: Server) -> Self {
        Self { host, ca: None, login: None, server }
    }
}

/// A folder with a docker `config.json` that holds one credential.
pub(crate) fn docker_config(host: &str, user: &str, password: &str) -> PathBuf {
    let folder = folder::new("docker-config");
    let auth = STANDARD.encode(format!("{user}:{password}"));
    folder::write(&folder.join("config.json"), format!(r#"{{"auths": {{"{host}": {{"auth": "{auth}"}}}}}}"#));
    folder
}

fn distribution(more: &str) -> (String, Server) {
    distribution_with(more, "")
}

fn distribution_with(more: &str, http: &str) -> (String, Server) {
    let folder = folder::new("distribution");
    let config = folder.join("config.yml");
    // The port is chosen here: what the log says differs with TLS.
    let port = net::free_port();
    let text = format!(
        "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\n\
         storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"{http}}}\n{more}",
        folder.join("data").display()
    );
    folder::write(&config, text);
    let server = Program::new(tools::path("distribution"))
        .arg("serve")
        .arg(&config)
        .env("OTEL_TRACES_EXPORTER", "none")
        .serve("distribution");
    server.stderr_line(|line| line.contains("listening on 127.0.0.1:").then_some(()));
    (format!("127.0.0.1:{port}"), server)
}

/// An authority and a certificate for 127.0.0.1: where the authority's certificate, the certificate and its key are.
fn certificate() -> (PathBuf, PathBuf, PathBuf) {
    let folder = folder::new("registry-tls");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca = CertifiedIssuer::self_signed(params, key_pair()).expect("an authority");
    let key = key_pair();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
    let leaf = params.signed_by(&key, &ca).expect("a certificate");
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        folder::write(&path, text);
        path
    };
    (write("ca.pem", ca.pem()), write("tls.crt", leaf.pem()), write("tls.key", key.serialize_pem()))
}

fn key_pair() -> KeyPair {
    KeyPair::generate().expect("a key")
}

/// The entry of a registry in `provost.yaml`.
pub(crate) fn settings(registry: &Registry, credentials: Option<&Path>) -> String {
    let transport = match &registry.ca {
        Some(ca) => format!("ca: {}", ca.display()),
        None => "plainHttp: true".to_owned(),
    };
    let credentials = credentials.map(|folder| format!(", credentialsFile: {}", folder.join("config.json").display()));
    format!("  {}: {{addresses: [127.0.0.0/8], {transport}{}}}\n", registry.host, credentials.unwrap_or_default())
}
