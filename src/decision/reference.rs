//! Image names as types: the full grammar, normalised once, compared by parts. It must never compare names as text.
//!
//! Grammar: distribution `reference` as container runtimes use it, with the digest rules of the OCI image
//! specification ("Descriptors, Digests"), narrowed where a wider reading would let one image have two names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest accepted image reference, in bytes.
pub const MAX_REFERENCE: usize = 4096;
/// Longest accepted repository (host and path together), in bytes.
pub const MAX_REPOSITORY: usize = 255;
/// Longest accepted tag, in bytes.
pub const MAX_TAG: usize = 128;

const DOCKER_HUB: &str = "docker.io";

/// Why a text is no image reference, and where it goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at character {}: {}", .at + 1, mark(.text, *.at))]
pub struct ReferenceError {
    what: &'static str,
    /// The start of the text, shortened.
    text: String,
    /// Index of the first wrong character, counted in characters.
    at: usize,
    /// The digest algorithm, where the only fault is that it is not sha256.
    unsupported: Option<String>,
}

impl ReferenceError {
    fn new(what: &'static str, whole: &str, byte: usize) -> Self {
        let before = whole.get(..byte).map_or(0, |t| t.chars().count());
        Self { what, text: whole.chars().take(before + 24).collect(), at: before, unsupported: None }
    }

    /// The algorithm of a well-formed digest that is not sha256, for example `sha512`.
    #[must_use]
    pub fn unsupported_algorithm(&self) -> Option<&str> {
        self.unsupported.as_deref()
    }
}

/// The text around the fault, with the faulty character between `»` and `«` and everything unprintable escaped.
fn mark(text: &str, at: usize) -> String {
    let from = at.saturating_sub(24);
    let mut out = String::new();
    for (index, c) in text.chars().enumerate().skip(from).take(40) {
        if index == at {
            out.push('»');
        }
        if c.is_ascii_graphic() {
            out.push(c);
        } else {
            out.extend(c.escape_unicode());
        }
        if index == at {
            out.push('«');
        }
    }
    if text.chars().count() <= at {
        out.push_str("»end«");
    }
    out
}

/// A sha256 digest (OCI image specification, "Digests"): `sha256:` and 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest whose bytes are already known, for example from hashing.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits, without `sha256:`.
    #[must_use]
    pub fn hex(&self) -> String {
        self.text()[PREFIX.len()..].to_owned()
    }

    /// `sha256:` and the first 12 hex digits, for places where width is short.
    #[must_use]
    pub fn short(&self) -> String {
        self.text()[..PREFIX.len() + 12].to_owned()
    }

    /// As [`Display`](fmt::Display) writes it: digests stand all over replies and records, so this is no place for `{:02x}`.
    fn text(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(PREFIX.len() + 64);
        text.push_str(PREFIX);
        for byte in self.0 {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        text
    }
}

/// The one algorithm, and what stands between it and the digits.
const PREFIX: &str = "sha256:";

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        parse_digest(text, text, 0)
    }
}

impl TryFrom<String> for Digest {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// A registry host with its port where one is written: lower-cased, `index.docker.io` folded into `docker.io`.
/// `host:443` and `host` are two hosts: the port is part of the name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Host(String);

impl Host {
    /// `host` or `host:port`; an IPv6 address stands in brackets.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name or address without the port; IPv6 without brackets.
    #[must_use]
    pub fn name(&self) -> &str {
        if let Some(rest) = self.0.strip_prefix('[') {
            return rest.split(']').next().unwrap_or(rest);
        }
        self.0.split(':').next().unwrap_or(&self.0)
    }

    /// The port, where one is written.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        let after = self.0.rfind(']').map_or(self.0.as_str(), |at| &self.0[at..]);
        after.rsplit_once(':').and_then(|(_, port)| port.parse().ok())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Host {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        parse_host(text, text, 0)
    }
}

impl TryFrom<String> for Host {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.0
    }
}

/// A repository: host and path, normalised (`busybox` is `docker.io/library/busybox`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Repository {
    host: Host,
    path: String,
}

impl Repository {
    /// The registry.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// The path below the host, without a leading slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The segments of the path.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.path.split('/')
    }
}

impl fmt::Display for Repository {
    /// So that it reads as the same repository: `Team/app` is `TEAM/app`, since `team/app` is on Docker Hub.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_host(self.host.as_str()) {
            write!(f, "{}/{}", self.host, self.path)
        } else {
            write!(f, "{}/{}", self.host.as_str().to_ascii_uppercase(), self.path)
        }
    }
}

