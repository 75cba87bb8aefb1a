//! One pass over a review: who asks for what, and the objects. It must never lose what it has read when the rest cannot be
//! read, and never judge what it reads.

use std::borrow::Cow;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::decode::{malformed, quoted};
use super::kinds::{Shape, shape};
use super::object::Object;
use super::strict::{self, Fields, Skip, Text, Value};
use crate::decision::code::Code;
use crate::decision::printable::clip;
use crate::decision::review::{Fault, Kind, Operation, Request, Subject};

/// The level of nesting at which the objects stand: review, request, object.
const OBJECT_DEPTH: u8 = 3;
/// Groups of the user. Each costs far more memory than its bytes, and the longest lists of real users have hundreds.
pub(super) const MAX_GROUPS: usize = 10_000;

/// All that is read of a review.
#[derive(Debug, Default)]
pub(super) struct Reading<'de> {
    /// Whole once [`Self::settle_request`] was called.
    pub(super) request: Request,
    /// `request.kind`.
    pub(super) object_kind: Option<Gvk<'de>>,
    /// `request.object`.
    pub(super) object: Part<'de>,
    /// `request.oldObject`; read for updates of pods only.
    pub(super) old: Part<'de>,
    api_version: Option<Cow<'de, str>>,
    kind: Option<Cow<'de, str>>,
    resource: Gvr<'de>,
    request_kind: Option<Gvk<'de>>,
    request_resource: Option<Gvr<'de>>,
    request_sub_resource: Cow<'de, str>,
    fault: Option<Fault>,
}

/// An object of the review.
#[derive(Debug, Default)]
pub(super) enum Part<'de> {
    /// Absent, or looked at and not kept.
    #[default]
    Absent,
    /// Stands before the kind or the operation in the body: read when both are known.
    Waiting(&'de RawValue),
    /// Read. It may still be `null`.
    Read(Box<Object<'de>>),
}

/// Group, version and kind, borrowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Gvk<'de> {
    pub(super) group: Cow<'de, str>,
    pub(super) version: Cow<'de, str>,
    pub(super) kind: Cow<'de, str>,
}

impl From<&Gvk<'_>> for Kind {
    fn from(kind: &Gvk<'_>) -> Self {
        Self { group: kind.group.to_string(), version: kind.version.to_string(), kind: kind.kind.to_string() }
    }
}

/// Group, version and resource, borrowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Gvr<'de> {
    group: Cow<'de, str>,
    version: Cow<'de, str>,
    resource: Cow<'de, str>,
}

impl<'de> Reading<'de> {
    /// Reads the whole body, strictly.
    pub(super) fn read(&mut self, body: &'de str) -> Result<(), Fault> {
        let mut json = serde_json::Deserializer::from_str(body);
        let read = strict::Object { fields: &mut Envelope(self), depth: 1 }.deserialize(&mut json);
        read.and_then(|_| json.end()).map_err(|error| self.fault_of(&error))?;
        for which in [Which::New, Which::Old] {
            if let Part::Waiting(raw) = *self.part(which) {
                let mut json = serde_json::Deserializer::from_str(raw.get());
                let read = self.read_object(which, &mut json);
                read.and_then(|()| json.end()).map_err(|error| self.fault_of(&error))?;
            }
        }
        Ok(())
    }

    /// Completes the request by what was read elsewhere; to be called after [`Self::read`], whatever that gave.
    pub(super) fn settle_request(&mut self) {
        let request = &mut self.request;
        request.kind = self.object_kind.as_ref().map(Kind::from).unwrap_or_default();
        request.resource = self.resource.resource.to_string();
        request.request_kind =
            self.request_kind.as_ref().filter(|kind| Some(*kind) != self.object_kind.as_ref()).map(Kind::from);
        request.request_resource = self.request_resource.as_ref().and_then(|named| {
            let same = *named == self.resource && self.request_sub_resource == request.sub_resource;
            let parts = [&named.group, &named.version, &named.resource, &self.request_sub_resource];
            (!same).then(|| parts.into_iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("/"))
        });
        if let Part::Read(object) = &self.object
            && request.name.is_empty()
        {
            let name = if object.name.is_empty() { &object.generate_name } else { &object.name };
            request.name = name.to_string();
        }
    }

