//! The table: every sample of every registry, judged by Provost and by cosign.

use super::fixture::{self, CRANE, DISTRIBUTION, FORMATS, Judge, REFERRERS, Samples, in_parallel, keys, samples, word};
use super::support::images::{Format, cosign_verify};
use super::support::keys::Key;

/// A question: a sample, the policy that Provost judges by, what it must say; and what cosign must be asked so that it
/// is the same question: every one of these keys, with these annotations.
#[derive(Debug, Clone)]
struct Row {
    sample: String,
    policy: &'static str,
    want: &'static str,
    format: Format,
    keys: Vec<&'static Key>,
    annotations: &'static [&'static str],
}

/// Every question whose answer cosign knows.
fn rows(format: Format) -> Vec<Row> {
    let fixture::Keys { k1, k2, other, .. } = keys();
    let row = |what: &str, policy, keys: &[&'static Key], want| Row {
        sample: format!("{what}-{}", word(format)),
        policy,
        want,
        format,
        keys: keys.to_vec(),
        annotations: &[],
    };
    let mut rows = vec![
        row("one", "by-k1", &[k1], "admit"),
        row("one", "by-other", &[other], "wrong-signer"),
        row("one", "by-both", &[k1, k2], "threshold-not-met"),
        row("two", "by-k1", &[k1], "admit"),
        row("two", "by-k2", &[k2], "admit"),
        row("two", "by-both", &[k1, k2], "admit"),
        row("two", "by-other", &[other], "wrong-signer"),
        Row { annotations: &["env=prod"], ..row("annotated", "by-k1-for-prod", &[k1], "admit") },
        Row { annotations: &["env=test"], ..row("annotated", "by-k1-for-test", &[k1], "annotation-mismatch") },
        Row { annotations: &["env=prod"], ..row("one", "by-k1-for-prod", &[k1], "annotation-mismatch") },
        row("annotated", "by-k1", &[k1], "admit"),
        row("index", "by-k1", &[k1], "admit"),
        row("index", "by-other", &[other], "wrong-signer"),
        row("beside", "by-k1", &[k1], "admit"),
        row("beside", "by-other", &[other], "wrong-signer"),
    ];
    // A child of a signed index, pinned by itself, is not signed.
    rows.push(Row { sample: format!("index-{}/0", word(format)), ..row("", "by-k1", &[k1], "unsigned") });
    rows.push(Row { sample: "unsigned".to_owned(), ..row("", "by-k1", &[k1], "unsigned") });
    if format == Format::Legacy {
        // `no_oracle` says why only this format.
        rows.push(row("attested", "by-k1", &[k1], "unsigned"));
    }
    rows
}

/// Everything in which Provost does not say what it must, or cosign does not agree.
fn disagreements(samples: &Samples, rows: Vec<Row>) -> Vec<String> {
    let judge = Judge::of(&samples.registry);
    let judged = in_parallel(rows, |row| {
        let image = samples.image(&row.sample);
        let got = judge.verify(&image.pinned(), row.policy).verdict();
        let cosign = row
            .keys
            .iter()
            .all(|key| cosign_verify(&samples.registry, image, key, row.format, row.annotations).code == 0);
        let agrees = cosign == (row.want == "admit");
        (got != row.want || !agrees).then(|| {
            let Row { sample, policy, want, .. } = row;
            let cosign = if cosign { "accepts" } else { "refuses" };
            format!("{sample} {policy}: want {want}; provost: {got}; cosign {cosign}")
        })
    });
    judged.into_iter().flatten().collect()
}

fn agree(registry: &'static str, formats: &[Format]) {
    let wrong = disagreements(samples(registry), formats.iter().copied().flat_map(rows).collect());
    assert!(wrong.is_empty(), "{registry}:\n{}", wrong.join("\n"));
}

#[test]
fn x_051_x_053_x_064_provost_and_cosign_agree_on_crane() {
    agree(CRANE, &FORMATS[..2]);
}

#[test]
fn x_051_x_053_x_064_provost_and_cosign_agree_on_distribution() {
    agree(DISTRIBUTION, &FORMATS[..2]);
}

#[test]
fn x_051_x_053_x_064_provost_and_cosign_agree_with_the_referrers_api() {
    agree(REFERRERS, &FORMATS[..2]);
}

/// P-256 is the kind of every key above. For the other two kinds cosign is no oracle: see `no_oracle`.
#[test]
fn provost_and_cosign_agree_on_rsa() {
    let fixture::Keys { other, kinds, .. } = keys();
    let rows = [Format::Bundle, Format::Legacy].into_iter().flat_map(|format| {
        [("by-rsa", &kinds["rsa"], "admit"), ("by-other", other, "wrong-signer")].map(|(policy, key, want)| Row {
            sample: format!("rsa-{}", word(format)),
            policy,
            want,
            format,
            keys: vec![key],
            annotations: &[],
        })
    });
    let wrong = disagreements(samples(REFERRERS), rows.collect());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
