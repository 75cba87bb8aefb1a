//! Docker's credential files: read strictly, matched as a kubelet matches them. It must never run a program that a file
//! names, and never show a secret.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use crate::decision::reference::{Host, Repository};

/// Longest file that is read, in bytes.
pub const MAX_CONFIG: usize = 1024 * 1024;

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

impl Secret {
    pub(super) const fn new(text: String) -> Self {
        Self(text)
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// User and password for some hosts and repositories.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credential {
    user: String,
    password: Secret,
}

impl Credential {
    /// `user:password` in base64, as the Basic scheme sends it (RFC 7617).
    pub(super) fn basic(&self) -> Secret {
        Secret(STANDARD.encode(self.plain().reveal()))
    }

    /// `user:password`. The user holds no colon, so that no two credentials look alike.
    pub(super) fn plain(&self) -> Secret {
        Secret(format!("{}:{}", self.user, self.password.reveal()))
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(***)")
    }
}

/// The credentials of a file, most specific first. `Debug` shows the keys and no secret.
#[derive(Debug, Clone, Default)]
pub struct DockerConfig {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    key: Key,
    credential: Credential,
}

/// What a credential is for: `host`, `host:port` or `host/path`, where each label of the host may hold `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    /// The whole key, for the order.
    text: String,
    /// The host's labels; an IPv6 address is one label, without brackets.
    labels: Vec<String>,
    port: Option<u16>,
    /// Without its leading slash.
    path: String,
}

/// Why a credential file cannot be used. It never quotes a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DockerConfigError {
    /// Over [`MAX_CONFIG`].
    #[error("longer than 1 MiB")]
    TooLong,
    /// Not JSON, not of this form, or a key that stands twice.
    #[error("not a docker config file: {0}")]
    Syntax(String),
    /// An entry whose credential cannot be used.
    #[error("entry {key:?}: {what}")]
    Entry {
        /// The key under `auths`.
        key: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl DockerConfig {
    /// Reads `config.json` or the content of a `kubernetes.io/dockerconfigjson` Secret (credentials under `auths`).
    /// Beside the credentials come warnings about what the file holds and we do not use.
    pub fn parse(bytes: &[u8]) -> Result<(Self, Vec<String>), DockerConfigError> {
        let file: File = read(bytes)?;
        let mut warnings = Vec::new();
        if file.creds_store.is_some_and(|store| !store.is_empty()) {
            warnings.push("credsStore is ignored: Provost runs no credential helpers".to_owned());
        }
        if file.cred_helpers.is_some_and(|Pairs(helpers)| !helpers.is_empty()) {
            warnings.push("credHelpers is ignored: Provost runs no credential helpers".to_owned());
        }
        if file.http_headers.is_some_and(|Pairs(headers)| !headers.is_empty()) {
            warnings.push("HttpHeaders is ignored".to_owned());
        }
        let config = Self::of(file.auths.unwrap_or_default(), &mut warnings)?;
        Ok((config, warnings))
    }

    /// Reads the content of a `kubernetes.io/dockercfg` Secret (the bare map).
    pub fn parse_legacy(bytes: &[u8]) -> Result<(Self, Vec<String>), DockerConfigError> {
        let mut warnings = Vec::new();
        let config = Self::of(read(bytes)?, &mut warnings)?;
        Ok((config, warnings))
    }

    /// How many credentials there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn of(Pairs(auths): Pairs<Auth>, warnings: &mut Vec<String>) -> Result<Self, DockerConfigError> {
        let mut entries = Vec::new();
        for (written, auth) in auths {
            let Some(key) = Key::parse(&written) else {
                warnings.push(format!("entry {written:?} is ignored: not a host, or a host and a path"));
                continue;
            };
            match auth.credential() {
                Ok(Some(credential)) => entries.push(Entry { key, credential }),
                Ok(None) => warnings.push(format!("entry {written:?} is ignored: it holds no credential")),
                Err(what) => return Err(DockerConfigError::Entry { key: written, what }),
            }
        }
        // As a kubelet does it: the reverse order of the keys puts `host/team` before `host`.
        entries.sort_by(|a, b| Reverse(&a.key.text).cmp(&Reverse(&b.key.text)));
        Ok(Self { entries })
    }

    /// The credentials for a repository, most specific first.
    pub(super) fn matching(&self, repository: &Repository) -> Vec<&Credential> {
        let found: Vec<&Credential> =
            self.entries.iter().filter(|entry| entry.key.covers(repository)).map(|entry| &entry.credential).collect();
        if !found.is_empty() || repository.host().as_str() != "docker.io" {
            return found;
        }
        // What `docker login` writes for Docker Hub: https://index.docker.io/v1/.
        self.entries.iter().filter(|entry| entry.key.text == "index.docker.io").map(|entry| &entry.credential).collect()
    }
}

