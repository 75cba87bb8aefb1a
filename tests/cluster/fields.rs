//! The lists of known fields against the schema of the real API server.

use std::collections::BTreeSet;

use provost::edge::admission::known_fields;
use serde_json::Value;

use super::support::cluster::User;
use super::world::world;

/// Known already, from the next minor version of Kubernetes.
const NEWER: [(&str, &str); 1] = [("io.k8s.api.core.v1.PodSpec", "evictionResponders")];

#[test]
fn x_015_every_field_of_the_api_server_is_known() {
    let text = world().cluster.kubectl(User::Admin).args(["get", "--raw", "/openapi/v3/api/v1"]).must();
    let schema: Value = serde_json::from_str(&text).expect("OpenAPI");
    let mut differences = Vec::new();
    for list in known_fields() {
        let properties = schema["components"]["schemas"][list.schema]["properties"].as_object();
        let served: BTreeSet<&str> = properties.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        assert!(!served.is_empty(), "the API server has no {}", list.schema);
        let known: BTreeSet<&str> = list.keys.iter().copied().collect();
        differences
            .extend(served.difference(&known).map(|field| format!("{} has {field}, which is not known", list.schema)));
        let newer = |field: &&&str| !NEWER.contains(&(list.schema, field));
        let gone = known.difference(&served).filter(newer);
        differences.extend(gone.map(|field| format!("{} has no {field}, which is known", list.schema)));
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
