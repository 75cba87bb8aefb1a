//! Random reviews: legal objects, as odd as an API server could send them, and the same as JSON. It must never know how a
//! review is read.

use serde_json::{Map, Value, json};

use crate::json::write;
use crate::random::Random;
use crate::schema::{Form, Schema, Type};

/// One review, as its parts and as sent.
pub(crate) struct Review {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) operation: &'static str,
    pub(crate) body: String,
    /// What the body says.
    pub(crate) whole: Value,
}

/// Kinds that can hold no image (C-32).
pub(crate) const WITHOUT_IMAGES: [(&str, &str, &str); 5] = [
    ("", "v1", "Binding"),
    ("policy", "v1", "Eviction"),
    ("autoscaling", "v1", "Scale"),
    ("", "v1", "PodExecOptions"),
    ("", "v1", "NodeProxyOptions"),
];

/// Kinds that nobody knows, or in versions that nobody knows (C-30, X-014).
const STRANGE: [(&str, &str, &str); 5] = [
    ("apps", "v1beta1", "Deployment"),
    ("", "v2", "Pod"),
    ("example.com", "v1", "Pod"),
    ("batch", "v1", "Work"),
    ("extensions", "v1", "DaemonSet"),
];

const TEXTS: [&str; 14] = [
    "registry.example.com/release/payments/api@sha256:9b2c64d1e07f4a5b8c3d2e1f0a9b8c7d6e5f4a3b2c1d0e9f8a7b6c5d4e3f2a1b",
    "registry.example.com/release/payments/web@sha256:1b2c64d1e07f4a5b8c3d2e1f0a9b8c7d6e5f4a3b2c1d0e9f8a7b6c5d4e3f2a1b",
    "registry.example.com/release/payments/api:1.2",
    "nginx",
    "NGINX",
    "library/nginx:latest",
    "localhost:5000/a",
    "",
    " ",
    "a b",
    "imag\u{e9}/\u{202e}\u{1f600}",
    "\"quoted\"\\\n\t",
    "${IMAGE}",
    "{\"image\":\"x\"}",
];
const NAMES: [&str; 7] = ["app", "web", "init", "sidecar", "data", "image", ""];
/// Unknown keys: some name an image, some only nearly; none is a known key in another case.
const UNKNOWN: [&str; 14] = [
    "sideImage",
    "baseImage",
    "Image2",
    "images",
    "imageSource",
    "IMAGES",
    "newField",
    "preReference",
    "reference2",
    "x-image",
    "Xreference",
    "sideimage",
    "ociImage",
    "zz",
];
/// Keys inside values: these are image fields only inside an unknown field.
const INNER: [&str; 8] = ["image", "Image", "reference", "REFERENCE", "sideImage", "name", "f:image", "value"];

/// Draws a review.
pub(crate) fn review(random: &mut Random, schema: &Schema) -> Review {
    let (of, [group, version, kind]) = match random.below(40) {
        0 => (None, texts(*random.pick(&WITHOUT_IMAGES))),
        1 => (None, texts(*random.pick(&STRANGE))),
        _ => {
            // Pods and templates have rules of their own for updates: both come often.
            let pod = schema.kinds.iter().find(|(gvk, _)| gvk[2] == "Pod").expect("the extract holds pods");
            let (gvk, of) = if random.one_in(3) { pod } else { random.pick(&schema.kinds) };
            (Some(*of), gvk.clone())
        }
    };
    let operation = match random.below(16) {
        0 => "DELETE",
        1..=8 => "UPDATE",
        _ => "CREATE",
    };
    let mut draw = Draw { random, schema };
    let mut object = match of {
        Some(of) => draw.object(of, true),
        None => draw.anything(3),
    };
    draw.name_it(&mut object, &group, &version, &kind);
    let mut old = Value::Null;
    if operation == "UPDATE" && !draw.random.one_in(12) || draw.random.one_in(60) {
        old = object.clone();
        let newer = draw.random.one_in(2);
        draw.change(if newer { &mut object } else { &mut old });
    }
    if operation == "DELETE" {
        (old, object) = (object, Value::Null);
    }
    let named = |what: &str, kind: &str| json!({"group": group, "version": version, what: kind});
    let mut request = json!({
        "uid": "6d1f0c3a-52be-4e0b-9a57-0c8a4e1b7f20",
        "kind": named("kind", &kind),
        "namespace": "payments-1",
        "operation": operation,
    });
    if draw.random.one_in(8) {
        request["resource"] = named("resource", "things");
        request["userInfo"] = json!({"username": "someone", "groups": ["system:authenticated"]});
        request["dryRun"] = json!(draw.random.one_in(2));
        request["subResource"] = json!(*draw.random.pick(&["ephemeralcontainers", "status", "resize", ""]));
        request["requestKind"] = json!({"group": "apps", "version": "v1beta2", "kind": kind});
        request["options"] = draw.anything(2);
    }
    // Moved, not copied: this is most of the bytes.
    request["object"] = object;
    request["oldObject"] = old;
    let mut whole = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"});
    whole["request"] = request;
    let body = write(&whole, draw.random);
    Review { group, version, kind, operation, body, whole }
}

