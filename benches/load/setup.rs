//! What a run needs: a certificate, a registry with a signed and an unsigned image, a policy, settings; and the servers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use provost::edge::samples::{SampleKey, Samples};
use provost::edge::tls::ca;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use crate::common;

/// How long a server may take to start.
const START: Duration = Duration::from_secs(15);

/// Everything but the servers. The registry is served by this process and asked once per server: its answers are cached.
pub(crate) struct Setup {
    folder: TempDir,
    pub(crate) roots: Arc<rustls::RootCertStore>,
    /// A review that must be admitted.
    pub(crate) admitted: Vec<u8>,
    /// A review of which each image must be refused.
    pub(crate) denied: Vec<u8>,
}

impl Setup {
    /// Must be called within a Tokio runtime, which then serves the registry.
    pub(crate) async fn new() -> anyhow::Result<Self> {
        // Below target/, so that the ledger is on the disk that the project is on, and not in a temporary file system.
        let folder = tempfile::Builder::new().prefix("load-").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let registry = TcpListener::bind("127.0.0.1:0").await?;
        let host = registry.local_addr()?;

        let key = SampleKey::generate()?;
        let mut samples = Samples::default();
        let signed = samples.image("release/api", "1", "signed");
        samples.sign_with_bundle("release/api", signed, &key)?;
        let unsigned = samples.image("release/worker", "1", "unsigned");
        tokio::spawn(async move { axum::serve(registry, samples.into_router()).await });

        let made = ca::make(&[], 2)?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(made.ca_pem.as_bytes())?)?;

        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).with_context(|| name.to_owned());
        write("tls.crt", &made.cert_pem)?;
        write("tls.key", &made.key_pem)?;
        write("registry", &host.to_string())?;
        std::fs::create_dir(folder.path().join("policies"))?;
        write("policies/payments.yaml", &common::policy(&host.to_string(), &key.public_pem()))?;

        let foreign = format!("registry.example.net/team/tool@sha256:{}", "c3".repeat(32));
        Ok(Self {
            admitted: common::pod(&[&format!("{host}/release/api@{signed}")]),
            denied: common::pod(&[
                &format!("{host}/release/api:1"),
                &foreign,
                &format!("{host}/release/worker@{unsigned}"),
            ]),
            roots: Arc::new(roots),
            folder,
        })
    }
}

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// axum and rustls, and nothing behind them.
    Echo,
    /// The gate without a ledger.
    Off,
    /// The gate with its ledger in memory.
    Memory,
    /// `provost serve`, as it is.
    Disk,
}

impl Target {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Off => "provost, ledger off",
            Self::Memory => "provost, ledger in memory",
            Self::Disk => "provost serve, ledger on disk",
        }
    }
}

/// A running server process on core 0.
pub(crate) struct Server {
    process: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts it, and returns once it takes connections.
    pub(crate) async fn start(setup: &Setup, target: Target) -> anyhow::Result<Self> {
        let folder = setup.folder.path();
        let address = free_address().await?;
        std::fs::write(folder.join("listen"), address.to_string())?;
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", "0"]);
        let own = std::env::current_exe()?;
        match target {
            Target::Echo => command.arg(own).arg("echo").arg(folder),
            Target::Off => command.arg(own).arg("gate").arg(folder).arg("off"),
            Target::Memory => command.arg(own).arg("gate").arg(folder).arg("memory"),
            Target::Disk => {
                command.arg(env!("CARGO_BIN_EXE_provost")).arg("serve").arg("--config").arg(settings(folder, address)?)
            }
        };
        let log = folder.join("log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&log)?);
        let process = command.spawn().context("taskset (util-linux) is needed")?;
        let mut server = Self { process, address };
        server.wait().await.with_context(|| {
            format!("{} did not start: {}", target.name(), std::fs::read_to_string(&log).unwrap_or_default())
        })?;
        Ok(server)
    }

    async fn wait(&mut self) -> anyhow::Result<()> {
        let limit = Instant::now() + START;
        while TcpStream::connect(self.address).await.is_err() {
            if let Some(status) = self.process.try_wait()? {
                bail!("it ended with {status}");
            }
            ensure!(Instant::now() < limit, "nothing listens on {} after {START:?}", self.address);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Processor time used so far, as /proc/PID/stat says it (proc(5): fields 14 and 15).
    pub(crate) fn cpu_time(&self) -> anyhow::Result<Duration> {
        // taskset becomes the server, so the id is the server's.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // The second field is a name in parentheses that may hold spaces.
        let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat")?;
        let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        // USER_HZ is 100 on every Linux that Provost runs on.
        Ok(Duration::from_millis(ticks * 10))
    }
}

impl Drop for Server {
    /// Ends it at once: what is measured is measured, and draining takes its time.
    fn drop(&mut self) {
        // Both fail only where it has ended by itself, which the calls have noticed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An address that nobody listens on.
async fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?)
}

/// `provost.yaml` for a server on `address`; each server gets a new ledger.
fn settings(folder: &Path, address: SocketAddr) -> anyhow::Result<PathBuf> {
    let registry = std::fs::read_to_string(folder.join("registry"))?;
    let text = format!(
        "cluster: bench
listen: {address}
healthListen: 127.0.0.1:0
tls: {{cert: tls.crt, key: tls.key}}
policies: policies
ledger: {{store: ledger-{}.db}}
registries:
  '{registry}': {{addresses: [127.0.0.0/8], plainHttp: true}}
records: none
",
        address.port()
    );
    let file = folder.join("provost.yaml");
    std::fs::write(&file, text)?;
    Ok(file)
}
