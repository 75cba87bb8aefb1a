//! The object under review: its own names, and every image in its pod spec with its place. It must never leave an image out
//! of a list that it reads, nor read past a budget.

use std::borrow::Cow;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::kinds::Shape;
use super::known_fields::{CONTAINER, EPHEMERAL_CONTAINER, IMAGE_VOLUME, POD_SPEC, VOLUME};
use super::strict::{self, Fields, Value, deeper, names_image};
use crate::decision::code::Code;
use crate::decision::printable::clip;
use crate::decision::review::{BREAK_GLASS_LABEL, BREAK_GLASS_REASON, Fault, Holder, Place, ReviewedImage, Subject};

/// Containers and image volumes that one object may hold, and unknown fields that may hold an image.
pub(super) const MAX_IMAGES: usize = 20_000;
const MAX_STRANGERS: usize = 1_000;

/// The annotation that makes a pod the mirror of a static one.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// What is kept of an object.
#[derive(Debug)]
pub(super) struct Object<'de> {
    shape: Shape,
    /// `null` or absent where unset.
    pub(super) present: bool,
    pub(super) api_version: Cow<'de, str>,
    pub(super) kind: Cow<'de, str>,
    pub(super) namespace: Cow<'de, str>,
    pub(super) name: Cow<'de, str>,
    pub(super) generate_name: Cow<'de, str>,
    /// Of a pod that says it is a mirror.
    pub(super) mirror: bool,
    pub(super) node_name: Cow<'de, str>,
    pub(super) override_asked: Asked<'de>,
    pub(super) images: Vec<ReviewedImage>,
    pub(super) strangers: Vec<Stranger>,
    /// Why reading ended, where that is not the form of the JSON.
    pub(super) fault: Option<Fault>,
}

/// What the metadata of an object, or of the pod template in it, say about an override.
#[derive(Debug, Default)]
pub(super) struct Asked<'de> {
    pub(super) reason: Option<Cow<'de, str>>,
    /// By container.
    pub(super) containers: Vec<(String, Cow<'de, str>)>,
    pub(super) label: bool,
    pub(super) owned: bool,
}

/// An unknown field that may hold an image, and where to find it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stranger {
    pub(super) path: String,
    pub(super) key: String,
    /// The container or volume that it stands in; `None` for the pod spec.
    pub(super) inside: Option<Inside>,
}

/// A container or volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inside {
    pub(super) list: &'static str,
    pub(super) index: usize,
    pub(super) name: String,
    /// In the volume's `image` rather than in the volume.
    pub(super) image_volume: bool,
}

impl<'de> Object<'de> {
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            shape,
            present: false,
            api_version: Cow::Borrowed(""),
            kind: Cow::Borrowed(""),
            namespace: Cow::Borrowed(""),
            name: Cow::Borrowed(""),
            generate_name: Cow::Borrowed(""),
            mirror: false,
            node_name: Cow::Borrowed(""),
            override_asked: Asked::default(),
            images: Vec::new(),
            strangers: Vec::new(),
            fault: None,
        }
    }

    /// Reads the object; `depth` is the level of nesting at which it stands.
    pub(super) fn read<D: Deserializer<'de>>(&mut self, depth: u8, deserializer: D) -> Result<(), D::Error> {
        let path = self.shape.path;
        self.present =
            strict::Object { fields: &mut Step { object: self, path, top: true }, depth }.deserialize(deserializer)?;
        // By list, whatever the order of keys: equal objects give equal verdicts.
        self.images.sort_by_key(|image| image.place.holder as u8);
        Ok(())
    }

    /// Ends the reading: more of something than is looked at.
    fn exceeds<E: Error>(&mut self, limit: usize, of: &str) -> E {
        let detail = format!("more than {limit} {of} in one object");
        let error = E::custom(&detail);
        self.fault = Some(Fault::new(Code::BudgetExceeded, detail));
        error
    }

    fn stranger<E: Error>(&mut self, inside: Option<Inside>, key: &str) -> Result<(), E> {
        if self.strangers.len() >= MAX_STRANGERS {
            return Err(self.exceeds(MAX_STRANGERS, "unknown fields that may hold an image"));
        }
        let key_shown = clip(key, 80);
        let path = match &inside {
            None => format!("{}.{key_shown}", self.shape.prefix),
            Some(Inside { list, index, image_volume, .. }) => {
                let image = if *image_volume { ".image" } else { "" };
                format!("{}.{list}[{index}]{image}.{key_shown}", self.shape.prefix)
            }
        };
        self.strangers.push(Stranger { path, key: key.to_owned(), inside });
        Ok(())
    }
}

