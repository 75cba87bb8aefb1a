//! Manifests and indexes (OCI image specification 1.1, Docker schema 2) as far as evidence needs them. It must never
//! read one document as two things.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::limits::{ENTRIES_READ, LAYERS_READ};

use crate::decision::reference::Digest;
use crate::edge::registry::{Descriptor, Manifest};
use crate::edge::sigstore::json::{self, Unique};

const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];

/// A manifest or an index; which of the two is beyond doubt.
#[derive(Debug)]
pub(super) enum Document {
    /// An image or an artifact.
    Manifest(Artifact),
    /// An index.
    Index(Index),
}

/// An index with its entries.
#[derive(Debug)]
pub(super) struct Index {
    /// The first of them, at most [`ENTRIES_READ`]. Each is read by itself, so that a broken one spoils no other.
    pub(super) entries: Vec<Result<Descriptor, Invalid>>,
    /// How many there are.
    pub(super) count: usize,
}

/// A manifest with its layers.
#[derive(Debug)]
pub(super) struct Artifact {
    kind: Option<String>,
    config_kind: Option<String>,
    /// The digest of what it refers to; `None` where it refers to nothing.
    pub(super) subject: Result<Option<Digest>, Invalid>,
    /// The last layers, at most [`LAYERS_READ`], each read by itself.
    pub(super) layers: Vec<Result<Descriptor, Invalid>>,
    /// How many layers there are.
    pub(super) layer_count: usize,
    /// Annotations; hints.
    pub(super) annotations: BTreeMap<String, String>,
}

/// Why bytes are no manifest that is read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// They are no JSON, or not all of it: no document at all. Whoever knows their digest knows that this is what was meant;
    /// whoever does not has no answer.
    NoDocument(String),
    /// They are a document, and none that is read.
    Invalid(Invalid),
}

impl Unread {
    /// For those to whom it makes no difference, since the bytes are what their digest says.
    pub(super) fn into_detail(self) -> String {
        match self {
            Self::NoDocument(detail) | Self::Invalid(Invalid(detail)) => detail,
        }
    }
}

impl From<Invalid> for Unread {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

/// Why a document, or a part of it, is not what it should be; for the reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Invalid(pub(super) String);

impl Document {
    /// Reads a manifest or an index. Body, `mediaType` and `Content-Type` must tell the same.
    pub(super) fn read(manifest: &Manifest) -> Result<Self, Unread> {
        let wire: Wire = json::read(&manifest.bytes).map_err(|error| {
            let detail = format!("it cannot be read: {error}");
            if error.is_whole { Unread::Invalid(Invalid(detail)) } else { Unread::NoDocument(detail) }
        })?;
        Ok(Self::of(wire, manifest.content_type.as_str())?)
    }

    fn of(wire: Wire, served: &str) -> Result<Self, Invalid> {
        if wire.schema_version != Some(2) {
            return Err(invalid("its schemaVersion is not 2"));
        }
        let types = match (&wire.manifests, wire.layers.is_some() || wire.config.is_some()) {
            (Some(_), true) => return Err(invalid("it is a manifest and an index at once")),
            (Some(_), false) => INDEXES,
            (None, true) => MANIFESTS,
            (None, false) => return Err(invalid("it is neither a manifest nor an index")),
        };
        if wire.media_type.as_deref().is_some_and(|written| !types.contains(&written)) {
            return Err(invalid("its media type says otherwise than its contents"));
        }
        if MANIFESTS.contains(&served) || INDEXES.contains(&served) {
            let agree = wire.media_type.as_deref().map_or_else(|| types.contains(&served), |written| written == served);
            if !agree {
                return Err(invalid("its media type and the registry's Content-Type differ"));
            }
        }
        if let Some(entries) = wire.manifests {
            return Ok(Self::Index(Index { count: entries.count, entries: entries.descriptors() }));
        }
        if wire.blobs.is_some() || wire.fs_layers.is_some() {
            return Err(invalid("it holds fields of another kind of manifest"));
        }
        let config_type = match wire.config {
            Some(config) => {
                Some(json::read::<TypeOnly>(config.get().as_bytes()).map_err(|_| invalid("its config is none"))?)
            }
            None => None,
        };
        let layers = wire.layers.unwrap_or_default();
        Ok(Self::Manifest(Artifact {
            kind: wire.artifact_type.filter(|t| !t.is_empty()),
            config_kind: config_type.map(|c| c.media_type),
            subject: wire.subject.map(|raw| descriptor(&raw).map(|subject| subject.digest)).transpose(),
            layer_count: layers.count,
            layers: layers.descriptors(),
            annotations: wire.annotations.unwrap_or_default().0,
        }))
    }
}

impl Artifact {
    /// `artifactType` and the config's type.
    pub(super) fn kinds(&self) -> impl Iterator<Item = &str> {
        self.kind.as_deref().into_iter().chain(self.config_kind.as_deref())
    }

