//! One HTTP exchange: which client, which address, how long, how many bytes. It must never follow a redirect, add a
//! credential or try again.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use jiff::Timestamp;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};
use tokio::time::Instant;

use super::address::{self, Guard, Refused, authority, same_origin};
use super::settings::{HostSettings, Names, Settings, SettingsError};
use super::{Budget, Failure, shown};
use crate::decision::reference::{Digest, Host};
use crate::edge::clock;

/// Most bytes of an error body that are read.
const MAX_ERROR_BODY: u64 = 16 * 1024;

/// A failure, where it lies, and how long the registry asked us to wait.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) failure: Failure,
    pub(super) at: At,
    pub(super) after: Option<Duration>,
}

/// What a failure says about later calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// The whole host is likely to fail as well.
    Host,
    /// This repository is.
    Repository,
    /// Nothing but this call.
    Call,
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self { failure, at: At::Call, after: None }
    }
}

/// The HTTP clients: one for each listed host, one for all others.
#[derive(Debug)]
pub(super) struct Transport {
    listed: BTreeMap<Host, Route>,
    /// Made when it is first wanted, for it reads the system's certificates. Where there are none it is an error, and
    /// listed hosts with a `ca` of their own work all the same.
    unlisted: OnceLock<Result<Route, String>>,
    names: Option<Names>,
    connect: Duration,
    idle: Duration,
}

#[derive(Debug)]
struct Route {
    client: Client,
    guard: Arc<Guard>,
    plain_http: bool,
}

