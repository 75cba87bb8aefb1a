//! The binary under test, with a folder that holds all that is its own: settings, policies, certificates, ledger.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use serde_json::Value;

use super::process::{Program, Server};
use super::{folder, net, wait};

/// The file with the tokens of callers, in a Provost's folder.
const TOKENS: &str = "caller-token";

/// What one Provost is started with.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Where it takes reviews.
    pub(crate) listen: SocketAddr,
    /// The Service that leads to it: its certificate names that one.
    pub(crate) service: String,
    /// The entries of `registries` in `provost.yaml`, each a line.
    pub(crate) registries: String,
    /// Policy files: name and text.
    pub(crate) policies: Vec<(String, String)>,
    /// `drain`.
    pub(crate) drain: &'static str,
    /// What the file with the tokens of callers holds; without it the first start makes one.
    pub(crate) tokens: Option<String>,
}

impl Setup {
    /// On a port of 127.0.0.1, with nothing but a listener.
    pub(crate) fn on_loopback() -> Self {
        Self::on(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, net::free_port())), "provost")
    }

    /// On port 443 of an address that a Service in the namespace `provost` can be given.
    pub(crate) fn behind_service(name: &str) -> Self {
        Self::on(SocketAddr::V4(SocketAddrV4::new(net::service_address(), 443)), name)
    }

    fn on(listen: SocketAddr, service: &str) -> Self {
        Self {
            listen,
            service: format!("{service}.provost.svc"),
            registries: String::new(),
            policies: Vec::new(),
            drain: "0s",
            tokens: None,
        }
    }

    pub(crate) fn registries(mut self, entries: impl Into<String>) -> Self {
        self.registries = entries.into();
        self
    }

    pub(crate) fn policy(mut self, file: &str, text: impl Into<String>) -> Self {
        self.policies.push((file.to_owned(), text.into()));
        self
    }

    pub(crate) fn drain(mut self, drain: &'static str) -> Self {
        self.drain = drain;
        self
    }

    pub(crate) fn tokens(mut self, content: impl Into<String>) -> Self {
        self.tokens = Some(content.into());
        self
    }

    /// Writes everything down, starts it, waits until it is ready.
    pub(crate) fn start(self) -> Provost {
        let folder = folder::new("provost");
        let health = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, net::free_port()));
        let certificates = Mounted::new(&folder.join("tls"), &self.service);
        for (file, text) in &self.policies {
            folder::write(&folder.join("policies").join(file), text);
        }
        if let Some(content) = &self.tokens {
            folder::write(&folder.join(TOKENS), content);
        }
        // Without a policy there must be a folder all the same.
        fs::create_dir_all(folder.join("policies")).expect("a folder of our own");
        let settings = [
            "cluster: tests".to_owned(),
            format!("listen: \"{}\"", self.listen),
            format!("healthListen: \"{health}\""),
            "tls: {cert: tls/tls.crt, key: tls/tls.key}".to_owned(),
            format!("drain: {}", self.drain),
            "policies: policies".to_owned(),
            "ledger: {store: ledger.db}".to_owned(),
            format!("callerToken: {TOKENS}"),
            settings_of(&self.registries),
        ];
        folder::write(&folder.join("provost.yaml"), settings.join("\n"));
        let server = program().args(["serve", "--config"]).arg(folder.join("provost.yaml")).serve("provost");
        let provost = Provost { folder, listen: self.listen, health, certificates, server };
        provost.server.until("is ready", Duration::from_secs(30), || provost.is_ready().then_some(()));
        provost
    }
}

/// The `registries` section of `provost.yaml`; nothing where there are none.
pub(crate) fn settings_of(registries: &str) -> String {
    if registries.is_empty() { String::new() } else { format!("registries:\n{registries}") }
}

/// `provost`, as it was built with the tests.
pub(crate) fn program() -> Program {
    Program::new(env!("CARGO_BIN_EXE_provost")).env("NO_COLOR", "1")
}

/// A running Provost. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Provost {
    pub(crate) folder: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) health: SocketAddr,
    pub(crate) certificates: Mounted,
    pub(crate) server: Server,
}

impl Provost {
    /// Whether `/readyz` says so.
    pub(crate) fn is_ready(&self) -> bool {
        net::get(self.health, "/readyz").is_some_and(|(status, _)| status == 200)
    }

