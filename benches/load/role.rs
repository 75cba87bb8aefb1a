//! The servers that no command of Provost gives: a bare echo, and the gate with its ledger off or in memory. They must
//! differ from `provost serve` in that alone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use axum::Router;
use axum::routing::post;
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use provost::decision::plan::Limits;
use provost::edge::evidence::{self, Evidence};
use provost::edge::http::{self, Listeners, Patience, Readiness};
use provost::edge::ledger::{self, Ledger, Store};
use provost::edge::metrics;
use provost::edge::policy_dir::PolicyDir;
use provost::edge::registry::{HostSettings, Registry, Settings};
use provost::edge::telling::{self, LogFormat};
use provost::edge::tls::{self, CertFiles, ServingCert};
use provost::gate::{Gate, Load, LoadLimits};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Answers each body with itself, until it is ended.
pub(crate) fn echo(folder: &Path) -> anyhow::Result<()> {
    block_on(async {
        let acceptor = TlsAcceptor::from(tls::server_config(certificate(folder).await?)?);
        let listener = TcpListener::bind(address(folder)?).await?;
        let router = Router::new().route("/validate", post(|body: Bytes| async move { body }));
        loop {
            let (tcp, _) = listener.accept().await?;
            tcp.set_nodelay(true)?;
            let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(router.clone()));
            tokio::spawn(async move {
                // The caller drops its connections when it has measured; there is nobody to tell of that.
                if let Ok(stream) = acceptor.accept(tcp).await {
                    let mut http = http1::Builder::new();
                    let _ = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
                }
            });
        }
    })
}

/// Serves the gate with its ledger `off` or in `memory`, until it is ended.
pub(crate) fn gate(folder: &Path, ledger: &str) -> anyhow::Result<()> {
    let store = match ledger {
        "off" => Store::Off,
        "memory" => Store::Memory,
        other => bail!("{other}: a ledger is `off` or in `memory` here; on disk it is `provost serve`"),
    };
    block_on(async {
        telling::install(LogFormat::Text)?;
        let metrics = metrics::install()?;
        let certificate = certificate(folder).await?;
        let readiness = Arc::new(Readiness::new(Arc::clone(&certificate)));
        let (policies, loaded) = PolicyDir::open(&folder.join("policies"), None);
        ensure!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        let host = std::fs::read_to_string(folder.join("registry"))?.parse()?;
        let loopback =
            HostSettings { addresses: vec!["127.0.0.0/8".parse()?], plain_http: true, ..HostSettings::default() };
        let registry = Registry::new(&Settings { hosts: BTreeMap::from([(host, loopback)]), ..Settings::default() })?;
        let ledger = Ledger::open(ledger::Settings::new(store))?;
        let evidence = Evidence::new(registry, evidence::Settings::default());
        let gate = Gate {
            policies: Arc::new(policies),
            for_strangers: evidence.clone(),
            evidence,
            ledger,
            limits: Limits::default(),
            load: Load::new(LoadLimits::default()),
            observe: false,
        };
        let listeners = Listeners {
            review: TcpListener::bind(address(folder)?).await?,
            health: TcpListener::bind("127.0.0.1:0").await?,
            tls: tls::server_config(certificate)?,
            connections: 2048,
            callers: Arc::default(),
            patience: Patience::default(),
            drain: std::time::Duration::ZERO,
        };
        http::serve(listeners, Arc::new(gate), readiness, metrics, std::future::pending()).await;
        Ok(())
    })
}

/// As `provost serve` runs: as many workers as there are cores to run on, here one.
fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

async fn certificate(folder: &Path) -> anyhow::Result<Arc<ServingCert>> {
    let certificate = Arc::new(ServingCert::new());
    certificate.look(&CertFiles { cert: folder.join("tls.crt"), key: folder.join("tls.key") }, None).await;
    certificate.not_after().context("no certificate")?;
    Ok(certificate)
}

fn address(folder: &Path) -> anyhow::Result<SocketAddr> {
    Ok(std::fs::read_to_string(folder.join("listen"))?.parse()?)
}