impl Key {
    fn parse(written: &str) -> Option<Self> {
        let bare = written.strip_prefix("https://").or_else(|| written.strip_prefix("http://")).unwrap_or(written);
        let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
        let path = match path.split_once('/') {
            Some(("v1" | "v2", rest)) => rest,
            _ => path,
        };
        let host = host.to_ascii_lowercase();
        // A host with its `*` taken as a letter must be a host as images have it.
        let shape: Host = host.replace('*', "x").parse().ok()?;
        if !path.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#')) {
            return None;
        }
        let labels = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((v6, _)) => vec![v6.to_owned()],
            None => host.split(':').next().unwrap_or_default().split('.').map(str::to_owned).collect(),
        };
        let text = if path.is_empty() { host } else { format!("{host}/{path}") };
        Some(Self { text, labels, port: shape.port(), path: path.to_owned() })
    }

    fn covers(&self, repository: &Repository) -> bool {
        let host = repository.host();
        let labels: Vec<&str> =
            if host.as_str().starts_with('[') { vec![host.name()] } else { host.name().split('.').collect() };
        self.port == host.port()
            && self.labels.len() == labels.len()
            && repository.path().starts_with(&self.path)
            && self.labels.iter().zip(labels).all(|(pattern, label)| matches(pattern, label))
    }
}

/// Whether a label matches a pattern in which `*` is any run of characters.
fn matches(pattern: &str, label: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = label.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DockerConfigError> {
    if bytes.len() > MAX_CONFIG {
        return Err(DockerConfigError::TooLong);
    }
    // serde_json quotes strings that have the wrong type, and those may be secrets: only the place is told.
    serde_json::from_slice(bytes).map_err(|error| {
        let what = if error.to_string().starts_with("duplicate") { "a key stands twice" } else { "wrong form" };
        DockerConfigError::Syntax(format!("{what} at line {}, column {}", error.line(), error.column()))
    })
}

#[derive(Deserialize)]
struct File {
    auths: Option<Pairs<Auth>>,
    #[serde(rename = "credsStore")]
    creds_store: Option<String>,
    #[serde(rename = "credHelpers")]
    cred_helpers: Option<Pairs<IgnoredAny>>,
    #[serde(rename = "HttpHeaders")]
    http_headers: Option<Pairs<IgnoredAny>>,
}

#[derive(Deserialize)]
#[expect(clippy::struct_field_names, reason = "the file has these names")]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl Auth {
    fn credential(self) -> Result<Option<Credential>, &'static str> {
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        if some(self.identitytoken).is_some() || some(self.registrytoken).is_some() {
            return Err("identity and registry tokens are not supported: write a user and a password");
        }
        let (user, password) = match (some(self.auth), some(self.username), some(self.password)) {
            (Some(auth), _, _) => {
                let engine = if auth.ends_with('=') { STANDARD } else { STANDARD_NO_PAD };
                let plain = engine.decode(auth.trim()).map_err(|_| "auth is not base64")?;
                let plain = String::from_utf8(plain).map_err(|_| "auth is not UTF-8")?;
                let (user, password) = plain.split_once(':').ok_or("auth is not user:password")?;
                (user.to_owned(), password.to_owned())
            }
            (None, Some(user), Some(password)) => (user, password),
            (None, None, None) => return Ok(None),
            (None, Some(_), None) => return Err("a user without a password"),
            (None, None, Some(_)) => return Err("a password without a user"),
        };
        if user.contains(':') {
            return Err("the user holds a colon");
        }
        if user.is_empty() || password.is_empty() {
            return Err("user or password is empty");
        }
        Ok(Some(Credential { user, password: Secret(password) }))
    }
}