    /// The value of a metric, summed over those of its series whose line holds all of `labels`.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (_, text) = net::get(self.health, "/metrics").expect("metrics");
        let of_it = |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        };
        text.lines().filter(of_it).filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// Writes a policy file the way an editor does: at once.
    pub(crate) fn write_policy(&self, file: &str, text: &str) {
        let path = self.folder.join("policies").join(file);
        let beside = self.folder.join("policies.new");
        folder::write(&beside, text);
        fs::rename(beside, path).expect("one file system");
    }

    /// The path by which a caller makes itself known: the first token of its file stands in it.
    pub(crate) fn path(&self) -> String {
        let tokens = fs::read_to_string(self.folder.join(TOKENS)).expect("given, or made at the first start");
        format!("/validate/{}", tokens.lines().next().expect("at least one token"))
    }

    /// Changes the tokens of callers the way an editor does: at once.
    pub(crate) fn write_tokens(&self, content: &str) {
        let beside = self.folder.join("tokens.new");
        folder::write(&beside, content);
        fs::rename(beside, self.folder.join(TOKENS)).expect("one file system");
    }

    /// Every record that `provost audit query` finds, oldest first.
    pub(crate) fn records(&self, filter: &[&str]) -> Vec<Value> {
        records(&self.folder.join("ledger.db"), filter)
    }

    /// The record of that name; waits for it, since admissions are written down after they are answered.
    pub(crate) fn record(&self, name: &str) -> Value {
        let call = || {
            let done = audit("show", &self.folder.join("ledger.db")).args([name, "-o", "json"]).run();
            (done.code == 0)
                .then(|| serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", done.stdout)))
        };
        wait::until(&format!("record {name} in the ledger"), Duration::from_secs(10), call)
    }

    /// Whether the ledger's chain holds and has these records, and what is said about it.
    pub(crate) fn verify_ledger(&self, names: &[String]) -> (bool, String) {
        let done = audit("verify", &self.folder.join("ledger.db")).args(names).run();
        (done.code == 0, done.stdout + &done.stderr)
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn end(&self) -> ExitStatus {
        self.server.ask_to_end();
        self.server.ended(Duration::from_secs(30))
    }
}

/// The records of a ledger, oldest first.
pub(crate) fn records(ledger: &Path, filter: &[&str]) -> Vec<Value> {
    let text = audit("query", ledger).args(["-o", "json", "--limit", "1000000"]).args(filter).must();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn audit(what: &str, ledger: &Path) -> Program {
    program().args(["audit", what, "--ledger"]).arg(ledger)
}

/// A certificate in a folder as a kubelet mounts a Secret: `tls.crt` is a link into `..data`, and that is a link to the
/// folder that holds the files. A change renames a new `..data` over the old one.
#[derive(Debug)]
pub(crate) struct Mounted {
    folder: PathBuf,
    /// The DNS name in every certificate.
    pub(crate) name: String,
}

impl Mounted {
    fn new(folder: &Path, name: &str) -> Self {
        let mounted = Self { folder: folder.to_owned(), name: name.to_owned() };
        mounted.make("..first");
        mounted.swap_to("..first");
        for file in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(file), folder.join(file)).expect("a link in a folder of our own");
        }
        mounted
    }

    /// Makes a new authority, certificate and key, without using them.
    pub(crate) fn make(&self, folder: &str) {
        program().args(["certs", "--name", &self.name, "--dir"]).arg(self.folder.join(folder)).must();
    }

    /// Swaps the mounted certificate for one that was made before.
    pub(crate) fn swap_to(&self, name: &str) {
        let beside = self.folder.join("..data_tmp");
        symlink(name, &beside).expect("a link in a folder of our own");
        fs::rename(beside, self.folder.join("..data")).expect("one file system");
    }

    /// A file of one that was made: `ca.crt`, `tls.crt`, `tls.key`.
    pub(crate) fn file(&self, name: &str, file: &str) -> PathBuf {
        self.folder.join(name).join(file)
    }

    /// The authority of the certificate that was made first, as PEM.
    pub(crate) fn ca(&self) -> String {
        fs::read_to_string(self.file("..first", "ca.crt")).expect("provost certs wrote it")
    }
}
