//! The server as `serve` and `demo` start it: edges put together around the gate, served, drained, sealed. It must never
//! hold a rule, and it must never serve without policies, a ledger and a gate.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::Instant;

use crate::decision::plan::Limits;
use crate::decision::policy::PolicySet;
use crate::decision::record::{Event, PolicyChange, Started};
use crate::edge::config::{self, Config, Records};
use crate::edge::evidence::{self, Evidence};
use crate::edge::http::{self, Callers, Drained, Listeners, Patience, Readiness, make_token};
use crate::edge::ledger::{self, Appended, Ledger, Store, Wait};
use crate::edge::metrics;
use crate::edge::policy_dir::{Change, ChangeKind, Loaded, PolicyDir};
use crate::edge::registry::Registry;
use crate::edge::tls::{self, CertFiles, ClientCheck, ServingCert, Watched};
use crate::gate::{Gate, Load, LoadLimits};

/// How often finished samples are folded into the histograms.
const UPKEEP: Duration = Duration::from_secs(5);
/// How long the ledger may take to write what is queued when the process ends.
const SEALING: Duration = Duration::from_secs(10);
/// How long a record that nobody waits for may take.
const UNHURRIED: Duration = Duration::from_secs(30);
/// Connections that the system holds for us until we take them.
const QUEUE: u32 = 4096;
/// The file beside the ledger in which the last good policies outlive a restart.
const LAST_GOOD: &str = "policies.last-good.json";

/// A server that listens and does not answer yet.
pub struct Server {
    listeners: Listeners,
    gate: Gate,
    readiness: Arc<Readiness>,
    metrics: metrics::Metrics,
    registered: Registered,
}

/// How callers make themselves known.
#[derive(Debug, PartialEq, Eq)]
enum Registered {
    /// By a token of this file, or by a certificate where a CA is named as well.
    Token(PathBuf),
    /// By a certificate.
    Certificate,
    /// They cannot.
    Nothing,
}

impl Server {
    /// Opens everything that the settings name. Errors where something cannot be had at all: an address, the ledger, a
    /// registry's files. Broken policies and a missing certificate are no errors here: what is broken denies by its own
    /// code, and without a certificate the server is never ready (C-45).
    pub async fn new(config: &Config) -> anyhow::Result<Self> {
        let metrics = metrics::install()?;
        let certificate = Arc::new(ServingCert::new());
        let readiness = Arc::new(Readiness::new(Arc::clone(&certificate)));
        let check = open_client_check(config).await?;
        let (callers, registered) = open_callers(config).await?;
        let tls = tls::with_client_check(Arc::clone(&certificate), check)?;
        let (review, health) = (config.listen.value, config.health_listen.value);
        let review = listen(review).with_context(|| format!("cannot listen on {review} for reviews"))?;
        let health = listen(health).with_context(|| format!("cannot listen on {health} for health"))?;

        let ledger = open_ledger(config)?;
        readiness.ledger_writable();
        let policies = open_policies(config, &ledger).await;
        readiness.policies_read();
        let (registries, warnings) = config.registry_settings()?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let settings = evidence::Settings {
            max_bytes: config.cache_size.value,
            stale_proofs: config.stale_proofs.value,
            ..evidence::Settings::default()
        };
        let registry = Registry::new(&registries)?;
        let evidence = Evidence::new(registry.clone(), settings);
        let gate = Gate {
            policies: Arc::clone(&policies),
            for_strangers: evidence.over(registry.without_credentials()),
            evidence,
            ledger: ledger.clone(),
            limits: Limits { images_per_review: config.images_per_review.value, ..Limits::default() },
            load: Load::new(LoadLimits {
                computing: config.computing.value,
                waiting: config.waiting.value,
                told_apart: registered != Registered::Nothing,
            }),
            observe: config.observe.value,
        };
        ::metrics::gauge!(metrics::OBSERVE).set(if gate.observe { 1.0 } else { 0.0 });
        if gate.observe {
            tracing::warn!("observe mode: everything is judged and recorded, and nothing is denied");
        }
        tokio::spawn(policies.watch(move |loaded| take_note(loaded, &ledger)));
        follow_certificate(config, certificate, gate.ledger.clone()).await;
        tokio::spawn(upkeep(metrics.clone()));
        let listeners = Listeners {
            review,
            health,
            tls,
            connections: config.connections.value,
            callers,
            patience: Patience::default(),
            drain: config.drain.value,
        };
        Ok(Self { listeners, gate, readiness, metrics, registered })
    }

