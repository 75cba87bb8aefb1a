//! The manifests as their authors write them, and their JSON Schema, from the same types. It must never offer in the
//! schema what this version cannot honour, nor take such a key for an unknown one.

use std::borrow::Cow;

use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use crate::decision::policy::Mode;

use super::read::{At, Named, NotYet};

/// The kinds of manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `ReleasePolicy`
    ReleasePolicy,
    /// `DenyList`
    DenyList,
}

impl Kind {
    /// As `kind:` says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReleasePolicy => "ReleasePolicy",
            Self::DenyList => "DenyList",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The one `apiVersion`.
pub(super) const API_VERSION: &str = "provost.dev/v1";

/// The JSON Schema (2020-12) of a kind; of either kind where none is given.
#[must_use]
pub fn schema(kind: Option<Kind>) -> serde_json::Value {
    let generator = schemars::generate::SchemaSettings::draft2020_12().with_transform(AbsentIsNotNull).into_generator();
    let schema = match kind {
        Some(Kind::ReleasePolicy) => generator.into_root_schema_for::<ReleasePolicy>(),
        Some(Kind::DenyList) => generator.into_root_schema_for::<DenyList>(),
        None => generator.into_root_schema_for::<Manifest>(),
    };
    schema.to_value()
}

/// The keys and words that a later version honours, with what to do until then.
const NOT_YET: [(&str, &str); 12] = [
    ("labels", "labels come with the cluster; write `names`"),
    ("grants", "one person may ask at once by `request`; remove it"),
    ("rbac", "list who may ask in `users` and `groups`; remove it"),
    ("keyless", "write the signer's `keys`"),
    ("certificate", "write the signer's `keys`"),
    ("secret", "write `file` or `pem`"),
    ("required", "it cannot check transparency logs; write `not-required`, which is then true of this signer's keys"),
    ("attestations", "it judges signatures and listed digests; remove it"),
    ("where", "it judges signatures and listed digests; remove it"),
    ("platforms", "the pinned digest itself is judged; remove it"),
    ("imageLabels", "it judges signatures and listed digests; remove it"),
    ("maxAge", "it judges signatures and listed digests; remove it"),
];

/// Whether a key or word waits for a later version, and what to do until then.
pub(super) fn not_yet_hint(key: &str) -> Option<(&'static str, &'static str)> {
    NOT_YET.iter().find(|(known, _)| *known == key).copied()
}

/// Either manifest.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, clippy::large_enum_variant, reason = "its schema is what it is for")]
enum Manifest {
    ReleasePolicy(ReleasePolicy),
    DenyList(DenyList),
}

/// Which images may run in some namespaces, and what they must prove. Every policy whose namespaces match must allow.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ReleasePolicy {
    #[serde(rename = "apiVersion")]
    pub(super) _api_version: At<ApiVersion>,
    #[serde(rename = "kind")]
    pub(super) _kind: At<ReleasePolicyKind>,
    pub(super) metadata: At<Metadata>,
    pub(super) spec: At<ReleasePolicySpec>,
}

/// Digests that never run, whatever signs them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DenyList {
    #[serde(rename = "apiVersion")]
    pub(super) _api_version: At<ApiVersion>,
    #[serde(rename = "kind")]
    pub(super) _kind: At<DenyListKind>,
    pub(super) metadata: At<Metadata>,
    pub(super) spec: At<DenyListSpec>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(inline)]
pub(super) enum ApiVersion {
    #[serde(rename = "provost.dev/v1")]
    V1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(inline)]
pub(super) enum ReleasePolicyKind {
    ReleasePolicy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(inline)]
pub(super) enum DenyListKind {
    DenyList,
}

/// The name of the policy; labels and annotations are for other tools and change nothing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Metadata {
    /// A DNS subdomain: lower-case letters, digits, `-` and `.`.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub(super) name: At<String>,
    /// For other tools.
    #[serde(rename = "labels")]
    pub(super) _labels: Option<At<Named<String>>>,
    /// For other tools.
    #[serde(rename = "annotations")]
    pub(super) _annotations: Option<At<Named<String>>>,
}