impl FromStr for Repository {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        parse_repository(text)
    }
}

impl TryFrom<String> for Repository {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Repository> for String {
    fn from(repository: Repository) -> Self {
        repository.to_string()
    }
}

/// A tag: at most 128 of `A-Za-z0-9_.-`, not beginning with `.` or `-`. It proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    /// The tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Tag {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        check_tag(text, text, 0)?;
        Ok(Self(text.to_owned()))
    }
}

/// An image reference as a person or a controller wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRef {
    repository: Repository,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

impl ImageRef {
    /// Host and path.
    #[must_use]
    pub const fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The tag, where one is written.
    #[must_use]
    pub const fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// The digest, where one is written.
    #[must_use]
    pub const fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The image by digest, its tag dropped; `None` where no digest is written.
    #[must_use]
    pub fn pinned(&self) -> Option<PinnedImage> {
        self.digest.map(|digest| PinnedImage { repository: self.repository.clone(), digest })
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for ImageRef {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        parse_reference(text)
    }
}

/// An image by digest: what everything that fetches, verifies or proves takes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PinnedImage {
    repository: Repository,
    digest: Digest,
}

impl PinnedImage {
    /// The image with this digest in this repository.
    #[must_use]
    pub const fn new(repository: Repository, digest: Digest) -> Self {
        Self { repository, digest }
    }

    /// Host and path.
    #[must_use]
    pub const fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The digest.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }
}

impl fmt::Display for PinnedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.repository, self.digest)
    }
}

impl TryFrom<String> for PinnedImage {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        let image: ImageRef = text.parse()?;
        image.pinned().ok_or_else(|| ReferenceError::new("no digest", &text, text.len()))
    }
}

impl From<PinnedImage> for String {
    fn from(image: PinnedImage) -> Self {
        image.to_string()
    }
}

fn parse_reference(whole: &str) -> Result<ImageRef, ReferenceError> {
    if whole.len() > MAX_REFERENCE {
        return Err(ReferenceError::new("longer than 4096 bytes", whole, 0));
    }
    let (named, digest) = match whole.split_once('@') {
        None => (whole, None),
        Some((named, digest)) => {
            if let Some(second) = digest.find('@') {
                return Err(ReferenceError::new("second '@'", whole, named.len() + 1 + second));
            }
            (named, Some((digest, named.len() + 1)))
        }
    };
    // A colon after the last slash begins a tag; before it, it is the port of a host. `host:5000` alone has no slash:
    // then the colon begins a tag, as every runtime reads it.
    let slash = named.rfind('/').map_or(0, |at| at + 1);
    let (repository, tag) = match named[slash..].find(':') {
        None => (named, None),
        Some(colon) => (&named[..slash + colon], Some((&named[slash + colon + 1..], slash + colon + 1))),
    };
    let repository = parse_repository_in(repository, whole)?;
    let tag = match tag {
        None => None,
        Some((tag, at)) => {
            check_tag(tag, whole, at)?;
            Some(Tag(tag.to_owned()))
        }
    };
    let digest = match digest {
        None => None,
        Some((digest, at)) => Some(parse_digest(digest, whole, at)?),
    };
    Ok(ImageRef { repository, tag, digest })
}

fn parse_repository(text: &str) -> Result<Repository, ReferenceError> {
    parse_repository_in(text, text)
}

/// `text` is the start of `whole`, so that positions in it are positions in `whole`.
fn parse_repository_in(text: &str, whole: &str) -> Result<Repository, ReferenceError> {
    if text.is_empty() {
        return Err(ReferenceError::new("empty name", whole, 0));
    }
    let (host, path, at) = match text.split_once('/') {
        Some((first, rest)) if is_host(first) => (parse_host(first, whole, 0)?, rest, first.len() + 1),
        _ => (Host(DOCKER_HUB.to_owned()), text, 0),
    };
    // A bare hash is an image id to some tools and a name to others.
    if at == 0 && path.len() == 64 && path.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err(ReferenceError::new("64 hex digits are no name", whole, 0));
    }
    let mut from = at;
    for segment in path.split('/') {
        check_segment(segment, whole, from)?;
        from += segment.len() + 1;
    }
    let path = if host.0 == DOCKER_HUB && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
    if host.0.len() + 1 + path.len() > MAX_REPOSITORY {
        return Err(ReferenceError::new("repository longer than 255 bytes", whole, at));
    }
    Ok(Repository { host, path })
}

