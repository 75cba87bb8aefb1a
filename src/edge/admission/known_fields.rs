//! The keys that Kubernetes 1.36 and 1.37 know where an image can stand. It must never list a key whose value can hold an
//! image that `object.rs` does not read.
//!
//! A key that is not listed and that holds something like an image is refused (attacks ), so these lists are
//! compared with the schema of a real API server by a test. They stand in the order in which the API server writes them.

/// The keys that are known of one type of the Kubernetes API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownFields {
    /// The type's name in the API server's `OpenAPI` document: `io.k8s.api.core.v1.Container`.
    pub schema: &'static str,
    /// Every key of that type, in Kubernetes 1.36 or 1.37.
    pub keys: &'static [&'static str],
}

/// Every type in which an unknown key may be refused. A schema with a key that is not here holds a field that this version
/// of Provost does not know.
#[must_use]
pub const fn known_fields() -> &'static [KnownFields] {
    &[
        KnownFields { schema: "io.k8s.api.core.v1.PodSpec", keys: POD_SPEC },
        KnownFields { schema: "io.k8s.api.core.v1.Container", keys: CONTAINER },
        KnownFields { schema: "io.k8s.api.core.v1.EphemeralContainer", keys: EPHEMERAL_CONTAINER },
        KnownFields { schema: "io.k8s.api.core.v1.Volume", keys: VOLUME },
        KnownFields { schema: "io.k8s.api.core.v1.ImageVolumeSource", keys: IMAGE_VOLUME },
    ]
}

pub(super) const POD_SPEC: &[&str] = &[
    "volumes",
    "initContainers",
    "containers",
    "ephemeralContainers",
    "restartPolicy",
    "terminationGracePeriodSeconds",
    "activeDeadlineSeconds",
    "dnsPolicy",
    "nodeSelector",
    "serviceAccountName",
    "serviceAccount",
    "automountServiceAccountToken",
    "nodeName",
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "shareProcessNamespace",
    "securityContext",
    "imagePullSecrets",
    "hostname",
    "subdomain",
    "affinity",
    "schedulerName",
    "tolerations",
    "hostAliases",
    "priorityClassName",
    "priority",
    "dnsConfig",
    "readinessGates",
    "runtimeClassName",
    "enableServiceLinks",
    "preemptionPolicy",
    "overhead",
    "topologySpreadConstraints",
    "setHostnameAsFQDN",
    "os",
    "hostUsers",
    "schedulingGates",
    "resourceClaims",
    "resources",
    "hostnameOverride",
    "schedulingGroup",
    "evictionResponders",
];

pub(super) const CONTAINER: &[&str] = &[
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "ports",
    "envFrom",
    "env",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "volumeMounts",
    "volumeDevices",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
    "tty",
];

pub(super) const EPHEMERAL_CONTAINER: &[&str] = &[
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "ports",
    "envFrom",
    "env",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "volumeMounts",
    "volumeDevices",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
    "tty",
    "targetContainerName",
];

/// `name`, and the name of every volume source. Only `image` brings an image of the kind that is judged here.
pub(super) const VOLUME: &[&str] = &[
    "name",
    "hostPath",
    "emptyDir",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "persistentVolumeClaim",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "downwardAPI",
    "fc",
    "azureFile",
    "configMap",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "projected",
    "portworxVolume",
    "scaleIO",
    "storageos",
    "csi",
    "ephemeral",
    "image",
];

pub(super) const IMAGE_VOLUME: &[&str] = &["reference", "pullPolicy"];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use k8s_openapi::api::core::v1::{Container, EphemeralContainer, ImageVolumeSource, PodSpec, Volume};
    use serde::de::DeserializeOwned;

    use super::*;

    /// A type knows a key where a value of an impossible type there makes it fail: an unknown key is ignored.
    fn knows<T: DeserializeOwned>(key: &str) -> bool {
        let impossible = |value: &str| serde_json::from_str::<T>(&format!("{{\"{key}\":{value}}}")).err();
        let complains = |value: &str| impossible(value).is_some_and(|e| e.to_string().starts_with("invalid type"));
        complains("[[[]]]") || complains("true")
    }

    #[test]
    fn x_015_every_listed_key_is_known_to_the_types_of_kubernetes() {
        let check = |list: KnownFields, knows: fn(&str) -> bool| {
            assert_eq!(list.keys.iter().collect::<BTreeSet<_>>().len(), list.keys.len(), "{}: twice", list.schema);
            for key in list.keys {
                assert!(knows(key), "{} has no {key}", list.schema);
                let twin = format!("{key}x");
                assert!(!knows(&twin), "{} has {twin}", list.schema);
            }
        };
        let [pod, container, ephemeral, volume, image] = known_fields() else { panic!("five types") };
        check(*pod, knows::<PodSpec>);
        check(*container, knows::<Container>);
        check(*ephemeral, knows::<EphemeralContainer>);
        check(*volume, knows::<Volume>);
        check(*image, knows::<ImageVolumeSource>);
        assert_eq!(known_fields().iter().map(|list| list.keys.len()).collect::<Vec<_>>(), [43, 25, 26, 31, 2]);
    }
}