/// What a policy says.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ReleasePolicySpec {
    /// Which namespaces it governs.
    pub(super) namespaces: At<Namespaces>,
    /// enforce (default): what it says denies. warn: it is recorded and shown as a warning. audit: it is recorded.
    pub(super) mode: Option<At<Mode>>,
    /// People and pipelines, named once and used in `by`.
    #[schemars(extend("minProperties" = 1))]
    pub(super) signers: Option<At<Named<Signer>>>,
    /// An image needs one rule that covers it, and must satisfy every rule that does.
    #[schemars(length(min = 1))]
    pub(super) rules: At<Vec<At<Rule>>>,
    /// How what this policy denies may be overridden. Absent: not at all.
    pub(super) break_glass: Option<At<BreakGlass>>,
}

/// How denials are overridden.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct BreakGlass {
    /// One person, at once, for one pod or debug container that the person sends.
    #[schemars(required)]
    pub(super) request: Option<At<OverrideRequests>>,
    #[schemars(skip)]
    pub(super) grants: Option<NotYet>,
}

/// Who may override what with the annotation `provost.dev/break-glass-reason: "<ticket> <why>"`: at least one user or group.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["users"]}, {"required": ["groups"]}]))]
pub(super) struct OverrideRequests {
    /// Kubernetes users, exact. No service accounts, nodes or parts of Kubernetes.
    #[schemars(length(min = 1))]
    pub(super) users: Option<At<Vec<At<String>>>>,
    /// Kubernetes groups, exact.
    #[schemars(length(min = 1))]
    pub(super) groups: Option<At<Vec<At<String>>>>,
    /// Which denials such a request may waive.
    #[schemars(length(min = 1))]
    pub(super) waivable: At<Vec<At<Waivable>>>,
    /// What the ticket must look like: text in which `*` is any run of one character or more.
    #[schemars(length(min = 1, max = 64))]
    pub(super) ticket_pattern: At<String>,
    /// Whether somebody who is not listed may ask who is allowed to by a role.
    #[schemars(extend("const" = false))]
    pub(super) rbac: Option<At<bool>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(super) enum Waivable {
    Repository,
    Signatures,
    #[schemars(skip)]
    Attestations,
}

/// Which namespaces a policy governs: either `names` or `otherwise`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["names"]}, {"required": ["otherwise"]}]))]
pub(super) struct Namespaces {
    /// Names, in which `*` is any run of characters. `*` alone is every namespace, as a baseline beside other policies.
    #[schemars(length(min = 1))]
    pub(super) names: Option<At<Vec<At<String>>>>,
    /// Every namespace that no enforcing policy matches by name; a policy for `*` alone does not count.
    #[schemars(extend("const" = true))]
    pub(super) otherwise: Option<At<bool>>,
    #[schemars(skip)]
    pub(super) labels: Option<NotYet>,
}

/// Somebody who signs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Signer {
    /// Several keys are one signer that rotates.
    #[schemars(length(min = 1), required)]
    pub(super) keys: Option<At<Vec<At<SignerKey>>>>,
    /// Must be written: this version verifies the signatures of keys without a transparency log.
    #[schemars(required)]
    pub(super) transparency_log: Option<At<TransparencyLog>>,
    #[schemars(skip)]
    pub(super) keyless: Option<NotYet>,
    #[schemars(skip)]
    pub(super) certificate: Option<NotYet>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(super) enum TransparencyLog {
    NotRequired,
    #[schemars(skip)]
    Required,
}

/// A public key: either `file` or `pem`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["file"]}, {"required": ["pem"]}]))]
pub(super) struct SignerKey {
    /// A PEM file beside this file or below it.
    #[schemars(length(min = 1))]
    pub(super) file: Option<At<String>>,
    /// The PEM text itself.
    #[schemars(length(min = 1))]
    pub(super) pem: Option<At<String>>,
    /// A date (from its first moment in UTC) or a timestamp; before it the key does not count.
    #[schemars(regex(pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"))]
    pub(super) not_before: Option<At<String>>,
    /// A date (to its last moment in UTC) or a timestamp; after it the key does not count.
    #[schemars(regex(pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"))]
    pub(super) not_after: Option<At<String>>,
    /// Only for RSA keys that sign with PSS; all else follows from the key.
    pub(super) scheme: Option<At<Scheme>>,
    #[schemars(skip)]
    pub(super) secret: Option<NotYet>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(super) enum Scheme {
    RsaPss,
}

/// The repositories that a rule covers, and what their images must prove.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Rule {
    /// The rule's name within its policy.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub(super) name: At<String>,
    /// An exact host, then a path in which `*` stays inside one segment and `**` is one segment or more.
    #[schemars(length(min = 1))]
    pub(super) repositories: At<Vec<At<String>>>,
    /// Who must have signed. `not-required` only beside `digests`.
    #[schemars(required)]
    pub(super) signatures: Option<At<Signatures>>,
    /// Exact digests that somebody has looked at: only these pass.
    #[schemars(length(min = 1))]
    pub(super) digests: Option<At<Vec<At<String>>>>,
    /// What the signature that counts must say.
    #[schemars(extend("minProperties" = 1))]
    pub(super) annotations: Option<At<Named<String>>>,
    /// Repository patterns; the signature that counts must name such a repository.
    #[schemars(length(min = 1))]
    pub(super) signed_from: Option<At<Vec<At<String>>>>,
    #[schemars(skip)]
    pub(super) attestations: Option<NotYet>,
    #[schemars(skip)]
    #[serde(rename = "imageLabels")]
    pub(super) image_labels: Option<NotYet>,
    #[schemars(skip)]
    #[serde(rename = "where")]
    pub(super) _where: Option<NotYet>,
    #[schemars(skip)]
    #[serde(rename = "platforms")]
    pub(super) _platforms: Option<NotYet>,
    #[schemars(skip)]
    #[serde(rename = "maxAge")]
    pub(super) _max_age: Option<NotYet>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
pub(super) enum Signatures {
    #[serde(rename = "not-required")]
    NotRequired,
    #[serde(rename = "{}")]
    #[schemars(untagged)]
    By(SignedBy),
}

/// Who must have signed, and how many of them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SignedBy {
    /// Signers of this policy.
    #[schemars(length(min = 1))]
    pub(super) by: At<Vec<At<String>>>,
    /// How many of them; 1 where it is absent. One key counts for one signer only.
    #[schemars(range(min = 1))]
    pub(super) at_least: Option<At<usize>>,
    #[schemars(skip)]
    #[serde(rename = "platforms")]
    pub(super) _platforms: Option<NotYet>,
}

/// What a deny-list says.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DenyListSpec {
    /// The withdrawn digests.
    #[schemars(length(min = 1))]
    pub(super) digests: At<Vec<At<WithdrawnDigest>>>,
}

