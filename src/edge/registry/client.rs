//! One question to a registry: redirects, authorization, retries. It must never send a credential to another host, nor
//! read a refusal as an absence.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_lc_rs::{hmac, rand};
use bytes::Bytes;
use moka::future::Cache;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};
use tokio::time::Instant;

use super::address::{authority, parse_url, same_origin};
use super::auth::{Grant, Party, Tokens, parse_challenges};
use super::breaker::{Breaker, Place};
use super::credentials::{Credential, DockerConfig};
use super::settings::{Settings, SettingsError};
use super::transport::{At, Fault, Limit, Transport, refusal, retry_after};
use super::{Budget, Failure};
use crate::decision::reference::{Digest, Host, Repository};
use crate::edge::cores::Cores;

/// Most redirects that are followed.
const MAX_REDIRECTS: usize = 3;
/// Pauses before the second and the third try; each is lengthened by a random part of itself.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];
/// How long what a registry supports is remembered.
const REMEMBERED: Duration = Duration::from_hours(1);

/// What all calls share.
#[derive(Debug)]
pub(super) struct Client {
    transport: Transport,
    /// Credentials of each listed host.
    credentials: BTreeMap<Host, Option<DockerConfig>>,
    /// Credentials of all others.
    docker_config: Option<DockerConfig>,
    /// Hosts to which we show a client certificate.
    shows_certificate: BTreeSet<Host>,
    realms: BTreeMap<Host, Url>,
    tokens: Tokens,
    breaker: Breaker,
    scope_key: hmac::Key,
    /// What is known of the referrers API.
    pub(super) api: Api,
    /// Where long lists are read.
    pub(super) cores: Cores,
}

/// Which hosts have the referrers API, for an hour.
#[derive(Debug)]
pub(super) struct Api {
    /// Whether a host has it.
    hosts: Cache<Host, bool>,
    /// Repositories that are there.
    seen: Cache<Repository, ()>,
    /// Repositories whose 404 from the API may only mean that they are not there.
    doubtful: Cache<Repository, ()>,
}

/// One question.
pub(super) struct Ask<'a> {
    pub(super) repository: &'a Repository,
    pub(super) url: &'a Url,
    pub(super) accept: Option<&'static str>,
    pub(super) limit: Limit,
    /// Whether a redirect to another host is followed, or is itself the answer.
    pub(super) leave: bool,
    /// What is asked for, in words for the reader.
    pub(super) what: &'a str,
}

impl<'a> Ask<'a> {
    /// A `GET` that follows redirects.
    pub(super) const fn get(repository: &'a Repository, url: &'a Url, limit: Limit, what: &'a str) -> Self {
        Self { repository, url, accept: None, limit, leave: true, what }
    }
}

/// An answer.
#[derive(Debug)]
pub(super) enum Reply {
    /// 200.
    Found { bytes: Bytes, digest: Digest, headers: HeaderMap },
    /// 404 or 405: it is not there, or is not supported. `unknown` where the registry says, in its own words, that it
    /// lacks the repository or the manifest.
    Absent { status: StatusCode, unknown: bool },
    /// A redirect to another host, not followed.
    Elsewhere,
}