impl Review {
    /// The new object.
    pub(crate) fn object(&self) -> &Value {
        &self.whole["request"]["object"]
    }

    /// The old object.
    pub(crate) fn old(&self) -> &Value {
        &self.whole["request"]["oldObject"]
    }
}

fn texts((group, version, kind): (&str, &str, &str)) -> [String; 3] {
    [group, version, kind].map(str::to_owned)
}

struct Draw<'a> {
    random: &'a mut Random,
    schema: &'a Schema,
}

impl<'a> Draw<'a> {
    /// An object of a type: what leads to images, mostly, and some of the rest.
    fn object(&mut self, of: usize, is_root: bool) -> Value {
        let this: &'a Type = &self.schema.types[of];
        let mut fields = Map::new();
        for way in &this.ways {
            let value = match (way.is_list, way.key.as_str()) {
                (true, key) => {
                    let often = if key == "containers" { 12 } else { 2 };
                    let count = if self.random.below(often) == 0 { 0 } else { 1 + self.random.below(2) };
                    if count == 0 && self.random.one_in(2) {
                        continue;
                    }
                    if count == 0 && self.random.one_in(3) {
                        Value::Null
                    } else {
                        (0..count).map(|_| self.element(way.to)).collect()
                    }
                }
                // Here a volume's source; everywhere else the way to the pod spec.
                (false, "image") if self.random.one_in(2) => continue,
                (false, _) if self.random.one_in(150) => Value::Null,
                (false, _) => self.object(way.to, false),
            };
            fields.insert(way.key.clone(), value);
        }
        if let Some(image) = this.image {
            match self.random.below(12) {
                0 => {}
                1 => _ = fields.insert(image.to_owned(), Value::Null),
                _ => _ = fields.insert(image.to_owned(), self.text()),
            }
        }
        for _ in 0..self.random.below(3) {
            let (key, form) = self.random.pick(&this.fields);
            let is_taken =
                fields.contains_key(key) || this.image == Some(key) || this.ways.iter().any(|w| w.key == *key);
            let is_fixed = is_root && matches!(key.as_str(), "kind" | "apiVersion" | "metadata");
            if !is_taken && !is_fixed {
                let value = self.of_form(*form);
                fields.insert(key.clone(), value);
            }
        }
        if self.random.one_in(24) {
            self.unknown(this, &mut fields);
        }
        Value::Object(fields)
    }

    /// A container or volume.
    fn element(&mut self, of: usize) -> Value {
        let mut element = self.object(of, false);
        if let Some(fields) = element.as_object_mut() {
            match self.random.below(40) {
                0 => _ = fields.remove("name"),
                1 => _ = fields.insert("name".to_owned(), Value::Null),
                _ => _ = fields.insert("name".to_owned(), json!(*self.random.pick(&NAMES))),
            }
        }
        element
    }

    /// A field that no schema knows.
    fn unknown(&mut self, this: &Type, fields: &mut Map<String, Value>) {
        // These are image-like whatever the case, so they may stand where no known key is near.
        let mut key = *self.random.pick(&UNKNOWN);
        for (whole, known) in
            [("Image", "image"), ("REFERENCE", "reference"), ("image", "image"), ("reference", "reference")]
        {
            if self.random.one_in(6) && !this.knows(known) {
                key = whole;
            }
        }
        let value = self.anything(3);
        fields.insert(key.to_owned(), value);
    }

    fn text(&mut self) -> Value {
        match self.random.below(400) {
            0 => Value::String("a".repeat(1 + self.random.below(6000))),
            _ => json!(*self.random.pick(&TEXTS)),
        }
    }

    fn of_form(&mut self, form: Form) -> Value {
        if self.random.one_in(10) {
            return Value::Null;
        }
        match form {
            Form::Text => self.text(),
            Form::Number => json!(self.random.below(100_000)),
            Form::Truth => json!(self.random.one_in(2)),
            Form::List => (0..self.random.below(3)).map(|_| self.anything(2)).collect(),
            Form::Object => {
                let count = self.random.below(3);
                self.fields(count, 2)
            }
        }
    }

