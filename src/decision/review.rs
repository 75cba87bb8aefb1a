//! What is under review, as plain data: who asks for what, and every image with its place. It must never judge.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::code::Code;
use super::name::Namespace;

/// What the API server says about the request. Everything here is shown and recorded; only the fields that a rule
/// names are judged. Texts are as received and must be escaped where they are printed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Request {
    /// `request.uid`, byte for byte.
    pub uid: String,
    /// What is done with the object; `None` where it could not be read.
    pub operation: Option<Operation>,
    /// Group, version and kind of the object as it was sent to us.
    pub kind: Kind,
    /// `pods`, `deployments`, …
    pub resource: String,
    /// `ephemeralcontainers`, `resize`, …; empty where there is none.
    pub sub_resource: String,
    /// The version in which the user sent the object, where the API server converted it (C-30).
    pub request_kind: Option<Kind>,
    /// The resource that the user named, where it differs: `group/version/resource`.
    pub request_resource: Option<String>,
    /// The namespace as text.
    pub namespace: String,
    /// The object's name, or its `generateName` where it has none yet.
    pub name: String,
    /// The user who sends the request.
    pub user: String,
    /// The groups of that user.
    pub groups: Vec<String>,
    /// Nothing will be stored (C-27).
    pub dry_run: bool,
    /// Who sent us the review. The body cannot say: it is set from the connection (C-08).
    pub caller: Caller,
}

/// Who sends us reviews (C-08): an API server proves itself by a certificate or by the token in the webhook's address.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Caller {
    /// A client certificate that the operator accepts; its subject.
    Certificate(String),
    /// A token that the operator has given out.
    Token,
    /// Neither: judged like any other, and trusted with nothing.
    #[default]
    Unknown,
}

impl Caller {
    /// The word in records and metrics.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Certificate(_) => "certificate",
            Self::Token => "token",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the operator has let this caller in: what it asks for may use break-glass and registry credentials.
    #[must_use]
    pub const fn is_known(&self) -> bool {
        match self {
            Self::Certificate(_) | Self::Token => true,
            Self::Unknown => false,
        }
    }
}

/// The operations that an API server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Operation {
    /// A new object.
    Create,
    /// A change of an object.
    Update,
    /// Removal: never judged, it starts nothing.
    Delete,
    /// A connection to a subresource such as `exec`.
    Connect,
}

/// Group, version and kind. The core group is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kind {
    /// `apps`, `batch`, or empty.
    pub group: String,
    /// `v1`.
    pub version: String,
    /// `Pod`, `Deployment`, …
    pub kind: String,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.group.is_empty() {
            write!(f, "{}/", self.group)?;
        }
        write!(f, "{}/{}", self.version, self.kind)
    }
}

/// One review, decoded: the request and what its object holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Review {
    /// Who asks for what.
    pub request: Request,
    /// The namespace, validated.
    pub namespace: Namespace,
    /// What kind of thing the object is to the rules.
    pub subject: Subject,
    /// Every image of the object, in the order of the object.
    pub images: Vec<ReviewedImage>,
    /// Fields that we do not know and that may hold an image.
    #[serde(default)]
    pub unknown_fields: Vec<UnknownField>,
    /// `spec.nodeName` of a pod that carries the annotation `kubernetes.io/config.mirror` (C-46).
    #[serde(default)]
    pub mirror_of_node: Option<String>,
    /// What it says about an override.
    #[serde(default)]
    pub override_asked: OverrideAsked,
}

/// The annotation that asks for an override; with `.<container>` behind it, for one debug container.
pub const BREAK_GLASS_REASON: &str = "provost.dev/break-glass-reason";
/// The label that other gates know for it, and that does nothing here but explain how to ask.
pub const BREAK_GLASS_LABEL: &str = "image-policy.k8s.io/break-glass";

/// What an object says about an override, as written: untrusted text that [`super::break_glass`] judges. On a template
/// the template itself is read, and the pod template in it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OverrideAsked {
    /// The annotation [`BREAK_GLASS_REASON`].
    pub reason: Option<OverrideReason>,
    /// [`BREAK_GLASS_REASON`] with `.<container>`, by container, for each debug container that this request adds, as it
    /// stood on the pod beforehand.
    pub containers: BTreeMap<String, String>,
    /// It has the label [`BREAK_GLASS_LABEL`], whatever its value.
    pub label: bool,
    /// It has owner references.
    pub owned: bool,
}

/// A reason for an override.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverrideReason {
    /// As written.
    pub text: String,
    /// It comes with this very request: the object is new, or had another reason, or none, before.
    pub fresh: bool,
}

/// What an object is to the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// A pod: its images start as they are.
    Pod,
    /// An object with a pod template: its pods are reviewed again when they are made.
    Template,
    /// A kind or operation that can bring no image.
    NoImages,
}

/// One image and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReviewedImage {
    /// Where it stands.
    pub place: Place,
    /// The reference as written.
    pub text: String,
    /// Left as it was by this UPDATE (C-37). Set by [`super::compare`] only.
    #[serde(default)]
    pub unchanged: bool,
}

/// Where in an object an image stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// `spec.initContainers[0]`, `spec.template.spec.volumes[2].image`, …
    pub path: String,
    /// Which list it is in.
    pub holder: Holder,
    /// The container's or volume's name.
    pub name: String,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.name.is_empty() { f.write_str(&self.path) } else { write!(f, "{} ({})", self.path, self.name) }
    }
}

/// The lists that hold images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holder {
    /// `containers`
    Container,
    /// `initContainers`, sidecars included
    InitContainer,
    /// `ephemeralContainers`
    EphemeralContainer,
    /// `volumes`
    Volume,
}

/// A field that we do not know and that may hold an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnknownField {
    /// `spec.containers[0].sideImage`
    pub path: String,
    /// The old object holds the same value there.
    #[serde(default)]
    pub unchanged: bool,
}

/// A request that could not be judged by the rules: what went wrong, and all that could be read of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Fault {
    /// The reason code.
    pub code: Code,
    /// What was wrong, for the reader. Never holds more of the input than a shortened, escaped piece.
    pub detail: String,
}

impl Fault {
    /// A fault with its reason.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

impl Review {
    /// Whether every image is left as it was (C-37). False for an object without images.
    #[must_use]
    pub fn leaves_all_images(&self) -> bool {
        !self.images.is_empty() && self.images.iter().all(|image| image.unchanged)
    }

    /// Whether this is the mirror of a static pod, sent by the kubelet of the pod's own node (C-46).
    #[must_use]
    pub fn is_mirror_pod(&self) -> bool {
        let Some(node) = &self.mirror_of_node else { return false };
        self.subject == Subject::Pod
            && !node.is_empty()
            && self.request.user.strip_prefix("system:node:") == Some(node)
            && self.request.groups.iter().any(|group| group == "system:nodes")
    }
}
