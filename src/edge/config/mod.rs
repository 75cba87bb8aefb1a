//! `provost.yaml`, flags and environment, as one set of settings that know where they come from. It must never read a
//! key and ignore it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::decision::reference::Host;
use crate::edge::telling::LogFormat;

mod print;
mod problem;
mod reader;
mod registries;
mod units;

pub use problem::{Problem, Problems, Source};
pub use registries::RegistryHost;

use reader::Reader;

/// A value and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value, checked.
    pub value: T,
    /// Where it comes from.
    pub source: Source,
}

/// What a flag or an environment variable says about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The key as in the file, for example `tls.cert`.
    pub key: &'static str,
    /// The text as given.
    pub text: String,
    /// Which flag or variable.
    pub source: Source,
}

/// Which reviews wait until their record is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Denials and overrides; admits join the next group without waiting.
    Denials,
    /// All.
    All,
}

/// Where records are written beside the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Records {
    /// As JSON lines to stdout.
    Stdout,
    /// Nowhere.
    None,
}

/// All settings of `provost serve`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `cluster`: the name in records.
    pub cluster: Setting<String>,
    /// `listen`: the review path.
    pub listen: Setting<SocketAddr>,
    /// `healthListen`: health and metrics.
    pub health_listen: Setting<SocketAddr>,
    /// `tls.cert`: PEM, leaf and intermediates.
    pub tls_cert: Setting<PathBuf>,
    /// `tls.key`: PEM.
    pub tls_key: Setting<PathBuf>,
    /// `tls.clientCa`: PEM; callers show a certificate under it.
    pub client_ca: Option<Setting<PathBuf>>,
    /// `tls.clientSubjects`: common names or DNS names of callers' certificates; none: any under the CA.
    pub client_subjects: Vec<Setting<String>>,
    /// `callerToken`: the file with the tokens that callers may show instead.
    pub caller_token: Setting<PathBuf>,
    /// `observe`: judge and record everything, and deny nothing.
    pub observe: Setting<bool>,
    /// `drain`: how long is served after the end was asked for.
    pub drain: Setting<Duration>,
    /// `policies`: a folder.
    pub policies: Setting<PathBuf>,
    /// `ledger.store`: the ledger's file.
    pub ledger_store: Setting<PathBuf>,
    /// `ledger.durability`.
    pub ledger_durability: Setting<Durability>,
    /// `registries`: hosts that need something special.
    pub registries: BTreeMap<Host, RegistryHost>,
    /// `limits.connections`: of the review path.
    pub connections: Setting<usize>,
    /// `limits.computing`: reviews that compute at once.
    pub computing: Setting<usize>,
    /// `limits.waiting`: reviews that wait for evidence at once.
    pub waiting: Setting<usize>,
    /// `limits.imagesPerReview`: distinct images.
    pub images_per_review: Setting<usize>,
    /// `cache.size`: bytes of evidence.
    pub cache_size: Setting<u64>,
    /// `cache.staleProofs`: how long a proof may stand in for a registry that cannot be reached.
    pub stale_proofs: Setting<Duration>,
    /// `records`.
    pub records: Setting<Records>,
    /// `logFormat`.
    pub log_format: Setting<LogFormat>,
}

/// Keys that later versions know, and what this one lacks.
const NOT_YET: &[(&str, &str)] = &[
    ("manageWebhook", "it does not write its webhook configuration"),
    ("ledger.checkpointKey", "it does not sign checkpoints"),
    ("ledger.retention", "it does not prune the ledger"),
    ("evidence", "signatures are looked for in the image's own repository only"),
    ("evidenceBundles", "it does not read bundles from files"),
    ("trustRoots", "it verifies signatures by key only"),
    ("protectedNamespaceLabels", "policies cannot select by label"),
    ("exemptNamespaces", "it does not write its webhook configuration"),
    ("notify", "it notifies nobody"),
    ("pullSecrets", "it does not read pull secrets"),
    ("limits.evidence", "the limits of evidence are fixed"),
];

impl Config {
    /// Reads the settings: a flag wins over an environment variable, that over the file, that over the default.
    /// `overrides` stand in that order. Errors with everything that is wrong, not only with the first.
    pub fn load(file: Option<&Path>, overrides: &[Override]) -> Result<Self, Problems> {
        let mut reader = Reader::new(file, overrides);
        let config = Self::read(&mut reader);
        if reader.problems.is_empty() { Ok(config) } else { Err(Problems(reader.problems)) }
    }

