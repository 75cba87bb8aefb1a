//! `provost serve`: the webhook as a process. It reads settings and serves until it is told to stop;
//! it must never hold a rule.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::parser::ValueSource;
use clap::{ArgMatches, FromArgMatches};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::server::Server;
use crate::edge::config::{Config, Override, Source};
use crate::edge::http::Drained;
use crate::edge::telling;

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
    /// CA of callers' client certificates, PEM. Whoever shows none, or another CA's, is refused in the handshake; with
    /// --caller-token as well, whoever shows none may show a token instead
    #[arg(long, env = "PROVOST_CLIENT_CA", value_name = "FILE")]
    client_ca: Option<String>,
    /// Common name or DNS name of a caller's certificate; may be repeated. Without it any under the CA is let in
    #[arg(long = "client-subject", env = "PROVOST_CLIENT_SUBJECT", value_delimiter = ',', value_name = "NAME")]
    client_subjects: Vec<String>,
    /// File with the tokens that callers may show as the last segment of the path; made where it is missing, but not in
    /// a cluster
    #[arg(long, env = "PROVOST_CALLER_TOKEN", value_name = "FILE")]
    caller_token: Option<String>,
    /// Judges and records everything, and denies nothing
    #[arg(long, env = "PROVOST_OBSERVE", num_args = 0..=1, default_missing_value = "true", value_name = "TRUTH")]
    observe: Option<String>,
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
    /// Reviews that compute at once; beyond, a review is refused as overloaded
    #[arg(long, env = "PROVOST_COMPUTING", value_name = "COUNT")]
    computing: Option<String>,
    /// Reviews that wait for evidence at once; at one registry they begin at most half as many searches
    #[arg(long, env = "PROVOST_WAITING", value_name = "COUNT")]
    waiting: Option<String>,
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
            client_ca,
            client_subjects,
            caller_token,
            observe,
            drain,
            policies,
            ledger,
            ledger_durability,
            connections,
            computing,
            waiting,
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
            ("tls.clientCa", client_ca, "client_ca", "--client-ca", "PROVOST_CLIENT_CA"),
            ("callerToken", caller_token, "caller_token", "--caller-token", "PROVOST_CALLER_TOKEN"),
            ("observe", observe, "observe", "--observe", "PROVOST_OBSERVE"),
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
            ("limits.computing", computing, "computing", "--computing", "PROVOST_COMPUTING"),
            ("limits.waiting", waiting, "waiting", "--waiting", "PROVOST_WAITING"),
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
        let subjects = client_subjects.into_iter().map(|subject| {
            ("tls.clientSubjects", Some(subject), "client_subjects", "--client-subject", "PROVOST_CLIENT_SUBJECT")
        });
        let overrides = said
            .into_iter()
            .chain(subjects)
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
    let server = Server::new(config).await?;
    let (review, health) = (server.review_address()?, server.health_address()?);
    tracing::info!(review = format!("https://{review}/validate"), health = format!("http://{health}"), "listening");
    server.say_how_to_register()?;
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
        drained = server.serve(stopping) => drained?,
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

/// SIGTERM and SIGINT.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> anyhow::Result<Self> {
        let heard = |kind| signal(kind).context("signals cannot be heard");
        Ok(Self { terminate: heard(SignalKind::terminate())?, interrupt: heard(SignalKind::interrupt())? })
    }

    /// Waits for the next of them.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
