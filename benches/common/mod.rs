//! What both benches judge: reviews as an API server writes them, and the policy that they are judged by.

/// A policy for the namespace `payments`: images of `host`/release must be signed with this key (PEM).
pub(crate) fn policy(host: &str, public_key: &str) -> String {
    let key = public_key.lines().collect::<Vec<_>>().join("\n            ");
    format!(
        "apiVersion: provost.dev/v1
kind: ReleasePolicy
metadata:
  name: payments
spec:
  namespaces:
    names: [payments]
  signers:
    release-key:
      keys:
        - pem: |
            {key}
      transparencyLog: not-required
  rules:
    - name: our-releases
      repositories: ['{host}/release/**']
      signatures: {{by: [release-key]}}
"
    )
}

/// A review of a new pod, about 4 KiB for one container: a pod as a controller makes it, with what admission put into it.
pub(crate) fn pod(images: &[&str]) -> Vec<u8> {
    let object = format!(
        r#"{{"kind":"Pod","apiVersion":"v1","metadata":{METADATA},"spec":{}}},"oldObject":null"#,
        pod_spec(images)
    );
    review(("", "Pod", "pods"), &object)
}

/// The metadata of an object in the namespace `payments`.
pub(crate) const METADATA: &str = r#"{"name":"api-7c9d8f6b5d-x2x7k","generateName":"api-7c9d8f6b5d-","namespace":"payments","uid":"3b1f2a44-8d0c-4f0e-9f53-6f2f0a1c9b7e","creationTimestamp":"2026-11-20T10:15:30Z","labels":{"app":"api","app.kubernetes.io/name":"api","app.kubernetes.io/part-of":"payments","pod-template-hash":"7c9d8f6b5d","version":"1.4.2"},"annotations":{"prometheus.io/path":"/metrics","prometheus.io/port":"9090","prometheus.io/scrape":"true"},"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"api-7c9d8f6b5d","uid":"0d3c5a77-52c1-4a2b-8a8e-9c1d1d6a7f10","controller":true,"blockOwnerDeletion":true}],"managedFields":[{"manager":"kube-controller-manager","operation":"Update","apiVersion":"v1","time":"2026-11-20T10:15:30Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:annotations":{".":{},"f:prometheus.io/path":{},"f:prometheus.io/port":{},"f:prometheus.io/scrape":{}},"f:generateName":{},"f:labels":{".":{},"f:app":{},"f:pod-template-hash":{},"f:version":{}},"f:ownerReferences":{".":{},"k:{\"uid\":\"0d3c5a77-52c1-4a2b-8a8e-9c1d1d6a7f10\"}":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"c0\"}":{".":{},"f:env":{".":{},"k:{\"name\":\"LOG_LEVEL\"}":{".":{},"f:name":{},"f:value":{}}},"f:image":{},"f:imagePullPolicy":{},"f:name":{},"f:resources":{".":{},"f:limits":{".":{},"f:memory":{}},"f:requests":{".":{},"f:cpu":{},"f:memory":{}}},"f:terminationMessagePath":{},"f:terminationMessagePolicy":{}}},"f:dnsPolicy":{},"f:enableServiceLinks":{},"f:restartPolicy":{},"f:schedulerName":{},"f:securityContext":{},"f:terminationGracePeriodSeconds":{}}}}]}"#;

/// The spec of a pod with one container for each image.
pub(crate) fn pod_spec(images: &[&str]) -> String {
    let containers = images.iter().enumerate().map(|(index, image)| container(index, image)).collect::<Vec<_>>();
    format!(
        r#"{{"volumes":[{{"name":"kube-api-access-9x8zk","projected":{{"sources":[{{"serviceAccountToken":{{"expirationSeconds":3607,"path":"token"}}}},{{"configMap":{{"name":"kube-root-ca.crt","items":[{{"key":"ca.crt","path":"ca.crt"}}]}}}},{{"downwardAPI":{{"items":[{{"path":"namespace","fieldRef":{{"apiVersion":"v1","fieldPath":"metadata.namespace"}}}}]}}}}],"defaultMode":420}}}}],"containers":[{}],"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","serviceAccountName":"api","serviceAccount":"api","securityContext":{{}},"schedulerName":"default-scheduler","tolerations":[{{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}},{{"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}}],"priority":0,"enableServiceLinks":true,"preemptionPolicy":"PreemptLowerPriority"}}"#,
        containers.join(",")
    )
}

fn container(index: usize, image: &str) -> String {
    format!(
        r#"{{"name":"c{index}","image":"{image}","ports":[{{"name":"http","containerPort":8080,"protocol":"TCP"}}],"env":[{{"name":"LOG_LEVEL","value":"info"}}],"resources":{{"limits":{{"memory":"256Mi"}},"requests":{{"cpu":"100m","memory":"128Mi"}}}},"volumeMounts":[{{"name":"kube-api-access-9x8zk","readOnly":true,"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}}],"readinessProbe":{{"httpGet":{{"path":"/ready","port":"http","scheme":"HTTP"}},"timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3}},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent","securityContext":{{"capabilities":{{"drop":["ALL"]}},"runAsNonRoot":true,"allowPrivilegeEscalation":false}}}}"#
    )
}

/// A review of an object that is made, by group, kind and resource.
pub(crate) fn review((group, kind, resource): (&str, &str, &str), object: &str) -> Vec<u8> {
    let gvk = format!(r#"{{"group":"{group}","version":"v1","kind":"{kind}"}}"#);
    let gvr = format!(r#"{{"group":"{group}","version":"v1","resource":"{resource}"}}"#);
    format!(
        r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"6d1f0c3a-52be-4e0b-9a57-0c8a4e1b7f20","kind":{gvk},"resource":{gvr},"requestKind":{gvk},"requestResource":{gvr},"name":"api-7c9d8f6b5d-x2x7k","namespace":"payments","operation":"CREATE","userInfo":{{"username":"system:serviceaccount:kube-system:replicaset-controller","uid":"5a1d6f0e-0a5e-4c38-8f7c-2b1b1a0c4d3e","groups":["system:serviceaccounts","system:serviceaccounts:kube-system","system:authenticated"]}},"object":{object},"dryRun":false,"options":{{"kind":"CreateOptions","apiVersion":"meta.k8s.io/v1"}}}}}}"#
    )
    .into_bytes()
}
