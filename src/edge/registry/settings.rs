//! What the operator says about registries, as plain types. It must never read a file or the environment.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::address::Network;
use super::credentials::DockerConfig;
use crate::decision::reference::Host;

/// All that the registry client is told from outside.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Hosts that need something special, by the name that images use for them (`docker.io`, not `registry-1.docker.io`).
    pub hosts: BTreeMap<Host, HostSettings>,
    /// Credentials for the hosts that are not listed. A listed host uses its own and no others.
    pub docker_config: Option<DockerConfig>,
    /// Names whose addresses are known without DNS. What it answers is checked as what DNS answers.
    pub names: Option<Names>,
    /// Longest wait for a connection: name, TCP and TLS together.
    pub connect_timeout: Duration,
    /// Longest silence of a registry that is connected.
    pub idle_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hosts: BTreeMap::new(),
            docker_config: None,
            names: None,
            connect_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(2),
        }
    }
}

/// What is special about one host (`registries:` in `provost.yaml`).
#[derive(Debug, Clone, Default)]
pub struct HostSettings {
    /// Private, loopback, link-local and other special addresses that this host may have. Public ones it always may.
    pub addresses: Vec<Network>,
    /// PEM certificates that are trusted for this host beside those of the system.
    pub ca: Option<Vec<u8>>,
    /// Speak http, and not https, to this host.
    pub plain_http: bool,
    /// Credentials for this host.
    pub credentials: Option<DockerConfig>,
    /// The one foreign address to which this host may send us for a token, for example `https://auth.corp.example`.
    pub realm: Option<String>,
    /// The certificate that we show to this host.
    pub client_cert: Option<ClientCert>,
}

/// A client certificate with its private key. `Debug` shows neither.
#[derive(Clone)]
pub struct ClientCert {
    /// The certificate and its chain, PEM.
    pub cert: Vec<u8>,
    /// The private key, PEM.
    pub key: Vec<u8>,
}

impl fmt::Debug for ClientCert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCert(***)")
    }
}

/// Answers names before DNS is asked: `None` leaves the name to DNS.
#[derive(Clone)]
pub struct Names(Arc<Answer>);

type Answer = dyn Fn(&str) -> Option<Vec<IpAddr>> + Send + Sync;

impl Names {
    /// Names answered by a function.
    pub fn new(answer: impl Fn(&str) -> Option<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(answer))
    }

    /// A fixed table.
    #[must_use]
    pub fn table(table: BTreeMap<String, Vec<IpAddr>>) -> Self {
        Self::new(move |name| table.get(name).cloned())
    }

    pub(super) fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        (self.0)(name)
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names(..)")
    }
}

/// Why settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// `ca` holds no readable certificate.
    #[error("registries.{host}.ca: {detail}")]
    Ca {
        /// Which host.
        host: Host,
        /// What is wrong.
        detail: String,
    },
    /// `clientCert` cannot be used.
    #[error("registries.{host}.clientCert: {detail}")]
    ClientCert {
        /// Which host.
        host: Host,
        /// What is wrong.
        detail: String,
    },
    /// `realm` is no address to which credentials may go.
    #[error("registries.{host}.realm: {detail}")]
    Realm {
        /// Which host.
        host: Host,
        /// What is wrong.
        detail: String,
    },
    /// The HTTP client for a host cannot be made.
    #[error("registries.{host}: {detail}")]
    Client {
        /// Which host.
        host: Host,
        /// What is wrong.
        detail: String,
    },
    /// The system gives no randomness.
    #[error("the system gives no random bytes")]
    Random,
}