/// An object on the way to the pod spec; `path` begins with the key that leads on.
struct Step<'o, 'de> {
    object: &'o mut Object<'de>,
    path: &'static [&'static str],
    top: bool,
}

/// What the API server writes beside the key that leads on. Any other key is read all the same; these only spare the search.
const TOP_KEYS: &[&str] = &["kind", "apiVersion", "metadata", "template", "spec", "status"];
const STEP_KEYS: &[&str] = &[
    "metadata",
    "spec",
    "replicas",
    "schedule",
    "timeZone",
    "startingDeadlineSeconds",
    "concurrencyPolicy",
    "suspend",
    "jobTemplate",
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "podFailurePolicy",
    "successPolicy",
    "backoffLimit",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
    "selector",
    "manualSelector",
    "template",
    "volumeClaimTemplates",
    "serviceName",
    "podManagementPolicy",
    "updateStrategy",
    "strategy",
    "minReadySeconds",
    "revisionHistoryLimit",
    "paused",
    "progressDeadlineSeconds",
    "persistentVolumeClaimRetentionPolicy",
    "ordinals",
    "ttlSecondsAfterFinished",
    "completionMode",
    "podReplacementPolicy",
    "managedBy",
    "successfulJobsHistoryLimit",
    "failedJobsHistoryLimit",
];
const _: () = assert!(
    TOP_KEYS.len() <= 64
        && STEP_KEYS.len() <= 64
        && POD_SPEC.len() <= 64
        && CONTAINER.len() <= 64
        && EPHEMERAL_CONTAINER.len() <= 64
        && VOLUME.len() <= 64
);

impl<'de> Fields<'de> for Step<'_, 'de> {
    fn what(&self) -> &'static str {
        if self.top { "the object" } else { "the way to the pod spec" }
    }

    fn keys(&self) -> &'static [&'static str] {
        if self.top { TOP_KEYS } else { STEP_KEYS }
    }

    fn known<A: MapAccess<'de>>(&mut self, key: &'static str, value: Value<'_, A>) -> Result<(), A::Error> {
        match (key, self.path) {
            (key, [last]) if key == *last => value.object(&mut PodSpec { object: &mut *self.object }).map(drop),
            (key, [first, rest @ ..]) if key == *first => {
                value.object(&mut Step { object: &mut *self.object, path: rest, top: false }).map(drop)
            }
            ("kind", _) if self.top => value.text().map(|text| self.object.kind = text),
            ("apiVersion", _) if self.top => value.text().map(|text| self.object.api_version = text),
            ("metadata", _) if self.top => {
                value.object(&mut Metadata { object: &mut *self.object, own: true }).map(drop)
            }
            // That of the pod template.
            ("metadata", [_]) => value.object(&mut Metadata { object: &mut *self.object, own: false }).map(drop),
            _ => value.skip().map(drop),
        }
    }
}

struct Metadata<'o, 'de> {
    object: &'o mut Object<'de>,
    /// The object's own, not that of the pod template in it.
    own: bool,
}

impl<'de> Fields<'de> for Metadata<'_, 'de> {
    fn what(&self) -> &'static str {
        "the object's metadata"
    }

    fn keys(&self) -> &'static [&'static str] {
        &[
            "name",
            "generateName",
            "namespace",
            "selfLink",
            "uid",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "labels",
            "annotations",
            "ownerReferences",
            "finalizers",
            "managedFields",
        ]
    }

    fn known<A: MapAccess<'de>>(&mut self, key: &'static str, value: Value<'_, A>) -> Result<(), A::Error> {
        match key {
            "name" if self.own => value.text().map(|text| self.object.name = text),
            "generateName" if self.own => value.text().map(|text| self.object.generate_name = text),
            "namespace" if self.own => value.text().map(|text| self.object.namespace = text),
            "labels" => value.object(&mut Labels { asked: &mut self.object.override_asked }).map(drop),
            "annotations" => value.object(&mut Annotations { object: &mut *self.object }).map(drop),
            "ownerReferences" => {
                let Value { map, depth } = value;
                let any = map.next_value_seed(AnyElement { depth })?;
                self.object.override_asked.owned |= any;
                Ok(())
            }
            _ => value.skip().map(drop),
        }
    }
}

