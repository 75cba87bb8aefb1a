//! One object of a manifest: what it says it is, and the review that an API server would send for it. It must never read
//! an image itself.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeMap as _, Serializer};

use crate::decision::code::Code;
use crate::decision::name::Namespace;
use crate::decision::review::{Fault, Request, Review};
use crate::edge::admission::{Undecodable, decode, is_workload};
use crate::edge::yaml::{Node, Value};

/// What an object says it is; empty where it says nothing.
#[derive(Debug, Clone)]
pub(super) struct Names<'a> {
    pub(super) api_version: Cow<'a, str>,
    pub(super) kind: Cow<'a, str>,
}

impl<'a> Names<'a> {
    pub(super) fn of(node: &'a Node) -> Self {
        let text = |key| Cow::Borrowed(node.field(key).and_then(Node::text).unwrap_or_default());
        Self { api_version: text("apiVersion"), kind: text("kind") }
    }

    /// Of an item in this list. Those of a typed list need not say what they are.
    pub(super) fn of_item(&self, item: &'a Node) -> Self {
        let own = Self::of(item);
        let of_list = self.kind.strip_suffix("List").filter(|kind| !kind.is_empty());
        match (of_list, item.field("kind"), item.field("apiVersion"), &item.value) {
            (Some(kind), None, None, Value::Map(_)) => {
                Self { api_version: self.api_version.clone(), kind: Cow::Owned(kind.to_owned()) }
            }
            (Some(_) | None, _, _, _) => own,
        }
    }

    /// The items, where this is `List`, `PodList`, …: nothing where there are none. Lists of kinds without pods are none.
    pub(super) fn list<'n>(&self, node: &'n Node) -> Option<Result<&'n [Node], String>> {
        let of_list = self.kind.strip_suffix("List")?;
        if !of_list.is_empty() && !is_workload(&self.api_version, of_list) {
            return None;
        }
        let Value::Map(fields) = &node.value else { return None };
        let mut items = fields.iter().filter(|(key, _)| key.text.eq_ignore_ascii_case("items"));
        Some(match (items.next(), items.next()) {
            (None, _) => Ok(&[]),
            (Some((key, Node { value: Value::List(nodes), .. })), None) if key.text == "items" => Ok(nodes),
            (Some((key, Node { value: Value::Null, .. })), None) if key.text == "items" => Ok(&[]),
            (Some(_), _) => Err("`items` must stand once, in this case, and be a list".to_owned()),
        })
    }

    /// Why it cannot be said what an object is; a document that does not even try to be one has no fault.
    pub(super) fn fault(&self, node: &Node) -> Option<String> {
        let Value::Map(fields) = &node.value else {
            return Some("an object must be a mapping".to_owned());
        };
        if !self.kind.is_empty() {
            return None;
        }
        fields.iter().any(|(key, _)| key.text.eq_ignore_ascii_case("kind")).then(|| {
            "the key `kind` must stand once, in this case, with a text: it cannot be said what this is".to_owned()
        })
    }
}

/// The review of an object that is created, and what could be read of the request in any case.
pub(super) fn review(node: &Node, names: &Names<'_>, namespace: &Namespace) -> (Request, Result<Review, Fault>) {
    let own = node.field("metadata").and_then(|metadata| metadata.field("namespace")).and_then(Node::text);
    let namespace = own.filter(|own| !own.is_empty()).unwrap_or(namespace.as_str());
    let (group, version) = names.api_version.split_once('/').unwrap_or(("", &names.api_version));
    let kind = GroupVersionKind { group, version, kind: &names.kind };
    let asked = Asked { uid: "manifest", kind, operation: "CREATE", namespace, object: Object { node, names } };
    let body = Envelope { api_version: "admission.k8s.io/v1", kind: "AdmissionReview", request: asked };
    let body = match serde_json::to_vec(&body) {
        Ok(body) => body,
        Err(error) => return (Request::default(), Err(Fault::new(Code::MalformedReview, error.to_string()))),
    };
    match decode(&body) {
        Ok(review) => (review.request.clone(), Ok(review)),
        Err(Undecodable::Refuse { request, fault }) => {
            let detail = without_place(&fault.detail).to_owned();
            (*request, Err(Fault { detail, ..fault }))
        }
        Err(Undecodable::NoReply { detail }) => (Request::default(), Err(Fault::new(Code::MalformedReview, detail))),
    }
}

/// The words of the JSON reader without its place: that is one in the review, which nobody sees here.
fn without_place(detail: &str) -> &str {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match detail.rsplit_once(" at line ") {
        Some((words, place)) if place.split_once(" column ").is_some_and(|(l, c)| is_number(l) && is_number(c)) => {
            words
        }
        Some(_) | None => detail,
    }
}

/// The node at a place such as `spec.template.spec.containers[0]`, and the nearest one on the way to it.
pub(super) fn follow<'n>(object: &'n Node, path: &str) -> (Option<&'n Node>, &'n Node) {
    let mut at = object;
    for step in path.split('.') {
        let (key, index) = match step.split_once('[') {
            None => (step, None),
            Some((key, index)) => (key, Some(index.trim_end_matches(']'))),
        };
        let Some(next) = at.field(key) else { return (None, at) };
        at = next;
        if let Some(index) = index {
            let Value::List(items) = &at.value else { return (None, at) };
            let Some(item) = index.parse().ok().and_then(|index: usize| items.get(index)) else { return (None, at) };
            at = item;
        }
    }
    (Some(at), at)
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    api_version: &'static str,
    kind: &'static str,
    request: Asked<'a>,
}

/// The decoder reads the object once it knows kind and operation.
#[derive(serde::Serialize)]
struct Asked<'a> {
    uid: &'static str,
    kind: GroupVersionKind<'a>,
    operation: &'static str,
    namespace: &'a str,
    object: Object<'a>,
}

#[derive(serde::Serialize)]
struct GroupVersionKind<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
}

/// The object as it stands, every key as often as it stands; with the names that its list gives it.
struct Object<'a> {
    node: &'a Node,
    names: &'a Names<'a>,
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Value::Map(fields) = &self.node.value else { return self.node.serialize(serializer) };
        let says = |key: &str| fields.iter().any(|(k, _)| k.text == key);
        let mut map = serializer.serialize_map(None)?;
        for (key, name) in [("apiVersion", &self.names.api_version), ("kind", &self.names.kind)] {
            if !says(key) && !name.is_empty() {
                map.serialize_entry(key, name)?;
            }
        }
        fields.iter().try_for_each(|(key, value)| map.serialize_entry(&key.text, value))?;
        map.end()
    }
}
