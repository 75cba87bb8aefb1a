//! The second extractor: every image of an object, by the schema alone. Written from the OpenAPI; it must never look at
//! how Provost finds an image.

use serde_json::Value;

use crate::schema::Schema;

/// What an object holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held<'v> {
    pub(crate) images: Vec<Item<'v>>,
    /// Unknown fields that may hold an image.
    pub(crate) strangers: Vec<Item<'v>>,
    pod_template: Option<&'v Value>,
    /// The list and the name of every element that has one.
    named: Vec<(&'v str, &'v str)>,
}

/// An image, or an unknown field.
#[derive(Debug, Clone)]
pub(crate) struct Item<'v> {
    /// Where it stands: that of the container or volume source for an image, that of the field for an unknown field.
    pub(crate) path: String,
    /// The nearest list on the way and the `name` of the element there.
    pub(crate) list: &'v str,
    pub(crate) name: &'v str,
    /// The field below that element, and its value.
    below: (bool, &'v str),
    pub(crate) value: Option<&'v Value>,
    pub(crate) unchanged: bool,
}

impl<'v> Item<'v> {
    pub(crate) fn text(&self) -> &'v str {
        self.value.and_then(Value::as_str).unwrap_or_default()
    }
}

impl<'v> Held<'v> {
    /// Everything that an object of a type holds.
    pub(crate) fn of(schema: &'v Schema, of: usize, object: &'v Value) -> Self {
        let mut held = Self::default();
        held.walk(schema, of, object, "", ("", ""), false);
        held
    }

    fn walk(
        &mut self,
        schema: &'v Schema,
        of: usize,
        object: &'v Value,
        path: &str,
        at: (&'v str, &'v str),
        in_it: bool,
    ) {
        let (Some(fields), this) = (object.as_object(), &schema.types[of]) else { return };
        let item = |path: String, below: &'v str, value| Item {
            path,
            list: at.0,
            name: at.1,
            below: (in_it, below),
            value,
            unchanged: false,
        };
        if let Some(image) = this.image {
            self.images.push(item(path.to_owned(), image, fields.get(image)));
        }
        if this.is_watched {
            let strangers =
                fields.iter().filter(|(key, value)| !this.knows(key) && (names_image(key) || holds_image(value)));
            self.strangers.extend(strangers.map(|(key, value)| item(format!("{path}.{key}"), key, Some(value))));
        }
        if this.is_pod_template {
            self.pod_template = Some(object);
        }
        for way in &this.ways {
            let path = if path.is_empty() { way.key.clone() } else { format!("{path}.{}", way.key) };
            match fields.get(&way.key) {
                Some(Value::Array(elements)) if way.is_list => {
                    for (index, element) in elements.iter().enumerate() {
                        let name = element.get("name").and_then(Value::as_str).unwrap_or_default();
                        self.named.push((&way.key, name));
                        self.walk(schema, way.to, element, &format!("{path}[{index}]"), (&way.key, name), false);
                    }
                }
                Some(value) if !way.is_list => self.walk(schema, way.to, value, &path, at, !at.0.is_empty()),
                _ => {}
            }
        }
    }

    /// Marks what an update leaves as it was (C-37): in a pod an image with the same text in the same list under the same
    /// name; in a template all images, if the whole pod template is equal. An unknown field, if one of the same name with
    /// an equal value stands in the same place; what has no name, or one that stood there twice, cannot be found again.
    pub(crate) fn mark(&mut self, before: &Self) {
        let same = |a: &Item<'_>, b: &Item<'_>| a.list == b.list && a.name == b.name && a.below == b.below;
        let whole = self.pod_template.map(|template| before.pod_template == Some(template));
        for image in &mut self.images {
            image.unchanged =
                whole.unwrap_or_else(|| before.images.iter().any(|old| same(image, old) && image.text() == old.text()));
        }
        for field in &mut self.strangers {
            let times = before.named.iter().filter(|named| **named == (field.list, field.name)).count();
            let mut old = before.strangers.iter();
            field.unchanged = (field.list.is_empty() || (!field.name.is_empty() && times == 1))
                && old.any(|old| same(field, old) && field.value == old.value);
        }
    }
}

/// `image`, `…Image` or `reference`; in any case where it is the whole key.
fn names_image(key: &str) -> bool {
    key.ends_with("Image") || key.eq_ignore_ascii_case("image") || key.eq_ignore_ascii_case("reference")
}

fn holds_image(value: &Value) -> bool {
    match value {
        Value::Array(elements) => elements.iter().any(holds_image),
        Value::Object(fields) => fields.iter().any(|(key, value)| names_image(key) || holds_image(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}
