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

/// Whether a manifest of this version and kind may hold a pod: by the kind's name in the groups of Kubernetes, also in a
/// version that no API server serves any more. What is then no kind of ours is refused by its review, and not passed over.
#[must_use]
pub fn is_workload(api_version: &str, kind: &str) -> bool {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    matches!(group, "" | "apps" | "batch" | "extensions")
        && WORKLOADS.iter().any(|workload| kind.eq_ignore_ascii_case(workload))
}

/// Every kind that holds a pod.
const WORKLOADS: &[&str] = &[
    "Pod",
    "PodTemplate",
    "ReplicationController",
    "Deployment",
    "ReplicaSet",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "CronJob",
];

impl Shape {
    /// An object without a pod spec.
    pub(super) const NO_IMAGES: Self = Self { subject: Subject::NoImages, path: &[], prefix: "" };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_with_images_is_a_workload() {
        for kind in WORKLOADS {
            let known = ["v1", "apps/v1", "batch/v1"].into_iter().filter(|api_version| {
                let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
                let gvk = Gvk { group: group.into(), version: version.into(), kind: (*kind).into() };
                shape(&gvk, Operation::Create).is_some_and(|shape| shape.subject != Subject::NoImages)
            });
            assert_eq!(known.count(), 1, "{kind}");
        }
        for (api_version, kind, want) in [
            ("apps/v1", "Deployment", true),
            ("extensions/v1beta1", "Deployment", true),
            ("apps/v1", "deployment", true),
            ("", "Pod", true),
            ("argoproj.io/v1alpha1", "Deployment", false),
            ("v1", "ConfigMap", false),
            ("v1", "", false),
        ] {
            assert_eq!(is_workload(api_version, kind), want, "{api_version} {kind}");
        }
    }
}