/// The annotations that are read change what a denial does, and never make an image proven.
struct Annotations<'o, 'de> {
    object: &'o mut Object<'de>,
}

impl<'de> Fields<'de> for Annotations<'_, 'de> {
    fn what(&self) -> &'static str {
        "the object's annotations"
    }

    fn keys(&self) -> &'static [&'static str] {
        &[]
    }

    fn known<A: MapAccess<'de>>(&mut self, _: &'static str, value: Value<'_, A>) -> Result<(), A::Error> {
        value.skip().map(drop)
    }

    fn unknown<A: MapAccess<'de>>(&mut self, key: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        let asked = &mut self.object.override_asked;
        match key.strip_prefix(BREAK_GLASS_REASON) {
            Some("") => {
                // Beside that of a template that of its pods says nothing new.
                asked.reason = Some(value.text()?);
                return Ok(());
            }
            Some(behind) => {
                if let Some(container) = behind.strip_prefix('.') {
                    asked.containers.push((container.to_owned(), value.text()?));
                    return Ok(());
                }
            }
            None => self.object.mirror |= key == MIRROR_ANNOTATION && self.object.shape.subject == Subject::Pod,
        }
        value.skip().map(drop)
    }
}

/// The labels, of which one is looked for.
struct Labels<'o, 'de> {
    asked: &'o mut Asked<'de>,
}

impl<'de> Fields<'de> for Labels<'_, 'de> {
    fn what(&self) -> &'static str {
        "the object's labels"
    }

    fn keys(&self) -> &'static [&'static str] {
        &[]
    }

    fn known<A: MapAccess<'de>>(&mut self, _: &'static str, value: Value<'_, A>) -> Result<(), A::Error> {
        value.skip().map(drop)
    }

    fn unknown<A: MapAccess<'de>>(&mut self, key: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        self.asked.label |= key == BREAK_GLASS_LABEL;
        value.skip().map(drop)
    }
}

/// Whether a list holds anything; `null` holds nothing.
struct AnyElement {
    depth: u8,
}

impl<'de> DeserializeSeed<'de> for AnyElement {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyElement {
    type Value = bool;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of owners")
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        let below = strict::Skip { depth: deeper(self.depth)? };
        let mut any = false;
        while seq.next_element_seed(below)?.is_some() {
            any = true;
        }
        Ok(any)
    }
}

struct PodSpec<'o, 'de> {
    object: &'o mut Object<'de>,
}

impl<'de> Fields<'de> for PodSpec<'_, 'de> {
    fn what(&self) -> &'static str {
        "the pod spec"
    }

    fn keys(&self) -> &'static [&'static str] {
        POD_SPEC
    }

    fn known<A: MapAccess<'de>>(&mut self, key: &'static str, value: Value<'_, A>) -> Result<(), A::Error> {
        let holder = match key {
            "containers" => Holder::Container,
            "initContainers" => Holder::InitContainer,
            "ephemeralContainers" => Holder::EphemeralContainer,
            "volumes" => Holder::Volume,
            "nodeName" => return value.text().map(|text| self.object.node_name = text),
            _ => return value.skip().map(drop),
        };
        let Value { map, depth } = value;
        map.next_value_seed(Elements { object: &mut *self.object, holder, list: key, depth })
    }

    fn unknown<A: MapAccess<'de>>(&mut self, key: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        if value.skip()? || names_image(key) { self.object.stranger(None, key) } else { Ok(()) }
    }
}

/// A list of containers or volumes; `null` is an empty one.
struct Elements<'o, 'de> {
    object: &'o mut Object<'de>,
    holder: Holder,
    list: &'static str,
    depth: u8,
}

impl<'de> DeserializeSeed<'de> for Elements<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a list for {}", self.list)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { object, holder, list, depth } = self;
        let depth = deeper(depth)?;
        for index in 0.. {
            let mut element = Element::new(holder);
            match seq.next_element_seed(strict::Object { fields: &mut element, depth })? {
                None => break,
                Some(false) => return Err(A::Error::custom(format_args!("null in {list}"))),
                Some(true) => object.take(element, list, index)?,
            }
        }
        Ok(())
    }
}

