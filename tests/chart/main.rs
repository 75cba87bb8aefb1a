//! The chart renders what the admission contract asks of an installation, and refuses what would render nonsense.

#![expect(clippy::panic, reason = "helpers of a test say what they found")]

mod helm;

use std::path::Path;
use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use helm::{helm, objects, root, template, with_values};
use k8s_openapi::api::{admissionregistration, apps, core, networking, policy};
use provost::edge::config::Config;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const LEAST: &[&str] = &["values.yaml"];
const FULL: &[&str] = &["values.yaml", "values-full.yaml"];

/// The objects of the smallest installation.
fn least() -> &'static [Value] {
    static LEAST_OBJECTS: OnceLock<Vec<Value>> = OnceLock::new();
    LEAST_OBJECTS.get_or_init(|| objects("provost", "provost", LEAST, &[]))
}

/// The objects with every switch thrown, under a release whose name does not hold `provost`.
fn full() -> &'static [Value] {
    static FULL_OBJECTS: OnceLock<Vec<Value>> = OnceLock::new();
    FULL_OBJECTS.get_or_init(|| objects("gate", "security", FULL, &[]))
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut hits = objects.iter().filter(|o| o["kind"] == kind && o["metadata"]["name"] == name);
    let hit = hits.next().unwrap_or_else(|| panic!("no {kind} {name} in {:?}", names(objects)));
    assert!(hits.next().is_none(), "{kind} {name} is there twice");
    hit
}

/// `Kind/name` of each object, sorted.
fn names(objects: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let mut names: Vec<String> =
        objects.iter().map(|o| format!("{}/{}", text(&o["kind"]), text(&o["metadata"]["name"]))).collect();
    names.sort();
    names
}

/// The values at `pointer` are as wanted; each row is (JSON pointer, value).
fn assert_holds(object: &Value, rows: &[(&str, Value)]) {
    for (pointer, want) in rows {
        assert_eq!(object.pointer(pointer).unwrap_or(&Value::Null), want, "{pointer}");
    }
}