    /// Logs the address to register, without what is secret in it.
    pub fn say_how_to_register(&self) -> anyhow::Result<()> {
        let address = self.review_address()?;
        match &self.registered {
            Registered::Token(file) => tracing::info!(
                url = format!("https://{address}/validate/<token>"),
                token = format!("a line of {}", file.display()),
                "register this address; callers without the token are judged, and trusted with nothing"
            ),
            Registered::Certificate => tracing::info!(
                url = format!("https://{address}/validate"),
                "register this address; callers must show a client certificate"
            ),
            Registered::Nothing => tracing::warn!(
                "no caller can be known: no token file and no client CA; no registry credential is used for any review"
            ),
        }
        Ok(())
    }

    /// Where reviews are taken.
    pub fn review_address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.listeners.review.local_addr()?)
    }

    /// Where health and metrics are.
    pub fn health_address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.listeners.health.local_addr()?)
    }

    /// Serves until `stop`, drains, and seals the ledger.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> anyhow::Result<Drained> {
        let ledger = self.gate.ledger.clone();
        let drained = http::serve(self.listeners, Arc::new(self.gate), self.readiness, self.metrics, stop).await;
        ledger.seal(Instant::now() + SEALING).await?;
        Ok(drained)
    }
}

/// A listener with a long queue: a flood must not keep others from connecting before we can tell them apart.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(QUEUE)
}

/// The check of client certificates, where a CA is named for them. A CA that cannot be had is an error here: nobody could
/// be let in.
async fn open_client_check(config: &Config) -> anyhow::Result<Option<Arc<ClientCheck>>> {
    let Some(file) = &config.client_ca else { return Ok(None) };
    let subjects = config.client_subjects.iter().map(|subject| subject.value.clone()).collect();
    let either = config.caller_token.source != config::Source::Default;
    let check = Arc::new(ClientCheck::new(subjects, !either));
    let mut watched = Watched::new(file.value.clone());
    if let Some(read) = watched.changed().await {
        read.and_then(|pem| check.offer(&file.value, &pem)).context("the client CA cannot be used")?;
    }
    let following = Arc::clone(&check);
    tokio::spawn(async move { following.follow(watched).await });
    Ok(Some(check))
}

/// The tokens of callers. Outside a cluster the first is made here; in a cluster whoever registers us makes them.
async fn open_callers(config: &Config) -> anyhow::Result<(Arc<Callers>, Registered)> {
    let callers = Arc::new(Callers::default());
    let config::Setting { value: file, source } = &config.caller_token;
    if config.client_ca.is_some() && *source == config::Source::Default {
        return Ok((callers, Registered::Certificate));
    }
    if !file.exists() && !in_cluster() {
        match make_token(file) {
            Ok(()) => tracing::info!(file = %file.display(), "a caller token was made"),
            Err(error) => tracing::warn!(file = %file.display(), %error, "no caller token could be made"),
        }
    }
    let mut watched = Watched::new(file.clone());
    let mut registered = Registered::Token(file.clone());
    if file.exists() {
        if let Some(read) = watched.changed().await {
            read.and_then(|tokens| callers.offer(file, &tokens)).context("the caller tokens cannot be used")?;
        }
    } else if config.client_ca.is_some() {
        registered = Registered::Certificate;
    } else if in_cluster() {
        tracing::warn!(file = %file.display(), "there is no caller token yet: until then every caller is unknown");
    } else {
        registered = Registered::Nothing;
    }
    let following = Arc::clone(&callers);
    tokio::spawn(async move { following.follow(watched).await });
    Ok((callers, registered))
}

/// Whether a kubelet started us: it says where the API server is. This is where we are, and no setting.
fn in_cluster() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

