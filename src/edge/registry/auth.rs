//! Challenges and tokens (RFC 9110 section 11, distribution token authentication). It must never send a credential, or
//! anything at all, to a realm that is neither the registry itself nor a pair that is listed.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::address::{authority, parse_url, same_origin};
use super::credentials::{Credential, Secret};
use super::transport::{At, Fault, Limit, Transport, refusal, retry_after};
use super::{Budget, Failure, shown};
use crate::decision::reference::{Host, Repository};

/// Longest token reply, in bytes.
const MAX_TOKEN_REPLY: u64 = 64 * 1024;
/// Life of a token whose reply does not say (distribution token specification).
const DEFAULT_LIFE: u64 = 60;
/// Longest life that is believed, in seconds.
const LONGEST_LIFE: u64 = 3600;
/// A token is not used in its last seconds: it has a way to go.
const MARGIN: Duration = Duration::from_secs(10);
/// Authorizations that are kept.
const KEPT: u64 = 4096;
/// Pairs of registry and token service that everybody uses.
const KNOWN_REALMS: &[(&str, &str)] =
    &[("docker.io", "https://auth.docker.io/"), ("registry.gitlab.com", "https://gitlab.com/")];

/// What a registry wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A token from a token service.
    Bearer {
        /// The service's address, unchecked.
        realm: String,
        /// The name under which it knows the registry.
        service: Option<String>,
    },
    /// User and password.
    Basic,
}

/// For whom and what an authorization is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Grant {
    pub(super) repository: Repository,
    /// Keyed hash of the credential; of nothing where there is none.
    pub(super) credential: [u8; 32],
}

/// Authorizations that served, each obtained by one call for all that wait.
#[derive(Debug)]
pub(super) struct Tokens(Cache<Grant, Arc<Mutex<Option<Ready>>>>);

#[derive(Debug)]
struct Ready {
    header: HeaderValue,
    until: Instant,
}

/// One registry, as it concerns authorization.
pub(super) struct Party<'a> {
    pub(super) transport: &'a Transport,
    pub(super) host: &'a Host,
    /// Scheme, host and port of the registry.
    pub(super) base: &'a Url,
    /// The realm that the operator lists for this host.
    pub(super) realm: Option<&'a Url>,
    pub(super) credential: Option<&'a Credential>,
}

impl Tokens {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(KEPT).time_to_idle(Duration::from_secs(LONGEST_LIFE)).build())
    }

    /// The authorization that served last, where it is still good.
    pub(super) async fn current(&self, grant: &Grant, budget: &Budget) -> Result<Option<HeaderValue>, Fault> {
        let Some(slot) = self.0.get(grant).await else { return Ok(None) };
        let ready = wait(budget, slot.lock()).await?;
        Ok(ready.as_ref().filter(|ready| ready.until > Instant::now()).map(|ready| ready.header.clone()))
    }

    /// A new authorization after a challenge. `refused` is the one that was just refused, if any: another call may have
    /// replaced it meanwhile.
    pub(super) async fn renew(
        &self,
        grant: &Grant,
        refused: Option<&HeaderValue>,
        challenge: &Challenge,
        party: &Party<'_>,
        budget: &Budget,
    ) -> Result<HeaderValue, Fault> {
        let slot = self.0.get_with_by_ref(grant, async { Arc::new(Mutex::new(None)) }).await;
        let mut ready = wait(budget, slot.lock()).await?;
        if let Some(ready) = ready.as_ref()
            && ready.until > Instant::now()
            && Some(&ready.header) != refused
        {
            return Ok(ready.header.clone());
        }
        *ready = None;
        let (text, life) = match challenge {
            Challenge::Basic => match party.credential {
                Some(credential) => {
                    (Secret::new(format!("Basic {}", credential.basic().reveal())), Duration::from_secs(LONGEST_LIFE))
                }
                None => {
                    return Err(failed(format!(
                        "{} wants a user and a password for {}, and none is configured",
                        party.host, grant.repository
                    )));
                }
            },
            Challenge::Bearer { realm, service } => {
                let realm = party.allowed_realm(realm)?;
                let (token, life) = party.exchange(realm, service.as_deref(), &grant.repository, budget).await?;
                (Secret::new(format!("Bearer {}", token.reveal())), life.saturating_sub(MARGIN))
            }
        };
        let mut header = HeaderValue::from_str(text.reveal())
            .map_err(|_| failed(format!("the token for {} is not a text that can be sent", grant.repository)))?;
        header.set_sensitive(true);
        *ready = Some(Ready { header: header.clone(), until: Instant::now() + life });
        Ok(header)
    }
}

