//! A report as SARIF 2.1.0 (OASIS), as code scanning reads it: one rule for each code, one result for each denial, at the
//! line of its image. It must never leave a denial out.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Report;
use crate::decision::code::Code;
use crate::decision::policy::Mode;
use crate::decision::printable::printable;
use crate::decision::verdict::{Denial, Verdict};
use crate::edge::manifests::{Position, Problem, Spot, Workload};

const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// The report, pretty, with a newline at its end.
pub fn sarif(report: &Report) -> serde_json::Result<String> {
    let mut codes: Vec<Code> = report.checked.iter().flat_map(|(_, verdict)| verdict.codes()).collect();
    codes.sort_unstable();
    codes.dedup();
    let results: Vec<Value> = report
        .checked
        .iter()
        .flat_map(|(workload, verdict)| {
            let codes = &codes;
            verdict.denials().iter().map(move |denial| result(workload, verdict, denial, codes))
        })
        .collect();
    let unread: Vec<Value> = report.problems.iter().map(notification).collect();
    let document = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "provost",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": codes.iter().map(|code| rule(*code)).collect::<Vec<_>>(),
            }},
            "columnKind": "unicodeCodePoints",
            "invocations": [{
                "executionSuccessful": report.problems.is_empty(),
                "toolExecutionNotifications": unread,
            }],
            "results": results,
        }],
    });
    serde_json::to_string_pretty(&document).map(|text| text + "\n")
}

fn rule(code: Code) -> Value {
    json!({
        "id": code.as_str(),
        "shortDescription": {"text": code.meaning()},
        "help": {"text": format!("Do this: {}.", code.advice())},
        "defaultConfiguration": {"level": "error"},
    })
}

fn result(workload: &Workload, verdict: &Verdict, denial: &Denial, codes: &[Code]) -> Value {
    let spot = spot(workload, denial);
    let mut result = json!({
        "ruleId": denial.code().as_str(),
        "level": level(verdict, denial),
        "message": {"text": message(denial)},
        "locations": [location(&workload.file, spot.as_ref().map_or(workload.at, |spot| spot.at), spot.as_ref())],
    });
    if let Some(index) = codes.iter().position(|code| *code == denial.code()) {
        result["ruleIndex"] = index.into();
    }
    result["locations"][0]["logicalLocations"] = json!([{"fullyQualifiedName": printable(&logical(workload, denial))}]);
    result
}

const fn level(verdict: &Verdict, denial: &Denial) -> &'static str {
    match (denial.mode(), verdict) {
        (Mode::Enforce, Verdict::Deny(_) | Verdict::Override(_)) => "error",
        (Mode::Enforce, Verdict::WouldDeny(_) | Verdict::Admit(_) | Verdict::NoImages) | (Mode::Warn, _) => "warning",
        (Mode::Audit, _) => "note",
    }
}

/// One line: what, which image, wanted and found, what to do.
fn message(denial: &Denial) -> String {
    let mut out = denial.code().to_string();
    // Writing to a string does not fail.
    if let Some(image) = denial.image().filter(|image| !image.is_empty()) {
        let _ = write!(out, ": {}", printable(image));
    }
    if !denial.wanted().is_empty() {
        let _ = write!(out, "; wanted {}", printable(denial.wanted()));
    }
    if !denial.found().is_empty() {
        let _ = write!(out, "; found {}", printable(denial.found()));
    }
    if let Some(policy) = denial.policy() {
        let _ = write!(out, "; policy {}", policy.name);
    }
    let _ = write!(out, ". Do this: {}.", denial.advice());
    out
}

fn spot(workload: &Workload, denial: &Denial) -> Option<Spot> {
    let (review, place) = (workload.review.as_ref().ok()?, denial.place()?);
    let index = review.images.iter().position(|image| image.place == *place)?;
    workload.images.get(index).cloned()
}

fn logical(workload: &Workload, denial: &Denial) -> String {
    let request = &workload.request;
    let path = denial.place().map(|place| format!("/{}", place.path)).unwrap_or_default();
    format!("{}/{}/{}{path}", request.namespace, request.kind.kind, request.name)
}

fn location(file: &str, at: Position, spot: Option<&Spot>) -> Value {
    let mut physical = json!({"artifactLocation": {"uri": uri(file)}});
    if at != Position::default() {
        physical["region"] = json!({"startLine": at.line, "startColumn": at.column});
        // The bytes are those of this place only where the image is written here.
        if let Some(Spot { bytes: Some(bytes), written, .. }) = spot
            && *written == at
        {
            physical["region"]["byteOffset"] = bytes.start.into();
            physical["region"]["byteLength"] = bytes.len().into();
        }
    }
    json!({ "physicalLocation": physical })
}

fn notification(problem: &Problem) -> Value {
    json!({
        "level": "error",
        "message": {"text": printable(&problem.what)},
        "locations": [location(&problem.file, problem.at, None)],
    })
}

/// A path as a relative reference or a file URI (RFC 3986).
fn uri(file: &str) -> String {
    let mut out = String::from(if file.starts_with('/') { "file://" } else { "" });
    for byte in file.trim_start_matches("./").bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_references() {
        for (path, want) in [
            ("deploy/web.yaml", "deploy/web.yaml"),
            ("./web.yaml", "web.yaml"),
            ("/srv/a b.yaml", "file:///srv/a%20b.yaml"),
            ("c:d/ü#?.yaml", "c%3Ad/%C3%BC%23%3F.yaml"),
            ("stdin", "stdin"),
        ] {
            assert_eq!(uri(path), want);
        }
    }
}
