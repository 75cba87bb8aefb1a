//! Objects as users write them: a pod, and each kind that holds a pod template. It must never send one.

use serde_json::{Value, json};

/// A pod spec with one container named `app`.
pub(crate) fn spec(image: &str) -> Value {
    json!({"containers": [container("app", image)]})
}

pub(crate) fn container(name: &str, image: &str) -> Value {
    json!({"name": name, "image": image})
}

/// A pod of that spec.
pub(crate) fn pod(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec})
}

/// An owner reference to a controller of the group `apps`.
pub(crate) fn owner(kind: &str, name: &str, uid: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": true})
}

/// A kind that is reviewed: what kubectl calls it, and where its pod spec stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) resource: &'static str,
    /// Where in the object the pod spec stands, with a dot at the end.
    pub(crate) place: &'static str,
    make: fn(&str, &Value) -> Value,
}

impl Kind {
    /// An object of this kind with that pod spec.
    pub(crate) fn object(&self, name: &str, spec: &Value) -> Value {
        (self.make)(name, spec)
    }
}

/// Every kind of the reference registration.
pub(crate) const KINDS: [Kind; 9] = [
    Kind { resource: "pods", place: "spec.", make: pod },
    Kind {
        resource: "replicationcontrollers",
        place: "spec.template.spec.",
        make: |name, spec| {
            workload(
                "v1",
                "ReplicationController",
                name,
                json!({"selector": {"app": name}, "template": template(name, spec)}),
            )
        },
    },
    Kind {
        resource: "podtemplates",
        place: "template.spec.",
        make: |name, spec| {
            let metadata = json!({"name": name});
            json!({"apiVersion": "v1", "kind": "PodTemplate", "metadata": metadata, "template": template(name, spec)})
        },
    },
    Kind { resource: "deployments", place: "spec.template.spec.", make: deployment },
    Kind {
        resource: "replicasets",
        place: "spec.template.spec.",
        make: |name, spec| workload("apps/v1", "ReplicaSet", name, selected(name, spec)),
    },
    Kind {
        resource: "statefulsets",
        place: "spec.template.spec.",
        make: |name, spec| workload("apps/v1", "StatefulSet", name, selected(name, spec)),
    },
    Kind {
        resource: "daemonsets",
        place: "spec.template.spec.",
        make: |name, spec| workload("apps/v1", "DaemonSet", name, selected(name, spec)),
    },
    Kind {
        resource: "jobs",
        place: "spec.template.spec.",
        make: |name, spec| workload("batch/v1", "Job", name, json!({"template": once(name, spec)})),
    },
    Kind {
        resource: "cronjobs",
        place: "spec.jobTemplate.spec.template.spec.",
        make: |name, spec| {
            let job = json!({"spec": {"template": once(name, spec)}});
            workload("batch/v1", "CronJob", name, json!({"schedule": "0 0 * * *", "jobTemplate": job}))
        },
    },
];

/// A Deployment with that pod spec.
pub(crate) fn deployment(name: &str, spec: &Value) -> Value {
    workload("apps/v1", "Deployment", name, selected(name, spec))
}

fn workload(version: &str, kind: &str, name: &str, spec: Value) -> Value {
    let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}});
    object["spec"] = spec;
    object
}

fn selected(name: &str, spec: &Value) -> Value {
    json!({"selector": {"matchLabels": {"app": name}}, "template": template(name, spec)})
}

fn template(name: &str, spec: &Value) -> Value {
    json!({"metadata": {"labels": {"app": name}}, "spec": spec})
}

/// The template of something that ends.
fn once(name: &str, spec: &Value) -> Value {
    let mut template = template(name, spec);
    template["spec"]["restartPolicy"] = json!("Never");
    template
}
