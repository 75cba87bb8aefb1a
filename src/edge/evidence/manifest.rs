//! Manifests and indexes (OCI image specification 1.1, Docker schema 2) as far as evidence needs them. It must never
//! read one document as two things.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::decision::reference::Digest;
use crate::edge::registry::{Descriptor, Manifest};
use crate::edge::sigstore::json::{self, Unique};

const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];

/// The most entries or layers that are kept of one document: more than 4 MiB of honest ones. What is written in two bytes
/// takes many times as many.
const MAX_ENTRIES: usize = 20_000;

/// A manifest or an index; which of the two is beyond doubt.
#[derive(Debug)]
pub(super) enum Document {
    /// An image or an artifact.
    Manifest(Artifact),
    /// An index. Its entries are read one by one, so that a broken one spoils no other.
    Index(Vec<Box<RawValue>>),
}

/// A manifest with its layers.
#[derive(Debug)]
pub(super) struct Artifact {
    kind: Option<String>,
    config_kind: Option<String>,
    subject: Option<Box<RawValue>>,
    /// Layers are read one by one.
    pub(super) layers: Vec<Box<RawValue>>,
    /// Annotations; hints.
    pub(super) annotations: BTreeMap<String, String>,
}

/// Why bytes are no manifest that is read; for the reader.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Invalid(pub(super) String);

impl Document {
    /// Reads a manifest or an index. Body, `mediaType` and `Content-Type` must tell the same.
    pub(super) fn read(manifest: &Manifest) -> Result<Self, Invalid> {
        let wire: Wire = json::read(&manifest.bytes).map_err(|e| Invalid(format!("it cannot be read: {e}")))?;
        if wire.schema_version != Some(2) {
            return Err(invalid("its schemaVersion is not 2"));
        }
        let lists = [&wire.manifests, &wire.layers].into_iter().flatten();
        if lists.into_iter().any(|Entries(list)| list.len() > MAX_ENTRIES) {
            return Err(Invalid(format!("it lists more than {MAX_ENTRIES} things")));
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
        let served = manifest.content_type.as_str();
        if MANIFESTS.contains(&served) || INDEXES.contains(&served) {
            let agree = wire.media_type.as_deref().map_or_else(|| types.contains(&served), |written| written == served);
            if !agree {
                return Err(invalid("its media type and the registry's Content-Type differ"));
            }
        }
        if let Some(Entries(entries)) = wire.manifests {
            return Ok(Self::Index(entries));
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
        Ok(Self::Manifest(Artifact {
            kind: wire.artifact_type.filter(|t| !t.is_empty()),
            config_kind: config_type.map(|c| c.media_type),
            subject: wire.subject,
            layers: wire.layers.map(|Entries(layers)| layers).unwrap_or_default(),
            annotations: wire.annotations.unwrap_or_default().0,
        }))
    }
}

impl Artifact {
    /// `artifactType` and the config's type.
    pub(super) fn kinds(&self) -> impl Iterator<Item = &str> {
        self.kind.as_deref().into_iter().chain(self.config_kind.as_deref())
    }

    /// The digest of what it refers to; `Ok(None)` where it refers to nothing.
    pub(super) fn subject(&self) -> Result<Option<Digest>, Invalid> {
        self.subject.as_deref().map(|raw| descriptor(raw).map(|d| d.digest)).transpose()
    }
}

/// Reads one descriptor. Its digest is sha256 and well-formed, so that it can stand in a path.
pub(super) fn descriptor(raw: &RawValue) -> Result<Descriptor, Invalid> {
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
    layers: Option<Entries>,
    #[serde(default)]
    manifests: Option<Entries>,
    #[serde(default)]
    subject: Option<Box<RawValue>>,
    #[serde(default)]
    annotations: Option<Unique<String>>,
    #[serde(default)]
    blobs: Option<IgnoredAny>,
    #[serde(default)]
    fs_layers: Option<IgnoredAny>,
}

/// A list, each entry as text. Of one that is too long, one more than [`MAX_ENTRIES`] are kept.
struct Entries(Vec<Box<RawValue>>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while entries.len() <= MAX_ENTRIES
                    && let Some(entry) = seq.next_element()?
                {
                    entries.push(entry);
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_seq(List)
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
    fn x_098_a_list_that_would_fill_memory_is_not_kept() {
        let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "sha512:1", "size": 1});
        let layers = |count: usize| json!({"schemaVersion": 2, "config": config, "layers": vec![0; count]});
        let entries = |count: usize| json!({"schemaVersion": 2, "manifests": vec![0; count]});
        for (body, good) in [
            (layers(MAX_ENTRIES), true),
            (layers(MAX_ENTRIES + 1), false),
            (layers(1_000_000), false),
            (entries(MAX_ENTRIES), true),
            (entries(MAX_ENTRIES + 1), false),
        ] {
            let read = Document::read(&manifest(&body, "")).map(drop);
            assert_eq!(read, if good { Ok(()) } else { Err(invalid("it lists more than 20000 things")) });
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