    /// The last layers with their places, the last one first.
    pub(super) fn newest(&self) -> impl Iterator<Item = (usize, &Result<Descriptor, Invalid>)> {
        (0..self.layer_count).rev().zip(self.layers.iter().rev())
    }
}

/// Reads one descriptor. Its digest is sha256 and well-formed, so that it can stand in a path.
fn descriptor(raw: &RawValue) -> Result<Descriptor, Invalid> {
    let wire: DescriptorWire =
        json::read(raw.get().as_bytes()).map_err(|e| Invalid(format!("a descriptor cannot be read: {e}")))?;
    let digest = wire.digest.parse().map_err(|_| invalid("the digest in a descriptor is not a sha256 digest"))?;
    Ok(Descriptor {
        media_type: wire.media_type,
        artifact_type: wire.artifact_type.filter(|t| !t.is_empty()),
        digest,
        size: wire.size,
        annotations: wire.annotations.unwrap_or_default().0,
        platform: wire.platform.map(|platform| (platform.os, platform.architecture)),
    })
}

/// Whether a media type is one of an index.
pub(super) fn is_index(media_type: &str) -> bool {
    INDEXES.contains(&media_type)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(default)]
    schema_version: Option<u64>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Box<RawValue>>,
    #[serde(default)]
    layers: Option<Few<LAYERS_READ, true>>,
    #[serde(default)]
    manifests: Option<Few<ENTRIES_READ, false>>,
    #[serde(default)]
    subject: Option<Box<RawValue>>,
    #[serde(default)]
    annotations: Option<Unique<String>>,
    #[serde(default)]
    blobs: Option<IgnoredAny>,
    #[serde(default)]
    fs_layers: Option<IgnoredAny>,
}

/// An array of which so many entries are kept, the last or the first ones; the others are only counted.
#[derive(Default)]
struct Few<const KEPT: usize, const LAST: bool> {
    kept: VecDeque<Box<RawValue>>,
    count: usize,
}

impl<const KEPT: usize, const LAST: bool> Few<KEPT, LAST> {
    fn descriptors(&self) -> Vec<Result<Descriptor, Invalid>> {
        self.kept.iter().map(|raw| descriptor(raw)).collect()
    }
}

