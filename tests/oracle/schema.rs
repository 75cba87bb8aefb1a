//! The extract of the Kubernetes OpenAPI (`openapi.json`), as far as the oracle walks it. It must never take anything from
//! Provost's own code.

use std::collections::BTreeMap;

use serde_json::Value;

/// The fields that name an image to the kubelet, by type. A container's may be left out and is then empty; so may an image
/// volume's.
pub(crate) const IMAGES: [(&str, &str); 3] = [
    ("io.k8s.api.core.v1.Container", "image"),
    ("io.k8s.api.core.v1.EphemeralContainer", "image"),
    ("io.k8s.api.core.v1.ImageVolumeSource", "reference"),
];

/// Every other field that is named like an image, with what it is. A field that is in neither list is new: look at it.
pub(crate) const NO_IMAGES: [(&str, &str, &str); 10] = [
    ("io.k8s.api.core.v1.Container", "imagePullPolicy", "when to pull"),
    ("io.k8s.api.core.v1.EphemeralContainer", "imagePullPolicy", "when to pull"),
    ("io.k8s.api.core.v1.PodSpec", "imagePullSecrets", "names of Secrets"),
    ("io.k8s.api.core.v1.Volume", "image", "leads to an ImageVolumeSource"),
    ("io.k8s.api.core.v1.RBDVolumeSource", "image", "a block device in Ceph"),
    ("io.k8s.api.core.v1.PreferredSchedulingTerm", "preference", "a node selector"),
    ("io.k8s.api.core.v1.ContainerStatus", "image", "told by the kubelet, starts nothing"),
    ("io.k8s.api.core.v1.ContainerStatus", "imageID", "told by the kubelet, starts nothing"),
    ("io.k8s.api.core.v1.VolumeStatus", "image", "told by the kubelet, starts nothing"),
    ("io.k8s.api.core.v1.ImageVolumeStatus", "imageRef", "told by the kubelet, starts nothing"),
];

/// The types in which an unknown field with an image is refused (X-015: a pod spec, a container, a volume).
const WATCHED: [&str; 5] = [
    "io.k8s.api.core.v1.PodSpec",
    "io.k8s.api.core.v1.Container",
    "io.k8s.api.core.v1.EphemeralContainer",
    "io.k8s.api.core.v1.Volume",
    "io.k8s.api.core.v1.ImageVolumeSource",
];

/// The types of the extract, by number.
pub(crate) struct Schema {
    pub(crate) types: Vec<Type>,
    /// The kinds that hold a pod spec: group, version, kind, and their type.
    pub(crate) kinds: Vec<([String; 3], usize)>,
}

/// One type.
#[derive(Default)]
pub(crate) struct Type {
    pub(crate) name: String,
    /// Every field, sorted, with what kind of JSON its value is.
    pub(crate) fields: Vec<(String, Form)>,
    /// The fields behind which an image can stand.
    pub(crate) ways: Vec<Way>,
    /// The field that names an image.
    pub(crate) image: Option<&'static str>,
    pub(crate) is_watched: bool,
    pub(crate) is_pod_template: bool,
}

/// What JSON the value of a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Text,
    Number,
    Truth,
    List,
    Object,
}

/// A field that leads on.
pub(crate) struct Way {
    pub(crate) key: String,
    pub(crate) is_list: bool,
    pub(crate) to: usize,
}

impl Type {
    pub(crate) fn knows(&self, key: &str) -> bool {
        self.fields.binary_search_by(|(field, _)| field.as_str().cmp(key)).is_ok()
    }
}

impl Schema {
    pub(crate) fn read() -> Self {
        let document: Value = serde_json::from_str(include_str!("openapi.json")).expect("the extract is JSON");
        let schemas = document["components"]["schemas"].as_object().expect("types");
        let numbers: BTreeMap<&str, usize> = schemas.keys().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
        let mut types: Vec<Type> = schemas.iter().map(|(name, schema)| Type::of(name, schema, &numbers)).collect();
        // Only what leads to an image is walked: types fall away until none is left that leads nowhere.
        let mut leads: Vec<bool> = types.iter().map(|t| t.image.is_some()).collect();
        while let Some(at) = (0..types.len()).find(|&at| !leads[at] && types[at].ways.iter().any(|way| leads[way.to])) {
            leads[at] = true;
        }
        for each in &mut types {
            each.ways.retain(|way| leads[way.to]);
        }
        let text = |of: &Value, key| of[key].as_str().expect("a text").to_owned();
        let kinds = schemas.iter().filter_map(|(name, schema)| {
            let of = schema.get("x-kubernetes-group-version-kind")?.get(0)?;
            Some((["group", "version", "kind"].map(|key| text(of, key)), numbers[name.as_str()]))
        });
        let kinds = kinds.collect();
        Self { types, kinds }
    }
}

impl Type {
    fn of(name: &str, schema: &Value, numbers: &BTreeMap<&str, usize>) -> Self {
        let fields = schema["properties"].as_object().expect("fields");
        let leads_to = |field: &Value| {
            let reference = field.get("$ref").and_then(Value::as_str)?;
            numbers.get(reference.rsplit('/').next()?).copied()
        };
        let ways = fields.iter().filter_map(|(key, field)| {
            let items = field.get("items");
            let to = leads_to(items.unwrap_or(field))?;
            Some(Way { key: key.clone(), is_list: items.is_some(), to })
        });
        let form = |field: &Value| match field.get("type").and_then(Value::as_str) {
            Some("string") => Form::Text,
            Some("integer" | "number") => Form::Number,
            Some("boolean") => Form::Truth,
            Some("array") => Form::List,
            _ => Form::Object,
        };
        let mut known: Vec<_> = fields.iter().map(|(key, field)| (key.clone(), form(field))).collect();
        known.sort_by(|(a, _), (b, _)| a.cmp(b));
        Self {
            name: name.to_owned(),
            ways: ways.collect(),
            fields: known,
            image: IMAGES.iter().find(|(of, _)| *of == name).map(|(_, field)| *field),
            is_watched: WATCHED.contains(&name),
            is_pod_template: name == "io.k8s.api.core.v1.PodTemplateSpec",
        }
    }
}
