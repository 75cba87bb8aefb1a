//! Which kinds are known, by exact group, version and kind (C-30, C-32), and where their pod spec stands. It must never know
//! a kind by less than all three.

use super::reading::Gvk;
use crate::decision::review::{Operation, Subject};

/// Where an object of a known kind holds its images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// What the object is to the rules.
    pub(super) subject: Subject,
    /// The keys from the object to its pod spec; empty where it has none.
    pub(super) path: &'static [&'static str],
    /// The same as text, as it begins every place.
    pub(super) prefix: &'static str,
}

/// The shape of an object; `None` where its kind is not known. What is deleted brings nothing, whatever it is.
pub(super) fn shape(kind: &Gvk<'_>, operation: Operation) -> Option<Shape> {
    const POD: Shape = Shape { subject: Subject::Pod, path: &["spec"], prefix: "spec" };
    const POD_TEMPLATE: Shape =
        Shape { subject: Subject::Template, path: &["template", "spec"], prefix: "template.spec" };
    const WORKLOAD: Shape =
        Shape { subject: Subject::Template, path: &["spec", "template", "spec"], prefix: "spec.template.spec" };
    const CRON_JOB: Shape = Shape {
        subject: Subject::Template,
        path: &["spec", "jobTemplate", "spec", "template", "spec"],
        prefix: "spec.jobTemplate.spec.template.spec",
    };

    if operation == Operation::Delete {
        return Some(Shape::NO_IMAGES);
    }
    match (kind.group.as_ref(), kind.version.as_ref(), kind.kind.as_ref()) {
        ("", "v1", "Pod") => Some(POD),
        ("", "v1", "PodTemplate") => Some(POD_TEMPLATE),
        ("", "v1", "ReplicationController")
        | ("apps", "v1", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
        | ("batch", "v1", "Job") => Some(WORKLOAD),
        ("batch", "v1", "CronJob") => Some(CRON_JOB),
        (
            "",
            "v1",
            "Binding"
            | "PodExecOptions"
            | "PodAttachOptions"
            | "PodPortForwardOptions"
            | "PodProxyOptions"
            | "ServiceProxyOptions"
            | "NodeProxyOptions",
        )
        | ("policy", "v1", "Eviction")
        | ("autoscaling", "v1", "Scale") => Some(Shape::NO_IMAGES),
        _ => None,
    }
}

impl Shape {
    /// An object without a pod spec.
    pub(super) const NO_IMAGES: Self = Self { subject: Subject::NoImages, path: &[], prefix: "" };
}
