//! Patterns for repositories and namespaces: whole parts, linear time, no wildcard in a host. It must never match text
//! across a `/`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::name::Namespace;
use super::reference::{Host, Repository};

/// Longest accepted pattern, in bytes.
pub const MAX_PATTERN: usize = 1024;

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The pattern has no host, or its host has a wildcard.
    #[error(
        "a repository pattern begins with a registry host without a wildcard, for example registry.example.com/release/**"
    )]
    Host,
    /// A segment that no repository can have.
    #[error("{0:?} can never match a part of a repository's path")]
    Segment(String),
    /// A namespace pattern that no namespace can match.
    #[error("{0:?} can never match a namespace")]
    Namespace(String),
    /// Tags and digests are not part of a repository.
    #[error("a repository pattern has no tag and no digest")]
    Tag,
    /// A ticket pattern that would take any word for a ticket, or no ticket at all.
    #[error(
        "{0:?} is no ticket pattern: visible ASCII characters, at most 64, with at least one letter or digit beside its `*`, as in INC-*"
    )]
    Ticket(String),
    /// Over [`MAX_PATTERN`].
    #[error("longer than 1024 bytes")]
    TooLong,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Segment {
    /// `**`: one or more segments.
    Any,
    /// Text in which `*` is any run inside the segment.
    Glob(String),
}

/// A repository pattern: an exact host, then segments in which `*` stays inside one segment and `**` is one or more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepositoryPattern {
    host: Host,
    segments: Vec<Segment>,
}

impl RepositoryPattern {
    /// Whether the repository's host is equal and all its segments are matched.
    #[must_use]
    pub fn matches(&self, repository: &Repository) -> bool {
        if self.host != *repository.host() {
            return false;
        }
        let path: Vec<&str> = repository.segments().collect();
        wildcard(
            &self.segments,
            &path,
            |s| *s == Segment::Any,
            |pattern, text| match pattern {
                Segment::Any => true,
                Segment::Glob(glob) => glob_matches(glob, text),
            },
            1,
        )
    }

    /// The host of every repository that can match.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.host
    }
}

impl FromStr for RepositoryPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.len() > MAX_PATTERN {
            return Err(PatternError::TooLong);
        }
        let (host, path) = text.split_once('/').ok_or(PatternError::Host)?;
        if host.contains('*') || !(host.contains(['.', ':']) || host == "localhost" || host.starts_with('[')) {
            return Err(PatternError::Host);
        }
        let host: Host = host.parse().map_err(|_| PatternError::Host)?;
        if path.contains(['@', ':']) {
            return Err(PatternError::Tag);
        }
        let mut segments = Vec::new();
        for segment in path.split('/') {
            segments.push(match segment {
                "**" => Segment::Any,
                _ if segment.contains("**") => return Err(PatternError::Segment(segment.to_owned())),
                _ => {
                    // A glob can match something exactly when it does so with its stars replaced by a letter.
                    let sample = format!("r.example/{}", segment.replace('*', "x"));
                    if sample.parse::<Repository>().is_err() {
                        return Err(PatternError::Segment(segment.to_owned()));
                    }
                    Segment::Glob(segment.to_owned())
                }
            });
        }
        if host.as_str() == "docker.io" && segments.len() == 1 && segments != [Segment::Any] {
            segments.insert(0, Segment::Glob("library".to_owned()));
        }
        Ok(Self { host, segments })
    }
}

impl fmt::Display for RepositoryPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.host.as_str())?;
        self.segments.iter().try_for_each(|segment| match segment {
            Segment::Any => f.write_str("/**"),
            Segment::Glob(glob) => write!(f, "/{glob}"),
        })
    }
}

impl TryFrom<String> for RepositoryPattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

impl From<RepositoryPattern> for String {
    fn from(pattern: RepositoryPattern) -> Self {
        pattern.to_string()
    }
}

/// A namespace pattern: a name in which `*` is any run of characters. `*` alone is every namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamespacePattern(String);

impl NamespacePattern {
    /// Whether the whole name matches.
    #[must_use]
    pub fn matches(&self, namespace: &Namespace) -> bool {
        glob_matches(&self.0, namespace.as_str())
    }

    /// Whether this is the baseline pattern `*`, which governs beside all others.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0 == "*"
    }
}