impl Client {
    pub(super) fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let transport = Transport::new(settings)?;
        let mut realms = BTreeMap::new();
        for (host, special) in &settings.hosts {
            if let Some(realm) = &special.realm {
                let url = parse_url(realm, None).map_err(|what| SettingsError::Realm {
                    host: host.clone(),
                    detail: format!("the address {what}"),
                })?;
                realms.insert(host.clone(), url);
            }
        }
        let mut key = [0; 32];
        rand::fill(&mut key).map_err(|_| SettingsError::Random)?;
        Ok(Self {
            transport,
            credentials: settings
                .hosts
                .iter()
                .map(|(host, special)| (host.clone(), special.credentials.clone()))
                .collect(),
            docker_config: settings.docker_config.clone(),
            shows_certificate: settings
                .hosts
                .iter()
                .filter(|(_, special)| special.client_cert.is_some())
                .map(|(host, _)| host.clone())
                .collect(),
            realms,
            tokens: Tokens::new(),
            breaker: Breaker::default(),
            scope_key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            api: Api::new(),
            cores: Cores::all_but_one(),
        })
    }

    /// The address of something below `/v2/<repository>/`.
    pub(super) fn url(&self, repository: &Repository, below: &str) -> Result<Url, Failure> {
        let mut url = self.transport.base(repository.host())?;
        url.set_path(&format!("/v2/{}/{below}", repository.path()));
        Ok(url)
    }

    /// Keyed hash of the credentials that would be used.
    pub(super) fn scope(&self, repository: &Repository) -> [u8; 32] {
        self.hash(&self.matching(repository))
    }

    /// Whether anything of the operator's would be shown to the registry for a repository.
    pub(super) fn lends(&self, repository: &Repository) -> bool {
        self.shows_certificate.contains(repository.host()) || !self.matching(repository).is_empty()
    }

    /// The scope of those to whom nothing is lent where others would be lent something: like no other.
    pub(super) fn refused_scope(&self) -> [u8; 32] {
        let mut tag = [0; 32];
        tag.copy_from_slice(hmac::sign(&self.scope_key, b"nothing is lent").as_ref());
        tag
    }

    /// Asks, with at most two retries where trying again may help.
    pub(super) async fn ask(&self, ask: &Ask<'_>, budget: &Budget) -> Result<Reply, Failure> {
        let scope = self.scope(ask.repository);
        let host = Place::Host(ask.repository.host().clone(), scope);
        let repository = Place::Repository(ask.repository.clone(), scope);
        let places = [host, repository];
        if let Err(failure) = self.breaker.check(&places, Instant::now()) {
            count("held-back");
            return Err(failure);
        }
        let [host, repository] = places;
        let mut pauses = PAUSES.into_iter();
        loop {
            let result = self.attempt(ask, budget).await;
            count(outcome(&result));
            let fault = match result {
                Ok(reply) => return Ok(reply),
                Err(fault) if !fault.failure.may_pass() => return Err(fault.failure),
                Err(fault) => fault,
            };
            let now = Instant::now();
            match pauses.next().map(|pause| now + jittered(pause).max(fault.after.unwrap_or_default())) {
                Some(again) if again < budget.deadline => {
                    // Our own pauses are too short to be anybody's reason.
                    let _pause = fault.after.map(|_| budget.sit_out(&fault.failure, again));
                    tokio::time::sleep_until(again).await;
                }
                Some(_) | None => {
                    match fault.at {
                        At::Host => self.breaker.trip(host, &fault.failure, fault.after, now),
                        At::Repository => self.breaker.trip(repository, &fault.failure, fault.after, now),
                        At::Call => {}
                    }
                    return Err(fault.failure);
                }
            }
        }
    }

    /// One try with each credential that matches; a refused one leads to the next, and the last refusal stands.
    async fn attempt(&self, ask: &Ask<'_>, budget: &Budget) -> Result<Reply, Fault> {
        let credentials = self.matching(ask.repository);
        let Some((last, others)) = credentials.split_last() else {
            return self.with_credential(ask, None, budget).await;
        };
        for credential in others {
            match self.with_credential(ask, Some(credential), budget).await {
                Err(Fault { failure: Failure::AuthFailed { .. }, .. }) => {}
                other => return other,
            }
        }
        self.with_credential(ask, Some(last), budget).await
    }

    /// Asks with the authorization that is kept for this credential, and once more after a challenge.
    async fn with_credential(
        &self,
        ask: &Ask<'_>,
        credential: Option<&Credential>,
        budget: &Budget,
    ) -> Result<Reply, Fault> {
        let host = ask.repository.host();
        let base = self.transport.base(host)?;
        let used: Vec<&Credential> = credential.into_iter().collect();
        let grant = Grant { repository: ask.repository.clone(), credential: self.hash(&used) };
        let kept = self.tokens.current(&grant, budget).await?;
        let Some(response) = self.follow(ask, &base, kept.as_ref(), budget).await? else {
            return Ok(Reply::Elsewhere);
        };
        // Only the registry itself may ask for an authorization: a host to which it sent us gets none.
        if response.status() != StatusCode::UNAUTHORIZED || !same_origin(&base, response.url()) {
            return self.read(ask, response, budget).await;
        }
        let headers = response.headers().clone();
        let unreadable = |what: &str| Failure::AuthFailed {
            detail: format!("{} answers 401 to the request for {}, and its WWW-Authenticate {what}", host, ask.what),
        };
        let texts: Result<Vec<&str>, _> = headers.get_all(WWW_AUTHENTICATE).iter().map(HeaderValue::to_str).collect();
        let challenge =
            parse_challenges(texts.map_err(|_| unreadable("cannot be read"))?.into_iter()).map_err(unreadable)?;
        // Read to its end, so that the connection can be used again.
        let _ = self.transport.error_body(response, budget).await;
        let party = Party { transport: &self.transport, host, base: &base, realm: self.realms.get(host), credential };
        let fresh = self.tokens.renew(&grant, kept.as_ref(), &challenge, &party, budget).await?;
        match self.follow(ask, &base, Some(&fresh), budget).await? {
            Some(response) => self.read(ask, response, budget).await,
            None => Ok(Reply::Elsewhere),
        }
    }

    /// Sends a question and follows its redirects. `None` where it leads to another host and may not be followed.
    async fn follow(
        &self,
        ask: &Ask<'_>,
        base: &Url,
        authorization: Option<&HeaderValue>,
        budget: &Budget,
    ) -> Result<Option<Response>, Fault> {
        let mut url = ask.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut headers = HeaderMap::new();
            if let Some(accept) = ask.accept {
                headers.insert(ACCEPT, HeaderValue::from_static(accept));
            }
            if let Some(authorization) = authorization.filter(|_| same_origin(base, &url)) {
                headers.insert(AUTHORIZATION, authorization.clone());
            }
            let sent = self.transport.send(ask.repository.host(), &url, headers, budget).await;
            let response = sent.map_err(|fault| elsewhere(fault, base, &url))?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(Some(response));
            }
            let target = redirect(&response, &url)?;
            if !ask.leave && !same_origin(base, &target) {
                return Ok(None);
            }
            // A host that speaks plain http may send us about its own house, and nobody may send us to another's.
            if target.scheme() != "https" && !same_origin(&url, &target) {
                let detail = format!(
                    "{} redirects to {} over plain http, which is not followed",
                    authority(&url),
                    authority(&target)
                );
                return Err(Failure::AddressRefused { detail }.into());
            }
            url = target;
        }
        let detail =
            format!("{} redirects the request for {} more than {MAX_REDIRECTS} times", authority(base), ask.what);
        Err(Failure::AddressRefused { detail }.into())
    }

    async fn read(&self, ask: &Ask<'_>, response: Response, budget: &Budget) -> Result<Reply, Fault> {
        let status = response.status();
        let url = response.url().clone();
        let headers = response.headers().clone();
        let result = match status.as_u16() {
            200 => {
                let body = self.transport.body(response, ask.limit, ask.what, budget).await;
                body.map(|(bytes, digest)| Reply::Found { bytes, digest, headers })
            }
            404 | 405 => {
                let said = self.transport.error_body(response, budget).await;
                let unknown =
                    said.is_some_and(|said| matches!(said.code.as_str(), "NAME_UNKNOWN" | "MANIFEST_UNKNOWN"));
                Ok(Reply::Absent { status, unknown })
            }
            _ => {
                let said = self.transport.error_body(response, budget).await;
                Err(refusal(status, retry_after(&headers), &url, ask.what, said.as_ref()))
            }
        };
        result.map_err(|fault| elsewhere(fault, ask.url, &url))
    }

    /// The credentials for a repository: those of its host where that is listed, else the common ones.
    fn matching(&self, repository: &Repository) -> Vec<&Credential> {
        let config = match self.credentials.get(repository.host()) {
            Some(own) => own.as_ref(),
            None => self.docker_config.as_ref(),
        };
        config.map(|config| config.matching(repository)).unwrap_or_default()
    }

    fn hash(&self, credentials: &[&Credential]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.scope_key);
        for credential in credentials {
            let plain = credential.plain();
            context.update(&(plain.reveal().len() as u64).to_be_bytes());
            context.update(plain.reveal().as_bytes());
        }
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }
}