/// Whether the first part of a name is a host: as in every runtime, a dot, a colon, `localhost` or a capital letter.
fn is_host(first: &str) -> bool {
    first.contains(['.', ':', '[']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn parse_host(text: &str, whole: &str, at: usize) -> Result<Host, ReferenceError> {
    let fail = |what, offset: usize| Err(ReferenceError::new(what, whole, at + offset));
    if text.is_empty() {
        return fail("empty host", 0);
    }
    let (name, port) = if text.starts_with('[') {
        let Some(close) = text.find(']') else { return fail("'[' without ']'", 0) };
        if let Some(bad) = text[1..close].find(|c: char| !(c.is_ascii_hexdigit() || c == ':' || c == '.')) {
            return fail("not part of an IPv6 address", 1 + bad);
        }
        if text[1..close].parse::<core::net::Ipv6Addr>().is_err() {
            return fail("not an IPv6 address", 1);
        }
        match text[close + 1..].strip_prefix(':') {
            Some(port) => (&text[..=close], Some((port, close + 2))),
            None if text.len() == close + 1 => (text, None),
            None => return fail("unexpected after ']'", close + 1),
        }
    } else {
        match text.split_once(':') {
            Some((name, port)) => (name, Some((port, name.len() + 1))),
            None => (text, None),
        }
    };
    if !name.starts_with('[') {
        let mut from = 0;
        for label in name.split('.') {
            if label.is_empty() {
                return fail("empty part of the host", from);
            }
            if let Some(bad) = label.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-')) {
                return fail("not allowed in a host", from + bad);
            }
            if label.starts_with('-') {
                return fail("not allowed at the start of a part of the host", from);
            }
            if label.ends_with('-') {
                return fail("not allowed at the end of a part of the host", from + label.len() - 1);
            }
            from += label.len() + 1;
        }
    }
    if let Some((port, offset)) = port {
        let digits = !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
        if !digits || port.starts_with('0') || port.parse::<u16>().is_err() {
            return fail("not a port", offset);
        }
    }
    let host = text.to_ascii_lowercase();
    // Docker Hub's second name means the same repositories to every runtime. `registry-1.docker.io` does not.
    Ok(Host(if host == "index.docker.io" { DOCKER_HUB.to_owned() } else { host }))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn check_segment(segment: &str, whole: &str, at: usize) -> Result<(), ReferenceError> {
    if segment.is_empty() {
        return Err(ReferenceError::new("empty part of the path", whole, at));
    }
    let bytes = segment.as_bytes();
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut index = 0;
    while index < bytes.len() {
        if alphanumeric(bytes[index]) {
            index += 1;
            continue;
        }
        let start = index;
        while index < bytes.len() && !alphanumeric(bytes[index]) {
            if !matches!(bytes[index], b'.' | b'_' | b'-') {
                return Err(ReferenceError::new("not allowed in a path", whole, at + index));
            }
            index += 1;
        }
        let separator = &segment[start..index];
        let known = matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-');
        if !known || start == 0 || index == bytes.len() {
            return Err(ReferenceError::new("separator not allowed here", whole, at + start));
        }
    }
    Ok(())
}

fn check_tag(tag: &str, whole: &str, at: usize) -> Result<(), ReferenceError> {
    if tag.is_empty() {
        return Err(ReferenceError::new("empty tag", whole, at));
    }
    if let Some(bad) = tag.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))) {
        return Err(ReferenceError::new("not allowed in a tag", whole, at + bad));
    }
    if tag.starts_with(['.', '-']) {
        return Err(ReferenceError::new("not allowed at the start of a tag", whole, at));
    }
    if tag.len() > MAX_TAG {
        return Err(ReferenceError::new("tag longer than 128 characters", whole, at + MAX_TAG));
    }
    Ok(())
}