impl Transport {
    pub(super) fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let mut listed = BTreeMap::new();
        for (host, special) in &settings.hosts {
            listed.insert(host.clone(), Route::listed(host, special, settings)?);
        }
        Ok(Self {
            listed,
            unlisted: OnceLock::new(),
            names: settings.names.clone(),
            connect: settings.connect_timeout,
            idle: settings.idle_timeout,
        })
    }

    /// Where a registry is reached: its scheme, host and port. Docker Hub answers under another name.
    pub(super) fn base(&self, host: &Host) -> Result<Url, Failure> {
        let scheme = if self.listed.get(host).is_some_and(|route| route.plain_http) { "http" } else { "https" };
        let name = if host.as_str() == "docker.io" { "registry-1.docker.io" } else { host.as_str() };
        address::parse_url(&format!("{scheme}://{name}/"), None)
            .map_err(|what| Failure::AddressRefused { detail: format!("the registry address {host} {what}") })
    }

    /// Sends one `GET` and waits for the head of its answer. `host` is the registry on whose behalf it is sent; the
    /// settings that count are those of the host that `url` names.
    pub(super) async fn send(
        &self,
        host: &Host,
        url: &Url,
        mut headers: HeaderMap,
        budget: &Budget,
    ) -> Result<Response, Fault> {
        let route = self.route(host, url)?;
        if url.scheme() != "https" && !(url.scheme() == "http" && route.plain_http) {
            let detail = format!(
                "{} would be spoken to over {}: only https is used, and http where provost.yaml sets plainHttp for the host",
                authority(url),
                shown(url.scheme(), 20)
            );
            return Err(Failure::AddressRefused { detail }.into());
        }
        route.guard.check_literal(url).map_err(|Refused(detail)| Failure::AddressRefused { detail })?;
        budget.spend_request()?;
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let sent = route.client.get(url.clone()).headers(headers).send();
        // From outside one cannot see when the connection stands: its own limit is the client's.
        let longest = self.connect + self.idle;
        match within(longest, budget, sent).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.fault(&error, url)),
            Err(Late::Deadline) => Err(deadline(url)),
            Err(Late::Idle) => Err(silent(url, longest)),
        }
    }

    /// Reads a body of at most `cap` bytes, or of exactly `exact` bytes, and hashes it on the way.
    pub(super) async fn body(
        &self,
        mut response: Response,
        limit: Limit,
        what: &str,
        budget: &Budget,
    ) -> Result<(Bytes, Digest), Fault> {
        let url = response.url().clone();
        let from = authority(&url);
        if let Some(encoding) = response.headers().get(CONTENT_ENCODING)
            && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
        {
            let encoding = shown(&String::from_utf8_lossy(encoding.as_bytes()), 40);
            let detail =
                format!("{from} sends {what} encoded as {encoding}, which was not asked for and is not decoded");
            return Err(Failure::Unavailable { detail, transient: false }.into());
        }
        let declared =
            response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if let Some(declared) = declared {
            limit.check(declared, &from, what)?;
            budget.has_bytes(declared)?;
        }
        let mut bytes = Vec::with_capacity(usize::try_from(declared.unwrap_or(0).min(1 << 20)).unwrap_or(0));
        let mut read = 0_u64;
        let mut hash = digest::Context::new(&digest::SHA256);
        loop {
            match within(self.idle, budget, response.chunk()).await {
                Ok(Ok(None)) => break,
                Ok(Ok(Some(chunk))) => {
                    read = read.saturating_add(chunk.len() as u64);
                    limit.check_part(read, &from, what)?;
                    budget.spend_bytes(chunk.len() as u64)?;
                    hash.update(&chunk);
                    bytes.extend_from_slice(&chunk);
                }
                Ok(Err(error)) => {
                    let detail = format!("{from} broke off while sending {what}: {}", innermost(&error));
                    return Err(Fault {
                        failure: Failure::Unavailable { detail, transient: true },
                        at: At::Host,
                        after: None,
                    });
                }
                Err(Late::Deadline) => return Err(deadline(&url)),
                Err(Late::Idle) => return Err(silent(&url, self.idle)),
            }
        }
        limit.check(read, &from, what)?;
        let mut sum = [0; 32];
        sum.copy_from_slice(hash.finish().as_ref());
        Ok((Bytes::from(bytes), Digest::from_bytes(sum)))
    }

    /// What a reply that is no answer says about itself, in the distribution specification's form: code and message.
    /// Its body is read as far as it fits; what cannot be read says nothing.
    pub(super) async fn error_body(&self, response: Response, budget: &Budget) -> Option<Said> {
        #[derive(serde::Deserialize)]
        struct Errors {
            errors: Vec<Error>,
        }
        #[derive(serde::Deserialize)]
        struct Error {
            code: Option<String>,
            message: Option<String>,
        }
        let (body, _) = self.body(response, Limit::AtMost(MAX_ERROR_BODY), "an error", budget).await.ok()?;
        let error = serde_json::from_slice::<Errors>(&body).ok()?.errors.into_iter().next()?;
        Some(Said { code: error.code.unwrap_or_default(), message: error.message.unwrap_or_default() })
    }

    /// The client for a URL: that of the registry itself, of another listed host, or the common one.
    fn route(&self, host: &Host, url: &Url) -> Result<&Route, Failure> {
        let own = self.base(host).is_ok_and(|base| same_origin(&base, url));
        let listed = if own { self.listed.get(host) } else { self.other(url) };
        if let Some(route) = listed {
            return Ok(route);
        }
        self.unlisted().as_ref().map_err(|why| Failure::Unavailable {
            detail: format!("TLS with {} is not possible on this machine: {why}", authority(url)),
            transient: false,
        })
    }

    fn unlisted(&self) -> &Result<Route, String> {
        self.unlisted.get_or_init(|| {
            let guard = Arc::new(Guard::new(None, Vec::new(), self.names.clone()));
            match client(self.connect, &guard).https_only(true).build() {
                Ok(client) => Ok(Route { client, guard, plain_http: false }),
                Err(error) => Err(innermost(&error)),
            }
        })
    }

    /// The listed host that a URL names, with or without its default port.
    fn other(&self, url: &Url) -> Option<&Route> {
        let short = authority(url);
        let full = format!("{}:{}", url.host_str()?, url.port_or_known_default()?);
        [short, full].iter().find_map(|name| self.listed.get(&name.parse::<Host>().ok()?))
    }

    fn fault(&self, error: &reqwest::Error, url: &Url) -> Fault {
        let host = authority(url);
        if let Some(Refused(detail)) = chain(error).find_map(|error| error.downcast_ref::<Refused>()) {
            return Failure::AddressRefused { detail: detail.clone() }.into();
        }
        let (detail, transient) = if let Some(tls) = chain(error).find_map(tls_error) {
            (format!("TLS with {host} failed: {}", shown(&tls.to_string(), 200)), false)
        } else if error.is_dns() {
            (format!("the name of {host} does not resolve: {}", innermost(error)), true)
        } else if error.is_timeout() {
            (format!("no connection to {host} within {} s", self.connect.as_secs_f32()), true)
        } else if error.is_connect() {
            (format!("no connection to {host}: {}", innermost(error)), true)
        } else {
            (format!("{host} broke off before its answer: {}", innermost(error)), true)
        };
        Fault { failure: Failure::Unavailable { detail, transient }, at: At::Host, after: None }
    }
}