impl Api {
    fn new() -> Self {
        Self {
            hosts: Cache::builder().max_capacity(1024).time_to_live(REMEMBERED).build(),
            seen: Cache::builder().max_capacity(4096).time_to_live(REMEMBERED).build(),
            doubtful: Cache::builder().max_capacity(4096).time_to_live(REMEMBERED).build(),
        }
    }

    /// Whether a host is known to have the API, or known to lack it.
    pub(super) async fn known(&self, host: &Host) -> Option<bool> {
        self.hosts.get(host).await
    }

    /// The host has answered with a list.
    pub(super) async fn has(&self, host: &Host) {
        self.hosts.insert(host.clone(), true).await;
    }

    /// The API is not there, as far as this repository shows. A registry that has it answers 404 as well for a
    /// repository that it lacks, so this counts only once the repository is known to be there, and never against a list
    /// that was seen.
    pub(super) async fn lacks(&self, repository: &Repository, sure: bool) {
        if self.known(repository.host()).await == Some(true) {
            return;
        }
        if sure || self.seen.get(repository).await.is_some() {
            self.hosts.insert(repository.host().clone(), false).await;
        } else {
            self.doubtful.insert(repository.clone(), ()).await;
        }
    }

    /// The repository is there.
    pub(super) async fn exists(&self, repository: &Repository) {
        if self.seen.get(repository).await.is_none() {
            self.seen.insert(repository.clone(), ()).await;
        }
        if self.doubtful.remove(repository).await.is_some() && self.known(repository.host()).await.is_none() {
            self.hosts.insert(repository.host().clone(), false).await;
        }
    }
}