    fn read(reader: &mut Reader<'_>) -> Self {
        let mut top = reader.top();
        let cluster = reader.text(&mut top, "cluster", "local".to_owned(), cluster);
        let listen = reader.text(&mut top, "listen", SocketAddr::from(([0, 0, 0, 0], 8443)), address);
        let health_listen = reader.text(&mut top, "healthListen", SocketAddr::from(([0, 0, 0, 0], 8080)), address);
        if listen.value == health_listen.value && listen.value.port() != 0 {
            reader.problems.push(Problem::BadValue {
                at: health_listen.source.clone(),
                key: "healthListen".to_owned(),
                detail: "must not be the address of `listen`: health is a listener of its own".to_owned(),
            });
        }

        let mut tls = reader.subsection(&mut top, "tls");
        let tls_cert = reader.text(&mut tls, "cert", PathBuf::from("certs/tls.crt"), path);
        let tls_key = reader.text(&mut tls, "key", PathBuf::from("certs/tls.key"), path);
        let client_ca = reader.maybe_text(&mut tls, "clientCa", path);
        let client_subjects = reader.list(&mut tls, "clientSubjects");
        check_subjects(reader, client_ca.as_ref(), &client_subjects);
        reader.finish(tls, NOT_YET);
        let caller_token = reader.text(&mut top, "callerToken", PathBuf::from("caller-token"), path);
        let observe = reader.truth(&mut top, "observe");

        let drain = reader.text(&mut top, "drain", Duration::from_secs(15), |text| up_to(text, "10m"));
        let policies = reader.text(&mut top, "policies", PathBuf::from("policies"), path);

        let mut ledger = reader.subsection(&mut top, "ledger");
        let ledger_store = reader.text(&mut ledger, "store", PathBuf::from("ledger.db"), path);
        let ledger_durability = reader.text(&mut ledger, "durability", Durability::Denials, |text| {
            one_of(text, &[("denials", Durability::Denials), ("all", Durability::All)])
        });
        reader.finish(ledger, NOT_YET);

        let registries = registries::read(reader, &mut top);

        let mut limits = reader.subsection(&mut top, "limits");
        let connections = reader.count(&mut limits, "connections", 2048, 1..=65_536);
        let computing = reader.count(&mut limits, "computing", 256, 1..=65_536);
        let waiting = reader.count(&mut limits, "waiting", 1_000, 1..=65_536);
        let images_per_review = reader.count(&mut limits, "imagesPerReview", 64, 1..=1_024);
        reader.finish(limits, NOT_YET);

        let mut cache = reader.subsection(&mut top, "cache");
        let cache_size = reader.text(&mut cache, "size", 64 << 20, units::size);
        let stale_proofs = reader.text(&mut cache, "staleProofs", Duration::from_hours(24), |text| up_to(text, "7d"));
        reader.finish(cache, NOT_YET);

        let records = reader.text(&mut top, "records", Records::Stdout, |text| {
            one_of(text, &[("stdout", Records::Stdout), ("none", Records::None)])
        });
        let log_format = reader.text(&mut top, "logFormat", LogFormat::Text, |text| {
            one_of(text, &[("text", LogFormat::Text), ("json", LogFormat::Json)])
        });
        reader.finish(top, NOT_YET);

        Self {
            cluster,
            listen,
            health_listen,
            tls_cert: reader.path(tls_cert),
            tls_key: reader.path(tls_key),
            client_ca: client_ca.map(|file| reader.path(file)),
            client_subjects,
            caller_token: reader.path(caller_token),
            observe,
            drain,
            policies: reader.path(policies),
            ledger_store: reader.path(ledger_store),
            ledger_durability,
            registries,
            connections,
            computing,
            waiting,
            images_per_review,
            cache_size,
            stale_proofs,
            records,
            log_format,
        }
    }
}

fn check_subjects(reader: &mut Reader<'_>, ca: Option<&Setting<PathBuf>>, subjects: &[Setting<String>]) {
    for Setting { value, source } in subjects {
        let detail = if value.is_empty() || value.len() > 253 || value.contains(char::is_control) {
            "must be a common name or a DNS name of a certificate"
        } else if ca.is_none() {
            "needs `tls.clientCa`: without a CA a subject proves nothing"
        } else {
            continue;
        };
        reader.problems.push(Problem::BadValue {
            at: source.clone(),
            key: "tls.clientSubjects".to_owned(),
            detail: detail.to_owned(),
        });
    }
}

/// A name that can stand in records, file names and labels.
fn cluster(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if (1..=63).contains(&text.len()) && text.bytes().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 63 of A-Z a-z 0-9 . _ -".to_owned())
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "must be an address and a port, for example 0.0.0.0:8443 or [::]:8443".to_owned())
}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') { Err("must be a path".to_owned()) } else { Ok(PathBuf::from(text)) }
}

fn up_to(text: &str, longest: &str) -> Result<Duration, String> {
    let duration = units::duration(text)?;
    if duration <= units::duration(longest)? { Ok(duration) } else { Err(format!("must not be over {longest}")) }
}

fn one_of<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        format!("must be one of: {}", words.join(", "))
    })
}

#[cfg(test)]
mod tests;
