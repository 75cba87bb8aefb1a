//! Tests of splicing: every style of YAML, what is refused, and that no other byte moves.

use proptest::prelude::*;

use super::*;
use crate::decision::name::Namespace;
use crate::edge::manifests::contents;

const DIGEST: &str = "@sha256:9ae97d36d26566ff84e8893c64a6dc4fe8ca6d1144bf5b87b2b85a32def253c7";

fn manifest(text: &str) -> Manifest {
    Manifest { name: "m.yaml".to_owned(), path: None, text: text.to_owned() }
}

/// Pins every image that is written.
fn pins(text: &str) -> Vec<Pin> {
    let found = contents(&manifest(text), &Namespace::default_namespace());
    let mut pins = Vec::new();
    for workload in &found.workloads {
        let review = workload.review.as_ref().unwrap_or_else(|fault| panic!("{fault}: {text}"));
        for (image, spot) in review.images.iter().zip(&workload.images) {
            let Some(bytes) = spot.bytes.clone() else { continue };
            pins.push(Pin { bytes, at: spot.at, image: image.text.clone(), suffix: DIGEST.to_owned() });
        }
    }
    assert!(!pins.is_empty(), "{text}");
    pins
}

/// A pod whose containers are this text.
fn pod(containers: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nspec:\n  containers:\n{containers}")
}

#[test]
fn only_the_digest_comes_in() {
    for (name, before) in [
        ("plain", pod("  - image: nginx:1§\n    name: a\n")),
        ("comment", pod("  - image: nginx:1§   # the web server: nginx:1\n")),
        ("single quotes", pod("  - image: 'nginx:1§'\n")),
        ("double quotes", pod("  - image: \"nginx:1§\"\n")),
        ("escapes", pod("  - image: \"\\x6eginx\\u003a1§\"\n")),
        ("tag", pod("  - image: !!str nginx:1§\n")),
        ("literal block", pod("  - image: |-\n      nginx:1§\n    name: a\n")),
        ("folded block, one line", pod("  - image: >-\n      nginx:1§\n\n    name: a\n")),
        ("block at the end", pod("  - image: |-\n      nginx:1§")),
        ("anchor and alias", pod("  - image: &i nginx:1§\n  - image: *i\n")),
        ("alias of a container", pod("  - &c {image: nginx:1§}\n  - *c\n")),
        ("merge", pod("  - &c {image: nginx:1§}\n  - {<<: *c, name: b}\n")),
        ("flow", pod("  - {name: a, image: nginx:1§}\n  - {image: nginx:1§, name: b}\n")),
        ("tight flow", pod("  - {\"name\":\"a\",\"image\":\"nginx:1§\"}\n")),
        ("tabs", pod("  - image:\tnginx:1§\t# c\n")),
        ("no newline at the end", pod("  - image: nginx:1§")),
        ("blanks at the end", pod("  - image: nginx:1§   \n")),
        ("letters before", format!("# größe 日本\n{}", pod("  - name: ü # ä\n    image: nginx:1§ # ö\n"))),
        ("byte-order mark", format!("\u{feff}{}", pod("  - image: nginx:1§\n"))),
        ("CRLF", pod("  - image: nginx:1§ # c\n    name: a\n  - image: |-\n      nginx:1§\n").replace('\n', "\r\n")),
        ("JSON", "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Pod\",\n\t\"spec\": {\"containers\": [{\"image\": \"nginx:1§\"}]}\n}\n".to_owned()),
        ("escapes of JSON", "{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"spec\": {\"containers\": [{\"image\": \"r.example\\/a:1§\"}]}}".to_owned()),
        ("documents", format!("# one\n{}---\n# two: nginx:1\nkind: X\nimage: nginx:1\n---\n{}...\n", pod("  - image: nginx:1§\n"), pod("  - image: nginx:1§\n"))),
        ("the same text elsewhere", pod("  - image: nginx:1§\n    args: [nginx:1]\n    env: [{name: image, value: nginx:1}]\n")),
        ("image volume", "apiVersion: v1\nkind: Pod\nspec:\n  volumes:\n  - image: {reference: data:1§}\n    name: v\n  containers: [{image: nginx:1§}]\n".to_owned()),
        ("list", "{kind: List, items: [{apiVersion: v1, kind: Pod, spec: {containers: [{image: nginx:1§}]}}, {kind: X, image: nginx:1}]}".to_owned()),
    ] {
        let (old, want) = (before.replace('§', ""), before.replace('§', DIGEST));
        assert_eq!(splice(&manifest(&old), &pins(&old)), Ok(want), "{name}");
    }
}