impl Party<'_> {
    /// The realm as an address to which this registry may send us.
    fn allowed_realm(&self, realm: &str) -> Result<Url, Fault> {
        let url = parse_url(realm, None).map_err(|what| {
            failed(format!("{} names a realm for tokens that {what}: {}", self.host, shown(realm, 200)))
        })?;
        let known = KNOWN_REALMS
            .iter()
            .filter(|(host, _)| *host == self.host.as_str())
            .filter_map(|(_, realm)| Url::parse(realm).ok())
            .any(|known| covers(&known, &url));
        if same_origin(self.base, &url) || known || self.realm.is_some_and(|listed| covers(listed, &url)) {
            return Ok(url);
        }
        Err(failed(format!(
            "{host} sends us to {}://{} for a token, and that realm is not listed: set registries.{host}.realm if it is meant",
            shown(url.scheme(), 20),
            authority(&url),
            host = self.host,
        )))
    }

    /// Fetches a token to pull from one repository, and its life. The scope is ours, whatever the challenge asks for.
    async fn exchange(
        &self,
        mut url: Url,
        service: Option<&str>,
        repository: &Repository,
        budget: &Budget,
    ) -> Result<(Secret, Duration), Fault> {
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            query.append_pair("scope", &format!("repository:{}:pull", repository.path()));
        }
        let mut headers = HeaderMap::new();
        if let Some(credential) = self.credential {
            let text = Secret::new(format!("Basic {}", credential.basic().reveal()));
            let mut value = HeaderValue::from_str(text.reveal())
                .map_err(|_| failed(format!("the credential for {repository} is not a text that can be sent")))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let response = self.transport.send(self.host, &url, headers, budget).await?;
        let status = response.status();
        let what = format!("a token for {repository}");
        if status != StatusCode::OK {
            let after = retry_after(response.headers());
            let said = self.transport.error_body(response, budget).await;
            let fault = refusal(status, after, &url, &what, said.as_ref());
            // Whatever else the token service says to us, it says no: never go on without.
            return Err(if fault.failure.may_pass() { fault } else { failed(fault.failure.to_string()) });
        }
        let (body, _) = self.transport.body(response, Limit::AtMost(MAX_TOKEN_REPLY), &what, budget).await?;
        parse_token(&body).map_err(|none| {
            let said = |what: &str| format!("{} sends a token reply for {repository} that {what}", authority(&url));
            match none {
                NoToken::Unreadable(what) => Failure::Unavailable { detail: said(what), transient: true }.into(),
                NoToken::Unusable(what) => failed(said(what)),
            }
        })
    }
}

/// Whether a listed realm means this address: same origin, and below its path.
fn covers(listed: &Url, url: &Url) -> bool {
    let path = listed.path().trim_end_matches('/');
    same_origin(listed, url)
        && url.path().strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Why a reply gives no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoToken {
    /// It is no reply of a token service: cut short, or something else altogether.
    Unreadable(&'static str),
    /// It is one, and there is nothing in it that could be shown to a registry.
    Unusable(&'static str),
}

/// Token and life of a token reply.
fn parse_token(body: &[u8]) -> Result<(Secret, Duration), NoToken> {
    #[derive(Deserialize)]
    struct Reply {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<u64>,
    }
    // The parser's message may quote the token.
    let reply: Reply =
        serde_json::from_slice(body).map_err(|_| NoToken::Unreadable("is not JSON of the expected form"))?;
    let token = reply.token.filter(|token| !token.is_empty()).or(reply.access_token).unwrap_or_default();
    if token.is_empty() {
        return Err(NoToken::Unusable("holds no token"));
    }
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(NoToken::Unusable("holds a token with characters that do not belong in one"));
    }
    let life = reply.expires_in.unwrap_or(DEFAULT_LIFE).min(LONGEST_LIFE);
    Ok((Secret::new(token), Duration::from_secs(life)))
}

/// The challenge to answer: the first Bearer, else Basic (RFC 9110, 11.6.1).
pub(super) fn parse_challenges<'a>(headers: impl Iterator<Item = &'a str>) -> Result<Challenge, &'static str> {
    let mut basic = false;
    for header in headers {
        if header.len() > 8192 {
            return Err("is longer than 8 KiB");
        }
        for (scheme, parameters) in split_challenges(header).ok_or("cannot be read")? {
            if scheme.eq_ignore_ascii_case("basic") {
                basic = true;
            }
            if scheme.eq_ignore_ascii_case("bearer") {
                let mut realm = None;
                let mut service = None;
                for (name, value) in parameters {
                    let slot = match name.to_ascii_lowercase().as_str() {
                        "realm" => &mut realm,
                        "service" => &mut service,
                        _ => continue,
                    };
                    if slot.replace(value).is_some() {
                        return Err("holds a parameter twice");
                    }
                }
                let realm = realm.filter(|realm| !realm.is_empty()).ok_or("names no realm")?;
                return Ok(Challenge::Bearer { realm, service });
            }
        }
    }
    if basic { Ok(Challenge::Basic) } else { Err("names neither Bearer nor Basic") }
}