/// `algorithm ":" encoded`, where only sha256 with 64 lower-case hex digits is a [`Digest`].
fn parse_digest(text: &str, whole: &str, at: usize) -> Result<Digest, ReferenceError> {
    let fail = |what, offset: usize| Err(ReferenceError::new(what, whole, at + offset));
    let Some((algorithm, encoded)) = text.split_once(':') else {
        return fail("digest without ':'", text.len());
    };
    if algorithm.is_empty() {
        return fail("digest without an algorithm", 0);
    }
    if let Some(bad) =
        algorithm.find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '+' | '.' | '_' | '-')))
    {
        return fail("not allowed in a digest algorithm", bad);
    }
    let start = algorithm.len() + 1;
    if algorithm == "sha256" {
        if let Some(bad) = encoded.find(|c: char| !(c.is_ascii_digit() || ('a'..='f').contains(&c))) {
            return fail("not a lower-case hex digit", start + bad);
        }
        if encoded.len() != 64 {
            return fail("a sha256 digest has 64 hex digits", start + encoded.len().min(64));
        }
        let mut bytes = [0_u8; 32];
        for (byte, pair) in bytes.iter_mut().zip(encoded.as_bytes().chunks_exact(2)) {
            *byte = nibble(pair[0]) << 4 | nibble(pair[1]);
        }
        return Ok(Digest(bytes));
    }
    if encoded.is_empty() {
        return fail("empty digest", start);
    }
    if let Some(bad) = encoded.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '=' | '_' | '-'))) {
        return fail("not allowed in a digest", start + bad);
    }
    let mut error = ReferenceError::new("digest algorithm is not sha256", whole, at);
    error.unsupported = Some(algorithm.chars().take(32).collect());
    Err(error)
}