impl<'de> Object<'de> {
    /// Keeps what an element holds.
    fn take<E: Error>(&mut self, element: Element<'de>, list: &'static str, index: usize) -> Result<(), E> {
        let Element { holder, name, image, strangers } = element;
        for (key, image_volume) in strangers {
            let inside = Inside { list, index, name: name.clone().into_owned(), image_volume };
            self.stranger(Some(inside), &key)?;
        }
        let Some(text) = image else { return Ok(()) };
        if self.images.len() >= MAX_IMAGES {
            return Err(self.exceeds(MAX_IMAGES, "containers and image volumes"));
        }
        let path = match holder {
            Holder::Container | Holder::InitContainer | Holder::EphemeralContainer => {
                format!("{}.{list}[{index}]", self.shape.prefix)
            }
            Holder::Volume => format!("{}.{list}[{index}].image", self.shape.prefix),
        };
        let place = Place { path, holder, name: name.into_owned() };
        self.images.push(ReviewedImage { place, text: text.into_owned(), unchanged: false });
        Ok(())
    }
}

/// One container or volume.
struct Element<'de> {
    holder: Holder,
    name: Cow<'de, str>,
    /// `None` for a volume of another source; a container always has one, if only an empty one.
    image: Option<Cow<'de, str>>,
    /// Unknown keys that may hold an image, and whether they stand in the volume's `image`.
    strangers: Vec<(String, bool)>,
}

impl Element<'_> {
    fn new(holder: Holder) -> Self {
        let image = match holder {
            Holder::Container | Holder::InitContainer | Holder::EphemeralContainer => Some(Cow::Borrowed("")),
            Holder::Volume => None,
        };
        Self { holder, name: Cow::Borrowed(""), image, strangers: Vec::new() }
    }
}

impl<'de> Fields<'de> for Element<'de> {
    fn what(&self) -> &'static str {
        match self.holder {
            Holder::Container | Holder::InitContainer | Holder::EphemeralContainer => "a container",
            Holder::Volume => "a volume",
        }
    }

    fn keys(&self) -> &'static [&'static str] {
        match self.holder {
            Holder::Container | Holder::InitContainer => CONTAINER,
            Holder::EphemeralContainer => EPHEMERAL_CONTAINER,
            Holder::Volume => VOLUME,
        }
    }

    fn known<A: MapAccess<'de>>(&mut self, key: &'static str, value: Value<'_, A>) -> Result<(), A::Error> {
        match (key, self.holder) {
            ("name", _) => value.text().map(|text| self.name = text),
            ("image", Holder::Container | Holder::InitContainer | Holder::EphemeralContainer) => {
                value.text().map(|text| self.image = Some(text))
            }
            ("image", Holder::Volume) => {
                let mut volume = ImageVolume { reference: Cow::Borrowed(""), strangers: &mut self.strangers };
                if value.object(&mut volume)? {
                    self.image = Some(volume.reference);
                }
                Ok(())
            }
            _ => value.skip().map(drop),
        }
    }

    fn unknown<A: MapAccess<'de>>(&mut self, key: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        // One more than may be is enough to be told.
        if (value.skip()? || names_image(key)) && self.strangers.len() <= MAX_STRANGERS {
            self.strangers.push((key.to_owned(), false));
        }
        Ok(())
    }
}

/// `volumes[].image`.
struct ImageVolume<'e, 'de> {
    reference: Cow<'de, str>,
    strangers: &'e mut Vec<(String, bool)>,
}

impl<'de> Fields<'de> for ImageVolume<'_, 'de> {
    fn what(&self) -> &'static str {
        "an image volume"
    }

    fn keys(&self) -> &'static [&'static str] {
        IMAGE_VOLUME
    }

    fn known<A: MapAccess<'de>>(&mut self, key: &'static str, value: Value<'_, A>) -> Result<(), A::Error> {
        match key {
            "reference" => value.text().map(|text| self.reference = text),
            _ => value.skip().map(drop),
        }
    }

    fn unknown<A: MapAccess<'de>>(&mut self, key: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        if (value.skip()? || names_image(key)) && self.strangers.len() <= MAX_STRANGERS {
            self.strangers.push((key.to_owned(), true));
        }
        Ok(())
    }
}