/// A fault of storage to which the registry sent us says nothing about the registry as a whole.
fn elsewhere(fault: Fault, registry: &Url, url: &Url) -> Fault {
    match fault.at {
        At::Host if !same_origin(registry, url) => Fault { at: At::Repository, ..fault },
        At::Host | At::Repository | At::Call => fault,
    }
}

/// Where a redirect leads.
fn redirect(response: &Response, from: &Url) -> Result<Url, Failure> {
    let host = authority(from);
    let mut locations = response.headers().get_all(LOCATION).iter();
    let (Some(location), None) = (locations.next(), locations.next()) else {
        let status = response.status().as_u16();
        let detail = format!("{host} answers {status} without one Location");
        return Err(Failure::Unavailable { detail, transient: false });
    };
    let location = location.to_str().map_err(|_| "holds characters that do not belong in an address");
    // Not quoted: addresses of storage carry their authorization with them.
    location
        .and_then(|text| parse_url(text, Some(from)))
        .map_err(|what| Failure::AddressRefused { detail: format!("{host} redirects to an address that {what}") })
}

/// A pause and a random part of it, so that many callers do not come back at once.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 2];
    // Without randomness the pause is the full one.
    let part = rand::fill(&mut random).map_or(u16::MAX, |()| u16::from_be_bytes(random));
    pause + pause * u32::from(part) / u32::from(u16::MAX)
}

fn count(outcome: &'static str) {
    metrics::counter!("provost_registry_requests_total", "outcome" => outcome).increment(1);
}

fn outcome(result: &Result<Reply, Fault>) -> &'static str {
    match result {
        Ok(Reply::Found { .. }) => "ok",
        Ok(Reply::Absent { .. }) => "not-found",
        Ok(Reply::Elsewhere) => "elsewhere",
        Err(fault) => match &fault.failure {
            Failure::NotFound { .. } => "not-found",
            Failure::AuthFailed { .. } => "auth-failed",
            Failure::RateLimited { .. } => "rate-limited",
            Failure::AddressRefused { .. } => "address-refused",
            Failure::Unavailable { .. } => "unavailable",
            Failure::DigestMismatch { .. } => "digest-mismatch",
            Failure::BudgetExceeded { .. } => "budget-exceeded",
            Failure::DeadlineExceeded { .. } => "deadline-exceeded",
        },
    }
}