    /// What is wrong with the version, where it is another than ours (C-20). In a body that could be read to its end a
    /// missing one is wrong too.
    pub(super) fn other_version(&self, whole: bool) -> Option<String> {
        let is = |found: &Option<Cow<'_, str>>, wanted: &str| match found {
            Some(found) => found == wanted,
            None => !whole,
        };
        if is(&self.api_version, "admission.k8s.io/v1") && is(&self.kind, "AdmissionReview") {
            return None;
        }
        let [version, kind] = [&self.api_version, &self.kind].map(|found| quoted(found.as_deref().unwrap_or_default()));
        Some(format!("found apiVersion {version} and kind {kind}, wanted `admission.k8s.io/v1` and `AdmissionReview`"))
    }

    fn fault_of(&mut self, error: &serde_json::Error) -> Fault {
        self.fault.take().unwrap_or_else(|| malformed(clip(&without_value(&error.to_string()), 240)))
    }

    fn part(&mut self, which: Which) -> &mut Part<'de> {
        match which {
            Which::New => &mut self.object,
            Which::Old => &mut self.old,
        }
    }

    /// How the object is to be read; `None` while that is not known.
    fn shape(&self) -> Option<Shape> {
        let (kind, operation) = (self.object_kind.as_ref()?, self.request.operation?);
        Some(shape(kind, operation).unwrap_or(Shape::NO_IMAGES))
    }

    /// Reads an object, or looks it over where nothing of it is needed.
    fn read_object<D: Deserializer<'de>>(&mut self, which: Which, json: D) -> Result<(), D::Error> {
        let Some(shape) = self.shape() else { return Skip { depth: OBJECT_DEPTH }.deserialize(json).map(drop) };
        let is_pod_update = self.request.operation == Some(Operation::Update) && shape.subject == Subject::Pod;
        if which == Which::Old && !is_pod_update {
            *self.part(which) = Part::Absent;
            return Skip { depth: OBJECT_DEPTH }.deserialize(json).map(drop);
        }
        let mut object = Box::new(Object::new(shape));
        let read = object.read(OBJECT_DEPTH, json);
        self.fault = object.fault.take();
        *self.part(which) = Part::Read(object);
        read
    }
}

/// The two objects of a review.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    New,
    Old,
}

struct Envelope<'r, 'de>(&'r mut Reading<'de>);

impl<'de> Fields<'de> for Envelope<'_, 'de> {
    fn what(&self) -> &'static str {
        "the review"
    }

    fn keys(&self) -> &'static [&'static str] {
        &["kind", "apiVersion", "request", "response"]
    }

    fn known<A: MapAccess<'de>>(&mut self, key: &'static str, value: Value<'_, A>) -> Result<(), A::Error> {
        match key {
            "kind" => value.text().map(|text| self.0.kind = Some(text)),
            "apiVersion" => value.text().map(|text| self.0.api_version = Some(text)),
            "request" => value.object(&mut Asked(&mut *self.0)).map(drop),
            _ => value.skip().map(drop),
        }
    }
}

/// `request`.
struct Asked<'r, 'de>(&'r mut Reading<'de>);

impl<'de> Fields<'de> for Asked<'_, 'de> {
    fn what(&self) -> &'static str {
        "the request"
    }

    fn keys(&self) -> &'static [&'static str] {
        &[
            "uid",
            "kind",
            "resource",
            "subResource",
            "requestKind",
            "requestResource",
            "requestSubResource",
            "name",
            "namespace",
            "operation",
            "userInfo",
            "object",
            "oldObject",
            "dryRun",
            "options",
        ]
    }

    fn known<A: MapAccess<'de>>(&mut self, key: &'static str, value: Value<'_, A>) -> Result<(), A::Error> {
        let reading = &mut *self.0;
        let request = &mut reading.request;
        match key {
            "uid" => request.uid = value.text()?.into_owned(),
            "kind" => reading.object_kind = value.read_triple()?.map(Gvk::from),
            "resource" => reading.resource = value.read_triple()?.map(Gvr::from).unwrap_or_default(),
            "subResource" => request.sub_resource = value.text()?.into_owned(),
            "requestKind" => reading.request_kind = value.read_triple()?.map(Gvk::from),
            "requestResource" => reading.request_resource = value.read_triple()?.map(Gvr::from),
            "requestSubResource" => reading.request_sub_resource = value.text()?,
            "name" => request.name = value.text()?.into_owned(),
            "namespace" => request.namespace = value.text()?.into_owned(),
            "operation" => request.operation = operation(&value.text()?),
            "userInfo" => value.object(&mut User { request, fault: &mut reading.fault }).map(drop)?,
            "object" => return self.object(Which::New, value),
            "oldObject" => return self.object(Which::Old, value),
            "dryRun" => request.dry_run = value.map.next_value::<Option<bool>>()?.unwrap_or_default(),
            _ => value.skip().map(drop)?,
        }
        Ok(())
    }
}