    /// Any value, nested at most so deep.
    fn anything(&mut self, depth: usize) -> Value {
        match self.random.below(if depth == 0 { 5 } else { 9 }) {
            0 => Value::Null,
            1 => json!(self.random.one_in(2)),
            2 => json!(*self.random.pick(&[0.5, -1.5, 1e300, 0.0])),
            3 => json!(u64::MAX),
            4 => self.text(),
            5 => (0..self.random.below(3)).map(|_| self.anything(depth - 1)).collect(),
            _ => {
                let count = self.random.below(3);
                self.fields(count, depth - 1)
            }
        }
    }

    fn fields(&mut self, count: usize, depth: usize) -> Value {
        let field = |_| ((*self.random.pick(&INNER)).to_owned(), self.anything(depth));
        Value::Object((0..count).map(field).collect())
    }

    /// Gives an object its kind and its metadata.
    fn name_it(&mut self, object: &mut Value, group: &str, version: &str, kind: &str) {
        if !object.is_object() {
            *object = json!({});
        }
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let mut metadata = json!({"name": *self.random.pick(&["a", "b"]), "labels": {"image": "x"}});
        if self.random.one_in(2) {
            metadata["namespace"] = json!("payments-1");
        }
        for (key, value) in [
            ("annotations", json!({"image": "evil", "reference": "evil", "kubernetes.io/config.mirror": "x"})),
            ("deletionTimestamp", json!("2026-11-02T10:00:00Z")),
            ("managedFields", json!([{"fieldsV1": {"f:spec": {"f:containers": {"f:image": {}}}}}])),
            ("ownerReferences", json!([{"kind": "ReplicaSet", "reference": "x", "controller": true}])),
            ("finalizers", json!(["example.com/hold"])),
        ] {
            if self.random.one_in(5) {
                metadata[key] = value;
            }
        }
        object["apiVersion"] = json!(api_version);
        object["kind"] = json!(kind);
        object["metadata"] = metadata;
    }

    /// Makes an object another in one or two ways, or in none.
    fn change(&mut self, object: &mut Value) {
        for _ in 0..self.random.below(3) {
            match self.random.below(4) {
                0 => object["metadata"]["finalizers"] = json!(["example.com/other"]),
                1 => object["status"] = self.anything(2),
                _ => {
                    if let Some(spec) = pod_template_or_spec(object, self.random) {
                        self.change_spec(spec);
                    }
                }
            }
        }
    }

    fn change_spec(&mut self, spec: &mut Value) {
        let list = *self.random.pick(&["containers", "initContainers", "ephemeralContainers", "volumes"]);
        if self.random.one_in(5) {
            return self.change_values(spec, list);
        }
        let other = *self.random.pick(&TEXTS);
        let (unknown, value) = (*self.random.pick(&UNKNOWN), self.anything(1));
        let Some(fields) = spec.as_object_mut() else { return };
        let Some(elements) = fields.get_mut(list).and_then(Value::as_array_mut).filter(|list| !list.is_empty()) else {
            _ = fields.insert(unknown.to_owned(), value);
            return;
        };
        let (a, b) = (self.random.below(elements.len()), self.random.below(elements.len()));
        match self.random.below(8) {
            0 => elements.swap(a, b),
            1 => _ = elements.remove(a),
            2 => elements.push(elements[a].clone()),
            3 => elements[a]["name"] = json!(*self.random.pick(&NAMES)),
            4 => elements[a][unknown] = value,
            5 => {
                // Two images swapped.
                let (first, second) = (elements[a]["image"].take(), elements[b]["image"].take());
                elements[b]["image"] = first;
                if a != b {
                    elements[a]["image"] = second;
                }
            }
            _ if list == "volumes" => elements[a]["image"] = json!({"reference": other}),
            _ => elements[a]["image"] = json!(other),
        }
    }

    /// Gives unknown fields that are named like an image, in the spec and in what stands in a list of it, another value.
    fn change_values(&mut self, spec: &mut Value, list: &str) {
        let mut change = |of: &mut Value, known: &str| {
            for (key, value) in of.as_object_mut().into_iter().flatten().filter(|(key, _)| *key != known) {
                if ["image", "reference"].iter().any(|part| key.to_ascii_lowercase().contains(part)) {
                    *value = self.anything(1);
                }
            }
        };
        change(spec, "");
        for element in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            change(element, "image");
            if list == "volumes"
                && let Some(image) = element.get_mut("image")
            {
                change(image, "reference");
            }
        }
    }
}

/// The pod spec of an object, now and then what stands around it.
fn pod_template_or_spec<'v>(object: &'v mut Value, random: &mut Random) -> Option<&'v mut Value> {
    let mut at = object;
    loop {
        let fields = at.as_object()?;
        if fields.contains_key("containers") || random.one_in(30) {
            return Some(at);
        }
        let next = ["template", "jobTemplate", "spec"].into_iter().find(|key| fields.contains_key(*key))?;
        at = at.get_mut(next)?;
    }
}