#[test]
fn lint_finds_nothing() {
    for values in [LEAST, FULL] {
        let arguments = with_values(&["lint", "--strict", "charts/provost"], values, &[]);
        let said = helm(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(said.good, "{values:?}: {} {}", said.stdout, said.stderr);
        assert!(said.stdout.contains("1 chart(s) linted, 0 chart(s) failed"), "{}", said.stdout);
    }
}

#[test]
fn the_webhook_is_the_reference_registration() {
    let golden = std::fs::read_to_string(root().join("tests/chart/webhook.golden.yaml")).expect("golden file");
    let golden: Value = serde_saphyr::from_str(&golden).expect("YAML");
    assert_eq!(find(least(), "ValidatingWebhookConfiguration", "provost"), &golden);
}

#[test]
fn c_33_c_34_only_what_was_asked_for_differs_from_the_reference() {
    let hook = find(full(), "ValidatingWebhookConfiguration", "gate-provost");
    let mut want = find(least(), "ValidatingWebhookConfiguration", "provost").clone();
    want["metadata"]["name"] = json!("gate-provost");
    let changed = &mut want["webhooks"][0];
    changed["failurePolicy"] = json!("Ignore");
    changed["timeoutSeconds"] = json!(30);
    changed["clientConfig"]["service"]["name"] = json!("gate-provost");
    changed["clientConfig"]["service"]["namespace"] = json!("security");
    changed["clientConfig"]["service"]["path"] = json!("/validate/another-token-that-only-tests-know");
    changed["namespaceSelector"]["matchExpressions"][0]["values"] = json!(["security", "kube-system", "calico-system"]);
    assert_eq!(hook, &want);
}

#[test]
fn the_webhook_can_wait_until_replicas_are_ready() {
    let with = names(least());
    let without = names(&objects("provost", "provost", LEAST, &["webhook.enabled=false", "tls.ca="]));
    let gone: Vec<_> = with.iter().filter(|name| !without.contains(name)).collect();
    assert_eq!(gone, ["ValidatingWebhookConfiguration/provost"]);
    assert_eq!(with.len(), without.len() + 1);
}

#[test]
fn c_40_three_replicas_that_no_single_loss_takes_away() {
    let selector = json!({"app.kubernetes.io/name": "provost", "app.kubernetes.io/instance": "provost"});
    let spread = |key: &str, when: &str| json!({"topologyKey": key, "maxSkew": 1, "whenUnsatisfiable": when, "labelSelector": {"matchLabels": selector}});
    let mut hosts = spread("kubernetes.io/hostname", "DoNotSchedule");
    hosts["nodeTaintsPolicy"] = json!("Honor");
    assert_holds(
        find(least(), "StatefulSet", "provost"),
        &[
            ("/spec/replicas", json!(3)),
            ("/spec/podManagementPolicy", json!("Parallel")),
            ("/spec/selector/matchLabels", selector.clone()),
            ("/spec/template/metadata/labels", selector.clone()),
            (
                "/spec/template/spec/topologySpreadConstraints",
                json!([hosts, spread("topology.kubernetes.io/zone", "ScheduleAnyway")]),
            ),
            ("/spec/template/spec/priorityClassName", json!("system-cluster-critical")),
        ],
    );
    assert_holds(
        find(least(), "PodDisruptionBudget", "provost"),
        &[
            ("/spec/maxUnavailable", json!(1)),
            ("/spec/minAvailable", Value::Null),
            ("/spec/selector/matchLabels", selector),
        ],
    );
}

#[test]
fn c_44_a_replica_gets_the_time_to_drain() {
    assert_holds(
        find(least(), "StatefulSet", "provost"),
        &[
            ("/spec/template/spec/terminationGracePeriodSeconds", json!(60)),
            ("/spec/template/spec/containers/0/lifecycle", Value::Null),
        ],
    );
}

#[test]
fn a_replica_runs_with_nothing_that_it_does_not_need() {
    assert_holds(
        find(least(), "StatefulSet", "provost"),
        &[
            ("/spec/template/spec/serviceAccountName", json!("provost")),
            ("/spec/template/spec/automountServiceAccountToken", json!(false)),
            ("/spec/template/spec/hostNetwork", Value::Null),
            ("/spec/template/spec/securityContext/runAsNonRoot", json!(true)),
            ("/spec/template/spec/securityContext/seccompProfile", json!({"type": "RuntimeDefault"})),
            ("/spec/template/spec/containers/1", Value::Null),
            ("/spec/template/spec/initContainers", Value::Null),
            (
                "/spec/template/spec/containers/0/securityContext",
                json!({
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                }),
            ),
            (
                "/spec/template/spec/containers/0/resources",
                json!({"requests": {"cpu": "250m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}),
            ),
        ],
    );
    assert_holds(find(least(), "ServiceAccount", "provost"), &[("/automountServiceAccountToken", json!(false))]);
    let roles: Vec<_> = names(least()).into_iter().filter(|name| name.contains("Role")).collect();
    assert!(roles.is_empty(), "{roles:?}");
}

#[test]
fn the_review_path_and_health_stay_apart() {
    let port = |service: &str| find(least(), "Service", service)["spec"]["ports"].clone();
    assert_eq!(port("provost"), json!([{"name": "https", "port": 443, "targetPort": "https", "protocol": "TCP"}]));
    assert_eq!(
        port("provost-replicas"),
        json!([{"name": "health", "port": 8080, "targetPort": "health", "protocol": "TCP"}])
    );
    assert_holds(find(least(), "Service", "provost-replicas"), &[("/spec/clusterIP", json!("None"))]);
    assert_holds(
        find(least(), "StatefulSet", "provost"),
        &[
            ("/spec/serviceName", json!("provost-replicas")),
            (
                "/spec/template/spec/containers/0/ports",
                json!([
                    {"name": "https", "containerPort": 8443, "protocol": "TCP"},
                    {"name": "health", "containerPort": 8080, "protocol": "TCP"},
                ]),
            ),
            ("/spec/template/spec/containers/0/livenessProbe/httpGet", json!({"path": "/livez", "port": "health"})),
            ("/spec/template/spec/containers/0/startupProbe/httpGet", json!({"path": "/livez", "port": "health"})),
            ("/spec/template/spec/containers/0/readinessProbe/httpGet", json!({"path": "/readyz", "port": "health"})),
        ],
    );
}

#[test]
fn every_replica_keeps_its_own_ledger_beyond_the_release() {
    let claims = |objects: &[Value], name: &str| find(objects, "StatefulSet", name)["spec"].clone();
    let least = claims(least(), "provost");
    assert_holds(
        &least,
        &[
            ("/volumeClaimTemplates/0/metadata/name", json!("ledger")),
            ("/volumeClaimTemplates/0/spec/accessModes", json!(["ReadWriteOnce"])),
            ("/volumeClaimTemplates/0/spec/resources/requests/storage", json!("10Gi")),
            ("/volumeClaimTemplates/0/spec/storageClassName", Value::Null),
            ("/persistentVolumeClaimRetentionPolicy", json!({"whenDeleted": "Retain", "whenScaled": "Retain"})),
        ],
    );
    assert_eq!(mount(&least, "ledger"), json!({"name": "ledger", "mountPath": "/var/lib/provost"}));
    let full = claims(full(), "gate-provost");
    assert_holds(
        &full,
        &[
            ("/volumeClaimTemplates/0/spec/resources/requests/storage", json!("50Gi")),
            ("/volumeClaimTemplates/0/spec/storageClassName", json!("fast")),
        ],
    );
}

fn mount(stateful_set_spec: &Value, name: &str) -> Value {
    let mounts = &stateful_set_spec["template"]["spec"]["containers"][0]["volumeMounts"];
    let mut hits = mounts.as_array().expect("mounts").iter().filter(|mount| mount["name"] == name);
    hits.next().cloned().unwrap_or(Value::Null)
}

fn volume(stateful_set_spec: &Value, name: &str) -> Value {
    let volumes = &stateful_set_spec["template"]["spec"]["volumes"];
    let mut hits = volumes.as_array().expect("volumes").iter().filter(|volume| volume["name"] == name);
    hits.next().cloned().unwrap_or(Value::Null)
}

#[test]
fn the_image_is_named_by_digest() {
    let container = &find(least(), "StatefulSet", "provost")["spec"]["template"]["spec"]["containers"][0];
    let image: provost::decision::reference::ImageRef =
        container["image"].as_str().expect("text").parse().expect("an image name");
    assert!(image.pinned().is_some(), "our own chart must pass our own rules");
    assert_eq!(image.tag(), None);
    assert_eq!(container["args"], json!(["serve", "--config", "/etc/provost/provost.yaml"]));
}

#[test]
fn policies_come_from_values_or_from_a_config_map_of_your_own() {
    assert_holds(
        find(least(), "ConfigMap", "provost-policies"),
        &[("/data", json!({"payments.yaml": "apiVersion: provost.dev/v1\nkind: ReleasePolicy\n"}))],
    );
    let spec = &find(least(), "StatefulSet", "provost")["spec"];
    assert_eq!(volume(spec, "policies")["configMap"], json!({"name": "provost-policies"}));
    assert_eq!(
        mount(spec, "policies"),
        json!({"name": "policies", "mountPath": "/etc/provost/policies", "readOnly": true})
    );

    let own = objects("provost", "provost", LEAST, &["policies=null", "policiesConfigMap=mine"]);
    assert!(!names(&own).contains(&"ConfigMap/provost-policies".to_owned()));
    let spec = &find(&own, "StatefulSet", "provost")["spec"];
    assert_eq!(volume(spec, "policies")["configMap"], json!({"name": "mine"}));
}

#[test]
fn tls_comes_from_a_secret_or_from_values() {
    let spec = &find(least(), "StatefulSet", "provost")["spec"];
    // 288 is 0440: the group of the pod reads it, nobody writes it.
    assert_eq!(volume(spec, "tls")["secret"], json!({"secretName": "provost-tls", "defaultMode": 288}));
    assert_eq!(mount(spec, "tls"), json!({"name": "tls", "mountPath": "/etc/provost/tls", "readOnly": true}));
    assert!(!names(least()).contains(&"Secret/provost-tls".to_owned()));

    let secret = find(full(), "Secret", "gate-provost-tls");
    assert_eq!(secret["type"], "kubernetes.io/tls");
    for (key, label) in [("tls.crt", "CERTIFICATE"), ("tls.key", "PRIVATE KEY")] {
        let bytes = STANDARD.decode(secret["data"][key].as_str().expect("text")).expect("base64");
        let text = String::from_utf8(bytes).expect("UTF-8");
        assert!(text.starts_with(&format!("-----BEGIN {label}-----\n")), "{key}: {text}");
    }
    let spec = &find(full(), "StatefulSet", "gate-provost")["spec"];
    assert_eq!(volume(spec, "tls")["secret"]["secretName"], "gate-provost-tls");
}

/// The tokens of a rendering: what its Secret holds, and the path of its webhook.
fn tokens(objects: &[Value], name: &str) -> (Option<String>, Value) {
    let secret = objects.iter().find(|o| o["kind"] == "Secret" && o["metadata"]["name"] == format!("{name}-callers"));
    let content = secret.map(|secret| {
        let bytes = STANDARD.decode(secret["data"]["tokens"].as_str().expect("text")).expect("base64");
        String::from_utf8(bytes).expect("UTF-8")
    });
    let hook = objects.iter().find(|o| o["kind"] == "ValidatingWebhookConfiguration");
    (content, hook.map_or(Value::Null, |hook| hook["webhooks"][0]["clientConfig"]["service"]["path"].clone()))
}

#[test]
fn c_08_callers_are_known_by_the_token_that_the_webhook_is_registered_with() {
    let (content, path) = tokens(least(), "provost");
    assert_eq!(content.as_deref(), Some("a-token-that-only-tests-know\n"));
    assert_eq!(path, "/validate/a-token-that-only-tests-know");
    let spec = &find(least(), "StatefulSet", "provost")["spec"];
    let read_only = |name: &str| json!({"name": name, "mountPath": format!("/etc/provost/{name}"), "readOnly": true});
    assert_eq!(mount(spec, "callers"), read_only("callers"));
    let secret = json!({"secret": {"name": "provost-callers", "items": [{"key": "tokens", "path": "tokens"}]}});
    assert_eq!(volume(spec, "callers")["projected"], json!({"defaultMode": 288, "sources": [secret]}));

    // While one token replaces another, the first is registered and both are accepted.
    let two = objects("provost", "provost", LEAST, &["caller.tokens={0123456789abcdef-new,0123456789abcdef-old}"]);
    let (content, path) = tokens(&two, "provost");
    assert_eq!(content.as_deref(), Some("0123456789abcdef-new\n0123456789abcdef-old\n"));
    assert_eq!(path, "/validate/0123456789abcdef-new");
    let template = |objects: &[Value]| find(objects, "StatefulSet", "provost")["spec"]["template"].clone();
    assert_eq!(template(&two), template(least()), "nobody restarts for a token");

    // A Secret of one's own, and a CA for client certificates beside it.
    assert_eq!(tokens(full(), "gate-provost"), (None, json!("/validate/another-token-that-only-tests-know")));
    let spec = &find(full(), "StatefulSet", "gate-provost")["spec"];
    let secret = json!({"secret": {"name": "gate-tokens", "items": [{"key": "tokens", "path": "tokens"}]}});
    let ca = json!({"configMap": {"name": "gate-provost-callers", "items": [{"key": "ca.crt", "path": "ca.crt"}]}});
    assert_eq!(volume(spec, "callers")["projected"]["sources"], json!([secret, ca]));
    let ca = find(full(), "ConfigMap", "gate-provost-callers")["data"]["ca.crt"].as_str().expect("text").to_owned();
    assert!(ca.starts_with("-----BEGIN CERTIFICATE-----\ncallers\n"), "{ca}");
}

#[test]
fn c_08_with_a_client_ca_alone_there_is_no_token() {
    let settings = ["caller.tokens=null", "caller.clientCa=-----BEGIN CERTIFICATE-----"];
    let only = objects("provost", "provost", LEAST, &settings);
    assert_eq!(tokens(&only, "provost"), (None, json!("/validate")));
    let text = find(&only, "ConfigMap", "provost")["data"]["provost.yaml"].as_str().expect("text");
    let config: Value = serde_saphyr::from_str(text).expect("YAML");
    assert_eq!(
        (&config["callerToken"], &config["tls"]["clientCa"]),
        (&Value::Null, &json!("/etc/provost/callers/ca.crt"))
    );
    let spec = &find(&only, "StatefulSet", "provost")["spec"];
    let ca = json!({"configMap": {"name": "provost-callers", "items": [{"key": "ca.crt", "path": "ca.crt"}]}});
    assert_eq!(volume(spec, "callers")["projected"]["sources"], json!([ca]));
}

/// Where helm does not see the cluster it cannot keep a token that it made: it makes none, and says what to give.
#[test]
fn c_08_no_token_is_made_that_would_be_another_one_at_the_next_rendering() {
    let refused = |settings: &[&str], want: &str| {
        let said = template("provost", "provost", LEAST, settings);
        assert!(!said.good && said.stdout.is_empty(), "{settings:?} rendered");
        assert!(said.stderr.contains(want), "{settings:?}: {}", said.stderr);
        for secret in ["a-token-that-only-tests-know", "0123456789", "UPPER"] {
            assert!(!said.stderr.contains(secret), "{settings:?}: no message shows a token: {}", said.stderr);
        }
    };
    let blind = "this rendering cannot see the cluster (helm template, --dry-run=client, most GitOps tools)";
    refused(&["caller.tokens=null"], blind);
    refused(&["caller.tokens=null", "webhook.enabled=false"], blind);
    refused(&["caller.tokens=null", "caller.existingSecret=mine"], blind);
    // What does not need it renders: the first step of an installation, or the token beside the Secret.
    let own = ["caller.tokens=null", "caller.existingSecret=mine", "webhook.enabled=false"];
    assert_eq!(tokens(&objects("provost", "provost", LEAST, &own), "provost"), (None, Value::Null));
    let own = objects("provost", "provost", LEAST, &["caller.existingSecret=mine"]);
    assert_eq!(tokens(&own, "provost"), (None, json!("/validate/a-token-that-only-tests-know")));

    for settings in [
        &["caller.tokens={0123456789abcde}"][..],
        &["caller.tokens={0123456789abcdef,UPPER-CASE-012345}"],
        &["caller.tokens={-0123456789abcdef}"],
        &["caller.tokens={0123456789abcdef/x}"],
        &["caller.tokens={#0123456789abcdef}"],
        &["caller.tokens={0123456789abcde}", "caller.existingSecret=mine"],
    ] {
        refused(settings, "token");
    }
    refused(
        &["caller.tokens={0123456789abcdef,0123456789abcdeg}", "caller.existingSecret=mine"],
        "give only the token that is registered",
    );
    refused(&["caller.clientSubjects={kube-apiserver}"], "caller.clientSubjects: give the CA");
    assert!(template("provost", "provost", LEAST, &["caller.tokens={0123456789abcdef}"]).good);
}

#[test]
fn provost_yaml_holds_what_was_given_and_the_places_of_this_chart() {
    let config = |objects: &[Value], name: &str| -> Value {
        let text = find(objects, "ConfigMap", name)["data"]["provost.yaml"].as_str().expect("text").to_owned();
        serde_saphyr::from_str(&text).expect("YAML")
    };
    let mut want = json!({
        "listen": "0.0.0.0:8443",
        "healthListen": "0.0.0.0:8080",
        "tls": {"cert": "/etc/provost/tls/tls.crt", "key": "/etc/provost/tls/tls.key"},
        "policies": "/etc/provost/policies",
        "ledger": {"store": "/var/lib/provost/ledger.db", "durability": "denials"},
        "callerToken": "/etc/provost/callers/tokens",
        "logFormat": "json",
    });
    assert_eq!(config(least(), "provost"), want);

    want["listen"] = json!("[::]:8443");
    want["healthListen"] = json!("[::]:8080");
    want["ledger"]["durability"] = json!("all");
    want["logFormat"] = json!("text");
    want["cluster"] = json!("prod-eu1");
    want["drain"] = json!("20s");
    want["registries"] = json!({"registry.corp.example": {
        "addresses": ["10.20.0.0/16"],
        "ca": "/etc/provost/registries/corp-ca.pem",
        "credentialsFile": "/etc/provost/registries/config.json",
    }});
    want["limits"] = json!({"connections": 512, "computing": 64, "waiting": 500, "imagesPerReview": 128});
    want["observe"] = json!(true);
    want["tls"]["clientCa"] = json!("/etc/provost/callers/ca.crt");
    want["tls"]["clientSubjects"] = json!(["kube-apiserver"]);
    want["cache"] = json!({"size": "128MiB", "staleProofs": "12h"});
    want["records"] = json!("none");
    assert_eq!(config(full(), "gate-provost"), want);
    let spec = &find(full(), "StatefulSet", "gate-provost")["spec"];
    assert_eq!(volume(spec, "registries")["secret"]["secretName"], "registries");
    assert_eq!(mount(spec, "registries")["mountPath"], "/etc/provost/registries");
}

/// What the chart writes is what `provost serve` reads: its own reader finds nothing wrong.
#[test]
fn provost_reads_its_yaml() {
    for (objects, name) in [(least(), "provost"), (full(), "gate-provost")] {
        let text = find(objects, "ConfigMap", name)["data"]["provost.yaml"].as_str().expect("text");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("provost.yaml");
        std::fs::write(&file, text).expect("written");
        let config = Config::load(Some(&file), &[]).unwrap_or_else(|problems| panic!("{name}: {problems}\n{text}"));
        assert_eq!(config.ledger_store.value, Path::new("/var/lib/provost/ledger.db"), "{name}");
        assert_eq!(config.policies.value, Path::new("/etc/provost/policies"), "{name}");
    }
}

#[test]
fn a_changed_config_restarts_replicas_and_changed_policies_do_not() {
    let checksum = |settings: &[&str]| {
        let objects = objects("provost", "provost", LEAST, settings);
        let template = &find(&objects, "StatefulSet", "provost")["spec"]["template"];
        (template["metadata"]["annotations"]["checksum/config"].clone(), template.clone())
    };
    let (before, template) = checksum(&[]);
    assert_ne!(checksum(&["config.cluster=prod-eu1"]).0, before);
    assert_eq!(checksum(&["policies.more\\.yaml=x", "tls.ca=-----BEGIN CERTIFICATE-----"]).1, template);
}

#[test]
fn what_is_optional_is_off_and_whole_when_on() {
    for kind in ["NetworkPolicy", "ServiceMonitor"] {
        assert!(!names(least()).iter().any(|name| name.starts_with(kind)), "{kind} is off by default");
    }
    let selector = json!({"app.kubernetes.io/name": "provost", "app.kubernetes.io/instance": "gate"});
    assert_holds(
        find(full(), "NetworkPolicy", "gate-provost"),
        &[
            ("/spec/podSelector/matchLabels", selector.clone()),
            ("/spec/policyTypes", json!(["Ingress", "Egress"])),
            ("/spec/ingress/0", json!({"ports": [{"port": 8443, "protocol": "TCP"}]})),
            ("/spec/ingress/1/ports", json!([{"port": 8080, "protocol": "TCP"}])),
            ("/spec/egress/1/ports", json!([{"port": 443, "protocol": "TCP"}])),
        ],
    );
    let monitor = find(full(), "ServiceMonitor", "gate-provost");
    assert_holds(
        monitor,
        &[
            ("/metadata/labels/release", json!("prometheus")),
            ("/spec/endpoints", json!([{"port": "health", "path": "/metrics", "interval": "30s"}])),
        ],
    );
    let wanted = monitor["spec"]["selector"]["matchLabels"].as_object().expect("labels");
    let selected = |service: &str| {
        let labels = &find(full(), "Service", service)["metadata"]["labels"];
        wanted.iter().all(|(key, value)| &labels[key] == value)
    };
    assert!(selected("gate-provost-replicas"));
    assert!(!selected("gate-provost"), "metrics are not on the review path");
}

/// Kubernetes drops a misspelt field without a word, and so do its types: what they hold must be what was rendered.
#[test]
fn kubernetes_knows_every_field() {
    for object in least().iter().chain(full()) {
        let kind = object["kind"].as_str().expect("text").to_owned();
        let read = match kind.as_str() {
            "ConfigMap" => through::<core::v1::ConfigMap>(object),
            "NetworkPolicy" => through::<networking::v1::NetworkPolicy>(object),
            "PodDisruptionBudget" => through::<policy::v1::PodDisruptionBudget>(object),
            "Secret" => through::<core::v1::Secret>(object),
            "Service" => through::<core::v1::Service>(object),
            "ServiceAccount" => through::<core::v1::ServiceAccount>(object),
            "StatefulSet" => through::<apps::v1::StatefulSet>(object),
            "ValidatingWebhookConfiguration" => {
                through::<admissionregistration::v1::ValidatingWebhookConfiguration>(object)
            }
            // Its type is the Prometheus operator's.
            "ServiceMonitor" => continue,
            other => panic!("a new kind, {other}: name its type here"),
        };
        assert_eq!(&read, object, "{kind}");
    }
}

fn through<T: DeserializeOwned + Serialize>(object: &Value) -> Value {
    let typed: T = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object}"));
    serde_json::to_value(typed).expect("JSON")
}

/// Each row lacks or adds one thing; without it the same values render.
#[test]
fn what_is_missing_is_named() {
    assert!(template("provost", "provost", LEAST, &[]).good);
    for (settings, want) in [
        (&["image.repository="][..], "image.repository is required: where the image is, without tag"),
        (&["image.digest="], "image.digest is required: the sha256 digest of the image; a tag will not do"),
        (
            &["tls.existingSecret="],
            "tls: give tls.existingSecret (a Secret of type kubernetes.io/tls), or both tls.cert and tls.key as PEM",
        ),
        (
            &["tls.existingSecret=", "tls.cert=-----BEGIN CERTIFICATE-----"],
            "tls: give tls.existingSecret (a Secret of type kubernetes.io/tls), or both tls.cert and tls.key as PEM",
        ),
        (&["tls.key=-----BEGIN PRIVATE KEY-----"], "tls: give tls.existingSecret, or tls.cert and tls.key, not both"),
        (&["tls.ca="], "tls.ca is required while webhook.enabled is true"),
        (&["policies=null"], "policies: give at least one policy file under policies"),
        (&["policiesConfigMap=mine"], "policies: give policies or policiesConfigMap, not both"),
    ] {
        let said = template("provost", "provost", LEAST, settings);
        assert!(!said.good, "{settings:?} rendered");
        assert!(said.stderr.contains(want), "{settings:?}: {}", said.stderr);
        assert_eq!(said.stdout, "", "{settings:?}: nothing is rendered beside an error");
    }
}

/// Each row has its twin, which differs by little and renders.
#[test]
fn what_is_misspelt_is_refused() {
    let hex = "9ae97d36d26566ff84e8893c64a6dc4fe8ca6d1144bf5b87b2b85a32def253c7";
    let (short, upper) =
        (format!("image.digest=sha256:{}", &hex[1..]), format!("image.digest=sha256:9AE{}", &hex[3..]));
    let good = format!("image.digest=sha256:{hex}");
    for (bad, place, twin) in [
        (short.as_str(), "/image/digest", good.as_str()),
        (upper.as_str(), "/image/digest", good.as_str()),
        ("image.digest=1.2.3", "/image/digest", good.as_str()),
        ("image.repository=example.com/provost:1.2", "/image/repository", "image.repository=example.com:12/provost"),
        ("image.tag=v1", "image", "image.pullPolicy=Never"),
        ("replicas=0", "/replicas", "replicas=1"),
        ("webhook.failurePolicy=Open", "/webhook/failurePolicy", "webhook.failurePolicy=Ignore"),
        ("webhook.timeoutSeconds=31", "/webhook/timeoutSeconds", "webhook.timeoutSeconds=30"),
        ("webhook.timeoutSeconds=0", "/webhook/timeoutSeconds", "webhook.timeoutSeconds=1"),
        ("webhook.exemptNamespaces={kube_system}", "/webhook/exemptNamespaces/0", "webhook.exemptNamespaces={cni}"),
        ("webhook.objectSelector.a=b", "webhook", "webhook.enabled=true"),
        ("config.clientCa=ca.crt", "config", "config.cluster=prod"),
        ("config.listen=0.0.0.0:1", "config", "config.records=stdout"),
        ("config.drain=15", "/config/drain", "config.drain=15s"),
        ("config.drain=50s", "/config/drain", "config.drain=49s"),
        ("config.cluster=eu 1", "/config/cluster", "config.cluster=eu-1"),
        ("config.cache.size=big", "/config/cache/size", "config.cache.size=1GiB"),
        ("ledger.durability=none", "/ledger/durability", "ledger.durability=all"),
        ("policies.keys/release\\.pub=x", "policies", "policies.release\\.pub=x"),
        ("tls.ca=ca.pem", "/tls/ca", "tls.ca=-----BEGIN CERTIFICATE-----"),
        ("caller.existingSecret=My_Secret", "/caller/existingSecret", "caller.existingSecret=my-secret"),
        ("caller.clientCa=ca.pem", "/caller/clientCa", "caller.clientCa=-----BEGIN CERTIFICATE-----"),
        ("caller.token=0123456789abcdef", "caller", "caller.tokens={0123456789abcdef}"),
        ("surprise=1", "surprise", "listenAddress=127.0.0.1"),
    ] {
        let said = template("provost", "provost", LEAST, &[bad]);
        assert!(!said.good, "{bad} rendered");
        assert!(said.stderr.contains("don't meet the specifications of the schema"), "{bad}: {}", said.stderr);
        assert!(said.stderr.contains(place), "{bad}: {}", said.stderr);
        let said = template("provost", "provost", LEAST, &[twin]);
        assert!(said.good, "{twin}: {}", said.stderr);
    }
}

#[test]
fn the_notes_tell_how_to_open_the_gate() {
    let notes = |release: &str, values: &[&str], settings: &[&str]| {
        let command = ["install", release, "charts/provost", "--namespace", "security", "--dry-run=client"];
        let arguments = with_values(&command, values, settings);
        let said = helm(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(said.good, "{}", said.stderr);
        said.stdout.split_once("\nNOTES:\n").expect("notes").1.to_owned()
    };
    let armed = notes("gate", FULL, &[]);
    assert!(armed.contains("kubectl delete validatingwebhookconfiguration gate-provost\n"), "{armed}");
    assert!(armed.contains("gate-provost.security.svc"), "{armed}");
    assert!(armed.contains("outside the namespaces security, kube-system, calico-system."), "{armed}");
    assert!(armed.contains("failurePolicy is Ignore"), "{armed}");
    let unarmed = notes("provost", LEAST, &["webhook.enabled=false"]);
    assert!(unarmed.contains("Nothing is gated yet."), "{unarmed}");
    assert!(!unarmed.contains("failurePolicy"), "{unarmed}");
    assert!(armed.contains("one of those in the Secret gate-tokens, or by its client certificate."), "{armed}");
    assert!(unarmed.contains("one of those in the Secret provost-callers."), "{unarmed}");
    for notes in [&armed, &unarmed] {
        assert!(!notes.contains("tests-know"), "no token stands there: {notes}");
    }
}