/// A withdrawn digest.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WithdrawnDigest {
    /// `sha256:` and 64 lower-case hex digits.
    #[schemars(regex(pattern = r"^sha256:[0-9a-f]{64}$"))]
    pub(super) digest: At<String>,
    /// What to tell the user: why, and what to use instead.
    #[schemars(length(min = 1, max = 500))]
    pub(super) reason: At<String>,
    /// Since when: a date or a timestamp.
    pub(super) since: Option<At<String>>,
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        <std::collections::BTreeMap<String, T>>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        <std::collections::BTreeMap<String, T>>::json_schema(generator)
    }
}

/// To the parser a key that is absent and a key without a value are two things; schemars writes both for an `Option`.
#[derive(Debug, Clone)]
struct AbsentIsNotNull;

impl Transform for AbsentIsNotNull {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        let Some(object) = schema.as_object_mut() else { return };
        if let Some(serde_json::Value::Array(types)) = object.get_mut("type") {
            types.retain(|name| name != "null");
            if let [one] = types.as_slice() {
                let one = one.clone();
                object.insert("type".to_owned(), one);
            }
        }
        if let Some(serde_json::Value::Array(values)) = object.get_mut("enum") {
            values.retain(|value| !value.is_null());
        }
        if let Some(serde_json::Value::Array(options)) = object.get_mut("anyOf") {
            options.retain(|option| option.get("type").is_none_or(|name| name != "null"));
            if let [serde_json::Value::Object(one)] = options.as_slice() {
                let one = one.clone();
                object.remove("anyOf");
                object.extend(one.into_iter().filter(|(key, _)| key != "description"));
            }
        }
    }
}
