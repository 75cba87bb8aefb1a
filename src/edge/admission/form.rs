//! Whether what was read hangs together, and what an UPDATE left as it was. It must never let an object through that is not
//! what the request says it is.

use super::decode::{malformed, quoted};
use super::kinds::{Shape, shape};
use super::object::{Asked, Object};
use super::reading::{Gvk, Part, Reading};
use super::update::Objects;
use crate::decision::code::Code;
use crate::decision::compare::{mark_unchanged_in_pod, mark_unchanged_in_template};
use crate::decision::name::Namespace;
use crate::decision::review::{
    Fault, Holder, Operation, OverrideAsked, OverrideReason, Request, ReviewedImage, Subject, UnknownField,
};

/// Stands for the namespace of a request that has none and can bring no image, such as CONNECT to a node. No policy is
/// asked for it; records show the request's own, empty text.
const NO_NAMESPACE: &str = "cluster-scoped";

/// What the object comes to.
pub(super) struct Form {
    pub(super) namespace: Namespace,
    pub(super) subject: Subject,
    pub(super) images: Vec<ReviewedImage>,
    pub(super) unknown_fields: Vec<UnknownField>,
    pub(super) mirror_of_node: Option<String>,
    pub(super) override_asked: OverrideAsked,
}

impl Reading<'_> {
    /// Checks the form of a review that was read whole from `body`.
    pub(super) fn form(&mut self, body: &str) -> Result<Form, Fault> {
        let request = &self.request;
        let Some(operation) = request.operation else {
            return Err(malformed("found no known operation, wanted CREATE, UPDATE, DELETE or CONNECT"));
        };
        let Some(kind) = &self.object_kind else { return Err(malformed("request.kind is absent")) };
        let Some(shape) = shape(kind, operation) else {
            let detail = format!("{} is no kind that Provost knows", quoted(&request.kind.to_string()));
            return Err(Fault::new(Code::UnsupportedKind, detail));
        };
        let namespace = namespace(request, shape)?;
        let object = match std::mem::take(&mut self.object) {
            Part::Read(object) if object.present => Some(object),
            Part::Read(_) | Part::Absent | Part::Waiting(_) => None,
        };
        let old = match std::mem::take(&mut self.old) {
            Part::Read(object) if object.present => Some(object),
            Part::Read(_) | Part::Absent | Part::Waiting(_) => None,
        };
        if operation != Operation::Delete {
            for (object, must_say) in [(&object, true), (&old, false)] {
                object.as_ref().map_or(Ok(()), |object| agrees(object, kind, request, must_say))?;
            }
        }
        if shape.subject == Subject::NoImages {
            return Ok(Form {
                namespace,
                subject: shape.subject,
                images: Vec::new(),
                unknown_fields: Vec::new(),
                mirror_of_node: None,
                override_asked: OverrideAsked::default(),
            });
        }
        let Some(mut object) = object else {
            return Err(malformed(format!("request.object is absent or null, wanted a {}", kind.kind)));
        };
        if object.images.is_empty() {
            return Err(malformed(format!("no container in {}", shape.prefix)));
        }
        let unknown_fields = compare(&mut object, old.as_deref(), shape, operation, body);
        let override_asked = asked(&object, old.as_deref(), operation);
        let Object { images, mirror, node_name, .. } = *object;
        let mirror_of_node = mirror.then(|| node_name.into_owned());
        Ok(Form { namespace, subject: shape.subject, images, unknown_fields, mirror_of_node, override_asked })
    }
}

fn namespace(request: &Request, shape: Shape) -> Result<Namespace, Fault> {
    let text = if request.namespace.is_empty() && shape.subject == Subject::NoImages {
        NO_NAMESPACE
    } else {
        request.namespace.as_str()
    };
    text.parse().map_err(|_| malformed(format!("request.namespace is {}, wanted a name as in RFC 1123", quoted(text))))
}

/// Whether an object is what the request says; an old one may leave it unsaid.
fn agrees(object: &Object<'_>, kind: &Gvk<'_>, request: &Request, must_say: bool) -> Result<(), Fault> {
    let version = match kind.group.as_ref() {
        "" => kind.version.to_string(),
        group => format!("{group}/{}", kind.version),
    };
    for (what, found, wanted, may_be_empty) in [
        ("kind", &object.kind, kind.kind.as_ref(), !must_say),
        ("apiVersion", &object.api_version, version.as_str(), !must_say),
        ("metadata.namespace", &object.namespace, request.namespace.as_str(), true),
    ] {
        if found != wanted && !(may_be_empty && found.is_empty()) {
            let (found, wanted) = (quoted(found), quoted(wanted));
            return Err(malformed(format!("the object's {what} is {found}, the request's is {wanted}")));
        }
    }
    Ok(())
}

/// What is said about an override, compared with what was said before.
fn asked(object: &Object<'_>, old: Option<&Object<'_>>, operation: Operation) -> OverrideAsked {
    let Asked { reason, containers: _, label, owned } = &object.override_asked;
    let reason = reason.as_ref().map(|text| OverrideReason {
        text: text.to_string(),
        // Without the old object nobody can say that it was changed.
        fresh: operation == Operation::Create
            || old.is_some_and(|old| old.override_asked.reason.as_ref() != Some(text)),
    });
    let debug = |object: &&ReviewedImage| object.place.holder == Holder::EphemeralContainer;
    let mut containers = std::collections::BTreeMap::new();
    if let (Operation::Update, Some(old)) = (operation, old) {
        let before: std::collections::HashSet<&str> =
            old.images.iter().filter(debug).map(|image| image.place.name.as_str()).collect();
        let added: std::collections::HashSet<&str> =
            object.images.iter().filter(debug).map(|image| image.place.name.as_str()).collect();
        for (name, text) in &old.override_asked.containers {
            if added.contains(name.as_str()) && !before.contains(name.as_str()) {
                containers.insert(name.clone(), text.to_string());
            }
        }
    }
    OverrideAsked { reason, containers, label: *label, owned: *owned }
}

/// Marks the images that an UPDATE leaves as they were; gives the unknown fields, marked likewise.
fn compare(
    object: &mut Object<'_>,
    old: Option<&Object<'_>>,
    shape: Shape,
    operation: Operation,
    body: &str,
) -> Vec<UnknownField> {
    let is_template = shape.subject == Subject::Template;
    let objects = (operation == Operation::Update && (is_template || !object.strangers.is_empty()))
        .then(|| Objects::of(body))
        .flatten();
    if let (Subject::Pod, Some(old)) = (shape.subject, old) {
        mark_unchanged_in_pod(&mut object.images, &old.images);
    }
    if let (true, Some(objects), [template @ .., _spec]) = (is_template, &objects, shape.path) {
        mark_unchanged_in_template(&mut object.images, objects.are_equal_at(template));
    }
    let equal = objects.map(|objects| objects.hold_equal(shape.path, &object.strangers));
    let equal = equal.unwrap_or_else(|| vec![false; object.strangers.len()]);
    let marked = object.strangers.drain(..).zip(equal);
    marked.map(|(stranger, unchanged)| UnknownField { path: stranger.path, unchanged }).collect()
}