impl<'de> Asked<'_, 'de> {
    fn object<A: MapAccess<'de>>(&mut self, which: Which, value: Value<'_, A>) -> Result<(), A::Error> {
        // It stands at `OBJECT_DEPTH`, whichever way it is reached.
        let Value { map, depth: _ } = value;
        if self.0.shape().is_none() {
            *self.0.part(which) = Part::Waiting(map.next_value()?);
            return Ok(());
        }
        map.next_value_seed(ObjectAt { reading: &mut *self.0, which })
    }
}

struct ObjectAt<'r, 'de> {
    reading: &'r mut Reading<'de>,
    which: Which,
}

impl<'de> DeserializeSeed<'de> for ObjectAt<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.reading.read_object(self.which, deserializer)
    }
}

fn operation(text: &str) -> Option<Operation> {
    match text {
        "CREATE" => Some(Operation::Create),
        "UPDATE" => Some(Operation::Update),
        "DELETE" => Some(Operation::Delete),
        "CONNECT" => Some(Operation::Connect),
        _ => None,
    }
}

struct User<'r> {
    request: &'r mut Request,
    fault: &'r mut Option<Fault>,
}

impl<'de> Fields<'de> for User<'_> {
    fn what(&self) -> &'static str {
        "the user"
    }

    fn keys(&self) -> &'static [&'static str] {
        &["username", "uid", "groups", "extra"]
    }

    fn known<A: MapAccess<'de>>(&mut self, key: &'static str, value: Value<'_, A>) -> Result<(), A::Error> {
        match key {
            "username" => self.request.user = value.text()?.into_owned(),
            "groups" => {
                let Self { request, fault } = self;
                return value.map.next_value_seed(Groups { groups: &mut request.groups, fault });
            }
            _ => value.skip().map(drop)?,
        }
        Ok(())
    }
}

/// The user's groups; `null` is none.
struct Groups<'r> {
    groups: &'r mut Vec<String>,
    fault: &'r mut Option<Fault>,
}

impl<'de> DeserializeSeed<'de> for Groups<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Groups<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of groups")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(Text(group)) = seq.next_element()? {
            if self.groups.len() == MAX_GROUPS {
                let detail = format!("a user with more than {MAX_GROUPS} groups");
                let error = A::Error::custom(&detail);
                *self.fault = Some(Fault::new(Code::BudgetExceeded, detail));
                return Err(error);
            }
            self.groups.push(group.into_owned());
        }
        Ok(())
    }
}

/// Group, version, and a kind or a resource.
#[derive(Default)]
struct Triple<'de> {
    group: Cow<'de, str>,
    version: Cow<'de, str>,
    kind: Cow<'de, str>,
    resource: Cow<'de, str>,
}

impl<'de> Fields<'de> for Triple<'de> {
    fn what(&self) -> &'static str {
        "the request's kinds and resources"
    }

    fn keys(&self) -> &'static [&'static str] {
        &["group", "version", "kind", "resource"]
    }

    fn known<A: MapAccess<'de>>(&mut self, key: &'static str, value: Value<'_, A>) -> Result<(), A::Error> {
        let text = value.text()?;
        match key {
            "group" => self.group = text,
            "version" => self.version = text,
            "kind" => self.kind = text,
            _ => self.resource = text,
        }
        Ok(())
    }
}

impl<'de, A: MapAccess<'de>> Value<'_, A> {
    fn read_triple(self) -> Result<Option<Triple<'de>>, A::Error> {
        let mut triple = Triple::default();
        Ok(self.object(&mut triple)?.then_some(triple))
    }
}

impl<'de> From<Triple<'de>> for Gvk<'de> {
    fn from(Triple { group, version, kind, .. }: Triple<'de>) -> Self {
        Self { group, version, kind }
    }
}

impl<'de> From<Triple<'de>> for Gvr<'de> {
    fn from(Triple { group, version, resource, .. }: Triple<'de>) -> Self {
        Self { group, version, resource }
    }
}

/// What a reader says is wrong, without the value that it found: where an object belongs may stand a secret. It
/// shows one only in `invalid type: string "…", expected …` and its like.
fn without_value(words: &str) -> Cow<'_, str> {
    let Some((what, found)) = words.split_once(": ").filter(|(what, _)| what.starts_with("invalid ")) else {
        return Cow::Borrowed(words);
    };
    let kind = found.split(['"', '`', ',']).next().unwrap_or_default().trim_end();
    let wanted = found.rsplit_once(", expected ").map_or("another", |(_, wanted)| wanted);
    Cow::Owned(format!("{what}: {kind}, expected {wanted}"))
}
