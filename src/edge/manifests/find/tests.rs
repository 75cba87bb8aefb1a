//! Tests of what is found in manifests: lists, kinds, places, faults.

use super::*;

fn found(text: &str) -> Contents {
    let manifest = Manifest { name: "m.yaml".to_owned(), path: None, text: text.to_owned() };
    contents(&manifest, &Namespace::default_namespace())
}

/// Each workload as `line kind namespace/name: images or code`.
fn told(text: &str) -> Vec<String> {
    let workloads = found(text).workloads;
    let one = |workload: &Workload| {
        let Request { kind, namespace, name, .. } = &workload.request;
        let what = match &workload.review {
            Ok(review) => review.images.iter().map(|image| image.text.as_str()).collect::<Vec<_>>().join(" "),
            Err(fault) => fault.code.to_string(),
        };
        format!("{} {} {namespace}/{name}: {what}", workload.at, kind.kind)
    };
    workloads.iter().map(one).collect()
}

const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c, image: nginx}]}}";

#[test]
fn x_006_workloads_are_found_wherever_they_stand() {
    for (name, text, want) in [
        ("alone", POD.to_owned(), vec!["1:1 Pod default/a: nginx"]),
        ("second document", format!("a: 1\n---\n{POD}\n"), vec!["3:1 Pod default/a: nginx"]),
        ("end marks", format!("---\n{POD}\n...\n---\n# c\n---\n{POD}\n"), vec!["2:1 Pod default/a: nginx", "7:1 Pod default/a: nginx"]),
        ("list", format!("apiVersion: v1\nkind: List\nitems:\n- {POD}\n- {{kind: Service}}\n"), vec!["4:3 Pod default/a: nginx"]),
        (
            "list in a list",
            format!("{{kind: List, items: [{{kind: List, items: [{POD}]}}]}}"),
            vec!["1:43 Pod default/a: nginx"],
        ),
        (
            "typed list",
            "apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: b}\n  spec: {containers: [{image: x}]}\n".to_owned(),
            vec!["4:3 Pod default/b: x"],
        ),
        ("typed list with types", format!("{{apiVersion: v1, kind: PodList, items: [{POD}]}}"), vec!["1:41 Pod default/a: nginx"]),
        ("JSON", r#"{"apiVersion":"v1","kind":"Pod","metadata":{"namespace":"n"},"spec":{"containers":[{"image":"\u0078"}]}}"#.to_owned(), vec!["1:1 Pod n/: x"]),
        ("generated name", POD.replace("name: a", "generateName: a-"), vec!["1:1 Pod default/a-: nginx"]),
        ("merge", "x: &x {image: nginx}\napiVersion: v1\nkind: Pod\nspec: {containers: [{<<: *x}]}\n".to_owned(), vec!["1:1 Pod default/: nginx"]),
        ("byte-order mark", format!("\u{feff}{POD}"), vec!["1:1 Pod default/a: nginx"]),
    ] {
        assert_eq!(told(&text), want, "{name}");
    }
}

#[test]
fn x_017_what_may_hold_a_pod_is_never_skipped() {
    for (name, text, want) in [
        ("another version", POD.replace("v1", "v2"), "unsupported-kind"),
        ("an old group", POD.replace("v1", "extensions/v1beta1").replace("Pod", "Deployment"), "unsupported-kind"),
        ("no version", POD.replace("apiVersion: v1, ", ""), "unsupported-kind"),
        ("another case", POD.replace("Pod", "pod"), "unsupported-kind"),
        ("kind in another case", POD.replace("kind", "Kind"), "malformed-review"),
        ("kind twice", POD.replace("kind: Pod", "kind: ConfigMap, kind: Pod"), "malformed-review"),
        ("kind no text", POD.replace("kind: Pod", "kind: [Pod]"), "malformed-review"),
        ("version twice", POD.replace("kind: Pod", "kind: Pod, apiVersion: example.com/v1"), "malformed-review"),
        ("image twice", POD.replace("image: nginx", "image: good, image: nginx"), "malformed-review"),
        ("image a number", POD.replace("image: nginx", "image: 1.20"), "malformed-review"),
        ("namespace twice", POD.replace("name: a", "namespace: a, namespace: b"), "malformed-review"),
        ("namespace no name", POD.replace("name: a", "namespace: A_b"), "malformed-review"),
        ("no containers", POD.replace("containers", "volumes"), "malformed-review"),
        ("items twice", format!("{{kind: List, items: [], items: [{POD}]}}"), "malformed-review"),
        ("items in another case", format!("{{kind: List, Items: [{POD}]}}"), "malformed-review"),
        ("items a mapping", format!("{{kind: List, items: {POD}}}"), "malformed-review"),
        ("text in a list", "{kind: List, items: [Pod]}".to_owned(), "malformed-review"),
        ("a text", "Pod\n".to_owned(), "malformed-review"),
        ("lists in lists", format!("{}{POD}{}", "{kind: List, items: [".repeat(5), "]}".repeat(5)), "malformed-review"),
        ("a key that is a number", POD.replace("name: c", "1: {image: x}"), "nginx"),
    ] {
        let workloads = told(&text);
        assert_eq!(workloads.len(), 1, "{name}: {workloads:?}");
        assert!(workloads[0].ends_with(want), "{name}: {workloads:?}");
    }
    // What the last one hides is told by its review.
    let odd = found(&POD.replace("name: c", "1: {image: x}"));
    let review = odd.workloads[0].review.as_ref().expect("readable");
    assert_eq!(review.unknown_fields[0].path, "spec.containers[0].1");
}

#[test]
fn kinds_without_pods_are_counted() {
    for (text, skipped) in [
        ("kind: Service\n---\nkind: ConfigMap\ndata: {a: a, b: {kind: Pod}}\n", 2),
        ("apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nspec: {template: {spec: {containers: [{image: x}]}}}\n", 1),
        ("resources: [a.yaml]\n", 1),
        ("apiVersion: example.com/v1\nkind: WhiteList\nitems: [a, b]\n", 1),
        ("kind: List\n", 0),
        ("{kind: List, items: null}", 0),
        ("# nothing\n", 0),
        ("", 0),
    ] {
        let found = found(text);
        assert_eq!((found.skipped, found.workloads.len(), found.problems.len()), (skipped, 0, 0), "{text}");
    }
}

#[test]
fn every_image_knows_its_place() {
    let text = "apiVersion: batch/v1
kind: CronJob
metadata: {name: a}
spec:
  jobTemplate:
    spec:
      template:
        spec:
          volumes:
          - name: other
            emptyDir: {}
          - name: v
            image:
              reference: &v \"volume\"  # c
          initContainers:
          - name: i
            image: 'init'
          containers:
          - {name: c, image: plain}
          - name: empty
          - name: d
            image: *v
          - name: e
            image: |-
              block
";
    let found = found(text);
    let workload = &found.workloads[0];
    let review = workload.review.as_ref().expect("readable");
    let spots: Vec<(String, String, &str)> = review
        .images
        .iter()
        .zip(&workload.images)
        .map(|(image, spot)| {
            let bytes = spot.bytes.clone().map_or("", |bytes| &text[bytes]);
            (image.text.clone(), format!("{} {}", spot.at, spot.written), bytes.trim_end())
        })
        .collect();
    let want = [
        ("plain", "19:30 19:30", "plain"),
        ("", "20:13 20:13", ""),
        ("volume", "22:20 14:29", "\"volume\""),
        ("block", "25:15 25:15", "block"),
        ("init", "17:20 17:20", "'init'"),
        ("volume", "14:29 14:29", "\"volume\""),
    ];
    assert_eq!(spots, want.map(|(image, at, bytes)| (image.to_owned(), at.to_owned(), bytes)));
}

#[test]
fn what_cannot_be_read_is_told_with_its_line() {
    let found = found(&format!("{POD}\n---\na: [1\n"));
    assert_eq!(found.workloads.len(), 1);
    assert_eq!(found.problems.len(), 1);
    assert!(found.problems[0].to_string().starts_with("m.yaml:3:4: not readable as YAML"), "{}", found.problems[0]);
    let template = self::found("kind: {{ .Values.kind }}\nspec: {{- x }}\n");
    assert!(!template.problems.is_empty() || template.skipped == 0, "a template is no manifest");
}

#[test]
fn x_033_deep_manifests_end_in_an_answer() {
    let deep = |levels: usize| format!("kind: X\na: {}{}\n", "[".repeat(levels), "]".repeat(levels));
    assert_eq!(found(&deep(90)).skipped, 1);
    assert_eq!(found(&deep(200)).problems.len(), 1);
    let pod = POD.replace("name: c", &format!("env: {}{}", "[".repeat(90), "]".repeat(90)));
    assert_eq!(told(&pod), ["1:1 Pod default/a: malformed-review"]);
}
