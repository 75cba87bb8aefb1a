//! `provost serve`: the webhook as a process. It reads settings, assembles the edges, serves until it is told to stop,
//! and drains; it must never hold a rule.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::parser::ValueSource;
use clap::{ArgMatches, FromArgMatches};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::decision::review::Fault;
use crate::edge::config::{Config, Override, Source};
use crate::edge::http::{self, Drained, Listeners, Patience, Readiness, Reply, Reviewer};
use crate::edge::tls::{self, CertFiles, ServingCert};
use crate::edge::{metrics, telling};

/// How often finished samples are folded into the histograms.
const UPKEEP: Duration = Duration::from_secs(5);

/// What can be said on the command line. All values are text here: the settings check them, so that every problem is
/// told at once and in the same words, wherever a value comes from.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: provost certs && provost serve --policies policies/ --cluster dev\n\n\
    A flag wins over its PROVOST_… variable, that over provost.yaml, that over the default.")]
struct Flags {
    /// Settings file; relative paths in it start at its folder
    #[arg(long, env = "PROVOST_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Shows the settings and where each comes from, and ends
    #[arg(long)]
    print_config: bool,
    /// Name of this cluster in records
    #[arg(long, env = "PROVOST_CLUSTER", value_name = "NAME")]
    cluster: Option<String>,
    /// Address of the review path
    #[arg(long, env = "PROVOST_LISTEN", value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Address of /livez, /readyz and /metrics
    #[arg(long, env = "PROVOST_HEALTH_LISTEN", value_name = "ADDRESS:PORT")]
    health_listen: Option<String>,
    /// Serving certificate with its intermediates, PEM
    #[arg(long, env = "PROVOST_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<String>,
    /// Private key of the serving certificate, PEM
    #[arg(long, env = "PROVOST_TLS_KEY", value_name = "FILE")]
    tls_key: Option<String>,
    /// How long reviews are still served after SIGTERM
    #[arg(long, env = "PROVOST_DRAIN", value_name = "DURATION")]
    drain: Option<String>,
    /// Folder of policies
    #[arg(short = 'p', long, env = "PROVOST_POLICIES", value_name = "DIR")]
    policies: Option<String>,
    /// The ledger's file
    #[arg(long, env = "PROVOST_LEDGER", value_name = "FILE")]
    ledger: Option<String>,
    /// Which replies wait until their record is on disk: denials or all
    #[arg(long, env = "PROVOST_LEDGER_DURABILITY", value_name = "WHICH")]
    ledger_durability: Option<String>,
    /// Connections of the review path
    #[arg(long, env = "PROVOST_CONNECTIONS", value_name = "COUNT")]
    connections: Option<String>,
    /// Distinct images that one review may hold
    #[arg(long, env = "PROVOST_IMAGES_PER_REVIEW", value_name = "COUNT")]
    images_per_review: Option<String>,
    /// Memory for evidence
    #[arg(long, env = "PROVOST_CACHE_SIZE", value_name = "SIZE")]
    cache_size: Option<String>,
    /// How long a proof may stand in for a registry that cannot be reached; 0s is off
    #[arg(long, env = "PROVOST_STALE_PROOFS", value_name = "DURATION")]
    stale_proofs: Option<String>,
    /// Records as JSON lines: stdout or none
    #[arg(long, env = "PROVOST_RECORDS", value_name = "WHERE")]
    records: Option<String>,
    /// Log lines: text or json
    #[arg(long, env = "PROVOST_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<String>,
}

/// Flags of `provost serve`, with what was said by which means.
#[derive(Debug)]
pub struct Args {
    config: Option<PathBuf>,
    print_config: bool,
    overrides: Vec<Override>,
}

impl clap::Args for Args {
    fn augment_args(command: clap::Command) -> clap::Command {
        Flags::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Flags::augment_args_for_update(command)
    }
}