impl FromStr for NamespacePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text == "*" || text.replace('*', "x").parse::<Namespace>().is_ok() && !text.contains("**") {
            Ok(Self(text.to_owned()))
        } else {
            Err(PatternError::Namespace(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for NamespacePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for NamespacePattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

impl From<NamespacePattern> for String {
    fn from(pattern: NamespacePattern) -> Self {
        pattern.0
    }
}

/// Longest accepted ticket, and longest pattern for one, in bytes.
pub const MAX_TICKET: usize = 64;

/// What a ticket looks like: text in which `*` is any run of one character or more. Some of it is literal, so that not any
/// word is a ticket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TicketPattern(String);

impl TicketPattern {
    /// Whether the whole text is such a ticket.
    #[must_use]
    pub fn matches(&self, ticket: &str) -> bool {
        is_ticket(ticket) && wildcard(self.0.as_bytes(), ticket.as_bytes(), |b| *b == b'*', |a, b| a == b, 1)
    }
}

/// What both a ticket and its pattern are made of.
fn is_ticket(text: &str) -> bool {
    (1..=MAX_TICKET).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

impl FromStr for TicketPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if is_ticket(text) && text.bytes().any(|b| b.is_ascii_alphanumeric()) && !text.contains("**") {
            Ok(Self(text.to_owned()))
        } else {
            Err(PatternError::Ticket(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for TicketPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for TicketPattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

impl From<TicketPattern> for String {
    fn from(pattern: TicketPattern) -> Self {
        pattern.0
    }
}

/// `*` is any run of bytes, the rest is literal.
fn glob_matches(glob: &str, text: &str) -> bool {
    wildcard(glob.as_bytes(), text.as_bytes(), |b| *b == b'*', |a, b| a == b, 0)
}

/// Greedy wildcard matching with one point of return: at most |pattern| × |text| steps whatever the input.
/// A star takes `least` items or more.
fn wildcard<P, T>(
    pattern: &[P],
    text: &[T],
    is_star: impl Fn(&P) -> bool,
    is_match: impl Fn(&P, &T) -> bool,
    least: usize,
) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && is_star(&pattern[p]) {
            if t + least > text.len() {
                return false;
            }
            t += least;
            p += 1;
            back = Some((p, t));
        } else if p < pattern.len() && t < text.len() && is_match(&pattern[p], &text[t]) {
            p += 1;
            t += 1;
        } else if p == pattern.len() && t == text.len() {
            return true;
        } else {
            match back {
                Some((star, from)) if from < text.len() => {
                    p = star;
                    t = from + 1;
                    back = Some((star, t));
                }
                _ => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x_027_x_028_x_029_repositories_match_by_whole_parts() {
        for (pattern, repository, want) in [
            ("release.example.com/team/app", "release.example.com/team/app", true),
            ("release.example.com/team/app", "release.example.com/team/app2", false),
            ("release.example.com/team/app", "release.example.com/team/app-evil", false),
            ("release.example.com/team/app", "release.example.com/team/app/x", false),
            ("release.example.com/team/app", "release.example.com/team", false),
            ("release.example.com/**", "release.example.com/a", true),
            ("release.example.com/**", "release.example.com/a/b/c", true),
            ("release.example.com/**", "release.example.com.evil.example/a", false),
            ("release.example.com/**", "release.example.com-evil.example/a", false),
            ("release.example.com/**", "release.example.comevil/a", false),
            ("release.example.com/**", "xn--rlease-4ua.example.com/a", false),
            ("release.example.com/**", "release.example.com:443/a", false),
            ("release.example.com/team/**", "release.example.com/team", false),
            ("release.example.com/team/**", "release.example.com/team/a", true),
            ("release.example.com/team/**/app", "release.example.com/team/app", false),
            ("release.example.com/team/**/app", "release.example.com/team/x/app", true),
            ("release.example.com/team/**/app", "release.example.com/team/x/app/y/app", true),
            ("release.example.com/**/a/**", "release.example.com/a/a/a", true),
            ("release.example.com/team/*", "release.example.com/team/a", true),
            ("release.example.com/team/*", "release.example.com/team/a/b", false),
            ("release.example.com/team/app-*", "release.example.com/team/app-1", true),
            ("release.example.com/team/app-*", "release.example.com/team/app", false),
            ("docker.io/busybox", "docker.io/library/busybox", true),
            ("docker.io/library/busybox", "docker.io/library/busybox", true),
            ("index.docker.io/library/busybox", "docker.io/library/busybox", true),
            ("RELEASE.example.com/a", "release.example.com/a", true),
        ] {
            let parsed: RepositoryPattern = pattern.parse().unwrap_or_else(|e| panic!("{pattern}: {e}"));
            let repository: Repository = repository.parse().unwrap_or_else(|e| panic!("{repository}: {e}"));
            assert_eq!(parsed.matches(&repository), want, "{pattern} against {repository}");
        }
        for pattern in [
            "*.example.com/a",
            "*/a",
            "release.example.com",
            "release",
            "team/app",
            "release.example.com/",
            "release.example.com//a",
            "release.example.com/a:1",
            "release.example.com/a@sha256:0",
            "release.example.com/A",
            "release.example.com/a**",
            "release.example.com/../a",
            "",
            "/a",
            "https://release.example.com/a",
        ] {
            assert!(pattern.parse::<RepositoryPattern>().is_err(), "{pattern:?} was accepted");
        }
    }

    #[test]
    fn x_033_matching_takes_linear_time() {
        let pattern: RepositoryPattern = format!("r.example/{}", "*a".repeat(110)).parse().expect("pattern");
        let repository: Repository = format!("r.example/{}b", "a".repeat(240)).parse().expect("repository");
        assert!(!pattern.matches(&repository));
        let pattern: RepositoryPattern = format!("r.example/{}b", "**/a/".repeat(100)).parse().expect("pattern");
        let repository: Repository = format!("r.example/{}a", "a/".repeat(120)).parse().expect("repository");
        assert!(!pattern.matches(&repository));
    }

    #[test]
    fn namespaces_match_as_a_whole() {
        for (pattern, namespace, want) in [
            ("*", "anything", true),
            ("payments", "payments", true),
            ("payments", "payments-eu", false),
            ("payments-*", "payments-eu", true),
            ("payments-*", "payments", false),
            ("*-payments", "eu-payments", true),
        ] {
            let parsed: NamespacePattern = pattern.parse().expect(pattern);
            assert_eq!(parsed.matches(&namespace.parse().expect(namespace)), want, "{pattern} against {namespace}");
        }
        for pattern in ["", "**", "A", "a b", "a.b", "-"] {
            assert!(pattern.parse::<NamespacePattern>().is_err(), "{pattern:?} was accepted");
        }
    }
}