fn open_ledger(config: &Config) -> anyhow::Result<Ledger> {
    let file = &config.ledger_store.value;
    let mut settings = ledger::Settings::new(Store::File(file.clone()));
    settings.durability = match config.ledger_durability.value {
        config::Durability::Denials => ledger::Durability::Denials,
        config::Durability::All => ledger::Durability::All,
    };
    settings.cluster.clone_from(&config.cluster.value);
    settings.replica = replica();
    settings.stream = match config.records.value {
        Records::Stdout => Some(Box::new(std::io::stdout())),
        Records::None => None,
    };
    settings.started = Started {
        settings: [
            ("policies", config.policies.value.display().to_string()),
            ("observe", config.observe.value.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
        ..settings.started
    };
    Ledger::open(settings).with_context(|| format!("the ledger {} cannot be opened", file.display()))
}

/// The host's name: in a cluster, the pod's.
fn replica() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| String::new(), |name| name.trim().to_owned())
}

async fn open_policies(config: &Config, ledger: &Ledger) -> Arc<PolicyDir> {
    let folder = &config.policies.value;
    let last_good = config.ledger_store.value.parent().unwrap_or(Path::new(".")).join(LAST_GOOD);
    let (policies, loaded) = PolicyDir::open(folder, Some(&last_good));
    if loaded.set.policies.is_empty() && loaded.problems.is_empty() {
        tracing::warn!(folder = %folder.display(), "there is no policy: everything is denied, `no-policy`");
    }
    tell(&loaded);
    record(changes(&loaded), ledger.clone()).await;
    Arc::new(policies)
}

/// A reload: said, counted and recorded.
fn take_note(loaded: &Loaded, ledger: &Ledger) {
    tell(loaded);
    tokio::spawn(record(changes(loaded), ledger.clone()));
}

fn tell(loaded: &Loaded) {
    for problem in &loaded.problems {
        tracing::error!("{problem}");
    }
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    for change in &loaded.changes {
        tracing::info!(name = change.name, what = %change.what, "policy");
    }
    let PolicySet { policies, deny_lists, broken } = &*loaded.set;
    metrics::policies(
        policies.len() + deny_lists.len(),
        loaded.stale.len() + broken.len(),
        !loaded.problems.is_empty(),
    );
}

fn changes(loaded: &Loaded) -> Vec<PolicyChange> {
    let error = |name: &str| {
        let texts = loaded.problems.iter().map(ToString::to_string);
        texts.clone().find(|text| text.contains(name)).or_else(|| texts.clone().next())
    };
    let change = |Change { name, what, before, serves, .. }: &Change| PolicyChange {
        name: name.clone(),
        from: *before,
        to: *serves,
        error: if *what == ChangeKind::Broken { error(name) } else { None },
    };
    loaded.changes.iter().map(change).collect()
}

async fn record(changes: Vec<PolicyChange>, ledger: Ledger) {
    if changes.is_empty() {
        return;
    }
    append(Event::PoliciesChanged(changes), &ledger).await;
}

async fn append(event: Event, ledger: &Ledger) {
    match ledger.append(event, Wait::Queued, Instant::now() + UNHURRIED).await {
        Appended::Saved(_) | Appended::Queued(_) | Appended::Repeat(_) | Appended::Off => {}
        Appended::Pending => tracing::error!("a change is not on disk yet"),
        Appended::Unavailable(why) => tracing::error!(why, "a change could not be recorded"),
    }
}

/// Loads the serving certificate, and goes on looking at its files; each that is taken over is recorded.
async fn follow_certificate(config: &Config, certificate: Arc<ServingCert>, ledger: Ledger) {
    let files = CertFiles { cert: config.tls_cert.value.clone(), key: config.tls_key.value.clone() };
    let seen = certificate.look(&files, None).await;
    let (told, mut changed) = tokio::sync::watch::channel(());
    told.send_replace(());
    tokio::spawn({
        let certificate = Arc::clone(&certificate);
        async move { certificate.follow(&files, seen, || told.send_replace(())).await }
    });
    tokio::spawn(async move {
        let mut recorded = None;
        while changed.changed().await.is_ok() {
            if let Some((fingerprint, not_after)) = certificate.served()
                && recorded.replace(fingerprint) != Some(fingerprint)
            {
                append(Event::CertificateChanged { fingerprint, not_after }, &ledger).await;
            }
        }
    });
}

async fn upkeep(metrics: metrics::Metrics) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        metrics.upkeep();
    }
}
