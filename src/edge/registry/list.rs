//! Lists of descriptors: indexes and referrers pages, read by shape and within bounds. It must never take an entry at its
//! word: what a list says are hints for the order of fetching.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue, LINK};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::address::{parse_url, same_origin};
use super::{Descriptor, Failure, Referrers, shown};
use crate::decision::reference::Digest;

/// Most descriptors that are read, over all pages.
const MAX_DESCRIPTORS: usize = 1000;
/// Most pages of one list.
const MAX_PAGES: usize = 10;

/// Reads an OCI index or a Docker manifest list (OCI image specification, "Image Index"). The media type of the reply is
/// not asked for: what is an index by shape is one.
///
/// `Unavailable` where it is none, where a digest is not a well-formed sha256 digest, and where the text ends too early,
/// which alone may pass; `BudgetExceeded` over 1000 entries.
pub fn parse_index(bytes: &[u8]) -> Result<Vec<Descriptor>, Failure> {
    let page = parse_page(bytes)?;
    if page.cut {
        return Err(Failure::BudgetExceeded { detail: format!("an index of more than {MAX_DESCRIPTORS} entries") });
    }
    Ok(page.entries)
}

/// One page of a list: at most [`MAX_DESCRIPTORS`] entries.
#[derive(Debug)]
pub(super) struct Page {
    entries: Vec<Descriptor>,
    /// Whether there were more.
    cut: bool,
}

/// Reads one page.
pub(super) fn parse_page(bytes: &[u8]) -> Result<Page, Failure> {
    let none = |detail: String| no_answer(format!("not an image index: {detail}"));
    let index: RawIndex = serde_json::from_slice(bytes).map_err(|error| {
        if error.is_eof() {
            Failure::Unavailable { detail: "the list ends too early".to_owned(), transient: true }
        } else {
            none(shown(&error.to_string(), 200))
        }
    })?;
    if index.schema_version != 2 {
        return Err(none(format!("schemaVersion {}", index.schema_version)));
    }
    match index.media_type.as_deref() {
        None | Some(super::OCI_INDEX | super::DOCKER_LIST) => {}
        Some(other) => return Err(none(format!("mediaType {}", shown(other, 100)))),
    }
    // CVE-2021-41190: what reads as a manifest to one tool and as an index to another is neither.
    if index.config.is_some() || index.layers.is_some() || index.fs_layers.is_some() {
        return Err(none("it is a manifest as well".to_owned()));
    }
    let Manifests { raw, cut } = index.manifests;
    let entries = raw.into_iter().map(descriptor).collect::<Result<_, _>>().map_err(none)?;
    Ok(Page { entries, cut })
}

fn descriptor(raw: RawDescriptor) -> Result<Descriptor, String> {
    let digest = raw.digest.parse().map_err(|error| format!("the digest of an entry: {error}"))?;
    Ok(Descriptor {
        media_type: raw.media_type,
        artifact_type: raw.artifact_type,
        digest,
        size: raw.size,
        annotations: raw.annotations.map(|Annotations(map)| map).unwrap_or_default(),
        platform: raw.platform.map(|platform| (platform.os, platform.architecture)),
    })
}

/// A list that comes in pages, as far as it has been read.
#[derive(Debug)]
pub(super) struct Pages {
    next: Option<Url>,
    /// Every page that was asked for.
    asked: Vec<Url>,
    entries: Vec<Descriptor>,
    digests: BTreeSet<Digest>,
    filtered: bool,
    cut_by: Option<String>,
}

impl Pages {
    pub(super) const fn new(first: Url) -> Self {
        Self {
            next: Some(first),
            asked: Vec::new(),
            entries: Vec::new(),
            digests: BTreeSet::new(),
            filtered: false,
            cut_by: None,
        }
    }

    /// The page to ask for now.
    pub(super) fn next(&mut self) -> Option<Url> {
        let next = self.next.take()?;
        self.asked.push(next.clone());
        Some(next)
    }