#[test]
fn what_cannot_be_changed_safely_is_refused_with_its_line() {
    for (name, text, want) in [
        (
            "quotes over lines",
            pod("  - image: \"nginx:\\\n      1\"\n"),
            "5:12: the image is written over several lines",
        ),
        (
            "an anchor that is no image",
            pod("  - name: a\n    args: [&i nginx]\n    image: *i\n"),
            "6:15: what stands here is written in the same place as an image",
        ),
        (
            "an alias that is no image",
            pod("  - image: &i nginx\n    args: [*i]\n"),
            "6:12: what stands here is written in the same place as an image",
        ),
        (
            "an alias of a container that is none",
            format!("{}metadata: {{annotations: *c}}\n", pod("  - &c {image: nginx}\n")),
            "6:25: what stands here is written in the same place as an image",
        ),
    ] {
        let refused = splice(&manifest(&text), &pins(&text)).expect_err(name);
        assert!(refused.to_string().starts_with(want), "{name}: {refused}");
        assert!(refused.to_string().ends_with("pin it by hand"), "{name}: {refused}");
    }
}

#[test]
fn a_pin_that_does_not_fit_is_refused() {
    let text = pod("  - image: nginx:1\n");
    let good = pins(&text).remove(0);
    assert!(splice(&manifest(&text), std::slice::from_ref(&good)).is_ok());
    for (name, pin) in [
        ("another image", Pin { image: "nginx".to_owned(), ..good.clone() }),
        ("another place", Pin { bytes: good.bytes.start - 1..good.bytes.end - 1, ..good.clone() }),
        ("outside", Pin { bytes: 900..910, ..good.clone() }),
        ("another use", Pin { at: Position { line: 1, column: 1 }, ..good.clone() }),
        ("a suffix that ends the scalar", Pin { suffix: " # x".to_owned(), ..good.clone() }),
        ("a suffix with a line", Pin { suffix: "\nb: c".to_owned(), ..good.clone() }),
    ] {
        assert!(splice(&manifest(&text), &[pin]).is_err(), "{name}");
    }
    let other = Pin { suffix: DIGEST.replace('9', "8"), ..good.clone() };
    assert!(splice(&manifest(&text), &[good, other]).is_err(), "two digests for one image");
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "# [a-zäß#:'\"{}&*|>-]{0,20}",
        Just("---".to_owned()),
        Just("kind: Service".to_owned()),
    ]
}

fn image() -> impl Strategy<Value = String> {
    let name = "[a-z]{1,8}(/[a-z0-9]{1,8}){0,2}(:[a-z0-9.]{0,6}[a-z0-9])?";
    (name, 0..6_usize).prop_map(|(name, style)| match style {
        0 => format!("'{name}§'"),
        1 => format!("\"{name}§\""),
        2 => format!("|-\n      {name}§"),
        3 => format!("!!str {name}§"),
        4 => format!("&a '{name}§'  # ü {name}"),
        _ => format!("!!str   \"{name}§\" # {name}"),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_other_byte_stays(
        before in proptest::collection::vec(line(), 0..6),
        images in proptest::collection::vec((image(), "( # [a-zü ]{0,9})?"), 1..5),
        crlf: bool,
        mark: bool,
        newline: bool,
    ) {
        let mut marked = String::new();
        if before.iter().any(|line| line.starts_with("kind")) {
            // Keys twice in one document are no matter here.
            marked.push_str(&before.join("\n---\n"));
        } else {
            marked.push_str(&before.join("\n"));
        }
        marked.push_str("\n---\napiVersion: v1\nkind: Pod\nspec:\n  containers:");
        for (image, comment) in &images {
            let comment = if image.contains('\n') { "" } else { comment.as_str() };
            marked.extend(["\n  - name: ö\n    image: ", image.as_str(), comment]);
        }
        if newline {
            marked.push('\n');
        }
        if crlf {
            marked = marked.replace('\n', "\r\n");
        }
        if mark {
            marked.insert(0, '\u{feff}');
        }
        let (old, want) = (marked.replace('§', ""), marked.replace('§', DIGEST));
        prop_assert_eq!(splice(&manifest(&old), &pins(&old)), Ok(want));
    }
}