impl Route {
    fn listed(host: &Host, special: &HostSettings, settings: &Settings) -> Result<Self, SettingsError> {
        let guard = Guard::new(Some(host.to_string()), special.addresses.clone(), settings.names.clone());
        let guard = Arc::new(guard);
        let mut builder = client(settings.connect_timeout, &guard).https_only(!special.plain_http);
        let mut trusted = Vec::new();
        if let Some(pem) = &special.ca {
            let ca = |detail| SettingsError::Ca { host: host.clone(), detail };
            trusted = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| ca(innermost(&error)))?;
            if trusted.is_empty() {
                return Err(ca("holds no certificate".to_owned()));
            }
        }
        if let Some(pair) = &special.client_cert {
            let pem = [pair.key.as_slice(), b"\n", pair.cert.as_slice()].concat();
            // The parser's message may hold what it read: that may be the key.
            let identity = reqwest::Identity::from_pem(&pem).map_err(|_| SettingsError::ClientCert {
                host: host.clone(),
                detail: "not a certificate and its private key in PEM".to_owned(),
            })?;
            builder = builder.identity(identity);
        }
        // Over plain http no certificate is looked at: the system need not have any.
        builder = if special.plain_http { builder.tls_certs_only(trusted) } else { builder.tls_certs_merge(trusted) };
        let client =
            builder.build().map_err(|error| SettingsError::Client { host: host.clone(), detail: innermost(&error) })?;
        Ok(Self { client, guard, plain_http: special.plain_http })
    }
}

/// How long a body may be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    /// At most so many bytes.
    AtMost(u64),
    /// So many bytes, as a descriptor says.
    Exactly(u64),
}

impl Limit {
    fn check(self, length: u64, from: &str, what: &str) -> Result<(), Failure> {
        match self {
            Self::Exactly(size) if length != size => Err(Failure::DigestMismatch {
                detail: format!("{from} sends {length} bytes for {what}, whose descriptor says {size}"),
            }),
            Self::Exactly(_) | Self::AtMost(_) => self.check_part(length, from, what),
        }
    }

    fn check_part(self, length: u64, from: &str, what: &str) -> Result<(), Failure> {
        match self {
            Self::AtMost(cap) if length > cap => {
                Err(Failure::BudgetExceeded { detail: format!("{from} sends more than {cap} bytes for {what}") })
            }
            Self::Exactly(size) if length > size => Err(Failure::DigestMismatch {
                detail: format!("{from} sends more than {size} bytes for {what}, whose descriptor says {size}"),
            }),
            Self::AtMost(_) | Self::Exactly(_) => Ok(()),
        }
    }
}

/// The first error of an error body.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub(super) code: String,
    pub(super) message: String,
}

/// A reply that is neither the thing asked for nor its absence, as a failure.
pub(super) fn refusal(
    status: StatusCode,
    after: Option<Duration>,
    url: &Url,
    what: &str,
    said: Option<&Said>,
) -> Fault {
    let host = authority(url);
    let words =
        said.map(|said| format!(" ({})", shown(&format!("{}: {}", said.code, said.message), 200))).unwrap_or_default();
    let detail = format!("{host} answers {} to the request for {what}{words}", status.as_u16());
    let (failure, at) = match status.as_u16() {
        401 | 403 => (Failure::AuthFailed { detail }, At::Call),
        429 => (Failure::RateLimited { host, retry_after: after }, At::Host),
        408 | 500..=599 => (Failure::Unavailable { detail, transient: true }, At::Repository),
        _ => (Failure::Unavailable { detail, transient: false }, At::Call),
    };
    Fault { failure, at, after }
}

/// `Retry-After` as a time to wait (RFC 9110, 10.2.3): seconds or a date.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    parse_retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?.trim(), clock::now())
}

fn parse_retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More seconds than fit are a very long time; so are those that fit here and not into an instant.
        return Some(Duration::from_secs(u64::from(text.parse().unwrap_or(u32::MAX))));
    }
    let then = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(then.duration_since(now)).unwrap_or(Duration::ZERO))
}