/// A JSON object in its own order, each key at most once.
struct Pairs<T>(Vec<(String, T)>);

impl<T> Default for Pairs<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Unique<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Unique<T> {
            type Value = Pairs<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<T>, A::Error> {
                let mut seen = BTreeSet::new();
                let mut pairs = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    if !seen.insert(key.clone()) {
                        return Err(A::Error::custom("duplicate key"));
                    }
                    pairs.push((key, map.next_value()?));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Unique(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(keys: &[&str]) -> DockerConfig {
        let auths: serde_json::Map<String, serde_json::Value> = keys
            .iter()
            .map(|key| ((*key).to_owned(), serde_json::json!({ "username": "user", "password": "pw" })))
            .collect();
        DockerConfig::parse(serde_json::json!({ "auths": auths }).to_string().as_bytes()).expect("config").0
    }

    #[test]
    fn keys_match_as_a_kubelet_matches_them() {
        for (key, image, want) in [
            ("r.example", "r.example/app", true),
            ("https://r.example", "r.example/app", true),
            ("http://r.example/", "r.example/app", true),
            ("R.Example", "r.example/app", true),
            ("https://r.example/v1/", "r.example/app", true),
            ("https://r.example/v2/team", "r.example/team/app", true),
            ("r.example", "r.example:443/app", false),
            ("r.example:443", "r.example:443/app", true),
            ("r.example:443", "r.example/app", false),
            ("r.example:5000", "r.example:5001/app", false),
            ("r.example", "r.example.evil.example/app", false),
            ("r.example", "evil-r.example/app", false),
            ("*.example", "r.example/app", true),
            ("*.example", "a.r.example/app", false),
            ("*.*.example", "a.r.example/app", true),
            ("r*.example", "r1.example/app", true),
            ("r*1.example", "r21.example/app", true),
            ("r*1.example", "r12.example/app", false),
            ("*", "r.example/app", false),
            ("r.example/team", "r.example/team/app", true),
            ("r.example/team", "r.example/other/app", false),
            ("r.example/team/app", "r.example/team/app", true),
            ("r.example/team/app2", "r.example/team/app", false),
            ("[::1]:5000", "[::1]:5000/app", true),
            ("[::1]:5000", "[::2]:5000/app", false),
            ("docker.io", "busybox", true),
            ("https://index.docker.io/v1/", "busybox", true),
            ("https://index.docker.io/v1/", "r.example/app", false),
            ("registry-1.docker.io", "busybox", false),
        ] {
            let repository: Repository = image.parse().expect(image);
            let found = config(&[key]).matching(&repository).len();
            assert_eq!(found == 1, want, "{key} for {image}");
        }
    }

    #[test]
    fn longer_keys_come_first_and_all_matches_are_kept() {
        let (config, warnings) = DockerConfig::parse(
            br#"{"auths":{"r.example":{"username":"host","password":"1"},"r.example/team":{"username":"team","password":"2"},
                 "*.example":{"username":"star","password":"3"},"other.example":{"username":"other","password":"4"}}}"#,
        )
        .expect("config");
        assert_eq!(warnings, Vec::<String>::new());
        let found: Vec<String> = config
            .matching(&"r.example/team/app".parse().expect("repository"))
            .into_iter()
            .map(|credential| credential.user.clone())
            .collect();
        assert_eq!(found, ["team", "host", "star"]);
    }