impl<'de, const KEPT: usize, const LAST: bool> Deserialize<'de> for Few<KEPT, LAST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded<const KEPT: usize, const LAST: bool>;

        impl<'de, const KEPT: usize, const LAST: bool> Visitor<'de> for Bounded<KEPT, LAST> {
            type Value = Few<KEPT, LAST>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut few = Few { kept: VecDeque::new(), count: 0 };
                while few.kept.len() < KEPT || LAST {
                    let Some(entry) = seq.next_element()? else { return Ok(few) };
                    if few.kept.len() == KEPT {
                        few.kept.pop_front();
                    }
                    few.kept.push_back(entry);
                    few.count += 1;
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    few.count += 1;
                }
                Ok(few)
            }
        }

        deserializer.deserialize_seq(Bounded)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TypeOnly {
    media_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DescriptorWire {
    media_type: String,
    #[serde(default)]
    artifact_type: Option<String>,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: Option<Unique<String>>,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

fn invalid(detail: &str) -> Invalid {
    Invalid(detail.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::sigstore::digest_of;
    use serde_json::json;

    fn manifest(body: &serde_json::Value, content_type: &str) -> Manifest {
        let bytes = bytes::Bytes::from(body.to_string());
        Manifest { digest: digest_of(&bytes), bytes, content_type: content_type.to_owned() }
    }

    #[test]
    fn x_037_one_document_is_one_thing() {
        let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "sha512:1", "size": 1});
        let image =
            |media_type: &str| json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": []});
        let index = |media_type: &str| json!({"schemaVersion": 2, "mediaType": media_type, "manifests": []});
        let both = json!({"schemaVersion": 2, "config": config, "layers": [], "manifests": []});
        let untyped = json!({"schemaVersion": 2, "config": config, "layers": []});
        let schema_1 = json!({"schemaVersion": 1, "fsLayers": [], "config": config, "layers": []});
        for (name, body, content_type, good) in [
            ("an OCI manifest", image(MANIFESTS[0]), MANIFESTS[0], true),
            ("a Docker manifest", image(MANIFESTS[1]), MANIFESTS[1], true),
            ("an OCI index", index(INDEXES[0]), INDEXES[0], true),
            ("a Docker list", index(INDEXES[1]), INDEXES[1], true),
            ("no media type", untyped.clone(), MANIFESTS[0], true),
            ("a Content-Type that tells nothing", image(MANIFESTS[0]), "application/json", true),
            ("manifest and index", both, "", false),
            ("a manifest that says index", image(INDEXES[0]), INDEXES[0], false),
            ("an index that says manifest", index(MANIFESTS[0]), MANIFESTS[0], false),
            ("served as another type", image(MANIFESTS[0]), MANIFESTS[1], false),
            ("served as an index", untyped, INDEXES[0], false),
            ("an unknown type", image("application/json"), "application/json", false),
            ("schema 1", schema_1, "", false),
            ("no schema", json!({"config": config, "layers": []}), "", false),
            ("neither", json!({"schemaVersion": 2}), "", false),
            ("a list", json!([]), "", false),
        ] {
            assert_eq!(Document::read(&manifest(&body, content_type)).is_ok(), good, "{name}");
        }
    }

    #[test]
    fn x_043_what_is_no_document_is_told_from_one_that_is_wrong() {
        let good = json!({"schemaVersion": 2, "manifests": []}).to_string();
        for (text, is_document) in [
            (good[..good.len() - 1].to_owned(), false),
            (String::new(), false),
            ("<html>log in</html>".to_owned(), false),
            (format!("{good} x"), false),
            (good.replace("[]", "{}"), true),
            ("[]".to_owned(), true),
            ("null".to_owned(), true),
            (format!("{{\"x\":{}{}}}", "[".repeat(200), "]".repeat(200)), true),
        ] {
            let bytes = bytes::Bytes::from(text.clone());
            let read = Document::read(&Manifest { digest: digest_of(&bytes), bytes, content_type: String::new() });
            assert_eq!(matches!(read, Err(Unread::Invalid(_))), is_document, "{text}: {read:?}");
            assert!(read.is_err(), "{text}");
        }
    }

    #[test]
    fn x_098_of_long_lists_some_are_kept_and_all_are_counted() {
        let entry = |n: usize| json!({"mediaType": "x", "digest": format!("sha256:{n:064x}"), "size": n});
        let sizes = |entries: &[Result<Descriptor, Invalid>]| -> Vec<u64> {
            entries.iter().map(|entry| entry.as_ref().map_or(0, |entry| entry.size)).collect()
        };
        for extra in [0, 1, 5000] {
            let all: Vec<_> = (1..=ENTRIES_READ + extra).map(entry).collect();
            let read = Document::read(&manifest(&json!({"schemaVersion": 2, "manifests": all}), ""));
            let Ok(Document::Index(index)) = read else { panic!("{read:?}") };
            assert_eq!(index.count, ENTRIES_READ + extra);
            assert_eq!(sizes(&index.entries), (1..=ENTRIES_READ as u64).collect::<Vec<_>>(), "the first");

            let all: Vec<_> = (1..=LAYERS_READ + extra).map(entry).collect();
            let read = Document::read(&manifest(&json!({"schemaVersion": 2, "layers": all}), ""));
            let Ok(Document::Manifest(artifact)) = read else { panic!("{read:?}") };
            assert_eq!(artifact.layer_count, LAYERS_READ + extra);
            let want: Vec<u64> = (extra as u64 + 1..=(LAYERS_READ + extra) as u64).collect();
            assert_eq!(sizes(&artifact.layers), want, "the last");
            let (place, newest) = artifact.newest().next().expect("a layer");
            let size = newest.as_ref().map(|layer| layer.size);
            assert_eq!((place, size), (LAYERS_READ + extra - 1, Ok((LAYERS_READ + extra) as u64)));
        }
    }

    #[test]
    fn x_048_a_digest_is_a_digest() {
        for (digest, good) in [
            (format!("sha256:{}", "0".repeat(64)), true),
            (format!("sha256:{}", "A".repeat(64)), false),
            ("sha256:../../etc/passwd".to_owned(), false),
            (format!("sha512:{}", "0".repeat(128)), false),
            (String::new(), false),
        ] {
            let raw = json!({"mediaType": "x", "digest": digest, "size": 1}).to_string();
            let raw = RawValue::from_string(raw).expect("JSON");
            assert_eq!(descriptor(&raw).is_ok(), good, "{digest}");
        }
        let negative =
            json!({"mediaType": "x", "digest": format!("sha256:{}", "0".repeat(64)), "size": -1}).to_string();
        assert!(descriptor(&RawValue::from_string(negative).expect("JSON")).is_err());
    }
}