type Parameters = Vec<(String, String)>;

/// Scheme and parameters of each challenge in one header.
fn split_challenges(header: &str) -> Option<Vec<(&str, Parameters)>> {
    const BLANK: [char; 2] = [' ', '\t'];
    let mut challenges: Vec<(&str, Parameters)> = Vec::new();
    let mut rest = header.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.find(|c| !is_token(c)).unwrap_or(rest.len()));
        if word.is_empty() {
            return None;
        }
        let value = after.trim_start_matches(BLANK).strip_prefix('=').map(|value| value.trim_start_matches(BLANK));
        match value {
            // `scheme` alone, or with its parameters or its token68 after a blank.
            None => {
                challenges.push((word, Vec::new()));
                rest = after.trim_start_matches([' ', '\t', ',']);
                if let Some(left) = token68(rest).filter(|_| !after.trim_start_matches(BLANK).starts_with(',')) {
                    rest = left.trim_start_matches([' ', '\t', ',']);
                }
            }
            Some(value) => {
                let (value, left) = parameter(value)?;
                challenges.last_mut()?.1.push((word.to_owned(), value));
                let left = left.trim_start_matches(BLANK);
                if !left.is_empty() && !left.starts_with(',') {
                    return None;
                }
                rest = left.trim_start_matches([' ', '\t', ',']);
            }
        }
    }
    Some(challenges)
}

/// What follows a token68 (`Negotiate abc==`), where the text begins with one that is no parameter.
fn token68(text: &str) -> Option<&str> {
    let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
    let (word, left) = text.split_at(end);
    let body = word.trim_end_matches('=');
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~' | '+' | '/');
    let alone = left.is_empty() || left.starts_with(',');
    (alone && !body.is_empty() && body.chars().all(letters)).then_some(left)
}

/// A parameter's value and what follows it.
fn parameter(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, left) = text.split_at(text.find(|c| !is_token(c)).unwrap_or(text.len()));
        return (!word.is_empty()).then(|| (word.to_owned(), left));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(c),
        }
    }
    None
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

fn failed(detail: String) -> Fault {
    Fault { failure: Failure::AuthFailed { detail }, at: At::Call, after: None }
}