    pub(super) const fn is_first(&self) -> bool {
        self.asked.len() == 1
    }

    /// Takes in the page that was asked for last.
    pub(super) fn add(
        &mut self,
        here: &Url,
        page: Result<Page, Failure>,
        headers: &HeaderMap,
        what: &str,
    ) -> Result<(), Failure> {
        let page = page.map_err(|failure| about(failure, what))?;
        self.filtered |= headers.contains_key("oci-filters-applied");
        let links: Result<Vec<&str>, _> = headers.get_all(LINK).iter().map(HeaderValue::to_str).collect();
        let links = links.map_err(|_| no_answer(format!("{what}: the Link header cannot be read")))?;
        let next = next_page(&links, here).map_err(|failure| about(failure, what))?;
        for entry in page.entries {
            if self.digests.contains(&entry.digest) {
                continue;
            }
            if self.entries.len() == MAX_DESCRIPTORS {
                self.cut_by = Some(format!("a list of more than {MAX_DESCRIPTORS} referrers"));
                return Ok(());
            }
            self.digests.insert(entry.digest);
            self.entries.push(entry);
        }
        if page.cut {
            self.cut_by = Some(format!("a list of more than {MAX_DESCRIPTORS} referrers"));
            return Ok(());
        }
        match next {
            None => {}
            Some(next) if !same_origin(&next, here) => {
                self.cut_by = Some("a next page on another host, which is not followed".to_owned());
            }
            Some(next) if self.asked.contains(&next) => {
                self.cut_by = Some("a next page that was read before".to_owned());
            }
            Some(_) if self.asked.len() == MAX_PAGES => {
                self.cut_by = Some(format!("a list of more than {MAX_PAGES} pages"));
            }
            Some(next) => self.next = Some(next),
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Referrers {
        let complete = !self.filtered && self.cut_by.is_none();
        Referrers::Listed { entries: self.entries, complete, cut_by: self.cut_by }
    }
}

/// What came says nothing about what refers to the image: the source has not answered.
fn no_answer(detail: String) -> Failure {
    Failure::Unavailable { detail, transient: false }
}

fn about(failure: Failure, what: &str) -> Failure {
    match failure {
        Failure::Unavailable { detail, transient } => {
            Failure::Unavailable { detail: format!("{what}: {detail}"), transient }
        }
        Failure::NotFound { .. }
        | Failure::AuthFailed { .. }
        | Failure::RateLimited { .. }
        | Failure::AddressRefused { .. }
        | Failure::DigestMismatch { .. }
        | Failure::BudgetExceeded { .. }
        | Failure::DeadlineExceeded { .. } => failure,
    }
}

/// The address of the next page (RFC 8288, as the distribution specification uses it), where the reply names one.
///
/// `Unavailable` where the header cannot be read.
pub(super) fn next_page(links: &[&str], here: &Url) -> Result<Option<Url>, Failure> {
    let unreadable = |what: &str| no_answer(format!("the Link header {what}"));
    let mut next = None;
    for link in links {
        for (target, relations) in parse_links(link).ok_or_else(|| unreadable("cannot be read"))? {
            if relations.split_ascii_whitespace().any(|relation| relation.eq_ignore_ascii_case("next")) {
                let url = parse_url(target, Some(here)).map_err(unreadable)?;
                if next.as_ref().is_some_and(|other| *other != url) {
                    return Err(unreadable("names two next pages"));
                }
                next = Some(url);
            }
        }
    }
    Ok(next)
}

/// `<target>; name=value; …, <target> …` as pairs of target and `rel`.
fn parse_links(text: &str) -> Option<Vec<(&str, String)>> {
    let mut links = Vec::new();
    let mut rest = text.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let (target, mut after) = rest.strip_prefix('<')?.split_once('>')?;
        let mut relations = None;
        loop {
            after = after.trim_start_matches([' ', '\t']);
            let Some(parameter) = after.strip_prefix(';') else { break };
            let parameter = parameter.trim_start_matches([' ', '\t']);
            let end = parameter.find(['=', ';', ',']).unwrap_or(parameter.len());
            let (name, value) = parameter.split_at(end);
            let Some(value) = value.strip_prefix('=') else {
                after = value;
                continue;
            };
            let value = value.trim_start_matches([' ', '\t']);
            let (value, left) = match value.strip_prefix('"') {
                // No relation type and no URL has a backslash: an escape is not worth reading.
                Some(quoted) => quoted.split_once('"').filter(|(inner, _)| !inner.contains('\\'))?,
                None => value.split_at(value.find([';', ',', ' ', '\t']).unwrap_or(value.len())),
            };
            // RFC 8288, 3.3: the first `rel` counts.
            if name.trim_end().eq_ignore_ascii_case("rel") && relations.is_none() {
                relations = Some(value.to_owned());
            }
            after = left;
        }
        if !after.is_empty() && !after.starts_with(',') {
            return None;
        }
        links.push((target, relations.unwrap_or_default()));
        rest = after.trim_start_matches([' ', '\t', ',']);
    }
    Some(links)
}

#[derive(Deserialize)]
struct RawIndex {
    #[serde(rename = "schemaVersion")]
    schema_version: u32,
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    manifests: Manifests,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct RawDescriptor {
    #[serde(rename = "mediaType")]
    media_type: String,
    #[serde(rename = "artifactType")]
    artifact_type: Option<String>,
    digest: String,
    size: u64,
    annotations: Option<Annotations>,
    platform: Option<RawPlatform>,
}

#[derive(Deserialize)]
struct RawPlatform {
    os: String,
    architecture: String,
}

/// Descriptors up to the limit; the rest is skipped and not kept.
struct Manifests {
    raw: Vec<RawDescriptor>,
    cut: bool,
}

impl<'de> Deserialize<'de> for Manifests {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded;
        impl<'de> Visitor<'de> for Bounded {
            type Value = Manifests;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of descriptors")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Manifests, A::Error> {
                let mut raw = Vec::new();
                while raw.len() < MAX_DESCRIPTORS {
                    match seq.next_element()? {
                        Some(element) => raw.push(element),
                        None => return Ok(Manifests { raw, cut: false }),
                    }
                }
                let mut cut = false;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    cut = true;
                }
                Ok(Manifests { raw, cut })
            }
        }
        deserializer.deserialize_seq(Bounded)
    }
}

