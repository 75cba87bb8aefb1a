//! Runs every folder of `tests/cases` against `plan` and `decide`: adding a case needs no Rust. It must never hold a case.
//!
//! A case is `review.json` (an `AdmissionReview` as an API server sends it), `policy.yaml` (any number of documents),
//! `evidence.json` (what the edges answer for each image; images that are not named there must not be asked for) and
//! `want.json`. Keys are those of `tests/cases/keys`, named in evidence by file name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use crate::decision::code::Code;
use crate::decision::decide::{Enough, decide, refuse};
use crate::decision::evidence::{
    Answer, Facts, Identity, Origin, Rejected, StatementKind, StatementParts, Unanswered, VerifiedStatement,
};
use crate::decision::plan::{Limits, plan};
use crate::decision::policy::{Governing, PolicySet};
use crate::decision::reference::{Digest, PinnedImage};
use crate::decision::review::{Caller, Subject};
use crate::decision::verdict::{OverrideRequest, Permission, Verdict};
use crate::edge::admission::{self, Undecodable};
use crate::edge::policy_dir;
use crate::edge::sigstore::key::parse_pem;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct GivenFacts {
    statements: Vec<GivenStatement>,
    rejected: Vec<GivenReason>,
    unanswered: Vec<GivenReason>,
    image_fault: Option<GivenReason>,
    children: Option<Vec<Digest>>,
    limit: Option<String>,
    /// The search stopped before every source was asked.
    stopped_early: bool,
    /// Signature checks that it took.
    checks: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct GivenStatement {
    /// File name in `tests/cases/keys`, without its ending.
    key: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    signed_for: Option<String>,
    /// Present: an attestation of this predicate type.
    #[serde(default)]
    predicate_type: Option<String>,
    /// Present: a statement about another digest.
    #[serde(default)]
    subject: Option<Digest>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenReason {
    code: Code,
    #[serde(default)]
    detail: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Want {
    verdict: String,
    /// `code place policy/rule`; the last two are left out where the denial has none.
    #[serde(default)]
    denials: Vec<String>,
    #[serde(default)]
    notes: Vec<String>,
    /// What waives denials: `request user ticket: reason (policies)`, before the policies `for container` where it is one's.
    #[serde(default)]
    overrides: Vec<String>,
    /// Who sends the review: `token` (the default), `unknown`, or `{"certificate": subject}`.
    #[serde(default = "by_token")]
    caller: Caller,
    /// Whether the evidence given is enough to stop the search; left out where nothing is asked.
    #[serde(default)]
    enough: Option<bool>,
    /// The time of the review; the default is 2026-11-01.
    #[serde(default)]
    now: Option<jiff::Timestamp>,
}

fn by_token() -> Caller {
    Caller::Token
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

fn names() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder())
        .expect("tests/cases")
        .map(|entry| entry.expect("entry"))
        .filter(|entry| entry.path().join("want.json").exists())
        .map(|entry| entry.file_name().into_string().expect("a case's name is plain text"))
        .collect();
    names.sort();
    names
}

fn read<T: serde::de::DeserializeOwned>(case: &str, file: &str) -> T {
    let text = fs::read(folder().join(case).join(file)).unwrap_or_else(|e| panic!("{case}/{file}: {e}"));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{case}/{file}: {e}"))
}

fn policies(case: &str) -> Arc<PolicySet> {
    let place = tempfile::tempdir().expect("a folder");
    fs::create_dir(place.path().join("keys")).expect("keys");
    for key in fs::read_dir(folder().join("keys")).expect("keys") {
        let key = key.expect("entry").path();
        fs::copy(&key, place.path().join("keys").join(key.file_name().expect("name"))).expect("copy");
    }
    fs::copy(folder().join(case).join("policy.yaml"), place.path().join("policy.yaml")).expect("policy.yaml");
    let loaded = policy_dir::load(place.path(), &policy_dir::Known::default());
    assert!(loaded.problems.is_empty(), "{case}/policy.yaml: {:?}", loaded.problems);
    loaded.set
}

fn facts(given: &GivenFacts, digest: Digest) -> Facts {
    let key = |name: &str| {
        let text =
            fs::read_to_string(folder().join(format!("keys/{name}.pub"))).unwrap_or_else(|e| panic!("{name}: {e}"));
        parse_pem(&text).expect("a key").fingerprint
    };
    let reason =
        |given: &GivenReason| Rejected { source: "here".to_owned(), code: given.code, detail: given.detail.clone() };
    let statement = |given: &GivenStatement| {
        VerifiedStatement::vouch(StatementParts {
            subject: given.subject.unwrap_or(digest),
            kind: match &given.predicate_type {
                None => StatementKind::ImageSignature,
                Some(predicate_type) => StatementKind::Attestation { predicate_type: predicate_type.clone() },
            },
            identity: Identity::Key(key(&given.key)),
            annotations: given.annotations.clone(),
            signed_for: given.signed_for.clone(),
            evidence: digest,
            source: "here".to_owned(),
        })
    };
    Facts {
        statements: given.statements.iter().map(statement).collect(),
        rejected: given.rejected.iter().map(reason).collect(),
        unanswered: given.unanswered.iter().map(|u| Unanswered { code: u.code, detail: u.detail.clone() }).collect(),
        image_fault: given.image_fault.as_ref().map(reason),
        children: given.children.clone(),
        limit: given.limit.clone(),
        exhausted: !given.stopped_early,
        checks: given.checks,
    }
}

fn describe(verdict: &Verdict) -> Vec<String> {
    verdict
        .denials()
        .iter()
        .map(|denial| {
            let mut text = denial.code().to_string();
            if let Some(place) = denial.place() {
                text.extend([" ", place.path.as_str()]);
            }
            if let Some(policy) = denial.policy() {
                text.extend([" ", policy.name.as_str()]);
            }
            if let Some(rule) = denial.rule() {
                text.extend(["/", rule.as_str()]);
            }
            text
        })
        .collect()
}

fn describe_overrides(verdict: &Verdict) -> Vec<String> {
    let one = |permission: &Permission| {
        let Permission::Request(OverrideRequest { user, ticket, reason, container, policies }) = permission;
        let container = container.as_ref().map(|name| format!(" for {name}")).unwrap_or_default();
        let policies = policies.iter().map(|stamp| stamp.name.as_str()).collect::<Vec<_>>().join(", ");
        format!("{} {user} {ticket}: {reason}{container} ({policies})", permission.kind())
    };
    verdict.permissions().iter().map(one).collect()
}

fn judge(case: &str, want: &Want) -> Verdict {
    let evidence: BTreeMap<String, GivenFacts> = read(case, "evidence.json");
    let body = fs::read(folder().join(case).join("review.json")).expect("review.json");
    let mut review = match admission::decode(&body) {
        Ok(review) => review,
        Err(Undecodable::Refuse { fault, .. }) => {
            assert!(evidence.is_empty(), "{case}: evidence that nobody asks for");
            return refuse(&fault);
        }
        Err(Undecodable::NoReply { detail }) => panic!("{case}: no reply possible: {detail}"),
    };
    review.request.caller = want.caller.clone();
    let governing = if review.subject == Subject::NoImages || review.leaves_all_images() {
        Governing::default()
    } else {
        policies(case).governing(&review.namespace)
    };
    let now = want.now.unwrap_or_else(|| "2026-11-01T00:00:00Z".parse().expect("a time"));
    let plan = plan(&review, &governing, Limits::default());
    let asked: Vec<&PinnedImage> = plan.questions().iter().map(|q| &q.image).collect();
    let mut told: Vec<PinnedImage> = evidence.keys().map(|k| k.clone().try_into().expect("a pinned image")).collect();
    told.sort();
    let mut sorted = asked.clone();
    sorted.sort();
    assert_eq!(sorted, told.iter().collect::<Vec<_>>(), "{case}: the images that are asked for");
    let answers: Vec<Answer> = asked
        .iter()
        .map(|image| {
            let given = evidence.get(&image.to_string()).expect("told");
            Answer { facts: Arc::new(facts(given, image.digest())), origin: Origin::Fetched }
        })
        .collect();
    let enough: Vec<bool> = (0..answers.len())
        .map(|index| Enough::new(&plan, &governing, index, now).expect("a question").holds(&answers[index].facts))
        .collect();
    let all = if enough.is_empty() { None } else { Some(enough.iter().all(|e| *e)) };
    assert_eq!(all, want.enough, "{case}: whether the evidence is enough");
    let verdict = decide(&review, &governing, &plan, &answers, now);
    // Whatever is enough to stop looking must be enough to admit, and the other way round: else a search ends too early.
    if all == Some(true) {
        assert!(verdict.denials().iter().all(|d| d.code().blame() != crate::decision::code::Blame::Evidence), "{case}");
    }
    verdict
}

#[test]
fn every_case_ends_as_it_must() {
    let names = names();
    assert!(names.len() > 40, "only {} cases were found", names.len());
    let mut wrong = Vec::new();
    for case in &names {
        let want: Want = read(case, "want.json");
        let verdict = judge(case, &want);
        let notes: Vec<&str> = verdict.notes().iter().map(|note| note.as_str()).collect();
        let got = (
            verdict.word().to_owned(),
            describe(&verdict),
            notes.iter().map(ToString::to_string).collect::<Vec<_>>(),
            describe_overrides(&verdict),
        );
        let wanted = (want.verdict, want.denials, want.notes, want.overrides);
        if got != wanted {
            wrong.push(format!("{case}:\n  want {wanted:?}\n  got  {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), names.len(), wrong.join("\n"));
}