/// The value of one lower-case hex digit.
const fn nibble(digit: u8) -> u8 {
    if digit.is_ascii_digit() { digit - b'0' } else { digit - b'a' + 10 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:9ae97d36d26566ff84e8893c64a6dc4fe8ca6d1144bf5b87b2b85a32def253c7";

    #[test]
    fn x_024_one_image_has_one_name() {
        for (written, canonical) in [
            ("busybox", "docker.io/library/busybox"),
            ("library/busybox", "docker.io/library/busybox"),
            ("docker.io/busybox", "docker.io/library/busybox"),
            ("docker.io/library/busybox", "docker.io/library/busybox"),
            ("index.docker.io/busybox", "docker.io/library/busybox"),
            ("INDEX.docker.io/library/busybox", "docker.io/library/busybox"),
            ("team/app", "docker.io/team/app"),
            ("registry-1.docker.io/library/busybox", "registry-1.docker.io/library/busybox"),
            ("localhost/app", "localhost/app"),
            ("Team/app", "TEAM/app"),
            ("TEAM/app", "TEAM/app"),
            ("t-1A/app", "T-1A/app"),
            ("Registry.Example.com/Release".to_lowercase().as_str(), "registry.example.com/release"),
            ("REGISTRY.example.com:5000/a/b", "registry.example.com:5000/a/b"),
            ("registry.example.com:443/a", "registry.example.com:443/a"),
            ("[2001:db8::1]:5000/a", "[2001:db8::1]:5000/a"),
            ("[::ffff:10.0.0.1]/a", "[::ffff:10.0.0.1]/a"),
            ("127.0.0.1:5000/a", "127.0.0.1:5000/a"),
            ("2130706433:5000/a", "2130706433:5000/a"),
            ("0x7f000001/a", "docker.io/0x7f000001/a"),
            ("a.b/c__d/e--f/g.h_i", "a.b/c__d/e--f/g.h_i"),
        ] {
            let image: ImageRef = format!("{written}@{D}").parse().unwrap_or_else(|e| panic!("{written}: {e}"));
            assert_eq!(image.repository().to_string(), canonical, "{written}");
            assert_eq!(canonical.parse::<Repository>().as_ref(), Ok(image.repository()), "it reads as the same one");
            assert_eq!(image.pinned().map(|p| p.to_string()), Some(format!("{canonical}@{D}")));
        }
    }

    #[test]
    fn x_021_tags_are_read_and_prove_nothing() {
        let image: ImageRef = format!("r.example/a:v1.2@{D}").parse().expect("tag beside a digest");
        assert_eq!(image.tag().map(Tag::as_str), Some("v1.2"));
        assert_eq!(image.pinned().map(|p| p.to_string()), Some(format!("r.example/a@{D}")));
        for written in ["r.example/a", "r.example/a:latest", "busybox:1", "localhost:5000"] {
            assert_eq!(written.parse::<ImageRef>().expect(written).pinned(), None, "{written}");
        }
    }

    #[test]
    fn x_022_x_030_x_031_malformed_references() {
        let hex = &D[7..];
        for (written, at) in [
            (format!("a@sha256:{}", &hex[..1]), 10),
            (format!("a@sha256:{}", &hex[..63]), 72),
            (format!("a@sha256:{hex}0"), 73),
            (format!("a@sha256:{}", hex.to_uppercase()), 10),
            (format!("a@SHA256:{hex}"), 2),
            (format!("a@sha256-{hex}"), 73),
            (format!("a@{D}@{D}"), 73),
            ("a@".to_owned(), 2),
            (format!("@{D}"), 0),
            (String::new(), 0),
            (" ".to_owned(), 0),
            (format!(" a@{D}"), 0),
            (format!("a@{D} "), 73),
            (format!("r.example:0443/a@{D}"), 10),
            (format!("r.example:99999/a@{D}"), 10),
            (format!("r.example:/a@{D}"), 10),
            (format!("r.example./a@{D}"), 10),
            (format!(".r.example/a@{D}"), 0),
            (format!("user@r.example/a@{D}"), 16),
            (format!("https://r.example/a@{D}"), 6),
            (format!("oci://r.example/a@{D}"), 4),
            (format!("r.example/../a@{D}"), 10),
            (format!("r.example/./a@{D}"), 10),
            (format!("r.example//a@{D}"), 10),
            (format!("r.example/a/@{D}"), 12),
            (format!("/a@{D}"), 0),
            (format!("r.example/A@{D}"), 10),
            (format!("r.example/a___b@{D}"), 11),
            (format!("r.example/a..b@{D}"), 11),
            (format!("r.example/a-@{D}"), 11),
            (format!("r.example/a%2fb@{D}"), 11),
            (format!("r.example/a\\b@{D}"), 11),
            (format!("r.example/a\0@{D}"), 11),
            (format!("r.example/a\n@{D}"), 11),
            (format!("r.example/а@{D}"), 10),
            (format!("r.example/ａ@{D}"), 10),
            (format!("r.example/a\u{200b}@{D}"), 11),
            (format!("r.example/\u{202e}a@{D}"), 10),
            (format!("r.exаmple/a@{D}"), 4),
            (format!("[fe80::1%25eth0]/a@{D}"), 8),
            (format!("[::1/a@{D}"), 0),
            (format!("[::1]x/a@{D}"), 5),
            (format!("[zz]/a@{D}"), 1),
            (hex.to_owned(), 0),
            (format!("{hex}:latest"), 0),
            (format!("r.example/a:{}@{D}", "t".repeat(129)), 140),
            (format!("r.example/a:-t@{D}"), 12),
            (format!("r.example/a:@{D}"), 12),
            (format!("r.example/a:b:c@{D}"), 13),
            (format!("r.example/{}@{D}", "a".repeat(250)), 10),
            ("a".repeat(1 << 20), 0),
        ] {
            let Err(error) = written.parse::<ImageRef>() else { panic!("{written:?} was accepted") };
            assert_eq!(error.at, at, "{written:?}: {error}");
            assert_eq!(error.unsupported_algorithm(), None, "{written:?}");
            assert!(error.to_string().chars().all(|c| !c.is_control() && c != '\u{202e}'), "{error}");
            assert!(error.to_string().len() < 700);
        }
    }

    #[test]
    fn x_023_other_algorithms_are_told_apart_from_nonsense() {
        for (digest, algorithm) in [
            (format!("sha512:{}", "a".repeat(128)), "sha512"),
            ("blake3:abcd".to_owned(), "blake3"),
            ("sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709".to_owned(), "sha1"),
            ("md5:d41d8cd98f00b204e9800998ecf8427e".to_owned(), "md5"),
            ("multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8".to_owned(), "multihash+base58"),
        ] {
            let error = format!("a@{digest}").parse::<ImageRef>().expect_err(&digest);
            assert_eq!(error.unsupported_algorithm(), Some(algorithm));
        }
    }

    #[test]
    fn hosts_know_their_parts() {
        for (text, name, port) in [
            ("r.example", "r.example", None),
            ("r.example:5000", "r.example", Some(5000)),
            ("[::1]:5000", "::1", Some(5000)),
            ("[::1]", "::1", None),
        ] {
            let host: Host = text.parse().expect(text);
            assert_eq!((host.name(), host.port()), (name, port), "{text}");
        }
    }
}
