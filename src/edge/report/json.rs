//! A report as JSON, with a published schema. It must never change the meaning of a field within one `schemaVersion`.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Report, Totals};
use crate::decision::policy::Mode;
use crate::decision::verdict::{Denial, Verdict};
use crate::edge::manifests::{Position, Spot, Workload};

/// The version of the form. Fields may be added within it.
pub const SCHEMA_VERSION: u32 = 1;

/// The report, pretty, with a newline at its end.
pub fn json(report: &Report) -> serde_json::Result<String> {
    let problems = report.problems.iter();
    let document = Document {
        schema_version: SCHEMA_VERSION,
        workloads: report.checked.iter().map(|(workload, verdict)| one(workload, verdict)).collect(),
        unreadable: problems.map(|p| Unreadable { file: &p.file, place: p.at.into(), message: &p.what }).collect(),
        totals: report.totals(),
    };
    serde_json::to_string_pretty(&document).map(|text| text + "\n")
}

/// The JSON Schema of [`json`].
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Document<'static>).to_value()
}

/// What `provost check -o json` prints.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "CheckReport")]
struct Document<'a> {
    /// The version of this form.
    schema_version: u32,
    /// Each workload, in the order of the manifests.
    workloads: Vec<One<'a>>,
    /// What could not be read, so that nothing can be said about it.
    unreadable: Vec<Unreadable<'a>>,
    /// How many ended how.
    totals: Totals,
}

/// One workload and its verdict.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Workload")]
struct One<'a> {
    /// The file as it was named.
    file: &'a str,
    #[serde(flatten)]
    place: Line,
    /// Group and version, as in a manifest.
    api_version: String,
    /// The kind.
    kind: &'a str,
    /// The namespace in which it was judged.
    namespace: &'a str,
    /// The name, or the beginning of one.
    name: &'a str,
    /// `admit`, `deny`, `override` or `would-deny`.
    verdict: &'static str,
    /// Every reason code, each once.
    codes: Vec<&'static str>,
    /// Every image, in the order in which they are judged.
    images: Vec<Image<'a>>,
    /// Every reason, in the order of the object.
    denials: Vec<Reason<'a>>,
    /// The policies that govern.
    policies: Vec<Policy>,
}

/// An image and where it stands.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the names are those of the published schema")]
struct Image<'a> {
    /// As written.
    #[serde(rename = "image")]
    written: &'a str,
    /// Where in the object.
    path: &'a str,
    /// The name of the container or volume.
    container: &'a str,
    #[serde(flatten)]
    place: Line,
}

/// A line and a column, from 1, in characters; 0 where the whole file is meant.
#[derive(Serialize, JsonSchema)]
struct Line {
    /// The line.
    line: u64,
    /// The column.
    column: u64,
}

/// One reason.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Denial")]
struct Reason<'a> {
    /// The stable code.
    code: &'static str,
    /// Where in the object the image stands; absent where it is about the object as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    /// What was wanted; may be empty.
    wanted: &'a str,
    /// What was found; may be empty.
    found: &'a str,
    /// What to do.
    advice: &'static str,
    /// The policy that denies.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    /// Its rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    /// `enforce`, `warn` or `audit`.
    mode: &'static str,
}

/// A policy by name and content.
#[derive(Serialize, JsonSchema)]
struct Policy {
    /// Its name.
    name: String,
    /// The hash of its content.
    hash: String,
}

/// Something that could not be read.
#[derive(Serialize, JsonSchema)]
struct Unreadable<'a> {
    /// The file as it was named.
    file: &'a str,
    #[serde(flatten)]
    place: Line,
    /// What is wrong.
    message: &'a str,
}

impl From<Position> for Line {
    fn from(Position { line, column }: Position) -> Self {
        Self { line, column }
    }
}

fn one<'a>(workload: &'a Workload, verdict: &'a Verdict) -> One<'a> {
    let request = &workload.request;
    let images = workload.review.as_ref().map(|review| review.images.as_slice()).unwrap_or_default();
    let image = |(image, spot): (&'a crate::decision::review::ReviewedImage, &Spot)| Image {
        written: &image.text,
        path: &image.place.path,
        container: &image.place.name,
        place: spot.at.into(),
    };
    let group = if request.kind.group.is_empty() { String::new() } else { format!("{}/", request.kind.group) };
    One {
        file: &workload.file,
        place: workload.at.into(),
        api_version: group + &request.kind.version,
        kind: &request.kind.kind,
        namespace: &request.namespace,
        name: &request.name,
        verdict: verdict.word(),
        codes: verdict.codes().iter().map(|code| code.as_str()).collect(),
        images: images.iter().zip(&workload.images).map(image).collect(),
        denials: verdict.denials().iter().map(reason).collect(),
        policies: verdict
            .policies()
            .iter()
            .map(|stamp| Policy { name: stamp.name.to_string(), hash: stamp.hash.to_string() })
            .collect(),
    }
}

fn reason(denial: &Denial) -> Reason<'_> {
    Reason {
        code: denial.code().as_str(),
        path: denial.place().map(|place| place.path.as_str()),
        wanted: denial.wanted(),
        found: denial.found(),
        advice: denial.advice(),
        policy: denial.policy().map(|stamp| stamp.name.to_string()),
        rule: denial.rule().map(ToString::to_string),
        mode: match denial.mode() {
            Mode::Enforce => "enforce",
            Mode::Warn => "warn",
            Mode::Audit => "audit",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_schema_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/check-report.json");
        let published = std::fs::read_to_string(path).unwrap_or_default();
        let current = serde_json::to_string_pretty(&schema()).expect("JSON") + "\n";
        assert!(published == current, "run: provost check --schema > schemas/check-report.json");
    }
}