/// Annotations, each key at most once.
struct Annotations(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Unique;
        impl<'de> Visitor<'de> for Unique {
            type Value = Annotations;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Annotations, A::Error> {
                let mut annotations = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if annotations.insert(key, value).is_some() {
                        return Err(A::Error::custom("duplicate annotation"));
                    }
                }
                Ok(Annotations(annotations))
            }
        }
        deserializer.deserialize_map(Unique)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865";

    #[test]
    fn an_index_is_read_as_it_is_written() {
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"m","artifactType":"t","digest":"{D}","size":7,"annotations":{{"a":"b"}},
               "platform":{{"os":"linux","architecture":"arm64","variant":"v8"}},"data":"e30=","urls":[]}},
               {{"mediaType":"m","digest":"{D}","size":0,"annotations":null}}]}}"#
        );
        let entries = parse_index(text.as_bytes()).expect("index");
        let [full, bare] = entries.as_slice() else { panic!("{entries:?}") };
        assert_eq!(full.platform, Some(("linux".to_owned(), "arm64".to_owned())));
        assert_eq!((full.artifact_type.as_deref(), full.size), (Some("t"), 7));
        assert_eq!(full.annotations.get("a").map(String::as_str), Some("b"));
        assert_eq!((bare.platform.as_ref(), bare.artifact_type.as_ref(), bare.annotations.len()), (None, None, 0));
    }

    #[test]
    fn x_037_what_is_no_plain_index_is_no_answer() {
        let good = format!(r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"m","digest":"{D}","size":1}}]}}"#);
        assert!(parse_index(good.as_bytes()).is_ok());
        for (from, to) in [
            ("\"schemaVersion\":2", "\"schemaVersion\":1"),
            ("\"schemaVersion\":2,", ""),
            ("\"schemaVersion\":2", "\"schemaVersion\":2,\"schemaVersion\":2"),
            ("\"schemaVersion\":2", "\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\""),
            ("\"schemaVersion\":2", "\"schemaVersion\":2,\"layers\":[]"),
            ("\"schemaVersion\":2", "\"schemaVersion\":2,\"config\":{}"),
            ("\"schemaVersion\":2", "\"schemaVersion\":2,\"fsLayers\":[]"),
            ("manifests", "Manifests"),
            ("\"size\":1", "\"size\":-1"),
            ("\"size\":1", "\"size\":1.5"),
            ("\"size\":1", "\"size\":1,\"size\":2"),
            ("\"size\":1", "\"size\":1,\"annotations\":{\"a\":\"b\",\"a\":\"c\"}"),
            ("\"size\":1", "\"size\":1,\"annotations\":{\"a\":1}"),
            ("\"mediaType\":\"m\",", ""),
            ("sha256:4355", "sha256:X355"),
            ("}]}", "}]} x"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            let none = parse_index(bad.as_bytes());
            assert!(matches!(none, Err(Failure::Unavailable { transient: false, .. })), "{bad}: {none:?}");
        }
        for end in [0, 1, 20, good.len() - 1] {
            let cut = parse_index(&good.as_bytes()[..end]);
            assert!(matches!(cut, Err(Failure::Unavailable { transient: true, .. })), "{end}: {cut:?}");
        }
        // Nesting costs no stack, whether the place is read or skipped.
        for deep in ["{\"schemaVersion\":2,\"manifests\":[],\"x\":", "{\"schemaVersion\":2,\"manifests\":"] {
            assert!(parse_index(format!("{deep}{}", "[".repeat(100_000)).as_bytes()).is_err());
        }
    }

    #[test]
    fn x_098_a_count_over_the_limit_is_not_kept() {
        let entry = format!(r#"{{"mediaType":"m","digest":"{D}","size":1}}"#);
        let text =
            |count: usize| format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, vec![entry.as_str(); count].join(","));
        assert_eq!(parse_index(text(1000).as_bytes()).map(|entries| entries.len()), Ok(1000));
        assert!(matches!(parse_index(text(1001).as_bytes()), Err(Failure::BudgetExceeded { .. })));
    }

    #[test]
    fn link_headers_are_read_strictly() {
        let here = Url::parse("https://r.example/v2/a/referrers/d").expect("url");
        for (links, want) in [
            (&[][..], None),
            (&["</n?x=1>; rel=\"next\""][..], Some("https://r.example/n?x=1")),
            (&["<?x=1>;rel=next"], Some("https://r.example/v2/a/referrers/d?x=1")),
            (&["</p>; rel=prev, </n>; rel=\"last next\""], Some("https://r.example/n")),
            (&["</p>; rel=prev", "</n>; REL=NEXT"], Some("https://r.example/n")),
            (&["</n>; title=\"a, b; c\"; rel=next"], Some("https://r.example/n")),
            (&["</n>; rel=prev; rel=next"], None),
            (&["</n>; crossorigin; rel=next"], Some("https://r.example/n")),
            (&["</n>"], None),
            (&["</n>; rel=next, </n>; rel=next"], Some("https://r.example/n")),
        ] {
            let next = next_page(links, &here).expect("readable").map(|url| url.to_string());
            assert_eq!(next.as_deref(), want, "{links:?}");
        }
        for bad in [
            "/n; rel=next",
            "</n; rel=next",
            "</n> rel=next",
            "</n>; rel=\"next",
            "</n>; rel=next, </m>; rel=next",
            "<https://0x7f.1/n>; rel=next",
            "<https://u@r.example/n>; rel=next",
            "</ n>; rel=next",
            "<>; rel=next",
        ] {
            assert!(next_page(&[bad], &here).is_err(), "{bad}");
        }
    }
}