fn client(connect: Duration, guard: &Arc<Guard>) -> reqwest::ClientBuilder {
    Client::builder()
        .user_agent(concat!("provost/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        // A proxy would resolve names by itself, past the guard.
        .no_proxy()
        .dns_resolver(Arc::clone(guard))
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .http1_only()
        .connect_timeout(connect)
        .pool_max_idle_per_host(16)
        .pool_idle_timeout(Duration::from_secs(30))
        .tcp_nodelay(true)
}

enum Late {
    Deadline,
    Idle,
}

/// Waits for at most `longest`, and never beyond the deadline.
async fn within<T>(longest: Duration, budget: &Budget, future: impl Future<Output = T>) -> Result<T, Late> {
    let idle = Instant::now() + longest;
    match tokio::time::timeout_at(idle.min(budget.deadline), future).await {
        Ok(output) => Ok(output),
        Err(_) if budget.deadline <= idle => Err(Late::Deadline),
        Err(_) => Err(Late::Idle),
    }
}

fn deadline(url: &Url) -> Fault {
    Failure::DeadlineExceeded { doing: format!("waiting for {}", authority(url)) }.into()
}

fn silent(url: &Url, longest: Duration) -> Fault {
    let detail = format!("{} has sent nothing for {} s", authority(url), longest.as_secs_f32());
    Fault { failure: Failure::Unavailable { detail, transient: true }, at: At::Host, after: None }
}

/// An error and all its causes. An `io::Error` hides the error that it wraps from `source()`.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner as &(dyn StdError + 'static)),
        None => error.source(),
    })
}

fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    error.downcast_ref()
}

/// The cause at the bottom, as one line. The outer errors hold URLs, and those of storage hold signatures.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    chain(error).last().map(|error| shown(&error.to_string(), 200)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x_042_retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "1994-11-06T08:49:07Z".parse().expect("time");
        for (text, want) in [
            ("0", Some(0)),
            ("120", Some(120)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:48:37 GMT", Some(0)),
            ("99999999999999999999999", Some(u64::from(u32::MAX))),
            ("9999999999999999999", Some(u64::from(u32::MAX))),
            ("4294967294", Some(4_294_967_294)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(parse_retry_after(text, now), want.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn registries_are_reached_over_https_unless_listed() {
        let mut settings = Settings::default();
        let plain = HostSettings { plain_http: true, ..HostSettings::default() };
        settings.hosts.insert("r.example:5000".parse().expect("host"), plain);
        let transport = Transport::new(&settings).expect("settings");
        for (host, base) in [
            ("docker.io", "https://registry-1.docker.io/"),
            ("r.example", "https://r.example/"),
            ("r.example:443", "https://r.example/"),
            ("r.example:5000", "http://r.example:5000/"),
            ("[::1]:5000", "https://[::1]:5000/"),
        ] {
            assert_eq!(transport.base(&host.parse().expect(host)).expect(host).as_str(), base);
        }
    }

    #[test]
    fn a_url_is_served_under_the_settings_of_its_own_host() {
        let mut settings = Settings::default();
        for host in ["a.example", "b.example:443", "c.example:5000", "docker.io"] {
            let plain = HostSettings { plain_http: host.starts_with('c'), ..HostSettings::default() };
            settings.hosts.insert(host.parse().expect("host"), plain);
        }
        let transport = Transport::new(&settings).expect("settings");
        let unlisted = transport.unlisted().as_ref().expect("a client");
        for (host, url, listed) in [
            ("a.example", "https://a.example/v2/", Some("a.example")),
            ("a.example", "https://b.example/v2/", Some("b.example:443")),
            ("a.example", "https://c.example/v2/", None),
            ("a.example", "https://c.example:5000/v2/", Some("c.example:5000")),
            ("x.example", "https://a.example:443/v2/", Some("a.example")),
            ("x.example", "https://a.example:444/v2/", None),
            ("docker.io", "https://registry-1.docker.io/v2/", Some("docker.io")),
            ("docker.io", "https://auth.docker.io/token", None),
            ("a.example", "https://registry-1.docker.io/v2/", None),
        ] {
            let route = transport.route(&host.parse().expect(host), &Url::parse(url).expect(url)).expect("a route");
            let want = match listed {
                Some(name) => transport.listed.get(&name.parse::<Host>().expect(name)).expect(name),
                None => unlisted,
            };
            assert!(std::ptr::eq(route, want), "{host} {url}");
        }
    }
}