impl FromArgMatches for Args {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self::new(Flags::from_arg_matches(matches)?, matches))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args {
    fn new(flags: Flags, matches: &ArgMatches) -> Self {
        // Taken apart by name, so that a flag cannot be added and forgotten here.
        let Flags {
            config,
            print_config,
            cluster,
            listen,
            health_listen,
            tls_cert,
            tls_key,
            drain,
            policies,
            ledger,
            ledger_durability,
            connections,
            images_per_review,
            cache_size,
            stale_proofs,
            records,
            log_format,
        } = flags;
        let said = [
            ("cluster", cluster, "cluster", "--cluster", "PROVOST_CLUSTER"),
            ("listen", listen, "listen", "--listen", "PROVOST_LISTEN"),
            ("healthListen", health_listen, "health_listen", "--health-listen", "PROVOST_HEALTH_LISTEN"),
            ("tls.cert", tls_cert, "tls_cert", "--tls-cert", "PROVOST_TLS_CERT"),
            ("tls.key", tls_key, "tls_key", "--tls-key", "PROVOST_TLS_KEY"),
            ("drain", drain, "drain", "--drain", "PROVOST_DRAIN"),
            ("policies", policies, "policies", "--policies", "PROVOST_POLICIES"),
            ("ledger.store", ledger, "ledger", "--ledger", "PROVOST_LEDGER"),
            (
                "ledger.durability",
                ledger_durability,
                "ledger_durability",
                "--ledger-durability",
                "PROVOST_LEDGER_DURABILITY",
            ),
            ("limits.connections", connections, "connections", "--connections", "PROVOST_CONNECTIONS"),
            (
                "limits.imagesPerReview",
                images_per_review,
                "images_per_review",
                "--images-per-review",
                "PROVOST_IMAGES_PER_REVIEW",
            ),
            ("cache.size", cache_size, "cache_size", "--cache-size", "PROVOST_CACHE_SIZE"),
            ("cache.staleProofs", stale_proofs, "stale_proofs", "--stale-proofs", "PROVOST_STALE_PROOFS"),
            ("records", records, "records", "--records", "PROVOST_RECORDS"),
            ("logFormat", log_format, "log_format", "--log-format", "PROVOST_LOG_FORMAT"),
        ];
        let overrides = said
            .into_iter()
            .filter_map(|(key, text, id, flag, env)| {
                let source = match matches.value_source(id) {
                    Some(ValueSource::EnvVariable) => Source::Env(env),
                    // clap keeps one value: a flag where there is one. It knows no other sources here.
                    Some(_) | None => Source::Flag(flag),
                };
                Some(Override { key, text: text?, source })
            })
            .collect();
        Self { config, print_config, overrides }
    }

    /// Runs it: returns when the process was told to stop and everything in flight is answered.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let config = Config::load(self.config.as_deref(), &self.overrides)?;
        if self.print_config {
            print!("{}", config.print());
            return Ok(ExitCode::SUCCESS);
        }
        telling::install(config.log_format.value)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(serve(&config))
    }
}

async fn serve(config: &Config) -> anyhow::Result<ExitCode> {
    // Before anything that takes time, so that a signal during the start is heard.
    let mut signals = Signals::new()?;
    let metrics = metrics::install()?;
    let certificate = Arc::new(ServingCert::new());
    let readiness = Arc::new(Readiness::new(Arc::clone(&certificate)));
    let tls = tls::server_config(Arc::clone(&certificate))?;

    let (review, health) = (config.listen.value, config.health_listen.value);
    let review = TcpListener::bind(review).await.with_context(|| format!("cannot listen on {review} for reviews"))?;
    let health = TcpListener::bind(health).await.with_context(|| format!("cannot listen on {health} for health"))?;
    let (review_at, health_at) = (review.local_addr()?, health.local_addr()?);

    let gate = assemble(config, &readiness).await?;

    let files = CertFiles { cert: config.tls_cert.value.clone(), key: config.tls_key.value.clone() };
    let seen = certificate.look(&files, None).await;
    tokio::spawn(async move { certificate.follow(&files, seen).await });
    tokio::spawn({
        let metrics = metrics.clone();
        async move {
            loop {
                tokio::time::sleep(UPKEEP).await;
                metrics.upkeep();
            }
        }
    });

    let (review_url, health_url) = (format!("https://{review_at}/validate"), format!("http://{health_at}"));
    tracing::info!(review = review_url, health = health_url, "listening");
    let listeners = Listeners {
        review,
        health,
        tls,
        connections: config.connections.value,
        patience: Patience::default(),
        drain: config.drain.value,
    };
    let (told, stop) = oneshot::channel();
    let stopping = async move {
        // A sender that is gone means that the process ends anyway.
        let _told = stop.await.is_ok();
    };
    let hurried = async {
        signals.next().await;
        let _heard = told.send(()).is_ok();
        signals.next().await;
    };
    let drained = tokio::select! {
        drained = http::serve(listeners, gate, readiness, metrics, stopping) => drained,
        () = hurried => {
            tracing::warn!("told twice: stopped without draining to the end");
            return Ok(ExitCode::FAILURE);
        }
    };
    match drained {
        Drained::Clean => {
            tracing::info!("stopped; every reply was sent");
            Ok(ExitCode::SUCCESS)
        }
        Drained::Cut(connections) => {
            tracing::warn!(connections, "stopped, with connections that did not finish");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Puts the parts that judge together: policies, registry, evidence, ledger, gate. Tells `readiness` when the policies
/// were read and when the ledger took a write.
#[expect(clippy::unused_async, reason = "opening the ledger and reading the policies will wait")]
async fn assemble(_config: &Config, _readiness: &Readiness) -> anyhow::Result<Arc<NoGate>> {
    anyhow::bail!("this build has no gate yet, and nothing is served without one")
}

/// The reviewer of a build without a gate: there is none.
enum NoGate {}

impl Reviewer for NoGate {
    async fn review(&self, _: bytes::Bytes, _: tokio::time::Instant) -> Reply {
        match *self {}
    }

    async fn refuse(&self, _: bytes::Bytes, _: Fault, _: tokio::time::Instant) -> Reply {
        match *self {}
    }

    fn last_resort(&self, _: &[u8], _: Fault) -> Reply {
        match *self {}
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let heard = |kind| signal(kind).context("signals cannot be heard");
        Ok(Self { terminate: heard(SignalKind::terminate())?, interrupt: heard(SignalKind::interrupt())? })
    }

    /// Waits for the next of them.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