async fn wait<T>(budget: &Budget, future: impl Future<Output = T>) -> Result<T, Fault> {
    tokio::time::timeout_at(budget.deadline, future)
        .await
        .map_err(|_| Failure::DeadlineExceeded { doing: "waiting for a token".to_owned() }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) }
    }

    #[test]
    fn challenges_are_read_by_their_grammar() {
        for (headers, want) in [
            (
                &[r#"Bearer realm="https://a/t",service="s",scope="repository:x:pull,push""#][..],
                bearer("https://a/t", Some("s")),
            ),
            (&[r#"bearer  Realm = "https://a/t" , foo=bar"#], bearer("https://a/t", None)),
            (&[r#"Bearer realm="a\"b\\c""#], bearer(r#"a"b\c"#, None)),
            (&["Bearer realm=token"], bearer("token", None)),
            (&["Basic"], Challenge::Basic),
            (&[r#"Basic realm="x, Bearer realm=evil""#], Challenge::Basic),
            (&[r#"Basic realm="x", Bearer realm="https://a/t""#], bearer("https://a/t", None)),
            (&["Basic, Bearer realm=a"], bearer("a", None)),
            (&["Basic realm=x", r#"Bearer realm="a""#], bearer("a", None)),
            (&["Negotiate abc==, Basic"], Challenge::Basic),
            (&["Negotiate, Basic realm=x"], Challenge::Basic),
            (&["Negotiate abc/+, Bearer realm=a"], bearer("a", None)),
            (&[", ,Basic realm=x,"], Challenge::Basic),
        ] {
            assert_eq!(parse_challenges(headers.iter().copied()), Ok(want), "{headers:?}");
        }
        for (header, want) in [
            ("", "names neither Bearer nor Basic"),
            ("Digest realm=x, nonce=y", "names neither Bearer nor Basic"),
            ("Bearer", "names no realm"),
            ("Bearer realm=\"\"", "names no realm"),
            ("Bearer service=x", "names no realm"),
            ("Bearer realm=a, realm=b", "holds a parameter twice"),
            ("Bearer realm=a, service=b, service=c", "holds a parameter twice"),
            ("Bearer realm=\"a", "cannot be read"),
            ("Bearer realm=\"a\" x", "cannot be read"),
            ("Bearer realm=\"a\\", "cannot be read"),
            ("=x", "cannot be read"),
            ("realm=x", "cannot be read"),
            ("Bearer realm=a;b", "cannot be read"),
        ] {
            assert_eq!(parse_challenges(std::iter::once(header)), Err(want), "{header}");
        }
        let long = format!("Basic realm=\"{}\"", "x".repeat(8192));
        assert_eq!(parse_challenges(std::iter::once(long.as_str())), Err("is longer than 8 KiB"));
    }

    #[test]
    fn x_047_known_pairs_are_for_their_registry_alone() {
        let transport = Transport::new(&super::super::Settings::default()).expect("settings");
        for (host, realm, want) in [
            ("docker.io", "https://auth.docker.io/token", true),
            ("docker.io", "https://auth.docker.io:443/token", true),
            ("docker.io", "http://auth.docker.io/token", false),
            ("docker.io", "https://auth.docker.io.evil.example/token", false),
            ("docker.io", "https://auth.docker.io:8443/token", false),
            ("docker.io", "https://registry-1.docker.io/token", true),
            ("docker.io", "https://docker.io/token", false),
            ("registry.gitlab.com", "https://gitlab.com/jwt/auth", true),
            ("r.example", "https://auth.docker.io/token", false),
            ("r.example", "https://gitlab.com/jwt/auth", false),
            ("r.example", "https://r.example/token", true),
            ("r.example", "https://R.EXAMPLE:443/token", true),
            ("r.example", "http://r.example/token", false),
            ("r.example", "https://r.example:8443/token", false),
            ("r.example:8443", "https://r.example:8443/token", true),
            ("r.example:8443", "https://r.example/token", false),
            ("r.example", "https://u@r.example/token", false),
            ("r.example", "https://auth.r.example/token", false),
        ] {
            let host: Host = host.parse().expect(host);
            let base = transport.base(&host).expect("base");
            let party = Party { transport: &transport, host: &host, base: &base, realm: None, credential: None };
            match party.allowed_realm(realm) {
                Ok(_) => assert!(want, "{host} {realm}"),
                Err(fault) => {
                    assert!(!want, "{host} {realm}");
                    assert!(matches!(fault.failure, Failure::AuthFailed { .. }), "{fault:?}");
                }
            }
        }
    }

    #[test]
    fn token_replies_are_read_strictly() {
        for (body, token, life) in [
            (r#"{"token":"a"}"#, "a", 60),
            (r#"{"access_token":"b","expires_in":300,"issued_at":"x"}"#, "b", 300),
            (r#"{"token":"a","access_token":"b"}"#, "a", 60),
            (r#"{"token":"a","expires_in":99999999}"#, "a", 3600),
            (r#"{"token":"a","expires_in":0}"#, "a", 0),
        ] {
            let (found, lives) = parse_token(body.as_bytes()).expect(body);
            assert_eq!((found.reveal(), lives.as_secs()), (token, life), "{body}");
        }
        for (body, readable) in [
            ("", false),
            (r#"{"token":"a"#, false),
            ("<html>log in</html>", false),
            ("[]", false),
            (r#"{"token":1}"#, false),
            (r#"{"token":"a","token":"b"}"#, false),
            (r#"{"token":"a","expires_in":-1}"#, false),
            ("{}", true),
            (r#"{"token":"a b"}"#, true),
            (r#"{"token":"ü"}"#, true),
        ] {
            let none = parse_token(body.as_bytes()).expect_err(body);
            assert_eq!(matches!(none, NoToken::Unusable(_)), readable, "{body}");
        }
    }
}