    #[test]
    fn auth_wins_over_user_and_password() {
        for auth in ["YTpiOmM=", "YTpiOmM"] {
            let text = format!(r#"{{"r.example":{{"auth":"{auth}","username":"x","password":"y"}}}}"#);
            let (config, _) = DockerConfig::parse_legacy(text.as_bytes()).expect("config");
            assert_eq!(config.entries[0].credential.plain().reveal(), "a:b:c");
            assert_eq!(config.entries[0].credential.basic().reveal(), "YTpiOmM=");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_a_word_of_the_secret() {
        for (text, want) in [
            (r#"{"auths":{"r":{"auth":"CANARY"}}}"#, r#"entry "r": auth is not base64"#),
            (r#"{"auths":{"r":{"auth":"Q0FOQVJZ"}}}"#, r#"entry "r": auth is not user:password"#),
            (r#"{"auths":{"r":{"auth":"Og=="}}}"#, r#"entry "r": user or password is empty"#),
            (r#"{"auths":{"r":{"username":"CANARY"}}}"#, r#"entry "r": a user without a password"#),
            (r#"{"auths":{"r":{"password":"CANARY"}}}"#, r#"entry "r": a password without a user"#),
            (r#"{"auths":{"r":{"username":"a:b","password":"CANARY"}}}"#, r#"entry "r": the user holds a colon"#),
            (
                r#"{"auths":{"r":{"identitytoken":"CANARY"}}}"#,
                r#"entry "r": identity and registry tokens are not supported: write a user and a password"#,
            ),
            (r#"{"auths":{"r":"CANARY"}}"#, "not a docker config file: wrong form at line 1, column 22"),
            (r#"{"auths":{"r":{},"r":{}}}"#, "not a docker config file: a key stands twice at line 1, column 20"),
            (r#"{"auths":{},"auths":{}}"#, "not a docker config file: a key stands twice at line 1, column 19"),
            (
                r#"{"auths":{"r":{"auth":"a","auth":"b"}}}"#,
                "not a docker config file: a key stands twice at line 1, column 32",
            ),
            ("[]", "not a docker config file: wrong form at line 1, column 0"),
            ("", "not a docker config file: wrong form at line 1, column 0"),
        ] {
            // `r` alone is no host of an image, but its credential is looked at all the same.
            let text = text.replace("\"r\"", "\"r.example\"");
            let want = want.replace("\"r\"", "\"r.example\"");
            let error = DockerConfig::parse(text.as_bytes()).expect_err(&text).to_string();
            assert!(!error.contains("CANARY"), "{error}");
            if want.contains("column") {
                let stem = want.split(" at line").next().unwrap_or_default();
                assert!(error.starts_with(stem), "{text}: {error}");
            } else {
                assert_eq!(error, want, "{text}");
            }
        }
        assert_eq!(DockerConfig::parse(&vec![b' '; MAX_CONFIG + 1]).map(|_| ()), Err(DockerConfigError::TooLong));
    }

    #[test]
    fn helpers_are_never_run_and_said_to_be_ignored() {
        let (config, warnings) = DockerConfig::parse(
            br#"{"auths":{"r.example":{},"r example":{"auth":"YTpi"}},"credsStore":"desktop","credHelpers":{"r.example":"gcloud"},
                "HttpHeaders":{"X-A":"b"},"currentContext":"x"}"#,
        )
        .expect("config");
        assert!(config.is_empty());
        assert_eq!(
            warnings,
            [
                "credsStore is ignored: Provost runs no credential helpers",
                "credHelpers is ignored: Provost runs no credential helpers",
                "HttpHeaders is ignored",
                "entry \"r.example\" is ignored: it holds no credential",
                "entry \"r example\" is ignored: not a host, or a host and a path",
            ]
        );
        let (_, quiet) = DockerConfig::parse(br#"{"credsStore":"","credHelpers":{}}"#).expect("config");
        assert_eq!(quiet, Vec::<String>::new());
    }

    #[test]
    fn debug_shows_no_secret() {
        let (config, _) =
            DockerConfig::parse(br#"{"auths":{"r.example":{"username":"u","password":"CANARY"}}}"#).expect("config");
        let shown = format!("{config:?} {:?}", Secret::new("CANARY".to_owned()));
        assert!(!shown.contains("CANARY") && shown.contains("***"), "{shown}");
    }
}
